"""Which token next: the order of revealing chosen by how sure the network is.

MaskGIT (Chang et al. 2022), LLaDA (Nie et al. 2025), Dream: in each step reveal the hidden tokens
of which the network is surest, instead of a random set. `ByConfidence` has the choices that count.

Where: "probability" (the largest π_y), "margin" (the largest less the second largest; Kim et al.
2025), "entropy" (the lowest −Σ π log π), or "left" (the first hidden place).
How many: as the schedule says; a fixed number; all whose π_y reaches a threshold (Wu et al. 2025);
or as many as an entropy bound allows (Ben-Hamu et al. 2025): the surest m with ΣH − max H ≤ bound.
What: drawn from π, or the most probable token ("greedy").

What keeps the law. The place is chosen from what is visible, before anything is drawn. Then one
token at a time, *drawn*, in any such order is exact for exact conditionals: it is the chain rule
along an order that depends on what came before. Greedy values are not, and several tokens at once
cost their total correlation given the visible ones. A learned, inconsistent table has a proper law
too, whose exact likelihood order_likelihood.py computes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sedd_mini.beyond.heads import ask, check_absorbing, of_rows
from sedd_mini.checks import real_number, whole_number
from sedd_mini.graphs import one_hot
from sedd_mini.samplers import Generators, movable, pick, uniforms

KEYS = ("probability", "margin", "entropy", "left")


@dataclass(frozen=True)
class ByConfidence:
    """A step for `sample`: reveal the hidden tokens of which the network is surest.

    key        one of KEYS
    greedy     take the most probable token instead of drawing
    at_once    None: of n hidden tokens n λ'/λ stay hidden, rounded, λ the schedule's share; or a
               number of tokens a step, and `sample` draws in parallel what K steps leave
    threshold  more than the schedule asks for, where max π ≥ threshold; at least one token
    bound      the same with an entropy bound in nats

    With the last two a run of K ≥ L steps reveals what they allow and no more, in fewer calls; one
    of K < L also what its schedule needs to end. Ties go to the place further left. Raises
    ValueError for what does not fit.
    """

    key: str = "probability"
    greedy: bool = False
    at_once: int | None = None
    threshold: float | None = None
    bound: float | None = None

    def __post_init__(self):
        if self.key not in KEYS:
            raise ValueError(f"key must be one of {', '.join(KEYS)}, got {self.key!r:.60}")
        if sum(v is not None for v in (self.at_once, self.threshold, self.bound)) > 1:
            raise ValueError("give one of at_once, threshold and bound: each says how many")
        if self.at_once is not None:
            whole_number("at_once", self.at_once, 1)
        if self.threshold is not None and not 0 <= real_number("threshold", self.threshold) <= 1:
            raise ValueError(f"threshold must be a probability in [0, 1], got {self.threshold}")
        if self.bound is not None and real_number("bound", self.bound) < 0:
            raise ValueError(f"bound must be an entropy of at least 0 nats, got {self.bound}")

    def __call__(self, model, graph, noise, x, free, t, t_next, generator: Generators) -> Tensor:
        show, probs = self.choose(model, graph, noise, x, free, t, t_next)
        if self.greedy:
            return x.masked_scatter(show, probs.argmax(-1).to(x.device))
        drawn = pick(probs, uniforms(show, generator, 1)[0].to(probs.device))
        return x.masked_scatter(show, drawn.to(x.device))

    def rows(self, model, graph, noise, x, free, t, t_next) -> Tensor:
        """The probabilities (B, L, S) from which each token is drawn, for `law_of_sampler`."""
        show, probs = self.choose(model, graph, noise, x, free, t, t_next)
        if self.greedy:
            probs = one_hot(probs.argmax(-1), graph.num_tokens)
        out = one_hot(x, graph.num_states)
        out[show] = torch.cat([probs, torch.zeros_like(probs[:, :1])], -1)
        return out

    def choose(self, model, graph, noise, x, free, t, t_next) -> tuple[Tensor, Tensor]:
        """Where to reveal, a mask (B, L), and π there (K, N) float64."""
        check_absorbing(graph, "an order by confidence")
        hidden, sigma = movable(graph, x, free), noise.total(t).double()
        left = float(torch.expm1(-noise.total(t_next).double()) / torch.expm1(-sigma))  # λ'/λ
        if self.at_once is None and self.threshold is None and self.bound is None:
            hidden &= (due(hidden, left) > 0)[:, None]  # the others are not asked about
        rows = hidden.any(1)
        if not rows.any():
            return hidden, torch.zeros(0, graph.num_tokens, dtype=torch.float64)
        levels = sigma.expand(int(rows.sum()))
        probs, _ = ask(of_rows(model, rows), x[rows], hidden[rows], levels)  # (M, N)
        hidden = hidden.to(probs.device)
        show = self.places(probs, hidden, left)
        return show.to(x.device), probs[show[hidden]]

    def places(self, probs: Tensor, hidden: Tensor, left: float) -> Tensor:
        """The surest of the hidden places, a mask (B, L), from π at them (M, N)."""
        sure = torch.full(hidden.shape, -torch.inf, dtype=torch.float64, device=hidden.device)
        sure[hidden] = surety(probs, self.key, hidden)
        order = sure.sort(dim=1, descending=True, stable=True).indices  # (B, L), hidden ones first
        count = hidden.sum(1)  # (B,)
        least = due(hidden, left).clamp(min=1).minimum(count)
        if self.threshold is not None:
            best = torch.zeros_like(sure).masked_scatter(hidden, probs.amax(-1))
            return (best >= self.threshold) & hidden | first(order, least)
        if self.at_once is not None:
            return first(order, count.clamp(max=self.at_once))
        if self.bound is not None:
            entropy = torch.zeros_like(sure).masked_scatter(hidden, entropies(probs))
            entropy = entropy.gather(1, order)  # (B, L), the surest first
            spent = entropy.cumsum(1) - entropy.cummax(1).values
            fits = (spent <= self.bound + 1e-12).cumprod(1).sum(1)  # the first always does
            return first(order, fits.minimum(count).maximum(least))
        return first(order, due(hidden, left))


confidence = ByConfidence("probability")
margin = ByConfidence("margin")
entropy_bound = ByConfidence("entropy", bound=0.5)
greedy = ByConfidence("probability", greedy=True)


def due(hidden: Tensor, left: float) -> Tensor:
    """How many hidden tokens of each row are to be revealed, if a share `left` stays, (B,)."""
    count = hidden.sum(1)
    return count - (count * left).round().long()


def first(order: Tensor, number: Tensor) -> Tensor:
    """The first `number` (B,) places of each row's order (B, L), as a mask (B, L)."""
    rank = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter(1, order, rank < number[:, None])


def entropies(probs: Tensor) -> Tensor:
    return -torch.xlogy(probs, probs).sum(-1)


def surety(probs: Tensor, key: str, hidden: Tensor) -> Tensor:
    """How sure the network is at each hidden place, (M,); more is surer."""
    if key == "left":
        return -hidden.nonzero()[:, 1].double()
    if key == "entropy":
        return -entropies(probs)
    best = probs.topk(2, -1).values  # (M, 2)
    return best[:, 0] - best[:, 1] if key == "margin" else best[:, 0]
