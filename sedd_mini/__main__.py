"""The command line: python -m sedd_mini COMMAND [options] (also as `sedd-mini`).

A command is a file of sedd_mini/commands with `add_arguments(parser)` and `run(options)`. This is
the one place that turns a user's mistake into one line and an exit code: 2 for the command line, 1
for what was found while running, 130 after Ctrl-C, 141 (quietly) where nobody reads the output.
"""

import argparse
import contextlib
import importlib
import os
import shlex
import signal
import sys
import threading
import traceback
import warnings

from sedd_mini.commands.options import Parser, fail, mistake, shortened, silence

COMMANDS = {
    "train": "train a network on text, or go on with a run",
    "sample": "write text with a trained network, or fill gaps",
    "evaluate": "bounds on text, zero-shot data sets, generated text",
    "prepare": "encode a large corpus once, into shards",
    "plan": "what a run costs: arithmetic, memory, hours, money",
    "doctor": "what is installed here, and what runs on this machine",
}
USAGE = "\n".join([
    "usage: python -m sedd_mini COMMAND [options]", "",
    *(f"  {name:9s}{text}" for name, text in COMMANDS.items()), "",
    "python -m sedd_mini COMMAND --help tells its options. A mistake is told in one line;",
    "the environment variable SEDD_MINI_TRACEBACK=1 shows where in the program it was found.",
])  # fmt: skip


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of a command line, `run`, the function that gets them, and `command`."""
    name, *rest = arguments
    if name not in COMMANDS:
        fail(f"no command {shortened(name)!r}: choose one of {', '.join(COMMANDS)}", 2)
    for argument in rest:
        if any("\ud800" <= c <= "\udfff" or c == "\0" for c in argument):
            fail(f"{shortened(argument)!r} is not UTF-8 text: convert it, or rename the file", 2)
    command = importlib.import_module(f"sedd_mini.commands.{name}")
    parser = Parser(name, command.__doc__.splitlines()[0])
    command.add_arguments(parser)
    options = parser.parse_args(rest)
    options.run = command.run
    options.command = shlex.join(["python", "-m", "sedd_mini", *arguments])
    return options


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with ending_at_ctrl_c():
        run_command(arguments)


def run_command(arguments: list[str]) -> None:
    options, ended, usual = None, None, warnings.formatwarning
    try:
        print_any_text()
        warnings.formatwarning = note_of(usual)
        try:
            if not arguments or arguments[0] in ("-h", "--help"):
                print(USAGE)
            else:
                options = parse(arguments)
                options.run(options)
        except SystemExit as end:  # after --help, or of a mistake, which has been told already
            ended = end
        if sys.stdout:
            sys.stdout.flush()  # here, where one can tell that it failed
        if ended:
            raise ended
    except KeyboardInterrupt:
        fail("interrupted", 130, first="")
    except BrokenPipeError:
        silence()
        sys.exit(141)
    except Exception as error:
        line = mistake(error, getattr(options, "out", None))
        if line is None:
            raise
        if os.environ.get("SEDD_MINI_TRACEBACK"):
            traceback.print_exc()
        fail(line)
    finally:
        warnings.formatwarning = usual


@contextlib.contextmanager
def ending_at_ctrl_c():
    """Let `interrupted` answer Ctrl-C, where Python's own handler would (and may be replaced)."""
    usual = signal.getsignal(signal.SIGINT)
    ours = usual is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


def interrupted(number: int, frame) -> None:
    """KeyboardInterrupt; but within an import the end at once, as some packages swallow it there.

    Such is PyTorch, which looks for NumPy and goes on without it whatever the reason.
    """
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            with contextlib.suppress(OSError):
                os.write(2, b"interrupted\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def print_any_text() -> None:
    """Let the output replace what its encoding lacks (Windows, redirected), instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def note_of(usual):
    """How a warning is printed: one line, where it is ours and meant for the user."""

    def shown(message, category, filename, *rest) -> str:
        if category is UserWarning and "sedd_mini" in str(filename):
            return f"note: {message}\n"
        return usual(message, category, filename, *rest)

    return shown


if __name__ == "__main__":
    main()
