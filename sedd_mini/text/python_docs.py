"""Python's own documentation: 480 documents, 2 MB of English, frozen in the package.

One document for each topic of the language reference (`pydoc_data.topics`), then one for each
module of the standard library: its docstrings, in the order of the source. `python_docs` reads what
was gathered once, with CPython 3.11.7, so that every Python and every machine has the same corpus:

    python -m sedd_mini.text.python_docs sedd_mini/text/frozen/python_docs.json.xz

made the file. It holds text of Python's, whose licence and origin stand beside it.
"""

import ast
import gc
import inspect
import json
import lzma
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sedd_mini.text.hashes import corpus_hash

FROZEN = Path(__file__).parent / "frozen" / "python_docs.json.xz"
HASH = "37d1f7955d09f7aa0007d9f235583251f4eee8f75b8bee1c2bd012814780c49d"  # of its documents
SKIPPED = {  # tests, programs, what is not the library, and what repeats one sentence a file
    *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip", "encodings"),
    *("site-packages", "dist-packages", "__pycache__", "pydoc_data", "__phello__"),
}


@cache
def python_docs() -> tuple[str, ...]:
    """480 documents of printable ASCII, without repetitions or ruled lines; read in 0.1 s.

    Raises ValueError if the file is damaged or holds other documents than it should.
    """
    try:
        documents = tuple(json.loads(lzma.decompress(FROZEN.read_bytes())))
        whole = corpus_hash(documents) == HASH
    except (lzma.LZMAError, EOFError, ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{FROZEN} is damaged: install the package, or check it out, once more")
    return documents


def main(arguments: list[str] | None = None) -> None:
    """Gathers the documentation of the Python that runs this, and writes it to a file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit("usage: python -m sedd_mini.text.python_docs OUT.json.xz")
    documents = list(gather(Path(sysconfig.get_path("stdlib"))))
    content = json.dumps(documents, ensure_ascii=False).encode()
    Path(arguments[0]).write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    found = corpus_hash(documents)
    same = "the same as" if found == HASH else "not"
    print(f"{len(documents)} documents of hash {found}: {same} those of the package")


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
    from sedd_mini.text.tokenizers import to_printable  # reading should not need PyTorch

    text = inspect.cleandoc(to_printable(text))
    text = re.sub(r"^[ \t]*([*=\-~^_#.\"'`+])\1{3,}[ \t]*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


if __name__ == "__main__":
    main()
