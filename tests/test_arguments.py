"""What is of another kind than a function wants is told in one line of ours, and never taken."""

import numpy as np
import pytest
import torch

import sedd_mini
from sedd_mini import AbsorbingGraph, LogLinearNoise, TextModel, UniformGraph, likelihood_bound
from sedd_mini.commands.options import raised_by_us
from sedd_mini.text.tokenizers import WordTokenizer

GRAPH, NOISE = AbsorbingGraph(3), LogLinearNoise()
X, X0, SCORE = torch.full((2, 4), 3), torch.zeros(2, 4, dtype=torch.int64), torch.ones(2, 4, 4)


def model(x, sigma, at=None):
    scores = torch.zeros(*x.shape, 4)
    return scores if at is None else scores[at]


def bound(model=model, graph=GRAPH, noise=NOISE, x0=X0, repeats=2):
    return likelihood_bound(model, graph, noise, x0, repeats)


def sample(model=model, graph=GRAPH, noise=NOISE, shape=(2, 4), **options):
    return sedd_mini.sample(model, graph, noise, shape, 2, **options)


def text_model(network=model, graph=GRAPH, noise=NOISE):
    return TextModel(network, graph, noise, WordTokenizer(["a", "b", "c"]), 4)


NO_NUMBERS = {"none": None, "text": "0.5", "bytes": b"1", "dict": {}, "class": int, "true": True,
              "complex": torch.zeros(2, 4, dtype=torch.complex64),
              "booleans": torch.zeros(2, 4, dtype=torch.bool)}  # fmt: skip
NO_TOKENS = {
    "none": None,
    "text": "a",
    "float": torch.zeros(2, 4),
    "numpy": np.zeros((2, 4), int),
    "int32": torch.zeros(2, 4, dtype=torch.int32),
    "list": [[0] * 4] * 2,
    "booleans": torch.zeros(2, 4, dtype=torch.bool),
    "beyond": torch.full((2, 4), 4),
}
NO_SCORES = {"none": None, "number": 0.5, "numpy": np.ones((2, 4, 4)), "shape": torch.ones(2, 3, 4)}
NO_PARTS = {"none": None, "text": "absorb", "number": 3, "tensor": X, "class": UniformGraph}
NO_IDS = {
    "none": None,
    "text": "a b",
    "number": 3,
    "bytes": [b"a"],
    "float": [[0.5]],
    "true": [[True]],
}
NO_PATHS = {"none": None, "number": 0.5, "true": True, "list": ["a"], "tensor": X}

# what is called with it → the values that it must refuse, and what the message names
TABLE = [
    (NOISE.total, NO_NUMBERS, "time t must be"),
    (NOISE.rate, NO_NUMBERS, "time t must be"),
    (lambda v: GRAPH.transition_probs(X, v), NO_NUMBERS, "sigma must be"),
    (lambda v: GRAPH.sample_transition(X0, v), NO_NUMBERS, "sigma must be"),
    (lambda v: GRAPH.tweedie_probs(X, SCORE, v), NO_NUMBERS, "must be"),
    (GRAPH.prior_kl, NO_NUMBERS, "sigma must be"),
    (lambda v: GRAPH.transition_probs(v, 0.5), NO_TOKENS, "token ids must"),
    (lambda v: UniformGraph(4).transition_probs(v, 0.5), NO_TOKENS, "token ids must"),
    (lambda v: GRAPH.reverse_rates(v, SCORE), {**NO_TOKENS, "none": 1}, "token ids must"),
    (lambda v: GRAPH.tweedie_probs(v, SCORE, 0.5), NO_TOKENS, "token ids must"),
    (lambda v: GRAPH.score_entropy(SCORE, 0.5, X, v), NO_TOKENS, "token ids must"),
    (lambda v: bound(x0=v), NO_TOKENS, "x0"),
    (lambda v: GRAPH.reverse_rates(X, v), NO_SCORES, "scores must"),
    (lambda v: GRAPH.score_entropy(v, 0.5, X, X0), NO_SCORES, "scores must"),
    (lambda v: sample(graph=v), NO_PARTS, "graph must be"),
    (lambda v: bound(graph=v), NO_PARTS, "graph must be"),
    (lambda v: text_model(graph=v), NO_PARTS, "graph must be"),
    (lambda v: sample(noise=v), NO_PARTS, "noise must be"),
    (lambda v: bound(noise=v), NO_PARTS, "noise must be"),
    (lambda v: text_model(noise=v), NO_PARTS, "noise must be"),
    (lambda v: sample(model=v), NO_PARTS, "model must be"),
    (lambda v: bound(model=v), NO_PARTS, "model must be"),
    (lambda v: text_model(network=v), NO_PARTS, "model must be"),
    (AbsorbingGraph, NO_NUMBERS, "num_tokens must be"),
    (UniformGraph, NO_NUMBERS, "num_tokens must be"),
    (LogLinearNoise, NO_NUMBERS, "eps must be"),
    (lambda v: bound(repeats=v), NO_NUMBERS, "repeats"),
    (lambda v: TextModel(model, GRAPH, NOISE, v, 4), NO_PARTS, "the tokeniser has None tokens"),
    (
        lambda v: text_model().write(prompt=v),
        {**NO_IDS, "text": b"a", "0-d": torch.tensor(1)},
        "prompt",
    ),
    (lambda v: text_model().bound(v), NO_IDS, "text"),
    (sedd_mini.load, NO_PATHS, "named by a text or a Path"),
    (sedd_mini.load_pretrained, NO_PATHS, "named by a text or a Path"),
    (lambda v: sample(callback=v), {"text": "a", "number": 1}, "callback must be"),
]


@pytest.mark.parametrize(("function", "value", "expected"), [
    pytest.param(function, value, expected, id=f"{i}-{kind}")
    for i, (function, values, expected) in enumerate(TABLE) for kind, value in values.items()
])  # fmt: skip
def test_another_kind_is_refused_in_one_line(function, value, expected):
    with pytest.raises((TypeError, ValueError)) as caught:
        function(value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert raised_by_us(caught.value)


def test_what_fits_is_taken():
    assert sample().shape == (2, 4)
    assert bound().nats > 0
    for half in (0.5, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), [0.5]):
        assert NOISE.total(half).is_floating_point()
    assert NOISE.total(1).dtype == NOISE.total(torch.tensor(1)).dtype == torch.float32
