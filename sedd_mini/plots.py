"""The style that every chapter's figures share, and the figures that more than one chapter draws.

Only this module imports matplotlib. The colours keep apart for every common kind of colour
blindness, and in grey.
"""

import itertools
import math
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, GREY = "#1f6299", "#d9660b", "#2a9d79", "#b0609b", "#8a8f98"
COLOURS = [BLUE, ORANGE, GREEN, PURPLE, GREY]
INK = LinearSegmentedColormap.from_list(  # probability: paper to ink
    "ink", ["#ffffff", "#dbe7f2", "#8fbbdb", "#3a83b8", "#174f83", "#0a2542"]
)


def use_style() -> None:
    """Quiet figures on white; call it once, at the top of a chapter.

    A notebook shows them at 80 dots an inch, two pixels a dot: sharp, and no larger than the text.
    """
    mpl.rcParams.update(
        {
            "figure.dpi": 80,
            "figure.facecolor": "white",  # so that they can be read on a dark page
            "savefig.facecolor": "white",
            "figure.figsize": (7, 3.6),
            "figure.constrained_layout.use": True,
            "font.size": 11.5,
            "axes.titlesize": 12,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#666666",
            "axes.linewidth": 0.8,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e6e6e6",
            "axes.prop_cycle": mpl.cycler(color=COLOURS),
            "lines.linewidth": 2,
            "legend.frameon": False,
        }
    )
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        from matplotlib_inline.config import InlineBackend

        InlineBackend.instance(parent=shell).figure_formats = {"retina"}


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


def _as_rows(worlds: Sequence) -> Sequence:
    nested = isinstance(worlds[0], list | tuple)
    return worlds if nested else [worlds]


def show_tangent(
    ax: plt.Axes, curve, slope, s: float, r: float, name: str, span: tuple[float, float]
) -> None:
    """Draw a convex curve F, its tangent at s, and the gap between the two at r.

    curve, slope: F and F' on NumPy arrays; span: the range of u to draw. The gap at r is the
    Bregman divergence D_F(r, s). Where F(r) is infinite an arrow points upwards instead.
    """
    u = np.linspace(*span, 800)
    u = u[u > 0]
    tangent = curve(s) + slope(s) * (np.array(span) - s)
    ax.plot(u, curve(u), color=PURPLE)
    ax.plot(span, tangent, color=GREY, lw=1.5)
    ax.plot(s, curve(s), "o", color=GREY, ms=7)
    foot = curve(s) + slope(s) * (r - s)
    with np.errstate(all="ignore"):
        top = curve(np.float64(r))
    low, high = ax.get_ylim()
    if np.isfinite(top):
        ax.plot([r, r], [foot, top], color=ORANGE, lw=3, solid_capstyle="butt")
        ax.plot(r, top, "o", color=PURPLE, ms=6)
    else:
        arrow = {"arrowstyle": "-|>", "color": ORANGE, "lw": 3, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", (r, high), (r, foot), arrowprops=arrow)
    for place, label in ((r, "r"), (s, "s")):
        ax.plot([place, place], [low, low + 0.03 * (high - low)], color="#444444", lw=1)
        ax.annotate(label, (place, low), (4, 4), textcoords="offset points", fontsize=13)
    ax.set(xlabel="u", ylabel=name, xlim=span, ylim=(low, high))


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


def show_seeds(
    ax: plt.Axes, rows: dict[str, Sequence[float]], colours: Sequence[str],
    hollow: Mapping[str, float] | None = None, form: str = ".2f",
) -> None:  # fmt: skip
    """A row of dots for each name, one dot a seed, with their mean written beside them (as `form`).

    hollow: one more value for some of the names, which does not count for the mean.
    """
    hollow = hollow or {}
    for i, (name, values) in enumerate(rows.items()):
        ax.plot(values, [-i] * len(values), "o", color=colours[i], ms=8, alpha=0.8, mew=0)
        if name in hollow:
            ax.plot(hollow[name], -i, "o", ms=8, mfc="none", mec=colours[i], mew=1.6)
        ax.annotate(
            f"{np.mean(values):{form}}", (max(*values, hollow.get(name, -np.inf)), -i), (9, 0),
            textcoords="offset points", va="center", color=colours[i],
        )  # fmt: skip
    ax.set_yticks([-i for i in range(len(rows))], list(rows))
    ax.set_ylim(0.6 - len(rows), 0.6)
    ax.grid(axis="y", visible=False)


def show_frame(
    ax: plt.Axes, pieces: Sequence[str], births: Sequence[int], now: int, since: int = 0,
    columns: int = 42, lines: bool = True,
) -> None:  # fmt: skip
    """One frame of a film in which a text appears: old words black, new ones blue, hidden grey.

    pieces: the text of each token; births: the frame in which it appears. Hidden is what is born
    after `now`, new what is born after `since`. A hidden token is a block as wide as what will
    stand there, so that nothing moves. `columns` letters a line; lines=False: all in one line.
    """
    old, new, hidden = "#222222", BLUE, "#ccd1d9"
    layers = {old: "", new: "", hidden: ""}  # one text for each colour, blanks where it has nothing
    for piece, born in zip(pieces, births, strict=True):
        column = len(layers[old]) - layers[old].rfind("\n") - 1
        if lines:
            piece = re.sub("\n+", "\n" if column else "", piece)
        else:
            piece = re.sub(r"\s+", " ", piece)
        room = columns - column - len(piece)
        if (room < 0 and piece.startswith(" ")) or room < -4:  # a new line, perhaps in a word
            piece = "\n" + piece.removeprefix(" ")
        colour = hidden if born > now else new if born > since else old
        blocks = re.sub(".", "█", re.sub(".$", "▌", piece))
        for layer in layers:
            shown = blocks if layer == hidden else piece
            layers[layer] += shown if layer == colour else re.sub(".", " ", piece)
    for colour, text in layers.items():
        for y, line in enumerate(text.split("\n")):
            ax.text(0, y, line, color=colour, family="monospace", fontsize=10, va="baseline")
    ax.set(ylim=(y + 0.5, -1), xlim=(-0.02, 1))
    ax.axis("off")


def film(
    pieces: Sequence[str], births: Sequence[int], moments: Sequence[int], size: tuple[float, float],
    new: int = 5, **layout,
):  # fmt: skip
    """The same as a moving picture, IPython's Image of a GIF: a frame for each moment.

    size: of the picture, in inches. Blue is what appeared in the last `new` frames of the sampler.
    """
    from IPython.display import Image

    fig, ax = plt.subplots(figsize=size)
    writer = PillowWriter(fps=3)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.gif")
        with writer.saving(fig, str(path), dpi=100):
            for now in moments:
                ax.clear()
                show_frame(ax, pieces, births, now, max(0, now - new), **layout)
                writer.grab_frame()
        plt.close(fig)
        return Image(path.read_bytes(), format="gif")


def show_map() -> Figure:
    """The book as a picture: what each part of a diffusion model is, and the chapters about it."""
    fig, ax = plt.subplots(figsize=(10, 4))
    boxes = {
        (0, 2): "text, as tokens\n05", (9, 2): "noise:\nnothing is left", (0, 0): "a new text",
        (4.5, 1): "a network that knows\nratios of probabilities\n06",
        (1.2, 1): "how to train it\n02  03  07  11", (7.9, 1): "how good is it?\n04",
    }  # fmt: skip
    for (x, y), text in boxes.items():
        edge = BLUE if text[-1].isdigit() else "#666666"
        style = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": edge, "lw": 1.6}
        ax.text(x, y, text, ha="center", va="center", color=edge, bbox=style, fontsize=11.5)
    corner = "angle,angleA=-90,angleB=180,rad=12"
    arrows = [
        ((1.2, 2), (8, 2), "arc3"), ((9, 1.62), (0.8, 0), corner), ((2.2, 1), (3.1, 1), "arc3"),
        ((5.9, 1), (7, 1), "arc3"), ((4.5, 0.55), (4.5, 0.08), "arc3"),
    ]  # fmt: skip
    for start, end, bend in arrows:
        line = {"arrowstyle": "-|>", "lw": 1.6, "connectionstyle": bend, "fc": "#222222"}
        ax.annotate("", end, start, arrowprops=line)
    ax.text(4.6, 2.12, "noise that jumps  01", ha="center", color=BLUE)
    back = "backwards, step by step: sampling  08,  filling gaps  09"
    ax.text(4.5, -0.25, back, ha="center", color=BLUE)
    ax.set(xlim=(-1.2, 10), ylim=(-0.5, 2.5))
    ax.set_title("Noise destroys text by a known rule; the way back needs a network")
    ax.axis("off")
    return fig


def show_wall(axes: Sequence[plt.Axes], score_entropy) -> None:
    """Least squares beside score entropy: the wall at zero, and the price of a factor of two.

    score_entropy: the loss of one ratio, a function of tensors (s, r); axes: two of them.
    """
    import torch

    s, r = torch.linspace(-0.6, 1.4, 400), torch.tensor(0.2)
    axes[0].plot(s, (s - r) ** 2 / 2, color=GREEN)
    positive = torch.cat([torch.logspace(-4, -2, 50), s[s > 0.01]])
    axes[0].plot(positive, score_entropy(positive, r), color=PURPLE)
    axes[0].axvline(0, color="#999999", lw=1)
    axes[0].axvline(0.2, color="#666666", lw=1, ls=":")
    axes[0].annotate("true ratio 0.2", (0.22, 0.74), color="#666666")
    axes[0].annotate("least squares", (-0.58, 0.36), color=GREEN)
    axes[0].annotate("score entropy", (0.45, 0.62), color=PURPLE)
    axes[0].set(xlabel="estimate s", ylabel="loss", ylim=(0, 0.8))
    axes[0].set_title("Score entropy has a wall at zero")
    r = torch.logspace(-2.5, 2.5, 100)
    axes[1].loglog(r, r**2 / 2, color=GREEN)
    axes[1].loglog(r, score_entropy(2 * r, r), color=PURPLE)
    axes[1].annotate("least squares", (0.5, 2e2), color=GREEN)
    axes[1].annotate("score entropy", (9, 0.2), color=PURPLE)
    axes[1].set(xlabel="true ratio r", ylabel="loss of the estimate 2r")
    axes[1].set_title("Small ratios count for more than with least squares")


def show_states(
    ax: plt.Axes, names: Sequence[str], Q, places: Sequence[tuple[float, float]] | None = None,
    rates: bool | Mapping[tuple[int, int], str] = True, colours: Sequence[str] = (),
    size: float = 0.3,
) -> None:  # fmt: skip
    """Draw a chain as a diagram on ax: a disc is a state, an arrow a possible jump.

    Q: (S, S), entry (y, x) the rate of x → y; arrows where it is positive. places: (x, y) of each
    disc (default: on a circle, clockwise from the top); size: its radius. rates: write them
    beside the arrows; or what to write beside some arrows, by (x, y).
    """
    Q = np.asarray(Q, dtype=float)
    labels = rates if isinstance(rates, Mapping) else {}
    turn = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / len(names)
    places = np.stack([np.cos(turn), np.sin(turn)], -1) if places is None else np.asarray(places)
    for x, y in itertools.permutations(range(len(names)), 2):
        if Q[y, x] <= 0:
            continue
        start, end = places[x], places[y]
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array([-along[1], along[0]])  # to the left of the way: two-way jumps part
        bow = 0.14 if Q[x, y] > 0 else 0.0
        ax.annotate(
            "", end - size * along + 0.2 * size * across * (bow > 0),
            start + size * along + 0.2 * size * across * (bow > 0),
            arrowprops={
                "arrowstyle": "-|>", "color": GREY, "lw": 1.4, "shrinkA": 1, "shrinkB": 1,
                "mutation_scale": 12, "connectionstyle": f"arc3,rad={-bow}",
            },
        )  # fmt: skip
        if rates is True or (x, y) in labels:
            height = 0.2 * size + bow * (np.linalg.norm(end - start) - 2 * size) / 2
            middle = (start + end) / 2 + (height + 0.13) * across
            label = labels.get((x, y), f"{Q[y, x]:g}")
            ax.text(*middle, label, ha="center", va="center", fontsize=11)
    for i, (name, place) in enumerate(zip(names, places, strict=True)):
        colour = colours[i] if len(colours) else BLUE
        ax.add_patch(plt.Circle(place, size, color=colour, lw=0))
        ax.text(*place, name, ha="center", va="center", color="white", fontsize=11.5)
    low, high = places.min(0) - size - 0.1, places.max(0) + size + 0.1
    ax.update_datalim([low, high])
    ax.margins(0)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_axis_off()


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
    axes[0].set(xlabel="second token", ylabel="first token", title="Two pairs (ink: σ̄ = 0.1)")
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
    left.annotate("the only one", (x[0], y[0]), (x[0] + 6, -3.2), color=ORANGE, va="center",
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


def show_pieces(
    ax: plt.Axes, rows: dict[str, Sequence[str]], hidden: Sequence[Sequence[bool]] | None = None
) -> None:
    """Draw one text in several cuts: a row of boxes for each, a box a token, as wide as its text.

    rows: label → tokens; hidden: for each row which tokens are hidden (dark). Rows run downwards.
    """
    for y, (name, tokens) in enumerate(rows.items()):
        left = 0
        for i, token in enumerate(tokens):
            dark = hidden is not None and bool(hidden[y][i])
            colour, ink = (BLUE, "white") if dark else ("#dbe1ea", "#222222")
            ax.barh(-y, len(token) - 0.14, left=left + 0.07, height=0.66, color=colour)
            for j, letter in enumerate(token):
                style = {"ha": "center", "va": "center", "color": ink, "family": "monospace"}
                ax.text(left + j + 0.5, -y, letter, fontsize=11, **style)
            left += len(token)
        ax.text(-0.6, -y, f"{len(tokens)} {name}", ha="right", va="center", fontsize=11)
    ax.set(xlim=(0, left), ylim=(0.5 - len(rows), 0.5))
    ax.set_axis_off()


def show_edits(names: Sequence[str], Q: Sequence, start: int) -> Figure:
    """Mark where one jump leads from a sequence of three tokens, and where Q is positive.

    names: the S³ sequences as texts, in the order of Q's rows (the last token fastest); Q:
    (S³, S³), entry (y, x) the rate of x → y; start: the sequence to look at.
    """
    Q, size = np.asarray(Q), round(len(names) ** (1 / 3))
    fig = plt.figure(figsize=(11, 3.5))
    left, right = fig.subfigures(1, 2, width_ratios=[2.1, 1])
    axes = [*left.subplots(1, size), right.subplots()]
    for k, ax in enumerate(axes[:size]):
        for place in range(size**2):
            state = k * size**2 + place
            tint = BLUE if state == start else ORANGE if Q[state, start] > 0 else "#eef0f3"
            box = plt.Rectangle((place % size, -(place // size)), 0.92, -0.92, color=tint, lw=0)
            ax.add_patch(box)
            ink = "#777777" if tint == "#eef0f3" else "white"
            x, y = place % size + 0.46, -(place // size) - 0.46
            ax.text(x, y, names[state], ha="center", va="center", color=ink, fontsize=12)
        ax.set(xlim=(0, size), ylim=(-size, 0))
        ax.set_aspect("equal")
        ax.set_axis_off()
        ax.set_title(f"first token {names[k * size**2][0]}", fontsize=11, loc="center")
    axes[-1].imshow(Q > 0, cmap=INK, vmax=1.4, interpolation="nearest")
    axes[-1].add_patch(plt.Rectangle((start - 0.5, -0.5), 1, len(Q), fill=False, ec=ORANGE, lw=1.6))
    axes[-1].set(xlabel="from sequence", ylabel="to sequence", xticks=[], yticks=[])
    axes[-1].set_title("dark: a jump is possible", fontsize=11, loc="center")
    axes[-1].spines[:].set_visible(True)
    axes[-1].grid(False)
    return fig


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


def show_bars(rows: dict[str, Sequence[float]], titles: Sequence[str], colours, first=0) -> Figure:
    """Horizontal bars with their numbers: a row for each name, a panel for each of its values.

    first: how many rows stand apart, above, in panels with a scale of their own.
    """
    groups = [part for part in (list(rows)[:first], list(rows)[first:]) if part]
    height = 0.55 * len(rows) + 0.7 + 0.5 * len(groups)
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
        if first:
            axes[g, 0].set_ylim(len(part) - 0.5, -0.5)  # bars of one height in both groups
        else:
            axes[g, 0].invert_yaxis()
    return fig


def show_two_lamps(rates: tuple[float, float], seconds: float, evenings: Sequence, evidence):
    """Two machines as diagrams, and the evidence for the first one while each evening passes.

    rates: a second, of machines A and B; evenings: when A's lamp came on, (n,) seconds;
    evidence(clock, lit): (m,) nats at each time of the clock (m,), for a lamp lit at `lit`.
    """
    layout = [["A", "evidence"], ["B", "evidence"]]
    fig, axes = plt.subplot_mosaic(layout, figsize=(10, 3.8), width_ratios=[1, 2.4])
    for name, rate in zip("AB", rates, strict=True):
        label = {(0, 1): f"{rate:g} a second"}
        places = [(0, 0), (1.9, 0)]
        show_states(axes[name], ["dark", "lit"], [[0, 0], [rate, 0]], places, label, [GREY, ORANGE])
        axes[name].set_title(f"Machine {name}")
    ax, lit = axes["evidence"], np.asarray(evenings)
    jumps = np.concatenate([np.nextafter(lit, 0), lit])  # just before, and at: they rise vertically
    clock = np.sort(np.concatenate([[0, seconds], jumps[jumps < seconds]]))
    curves = np.stack([evidence(clock, float(when)) for when in lit])  # (n, m)
    against = curves[:, -1] < 0
    for curve, low in zip(curves, against, strict=True):
        ax.plot(clock, curve, color=PURPLE if low else "#b9c1cc", lw=1.3 if low else 0.9)
    ax.axhline(0, color="#444444", lw=1)
    ax.text(0.03, 1.5, "the lamp comes on: evidence rises by log 4", color="#555555")
    ax.text(0.03, -1.9, "still dark: evidence falls", color="#555555")
    ax.set(xlabel="seconds watched", ylabel="evidence for A (nats)", xlim=(0, seconds))
    ax.set_ylim(-2.6, 1.9)
    ax.set_title(f"{against.sum()} of {len(curves)} evenings with A end with evidence against it")
    return fig


def show_one_hidden_word(pi: Sequence[float], Z: float) -> Figure:
    """Two laws of one word that reappears, as diagrams, and the densities of when it does.

    pi: probabilities of cat, dog and owl; Z: how much faster than the truth the model moves.
    """
    layout = [["A", "when"], ["B", "when"]]
    fig, axes = plt.subplot_mosaic(
        layout, figsize=(10, 4.4), width_ratios=[1, 1.5], height_ratios=[1, 2.6]
    )
    words, places = ["cat", "dog", "owl"], [(0, 0), (2, 0.9), (2, 0), (2, -0.9)]
    rates = {"A": ["1 / t"], "B": [f"{p:g} Z / t" for p in pi]}
    for name, chosen in (("A", [0, 2]), ("B", [0, 1, 2, 3])):
        law = rates[name]
        Q = np.zeros((len(chosen), len(chosen)))
        Q[1:, 0] = 1
        colours = [GREY, ORANGE, BLUE, BLUE][: len(chosen)]
        spots = [places[i] for i in chosen]
        show_states(axes[name], ["MASK", *words[: len(law)]], Q, spots, False, colours, size=0.42)
        for (x, y), rate in zip(spots[1:], law, strict=True):
            axes[name].text(x + 0.52, y, f"rate {rate}", va="center")
        axes[name].update_datalim([(4, 0)])
    axes["A"].set_title("Law A, the truth: only cat")
    axes["B"].set_title("Law B, the model: any word")
    t, ax = np.linspace(0, 1, 200), axes["when"]
    ax.plot(t, np.ones_like(t), color=ORANGE)
    ax.plot(t, Z * t ** (Z - 1), color=BLUE)
    ax.fill_between(t, 1, Z * t ** (Z - 1), color="#eeeeee")
    ax.text(0.3, 1.06, "law A", color=ORANGE, ha="right")
    ax.text(0.87, 1.82, f"law B with Z = {Z:g}", color=BLUE)
    ax.set(xlabel="time t, from noise (1) to data (0)", ylabel="density", xlim=(1, 0))
    ax.set(ylim=(0, None))
    ax.set_title(f"With Z = {Z:g} the word tends to reappear too early")
    return fig


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


def spread_labels(values: Sequence[float], least: float) -> list[float]:
    """Heights for labels at these values, moved apart where closer than `least`, order kept."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [float(value) for value in values]
    for _ in range(200):
        for i, j in itertools.pairwise(order):
            if (lack := least - (places[j] - places[i])) > 1e-9:
                places[i], places[j] = places[i] - lack / 2, places[j] + lack / 2
    return places


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
                    fontsize=10, annotation_clip=False)  # fmt: skip
    ax.set_yscale("log" if log else "linear")
    ax.set(xlim=(0, end * 1.005), ylim=(bottom, top), xlabel="million tokens seen")


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
    "left" or "right"), joined in this order, the name at the last;
    single: name → (entropy, perplexity, colour); real: of real text, with a cross through it.
    """
    entropy, perplexity = real
    ax.axhline(perplexity, color=GREY, ls="--", lw=1, zorder=0)
    ax.axvline(entropy, color=GREY, ls="--", lw=1, zorder=0)
    ax.plot(entropy, perplexity, "D", color="#222222", ms=8, zorder=3)
    ax.annotate("real text", real, (10, -16), textcoords="offset points")
    for name, (places, labels, colour, side) in paths.items():
        how = {"left": ((-7, 2), "right", "bottom"), "right": ((7, -3), "left", "top")}[side]
        x, y = zip(*places, strict=True)
        ax.plot(x, y, "o-", color=colour, ms=5, lw=1.3)
        for place, label in zip(places, labels, strict=True):
            ax.annotate(label, place, how[0], textcoords="offset points", color=colour,
                        fontsize=9.5, ha=how[1], va=how[2])  # fmt: skip
        away = (0, 14) if side == "left" else (0, -20)
        ax.annotate(name, places[-1], away, textcoords="offset points", color=colour, ha="center")
    for name, (x, y, colour) in single.items():
        ax.plot(x, y, "s", color=colour, ms=9, mfc="none", mew=1.6)
        ax.annotate(name, (x, y), (8, 4), textcoords="offset points", color=colour)
    ax.margins(x=0.2, y=0.12)


ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # a label over dots or lines


def show_run_log(ax: plt.Axes, losses: dict, checks: Sequence[tuple], levels: dict,
                 of_checks: float) -> None:  # fmt: skip
    """The losses of a run, their running mean, its validations, and levels to compare them with.

    losses: step → mean of a few steps, nats a token; checks: (step, bound, two errors) each;
    levels: name → nats a token; of_checks: what the last level's model pays on the validation
    text. All but the dots and their mean is named at the right, outside the axes.
    """
    steps, values = np.array(list(losses)), np.array(list(losses.values()))
    ax.plot(steps, values, ".", color="#b9c1cc", ms=5)
    wide = 15
    smooth = np.convolve(values, np.ones(wide) / wide, "valid")
    ax.plot(steps[wide // 2 : wide // 2 + len(smooth)], smooth, color=BLUE)
    end = steps[-1] + 9
    for name, level in levels.items():
        ax.plot([0, end], [level, level], color=ORANGE, ls="--", lw=1.3)
        lowest = level == min(levels.values())
        ax.text(end + 3, level, name, color=ORANGE, va="bottom" if lowest else "center")
    at, bound, error = zip(*checks, strict=True)
    for step in at:
        ax.plot([step - 7, step + 7], [of_checks] * 2, color=ORANGE, lw=2)
    ax.errorbar(at, bound, error, fmt="o", capsize=3, color=GREEN, zorder=3)
    ax.text(32, 9.02, "mean of 15 dots", color=BLUE)
    ax.text(26, 10.3, "dot: mean of two steps", color="#666666")
    ax.text(end + 3, bound[-1], "validation, ± 2 errors", color=GREEN, va="center")
    ax.text(end + 3, of_checks - 0.15, "short lines: the table\non the validation text",
            color=ORANGE, va="top")  # fmt: skip
    ax.set(xlabel="step", ylabel="loss (nats a token)", xlim=(0, end), ylim=(5.6, 12.2))


def show_roofline(ax: plt.Axes, roofs: dict[str, tuple], works: dict[str, float]) -> None:
    """Attainable speed against FLOPs a byte: a roof for each device, a vertical for each work.

    A ring marks a roof's corner, a dot the best speed of a work under a roof.

    roofs: name → (FLOPs a second, bytes a second, colour); works: name → FLOPs a byte.
    """
    x = np.logspace(-1, 4, 400)
    for name, (speed, bandwidth, colour) in roofs.items():
        ax.loglog(x, np.minimum(speed, bandwidth * x) / 1e12, color=colour)
        ax.plot(speed / bandwidth, speed / 1e12, "o", color=colour, mfc="white", mew=1.8, ms=8)
        at = np.array(list(works.values()))
        ax.plot(at, np.minimum(speed, bandwidth * at) / 1e12, "o", color=colour, ms=5)
        ax.text(9e3, speed / 1e12 * 1.15, name, color=colour, ha="right", va="bottom")
    for name, at in works.items():
        ax.axvline(at, color="#aaaaaa", lw=1, ls=":")
        low = at > 10  # there the roofs are high up
        ax.text(at * 0.92, 0.033 if low else 2500, name, rotation=90, ha="right", color="#444444",
                va="bottom" if low else "top", fontsize=10.5)  # fmt: skip
    ax.set(xlabel="FLOPs a byte", ylabel="TFLOPs a second", ylim=(0.025, 4000), xlim=(0.1, 1e4))


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


def show_memory(ax: plt.Axes, batches: Sequence[int], parts: dict[str, tuple], rooms: dict) -> None:
    """Stacked bars of memory for each number of texts, with lines for what GPUs have.

    parts: name → (bytes for each of `batches`, colour); rooms: name → bytes.
    """
    x, bottom = np.array(batches), np.zeros(len(batches))
    half = 0.35 * np.diff(x).min()  # of a bar's width
    for name, (sizes, colour) in parts.items():
        sizes = np.array(sizes) / 1e9
        ax.bar(x, sizes, bottom=bottom, color=colour, width=2 * half)
        ax.text(x[-1] + 1.4 * half, (bottom + sizes / 2)[-1], name, color=colour, va="center",
                bbox=ON_WHITE)  # fmt: skip
        bottom += sizes
    for name, room in rooms.items():
        ax.axhline(room / 1e9, color="#777777", ls="--", lw=1.2)
        ax.text(x[0] - half, room / 1e9 + 1.2, name, color="#555555", fontsize=10.5, va="bottom",
                bbox=ON_WHITE)  # fmt: skip
    top = 1.18 * max(bottom.max(), max(rooms.values()) / 1e9)
    ax.set(xlabel="texts at a time", ylabel="GB", xticks=x, ylim=(0, top),
           xlim=(x[0] - 2 * half, 1.36 * x[-1]))  # fmt: skip
    ax.grid(axis="x", visible=False)


def show_three_runs(runs: dict[str, Sequence[float]], levels: dict[str, float]) -> Figure:
    """The losses of three runs: near the levels on a linear axis, and whole on a log axis.

    runs: learning rate → losses, the first one healthy, the second one leaping, the third one lost
    within a few steps; levels: name → nats a token.
    """
    fig, (near, whole) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=[1.4, 1])
    low, high = min(levels.values()), max(levels.values())
    end, room = max(map(len, runs.values())), high - low
    near.set(xlim=(0, end + 1), ylim=(low - 1.1 * room, high + 1.5 * room))
    for (rate, losses), colour in zip(runs.items(), (BLUE, GREEN, PURPLE), strict=True):
        steps = range(1, len(losses) + 1)
        for ax in (near, whole):
            ax.plot(steps, losses, color=colour, lw=1.6)
        top = int(np.argmax(losses)) + 1, max(losses)
        if top[1] > 2 * high:
            whole.plot(*top, "o", color=colour, ms=5)
            whole.annotate(f"{rate:g}: up to {top[1]:,.0f}", top, (8, -2), color=colour,
                           textcoords="offset points", va="center")  # fmt: skip
    healthy, leaping, lost = runs
    near.text(0.98, 0.9, f"{leaping:g}: leaps and comes back", color=GREEN, ha="right",
              va="center", bbox=ON_WHITE, transform=near.transAxes)  # fmt: skip
    for rate, word, step, x, colour in (
        (healthy, "healthy", 21, 26, BLUE), (lost, "leaves at step 2", 1, 3, PURPLE),
    ):  # fmt: skip
        near.annotate(f"{rate:g}: {word}", (step, runs[rate][step - 1] - 0.03),
                      (x, low - 0.55 * room), color=colour, va="center", bbox=ON_WHITE,
                      arrowprops={"arrowstyle": "-", "color": "#888888", "lw": 0.8,
                                  "relpos": (0, 1), "shrinkA": 0, "shrinkB": 0})  # fmt: skip
    for name, level in levels.items():
        near.axhline(level, color=ORANGE, ls="--", lw=1.2)
        near.text(end + 1.5, level, name, color=ORANGE, va="center")
    whole.set_yscale("log")
    whole.set(xlim=(0, end + 1), ylim=(1.5, 6 * max(max(v) for v in runs.values())))
    whole.text(end, 0.7 * low, f"{healthy:g}", color=BLUE, ha="right", va="top")
    for ax in (near, whole):
        ax.set_xlabel("step")
    near.set_ylabel("loss (nats a token)")
    whole.minorticks_off()
    return fig


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
    ax.set_xticks(Ks, Ks)
    ax.minorticks_off()
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
    docs: dict[int, Sequence], real: float,
) -> Figure:
    """Two panels: excess bits a word on the synthetic language, a judge's bits on documentation.

    excess: name → (value, error) for each K; star: of one word a call, at 32 calls; docs: calls →
    (value, error, …), the last of them one token a call; real: the judge on real text.
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
    left.set(ylabel="bits a word above true text", ylim=(0.04, None))
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
        ax.set_xticks(ticks, ticks)
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

    The larger the change the darker the cell; changes above nine tenths of all have the same ink.
    """
    fig, axes = plt.subplots(1, len(tables), figsize=(4.6 * len(tables), 3.9), sharey=True)
    changes = np.stack([np.asarray(table) for table in tables.values()])
    shade = PowerNorm(0.6, vmin=0, vmax=np.quantile(changes[changes > 0], 0.9), clip=True)
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        ax.imshow(np.asarray(table), cmap=INK, norm=shade)
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
        label = f"{a:.2f} + {b:.2f}" if b >= 0.005 else f"{a:.2f}"
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
    ax.text(limit + 0.04, -0.35, "a uniform guess", color="#555555", va="center")
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlim=(0, 1.35 * limit), ylim=(len(rows) - 0.5, -0.6), xlabel="nats a sentence")
    ax.grid(axis="y", visible=False)
    ax.tick_params(left=False)
    return fig


def show_fillings(
    rows: Sequence[Sequence[str]], free: Sequence[bool], labels: Sequence[str], title: str
) -> Figure:
    """Draw rows of tokens in aligned columns, those of the gaps in blue on tinted paper.

    rows: as many tokens in each; free: which of them were gaps; labels: one for each row.
    """
    rows = [[token.replace("\n", "↵") for token in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(free))]
    fig, ax = plt.subplots(figsize=(10, 0.55 + 0.28 * len(rows)))
    style = {"family": "monospace", "va": "center", "fontsize": 1060 / sum(widths)}
    for i, width in enumerate(widths):
        x = sum(widths[:i])
        if free[i]:
            ax.barh(range(len(rows)), width - 0.1, left=x, height=0.9, color="#dbe7f2")
        for y, row in enumerate(rows):
            ax.text(x, y, row[i], color=BLUE if free[i] else "#333333", **style)
    ax.set(xlim=(0, sum(widths)), ylim=(len(rows) - 0.4, -0.6), xticks=[], title=title)
    ax.set_yticks(range(len(rows)), labels)
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
    fig, axes = plt.subplots(1, len(panels), figsize=(10, 3.0))
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
        ax.set(xlim=(-0.7, 2.4), ylim=(-0.35, 1.4))
        ax.set_title(title, fontsize=11.5, loc="center")
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

    The line at the left is a running mean of 15.
    levels: name → a height to mark; the last of them is marked at the right, too.
    """
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
    right.plot(steps[since:], losses[since:], ".", color=BLUE, ms=4, mew=0, alpha=0.8)
    right.axhline(lowest, color=ORANGE, ls="--", lw=1.6)
    right.text(0.99, 0.97, f"dashed: {name}", color=ORANGE, ha="right", va="top",
               transform=right.transAxes)  # fmt: skip
    right.set(xlabel="step", xlim=(since, len(losses)))
    right.margins(y=0.15)


def show_scatter(ax: plt.Axes, rows: dict[str, Sequence[float]]) -> None:
    """A row of dots for each name, one a value, with a line at 0; the names stand at the left."""
    for i, (values, colour) in enumerate(zip(rows.values(), COLOURS, strict=False)):
        values = np.asarray(values)
        lift = 0.16 * np.sin(7.3 * np.arange(len(values)))  # so that dots do not hide each other
        ax.plot(values, i + lift, "o", color=colour, ms=5, mew=0, alpha=0.65)
    ax.axvline(0, color="#444444", lw=1)
    ax.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.6, -0.4))
    ax.grid(axis="y", visible=False)


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


def show_raw_and_averaged(ax: plt.Axes, gaps: dict[int, Sequence[float]]) -> None:
    """The gap of raw and of averaged weights after some steps: step → (raw, averaged)."""
    steps = list(gaps)
    raw, averaged = zip(*gaps.values(), strict=True)
    ax.plot(steps, raw, "o-", color=ORANGE)
    ax.plot(steps, averaged, "o-", color=BLUE)
    ax.annotate("raw weights", (steps[0], raw[0]), (9, 4), textcoords="offset points",
                color=ORANGE)  # fmt: skip
    ax.annotate("averaged weights", (steps[1], averaged[1]), (-4, -9), textcoords="offset points",
                color=BLUE, ha="right", va="top")  # fmt: skip
    ax.set(ylim=(0, 1.12 * max(raw)), xlabel="step", ylabel="gap to the truth (bits a word)")
