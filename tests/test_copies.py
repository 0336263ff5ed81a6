"""Leakage: copies and repeated text stay on one side of a split, and what is left is counted."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sedd_mini.text import copies as module
from sedd_mini.text.blocks import Blocks, pack, split_documents
from sedd_mini.text.copies import cut, related, seen_share, window_hashes
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.hashes import corpus_hash, normal_form, split_hash
from sedd_mini.text.python_docs import python_docs
from sedd_mini.text.tokenizers import CharTokenizer, load_tokenizer

SHIPPED = Path(__file__).parents[1] / "chapters/checkpoints"


def changed(text: str) -> list[str]:
    """The text as editors and archives change it."""
    return [text + "\n", text.replace("\n", "\r\n"), " " + text, "\n\n" + text.replace("\n", "\r")]


def test_copies_that_differ_in_line_ends_and_outer_space_are_one():
    text = "First line.\nSecond  line."
    assert {normal_form(copy) for copy in changed(text)} == {text}
    assert len({split_hash(copy, 3) for copy in [text, *changed(text)]}) == 1
    others = [text.upper(), text.replace("  ", " "), text + " More.", "x" + text]
    assert len({split_hash(other, 3) for other in [text, *others]}) == 5
    documents = [f"{i}\nA text of its own." for i in range(60)]
    documents += [copy for text in documents[:30] for copy in changed(text)]
    for seed in range(5):
        train, valid = split_documents(documents, 0.2, seed)
        assert not {normal_form(t) for t in train} & {normal_form(v) for v in valid}
        assert len(train) + len(valid) == len(documents)
        assert 0.1 < len(valid) / len(documents) < 0.25


def test_the_split_under_the_shipped_weights_stays():
    parts = split_documents(python_docs())
    assert [corpus_hash(part) for part in parts] == [
        "2405b2c4b5b73a6d6ae0453c205d93b2e90e3fe253385c46a97bf578e9b8d66c",
        "b75b795734edf87278614fe79eca9b0c5e6736d35b0c0c0d1c43f91bab0e8e54",
    ]


@pytest.mark.parametrize("name", ["docs-absorb", "docs-uniform"])
def test_the_tokens_under_the_shipped_weights_stay(name):
    facts = json.loads((SHIPPED / name / "training.json").read_text())["corpus"]
    info = load_corpus("docs", 128, tokenizer=load_tokenizer(SHIPPED / name)).info
    assert {key: info[key] for key in facts} == facts
    assert 0.01 < info["seen_13grams"] < 0.05


# ------------------------------------------------------------------------------ cutting and groups


def words(seed: int, paragraphs: int, lines: int = 3) -> str:
    """Text without repetitions, in paragraphs of lines."""
    rng = np.random.default_rng(seed)
    line = lambda: " ".join(map(str, rng.integers(10**6, size=8)))  # noqa: E731
    return "\n\n".join("\n".join(line() for _ in range(lines)) for _ in range(paragraphs))


@pytest.mark.parametrize("text", [words(0, 300), words(0, 1, 900), words(0, 900, 1), "x" * 50_000])
@pytest.mark.parametrize("size", [200, 1001])
def test_pieces_together_are_the_text_and_have_a_size(text, size):
    pieces = list(cut(text, size))
    assert "".join(pieces) == text
    assert all(size // 2 < len(piece) <= 1.5 * size for piece in pieces[:-1])
    assert 0.7 < len(text) / size / len(pieces) < 1.4
    for end in ("\n\n", "\n", " "):
        if end in text and (end != "\n\n" or text.count(end) > 200):
            assert all(piece.endswith(end) for piece in pieces[:-1])
            break


@pytest.mark.parametrize(("end", "most"), [("\n", 8), ("\r\n", 24)])
def test_a_copy_further_on_is_cut_alike(end, most):
    """Wherever it begins; all but the pieces at its ends. (Cut by length alone: none.)"""
    text = words(1, 1000)
    pieces = {normal_form(piece) for piece in cut(text, 2000)}
    for before in (1, 500, 1234, 40_000):
        longer = (words(2, 300)[:before] + "\n\n" + text).replace("\n", end)
        later = {normal_form(piece) for piece in cut(longer, 2000)}
        assert len(pieces - later) <= most < 80 < len(pieces)


def sides(text: str, fraction: float = 0.1) -> float:
    """The share of validation 13-grams of characters of a text in training, cut and split."""
    train, valid = split_documents([text], fraction)
    assert sorted("".join(train + valid)) == sorted(text)
    assert 0.5 * fraction < sum(map(len, valid)) / len(text) <= fraction
    return seen_share(*(pack(part, CharTokenizer(), 64) for part in (train, valid)), n=40)


@pytest.mark.parametrize("between", ["", "\n\n", "\n\nPART TWO\n\n", words(5, 40)])
def test_a_file_that_holds_its_text_twice_is_not_split_between_its_halves(between):
    text = words(3, 800)
    assert sides(text) == 0
    assert sides(text + between + text) < 0.01
    assert sides(text[:9999] + text + between + text.replace("\n", "\r\n") + text) < 0.01


def test_a_long_passage_in_two_places_keeps_its_pieces_together():
    passage = words(77, 5)
    texts = [words(seed, 20) for seed in range(30)]
    texts[4] += "\n\n" + passage
    texts[9] = passage + "\n\n" + texts[9]
    for character in "-=*_~#+.":  # a ruled line is no passage
        texts[10] += "A" + character * 300
        texts[20] += "B" + character * 300
    texts[25] = "\r\n" + texts[12].replace("\n", "\r\n")
    groups = sorted(sorted(group) for group in related(texts) if len(group) > 1)
    assert groups == [[4, 9], [12, 25]]
    texts[9] += texts[12][1000:1500]  # and so on, through a third
    assert [4, 9, 12, 25] in [sorted(group) for group in related(texts)]


def test_the_warning_tells_both_shares_and_the_error_what_to_do():
    texts = ["many copies of this"] * 19 + ["and no other than that"]
    with pytest.warns(UserWarning, match=r"valid_fraction=0\.5 was .* but 0\.057 of the text"):
        assert split_documents(texts, 0.5)[1] == texts[-1:]
    with pytest.raises(ValueError, match=r"repeats itself from end to end: give more text$"):
        split_documents(["ab" * 5000], 0.1)


# ------------------------------------------------------------------------------ the share seen


def slow_share(train: list[int], valid: list[int], n: int, most: int) -> float | None:
    seen = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    windows = [tuple(valid[i : i + n]) for i in range(len(valid) - n + 1)]
    windows = windows[:: -(-max(len(windows), 1) // most)]
    return sum(w in seen for w in windows) / len(windows) if windows else None


@pytest.mark.parametrize("n", [1, 2, 5, 13])
@pytest.mark.parametrize("most", [2**20, 37, 1])
def test_seen_share_against_its_definition(n, most, monkeypatch):
    """Over several arrays and over the ends of chunks."""
    monkeypatch.setattr(module, "CHUNK", 19)
    rng = np.random.default_rng(n)
    train = [rng.integers(99, size=k).astype(np.uint16) for k in (150, 3, 0, 90)]
    for sizes in ((12, 31), (100,), (5, 5), (13,)):
        valid = [rng.integers(99, size=k).astype(np.uint16) for k in sizes]
        valid = [np.concatenate([v, train[0][len(v) : 3 * len(v)], v[:9]]) for v in valid]
        streams = [np.concatenate(part).tolist() for part in (train, valid)]
        found = seen_share(Blocks(train, 4), Blocks(valid, 4), n, most)
        assert found == slow_share(*streams, n, most)


def test_window_hashes_tell_windows_apart():
    tokens = np.random.default_rng(0).integers(3, size=20_000)
    for n in (1, 3, 7, 8):
        hashes = window_hashes(tokens, n).tolist()
        windows = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        assert len(hashes) == len(windows)
        assert len(set(hashes)) == len(set(windows)) == len(set(zip(hashes, windows)))


def test_a_copied_document_is_seen(tmp_path):
    """What the number is for: quotations that no split can know of."""
    documents = [words(seed, 8) for seed in range(40)]
    for i, text in enumerate(documents):
        (tmp_path / f"{i}.txt").write_text(text)
    clean = load_corpus(tmp_path, 16, tokenizer="chars", valid_fraction=0.1)
    for i, text in enumerate(documents):
        quoted = documents[(i + 1) % 40][: len(text) // 2]
        (tmp_path / f"{i}.txt").write_text(re.sub(r"\d+$", "", text) + quoted)
    quoting = load_corpus(tmp_path, 16, tokenizer="chars", valid_fraction=0.1)
    assert clean.info["seen_13grams"] < 0.1
    assert quoting.info["seen_13grams"] > 0.4
    assert load_corpus("synthetic", 16).info["seen_13grams"] is None
