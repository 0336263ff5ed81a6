"""A network to be shipped: small, with a record of how it was made."""

import math
import platform
from pathlib import Path

import torch

from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.training.checkpoint import check_sound


def export(trainer, folder: str | Path, command: str) -> dict:
    """Write the averaged network, small enough to ship (float16), with how it was made.

    training.json then holds the command, the settings' outcome, and the likelihood bound on the
    whole validation set, measured on what was written. Returns its content. All processes call it,
    and the first one writes; the others return {}.
    """
    s, info = trainer.settings, trainer.corpus.info
    what = trainer.whole_average(), trainer.graph, trainer.noise, trainer.corpus.tokenizer
    check_sound(trainer)
    if trainer.rank > 0:
        return {}
    save_pretrained(folder, *what, dtype=torch.float16)
    trainer.average = load_pretrained(folder, trainer.device)[0]
    bound = trainer.validate(trainer.corpus.valid[:], seed=1)
    record = {
        "command": command, "seed": s.seed, "steps": trainer.step,
        "tokens_seen": trainer.step * s.batch_size * s.length,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "wall_time_s": round(trainer.seconds),
        "hardware": f"{platform.machine()} {trainer.device}, {torch.get_num_threads()} thread(s)",
        "python": platform.python_version(), "torch": torch.__version__,
        "corpus": info, "valid_blocks": len(trainer.corpus.valid),
        "bound_bits_per_token": bound.bits_per_token,
        "bound_error_bits_per_token": bound.error / s.length / math.log(2),
    }  # fmt: skip
    save_pretrained(folder, trainer.average, *what[1:], dtype=torch.float16, info=record)
    return record
