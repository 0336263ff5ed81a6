"""Documents from any source, streamed: Python's own documentation, files, folders, the hub."""

import re
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from sedd_mini.checks import local_path
from sedd_mini.text.formats import READERS, read_file, read_saved_dataset
from sedd_mini.text.hub import read_hub
from sedd_mini.text.python_docs import python_docs

TEXT_SUFFIXES = {".txt", ".text", ".md", ".rst", ".py"}
# what is read of a folder: the files of the first of these kinds that it holds
FOLDER_KINDS = (
    {".parquet", ".arrow", ".jsonl"},
    {".txt", ".text"},
    {".md", ".rst", ".py"},
    {".json", ".csv", ".tsv"},
)
SPLIT = re.compile(r"(?<![a-z])(?:train|validation|valid|dev|test)(?![a-z])")  # in a file's name


def load_documents(
    source: str | Path, *, column: str = "text", split: str = "train", config: str | None = None
) -> Iterator[str]:
    """The documents of a source, one string each, none blank.

    A source is "docs" (Python's own documentation), a text file, a json, jsonl, csv, tsv, parquet
    or arrow file, a folder (of its files, those of one kind are read: data, else .txt, else other
    text, else json and csv; of data files whose names tell of several splits, those of `split`), a
    folder that `save_to_disk` wrote, or the name of a data set on the Hugging Face hub;
    "openwebtext" is short for Skylion007/openwebtext.

    All is streamed: a corpus need not fit in memory. A text file is one document; one longer than
    4 million characters comes in pieces, cut at line ends. `column` names the text column of a
    data set, `split` and `config` choose among what a hub name offers. Raises FileNotFoundError
    for what does not exist or cannot be reached, ValueError for a missing column, for what cannot
    be read or is not text, and (after the last row) when there was no text at all.
    """
    return (document for document, _ in read_documents(source, column, split, config))


def read_documents(
    source: str | Path, column: str, split: str, config: str | None, start: list | None = None
) -> Iterator[tuple[str, list]]:
    """`load_documents` with the place after each document: what is given as `start` later on, so
    that reading goes on there. A place is [number of the file, place in it], and can be JSON."""
    path, file, at = local_path(source), *(start or [0, 0])
    if str(source) == "docs":
        stream = ((text, [0, i]) for i, text in enumerate(python_docs()[at:], at + 1))
    elif (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        stream = ((text, [0, i]) for text, i in read_saved_dataset(path, column, split, at))
    elif path.is_dir():
        stream = read_files(files_of(path, split), column, file, at)
    elif path.exists():
        stream = read_files([path], column, file, at)
    elif path.suffix.lower() in TEXT_SUFFIXES | READERS.keys():
        raise FileNotFoundError(
            f"{str(source)!r} is neither a file, nor a folder, nor 'docs': check the path"
        )
    else:
        stream = ((text, [0, i]) for text, i in read_hub(str(source), column, split, config, at))
    first = list(islice(stream, 1))  # so that what is wrong from the start is said at the start
    return not_blank(chain(first, stream), source, start is None)


def read_files(files: list[Path], column: str, file: int, at: int):
    for number in range(file, len(files)):
        for text, place in read_file(files[number], column, at if number == file else 0):
            yield text, [number, place]


def not_blank(documents, source, from_start: bool) -> Iterator[tuple[str, list]]:
    empty = from_start
    for document, place in documents:
        if not isinstance(document, str | None):
            raise ValueError(f"{source} holds {document!r} where text is expected")
        if document and not document.isspace():
            empty = False
            yield document, place
    if empty:
        raise ValueError(f"no text in {source}: it holds no document that is not blank")


def files_of(folder: Path, split: str = "train") -> list[Path]:
    """The files of one kind (data, then text, then mark-up or code) in a folder, in order.

    Of data files whose names tell of two or more splits, those of `split`; raises ValueError if
    there are none. What is hidden, or lies in a folder of prepared shards, is passed over.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    prepared = {p.parent for p in files if p.name == "shards.json"}
    files = [p for p in files if not any(x[0] == "." for x in p.relative_to(folder).parts)]
    files = [p for p in files if p.parent not in prepared]
    for kind in FOLDER_KINDS:
        if chosen := [p for p in files if p.suffix.lower() in kind]:
            return of_split(folder, chosen, split) if kind & READERS.keys() else chosen
    kinds = ", ".join(sorted(set().union(*FOLDER_KINDS)))
    raise ValueError(f"no text in folder {folder}: no file in it ends in {kinds}")


def of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    named = {p: set(SPLIT.findall(p.relative_to(folder).as_posix().lower())) for p in files}
    found = set().union(*named.values())
    if len(found) < 2:
        return files
    if split not in found:
        raise ValueError(
            f"{folder} holds the splits {', '.join(sorted(found))}, and none that is named "
            f"'{split}': name one (split=…; --split of python -m sedd_mini prepare), or give the "
            "folder of one"
        )
    return [p for p in files if split in named[p]]
