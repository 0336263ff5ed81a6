"""What `--compile` compiles: each block of the network, and the score entropy of its head.

The head's products are fast as they are. What follows them touches every log-score several times,
on a GPU as long as the rest of a step. Here a compiler makes one pass of it, over a chunk of rows:
it reads the logits in the type of the product, and writes the loss of each row and, in that type
again, the slopes (the derivatives of the loss by the logits) over the logits. What comes out is
what `head.score_entropy_at` gives, which stays the one to read and to be trusted.

Letters in shape comments: B, L, D, M and V as in head.py; W ≥ V, the columns that a product has.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.graphs import UniformGraph, only_masks_move, widest
from sedd_mini.network import head
from sedd_mini.network.dit import OutputLayer


def compile_parts(model: torch.nn.Module) -> None:
    """Compile a network in place, block by block, which is fast to start; without blocks, whole.

    The number of rows in the head changes from step to step, so of the head only what `Compiled`
    does to a chunk is compiled.
    """
    for block in getattr(model, "blocks", [model]):
        block.compile()
    if isinstance(layer := getattr(model, "output_layer", None), OutputLayer):
        layer.score_entropy = Compiled(torch.compile(losses_and_slopes))


class Compiled:
    """`head.score_entropy_at` for the graphs of graphs.py; the function itself for any other."""

    def __init__(self, work):
        self.work = work  # losses_and_slopes, compiled

    def __call__(self, at, hidden, weight, bias, x, offset, sigma, x0, graph, normalised=False):
        if not (only_masks_move(graph) or is_uniform(graph)):
            rest = x, offset, sigma, x0, graph
            return head.score_entropy_at(at, hidden, weight, bias, *rest, normalised=normalised)
        hidden, *levels = head.select(at, hidden, x, offset, sigma, x0)
        if torch.is_autocast_enabled(hidden.device.type):
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        losses = _ScoreEntropy.apply(hidden, weight, bias, *levels, graph, normalised, self.work)
        return losses.new_zeros(at.shape).masked_scatter(at, losses)  # (B, L)


def is_uniform(graph) -> bool:
    return type(graph).score_entropy is UniformGraph.score_entropy


def losses_and_slopes(logits: Tensor, x, offset, sigma, x0, graph, normalised: bool):
    """Logits (M, W) → score entropies (M,) in float32 or wider, slopes (M, W), 0 from column V on.

    x, offset, sigma and x0 are (M,). Every state y but x has Q(x, y) r (e^δ − 1 − δ), δ = log s −
    log r, whose slope is Q(x, y) r (e^δ − 1); r is one number at x0 and one elsewhere (see the
    graphs' `score_entropy`). Where r = 0, which it is elsewhere for the absorbing graph, both are
    Q(x, y) e^{log s}.
    """
    column = torch.arange(logits.shape[-1], device=logits.device)
    counts = (column != x[:, None]) & (column < graph.num_states)  # (M, W)
    at_x0 = column == x0[:, None]
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if normalised:  # over the data tokens, all but the last state
        tokens = torch.where(column < graph.num_states - 1, z, -math.inf)
        z = z - tokens.logsumexp(-1, keepdim=True)
        probs = torch.where(column < graph.num_states - 1, z.exp(), 0)
    sigma = sigma.to(widest(sigma.device))
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    if graph.mask_id is None:
        log_q, same = moved.log() - torch.log(moved + graph.num_states * stayed), x == x0
        log_r, log_r0 = torch.where(same, log_q, 0), torch.where(same, log_q, -log_q)
    else:
        log_r, log_r0 = torch.zeros_like(sigma), -sigma - moved.log()
    delta = z - offset[:, None]
    for part, part0 in zip(in_two(log_r, z.dtype), in_two(log_r0, z.dtype), strict=True):
        delta = delta - torch.where(at_x0, part0[:, None], part[:, None])
    r = torch.where(at_x0, log_r0.exp()[:, None], log_r.exp()[:, None]).to(z.dtype)
    value, slope = excess(delta), torch.expm1(delta)
    if graph.mask_id is not None:  # elsewhere r = 0, and δ is log s
        value, slope = (torch.where(at_x0, v, delta.exp()) for v in (value, slope))
    rate = 1 / graph.num_states if graph.mask_id is None else 1.0
    losses = rate * torch.where(counts, r * value, 0).sum(-1)
    slope = rate * torch.where(counts, r * slope, 0)
    if normalised:
        slope = slope - probs * slope.sum(-1, keepdim=True)
    return losses, slope.to(logits.dtype)


def in_two(log_r: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """float64 → two numbers of a narrower type whose sum it is; see `graphs.relative_excess`."""
    high = log_r.to(dtype)
    return high, (log_r - high).to(dtype)


def excess(delta: Tensor) -> Tensor:
    """e^δ − 1 − δ; near 0, where that cancels, by its series."""
    last = 10 if delta.dtype == torch.float64 else 5
    series = torch.full_like(delta, 1 / math.factorial(last))
    for k in range(last - 1, 1, -1):
        series = series * delta + 1 / math.factorial(k)
    return torch.where(delta.abs() < 1 / 16, series * delta**2, torch.expm1(delta) - delta)


class _ScoreEntropy(torch.autograd.Function):
    """(M, D) hidden states → (M,) losses; slopes of at most `keep_size` rows wait for backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, x, offset, sigma, x0, graph, normalised, work):
        ctx.save_for_backward(hidden, weight, bias, x, offset, sigma, x0)
        ctx.do = lambda logits, *rest: (work if len(logits) else losses_and_slopes)(
            logits, *rest, graph, normalised
        )
        ctx.kept, keep, losses = [], kept_size(weight), []
        weight, bias = fill_up(weight, bias, hidden.dtype)
        for h, *rest in head.chunks(chunk_size(weight), hidden, x, offset, sigma, x0):
            loss, slope = ctx.do(F.linear(h, weight, bias), *rest)  # (chunk,), (chunk, W)
            losses.append(loss)
            keep -= len(h)
            if keep >= 0 and any(ctx.needs_input_grad):
                ctx.kept.append(slope)
        return torch.cat(losses)  # (M,)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, full_weight, full_bias, *levels = ctx.saved_tensors
        weight, bias = fill_up(full_weight, full_bias, hidden.dtype)
        grad_hidden, num_states = [], len(full_bias)
        grad_weight, grad_bias = torch.zeros_like(full_weight), torch.zeros_like(full_bias)
        for h, g, *rest in head.chunks(chunk_size(weight), hidden, grad, *levels):
            slope = ctx.kept.pop(0) if ctx.kept else ctx.do(F.linear(h, weight, bias), *rest)[1]
            g = g[:, None].to(h.dtype)
            grad_hidden.append((slope @ weight) * g)  # (chunk, D)
            grad_weight += (slope.T @ (h * g))[:num_states]  # (V, D)
            grad_bias += (slope.T @ g)[:num_states, 0]
        return torch.cat(grad_hidden), grad_weight, grad_bias, *[None] * 7


def fill_up(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The head in `dtype`, filled up with zeros to a multiple of 8 rows, as matrix units want."""
    rows = -len(weight) % 8
    return F.pad(weight.to(dtype), (0, 0, 0, rows)), F.pad(bias.to(dtype), (0, rows))


def chunk_size(weight: Tensor) -> int:
    """Rows of logits to hold at once: 8 million numbers on a CPU, 512 million elsewhere."""
    return max(1, 2 ** (23 if weight.device.type == "cpu" else 29) // len(weight))


def kept_size(weight: Tensor) -> int:
    """Rows of slopes to keep: 64 million numbers on a CPU, 2 billion elsewhere (4 GB, bfloat16)."""
    return 2 ** (26 if weight.device.type == "cpu" else 31) // len(weight)
