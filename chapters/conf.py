"""The HTML book, by Sphinx: the notebooks as they are, readable without network.

`make html` builds it. Nothing is executed here (chapters/build.py does that), and a page that would
load a script, a style, a font or a picture from elsewhere fails the build.
"""

import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx.errors import SphinxError

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import works  # noqa: E402

project = "SEDD-mini"
author = "SEDD-mini authors"
copyright = "2026, SEDD-mini authors"

extensions = [
    "myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx-mathjax-offline",
    "sphinx_copybutton",
]  # fmt: skip
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them, as in the source
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-default pre"
exclude_patterns = ["_build", "_static", "assignments", "results", "**.ipynb_checkpoints"]
exclude_patterns += ["**-Copy*", "**my_*"]  # a reader's own copies

nb_execution_mode = "off"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["toc.empty_glob"]  # a book without solutions is a book

html_theme = "sphinx_book_theme"
html_title = "SEDD-mini"
html_theme_options = {
    "show_toc_level": 2,
    "navbar_persistent": [],  # one search field is enough: the sidebar has it
}
html_context = {"default_mode": "auto"}  # light or dark, as the reader's system has it
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sphinx = False
html_copy_source = True
html_domain_indices = False  # library.md is the list of modules

# A tag that makes the browser fetch something: <script src>, <img src>, <link href>; not <a href>.
FETCH = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|link)\b[^>]*?\b(?:src|href)\s*=\s*["']?"""
    r"""((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)
# The same in a style sheet.
CSS_FETCH = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"'\s)]+)""", re.IGNORECASE)
# Links that say where a page is, and fetch nothing.
NO_FETCH = re.compile(r"""<link\b[^>]*\brel=["'](?:canonical|license|author|index|search)["']""")


def remote_resources(folder: Path) -> list[str]:
    """Every address outside the book that one of its pages or styles would load."""
    found = []
    for path in sorted(folder.rglob("*.html")):
        for match in FETCH.finditer(path.read_text(encoding="utf-8")):
            if not NO_FETCH.match(match[0]):
                found.append(f"{path.relative_to(folder)}: {match[1]}")
    for path in sorted(folder.rglob("*.css")):
        for match in CSS_FETCH.finditer(path.read_text(encoding="utf-8")):
            found.append(f"{path.relative_to(folder)}: {match[1]}")
    return found


def stay_at_home(app, exception) -> None:
    remote = remote_resources(Path(app.outdir)) if exception is None else []
    if remote:
        raise SphinxError("These would need the network to be read:\n" + "\n".join(remote))


def list_works(app, docname: str, source: list[str]) -> None:
    """bibliography.md: its list comes from the chapters."""
    if docname == "bibliography":
        head, mark, tail = source[0].partition("<!-- works:")
        if not mark:
            raise SphinxError("bibliography.md has lost the mark where its works go")
        source[0] = head + works.as_list(HERE) + tail.partition("-->")[2]


def as_it_stands(app, what, name, thing, options, lines: list[str]) -> None:
    """Docstrings are plain text with columns: shown as they stand, not read as reStructuredText."""
    lines[:] = ["::", "", *("   " + line for line in lines), ""] if any(lines) else []


def fold_answers(app, doctree) -> None:
    """Checks and stored answers are folded on the page; in JupyterLab they stay open."""
    for cell in doctree.findall(nodes.container):
        folded = {"tag_check", "tag_solution", "tag_wrong"} & set(cell.get("classes", ()))
        if folded and cell.get("nb_element") == "cell_code" and not cell.get("hide_mode"):
            cell["hide_mode"] = "input"
            what = {"tag_check": "check", "tag_solution": "answer", "tag_wrong": "wrong answer"}
            cell["prompt_show"] = f"Show the {what[folded.pop()]}"
            cell["prompt_hide"] = "Hide it"


def terms(env) -> dict[str, str]:
    """Each word of the glossary, in lower case → its anchor"""
    objects = env.get_domain("std").objects
    return {name.lower(): place[1] for (kind, name), place in objects.items() if kind == "term"}


def link_first_uses(app, doctree, docname: str) -> None:
    """Where a chapter first sets a word of the glossary in bold or italics, it links there."""
    if not re.match(r"\d\d_", docname):
        return
    anchors, seen = terms(app.env), set()
    for node in list(doctree.findall(lambda n: isinstance(n, nodes.strong | nodes.emphasis))):
        word = node.astext().strip(" .:").lower()
        if word in anchors and word not in seen and not isinstance(node.parent, nodes.reference):
            seen.add(word)
            to = app.builder.get_relative_uri(docname, "glossary") + "#" + anchors[word]
            link = nodes.reference("", "", refuri=to, internal=True, classes=["glossary-word"])
            node.replace_self(link)
            link += node


def setup(app) -> None:
    app.connect("source-read", list_works)
    app.connect("autodoc-process-docstring", as_it_stands)
    app.connect("doctree-read", fold_answers)
    app.connect("doctree-resolved", link_first_uses)
    app.connect("build-finished", stay_at_home, priority=900)
