"""Worlds of two tokens in ink."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from sedd_mini.plots.style import INK


def show_worlds(
    worlds: Sequence, titles: Sequence[str] = (), row_labels: Sequence[str] = (),
    vmax: float | None = None, size: float = 1.75, mask: bool = False,
) -> Figure:  # fmt: skip
    """Draw two-token worlds, each an (N, N) array of probabilities, on one scale of ink.

    worlds: one row of arrays, or a list of rows. titles: one for each column; row_labels: one for
    each row. Ink follows the 0.6th power of probability, so that thin parts show; it is full at
    vmax (default: the largest entry of the first world). size: inches of a panel. mask: the last
    row and column belong to MASK; they are drawn three cells wide, behind a line, and named ■.
    """
    rows = [[np.asarray(world) for world in row] for row in _as_rows(worlds)]
    norm = PowerNorm(0.6, vmin=0, vmax=rows[0][0].max() if vmax is None else vmax, clip=True)
    shape = len(rows), max(len(row) for row in rows)
    fig, axes = plt.subplots(
        *shape, squeeze=False, figsize=(shape[1] * size + 0.5, shape[0] * size + 0.6)
    )
    for i, row in enumerate(rows):
        for j, ax in enumerate(axes[i]):
            if j >= len(row):
                ax.set_axis_off()
                continue
            world = np.pad(row[j], (0, 2), mode="edge") if mask else row[j]
            ax.imshow(world, cmap=INK, norm=norm, interpolation="nearest")
            ax.grid(False)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
            ax.spines[:].set(color="#bbbbbb")
            if mask:
                _set_mask_apart(ax, len(row[j]) - 1)
            if i == 0 and j < len(titles):
                ax.set_title(titles[j], loc="center", fontsize=11.5)
        axes[i, 0].set_ylabel("first token", fontsize=10.5, color="#555555")
        if i < len(row_labels):
            axes[i, 0].annotate(
                row_labels[i], (-0.36 if mask else -0.22, 0.5), xycoords="axes fraction",
                ha="right", va="center", multialignment="center", fontsize=12,
            )  # fmt: skip
    for ax in axes[-1]:
        ax.set_xlabel("second token", fontsize=10.5, color="#555555")
    return fig


def _set_mask_apart(ax: plt.Axes, mask_id: int) -> None:
    """Name the last row and column of a picture, three cells wide, and draw a line before them."""
    ax.set(xticks=[mask_id + 1], yticks=[mask_id + 1], xticklabels="■", yticklabels="■")
    ax.tick_params(length=0, pad=1.5, labelsize=8, labelcolor="#555555")
    for line in (ax.axhline, ax.axvline):
        line(mask_id - 0.5, color="#bbbbbb", lw=0.8)


def _as_rows(worlds: Sequence) -> Sequence:
    nested = isinstance(worlds[0], list | tuple)
    return worlds if nested else [worlds]
