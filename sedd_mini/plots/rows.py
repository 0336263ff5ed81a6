"""Numbers by name, in forms that fit any subject: a row of dots or a bar for each name."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, COLOURS, GREY, ORANGE


def show_seeds(
    ax: plt.Axes, rows: dict[str, Sequence[float]], colours: Sequence[str],
    hollow: Mapping[str, float] | None = None, form: str = ".2f", lift: float = 0.0,
) -> None:  # fmt: skip
    """A row of dots for each name, one dot a seed, with their mean written beside them (as `form`).

    hollow: one more value for some of the names, which does not count for the mean.
    lift: half the height from the first to the last seed of a row, so that no dot hides another.
    """
    hollow = hollow or {}
    for i, (name, values) in enumerate(rows.items()):
        heights = -i + np.linspace(lift, -lift, len(values)) * (len(values) > 1)
        ax.plot(values, heights, "o", color=colours[i], ms=8, alpha=0.8, mew=0)
        if name in hollow:
            ax.plot(hollow[name], -i, "o", ms=8, mfc="none", mec=colours[i], mew=1.6)
        ax.annotate(
            f"{np.mean(values):{form}}", (max(*values, hollow.get(name, -np.inf)), -i), (9, 0),
            textcoords="offset points", va="center", color=colours[i],
        )  # fmt: skip
    ax.set_yticks([-i for i in range(len(rows))], list(rows))
    ax.set_ylim(0.6 - len(rows), 0.6)
    ax.grid(axis="y", visible=False)


def show_scatter(ax: plt.Axes, rows: dict[str, Sequence[float]]) -> None:
    """A row of dots for each name, one a value, with a line at 0; the names stand at the left."""
    for i, (values, colour) in enumerate(zip(rows.values(), COLOURS, strict=False)):
        values = np.asarray(values)
        lift = 0.16 * np.sin(7.3 * np.arange(len(values)))  # so that dots do not hide each other
        ax.plot(values, i + lift, "o", color=colour, ms=5, mew=0, alpha=0.65)
    ax.axvline(0, color="#444444", lw=1)
    ax.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.6, -0.4))
    ax.grid(axis="y", visible=False)


def show_bars(
    rows: dict[str, Sequence[float]], titles: Sequence[str], colours, first: int = 0,
    scales: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """Horizontal bars with their numbers: a row for each name, a panel for each of its values.

    first: how many rows stand apart, above, in panels with a scale of their own; scales: what to
    write below the scale of each group.
    """
    groups = [part for part in (list(rows)[:first], list(rows)[first:]) if part]
    height = 0.55 * len(rows) + 0.7 + 0.5 * len(groups) + 0.25 * len(scales)
    fig, axes = plt.subplots(
        len(groups), len(titles), figsize=(10, height), sharey="row", sharex="row", squeeze=False,
        height_ratios=[len(part) for part in groups],
    )  # fmt: skip
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the lines of the grid
    for g, part in enumerate(groups):
        for k, ax in enumerate(axes[g]):
            own = colours[first * g : first * g + len(part)]
            bars = ax.barh(part, [rows[name][k] for name in part], height=0.62, color=own)
            ax.bar_label(bars, fmt="%.2f", padding=5, bbox=white)
            if g == 0:
                ax.set_title(titles[k], fontsize=11)
            ax.margins(x=0.35 if first else 0.15)
            ax.grid(axis="y", visible=False)
            ax.tick_params(left=False)
        if scales:
            axes[g, 0].set_xlabel(" ")  # room for a text that is wider than its panel
            axes[g, 0].annotate(
                scales[g], (0, 0), (0, -32), "axes fraction", textcoords="offset points",
                fontsize=10.5, color="#555555", annotation_clip=False,
            ).set_in_layout(False)  # fmt: skip
        if first:
            axes[g, 0].set_ylim(len(part) - 0.5, -0.5)  # bars of one height in both groups
        else:
            axes[g, 0].invert_yaxis()
    return fig


def show_stacked(rows: dict[str, dict[str, float]], names: dict[str, str], least: float = 0.03):
    """Rows of shares that add up to 1, as stacked bars with their per cents written inside.

    rows: label → {part: number}; names: part → colour. A part is named above the first row in
    which its share is at least `least`.
    """
    fig, ax = plt.subplots(figsize=(10, 1.15 * len(rows) + 0.6))
    told = set()
    for y, (_, parts) in enumerate(rows.items()):
        start, total = 0.0, sum(parts.values())
        for name, colour in names.items():
            share = parts.get(name, 0) / total
            ax.barh(y, share, left=start, color=colour, height=0.5, edgecolor="white", lw=1)
            if share >= least:
                middle = start + share / 2
                ax.text(middle, y, f"{100 * share:.0f} %", ha="center", va="center", color="white")
                if name not in told:
                    ax.text(middle, y - 0.31, name, ha="center", va="bottom", color=colour)
                told.add(name)
            start += share
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.6, -0.65), xticks=[])
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return fig


def show_shares(rows: dict[str, dict[str, float]], colours: dict[str, tuple]) -> Figure:
    """Stacked bars from 0 to 1, one a row, with the number of each share of 0.5 % and more.

    colours: part → (its colour, that of its number).
    """
    fig, ax = plt.subplots(figsize=(9, 0.62 * len(rows) + 1.3))
    for y, shares in enumerate(rows.values()):
        left = 0.0
        for part, (colour, ink) in colours.items():
            share = shares[part]
            ax.barh(y, share, left=left, color=colour, height=0.66)
            if share >= 0.035:
                ax.text(left + share / 2, y, f"{share:.0%}", color=ink, ha="center", va="center",
                        fontsize=11.5 if share >= 0.05 else 10)  # fmt: skip
            elif share >= 0.005:  # no room inside
                ax.text(left + share / 2, y - 0.35, f"{share:.0%}", color=colour, ha="center",
                        va="bottom", fontsize=10)  # fmt: skip
            left += share
    left = 0.0
    for part, (colour, _) in colours.items():  # names over the parts of the first row
        if next(iter(rows.values()))[part] or part == list(colours)[-1]:
            share = next(iter(rows.values()))[part]
            place = (left + share / 2, "center") if share else (1.0, "right")
            ink = "#555555" if colour == GREY else colour
            ax.text(place[0], -0.5, part, color=ink, ha=place[1], va="bottom")
        left += share
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.45, -0.95), xticks=[])
    ax.tick_params(left=False)
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    return fig


def show_parts(rows: dict[str, tuple[float, float]], limit: float, names: Sequence[str]) -> Figure:
    """Horizontal bars of two parts each, with their numbers, and a dotted line at a limit.

    rows: label → (first part, second part), not negative but for rounding; names: of the parts,
    the first written inside the longest bar, the second beside the row in which it is largest.
    """
    fig, ax = plt.subplots(figsize=(10, 0.5 * len(rows) + 1.3))
    longest = max(rows, key=lambda name: rows[name][0])
    second = max(rows, key=lambda name: rows[name][1])
    for y, (name, (a, b)) in enumerate(rows.items()):
        ax.barh(y, a, color=BLUE, height=0.62)
        ax.barh(y, max(b, 0), left=a, color=ORANGE, height=0.62)
        if name == longest:
            ax.text(0.05, y, names[0], va="center", color="white", fontsize=10.5)
        label = f"{a:.2f} + {max(b, 0):.2f}"
        end = a + max(b, 0)
        crosses = end < limit < end + 0.25 * limit  # the label would lie on the dotted line
        place, ink, side = ((-7, 0), "white", "right") if crosses else ((7, 0), "#222222", "left")
        ax.annotate(label, (end, y), place, textcoords="offset points", va="center", ha=side,
                    color=ink)  # fmt: skip
        if name == second:
            ax.annotate(names[1], (a + b / 2, y - 0.31), (a + b / 2 + 0.25, y - 1.0),
                        color=ORANGE, va="center", fontsize=10.5,
                        arrowprops={"arrowstyle": "-", "color": ORANGE, "lw": 1})  # fmt: skip
    ax.axvline(limit, color="#555555", ls=":", lw=1.6, zorder=0)
    ax.text(limit + 0.04, -0.1, "a uniform guess\n(same draws)", color="#555555", va="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlim=(0, 1.35 * limit), ylim=(len(rows) - 0.5, -0.6), xlabel="nats a sentence")
    ax.grid(axis="y", visible=False)
    ax.tick_params(left=False)
    return fig
