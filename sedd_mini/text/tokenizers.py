"""Tokenisers: text to token ids and back.

All share one interface, whatever the pieces are:

    vocab_size       number of ids, the end-of-text id included
    eot_id           the id that stands between documents, or None where nothing does
    encode(text)     list of ids, never eot_id
    decode(ids)      text; eot_id is shown as "<|endoftext|>", and vocab_size, which is the MASK
                     state of an absorbing graph, as `mask`
    as_json()        all that it is, as a dict
    save(folder)     writes that to folder/tokenizer.json; `load_tokenizer(folder)` reads it back

Only JSON is ever read or written.
"""

import json
import re
import string
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from sedd_mini.files import write_json

END_OF_TEXT = "<|endoftext|>"
FILE_NAME = "tokenizer.json"
PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " \n"
TYPOGRAPHY = str.maketrans(
    {"\t": "    ", "‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "--", "…": "..."}
)


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

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = 1024) -> "BPETokenizer":
        """Learns vocab_size tokens: 256 bytes, the end of text, and the most useful merges.

        Fewer come out when the texts hold fewer pairs that occur twice. Raises ValueError for
        vocab_size < 257.
        """
        from tokenizers import models, pre_tokenizers, trainers

        if vocab_size < 257:
            raise ValueError(f"vocab_size must be at least 257 (256 bytes, {END_OF_TEXT}), "
                             f"got {vocab_size}")  # fmt: skip
        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
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


Tokenizer = CharTokenizer | WordTokenizer | BPETokenizer


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
    from tokenizers import Tokenizer, models

    folder = Path(source)
    if not folder.is_dir():
        return BPETokenizer(Tokenizer.from_file(download(str(source), FILE_NAME)))
    if (folder / FILE_NAME).exists():
        return BPETokenizer(Tokenizer.from_file(str(folder / FILE_NAME)))
    for vocab, merges in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if (folder / vocab).exists() and (folder / merges).exists():
            pairs = models.BPE.read_file(str(folder / vocab), str(folder / merges))
            backend = byte_level(models.BPE(*pairs))
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
    """The tokeniser that `save` wrote into a folder; also any byte-level tokenizer.json."""
    path = Path(folder) / FILE_NAME
    if not path.exists():
        raise FileNotFoundError(f"no tokeniser in {folder}: expected {path}")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("type") == "characters" and content["alphabet"] == PRINTABLE:
        return CharTokenizer()
    if content.get("type") == "words":
        return WordTokenizer(content["words"])
    if "model" in content:
        from tokenizers import Tokenizer

        return BPETokenizer(Tokenizer.from_str(json.dumps(content)))
    raise ValueError(f"{path} is of no kind known here (characters, words, byte-level BPE)")


def make_tokenizer(
    kind: str | Path | Tokenizer, texts: Iterable[str], vocab_size: int = 1024
) -> Tokenizer:
    """The tokeniser named "chars", "bpe" (trained on the texts) or "gpt2", or lying in a folder."""
    if isinstance(kind, Tokenizer):
        return kind
    if str(kind) == "chars":
        return CharTokenizer()
    if str(kind) == "bpe":
        return BPETokenizer.train(texts, vocab_size)
    if str(kind) == "gpt2":
        return gpt2_tokenizer()
    if (Path(kind) / "tokenizer.json").exists():
        return load_tokenizer(kind)
    if Path(kind).is_dir():
        return gpt2_tokenizer(kind)
    raise ValueError(f"unknown tokeniser '{kind}': expected 'chars', 'bpe', 'gpt2' or a folder")


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
