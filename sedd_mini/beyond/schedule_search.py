"""Which schedule, which times: found by search, against the exact law of a K-step sampler.

In continuous time the bound is an integral over σ̄ and does not ask when each σ̄ is passed: for a
network that is told σ̄ it is the same for every schedule with the same ends (Kingma et al. 2021 for
Gaussian noise). `bound_over_time` shows it. On the absorbing graph with a time-free head only the
ends of λ are left. A sampler of K steps does feel the schedule, and more than that the times at
which it leaps: `search_times` moves them, one at a time, to lower KL(data ‖ law of the sampler),
which on a small world is known to rounding (evaluation/law.py).
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.checks import whole_number
from sedd_mini.evaluation.law import kl, law_of_sampler
from sedd_mini.samplers import Step
from sedd_mini.worlds.ctmc import Chain, log_quadrature

GOLDEN = (5**0.5 - 1) / 2


def bound_over_time(model: Callable, chain: Chain, noise, nodes: int = 200) -> Tensor:
    """∫ σ(t) DWDSE dt for every x0 over t in (0, 1), (N,)*d, by quadrature in t.

    No prior term. Equal for two schedules with the same σ̄(0) and σ̄(1), on every graph.
    """
    near, weight = log_quadrature(1e-12, 0.5, nodes)
    times, weights = [*near, *(1 - s for s in near)], [*weight, *weight]
    total = 0.0
    for t, w in zip(times, weights, strict=True):
        t = torch.tensor(t, dtype=torch.float64)
        loss = chain.loss_by_data(model, float(noise.total(t)))
        total = total + w * float(noise.rate(t)) * loss
    return total


def divergence(model, chain: Chain, noise, times, method: str | Step = "tweedie") -> float:
    """KL(data ‖ law of `sample` with these times), nats a sequence."""
    law = law_of_sampler(model, chain.graph, noise, chain.length, None, method, times=times)
    return kl(chain.p0, law)


def search_times(
    model, chain: Chain, noise, steps: int, method: str | Step = "tweedie", rounds: int = 4,
    tries: int = 12, eps: float = 1e-5,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Times of `steps` steps with a lower divergence, and the divergence after each round.

    Starts from equal steps in t, from 1 to eps, which stay as ends. A round moves each inner time
    between its neighbours by golden section with `tries` laws; it keeps a time that was better.
    Returns the times (steps + 1) and the divergences (rounds + 1), the first one of equal steps.
    """
    steps, rounds = whole_number("steps", steps, 1), whole_number("rounds", rounds, 1)
    times = torch.linspace(1, eps, steps + 1, dtype=torch.float64).tolist()
    found = [divergence(model, chain, noise, times, method)]
    for _ in range(rounds):
        best = found[-1]
        for k in range(1, steps):

            def cost(t: float, k=k) -> float:
                return divergence(model, chain, noise, [*times[:k], t, *times[k + 1 :]], method)

            t, value = golden_section(cost, times[k + 1], times[k - 1], tries)
            if value < best:
                times[k], best = t, value
        found.append(best)
    return times, found


def golden_section(cost: Callable, low: float, high: float, tries: int) -> tuple[float, float]:
    """The best of `tries` places strictly between low and high, and the cost there."""
    seen = {}
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    for t in (left, right):
        seen[t] = cost(t)
    while len(seen) < tries:
        if seen[left] < seen[right]:
            high, right = right, left
            left = high - GOLDEN * (high - low)
        else:
            low, left = left, right
            right = low + GOLDEN * (high - low)
        for t in (left, right):
            if t not in seen:
                seen[t] = cost(t)
    best = min(seen, key=seen.get)
    return best, seen[best]


def by_graph_and_schedule(
    chains: dict[str, Chain], schedules: dict[str, object], steps: list[int],
    method: str | Step = "tweedie",
) -> dict[tuple[str, str, int], float]:  # fmt: skip
    """KL(data ‖ law) of exact scores for every graph, schedule and number of steps."""
    return {
        (graph, schedule, K): divergence(
            chain.log_score, chain, noise, torch.linspace(1, 1e-5, K + 1), method
        )
        for (graph, chain), (schedule, noise), K in itertools.product(
            chains.items(), schedules.items(), steps
        )
    }
