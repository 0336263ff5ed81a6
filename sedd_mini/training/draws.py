"""Times and noise of a training batch: which positions are hidden, how often, at what weight.

"independent" draws a time, stratified over the batch, and then the noise of each position: the
definition. "counted" is for absorbing noise: it decides how many tokens n are hidden, also
stratified, and takes the time at which the n-th of them goes. The number is then no longer random
at its time, which divides the variance of the gradient by about 1.5 at equal calls (chapter 07).
Whatever is drawn is weighted so that the expectation is the same, that of the likelihood bound.
"""

import torch
from torch import Tensor

from sedd_mini.evaluate import times
from sedd_mini.graphs import AbsorbingGraph

DRAWS = ("independent", "counted")
FIRST = 1e-3  # training leaves out the times before


def noised(
    graph, noise, x0: Tensor, generator: torch.Generator | None = None, how: str = "independent"
) -> tuple[Tensor, Tensor, Tensor]:
    """Data x0 (B, L) → noisy x (B, L), times t (B,), weights (B,), drawn on the CPU.

    The mean of weight · σ(t) · loss(x, σ̄(t)) estimates the mean over t ∈ [0.001, 1] of
    σ(t) E loss; every weight of "independent" is 1. "counted" is exact for every loss that is 0
    where nothing is hidden, and pays for those that grow as 1 / (1 − e^{−σ̄}) a hidden token, as
    the diffusion-weighted ones do; on other graphs than the absorbing one it is "independent". The
    random numbers depend on the shape of x0 alone. Raises ValueError for another `how`.
    """
    if how not in DRAWS:
        raise ValueError(f"draws={how!r}: expected one of {', '.join(DRAWS)}")
    if how == "counted" and type(graph) is AbsorbingGraph:
        hidden, t, weight = counted(noise, *x0.shape, generator)
        return torch.where(hidden, graph.mask_id, x0), t, weight
    t = (FIRST + (1 - FIRST) * times(len(x0), generator)).float()
    x = graph.sample_transition(x0, noise.total(t)[:, None], generator)
    return x, t, torch.ones_like(t)


def counted(
    noise, num: int, length: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Which positions are hidden (num, length), at which time, and at which weight, (num,) each.

    Position i is hidden once λ(t) = 1 − e^{−σ̄(t)} passes a uniform u_i. The number n is drawn with
    probability `shares`, stratified, and λ is the n-th smallest u: all sets of n positions are as
    likely, and λ ~ Beta(n, length − n + 1) does not depend on which it is.
    """
    share = shares(length)
    n = torch.bucketize(times(num, generator), share.cumsum(0)[:-1], right=True) + 1  # (num,)
    u = torch.rand(num, length, generator=generator, dtype=torch.float64)
    level = u.sort(1).values.gather(1, n[:, None] - 1)  # (num, 1)
    t = time_at(noise, level[:, 0])
    weight = importance(noise, n, t.clamp(FIRST, 1), share)
    inside = (t >= FIRST) & (level[:, 0] <= -torch.expm1(-noise.total(torch.ones_like(t))))
    weight = torch.where(inside, weight, 0)
    return u <= level, t.clamp(FIRST, 1).float(), weight.float()


def shares(length: int) -> Tensor:
    """Probability of n = 1 … length, ∝ n^{−1/2}, float64.

    A loss of n hidden tokens is a mean over them, so its spread is about n^{−1/2}, and draws in
    proportion to the spread have the least variance.
    """
    share = torch.arange(1, length + 1, dtype=torch.float64) ** -0.5
    return share / share.sum()


def hidden_share(how: str, length: int) -> float:
    """The share of positions that absorbing noise hides in a training batch, on average."""
    if how != "counted":
        return 0.5  # log-linear noise; of 1 − e^{−σ̄(t)} in general
    n = torch.arange(1, length + 1, dtype=torch.float64)
    return (shares(length) * n).sum().item() / length


def importance(noise, n: Tensor, t: Tensor, share: Tensor) -> Tensor:
    """How much rarer a set of n hidden positions at time t is here than if t were drawn first.

    That would be λⁿ (1 − λ)^{L−n} / (1 − t_first) for one set at time t. Here it is share[n − 1],
    divided by the number of sets, times the density of Beta(n, L − n + 1) at λ, times dλ/dt. All
    but λ / (n share[n − 1] dλ/dt) / (1 − t_first) cancels. Float64, shape of t.
    """
    sigma = noise.total(t)
    speed = noise.rate(t) * torch.exp(-sigma)  # dλ/dt
    return -torch.expm1(-sigma) / (n * share[n - 1] * speed) / (1 - FIRST)


def time_at(noise, level: Tensor) -> Tensor:
    """The t in [0, 1] at which 1 − e^{−σ̄(t)} is `level`; float64, shape of level.

    Like bisection, but each round divides by 32: ten of them reach 2⁻⁵⁰, with a fifth of the calls.
    """
    sigma, low = -torch.log1p(-level), torch.zeros_like(level)
    parts = torch.arange(1, 32, dtype=torch.float64)
    for i in range(1, 11):
        early = noise.total(low[..., None] + parts * 32.0**-i) < sigma[..., None]
        low = low + early.sum(-1) * 32.0**-i
    return low + 32.0**-10
