"""Python's own documentation: a corpus of English that is on every machine with a Python.

One document for each topic of the language reference (`pydoc_data.topics`), then one for each
module of the standard library: its docstrings, in the order of the source.
"""

import ast
import gc
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sedd_mini.files import write_json
from sedd_mini.text.tokenizers import to_printable

SKIPPED = {  # tests, programs, what is not the library, and what repeats one sentence a file
    *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "encodings"),
    *("site-packages", "dist-packages", "__pycache__", "pydoc_data", "__phello__"),
}


@cache
def python_docs() -> tuple[str, ...]:
    """About 480 documents, 2 MB, of printable ASCII, without repetitions or ruled lines.

    Nothing is imported: the sources are parsed. The same for the same Python, slightly different
    between versions: record `corpus_hash` with whatever is measured. The first call takes about
    ten seconds; its result is kept in the user's cache folder.
    """
    stdlib = Path(sysconfig.get_path("stdlib"))
    made_from = f"{sys.version} {stdlib} {Path(__file__).read_text(encoding='utf-8')}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sedd_mini"
    path = folder / f"python_docs-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.json"
    try:
        return tuple(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # not there yet, or damaged
        documents = tuple(gather(stdlib))
    try:
        write_json(path, documents)
    except OSError:
        pass  # where the home cannot be written, it is gathered every time
    return documents


def gather(stdlib: Path) -> Iterator[str]:
    """The documents, cleaned; a passage that was seen before is left out."""
    from pydoc_data.topics import topics

    seen = set()
    for passages in [[text] for _, text in sorted(topics.items())] + list(modules(stdlib)):
        fresh = [p for p in dict.fromkeys(map(clean, passages)) if p and p not in seen]
        seen.update(fresh)
        if fresh:
            yield "\n\n".join(fresh)


def modules(stdlib: Path) -> Iterator[list[str]]:
    """The docstrings of each module, in a fixed order on every system."""
    paths = []
    for folder, subfolders, files in os.walk(stdlib):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED]
        paths += [Path(folder, name) for name in files if name.endswith(".py")]
    for path in sorted(paths, key=lambda path: path.relative_to(stdlib).as_posix()):
        if not path.name.startswith("_sysconfigdata"):  # describes the machine, not the language
            yield docstrings(path.read_bytes())


def docstrings(source: bytes) -> list[str]:
    """The docstrings of a module, its classes and functions; none if it does not parse."""
    collecting = gc.isenabled()
    gc.disable()  # a syntax tree is many small objects, and the collector would search them all
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old sources hold invalid escapes
            waiting, found = [ast.parse(source)], []
        while waiting:
            node = waiting.pop()
            found.append(ast.get_docstring(node) or "")
            definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            waiting += [child for child in reversed(node.body) if isinstance(child, definitions)]
        return found
    except (SyntaxError, ValueError):
        return []
    finally:
        if collecting:
            gc.enable()


def clean(text: str) -> str:
    """Printable ASCII; ruled lines such as "*****" and blanks at line ends are left out."""
    text = inspect.cleandoc(to_printable(text))
    text = re.sub(r"^[ \t]*([*=\-~^_#.\"'`+])\1{3,}[ \t]*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()
