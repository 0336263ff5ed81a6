"""The command line: python -m sedd_mini train | sample | prepare | plan (also as `sedd-mini`)."""

import argparse
import importlib
import sys

from sedd_mini.network.hardware import print_any_text

COMMANDS = {  # name → what it does; each is a file of sedd_mini/commands with a main(arguments)
    "train": "train a network on text, or go on with a run",
    "sample": "write text with a trained network, or fill gaps",
    "prepare": "encode a large corpus once, into shards",
    "plan": "what a run costs: arithmetic, memory, hours, money",
}


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    usage = "usage: python -m sedd_mini COMMAND [options]\n\n" + "\n".join(
        f"  {name:9s}{text}" for name, text in COMMANDS.items()
    ) + "\n\npython -m sedd_mini COMMAND --help tells its options"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return
    if arguments[0] not in COMMANDS:
        sys.exit(f"error: no command {arguments[0]!r}: choose one of {', '.join(COMMANDS)}")
    command = importlib.import_module(f"sedd_mini.commands.{arguments[0]}")
    if not hasattr(command, "add_arguments"):
        return command.main(arguments[1:])
    parser = argparse.ArgumentParser(
        f"python -m sedd_mini {arguments[0]}", description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.add_arguments(parser)
    options = parser.parse_args(arguments[1:])
    print_any_text()
    try:
        command.run(options)
    except (ValueError, TypeError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
