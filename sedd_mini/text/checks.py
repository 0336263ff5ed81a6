"""Checks of what a caller gives: numbers in their range, paths that a file can have.

Each raises at once, in one line that names the argument, what was given and what was expected.
"""

import math
import operator
from pathlib import Path


def whole_number(name: str, value, least: int, most: int | None = None) -> int:
    """The value as an int; ValueError unless it is a whole number from `least` to `most`."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        until = "" if most is None else f" and at most {most}"
        raise ValueError(f"{name} must be a whole number, at least {least}{until}, got {value!r}")
    return number


def share(name: str, value, zero: bool = False) -> float:
    """The value as a float; ValueError unless it lies strictly between 0 and 1, or, with `zero`, is
    0."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not right or not (0 < value < 1 or (zero and value == 0)):
        where = "in [0, 1)" if zero else "strictly between 0 and 1"
        raise ValueError(f"{name} must be a number {where}, got {value!r}")
    return float(value)


def local_path(given: str | Path) -> Path:
    """The path with "~" replaced; ValueError for one that no file can have (an unknown user, a NUL,
    a name that is too long or is no UTF-8)."""
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
