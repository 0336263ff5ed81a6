"""The colours and settings that all figures share, and how labels are kept apart.

The colours keep apart for every common kind of colour blindness, and in grey.
"""

import itertools
import sys
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import NullLocator

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


def plain_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Ticks at these values of a log axis, written as plain numbers, and none between them."""
    low, high = axis.get_view_interval()
    ticks = [tick for tick in ticks if low <= tick <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def spread_labels(values: Sequence[float], least: float) -> list[float]:
    """Heights for labels at these values, moved apart where closer than `least`, order kept."""
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [float(value) for value in values]
    for _ in range(200):
        for i, j in itertools.pairwise(order):
            if (lack := least - (places[j] - places[i])) > 1e-9:
                places[i], places[j] = places[i] - lack / 2, places[j] + lack / 2
    return places
