"""Guidance against enumerated laws. A χ² test fails by chance once in 10^6; seeds are fixed."""

import pytest
import torch
from worlds import follows, planted, random_chain, seeded

from sedd_mini import AbsorbingGraph, LogLinearNoise, TextModel, UniformGraph, sample
from sedd_mini.beyond import guidance as file
from sedd_mini.beyond.confidence import ByConfidence
from sedd_mini.beyond.guidance import Guidance, guide, law_in_order, laws_of_orders, tempered_joint
from sedd_mini.beyond.tables import exact_table, random_table
from sedd_mini.evaluation.law import law_of_sampler
from sedd_mini.samplers import generators
from sedd_mini.text.tokenizers import WordTokenizer
from sedd_mini.worlds.ctmc import Chain, total_variation

NOISE = LogLinearNoise()
GIVEN = torch.tensor([[0.4, 0.1], [0.25, 0.25]], dtype=torch.float64)
EVEN = torch.full((2, 2), 0.25, dtype=torch.float64)


def close(p, *numbers) -> bool:
    return (p.flatten() - torch.tensor(numbers, dtype=torch.float64)).abs().max() < 5e-4


def test_the_smallest_example():
    """The reference sheet's: the tempered joint, and one token after the other in both orders."""
    assert close(tempered_joint(GIVEN, EVEN, 1.0), 0.542, 0.034, 0.212, 0.212)
    laws = laws_of_orders(GIVEN, EVEN, 1.0)
    assert close(laws[0, 1], 0.471, 0.029, 0.25, 0.25)
    assert close(laws[1, 0], 0.557, 0.031, 0.218, 0.194)
    symmetric = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    hidden = laws_of_orders(symmetric, EVEN, 1.0)
    assert total_variation(hidden[0, 1], hidden[1, 0]) < 1e-12  # a symmetric table hides it
    assert total_variation(hidden[0, 1], tempered_joint(symmetric, EVEN, 1.0)) < 1e-12
    for strength in (0.0, 2.0):
        for law in laws_of_orders(GIVEN, EVEN, strength).values():
            assert law.sum() == pytest.approx(1)
            assert (total_variation(law, GIVEN) < 1e-12) == (strength == 0)


def labelled() -> Chain:
    """Two words c: label 0 or 1 before two tokens, as one sequence; p( · | c = 0) is GIVEN."""
    p0 = torch.zeros(2, 2, 2, dtype=torch.float64)
    p0[0], p0[1] = GIVEN / 2, (2 * EVEN - GIVEN) / 2  # so that p without the label is even
    return Chain(AbsorbingGraph(2), p0)


LABEL = torch.tensor([0, -1, -1])


def test_the_sampler_follows_the_example():
    """Left to right, one token a step, exact scores, guided by the label: order (0, 1)."""
    chain, step = labelled(), Guidance(1.0, ByConfidence("left", at_once=1))
    model = exact_table(chain)
    found = law_of_sampler(model, chain.graph, NOISE, 3, 3, step, clamp=LABEL)
    assert total_variation(found[0, :2, :2], law_in_order(GIVEN, EVEN, 1.0)) < 1e-9
    x = sample(model, chain.graph, NOISE, (20_000, 3), 3, step, clamp=LABEL, generator=seeded())
    assert follows(found, x, chain)
    plain = law_of_sampler(model, chain.graph, NOISE, 3, 3, step.step, clamp=LABEL)
    assert total_variation(plain[0, :2, :2], GIVEN) < 1e-9
    none = Guidance(0.0, step.step)
    same = law_of_sampler(model, chain.graph, NOISE, 3, 3, none, clamp=LABEL)
    assert total_variation(same, plain) < 1e-12


@pytest.mark.parametrize("step", ["tweedie", "euler", "remask", "confidence", "corrector"])
def test_with_other_steps_and_a_learned_table(step):
    chain = random_chain(AbsorbingGraph(2), length=3)
    model = random_table(chain, seed=4, place=0.5, time=1.0)
    for labels in (None, (0,)):
        guided = Guidance(1.5, step, labels)
        found = law_of_sampler(model, chain.graph, NOISE, 3, 3, guided, clamp=LABEL)
        x = sample(model, chain.graph, NOISE, (8_000, 3), 3, guided, clamp=LABEL,
                   generator=seeded(2))  # fmt: skip
        assert follows(found, x, chain)
    plain = law_of_sampler(model, chain.graph, NOISE, 3, 3, step, clamp=LABEL)
    assert total_variation(found, plain) > 0.01


def test_first_hitting_can_be_guided():
    """One token after the other in uniform order: the mean of the two orders."""
    chain = labelled()
    step = Guidance(1.0, "first-hitting")
    x = sample(exact_table(chain), chain.graph, NOISE, (20_000, 3), 1, step, clamp=LABEL, eps=1e-9,
               generator=seeded())  # fmt: skip
    law = torch.zeros_like(chain.p0)
    law[0, :2, :2] = sum(laws_of_orders(GIVEN, EVEN, 1.0).values()) / 2
    assert follows(law, x, chain)


def test_one_hidden_token_is_exact_on_the_absorbing_graph_and_not_on_the_uniform_one():
    told, untold = torch.tensor([[7, 2, 1], [2, 5, 3]], dtype=torch.float64) / 10
    truth = tempered_joint(told, untold, 1.0)
    sigma, alone = 0.8, torch.zeros(1, 1, dtype=torch.int64)
    absorbing = [Chain(AbsorbingGraph(3), p) for p in (told, untold)]
    level = torch.tensor([sigma], dtype=torch.float64)
    scores = [chain.log_score(alone + 3, level)[0] for chain in absorbing]  # (1, 4) each
    out = guide(*scores, level, 1.0)
    assert (out[0, :3].softmax(-1) - truth).abs().max() < 1e-12
    assert out[0, :3].exp().sum() == pytest.approx(scores[0][0, :3].exp().sum().item())

    uniform = [Chain(UniformGraph(3), p) for p in (told, untold)]
    ratios = [chain.log_score(alone, level)[0, 0] for chain in uniform]  # (3,) each
    mixed = 2 * ratios[0] - ratios[1]
    target = Chain(UniformGraph(3), truth).log_score(alone, level)[0, 0]
    assert (mixed - target).abs().max() > 0.1


@pytest.mark.parametrize(("old", "new"), [
    ("(1 + strength) * log_pi - strength * other", "strength * log_pi - strength * other"),
    ("(1 + strength) * log_pi - strength * other", "(1 + strength) * log_pi + strength * other"),
    ("(1 + strength) * log_pi - strength * other", "(1 + strength) * other - strength * log_pi"),
    ("torch.where(self.given, self.graph", "torch.where(~self.given, self.graph"),
    (".log_softmax(-1)  # (M, N)", ""),
])  # fmt: skip
def test_planted_bugs_are_seen(old, new):
    chain, seen = random_chain(AbsorbingGraph(2), length=3), []
    target, p0 = torch.zeros_like(chain.p0), chain.p0[:2, :2, :2]
    target[0, :2, :2] = law_in_order(p0[0] / p0[0].sum(), p0.sum(0), 1.0)
    levels = torch.full((27,), 0.8, dtype=torch.float64)
    for module in (file, planted(file, old, new)):
        step = module.Guidance(1.0, ByConfidence("left", at_once=1))
        found = law_of_sampler(exact_table(chain), chain.graph, NOISE, 3, 3, step, clamp=LABEL)
        guided = step.network(exact_table(chain), chain.graph, torch.tensor([[0, 2, 2]]),
                              torch.tensor([[False, True, True]]))  # fmt: skip
        x = torch.tensor([[0, 2, 2]])
        scores = guided(x, levels[:1], x == 2)[:, :2].exp().sum(-1) * torch.expm1(levels[:1])
        seen.append(total_variation(found, target) + (scores - 1).abs().max().item())
    assert seen[0] < 1e-9
    assert seen[1] > 1e-2


def test_each_sequence_is_guided_by_what_is_given_in_it():
    """Some positions here, others there; and steps that call for some of the sequences alone."""
    chain = random_chain(AbsorbingGraph(2), length=3)
    table, clamp = random_table(chain, seed=4, spread=2.0), torch.tensor([[0, -1, -1], [-1, 1, 0]])
    for step in ("tweedie", "confidence", "first-hitting", "remask"):
        run = table, chain.graph, NOISE
        x = sample(*run, (2, 3), 2, Guidance(3.0, step), clamp=clamp, generator=generators(1, 2))
        alone = [sample(*run, (1, 3), 2, Guidance(3.0, step), clamp=clamp[i],
                        generator=generators(1, 1, i)) for i in (0, 1)]  # fmt: skip
        assert torch.equal(x, torch.cat(alone))


def model(x, sigma, at=None):
    scores = torch.zeros(*x.shape, 4)
    return scores if at is None else scores[at]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: Guidance(-1), "strength of guidance must be at least 0, got -1"),
    (lambda: Guidance("much"), "strength of guidance must be a number, finite, got 'much'"),
    (lambda: Guidance(1, "analytic"), "method must be 'tweedie', .* got 'analytic'"),
    (lambda: run(Guidance(1)), "guidance needs something given, a label or a prompt: give clamp="),
    (lambda: run(Guidance(1, labels=())), "guidance needs something given"),
    (lambda: run(Guidance(1, labels=(9,))), r"labels must be positions in \[0, 4\), got 9"),
    (lambda: run(Guidance(1, labels=(1,))), "a label that is not there: position 1 is MASK"),
    (
        lambda: sample(model, UniformGraph(4), NOISE, (1, 4), 2, Guidance(1)),
        "guidance that hides what is given is for the absorbing graph",
    ),
    (
        lambda: sample(model, AbsorbingGraph(3), NOISE, (1, 2), 2, Guidance(1), clamp=[3, -1]),
        r"clamp must be int64 tokens in \[0, 3\)",  # a label out of range
    ),
])  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def run(step):
    return sample(model, AbsorbingGraph(3), NOISE, (1, 4), 2, step, generator=seeded())


def test_a_text_model_is_guided_by_its_prompt():
    words = TextModel(model, AbsorbingGraph(3), NOISE, WordTokenizer(["a", "b", "c"]), 4)
    (text,) = words.write(prompt="a", steps=3, sampler=Guidance(2.0))
    assert text.split()[0] == "a"
    with pytest.raises(ValueError, match="guidance needs something given"):
        words.write(steps=3, sampler=Guidance(2.0))
