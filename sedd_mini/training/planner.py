"""What a run costs, before it is started: arithmetic, memory, hours, money.

    python -m sedd_mini plan --preset small --gpus 8 --kind h100 --price 2.50

Counted by hand, as chapter 06 does: matrix products alone, 2 m n p FLOPs each. The counts are
checked against PyTorch's own counter, and the bytes, to a tenth, against what a step takes on a
CPU. On a GPU one step was measured (MEASURED_RECOMPUTED): with activations recomputed it took a
sixth more than is planned. The share of a GPU's speed that a run reaches is an assumption.
"""

import dataclasses
import math
import os
import shutil
from pathlib import Path

import torch

from sedd_mini.files import newest_checkpoint
from sedd_mini.network.dit import DiTConfig
from sedd_mini.training.settings import Settings

# GPU → (FLOPs a second of the data sheet, without sparsity, in the precision that "auto" chooses
# there; bytes of memory, the smaller size where there are two)
KINDS = {
    "t4": (8.1e12, 16e9), "v100": (15.7e12, 16e9), "rtx3090": (71e12, 24e9), "a10": (125e12, 24e9),
    "l4": (121e12, 24e9), "rtx4090": (165e12, 24e9), "l40s": (362e12, 48e9), "a100": (312e12, 80e9),
    "h100": (989e12, 80e9), "h200": (989e12, 141e9), "b200": (2250e12, 180e9),
}  # fmt: skip
NO_BFLOAT16 = ("t4", "v100")  # of these: "auto" is float32 there, see hardware.py

# Measured on one H100: SEDD small, 64 sequences of 1024 tokens, bfloat16. The share of the data
# sheet's FLOPs, plain and compiled, and the peak memory with recomputed activations over what
# `memory` plans. Rounded from chapters/results/full-size-speed.json.
MEASURED_UTILISATION, MEASURED_COMPILED, MEASURED_RECOMPUTED = 0.12, 0.31, 1.17


def parameters(c: DiTConfig) -> int:
    """P: the embedding, the blocks, the layers of the noise level, the head."""
    width, cond = c.width, c.cond_dim
    noise = 2 * width * (cond + 1) + (256 + 1) * cond + (cond + 1) * cond
    return c.num_states * (2 * width + 1) + c.num_blocks * block_parameters(c) + width + noise


def block_parameters(c: DiTConfig) -> int:
    """Those of one block, the layer of its modulation included."""
    return 12 * c.width**2 + 5 * c.width + 2 * c.width + 6 * c.width * (c.cond_dim + 1)


def forward_flops(c: DiTConfig, length: int, masked: float = 1.0) -> dict[str, float]:
    """FLOPs of one sequence by part; the head works on a share `masked` of the positions."""
    width, blocks = c.width, c.num_blocks
    return {
        "attention": length * blocks * 2 * 4 * width**2,  # q, k, v; out
        "q · k and a · v": blocks * 2 * 2 * length**2 * width,
        "MLP": length * blocks * 2 * 8 * width**2,
        "noise": 2 * ((6 * blocks + 2) * width * c.cond_dim + 256 * c.cond_dim + c.cond_dim**2),
        "head": masked * length * 2 * c.num_states * width,
    }


def training_flops(c: DiTConfig, length: int, masked: float | None = None) -> float:
    """FLOPs that one sequence needs in training: forward, and twice that backward.

    `masked`: None is what training meets on average, half of the positions if absorbing and else
    all. What is computed twice to save memory does not count: time spent on that is not used.
    """
    masked = masked if masked is not None else (0.5 if c.absorbing else 1.0)
    return 3 * sum(forward_flops(c, length, masked).values())


def memory(
    c: DiTConfig, length: int, batch: int, precision: str = "bfloat16", shares: int = 1,
    device: str = "cuda", accumulate: int = 1,
) -> dict[str, float]:  # fmt: skip
    """Bytes by part where `batch` sequences are worked on at a time, without a compiler.

    `shares`: processes over which "fsdp" spreads the weights; 1 with "ddp". Each then puts together
    what is in no block (embedding and head, mainly) for the whole step, weights and gradients, and
    the weights of two blocks, of the one at work and the next. `accumulate`: parts of a step;
    gradients are exchanged in the last part alone, so that with two or more "fsdp" too keeps all of
    them whole. The sum is the peak, where the backward pass begins, with room for all gradients. (A
    process that accumulates nothing has those only after the activations are gone, and stays
    below.)
    """
    total, width, tokens = parameters(c), c.width, batch * length
    if precision == "float64":  # everything twice
        half = memory(c, length, batch, "float32", shares, device, accumulate)
        return {name: 2 * size for name, size in half.items()}
    word = {"bfloat16": 2, "float32": 4}[precision]
    products = c.num_blocks * 12 * width**2 + c.num_states * width
    # A block keeps, in float32, what comes into its two norms and out of them (4); in the precision
    # of products q, k, v together and q, k turned (5), the inputs of three products (3) and of the
    # last (4), what comes into GELU (4) and what the gates multiply (2). Dropout keeps two masks.
    block = tokens * width * (16 + 18 * word + 2 * bool(c.dropout))
    if device == "cpu" and word == 2:  # attention is written out there: its weights are kept
        block += tokens * c.num_heads * length * word
    one_float = tokens * width * 4
    # The head keeps slopes, then works in chunks, and in pieces of these: the sizes in head.py.
    kept, chunk, piece = (2**26, 2**23, 2**19) if device == "cpu" else (2**28, 2**28, 2**28)
    scores = tokens * c.num_states * (0.5 if c.absorbing else 1)
    head = 4 * min(scores, kept) + 4 * min(max(scores - kept, 0), chunk) + 12 * min(scores, piece)
    recomputed = c.checkpoint_activations
    apart = total - c.num_blocks * block_parameters(c)  # what is in no block
    gathered = apart + min(c.num_blocks, 2) * block_parameters(c) if shares > 1 else 0
    whole = total if accumulate > 1 else apart  # of the gradients
    return {
        "weights": 4 * (gathered + total / shares),
        "gradients": 4 * (whole + (total - whole) / shares),
        "Adam's moments": 8 * total / shares,
        "averaged weights": 4 * total / shares,
        "copies in bfloat16": (word == 2) * 2 * products,
        "activations": c.num_blocks * (one_float if recomputed else block) + 2 * one_float,
        "head" + recomputed * ", or a block": max(head, recomputed * block),
    }


def smallest_accumulate(c: DiTConfig, length: int, batch: int, room: float, **options) -> int:
    """Parts in which a process works through `batch` sequences so as to need at most `room`."""
    for k in (k for k in range(1, batch + 1) if batch % k == 0):
        if sum(memory(c, length, batch // k, accumulate=k, **options).values()) <= room:
            return k
    raise ValueError("not even one sequence at a time fits: more GPUs and --parallel fsdp, or "
                     "--checkpoint-activations, or a GPU with more memory")  # fmt: skip


# ---- this machine ------------------------------------------------------------------------------


def machine_memory(device: str) -> float | None:
    """Bytes that one process may take: of its GPU, or its share of what this machine, or the
    container, has; None where the system does not tell."""
    if device == "cuda":
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    found = []
    try:
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has none of them
        pass
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container, in two versions
        try:
            found.append(int(Path("/sys/fs/cgroup", limit).read_text()))
        except (OSError, ValueError):  # none, or "max"
            pass
    return min(found) / int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if found else None


def fitting(
    settings: Settings, num_tokens: int, device: str, room: float | None,
    precision: str = "float32", processes: int = 1,
) -> str | None:  # fmt: skip
    """None if a step of these settings fits into `room` bytes; else what would, in one line.

    `room` None is for a step that did not: what takes less.
    """
    s, each = settings, settings.batch_size // processes
    about = {"precision": precision, "device": device,
             "shares": processes if s.parallel == "fsdp" else 1}  # fmt: skip

    def need(k: int, recompute: bool) -> float:
        c = dataclasses.replace(s, checkpoint_activations=recompute).network(num_tokens)
        return sum(memory(c, s.length, each // k, accumulate=k, **about).values())

    takes = need(s.accumulate, s.checkpoint_activations)
    if room is not None and takes <= room:
        return None
    said = f"a step takes about {in_bytes(takes)} of memory"
    said += f", and there are {in_bytes(room)} ({device})" if room is not None else ""
    most = 0.9 * (takes if room is None else room)
    for recompute in {s.checkpoint_activations: None, True: None}:
        for k in range(s.accumulate, each + 1):
            if each % k == 0 and (less := need(k, recompute)) <= most:
                more = recompute and not s.checkpoint_activations
                return (f"{said}: --accumulate {k}{' --checkpoint-activations' * more} takes "
                        f"{in_bytes(less)}")  # fmt: skip
    least = need(each, True)
    return (f"{said}, and one sequence at a time {in_bytes(least)}: a smaller --length or --width, "
            "or a machine with more memory")  # fmt: skip


def checkpoint_bytes(c: DiTConfig) -> int:
    """A checkpoint's: weights, their average and Adam's two moments, in float32."""
    return 16 * parameters(c)


def existing(path: str | Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    path = Path(path).absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def disk(settings: Settings, num_tokens: int, out: str | Path) -> str:
    """What a run will write, in one line; raises ValueError where that does not fit."""
    one = checkpoint_bytes(settings.network(num_tokens))
    old = newest_checkpoint(Path(out)) is not None  # the old one goes when the new one is whole
    free = shutil.disk_usage(existing(out)).free
    said = (f"a checkpoint takes {in_bytes(one)}, two of them at a time {in_bytes(2 * one)}"
            f"{', one of which is there' * old}; {in_bytes(free)} are free in {out}")  # fmt: skip
    if (2 - old) * one > free:
        raise ValueError(f"{said}: free some, or give another --out")
    return said


def in_bytes(size: float) -> str:
    """A number of bytes as one reads it: "2.7 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


# ---- a whole run -------------------------------------------------------------------------------


def plan(
    settings: Settings, gpus: int = 8, kind: str = "h100", num_tokens: int = 50_257,
    utilisation: float = 0.4, price: float | None = None,
) -> str:  # fmt: skip
    """A run's arithmetic, memory, disk, hours and cost as text.

    Raises ValueError if it does not fit, and for a number without meaning: `gpus` and `num_tokens`
    are from 1, `utilisation` is above 0 and at most 1, `price` is not negative.
    """
    if kind not in KINDS:
        raise ValueError(f"no GPU {kind!r} is known: choose one of {', '.join(KINDS)}")
    for name, value in (("gpus", gpus), ("num_tokens", num_tokens)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation must be above 0 and at most 1, got {utilisation!r}")
    if price is not None and not 0 <= price < math.inf:
        raise ValueError(f"price must be a number from 0, got {price!r}")
    s, c = settings, settings.network(num_tokens)
    if s.batch_size % gpus:
        raise ValueError(f"{gpus} GPUs do not divide a batch of {s.batch_size}")
    (speed, room), each = KINDS[kind], s.batch_size // gpus
    shares = gpus if s.parallel == "fsdp" else 1
    about = {"shares": shares, "precision": "float32" if kind in NO_BFLOAT16 else "bfloat16"}
    accumulate = smallest_accumulate(c, s.length, each, 0.9 * room, **about)
    parts = memory(c, s.length, each // accumulate, accumulate=accumulate, **about)
    flops = training_flops(c, s.length) * s.batch_size * s.steps
    blocks = sum(forward_flops(c, s.length, masked=0).values())
    extra = 1 + s.checkpoint_activations * blocks / training_flops(c, s.length)
    hours = extra * flops / (gpus * speed * utilisation) / 3600
    recomputed = f"  recomputing took {MEASURED_RECOMPUTED} times the plan on one h100 (measured)"
    lines = [
        f"{parameters(c) / 1e6:.1f} M parameters, {s.steps:,} steps of "
        f"{s.batch_size} × {s.length} tokens ({s.steps * s.batch_size * s.length / 1e9:,.1f} G)",
        f"arithmetic: {flops:.2e} FLOPs",
        f"memory of a GPU, {each // accumulate} sequences at a time (--accumulate {accumulate}):",
        *(f"  {name:22s}{size / 1e9:8.2f} GB" for name, size in parts.items()),
        f"  {'together':22s}{sum(parts.values()) / 1e9:8.2f} GB of {room / 1e9:.0f}",
        *([recomputed] if s.checkpoint_activations else ()),
        f"disk: a checkpoint takes {in_bytes(checkpoint_bytes(c))}, two of them at a time",
        f"time: {hours:,.1f} hours on {gpus} × {kind} at {utilisation:.0%} of "
        f"{speed / 1e12:g} TFLOP/s each ({about['precision']})",
        f"  {utilisation:.0%} is an assumption; measured: {MEASURED_UTILISATION:.0%}, SEDD small "
        f"on one h100; with --compile {MEASURED_COMPILED:.0%}",
    ]
    if price is not None:
        lines.append(f"cost: {hours * gpus * price:,.0f} at {price:g} a GPU and hour")
    return "\n".join(lines)
