"""The two-token worlds of chapters 01 to 04, the small network that learns them, and how well.

A world is a joint distribution over two tokens of N values: a picture of N × N pixels, in which
tokens are coordinates. It is small enough to know everything about it (`ctmc.Chain`).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sedd_mini import baselines
from sedd_mini.evaluate import times


def two_token_world(name: str = "spiral", num_tokens: int = 32, floor: float = 0.03) -> Tensor:
    """Joint probabilities (N, N), row = first token: "spiral", "moons" or "rings".

    A share `floor` is spread evenly over all pairs, so that every ratio is finite.
    """
    u = torch.linspace(0, 1, 400, dtype=torch.float64)
    half = math.pi * u
    if name == "spiral":
        angle, radius = 3.5 * math.pi * u.sqrt(), 0.45 * u.sqrt()
        curve = torch.stack([radius * angle.sin(), radius * angle.cos()], -1)
    elif name == "moons":
        upper = torch.stack([0.05 - 0.3 * half.sin(), -0.12 + 0.28 * half.cos()], -1)
        curve = torch.cat([upper, -upper])
    elif name == "rings":
        ring = torch.stack([(2 * half).sin(), (2 * half).cos()], -1)
        curve = torch.cat([0.42 * ring, 0.42 * ring, 0.18 * ring])
    else:
        raise ValueError(f"no world named {name!r}: choose 'spiral', 'moons' or 'rings'")
    centres = (torch.arange(num_tokens, dtype=torch.float64) + 0.5) / num_tokens - 0.5
    grid = torch.cartesian_prod(centres, centres)  # (N², 2)
    width = 0.028
    p = torch.exp(-(torch.cdist(grid, curve) ** 2) / (2 * width**2)).sum(-1)  # (N²,)
    p = (1 - floor) * p / p.sum() + floor / num_tokens**2
    return p.reshape(num_tokens, num_tokens)


class PairNet(nn.Module):
    """A small network for short sequences: (x (B, L), sigma (B,)) → (B, L, num_states).

    Embeds the tokens (one id more than there are states: `num_states` stands for "hidden"),
    appends sines and cosines of log σ̄, and sends all of it through two hidden layers. The output
    starts at `start`: 0 for logits and log-scores, 1 for scores.
    """

    def __init__(self, num_states: int, length: int = 2, width: int = 128, start: float = 0.0):
        super().__init__()
        self.shape = (length, num_states)
        self.embed = nn.Embedding(num_states + 1, width // 2)
        self.layers = nn.Sequential(
            nn.Linear(length * (width // 2) + 16, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, length * num_states),
        )  # fmt: skip
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.constant_(self.layers[-1].bias, start)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        phase = sigma.to(torch.float32).log()[:, None] * 2.0 ** torch.arange(-3, 5)  # (B, 8)
        inputs = [self.embed(x).flatten(1), phase.sin(), phase.cos()]
        return self.layers(torch.cat(inputs, -1)).unflatten(-1, self.shape)


class Method(NamedTuple):
    """A way to learn ratios: its loss, and how the network's output becomes a score.

    start: the network's first output; weighted: whether the loss is multiplied by σ(t).
    """

    loss: Callable
    to_score: Callable
    start: float = 0.0
    weighted: bool = True


PREDECESSORS = {
    "mean prediction": Method(
        baselines.mean_prediction_cross_entropy, baselines.score_of_mean, weighted=False
    ),
    "ratio matching": Method(
        baselines.ratio_matching, baselines.score_of_conditionals, weighted=False
    ),
    "concrete score matching": Method(
        baselines.denoising_concrete_score_matching, baselines.score_of_ratios, start=1.0
    ),
}


def noisy_batch(graph, noise, p0: Tensor, size: int, generator: torch.Generator):
    """x0 ~ p0 (B, L), stratified t in [1e-3, 1] (B,), and x ~ p_t(·|x0) (B, L)."""
    place = torch.multinomial(p0.flatten(), size, True, generator=generator)
    x0 = torch.stack(torch.unravel_index(place, p0.shape), -1)
    t = (1e-3 + (1 - 1e-3) * times(size, generator)).float()
    return x0, t, graph.sample_transition(x0, noise.total(t)[:, None], generator)


def fit(
    loss, net: nn.Module, graph, noise, p0: Tensor, steps: int = 800, lr: float = 5e-3,
    batch_size: int = 256, weighted: bool = True, seed: int = 0,
) -> list[float]:  # fmt: skip
    """Train `net` on the world p0 (N,)*L by a loss of losses.py or baselines.py; its loss curve.

    Each step draws a fresh `noisy_batch`; the loss is multiplied by σ(t) if `weighted`. Adam, the
    learning rate falling to 0 along a cosine. Raises if the loss is NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = []
    for step in range(steps):
        x0, t, x = noisy_batch(graph, noise, p0, batch_size, generator)
        value = loss(net, graph, x, noise.total(t), x0=x0)
        value = (noise.rate(t) * value if weighted else value).mean()
        if not value.isfinite():
            raise FloatingPointError(f"the loss is {value.item()} at step {step}; try a smaller lr")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        history.append(value.item())
    return history


def ratio_error(score: Callable, chain, sigma: float) -> tuple[float, float]:
    """How wrong score(x, sigma) (B, L, S) is at σ̄, over all x weighted by p_σ̄(x), all y ≠ x.

    Returns the root mean square of log(score / true ratio) over the positive scores, and the share
    of scores that are not positive, which have no logarithm.
    """
    x = chain.states
    with torch.no_grad():
        found = score(x, torch.full((len(x),), sigma)).double()  # (n, L, S)
    weight = chain.marginal(sigma).flatten()[:, None, None].expand_as(found)
    weight = weight.scatter(-1, x[..., None], 0)  # not y = x
    weight = weight / weight.sum()
    error = torch.where(found > 0, found, 1).log() - chain.scores(sigma).log()
    positive = weight * (found > 0)
    mean_square = (positive * error**2).sum() / positive.sum()
    return mean_square.sqrt().item(), (weight * (found <= 0)).sum().item()


def law_of_samples(score: Callable, chain, noise, steps: int = 100) -> Tensor:
    """The exact distribution at σ̄(0) of the reverse process with these scores, from pure noise.

    Scores that are not positive count as 0. For graphs with a uniform limit; shape (N,)*L.
    """

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            return score(x, sigma).double().clamp(min=0).log()

    base = torch.full_like(chain.p0, 1 / chain.p0.numel())
    return chain.reverse_marginal(model, noise.sigma_max, base, steps, noise.sigma_min)


def small_chains() -> dict[str, tuple]:
    """Two tokens of three values under MASK, uniform and lopsided noise: name → (chain, noise).

    For checking code that claims to work for every rate matrix: the lopsided one is not symmetric.
    """
    from sedd_mini.graphs import AbsorbingGraph, UniformGraph
    from sedd_mini.noise import GeometricNoise, LogLinearNoise
    from sedd_mini.worlds.ctmc import Chain, MatrixGraph

    p0 = torch.tensor([[50, 3, 2], [4, 5, 20], [1, 10, 5]], dtype=torch.float64) / 100
    rates = [[-1.5, 0.1, 0.1], [1.4, -0.2, 0.9], [0.1, 0.1, -1.0]]
    lopsided = MatrixGraph(torch.tensor(rates, dtype=torch.float64))
    geometric = GeometricNoise(sigma_min=0.02, sigma_max=4)
    return {
        "MASK": (Chain(AbsorbingGraph(3), p0), LogLinearNoise()),
        "uniform": (Chain(UniformGraph(3), p0), geometric),
        "lopsided": (Chain(lopsided, p0), geometric),
    }
