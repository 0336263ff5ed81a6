"""Where the time and the memory of training go: the report at the end of a run."""

import time

from sedd_mini import planner
from sedd_mini.hardware import peak_flops, peak_memory, synchronize

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
        """From now on the model's calls mark the end of its trunk and of its head."""
        model.output_layer.register_forward_pre_hook(lambda *_: self.mark("trunk"))
        model.output_layer.register_forward_hook(lambda *_: self.mark("head and loss"))


def report(watch: Stopwatch, config, settings, dtype, world_size: int = 1) -> dict:
    """Speed, utilisation, memory of this process, and the split of a step's time, as plain numbers.

    Utilisation is the FLOPs that the network needs (`planner.training_flops`) over those that all
    processes would do in a large matrix product, measured here and now in the training precision.
    """
    step = sum(watch.seconds.values()) / watch.steps
    flops = planner.training_flops(config, settings.length) * settings.batch_size / step
    peak = peak_flops(watch.device, dtype)
    return {
        "tokens_per_s": settings.batch_size * settings.length / step,
        "step_s": step,
        "split": {name: seconds / watch.steps / step for name, seconds in watch.seconds.items()},
        "flops_per_s": flops,
        "peak_flops_per_s": world_size * peak,
        "utilisation": flops / (world_size * peak),
        "peak_memory": peak_memory(watch.device),
        "processes": world_size,
        "precision": str(dtype).removeprefix("torch."),
    }


def as_text(r: dict) -> str:
    """The report in four lines."""
    split = " · ".join(f"{name} {share:.0%}" for name, share in r["split"].items())
    memory = "unknown" if r["peak_memory"] is None else f"{r['peak_memory'] / 1e9:.2f} GB"
    return "\n".join([
        f"throughput: {r['tokens_per_s']:,.0f} tokens/s, {r['step_s']:.3g} s a step",
        f"  a step: {split}",
        f"  arithmetic: {r['flops_per_s'] / 1e12:.3g} TFLOP/s, {r['utilisation']:.0%} of the "
        f"{r['peak_flops_per_s'] / 1e12:.3g} of a large matrix product here ({r['precision']})",
        f"  peak memory: {memory}" + (" of process 0" if r["processes"] > 1 else ""),
    ])  # fmt: skip
