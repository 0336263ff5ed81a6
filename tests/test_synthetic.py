"""The synthetic language against enumeration: probabilities, posteriors, sampler, entropy rate.

Statistical tests are seeded; each states the chance at which a right implementation would fail for
a random seed (its false-alarm rate).
"""

import itertools
import math

import pytest
import torch
from scipy import stats
from texts import seeded

from sedd_mini.text.synthetic import HiddenMarkovChain, SyntheticLanguage, next_states, words_of


@pytest.fixture(scope="module")
def language() -> SyntheticLanguage:
    return SyntheticLanguage()


def tiny_chain() -> HiddenMarkovChain:
    """Three hidden states over four words, with some transitions and emissions impossible."""
    transition = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.4, 0.6], [0.7, 0.2, 0.1]])
    emission = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.1, 0.1, 0.4, 0.4], [0.0, 0.5, 0.0, 0.5]])
    return HiddenMarkovChain(transition, emission)


def path_sum(chain: HiddenMarkovChain, tokens: list[int]) -> float:
    """p(tokens) as the sum over all hidden paths, one by one."""
    initial, transition, emission = (
        x.tolist() for x in (chain.stationary, chain.transition, chain.emission)
    )
    total = 0.0
    for path in itertools.product(range(len(initial)), repeat=len(tokens)):
        p = initial[path[0]]
        for a, b in itertools.pairwise(path):
            p *= transition[a][b]
        for state, token in zip(path, tokens, strict=True):
            p *= emission[state][token]
        total += p
    return total


def all_strings(vocab_size: int, length: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(vocab_size)] * length).view(-1, length)


def test_forward_algorithm_is_the_sum_over_paths():
    chain = tiny_chain()
    strings = all_strings(4, 4)
    exact = torch.tensor([path_sum(chain, row.tolist()) for row in strings])
    torch.testing.assert_close(chain.log_prob(strings).exp(), exact.double(), rtol=1e-6, atol=1e-9)
    assert math.isclose(exact.sum().item(), 1, rel_tol=1e-6)


def test_tiny_chain_is_stationary():
    chain = tiny_chain()
    torch.testing.assert_close(chain.stationary @ chain.transition, chain.stationary)
    # the law of the last three of four tokens is that of any three
    marginal = chain.log_prob(all_strings(4, 4)).exp().view(4, -1).sum(0)
    torch.testing.assert_close(marginal, chain.log_prob(all_strings(4, 3)).exp())


def test_posterior_and_partial_probability_by_enumeration():
    chain, length = tiny_chain(), 5
    strings = all_strings(4, length)
    joint = chain.log_prob(strings).exp()
    for known in itertools.product([False, True], repeat=length):
        known = torch.tensor(known)
        tokens = torch.tensor([[0, 1, 3, 2, 1]]).where(known, 99)  # what is unknown is not read
        match = ((strings == tokens) | ~known).all(1)
        probability = joint[match].sum()
        assert torch.isclose(chain.log_prob(tokens, known[None]).exp()[0], probability)
        posterior = chain.posterior(tokens, known[None])[0]  # (L, V)
        for position in range(length):
            law = torch.zeros(4).double().index_add(0, strings[match, position], joint[match])
            torch.testing.assert_close(posterior[position], law / probability)


def test_language_is_a_distribution_with_full_support(language):
    for rows in (language.transition, language.emission, language.stationary[None]):
        torch.testing.assert_close(rows.sum(-1), torch.ones(len(rows)).double())
    assert (language.emission > 0).all()
    for length in (1, 2, 3):
        log_prob = language.log_prob(all_strings(language.vocab_size, length))
        assert torch.isfinite(log_prob).all()
        assert math.isclose(log_prob.exp().sum().item(), 1, rel_tol=1e-10)
    pair = [language.words.index("some"), language.words.index("cats")]
    expected = path_sum(language, pair)
    assert math.isclose(language.log_prob(torch.tensor([pair])).exp().item(), expected)


def test_log_prob_of_a_long_string_is_the_product_of_conditionals(language):
    x, n = language.sample(1, 40, seeded()), torch.arange(40)
    known = n < n[:, None]  # (40, 40): row n knows the tokens before n
    conditionals = language.posterior(x.expand(40, 40), known)[n, n, x[0]]
    torch.testing.assert_close(language.log_prob(x)[0], conditionals.log().sum())


def test_grammar_agrees_over_distance():
    strict = SyntheticLanguage(smoothing=0)
    tokenizer = strict.tokenizer()

    def possible(sentence: str) -> bool:
        return torch.isfinite(strict.log_prob(torch.tensor([tokenizer.encode(sentence)]))).item()

    assert possible(". some small cats near a river sleep and sing .")
    assert not possible(". some small cats near a river sleeps and sing .")
    assert not possible(". some small cats near a river sleep and sings .")
    assert possible(". every dog behind many houses follows these birds .")
    assert not possible(". every dog behind many houses follow these birds .")
    assert not possible(". many dog sleeps .")
    assert torch.isfinite(strict.log_prob(strict.sample(200, 30, seeded()))).all()
    for state in strict.states:  # the grammar itself: probabilities, and words everywhere
        assert math.isclose(sum(p for p, _ in next_states(state)), 1)
        assert words_of(state)
    with pytest.raises(ValueError, match="no state"):
        next_states(("nothing",))


def chi_square(observed: torch.Tensor, law: torch.Tensor) -> float:
    """p-value of counts against a law; cells that expect fewer than 10 are put together."""
    observed, expected = observed.double(), law.double() * observed.sum()
    rare = expected < 10
    if rare.any():
        observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return stats.chisquare(observed.numpy(), expected.numpy()).pvalue


def test_sampler_follows_the_exact_law(language):
    """Pairs at the start and at the end of blocks of 12, and words over many: χ², false alarm 1e-4
    for each of three p-values."""
    x = language.sample(40_000, 12, seeded())
    size = language.vocab_size
    law = language.log_prob(all_strings(size, 2)).exp()
    for pair in (x[:, :2], x[:, -2:]):
        counts = torch.bincount(pair[:, 0] * size + pair[:, 1], minlength=size**2)
        assert chi_square(counts, law) > 1e-4
    counts = torch.bincount(x[:, 6], minlength=size)
    assert chi_square(counts, language.log_prob(torch.arange(size)[:, None]).exp()) > 1e-4


def test_entropy_rate_against_enumeration():
    """H(X_n | X_<n) of the tiny chain exactly; the estimate within 5 of its standard errors (false
    alarm 6e-7), the bounds in the order that the theorem states."""
    chain = tiny_chain()
    entropies = []
    for length in (7, 8):
        p = chain.log_prob(all_strings(4, length)).exp()
        entropies.append(-torch.special.xlogy(p, p).sum().item() / math.log(2))
    first, second = chain.conditional_entropies(20_000, 8, seeded())
    exact, error = entropies[1] - entropies[0], second[:, 7].std().item() / 20_000**0.5
    assert abs(second[:, 7].mean().item() - exact) < 5 * error
    assert (first.mean(0) <= second.mean(0) + 1e-9).all()


def test_entropy_rate_of_the_language(language):
    """Two independent roads, the filter's entropies and −log2 p of fresh blocks, agree within 5
    joint standard errors (false alarm 6e-7)."""
    rate = language.entropy_rate(num_blocks=1024, length=48)
    assert rate.upper - rate.lower < 1e-6
    assert rate.std_error < 0.005
    x = language.sample(512, 96, seeded(1))
    bits = (language.log_prob(x[:, :32]) - language.log_prob(x)) / 64 / math.log(2)
    error = math.hypot(rate.std_error, bits.std().item() / 512**0.5)
    assert abs(bits.mean().item() - rate.bits) < 5 * error
    assert abs(rate.bits - 2.28) < 5 * rate.std_error  # as the documentation says


def test_language_errors(language):
    with pytest.raises(ValueError, match="must lie in 0 … 39"):
        language.log_prob(torch.tensor([[0, 40]]))
    with pytest.raises(ValueError, match=r"shape \(B, L\)"):
        language.log_prob(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="at least one block"):
        language.sample(0, 5)
    with pytest.raises(ValueError, match="smoothing"):
        SyntheticLanguage(smoothing=1)
    with pytest.raises(ValueError, match="row of emission"):
        HiddenMarkovChain(torch.eye(2), torch.ones(2, 2))
