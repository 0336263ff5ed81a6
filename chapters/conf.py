"""The HTML book, by Sphinx: the notebooks as they are, readable without network.

`make html` builds it. Nothing is executed here (chapters/build.py does that), and a page that would
load a script, a style, a font or a picture from elsewhere fails the build.
"""

import re
from pathlib import Path

from sphinx.errors import SphinxError

project = "SEDD-mini"
author = "SEDD-mini authors"
copyright = "2026, SEDD-mini authors"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"]
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
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sphinx = False
html_copy_source = True

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


def setup(app) -> None:
    app.connect("build-finished", stay_at_home, priority=900)
