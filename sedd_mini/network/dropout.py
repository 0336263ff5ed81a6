"""Dropout whose mask is a function of the sample, the layer and the place, and of nothing else.

PyTorch's own draws from a generator, so its masks depend on how many numbers were drawn before: on
the number of processes, on how a batch is cut into parts. Here each entry gets a number by hashing
where it is. A sample meets the same masks wherever it is worked on, also when a block is computed
again in the backward pass; there is no state to save.
"""

import torch
from torch import Tensor


def layer_keys(key: Tensor, num_layers: int) -> Tensor:
    """One key for each layer, (num_layers, B) int32, of the samples' keys (B,), any integers."""
    low, high = key.to(torch.int32), (key >> 32).to(torch.int32)
    layers = torch.arange(1, num_layers + 1, dtype=torch.int32, device=key.device)
    return scramble(scramble(scramble(low) + high) + scramble(layers)[:, None])


def dropout(x: Tensor, p: float, key: Tensor) -> Tensor:
    """x (B, L, D), each entry 0 with probability p and else divided by 1 − p.

    key is (B,) int32. Entry (b, l, d) depends on key[b], l and d alone.
    """
    _, length, width = x.shape
    l, d = (torch.arange(n, dtype=torch.int32, device=x.device) for n in (length, width))
    row, column = scramble(scramble(key)[:, None] + l), scramble(~d)  # (B, L), (D,)
    number = scramble(row[..., None] ^ column)  # (B, L, D), uniform in [−2³¹, 2³¹)
    keep = number >= round(p * 2**32) - 2**31
    return torch.where(keep, x, 0) / (1 - p)


def scramble(h: Tensor) -> Tensor:
    """A one-to-one map of int32; every bit of h has its effect, most of all on the high ones.

    Twice: fold the high bits onto the low ones, and multiply by an odd number, which carries the
    low ones up (int32 wraps around). `&` takes away the copies of the sign that `>>` shifts in.
    """
    h = (h ^ (h >> 16 & 0xFFFF)) * 0x7FEB352D
    return (h ^ (h >> 15 & 0x1FFFF)) * 0x45D9F3B
