"""What a training run shows: losses, costs by noise, averaged weights, learning curves."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, GREEN, ORANGE, PURPLE, spread_labels


def show_masking_rates(words: Sequence[str], u: Sequence[float], rates: Sequence[float]) -> Figure:
    """One text hidden at several rates t, a row each: word i is hidden where u[i] < t.

    At the right stands the weight 1/t with which the surprises of the hidden words are counted.
    """
    fig, ax = plt.subplots(figsize=(10, 0.5 * len(rates) + 0.7))
    widths = [0.16 * len(word) + 0.28 for word in words]
    starts = np.concatenate([[0], np.cumsum(widths)])
    for row, t in enumerate(rates):
        for word, start, width, level in zip(words, starts, widths, u, strict=False):
            if level < t:
                box = plt.Rectangle((start + 0.04, -row - 0.3), width - 0.08, 0.6, color="#aeb4bd")
                ax.add_patch(box)
            else:
                ax.text(start + width / 2, -row, word, ha="center", va="center", color="#222222")
        ax.text(-0.2, -row, f"t = {t:g}", ha="right", va="center")
        ax.text(starts[-1] + 0.9, -row, f"{1 / t:.1f}", ha="center", va="center", color=ORANGE)
    ax.text(starts[-1] + 0.9, 0.75, "weight 1/t", ha="center", va="center", color=ORANGE)
    ax.text(starts[-1] / 2, 0.75, "grey: hidden, to be guessed", ha="center", va="center",
            color="#555555")  # fmt: skip
    ax.set(xlim=(-1.2, starts[-1] + 1.6), ylim=(-len(rates) + 0.5, 1.1))
    ax.set_axis_off()
    return fig


def show_losses(axes: Sequence[plt.Axes], losses: Sequence[float], levels: dict[str, float],
                until: int, since: int) -> None:  # fmt: skip
    """Losses of single batches: the first `until` steps, and on another scale those after `since`.

    The lines are running means: of 15 at the left, of 100 at the right. A loss above the right
    scale is a triangle at its top edge, with its value.
    levels: name → a height to mark; the last of them is marked at the right, too.
    """
    bottom, top = 2.0, 3.1  # of the right scale
    steps = np.arange(1, len(losses) + 1)
    (name, lowest), left, right = list(levels.items())[-1], *axes
    left.plot(steps[:until], losses[:until], ".", color=BLUE, ms=5, mew=0, alpha=0.8)
    mean = np.convolve(losses, np.ones(15) / 15, mode="valid")[: until - 14]
    left.plot(np.arange(8, 8 + len(mean)), mean, color="#12395b", lw=1.5)
    for label, level in levels.items():
        low = label == name
        colour = ORANGE if low else "#555555"
        left.axhline(level, color=colour, ls="--", lw=1.2, zorder=0)
        left.text(until, level + (-0.08 if low else 0.06), f"{label}: {level:.2f}", color=colour,
                  ha="right", va="top" if low else "bottom")  # fmt: skip
    left.set(xlabel="step", ylabel="loss of a batch (bits a word)", ylim=(1.7, 5.9))
    left.set_xlim(0, until)
    late = np.asarray(losses[since:])
    right.plot(steps[since:], late, ".", color=BLUE, ms=4, mew=0, alpha=0.5)
    mean = np.convolve(late, np.ones(100) / 100, mode="valid")
    right.plot(since + 50.5 + np.arange(len(mean)), mean, color="#12395b", lw=1.8)
    right.axhline(lowest, color=ORANGE, ls="--", lw=1.6)
    for step, loss in zip(steps[since:][late > top], late[late > top], strict=True):
        right.plot(step, top - 0.03, "^", color=BLUE, ms=6, mew=0)
        right.annotate(f"{loss:.2f}", (step, top - 0.03), (6, 0), textcoords="offset points",
                       color=BLUE, va="center")  # fmt: skip
    right.text(0.99, 0.02, f"dashed: {name}", color=ORANGE, ha="right", va="bottom",
               transform=right.transAxes)  # fmt: skip
    right.text(0.01, 0.02, "line: running mean of 100", color="#12395b", ha="left", va="bottom",
               transform=right.transAxes)  # fmt: skip
    right.set(xlabel="step", xlim=(since, len(losses)), ylim=(bottom, top))


def show_cost_by_rate(ax: plt.Axes, curves: dict[str, Sequence[float]], level: float) -> None:
    """Cost of a hidden word against the share of hidden words, in equal bins of [0, 1].

    The first curve is a line, the others are dots, named at their left end; level: dashed.
    """
    colours = [ORANGE, BLUE, GREEN, PURPLE]
    heights = spread_labels([values[0] for values in curves.values()], 0.42)
    for (name, values), colour, y in zip(curves.items(), colours, heights, strict=False):
        t = (np.arange(len(values)) + 0.5) / len(values)
        style = {"lw": 2.5} if colour == ORANGE else {"ls": "", "marker": "o", "ms": 6}
        ax.plot(t, values, color=colour, **style)
        ax.annotate(name, (t[0], values[0]), (-0.02, y), color=colour, ha="right", va="center")
    ax.plot([0, 1], [level, level], color="#555555", ls="--", lw=1.2, zorder=0)
    ax.text(1, level + 0.25, f"entropy of the word frequencies: {level:.2f}", color="#555555",
            ha="right")  # fmt: skip
    ax.set(xlim=(-0.27, 1.02), ylim=(0, 5.8), xticks=[0, 0.25, 0.5, 0.75, 1])
    ax.set(xlabel="t, the share of hidden words", ylabel="cost of a hidden word (bits)")


def show_raw_and_averaged(ax: plt.Axes, gaps: dict[int, Sequence[float]],
                          rates: Sequence[float]) -> None:  # fmt: skip
    """The gap of raw and of averaged weights after some steps: step → (raw, averaged).

    rates: the learning rate of every step from the first to the last of them, in any unit.
    """
    steps = list(gaps)
    raw, averaged = zip(*gaps.values(), strict=True)
    scale = 0.25 * 1.12 * max(raw) / max(rates)  # to the lower quarter
    falling = scale * np.asarray(rates)
    ax.plot(range(steps[0], steps[-1] + 1), falling, color="#bbbbbb", lw=1.5, zorder=0)
    ax.annotate("learning rate (not to scale)", (steps[0], 0), (9, 4), textcoords="offset points",
                color="#777777")  # fmt: skip
    ax.plot(steps, raw, "o-", color=ORANGE)
    ax.plot(steps, averaged, "o-", color=BLUE)
    ax.annotate("raw weights", (steps[0], raw[0]), (9, 4), textcoords="offset points",
                color=ORANGE)  # fmt: skip
    ax.annotate("averaged weights", (steps[1], averaged[1]), (-4, -9), textcoords="offset points",
                color=BLUE, ha="right", va="top")  # fmt: skip
    ax.set(ylim=(0, 1.12 * max(raw)), xlabel="step", ylabel="gap to the truth (bits a word)")


def show_learning(ax: plt.Axes, curves: dict[str, tuple], top: float, bottom: float = 0.0,
                  log: bool = False) -> None:  # fmt: skip
    """Draw learning curves against millions of tokens, each with its name at the right end.

    curves: name → (list of (tokens, values) a seed, colour, line style). Shown from bottom to top,
    on a logarithmic axis if `log`.
    """
    to, back = (math.log, math.exp) if log else (float, float)
    ends, end = {}, 0
    for name, (seeds, colour, style) in curves.items():
        for tokens, values in seeds:
            x = np.asarray(tokens) / 1e6
            ax.plot(x, values, style, color=colour, lw=1.6, alpha=0.85)
            end = max(end, x[-1])
        ends[name] = min(np.mean([values[-1] for _, values in seeds]), top)
    places = spread_labels([to(at) for at in ends.values()], (to(top) - to(bottom)) / 15)
    for (name, at), y in zip(ends.items(), places, strict=True):
        ax.annotate(name, (end, at), (end * 1.03, back(y)), color=curves[name][1], va="center",
                    fontsize=10, annotation_clip=False,
                    arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.7})  # fmt: skip
    ax.set_yscale("log" if log else "linear")
    ax.set(xlim=(0, end * 1.005), ylim=(bottom, top), xlabel="million tokens seen")
