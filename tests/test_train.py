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
from types import SimpleNamespace

import kill_and_resume
import pytest
import torch
from kill_and_resume import TINY
from machine import compiles
from runs import WORDS, settings, weights

from sedd_mini import files
from sedd_mini.commands import train as command
from sedd_mini.commands.train import main
from sedd_mini.network import pretrained
from sedd_mini.text.shards import prepare_shards
from sedd_mini.training import checkpoint
from sedd_mini.training import settings as settings_file
from sedd_mini.training import trainer as trainer_file
from sedd_mini.training.report import read_log
from sedd_mini.training.settings import PRESETS, Settings, preset
from sedd_mini.training.trainer import Trainer


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
    bound = trainer_file.likelihood_bound
    monkeypatch.setattr(
        trainer_file, "likelihood_bound", lambda *a, **k: seen.append(len(a[3])) or bound(*a, **k)
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


def die(*arguments: str) -> int:
    """Runs kill_and_resume.py; the number of deaths."""
    script = str(Path(__file__).with_name("kill_and_resume.py"))
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_kill_and_resume_at_20_random_moments(text, tmp_path):
    """SIGKILL at any time, the writing of checkpoints included: the same log and final weights."""
    assert die("random", text, str(tmp_path / "run"), "20", "0") == 20
    lines = (tmp_path / "run" / "log.jsonl").read_text()
    assert lines.endswith("}\n")
    records = list(map(json.loads, lines.splitlines()))  # none is torn
    steps = kill_and_resume.STEPS
    assert [r["step"] for r in records if "loss" in r] == list(range(1, steps + 1))
    assert [list(r) for r in records[steps:]] == [["step", "report"],
                                                  ["step", "valid", "valid_error"]]  # fmt: skip
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the script: sums in another order round otherwise
    try:
        whole = Trainer(kill_and_resume.settings(text), out=tmp_path / "whole")
        whole.run()
    finally:
        torch.set_num_threads(threads)
    end = Trainer(kill_and_resume.settings(text), out=tmp_path / "run")
    assert end.step == steps
    assert torch.equal(weights(whole), weights(end))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_a_death_after_any_change_of_the_file_system_leaves_a_whole_checkpoint(text, tmp_path):
    assert die("each", text, str(tmp_path)) >= 10  # files of the old checkpoint, renamed folders, …


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_the_middle_of_a_step_saves_a_whole_one(text, tmp_path, monkeypatch, kind):
    """The signal comes when the batch has been drawn and no step been made: nothing is skipped."""
    whole = Trainer(settings(text))
    whole.run()
    first, calls = Trainer(settings(text), out=tmp_path), []
    real = first.draw_batch

    def interrupted():
        calls.append(1)
        batch = real()
        if len(calls) == 5:
            os.kill(os.getpid(), kind)
        return batch

    monkeypatch.setattr(first, "draw_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = Trainer(settings(text), out=tmp_path)
    assert second.step == 5
    second.run()
    assert torch.equal(weights(whole), weights(second))


@pytest.mark.parametrize("long", ["validate", "snapshot"])
def test_a_second_interrupt_breaks_off_what_is_long(text, tmp_path, monkeypatch, long):
    trainer = Trainer(settings(text, valid_every=2, sample_every=2), out=tmp_path)

    def interrupted():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr(trainer, long, interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert Trainer(settings(text), out=tmp_path).step == 2


@pytest.mark.parametrize("long", ["train_step", "validate", "save"])
def test_an_interrupt_in_the_last_step_is_told(text, tmp_path, monkeypatch, long):
    trainer = Trainer(settings(text, steps=2), out=tmp_path)
    usual, handler = getattr(trainer, long), signal.getsignal(signal.SIGTERM)

    def interrupted():
        if trainer.step >= 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return usual()

    monkeypatch.setattr(trainer, long, interrupted)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert signal.getsignal(signal.SIGTERM) == handler
    assert Trainer(settings(text, steps=2), out=tmp_path).step == 2


def test_a_write_that_dies_leaves_the_last_checkpoint(text, tmp_path, monkeypatch):
    run = Trainer(settings(text), out=tmp_path)
    run.run(3)
    real, calls = files.save_tensors, []

    def dies(path, tensors):
        calls.append(path)
        if len(calls) % 2 == 0:  # the second file, also when it is tried once more
            raise OSError("no space left on device")
        real(path, tensors)

    for module in (pretrained, checkpoint):
        monkeypatch.setattr(module, "save_tensors", dies)
    with pytest.raises(OSError, match="no space"):
        run.run(6)
    monkeypatch.undo()
    again = Trainer(settings(text), out=tmp_path)
    assert again.step == 3


def test_a_death_while_the_log_is_written_again_loses_no_line(text, tmp_path, monkeypatch):
    Trainer(settings(text), out=tmp_path).run(6)
    before = (tmp_path / "log.jsonl").read_text()
    usual = Path.write_text

    def dies(path, data, **options):
        usual(path, data[:50], **options)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", dies)
    with pytest.raises(OSError, match="no space"):
        Trainer(settings(text), out=tmp_path)
    monkeypatch.undo()
    assert (tmp_path / "log.jsonl").read_text() == before
    assert len(Trainer(settings(text), out=tmp_path).history) == before.count("\n")


def test_a_run_without_its_log_ends_well(text, tmp_path):
    Trainer(settings(text, steps=3), out=tmp_path).run()
    (tmp_path / "log.jsonl").unlink()
    assert Trainer(settings(text, steps=3), out=tmp_path).run() == []


def test_only_step_and_eight_digits_is_a_checkpoint(text, tmp_path):
    Trainer(settings(text), out=tmp_path).run(3)
    kept, torn = tmp_path / "step-00000003-keep", tmp_path / "step-00000009.tmp"
    (tmp_path / "step-00000003").rename(kept)
    torn.mkdir()
    trainer = Trainer(settings(text), out=tmp_path)
    assert trainer.step == 0
    trainer.run(3)
    assert kept.is_dir()
    assert not torn.exists()
    assert Trainer(settings(text), out=tmp_path).step == 3


def test_time_aside_is_no_training_time(text, tmp_path, monkeypatch):
    """On a clock that only the trainer's own work moves. What is logged is due out of step."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(trainer_file, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    often = {"steps": 30, "log_every": 10, "valid_every": 9, "sample_every": 7, "save_every": 4}
    trainer = Trainer(settings(text, **often), out=tmp_path)
    lasts = {"train_step": 2, "log": 0.5, "report": 10, "validate": 100, "snapshot": 1e3,
             "save": 1e4}  # fmt: skip

    def timed(usual, seconds):
        def work(*args):
            clock.now += seconds
            return usual(*args)

        return work

    for name, seconds in lasts.items():
        monkeypatch.setattr(trainer, name, timed(getattr(trainer, name), seconds))
    records = [r for r in trainer.run() if "loss" in r]
    assert [r["seconds"] for r in records] == [20, 40.5, 61]
    tokens = 10 * 4 * 16
    assert [r["tokens_per_s"] for r in records] == [round(tokens / t) for t in (20, 20.5, 20.5)]
    state = checkpoint.load_state(files.newest_checkpoint(tmp_path))
    assert state["seconds"] == 61


def test_samples_are_utf8_whatever_the_machine_prefers(text, tmp_path, monkeypatch):
    usual = Path.write_text
    monkeypatch.setattr(
        Path, "write_text", lambda *args, encoding="ascii": usual(*args, encoding=encoding)
    )
    trainer = Trainer(settings(text), out=tmp_path)
    monkeypatch.setattr(trainer.corpus.tokenizer, "decode", lambda ids: "naïve ∫")
    trainer.snapshot()
    (file,) = (tmp_path / "samples").iterdir()
    assert file.read_text(encoding="utf-8").splitlines() == ["naïve ∫", "---", "naïve ∫"]


def test_accumulated_parts_give_the_same_step(text):
    """Float64, with the same masks of dropout; float32 differs by rounding alone."""
    whole, parts = (Trainer(settings(text, accumulate=k, precision="float64", dropout=0.1))
                    for k in (1, 2))  # fmt: skip
    losses = [(whole.train_step(), parts.train_step()) for _ in range(3)]
    for a, b in losses:
        assert a == pytest.approx(b, rel=1e-6)
    assert (weights(whole) - weights(parts)).abs().max() < 1e-6


def test_the_log_has_the_largest_norm_of_the_gradient(text):
    """As it was before clipping, which leaves 0.01 of it."""
    trainer, norms = Trainer(settings(text, steps=6, log_every=3, clip=0.01)), []
    step = trainer.train_step

    def watched():
        loss = step()
        left = torch.stack([p.grad.norm() for p in trainer.model.parameters()]).norm()
        assert left.item() == pytest.approx(0.01, rel=1e-3)
        norms.append(trainer.grad_norm)
        return loss

    trainer.train_step = watched
    records = [r["grad_norm"] for r in trainer.run() if "loss" in r]
    assert records == [max(norms[:3]), max(norms[3:])]
    assert min(norms) > 0.02
    free = Trainer(settings(text, clip=1e9))
    free.train_step()
    whole = torch.stack([p.grad.norm() for p in free.model.parameters()]).norm().item()
    assert free.grad_norm == pytest.approx(whole, rel=1e-5)
    assert norms[0] == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("seed", [5, 2**23 - 1, 2**23, 20_260_101, 2**40])
def test_any_seed_gives_keys_of_dropout(text, seed):
    trainer = Trainer(settings(text, seed=seed, dropout=0.1))
    assert math.isfinite(trainer.train_step())
    *_, key = trainer.draw_batch()
    assert (key >> 40).tolist() == [seed % 2**23] * 4
    assert (key % 2**40).tolist() == [4, 5, 6, 7]


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("graph", ["absorb", "uniform"])
def test_a_compiled_network_makes_the_same_steps(text, graph):
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    options = {"graph": graph, "dropout": 0.1, "num_blocks": 2, "precision": "float32", "lr": 1e-3}
    plain, compiled = (Trainer(settings(text, compile=c, **options)) for c in (False, True))
    losses = [(plain.train_step(), compiled.train_step()) for _ in range(3)]
    for a, b in losses:
        assert a == pytest.approx(b, rel=1e-5)
    torch.testing.assert_close(weights(plain), weights(compiled), rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] <= 3  # one of all blocks, two of the head
    assert not counters["graph_break"]
    assert len({a for a, _ in losses}) == 3


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
    assert files.load_tensors(batch)["x0"].shape == (4, 16)
    assert Trainer(settings(text), out=tmp_path).step == 3


def test_resuming_another_run_is_refused(text, tmp_path):
    Trainer(settings(text), out=tmp_path).run(3)
    with pytest.raises(ValueError, match=r"lr was 0\.002, is 0\.1"):
        Trainer(settings(text, lr=0.1), out=tmp_path)
    with open(text, "a") as file:
        file.write("\n\nanother ending\n")
    with pytest.raises(ValueError, match="the text is another one"):
        Trainer(settings(text), out=tmp_path)


def test_a_run_that_goes_on_with_other_settings(text, tmp_path):
    """Those that are named, if they leave the network as it is; the log says from where on."""
    new = {"lr": 1e-3, "warmup": 5, "beta2": 0.9, "weight_decay": 0.1, "seed": 7}
    Trainer(settings(text), out=tmp_path).run(3)
    with pytest.raises(ValueError, match="--change lr,warmup,weight_decay,beta2,seed goes on"):
        Trainer(settings(text, **new), out=tmp_path)
    with pytest.raises(ValueError, match=r"\(width was 16, is 32\).*another --out$"):
        Trainer(settings(text, width=32), out=tmp_path)
    with pytest.raises(ValueError, match="go on with another length, width: what can be changed"):
        Trainer(settings(text), change=("width", "lr", "length"))
    for _ in range(2):  # the first one dies before there is another checkpoint
        trainer = Trainer(settings(text, **new), out=tmp_path, change=(*new, "clip"))
        changed = {"lr": [2e-3, 1e-3], "warmup": [2, 5], "beta2": [0.99, 0.9],
                   "weight_decay": [0.0, 0.1], "seed": [0, 7]}  # fmt: skip
        records = [r for r in read_log(tmp_path) if "changed" in r]
        assert records == [{"step": 3, "changed": changed}]
        trainer.train_step()
    group = trainer.optimizer.param_groups[0]
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.9), 0.1)
    assert group["lr"] == pytest.approx(1e-3 * trainer.lr_factor(3))
    other = Trainer(settings(text, **new)).loader
    other.position = 12  # of three steps
    fresh = next(other)
    again = Trainer(settings(text, **new), out=tmp_path, change=tuple(new))
    assert torch.equal(next(again.loader), fresh)
    trainer.run(6)
    last = Trainer(settings(text, **new), out=tmp_path)  # they are its settings now
    assert last.step == 6
    assert sum("changed" in r for r in last.history) == 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float64"])
def test_a_run_that_goes_on_in_another_precision(text, tmp_path, precision):
    first = Trainer(settings(text, precision="float32"), out=tmp_path)
    first.run(3)
    second = Trainer(settings(text, precision=precision), out=tmp_path, change=("precision",))
    torch.testing.assert_close(weights(second), weights(first), check_dtype=False)
    assert math.isfinite(second.train_step())


def test_openwebtext_is_read_from_its_shards_or_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings_file, "load_corpus", lambda *_, **__: pytest.fail("it was read"))
    command = "sedd_mini prepare --data openwebtext --tokenizer gpt2 --out runs/openwebtext;"
    with pytest.raises(ValueError, match=command):
        Trainer(preset("small"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    for i in range(4):
        Path("texts", f"{i}.txt").write_text(WORDS * 20 + str(i))
    prepare_shards("texts", "runs/openwebtext", "chars", progress=False)
    small = preset("small", **TINY | {"tokenizer": "gpt2"})
    assert small.data == "openwebtext"
    trainer = Trainer(small)
    assert trainer.corpus.info["train_tokens"] > 1000
    assert math.isfinite(trainer.train_step())


def test_what_is_shipped_says_how_it_was_made(text, tmp_path, capsys):
    options = ["--data", text, "--steps", "3", "--out", str(tmp_path / "run")]
    for name, value in TINY.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    main([*options, "--export", str(tmp_path / "net")])
    model, _, _ = pretrained.load_pretrained(tmp_path / "net")
    record = json.loads((tmp_path / "net" / "training.json").read_text())
    assert record["command"].startswith("python -m sedd_mini train --data ")
    assert (record["steps"], record["tokens_seen"], record["seed"]) == (3, 3 * 4 * 16, 0)
    trainer = Trainer(settings(text))
    trainer.average = model
    again = trainer.validate(trainer.corpus.valid[:], seed=1)
    assert again.bits_per_token == pytest.approx(record["bound_bits_per_token"], rel=1e-6)


def test_an_export_that_would_delete_something_is_refused_before_training(text, tmp_path):
    run, folder, file = tmp_path / "runs" / "one", tmp_path / "texts", tmp_path / "file"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    file.write_text("mine")
    command = ["--data", text, "--out", str(run), "--export"]
    for wrong, message in [(folder, "or none"), (file, "or none"), (run, "replace the run"),
                           (tmp_path / "runs", "replace the run")]:  # fmt: skip
        with pytest.raises(SystemExit, match=message):
            main([*command, str(wrong)])
    assert (folder / "mine.txt").exists()
    assert not run.exists()


def test_every_preset_makes_settings_and_help_explains_each(capsys):
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
        ({"valid_repeats": 1}, "at least 2"), ({"ema": 1.0}, "ema must be below 1"),
        ({"ema": -0.1}, "ema must be at least 0"), ({"clip": 0.0}, "clip must be above 0"),
        ({"clip": math.nan}, "clip must be a number, finite"), ({"warmup": -1}, "at least 0"),
        ({"sample_every": -1}, "at least 0"), ({"valid_every": -1}, "at least 0"),
        ({"seed": -1}, "at least 0"), ({"device": "cuda:0"}, "expected one of"),
        ({"device": "mps"}, "expected one of"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            Trainer(settings(text, **changes))
    with pytest.raises(ValueError, match="no preset 'huge'"):
        preset("huge")
    with pytest.raises(ValueError, match="no setting learning_rate"):
        preset("docs", learning_rate=1)


def test_yes_and_no_on_the_command_line(capsys):
    for word, expected in [("1", True), ("true", True), ("YES", True), ("0", False),
                           ("False", False), ("no", False)]:  # fmt: skip
        assert command.parse(["--compile", word]).compile is expected
    for word in ("flase", "on", "2", ""):
        with pytest.raises(SystemExit):
            command.parse(["--compile", word])
        said = capsys.readouterr().err
        assert f"argument --compile: expected 1, true, yes, 0, false or no, got {word!r}" in said
    assert command.parse(["--change", "lr,warmup"]).change == ("lr", "warmup")


def test_command_line_trains_and_draws(text, tmp_path):
    options = ["--data", text, "--steps", "4", "--out", str(tmp_path / "run")]
    for name, value in TINY.items():
        options += [f"--{name.replace('_', '-')}", str(value)]
    main([*options, "--sample-every", "4"])
    assert (tmp_path / "run" / "loss.png").stat().st_size > 1000
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 1
