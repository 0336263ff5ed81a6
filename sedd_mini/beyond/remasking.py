"""Second thoughts: steps that hide tokens again, so that a mistake can be mended.

`Remask` (ReMDM, Wang et al. 2025). With α = e^{−σ̄} the share visible, from t to s < t a visible
token is hidden with probability ρ, a hidden one gets a token drawn from π with probability
(α_s − (1 − ρ) α_t) / (1 − α_t). ρ is `strength` times the most that leaves this ≤ 1,
min(1, (1 − α_s)/α_t). Given x0 it keeps p_s( · | x0) whole: a token that was visible with
probability α_t is so with α_t (1 − ρ) + α_s − (1 − ρ) α_t = α_s. With π drawn in parallel it does
not keep the joint law, not even at ρ = 0, and at equal K with exact scores more of it is worse. It
repairs what learned scores or greedy choices spoil.

`Corrector` (Campbell et al. 2022, section 4.4). The rates Q + Q̄, forward plus reverse, leave p_σ̄ as
it is, for exact ratios and on any graph. After a Tweedie step to t_next, some parallel steps of
these rates at t_next. A step of size h is off by O(h²), as all tokens move at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sedd_mini.beyond.heads import ask, check_absorbing, exact_device
from sedd_mini.checks import real_number, whole_number
from sedd_mini.graphs import one_hot
from sedd_mini.samplers import Generators, draw_moves, movable, tweedie, uniforms


@dataclass(frozen=True)
class Remask:
    """A step for `sample`, absorbing graph; strength in [0, 1], at 0 tokens that appear stay."""

    strength: float = 0.5

    def __post_init__(self):
        check_strength(self.strength)
        if self.strength > 1:
            raise ValueError(f"strength of remasking must lie in [0, 1], got {self.strength}")

    def __call__(self, model, graph, noise, x, free, t, t_next, generator: Generators) -> Tensor:
        return draw(x, free, self.moves(model, graph, noise, x, free, t, t_next), generator)

    def rows(self, model, graph, noise, x, free, t, t_next) -> Tensor:
        return rows_of(graph, x, free, self.moves(model, graph, noise, x, free, t, t_next))

    def moves(self, model, graph, noise, x, free, t, t_next) -> tuple[Tensor, Tensor]:
        """Where the free tokens may go, weights (M, S), 0 at x; and P(move), (M,) float64."""
        check_absorbing(graph, "remasking")
        sigma = noise.total(t).double()
        visible, later = (torch.exp(-noise.total(s).double()) for s in (t, t_next))  # α_t, α_s
        rho = self.strength * min(1.0, float((1 - later) / visible))
        show = float((later - (1 - rho) * visible) / -torch.expm1(-sigma))
        masked = movable(graph, x, free)  # (B, L)
        here = masked[free].to(exact_device(x.device))  # (M,)
        size = len(here), graph.num_states
        weights = torch.zeros(size, dtype=torch.float64, device=here.device)
        weights[:, graph.mask_id] = 1.0
        if masked.any():
            probs, _ = ask(model, x, masked, sigma.expand(len(x)))
            weights[here] = torch.cat([probs, torch.zeros_like(probs[:, :1])], -1)
        chance = torch.tensor([rho, show], dtype=torch.float64, device=here.device)
        return weights, chance[here.long()]


@dataclass(frozen=True)
class Corrector:
    """A step for `sample` on either graph: Tweedie to t_next, then `rounds` of the rates Q + Q̄.

    strength: each round is of size h = strength · min(Δσ̄, e^σ̄ − 1), so not longer than a hidden
    token stays hidden. A token of total rate c moves with probability 1 − e^{−c h}.
    """

    strength: float = 0.5
    rounds: int = 1

    def __post_init__(self):
        check_strength(self.strength)
        whole_number("rounds", self.rounds, 1)

    def __call__(self, model, graph, noise, x, free, t, t_next, generator: Generators) -> Tensor:
        x = tweedie(model, graph, noise, x, free, t, t_next, generator)
        for _ in range(self.rounds):
            x = draw(x, free, self.moves(model, graph, noise, x, free, t, t_next), generator)
        return x

    @property
    def rows(self) -> tuple:
        """For `law_of_sampler`: the parts of the step, one after the other."""
        return ("tweedie", *[self.correct] * self.rounds)

    def correct(self, model, graph, noise, x, free, t, t_next) -> Tensor:
        return rows_of(graph, x, free, self.moves(model, graph, noise, x, free, t, t_next))

    def moves(self, model, graph, noise, x, free, t, t_next) -> tuple[Tensor, Tensor]:
        sigma = noise.total(t_next).double()
        size = self.strength * min(float(noise.total(t) - sigma), float(sigma.expm1()))
        return both_ways(model, graph, x, free, sigma, size)


def both_ways(model, graph, x: Tensor, free: Tensor, sigma: Tensor, size: float):
    """A step of `size` (in σ̄) of the rates Q + Q̄ at sigma: weights (M, S), 0 at x; P(move) (M,)."""
    device = exact_device(x.device)
    tokens = x[free].to(device)  # (M,)
    rates = graph.rates(tokens).double()  # Q( · , x), off the diagonal
    at = movable(graph, x, free)
    levels = sigma.to(torch.get_default_dtype()).to(x.device).expand(len(x))
    if at.any():
        log_score = model(x, levels, at=at).to(device).double()
        back = graph.reverse_rates(x[at].to(device), log_score.exp()).to(rates)
        rates[at[free].to(device)] += back
    rates = rates.scatter(-1, tokens[:, None], 0.0)
    return rates, -torch.expm1(-size * rates.sum(-1))


def draw(x: Tensor, free: Tensor, moves: tuple[Tensor, Tensor], generator: Generators) -> Tensor:
    """The free tokens of x (B, L), moved: first whether, then where."""
    device = moves[0].device
    moved = draw_moves(x[free].to(device), *moves, *uniforms(free, generator).to(device))
    return x.masked_scatter(free, moved.to(x.device))


def rows_of(graph, x: Tensor, free: Tensor, moves: tuple[Tensor, Tensor]) -> Tensor:
    """The probabilities (B, L, S) of such a step, for `law_of_sampler`."""
    weights, p_move = moves
    out = one_hot(x, graph.num_states)
    probs = weights / weights.sum(-1, keepdim=True).clamp(min=1e-300) * p_move[:, None]
    out[free] = probs.scatter_add(-1, x[free][:, None], 1 - p_move[:, None])
    return out


def check_strength(strength: float) -> None:
    if real_number("strength", strength) < 0:
        raise ValueError(f"strength must be at least 0, got {strength}")


remask, corrector = Remask(), Corrector()
