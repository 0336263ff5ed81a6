"""Encode a large corpus once, into a folder of shards that training reads."""

import argparse
import sys

from sedd_mini.text.shards import prepare_shards


def main(arguments: list[str] | None = None) -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m sedd_mini prepare", description=__doc__, formatter_class=style
    )
    parser.add_argument("--data", required=True, help="file, folder, hub name, or 'docs'")
    parser.add_argument("--out", required=True, help="the folder to write")
    parser.add_argument("--tokenizer", default="gpt2", help="gpt2, bpe, chars, or a folder")
    parser.add_argument("--vocab-size", type=int, default=1024, help="tokens of a new bpe")
    parser.add_argument("--valid-fraction", type=float, default=0.05, help="share for validation")
    parser.add_argument("--shard-tokens", type=int, default=2**25, help="tokens per file, about")
    parser.add_argument("--column", default="text", help="the column that holds the text")
    parser.add_argument("--split", default="train", help="the split of a hub data set to read")
    parser.add_argument("--config", default=None, help="the configuration of a hub data set")
    given = vars(parser.parse_args(arguments))
    try:
        index = prepare_shards(given.pop("data"), given.pop("out"), **given)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    for part in ("train", "valid"):
        print(f"{part}: {index[part]['tokens']} tokens in {len(index[part]['shards'])} shards")
