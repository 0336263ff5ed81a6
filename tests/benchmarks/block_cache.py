"""Writing with and without the cache of clean blocks, in one run; and GPT-2 with and without its.

    python tests/benchmarks/block_cache.py                        # 1 024 tokens, blocks of 16
    python tests/benchmarks/block_cache.py --length 256 --steps 4 --repeats 1   # a minute's try
    python tests/benchmarks/block_cache.py --out chapters/results/beyond/cache.json

The network is of the documentation's size (width 192, four blocks, N = 1 024), with random weights:
time does not depend on them. Both ways make the same calls and draw the same tokens, which is
asserted; the goal is ≥ 3 times faster with the cache at equal steps. Seconds are processor time of
one thread, which other programs on the machine disturb little, and the ratio is of two of them.
"""

import argparse
import platform
import statistics
import time
from pathlib import Path

import torch

from sedd_mini.beyond.block_diffusion import in_blocks, sample_blocks
from sedd_mini.evaluation.rivals import gpt2_rival, sample_gpt2
from sedd_mini.files import write_json
from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.noise import LogLinearNoise
from sedd_mini.training.settings import preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--steps", type=int, default=16, help="of a block")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpt2", action="store_true", help="the rival, too")
    parser.add_argument("--out", type=Path, help="a JSON file")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    settings = preset("docs")
    config, graph = settings.network(1024), AbsorbingGraph(1024)
    model = in_blocks(config, args.block)["model"].eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(model.output_layer.linear.weight, std=0.02)

    def blocks(cache: bool):
        g = torch.Generator().manual_seed(0)
        shape = 1, args.length
        return sample_blocks(model, graph, LogLinearNoise(), shape, args.steps, generator=g,
                             cache=cache)  # fmt: skip

    ways = {"blocks, cache": lambda: blocks(True), "blocks, no cache": lambda: blocks(False)}
    if args.gpt2:
        config.length = args.length
        rival = gpt2_rival(config)["model"].eval()
        for cache in (True, False):
            name = f"gpt2, {'cache' if cache else 'no cache'}"
            ways[name] = lambda cache=cache: sample_gpt2(
                rival, (1, args.length), generator=torch.Generator().manual_seed(0), cache=cache
            )
    blocks_warm = sample_blocks(model, graph, LogLinearNoise(), (1, 2 * args.block), 2)
    assert blocks_warm.shape == (1, 2 * args.block)
    seconds, drawn = {name: [] for name in ways}, {}
    for _ in range(args.repeats):
        for name, way in ways.items():
            start = clock()
            drawn[name] = way()
            seconds[name].append(clock() - start)
    same = (drawn["blocks, cache"] == drawn["blocks, no cache"]).double().mean().item()
    assert same > 0.9, f"only {same:.0%} of the tokens are the same"  # rounding may change a draw
    median = {name: statistics.median(times) for name, times in seconds.items()}
    for name, value in median.items():
        print(f"{name:18s} {value:8.2f} s   {1000 * value / args.length:7.2f} ms a token")
    ratio = median["blocks, no cache"] / median["blocks, cache"]
    print(f"the cache makes blocks {ratio:.1f} times faster (goal: 3); {same:.1%} the same tokens")
    if args.out:
        write_json(args.out, {
            "length": args.length, "block_length": args.block, "steps_a_block": args.steps,
            "seconds": seconds, "median": median, "ratio": ratio, "same_tokens": same,
            "clock": clock.__name__, "threads": args.threads, "hardware": platform.machine(),
            "python": platform.python_version(), "torch": torch.__version__,
            "command": "python tests/benchmarks/block_cache.py"
                       + " --gpt2" * args.gpt2 + f" --out {args.out.name}",
        })  # fmt: skip


if __name__ == "__main__":
    main()
