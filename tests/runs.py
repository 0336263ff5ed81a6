"""Small runs that several tests train."""

import torch
from kill_and_resume import TINY

from sedd_mini.training.settings import Settings

WORDS = "the cat sat on the mat and the dog sat on the cat "


def settings(text, **changes) -> Settings:
    return Settings(**TINY | {"data": text, "steps": 12, "save_every": 3} | changes)


def weights(trainer) -> torch.Tensor:
    parameters = [*trainer.model.parameters(), *trainer.average.parameters()]
    return torch.cat([p.detach().flatten() for p in parameters])
