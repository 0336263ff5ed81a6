"""The form of a second-edition chapter: what stands where, what is folded, what pictures need.

Each check returns the faults that it finds. The second half plants each fault in a tiny chapter.
"""

import ast
import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from second_edition import CHAPTERS, build, exercises, second_edition, tagged

HEAD_CELLS = 12
LONGEST_CELL = 25
PAGE_LINES = 90
DIFF_LINES = 15
DRAWING = {"fig", "ax", "axes", "axs", "plots", "plt"}
SCAFFOLDING = re.compile(
    r"^[^{\n]*: +True\b|^\W*(?:ok|passed)\W*$|: *(?:ok|passed)\b"
    r"|\b(?:all|checks?|everything|tests?)\b.*\b(?:ok|passed)\b",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass
class Chapter:
    """A chapter's cells, with the outputs that are stored, and the lines of the page."""

    number: str
    notebook: nbformat.NotebookNode
    page: str | None  # the text of page.py

    @property
    def cells(self) -> list:
        return self.notebook.cells

    @property
    def code(self) -> list:
        return [cell for cell in self.cells if cell.cell_type == "code"]


def read_chapter(source: Path) -> Chapter:
    notebook = build.read_source(source)
    if source.with_suffix(".ipynb").exists():
        stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
        for cell, old in zip(notebook.cells, stored.cells, strict=False):
            if cell.source == old.source and "outputs" in old:
                cell.outputs = old.outputs
    page = source.with_name("page.py")
    return Chapter(source.name[:2], notebook, page.read_text() if page.exists() else None)


def markdown(cells: list) -> str:
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def blocks(text: str, language: str) -> list[list[str]]:
    """The lines of each fenced block of this language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block.splitlines() for block in found]


def bare(line: str) -> str:
    """A line of code without its indentation and the comment at its end."""
    return re.sub(r"(^|\s+)#.*$", "", line).strip()


def not_in_page(chapter: Chapter, lines: list[str]) -> list[str]:
    page = {bare(line) for line in chapter.page.splitlines()}
    return [f"not a line of page.py: {line.strip()}" for line in lines if bare(line) not in page]


# --------------------------------------------------------------------------------------- the checks


def opening(chapter: Chapter) -> list[str]:
    """Title with a question, running time, three things that the reader will be able to do."""
    faults = []
    if not re.match(rf"# {chapter.number}\. .+: .+\?(\n|$)", chapter.cells[0].source):
        faults.append(f"the first line is not `# {chapter.number}. Title: a question?`")
    head = markdown(chapter.cells[:HEAD_CELLS])
    if not re.search(r"^.*\*Running time", head, re.MULTILINE):
        faults.append("no line with *Running time*")
    listed = re.search(r"able to.*?\n((?:[-*] .*\n(?:[ \t]+.*\n|\n)*)+)", head + "\n", re.DOTALL)
    bullets = re.findall(r"^[-*] ", listed[1], re.MULTILINE) if listed else []
    if len(bullets) != 3:
        faults.append(f"{len(bullets)} bullets of what the reader will be able to do, not 3")
    return faults


def lines_of_the_page(chapter: Chapter) -> list[str]:
    """The section near the head that quotes the page; chapter 00 ends with the page instead."""
    if chapter.number == "00":
        return []
    head = markdown(chapter.cells[:HEAD_CELLS])
    section = re.search(r"^## The lines of the page\n(.*?)(?=^## |\Z)", head, re.DOTALL | re.M)
    quoted = blocks(section[1], "python") if section else []
    if not quoted:
        return ["no section `## The lines of the page` with a block of Python near the head"]
    return not_in_page(chapter, [x for x in quoted[0] if bare(x) not in ("", "...")])


def changes_of_the_page(chapter: Chapter) -> list[str]:
    """The diff before the summary: what this chapter has changed in the page."""
    if chapter.number == "00":
        return []
    diffs = blocks(re.split(r"^## Summary", markdown(chapter.cells), flags=re.M)[0], "diff")
    if not diffs:
        return ["no block of diff before the summary"]
    lines = [line for line in diffs[-1] if not line.startswith(("@@", "---", "+++"))]
    faults = [] if len(lines) <= DIFF_LINES else [f"the diff has {len(lines)} lines"]
    old = [line[1:] for line in lines if not line.startswith("+")]
    return faults + not_in_page(chapter, [x for x in old if bare(x) not in ("", "...")])


def alt_texts(chapter: Chapter) -> list[str]:
    return [
        f"cell {cell.id}: its picture's alt text (`#| alt: …`) has under 30 characters"
        for cell in chapter.code
        if any("image/png" in output.get("data", {}) for output in cell.outputs)
        and len(build.alt_text(cell.source)) < 30
    ]


def folds(chapter: Chapter) -> list[str]:
    """Cells that only assert, or only draw, and are not folded."""
    faults = []
    for cell in chapter.code:
        tags = set(cell.metadata.get("tags", []))
        if tags & {"exercise", "check", "hide-cell"}:
            continue
        if only_asserts(cell.source):
            faults.append(f"cell {cell.id} only asserts: tag it hide-cell")
        elif "hide-input" not in tags and only_draws(cell.source):
            faults.append(f"cell {cell.id} only draws: tag it hide-input")
    return faults


IMPORTS = (ast.Import, ast.ImportFrom)


def statements(source: str) -> list[ast.stmt]:
    """Those of a cell, without its lines of IPython's own (`%config …`) and imports."""
    lines = [line for line in source.splitlines() if not line.startswith(("%", "!"))]
    return [x for x in ast.parse("\n".join(lines)).body if not isinstance(x, IMPORTS)]


def only_asserts(source: str) -> bool:
    def asserts(statement: ast.stmt) -> bool:
        if isinstance(statement, ast.For | ast.With):
            return all(map(asserts, statement.body))
        return isinstance(statement, ast.Assert)

    body = statements(source)
    return bool(body) and all(map(asserts, body))


def only_draws(source: str) -> bool:
    def draws(statement: ast.stmt) -> bool:
        names = (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
        arguments = (node.arg for node in ast.walk(statement) if isinstance(node, ast.arg))
        return bool(DRAWING & {*names, *arguments})

    body = statements(source)
    return bool(body) and all(map(draws, body))


def scaffolding(chapter: Chapter) -> list[str]:
    return [
        f"cell {cell.id} prints the result of a test: {match[0].strip()}"
        for cell in chapter.code
        for output in cell.outputs
        for text in build.texts(output)
        if (match := SCAFFOLDING.search(text))
    ]


def order(chapter: Chapter) -> list[str]:
    """Summary, exercises, perhaps a laboratory, further reading; and the number of exercises."""
    text = markdown(chapter.cells)
    places, faults = [], []
    for name in ("Summary", "Exercises", "Laboratory", "Further reading"):
        place = re.search(rf"^## {name}", text, re.MULTILINE)
        if place:
            places.append(place.start())
        elif name != "Laboratory":
            faults.append(f"no section `## {name}`")
    if places != sorted(places):
        faults.append("not in the order Summary, Exercises, Laboratory, Further reading")
    number, least = len(exercises(chapter.notebook)), 2 if chapter.number == "00" else 3
    if not least <= number <= 5:
        faults.append(f"{number} exercises, not {least} to 5")
    return faults


def pictures(chapter: Chapter) -> list[str]:
    """The stored pictures: dense enough at the size at which they are shown, and in a palette.

    One without the builder's alt text comes from a reader's own run, and is passed over.
    """
    faults = []
    for cell in chapter.code:
        for output in cell.outputs:
            shown = output.get("metadata", {}).get("image/png", {})
            if "image/png" not in output.get("data", {}) or "alt" not in shown:
                continue
            content = base64.b64decode(output.data["image/png"])
            with Image.open(io.BytesIO(content)) as image:
                dpi = 96 * image.width / shown.get("width", image.width)
                if dpi < 150:
                    faults.append(f"cell {cell.id}: a picture of {dpi:.0f} dpi: plots.use_style()?")
                if image.mode != "P":
                    faults.append(f"cell {cell.id}: a picture in {image.mode}, not in a palette")
    return faults


def long_cells(chapter: Chapter) -> list[str]:
    core, _ = build.core_and_laboratory(chapter.cells)
    lengths = {c.id: len(build.code_lines(c.source)) for c in core if c.cell_type == "code"}
    return [f"cell {key} has {n} lines" for key, n in lengths.items() if n > LONGEST_CELL]


def page_itself(chapter: Chapter) -> list[str]:
    """Chapter 00's cells tagged `page` are page.py, blank lines and its docstring aside."""
    if chapter.number != "00":
        return []
    page, cells = lines_of(chapter.page), lines_of("\n".join(tagged(chapter.cells, "page")))
    faults = []
    size = sum(bool(bare(line)) for line in page)
    if size > PAGE_LINES:
        faults.append(f"page.py has {size} lines of code, more than {PAGE_LINES}")
    if page != cells:
        differing = [(a, b) for a, b in zip(page, cells, strict=False) if a != b]
        faults.append(f"page.py is not the cells tagged `page`: {(differing or ['length'])[0]}")
    return faults


def lines_of(code: str) -> list[str]:
    """Its lines, without blank ones, alt texts and a docstring at the head."""
    lines, first = code.splitlines(), ast.parse(code).body[:1]
    if first and isinstance(first[0], ast.Expr) and isinstance(first[0].value, ast.Constant):
        lines[first[0].lineno - 1 : first[0].end_lineno] = []
    return [line.rstrip() for line in build.code_lines("\n".join(lines))]


NEED_THE_PAGE = (lines_of_the_page, changes_of_the_page, page_itself)
CHECKS = (
    opening, lines_of_the_page, changes_of_the_page, alt_texts, folds, scaffolding, order,
    pictures, long_cells, page_itself,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("source", second_edition(), ids=lambda source: source.stem)
def test_form(source, check):
    chapter = read_chapter(source)
    if check in NEED_THE_PAGE and chapter.page is None:
        pytest.skip(f"there is no {CHAPTERS.name}/page.py yet")
    faults = check(chapter)
    assert not faults, f"{source.stem}: " + "; ".join(faults)


# ------------------------------------------------------------------------- the tests of these tests

PAGE = '"""A model on one page."""\n\nimport torch\n\nx = torch.ones(3)  # (L,)\nloss = x.sum()\n'
SOUND = """\
# %% [markdown]
# # 01. Tiny: is it small?
# Why. After this chapter you will be able to
#
# - do one
#   thing;
# - do two;
#
# - do three.
#
# *Running time: a second.*

# %% [markdown]
# ## The lines of the page
#
# ```python
# ...
#     loss = x.sum()
# # a comment
# ```

# %% tags=["page"]
import torch

x = torch.ones(3)  # (L,)

# %% tags=["page"]
loss = x.sum()

# %% tags=["hide-input"]
#| alt: A line that rises from one to three.
import matplotlib.pyplot as plt
fig, ax = plt.subplots()
for i in range(3):
    ax.plot(i)

# %% tags=["hide-cell"]
for i in range(3):
    assert i < 3

# %% [markdown]
# ```diff
#  x = torch.ones(3)
# -loss = x.sum()
# +loss = x.mean()
# ```
#
# ## Summary
#
# ## Exercises

# %% [markdown]
# ### Exercise 1. A

# %% [markdown]
# ### Exercise 2. B

# %% [markdown]
# ### Exercise 3. C

# %% [markdown]
# ## Laboratory

# %% [markdown]
# ## Further reading
"""
PICTURE, ASSERTS = 4, 5  # cells


def tiny(folder: Path, text: str = SOUND, page: str = PAGE, number: str = "01") -> Chapter:
    (folder / f"{number}_tiny.py").write_text(text)
    (folder / "page.py").write_text(page)
    chapter = read_chapter(folder / f"{number}_tiny.py")
    show(chapter)
    return chapter


def show(chapter: Chapter, mode: str = "P", width: int = 50) -> None:
    """Store a picture of 100 pixels, shown at this width."""
    content = io.BytesIO()
    Image.new(mode, (100, 60)).save(content, "PNG")
    data = {"image/png": base64.b64encode(content.getvalue()).decode()}
    metadata = {"image/png": {"alt": "x", "width": width}}
    output = nbformat.v4.new_output("display_data", data=data, metadata=metadata)
    chapter.cells[PICTURE].outputs = [output]


@pytest.mark.parametrize("number", ["00", "01"])
def test_a_sound_chapter_has_no_fault(tmp_path, number):
    chapter = tiny(tmp_path, SOUND.replace("# 01.", f"# {number}."), number=number)
    assert {check.__name__: check(chapter) for check in CHECKS if check(chapter)} == {}


@pytest.mark.parametrize(
    ("check", "old", "new", "reason"),
    [
        (opening, "is it small?", "it is small", "the first line"),
        (opening, "# 01.", "# 02.", "the first line"),
        (opening, "*Running time", "*Time", "Running time"),
        (opening, "# - do two;\n", "", "2 bullets"),
        (opening, "# - do two;\n", "# - do two;\n# - do more;\n", "4 bullets"),
        (lines_of_the_page, "## The lines of the page", "## The page", "no section"),
        (lines_of_the_page, "# ```python", "# ```", "no section"),
        (lines_of_the_page, "#     loss = x.sum()", "#     loss = x.max()", "loss = x.max()"),
        (changes_of_the_page, "# ```diff", "# ```", "no block of diff"),
        (changes_of_the_page, "# -loss = x.sum()", "# -loss = x.max()", "loss = x.max()"),
        (changes_of_the_page, "#  x = torch", "#  y = torch", "y = torch.ones(3)"),
        (changes_of_the_page, "# +loss", "# +\n" * 15 + "# +loss", "the diff has 18 lines"),
        (alt_texts, "#| alt: A line that rises from one to three.\n", "", "under 30 characters"),
        (alt_texts, "A line that rises from one to three.", "A line.", "under 30 characters"),
        (folds, 'tags=["hide-cell"]', "", "01-005 only asserts"),
        (folds, 'tags=["hide-input"]', "", "01-004 only draws"),
        (order, "## Summary", "## Sum", "no section `## Summary`"),
        (order, "# ## Further reading", "# ## Further", "no section `## Further reading`"),
        (order, "#\n# ## Exercises", "", "no section `## Exercises`"),
        (order, "# ## Laboratory", "# ## Further reading\n# ## Laboratory", "not in the order"),
        (order, "### Exercise 3. C", "### C", "2 exercises, not 3 to 5"),
        (long_cells, "loss = x.sum()\n\n# %%", "loss = x.sum()\n" * 26 + "\n# %%", "has 26 lines"),
    ],
)
def test_each_fault_is_found(tmp_path, check, old, new, reason):
    assert old in SOUND
    faults = check(tiny(tmp_path, SOUND.replace(old, new, 1)))
    assert len(faults) == 1
    assert reason in faults[0]


def test_a_long_cell_may_stand_in_the_laboratory(tmp_path):
    long = "\n# %%\n" + "x = 1\n" * 26
    assert long_cells(tiny(tmp_path, SOUND + long)) == []


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (PAGE + "x = 1\n" * 88, "page.py has 91 lines of code"),
        (PAGE.replace("x.sum()", "x.max()"), "not the cells tagged `page`"),
        (PAGE + "y = 1\n", "not the cells tagged `page`"),
    ],
)
def test_a_page_that_differs_is_found(tmp_path, page, reason):
    faults = page_itself(tiny(tmp_path, page=page, number="00"))
    assert reason in faults[0]


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("the same: True\n", True),
        ("a table\nagree: True", True),
        ("OK", True),
        ("All checks passed", True),
        ("gradient: ok", True),
        ("The argument passed is a book, True or not\n", False),
        ("{'causal': True}", False),
        ("Exercise 1: not written yet.\n", False),
    ],
)
def test_scaffolding_is_found(tmp_path, text, bad):
    chapter = tiny(tmp_path)
    chapter.cells[ASSERTS].outputs = [nbformat.v4.new_output("stream", text=text)]
    assert len(scaffolding(chapter)) == bad


@pytest.mark.parametrize(
    ("mode", "width", "reasons"),
    [("P", 50, []), ("RGB", 50, ["in RGB"]), ("P", 100, ["96 dpi"]), ("L", 90, ["107", "in L"])],
)
def test_a_poor_picture_is_found(tmp_path, mode, width, reasons):
    chapter = tiny(tmp_path)
    show(chapter, mode, width)
    faults = pictures(chapter)
    assert len(faults) == len(reasons)
    assert all(reason in fault for reason, fault in zip(reasons, faults, strict=True))
    del chapter.cells[PICTURE].outputs[0].metadata["image/png"]["alt"]
    assert pictures(chapter) == []  # a reader's own run


@pytest.mark.parametrize(
    ("source", "asserts", "draws"),
    [
        ("assert x", True, False),
        ("import torch\nwith torch.no_grad():\n    assert x\n    assert y", True, False),
        ("import torch", False, False),
        ("# nothing", False, False),
        ("y = f(x)\nassert y", False, False),
        ("fig, ax = plt.subplots()\nax.plot(x);", False, True),
        ("def draw(ax):\n    ax.plot(1)", False, True),
        ("y = f(x)\nplt.plot(y)", False, False),
        ("%config x\nplt.plot(y)", False, True),
    ],
)
def test_what_only_asserts_and_what_only_draws(source, asserts, draws):
    assert (only_asserts(source), only_draws(source)) == (asserts, draws)
