"""A run's folder and its parts: locks, mistakes at the start, ruin, and what is handed in.

The corpora are a few hundred words long, the networks tiny.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kill_and_resume
import pytest
import torch
from runs import settings, weights

from sedd_mini import files
from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.losses import diffusion_weighted
from sedd_mini.network.dit import DiffusionTransformer
from sedd_mini.text.shards import prepare_shards
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Keyed, Trainer


def test_settings_are_plain_values(text):
    import numpy as np

    s = settings(Path(text), steps=np.int64(7), lr=torch.tensor(0.5), batch_size=np.uint8(8),
                 compile=False)  # fmt: skip
    assert [type(v) for v in (s.data, s.steps, s.lr, s.batch_size)] == [str, int, float, int]
    assert json.loads(json.dumps(vars(s))) == vars(s)
    for changes, problem in [
        ({"steps": True}, "steps must be a whole number, got True"),
        ({"steps": 2.5}, "whole number, got 2.5"),
        ({"steps": torch.ones(2)}, "whole number"), ({"lr": "1e-3"}, "must be a number, finite"),
        ({"compile": 1}, "type bool"), ({"graph": None}, "type str"), ({"data": b"a"}, "type str"),
        ({"lr": math.inf}, "finite"), ({"lr": 10**400}, "finite"),
        ({"data": "\udcff"}, "not UTF-8"),
        ({"sigma_min": 3.0, "sigma_max": 2.0}, "below sigma_max"), ({"noise": "pink"}, "one of"),
    ]:  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=problem) as caught:
            settings(text, **changes)
        assert "\n" not in str(caught.value)


# ---- two runs, one folder; what fails at the start; ruin -----------------------------------------

RUN = """
import sys, time
from sedd_mini.training.settings import Settings
from sedd_mini.text.shards import prepare_shards
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Keyed, Trainer
from kill_and_resume import settings
trainer = Trainer(settings(sys.argv[1]), out=sys.argv[2])
print("training", flush=True)
trainer.run(callback=lambda record: time.sleep(0.2))
"""


def test_a_folder_in_use_is_refused_at_once_and_free_after_a_kill(text, tmp_path):
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, text, str(tmp_path / "run")]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.DEVNULL) as other:  # fmt: skip
        assert other.stdout.readline() == "training\n"
        with pytest.raises(ValueError, match=rf"in use by another process \(pid {other.pid}\)"):
            Trainer(kill_and_resume.settings(text), out=tmp_path / "run")
        assert other.poll() is None
        other.kill()
    Trainer(kill_and_resume.settings(text), out=tmp_path / "run").close()


class Subclass(AbsorbingGraph):
    """Not in GRAPHS: it could not be saved as what it is."""


@pytest.mark.parametrize("name", ["file", "file/below", "x" * 300, "a\0b", "\udcff"])
def test_what_would_fail_at_the_first_save_fails_at_the_start(text, tmp_path, name):
    (tmp_path / "file").write_text("mine")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises((ValueError, OSError)) as caught:
        Trainer(settings(text), out=tmp_path / name)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_part_that_has_no_name_and_a_full_disk_are_refused_at_the_start(
    text, tmp_path, monkeypatch
):
    corpus = settings(text).make_corpus()
    with pytest.raises(ValueError, match="Subclass"):
        Trainer(settings(text), corpus, tmp_path / "run", graph=Subclass(97))
    Trainer(settings(text), corpus, graph=Subclass(97)).run(1)  # without a folder it may train
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="GB are needed in"):
        Trainer(settings(text), corpus, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    usage.free = 10**9
    trainer = Trainer(settings(text), corpus, tmp_path / "run")
    trainer.run(1)
    saved = sum(f.stat().st_size for f in files.newest_checkpoint(tmp_path / "run").iterdir())
    assert saved == pytest.approx(trainer.checkpoint_bytes, rel=0.25)  # names and tokens beside it


def test_parts_that_do_not_fit_together_are_refused(text):
    corpus = settings(text).make_corpus()
    net = DiffusionTransformer(settings(text).network(97, absorbing=False))
    for problem, parts in [
        ("has 7 tokens, the corpus has 97", {"graph": AbsorbingGraph(7)}),
        ("the network has 97 states", {"model": net}),
    ]:
        with pytest.raises(ValueError, match=problem):
            Trainer(settings(text), corpus, **parts)
    with pytest.raises(ValueError, match="blocks of 16 tokens, but length=8"):
        Trainer(settings(text, length=8), corpus)
    with pytest.raises(TypeError, match="settings must be Settings"):
        Trainer({"steps": 3})
    with pytest.raises(ValueError, match=r"one number a sequence, shape \(4,\)"):
        Trainer(settings(text), corpus, loss=lambda *a, **k: torch.ones(())).train_step()
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1"):
        Trainer(settings(text), corpus).run(0)


@pytest.mark.parametrize("part", ["weights", "moments", "averages"])
def test_ruin_is_never_saved_over_what_is_good(text, tmp_path, part):
    good = Trainer(settings(text), out=tmp_path)
    good.run(3)
    trainer = Trainer(settings(text, lr=1e30), out=tmp_path, change=("lr",))
    assert trainer.step == 3
    if part == "weights":  # one step of lr=1e30 with a finite loss, then its save
        with pytest.raises(FloatingPointError, match=r"step-00000003 stays as it is"):
            trainer.run(6)
    else:
        p = next(iter(trainer.average.parameters()))
        state = trainer.optimizer.state[next(iter(trainer.model.parameters()))]
        (p if part == "averages" else state["exp_avg_sq"]).data.flatten()[0] = math.nan
        with pytest.raises(FloatingPointError, match=r"1 tensors are not finite \(.* first\)"):
            trainer.save()
    again = Trainer(settings(text), out=tmp_path)
    assert again.step == 3
    assert torch.equal(weights(again), weights(good))


def test_settings_that_did_not_exist_then_had_their_default(text, tmp_path):
    Trainer(settings(text), out=tmp_path).run(3)
    path = files.newest_checkpoint(tmp_path) / "state.json"
    state = json.loads(path.read_text())
    del state["settings"]["noise"], state["settings"]["beta2"]
    path.write_text(json.dumps(state))
    assert Trainer(settings(text), out=tmp_path).step == 3
    with pytest.raises(ValueError, match=r"beta2 was 0\.99, is 0\.5"):
        Trainer(settings(text, beta2=0.5), out=tmp_path)
    state["settings"]["colour"] = "red"
    path.write_text(json.dumps(state))
    with pytest.raises(ValueError, match="colour was 'red', is 'not known here'"):
        Trainer(settings(text), out=tmp_path)


def test_a_state_that_was_edited_names_its_file(text, tmp_path):
    Trainer(settings(text), out=tmp_path).run(1)
    folder = files.newest_checkpoint(tmp_path)
    for name in ("state.json", "config.json"):
        path = folder / name
        good = json.loads(path.read_text())
        for key in ("step", "seconds", "loader", "corpus") if name == "state.json" else ("model",):
            for value in (None, "x", -3, 1.5, [], "gone"):
                path.write_text(json.dumps({k: value if k == key else v for k, v in good.items()
                                            if k != key or value != "gone"}))  # fmt: skip
                if (key, value) == ("seconds", 1.5):
                    continue
                with pytest.raises(ValueError, match=r"step-00000001") as caught:
                    Trainer(settings(text), out=tmp_path)
                assert "\n" not in str(caught.value)
        path.write_text(json.dumps(good))
    (tmp_path / "log.jsonl").write_text('[1]\n{"step": "x"}\n{"step": 1, "loss": 2.0}\n{"st')
    assert Trainer(settings(text), out=tmp_path).history == [{"step": 1, "loss": 2.0}]


def test_a_reader_that_goes_costs_no_step(text, tmp_path):
    """What prints may fail at any moment: the steps are saved all the same."""
    def gone(record):
        if record["step"] == 5:
            raise BrokenPipeError

    run = Trainer(settings(text, log_every=1, save_every=100), out=tmp_path)
    with pytest.raises(BrokenPipeError):
        run.run(callback=gone)
    assert files.newest_checkpoint(tmp_path).name == "step-00000005"


@pytest.mark.parametrize("spoil", ["{", "[]", "{}", '{"settings": 3}'])
def test_a_broken_state_names_its_file(text, tmp_path, spoil):
    Trainer(settings(text), out=tmp_path).run(1)
    path = files.newest_checkpoint(tmp_path) / "state.json"
    path.write_text(spoil)
    with pytest.raises(ValueError, match=r"state\.json") as caught:
        Trainer(settings(text), out=tmp_path)
    assert "\n" not in str(caught.value)


def test_tensors_that_were_cut_off_name_their_folder(text, tmp_path):
    Trainer(settings(text), out=tmp_path).run(1)
    for name in ("state.safetensors", "model.safetensors"):
        path = files.newest_checkpoint(tmp_path) / name
        whole = path.read_bytes()
        for size in (0, 5, 40, len(whole) - 100):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"step-00000001.*(cannot be read|cut off)") as e:
                Trainer(settings(text), out=tmp_path)
            assert "\n" not in str(e.value)
        path.write_bytes(whole)


# ---- what is handed in ---------------------------------------------------------------------------


def cross_entropy(model, graph, x, sigma, x0=None, ratio=None):
    """r · CE of the hidden tokens: score entropy for a head that is normalised, else no bound."""
    log_p = model(x, sigma)[..., :-1].log_softmax(-1)
    loss = -log_p.gather(-1, x0[..., None])[..., 0] * (x == graph.mask_id)
    return loss.sum(-1) / sigma.expm1()


def test_a_loss_of_ones_own_trains_and_is_told_from_a_bound(text, tmp_path):
    run = Trainer(settings(text), out=tmp_path, loss=cross_entropy)
    history = run.run()
    assert not any("valid" in r for r in history)
    (valid,) = [r for r in history if "valid_loss" in r]
    assert 0.9 < valid["valid_loss"] < math.log(97) * 1.05
    losses = [r["loss"] for r in history if "loss" in r]
    assert losses[0] == pytest.approx(math.log(97) * run_share(run), rel=0.35)
    with pytest.raises(ValueError, match=r"the loss was .*cross_entropy, is .*in_head"):
        Trainer(settings(text), out=tmp_path)
    assert Trainer(settings(text), out=tmp_path, loss=cross_entropy).step == 12
    assert Trainer(settings(text), loss=diffusion_weighted).loss_is_bound()


def run_share(run) -> float:
    return 1 - math.exp(-run.noise.total(1.0).item())


def test_the_loss_in_the_head_and_the_plain_one_make_the_same_steps(text):
    """With dropout: the plain loss too meets the masks of the samples' own keys."""
    s = settings(text, dropout=0.3, precision="float64")
    one, two = Trainer(s), Trainer(s, loss=diffusion_weighted)
    for trainer in (one, two):
        trainer.run(4)
    assert torch.allclose(weights(one), weights(two), rtol=0, atol=1e-9)


def test_dropout_keys_follow_the_rows_of_a_loss():
    """A loss that asks for two rows a sample, in any order, meets each sample's own masks."""
    seen = {}

    def network(x, sigma, key):
        seen["key"] = key.tolist()

    sigma = torch.tensor([0.5, 0.1, 0.9])
    model = Keyed(network, torch.tensor([50, 10, 90]), sigma)
    x = torch.zeros(6, 2, dtype=torch.int64)
    model(x, sigma[[2, 0, 0, 1, 2, 1]])
    assert seen["key"] == [90, 50, 50, 10, 90, 10]
    model(x[:3], sigma.clone())
    assert seen["key"] == [50, 10, 90]
    with pytest.raises(ValueError, match="a noise level that no sample has"):
        model(x[:2], torch.tensor([0.5, 0.2]))


def test_a_tokeniser_that_is_named_has_to_be_that_of_the_shards(tmp_path):
    """By default the shards' own is taken; one that is asked for by name is not passed over."""
    (tmp_path / "texts").mkdir()
    for i in range(10):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"page {i}: the cat sat on the mat. " * 20)
    prepare_shards(tmp_path / "texts", tmp_path / "shards", "chars", progress=False)
    s = Settings(data=tmp_path / "shards", length=16)
    assert s.make_corpus().tokenizer.vocab_size == 97
    for given in (["tokenizer"], ["vocab_size"]):
        with pytest.raises(ValueError, match=r"bpe|vocab_size=1024"):
            s.make_corpus(given)
