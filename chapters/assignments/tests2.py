"""Visible tests of assignment 2: small worlds, worked by hand."""

import math

import torch
from grading import Marks, close


def bias(answer, *, points):
    """A target that is 0.5 four times out of five, and 4 otherwise: its mean is 1.2."""
    marks = Marks(points)
    R, chance = torch.tensor([0.5, 4.0]), torch.tensor([0.8, 0.2])
    losses = (
        ("least squares is safe", lambda s, R: (s - R) ** 2 / 2, 0.0),
        ("so is score entropy", lambda s, R: s - R * s.log(), 0.0),
        # the geometric mean: 0.5^0.8 · 4^0.2 = 2^-0.4
        ("squared logarithms find the geometric mean, 2^-0.4",
         lambda s, R: (s.log() - R.log()) ** 2, math.log(2**-0.4 / 1.2)),
        ("absolute errors find the median, 0.5",
         lambda s, R: (s - R).abs(), math.log(0.5 / 1.2)),
    )  # fmt: skip
    for claim, loss, want in losses:
        with marks.part(1, claim):
            close(answer(loss, R.clone(), chance.clone()), want, "the bias", 0.002)
    return marks.total()


def mixed(answer, *, points):
    """Two words, a = 1, σ̄ = ln 2: half are hidden, and a word is right with (1 + 2^-b) / 2."""
    marks = Marks(points)
    sigma, x0, zero = torch.tensor([[math.log(2)]]), torch.tensor([[0]]), torch.zeros(1, 1, 3)
    cases = (
        ("a hidden token", 2, 1.0, 1 + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)),
        ("a word that has not moved", 0, 1.0, (2 / 3 + math.log(1 / 3) / 3) / 2),
        ("a word that has moved, b = 2", 1, 2.0, (5 * math.log(5 / 3) - 2) / 3),  # R = 5/3
    )
    for title, x, b, want in cases:
        with marks.part(1, f"{title}: its loss where every score is 1"):
            found = answer(zero.clone(), sigma.clone(), 1.0, b, torch.tensor([[x]]), x0.clone())
            close(found, [[want]], "the loss")
        with marks.part(1, f"{title}: the scores that hit their targets cost nothing"):
            p = torch.tensor([(1 + 2**-b) / 4, (1 - 2**-b) / 4, 1 / 2])
            log_s = (p / p[x]).log().expand(1, 1, 3).clone()
            found = answer(log_s, sigma.clone(), 1.0, b, torch.tensor([[x]]), x0.clone())
            close(found, [[0.0]], "the loss")
            log_s = log_s + 0.3
            found = answer(log_s, sigma.clone(), 1.0, b, torch.tensor([[x]]), x0.clone())
            assert torch.as_tensor(found).item() > 1e-3, "scores that miss cost nothing"
    return marks.total()


def rivals(from_guess, from_blank, *, points):
    """Two states: 1/4 of the data are 0, and noise moves 0 → 1 more easily than back."""
    marks = Marks(points)
    kernel = torch.tensor([[0.6, 0.2], [0.4, 0.8]])  # p(y | a): row y, column a
    # p(x = 0) = 0.25 · 0.6 + 0.75 · 0.2 = 0.3; p(original 0 | x = 0) = 0.15 / 0.3 = 1/2
    # p(x = 1) = 0.25 · 0.4 + 0.75 · 0.8 = 0.7; p(original 0 | x = 1) = 0.10 / 0.7 = 1/7
    x = torch.tensor([[0, 1]])
    ratios = [[[1.0, 7 / 3], [3 / 7, 1.0]]]
    with marks.part(2, "mean prediction: a perfect guess gives the ratios 7/3 and 3/7"):
        guess = torch.tensor([[[1 / 2, 1 / 2], [1 / 7, 6 / 7]]])
        close(from_guess(kernel.clone(), guess, x.clone()), ratios, "the ratios")
    with marks.part(1, "ratio matching: so does a perfect answer to the blank"):
        close(from_blank(torch.tensor([[[0.3, 0.7], [0.3, 0.7]]]), x.clone()), ratios, "the ratios")
    with marks.part(1, "ratio matching: the ratio is 1 at y = x"):
        found = torch.as_tensor(from_blank(torch.full((1, 2, 3), 1 / 3), x.clone()))
        close(found, torch.ones(1, 2, 3), "the ratios of a flat answer")
    return marks.total()


def exact(Q, p0):
    """The function log_s of exact ratios for a token with distribution p0."""

    def log_s(sigma):
        log_p = (torch.matrix_exp(sigma[:, None, None] * Q) @ p0).log()  # (M, S)
        return log_p[:, None, :] - log_p[:, :, None]

    return log_s


def bound(answer, *, points):
    """What is known without a computation: a coin, and the equality for exact ratios."""
    marks = Marks(points)
    coin = torch.tensor([[-0.5, 0.5], [0.5, -0.5]]).double()
    flat = torch.full((2,), math.log(0.5)).double()
    for sigma_max, prior in ((20.0, "nearly 0"), (0.3, "not small")):
        with marks.part(1, f"a fair coin costs log 2 a side (σ̄ to {sigma_max}, prior {prior})"):
            found = answer(coin.clone(), lambda sigma: torch.zeros(len(sigma), 2, 2).double(),
                           flat.clone(), sigma_max)  # fmt: skip
            close(found, [math.log(2)] * 2, "the bound", 0.002)
    Q = torch.tensor([[-1.0, 0.4, 0.3], [0.7, -0.9, 0.1], [0.3, 0.5, -0.4]]).double()
    p0 = torch.tensor([0.5, 0.2, 0.3]).double()
    for sigma_max in (15.0, 0.8):
        with marks.part(1, f"exact ratios, p_base = p_T: the bound is -log p0 (σ̄ to {sigma_max})"):
            base = (torch.matrix_exp(sigma_max * Q) @ p0).log()
            found = answer(Q.clone(), exact(Q, p0), base, sigma_max)
            close(found, -p0.log(), "the bound", 0.002)
    return marks.total()


def leaps(answer, *, points):
    """Two words that are always equal, each half of the time."""
    marks = Marks(points)
    p = torch.tensor([[0.5, 0.0], [0.0, 0.5]]).double()
    with marks.part(1, "in a single leap the tokens are independent"):
        close(answer(p.clone(), [1.0, 0.0]), torch.full((2, 2), 0.25), "the law")
    with marks.part(1, "in two equal leaps they share one with probability 1/2"):
        want = [[0.375, 0.125], [0.125, 0.375]]
        close(answer(p.clone(), [1.0, 0.5, 0.0]), want, "the law")
    with marks.part(1, "with times 1, 3/4, 0 they share one with probability 1/16 + 9/16"):
        want = [[0.34375, 0.15625], [0.15625, 0.34375]]
        close(answer(p.clone(), [1.0, 0.75, 0.0]), want, "the law")
    with marks.part(1, "independent tokens are no problem"):
        p = torch.tensor([[0.06, 0.14], [0.24, 0.56]]).double()
        close(answer(p.clone(), [1.0, 0.2, 0.0]), p, "the law")
    return marks.total()


def term(law, tv, needed, *, points):
    """Form only: whether the numbers are right is tested out of sight."""
    marks = Marks(points)
    with marks.part(1, "law is a distribution over eight triples"):
        found = torch.as_tensor(law).double()
        assert found.shape == (2, 2, 2), f"its shape is {tuple(found.shape)}"
        close(found.sum(), 1.0, "its sum", 1e-3)
        assert found.min() >= 0, f"it holds {found.min():.4g}"
    with marks.part(1, "tv is a number between 0 and 1"):
        assert 0 < float(tv) < 1, f"it is {tv}"
    with marks.part(1, "needed is a whole number, at least 1"):
        assert int(needed) == needed and needed >= 1, f"it is {needed}"
    return marks.total()
