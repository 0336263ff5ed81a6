"""A trained network with all that belongs to it: write text, fill gaps."""

import re

import torch
from torch import Tensor

from sedd_mini.text.tokenizers import BPETokenizer, CharTokenizer, WordTokenizer

GAP = re.compile(r" ?_{3,}")  # two are common in code: __init__


def template(tokenizer, prompt: str = "", text: str = "", suffix: str = "", length: int = 0,
             gap: int | None = None) -> Tensor:  # fmt: skip
    """What is given and what is free, (L,) int64: token ids, and −1 for a free position.

    Either `text` with gaps, each a run of three or more underscores; or a prompt, a suffix, or
    both, with everything between them free, `length` tokens in all. A gap gets `gap` tokens; by
    default one word of a word tokeniser, as many characters as underscores, or half as many tokens
    of a BPE. A BPE puts the space before a word into its token: so that the word can be any, a
    space before a gap, or at the end of the prompt, is left to it. Raises ValueError if nothing is
    free.
    """
    if gap is not None and gap < 1:
        raise ValueError(f"a gap has at least one token, got {gap}")
    if text:
        if prompt or suffix:
            raise ValueError("give either a text with gaps, or a prompt and a suffix, not both")
        ids, end = [], 0
        for match in GAP.finditer(text):
            run = match.group().count("_")
            spaces = len(match.group()) - run
            if isinstance(tokenizer, CharTokenizer):
                ids += tokenizer.encode(text[end : match.start() + spaces])
            else:
                ids += tokenizer.encode(text[end : match.start()])
            if gap is None:
                width = {CharTokenizer: run, WordTokenizer: 1}.get(type(tokenizer), (run + 1) // 2)
            else:
                width = gap
            ids += [-1] * width
            end = match.end()
        ids += tokenizer.encode(text[end:])
    else:
        if isinstance(tokenizer, BPETokenizer):
            prompt = prompt.removesuffix(" ")
        before, after = tokenizer.encode(prompt), tokenizer.encode(suffix)
        ids = before + [-1] * (length - len(before) - len(after)) + after
    if -1 not in ids:
        raise ValueError(
            "nothing is left to fill in: mark gaps by ____" if text else
            f"nothing is left to fill in: prompt and suffix are {len(ids)} tokens, of {length}"
        )  # fmt: skip
    return torch.tensor(ids)
