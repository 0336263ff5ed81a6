"""Data sets of the Hugging Face hub, streamed; offline (HF_HUB_OFFLINE=1) from the cache."""

import json
import re
import warnings
from collections.abc import Iterator
from itertools import islice

from sedd_mini.checks import one_line
from sedd_mini.text.formats import checked_rows, rows_after

OPENWEBTEXT = "Skylion007/openwebtext"
PARQUET_COPY = "refs/convert/parquet"  # the branch in which the hub keeps a copy of a data set
EVERY = 500  # rows, after which the place in a stream is noted


def read_hub(
    name: str, column: str, split: str, config: str | None, start: dict | int = 0
) -> Iterator[tuple[str | None, dict]]:
    """The texts of a data set and after each the place, which `start` takes.

    A place is a state of the stream, as the package datasets tells it, and the rows since then.
    """
    unknown = f"{name!r} is neither a file, nor a folder, nor 'docs'"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise FileNotFoundError(f"{unknown}: check the path")
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    def unreachable(error: Exception) -> FileNotFoundError:
        return FileNotFoundError(
            f"{unknown}, and the hub could not be reached ({type(error).__name__}: "
            f"{one_line(error)}). Check the spelling; or get online; or give files that were "
            "downloaded elsewhere; or, if it was loaded on this machine before, set "
            "HF_HUB_OFFLINE=1"
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
        dataset = open_hub(repo, config, split, streaming=not offline)
    except ConnectionError as error:
        raise unreachable(error) from error
    except ValueError:  # an unknown split or configuration: the message lists the known
        raise
    except Exception as error:
        raise ValueError(f"cannot read '{name}' from the hub: {one_line(error)}") from error
    return places_of(dataset, column, name, start or {"state": None, "rows": 0})


def places_of(dataset, column: str, source, start: dict) -> Iterator[tuple[str | None, dict]]:
    """Of a stream that knows no state, or a table, the place is the number of rows alone."""
    streams = hasattr(dataset, "load_state_dict")
    state, rows = start["state"], start["rows"]
    if streams and state is not None:
        dataset.load_state_dict(json.loads(state))
        skip = rows
    elif hasattr(dataset, "select"):
        dataset, skip = rows_after(dataset, rows), 0
    else:
        skip = rows
    for row in islice(checked_rows(dataset, column, source), skip, None):
        rows += 1
        if streams and rows >= EVERY:
            state, rows = json.dumps(dataset.state_dict()), 0
        yield row[column], {"state": state, "rows": rows}


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
