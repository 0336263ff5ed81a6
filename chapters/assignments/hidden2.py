"""Hidden tests of assignment 2: other worlds, sizes and seeds. Students do not get this file."""

import itertools
import math

import tests2
import torch
from grading import Marks, close, expected

from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.worlds.ctmc import Chain, MatrixGraph


def check_term(world: dict, expected: dict) -> None:
    """ValueError in one line for a world that problem 6 cannot use."""
    p = torch.tensor(world["triples"], dtype=torch.float64)
    if p.shape != (2, 2, 2) or p.min() <= 0 or abs(p.sum() - 1) > 1e-9:
        raise ValueError("triples must be 2 x 2 x 2 positive numbers that sum to 1")
    one = [p.sum((1, 2)).reshape(2, 1, 1), p.sum((0, 2)).reshape(1, 2, 1), p.sum((0, 1))]
    if (p - one[0] * one[1] * one[2]).abs().sum() < 0.1:
        raise ValueError("triples must be further from independent: a total variation of 0.05")
    if not (isinstance(world["leaps"], int) and 2 <= world["leaps"] <= 50):
        raise ValueError(f"leaps must be a whole number from 2 to 50, not {world['leaps']}")
    if not 0.002 <= world["goal"] <= 0.5:
        raise ValueError(f"goal must be between 0.002 and 0.5, not {world['goal']}")


def bias(answer, *, points):
    """Losses with a minimiser in closed form, by pencil; targets with many values."""
    marks = Marks(points)
    generator = torch.Generator().manual_seed(4)
    R = torch.rand(30, generator=generator) ** 4 * 20 + 0.01
    chance = torch.rand(30, generator=generator).softmax(0)
    mean = (chance * R).sum()
    for power in (-1, 0.5):  # E R^p (s - R log s) is smallest at E R^(p+1) / E R^p
        want = ((chance * R ** (power + 1)).sum() / (chance * R**power).sum() / mean).log()
        with marks.part(1, f"score entropy with the weight R^{power}"):

            def loss(s, R, p=power):
                return R**p * (s - R * s.log())

            close(answer(loss, R.clone(), chance.clone()), want, "the bias", 0.002)
    with marks.part(1, "the Bregman divergence of u^1.5, which is safe"):
        found = answer(lambda s, R: s**1.5 / 3 - R * s**0.5, R.clone(), chance.clone())
        close(found, 0.0, "the bias", 0.002)
    with marks.part(1, "K built from s instead of R"):  # s log s - R log s: s (log s + 1) = E R
        found = answer(lambda s, R: s - R * s.log() + s * (s.log() - 1), R.clone(), chance.clone())
        s = mean * math.exp(float(found))
        close(s * (s.log() + 1), mean, "s (log s + 1) at the minimum", 0.006)
    with marks.part(1, "three quarters of the absolute error above, one below: a quantile"):
        R, chance = torch.tensor([0.02, 0.3, 0.7, 60.0]), torch.tensor([0.1, 0.3, 0.4, 0.2])

        def loss(s, R):
            return torch.where(R > s, 0.75 * (R - s), 0.25 * (s - R))

        close(answer(loss, R.clone(), chance.clone()), math.log(0.7 / 12.372), "the bias", 0.002)
    return marks.total()


def mixed_rates(N: int, a: float, b: float):
    """Q of the N words and MASK, (N + 1, N + 1)."""
    Q = torch.zeros(N + 1, N + 1, dtype=torch.float64)
    Q[:N, :N], Q[N, :N] = b / N, a
    Q -= Q.diagonal().diag()
    return Q - Q.sum(0).diag()


def few_states(N: int, a: float, b: float):
    """The same noise for x0, one other word, the N - 2 words that are left together, and MASK."""
    Q, sizes = torch.zeros(4, 4, dtype=torch.float64), torch.tensor([1, 1, N - 2]).double()
    Q[:3, :3], Q[3, :3] = b * sizes[:, None] / N, a
    return Q - Q.sum(0).diag()


def mixed(answer, *, points):
    """3 and 6 words by the matrix exponential; 30 000 by that of four lumped states."""
    marks = Marks(points)
    for title, pick in (("hidden", 0), ("unmoved", 1), ("moved", 2)):
        with marks.part(3, f"{title} tokens, three and six words"):
            for N, a, b, seed in ((3, 0.4, 1.7, 1), (6, 2.5, 0.3, 2)):
                generator = torch.Generator().manual_seed(seed)
                x0 = torch.randint(N, (3, 2), generator=generator)
                shift = torch.randint(1, N, (3, 2), generator=generator)
                x = (torch.full_like(x0, N), x0, (x0 + shift) % N)[pick]
                log_s = torch.randn(3, 2, N + 1, generator=generator).double()
                sigma = (3 * torch.rand(3, 1, generator=generator).double()) ** 2 + 0.05
                graph = MatrixGraph(mixed_rates(N, a, b))
                want = [
                    [graph.score_entropy(log_s[i, j][None], sigma[i], x[i, j][None], x0[i, j][None])
                     for j in range(2)] for i in range(3)
                ]  # fmt: skip
                found = answer(log_s.clone(), sigma.clone(), a, b, x.clone(), x0.clone())
                close(found, torch.tensor(want), "the loss", 1e-4)
        with marks.part(1, f"{title} tokens, 30 000 words"):
            N, a, b, level = 30_000, 0.7, 0.9, 1.3
            own, other = 1234, 29_000
            p = torch.matrix_exp(level * few_states(N, a, b))[:, 0]  # x0, one other, rest, MASK
            p = p / torch.tensor([1, 1, N - 2, 1])
            here = (3, 0, 1)[pick]
            R = p[:3] / p[here]
            scores = R * torch.tensor([2.0, 0.5, 0.8])  # of x0, the other word, the rest
            terms = scores - R * scores.log() + R * (R.log() - 1)
            count = torch.tensor([1, 1, N - 2]).double()
            if here < 3:
                count[here] = 0
            want = (a if here == 3 else b / N) * (count * terms).sum()
            log_s = scores[2].log().repeat(1, 1, N + 1)
            log_s[..., own], log_s[..., other] = scores[0].log(), scores[1].log()
            x = torch.tensor([[(N, own, other)[pick]]])
            found = answer(log_s, torch.tensor([[level]]).double(), a, b, x, torch.tensor([[own]]))
            unit = N if here == 0 else 1  # all targets of an unmoved word are of order 1/N
            found, want = unit * torch.as_tensor(found), unit * want.reshape(1, 1)
            close(found, want, f"{unit} times the loss", 1e-4)
    return marks.total()


def chain_of(seed: int, S: int, length: int) -> Chain:
    """A lopsided chain with every jump possible, and data with every sequence possible."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.rand(S, S, generator=generator).double() + 0.05
    Q -= Q.diagonal().diag()
    p0 = torch.rand((S,) * length, generator=generator).double() ** 2 + 0.02
    return Chain(MatrixGraph(Q - Q.sum(0).diag()), p0 / p0.sum())


def rivals(from_guess, from_blank, *, points):
    """Exact posteriors and conditionals of random worlds, by enumeration; other shapes of x."""
    marks = Marks(points)
    for seed, S, length, sigma in ((1, 3, 2, 0.4), (2, 4, 3, 1.1)):
        chain = chain_of(seed, S, length)
        kernel, true = chain.kernel(sigma), chain.scores(sigma)
        some = torch.randperm(len(chain.states), generator=torch.Generator().manual_seed(seed))[:7]
        x = chain.states[some]
        with marks.part(1, f"mean prediction, {length} tokens of {S} states"):
            guess = chain.posterior(sigma)[some]
            close(from_guess(kernel.clone(), guess, x.clone()), true[some], "the ratios")
        with marks.part(1, f"ratio matching, {length} tokens of {S} states"):
            blank = chain.conditionals(sigma)[some]
            close(from_blank(blank, x.clone()), true[some], "the ratios")
    return marks.total()


def bound(answer, *, points):
    """The library's bound by Gauss-Legendre quadrature, for scores that are wrong on purpose."""
    marks = Marks(points)

    def run(chain, shift, base, sigma_max):
        Q, exact = chain.token_rates(), tests2.exact(chain.token_rates(), chain.p0)

        def log_s(sigma):
            return exact(sigma) + shift

        def model(x, sigma):
            return log_s(sigma[:1])[0][x[:, 0]][:, None]

        want = chain.bound(model, sigma_max, log_base=base, nodes=60)  # right to 2e-4
        close(answer(Q.clone(), log_s, base.clone(), sigma_max), want, "the bound", 0.002)

    generator = torch.Generator().manual_seed(8)
    lopsided, data = (
        chain_of(3, 3, 1),
        torch.tensor([0.05, 0.3, 0.1, 0.2, 0.15, 0.2], dtype=torch.float64),
    )
    for chain in (lopsided, Chain(UniformGraph(6), data)):
        S = chain.num_states
        for title, sigma_max, base in (
            ("is nearly 0", 20.0, chain.marginal(20.0).log()),
            ("counts", 0.7, torch.linspace(1, 3, S).double().log_softmax(0)),
        ):
            with marks.part(1, f"{S} states, wrong scores, a prior term that {title}"):
                shift = 0.4 * torch.randn(S, S, generator=generator).double()
                run(chain, shift, base, sigma_max)
    return marks.total()


def leaps(answer, *, points):
    """The law pushed through each leap, with the library's exact step for a single token."""
    marks = Marks(points)
    for seed, N, times in (
        (1, 2, [1.0, 0.9, 0.35, 0.2, 0.0]),
        (2, 4, [1.0, 0.1, 0.05, 0.0]),
        (3, 3, [1 - k / 12 for k in range(12)] + [0.0]),
    ):
        p0 = torch.rand(N, N, generator=torch.Generator().manual_seed(seed)).double() ** 3 + 0.01
        p0 /= p0.sum()
        chain = Chain(AbsorbingGraph(N), p0)
        sigmas = [-math.log1p(-min(t, 1 - 1e-9)) for t in times]
        law = torch.zeros((N + 1) ** 2).double()
        law[-1] = 1.0  # both hidden
        for high, low in itertools.pairwise(sigmas):
            step = torch.tensor(high - low).double()
            rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), step)  # (n, 2, S)
            law = torch.einsum("n,na,nb->ab", law, rows[:, 0], rows[:, 1]).flatten()
        want = law.reshape(N + 1, N + 1)[:N, :N]
        with marks.part(1, f"{N} words, {len(times) - 1} leaps"):
            close(answer(p0.clone(), list(times)), want, "the law")
    return marks.total()


def term(law, tv, needed, *, points):
    """The instructor's own answers."""
    marks, answers = Marks(points), expected(__file__)
    with marks.part(3, "law is right within 0.001"):
        got, want = torch.as_tensor(law).double(), torch.tensor(answers["law"]).double()
        assert got.shape == want.shape, f"law should have the shape {tuple(want.shape)}"
        far = (got - want).abs().max()
        assert far <= 1e-3, f"one of its numbers is off by {far:.4f}"
    with marks.part(3, "tv is right within 0.001"):
        assert abs(float(tv) - answers["tv"]) <= 1e-3, f"it is {float(tv):.4f}"
    with marks.part(3, "needed is right"):
        assert needed == answers["needed"], f"it is {needed}"
    return marks.total()
