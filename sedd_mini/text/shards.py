"""Corpora that do not fit in memory: tokens on disk, prepared once, read through memory maps.

    python -m sedd_mini prepare --data SOURCE --tokenizer gpt2 --out FOLDER

writes a folder that `load_corpus` and `python -m sedd_mini train --data FOLDER` take as a source:

    shards.json        what was prepared, how far, and the list of shards
    tokenizer.json     the tokeniser
    train-00000.npy …  successive parts of one stream of tokens, end-of-text between documents
    valid-00000.npy …

A run that was interrupted goes on after the last whole shard when the same command is given again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sedd_mini.files import write_json
from sedd_mini.text.blocks import Blocks, cut, encode_documents, split_hash
from sedd_mini.text.documents import files_of, load_documents
from sedd_mini.text.tokenizers import Tokenizer, load_tokenizer, make_tokenizer

INDEX = "shards.json"
PIECE = 50_000  # characters; longer documents are cut, so that books can be shared out


def prepare_shards(
    source: str | Path,
    out: str | Path,
    tokenizer: str | Path | Tokenizer = "gpt2",
    *,
    vocab_size: int = 1024,
    valid_fraction: float = 0.05,
    split_seed: int = 0,
    shard_tokens: int = 2**25,
    column: str = "text",
    split: str = "train",
    config: str | None = None,
    progress: bool = True,
) -> dict:
    """Encodes a source into shards of about `shard_tokens` tokens; returns the index.

    A document longer than 50 000 characters is first cut at paragraph ends into pieces, each a
    document from then on. One goes to validation if a hash of its text, in [0, 1), lies below
    `valid_fraction`; of fewer than 200 documents, the nearest whole number with the smallest hashes
    goes, but at least one, and copies of a text go together. So nothing has to be in memory but one
    shard, whatever the corpus. A tokeniser "bpe" is trained on the first 2 000 training documents.
    Raises ValueError when the folder holds what was prepared in another way, and when there is no
    document for one of the parts.
    """
    out = Path(out)

    def read() -> Iterator[str]:
        for document in load_documents(source, column=column, split=split, config=config):
            yield from cut(document, PIECE)

    threshold = choose_threshold(read(), valid_fraction, split_seed)
    if (out / INDEX).exists() and isinstance(tokenizer, str | Path):
        tokenizer, kind = load_tokenizer(out), str(tokenizer)
    else:
        kind = str(tokenizer) if isinstance(tokenizer, str | Path) else type(tokenizer).__name__
        texts = (d for d in read() if split_hash(d, split_seed) >= threshold)
        tokenizer = make_tokenizer(tokenizer, islice(texts, 2000), vocab_size)
    content = json.dumps(tokenizer.as_json(), sort_keys=True).encode()
    settings = {"tokenizer": kind, "tokenizer_sha256": hashlib.sha256(content).hexdigest()}
    settings |= {"source": str(source), "column": column, "split": split, "config": config}
    settings |= {
        "vocab_size": vocab_size if kind == "bpe" else None,
        "files": fingerprint(source, split),
    }
    settings |= {"shard_tokens": shard_tokens, "piece": PIECE}
    settings |= {"valid_fraction": valid_fraction, "split_seed": split_seed, "threshold": threshold}
    if (out / INDEX).exists():
        index = read_index(out, settings)
    else:
        index = {"settings": settings, "complete": False, "documents": 0}
        index |= {part: {"shards": [], "tokens": 0, "characters": 0} for part in ("train", "valid")}
        tokenizer.save(out)
        write_json(out / INDEX, index)
    if index["complete"]:
        return index

    waiting = {"train": [], "valid": []}
    rest = islice(read(), index["documents"], None)
    done = sum(index[part]["characters"] for part in waiting)
    bar = tqdm(
        initial=done, unit="char", unit_scale=True, desc="preparing tokens", disable=not progress
    )
    for document, ids in encode_documents(rest, tokenizer):
        part = "valid" if split_hash(document, split_seed) < threshold else "train"
        if index[part]["tokens"] and tokenizer.eot_id is not None:
            ids = np.concatenate([np.array([tokenizer.eot_id], dtype=ids.dtype), ids])
        waiting[part].append(ids)
        index[part]["tokens"] += len(ids)
        index[part]["characters"] += len(document)
        index["documents"] += 1
        bar.update(len(document))
        if sum(map(len, waiting["train"])) + sum(map(len, waiting["valid"])) >= shard_tokens:
            write_shards(out, index, waiting)
    bar.close()
    for part in waiting:
        if not index[part]["tokens"]:
            raise ValueError(
                f"none of {index['documents']} documents fell to {part}, for valid_fraction="
                f"{valid_fraction}: give another share (--valid-fraction), and another folder"
            )
    index["complete"] = True
    write_shards(out, index, waiting)
    return index


def fingerprint(source: str | Path, split: str) -> str | None:
    """SHA-256 of names and sizes of the local files that are read; None for what is not local."""
    path = Path(source).expanduser()
    if not path.exists():
        return None
    files = files_of(path, split) if path.is_dir() else [path]
    listing = json.dumps([[p.relative_to(path).as_posix(), p.stat().st_size] for p in files])
    return hashlib.sha256(listing.encode()).hexdigest()


def choose_threshold(documents: Iterator[str], valid_fraction: float, seed: int) -> float:
    """The hash below which a document is for validation: of a small corpus, so that the number of
    documents below it, copies counted, is as near to the wanted one as their copies allow."""
    if not 0 < valid_fraction < 1:
        raise ValueError(f"valid_fraction must lie strictly between 0 and 1, got {valid_fraction}")
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


def write_shards(out: Path, index: dict, waiting: dict[str, list[np.ndarray]]) -> None:
    """Empties `waiting` into new files, then records them; a file appears whole or not at all."""
    for part, arrays in waiting.items():
        if arrays:
            tokens = np.concatenate(arrays)
            name = f"{part}-{len(index[part]['shards']):05d}.npy"
            with open(out / f"{name}.tmp", "wb") as file:
                np.save(file, tokens)
            os.replace(out / f"{name}.tmp", out / name)
            digest = hashlib.sha256(tokens.tobytes()).hexdigest()
            index[part]["shards"].append({"name": name, "tokens": len(tokens), "sha256": digest})
            arrays.clear()
    write_json(out / INDEX, index)


def read_index(folder: Path, settings: dict) -> dict:
    """The index of a folder; raises ValueError unless it was made with the same settings."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    for name, value in settings.items():
        if index["settings"].get(name) != value:
            raise ValueError(
                f"{folder} was prepared with {name}={index['settings'].get(name)!r}, not "
                f"{value!r}: give the same settings to go on, or another folder (out=…, --out)"
            )
    return index


def load_shards(folder: str | Path, length: int) -> dict:
    """The prepared tokens as the parts of a `Corpus`; nothing is read before it is asked for.

    Raises ValueError when the preparation is not complete, or a shard has not the length that was
    recorded. Nothing more is checked of what the shards hold.
    """
    folder = Path(folder)
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    if not index["complete"]:
        raise ValueError(f"{folder} is not complete: give the command that prepares it once more")
    blocks, digests = {}, []
    for part in ("train", "valid"):
        arrays = []
        for shard in index[part]["shards"]:
            arrays.append(np.load(folder / shard["name"], mmap_mode="r", allow_pickle=False))
            digests.append(shard["sha256"])
            if len(arrays[-1]) != shard["tokens"]:
                raise ValueError(
                    f"{folder / shard['name']} has {len(arrays[-1])} tokens, not {shard['tokens']}"
                    " as recorded: delete the folder and prepare it again"
                )
        blocks[part] = Blocks(arrays, length)
    info = {
        "source": index["settings"]["source"],
        "hash": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "documents": index["documents"],
        "train_tokens": index["train"]["tokens"],
        "valid_tokens": index["valid"]["tokens"],
        "chars_per_token": index["valid"]["characters"] / index["valid"]["tokens"],
    }
    return blocks | {"tokenizer": load_tokenizer(folder), "info": info}
