"""Hidden tests of assignment 5: other worlds, sizes and seeds. Students do not get this file."""

import functools
import itertools
import math

import tests5
import torch
from grading import Marks, close, expected
from grading import term as read_term

from sedd_mini import AbsorbingGraph, GeometricNoise, UniformGraph
from sedd_mini.worlds.ctmc import Chain, MatrixGraph, normalise


def check_term(world: dict, expected: dict) -> None:
    """ValueError in one line for a world that problem 6 cannot use."""
    kinds = torch.tensor(world["kinds"], dtype=torch.float64)
    if kinds.ndim != 2 or kinds.shape[1] != 2 or len(kinds) < 2:
        raise ValueError("kinds must be two or more pairs: a share and the probability of a 1")
    if kinds[:, 0].min() <= 0 or abs(kinds[:, 0].sum() - 1) > 1e-9:
        raise ValueError("the shares of the kinds must be positive and sum to 1")
    if kinds[:, 1].min() <= 0 or kinds[:, 1].max() >= 1:
        raise ValueError("the probability of a 1 must lie between 0 and 1 in each kind")
    if not (isinstance(world["length"], int) and 8 <= world["length"] <= 48):
        raise ValueError(f"length must be from 8 to 48, not {world['length']}")
    h = tests5.surprise(world)
    even = paid(h, [1 - k / 16 for k in range(17)]) - sum(h)
    if not 0 < world["best"] < world["good"] < 0.8 * even:
        raise ValueError(f"best and good must be positive, in this order, below {0.8 * even:.4f}")


def random_law(shape, seed: int, power: float = 2.0):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(*shape, generator=generator).double() ** power + 0.002
    return p / p.sum()


# ---- 1. price ------------------------------------------------------------------------------------


def divergences(joint, rows):
    """(shared, own) in bits, entry by entry."""
    places = list(itertools.product(*(range(n) for n in joint.shape)))
    marginals = [[0.0] * n for n in joint.shape]
    for place in places:
        for i, value in enumerate(place):
            marginals[i][value] += float(joint[place])
    shared, own = 0.0, 0.0
    for place in places:
        alone = math.prod(marginals[i][value] for i, value in enumerate(place))
        if joint[place] > 0:
            shared += float(joint[place]) * math.log2(float(joint[place]) / alone)
    for marginal, row in zip(marginals, rows, strict=True):
        for p, q in zip(marginal, row.tolist(), strict=True):
            own += 0 if p == 0 else math.inf if q == 0 else p * math.log2(p / q)
    return shared, own


def price(answer, *, points):
    """Euler's rows on two tokens by the oracle; two unlike tokens; three tokens; zeros in rows."""
    marks = Marks(points)
    chain = Chain(UniformGraph(3), random_law((3, 3), 1))
    kernel, x = chain.kernel(0.5), chain.states[5]
    joint = kernel[x[0]][:, None] * kernel[x[1]] * chain.marginal(0.7)
    joint = joint / joint.sum()  # of where both tokens were, at σ̄ = 0.7, given x at σ̄ = 1.2
    score = chain.scores(1.2)[5]
    tweedie = list(chain.graph.tweedie_probs(x, score, torch.tensor(0.5).double()))
    euler = 0.5 * chain.graph.reverse_rates(x, score)
    euler = list(normalise(euler + torch.nn.functional.one_hot(x, 3)))
    with marks.part(1, "Tweedie's leap pays what is shared, and nothing else"):
        close(answer(joint.clone(), tweedie), [divergences(joint, tweedie)[0], 0.0], "price")
    with marks.part(1, "Euler's leap pays more"):
        want = divergences(joint, euler)
        assert want[1] > 1e-3
        close(answer(joint.clone(), euler), want, "price")
    with marks.part(1, "two tokens with different numbers of values"):
        joint, rows = random_law((2, 5), 2), [random_law((2,), 3), random_law((5,), 4)]
        close(answer(joint.clone(), rows), divergences(joint, rows), "price")
    with marks.part(1, "rows with zeros, where nothing can occur and where something can"):
        joint = torch.tensor([[0.3, 0.0, 0.2], [0.0, 0.0, 0.5]]).double()
        sure = [random_law((2,), 5), torch.tensor([0.5, 0.0, 0.5]).double()]
        close(answer(joint.clone(), sure), divergences(joint, sure), "price")
        wrong = [random_law((2,), 5), torch.tensor([0.0, 0.5, 0.5]).double()]
        assert answer(joint.clone(), wrong)[1] == math.inf, "own should be infinite"
    with marks.part(4, "three tokens"):
        joint = random_law((2, 3, 4), 6, 4)
        rows = [random_law((n,), 7 + n) for n in (2, 3, 4)]
        close(answer(joint.clone(), rows), divergences(joint, rows), "price")
    return marks.total()


# ---- 2. pace -------------------------------------------------------------------------------------


def masked_by_oracle(total, rate, times, method):
    """One token of three values on the absorbing graph, its law pushed through the leaps."""
    graph = MatrixGraph.of(AbsorbingGraph(3))
    chain = Chain(graph, torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))
    p, x = torch.tensor([0.0, 0, 0, 1]).double(), torch.arange(4)
    for t, t_next in itertools.pairwise(times):
        score = chain.scores(total(t))[:, 0]
        if method == "euler":
            rows = torch.eye(4) + (t - t_next) * rate(t) * graph.reverse_rates(x, score)
            rows = normalise(rows)
        else:
            rows = graph.tweedie_probs(x, score, torch.tensor(total(t) - total(t_next)).double())
        p = p @ rows
    return p[3].item()


def pace(answer, *, points):
    """A square schedule, the geometric one, and leaps that Euler cannot take."""
    marks = Marks(points)
    noise = GeometricNoise(1e-3, 5.0)
    square = (lambda t: 3 * t * t, lambda t: 6 * t)
    geometric = (
        lambda t: float(noise.total(torch.tensor(t).double())),
        lambda t: float(noise.rate(torch.tensor(t).double())),
    )
    for name, schedule in (("σ̄ = 3 t²", square), ("geometric", geometric)):
        for method in ("euler", "tweedie"):
            with marks.part(1, f"{name}, uneven leaps, by {method}"):
                times = [0.95, 0.9, 0.86, 0.8, 0.71, 0.68, 0.6]
                want = masked_by_oracle(*schedule, times, method)
                close(answer(*schedule, list(times), method), want, "the result")
    with marks.part(2, "geometric, leaps so long that Euler's probability exceeds 1"):
        times = [0.8, 0.6, 0.2, 0.0]
        want = masked_by_oracle(*geometric, times, "euler")
        close(answer(*geometric, list(times), "euler"), want, "the result")
    return marks.total()


# ---- 3. gumbel -----------------------------------------------------------------------------------


def kept_by_counting(p: float, bits: int) -> float:
    """P(move)/p beside a stay of 1 − p, over all pairs of random numbers of so many bits."""
    u = torch.arange(2**bits).double() / 2**bits + 1e-10  # against log 0
    g = -torch.log(-torch.log(u))
    stay = g + math.log1p(-p)
    return (torch.searchsorted(stay, g + math.log(p)).double().sum() / 4.0**bits / p).item()


def kept_by_sum(p: float, bits: int) -> float:
    """The law's sum: Σ_k 2^−b exp(−k/c), divided by p."""
    c = p * 2.0**bits
    k = torch.arange(1, int(60 * c) + 60).double()
    return (torch.exp(-k / c).sum() / c).item()


def gumbel(kept, fewest_bits, *, points):
    """All pairs tried at 12 bits; the sum of the law; both ends; rows of many moves."""
    marks = Marks(points)
    with marks.part(1, "12 bits, all pairs of random numbers tried: right within 0.005"):
        p = [1e-4, 3e-4, 6e-4, 1e-3]
        found = kept(torch.tensor(p).double(), 12)
        close(found, [kept_by_counting(v, 12) for v in p], "kept(p, 12)", 5e-3)
    with marks.part(2, "other widths, and p with two axes"):
        for bits in (8, 16, 23):
            p = torch.tensor([[0.1, 0.5, 2.0], [4.0, 17.0, 99.0]]).double() / 2**bits
            want = [[kept_by_sum(v, bits) for v in row] for row in p.tolist()]
            want = torch.tensor(want, dtype=torch.float64)
            close(kept(p.clone(), bits), want, f"kept(p, {bits})", 1e-9)
    with marks.part(2, "with 53 bits or more even a rare move keeps nearly everything"):
        p = torch.tensor([1e-3, 1e-6, 1e-9]).double()
        for bits in (53, 60):
            want = 1 - 1 / (2 * p * 2.0**bits)  # 1 − 1/(2c) + …
            close(kept(p.clone(), bits), want, f"kept(p, {bits})", 1e-9)
    with marks.part(1, "one move, several shares"):
        for p, share in ((1e-5, 0.5), (3e-9, 0.99), (0.01, 0.9)):
            found = fewest_bits(torch.tensor([p]).double(), share)
            want = next(b for b in range(1, 65) if closed(p, b) >= share)
            assert found == want, f"for p = {p:g} and a share of {share} it is {found}, not {want}"
    with marks.part(2, "rows of many moves, common and rare"):
        for size, K, share in ((3000, 256, 0.9), (100, 64, 0.999)):
            moves = 1 / torch.arange(1, size + 1).double()
            moves = moves / moves.sum() / K
            found = fewest_bits(moves.clone(), share)
            values, total = moves.tolist(), moves.sum().item()
            want = next(
                b for b in range(1, 65) if sum(v * closed(v, b) for v in values) >= share * total
            )
            assert found == want, f"for {size} moves it is {found}, not {want}"
    return marks.total()


def closed(p: float, bits: int) -> float:
    """The sum of `kept_by_sum` as a geometric series."""
    c = p * 2.0**bits
    return 0.0 if c < 2e-3 else 1 / c / math.expm1(1 / c)


# ---- 4. fill -------------------------------------------------------------------------------------


def weighted_by_oracle(rows, given):
    """(law of the weighted texts, share of the fillings that the weights leave), by enumeration.

    Two vectors over all texts are pushed through the leaps: E[w; x] and E[w²; x].
    """
    d, S = rows[0].shape[-2:]
    states = torch.cartesian_prod(*[torch.arange(S)] * d)
    here = ((states == given) | (given < 0)).all(1)
    first = [here.double() / here.sum()] * 2
    for table in rows:
        lines = table[tuple(states.T)]  # (n, d, S)
        stays = lines.gather(-1, states[..., None])[..., 0]
        stays = torch.where(given < 0, 1.0, stays).prod(1)
        move = torch.ones(len(states), len(states)).double()
        for i in range(d):
            if given[i] < 0:
                move = move * lines[:, i][:, states[:, i]]
            else:
                move = move * (states[:, i] == given[i])
        first = [(p * stays**k) @ move for k, p in enumerate(first, 1)]
    mean, square = first
    return (mean / mean.sum()).reshape((S,) * d), (mean.sum() ** 2 / square.sum()).item()


def fill(answer, *, points):
    """Three tokens of three values, one and two given; then a run of 200 leaps.

    Each weighted share is held against its exact value within 4.5 standard errors: a false alarm
    in 1 of 10 000 for the twelve shares together.
    """
    marks, num = Marks(points), 3000
    p0 = 0.95 * random_law((3, 3, 3), 11, 6) + 0.05 / 27
    rows = tests5.leap_rows(p0, 16)
    for given in ([-1, 2, -1], [0, -1, 1]):
        given = torch.tensor(given)
        law, left = weighted_by_oracle(rows, given)

        @functools.cache
        def found(given=given):
            torch.manual_seed(8)
            return answer([table.clone() for table in rows], given.clone(), num)

        name = f"given {given.tolist()}: "
        tests5.check_weights(marks, found, given, num, name, weight=1)
        with marks.part(2, name + "weighted shares agree with the exact ones"):
            x, w, _ = found()
            w = torch.as_tensor(w).double()
            for i in (given < 0).nonzero()[:, 0].tolist():
                others = [j for j in range(3) if j != i]
                for value, want in enumerate(law.sum(others).tolist()):
                    hit = (x[:, i] == value).double()
                    spread = ((w * (hit - want)) ** 2).sum().sqrt()
                    off = abs(float(w @ hit) - want)
                    assert off < 4.5 * spread + 1e-3, (
                        f"token {i} is {value} with share {float(w @ hit):.3f}, not {want:.3f}"
                    )
        with marks.part(1, name + "the fillings are worth what they should be"):
            _, _, worth = found()
            assert abs(float(worth) / num / left - 1) < 0.15, (
                f"{num} fillings are worth {float(worth):.0f}, and should be near {left * num:.0f}"
            )
    with marks.part(2, "200 leaps, in each of which the given token stays with probability 0.01"):
        table = torch.full((2, 2, 2, 2), 0.5).double()
        table[:, :, 0] = torch.tensor([0.01, 0.99])
        x, w, worth = answer([table] * 200, torch.tensor([0, -1]), 50)
        close(w, torch.full((50,), 1 / 50), "w")
        close(worth, 50.0, "worth")
        assert (x[:, 0] == 0).all(), "the given token has changed"
    return marks.total()


# ---- 5. effects ----------------------------------------------------------------------------------


def effects(answer, *, points):
    """A known model of the logarithms; worlds with errors of different size."""
    marks = Marks(points)
    graphs, schedules = ("uniform", "absorbing"), ("geometric", "log-linear")

    def model(graph, schedule, world):
        g, s = graphs.index(graph), schedules.index(schedule)
        log = -3 - 0.3 * g * (1 + world) - 0.7 * s - 1.1 * g * s * (2 - world) - 2 * world
        return 2.0**log

    worlds = [0, 1, 2, 5]
    mean = sum(worlds) / len(worlds)
    third = 1.1 * (2 - mean)
    want = {
        "graph": 0.3 * (1 + mean) + third / 2,
        "schedule": 0.7 + third / 2,
        "interaction": third,
    }
    for key, value in want.items():
        with marks.part(1, f"four worlds of a known model: {key}"):
            close(answer(model, list(worlds))[key], value, key)
    with marks.part(2, "one world with errors of any kind"):
        table = dict(zip(itertools.product(graphs, schedules), (0.31, 0.07, 0.012, 0.2)))
        a, b, c, d = (math.log2(value) for value in table.values())
        found = answer(lambda graph, schedule, world: table[graph, schedule], [9])
        close(found["graph"], (a + b - c - d) / 2, "graph")
        close(found["schedule"], (a - b + c - d) / 2, "schedule")
        close(found["interaction"], c - d - a + b, "interaction")
    return marks.total()


# ---- 6. term -------------------------------------------------------------------------------------


def paid(h, times) -> float:
    """Bits a text costs in leaps through these times: the chance of each number of visible tokens,
    times that of each number of new ones."""
    L, total = len(h), 0.0
    for t, t_next in itertools.pairwise(times):
        if t == t_next:
            continue
        for m in range(L):
            before = math.comb(L, m) * (1 - t) ** m * t ** (L - m)
            appear = (t - t_next) / t
            for n in range(1, L - m + 1):
                new = math.comb(L - m, n) * appear**n * (1 - appear) ** (L - m - n)
                total += before * new * n * h[m]
    return total


def paid_by_listing(h, times) -> float:
    """The same, over all ways in which each token picks its leap."""
    lengths, total = [t - t_next for t, t_next in itertools.pairwise(times)], 0.0
    for leaps in itertools.product(range(len(lengths)), repeat=len(h)):
        chance = math.prod(lengths[k] for k in leaps)
        total += chance * sum(h[sum(other < k for other in leaps)] for k in leaps)
    return total


def term(cost, even, times, *, points):
    """The cost by listing; the instructor's number; the thresholds of the statement."""
    marks, answers, world = Marks(points), expected(__file__), read_term()
    with marks.part(2, "the cost of uneven leaps, for four and five tokens"):
        for h, ts in (
            ([1.5, 1.2, 0.3, 0.1], [1.0, 0.9, 0.4, 0.0]),
            ([1.0, 1.0, 1.0, 1.0, 0.0], [1.0, 0.35, 0.1, 0.0]),
        ):
            close(cost(list(h), list(ts)), paid_by_listing(h, ts) - sum(h), "cost")
    with marks.part(3, "even is right within 1 %"):
        off = abs(float(even) / answers["even"] - 1)
        assert off < 0.01, f"it is off by {100 * off:.1f} %"
    h = tests5.surprise(world)
    for name in ("good", "best"):
        with marks.part(3, f"the times cost less than {world[name]} bits a text"):
            bits = paid(h, tests5.check_times(times)) - sum(h)
            assert bits < world[name], f"they cost {bits:.4f}"
    return marks.total()
