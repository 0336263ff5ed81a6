"""Attention over all positions, none masked, and the rotary positions that it sees.

In shape comments: B sequences, H heads, L positions, D/H the width of a head.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RotaryEmbedding(nn.Module):
    """Cosine and sine of position × frequency: what turns queries and keys (Su et al. 2021)."""

    def __init__(self, head_dim: int, base: float = 10_000.0):
        super().__init__()
        frequencies = 1 / base ** (torch.arange(0, head_dim, 2) / head_dim)
        self.register_buffer("inv_freq", frequencies)  # (D/H/2,)

    def forward(self, length: int) -> tuple[Tensor, Tensor]:
        positions = torch.arange(length, device=self.inv_freq.device)
        angles = positions[:, None] * self.inv_freq  # (L, D/H/2)
        angles = torch.cat([angles, angles], dim=-1)  # (L, D/H)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i + half}) by its position's angle; x (B, H, L, D/H), same type."""
    first, second = x.chunk(2, dim=-1)
    return (x * cos + torch.cat([-second, first], dim=-1) * sin).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √(D/H)) v, each (B, H, L, D/H), by PyTorch's fused kernel; written out where
    that is 2 to 11 times slower: backward in bfloat16 on a CPU (tests/benchmarks/attention.py).
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or not q.requires_grad:
        return F.scaled_dot_product_attention(q, k, v)
    with no_autocast(q):
        weights = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # (B, H, L, L)
        return weights.softmax(-1) @ v


def no_autocast(x: Tensor):
    """A context in which autocast leaves float32 alone on the device of x."""
    if x.device.type == "meta":  # has no autocast, and would say so
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)
