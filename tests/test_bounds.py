"""One bound a sequence: unbiased for each, exact conditioning, paired differences, few calls.

Seeds are fixed, and limits are set as in test_evaluate.py.
"""

import functools
import math
from pathlib import Path

import pytest
import torch
from worlds import pair_data

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.evaluation import variance
from sedd_mini.evaluation.bounds import (
    at_positions,
    bounds,
    compare,
    every_position,
    in_head,
    total,
)
from sedd_mini.evaluation.variance import Counted, Guess, Levels
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.worlds.ctmc import Chain, log_quadrature

SHIPPED = Path(__file__).parents[1] / "chapters/checkpoints"
N = 4
GRAPHS = {"uniform": UniformGraph(N), "absorbing": AbsorbingGraph(N)}
# Ends that hold much of the bound, so that leaving one out shows: σ̄ below 0.3; λ above 0.8.
NOISES = {"geometric": GeometricNoise(0.3, 4.0), "log-linear": LogLinearNoise(0.2)}
graphs = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
EVERY = torch.cartesian_prod(torch.arange(N), torch.arange(N))  # each x0 once
TOO_FAR = 4.5  # standard errors


class Exact:
    """The true log-ratios of the data at any noise, many levels at once; `spoil` is added."""

    def __init__(self, graph, spoil: float = 0.0):
        self.graph, self.p0, self.spoil, self.seen = graph, pair_data(N), spoil, []

    def __call__(self, x, sigma, at=None):
        self.seen.append((x, sigma))
        every = torch.arange(N).expand(len(x), -1)
        kernel = self.graph.transition_probs(every, sigma.double()[:, None])  # (B, N, S)
        log_p = torch.einsum("bia,bjc,ij->bac", kernel, kernel, self.p0).log()  # (B, S, S)
        row = torch.arange(len(x))
        here = log_p[row, x[:, 0], x[:, 1]][:, None, None]
        out = torch.stack([log_p[row, :, x[:, 1]], log_p[row, x[:, 0]]], 1) - here  # (B, 2, S)
        out = out + self.spoil * torch.sin(torch.arange(out.shape[-1]) + sigma[:, None, None])
        return out if at is None else out[at]


def end(noise) -> float:
    return noise.total(torch.tensor(1.0, dtype=torch.float64)).item()


@functools.cache
def exact_bounds(graph, noise, spoil=0.0) -> torch.Tensor:
    """Of every x0, by quadrature, (N²,)."""
    return Chain(graph, pair_data(N)).bound(Exact(graph, spoil), end(noise), nodes=80).flatten()


def estimate(graph, noise, model, seed=0, repeats=32, times_each=32, x0=EVERY, given=None, **more):
    g = torch.Generator().manual_seed(seed)
    return bounds(model, graph, noise, x0, given, repeats, times_each, 4096, g, **more)


def z_scores(graph, noise, spoil=0.7, **options) -> torch.Tensor:
    """Of each x0 and, last, of their sum: (N² + 1,)."""
    found = estimate(graph, noise, Exact(graph, spoil), **options)
    found.append(total(found))
    truth = exact_bounds(graph, noise, spoil)
    truth = [*truth.tolist(), truth.sum().item()]
    return torch.tensor([(b.nats - t) / b.error for b, t in zip(found, truth, strict=True)])


# ---- unbiased ------------------------------------------------------------------------------------


@graphs
@noises
@pytest.mark.parametrize("spoil", [0.0, 0.7], ids=["exact", "wrong"])
def test_each_is_unbiased_against_the_oracle(graph, noise, spoil):
    z = z_scores(graph, noise, spoil)
    assert abs(z[-1]) < TOO_FAR
    assert z[:-1].abs().max() < 5  # t, 31 degrees: 16 of them, 4e-4
    assert 0.3 < z[:-1].square().mean() < 2.2


def no_cut(monkeypatch):
    """As if λ went up to 1."""
    make = Counted.__init__

    def change(self, *rest):
        make(self, *rest)
        self.mass = self.mass / self.enough[self.which, 1, None, None]
        self.enough = (self.share.flip(1).cumsum(1).flip(1) > 0).double()

    monkeypatch.setattr(Counted, "__init__", change)


def own_noise(monkeypatch):
    """The guess has seen the draws that it is subtracted from."""
    learn, replaced = Guess.learn, Guess.replaced
    monkeypatch.setattr(Guess, "replaced", lambda s, *a: (learn(s, *a), replaced(s, *a))[1])
    monkeypatch.setattr(variance, "ROWS", 1e-3)


def other_chance(monkeypatch):
    """A token that is drawn anew may be the same again: forgotten."""
    monkeypatch.setattr(Levels, "chance", lambda self, sigma: -torch.expm1(-sigma))


def no_mass(monkeypatch):
    replaced = Guess.replaced

    def change(self, *rest):
        self.mass = 0 * self.mass
        return replaced(self, *rest)

    monkeypatch.setattr(Guess, "replaced", change)


def one_weight(monkeypatch):
    draw = Levels.draw
    monkeypatch.setattr(Levels, "draw", lambda *a: draw(*a)._replace(weight=torch.ones(512)))


@pytest.mark.parametrize(("name", "mistake"), [
    ("absorbing", no_cut), ("absorbing", no_mass), ("uniform", no_mass), ("uniform", one_weight),
    ("uniform", other_chance),
])  # fmt: skip
def test_the_same_test_catches_mistakes(name, mistake, monkeypatch):
    mistake(monkeypatch)
    assert abs(z_scores(GRAPHS[name], NOISES["log-linear"])[-1]) > TOO_FAR


def test_a_guess_from_its_own_draws_is_caught(monkeypatch):
    """Few draws, so that a guess fits them: 200 estimates from one draw a sequence and repeat."""
    graph, noise = GRAPHS["absorbing"], NOISES["log-linear"]
    model = Exact(graph, 0.7)
    truth = exact_bounds(graph, noise, 0.7)[:3].sum().item()

    def z_score():
        sums = [
            total(estimate(graph, noise, model, seed, 2, 1, EVERY[:3])).nats for seed in range(200)
        ]
        sums = torch.tensor(sums, dtype=torch.float64)
        return (sums.mean().item() - truth) / (sums.std().item() / math.sqrt(200))

    assert abs(z_score()) < TOO_FAR
    own_noise(monkeypatch)
    assert abs(z_score()) > TOO_FAR


def test_any_other_graph_goes_without_a_guess():
    class Own(UniformGraph):
        pass

    graph, noise = Own(N), NOISES["geometric"]
    truth = exact_bounds(GRAPHS["uniform"], noise, 0.7).sum().item()
    found = total(estimate(graph, noise, Exact(graph, 0.7)))
    assert abs(found.nats - truth) < TOO_FAR * found.error


@noises
def test_levels_integrate_over_all_noise(noise):
    """∫ f dσ̄ over (0, σ̄(1)] by a fine grid of places, for f with structure at every scale."""
    levels = Levels(GRAPHS["uniform"], noise, torch.ones(1, 2, dtype=torch.bool))
    sigma, weight = levels.level((torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000)
    assert sigma.max() < end(noise) * 1.0001
    for power in (0.0, 1.0, 0.5):
        points, weights = log_quadrature(1e-12, end(noise), 100)
        truth = sum(w * s**power for s, w in zip(points, weights, strict=True))
        assert (weight * sigma**power).mean().item() == pytest.approx(truth, rel=1e-5)


@graphs
def test_error_bars_cover(graph):
    """As in test_evaluate.py, of the sum of all x0 and of one of them."""
    noise, model = NOISES["log-linear"], Exact(graph, 0.7)
    truth, inside = exact_bounds(graph, noise, 0.7), torch.zeros(2, 2)
    for seed in range(80):
        found = estimate(graph, noise, model, seed=seed, repeats=8, times_each=4)
        for i, (bound, true) in enumerate([(total(found), truth.sum()), (found[3], truth[3])]):
            off = abs(bound.nats - true) / bound.error
            inside[i] += torch.tensor([off < 1, off < 2])
    for counts in (inside / 80).tolist():
        for count, promised in zip(counts, (0.649, 0.914), strict=True):
            assert abs(count - promised) < 4 * math.sqrt(promised * (1 - promised) / 80) + 0.03


# ---- given ---------------------------------------------------------------------------------------


@noises
@pytest.mark.parametrize("spoil", [0.0, 0.7], ids=["exact", "wrong"])
def test_given_is_the_bound_of_the_conditional_law(noise, spoil):
    """The first token is known: the rest is a chain of one token that follows p(· | first)."""
    graph = GRAPHS["absorbing"]
    p0, first = pair_data(N), torch.tensor([True, False])
    found = estimate(graph, noise, Exact(graph, spoil), given=first)
    truth = []
    for row in p0 / p0.sum(1, keepdim=True):
        chain = Chain(graph, row)

        def model(x, sigma, chain=chain):
            out = chain.log_score(x, sigma)
            return out + spoil * torch.sin(torch.arange(N + 1) + sigma[:, None, None])

        truth += chain.bound(model, end(noise), nodes=80).tolist()
    if not spoil:  # a hidden token costs the same at every level: nothing is left to chance
        assert [b.nats for b in found] == pytest.approx(truth, abs=1e-6)
        return
    z = torch.tensor([(b.nats - t) / b.error for b, t in zip(found, truth, strict=True)])
    assert z.abs().max() < 5
    assert 0.3 < z.square().mean() < 2.2
    assert {b.length for b in found} == {1}
    assert found[0].prior == pytest.approx(math.exp(-end(noise)) * math.log(N))


def test_given_tokens_are_never_hidden():
    graph, model = GRAPHS["absorbing"], Exact(GRAPHS["absorbing"])
    given = torch.rand(16, 2, generator=torch.Generator().manual_seed(0)) < 0.4
    given[given.all(1)] = False
    found = estimate(graph, NOISES["log-linear"], model, given=given, repeats=4)
    assert [b.length for b in found] == (~given).sum(1).tolist()
    known = torch.cat([given.repeat_interleave(32, 0)] * 5)  # of all calls, in order
    x = torch.cat([x for x, _ in model.seen])
    assert not (x == N)[known].any()
    assert (x == N)[~known].any()


# ---- two models ----------------------------------------------------------------------------------


@graphs
def test_compare_is_paired(graph):
    """Two models on one noise: the error of the difference is far below that of either."""
    noise = NOISES["log-linear"]
    a, b = (estimate(graph, noise, Exact(graph, s), repeats=64, times_each=4) for s in (0.7, 0.6))
    difference, error = compare(a, b)
    truth = (exact_bounds(graph, noise, 0.7) - exact_bounds(graph, noise, 0.6)).mean().item()
    assert abs(difference - truth) < TOO_FAR * error
    assert error < 0.5 * math.hypot(total(a).error, total(b).error) / len(EVERY)
    assert compare(b, a) == (-difference, error)
    assert difference == pytest.approx((total(a).nats - total(b).nats) / len(EVERY))
    assert compare([total(a)], [total(b)])[1] == pytest.approx(error * len(EVERY))
    c = estimate(graph, noise, Exact(graph, 0.6), seed=1, repeats=64, times_each=4)
    assert compare(a, c)[1] > 1.5 * error  # other noise


def test_compare_wants_the_same_draws():
    parts = GRAPHS["uniform"], NOISES["geometric"], Exact(GRAPHS["uniform"])
    a, b = (estimate(*parts, x0=EVERY[:1], repeats=r, times_each=1) for r in (2, 3))
    for one, two, wanted in [
        (a, a * 2, "the lists are of 1 and 2 bounds"),
        (a, b, r"same number of draws, at least 2, got \[2, 3\]"),
        ([], [], r"got \[\]"),
    ]:
        with pytest.raises(ValueError, match=wanted):
            compare(one, two)


@graphs
def test_noise_depends_on_the_seed_alone(graph):
    """Not on the model, nor on how many sequences it is called with at once."""
    seen = []
    for spoil, size in ((0.0, 4096), (0.7, 7)):
        model = Exact(graph, spoil)
        g = torch.Generator().manual_seed(0)
        found = bounds(model, graph, NOISES["geometric"], EVERY, None, 2, 3, size, g)
        seen.append([torch.cat(parts) for parts in zip(*model.seen, strict=True)])
        if spoil == 0:
            again = estimate(graph, NOISES["geometric"], Exact(graph), repeats=2, times_each=3)
            assert found == again
    for one, two in zip(*seen, strict=True):
        assert torch.equal(one, two)


# ---- few calls -----------------------------------------------------------------------------------


@graphs
def test_a_sequence_s_own_noise_is_small(graph):
    """64 tokens, evenly drawn and guessed: nothing is left to chance but how often they go."""
    x0 = torch.randint(8, (4, 64), generator=torch.Generator().manual_seed(0))
    graph, noise = type(graph)(8), LogLinearNoise()
    g = torch.Generator().manual_seed(1)

    def model(x, sigma):
        flat = -(sigma.expm1().log() + math.log(8))[:, None, None] if graph.mask_id else 0
        return flat + torch.zeros(*x.shape, graph.num_states)

    found = total(bounds(model, graph, noise, x0, None, 64, generator=g))
    plain = likelihood_bound(model, graph, noise, x0, 64, generator=g)
    assert abs(found.nats / 4 - plain.nats) < 5 * plain.error
    assert found.error / 4 < 0.3 * plain.error


def test_progress_is_told():
    told = []
    estimate(GRAPHS["uniform"], NOISES["geometric"], Exact(GRAPHS["uniform"]), repeats=2,
             times_each=3, callback=lambda *numbers: told.append(numbers))  # fmt: skip
    assert told == [(48, 144), (96, 144), (144, 144)]


# ---- the terms -----------------------------------------------------------------------------------


@graphs
def test_the_three_terms_are_one(graph):
    """And `at_positions` asks for masked positions alone."""
    exact, asked = Exact(graph), []

    def model(x, sigma, at):
        asked.append(at)
        return exact(x, sigma)[at]

    g = torch.Generator().manual_seed(0)
    x0, sigma = EVERY.repeat(20, 1), torch.rand(320, generator=g) + 0.1
    x = graph.sample_transition(x0, sigma[:, None], g)
    found = at_positions(model, graph, x, sigma, x0)
    torch.testing.assert_close(found, every_position(exact, graph, x, sigma, x0))
    (at,) = asked
    assert torch.equal(at, x == graph.mask_id if graph.mask_id else torch.ones_like(at))
    if graph.mask_id:
        assert not at_positions(model, graph, x0, sigma, x0).any()
        assert len(asked) == 1  # nothing is hidden: no call
    network = DiffusionTransformer(DiTConfig(N, graph.mask_id is not None, length=2, width=8,
                                             num_blocks=1, num_heads=2))  # fmt: skip
    torch.nn.init.normal_(network.output_layer.linear.weight)
    one, two, three = (f(network, graph, x, sigma, x0).detach()
                       for f in (every_position, in_head, at_positions))  # fmt: skip
    torch.testing.assert_close(one, two)
    torch.testing.assert_close(one, three)
    assert one.any()


def test_a_model_is_left_as_it_was():
    graph = GRAPHS["absorbing"]
    network = DiffusionTransformer(
        DiTConfig(N, length=2, width=8, num_blocks=1, num_heads=2, dropout=0.5)
    )
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=torch.Generator().manual_seed(1))
    found = []
    for training in (False, True):
        network.train(training)
        found.append(estimate(graph, NOISES["log-linear"], network, repeats=2, times_each=1))
        assert network.training == training
    assert found[0] == found[1]


def test_errors():
    graph, noise = GRAPHS["absorbing"], NOISES["log-linear"]
    model = Exact(graph)

    def wrong(error, wanted, x0=EVERY, given=None, graph=graph, model=model, **options):
        with pytest.raises(error, match=wanted) as caught:
            bounds(model, graph, noise, x0, given, **options)
        assert "\n" not in str(caught.value)

    for name, bad, least in (("repeats", 1, 2), ("times_each", 0, 1), ("batch_size", 2.0, 1)):
        wrong(ValueError, f"^{name}.* must be a whole number, at least {least}", **{name: bad})
    wrong(TypeError, "sequences must be an int64 tensor of tokens, got list", x0=[[0, 1]])
    wrong(ValueError, r"sequences must be \(M, L\)", x0=torch.tensor([0, 1]))
    wrong(ValueError, r"got 0 to 4 \(MASK is no data\)", x0=torch.tensor([[0, 4]]))
    wrong(TypeError, "generator must be a torch.Generator, got int", generator=0)
    wrong(TypeError, "model must be a function", model=None)
    wrong(FloatingPointError, "not finite", model=lambda x, s: model(x, s) * math.nan)
    mask = torch.tensor([True, False])
    wrong(ValueError, "needs an AbsorbingGraph", given=mask, graph=GRAPHS["uniform"])
    for bad in (torch.tensor([1, 0]), mask[:1], mask[None].repeat(3, 1), "a", [[True], []]):
        wrong(ValueError, r"given must be a bool mask \(16, 2\)", given=bad)
    every = torch.zeros(16, 2, dtype=torch.bool)
    every[5] = True
    wrong(ValueError, "all of sequence 5 is given", given=every)


# ---- the shipped models --------------------------------------------------------------------------


def shipped(name: str):
    return load_pretrained(SHIPPED / name)


def test_fewer_calls_than_the_plain_estimate():
    """At equal calls the variance is a sixth on this model; 64 repeats tell it to 25 %."""
    parts = shipped("synthetic-absorb")
    x0 = SyntheticLanguage().sample(32, 32, torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    found = total(bounds(*parts, x0, None, 64, generator=g))
    plain = likelihood_bound(*parts, x0, 64, generator=g, loss=diffusion_weighted_in_head)
    assert found.error / 32 < plain.error / math.sqrt(3)
    assert abs(found.nats / 32 - plain.nats) < 5 * plain.error


@pytest.mark.parametrize("name", ["synthetic-absorb", "synthetic-uniform"])
def test_no_bound_lies_below_the_truth(name):
    """Exact −log p of each sequence, and of all: by more than 3 standard errors never, but for the
    one bar in 100 that 16 repeats make too small (t with 15 degrees: 0.5 % beyond 3)."""
    language = SyntheticLanguage()
    x0 = language.sample(128, 32, torch.Generator().manual_seed(2))
    found = bounds(*shipped(name), x0, None, 16, generator=torch.Generator().manual_seed(3))
    truth = -language.log_prob(x0)
    gap = total(found).nats - truth.sum().item()
    assert gap > -3 * total(found).error
    assert gap / x0.numel() < 0.1  # nats a token
    nats, errors = torch.tensor([(bound.nats, bound.error) for bound in found]).T
    assert (nats < truth - 3 * errors).sum() <= 2


def test_the_conditional_bound_of_the_shipped_model():
    """200 pairs of given tokens, from none to all but one, and the rest: above the exact
    −log p(rest | given) on average, and within 0.1 bit a token of it."""
    language, g = SyntheticLanguage(), torch.Generator().manual_seed(4)
    x0 = language.sample(200, 32, g)
    given = torch.rand(200, 32, generator=g) < torch.rand(200, 1, generator=g)
    given[given.all(1)] = False
    found = total(bounds(*shipped("synthetic-absorb"), x0, given, 16, generator=g))
    truth = (language.log_prob(x0, given) - language.log_prob(x0)).sum().item()
    assert found.length == (~given).sum()
    bits = (found.nats - truth) / found.length / math.log(2)
    error = found.error / found.length / math.log(2)
    assert error < 0.02
    assert -3 * error < bits < 0.1
