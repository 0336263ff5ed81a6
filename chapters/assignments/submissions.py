"""Makes of whatever a student handed in a notebook that can be graded, and says what was mended.

The statements and tests come from the release, always; from the student come the cells to be filled
in, and cells that were added. So a test that was changed, deleted or copied does no harm.
"""

import copy
import re
import unicodedata
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell
from sources import is_, name_of

LARGEST = 50_000_000  # bytes of a notebook that is still read
FILES = 20_000_000  # bytes of other files that are taken along


@dataclass
class Submission:
    """One student's work on one assignment: the notebook to grade, and remarks on it."""

    student: str  # as the folder is called
    number: int
    notebook: NotebookNode
    remarks: list[str] = field(default_factory=list)
    folder: Path | None = None  # where other files of the student may lie
    missing: bool = False  # nothing was handed in that can be graded: 0 points, and nothing is run
    failed: bool = False  # nbgrader could not grade it: it has no points, not even 0


def safe_ids(names: list[str], known: dict[str, str] | None = None) -> dict[str, str]:
    """{folder name: student id}: letters and digits that any file system and nbgrader take.

    known: ids given earlier, which stay.
    """
    ids = dict(known or {})
    for name in sorted(set(names) - set(ids)):
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_") or "student"
        number, unique = 2, plain
        while unique.lower() in {one.lower() for one in ids.values()}:
            unique, number = f"{plain}_{number}", number + 1
        ids[name] = unique
    return ids


def collect(folder: Path, masters: dict[int, NotebookNode], only: list[int]) -> list[Submission]:
    """Every student's submissions in FOLDER/student/….ipynb: one for each assignment handed in.

    An assignment counts as handed in if any student's folder holds it, or if it alone is graded;
    whoever lacks it gets 0.
    """
    students = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {student.name: look(student, masters, only) for student in students}
    handed = {number for books, named, _ in found.values() for number in (*books, *named)}
    due = sorted(handed & set(only)) or (only if len(only) == 1 else [])
    return [
        choose(student.name, number, *found[student.name], masters[number])
        for student in students
        for number in due
    ]


def look(student: Path, masters: dict[int, NotebookNode], only: list[int]) -> tuple:
    """What a student's folder holds: ({assignment: [(path, notebook)]}, the assignments that files
    which cannot be graded are named after, remarks on these files)."""
    books: dict[int, list] = {}
    named, remarks = set(), []
    for path in sorted(student.rglob("*.ipynb")):
        title = path.relative_to(student)
        if any(part.startswith(".") for part in title.parts):
            continue  # .ipynb_checkpoints
        number, notebook, reason = read(path, masters)
        if number in only:
            books.setdefault(number, []).append((path, notebook))
            continue
        reason = reason or f"it is a notebook of assignment {number}"
        remarks.append(f"{title} was not graded: {reason}.")
        named |= {number_in(path.name)} - {None}
    return books, named, remarks


def choose(
    student: str, number: int, books: dict, named: set, remarks: list[str], master: NotebookNode
) -> Submission:
    """A student's submission to one assignment: of several notebooks the one with the right name,
    else the last by name; an untouched notebook where there is none."""
    mine = books.get(number, [])
    if not mine:
        text = f"No notebook of assignment {number} was found that can be graded."
        return Submission(student, number, copy.deepcopy(master), [text, *remarks], missing=True)
    right = [book for book in mine if book[0].name == f"assignment{number}.ipynb"]
    path, notebook = (right or mine)[-1]
    notebook, mended = restore(notebook, master)
    if number_in(path.name) not in (None, number):
        mended.append(f"{path.name} is a notebook of assignment {number}, and was graded as such.")
    if len(mine) > 1:
        mended.append(f"Of {len(mine)} notebooks of assignment {number}, {path.name} was graded.")
    return Submission(student, number, notebook, mended + remarks, path.parent)


def number_in(title: str) -> int | None:
    """The assignment that a file's name speaks of."""
    match = re.search(r"assignment[ _-]?(\d)", title, re.I)
    return int(match[1]) if match else None


def read(path: Path, masters: dict[int, NotebookNode]) -> tuple:
    """(assignment, notebook, reason): the first two are None where the file is of no use."""
    try:
        if path.stat().st_size > LARGEST:
            return None, None, f"it has more than {LARGEST // 1_000_000} MB"
        with warnings.catch_warnings(action="ignore"):  # of ids that stand twice
            notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        cells = [cell for cell in notebook.cells if isinstance(cell.source, str)]
        notebook.cells = [c for c in cells if c.cell_type in ("code", "markdown", "raw")]
        for cell in notebook.cells:
            cell.metadata.get("nbgrader", {}).get("grade_id")
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return None, None, f"it is not a notebook ({reason[0][:100]})"
    names = {name_of(cell) or cell.get("id") for cell in notebook.cells}
    counts = {
        number: len(names & {cell.id for cell in master.cells if not cell.id.startswith("text-")})
        for number, master in masters.items()
    }
    ours = notebook.metadata.get("sedd_mini", {})
    claimed = ours.get("assignment") if isinstance(ours, dict) else None
    number = claimed if claimed in masters else max(counts, key=counts.get)
    if not counts[number]:
        return None, None, "none of its cells belongs to an assignment"
    return number, notebook, None


def restore(handed: NotebookNode, master: NotebookNode) -> tuple[NotebookNode, list[str]]:
    """The release's notebook with a student's answers and added cells; and remarks."""
    known = {cell.id: cell for cell in master.cells}
    answers, added, last = {}, {None: []}, None
    changed, seen, copied = [], set(), []
    for cell in handed.cells:
        name = name_of(cell) if name_of(cell) in known else cell.get("id")
        if name not in known:
            if cell.source.strip():
                added.setdefault(last, []).append(plain(cell))
            continue
        last = name
        if is_("solution", known[name]):
            if name not in seen:
                answers[name] = cell.source
            elif cell.source != answers[name]:
                copied.append(name)
                added.setdefault(name, []).append(plain(cell))
        elif cell.source.strip() != known[name].source.strip() and is_("test", known[name]):
            changed.append(name)
        seen.add(name)
    remarks = []
    missing = [name for name in known if name not in seen and not name.startswith("text-")]
    release = [book.metadata.get("sedd_mini", {}).get("release") for book in (handed, master)]
    if release[0] != release[1]:
        remarks.append("The notebook is from another release; this release's tests were used.")
    for names, text in (
        (missing, "Cells were missing, and were put back: "),
        (changed, "Test cells were changed, and were restored: "),
        (copied, "Answers stood in several cells, and all were run: "),
    ):
        if names:
            remarks.append(text + ", ".join(dict.fromkeys(names)) + ".")
    notebook = copy.deepcopy(master)
    cells = list(added[None])
    for cell in notebook.cells:
        cell.source = answers.get(cell.id, cell.source)
        cells += [cell, *added.get(cell.id, [])]
    for index, cell in enumerate(cells):
        if cell.id not in known:
            cell.id = f"added-{index:03d}"
    notebook.cells = cells
    return notebook, remarks


def plain(cell: NotebookNode) -> NotebookNode:
    """A student's own cell without outputs and marks."""
    new = new_code_cell if cell.cell_type == "code" else new_markdown_cell
    return new(cell.source)


def with_remarks(one: Submission) -> NotebookNode:
    """The notebook with its remarks at the top, where feedback shows them."""
    notebook = copy.deepcopy(one.notebook)
    if one.remarks:
        lines = ["**Remarks on what was handed in**", "", *(f"- {text}" for text in one.remarks)]
        notebook.cells.insert(0, new_markdown_cell("\n".join(lines), id="remarks"))
    return notebook


def other_files(one: Submission, taken: set[str]) -> list[Path]:
    """The student's files that lie beside the notebook, without notebooks and the release's own."""
    if one.folder is None:
        return []
    files = [p for p in sorted(one.folder.iterdir()) if p.is_file() and not p.is_symlink()]
    files = [p for p in files if p.suffix != ".ipynb" and p.name not in taken]
    size = 0
    kept = []
    for path in files:
        size += path.stat().st_size
        if size > FILES:
            one.remarks.append(f"{path.name} was left out: the files are too large.")
            break
        kept.append(path)
    return kept
