"""One bound a sequence, with little noise: the estimator to compare models with.

`likelihood_bound` in evaluate.py is the plain estimate. The bounds here are estimates of the same
integral, and take fewer calls of the network for the same error, by three means:

- **Levels where they matter.** Absorbing: the number n of hidden tokens is drawn, not the time, with
  probability ∝ n^{−1/2}, as training/draws.py does; it is then no longer random at its time.
  Other graphs: √σ̄ is drawn from a half-normal law, dense where tokens are half gone.
- **Strata.** The draws of 64 sequences fall into as many equal parts of that law.
- **A control variate.** A linear guess of what each position will cost, from the level, how rare
  its token is, and how far off earlier guesses were there. Its mean over all levels and all noise is
  known, so that only the network's differences from the guess are left to chance. A guess uses
  earlier draws alone, so the estimate stays unbiased whatever the guess.

With one seed, all models on a graph see the same noise: `compare` takes the difference draw by draw.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.checks import graph_and_noise, whole_number
from sedd_mini.evaluate import Bound, check_data, times
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.losses import by_sequence
from sedd_mini.network.dit import DiffusionTransformer
from sedd_mini.network.head import chunks, piece_size
from sedd_mini.samplers import evaluation_mode, movable

GROUP = 64  # sequences whose draws share strata, and between which the guess is fitted again
KNOTS = 8  # of the guess as a function of the level
ROWS = 10  # of imagined data that hold each coefficient of the guess at 0


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
    check_data(sequences, graph, "sequences")
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator must be torch.Generator(), on the CPU, got {generator.device}")
    x0, device = sequences.cpu(), sequences.device
    free = ~check_given(given, x0, graph)
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
            raise FloatingPointError("the loss is not finite: does the model give finite scores?")
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


def check_given(given, x0: Tensor, graph) -> Tensor:
    """`given` as a (M, L) bool mask on the CPU; all False if there is none."""
    if given is None:
        return torch.zeros_like(x0, dtype=torch.bool)
    if type(graph) is not AbsorbingGraph:
        raise ValueError(
            f"a conditional bound needs an AbsorbingGraph, whose visible tokens are the true ones; "
            f"on {graph} a token that is given at time 0 moves like any other"
        )
    given = torch.as_tensor(given).cpu()
    if given.dtype != torch.bool or given.shape not in (x0.shape, x0.shape[1:]):
        raise ValueError(f"given must be a bool mask {tuple(x0.shape)}, True where a token is "
                         f"known, got {given.dtype} {tuple(given.shape)}")  # fmt: skip
    given = given.expand(x0.shape)
    if (all_known := given.all(1)).any():
        raise ValueError(f"all of sequence {all_known.nonzero()[0].item()} is given: nothing is "
                         "left to bound")  # fmt: skip
    return given


def known_tokens(given, num: int, i: int) -> Tensor:
    """What is given of text i, of `num` tokens, as a mask (num,)."""
    if given is None or not hasattr(given, "__len__"):
        most = f"given of text {i} (the number of its first tokens)"
        return torch.arange(num) < (0 if given is None else whole_number(most, given, 0, num - 1))
    mask = torch.as_tensor(given).cpu()
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
    """Of any model(x, sigma, at=mask), from the rows that count alone (absorbing: the masked)."""
    at = movable(graph, x, torch.ones_like(x, dtype=torch.bool))
    if not at.any():
        return torch.zeros(x.shape, device=x.device)
    log_score = model(x, sigma, at=at)  # (rows, num_states)
    rows = log_score, sigma[:, None].expand(x.shape)[at], x[at], x0[at]
    pieces = chunks(piece_size(log_score), *rows)  # what fits the cache
    costs = torch.cat([graph.score_entropy(*piece) for piece in pieces])  # (rows,)
    return costs.new_zeros(x.shape).masked_scatter(at, costs)


# ---- where noise is drawn ------------------------------------------------------------------------


class Noisy(NamedTuple):
    """B noisy sequences. A position is of kind 0 or 1, and its guess is multiplied by `scale`.

    x       (B, L) tokens at noise levels sigma (B,)
    weight  (B,): the integral over σ̄ is the mean of weight · score entropy
    place   (B,): how much of the law of levels lies below this one, in [0, 1]
    kind    (B, L) int64: 1 where hidden or moved, 0 elsewhere
    scale   (B, 2): of kind 0 and 1
    chance  (B,): the probability that any other free position is of kind 1, where this one is
    """

    x: Tensor
    sigma: Tensor
    weight: Tensor
    place: Tensor
    kind: Tensor
    scale: Tensor
    chance: Tensor


class Counted:
    """Draws of the absorbing graph: n of the F free tokens hidden, n with probability ∝ n^{−1/2}.

    λ = 1 − e^{−σ̄} is the share hidden. Written in λ, the bound is the sum over n of P(λ ≤ λ(1)) times
    the mean cost of a hidden token, over all sets of n and λ ~ Beta(n, F − n + 1) up to λ(1), where
    a cost is the score entropy times e^σ̄ − 1. Beta(n, F − n + 1) is the law of the n-th smallest of
    F uniform numbers, which is below λ(1) if n or more of them are.
    """

    def __init__(self, graph, noise, free: Tensor):
        self.graph, self.free = graph, free
        self.end = noise.total(torch.tensor(1.0, dtype=torch.float64)).item()
        lengths, self.which = free.sum(1).unique(return_inverse=True)  # (U,), (M,)
        n = torch.arange(free.shape[1] + 1, dtype=torch.float64)
        self.share = torch.where((0 < n) & (n <= lengths[:, None]), n**-0.5, 0)  # (U, L + 1)
        self.share = self.share / self.share.sum(1, keepdim=True)
        self.below = self.share.cumsum(1)
        size = lengths[:, None].double()
        rest = (size - n).clamp(min=0)
        log_p = math.log(-math.expm1(-self.end)) * n - self.end * rest - torch.lgamma(rest + 1)
        log_p = log_p + torch.lgamma(size + 1) - torch.lgamma(n + 1)
        p = torch.where(n <= size, log_p.exp(), 0)  # P(n of F numbers are below λ(1)), (U, L + 1)
        self.enough = p.flip(1).cumsum(1).flip(1)  # P(n or more are)
        mass = self.enough[..., None] * basis(self.middle().flatten()).view(*p.shape, -1)
        mass = torch.where(self.share > 0, 1 / size, 0)[..., None] * mass
        mass = mass.sum(1)[self.which]  # the mean of Σ scale · basis over all draws
        self.mass = torch.stack([torch.zeros_like(mass), mass], 1)  # (M, 2, KNOTS + 1)

    def middle(self) -> Tensor:
        return self.below - self.share / 2

    def draw(self, x0: Tensor, rows: Tensor, generator) -> Noisy:
        which, x0, free = self.which[rows], x0[rows], self.free[rows]
        size = free.sum(1, keepdim=True)
        place, u, v = times(len(rows), generator)[:, None], *torch.rand(
            2, *x0.shape, generator=generator, dtype=torch.float64)  # fmt: skip
        n = torch.searchsorted(self.below[which], place, right=True).minimum(size)  # (B, 1)
        u = torch.where(free, u, 2.0)  # a given token is never hidden
        hidden = u <= u.sort(1).values.gather(1, n - 1)
        share, enough = self.share[which].gather(1, n), self.enough[which]
        few = torch.rand(n.shape, generator=generator, dtype=torch.float64)
        few = few * enough.gather(1, n)  # P(more than k are below) < few ≤ P(k or more): k ≥ n
        k = (enough >= few).sum(1, keepdim=True) - 1
        v = torch.where(torch.arange(v.shape[1]) < k.maximum(n), v, 2.0)
        level = -math.expm1(-self.end) * v.sort(1).values.gather(1, n - 1)
        sigma = -torch.log1p(-level[:, 0].clamp(min=1e-12))
        scale = enough.gather(1, n) / (share * n)
        return Noisy(
            torch.where(hidden, self.graph.mask_id, x0), sigma, scale[:, 0] * torch.expm1(sigma),
            self.middle()[which].gather(1, n)[:, 0], hidden.long(),
            torch.cat([torch.zeros_like(scale), scale], 1),
            ((n - 1) / (size - 1).clamp(min=1))[:, 0],
        )  # fmt: skip


class Levels:
    """Draws of any graph: σ̄ = z², z half-normal up to where σ̄ is σ̄(1).

    Near 0 the density of σ̄ is ∝ σ̄^{−1/2}. There tokens move with probability ~ σ̄ at a cost of
    ~ 1/σ̄, so this keeps the variance finite, with no lower end. The mean of the guess needs the
    probability of a move: it is known for the uniform graph, and other graphs go without a guess.
    """

    def __init__(self, graph, noise, free: Tensor):
        self.graph, self.mass = graph, None
        self.end = noise.total(torch.tensor(1.0, dtype=torch.float64)).item()
        if type(graph) is UniformGraph:
            nodes = (torch.arange(2**13, dtype=torch.float64) + 0.5) / 2**13
            sigma, weight = self.level(nodes)
            moved = self.chance(sigma)
            share = torch.stack([1 - moved, moved], 1) * self.scale(sigma, weight)  # (nodes, 2)
            self.mass = (share.T @ basis(nodes) / len(nodes)).expand(len(free), -1, -1)

    def chance(self, sigma: Tensor) -> Tensor:
        """The probability that a token is another one, shape of sigma."""
        return -torch.expm1(-sigma) * (1 - 1 / self.graph.num_states)

    def level(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """σ̄ below which this share of the law lies, and dσ̄/dplace."""
        end = math.erf(math.sqrt(self.end / 2))
        root = torch.special.erfinv(place * end)
        return 2 * root**2, 2 * root * end * math.sqrt(math.pi) * torch.exp(root**2)

    def scale(self, sigma: Tensor, weight: Tensor) -> Tensor:
        """About what a position costs, but for a factor that changes slowly with σ̄: (B, 2).

        A moved token costs about 1/(e^σ̄ − 1), and nothing is left to learn, about either kind, once
        e^σ̄ exceeds N.
        """
        less = torch.expm1(sigma)
        weight = weight * self.graph.num_states / (less + self.graph.num_states)
        return torch.stack([weight, weight / less], 1)

    def draw(self, x0: Tensor, rows: Tensor, generator) -> Noisy:
        place, x0 = times(len(rows), generator), x0[rows]
        sigma, weight = self.level(place)
        sigma = sigma.clamp(1e-12, self.end)
        x = self.graph.sample_transition(x0, sigma[:, None], generator)
        rest = self.scale(sigma, weight), self.chance(sigma)
        return Noisy(x, sigma, weight, place, (x != x0).long(), *rest)


# ---- the control variate -------------------------------------------------------------------------


def basis(place: Tensor) -> Tensor:
    """1 and KNOTS hats along [0, 1], (B,) → (B, KNOTS + 1)."""
    knots = torch.arange(KNOTS, dtype=torch.float64)
    hats = (1 - (place[:, None] * (KNOTS - 1) - knots).abs()).clamp(min=0)
    return torch.cat([torch.ones_like(place)[:, None], hats], 1)


class Guess:
    """scale · basis(place) · (1, rarity, surprise, crowd) for either kind, by least squares.

    rarity    −log of the token's frequency in the sequences, standardised
    surprise  by how much the position did cost more, when it was of kind 1, than a guess without it
    crowd     how many of its two neighbours are of kind 1, less the mean of that: 0 on average
    """

    NUM = 4

    def __init__(self, draws: Counted | Levels, x0: Tensor, free: Tensor):
        self.mass, self.free = draws.mass, free.double()  # (M, 2, KNOTS + 1), (M, L)
        count = torch.bincount(x0.flatten()).double()
        rarity = -count[x0].log()
        self.rarity = (rarity - rarity.mean()) / (rarity.std(correction=0) + 1e-9)
        self.sum, self.seen = torch.zeros(2, *x0.shape, dtype=torch.float64)  # of surprises
        size = 2 * self.NUM * (KNOTS + 1)
        self.square = torch.zeros(size, size, dtype=torch.float64)
        self.product, self.slope = torch.zeros(2, size, dtype=torch.float64)
        self.rows = torch.zeros(2, dtype=torch.float64)  # of each kind, seen so far

    def known(self, rows: Tensor) -> Tensor:
        """What does not depend on the noise: (1, rarity, surprise, 0), (B, L, NUM)."""
        surprise = self.sum[rows] / (self.seen[rows] + 1)
        ones = torch.ones_like(surprise)
        return torch.stack([ones, self.rarity[rows], surprise, 0 * ones], -1)

    def features(self, rows: Tensor, noisy: Noisy) -> Tensor:
        """(B, L, 2 · NUM · (KNOTS + 1))."""
        free, known = self.free[rows], self.known(rows)
        kind = F.one_hot(noisy.kind, 2) * noisy.scale[:, None] * free[..., None]  # (B, L, 2)
        more = F.pad((noisy.kind - noisy.chance[:, None]) * free, (1, 1))
        known[..., 3] = more[:, :-2] + more[:, 2:]
        return torch.einsum("blk,bh,blf->blkfh", kind, basis(noisy.place), known).flatten(2)

    def replaced(self, rows: Tensor, noisy: Noisy, values: Tensor) -> Tensor:
        """Σ of the values (B, L), with the guess at them replaced by its mean over all draws."""
        if self.mass is None:
            return values.sum(1)
        known = (self.known(rows) * self.free[rows][..., None]).sum(1)  # (B, NUM)
        mean = torch.einsum("bkh,bf->bkfh", self.mass[rows], known).flatten(1)
        features = self.features(rows, noisy).sum(1)
        return values.sum(1) + (mean - features) @ self.slope

    def learn(self, rows: Tensor, noisy: Noisy, values: Tensor) -> None:
        if self.mass is None:
            return
        features = self.features(rows, noisy)  # (B, L, size)
        flat = features.flatten(0, 1)
        self.square += flat.T @ flat
        self.product += flat.T @ values.flatten()
        self.rows += torch.bincount(noisy.kind[self.free[rows] > 0], minlength=2)
        plain = self.slope.view(2, self.NUM, -1).clone()
        plain[:, 2] = 0
        scale = noisy.scale[:, 1:]  # of kind 1, (B, 1)
        surprise = (values - features @ plain.flatten()) / scale.clamp(min=1e-300)
        trust = noisy.kind * (scale**2 / self.typical()[1]).clamp(max=1)
        self.sum.index_add_(0, rows, surprise * trust)
        self.seen.index_add_(0, rows, trust)
        self.fit()

    def typical(self) -> Tensor:
        """The mean of scale² over the rows of each kind, (2,)."""
        return self.square.diagonal().view(2, -1)[:, 0] / self.rows.clamp(min=1) + 1e-12

    def fit(self) -> None:
        """Ridge regression: ROWS typical rows hold each coefficient, but hardly the constant."""
        hold = torch.full((2, self.NUM * (KNOTS + 1)), float(ROWS), dtype=torch.float64)
        hold[:, 0] = 1e-3
        hold = hold * self.typical()[:, None]
        self.slope = torch.linalg.solve(self.square + hold.flatten().diag(), self.product)
