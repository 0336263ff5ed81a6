"""Texts, a tokeniser and generators that several tests use."""

from functools import cache

import numpy as np
import torch

from sedd_mini.text.tokenizers import BPETokenizer

TEXTS = [
    "The small cats near the river sleep.\n\nThey sleep often, and quietly.",
    "Naïve café: “quotes”, dashes – and 漢字, emoji 🙂, tab\tand null\0.",
    "def f(x):\n    return x + 1  # a comment\n",
] * 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def small_bpe() -> BPETokenizer:
    return BPETokenizer.train(TEXTS, 300)


def book(seed: int, paragraphs: int) -> str:
    rng = np.random.default_rng(seed)
    words = ["sea", "whale", "ship", "captain", "and", "the", "a", "saw"]
    return "\n\n".join(" ".join(rng.choice(words, 30)) for _ in range(paragraphs))
