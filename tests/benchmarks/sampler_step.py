"""One step of the absorbing sampler against one full call of the network: time.

    python tests/benchmarks/sampler_step.py [--threads 2] [--repeats 3] [--batch 1] [--length 256]
    git show COMMIT:sedd_mini/samplers.py > old.py; python … --against old.py   # the same, before

The network is SEDD small (12 blocks, width 768, N = 50 257) with random weights. The full call is
model(x, sigma): log-scores at all positions. The step is what `sample` does between two times:
log-scores at the masked positions, then which of them move, then where. Shares of masked positions
from all (the first of many steps, and the one of a single step, in which all move at once) to few.
Goal: at most 1.15 times the full call. With --threads 1 it is processor time that is measured,
which other programs on the machine hardly disturb.
"""

import argparse
import importlib.util
import statistics
import time

import torch

from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.noise import LogLinearNoise
from sedd_mini.samplers import sample


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--against", help="another samplers.py, timed in turn with this one")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    generator = torch.Generator().manual_seed(0)
    graph, noise = AbsorbingGraph(50257), LogLinearNoise()
    model = DiffusionTransformer(DiTConfig(num_blocks=args.blocks)).eval()
    torch.nn.init.normal_(model.output_layer.linear.weight, std=0.02, generator=generator)
    shape = args.batch, args.length

    def full_call(t, x):
        model(x, noise.total(t).repeat(args.batch))

    samplers = {"step": sample}
    if args.against:
        spec = importlib.util.spec_from_file_location("against", args.against)
        spec.loader.exec_module(other := importlib.util.module_from_spec(spec))
        samplers["before"] = other.sample

    def one_step(sample, t, x, steps):
        """From t to t − 1/steps; the tokens of x that are not MASK are clamped."""
        clamp = torch.where(x == graph.mask_id, -1, x)
        times = [t, max(t - 1 / steps, 1e-5)]
        sample(
            model, graph, noise, shape, clamp=clamp, times=times, denoise=False, generator=generator
        )

    tokens = torch.randint(graph.num_tokens, shape, generator=generator)
    for t, steps in ((1.0, 1), (1.0, 128), (0.5, 128), (0.1, 128)):
        visible = torch.rand(shape, generator=generator) >= t
        x = torch.where(visible, tokens, graph.mask_id)
        seconds = {"call": [], **{name: [] for name in samplers}}
        for repeat in range(args.repeats + 1):
            for name in seconds:
                start = clock()
                if name == "call":
                    full_call(t, x)
                else:
                    one_step(samplers[name], t, x, steps)
                if repeat:  # the first warms up
                    seconds[name].append(clock() - start)
        call, step = (statistics.median(seconds[name]) for name in ("call", "step"))
        masked = (x == graph.mask_id).double().mean()
        print(
            f"{masked:4.0%} masked, step 1/{steps:<4} full call {call:.3f} s   "
            f"sampler step {step:.3f} s   ratio {step / call:.2f}"
        )
        if args.against:
            ratio = min(seconds["step"]) / min(seconds["before"])
            print(f"      against {args.against}: {ratio:.3f} of its fastest time")


if __name__ == "__main__":
    main()
