"""The diffusion transformer: its parts, rotary positions, and who notices a change."""

import itertools
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, GREEN, INK, ORANGE


def _box(ax: plt.Axes, x: float, y: float, text: str, colour: str, size: float = 11) -> None:
    """A text in a rounded frame of this colour."""
    frame = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": colour, "lw": 1.8}
    how = {"ha": "center", "va": "center", "multialignment": "center", "zorder": 3}
    ax.text(x, y, text, color=colour, fontsize=size, bbox=frame, **how)


def _arrow(ax: plt.Axes, start, end, colour: str = "#555555") -> None:
    """A thin arrow between two points of the data."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4})


def show_network() -> Figure:
    """A map of the diffusion transformer with two blocks: what goes in, what comes out, shapes."""
    fig, ax = plt.subplots(figsize=(10.5, 3.3))
    stages = ["tokens x\n(B, L)", "embedding\n(B, L, D)", "block 1\n(B, L, D)",
              "block 2\n(B, L, D)", "head\n(B, L, N + 1)", "log-scores\n(B, L, N + 1)"]  # fmt: skip
    for i, stage in enumerate(stages):
        _box(ax, 2 * i, 0, stage, BLUE if 0 < i < 5 else "#444444")
        if i:
            _arrow(ax, (2 * i - 1.28, 0), (2 * i - 0.72, 0))
    _box(ax, 0, -1.9, "noise level σ̄\n(B,)", "#444444")
    _box(ax, 2, -1.9, "condition c\n(B, C)", ORANGE)
    _arrow(ax, (0.72, -1.9), (1.28, -1.9))
    ax.plot([2.72, 8], [-1.9, -1.9], color=ORANGE, lw=1.4)
    for i in (4, 6, 8):
        _arrow(ax, (i, -1.9), (i, -0.62), ORANGE)
    ax.text(8.25, -1.9, "shift, scale (and gates in blocks)", color=ORANGE, va="center", ha="left",
            fontsize=11)  # fmt: skip
    ax.text(5, 1.65, "rotary positions, in attention", color=GREEN, ha="center", fontsize=11)
    for i in (4, 6):
        _arrow(ax, (5 + (i - 5) * 0.4, 1.5), (i, 0.62), GREEN)
    ax.set(xlim=(-1, 11.2), ylim=(-2.5, 2))
    ax.set_axis_off()
    return fig


def show_half_a_block() -> Figure:
    """One half of a block: norm, shift and scale, attention or MLP, gate, and the sum."""
    fig, ax = plt.subplots(figsize=(10.5, 2.9))
    steps = {0: "h", 1.7: "norm", 4.2: "× (1 + scale)\n+ shift", 7: "attention\nor MLP",
             9.3: "× gate", 11: "+"}  # fmt: skip
    half = {0: 0.25, 1.7: 0.55, 4.2: 0.9, 7: 0.75, 9.3: 0.6, 11: 0.25}  # widths, for the arrows
    for x, label in steps.items():
        noise = label.startswith("×")
        _box(ax, x, 0, label, ORANGE if noise else "#444444" if len(label) == 1 else BLUE)
    for a, b in itertools.pairwise(steps):
        _arrow(ax, (a + half[a], 0), (b - half[b], 0))
    _arrow(ax, (11.3, 0), (12.3, 0))
    ax.text(12.4, 0, "h", va="center", color="#444444", fontsize=11)
    ax.plot([0, 0, 11], [0.35, 1.25, 1.25], color="#555555", lw=1.4)
    _arrow(ax, (11, 1.25), (11, 0.32))
    ax.text(5.5, 1.36, "h goes past unchanged", color="#555555", ha="center", va="bottom",
            fontsize=11)  # fmt: skip
    _box(ax, 6.75, -1.7, "condition c, from the noise level", ORANGE)
    _arrow(ax, (5.2, -1.35), (4.3, -0.6), ORANGE)
    _arrow(ax, (8.3, -1.35), (9.2, -0.4), ORANGE)
    ax.set(xlim=(-0.4, 12.8), ylim=(-2.1, 1.75))
    ax.set_axis_off()
    return fig


def show_turns(angle: float, dots: Sequence) -> Figure:
    """A pair of numbers turned at six positions, and all products of a turned query and key.

    angle: radians a position, of the pair that is drawn; dots: (L, L), row = position of q.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8))
    for position in range(6):
        tip = np.array([np.cos(position * angle), np.sin(position * angle)])
        style = {"arrowstyle": "->", "color": BLUE, "lw": 2}
        left.annotate("", tip, (0, 0), arrowprops=style)
        left.text(*(1.14 * tip), str(position), ha="center", va="center")
    left.set(xlim=(-0.7, 1.3), ylim=(-0.15, 1.3), aspect="equal", xticks=[], yticks=[])
    left.set_title("One pair at positions 0 to 5", fontsize=11.5)
    left.grid(False)
    left.spines[:].set_visible(False)
    dots = np.asarray(dots)
    most = np.abs(dots).max()
    image = right.imshow(dots, cmap="PuOr_r", vmin=-most, vmax=most)
    right.set(xlabel="position of the key", ylabel="position of the query")
    right.set_title("q · k after turning both: constant on diagonals", fontsize=11.5)
    right.grid(False)
    fig.colorbar(image, ax=right)
    return fig


def show_influence(tables: dict[str, Sequence], words: Sequence[str]) -> Figure:
    """Who notices a changed token: tables (L, L) of changes, row = noticing, column = changed.

    Changes are in lengths of the answer that changes; the larger the change the darker the cell.
    """
    fig, axes = plt.subplots(1, len(tables), figsize=(4.8 * len(tables), 3.9), sharey=True)
    changes = np.stack([np.asarray(table) for table in tables.values()])
    shade = PowerNorm(0.6, vmin=0, vmax=changes.max())
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        image = ax.imshow(np.asarray(table), cmap=INK, norm=shade)
        ax.set_xticks(range(len(words)), words)
        ax.set_yticks(range(len(words)), words)
        ax.set(xlabel="this token is changed")
        ax.set_title(title, fontsize=11.5)
        ax.set_xticks(np.arange(len(words) + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(len(words) + 1) - 0.5, minor=True)
        ax.grid(False)
        ax.grid(True, which="minor", color="#c9ccd2", lw=0.6)
        ax.tick_params(which="both", length=0)
    axes[0].set_ylabel("does this position notice?")
    ticks = np.arange(0, changes.max(), 0.5)
    bar = fig.colorbar(image, ax=axes, fraction=0.05, pad=0.02, ticks=ticks)
    bar.set_label("change (in lengths of the answer)", labelpad=8)
    bar.outline.set_visible(False)
    return fig


def show_awake(awake: dict[str, Sequence[bool]]) -> Figure:
    """Which parts of a network have a gradient, step by step: a row a part, a column a step."""
    table = np.asarray(list(awake.values()), dtype=float)  # (parts, steps)
    fig, ax = plt.subplots(figsize=(7.5, 0.42 * len(table) + 0.7))
    for (i, j), on in np.ndenumerate(table):
        box = plt.Rectangle((j + 0.04, i + 0.06), 0.92, 0.88, color=BLUE if on else "#e9ecf0", lw=0)
        ax.add_patch(box)
        label, ink = ("learns", "white") if on else ("gradient 0", "#666666")
        ax.text(j + 0.5, i + 0.5, label, ha="center", va="center", color=ink, fontsize=10.5)
    ax.set_xticks(np.arange(table.shape[1]) + 0.5, [f"step {j + 1}" for j in range(len(table[0]))])
    ax.set_yticks(np.arange(len(table)) + 0.5, list(awake))
    ax.set(xlim=(0, table.shape[1]), ylim=(len(table), 0))
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return fig
