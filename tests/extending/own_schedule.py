"""A schedule of one's own: the share that stays falls from 1 as a cosine does."""

import math

import torch

from sedd_mini import Settings, Trainer, load
from sedd_mini.noise import SCHEDULES


class QuarterWave:
    """σ̄(t) = −log cos(a t), a = (1 − ε) π/2; so σ(t) = a tan(a t)."""

    def __init__(self, eps: float = 1e-2):
        self.eps, self.a = eps, (1 - eps) * math.pi / 2

    def total(self, t):
        return -torch.log(torch.cos(self.a * torch.as_tensor(t)))

    def rate(self, t):
        return self.a * torch.tan(self.a * torch.as_tensor(t))

    def to_config(self) -> dict:
        return {"eps": self.eps}


def run(out: str, **settings):
    SCHEDULES["quarter-wave"] = QuarterWave
    trainer = Trainer(Settings(noise="quarter-wave", **settings), out=out)
    trainer.run()
    return trainer, load(out, "cpu")
