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
cost their total correlation given the visible ones. For a learned, inconsistent table the rule
gives a proper law too, q(x) = Π π(x_i | visible) along the order that the rule takes on x:
`exact_nats` is −log q(x), exactly, in L calls. The any-order loss is no bound on it.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from sedd_mini.beyond.heads import ask, check_absorbing
from sedd_mini.checks import real_number, whole_number
from sedd_mini.evaluate import check_data
from sedd_mini.graphs import one_hot
from sedd_mini.samplers import Generators, check_times, evaluation_mode, movable, pick, uniforms

KEYS = ("probability", "margin", "entropy", "left")


@dataclass(frozen=True)
class ByConfidence:
    """A step for `sample`: reveal the hidden tokens of which the network is surest.

    key        one of KEYS
    greedy     take the most probable token instead of drawing
    at_once    None: of n hidden tokens n λ'/λ stay hidden, rounded, λ the schedule's share; or a
               number of tokens a step
    threshold  instead: all with max π ≥ threshold, but at least one
    bound      instead: an entropy bound in nats; at least one

    With the last three a run of L steps always ends; what fewer steps leave is drawn in parallel by
    `sample`. Ties go to the place further left. Raises ValueError for what does not fit.
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
        if not hidden.any():
            return hidden, torch.zeros(0, graph.num_tokens, dtype=torch.float64)
        probs, _ = ask(model, x, hidden, sigma.expand(len(x)))  # (M, N)
        left = torch.expm1(-noise.total(t_next).double()) / torch.expm1(-sigma)  # λ'/λ
        show = self.places(probs, hidden, float(left))
        return show, probs[show[hidden]]

    def places(self, probs: Tensor, hidden: Tensor, left: float) -> Tensor:
        """The surest of the hidden places, a mask (B, L), from π at them (M, N)."""
        sure = torch.full(hidden.shape, -torch.inf, dtype=torch.float64, device=hidden.device)
        sure[hidden] = surety(probs, self.key, hidden)
        order = sure.sort(dim=1, descending=True, stable=True).indices  # (B, L), hidden ones first
        count = hidden.sum(1)  # (B,)
        if self.threshold is not None:
            best = torch.zeros_like(sure).masked_scatter(hidden, probs.amax(-1))
            return (best >= self.threshold) & hidden | (first(order, count > 0) & hidden)
        if self.at_once is not None:
            number = count.clamp(max=self.at_once)
        elif self.bound is not None:
            entropy = torch.zeros_like(sure).masked_scatter(hidden, entropies(probs))
            entropy = entropy.gather(1, order)  # (B, L), the surest first
            spent = entropy.cumsum(1) - entropy.cummax(1).values
            fits = (spent <= self.bound + 1e-12).cumprod(1).sum(1)  # the first always does
            number = fits.minimum(count)
        else:
            number = count - (count * left).round().long()
        return first(order, number)


confidence = ByConfidence("probability")
margin = ByConfidence("margin")
entropy_bound = ByConfidence("entropy", bound=0.5)
greedy = ByConfidence("probability", greedy=True)


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


@torch.no_grad()
def exact_nats(model, graph, noise, x0: Tensor, key="probability", eps: float = 1e-5) -> Tensor:
    """−log q(x0) in nats, (B,) float64, q the law of `sample` with ByConfidence(key, at_once=1).

    x0 (B, L) data; L calls of the network, for a run of L steps. No estimate: the rule looks at
    visible tokens only, so the order that it takes on x0 is the only one that gives x0. Raises
    ValueError for a graph without MASK.
    """
    check_absorbing(graph, "the exact law of an order")
    check_data(x0, graph)
    step, nats = ByConfidence(key, at_once=1), torch.zeros(len(x0), dtype=torch.float64)
    x, free = torch.full_like(x0, graph.mask_id), torch.ones_like(x0, dtype=torch.bool)
    times = check_times(None, x0.shape[1], eps, True)
    with evaluation_mode(model):
        for t, t_next in itertools.pairwise(times):
            show, probs = step.choose(model, graph, noise, x, free, t, t_next)  # one a row
            truth = x0[show].to(probs.device)
            nats -= probs.gather(-1, truth[:, None])[:, 0].log().cpu()
            x = torch.where(show, x0, x)
    return nats
