"""Visible tests of assignment 1: small chains, worked by hand."""

import math
from contextlib import contextmanager
from unittest import mock

import torch
from grading import Marks, close

WEATHER = torch.tensor([[-1.0, 2.0], [1.0, -2.0]]).double()  # stationary: 2/3, 1/3


def rates(answer, *, points):
    """Three states and three jumps."""
    marks = Marks(points)
    jumps = [(0, 1, 2.0), (1, 2, 0.5), (2, 0, 1.0)]
    with marks.part(2, "the jump 0 → 1 has its rate in row 1, column 0, and so on"):
        Q = torch.as_tensor(answer(3, list(jumps)))
        close([Q[1, 0], Q[2, 1], Q[0, 2]], [2.0, 0.5, 1.0], "the rates of the three jumps")
        close([Q[0, 1], Q[1, 2], Q[2, 0]], [0.0, 0.0, 0.0], "the rates of the opposite jumps")
    with marks.part(1, "every column sums to 0"):
        Q = torch.as_tensor(answer(3, list(jumps)))
        close(Q.diagonal(), [-2.0, -0.5, -1.0], "the diagonal")
    with marks.part(1, "the rates of a jump that stands in the list twice add up"):
        Q = answer(2, [(0, 1, 1.0), (0, 1, 0.5), (1, 0, 3.0)])
        close(Q, [[-1.5, 3.0], [1.5, -3.0]], "Q")
    return marks.total()


@contextmanager
def without_matrix_exp():
    """Where torch's own matrix exponential raises an error."""
    refuse = mock.Mock(side_effect=AssertionError("do it without torch.matrix_exp"))
    with (
        mock.patch("torch.matrix_exp", refuse),
        mock.patch("torch.linalg.matrix_exp", refuse),
        mock.patch("torch.Tensor.matrix_exp", refuse),
    ):
        yield


def kernel(answer, *, points):
    """Two states: the kernel is the stationary mixture, plus e^{-3σ̄} times the rest."""
    marks = Marks(points)
    with marks.part(1, "no noise changes nothing"), without_matrix_exp():
        close(answer(WEATHER.clone(), 0.0), torch.eye(2), "kernel(Q, 0)", 1e-6)
    with marks.part(2, "each column is a distribution"), without_matrix_exp():
        K = torch.as_tensor(answer(WEATHER.clone(), 1.0))
        close(K.sum(0), [1.0, 1.0], "the sums of the columns of kernel(Q, 1)", 1e-6)
    with marks.part(3, "the kernel for σ̄ = 1 is right within 1e-6"), without_matrix_exp():
        left = math.exp(-3.0)
        K = [[(2 + left) / 3, (2 - 2 * left) / 3], [(1 - left) / 3, (1 + 2 * left) / 3]]
        close(answer(WEATHER.clone(), 1.0), K, "kernel(Q, 1)", 1e-6)
    return marks.total()


def jump_time(still_there, time, *, points):
    """a = 1 and q = 2, from s = 0."""
    marks = Marks(points)
    t = torch.tensor([0.0, 0.5, 1.0]).double()
    with marks.part(1, "the token has not jumped at the start"):
        close(still_there(t[:1], 2.0, 1.0, 0.0), [1.0], "still_there(0, …)")
    with marks.part(2, "until t = 0.5 the noise is 0.25, until 1 it is 1"):
        want = [math.exp(-0.5), math.exp(-2.0)]
        close(still_there(t[1:], 2.0, 1.0, 0.0), want, "still_there([0.5, 1], 2, 1, 0)")
    with marks.part(2, "half of the tokens have jumped when 2 σ̄ = ln 2"):
        u = torch.tensor([0.5]).double()
        close(time(u, 2.0, 1.0, 0.0), [math.sqrt(math.log(2) / 2)], "jump_time(0.5, 2, 1, 0)")
    return marks.total()


def step_back(answer, *, points):
    """Two states, where Bayes' rule is short."""
    marks = Marks(points)
    low = torch.tensor([0.2, 0.8]).double()  # at less noise

    def bayes(h, x):
        K = torch.matrix_exp(h * WEATHER)
        return (K @ low) / (K @ low)[x], K[x] * low / (K @ low)[x]

    with marks.part(1, "without a step the token was where it is"):
        close(answer(1, bayes(0.0, 1)[0], WEATHER.clone(), 0.0), [0.0, 1.0], "h = 0: the result")
    with marks.part(1, "the result is a distribution"):
        found = torch.as_tensor(answer(0, bayes(0.7, 0)[0], WEATHER.clone(), 0.7))
        close(found.sum(), 1.0, "its sum")
        assert found.min() >= -1e-9, f"it holds {found.min():.4g}, which is negative"
    for h, weight in ((1e-3, 1), (0.7, 3)):
        with marks.part(weight, f"for h = {h} it agrees with Bayes' rule"):
            for x in (0, 1):
                ratios, want = bayes(h, x)
                found = answer(x, ratios, WEATHER.clone(), h)
                close(found, want, f"from state {x}: the result", 1e-5)
    return marks.total()


def reaches_all(Q) -> bool:
    """Does a path of jumps lead from every state to every other one?"""
    Q = torch.as_tensor(Q)
    reached = (Q > 0).double() + torch.eye(len(Q)).double()  # in one jump, or in none
    for _ in range(len(Q).bit_length()):  # each squaring doubles the number of jumps
        reached = (reached @ reached > 0).double()
    return bool(reached.all())


def check_one_way(marks, answer, mixture):
    """The claims about a one-way chain, as parts of the marks."""
    name = f"with {len(mixture)} states: "

    def found():
        Q = torch.as_tensor(answer(mixture.clone())).double()
        S = len(mixture)
        assert Q.shape == (S, S), f"Q has shape {tuple(Q.shape)}, and should have {(S, S)}"
        rates = Q - Q.diagonal().diag()
        assert Q.isfinite().all() and rates.min() >= 0, "rates of jumps must be finite, and ≥ 0"
        close(Q.sum(0), torch.zeros(S), "the sums of its columns", 1e-6)
        assert rates.max() > 0, "it has no jumps"
        return Q

    with marks.part(2, name + "the mixture is stationary"):
        close(found() @ mixture.double(), torch.zeros(len(mixture)), "Q p", 1e-6)
    with marks.part(1, name + "a token jumps once per unit of σ̄"):
        close(-found().diagonal() @ mixture.double(), 1.0, "the mean number of jumps", 1e-6)
    with marks.part(2, name + "there are no two opposite jumps, and every state is reached"):
        Q = found()
        both = ((Q > 0) & (Q.T > 0)).any()
        assert not both, "two states have jumps in both directions"
        assert reaches_all(Q), "some state is never reached from some other one"


def one_way(answer, *, points):
    """Three states with unequal shares."""
    marks = Marks(points)
    check_one_way(marks, answer, torch.tensor([0.5, 0.3, 0.2]).double())
    return marks.total()


def page(answer, *, points):
    """Two texts of two words."""
    marks = Marks(points)
    one = torch.ones(2, 2) * math.log(2)  # one bit a word
    everything, half = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[1, 0], [0, 1]]).bool()
    three = torch.tensor([[1, 1], [1, 0]]).bool()
    with marks.part(1, "with everything hidden, words of one bit each cost one bit a word"):
        close(answer(one.clone(), everything, torch.ones(2)), 1.0, "the loss")
    with marks.part(1, "with t = 1/2 and half of the words hidden it is still one bit a word"):
        close(answer(one.clone(), half, torch.full((2,), 0.5)), 1.0, "the loss")
    with marks.part(1, "with t = 1/2 and 3 of 4 words hidden it is 6 bits for 4 words"):
        close(answer(one.clone(), three, torch.full((2,), 0.5)), 1.5, "the loss")
    return marks.total()


def term(stationary, noisy, back, world, *, points):
    """Only what kind of numbers they are; whether they are right, the hidden tests say."""
    marks = Marks(points)
    size = len(world["data"])
    for name, found in (("stationary", stationary), ("noisy", noisy)):
        with marks.part(1, f"{name} is a distribution"):
            found = torch.as_tensor(found).double()
            assert found.shape == (size,), f"it should hold {size} numbers"
            close(found.sum(), 1.0, "its sum", 1e-3)
            assert found.min() >= 0, "it has a negative entry"
    with marks.part(1, "back holds rates that sum to 0"):
        found = torch.as_tensor(back).double()
        assert found.shape == (size,), f"it should hold {size} numbers"
        close(found.sum(), 0.0, "its sum", 3e-3)
        assert found[world["state"]] <= 0, "its entry at the state itself is positive"
    return marks.total()
