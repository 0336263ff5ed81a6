"""n-gram models with interpolated Kneser-Ney smoothing: the yardstick for a small corpus.

The probability of word w after a context h of m − 1 words is

    p_m(w | h) = max(c(hw) − D, 0) / c(h·)  +  D · types(h·) / c(h·) · p_{m−1}(w | h′)

with h′ = h without its first word, and p_0 = 1/V. c counts how often hw occurs in the highest
order, and in every lower one how many different words stand before it; types(h·) is the number of
different words seen after h. D is Ney's estimate n₁ / (n₁ + 2 n₂), from how many grams have count
one and two.
(Kneser & Ney 1995; Chen & Goodman 1999, section 2.7.)
"""

import math

import numpy as np
import torch
from torch import Tensor

from sedd_mini.text.blocks import Blocks


class KneserNey:
    """An n-gram model of a token stream (T,), for a vocabulary of V ids (`vocab_size`).

    Every string has a positive probability. Raises ValueError for n < 1, fewer than n tokens, or
    ids out of range.
    """

    def __init__(self, tokens: np.ndarray | Tensor, n: int, vocab_size: int):
        tokens = np.asarray(tokens).astype(np.int64)
        if n < 1 or tokens.ndim != 1 or len(tokens) < n:
            raise ValueError(f"need n >= 1 and a stream of n tokens, got {n}, {tokens.shape}")
        check_range(tokens, vocab_size)
        self.n, self.vocab_size = n, vocab_size
        self.grams = []  # of each order: the sorted codes (context's number · V + last word)
        self.counts = []  # of each order: (occurrences, different words before) of each gram
        number = np.zeros(len(tokens) + 1, dtype=np.int64)  # of the gram that ends at each position
        for order in range(1, n + 1):
            shorter = number[1:]  # grams of order − 1 that end at positions order − 1 …
            codes = number[:-1] * vocab_size + tokens[order - 1 :]
            grams, first, number, occurrences = np.unique(
                codes, return_index=True, return_inverse=True, return_counts=True
            )
            if order > 1:  # each different gram is one different word before its last order − 1
                before = np.bincount(shorter[first], minlength=len(self.grams[-1]))
                self.counts[-1] = (self.counts[-1][0], before)
            self.grams.append(grams)
            self.counts.append((occurrences, None))

    def log2_prob(self, blocks: Tensor) -> Tensor:
        """log2 p(x_i | the last n − 1 tokens of its own block), (B, L) → (B, L) float64."""
        x = blocks.numpy()
        check_range(x, self.vocab_size)
        lower = np.full(x.shape, 1 / self.vocab_size)  # p_{m−1} with its own kind of counts
        answer = np.empty(x.shape)
        context = np.zeros(x.shape, dtype=np.int64)  # number of the m − 1 words before; −1: unseen
        for order in range(1, self.n + 1):
            gram = self._find(order, context, x)  # (B, L)
            occurrences, before = self.counts[order - 1]
            top = self._interpolate(order, occurrences, gram, context, lower)
            rows = slice(order - 1, None if order == self.n else order)
            answer[:, rows] = top[:, rows]  # position i has i words before it in its block
            if order == self.n or order == x.shape[1]:
                break
            lower = self._interpolate(order, before, gram, context, lower)
            context = np.full_like(gram, -1)
            context[:, order:] = gram[:, order - 1 : -1]
        return torch.from_numpy(np.log2(answer))

    def _find(self, order: int, context: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The number of the gram (context, word), −1 where it was never seen."""
        codes, grams = context * self.vocab_size + words, self.grams[order - 1]
        place = np.searchsorted(grams, codes).clip(max=len(grams) - 1)
        return np.where((context >= 0) & (grams[place] == codes), place, -1)

    def _interpolate(self, order, counts, gram, context, lower) -> np.ndarray:
        """The equation at the top of this file; just p_{m−1} where the context was never seen."""
        owner = self.grams[order - 1] // self.vocab_size  # the context of every gram
        size = int(owner[-1]) + 1
        total, types = np.bincount(owner, counts, size), np.bincount(owner, counts > 0, size)
        ones, twos = (counts == 1).sum(), (counts == 2).sum()
        discount = ones / (ones + 2 * twos) if ones and twos else 0.5
        known = (context >= 0) & (context < size)
        known &= total[np.where(known, context, 0)] > 0
        here = np.where(known, context, 0)
        count = np.where(gram >= 0, counts[gram], 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            probs = (count - discount).clip(min=0) + discount * types[here] * lower
            return np.where(known, probs / total[here], lower)


def ngram_bits(
    train_tokens: np.ndarray | Tensor, valid_blocks: Blocks | Tensor, n: int, vocab_size: int
) -> float:
    """Cross-entropy of an n-gram model in bits per token, over whole validation blocks.

    Like a diffusion model it sees nothing outside a block: the first tokens of a block have
    shorter contexts. `train_tokens` is the packed training stream (T,), e.g.
    `corpus.train.arrays[0]`.
    """
    model = KneserNey(train_tokens, n, vocab_size)
    bits = [-model.log2_prob(valid_blocks[i : i + 256]) for i in range(0, len(valid_blocks), 256)]
    return math.fsum(b.sum().item() for b in bits) / sum(b.numel() for b in bits)


def check_range(tokens: np.ndarray, vocab_size: int) -> None:
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < vocab_size):
        raise ValueError(
            f"token ids must lie in 0 … {vocab_size - 1}, got {tokens.min()} to {tokens.max()}"
        )
