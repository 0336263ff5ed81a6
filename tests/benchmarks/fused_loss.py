"""Head and loss in chunks (network/head.py) against the plain formula: time and extra memory.

    python tests/benchmarks/fused_loss.py [--threads 2] [--repeats 5] [--batch 4] [--length 256]

What is timed is everything after the transformer blocks, forward and backward: hidden states
(B, L, 768) → log-scores over N = 50 257 tokens → score entropy → gradients for the hidden states
and the head. Plain computes `graph.score_entropy` of all log-scores at once. Time t is stratified
over [0.001, 1], new for every repeat, the same for both. With --threads 1 it is processor time that
is measured, which other programs on the machine hardly disturb. Memory is measured in a process of
its own for each way: the peak of resident memory above what there was before (Linux). Goals, for
both graphs: at least 1.35 times as fast, less than 40 % of the extra memory.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

import torch

from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.network.dit import DiTConfig, OutputLayer
from sedd_mini.noise import GeometricNoise, LogLinearNoise

WORLDS = {
    "absorbing": (AbsorbingGraph, LogLinearNoise()),
    "uniform": (UniformGraph, GeometricNoise()),
}


def make(kind: str, args, generator):
    """One problem: a function from "plain" or "fused" to the loss, its gradients computed."""
    graph_type, noise = WORLDS[kind]
    graph = graph_type(args.num_tokens)
    absorbing = kind == "absorbing"
    config = DiTConfig(args.num_tokens, absorbing=absorbing, width=args.width,
                       normalised=args.normalised and absorbing)  # fmt: skip
    layer = OutputLayer(config)
    torch.nn.init.normal_(layer.linear.weight, std=0.02, generator=generator)
    hidden = torch.randn(args.batch, args.length, args.width, generator=generator)
    hidden.requires_grad_()
    cond = torch.zeros(args.batch, config.cond_dim)
    x0 = torch.randint(args.num_tokens, hidden.shape[:2], generator=generator)

    def new_noise():
        t = (torch.rand(1, generator=generator) + torch.arange(args.batch) / args.batch) % 1
        t = t * (1 - 1e-3) + 1e-3
        sigma = noise.total(t)
        return sigma, graph.sample_transition(x0, sigma[:, None], generator), noise.rate(t)

    def loss_and_gradient(way, sigma, x, rate):
        if way == "plain":
            log_score = layer(hidden, cond, x, sigma, None, None, None)
            losses = graph.score_entropy(log_score, sigma[:, None], x, x0)
        else:
            losses = layer(hidden, cond, x, sigma, None, x0, graph)
        loss = (losses * rate[:, None]).mean()
        grads = torch.autograd.grad(loss, [hidden, layer.linear.weight, layer.linear.bias])
        return loss.item(), grads

    return new_noise, loss_and_gradient


def measure_time(kind: str, args) -> None:
    generator = torch.Generator().manual_seed(0)
    new_noise, loss_and_gradient = make(kind, args, generator)
    times = {"plain": [], "fused": []}
    clock = time.process_time if args.threads == 1 else time.perf_counter
    masked = []
    for repeat in range(args.repeats + 1):
        case = new_noise()
        masked.append((case[1] == args.num_tokens).double().mean().item())
        results = {}
        for way in times:
            start = clock()
            results[way] = loss_and_gradient(way, *case)
            if repeat:  # the first warms up
                times[way].append(clock() - start)
        plain, fused = results["plain"], results["fused"]
        assert abs(plain[0] - fused[0]) <= 1e-5 * abs(plain[0]), (plain[0], fused[0])
        for a, b in zip(plain[1], fused[1], strict=True):
            assert (a - b).norm() <= 1e-4 * a.norm()
        del results, plain, fused
    seconds = {way: statistics.median(values) for way, values in times.items()}
    share = sum(masked[1:]) / args.repeats
    print(
        f"{kind:10} time    plain {seconds['plain']:6.2f} s   fused {seconds['fused']:6.2f} s   "
        f"{seconds['plain'] / seconds['fused']:.2f} times as fast   ({share:.0%} masked)"
    )


def measure_memory(kind: str, args) -> None:
    extra = {}
    for way in ("plain", "fused"):
        command = [sys.executable, __file__, "--memory-of", kind, way]
        for name in ("threads", "batch", "length", "width", "num_tokens"):
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
        command += ["--normalised"] * args.normalised
        extra[way] = float(subprocess.run(command, check=True, capture_output=True).stdout)
    print(
        f"{kind:10} memory  plain {extra['plain']:6.0f} MB  fused {extra['fused']:6.0f} MB  "
        f"{extra['fused'] / extra['plain']:.0%}"
    )


def memory_of(kind: str, way: str, args) -> float:
    """Peak resident megabytes above those before; half of the positions masked if absorbing."""
    generator = torch.Generator().manual_seed(0)
    new_noise, loss_and_gradient = make(kind, args, generator)
    case = new_noise()
    before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    loss_and_gradient(way, *case)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return (peak - before) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--num-tokens", type=int, default=50257)
    parser.add_argument("--normalised", action="store_true", help="the absorbing head normalised")
    parser.add_argument("--memory-of", nargs=2, metavar=("GRAPH", "WAY"), help="for inner use")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(memory_of(*args.memory_of, args))
        return
    for kind in WORLDS:  # memory first: a child starts with its parent's peak
        measure_memory(kind, args)
    for kind in WORLDS:
        measure_time(kind, args)


if __name__ == "__main__":
    main()
