"""The course: each assignment is proved, and nbgrader grades what students hand in, damaged or not.

`make test` takes assignment 1 through nbgrader's whole life cycle, with a few submissions.
`make test-course` sets SEDD_MINI_COURSE, and takes all assignments and all damaged submissions.
"""

import copy
import csv
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.machinery import PathFinder
from pathlib import Path

import hostile
import nbformat
import pytest
from second_edition import CHAPTERS

ASSIGNMENTS = CHAPTERS / "assignments"
sys.path.insert(0, str(ASSIGNMENTS))  # its files import each other
course, grades, proving, release, sources, submissions = map(
    importlib.import_module,
    ("course", "grades", "proving", "release", "sources", "submissions"),
)

NUMBERS = sources.numbers()
EVERYTHING = bool(os.environ.get("SEDD_MINI_COURSE"))
whole_course = pytest.mark.skipif(not EVERYTHING, reason="minutes: make test-course runs it")
MAIN = 1  # the assignment that goes through nbgrader


@pytest.fixture(scope="module", autouse=True)
def unchanged_surroundings():
    """nbgrader's configuration sets paths for the kernels: for this file's tests alone."""
    path, environment = sys.path[:], dict(os.environ)
    yield
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)


def test_no_file_on_a_kernels_path_has_the_name_of_a_package():
    """It would be imported in the place of that, by IPython for one (there was an executing.py)."""
    installed = [folder for folder in sys.path if folder.endswith("-packages")]
    assert PathFinder.find_spec("executing", installed)
    files = [*ASSIGNMENTS.glob("tests*.py"), *ASSIGNMENTS.glob("hidden*.py"), "grading.py"]
    for name in {Path(file).stem for file in [*files, *release.KEPT]}:
        assert name not in sys.stdlib_module_names
        assert not PathFinder.find_spec(name, installed), name


# ---- assignments: the reference is right, and wrong answers lose ---------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_wrong_answers_lose_in_their_own_problem(number):
    assert proving.prove(number, say=lambda line: None) == []


WORTH = {"a-visible": 4.0, "a-hidden": 6.0, "b-visible": 2.0}


@pytest.mark.parametrize(
    ("wrong", "scores", "fault"),
    [
        ({}, {"a-visible": 4.0, "a-hidden": 6.0, "b-visible": 2.0}, "no point"),
        ({}, {"a-visible": 4.0, "a-hidden": 0.0, "b-visible": 1.0}, "elsewhere, in b-visible"),
        ({"visible": "full"}, {"a-visible": 3.0, "a-hidden": 0.0, "b-visible": 2.0}, "visible"),
        ({"score": "5"}, {"a-visible": 4.0, "a-hidden": 0.0, "b-visible": 2.0}, "not 5"),
        ({"score": "4"}, {"a-visible": 4.0, "a-hidden": 0.0, "b-visible": 2.0}, None),
    ],
)
def test_the_proof_sees_a_wrong_answer_that_costs_something_else(wrong, scores, fault):
    found = proving.fault_of(proving.Wrong("a", "# wrong", **wrong), WORTH, scores)
    assert found is None if fault is None else fault in found


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(source notebook, its folder, the instructor's folder) of the main assignment."""
    return proving.build_for_proof(MAIN, sources.SAMPLE_TERM, tmp_path_factory.mktemp("built"))


@pytest.mark.parametrize(
    ("cell", "old", "new", "fault"),
    [
        ("rates-hidden", "### END HIDDEN TESTS", "", "between the marks"),
        ("rates-visible", "import tests1", "import hidden1", "students see it"),
        ("rates", "### BEGIN SOLUTION", "", "no ### BEGIN SOLUTION"),
        ("setup", "import tests1", "", "does not import tests1"),
    ],
)
def test_the_proof_sees_a_cell_that_is_not_right(built, cell, old, new, fault):
    notebook = copy.deepcopy(built[0])
    (found,) = (one for one in notebook.cells if one.id == cell)
    assert old in found.source
    found.source = found.source.replace(old, new)
    assert any(fault in line for line in proving.form(MAIN, notebook))
    assert not proving.form(MAIN, built[0])


# ---- the term file -------------------------------------------------------------------------------

WORLD = f"[assignment{MAIN}.world]"
TERMS = [ASSIGNMENTS / "terms" / name for name in ("sample.toml", "other.toml")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (WORLD, "[assignment1.wrold]", f"the part {WORLD} is missing"),
        ("sigma = 0.6", "sigma = ", "is not TOML"),
        ("sigma = 0.6", "", f"{WORLD} lacks sigma"),
        ("sigma = 0.6", "sigma = 0.6\nsigmas = 1", f"{WORLD} has sigmas, which nothing reads"),
        ("sigma = 0.6", 'sigma = "0.6"', "sigma must be a number, as in sample.toml, not a text"),
        ("sigma = 0.6", "sigma = 60.0", f"{WORLD} sigma must be between 0.05 and 2, not 60.0"),
        ("[0.5, -1.5, 0.8]", "[0.5, -1.4, 0.8]", "every column of Q must sum to 0"),
    ],
)
def test_a_bad_term_file_is_refused_in_one_line(tmp_path, capsys, old, new, message):
    text = sources.SAMPLE_TERM.read_text(encoding="utf-8")
    assert text.count(old) == 1
    (tmp_path / "bad.toml").write_text(text.replace(old, new), encoding="utf-8")
    arguments = ["assignments", "--term", str(tmp_path / "bad.toml"), "--only", str(MAIN)]
    assert course.main([*arguments, "--build", str(tmp_path / "build")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    left = [path.name for path in (tmp_path / "build").rglob("*")]
    assert left == [], "a bad term leaves nothing behind"


@pytest.mark.parametrize("number", NUMBERS)
def test_answers_that_do_not_fit_are_refused_and_the_right_ones_printed(number, tmp_path, capsys):
    """The numbers of one term with the answers of the other; what is printed makes it whole."""
    sample, other = (tomllib.loads(path.read_text()) for path in TERMS)
    name, file = f"assignment{number}", tmp_path / "mixed.toml"
    part = lambda which, values: f"[{name}.{which}]\n" + "".join(  # noqa: E731
        f"{key} = {json.dumps(value)}\n" for key, value in values.items()
    )
    world = part("world", other[name]["world"])
    file.write_text(world + part("expected", sample[name]["expected"]))
    arguments = ["assignments", "--term", str(file), "--only", str(number)]
    assert course.main([*arguments, "--build", str(tmp_path / "build")]) == 1
    message, _, *answers = capsys.readouterr().err.splitlines()
    assert f"[{name}.expected] does not agree with its world; with the" in message
    assert "term-hidden says: " in message
    assert list((tmp_path / "build").iterdir()) == []
    file.write_text(world + "\n".join(answers))
    notebook, *folders = proving.build_for_proof(number, file, tmp_path)
    proving.check_expected(number, notebook, file, *folders)


def test_the_release_names_what_is_still_public(tmp_path, monkeypatch, capsys):
    """Assignment 2 keeps the repository's numbers, 1 does not."""
    parts = [path.read_text(encoding="utf-8").split("# ---- assignment") for path in TERMS]
    (tmp_path / "mixed.toml").write_text(f"#{parts[1][1]}#{parts[0][2]}", encoding="utf-8")
    place = lambda build, _, number: build / "release" / f"assignment{number}"  # noqa: E731
    monkeypatch.setattr(release, "convert", lambda *given: place(*given).mkdir(parents=True))
    arguments = ["--only", "1", "2", "--build", str(tmp_path)]
    for term, public in (("mixed.toml", "2"), (TERMS[0], "1, 2"), (TERMS[1], "")):
        shutil.rmtree(tmp_path / "release", ignore_errors=True)
        assert course.main(["assignments", "--term", str(tmp_path / term), *arguments]) == 0
        said = capsys.readouterr().out
        line = "Its numbers are the repository's, whose answers are public, in assignment "
        assert said.partition(line)[2] == public + "\n" * bool(public)


def test_points_that_do_not_sum_to_100_are_refused(tmp_path, monkeypatch, capsys):
    def heavier(*arguments):
        notebook = sources.write_source(*arguments)
        (answer, _) = (cell for cell in notebook.cells if sources.is_("hand", cell))
        answer.metadata.nbgrader.points = 9
        return notebook

    monkeypatch.setattr(release, "write_source", heavier)
    assert course.main(["assignments", "--only", "1", "--build", str(tmp_path)]) == 1
    message = f"assignment{MAIN}.py: it has 99 points, 19 of them in words, not 100 and 20\n"
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


def test_a_term_file_that_is_not_there(tmp_path, capsys):
    arguments = ["assignments", "--term", str(tmp_path / "no.toml"), "--build", str(tmp_path)]
    assert course.main(arguments) == 1
    assert "no.toml cannot be read: No such file" in capsys.readouterr().err


def test_both_terms_have_every_assignment_and_differ():
    terms = [tomllib.loads(path.read_text()) for path in TERMS]
    names = {f"assignment{number}" for number in NUMBERS}
    assert len(terms) == 2
    for term in terms:
        assert set(term) == names
    for name in names:
        assert terms[0][name]["expected"] != terms[1][name]["expected"]


# ---- damaged submissions, without nbgrader -------------------------------------------------------

NEEDS_A_KERNEL = {
    "loop in a cell", "stubborn loop", "crash", "segfault", "exit", "prints without end",
    "prints in C", "removes its folder", "asks", "endless answer", "kills",
}  # fmt: skip


@pytest.fixture(scope="module")
def books(built):
    """(released, solved): a release made without nbgrader, and what a good student hands in."""
    solved = copy.deepcopy(built[0])
    for cell in solved.cells:
        shown = re.split(r"### BEGIN HIDDEN TESTS", cell.source)[0]
        cell.source = shown if shown != cell.source else cell.source
    return proving.untouched(solved), solved


def expected_points(name: str, worth: dict[str, float]) -> dict[str, float]:
    """The points of each test that a damaged submission earns."""
    loses = hostile.HOSTILE[name].loses
    return {
        test: 0.0 if loses in ("all", proving.problem_of(test)) else points
        for test, points in worth.items()
    }


@pytest.mark.parametrize("name", sorted(set(hostile.HOSTILE) - NEEDS_A_KERNEL))
def test_a_damaged_submission_becomes_one_that_can_be_graded(built, books, tmp_path, name):
    released, solved = books
    hostile.write(tmp_path, solved, released, [name])
    (one,) = submissions.collect(tmp_path, {MAIN: released}, [MAIN])
    assert hostile.HOSTILE[name].says in " ".join(one.remarks)
    known = {cell.id: cell for cell in one.notebook.cells}
    assert [c.id for c in one.notebook.cells if c.id in {m.id for m in released.cells}] == [
        cell.id for cell in released.cells
    ]
    nbformat.validate(submissions.with_remarks(one))
    for cell in built[0].cells:  # nbgrader puts the hidden tests back
        if not sources.is_("solution", cell):
            known[cell.id].source = cell.source
            assert known[cell.id].metadata == cell.metadata
    scores, _ = proving.run(one.notebook, *built[1:])
    worth = {n: p for n, p in proving.points_of(built[0]).items() if n in scores}
    assert scores == expected_points(name, worth)


def test_of_several_notebooks_the_rightly_named_one_counts(books, tmp_path):
    released, solved = books
    for name, book in (("assignment1.ipynb", solved), ("assignment1 (1).ipynb", released)):
        (tmp_path / "Eve").mkdir(exist_ok=True)
        nbformat.write(book, tmp_path / "Eve" / name)
    (one,) = submissions.collect(tmp_path, {MAIN: released}, [MAIN])
    assert "Of 2 notebooks of assignment 1, assignment1.ipynb was graded." in one.remarks
    sources_ = {cell.id: cell.source for cell in one.notebook.cells}
    assert "raise NotImplementedError" not in sources_["page"]


def test_a_notebook_of_another_assignment_is_graded_as_what_it_is(books, tmp_path):
    released, solved = books
    other = copy.deepcopy(released)
    other.metadata.sedd_mini.assignment = 2
    (tmp_path / "Eve").mkdir()
    nbformat.write(solved, tmp_path / "Eve" / "assignment2.ipynb")
    (first,) = submissions.collect(tmp_path, {MAIN: released, 2: other}, [MAIN, 2])
    assert first.number == MAIN
    assert "assignment2.ipynb is a notebook of assignment 1" in " ".join(first.remarks)
    (only,) = submissions.collect(tmp_path, {MAIN: released, 2: other}, [2])
    assert "it is a notebook of assignment 1" in " ".join(only.remarks)


def test_ids_are_plain_and_differ():
    ids = submissions.safe_ids(["José", "Jose", "[1]", "1", "李", "王", "a/b"])
    assert len({one.lower() for one in ids.values()}) == 7
    assert all(re.fullmatch(r"[A-Za-z0-9_]+", one) for one in ids.values())
    assert submissions.safe_ids(["Jose"], {"José": "Jose"}) == {"José": "Jose", "Jose": "Jose_2"}


# ---- nbgrader ------------------------------------------------------------------------------------


def build_course(root: Path, only: list[int]) -> None:
    release.assignments(ASSIGNMENTS / "terms" / "other.toml", root, only)


def solution(root: Path, number: int) -> tuple:
    """(released, solved) notebooks of a built course."""
    name = f"assignment{number}"
    released = nbformat.read(root / "release" / name / f"{name}.ipynb", as_version=4)
    answers = nbformat.read(root / "source" / name / f"{name}.ipynb", as_version=4)
    solved = copy.deepcopy(released)
    for cell, answer in zip(solved.cells, answers.cells, strict=True):
        if sources.is_("solution", cell):
            cell.source = answer.source
    return released, solved


def table(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def points_by_nbgrader(root: Path) -> dict[str, dict[str, float]]:
    """{student: {question: points}}, of questions that have points."""
    found: dict[str, dict[str, float]] = {}
    for row in table(root / "points.csv"):
        if row["points"]:
            found.setdefault(row["student"], {})[row["question"]] = float(row["points"])
    return found


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A course of one assignment, released and graded by nbgrader: (its folder, the tests' points).

    Three whole submissions, one of planted wrong answers, and two that are damaged.
    """
    root = tmp_path_factory.mktemp("course").resolve()
    build_course(root, [MAIN])
    released, solved = solution(root, MAIN)
    names = ["Ada Lovelace", "untouched", "crash", "cut off"]
    hostile.write(root / "collected", solved, released, names)
    wrong, mistaken = copy.deepcopy(solved), {}
    for one in proving.read_wrong(MAIN):
        mistaken.setdefault(one.breaks, one.source)
    for cell in wrong.cells:
        cell.source = mistaken.get(cell.id, cell.source)
    place = root / "collected" / "Émile Borel"
    place.mkdir()
    nbformat.write(wrong, place / "assignment1 (3).ipynb")
    grades.grade(root / "collected", root, None, workers=2)
    return root


def test_the_release_holds_no_answer_and_no_hidden_test(graded):
    files = sorted(path for path in (graded / "release").rglob("*") if path.is_file())
    names = ["README.md", "assignment1.ipynb", "grading.py", "term.json", "tests1.py"]
    assert [path.name for path in files] == names
    released, _ = solution(graded, MAIN)
    text = "\n".join(cell.source for cell in released.cells)
    for mark in ("BEGIN SOLUTION", "HIDDEN TESTS", "import hidden", "{{"):
        assert mark not in text
    answers = nbformat.read(graded / "source" / "assignment1" / "assignment1.ipynb", as_version=4)
    for cell in answers.cells:
        inside = re.findall(r"### BEGIN SOLUTION\n(.*?)### END", cell.source, re.S)
        for line in "".join(inside).splitlines():
            assert len(line.strip()) < 12 or line.strip() not in text, line
    assert all("outputs" not in cell or not cell.outputs for cell in released.cells)


def test_nbgrader_and_the_proof_give_the_same_points(graded):
    scores = points_by_nbgrader(graded)
    book = nbformat.read(graded / "source" / "assignment1" / "assignment1.ipynb", as_version=4)
    worth = {n: p for n, p in proving.points_of(book).items() if "-" in n}
    by_code = lambda name: {n: p for n, p in scores[name].items() if n in worth}  # noqa: E731
    for name in ("Ada Lovelace", "untouched", "crash", "cut off"):
        assert by_code(name) == expected_points(name, worth), name
    for one in proving.read_wrong(MAIN)[::-1]:  # the first of each problem is what was handed in
        book = proving.with_answer(book, one.breaks, one.source)
    folders = graded / "source" / "assignment1", graded / "instructor"
    assert by_code("Émile Borel") == pytest.approx(proving.run(book, *folders)[0])
    assert 0 < sum(by_code("Émile Borel").values()) < sum(worth.values())


def test_the_table_of_grades_says_what_happened(graded):
    rows = {row["student"]: row for row in table(graded / "grades.csv")}
    assert rows["Ada Lovelace"]["remarks"] == ""
    assert float(rows["Ada Lovelace"]["code"]) == 80
    assert rows["Ada Lovelace"]["to_grade_by_hand"] == "2"
    assert rows["untouched"]["to_grade_by_hand"] == "0"  # nothing was written: 0 points at once
    assert "kernel died" in rows["crash"]["remarks"]
    assert "cut off" in rows
    assert "it is not a notebook" in rows["cut off"]["remarks"]


def test_feedback_shows_the_cause(graded):
    pages = {path.parts[-3]: path.read_text(encoding="utf-8")
             for path in (graded / "feedback").rglob("*.html")}  # fmt: skip
    assert set(pages) == {"Ada_Lovelace", "Emile_Borel", "crash", "cut_off", "untouched"}
    assert "not a notebook" in pages["cut_off"]
    assert "kernel died in this cell" in pages["crash"]
    assert "Not yet:" in pages["Emile_Borel"]
    waits, top = "Not graded yet, of 10 points", "assignment1 (Score"
    assert [pages["Ada_Lovelace"].count(text) for text in (waits, f"{top} so far: ")] == [4, 1]
    assert [pages["untouched"].count(text) for text in (waits, f"{top}: ")] == [0, 1]


def test_points_by_hand_are_checked_entered_and_kept(graded, capsys):
    rows = table(graded / "by_hand.csv")
    (row, *_) = (one for one in rows if one["student"] == "Ada Lovelace")
    copied = graded / "copy.csv"
    for points, message in (
        ("eleven", "is not a number"), ("11", "points are 0 to 10"), ("", "no row has points"),
    ):  # fmt: skip
        grades.write_csv(copied, [row | {"points": points}])
        assert course.main(["hand", str(copied), "--build", str(graded)]) == 1
        assert message in capsys.readouterr().err
    assert course.main(["hand", str(graded / "points.csv"), "--build", str(graded)]) == 1
    error = capsys.readouterr().err
    assert "row 2: rates-visible is graded by a test; only answers in words" in error
    assert len(error.splitlines()) == 1
    with open(copied, "w", newline="", encoding="utf-8-sig") as file:  # as a spreadsheet saves it
        writer = csv.DictWriter(file, row, delimiter=";")
        writer.writeheader()
        writer.writerow(row | {"points": "7,5", "comment": "Well, argued."})
    assert course.main(["hand", str(copied), "--build", str(graded)]) == 0
    assert "Entered points for 1 submissions" in capsys.readouterr().out
    rows = {one["student"]: one for one in table(graded / "grades.csv")}
    ada = rows["Ada Lovelace"]
    assert (ada["total"], ada["by_hand"], ada["to_grade_by_hand"]) == ("87.5", "7.5", "1")
    page = graded / "feedback" / "Ada_Lovelace" / "assignment1" / "assignment1.html"
    text = page.read_text(encoding="utf-8")
    assert "Well, argued." in text
    assert [text.count(mark) for mark in ("Score: 7.5 / 10.0", "Not graded yet, of 10")] == [2, 2]
    grades.write_csv(copied, [row | {"points": "0"}])
    assert course.main(["hand", str(copied), "--build", str(graded)]) == 0
    grades.grade_one(graded, MAIN, "Ada_Lovelace")  # again: 0 by hand is no answer that waits
    text = page.read_text(encoding="utf-8")
    assert [text.count(mark) for mark in ("Score: 0.0 / 10.0", "Not graded yet, of 10")] == [2, 2]


NEEDED = "student", "question", "points"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_table_is_read_as_spreadsheets_save_it(tmp_path, separator, end):
    words = '"One; two, three\tfour.' + end + 'Five."'
    lines = separator.join((*NEEDED, "answer")), separator.join(("Zoë", "q", '"7,5"', words)), ""
    (tmp_path / "copy.csv").write_bytes(("\ufeff" + end.join(lines)).encode())
    (row,) = grades.read_csv(tmp_path / "copy.csv", NEEDED)
    assert row == {
        "student": "Zoë", "question": "q", "points": "7,5",
        "answer": "One; two, three\tfour.\nFive.",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"student;question\nAda;q\n", "has no column points; it needs student, question, points"),
        (b"", "has no column student"),
        ("student,question,points\nZoë,q,5\n".encode("cp1252"), "save it as CSV UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "copy.csv").write_bytes(content)
    with pytest.raises(sources.CourseError) as raised:
        grades.read_csv(tmp_path / "copy.csv", NEEDED)
    assert message in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_the_sample_folder_is_of_the_present_release():
    term = sources.read_term(sources.SAMPLE_TERM, [MAIN])[MAIN]
    release = sources.read_assignment(MAIN, term["world"]).metadata.sedd_mini.release
    paths = sorted((ASSIGNMENTS / "sample").glob("*/*.ipynb"))
    assert len(paths) == 3
    for path in paths:
        book = nbformat.read(path, as_version=4)
        assert book.metadata.sedd_mini.release == release, "write it anew: course.py sample"


# ---- the grader, without nbgrader's run of a notebook -------------------------------------------


@pytest.fixture
def released_course(books, tmp_path):
    """(its folder, the folder of what was handed in): a course of two assignments, as released.

    The second is the first under another number. Eve handed in the first; Max an empty folder.
    """
    root = (tmp_path / "course").resolve()
    for number in (1, 2):
        book = copy.deepcopy(books[0])
        book.metadata.sedd_mini.assignment = number
        for part in ("release", "source"):
            place = root / part / f"assignment{number}"
            place.mkdir(parents=True)
            nbformat.write(book, place / f"assignment{number}.ipynb")
    (root / "nbgrader_config.py").write_text(release.CONFIG)
    for name in ("Eve", "Max"):
        (tmp_path / "collected" / name).mkdir(parents=True)
    nbformat.write(books[1], tmp_path / "collected" / "Eve" / "assignment1.ipynb")
    return root, tmp_path / "collected"


def test_a_build_that_was_moved_is_graded_where_it_is(released_course, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(released_course[0], moved)
    config, found = release.nbgrader(moved)
    assert Path(found.root) == moved
    assert f"{moved}/gradebook.db" in config.CourseDirectory.db_url


@pytest.mark.parametrize("elsewhere", ["/no/such/folder", None])
def test_a_build_of_absolute_paths_is_refused_in_one_line(released_course, capsys, elsewhere):
    """As an earlier version wrote it, or a hand: of a folder that is gone, or of another one."""
    root, collected = released_course
    file, here = root / "nbgrader_config.py", "Path(__file__).resolve().parent"
    assert release.CONFIG.count(here) == 1
    file.write_text(release.CONFIG.replace(here, f"Path({elsewhere or str(collected)!r})"))
    assert course.main(["grade", str(collected), "--build", str(root)]) == 1
    error = capsys.readouterr().err
    assert "run `course.py assignments` again" in error
    assert len(error.splitlines()) == 1
    assert not (root / "submitted").exists()


def test_a_failure_of_nbgrader_is_no_score(released_course, monkeypatch, capsys):
    root, collected = released_course
    reason = "CourseError: /a/path is not there"
    monkeypatch.setattr(grades, "grade_all", lambda b, work, *_, **__: [(w, reason) for w in work])
    assert course.main(["grade", str(collected), "--build", str(root)]) == 1
    out, err = capsys.readouterr()
    assert (out + err).count(reason) == 1
    eve, max_ = table(root / "grades.csv")
    assert (eve["code"], eve["by_hand"], eve["total"]) == ("", "", "")
    assert (max_["code"], max_["total"], float(max_["of"])) == ("0.0", "0.0", 100)
    assert "Eve" not in points_by_nbgrader(root)
    page = (root / "feedback" / "Eve" / "assignment1" / "assignment1.html").read_text()
    assert "Your notebook could not be graded; your instructor has been told." in page
    for text in (page, eve["remarks"]):
        assert text
        assert "CourseError" not in text
        assert "/a/path" not in text


def test_only_what_was_handed_in_is_run(released_course, monkeypatch, capsys):
    """Of 2 students and 2 assignments one notebook; nobody handed in the second assignment."""
    root, collected = released_course
    run = []

    def fake(build, work, ids, workers):
        run.extend((one.student, one.number) for one in work)
        return []

    monkeypatch.setattr(grades, "grade_all", fake)
    assert course.main(["grade", str(collected), "--build", str(root)]) == 0
    assert run == [("Eve", 1)]
    rows = {(row["student"], row["assignment"]): row for row in table(root / "grades.csv")}
    assert set(rows) == {("Eve", "1"), ("Max", "1")}
    assert rows["Max", "1"]["total"] == "0.0"
    assert "No notebook of assignment 1" in rows["Max", "1"]["remarks"]
    points = points_by_nbgrader(root)["Max"]
    assert len(points) == 16
    assert set(points.values()) == {0.0}
    page = (root / "feedback" / "Max" / "assignment1" / "assignment1.html").read_text()
    assert "No notebook of assignment 1" in page
    (collected / "Eve" / "assignment1.ipynb").unlink()
    assert course.main(["grade", str(collected), "--build", str(root)]) == 1
    assert "holds no folder of a student with" in capsys.readouterr().err


# ---- all of it -----------------------------------------------------------------------------------


@whole_course
@pytest.mark.parametrize("number", NUMBERS)
def test_every_assignment_through_nbgrader(number, tmp_path):
    """The reference gets all points by code, the untouched release none."""
    build_course(tmp_path, [number])
    released, solved = solution(tmp_path, number)
    for name, book in (("solved", solved), ("untouched", released)):
        (tmp_path / "collected" / name).mkdir(parents=True)
        nbformat.write(book, tmp_path / "collected" / name / f"assignment{number}.ipynb")
    grades.grade(tmp_path / "collected", tmp_path, None, workers=2)
    rows = {row["student"]: row for row in table(tmp_path / "grades.csv")}
    assert float(rows["solved"]["code"]) == proving.TOTAL - proving.BY_HAND
    assert float(rows["untouched"]["total"]) == 0


@whole_course
def test_every_damaged_submission_through_nbgrader(tmp_path):
    build_course(tmp_path, [MAIN])
    released, solved = solution(tmp_path, MAIN)
    hostile.write(tmp_path / "collected", solved, released)
    grades.grade(tmp_path / "collected", tmp_path, None, workers=2)
    scores = points_by_nbgrader(tmp_path)
    rows = {row["student"]: row for row in table(tmp_path / "grades.csv")}
    assert set(rows) == set(hostile.HOSTILE)
    book = nbformat.read(tmp_path / "source" / "assignment1" / "assignment1.ipynb", as_version=4)
    worth = {n: p for n, p in proving.points_of(book).items() if "-" in n}
    for name, case in hostile.HOSTILE.items():
        got = {test: scores[name][test] for test in worth}
        assert got == expected_points(name, worth), name
        assert case.says in rows[name]["remarks"], name
    pages = {path.parts[-3] for path in (tmp_path / "feedback").rglob("*.html")}
    assert pages == set(submissions.safe_ids(list(rows)).values())


@whole_course
def test_nbgraders_own_commands_work_in_the_folder(tmp_path):
    build_course(tmp_path, [MAIN])
    _, solved = solution(tmp_path, MAIN)
    place = tmp_path / "submitted" / "ada" / "assignment1"
    shutil.copytree(tmp_path / "release" / "assignment1", place)
    nbformat.write(solved, place / "assignment1.ipynb")
    for command in ("autograde", "generate_feedback"):
        line = [sys.executable, "-m", "nbgrader", command, "assignment1"]
        result = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "feedback" / "ada" / "assignment1" / "assignment1.html").exists()
