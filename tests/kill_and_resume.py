"""Train, and be killed again and again: `python kill_and_resume.py TEXT OUT MOMENTS SEED`.

A child process trains; SIGKILL ends it some milliseconds after its first step, often in the middle
of writing a checkpoint, as one is written after every step. It is started again until it has been
killed MOMENTS times, and then left alone to the end. Prints the number of kills. Forking (so not on
Windows) saves the start of Python each time.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed.checkpoint.hf_storage  # here, so that not every child has to

from sedd_mini.train import Settings, Trainer

STEPS = 120
TINY = {
    "tokenizer": "chars", "length": 16, "width": 16, "num_blocks": 1, "num_heads": 2,
    "cond_dim": 8, "batch_size": 4, "valid_blocks": 4, "valid_repeats": 2, "warmup": 2,
    "valid_every": 0, "sample_every": 0, "log_every": 1,
}  # fmt: skip


def settings(text: str) -> Settings:
    return Settings(**TINY, data=text, steps=STEPS, save_every=1)


def start(text: str, out: Path) -> int:
    """A child that trains; its process id."""
    pid = os.fork()
    if pid == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # closed by the end of the child
        code = 1
        try:
            Trainer(settings(text), out=out).run()
            code = 0
        finally:
            os._exit(code)
    return pid


def main(text: str, out: str, moments: str, seed: str) -> None:
    torch.set_num_threads(1)
    log, kills, generator = Path(out) / "log.jsonl", 0, random.Random(int(seed))
    while kills < int(moments):
        seen = log.read_text().count("\n") if log.exists() else 0
        pid, ended = start(text, Path(out)), 0
        while not ended and (not log.exists() or log.read_text().count("\n") <= seen):
            ended, code = os.waitpid(pid, os.WNOHANG)
            time.sleep(0.002)
        if ended:
            sys.exit(f"the child ended with {code} after {kills} kills, too early to be killed")
        time.sleep(0.06 * generator.random())
        os.kill(pid, signal.SIGKILL)
        _, code = os.waitpid(pid, 0)
        kills += os.WIFSIGNALED(code)
    _, code = os.waitpid(start(text, Path(out)), 0)
    print(kills)
    sys.exit(code != 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
