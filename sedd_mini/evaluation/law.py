"""The exact law of a K-step sampler, on worlds small enough to enumerate.

A step draws every token from its own row of probabilities, given all tokens before it. So the law
of the tokens after it is a sum over all sequences before it, and no sample is needed: what K steps
cost is known to rounding. `divergences` puts it beside the likelihood bound, which is about the
chain in continuous time and says nothing of K.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.checks import graph_and_noise, whole_number
from sedd_mini.graphs import one_hot
from sedd_mini.samplers import (
    check_rows,
    check_times,
    evaluation_mode,
    find_step,
    movable,
    move_weights,
)
from sedd_mini.worlds.ctmc import Chain

MOST = 2**14  # sequences; their pairs are gone through in parts
PAIRS = 2**24  # at a time: 128 MiB
ROW_WAYS = ("tweedie", "euler")


@torch.no_grad()
def law_of_sampler(
    model: Callable, graph, noise, length: int, steps: int | None = None,
    method: str | Callable = "tweedie", *, clamp: Tensor | None = None, times=None,
    denoise: bool = True, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """The probability of every sequence that `sample` with these arguments can give, (S,)*length.

    method: "tweedie" or "euler"; or, for a step of your own that draws token by token, a function
    rows(model, graph, noise, x, free, t, t_next) → the probabilities (n, length, S) from which it
    draws each token of x (n, length) where `free` is True (elsewhere they are not looked at). A
    step, or the name of one in SAMPLERS, may have that function as its `rows`, or several of them
    and names: a step of parts, each of which sees what the one before it drew.
    Float64; the network sees what it sees in `sample`, and its rounding is part of the law. Raises
    ValueError for what does not fit, and for more than 2^14 sequences.
    """
    graph_and_noise(graph, noise, model)
    size, length = graph.num_states, whole_number("length", length, 1)
    if (count := size**length) > MOST:
        raise ValueError(f"{count} sequences of {length} tokens are too many to enumerate: at most "
                         f"{MOST}")  # fmt: skip
    parts = parts_of(method)
    times = check_times(times, steps, eps, denoise)
    states = torch.cartesian_prod(*[torch.arange(size)] * length).reshape(-1, length)  # (n, L)
    given = torch.full((1, length), -1)
    if clamp is not None:
        given = check_rows("clamp", clamp, (1, length), given.device, -1, graph.num_tokens)
    token = graph.limit_log_prob(torch.arange(size)).exp().double()
    start = torch.where(given[0, :, None] < 0, token, one_hot(given[0].clamp(min=0), size))
    p = start.gather(1, states.T).prod(0)  # (n,)
    with evaluation_mode(model):
        for t, t_next in itertools.pairwise(times):
            for part in parts:
                p = after(p, states, given < 0, step_rows(model, graph, noise, part, t, t_next))
        if denoise:
            p = after(p, states, given < 0, step_rows(model, graph, noise, "denoise", times[-1]))
    return p.reshape((size,) * length)


def divergences(
    chain: Chain, model: Callable, noise, steps: int, method: str | Callable = "tweedie"
) -> tuple[float, float]:
    """KL(data ‖ law of `steps` steps), and the mean bound less the data's entropy; nats a sequence.

    The second is no smaller than KL(data ‖ law of the model's continuous chain), but for what
    truncation leaves out. It is no bound on the first, at any K. `model(x, sigma, at=None)`.
    """
    law = law_of_sampler(model, chain.graph, noise, chain.length, steps, method)
    sigma_max = noise.total(torch.tensor(1.0, dtype=torch.float64)).item()
    p0 = chain.p0[(slice(chain.graph.num_tokens),) * chain.length]
    bound = torch.xlogy(p0, p0) + p0 * chain.bound(model, sigma_max)
    return kl(chain.p0, law), bound.sum().item()


def kl(p: Tensor, q: Tensor) -> float:
    """KL(p ‖ q) = Σ p log(p/q) in nats; infinite where q leaves out what p has."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum().item()


def parts_of(method: str | Callable) -> tuple:
    """The parts of a step, names in ROW_WAYS and functions `rows`; ValueError if it has none."""
    if method in ROW_WAYS:
        return (method,)
    step = find_step(method)
    rows = getattr(step, "rows", None if isinstance(method, str) else step)
    if rows is None:
        raise ValueError(f"the step {method!r:.60} does not draw token by token: its law is not "
                         "pushed here")  # fmt: skip
    return rows if isinstance(rows, tuple) else (rows,)


def after(p: Tensor, states: Tensor, free: Tensor, rows_of: Callable) -> Tensor:
    """The law (n,) after a step from the law p, sequence by sequence that has any probability."""
    out, size = torch.zeros_like(p), int(states.max()) + 1
    for part in p.nonzero()[:, 0].split(max(1, PAIRS // len(p))):
        x, joint = states[part], p[part][:, None]  # (B, L), (B, 1)
        some = free.expand(x.shape)
        rows = torch.where(some[..., None], rows_of(x, some), one_hot(x, size))
        for i in range(x.shape[1]):
            joint = (joint[:, :, None] * rows[:, i, None, :].double()).flatten(1)  # (B, S^(i+1))
        out += joint.sum(0)
    return out


def step_rows(model, graph, noise, method, t, t_next=None) -> Callable:
    """rows(x, free) → (B, L, S): from what a step from t to t_next draws each token."""
    if callable(method):
        return lambda x, free: method(model, graph, noise, x, free, t, t_next)
    sigma = noise.total(t)
    if method == "denoise":
        dsigma = sigma
    else:
        dsigma = (t - t_next) * noise.rate(t) if method == "euler" else sigma - noise.total(t_next)

    def rows(x: Tensor, free: Tensor) -> Tensor:
        at, out = movable(graph, x, free), one_hot(x, graph.num_states)
        if not at.any():
            return out
        log_score = model(x, torch.full((len(x),), float(sigma)), at=at)  # as `sample` does
        moves, p_move = move_weights(graph, x[at], log_score, float(dsigma), method)
        total = moves.sum(-1, keepdim=True, dtype=torch.float64).clamp(min=1e-300)
        probs = moves.double() / total * p_move[:, None]
        out[at] = probs.scatter(-1, x[at][:, None], 1 - p_move[:, None])
        return out

    return rows
