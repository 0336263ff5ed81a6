"""Shards: the same stream, interruptions, the split, memory, the command."""

import json
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import book, small_bpe

from sedd_mini.commands.prepare import main as shards_main
from sedd_mini.text import shards, tokenizers
from sedd_mini.text.blocks import (
    cut,
    encode_documents,
    split_hash,
)
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.documents import load_documents
from sedd_mini.text.shards import choose_threshold, load_shards, prepare_shards
from sedd_mini.text.tokenizers import (
    BPETokenizer,
    CharTokenizer,
)


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return small_bpe()


def test_shards_hold_the_same_stream(tmp_path, bpe):
    folder = tmp_path / "books"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(book(i, 800))
    index = prepare_shards(folder, tmp_path / "out", bpe, shard_tokens=60_000, progress=False)
    assert len(index["train"]["shards"]) > 2
    threshold = index["settings"]["threshold"]
    corpus = load_corpus(tmp_path / "out", 64)
    documents = list(load_documents(folder))
    assert index["train"]["characters"] + index["valid"]["characters"] == sum(map(len, documents))
    streams = {"train": [], "valid": []}
    for document in documents:
        for piece in cut(document, 50_000):
            part = streams["valid" if split_hash(piece, 0) < threshold else "train"]
            part += [bpe.eot_id] * bool(part) + bpe.encode(piece)
    for part, blocks in (("train", corpus.train), ("valid", corpus.valid)):
        assert blocks[:].flatten().tolist() == streams[part][: blocks.num_tokens]
        assert len(streams[part]) - blocks.num_tokens < 64
    hashes = [split_hash(piece, 0) for document in documents for piece in cut(document, 50_000)]
    assert sum(h < threshold for h in hashes) == max(1, round(0.05 * len(hashes)))
    assert isinstance(corpus.train.arrays[0], np.memmap)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_shards_go_on_after_an_interruption(tmp_path, bpe, monkeypatch):
    source = tmp_path / "rows.jsonl"
    rows = [{"text": book(i, 20)} for i in range(60)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"tokenizer": bpe, "shard_tokens": 20_000, "progress": False}
    whole = prepare_shards(source, tmp_path / "whole", **options)

    real, calls = np.save, []

    def dies(file, tokens):
        calls.append(1)
        if len(calls) == 4:
            file.write(b"half a file")
            raise KeyboardInterrupt
        real(file, tokens)

    monkeypatch.setattr(np, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(source, tmp_path / "again", **options)
    monkeypatch.setattr(np, "save", real)
    with pytest.raises(ValueError, match="is not complete"):
        load_shards(tmp_path / "again", 16)
    with pytest.raises(ValueError, match=r"prepared with split_seed=0, not 1.*another folder"):
        prepare_shards(source, tmp_path / "again", **options, split_seed=1)
    assert prepare_shards(source, tmp_path / "again", **options) == whole
    assert prepare_shards(source, tmp_path / "again", **options) == whole  # nothing left to do
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()

    name = whole["train"]["shards"][0]["name"]
    np.save(tmp_path / "again" / name, np.zeros(5, dtype=np.uint16))
    with pytest.raises(ValueError, match=f"{name} has 5 tokens, not"):
        load_shards(tmp_path / "again", 16)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        prepare_shards(source, tmp_path / "none", **options, valid_fraction=0)
    (tmp_path / "short.txt").write_text("one short text")
    with pytest.raises(ValueError, match="one document, or of copies of one, cannot be split"):
        prepare_shards(tmp_path / "short.txt", tmp_path / "none", **options)
    source.write_text((json.dumps({"text": "always the same"}) + "\n") * 300)
    with pytest.raises(ValueError, match=r"none of 300 documents fell to valid.*--valid-fraction"):
        prepare_shards(source, tmp_path / "same", **options)


def test_shards_of_many_documents_are_split_by_their_hash():
    documents = [f"document {i}" for i in range(4000)]
    threshold = choose_threshold(iter(documents), 0.1, seed=0)
    assert threshold == 0.1
    share = np.mean([split_hash(document, 0) < threshold for document in documents])
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / 4000) ** 0.5  # five standard deviations


@pytest.mark.parametrize("copies", [2, 198, 200, 300])
def test_copies_do_not_move_the_threshold(copies):
    documents = ["the same"] * copies + [f"document {i}" for i in range(4000)]
    assert choose_threshold(iter(documents), 0.05, seed=0) == 0.05


@given(st.lists(st.integers(0, 9), min_size=2, max_size=199), st.floats(0.01, 0.99))
def test_a_small_corpus_is_split_by_the_number_of_documents(numbers, fraction):
    """As near to the wanted number as is possible where copies stay together."""
    documents = [f"text {number}" for number in numbers]
    if len(set(numbers)) < 2:
        with pytest.raises(ValueError, match="copies of one"):
            choose_threshold(iter(documents), fraction, seed=0)
        return
    threshold = choose_threshold(iter(documents), fraction, seed=0)
    hashes = [split_hash(document, 0) for document in documents]
    possible = [sum(h < other for h in hashes) for other in set(hashes)]
    wanted = round(fraction * len(documents))
    nearest = min(abs(n - wanted) for n in possible if n)
    assert abs(sum(h < threshold for h in hashes) - wanted) == nearest


def test_memory_of_a_preparation_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    """The peak grows by less than a tenth of the text that is added (by the list of shards)."""
    texts = [book(seed, 25) for seed in range(20)]  # 4 kB each

    def peak(num: int) -> int:
        documents = (f"{texts[i % 20]} {i}" for i in range(num))
        monkeypatch.setattr(shards, "load_documents", lambda source, **_: documents)
        monkeypatch.setattr(shards, "choose_threshold", lambda *_: 0.1)
        folder = tmp_path / str(num)
        options = {"shard_tokens": 50_000, "progress": False}
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        index = prepare_shards("endless", folder, CharTokenizer(), **options)
        assert index["documents"] == num
        return tracemalloc.get_traced_memory()[1] - before

    small_batches = partial(encode_documents, batch_characters=20_000)
    monkeypatch.setattr(shards, "encode_documents", small_batches)
    tracemalloc.start()
    try:
        peak(20)  # what happens at the first call alone
        few, many = peak(100), peak(600)
        assert many - few < 0.1 * 500 * len(texts[0])
    finally:
        tracemalloc.stop()


def test_shards_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text(book(0, 3000))
    command = ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")]
    shards_main([*command, "--tokenizer", "bpe", "--vocab-size", "270"])
    assert "train:" in capsys.readouterr().out
    assert load_corpus(tmp_path / "out", 32).tokenizer.vocab_size == 270
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_corpus("~/out", 32).tokenizer.vocab_size == 270
    with pytest.raises(SystemExit, match=r"^error: 'no/such.txt' is neither a file"):
        shards_main(["--data", "no/such.txt", "--out", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"^error: .*--out"):
        shards_main([*command, "--tokenizer", "chars"])
    with pytest.raises(SystemExit, match=r"^error: .*vocab_size=270, not 280"):
        shards_main([*command, "--tokenizer", "bpe", "--vocab-size", "280"])
    (tmp_path / "text.txt").write_text(book(0, 6000))
    with pytest.raises(SystemExit, match=r"^error: .*prepared with files="):
        shards_main([*command, "--tokenizer", "bpe", "--vocab-size", "270"])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tokenizer_of_shards_sees_no_validation_text(tmp_path, monkeypatch, seed):
    seen, train = [], BPETokenizer.train
    spy = lambda texts, size: train([seen.append(t) or t for t in texts], size)  # noqa: E731
    monkeypatch.setattr(BPETokenizer, "train", spy)
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"document {i}: " + "words " * 20)
    index = prepare_shards(tmp_path, tmp_path / "out", "bpe", vocab_size=270, split_seed=seed,
                           progress=False)  # fmt: skip
    threshold = index["settings"]["threshold"]
    again = prepare_shards(tmp_path, tmp_path / "out", "bpe", vocab_size=270, split_seed=seed)
    assert again == index  # what was written among the sources is none of them
    assert 270 < len(seen) < 300
    assert all(split_hash(text, seed) >= threshold for text in seen)


def test_many_tokens_are_stored_wide_enough():
    class Wide:
        vocab_size, eot_id = 70_000, None

        def encode_batch(self, texts):
            return [[69_999] for _ in texts]

    ((_, ids),) = encode_documents(["a"], Wide())
    assert ids.tolist() == [69_999]


def test_an_index_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    tokenizers.write_json(tmp_path / "index.json", {"step": 1})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        tokenizers.write_json(tmp_path / "index.json", {"step": 2})
    assert json.loads((tmp_path / "index.json").read_text()) == {"step": 1}
