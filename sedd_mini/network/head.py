"""The vocabulary head, and the loss computed inside it: no (B, L, num_states) tensor exists.

At N = 50 257 the last matrix product and what follows it take most of a training step's memory, and
on a CPU much of its time. Two things are saved here. The head runs on the rows that count: for an
absorbing graph, the masked positions. And log-scores live in chunks of rows, each of which is
reduced to its losses. The slopes (derivatives of a row's loss by its log-scores) of the first
chunks are kept for the backward pass, up to a fixed amount of memory, which is all of a small
batch; the other chunks are dropped, and the backward pass computes them once more.

Letters in shape comments: B, L, D as in dit.py; M rows (positions) that count; V = num_states.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def log_scores(hidden: Tensor, weight: Tensor, bias: Tensor, x: Tensor, offset: Tensor) -> Tensor:
    """hidden (*S, D), x (*S,), offset (*S,) → log-scores (*S, V), float32 or wider.

    The product may run in bfloat16, but nothing after it: `offset`, what "scale by σ" takes off a
    row, would lose its digits there. The entry at the current token x is log 1 = 0.
    """
    logits = F.linear(hidden, weight, bias)  # (*S, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.sub_(offset[..., None]).scatter_(-1, x[..., None], 0.0)


@torch.compiler.disable  # a compiler would start over at every new M
def log_scores_at(
    at: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, x: Tensor, offset: Tensor
) -> Tensor:
    """The rows (M, V) of `log_scores` at which the boolean mask `at` (B, L) is True."""
    hidden, x, offset = select(at, hidden, x, offset)
    return log_scores(hidden, weight, bias, x, offset)


@torch.compiler.disable
def score_entropy_at(
    at: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    x: Tensor,
    offset: Tensor,
    sigma: Tensor,
    x0: Tensor,
    graph,
    chunk: int | None = None,
) -> Tensor:
    """graph.score_entropy(log_scores, sigma, x, x0) where `at` is True, 0 elsewhere; (B, L).

    hidden is (B, L, D), x, x0, offset and sigma (B, L). `chunk` rows are done at a time (None: see
    `chunk_size`); `kept_size` bounds what waits for the backward pass. Differentiable once, in
    hidden, weight and bias.
    """
    chunk = chunk or chunk_size(weight)
    keep = kept_size(weight) if torch.is_grad_enabled() else 0
    hidden, x, offset, sigma, x0 = select(at, hidden, x, offset, sigma, x0)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    rest = x, offset, sigma, x0, graph, chunk, keep
    losses = _ScoreEntropy.apply(hidden, weight, bias, *rest)  # (M,)
    return losses.new_zeros(at.shape).masked_scatter(at, losses)  # (B, L)


class _ScoreEntropy(torch.autograd.Function):
    """(M, D) hidden states → (M,) losses; slopes of at most `keep` rows wait for backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, x, offset, sigma, x0, graph, chunk, keep):
        ctx.save_for_backward(hidden, weight, bias, x, offset, sigma, x0)
        ctx.graph, ctx.chunk, ctx.kept = graph, chunk, []
        weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
        losses = []
        for h, x_, offset_, *rest in chunks(chunk, hidden, x, offset, sigma, x, x0):
            log_score = log_scores(h, weight, bias, x_, offset_)  # (chunk, V)
            keep -= len(h)
            for piece in chunks(piece_size(log_score), log_score, *rest):
                if keep >= 0:
                    losses.append(overwrite_by_slope(graph, *piece))  # (piece,)
                else:
                    losses.append(graph.score_entropy(*piece))
            if keep >= 0:
                ctx.kept.append(log_score)  # slopes by now
        return torch.cat(losses)  # (M,)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, full_weight, full_bias, x, offset, sigma, x0 = ctx.saved_tensors
        weight, bias = full_weight.to(hidden.dtype), full_bias.to(hidden.dtype)
        grad_hidden = []
        grad_weight, grad_bias = torch.zeros_like(full_weight), torch.zeros_like(full_bias)
        for h, g, x_, offset_, *rest in chunks(ctx.chunk, hidden, grad, x, offset, sigma, x, x0):
            if ctx.kept:
                slope = ctx.kept.pop(0)  # (chunk, V)
            else:
                slope = log_scores(h, weight, bias, x_, offset_)
                for piece in chunks(piece_size(slope), slope, *rest):
                    overwrite_by_slope(ctx.graph, *piece)
            slope *= g[:, None].to(slope.dtype)
            grad_bias += slope.sum(0)
            grad_logit = slope.to(h.dtype)  # (chunk, V)
            grad_hidden.append(grad_logit @ weight)  # (chunk, D)
            if h.dtype == grad_weight.dtype:
                grad_weight.addmm_(grad_logit.T, h)  # (V, D)
            else:
                grad_weight += grad_logit.T @ h
        return torch.cat(grad_hidden), grad_weight, grad_bias, *[None] * 7


def overwrite_by_slope(graph, log_score, sigma, x, x0) -> Tensor:
    """Returns the score entropies (M,); log_score (M, V) ← their slopes, 0 at x."""
    with torch.enable_grad():
        leaf = log_score.detach().requires_grad_()
        loss = graph.score_entropy(leaf, sigma, x, x0)
        slope = torch.autograd.grad(loss.sum(), leaf)[0]
    log_score.copy_(slope).scatter_(-1, x[:, None], 0.0)
    return loss.detach()


def chunk_size(weight: Tensor) -> int:
    """Rows of log-scores to hold at once: 32 MB of float32 on a CPU, 1 GB elsewhere."""
    return max(1, 2 ** (23 if weight.device.type == "cpu" else 28) // len(weight))


def kept_size(weight: Tensor) -> int:
    """Rows of slopes to keep for the backward pass: 256 MB of float32 on a CPU, 1 GB elsewhere.

    Each saves a matrix product; a CPU spends a quarter of its time in the head on that one.
    """
    return 2 ** (26 if weight.device.type == "cpu" else 28) // len(weight)


def piece_size(log_score: Tensor) -> int:
    """Rows whose element-wise work fits a processor's cache; a GPU takes them all at once."""
    num_rows, num_states = log_score.shape
    return max(1, 2**19 // num_states if log_score.device.type == "cpu" else num_rows)


def select(at: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Of each (B, L, …) tensor the rows where the mask `at` (B, L) is True, (M, …)."""
    rows = at.flatten().nonzero()[:, 0]
    return [tensor.flatten(0, 1).index_select(0, rows) for tensor in tensors]


def chunks(size: int, *tensors: Tensor):
    """All tensors, `size` rows at a time (and one empty chunk if they have no rows)."""
    return zip(*(tensor.split(size) for tensor in tensors), strict=True)
