"""Builds the course: the students' release, the instructor's folders, and nbgrader's configuration.

The folder is an ordinary nbgrader course, so that nbgrader's own commands work in it.
"""

import copy
import io
import logging
import os
import re
import shutil
import warnings
from pathlib import Path

import nbformat
from sources import HERE, SAMPLE_TERM, CourseError, is_, read_term, write_source

BUILD = HERE.parents[1] / "build" / "course"
KEPT = "patient.py", "instructors.md"  # what the instructor's folder has besides hidden tests

CONFIG = '''# Written by course.py. With it nbgrader's own commands work in this folder.
import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821
root = Path(__file__).resolve().parent
instructor = str(root / "instructor")  # hidden tests: imported when grading, never handed out
if instructor not in sys.path:
    sys.path.insert(0, instructor)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([instructor, *([before] if before else [])])
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", PYTHONDONTWRITEBYTECODE="1")
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])

from patient import PatientExecute  # noqa: E402
from nbgrader.converters import Autograde  # noqa: E402
from nbgrader.preprocessors import Execute  # noqa: E402

c.CourseDirectory.root = str(root)
c.CourseDirectory.course_id = "sedd-mini"
c.CourseDirectory.db_url = f"sqlite:///{root / 'gradebook.db'}?timeout=60"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", ".pytest_cache"]
c.Autograde.autograde_preprocessors = [
    PatientExecute if one is Execute else one
    for one in Autograde.autograde_preprocessors.default()
]
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}
'''


def nbgrader(build: Path):
    """nbgrader's configuration and course folder, for its converters.

    CourseError where the configuration is of another folder, which would be read and written.
    """
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import ConfigFileNotFound, PyFileConfigLoader

    again = "run `course.py assignments` again, with this --build"
    try:
        config = PyFileConfigLoader("nbgrader_config.py", str(build)).load_config()
    except (ConfigFileNotFound, ImportError) as error:
        raise CourseError(f"{build / 'nbgrader_config.py'} fails ({error}): {again}") from None
    course = CourseDirectory(config=config)
    if Path(course.root).resolve() != build.resolve():
        raise CourseError(f"{build / 'nbgrader_config.py'} is of {course.root}: {again}")
    return config, course


def convert(build: Path, converter: str, number: int, student: str = "*") -> None:
    """Run one of nbgrader's converters, anew, on one assignment (of one student)."""
    import nbgrader.converters as converters
    from traitlets.log import get_logger

    warnings.filterwarnings("ignore", message="Object of type <Submitted")  # nbgrader's own
    config, course = nbgrader(build)
    course.assignment_id, course.student_id = f"assignment{number}", student
    log, heard = get_logger(), io.StringIO()
    log.handlers, log.propagate = [logging.StreamHandler(heard)], False
    log.setLevel("ERROR")
    one = getattr(converters, converter)(coursedir=course, config=config)
    one.force = True
    try:
        one.start()
    except converters.base.NbGraderException:
        lines = re.findall(r"^[\w.]+(?:Error|Exception|Entry)\b.*", heard.getvalue(), re.M)
        raise CourseError(lines[-1] if lines else heard.getvalue()[:1000]) from None


# ---- the release ---------------------------------------------------------------------------------


def assignments(term_file: Path, build: Path, only: list[int]) -> None:
    """Write the release and the instructor's folders; every term is checked before a file changes.

    CourseError where the term, or an assignment, is not right.
    """
    from proving import check_expected, check_world, wrong_sum  # whoever grades needs no PyTorch

    from sedd_mini.files import whole_folder

    term = read_term(term_file, only)
    build.mkdir(parents=True, exist_ok=True)
    source, instructor = build / "source", build / "instructor"
    unfit = []  # of all assignments, so that their answers can be mended at once
    with whole_folder(build / "checked") as new:  # nothing stays of a term that is not right
        for number in only:
            places = new / f"assignment{number}", new / "instructor"
            notebook = write_source(number, term[number], *places)
            for fault in wrong_sum(notebook):
                raise CourseError(f"assignment{number}.py: {fault}")
            check_world(number, term[number], term_file, *places)
            try:
                check_expected(number, notebook, term_file, *places)
            except CourseError as error:
                unfit.append(str(error))
        if unfit:
            raise CourseError("\n".join(unfit))
    shutil.rmtree(build / "checked")
    (build / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    for number in only:
        shutil.rmtree(source / f"assignment{number}", ignore_errors=True)
        write_source(number, term[number], source / f"assignment{number}", instructor)
    for file in KEPT:
        shutil.copy(HERE / file, instructor / file)
    shutil.copy(term_file, instructor / "term.toml")
    for number in only:
        try:
            convert(build, "GenerateAssignment", number)
        except CourseError as error:
            raise CourseError(
                f"nbgrader could not make the release of assignment {number} ({error}). If work on "
                f"another version was graded in {build}, use another folder: --build"
            ) from None
        shutil.copy(HERE / "students.md", build / "release" / f"assignment{number}" / "README.md")
    print(f"For students: {build / 'release'}, a folder for each of {len(only)} assignments")
    print(f"For you alone: {source} (answers) and {instructor} (hidden tests, rubrics, the term)")
    print(f"The term: {term_file}")
    public = read_term(SAMPLE_TERM, only)
    same = [str(number) for number in only if term[number]["world"] == public[number]["world"]]
    if same:
        print("Its numbers are the repository's, whose answers are public, in assignment "
              + ", ".join(same))  # fmt: skip


def masters(build: Path) -> dict[int, nbformat.NotebookNode]:
    """The released notebooks."""
    paths = sorted((build / "release").glob("assignment[0-9]/assignment[0-9].ipynb"))
    if not paths:
        raise CourseError(f"{build} holds no release: run `course.py assignments` first")
    return {int(path.stem[-1]): nbformat.read(path, as_version=4) for path in paths}


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(text.encode("utf-8"))
    os.replace(temporary, path)


# ---- the sample folder ---------------------------------------------------------------------------


def sample(folder: Path, build: Path) -> None:
    """Write three submissions to assignment 1, to try grading with: a good one, one with mistakes
    that are planted in wrong1.py, and one that is damaged."""
    from proving import read_wrong

    released = masters(build)[1]
    answers = nbformat.read(build / "source" / "assignment1" / "assignment1.ipynb", as_version=4)
    solved = copy.deepcopy(released)
    for cell, answer in zip(solved.cells, answers.cells, strict=True):
        if is_("solution", cell):
            lines = answer.source.splitlines()
            cell.source = "\n".join(line for line in lines if " SOLUTION" not in line)
    mistaken, damaged = copy.deepcopy(solved), copy.deepcopy(solved)
    wrong = {one.breaks: one.source for one in read_wrong(1)}
    for cell in mistaken.cells:
        if cell.id in ("kernel", "step_back", "term"):
            cell.source = wrong[cell.id]
        elif cell.id == "two_words":
            cell.source = "The noise is independent, but the words are not. So use small steps."
    damaged.cells = [cell for cell in damaged.cells if cell.id != "page"]
    for index, cell in enumerate(damaged.cells):
        if cell.id == "rates-visible":
            cell.source = "4.0"
        elif cell.id == "one_way":
            loop = nbformat.v4.new_code_cell("exit()", id="added-000")
            damaged.cells.insert(index + 1, loop)
            break
    books = {"Ada Lovelace": solved, "José Núñez": mistaken, "Wei Lin": damaged}
    for student, book in books.items():
        (folder / student).mkdir(parents=True, exist_ok=True)
        text = nbformat.writes(book)
        write_text(folder / student / "assignment1.ipynb", text.rstrip("\n") + "\n")
    print(f"{len(books)} submissions to assignment 1 in {folder}")
