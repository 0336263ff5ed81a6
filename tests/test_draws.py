"""Times and noise of a batch: exactly the expectation of the definition, with less variance."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.losses import diffusion_weighted
from sedd_mini.noise import LogLinearNoise
from sedd_mini.training import draws
from sedd_mini.worlds.ctmc import Chain, MatrixGraph

N = L = 3
GRAPH, NOISE = AbsorbingGraph(N), LogLinearNoise()


class Square:
    """Another schedule, of which the library knows nothing: σ̄ = 5 t²."""

    def total(self, t):
        return 5 * torch.as_tensor(t) ** 2

    def rate(self, t):
        return 10 * torch.as_tensor(t)


def table_model(seed: int = 0):
    """Any network: a table of log-scores for every sequence, which also depends on σ̄."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn((N + 1,) * L + (L, N + 1), generator=generator, dtype=torch.float64)

    def model(x, sigma):
        log_score = table[tuple(x.T)] - sigma.double()[:, None, None].expm1().log()
        return log_score.scatter(-1, x[..., None], 0.0)

    return model


def exact(noise, model, x0, nodes: int = 400):
    """The mean over t ∈ [0.001, 1] of σ(t) E loss, by enumeration and quadrature in log t."""
    chain = Chain(GRAPH, torch.full((N,) * L, N**-L, dtype=torch.float64))
    points, weights = np.polynomial.legendre.leggauss(nodes)
    low = math.log(draws.FIRST)
    t = np.exp(low * (1 - points) / 2)
    t, weights = torch.from_numpy(t), torch.from_numpy(-low / 2 * weights * t)
    values = torch.stack([chain.loss_by_data(model, noise.total(s).item())[tuple(x0)] for s in t])
    return (weights * noise.rate(t) * values).sum().item() / (1 - draws.FIRST)


@pytest.mark.parametrize("noise", [NOISE, Square()])
def test_weights_give_the_exact_integral(noise):
    """Every n, every subset of that size, and λ ~ Beta(n, L − n + 1) by quadrature: no chance."""
    model, x0 = table_model(), torch.tensor([0, 2, 1])
    points, weights = np.polynomial.legendre.leggauss(400)
    ends = noise.total(torch.tensor([draws.FIRST, 1.0], dtype=torch.float64))
    low, high = (-torch.expm1(-ends)).log().tolist()  # of log λ, where weights are not 0
    level = torch.from_numpy(np.exp((low + high) / 2 + (high - low) / 2 * points))
    weights = torch.from_numpy((high - low) / 2 * weights) * level  # dλ
    t = draws.time_at(noise, level)
    share, total = draws.shares(L), 0.0
    for n in range(1, L + 1):
        beta = level ** (n - 1) * (1 - level) ** (L - n) * math.factorial(L)
        beta /= math.factorial(n - 1) * math.factorial(L - n)
        weight = draws.importance(noise, torch.full((len(t),), n), t, share)
        for places in itertools.combinations(range(L), n):
            x = x0.clone()
            x[list(places)] = GRAPH.mask_id
            x = x.expand(len(t), L)
            loss = diffusion_weighted(model, GRAPH, x, noise.total(t), x0=x0.expand(len(t), L))
            value = (weights * beta * weight * noise.rate(t) * loss).sum()
            total += (share[n - 1] * value / math.comb(L, n)).item()
    assert_close(total, exact(noise, model, x0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("how", draws.DRAWS)
def test_draws_have_that_expectation(how):
    """200 000 draws, 4 standard errors: false alarm 1 in 16 000."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.tensor([0, 2, 1]).expand(200_000, L)
    x, t, weight = draws.noised(GRAPH, NOISE, x0, generator, how)
    assert [v.dtype for v in (x, t, weight)] == [torch.int64, torch.float32, torch.float32]
    values = diffusion_weighted(table_model(), GRAPH, x, NOISE.total(t), x0=x0)
    values = (weight * NOISE.rate(t)).double() * values
    error = values.std().item() / len(x0) ** 0.5
    assert abs(values.mean().item() - exact(NOISE, table_model(), x0[0])) < 4 * error


def test_what_is_drawn():
    """n has its shares, every position is hidden equally often, λ has the law Beta(n, L − n + 1).

    Each of 160 comparisons within 4.5 standard errors: false alarm 1 in 900.
    """
    num, length = 40_000, 32
    generator = torch.Generator().manual_seed(1)
    hidden, t, _ = draws.counted(NOISE, num, length, generator)
    n = hidden.sum(1)
    counts = torch.bincount(n, minlength=length + 1)[1:]
    assert (counts - num * draws.shares(length)).abs().max() < 2  # stratified: no chance in it
    level = -torch.expm1(-NOISE.total(t.double()))
    for k in range(1, length + 1):
        rows = n == k
        a, b = k, length - k + 1
        mean, second = a / (a + b), a * (a + 1) / (a + b) / (a + b + 1)
        error = math.sqrt((second - mean**2) / rows.sum())
        assert abs(level[rows].mean() - mean) < 4.5 * error + 1e-3  # 1e-3: t ends at 1
        by_place = hidden[rows].double().mean(0)
        error = math.sqrt(max(k / length * (1 - k / length), 0) / rows.sum())
        assert (by_place - k / length).abs().max() < 5.5 * error + 1e-9


def test_every_hidden_set_is_as_likely():
    """χ² of the 6 pairs of 4 positions, 5 degrees of freedom: above 30 once in 68 000."""
    hidden, _, _ = draws.counted(NOISE, 40_000, 4, torch.Generator().manual_seed(2))
    pairs = hidden[hidden.sum(1) == 2]
    which = (pairs * torch.tensor([1, 2, 4, 8])).sum(1)
    counts = torch.bincount(which)[[3, 5, 6, 9, 10, 12]].double()
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 30


def test_independent_draws_are_those_of_before():
    """Runs that began without the setting go on: times, then noise, from the same generator."""
    x0 = torch.randint(N, (16, 5), generator=torch.Generator().manual_seed(3))
    for graph in (GRAPH, UniformGraph(N)):
        for how in draws.DRAWS if graph is not GRAPH else ("independent",):
            x, t, weight = draws.noised(graph, NOISE, x0, torch.Generator().manual_seed(4), how)
            generator = torch.Generator().manual_seed(4)
            u = torch.rand(16, generator=generator, dtype=torch.float64)
            strata = torch.randperm(16, generator=generator)
            expected = (1e-3 + (1 - 1e-3) * (strata + u) / 16).float()
            assert torch.equal(t, expected)
            assert torch.equal(weight, torch.ones(16))
            noise = NOISE.total(expected)[:, None]
            assert torch.equal(x, graph.sample_transition(x0, noise, generator))


@pytest.mark.parametrize("how", draws.DRAWS)
def test_rows_do_not_depend_on_the_other_rows_data(how):
    """So each process can draw for the whole batch and needs to know only its own rows."""
    x0 = torch.randint(N, (8, 6), generator=torch.Generator().manual_seed(5))
    mine = torch.zeros_like(x0)
    mine[2:4] = x0[2:4]
    whole = draws.noised(GRAPH, NOISE, x0, torch.Generator().manual_seed(6), how)
    part = draws.noised(GRAPH, NOISE, mine, torch.Generator().manual_seed(6), how)
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[2:4], b[2:4])


def test_only_the_absorbing_graph_itself_is_counted():
    x0 = torch.zeros(4, L, dtype=torch.int64)
    for graph in (MatrixGraph.of(GRAPH), type("Mine", (AbsorbingGraph,), {})(N)):
        *_, weight = draws.noised(graph, NOISE, x0, torch.Generator().manual_seed(0), "counted")
        assert weight.eq(1).all()
    with pytest.raises(ValueError, match="draws='quasi': expected one of indep"):
        draws.noised(GRAPH, NOISE, x0, how="quasi")


def test_less_variance_at_equal_calls():
    """A network that knows nothing: a batch of 64 varies at least four times less."""
    length, spread = 32, {}
    graph, generator = AbsorbingGraph(40), torch.Generator().manual_seed(7)
    x0 = torch.zeros(64, length, dtype=torch.int64)
    for how in draws.DRAWS:
        losses = []
        for _ in range(100):
            x, t, weight = draws.noised(graph, NOISE, x0, generator, how)
            r = 1 / torch.expm1(NOISE.total(t))
            hidden = (x == graph.mask_id).sum(1)  # r ln N each
            losses.append((weight * NOISE.rate(t) * r * hidden).mean() * math.log(40) / length)
        spread[how] = torch.stack(losses).std().item()
    assert spread["counted"] < spread["independent"] / 4


def test_time_at_finds_the_time():
    t = torch.linspace(0, 1, 50, dtype=torch.float64)
    for noise in (NOISE, Square()):
        found = draws.time_at(noise, -torch.expm1(-noise.total(t)))
        assert_close(found, t, rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", draws.DRAWS)
def test_share_of_hidden_positions(how):
    """What utilisation counts: the mean over 8 192 draws, within 5 standard errors (p < 1e-6)."""
    generator, length = torch.Generator().manual_seed(0), 16
    x0 = torch.zeros(8192, length, dtype=torch.int64)
    x = draws.noised(GRAPH, NOISE, x0, generator, how)[0]
    shares = (x == GRAPH.mask_id).double().mean(1)
    error = shares.std() / len(shares) ** 0.5
    assert abs(shares.mean() - draws.hidden_share(how, length)) < 5 * error
