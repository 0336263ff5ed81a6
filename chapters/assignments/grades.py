"""Grades a folder of submissions, and writes tables and feedback from nbgrader's gradebook.

Each submission is graded by itself, in a process of its own, so that none holds up the others.
"""

import csv
import html
import io
import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import nbformat
from release import convert, masters, nbgrader, write_text
from sources import CourseError, is_, name_of
from submissions import Submission, collect, other_files, safe_ids, with_remarks


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
    known = {one["student"]: one["id"] for one in graded(build)}
    start, ids = time.monotonic(), safe_ids([one.student for one in work], known)
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
    print(f"Entered points for {len(changed)} submissions")
    feedback(build, changed)


def feedback(build: Path, changed: set[tuple[int, str]] | None = None) -> None:
    """Write feedback pages of these (assignment, student id), or of all, and the tables anew."""
    everything = {(one["assignment"], one["id"]) for one in graded(build)}
    for number, student in sorted(everything if changed is None else changed):
        if (build / "autograded" / student / f"assignment{number}").is_dir():
            convert(build, "GenerateFeedback", number, student)
    report(build)


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows; with the mark at the start by which spreadsheets know UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0] if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "\ufeff" + text.getvalue())
