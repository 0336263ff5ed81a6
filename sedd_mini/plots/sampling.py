"""Samplers: their laws, their errors, and quality against the number of calls."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, plain_ticks, spread_labels


def show_agreement(
    laws: dict[str, Sequence], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Tables of probabilities of two words, (2, 2) each, with their numbers on a tint of ink."""
    fig, axes = plt.subplots(1, len(laws), figsize=(3.1 * len(laws), 2.7))
    for k, (ax, (title, law)) in enumerate(zip(axes, laws.items(), strict=True)):
        law = np.asarray(law)
        ax.imshow(law, cmap=INK, vmin=0, vmax=1.0)
        for (i, j), p in np.ndenumerate(law):
            ax.text(j, i, f"{p:.2f}", ha="center", va="center", fontsize=14)
        ax.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(rows)))
        ax.set_yticklabels(rows if k == 0 else [""] * len(rows))
        ax.tick_params(length=0)
        ax.grid(False)
        ax.set_title(title, fontsize=11.5, loc="center")
    return fig


def show_error_curves(ax: plt.Axes, Ks: Sequence[int], curves: dict[tuple[str, str], Sequence],
                      colours: dict[str, str], styles: dict[str, str]) -> None:  # fmt: skip
    """Errors against the number of leaps on log axes, each named at its right end; a line 1/K.

    curves: (graph, schedule) → errors; colours: graph → colour; styles: schedule → line style.
    """
    ends = {}
    for (graph, schedule), values in curves.items():
        ax.loglog(Ks, values, styles[schedule], marker="o", ms=4, color=colours[graph])
        ends[f"{graph}, {schedule}"] = (values[-1], colours[graph])
    heights = spread_labels([math.log(v) for v, _ in ends.values()], 0.3)
    for (name, (_, colour)), y in zip(ends.items(), heights, strict=True):
        ax.text(Ks[-1] * 1.12, math.exp(y), name, color=colour, va="center")
    low = min(min(values) for values in curves.values())
    line = [0.45 * low * Ks[-1] / K for K in Ks[2:]]
    ax.loglog(Ks[2:], line, color=GREY, lw=1)
    ax.text(Ks[2], line[0] * 0.75, "slope −1", color="#555555", ha="right", va="top")
    plain_ticks(ax.xaxis, Ks)
    plain_ticks(ax.yaxis, (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5))
    ax.set_xlim(Ks[0] * 0.9, Ks[-1] * 4.6)


def show_stretch(ax: plt.Axes, factors: Sequence[float], curves: dict[str, Sequence],
                 defined: dict[str, float]) -> None:  # fmt: skip
    """Errors of samplers whose leaps are stretched by a factor; a circle at each one's own."""
    for (name, values), colour in zip(curves.items(), (BLUE, GREEN), strict=False):
        ax.plot(factors, values, "o-", ms=4, color=colour)
        at = list(factors).index(defined[name])
        ax.plot(factors[at], values[at], "o", ms=14, mfc="none", mec=colour, mew=2)
        below = name == "Euler"
        ax.annotate(
            f"{name} as defined", (factors[at], values[at]), (0, -14 if below else -15),
            textcoords="offset points", ha="center" if below else "right", va="top", color=colour,
        )  # fmt: skip
        ax.text(factors[-1] + 0.004, values[-1], name, color=colour, va="center")
    ax.set_xlim(factors[0] - 0.02, factors[-1] + 0.035)
    ax.set_ylim(0, 1.08 * max(max(values) for values in curves.values()))


def show_quality_against_calls(
    Ks: Sequence[int], excess: dict[str, Sequence], star: tuple[float, float],
    docs: dict[int, Sequence], real: float, none: str,
) -> Figure:
    """Two panels: excess bits a word on the synthetic language, a judge's bits on documentation.

    excess: name → (value, error) for each K; star: of one word a call, at 32 calls; docs: calls →
    (value, error, …), the last of them one token a call; real: the judge on real text; none: what
    exact ratios have with one word a call, in words, as a log axis has no 0.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4))
    for values, colour in zip(excess.values(), (BLUE, ORANGE), strict=True):
        value, error = np.array(values).T
        left.errorbar(Ks, value, error, fmt="o-", color=colour, ms=5)
    left.errorbar(32, star[0], star[1], fmt="*", color=GREEN, ms=15, zorder=4)
    left.set_yscale("log")
    left.text(2.1, 0.85, "exact ratios", color=BLUE)
    left.text(6, 1.5, "trained network", color=ORANGE)
    left.annotate("network,\none word a call", (32, star[0]), (-12, 0), ha="right", va="center",
                  textcoords="offset points", color=GREEN)  # fmt: skip
    left.text(1, 0.043, "exact ratios, one word a call: " + none, color=BLUE, fontsize=10.5)
    left.set(ylabel="bits a word above true text", ylim=(0.035, None))
    plain_ticks(left.yaxis, (0.05, 0.1, 0.2, 0.5, 1, 2, 5))
    left.set_title("Language of 40 words, L = 32:\nmost of the excess comes from leaping")
    *leaps, last = docs
    right.errorbar(leaps, [docs[K][0] for K in leaps], [docs[K][1] for K in leaps], fmt="s-",
                   color=ORANGE, ms=5)  # fmt: skip
    right.errorbar(last, *docs[last][:2], fmt="*", color=GREEN, ms=15, zorder=4)
    right.annotate("one token\na call", (last, docs[last][0]), (2, 14), ha="center", va="bottom",
                   textcoords="offset points", color=GREEN)  # fmt: skip
    right.text(5, docs[leaps[1]][0] + 0.1, "trained network", color=ORANGE)
    right.axhline(real, color="#444444", lw=1)
    right.text(1, real + 0.12, "validation text", color="#444444")
    right.set(ylabel="bits a token, by the judge")
    right.set_title("Python's documentation, L = 128:\nthe first few leaps bring most")
    for ax, ticks in ((left, Ks), (right, list(docs))):
        ax.set_xscale("log", base=2)
        plain_ticks(ax.xaxis, ticks)
        ax.set(xlabel="leaps (star: calls)")
    right.set_xlim(0.8, 220)
    return fig


def show_false_improvement(ax: plt.Axes, Ks: Sequence[int], judged: Sequence[float],
                           variety: Sequence[float], correct: float) -> None:  # fmt: skip
    """Perplexity and exp(entropy) of a sampler with coarse random numbers; a line at the truth."""
    ax.axhline(correct, color=BLUE)
    ax.text(Ks[-1], correct * 1.03, "correct samples, any K", color=BLUE, ha="right")
    ax.semilogx(Ks, judged, "o-", color=ORANGE, ms=5)
    ax.semilogx(Ks, variety, "s--", color=PURPLE, ms=10, mfc="none", zorder=1)
    ax.text(Ks[3] * 1.15, 1.04 * judged[3], "generative perplexity", color=ORANGE)
    ax.text(Ks[3] * 0.87, 0.88 * variety[3], "exp(entropy)", color=PURPLE, ha="right")
    ax.set_xticks(Ks, Ks)
    ax.minorticks_off()
    ax.set(xlabel="leaps K", ylabel="effective number of tokens", ylim=(0, 1.2 * correct))
