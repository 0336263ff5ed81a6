"""Saving and loading networks, in the form of the released ones.

A network is a folder with config.json and model.safetensors, named as in the releases
(`louaaron/sedd-small`), and tokenizer.json where there is one. A training checkpoint is such a
folder too, of the averaged weights, with the rest of the state beside it.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from sedd_mini.files import load_tensors, newest_checkpoint, save_tensors, whole_folder, write_json
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.noise import GeometricNoise, LogLinearNoise

NETWORK_FILES = {"config.json", "model.safetensors", "tokenizer.json", "training.json"}


def save_pretrained(
    folder: str | Path, model: DiffusionTransformer, graph, noise, tokenizer=None,
    dtype: torch.dtype = torch.float32, info: dict | None = None,
) -> Path:  # fmt: skip
    """Write config.json, model.safetensors (in `dtype`), tokenizer.json and training.json (`info`).

    Replaces a network of that name; raises ValueError for a folder that holds anything else.
    """
    check_replaceable(folder)
    with whole_folder(folder) as new:
        write_network(new, model, graph, noise, tokenizer, dtype)
        if info is not None:
            write_json(new / "training.json", info)
    return Path(folder)


def check_replaceable(folder: str | Path) -> None:
    """Raises ValueError unless a folder is absent, empty, or holds a network and nothing else."""
    folder = Path(folder)
    if not folder.exists():
        return
    found = {p.name for p in folder.iterdir()} if folder.is_dir() else {"a file"}
    if found and (found - NETWORK_FILES or not found >= {"config.json", "model.safetensors"}):
        raise ValueError(
            f"{folder} is there and holds more than a network, or none (it has "
            f"{', '.join(sorted(found)[:5])}), and writing one would delete it: name another folder"
        )


def write_network(folder: Path, model, graph, noise, tokenizer, dtype=torch.float32) -> None:
    """The files of `save_pretrained`, into a folder that exists; buffers keep their precision."""
    weights = model.state_dict() | {k: p.to(dtype) for k, p in model.named_parameters()}
    save_tensors(folder / "model.safetensors", weights)
    write_json(folder / "config.json", describe(model, graph, noise))
    if tokenizer is not None:
        tokenizer.save(folder)


def load_pretrained(name_or_folder: str | Path, device: str = "cpu"):
    """(model, graph, noise) of a local folder, or of a hub name such as "louaaron/sedd-small".

    The model is in evaluation mode, in float32. Raises FileNotFoundError if there is no such
    folder and no such name in reach, ValueError that names what does not fit in config or weights.
    """
    folder = find_folder(name_or_folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model_config, graph, noise = understand(config, folder)
    model = DiffusionTransformer(model_config)
    load_weights(model, load_tensors(folder / "model.safetensors"), folder)
    return model.to(device).eval(), graph, noise


def find_folder(name_or_folder: str | Path) -> Path:
    """A local folder, the newest checkpoint of a training folder, or a download from the hub."""
    folder = Path(name_or_folder)
    if (folder / "config.json").exists():
        return folder
    if folder.is_dir():
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


def check_saveable(model, graph, noise) -> None:
    pass


def describe(model, graph, noise) -> dict:
    """config.json, with the names of the released ones."""
    config = model.config
    if isinstance(noise, LogLinearNoise):
        schedule = {"type": "loglinear", "eps": noise.eps}
    else:
        schedule = {"type": "geometric", "sigma_min": noise.sigma_min, "sigma_max": noise.sigma_max}
    sizes = {
        "hidden_size": config.width, "cond_dim": config.cond_dim, "length": config.length,
        "n_blocks": config.num_blocks, "n_heads": config.num_heads,
        "scale_by_sigma": config.scale_by_sigma, "dropout": config.dropout,
    }  # fmt: skip
    kind = "uniform" if graph.mask_id is None else "absorb"
    return {"tokens": graph.num_tokens, "graph": {"type": kind}, "noise": schedule, "model": sizes}


def understand(config: dict, folder: Path) -> tuple[DiTConfig, object, object]:
    """config.json → sizes of the network, graph, noise."""
    try:
        tokens, kind, schedule = config["tokens"], config["graph"]["type"], config["noise"]
        sizes = config["model"]
        if kind not in ("absorb", "uniform"):
            raise ValueError(f"{folder}: unknown graph {kind!r}, expected 'absorb' or 'uniform'")
        if schedule["type"] not in ("loglinear", "geometric"):
            raise ValueError(
                f"{folder}: unknown noise {schedule['type']!r}, expected 'loglinear' or 'geometric'"
            )
        if schedule["type"] == "loglinear":
            noise = LogLinearNoise(schedule.get("eps", 1e-3))
        else:
            noise = GeometricNoise(schedule["sigma_min"], schedule["sigma_max"])
        network = DiTConfig(
            num_tokens=tokens, absorbing=kind == "absorb", length=sizes["length"],
            width=sizes["hidden_size"], num_blocks=sizes["n_blocks"], num_heads=sizes["n_heads"],
            cond_dim=sizes["cond_dim"], dropout=sizes["dropout"],
            scale_by_sigma=bool(sizes["scale_by_sigma"]) and kind == "absorb",
        )  # fmt: skip
    except KeyError as error:
        raise ValueError(f"{folder / 'config.json'} lacks the key {error}") from None
    graph = AbsorbingGraph(tokens) if kind == "absorb" else UniformGraph(tokens)
    return network, graph, noise


def load_weights(model: torch.nn.Module, weights: dict[str, Tensor], source) -> None:
    """Copy weights into the model; raises ValueError that names every key that does not fit."""
    wanted = model.state_dict()
    missing, unknown = (
        sorted(wanted.keys() - weights.keys()),
        sorted(weights.keys() - wanted.keys()),
    )
    wrong = [
        f"{k} is {tuple(weights[k].shape)}, not {tuple(wanted[k].shape)}"
        for k in sorted(wanted.keys() & weights.keys())
        if weights[k].shape != wanted[k].shape
    ]
    found = {"missing": missing, "unknown": unknown, "wrong shape": wrong}
    problems = [f"{title}: {', '.join(names)}" for title, names in found.items() if names]
    if problems:
        raise ValueError(f"the weights in {source} do not fit the network; " + "; ".join(problems))
    model.load_state_dict(weights)
