"""What a network says of a hidden token: a distribution π over the tokens, and a mass Z.

On the absorbing graph the exact ratio of a hidden token is p(x0 = y | visible) r, with
r = 1 / (e^σ̄ − 1). A network's scores there can be written s_y = r Z π_y with Σ_y π_y = 1: π is its
guess of the token, and Z, which is 1 for exact scores, says how fast it wants to reveal it. SEDD's
own head learns Z; a normalised one has Z = 1. (Lou et al. 2023, section 5; Ou et al. 2024, theorem
1.)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.graphs import only_masks_move


def check_absorbing(graph, who: str) -> None:
    """Raises ValueError unless tokens other than MASK stay what they are on this graph."""
    if not only_masks_move(graph):
        raise ValueError(f"{who} is for the absorbing graph, where a token is hidden or final; got "
                         f"{graph!r:.60}")  # fmt: skip


def exact_device(device: torch.device) -> torch.device:
    """Where float64 can be used: the device itself, or the CPU for Apple's MPS, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


def of_rows(model: Callable, rows: Tensor) -> Callable:
    """The model for some of the sequences, where it treats each its own way (a guided one does)."""
    return model.of_rows(rows) if hasattr(model, "of_rows") else model


def log_r(sigma: Tensor) -> Tensor:
    """log 1/(e^σ̄ − 1), shape of sigma: what scales every ratio of a hidden token."""
    return -sigma - torch.log(-torch.expm1(-sigma))


def log_parts(log_score: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Log-scores of hidden tokens (M, N + 1) at sigma (M,) → log π (M, N) and log Z (M,)."""
    log_score = log_score[..., :-1].to(torch.promote_types(log_score.dtype, torch.float32))
    total = log_score.logsumexp(-1)  # (M,)
    return log_score - total[..., None], total - log_r(sigma)


def ask(model: Callable, x: Tensor, at: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """π (M, N) and Z (M,) in float64 at the True places of `at` (B, L), all of them hidden.

    x (B, L), sigma (B,) > 0; both come on `exact_device`. Raises ValueError where the network's
    answer is no distribution.
    """
    levels = sigma.to(torch.get_default_dtype())  # (B,)
    log_score = model(x, levels.to(x.device), at=at).to(exact_device(x.device))  # (M, N + 1)
    if log_score.ndim != 2 or len(log_score) != int(at.sum()):
        raise ValueError(f"model(x, sigma, at=mask) must give {int(at.sum())} rows, one for each "
                         f"True of the mask, got {tuple(log_score.shape)}")  # fmt: skip
    rows = at.nonzero()[:, 0].to(levels.device)  # the sequence of each
    log_pi, log_z = log_parts(log_score.double(), levels.double()[rows].to(log_score.device))
    if not log_z.isfinite().all():
        raise ValueError("the model's log-scores hold NaN, or are all -inf, or inf, at some place")
    return log_pi.exp(), log_z.exp()


class Normalised:
    """A network with its Z put to 1 after training: log-scores log π − log(e^σ̄ − 1).

    Absorbing graph. Called as the network is, model(x, sigma, at=None); the entry at a visible
    token's own place is 0 and its other entries, which nothing uses, are as they were.
    """

    def __init__(self, model: Callable):
        self.model = model

    def __call__(self, x: Tensor, sigma: Tensor, at: Tensor | None = None) -> Tensor:
        out = self.model(x, sigma) if at is None else self.model(x, sigma, at=at)
        tokens, level = (x, sigma[:, None].expand(x.shape)) if at is None else (
            x[at], sigma[:, None].expand(x.shape)[at])  # fmt: skip
        log_pi, _ = log_parts(out, level)
        hidden = (tokens == out.shape[-1] - 1)[..., None]
        whole = torch.cat([log_pi + log_r(level)[..., None], torch.zeros_like(out[..., :1])], -1)
        return torch.where(hidden, whole.to(out.dtype), out)
