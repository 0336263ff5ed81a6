"""Real text as windows of tokens, and the likelihood bound of many windows as one result.

A window is as long as the network, and sees nothing of the text before it. What a number means
depends on how text became windows, so every result says that, too.
"""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sedd_mini.checks import local_path, shown, whole_number
from sedd_mini.evaluation.bounds import total
from sedd_mini.model import TextModel
from sedd_mini.samplers import generators
from sedd_mini.text.blocks import encode_documents, pack
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.documents import load_documents
from sedd_mini.text.shard_files import INDEX
from sedd_mini.text.tokenizers import IdTokenizer, tokenizer_hash

GROUP = 64  # windows that are bounded together: their noise levels are stratified together
PARTS = ("valid", "train", "all")


def load_windows(
    source, tokenizer, length: int, part: str = "valid", num: int | None = None,
    valid_fraction: float = 0.05, column: str = "text", split: str = "train",
    config: str | None = None, exactly: bool = False,
) -> tuple[Tensor, dict]:  # fmt: skip
    """Windows (M, length) int64 of any source that training takes, and what is known of them.

    part  "valid" or "train": what training with the same `valid_fraction` holds out or sees;
          "all": the whole text, for one that the network never saw
    num   windows at most (or, with `exactly`, so many), evenly spread; None: all

    The incomplete window at the end is left out, as in training. Raises ValueError or
    FileNotFoundError as `load_corpus` does: a text shorter than a window, words outside the
    vocabulary, shards in tokens of another tokeniser, no text, no such column, no such place.
    """
    if part not in PARTS:
        raise ValueError(f"part must be one of {', '.join(PARTS)}, got {shown(part)}")
    length = whole_number("length", length, 1)
    made = str(source) == "synthetic" or (local_path(source) / INDEX).exists()
    if part == "all" and not made:
        documents = load_documents(source, column=column, split=split, config=config)
        blocks, info = pack(documents, tokenizer, length), {}
    elif part == "all":
        raise ValueError(f"{source} comes in two parts: name valid or train, not all")
    else:
        corpus = load_corpus(
            source, length, tokenizer=None if made else tokenizer, valid_fraction=valid_fraction,
            column=column, split=split, config=config,
        )  # fmt: skip
        if tokenizer_hash(corpus.tokenizer) != tokenizer_hash(tokenizer):
            theirs, ours = (f"{type(t).__name__} of {t.vocab_size}"
                            for t in (corpus.tokenizer, tokenizer))  # fmt: skip
            raise ValueError(f"{source} is in tokens of another tokeniser ({theirs}) than the "
                             f"network's ({ours}): give the text itself, or prepare it with the "
                             "network's tokeniser")  # fmt: skip
        blocks, info = getattr(corpus, part), corpus.info
    if num is not None and not exactly:
        num = min(whole_number("num", num, 1), len(blocks))
    windows = blocks[spread(len(blocks), num)]
    facts = {"data": str(source), "part": part, "windows": len(windows), "of_windows": len(blocks),
             "window_length": length, "data_hash": info.get("hash")}  # fmt: skip
    return windows, facts


def spread(size: int, num: int | None) -> list[int]:
    """`num` of the numbers 0 … size − 1, evenly spread; all for None. ValueError for too many."""
    if num is None:
        return list(range(size))
    num = whole_number("num", num, 1)
    if num > size:
        raise ValueError(f"{num} texts are asked for, and there are {size}: a smaller --num, or "
                         "more text (--part all, or a larger --valid-fraction)")  # fmt: skip
    return [i * size // num for i in range(num)]


def stream_windows(
    documents: Iterable[str], tokenizer, length: int, end_each: bool = False
) -> list[Tensor]:
    """All tokens of the documents as windows: [(M, length), (1, the rest)], the rest if any.

    The end-of-text token stands between documents, or, with `end_each`, after each one. Raises
    ValueError where not one window is filled.
    """
    pieces = []
    for _, ids in encode_documents(documents, tokenizer):
        end = [] if tokenizer.eot_id is None else [np.array([tokenizer.eot_id], dtype=ids.dtype)]
        between = end if pieces and not end_each else []
        pieces += [*between, ids, *(end if end_each else [])]
    ids = torch.from_numpy(np.concatenate(pieces).astype(np.int64)) if pieces else torch.empty(0)
    if len(ids) < length:
        raise ValueError(f"the text has {len(ids)} tokens and a window {length}: give more text, "
                         "or a shorter window (length=…, --length)")  # fmt: skip
    whole = ids[: len(ids) // length * length].view(-1, length)
    rest = ids[whole.numel() :][None]
    return [whole, rest] if rest.numel() else [whole]


def count_characters(tokenizer, windows: list[Tensor]) -> int | None:
    """Characters that the tokens stand for, the ends of text not counted; None for no text.

    Of a tokeniser that changes the text (accents, white space) those of the text as it reads it.
    """
    if isinstance(tokenizer, IdTokenizer):
        return None
    rows = (row for part in windows for row in part.tolist())
    return sum(len(tokenizer.decode([i for i in row if i != tokenizer.eot_id])) for row in rows)


def bound_of(
    model: TextModel, windows: list[Tensor], repeats: int = 8, times_each: int = 1, seed: int = 0,
    progress: bool = True,
) -> dict:  # fmt: skip
    """The likelihood bound of windows [(M, L), …] as a whole, in all the units, with error bars.

    The error is that of the noise drawn (one standard error); the text is taken as it is. Group g
    of the windows of a part draws from (seed, g), so a seed gives the same result on every device.
    Raises FloatingPointError for a network that gives NaN, ValueError for no window.
    """
    groups = [group for part in windows for group in part.split(GROUP)]
    tokens = sum(group.numel() for group in groups)
    if not tokens:
        raise ValueError("there is no window to bound: give some text")
    nats = variance = prior = 0.0
    bar = tqdm(total=sum(map(len, groups)), unit="window", desc="bound", disable=not progress)
    with bar:
        for g, group in enumerate(groups):
            found = bound_of_group(model, group, repeats, times_each, seed, g)
            nats, variance, prior = nats + found[0], variance + found[1] ** 2, prior + found[2]
            bar.update(len(group))
    return units(nats, math.sqrt(variance), tokens, count_characters(model.tokenizer, windows)) | {
        "prior_nats_per_token": prior / tokens, "repeats": repeats, "times_each": times_each,
        "seed": seed,
    }  # fmt: skip


def bound_of_group(model: TextModel, group: Tensor, repeats, times_each, seed: int, g: int):
    """(bound, its error, its prior part) of windows (M, L) together, nats: the one place that calls
    the estimator."""
    (generator,) = generators(seed, 1, first=g)
    given = torch.zeros_like(group, dtype=torch.bool)
    bound = total(model.bounds_of(group, given, repeats, times_each, generator))
    return bound.nats, bound.error, bound.prior


def units(nats: float, error: float, tokens: int, characters: int | None) -> dict:
    """−log p of a text in nats, and its error, as nats and bits a token, bits a character (None for
    no text) and perplexity, exp(nats a token); each with its error bar."""
    per_token = {"nats_per_token": 1, "bits_per_token": 1 / math.log(2)}
    result = {"tokens": tokens, "characters": characters}
    for name, factor in per_token.items():
        result |= {name: nats / tokens * factor, f"{name}_error": error / tokens * factor}
    bits = (nats / math.log(2), error / math.log(2)) if characters else (None, None)
    for name, value in zip(("", "_error"), bits, strict=True):
        result[f"bits_per_character{name}"] = value and value / characters
    return result | perplexity(nats, error, tokens, "perplexity")


def perplexity(nats: float, error: float, num: int, name: str) -> dict:
    """exp(nats / num) under that name and its error; both None where floats end."""
    value = math.exp(nats / num) if nats / num < 700 else None
    return {name: value, f"{name}_error": value and value * error / num}
