"""The full-size run: its log, speed, memory, and learning rates."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE, GREEN, ORANGE, PURPLE

ON_WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}  # a label over dots or lines


def show_two_runs(short: dict, long: dict, checks: Sequence[tuple], levels: dict) -> Figure:
    """The losses of two runs on one scale, and the levels to compare them with.

    short, long: step → loss in nats a token, means of a few steps each; checks: (step, bound, two
    errors) of the long run; levels: name → nats a token, named at the right.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.9), sharey=True)
    steps, values = np.array(list(short)), np.array(list(short.values()))
    left.plot(steps, values, ".", color="#b9c1cc", ms=5)
    wide = 15
    smooth = np.convolve(values, np.ones(wide) / wide, "valid")
    left.plot(steps[wide // 2 : wide // 2 + len(smooth)], smooth, color=BLUE)
    left.text(0.3, 0.62, "mean of 15 dots", color=BLUE, transform=left.transAxes)
    left.text(0.2, 0.93, "dot: mean of two steps", color="#666666", transform=left.transAxes)
    right.plot(list(long), list(long.values()), color=BLUE)
    right.errorbar(*zip(*checks, strict=True), fmt="o", capsize=3, color=GREEN, zorder=3)
    for step, bound, _ in (min(checks, key=lambda check: check[1]), checks[-1]):
        right.text(step, bound + 0.25, f"{bound:.2f}", color=GREEN, ha="center", va="bottom")
    end, last = list(long.items())[-1]
    named = levels | {"held-out text": bound, "training loss": last}
    colours = [ORANGE] * len(levels) + [GREEN, BLUE]
    for (name, level), colour in zip(named.items(), colours, strict=True):
        right.text(1.1 * end, level, name, color=colour, va="center", clip_on=False)
    for ax in (left, right):
        for level in levels.values():
            ax.axhline(level, color=ORANGE, ls="--", lw=1.3)
    left.set(xlabel="step of 512 tokens", ylabel="loss (nats a token)", xlim=(0, steps[-1]))
    right.set(xlabel="step of 65 536 tokens", xlim=(0, 1.06 * end), ylim=(3, 12.4))
    left.set_title("a processor core, 300 steps")
    right.set_title("an H100, six minutes")
    return fig


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
    last = max(speed / bandwidth for speed, bandwidth, _ in roofs.values())
    for name, at in works.items():
        ax.axvline(at, color="#aaaaaa", lw=1, ls=":")
        low, right = at > 10, at > last  # from 10 on the roofs are high up
        ax.text(at * (1.05 if right else 0.92), 0.033 if low else 2500, name, rotation=90,
                color="#444444", ha="left" if right else "right", va="bottom" if low else "top",
                fontsize=10.5)  # fmt: skip
    ax.set(xlabel="FLOPs a byte", ylabel="TFLOPs a second", ylim=(0.025, 4000), xlim=(0.1, 1e4))


def show_memory(ax: plt.Axes, batches: Sequence[int], parts: dict[str, tuple], rooms: dict,
                peaks: dict) -> None:  # fmt: skip
    """Stacked bars of memory for each number of texts, with lines for what GPUs have.

    parts: name → (bytes for each of `batches`, colour); rooms: name → bytes; peaks: number of texts
    → bytes that were measured.
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
    for num, peak in peaks.items():
        ax.plot(num, peak / 1e9, "o", color="#222222", mfc="white", mew=1.8, ms=8)
        ax.annotate("measured", (num, peak / 1e9), (-26, -4), textcoords="offset points",
                    ha="right", color="#222222", bbox=ON_WHITE)  # fmt: skip
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
