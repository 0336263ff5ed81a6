"""Handwritten digits: 1 797 pictures of 8 × 8 pixels in 17 levels of ink, frozen in the package.

They are those of scikit-learn's `load_digits`, the test set of UCI's "Optical Recognition of
Handwritten Digits" (Alpaydin and Kaynak 1998). Where they come from, and their licences, stands
beside the file. A picture is no text, but to a Trainer it is the same: a row of ids.

    digits_corpus()             rows of 64 pixels, ids 0 … 16, row of the picture after row
    digits_corpus(labels=True)  a label word before them, ids 17 … 26: two kinds of data, one
                                vocabulary of 27
"""

import hashlib
import lzma
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from sedd_mini.checks import whole_number
from sedd_mini.text.corpus import Corpus

FROZEN = Path(__file__).parent / "frozen" / "digits.xz"
HASH = "d8121ca7764eccfaef1df6bc4589c6527c58fcbab0cb1b079e79f97f8cb8219a"  # of its bytes
SIDE, LEVELS, LABELS = 8, 17, 10
INK = " .:-=+*#%@"  # of a picture as text, little to much


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pictures (1797, 64) of levels 0 … 16 and what they show (1797,), 0 … 9; uint8, read-only.

    Raises ValueError if the file is damaged or holds other pictures than it should.
    """
    try:
        content = lzma.decompress(FROZEN.read_bytes())
    except (lzma.LZMAError, EOFError):
        content = b""
    if hashlib.sha256(content).hexdigest() != HASH:
        raise ValueError(f"{FROZEN} is damaged: install the package, or check it out, once more")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, SIDE * SIDE + 1)
    return rows[:, 1:], rows[:, 0]


def split_digits() -> tuple[np.ndarray, np.ndarray]:
    """(training, validation) rows of label and pixels, (1498, 65) and (299, 65).

    Every sixth picture is for validation. All ten digits are in both; writers are not kept apart.
    """
    pictures, labels = digits()
    rows = np.column_stack([labels, pictures])
    held_out = np.arange(len(rows)) % 6 == 5
    return rows[~held_out], rows[held_out]


def digits_corpus(labels: bool = False) -> Corpus:
    """Training and validation pictures as rows of ids: 64 pixels, or a label word and 64 pixels."""
    parts = [part.astype(np.int64) for part in split_digits()]
    for part in parts:
        part[:, 0] += LEVELS
    if labels:
        return Corpus.from_arrays(*parts, LEVELS + LABELS, as_picture)
    return Corpus.from_arrays(*(part[:, 1:] for part in parts), LEVELS, as_picture)


def label_word(digit: int) -> int:
    """The id of a label word; ValueError for what is no digit."""
    return LEVELS + whole_number("a label", digit, 0, LABELS - 1)


def as_picture(ids: Sequence[int]) -> str:
    """Ids as lines of eight characters, more ink for higher levels; a label word as its digit, and
    anything else (MASK) as "?"."""
    text, ids = "", list(ids)
    if len(ids) % SIDE == 1:
        first, ids = ids[0] - LEVELS, ids[1:]
        text = f"{first if 0 <= first < LABELS else '?'}\n"
    marks = [INK[i * len(INK) // LEVELS] if 0 <= i < LEVELS else "?" for i in ids]
    lines = ["".join(marks[k : k + SIDE]) for k in range(0, len(marks), SIDE)]
    return text + "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Packs scikit-learn's digits.csv.gz, a picture a line with its label last."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2 or arguments[0].startswith("-"):
        sys.exit("usage: python -m sedd_mini.text.digits DIGITS.csv.gz OUT.xz")
    table = np.loadtxt(arguments[0], delimiter=",", ndmin=2).astype(np.uint8)
    content = np.column_stack([table[:, -1], table[:, :-1]]).tobytes()
    Path(arguments[1]).write_bytes(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))
    found = hashlib.sha256(content).hexdigest()
    same = "the same as" if found == HASH else "not"
    print(f"{len(table)} pictures of hash {found}: {same} those of the package")


if __name__ == "__main__":
    main()
