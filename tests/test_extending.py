"""The library from outside: files of at most 30 lines that touch nothing in the package.

Each in tests/extending trains, saves, loads and samples. What they add is refused by name where it
is not known, and a subclass is never saved as its parent.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from extending import images, own_loss, own_network, own_schedule, own_step
from kill_and_resume import TINY

from sedd_mini import graphs, noise
from sedd_mini.files import newest_checkpoint, read_json
from sedd_mini.model import TextModel
from sedd_mini.network import pretrained
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.samplers import SAMPLERS, sample
from sedd_mini.training.report import as_text
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Trainer

FOLDER = Path(__file__).with_name("extending")


def test_the_files_are_short():
    for path in FOLDER.glob("*.py"):
        lines = path.read_text().splitlines()
        code = [x for x in lines if x.strip() and not x.strip().startswith(("#", '"""'))]
        assert len(code) <= 30, f"{path.name} has {len(code)} lines of code"
        imported = {n.module for n in ast.walk(ast.parse(path.read_text()))
                    if isinstance(n, ast.ImportFrom)}  # fmt: skip
        assert any(name.startswith("sedd_mini") for name in imported) or path.stem == "__init__"


@pytest.fixture
def small(text) -> dict:
    return TINY | {"data": text, "steps": 12, "width": 32, "lr": 1e-2, "device": "cpu"}


def losses(trainer) -> list[float]:
    return [r["loss"] for r in trainer.history if "loss" in r]


def assert_saved_as_it_is(trainer, model) -> None:
    """The loaded network is the averaged one, to the bit, with the same graph and noise."""
    x = trainer.corpus.valid[:2]
    x = trainer.graph.sample_transition(x, 0.7, torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.7])
    with torch.no_grad():
        assert torch.equal(model.network(x, sigma), trainer.average(x, sigma))
    assert type(model.noise) is type(trainer.noise)
    assert model.noise.to_config() == trainer.noise.to_config()
    assert type(model.graph) is type(trainer.graph)


def test_a_schedule_of_ones_own(small, tmp_path, monkeypatch):
    monkeypatch.setitem(noise.SCHEDULES, "quarter-wave", None)  # so that it goes again afterwards
    out = tmp_path / "run"
    trainer, model = own_schedule.run(out, **small)
    assert_saved_as_it_is(trainer, model)
    assert isinstance(model.noise, own_schedule.QuarterWave)
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert len(model.write(2, steps=4)) == 2
    rates = trainer.noise.rate(torch.tensor([0.2, 0.6], dtype=torch.float64))
    t = torch.tensor([0.2, 0.6], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(trainer.noise.total(t).sum(), t)
    torch.testing.assert_close(rates, slope)

    trainer.close()
    load = f"import sedd_mini; sedd_mini.load({str(out)!r})"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    other = subprocess.run([sys.executable, "-c", load], env=env, capture_output=True, text=True)
    assert "unknown noise 'quarter-wave'" in other.stderr.splitlines()[-1]
    assert "config.json" in other.stderr.splitlines()[-1]


def test_a_loss_of_ones_own_with_a_normalised_head(small, tmp_path):
    trainer, model = own_loss.run(tmp_path / "run", **small)
    assert_saved_as_it_is(trainer, model)
    assert model.network.config.normalised
    assert not model.network.config.time_conditioning
    assert losses(trainer)[-1] < losses(trainer)[0]
    assert len(model.write(2, steps=4)) == 2
    bound = trainer.validate()
    trainer.loss = own_loss_of_the_library()
    same = trainer.validate()
    assert bound.nats == pytest.approx(same.nats, rel=1e-5)  # it is score entropy
    assert any("valid" in r for r in trainer.history)


def own_loss_of_the_library():
    from sedd_mini.losses import diffusion_weighted_in_head

    return diffusion_weighted_in_head


def test_images(small, tmp_path):
    small = {k: v for k, v in small.items() if k not in ("data", "tokenizer", "length")}
    small |= {"steps": 60, "batch_size": 16}
    trainer, model = images.run(tmp_path / "run", **small)
    assert_saved_as_it_is(trainer, model)
    assert sum(losses(trainer)[-4:]) < sum(losses(trainer)[:4])
    x = sample(model.network, model.graph, model.noise, (3, 64), 8,
               generator=torch.Generator().manual_seed(0))  # fmt: skip
    assert x.shape == (3, 64)
    assert 0 <= x.min()
    assert x.max() < 4
    picture = images.show(x[0])
    assert [len(row) for row in picture.split("\n")] == [8] * 8
    (text,) = model.write(1, steps=4)
    assert len(text.split()) == 64  # a user's `decode` is not saved
    again, _ = images.run(tmp_path / "run", **small)
    assert again.step == 60  # it finds its run again by the hash of the arrays


def test_a_graph_and_a_network_of_ones_own(small, tmp_path, monkeypatch):
    monkeypatch.setitem(graphs.GRAPHS, "ring", None)  # so that they go again afterwards
    monkeypatch.setitem(pretrained.NETWORKS, "recurrent", None)
    corpus = images.Corpus.from_arrays(images.images(200, 0), images.images(20, 1), vocab_size=4)
    small = {k: v for k, v in small.items() if k not in ("data", "tokenizer", "length")}
    small |= {"steps": 40, "batch_size": 32, "save_every": 40}
    trainer, model = own_network.run(tmp_path / "run", corpus, length=64, **small)
    assert isinstance(model.network, own_network.Recurrent)
    assert isinstance(model.graph, own_network.Ring)
    for a, b in zip(model.network.parameters(), trainer.average.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sum(losses(trainer)[-10:]) < sum(losses(trainer)[:10])
    (text,) = model.write(1, steps=4)
    assert len(text.split()) == 64
    (bound,) = model.bound(corpus.valid[:1], repeats=2, times_each=2)
    assert bound.nats > 0
    (report,) = (r["report"] for r in trainer.history if "report" in r)
    assert "arithmetic: unknown" in as_text(report)


def test_a_subclass_is_never_saved_as_its_parent(tmp_path, monkeypatch):
    class Louder(noise.LogLinearNoise):
        def total(self, t):
            return 2 * super().total(t)

    class Wider(DiffusionTransformer):
        pass

    class Other(graphs.AbsorbingGraph):
        pass

    sizes = DiTConfig(num_tokens=5, length=4, width=8, num_blocks=1, num_heads=2, cond_dim=4)
    net, graph = DiffusionTransformer(sizes), graphs.AbsorbingGraph(5)
    schedule = noise.CosineNoise()
    for parts in ((Wider(sizes), graph, schedule), (net, Other(5), schedule),
                  (net, graph, Louder())):  # fmt: skip
        with pytest.raises(ValueError, match=r"Wider|Other|Louder"):
            save_pretrained(tmp_path / "net", *parts)
        assert not (tmp_path / "net").exists()
    save_pretrained(tmp_path / "net", net, graph, schedule)
    assert type(load_pretrained(tmp_path / "net")[2]) is noise.CosineNoise
    monkeypatch.setitem(pretrained.NETWORKS, "wider", Wider)
    save_pretrained(tmp_path / "wide", Wider(sizes), graph, schedule)
    assert type(load_pretrained(tmp_path / "wide")[0]) is Wider
    monkeypatch.delitem(pretrained.NETWORKS, "wider")
    with pytest.raises(ValueError, match="wider"):
        load_pretrained(tmp_path / "wide")


def test_a_network_and_a_graph_of_ones_own_are_resumed_only_as_what_they_are(small, tmp_path):
    settings = Settings(**small)
    corpus = settings.make_corpus()
    sizes = settings.network(corpus.tokenizer.vocab_size)
    parts = {"model": DiffusionTransformer(sizes), "noise": noise.CosineNoise(),
             "graph": graphs.AbsorbingGraph(corpus.tokenizer.vocab_size)}  # fmt: skip
    first = Trainer(settings, corpus, tmp_path, **parts)
    first.run(2)
    with pytest.raises(ValueError, match=r"noise was .*cosine.*, is .*loglinear"):
        Trainer(settings, corpus, tmp_path)
    assert Trainer(settings, corpus, tmp_path, noise=noise.CosineNoise()).step == 2
    config = read_json(newest_checkpoint(tmp_path) / "config.json")
    assert config["format"].startswith("sedd-mini")
    assert config["noise"] == {"type": "cosine", "eps": 1e-3}


def test_a_step_of_ones_own(small, tmp_path, monkeypatch):
    monkeypatch.setitem(SAMPLERS, "surest", None)  # so that it goes again afterwards
    trainer, texts = own_step.run(tmp_path / "run", **small)
    assert len(texts) == 2
    parts = trainer.average, trainer.graph, trainer.noise, (2, 16)
    seen = []
    x = sample(
        *parts, 4, method=own_step.surest, generator=torch.Generator().manual_seed(0),
        callback=lambda k, t, x: seen.append((x == trainer.graph.mask_id).sum(1)),
    )  # fmt: skip
    assert (x < trainer.graph.num_tokens).all()
    hidden = torch.stack(seen).tolist()
    assert hidden == [[16, 16], [12, 12], [8, 8], [4, 4], [0, 0], [0, 0]]
    names = sorted(SAMPLERS)
    again = sample(*parts, 4, method="surest", generator=torch.Generator().manual_seed(0))
    assert torch.equal(x, again)
    text = TextModel(*parts[:3], trainer.corpus.tokenizer, length=16)
    assert text.write(3, steps=4, sampler="surest")[:1] == text.write(1, steps=4, sampler="surest")
    assert sorted(SAMPLERS) == names
