"""Grades a folder of submissions, and writes tables and feedback from nbgrader's gradebook.

Each submission is graded by itself, in a process of its own, so that none holds up the others.
"""

import contextlib
import csv
import html
import io
import json
import os
import re
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import nbformat
from release import convert, masters, nbgrader, write_text
from sources import CourseError, is_, name_of
from submissions import Submission, collect, other_files, safe_ids, with_remarks

NOT_GRADED = "Your notebook could not be graded; your instructor has been told."  # on the page
FAILED = "Could not be graded: `course.py grade` says why, and tries again."  # in grades.csv


def grade(submitted: Path, build: Path, only: list[int] | None, workers: int) -> bool:
    """Grade FOLDER/student/assignmentN.ipynb: feedback pages, grades.csv, points.csv, by_hand.csv.

    Returns whether all could be graded. A submission that could not holds up no other one, and has
    no points; the reason is printed. A missing one has 0 points, and nothing is run.
    """
    if not submitted.is_dir():
        raise CourseError(f"{submitted} is not a folder of submissions")
    books = masters(build)
    nbgrader(build)  # CourseError if it is another folder's
    if unknown := set(only or ()) - set(books):
        raise CourseError(f"there is no release of assignment {min(unknown)} in {build}")
    work = collect(submitted, books, only or sorted(books))
    if not work:
        raise CourseError(f"{submitted} holds no folder of a student with an assignment's notebook")
    known = {one["student"]: one["id"] for one in graded(build)}
    start, ids = time.monotonic(), safe_ids([one.student for one in work], known)
    handed = [one for one in work if not one.missing]
    print(f"Grading {len(handed)} submissions, {workers} at a time", flush=True)
    for one in handed:
        put(one, ids[one.student], build)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for one, _ in grade_all(build, handed, ids, workers) if handed else ():
        # Once more, by itself: a worker may have died of another one.
        for _, reason in grade_all(build, [one], ids, workers=1):
            one.failed = True
            print(f"{one.student}: assignment {one.number} could not be graded: {reason}",
                  file=sys.stderr)  # fmt: skip
    for one in work:
        if one.missing or one.failed:
            write_page(build, ids[one.student], one)
        one.remarks += [FAILED] * one.failed
    remember(build, work, ids)
    report(build)
    missing = f", and {len(work) - len(handed)} missing" if len(work) > len(handed) else ""
    print(f"{len(handed)} submissions{missing}, in {time.monotonic() - start:.0f} s")
    return not any(one.failed for one in work)


def write_page(build: Path, student: str, one: Submission) -> None:
    """A feedback page of remarks alone, for a submission that was not run or not graded."""
    name = f"assignment{one.number}"
    page = build / "feedback" / student / name
    page.mkdir(parents=True, exist_ok=True)
    lines = [f"Assignment {one.number}", *one.remarks, NOT_GRADED if one.failed else "0 points."]
    text = "\n".join(f"<p>{html.escape(line)}</p>" for line in lines)
    head = f'<!doctype html>\n<meta charset="utf-8">\n<title>{name}</title>\n'
    write_text(page / f"{name}.html", head + text + "\n")


def grade_all(
    build: Path, work: list[Submission], ids: dict[str, str], workers: int
) -> list[tuple[Submission, str]]:
    """Grade in so many processes; returns what nbgrader could not grade, each with the reason."""
    failed = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(grade_one, build, one.number, ids[one.student]): one for one in work
        }
        for future in as_completed(waiting):
            one = waiting[future]
            if error := future.exception():
                failed.append((one, " ".join(f"{type(error).__name__}: {error}".split())))
                continue
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
    write_feedback(build, number, student)
    name = f"assignment{number}"
    book = nbformat.read(build / "autograded" / student / name / f"{name}.ipynb", as_version=4)
    errors = [output for cell in book.cells for output in cell.get("outputs", [])
              if output.output_type == "error" and output.ename == "Stopped"]  # fmt: skip
    return list(dict.fromkeys(error.evalue for error in errors))


def write_feedback(build: Path, number: int, student: str) -> None:
    """Write nbgrader's feedback page of one submission. nbgrader shows 0 points for an answer that
    waits for a person; here the page says that it is not graded yet."""
    from nbgrader.api import Gradebook

    convert(build, "GenerateFeedback", number, student)
    name = f"assignment{number}"
    with Gradebook(nbgrader(build)[1].db_url) as book:
        marks = book.find_submission_notebook(name, name, student).grades
        waiting = {m.name: m.max_score for m in marks if m.auto_score is m.manual_score is None}
    page = build / "feedback" / student / name / f"{name}.html"
    text = page.read_text(encoding="utf-8")
    for question, of in waiting.items():  # in the list at the top, and above the answer
        start = rf'(href="#{question}">[^<]*</a> \(|name="{question}"></a>.*?)'
        told = rf"\g<1>Not graded yet, of {of:g} points"
        text = re.sub(rf"{start}Score: 0\.0 / [\d.]+", told, text, flags=re.DOTALL)
    if waiting:
        text = text.replace("(Score: ", "(Score so far: ", 1)
        write_text(page, text)


# ---- reports -------------------------------------------------------------------------------------

GRADES = "student assignment total of code by_hand to_grade_by_hand remarks".split()
GRADED = "graded.json"  # who handed in what, with remarks, of all calls of `grade`


def remember(build: Path, work: list[Submission], ids: dict[str, str]) -> None:
    """Add what was graded now to what was graded before."""
    known = {(one["student"], one["assignment"]): one for one in graded(build)}
    for one in work:
        entry = {"student": one.student, "assignment": one.number, "id": ids[one.student]}
        entry |= {"remarks": one.remarks, "missing": one.missing, "failed": one.failed}
        known[one.student, one.number] = entry
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
            marks = None
            if not not_run(one):
                with contextlib.suppress(MissingEntry):
                    marks = book.find_submission_notebook(name, name, one["id"]).grades
            if marks is None:
                shown = 0.0 if one.get("missing") else ""
                of = {n: p for n, p in worth(build, one["assignment"]).items() if p}
                points += [key | {"question": n, "points": shown, "of": p} for n, p in of.items()]
                row |= key | dict.fromkeys(("code", "by_hand", "total"), shown)
                row |= {"to_grade_by_hand": 0, "of": sum(of.values())}
                grades.append(row | {"remarks": " ".join(one["remarks"])})
                continue
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


def not_run(one: dict) -> bool:
    """Is this entry of graded.json a submission without points of nbgrader's, if earlier ones?"""
    return one.get("missing", False) or one.get("failed", False)


def worth(build: Path, number: int) -> dict[str, float]:
    """{question: points} of a released assignment."""
    marks = [cell.metadata.get("nbgrader", {}) for cell in masters(build)[number].cells]
    return {mark["grade_id"]: float(mark["points"]) for mark in marks if mark.get("grade")}


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
    rows = read_csv(file, needed=("student", "assignment", "question", "points"))
    changed = set()
    with Gradebook(nbgrader(build)[1].db_url) as book:
        for place, row in enumerate(rows, 2):
            if not (row["points"] or "").strip():
                continue
            where, question = f"{file}, row {place}", row["question"]
            key = row["student"], row["assignment"]
            if key not in ids:
                raise CourseError(f"{where}: no submission of {key[0]} to assignment {key[1]}")
            name, student = f"assignment{key[1]}", ids[key]
            try:
                mark = book.find_grade(question, name, name, student)
                points = float(row["points"].replace(",", "."))
            except MissingEntry:
                raise CourseError(f"{where}: no question {question}") from None
            except ValueError:
                raise CourseError(f"{where}: {row['points']!r} is not a number") from None
            if not 0 <= points <= mark.max_score:
                raise CourseError(f"{where}: points are 0 to {mark.max_score:g}, not {points:g}")
            try:
                comment = book.find_comment(question, name, name, student)
            except MissingEntry:
                raise CourseError(
                    f"{where}: {question} is graded by a test; only answers in words are entered "
                    "by hand"
                ) from None
            mark.manual_score, mark.needs_manual_grade = points, False
            comment.manual_comment = row.get("comment") or None
            changed.add((int(key[1]), student))
        if not changed:
            raise CourseError(f"{file}: no row has points")
        book.db.commit()
    print(f"Entered points for {len(changed)} submissions")
    feedback(build, changed)


def feedback(build: Path, changed: set[tuple[int, str]] | None = None) -> None:
    """Write feedback pages of these (assignment, student id), or of all, and the tables anew."""
    everything = {(one["assignment"], one["id"]) for one in graded(build) if not not_run(one)}
    for number, student in sorted(everything if changed is None else everything & changed):
        if (build / "autograded" / student / f"assignment{number}").is_dir():
            write_feedback(build, number, student)
    report(build)


def read_csv(file: Path, needed: tuple[str, ...]) -> list[dict]:
    """The rows of a table as a spreadsheet saves it: with commas, semicolons or tabs.

    CourseError in one line for a file that cannot be read, or lacks one of the needed columns.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        separator = max(",;\t", key=text.split("\n")[0].count)
        table = csv.DictReader(io.StringIO(text), delimiter=separator)
        rows, columns = list(table), table.fieldnames or ()
    except UnicodeDecodeError:
        raise CourseError(f"{file} is not text in UTF-8: save it as CSV UTF-8") from None
    except (OSError, csv.Error) as error:
        raise CourseError(f"{file} cannot be read: {error}") from None
    if missing := [name for name in needed if name not in columns]:
        raise CourseError(f"{file} has no column {missing[0]}; it needs {', '.join(needed)}")
    return rows


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows; with the mark at the start by which spreadsheets know UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0] if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, "\ufeff" + text.getvalue())
