"""Visible tests of assignment 4: small cases, worked by hand. And the training run of problem 6."""

import copy
import math
from functools import partial

import torch
import torch._dynamo  # optimisers would load it late, where a test's time limit may interrupt it
from grading import Marks, close, show
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

# ---- the run of problem 6 ------------------------------------------------------------------------


class Run:
    """A training run: its next steps depend on the attributes below and on nothing else.

    It learns to remove noise from blocks of numbers. `generator` shuffles the blocks at the start
    of each epoch; the noise of step n comes from a seed of its own.
    """

    def __init__(self, blocks=12, batch=4, width=3):
        source = torch.Generator().manual_seed(1)
        self.data = torch.randn(blocks, width, generator=source, dtype=torch.float64)  # fixed
        self.batch = batch  # fixed
        self.model = nn.Linear(width, width, dtype=torch.float64)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=source) / 3)
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, betas=(0.9, 0.99))
        self.generator = torch.Generator().manual_seed(2)
        self.order = torch.randperm(blocks, generator=self.generator).tolist()  # of this epoch
        self.place = 0  # in the order: the blocks before it have been used
        self.n = 0  # steps made

    def step(self) -> float:
        """Train one step; return its loss."""
        if self.place >= len(self.order):
            self.order = torch.randperm(len(self.order), generator=self.generator).tolist()
            self.place = 0
        x = self.data[self.order[self.place : self.place + self.batch]]
        noise = torch.Generator().manual_seed(7919 * (self.n + 1))
        noisy = x + torch.randn(x.shape, generator=noise, dtype=x.dtype)
        loss = ((self.model(noisy) - x) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + self.n / 20)
        self.optimizer.step()
        self.place, self.n = self.place + self.batch, self.n + 1
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.model.parameters()):
                slow.lerp_(fast, 1 - min(0.99, (1 + self.n) / (10 + self.n)))
        return loss.item()


# ---- 1. rotary -----------------------------------------------------------------------------------


def rotary(turn, to_halves, *, points):
    """One pair, two pairs; four and eight rows."""
    marks = Marks(points)
    one = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]).double()
    with marks.part(2, "one pair turns by 0, 1 and 2 at the positions 0, 1 and 2"):
        want = [[1, 0], [math.cos(1), math.sin(1)], [-2 * math.sin(2), 2 * math.cos(2)]]
        close(turn(one.clone(), 0), want, "turn(vectors, 0)")
    with marks.part(1, "the same vectors at the positions 5, 6 and 7"):
        want = [[math.cos(5), math.sin(5)], [math.cos(6), math.sin(6)],
                [-2 * math.sin(7), 2 * math.cos(7)]]  # fmt: skip
        close(turn(one.clone(), 5), want, "turn(vectors, 5)")
    with marks.part(1, "of four numbers 0 and 2 turn by 3 at position 3, 1 and 3 by 0.03"):
        two = torch.tensor([[1.0, 1.0, 0.0, 0.0]]).double()
        want = [[math.cos(3), math.cos(0.03), math.sin(3), math.sin(0.03)]]
        close(turn(two.clone(), 3), want, "turn([[1, 1, 0, 0]], 3)")
    with marks.part(1, "one head of four rows: rows 0 and 1, a pair, become rows 0 and 2"):
        found = to_halves(torch.arange(4.0)[:, None].repeat(1, 4), 1)
        close(found[:, 0], [0.0, 2.0, 1.0, 3.0], "the order of the rows")
    with marks.part(1, "two heads of four rows each stay apart"):
        found = to_halves(torch.arange(8.0)[:, None].repeat(1, 8), 2)
        close(found[:, 0], [0.0, 2, 1, 3, 4, 6, 5, 7], "the order of the rows")
    return marks.total()


# ---- 2. block ------------------------------------------------------------------------------------


def block(answer, *, points):
    """Two texts, one position, two features, one number as the condition."""
    marks = Marks(points)
    h = torch.tensor([[[1.0, 3.0]], [[2.0, -2.0]]]).double()  # norms (−1, 1) and (1, −1)
    c, w = torch.tensor([[1.0], [2.0]]).double(), torch.ones(2).double()
    zero = torch.zeros(6, 1).double(), torch.zeros(6).double()
    with marks.part(1, "with W and b at zero nothing is added, whatever the branch answers"):
        found = answer(h.clone(), c.clone(), w, *zero, lambda x: x + 100)
        close(found, h, "the result")
    with marks.part(2, "a gate of 1 and nothing else: the norm is added"):
        b = torch.tensor([0.0, 0, 0, 0, 1, 1]).double()
        found = answer(h.clone(), c.clone(), w, zero[0], b, lambda x: x)
        close(found, [[[0.0, 4.0]], [[3.0, -3.0]]], "the result", 1e-3)
    with marks.part(3, "shift 1 and 0, scale c, gate 1: each text has its own condition"):
        W, b = torch.zeros(6, 1).double(), torch.tensor([1.0, 0, 0, 0, 1, 1]).double()
        W[2:4] = 1.0
        found = answer(h.clone(), c.clone(), w, W, b, lambda x: x)
        close(found, [[[0.0, 5.0]], [[6.0, -5.0]]], "the result", 1e-3)
    return marks.total()


# ---- 3. chunks -----------------------------------------------------------------------------------


class Watch(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def head(M, N, D, seed):
    """hidden, weight, bias, x0, sigma: random, in float64; the first three want gradients."""
    g = torch.Generator().manual_seed(seed)
    hidden, weight, bias = (
        torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()
        for shape in ((M, D), (N, D), (N,))
    )
    sigma = torch.rand(M, generator=g, dtype=torch.float64) * 3 + 0.05
    return hidden, weight, bias, torch.randint(N, (M,), generator=g), sigma


def check_memory(answer, inputs, rows):
    """AssertionError where a tensor on the way has more than rows · N elements."""
    N, watch = len(inputs[2]), Watch()
    with watch:
        answer(*inputs, rows)
    assert watch.largest > 0, "nothing was computed"
    assert watch.largest <= rows * N, (
        f"a tensor of {watch.largest} elements was made; with {rows} rows of {N} it is {rows * N}"
    )


def check_kept(answer, inputs, rows):
    """AssertionError where a tensor with N columns is kept for the backward pass."""
    N, kept = len(inputs[2]), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        loss = answer(*inputs, rows)
    assert loss.requires_grad, "the loss does not depend on hidden, weight and bias"
    wide = [tuple(shape) for shape in kept if len(shape) > 1 and shape[-1] == N]
    assert not wide, f"for the backward pass tensors of the shapes {show(wide)} were kept"


def chunks(answer, *, points):
    """An output of zeros, one token in two; memory with 40 rows of 50, five times too many."""
    marks = Marks(points)
    with marks.part(2, "an untrained head: every row costs r log N"):
        sigma = torch.tensor([0.1, 1.0, 3.0]).double()
        h, zero = torch.randn(3, 4).double(), torch.zeros(7, 4).double()
        x0 = torch.tensor([0, 6, 2])
        found = answer(h, zero, torch.zeros(7).double(), x0, sigma, 2)
        close(found, [18.50241, 1.132475, 0.101958], "the losses")
    with marks.part(1, "two tokens, σ̄ = ln 2: outputs 0 and ln 3, the true token is the second"):
        out = torch.tensor([0.0, math.log(3)]).double()
        level, x0 = torch.tensor([math.log(2)]).double(), torch.tensor([1])
        found = answer(torch.zeros(1, 1).double(), torch.zeros(2, 1).double(), out, x0, level, 1)
        close(found, [0.594535], "the loss")  # 4/2 − ln(3/2) − 1
    inputs = head(40, 50, 4, seed=1)
    with marks.part(2, "40 rows of 50 in chunks of 8: no tensor has more than 8 · 50 elements"):
        assert torch.as_tensor(answer(*inputs, 8)).shape == (40,), "the losses have a wrong shape"
        check_memory(answer, inputs, 8)
    with marks.part(1, "no row is kept for the backward pass"):
        check_memory(answer, inputs, 8)
        check_kept(answer, inputs, 8)
    return marks.total()


# ---- 4. mine -------------------------------------------------------------------------------------


def mine(answer, *, points):
    """Five blocks, two epochs."""
    marks = Marks(points)
    orders = [[4, 2, 0, 1, 3], [1, 0, 3, 4, 2], [2, 3, 4, 0, 1]]
    with marks.part(1, "one process, batches of two: the second batch"):
        found = list(answer(1, 0, 1, 2, 5, lambda epoch: orders[epoch]))
        assert found == [0, 1], f"it is {show(found)}, and should be [0, 1]"
    with marks.part(1, "one process, batches of two: the third batch reaches into the next epoch"):
        found = list(answer(2, 0, 1, 2, 5, lambda epoch: orders[epoch]))
        assert found == [3, 1], f"it is {show(found)}, and should be [3, 1]"
    with marks.part(1, "two processes, batches of two: the second process in the first step"):
        found = list(answer(0, 1, 2, 2, 5, lambda epoch: orders[epoch]))
        assert found == [0, 1], f"it is {show(found)}, and should be [0, 1]"
    return marks.total()


# ---- 5. find -------------------------------------------------------------------------------------


class Walk:
    """Not a training run, but one can resume it wrongly as well: the weight walks on.

    Every fourth step takes a larger stride than the one four steps before.
    """

    def __init__(self):
        self.model, self.average = (nn.Linear(1, 1, dtype=torch.float64) for _ in range(2))
        self.n, self.stride = 0, 1.0
        with torch.no_grad():
            for weight in (*self.model.parameters(), *self.average.parameters()):
                weight.zero_()

    def step(self):
        self.n += 1
        with torch.no_grad():
            if self.n % 4 == 0:
                self.stride *= 2
                self.model.weight += self.stride
            self.model.bias += 1
            self.average.weight.lerp_(self.model.weight, 0.5)
        return self.model.weight.item() + self.model.bias.item()


def save_walk(run):
    weights = [float(w) for m in (run.model, run.average) for w in (m.weight, m.bias)]
    return {"weights": weights, "n": run.n, "stride": run.stride}


def load_walk(run, state, forget=""):
    """Everything but what is called `forget`."""
    with torch.no_grad():
        parts = (run.model, state["weights"][:2]), (run.average, state["weights"][2:])
        for module, values in parts:
            if not (forget == "average" and module is run.average):
                module.weight.fill_(values[0])
                module.bias.fill_(values[1])
    for name in ("n", "stride"):
        if name != forget:
            setattr(run, name, state[name])


def find(answer, *, points):
    """A walk in place of a training run, saved after six steps."""
    marks = Marks(points)
    for weight, forget, want in ((1, "", None), (1, "average", 7), (2, "stride", 8)):
        title = f"the walk, if {forget or 'nothing'} is forgotten: {want}"
        with marks.part(weight, title):
            found = answer(Walk, save_walk, partial(load_walk, forget=forget), 6, 13)
            assert found == want and type(found) is type(want), f"the result is {show(found)}"
    return marks.total()


# ---- 6. repair -----------------------------------------------------------------------------------


def check_same(straight, resumed, steps, which=("losses", "weights", "averages")):
    """AssertionError in the first of so many steps in which two runs are not exactly the same."""
    for n in range(1, steps + 1):
        loss, again = straight.step(), resumed.step()
        assert "losses" not in which or loss == again, (
            f"in step {n} after it was loaded the loss is {again:.6g}, and should be {loss:.6g}"
        )
        for name, part in (("weights", "model"), ("averages", "average")):
            pairs = zip(getattr(straight, part).parameters(), getattr(resumed, part).parameters())
            assert name not in which or all(torch.equal(a, b) for a, b in pairs), (
                f"after step {n} after it was loaded the {name} are not the same"
            )


def repair(save, load, *, points):
    """Saved after five steps of three an epoch; the first steps after that."""
    marks = Marks(points)

    def two_runs():
        straight, killed, resumed = Run(), Run(), Run()
        for run in (straight, killed):
            for _ in range(5):
                run.step()
        load(resumed, save(killed))
        return straight, resumed

    with marks.part(1, "the first loss after it was loaded is the same"):
        check_same(*two_runs(), 1, ["losses"])
    with marks.part(1, "three steps later the weights are still the same"):
        check_same(*two_runs(), 3, ["losses", "weights"])
    with marks.part(1, "and so are the averaged weights"):
        check_same(*two_runs(), 3)
    return marks.total()


# ---- 7. term -------------------------------------------------------------------------------------


def term(parameters, flops, first_loss, warm_up, world, *, points):
    """Only that the numbers can be right at all; whether they are, the hidden tests say."""
    marks = Marks(points)
    table = (world["tokens"] + 1) * world["width"]
    with marks.part(1, "parameters is a whole number, and more than the embedding alone"):
        assert float(parameters) == int(parameters) > table, f"it is {show(parameters)}"
    with marks.part(1, "flops is more than the head's"):
        assert float(flops) > 2 * world["length"] * table, f"it is {show(flops)}"
    with marks.part(1, "first_loss and warm_up are positive, warm_up a whole number"):
        assert float(first_loss) > 0, f"first_loss is {show(first_loss)}"
        assert float(warm_up) == int(warm_up) > 0, f"warm_up is {show(warm_up)}"
    return marks.total()
