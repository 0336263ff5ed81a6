"""Visible tests of assignment 6: small languages and networks, worked by hand."""

import math

import torch
from grading import Marks, close

HALF, START = math.log2(4 / 3), [0.5, 0.5]


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def split(answer, *, points):
    """Two words; 0 is followed by 0 in three cases of four, 1 by both equally often."""
    marks = Marks(points)
    start, step = doubles(START), doubles([[0.75, 0.25], [0.5, 0.5]])

    def found(q_start, q_step, L):
        given = start.clone(), step.clone(), doubles(q_start), doubles(q_step)
        return answer(*given, L)

    with marks.part(1, "texts of one word: only the first word counts"):
        close(found([1.0, 0.0], [START, START], 1), [1.0, 0.0, 1.0], "the three numbers")
    with marks.part(1, "the language judges itself: its divergence is 0"):
        bits = (1 + 0.5 * (0.75 * HALF + 0.25 * 2) + 0.5 * 1) / 2
        close(found(START, step.tolist(), 2), [bits, bits, 0.0], "the three numbers")
    with marks.part(1, "a fair coin for every word has an entropy of 1 bit a word"):
        bits = (1 + 0.5 * (0.5 * HALF + 0.5 * 2) + 0.5 * 1) / 2
        close(found(START, [START, START], 2), [bits, 1.0, bits - 1], "the three numbers")
    with marks.part(1, "always word 0: the entropy is 0, without NaN"):
        bits = (1 + 3 * HALF) / 4
        close(found([1, 0], [[1, 0], [1, 0]], 4), [bits, 0.0, bits], "the three numbers")
    return marks.total()


# ---- the contest ---------------------------------------------------------------------------------


def check_cheat(marks, answer, title, start, step, real_bits, real_pooled, n, L):
    """The contest's demands in one language; real text has real_bits a word, real_pooled bits."""
    from sedd_mini.evaluation.generated import statistics

    N = len(start)

    def found():
        texts = torch.as_tensor(answer(start.clone(), step.clone(), n, L))
        assert texts.shape == (n, L), f"the shape is {tuple(texts.shape)}, and should be {(n, L)}"
        assert not texts.is_floating_point() and texts.dtype != torch.bool, "words are integers"
        assert texts.min() >= 0 and texts.max() < N, f"words are from 0 to {N - 1}"
        return texts.long()

    def bits_fault(x):
        bits = -(start[x[:, 0]].log2().sum() + step[x[:, :-1], x[:, 1:]].log2().sum()) / x.numel()
        if bits > 0.6 * real_bits:
            return f"{bits:.2f} bits a word, more than 60 % of real text's {real_bits:.2f}"

    def pooled_fault(x):
        pooled = statistics([x.flatten().tolist()])["pooled_entropy_bits"] + 0.0
        if pooled < real_pooled - 0.1:
            return f"the pooled entropy is {pooled:.2f} bits, and of real text {real_pooled:.2f}"

    with marks.part(2, title + "the judge sees at most 60 % of real text's bits a word"):
        fault = bits_fault(found())
        assert not fault, fault
    with marks.part(1, title + "the pooled entropy is as large as that of real text"):
        fault = pooled_fault(found())
        assert not fault, fault
    with marks.part(3, title + "both demands at once"):
        x = found()
        fault = bits_fault(x) or pooled_fault(x)
        assert not fault, fault


def cheat(answer, *, points):
    """Four words in two couples; each is the other's favourite follower, with 60 %.

    Then four words, each its own favourite, of which one begins 85 % of the texts.
    """
    marks = Marks(points)
    start, step = doubles([0.25] * 4), torch.full((4, 4), 0.4 / 3).double()
    step[[0, 1, 2, 3], [1, 0, 3, 2]] = 0.6
    check_cheat(marks, answer, "", start, step, 1.6247, 2.0, 100, 20)
    start, step = doubles([0.85, 0.05, 0.05, 0.05]), torch.full((4, 4), 0.4 / 3).double()
    step[range(4), range(4)] = 0.6
    check_cheat(marks, answer, "unequal start: ", start, step, 1.5671, 1.9884, 100, 20)
    return marks.total()


def numbers(answer, *, points):
    """Two texts of four words, and one text that is repeated."""
    marks = Marks(points)
    texts = torch.tensor([[0, 0, 5, 5], [5, 7, 5, 7]])  # pairs: 00 05 55, 57 75 57
    same = torch.tensor([[3, 3, 3]]).expand(5, 3)
    added = (2 * 1 + 3 * (math.log2(3) - 2 / 3)) / 6  # 2 pairs after 0, 3 after 5, 1 after 7
    wants = {
        "the entropy of a text's own words": (1.0, 0.0), "the pooled entropy": (1.5, 0.0),
        "what the next word adds": (added, 0.0), "the share of different texts": (1.0, 0.2),
    }  # fmt: skip
    for i, (name, want) in enumerate(wants.items()):
        with marks.part(1, name):
            for x, value in zip((texts, same), want, strict=True):
                close(answer(x.clone())[i], value, f"for {x.tolist()} it")
    return marks.total()


def compare(answer, needed, *, points):
    """Four texts of ten tokens, then two texts of different lengths."""
    marks = Marks(points)
    ten, gap = torch.full((4,), 10), doubles([1, 2, 3, 4])
    b = doubles([[12, 28, 21, 1], [8, 32, 19, -1]])  # on average 10, 30, 20, 0
    a = b + gap
    with marks.part(2, "the difference of texts of equal length, and its error"):
        found = answer(a.clone(), b.clone(), ten.clone())
        close(found[0], 0.25, "the difference")
        close(found[1], math.sqrt(5 / 3) / 20, "its error")
    with marks.part(1, "the error without pairs is that of two separate samples"):
        want = math.hypot(math.sqrt(500 / 3), math.sqrt(155)) / 20
        close(answer(a.clone(), b.clone(), ten.clone())[2], want, "unpaired")
    with marks.part(1, "with 10 and 30 tokens, long texts count more"):
        a, b = doubles([[11, 39]]), doubles([[10, 30]])
        found = answer(a, b, torch.tensor([10, 30]))
        close(found[0], 0.25, "the difference")
        close(found[1], 0.075, "its error")
    with marks.part(1, "101 texts make it 2 errors; 3 errors take 2.25 times as many"):
        close(needed(0.1, 0.05, 101, 3), 228, "texts_needed(0.1, 0.05, 101, 3)", 1e-9)
    return marks.total()


def memory(fixed, parts, *, points):
    """A thousand weights; 1 GB of copies and 0.5 GB a text."""
    marks = Marks(points)
    with marks.part(1, "1000 weights in float32 with AdamW and an average: 5 copies of 4 bytes"):
        close(fixed(1000, 800, "float32", 2, True), 20_000, "fixed_bytes", 1e-9)
    with marks.part(1, "in bfloat16, 800 of them have one more copy of 2 bytes"):
        close(fixed(1000, 800, "bfloat16", 2, True), 21_600, "fixed_bytes", 1e-9)
    small, large = (2, 2e9), (4, 3e9)  # 1 GB and 0.5 GB a text
    with marks.part(2, "13 texts fit into 90 % of 8.5 GB, so 48 texts take 4 parts of 12"):
        close(parts(48, 8.5e9, small, large), 4, "smallest_parts(48, 8.5e9, …)", 1e-9)
    with marks.part(1, "one text does not fit into 90 % of 1.6 GB"):
        try:
            got = parts(48, 1.6e9, small, large)
        except ValueError:
            got = None
        assert got is None, f"it should raise a ValueError, and returned {got}"
    return marks.total()


def slower(answer, *, points):
    """One GPU of 100 FLOPs a second, of which the plan hoped for 40 %."""
    marks = Marks(points)
    report = {
        "processes": 1, "flops_per_s": 20.0, "peak_flops_per_s": 80.0,
        "split": {"data": 0.4, "trunk": 0.1, "head and loss": 0.1, "backward": 0.3,
                  "optimiser": 0.1},
    }  # fmt: skip
    wants = {
        "total": (2.0, "40 FLOPs a second were planned, and 20 reached"),
        "machine": (1.25, "100 on the data sheet, and 80 in a large product"),
        "outside": (2.0, "data and optimiser took half of the time"),
        "network": (0.8, "while it worked, it did 40 of 80, which is better than planned"),
    }
    for i, (name, (want, claim)) in enumerate(wants.items()):
        with marks.part(1, f"{name}: {claim}"):
            close(answer({**report, "split": dict(report["split"])}, 100.0, 0.4)[i], want, name)
    return marks.total()


def term(size, as_is, recomputing, parts, hours, cost, world, *, points):
    """Only what kind of numbers they are; whether they are right, the hidden tests say."""
    marks = Marks(points)
    for name, value in (("size", size), ("as_is", as_is), ("recomputing", recomputing),
                        ("parts", parts)):  # fmt: skip
        with marks.part(1, f"{name} is a whole number from 1"):
            assert float(value) == int(value) >= 1, f"it is {value}"
    with marks.part(1, "recomputing allows more texts at a time"):
        assert recomputing > as_is, f"{recomputing} instead of {as_is}"
    with marks.part(1, "parts divides the batch, and one part fits"):
        assert world["batch"] % parts == 0, f"{parts} does not divide {world['batch']}"
        each = world["batch"] // parts
        assert each <= as_is, f"{each} texts a part are more than {as_is}"
    with marks.part(2, "hours and cost belong together"):
        assert math.isfinite(hours) and hours > 0, f"hours is {hours}"
        close(cost / hours, world["price"], "the cost of an hour", 1e-3)
    return marks.total()
