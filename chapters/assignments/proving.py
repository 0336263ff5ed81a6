"""Proves an assignment: the reference earns all points, nothing earns none, and each planted wrong
answer loses points in the problem that it breaks and in no other.

Cells run in this process, one after another in one namespace, and are scored by nbgrader's rule.
tests/test_course.py holds this against nbgrader itself.
"""

import ast
import contextlib
import copy
import io
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from nbformat import NotebookNode
from sources import (
    HERE,
    CourseError,
    is_,
    modules_from,
    name_of,
    numbers,
    problem_of,
    read_percent,
    read_term,
    write_source,
)

STUB = "raise NotImplementedError()"
TOTAL, BY_HAND, QUESTIONS, WRONG = 100, 20, 2, 10  # an assignment's points, questions, wrong ones


@dataclass
class Wrong:
    """A planted wrong answer: the cell that it replaces, and what it must cost."""

    breaks: str
    source: str
    visible: str = ""  # "full": the visible test must not notice
    score: str = ""  # the whole problem's points, where partial credit is stated


def read_wrong(number: int) -> list[Wrong]:
    cells = read_percent(HERE / f"wrong{number}.py").cells
    found = []
    for cell in cells:
        if cell.cell_type == "code":
            keys = {k: str(cell.metadata[k]) for k in cell.metadata if k != "lines_to_next_cell"}
            if "breaks" not in keys or not cell.source.startswith("# "):
                raise CourseError(
                    f"wrong{number}.py: a cell needs breaks=… and a first line that says what is "
                    f"wrong: {cell.source.splitlines()[:1]}"
                )
            found.append(Wrong(source=cell.source, **keys))
    return found


# ---- running cells -------------------------------------------------------------------------------


def run_cell(source: str, namespace: dict):
    """The value of a cell's last expression, or None."""
    tree, last = ast.parse(source), None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, "<cell>", "exec"), namespace)
    return None if last is None else eval(compile(last, "<cell>", "eval"), namespace)


def run(
    notebook: NotebookNode,
    folder: Path,
    instructor: Path,
    only: str = "",
    namespace: dict | None = None,
) -> tuple:
    """({test cell: points}, {test cell: what it printed or raised}) of a notebook's code.

    nbgrader's rule: an error is 0, a number is that many points, anything else is all points.
    only: this problem's tests alone, with the cells that they may need.
    namespace: where the cells run; it holds what they define afterwards.
    """
    scores, said, namespace = {}, {}, {} if namespace is None else namespace
    namespace["__name__"] = "__main__"
    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        with modules_from(folder, instructor), contextlib.chdir(folder):
            for cell in notebook.cells:
                name = name_of(cell)
                other = only and is_("test", cell) and problem_of(name) != only
                if cell.cell_type != "code" or other:
                    continue
                printed, value = io.StringIO(), None
                with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
                    try:
                        value, failed = run_cell(cell.source, namespace), False
                    except Exception as error:
                        failed = True
                        printed.write(f"{type(error).__name__}: {error}")
                if is_("test", cell):
                    points = cell.metadata.nbgrader.points
                    number = value if isinstance(value, int | float) else points
                    scores[name], said[name] = 0 if failed else number, printed.getvalue()
                elif failed:
                    said[name] = printed.getvalue()
    finally:
        torch.set_default_dtype(dtype)
        torch.set_rng_state(state)
        torch.set_num_threads(threads)
    return scores, said


def with_answer(notebook: NotebookNode, name: str, source: str) -> NotebookNode:
    """The notebook with this source in that cell."""
    changed = copy.deepcopy(notebook)
    (cell,) = (cell for cell in changed.cells if name_of(cell) == name)
    cell.source = source
    return changed


def untouched(notebook: NotebookNode) -> NotebookNode:
    """The notebook as a student opens it: stubs for answers (hidden tests stay)."""
    changed = copy.deepcopy(notebook)
    for cell in changed.cells:
        if is_("solution", cell) and cell.cell_type == "code":
            lines, inside = [], False
            for line in cell.source.splitlines():
                if "### BEGIN SOLUTION" in line:
                    inside = True
                    lines.append(line[: len(line) - len(line.lstrip())] + STUB)
                elif "### END SOLUTION" in line:
                    inside = False
                elif not inside:
                    lines.append(line)
            cell.source = "\n".join(lines)
    return changed


def points_of(notebook: NotebookNode) -> dict[str, float]:
    """{cell: points}, of cells graded by code and by hand."""
    cells = [cell for cell in notebook.cells if is_("test", cell) or is_("hand", cell)]
    return {name_of(cell): float(cell.metadata.nbgrader.points) for cell in cells}


# ---- faults --------------------------------------------------------------------------------------


def wrong_sum(notebook: NotebookNode) -> list[str]:
    """A fault, in a list, unless the points have their sums."""
    worth = points_of(notebook)
    total = sum(worth.values())
    by_hand = sum(worth[name_of(cell)] for cell in notebook.cells if is_("hand", cell))
    fault = f"it has {total:g} points, {by_hand:g} of them in words, not {TOTAL} and {BY_HAND}"
    return [] if (total, by_hand) == (TOTAL, BY_HAND) else [fault]


def form(number: int, notebook: NotebookNode) -> list[str]:
    """What an assignment's files lack."""
    faults, cells = wrong_sum(notebook), {name_of(cell): cell for cell in notebook.cells}
    worth = points_of(notebook)
    by_hand = {name: points for name, points in worth.items() if is_("hand", cells[name])}
    if len(by_hand) != QUESTIONS:
        faults.append(f"{len(by_hand)} questions in words, not {QUESTIONS}")
    rubric = (HERE / f"rubric{number}.md").read_text(encoding="utf-8")
    for name, points in by_hand.items():
        start = rubric.find(f"## {name} ({points:g} points)")
        part = rubric[start:].split("\n## ")[0] if start >= 0 else ""
        for word in (f"**Full ({points:g}):**", f"**Half ({points / 2:g}):**", "**None (0):**"):
            if word not in part:
                faults.append(f"rubric{number}.md lacks {word} for {name}")
    if f"import tests{number}" not in cells.get("setup", {}).get("source", ""):
        faults.append(f"the setup cell does not import tests{number}: a cell that removes the "
                      "notebook's folder would take all points")  # fmt: skip
    wrong = read_wrong(number)
    coded = [n for n, c in cells.items() if is_("solution", c) and c.cell_type == "code"]
    problems = {problem_of(name) for name in coded}
    if "term" not in problems:
        faults.append("no problem is called term")
    if len(wrong) < WRONG:
        faults.append(f"{len(wrong)} wrong answers, not {WRONG} or more")
    if sum(bool(one.score) for one in wrong) < 2:
        faults.append("fewer than two wrong answers state their partial credit (score=…)")
    for one in wrong:
        if one.breaks not in coded:
            faults.append(f"a wrong answer breaks {one.breaks}, which is no cell to fill in")
    for name in sorted(set(coded) - {one.breaks for one in wrong}):
        faults.append(f"no wrong answer breaks {name}")
    for problem in sorted(problems):
        kinds = {name.split("-")[-1] for name in worth if problem_of(name) == problem}
        if kinds != {"visible", "hidden"}:
            faults.append(f"problem {problem} needs the tests {problem}-visible and -hidden")
    for name, cell in cells.items():
        if name.endswith("-hidden"):
            shown = cell.source.split("### BEGIN HIDDEN TESTS")[0]
            if "### END HIDDEN TESTS" not in cell.source or "hidden." in shown:
                faults.append(f"{name} is not between the marks of hidden tests")
        elif cell.cell_type == "code" and f"hidden{number}" in cell.source:
            faults.append(f"{name} names the hidden tests, and students see it")
        if is_("solution", cell) and cell.cell_type == "code" and "BEGIN SOL" not in cell.source:
            faults.append(f"{name} has no ### BEGIN SOLUTION")
    return faults


def lost(worth: dict[str, float], scores: dict[str, float]) -> dict[str, float]:
    """{test: points lost}, of those that lost any."""
    return {n: round(worth[n] - s, 2) for n, s in scores.items() if abs(worth[n] - s) > 1e-6}


def fault_of(one: Wrong, worth: dict[str, float], scores: dict[str, float]) -> str | None:
    """What is not as it should be about a wrong answer's points."""
    problem, missing = problem_of(one.breaks), lost(worth, scores)
    elsewhere = {name for name in missing if problem_of(name) != problem}
    if elsewhere:
        return f"loses points elsewhere, in {', '.join(sorted(elsewhere))}"
    if sum(missing.values()) < 1:
        return "loses no point"
    if one.visible == "full" and f"{problem}-visible" in missing:
        return "does not pass the visible test, as it should"
    got = sum(scores[name] for name in scores if problem_of(name) == problem)
    if one.score and abs(got - float(one.score)) > 0.01:
        return f"earns {got:g} in its problem, not {one.score}"
    return None


def build_for_proof(number: int, term_file: Path, root: Path) -> tuple[NotebookNode, Path, Path]:
    """(source notebook, its folder, the instructor's folder), built under `root`."""
    term = read_term(term_file, [number])[number]
    source, instructor = root / "source" / f"assignment{number}", root / "instructor"
    notebook = write_source(number, term, source, instructor)
    check_world(number, term, term_file, source, instructor)
    return notebook, source, instructor


def check_world(number: int, term: dict, term_file: Path, source: Path, instructor: Path) -> None:
    """CourseError where hiddenN.check_term refuses the term's world."""
    import importlib

    with modules_from(source, instructor):
        try:
            hidden = importlib.import_module(f"hidden{number}")
            hidden.check_term(copy.deepcopy(term["world"]), copy.deepcopy(term["expected"]))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise CourseError(f"{term_file}: [assignment{number}.world] {reason}") from None


def check_expected(number: int, notebook: NotebookNode, term_file: Path, *folders: Path) -> None:
    """CourseError unless the reference answer to `term` earns all its points under this term.

    Its message ends with the part of the term file that the reference answer finds.
    """
    found: dict = {}
    scores, said = run(notebook, *folders, only="term", namespace=found)
    if bad := lost(points_of(notebook), scores):
        (name, *_), lines = bad, [line for n in bad for line in said[n].splitlines()]
        reason = next((line for line in lines if line.startswith("Not yet")), lines[0])
        keys = json.loads((folders[1] / f"expected{number}.json").read_text(encoding="utf-8"))
        answers = [f"{key} = {toml(found[key])}" for key in keys if key in found]
        raise CourseError("\n".join([
            f"{term_file}: [assignment{number}.expected] does not agree with its world; with the "
            f"reference answer, {name} says: {reason.removeprefix('Not yet: ')}",
            "The reference answer finds:", f"[assignment{number}.expected]", *answers,
        ]))  # fmt: skip


def toml(value) -> str:
    """A number or a nested list of numbers (or a tensor) as TOML, with six digits."""
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def prove(number: int, say=print) -> list[str]:
    """All faults of one assignment; says how each answer fared."""
    terms = HERE / "terms"
    with tempfile.TemporaryDirectory(prefix="sedd-mini-") as name:
        root = Path(os.path.realpath(name))
        sample = build_for_proof(number, terms / "sample.toml", root / "sample")
        notebook, *folders = build_for_proof(number, terms / "other.toml", root / "other")
        worth = points_of(notebook)
        faults = [f"assignment {number}: {fault}" for fault in form(number, notebook)]
        start = time.process_time()
        for which, (book, *places) in {"other": (notebook, *folders), "sample": sample}.items():
            scores, said = run(book, *places)
            for test, points in lost(worth, scores).items():
                faults.append(f"the reference loses {points:g} in {test} (terms/{which}.toml): "
                              f"{said[test]}")  # fmt: skip
            if which == "other":
                seconds = time.process_time() - start
                say(f"assignment {number}: reference {sum(scores.values()):g} points by code in "
                    f"{seconds:.1f} s")  # fmt: skip
        if seconds > 5:
            faults.append(f"the reference's code takes {seconds:.1f} s, more than 5")
        scores, _ = run(untouched(notebook), *folders)
        if any(scores.values()):
            faults.append(f"an untouched notebook earns {scores}")
        for one in read_wrong(number):
            scores, said = run(with_answer(notebook, one.breaks, one.source), *folders)
            title = f"{one.breaks}: {one.source.splitlines()[0].removeprefix('# ')}"
            fault, missing = fault_of(one, worth, scores), lost(worth, scores)
            if fault:
                faults.append(f"{title} {fault}")
            say(f"  {'FAULT ' if fault else ''}{title} loses {missing or 'nothing'}")
            for test in missing:
                say(f"      {said[test].splitlines()[0]}")
    return faults


def prove_all(only: list[int] | None = None) -> int:
    """Prove the assignments and print their faults; how many faults there are."""
    faults = [fault for number in only or numbers() for fault in prove(number)]
    for fault in faults:
        print(f"FAULT: {fault}")
    return len(faults)
