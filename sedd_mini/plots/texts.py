"""Texts in cells: one token a cell, the same text in several cuts, documents in blocks."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, INK


def show_tokens(
    ax: plt.Axes, rows: Sequence[Sequence[str]], marked: Sequence, row_labels: Sequence[str] = ()
) -> None:
    """Write rows of short tokens into a grid on ax, one cell a token; cells in `marked` tinted.

    marked: (rows, L) of booleans, the same grid. Rows run downwards.
    """
    ax.imshow(np.asarray(marked, dtype=float), cmap=INK, vmin=0, vmax=4.5, aspect="auto")
    for i, row in enumerate(rows):
        for j, token in enumerate(row):
            tinted = bool(marked[i][j])
            ax.text(
                j, i, token, ha="center", va="center", family="monospace",
                color=BLUE if tinted else "#222222", fontsize=12,
            )  # fmt: skip
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks(range(len(rows)), row_labels or [""] * len(rows))
    ax.tick_params(length=0)


def show_pieces(
    ax: plt.Axes, rows: dict[str, Sequence[str]], hidden: Sequence[Sequence[bool]] | None = None
) -> None:
    """Draw one text in several cuts: a row of boxes for each, a box a token, as wide as its text.

    rows: label → tokens; hidden: for each row which tokens are hidden (dark, a dot for a
    character). Rows run downwards.
    """
    for y, (name, tokens) in enumerate(rows.items()):
        left = 0
        for i, token in enumerate(tokens):
            dark = hidden is not None and bool(hidden[y][i])
            colour, ink = (BLUE, "white") if dark else ("#dbe1ea", "#222222")
            ax.barh(-y, len(token) - 0.14, left=left + 0.07, height=0.66, color=colour)
            for j, letter in enumerate("·" * len(token) if dark else token):
                style = {"ha": "center", "va": "center", "color": ink, "family": "monospace"}
                ax.text(left + j + 0.5, -y, letter, fontsize=11, **style)
            left += len(token)
        ax.text(-0.6, -y, f"{len(tokens)} {name}", ha="right", va="center", fontsize=11)
    ax.set(xlim=(0, left), ylim=(0.5 - len(rows), 0.5))
    ax.set_axis_off()


def show_packing(documents: Sequence[str], length: int) -> Figure:
    """Draw documents, the stream that they form with ¶ between them, and its blocks.

    A cell is a character; a colour is a document, grey is the end of text.
    """
    tints = ["#cfe0f0", "#f7d9c2", "#cfe9df"]
    fig, ax = plt.subplots(figsize=(9.5, 3.5))

    def draw(x: float, y: float, letter: str, document: int) -> None:
        colour = "#c9ccd2" if document < 0 else tints[document % len(tints)]
        ax.add_patch(plt.Rectangle((x, y), 0.94, 0.8, color=colour, lw=0))
        style = {"ha": "center", "va": "center", "family": "monospace", "fontsize": 12}
        ax.text(x + 0.47, y + 0.4, letter, color="#222222", **style)

    stream, left = [], 0.0
    for k, document in enumerate(documents):
        stream += [("¶", -1)] * (k > 0) + [(letter, k) for letter in document]
        for letter in document:
            draw(left, 3, letter, k)
            left += 1
        left += 1.5
    for i, (letter, k) in enumerate(stream):
        draw(i, 1.5, letter, k)
    whole = len(stream) // length * length
    for i, (letter, k) in enumerate(stream[:whole]):
        draw(i + 0.9 * (i // length), 0, letter, k)
    for cut in range(length, whole + 1, length):
        ax.plot([cut - 0.03] * 2, [1.35, 2.45], color="#222222", lw=1.6)
    for y, name in ((3.4, "documents"), (1.9, "stream"), (0.4, "blocks")):
        ax.text(-0.6, y, name, ha="right", va="center")
    ax.set(xlim=(0, max(left, len(stream) + 2)), ylim=(-0.1, 3.9))
    ax.set_axis_off()
    return fig
