"""The settings of a training run: what each means, its default, and the presets."""

import dataclasses
from dataclasses import dataclass, field

from sedd_mini.network.dit import DiTConfig

OPENWEBTEXT = "runs/openwebtext"  # where the shards of --data openwebtext are looked for
HARMLESS = {  # what may always be another when a run goes on: its steps are the same
    "device", "parallel", "accumulate", "compile", "checkpoint_activations", "valid_every",
    "valid_blocks", "valid_repeats", "save_every", "sample_every", "log_every", "tensorboard",
}  # fmt: skip
CHANGEABLE = (  # what may be if one says so: the network is the same
    "lr", "warmup", "decay", "steps", "clip", "ema", "beta2", "weight_decay", "dropout",
    "precision", "seed",
)  # fmt: skip


def setting(default, help: str):
    return field(default=default, metadata={"help": help})


@dataclass
class Settings:
    """All settings of a run; each is an option of the command line, with `_` written as `-`."""

    data: str = setting("docs", '"synthetic", "docs", a text file or folder, a folder of shards, a '
                                'Hugging Face dataset, or "openwebtext": its shards in '
                                + OPENWEBTEXT)  # fmt: skip
    tokenizer: str = setting("bpe", '"bpe" (trained on the data), "chars", "gpt2", or a folder')
    vocab_size: int = setting(1024, "size of a BPE that is trained here")
    length: int = setting(128, "tokens a block, L")
    graph: str = setting("absorb", '"absorb" (noise log-linear) or "uniform" (noise geometric)')
    sigma_min: float = setting(1e-4, "where geometric noise starts")
    sigma_max: float = setting(20.0, "where geometric noise ends")
    width: int = setting(192, "width of the transformer")
    num_blocks: int = setting(4, "its number of blocks")
    num_heads: int = setting(4, "heads a block")
    cond_dim: int = setting(128, "width of the noise level's embedding")
    dropout: float = setting(0.0, "dropout, from 0 to 1")
    steps: int = setting(3000, "optimiser steps of the whole run")
    batch_size: int = setting(64, "blocks a step, of all processes and parts together")
    accumulate: int = setting(1, "parts a process works its batch through in, to save memory")
    lr: float = setting(2e-3, "highest learning rate")
    warmup: int = setting(100, "steps over which it rises to there")
    decay: str = setting("cosine", '"cosine" (to 0 at the last step) or "none"')
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    beta2: float = setting(0.99, "AdamW's second β")
    clip: float = setting(1.0, "largest norm of the gradient")
    ema: float = setting(0.999, "decay of the averaged weights, reached as (1 + n) / (10 + n)")
    draws: str = setting("independent", '"independent" times and noise, or "counted": with '
                                        "absorbing noise less variance at equal calls")  # fmt: skip
    seed: int = setting(0, "of weights, data order, times and noise")
    precision: str = setting("auto", '"float32", "bfloat16", or "auto": bfloat16 if that is fast '
                                     '(or "float64", for checking)')  # fmt: skip
    device: str = setting("auto", '"cpu", "cuda", or "auto"')
    parallel: str = setting("ddp", 'with torchrun: "ddp" (weights whole on each process) or "fsdp" '
                                   "(in shares, for what does not fit)")  # fmt: skip
    compile: bool = setting(False, "torch.compile the network (needs a C++ compiler on a CPU)")
    checkpoint_activations: bool = setting(False, "recompute blocks in backward: less memory")
    valid_every: int = setting(1000, "steps between two validations; 0: at the end only")
    valid_blocks: int = setting(256, "blocks of the validation set that are used")
    valid_repeats: int = setting(8, "Monte Carlo repeats of the bound, from which its error bar is")
    save_every: int = setting(500, "steps between two checkpoints")
    sample_every: int = setting(1000, "steps between two sample snapshots; 0: none")
    log_every: int = setting(20, "steps between two lines of log.jsonl")
    tensorboard: bool = setting(False, "write the log for TensorBoard too (needs that package)")

    def __post_init__(self):
        choices = {
            "graph": ("absorb", "uniform"), "decay": ("cosine", "none"),
            "precision": ("auto", "float32", "bfloat16", "float64"), "parallel": ("ddp", "fsdp"),
            "device": ("auto", "cpu", "cuda"), "draws": ("independent", "counted"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {allowed}")
        least = {
            "steps": 1, "batch_size": 1, "accumulate": 1, "length": 1, "valid_blocks": 1,
            "valid_repeats": 2, "log_every": 1, "save_every": 1, "valid_every": 0,
            "sample_every": 0, "warmup": 0, "seed": 0,
        }  # fmt: skip
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ValueError(f"{name} must be at least {value}, got {getattr(self, name)}")
        if not self.clip > 0:
            raise ValueError(f"clip must be above 0, got {self.clip}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}"
            )

    def network(self, num_tokens: int) -> DiTConfig:
        """The sizes of the network, for a vocabulary of `num_tokens`."""
        return DiTConfig(
            num_tokens=num_tokens, absorbing=self.graph == "absorb", length=self.length,
            width=self.width, num_blocks=self.num_blocks, num_heads=self.num_heads,
            cond_dim=self.cond_dim, dropout=self.dropout,
            checkpoint_activations=self.checkpoint_activations,
        )  # fmt: skip


PUBLISHED = {  # section 5 and appendix C of Lou et al. 2023
    "data": "openwebtext", "tokenizer": "gpt2", "length": 1024, "dropout": 0.1, "steps": 1_300_000,
    "batch_size": 512, "lr": 3e-4, "warmup": 2500, "decay": "none", "beta2": 0.999, "ema": 0.9999,
    "valid_every": 50_000, "sample_every": 50_000, "save_every": 5_000, "valid_blocks": 512,
}  # fmt: skip
PRESETS = {
    "synthetic": {
        "data": "synthetic", "length": 32, "width": 96, "num_heads": 8, "cond_dim": 64,
        "batch_size": 64, "steps": 1550, "lr": 5e-3, "weight_decay": 0.1, "valid_blocks": 1024,
        "draws": "counted",
    },
    "docs": {},
    "small": PUBLISHED | {"width": 768, "num_blocks": 12, "num_heads": 12},
    "medium": PUBLISHED | {"width": 1024, "num_blocks": 24, "num_heads": 16},
}  # fmt: skip


def preset(name: str, **changes) -> Settings:
    """The settings of a preset, with changes; raises ValueError for unknown names."""
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}: choose one of {', '.join(PRESETS)}")
    unknown = changes.keys() - {f.name for f in dataclasses.fields(Settings)}
    if unknown:
        raise ValueError(f"no setting {', '.join(sorted(unknown))}: see --help for all settings")
    return Settings(**PRESETS[name] | changes)


def compare(saved: dict, now: Settings, change: tuple[str, ...] = ()) -> tuple[dict, dict]:
    """How the settings of a saved run differ from those now: what may, by `change`, and the rest.

    Each as {name: [was, is]}, without what is harmless; `steps` is where nothing decays.
    """
    values = dataclasses.asdict(now)
    harmless = HARMLESS | ({"steps"} if now.decay == "none" else set())
    other = {
        name: [was, values[name]]
        for name, was in saved.items()
        if name in values and values[name] != was and (name in change or name not in harmless)
    }
    changed = {name: both for name, both in other.items() if name in change}
    return changed, {name: both for name, both in other.items() if name not in change}
