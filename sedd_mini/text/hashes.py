"""Hashes of texts: what a corpus is known by, and what decides where a document goes.

Two texts that differ in their line ends or in the white space around them are copies: their
`normal_form` is one, so they get one `split_hash` and fall on one side of a split.
"""

import hashlib
from collections.abc import Iterable


def corpus_hash(documents: Iterable[str]) -> str:
    """SHA-256 of the documents in their order; recorded with whatever was measured on them."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(framed(document))
    return digest.hexdigest()


def framed(document: str) -> bytes:
    """The text as bytes, with their number in front, so that documents that follow one another tell
    where each ends."""
    content = document.encode("utf-8", "surrogatepass")
    return len(content).to_bytes(8, "big") + content


def normal_form(document: str) -> str:
    """The text with "\n" as its line ends and no white space around it; nothing else is changed."""
    return unix_lines(document).strip()


def unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def split_hash(document: str, seed: int) -> float:
    """A number in [0, 1) that depends on the normal form of the text and on the seed alone."""
    digest = corpus_hash([str(seed), normal_form(document)])
    return int(digest[:13], 16) / 16**13
