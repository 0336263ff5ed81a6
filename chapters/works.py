"""The works that the chapters name under "Further reading": what bibliography.md lists."""

import re
from pathlib import Path

# "A. Lou, C. Meng, S. Ermon, [*Title*](https://…), 2023" or "A. Name, *Title*, 1970"
WORK = re.compile(
    r"((?:[A-Z]\.[ -]?)+[A-Z](?:[^\[\]*.]|(?<=\b[A-Z])\.)*?),?\s*"
    r"\[?\*([^*]+)\*\]?(?:\((https?://[^)\s]+)\))?(?:[^\[*\d]{0,40}?(\d{4}))?"
)


def reading(source: str) -> str:
    """The text under "Further reading" of a chapter's source, without comment signs"""
    lines = source.split("# ## Further reading", 1)[-1].splitlines()
    return " ".join(line[1:].strip() for line in lines if line.startswith("#"))


def works(folder: Path) -> list[tuple[str, str, str | None, str | None, list[str]]]:
    """(authors, title, link, year, chapters) of each work, by the first author's surname"""
    found = {}
    for path in sorted(folder.glob("[0-9][0-9]_*.py")):
        text = path.read_text(encoding="utf-8")
        if "# ## Further reading" not in text:
            continue
        for authors, title, link, year in WORK.findall(reading(text)):
            key = link or title.lower()
            old = found.setdefault(key, [authors.strip(), title, link or None, year, []])
            if len(title) > len(old[1]):
                old[:2] = authors.strip(), title
            old[3] = old[3] or year or None
            if path.name[:2] not in old[4]:
                old[4].append(path.name[:2])
    return [tuple(work) for work in sorted(found.values(), key=surname)]


def surname(work: list) -> str:
    return re.sub(r"^(?:[A-Z]\.[ -]?)+", "", work[0]).lower()


def as_list(folder: Path) -> str:
    rows = []
    for authors, title, link, year, chapters in works(folder):
        name = f"[*{title}*]({link})" if link else f"*{title}*"
        when = f", {year}" if year else ""
        rows.append(f"- {authors}, {name}{when}. Chapter{'s' * (len(chapters) > 1)} "
                    f"{', '.join(chapters)}.")  # fmt: skip
    return "\n".join(rows)
