"""Shards: the same stream, interruptions, the split, memory, the command."""

import json
import os
import re
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import book, small_bpe

from sedd_mini.commands.prepare import main as shards_main
from sedd_mini.files import lock
from sedd_mini.text import shards, tokenizers
from sedd_mini.text.blocks import encode_documents
from sedd_mini.text.copies import cut, seen_share
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.documents import load_documents
from sedd_mini.text.hashes import split_hash
from sedd_mini.text.shard_files import load_shards
from sedd_mini.text.shards import choose_threshold, prepare_shards
from sedd_mini.text.tokenizers import BPETokenizer, CharTokenizer, WordTokenizer


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
    with pytest.raises(ValueError, match=f"{name} has 5 tokens of uint16, not"):
        load_shards(tmp_path / "again", 16)
    with pytest.raises(ValueError, match="above 0 and below 1"):
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
        monkeypatch.setattr(shards, "read_documents", lambda *_: ((d, [0, 0]) for d in documents))
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
    monkeypatch.setattr(shards, "seen_share", partial(seen_share, most=1000))
    monkeypatch.setattr("sedd_mini.text.copies.CHUNK", 2**12)
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


# ------------------------------------------------------------------------------ going on


def rows_of_books(folder: Path, kind: str, num: int = 90) -> Path:
    """A source of `num` different texts of about 3 kB, and one of 120 kB in the middle."""
    texts = [f"{i} {book(i, 20)}" for i in range(num)]
    texts[num // 2] = book(num, 700)
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": texts}), path, row_group_size=10)
    else:
        path = folder / "texts"
        path.mkdir()
        for i, text in enumerate(texts):
            (path / f"{i:03d}.txt").write_text(text)
    return path


def contents(folder: Path) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder"])
@pytest.mark.parametrize("place", [1, 2, 5, 9])
def test_going_on_gives_the_same_bytes_and_reads_only_the_rest(kind, place, tmp_path, monkeypatch):
    """Killed while it writes a shard; afterwards nothing is read twice but what was not written."""
    source = rows_of_books(tmp_path, kind)
    options = {"tokenizer": CharTokenizer(), "shard_tokens": 40_000, "progress": False}
    small = partial(encode_documents, batch_characters=5000)
    monkeypatch.setattr(shards, "encode_documents", small)
    whole = prepare_shards(source, tmp_path / "whole", **options)
    assert len(whole["read"]) == 8
    real, calls = np.save, []

    def dies(file, tokens):
        calls.append(1)
        if len(calls) == place:
            file.write(b"half a file")
            raise KeyboardInterrupt
        real(file, tokens)

    monkeypatch.setattr(np, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(source, tmp_path / "again", **options)
    monkeypatch.setattr(np, "save", real)
    done = json.loads((tmp_path / "again" / "shards.json").read_text())["documents"]
    assert (done > 45) == (place == 9)

    read, reader = [], shards.read_documents

    def counting(*arguments):
        for text, at in reader(*arguments):
            read.append(text)
            yield text, at

    monkeypatch.setattr(shards, "read_documents", counting)
    assert prepare_shards(source, tmp_path / "again", **options) == whole
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    assert whole["documents"] == 90 + 1  # the long text is two
    if done:  # else the tokeniser's and the split's first look at the source count, too
        assert 90 - done <= len(read) <= 90 - done + 1
    read.clear()
    assert prepare_shards(source, tmp_path / "again", **options) == whole
    assert not read


@pytest.mark.parametrize("place", [2, 4, 7])
def test_going_on_in_the_middle_of_a_long_text(place, tmp_path, monkeypatch):
    source = tmp_path / "long.txt"
    source.write_text(book(0, 3000))  # 400 kB: eight pieces or so, each a shard of its own
    options = {"tokenizer": CharTokenizer(), "shard_tokens": 1, "progress": False}
    whole = prepare_shards(source, tmp_path / "whole", **options)
    assert whole["documents"] >= 7
    real, calls = np.save, []

    def dies(file, tokens):
        calls.append(1)
        if len(calls) == place:
            raise OSError("No space left on device")
        real(file, tokens)

    monkeypatch.setattr(np, "save", dies)
    with pytest.raises(OSError, match="No space left"):
        prepare_shards(source, tmp_path / "again", **options)
    monkeypatch.setattr(np, "save", real)
    index = json.loads((tmp_path / "again" / "shards.json").read_text())
    assert index["place"] == {"at": None, "piece": place - 1}
    assert prepare_shards(source, tmp_path / "again", **options) == whole
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_a_kill_leaves_a_file_that_goes_and_others_that_stay(tmp_path):
    source = rows_of_books(tmp_path, "jsonl", 40)
    out = tmp_path / "out"
    out.mkdir()
    mine = ["train-00000.npy.tmp", "notes.txt", ".train-00000.npy.tmp", "valid.npy"]
    for name in mine:
        (out / name).write_text("mine")
    (out / ".train-00003.npy.123.tmp").write_text("half a shard")
    prepare_shards(source, out, "chars", progress=False)
    assert all((out / name).read_text() == "mine" for name in mine)
    assert not (out / ".train-00003.npy.123.tmp").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "valid-00000.npy").write_text("mine")
    with pytest.raises(ValueError, match=r"holds valid-00000\.npy but no shards\.json.*--out"):
        prepare_shards(source, tmp_path / "other", "chars")
    CharTokenizer().save(tmp_path / "third")
    with pytest.raises(ValueError, match="holds another tokeniser"):
        prepare_shards(source, tmp_path / "third", "bpe", vocab_size=300)


@pytest.mark.parametrize("complete", [True, False])
def test_a_source_that_changed_is_refused_and_one_that_was_touched_is_not(
    complete, tmp_path, monkeypatch
):
    source = rows_of_books(tmp_path, "jsonl", 60)
    options = {"tokenizer": "chars", "shard_tokens": 30_000, "progress": False}
    if not complete:
        real, calls = np.save, []

        def dies(file, tokens):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            real(file, tokens)

        monkeypatch.setattr(np, "save", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare_shards(source, tmp_path / "out", **options)
        monkeypatch.setattr(np, "save", real)
    else:
        prepare_shards(source, tmp_path / "out", **options)
    lines = source.read_text().splitlines(keepends=True)
    before = contents(tmp_path / "out")
    source.write_text("".join([lines[1], lines[0], *lines[2:]]))  # files of equal size
    os.utime(source, ns=(1, 1))
    with pytest.raises(ValueError, match=r"rows\.jsonl has changed since .*out was prepared"):
        prepare_shards(source, tmp_path / "out", **options)
    assert contents(tmp_path / "out") == before
    source.write_text("".join(lines))
    os.utime(source, ns=(2, 2))
    index = prepare_shards(source, tmp_path / "out", **options)
    assert index["complete"]
    whole = prepare_shards(source, tmp_path / "whole", **options)
    assert index["train"] == whole["train"]


def test_a_folder_in_use_is_refused(tmp_path, monkeypatch):
    """The lock itself, over processes, is tested in test_files.py."""
    locked = []

    class Lock(lock):
        def __init__(self, folder):
            locked.append(folder)
            if len(locked) > 1:
                raise ValueError(f"{folder} is in use by another process")
            super().__init__(folder)

    source = rows_of_books(tmp_path, "jsonl", 30)
    monkeypatch.setattr(shards, "lock", Lock)
    prepare_shards(source, tmp_path / "out", "chars", progress=False)
    with pytest.raises(ValueError, match="in use by another process"):
        prepare_shards(source, tmp_path / "out", "chars")
    assert locked == [tmp_path / "out"] * 2


# ------------------------------------------------------------------------------ what does not fit


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    source = rows_of_books(folder, "jsonl", 40)
    prepare_shards(source, folder / "out", "chars", progress=False)
    return folder / "out"


def test_another_tokenizer_beside_shards_is_refused(prepared, tmp_path):
    corpus = load_corpus(prepared, 16)
    assert 0 <= corpus.info["seen_13grams"] <= 1
    same = [{"tokenizer": "chars"}, {"vocab_size": 97}, {"tokenizer": prepared},
            {"tokenizer": CharTokenizer()}]  # fmt: skip
    for asked in same:
        assert load_corpus(prepared, 16, **asked).info == corpus.info
    WordTokenizer(["a"]).save(tmp_path)
    for other in ("bpe", "gpt2", tmp_path, str(tmp_path), WordTokenizer(["a"])):
        with pytest.raises(ValueError, match=r"out is in tokens of 'chars', not of .*--tokenizer"):
            load_corpus(prepared, 16, tokenizer=other)
    with pytest.raises(ValueError, match=r"has 97 tokens, not the vocab_size=1024 .*--vocab-size"):
        load_corpus(prepared, 16, vocab_size=1024)


def test_a_tokenizer_folder_that_changed_is_refused(tmp_path):
    source = rows_of_books(tmp_path, "jsonl", 40)
    folder, options = tmp_path / "tokens", {"progress": False}
    BPETokenizer.train([book(0, 30)], 300).save(folder)
    index = prepare_shards(source, tmp_path / "out", folder, **options)
    assert prepare_shards(source, tmp_path / "out", folder, **options) == index
    BPETokenizer.train([book(1, 30)], 290).save(folder)
    with pytest.raises(ValueError, match=r"tokens is another one than that which .*out was prep"):
        prepare_shards(source, tmp_path / "out", folder, **options)


DAMAGES = {
    "shards.json": [
        b"", b"{", b"[]", b"3", b"\xff\xfe", b"{}", b'{"settings": 3}', b"{" * 99_999,
        lambda index: index["train"].update(tokens="many"),
        lambda index: index["train"].update(shards={"a": 1}),
        lambda index: index["train"]["shards"][0].update(name="../train-00000.npy"),
        lambda index: index["train"]["shards"][0].pop("sha256"),
        lambda index: index.update(complete="yes"),
        lambda index: index["settings"].update(source=3),
    ],
    "tokenizer.json": [b"", b"{", b"[]", b'{"type": "words", "words": 3}', b'{"model": {}}',
                       b'{"type": "words", "words": [1]}', b'{"type": "ids", "vocab_size": -1}'],
    "train-00000.npy": [b"", b"\x93NUMPY", b"no array", b"truncated", None],
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_named_in_one_line(name, prepared):
    whole = (prepared / name).read_bytes()
    try:
        for damage in DAMAGES[name]:
            if damage is None:
                (prepared / name).unlink()
            elif callable(damage):
                index = json.loads(whole)
                damage(index)
                (prepared / name).write_text(json.dumps(index))
            else:
                content = whole[: len(whole) // 2] if damage == b"truncated" else damage
                (prepared / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"^[^\n]*{re.escape(name)}[^\n]*$"):
                load_corpus(prepared, 16)
    finally:
        (prepared / name).write_bytes(whole)


@pytest.mark.parametrize("bad", [
    {"valid_fraction": 0}, {"valid_fraction": 1}, {"valid_fraction": float("nan")},
    {"valid_fraction": True}, {"valid_fraction": "0.1"}, {"shard_tokens": 0},
    {"shard_tokens": 1.5}, {"shard_tokens": True}, {"split_seed": -1}, {"split_seed": 0.5},
    {"vocab_size": 0, "tokenizer": "bpe"}, {"vocab_size": 256, "tokenizer": "bpe"},
    {"vocab_size": 300, "tokenizer": "chars"}, {"vocab_size": True},
    {"out": "a\0b"}, {"out": "x" * 300}, {"out": "~nosuchuser/x"}, {"out": "\udcff"},
    {"source": "a\0b"}, {"source": "~nosuchuser/x"}, {"tokenizer": "x" * 300},
    {"tokenizer": "no such folder"}, {"out": "text.txt"}, {"out": "text.txt/below"},
])  # fmt: skip
def test_bad_arguments_are_one_line_and_leave_nothing(bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n\n".join(book(i, 30) for i in range(30)))
    given = {"source": "text.txt", "out": "out", "tokenizer": "chars", "progress": False} | bad
    with pytest.raises((ValueError, OSError), match=r"^[^\n]+$"):
        prepare_shards(**given)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
