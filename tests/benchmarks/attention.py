"""Attention forward and backward on a CPU: PyTorch's fused kernel against the formula written out.

    python tests/benchmarks/attention.py [--threads 1] [--repeats 10]

In bfloat16 the fused kernel's backward pass is the slower one, which is why
`sedd_mini.network.attention` leaves it there. Sizes are those of the presets: synthetic, docs,
small.
"""

import argparse
import time

import torch
import torch.nn.functional as F

from sedd_mini.network.dit import attention

SIZES = {"synthetic": (32, 3, 32, 32), "docs": (32, 4, 128, 40), "small": (2, 12, 256, 64)}


def milliseconds(function, shape: tuple, dtype: torch.dtype, repeats: int) -> float:
    """The fastest of `repeats` calls, forward and backward."""
    qkv = [torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(3)]
    grad, times = torch.randn(shape, dtype=dtype), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.autograd.grad(function(*qkv), qkv, grad)
        times.append(time.perf_counter() - start)
    return 1e3 * min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name, shape in SIZES.items():
        for dtype in (torch.float32, torch.bfloat16):
            fused = milliseconds(F.scaled_dot_product_attention, shape, dtype, args.repeats)
            ours = milliseconds(attention, shape, dtype, args.repeats)
            kind = str(dtype).removeprefix("torch.")
            print(
                f"{name:9} (B, H, L, D/H) = {shape!s:17} {kind:8}   fused {fused:6.2f} ms   "
                f"sedd_mini {ours:6.2f} ms   {fused / ours:.2f} times as fast"
            )


if __name__ == "__main__":
    main()
