"""Two processes make the steps of one; any number goes on from what they save; a death is no loss.

The processes exchange by gloo on the CPU, on one thread each. In float64 the results of one and of
two processes may differ by the rounding of sums in another order alone: 1e-6 is far above it (1e-14
is seen). In float32 sums of another order differ by 1e-7 of their largest term. A loss does so too;
but where terms of a gradient cancel, that is more of what is left, and Adam, which divides by the
size of the gradient, moves the weight by another share of the learning rate, here 1e-2: 1e-4 is
allowed for weights (4e-6 is seen).
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import two_ranks

from sedd_mini.files import load_tensors, newest_checkpoint, step_of
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.training.trainer import Trainer

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torchrun on Windows needs libuv")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ENV = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
TESTS = Path(__file__).parent
PATIENCE = 600  # seconds, on a machine that is busy with other things


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


@contextlib.contextmanager
def torchrun(*arguments: str) -> Iterator[subprocess.Popen]:
    """Two processes of a Python script or module; none of them is left at the end."""
    run = subprocess.Popen([*TORCHRUN, *arguments], env=ENV, text=True, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)  # fmt: skip
    try:
        yield run
    finally:
        for process in [*workers(run.pid), run.pid] if run.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        run.wait()


def workers(parent: int) -> list[int]:
    """The processes that torchrun has started, by rank."""
    found = subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout
    lines = [line.split(None, 2) for line in found.splitlines()[1:]]
    names = "sedd_mini train", "two_ranks.py"
    return sorted(
        int(p) for p, pp, args in lines if int(pp) == parent and any(n in args for n in names)
    )


def launch(text: str, out: Path, part: int) -> None:
    with torchrun(str(TESTS / "two_ranks.py"), text, str(out), str(part)) as run:
        _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors[-3000:]


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
        trainer = two_ranks.make(text, name, **changes)
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


@pytest.mark.parametrize("name", [name for name in two_ranks.CASES if name != "own loss"])
@pytest.mark.parametrize(("parallel", "groups"), [("ddp", 1), ("fsdp", 3)])
def test_gradients_are_exchanged_once_a_step(together, parallel, groups, name):
    """However many parts a batch is worked through in. FSDP: by block, and the rest."""
    two = torch.load(together / f"{parallel}-{name}.pt", weights_only=True)
    assert two["sums"] == groups * two_ranks.STEPS


def test_the_cases_differ(alone):
    """Dropout, clipping and the graph have their effect; parts and recomputation have none."""
    weights = {name: result["weights"] for name, result in alone.items()}
    for name in ("dropout", "uniform", "clipped", "own loss"):
        same = weights[name].shape == weights["plain"].shape
        assert not same or (weights[name] - weights["plain"]).abs().max() > 1e-2
    assert (weights["parts"] - weights["plain"]).abs().max() < 1e-6
    assert (weights["recomputed"] - weights["dropout"]).abs().max() < 1e-6
    assert (weights["own loss"] - weights["dropout"]).abs().max() > 1e-2


def test_resumed_by_one_process_and_again_by_two(text, alone, together):
    """2 → 1 → 2 processes, three steps each: the losses and weights of one run."""
    folders = [(together / f"{parallel}-{name}-resumed", parallel, name)
               for parallel in ("ddp", "fsdp") for name in two_ranks.RESUMED]  # fmt: skip
    for folder, _, name in folders:
        trainer = Trainer(two_ranks.settings(text, **two_ranks.CASES[name]), out=folder)
        assert trainer.step == two_ranks.STOP1
        trainer.run(two_ranks.STOP2)
        trainer.close()  # the next processes want the folder
    first = Trainer(two_ranks.settings(text), out=together / "own-0")
    first.run(1)
    first.close()
    launch(text, together, 2)
    for rank in (0, 1):
        message = (together / f"own-{rank}" / "error.txt").read_text()
        assert message.startswith("not all processes see the same checkpoint")
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


def test_what_lies_in_shares_is_exported_whole(together):
    exported = load_tensors(together / "net" / "model.safetensors")
    average = load_tensors(newest_checkpoint(together / "run") / "model.safetensors")
    assert average.keys() == exported.keys()
    for name, weight in average.items():
        torch.testing.assert_close(exported[name].double(), weight.double(), rtol=1e-3, atol=1e-6)
    record = json.loads((together / "net" / "training.json").read_text())
    assert record["steps"] == 2
    average.pop("rotary_emb.inv_freq")
    assert record["parameters"] == sum(map(torch.numel, average.values()))
    assert list(newest_checkpoint(together / "run").glob("shard-*"))


def start(text: str, out: Path, *options: str):
    command = ["-m", "sedd_mini", "train", "--data", text, "--out", str(out), *options]
    for name, value in (two_ranks.SMALL | {"save_every": 3}).items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    return torchrun(*command)


def wait_for_step(run: subprocess.Popen, out: Path, step: int) -> None:
    end = time.monotonic() + PATIENCE
    while step_of(newest_checkpoint(out)) < step:
        assert run.poll() is None, run.communicate()[1][-3000:]
        assert time.monotonic() < end, f"no checkpoint of step {step} in {out}"
        time.sleep(0.01)


def losses(out: Path) -> dict[int, float]:
    records = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return {r["step"]: r["loss"] for r in records if "loss" in r}


def test_death_and_sigterm(text, tmp_path):
    """SIGKILL of one process ends all, with a message, and the last checkpoint is whole; SIGTERM
    saves the step at hand; what was logged is what one undisturbed process comes to. The weights
    are in shares first, and whole after the death."""
    options = ["--precision", "float64", "--steps", "100000", "--decay", "none"]
    with start(text, tmp_path, *options, "--parallel", "fsdp") as run:
        wait_for_step(run, tmp_path, 6)
        first, second = workers(run.pid)
        os.kill(second, signal.SIGKILL)
        while run.poll() is None:  # as torchrun does, once, at a moment that one cannot choose
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGTERM)
            time.sleep(0.001)
        _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode != 0
    assert "is whole: the same command goes on from there" in errors
    killed = step_of(newest_checkpoint(tmp_path))
    assert killed % 3 == 0

    with start(text, tmp_path, *options, "--parallel", "ddp") as run:
        wait_for_step(run, tmp_path, killed + 3)
        run.send_signal(signal.SIGTERM)
        said, _ = run.communicate(timeout=PATIENCE)
    ended = step_of(newest_checkpoint(tmp_path))
    assert f"interrupted: step {ended} is saved" in said
    assert sorted(losses(tmp_path)) == list(range(1, ended + 1))  # none is missing, none twice

    alone = Trainer(two_ranks.settings(text, steps=ended, decay="none"))
    expected = [r["loss"] for r in alone.run() if "loss" in r]
    assert list(losses(tmp_path).values()) == pytest.approx(expected, abs=1e-6)
