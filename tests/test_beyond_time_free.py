"""Calls that a network without time saves: how many, and that nothing else changes."""

import math

import pytest
import torch
from worlds import planted, random_chain, seeded

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, sample
from sedd_mini.beyond import time_free as file
from sedd_mini.beyond.tables import random_table
from sedd_mini.beyond.time_free import Remembering, expected_calls, remembering
from sedd_mini.evaluation.rivals import MeanPrediction
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.samplers import generators

NOISE = LogLinearNoise()


def network(absorbing=True, **options) -> DiffusionTransformer:
    torch.manual_seed(0)
    sizes = {"length": 12, "width": 16, "num_blocks": 1, "num_heads": 2, "dropout": 0.0}
    options = {"time_conditioning": False, **options}
    model = DiffusionTransformer(DiTConfig(7, absorbing=absorbing, **sizes, **options)).double()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


CASES = [
    (network(), AbsorbingGraph(7)),
    (network(normalised=True), AbsorbingGraph(7)),
    (network(scale_by_sigma=False), AbsorbingGraph(7)),
    (network(absorbing=False), UniformGraph(7)),
]


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize(
    "method", ["tweedie", "euler", "confidence", "remask", "corrector", "first-hitting"]
)
def test_the_same_draws_with_fewer_calls(case, method, monkeypatch):
    model, graph = CASES[case]
    if graph.mask_id is None and method not in ("tweedie", "euler", "corrector"):
        pytest.skip("for the absorbing graph")
    seen = []
    hook = model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))

    def run():
        seen.clear()
        some = generators(3, 4)
        noise = NOISE if graph.mask_id else GeometricNoise(0.05, 5)
        clamp = torch.tensor([-1] * 9 + [2] * 3)
        x = sample(model, graph, noise, (4, 12), 25, method, clamp=clamp, generator=some)
        return x, sum(seen)

    fewer, rows = run()
    monkeypatch.setattr(file, "remembering", lambda model: model)
    whole, every = run()
    hook.remove()
    assert torch.equal(fewer, whole)
    assert rows <= every
    if case == 1 and method in ("tweedie", "euler"):
        assert rows < 0.6 * every


def test_the_number_of_calls_is_as_predicted():
    """A normalised time-free table, K = 12 and L = 5: the mean over 2 000 sequences within 5 σ."""
    chain = random_chain(AbsorbingGraph(2), length=5)
    table, num = random_table(chain), 2000
    for steps in (3, 12):
        model = Remembering(table)
        sample(model, chain.graph, NOISE, (num, 5), steps, eps=1e-9, generator=seeded())
        expected = expected_calls(steps, 5)
        p, q = (1 - 1 / steps) ** 5, (1 - 2 / steps) ** 5  # of no move in one step, in two
        variance = steps * p * (1 - p) + steps * (steps - 1) * (q - p * p)
        assert abs(model.rows / num - expected) < 5 * math.sqrt(variance / num)
        assert model.calls <= steps + 1
    alone = [Remembering(table) for _ in range(60)]
    for i, model in enumerate(alone):
        sample(model, chain.graph, NOISE, (1, 5), 12, eps=1e-9, generator=seeded(i))
        assert model.calls == model.rows
    mean = sum(model.calls for model in alone) / 60
    assert abs(mean - expected_calls(12, 5)) < 5 * math.sqrt(variance / 60)


def test_expected_calls():
    assert expected_calls(1, 9) == 1
    assert expected_calls(10**9, 9) == pytest.approx(9)
    assert expected_calls(4, 2) == pytest.approx(4 * (1 - 9 / 16))
    for bad in ((0, 3), (3, 0), (2.5, 3)):
        with pytest.raises(ValueError, match="must be a whole number, at least 1"):
            expected_calls(*bad)


def test_only_the_networks_own_class_without_time_is_remembered():
    model = CASES[0][0]
    assert isinstance(remembering(model), Remembering)
    timed = network(time_conditioning=True)
    mean = MeanPrediction(network(absorbing=False))  # its scores depend on σ̄ in another way
    for other in (timed, mean, lambda x, sigma, at: None):
        assert remembering(other) is other


@pytest.mark.parametrize("scaled", [True, False])
def test_each_answer_is_the_networks_own(scaled):
    """Whatever changes between the calls: tokens of some rows, the mask, the level, the batch."""
    model = network(scale_by_sigma=scaled)
    tried = Remembering(model, scaled)
    assert worst(model, tried) < 1e-12
    assert tried.rows < 9 + 9 + 9 + 9 + 4 + 9


def worst(model, tried) -> float:
    x = torch.randint(8, (9, 12), generator=seeded(1))
    at = x == 7
    at[:, 3], x[:, 3] = True, 7
    changed = x.clone()
    changed[2:4, 3] = 1
    some = at.clone()
    some[:, 3] = False
    errors = []
    for x_, at_, level in (
        (x, at, 0.3), (x, at, 1.7), (x, some, 0.9), (x, at, 0.01), (x[:4], at[:4], 0.5),
        (x, at, 0.3), (changed, at & (changed == 7), 2.0), (changed, at & (changed == 7), 1.0),
    ):  # fmt: skip
        sigma = torch.full((len(x_),), level, dtype=torch.float64) * torch.linspace(1, 2, len(x_))
        errors.append((tried(x_, sigma, at_) - model(x_, sigma, at=at_)).abs().max().item())
    return max(errors)


@pytest.mark.parametrize(("old", "new"), [
    ("(self.x != x).any(1)", "(self.x[:, :2] != x[:, :2]).any(1)"),
    (" | (at & (self.number < 0)).any(1)", ""),
    ("self.answer[self.number[old]]", "self.answer[self.number[old].flip(0)]"),
    ("[torch.cat(places).argsort()]", ""),
    ("0.6931471805599453", "0.7"),
    ("answer + factor[:, None]", "answer - factor[:, None]"),
    (".scatter(-1, x[at][:, None], 0.0)", ""),
])  # fmt: skip
def test_planted_bugs_are_seen(old, new):
    model = network()
    wrong = planted(file, old, new).Remembering(model)
    try:
        assert worst(model, wrong) > 1e-6
    except (IndexError, RuntimeError):
        pass  # seen, too
