"""Any source as training and validation blocks in one call."""

import math
import subprocess
import sys

import pytest
import torch

from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.hashes import corpus_hash
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.text.tokenizers import (
    CharTokenizer,
)


@pytest.fixture(scope="module")
def language() -> SyntheticLanguage:
    return SyntheticLanguage()


def test_load_corpus_from_one_text_file(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text("".join(f"SPEAKER {i % 7}:\nWhat is said, {i}.\n\n" for i in range(2000)))
    corpus = load_corpus(path, 32, tokenizer="chars", valid_fraction=0.1)
    assert corpus.train[0].shape == (32,)
    assert 0.08 < corpus.info["valid_tokens"] / corpus.info["train_tokens"] < 0.12
    assert corpus.info["documents"] == 1
    assert corpus.info["hash"] == corpus_hash([path.read_text()])
    assert corpus.info["chars_per_token"] == pytest.approx(1, abs=0.01)
    again = load_corpus(path, 32, tokenizer=CharTokenizer(), valid_fraction=0.1)
    assert torch.equal(corpus.train[:], again.train[:])
    assert torch.equal(corpus.valid[:], again.valid[:])
    bpe = load_corpus(path, 32, vocab_size=300)
    assert bpe.tokenizer.vocab_size == 300
    assert bpe.info["chars_per_token"] > 2
    bpe.tokenizer.save(tmp_path / "tokeniser")
    third = load_corpus(path, 32, tokenizer=tmp_path / "tokeniser")
    assert torch.equal(bpe.valid[:], third.valid[:])


def test_synthetic_corpus(language):
    corpus = load_corpus("synthetic", 48)
    assert corpus.tokenizer.vocab_size == language.vocab_size == 40
    assert corpus.tokenizer.eot_id is None
    assert len(corpus.train) == 2**21 // 48
    log_prob = language.log_prob(corpus.valid[:256])
    assert (
        2.28 < -log_prob.mean().item() / 48 / math.log(2) < 2.5
    )  # bits; the first words cost more
    assert not torch.equal(corpus.train[:100], corpus.valid[:100])
    assert corpus.info["hash"] == load_corpus("synthetic", 48).info["hash"]


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, sedd_mini.text.blocks, sedd_mini.text.ngram, sedd_mini.text.shards\n"
        "heavy = {'datasets', 'transformers', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
