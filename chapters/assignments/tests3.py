"""Visible tests of assignment 3: the exhibits, and small cases worked by hand."""

import copy
import math
from contextlib import contextmanager

import torch
from grading import Marks, close, show


def accepts(check, f) -> bool:
    """Whether a check lets f pass; only an AssertionError counts as a no."""
    try:
        check(f)
    except AssertionError:
        return False
    return True


def tells_apart(check, right, wrong) -> None:
    """Assert that the check passes the right function and fails for the wrong one."""
    assert accepts(check, right), "it fails for your own repair: one of the two is wrong"
    assert not accepts(check, wrong), "it does not fail for a function that is wrong"


def ratios(fixed, bits_off, check, exhibit, *, points):
    """Two words. At σ̄ = ln 2 noise mixes (3/4, 1/4) to (5/8, 3/8)."""
    marks = Marks(points)
    log_pi, x = torch.tensor([[[0.75, 0.25]]]).log(), torch.tensor([[0]])
    level = torch.tensor([[math.log(2)]])
    with marks.part(1, "log_ratios: at σ̄ = ln 2 the ratio is 3/5"):
        close(fixed(log_pi.clone(), level.clone(), x.clone()), [[[0.0, math.log(0.6)]]], "it")
    with marks.part(2, "log_ratios: for π = (1, 0) and σ̄ = 1e-8 the ratio is 5e-9"):
        one = torch.tensor([[[1.0, 0.0]]]).log()
        found = fixed(one, torch.tensor([[1e-8]]), x.clone())
        close(found, [[[0.0, math.log(5e-9)]]], "it", 1e-5)
    with marks.part(1, "bits_off: to call the ratio 3/5 one is log2(5/3) bits off"):
        found = bits_off(lambda log_pi, sigma, x: 0 * log_pi, log_pi.clone(), level.clone(), x)
        close(found, math.log2(5 / 3), "it")
    with marks.part(1, "bits_off: NaN is infinitely far off"):
        found = bits_off(lambda log_pi, sigma, x: math.nan * log_pi, log_pi.clone(), level, x)
        assert found == math.inf, f"it is {show(found)}"
    with marks.part(2, "check_log_ratios passes your repair and fails for the exhibit"):
        tells_apart(check, fixed, exhibit)
    return marks.total()


def epoch(block, number, ranks, M, seed):
    """All blocks that are read in one epoch, in order."""
    steps = range(number * (M // ranks), (number + 1) * (M // ranks))
    return [block(step, rank, ranks, M, seed) for step in steps for rank in range(ranks)]


def order(block, never_read, check, exhibit, *, points):
    """Three processes and 24 blocks."""
    marks = Marks(points)
    with marks.part(2, "block: an epoch reads every block once"):
        for number in (0, 1):
            found = sorted(epoch(block, number, 3, 24, 1))
            assert found == list(range(24)), f"epoch {number} reads {show(found)}"
    with marks.part(1, "block: the next epoch has another order"):
        first, second = (epoch(block, number, 3, 24, 1) for number in (0, 1))
        assert sorted(first) == sorted(second), "they do not read the same blocks"
        assert first != second, "the order is the same"
    with marks.part(1, "never_read: two processes miss a quarter of the blocks"):
        close(never_read(2), 0.25, "it")
    with marks.part(2, "check_block passes your repair and fails for the exhibit"):
        tells_apart(check, block, exhibit)
    return marks.total()


def packing(pack, blocks_lost, check, exhibit, *, points):
    """Three short documents; 0 is the end of text."""
    marks = Marks(points)
    documents = [[1, 2, 3], [4], [5, 6, 7]]
    with marks.part(2, "pack: 1 2 3 | 0 4 0 | 5 6 7"):
        found = pack(copy.deepcopy(documents), 3, 0)
        close(found, [[1, 2, 3], [0, 4, 0], [5, 6, 7]], "it")
    with marks.part(1, "pack: less than a block is no block"):
        found = pack(copy.deepcopy(documents), 10, 0)
        assert tuple(found.shape) == (0, 10), f"it is {show(found)}"
    with marks.part(1, "blocks_lost, one document at a time: 1 for blocks of 3, 0 for blocks of 4"):
        close(blocks_lost([3, 1, 3], 3, 1), 1, "blocks_lost([3, 1, 3], 3, 1)")
        close(blocks_lost([3, 1, 3], 4, 1), 0, "blocks_lost([3, 1, 3], 4, 1)")
    with marks.part(2, "check_pack passes your repair and fails for the exhibit"):
        tells_apart(check, pack, exhibit)
    return marks.total()


@contextmanager
def autocast_off():
    """Leaves autocast off, whatever happens inside."""
    torch.set_autocast_enabled("cpu", False)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cpu", False)


def precision(make_product, log_scores, ratio_error, *, points):
    """What can be seen without a calculation."""
    marks = Marks(points)
    weight, h = torch.eye(3)[:2] * 2, torch.tensor([[0.5, 1.0, 1 / 3]])
    with marks.part(1, "make_product: the result is in bfloat16"), autocast_off():
        found = make_product(weight.clone())(h.clone())
        assert found.dtype == torch.bfloat16, f"it is in {found.dtype}"
        close(found, [[1.0, 2.0]], "it")
    with marks.part(1, "make_product: autocast is off before and after a product"), autocast_off():
        product = make_product(weight.clone())
        assert not torch.is_autocast_enabled("cpu"), "it is on after make_product"
        product(h.clone())
        assert not torch.is_autocast_enabled("cpu"), "it is on after the product"
    with marks.part(2, "log_scores: logits of 0 at σ̄ = ln 2 give -log N, in float32"):
        found = log_scores(torch.zeros(1, 2, 5).bfloat16(), torch.tensor([math.log(2)]))
        assert found.dtype == torch.float32, f"it is in {found.dtype}"
        close(found, torch.full((1, 2, 5), -math.log(5)), "it", 1e-5)
    with marks.part(1, "ratio_error: about 3 per cent for sizes from 8 to 16"):
        assert 0.025 < ratio_error(8) < 0.035, f"it is {show(ratio_error(8))}"
    return marks.total()


def meter(report, *, points):
    """Two documents: 2 tokens and 10 nats, 8 tokens and 20 nats."""
    marks = Marks(points)
    inputs = [torch.tensor(v) for v in ([10.0, 20.0], [2.0, 8.0], [10.0, 50.0])]
    wants = (("nats a token", 3.0), ("the perplexity", math.exp(3)))
    wants = (*wants, ("bits a character", 0.5 / math.log(2)))
    for i, (name, want) in enumerate(wants):
        with marks.part(1, f"{name} is {want:.4g}"):
            close(report(*(v.clone() for v in inputs))[i], want, "it")
    return marks.total()


def term(true, learned, excess, world, *, points):
    """Form only: whether the numbers are right is tested out of sight."""
    marks = Marks(points)
    for name, found in (("true", true), ("learned", learned)):
        with marks.part(1, f"{name} holds a positive ratio for each word, 1 at the state"):
            got = torch.as_tensor(found).double()
            assert got.shape == (len(world["data"]),), f"its shape is {tuple(got.shape)}"
            assert got.min() > 0, f"it holds {got.min():.4g}"
            close(got[world["state"]], 1.0, "its entry at the state")
    with marks.part(1, "excess is a positive number"):
        assert 0 < float(excess) < math.inf, f"it is {excess}"
    return marks.total()
