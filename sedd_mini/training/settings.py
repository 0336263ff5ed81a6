"""The settings of a training run: what each means, its range, its default, and the presets."""

import dataclasses
import inspect
import operator
import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from sedd_mini.checks import real_number, whole_number
from sedd_mini.graphs import GRAPHS
from sedd_mini.network.dit import DiTConfig
from sedd_mini.noise import SCHEDULES
from sedd_mini.text.corpus import Corpus, load_corpus

OPENWEBTEXT = "runs/openwebtext"  # where the shards of --data openwebtext are looked for
NAMED = ("docs", "synthetic", "openwebtext")  # data that are no path
HARMLESS = {  # what may always be another when a run goes on: its steps are the same
    "device", "parallel", "accumulate", "compile", "checkpoint_activations", "valid_every",
    "valid_blocks", "valid_repeats", "save_every", "sample_every", "log_every", "tensorboard",
}  # fmt: skip
CHANGEABLE = (  # what may be if one says so: the network is the same
    "lr", "warmup", "decay", "steps", "clip", "ema", "beta2", "weight_decay", "dropout",
    "precision", "seed",
)  # fmt: skip

LIMITS = {
    "least": ("at least", operator.ge), "most": ("at most", operator.le),
    "above": ("above", operator.gt), "below": ("below", operator.lt),
}  # fmt: skip


def setting(default, help: str, group: str, *, least=None, most=None, above=None, below=None,
            choices=None):  # fmt: skip
    """A field with its range: from `least` to `most`, or strictly between `above` and `below`."""
    limits = {"least": least, "most": most, "above": above, "below": below, "choices": choices}
    return field(default=default, metadata={"help": help, "group": group, **limits})


@dataclass
class Settings:
    """All settings of a run; each is an option of the command line, with `_` written as `-`.

    Numbers of NumPy or PyTorch become plain ones, a path becomes its text. Raises ValueError or
    TypeError, in one line, for what is not of the type or outside the range that is stated here.
    """

    data: str = setting("docs", "synthetic, docs, a text file or folder, a folder of shards, a "
                                "Hugging Face dataset, or openwebtext: shards in " + OPENWEBTEXT,
                        "data")  # fmt: skip
    tokenizer: str = setting("bpe", "bpe (trained on the data), chars, gpt2, or a folder", "data")
    vocab_size: int = setting(1024, "size of a new BPE", "data", least=257)
    length: int = setting(128, "tokens a block, L", "data", least=1)
    graph: str = setting("absorb", "absorb, uniform", "network")
    noise: str = setting("auto", "auto, loglinear, geometric, cosine", "network")
    sigma_min: float = setting(1e-4, "geometric noise starts here", "network", above=0)
    sigma_max: float = setting(20.0, "and ends here", "network", above=0, most=1e3)
    width: int = setting(192, "of the transformer", "network", least=1)
    num_blocks: int = setting(4, "its blocks", "network", least=1)
    num_heads: int = setting(4, "heads a block", "network", least=1)
    cond_dim: int = setting(128, "width for the noise level", "network", least=1)
    dropout: float = setting(0.0, "share dropped", "network", least=0, below=1)
    normalised: bool = setting(False, "head is a distribution (absorb)", "network")
    time_conditioning: bool = setting(True, "the network is told how much noise there is: "
                                            "--time-conditioning false", "network")  # fmt: skip
    steps: int = setting(3000, "optimiser steps", "steps", least=1)
    batch_size: int = setting(64, "blocks a step, in all", "steps", least=1)
    lr: float = setting(2e-3, "highest learning rate", "steps", above=0)
    warmup: int = setting(100, "steps until lr is reached", "steps", least=0)
    decay: str = setting("cosine", "cosine (lr to 0 at the end), none", "steps",
                         choices=("cosine", "none"))  # fmt: skip
    weight_decay: float = setting(0.0, "AdamW's", "steps", least=0)
    beta2: float = setting(0.99, "AdamW's", "steps", least=0, below=1)
    clip: float = setting(1.0, "gradient's norm", "steps", above=0)
    ema: float = setting(0.999, "of the weights, at most (1 + n) / (10 + n)", "steps",
                         least=0, below=1)  # fmt: skip
    draws: str = setting("independent", "of times and noise: independent; counted: less variance",
                         "steps", choices=("independent", "counted"))  # fmt: skip
    seed: int = setting(0, "of weights, data order, times, noise", "steps", least=0, most=2**53)
    accumulate: int = setting(1, "parts of a batch, to save memory", "machine", least=1)
    precision: str = setting("auto", "float32, bfloat16, float64; auto: bfloat16 where fast",
                             "machine",
                             choices=("auto", "float32", "bfloat16", "float64"))  # fmt: skip
    device: str = setting("auto", "cpu, cuda; auto: cuda if it is there", "machine",
                          choices=("auto", "cpu", "cuda"))  # fmt: skip
    parallel: str = setting("ddp", "of several processes: ddp (weights whole), fsdp (in shares)",
                            "machine", choices=("ddp", "fsdp"))  # fmt: skip
    compile: bool = setting(False, "torch.compile", "machine")
    checkpoint_activations: bool = setting(False, "recompute blocks in backward: less memory",
                                           "machine")  # fmt: skip
    valid_every: int = setting(1000, "0: at the end only", "saving", least=0)
    valid_blocks: int = setting(256, "blocks for a validation", "saving", least=1)
    valid_repeats: int = setting(8, "for its error", "saving", least=2)
    save_every: int = setting(500, "steps a checkpoint", "saving", least=1)
    sample_every: int = setting(1000, "0: no samples", "saving", least=0)
    log_every: int = setting(20, "steps a log line", "saving", least=1)
    tensorboard: bool = setting(False, "log for TensorBoard too", "saving")

    def __post_init__(self):
        for f in dataclasses.fields(self):
            setattr(self, f.name, checked(f, getattr(self, f.name)))
        for name, table in (("graph", GRAPHS), ("noise", {"auto": None} | SCHEDULES)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of "
                                 f"{', '.join(table)}")  # fmt: skip
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min={self.sigma_min} must be below sigma_max={self.sigma_max}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate={self.accumulate} does not divide batch_size={self.batch_size}"
            )

    def make_corpus(self, given: Collection[str] = ()) -> Corpus:
        """The text of a run in tokens; also offline for "docs" in GPT-2's (see offline.py).

        Of tokenizer and vocab_size, what is `given`, or is not the default, has to fit data that
        are in tokens already. OpenWebText is too large for the memory: raises ValueError where
        there are no shards of it.
        """
        asked = {"tokenizer": self.tokenizer, "vocab_size": self.vocab_size}
        if self.data == "openwebtext":
            if not Path(OPENWEBTEXT, "shards.json").exists():
                raise ValueError(
                    f"there are no shards of OpenWebText in {OPENWEBTEXT}. Prepare them once: "
                    "python -m sedd_mini prepare --data openwebtext --tokenizer gpt2 --out "
                    f"{OPENWEBTEXT}; or choose another --data"
                )
            return load_corpus(OPENWEBTEXT, self.length, **{name: asked[name] for name in given})
        if (self.data, self.tokenizer) == ("docs", "gpt2"):
            from sedd_mini.text.offline import docs_with_gpt2_tokens

            return docs_with_gpt2_tokens(self.length, self.vocab_size)
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        chosen = {k: v for k, v in asked.items() if k in given or v != defaults[k]}
        return load_corpus(self.data, self.length, **chosen)

    def make_graph(self, num_tokens: int):
        """The graph of that name in GRAPHS."""
        return GRAPHS[self.graph](num_tokens)

    def make_noise(self, graph):
        """The schedule of that name in SCHEDULES, with sigma_min and sigma_max if it takes them."""
        name = self.noise
        if name == "auto":
            name = "geometric" if graph.mask_id is None else "loglinear"
        takes = inspect.signature(SCHEDULES[name]).parameters
        return SCHEDULES[name](**{k: getattr(self, k) for k in ("sigma_min", "sigma_max")
                                  if k in takes})  # fmt: skip

    def network(self, num_tokens: int, absorbing: bool | None = None) -> DiTConfig:
        """The sizes of the network, for a vocabulary of `num_tokens`."""
        return DiTConfig(
            num_tokens=num_tokens, length=self.length, width=self.width,
            absorbing=self.graph == "absorb" if absorbing is None else absorbing,
            num_blocks=self.num_blocks, num_heads=self.num_heads,
            cond_dim=self.cond_dim, dropout=self.dropout,
            normalised=self.normalised, time_conditioning=self.time_conditioning,
            checkpoint_activations=self.checkpoint_activations,
        )  # fmt: skip


def checked(f: dataclasses.Field, value):
    """The value of a setting as a plain Python one; raises unless it is one that may be."""
    if f.type is int:
        value = whole_number(f.name, value)
    elif f.type is float:
        value = real_number(f.name, value)
    elif f.type is str:
        value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(value, f.type):
        raise TypeError(f"{f.name} must be of type {f.type.__name__}, got {value!r}")
    if f.type is str:
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"{f.name}={value!r} is not UTF-8: rename it") from None
    m = f.metadata
    if m["choices"] and value not in m["choices"]:
        raise ValueError(f"{f.name}={value!r}: expected one of {', '.join(m['choices'])}")
    for name, (words, holds) in LIMITS.items():
        if m[name] is not None and not holds(value, m[name]):
            raise ValueError(f"{f.name} must be {words} {m[name]}, got {value}")
    return value


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

    Each as {name: [was, is]}, without what is harmless; `steps` is where nothing decays. A setting
    that did not exist then had its default; one that is not known here is a difference.
    """
    values = dataclasses.asdict(now)
    defaults = {f.name: f.default for f in dataclasses.fields(now)}
    harmless = HARMLESS | ({"steps"} if now.decay == "none" else set())
    other = {
        name: [was, values.get(name, "not known here")]
        for name, was in (defaults | saved).items()
        if was != values.get(name, "not known here") and (name in change or name not in harmless)
    }
    changed = {name: both for name, both in other.items() if name in change}
    return changed, {name: both for name, both in other.items() if name not in change}
