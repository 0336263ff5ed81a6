"""The vocabulary head, and the loss computed inside it: no (B, L, num_states) tensor exists.

At N = 50 257 the last matrix product and what follows it take most of a training step's memory, and
on a CPU much of its time. Two things are saved here. The head runs on the rows that count: for an
absorbing graph, the masked positions. And log-scores live in chunks of rows, each of which is
reduced to its losses and dropped; the backward pass computes it once more.

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
    `chunk_size`). Differentiable once, in hidden, weight and bias.
    """
    chunk = chunk or chunk_size(weight)
    hidden, x, offset, sigma, x0 = select(at, hidden, x, offset, sigma, x0)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    losses = _ScoreEntropy.apply(hidden, weight, bias, x, offset, sigma, x0, graph, chunk)  # (M,)
    return losses.new_zeros(at.shape).masked_scatter(at, losses)  # (B, L)


class _ScoreEntropy(torch.autograd.Function):
    """(M, D) hidden states → (M,) losses; keeps no (M, V) tensor for the backward pass."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, x, offset, sigma, x0, graph, chunk):
        ctx.save_for_backward(hidden, weight, bias, x, offset, sigma, x0)
        ctx.graph, ctx.chunk = graph, chunk
        weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
        losses = []
        for h, x_, offset_, *rest in chunks(chunk, hidden, x, offset, sigma, x, x0):
            log_score = log_scores(h, weight, bias, x_, offset_)  # (chunk, V)
            for piece in chunks(piece_size(log_score), log_score, *rest):
                losses.append(graph.score_entropy(*piece))  # (piece,)
        return torch.cat(losses)  # (M,)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, full_weight, full_bias, x, offset, sigma, x0 = ctx.saved_tensors
        weight, bias = full_weight.to(hidden.dtype), full_bias.to(hidden.dtype)
        grad_hidden = []
        grad_weight, grad_bias = torch.zeros_like(full_weight), torch.zeros_like(full_bias)
        for h, x_, offset_, *rest in chunks(ctx.chunk, hidden, x, offset, sigma, x, x0, grad):
            log_score = log_scores(h, weight, bias, x_, offset_)  # (chunk, V)
            for piece in chunks(piece_size(log_score), log_score, *rest):
                overwrite_by_gradient(ctx.graph, *piece)
            grad_bias += log_score.sum(0)
            grad_logit = log_score.to(h.dtype)  # (chunk, V)
            grad_hidden.append(grad_logit @ weight)  # (chunk, D)
            if h.dtype == grad_weight.dtype:
                grad_weight.addmm_(grad_logit.T, h)  # (V, D)
            else:
                grad_weight += grad_logit.T @ h
        return torch.cat(grad_hidden), grad_weight, grad_bias, *[None] * 6


def overwrite_by_gradient(graph, log_score, sigma, x, x0, grad) -> None:
    """log_score (M, V) ← its gradient, for the gradient `grad` (M,) of the row's score entropy."""
    with torch.enable_grad():
        leaf = log_score.detach().requires_grad_()
        loss = graph.score_entropy(leaf, sigma, x, x0)
    log_score.copy_(torch.autograd.grad(loss, leaf, grad)[0]).scatter_(-1, x[:, None], 0.0)


def chunk_size(weight: Tensor) -> int:
    """Rows of log-scores to hold at once: 32 MB of float32 on a CPU, 1 GB elsewhere."""
    return max(1, 2 ** (23 if weight.device.type == "cpu" else 28) // len(weight))


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
