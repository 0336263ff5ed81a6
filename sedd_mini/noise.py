"""Noise schedules: how much noise there is at time t, and how fast it comes.

Notation: t in [0, 1] is time, `total(t)` is the total noise σ̄(t), and `rate(t)` is its derivative
σ(t) = dσ̄/dt. Both take a float or a tensor of any shape and return a tensor of that shape.

A schedule of your own is a class with these two and `to_config()`, the keyword arguments of its
constructor; added to `SCHEDULES` under a name, it trains, is saved and loaded like the others.
`CosineNoise` is the worked example: copy it.
"""

import math

import torch
from torch import Tensor

from sedd_mini.checks import real_number, real_tensor, share


class GeometricNoise:
    """σ̄(t) = σ_min^{1−t} σ_max^t: equal steps of t multiply the noise by equal factors.

    The noise starts at σ_min > 0, not at 0. Section 5.1 of Lou et al. 2023 pairs it with the
    uniform graph, σ_min = 1e-5 there and 1e-4 in the released configuration, σ_max = 20.
    """

    def __init__(self, sigma_min: float = 1e-4, sigma_max: float = 20.0):
        self.sigma_min = real_number("sigma_min", sigma_min, 0)
        self.sigma_max = real_number("sigma_max", sigma_max, 0)
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")

    def total(self, t: Tensor | float) -> Tensor:
        """σ̄(t), the shape of t; raises ValueError for t outside [0, 1]."""
        t = check_time(t)
        return torch.exp((1 - t) * math.log(self.sigma_min) + t * math.log(self.sigma_max))

    def rate(self, t: Tensor | float) -> Tensor:
        """σ(t) = σ̄(t) log(σ_max / σ_min), the shape of t."""
        return self.total(t) * math.log(self.sigma_max / self.sigma_min)

    def to_config(self) -> dict:
        return {"sigma_min": self.sigma_min, "sigma_max": self.sigma_max}

    def __repr__(self) -> str:
        return f"GeometricNoise(sigma_min={self.sigma_min}, sigma_max={self.sigma_max})"


class LogLinearNoise:
    """σ̄(t) = −log(1 − (1 − ε) t): the probability of having moved, 1 − e^{−σ̄}, grows linearly in t.

    Starts at σ̄(0) = 0 and ends at σ̄(1) = −log ε. Section 5.1 of Lou et al. 2023 pairs it with the
    absorbing graph, ε = 1e-3.
    """

    def __init__(self, eps: float = 1e-3):
        self.eps = share("eps", eps)

    def total(self, t: Tensor | float) -> Tensor:
        """σ̄(t), the shape of t; raises ValueError for t outside [0, 1]."""
        return -torch.log1p(-(1 - self.eps) * check_time(t))

    def rate(self, t: Tensor | float) -> Tensor:
        """σ(t) = (1 − ε) / (1 − (1 − ε) t), the shape of t."""
        return (1 - self.eps) / (1 - (1 - self.eps) * check_time(t))

    def to_config(self) -> dict:
        return {"eps": self.eps}

    def __repr__(self) -> str:
        return f"LogLinearNoise(eps={self.eps})"


class CosineNoise:
    """σ̄(t) = −log(1 − (1 − ε) sin(πt/2)): the share e^{−σ̄} that stays is about 1 − cos(π(1 − t)/2).

    The cosine schedule of masked diffusion (Chang et al. 2022; Shi et al. 2024). As t falls from 1,
    few tokens appear at first, while little is known. Starts at σ̄(0) = 0, ends at σ̄(1) = −log ε.
    """

    def __init__(self, eps: float = 1e-3):
        self.eps = share("eps", eps)

    def total(self, t: Tensor | float) -> Tensor:
        """σ̄(t), the shape of t; raises ValueError for t outside [0, 1]."""
        moved = (1 - self.eps) * torch.sin(check_time(t) * (math.pi / 2))
        return torch.where(moved < 0.5, -torch.log1p(-moved), -self.stayed(t).log())

    def rate(self, t: Tensor | float) -> Tensor:
        """σ(t) = (1 − ε) (π/2) cos(πt/2) / (1 − (1 − ε) sin(πt/2)), the shape of t."""
        cosine = torch.sin((1 - check_time(t)) * (math.pi / 2))  # exact near t = 1
        return (1 - self.eps) * (math.pi / 2) * cosine / self.stayed(t)

    def stayed(self, t: Tensor | float) -> Tensor:
        """e^{−σ̄(t)}, as 1 − sin(πt/2) = 2 sin²(π(1 − t)/4), which does not cancel near t = 1."""
        return self.eps + (1 - self.eps) * 2 * torch.sin((1 - check_time(t)) * (math.pi / 4)) ** 2

    def to_config(self) -> dict:
        return {"eps": self.eps}

    def __repr__(self) -> str:
        return f"CosineNoise(eps={self.eps})"


SCHEDULES = {"loglinear": LogLinearNoise, "geometric": GeometricNoise, "cosine": CosineNoise}


def check_time(t: Tensor | float) -> Tensor:
    """t as a floating-point tensor, float32 or wider; raises ValueError unless 0 <= t <= 1."""
    t = real_tensor("time t", t)
    if not torch.compiler.is_compiling() and not ((t >= 0) & (t <= 1)).all():
        raise ValueError(f"time t must lie in [0, 1], got {t.min().item():g} to {t.max().item():g}")
    return t
