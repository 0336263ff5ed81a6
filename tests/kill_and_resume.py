"""Train, and be killed: at random moments, or after every single change of the file system.

    python kill_and_resume.py random TEXT OUT MOMENTS SEED
    python kill_and_resume.py each TEXT OUT

"random": a child process trains; SIGKILL ends it some milliseconds after its first step, often in
the middle of writing a checkpoint, as one is written after every step. It is started again until it
has been killed MOMENTS times, and then left alone to the end. "each": a child goes on from the
checkpoint of step 2, makes one step, and saves it twice, as a signal that comes while a checkpoint
is written would; it dies after its first change of the file system (a folder made, a name changed
or deleted), the next child after its second one, and so on. After each death another child must
find a checkpoint and only whole ones, and come to the weights of a run that nobody killed.

Prints the number of deaths. Forking (so not on Windows) saves the start of Python each time.
"""

import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint.hf_storage  # here, so that not every child has to

from sedd_mini.files import checkpoints
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.training.checkpoint import load_state
from sedd_mini.training.report import read_log
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Trainer

STEPS = 120
TINY = {
    "tokenizer": "chars", "length": 16, "width": 16, "num_blocks": 1, "num_heads": 2,
    "cond_dim": 8, "batch_size": 4, "valid_blocks": 4, "valid_repeats": 2, "warmup": 2,
    "valid_every": 0, "sample_every": 0, "log_every": 1,
}  # fmt: skip
CHANGES = "mkdir", "rename", "replace", "unlink", "rmdir"
DEAD = 77


def settings(text: str) -> Settings:
    return Settings(**TINY, data=text, steps=STEPS, save_every=1)


def start(work: Callable[[], object]) -> int:
    """A child that does the work; its process id."""
    pid = os.fork()
    if pid == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # closed by the end of the child
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    return pid


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- at random moments -------------------------------------------------------------------------


def at_random(text: str, out: str, moments: str, seed: str) -> int:
    log, kills, generator = Path(out) / "log.jsonl", 0, random.Random(int(seed))
    train = lambda: Trainer(settings(text), out=out).run()  # noqa: E731
    while kills < int(moments):
        seen = log.read_text().count("\n") if log.exists() else 0
        pid, ended = start(train), 0
        while not ended and (not log.exists() or log.read_text().count("\n") <= seen):
            ended, code = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.002)
        if ended:
            sys.exit(f"the child ended with {code} after {kills} kills, too early to be killed")
        time.sleep(0.06 * generator.random())
        os.kill(pid, signal.SIGKILL)
        kills += wait(pid) == -signal.SIGKILL
    if code := wait(start(train)):
        sys.exit(f"the last child ended with {code}")
    return kills


# ---- after each change -------------------------------------------------------------------------


def after_each(text: str, out: str) -> int:
    base, place, whole = (Path(out) / name for name in ("base", "place", "whole.pt"))
    steps = lambda: Trainer(settings(text), out=base).run(2)  # noqa: E731
    if wait(start(steps)) or wait(start(lambda: torch.save(three_more(text, base), whole))):
        sys.exit("a child that nobody killed failed")
    for number in range(1, 1000):
        shutil.copytree(base, place)
        if code := wait(start(lambda n=number: save_and_die(text, place, n))):
            if code != DEAD:
                sys.exit(f"the child ended with {code} before its change {number}")
            if wait(start(lambda: check(text, base, place, torch.load(whole)))):
                sys.exit(f"death after change {number} was not survived")
        shutil.rmtree(place)
        if code == 0:
            return number - 1
    raise RuntimeError("no end of changes")


def save_and_die(text: str, out: Path, number: int) -> None:
    """One step and two times its checkpoint; ends the process after that many changes."""
    left = number

    def deadly(change: Callable) -> Callable:
        def change_and_die(*args, **kwargs):
            nonlocal left
            result = change(*args, **kwargs)
            left -= 1
            if left == 0:
                os._exit(DEAD)
            return result

        return change_and_die

    for name in CHANGES:
        setattr(os, name, deadly(getattr(os, name)))
    trainer = Trainer(settings(text), out=out)
    trainer.train_step()
    trainer.save()
    trainer.save()


def three_more(text: str, out: Path) -> torch.Tensor:
    trainer = Trainer(settings(text), out=out)
    while trainer.step < 5:
        trainer.train_step()
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def check(text: str, base: Path, out: Path, weights: torch.Tensor) -> None:
    assert Trainer(settings(text), out=out).step in (2, 3)
    for folder in checkpoints(out):
        load_pretrained(folder)
        load_state(folder)
    assert read_log(out) == read_log(base)
    assert torch.equal(three_more(text, out), weights)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print({"random": at_random, "each": after_each}[sys.argv[1]](*sys.argv[2:]))
