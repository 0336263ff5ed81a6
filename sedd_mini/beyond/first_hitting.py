"""First hitting: reveal one token at a time, at its exact time, with no step size.

Zheng et al. 2024, section 4. At share λ = 1 − e^{−σ̄} hidden, n tokens of a sequence are hidden. In
the reverse chain of a normalised, time-free head each of them appears at rate 1/λ as λ falls, so
the next one appears at λ' = λ u^{1/n}, u uniform; which one is uniform over the n; its value is
drawn from π( · | visible). L calls write L tokens, whatever the schedule, and the law is that of
the network's continuous chain.

When that is exact. A normalised head is asked at the hitting time, so it may depend on σ̄ as well
(its law is then not that of a uniform order at one fixed σ̄). A head that is not normalised reveals
place i at rate Z_i/λ. If it is time-free and Z is the same at all hidden places of a sequence, the
times are wrong and the law is right, as the order is uniform. If Z differs by place, the chain
favours some places, and first hitting has another law: `by_rate` draws the place ∝ Z_i and
λ' = λ u^{1/ΣZ}, and is exact for every time-free head. For a head that is neither normalised nor
time-free both have laws of their own.
"""

import math

import torch
from torch import Tensor

from sedd_mini.beyond.heads import ask, check_absorbing, of_rows
from sedd_mini.samplers import Generators, movable, pick, uniforms
from sedd_mini.worlds.ctmc import Chain


def first_hitting(model, graph, noise, x, free, t, t_next, generator: Generators) -> Tensor:
    """A step for `sample` of any length: from t to t_next one token at a time.

    One call for each token that appears, of the sequences in which one does: L calls in all for one
    sequence, however many steps; for several with steps=1 about L. `sample` takes what is left at
    t = eps in one parallel step; a smaller eps costs nothing. Raises ValueError for a graph on
    which no token is final.
    """
    return hit(model, graph, noise, x, free, t, t_next, generator, rates=False)


def by_rate(model, graph, noise, x, free, t, t_next, generator: Generators) -> Tensor:
    """The same for a head that is not normalised: places ∝ Z; one more call a step."""
    return hit(model, graph, noise, x, free, t, t_next, generator, rates=True)


def hit(model, graph, noise, x, free, t, t_next, generator, rates: bool) -> Tensor:
    check_absorbing(graph, "first hitting")
    share, end = (-torch.expm1(-noise.total(s)).double().item() for s in (t, t_next))
    share = torch.full((len(x),), share, dtype=torch.float64)  # λ of each sequence, on the CPU
    x = x.clone()
    while True:
        hidden = movable(graph, x, free)  # (B, L)
        rows = (hidden.any(1).cpu() & (share > end)).nonzero()[:, 0]  # (R,)
        if not len(rows):
            return x
        some, hidden = x[rows], hidden[rows]  # (R, L)
        weight = hidden.cpu().double()
        if rates:
            levels = -torch.log1p(-share[rows])
            probs, z = ask(of_rows(model, rows), some, hidden, levels)  # (M, N), (M,)
            weight[hidden.cpu()] = z.cpu()
        mark = torch.zeros_like(free)
        mark[rows, 0] = True
        when, where, what = uniforms(mark, generator, 3).cpu()  # (R,) each
        share[rows] *= when ** (1 / weight.sum(1))
        hits = share[rows] > end
        place = pick(weight, where)  # (R,)
        at = torch.zeros(hidden.shape, dtype=torch.bool).scatter(1, place[:, None], hits[:, None])
        at = at.to(x.device)
        if not hits.any():
            continue
        if rates:
            number = (hidden.flatten().cumsum(0) - 1).view_as(hidden)  # of the row in probs
            probs = probs[number[at].to(probs.device)]  # (H, N)
        else:
            levels = -torch.log1p(-share[rows][hits])
            probs, _ = ask(of_rows(model, rows[hits]), some[hits], at[hits], levels)
        drawn = pick(probs, what[hits].to(probs.device))  # (H,)
        x[rows] = some.masked_scatter(at, drawn.to(x.device))


def law_in_random_order(
    model, chain: Chain, sigma: float = 1.0, rates: bool = False, share: float = 0.0
) -> Tensor:
    """The law of revealing one token at a time from all MASK, the place uniform, (S,)*d.

    Or, with `rates`, the place ∝ Z. The network is asked at σ̄ = sigma: for a time-free head this is
    exactly the law of first hitting, however the times fall. `share`: the law when each token is
    still hidden with that probability (uniform places only). By a sum over all ways through the
    sequences, those with most hidden tokens first. Chain of an absorbing graph.
    """
    check_absorbing(chain.graph, "a law in random order")
    states, mask = chain.states, chain.graph.mask_id
    hidden = states == mask  # (n, d)
    weight, pi = hidden.double(), torch.zeros(*states.shape, chain.num_states).double()
    pi[hidden, :-1], z = ask(model, states, hidden, torch.full((len(states),), sigma).double())
    if rates:
        weight[hidden] = z
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-300)
    law, count = torch.zeros(len(states), dtype=torch.float64), hidden.sum(1)
    law[count == chain.length] = 1.0
    done = torch.zeros_like(law)
    for n in range(chain.length, 0, -1):
        stop = math.comb(chain.length, n) * share**n * (1 - share) ** (chain.length - n)
        done += torch.where(count == n, stop * law, 0)
        here = count == n
        flow = (law[here, None] * weight[here])[..., None] * pi[here]  # (·, d, S)
        law = law.index_add(0, chain.neighbours(states[here]).flatten(), flow.flatten())
        law[here] = 0.0
    return (done + (1 - share) ** chain.length * law).reshape(chain.p0.shape)
