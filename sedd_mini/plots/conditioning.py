"""Gaps and what is known around them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, GREY, ORANGE


def show_fillings(
    rows: Sequence[Sequence[str]], free: Sequence[bool], labels: Sequence[str], title: str
) -> Figure:
    """Draw rows of tokens in aligned columns, those of the gaps in blue on tinted paper.

    rows: as many tokens in each; the last one is the original, which stands below a line, without
    tint; free: which of the tokens were gaps; labels: one for each row.
    """
    rows = [[token.replace("\n", "↵") for token in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(free))]
    fig, ax = plt.subplots(figsize=(10, 0.65 + 0.28 * len(rows)))
    style = {"family": "monospace", "va": "center", "fontsize": 1060 / sum(widths)}
    fills = len(rows) - 1
    heights = [*range(fills), fills + 0.35]
    for i, width in enumerate(widths):
        x = sum(widths[:i])
        if free[i]:
            ax.barh(range(fills), width - 0.1, left=x, height=0.9, color="#dbe7f2")
        for y, row in zip(heights, rows, strict=True):
            ax.text(x, y, row[i], color=BLUE if free[i] and y < fills else "#333333", **style)
    ax.axhline(fills - 0.32, color=GREY, lw=1)
    ax.set(xlim=(0, sum(widths)), ylim=(len(rows) - 0.05, -0.6), xticks=[], title=title)
    ax.set_yticks(heights, labels)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return fig


def show_conditions(panels: dict[str, Sequence[str]]) -> Figure:
    """Draw noun and verb, clean above noisy, once a panel, with what is known filled orange.

    panels: title → the known ones among "clean noun", "noisy noun".
    """
    places = {"clean noun": (0, 1), "clean verb": (1.7, 1), "noisy noun": (0, 0),
              "noisy verb": (1.7, 0)}  # fmt: skip
    fig, axes = plt.subplots(1, len(panels), figsize=(10, 2.5))
    for ax, (title, known) in zip(axes, panels.items(), strict=True):
        ax.plot([0.5, 1.2], [1, 1], color=GREY, lw=1.6)
        ax.text(0.85, 1.06, "language", ha="center", va="bottom", color="#555555", fontsize=10)
        for x in (0, 1.7):
            ax.annotate("", (x, 0.2), (x, 0.8),
                        arrowprops={"arrowstyle": "-|>", "color": GREY, "lw": 1.6})  # fmt: skip
        ax.text(0.85, 0.5, "noise", ha="center", va="center", color="#555555", fontsize=10)
        for name, (x, y) in places.items():
            here = name in known
            box = {"boxstyle": "round,pad=0.35", "fc": ORANGE if here else "white",
                   "ec": ORANGE if here else GREY, "lw": 1.4}  # fmt: skip
            label = name + ("\n= cat" if here else "")
            ax.text(x, y, label, ha="center", va="center", bbox=box, fontsize=11,
                    color="white" if here else "#333333")  # fmt: skip
        ax.set(xlim=(-0.7, 2.4), ylim=(-0.3, 1.35))
        ax.set_title(title, fontsize=11, loc="center")
        ax.set_axis_off()
    return fig


def show_gap_patterns(
    patterns: dict[str, Sequence[bool]], notes: dict[str, str], heading: str = ""
) -> Figure:
    """Draw each pattern of gaps (dark) as a row of cells, its name before it, its note after it.

    heading: stands above the notes.
    """
    fig, ax = plt.subplots(figsize=(10, 0.5 * len(patterns) + 0.8))
    for y, (name, gaps) in enumerate(patterns.items()):
        colours = [BLUE if gap else "#dbe1ea" for gap in gaps]
        ax.barh([-y] * len(gaps), 0.86, left=np.arange(len(gaps)), height=0.62, color=colours)
        ax.text(-0.6, -y, name, ha="right", va="center")
        ax.text(len(gaps) + 0.6, -y, notes[name], va="center")
    ax.text(len(gaps) + 0.6, 0.62, heading, va="center", color="#555555")
    ax.set(xlim=(-0.2, len(gaps)), ylim=(0.5 - len(patterns), 0.8))
    ax.set_axis_off()
    return fig
