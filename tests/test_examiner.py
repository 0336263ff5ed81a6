"""The examiner: exact ratios have no gap, an untrained network the one that is known."""

import math

import pytest
import torch

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph
from sedd_mini.evaluation.examiner import Exam, exact_log_score
from sedd_mini.losses import training_loss
from sedd_mini.text.synthetic import SyntheticLanguage

LANGUAGE = SyntheticLanguage()
KINDS = {"absorb": (AbsorbingGraph(40), LogLinearNoise()),
         "uniform": (UniformGraph(40), GeometricNoise(1e-3, 20.0))}  # fmt: skip
BIT = 16 * math.log(2)


def exam(kind: str) -> Exam:
    x0 = LANGUAGE.sample(512, 16, torch.Generator().manual_seed(0))
    return Exam(LANGUAGE, *KINDS[kind], x0)


def even(kind: str):
    """A model that guesses evenly: r/N each with MASK noise, 1 with uniform noise."""
    graph, _ = KINDS[kind]

    def model(x, sigma):
        level = -torch.log(torch.expm1(sigma) * 40) if kind == "absorb" else torch.zeros_like(sigma)
        log_s = level[:, None, None].expand(*x.shape, graph.num_states)
        return log_s.scatter(-1, x[..., None], 0.0)

    return model


@pytest.mark.parametrize("kind", KINDS)
def test_exact_ratios_have_no_gap(kind):
    test = exam(kind)
    gaps = test.gaps(lambda x, sigma: exact_log_score(LANGUAGE, test.graph, x, sigma))
    assert gaps.abs().max() < 1e-9
    assert test.gaps(even(kind)).min() > -1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_the_gap_of_an_even_guess_is_log_n_minus_the_entropy(kind):
    """Within four standard errors; what is left out below t = 0.001 is far smaller."""
    test = exam(kind)
    gaps = test.gaps(even(kind))
    wanted = math.log2(40) + LANGUAGE.log_prob(test.x0).mean().item() / BIT
    assert abs(gaps.mean() - wanted) < 4 * gaps.std() / math.sqrt(len(gaps)) + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_loss_minus_that_of_exact_ratios(kind):
    """On average over noisy texts; the examiner's own spread is smaller."""
    test, (graph, noise) = exam(kind), KINDS[kind]
    every_other = 0.3 * (torch.arange(graph.num_states) % 2)

    def exact(x, sigma):
        return exact_log_score(LANGUAGE, graph, x, sigma)

    def off(x, sigma):
        return exact(x, sigma) + every_other

    losses = [training_loss(model, graph, noise, test.x0, test.t, x=test.x) / BIT
              for model in (off, exact)]  # fmt: skip
    difference, gaps = losses[0] - losses[1], test.gaps(off)
    assert abs((difference - gaps).mean()) < 4 * (difference - gaps).std() / math.sqrt(len(gaps))
    assert gaps.std() < losses[0].std()


def test_refusals():
    x, sigma = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1)
    with pytest.raises(ValueError, match="the language has 40 tokens and the graph 39"):
        exact_log_score(LANGUAGE, UniformGraph(39), x, sigma)
    with pytest.raises(FloatingPointError, match="not finite"):
        exam("uniform").gaps(lambda x, sigma: torch.full((*x.shape, 40), math.nan))
