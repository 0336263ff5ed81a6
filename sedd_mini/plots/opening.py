"""A text that appears token by token, still or as a film, and the map of the book."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from sedd_mini.plots.style import BLUE


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
        (1.2, 1): "how to train it\n02  03  07  11", (7.9, 1): "how good is it?\n04  10",
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
