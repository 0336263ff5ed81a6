"""The HTML book as a reader gets it: built whole, then opened in a headless Chromium.

The browser is one that is installed (chromium, chromium-browser, google-chrome): Playwright
downloads none. A reader without one sees these tests skipped; CI installs it (.ci/run).
"""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "chapters"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAGES = ["index", "notation", "glossary", "library", "bibliography"]
PAGES += sorted(path.stem for path in CHAPTERS.glob("[0-9][0-9]_*.py"))
PAGES += sorted(f"solutions/{path.stem}" for path in CHAPTERS.glob("solutions/[0-9][0-9]_*.py"))
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The folder of the whole book, built anew; a broken reference fails here."""
    folder = tmp_path_factory.mktemp("book") / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    result = subprocess.run([*command, CHAPTERS, folder], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("CI has no Chromium: .ci/run should have installed it")
        pytest.skip(f"no browser: install one of {', '.join(BROWSERS)} to run this")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


# ------------------------------------------------------------------------------ without a browser


class Page(HTMLParser):
    """Links, anchors and pictures of a page"""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.pictures.append((found.get("src", "?"), (found.get("alt") or "").strip()))


def test_every_link_and_anchor_within_the_book_resolves(book):
    pages = {path: Page(path) for path in book.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address, anchor = urldefrag(link)
            if "://" in address or address.startswith(("mailto:", "javascript:")):
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            if not target.exists():
                broken.append(f"{path.relative_to(book)}: {link}: no such file")
            elif anchor and target.suffix == ".html":
                if unquote(anchor) not in pages[target].anchors:
                    broken.append(f"{path.relative_to(book)}: {link}: no such anchor")
    assert not broken, "\n".join(broken)


def test_every_picture_says_what_is_seen(book):
    bare = [
        f"{path.relative_to(book)}: {source}"
        for path in book.rglob("*.html")
        for source, alt in Page(path).pictures
        if len(alt) < 4 or alt.endswith((".png", ".gif"))
    ]
    assert not bare, "\n".join(bare)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_there_with_its_way_on(book, name):
    text = (book / f"{name}.html").read_text(encoding="utf-8")
    assert 'class="right-next"' in text or 'class="left-prev"' in text


def test_first_uses_lead_to_the_glossary_and_answers_are_folded(book):
    text = (book / "01_noise_that_jumps.html").read_text(encoding="utf-8")
    assert text.count('href="glossary.html#term-rate-matrix"') == 1
    answers = (book / "solutions/01_noise_that_jumps.html").read_text(encoding="utf-8")
    assert answers.count("Show the answer") >= 3
    assert answers.count("Show the wrong answer") >= 6
    assert text.count("Show the check") >= 3


def test_every_linked_work_of_the_chapters_is_in_the_bibliography(book):
    page = (book / "bibliography.html").read_text(encoding="utf-8")
    for path in CHAPTERS.glob("[0-9][0-9]_*.py"):
        text = path.read_text(encoding="utf-8").partition("# ## Further reading")[2]
        links = re.findall(r"arxiv\.org/abs/[\d.]+\d", text)
        assert links, path.name
        assert all(link in page for link in links), path.name


# --------------------------------------------------------------------------------- with a browser

RAW_MATHS = r"""() => {
    const walk = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement;
        if (parent.closest('pre, code, script, style, mjx-container, .docutils.literal')) continue;
        if (/\\[a-zA-Z]{2,}|\\[(\[]|\$\$|\$[^$]+\$/.test(walk.currentNode.data))
            found.push(walk.currentNode.data.trim().slice(0, 80));
    }
    return found;
}"""

# Text whose contrast with what lies behind it is below WCAG's 4.5 (3 if it is large)
FAINT = r"""() => {
    const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const parse = text => (text.match(/[\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => 0.2126*channel(r) + 0.7152*channel(g) + 0.0722*channel(b);
    const behind = element => {
        for (let e = element; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length == 3 || c[3] > 0.9) return c;
        }
        return [255, 255, 255];
    };
    const found = {}, walk = document.createTreeWalker(
        document.querySelector('article'), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const text = walk.currentNode.data.trim(), e = walk.currentNode.parentElement;
        if (!text || e.closest('script, style, mjx-assistive-mml, .headerlink')) continue;
        if (!e.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
        const style = getComputedStyle(e), size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && parseInt(style.fontWeight) >= 700);
        const [a, b] = [light(parse(style.color)), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < (large ? 3 : 4.5))
            found[style.color + ' on ' + behind(e)] ??= ratio.toFixed(2) + ' ' + text.slice(0, 40);
    }
    return found;
}"""


def opened(browser, book, name, window, mode, remembered=True):
    """(page, complaints): the page of the book, when its formulas are set

    remembered: the reader has chosen the mode before.
    """
    page = browser.new_page(viewport=window, color_scheme=mode)
    if remembered:
        page.add_init_script(f"localStorage.setItem('mode', '{mode}');"
                             f"localStorage.setItem('theme', '{mode}')")  # fmt: skip
    complaints = []
    page.on("console", lambda m: m.type == "error" and complaints.append(m.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda r: complaints.append(f"{r.url}: {r.failure}"))
    page.goto((book / f"{name}.html").as_uri())
    page.evaluate("window.MathJax?.startup?.promise")
    return page, complaints


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_well_on_a_phone_and_in_the_dark(browser, book, name):
    page, complaints = opened(browser, book, name, PHONE, "dark")
    width = page.evaluate("document.scrollingElement.scrollWidth")
    faint = page.evaluate(FAINT)
    page.close()
    assert not complaints
    assert width <= PHONE["width"], f"{name} scrolls sideways: {width} pixels"
    assert not faint, f"{name}, dark: {faint}"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_reads_well_on_a_desk_and_in_the_light(browser, book, name):
    page, complaints = opened(browser, book, name, DESK, "light")
    raw, faint = page.evaluate(RAW_MATHS), page.evaluate(FAINT)
    wide = page.evaluate("document.scrollingElement.scrollWidth")
    page.close()
    assert not complaints
    assert not raw, f"{name} shows LaTeX: {raw}"
    assert not faint, f"{name}, light: {faint}"
    assert wide <= DESK["width"]


def test_the_checks_see_what_they_look_for(browser, tmp_path):
    """Planted: a raw formula, grey on grey, a table that is too wide, a missing script."""
    body = "<article><p>so $x^2$ or \\frac</p><code>$x$</code><p style='color:#999'>faint</p>"
    body += "<div style='width: 900px'>wide</div><script src='gone.js'></script></article>"
    (tmp_path / "bad.html").write_text(f"<!doctype html><html><body>{body}</body></html>")
    page, complaints = opened(browser, tmp_path, "bad", PHONE, "light")
    assert len(page.evaluate(RAW_MATHS)) == 1
    assert len(page.evaluate(FAINT)) == 1
    assert page.evaluate("document.scrollingElement.scrollWidth") > PHONE["width"]
    assert any("gone.js" in complaint for complaint in complaints)
    page.close()


def test_code_can_be_copied_and_the_mode_changes(browser, book):
    page, _ = opened(browser, book, "03_score_entropy", DESK, "light")
    assert page.locator("button.copybtn").count() > 20
    seen = []
    for mode in ("Light", "Dark"):
        page.locator("button.theme-switch-button").first.click()
        page.get_by_text(mode, exact=True).first.click()
        seen.append(page.evaluate("document.documentElement.dataset.theme"))
    page.close()
    assert seen == ["light", "dark"]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_a_first_visit_takes_the_mode_of_the_system(browser, book, mode):
    page, complaints = opened(browser, book, "index", DESK, mode, remembered=False)
    seen = page.evaluate("document.documentElement.dataset.theme")
    page.close()
    assert not complaints
    assert seen == mode
