"""Hidden tests of assignment 4: other sizes, runs and seeds. Students do not get this file."""

import copy
import io
import math
from functools import partial

import torch
from grading import Marks, close, expected, show
from tests4 import Run, check_kept, check_memory, check_same, head

from sedd_mini import AbsorbingGraph
from sedd_mini.network.dit import Block, DiTConfig


def check_term(world: dict, expected: dict) -> None:
    """ValueError in one line for a world that problem 7 cannot use."""
    for name in ("tokens", "length", "width", "blocks", "cond", "ratio"):
        if not (isinstance(world[name], int) and world[name] >= 2):
            raise ValueError(f"{name} must be a whole number from 2 on, not {world[name]}")
    if not 0.1 <= world["sigma_max"] <= 20:
        raise ValueError(f"sigma_max must be between 0.1 and 20, not {world['sigma_max']}")
    if not 0.5 <= world["mu"] < 1:
        raise ValueError(f"mu must be from 0.5 to below 1, not {world['mu']}")


# ---- 1. rotary -----------------------------------------------------------------------------------


def turned(vectors, first):
    """Neighbours (2i, 2i + 1) turned as complex numbers, the other library's convention."""
    half = vectors.shape[-1] // 2
    angle = (first + torch.arange(vectors.shape[-2]))[:, None].double()
    angle = angle * 10_000 ** (-torch.arange(half).double() / half)
    pairs = torch.view_as_complex(vectors.double().unflatten(-1, (half, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


def halves(vectors):
    """Entries 0, 2, 4, … and then 1, 3, 5, …"""
    return torch.cat([vectors[..., 0::2], vectors[..., 1::2]], -1)


def rotary(turn, to_halves, *, points):
    """Complex numbers turn the pairs; heads of six and eight entries."""
    marks = Marks(points)
    g = torch.Generator().manual_seed(3)
    for shape, first in (((7, 6), 0), ((2, 3, 5, 8), 40)):
        with marks.part(2, f"vectors of shape {shape} at positions from {first} on"):
            vectors = torch.randn(*shape, generator=g).double()
            close(turn(halves(vectors), first), halves(turned(vectors, first)), "turn", 1e-6)
    for D, heads in ((12, 2), (24, 3)):
        with marks.part(1, f"D = {D}, {heads} heads: the same rows in another order"):
            weight = torch.randn(D, D, generator=g).double()
            found = torch.as_tensor(to_halves(weight.clone(), heads))
            close(found.sort(0).values, weight.sort(0).values, "the sorted rows")
        with marks.part(1, f"D = {D}, {heads} heads: dot products of turned queries and keys"):
            weight, other = torch.randn(2, D, D, generator=g).double()
            h = torch.randn(9, D, generator=g).double()
            dots = []
            for convert, rotate in ((None, turned), (to_halves, by_halves)):
                q, k = (
                    rotate((h @ (convert(m.clone(), heads) if convert else m).T)
                           .unflatten(-1, (heads, -1)).transpose(0, 1), 4)
                    for m in (weight, other)
                )  # fmt: skip
                dots.append(q @ k.mT)
            close(dots[1], dots[0], "the dot products", 1e-6)
    return marks.total()


def by_halves(vectors, first):
    """SEDD's convention, by the complex numbers of the other one."""
    half = vectors.shape[-1] // 2
    mixed = torch.stack([vectors[..., :half], vectors[..., half:]], -1).flatten(-2)
    return halves(turned(mixed, first))


# ---- 2. block ------------------------------------------------------------------------------------


def block(answer, *, points):
    """A block of the library, by two calls; small vectors; conditions for each position."""
    marks = Marks(points)
    torch.manual_seed(4)
    config = DiTConfig(num_tokens=9, length=7, width=12, num_blocks=1, num_heads=2, cond_dim=5)
    theirs = Block(config).double().eval().requires_grad_(False)
    for weight in theirs.parameters():
        weight.normal_(std=0.4)
    h, c = torch.randn(3, 7, 12).double(), torch.randn(3, 5).double()
    W, b = theirs.adaLN_modulation.weight, theirs.adaLN_modulation.bias
    cos, sin = torch.ones(7, 6).double(), torch.zeros(7, 6).double()

    def attend(x):
        q, k, v = theirs.attn_qkv(x).unflatten(-1, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        o = torch.softmax(q @ k.mT / math.sqrt(6), -1) @ v
        return theirs.attn_out(o.transpose(1, 2).flatten(2))

    with marks.part(2, "both halves of a block of the library"):
        found = answer(h.clone(), c, theirs.norm1.weight, W[:36], b[:36], attend)
        found = answer(found, c, theirs.norm2.weight, W[36:], b[36:], theirs.mlp)
        close(found, theirs(h, c, cos, sin), "the result", 1e-6)
    with marks.part(1, "vectors so short that the number under the root counts"):
        small, calls = h * 1e-3, []
        found = answer(small.clone(), c, theirs.norm1.weight, W[:36], b[:36],
                       lambda x: calls.append(1) or x.cumsum(1))  # fmt: skip
        want = by_loops(small, c[:, None].expand(3, 7, 5), theirs.norm1.weight, W[:36], b[:36])
        close(found, want, "the result", 1e-6)
        assert len(calls) == 1, f"the branch was called {len(calls)} times"
    with marks.part(1, "one text of one position, another width"):
        tiny = torch.randn(1, 1, 4).double(), torch.randn(1, 2).double()
        rest = torch.randn(4).double(), torch.randn(12, 2).double(), torch.randn(12).double()
        found = answer(*tiny, *rest, lambda x: x.cumsum(1))
        close(found, by_loops(tiny[0], tiny[1][:, None], *rest), "the result", 1e-6)
    with marks.part(4, "a condition for each position"):
        each = torch.randn(3, 7, 5).double()
        found = answer(h.clone(), each, theirs.norm1.weight, W[:36], b[:36], lambda x: x.cumsum(1))
        want = by_loops(h, each, theirs.norm1.weight, W[:36], b[:36])
        close(found, want, "the result", 1e-6)
    return marks.total()


def by_loops(h, c, w, W, b):
    """What add_branch does with a running sum over positions as its branch, one by one."""
    out, D = h.clone(), h.shape[-1]
    for i in range(len(h)):
        total = torch.zeros(D).double()
        for j in range(h.shape[1]):
            six = W @ c[i, j] + b
            norm = torch.nn.functional.layer_norm(h[i, j], (D,), w, None, 1e-5)
            total = total + norm * (1 + six[D : 2 * D]) + six[:D]
            out[i, j] += six[2 * D :] * total
    return out


# ---- 3. chunks -----------------------------------------------------------------------------------


def library(hidden, weight, bias, x0, sigma):
    """The graph's own score entropy of the whole table at once."""
    graph = AbsorbingGraph(len(bias))
    known = torch.log(torch.expm1(sigma)) + math.log(len(bias))
    log_score = hidden @ weight.T + bias - known[:, None]
    log_score = torch.nn.functional.pad(log_score, (0, 1))
    return graph.score_entropy(log_score, sigma, torch.full_like(x0, graph.mask_id), x0)


def chunks(answer, *, points):
    """The graph's loss; small noise in float32; gradients; memory, forward and backward."""
    marks = Marks(points)
    with marks.part(1, "23 rows in chunks of 5, and in one chunk of 100"):
        inputs = head(23, 31, 6, seed=5)
        for rows in (5, 100):
            close(answer(*inputs, rows), library(*inputs), "the losses", 1e-6)
    with marks.part(1, "noise of 1e-6 to 1e-3 in float32"):
        hidden, weight, bias, x0, _ = head(4, 11, 3, seed=6)
        sigma = torch.tensor([1e-6, 1e-5, 1e-4, 1e-3])
        single = [tensor.detach().float() for tensor in (hidden, weight, bias)]
        want = library(hidden, weight, bias, x0, sigma.double())
        found = torch.as_tensor(answer(*single, x0, sigma, 3)).double()
        close(found / want.detach(), torch.ones(4), "the losses, as shares of the right ones", 1e-3)
    with marks.part(2, "gradients of hidden, weight and bias"):
        inputs = head(17, 13, 4, seed=7)
        out = torch.linspace(0.5, 2, 17).double()
        want = torch.autograd.grad(library(*inputs) @ out, inputs[:3])
        found = torch.autograd.grad(answer(*inputs, 4) @ out, inputs[:3])
        for name, a, b in zip(("hidden", "weight", "bias"), found, want):
            close(a, b, f"the gradient of {name}", 1e-6)
    inputs = head(66, 37, 5, seed=8)
    with marks.part(2, "66 rows of 37 in chunks of 11: no larger tensor forward"):
        close(answer(*inputs, 11), library(*inputs), "the losses", 1e-6)
        check_memory(answer, inputs, 11)
    with marks.part(2, "nothing wide is kept, and the backward pass makes no larger tensor either"):
        check_kept(answer, inputs, 11)
        check_memory(lambda *a: answer(*a).sum().backward(), inputs, 11)
    return marks.total()


# ---- 4. mine -------------------------------------------------------------------------------------


def order(M, epoch):
    """The order of M blocks in one epoch."""
    return torch.randperm(M, generator=torch.Generator().manual_seed(100 + epoch)).tolist()


def mine(answer, *, points):
    """Every epoch holds each block once, over all processes; late steps touch late epochs only."""
    marks = Marks(points)
    for M, ranks, batch in ((7, 3, 2), (12, 2, 5)):
        with marks.part(2, f"{M} blocks, {ranks} processes, batches of {batch}: three epochs"):
            steps = range(-(-3 * M // (ranks * batch)))
            found = [
                block
                for step in steps
                for rank in range(ranks)
                for block in answer(step, rank, ranks, batch, M, partial(order, M))
            ]
            want = [block for epoch in range(3) for block in order(M, epoch)]
            assert found[: 3 * M] == want, f"the samples are {show(found)}, not {show(want)}"
    with marks.part(1, "a batch that is larger than an epoch"):
        stream = [block for epoch in range(20) for block in order(3, epoch)]
        found = list(answer(2, 1, 2, 8, 3, partial(order, 3)))
        assert found == stream[40:48], f"they are {show(found)}, not {stream[40:48]}"
    with marks.part(2, "step 100 000 of a long run"):
        asked = []
        found = list(answer(100_000, 2, 4, 6, 11, lambda e: asked.append(e) or order(11, e)))
        first = (100_000 * 4 + 2) * 6
        want = [order(11, n // 11)[n % 11] for n in range(first, first + 6)]
        assert found == want, f"they are {show(found)}, not {want}"
        assert set(asked) == {n // 11 for n in range(first, first + 6)}, "order() of other epochs"
    return marks.total()


# ---- 5. find -------------------------------------------------------------------------------------

TENSORS = ("model", "average", "optimizer")


def save_run(run):
    state = {name: getattr(run, name).state_dict() for name in TENSORS}
    rest = {name: getattr(run, name) for name in ("order", "place", "n")}
    return copy.deepcopy(state | rest) | {"generator": run.generator.get_state()}


def load_run(run, state, forget=""):
    """Everything but what is called `forget`."""
    state = copy.deepcopy(state)
    if forget == "digits":  # weights written in float32
        state["model"] = {key: value.float() for key, value in state["model"].items()}
    for name in TENSORS:
        if name != forget:
            getattr(run, name).load_state_dict(state[name])
    for name in ("order", "place", "n"):
        if name != forget:
            setattr(run, name, state[name])
    if forget != "generator":
        run.generator.set_state(state["generator"])


def find(answer, *, points):
    """An epoch has three steps: after the seventh the next one that shuffles is the tenth."""
    marks = Marks(points)
    wrong = {"": None, "average": 8, "optimizer": 8, "place": 8, "digits": 8, "generator": 10}
    for forget, want in wrong.items():
        weight = 2 if forget in ("generator", "digits") else 1
        with marks.part(weight, f"forgotten: {forget or 'nothing'}"):
            found = answer(Run, save_run, partial(load_run, forget=forget), 7, 14)
            assert found == want and type(found) is type(want), (
                f"the result is {show(found)}, and should be {want}"
            )
    with marks.part(2, "a difference after the last step does not count"):
        found = answer(Run, save_run, partial(load_run, forget="generator"), 7, 9)
        assert found is None, f"the result is {show(found)}, and should be None"
    return marks.total()


# ---- 6. repair -----------------------------------------------------------------------------------


def repair(save, load, *, points):
    """Across epochs; a snapshot; loaded twice; through a file."""
    marks = Marks(points)

    def begin(steps):
        runs = [Run(blocks=10, batch=3, width=4) for _ in range(2)]
        for run in runs:
            for _ in range(steps):
                run.step()
        return *runs, Run(blocks=10, batch=3, width=4)

    with marks.part(2, "30 steps and several epochs later"):
        straight, killed, resumed = begin(9)
        load(resumed, save(killed))
        check_same(straight, resumed, 30)
    with marks.part(1, "the run that was saved goes on before its state is loaded"):
        straight, killed, resumed = begin(6)
        state = save(killed)
        for _ in range(8):
            killed.step()
        load(resumed, state)
        check_same(straight, resumed, 12)
    with marks.part(1, "a state is loaded a second time, after the first run has gone on"):
        straight, killed, resumed = begin(6)
        state = save(killed)
        load(resumed, state)
        for _ in range(8):
            resumed.step()
        again = Run(blocks=10, batch=3, width=4)
        load(again, state)
        check_same(straight, again, 12)
    with marks.part(1, "through a file, read with weights_only=True"):
        straight, killed, resumed = begin(11)
        file = io.BytesIO()
        torch.save(save(killed), file)
        load(resumed, torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        check_same(straight, resumed, 12)
    return marks.total()


# ---- 7. term -------------------------------------------------------------------------------------


def term(parameters, flops, first_loss, warm_up, *, points):
    """The instructor's own answers."""
    marks, answers = Marks(points), expected(__file__)
    found = {"parameters": parameters, "flops": flops,
             "first_loss": first_loss, "warm_up": warm_up}  # fmt: skip
    within = {"parameters": 0, "flops": 1e-3, "first_loss": 1e-4, "warm_up": 0}
    weights = {"parameters": 3, "flops": 2, "first_loss": 2, "warm_up": 2}
    for name, value in found.items():
        with marks.part(weights[name], f"{name} is right"):
            want = answers[name]
            assert abs(float(value) - want) <= within[name] * want, f"it is {show(value)}"
    return marks.total()

