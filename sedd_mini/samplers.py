"""Sampling: the reverse process in a fixed number of steps, all tokens at once (τ-leaping).

A step from t to t − Δt gives every token a row of weights, one a state, from the scores at t, and
draws from it. Euler: weight Δt σ(t) Q(x, y) s_y for y ≠ x, the rest stays. Tweedie: the weights of
`graph.tweedie_probs`. Learned scores can make a weight negative: it counts as 0, and the row is
normalised.

**First whether, then where.** Most tokens stay in most steps, and a move to one certain y may have
a probability of 1e-8. A single draw over the row, as Gumbel noise in float32 makes it, loses such
moves beside a stay of almost 1. So u < P(move) is decided first, in float64, and a place is drawn
for those that move, from their moves alone.

**Work only where work is.** The absorbing graph moves masked tokens only: scores are computed for
these and no others, and where none is left the network is not called at all.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.network.head import chunks, piece_size


@torch.no_grad()
def sample(
    model: Callable,
    graph,
    noise,
    shape: tuple[int, int],
    steps: int | None = None,
    method: str = "tweedie",
    *,
    clamp: Tensor | None = None,
    times: Sequence[float] | Tensor | None = None,
    denoise: bool = True,
    eps: float = 1e-5,
    generator: torch.Generator | None = None,
    callback: Callable[[int, float, Tensor], None] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Tokens (B, L) int64 from noise: `steps` τ-leaps and a last step that takes away all the rest.

    model      any function model(x, sigma, at=mask) → log-scores (M, num_states) of the M positions
               where mask is True: x (B, L), sigma (B,) the total noise. A module is set to eval
               mode meanwhile.
    shape      (B, L)
    steps      of equal length, from t = 1 to t = eps; or give `times`, any falling list in [0, 1]
    method     "tweedie" or "euler" (section 4 of Lou et al. 2023)
    clamp      int64, (B, L) or (L,): tokens that are given, and −1 at the positions to fill in.
               Absorbing: as the steps get short, the rest follows p(rest | given). Uniform: it
               conditions on the noisy x_t = given instead of x_0 = given: a heuristic.
    denoise    the last step, from the last time to no noise, by Tweedie; it never leaves a MASK
    generator  on the device of the samples; equal seeds give equal samples
    callback   called as callback(step, t, x) with the start (step 0) and after each step, the last
               one (t = 0) included; x is a copy
    device     of the samples; default that of the module's parameters, else of the generator

    Raises ValueError for what does not fit, and where log-scores are NaN or overflow.
    """
    times = check_times(times, steps, eps, denoise)
    if method not in ("tweedie", "euler"):
        raise ValueError(f"method must be 'tweedie' or 'euler', got {method!r}")
    device = find_device(model, generator, device)
    given = check_clamp(clamp, shape, graph, device)  # (B, L), −1 where free
    free = given < 0
    x = torch.where(free, graph.sample_limit(shape, generator=generator, device=device), given)

    def step(sigma: Tensor, dsigma: Tensor, method: str) -> None:
        at = free if graph.mask_id is None else free & (x == graph.mask_id)
        if at.any():
            levels = torch.full((len(x),), sigma.item(), device=device)  # (B,)
            log_score = model(x, levels, at=at)  # (M, num_states)
            x[at] = leap(graph, x[at], log_score, dsigma.item(), method, generator)

    with evaluation_mode(model):
        tell(callback, 0, times[0], x)
        for k, (t, t_next) in enumerate(itertools.pairwise(times), start=1):
            sigma = noise.total(t)
            euler = method == "euler"
            step(
                sigma,
                (t - t_next) * noise.rate(t) if euler else sigma - noise.total(t_next),
                method,
            )
            tell(callback, k, t_next, x)
        if denoise:
            step(noise.total(times[-1]), noise.total(times[-1]), "denoise")
            tell(callback, len(times), torch.tensor(0.0), x)
    return x


@contextlib.contextmanager
def evaluation_mode(model: Callable):
    """A context in which a module has no dropout; afterwards it is as it was."""
    training = getattr(model, "training", False)
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def leap(
    graph,
    x: Tensor,
    log_score: Tensor,
    dsigma: float,
    method: str = "tweedie",
    generator: torch.Generator | None = None,
) -> Tensor:
    """One step of the tokens x (M,), at their log-scores (M, num_states): where they go, (M,).

    method is "tweedie" or "denoise" (the same, but never to MASK), dsigma = Δσ̄; or "euler",
    dsigma = Δt σ(t). Two uniform numbers a row, so that nothing depends on how rows are grouped.
    """
    if log_score.shape != (*x.shape, graph.num_states):
        raise ValueError(
            f"model(x, sigma, at=mask) must give log-scores of shape {(*x.shape, graph.num_states)}"
            f", a row for each True of the mask; got {tuple(log_score.shape)}"
        )
    u = torch.rand(2, len(x), generator=generator, dtype=torch.float64, device=x.device)
    moved = []
    for tokens, log_rows, *uniform in chunks(piece_size(log_score), x, log_score, *u):
        moves, p_move = move_weights(graph, tokens, log_rows, dsigma, method)
        moved.append(draw_moves(tokens, moves, p_move, *uniform))
    return torch.cat(moved)


def move_weights(
    graph, x: Tensor, log_score: Tensor, dsigma: float, method: str
) -> tuple[Tensor, Tensor]:
    """Of one step: the weight of each move (M, num_states), ≥ 0 and 0 at x; P(move), (M,) float64.

    Arguments as for `leap`. Raises ValueError where the log-scores give no probabilities.
    """
    here = x[:, None]
    log_score = log_score.to(torch.promote_types(log_score.dtype, torch.float32))
    if isinstance(graph, AbsorbingGraph):  # x is MASK, and both methods have the same form:
        factor = dsigma if method == "euler" else math.expm1(dsigma)  # one value if log-linear
        moves = log_score.exp().scatter_(-1, here, 0.0).mul_(factor)  # (M, N + 1)
        total = moves.sum(-1, dtype=torch.float64)  # (M,)
        stay = 1 - total
    else:
        score, dsigma = log_score.exp(), torch.as_tensor(dsigma).to(log_score)
        if method == "euler":
            moves = dsigma * graph.reverse_rates(x, score)  # (M, num_states); −their sum at x
            stay = 1 + moves.gather(-1, here)[:, 0].double()  # (M,)
        else:
            moves = graph.tweedie_probs(x, score, dsigma)
            stay = moves.gather(-1, here)[:, 0].double()
        moves = moves.scatter(-1, here, 0.0)
        total = moves.sum(-1, dtype=torch.float64)
    stay = stay.clamp(min=0)
    if method == "denoise" and graph.mask_id is not None:
        stay = torch.where(x == graph.mask_id, 0, stay)
    p_move = total / (total + stay)
    if not p_move.isfinite().all():
        raise ValueError(
            "no step can be drawn: the model's log-scores hold NaN, are too large (above about 88 "
            "in float32), or give every state a weight of 0"
        )
    return moves, p_move


def draw_moves(x: Tensor, moves: Tensor, p_move: Tensor, whether: Tensor, where: Tensor) -> Tensor:
    """First whether a token moves, then where to: x (M,) → (M,).

    moves (M, num_states) are weights, 0 at x; p_move (M,), whether and where (M,), uniform numbers,
    are float64.
    """
    movers = (whether < p_move).nonzero()[:, 0]  # (K,)
    cumulative = moves[movers].cumsum(-1, dtype=torch.float64)  # (K, num_states)
    end = cumulative[:, -1]
    target = torch.minimum(where[movers] * end, torch.nextafter(end, torch.zeros_like(end)))
    places = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]  # of weight > 0
    return x.index_copy(0, movers, places)


def tell(callback: Callable | None, step: int, t: Tensor, x: Tensor) -> None:
    if callback is not None:
        callback(step, t.item(), x.clone())


def check_times(times, steps: int | None, eps: float, denoise: bool) -> Tensor:
    """The times of a run, falling, float64; raises ValueError for what cannot be one."""
    if times is None:
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(
                f"steps must be an integer of at least 1, got {steps!r}; or give times"
            )
        times = torch.linspace(1, eps, steps + 1, dtype=torch.float64)
    times = torch.as_tensor(times, dtype=torch.float64)
    if times.ndim != 1 or len(times) < 2 or not (times.diff() < 0).all():
        raise ValueError(f"times must be at least 2 falling numbers, got {times.tolist()}")
    if steps not in (None, len(times) - 1):
        raise ValueError(f"{len(times)} times make {len(times) - 1} steps, not steps={steps}")
    if times[0] > 1 or times[-1] < 0 or (denoise and times[-1] == 0):
        raise ValueError(
            f"times must lie in [0, 1], the last above 0 if the denoising step is to follow "
            f"(otherwise pass denoise=False), got {times[0].item():g} to {times[-1].item():g}"
        )
    return times


def check_clamp(clamp, shape: tuple[int, int], graph, device) -> Tensor:
    """The given tokens, −1 at free positions, (B, L)."""
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape must be (B, L), both at least 1, got {tuple(shape)}")
    if clamp is None:
        return torch.full(shape, -1, device=device)
    clamp = torch.as_tensor(clamp, device=device)
    if clamp.shape not in (torch.Size(shape), torch.Size(shape[1:])):
        raise ValueError(
            f"clamp must have shape {tuple(shape)} or {tuple(shape[1:])}: a token at each given "
            f"position and -1 elsewhere; got {tuple(clamp.shape)}"
        )
    if clamp.dtype != torch.int64 or clamp.min() < -1 or clamp.max() >= graph.num_tokens:
        raise ValueError(
            f"clamp must hold int64 tokens in [0, {graph.num_tokens}), or -1 where free; got "
            f"{clamp.dtype} from {clamp.min().item()} to {clamp.max().item()}"
        )
    return clamp.expand(shape)


def find_device(model, generator: torch.Generator | None, device) -> torch.device:
    """Where to sample: as asked, or where the model's parameters are, or the generator, or CPU."""
    if device is None:
        parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
        device = next((o.device for o in (parameter, generator) if o is not None), "cpu")
    device = torch.device(device)
    if generator is not None and generator.device.type != device.type:
        raise ValueError(
            f"the generator is on {generator.device}, the samples on {device}: "
            f"make it with torch.Generator(device={str(device)!r})"
        )
    return device
