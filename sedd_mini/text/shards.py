"""Corpora that do not fit in memory: tokens on disk, prepared once, read through memory maps.

    python -m sedd_mini prepare --data SOURCE --tokenizer gpt2 --out FOLDER

writes a folder that `load_corpus` and `python -m sedd_mini train --data FOLDER` take as a source:

    shards.json        what was prepared, how far, and the list of shards
    tokenizer.json     the tokeniser
    train-00000.npy …  successive parts of one stream of tokens, end-of-text between documents
    valid-00000.npy …

A run that was interrupted goes on after the last whole shard when the same command is given again:
it remembers the place in the source, and does not read what lies before. If a local file has
another time of change since then, what was read is read once more and compared by its hash.
"""

import hashlib
import json
import re
import sys
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sedd_mini.checks import local_path, share, whole_number
from sedd_mini.files import check_writable, lock, write_json
from sedd_mini.text.blocks import Blocks, encode_documents, warn_of_share
from sedd_mini.text.copies import cut, seen_share
from sedd_mini.text.documents import files_of, read_documents
from sedd_mini.text.hashes import corpus_hash, framed, split_hash
from sedd_mini.text.shard_files import (
    INDEX,
    PARTS,
    SHARD,
    open_shards,
    read_index,
    write_shards,
)
from sedd_mini.text.tokenizers import (
    BPE_TOKENS,
    FILE_NAME,
    Tokenizer,
    load_tokenizer,
    make_tokenizer,
    tokenizer_hash,
)

PIECE = 50_000  # characters; longer documents are cut, so that books can be shared out
RULES = 2  # how documents are cut and shared out: raised when that changes
START = {"at": None, "piece": 0}  # a place: of a document in the source, of a piece in that
LEFT_OVER = re.compile(r"\.(train|valid)-\d{5,}\.npy\.\d+\.tmp")  # by one that was killed


def prepare_shards(
    source: str | Path,
    out: str | Path,
    tokenizer: str | Path | Tokenizer = "gpt2",
    *,
    vocab_size: int | None = None,
    valid_fraction: float = 0.05,
    split_seed: int = 0,
    shard_tokens: int = 2**25,
    column: str = "text",
    split: str = "train",
    config: str | None = None,
    progress: bool = True,
) -> dict:
    """Encodes a source into shards of about `shard_tokens` tokens; returns the index.

    A document longer than 75 000 characters is first cut at paragraph ends into pieces of about
    50 000, each a document from then on. One goes to validation if a hash of its text, in [0, 1),
    lies below `valid_fraction`; of fewer than 200 documents, the nearest whole number with the
    smallest hashes goes, but at least one. Copies (see `split_documents`) go together, and a text
    that is there twice is cut alike. So nothing has to be in memory but one shard, whatever the
    corpus. A tokeniser "bpe" is trained on the first 2 000 training documents.

    The index tells `seen_13grams` (see `seen_share`), for which all tokens are read once more at
    the end, some 10 million a second. Raises ValueError when the folder is in use, or holds what
    was prepared in another way or from a source that has changed, and when there is no document
    for one of the parts.
    """
    options = {
        "source": str(source), "column": column, "split": split, "config": config,
        "valid_fraction": share("valid_fraction", valid_fraction),
        "split_seed": whole_number("split_seed", split_seed, 0),
        "shard_tokens": whole_number("shard_tokens", shard_tokens, 1),
        "piece": PIECE, "rules": RULES,
    }  # fmt: skip
    local_path(source)
    if vocab_size is not None:
        vocab_size = whole_number("vocab_size", vocab_size, 1)
    out = check_writable(local_path(out))
    if out.resolve() == local_path(source).resolve():
        raise ValueError(f"{out} is the source, and what is prepared would stand among its files: "
                         "name another folder (out=…, --out)")  # fmt: skip
    with lock(out):
        before = {path.name for path in out.iterdir()}
        try:
            index = begin(options, out, tokenizer, vocab_size)
            if not index["complete"]:
                encode_rest(index, out, progress)
        except Exception:
            names = {path.name for path in out.iterdir()}
            if not any(map(SHARD.fullmatch, names)):  # there is nothing to go on from
                for name in {INDEX, FILE_NAME} & names - before:
                    (out / name).unlink()
            raise
        return index


def read_pieces(options: dict, start: dict = START) -> Iterator[tuple[str, dict]]:
    """The documents, long ones in pieces, and after each the place where reading can go on."""
    names = ("source", "column", "split", "config")
    at, skip = start["at"], start["piece"]
    for document, after in read_documents(*(options[name] for name in names), at):
        pieces = list(cut(document, PIECE))
        for i, piece in enumerate(pieces[skip:], skip + 1):
            yield piece, {"at": after, "piece": 0} if i == len(pieces) else {"at": at, "piece": i}
        at, skip = after, 0


def begin(options: dict, out: Path, tokenizer, vocab_size: int | None) -> dict:
    """The index of a preparation, new or as far as it was; the tokeniser lies beside it."""
    options = options | {"files": fingerprint(options["source"], options["split"])}
    times = times_of_change(options["source"], options["split"])
    kind = str(tokenizer) if isinstance(tokenizer, str | Path) else type(tokenizer).__name__
    asked = (BPE_TOKENS if vocab_size is None else vocab_size) if kind == "bpe" else None
    if (out / INDEX).exists():
        index = read_index(out, options | {"tokenizer": kind})
        own = load_tokenizer(out)
        if tokenizer_hash(own) != index["settings"]["tokenizer_sha256"]:
            raise ValueError(f"{out / FILE_NAME} is not what it was at first: name a new folder")
        if kind not in ("bpe", "chars", "gpt2"):  # a folder may hold another one by now
            made = make_tokenizer(tokenizer, (), vocab_size)
            if tokenizer_hash(made) != index["settings"]["tokenizer_sha256"]:
                raise ValueError(
                    f"the tokeniser {kind} is another one than that which {out} was prepared with: "
                    "name another folder (out=…, --out)"
                )
        elif kind == "bpe" and asked != index["settings"]["vocab_size"]:
            raise ValueError(
                f"{out} was prepared with vocab_size={index['settings']['vocab_size']}, not "
                f"{asked}: give the same to go on, or another folder (out=…, --out)"
            )
        if times != index["times"]:
            check_unchanged(index, out)
            index["times"] = times
            write_json(out / INDEX, index)
        return index
    if taken := sorted(p.name for p in out.iterdir() if SHARD.fullmatch(p.name)):
        raise ValueError(
            f"{out} holds {taken[0]} but no {INDEX} that tells what it is, and preparing would "
            "overwrite it: name another folder (out=…, --out)"
        )
    pieces = (piece for piece, _ in read_pieces(options))
    threshold = choose_threshold(pieces, options["valid_fraction"], options["split_seed"])
    pieces = (piece for piece, _ in read_pieces(options))
    texts = (text for text in pieces if split_hash(text, options["split_seed"]) >= threshold)
    made = make_tokenizer(tokenizer, islice(texts, 2000), vocab_size)
    if (out / FILE_NAME).exists() and tokenizer_hash(load_tokenizer(out)) != tokenizer_hash(made):
        raise ValueError(
            f"{out} holds another tokeniser, which preparing would overwrite: name another folder "
            "(out=…, --out)"
        )
    settings = {"tokenizer": kind, "tokenizer_sha256": tokenizer_hash(made), "vocab_size": asked}
    index = {"settings": settings | options | {"threshold": threshold}, "complete": False}
    index |= {"documents": 0, "place": START, "times": times, "read": []}
    index |= {part: {"shards": [], "tokens": 0, "characters": 0} for part in PARTS}
    made.save(out)
    write_json(out / INDEX, index)
    return index


def encode_rest(index: dict, out: Path, progress: bool) -> None:
    """Encodes what is left of the source, and writes it and the index, shard by shard."""
    for path in out.iterdir():
        if LEFT_OVER.fullmatch(path.name):
            path.unlink()
    settings, tokenizer = index["settings"], load_tokenizer(out)
    places, digest, written = deque(), hashlib.sha256(), index["documents"]

    def rest() -> Iterator[str]:
        for piece, place in read_pieces(settings, index["place"]):
            places.append(place)  # encoding reads ahead
            yield piece

    waiting, held = {part: [] for part in PARTS}, 0
    done = sum(index[part]["characters"] for part in PARTS)
    with tqdm(
        initial=done, unit="char", unit_scale=True, desc="preparing tokens",
        disable=not progress or sys.stderr is None,
    ) as bar:  # fmt: skip
        for document, ids in encode_documents(rest(), tokenizer):
            seed, threshold = settings["split_seed"], settings["threshold"]
            part = "valid" if split_hash(document, seed) < threshold else "train"
            if index[part]["tokens"] and tokenizer.eot_id is not None:
                ids = np.concatenate([np.array([tokenizer.eot_id], dtype=ids.dtype), ids])
            waiting[part].append(ids)
            held += len(ids)
            digest.update(framed(document))
            index[part]["tokens"] += len(ids)
            index[part]["characters"] += len(document)
            index["documents"] += 1
            index["place"] = places.popleft()
            bar.update(len(document))
            if held >= settings["shard_tokens"]:
                note_read(index, written, digest)
                digest, written, held = hashlib.sha256(), index["documents"], 0
                write_shards(out, index, waiting)
    for part in PARTS:
        if not index[part]["tokens"]:
            for shard in (shard for each in PARTS for shard in index[each]["shards"]):
                (out / shard["name"]).unlink(missing_ok=True)
            (out / INDEX).unlink()
            raise ValueError(
                f"none of {index['documents']} documents fell to {part}, for valid_fraction="
                f"{settings['valid_fraction']}: give another share (--valid-fraction)"
            )
    characters = [index[part]["characters"] for part in PARTS]
    warn_of_share(settings["valid_fraction"], characters[1] / sum(characters))
    note_read(index, written, digest)
    write_shards(out, index, waiting)
    arrays = [open_shards(out, index, part) for part in PARTS]
    index["seen_13grams"] = seen_share(*(Blocks(parts, 1) for parts in arrays))
    index["complete"] = True
    write_json(out / INDEX, index)


def note_read(index: dict, written: int, digest) -> None:
    """Adds the hash of the documents after the first `written` ones to the index."""
    if index["documents"] > written:
        number = index["documents"] - written
        index["read"].append({"documents": number, "sha256": digest.hexdigest()})


def check_unchanged(index: dict, out: Path) -> None:
    """Reads what was read, and raises ValueError unless it is the same as it was then."""
    pieces = (piece for piece, _ in read_pieces(index["settings"]))
    for part in index["read"]:
        if corpus_hash(islice(pieces, part["documents"])) != part["sha256"]:
            raise ValueError(
                f"{index['settings']['source']} has changed since {out} was prepared from it: name "
                "another folder (out=…, --out)"
            )


def local_files(source: str | Path, split: str) -> tuple[Path, list[Path]] | None:
    """A local source and the files that are read of it; None for what is not local."""
    path = local_path(source)
    if str(source) == "docs" or not path.exists():
        return None
    return path, files_of(path, split) if path.is_dir() else [path]


def fingerprint(source: str | Path, split: str) -> str | None:
    """SHA-256 of names and sizes of the local files that are read; None for what is not local."""
    if (found := local_files(source, split)) is None:
        return None
    path, files = found
    listing = json.dumps([[p.relative_to(path).as_posix(), p.stat().st_size] for p in files])
    return hashlib.sha256(listing.encode()).hexdigest()


def times_of_change(source: str | Path, split: str) -> str | None:
    """SHA-256 of when the local files were last changed; None for what is not local."""
    if (found := local_files(source, split)) is None:
        return None
    listing = json.dumps([[p.stat().st_mtime_ns, p.stat().st_ino] for p in found[1]])
    return hashlib.sha256(listing.encode()).hexdigest()


def choose_threshold(documents: Iterator[str], valid_fraction: float, seed: int) -> float:
    """The hash below which a document is for validation: of a small corpus, so that the number of
    documents below it, copies counted, is as near to the wanted one as their copies allow."""
    hashes = sorted(split_hash(document, seed) for document in islice(documents, 200))
    if len(hashes) == 200:
        return valid_fraction
    wanted = round(valid_fraction * len(hashes))
    possible = [n for n in range(1, len(hashes)) if hashes[n - 1] < hashes[n]]
    if not possible:
        raise ValueError(
            "a corpus of one document, or of copies of one, cannot be split: give it as it is to "
            "load_corpus, or to python -m sedd_mini train as --data, which cut it finer"
        )
    return hashes[min(possible, key=lambda n: abs(n - wanted))]
