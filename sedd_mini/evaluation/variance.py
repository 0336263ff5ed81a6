"""Where noise is drawn for a bound, and the guess whose mean replaces it: less variance, no bias.

`Counted` and `Levels` draw noisy sequences whose weighted score entropy has the mean of the bound's
integral. `Guess` is the control variate. bounds.py puts them together.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.evaluate import times
from sedd_mini.graphs import UniformGraph

KNOTS = 8  # of the guess as a function of the level
ROWS = 10  # of imagined data that hold each coefficient of the guess at 0
PIECE = 2**16  # positions whose features are held at once: 36 MiB


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

    λ = 1 − e^{−σ̄} is the share hidden. Written in λ, the integral is the sum over n = 1 … F of
    P(λ ≤ λ(1)) times the mean cost of a hidden token, over all sets of n and λ ~ Beta(n, F − n + 1)
    up to λ(1); a cost is the score entropy times e^σ̄ − 1. That λ has the law of the n-th smallest
    of F uniform numbers, which is below λ(1) if n or more of them are. So k ≥ n of them are drawn
    there, and no draw falls outside.
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
        k = ((enough >= few).sum(1, keepdim=True) - 1).maximum(n).minimum(size)
        v = torch.where(torch.arange(v.shape[1]) < k, v, 2.0)
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


def pieces(*tensors) -> zip:
    """All of them, some sequences at a time; a `Noisy` as one."""
    size = max(1, PIECE // tensors[-1].shape[1])
    split = [
        map(Noisy, *(t.split(size) for t in each)) if isinstance(each, Noisy) else each.split(size)
        for each in tensors
    ]
    return zip(*split, strict=True)


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
        known, parts = (self.known(rows) * self.free[rows][..., None]).sum(1), []  # (B, NUM)
        mean = torch.einsum("bkh,bf->bkfh", self.mass[rows], known).flatten(1) @ self.slope
        for row, some, value in pieces(rows, noisy, values):
            parts.append((value - self.features(row, some) @ self.slope).sum(1))
        return mean + torch.cat(parts)

    def learn(self, rows: Tensor, noisy: Noisy, values: Tensor) -> None:
        """Fits the guess to these values (B, L) and all that came before."""
        if self.mass is None:
            return
        plain = self.slope.view(2, self.NUM, -1).clone()
        plain[:, 2] = 0
        self.rows += torch.bincount(noisy.kind[self.free[rows] > 0], minlength=2)
        for row, some, value in pieces(rows, noisy, values):
            features = self.features(row, some)  # (b, L, size)
            flat = features.flatten(0, 1)
            self.square += flat.T @ flat
            self.product += flat.T @ value.flatten()
            scale = some.scale[:, 1:]  # of kind 1, (b, 1)
            surprise = (value - features @ plain.flatten()) / scale.clamp(min=1e-300)
            trust = some.kind * (scale**2 / self.typical()[1]).clamp(max=1)
            self.sum.index_add_(0, row, surprise * trust)
            self.seen.index_add_(0, row, trust)
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
