"""Orders by confidence: their exact laws. A χ² test fails by chance once in 10^6."""

import pytest
import torch
from worlds import follows, planted, random_chain, seeded

from sedd_mini import AbsorbingGraph, LogLinearNoise, UniformGraph, sample
from sedd_mini.beyond import confidence as file
from sedd_mini.beyond import order_likelihood
from sedd_mini.beyond.confidence import KEYS, ByConfidence
from sedd_mini.beyond.order_likelihood import exact_nats
from sedd_mini.beyond.tables import exact_table, random_table
from sedd_mini.evaluation.law import kl, law_of_sampler
from sedd_mini.samplers import generators
from sedd_mini.worlds.ctmc import total_variation

GRAPH, NOISE = AbsorbingGraph(3), LogLinearNoise()
CHAIN = random_chain(GRAPH, length=3)
EXACT = exact_table(CHAIN)


def law(model, step, steps=3):
    return law_of_sampler(model, GRAPH, NOISE, 3, steps, step)


def run(model, step, num=20_000, steps=3, **options):
    options = {"generator": seeded(), **options}
    return sample(model, GRAPH, NOISE, (num, 3), steps, step, **options)


@pytest.mark.parametrize("key", KEYS)
def test_one_token_at_a_time_drawn_keeps_the_law_in_every_order(key):
    for step in (ByConfidence(key, at_once=1), ByConfidence(key)):
        assert (law(EXACT, step) - CHAIN.p0).abs().max() < 1e-9
        assert follows(CHAIN.p0, run(EXACT, step), CHAIN)


def test_greedy_values_do_not():
    found = law(EXACT, ByConfidence(greedy=True, at_once=1))
    assert found.max() == pytest.approx(1, abs=1e-12)  # one sequence is all that it writes
    assert total_variation(found, CHAIN.p0) > 0.9
    assert torch.equal(CHAIN.histogram(run(EXACT, "greedy", 50)), law(EXACT, "greedy").round())


def test_all_at_once_costs_the_total_correlation():
    p0 = CHAIN.p0[:3, :3, :3]
    alone = torch.einsum("i,j,k->ijk", p0.sum((1, 2)), p0.sum((0, 2)), p0.sum((0, 1)))
    found = law(EXACT, ByConfidence(at_once=3))[:3, :3, :3]
    assert (found - alone).abs().max() < 1e-9
    assert law(EXACT, ByConfidence(), 1)[:3, :3, :3].sub(alone).abs().max() < 1e-9


def test_the_entropy_bound_goes_from_exact_to_all_at_once():
    costs = [kl(CHAIN.p0, law(EXACT, ByConfidence("entropy", bound=b))) for b in (0, 1.5, 9)]
    assert costs[0] < 1e-9
    assert 0.01 < costs[1] < 0.5 * costs[2]
    assert costs[2] == pytest.approx(kl(CHAIN.p0, law(EXACT, ByConfidence(at_once=3))), abs=1e-9)


@pytest.mark.parametrize("step", [
    ByConfidence("margin", at_once=2), ByConfidence("entropy", bound=0.9), ByConfidence(),
    ByConfidence(threshold=0.6), ByConfidence("probability", greedy=True), ByConfidence("left"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("steps", [2, 5])
def test_samples_of_a_learned_table_follow_the_pushed_law(step, steps):
    model = random_table(CHAIN, seed=3, place=0.5, time=1.0)
    found = law(model, step, steps)
    assert found.sum() == pytest.approx(1)
    assert follows(found, run(model, step, steps=steps), CHAIN)


@pytest.mark.parametrize("key", KEYS)
def test_the_exact_likelihood_of_an_order(key):
    """q is a law, the one that is sampled, to rounding; another key gives another."""
    model = random_table(CHAIN, seed=1, spread=2.0, time=1.0)
    data = CHAIN.states[(CHAIN.states < 3).all(1)]
    nats = exact_nats(model, GRAPH, NOISE, data, key)
    q = law(model, ByConfidence(key, at_once=1))[:3, :3, :3].flatten()
    assert (torch.exp(-nats) - q).abs().max() < 1e-9
    assert torch.exp(-nats).sum() == pytest.approx(1, abs=1e-9)
    other = exact_nats(model, GRAPH, NOISE, data, "margin" if key == "left" else "left")
    assert (nats - other).abs().max() > 0.1


# π of four hidden places, in an order of its own for each key
ROWS = torch.tensor([
    [0.50, 0.49, 0.01],  # entropy 0.74
    [0.60, 0.20, 0.20],  # 0.95, the largest margin but one
    [0.55, 0.05, 0.40],  # 0.85
    [0.62, 0.37, 0.01],  # 0.71, the most probable
]).double()  # fmt: skip
HIDDEN = torch.tensor([[True, True, False, True, True]])


@pytest.mark.parametrize(("step", "left", "places"), [
    (ByConfidence(), 0.75, [4]),
    (ByConfidence(), 0.5, [1, 4]),
    (ByConfidence(), 0.0, [0, 1, 3, 4]),
    (ByConfidence(), 1.0, []),
    (ByConfidence("margin"), 0.75, [1]),
    (ByConfidence("margin"), 0.5, [1, 4]),
    (ByConfidence("entropy"), 0.5, [0, 4]),
    (ByConfidence("left"), 0.5, [0, 1]),
    (ByConfidence(at_once=3), 0.9, [1, 3, 4]),
    (ByConfidence(threshold=0.58), 0.9, [1, 4]),
    (ByConfidence(threshold=0.99), 0.9, [4]),
    (ByConfidence(threshold=0), 0.9, [0, 1, 3, 4]),
    (ByConfidence("entropy", bound=0.70), 0.9, [4]),  # the next would spend 0.71
    (ByConfidence("entropy", bound=0.72), 0.9, [0, 4]),
    (ByConfidence("entropy", bound=1.50), 0.9, [0, 3, 4]),
    (ByConfidence("entropy", bound=0.10), 0.5, [0, 4]),  # what the schedule needs to end
    (ByConfidence(threshold=0.99), 0.5, [1, 4]),
], ids=str)  # fmt: skip
def test_which_places(step, left, places):
    show = step.places(ROWS, HIDDEN, left)
    assert show[0].nonzero()[:, 0].tolist() == places


def test_ties_and_rows_of_other_lengths():
    even = torch.full((4, 3), 1 / 3).double()
    hidden = torch.tensor([[False, True, True], [False, False, False], [True, True, False]])
    show = ByConfidence(at_once=1).places(even, hidden, 0.5)
    assert show.tolist() == [[False, True, False], [False] * 3, [True, False, False]]
    assert torch.equal(ByConfidence(threshold=0.3).places(even, hidden, 0.5), hidden)


def test_how_many_in_each_step():
    """Of eight tokens: evenly in four steps; one a step in eight; and none twice in sixteen."""
    chain_free = random_table(random_chain(AbsorbingGraph(2), 8), spread=0.3)
    for steps, wanted in ((4, [2] * 4), (8, [1] * 8), (16, None), (3, None)):
        drops = shown(chain_free, steps)  # (steps + 1, B)
        assert drops[-1].tolist() == [0, 0]  # nothing is left to the denoising step
        assert drops.sum(0).tolist() == [8, 8]
        assert wanted is None or drops[:-1, 0].tolist() == wanted
        assert steps < 8 or drops.max() == 1
    assert calls_of("confidence", 16) == 8  # where nothing is due, nothing is asked
    assert calls_of(ByConfidence(threshold=0.0), 16) == 1


def calls_of(step, steps: int) -> int:
    table, calls = random_table(random_chain(AbsorbingGraph(2), 8), spread=0.3), []

    def model(x, sigma, at):
        calls.append(len(x))
        return table(x, sigma, at)

    sample(model, AbsorbingGraph(2), NOISE, (1, 8), steps, step, generator=seeded())
    return len(calls)


def shown(model, steps: int) -> torch.Tensor:
    """How many tokens appear in each step of a run over eight."""
    seen = []
    sample(
        model, AbsorbingGraph(2), NOISE, (2, 8), steps, "confidence", generator=seeded(),
        callback=lambda k, t, x: seen.append((x == 2).sum(1)),
    )  # fmt: skip
    return -torch.stack(seen).diff(dim=0)


@pytest.mark.parametrize(("old", "new"), [
    ("best[:, 0] - best[:, 1]", "best[:, 0] + best[:, 1]"),
    ("return -entropies(probs)", "return entropies(probs)"),
    ("return -hidden.nonzero()", "return hidden.nonzero()"),
    ("(count * left).round()", "(count * (1.1 - left)).round()"),
    ("entropy.cumsum(1) - entropy.cummax(1).values", "entropy.cumsum(1)"),
    ("best >= self.threshold", "best <= self.threshold"),
    ("descending=True", "descending=False"),
])  # fmt: skip
def test_planted_bugs_are_seen_in_the_places(old, new):
    wrong, cases = planted(file, old, new), (
        (("margin",), 0.75, [1]), (("entropy",), 0.5, [0, 4]), (("left",), 0.5, [0, 1]),
        (("probability", False, None, 0.58), 0.9, [1, 4]), ((), 0.75, [4]),
        (("entropy", False, None, None, 0.72), 0.9, [0, 4]),
    )  # fmt: skip
    for module, right in ((file, True), (wrong, False)):
        found = [module.ByConfidence(*a).places(ROWS, HIDDEN, left)[0].nonzero()[:, 0].tolist()
                 for a, left, _ in cases]  # fmt: skip
        assert (found == [places for *_, places in cases]) == right


@pytest.mark.parametrize(("old", "new"), [
    ("nats -= probs.gather(-1, truth[:, None])", "nats -= probs.gather(-1, truth[:1, None])"),
    ("graph.mask_id), torch.ones_like", "0), torch.ones_like"),
    ("nats -= probs", "nats += probs"),
    ("x = torch.where(show, x0, x)", "x = torch.where(show, 0, x)"),
])  # fmt: skip
def test_planted_bugs_are_seen_in_the_likelihood(old, new):
    data = CHAIN.states[(CHAIN.states < 3).all(1)]
    truth = CHAIN.p0[:3, :3, :3].flatten()
    right = torch.exp(-exact_nats(EXACT, GRAPH, NOISE, data))
    assert (right - truth).abs().max() < 1e-9
    try:
        wrong = planted(order_likelihood, old, new).exact_nats(EXACT, GRAPH, NOISE, data)
        assert (torch.exp(-wrong) - truth).abs().max() > 1e-3
    except RuntimeError:
        pass  # shapes that do not fit are seen as well


def test_a_sample_of_a_seed_is_the_same_whatever_stands_beside_it():
    whole = run(EXACT, "confidence", 9, generator=generators(5, 9))
    alone = [run(EXACT, "confidence", 1, generator=generators(5, 1, i)) for i in range(9)]
    assert torch.equal(torch.cat(alone), whole)


@pytest.mark.parametrize(("options", "message"), [
    ({"threshold": 1.5}, r"threshold must be a probability in \[0, 1\], got 1.5"),
    ({"threshold": -0.1}, r"threshold must be a probability in \[0, 1\], got -0.1"),
    ({"threshold": "high"}, "threshold must be a number, finite, got 'high'"),
    ({"bound": -1}, "bound must be an entropy of at least 0 nats, got -1"),
    ({"at_once": 0}, "at_once must be a whole number, at least 1, got 0"),
    ({"at_once": 1, "bound": 1}, "give one of at_once, threshold and bound"),
    ({"key": "luck"}, "key must be one of probability, margin, entropy, left, got 'luck'"),
])  # fmt: skip
def test_errors(options, message):
    with pytest.raises(ValueError, match=message) as error:
        ByConfidence(**options)
    assert "\n" not in str(error.value)


def test_another_graph_is_refused():
    graph = UniformGraph(3)
    model, data = random_chain(graph).log_score, torch.zeros(1, 2, dtype=torch.int64)
    for call in (
        lambda: sample(model, graph, NOISE, (1, 2), 2, "confidence"),
        lambda: exact_nats(model, graph, NOISE, data),
    ):
        with pytest.raises(ValueError, match="is for the absorbing graph") as error:
            call()
        assert "\n" not in str(error.value)
