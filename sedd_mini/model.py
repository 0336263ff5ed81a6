"""A trained network with all that belongs to it: write text, fill gaps, bound the likelihood.

A `TextModel` is a network, its graph and schedule, and a tokeniser; `load` reads one from a folder
or the hub. The network may be any function model(x, sigma, at=mask) → log-scores, the tokeniser
anything with encode, decode and vocab_size; ids in place of text are taken as they are.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sedd_mini.checks import graph_and_noise, local_path, shown, whole_number
from sedd_mini.evaluate import Bound
from sedd_mini.evaluation.bounds import at_positions, bounds, entries, known_tokens, total
from sedd_mini.network.pretrained import find_folder, load_pretrained
from sedd_mini.samplers import Step, evaluation_mode, find_device, generators, sample
from sedd_mini.text.tokenizers import BPETokenizer, WordTokenizer, load_tokenizer, make_tokenizer

GAP = re.compile(r"_{3,}")  # two are common in code: __init__
GROUP = 2**28  # the most log-scores that sampling holds at a time: 1 GiB in float32
BATCH = 2**25  # of a bound, which needs several copies


class TextNote(UserWarning):
    """The warning that a tokeniser reads a text as another one."""


class TextModel:
    """network, graph, noise and tokenizer in one; `length` is the longest text, in tokens.

    length: default `network.config.length`. Raises ValueError if there is neither, or if the
    tokeniser and the graph count different tokens.
    """

    def __init__(self, network: Callable, graph, noise, tokenizer, length: int | None = None):
        graph_and_noise(graph, noise, network)
        if length is None:
            length = getattr(getattr(network, "config", None), "length", None)
            if length is None:
                raise ValueError("network has no config.length: give length, its longest text")
        if (size := getattr(tokenizer, "vocab_size", None)) != graph.num_tokens:
            raise ValueError(f"the tokeniser has {size} tokens, the network {graph.num_tokens}: "
                             "give the tokeniser that the network was trained with (--tokenizer "
                             "in a command)")  # fmt: skip
        self.network, self.graph, self.noise, self.tokenizer = network, graph, noise, tokenizer
        self.length = whole_number("length", length, 1, 2**24)

    @property
    def device(self) -> torch.device:
        return find_device(self.network, None, None)

    def __repr__(self) -> str:
        size = ""
        if isinstance(self.network, torch.nn.Module):
            size = f" of {sum(p.numel() for p in self.network.parameters()) / 1e6:.1f} M weights"
        kind = type(self.tokenizer).__name__
        return (
            f"TextModel({type(self.network).__name__}{size}, {self.graph}, {self.noise}, {kind}, "
            f"length {self.length}, on {self.device})"
        )

    def write(self, num: int = 1, length: int | None = None, steps: int = 128, prompt="",
              suffix="", seed: int = 0, sampler: str | Step = "tweedie", callback=None,
              ) -> list[str]:  # fmt: skip
        """`num` texts of `length` tokens (default: all) between a prompt and a suffix.

        Text i of a seed is the same whatever `num` is. sampler and callback: `method` and
        `callback` of `sample`. In a BPE a space belongs to the word after it, so one at the
        prompt's end is left to the model. Raises ValueError for what does not fit; warns where the
        prompt or the suffix is read as another text.
        """
        length = self.length if length is None else whole_number("length", length, 1, 2**24)
        given = template(self.tokenizer, prompt=prompt, suffix=suffix, length=length)
        return self.complete(given, num, steps, seed, sampler, callback)

    def fill(self, text, num: int = 1, gap: int | None = None, steps: int = 128, seed: int = 0,
             sampler: str | Step = "tweedie", callback=None) -> list[str]:  # fmt: skip
        """`num` texts with the gaps (____) of `text` filled, `gap` tokens each: see `template`."""
        if hasattr(text, "__len__") and len(text) == 0:
            raise ValueError("the text is empty: mark gaps by ____, or use write(prompt=…)")
        given = template(self.tokenizer, text=text, gap=gap)
        return self.complete(given, num, steps, seed, sampler, callback)

    def complete(self, given: Tensor, num, steps, seed, sampler="tweedie", callback=None):
        """`num` texts that have the tokens `given` (L,), −1 where free."""
        num, size = whole_number("num", num, 1), len(given)
        if size > self.length and not getattr(self.network, "any_length", False):
            raise ValueError(f"{size} tokens are more than the {self.length} of the network")
        texts, group = [], max(1, GROUP // (size * self.graph.num_states))
        while len(texts) < num:
            some = generators(seed, min(group, num - len(texts)), first=len(texts))
            x = sample(
                self.network, self.graph, self.noise, (len(some), size), steps, sampler,
                clamp=given, generator=some, callback=callback, device=self.device,
            )  # fmt: skip
            texts += [self.tokenizer.decode(row) for row in x.tolist()]
        return texts

    def bound(self, texts: Iterable, repeats: int = 8, times_each: int = 8, seed: int = 0,
              given: Iterable | None = None) -> list[Bound]:  # fmt: skip
        """For each text, or list of ids: the likelihood bound, its error bar, bits a character.

        A text longer than the network's length is cut into windows of that length and a last,
        shorter one; their bounds are summed, so no window sees what stands before it. The noise
        of text i comes from (seed, i). Characters are those of the text as the tokeniser reads it:
        where it reads another text, a warning says so.

        given: for each text the tokens that are known: a mask, one bool a token, or how many come
        first. The bound is one on −log p(rest | given), and has no characters: see `bounds`.
        Raises ValueError for an empty text, and for one that is given whole.
        """
        if isinstance(texts, str) or not hasattr(texts, "__iter__"):
            raise TypeError(f"texts must be a list of texts, got a {type(texts).__name__}")
        texts, found_bounds = list(texts), []
        masks = entries(given, len(texts))
        for i, text in enumerate(texts):
            ids, found = read(self.tokenizer, text, f"text {i}")
            if not ids:
                raise ValueError(f"text {i} is empty: a bound needs at least one token")
            (generator,) = generators(seed, 1, first=i)
            mask = known_tokens(masks[i], len(ids), i)
            windows = torch.tensor(ids).split(self.length), mask.split(self.length)
            windows = [(x, known) for x, known in zip(*windows, strict=True) if not known.all()]
            parts = []
            for size in sorted({len(x) for x, _ in windows}, reverse=True):  # the last is shorter
                rows = [torch.stack(r) for r in zip(*(w for w in windows if len(w[0]) == size))]
                parts += self.bounds_of(*rows, repeats, times_each, generator)
            characters = None if found is None or mask.any() else len(found)
            found_bounds.append(replace(total(parts), characters=characters))
        return found_bounds

    def bounds_of(self, x0: Tensor, given: Tensor, repeats, times_each, generator) -> list[Bound]:
        """The bounds of windows x0 (M, L), given (M, L)."""
        network, device = self.network, self.device
        if device.type == "mps":  # it has no float64, which the loss needs
            device = torch.device("cpu")

            def network(x, sigma, at):
                x, sigma, at = (tensor.to(self.device) for tensor in (x, sigma, at))
                return self.network(x, sigma, at=at).to(device)

        with evaluation_mode(self.network):
            return bounds(
                network, self.graph, self.noise, x0.to(device), given if given.any() else None,
                repeats, times_each, max(1, BATCH // (x0.shape[1] * self.graph.num_states)),
                generator, terms=at_positions,
            )  # fmt: skip


def load(name_or_folder: str | Path, device: str | None = None, tokenizer=None,
         length: int | None = None) -> TextModel:  # fmt: skip
    """The TextModel of a training folder, a network's folder, or a name on the hub.

    device     None: cuda, mps or cpu, the first that works here
    tokenizer  None: the one that lies beside the network; else "gpt2", a folder, or a tokeniser
    length     of the longest text, in tokens; None: the config's

    Raises FileNotFoundError if something is not there, ValueError if it does not fit.
    """
    device = working_device(device)
    network, graph, noise = load_pretrained(name_or_folder, device)
    if refusal := getattr(network, "no_text_model", None):
        raise ValueError(f"{name_or_folder} holds {refusal}")
    if bad := [name for name, p in network.named_parameters() if not p.isfinite().all()]:
        raise ValueError(f"the weights in {name_or_folder} are not finite ({bad[0]} first): train "
                         "again, or fetch it again")  # fmt: skip
    if tokenizer is None:
        try:
            tokenizer = load_tokenizer(find_folder(name_or_folder))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}. Say which one the network was trained with, by "
                                    "tokenizer=… (in a command --tokenizer gpt2): gpt2 for the "
                                    "released weights, or a folder") from error  # fmt: skip
    elif isinstance(tokenizer, str | Path):
        place = local_path(tokenizer)
        if tokenizer not in ("gpt2", "chars") and not place.is_dir():
            raise ValueError(f"tokenizer must be a folder, 'gpt2' or 'chars', got {tokenizer!r}")
        tokenizer = make_tokenizer(place if place.is_dir() else tokenizer, ())
    return TextModel(network, graph, noise, tokenizer, length)


def working_device(device: str | torch.device | None = None) -> str:
    """The device that is asked for, if it works here; None: the first that does."""
    reason = ""
    for name in ("cuda", "mps", "cpu") if device is None else (device,):
        try:
            (torch.ones(1, device=name) + 1).tolist()
            return str(name)
        except (RuntimeError, AssertionError, TypeError) as error:
            reason = str(error).splitlines()[0].split(". ")[0]
    raise ValueError(f"device {str(device)!r} does not work here ({reason:.80}): give cpu, or none")


def template(tokenizer, prompt="", text="", suffix="", length: int = 0,
             gap: int | None = None) -> Tensor:  # fmt: skip
    """What is given and what is free, (L,) int64: token ids, and −1 for a free position.

    Either `text` with gaps, each a run of three or more underscores; or a prompt, a suffix, or
    both, with everything between them free, `length` tokens in all. A gap gets `gap` tokens; by
    default one word of a word tokeniser, half as many tokens of a BPE as underscores, or as many of
    any other. A BPE puts the space before a word into its token: so that the word can be any, a
    space before a gap, or at the end of the prompt, is left to it. Each text may also be a list of
    ids, −1 where free. Warns where a tokeniser reads another text; raises ValueError if nothing is
    free.
    """
    gap = gap if gap is None else whole_number("gap (of at least one token)", gap, 1, 2**20)
    bpe, words = isinstance(tokenizer, BPETokenizer), isinstance(tokenizer, WordTokenizer)
    if not isinstance(text, str) or text:
        if len(prompt) or len(suffix):
            raise ValueError("give either a text with gaps, or a prompt and a suffix, not both")
        ids, end = [], 0
        if not isinstance(text, str):
            if gap is not None:
                raise ValueError("gap is for the ____ of a text: in a list of ids give each gap -1")
            ids, text = read(tokenizer, text, "text", lowest=-1)[0], ""
        for match in GAP.finditer(text):
            piece, run = text[end : match.start()], len(match.group())
            ids += read(tokenizer, piece.removesuffix(" ") if bpe else piece, "text")[0]
            ids += [-1] * (gap or (1 if words else (run + 1) // 2 if bpe else run))
            end = match.end()
        ids += read(tokenizer, text[end:], "text")[0]
        missing = "mark gaps by ____, three underscores or more (in ids: by -1)"
    else:
        if bpe and isinstance(prompt, str) and prompt.endswith(" "):
            note("the space at the end of the prompt is left to the next word, as a BPE needs it")
            prompt = prompt.removesuffix(" ")
        before, after = (read(tokenizer, part, name)[0]
                         for part, name in ((prompt, "prompt"), (suffix, "suffix")))  # fmt: skip
        ids = before + [-1] * (whole_number("length", length, 0) - len(before) - len(after)) + after
        missing = f"prompt and suffix are {len(ids)} tokens, of {length}"
    if -1 not in ids:
        raise ValueError(f"nothing is left to fill in: {missing}")
    return torch.tensor(ids)


def read(tokenizer, text, name: str, lowest: int = 0) -> tuple[list[int], str | None]:
    """The ids of a text, and what text they stand for: a warning says so if it is another one.

    A list of ids in [lowest, vocab_size), whatever holds them, is taken as it is.
    """
    if isinstance(text, bytes) or not hasattr(text, "__len__") or getattr(text, "ndim", 1) != 1:
        kind = type(text).__name__
        raise TypeError(f"{name} must be text or a list of token ids, got {kind} {shown(text)}")
    if not isinstance(text, str):
        ids, last = getattr(text, "tolist", lambda: text)(), tokenizer.vocab_size - 1
        return [whole_number(f"a token id of {name}", i, lowest, last) for i in ids], None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the {name} holds bytes that are no UTF-8, at character "
                         f"{error.start + 1}: give it in the encoding of the terminal") from None
    ids = list(tokenizer.encode(text))
    found = tokenizer.decode(ids)
    if found != text and not isinstance(tokenizer, WordTokenizer):  # which drops white space
        pairs = enumerate(zip(found, text, strict=False))
        i = next((i for i, (a, b) in pairs if a != b), min(len(found), len(text)))
        note(f"the {name} holds what the tokeniser lacks, and is read otherwise: "
             f"{text[i : i + 20]!r} as {found[i : i + 20]!r}")  # fmt: skip
    return ids, found


def note(message: str) -> None:
    warnings.warn(message, TextNote, stacklevel=4)
