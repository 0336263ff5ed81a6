"""What training promises: it learns, it goes on after any death to the same weights, it explains.

The corpora are a few hundred words long, the networks tiny.
"""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import kill_and_resume
import pytest
import torch
from kill_and_resume import TINY

from sedd_mini import checkpoint, train
from sedd_mini.train import PRESETS, Settings, Trainer, preset

WORDS = "the cat sat on the mat and the dog sat on the cat "


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(WORDS * 2 + str(i) for i in range(40)))
    return str(path)


def settings(text, **changes) -> Settings:
    return Settings(**TINY | {"data": text, "steps": 12, "save_every": 3} | changes)


def weights(trainer) -> torch.Tensor:
    parameters = [*trainer.model.parameters(), *trainer.average.parameters()]
    return torch.cat([p.detach().flatten() for p in parameters])


@pytest.mark.parametrize("graph", ["absorb", "uniform"])
def test_training_lowers_the_validation_bound(text, graph):
    trainer = Trainer(settings(text, graph=graph, steps=60, width=32, lr=1e-2, batch_size=16))
    before = trainer.validate()
    history = trainer.run()
    after = trainer.validate()
    assert after.nats + 3 * after.error < before.nats - 3 * before.error
    assert history[-1]["valid"] == pytest.approx(after.nats / 16)
    losses = [r["loss"] for r in history if "loss" in r]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_the_first_loss_is_that_of_a_uniform_guess(text):
    """(1 − e^{−σ̄(1)}) ln N nats a token for an untrained, scaled absorbing network, any batch."""
    trainer = Trainer(settings(text, batch_size=400, length=16))
    expected = (1 - 1e-3) * math.log(trainer.graph.num_tokens)
    assert trainer.train_step() == pytest.approx(expected, rel=0.03)


def test_a_short_try_is_validated_on_no_more_than_it_trained_on(text, monkeypatch):
    """Two steps of the full-size network take seconds; 512 blocks of validation would an hour."""
    seen = []
    bound = train.likelihood_bound
    monkeypatch.setattr(
        train, "likelihood_bound", lambda *a, **k: seen.append(len(a[3])) or bound(*a, **k)
    )
    for steps, expected in ((1, 3), (4, 4)):
        Trainer(settings(text, steps=steps, batch_size=3, valid_blocks=4)).validate()
        assert seen.pop() == expected


@pytest.mark.parametrize("stop", [3, 6, 9])
@pytest.mark.parametrize("graph", ["absorb", "uniform"])
def test_a_stopped_run_goes_on_to_the_same_weights(text, tmp_path, graph, stop):
    whole = Trainer(settings(text, graph=graph, dropout=0.1), out=tmp_path / "whole")
    log = whole.run()
    first = Trainer(settings(text, graph=graph, dropout=0.1), out=tmp_path / "parts")
    first.run(stop)
    second = Trainer(settings(text, graph=graph, dropout=0.1), out=tmp_path / "parts")
    assert second.step == stop
    resumed = second.run()
    assert torch.equal(weights(whole), weights(second))
    pick = lambda log: [(r["step"], r["loss"]) for r in log if "loss" in r]  # noqa: E731
    assert pick(resumed) == pick(log)
    lines = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert pick(map(json.loads, lines)) == pick(log)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_kill_and_resume_at_20_random_moments(text, tmp_path):
    """SIGKILL at any time, the writing of checkpoints included: the same final weights."""
    script = Path(__file__).with_name("kill_and_resume.py")
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(script), text, str(tmp_path / "run"), "20", "0"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["20"]), done.stderr
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the script: sums in another order round otherwise
    try:
        whole = Trainer(kill_and_resume.settings(text), out=tmp_path / "whole")
        whole.run()
    finally:
        torch.set_num_threads(threads)
    end = Trainer(kill_and_resume.settings(text), out=tmp_path / "run")
    assert end.step == kill_and_resume.STEPS
    assert torch.equal(weights(whole), weights(end))


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_middle_of_a_step_saves_a_whole_one(text, tmp_path, monkeypatch, kind):
    """The signal comes when the batch has been drawn and no step been made: nothing is skipped."""
    whole = Trainer(settings(text))
    whole.run()
    first, calls = Trainer(settings(text), out=tmp_path), []
    real = first.noisy_batch

    def interrupted():
        calls.append(1)
        batch = real()
        if len(calls) == 5:
            os.kill(os.getpid(), kind)
        return batch

    monkeypatch.setattr(first, "noisy_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Trainer(settings(text), out=tmp_path)
    assert second.step == 5
    second.run()
    assert torch.equal(weights(whole), weights(second))


def test_a_write_that_dies_leaves_the_last_checkpoint(text, tmp_path, monkeypatch):
    run = Trainer(settings(text), out=tmp_path)
    run.run(3)
    real, calls = checkpoint.save_tensors, []

    def dies(path, tensors):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("no space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "save_tensors", dies)
    with pytest.raises(OSError, match="no space"):
        run.run(6)
    monkeypatch.undo()
    again = Trainer(settings(text), out=tmp_path)
    assert again.step == 3


def test_accumulated_parts_give_the_same_step(text):
    """Float64, with the same masks of dropout; float32 differs by rounding alone."""
    whole, parts = (Trainer(settings(text, accumulate=k, precision="float64", dropout=0.1))
                    for k in (1, 2))  # fmt: skip
    losses = [(whole.train_step(), parts.train_step()) for _ in range(3)]
    for a, b in losses:
        assert a == pytest.approx(b, rel=1e-6)
    assert (weights(whole) - weights(parts)).abs().max() < 1e-6


def test_averaged_weights_follow_the_published_decay(text):
    trainer = Trainer(settings(text, ema=0.9))
    first = weights(trainer)
    size = len(first) // 2
    average = first[size:]
    for n in range(1, 4):
        trainer.train_step()
        now = weights(trainer)
        decay = min(0.9, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * now[:size]
        torch.testing.assert_close(now[size:], average)


def test_learning_rate_rises_then_falls(text):
    trainer = Trainer(settings(text, steps=100, warmup=10))
    factors = [trainer.lr_factor(k) for k in range(101)]
    assert factors[0] == pytest.approx(0.1, rel=1e-3)
    assert max(factors) == pytest.approx(factors[10], rel=0.1)
    assert factors[100] == pytest.approx(0, abs=1e-12)
    flat = Trainer(settings(text, decay="none", warmup=10))
    assert flat.lr_factor(1000) == 1


def test_a_loss_that_is_not_finite_stops_and_keeps_its_batch(text, tmp_path):
    trainer = Trainer(settings(text), out=tmp_path)
    trainer.run(3)
    with torch.no_grad():
        trainer.model.output_layer.linear.bias.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"at step 3; its batch is in .*--lr"):
        trainer.run(6)
    (batch,) = tmp_path.glob("not-finite-*.safetensors")
    assert checkpoint.load_tensors(batch)["x0"].shape == (4, 16)
    assert Trainer(settings(text), out=tmp_path).step == 3


def test_resuming_another_run_is_refused(text, tmp_path):
    Trainer(settings(text), out=tmp_path).run(3)
    with pytest.raises(ValueError, match=r"lr was 0\.002, is 0\.1"):
        Trainer(settings(text, lr=0.1), out=tmp_path)
    with open(text, "a") as file:
        file.write("\n\nanother ending\n")
    with pytest.raises(ValueError, match="the text is another one"):
        Trainer(settings(text), out=tmp_path)


def test_what_is_shipped_says_how_it_was_made(text, tmp_path, capsys):
    from sedd_mini.train import main

    options = ["--data", text, "--steps", "3", "--out", str(tmp_path / "run")]
    for name, value in TINY.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    main([*options, "--export", str(tmp_path / "net")])
    model, _, _ = checkpoint.load_pretrained(tmp_path / "net")
    record = json.loads((tmp_path / "net" / "training.json").read_text())
    assert record["command"].startswith("python -m sedd_mini.train --data ")
    assert (record["steps"], record["tokens_seen"], record["seed"]) == (3, 3 * 4 * 16, 0)
    trainer = Trainer(settings(text))
    trainer.average = model
    again = trainer.validate(trainer.corpus.valid[:], seed=1)
    assert again.bits_per_token == pytest.approx(record["bound_bits_per_token"], rel=1e-6)


def test_every_preset_makes_settings_and_help_explains_each(capsys):
    from sedd_mini.train import main

    for name in PRESETS:
        assert isinstance(preset(name), Settings)
    small = preset("small")
    published = (small.length, small.batch_size, small.lr, small.warmup, small.dropout, small.clip)
    assert published == (1024, 512, 3e-4, 2500, 0.1, 1.0)
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for name in Settings.__dataclass_fields__:
        assert "--" + name.replace("_", "-") in text


def test_bad_settings_are_refused_with_a_reason(text):
    for changes, message in [
        ({"graph": "cube"}, "expected one of"), ({"steps": 0}, "at least 1"),
        ({"accumulate": 3}, "does not divide"), ({"num_heads": 3}, "multiple of"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Trainer(settings(text, **changes))
    with pytest.raises(ValueError, match="no preset 'huge'"):
        preset("huge")
    with pytest.raises(ValueError, match="no setting learning_rate"):
        preset("docs", learning_rate=1)


def test_command_line_trains_samples_and_infills(text, tmp_path, capsys):
    from sedd_mini.sample import main as sample
    from sedd_mini.train import main as train

    options = ["--data", text, "--steps", "4", "--out", str(tmp_path / "run")]
    for name, value in TINY.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    train([*options, "--sample-every", "4"])
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 1
    capsys.readouterr()
    base = ["--checkpoint", str(tmp_path / "run"), "--steps", "4"]
    sample([*base, "--prompt", "the ", "--suffix", " on", "--num", "2"])
    lines = capsys.readouterr().out.split("--- sample")[1:]
    assert len(lines) == 2
    for line in lines:
        body = line.split("\n", 1)[1].rstrip("\n")
        assert body.startswith("the ")
        assert body.endswith(" on")
    sample([*base, "--text", "the ____ sat"])
    out = capsys.readouterr().out
    assert out.startswith("the ")
    assert out.endswith(" sat\n")
    with pytest.raises(SystemExit, match="nothing is left"):
        sample([*base, "--text", "no gap"])
    with pytest.raises(SystemExit, match="there is no folder"):
        sample(["--checkpoint", str(tmp_path / "none" / "such" / "run")])
