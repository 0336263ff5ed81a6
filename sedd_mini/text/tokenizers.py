"""Tokenisers: text to token ids and back.

Characters, words, byte-level BPE (one's own or GPT-2's), and, for what is no text, bare ids: all
have the interface of `Tokenizer`, and so may one of your own. Only JSON is ever read or written.
"""

import hashlib
import json
import re
import string
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from sedd_mini.checks import local_path, one_line, whole_number
from sedd_mini.files import read_json, write_json

END_OF_TEXT = "<|endoftext|>"
FILE_NAME = "tokenizer.json"
BPE_TOKENS = 1024  # of a new BPE, unless told
PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " \n"
TYPOGRAPHY = str.maketrans(
    {"\t": "    ", "‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."}
)


class Tokenizer(Protocol):
    """What every tokeniser has; with `encode_batch(texts)` it may encode many at once."""

    vocab_size: int  # number of ids, the end-of-text id included
    eot_id: int | None  # the id that stands between documents, or None where nothing does

    def encode(self, text: str) -> list[int]:
        """The ids of a text, never eot_id."""

    def decode(self, ids: Iterable[int], mask: str = "_") -> str:
        """The text; eot_id is shown as "<|endoftext|>", and vocab_size, which is the MASK state of
        an absorbing graph, as `mask`."""

    def as_json(self) -> dict:
        """All that it is."""

    def save(self, folder: str | Path) -> None:
        """Writes that to folder/tokenizer.json, for `load_tokenizer`."""


INTERFACE = ("vocab_size", "eot_id", "encode", "decode", "as_json", "save")


def to_printable(text: str) -> str:
    """The text in printable ASCII and newlines: quotes and dashes straightened, accents dropped,
    any other character replaced by "?"."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(TYPOGRAPHY)
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if not unicodedata.combining(c))
    return re.sub(r"[^\n -~]", "?", text)


class CharTokenizer:
    """One id a character: the 95 printable ASCII characters, the newline, and the end of text.

    Other characters are first brought into that alphabet by `to_printable`, so that
    decode(encode(text)) == to_printable(text).
    """

    def __init__(self):
        self.ids = {character: i for i, character in enumerate(PRINTABLE)}
        self.eot_id = len(PRINTABLE)
        self.vocab_size = self.eot_id + 1

    def encode(self, text: str) -> list[int]:
        return [self.ids[character] for character in to_printable(text)]

    def decode(self, ids: Iterable[int], mask: str = "_") -> str:
        shown = [*PRINTABLE, END_OF_TEXT, mask]
        return "".join(shown[i] for i in check_ids(ids, self.vocab_size))

    def as_json(self) -> dict:
        return {"type": "characters", "alphabet": PRINTABLE}

    def save(self, folder: str | Path) -> None:
        write_json(Path(folder) / FILE_NAME, self.as_json())


class WordTokenizer:
    """One id a word of a fixed list; words are separated by white space.

    There is no end-of-text token: documents follow one another directly, as the sentences of a
    stationary stream do. `encode` raises ValueError for a word that is not in the list.
    """

    eot_id = None

    def __init__(self, words: list[str]):
        self.words = list(words)
        if not words or len(set(words)) < len(words) or any(w.split() != [w] for w in words):
            raise ValueError("words must be a list of different words, without white space in them")
        self.ids = {word: i for i, word in enumerate(self.words)}
        self.vocab_size = len(self.words)

    def encode(self, text: str) -> list[int]:
        unknown = sorted(set(text.split()) - self.ids.keys())
        if unknown:
            raise ValueError(
                f"not in the vocabulary: {', '.join(unknown[:5])}; "
                f"the {self.vocab_size} words are: {' '.join(self.words)}"
            )
        return [self.ids[word] for word in text.split()]

    def decode(self, ids: Iterable[int], mask: str = "_") -> str:
        shown = [*self.words, mask]
        return " ".join(shown[i] for i in check_ids(ids, self.vocab_size))

    def as_json(self) -> dict:
        return {"type": "words", "words": self.words}

    def save(self, folder: str | Path) -> None:
        write_json(Path(folder) / FILE_NAME, self.as_json())


class BPETokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016, Radford et al. 2019), by `tokenizers`.

    Every string can be encoded and comes back exactly. Make one with `BPETokenizer.train` or
    `gpt2_tokenizer`. The text "<|endoftext|>" inside a document is encoded as ordinary text.
    """

    def __init__(self, backend):
        self.backend = backend
        self.backend.no_truncation()  # a file may hold either, and each would spoil documents
        self.backend.no_padding()
        self.backend.encode_special_tokens = True  # no document can smuggle in an end of text
        self.eot_id = backend.token_to_id(END_OF_TEXT)
        self.vocab_size = backend.get_vocab_size()
        if self.eot_id is None:
            raise ValueError(f"the tokeniser has no token {END_OF_TEXT} to put between documents")
        if missing := [c for c in byte_alphabet() if backend.token_to_id(c) is None]:
            raise ValueError(f"the tokeniser lacks {len(missing)} of the 256 bytes, so some texts "
                             "would be lost in it")  # fmt: skip

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 1024) -> "BPETokenizer":
        """Learns vocab_size tokens: 256 bytes, the end of text, and the most useful merges.

        Fewer come out when the texts hold fewer pairs that occur twice. Raises ValueError for
        vocab_size < 257.
        """
        from tokenizers import models, trainers

        vocab_size = whole_number("vocab_size", vocab_size, 257, 2**31 - 1)  # 256 bytes and an end
        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=byte_alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend)

    def encode(self, text: str) -> list[int]:
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The same as [encode(text) for text in texts], on all cores."""
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Iterable[int], mask: str = "_") -> str:
        shown, run = {self.eot_id: END_OF_TEXT, self.vocab_size: mask}, []
        pieces = []
        for i in [*check_ids(ids, self.vocab_size), None]:
            if i is None or i in shown:  # bytes may form characters only within a run
                pieces += [self.backend.decode(run), shown.get(i, "")]
                run = []
            else:
                run.append(i)
        return "".join(pieces)

    def as_json(self) -> dict:
        return json.loads(self.backend.to_str())

    def save(self, folder: str | Path) -> None:
        write_json(Path(folder) / FILE_NAME, self.as_json())


class IdTokenizer:
    """Ids that are no text: pixels, bases, notes. `decode` shows them by a function, by default as
    numbers with spaces between; `encode` raises ValueError, but for the empty text.

    `show(ids) -> str` gets a list of ids, of which `vocab_size` is MASK. It is not saved: after
    loading give `IdTokenizer(vocab_size, show)` once more, as the tokeniser of `load` or by hand.
    """

    eot_id = None

    def __init__(self, vocab_size: int, show: Callable[[list[int]], str] | None = None):
        self.vocab_size = whole_number("vocab_size", vocab_size, 1)
        if show is not None and not callable(show):
            raise TypeError(f"decode must be a function of a list of ids, got {show!r}")
        self.show = show

    def encode(self, text: str) -> list[int]:
        if text:
            raise ValueError(
                "these tokens are no text, so none can be encoded: give ids, or leave out the text"
            )
        return []

    def decode(self, ids: Iterable[int], mask: str = "_") -> str:
        ids = check_ids(ids, self.vocab_size)
        if self.show is not None:
            return self.show(ids)
        return " ".join(mask if i == self.vocab_size else str(i) for i in ids)

    def as_json(self) -> dict:
        return {"type": "ids", "vocab_size": self.vocab_size}

    def save(self, folder: str | Path) -> None:
        write_json(Path(folder) / FILE_NAME, self.as_json())


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a byte-level BPE."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(model):
    """A `tokenizers.Tokenizer` around a BPE model, cutting text into words as GPT-2 does."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def gpt2_tokenizer(source: str | Path = "gpt2") -> BPETokenizer:
    """GPT-2's 50 257 tokens, from a folder or from the hub (or its cache).

    A folder holds tokenizer.json, or vocab.json + merges.txt, or encoder.json + vocab.bpe, which
    are three packings of the same. Raises FileNotFoundError when there is nothing to load.
    """
    from tokenizers import models

    folder = local_path(source)
    if not folder.is_dir():
        return read_bpe(download(str(source), FILE_NAME))
    if (folder / FILE_NAME).exists():
        return read_bpe(folder / FILE_NAME)
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).exists() and (folder / merges).exists():
            try:
                pairs = models.BPE.read_file(str(folder / vocab), str(folder / merges))
                backend = byte_level(models.BPE(*pairs))
            except Exception as error:  # the package raises bare Exceptions
                files = f"{folder / vocab} and {merges}"
                raise ValueError(f"{files} cannot be read: {one_line(error)}") from None
            backend.add_special_tokens([END_OF_TEXT])
            return BPETokenizer(backend)
    raise FileNotFoundError(
        f"no GPT-2 tokeniser in {folder}: expected tokenizer.json, or vocab.json and merges.txt, "
        "or encoder.json and vocab.bpe"
    )


def download(repo: str, name: str) -> str:
    """The path of a file of a hub repository, fetched or from the cache."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return hf_hub_download(repo, name, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    try:
        HfApi().model_info(repo, timeout=10)  # without network it fails at once, a download not
        return hf_hub_download(repo, name)
    except Exception as error:  # each layer fails in its own way
        raise FileNotFoundError(
            f"'{repo}' is no folder here, and its {name} is neither in the local cache nor could "
            f"it be downloaded ({type(error).__name__}: {error}). Give a folder that holds GPT-2's "
            "files, or get online once, or train a small tokeniser (BPETokenizer.train)"
        ) from error


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokeniser that `save` wrote into a folder; also any byte-level tokenizer.json.

    Raises FileNotFoundError where there is none, ValueError that names the file if it is broken.
    """
    path = local_path(folder) / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"no tokeniser in {folder}: expected {path}")
    content = read_json(path)
    try:
        match content:
            case {"type": "characters", "alphabet": alphabet} if alphabet == PRINTABLE:
                return CharTokenizer()
            case {"type": "words", "words": [*words]} if all(isinstance(w, str) for w in words):
                return WordTokenizer(words)
            case {"type": "ids", "vocab_size": vocab_size}:
                return IdTokenizer(vocab_size)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if "model" in content:
        return read_bpe(path)
    raise ValueError(f"{path} is of no kind known here (characters, words, ids, byte-level BPE)")


def read_bpe(path: str | Path) -> BPETokenizer:
    """A tokenizer.json of the package `tokenizers`; raises ValueError that names it if broken."""
    from tokenizers import Tokenizer

    try:
        return BPETokenizer(Tokenizer.from_str(Path(path).read_text(encoding="utf-8")))
    except Exception as error:  # the package raises bare Exceptions
        raise ValueError(f"{path} cannot be read as a tokeniser: {one_line(error)}") from None


def make_tokenizer(
    kind: str | Path | Tokenizer, texts: Iterable[str], vocab_size: int | None = None
) -> Tokenizer:
    """The tokeniser named "chars", "bpe" (of vocab_size tokens, 1024 by default, trained on the
    texts) or "gpt2", or lying in a folder, or the one that is given.

    Raises ValueError where it has another size than the `vocab_size` that is asked for.
    """
    if str(kind) == "bpe":
        return BPETokenizer.train(texts, BPE_TOKENS if vocab_size is None else vocab_size)
    if not isinstance(kind, str | Path):
        if missing := [name for name in INTERFACE if not hasattr(kind, name)]:
            raise TypeError(f"{kind!r} is no tokeniser: it has no {', '.join(missing)}")
        tokenizer = kind
    elif str(kind) == "chars":
        tokenizer = CharTokenizer()
    elif str(kind) == "gpt2":
        tokenizer = gpt2_tokenizer()
    elif (folder := local_path(kind)).joinpath(FILE_NAME).exists():
        tokenizer = load_tokenizer(folder)
    elif folder.is_dir():
        tokenizer = gpt2_tokenizer(folder)
    else:
        raise ValueError(
            f"unknown tokeniser {str(kind)!r}: expected 'chars', 'bpe', 'gpt2' or a folder"
        )
    if vocab_size not in (None, tokenizer.vocab_size):
        raise ValueError(
            f"vocab_size={vocab_size} is asked for, but the tokeniser {str(kind)[:100]!r} has "
            f"{tokenizer.vocab_size} tokens: a size can be chosen for a new 'bpe' alone"
        )
    return tokenizer


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 of all that a tokeniser is: a run or a preparation goes on with the same alone."""
    content = json.dumps(tokenizer.as_json(), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def check_same(
    own: Tokenizer, name: str, where: str, asked: str | Path | Tokenizer | None,
    vocab_size: int | None,
) -> None:  # fmt: skip
    """Raises ValueError if another tokeniser, or size, is asked for than data in tokens has.

    `own` is the tokeniser of the data and `name` what it was called when they were made.
    """
    if vocab_size not in (None, own.vocab_size):
        raise ValueError(
            f"{where} has {own.vocab_size} tokens, not the vocab_size={vocab_size} that is asked "
            "for: leave that out (vocab_size=…, --vocab-size), or give another source"
        )
    if asked is None or (isinstance(asked, str | Path) and str(asked) == name):
        return
    known = {"bpe", "chars", "gpt2"}
    different = str(asked) == "bpe" or {str(asked), name} <= known
    if different or tokenizer_hash(make_tokenizer(asked, ())) != tokenizer_hash(own):
        raise ValueError(
            f"{where} is in tokens of {name!r}, not of {str(asked)[:100]!r}: leave that out "
            "(tokenizer=…, --tokenizer), or give another source"
        )


def encode_all(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """The ids of every text, on all cores where the tokeniser can."""
    if hasattr(tokenizer, "encode_batch"):
        return tokenizer.encode_batch(texts)
    return [tokenizer.encode(text) for text in texts]


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """The ids as a list; raises ValueError unless all lie in [0, vocab_size] (the last is MASK)."""
    ids = [int(i) for i in ids]
    bad = [i for i in ids if not 0 <= i <= vocab_size]
    if bad:
        raise ValueError(f"token id {bad[0]} is out of range: ids go from 0 to {vocab_size - 1}, "
                         f"and {vocab_size} is MASK")  # fmt: skip
    return ids
