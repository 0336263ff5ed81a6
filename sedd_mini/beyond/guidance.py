"""Guidance: lean harder on what is given, a label or a prompt (classifier-free).

Ho and Salimans 2022; for tokens Schiff et al. 2024 and Nisonoff et al. 2024. The network answers
twice, with what is given in view and with it hidden, and the two are extrapolated,

    log p^γ = (1 + γ) log p( · | c) − γ log p( · ) + constant,

renormalised token by token. γ = 0 is plain sampling; larger γ makes samples more typical of c and
less varied. On the absorbing graph a single hidden token then has exactly the tempered law
∝ p(y|c)^{1+γ} / p(y)^γ. Several do not have the tempered joint: the constant of each token depends
on what is visible, and a product of normalised factors is not a normalised product. One token after
the other, the law even depends on the order (`law_in_order`). On the uniform graph it already fails
for one token: ratios of noised laws, tempered, are not ratios of the tempered law, noised.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sedd_mini.beyond.heads import check_absorbing, log_parts, log_r
from sedd_mini.checks import real_number
from sedd_mini.evaluation.law import parts_of, step_rows
from sedd_mini.samplers import Step, find_step


@dataclass(frozen=True)
class Guidance:
    """A step for `sample`: another step with a network guided by what is given.

    strength  γ ≥ 0
    step      the step that is taken: a name in SAMPLERS or a function
    labels    the positions that are hidden for the second answer; None: all that `clamp` gives
              (TextModel: prompt, suffix, the text around the gaps)

    Two calls of the network where the step makes one. The last step of `sample`, which takes away
    what is left at t = eps, is not guided. Raises ValueError on a graph without MASK, and where
    nothing is given.
    """

    strength: float = 1.0
    step: str | Step = "tweedie"
    labels: tuple[int, ...] | None = None

    def __post_init__(self):
        if real_number("strength of guidance", self.strength) < 0:
            raise ValueError(f"strength of guidance must be at least 0, got {self.strength}")
        find_step(self.step)

    def __call__(self, model, graph, noise, x, free, t, t_next, generator) -> Tensor:
        guided = self.network(model, graph, x, free)
        return find_step(self.step)(guided, graph, noise, x, free, t, t_next, generator)

    @property
    def rows(self) -> tuple:
        """For `law_of_sampler`, where the step has them."""

        def guided(part):
            def rows(model, graph, noise, x, free, t, t_next):
                model = self.network(model, graph, x, free)
                return step_rows(model, graph, noise, part, t, t_next)(x, free)

            return rows

        return tuple(guided(part) for part in parts_of(self.step))

    def network(self, model, graph, x: Tensor, free: Tensor) -> Callable:
        check_absorbing(graph, "guidance that hides what is given")
        given = ~free  # (B, L)
        if self.labels is not None:
            given = positions(self.labels, x.shape[1], x.device).expand(x.shape)
        if not given.any():
            raise ValueError("guidance needs something given, a label or a prompt: give clamp=… "
                             "(a TextModel: prompt=…), or labels=(positions)")  # fmt: skip
        if (hidden := given & (x == graph.mask_id)).any():
            place = int(hidden.nonzero()[0, 1])
            raise ValueError(f"guidance on a label that is not there: position {place} is MASK")
        return Guided(model, graph, given, self.strength)


class Guided:
    """model(x, sigma, at=mask) with the log-scores of hidden tokens guided; `given` (B, L) bool."""

    def __init__(self, model: Callable, graph, given: Tensor, strength: float):
        self.model, self.graph, self.given, self.strength = model, graph, given, strength

    def of_rows(self, rows: Tensor) -> "Guided":
        """The same for some of the sequences."""
        return Guided(self.model, self.graph, self.given[rows], self.strength)

    def __call__(self, x: Tensor, sigma: Tensor, at: Tensor) -> Tensor:
        blind = torch.where(self.given, self.graph.mask_id, x)
        told, untold = (self.model(tokens, sigma, at=at) for tokens in (x, blind))  # (M, S)
        return guide(told, untold, sigma[:, None].expand(x.shape)[at], self.strength)


def guide(told: Tensor, untold: Tensor, sigma: Tensor, strength: float) -> Tensor:
    """Guided log-scores of hidden tokens, (M, N + 1) ×2, sigma (M,) → (M, N + 1).

    π ∝ π_told^{1+γ} π_untold^{−γ}, normalised, with the mass Z that `told` has.
    """
    (log_pi, log_z), (other, _) = log_parts(told, sigma), log_parts(untold, sigma)
    mixed = ((1 + strength) * log_pi - strength * other).log_softmax(-1)  # (M, N)
    out = mixed + (log_z + log_r(sigma))[:, None]
    return torch.cat([out, torch.zeros_like(out[:, :1])], -1).to(told.dtype)


def tempered_joint(p: Tensor, base: Tensor, strength: float) -> Tensor:
    """∝ p^{1+γ} / base^γ on whole sequences, (N,)*d: what guidance is often taken for."""
    weight = p.double() ** (1 + strength) * base.double() ** -strength
    return weight / weight.sum()


def law_in_order(p: Tensor, base: Tensor, strength: float, order=None) -> Tensor:
    """The law of writing one token after the other with guided exact conditionals, (N,)*d.

    p and base (N,)*d: the joint laws with and without c; order: of the places, default 0, 1, …
    """
    p, base, d = p.double(), base.double(), p.ndim
    order, law = list(range(d) if order is None else order), torch.ones_like(p, dtype=torch.double)
    for k, place in enumerate(order):
        later = order[k + 1 :]
        with_c, without = (q.sum(later, keepdim=True) if later else q for q in (p, base))
        weight = with_c ** (1 + strength) * without**-strength  # ∝, in the value at this place
        law = law * weight / weight.sum(place, keepdim=True)
    return law


def laws_of_orders(p: Tensor, base: Tensor, strength: float) -> dict[tuple[int, ...], Tensor]:
    """`law_in_order` for every order of the places."""
    orders = itertools.permutations(range(p.ndim))
    return {order: law_in_order(p, base, strength, order) for order in orders}


def positions(labels, length: int, device) -> Tensor:
    """The mask (length,) of these positions; ValueError for one that is not there."""
    mask = torch.zeros(length, dtype=torch.bool, device=device)
    for place in labels:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < length:
            raise ValueError(f"labels must be positions in [0, {length}), got {place!r:.60}")
        mask[place] = True
    return mask


guidance = Guidance()
