"""The exact law of a sampler: against samples, against what is known, and against mistakes."""

import math

import pytest
import torch
from scipy.stats import chisquare

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, sample
from sedd_mini.evaluation import law as file
from sedd_mini.evaluation.law import divergences, kl, law_of_sampler
from sedd_mini.samplers import pick, uniforms
from sedd_mini.worlds.ctmc import Chain, total_variation
from tests.worlds import random_chain

NOISE = GeometricNoise(0.05, 5)
GRAPHS = [UniformGraph(3), AbsorbingGraph(3)]
NUM = 100_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Table:
    """Log-scores that are no score of any data: a row for each sequence and position."""

    def __init__(self, graph, length=3):
        size = graph.num_states
        self.chain = random_chain(graph, length)
        self.table = torch.randn(size**length, length, size, generator=seeded(5)).double()
        self.masked = graph.mask_id is not None

    def __call__(self, x, sigma, at):
        level = -sigma.expm1().log() - 1 if self.masked else 0.3 * sigma - 1
        out = self.table[self.chain.index(x)] + level[:, None, None]
        return out.scatter(-1, x[..., None], 0)[at]


def agrees(law, x, chain) -> bool:
    """χ² of samples against the law; by chance one in a million fails."""
    counts, law = (chain.histogram(x) * len(x)).flatten(), law.flatten()
    if counts[law < 1e-12].any():
        return False
    counts, law = counts[law * len(x) > 1], law[law * len(x) > 1]
    return chisquare(counts, law / law.sum() * counts.sum()).pvalue > 1e-6


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("method", ["tweedie", "euler"])
@pytest.mark.parametrize("denoise", [True, False])
def test_samples_follow_it(graph, method, denoise):
    """Three steps of scores that are wrong, whose weights are negative at times."""
    model = Table(graph)
    law = law_of_sampler(model, graph, NOISE, 3, 3, method, denoise=denoise)
    assert law.sum() == pytest.approx(1)
    x = sample(model, graph, NOISE, (NUM, 3), 3, method, denoise=denoise, generator=seeded(1))
    assert agrees(law, x, model.chain)
    other = law_of_sampler(model, graph, NOISE, 3, 4, method, denoise=denoise)
    assert not agrees(other, x, model.chain)  # one step more is another law


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_clamped_samples_follow_it(graph):
    model, clamp = Table(graph), torch.tensor([-1, 2, -1])
    law = law_of_sampler(model, graph, NOISE, 3, 2, clamp=clamp)
    assert law[:, 2].sum() == pytest.approx(1)
    x = sample(model, graph, NOISE, (NUM, 3), 2, clamp=clamp, generator=seeded(1))
    assert agrees(law, x, model.chain)


def test_a_mistake_is_seen(monkeypatch):
    """Steps that are a tenth too short."""
    graph = GRAPHS[0]
    model = Table(graph)
    x = sample(model, graph, NOISE, (NUM, 3), 3, generator=seeded(1))
    weights = file.move_weights
    monkeypatch.setattr(
        file, "move_weights", lambda g, x, s, d, how: weights(g, x, s, d * 0.9, how)
    )
    assert not agrees(law_of_sampler(model, graph, NOISE, 3, 3), x, model.chain)


def test_two_words_that_agree():
    """K Tweedie steps on the absorbing pair are 0.4/K from the data (chapter 08)."""
    p0 = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)
    chain = Chain(AbsorbingGraph(2), p0)
    distances = []
    for K in (1, 2, 8):
        law = law_of_sampler(chain.log_score, chain.graph, LogLinearNoise(), 2, K)
        distances.append(total_variation(law, chain.p0) * K)
    assert distances == pytest.approx([0.4] * 3, abs=1e-3)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_divergences(graph):
    """Exact scores: the bound is the entropy, up to what p_base and p_T differ by; K steps are not
    the data, and come nearer as 1/K². Wrong ones: no number of steps goes to 0."""
    chain, noise = random_chain(graph), LogLinearNoise(1e-4)
    far, near, nearer = (divergences(chain, chain.log_score, noise, K) for K in (2, 8, 32))
    assert far[0] > 10 * near[0] > 50 * nearer[0] > 0
    assert {round(d[1], 9) for d in (near, nearer)} == {round(far[1], 9)}
    assert abs(far[1]) < 3e-3

    def wrong(x, sigma, at=None):
        out = chain.log_score(x, sigma) + torch.sin(torch.arange(graph.num_states) + 1.0)
        return out if at is None else out[at]

    steps, bound = divergences(chain, wrong, noise, 256)
    assert 0.05 < steps < bound


def test_a_step_of_your_own():
    """Mask-predict without choice: each masked token is drawn with probability 1/2 from its row."""
    graph = AbsorbingGraph(3)
    model = Table(graph)

    def rows(model, graph, noise, x, free, t, t_next):
        at = torch.ones_like(x, dtype=torch.bool)
        score = model(x, torch.full((len(x),), float(t)), at=at).unflatten(0, x.shape).exp()
        score[..., -1] = 0
        probs = 0.5 * score / score.sum(-1, keepdim=True)
        probs[..., -1] = 0.5
        stay = torch.nn.functional.one_hot(x, 4).double()
        return torch.where((x == 3)[..., None], probs, stay)

    def step(model, graph, noise, x, free, t, t_next, generator):
        at = (x == graph.mask_id) & free
        probs = rows(model, graph, noise, x, free, t, t_next)[at]
        return x.masked_scatter(at, pick(probs, *uniforms(at, generator, 1)))

    law = law_of_sampler(model, graph, NOISE, 3, 2, rows)
    x = sample(model, graph, NOISE, (NUM, 3), 2, step, generator=seeded(1))
    assert agrees(law, x, model.chain)


def test_kl():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.25, 0.5, 0.25])
    assert kl(p, q) == pytest.approx(0.5 * math.log(2))
    assert kl(p, p) == 0
    assert kl(q, p) == math.inf


def test_errors():
    graph = GRAPHS[0]
    model = Table(graph)
    for options, wanted in [
        ({"length": 9}, "19683 sequences of 9 tokens are too many to enumerate: at most 16384"),
        ({"length": 0}, "length must be a whole number, at least 1"),
        ({"steps": 0}, "steps must be"),
        ({"method": "denoise"}, "method must be 'tweedie', .*, or a function, got 'denoise'"),
        ({"clamp": torch.tensor([0, 1])}, r"clamp must have shape \(1, 3\) or \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=wanted):
            law_of_sampler(model, graph, NOISE, **{"length": 3, "steps": 2, **options})
