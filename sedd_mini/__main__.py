"""The command line: python -m sedd_mini train | sample | prepare | plan (also as `sedd-mini`)."""

import importlib
import sys

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
    importlib.import_module(f"sedd_mini.commands.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    main()
