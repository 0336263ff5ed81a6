"""Sampling: the reverse process in a fixed number of steps, all tokens at once (τ-leaping).

A step from t to t − Δt gives every token a row of weights, one a state, from the scores at t, and
draws from it. Euler: weight Δt σ(t) Q(x, y) s_y for y ≠ x, the rest stays. Tweedie: the weights of
`graph.tweedie_probs`. A negative weight (learned scores) counts as 0; the row is normalised.

**First whether, then where.** Most tokens stay in most steps, and a move to one certain y may have
a probability of 1e-8. A single draw over the row, as Gumbel noise in float32 makes it, loses such
moves beside a stay of almost 1. So u < P(move) is decided first, in float64, and a place is drawn
for those that move, from their moves alone.

**Work only where work is.** The absorbing graph moves masked tokens only: scores are computed for
these alone, and where none is left, or a time-free network sees no change, there is no call at all.

**A step of your own** is a function step(model, graph, noise, x, free, t, t_next, generator) → x:
`sample` takes it as its method. It gets the tokens x (B, L) at time t and returns those at t_next,
changed only where `free` (B, L) is True; t and t_next are float64 tensors without axes. It may call
model(x, sigma, at=mask) as often as it likes. The generator may be a list of one a sample, which no
function of PyTorch takes: `pick(weights, *uniforms(at, generator, 1))` draws with either.
"""

import contextlib
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from pkgutil import resolve_name

import torch
from torch import Tensor

from sedd_mini.checks import graph_and_noise, real_number, whole_number
from sedd_mini.graphs import only_masks_move
from sedd_mini.network.head import chunks, piece_size

Generators = torch.Generator | list[torch.Generator] | None
Step = Callable[..., Tensor]


@torch.no_grad()
def sample(
    model: Callable, graph, noise, shape: tuple[int, int], steps: int | None = None,
    method: str | Step = "tweedie", *, clamp: Tensor | None = None,
    start: tuple[Tensor, float] | None = None, times: Sequence[float] | Tensor | None = None,
    denoise: bool = True, eps: float = 1e-5, generator: Generators = None,
    callback: Callable[[int, float, Tensor], None] | None = None,
    device: torch.device | str | None = None,
) -> Tensor:  # fmt: skip
    """Tokens (B, L) int64 from noise: `steps` steps and a last one that takes away all the rest.

    model      any function model(x, sigma, at=mask) → log-scores (M, num_states) of the M positions
               where mask is True: x (B, L), sigma (B,) the total noise. A module is set to eval
               mode meanwhile.
    shape      (B, L)
    steps      of equal length, from t = 1 to t = eps; or give `times`, any falling list in [0, 1]
    method     a name in SAMPLERS (section 4 of Lou et al. 2023), a step of your own (see above), or
               a function with this one's signature and an attribute `is_sampler` that is true
    clamp      int64, (B, L) or (L,): tokens that are given, and −1 at the positions to fill in.
               Absorbing: as the steps get short, the rest follows p(rest | given). Uniform: it
               conditions on the noisy x_t = given instead of x_0 = given: a heuristic.
    start      (tokens, t): goes on from these tokens, (B, L) or (L,) int64, MASK allowed, noised as
               at time t, instead of from noise at t = 1; `clamp` overwrites what it gives
    denoise    the last step, from the last time to no noise, by Tweedie; it never leaves a MASK
    generator  equal seeds give equal samples; on the CPU or the device of the samples. A list of
               one a sample (see `generators`): a sample then does not depend on what is sampled
               beside it, up to the rounding of the network.
    callback   called as callback(step, t, x) with the start (step 0) and after each step, the last
               one (t = 0) included; x is a copy
    device     of the samples; default that of the module's parameters, else of the generator

    Raises ValueError or TypeError for what does not fit, also for what a step of your own returns,
    and where log-scores are NaN or overflow.
    """
    graph_and_noise(graph, noise, model)
    if getattr(step := find_step(method), "is_sampler", False):  # draws in a way of its own
        return step(model, graph, noise, shape, steps, clamp=clamp, start=start, times=times,
                    denoise=denoise, eps=eps, generator=generator, callback=callback,
                    device=device)  # fmt: skip
    times, shape = check_times(times, steps, eps, denoise, start), check_shape(shape)
    generator = check_generator(generator, shape)
    if not (callback is None or callable(callback)):
        raise TypeError(f"callback must be a function, got {callback!r:.60}")
    device = find_device(model, generator, device)
    given = torch.full(shape, -1, device=device)  # (B, L), −1 where free
    if clamp is not None:
        given = check_rows("clamp", clamp, shape, device, -1, graph.num_tokens)
    x = torch.where(given < 0, first_tokens(graph, shape, start, generator, device), given)

    with evaluation_mode(model):
        if not getattr(getattr(model, "config", None), "time_conditioning", True):
            model = resolve_name("sedd_mini.beyond.time_free:remembering")(model)  # fewer calls
        tell(callback, 0, times[0], x)
        for k, (t, t_next) in enumerate(itertools.pairwise(times), start=1):
            x = step(model, graph, noise, x, given < 0, t, t_next, generator)
            if step not in (tweedie, euler):  # for these it would only cost time
                check_step(x, given, graph, step)
            tell(callback, k, t_next, x)
        if denoise:
            sigma = noise.total(times[-1])
            x = leap_at(model, graph, x, given < 0, sigma, sigma, "denoise", generator)
            tell(callback, len(times), torch.tensor(0.0), x)
    return x


def tweedie(model, graph, noise, x, free, t, t_next, generator) -> Tensor:
    """The step that is best token by token, for exact scores (section 4.2 of Lou et al. 2023)."""
    sigma = noise.total(t)
    return leap_at(model, graph, x, free, sigma, sigma - noise.total(t_next), "tweedie", generator)


def euler(model, graph, noise, x, free, t, t_next, generator) -> Tensor:
    """The step of the reverse rates as they are at t (section 4.2 of Lou et al. 2023)."""
    dsigma = (t - t_next) * noise.rate(t)
    return leap_at(model, graph, x, free, noise.total(t), dsigma, "euler", generator)


SAMPLERS: dict[str, Step | str] = {  # a step, or the "module:name" of one or of a sampler
    "tweedie": tweedie, "euler": euler, "corrector": "sedd_mini.beyond.remasking:corrector",
    "first-hitting": "sedd_mini.beyond.first_hitting:first_hitting",
    "confidence": "sedd_mini.beyond.confidence:confidence",
    "entropy-bound": "sedd_mini.beyond.confidence:entropy_bound",
    "margin": "sedd_mini.beyond.confidence:margin", "greedy": "sedd_mini.beyond.confidence:greedy",
    "drawn-first": "sedd_mini.beyond.drawn_first:drawn_first",
    "remask": "sedd_mini.beyond.remasking:remask", "guidance": "sedd_mini.beyond.guidance:guidance",
    "blocks": "sedd_mini.beyond.block_diffusion:sample_blocks",
}  # fmt: skip


def leap_at(model, graph, x, free, sigma, dsigma, method: str, generator: Generators) -> Tensor:
    """A `leap` of the tokens of x (B, L) that are free and can move, at total noise sigma."""
    at = movable(graph, x, free)
    if not at.any():
        return x
    levels = torch.full((len(x),), float(sigma), device=x.device)  # (B,)
    log_score = model(x, levels, at=at)  # (M, num_states)
    moved = leap(graph, x[at], log_score, float(dsigma), method, uniforms(at, generator))
    return x.masked_scatter(at, moved)


def movable(graph, x: Tensor, free: Tensor) -> Tensor:
    """Where a step may change x (B, L): the free positions; absorbing: of these the masked ones."""
    return free & (x == graph.mask_id) if only_masks_move(graph) else free


def uniforms(at: Tensor, generator: Generators = None, num: int = 2) -> Tensor:
    """`num` numbers for each True of the mask at (B, L): (num, M), float64, uniform in [0, 1).

    One generator draws for the M positions. Each of a list draws for the row of its sample, (num,
    L), or not at all where that is empty: no sample's numbers depend on another. The result lies on
    the device of the mask, or on the CPU if that device has no float64.
    """
    device = torch.device("cpu") if at.device.type == "mps" else at.device
    if not isinstance(generator, list):
        source = device if generator is None else generator.device
        size = num, int(at.sum())
        u = torch.rand(size, generator=generator, dtype=torch.float64, device=source)
        return u.to(device)
    u = torch.zeros(num, *at.shape, dtype=torch.float64, device=generator[0].device)
    for i in at.any(1).nonzero()[:, 0].tolist():
        u[:, i].uniform_(generator=generator[i])
    return u.to(device)[:, at.to(device)]


def generators(seed: int, num: int, first: int = 0) -> list[torch.Generator]:
    """A generator on the CPU for each of the samples first, first + 1, … of a seed, `num` in all.

    Sample i of a seed always gets the same one. Pairs (seed, i) below 65 536 get different ones;
    beyond, the same with probability 2⁻³²: a CPU generator of PyTorch keeps 32 bits of its seed.
    """
    seed = whole_number("seed", seed, 0, 2**63 - 1)
    last = whole_number("first", first, 0) + whole_number("num", num, 1)
    return [torch.Generator().manual_seed(stream(seed, i)) for i in range(first, last)]


def stream(seed: int, i: int) -> int:
    """32 bits for (seed, i): another number for another pair, where both are below 2¹⁶."""
    bits, high = (seed % 2**16 << 16) + i % 2**16, (seed >> 16, i >> 16)
    if any(high):
        bits ^= int.from_bytes(hashlib.sha256(repr(high).encode()).digest()[:4], "big")
    bits = bits * 0x9E3779B1 % 2**32  # odd factor and shift: each can be undone
    return bits ^ bits >> 15


@contextlib.contextmanager
def evaluation_mode(model: Callable):
    """A context in which a module has no dropout; afterwards it is as it was."""
    training = getattr(model, "training", False)
    try:
        yield model.eval() if training else model
    finally:
        if training:
            model.train()


def leap(graph, x: Tensor, log_score: Tensor, dsigma: float, method: str, u: Tensor) -> Tensor:
    """One step of the tokens x (M,), at their log-scores (M, num_states): where they go, (M,).

    method is "tweedie" or "denoise" (the same, but never to MASK), dsigma = Δσ̄; or "euler",
    dsigma = Δt σ(t). u (2, M) are uniform numbers, two a row, so that nothing depends on how rows
    are grouped. All is computed on the device of u: one without float64 (MPS) has it on the CPU.
    """
    if log_score.shape != (*x.shape, graph.num_states):
        raise ValueError(
            f"model(x, sigma, at=mask) must give log-scores of shape {(*x.shape, graph.num_states)}"
            f", a row for each True of the mask; got {tuple(log_score.shape)}"
        )
    moved, here = [], (x.to(u.device), log_score.to(u.device))
    for tokens, log_rows, *uniform in chunks(piece_size(log_score), *here, *u):
        moves, p_move = move_weights(graph, tokens, log_rows, dsigma, method)
        moved.append(draw_moves(tokens, moves, p_move, *uniform))
    return torch.cat(moved).to(x.device)


def move_weights(graph, x, log_score, dsigma: float, method: str) -> tuple[Tensor, Tensor]:
    """The weights of a step's moves (M, num_states), ≥ 0 and 0 at x; and P(move), (M,) float64.

    Arguments as for `leap`. Raises ValueError where the log-scores give no probabilities.
    """
    here = x[:, None]
    log_score = log_score.to(torch.promote_types(log_score.dtype, torch.float32))
    if only_masks_move(graph):  # x is MASK, and both methods have the same form:
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
    return x.index_copy(0, movers, pick(moves[movers], where[movers]))


def pick(weights: Tensor, u: Tensor) -> Tensor:
    """One state from each row of weights ≥ 0, (K, num_states) → (K,), by uniform numbers u (K,).

    A row need not sum to 1, but to more than 0; u is float64. Weight 0 is never picked.
    """
    cumulative = weights.cumsum(-1, dtype=torch.float64)  # (K, num_states)
    end = cumulative[:, -1]
    target = torch.minimum(u * end, torch.nextafter(end, torch.zeros_like(end)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]


def tell(callback: Callable | None, step: int, t: Tensor, x: Tensor) -> None:
    if callback is not None:
        callback(step, t.item(), x.clone())


# ---- checks of the arguments ---------------------------------------------------------------------


def find_step(method: str | Step) -> Step:
    step = SAMPLERS.get(method) if isinstance(method, str) else method
    step = resolve_name(step) if isinstance(step, str) else step
    if not callable(step):
        raise ValueError(f"method must be {', '.join(map(repr, SAMPLERS))}, or a function, got "
                         f"{method!r:.60}")  # fmt: skip
    return step


def check_times(times, steps: int | None, eps: float, denoise: bool, start=None) -> Tensor:
    """The times of a run, falling, float64; raises ValueError for what cannot be one."""
    first = 1.0
    if start is not None:
        if not isinstance(start, tuple | list) or len(start) != 2:
            raise ValueError(f"start must be (tokens, t), got {type(start).__name__} {start!r:.60}")
        first = real_number("the time t of start", start[1], 0, math.nextafter(1, 2))
    if times is None:
        if steps is None:
            raise ValueError("steps must be an integer of at least 1, got None; or give times")
        steps = whole_number("steps", steps, 1)
        last = real_number("eps", eps, 0, first)
        times = torch.linspace(first, last, steps + 1, dtype=torch.float64)
    try:
        times = torch.as_tensor(times, dtype=torch.float64, device="cpu")
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"times must be falling numbers in [0, 1], got {times!r:.60}") from None
    if times.ndim != 1 or len(times) < 2 or not (times.diff() < 0).all():
        raise ValueError(f"times must be at least 2 falling numbers, got {times.tolist()!s:.60}")
    if steps is not None and whole_number("steps", steps, 1) != len(times) - 1:
        raise ValueError(f"{len(times)} times make {len(times) - 1} steps, not steps={steps}")
    if times[0] > 1 or times[-1] < 0 or (denoise and times[-1] == 0):
        raise ValueError(
            f"times must lie in [0, 1], the last above 0 if the denoising step is to follow "
            f"(otherwise pass denoise=False), got {times[0].item():g} to {times[-1].item():g}"
        )
    if start is not None and times[0] != first:
        raise ValueError(f"start is at t = {first:g}, but times begin at {times[0].item():g}")
    return times


def check_shape(shape) -> tuple[int, int]:
    try:
        num, length = shape
        return whole_number("B", num, 1), whole_number("L", length, 1)
    except (TypeError, ValueError):
        given = shape if isinstance(shape, tuple) else repr(shape)
        raise ValueError(f"shape must be (B, L), both at least 1, got {given!s:.60}") from None


def first_tokens(graph, shape, start, generator: Generators, device) -> Tensor:
    """What a run begins with, (B, L): the tokens of `start`, or noise."""
    if start is not None:
        return check_rows("the tokens of start", start[0], shape, device, 0, graph.num_states)
    if isinstance(generator, list):
        rows = [graph.sample_limit((1, shape[1]), g, g.device) for g in generator]
        return torch.cat(rows).to(device)
    source = device if generator is None else generator.device
    return graph.sample_limit(shape, generator, source).to(device)


def check_rows(name: str, tokens, shape, device, low: int, end: int) -> Tensor:
    """Tokens as int64 (B, L), in [low, end); −1 stands for a free position."""
    free = ", or -1 where free" if low < 0 else ""
    try:
        tokens = torch.as_tensor(tokens, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be int64 tokens, got {tokens!r:.60}") from None
    if tokens.shape not in (torch.Size(shape), torch.Size(shape[1:])):
        raise ValueError(
            f"{name} must have shape {tuple(shape)} or {tuple(shape[1:])}, a token at each "
            f"position{free}; got {tuple(tokens.shape)}"
        )
    if tokens.dtype != torch.int64 or tokens.min() < low or tokens.max() >= end:
        raise ValueError(f"{name} must be int64 tokens in [0, {end}){free}; got {range_of(tokens)}")
    return tokens.expand(shape)


def check_step(x, given: Tensor, graph, step: Step) -> None:
    """Raises ValueError unless a step gave tokens (B, L) and left alone what is given."""
    who, shape = f"the step {getattr(step, '__name__', step)} must return", tuple(given.shape)
    if not isinstance(x, Tensor) or x.shape != given.shape or x.dtype != torch.int64:
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else f"{x!r:.60}"
        raise ValueError(f"{who} int64 tokens of shape {shape}, got {found}")
    if x.device != given.device:
        raise ValueError(f"{who} tokens on {given.device}, as it gets them; got {x.device}")
    if x.min() < 0 or x.max() >= graph.num_states:
        raise ValueError(f"{who} tokens in [0, {graph.num_states}), got {range_of(x)}")
    if not ((x == given) | (given < 0)).all():
        raise ValueError(f"{who} the given tokens as they are: change x where free is True only")


def range_of(tokens: Tensor) -> str:
    return f"{tokens.dtype} from {tokens.min().item()} to {tokens.max().item()}"


def check_generator(generator, shape: tuple[int, int]) -> Generators:
    """A generator, None, or a list of one a sample, all of them on one device."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    if not isinstance(generator, list | tuple) or not all(
        isinstance(g, torch.Generator) for g in generator
    ):
        kind = type(generator).__name__
        raise TypeError(f"generator must be a torch.Generator or a list of them, got {kind}")
    different = len({id(g) for g in generator})
    if len(generator) != shape[0] or different != shape[0]:
        raise ValueError(f"{shape[0]} samples need as many generators, got {different} different")
    return list(generator)


def find_device(model, generator: Generators, device) -> torch.device:
    """Where to sample: as asked, or where the model's parameters are, or the generator, or CPU."""
    some = generator if isinstance(generator, list) else [generator]
    if device is None:
        parameter = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
        device = next((o.device for o in (parameter, some[0]) if o is not None), "cpu")
    try:
        device = torch.device(device)
    except (TypeError, RuntimeError):
        raise ValueError(f"device must be one such as 'cpu' or 'cuda', got {device!r}") from None
    for g in some:
        if g is not None and g.device.type not in {"cpu", device.type} - {"mps"}:
            raise ValueError(
                f"the generator is on {g.device}, the samples on {device}: make it with "
                "torch.Generator(), on the CPU, which serves all devices"
            )
    return device
