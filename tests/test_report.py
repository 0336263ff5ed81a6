"""The report at the end of a run: what it says is what was spent, and adds up."""

import json
import math
import time

import pytest
import torch
from kill_and_resume import TINY

from sedd_mini.commands.train import main
from sedd_mini.text import offline
from sedd_mini.text.tokenizers import BPETokenizer
from sedd_mini.training import planner, report
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Trainer


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(f"the cat sat on the mat {i}" for i in range(80)))
    return str(path)


def settings(text, **changes) -> Settings:
    return Settings(**TINY | {"data": text, "steps": 6} | changes)


def test_time_goes_to_the_mark_that_ends_it():
    watch = report.Stopwatch("cpu")
    for running in (False, True, True):
        watch.start(running)
        time.sleep(0.02)
        watch.mark("trunk")
        watch.mark("optimiser")
    assert watch.steps == 2
    assert 0.04 <= watch.seconds["trunk"] < 0.4
    assert watch.seconds["optimiser"] < 0.02
    assert watch.seconds["data"] == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_parts_make_up_the_step(text, accumulate):
    trainer = Trainer(settings(text, accumulate=accumulate))
    steps = []
    step = trainer.train_step

    def timed():
        start = time.perf_counter()
        loss = step()
        steps.append(time.perf_counter() - start)
        return loss

    trainer.train_step = timed
    records = [r["report"] for r in trainer.run() if "report" in r]
    assert len(records) == 1
    found = records[0]
    assert trainer.watch.steps == 3  # the last ones
    assert list(found["split"]) == list(report.PARTS)
    assert all(share > 0 for share in found["split"].values())
    assert sum(found["split"].values()) == pytest.approx(1)
    assert found["step_s"] == pytest.approx(sum(steps[-3:]) / 3, rel=0.3)
    s = trainer.settings
    assert found["tokens_per_s"] * found["step_s"] == pytest.approx(s.batch_size * s.length)
    needed = planner.training_flops(trainer.model.config, s.length) * s.batch_size
    assert found["flops_per_s"] * found["step_s"] == pytest.approx(needed)
    assert found["utilisation"] == pytest.approx(found["flops_per_s"] / found["peak_flops_per_s"])
    assert found["peak_memory"] > 1e8  # PyTorch alone takes that much
    words = report.as_text(found)
    assert words.startswith("throughput: ")
    assert all(name in words for name in report.PARTS)


@pytest.mark.parametrize("slow", report.PARTS)
def test_a_part_that_is_slow_takes_most_of_the_step(text, slow, monkeypatch):
    """One part sleeps for a tenth of a second, many times what the whole step takes otherwise."""
    trainer = Trainer(settings(text))
    owner, name = {
        "data": (trainer, "draw_batch"),
        "trunk": (trainer.model.blocks[0], "forward"),
        "head and loss": (trainer.model.output_layer, "forward"),
        "backward": (torch.Tensor, "backward"),
        "optimiser": (trainer.optimizer, "step"),
    }[slow]
    usual = getattr(owner, name)

    def slowly(*args, **kwargs):
        time.sleep(0.1)
        return usual(*args, **kwargs)

    monkeypatch.setattr(owner, name, slowly)
    split = trainer.run()[-2]["report"]["split"]
    assert max(split, key=split.get) == slow


def test_a_run_with_nothing_left_to_do_reports_nothing_new(text, tmp_path):
    log = Trainer(settings(text), out=tmp_path / "run").run()
    again = Trainer(settings(text), out=tmp_path / "run")
    assert again.run() == log


def test_measuring_changes_no_weight(text):
    """A run that is looked at in its last steps, against single steps that nobody looks at."""
    whole, by_hand = Trainer(settings(text)), Trainer(settings(text))
    whole.run()
    for _ in range(6):
        by_hand.train_step()
    for a, b in zip(whole.model.parameters(), by_hand.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_peak_is_of_a_product_of_that_size(monkeypatch):
    """On a clock that ticks once a look, a product takes one second."""
    ticks = iter(range(100))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    assert report.peak_flops("cpu", torch.float32, size=32, repeats=3) == 2 * 32**3


def test_tensorboard_holds_the_log(text, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    trainer = Trainer(settings(text, tensorboard=True, log_every=2), out=out)
    trainer.run(4)
    trainer = Trainer(settings(text, tensorboard=True, log_every=2), out=out)
    trainer.run()
    board = events.EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    expected = [(r["step"], r["loss"]) for r in lines if "loss" in r]
    assert [step for step, _ in expected] == [2, 4, 6]
    found = [(e.step, e.value) for e in board.Scalars("loss")]
    assert found == [(step, pytest.approx(loss)) for step, loss in expected]


def test_the_stand_in_keeps_the_tokens_and_their_number():
    small = BPETokenizer.train(["the cat sat on the mat, the dog sat on the cat"] * 9, 280)
    large = offline.padded(small, 5000)
    assert large.vocab_size == 5000
    assert large.encode("the cat sat") == small.encode("the cat sat")
    assert large.decode(small.encode("on the mat")) == "on the mat"
    assert large.eot_id == small.eot_id


@pytest.mark.slow
def test_the_full_vocabulary_trains_offline(tmp_path, capsys, monkeypatch):
    """The command of the README for the full-size network, on a narrow trunk."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    narrow = "--width 16 --num-blocks 1 --num-heads 2 --valid-every 0"
    command = f"--preset small --data docs --steps 2 --batch-size 2 --length 64 {narrow}"
    main([*command.split(), "--out", str(tmp_path / "run")])
    said = capsys.readouterr()
    assert "vocabulary 50257" in said.out
    assert "throughput: " in said.out
    assert "peak memory: " in said.out
    loss = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0])["loss"]
    assert loss == pytest.approx(math.log(50257), rel=0.25)
