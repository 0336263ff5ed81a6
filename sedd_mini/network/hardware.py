"""The device to work on, and the number format that is fast there."""

import torch

from sedd_mini.graphs import widest


def check_device(name: str | torch.device) -> str:
    """The name of a device that is here; "auto": "cuda" where there is a GPU, else "cpu".

    Raises ValueError for any other. Apple's "mps" has to be asked for.
    """
    if str(name) == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    here = [k for k in ("cpu", "cuda", "mps", "xpu") if getattr(torch, k).is_available()]
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"no device is called {name!r}: choose auto, {', '.join(here)}") from None
    if device.type not in here:
        raise ValueError(f"PyTorch sees no device {str(name)!r} here: choose auto, "
                         f"{', '.join(here)}")  # fmt: skip
    count = getattr(torch, device.type).device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"there is no {device}: {device.type} counts {count} here, from 0")
    return str(device)


def choose_precision(precision: str, device: str) -> torch.dtype:
    """The type to multiply in; "auto": bfloat16 where the hardware has it, float32 elsewhere.

    Emulated bfloat16 does not count, as it is slow. Raises ValueError for another name than
    float32, bfloat16, float64, and for what the device does not have.
    """
    if precision not in ("auto", "float32", "bfloat16", "float64"):
        raise ValueError(f"precision must be auto, float32, bfloat16 or float64, got {precision!r}")
    kind = torch.device(device).type
    if precision != "auto":
        dtype = getattr(torch, precision)
        if dtype == torch.float64 and widest(kind) != dtype:
            raise ValueError(f"precision 'float64' is none of {kind}'s: choose float32, or the cpu")
        return dtype
    if kind == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if fast else torch.float32
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, name, lambda: False)() for name in features)
    return torch.bfloat16 if fast and kind == "cpu" else torch.float32


def autocast(device: str, dtype: torch.dtype):
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype == torch.bfloat16)


def synchronize(device: str) -> None:
    """Wait for a GPU's work, so that a clock read now has seen it."""
    if device != "cpu":
        getattr(torch, torch.device(device).type).synchronize()
