"""What the losses promise: exact values, and minimisers that are the true ratios.

Each is minimised as a table, one free number for each state and each neighbour, on chains small
enough to take the expectation exactly. A loss that is wrong in a sign, a weight or an index ends
elsewhere; a deliberately biased one shows that the test would notice.
"""

import math

import pytest
import torch
from worlds import random_chain, random_graph

from sedd_mini import AbsorbingGraph, GeometricNoise, UniformGraph, baselines, losses
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.noise import CosineNoise
from sedd_mini.worlds.ctmc import Chain, log_quadrature

SIGMA = 0.7
CHAINS = {
    "uniform 3²": random_chain(UniformGraph(3), 2, seed=1),
    "uniform 5": random_chain(UniformGraph(5), 1, seed=2),
    "uniform 2³": random_chain(UniformGraph(2), 3, seed=3),
    "absorbing 3²": random_chain(AbsorbingGraph(3), 2, seed=4),
    "absorbing 5": random_chain(AbsorbingGraph(5), 1, seed=5),
    "absorbing 2³": random_chain(AbsorbingGraph(2), 3, seed=6),
    "any 3² (a)": random_chain(random_graph(11, 3), 2, seed=7),
    "any 5 (b)": random_chain(random_graph(12, 5), 1, seed=8),
    "any 4² (c)": random_chain(random_graph(13, 4), 2, seed=9),
}
chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


def table_model(chain: Chain, table: torch.Tensor):
    """A network with one free output for each input; the id num_states ("hidden") has its rows."""
    base = chain.num_states + 1
    strides = base ** torch.arange(chain.length - 1, -1, -1)
    return lambda x, sigma: table[(x * strides).sum(-1)]


def random_table(chain: Chain, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    rows = (chain.num_states + 1) ** chain.length
    return torch.randn(rows, chain.length, chain.num_states, generator=g, dtype=torch.float64)


def minimise(chain: Chain, loss, seed: int) -> torch.Tensor:
    """The table that minimises E[loss], from a random start."""
    table = random_table(chain, seed).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [table], max_iter=5000, history_size=100, tolerance_grad=1e-13, tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = chain.expected_loss(loss, table_model(chain, table), SIGMA)
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(closure)
    return table.detach()


def dropping_unmoved(model, graph, x, sigma, x0=None, ratio=None):
    """Denoising score entropy that leaves out the positions which have not moved: biased."""
    r = losses.conditional_ratio(graph, x, sigma, x0)
    moved = (x != x0)[..., None]
    terms = losses.score_entropy_terms(model(x, sigma), r) * moved
    return losses.weighted_sum(graph.rates_into(x), terms)


SCORES = {  # loss → the way from its network to the score
    losses.score_entropy: baselines.score_of_log,
    losses.implicit_score_entropy: baselines.score_of_log,
    losses.denoising_score_entropy: baselines.score_of_log,
    losses.diffusion_weighted: baselines.score_of_log,
    baselines.concrete_score_matching: baselines.score_of_ratios,
    baselines.implicit_concrete_score_matching: baselines.score_of_ratios,
    baselines.denoising_concrete_score_matching: baselines.score_of_ratios,
    baselines.mean_prediction_elbo: baselines.score_of_mean,
    baselines.mean_prediction_cross_entropy: baselines.score_of_mean,
    baselines.ratio_matching: baselines.score_of_conditionals,
    dropping_unmoved: baselines.score_of_log,
}


def ratio_error(chain: Chain, loss, seed: int = 0) -> float:
    """The largest relative error of the minimiser's ratios, where weight and p(x) are positive."""
    table, n = minimise(chain, loss, seed), len(chain.states)
    levels = torch.full((n,), SIGMA, dtype=torch.float64)
    reachable = chain.marginal(SIGMA).flatten() > 0
    x = chain.states[reachable]
    score = SCORES[loss](table_model(chain, table), chain.graph, x, levels[reachable])
    true = chain.scores(SIGMA)[reachable]
    counts = (chain.graph.rates_into(x) > 0) & (true > 0)
    return ((score - true).abs() / true)[counts].max().item()


@pytest.mark.parametrize("loss", [k for k in SCORES if k is not dropping_unmoved],
                         ids=lambda f: f.__name__)  # fmt: skip
@chains
def test_the_minimiser_is_the_true_ratio(chain, loss):
    assert ratio_error(chain, loss) < 1e-5


@pytest.mark.parametrize("name", ["uniform 3²", "any 3² (a)", "any 5 (b)"])
def test_a_biased_loss_is_caught(name):
    assert ratio_error(CHAINS[name], dropping_unmoved) > 0.05


@chains
@pytest.mark.parametrize(
    "loss", [baselines.mean_prediction_elbo, baselines.mean_prediction_cross_entropy],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_mean_prediction_finds_the_posterior(chain, loss):
    known = isinstance(chain.graph, UniformGraph | AbsorbingGraph)
    if loss is baselines.mean_prediction_elbo and not known:
        pytest.skip("few jumps lead into some states: several posteriors give the same ratios")
    table = minimise(chain, loss, seed=1)
    x = chain.states[chain.marginal(SIGMA).flatten() > 0]
    levels = torch.full((len(x),), SIGMA, dtype=torch.float64)
    found = baselines.log_mean(table_model(chain, table), chain.graph, x, levels).exp()
    true = chain.posterior(SIGMA)[chain.index(x)]
    if loss is baselines.mean_prediction_elbo:  # only weighted ratios determine it
        seen = (chain.graph.rates_into(x) > 0).any(-1)
        found, true = found[seen], true[seen]
    torch.testing.assert_close(found, true, rtol=1e-5, atol=1e-12)


@chains
def test_score_entropies_differ_by_constants_only(chain):
    """The three forms at two tables: equal differences; and the given-ratio form is ≥ 0."""
    one, two = (table_model(chain, random_table(chain, seed)) for seed in (1, 2))
    differences = []
    for loss in (losses.score_entropy, losses.implicit_score_entropy,
                 losses.denoising_score_entropy, losses.diffusion_weighted):  # fmt: skip
        a, b = (chain.expected_loss(loss, model, SIGMA) for model in (one, two))
        differences.append((a - b).item())
    assert differences == pytest.approx([differences[0]] * 4, rel=1e-9)
    assert chain.expected_loss(losses.score_entropy, one, SIGMA) > 0
    exact = chain.expected_loss(losses.score_entropy, lambda x, s: chain.scores(SIGMA).clamp(
        min=1e-300).log()[chain.index(x)], SIGMA)  # fmt: skip
    assert abs(exact.item()) < 1e-10


@chains
def test_squared_losses_differ_by_constants_only(chain):
    one, two = (table_model(chain, random_table(chain, seed)) for seed in (1, 2))
    differences = []
    for loss in (baselines.concrete_score_matching, baselines.implicit_concrete_score_matching,
                 baselines.denoising_concrete_score_matching):  # fmt: skip
        a, b = (chain.expected_loss(loss, model, SIGMA) for model in (one, two))
        differences.append((a - b).item())
    assert differences == pytest.approx([differences[0]] * 3, rel=1e-9)


@pytest.mark.parametrize("name", ["uniform 3²", "absorbing 3²", "any 4² (c)"])
def test_the_closed_form_is_the_denoising_loss_sample_by_sample(name):
    chain, g = CHAINS[name], torch.Generator().manual_seed(0)
    model = table_model(chain, random_table(chain, 3))
    x0 = chain.sample_data(500, g)
    sigma = torch.rand(500, generator=g, dtype=torch.float64) * 3 + 0.01
    x = chain.graph.sample_transition(x0, sigma[:, None], g)
    naive = losses.denoising_score_entropy(model, chain.graph, x, sigma, x0=x0)
    closed = losses.diffusion_weighted(model, chain.graph, x, sigma, x0=x0)
    assert naive.shape == (500,)
    torch.testing.assert_close(naive, closed, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["uniform 3²", "absorbing 3²"])
def test_mean_prediction_in_dwdse_is_dwdse_of_its_score(name):
    chain, g = CHAINS[name], torch.Generator().manual_seed(0)
    model, levels = table_model(chain, random_table(chain, 4)), torch.full((300,), 0.5).double()
    x0 = chain.sample_data(300, g)
    x = chain.graph.sample_transition(x0, levels[:, None], g)
    as_score = lambda x, sigma: baselines.score_of_mean(  # noqa: E731
        model, chain.graph, x, sigma).clamp(min=1e-30).log()  # fmt: skip
    torch.testing.assert_close(
        baselines.mean_prediction_elbo(model, chain.graph, x, levels, x0=x0),
        losses.diffusion_weighted(as_score, chain.graph, x, levels, x0=x0),
    )


def test_ratio_matching_hides_the_token_it_predicts():
    seen = []

    def model(x, sigma):
        seen.append(x)
        return torch.zeros(*x.shape, 3)

    x = torch.tensor([[0, 1], [2, 2]])
    baselines.ratio_matching(model, UniformGraph(3), x, torch.ones(2))
    assert torch.cat(seen).tolist() == [[3, 1], [0, 3], [3, 2], [2, 3]]


def test_training_loss_estimates_the_integral_over_time():
    """Its mean over uniform t is ∫ E[DWDSE] dσ̄; 5 standard errors, false-alarm rate 6e-7."""
    chain, noise, g = CHAINS["uniform 3²"], GeometricNoise(1e-3, 5.0), torch.Generator()
    model = table_model(chain, random_table(chain, 5))
    data = chain.sample_data(40_000, g.manual_seed(0))
    t = torch.rand(40_000, generator=g, dtype=torch.float64)
    values = losses.training_loss(model, chain.graph, noise, data, t, generator=g)
    exact = sum(
        w * (chain.p0 * chain.loss_by_data(model, s)).sum().item()
        for s, w in zip(*log_quadrature(1e-3, 5.0, 60), strict=True)
    )
    assert abs(values.mean() - exact) < 5 * values.std() / 200


def test_training_loss_takes_the_noisy_tokens_that_were_drawn():
    chain, noise, g = CHAINS["absorbing 3²"], CosineNoise(), torch.Generator()
    model, x0 = table_model(chain, random_table(chain, 5)), chain.sample_data(50, g.manual_seed(0))
    t = torch.rand(50, generator=g, dtype=torch.float64)
    drawn = losses.training_loss(model, chain.graph, noise, x0, t, generator=g.manual_seed(1))
    x = chain.graph.sample_transition(x0, noise.total(t)[:, None], g.manual_seed(1))
    given = losses.training_loss(model, chain.graph, noise, x0, t, x)
    assert torch.equal(given, drawn)
    by_hand = noise.rate(t) * losses.diffusion_weighted(model, chain.graph, x, noise.total(t), x0)
    torch.testing.assert_close(given, by_hand)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.Generator()}, "int64 tensor, got Generator"),
        ({"x": torch.zeros(3, 2).long()}, r"x must have shape \(4, 2\), got \(3, 2\)"),
        ({"x": torch.full((4, 2), 9)}, "must lie in"),
        ({"t": torch.ones(3)}, r"got \(4, 2\) and \(3,\)"),
        ({"t": torch.ones(4, 1)}, r"got \(4, 2\) and \(4, 1\)"),
        ({"t": torch.full((4,), 1.5)}, "time t must lie in"),
        ({"x0": torch.zeros(4).long()}, r"need tokens \(B, L\)"),
        ({"loss": lambda *a, **k: torch.ones(4, 2)}, r"shape \(4,\), got \(4, 2\)"),
        ({"loss": lambda *a, **k: torch.ones(())}, r"shape \(4,\), got \(\)"),
    ],
)
def test_training_loss_refuses_what_would_broadcast(change, message):
    arguments = {"x0": torch.zeros(4, 2).long(), "t": torch.full((4,), 0.5), **change}
    model = lambda x, sigma: torch.zeros(*x.shape, 3)  # noqa: E731
    with pytest.raises((ValueError, TypeError), match=message):
        losses.training_loss(model, UniformGraph(3), GeometricNoise(), **arguments)


def cross_entropy(model, graph, x, sigma, x0=None, ratio=None):
    """A user's loss: −log π of each hidden token over e^σ̄ − 1, for a head that gives log π."""
    hidden = x == graph.mask_id
    log_p = model(x, sigma).gather(-1, x0[..., None])[..., 0]
    return -torch.where(hidden, log_p, 0).sum(-1) / torch.expm1(sigma)


@pytest.mark.parametrize("time_conditioning", [True, False])
def test_masked_cross_entropy_is_score_entropy_of_a_normalised_head(time_conditioning):
    """Sample by sample at equal σ̄, with r = 1/(e^σ̄ − 1); and in λ = 1 − e^{−σ̄}, where the
    integrand is 1/λ (λ-DCE): dσ̄ r = dλ / λ."""
    g, graph, noise = torch.Generator().manual_seed(0), AbsorbingGraph(7), CosineNoise()
    torch.manual_seed(0)
    config = DiTConfig(7, length=5, width=16, num_blocks=1, num_heads=2, normalised=True,
                       time_conditioning=time_conditioning)  # fmt: skip
    model = DiffusionTransformer(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=g)

    def log_pi(x, sigma):
        scale = sigma + torch.log(-torch.expm1(-sigma))
        return model(x, sigma)[..., :7] + scale[:, None, None]

    x0 = torch.randint(7, (200, 5), generator=g)
    t = 0.01 + 0.99 * torch.rand(200, generator=g, dtype=torch.float64)
    sigma = noise.total(t)
    x = graph.sample_transition(x0, sigma[:, None], g)
    hidden = x == 7
    torch.testing.assert_close(log_pi(x, sigma)[hidden].exp().sum(-1), torch.ones(
        hidden.sum(), dtype=torch.float64))  # fmt: skip
    entropy = losses.training_loss(model, graph, noise, x0, t, x)
    found = losses.training_loss(log_pi, graph, noise, x0, t, x, loss=cross_entropy)
    torch.testing.assert_close(found, entropy, rtol=1e-10, atol=1e-10)
    in_head = losses.training_loss(
        model, graph, noise, x0, t, x, loss=losses.diffusion_weighted_in_head
    )
    torch.testing.assert_close(in_head, entropy, rtol=1e-10, atol=1e-10)

    u = t.clone().requires_grad_()
    (slope,) = torch.autograd.grad((-torch.expm1(-noise.total(u))).sum(), u)  # dλ/dt
    guess = log_pi(x, sigma).gather(-1, x0[..., None])[..., 0]
    by_share = -torch.where(hidden, guess, 0).sum(-1) * slope / -torch.expm1(-sigma)
    torch.testing.assert_close(by_share, entropy, rtol=1e-9, atol=1e-9)

    shifted = lambda x, sigma: model(x, sigma) + 0.5  # Z = √e: no longer normalised  # noqa: E731
    price = losses.training_loss(shifted, graph, noise, x0, t, x) - entropy
    r = hidden.sum(-1) * noise.rate(t) / torch.expm1(sigma)
    torch.testing.assert_close(price, r * (math.exp(0.5) - 1 - 0.5))


def test_missing_inputs_are_named():
    graph, x, sigma = UniformGraph(3), torch.zeros(1, 2).long(), torch.ones(1)
    model = lambda x, sigma: torch.zeros(*x.shape, 3)  # noqa: E731
    for loss, name in [
        (losses.score_entropy, "ratio"), (baselines.concrete_score_matching, "ratio"),
        (losses.denoising_score_entropy, "x0"), (losses.diffusion_weighted, "x0"),
        (baselines.mean_prediction_elbo, "x0"), (baselines.mean_prediction_cross_entropy, "x0"),
        (baselines.denoising_concrete_score_matching, "x0"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"{loss.__name__} needs {name}"):
            loss(model, graph, x, sigma)
    with pytest.raises(ValueError, match=r"ratio must have shape \(1, 2, 3\), got \(3,\)"):
        losses.score_entropy(model, graph, x, sigma, ratio=torch.ones(3))
    with pytest.raises(ValueError, match=r"x0 must have shape \(1, 2\), got \(1, 1\)"):
        losses.diffusion_weighted(model, graph, x, sigma, x0=x[:, :1])
    masked = AbsorbingGraph(3)
    with pytest.raises(ValueError, match="must be drawn from x0"):
        losses.denoising_score_entropy(
            lambda x, s: torch.zeros(*x.shape, 4), masked, torch.tensor([[1]]), sigma,
            x0=torch.tensor([[0]]),
        )  # fmt: skip
