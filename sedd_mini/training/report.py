"""Where the time and the memory of training go: the report at the end of a run."""

import contextlib
import json
import sys
import time
from pathlib import Path

import torch

from sedd_mini.network.dit import DiTConfig
from sedd_mini.network.hardware import synchronize
from sedd_mini.training import planner
from sedd_mini.training.draws import hidden_share

PARTS = ("data", "trunk", "head and loss", "backward", "optimiser")


class Stopwatch:
    """Books the time between two marks to the second one's name; does nothing until `running`."""

    def __init__(self, device: str):
        self.device = device
        self.reset()

    def reset(self) -> None:
        self.running, self.steps, self.seconds = False, 0, dict.fromkeys(PARTS, 0.0)

    def start(self, running: bool) -> None:
        """Called at the beginning of a step, with whether it is one to be measured."""
        self.running = running
        self.steps += running
        self.mark(None)

    def mark(self, name: str | None) -> None:
        if self.running:
            synchronize(self.device)
            now = time.perf_counter()
            if name:
                self.seconds[name] += now - self.last
            self.last = now

    def watch_head(self, model) -> None:
        """From now on the model's calls mark the end of its trunk and of its head.

        A network without an `output_layer` has its forward pass booked as backward.
        """
        if not hasattr(model, "output_layer"):
            return
        model.output_layer.register_forward_pre_hook(lambda *_: self.mark("trunk"))
        model.output_layer.register_forward_hook(lambda *_: self.mark("head and loss"))


def report(watch: Stopwatch, config, settings, dtype, world_size: int = 1) -> dict:
    """Speed, utilisation, memory of this process, and the split of a step's time, as plain numbers.

    Utilisation is the FLOPs that the network needs (`planner.training_flops`) over those that all
    processes would do in a large matrix product, measured here and now in the training precision.
    Both are None for a network other than DiffusionTransformer: the planner does not know it.
    """
    step = sum(watch.seconds.values()) / watch.steps
    flops = None
    if isinstance(config, DiTConfig):
        hidden = hidden_share(settings.draws, settings.length) if config.absorbing else None
        flops = planner.training_flops(config, settings.length, hidden) * settings.batch_size / step
    peak = peak_flops(watch.device, dtype)
    return {
        "tokens_per_s": settings.batch_size * settings.length / step,
        "step_s": step,
        "split": {name: seconds / watch.steps / step for name, seconds in watch.seconds.items()},
        "flops_per_s": flops,
        "peak_flops_per_s": world_size * peak,
        "utilisation": flops and flops / (world_size * peak),
        "peak_memory": peak_memory(watch.device),
        "processes": world_size,
        "precision": str(dtype).removeprefix("torch."),
    }


def peak_flops(device: str, dtype: torch.dtype, size: int | None = None, repeats: int = 8) -> float:
    """FLOPs a second of a large square matrix product here, the fastest of `repeats`."""
    size = size or (1024 if device == "cpu" else 8192)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def peak_memory(device: str) -> int | None:
    """The most bytes taken so far: by tensors on a GPU, by the process on a CPU; None: unknown."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def as_text(r: dict) -> str:
    """The report in four lines."""
    split = " · ".join(f"{name} {share:.0%}" for name, share in r["split"].items())
    memory = "unknown" if r["peak_memory"] is None else f"{r['peak_memory'] / 1e9:.2f} GB"
    arithmetic = "unknown" if r["flops_per_s"] is None else (
        f"{r['flops_per_s'] / 1e12:.3g} TFLOP/s, {r['utilisation']:.0%} of the "
        f"{r['peak_flops_per_s'] / 1e12:.3g} of a large matrix product here ({r['precision']})"
    )  # fmt: skip
    return "\n".join([
        f"throughput: {r['tokens_per_s']:,.0f} tokens/s, {r['step_s']:.3g} s a step",
        f"  a step: {split}",
        f"  arithmetic: {arithmetic}",
        f"  peak memory: {memory}" + (" of process 0" if r["processes"] > 1 else ""),
    ])  # fmt: skip


def read_log(out: Path, step: int | None = None) -> list[dict]:
    """The records of out/log.jsonl, of a checkpoint's `step` those that were logged before it."""
    path, records = out / "log.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a death may have torn the last one
            records.append(json.loads(line))
    records = [r for r in records if isinstance(r, dict) and type(r.get("step")) is int]
    if step is None:
        return records
    return [r for r in records if r["step"] < step or (r["step"] == step and "changed" not in r)]


def plot_log(out: Path) -> None:
    """out/loss.png from out/log.jsonl, if that is there: training loss and validation bound."""
    records = read_log(out)
    train = [(r["step"], r["loss"]) for r in records if "loss" in r]
    valid = [(r["step"], r["valid"], 2 * r["valid_error"]) for r in records if "valid" in r]
    if not train:
        return
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    ax.plot(*zip(*train, strict=True), lw=1, label="training loss")
    if valid:
        steps, bounds, errors = zip(*valid, strict=True)
        ax.errorbar(steps, bounds, errors, fmt="o", ms=4, label="validation bound, ± 2 errors")
    ax.set(xlabel="step", ylabel="nats a token")
    ax.legend()
    fig.savefig(out / "loss.png", dpi=100)
    plt.close(fig)


def summary_writer(out: Path, step: int):
    """TensorBoard's writer of a run that goes on after `step`; raises ValueError without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(out / "tensorboard", purge_step=step + 1)
