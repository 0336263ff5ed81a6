"""MaskGIT's own order: draw every hidden token, then keep those that came out likely.

Chang et al. 2022, section 3.2. The place is chosen after the drawing, by π_i(y_i) of the tokens
that were drawn: likely values are kept more often than π says. So even one token at a time, with
exact conditionals, it has another law than the data. `ByConfidence` looks at the best token of each
place before anything is drawn, and keeps the law.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sedd_mini.beyond.confidence import due, first
from sedd_mini.beyond.heads import ask, check_absorbing
from sedd_mini.checks import whole_number
from sedd_mini.samplers import Generators, movable, pick, uniforms
from sedd_mini.worlds.ctmc import Chain


@dataclass(frozen=True)
class DrawnFirst:
    """A step for `sample`: of the tokens that are drawn it keeps those of the largest π_i(y_i).

    at_once: how many; None: of n hidden tokens n λ'/λ stay hidden, rounded, λ the schedule's share.
    """

    at_once: int | None = None

    def __post_init__(self):
        if self.at_once is not None:
            whole_number("at_once", self.at_once, 1)

    def __call__(self, model, graph, noise, x, free, t, t_next, generator: Generators) -> Tensor:
        check_absorbing(graph, "an order by confidence")
        hidden, sigma = movable(graph, x, free), noise.total(t).double()
        if not hidden.any():
            return x
        probs, _ = ask(model, x, hidden, sigma.expand(len(x)))  # (M, N)
        drawn = pick(probs, uniforms(hidden, generator, 1)[0].to(probs.device))  # (M,)
        sure = torch.full(x.shape, -torch.inf, dtype=torch.float64, device=probs.device)
        sure[hidden.to(sure.device)] = probs.gather(-1, drawn[:, None])[:, 0]
        left = float(torch.expm1(-noise.total(t_next).double()) / torch.expm1(-sigma))
        number = due(hidden, left)
        if self.at_once is not None:
            number = hidden.sum(1).clamp(max=self.at_once)
        order = sure.sort(dim=1, descending=True, stable=True).indices.to(x.device)
        keep = first(order, number)
        return torch.where(keep, x.masked_scatter(hidden, drawn.to(x.device)), x)


drawn_first = DrawnFirst()


def law_of_drawn_first(model, chain: Chain, sigma: float = 1.0) -> Tensor:
    """The exact law of DrawnFirst(at_once=1) with a time-free head, from all MASK, (S,)*d.

    Place i shows y with probability π_i(y) Π_{j≠i} P(π_j(Y_j) is smaller, or equal and j > i).
    """
    check_absorbing(chain.graph, "an order by confidence")
    states, mask, size = chain.states, chain.graph.mask_id, chain.graph.num_tokens
    hidden = states == mask  # (n, d)
    pi = torch.zeros(*states.shape, size, dtype=torch.float64)
    pi[hidden] = ask(model, states, hidden, torch.full((len(states),), sigma).double())[0]
    mine, other = pi[:, :, :, None, None], pi[:, None, None]  # (n, i, y, 1, 1), (n, 1, 1, j, y')
    place = torch.arange(chain.length)
    later = (place > place[:, None])[:, None, :, None]  # j > i, (d, 1, d, 1)
    below = (other < mine) | ((other == mine) & later)
    loses = torch.where(below, other, 0).sum(-1)  # P(j does not win), (n, i, y, j)
    apart = hidden[:, None, None] & (place != place[:, None])[:, None]  # the hidden j ≠ i
    wins = torch.where(apart, loses, 1).prod(-1) * pi * hidden[..., None]  # (n, d, N)
    law, count = torch.zeros(len(states), dtype=torch.float64), hidden.sum(1)
    law[count == chain.length] = 1.0
    for n in range(chain.length, 0, -1):
        here = count == n
        flow = law[here, None, None] * wins[here]
        target = chain.neighbours(states[here])[..., :size]
        law = law.index_add(0, target.flatten(), flow.flatten())
        law[here] = 0.0
    return law.reshape(chain.p0.shape)
