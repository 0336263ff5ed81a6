"""Models compared: by bits of real text, by their samples, and against real text."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, COLOURS, GREY, ORANGE, spread_labels


def show_two_directions(truth: Sequence, models: dict[str, Sequence], bits: dict) -> Figure:
    """Draw a law over sentences, the last of them nonsense, beside models of it.

    truth and each model: probabilities. bits: name → (bits of real text under the model, bits of
    the model's samples under the truth), written into its panel; for the truth they are equal.
    """
    laws = {"the language": truth, **models}
    fig, axes = plt.subplots(1, len(laws), figsize=(3.4 * len(laws), 3), sharey=True)
    for ax, (name, law) in zip(axes, laws.items(), strict=True):
        law = [float(p) for p in law]
        names = [*map(str, range(1, len(law))), "non-\nsense"]
        ax.bar(names, law, color=[BLUE] * (len(law) - 1) + [ORANGE])
        real, written = bits[name]
        told = f"real text: {real:.2f} bits\nits samples: {written:.2f} bits"
        ax.text(0.98, 0.97, told, transform=ax.transAxes, ha="right", va="top", color="#444444")
        ax.set_title(name)
        ax.grid(axis="x", visible=False)
        ax.tick_params(axis="x", labelsize=10)
    axes[0].set_ylabel("probability")
    axes[0].set_ylim(0, 0.82)
    axes[1].set_xlabel("sentence")
    title = "Broad is better at real text, and Narrow's samples score better"
    fig.suptitle(title, x=0.01, ha="left", fontsize=12)
    return fig


def show_draws(rows: dict[str, tuple[Sequence, float, float]], truth: float, unit: str) -> Figure:
    """A row of dots for each estimator, one a draw, above its mean with an error bar; the truth.

    rows: name → (draws, mean, one standard error); the names stand at the left.
    """
    fig, ax = plt.subplots(figsize=(8, 0.9 + 0.95 * len(rows)))
    for i, (_, (draws, mean, error)) in enumerate(rows.items()):
        ax.plot(draws, [i - 0.17] * len(draws), "o", color=COLOURS[i], alpha=0.55, ms=6, mew=0)
        ax.errorbar(mean, i + 0.17, xerr=error, fmt="s", color=COLOURS[i], capsize=4, ms=6)
        label = f"{mean:.3f} ± {error:.3f}"
        ax.annotate(label, (mean + error, i + 0.17), (10, 0), textcoords="offset points",
                    va="center", color=COLOURS[i])  # fmt: skip
    ax.axvline(truth, color=GREY, ls="--", lw=1.2, zorder=0)
    ax.annotate(f"truth {truth:.3f}", (truth, -0.62), (5, 0), textcoords="offset points",
                color="#555555", va="center")  # fmt: skip
    ax.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.85), xlabel=unit)
    ax.grid(axis="y", visible=False)
    return fig


def show_pairs(panels: dict[str, tuple[Sequence, Sequence]], names: Sequence[str]) -> Figure:
    """Join the draws of two models by lines, a panel for each kind of noise.

    panels: title → (draws of the first model, of the second), equally many; names: of the models.
    """
    fig, axes = plt.subplots(1, len(panels), figsize=(4.4 * len(panels), 3.3), sharey=True)
    for ax, (title, (first, second)) in zip(axes, panels.items(), strict=True):
        for a, b in zip(first, second, strict=True):
            ax.plot([0, 1], [a, b], "o-", color=BLUE if a < b else ORANGE, lw=1.3, ms=5)
        ax.set(xticks=[0, 1], xticklabels=names, xlim=(-0.35, 1.35))
        ax.set_title(title)
        ax.grid(axis="x", visible=False)
    return fig


def show_frontier(ax: plt.Axes, lines: dict[str, tuple], points: dict[str, tuple],
                  real: tuple[float, float]) -> None:  # fmt: skip
    """Quality against a cost: lines (diffusion) and single points (a rival's ways of drawing).

    lines: name → (costs, values, errors, colour); points: name → (cost, value, error, colour);
    real: value and error of real text, below which a shade marks what looks better than real.
    """
    value, error = real
    every = [v for _, values, _, _ in lines.values() for v in values]
    low = min(value, *(v for _, v, _, _ in points.values()))
    high = max(every)
    room = 0.08 * (high - low)
    right = max(cost for costs, *_ in lines.values() for cost in costs)
    for name, (costs, values, errors, colour) in lines.items():
        ax.errorbar(costs, values, errors, fmt="o-", color=colour, ms=5, capsize=2)
        if values[0] == max(v[0] for _, v, _, _ in lines.values()):
            i, place, how = 0, (9, 3), {"ha": "left"}
        else:
            i, place, how = 1, (-6, -6), {"ha": "right", "va": "top"}
        ax.annotate(name, (costs[i], values[i]), place, textcoords="offset points", color=colour,
                    **how)  # fmt: skip
    heights = spread_labels([*(v for _, v, _, _ in points.values()), value], 0.8 * room)
    for (name, (cost, at, off, colour)), y in zip(points.items(), heights, strict=False):
        ax.errorbar(cost, at, off, fmt="D", color=colour, ms=5)
        ax.annotate(name, (cost, at), (cost / 1.4, y), color=colour, va="center", ha="right",
                    fontsize=9.5,
                    arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.7})  # fmt: skip
    ax.axhline(value, color=GREY, ls="--", lw=1.2)
    ax.axhspan(low - 2 * room, value - 3 * error, color=ORANGE, alpha=0.07, lw=0)
    ax.set_xscale("log")
    ax.minorticks_off()
    left = min(cost for costs, *_ in lines.values() for cost in costs) / 2.2
    ax.set(ylim=(low - 2 * room, high + 2 * room), xlim=(left, 1.3 * right))
    ax.annotate("real text", (1.3 * right, value), (-4, -4), textcoords="offset points",
                color="#555555", ha="right", va="top")  # fmt: skip


def show_gamed(ax: plt.Axes, paths: dict[str, tuple], single: dict[str, tuple],
               real: tuple[float, float]) -> None:  # fmt: skip
    """Samplers over the entropy of their words and their generative perplexity.

    paths: name → (list of (entropy, perplexity), a label for each, colour, side of the labels,
    "left", "above" or "below"), joined in this order, the name at the last;
    single: name → (entropy, perplexity, colour); real: of real text, with a cross through it.
    """
    entropy, perplexity = real
    ax.axhline(perplexity, color=GREY, ls="--", lw=1, zorder=0)
    ax.axvline(entropy, color=GREY, ls="--", lw=1, zorder=0)
    ax.plot(entropy, perplexity, "D", color="#222222", ms=5, zorder=3)
    ax.annotate("real text", real, (10, -16), textcoords="offset points")
    for name, (places, labels, colour, side) in paths.items():
        how = {"left": ((-8, 0), "right", "center_baseline"), "above": ((-7, 2), "right", "bottom"),
               "below": ((-2, -6), "center", "top")}[side]  # fmt: skip
        crowded = {"left": ((-8, -6), "right", "center_baseline"),
                   "below": ((7, -3), "left", "center")}  # the first label of such a path
        x, y = zip(*places, strict=True)
        ax.plot(x, y, "-", color=colour, lw=1.3)
        for place, label in zip(places, labels, strict=True):
            if label == "":  # where the path begins, which has a mark of its own
                continue
            ax.plot(*place, "o", color=colour, ms=5)
            at, ha, va = crowded.pop(side, how)
            ax.annotate(label, place, at, textcoords="offset points", color=colour, fontsize=9.5,
                        ha=ha, va=va)  # fmt: skip
        away = (0, -34) if side == "below" else (0, 14)
        ax.annotate(name, places[-1], away, textcoords="offset points", color=colour, ha="center")
    for name, (x, y, colour) in single.items():
        ax.plot(x, y, "s", color=colour, ms=9, mfc="none", mew=1.6, zorder=4)
        ax.annotate(name, (x, y), (8, 4), textcoords="offset points", color=colour)
    ax.margins(x=0.2, y=0.12)
