"""The course: build the students' release, grade what they hand in, prove that grades are right.

    python chapters/assignments/course.py assignments               release for students
    python chapters/assignments/course.py assignments --term FILE   with your own term's numbers
    python chapters/assignments/course.py grade FOLDER              FOLDER/student/assignment1.ipynb
    python chapters/assignments/course.py hand FILE                 points for answers in words
    python chapters/assignments/course.py prove [N ...]             wrong answers lose their points

All is written under build/course. instructors.md beside this file says how to run a course with it.
"""

import argparse
import copy
import csv
import html
import io
import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import nbformat
from sources import (
    HERE,
    SAMPLE_TERM,
    CourseError,
    is_,
    name_of,
    numbers,
    read_term,
    write_source,
)
from submissions import Submission, collect, other_files, safe_ids, with_remarks

BUILD = HERE.parents[1] / "build" / "course"
KEPT = "executing.py", "instructors.md"  # what the instructor's folder has besides hidden tests

CONFIG = '''# Written by course.py. With it nbgrader's own commands work in this folder.
import os
import sys
from pathlib import Path

c = get_config()  # noqa: F821
root = Path({root!r})
instructor = str(root / "instructor")  # hidden tests: imported when grading, never handed out
if instructor not in sys.path:
    sys.path.insert(0, instructor)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([instructor, *([before] if before else [])])
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", PYTHONDONTWRITEBYTECODE="1")
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])

from executing import PatientExecute  # noqa: E402
from nbgrader.converters import Autograde  # noqa: E402
from nbgrader.preprocessors import Execute  # noqa: E402

c.CourseDirectory.root = str(root)
c.CourseDirectory.course_id = "sedd-mini"
c.CourseDirectory.db_url = f"sqlite:///{{root / 'gradebook.db'}}?timeout=60"
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", ".pytest_cache"]
c.Autograde.autograde_preprocessors = [
    PatientExecute if one is Execute else one
    for one in Autograde.autograde_preprocessors.default()
]
c.ClearSolutions.code_stub = {{"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}}
'''


def nbgrader(build: Path):
    """nbgrader's configuration and course folder, for its converters."""
    from nbgrader.coursedir import CourseDirectory
    from traitlets.config import PyFileConfigLoader

    config = PyFileConfigLoader("nbgrader_config.py", str(build)).load_config()
    return config, CourseDirectory(config=config)


def convert(build: Path, converter: str, number: int, student: str = "*") -> None:
    """Run one of nbgrader's converters, anew, on one assignment (of one student)."""
    import nbgrader.converters as converters
    from sqlalchemy.exc import SAWarning
    from traitlets.log import get_logger

    warnings.filterwarnings("ignore", category=SAWarning)  # nbgrader's own
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

    CourseError in one line where the term, or an assignment, is not right.
    """
    from proving import check_expected, check_world  # here: whoever grades imports no PyTorch

    from sedd_mini.files import whole_folder

    term = read_term(term_file, only)
    build.mkdir(parents=True, exist_ok=True)
    source, instructor = build / "source", build / "instructor"
    with whole_folder(build / "checked") as new:  # nothing stays of a term that is not right
        for number in only:
            places = new / f"assignment{number}", new / "instructor"
            notebook = write_source(number, term[number], *places)
            check_world(number, term[number], term_file, *places)
            check_expected(number, notebook, term_file, *places)
    shutil.rmtree(build / "checked")
    (build / "nbgrader_config.py").write_text(CONFIG.format(root=str(build)), encoding="utf-8")
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
    print(f"The term: {term_file}" + (
        "; it is the repository's, whose answers are public" if term_file == SAMPLE_TERM else ""
    ))  # fmt: skip


def masters(build: Path) -> dict[int, nbformat.NotebookNode]:
    """The released notebooks."""
    paths = sorted((build / "release").glob("assignment[0-9]/assignment[0-9].ipynb"))
    if not paths:
        raise CourseError(f"{build} holds no release: run `course.py assignments` first")
    return {int(path.stem[-1]): nbformat.read(path, as_version=4) for path in paths}


# ---- grading -------------------------------------------------------------------------------------


def grade(submitted: Path, build: Path, only: list[int] | None, workers: int) -> None:
    """Grade FOLDER/student/assignmentN.ipynb: feedback pages, grades.csv, points.csv, by_hand.csv.

    A submission that cannot be graded holds up no other one; its remark says why.
    """
    if not submitted.is_dir():
        raise CourseError(f"{submitted} is not a folder of submissions")
    books = masters(build)
    if unknown := set(only or ()) - set(books):
        raise CourseError(f"there is no release of assignment {min(unknown)} in {build}")
    work = collect(submitted, books, only or sorted(books))
    if not work:
        raise CourseError(f"{submitted} holds no folder of a student")
    start, ids = time.monotonic(), safe_ids(sorted({one.student for one in work}))
    print(f"Grading {len(work)} submissions, {workers} at a time", flush=True)
    for one in work:
        put(one, ids[one.student], build)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = grade_all(build, work, ids, workers)
    for one in failed:  # once more, each by itself: a worker may have died of another one
        if grade_all(build, [one], ids, workers=1):
            page = build / "feedback" / ids[one.student] / f"assignment{one.number}"
            page.mkdir(parents=True, exist_ok=True)
            text = html.escape(" ".join(one.remarks))
            write_text(page / f"assignment{one.number}.html", f"<!doctype html><p>{text}</p>")
    remember(build, work, ids)
    report(build)
    print(f"{len(work)} submissions in {time.monotonic() - start:.0f} s")


def grade_all(
    build: Path, work: list[Submission], ids: dict[str, str], workers: int
) -> list[Submission]:
    """Grade in so many processes; returns the submissions that nbgrader could not grade."""
    failed = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(grade_one, build, one.number, ids[one.student]): one for one in work
        }
        for future in as_completed(waiting):
            one = waiting[future]
            if error := future.exception():
                one.remarks.append(f"Grading failed ({type(error).__name__}: {error}).")
                failed.append(one)
            else:
                one.remarks += future.result()
            print(f"  {one.student}: assignment {one.number}", *one.remarks[-1:], flush=True)
    return failed


def put(one: Submission, student: str, build: Path) -> None:
    """Write a submission where nbgrader looks for it."""
    from sedd_mini.files import whole_folder

    name = f"assignment{one.number}"
    place = build / "submitted" / student / name
    taken = {path.name for path in (build / "source" / name).iterdir()}
    with whole_folder(place) as new:
        new.mkdir(parents=True, exist_ok=True)
        for path in other_files(one, taken):
            shutil.copy(path, new / path.name)
        nbformat.write(with_remarks(one), new / f"{name}.ipynb")


def grade_one(build: Path, number: int, student: str) -> list[str]:
    """Run and score one submission, and write its feedback; returns what stopped its cells."""
    convert(build, "Autograde", number, student)
    convert(build, "GenerateFeedback", number, student)
    name = f"assignment{number}"
    book = nbformat.read(build / "autograded" / student / name / f"{name}.ipynb", as_version=4)
    errors = [output for cell in book.cells for output in cell.get("outputs", [])
              if output.output_type == "error" and output.ename == "Stopped"]  # fmt: skip
    return list(dict.fromkeys(error.evalue for error in errors))


# ---- reports -------------------------------------------------------------------------------------

GRADES = "student assignment total of code by_hand to_grade_by_hand remarks".split()
GRADED = "graded.json"  # who handed in what, with remarks, of all calls of `grade`


def remember(build: Path, work: list[Submission], ids: dict[str, str]) -> None:
    """Add what was graded now to what was graded before."""
    known = {(one["student"], one["assignment"]): one for one in graded(build)}
    for one in work:
        entry = {"student": one.student, "assignment": one.number, "id": ids[one.student]}
        known[one.student, one.number] = entry | {"remarks": one.remarks}
    content = [known[key] for key in sorted(known)]
    write_text(build / GRADED, json.dumps(content, ensure_ascii=False, indent=1))


def graded(build: Path) -> list[dict]:
    path = build / GRADED
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def report(build: Path) -> None:
    """Write grades.csv, points.csv and by_hand.csv from nbgrader's gradebook."""
    from nbgrader.api import Gradebook, MissingEntry

    grades, points, by_hand = [], [], []
    with Gradebook(nbgrader(build)[1].db_url) as book:
        for one in graded(build):
            name, row = f"assignment{one['assignment']}", dict.fromkeys(GRADES, 0.0)
            key = {"student": one["student"], "assignment": one["assignment"]}
            try:
                marks = book.find_submission_notebook(name, name, one["id"]).grades
            except MissingEntry:
                marks = []  # its remark says why
            answers = words(build / "autograded" / one["id"] / name / f"{name}.ipynb")
            for mark in marks:
                score = mark.manual_score if mark.manual_score is not None else mark.auto_score
                hand = mark.name in answers
                row["by_hand" if hand else "code"] += score or 0
                row["to_grade_by_hand"] += score is None and hand
                of, shown = mark.max_score, "" if score is None else round(score, 2)
                question = key | {"question": mark.name, "points": shown, "of": of}
                points.append(question)
                if hand:
                    comment = book.find_comment(mark.name, name, name, one["id"]).manual_comment
                    question = question | {"comment": comment or "", "answer": answers[mark.name]}
                    by_hand.append(question)
            row |= key | {"to_grade_by_hand": int(row["to_grade_by_hand"])}
            row |= {"of": sum(mark.max_score for mark in marks)}
            row |= {name: round(row[name], 2) for name in ("code", "by_hand")}
            row |= {"total": round(row["code"] + row["by_hand"], 2)}
            grades.append(row | {"remarks": " ".join(one["remarks"])})
    for file, rows in (("grades", grades), ("points", points), ("by_hand", by_hand)):
        write_csv(build / f"{file}.csv", rows)
    open_ = sum(row["to_grade_by_hand"] for row in grades)
    print(f"Grades: {build / 'grades.csv'}; by question: {build / 'points.csv'}")
    print(f"Feedback: {build / 'feedback'}")
    if open_:
        print(f"{open_} answers in words wait for you: write points and comments into a copy of "
              f"{build / 'by_hand.csv'}, then run `course.py hand COPY`")  # fmt: skip


def words(path: Path) -> dict[str, str]:
    """{question: answer in words} of a graded notebook."""
    if not path.exists():
        return {}
    cells = nbformat.read(path, as_version=4).cells
    return {name_of(cell): cell.source for cell in cells if is_("hand", cell)}


def hand(file: Path, build: Path) -> None:
    """Enter points and comments from a copy of by_hand.csv; write feedback and grades anew.

    Every row is checked before one is entered. CourseError in one line for a row that is not right.
    """
    from nbgrader.api import Gradebook, MissingEntry

    ids = {(one["student"], str(one["assignment"])): one["id"] for one in graded(build)}
    try:
        with open(file, newline="", encoding="utf-8-sig") as opened:
            rows = list(csv.DictReader(opened))
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{file} cannot be read: {error}") from None
    changed = set()
    with Gradebook(nbgrader(build)[1].db_url) as book:
        for place, row in enumerate(rows, 2):
            if not (row.get("points") or "").strip():
                continue
            where = f"{file}, line {place}"
            key = row.get("student"), row.get("assignment")
            if key not in ids:
                raise CourseError(f"{where}: no submission of {key[0]} to assignment {key[1]}")
            name, student = f"assignment{key[1]}", ids[key]
            try:
                mark = book.find_grade(row.get("question"), name, name, student)
                points = float(row["points"].replace(",", "."))
            except MissingEntry:
                raise CourseError(f"{where}: no question {row.get('question')}") from None
            except ValueError:
                raise CourseError(f"{where}: {row['points']!r} is not a number") from None
            if not 0 <= points <= mark.max_score:
                raise CourseError(f"{where}: points are 0 to {mark.max_score:g}, not {points:g}")
            mark.manual_score, mark.needs_manual_grade = points, False
            comment = book.find_comment(row["question"], name, name, student)
            comment.manual_comment = row.get("comment") or None
            changed.add((int(key[1]), student))
        book.db.commit()
    for number, student in sorted(changed):
        convert(build, "GenerateFeedback", number, student)
    print(f"Entered points for {len(changed)} submissions")
    report(build)


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows; with the mark at the start by which spreadsheets know UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0] if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "\ufeff" + text.getvalue())


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


# ---- command line --------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    release = commands.add_parser("assignments", help="write the release for students")
    release.add_argument("--term", type=Path, default=SAMPLE_TERM, help="this term's numbers, TOML")
    grading = commands.add_parser("grade", help="grade a folder of submissions")
    grading.add_argument("submitted", type=Path, help="holds student/assignmentN.ipynb")
    grading.add_argument("--workers", type=int, default=2, help="submissions at a time")
    by_hand = commands.add_parser("hand", help="enter points for answers in words")
    by_hand.add_argument("file", type=Path, help="a filled in copy of by_hand.csv")
    for command in (release, grading, by_hand):
        command.add_argument("--build", type=Path, default=BUILD, help="the folder that is written")
    for command in (release, grading):
        command.add_argument("--only", nargs="+", type=int, metavar="N", help="these assignments")
    example = commands.add_parser("sample", help="write the repository's sample submissions anew")
    example.add_argument("--folder", type=Path, default=HERE / "sample")
    example.add_argument("--build", type=Path, default=BUILD, help="holds the release")
    prove = commands.add_parser("prove", help="hold every assignment against its wrong answers")
    prove.add_argument("only", nargs="*", type=int, metavar="N", help="these assignments alone")
    options = parser.parse_args(arguments)
    try:
        if unknown := set(getattr(options, "only", None) or ()) - set(numbers()):
            raise CourseError(f"there is no assignment {min(unknown)}")
        if options.command == "assignments":
            assignments(options.term, options.build.resolve(), options.only or numbers())
        elif options.command == "grade":
            grade(options.submitted, options.build.resolve(), options.only, options.workers)
        elif options.command == "sample":
            sample(options.folder, options.build.resolve())
        elif options.command == "hand":
            hand(options.file, options.build.resolve())
        else:
            from proving import prove_all

            return 1 if prove_all(options.only) else 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
