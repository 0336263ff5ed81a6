"""What a run costs, before it is started: arithmetic, memory, hours, money."""

import argparse
import sys

from sedd_mini.training.planner import KINDS, plan
from sedd_mini.training.settings import preset


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sedd_mini plan", description=__doc__.splitlines()[0],
        epilog=f"kinds: {', '.join(KINDS)}",
    )  # fmt: skip
    add = parser.add_argument
    add("--preset", default="small", help="settings of the run (default: small)")
    add("--gpus", type=int, default=8, help="number of GPUs (default: 8)")
    add("--kind", default="h100", choices=KINDS, metavar="KIND", help="of GPU (default: h100)")
    add("--steps", type=int, help="optimiser steps (default: the preset's)")
    add("--batch-size", type=int, help="sequences a step, of all GPUs (default: the preset's)")
    add("--length", type=int, help="tokens a sequence (default: the preset's)")
    add("--num-tokens", type=int, default=50_257, help="vocabulary (default: GPT-2's, 50257)")
    add("--parallel", default="ddp", choices=("ddp", "fsdp"), help="weights whole, or in shares")
    add("--checkpoint-activations", action="store_true", help="recompute blocks in backward")
    add(
        "--utilisation",
        type=float,
        default=0.4,
        help="share of the data sheet's FLOPs that the run reaches (default: 0.4)",
    )
    add("--price", type=float, help="of one GPU for one hour, in any currency")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    given = vars(parse(arguments))
    names = ("steps", "batch_size", "length", "parallel", "checkpoint_activations")
    changes = {n: v for n in names if (v := given.pop(n)) is not None}
    try:
        print(plan(preset(given.pop("preset"), **changes), **given))
    except ValueError as error:
        sys.exit(f"error: {error}")
