"""Tokenisers: round trips, files, GPT-2's packings, errors."""

import json
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import TEXTS, small_bpe

from sedd_mini.text import offline, tokenizers
from sedd_mini.text.blocks import (
    split_documents,
)
from sedd_mini.text.documents import load_documents
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.text.tokenizers import (
    END_OF_TEXT,
    PRINTABLE,
    BPETokenizer,
    CharTokenizer,
    WordTokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    make_tokenizer,
    to_printable,
)


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return small_bpe()


@given(st.text())
@settings(max_examples=100)
def test_bpe_round_trip(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert all(0 <= i < bpe.vocab_size and i != bpe.eot_id for i in ids)
    assert bpe.encode_batch([text, text]) == [ids, ids]


@given(st.text(alphabet=PRINTABLE))
def test_characters_round_trip(text):
    tokenizer = CharTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)


@given(st.text())
def test_characters_outside_the_alphabet_are_brought_into_it(text):
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == to_printable(text)


@given(st.lists(st.sampled_from(SyntheticLanguage().words)))
def test_words_round_trip(words):
    tokenizer = SyntheticLanguage().tokenizer()
    assert tokenizer.decode(tokenizer.encode(" ".join(words))) == " ".join(words)


def test_alphabet():
    assert sorted(PRINTABLE) == sorted([*map(chr, range(32, 127)), "\n"])
    assert set(string.printable[:95]) <= set(PRINTABLE)
    assert to_printable("naïve “x” – a…\r\nb\tc 漢") == 'naive "x" - a...\nb    c ?'


@pytest.mark.parametrize("kind", ["chars", "words", "bpe"])
def test_save_and_load(kind, bpe, tmp_path):
    tokenizer = {"chars": CharTokenizer(), "words": WordTokenizer(["a", "b"]), "bpe": bpe}[kind]
    tokenizer.save(tmp_path / "deep" / "folder")
    again = load_tokenizer(tmp_path / "deep" / "folder")
    text = "a b a"
    assert type(again) is type(tokenizer)
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == text
    assert (again.vocab_size, again.eot_id) == (tokenizer.vocab_size, tokenizer.eot_id)
    assert [p.name for p in (tmp_path / "deep" / "folder").iterdir()] == ["tokenizer.json"]
    if kind == "bpe":  # a restored tokeniser keeps this, too
        assert again.eot_id not in again.encode(END_OF_TEXT)


def test_end_of_text_and_mask_are_shown(bpe):
    assert bpe.eot_id not in bpe.encode(f"a{END_OF_TEXT}b")
    assert bpe.decode(bpe.encode(f"a{END_OF_TEXT}b")) == f"a{END_OF_TEXT}b"
    for tokenizer in (bpe, CharTokenizer()):
        ids = [*tokenizer.encode("ab"), tokenizer.vocab_size, tokenizer.eot_id]
        assert tokenizer.decode(torch.tensor(ids), mask="#") == f"ab#{END_OF_TEXT}"
        for bad in (-1, tokenizer.vocab_size + 1):
            with pytest.raises(ValueError, match=f"token id {bad} is out of range"):
                tokenizer.decode([bad])
    assert WordTokenizer(["a", "b"]).decode([0, 2, 1]) == "a _ b"


class Counted(list):
    """A list that counts how often it is gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_decoding_does_not_list_the_alphabet_for_every_token(monkeypatch):
    words = WordTokenizer(["a", "b"])
    words.words = Counted(words.words)
    assert words.decode([0, 1, 0, 2]) == "a b a _"
    assert words.words.times <= 1
    characters, alphabet = CharTokenizer(), Counted(PRINTABLE)
    monkeypatch.setattr(tokenizers, "PRINTABLE", alphabet)
    assert characters.decode(characters.encode("a whale")) == "a whale"
    assert alphabet.times <= 1


def test_the_stand_in_for_gpt2_sees_no_validation_text(monkeypatch):
    seen, train = [], BPETokenizer.train

    def spy(texts, vocab_size):
        seen.extend(texts)
        return train(texts, vocab_size)

    def nowhere(source="gpt2"):
        raise FileNotFoundError

    monkeypatch.setattr(offline, "gpt2_tokenizer", nowhere)
    monkeypatch.setattr(BPETokenizer, "train", spy)
    corpus = offline.docs_with_gpt2_tokens(64, 300)
    train_texts, valid_texts = split_documents(load_documents("docs"))
    assert valid_texts
    assert seen == train_texts
    assert corpus.tokenizer.vocab_size == 50_257
    assert corpus.tokenizer.decode(corpus.valid[0]) in valid_texts[0]


def test_bpe_is_deterministic_and_small():
    first, second = (BPETokenizer.train(TEXTS, 280) for _ in range(2))
    assert first.as_json() == second.as_json()
    assert first.vocab_size == 280
    with pytest.raises(ValueError, match="at least 257"):
        BPETokenizer.train(TEXTS, 256)


def test_gpt2_files_in_each_packing(tmp_path):
    """One small vocabulary as encoder.json + vocab.bpe, as vocab.json + merges.txt, as one file."""
    from tokenizers import pre_tokenizers

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {"he": 256, "Ġt": 257, "Ġthe": 258, END_OF_TEXT: 259}
    merges = "#version: 0.2\nh e\nĠ t\nĠt he\n"
    for name, files in {
        "a": ("encoder.json", "vocab.bpe"),
        "b": ("vocab.json", "merges.txt"),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / files[0]).write_text(json.dumps(vocab), encoding="utf-8")
        (tmp_path / name / files[1]).write_text(merges, encoding="utf-8")
    gpt2_tokenizer(tmp_path / "a").save(tmp_path / "c")
    for name in "abc":
        tokenizer = gpt2_tokenizer(tmp_path / name)
        assert (tokenizer.vocab_size, tokenizer.eot_id) == (260, 259)
        assert tokenizer.encode("the the") == [vocab["t"], 256, 258]
        assert tokenizer.decode([258, 259]) == f" the{END_OF_TEXT}"


def test_a_tokenizer_file_with_truncation_and_templates(bpe, tmp_path):
    """As transformers leaves them behind; either would spoil documents without a word."""
    from tokenizers.processors import TemplateProcessing

    other = BPETokenizer(type(bpe.backend).from_str(bpe.backend.to_str()))
    other.backend.enable_truncation(4)
    other.backend.enable_padding(pad_id=0, length=6)
    other.backend.post_processor = TemplateProcessing(
        single="<|endoftext|> $0", special_tokens=[("<|endoftext|>", bpe.eot_id)]
    )
    loaded = BPETokenizer(type(bpe.backend).from_str(other.backend.to_str()))
    text = "the words of a document that is longer than that"
    assert loaded.encode(text) == bpe.encode(text)
    assert loaded.encode_batch([text, "a"]) == [bpe.encode(text), bpe.encode("a")]


def test_tokenizer_errors(tmp_path):
    with pytest.raises(ValueError, match=r"not in the vocabulary: zebra; the 2 words are: a b"):
        WordTokenizer(["a", "b"]).encode("a zebra")
    with pytest.raises(FileNotFoundError, match=r"encoder\.json and vocab\.bpe"):
        gpt2_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match="no tokeniser in"):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder here.*Give a folder"):
        gpt2_tokenizer("no-such-owner/no-such-tokeniser")
    (tmp_path / "tokenizer.json").write_text('{"type": "pickle"}')
    with pytest.raises(ValueError, match="no kind known here"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="unknown tokeniser 'runes'"):
        make_tokenizer("runes", [])


def test_broken_files_of_gpt2_are_named_in_one_line(tmp_path):
    for files in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"), ("tokenizer.json",)):
        folder = tmp_path / files[0]
        folder.mkdir()
        for content in (b"{", b"[]", b"3", b"\xff", b'{"a": "b"}'):
            for name in files:
                (folder / name).write_bytes(content)
            for read in (gpt2_tokenizer, lambda folder: make_tokenizer(folder, [])):
                with pytest.raises(ValueError, match=rf"^[^\n]*{files[0]}[^\n]*$"):
                    read(folder)
    for bad in ("~nosuchuser", "a\0b", "x" * 300):
        with pytest.raises(ValueError, match=r"^[^\n]* is no path of a file: [^\n]*$"):
            load_tokenizer(bad)
