"""The two-token worlds of chapters 01 to 04, and the small network that learns them.

A world is a joint distribution over two tokens of N values: a picture of N × N pixels, in which
tokens are coordinates. It is small enough to know everything about it (`ctmc.Chain`).
"""

import math

import torch
from torch import Tensor, nn

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

    Embeds the tokens (one id more than there are states: `num_states` stands for "hidden"), adds
    sines and cosines of log σ̄, and sends all of it through two hidden layers. The output starts
    at `start`: 0 for logits and log-scores, 1 for scores.
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


def fit(
    loss, net: nn.Module, graph, noise, p0: Tensor, steps: int = 2000, lr: float = 3e-3,
    batch_size: int = 512, weighted: bool = True, seed: int = 0,
) -> list[float]:  # fmt: skip
    """Train `net` on the world p0 (N,)*L by a loss of losses.py or baselines.py; its loss curve.

    Each step draws fresh data and stratified t in [1e-3, 1]; the loss is multiplied by σ(t) if
    `weighted`. Adam, the learning rate falling to 0 along a cosine. Raises if the loss is NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    flat, history = p0.flatten(), []
    for step in range(steps):
        place = torch.multinomial(flat, batch_size, True, generator=generator)
        x0 = torch.stack(torch.unravel_index(place, p0.shape), -1)  # (B, L)
        t = (1e-3 + (1 - 1e-3) * times(batch_size, generator)).float()
        sigma = noise.total(t)
        x = graph.sample_transition(x0, sigma[:, None], generator)
        value = loss(net, graph, x, sigma, x0=x0)
        value = (noise.rate(t) * value if weighted else value).mean()
        if not value.isfinite():
            raise FloatingPointError(f"the loss is {value.item()} at step {step}; try a smaller lr")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        history.append(value.item())
    return history
