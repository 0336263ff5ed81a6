"""Hidden tests of assignment 1: other chains, sizes and seeds. Students do not get this file."""

import math

import tests1
import torch
from grading import Marks, close, expected
from tests1 import without_matrix_exp

from sedd_mini.worlds.ctmc import Chain, MatrixGraph


def check_term(world: dict, expected: dict) -> None:
    """ValueError in one line for a world that problem 7 cannot use."""
    graph = MatrixGraph(torch.tensor(world["rates"], dtype=torch.float64))
    graph.limit()  # like the line before, raises ValueError for what is not one
    data = torch.tensor(world["data"], dtype=torch.float64)
    if len(data) != graph.num_states or data.min() <= 0 or abs(data.sum() - 1) > 1e-9:
        raise ValueError(f"data must be {graph.num_states} positive numbers that sum to 1")
    if not 0.05 <= world["sigma"] <= 2:
        raise ValueError(f"sigma must be between 0.05 and 2, not {world['sigma']}")
    if not (isinstance(world["state"], int) and 0 <= world["state"] < graph.num_states):
        raise ValueError(f"state must be one of 0 … {graph.num_states - 1}, not {world['state']}")


def random_rates(S: int, seed: int, scale: float = 1.0):
    """A rate matrix with every jump possible, and rates of different sizes."""
    generator = torch.Generator().manual_seed(seed)
    Q = torch.rand(S, S, generator=generator).double() ** 3 * scale
    Q -= Q.diagonal().diag()
    return Q - Q.sum(0).diag()


def rates(answer, *, points):
    """Five and two states, with jumps in both directions and one that is repeated."""
    marks = Marks(points)
    Q = random_rates(5, seed=3)
    jumps = [(x, y, float(Q[y, x])) for x in range(5) for y in range(5) if x != y]
    for title, given in (("all jumps of 5 states", jumps), ("in another order", jumps[::-1])):
        with marks.part(1, title):
            close(answer(5, list(given)), Q, "Q")
    with marks.part(1, "some jumps are repeated"):
        halves = [(x, y, rate / 2) for x, y, rate in jumps]
        close(answer(5, halves + halves[::-1]), Q, "Q")
    with marks.part(1, "a state without jumps, and float64"):
        found = answer(4, [(3, 1, 0.25)])
        want = torch.zeros(4, 4)
        want[1, 3], want[3, 3] = 0.25, -0.25
        close(found, want, "Q")
        assert found.dtype == torch.float64, f"Q is {found.dtype}"
    return marks.total()


def kernel(answer, *, points):
    """Half of the points for slow chains, half for fast ones (rates up to 100)."""
    marks = Marks(points)
    slow, fast = random_rates(4, seed=5), random_rates(7, seed=6, scale=100.0)
    for title, Q, sigmas in (("slow", slow, (0.01, 1.5)), ("fast", fast, (50.0, 100.0))):
        for sigma in sigmas:
            want = MatrixGraph(Q).kernel(sigma)
            with marks.part(1, f"a {title} chain at σ̄ = {sigma}"), without_matrix_exp():
                close(answer(Q.clone(), sigma), want, "the kernel", 1e-6)
    return marks.total()


def jump_time(still_there, time, *, points):
    """Other q, a and s; and the two functions belong together."""
    marks = Marks(points)
    t = torch.tensor([[0.7, 0.9], [1.3, 2.0]]).double()
    with marks.part(2, "probabilities for q = 0.8, a = 1.7, s = 0.6"):
        want = [[math.exp(-0.8 * 1.7 * (v * v - 0.36)) for v in row] for row in t.tolist()]
        close(still_there(t.clone(), 0.8, 1.7, 0.6), want, "still_there")
    u = torch.linspace(0.02, 0.98, 25).double()
    for q, a, s in ((0.8, 1.7, 0.6), (5.0, 0.3, 0.0)):
        with marks.part(1, f"times for q = {q}, a = {a}, s = {s}"):
            want = [math.sqrt(s * s - math.log(v) / (q * a)) for v in u.tolist()]
            close(time(u.clone(), q, a, s), want, "jump_time")
    with marks.part(1, "a token that starts later jumps later"):
        early, late = time(u.clone(), 1.3, 0.9, 0.2), time(u.clone(), 1.3, 0.9, 1.1)
        assert (early > 0.2).all() and (late > 1.1).all() and (late > early).all()
    return marks.total()


def step_back(answer, *, points):
    """Bayes' rule by the oracle, for three and six states; tiny steps first."""
    marks = Marks(points)
    for S, h, weight in ((3, 1e-3, 1), (6, 1e-3, 1), (3, 0.4, 2), (6, 2.0, 2)):
        with marks.part(weight, f"{S} states, h = {h}"):
            Q = random_rates(S, seed=10 * S)
            data = torch.linspace(1, 3, S).double()
            chain = Chain(MatrixGraph(Q), data / data.sum())
            low, high = chain.marginals(torch.tensor([0.3, 0.3 + h]))
            step = MatrixGraph(Q).kernel(h)
            for x in (0, S - 1):
                want = step[x] * low / high[x]
                close(answer(x, high / high[x], Q.clone(), h), want, f"from state {x}", 1e-5)
    return marks.total()


def one_way(answer, *, points):
    """Four and twenty states: a way around twenty must count as a way."""
    marks = Marks(points)
    for S in (4, 20):
        mixture = torch.linspace(1, 2.5, S).double().flip(0)
        tests1.check_one_way(marks, answer, mixture / mixture.sum())
    return marks.total()


def page(answer, *, points):
    """Every text with its own share, and the sum written out."""
    marks = Marks(points)
    generator = torch.Generator().manual_seed(2)
    surprise = torch.rand(3, 7, generator=generator) * 4
    hidden = torch.rand(3, 7, generator=generator) < 0.5
    for title, t in (("one share for all", [0.5] * 3), ("a share for each text", [0.2, 0.5, 0.9])):
        want = sum(
            float(surprise[i, j]) / t[i] for i in range(3) for j in range(7) if hidden[i, j]
        )
        with marks.part(1, title):
            found = answer(surprise.clone(), hidden.clone(), torch.tensor(t))
            close(found, want / 21 / math.log(2), "the loss")
    return marks.total()


def term(stationary, noisy, back, *, points):
    """The instructor's own answers."""
    marks, answers = Marks(points), expected(__file__)
    for name, found in (("stationary", stationary), ("noisy", noisy), ("back", back)):
        with marks.part(1, f"{name} is right within 0.001"):
            got, want = torch.as_tensor(found).double(), torch.tensor(answers[name]).double()
            assert got.shape == want.shape, f"{name} should hold {len(want)} numbers"
            far = (got - want).abs().max()
            assert far <= 1e-3, f"one of its numbers is off by {far:.4f}"
    return marks.total()
