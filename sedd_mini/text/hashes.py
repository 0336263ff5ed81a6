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
        content = document.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()
