"""What the commands share: numbers with ranges, help that fits a screen, errors in one line.

A mistake in a command line is found while it is read, by the types below; what only running can
find is raised as an exception, which `mistake` puts into one line. A bug is neither.
"""

import argparse
import contextlib
import dis
import errno
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

LESS_MEMORY = "less at a time takes less: a smaller --batch-size, --length or --num"
COMPILER = ("install a C++ compiler (Debian: apt install g++; Mac: xcode-select --install; "
            "Windows: Visual Studio Build Tools), or leave --compile out")  # fmt: skip


def number(
    kind: type, least: float | None = None, most: float | None = None,
    above: float | None = None, below: float | None = None,
) -> Callable[[str], float]:  # fmt: skip
    """An argparse type: an int or float within its range, `least` and `most` included."""
    what = "a whole number" if kind is int else "a number"
    bounds = ((least, "from"), (above, "above"), (most, "to"), (below, "below"))
    range_ = " ".join(f"{word} {bound}" for bound, word in bounds if bound is not None)
    expected = f"expected {what} {range_}".rstrip()

    def convert(text: str) -> float:
        try:
            value = kind(text) if text.isascii() else math.nan  # int() reads any script's digits
        except ValueError:
            value = math.nan
        fits = (
            (abs(value) < 2**63 if kind is int else math.isfinite(value))
            and (least is None or value >= least) and (most is None or value <= most)
            and (above is None or value > above) and (below is None or value < below)
        )  # fmt: skip
        if not fits:
            raise argparse.ArgumentTypeError(f"{expected}, got {shortened(text)!r}")
        return value

    return convert


def span(least=None, most=None, above=None, below=None) -> str:
    """A range as the help shows it: "≥ 1", "0 to 1", "> 0"."""
    most = most if most is None or most < 1e5 else None  # no limit that anybody meets
    low = f"≥ {least}" if least is not None else f"> {above}" if above is not None else ""
    high = f"≤ {most:g}" if most is not None else f"< {below}" if below is not None else ""
    if least is not None and most is not None:
        return f"{least} to {most:g}"
    return " and ".join(filter(None, (low, high)))


def yes_or_no(text: str) -> bool:
    """An argparse type for `--compile`, with nargs="?", and `--compile false`."""
    if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise argparse.ArgumentTypeError(f"expected 1, true, yes, 0, false or no, got {text!r}")
    return text.lower() in ("1", "true", "yes")


def filled(text: str) -> str:
    """An argparse type: a text that is not blank. (A path "" would be the current folder.)"""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected a name, got {text!r}")
    return text


def folder(text: str) -> str:
    """An argparse type: a path that can be made, `~` resolved."""
    try:
        path = Path(filled(text)).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"there is no home of that user: {text!r}") from None
    if any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise argparse.ArgumentTypeError(f"a name is longer than 255 bytes: {shortened(text)!r}")
    return str(path)


def shortened(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[:most] + "…"


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line, and the help says one option a line or two."""

    def __init__(self, name: str, description: str):
        prog = f"python -m sedd_mini {name}"
        super().__init__(prog, allow_abbrev=False, add_help=False, description=description)
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        fail(f"{message} ({self.prog} --help tells the options)", 2)

    def print_help(self, file=None) -> None:
        print(self.format_help(), end="", file=file)  # argparse's own passes over a full disk

    def format_help(self) -> str:
        width = min(shutil.get_terminal_size((100, 40)).columns, 100)
        lines = textwrap.wrap(self.description or "", width)
        lines.insert(0, f"usage: {self.prog} [-h] [options]")
        for group in self._action_groups:
            items = [(flag_of(a), (a.help or "") % vars(a)) for a in group._group_actions
                     if a.help != argparse.SUPPRESS]  # fmt: skip
            if items:
                lines += [] if group.title == "options" else [group.title]
                lines += table(items, width)
        if self.epilog:
            lines += self.epilog.splitlines()
        return "\n".join(lines) + "\n"


def flag_of(action: argparse.Action) -> str:
    """An option as the help names it: "--steps N"."""
    name = ", ".join(action.option_strings) or action.dest
    if action.nargs == 0:
        return name
    choices = "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    value = action.metavar if action.metavar is not None else choices
    return f"{name} {value}".rstrip()


def table(items: list[tuple[str, str]], width: int) -> list[str]:
    """Flags and their texts, an option a line; two neighbours that are short share one."""
    left, second, items, lines = 22, 58, list(items), []
    while items:
        flag, text = items.pop(0)
        row = f"  {flag:<{left}}{' ' * (len(flag) >= left)}{text}"
        beside = "  ".join(items[0]) if items else ""
        if beside and len(row) <= second - 2 and second + len(beside) <= width:
            lines.append(f"{row:<{second}}{beside}")
            items.pop(0)
        else:
            lines += textwrap.wrap(row, width, subsequent_indent=" " * (left + 2),
                                   drop_whitespace=False, break_on_hyphens=False)  # fmt: skip
    return [line.rstrip() for line in lines]


# ---- mistakes ----------------------------------------------------------------------------------


def fail(message: str, code: int = 1, first: str = "error: ") -> NoReturn:
    """One line on stderr, then SystemExit with this code (and the line as its text)."""
    line = first + " ".join(message.split())
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    try:
        if sys.stdout:
            sys.stdout.flush()
    except (OSError, ValueError):
        silence()
    end = SystemExit(line)
    end.code = code
    raise end


def mistake(error: Exception, out: str | None = None) -> str | None:
    """What to tell the user of an error, without its traceback; None where it is a bug.

    `out` is the folder that the command writes, named where the system does not say which file.
    """
    said, kind = str(error).strip(), type(error)
    if out_of_memory(error):
        general = f"out of memory ({first_line(error)}): {LESS_MEMORY}"
        return said if raised_by_us(error) else general
    if isinstance(error, OSError):
        if error.errno is None or not error.strerror:
            return said
        if error.filename is None:  # of an open file: either what is written or what is printed
            name = f"{out}, or the printed output" if out else "the printed output"
        else:
            name = shortened(os.fsdecode(error.filename), 200)
        more = {errno.ENOSPC: ": free some space, or name another place"}.get(error.errno, "")
        return f"{error.strerror}: {name}{more}"
    if isinstance(error, ValueError | FloatingPointError):
        return said or kind.__name__
    if isinstance(error, TypeError) or kind is RuntimeError:  # as where another process died
        return said if raised_by_us(error) else None
    if isinstance(error, ImportError) and not (error.name or "").startswith("sedd_mini"):
        return f"{said}: python -m sedd_mini doctor tells what is missing here"
    if kind.__name__ == "SafetensorError":  # of a file, and no OSError
        return f"{said}{f' (in {out})' if out else ''}"
    if kind.__module__.startswith(("torch._inductor", "torch._dynamo")) and "ompiler" in said:
        return f"--compile found no compiler that works ({first_line(error)}): {COMPILER}"
    return None


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return shortened(lines[0].rstrip(".: "), 200) if lines else type(error).__name__


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was asked for that is not there: of a GPU, of PyTorch on a CPU, of Python."""
    said = str(error).lower()
    signs = ("out of memory", "can't allocate memory", "defaultcpuallocator", "alloc_failed")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in said for sign in signs)
    )


def raised_by_us(error: BaseException) -> bool:
    """Whether a `raise` of this package made the error, and not an operation that went wrong."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None or "sedd_mini" not in Path(trace.tb_frame.f_code.co_filename).parts:
        return False
    return dis.opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def silence() -> None:
    """Let the end of Python not complain once more about a stdout that takes nothing."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
