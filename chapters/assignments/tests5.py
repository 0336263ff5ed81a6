"""Visible tests of assignment 5: small cases, worked by hand. And three helpers of its problems."""

import functools
import math
from itertools import pairwise

import torch
from grading import Marks, close

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph
from sedd_mini.worlds.ctmc import Chain, total_variation

# ---- helpers of the problems ---------------------------------------------------------------------


def leap_rows(p0, K):
    """The rows of K leaps with uniform noise and exact ratios, from σ̄ = 8 down to 0.

    p0: the data's law, d axes of length S. A list of K tensors with d axes of length S, one of
    length d and one of length S: of each text, where each of its tokens was one leap earlier.
    """
    chain = Chain(UniformGraph(len(p0)), p0)
    levels = torch.logspace(math.log10(8), -3, K, dtype=torch.float64).tolist()
    return [
        chain.graph.tweedie_probs(
            chain.states, chain.scores(high), torch.tensor(high - low).double()
        ).reshape(*p0.shape, p0.ndim, len(p0))
        for high, low in pairwise([*levels, 0.0])
    ]


def error(graph, schedule, world):
    """The exact total variation from the data after 16 leaps by Tweedie's method and a last step.

    graph: "uniform" or "absorbing"; schedule: "geometric" or "log-linear"; world: a whole number,
    the seed of a world of two tokens with four values each.
    """
    generator = torch.Generator().manual_seed(world)
    p0 = torch.rand(4, 4, generator=generator).double() ** 3 + 0.01
    make = {"uniform": UniformGraph, "absorbing": AbsorbingGraph}[graph]
    noise = {"geometric": GeometricNoise(), "log-linear": LogLinearNoise()}[schedule]
    chain = Chain(make(4), p0 / p0.sum())
    levels = noise.total(torch.linspace(1, 1e-5, 17, dtype=torch.float64)).tolist()
    start = chain.graph.limit_log_prob(torch.arange(chain.num_states)).exp()
    p = start[:, None] * start
    for high, low in pairwise([*levels, 0.0]):
        dsigma = torch.tensor(high - low).double()
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), dsigma)  # (n, 2, S)
        p = torch.einsum("n,na,nb->ab", p.flatten(), rows[:, 0], rows[:, 1])
    return total_variation(p, chain.p0)


def surprise(world):
    """h: the bits that one masked token costs a perfect model that sees 0, 1, … others."""
    share, one = torch.tensor(world["kinds"], dtype=torch.float64).T[:, :, None]  # (kinds, 1)
    entropies = []  # of 0, 1, … length tokens
    for n in range(world["length"] + 1):
        k = torch.arange(n + 1)
        p = (share * one**k * (1 - one) ** (n - k)).sum(0)  # of one text with k ones
        ways = torch.tensor([math.comb(n, i) for i in range(n + 1)], dtype=torch.float64)
        entropies.append(-(ways * p * p.log2()).sum().item())
    return [more - less for less, more in pairwise(entropies)]


# ---- tests ---------------------------------------------------------------------------------------


def price(answer, *, points):
    """Two tokens with two values each."""
    marks = Marks(points)
    agree = torch.tensor([[0.4, 0.1], [0.1, 0.4]]).double()
    even, skew = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.75, 0.25]).double()
    with marks.part(2, "two tokens that agree in 8 of 10 cases share 0.2781 bits"):
        close(answer(agree.clone(), [even, even])[0], 0.278072, "shared")
    with marks.part(1, "rows that are the true marginals add nothing"):
        close(answer(agree.clone(), [even, even])[1], 0.0, "own")
    with marks.part(2, "one row of 0.75, 0.25 in place of 0.5, 0.5 adds 0.2075 bits"):
        close(answer(agree.clone(), [skew, even])[1], 0.207519, "own")
    with marks.part(1, "tokens that always agree share one bit: entries that are 0 add nothing"):
        close(answer(torch.eye(2).double() / 2, [even, even])[0], 1.0, "shared")
    return marks.total()


def pace(answer, *, points):
    """σ̄ = t, one and two leaps; and the log-linear schedule, where both methods agree."""
    marks = Marks(points)
    e = math.e
    with marks.part(1, "Euler, σ̄ = t, one leap from 1 to 1/2"):
        close(answer(lambda t: t, lambda t: 1.0, [1.0, 0.5], "euler"), 0.709012, "the result")
    with marks.part(1, "Tweedie, σ̄ = t, one leap from 1 to 1/2"):
        want = 1 - (math.sqrt(e) - 1) / (e - 1)
        close(answer(lambda t: t, lambda t: 1.0, [1.0, 0.5], "tweedie"), want, "the result")
    with marks.part(1, "Euler, σ̄ = t, two leaps from 1 to 1/4"):
        want = 0.709012 * (1 - 0.25 / (math.sqrt(e) - 1))
        close(answer(lambda t: t, lambda t: 1.0, [1.0, 0.5, 0.25], "euler"), want, "the result")
    with marks.part(1, "e^{−σ̄} = 1 − 0.9 t: both methods leave 0.2/0.8 of the masks"):
        for method in ("euler", "tweedie"):
            found = answer(
                lambda t: -math.log(1 - 0.9 * t), lambda t: 0.9 / (1 - 0.9 * t),
                [0.8, 0.55, 0.2], method,
            )  # fmt: skip
            close(found, 0.25, f"by {method}, the result")
    return marks.total()


def gumbel(kept, fewest_bits, *, points):
    """A move that is entitled to one random number, and its neighbours."""
    marks = Marks(points)
    with marks.part(2, "a move that is entitled to one random number keeps 1/(e − 1)"):
        for bits in (24, 10):
            p = torch.tensor([2.0**-bits]).double()
            close(kept(p, bits), [0.581977], f"kept(2^−{bits}, {bits})")
    with marks.part(1, "a move that is entitled to two of them keeps more"):
        close(kept(torch.tensor(2.0**-23).double(), 24), 0.770747, "kept(2^−23, 24)")
    with marks.part(1, "a move of 1e-15 keeps nothing, and that is no NaN"):
        close(kept(torch.tensor([1e-15]).double(), 24), [0.0], "kept(1e-15, 24)")
    with marks.part(2, "one move of 1e-7 needs 26 bits to keep nine tenths"):
        found = fewest_bits(torch.tensor([1e-7]).double(), 0.9)
        assert found == 26, f"fewest_bits([1e-7], 0.9) is {found}"
    return marks.total()


def check_weights(marks, found, given, num, name, weight=1):
    """Parts for the form of what fill returns, and for weights and worth that fit each other."""
    with marks.part(weight, name + "given tokens stay, gaps hold tokens"):
        x = torch.as_tensor(found()[0])
        assert x.shape == (num, len(given)), f"x has shape {tuple(x.shape)}"
        assert x.dtype == torch.int64, f"x is {x.dtype}"
        assert (x[:, given >= 0] == given[given >= 0]).all(), "a given token has changed"
        assert x.min() >= 0, "a gap holds a negative number"
    with marks.part(weight, name + "weights sum to 1, and worth is 1/Σw²"):
        _, w, worth = found()
        w = torch.as_tensor(w).double()
        assert w.shape == (num,), f"w has shape {tuple(w.shape)}"
        assert w.isfinite().all() and w.min() >= 0, "a weight is negative, infinite or NaN"
        close(w.sum(), 1.0, "the sum of the weights")
        close(worth, 1 / (w**2).sum(), "worth", 1e-3)


def fill(answer, *, points):
    """Two tokens with three values. The shares lie 5 standard errors or more from a false alarm."""
    marks = Marks(points)
    p0 = torch.tensor([[30.0, 2, 4], [3, 20, 2], [1, 3, 35]]).double() / 100
    given, rows = torch.tensor([1, -1]), leap_rows(p0, 32)

    @functools.cache
    def found():
        torch.manual_seed(5)
        return answer([table.clone() for table in rows], given.clone(), 2000)

    check_weights(marks, found, given, 2000, "")
    with marks.part(2, "after the first token 1, the second is 1 in 20 of 25 texts"):
        x, w, _ = found()
        share = float(torch.as_tensor(w) @ (x[:, 1] == 1).double())
        assert abs(share - 0.8) < 0.05, f"its weighted share is {share:.3f}"
    return marks.total()


def effects(answer, *, points):
    """Errors that are powers of two: one world."""
    marks = Marks(points)
    power = {("uniform", "geometric"): -1, ("uniform", "log-linear"): -2,
             ("absorbing", "geometric"): -1.5, ("absorbing", "log-linear"): -4.5}  # fmt: skip

    def found():
        return answer(lambda graph, schedule, world: 2.0 ** power[graph, schedule], [7])

    for key, want in (("graph", 1.5), ("schedule", 2.0), ("interaction", 2.0)):
        with marks.part(1, f"errors 2^−1, 2^−2 and 2^−1.5, 2^−4.5: the effect {key!r}"):
            close(found()[key], want, key)
    return marks.total()


def check_times(times) -> list[float]:
    """The times as numbers; AssertionError unless they are 17 that fall from 1 to 0."""
    found = torch.as_tensor(times).double()
    assert found.shape == (17,), f"times has shape {tuple(found.shape)}, and should have (17,)"
    ends = abs(found[0] - 1) < 1e-6 and abs(found[-1]) < 1e-6
    assert ends, "times must begin with 1 and end with 0"
    assert (found[1:] <= found[:-1]).all(), "times do not fall"
    return [1.0, *found[1:-1].tolist(), 0.0]


def term(cost, even, times, *, points):
    """Texts of two and three tokens, by hand. Whether even and times are right is tested hidden."""
    marks = Marks(points)
    with marks.part(2, "two tokens that share half a bit, leaps from 1 to 0.8 to 0.3 to 0"):
        close(cost([1.0, 0.5], [1.0, 0.8, 0.3, 0.0]), 0.19, "cost([1, 0.5], …)")
    with marks.part(3, "three tokens, leaps from 1 to 0.75 to 0"):
        close(cost([1.0, 0.5, 0.25], [1.0, 0.75, 0.0]), 0.722656, "cost([1, 0.5, 0.25], …)")
    with marks.part(2, "times fall from 1 to 0 in sixteen leaps, and even is a positive number"):
        check_times(times)
        assert 0 < float(even) < 1000, f"even is {float(even):g}"
    return marks.total()
