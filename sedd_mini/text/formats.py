"""One file of a source at a time: its texts, and after each the place where the next one begins.

Every reader is `reader(path, column, start) → Iterator[(text, place)]`: `start` is 0 or a place
that came out before, and reading goes on there without what lies in front of it. A place is a byte
of a text or of lines (jsonl, csv, tsv), a row of a table (parquet, arrow, json, a saved data set).
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from sedd_mini.checks import one_line

LONG_FILE = 4_000_000  # characters; a longer text file comes in pieces
ROWS = 1000  # of a table, that are turned into strings at a time
NAME_IT = "name the one that holds the text (column=…; --column of python -m sedd_mini prepare)"

Texts = Iterator[tuple[str | None, int]]


def read_file(path: Path, column: str, start: int = 0) -> Texts:
    """The texts of a file, by the ending of its name: a table's `column`, or else all as text."""
    reader = READERS.get(path.suffix.lower(), read_text)
    try:
        if not path.is_file():
            raise ValueError(f"{path} is a device or a pipe: write it to a file first, because a "
                             "text is read more than once")  # fmt: skip
        if path.stat().st_size:
            yield from reader(path, column, start)
    except Exception as error:  # each format fails in its own way
        raise named(error, path) from error


def named(error: Exception, source) -> Exception:
    """The error, if it names its source already, else a ValueError that does, in one line."""
    if isinstance(error, OSError | ValueError) and str(source) in str(error):
        return error
    return ValueError(f"cannot read {source}: {one_line(error)}")


def check_column(source, column: str, columns: Iterable[str], is_text: bool = True) -> None:
    if column not in columns or not is_text:
        problem = "has no text in column" if column in columns else "has no column"
        columns = ", ".join(map(str, columns))
        raise ValueError(f"{source} {problem} '{column}'; its columns are {columns}: {NAME_IT}")


def read_text(path: Path, column: str, start: int) -> Texts:
    """The whole text; of a long one pieces of about 4 million characters, cut at line ends."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            if start:
                file.seek(start)
            while piece := file.read(LONG_FILE):
                piece += file.readline(LONG_FILE)
                if "\0" in piece:
                    raise ValueError(
                        f"{path} holds NUL characters, so it is no text, or UTF-16: convert it to "
                        "UTF-8 first"
                    )
                yield piece, file.tell()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): convert it first") from error


class Lines:
    """The lines of a UTF-8 file from a byte on; `place` is the byte after the last one given."""

    def __init__(self, file, start: int):
        self.file, self.place = file, start
        file.seek(start)

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            mark = "utf-8-sig" if self.place == 0 else "utf-8"
            self.place += len(line)
            yield line.decode(mark)


def read_jsonl(path: Path, column: str, start: int) -> Texts:
    with open(path, "rb") as file:
        lines, checked = Lines(file, start), False
        try:
            for line in lines:
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"a line holds a {type(row).__name__}, no object")
                if not checked:
                    checked = not check_column(path, column, row, is_str(row.get(column)))
                text = row.get(column)
                if isinstance(text, str) and not text.isascii():
                    text.encode()  # JSON can name half a character, which no UTF-8 holds
                yield text, lines.place
        except UnicodeEncodeError as error:
            raise ValueError(
                f"cannot read {path}: the line up to byte {lines.place} holds half a character "
                f"({error.object[error.start]!r}), which is no Unicode text: mend that line"
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(
                f"cannot read {path}: the line up to byte {lines.place} is not JSON in UTF-8 "
                f"({one_line(error)})"
            ) from None


def is_str(value) -> bool:
    return isinstance(value, str | None)


def read_csv(path: Path, column: str, start: int) -> Texts:
    """A table whose first line names the columns; fields may be quoted and hold line ends."""
    csv.field_size_limit(2**31 - 1)  # a field is a document
    options = {"delimiter": "\t" if path.suffix.lower() == ".tsv" else ",", "strict": True}
    with open(path, "rb") as file:
        try:
            head = Lines(file, 0)
            names = next(csv.reader(head, **options), [])
            check_column(path, column, names)
            lines = Lines(file, max(start, head.place))
            for row in csv.reader(lines, **options):
                if row and len(row) != len(names):
                    raise ValueError(
                        f"cannot read {path}: the row up to byte {lines.place} has "
                        f"{len(row)} fields, the head {len(names)}"
                    )
                yield row[names.index(column)] if row else None, lines.place
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read {path}: {one_line(error)}") from None


def read_parquet(path: Path, column: str, start: int) -> Texts:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        check_column(path, column, file.schema_arrow.names)
        check_column(path, column, file.schema_arrow.names,
                     is_text_type(file.schema_arrow.field(column).type))  # fmt: skip
        row = 0
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if row + size > start:
                options = {"row_groups": [group], "columns": [column]}
                batches = file.iter_batches(batch_size=ROWS, **options)
                yield from rows_from(batches, column, row, start)
            row += size


def read_arrow(path: Path, column: str, start: int) -> Texts:
    """Both of Arrow's forms, the stream and the file; what is passed over is not read."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_stream(source)
            batches = iter(reader)
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        names = reader.schema.names
        is_text = column in names and is_text_type(reader.schema.field(column).type)
        check_column(path, column, names, is_text)
        yield from rows_from(batches, column, 0, start)


def is_text_type(kind) -> bool:
    import pyarrow.types as t

    kind = kind.value_type if t.is_dictionary(kind) else kind
    return t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind) or t.is_null(kind)


def rows_from(batches: Iterable, column: str, row: int, start: int) -> Texts:
    """The column of record batches, the first of which begins at `row`, from row `start` on."""
    for batch in batches:
        first = max(start - row, 0)
        for at in range(first, batch.num_rows, ROWS):
            texts = batch.column(column).slice(at, ROWS).to_pylist()
            yield from ((text, row + at + i) for i, text in enumerate(texts, 1))
        row += batch.num_rows


def read_json(path: Path, column: str, start: int) -> Texts:
    """A list of objects; held in memory by the package datasets, so a place is only counted."""
    from datasets import load_dataset
    from datasets.utils import logging

    logging.set_verbosity(logging.CRITICAL)  # what is wrong, the error tells
    dataset = load_dataset("json", data_files=str(path), split="train", streaming=True)
    rows = (row[column] for row in checked_rows(dataset, column, path))
    return islice(((text, i) for i, text in enumerate(rows, 1)), start, None)


def checked_rows(dataset: Iterable[dict], column: str, source) -> Iterator[dict]:
    """The rows of a `datasets` data set; raises ValueError where the first lacks the column."""
    checked = False
    try:
        for row in dataset:
            if not checked:
                checked = not check_column(source, column, row, is_str(row.get(column)))
            yield row
    except Exception as error:
        raise named(error, source) from error


def read_saved_dataset(path: Path, column: str, split: str, start: int) -> Texts:
    """A folder that `save_to_disk` of the package datasets wrote."""
    from datasets import load_from_disk

    try:
        dataset = load_from_disk(str(path))
    except Exception as error:  # each layer fails in its own way
        raise named(error, path) from error
    if isinstance(dataset, dict):
        if split not in dataset:
            raise ValueError(
                f"{path} has no split '{split}'; it has {', '.join(dataset)}: name one of these "
                "(split=…; --split of python -m sedd_mini prepare)"
            )
        dataset = dataset[split]
    check_column(path, column, dataset.column_names)
    for i, row in enumerate(checked_rows(rows_after(dataset, start), column, path), start + 1):
        yield row[column], i


def rows_after(dataset, start: int) -> Iterable[dict]:
    """The rows of a table of the package datasets from `start` on; those before are not read."""
    return dataset.select(range(start, len(dataset))) if start < len(dataset) else ()


READERS: dict[str, Callable[[Path, str, int], Texts]] = {
    ".parquet": read_parquet, ".arrow": read_arrow, ".jsonl": read_jsonl, ".json": read_json,
    ".csv": read_csv, ".tsv": read_csv,
}  # fmt: skip
