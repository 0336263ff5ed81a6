"""What `--compile` compiles: each block of the network, and the score entropy of its head.

The head's products are fast as they are. What follows them touches every log-score several times,
on a GPU as long as the rest of a step. Here a compiler makes one pass of it, over a chunk of rows:
it reads the logits in the type of the product, and writes the loss of each row and, over the
logits, their slopes: the derivatives of the loss by them. What comes out is what
`head.score_entropy_at` gives, which stays the one to read and to be trusted.

Letters in shape comments: B, L, D, M and V as in head.py; W ≥ V, the columns that a product has.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.graphs import UniformGraph, check_tokens, only_masks_move, widest
from sedd_mini.network import head
from sedd_mini.network.attention import no_autocast
from sedd_mini.network.dit import OutputLayer


def compile_parts(model: torch.nn.Module) -> None:
    """Compile a network in place, block by block, which is fast to start; without blocks, whole.

    The number of rows in the head changes from step to step, so of the head only what `Compiled`
    does to a chunk is compiled.
    """
    for block in getattr(model, "blocks", [model]):
        block.compile()
    layer = getattr(model, "output_layer", None)
    if isinstance(layer, OutputLayer) and layer.score_entropy is head.score_entropy_at:
        layer.score_entropy = Compiled(torch.compile(losses_and_slopes))


class Compiled:
    """`head.score_entropy_at` for the graphs of graphs.py; the function itself for any other."""

    def __init__(self, work=None):
        self.work = work or torch.compile(losses_and_slopes)

    def __reduce__(self):
        return Compiled, ()  # what was compiled cannot be pickled: it is compiled again

    @head.uncompiled
    def __call__(self, at, hidden, weight, bias, x, offset, sigma, x0, graph, normalised=False):
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
        else:
            dtype = hidden.dtype
        if not (only_masks_move(graph) or is_uniform(graph)) or dtype == torch.float16:
            rest = x, offset, sigma, x0, graph  # float16 cannot hold slopes that are not weighted
            return head.score_entropy_at(at, hidden, weight, bias, *rest, normalised=normalised)
        hidden, x, offset, sigma, x0 = head.select(at, hidden, x, offset, sigma, x0)
        levels = offset, *log_ratios(graph, sigma, x, check_tokens(x0, graph.num_tokens))
        keep = kept_size(weight, dtype) if torch.is_grad_enabled() else 0
        rest = x, *levels, x0, graph, normalised, keep, self.work
        losses = _ScoreEntropy.apply(hidden.to(dtype), weight, bias, *rest)  # (M,)
        return losses.new_zeros(at.shape).masked_scatter(at, losses)  # (B, L)


def is_uniform(graph) -> bool:
    own = getattr(graph.score_entropy, "__func__", None)
    return own is UniformGraph.score_entropy and graph.mask_id is None


def log_ratios(graph, sigma: Tensor, x: Tensor, x0: Tensor) -> tuple[Tensor, Tensor]:
    """log r elsewhere (absorbing: where r = 0, which is said by a 0) and at x0; (M,), float64.

    Not compiled: a compiler's expm1 may be exp − 1, which is nothing at little noise.
    """
    sigma = sigma.to(widest(sigma.device))
    moved = -torch.expm1(-sigma)
    if graph.mask_id is not None:
        return torch.zeros_like(sigma), -sigma - moved.log()
    log_q = moved.log() - torch.log(moved + graph.num_states * torch.exp(-sigma))
    return torch.where(x == x0, log_q, 0), torch.where(x == x0, log_q, -log_q)


def losses_and_slopes(logits: Tensor, x, offset, log_r, log_r0, x0, graph, normalised: bool):
    """Logits (M, W) → score entropies (M,), float32 or wider; overwrites the logits by the slopes.

    x, offset, x0 and the logarithms of `log_ratios` are (M,). Every state y but x has
    Q(x, y) r (e^δ − 1 − δ), δ = log s − log r, whose slope is Q(x, y) r (e^δ − 1); r is one number
    at x0 and one elsewhere (see the graphs' `score_entropy`). Where r = 0, which it is elsewhere
    for the absorbing graph, both are Q(x, y) e^{log s}. Columns from V on have slope 0.
    """
    column = torch.arange(logits.shape[-1], device=logits.device)
    counts = (column != x[:, None]) & (column < graph.num_states)  # (M, W)
    at_x0 = column == x0[:, None]
    z = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if normalised:  # over the data tokens, all but the last state
        tokens = torch.where(column < graph.num_states - 1, z, -math.inf)
        z = z - tokens.logsumexp(-1, keepdim=True)
        probs = torch.where(column < graph.num_states - 1, z.exp(), 0)
    delta = z - offset[:, None].to(z.dtype)
    for part, part0 in zip(in_two(log_r, z.dtype), in_two(log_r0, z.dtype), strict=True):
        delta = delta - torch.where(at_x0, part0[:, None], part[:, None])
    r = torch.where(at_x0, log_r0.exp()[:, None], log_r.exp()[:, None]).to(z.dtype)
    value, slope = excess(delta)
    if graph.mask_id is not None:  # elsewhere r = 0, and δ is log s
        value, slope = (torch.where(at_x0, v, delta.exp()) for v in (value, slope))
    rate = 1 / graph.num_states if graph.mask_id is None else 1.0
    losses = rate * torch.where(counts, r * value, 0).sum(-1)
    slope = rate * torch.where(counts, r * slope, 0)
    if normalised:
        slope = slope - probs * slope.sum(-1, keepdim=True)
    logits.copy_(slope)
    return losses


def in_two(log_r: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """float64 → two numbers of a narrower type whose sum it is; see `graphs.relative_excess`."""
    high = log_r.to(dtype)
    return high, (log_r - high).to(dtype)


def excess(delta: Tensor) -> tuple[Tensor, Tensor]:
    """e^δ − 1 − δ and its derivative e^δ − 1; near 0, where they may cancel, by their series."""
    last = 10 if delta.dtype == torch.float64 else 5
    series = torch.full_like(delta, 1 / math.factorial(last))
    for k in range(last - 1, 1, -1):
        series = series * delta + 1 / math.factorial(k)
    small, near, far = series * delta**2, delta.abs() < 1 / 16, torch.expm1(delta)
    return torch.where(near, small, far - delta), torch.where(near, small + delta, far)


class _ScoreEntropy(torch.autograd.Function):
    """(M, D) hidden states → (M,) losses; slopes of at most `keep` rows wait for backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, *rest):
        *levels, graph, normalised, keep, work = rest
        ctx.save_for_backward(hidden, weight, bias, *levels)
        ctx.kept, losses = [], []
        weight, bias = fill_up(weight, bias, hidden.dtype)

        def losses_to_slopes(h: Tensor, *levels) -> tuple[Tensor, Tensor]:
            with no_autocast(h):
                logits = F.linear(h, weight, bias)  # (chunk, W)
                do = work if len(h) else losses_and_slopes
                return do(logits, *levels, graph, normalised), logits

        for h, *rows in head.chunks(chunk_size(weight), hidden, *levels):
            loss, slope = losses_to_slopes(h, *rows)  # (chunk,), (chunk, W)
            losses.append(loss)
            keep -= len(h)
            if keep >= 0:
                ctx.kept.append(slope)
        ctx.again = losses_to_slopes
        return torch.cat(losses)  # (M,)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, full_weight, full_bias, *levels = ctx.saved_tensors
        weight, _ = fill_up(full_weight, full_bias, hidden.dtype)
        grad_hidden, num_states = [], len(full_bias)
        grad_weight, grad_bias = torch.zeros_like(full_weight), torch.zeros_like(full_bias)
        for h, g, *rows in head.chunks(chunk_size(weight), hidden, grad, *levels):
            slope = ctx.kept.pop(0) if ctx.kept else ctx.again(h, *rows)[1]
            g = g[:, None].to(h.dtype)
            grad_hidden.append((slope @ weight) * g)  # (chunk, D)
            grad_weight += (slope.T @ (h * g))[:num_states]  # (V, D)
            grad_bias += (slope.T @ g)[:num_states, 0]
        return torch.cat(grad_hidden), grad_weight, grad_bias, *[None] * 9


def fill_up(weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The head in `dtype`, filled up with zeros to a multiple of 8 rows, as matrix units want."""
    rows = -len(weight) % 8
    return F.pad(weight.to(dtype), (0, 0, 0, rows)), F.pad(bias.to(dtype), (0, rows))


def chunk_size(weight: Tensor) -> int:
    """Rows of logits to hold at once: 32 MB on a CPU, 1 GB elsewhere."""
    most = 2 ** (25 if weight.device.type == "cpu" else 30)
    return max(1, most // (len(weight) * weight.element_size()))


def kept_size(weight: Tensor, dtype: torch.dtype) -> int:
    """Rows of slopes to keep: 256 MB on a CPU, 4 GB elsewhere."""
    return 2 ** (28 if weight.device.type == "cpu" else 32) // (len(weight) * dtype.itemsize)
