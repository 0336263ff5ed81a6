"""One loss, many names, on worlds small enough to add everything up.

Absorbing graph, a head that is not told the time, π_i( · | visible) its guess of hidden token i,
Z_i its mass (heads.py), CE_i = −log π_i(x0_i), λ = 1 − e^{−σ̄}. For every x0 and any table π:

    ∫ DWDSE dσ̄                                    SEDD (Lou et al. 2023, theorem 3.6)
      = ∫_0^1 (1/λ) E_λ Σ_hidden CE_i dλ          λ-DCE (Ou et al. 2024), t-DCE over time: MDLM
        + ∫_0^1 (1/λ) E_λ Σ_hidden (Z_i − 1 − log Z_i) dλ        (Sahoo et al. 2024), MD4 (Shi et
      = E over orders of Σ_l −log π(x0 of place l | places before) + the same price      al. 2024)

The last is the any-order autoregressive loss (Hoogeboom et al. 2022). The price is ≥ 0, and 0 for
a normalised head only. Each function below adds up its own line from the definition.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.beyond.heads import ask, check_absorbing
from sedd_mini.worlds.ctmc import Chain, log_quadrature


def hidden_costs(model: Callable, chain: Chain, sigma=1.0) -> tuple[Tensor, Tensor, Tensor]:
    """What each hidden token costs, for every set of hidden places and every x0.

    Returns the sets (2^d, d) bool, CE (2^d, n, d) and Z − 1 − log Z (2^d, n, d), in nats, 0 at
    visible places; n = N^d data in the order of `chain.states`. The network is asked at σ̄ = sigma.
    """
    check_absorbing(chain.graph, "the cost of a hidden token")
    data = chain.states[(chain.states < chain.graph.num_tokens).all(-1)]  # (n, d)
    sets = torch.tensor(list(itertools.product([False, True], repeat=chain.length)))  # (2^d, d)
    at = sets[:, None].expand(-1, len(data), -1)  # (2^d, n, d)
    x0 = data.expand(at.shape)
    x = torch.where(at, chain.graph.mask_id, x0).flatten(0, 1)
    levels = torch.full((len(x),), sigma, dtype=torch.float64)
    pi, z = ask(model, x, at.flatten(0, 1), levels)
    entropy, excess = torch.zeros(2, *at.shape, dtype=torch.float64)
    entropy[at] = -pi.gather(-1, x0[at][:, None])[:, 0].log()
    excess[at] = z - 1 - z.log()
    return sets, entropy, excess


def over_shares(sets: Tensor, costs: Tensor, most: float = 1.0) -> Tensor:
    """∫_0^most (1/λ) E_λ[Σ costs of the hidden] dλ, (2^d, n, d) → (n,): λ-DCE (Ou et al. 2024).

    Each place is hidden with probability λ. The integrand is a polynomial in λ of degree d − 1:
    40 nodes make the integral exact.
    """
    part, weight = nodes(1.0)  # of `most`; dλ/λ does not change with the unit of λ
    return weight / part @ expected(sets, costs, most * part)


def over_times(sets: Tensor, costs: Tensor, noise) -> Tensor:
    """∫_0^1 σ(t) / (e^σ̄(t) − 1) E_t[Σ costs of the hidden] dt, → (n,): t-DCE, the loss of MDLM.

    Equal to λ-DCE over λ(0) to λ(1), so the same for all schedules with these ends. By quadrature
    with nodes dense towards both ends of time.
    """
    near, weight = log_quadrature(1e-12, 0.5, 400)
    t = torch.tensor([*near, *(1 - s for s in near)], dtype=torch.float64)
    sigma, rate = noise.total(t), noise.rate(t)
    weight = torch.tensor([*weight, *weight], dtype=torch.float64) * rate / torch.expm1(sigma)
    return weight @ expected(sets, costs, -torch.expm1(-sigma))


def over_orders(sets: Tensor, costs: Tensor) -> Tensor:
    """The mean over all d! orders of Σ_l cost of its l-th place, the rest hidden, → (n,).

    The any-order autoregressive loss (Hoogeboom et al. 2022), term by term.
    """
    d = sets.shape[1]
    number = {tuple(s): k for k, s in enumerate(sets.tolist())}
    total = torch.zeros(costs.shape[1], dtype=torch.float64)
    for order in itertools.permutations(range(d)):
        hidden = [True] * d
        for place in order:
            total += costs[number[tuple(hidden)], :, place]
            hidden[place] = False
    return total / math.factorial(d)


def score_entropy_integral(model: Callable, chain: Chain, most: float = 1.0) -> Tensor:
    """∫ DWDSE dσ̄ for every x0, (n,), σ̄ from 0 to where a share `most` is hidden (1: to infinity).

    From the graph's own score entropy: exact for a time-free network, as dσ̄ = dλ/(1 − λ) makes the
    integrand a polynomial in λ.
    """
    check_absorbing(chain.graph, "this integral")
    share, weight = nodes(most)
    total = 0.0
    for lam, w in zip(share.tolist(), weight.tolist(), strict=True):
        total = total + w / (1 - lam) * chain.loss_by_data(model, -math.log1p(-lam))
    return total.flatten()


def expected(sets: Tensor, costs: Tensor, share: Tensor) -> Tensor:
    """E[Σ costs of the hidden] where each place is hidden with probability λ, (K,) → (K, n)."""
    hidden = sets.sum(1)  # (2^d,)
    log_p = torch.xlogy(hidden, share[:, None])  # (K, 2^d)
    log_p = log_p + torch.special.xlog1py(sets.shape[1] - hidden, -share[:, None])
    return log_p.exp() @ costs.sum(-1)


def nodes(most: float, num: int = 40) -> tuple[Tensor, Tensor]:
    """Gauss–Legendre nodes and weights on [0, most]."""
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(num)
    return torch.tensor(most * (points + 1) / 2), torch.tensor(most * weights / 2)
