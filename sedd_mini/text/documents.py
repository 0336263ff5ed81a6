"""Documents from any source, streamed: Python's own documentation, files, folders, the hub."""

import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from sedd_mini.text.python_docs import python_docs

TEXT_SUFFIXES = {".txt", ".text", ".md", ".rst", ".py"}
DATASET_SUFFIXES = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json"}
# what is read of a folder: the files of the first of these kinds that it holds
FOLDER_KINDS = (
    {".parquet", ".arrow", ".jsonl"},
    {".txt", ".text"},
    {".md", ".rst", ".py"},
    {".json"},
)
SPLIT = re.compile(r"(?<![a-z])(?:train|validation|valid|dev|test)(?![a-z])")  # in a file's name
LONG_FILE = 4_000_000  # characters; a longer text file comes in pieces
OPENWEBTEXT = "Skylion007/openwebtext"
PARQUET_COPY = "refs/convert/parquet"  # the branch in which the hub keeps a copy of a data set


def load_documents(
    source: str | Path, *, column: str = "text", split: str = "train", config: str | None = None
) -> Iterator[str]:
    """The documents of a source, one string each, none blank.

    A source is "docs" (Python's own documentation), a text file, a json, jsonl, parquet or arrow
    file, a folder (of its files, those of one kind are read: data, else .txt, else other text; of
    data files whose names tell of several splits, those of `split`), a folder that `save_to_disk`
    wrote, or the name of a data set on the Hugging Face hub;
    "openwebtext" is short for Skylion007/openwebtext.

    All is streamed: a corpus need not fit in memory. A text file is one document; one longer than
    4 million characters comes in pieces, cut at line ends. `column` names the text column of a
    data set, `split` and `config` choose among what a hub name offers. Raises FileNotFoundError
    for what does not exist or cannot be reached, ValueError for a missing column, for what cannot
    be read or is not text, and (after the last row) when there was no text at all.
    """
    path = Path(source).expanduser()
    if str(source) == "docs":
        documents = iter(python_docs())
    elif (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        documents = read_saved_dataset(path, column, split)
    elif path.is_dir():
        documents = (text for file in files_of(path, split) for text in read_file(file, column))
    elif path.is_file():
        documents = read_file(path, column)
    else:
        documents = read_hub(str(source), column, split, config)
    return not_blank(documents, source)


def not_blank(documents: Iterable[str | None], source) -> Iterator[str]:
    empty = True
    for document in documents:
        if not isinstance(document, str | None):
            raise ValueError(f"{source} holds {document!r} where text is expected")
        if document and not document.isspace():
            empty = False
            yield document
    if empty:
        raise ValueError(f"no text in {source}: it holds no document that is not blank")


def files_of(folder: Path, split: str = "train") -> list[Path]:
    """The files of one kind (data, then text, then mark-up or code) in a folder, in order.

    Of data files whose names tell of two or more splits, those of `split`; raises ValueError if
    there are none.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    files = [p for p in files if not any(x[0] == "." for x in p.relative_to(folder).parts)]
    for kind in FOLDER_KINDS:
        if chosen := [p for p in files if p.suffix.lower() in kind]:
            return of_split(folder, chosen, split) if kind & DATASET_SUFFIXES.keys() else chosen
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


def read_file(path: Path, column: str) -> Iterator[str]:
    if path.suffix.lower() not in DATASET_SUFFIXES:
        return read_text(path)
    from datasets import load_dataset

    if not path.stat().st_size:
        return iter(())
    kind = DATASET_SUFFIXES[path.suffix.lower()]
    try:
        dataset = load_dataset(kind, data_files=str(path), split="train", streaming=True)
    except Exception as error:  # each format fails in its own way
        raise ValueError(f"cannot read {path}: {error}") from error
    return texts_of(dataset, column, path)


def read_text(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            while piece := file.read(LONG_FILE):
                yield piece + file.readline(LONG_FILE)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): convert it first") from error


def read_saved_dataset(path: Path, column: str, split: str) -> Iterator[str]:
    from datasets import load_from_disk

    dataset = load_from_disk(str(path))
    if isinstance(dataset, dict):
        if split not in dataset:
            raise ValueError(
                f"{path} has no split '{split}'; it has {', '.join(dataset)}: name one of these "
                "(split=…; --split of python -m sedd_mini prepare)"
            )
        dataset = dataset[split]
    return texts_of(dataset, column, path)


def read_hub(name: str, column: str, split: str, config: str | None) -> Iterator[str]:
    """Streams a data set of the hub; offline (HF_HUB_OFFLINE=1) it is taken from the cache."""
    unknown = f"'{name}' is neither a file, nor a folder, nor 'docs'"
    is_path = Path(name).suffix in TEXT_SUFFIXES | DATASET_SUFFIXES.keys()
    if is_path or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise FileNotFoundError(f"{unknown}: check the path")
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    def unreachable(error: Exception) -> FileNotFoundError:
        return FileNotFoundError(
            f"{unknown}, and the hub could not be reached ({type(error).__name__}: {error}). "
            "Check the spelling; or get online; or give files that were downloaded elsewhere; or, "
            "if it was loaded on this machine before, set HF_HUB_OFFLINE=1"
        )

    repo = OPENWEBTEXT if name == "openwebtext" else name
    offline = constants.HF_HUB_OFFLINE
    try:
        if not offline:  # answers at once, where load_dataset would try again for half a minute
            HfApi().dataset_info(repo, timeout=10)
    except RepositoryNotFoundError as error:
        raise FileNotFoundError(f"{unknown}, and the hub has no data set of that name") from error
    except Exception as error:  # without network, each layer fails in its own way
        raise unreachable(error) from error
    try:
        return texts_of(open_hub(repo, config, split, streaming=not offline), column, name)
    except ConnectionError as error:
        raise unreachable(error) from error
    except ValueError:  # an unknown split, configuration or column: the message lists the known
        raise
    except Exception as error:
        raise ValueError(f"cannot read '{name}' from the hub: {error}") from error


def open_hub(repo: str, config: str | None, split: str, streaming: bool):
    """The split, as `datasets` gives it; raises ValueError for what is made by a script.

    OpenWebText was so for years, and is where it has not been replaced: there the hub's copy of it
    in parquet files is read.
    """
    from datasets import load_dataset

    try:
        return load_dataset(repo, config, split=split, streaming=streaming)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        if repo == OPENWEBTEXT:
            warnings.warn(
                f"{repo} is made by a script there, so the hub's copy in parquet files is read, "
                "which may hold the first 5 GB alone",
                stacklevel=2,
            )
            return load_dataset(repo, revision=PARQUET_COPY, split=split, streaming=streaming)
        raise ValueError(
            f"'{repo}' is made by a script, which the package datasets no longer runs. The hub "
            "keeps a copy of most such data sets in parquet files (of a large one the first 5 GB); "
            f"fetch it by: hf download {repo} --repo-type dataset --revision {PARQUET_COPY} "
            "--local-dir FOLDER, and give that folder, or the one in it that you want"
        ) from error


def texts_of(dataset, column: str, source) -> Iterator[str]:
    """One column of a `datasets` data set. The first row is read at once, to check the column."""
    rows = rows_of(dataset, source)
    first = next(rows, {column: None})
    if column not in first or not isinstance(first[column], str | None):
        problem = "has no column" if column not in first else "has no text in column"
        raise ValueError(
            f"{source} {problem} '{column}'; its columns are {', '.join(first)}: "
            "name the one that holds the text (column=…; --column of python -m sedd_mini prepare)"
        )
    return (row[column] for row in chain([first], rows))


def rows_of(dataset, source) -> Iterator[dict]:
    try:
        yield from dataset
    except Exception as error:
        raise ValueError(f"cannot read {source}: {error}") from error
