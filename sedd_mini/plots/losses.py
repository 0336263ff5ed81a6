"""The shape of a loss of one ratio."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np

from sedd_mini.plots.style import GREEN, GREY, ORANGE, PURPLE


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
    level = 2 - 2 * math.log(2)  # r²/2 = r (1 − log 2)
    axes[1].axvline(level, color="#666666", lw=1, ls=":")
    axes[1].text(1.15 * level, 2e-5, f"r = {level:.2f}", color="#666666")
    axes[1].annotate("least squares", (2.5, 4e2), color=GREEN, ha="right")
    axes[1].annotate("score entropy", (9, 0.2), color=PURPLE)
    axes[1].set(xlabel="true ratio r", ylabel="loss of the estimate 2r")
    axes[1].set_title("Small ratios count for more than with least squares")
