"""Draws figures/film.gif: text that a network of this repository writes, step by step.

    make figures                 # this, and the picture of chapter 01
    python figures/make.py       # this alone: some ten seconds

What is shown is the sample of one seed as it comes, not the best of many.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

import sedd_mini
from sedd_mini.model import TextModel

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE.parent / "chapters" / "checkpoints" / "docs-absorb"
PROMPT, SUFFIX = "Return the", " if the file does not exist, raise an OSError."  # as in README
LENGTH, STEPS, SEED = 40, 128, 0
WIDTH = 66  # letters in a line
INK, GIVEN, FRESH, HIDDEN, PAPER = "#222222", "#7a7a7a", "#0057a8", "#d9dde2", "white"


def history(
    model: TextModel, prompt: str, length: int, steps: int, seed: int, suffix: str = ""
) -> torch.Tensor:
    """(frames, length) int64: the tokens before the first step and after each one"""
    frames = []
    keep = lambda step, t, x: frames.append(x[0].cpu())  # noqa: E731
    model.write(1, length, steps, prompt, suffix, seed=seed, callback=keep)
    return torch.stack(frames)


def layout(pieces: list[str], width: int) -> list[tuple[int, int, str]]:
    """(line, column, text) of each piece of a text, in lines of `width` letters broken at spaces

    A piece that does not fit opens a new line, with the pieces before it that belong to its word.
    """
    places, line, column, word = [], 0, 0, 0  # word: the piece at which the current word begins
    for i, piece in enumerate(pieces):
        piece = piece.replace("\n", " ")
        if piece.startswith(" ") or (i and places[-1][2].endswith(" ")):
            word = i
        places.append((line, column, piece))
        column += len(piece)
        if column > width and places[word][1] > 0:
            line, column = line + 1, 0
            for j in range(word, i + 1):
                text = places[j][2].lstrip() if j == word else places[j][2]
                places[j] = line, column, text
                column += len(text)
    return places


def draw(places, visible, fresh, given, clock: str) -> Image.Image:
    """One frame: words that are there, those that came with this step in blue, the rest as bars"""
    lines = places[-1][0] + 1
    fig = plt.figure(figsize=(8, 0.45 + 0.3 * lines), dpi=110, facecolor=PAPER)
    ax = fig.add_axes((0.02, 0.02, 0.96, 0.96))
    ax.set(xlim=(0, WIDTH + 1), ylim=(lines + 0.4, -1.1))
    ax.axis("off")
    for i, (line, column, text) in enumerate(places):
        if visible[i]:
            colour = GIVEN if given[i] else FRESH if fresh[i] else INK
            for k, letter in enumerate(text):  # one by one: the columns are exact in any font
                ax.text(column + k + 0.5, line, letter, color=colour, ha="center", va="center",
                        family="DejaVu Sans Mono", size=11.5)  # fmt: skip
        elif text.strip():
            left = column + (len(text) - len(text.lstrip())) + 0.1
            bar = max(column + len(text) - left - 0.1, 0.3)
            ax.add_patch(plt.Rectangle((left, line - 0.3), bar, 0.6, color=HIDDEN, lw=0))
    ax.text(0.5, -0.85, clock, color=GIVEN, ha="left", va="center", size=9.5)
    fig.canvas.draw()
    image = Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy())
    plt.close(fig)
    return image


def film(
    model: TextModel, prompt=PROMPT, length=LENGTH, steps=STEPS, seed=SEED, suffix=SUFFIX
) -> list:
    """The frames: the start, each step that changes something, and the whole text"""
    frames = history(model, prompt, length, steps, seed, suffix)
    mask = model.graph.mask_id
    # pieces from the whole text, so that they keep their places while words are hidden
    ends = [len(model.tokenizer.decode(frames[-1, :i].tolist())) for i in range(length + 1)]
    text = model.tokenizer.decode(frames[-1].tolist())
    places = layout([text[a:b] for a, b in pairwise(ends)], WIDTH)
    given, images, before = frames[0] != mask, [], frames[0] != mask
    for step, x in enumerate(frames):
        visible = x != mask
        if step == 0 or (visible != before).any():
            hidden = int((~visible).sum())
            clock = f"step {min(step, steps)} of {steps}: {hidden} of {length} tokens are hidden"
            images.append(draw(places, visible, visible & ~before, given, clock))
        before = visible
    done = f"written by chapters/checkpoints/docs-absorb, seed {seed}"
    return [*images, draw(places, visible, visible & ~visible, given, done)]


def save(images: list[Image.Image], path: Path) -> None:
    """A GIF that begins again after four seconds"""
    inks = [matplotlib.colors.to_rgb(ink) for ink in (INK, GIVEN, FRESH, HIDDEN)]
    shades = [1 - k / 6 * (1 - c) for ink in inks for k in range(1, 7) for c in ink]  # to white
    palette = Image.new("P", (1, 1))
    palette.putpalette([255] * 3 + [round(255 * shade) for shade in shades])
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    milliseconds = [900, *[140] * (len(frames) - 2), 4000]
    new = path.with_name(path.name + ".tmp")
    frames[0].save(new, "GIF", save_all=True, append_images=frames[1:], loop=0,
                   duration=milliseconds, optimize=True)  # fmt: skip
    new.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "film.gif")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    save(film(sedd_mini.load(CHECKPOINT, device="cpu")), out)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")
