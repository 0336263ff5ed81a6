"""What checkpoints promise: the released form, whole folders, errors that say what is wrong."""

import copy
import dataclasses
import json
import math
import os
from pathlib import Path

import pytest
import torch

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph
from sedd_mini.files import load_tensors, newest_checkpoint, save_tensors
from sedd_mini.network import pretrained
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import check_saveable, load_pretrained, save_pretrained
from sedd_mini.noise import CosineNoise
from sedd_mini.text.tokenizers import CharTokenizer
from sedd_mini.training.checkpoint import save_checkpoint

CASES = [
    (AbsorbingGraph(11), LogLinearNoise(2e-3), {"absorbing": True}),
    (AbsorbingGraph(11), LogLinearNoise(), {"absorbing": True, "scale_by_sigma": False}),
    (UniformGraph(11), GeometricNoise(1e-3, 15.0), {"absorbing": False}),
    (AbsorbingGraph(11), CosineNoise(1e-4), {"normalised": True, "time_conditioning": False}),
]


def make(graph, sizes) -> DiffusionTransformer:
    torch.manual_seed(0)
    config = DiTConfig(num_tokens=11, length=8, width=16, num_blocks=2, num_heads=2, cond_dim=8,
                       dropout=0.0, **sizes)  # fmt: skip
    model = DiffusionTransformer(config).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


@pytest.mark.parametrize(("graph", "noise", "sizes"), CASES)
def test_what_is_saved_comes_back(tmp_path, graph, noise, sizes):
    model = make(graph, sizes)
    save_pretrained(tmp_path / "net", model, graph, noise, info={"seed": 0})
    loaded, graph2, noise2 = load_pretrained(tmp_path / "net")
    x, sigma = torch.randint(11, (3, 8)), torch.tensor([0.01, 1.0, 5.0])
    assert torch.equal(model(x, sigma), loaded(x, sigma))
    assert (repr(graph), repr(noise)) == (repr(graph2), repr(noise2))
    assert json.loads((tmp_path / "net" / "training.json").read_text()) == {"seed": 0}
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


def test_half_precision_on_disk_keeps_the_buffers(tmp_path):
    graph, noise, sizes = CASES[0]
    model = make(graph, sizes)
    save_pretrained(tmp_path / "net", model, graph, noise, dtype=torch.float16)
    loaded, _, _ = load_pretrained(tmp_path / "net")
    for (name, a), (_, b) in zip(model.named_buffers(), loaded.named_buffers(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(model.parameters(), loaded.parameters(), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_errors_name_what_does_not_fit(tmp_path):
    graph, noise, sizes = CASES[0]
    folder = save_pretrained(tmp_path / "net", make(graph, sizes), graph, noise)
    weights = load_tensors(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())

    def refused(message, weights=weights, config=config, error=ValueError):
        save_tensors(folder / "model.safetensors", weights)
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(error, match=message):
            load_pretrained(folder)

    without = {k: v for k, v in weights.items() if k != "blocks.1.attn_out.weight"}
    refused(r"missing: blocks\.1\.attn_out\.weight", weights=without)
    refused("unknown: extra.bias", weights=weights | {"extra.bias": torch.zeros(1)})
    wrong = weights | {"blocks.0.norm1.weight": torch.zeros(17)}
    refused(r"wrong shape: blocks.0.norm1.weight is \(17,\), not \(16,\)", weights=wrong)
    refused("unknown graph 'torus'", config=config | {"graph": {"type": "torus"}})
    refused("unknown noise 'pink'", config=config | {"noise": {"type": "pink"}})
    refused("lacks the key 'tokens'", config={k: v for k, v in config.items() if k != "tokens"})
    refused("wrong type: blocks.0.norm1.weight is torch.int32", weights=weights | {
        "blocks.0.norm1.weight": torch.zeros(16, dtype=torch.int32)})  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_pretrained(folder)


def changed(config: dict, path: str, *value) -> dict:
    """A copy in which `path` ("model.length") is `value`, or is not there."""
    config = copy.deepcopy(config)
    *sections, key = path.split(".")
    content = config
    for section in sections:
        content = content[section]
    content.pop(key, None)
    return config if not value else content.update({key: value[0]}) or config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", ["sedd-mini/9"], "format 'sedd-mini/9' is not known here"),
        ("format", [2], "format 2 is not known"),
        ("tokens", [], "lacks the key 'tokens'"),
        ("graph", [], "lacks the key 'graph'"),
        ("model", [], "lacks the key 'model'"),
        ("training", [{}], "unknown key 'training'"),
        ("tokens", ["11"], "graph: num_tokens must be a whole number, at least 2, got '11'"),
        ("tokens", [11.0], "num_tokens must be a whole number"),
        ("tokens", [True], "num_tokens must be a whole number"),
        ("graph", ["absorb"], "graph must be a JSON object, got 'absorb'"),
        ("graph.type", [], "lacks the key 'type'"),
        ("graph.type", [["absorb"]], "unknown graph"),
        ("graph.type", ["torus"], "unknown graph 'torus', expected one of absorb, uniform"),
        ("graph.size", [3], "graph: .*size"),
        ("noise.type", ["linear"], "unknown noise 'linear'.*SCHEDULES"),
        ("noise.eps", [], "noise: lacks the key 'eps'"),
        ("noise.eps", ["0.001"], "noise: eps must be a number, above 0 and below 1, got '0.001'"),
        ("noise.eps", [True], "noise: eps must be a number, above 0 and below 1, got True"),
        ("noise.eps", [None], "noise: eps must be a number, above 0 and below 1, got None"),
        ("noise.eps", [math.nan], "noise: eps must be a number, above 0 and below 1, got nan"),
        ("noise.eps", [2], "noise: eps must be a number, above 0 and below 1, got 2"),
        ("noise.sigma_min", [1e-3], "noise: .*sigma_min"),
        ("noise", [[]], r"noise must be a JSON object, got \[\]"),
        ("model.type", ["unet"], "unknown model 'unet', expected one of dit.*NETWORKS"),
        ("model.n_layers", [3], "model: unknown key 'n_layers'"),
        ("model.dropout", [], "model: lacks the key 'dropout'"),
        ("model.dropout", ["0"], "model: dropout must be a number"),
        ("model.length", [8.0], "model: length must be a whole number, at least 1, got 8.0"),
        ("model.n_blocks", [True], "model: num_blocks must be a whole number, at least 1"),
        ("model.scale_by_sigma", [1], "model: scale_by_sigma must be True or False, got 1"),
        ("model.scale_by_sigma", [None], "model: scale_by_sigma is None, but"),
        ("model.normalised", ["yes"], "model: normalised must be True or False"),
    ],
)
def test_what_is_not_known_in_a_folder_of_ours_is_refused(tmp_path, path, value, message):
    graph, noise, sizes = CASES[0]
    folder = save_pretrained(tmp_path / "net", make(graph, sizes), graph, noise)
    file = folder / "config.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, *value)))
    with pytest.raises(ValueError, match=message) as raised:
        load_pretrained(folder)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"null", b"\xff\xfe{}", b"[" * 100_000])
def test_a_description_that_is_none_is_named(tmp_path, content):
    graph, noise, sizes = CASES[0]
    folder = save_pretrained(tmp_path / "net", make(graph, sizes), graph, noise)
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"net/config\.json (is not JSON|holds a)") as raised:
        load_pretrained(folder)
    assert "\n" not in str(raised.value)


# ---- classes of a user ---------------------------------------------------------------------------


class Slower(CosineNoise):
    """A subclass with another rate: written as its parent it would come back as that."""


class Lopsided(AbsorbingGraph):
    def __init__(self, num_tokens, weights):
        super().__init__(num_tokens)
        self.weights = weights

    def to_config(self):
        return {"num_tokens": self.num_tokens, "weights": self.weights}


@dataclasses.dataclass
class CountConfig:
    num_tokens: int
    start: float = 0.0

    def to_config(self):
        return dataclasses.asdict(self)


class Count(torch.nn.Module):
    """A network with one number a state, whose embedding is its head too."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.table = torch.nn.Parameter(torch.full((config.num_tokens + 1, 1), config.start))
        self.head = self.table

    @classmethod
    def from_config(cls, config):
        return cls(CountConfig(**config))

    def forward(self, x, sigma):
        return (self.table * self.head).T.expand(*x.shape, -1)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(pretrained.NETWORKS, "count", Count)
    monkeypatch.setitem(pretrained.GRAPHS, "lopsided", Lopsided)
    monkeypatch.setitem(pretrained.SCHEDULES, "slower", Slower)


@pytest.mark.usefixtures("registered")
def test_classes_of_a_user_come_back_as_themselves(tmp_path):
    model, graph, noise = Count(CountConfig(3, 0.5)), Lopsided(3, [1.5, 2]), Slower(0.01)
    torch.nn.init.normal_(model.table)
    folder = save_pretrained(tmp_path / "net", model, graph, noise)
    again = load_pretrained(folder)
    assert list(map(type, again)) == [Count, Lopsided, Slower]
    assert (again[0].config, again[1].weights, again[2].eps) == (model.config, [1.5, 2], 0.01)
    assert torch.equal(again[0].table, model.table)
    assert again[0].head is again[0].table
    pretrained.SCHEDULES.pop("slower")
    with pytest.raises(ValueError, match="unknown noise 'slower'"):
        load_pretrained(folder)


def test_what_has_no_name_is_not_saved(tmp_path):
    graph, noise, sizes = CASES[0]
    model, folder = make(graph, sizes), tmp_path / "net"
    for what, table in (
        ((Count(CountConfig(3)), graph, noise), "NETWORKS"),
        ((type("Mine", (DiffusionTransformer,), {})(model.config), graph, noise), "NETWORKS"),
        ((model, Lopsided(11, [1]), noise), "GRAPHS"),
        ((model, graph, Slower()), "SCHEDULES"),
    ):
        for refuse in (check_saveable, lambda *w: save_pretrained(folder, *w)):
            with pytest.raises(ValueError, match=rf"not be loaded; add the class by {table}\["):
                refuse(*what)
    assert not folder.exists()


@pytest.mark.usefixtures("registered")
def test_what_would_come_back_as_another_is_not_saved(monkeypatch):
    graph, noise, sizes = CASES[0]
    model = make(graph, sizes)
    before = torch.random.get_rng_state()
    check_saveable(model, graph, noise)
    assert torch.equal(torch.random.get_rng_state(), before)  # a run's weights are seeded
    with pytest.raises(ValueError, match=r"has another output_layer\.linear\.bias"):
        check_saveable(model, AbsorbingGraph(12), noise)
    model.output_layer.linear = torch.nn.Sequential(model.output_layer.linear, torch.nn.Tanh())
    with pytest.raises(ValueError, match=r"has another output_layer\.linear, "):
        check_saveable(model, graph, noise)
    model = make(graph, sizes)
    model.blocks[0].mlp[1] = torch.nn.ReLU()  # the same weights, another network
    with pytest.raises(ValueError, match=r"has another blocks\.0\.mlp\.1$"):
        check_saveable(model, graph, noise)
    for weights in (torch.ones(2), {1, 2}, [math.nan]):
        with pytest.raises(ValueError, match=r"Lopsided.to_config\(\) must hold what JSON can"):
            check_saveable(make(graph, sizes), Lopsided(11, weights), noise)
    monkeypatch.setattr(Slower, "to_config", lambda self: {})
    with pytest.raises(ValueError, match=r"CosineNoise.*is.*, another noise"):
        check_saveable(make(graph, sizes), graph, Slower(0.5))


# ---- precision -----------------------------------------------------------------------------------


def test_float64_is_kept(tmp_path, monkeypatch):
    graph, noise, sizes = CASES[0]
    model = make(graph, sizes).double()
    folder = save_pretrained(tmp_path / "net", model, graph, noise)
    loaded, _, _ = load_pretrained(folder)
    for (name, a), (_, b) in zip(
        model.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert (a.dtype, b.dtype) == (torch.float64, torch.float64), name
        assert torch.equal(a, b), name
    monkeypatch.setattr(pretrained, "widest", lambda device: torch.float32)  # as on MPS
    assert next(load_pretrained(folder)[0].parameters()).dtype == torch.float32


def test_ruin_is_not_saved_over_what_is_good(tmp_path):
    graph, noise, sizes = CASES[0]
    model = make(graph, sizes)
    folder = save_pretrained(tmp_path / "net", model, graph, noise)
    before = (folder / "model.safetensors").read_bytes()
    for value, dtype in ((math.nan, None), (math.inf, None), (1e6, torch.float16)):
        with torch.no_grad():
            model.blocks[1].norm2.weight[0] = value
        with pytest.raises(ValueError, match=r"blocks.1.norm2.weight is not finite"):
            save_pretrained(folder, model, graph, noise, dtype=dtype)
    with pytest.raises(TypeError, match="dtype must be"):
        save_pretrained(folder, make(graph, sizes), graph, noise, dtype=torch.int8)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net"]


# ---- folders -------------------------------------------------------------------------------------


def test_only_a_network_is_replaced(tmp_path):
    graph, noise, sizes = CASES[0]
    model, folder = make(graph, sizes), tmp_path / "net"
    folder.mkdir()
    for seed in (0, 1):  # into an empty folder, then over a network
        save_pretrained(folder, model, graph, noise, info={"seed": seed})
        assert json.loads((folder / "training.json").read_text()) == {"seed": seed}
    (folder / "thesis.txt").write_text("three years")  # a network, and something of the user's
    with pytest.raises(ValueError, match=r"holds more than a network.*thesis\.txt"):
        save_pretrained(folder, model, graph, noise)
    assert (folder / "thesis.txt").exists()
    app = tmp_path / "app"
    app.mkdir()
    (app / "config.json").write_text("{}")  # a name that many others use
    with pytest.raises(ValueError, match="or none"):
        save_pretrained(app, model, graph, noise)
    assert (app / "config.json").read_text() == "{}"


def test_the_old_network_stays_where_the_new_one_cannot_be_put(tmp_path, monkeypatch):
    graph, noise, sizes = CASES[0]
    folder = tmp_path / "net"
    save_pretrained(folder, make(graph, sizes), graph, noise, info={"seed": 0})
    rename = Path.rename

    def refuse(path, target):
        if path.suffix == ".tmp":
            raise PermissionError("in use")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        save_pretrained(folder, make(graph, sizes), graph, noise, info={"seed": 1})
    assert json.loads((folder / "training.json").read_text()) == {"seed": 0}


def test_a_file_that_is_cut_off_is_named(tmp_path):
    graph, noise, sizes = CASES[0]
    save_pretrained(tmp_path / "net", make(graph, sizes), graph, noise)
    path = tmp_path / "net" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read .*cut off"):
        load_pretrained(tmp_path / "net")


def save(out, step: int):
    graph, noise, sizes = CASES[0]
    state = {"a": torch.full((2,), float(step))}
    return save_checkpoint(out, step, state, {}, make(graph, sizes), graph, noise, CharTokenizer())


def test_a_checkpoint_that_is_there_is_not_written_again(tmp_path):
    folder = save(tmp_path, 3)
    before = folder.stat()
    (folder / "state.json").write_text("{}")
    assert save(tmp_path, 3) == folder
    assert folder.stat().st_ino == before.st_ino
    assert (folder / "state.json").read_text() == "{}"
    assert newest_checkpoint(tmp_path) == folder
    assert newest_checkpoint(tmp_path) != save(tmp_path, 4) == newest_checkpoint(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000004"]


def test_files_are_open_for_writing_when_they_are_flushed(tmp_path, monkeypatch):
    """Windows refuses to flush others."""
    fcntl = pytest.importorskip("fcntl")
    modes = []
    monkeypatch.setattr(os, "fsync", lambda fd: modes.append(fcntl.fcntl(fd, fcntl.F_GETFL)))
    save(tmp_path, 1)
    assert len(modes) == 5
    assert all(mode & os.O_ACCMODE == os.O_RDWR for mode in modes)


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_pretrained(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"neither config\.json nor a checkpoint"):
        load_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="not in the cache"):
        load_pretrained("nobody-at-all/no-such-network")
    for name in ("~nosuchuser", "x" * 5000, "a\0b", "", "a/b/c"):
        with pytest.raises((FileNotFoundError, ValueError), match=r"there is no folder|neither"):
            load_pretrained(name)
    with pytest.raises(ValueError, match="no device is called 'foo'"):
        load_pretrained(tmp_path, device="foo")
