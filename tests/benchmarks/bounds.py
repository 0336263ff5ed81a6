"""The bound of a shipped model on its validation blocks: error, calls and seconds.

    python tests/benchmarks/bounds.py docs-absorb --repeats 8            # all blocks
    python tests/benchmarks/bounds.py docs-absorb --repeats 40 --blocks 64
    python tests/benchmarks/bounds.py docs-absorb --repeats 40 --blocks 64 --plain

`--plain` is `likelihood_bound`, without it `bounds`. The last figure is the variance of one call,
in bits² a token: the ratio of two of them is the ratio of the calls that an error takes. An error
bar from R repeats is itself uncertain by a share 1/√(2R − 2), a variance by twice that.
"""

import argparse
import math
import time
from pathlib import Path

import torch

from sedd_mini.evaluate import likelihood_bound
from sedd_mini.evaluation.bounds import GROUP, bounds, total
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.tokenizers import load_tokenizer

SHIPPED = Path(__file__).parents[2] / "chapters/checkpoints"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(path.name for path in SHIPPED.iterdir()))
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true")
    args = parser.parse_args()
    parts, source = load_pretrained(SHIPPED / args.name), args.name.split("-")[0]
    tokenizer = load_tokenizer(SHIPPED / args.name) if source == "docs" else None
    x0 = load_corpus(source, parts[0].config.length, tokenizer=tokenizer).valid[: args.blocks]
    generator, start = torch.Generator().manual_seed(args.seed), time.perf_counter()
    calls, unit = len(x0) * args.repeats, 1 / x0.numel() / math.log(2)
    if args.plain:
        found = likelihood_bound(
            *parts, x0, args.repeats, generator=generator, loss=diffusion_weighted_in_head
        )
        bits, error = found.nats * len(x0) * unit, found.error * len(x0) * unit
    else:
        found = total(bounds(*parts, x0, repeats=args.repeats, generator=generator))
        bits, error = found.nats * unit, found.error * unit
        calls += min(GROUP, len(x0))
    print(
        f"{args.name}, {len(x0)} blocks, {'plain' if args.plain else 'bounds'}: ≤ {bits:.4f} ± "
        f"{error:.4f} bits a token ({100 * error / bits:.3f} %), {calls} calls, "
        f"{time.perf_counter() - start:.1f} s on {torch.get_num_threads()} threads; variance of "
        f"one call {error**2 * calls:.3f}"
    )


if __name__ == "__main__":
    main()
