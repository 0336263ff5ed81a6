"""Remasking and correctors: what they keep. A χ² test fails by chance once in 10^6."""

import itertools

import pytest
import torch
from worlds import follows, pair_data, planted, random_chain, random_graph, seeded

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, sample
from sedd_mini.beyond import remasking as file
from sedd_mini.beyond.remasking import Corrector, Remask
from sedd_mini.beyond.tables import exact_table, random_table
from sedd_mini.evaluation.law import after, law_of_sampler
from sedd_mini.samplers import generators
from sedd_mini.worlds.ctmc import Chain, total_variation

GRAPH, NOISE = AbsorbingGraph(3), LogLinearNoise()
CHAIN = random_chain(GRAPH, length=2)
PAIR = Chain(AbsorbingGraph(2), torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64))
TIMES = torch.tensor([0.7, 0.4], dtype=torch.float64)


def one_step(chain, model, rows, p, noise=NOISE):
    """The law after rows(model, …) from the law p (n,) at t = 0.7, to t = 0.4."""
    free = torch.ones(1, chain.length, dtype=torch.bool)
    return after(p, chain.states, free, lambda x, some: rows(
        model, chain.graph, noise, x, some, *TIMES))  # fmt: skip


def given_one_sequence(module, strength: float) -> float:
    """The distance from p_s( · | x0) after a step from p_t( · | x0) that is told x0 = (2, 0)."""
    p0 = torch.zeros(3, 3, dtype=torch.float64)
    p0[2, 0] = 1.0
    chain = Chain(GRAPH, p0)
    p_t, p_s = (chain.marginal(float(NOISE.total(t))).flatten() for t in TIMES)
    rows = module.Remask(strength).rows
    return total_variation(one_step(chain, exact_table(chain), rows, p_t), p_s)


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_remasking_keeps_the_law_given_the_data(strength):
    """So, averaged over the joint posterior of x0, the joint law too; not one token at a time."""
    assert given_one_sequence(file, strength) < 1e-9
    p_t, p_s = (CHAIN.marginal(float(NOISE.total(t))).flatten() for t in TIMES)
    found = one_step(CHAIN, exact_table(CHAIN), Remask(strength).rows, p_t)
    assert total_variation(found, p_s) > 1e-3


def test_the_joint_posterior_keeps_the_joint_law():
    """x0 drawn given x_t, all tokens at once, then the step: p_s, at every strength."""
    p_s = CHAIN.marginal(float(NOISE.total(TIMES[1]))).flatten()
    for strength in (0.0, 0.5, 1.0):
        total = torch.zeros_like(p_s)
        for place, weight in enumerate(CHAIN.p0[:3, :3].flatten()):
            p0 = torch.zeros(9, dtype=torch.float64)
            p0[place] = 1.0
            chain = Chain(GRAPH, p0.reshape(3, 3))
            p_t = chain.marginal(float(NOISE.total(TIMES[0]))).flatten()
            rows = Remask(strength).rows
            total += weight * one_step(chain, exact_table(chain), rows, p_t)
        assert total_variation(total, p_s) < 1e-9


def test_more_remasking_is_worse_for_exact_scores_at_equal_steps():
    """The pair of chapter 08 at K = 16."""
    found = [total_variation(law_of_sampler(exact_table(PAIR), PAIR.graph, NOISE, 2, 16, Remask(s)),
                             PAIR.p0) for s in (0.0, 0.25, 0.5, 1.0)]  # fmt: skip
    assert found == sorted(found)
    assert found[0] == pytest.approx(0.025, abs=5e-4)
    assert found[-1] == pytest.approx(0.060, abs=5e-4)
    plain = law_of_sampler(exact_table(PAIR), PAIR.graph, NOISE, 2, 16, "tweedie")
    assert found[0] == pytest.approx(total_variation(plain, PAIR.p0), abs=1e-6)


CHAINS = {
    "absorbing": CHAIN,
    "uniform": random_chain(UniformGraph(3)),
    "any": Chain(random_graph(1), pair_data(4)),
}


def off_by(module, chain, size: float) -> float:
    """The distance from p_σ̄ after one step of `size` from p_σ̄, exact scores, σ̄ = 0.7."""
    sigma = torch.tensor(0.7, dtype=torch.float64)
    p = chain.marginal(0.7).flatten()

    def rows(model, graph, noise, x, free, t, t_next):
        moves = module.both_ways(model, graph, x, free, sigma, size)
        return module.rows_of(graph, x, free, moves)

    found = one_step(chain, chain.log_score, rows, p)
    assert found.sum() == pytest.approx(1)
    return total_variation(found, p)


@pytest.mark.parametrize("name", CHAINS)
def test_forward_and_reverse_rates_together_leave_the_law(name):
    """Up to O(h²): half the step, a quarter of the error."""
    coarse, fine = (off_by(file, CHAINS[name], size) for size in (2e-3, 1e-3))
    assert 0 < fine < 1e-4
    assert coarse / fine == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize(("old", "new"), [
    ("[at[free].to(device)] += back", "[at[free].to(device)] = back"),
    ("[at[free].to(device)] += back", "[at[free].to(device)] += 0 * back"),
    ("log_score.exp()).to(rates)", "(-log_score).exp()).to(rates)"),
    ("rates = graph.rates(tokens).double()", "rates = graph.rates_into(tokens).double()"),
    ("-torch.expm1(-size * rates.sum(-1))", "-torch.expm1(-2 * size * (rates / 2).max(-1).values)"),
])  # fmt: skip
def test_planted_bugs_of_the_corrector_are_seen(old, new):
    """The error of a wrong step falls with h alone, on one of the graphs at least."""
    wrong, ratios = planted(file, old, new), []
    for chain in CHAINS.values():
        ratios.append(off_by(wrong, chain, 2e-3) / off_by(wrong, chain, 1e-3))
    assert min(ratios) < 3


@pytest.mark.parametrize(("old", "new"), [
    ("(1 - rho) * visible) / -torch", "visible) / -torch"),
    ("-torch.expm1(-sigma))", "(1 + torch.expm1(-sigma)))"),
    ("tensor([rho, show]", "tensor([show, rho]"),
    ("weights[:, graph.mask_id] = 1.0", "weights[:, 0] = 1.0"),
    ("for s in (t, t_next))  # α_t", "for s in (t_next, t))  # α_t"),
])  # fmt: skip
def test_planted_bugs_of_remasking_are_seen(old, new):
    assert given_one_sequence(planted(file, old, new), 0.6) > 1e-3


@pytest.mark.parametrize("step", [Remask(0.6), Remask(1), Corrector(0.7, 2), Corrector(2)], ids=str)
def test_samples_of_a_learned_table_follow_the_pushed_law(step):
    chain = random_chain(GRAPH, length=3)
    model = random_table(chain, seed=3, place=0.5, time=1.0)
    noise = GeometricNoise(0.05, 5)
    law = law_of_sampler(model, GRAPH, noise, 3, 3, step)
    x = sample(model, GRAPH, noise, (20_000, 3), 3, step, generator=seeded())
    assert follows(law, x, chain)
    clamp = torch.tensor([-1, 2, -1])
    x = sample(model, GRAPH, noise, (9, 3), 3, step, clamp=clamp, generator=generators(1, 9))
    assert (x[:, 1] == 2).all()
    again = sample(model, GRAPH, noise, (4, 3), 3, step, clamp=clamp, generator=generators(1, 4))
    assert torch.equal(again, x[:4])


def test_the_corrector_on_the_uniform_graph():
    chain, noise = CHAINS["uniform"], GeometricNoise(0.01, 5)
    law = law_of_sampler(chain.log_score, chain.graph, noise, 2, 4, "corrector")
    plain = law_of_sampler(chain.log_score, chain.graph, noise, 2, 4)
    assert total_variation(law, chain.p0) < total_variation(plain, chain.p0)
    x = sample(chain.log_score, chain.graph, noise, (20_000, 2), 4, "corrector", generator=seeded())
    assert follows(law, x, chain)


def test_remasking_does_hide_again():
    seen = []
    sample(
        exact_table(CHAIN), GRAPH, NOISE, (500, 2), 8, "remask", generator=seeded(),
        callback=lambda k, t, x: seen.append(x),
    )  # fmt: skip
    assert any(((a < 3) & (b == 3)).any() for a, b in itertools.pairwise(seen))
    assert (seen[-1] < 3).all()


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Remask(-0.1), "strength must be at least 0, got -0.1"),
    (lambda: Remask(1.5), r"strength of remasking must lie in \[0, 1\], got 1.5"),
    (lambda: Remask("much"), "strength must be a number, finite, got 'much'"),
    (lambda: Corrector(-1), "strength must be at least 0, got -1"),
    (lambda: Corrector(rounds=0), "rounds must be a whole number, at least 1, got 0"),
    (
        lambda: sample(CHAINS["uniform"].log_score, UniformGraph(3), NOISE, (1, 2), 2, "remask"),
        r"remasking is for the absorbing graph, .* got UniformGraph\(3\)",
    ),
])  # fmt: skip
def test_errors(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
