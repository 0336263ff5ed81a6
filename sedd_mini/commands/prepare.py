"""Encode a large corpus once, into a folder of shards that training reads."""

import argparse
import sys

from sedd_mini.commands.options import filled, folder, number
from sedd_mini.text.shards import prepare_shards

TAKEN = ("tokenizer", "vocab_size", "valid_fraction", "shard_tokens", "column", "split", "config")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add, text = parser.add_argument, {"type": filled, "metavar": "NAME"}
    add("--data", required=True, **text, help="file, folder, hub name, or docs")
    add("--out", required=True, type=folder, metavar="FOLDER", help="the folder to write")
    add("--tokenizer", default="gpt2", **text, help="gpt2, bpe, chars, or a folder [gpt2]")
    add("--vocab-size", type=number(int, least=257), metavar="N",
        help="tokens of a new bpe, ≥ 257 [1024]")  # fmt: skip
    add("--valid-fraction", type=number(float, above=0, below=1), default=0.05, metavar="X",
        help="share for validation, > 0 and < 1 [0.05]")  # fmt: skip
    add("--shard-tokens", type=number(int, least=1000, most=2**32), default=2**25, metavar="N",
        help="tokens a file, about, 1000 to 4294967296 [33554432]")  # fmt: skip
    add("--column", default="text", **text, help="the column that holds the text [text]")
    add("--split", default="train", **text, help="the split of a hub data set to read [train]")
    add("--config", **text, help="the configuration of a hub data set")


def run(options: argparse.Namespace) -> None:
    index = prepare_shards(options.data, options.out, **{n: getattr(options, n) for n in TAKEN})
    for part in ("train", "valid"):
        print(f"{part}: {index[part]['tokens']:,} tokens in {len(index[part]['shards'])} shards")
    share = index["valid"]["tokens"] / (index["train"]["tokens"] + index["valid"]["tokens"])
    print(f"{index['documents']:,} documents, {share:.1%} of the tokens for validation")
    if (seen := index.get("seen_13grams")) is not None:
        print(f"{seen:.1%} of the 13-grams of the validation text occur in the training text")


def main(arguments: list[str] | None = None) -> None:
    from sedd_mini.__main__ import main

    main(["prepare", *(sys.argv[1:] if arguments is None else arguments)])
