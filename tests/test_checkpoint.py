"""What checkpoints promise: the released form, whole folders, errors that say what is wrong."""

import json
import os
from pathlib import Path

import pytest
import torch

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph
from sedd_mini.files import load_tensors, newest_checkpoint, save_tensors
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.text.tokenizers import CharTokenizer
from sedd_mini.training.checkpoint import save_checkpoint

CASES = [
    (AbsorbingGraph(11), LogLinearNoise(2e-3), {"absorbing": True}),
    (AbsorbingGraph(11), LogLinearNoise(), {"absorbing": True, "scale_by_sigma": False}),
    (UniformGraph(11), GeometricNoise(1e-3, 15.0), {"absorbing": False}),
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
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_pretrained(folder)


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
