"""Two processes make the steps of one; any number goes on from what they save; a death is no loss.

The processes exchange by gloo on the CPU, on one thread each. In float64 the results of one and of
two processes may differ by the rounding of sums in another order alone: 1e-6 is far above it (1e-14
is seen). In float32 sums of another order differ by 1e-7 of their largest term. A loss does so too;
but where terms of a gradient cancel, that is more of what is left, and Adam, which divides by the
size of the gradient, moves the weight by another share of the learning rate, here 1e-2: 1e-4 is
allowed for weights (4e-6 is seen).
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import two_ranks

from sedd_mini.checkpoint import load_pretrained, newest_checkpoint
from sedd_mini.train import Trainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun on Windows needs libuv")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TESTS = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    words = "the cat sat on the mat and the dog sat on the cat " * 2
    path.write_text("\n\n".join(words + str(i) for i in range(40)))
    return str(path)


def launch(text: str, out: Path, part: int) -> None:
    command = [*TORCHRUN, str(TESTS / "two_ranks.py"), text, str(out), str(part)]
    done = subprocess.run(command, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def together(text, tmp_path_factory) -> Path:
    """A folder with what two processes came to."""
    out = tmp_path_factory.mktemp("two")
    launch(text, out, 1)
    return out


@pytest.fixture(scope="module")
def alone(text) -> dict:
    """What one process comes to, by case."""
    results = {}
    for name, changes in two_ranks.CASES.items():
        trainer = Trainer(two_ranks.settings(text, **changes))
        trainer.run()
        results[name] = two_ranks.result(trainer)
    return results


def assert_same(one: dict, two: dict, tolerance: float = 1e-6) -> None:
    assert one["losses"] == pytest.approx(two["losses"], abs=tolerance)
    assert one["valid"] == pytest.approx(two["valid"], abs=tolerance)
    assert (one["weights"] - two["weights"]).abs().max() < tolerance


@pytest.mark.parametrize("name", two_ranks.CASES)
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_make_the_steps_of_one(alone, together, parallel, name):
    two = torch.load(together / f"{parallel}-{name}.pt", weights_only=True)
    assert_same(alone[name], two, 1e-4 if name == "float32" else 1e-6)


def test_the_cases_differ(alone):
    """Dropout, clipping and the graph have their effect; parts and recomputation have none."""
    weights = {name: result["weights"] for name, result in alone.items()}
    for name in ("dropout", "uniform", "clipped"):
        same = weights[name].shape == weights["plain"].shape
        assert not same or (weights[name] - weights["plain"]).abs().max() > 1e-2
    assert (weights["parts"] - weights["plain"]).abs().max() < 1e-6
    assert (weights["recomputed"] - weights["dropout"]).abs().max() < 1e-6


def test_resumed_by_one_process_and_again_by_two(text, alone, together):
    """2 → 1 → 2 processes, three steps each: the losses and weights of one run."""
    folders = [(together / f"{parallel}-{name}-resumed", parallel, name)
               for parallel in ("ddp", "fsdp") for name in two_ranks.RESUMED]  # fmt: skip
    for folder, _, name in folders:
        trainer = Trainer(two_ranks.settings(text, **two_ranks.CASES[name]), out=folder)
        assert trainer.step == two_ranks.STOP1
        trainer.run(two_ranks.STOP2)
    launch(text, together, 2)
    for folder, parallel, name in folders:
        end = torch.load(folder / "part-2.pt", weights_only=True)
        end["valid"] = end["valid"][-1:]  # there was one at the end of every part
        # The averaged weights are kept in float32, as all published weights: 6e-8 of them.
        assert_same(alone[name], end)
        shards = list(newest_checkpoint(folder).glob("shard-*.safetensors"))
        assert len(shards) == (2 if parallel == "fsdp" else 0)
        model, _, _ = load_pretrained(folder)  # the averaged network, as if one had written it
        average = torch.cat([p.flatten() for p in model.parameters()]).double()
        assert (average - alone[name]["weights"][len(average) :]).abs().max() < 1e-6


# ---- the command line --------------------------------------------------------------------------


def start(text: str, out: Path, *options: str) -> subprocess.Popen:
    command = [*TORCHRUN, "-m", "sedd_mini.train", "--data", text, "--out", str(out), *options]
    for name, value in (two_ranks.SMALL | {"save_every": 3}).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                            text=True)  # fmt: skip


def wait_for_step(out: Path, step: int) -> None:
    for _ in range(6000):
        newest = newest_checkpoint(out)
        if newest and int(newest.name.removeprefix("step-")) >= step:
            return
        time.sleep(0.01)
    raise TimeoutError(f"no checkpoint of step {step} in {out}")


def workers(parent: int) -> list[int]:
    """The processes that torchrun has started, by rank."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    return sorted(
        int(p) for p, pp, args in lines if int(pp) == parent and "sedd_mini.train" in args
    )


def losses(out: Path) -> dict[int, float]:
    records = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return {r["step"]: r["loss"] for r in records if "loss" in r}


def test_death_and_sigterm(text, tmp_path):
    """SIGKILL of one process ends all, with a message, and the last checkpoint is whole; SIGTERM
    saves the step at hand; what was logged is what one undisturbed process comes to. The weights
    are in shares first, and whole after the death."""
    options = ["--precision", "float64", "--steps", "100000", "--decay", "none"]
    run = start(text, tmp_path, *options, "--parallel", "fsdp")
    wait_for_step(tmp_path, 6)
    os.kill(workers(run.pid)[1], signal.SIGKILL)
    _, errors = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "is whole: the same command goes on from there" in errors
    killed = int(newest_checkpoint(tmp_path).name.removeprefix("step-"))
    assert killed % 3 == 0

    run = start(text, tmp_path, *options, "--parallel", "ddp")
    wait_for_step(tmp_path, killed + 3)
    run.send_signal(signal.SIGTERM)
    said, _ = run.communicate(timeout=60)
    ended = int(newest_checkpoint(tmp_path).name.removeprefix("step-"))
    assert f"interrupted: step {ended} is saved" in said
    assert sorted(losses(tmp_path)) == list(range(1, ended + 1))  # none is missing, none twice

    alone = Trainer(two_ranks.settings(text, steps=ended, decay="none"))
    expected = [r["loss"] for r in alone.run() if "loss" in r]
    assert list(losses(tmp_path).values()) == pytest.approx(expected, abs=1e-6)
