"""Reads what an instructor writes: assignmentN.py, and the term file with this term's numbers.

An assignment's source is a notebook in py:percent. Its cells carry nbgrader's metadata, of which
only what differs from the rule is written down; here the rest is filled in.
"""

import copy
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
SAMPLE_TERM = HERE / "terms" / "sample.toml"
PLACE = re.compile(r"\{\{\s*(\w+)\s*\}\}")  # {{key}} in a statement: a number of the term's world
POINTS = re.compile(r"\bpoints=(\d+(?:\.\d+)?)")
NOTEBOOK = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"},
}


class CourseError(Exception):
    """What an instructor has to mend: one line, and lines to paste after it where there are any."""


def numbers(folder: Path = HERE) -> list[int]:
    """The assignments that there are."""
    return sorted(int(path.stem[10:]) for path in folder.glob("assignment[0-9].py"))


def name_of(cell: NotebookNode) -> str | None:
    """A cell's nbgrader name (grade_id), which is also its id."""
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def problem_of(name: str) -> str:
    """The problem that a cell belongs to: its name up to the first hyphen."""
    return name.split("-")[0]


def is_(kind: str, cell: NotebookNode) -> bool:
    """Is it "test" (graded by code), "hand" (graded by hand), "solution" (to be filled in)?"""
    mark = cell.metadata.get("nbgrader", {})
    grade, solution = mark.get("grade", False), mark.get("solution", False)
    return {"test": grade and not solution, "hand": grade and solution, "solution": solution}[kind]


# ---- the notebook --------------------------------------------------------------------------------


def read_percent(path: Path) -> NotebookNode:
    """A py:percent file as a notebook without Jupytext's own marks."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    return nbformat.reads(jupytext.writes(notebook, fmt="ipynb"), as_version=4)


def read_assignment(number: int, world: dict, folder: Path = HERE) -> NotebookNode:
    """assignmentN.py as nbgrader's source notebook, answers and hidden tests included.

    world: the term's numbers, for {{key}} in the text. CourseError for a cell that is not right.
    """
    path = folder / f"assignment{number}.py"
    notebook = read_percent(path)
    for index, cell in enumerate(notebook.cells):
        mark = cell.metadata.get("nbgrader", {"grade_id": f"text-{index:03d}"})
        fill_in(mark, cell, path.name)
        cell.metadata = NotebookNode(nbgrader=mark)
        cell.id = mark["grade_id"]
        if cell.cell_type == "markdown":
            cell.source = PLACE.sub(lambda match: value_of(match[1], world, path.name), cell.source)
    names = [cell.id for cell in notebook.cells]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CourseError(f"{path.name}: two cells are called {', '.join(twice)}")
    release = sha256("\0".join(cell.source for cell in notebook.cells).encode()).hexdigest()[:12]
    ours = {"sedd_mini": {"assignment": number, "release": release}}
    notebook.metadata = nbformat.from_dict(copy.deepcopy(NOTEBOOK) | ours)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def fill_in(mark: dict, cell: NotebookNode, file: str) -> None:
    """Complete a cell's nbgrader metadata; a test's points stand in its code, as points=8."""
    for key, value in {"schema_version": 3, "grade": False, "solution": False}.items():
        mark.setdefault(key, value)
    mark |= {"task": False, "locked": not mark["solution"], "cell_type": cell.cell_type}
    name = mark.get("grade_id", "")
    if not re.fullmatch(r"\w[\w-]*", name, re.ASCII):
        raise CourseError(f"{file}: a cell's grade_id is {name!r}; use letters, digits, _ and -")
    if mark["grade"] and not mark["solution"]:
        found = POINTS.findall(cell.source)
        if len(found) != 1:
            raise CourseError(f"{file}: test cell {name} must say points=… once")
        mark["points"] = float(found[0])
    elif mark["grade"] and "points" not in mark:
        raise CourseError(f"{file}: the answer in words {name} has no points in its metadata")


def value_of(key: str, world: dict, file: str) -> str:
    if key not in world:
        raise CourseError(f"{file}: its text asks for {{{{{key}}}}}, which the term's world lacks")
    return str(world[key])


# ---- the term ------------------------------------------------------------------------------------


def read_term(path: Path, only: list[int]) -> dict[int, dict]:
    """Each assignment's {"world": …, "expected": …} from an instructor's TOML file.

    CourseError in one line unless every part has the keys, and the kinds of values, that
    terms/sample.toml has there.
    """
    content, sample = read_toml(path), read_toml(SAMPLE_TERM)
    found = {}
    for number in only:
        name, found[number] = f"assignment{number}", {}
        for part in ("world", "expected"):
            have = content.get(name, {}).get(part)
            want = sample.get(name, {}).get(part)
            if not isinstance(want, dict):
                raise CourseError(f"{SAMPLE_TERM.name} has no part [{name}.{part}]")
            if not isinstance(have, dict):
                raise CourseError(f"{path}: the part [{name}.{part}] is missing")
            for key in sorted(set(want) | set(have)):
                if key not in have:
                    raise CourseError(f"{path}: [{name}.{part}] lacks {key}")
                if key not in want:
                    raise CourseError(f"{path}: [{name}.{part}] has {key}, which nothing reads")
                if kind(have[key]) != kind(want[key]):
                    raise CourseError(
                        f"{path}: [{name}.{part}] {key} must be {kind(want[key])}, "
                        f"as in {SAMPLE_TERM.name}, not {kind(have[key])}"
                    )
            found[number][part] = have
    return found


def kind(value) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | list | dict):
        return type(value).__name__
    if isinstance(value, list):
        return f"a list of {kind(value[0])}" if value else "an empty list"
    return {"int": "a number", "float": "a number", "str": "a text", "dict": "a table"}[
        type(value).__name__
    ]


def read_toml(path: Path) -> dict:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CourseError(f"the term file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"the term file {path} is not TOML: {error}") from None


# ---- files of a built assignment -----------------------------------------------------------------


def write_source(number: int, term: dict, source: Path, instructor: Path) -> NotebookNode:
    """Write nbgrader's source folder of one assignment, and what only the instructor keeps.

    source/: the notebook, testsN.py, grading.py, term.json: students get all of it, less the
    answers and hidden tests. instructor/: hiddenN.py, expectedN.json, rubricN.md.
    """
    notebook = read_assignment(number, term["world"])
    for folder in (source, instructor):
        folder.mkdir(parents=True, exist_ok=True)
    nbformat.validate(notebook)
    nbformat.write(notebook, source / f"assignment{number}.ipynb")
    for file in ("grading.py", f"tests{number}.py"):
        (source / file).write_bytes((HERE / file).read_bytes())
    for file in (f"hidden{number}.py", f"rubric{number}.md"):
        (instructor / file).write_bytes((HERE / file).read_bytes())
    write = json.dumps(term["world"], ensure_ascii=False, indent=1)
    (source / "term.json").write_text(write + "\n", encoding="utf-8")
    write = json.dumps(term["expected"], ensure_ascii=False, indent=1)
    (instructor / f"expected{number}.json").write_text(write + "\n", encoding="utf-8")
    return notebook


@contextmanager
def modules_from(*folders: Path) -> Iterator[None]:
    """Import the course's modules from these folders, and forget them afterwards."""
    ours = re.compile(r"grading|(tests|hidden)\d")

    def forget() -> None:
        for name in [name for name in sys.modules if ours.fullmatch(name)]:
            del sys.modules[name]

    forget()
    before, writes = sys.path[:], sys.dont_write_bytecode
    sys.path[:0], sys.dont_write_bytecode = map(str, folders), True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = before, writes
        forget()
