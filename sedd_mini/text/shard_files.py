"""The files of a folder of shards: index and arrays, written whole, and read with checks."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np

from sedd_mini.checks import local_path, one_line, whole_number
from sedd_mini.files import read_json, write_json
from sedd_mini.text.blocks import Blocks
from sedd_mini.text.tokenizers import Tokenizer, check_same, load_tokenizer, tokenizer_hash

INDEX = "shards.json"
PARTS = ("train", "valid")
SHARD = re.compile(r"(train|valid)-\d{5,}\.npy")


def write_shards(out: Path, index: dict, waiting: dict[str, list[np.ndarray]]) -> None:
    """Empties `waiting` into new files, then records them; a file appears whole or not at all."""
    for part, arrays in waiting.items():
        if arrays:
            tokens = np.concatenate(arrays)
            name = f"{part}-{len(index[part]['shards']):05d}.npy"
            temporary = out / f".{name}.{os.getpid()}.tmp"
            try:
                with open(temporary, "wb") as file:
                    np.save(file, tokens)
                os.replace(temporary, out / name)
            finally:
                temporary.unlink(missing_ok=True)
            digest = hashlib.sha256(tokens.tobytes()).hexdigest()
            index[part]["shards"].append({"name": name, "tokens": len(tokens), "sha256": digest})
            arrays.clear()
    write_json(out / INDEX, index)


def read_index(folder: Path, settings: dict | None = None) -> dict:
    """The index of a folder; raises ValueError unless it is whole and made with these settings."""
    index = read_json(folder / INDEX)
    try:
        for part in PARTS:
            for shard in index[part]["shards"]:
                if not SHARD.fullmatch(shard["name"]):
                    raise ValueError(f"{shard['name']!r} is no name of a shard")
                whole_number("tokens", shard["tokens"], 0)
                shard["sha256"].encode()
            whole_number("tokens", index[part]["tokens"], 0)
            whole_number("characters", index[part]["characters"], 0)
        if not isinstance(index["complete"], bool) or not isinstance(index["settings"], dict):
            raise ValueError("its settings are no object, or it is neither complete nor not")
        whole_number("documents", index["documents"], 0)
        index["settings"]["source"].encode()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else one_line(error)
        raise ValueError(
            f"{folder / INDEX} is not as it was written ({reason}): delete the folder and prepare "
            "it again"
        ) from None
    for name, value in (settings or {}).items():
        if index["settings"].get(name) != value:
            raise ValueError(
                f"{folder} was prepared with {name}={index['settings'].get(name)!r}, not "
                f"{value!r}: give the same settings to go on, or another folder (out=…, --out)"
            )
    return index


def open_shards(folder: Path, index: dict, part: str) -> list[np.ndarray]:
    """Memory maps of the shards of a part; ValueError names one that is not as it was recorded."""
    arrays = []
    for shard in index[part]["shards"]:
        path = folder / shard["name"]
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: delete the folder and prepare it again") from None
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(
                f"{path} cannot be read ({one_line(error)}): delete the folder and prepare it again"
            ) from None
        if array.shape != (shard["tokens"],) or array.dtype not in (np.uint16, np.int32):
            raise ValueError(
                f"{path} has {array.size} tokens of {array.dtype}, not {shard['tokens']} as "
                "recorded: delete the folder and prepare it again"
            )
        arrays.append(array)
    return arrays


def load_shards(
    folder: str | Path, length: int, tokenizer: str | Path | Tokenizer | None = None,
    vocab_size: int | None = None,
) -> dict:  # fmt: skip
    """The prepared tokens as the parts of a `Corpus`; nothing is read before it is asked for.

    Raises ValueError when the preparation is not complete, when a shard has not the length that was
    recorded, and when another tokeniser or size is asked for. Nothing more is checked of what the
    shards hold.
    """
    folder = local_path(folder)
    index = read_index(folder)
    if not index["complete"]:
        raise ValueError(f"{folder} is not complete: give the command that prepares it once more")
    own, kind = load_tokenizer(folder), str(index["settings"].get("tokenizer"))
    check_same(own, kind, str(folder), tokenizer, vocab_size)
    blocks = {part: Blocks(open_shards(folder, index, part), length, name)
              for part, name in zip(PARTS, ("training", "validation"), strict=True)}  # fmt: skip
    digests = [shard["sha256"] for part in PARTS for shard in index[part]["shards"]]
    info = {
        "source": index["settings"]["source"],
        "hash": hashlib.sha256("".join(digests).encode()).hexdigest(),
        "documents": index["documents"],
        "train_tokens": index["train"]["tokens"],
        "valid_tokens": index["valid"]["tokens"],
        "chars_per_token": index["valid"]["characters"] / index["valid"]["tokens"],
        "seen_13grams": index.get("seen_13grams"),
        "tokenizer_sha256": tokenizer_hash(own),
    }
    return blocks | {"tokenizer": own, "info": info}
