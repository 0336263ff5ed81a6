"""Write text with a trained network, and fill gaps.

python -m sedd_mini sample --checkpoint RUN --num 3
python -m sedd_mini sample --checkpoint RUN --prompt "Return the" --length 60
python -m sedd_mini sample --checkpoint RUN --text "The ____ raises an ____." --show
python -m sedd_mini sample --checkpoint RUN --sampler confidence --steps 16

The same from Python: sedd_mini.load(RUN).write(...), .fill(...).
"""

import argparse
import sys
import warnings

from sedd_mini.commands.options import filled, number
from sedd_mini.model import TextNote, load
from sedd_mini.samplers import SAMPLERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add("--checkpoint", required=True, type=filled, metavar="NAME",
        help="training folder, network folder, or a hub name")  # fmt: skip
    add("--tokenizer", type=filled, metavar="NAME",
        help="gpt2, or the folder of a tokeniser [the one in the checkpoint]")  # fmt: skip
    add("--device", type=filled, metavar="NAME", help="[cuda, mps or cpu, the first that works]")
    add = parser.add_argument_group("text").add_argument
    add("--prompt", default="", metavar="TEXT",
        help="text that the samples begin with; a BPE leaves a space at its end to the next word; "
             "what the tokeniser lacks is replaced, and a note says so")  # fmt: skip
    add("--suffix", default="", metavar="TEXT", help="text that they end with")
    add("--text", default="", metavar="TEXT",
        help='text with gaps to fill: "The ____ raises an ____."')  # fmt: skip
    count = {"type": number(int, least=1), "metavar": "N"}
    add("--gap", **count, help="tokens a gap, ≥ 1 [by the number of underscores]")
    add("--length", **count, help="tokens a sample, ≥ 1 [what the network was trained on]")
    add = parser.add_argument_group("sampling").add_argument
    add("--num", **count, default=1, help="how many samples, ≥ 1 [1]")
    add("--steps", **count, default=128, help="sampling steps, ≥ 1 [128]")
    add("--sampler", default="tweedie", choices=[*SAMPLERS],
        help="tweedie, euler and corrector are for every graph, the others for the absorbing one "
             "(guidance: by a prompt or a text around gaps) [tweedie]")  # fmt: skip
    add("--seed", type=number(int, least=0), default=0, metavar="N",
        help="of all that is random, ≥ 0 [0]; sample i of a seed is the same whatever --num is"
    )  # fmt: skip
    add("--show", action="store_true", help="show the text as it forms, in the terminal")


def run(options: argparse.Namespace) -> None:
    """Print the samples; what a warning says of the texts is one line on stderr."""
    if options.text and options.length is not None:
        raise ValueError("--length is for a prompt and a suffix: a text with gaps has its own")
    if options.gap is not None and not options.text:
        raise ValueError("--gap is for gaps in a --text: after a prompt, --length decides")
    model = load(options.checkpoint, options.device, options.tokenizer)

    def show(step, t, x):
        sys.stderr.write("\x1b[2J\x1b[H" + f"step {step}, t = {float(t):.3f}\n\n")
        sys.stderr.write(model.tokenizer.decode(x[0].tolist()) + "\n")

    common = {
        "num": options.num, "steps": options.steps, "seed": options.seed,
        "sampler": options.sampler, "callback": show if options.show else None,
    }  # fmt: skip
    with warnings.catch_warnings():
        show_warning = warnings.showwarning
        warnings.simplefilter("always", TextNote)
        warnings.showwarning = lambda message, kind, *rest, **more: (
            print(f"note: {message}", file=sys.stderr)
            if kind is TextNote else show_warning(message, kind, *rest, **more)
        )  # fmt: skip
        if options.text:
            texts = model.fill(options.text, gap=options.gap, **common)
        else:
            texts = model.write(
                length=options.length, prompt=options.prompt, suffix=options.suffix, **common
            )
    for i, text in enumerate(texts, 1):
        if len(texts) > 1:
            print(f"--- sample {i} of {len(texts)}")
        print(text)


def main(arguments: list[str] | None = None) -> None:
    from sedd_mini.__main__ import main

    main(["sample", *(sys.argv[1:] if arguments is None else arguments)])
