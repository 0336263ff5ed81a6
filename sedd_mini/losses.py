"""Score entropy in its four forms: given ratios, implicit, denoising, diffusion-weighted.

Every loss here and in `baselines.py` is called alike,

    loss(model, graph, x, sigma, x0=x0, ratio=ratio) -> (B,)   nats a sequence,

with noisy tokens x (B, L), noise levels sigma (B,), data x0 (B, L), and true ratios (B, L, S). Each
takes what its mathematics needs and ignores the rest, so one is swapped for another by its name.
`model(x, sigma)` gives log-scores (B, L, S). The weights w_xy are the graph's rates Q(x, y); the
noise rate σ(t) is not included: `training_loss` multiplies by it. A loss of your own is a function
that is called so; hand it to the trainer.
"""

import torch
from torch import Tensor

from sedd_mini.graphs import check_sigma, check_tokens


def score_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_{y≠x} w_xy (s_y − r_y log s_y + K(r_y)) with the true ratios r (eq. 5), (B,)."""
    weight = graph.rates_into(x)  # (B, L, S)
    ratio = same_shape(require(ratio, "ratio", "score_entropy"), weight, "ratio")
    return weighted_sum(weight, score_entropy_terms(model(x, sigma), ratio))


def implicit_score_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_{y≠x} (w_xy s(x)_y − w_yx log s(y)_x) (the implicit form, section 3.2), (B,).

    Equal to `score_entropy` in expectation, up to a constant; needs no ratios, but the network at
    every neighbour y of x.
    """
    own = weighted_sum(graph.rates_into(x), model(x, sigma).exp())
    back = at_neighbours(model, graph, x, sigma)  # log s(y)_x, (B, L, S)
    return own - weighted_sum(rates_out(graph, x), back)


def denoising_score_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_{y≠x} w_xy (s_y − r_y log s_y + K(r_y)), r_y = p(y|x0)/p(x|x0) (section 3.2), (B,).

    Needs x drawn from p(·|x0). Straight from the definition; `diffusion_weighted` is the
    same number in closed form.
    """
    r = conditional_ratio(graph, x, sigma, require(x0, "x0", "denoising_score_entropy"))
    return weighted_sum(graph.rates_into(x), score_entropy_terms(model(x, sigma), r))


def diffusion_weighted(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """The integrand of the likelihood bound over σ̄ (theorem 3.6), (B,): the graph's closed form.

    For an integral over t, multiply by `noise.rate(t)`.
    """
    x0 = same_shape(require(x0, "x0", "diffusion_weighted"), x, "x0")
    level = by_sequence(sigma, x)
    return graph.score_entropy(model(x, sigma), level, x, x0).sum(-1)


def diffusion_weighted_in_head(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """`diffusion_weighted` of a DiffusionTransformer, in its head, (B,): no (B, L, S) tensor."""
    x0 = require(x0, "x0", "diffusion_weighted_in_head")
    return model(x, sigma, x0=x0, graph=graph).sum(-1)


def training_loss(
    model, graph, noise, x0, t, x=None, generator=None, loss=diffusion_weighted
) -> Tensor:  # fmt: skip
    """σ(t) · loss at x ~ p_{t|0}(·|x0), for data x0 (B, L) and times t (B,); (B,).

    x is drawn with the generator unless it is given. With `diffusion_weighted` and t uniform in
    [0, 1] the expectation is the diffusion part of the likelihood bound. Raises ValueError or
    TypeError for shapes that do not fit, the loss's own included.
    """
    sigma, rate = noise.total(t), noise.rate(t)  # (B,)
    level = by_sequence(sigma, check_tokens(x0, graph.num_states))
    if x is None:
        x = graph.sample_transition(x0, level, generator)
    x = same_shape(check_tokens(x, graph.num_states), x0, "x")
    values = loss(model, graph, x, sigma, x0=x0)
    if values.shape != rate.shape:
        raise ValueError(f"{getattr(loss, '__name__', loss)} must give one number a sequence, "
                         f"shape {tuple(rate.shape)}, got {tuple(values.shape)}")  # fmt: skip
    return rate * values


# ---- the pieces ----------------------------------------------------------------------------------


def score_entropy_terms(log_score: Tensor, ratio: Tensor) -> Tensor:
    """s − r log s + K(r), K(r) = r (log r − 1): at least 0, and 0 at s = r only; any shape."""
    return log_score.exp() - ratio * log_score + torch.xlogy(ratio, ratio) - ratio


def conditional_ratio(graph, x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
    """p(y | x0) / p(x | x0) token by token, (B, L, S); raises where x cannot come from x0."""
    x0 = same_shape(x0, x, "x0")
    probs = graph.transition_probs(x0, by_sequence(sigma, x))  # (B, L, S)
    here = probs.gather(-1, x[..., None])
    if (here <= 0).any():
        raise ValueError("p(x | x0) is 0 somewhere: x must be drawn from x0 by this graph")
    return probs / here


def rates_out(graph, x: Tensor) -> Tensor:
    """w_yx = Q(y, x) for y ≠ x, and 0 at y = x; (B, L, S)."""
    return graph.rates(x).scatter(-1, x[..., None], 0)


def at_neighbours(model, graph, x: Tensor, sigma: Tensor) -> Tensor:
    """The model's entry for x at each y that x can jump to, (B, L, S); 0 elsewhere.

    y is x with token i replaced: the network runs once for each such pair.
    """
    can = rates_out(graph, x) > 0  # (B, L, S)
    row, i, y = can.nonzero(as_tuple=True)  # (M,)
    there = x[row].scatter(1, i[:, None], y[:, None])  # (M, L)
    every = torch.arange(len(row), device=x.device)
    entry = model(there, sigma[row])[every, i, x[row, i]]  # (M,)
    return torch.zeros(can.shape, dtype=entry.dtype, device=x.device).index_put((row, i, y), entry)


def weighted_sum(weight: Tensor, terms: Tensor) -> Tensor:
    """Σ weight · terms over positions and states, (B, L, S) → (B,); where the weight is 0, 0."""
    return torch.where(weight > 0, weight.to(terms.dtype) * terms, 0).sum((1, 2))


def by_sequence(sigma: Tensor, x: Tensor) -> Tensor:
    """sigma (B,) → (B, 1); raises ValueError unless there is one level a sequence of x (B, L)."""
    sigma = check_sigma(sigma)
    if x.ndim != 2 or sigma.shape != x.shape[:1]:
        raise ValueError(
            f"need tokens (B, L) and one noise level or time for each of the B sequences, (B,); "
            f"got {tuple(x.shape)} and {tuple(sigma.shape)}"
        )
    return sigma[:, None]


def same_shape(value: Tensor, like: Tensor, name: str) -> Tensor:
    if value.shape != like.shape:
        raise ValueError(f"{name} must have shape {tuple(like.shape)}, got {tuple(value.shape)}")
    return value


def require(value: Tensor | None, name: str, loss: str) -> Tensor:
    if value is None:
        raise ValueError(f"{loss} needs {name}: call it with {name}=…")
    return value
