"""What a run costs, before it is started: arithmetic, memory, hours, money."""

import argparse
import sys

from sedd_mini.commands.options import number
from sedd_mini.text.offline import GPT2_TOKENS
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.training.planner import KINDS, MEASURED_UTILISATION, plan
from sedd_mini.training.settings import PRESETS, Settings, preset

SETTINGS = ("steps", "batch_size", "length", "graph", "parallel", "checkpoint_activations")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, whole = parser.add_argument, {"type": number(int, least=1), "metavar": "N"}
    add("--preset", default="small", choices=PRESETS, metavar="NAME",
        help=f"{', '.join(PRESETS)} [small]")  # fmt: skip
    add("--steps", **whole, help="optimiser steps, ≥ 1 [the preset's]")
    add("--batch-size", **whole, help="sequences a step, of all GPUs, ≥ 1 [the preset's]")
    add("--length", **whole, help="tokens a sequence, ≥ 1 [the preset's]")
    add("--graph", choices=("absorb", "uniform"), help="or the preset's")
    add("--num-tokens", **whole, help="vocabulary, ≥ 1 [the preset's; of small GPT-2's, 50257]")
    add("--parallel", choices=("ddp", "fsdp"), help="weights whole, or in shares [ddp]")
    add("--checkpoint-activations", action="store_true", default=None,
        help="recompute blocks in backward")  # fmt: skip
    add("--gpus", **whole, default=8, help="how many, ≥ 1 [8]")
    add("--kind", default="h100", choices=KINDS, metavar="NAME",
        help=f"of GPU: {', '.join(KINDS)} [h100]")  # fmt: skip
    add("--utilisation", type=number(float, above=0, most=1), default=0.4, metavar="X",
        help="assumed share of the data sheet's FLOPs, > 0 and ≤ 1 [0.4; measured on one H100 "
             f"without --compile: {MEASURED_UTILISATION}]")  # fmt: skip
    add("--price", type=number(float, least=0), metavar="X",
        help="of one GPU for one hour, in any currency, ≥ 0")  # fmt: skip


def vocabulary(settings: Settings) -> int:
    """Tokens that a run of the preset has: the language's, GPT-2's, or those of a new BPE."""
    if settings.data == "synthetic":
        return SyntheticLanguage().vocab_size
    return GPT2_TOKENS if settings.tokenizer == "gpt2" else settings.vocab_size


def run(options: argparse.Namespace) -> None:
    changes = {n: v for n in SETTINGS if (v := getattr(options, n)) is not None}
    settings = preset(options.preset, **changes)
    num_tokens = options.num_tokens or vocabulary(settings)
    print(plan(settings, options.gpus, options.kind, num_tokens, options.utilisation,
               options.price))  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    from sedd_mini.__main__ import main

    main(["plan", *(sys.argv[1:] if arguments is None else arguments)])
