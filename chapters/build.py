"""Build the chapters: each NN_name.py (Jupytext, py:percent) is run and becomes NN_name.ipynb.

    python chapters/build.py                 every chapter, and the solutions to its exercises
    python chapters/build.py --only 01 03    some of them
    python chapters/build.py --check         run nothing: is every pair whole and in step?
    python chapters/build.py --form          run nothing: how long is each chapter, and its cells?

The .py is the source; whatever is edited in an .ipynb is lost at the next build. A build that
changes nothing leaves the same bytes. `--check` converts each .py in memory and compares it with
its .ipynb cell by cell: code and text, and that all code was run. A reader's own run, saved from
JupyterLab, changes outputs, counts and metadata, and passes.
"""

import argparse
import base64
import io
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import takewhile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from PIL import Image

CHAPTERS = Path(__file__).resolve().parent
PATTERN = "[0-9][0-9]_*"
SOLUTIONS = "solutions"  # a folder beside the chapters
MAX_BYTES = 1_200_000
CELL_TIMEOUT = 1800  # seconds

# Nothing of the machine that built it: no Python version, no environment's name.
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}

# Tags by which a cell is folded: in the HTML by themselves, in JupyterLab by these metadata.
FOLDED = {
    "hide-input": {"source_hidden": True},
    "hide-cell": {"source_hidden": True, "outputs_hidden": True},
}

# What the chapters run under: no network, no progress bars in the outputs, no chance.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONHASHSEED": "0",
}

ANSI = re.compile(r"\x1b\[[0-9;]*m")
# The file that a warning names; from the start of a word, or a long line would take minutes.
PLACE_OF_A_CELL = re.compile(r"(?<![^\s\"'])[^\s\"']*ipykernel_\d+[/\\]\d+\.py")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
WIDGETS = "application/vnd.jupyter.widget-view+json"


class BuildError(Exception):
    """A chapter that cannot be built; the message says which, where and why."""


def title(source: Path) -> str:
    """How messages call a notebook: 01_name, or solutions/01_name."""
    return f"{SOLUTIONS}/{source.stem}" if source.parent.name == SOLUTIONS else source.stem


# ------------------------------------------------------------------------------ the pair of files


def read_source(path: Path) -> nbformat.NotebookNode:
    """The notebook that NN_name.py stands for, with fixed cell ids and metadata and no outputs."""
    notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
    # By way of Jupytext's ipynb text, which leaves out the marks that it keeps for itself.
    notebook = nbformat.reads(jupytext.writes(notebook, fmt="ipynb"), as_version=4)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = fixed_metadata(notebook)
    start = ("s" if path.parent.name == SOLUTIONS else "") + path.name[:2]
    for index, cell in enumerate(notebook.cells):
        cell.id = f"{start}-{index:03d}"
        for tag in cell.metadata.get("tags", []):
            if tag in FOLDED:
                cell.metadata.setdefault("jupyter", {}).update(FOLDED[tag])
        if cell.cell_type == "code" and (alt := alt_text(cell.source)):
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return notebook


def fixed_metadata(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """METADATA, and what the header says to this builder: `sedd_mini: {edition: 2}`."""
    ours = {key: notebook.metadata[key] for key in ("sedd_mini",) if key in notebook.metadata}
    return nbformat.from_dict(METADATA | ours)


def alt_text(source: str) -> str:
    """What a cell's picture shows, in words: its first lines, `#| alt: …` and more lines `#| …`."""
    lines = takewhile(lambda line: line.startswith("#|"), source.splitlines())
    text = " ".join(line.removeprefix("#|").strip() for line in lines)
    return text.removeprefix("alt:").strip() if text.startswith("alt:") else ""


def to_bytes(notebook: nbformat.NotebookNode) -> bytes:
    nbformat.validate(notebook)
    return (nbformat.writes(notebook).rstrip("\n") + "\n").encode()


def write_atomically(path: Path, content: bytes) -> None:
    """The file is the old one or the new one, whatever happens."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


# ------------------------------------------------------------------------------------------ check


def check_pair(source: Path) -> list[str]:
    """What is wrong with NN_name.py and its .ipynb; an empty list if nothing is."""
    target = source.with_suffix(".ipynb")
    if not source.exists():
        return [f"{target.name} has no {source.name}: it cannot be built again"]
    if not target.exists():
        return [f"{source.name} has no {target.name}: it was never built"]
    try:
        notebook = nbformat.reads(target.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:
        return [f"{target.name} is not a notebook: {str(error).splitlines()[0]}"]
    return [*differences(read_source(source), notebook), *not_executed(notebook)]


def differences(expected: nbformat.NotebookNode, found: nbformat.NotebookNode) -> Iterator[str]:
    """Where the code or the text of a notebook is not what its .py says."""
    cells = list(found.cells)
    while len(cells) > len(expected.cells) and not cells[-1].source.strip():
        cells.pop()  # JupyterLab adds one when the last cell is run
    if not expected.cells:
        yield "the .py has no cells"
    if len(expected.cells) != len(cells):
        yield f"the .py has {len(expected.cells)} cells, the .ipynb has {len(cells)}"
    for want, have in zip(expected.cells, cells, strict=False):
        for key in ("cell_type", "source"):
            if want[key] != have[key]:
                yield f"cell {want.id}: its {key} differs from the .py"


def code_cells(notebook: nbformat.NotebookNode) -> list[tuple[str, nbformat.NotebookNode]]:
    """The code cells that have code, and how a message calls each."""
    return [
        (f"cell {cell.get('id', index)}", cell)
        for index, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and cell.source.strip()
    ]


def not_executed(notebook: nbformat.NotebookNode) -> list[str]:
    cells = code_cells(notebook)
    return [f"{name}: not executed" for name, cell in cells if cell.execution_count is None]


def faults(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """What a notebook just built must not have: cells not run, errors, memory addresses."""
    yield from not_executed(notebook)
    for count, (name, cell) in enumerate(code_cells(notebook), 1):
        if cell.execution_count not in (None, count):
            yield f"{name}: executed as number {cell.execution_count}, its place is {count}"
        for output in cell.outputs:
            expected = "raises-exception" in cell.metadata.get("tags", [])
            if output.output_type == "error" and not expected:
                yield f"{name}: ended in {output.ename}: {output.evalue}"
            if any(ADDRESS.search(text) for text in texts(output)):
                yield (
                    f"{name}: shows a memory address, which changes every time: "
                    "end the cell with something else, or its last line with a semicolon"
                )


def texts(output: nbformat.NotebookNode) -> list[str]:
    """The texts of one output (not its pictures)."""
    if output.output_type == "stream":
        return [output.text]
    if output.output_type == "error":
        return [*output.traceback, output.evalue]
    return [value for kind, value in output.data.items() if kind.startswith("text/")]


def check(sources: list[Path]) -> int:
    """Print what is wrong with each chapter; return how many have something wrong."""
    found = {source: check_pair(source) for source in sources}
    bad = [source for source in sources if found[source]]
    for source in bad:
        for reason in found[source][:5]:
            print(f"{title(source)}: {reason}")
        if len(found[source]) > 5:
            print(f"{title(source)}: and {len(found[source]) - 5} more")
    if bad:
        numbers = " ".join(sorted({source.name[:2] for source in bad}))
        print(
            f"{len(bad)} of {len(sources)} notebooks are not whole, or out of step with their .py. "
            f"To build them: python chapters/build.py --only {numbers}"
        )
    else:
        print(f"{len(sources)} notebooks: every one is executed and in step with its .py")
    return len(bad)


# ------------------------------------------------------------------------------------------ build


def run(notebook: nbformat.NotebookNode, source: Path, clients: list[NotebookClient]) -> None:
    """Execute the cells in a fresh kernel of this Python, in the chapter's folder."""
    started = []
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--Application.log_level=ERROR"],
        on_cell_execute=lambda cell, cell_index: started.append(cell),
    )
    clients.append(client)
    try:
        with tempfile.TemporaryDirectory(prefix="sedd-mini-") as profile:  # no user's settings
            environment = {**os.environ, **ENVIRONMENT, "IPYTHONDIR": profile}
            client.execute(cwd=str(source.parent), env=environment)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        where = (
            f"cell {started[-1].id}:\n\n{indent(started[-1].source)}\n" if started else "no cell"
        )
        raise BuildError(f"{title(source)} failed in {where}\n{explain(error, started)}") from None
    finally:
        clients.remove(client)


def explain(error: Exception, started: list[nbformat.NotebookNode]) -> str:
    if isinstance(error, CellExecutionError):
        errors = [output for output in started[-1].outputs if output.output_type == "error"]
        lines = ANSI.sub("", "\n".join(errors[-1].traceback)).splitlines()
        return "\n".join(lines[-20:])
    if isinstance(error, CellTimeoutError):
        return f"It ran for more than {CELL_TIMEOUT} seconds and was stopped."
    return "The kernel died: it was killed, crashed, or ran out of memory."


def indent(text: str) -> str:
    return "\n".join("    " + line for line in text.splitlines())


def tidy(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Leave in the outputs nothing that another run on this machine would not repeat."""
    places = [
        (sys.prefix, "<python>"),
        (sys.base_prefix, "<python>"),
        (str(folder), "."),
        (str(folder.parent), ".."),
        *([(str(folder.parent.parent), "../..")] if folder.name == SOLUTIONS else []),
        (str(Path.home()), "~"),
    ]

    def clean(text: str) -> str:
        text = PLACE_OF_A_CELL.sub("<cell>", text)
        for place, name in places:
            text = text.replace(place, name)
        return text

    notebook.metadata = fixed_metadata(notebook)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        alt = alt_text(cell.source)
        outputs = []
        for output in cell.outputs:
            last = outputs[-1] if outputs else None
            if output.output_type == "stream":
                output.text = clean(output.text)
                if last and last.output_type == "stream" and last.name == output.name:
                    last.text += output.text
                    continue
            elif output.output_type == "error":
                output.traceback = [clean(line) for line in output.traceback]
            else:
                output.data.pop(WIDGETS, None)
                for kind in output.data:
                    if kind.startswith("text/"):
                        output.data[kind] = clean(output.data[kind])
                if "image/png" in output.data:
                    output.data["image/png"] = small_picture(output.data["image/png"])
                    if alt:  # where nbconvert reads it
                        output.metadata.setdefault("image/png", {})["alt"] = alt
            outputs.append(output)
        cell.outputs = outputs


def small_picture(png: str) -> str:
    """The same picture on white, in a palette of at most 256 colours; base64 in, base64 out."""
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        picture = Image.new("RGBA", image.size, "white")
        picture.alpha_composite(image.convert("RGBA"))
        dpi = {"dpi": image.info["dpi"]} if "dpi" in image.info else {}
    picture = picture.convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True, **dpi)
    return base64.b64encode(small.getvalue()).decode()


def build_chapter(source: Path, clients: list[NotebookClient]) -> str:
    """Run one chapter and write its notebook; return a line that says how it went."""
    start = time.perf_counter()
    notebook = read_source(source)
    run(notebook, source, clients)
    tidy(notebook, source.parent)
    content = to_bytes(notebook)
    reasons = list(faults(notebook))
    if len(content) > MAX_BYTES:
        sizes = {cell.id: len(str(cell.get("outputs", ""))) for cell in notebook.cells}
        largest = max(sizes, key=sizes.get)
        reasons.append(
            f"{len(content)} bytes, more than {MAX_BYTES}; "
            f"the largest output is that of cell {largest}, {sizes[largest]} bytes"
        )
    if reasons:
        raise BuildError("\n".join(f"{title(source)}: {reason}" for reason in reasons))
    target = source.with_suffix(".ipynb")
    same = target.exists() and target.read_bytes() == content
    if not same:
        write_atomically(target, content)
    seconds = time.perf_counter() - start
    return f"{seconds:6.1f} s  {len(content) // 1000:4d} kB  {'unchanged' if same else 'written'}"


def build(sources: list[Path], jobs: int) -> int:
    """Build chapters, `jobs` at a time; return how many failed. Ctrl-C stops the kernels too."""
    # Matplotlib's first import on a machine writes a notice that no output should hold.
    import matplotlib.font_manager  # noqa: F401

    failures: list[str] = []
    clients: list[NotebookClient] = []
    start = time.perf_counter()
    width = max(len(title(source)) for source in sources)
    pool = ThreadPoolExecutor(jobs)
    waiting = {pool.submit(build_chapter, source, clients): source for source in sources}
    print(f"Running {len(sources)} notebooks; each is reported when it is done.", flush=True)
    try:
        while waiting:
            done, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
            for future in done:
                source = waiting.pop(future)
                try:
                    line = future.result()
                except BuildError as error:
                    failures.append(str(error))
                    line = "  FAILED"
                print(f"{title(source):{width}}{line}", flush=True)
    except BaseException:
        for future in waiting:
            future.cancel()
        for client in list(clients):
            if client.km is not None and client.km.has_kernel:
                client.km.provisioner.process.kill()
        raise
    finally:
        pool.shutdown()
    for failure in failures:
        print(f"\n{failure}")
    seconds = time.perf_counter() - start
    built = len(sources) - len(failures)
    print(f"{built} of {len(sources)} notebooks built in {seconds:.1f} s")
    return len(failures)


# ------------------------------------------------------------------------------------------- form

GUIDE = ("guide: core", "2800", "30", "", "<= 8", "<= 25", "8-12", "", "3-5")
COLUMNS = ("", "words", "cells", "lines", "median", "longest", "words/line", "figures", "exercises")
FENCED = re.compile(r"^```.*?^```[^\n]*$|\$\$.*?\$\$", re.DOTALL | re.MULTILINE)


def core_and_laboratory(cells: list) -> tuple[list, list]:
    """The cells before the heading `## Laboratory`, and those from there on."""
    for index, cell in enumerate(cells):
        if cell.cell_type == "markdown" and re.search(r"^## Laboratory", cell.source, re.M):
            return cells[:index], cells[index:]
    return cells, []


def code_lines(source: str) -> list[str]:
    """The lines of a cell without its alt text and blank lines."""
    return [line for line in source.splitlines() if line.strip() and not line.startswith("#|")]


def words(source: str) -> int:
    """Words of prose: without blocks of code and equations, and without HTML's tags."""
    text = re.sub(r"<[^>]+>", " ", FENCED.sub(" ", source))
    return sum(any(letter.isalnum() for letter in word) for word in text.split())


def measure(cells: list) -> list[str]:
    """One line of the table of `form`."""
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    lengths = [len(code_lines(cell.source)) for cell in cells if cell.cell_type == "code"]
    prose, lines = sum(map(words, texts)), sum(lengths)
    pictures = [
        output
        for cell in cells
        for output in cell.get("outputs", [])
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]
    asked = [text for text in texts if text.startswith("### Exercise ")]
    numbers = [prose, len(lengths), lines]
    middle = [f"{statistics.median(lengths):g}", max(lengths)] if lengths else ["", ""]
    ratio = f"{prose / lines:.1f}" if lines else ""
    return [str(n) for n in (*numbers, *middle, ratio, len(pictures), len(asked))]


def form(sources: list[Path]) -> None:
    """Print how long each chapter and its cells are, beside the guide; figures as last built."""
    rows = [COLUMNS]
    for source in sources:
        if source.parent.name == SOLUTIONS or not source.exists():
            continue
        cells = read_source(source).cells
        if source.with_suffix(".ipynb").exists():
            stored = nbformat.read(source.with_suffix(".ipynb"), as_version=4).cells
            for cell, old in zip(cells, stored, strict=False):
                if cell.source == old.source and "outputs" in old:
                    cell.outputs = old.outputs
        core, laboratory = core_and_laboratory(cells)
        rows.append((f"{source.stem}: core", *measure(core)))
        if laboratory:
            rows.append(("laboratory", *measure(laboratory)))
    widths = [max(len(row[i]) for row in (*rows, GUIDE)) for i in range(len(COLUMNS))]
    for row in (*rows, GUIDE):
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first, *others]))


# ----------------------------------------------------------------------------------- command line


def find_sources(folder: Path, only: list[str] | None) -> list[Path]:
    """The .py of every chapter and solution, whether it exists or only its .ipynb does.

    A reader's own copies (03_name-Copy1.ipynb: JupyterLab's Duplicate) are passed over.
    """
    folders = folder, folder / SOLUTIONS
    files = [path for place in folders for path in place.glob(PATTERN) if "-Copy" not in path.name]
    sources = {path.with_suffix(".py") for path in files if path.suffix in (".py", ".ipynb")}
    sources = sorted(sources, key=lambda source: (source.name, source.parent))
    if only is not None:
        unknown = sorted(set(only) - {source.name[:2] for source in sources})
        if unknown:
            sys.exit(f"No chapter {', '.join(unknown)} in {folder}")
        sources = [source for source in sources if source.name[:2] in only]
    if not sources:
        sys.exit(f"No chapters (NN_name.py) in {folder}")
    return sources


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare and inspect; run nothing")
    parser.add_argument("--form", action="store_true", help="report lengths; run nothing")
    parser.add_argument("--only", nargs="+", metavar="NN", help="these chapters alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="chapters at a time")
    parser.add_argument("--dir", type=Path, default=CHAPTERS, help="another folder of chapters")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {options.jobs}")
    folder = options.dir.resolve()
    if not folder.is_dir():
        parser.error(f"--dir: there is no folder {options.dir}")
    sources = find_sources(folder, options.only)
    if options.form:
        form(sources)
        return 0
    if options.check:
        return 1 if check(sources) else 0
    missing = [source.name for source in sources if not source.exists()]
    if missing:
        sys.exit(f"No source for {', '.join(missing)}: delete the .ipynb, or restore the .py")
    try:
        return 1 if build(sources, options.jobs) else 0
    except KeyboardInterrupt:
        print("\nStopped. Chapters that were not finished are as they were before.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
