"""The full-size network without GPT-2's tokens: a small BPE, padded to their number, stands in.

So that every machine can take real steps of the 170 M network, on Python's documentation, without
the network. It is for trying things: a real run wants the real tokens.
"""

import json
import sys

from sedd_mini.text.corpus import Corpus, load_corpus
from sedd_mini.text.tokenizers import BPETokenizer, gpt2_tokenizer

GPT2_TOKENS = 50_257


def docs_with_gpt2_tokens(length: int, vocab_size: int = 1024) -> Corpus:
    """Python's documentation in GPT-2's tokens, or in those of a stand-in, which is then said."""
    try:
        return load_corpus("docs", length, tokenizer=gpt2_tokenizer())
    except FileNotFoundError:
        print(
            f"GPT-2's tokens are neither in the cache nor in reach: {vocab_size} tokens of a BPE "
            f"trained on the documentation stand in, and the network keeps its {GPT2_TOKENS}",
            file=sys.stderr,
        )
    corpus = load_corpus("docs", length, tokenizer="bpe", vocab_size=vocab_size)
    corpus.tokenizer = padded(corpus.tokenizer, GPT2_TOKENS)
    return corpus


def padded(tokenizer: BPETokenizer, size: int) -> BPETokenizer:
    """The same tokens, and behind them unused ones up to `size`; no text is encoded by these."""
    from tokenizers import Tokenizer

    content = tokenizer.as_json()
    for i in range(tokenizer.vocab_size, size):
        content["model"]["vocab"][f"<|unused{i}|>"] = i
    return BPETokenizer(Tokenizer.from_str(json.dumps(content)))
