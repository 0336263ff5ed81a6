"""One bound a sequence, with little noise: the estimator to compare models with.

`likelihood_bound` in evaluate.py is the plain estimate. The bounds here estimate the same integral,
and take fewer calls of the network for the same error, by three means (see variance.py):

- **Levels where they matter.** Absorbing: the number n of hidden tokens is drawn, not the time,
  with probability ∝ n^{−1/2}, as training/draws.py does; it is then no longer random at its time.
  Other graphs: √σ̄ is drawn from a half-normal law, dense where tokens are half gone.
- **Strata.** The draws of 64 sequences fall into as many equal parts of that law.
- **A control variate.** A linear guess of what each position will cost, from the level, how rare
  its token is, how far off earlier guesses were there, and whether its neighbours are hidden. Its
  mean over all noise is known, so that only the network's differences from the guess are left to
  chance. A guess uses earlier draws alone: the estimate is unbiased whatever the guess.

With one seed, all models on a graph see the same noise: `compare` takes the difference draw by
draw.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.checks import bound_is_infinite, graph_and_noise, shown, whole_number
from sedd_mini.evaluate import Bound, check_data
from sedd_mini.evaluation.variance import Counted, Guess, Levels
from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.losses import by_sequence
from sedd_mini.network.dit import DiffusionTransformer
from sedd_mini.network.head import chunks, piece_size
from sedd_mini.samplers import evaluation_mode, movable

GROUP = 64  # sequences whose draws share strata, and between which the guess is fitted again


@torch.no_grad()
def bounds(
    model: Callable, graph, noise, sequences: Tensor, given: Tensor | None = None,
    repeats: int = 8, times_each: int = 1, batch_size: int = 64,
    generator: torch.Generator | None = None, terms: Callable | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> list[Bound]:  # fmt: skip
    """The bound of theorem 3.6 for each of the sequences (M, L), in nats, with its error bar.

    given      (M, L) or (L,) bool: tokens that are known. The bound is then one on
               −log p(rest | given), and `length` counts the rest. Absorbing graph only: its given
               tokens are never masked, and a visible token is the true one, so that this is exact
    repeats    independent estimates of each bound: the error bar is their spread
    times_each draws a sequence in each; a first group of draws comes on top, for the guess alone
    batch_size sequences the network sees at once
    generator  on the CPU; equal seeds give equal noise, whatever the model, batch or device
    terms      a function terms(model, graph, x, sigma, x0) → score entropy (B, L); None: that of
               a DiffusionTransformer in its head, of any other model(x, sigma) `every_position`
    callback   called as callback(done, all) with the numbers of calls, a sequence each

    The integral runs over σ̄ ∈ (0, σ̄(1)]; the prior term is that of `graph.prior_kl`, one for each
    token that is not given. Raises ValueError or TypeError for what does not fit.
    """
    repeats = whole_number("repeats (an error bar needs several)", repeats, 2)
    times_each = whole_number("times_each", times_each, 1)
    batch_size = whole_number("batch_size", batch_size, 1)
    graph_and_noise(graph, noise, model)
    if bound_is_infinite(model, graph):
        raise ValueError(f"the bound of a plain {type(model).__name__} is infinite on {graph}: "
                         "take its informed form, of sedd_mini/evaluation/rivals.py")  # fmt: skip
    check_data(sequences, graph, "sequences")
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator must be torch.Generator(), on the CPU, got {generator.device}")
    x0, device = sequences.cpu(), sequences.device
    free = ~check_given(given, x0, graph, model)
    draws = (Counted if type(graph) is AbsorbingGraph else Levels)(graph, noise, free)
    guess = Guess(draws, x0, free)
    terms = terms or (in_head if isinstance(model, DiffusionTransformer) else every_position)
    groups = torch.arange(len(x0)).split(GROUP)
    rounds = [(0, groups[0])] + [(r, group) for r in range(repeats) for group in groups]
    estimates = torch.zeros(repeats, len(x0), dtype=torch.float64)
    done, calls = 0, times_each * sum(len(group) for _, group in rounds)
    for i, (r, group) in enumerate(rounds):
        rows = group.repeat_interleave(times_each)  # (B,)
        noisy, values = draws.draw(x0, rows, generator), []
        for part in torch.arange(len(rows)).split(batch_size):
            given_to = noisy.x[part], noisy.sigma[part].float(), x0[rows[part]]
            with evaluation_mode(model):
                cost = terms(model, graph, *(tensor.to(device) for tensor in given_to))
            values.append(cost.cpu().double() * noisy.weight[part, None])  # (B, L)
            done += len(part)
            if callback is not None:
                callback(done, calls)
        values = torch.cat(values)
        if not values.isfinite().all():
            raise FloatingPointError("not finite: does the model give finite log-scores?")
        if i > 0:  # else it was the first group, that the guess learns from
            estimate = guess.replaced(rows, noisy, values)  # (B,)
            estimates[r].index_add_(0, rows, estimate / times_each)
        guess.learn(rows, noisy, values)
    sigma_max = noise.total(torch.tensor(1.0, dtype=torch.float64))
    lengths = free.sum(1)
    prior = lengths * graph.prior_kl(sigma_max).item()
    errors = estimates.std(0) / math.sqrt(repeats)
    estimates = estimates + prior
    every = zip(estimates.mean(0), errors, prior, lengths, estimates.T, strict=True)
    return [
        Bound(nats.item(), error.item(), part.item(), length.item(), draws=tuple(each.tolist()))
        for nats, error, part, length, each in every
    ]


def total(bounds: list[Bound]) -> Bound:
    """The bound of all sequences together: the sum of theirs, its error bar that of the sum."""
    draws = torch.tensor(shared_draws(bounds), dtype=torch.float64).sum(0)  # (repeats,)
    characters = [bound.characters for bound in bounds]
    return Bound(
        sum(bound.nats for bound in bounds), (draws.std() / math.sqrt(len(draws))).item(),
        sum(bound.prior for bound in bounds), sum(bound.length for bound in bounds),
        None if None in characters else sum(characters), tuple(draws.tolist()),
    )  # fmt: skip


def compare(a: list[Bound], b: list[Bound]) -> tuple[float, float]:
    """How many nats a sequence the bounds a lie above b on average, and its standard error.

    Both are of the same sequences, from `bounds` with one seed and number of repeats: where noise
    moves both alike it cancels, draw by draw. The error is that of the noise, on these sequences.
    Raises ValueError for lists of different length, and where draws are missing.
    """
    if len(a) != len(b):
        raise ValueError(f"the lists are of {len(a)} and {len(b)} bounds: give both of one text")
    one, two = torch.tensor(shared_draws([*a, *b]), dtype=torch.float64).view(2, len(a), -1)
    gap = (one - two).mean(0)  # (repeats,)
    return gap.mean().item(), (gap.std() / math.sqrt(len(gap))).item()


def shared_draws(bounds: list[Bound]) -> list[tuple[float, ...]]:
    draws = [bound.draws for bound in bounds]
    if not draws or len(draws[0]) < 2 or len({len(each) for each in draws}) > 1:
        kinds = sorted({len(each) for each in draws})
        raise ValueError(f"bounds need the same number of draws, at least 2, got {kinds}: make all "
                         "of them with the same repeats")  # fmt: skip
    return draws


def check_given(given, x0: Tensor, graph, model) -> Tensor:
    """`given` as a (M, L) bool mask on the CPU; all False if there is none.

    A model may have a `check_given(mask)`, that raises ValueError for what it cannot condition on.
    """
    if given is None:
        return torch.zeros_like(x0, dtype=torch.bool)
    if type(graph) is not AbsorbingGraph:
        raise ValueError(
            f"a conditional bound needs an AbsorbingGraph, whose visible tokens are the true ones; "
            f"on {graph} a token that is given at time 0 moves like any other"
        )
    try:
        given = torch.as_tensor(given).cpu()
    except (TypeError, ValueError, RuntimeError):
        given = torch.zeros(())
    if given.dtype != torch.bool or given.shape not in (x0.shape, x0.shape[1:]):
        raise ValueError(f"given must be a bool mask {tuple(x0.shape)}, True where a token is "
                         f"known, got {given.dtype} {tuple(given.shape)}")  # fmt: skip
    given = given.expand(x0.shape)
    if (all_known := given.all(1)).any():
        raise ValueError(f"all of sequence {all_known.nonzero()[0].item()} is given: nothing is "
                         "left to bound")  # fmt: skip
    getattr(model, "check_given", lambda mask: None)(given)
    return given


def entries(given, num: int) -> list:
    """What is given of each of `num` texts: None, a number or a mask."""
    if given is None:
        return [None] * num
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise TypeError(f"given must be a list, one entry a text, got {shown(given)}")
    if len(given := list(given)) != num:
        raise ValueError(f"given has {len(given)} entries for {num} texts")
    return given


def known_tokens(given, num: int, i: int) -> Tensor:
    """What is given of text i, of `num` tokens, as a mask (num,)."""
    if given is None or not hasattr(given, "__len__"):
        most = f"given of text {i} (the number of its first tokens)"
        return torch.arange(num) < (0 if given is None else whole_number(most, given, 0, num - 1))
    try:
        mask = torch.as_tensor(given).cpu()
    except (TypeError, ValueError, RuntimeError):
        mask = torch.zeros(())
    if mask.dtype != torch.bool or mask.shape != (num,) or mask.all():
        raise ValueError(f"given of text {i} must be {num} bools, not all of them True, got "
                         f"{mask.dtype} {tuple(mask.shape)}")  # fmt: skip
    return mask


# ---- the score entropy of each position ----------------------------------------------------------


def every_position(model, graph, x, sigma, x0) -> Tensor:
    """Of any model(x, sigma) → log-scores (B, L, num_states)."""
    return graph.score_entropy(model(x, sigma), by_sequence(sigma, x), x, x0)


def in_head(model, graph, x, sigma, x0) -> Tensor:
    """Of a DiffusionTransformer: no (B, L, num_states) tensor."""
    return model(x, sigma, x0=x0, graph=graph)


def at_positions(model, graph, x, sigma, x0) -> Tensor:
    """Of any model(x, sigma, at=mask), from the rows that count alone (absorbing: the masked).

    A model that `reads_clean` gets x0 besides: see beyond/block_diffusion.py.
    """
    at = movable(graph, x, torch.ones_like(x, dtype=torch.bool))
    if not at.any():
        return torch.zeros(x.shape, device=x.device)
    clean = {"clean": x0} if getattr(model, "reads_clean", False) else {}
    log_score = model(x, sigma, at=at, **clean)  # (rows, num_states)
    rows = log_score, sigma[:, None].expand(x.shape)[at], x[at], x0[at]
    pieces = chunks(piece_size(log_score), *rows)  # what fits the cache
    costs = torch.cat([graph.score_entropy(*piece) for piece in pieces])  # (rows,)
    return costs.new_zeros(x.shape).masked_scatter(at, costs)
