"""Data: the synthetic language against enumeration, sources, tokenisers, split, packing, order.

Statistical tests are seeded; each states the chance at which a right implementation would fail for
a random seed (its false-alarm rate).
"""

import itertools
import json
import math
import string
import subprocess
import sys
import time
import tracemalloc
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sedd_mini.commands.prepare import main as shards_main
from sedd_mini.text import offline, shards, tokenizers
from sedd_mini.text import python_docs as docs_module
from sedd_mini.text.blocks import (
    BlockLoader,
    Blocks,
    cut,
    encode_documents,
    pack,
    split_documents,
    split_hash,
)
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.documents import OPENWEBTEXT, corpus_hash, load_documents
from sedd_mini.text.ngram import KneserNey, ngram_bits
from sedd_mini.text.python_docs import clean, docstrings, python_docs
from sedd_mini.text.shards import choose_threshold, load_shards, prepare_shards
from sedd_mini.text.synthetic import HiddenMarkovChain, SyntheticLanguage, next_states, words_of
from sedd_mini.text.tokenizers import (
    END_OF_TEXT,
    PRINTABLE,
    BPETokenizer,
    CharTokenizer,
    WordTokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    make_tokenizer,
    to_printable,
)

TEXTS = [
    "The small cats near the river sleep.\n\nThey sleep often, and quietly.",
    "Naïve café: “quotes”, dashes – and 漢字, emoji 🙂, tab\tand null\0.",
    "def f(x):\n    return x + 1  # a comment\n",
] * 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def language() -> SyntheticLanguage:
    return SyntheticLanguage()


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    return BPETokenizer.train(TEXTS, 300)


# ------------------------------------------------------------------------------ synthetic language


def tiny_chain() -> HiddenMarkovChain:
    """Three hidden states over four words, with some transitions and emissions impossible."""
    transition = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.4, 0.6], [0.7, 0.2, 0.1]])
    emission = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.1, 0.1, 0.4, 0.4], [0.0, 0.5, 0.0, 0.5]])
    return HiddenMarkovChain(transition, emission)


def path_sum(chain: HiddenMarkovChain, tokens: list[int]) -> float:
    """p(tokens) as the sum over all hidden paths, one by one."""
    initial, transition, emission = (
        x.tolist() for x in (chain.stationary, chain.transition, chain.emission)
    )
    total = 0.0
    for path in itertools.product(range(len(initial)), repeat=len(tokens)):
        p = initial[path[0]]
        for a, b in itertools.pairwise(path):
            p *= transition[a][b]
        for state, token in zip(path, tokens, strict=True):
            p *= emission[state][token]
        total += p
    return total


def all_strings(vocab_size: int, length: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(vocab_size)] * length).view(-1, length)


def test_forward_algorithm_is_the_sum_over_paths():
    chain = tiny_chain()
    strings = all_strings(4, 4)
    exact = torch.tensor([path_sum(chain, row.tolist()) for row in strings])
    torch.testing.assert_close(chain.log_prob(strings).exp(), exact.double(), rtol=1e-6, atol=1e-9)
    assert math.isclose(exact.sum().item(), 1, rel_tol=1e-6)


def test_tiny_chain_is_stationary():
    chain = tiny_chain()
    torch.testing.assert_close(chain.stationary @ chain.transition, chain.stationary)
    # the law of the last three of four tokens is that of any three
    marginal = chain.log_prob(all_strings(4, 4)).exp().view(4, -1).sum(0)
    torch.testing.assert_close(marginal, chain.log_prob(all_strings(4, 3)).exp())


def test_posterior_and_partial_probability_by_enumeration():
    chain, length = tiny_chain(), 5
    strings = all_strings(4, length)
    joint = chain.log_prob(strings).exp()
    for known in itertools.product([False, True], repeat=length):
        known = torch.tensor(known)
        tokens = torch.tensor([[0, 1, 3, 2, 1]]).where(known, 99)  # what is unknown is not read
        match = ((strings == tokens) | ~known).all(1)
        probability = joint[match].sum()
        assert torch.isclose(chain.log_prob(tokens, known[None]).exp()[0], probability)
        posterior = chain.posterior(tokens, known[None])[0]  # (L, V)
        for position in range(length):
            law = torch.zeros(4).double().index_add(0, strings[match, position], joint[match])
            torch.testing.assert_close(posterior[position], law / probability)


def test_language_is_a_distribution_with_full_support(language):
    for rows in (language.transition, language.emission, language.stationary[None]):
        torch.testing.assert_close(rows.sum(-1), torch.ones(len(rows)).double())
    assert (language.emission > 0).all()
    for length in (1, 2, 3):
        log_prob = language.log_prob(all_strings(language.vocab_size, length))
        assert torch.isfinite(log_prob).all()
        assert math.isclose(log_prob.exp().sum().item(), 1, rel_tol=1e-10)
    pair = [language.words.index("some"), language.words.index("cats")]
    expected = path_sum(language, pair)
    assert math.isclose(language.log_prob(torch.tensor([pair])).exp().item(), expected)


def test_log_prob_of_a_long_string_is_the_product_of_conditionals(language):
    x, n = language.sample(1, 40, seeded()), torch.arange(40)
    known = n < n[:, None]  # (40, 40): row n knows the tokens before n
    conditionals = language.posterior(x.expand(40, 40), known)[n, n, x[0]]
    torch.testing.assert_close(language.log_prob(x)[0], conditionals.log().sum())


def test_grammar_agrees_over_distance():
    strict = SyntheticLanguage(smoothing=0)
    tokenizer = strict.tokenizer()

    def possible(sentence: str) -> bool:
        return torch.isfinite(strict.log_prob(torch.tensor([tokenizer.encode(sentence)]))).item()

    assert possible(". some small cats near a river sleep and sing .")
    assert not possible(". some small cats near a river sleeps and sing .")
    assert not possible(". some small cats near a river sleep and sings .")
    assert possible(". every dog behind many houses follows these birds .")
    assert not possible(". every dog behind many houses follow these birds .")
    assert not possible(". many dog sleeps .")
    assert torch.isfinite(strict.log_prob(strict.sample(200, 30, seeded()))).all()
    for state in strict.states:  # the grammar itself: probabilities, and words everywhere
        assert math.isclose(sum(p for p, _ in next_states(state)), 1)
        assert words_of(state)
    with pytest.raises(ValueError, match="no state"):
        next_states(("nothing",))


def chi_square(observed: torch.Tensor, law: torch.Tensor) -> float:
    """p-value of counts against a law; cells that expect fewer than 10 are put together."""
    observed, expected = observed.double(), law.double() * observed.sum()
    rare = expected < 10
    if rare.any():
        observed = torch.cat([observed[~rare], observed[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return stats.chisquare(observed.numpy(), expected.numpy()).pvalue


def test_sampler_follows_the_exact_law(language):
    """Pairs at the start and at the end of blocks of 12, and words over many: χ², false alarm 1e-4
    for each of three p-values."""
    x = language.sample(40_000, 12, seeded())
    size = language.vocab_size
    law = language.log_prob(all_strings(size, 2)).exp()
    for pair in (x[:, :2], x[:, -2:]):
        counts = torch.bincount(pair[:, 0] * size + pair[:, 1], minlength=size**2)
        assert chi_square(counts, law) > 1e-4
    counts = torch.bincount(x[:, 6], minlength=size)
    assert chi_square(counts, language.log_prob(torch.arange(size)[:, None]).exp()) > 1e-4


def test_entropy_rate_against_enumeration():
    """H(X_n | X_<n) of the tiny chain exactly; the estimate within 5 of its standard errors (false
    alarm 6e-7), the bounds in the order that the theorem states."""
    chain = tiny_chain()
    entropies = []
    for length in (7, 8):
        p = chain.log_prob(all_strings(4, length)).exp()
        entropies.append(-torch.special.xlogy(p, p).sum().item() / math.log(2))
    first, second = chain.conditional_entropies(20_000, 8, seeded())
    exact, error = entropies[1] - entropies[0], second[:, 7].std().item() / 20_000**0.5
    assert abs(second[:, 7].mean().item() - exact) < 5 * error
    assert (first.mean(0) <= second.mean(0) + 1e-9).all()


def test_entropy_rate_of_the_language(language):
    """Two independent roads, the filter's entropies and −log2 p of fresh blocks, agree within 5
    joint standard errors (false alarm 6e-7)."""
    rate = language.entropy_rate(num_blocks=1024, length=48)
    assert rate.upper - rate.lower < 1e-6
    assert rate.std_error < 0.005
    x = language.sample(512, 96, seeded(1))
    bits = (language.log_prob(x[:, :32]) - language.log_prob(x)) / 64 / math.log(2)
    error = math.hypot(rate.std_error, bits.std().item() / 512**0.5)
    assert abs(bits.mean().item() - rate.bits) < 5 * error
    assert abs(rate.bits - 2.28) < 5 * rate.std_error  # as the documentation says


def test_language_errors(language):
    with pytest.raises(ValueError, match="must lie in 0 … 39"):
        language.log_prob(torch.tensor([[0, 40]]))
    with pytest.raises(ValueError, match=r"shape \(B, L\)"):
        language.log_prob(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="at least one block"):
        language.sample(0, 5)
    with pytest.raises(ValueError, match="smoothing"):
        SyntheticLanguage(smoothing=1)
    with pytest.raises(ValueError, match="row of emission"):
        HiddenMarkovChain(torch.eye(2), torch.ones(2, 2))


# ------------------------------------------------------------------------------ tokenisers


@given(st.text())
@settings(max_examples=100)
def test_bpe_round_trip(bpe, text):
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert all(0 <= i < bpe.vocab_size and i != bpe.eot_id for i in ids)
    assert bpe.encode_batch([text, text]) == [ids, ids]


@given(st.text(alphabet=PRINTABLE))
def test_characters_round_trip(text):
    tokenizer = CharTokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)


@given(st.text())
def test_characters_outside_the_alphabet_are_brought_into_it(text):
    tokenizer = CharTokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == to_printable(text)


@given(st.lists(st.sampled_from(SyntheticLanguage().words)))
def test_words_round_trip(words):
    tokenizer = SyntheticLanguage().tokenizer()
    assert tokenizer.decode(tokenizer.encode(" ".join(words))) == " ".join(words)


def test_alphabet():
    assert sorted(PRINTABLE) == sorted([*map(chr, range(32, 127)), "\n"])
    assert set(string.printable[:95]) <= set(PRINTABLE)
    assert to_printable("naïve “x” – a…\r\nb\tc 漢") == 'naive "x" - a...\nb    c ?'


@pytest.mark.parametrize("kind", ["chars", "words", "bpe"])
def test_save_and_load(kind, bpe, tmp_path):
    tokenizer = {"chars": CharTokenizer(), "words": WordTokenizer(["a", "b"]), "bpe": bpe}[kind]
    tokenizer.save(tmp_path / "deep" / "folder")
    again = load_tokenizer(tmp_path / "deep" / "folder")
    text = "a b a"
    assert type(again) is type(tokenizer)
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == text
    assert (again.vocab_size, again.eot_id) == (tokenizer.vocab_size, tokenizer.eot_id)
    assert [p.name for p in (tmp_path / "deep" / "folder").iterdir()] == ["tokenizer.json"]
    if kind == "bpe":  # a restored tokeniser keeps this, too
        assert again.eot_id not in again.encode(END_OF_TEXT)


def test_end_of_text_and_mask_are_shown(bpe):
    assert bpe.eot_id not in bpe.encode(f"a{END_OF_TEXT}b")
    assert bpe.decode(bpe.encode(f"a{END_OF_TEXT}b")) == f"a{END_OF_TEXT}b"
    for tokenizer in (bpe, CharTokenizer()):
        ids = [*tokenizer.encode("ab"), tokenizer.vocab_size, tokenizer.eot_id]
        assert tokenizer.decode(torch.tensor(ids), mask="#") == f"ab#{END_OF_TEXT}"
        for bad in (-1, tokenizer.vocab_size + 1):
            with pytest.raises(ValueError, match=f"token id {bad} is out of range"):
                tokenizer.decode([bad])
    assert WordTokenizer(["a", "b"]).decode([0, 2, 1]) == "a _ b"


class Counted(list):
    """A list that counts how often it is gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_decoding_does_not_list_the_alphabet_for_every_token(monkeypatch):
    words = WordTokenizer(["a", "b"])
    words.words = Counted(words.words)
    assert words.decode([0, 1, 0, 2]) == "a b a _"
    assert words.words.times <= 1
    characters, alphabet = CharTokenizer(), Counted(PRINTABLE)
    monkeypatch.setattr(tokenizers, "PRINTABLE", alphabet)
    assert characters.decode(characters.encode("a whale")) == "a whale"
    assert alphabet.times <= 1


def test_the_stand_in_for_gpt2_sees_no_validation_text(monkeypatch):
    seen, train = [], BPETokenizer.train

    def spy(texts, vocab_size):
        seen.extend(texts)
        return train(texts, vocab_size)

    def nowhere(source="gpt2"):
        raise FileNotFoundError

    monkeypatch.setattr(offline, "gpt2_tokenizer", nowhere)
    monkeypatch.setattr(BPETokenizer, "train", spy)
    corpus = offline.docs_with_gpt2_tokens(64, 300)
    train_texts, valid_texts = split_documents(load_documents("docs"))
    assert valid_texts
    assert seen == train_texts
    assert corpus.tokenizer.vocab_size == 50_257
    assert corpus.tokenizer.decode(corpus.valid[0]) in valid_texts[0]


def test_bpe_is_deterministic_and_small():
    first, second = (BPETokenizer.train(TEXTS, 280) for _ in range(2))
    assert first.as_json() == second.as_json()
    assert first.vocab_size == 280
    with pytest.raises(ValueError, match="at least 257"):
        BPETokenizer.train(TEXTS, 256)


def test_gpt2_files_in_each_packing(tmp_path):
    """One small vocabulary as encoder.json + vocab.bpe, as vocab.json + merges.txt, as one file."""
    from tokenizers import pre_tokenizers

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {"he": 256, "Ġt": 257, "Ġthe": 258, END_OF_TEXT: 259}
    merges = "#version: 0.2\nh e\nĠ t\nĠt he\n"
    for name, files in {
        "a": ("encoder.json", "vocab.bpe"),
        "b": ("vocab.json", "merges.txt"),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / files[0]).write_text(json.dumps(vocab), encoding="utf-8")
        (tmp_path / name / files[1]).write_text(merges, encoding="utf-8")
    gpt2_tokenizer(tmp_path / "a").save(tmp_path / "c")
    for name in "abc":
        tokenizer = gpt2_tokenizer(tmp_path / name)
        assert (tokenizer.vocab_size, tokenizer.eot_id) == (260, 259)
        assert tokenizer.encode("the the") == [vocab["t"], 256, 258]
        assert tokenizer.decode([258, 259]) == f" the{END_OF_TEXT}"


def test_a_tokenizer_file_with_truncation_and_templates(bpe, tmp_path):
    """As transformers leaves them behind; either would spoil documents without a word."""
    from tokenizers.processors import TemplateProcessing

    other = BPETokenizer(type(bpe.backend).from_str(bpe.backend.to_str()))
    other.backend.enable_truncation(4)
    other.backend.enable_padding(pad_id=0, length=6)
    other.backend.post_processor = TemplateProcessing(
        single="<|endoftext|> $0", special_tokens=[("<|endoftext|>", bpe.eot_id)]
    )
    loaded = BPETokenizer(type(bpe.backend).from_str(other.backend.to_str()))
    text = "the words of a document that is longer than that"
    assert loaded.encode(text) == bpe.encode(text)
    assert loaded.encode_batch([text, "a"]) == [bpe.encode(text), bpe.encode("a")]


def test_tokenizer_errors(tmp_path):
    with pytest.raises(ValueError, match=r"not in the vocabulary: zebra; the 2 words are: a b"):
        WordTokenizer(["a", "b"]).encode("a zebra")
    with pytest.raises(FileNotFoundError, match=r"encoder\.json and vocab\.bpe"):
        gpt2_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match="no tokeniser in"):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder here.*Give a folder"):
        gpt2_tokenizer("no-such-owner/no-such-tokeniser")
    (tmp_path / "tokenizer.json").write_text('{"type": "pickle"}')
    with pytest.raises(ValueError, match="no kind known here"):
        load_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="unknown tokeniser 'runes'"):
        make_tokenizer("runes", [])


# ------------------------------------------------------------------------------ sources


ROWS = [{"text": f"document {i}\nwith two lines", "id": i} for i in range(7)]


def write_source(kind: str, folder):
    """The same seven documents in each format; returns what to load."""
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list(ROWS)
    path = folder / f"data.{kind}"
    match kind:
        case "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case "json":
            path.write_text(json.dumps(ROWS))
        case "parquet":
            dataset.to_parquet(path)
        case "arrow":
            import pyarrow as pa

            with pa.OSFile(str(path), "wb") as sink:
                table = pa.Table.from_pylist(ROWS)
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
        case "saved":
            path = folder / "saved"
            dataset.save_to_disk(path)
        case "saved dict":
            path = folder / "saved"
            DatasetDict({"train": dataset}).save_to_disk(path)
        case "folder":
            for row in ROWS:
                (folder / f"{row['id']}.txt").write_text(row["text"])
            (folder / "README.md").write_text("not part of the corpus")
            (folder / ".hidden.txt").write_text("not either")
            path = folder
    return path


@pytest.mark.parametrize(
    "kind", ["jsonl", "json", "parquet", "arrow", "saved", "saved dict", "folder"]
)
def test_every_format_gives_the_same_documents(kind, tmp_path):
    documents = load_documents(write_source(kind, tmp_path))
    assert iter(documents) is documents  # a stream, not a list
    assert next(documents) == ROWS[0]["text"]
    assert list(documents) == [row["text"] for row in ROWS[1:]]


def test_a_folder_of_data_files_is_read_in_order(tmp_path):
    for name, rows in (("b", ROWS[3:]), ("a", ROWS[:3])):
        text = "".join(json.dumps({"body": row["text"]}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "README.md").write_text("a description")
    assert list(load_documents(tmp_path, column="body")) == [row["text"] for row in ROWS]


def test_of_a_folder_with_splits_one_is_read(tmp_path):
    for name in ("data/train/0000", "data/test/0000", "data/validation/0000"):
        path = tmp_path / f"{name}.JSONL"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"text": name}) + "\n")
    assert list(load_documents(tmp_path)) == ["data/train/0000"]
    assert list(load_documents(tmp_path, split="test")) == ["data/test/0000"]
    with pytest.raises(ValueError, match=r"splits test, train, validation, .*'dev'.*--split"):
        load_documents(tmp_path, split="dev")
    assert list(load_documents(tmp_path / "data/test")) == ["data/test/0000"]  # alone: no choice


def test_rows_without_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": null}\n{"text": ""}\n{"text": "a"}\n{"text": null}\n')
    assert list(load_documents(path)) == ["a"]
    path.write_text("")
    with pytest.raises(ValueError, match=r"no text in .*rows\.jsonl"):
        list(load_documents(path))


def test_a_text_file_is_one_document_and_a_long_one_is_streamed(tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    text = "".join(f"line {i} é\n" for i in range(1000))
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert list(load_documents(path)) == [text]
    monkeypatch.setattr("sedd_mini.text.documents.LONG_FILE", 1000)
    pieces = list(load_documents(str(path)))
    assert len(pieces) > 5
    assert "".join(pieces) == text
    assert all(piece.endswith("\n") and len(piece) < 1020 for piece in pieces)


def test_streaming_does_not_read_ahead(tmp_path):
    """The first documents of a 24 MB file arrive although its last line is broken."""
    path = tmp_path / "big.jsonl"
    line = json.dumps({"text": "x" * 40_000}) + "\n"
    path.write_text(line * 600 + '{"text": \n')
    documents = load_documents(path)
    assert len(next(documents)) == len(next(documents)) == 40_000
    with pytest.raises(ValueError, match=r"cannot read .*big\.jsonl: "):
        list(documents)


def test_source_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'no/such.txt' is neither a file.*check the path"):
        load_documents("no/such.txt")
    with pytest.raises(FileNotFoundError, match=r"hub could not be reached.*get online"):
        load_documents("no-such-owner/no-such-data")
    (tmp_path / "rows.jsonl").write_text('{"body": "a", "id": 3}\n')
    with pytest.raises(ValueError, match=r"no column 'text'; its columns are body, id.*--column"):
        load_documents(tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="no text in column 'id'"):
        load_documents(tmp_path / "rows.jsonl", column="id")
    (tmp_path / "broken.jsonl").write_text('{"text": \n')
    with pytest.raises(ValueError, match=r"cannot read .*broken\.jsonl: "):
        load_documents(tmp_path / "broken.jsonl")
    (tmp_path / "broken.parquet").write_bytes(b"PAR0")
    with pytest.raises(ValueError, match=r"cannot read .*broken\.parquet: "):
        load_documents(tmp_path / "broken.parquet")
    (tmp_path / "blank.txt").write_text(" \n\n")
    with pytest.raises(ValueError, match=r"no text in .*blank.txt"):
        list(load_documents(tmp_path / "blank.txt"))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        list(load_documents(tmp_path / "binary.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no file in it ends in .*\.txt"):
        load_documents(tmp_path / "empty")
    write_source("saved dict", tmp_path)
    with pytest.raises(ValueError, match=r"no split 'test'; it has train: .*--split"):
        load_documents(tmp_path / "saved", split="test")


@pytest.fixture
def hub(monkeypatch):
    """A hub without a network: `answers` by name and revision, and what it was `asked` for."""
    import datasets
    import huggingface_hub

    class Hub:
        answers, asked = {}, []

    def load_dataset(name, config=None, *, split, streaming, revision=None):
        Hub.asked.append((name, revision, streaming))
        answer = Hub.answers[name, revision]
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    return Hub


SCRIPT = RuntimeError("Dataset scripts are no longer supported, but found openwebtext.py")


@pytest.mark.parametrize("script", [True, False])
def test_openwebtext_is_streamed_also_where_it_is_a_script(hub, script):
    endless = ({"text": f"page {i}"} for i in itertools.count())
    copy = (OPENWEBTEXT, "refs/convert/parquet")
    if script:
        hub.answers = {(OPENWEBTEXT, None): SCRIPT, copy: endless}
        with pytest.warns(UserWarning, match="first 5 GB"):
            documents = load_documents("openwebtext")
    else:
        hub.answers = {(OPENWEBTEXT, None): endless}
        documents = load_documents("openwebtext")
    assert list(itertools.islice(documents, 3)) == ["page 0", "page 1", "page 2"]
    assert hub.asked[-1] == ((*copy, True) if script else (OPENWEBTEXT, None, True))


def test_errors_of_the_hub_keep_their_own_words(hub):
    hub.answers = {
        ("some/script", None): SCRIPT,
        ("gated/set", None): FileNotFoundError("Dataset 'gated/set' is a gated dataset."),
        ("bad/split", None): ValueError("Bad split: train. Available splits: ['test']"),
        ("far/away", None): ConnectionError("no route"),
    }
    with pytest.raises(ValueError, match=r"made by a script.*hf download some/script .*--revision"):
        load_documents("some/script")
    with pytest.raises(ValueError, match=r"^cannot read 'gated/set' from the hub: .*gated dataset"):
        load_documents("gated/set")
    with pytest.raises(ValueError, match=r"^Bad split: train\. Available splits: \['test'\]$"):
        load_documents("bad/split")
    with pytest.raises(FileNotFoundError, match=r"not be reached \(ConnectionError: no route\)"):
        load_documents("far/away")


def test_python_docs():
    documents = python_docs()
    assert corpus_hash(documents) == corpus_hash(load_documents("docs"))
    assert 300 < len(documents) < 2000
    assert 1.2e6 < sum(map(len, documents)) < 4e6
    text = "\n".join(documents)
    assert set(text) <= set(PRINTABLE)
    assert 'The "assert" statement' in text
    assert "Return a nicely formatted" in text or "serialize" in text.lower()
    assert "*****" not in text.split()


def test_python_docs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(docs_module, "modules", lambda stdlib: [["One passage.", "One passage."]])
    python_docs.cache_clear()
    try:
        first = python_docs()
        files = list((tmp_path / "sedd_mini").iterdir())
        assert len(files) == 1  # and no temporary file beside it
        assert first[-1] == "One passage."
        files[0].write_text("[damaged")
        python_docs.cache_clear()
        assert python_docs() == first
        assert json.loads(files[0].read_text()) == list(first)
    finally:
        python_docs.cache_clear()


def test_docstrings_are_gathered_in_order_and_cleaned():
    source = b'"""Module."""\nclass A:\n    """Class."""\n    def f(self):\n        """Method."""\n'
    source += b'def g():\n    """Function."""\n    def h():\n        """Inner."""\n'
    assert [d for d in docstrings(source) if d] == [
        "Module.", "Class.", "Method.", "Function.", "Inner.",
    ]  # fmt: skip
    assert docstrings(b"not python at all") == []
    assert clean("Title\n*****\n\n\n\n  text – here   \n") == "Title\n\n  text - here"


# ------------------------------------------------------------------------------ split


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
    with pytest.raises(ValueError, match=r"too short to be split for validation: give more text$"):
        split_documents(["tiny"], 0.1)
    with pytest.raises(ValueError, match=r"valid_fraction must lie in \[0, 1\)"):
        split_documents(["a", "b"], 1.0)


# ------------------------------------------------------------------------------ packing


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


# ------------------------------------------------------------------------------ all in one


def test_load_corpus_from_one_text_file(tmp_path):
    path = tmp_path / "play.txt"
    path.write_text("".join(f"SPEAKER {i % 7}:\nWhat is said, {i}.\n\n" for i in range(2000)))
    corpus = load_corpus(path, 32, tokenizer="chars", valid_fraction=0.1)
    assert corpus.train[0].shape == (32,)
    assert 0.08 < corpus.info["valid_tokens"] / corpus.info["train_tokens"] < 0.12
    assert corpus.info["documents"] == 1
    assert corpus.info["hash"] == corpus_hash([path.read_text()])
    assert corpus.info["chars_per_token"] == pytest.approx(1, abs=0.01)
    again = load_corpus(path, 32, tokenizer=CharTokenizer(), valid_fraction=0.1)
    assert torch.equal(corpus.train[:], again.train[:])
    assert torch.equal(corpus.valid[:], again.valid[:])
    bpe = load_corpus(path, 32, vocab_size=300)
    assert bpe.tokenizer.vocab_size == 300
    assert bpe.info["chars_per_token"] > 2
    bpe.tokenizer.save(tmp_path / "tokeniser")
    third = load_corpus(path, 32, tokenizer=tmp_path / "tokeniser")
    assert torch.equal(bpe.valid[:], third.valid[:])


def test_synthetic_corpus(language):
    corpus = load_corpus("synthetic", 48)
    assert corpus.tokenizer.vocab_size == language.vocab_size == 40
    assert corpus.tokenizer.eot_id is None
    assert len(corpus.train) == 2**21 // 48
    log_prob = language.log_prob(corpus.valid[:256])
    assert (
        2.28 < -log_prob.mean().item() / 48 / math.log(2) < 2.5
    )  # bits; the first words cost more
    assert not torch.equal(corpus.train[:100], corpus.valid[:100])
    assert corpus.info["hash"] == load_corpus("synthetic", 48).info["hash"]


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, sedd_mini.text.blocks, sedd_mini.text.ngram, sedd_mini.text.shards\n"
        "heavy = {'datasets', 'transformers', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------ shards


def book(seed: int, paragraphs: int) -> str:
    rng = np.random.default_rng(seed)
    words = ["sea", "whale", "ship", "captain", "and", "the", "a", "saw"]
    return "\n\n".join(" ".join(rng.choice(words, 30)) for _ in range(paragraphs))


def test_shards_hold_the_same_stream(tmp_path, bpe):
    folder = tmp_path / "books"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.txt").write_text(book(i, 800))
    index = prepare_shards(folder, tmp_path / "out", bpe, shard_tokens=60_000, progress=False)
    assert len(index["train"]["shards"]) > 2
    threshold = index["settings"]["threshold"]
    corpus = load_corpus(tmp_path / "out", 64)
    documents = list(load_documents(folder))
    assert index["train"]["characters"] + index["valid"]["characters"] == sum(map(len, documents))
    streams = {"train": [], "valid": []}
    for document in documents:
        for piece in cut(document, 50_000):
            part = streams["valid" if split_hash(piece, 0) < threshold else "train"]
            part += [bpe.eot_id] * bool(part) + bpe.encode(piece)
    for part, blocks in (("train", corpus.train), ("valid", corpus.valid)):
        assert blocks[:].flatten().tolist() == streams[part][: blocks.num_tokens]
        assert len(streams[part]) - blocks.num_tokens < 64
    hashes = [split_hash(piece, 0) for document in documents for piece in cut(document, 50_000)]
    assert sum(h < threshold for h in hashes) == max(1, round(0.05 * len(hashes)))
    assert isinstance(corpus.train.arrays[0], np.memmap)
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_shards_go_on_after_an_interruption(tmp_path, bpe, monkeypatch):
    source = tmp_path / "rows.jsonl"
    rows = [{"text": book(i, 20)} for i in range(60)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"tokenizer": bpe, "shard_tokens": 20_000, "progress": False}
    whole = prepare_shards(source, tmp_path / "whole", **options)

    real, calls = np.save, []

    def dies(file, tokens):
        calls.append(1)
        if len(calls) == 4:
            file.write(b"half a file")
            raise KeyboardInterrupt
        real(file, tokens)

    monkeypatch.setattr(np, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(source, tmp_path / "again", **options)
    monkeypatch.setattr(np, "save", real)
    with pytest.raises(ValueError, match="is not complete"):
        load_shards(tmp_path / "again", 16)
    with pytest.raises(ValueError, match=r"prepared with split_seed=0, not 1.*another folder"):
        prepare_shards(source, tmp_path / "again", **options, split_seed=1)
    assert prepare_shards(source, tmp_path / "again", **options) == whole
    assert prepare_shards(source, tmp_path / "again", **options) == whole  # nothing left to do
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()

    name = whole["train"]["shards"][0]["name"]
    np.save(tmp_path / "again" / name, np.zeros(5, dtype=np.uint16))
    with pytest.raises(ValueError, match=f"{name} has 5 tokens, not"):
        load_shards(tmp_path / "again", 16)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        prepare_shards(source, tmp_path / "none", **options, valid_fraction=0)
    (tmp_path / "short.txt").write_text("one short text")
    with pytest.raises(ValueError, match="one document, or of copies of one, cannot be split"):
        prepare_shards(tmp_path / "short.txt", tmp_path / "none", **options)
    source.write_text((json.dumps({"text": "always the same"}) + "\n") * 300)
    with pytest.raises(ValueError, match=r"none of 300 documents fell to valid.*--valid-fraction"):
        prepare_shards(source, tmp_path / "same", **options)


def test_shards_of_many_documents_are_split_by_their_hash():
    documents = [f"document {i}" for i in range(4000)]
    threshold = choose_threshold(iter(documents), 0.1, seed=0)
    assert threshold == 0.1
    share = np.mean([split_hash(document, 0) < threshold for document in documents])
    assert abs(share - 0.1) < 5 * (0.1 * 0.9 / 4000) ** 0.5  # five standard deviations


@pytest.mark.parametrize("copies", [2, 198, 200, 300])
def test_copies_do_not_move_the_threshold(copies):
    documents = ["the same"] * copies + [f"document {i}" for i in range(4000)]
    assert choose_threshold(iter(documents), 0.05, seed=0) == 0.05


@given(st.lists(st.integers(0, 9), min_size=2, max_size=199), st.floats(0.01, 0.99))
def test_a_small_corpus_is_split_by_the_number_of_documents(numbers, fraction):
    """As near to the wanted number as is possible where copies stay together."""
    documents = [f"text {number}" for number in numbers]
    if len(set(numbers)) < 2:
        with pytest.raises(ValueError, match="copies of one"):
            choose_threshold(iter(documents), fraction, seed=0)
        return
    threshold = choose_threshold(iter(documents), fraction, seed=0)
    hashes = [split_hash(document, 0) for document in documents]
    possible = [sum(h < other for h in hashes) for other in set(hashes)]
    wanted = round(fraction * len(documents))
    nearest = min(abs(n - wanted) for n in possible if n)
    assert abs(sum(h < threshold for h in hashes) - wanted) == nearest


def test_memory_of_a_preparation_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    """The peak grows by less than a tenth of the text that is added (by the list of shards)."""
    texts = [book(seed, 25) for seed in range(20)]  # 4 kB each

    def peak(num: int) -> int:
        documents = (f"{texts[i % 20]} {i}" for i in range(num))
        monkeypatch.setattr(shards, "load_documents", lambda source, **_: documents)
        monkeypatch.setattr(shards, "choose_threshold", lambda *_: 0.1)
        folder = tmp_path / str(num)
        options = {"shard_tokens": 50_000, "progress": False}
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        index = prepare_shards("endless", folder, CharTokenizer(), **options)
        assert index["documents"] == num
        return tracemalloc.get_traced_memory()[1] - before

    small_batches = partial(encode_documents, batch_characters=20_000)
    monkeypatch.setattr(shards, "encode_documents", small_batches)
    tracemalloc.start()
    try:
        peak(20)  # what happens at the first call alone
        few, many = peak(100), peak(600)
        assert many - few < 0.1 * 500 * len(texts[0])
    finally:
        tracemalloc.stop()


def test_shards_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "text.txt").write_text(book(0, 3000))
    command = ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "out")]
    shards_main([*command, "--tokenizer", "bpe", "--vocab-size", "270"])
    assert "train:" in capsys.readouterr().out
    assert load_corpus(tmp_path / "out", 32).tokenizer.vocab_size == 270
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_corpus("~/out", 32).tokenizer.vocab_size == 270
    with pytest.raises(SystemExit, match=r"^error: 'no/such.txt' is neither a file"):
        shards_main(["--data", "no/such.txt", "--out", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"^error: .*--out"):
        shards_main([*command, "--tokenizer", "chars"])
    with pytest.raises(SystemExit, match=r"^error: .*vocab_size=270, not 280"):
        shards_main([*command, "--tokenizer", "bpe", "--vocab-size", "280"])
    (tmp_path / "text.txt").write_text(book(0, 6000))
    with pytest.raises(SystemExit, match=r"^error: .*prepared with files="):
        shards_main([*command, "--tokenizer", "bpe", "--vocab-size", "270"])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_tokenizer_of_shards_sees_no_validation_text(tmp_path, monkeypatch, seed):
    seen, train = [], BPETokenizer.train
    spy = lambda texts, size: train([seen.append(t) or t for t in texts], size)  # noqa: E731
    monkeypatch.setattr(BPETokenizer, "train", spy)
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"document {i}: " + "words " * 20)
    index = prepare_shards(tmp_path, tmp_path / "out", "bpe", vocab_size=270, split_seed=seed,
                           progress=False)  # fmt: skip
    threshold = index["settings"]["threshold"]
    again = prepare_shards(tmp_path, tmp_path / "out", "bpe", vocab_size=270, split_seed=seed)
    assert again == index  # what was written among the sources is none of them
    assert 270 < len(seen) < 300
    assert all(split_hash(text, seed) >= threshold for text in seen)


def test_many_tokens_are_stored_wide_enough():
    class Wide:
        vocab_size, eot_id = 70_000, None

        def encode_batch(self, texts):
            return [[69_999] for _ in texts]

    ((_, ids),) = encode_documents(["a"], Wide())
    assert ids.tolist() == [69_999]


def test_an_index_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    tokenizers.write_json(tmp_path / "index.json", {"step": 1})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        tokenizers.write_json(tmp_path / "index.json", {"step": 2})
    assert json.loads((tmp_path / "index.json").read_text()) == {"step": 1}


# ------------------------------------------------------------------------------ n-grams


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_ngram_probabilities_sum_to_one(n):
    """After every context of up to six tokens: seen or not, with words that never occurred."""
    vocab_size, generator = 9, seeded(n)
    train = torch.randint(7, (400,), generator=generator)  # words 7 and 8 never occur
    train[50:80] = 3
    model = KneserNey(train.numpy(), n, vocab_size)
    contexts = torch.randint(vocab_size, (60, 6), generator=generator)
    contexts[:30] = train[:186].unfold(0, 6, 6)[:30]
    for length in range(7):
        blocks = contexts[:, None, :length].expand(-1, vocab_size, -1)
        words = torch.arange(vocab_size).expand(60, -1)[..., None]
        rows = torch.cat([blocks, words], dim=2).flatten(0, 1)  # (60 V, length + 1)
        probs = model.log2_prob(rows)[:, -1].exp2().view(60, vocab_size)
        assert (probs > 0).all()
        torch.testing.assert_close(probs.sum(1), torch.ones(60).double())


def test_bigram_by_hand():
    """Interpolated Kneser-Ney on a b a c a b: every number from the definition."""
    a, b, c = range(3)
    model = KneserNey(np.array([a, b, a, c, a, b]), 2, vocab_size=3)
    # different words before: a ← {b, c}, b ← {a}, c ← {a}; counts 2 1 1, so D = 2 / (2 + 2·1)
    lower = [(2 - 0.5 + 0.5 * 3 / 3) / 4, *[(1 - 0.5 + 0.5 * 3 / 3) / 4] * 2]
    assert sum(lower) == 1
    # occurrences: ab 2, ba 1, ac 1, ca 1, so D = 3 / (3 + 2·1); after a: 3 in all, of 2 types
    d = 0.6
    after_a = [d * 2 / 3 * lower[0], (2 - d + d * 2 * lower[1]) / 3, (1 - d + d * 2 * lower[2]) / 3]
    for word in range(3):
        found = model.log2_prob(torch.tensor([[a, word]]))[0, 1].exp2().item()
        assert found == pytest.approx(after_a[word])
    # the first token of a block has no context: plain occurrences 3 2 1, D = 1 / (1 + 2·1)
    first = model.log2_prob(torch.tensor([[a], [b], [c]]))[:, 0].exp2()
    expected = [(k - 1 / 3 + 1 / 3 * 3 / 3) / 6 for k in (3, 2, 1)]
    torch.testing.assert_close(first, torch.tensor(expected).double())


def test_ngrams_approach_the_truth_from_above(language):
    """On the synthetic language longer contexts help, and nothing beats the true probability."""
    corpus = load_corpus("synthetic", 32)
    train, valid = corpus.train[:8000].flatten(), corpus.valid[:1000]
    truth = -language.log_prob(valid).mean().item() / 32 / math.log(2)
    bits = [ngram_bits(train, valid, n, corpus.tokenizer.vocab_size) for n in (1, 2, 5)]
    assert bits[0] > bits[1] > bits[2] > truth
    assert ngram_bits(train.numpy(), Blocks(valid.flatten().numpy(), 32), 2, 40) == bits[1]


def test_ngram_large_vocabulary_and_errors():
    train = torch.randint(50_257, (2000,), generator=seeded())
    assert math.isfinite(ngram_bits(train, train[:320].view(10, 32), 5, 50_257))
    with pytest.raises(ValueError, match="n >= 1 and a stream of n tokens"):
        KneserNey(train, 0, 50_257)
    with pytest.raises(ValueError, match="must lie in 0 … 9"):
        KneserNey(train, 2, 10)
    with pytest.raises(ValueError, match="must lie in 0 … 50256"):
        KneserNey(train, 2, 50_257).log2_prob(torch.tensor([[50_257]]))
