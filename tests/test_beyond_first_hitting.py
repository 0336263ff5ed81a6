"""First hitting against the law of the continuous chain. A χ² test fails by chance once in 10^6."""

import pytest
import torch
from worlds import follows, planted, random_chain, seeded

from sedd_mini import AbsorbingGraph, LogLinearNoise, UniformGraph, sample
from sedd_mini.beyond import first_hitting as file
from sedd_mini.beyond.first_hitting import by_rate, first_hitting, law_in_random_order
from sedd_mini.beyond.tables import exact_table, random_table
from sedd_mini.samplers import generators
from sedd_mini.worlds.ctmc import total_variation

GRAPH, NOISE, NUM = AbsorbingGraph(2), LogLinearNoise(), 20_000
CHAIN = random_chain(GRAPH, length=3)


def law_of_the_chain(model, chain=CHAIN) -> torch.Tensor:
    """Of the network's own reverse chain in continuous time, from all MASK."""
    base = torch.zeros_like(chain.p0)
    base[(-1,) * chain.length] = 1.0
    return chain.reverse_marginal(model, 20.0, base, steps=300, sigma_min=1e-12)


def run(model, step=first_hitting, num=NUM, **options):
    options = {"steps": 1, "eps": 1e-9, "generator": seeded(), **options}
    return sample(model, GRAPH, NOISE, (num, 3), method=step, **options)


@pytest.mark.parametrize("sequence", [0.0, 0.7])
def test_the_law_is_that_of_the_continuous_chain(sequence):
    """For a time-free head with one Z a sequence: no matter which Z, the order is uniform."""
    model = random_table(CHAIN, seed=1, sequence=sequence)
    law = law_in_random_order(model, CHAIN)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    assert total_variation(law, law_of_the_chain(model)) < 1e-4  # 3e-10 and 3e-5 measured
    assert follows(law, run(model), CHAIN)
    other = law_in_random_order(random_table(CHAIN, seed=2), CHAIN)
    assert not follows(other, run(model), CHAIN)


def test_exact_scores_give_the_data():
    table, at = exact_table(CHAIN), CHAIN.states == GRAPH.mask_id
    levels = torch.full((len(at),), 0.3, dtype=torch.float64)
    torch.testing.assert_close(
        table(CHAIN.states, levels, at), CHAIN.log_score(CHAIN.states, levels, at),
        rtol=1e-12, atol=1e-12,
    )  # fmt: skip
    assert (law_in_random_order(table, CHAIN) - CHAIN.p0).abs().max() < 1e-12
    assert follows(CHAIN.p0, run(table, steps=3), CHAIN)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_law_on_the_way(steps):
    """At t = 0.4 each token is hidden with probability 0.4, in one step or in four."""
    model = random_table(CHAIN, seed=1)
    times = torch.linspace(1, 0.4, steps + 1)
    x = run(model, steps=None, times=times, denoise=False)
    assert follows(law_in_random_order(model, CHAIN, share=0.4), x, CHAIN)
    assert not follows(law_in_random_order(model, CHAIN, share=0.37), x, CHAIN)


def test_where_it_fails_and_what_is_right_then():
    """Z that varies by place: another law. A head that is told the time, and asked at the hitting
    times, is right if Z = 1, and wrong if not, even by rate."""
    by_place = random_table(CHAIN, seed=3, place=1.0)
    truth = law_of_the_chain(by_place)
    assert total_variation(law_in_random_order(by_place, CHAIN), truth) > 0.05
    assert not follows(truth, run(by_place), CHAIN)
    assert total_variation(law_in_random_order(by_place, CHAIN, rates=True), truth) < 2e-3
    assert follows(law_in_random_order(by_place, CHAIN, rates=True), run(by_place, by_rate), CHAIN)

    timed = random_table(CHAIN, seed=3, time=4.0)
    truth = law_of_the_chain(timed)
    assert not follows(law_in_random_order(timed, CHAIN), run(timed), CHAIN)
    assert follows(truth, run(timed), CHAIN)
    both = random_table(CHAIN, seed=3, place=1.0, time=4.0)
    for step in (first_hitting, by_rate):
        assert not follows(law_of_the_chain(both), run(both, step), CHAIN)


@pytest.mark.parametrize(("step", "old", "new"), [
    ("first_hitting", "when ** (1 / weight.sum(1))", "when ** (1 / (weight.sum(1) + 1))"),
    ("first_hitting", "when ** (1 / weight.sum(1))", "when"),
    ("first_hitting", "place = pick(weight, where)", "place = pick(weight, where**2)"),
    ("first_hitting", "hits = share[rows] > end", "hits = share[rows] > 0"),
    ("by_rate", "= z.cpu()", "= 1 / z.cpu()"),
    ("by_rate", "probs[number[at]", "probs[0 * number[at]"),
])  # fmt: skip
def test_planted_bugs_are_seen(step, old, new):
    """Each in the law at t = 0.4 (uniform places) or at the end (places by rate)."""
    wrong = getattr(planted(file, old, new), step)
    if step == "by_rate":
        model = random_table(CHAIN, seed=3, place=1.0)
        law, options = law_in_random_order(model, CHAIN, rates=True), {}
    else:
        model = random_table(CHAIN, seed=1)
        law = law_in_random_order(model, CHAIN, share=0.4)
        options = {"steps": None, "times": [1.0, 0.4], "denoise": False}
    assert follows(law, run(model, getattr(file, step), **options), CHAIN)
    assert not follows(law, run(model, wrong, **options), CHAIN)


def test_one_call_a_token():
    table, calls = random_table(CHAIN), []

    def model(x, sigma, at):
        calls.append(at.sum(1).tolist())
        return table(x, sigma, at)

    for steps in (1, 7):
        run(model, num=1, steps=steps)
        assert calls == [[1]] * 3
        calls.clear()
    run(model, num=50)
    assert calls == [[1] * 50] * 3


def test_given_tokens_stay_and_the_rest_follows_the_conditional_law():
    clamp = torch.tensor([-1, 1, -1])
    x = run(exact_table(CHAIN), clamp=clamp)
    allowed = torch.zeros_like(CHAIN.p0)
    allowed[:, 1] = CHAIN.p0[:, 1]
    assert follows(allowed / allowed.sum(), x, CHAIN)


def test_a_sample_of_a_seed_is_the_same_whatever_stands_beside_it():
    model = random_table(CHAIN)
    whole = run(model, num=9, generator=generators(5, 9))
    alone = [run(model, num=1, generator=generators(5, 1, i)) for i in range(9)]
    assert torch.equal(torch.cat(alone), whole)


def test_by_name_and_on_another_graph():
    model = random_table(CHAIN)
    assert torch.equal(run(model, "first-hitting", 20), run(model, num=20))
    graph = UniformGraph(3)
    for step in ("first-hitting", by_rate):
        with pytest.raises(ValueError, match="first hitting is for the absorbing graph") as error:
            sample(random_chain(graph).log_score, graph, NOISE, (1, 2), 2, step)
        assert "\n" not in str(error.value)
