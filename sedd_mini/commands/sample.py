"""Write text with a trained network, and fill gaps.

python -m sedd_mini sample --checkpoint RUN --num 3
python -m sedd_mini sample --checkpoint RUN --prompt "Return the" --length 60
python -m sedd_mini sample --checkpoint RUN --text "The ____ raises an ____." --show
"""

import argparse
import sys
from pathlib import Path

import torch

from sedd_mini.model import template
from sedd_mini.network.hardware import print_any_text
from sedd_mini.network.pretrained import find_folder, load_pretrained
from sedd_mini.samplers import sample
from sedd_mini.text.tokenizers import load_tokenizer, make_tokenizer

GROUP = 2**28  # the most log-scores at a time: 1 GiB in float32


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sedd_mini sample", description="Write text with a trained network.",
    )  # fmt: skip
    add = parser.add_argument
    add("--checkpoint", required=True, help="training folder, network folder, or a hub name")
    add("--tokenizer", help='folder of a tokeniser, or "gpt2" (default: the one in the checkpoint)')
    add("--prompt", default="", help="text that the samples begin with")
    add("--suffix", default="", help="text that they end with")
    add("--text", default="", help='text with gaps to fill: "The ____ raises an ____."')
    add("--gap", type=int, help="tokens a gap (default: by the number of underscores)")
    add("--length", type=int, help="tokens a sample (default: what the network was trained on)")
    add("--steps", type=int, default=128, help="sampling steps (default: %(default)s)")
    add("--sampler", default="tweedie", choices=["tweedie", "euler"], help="(default: %(default)s)")
    add("--num", type=int, default=1, help="how many samples (default: %(default)s)")
    add("--seed", type=int, default=0, help="of all that is random (default: %(default)s)")
    add("--show", action="store_true", help="show the text as it forms, in the terminal")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[str]:
    """The samples as text."""
    if options.text and options.length:
        raise ValueError("--length is for a prompt and a suffix: a text with gaps has its own")
    if options.gap and not options.text:
        raise ValueError("--gap is for gaps in a --text: after a prompt, --length decides")
    if options.length is not None and options.length < 1:
        raise ValueError(f"--length must be at least 1, got {options.length}")
    if not 0 <= options.seed < 2**63:
        raise ValueError(f"--seed must be from 0 to 2^63 - 1, got {options.seed}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {options.device}: PyTorch sees no GPU here; give cpu")
    model, graph, noise = load_pretrained(options.checkpoint, options.device)
    tokenizer = read_tokenizer(options)
    if tokenizer.vocab_size != graph.num_tokens:
        raise ValueError(
            f"the tokeniser has {tokenizer.vocab_size} tokens, the network {graph.num_tokens}: "
            "give --tokenizer the one that the network was trained with"
        )
    length = options.length or model.config.length
    given = template(
        tokenizer, options.prompt, options.text, options.suffix, length, options.gap
    )  # fmt: skip
    if len(given) > model.config.length:
        raise ValueError(
            f"{len(given)} tokens are more than the {model.config.length} of the network"
        )
    generator = torch.Generator(options.device).manual_seed(options.seed)
    group = max(1, GROUP // (len(given) * graph.num_states))

    def show(step, t, x):
        sys.stderr.write("\x1b[2J\x1b[H" + f"step {step}, t = {float(t):.3f}\n\n")
        sys.stderr.write(tokenizer.decode(x[0].tolist()) + "\n")

    texts = []
    while len(texts) < options.num:
        x = sample(
            model, graph, noise, (min(group, options.num - len(texts)), len(given)), options.steps,
            method=options.sampler, clamp=given.to(options.device), generator=generator,
            callback=show if options.show else None,
        )  # fmt: skip
        texts += [tokenizer.decode(row) for row in x.tolist()]
    return texts


def read_tokenizer(options: argparse.Namespace):
    if options.tokenizer == "gpt2":
        from sedd_mini.text.tokenizers import gpt2_tokenizer

        return gpt2_tokenizer()
    if options.tokenizer:
        return make_tokenizer(Path(options.tokenizer), ())
    try:
        return load_tokenizer(find_folder(options.checkpoint))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}. Say which one the network was trained with: --tokenizer gpt2 for the "
            "released weights, or a folder"
        ) from error


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    print_any_text()
    try:
        texts = run(options)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    for i, text in enumerate(texts, 1):
        if len(texts) > 1:
            print(f"--- sample {i} of {len(texts)}")
        print(text)
