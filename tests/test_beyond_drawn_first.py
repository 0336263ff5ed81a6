"""Choosing the place after the drawing: its exact law, which is not the data's.

A χ² test fails by chance once in 10^6; seeds are fixed.
"""

import pytest
import torch
from worlds import follows, planted, random_chain, seeded

from sedd_mini import AbsorbingGraph, LogLinearNoise, UniformGraph, sample
from sedd_mini.beyond import drawn_first as file
from sedd_mini.beyond.drawn_first import DrawnFirst, law_of_drawn_first
from sedd_mini.beyond.tables import TableModel, exact_table, random_table
from sedd_mini.evaluation.law import law_of_sampler
from sedd_mini.worlds.ctmc import total_variation

GRAPH, NOISE = AbsorbingGraph(3), LogLinearNoise()
CHAIN = random_chain(GRAPH, length=3)


def run(model, step=DrawnFirst(at_once=1), num=20_000, steps=3):  # noqa: B008
    return sample(model, GRAPH, NOISE, (num, 3), steps, step, generator=seeded())


@pytest.mark.parametrize("name", ["exact", "learned", "even"])
def test_samples_follow_the_law(name):
    model = {
        "exact": exact_table(CHAIN),
        "learned": random_table(CHAIN, seed=1, place=0.5),
        "even": TableModel(CHAIN, torch.zeros(64, 3, 3)),  # ties everywhere
    }[name]
    law = law_of_drawn_first(model, CHAIN)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    assert follows(law, run(model), CHAIN)
    assert follows(law, run(model, "drawn-first"), CHAIN)


def test_the_law_is_not_the_datas():
    """With exact conditionals, one token at a time."""
    law = law_of_drawn_first(exact_table(CHAIN), CHAIN)
    assert total_variation(law, CHAIN.p0) > 0.03
    assert not follows(CHAIN.p0, run(exact_table(CHAIN)), CHAIN)
    all_at_once = run(exact_table(CHAIN), DrawnFirst(at_once=3))
    assert follows(law_of_sampler(exact_table(CHAIN), GRAPH, NOISE, 3, 1, "confidence"),
                   all_at_once, CHAIN)  # fmt: skip


@pytest.mark.parametrize(("old", "new"), [
    ("descending=True", "descending=False"),
    ("= probs.gather(-1, drawn[:, None])[:, 0]", "= probs.amax(-1)"),
    ("torch.where(keep, x.masked", "torch.where(keep.flip(1), x.masked"),
    ("(place > place[:, None])", "(place >= 0 * place[:, None])"),
    ("(other < mine)", "(other > mine)"),
    ("* pi * hidden", "* hidden"),
])  # fmt: skip
def test_planted_bugs_are_seen(old, new):
    model = random_table(CHAIN, seed=1)
    wrong = planted(file, old, new)
    x, law = run(model, wrong.DrawnFirst(at_once=1)), wrong.law_of_drawn_first(model, CHAIN)
    even = TableModel(CHAIN, torch.zeros(64, 3, 3))
    x_even, law_even = run(even, wrong.DrawnFirst(at_once=1)), wrong.law_of_drawn_first(even, CHAIN)
    assert not (follows(law, x, CHAIN) and abs(law_even.sum() - 1) < 1e-9
                and follows(law_even, x_even, CHAIN))  # fmt: skip


def test_errors():
    with pytest.raises(ValueError, match="at_once must be a whole number, at least 1, got 0"):
        DrawnFirst(at_once=0)
    graph = UniformGraph(3)
    with pytest.raises(ValueError, match="an order by confidence is for the absorbing graph"):
        sample(random_chain(graph).log_score, graph, NOISE, (1, 2), 2, "drawn-first")
    with pytest.raises(ValueError, match="does not draw token by token"):
        law_of_sampler(exact_table(CHAIN), GRAPH, NOISE, 3, 3, "drawn-first")
