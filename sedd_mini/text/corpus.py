"""Any source as training and validation blocks in one call.

What a source may be, `load_documents` (in documents.py) tells; `load_corpus` also takes
"synthetic" (synthetic.py) and a folder of prepared shards (shards.py). What is no text at all
(images, DNA, music) comes in by `Corpus.from_arrays`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sedd_mini.checks import local_path, one_line, share, whole_number
from sedd_mini.text.blocks import Blocks, pack, split_documents
from sedd_mini.text.copies import seen_share
from sedd_mini.text.documents import load_documents
from sedd_mini.text.hashes import corpus_hash
from sedd_mini.text.shard_files import INDEX, load_shards
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.text.tokenizers import (
    IdTokenizer,
    Tokenizer,
    check_same,
    make_tokenizer,
    tokenizer_hash,
)


@dataclass
class Corpus:
    """Training and validation blocks, the tokeniser that made them, and what is known of them.

    `info`, None where a thing has no meaning:
        source, hash         what was read, and its `corpus_hash` (of arrays or shards: of tokens)
        documents, train_tokens, valid_tokens
        chars_per_token      of validation: bits per character = bits per token / chars_per_token
        seen_13grams         share of the validation 13-grams of tokens that are in training, too
        tokenizer_sha256     of all that the tokeniser is
    """

    train: Blocks
    valid: Blocks
    tokenizer: Tokenizer
    info: dict

    @classmethod
    def from_arrays(
        cls, train, valid, vocab_size: int, decode: Callable[[list[int]], str] | None = None
    ) -> "Corpus":
        """Rows of ids of any origin, (num, L) whole numbers in [0, vocab_size), split beforehand.

        Arrays, tensors or lists; both parts with the same L. `decode(ids) -> str` shows a row
        (an id may be `vocab_size`, which is MASK), by default as numbers. It is not saved with a
        network: hand `IdTokenizer(vocab_size, decode)` to whatever loads that. Raises ValueError
        for other shapes, types or values.
        """
        tokenizer = IdTokenizer(vocab_size, decode)
        digest = hashlib.sha256(f"{tokenizer.vocab_size}".encode())
        parts = []
        for name, rows in (("train", train), ("valid", valid)):
            rows = id_rows(name, rows, tokenizer.vocab_size)
            digest.update(f" {rows.shape} {rows.dtype.str}".encode() + rows.tobytes())
            parts.append(Blocks(rows.reshape(-1), rows.shape[1]))
        if parts[0].length != parts[1].length:
            raise ValueError(
                f"rows of train have {parts[0].length} ids, those of valid {parts[1].length}: "
                "give both the same length"
            )
        info = describe("arrays", digest.hexdigest(), None, parts, tokenizer)
        return cls(*parts, tokenizer, info)


def id_rows(name: str, rows, vocab_size: int) -> np.ndarray:
    """The rows as a contiguous array (num, L) of the smallest of uint16, int32, int64 that fits."""
    try:
        rows = rows.detach().cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
    except (ValueError, TypeError) as error:  # rows of several lengths, a type NumPy has not
        raise ValueError(f"{name} is no array of whole numbers: {one_line(error)}") from None
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"{name} must be of shape (num, L), neither of them 0, got {rows.shape}")
    if not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"{name} must hold whole numbers, got {rows.dtype}")
    low, high = int(rows.min()), int(rows.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"ids of {name} go from {low} to {high}, but must lie in 0 … {vocab_size - 1}, for "
            f"vocab_size={vocab_size}"
        )
    kind = next(k for k in (np.uint16, np.int32, np.int64) if vocab_size - 1 <= np.iinfo(k).max)
    return np.ascontiguousarray(rows, dtype=kind)


def describe(
    source: str, digest: str, documents: int | None, parts: list[Blocks], tokenizer: Tokenizer,
    chars_per_token: float | None = None, seen_13grams: float | None = None,
) -> dict:  # fmt: skip
    """The `info` of a corpus."""
    return {
        "source": source,
        "hash": digest,
        "documents": documents,
        "train_tokens": parts[0].offsets[-1],
        "valid_tokens": parts[1].offsets[-1],
        "chars_per_token": chars_per_token,
        "seen_13grams": seen_13grams,
        "tokenizer_sha256": tokenizer_hash(tokenizer),
    }


def load_corpus(
    source: str | Path,
    length: int,
    *,
    tokenizer: str | Path | Tokenizer | None = None,
    vocab_size: int | None = None,
    valid_fraction: float = 0.05,
    split_seed: int = 0,
    column: str = "text",
    split: str = "train",
    config: str | None = None,
) -> Corpus:
    """Any source as blocks of `length` tokens, split for training and validation.

    `tokenizer` is "bpe" (of `vocab_size` tokens, trained on the training documents; the default,
    of 1024), "chars", "gpt2", a folder that holds one, or a tokeniser. Prepared shards and the
    synthetic language have theirs: one that is named, and a size, must then be the same, or
    ValueError is raised. All text is held in memory: for a corpus too large for that,
    `prepare_shards` writes a folder that is a source here. The "synthetic" language comes as 2²¹
    training and 2¹⁷ validation tokens in independent blocks.
    """
    length = whole_number("length", length, 1)
    if vocab_size is not None:
        vocab_size = whole_number("vocab_size", vocab_size, 1)
    if str(source) == "synthetic":
        corpus = synthetic_corpus(length)
        check_same(corpus.tokenizer, "words", "the synthetic language", tokenizer, vocab_size)
        return corpus
    folder = local_path(source)
    if (folder / INDEX).exists():
        return Corpus(**load_shards(folder, length, tokenizer, vocab_size))
    share("valid_fraction", valid_fraction)
    split_seed = whole_number("split_seed", split_seed, 0)
    documents = list(load_documents(source, column=column, split=split, config=config))
    train, valid = split_documents(documents, valid_fraction, split_seed)
    tokenizer = make_tokenizer("bpe" if tokenizer is None else tokenizer, train, vocab_size)
    parts = [pack(part, tokenizer, length, name)
             for part, name in ((train, "training"), (valid, "validation"))]  # fmt: skip
    info = describe(
        str(source), corpus_hash(documents), len(documents), parts, tokenizer,
        sum(map(len, valid)) / parts[1].offsets[-1], seen_share(*parts),
    )  # fmt: skip
    return Corpus(*parts, tokenizer, info)


def synthetic_corpus(length: int, train_tokens: int = 2**21, valid_tokens: int = 2**17) -> Corpus:
    """Independent blocks of the synthetic language, always the same ones."""
    language = SyntheticLanguage()
    arrays = []
    for seed, tokens in enumerate((train_tokens, valid_tokens)):
        generator = torch.Generator().manual_seed(seed)
        sample = language.sample(max(tokens // length, 1), length, generator)
        arrays.append(sample.flatten().numpy().astype(np.uint16))
    digest = hashlib.sha256(np.concatenate(arrays).tobytes()).hexdigest()
    parts = [Blocks(array, length) for array in arrays]
    tokenizer = language.tokenizer()
    return Corpus(*parts, tokenizer, describe("synthetic", digest, None, parts, tokenizer))
