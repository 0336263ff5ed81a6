"""Pictures and labels in one sequence: naming by the conditional score, and what to beat.

A row of `digits_corpus(labels=True)` is a label word and 64 pixels, one vocabulary. A network that
was trained on such rows draws a digit with the label given, names one with the pixels given, and
draws both with nothing given; `sample(clamp=…)` does the first and the last. All tokens are alike
to it: nothing says which of them is a label but their ids.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.checks import real_number
from sedd_mini.graphs import check_tokens, only_masks_move
from sedd_mini.losses import require
from sedd_mini.samplers import evaluation_mode
from sedd_mini.text.digits import LABELS, LEVELS, SIDE


@torch.no_grad()
def label_log_prob(model, graph, pictures: Tensor, batch_size: int = 256) -> Tensor:
    """log p(label | pixels) of pictures (M, 64), by one call each: (M, 10), float32 or wider.

    The label is masked and all pixels are visible, so on the absorbing graph the log-scores at the
    label are log p(label | pixels) up to one constant, if the network is exact; they are
    renormalised over the ten label words. σ̄ is the level at which one token of 65 is hidden on
    average. Raises ValueError for another graph, where a visible pixel need not be the true one.
    """
    check_is_absorbing(graph)
    rows = F.pad(check_tokens(pictures, LEVELS), (1, 0), value=graph.mask_id)  # (M, 65)
    if rows.shape[1:] != (1 + SIDE * SIDE,):
        raise ValueError(f"pictures must be (M, {SIDE * SIDE}), got {tuple(pictures.shape)}")
    level, out = -math.log1p(-1 / rows.shape[1]), []
    with evaluation_mode(model):
        for part in rows.split(batch_size):
            sigma = torch.full((len(part),), level, device=part.device)
            out.append(at_label(model, part, sigma).log_softmax(-1))
    return torch.cat(out)


def naming_loss(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """−log p(label | pixels), (B,): what makes a plain classifier of the same network.

    Called as the losses of losses.py. For a Trainer of equal budget, with no time in the network:

        Trainer(settings, digits_corpus(labels=True), noise=Clock(), loss=naming_loss)

    The noise in x changes nothing, and Clock (evaluation/rivals.py) weights all rows alike.
    """
    check_is_absorbing(graph)
    x0 = require(x0, "x0", "naming_loss")
    hidden = torch.cat([torch.full_like(x0[:, :1], graph.mask_id), x0[:, 1:]], 1)
    return F.cross_entropy(at_label(model, hidden, sigma), x0[:, 0] - LEVELS, reduction="none")


def at_label(model, x: Tensor, sigma: Tensor) -> Tensor:
    """The log-scores of the ten label words at the first token of x (B, 65): (B, 10)."""
    first = torch.zeros_like(x, dtype=torch.bool)
    first[:, 0] = True
    return model(x, sigma, at=first)[:, LEVELS : LEVELS + LABELS]


def plain_classifier(rows: Tensor, steps: int, batch_size: int = 32, lr: float = 5e-3,
                     width: int = 128, seed: int = 0,
                     one_hot: bool = False) -> torch.nn.Module:  # fmt: skip
    """pictures (M, 64) → logits (M, 10): one hidden layer, trained on rows (M, 65) of label words
    and pixels by as many steps and rows a step as a Trainer's; Adam, the rate falling to 0.

    It reads a level as a number, or, if one_hot, as a token: then no level is near another.
    """
    inputs = SIDE * SIDE * (LEVELS if one_hot else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, last = torch.nn.Linear(inputs, width), torch.nn.Linear(width, LABELS)
    read = OneHot() if one_hot else Scaled()
    net = torch.nn.Sequential(read, first, torch.nn.ReLU(), last)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        batch = rows[torch.randint(len(rows), (batch_size,), generator=generator)]
        loss = F.cross_entropy(net(batch[:, 1:]), batch[:, 0] - LEVELS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


class Scaled(torch.nn.Module):
    """Levels 0 … 16 → 0 … 1."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures / (LEVELS - 1)


class OneHot(torch.nn.Module):
    """Levels (M, 64) → (M, 64 · 17) of zeros, and a one for the level of each pixel."""

    def forward(self, pictures: Tensor) -> Tensor:
        return F.one_hot(pictures, LEVELS).flatten(1).float()


def check_is_absorbing(graph) -> None:
    if not only_masks_move(graph) or graph.num_tokens != LEVELS + LABELS:
        raise ValueError(f"labels are named on AbsorbingGraph({LEVELS + LABELS}), where what is "
                         f"not hidden is true; got {graph}")  # fmt: skip


def pixel_bits(train, valid, neighbours: bool = True, strength: float = 32.0) -> float:
    """Bits a pixel of `valid` pictures (M, 64) by tables counted on `train`: the number to beat.

    Without neighbours, each pixel has the distribution of levels at its place, counts + 1/2. With
    them, p(level | left, above) = (count + strength · p(level | place)) / (all + strength), left
    and above being levels, or "outside". Exact code lengths: the pixels are read row by row.
    """
    train, valid = np.asarray(train).astype(np.int64), np.asarray(valid).astype(np.int64)
    strength = real_number("strength", strength, 0)
    place = np.arange(SIDE * SIDE)
    table = np.full((SIDE * SIDE, LEVELS), 0.5)
    np.add.at(table, (np.broadcast_to(place, train.shape), train), 1)
    table /= table.sum(1, keepdims=True)
    prob = table[place, valid]  # (M, 64)
    if neighbours:
        counts = np.zeros((LEVELS + 1, LEVELS + 1, LEVELS))
        np.add.at(counts, (*left_and_above(train), train), 1)
        around = left_and_above(valid)
        prob = (counts[*around, valid] + strength * prob) / (counts[around].sum(-1) + strength)
    return float(-np.log2(prob).mean())


def left_and_above(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The level to the left of each pixel (M, 64), and the one above; LEVELS is outside."""
    square = pictures.reshape(-1, SIDE, SIDE)
    left = np.pad(square, ((0, 0), (0, 0), (1, 0)), constant_values=LEVELS)[:, :, :-1]
    above = np.pad(square, ((0, 0), (1, 0), (0, 0)), constant_values=LEVELS)[:, :-1]
    return left.reshape(pictures.shape), above.reshape(pictures.shape)
