"""Any source as training and validation blocks in one call."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from sedd_mini.files import write_json
from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import save_pretrained
from sedd_mini.noise import LogLinearNoise
from sedd_mini.text.corpus import Corpus, load_corpus
from sedd_mini.text.hashes import corpus_hash
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.text.tokenizers import CharTokenizer, IdTokenizer, load_tokenizer


@pytest.fixture(scope="module")
def language() -> SyntheticLanguage:
    return SyntheticLanguage()


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


@pytest.mark.parametrize("bad", [
    {"length": 0}, {"length": True}, {"length": 2.0}, {"length": -1}, {"vocab_size": 256},
    {"vocab_size": 1.5}, {"vocab_size": True}, {"vocab_size": 300, "tokenizer": "chars"},
    {"valid_fraction": 0}, {"valid_fraction": float("nan")}, {"split_seed": -1},
    {"tokenizer": "runes"}, {"tokenizer": "~nosuchuser"}, {"tokenizer": "x" * 300},
    {"source": "~nosuchuser"}, {"source": "a\0b"}, {"source": "synthetic", "vocab_size": 50},
    {"source": "synthetic", "tokenizer": "bpe"},
])  # fmt: skip
def test_bad_arguments_are_one_line(bad):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        load_corpus(**{"source": "docs", "length": 32} | bad)
    with pytest.raises(TypeError, match=r"^3 is no tokeniser: it has no vocab_size, "):
        load_corpus("docs", 32, tokenizer=3)


class Vowels:
    """A tokeniser of a user's own: all that `Tokenizer` asks for."""

    vocab_size, eot_id = 6, 5

    def encode(self, text):
        return ["aeiou".index(c) for c in text if c in "aeiou"]

    def decode(self, ids, mask="_"):
        return "".join(("aeiou" + "|" + mask)[i] for i in ids)

    def as_json(self):
        return {"type": "vowels"}

    def save(self, folder):
        write_json(folder / "tokenizer.json", self.as_json())


def test_a_tokenizer_of_ones_own():
    corpus = load_corpus("docs", 64, tokenizer=Vowels())
    assert corpus.tokenizer.vocab_size == 6
    assert int(corpus.train[:100].max()) <= 5
    other = load_corpus("docs", 64, tokenizer="chars").info
    assert corpus.info["hash"] == other["hash"]
    assert corpus.info["tokenizer_sha256"] != other["tokenizer_sha256"]


# ------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("kind", [
    np.uint8, np.int64, torch.uint8, torch.int64, list, "fortran", "big end", "memory map", "slice"
])  # fmt: skip
def test_arrays_of_any_origin_are_one_corpus(kind, tmp_path):
    rows = [np.random.default_rng(num).integers(17, size=(num, 64)) for num in (9, 4)]

    def given(x):
        match kind:
            case "fortran":
                return np.asfortranarray(x)
            case "big end":
                return x.astype(">i4")
            case "memory map":
                np.save(tmp_path / f"{len(x)}.npy", x)
                return np.load(tmp_path / f"{len(x)}.npy", mmap_mode="r")
            case "slice":
                return np.repeat(x, 2, axis=1)[:, ::2]
            case torch.dtype():
                return torch.tensor(x).to(kind)
            case _ if kind is list:
                return x.tolist()
        return x.astype(kind)

    corpus = Corpus.from_arrays(*map(given, rows), 17)
    assert torch.equal(corpus.train[:], torch.tensor(rows[0]))
    assert torch.equal(corpus.valid[:], torch.tensor(rows[1]))
    assert corpus.train.arrays[0].dtype == np.uint16
    expected = Corpus.from_arrays(*rows, 17).info
    assert corpus.info == expected
    assert expected["train_tokens"] == 9 * 64
    assert expected["chars_per_token"] is expected["seen_13grams"] is expected["documents"] is None
    for changed in ((rows[1], rows[0], 17), (*rows, 18), (rows[0][:, ::-1], rows[1], 17)):
        assert Corpus.from_arrays(*changed).info["hash"] != expected["hash"]
    flat = [x.reshape(-1, 32) for x in rows]
    assert Corpus.from_arrays(*flat, 17).info["hash"] != expected["hash"]
    wide = Corpus.from_arrays(rows[0], rows[1] + 70_000, 80_000)
    assert torch.equal(wide.valid[:], torch.tensor(rows[1] + 70_000))


def test_arrays_that_are_no_corpus():
    good = np.arange(6).reshape(2, 3)
    bad = [
        (good.astype(float), r"train must hold whole numbers, got float64"),
        (good > 1, "whole numbers, got bool"), (good[0], r"shape \(num, L\).*got \(3,\)"),
        (good[None], r"got \(1, 2, 3\)"), (good[:0], r"got \(0, 3\)"), (good[:, :0], r"\(2, 0\)"),
        (good - 1, r"ids of train go from -1 to 4, but must lie in 0 … 5, for vocab_size=6"),
        (good + 1, "from 1 to 6, but must"), ([[1, 2], [3]], "no array of whole numbers"),
        ("text", "shape"), (None, "shape"), ([["a"]], "whole numbers, got"),
        (good[:, :2], "rows of train have 2 ids, those of valid 3"),
    ]  # fmt: skip
    for rows, words in bad:
        with pytest.raises(ValueError, match=rf"^[^\n]*{words}[^\n]*$"):
            Corpus.from_arrays(rows, good, 6)
    with pytest.raises(ValueError, match="ids of valid go from 0 to 5, but must lie in 0 … 4"):
        Corpus.from_arrays(good[:1], good, 5)
    for size in (0, -1, True, 2.0, None):
        with pytest.raises(ValueError, match="vocab_size must be a whole number, at least 1"):
            Corpus.from_arrays(good, good, size)
    with pytest.raises(TypeError, match="decode must be a function"):
        Corpus.from_arrays(good, good, 6, "hex")


def test_ids_are_shown_and_saved_and_never_encoded(tmp_path):
    rows = np.array([[0, 1, 2, 1]])
    plain = Corpus.from_arrays(rows, rows, 3).tokenizer
    assert plain.decode(torch.tensor([0, 2, 3, 1]), mask="?") == "0 2 ? 1"
    drawn = Corpus.from_arrays(rows, rows, 3, lambda ids: "".join(" .#?"[i] for i in ids)).tokenizer
    assert drawn.decode([0, 2, 3, 1]) == " #?."
    assert plain.encode("") == []
    with pytest.raises(ValueError, match=r"^these tokens are no text[^\n]*$"):
        plain.encode("0 1")
    with pytest.raises(ValueError, match="token id 4 is out of range"):
        plain.decode([4])
    drawn.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert isinstance(again, IdTokenizer)
    assert (again.vocab_size, again.eot_id) == (3, None)
    assert again.decode([0, 2]) == "0 2"  # a function is not saved


def test_a_network_of_arrays_is_saved_with_its_ids(tmp_path):
    rows = np.random.default_rng(0).integers(5, size=(8, 16))
    corpus = Corpus.from_arrays(rows, rows[:2], 5)
    config = DiTConfig(num_tokens=5, length=16, width=16, num_blocks=1, num_heads=1, cond_dim=8)
    save_pretrained(tmp_path / "net", DiffusionTransformer(config), AbsorbingGraph(5),
                    LogLinearNoise(), corpus.tokenizer)  # fmt: skip
    shown = load_tokenizer(tmp_path / "net").decode(corpus.valid[0])
    assert shown == " ".join(map(str, rows[0]))
