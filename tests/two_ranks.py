"""What tests/test_distributed.py starts with torchrun: `two_ranks.py TEXT OUT PART`.

Every case trains the tiny network with all processes together; process 0 writes what came out
(losses, and all weights) to OUT/NAME.pt. At the end of part 1 is a run by the command line. Part 2
goes on with the runs that part 1 has left, and tries to where the processes share no folder.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from kill_and_resume import TINY

from sedd_mini.commands.train import main as command
from sedd_mini.losses import diffusion_weighted
from sedd_mini.training import distributed
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Trainer

STEPS, STOP1, STOP2 = 9, 3, 6
SMALL = TINY | {"width": 24, "num_blocks": 2, "batch_size": 8, "save_every": 1, "lr": 1e-2}
CASES = {
    "plain": {},
    "parts": {"accumulate": 2},
    "dropout": {"dropout": 0.2, "accumulate": 2},
    "recomputed": {"dropout": 0.2, "checkpoint_activations": True},
    "uniform": {"graph": "uniform"},
    "clipped": {"clip": 0.01},
    "float32": {"precision": "float32", "dropout": 0.2},
    "own loss": {"dropout": 0.2, "accumulate": 2},
}
RESUMED = ("plain", "dropout")


def two_looks(model, graph, x, sigma, x0=None, ratio=None):
    """A loss of one's own that calls the network twice, the second time on rows in reverse."""
    one = diffusion_weighted(model, graph, x, sigma, x0=x0)
    two = diffusion_weighted(model, graph, x.flip(0), sigma.flip(0), x0=x0.flip(0)).flip(0)
    return one + 0.5 * two.square() / x.shape[1]


def make(text: str, name: str, out: Path | None = None, **changes) -> Trainer:
    """The trainer of a case."""
    parts = {"loss": two_looks} if name == "own loss" else {}
    return Trainer(settings(text, **changes), out=out, **parts)


def settings(text: str, **changes) -> Settings:
    return Settings(**SMALL | {"data": text, "steps": STEPS, "precision": "float64"} | changes)


def result(trainer: Trainer) -> dict:
    """Losses, the validation bound, and all weights put together."""
    networks = trainer.model, trainer.average
    weights = [distributed.whole(p.detach()) for net in networks for p in net.parameters()]
    return {
        "losses": [r["loss"] for r in trainer.history if "loss" in r],
        "valid": [r["valid"] for r in trainer.history if "valid" in r],
        "weights": torch.cat([w.flatten().double() for w in weights]),
    }


def main(text: str, out: str, part: str) -> None:
    torch.set_num_threads(1)
    distributed.start("cpu")
    for parallel in ("ddp", "fsdp"):
        for name, changes in CASES.items() if part == "1" else ():
            trainer = make(text, name, parallel=parallel, **changes)
            sums = count_sums(trainer.network)
            trainer.run()
            keep(trainer, Path(out) / f"{parallel}-{name}.pt", sums=len(sums))
        for name in RESUMED:
            folder = Path(out) / f"{parallel}-{name}-resumed"
            trainer = Trainer(settings(text, parallel=parallel, **CASES[name]), out=folder)
            assert trainer.step == (0 if part == "1" else STOP2)
            trainer.run(STOP1 if part == "1" else STEPS)
            keep(trainer, folder / f"part-{part}.pt")
            trainer.close()
    if part == "1":
        options = ["--out", f"{out}/run", "--export", f"{out}/net"]
        for name, value in vars(settings(text, steps=2, parallel="fsdp")).items():
            if name != "vocab_size":  # the tokeniser of letters has its own
                options += [f"--{name.replace('_', '-')}", str(value)]
        command(options)  # which leaves the group of processes
        return
    own = Path(out) / f"own-{distributed.rank()}"  # where the first one has a checkpoint
    try:
        Trainer(settings(text), out=own)
    except ValueError as error:
        own.mkdir(exist_ok=True)
        (own / "error.txt").write_text(str(error))
    distributed.stop()


def count_sums(network) -> list:
    """A list that grows by one whenever gradients are exchanged.

    With DDP that is once a bucket, and so small a network is one bucket; with FSDP it is once a
    block and once for what is in no block.
    """
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    sums, usual = [], dist.reduce_scatter_single

    def hook(state, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        sums.append(1)
        return allreduce_hook(None, bucket)

    def counted(*args, **kwargs):
        sums.append(1)
        return usual(*args, **kwargs)

    if hasattr(network, "register_comm_hook"):
        network.register_comm_hook(None, hook)
    else:
        dist.reduce_scatter_single = counted
    return sums


def keep(trainer: Trainer, path: Path, **more) -> None:
    content = result(trainer) | more
    if distributed.rank() == 0:
        torch.save(content, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
