"""Preparing shards: seconds and peak memory, as the corpus grows.

    python tests/benchmarks/prepare_shards.py --data FOLDER --tokenizer gpt2 [--shard-tokens 50000]

The documents of a folder (or of any other source) are prepared once, twice over and four times
over; every copy ends in its number, so that no two texts are the same. Each preparation has a
process of its own, which tells its seconds, without those that imports take, and its peak of
resident memory, also without what the imports took (Linux). Shards are small, so that they hide no
growth. Goal, for 7.4 MB of books, GPT-2's tokens and 2 cores: 30 seconds, and memory that stays as
the corpus doubles.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sedd_mini.text.blocks import cut
from sedd_mini.text.documents import load_documents
from sedd_mini.text.shards import PIECE, prepare_shards


def write_copies(source: str, folder: Path, copies: int) -> None:
    """The documents, in the pieces that preparation would cut, `copies` times, a file each."""
    folder.mkdir()
    pieces = (piece for document in load_documents(source) for piece in cut(document, PIECE))
    for i, piece in enumerate(pieces):
        for k in range(copies):
            (folder / f"{i:05d}-{k}.txt").write_text(f"{piece}\n\n{k}\n", encoding="utf-8")


def prepare(args) -> dict:
    """What one preparation takes; in a process that has done nothing else."""
    before = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    start = time.perf_counter()
    options = {"shard_tokens": args.shard_tokens, "progress": False}
    index = prepare_shards(args.data, args.out, args.tokenizer, **options)
    return {
        "characters": sum(index[part]["characters"] for part in ("train", "valid")),
        "tokens": sum(index[part]["tokens"] for part in ("train", "valid")),
        "shards": sum(len(index[part]["shards"]) for part in ("train", "valid")),
        "seconds": time.perf_counter() - start,
        "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "before": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of texts, or another source")
    parser.add_argument("--tokenizer", default="gpt2", help="gpt2, or the folder of a tokeniser")
    parser.add_argument("--shard-tokens", type=int, default=50_000, help="tokens per file, about")
    parser.add_argument("--out", help="for inner use")
    args = parser.parse_args()
    if args.out:
        print(json.dumps(prepare(args)))
        return
    print(f"{'copies':>6} {'MB text':>8} {'tokens':>10} {'shards':>6} {'seconds':>8} {'ratio':>6} "
          f"{'peak MB':>8} {'ratio':>6} {'own MB':>7} {'ratio':>6}")  # fmt: skip
    first = None
    for copies in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            texts, out = Path(folder) / "texts", Path(folder) / "out"
            write_copies(args.data, texts, copies)
            command = [sys.executable, __file__, "--data", str(texts), "--out", str(out)]
            command += ["--tokenizer", args.tokenizer, "--shard-tokens", str(args.shard_tokens)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        found["own"] = found["peak"] - found["before"]
        first = first or found
        ratio = {name: found[name] / first[name] for name in ("seconds", "peak", "own")}
        print(f"{copies:6d} {found['characters'] / 1e6:8.2f} {found['tokens']:10d} "
              f"{found['shards']:6d} {found['seconds']:8.2f} {ratio['seconds']:6.2f} "
              f"{found['peak'] / 1e6:8.0f} {ratio['peak']:6.2f} "
              f"{found['own'] / 1e6:7.0f} {ratio['own']:6.2f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
