"""Submissions that an autograder must survive, made from a released and a solved notebook.

Each is (what becomes of the solved notebook, the problems that lose points, what the remark or the
feedback must say). A name is that of the student's folder.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

LOOP = "while True:\n    pass"
STUBBORN = """import time
while True:
    try:
        time.sleep(0.1)
    except BaseException:
        pass"""


@dataclass
class Hostile:
    """make: changes the solved notebook, or returns the bytes of a file; loses: problems without
    full points ("all": everything is 0); says: words that the remarks must hold."""

    make: Callable
    loses: str = ""
    says: str = ""
    file: str = "assignment1.ipynb"


def put(source: str, after: str = "rates") -> Callable:
    """Add a cell of code after this one."""

    def change(book, released):
        index = next(i for i, cell in enumerate(book.cells) if cell.id == after)
        book.cells.insert(index + 1, new_code_cell(source))

    return change


def answer(name: str, source: str) -> Callable:
    """Another answer to a problem."""

    def change(book, released):
        next(cell for cell in book.cells if cell.id == name).source = source

    return change


def without(*names: str) -> Callable:
    def change(book, released):
        book.cells = [cell for cell in book.cells if cell.id not in names]

    return change


def twice(book, released):
    """Every cell is copied, as JupyterLab does it: with its metadata."""
    book.cells = [copy.deepcopy(cell) for cell in book.cells for _ in range(2)]


def first_try_first(book, released):
    """An answer and a better one below, in a copy of the cell."""
    index = next(i for i, cell in enumerate(book.cells) if cell.id == "rates")
    first = copy.deepcopy(book.cells[index])
    first.source = "def rate_matrix(S, jumps):\n    return 0"
    book.cells.insert(index, first)


def easy_tests(book, released):
    """All tests give full points, and the answers are missing."""
    for cell in book.cells:
        mark = cell.metadata.nbgrader
        if mark.grade and not mark.solution:
            cell.source = f"{mark.points}"
            mark.points = 1000.0
        elif mark.solution:
            cell.source = "pass"


def upside_down(book, released):
    book.cells.reverse()


def old(book, released):
    """From a release with other tests, one problem less, and a cell that there is no more."""
    book.metadata.sedd_mini.release = "000000000000"
    without("page", "page-visible", "page-hidden")(book, released)
    book.cells[1].source = "An old statement."
    gone = copy.deepcopy(next(cell for cell in book.cells if cell.id == "rates-visible"))
    gone.id = gone.metadata.nbgrader.grade_id = "gone-visible"
    gone.source = "import tests9"
    book.cells.append(gone)


def no_metadata(book, released):
    """As some editors save it: only the ids of the cells are left."""
    book.metadata = nbformat.from_dict({})
    for cell in book.cells:
        cell.metadata = nbformat.from_dict({})


def in_words(book, released):
    """The answer's cell was changed into text."""
    cell = next(cell for cell in book.cells if cell.id == "page")
    index = book.cells.index(cell)
    text = new_markdown_cell(cell.source, id=cell.id, metadata=cell.metadata)
    book.cells[index] = text


def raw(content: bytes) -> Callable:
    return lambda book, released: content


def cut_off(book, released):
    text = nbformat.writes(book)
    return text[: len(text) // 2].encode()


def foreign(book, released):
    return nbformat.writes(nbformat.v4.new_notebook(cells=[new_code_cell("1 + 1")])).encode()


def third_format(book, released):
    book = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": []}
    return json.dumps(book).encode()


def nothing(book, released):
    return None


SOLVED = {  # what costs no points in code
    "Ada Lovelace": Hostile(lambda book, released: None),
    "José Núñez-O'Brien [2]": Hostile(lambda book, released: None, file="Übung (2) final.ipynb"),
    "loop in a cell": Hostile(put(LOOP), says="stopped"),
    "stubborn loop": Hostile(put(STUBBORN), says="could not be stopped"),
    "crash": Hostile(put("import os\nos._exit(1)"), says="kernel died"),
    "segfault": Hostile(put("import ctypes\nctypes.string_at(0)"), says="kernel died"),
    "exit": Hostile(put("exit()"), says="ended the kernel"),
    "prints without end": Hostile(put("while True:\n    print('x' * 100)"), says="printed more"),
    "prints in C": Hostile(put("import os\nwhile True:\n    os.write(1, b'y' * 999)"), says=""),
    "needs a file": Hostile(put("open('data.csv').read()")),
    "removes its folder": Hostile(put("import os, shutil\nshutil.rmtree(os.getcwd())")),
    "asks": Hostile(put("input('name? ')")),
    "warns": Hostile(put("import warnings\nwarnings.warn('well')", after="setup")),
    "uses our names": Hostile(put("tests = hidden = grading = 3", after="setup")),
    "float64": Hostile(put("torch.set_default_dtype(torch.float64)", after="setup")),
    "lost tests": Hostile(without("rates-visible", "rates-hidden", "setup"), says="put back"),
    "copies": Hostile(twice),
    "two tries": Hostile(first_try_first, says="several cells"),
    "upside down": Hostile(upside_down),
    "no metadata": Hostile(no_metadata, says="another release"),
}

LOSING = {  # and what costs those that it breaks
    "untouched": Hostile(lambda book, released: released, "all"),
    "endless answer": Hostile(answer("page", "def bits_a_word(*a):\n    while 1: pass"), "page"),
    "leaves": Hostile(answer("page", "def bits_a_word(*a):\n    raise SystemExit"), "page"),
    "kills": Hostile(
        answer("page", "import os\ndef bits_a_word(*a):\n    os._exit(3)"), "page", "kernel died"
    ),
    "syntax": Hostile(answer("page", "def bits_a_word(surprise hidden t)"), "page"),
    "in words": Hostile(in_words),
    "lost answer": Hostile(without("page"), "page", "put back"),
    "easy tests": Hostile(easy_tests, "all", "restored"),
    "old release": Hostile(old, "page", "another release"),
    "not JSON": Hostile(raw(b"this is no notebook"), "all", "not a notebook"),
    "not text": Hostile(raw(bytes(range(256))), "all", "not a notebook"),
    "empty file": Hostile(raw(b""), "all", "not a notebook"),
    "cut off": Hostile(cut_off, "all", "not a notebook"),
    "another format": Hostile(third_format, "all", "none of its cells"),
    "wrong notebook": Hostile(foreign, "all", "none of its cells"),
    "nothing at all": Hostile(nothing, "all", "No notebook"),
}

HOSTILE = SOLVED | LOSING


def write(folder: Path, solved, released, names=HOSTILE) -> None:
    """Write these submissions into FOLDER/student/."""
    for name in names:
        book, place = copy.deepcopy(solved), folder / name
        place.mkdir(parents=True)
        content = HOSTILE[name].make(book, copy.deepcopy(released))
        if name == "nothing at all":
            continue
        if not isinstance(content, bytes):
            content = nbformat.writes(book if content is None else content).encode()
        (place / HOSTILE[name].file).write_bytes(content)
