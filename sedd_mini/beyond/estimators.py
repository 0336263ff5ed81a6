"""Estimators of the one loss: equal means, different variances. Losses for the trainer.

All four price the same cross-entropies CE_i = −log π(x0_i | visible) of hidden tokens, and have the
mean ∫_0^1 (1/λ) E_λ Σ CE_i dλ (one_loss.py). What is drawn differs; n of L tokens are hidden:

    "time"    λ uniform, each token hidden with probability λ: (1/λ) Σ CE_i    MDLM, MD4, SEDD
    "count"   n uniform in 1 … L, all sets alike: (L/n) Σ CE_i                 LLaDA's, RADD's
    "place"   n uniform, one hidden place of a random set: L CE_i              ARDM: one term of L

The variance of "time" has no limit: a share λ ≈ 0 still hides a token with probability ~ L λ, at a
weight 1/λ, so that ∫ λ / λ² dλ diverges, like a logarithm of the first λ. "count" is its mean given
the number n (as E[1/λ | n] = (L + 1)/n, and P(n) = 1/(L + 1)), and finite.

Training: `masked_cross_entropy` is "time", `counted_cross_entropy` is "count" at the same draws.
"""

import math

import torch
from torch import Tensor

from sedd_mini.beyond.heads import check_absorbing
from sedd_mini.beyond.one_loss import nodes
from sedd_mini.losses import by_sequence, require, same_shape

ESTIMATORS = ("time", "count", "place")


def masked_cross_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_hidden −log π(x0_i) / (e^σ̄ − 1), (B,): Trainer(loss=…), or in place of DWDSE in a bound.

    π is the softmax of the log-scores, so a head that is not normalised is, and its Z is not
    learned. Equal to `diffusion_weighted`, draw by draw, for a normalised head (Sahoo et al. 2024).
    """
    return hidden_cross_entropy(model, graph, x, sigma, x0)[0] / torch.expm1(sigma)


def counted_cross_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """(L + 1)/n · e^{−σ̄} Σ_hidden −log π(x0_i), (B,), n the number of hidden tokens.

    For log-linear noise, t uniform and independent draws: there σ(t) e^{−σ̄} = 1 − ε, and n has the
    law 1/(L + 1), up to ε. The trainer's own `--draws counted` reduces the variance further.
    """
    total, number = hidden_cross_entropy(model, graph, x, sigma, x0)
    weight = (x.shape[1] + 1) / number.clamp(min=1) * torch.exp(-sigma)
    return weight.to(total.dtype) * total


masked_cross_entropy.is_bound = counted_cross_entropy.is_bound = True  # of the head, normalised


def hidden_cross_entropy(model, graph, x, sigma, x0) -> tuple[Tensor, Tensor]:
    """Σ_hidden −log π(x0_i) (B,) and the number of hidden tokens (B,)."""
    check_absorbing(graph, "masked cross-entropy")
    x0 = same_shape(require(x0, "x0", "masked cross-entropy"), x, "x0")
    by_sequence(sigma, x)
    hidden = x == graph.mask_id
    log_score = model(x, sigma)[..., : graph.num_tokens]  # (B, L, N)
    log_score = log_score.to(torch.promote_types(log_score.dtype, torch.float32))
    target = torch.where(hidden, x0, 0)[..., None]
    cost = log_score.logsumexp(-1) - log_score.gather(-1, target)[..., 0]  # (B, L)
    return torch.where(hidden, cost, 0).sum(-1), hidden.sum(-1)


def moments(sets: Tensor, costs: Tensor, how: str, first: float = 0.0) -> tuple[Tensor, Tensor]:
    """The exact mean and variance of one draw of an estimator, for every x0: (n,), (n,).

    sets, costs: of `hidden_costs`; how: one of ESTIMATORS; first: "time" draws λ in [first, 1], and
    its mean then lacks what lies below. At first = 0 its variance is infinite.
    """
    if how not in ESTIMATORS:
        raise ValueError(f"how must be one of {', '.join(ESTIMATORS)}, got {how!r:.60}")
    hidden, d = sets.sum(1), sets.shape[1]
    sums = costs.sum(-1)  # (2^d, n)
    if how == "time":
        share, weight = nodes(1.0, 40)
        share, weight = first + (1 - first) * share, (1 - first) * weight
        each = torch.xlogy(hidden, share[:, None])
        each = (each + torch.special.xlog1py(d - hidden, -share[:, None])).exp()  # P(set), (K, 2^d)
        mean = (weight / share) @ each @ sums
        if first == 0:
            return mean, torch.full_like(mean, math.inf)
        return mean, (1 - first) * second_moment(hidden, d, first) @ sums**2 - mean**2
    chance = [0.0 if n == 0 else 1 / (d * math.comb(d, n)) for n in hidden.tolist()]
    chance = torch.tensor(chance, dtype=torch.float64)[:, None]  # of each set
    if how == "count":
        values = d * sums / hidden.clamp(min=1)[:, None]
        mean, square = (chance * values).sum(0), (chance * values**2).sum(0)
    else:
        each = chance / hidden.clamp(min=1)[:, None]
        mean, square = d * (each * sums).sum(0), d**2 * (each * (costs**2).sum(-1)).sum(0)
    return mean, square - mean**2


def second_moment(hidden: Tensor, d: int, first: float) -> Tensor:
    """∫ λ^{n−2} (1 − λ)^{d−n} dλ over [first, 1] for each set, (2^d,); 0 for the empty one.

    By Gauss–Legendre in log λ: the integrand of n = 1 is 1/λ.
    """
    points, weight = nodes(-math.log(first), 60)
    share = torch.exp(-points)
    power = torch.xlogy(hidden - 1, share[:, None])
    power = power + torch.special.xlog1py(d - hidden, -share[:, None])
    return torch.where(hidden > 0, weight @ power.exp(), 0)
