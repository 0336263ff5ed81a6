"""What the tests of the chapters' form share: which are marked edition 2, and their exercises."""

import importlib.util
import re
from pathlib import Path

import nbformat

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
HEADING = re.compile(r"#{2,3} Exercise (\d+)\. (.+)")


def load(path: Path):
    """A module by its file: chapters/ is a folder of files, not a package."""
    spec = importlib.util.spec_from_file_location(f"tested_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build = load(CHAPTERS / "build.py")


def second_edition(folder: Path = CHAPTERS) -> list[Path]:
    """The .py of every chapter whose header says edition 2."""
    return [path for path in sorted(folder.glob(build.PATTERN + ".py")) if edition(path) == 2]


def edition(path: Path) -> int:
    return build.read_source(path).metadata.get("sedd_mini", {}).get("edition", 1)


def tagged(cells: list, tag: str) -> list[str]:
    return [cell.source for cell in cells if tag in cell.metadata.get("tags", [])]


def exercises(notebook: nbformat.NotebookNode) -> dict[str, list]:
    """Number of an exercise → its cells, from its heading to the next heading."""
    found, number = {}, None
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.match("#{1,3} ", cell.source):
            match = HEADING.match(cell.source)
            number = match[1] if match else None
        if number:
            found.setdefault(number, []).append(cell)
    return found
