"""The likelihood bound by Monte Carlo: unbiased, whole, with error bars that cover.

All seeds are fixed. A z-score beyond 4.5 has probability 7e-6 under the normal law; with the 30 or
so that are tested here, the chance that a correct program would have failed on the seeds as they
were picked is below 1 in 1000. Estimates are means of thousands of draws, so the normal law is a
fair one.
"""

import functools
import math

import numpy as np
import pytest
import torch
from worlds import pair_data

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, evaluate
from sedd_mini.evaluate import Bound, likelihood_bound, sample_sigma, times
from sedd_mini.losses import training_loss
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.worlds.ctmc import Chain, log_quadrature

N = 4
GRAPHS = {"uniform": UniformGraph(N), "absorbing": AbsorbingGraph(N)}
# Ends that hold much of the bound, so that leaving one out shows: σ̄ below 0.3; t below 0.2.
NOISES = {"geometric": GeometricNoise(0.3, 4.0), "log-linear": LogLinearNoise(0.02)}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
EPS = 0.2
EVERY = torch.cartesian_prod(torch.arange(N), torch.arange(N))  # each x0 once
TOO_FAR = 4.5  # standard errors


class Exact:
    """The true log-ratios of the data at any noise, many levels at once; `spoil` is added."""

    def __init__(self, graph, spoil: float = 0.0):
        self.graph, self.p0, self.spoil = graph, pair_data(N), spoil

    def __call__(self, x, sigma):
        every = torch.arange(N).expand(len(x), -1)
        kernel = self.graph.transition_probs(every, sigma.double()[:, None])  # (B, N, S)
        log_p = torch.einsum("bia,bjc,ij->bac", kernel, kernel, self.p0).log()  # (B, S, S)
        row = torch.arange(len(x))
        here = log_p[row, x[:, 0], x[:, 1]][:, None, None]
        out = torch.stack([log_p[row, :, x[:, 1]], log_p[row, x[:, 0]]], 1) - here  # (B, 2, S)
        return out + self.spoil * torch.sin(torch.arange(out.shape[-1]) + sigma[:, None, None])


@functools.cache
def exact_bound(graph, noise, spoil=0.0) -> float:
    """The mean over every x0, by quadrature."""
    chain = Chain(graph, pair_data(N))
    sigma_max = noise.total(torch.tensor(1.0, dtype=torch.float64)).item()
    return chain.bound(Exact(graph, spoil), sigma_max, nodes=80).mean().item()


def estimate(graph, noise, model, seed=0, repeats=32, times_each=32, **options) -> Bound:
    g = torch.Generator().manual_seed(seed)
    return likelihood_bound(
        model, graph, noise, EVERY, repeats=repeats, times_each=times_each, batch_size=4096,
        generator=g, eps=EPS, **options,
    )  # fmt: skip


def z_score(graph, noise, spoil=0.0, **options) -> float:
    found = estimate(graph, noise, Exact(graph, spoil), **options)
    return (found.nats - exact_bound(graph, noise, spoil)) / found.error


def test_the_exact_model_of_these_tests_is_the_oracle_s():
    for graph in GRAPHS.values():
        chain, model = Chain(graph, pair_data(N)), Exact(graph)
        x = chain.states
        sigma = torch.linspace(0.1, 3, len(x), dtype=torch.float64)
        torch.testing.assert_close(model(x, sigma), chain.log_score(x, sigma))


# ---- unbiased, and whole -------------------------------------------------------------------------


@graphs
@noises
@pytest.mark.parametrize("spoil", [0.0, 0.7], ids=["exact", "wrong"])
@pytest.mark.parametrize("stratified", [True, False], ids=["stratified", "independent"])
def test_unbiased_against_the_oracle(graph, noise, spoil, stratified):
    assert abs(z_score(graph, noise, spoil, stratified=stratified)) < TOO_FAR


@graphs
@noises
def test_exact_scores_give_the_likelihood_up_to_the_base(graph, noise):
    """With p_base = p_T it is −log p0; with the graph's own, that plus what the bases differ by."""
    chain = Chain(graph, pair_data(N))
    sigma_max = noise.total(torch.tensor(1.0, dtype=torch.float64)).item()
    own = chain.prior_kl(sigma_max, chain.marginal(sigma_max).log())
    prior = 2 * graph.prior_kl(torch.tensor(sigma_max).double())
    truth = (-pair_data(N).log() - own + prior).mean()
    found = estimate(graph, noise, Exact(graph))
    assert abs(found.nats - truth) < TOO_FAR * found.error
    assert found.prior == pytest.approx(chain.prior_kl(sigma_max).mean().item(), abs=1e-9)


def no_end(noise, u, eps):
    """As in training: t ∈ [eps, 1] only."""
    t = eps + (1 - eps) * u
    return noise.total(t), (1 - eps) * noise.rate(t)


def end_of_t_only(noise, u, eps):
    """t ∈ [0, 1]: all of it for log-linear noise; geometric noise still lacks [0, σ_min]."""
    return noise.total(u), noise.rate(u)


def unshared(noise, u, eps):
    """Both parts weighed as if all the draws were theirs."""
    sigma, weight = sample_sigma(noise, u, eps)
    return sigma, weight * torch.where(u < 1 / 8, 1 / 8, 7 / 8)


def no_rate(noise, u, eps):
    sigma, weight = sample_sigma(noise, u, eps)
    return sigma, torch.where(u < 1 / 8, weight, weight / noise.rate(torch.tensor(0.5).double()))


@graphs
@noises
@pytest.mark.parametrize("mistake", [no_end, end_of_t_only, unshared, no_rate])
def test_the_same_test_catches_mistakes(graph, noise, mistake, monkeypatch):
    if mistake is end_of_t_only and noise is NOISES["log-linear"]:
        pytest.skip("no mistake: log-linear noise starts at 0")
    monkeypatch.setattr(evaluate, "sample_sigma", mistake)
    assert abs(z_score(graph, noise)) > TOO_FAR


def test_the_prior_is_in_the_number():
    graph, noise = GRAPHS["absorbing"], NOISES["log-linear"]
    free = AbsorbingGraph(N)
    free.prior_kl = lambda sigma: torch.zeros(())
    with_prior, without = (estimate(g, noise, Exact(g), repeats=2) for g in (graph, free))
    assert without.prior == 0
    assert with_prior.prior == pytest.approx(2 * 0.02 * math.log(N))
    assert with_prior.nats - without.nats == pytest.approx(with_prior.prior)


@noises
@pytest.mark.parametrize("share", [1 / 8, 1 / 2])
def test_weights_integrate_over_all_noise_levels(noise, share):
    """∫ f dσ̄ over [lowest, σ̄(1)] by a fine grid of u, for f with structure at every scale."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    sigma, weight = sample_sigma(noise, u, EPS, share=share)
    most = noise.total(torch.tensor(1.0, dtype=torch.float64)).item()
    assert sigma.min() > 0.99e-9
    assert sigma.max() < most * 1.0001
    for power in (0.0, -0.5, -0.9, 1.0):
        found = (weight * sigma**power).mean().item()
        levels, weights = log_quadrature(1e-9, most, 100)
        assert found == pytest.approx(
            sum(w * s**power for s, w in zip(levels, weights, strict=True)), rel=1e-4
        )


# ---- error bars ----------------------------------------------------------------------------------


@graphs
def test_error_bars_cover(graph):
    """Student's t with 7 degrees of freedom: 64.9 % within one bar, 91.4 % within two.

    80 estimates; the limits are 4 standard deviations of the count away (a false alarm in 16 000
    each), and 3 % more for draws that are not normal.
    """
    noise, model = NOISES["log-linear"], Exact(graph, 0.7)
    truth, inside = exact_bound(graph, noise, 0.7), torch.zeros(2)
    for seed in range(80):
        found = estimate(graph, noise, model, seed=seed, repeats=8, times_each=8)
        off = abs(found.nats - truth) / found.error
        inside += torch.tensor([off < 1, off < 2])
    for count, promised in zip((inside / 80).tolist(), (0.649, 0.914), strict=True):
        assert abs(count - promised) < 4 * math.sqrt(promised * (1 - promised) / 80) + 0.03


def test_stratified_times_narrow_the_error_bar():
    """64 tokens share one t: most of the chance lies between the values of t, and strata take it.

    Untrained log-scores of 0 on evenly drawn tokens are exact here. The ratio of two standard
    errors from 200 repeats has itself an error of about 7 %; the true one is above 2.
    """
    graph, noise = UniformGraph(8), GeometricNoise()
    x0 = torch.randint(8, (32, 64), generator=torch.Generator().manual_seed(0))

    def error(stratified):
        return likelihood_bound(
            lambda x, sigma: torch.zeros(*x.shape, 8), graph, noise, x0, repeats=200,
            generator=torch.Generator().manual_seed(1), stratified=stratified,
        ).error  # fmt: skip

    assert error(False) > 1.6 * error(True)


def test_times():
    g = torch.Generator().manual_seed(0)
    t = times(1000, g)
    assert t.dtype == torch.float64
    assert torch.equal((t * 1000).floor().sort().values, torch.arange(1000.0).double())
    assert not torch.equal(t, t.sort().values)  # shuffled: rank in the batch says nothing of t
    free = times(1000, g, stratified=False)
    assert len((free * 1000).floor().unique()) < 750  # 1 − 1/e of the strata are hit
    first = torch.stack([times(8, g)[0] for _ in range(4000)])  # each value alone is uniform
    assert abs(first.mean() - 0.5) < 4.5 / math.sqrt(12 * 4000)
    assert abs(first.square().mean() - 1 / 3) < 4.5 * math.sqrt(4 / 45 / 4000)


def test_training_loss_is_the_integral_over_t():
    """Uniform t in [0, 1] reaches σ̄(0) to σ̄(1); the library's bound adds what lies below."""
    graph, noise, model = GRAPHS["uniform"], NOISES["geometric"], Exact(GRAPHS["uniform"], 0.7)
    g = torch.Generator().manual_seed(0)
    x0 = EVERY.repeat(1000, 1)
    values = training_loss(model, graph, noise, x0, times(16_000, g), generator=g)
    chain, (levels, weights) = Chain(graph, pair_data(N)), log_quadrature(0.3, 4.0, 40)
    truth = sum(
        w * chain.loss_by_data(model, s) for s, w in zip(levels, weights, strict=True)
    ).mean()
    assert abs(values.mean() - truth) < TOO_FAR * values.std() / math.sqrt(len(values))


# ---- what is reported ----------------------------------------------------------------------------


def test_reproducible_and_right_at_any_batch_size():
    graph, noise, model = GRAPHS["absorbing"], NOISES["log-linear"], Exact(GRAPHS["absorbing"])
    one, two = (estimate(graph, noise, model, repeats=4) for _ in range(2))
    assert one == two
    assert estimate(graph, noise, model, seed=1, repeats=4) != one
    small = likelihood_bound(
        model, graph, noise, EVERY, repeats=8, times_each=8, batch_size=7, eps=EPS,
        generator=torch.Generator().manual_seed(3),
    )  # fmt: skip
    assert abs(small.nats - exact_bound(graph, noise)) < 9 * small.error  # t, 7 degrees: 4e-5


@graphs
def test_numbers_of_numpy_are_numbers(graph):
    noise, model = NOISES["geometric"], Exact(graph)
    found = [
        likelihood_bound(model, graph, noise, EVERY, kind(2), kind(3), kind(7),
                         torch.Generator().manual_seed(0), eps=real(0.1))
        for kind, real in ((int, float), (np.int64, np.float64))
    ]  # fmt: skip
    assert found[0] == found[1]


def test_untrained_absorbing_model_pays_log_n_for_every_token():
    """Guessing evenly, the whole bound is L log N: the prior term is just what DWDSE lacks."""
    graph, noise = AbsorbingGraph(50), LogLinearNoise()

    def model(x, sigma):
        flat = -(sigma.expm1().log() + math.log(50))[:, None, None]
        return flat.expand(*x.shape, 51)

    x0 = torch.randint(50, (8, 256), generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    found = likelihood_bound(model, graph, noise, x0, repeats=16, times_each=8, generator=g)
    assert abs(found.nats - 256 * math.log(50)) < TOO_FAR * found.error
    assert found.error < 0.02 * found.nats
    assert found.prior == pytest.approx(256 * 1e-3 * math.log(50), rel=1e-4)
    assert found.length == 256


def test_units():
    bound = Bound(nats=20 * math.log(2), error=0.5, prior=0.1, length=10)
    assert bound.bits_per_token == pytest.approx(2)
    assert bound.perplexity == pytest.approx(4)
    assert str(bound) == "≤ 1.3863 ± 0.0500 nats a token (perplexity ≤ 4.00)"
    assert bound.bits_per_character is None
    text = Bound(nats=20 * math.log(2), error=0.5, prior=0.1, length=10, characters=40)
    assert text.bits_per_character == pytest.approx(0.5)
    assert str(text) == f"{bound}, 0.5000 bits a character"
    assert bound.bits_per(40) == text.bits_per_character
    for bad in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="characters must be a whole number, at least 1"):
            bound.bits_per(bad)


def test_draws_are_what_the_error_bar_is_made_of():
    found = estimate(GRAPHS["absorbing"], NOISES["log-linear"], Exact(GRAPHS["absorbing"]))
    draws = torch.tensor(found.draws, dtype=torch.float64)
    assert found.nats == pytest.approx(draws.mean().item())
    assert found.error == pytest.approx(draws.std().item() / math.sqrt(32))


def test_dropout_has_no_part_in_the_bound():
    graph, noise, x0 = AbsorbingGraph(5), LogLinearNoise(), torch.zeros(4, 6, dtype=torch.int64)
    config = DiTConfig(5, length=6, width=8, num_blocks=1, num_heads=2, dropout=0.5)
    model = DiffusionTransformer(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(1))
    bounds = []
    for training in (False, True):
        model.train(training)
        generator = torch.Generator().manual_seed(0)
        bounds.append(likelihood_bound(model, graph, noise, x0, generator=generator).nats)
        assert model.training == training
    assert bounds[0] == bounds[1]


def test_a_hopeless_bound_is_printed_too():
    assert "perplexity ≤ inf" in str(Bound(1e6, 1.0, 0.0, 100))


def test_no_gradients_are_kept():
    weight = torch.zeros((), requires_grad=True)
    seen = []

    def model(x, sigma):
        seen.append(torch.is_grad_enabled())
        return weight + torch.zeros(*x.shape, N)

    estimate(GRAPHS["uniform"], NOISES["geometric"], model, repeats=2, times_each=1)
    assert seen
    assert not any(seen)


def test_errors():
    graph, noise, model = GRAPHS["uniform"], NOISES["geometric"], Exact(GRAPHS["uniform"])
    for option, bad, wanted in [
        ("repeats", (1, -8, 8.0, True, "8", math.nan), "a whole number, at least 2, got"),
        ("times_each", (0, -1, 1.5, None), "a whole number, at least 1, got"),
        ("batch_size", (0, -3, 64.0, False), "a whole number, at least 1, got"),
        ("eps", (0, 1, -0.1, math.nan, "x", True), "a number, above 0 and below 1, got"),
    ]:
        for value in bad:
            with pytest.raises(ValueError, match=f"^{option}.* must be {wanted}") as error:
                likelihood_bound(model, graph, noise, EVERY, **{option: value})
            assert "\n" not in str(error.value)
    with pytest.raises(TypeError, match="x0 must be an int64 tensor of tokens, got list"):
        likelihood_bound(model, graph, noise, [[0, 1]])
    with pytest.raises(TypeError, match=r"got torch.float32"):
        likelihood_bound(model, graph, noise, torch.zeros(1, 2))
    with pytest.raises(TypeError, match=r"must be a torch.Generator, got int"):
        likelihood_bound(model, graph, noise, EVERY, generator=0)
    with pytest.raises(ValueError, match=r"token ids must lie in \[0, 4\), got 0 to 4"):
        likelihood_bound(model, graph, noise, torch.tensor([[0, 4]]))
    with pytest.raises(ValueError, match=r"x0.*\(M, L\)"):
        likelihood_bound(model, graph, noise, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="with at least one row"):
        likelihood_bound(model, graph, noise, torch.zeros(0, 2, dtype=torch.int64))
    with pytest.raises(FloatingPointError, match="nan"):
        likelihood_bound(lambda x, s: model(x, s) * math.nan, graph, noise, EVERY)
    mask = torch.full((2, 2), N)
    with pytest.raises(ValueError, match=r"got 4 to 4 \(MASK is no data\)"):
        likelihood_bound(Exact(GRAPHS["absorbing"]), GRAPHS["absorbing"], noise, mask)
