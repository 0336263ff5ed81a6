"""Checks of what a caller gives: numbers in their range, paths that a file can have.

Each raises at once, in one line that names the argument, what was given and what was expected.
"""

import math
import operator
import os
from pathlib import Path


def whole_number(name: str, value, least: int | None = None, most: int | None = None) -> int:
    """The value as an int; ValueError unless it is a whole number from `least` to `most`."""
    try:
        number = None if type(value).__name__ in ("bool", "bool_") else operator.index(value)
    except (TypeError, RuntimeError):
        number = None
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if number is None or not low <= number <= high:
        limits = [f"{word} {x}" for word, x in (("at least", least), ("at most", most))
                  if x is not None]  # fmt: skip
        wanted = f", {' and '.join(limits)}" if limits else ""
        raise ValueError(f"{name} must be a whole number{wanted}, got {shown(value)}")
    return number


def real_number(name: str, value, above: float = -math.inf, below: float = math.inf) -> float:
    """The value as a float; ValueError unless it lies strictly between `above` and `below`."""
    try:
        number = math.nan if isinstance(value, str | bytes | bool) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        number = math.nan
    if not above < number < below:
        limits = [f"{word} {x:g}" for word, x in (("above", above), ("below", below))
                  if math.isfinite(x)]  # fmt: skip
        wanted = " and ".join(limits) or "finite"
        raise ValueError(f"{name} must be a number, {wanted}, got {shown(value)}")
    return number


def shown(value) -> str:
    """What it is, in one line of at most 60 characters."""
    return " ".join(repr(value).split())[:60]


def share(name: str, value, zero: bool = False) -> float:
    """The value as a float strictly between 0 and 1, or, with `zero`, also 0; else ValueError."""
    if zero and real_number(name, value) == 0:
        return 0.0
    return real_number(name, value, 0, 1)


def real_tensor(name: str, value):
    """The value, a real number or several, as a tensor of float32 or wider; else TypeError."""
    import torch  # here, as the commands check paths without it

    try:
        tensor = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.is_complex() or tensor.dtype == torch.bool:
        kind = type(value).__name__ if tensor is None else tensor.dtype
        raise TypeError(f"{name} must be a real number or a tensor of them, got {kind}") from None
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def graph_and_noise(graph, noise, model=len) -> None:
    """Raises TypeError unless they have the methods of those in graphs.py and noise.py; and for a
    model that is no function."""
    if isinstance(model, type) or not callable(model):
        raise TypeError(f"model must be a function model(x, sigma, at=mask), got {shown(model)}")
    pairs = ("graph", graph, "sample_transition"), ("noise", noise, "total")
    for name, value, method in pairs:
        if isinstance(value, type) or not callable(getattr(value, method, None)):
            made = ", not a class" if isinstance(value, type) else ""
            raise TypeError(f"{name} must be as those of {name}{'s' * (name == 'graph')}.py{made}, "
                            f"got {shown(value)}")  # fmt: skip


def bound_is_infinite(model, graph) -> bool:
    """What the model says of itself by a method of that name; False where it has none."""
    return bool(getattr(model, "bound_is_infinite", lambda graph: False)(graph))


def named(given: str | Path) -> Path:
    """The path of that name; TypeError for what is no text and no path."""
    if not isinstance(given, str | os.PathLike):
        raise TypeError(f"a file or folder must be named by a text or a Path, got {shown(given)}")
    return Path(given)


def local_path(given: str | Path) -> Path:
    """The path with "~" replaced; ValueError for one that no file can have (an unknown user, a NUL,
    a name that is too long or is no UTF-8); TypeError for what is no text and no path."""
    named(given)
    try:
        text = str(given)
        if not text.strip():
            raise ValueError("it is empty")
        text.encode()  # a name that is no UTF-8 came in with surrogates, and no JSON could hold it
        path = Path(given).expanduser()
        path.exists()
        if "\0" in text:  # which exists() passes over
            raise ValueError("it holds a NUL")
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{ascii(str(given))[:200]} is no path of a file: {reason}") from None
    return path


def one_line(error: Exception) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
