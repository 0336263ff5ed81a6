"""Documents to blocks of tokens: their split, packing, and the order of batches.

    split_documents(documents)      → training and validation documents, without leakage
    pack(documents, tokenizer, L)   → `Blocks` of L tokens, end-of-text between documents
    BlockLoader(blocks, B, seed)    → an endless, seeded, resumable stream of batches
"""

import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sedd_mini.checks import share, whole_number
from sedd_mini.text.copies import copies, cut, related
from sedd_mini.text.hashes import normal_form, split_hash
from sedd_mini.text.tokenizers import Tokenizer, encode_all

FEW_DOCUMENTS = 20  # fewer cannot be shared out in a wanted proportion, so they are cut first

# ------------------------------------------------------------------------------------- split


def split_documents(
    documents: Iterable[str], valid_fraction: float = 0.05, seed: int = 0
) -> tuple[list[str], list[str]]:
    """(training, validation) documents: every document whole in one of them, copies together.

    Documents go to validation in the order of a hash of their text, as long as they fit into
    `valid_fraction` of all characters: the same for every order of the documents, and near the
    wanted share (a warning says where not). Copies are texts that differ in line ends and in the
    white space around them at most. A corpus of fewer than 20 documents, such as one long file, or
    with one longer than the wanted share is first cut into about a hundred pieces, each a document
    from then on; pieces that share a long passage stay together, too.

    Not covered: uncut documents that are nearly copies or quote each other, and a passage that was
    changed in small ways; `copies.seen_share` tells how much of that there is. Raises ValueError
    where no split is possible.
    """
    valid_fraction = share("valid_fraction", valid_fraction, zero=True)
    documents = list(documents)
    total = sum(map(len, documents))
    if valid_fraction == 0:
        return documents, []
    longest = max(map(len, documents), default=0)
    if len(documents) < FEW_DOCUMENTS or longest > valid_fraction * total:
        size = max(total // 100, 200)
        documents = [piece for document in documents for piece in cut(document, size)]
        groups = related(documents)
    else:
        groups = copies(documents)
    if len(groups) < 2:
        raise ValueError(
            f"a text of {total} characters is too short to be split for validation, or repeats "
            "itself from end to end: give more text"
        )
    sizes = [sum(len(documents[i]) for i in group) for group in groups]
    hashes = [hash_of([documents[i] for i in group], seed) for group in groups]
    room, chosen = valid_fraction * total, []
    for k in sorted(range(len(groups)), key=hashes.__getitem__):
        if sizes[k] <= room:
            chosen.append(k)
            room -= sizes[k]
    chosen = chosen or [min(range(len(groups)), key=sizes.__getitem__)]
    held_out = {i for k in chosen for i in groups[k]}
    warn_of_share(valid_fraction, sum(sizes[k] for k in chosen) / total)
    parts = ([], [])
    for i, document in enumerate(documents):
        parts[i in held_out].append(document)
    return parts


def hash_of(group: list[str], seed: int) -> float:
    """The `split_hash` of a document and its copies; of different texts one for them all."""
    return split_hash("\n\n".join(sorted(set(map(normal_form, group)))), seed)


def warn_of_share(wanted: float, found: float) -> None:
    """Says so if validation has less than half or more than twice the share that was asked for."""
    if not wanted / 2 <= found <= 2 * wanted:
        warnings.warn(
            f"valid_fraction={wanted:g} was asked for, but {found:.2g} of the text came to be for "
            "validation, because documents stay whole and copies together",
            stacklevel=3,
        )


# ------------------------------------------------------------------------------------- blocks


class Blocks:
    """A stream of tokens cut into blocks of L: block i holds tokens iL … iL + L − 1.

    `tokens` is an integer array of one dimension (also a memory map, of which only what is asked
    for is read), or a list of them that follow one another. `blocks[i]` is an int64 tensor (L,);
    `blocks[i:j]` and `blocks[list of indices]` are (B, L). At most L − 1 tokens at the very end
    are left over. Raises ValueError if there is not a single block; `part` names it then.
    """

    def __init__(self, tokens: np.ndarray | Sequence[np.ndarray], length: int, part: str = ""):
        self.arrays = [tokens] if isinstance(tokens, np.ndarray) else list(tokens)
        if any(a.ndim != 1 or not np.issubdtype(a.dtype, np.integer) for a in self.arrays):
            raise ValueError("tokens must be one-dimensional arrays of integers")
        self.offsets = np.cumsum([0, *map(len, self.arrays)]).tolist()
        self.length = whole_number("length", length, 1)
        if len(self) < 1:
            larger = ", or a larger share for it (valid_fraction=…; prepare --valid-fraction)"
            raise ValueError(
                f"{self.offsets[-1]} tokens{part and f' of {part} text'} do not fill one block of "
                f"length {length}: give more text, or shorter blocks (--length, length=…)"
                f"{larger * (part == 'validation')}"
            )

    def __len__(self) -> int:
        return self.offsets[-1] // self.length

    @property
    def num_tokens(self) -> int:
        """Tokens in whole blocks."""
        return len(self) * self.length

    def __getitem__(self, index) -> Tensor:
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        elif isinstance(index, int | np.integer):
            return self._block(int(index))
        blocks = [self._block(int(i)) for i in index]
        return torch.stack(blocks) if blocks else torch.empty(0, self.length, dtype=torch.int64)

    def _block(self, i: int) -> Tensor:
        if not -len(self) <= i < len(self):
            raise IndexError(f"block {i} of {len(self)}")
        start = i % len(self) * self.length
        stop, part = start + self.length, bisect_right(self.offsets, start) - 1
        pieces = []
        while start < stop:  # a block may reach over the end of one array into the next
            offset = self.offsets[part]
            pieces.append(self.arrays[part][start - offset : stop - offset])
            start, part = start + len(pieces[-1]), part + 1
        return torch.from_numpy(np.concatenate(pieces).astype(np.int64))


def pack(documents: Iterable[str], tokenizer: Tokenizer, length: int, part: str = "") -> Blocks:
    """Encodes documents and packs them into blocks: one stream, the end-of-text token between
    documents, nothing dropped but the incomplete block at the very end."""
    pieces = []
    for _, ids in encode_documents(documents, tokenizer):
        if pieces and tokenizer.eot_id is not None:
            pieces.append(np.array([tokenizer.eot_id], dtype=ids.dtype))
        pieces.append(ids)
    tokens = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int32)
    return Blocks(tokens, length, part)


def encode_documents(
    documents: Iterable[str], tokenizer: Tokenizer, batch_characters: int = 2_000_000
) -> Iterator[tuple[str, np.ndarray]]:
    """(document, its ids) one by one; encoded in batches, so that all cores have work. The ids are
    uint16 where the vocabulary allows, else int32."""
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    for batch in batches(documents, batch_characters):
        for document, ids in zip(batch, encode_all(tokenizer, batch), strict=True):
            yield document, np.array(ids, dtype=dtype)


def batches(documents: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Lists of successive documents, each ended by the one with which it has `characters`."""
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class BlockLoader:
    """An endless stream of batches (B, L) int64; every epoch is a new permutation of all blocks.

    Sample n of the stream is block perm_e[n mod M] of M, with e = n // M the epoch and perm_e drawn
    from (seed, e) alone. A batch is the next `batch_size` samples, and may reach over the end of an
    epoch. So the whole position is one number, `position`, and the order does not depend on the
    number of processes: each takes its contiguous share of batch_size / world_size rows, whose
    numbers n are in `sample_ids` (for keying the noise of a sample to n).
    """

    def __init__(
        self, blocks: Blocks, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ):
        batch_size = whole_number("batch_size", batch_size, 1)
        world_size = whole_number("world_size", world_size, 1)
        seed = whole_number("seed", seed, 0)
        if batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size counts all processes, so it must be a positive multiple of world_size,"
                f" and rank below it; got {batch_size}, {world_size} and {rank}"
            )
        self.blocks, self.batch_size, self.seed = blocks, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.position = 0  # samples that all processes together have drawn
        self.sample_ids = torch.empty(0, dtype=torch.int64)
        self._epoch, self._permutation = -1, torch.empty(0)

    def __iter__(self) -> "BlockLoader":
        return self

    def __next__(self) -> Tensor:
        share = self.batch_size // self.world_size
        start = self.position + self.rank * share
        self.sample_ids = torch.arange(start, start + share)
        self.position += self.batch_size
        return self.blocks[[self.block_of(n) for n in self.sample_ids.tolist()]]

    def block_of(self, n: int) -> int:
        """The block that is sample n of the stream."""
        epoch, place = divmod(n, len(self.blocks))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed + 1_000_003 * epoch)
            self._permutation = torch.randperm(len(self.blocks), generator=generator)
            self._epoch = epoch
        return int(self._permutation[place])

    @property
    def epoch(self) -> float:
        """Epochs done, with the fraction of the one at hand."""
        return self.position / len(self.blocks)

    def state_dict(self) -> dict:
        """The position, and what it refers to; plain numbers."""
        shape = {"num_blocks": len(self.blocks), "length": self.blocks.length}
        return {"position": self.position, "seed": self.seed, **shape}

    def load_state_dict(self, state: dict) -> None:
        """Goes on exactly where `state_dict` was taken, also with another number of processes.

        Raises ValueError when the blocks are not as many or as long as they were.
        """
        then = (state["num_blocks"], state["length"])
        now = (len(self.blocks), self.blocks.length)
        if then != now:
            raise ValueError(
                f"the saved position refers to {then[0]} blocks of {then[1]} tokens, but these are "
                f"{now[0]} of {now[1]}: resume with the same data, tokeniser and length"
            )
        self.position, self.seed, self._epoch = state["position"], state["seed"], -1
