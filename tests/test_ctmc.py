"""What the oracle promises. It is checked against enumeration, simulation and itself."""

import itertools
import math

import pytest
import torch
from scipy import integrate, stats
from worlds import random_chain, random_graph

from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.worlds.ctmc import Chain, MatrixGraph, draw, log_quadrature, total_variation

CHAINS = {
    "uniform 4²": random_chain(UniformGraph(4)),
    "absorbing 4²": random_chain(AbsorbingGraph(4)),
    "any 4²": random_chain(random_graph(1)),
    "any 4": random_chain(random_graph(2), length=1),
    "uniform 3³": random_chain(UniformGraph(3), length=3),
    "absorbing 3³": random_chain(AbsorbingGraph(3), length=3),
}
chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


def joint(chain: Chain, sigma: float) -> torch.Tensor:
    """p(x0, x) by multiplying everything out, (n, n)."""
    rows = []
    for x0 in chain.states:
        kernel = torch.stack([chain.kernel(sigma)[chain.states[:, i], x0[i]]
                              for i in range(chain.length)]).prod(0)  # fmt: skip
        rows.append(kernel * chain.p0[tuple(x0)])
    return torch.stack(rows)


@chains
def test_marginals_solve_the_master_equation_of_the_whole_sequence(chain):
    Q = chain.rate_matrix()
    assert Q.sum(0).abs().max() < 1e-12
    sigmas = torch.tensor([1e-6, 0.3, 2.0, 15.0], dtype=torch.float64)
    many = chain.marginals(sigmas)
    for sigma, row in zip(sigmas, many, strict=True):
        dense = torch.matrix_exp(sigma * Q) @ chain.p0.flatten()
        torch.testing.assert_close(
            chain.marginal(sigma.item()).flatten(), dense, atol=1e-12, rtol=0
        )
        torch.testing.assert_close(row, dense, atol=1e-12, rtol=0)
    places = torch.tensor([0, 1, 2, 3])
    picked = many[torch.arange(4), places]
    torch.testing.assert_close(chain.marginals(sigmas, places), picked)


@chains
def test_scores_posteriors_and_conditionals_equal_enumeration(chain):
    J = joint(chain, 0.6)
    p = J.sum(0)
    score, posterior = chain.scores(0.6), chain.posterior(0.6)
    conditional = chain.conditionals(0.6)
    for k, x in enumerate(chain.states.tolist()):
        for i, y in itertools.product(range(chain.length), range(chain.num_states)):
            other = [*x[:i], y, *x[i + 1 :]]
            there = p[chain.index(torch.tensor(other))]
            line = sum(
                p[chain.index(torch.tensor([*x[:i], z, *x[i + 1 :]]))]
                for z in range(chain.num_states)
            )
            assert score[k, i, y].item() == pytest.approx((there / p[k]).item(), rel=1e-9)
            assert conditional[k, i, y].item() == pytest.approx((there / line).item(), rel=1e-9)
            if y < chain.graph.num_tokens:
                chance = J[chain.states[:, i] == y, k].sum() / p[k]
                assert posterior[k, i, y].item() == pytest.approx(chance.item(), abs=1e-12)
    torch.testing.assert_close(chain.log_score(chain.states, 0.6).exp(), score)


@chains
def test_reverse_rates_turn_the_forward_equation_around(chain):
    """−dp/dσ̄ is what the reverse chain's rates, made of true ratios, do to p."""
    p = chain.marginal(0.8)
    rates = chain.graph.reverse_rates(chain.states, chain.scores(0.8))
    flow = (p.flatten()[:, None, None] * rates).flatten()
    into = torch.zeros(p.numel(), dtype=torch.float64)
    into.index_add_(0, chain.neighbours(chain.states).flatten(), flow)
    torch.testing.assert_close(into, -chain.apply_rates(p).flatten(), atol=1e-12, rtol=0)


@chains
def test_the_reverse_equation_leads_from_noise_to_data(chain):
    errors = []
    for steps in (50, 100):
        p = chain.reverse_marginal(chain.log_score, 6.0, chain.marginal(6.0), steps)
        assert p.sum().item() == pytest.approx(1)
        errors.append(total_variation(p, chain.p0))
    assert errors[1] < 2e-3
    assert errors[1] < max(errors[0] / 3, 1e-8)  # second order in the number of steps


@chains
def test_exact_reverse_simulation_reproduces_the_data(chain):
    """χ² of 5 000 Gillespie paths, false-alarm rate 1e-4."""
    g, num = torch.Generator().manual_seed(5), 5_000
    start = chain.states[torch.multinomial(chain.marginal(3.0).flatten(), num, True, generator=g)]
    x, jumps = chain.reverse_gillespie(start, 3.0, generator=g)
    support = chain.p0.flatten() > 0
    seen = (chain.histogram(x).flatten() * num).round()
    assert seen[~support].sum() == 0
    seen, expected = seen[support], chain.p0.flatten()[support] * num
    assert stats.chisquare(seen.numpy(), expected.numpy()).pvalue > 1e-4
    if chain.graph.mask_id is not None:  # each masked token comes back in one jump
        assert (jumps == (start == chain.graph.mask_id).sum(1)).all()


@chains
def test_fine_leaps_approach_the_data(chain):
    """100 steps of τ-leaping: total variation within 0.02 of what 20 000 true samples have."""
    g, num = torch.Generator().manual_seed(6), 20_000
    start = chain.states[torch.multinomial(chain.marginal(3.0).flatten(), num, True, generator=g)]
    grid = [*torch.logspace(math.log10(3.0), -7, 100).tolist(), 0.0]
    x = chain.tau_leap(start, grid, generator=g)
    found = total_variation(chain.histogram(x), chain.p0)
    honest = total_variation(chain.histogram(chain.sample_data(num, g)), chain.p0)
    assert found < honest + 0.02


def test_gillespie_stops_where_it_is_told_and_has_the_law_there():
    chain, g = CHAINS["uniform 4²"], torch.Generator().manual_seed(2)
    start = chain.states[torch.multinomial(chain.marginal(2.0).flatten(), 8_000, True, generator=g)]
    x, _ = chain.reverse_gillespie(start, 2.0, stop=0.4, generator=g)
    expected = chain.marginal(0.4).flatten() * 8_000
    seen = chain.histogram(x).flatten() * 8_000
    assert stats.chisquare(seen.numpy(), expected.numpy()).pvalue > 1e-4  # false-alarm rate 1e-4


@pytest.mark.parametrize("method", ["euler", "tweedie"])
@pytest.mark.parametrize("name", ["uniform 4²", "absorbing 4²"])
def test_one_leap_follows_its_formula(name, method):
    """One step from a fixed x, against the law multiplied out by hand; false-alarm rate 1e-4."""
    chain, g = CHAINS[name], torch.Generator().manual_seed(1)
    start = torch.tensor([[1, 4 if "absorbing" in name else 2]])
    score, Q = chain.scores(0.9)[chain.index(start)[0]], chain.token_rates()
    if method == "euler":
        law = 0.3 * score * Q[start[0]]
        law = law.scatter(1, start.T, 0)
        law = law.scatter(1, start.T, 1 - law.sum(1, keepdim=True))
    else:
        law = (torch.matrix_exp(-0.3 * Q) @ score.T).T * torch.matrix_exp(0.3 * Q)[start[0]]
        law = law / law.sum(1, keepdim=True)
    law = law[0][:, None] * law[1]
    x = chain.tau_leap(start.expand(50_000, 2), [0.9, 0.6], method, g)
    seen, law = chain.histogram(x).flatten() * 50_000, law.flatten()
    assert law.min() > -1e-12
    assert seen[law < 1e-12].sum() == 0
    seen, law = seen[law > 1e-12], law[law > 1e-12]
    if len(law) > 1:
        assert stats.chisquare(seen.numpy(), (law / law.sum() * 50_000).numpy()).pvalue > 1e-4


@chains
def test_loss_by_data_equals_the_sum_over_every_noisy_sequence(chain):
    g = torch.Generator().manual_seed(3)
    table = torch.randn(len(chain.states), chain.length, chain.num_states, generator=g).double()

    def model(x, sigma):
        return table[chain.index(x)]

    fast = chain.loss_by_data(model, 0.7)
    n_tokens = chain.graph.num_tokens
    for x0 in itertools.product(range(n_tokens), repeat=chain.length):
        x0 = torch.tensor(x0)
        reach = torch.stack([chain.kernel(0.7)[chain.states[:, i], x0[i]]
                             for i in range(chain.length)]).prod(0)  # fmt: skip
        x, weight = chain.states[reach > 0], reach[reach > 0]
        loss = chain.graph.score_entropy(
            model(x, None), torch.tensor(0.7).double(), x, x0.expand_as(x)
        )
        assert fast[tuple(x0)].item() == pytest.approx((weight @ loss.sum(1)).item(), rel=1e-6)


@chains
def test_with_exact_ratios_the_bound_is_the_likelihood_of_every_x0(chain):
    log_base = chain.marginal(5.0).clamp(min=1e-300).log()
    bound = chain.bound(chain.log_score, 5.0, log_base)
    data = chain.p0[(slice(chain.graph.num_tokens),) * chain.length]
    torch.testing.assert_close(bound, -data.log(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ["uniform 4²", "absorbing 4²", "any 4²"])
def test_with_wrong_ratios_it_bounds_the_models_own_likelihood(name):
    chain = CHAINS[name]
    g = torch.Generator().manual_seed(4)
    wrong = torch.randn(len(chain.states), chain.length, chain.num_states, generator=g).double() / 2

    def model(x, sigma):
        return chain.log_score(x, sigma) + wrong[chain.index(x)]

    base = chain.marginal(5.0)
    bound = chain.bound(model, 5.0, base.clamp(min=1e-300).log())
    p = chain.reverse_marginal(model, 5.0, base, steps=600)
    gap = bound + p[(slice(chain.graph.num_tokens),) * chain.length].log()
    assert gap.min() > -1e-4
    assert gap.max() > 0.05


def test_prior_term_is_the_divergence_from_each_x0():
    chain = CHAINS["absorbing 3³"]
    base = torch.rand(
        chain.p0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    base /= base.sum()
    prior = chain.prior_kl(1.3, base.log())
    for x0 in ([0, 1, 2], [2, 2, 0]):
        kernel = chain.kernel(1.3)[:, x0]
        p = torch.einsum("a,b,c->abc", *kernel.T)
        assert prior[tuple(x0)].item() == pytest.approx(
            (torch.xlogy(p, p) - p * base.log()).sum().item()
        )
    default = CHAINS["absorbing 4²"].prior_kl(3.0)
    torch.testing.assert_close(
        default, 2 * AbsorbingGraph(4).prior_kl(torch.tensor(3.0).double()).expand(4, 4)
    )


def test_quadrature_in_log_noise_against_scipy():
    sigma, weight = log_quadrature(1e-12, 8.0, 200)
    found = sum(w * -math.log(s) * math.exp(-s) for s, w in zip(sigma, weight, strict=True))
    true, _ = integrate.quad(lambda s: -math.log(s) * math.exp(-s), 0, 8.0)
    assert found == pytest.approx(true, abs=1e-9)


def test_draw_never_picks_what_has_no_probability():
    g = torch.Generator().manual_seed(0)
    probs = torch.tensor([0.0, 0.3, 0.0, 0.7, 0.0]).expand(100_000, 5)
    counts = torch.bincount(draw(probs, g), minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert stats.binomtest(int(counts[1]), 100_000, 0.3).pvalue > 1e-4  # false-alarm rate 1e-4


def test_bad_chains_are_refused_with_a_reason():
    cases = [
        ("square", lambda: MatrixGraph(torch.zeros(2, 3))),
        ("not be negative", lambda: MatrixGraph(torch.tensor([[1.0, 0], [-1, 0]]))),
        ("sum to 0", lambda: MatrixGraph(torch.tensor([[-1.0, 0], [0.5, 0]]))),
        ("several stationary", lambda: MatrixGraph(torch.zeros(2, 2)).limit()),
        ("must have shape", lambda: Chain(UniformGraph(3), torch.ones(3, 2) / 6)),
        ("sum to 1", lambda: Chain(UniformGraph(3), torch.ones(3, 3))),
        ("tweedie", lambda: CHAINS["any 4"].tau_leap(torch.zeros(1, 1).long(), [1, 0], "heun")),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()


def test_a_matrix_graph_has_one_kernel_a_level_and_none_a_token(monkeypatch):
    """`kernel` gives one for each sigma; with 1024 states and a batch that is tens of gigabytes."""
    monkeypatch.setattr(MatrixGraph, "kernel", None)
    own, plain = MatrixGraph.of(UniformGraph(5)), UniformGraph(5)
    g = torch.Generator().manual_seed(0)
    x = torch.randint(5, (4, 6), generator=g)
    sigma = torch.tensor([0.1, 0.1, 0.7, 2.0]).double()[:, None]  # three levels
    score = torch.rand(4, 6, 5, generator=g).double().scatter(-1, x[..., None], 1)
    for call in (
        lambda graph: graph.transition_probs(x, sigma),
        lambda graph: graph.staggered_score(score, sigma),
        lambda graph: graph.tweedie_probs(x, score, sigma),
    ):
        torch.testing.assert_close(call(own), call(plain), rtol=1e-10, atol=1e-12)
