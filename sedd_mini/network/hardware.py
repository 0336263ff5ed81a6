"""What a machine can do: its fast number format, the arithmetic it reaches, the memory taken."""

import sys
import time

import torch


def print_any_text() -> None:
    """Let the output replace what its encoding lacks (Windows, redirected), instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def choose_precision(precision: str, device: str) -> torch.dtype:
    """ "auto" → bfloat16 where the hardware multiplies it fast."""
    if precision != "auto":
        return getattr(torch, precision)
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    fast = any(getattr(torch.cpu, name, lambda: False)() for name in features)
    return torch.bfloat16 if fast and device == "cpu" else torch.float32


def autocast(device: str, dtype: torch.dtype):
    return torch.autocast(device, dtype=dtype, enabled=dtype == torch.bfloat16)


def synchronize(device: str) -> None:
    """Wait for a GPU's work, so that a clock read now has seen it."""
    if device == "cuda":
        torch.cuda.synchronize()


def peak_flops(device: str, dtype: torch.dtype, size: int | None = None, repeats: int = 8) -> float:
    """FLOPs a second of a large square matrix product here, the fastest of `repeats`."""
    size = size or (8192 if device == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        a @ b
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def peak_memory(device: str) -> int | None:
    """The most bytes taken so far: by tensors on a GPU, by the process on a CPU; None: unknown."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
