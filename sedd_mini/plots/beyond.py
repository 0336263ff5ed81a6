"""Figures of chapter 13: what sees what in block diffusion, pictures as tokens, and scale."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, COLOURS, GREEN, ORANGE, spread_labels


def show_two_copies(mask, block_length: int) -> Figure:
    """The mask of training in blocks, (2L, 2L) bool: rows read, columns are read; noisy first."""
    mask = np.asarray(mask)
    length = len(mask) // 2
    tint = np.ones((*mask.shape, 3))
    parts = {(0, 0): "#f3b27a", (0, 1): "#8fbbdb", (1, 1): "#8fcfb9", (1, 0): "#cccccc"}
    for (row, column), colour in parts.items():
        rows, columns = (slice(k * length, (k + 1) * length) for k in (row, column))
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        tint[rows, columns][mask[rows, columns]] = rgb
    fig, ax = plt.subplots(figsize=(8.6, 4.6))
    ax.imshow(tint, extent=(0, 2 * length, 2 * length, 0))
    for k in range(2 * length + 1):
        whole, block = k % length == 0, k % block_length == 0
        line = {"color": "#444444" if whole else "#999999" if block else "#e3e3e3",
                "lw": 1.6 if whole else 0.9 if block else 0.5}  # fmt: skip
        ax.plot([0, 2 * length], [k, k], **line)
        ax.plot([k, k], [0, 2 * length], **line)
    for k, name in enumerate(("noisy copy", "clean copy")):
        ax.text((k + 0.5) * length, -0.5, f"reads the {name}", ha="center", fontsize=11)
        ax.text(-0.5, (k + 0.5) * length, name, ha="right", va="center", fontsize=11)
    right = 2 * length + 0.6
    for y, colour, words in (
        (0.30, ORANGE, "a noisy word reads\nits own noisy block …"),
        (0.75, BLUE, "… and the clean blocks\nbefore it, not its own"),
        (1.5, GREEN, "a clean word reads the clean\nblocks up to its own"),
    ):
        ax.text(right, y * length, words, color=colour, va="center", fontsize=11)
    ax.set(xlim=(-0.1, 2 * length + 0.1), ylim=(2 * length + 0.1, -0.1))
    ax.set_axis_off()
    return fig


def show_pictures(rows: Mapping[str, Sequence], names: Mapping[str, Sequence] | None = None,
                  levels: int = 17, title: str = "") -> Figure:  # fmt: skip
    """Pictures of 8 × 8 levels side by side, a row for each label; what is no level is orange.

    rows: label → (n, 64) of ids; names: label → a short text above each of its pictures.
    """
    most, names = max(map(len, rows.values())), names or {}
    heights = [8.6 + 2.2 * (label in names and any(map(str, names[label]))) for label in rows]
    size = 0.72 * most + 2.2, 0.088 * sum(heights) + (0.65 if title else 0.3)
    fig, axes = plt.subplots(len(rows), 1, figsize=size, squeeze=False, height_ratios=heights)
    for (label, pictures), ax, height in zip(rows.items(), axes[:, 0], heights, strict=True):
        sheet = np.ones((8, 9 * most, 3))
        for k, picture in enumerate(np.asarray(pictures)):
            ids = picture.reshape(8, 8)
            grey = 1 - 0.94 * np.minimum(ids, levels - 1) / (levels - 1)
            part = np.repeat(grey[..., None], 3, -1)
            part[ids >= levels] = (0.97, 0.80, 0.62)
            sheet[:, 9 * k : 9 * k + 8] = part
            ax.add_patch(plt.Rectangle((9 * k - 0.5, -0.5), 8, 8, fill=False, ec="#bbbbbb", lw=0.6))
            if label in names:
                ax.text(9 * k + 3.5, -0.9, names[label][k], ha="center", va="bottom", fontsize=10)
        ax.imshow(sheet, aspect="equal")
        ax.set_ylim(7.8, 7.8 - height)
        ax.text(-2, 3.5, label, ha="right", va="center", fontsize=11)
        ax.set_axis_off()
    if title:
        fig.suptitle(title, x=0.01, ha="left", fontsize=12)
    return fig


def show_along(ax: plt.Axes, places: Sequence[float], lines: Mapping[str, tuple], trained: float):
    """Costs along a text, with error bars; a dotted line at the length of training.

    lines: label → (values, errors, colour).
    """
    ends = spread_labels([float(v[-1]) for v, _, _ in lines.values()], 0.28)
    for (name, (values, errors, colour)), y in zip(lines.items(), ends, strict=True):
        ax.errorbar(places, values, errors, color=colour, marker="o", capsize=3)
        ax.text(places[-1] + 3, y, name, color=colour, va="center")
    ax.axvline(trained, color="#555555", ls=":")
    ax.text(trained + 1, ax.get_ylim()[1] - 0.1, f"length in training, {trained} words",
            color="#555555", va="top")  # fmt: skip


def show_sizes(ax: plt.Axes, found: Mapping[str, Sequence[tuple[float, float]]], colours) -> None:
    """A line for each kind of model through its (parameters, bits); every run is a dot."""
    for (name, points), colour in zip(found.items(), colours, strict=True):
        x, y = zip(*sorted(points), strict=True)
        ax.plot(x, y, "o-", color=colour)
        ax.annotate(name, (x[-1], y[-1]), (8, 0), textcoords="offset points", color=colour,
                    va="center")  # fmt: skip
    ax.set_xscale("log")


def show_epochs(ax: plt.Axes, found: Mapping[str, Sequence[tuple]], colours) -> None:
    """Validation bits against epochs, a thin line a seed: label → [(epochs, bits), …]."""
    for (name, seeds), colour in zip(found.items(), colours, strict=True):
        for epochs, bits in seeds:
            ax.plot(epochs, bits, color=colour, lw=1.6, alpha=0.85)
            least = int(np.argmin(bits))
            ax.plot(epochs[least], bits[least], "o", color=colour, ms=6)
        epochs, bits = seeds[0]
        ax.annotate(name, (epochs[-1], bits[-1]), (6, 0), textcoords="offset points", color=colour,
                    va="center")  # fmt: skip


def show_search(ax: plt.Axes, trials: Sequence[tuple[float, float | None, int]]) -> None:
    """Trials as (lr, bits, group), bits None where it failed: dots, the colour is the group."""
    most = max(bits for _, bits, _ in trials if bits is not None)
    groups = sorted({group for _, _, group in trials})
    for i, group in enumerate(groups):
        colour = COLOURS[i]
        for lr, bits, own in trials:
            if own == group and bits is None:
                ax.plot(lr, most, "x", color=colour, ms=9, mew=2)
            elif own == group:
                ax.plot(lr, bits, "o", color=colour, ms=8, mew=0, alpha=0.9)
        ax.plot([], [], "o", color=colour, label=f"batches of {group}")
    ax.legend(loc="upper left", fontsize=10.5, ncols=3)
    ax.set_xscale("log")
