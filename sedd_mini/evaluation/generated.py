"""Judging what a model writes: generative perplexity, and what must stand beside it.

Generative perplexity is the perplexity of samples under a judge, another model. A judge likes
what is common: text of few, frequent words scores better than real text does. So `judge_samples`
never gives it alone: the entropy of the tokens, distinct n-grams and repetition stand beside it,
and the same figures of real text of equal size, since all of them depend on size.

Samples of the synthetic language have a better judge, the language itself: `log_prob` is exact,
and `divergence` measures how far the samples' n-grams are from the true law.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from sedd_mini.checks import local_path, one_line, whole_number
from sedd_mini.evaluation.windows import perplexity
from sedd_mini.model import GROUP, TextModel
from sedd_mini.samplers import generators, sample
from sedd_mini.text.synthetic import HiddenMarkovChain, SyntheticLanguage

BATCH = 16  # samples, or texts of a judge, at a time
FOLDS = 10  # of the samples, each of which is judged by what the others tell
SHARES = torch.tensor([0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999]).double()[:, None]

Rows = list[list[int]]  # token ids, a list a text


def draw(model: TextModel, num: int, length: int | None = None, steps: int = 128,
         sampler="tweedie", seed: int = 0, progress: bool = True) -> Rows:  # fmt: skip
    """The tokens of `num` samples: those that `model.write` of the same seed shows as text."""
    num, length = whole_number("num", num, 1), model.length if length is None else length
    if whole_number("length", length, 1) > model.length:
        raise ValueError(f"{length} tokens are more than the {model.length} of the network")
    most, rows = min(BATCH, max(1, GROUP // (length * model.graph.num_states))), []
    with tqdm(total=num, unit="sample", desc="sampling", disable=not progress) as bar:
        while len(rows) < num:
            some = generators(seed, min(most, num - len(rows)), first=len(rows))
            x = sample(model.network, model.graph, model.noise, (len(some), length), steps, sampler,
                       generator=some, device=model.device)  # fmt: skip
            rows += x.tolist()
            bar.update(len(some))
    return rows


# ---- judges --------------------------------------------------------------------------------------


@dataclass
class Scores:
    """Of each text −log p under a judge, in nats, (n,), and the number of tokens scored, (n,)."""

    nats: Tensor
    tokens: Tensor

    def as_dict(self) -> dict:
        """Both forms of perplexity, and their errors: the spread over texts (one standard error).

        perplexity                    corpus form: exp(all nats / all tokens)
        perplexity_mean_of_sequences  mean over texts of exp(nats / tokens): what many public codes
                                      print; never smaller, and ruled by the worst texts
        The error is None for a single text.
        """
        nats, tokens = self.nats.double(), self.tokens.double()
        rate = (nats.sum() / tokens.sum()).item()
        error = error_of_mean(nats - rate * tokens)  # of a ratio of sums, to first order
        result = {"tokens": int(tokens.sum()), "nats_per_token": rate,
                  "nats_per_token_error": error and error / tokens.mean().item()}  # fmt: skip
        corpus = perplexity(nats.sum().item(), (error or 0) * len(nats), tokens.sum().item(),
                            "perplexity")  # fmt: skip
        each = (nats / tokens).exp()
        name, known = "perplexity_mean_of_sequences", bool(each.isfinite().all())
        mean = {name: each.mean().item() if known else None,
                f"{name}_error": error_of_mean(each) if known else None}  # fmt: skip
        return result | corpus | {"perplexity_error": error and corpus["perplexity_error"]} | mean


def error_of_mean(values: Tensor) -> float | None:
    """One standard error of the mean of independent values (n,); None for one value."""
    return (values.double().std() / math.sqrt(len(values))).item() if len(values) > 1 else None


class CausalJudge:
    """A causal language model of Hugging Face with its tokeniser, from a folder or the hub.

    It reads the text, not the samples' tokens. The first token of a text is what the others are
    conditioned on, and not scored itself: samples begin in the middle of a sentence, where an
    end-of-text token before them would be wrong. A text longer than the judge's context is cut into
    pieces, each scored so. Raises FileNotFoundError for a name that cannot be loaded, in one line.
    """

    def __init__(self, name: str, device: str | torch.device = "cpu"):
        from huggingface_hub import HfApi, constants

        self.name, self.device = str(name), device
        try:
            try:
                self.tokenizer, self.model = load_causal(self.name, local_files_only=True)
            except Exception:  # neither a folder nor in the cache
                if local_path(name).is_dir() or constants.HF_HUB_OFFLINE:
                    raise
                HfApi().model_info(self.name, timeout=10)  # fails at once, where loading would not
                self.tokenizer, self.model = load_causal(self.name)
        except Exception as error:  # each layer fails in its own way
            raise FileNotFoundError(
                f"the judge {self.name!r} could not be loaded, as a folder or from the hub "
                f"({type(error).__name__}: {one_line(error)[:150]}): give the name or the folder "
                "of a causal language model of Hugging Face, or synthetic"
            ) from error
        self.model.to(device).eval()
        config = self.model.config
        self.length = getattr(config, "max_position_embeddings", None) or 1024
        self.size = self.model.get_input_embeddings().num_embeddings

    @torch.no_grad()
    def score(self, texts: list[str], progress: bool = True) -> Scores:
        """`Scores` of texts; FloatingPointError for NaN, ValueError for fewer than two tokens."""
        pieces = []  # (text it belongs to, ids)
        for i, text in enumerate(texts):
            ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            if len(ids) < 2:
                raise ValueError(f"text {i} has {len(ids)} tokens of the judge {self.name!r}, and "
                                 "the first is not scored: give at least two")  # fmt: skip
            if max(ids) >= self.size:
                raise ValueError(f"the tokeniser of the judge {self.name!r} gives the id "
                                 f"{max(ids)}, and the model has {self.size}: another tokeniser "
                                 "lies beside it")  # fmt: skip
            cuts = (ids[start : start + self.length] for start in range(0, len(ids), self.length))
            pieces += [(i, piece) for piece in cuts if len(piece) > 1]
        pieces.sort(key=lambda piece: len(piece[1]))
        nats = torch.zeros(len(texts), dtype=torch.float64)
        tokens = torch.zeros(len(texts), dtype=torch.int64)
        with tqdm(total=len(pieces), unit="text", desc="judging", disable=not progress) as bar:
            for start in range(0, len(pieces), BATCH):
                which, rows = zip(*pieces[start : start + BATCH], strict=True)
                values, counts = self.nats_of(rows)
                if not values.isfinite().all():
                    raise FloatingPointError(f"the judge {self.name!r} gives {values.sum():g} for "
                                             "a text: are its weights whole?")  # fmt: skip
                nats.index_add_(0, torch.tensor(which), values)
                tokens.index_add_(0, torch.tensor(which), counts)
                bar.update(len(rows))
        return Scores(nats, tokens)

    def nats_of(self, rows: Iterable[list[int]]) -> tuple[Tensor, Tensor]:
        """−log p of every row but its first token, and how many tokens that are, (b,) each."""
        counts = torch.tensor([len(row) for row in rows])
        x = torch.zeros(len(counts), int(counts.max()), dtype=torch.int64)
        for i, row in enumerate(rows):
            x[i, : len(row)] = torch.tensor(row)  # padded on the right, which no token looks at
        here = torch.arange(x.shape[1]) < counts[:, None]
        logits = self.model(x.to(self.device), attention_mask=here.long().to(self.device)).logits
        total = torch.zeros(len(x), dtype=torch.float64)
        for i, row in enumerate(logits):  # a row at a time: GPT-2's have 50 257 float32 a token
            log_p = row[: counts[i] - 1].float().log_softmax(-1).cpu()
            total[i] = -log_p.gather(-1, x[i, 1 : counts[i], None]).double().sum()
        return total, counts - 1


def load_causal(name: str, **options):
    """Tokeniser and model by `transformers`; safetensors only, as nothing is unpickled here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    options["use_safetensors"] = True
    return tokenizer, AutoModelForCausalLM.from_pretrained(name, **options)


def score_by_source(source: HiddenMarkovChain, rows: Rows) -> Scores:
    """`Scores` of token ids under the known source, exact; every token is scored."""
    nats = torch.cat([-source.log_prob(torch.tensor([row])) for row in rows])
    return Scores(nats, torch.tensor([len(row) for row in rows]))


# ---- what stands beside it -----------------------------------------------------------------------


def statistics(rows: Rows) -> dict:
    """What tells poor text from rich, of token ids; compare with text of equal size alone.

    unigram_entropy_bits    mean over texts of the plug-in entropy of a text's own tokens, and its
                            standard error; the entropy that papers print (often in nats)
    pooled_entropy_bits     plug-in entropy of the tokens of all texts together
    distinct_1, _2, _3      different n-grams over all n-grams, of all texts together
    repetition              share of a text's 4-grams that occurred in it before, mean over texts
    """
    entropies = torch.tensor([entropy(Counter(row)) for row in rows], dtype=torch.float64)
    result = {
        "unigram_entropy_bits": entropies.mean().item(),
        "unigram_entropy_bits_error": error_of_mean(entropies),
        "pooled_entropy_bits": entropy(Counter(i for row in rows for i in row)),
    }
    for n in (1, 2, 3):
        grams = [gram for row in rows for gram in ngrams(row, n)]
        result[f"distinct_{n}"] = len(set(grams)) / len(grams) if grams else None
    fours = [ngrams(row, 4) for row in rows if len(row) >= 4]
    repeated = torch.tensor([1 - len(set(grams)) / len(grams) for grams in fours])
    result["repetition"] = repeated.double().mean().item() if fours else None
    result["repetition_error"] = error_of_mean(repeated) if fours else None
    return result


def ngrams(row: list[int], n: int) -> list[tuple[int, ...]]:
    return list(zip(*(row[i:] for i in range(n)), strict=False))


def entropy(counts: Counter) -> float:
    """Plug-in entropy in bits of what was counted."""
    total = sum(counts.values())
    return -sum(c / total * math.log2(c / total) for c in counts.values())


# ---- divergence from a known source --------------------------------------------------------------


class Divergence(NamedTuple):
    """KL(q_n ‖ p_n) in bits, from below and above in expectation; each with a standard error."""

    least: float
    least_error: float
    most: float
    most_error: float


def divergence(source: HiddenMarkovChain, samples: Tensor, n: int) -> Divergence:
    """How far the n-grams of samples (B, L) are from the source's true ones: KL(q_n ‖ p_n), bits.

    q_n is the law of n successive tokens of the samples, averaged over places; p_n is the source's,
    exact by the forward algorithm and positive everywhere. Which divergence, and why: KL(q ‖ p) of
    whole sequences needs log q, which a sampler does not tell. That of n-grams is 0 for a perfect
    sampler and a lower bound of KL(q ‖ p) (leaving tokens out, and averaging over places, make a KL
    no larger), though blind to errors that reach further than n tokens. Of it are estimated

    most   the KL of the counted n-grams, E ≥ KL(q_n ‖ p_n) as a KL is convex: too large by about
           (K − 1)/(2 · n-grams) nats for K possible ones, far more where most kinds are seen once
    least  mean of log₂ q̃/p over samples that q̃ has not seen, E = KL(q_n ‖ p_n) − KL(q_n ‖ q̃) ≤ it.
           q̃ comes from nine tenths of the samples, mixed with p_n in the proportion that serves the
           other tenths best

    Of true samples `least` is 0 within its error, and `most` the bias alone: compare with those of
    equal size. (Subtracting that bias from `most` would not do: it is another one for samples with
    richer or poorer n-grams, and can even turn the sign.) The errors are the spread over samples.
    """
    n = whole_number("n", n, 1, samples.shape[1])
    if len(samples) < 4:
        raise ValueError(f"a divergence needs at least 4 samples, got {len(samples)}")
    grams = samples.unfold(1, n, 1)  # (B, L − n + 1, n)
    kinds, which = grams.flatten(0, 1).unique(dim=0, return_inverse=True)
    which, p = which.view(len(samples), -1), source.log_prob(kinds).exp()  # p (U,)

    def count(rows: Tensor) -> Tensor:
        return torch.bincount(which[rows].flatten(), minlength=len(kinds)).double()

    fold = torch.arange(len(samples)) % min(FOLDS, len(samples))
    all_counts = count(fold >= 0)
    each = torch.empty(len(samples), len(SHARES), dtype=torch.float64)  # log₂ q̃/p, by share of p
    for f in fold.unique():
        seen = all_counts - count(fold == f)
        ratio = (1 - SHARES) * seen / seen.sum() / p + SHARES  # (shares, U)
        each[fold == f] = ratio.log2()[:, which[fold == f]].mean(-1).T
    held_out = torch.empty(len(samples), dtype=torch.float64)
    for f in fold.unique():
        held_out[fold == f] = each[fold == f][:, each[fold != f].mean(0).argmax()]
    counted = (all_counts / all_counts.sum() / p).log2()[which].mean(1)  # (B,)
    return Divergence(held_out.mean().item(), error_of_mean(held_out),
                      counted.mean().item(), error_of_mean(counted))  # fmt: skip


# ---- all of it -----------------------------------------------------------------------------------


def judge_samples(
    samples: Rows, real: Rows, score: Callable[[Rows], Scores],
    source: HiddenMarkovChain | None = None,
) -> dict:  # fmt: skip
    """Samples and real text of the same number of tokens, each by `score` and `statistics`.

    samples, real  token ids; real text must have the same lengths, text for text
    score          of token ids, by a judge
    source         adds the `divergence` of n-grams, n = 1, 2, 3, for texts of one length
    Raises ValueError for lengths that do not fit.
    """
    if [*map(len, samples)] != [*map(len, real)]:
        raise ValueError("samples and real text must have the same lengths, text for text")
    result = {"num": len(samples)}
    for name, rows in (("samples", samples), ("real", real)):
        result[name] = score(rows).as_dict() | statistics(rows)
        if source is not None:
            result[name] |= divergences(source, rows)
    key = "unigram_entropy_bits"
    pair = [result[name][key] for name in ("samples", "real")]
    errors = [result[name][f"{key}_error"] for name in ("samples", "real")]
    result["entropy_difference_bits"] = pair[0] - pair[1]
    result["entropy_difference_bits_error"] = None if None in errors else math.hypot(*errors)
    return result


def divergences(source: HiddenMarkovChain, rows: Rows) -> dict:
    """The `divergence` of n-grams, n = 1, 2, 3; ValueError for texts of several lengths."""
    if len({*map(len, rows)}) > 1:
        raise ValueError("a divergence needs samples of one length: cut them to one")
    samples, result = torch.tensor(rows), {}
    for n in range(1, min(3, samples.shape[1]) + 1):
        for name, value in divergence(source, samples, n)._asdict().items():
            result[f"kl_{n}gram_bits_{name}"] = value
    return result


def check_source(tokenizer, language: SyntheticLanguage) -> None:
    """Raises ValueError unless the tokens are the words of the language, in its order."""
    if getattr(tokenizer, "words", None) != language.words:
        raise ValueError(
            f"the judge synthetic knows the {len(language.words)} words of the synthetic language, "
            f"and the samples are tokens of another tokeniser ({type(tokenizer).__name__} of "
            f"{tokenizer.vocab_size}): name a causal language model as --judge"
        )
