"""Every exercise of a second-edition chapter: whole, solvable, and not to be fooled.

A case is a namespace in which the stub, an answer and the check run one after another, as a reader
runs them: the stub alone, the solution, and each wrong answer.
"""

import contextlib
import dis
import io
import random
import re
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from second_edition import CHAPTERS, build, exercises, second_edition, tagged

HEAD = re.compile(r"### Exercise \d+\. .+ \((★☆☆|★★☆|★★★), \d+ minutes\)")
HINT = re.compile(r"<details><summary>Hint( \d)?</summary>.+?</details>", re.DOTALL)


@dataclass
class Exercise:
    """The cells of one exercise and of its solution."""

    chapter: str
    number: str
    text: str
    stub: list[str]
    check: list[str]
    solution: list[str]
    wrong: list[str]


def read_exercises(source: Path) -> list[Exercise]:
    path = source.parent / "solutions" / source.name
    solutions = exercises(build.read_source(path)) if path.exists() else {}
    found = []
    for number, cells in exercises(build.read_source(source)).items():
        answers = solutions.get(number, [])
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found.append(
            Exercise(
                source.stem, number, text, tagged(cells, "exercise"), tagged(cells, "check"),
                tagged(answers, "solution"), tagged(answers, "wrong"),
            )
        )  # fmt: skip
    return found


def missing(exercise: Exercise) -> list[str]:
    """The parts that an exercise lacks."""
    faults = []
    if not HEAD.match(exercise.text):
        faults.append("its heading is not `### Exercise N. Title (★☆☆, 10 minutes)`")
    if not HINT.search(exercise.text):
        faults.append("no folded hint")
    if f"](solutions/{exercise.chapter}.ipynb" not in exercise.text:
        faults.append("no link to its solution")
    for name in ("stub", "check", "solution"):
        cells = getattr(exercise, name)
        if len(cells) != 1:
            faults.append(f"{len(cells)} {name} cells, not one")
    if f'with exercise("{exercise.number}")' not in "\n".join(exercise.check):
        faults.append(f'the check has no `with exercise("{exercise.number}")`')
    if len(exercise.wrong) < 2:
        faults.append(f"{len(exercise.wrong)} wrong answers, not two or more")
    for i, answer in enumerate(exercise.wrong, 1):
        if not answer.startswith("# "):
            faults.append(f"wrong answer {i} does not start by saying what is wrong about it")
    return faults


def outcome(cells: list[str], folder: Path) -> str | Exception:
    """What these cells print, run in a namespace of their own in this folder; or their error.

    What they change for others is put back: default dtype, seeds, style, figures.
    """
    printed, namespace = io.StringIO(), {"__name__": "__main__"}
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        with (
            contextlib.chdir(folder), contextlib.redirect_stdout(printed), matplotlib.rc_context(),
        ):  # fmt: skip
            matplotlib.use("Agg")
            for cell in cells:
                exec(compile(cell, "<cell>", "exec"), namespace)
    except Exception as error:
        return error
    finally:
        plt.close("all")
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
    return printed.getvalue()


def fault(exercise: Exercise, case: str, folder: Path) -> str | None:
    """What is wrong with one case of an exercise: "whole", "stub", "solution", "wrong 1", …"""
    if case == "whole":
        return "; ".join(missing(exercise)) or None
    answers = {"stub": [], "solution": exercise.solution}
    kind, _, index = case.partition(" ")
    answer = answers[kind] if kind in answers else [exercise.wrong[int(index) - 1]]
    result = outcome([*exercise.stub, *answer, *exercise.check], folder)
    expected = {"stub": "not written yet.", "solution": "right."}.get(kind)
    if expected is None:
        if isinstance(result, str):
            return f"the check lets it pass; it printed {result!r}"
        return "the check takes it for a stub" if isinstance(result, NotImplementedError) else None
    if isinstance(result, Exception):
        return f"it raised {result!r}"
    line = f"Exercise {exercise.number}: {expected}"
    return None if line in result.splitlines() else f"it printed {result!r}, not {line!r}"


def cases(exercise: Exercise) -> list[str]:
    return ["whole", "stub", "solution", *(f"wrong {i + 1}" for i in range(len(exercise.wrong)))]


EVERY = [
    pytest.param(exercise, case, id=f"{exercise.chapter}-exercise {exercise.number}-{case}")
    for source in second_edition()
    for exercise in read_exercises(source)
    for case in cases(exercise)
]


@pytest.mark.parametrize(("exercise", "case"), EVERY)
def test_exercise(exercise, case):
    found = fault(exercise, case, CHAPTERS)
    assert found is None, f"{exercise.chapter}, exercise {exercise.number}, {case}: {found}"


def test_every_solution_belongs_to_an_exercise():
    for path in sorted((CHAPTERS / "solutions").glob(build.PATTERN + ".py")):
        assert (CHAPTERS / path.name).exists(), f"solutions/{path.name} has no chapter"
        asked, solved = (exercises(build.read_source(p)) for p in (CHAPTERS / path.name, path))
        assert asked.keys() == solved.keys(), f"{path.name}: exercises and solutions differ"


# ------------------------------------------------------------------------- the tests of these tests

CHAPTER = """\
# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1. Half (★☆☆, 5 minutes)
# Write `half(x)`.
#
# <details><summary>Hint</summary>
#
# A division.
#
# </details>
#
# [Solution](solutions/01_tiny.ipynb)

# %% tags=["exercise"]
import torch


def half(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("1"):
    assert half(torch.tensor(3.0)) == 1.5, "half of 3 is 1.5"

# %% [markdown]
# ## Further reading

# %% tags=["exercise"]
elsewhere = 1
"""
SOLUTION = """\
# %% [markdown]
# ## Exercise 1. Half
# Divide.

# %% tags=["solution"]
def half(x):
    return x / 2

# %% tags=["wrong"]
# Twice.
def half(x):
    return x * 2

# %% tags=["wrong"]
# Rounds down.
def half(x):
    return x // 2
"""


def tiny(folder: Path, chapter: str = CHAPTER, solution: str = SOLUTION) -> Exercise:
    (folder / "solutions").mkdir()
    (folder / "01_tiny.py").write_text(chapter)
    (folder / "solutions" / "01_tiny.py").write_text(solution)
    (exercise,) = read_exercises(folder / "01_tiny.py")
    return exercise


def test_a_sound_exercise_has_no_fault(tmp_path):
    exercise = tiny(tmp_path)
    assert cases(exercise) == ["whole", "stub", "solution", "wrong 1", "wrong 2"]
    assert [fault(exercise, case, tmp_path) for case in cases(exercise)] == [None] * 5


@pytest.mark.parametrize(
    ("old", "new", "case", "reason"),
    [
        ("(★☆☆, 5 minutes)", "(easy)", "whole", "heading"),
        ("</details>", "", "whole", "no folded hint"),
        ("[Solution](solutions/01_tiny.ipynb)", "", "whole", "no link"),
        ('tags=["exercise"]\nimport', 'tags=["x"]\nimport', "whole", "0 stub cells"),
        ('tags=["check"]', "", "whole", "0 check cells"),
        ('exercise("1")', 'exercise("2")', "whole", "no `with exercise"),
        ('tags=["solution"]', "", "whole", "0 solution cells"),
        ('tags=["wrong"]\n# Twice.', "", "whole", "1 wrong answers"),
        ("# Twice.\n", "", "whole", "wrong answer 1 does not start"),
        ("raise NotImplementedError", "return x", "stub", "it raised AssertionError"),
        ("import torch\nfrom", "from", "stub", None),
        ("import torch\n\n\ndef half(x: torch.Tensor)", "def half(x: torch.Tensor)", "stub",
         "it raised NameError"),
        ("x / 2", "x / 3", "solution", "it raised AssertionError"),
        ("return x * 2", "return x / 2", "wrong 1", "the check lets it pass"),
        ("return x * 2", 'raise NotImplementedError("no")', "wrong 1", "takes it for a stub"),
    ],
)  # fmt: skip
def test_each_fault_is_found(tmp_path, old, new, case, reason):
    assert old in CHAPTER + SOLUTION
    exercise = tiny(tmp_path, CHAPTER.replace(old, new, 1), SOLUTION.replace(old, new, 1))
    found = fault(exercise, case, tmp_path)
    assert found is None if reason is None else reason in found


def test_a_case_leaves_no_trace(tmp_path):
    before = torch.get_default_dtype(), torch.get_rng_state(), Path.cwd()
    cell = "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.manual_seed(1)\nprint('x')"
    assert outcome([cell], tmp_path) == "x\n"
    assert torch.get_default_dtype() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert Path.cwd() == before[2]


def test_an_operation_that_pytorch_lacks_is_not_a_stub(capsys):
    from sedd_mini.exercises import exercise

    with pytest.raises(NotImplementedError, match="no kernel"), exercise("1"):
        raise NotImplementedError("no kernel")
    with exercise("1"):
        raise NotImplementedError
    assert capsys.readouterr().out == "Exercise 1: not written yet.\n"


# --------------------------------------------------------- what an exercise leaves for later cells


def names(source: str) -> tuple[set[str], set[str]]:
    """A cell's global names: those that it reads before it sets them, and those that it sets.

    Names that an import sets are left out: they are the same thing in every cell.
    """
    lines = ["pass" if line.lstrip().startswith("%") else line for line in source.splitlines()]
    codes = [compile("\n".join(lines), "<cell>", "exec")]
    read, written = set(), set()
    for code in codes:  # grows by the functions inside
        codes.extend(const for const in code.co_consts if hasattr(const, "co_code"))
        before = ""
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and step.argval not in written:
                read.add(step.argval)
            elif step.opname in ("STORE_NAME", "STORE_GLOBAL") and not before.startswith("IMPORT"):
                if code is codes[0]:
                    written.add(step.argval)
            before = step.opname
    return read, written


def leaks(cells: list) -> list[str]:
    """Names that the cells of an exercise set and that a later cell outside them reads."""
    left, faults = set(), []
    for cell in (c for c in cells if c.cell_type == "code"):
        read, written = names(cell.source)
        if {"exercise", "check"} & set(cell.metadata.get("tags", [])):
            left |= written
        else:
            faults += [f"cell {cell.id} reads {name}" for name in sorted(left & read)]
            left -= written
    return faults


@pytest.mark.parametrize("source", second_edition(), ids=lambda source: source.stem)
def test_an_exercise_changes_no_name_that_a_later_cell_reads(source):
    faults = leaks(build.read_source(source).cells)
    assert not faults, f"{source.stem}, names that exercises set: " + "; ".join(faults)


def test_a_name_that_leaks_is_found(tmp_path):
    later = "\n# %%\ndef f(x):\n    return x + elsewhere\n"
    (tmp_path / "01_tiny.py").write_text(CHAPTER + later)
    (found,) = leaks(build.read_source(tmp_path / "01_tiny.py").cells)
    assert found.endswith("reads elsewhere")
    (tmp_path / "01_tiny.py").write_text(CHAPTER + "\n# %%\nelsewhere = 2\n" + later)
    assert leaks(build.read_source(tmp_path / "01_tiny.py").cells) == []
