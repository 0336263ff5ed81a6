"""Schedules: the bound does not feel them, K steps do, and a search finds better times."""

import math

import pytest
import torch
from worlds import planted, random_chain

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph
from sedd_mini.beyond import schedule_search as file
from sedd_mini.beyond.schedule_search import (
    by_graph_and_schedule,
    divergence,
    golden_section,
    search_times,
)
from sedd_mini.beyond.tables import exact_table, random_table
from sedd_mini.noise import CosineNoise
from sedd_mini.worlds.ctmc import log_quadrature

ABSORBING = random_chain(AbsorbingGraph(2), length=2)
UNIFORM = random_chain(UniformGraph(2), length=2)


class Warped:
    """GeometricNoise whose time runs as t², so the same ends by another way."""

    def __init__(self, noise):
        self.noise = noise

    def total(self, t):
        return self.noise.total(torch.as_tensor(t) ** 2)

    def rate(self, t):
        return 2 * torch.as_tensor(t) * self.noise.rate(torch.as_tensor(t) ** 2)


def wrong(x, sigma, at=None):
    """Scores of no data, with the time in them, on the uniform graph."""
    out = UNIFORM.log_score(x, sigma) + torch.sin(sigma)[:, None, None] * torch.arange(2)
    return out if at is None else out[at]


@pytest.mark.parametrize("case", ["absorbing", "uniform"])
def test_the_bound_does_not_feel_the_schedule(case):
    """Different schedules with equal ends; and the integral over σ̄ itself."""
    spread, least = spread_and_least(file, case)
    assert spread < 1e-9
    assert least > 0.3


def spread_and_least(module, case: str, nodes: int = 200) -> tuple[float, float]:
    if case == "absorbing":
        chain, model = ABSORBING, random_table(ABSORBING, seed=1, place=0.5, time=1.0)
        pair = LogLinearNoise(), CosineNoise()
        ends = 1e-13, float(pair[0].total(torch.tensor(1.0).double()))
    else:
        chain, model = UNIFORM, wrong
        pair = GeometricNoise(1e-3, 5), Warped(GeometricNoise(1e-3, 5))
        ends = 1e-3, 5.0
    one, other = (module.bound_over_time(model, chain, noise, nodes) for noise in pair)
    sigma, weight = log_quadrature(*ends, nodes)
    whole = sum(w * chain.loss_by_data(model, s) for s, w in zip(sigma, weight, strict=True))
    return max((one - o).abs().max().item() for o in (other, whole)), whole.min().item()


@pytest.mark.parametrize(("old", "new"), [
    ("w * float(noise.rate(t)) * loss", "w * loss"),
    ("(1 - s for s in near)", "(s for s in near)"),
])  # fmt: skip
def test_planted_bugs_of_the_bound_are_seen(old, new):
    assert spread_and_least(planted(file, old, new), "absorbing", 40)[0] > 1e-2
    assert spread_and_least(file, "absorbing", 40)[0] < 1e-3


@pytest.mark.parametrize("case", ["absorbing", "uniform"])
def test_a_search_finds_better_times(case):
    if case == "absorbing":
        chain, model, noise = ABSORBING, exact_table(ABSORBING), CosineNoise()
    else:
        chain, model, noise = UNIFORM, UNIFORM.log_score, GeometricNoise(1e-3, 5)
    times, found = search_times(model, chain, noise, 3, rounds=2, tries=8)
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.99 * found[0]
    assert times == sorted(times, reverse=True)
    assert (times[0], times[-1]) == (1.0, 1e-5)
    assert divergence(model, chain, noise, times) == found[-1]
    equal = torch.linspace(1, 1e-5, 4, dtype=torch.float64)
    assert divergence(model, chain, noise, equal) == found[0]


def test_two_words_that_depend_on_each_other_want_equal_shares():
    """The pair on the absorbing graph: with K = 2 the best inner time hides half of the tokens.

    Both words must not appear in one step: P = λ² + (1 − λ)², lowest at λ = 1/2.
    """
    chain = random_chain(AbsorbingGraph(2), length=2)
    times, _ = search_times(exact_table(chain), chain, LogLinearNoise(1e-9), 2, rounds=1, tries=20)
    assert times[1] == pytest.approx(0.5, abs=0.01)


def test_golden_section():
    calls = []

    def cost(t):
        calls.append(t)
        return (t - 0.3) ** 2

    best, value = golden_section(cost, 0.0, 1.0, 20)
    assert best == pytest.approx(0.3, abs=1e-3)
    assert value == cost(best)
    assert len({*calls}) <= 20
    wrong = planted(file, "if seen[left] < seen[right]", "if seen[left] > seen[right]")
    assert abs(wrong.golden_section(cost, 0.0, 1.0, 20)[0] - 0.3) > 0.03


def test_graph_and_schedule():
    schedules = {"log-linear": LogLinearNoise(), "geometric": GeometricNoise(1e-3, 7)}
    chains = {"absorb": ABSORBING, "uniform": UNIFORM}
    table = by_graph_and_schedule(chains, schedules, [2, 8])
    assert set(table) == {(g, s, K) for g in chains for s in schedules for K in (2, 8)}
    assert all(math.isfinite(v) and v > 0 for v in table.values())
    assert all(table[g, s, 8] < table[g, s, 2] for g in chains for s in schedules)


def test_errors():
    with pytest.raises(ValueError, match="steps must be a whole number, at least 1, got 0"):
        search_times(exact_table(ABSORBING), ABSORBING, LogLinearNoise(), 0)
