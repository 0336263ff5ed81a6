"""The line that an exercise's check prints: not written yet, or right."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def exercise(name: str) -> Iterator[None]:
    """Run the checks of one exercise.

    A stub's bare `raise NotImplementedError` ends them quietly; every other error is a wrong
    answer and goes through, one that PyTorch raises for want of an operation included.
    """
    try:
        yield
    except NotImplementedError as error:
        if error.args:
            raise
        print(f"Exercise {name}: not written yet.")
    else:
        print(f"Exercise {name}: right.")
