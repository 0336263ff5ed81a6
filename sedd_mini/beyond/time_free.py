"""Networks that are not told the time, and the calls that they save.

Ou et al. 2024 (RADD), section 3: on the absorbing graph σ̄ enters the exact ratios as a factor
1/(e^σ̄ − 1) alone, so a network with `time_conditioning=False` can be exact. Its answer changes with
the visible tokens only. A step of a sampler in which nothing moved leaves it as it is, and the next
call can be skipped: of K steps over equal shares, with L tokens that each appear in one of them, on
average K (1 − (1 − 1/K)^L) have a move, and as many calls are made (`expected_calls`).

`sample` puts `Remembering` around a DiffusionTransformer that is not told the time.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.beyond.heads import exact_device, log_r
from sedd_mini.checks import whole_number
from sedd_mini.network.dit import DiffusionTransformer


class Remembering:
    """A time-free network that is called for those sequences alone that have changed.

    model   model(x, sigma, at=mask) → log-scores (M, S), which depend on sigma by log_r(σ̄) alone,
            or, if not `scaled`, not at all
    calls   how often the network was called; rows: for how many sequences in all

    It remembers one answer, the last; it is called as the network is. Equal to the network up to
    the rounding of a sum, and of a batch of another size.
    """

    def __init__(self, model: Callable, scaled: bool = True):
        self.model, self.scaled, self.calls, self.rows = model, scaled, 0, 0
        self.x = self.number = self.answer = None

    def __call__(self, x: Tensor, sigma: Tensor, at: Tensor | None = None) -> Tensor:
        if at is None:
            self.calls, self.rows = self.calls + 1, self.rows + len(x)
            return self.model(x, sigma)
        fresh = at.any(1)  # (B,): to be asked about
        if self.x is not None and self.x.shape == x.shape and self.x.device == x.device:
            fresh &= (self.x != x).any(1) | (at & (self.number < 0)).any(1)
        old = at & ~fresh[:, None]
        number = torch.full_like(x, -1)
        number[at] = torch.arange(int(at.sum()), device=x.device)
        parts, places = [], []
        if fresh.any():
            self.calls, self.rows = self.calls + 1, self.rows + int(fresh.sum())
            level = torch.full_like(sigma[fresh], 0.6931471805599453)  # e^σ̄ − 1 = 1 there
            parts.append(self.model(x[fresh], level, at=at[fresh]))
            places.append(number[at & fresh[:, None]])
        if old.any():
            parts.append(self.answer[self.number[old]])
            places.append(number[old])
        answer = torch.cat(parts)[torch.cat(places).argsort()]  # (M, S), in the order of x[at]
        self.x, self.number, self.answer = x.clone(), number, answer
        if not self.scaled:
            return answer.clone()
        factor = log_r(sigma.to(exact_device(x.device)).double()).to(answer.dtype).to(x.device)
        factor = factor[:, None].expand(x.shape)[at]  # (M,)
        return (answer + factor[:, None]).scatter(-1, x[at][:, None], 0.0)


def remembering(model: Callable) -> Callable:
    """A `Remembering` of a DiffusionTransformer that is not told the time; else the model itself.

    A class of another kind may make something else of σ̄, and is called at every step.
    """
    if type(model) is not DiffusionTransformer or model.config.time_conditioning:
        return model
    return Remembering(model, model.config.scale_by_sigma)


def expected_calls(steps: int, length: int) -> float:
    """K (1 − (1 − 1/K)^L): the mean number of calls for one sequence of L tokens in K steps.

    For a normalised head, and steps over equal shares: log-linear noise, times equally far apart.
    B sequences in one batch need a call wherever one of them moved: put L B for L.
    """
    steps, length = whole_number("steps", steps, 1), whole_number("length", length, 1)
    return steps * (1 - (1 - 1 / steps) ** length)
