"""Saving and loading networks: a folder with config.json, model.safetensors and tokenizer.json.

Two forms of config.json are read. From that of the releases (`louaaron/sedd-small`) graph, noise
and sizes are taken, and all else is passed over. Ours has the same names and carries `format`: what
is not known here is refused, so no network comes back as another one. A class of your own is saved
and loaded once it has a name in NETWORKS, GRAPHS or SCHEDULES, and a `to_config()` that gives its
constructor's arguments (a network may leave that to its `config`, and have a `from_config(dict)`).
"""

import json
from pathlib import Path
from pkgutil import resolve_name

import torch
from torch import Tensor

from sedd_mini.checks import named
from sedd_mini.files import (
    load_tensors,
    newest_checkpoint,
    read_json,
    save_tensors,
    whole_folder,
    write_json,
)
from sedd_mini.graphs import GRAPHS, widest
from sedd_mini.network.dit import RELEASED, DiffusionTransformer, DiTConfig
from sedd_mini.network.hardware import check_device
from sedd_mini.noise import SCHEDULES

FORMAT = "sedd-mini/2"
NETWORKS = {  # name → class, or "module:name", which is imported where a folder asks for it
    "dit": "sedd_mini.network.dit:DiffusionTransformer",
    "gpt2": "sedd_mini.evaluation.rivals:GPT2",
    "mean-prediction": "sedd_mini.evaluation.rivals:MeanPrediction",
    "informed-mean": "sedd_mini.evaluation.rivals:InformedMean",
    "blocks": "sedd_mini.beyond.block_diffusion:BlockTransformer",
}
NETWORK_FILES = {"config.json", "model.safetensors", "tokenizer.json", "training.json"}


def save_pretrained(
    folder: str | Path, model: torch.nn.Module, graph, noise, tokenizer=None,
    dtype: torch.dtype | None = None, info: dict | None = None,
) -> Path:  # fmt: skip
    """Write config.json, model.safetensors, tokenizer.json and training.json (`info`).

    The weights are written in `dtype`, None: as they are. Replaces a network of that name. Raises
    ValueError for a folder that holds anything else, and for what could not be loaded again.
    """
    check_replaceable(folder)
    check_saveable(model, graph, noise)
    with whole_folder(folder) as new:
        write_network(new, model, graph, noise, tokenizer, dtype)
        if info is not None:
            write_json(new / "training.json", info)
    return Path(folder)


def check_replaceable(folder: str | Path) -> None:
    """Raises ValueError unless a folder is absent, empty, or holds a network and nothing else."""
    folder = named(folder)
    if not folder.exists():
        return
    found = {p.name for p in folder.iterdir()} if folder.is_dir() else {"a file"}
    if found and (found - NETWORK_FILES or not found >= {"config.json", "model.safetensors"}):
        raise ValueError(f"{folder} is there and holds more than a network, or none (it has "
                         f"{', '.join(sorted(found)[:5])}), and writing one would delete it: name "
                         "another folder")  # fmt: skip


def write_network(folder: Path, model, graph, noise, tokenizer, dtype=None) -> None:
    """The files of `save_pretrained`, into a folder that exists; buffers keep their precision.

    Raises ValueError where a weight is NaN or infinite, be it in `dtype` alone.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a type of floating-point numbers or None, got {dtype}")
    weights = model.state_dict()
    for name, p in model.named_parameters(remove_duplicate=False):
        weights[name] = p.to(dtype or p.dtype)
        if not weights[name].isfinite().all():
            raise ValueError(f"{name} is not finite{f' in {dtype}' if dtype else ''}: a network "
                             "like this is not saved")  # fmt: skip
    places = set()
    for name, tensor in weights.items():  # of two that share memory safetensors takes neither
        weights[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    save_tensors(folder / "model.safetensors", weights)
    write_json(folder / "config.json", describe(model, graph, noise))
    if tokenizer is not None:
        tokenizer.save(folder)


def load_pretrained(name_or_folder: str | Path, device: str | torch.device = "cpu"):
    """(model, graph, noise) of a local folder, or of a hub name such as "louaaron/sedd-small".

    The model is in evaluation mode, in float32, or in float64 if it was saved so. Raises
    FileNotFoundError if there is no such folder and no such name in reach, ValueError that names
    what does not fit in config or weights, and for a device that is not here.
    """
    device, folder = check_device(device), find_folder(name_or_folder)
    file = folder / "config.json"
    model, graph, noise = understand(read_json(file), file)
    load_weights(model, load_tensors(folder / "model.safetensors"), folder)
    if widest(device) == torch.float32:
        model.float()
    return model.to(device).eval(), graph, noise


def find_folder(name_or_folder: str | Path) -> Path:
    """A local folder, the newest checkpoint of a training folder, or a download from the hub."""
    folder = named(name_or_folder)
    try:
        whole, there = (folder / "config.json").exists(), folder.is_dir()
    except (OSError, ValueError) as error:  # too long a name, or not allowed to look
        raise FileNotFoundError(f"there is no folder {folder} ({error})") from None
    if whole:
        return folder
    if there:
        newest = newest_checkpoint(folder)
        if newest is None:
            raise FileNotFoundError(f"{folder} holds neither config.json nor a checkpoint")
        return newest
    if str(name_or_folder).count("/") != 1 or str(name_or_folder).startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no folder {folder}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name_or_folder), allow_patterns=sorted(NETWORK_FILES)))
    except Exception as error:  # offline, no such name, no access: many types, one answer
        raise FileNotFoundError(
            f"{name_or_folder!r} is no local folder, is not in the cache, and could not be fetched "
            f"from the hub ({type(error).__name__}): check the name and the connection, or give a "
            "folder with config.json and model.safetensors"
        ) from error


# ---- config.json ---------------------------------------------------------------------------------


def name_of(thing, table: dict) -> str:
    """The name of the exact class of `thing` in a table; ValueError if at most its parent is there,
    as which it would be loaded."""
    kind = type(thing)
    for name, entry in table.items():
        if entry in (kind, f"{kind.__module__}:{kind.__qualname__}"):
            return name
    raise ValueError(f"{kind.__name__} is none of {', '.join(table)}: what is saved of it could "
                     f"not be loaded; {register(table, kind.__name__)}")  # fmt: skip


def register(table: dict, name: str) -> str:
    tables = {"NETWORKS": NETWORKS, "GRAPHS": GRAPHS, "SCHEDULES": SCHEDULES}
    title = next((title for title, value in tables.items() if value is table), "the table")
    return f"add the class by {title}['a name'] = {name}"


def describe(model, graph, noise) -> dict:
    """The content of config.json; ValueError for a part that could not be rebuilt from it."""
    network, sizes = name_of(model, NETWORKS), config_of(getattr(model, "config", model))
    shape, schedule = config_of(graph), config_of(noise)
    if network == "dit":  # the rest of the file says these
        del sizes["num_tokens"], sizes["absorbing"]
    else:
        sizes = {"type": network, **sizes}
    return {
        "format": FORMAT,
        "tokens": shape.pop("num_tokens"),
        "graph": {"type": name_of(graph, GRAPHS), **shape},
        "noise": {"type": name_of(noise, SCHEDULES), **schedule},
        "model": sizes,
    }


def config_of(thing) -> dict:
    """thing.to_config() as JSON gives it back; raises ValueError for what JSON cannot hold."""
    name = type(thing).__name__
    if not hasattr(thing, "to_config"):
        raise ValueError(f"{name} has no to_config(): it gives the arguments to rebuild it")
    try:
        config = json.loads(json.dumps(thing.to_config(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}.to_config() must hold what JSON can: {error}") from None
    if not isinstance(config, dict) or "type" in config:
        raise ValueError(f"{name}.to_config() must be a dict without the key 'type'")
    return config


def check_saveable(model, graph, noise) -> None:
    """Raises ValueError unless what is saved of these three would load as the same again.

    It makes a network of the same sizes, without memory where the class allows that.
    """
    config = describe(model, graph, noise)
    with torch.random.fork_rng(devices=[]):  # whoever trains has seeded already
        try:
            with torch.device("meta"):
                again = understand(config, "what is to be saved")
        except (RuntimeError, NotImplementedError):  # needs real numbers
            again = understand(config, "what is to be saved")
    was, is_ = (
        {k: v.shape for k, v in m.state_dict().items()} | {k: type(v) for k, v in m.named_modules()}
        for m in (model, again[0])
    )
    if other := sorted(k for k in was | is_ if was.get(k) != is_.get(k)):
        raise ValueError(f"{type(model).__name__} made again from its config has another "
                         f"{', '.join(other[:5])}")  # fmt: skip
    if any(float(noise.total(t)) != float(again[2].total(t)) for t in (0.3, 0.7)):
        raise ValueError(f"{noise} made again from its to_config() is {again[2]}, another noise")


def understand(config: dict, file: Path | str) -> tuple:
    """config.json → (network without its weights, graph, noise); ValueError names the file."""
    try:
        if "format" not in config:
            return understand_released(config)
        if config["format"] != FORMAT:
            raise ValueError(f"format {config['format']!r} is not known here, only {FORMAT!r}")
        known = ("format", "tokens", "graph", "noise", "model")
        if unknown := sorted(config.keys() - set(known)):
            raise ValueError(f"unknown key {unknown[0]!r}")
        graph = rebuild("graph", config, GRAPHS, num_tokens=entry(config, "tokens"))
        given = {"num_tokens": graph.num_tokens, "absorbing": graph.mask_id is not None}
        dit = entry(config, "model", dict).get("type", "dit") == "dit"
        network = rebuild("model", config, NETWORKS, **(given if dit else {}))
        return network, graph, rebuild("noise", config, SCHEDULES)  # its module may name the noise
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}: {error}") from None


def rebuild(section: str, config: dict, table: dict, **given):
    """What a section of config.json of ours describes: `type`, and what its to_config() gave.

    Raises ValueError or TypeError unless it says the same of itself again, key by key.
    """
    content = entry(config, section, dict)
    name = content.pop("type", "dit") if section == "model" else entry(content, "type")
    content.pop("type", None)
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"unknown {section} {name!r}, expected one of {', '.join(table)}; if it "
                         f"is your own, first {register(table, 'YourClass')}")  # fmt: skip
    kind = resolve_name(table[name]) if isinstance(table[name], str) else table[name]
    content |= given
    make = getattr(kind, "from_config", lambda config: kind(**config))
    try:
        thing = make(dict(content))
        says = config_of(getattr(thing, "config", thing) if table is NETWORKS else thing)
    except KeyError as error:
        raise ValueError(f"{section}: lacks the key {error}") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from None
    for key in sorted(says.keys() | content.keys()):
        if (known := key in content) != (key in says):
            raise ValueError(f"{section}: {'unknown' if known else 'lacks the'} key {key!r}")
        a, b = content[key], says[key]
        if a != b or isinstance(a, bool) != isinstance(b, bool):
            raise ValueError(f"{section}: {key} is {a!r}, but {kind.__name__} makes {b!r} of it")
    return thing


def understand_released(config: dict) -> tuple:
    """The same for the form of the releases: takes what it needs, and passes over all else."""
    tokens, sizes = entry(config, "tokens"), entry(config, "model", dict)
    noise, kind = entry(config, "noise", dict), entry(entry(config, "graph", dict), "type")
    if kind not in ("absorb", "uniform"):
        raise ValueError(f"unknown graph {kind!r}, expected 'absorb' or 'uniform'")
    schedule = entry(noise, "type")
    if schedule not in ("loglinear", "geometric"):
        raise ValueError(f"unknown noise {schedule!r}, expected 'loglinear' or 'geometric'")
    names = ("eps",) if schedule == "loglinear" else ("sigma_min", "sigma_max")
    noise = SCHEDULES[schedule](*(entry({"eps": 1e-3} | noise, name) for name in names))
    absorbing, given = kind == "absorb", {own: entry(sizes, name) for name, own in RELEASED.items()}
    given["scale_by_sigma"] = bool(given["scale_by_sigma"]) and absorbing
    network = DiffusionTransformer(DiTConfig(num_tokens=tokens, absorbing=absorbing, **given))
    return network, GRAPHS[kind](tokens), noise


def entry(config: dict, key: str, kind: type = object):
    """config[key], a copy if it is a dict; ValueError if it is missing or of another type."""
    if key not in config:
        raise ValueError(f"lacks the key {key!r}")
    if not isinstance(config[key], kind):
        raise ValueError(f"{key} must be a JSON object, got {config[key]!r}")
    return dict(config[key]) if kind is dict else config[key]


# ---- weights -------------------------------------------------------------------------------------


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], source) -> None:
    """Copy weights into the model, which becomes float64 if one of them is.

    Raises ValueError that names every key that does not fit.
    """
    wanted = model.state_dict()
    both = sorted(wanted.keys() & weights.keys())
    found = {
        "missing": sorted(wanted.keys() - weights.keys()),
        "unknown": sorted(weights.keys() - wanted.keys()),
        "wrong shape": [f"{k} is {tuple(weights[k].shape)}, not {tuple(wanted[k].shape)}"
                        for k in both if weights[k].shape != wanted[k].shape],
        "wrong type": [f"{k} is {weights[k].dtype}" for k in both if weights[k].is_floating_point()
                       != wanted[k].is_floating_point()],
    }  # fmt: skip
    problems = [f"{title}: {', '.join(names)}" for title, names in found.items() if names]
    if problems:
        raise ValueError(f"the weights in {source} do not fit the network; " + "; ".join(problems))
    if any(weights[name].dtype == torch.float64 for name, _ in model.named_parameters()):
        model.double()
    model.load_state_dict(weights)
