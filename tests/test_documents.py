"""Sources: every format gives the same documents, streamed; the hub; errors."""

import csv
import itertools
import json

import pytest

from sedd_mini.text.documents import load_documents, read_documents
from sedd_mini.text.hub import OPENWEBTEXT

ROWS = [{"text": f"document {i}\nwith two lines", "id": i} for i in range(7)]


def write_source(kind: str, folder):
    """The same seven documents in each format; returns what to load."""
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list(ROWS)
    path = folder / f"data.{kind}"
    match kind:
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case "json":
            path.write_text(json.dumps(ROWS))
        case "parquet":
            dataset.to_parquet(path)
        case "arrow":
            import pyarrow as pa

            with pa.OSFile(str(path), "wb") as sink:
                table = pa.Table.from_pylist(ROWS)
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
        case "saved":
            path = folder / "saved"
            dataset.save_to_disk(path)
        case "saved dict":
            path = folder / "saved"
            DatasetDict({"train": dataset}).save_to_disk(path)
        case "folder":
            for row in ROWS:
                (folder / f"{row['id']}.txt").write_text(row["text"])
            (folder / "README.md").write_text("not part of the corpus")
            (folder / ".hidden.txt").write_text("not either")
            path = folder
    return path


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "parquet", "arrow", "saved", "saved dict", "folder"]
)
def test_every_format_gives_the_same_documents(kind, tmp_path):
    documents = load_documents(write_source(kind, tmp_path))
    assert iter(documents) is documents  # a stream, not a list
    assert next(documents) == ROWS[0]["text"]
    assert list(documents) == [row["text"] for row in ROWS[1:]]


def test_a_folder_of_data_files_is_read_in_order(tmp_path):
    for name, rows in (("b", ROWS[3:]), ("a", ROWS[:3])):
        text = "".join(json.dumps({"body": row["text"]}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "README.md").write_text("a description")
    assert list(load_documents(tmp_path, column="body")) == [row["text"] for row in ROWS]


def test_of_a_folder_with_splits_one_is_read(tmp_path):
    for name in ("data/train/0000", "data/test/0000", "data/validation/0000"):
        path = tmp_path / f"{name}.JSONL"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"text": name}) + "\n")
    assert list(load_documents(tmp_path)) == ["data/train/0000"]
    assert list(load_documents(tmp_path, split="test")) == ["data/test/0000"]
    with pytest.raises(ValueError, match=r"splits test, train, validation, .*'dev'.*--split"):
        load_documents(tmp_path, split="dev")
    assert list(load_documents(tmp_path / "data/test")) == ["data/test/0000"]  # alone: no choice


def test_rows_without_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": null}\n{"text": ""}\n{"text": "a"}\n{"text": null}\n')
    assert list(load_documents(path)) == ["a"]
    path.write_text("")
    with pytest.raises(ValueError, match=r"no text in .*rows\.jsonl"):
        list(load_documents(path))


def test_a_text_file_is_one_document_and_a_long_one_is_streamed(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    text = "".join(f"line {i} é\n" for i in range(1000))
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert list(load_documents(path)) == [text]
    monkeypatch.setattr("sedd_mini.text.formats.LONG_FILE", 1000)
    pieces = list(load_documents(str(path)))
    assert len(pieces) > 5
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") and len(piece) < 1020 for piece in pieces)


def test_streaming_does_not_read_ahead(tmp_path):
    """The first documents of a 24 MB file arrive although its last line is broken."""
    path = tmp_path / "big.jsonl"
    line = json.dumps({"text": "x" * 40_000}) + "\n"
    path.write_text(line * 600 + '{"text": \n')
    documents = load_documents(path)
    assert len(next(documents)) == len(next(documents)) == 40_000
    with pytest.raises(ValueError, match=r"cannot read .*big\.jsonl: "):
        list(documents)


def test_source_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'no/such.txt' is neither a file.*check the path"):
        load_documents("no/such.txt")
    with pytest.raises(FileNotFoundError, match=r"hub could not be reached.*get online"):
        load_documents("no-such-owner/no-such-data")
    (tmp_path / "rows.jsonl").write_text('{"body": "a", "id": 3}\n')
    with pytest.raises(ValueError, match=r"no column 'text'; its columns are body, id.*--column"):
        load_documents(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="no text in column 'id'"):
        load_documents(tmp_path / "rows.jsonl", column="id")
    (tmp_path / "broken.jsonl").write_text('{"text": \n')
    with pytest.raises(ValueError, match=r"cannot read .*broken\.jsonl: "):
        load_documents(tmp_path / "broken.jsonl")
    (tmp_path / "broken.parquet").write_bytes(b"PAR0")
    with pytest.raises(ValueError, match=r"cannot read .*broken\.parquet: "):
        load_documents(tmp_path / "broken.parquet")
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"no text in .*blank.txt"):
        list(load_documents(tmp_path / "blank.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        list(load_documents(tmp_path / "binary.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no file in it ends in .*\.txt"):
        load_documents(tmp_path / "empty")
    write_source("saved dict", tmp_path)
    with pytest.raises(ValueError, match=r"no split 'test'; it has train: .*--split"):
        load_documents(tmp_path / "saved", split="test")


@pytest.fixture
def hub(monkeypatch):
    """A hub without a network: `answers` by name and revision, and what it was `asked` for."""
    import datasets
    import huggingface_hub

    class Hub:
        answers, asked = {}, []

    def load_dataset(name, config=None, *, split, streaming, revision=None):
        Hub.asked.append((name, revision, streaming))
        answer = Hub.answers[name, revision]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return Hub


SCRIPT = RuntimeError("Dataset scripts are no longer supported, but found openwebtext.py")


@pytest.mark.parametrize("script", [True, False])
def test_openwebtext_is_streamed_also_where_it_is_a_script(hub, script):
    endless = ({"text": f"page {i}"} for i in itertools.count())
    copy = (OPENWEBTEXT, "refs/convert/parquet")
    if script:
        hub.answers = {(OPENWEBTEXT, None): SCRIPT, copy: endless}
        with pytest.warns(UserWarning, match="first 5 GB"):
            documents = load_documents("openwebtext")
    else:
        hub.answers = {(OPENWEBTEXT, None): endless}
        documents = load_documents("openwebtext")
    assert list(itertools.islice(documents, 3)) == ["page 0", "page 1", "page 2"]
    assert hub.asked[-1] == ((*copy, True) if script else (OPENWEBTEXT, None, True))


def test_errors_of_the_hub_keep_their_own_words(hub):
    hub.answers = {
        ("some/script", None): SCRIPT,
        ("gated/set", None): FileNotFoundError("Dataset 'gated/set' is a gated dataset."),
        ("bad/split", None): ValueError("Bad split: train. Available splits: ['test']"),
        ("far/away", None): ConnectionError("no route"),
    }
    with pytest.raises(ValueError, match=r"made by a script.*hf download some/script .*--revision"):
        load_documents("some/script")
    with pytest.raises(ValueError, match=r"^cannot read 'gated/set' from the hub: .*gated dataset"):
        load_documents("gated/set")
    with pytest.raises(ValueError, match=r"^Bad split: train\. Available splits: \['test'\]$"):
        load_documents("bad/split")
    with pytest.raises(FileNotFoundError, match=r"not be reached \(ConnectionError: no route\)"):
        load_documents("far/away")


# ------------------------------------------------------------------------------ tables and places


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_csv_file_is_a_table(kind, tmp_path):
    path, comma = tmp_path / f"rows.{kind}", {"csv": ",", "tsv": "\t"}[kind]
    texts = ["plain", f'quoted "so"{comma} with\r\ntwo lines', "é" * 200_000, " x "]
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=comma)
        writer.writerows([["id", "text"], *enumerate(texts), [9, ""], []])
    assert list(load_documents(path)) == texts
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / path.name)
    assert list(load_documents(tmp_path / "folder")) == texts
    with pytest.raises(ValueError, match=r"no column 'body'; its columns are id, text: .*--column"):
        load_documents(tmp_path / "folder", column="body")
    for broken in ("text\n\n", "text\n", " "):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"no text in|has no column"):
            list(load_documents(path))
    path.write_text(f"id{comma}text\n1{comma}two{comma}three\n")
    with pytest.raises(ValueError, match=r"rows.* up to byte 20 has 3 fields, the head 2"):
        list(load_documents(path))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-16", "latin-1"])
def test_text_that_is_not_utf8_is_refused(encoding, tmp_path):
    for text in ("Some text, café.\n", "Plain text.\n" if encoding != "latin-1" else "ß\n"):
        (tmp_path / "a.txt").write_bytes(text.encode(encoding) * 9)
        with pytest.raises(ValueError, match=r"a\.txt (holds NUL|is not UTF-8).*convert it"):
            load_documents(tmp_path)


def test_paths_that_no_file_can_have():
    for bad in ("~nosuchuser/a.txt", "a\0b.txt", "x" * 300, "y/" * 3000, "\udcff.txt", "", " "):
        with pytest.raises(ValueError, match=r"^.* is no path of a file: [^\n]+$"):
            load_documents(bad)


def test_a_row_that_is_no_object_or_no_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    for line in ("[1, 2]", "3", '{"text": [1]}', '{"text": 3}', "{" * 100_000, "\xff"):
        path.write_bytes(b'{"text": "a"}\n' + line.encode("latin-1") + b"\n")
        with pytest.raises(ValueError, match=r"^[^\n]*rows\.jsonl[^\n]*$"):
            list(load_documents(path))
    path.write_text('{"text": "2020-01-01"}\n\n{"other": 1}\n{"text": "b"}')  # a date stays text
    assert list(load_documents(path)) == ["2020-01-01", "b"]


FORMATS = ["jsonl", "json", "parquet", "arrow", "saved", "saved dict", "folder"]


@pytest.mark.parametrize("kind", [*FORMATS, "csv", "text", "docs"])
def test_reading_goes_on_at_every_place(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("sedd_mini.text.formats.LONG_FILE", 1000)
    monkeypatch.setattr("sedd_mini.text.formats.ROWS", 3)
    if kind == "text":
        source = tmp_path / "a.txt"
        source.write_bytes(b"\xef\xbb\xbf" + "".join(f"{i} é 漢\r\n" for i in range(900)).encode())
    elif kind == "csv":
        source = tmp_path / "a.csv"
        source.write_text('text\na\n"two\nlines"\n\n"",\n'.replace(",", "") + "é\n" * 5)
    else:
        source = "docs" if kind == "docs" else write_source(kind, tmp_path)
    whole = list(read_documents(source, "text", "train", None))
    assert len(whole) >= 7
    for i in {0, 1, 3, len(whole) - 2, len(whole) - 1}:
        place = json.loads(json.dumps(whole[i][1]))
        assert list(read_documents(source, "text", "train", None, place)) == whole[i + 1 :]


def test_what_lies_before_a_place_is_not_read(tmp_path):
    """It can be destroyed: a parquet file's first row groups, a jsonl file's first lines."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"text": f"{i} " + "x" * 50 * i} for i in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=10)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.txt").write_text("".join(row["text"] + "\n" for row in rows) * 3)
    for name in ("a.parquet", "a.jsonl"):
        whole = list(read_documents(tmp_path / name, "text", "train", None))
        content = bytearray((tmp_path / name).read_bytes())
        content[4:4000] = bytes(3996)
        (tmp_path / name).write_bytes(content)
        rest = read_documents(tmp_path / name, "text", "train", None, whole[49][1])
        assert list(rest) == whole[50:]
        with pytest.raises(ValueError, match="cannot read"):
            list(read_documents(tmp_path / name, "text", "train", None))


@pytest.mark.parametrize("streaming", [True, False])
def test_reading_goes_on_in_a_data_set_of_the_hub(streaming, hub, tmp_path, monkeypatch):
    from datasets import Dataset

    dataset = Dataset.from_list([{"text": f"page {i}", "id": i} for i in range(47)])
    hub.asked.clear()
    monkeypatch.setattr("sedd_mini.text.hub.EVERY", 10)

    def read(start=None):
        again = dataset.to_iterable_dataset(num_shards=4) if streaming else dataset
        hub.answers = {("some/set", None): again}
        return list(read_documents("some/set", "text", "train", None, start))

    whole = read()
    assert [text for text, _ in whole] == dataset["text"][:]
    for i in (0, 8, 9, 10, 25, 45, 46):
        rest = read(json.loads(json.dumps(whole[i][1])))
        assert [text for text, _ in rest] == [text for text, _ in whole[i + 1 :]]
