"""Split, packing, and the order of batches."""

import json
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from texts import TEXTS, book, small_bpe

from sedd_mini.text.blocks import (
    BlockLoader,
    Blocks,
    encode_documents,
    pack,
    split_documents,
)
from sedd_mini.text.tokenizers import (
    PRINTABLE,
    BPETokenizer,
    CharTokenizer,
)


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return small_bpe()


@given(
    st.lists(st.text(min_size=1, max_size=40), min_size=20, max_size=60, unique=True),
    st.floats(0.05, 0.6),
    st.integers(0, 5),
)
@settings(max_examples=50)
def test_split_keeps_documents_whole_and_apart(documents, fraction, seed):
    train, valid = split_documents(documents, fraction, seed)
    assert sorted(train + valid) == sorted(documents)
    assert not set(train) & set(valid)
    assert train
    assert valid
    total, longest = sum(map(len, documents)), max(map(len, documents))
    share = sum(map(len, valid))
    assert share <= max(fraction * total, longest)
    # no document that was left out would still have fitted
    assert share + min(map(len, train)) > fraction * total
    shuffled = sorted(documents, reverse=True)
    again = split_documents(shuffled, fraction, seed)
    assert sorted(again[1]) == sorted(valid)


def test_copies_go_to_the_same_side():
    documents = [f"text {i % 30}" for i in range(90)]
    train, valid = split_documents(documents, 0.2)
    assert not set(train) & set(valid)
    assert len(train) + len(valid) == 90
    assert abs(len(valid) - 18) <= 3


def test_split_of_one_long_document():
    lines = [f"line {i}: " + "words " * (i % 9) + ("\n" if i % 5 == 0 else "") for i in range(3000)]
    text = "\n".join(lines)
    train, valid = split_documents([text], 0.1)
    assert sorted("".join(train + valid)) == sorted(text)
    share = sum(map(len, valid)) / len(text)
    assert 0.08 < share <= 0.1
    assert sum(piece.endswith("\n\n") for piece in train + valid) > 0.9 * len(train + valid)
    assert split_documents([text], 0.1) == (train, valid)
    assert split_documents([text], 0.1, seed=1) != (train, valid)
    assert split_documents([text], 0) == ([text], [])


def test_a_document_too_long_for_validation_is_cut():
    """One book among small texts: else all of the small ones would go, and not suffice."""
    documents = [book(0, 500), *(f"a note, number {i}" for i in range(24))]
    train, valid = split_documents(documents, 0.1)
    share = sum(map(len, valid)) / sum(map(len, train + valid))
    assert 0.07 < share < 0.13
    assert sorted("".join(train + valid)) == sorted("".join(documents))


def test_split_errors():
    with pytest.raises(ValueError, match=r"too short to be split for validation, or"):
        split_documents(["tiny"], 0.1)
    for bad in (1.0, -0.1, float("nan"), True, "0.1", None):
        with pytest.raises(ValueError, match=r"valid_fraction must be a number, .*got"):
            split_documents(["a", "b"], bad)




# -------------------------------------------------------------------------------------- packing


@given(st.lists(st.text(alphabet=PRINTABLE, max_size=30), max_size=12), st.integers(1, 16))
def test_packing_is_the_stream_with_end_of_text_between(documents, length):
    tokenizer = CharTokenizer()
    stream = []
    for i, document in enumerate(documents):
        stream += [tokenizer.eot_id] * (i > 0) + tokenizer.encode(document)
    if len(stream) < length:
        with pytest.raises(ValueError, match="do not fill one block"):
            pack(documents, tokenizer, length)
        return
    blocks = pack(documents, tokenizer, length)
    assert len(blocks) == len(stream) // length
    assert blocks.num_tokens > len(stream) - length
    everything = blocks[:]
    assert everything.dtype == torch.int64
    assert everything.shape == (len(blocks), length)
    assert everything.flatten().tolist() == stream[: blocks.num_tokens]
    assert blocks.arrays[0].dtype == np.uint16


def test_batched_encoding_is_the_same(bpe):
    one = [ids.tolist() for _, ids in encode_documents(TEXTS, bpe)]
    many = [ids.tolist() for _, ids in encode_documents(iter(TEXTS), bpe, batch_characters=1)]
    assert one == many == [bpe.encode(text) for text in TEXTS]


def test_a_batch_of_many_documents_takes_no_longer_than_many_batches():
    """100 000 lines: 1 against 100 000 batches. (With the square of their number: 20 times.)"""

    class Nothing:
        vocab_size = 300

        def encode(self, text):
            return []

    lines = ["a line of twenty ch."] * 100_000

    def seconds(batch_characters: int) -> float:
        start = time.process_time()
        assert sum(1 for _ in encode_documents(lines, Nothing(), batch_characters)) == len(lines)
        return time.process_time() - start

    assert seconds(2_000_000) < 4 * seconds(20)


@given(st.lists(st.integers(0, 12), min_size=1, max_size=6), st.integers(1, 7))
def test_blocks_over_several_arrays(sizes, length):
    tokens = np.arange(sum(sizes), dtype=np.int32)
    parts = np.split(tokens, np.cumsum(sizes)[:-1])
    if len(tokens) < length:
        return
    whole, apart = Blocks(tokens, length), Blocks(parts, length)
    assert len(whole) == len(apart)
    assert torch.equal(whole[:], apart[:])
    assert torch.equal(whole[-1], apart[len(apart) - 1])


def test_blocks_indexing_and_errors():
    blocks = Blocks(np.arange(10, dtype=np.uint16), 3)
    assert len(blocks) == 3
    assert [row.tolist() for row in blocks] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert blocks[[2, 0]].tolist() == [[6, 7, 8], [0, 1, 2]]
    assert blocks[torch.tensor([1])].tolist() == [[3, 4, 5]]
    assert blocks[3:].shape == (0, 3)
    for bad in (3, -4):
        with pytest.raises(IndexError, match="of 3"):
            blocks[bad]
    with pytest.raises(ValueError, match="one-dimensional arrays of integers"):
        Blocks(np.zeros(9), 3)
    with pytest.raises(ValueError, match=r"9 tokens of validation text .* larger share"):
        Blocks(np.arange(9), 10, "validation")
    with pytest.raises(ValueError, match="9 tokens do not fill one block of length 10"):
        Blocks(np.zeros(9, dtype=np.uint16), 10)




# ------------------------------------------------------------------------------ order of batches


def numbered(num_blocks: int, length: int = 2) -> Blocks:
    """Block i holds i, i, …"""
    return Blocks(np.repeat(np.arange(num_blocks), length).astype(np.uint16), length)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**40))
@settings(max_examples=50)
def test_every_epoch_is_a_permutation(num_blocks, batch_size, seed):
    loader = BlockLoader(numbered(num_blocks), batch_size, seed)
    drawn = []
    while len(drawn) < 4 * num_blocks:
        batch = next(loader)
        assert batch.shape == (batch_size, 2)
        drawn += batch[:, 0].tolist()
    epochs = [tuple(drawn[e * num_blocks : (e + 1) * num_blocks]) for e in range(4)]
    assert all(sorted(epoch) == list(range(num_blocks)) for epoch in epochs)
    if num_blocks >= 15:  # chance that two of eight permutations agree: 28/15! < 1e-10
        other = BlockLoader(numbered(num_blocks), num_blocks, seed + 1)
        epochs += [tuple(next(other)[:, 0].tolist()) for _ in range(4)]
        assert len(set(epochs)) == 8


@given(st.integers(0, 30), st.integers(2, 40), st.sampled_from([1, 2, 4]))
@settings(max_examples=50)
def test_a_restored_position_goes_on_bit_for_bit(steps, num_blocks, world_size):
    loader = BlockLoader(numbered(num_blocks), 4, seed=3)
    for _ in range(steps):
        next(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    ahead = [next(loader) for _ in range(5)]
    ranks = [BlockLoader(numbered(num_blocks), 4, 99, r, world_size) for r in range(world_size)]
    for rank in ranks:
        rank.load_state_dict(state)
    for expected in ahead:
        assert torch.equal(torch.cat([next(rank) for rank in ranks]), expected)
    assert torch.equal(torch.cat([rank.sample_ids for rank in ranks]), loader.sample_ids)
    assert ranks[0].epoch == loader.epoch == 4 * (steps + 5) / num_blocks


def test_loader_errors():
    with pytest.raises(ValueError, match="multiple of world_size"):
        BlockLoader(numbered(5), 3, world_size=2)
    with pytest.raises(ValueError, match="rank below it"):
        BlockLoader(numbered(5), 4, rank=2, world_size=2)
    state = BlockLoader(numbered(5), 2).state_dict()
    with pytest.raises(ValueError, match="5 blocks of 2 tokens, but these are 6 of 2"):
        BlockLoader(numbered(6), 2).load_state_dict(state)
