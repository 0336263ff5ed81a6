"""The vocabulary head, and the loss computed inside it: no (B, L, num_states) tensor exists.

At N = 50 257 the last matrix product and what follows it take most of a training step's memory, and
on a CPU much of its time. Two things are saved here. The head runs on the rows that count: for an
absorbing graph, the masked positions. And log-scores live in chunks of rows, each of which is
reduced to its losses. The slopes (derivatives of a row's loss by its log-scores) of the first
chunks are kept for the backward pass, up to a fixed amount of memory, which is all of a small
batch; the other chunks are dropped, and the backward pass computes them once more.

`score_entropy_at` takes the head apart, so it knows two heads only: a matrix and a bias whose
logits, less a number that does not depend on them, are the log-scores; and the normalised one,
whose logits go through a softmax over the data tokens. For any other, `score_entropy_of` calls the
head as it is and leaves the gradient to autograd, in chunks too; it is slower.

Letters in shape comments: B, L, D as in dit.py; M rows (positions) that count; V = num_states.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def uncompiled(function):
    """Keeps a function out of torch.compile, which would start over at every new M.

    The same as `torch.compiler.disable`, but the 1.5 s of importing the compiler are left to those
    who compile.
    """

    @functools.wraps(function)
    def call(*inputs, **options):
        if torch.compiler.is_compiling():
            return torch.compiler.disable(function)(*inputs, **options)
        return function(*inputs, **options)

    return call


def log_scores(hidden: Tensor, weight, bias, x: Tensor, offset, normalised=False) -> Tensor:
    """hidden (*S, D), x (*S,), offset (*S,) → log-scores (*S, V), float32 or wider."""
    return from_logits(F.linear(hidden, weight, bias), x, offset, normalised)


def from_logits(logits: Tensor, x: Tensor, offset: Tensor, normalised: bool) -> Tensor:
    """Logits (*S, V) → log-scores, float32 or wider; overwrites logits that have that type.

    The product before may run in bfloat16, but nothing from here on: `offset`, what "scale by σ"
    takes off a row, would lose its digits there. `normalised`: the entries of the data tokens, all
    but the last, are made a log-softmax first. The entry at the current token x is log 1 = 0.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if normalised:
        logits = logits - logits[..., :-1].logsumexp(-1, keepdim=True)
    return logits.sub_(offset[..., None]).scatter_(-1, x[..., None], 0.0)


@uncompiled
def log_scores_at(at: Tensor, hidden, weight, bias, x, offset, normalised=False) -> Tensor:
    """The rows (M, V) of `log_scores` at which the boolean mask `at` (B, L) is True."""
    hidden, x, offset = select(at, hidden, x, offset)
    return log_scores(hidden, weight, bias, x, offset, normalised)


@uncompiled
def score_entropy_at(
    at: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, x: Tensor, offset: Tensor,
    sigma: Tensor, x0: Tensor, graph, chunk: int | None = None, normalised: bool = False,
) -> Tensor:  # fmt: skip
    """graph.score_entropy(log_scores, sigma, x, x0) where `at` is True, 0 elsewhere; (B, L).

    hidden is (B, L, D), x, x0, offset and sigma (B, L). `chunk` rows are done at a time (None: see
    `chunk_size`); `kept_size` bounds what waits for the backward pass. Differentiable once, in
    hidden, weight and bias. `normalised` is for rows at MASK, which no data token is.
    """
    chunk = chunk or chunk_size(weight)
    keep = kept_size(weight) if torch.is_grad_enabled() else 0
    hidden, x, offset, sigma, x0 = select(at, hidden, x, offset, sigma, x0)
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    rest = x, offset, sigma, x0, graph, chunk, keep, normalised
    losses = _ScoreEntropy.apply(hidden, weight, bias, *rest)  # (M,)
    return losses.new_zeros(at.shape).masked_scatter(at, losses)  # (B, L)


@uncompiled
def score_entropy_of(
    head, at: Tensor, hidden: Tensor, x, offset, sigma, x0, graph, normalised: bool = False
) -> Tensor:
    """`score_entropy_at` for any differentiable head, (M, D) → logits (M, V); (B, L).

    The logits of a chunk are computed again in the backward pass, so `head` runs twice.
    """

    def losses_of(hidden, x, offset, sigma, x0):
        logits = head(hidden).clone()  # what a head gives may be what its backward pass needs
        return graph.score_entropy(from_logits(logits, x, offset, normalised), sigma, x, x0)

    size = chunk_size(hidden.new_empty(graph.num_states, 0))
    rows = chunks(size, *select(at, hidden, x, offset, sigma, x0))
    losses = torch.cat([checkpoint(losses_of, *row, use_reentrant=False) for row in rows])  # (M,)
    return losses.new_zeros(at.shape).masked_scatter(at, losses)  # (B, L)


class _ScoreEntropy(torch.autograd.Function):
    """(M, D) hidden states → (M,) losses; slopes of at most `keep` rows wait for backward."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, x, offset, sigma, x0, graph, chunk, keep, normalised):
        ctx.save_for_backward(hidden, weight, bias, x, offset, sigma, x0)
        ctx.graph, ctx.chunk, ctx.kept, ctx.normalised = graph, chunk, [], normalised
        weight, bias = weight.to(hidden.dtype), bias.to(hidden.dtype)
        losses = []
        for h, *rest in chunks(chunk, hidden, x, offset, sigma, x0):
            log_score = log_scores(h, weight, bias, *rest[:2], normalised)  # (chunk, V)
            keep -= len(h)
            for scores, x_, offset_, *levels in chunks(piece_size(log_score), log_score, *rest):
                if keep >= 0:
                    piece = scores, x_, offset_, *levels
                    losses.append(overwrite_by_slope(graph, *piece, normalised))  # (piece,)
                else:
                    losses.append(graph.score_entropy(scores, levels[0], x_, levels[1]))
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
        for h, g, *rest in chunks(ctx.chunk, hidden, grad, x, offset, sigma, x0):
            if ctx.kept:
                slope = ctx.kept.pop(0)  # (chunk, V)
            else:
                slope = log_scores(h, weight, bias, *rest[:2], ctx.normalised)
                for piece in chunks(piece_size(slope), slope, *rest):
                    overwrite_by_slope(ctx.graph, *piece, ctx.normalised)
            slope *= g[:, None].to(slope.dtype)
            grad_bias += slope.sum(0)
            grad_logit = slope.to(h.dtype)  # (chunk, V)
            grad_hidden.append(grad_logit @ weight)  # (chunk, D)
            if h.dtype == grad_weight.dtype:
                grad_weight.addmm_(grad_logit.T, h)  # (V, D)
            else:
                grad_weight += grad_logit.T @ h
        return torch.cat(grad_hidden), grad_weight, grad_bias, *[None] * 8


def overwrite_by_slope(graph, log_score, x, offset, sigma, x0, normalised=False) -> Tensor:
    """Returns the score entropies (M,); log_score (M, V) ← their slopes by the logits, 0 at x.

    `normalised`: a logit also lowers the other entries through the softmax π, whose log lies
    `offset` above the log-scores: slope ← slope − π Σ slope. (For the absorbing graph's own score
    entropy that sum is 0, as it is r (Σπ − 1); it is not for other weights.)
    """
    probs = (log_score[:, :-1] + offset[:, None]).exp_() if normalised else None
    with torch.enable_grad():
        leaf = log_score.detach().requires_grad_()
        loss = graph.score_entropy(leaf, sigma, x, x0)
        slope = torch.autograd.grad(loss.sum(), leaf)[0]
    log_score.copy_(slope).scatter_(-1, x[:, None], 0.0)
    if normalised:
        log_score[:, :-1].sub_(probs.mul_(log_score.sum(-1, keepdim=True)))
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
