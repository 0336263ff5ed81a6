"""Text that is there twice: cutting so that copies are cut alike, finding them, counting them.

    cut(text, size)             → pieces; their ends depend on the text around them, not on where
                                  the text began, so that a passage that comes again is cut alike
    copies(documents)           → groups of documents that are copies
    related(pieces)             → groups of pieces that are copies or share a long passage
    seen_share(train, valid)    → the share of validation 13-grams that training holds, too

A split keeps groups on one side; the last number says how much is on both sides all the same.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from zlib import crc32

import numpy as np

from sedd_mini.checks import whole_number
from sedd_mini.text.hashes import normal_form, unix_lines

# where a text may be cut, the best first: after blank lines, lines, words
ENDS = [re.compile(end) for end in (r"\n\n+", r"\n", r"\s")]
ENDS_WITH_RETURNS = [re.compile(end) for end in (r"(?:\r?\n){2,}|\r{2,}", r"\r\n?|\n", r"\s")]
NEAR = 64  # characters on each side of a place that decide whether a text is cut there
PASSAGE = 128  # characters; pieces with a passage in common that is much longer are related
KEPT = 8  # one window of PASSAGE characters in so many is looked at
MOST = 2**20  # validation n-grams that are looked for
CHUNK = 2**18  # tokens that are hashed at a time; so many stay in a processor's cache
BASE, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)  # odd, else arbitrary


def cut(text: str, size: int) -> Iterator[str]:
    """Pieces of `size`/2 to 1.5 `size` characters that together are the text.

    Each ends after a blank line if there is one in that range, else after a line, else after a
    word: of several such places at the one whose surroundings have the smallest hash. Two copies of
    a text so get the same pieces, but for a few at their ends, wherever they begin.
    """
    start, ends = 0, ENDS_WITH_RETURNS if "\r" in text else ENDS  # the former are slower
    while len(text) - start > 1.5 * size:
        end = start + size
        for pattern in ends:
            places = [m.end() for m in pattern.finditer(text, start + size // 2, end + size // 2)]
            if places:
                end = min(places, key=lambda place: surroundings(text, place))
                break
        yield text[start:end]
        start = end
    yield text[start:]


def surroundings(text: str, place: int) -> int:
    """A hash of the `NEAR` characters before and after a place, whatever their line ends."""
    before = unix_lines(text[max(place - 2 * NEAR, 0) : place])[-NEAR:]
    after = unix_lines(text[place : place + 2 * NEAR])[:NEAR]
    return crc32((before + after).encode("utf-8", "surrogatepass"))


def copies(documents: list[str]) -> list[list[int]]:
    """Groups of indices: documents of one normal form together."""
    groups = defaultdict(list)
    for i, document in enumerate(documents):
        groups[normal_form(document)].append(i)
    return list(groups.values())


def related(pieces: list[str]) -> list[list[int]]:
    """Groups of indices: pieces are together if they are copies or share a passage of more than
    about 150 characters, or each does with a third. What repeats itself within one piece, such as
    a ruled line, is no passage."""
    sets = copies(pieces)
    parent = list(range(len(sets)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    for a, b in shared_passages([normal_form(pieces[members[0]]) for members in sets]):
        parent[root(a)] = root(b)
    groups = defaultdict(list)
    for k, members in enumerate(sets):
        groups[root(k)] += members
    return list(groups.values())


def shared_passages(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that hold one passage; of many texts with it, each with the next."""
    hashes, owners = [], []
    for i, text in enumerate(texts):
        characters = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        found = window_hashes(characters, PASSAGE)
        found, times = np.unique(found[found % np.uint64(KEPT) == 0], return_counts=True)
        hashes.append(found[times == 1])
        owners.append(np.full(len(hashes[-1]), i))
    hashes, owners = np.concatenate(hashes), np.concatenate(owners)
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])
    pairs = np.unique(np.stack([owners[same], owners[same + 1]], axis=1), axis=0)
    yield from map(tuple, pairs.tolist())


def window_hashes(values: np.ndarray, n: int) -> np.ndarray:
    """64-bit hashes of all windows of n successive integers: (L,) → (max(L − n + 1, 0),) uint64.

    A window's hash is Σ_k f(x_k) B^(n−1−k) modulo 2^64, mixed: of two halves one gets the whole, so
    that about 2 log2(n) sums and products of arrays suffice.
    """
    many = max(len(values) - n + 1, 0)
    half, size = mixed(values.astype(np.uint64) + np.uint64(1)), 1  # windows of `size`
    whole, length = np.zeros(many, dtype=np.uint64), 0  # windows of `length`, all of n in the end
    while many and length < n:
        power = np.uint64(pow(int(BASE), size, 2**64))
        if n & size:
            whole *= power
            whole += half[length : length + many]
            length += size
        half = half[:-size] * power + half[size:]
        size *= 2
    return mixed(whole)


def mixed(values: np.ndarray) -> np.ndarray:
    values = values * MIX
    values ^= values >> np.uint64(32)
    values *= BASE
    values ^= values >> np.uint64(29)
    return values


def seen_share(train, valid, n: int = 13, most: int = MOST) -> float | None:
    """The share of the n-grams of tokens of `valid` that occur anywhere in `train`: 0 … 1.

    Both are `Blocks`, and count as streams, also over the ends of documents and blocks. Of more
    than `most` validation n-grams, so many are looked for, evenly spaced in the stream; training
    is read whole, in chunks, so that memory stays the same for any size. None
    where validation has fewer than n tokens. The n-grams are compared by 64-bit hashes.
    """
    n, most = whole_number("n", n, 1), whole_number("most", most, 1)
    step = -(-max(valid.offsets[-1] - n + 1, 1) // most)
    wanted, position = [], 0  # every step-th window of the stream
    for hashes in stream_hashes(valid, n):
        wanted.append(hashes[-position % step :: step])
        position += len(hashes)
    wanted, times = np.unique(np.concatenate(wanted), return_counts=True)
    if not len(wanted):
        return None
    found = np.zeros(len(wanted), dtype=bool)
    places, shift = np.zeros(2**24, dtype=bool), np.uint64(40)  # most are sorted out by 24 bits
    places[wanted >> shift] = True
    for hashes in stream_hashes(train, n):
        hashes = hashes[places[hashes >> shift]]
        at = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
        found[at[wanted[at] == hashes]] = True
    return float(times[found].sum() / times.sum())


def stream_hashes(blocks, n: int) -> Iterator[np.ndarray]:
    """The window hashes of a stream that lies in several arrays, a chunk at a time."""
    rest = np.empty(0, dtype=np.int64)
    for array in blocks.arrays:
        for start in range(0, len(array), CHUNK):
            tokens = np.concatenate([rest, array[start : start + CHUNK]])
            yield window_hashes(tokens, n)
            rest = tokens[len(tokens) - min(n - 1, len(tokens)) :]
