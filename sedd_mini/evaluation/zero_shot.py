"""Zero-shot perplexity: a model's bound on data sets that it was not trained on.

Such a number hangs on choices that a table of perplexities does not show. `DATA_SETS` is the one
place where ours are written down, beside what the SEDD paper and public codes do:

    rows        where the text comes from (hub name, configuration, split, column). A local file of
                the same form has a row a line (.txt) or in the same column (jsonl, parquet, …).
    documents   how rows become documents; the end-of-text token stands between documents
    detokenise  how a row goes back to ordinary text, which is what GPT-2's tokens are made for
    windows     all tokens in windows of the network's length (1 024 in the paper), each on its own,
                the last one shorter; nothing is dropped, no window overlaps another
    score       nats of all tokens, ends of text included, a token; and a word of the original form
                (what white space parts in it), which does not hang on the tokeniser

What holds for all of them, elsewhere:

    split       the paper names none; its public loader reads "validation" for text, and OpenAI's
                LAMBADA test file. GPT-2's authors scored the test splits, as we do; MDLM's table
                says validation. Figures of different splits differ by a few per cent.
    windows     the paper's loader (and MDLM's) ends every row, a blank one too, with the
                end-of-text token, and drops the rest of every batch of 1 000 rows. With `end_each`
                ours ends every row, too, but drops nothing. MDLM also frames each window with the
                end of text. GPT-2's authors let windows overlap, so a token has more context.
    unit        the paper's perplexities are a GPT-2 token; GPT-2's authors' are a word of the
                original, and so are not to be compared: 29.41 and 42.43 on WikiText2 are one model.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sedd_mini.checks import local_path
from sedd_mini.evaluation.windows import bound_of, perplexity, stream_windows
from sedd_mini.model import TextModel
from sedd_mini.text.documents import files_of, load_documents
from sedd_mini.text.formats import READERS

Rules = list[tuple[str, str]]  # patterns and what takes their place, in this order

# ---- detokenisers --------------------------------------------------------------------------------

CONTRACTIONS = [
    (r" (n't)\b", r"\1"),  # do n't → don't
    (r" '(s|t|re|ve|ll|d|m|S)\b", r"'\1"),  # cat 's → cat's; don 't → don't
    (r"(?<=s) '(?= |$)", "'"),  # the cats ' food → the cats' food
]
PUNCTUATION = [(r" ([.,;:!?])(?= |$|\")", r"\1")]
BRACKETS = [(r"([(\[{]) ", r"\1"), (r" ([)\]}])", r"\1")]
QUOTES = [(r'" ([^"]*?) "', r'"\1"'), (r"(?<!\S)' ([^']*?) '(?!\w)", r"'\1'")]
MONEY = [(r"([$£€]) (?=\d)", r"\1"), (r"(?<=\d) %", "%")]

WIKITEXT: Rules = [
    (r" @([-,.])@ ", r"\1"),  # 0 @.@ 7 → 0.7
    (r"(?<==) (?==)", ""),  # = = History = = → == History ==
    *CONTRACTIONS, *QUOTES, *PUNCTUATION, *BRACKETS, *MONEY,
    (r"(?<=\d) ([–/]) (?=\d)", r"\1"), (r" ° ?", "°"),
]  # fmt: skip
PTB: Rules = [
    *CONTRACTIONS, (r"(?<!\S)N(?!\S)", "1"), (r"\\/", "/"), (r"([$#]) (?=\d)", r"\1"),
    (r"(?<=\d) %", "%"), (r"<unk>", "?"),
]  # fmt: skip
LM1B: Rules = [
    (r"(https?) : / / ?", r"\1://"), *CONTRACTIONS, *QUOTES, *PUNCTUATION, *BRACKETS, *MONEY,
    (r" / ", "/"),
]  # fmt: skip
LAMBADA: Rules = [
    (r"[“”]", '"'), (r"[‘’]", "'"), (r"`` ?", '"'), (r" ?''", '"'), *CONTRACTIONS, *PUNCTUATION,
]  # fmt: skip


def rewrite(rules: Rules) -> Callable[[str], str]:
    """A detokeniser: applies the rules to a row, and takes the white space around it away."""

    def detokenise(row: str) -> str:
        row = row.strip()
        for pattern, new in rules:
            row = re.sub(pattern, new, row)
        return row

    return detokenise


DIGITS = dict(zip("0123456789", "zero one two three four five six seven eight nine".split(),
                  strict=True))  # fmt: skip


def text8_form(text: str) -> str:
    """Any text in text8's 27 letters: a to z and single spaces, each digit spelled (Mahoney)."""
    text = re.sub(r"\d", lambda digit: f" {DIGITS.get(digit[0], '')} ", text.lower())
    return re.sub(r"[^a-z]+", " ", text).strip()


# ---- documents -----------------------------------------------------------------------------------


def each_row(rows: Iterable[str]) -> Iterator[str]:
    return iter(rows)


def one_document(rows: Iterable[str]) -> Iterator[str]:
    if text := "\n".join(rows):
        yield text


def articles(rows: Iterable[str]) -> Iterator[str]:
    """A new document at every heading of the first level, "= Title ="."""
    article = []
    for row in rows:
        if re.fullmatch(r"= [^=].* =", row) and article:
            yield "\n".join(article)
            article = []
        article.append(row)
    yield from one_document(article)


def last_of_text8(rows: Iterable[str]) -> Iterator[str]:
    """The test split: of the whole file, 10⁸ characters, the last 5 million; else all there is."""
    text = " ".join(rows)
    yield text[-5_000_000:] if len(text) >= 100_000_000 else text


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSet:
    """One row of the table; the fields are those of this file's head.

    paper      what the SEDD paper's public loader does with it
    elsewhere  where other public codes differ
    """

    title: str
    repo: str
    config: str | None
    split: str
    column: str
    documents: Callable[[Iterable[str]], Iterator[str]]
    detokenise: Callable[[str], str]
    paper: str
    elsewhere: str


DATA_SETS = {
    "lambada": DataSet(
        "LAMBADA", "EleutherAI/lambada_openai", "default", "test", "text", each_row,
        rewrite(LAMBADA),
        paper="the whole passage, in OpenAI's form (ordinary text, with case); curly quotes made "
        "straight, a line end put before it",
        elsewhere="accuracy, and most perplexities called LAMBADA, are of the last word alone; "
        "the original form is lower-case and tokenised (`` do n't ''): our rules join it, but "
        "cannot give back the case",
    ),
    "wikitext2": DataSet(
        "WikiText2", "Salesforce/wikitext", "wikitext-2-raw-v1", "test", "text", articles,
        rewrite(WIKITEXT),
        paper='the raw form, so no <unk>; @-@, @,@ and @.@ joined; headings kept as "== X =="; '
        "every line, blank ones too, ended by the end-of-text token",
        elsewhere='ours joins "$ 5", "5 %" and "5 – 6", too; many codes join the lines by blank '
        "lines and detokenise nothing; the tokenised form has <unk>",
    ),
    "wikitext103": DataSet(
        "WikiText103", "Salesforce/wikitext", "wikitext-103-raw-v1", "test", "text", articles,
        rewrite(WIKITEXT),
        paper="as WikiText2",
        elsewhere="as WikiText2, of which it has the very test split: different figures for one "
        "model come from different windows or splits",
    ),
    "ptb": DataSet(
        "PTB", "ptb-text-only/ptb_text_only", "penn_treebank", "test", "sentence", one_document,
        rewrite(PTB),
        paper="Mikolov's form: lower case, no punctuation; N becomes 1, <unk> becomes ?; every "
        "sentence ended by the end-of-text token",
        elsewhere='ours joins "1 %", and lets the sentences, which follow one another in the '
        "newspaper, be lines of one document; some codes keep <unk> and N, some take the raw "
        "treebank, whose perplexity is far lower",
    ),
    "lm1b": DataSet(
        "One Billion Words", "billion-word-benchmark/lm1b", "plain_text", "test", "text", each_row,
        rewrite(LM1B),
        paper="a sentence a document, as they are shuffled; punctuation, quotes, brackets and "
        "contractions joined",
        elsewhere="models trained on it use bert-base-uncased tokens and windows of 128, and "
        "a perplexity a token or a word: no zero-shot figures",
    ),
    "text8": DataSet(
        "text8", "afmck/text8", None, "test", "text", last_of_text8, text8_form,
        paper="models trained on its 27 letters, in windows of 256 letters, bits a character: the "
        "last 5 million of its 100 million letters",
        elsewhere="a model of other tokens spells the same 27 letters in these, so its bits a "
        "character can be compared; not one of the five of the paper's zero-shot table",
    ),
}  # fmt: skip
FIVE = ("lambada", "wikitext2", "ptb", "wikitext103", "lm1b")  # in the order of the paper's table


def read_rows(
    name: str, source: str | Path | None = None, column: str | None = None, split: str | None = None
) -> list[str]:
    """The rows of a data set as they are, from the hub or from local files of the same form.

    Blank rows are left out. Raises FileNotFoundError or ValueError as `load_documents` does.
    """
    data = DATA_SETS[name]
    place = column or data.column, split or data.split
    if source is not None:
        return rows_of(source, *place)
    try:
        return rows_of(data.repo, *place, data.config)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{data.title}: {error}; or give a file of it (--data "
                                f"{name}=FILE)") from error  # fmt: skip


def rows_of(
    source: str | Path, column: str = "text", split: str = "train", config: str | None = None
) -> list[str]:
    """Of any source, the rows that are not blank: lines of a text file, or rows of a table."""
    documents = load_documents(source, column=column, split=split, config=config)
    if by_lines(source, split):
        documents = (line for text in documents for line in text.split("\n"))
    return [row for row in documents if row.strip()]


def by_lines(source: str | Path, split: str) -> bool:
    """Whether a row of it is a line: of a text file, or of a folder of them; not of a table."""
    path = local_path(source)
    if path.is_dir() and not list(path.glob("dataset_*.json")):
        path = files_of(path, split)[0]
    return path.is_file() and path.suffix.lower() not in READERS


def zero_shot(
    model: TextModel, name: str, rows: list[str], num: int | None = None, length: int | None = None,
    end_each: bool = False, **noise,
) -> dict:  # fmt: skip
    """The bound of a model on rows of a data set, with the choices that it hangs on.

    num       windows at most, from the beginning; None: all
    length    of a window; None: the network's
    end_each  the end-of-text token after every row, as the paper's loader does
    noise     repeats, times_each, seed and progress of `bound_of`
    """
    data, length = DATA_SETS[name], model.length if length is None else length
    rows = [*map(str.strip, rows)]
    detokenised = [row for row in map(data.detokenise, rows) if row]
    end_each = end_each and data.documents is not last_of_text8  # which has no rows
    documents = list((each_row if end_each else data.documents)(detokenised))
    windows = stream_windows(documents, model.tokenizer, length, end_each)
    words = sum(len(row.split()) for row in rows)
    tokens = sum(part.numel() for part in windows)
    if num is not None and num < sum(map(len, windows)):
        windows = [windows[0][:num]]
        words = round(words * windows[0].numel() / tokens)  # in proportion
    result = {
        "title": data.title, "split": data.split, "rows": len(rows), "documents": len(documents),
        "words": words, "windows": sum(map(len, windows)), "window_length": length,
        "end_of_text": "after every row" if end_each else "between documents",
    } | bound_of(model, windows, **noise)  # fmt: skip
    nats, error = (result["tokens"] * result[f"nats_per_token{e}"] for e in ("", "_error"))
    return result | perplexity(nats, error, words, "perplexity_per_word")
