"""What the tests of all assignments share; it is handed out with them.

A test is a function of a student's answer that returns points. It checks one claim after another,
each as a part of its own, so that a mistake in one claim leaves the points of the others.
"""

import contextlib
import io
import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SECONDS = 10  # of computing that one part may take
SECONDS_AFTER = 1  # that the other parts of a test may take after one that took too long


class Marks:
    """Points of one test cell, earned part by part.

    points: what the cell is worth; each part has a weight, and the weights share out the points.
    Every test starts from float32 and seed 0, whatever was set before.
    """

    def __init__(self, points: float):
        self.points, self.kept, self.weights = points, 0.0, 0.0
        self.seconds = SECONDS
        torch.set_default_dtype(torch.float32)
        torch.manual_seed(0)

    @contextmanager
    def part(self, weight: float, claim: str) -> Iterator[None]:
        """The block earns `weight` if it ends without an error; else it says what was wrong.

        Whatever the answer raises loses this part and no other. What it prints is dropped: a
        warning in a test cell would count as a failure.
        """
        self.weights += weight
        try:
            with quiet(), time_limit(self.seconds):
                yield
        except NotImplementedError as error:
            reason = str(error) or "not written yet"
        except AssertionError as error:
            reason = str(error) or "this does not hold"
        except TookTooLong:
            reason = f"stopped after {self.seconds} s of computing"
            self.seconds = SECONDS_AFTER
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            self.kept += weight
            return
        print(f"Not yet: {claim}. {reason}")

    def total(self) -> float:
        """The points earned, for the last line of a test cell; prints them in words."""
        all_kept = self.kept == self.weights
        earned = self.points if all_kept else round(self.points * self.kept / self.weights, 2)
        print(f"{earned:g} of {self.points:g} points")
        return float(earned)


class TookTooLong(BaseException):
    """Not an Exception, so that `except Exception` in an answer's loop does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLong in the block after so many seconds of the processor, so that a busy machine
    costs no points (not on Windows, nor in a thread)."""
    if not hasattr(signal, "SIGPROF") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        raise TookTooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Limited(io.StringIO):
    """Keeps nothing of what is printed to it."""

    def write(self, text: str) -> int:
        return len(text)


@contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(Limited()), contextlib.redirect_stderr(Limited()):
        yield


def close(got, want, what: str, tol: float = 1e-4) -> None:
    """Assert that `got` has the shape of `want` and its values within tol · (1 + |want|).

    Both may be numbers, nested lists or tensors. AssertionError says what differs.
    """
    want = torch.as_tensor(want, dtype=torch.float64).detach()
    try:
        got = torch.as_tensor(got, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise AssertionError(f"{what} is {show(got)}, not numbers or a tensor") from None
    assert got.shape == want.shape, (
        f"{what} has shape {tuple(got.shape)}, and should have {tuple(want.shape)}"
    )
    assert not got.isnan().any(), f"{what} holds NaN"
    far = (got != want) & ~((got - want).abs() <= tol * (1 + want.abs()))
    if far.any():
        place = tuple(far.nonzero()[0].tolist())
        where = f"{what} at {place}" if place else what
        raise AssertionError(f"{where} is {got[place]:.6g}, and should be {want[place]:.6g}")


def show(value, length: int = 60) -> str:
    """A value in a line of at most `length` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def term(folder: Path | None = None) -> dict:
    """This term's world for the problem called `term`: the file term.json beside this one."""
    folder = Path(__file__).parent if folder is None else folder
    return json.loads((folder / "term.json").read_text(encoding="utf-8"))


def expected(hidden: str) -> dict:
    """This term's answers, beside hiddenN.py: `expected(__file__)` there. Students have no copy."""
    path = Path(hidden)
    name = path.stem.replace("hidden", "expected") + ".json"
    return json.loads(path.with_name(name).read_text(encoding="utf-8"))
