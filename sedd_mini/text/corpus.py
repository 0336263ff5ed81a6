"""Any source as training and validation blocks in one call.

What a source may be, `load_documents` (in documents.py) tells; `load_corpus` also takes
"synthetic" (synthetic.py) and a folder of prepared shards (shards.py).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sedd_mini.text.blocks import Blocks, pack, split_documents
from sedd_mini.text.copies import seen_share
from sedd_mini.text.documents import load_documents
from sedd_mini.text.hashes import corpus_hash
from sedd_mini.text.shards import load_shards
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.text.tokenizers import Tokenizer, make_tokenizer


@dataclass
class Corpus:
    """Training and validation blocks, the tokeniser that made them, and what is known of them.

    `info`: source, hash (see `corpus_hash`), documents, train_tokens, valid_tokens, and
    chars_per_token on the validation documents (None for the synthetic language): bits per
    character = bits per token / chars_per_token.
    """

    train: Blocks
    valid: Blocks
    tokenizer: Tokenizer
    info: dict


def load_corpus(
    source: str | Path,
    length: int,
    *,
    tokenizer: str | Path | Tokenizer = "bpe",
    vocab_size: int = 1024,
    valid_fraction: float = 0.05,
    split_seed: int = 0,
    column: str = "text",
    split: str = "train",
    config: str | None = None,
) -> Corpus:
    """Any source as blocks of `length` tokens, split for training and validation.

    `tokenizer` is "bpe" (of `vocab_size` tokens, trained on the training documents), "chars",
    "gpt2", a folder that holds one, or a tokeniser. All text is held in memory: for a corpus
    too large for that, `prepare_shards` writes a folder that is a source here. The
    "synthetic" language comes as 2²¹ training and 2¹⁷ validation tokens in independent blocks.
    """
    if str(source) == "synthetic":
        return synthetic_corpus(length)
    folder = Path(source).expanduser()
    if (folder / "shards.json").exists():
        return Corpus(**load_shards(folder, length))
    documents = list(load_documents(source, column=column, split=split, config=config))
    train, valid = split_documents(documents, valid_fraction, split_seed)
    tokenizer = make_tokenizer(tokenizer, train, vocab_size)
    train_blocks, valid_blocks = (pack(part, tokenizer, length) for part in (train, valid))
    info = {
        "source": str(source),
        "hash": corpus_hash(documents),
        "documents": len(documents),
        "train_tokens": train_blocks.offsets[-1],
        "valid_tokens": valid_blocks.offsets[-1],
        "chars_per_token": sum(map(len, valid)) / valid_blocks.offsets[-1],
        "seen_13grams": seen_share(train_blocks, valid_blocks),
    }
    return Corpus(train_blocks, valid_blocks, tokenizer, info)


def synthetic_corpus(length: int, train_tokens: int = 2**21, valid_tokens: int = 2**17) -> Corpus:
    """Independent blocks of the synthetic language, always the same ones."""
    language = SyntheticLanguage()
    parts = []
    for seed, tokens in enumerate((train_tokens, valid_tokens)):
        generator = torch.Generator().manual_seed(seed)
        sample = language.sample(max(tokens // length, 1), length, generator)
        parts.append(sample.flatten().numpy().astype(np.uint16))
    info = {
        "source": "synthetic",
        "hash": hashlib.sha256(np.concatenate(parts).tobytes()).hexdigest(),
        "documents": None,
        "train_tokens": len(parts[0]),
        "valid_tokens": len(parts[1]),
        "chars_per_token": None,
        "seen_13grams": None,
    }
    return Corpus(Blocks(parts[0], length), Blocks(parts[1], length), language.tokenizer(), info)
