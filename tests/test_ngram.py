"""N-gram models: sums, a bigram by hand, large vocabularies."""

import math

import numpy as np
import pytest
import torch
from texts import seeded

from sedd_mini.text.blocks import (
    Blocks,
)
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.ngram import KneserNey, ngram_bits
from sedd_mini.text.synthetic import SyntheticLanguage


@pytest.fixture(scope="module")
def language() -> SyntheticLanguage:
    return SyntheticLanguage()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_ngram_probabilities_sum_to_one(n):
    """After every context of up to six tokens: seen or not, with words that never occurred."""
    vocab_size, generator = 9, seeded(n)
    train = torch.randint(7, (400,), generator=generator)  # words 7 and 8 never occur
    train[50:80] = 3
    model = KneserNey(train.numpy(), n, vocab_size)
    contexts = torch.randint(vocab_size, (60, 6), generator=generator)
    contexts[:30] = train[:186].unfold(0, 6, 6)[:30]
    for length in range(7):
        blocks = contexts[:, None, :length].expand(-1, vocab_size, -1)
        words = torch.arange(vocab_size).expand(60, -1)[..., None]
        rows = torch.cat([blocks, words], dim=2).flatten(0, 1)  # (60 V, length + 1)
        probs = model.log2_prob(rows)[:, -1].exp2().view(60, vocab_size)
        assert (probs > 0).all()
        torch.testing.assert_close(probs.sum(1), torch.ones(60).double())


def test_bigram_by_hand():
    """Interpolated Kneser-Ney on a b a c a b: every number from the definition."""
    a, b, c = range(3)
    model = KneserNey(np.array([a, b, a, c, a, b]), 2, vocab_size=3)
    # different words before: a ← {b, c}, b ← {a}, c ← {a}; counts 2 1 1, so D = 2 / (2 + 2·1)
    lower = [(2 - 0.5 + 0.5 * 3 / 3) / 4, *[(1 - 0.5 + 0.5 * 3 / 3) / 4] * 2]
    assert sum(lower) == 1
    # occurrences: ab 2, ba 1, ac 1, ca 1, so D = 3 / (3 + 2·1); after a: 3 in all, of 2 types
    d = 0.6
    after_a = [d * 2 / 3 * lower[0], (2 - d + d * 2 * lower[1]) / 3, (1 - d + d * 2 * lower[2]) / 3]
    for word in range(3):
        found = model.log2_prob(torch.tensor([[a, word]]))[0, 1].exp2().item()
        assert found == pytest.approx(after_a[word])
    # the first token of a block has no context: plain occurrences 3 2 1, D = 1 / (1 + 2·1)
    first = model.log2_prob(torch.tensor([[a], [b], [c]]))[:, 0].exp2()
    expected = [(k - 1 / 3 + 1 / 3 * 3 / 3) / 6 for k in (3, 2, 1)]
    torch.testing.assert_close(first, torch.tensor(expected).double())


def test_ngrams_approach_the_truth_from_above(language):
    """On the synthetic language longer contexts help, and nothing beats the true probability."""
    corpus = load_corpus("synthetic", 32)
    train, valid = corpus.train[:8000].flatten(), corpus.valid[:1000]
    truth = -language.log_prob(valid).mean().item() / 32 / math.log(2)
    bits = [ngram_bits(train, valid, n, corpus.tokenizer.vocab_size) for n in (1, 2, 5)]
    assert bits[0] > bits[1] > bits[2] > truth
    assert ngram_bits(train.numpy(), Blocks(valid.flatten().numpy(), 32), 2, 40) == bits[1]


def test_ngram_large_vocabulary_and_errors():
    train = torch.randint(50_257, (2000,), generator=seeded())
    assert math.isfinite(ngram_bits(train, train[:320].view(10, 32), 5, 50_257))
    with pytest.raises(ValueError, match="n >= 1 and a stream of n tokens"):
        KneserNey(train, 0, 50_257)
    with pytest.raises(ValueError, match="must lie in 0 … 9"):
        KneserNey(train, 2, 10)
    with pytest.raises(ValueError, match="must lie in 0 … 50256"):
        KneserNey(train, 2, 50_257).log2_prob(torch.tensor([[50_257]]))
