"""Ratios of probabilities, and the ways of learning them."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, COLOURS, GREEN, INK, ORANGE


def show_questions() -> Figure:
    """Draw the three questions by which a network can learn ratios: input, output, ratio.

    One column for each of mean prediction, ratio matching and concrete score matching, on the
    noisy pair "cat owl", whose first token may jump.
    """
    pair = r"$\it{dog\ owl}$"
    columns = [
        ("Mean prediction", BLUE, "cat", "Which word was here\nbefore the noise?",
         r"$p(x_0^i = a \mid x)$",
         r"$\sum_a\; p(x_0^i = a \mid x)\;\dfrac{p(y^i \mid a)}{p(x^i \mid a)}$"),
        ("Ratio matching", ORANGE, "hidden", "Which word stands\nhere now?",
         r"$p(x^i = a \mid \mathrm{others})$",
         r"$\dfrac{p(y^i \mid \mathrm{others})}{p(x^i \mid \mathrm{others})}$"),
        ("Concrete score matching", GREEN, "cat", f"How many times likelier\nis {pair}?",
         rf"$s(x)_y$,   $y$ = {pair}", r"$s(x)_y$   as it is"),
    ]  # fmt: skip
    fig, axes = plt.subplots(1, 3, figsize=(10, 3.9))
    arrow = {"arrowstyle": "-|>", "lw": 1.4, "color": "#444444"}
    for ax, (title, colour, first, question, output, ratio) in zip(axes, columns, strict=True):
        ax.set_title(title, loc="center", color=colour, weight="bold")
        for x, word in ((-0.55, first), (0.55, "owl")):
            tinted = word == "hidden"
            box = {"boxstyle": "round,pad=0.35", "fc": "#d5d8dd" if tinted else "white"}
            box |= {"ec": colour if x < 0 else "#888888", "lw": 1.6}
            ax.text(x, 4, word, ha="center", va="center", bbox=box)
        for y, text in ((2.75, question), (1.55, output), (0.05, ratio)):
            ax.text(0, y, text, ha="center", va="center", fontsize=12 if y < 2 else 11.5)
        for start, end in ((3.65, 3.2), (2.32, 1.9), (1.22, 0.65)):
            ax.annotate("", (0, end), (0, start), arrowprops=arrow)
        ax.set(xlim=(-1.6, 1.6), ylim=(-0.5, 4.4))
        ax.axis("off")
    rows = ((4, "it sees"), (2.75, "it is asked"), (1.55, "it gives"), (0.05, "the ratio is"))
    for y, text in rows:
        axes[0].text(-1.75, y, text, ha="right", va="center", color="#666666", fontsize=10.5)
    fig.suptitle("Three questions whose answers give the ratio", x=0.01, ha="left", fontsize=12)
    return fig


def show_single_ratios(truth: Sequence, found: dict[str, Sequence], label: str = "") -> Figure:
    """Scatter estimated ratios against true ones, a panel a method, on a scale that has negatives.

    truth: (n,); found: method → (n,). The line is "estimate = truth"; below 0 the panel is tinted.
    The vertical axis is logarithmic in both directions, and linear within ±0.001.
    """
    fig, axes = plt.subplots(1, len(found), figsize=(10.5, 3.7), sharey=True)
    for ax, (name, values), colour in zip(axes, found.items(), COLOURS, strict=False):
        ax.axhspan(-200, 0, color="#f3e3e3", lw=0)
        ax.plot([5e-3, 200], [5e-3, 200], color="#444444", lw=1)
        ax.scatter(truth, values, s=3, alpha=0.35, color=colour)
        ax.set_yscale("symlog", linthresh=1e-3)
        ax.set(xscale="log", title=name, xlabel="true ratio", ylim=(-200, 400))
        ax.set_yticks([-100, -1, -0.01, 0, 0.01, 1, 100])
    axes[0].set_ylabel("estimated ratio\n(symmetric log, linear within ±0.001)")
    axes[-1].text(150, -60, label, ha="right", va="center", color="#a33", fontsize=10.5)
    return fig


def show_ratios_on_a_line(
    world: Sequence, pairs: dict[str, tuple[int, int]], curves: dict[str, dict[float, Sequence]]
) -> Figure:
    """Mark two pairs A and B on one column of a world, and draw the ratios along it from each.

    world: (N, N) probabilities; pairs: where it lies → (first, second token); curves: the same
    keys → {σ̄: (N,) ratios}, with four values of σ̄.
    """
    fig, axes = plt.subplots(1, 3, figsize=(11, 3.9), width_ratios=[1, 1.1, 1.1])
    axes[0].imshow(np.asarray(world), cmap=INK)
    axes[0].set(xlabel="second token", ylabel="first token", title="Two pairs (ink: σ̄ = 0.01)")
    axes[0].grid(False)
    dot = {"marker": "o", "ms": 8, "mfc": "white", "mec": "#222222", "mew": 1.6, "ls": ""}
    for letter, ax, (place, (first, second)) in zip("AB", axes[1:], pairs.items(), strict=True):
        axes[0].axvline(second, color="#222222", lw=1, zorder=1)
        axes[0].plot(second, first, **dot)
        axes[0].text(second + 1, first + 3 * (letter == "B"), letter, va="center")
        for (sigma, curve), colour in zip(curves[place].items(), COLOURS, strict=False):
            ax.semilogy(np.asarray(curve), color=colour)
            if letter == "A":
                y = max(curve) if sigma < 1 else 2.4 if sigma < 4 else 0.4
                ax.text(14, y, f"σ̄ = {sigma:g}", color=colour, ha="center", va="center")
        ax.plot(first, 1, zorder=5, **dot)
        ax.set(xlabel="new value y of the first token", xticks=range(0, 32, 5), ylim=(4e-3, 250))
        ax.set_title(f"Ratios seen from {letter}, {place}")
    axes[1].set_ylabel("p(y) / p(x)")
    axes[2].tick_params(labelleft=False)
    title = "The less noise, the more powers of ten the ratios span"
    fig.suptitle(title, x=0.01, ha="left", fontsize=12)
    return fig


def show_contest(t: Sequence, sigma: Sequence, results: dict[str, Sequence]) -> Figure:
    """Draw the error of positive log-ratios, and the share of ratios ≤ 0, against time.

    t, sigma: (n,) times and their total noise; results: method → (n, 2), error and share.
    """
    fig, axes = plt.subplots(1, 2, figsize=(10, 4))
    for ax in axes:
        top = ax.secondary_xaxis("top")
        top.set_xticks(t[::2], [f"{level:.2g}" for level in sigma[::2]])
        top.set_xlabel("total noise σ̄", fontsize=10.5)
        top.spines[:].set_visible(False)
        ax.set(xlabel="time t", xlim=(-0.04, 1.04))
    places = ((0.02, 0.47), (0.01, 0.12), (0.15, 1.45))
    for name, place, colour in zip(results, places, COLOURS, strict=False):
        axes[0].plot(t, results[name][:, 0], "o-", ms=4, color=colour)
        axes[0].text(*place, name, color=colour, fontsize=10.5)
    name = "concrete score matching"
    axes[1].plot(t, results[name][:, 1], "o-", ms=4, color=GREEN)
    axes[1].text(0.4, 0.2, name, color=GREEN, fontsize=10.5)
    others = "mean prediction and\nratio matching:\nnone at any time"
    axes[1].text(0.58, 0.03, others, color="#555555", fontsize=10.5)
    axes[0].set(ylabel="RMS error of log-ratios,\npositive ratios only", ylim=(0, None))
    axes[0].set_title("Ratio matching is best at small noise")
    axes[1].set(ylabel="share of ratios ≤ 0", ylim=(0, None))
    axes[1].set_title("Concrete score matching gives negative ratios")
    axes[1].yaxis.set_major_formatter("{x:.0%}")
    return fig


def show_targets(share: Sequence, of_squares: Sequence, q: float) -> Figure:
    """Draw the targets q, 1 and 1/q as 3200 dots, beside a bar of their parts in the mean square.

    share, of_squares: (3,) shares of the targets and of the mean squared target, in this order.
    """
    kinds = ((f"q = {q:.1e}", "#c3c7cd"), ("1", BLUE), (f"1/q = {1 / q:.0f}", ORANGE))
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.9), width_ratios=[4.2, 1])
    numbers = [round(3200 * float(part)) for part in share]
    numbers[0] = 3200 - sum(numbers[1:])
    places = np.random.default_rng(61).permutation(3200)
    for (_, colour), dots, end in zip(kinds, numbers, np.cumsum(numbers), strict=True):
        y, x = np.divmod(places[end - dots : end], 80)
        left.scatter(x, y, s=9 if dots > 99 else 16 if dots > 1 else 40, color=colour, lw=0)
    left.annotate("the only one", (x[0], y[0]), (x[0], -3.2), color=ORANGE, va="center",
                  ha="center",
                  arrowprops={"arrowstyle": "-|>", "color": ORANGE, "lw": 1.4})  # fmt: skip
    for x, (text, colour), dots in zip((0, 27, 50), kinds, numbers, strict=True):
        label = f"{text}: {dots} dot" + "s" * (dots != 1)
        left.text(x, 42, label, color="#777777" if x == 0 else colour, va="center")
    left.set(xlim=(-1, 80), ylim=(44, -5))
    left.set_title("3200 targets")
    for (_, colour), part, top in zip(kinds, of_squares, np.cumsum(of_squares), strict=True):
        right.bar(0, float(part), 1, bottom=float(top - part), color=colour)
    right.text(0, 0.5, f"1/q\n{float(of_squares[2]):.2%}", color="white", ha="center", va="center")
    right.set(xlim=(-1, 1), ylim=(-0.06, 1.1))
    right.set_title("their mean square", loc="center")
    for ax in (left, right):
        ax.axis("off")
    title = "0.03 % of the targets supply nearly all of the mean squared target"
    fig.suptitle(title, x=0.01, ha="left", fontsize=12)
    return fig


def show_ratio_cases(ax: plt.Axes, rows: Sequence, columns: Sequence[str], labels) -> None:
    """A table of conditional ratios: a row for each case of (x, x0), a column for each word y.

    rows: lists of cell texts, "x" for the word that stands there itself; tint follows the text.
    """
    tint = {"0": "#ffffff", "q": "#dbe7f2", "1": "#b9d4ea", "r": "#f3c9a5", "1/q": "#f3c9a5"}
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            colour = "#eeeeee" if cell == "x" else tint[cell]
            ax.add_patch(plt.Rectangle((j, -i), 0.94, -0.86, color=colour, ec="#bbbbbb", lw=1))
            text = "(x itself)" if cell == "x" else cell
            size, ink = (9.5, "#888888") if cell == "x" else (14, "#222222")
            ax.text(j + 0.47, -i - 0.43, text, ha="center", va="center", fontsize=size, color=ink)
        ax.text(-0.15, -i - 0.43, labels[i], ha="right", va="center", fontsize=11.5)
    for j, column in enumerate(columns):
        ax.text(j + 0.47, 0.12, column, ha="center", va="bottom", fontsize=11.5)
    ax.set(xlim=(-3.4, len(columns)), ylim=(-len(rows), 0.7))
    ax.set_axis_off()
