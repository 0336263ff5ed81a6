"""Chains of states: which jump is possible, at what rate, and what it tells."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, GREY, INK, ORANGE, PURPLE


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
