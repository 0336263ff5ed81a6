"""Judge a trained network: its bound on text, zero-shot data sets, or what it writes.

python -m sedd_mini evaluate bound --checkpoint RUN --data my.txt --part all --out bound.json
python -m sedd_mini evaluate zero-shot --checkpoint RUN --data wikitext2=FILE --out zero.json
python -m sedd_mini evaluate samples --checkpoint RUN --judge gpt2 --data my.txt --out judged.json

The result is one JSON object; every figure NAME has its standard error beside it, NAME_error.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sedd_mini.commands.options import Parser, filled, folder, number
from sedd_mini.files import check_writable, write_json

NAME = {"type": filled, "metavar": "NAME"}
COUNT = {"type": number(int, least=1), "metavar": "N"}
SETS = ("lambada", "wikitext2", "ptb", "wikitext103", "lm1b", "text8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(
        dest="what", required=True, metavar="bound|zero-shot|samples", prog="evaluate",
        parser_class=lambda prog, description: Parser(prog, description), help=argparse.SUPPRESS,
    )  # fmt: skip
    lines = [f"  {name:11s}{KINDS[name][0]}" for name in KINDS]
    parser.epilog = "\n".join([
        "evaluate WHAT [options], where WHAT is", *lines,
        "python -m sedd_mini evaluate WHAT --help tells its options.",
    ])  # fmt: skip
    for name, (description, add, _) in KINDS.items():
        add(kinds.add_parser(name, description=description + " [default]"))


def run(options: argparse.Namespace) -> None:
    """Print what was found and write it, whole, at the end; nothing is written of what fails."""
    out = Path(options.out)
    if out.is_dir():
        raise ValueError(f"--out {out} is a folder: name a file, such as {out / 'result.json'}")
    check_writable(out.absolute().parent)
    start = time.perf_counter()
    result = KINDS[options.what][2](options)
    result = {"command": options.command, **result, "seconds": time.perf_counter() - start}
    check_finite(result)
    write_json(out, result)
    print(f"written to {out}")


def check_finite(content, name: str = "the result") -> None:
    """Raises FloatingPointError for NaN or an infinity, which JSON does not know."""
    if isinstance(content, dict | list):
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            check_finite(value, str(key))
    elif isinstance(content, float) and not abs(content) < float("inf"):
        raise FloatingPointError(f"{name} came out as {content}: nothing is written")


# ---- options that they share ---------------------------------------------------------------------


def add_network(parser, required: bool = True) -> Callable:
    add = parser.add_argument_group("network").add_argument
    add("--checkpoint", required=required, **NAME, help="training or network folder, or hub name")
    add("--tokenizer", **NAME, help="gpt2, or a tokeniser's folder [the checkpoint's]")
    add("--device", **NAME, help="[cuda, mps or cpu, the first that works]")
    return add


def add_source(parser, what: str, required: bool) -> Callable:
    add = parser.add_argument_group("text").add_argument
    add("--data", required=required, **NAME, help=what)
    add("--part", default="valid", choices=("valid", "train", "all"),
        help="what training would hold out, or see; all: the whole text [valid]")  # fmt: skip
    add("--valid-fraction", type=number(float, above=0, below=1), default=0.05, metavar="X",
        help="share that training held out, > 0 and < 1 [0.05]")  # fmt: skip
    add("--column", default="text", **NAME, help="of a data set, that holds the text [text]")
    add("--split", default="train", **NAME, help="of a hub data set [train]")
    add("--config", **NAME, help="configuration of a hub data set")
    return add


def add_noise(parser) -> None:
    add = parser.add_argument_group("estimate").add_argument
    add("--repeats", type=number(int, least=2), default=8, metavar="N",
        help="estimates, whose spread is the error bar, ≥ 2 [8]")  # fmt: skip
    add("--times-each", **COUNT, default=1, help="noise levels a window and estimate, ≥ 1 [1]")
    add_end(add)


def add_end(add) -> None:
    add("--seed", type=number(int, least=0), default=0, metavar="N", help="≥ 0 [0]")
    add("--out", required=True, type=folder, metavar="FILE", help="JSON file to write")


def load_model(options):
    from sedd_mini.model import load

    return load(options.checkpoint, options.device, options.tokenizer)


def windows_of(options, tokenizer, length: int, num: int | None, exactly: bool = False):
    from sedd_mini.evaluation.windows import load_windows

    names = ("part", "valid_fraction", "column", "split", "config")
    return load_windows(options.data, tokenizer, length, num=num, exactly=exactly,
                        **{name: getattr(options, name) for name in names})  # fmt: skip


def facts(model, options) -> dict:
    return {"checkpoint": options.checkpoint, "graph": repr(model.graph),
            "noise": repr(model.noise), "device": str(model.device)}  # fmt: skip


def plus_minus(result: dict, name: str, digits: int = 4) -> str:
    value, error = result[name], result.get(f"{name}_error")
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


# ---- bound ---------------------------------------------------------------------------------------


def add_bound(parser) -> None:
    add_network(parser)
    add = add_source(parser, "file, folder, hub name, docs or synthetic", required=True)
    add("--length", **COUNT, help="tokens a window, ≥ 1 [the network's]")
    add("--num", **COUNT, help="windows at most, evenly spread, ≥ 1 [all]")
    add_noise(parser)


def run_bound(options) -> dict:
    from sedd_mini.evaluation.windows import bound_of

    model = load_model(options)
    length = check_length(model, options.length)
    windows, known = windows_of(options, model.tokenizer, length, options.num)
    bound = bound_of(model, [windows], options.repeats, options.times_each, options.seed)
    tell(bound)
    return facts(model, options) | known | bound


def check_length(model, length: int | None) -> int:
    if length is not None and length > model.length:
        raise ValueError(f"--length {length} is more than the {model.length} of the network")
    return length or model.length


def tell(bound: dict, title: str = "") -> None:
    characters = ""
    if bound["bits_per_character"] is not None:
        characters = f", {plus_minus(bound, 'bits_per_character')} bits a character"
    print(f"{title}≤ {plus_minus(bound, 'bits_per_token')} bits a token{characters}; perplexity ≤ "
          f"{plus_minus(bound, 'perplexity', 2)} a token ({bound['tokens']:,} tokens)")  # fmt: skip


# ---- zero-shot -----------------------------------------------------------------------------------


def names(text: str) -> tuple[str, ...]:
    chosen = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in chosen if name not in SETS]:
        raise argparse.ArgumentTypeError(
            f"no data set {', '.join(map(repr, unknown))}: choose from {', '.join(SETS)}"
        )
    return chosen


def local(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not path.strip():
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text!r}")
    return names(name)[0], path


def add_zero_shot(parser) -> None:
    add_network(parser)
    add = parser.add_argument_group("text").add_argument
    add("--sets", type=names, metavar="A,B",
        help=f"of {', '.join(SETS)} [those of --data, or else the first five]")  # fmt: skip
    add("--data", type=local, action="append", default=[], metavar="NAME=FILE",
        help="a local file or folder of the hub's form, for that data set; may be given again"
    )  # fmt: skip
    add("--column", **NAME, help="that holds the text [the data set's own]")
    add("--split", **NAME, help="to read [test]")
    add("--end-each-row", action="store_true",
        help="end every row by the end-of-text token, as the paper's loader does")  # fmt: skip
    add("--length", **COUNT, help="tokens a window, ≥ 1 [the network's]")
    add("--num", **COUNT, help="windows of each at most, from the beginning, ≥ 1 [all]")
    add_noise(parser)


def run_zero_shot(options) -> dict:
    from sedd_mini.evaluation.zero_shot import FIVE, read_rows, zero_shot

    places = dict(options.data)
    if extra := [name for name in places if name not in (options.sets or places)]:
        raise ValueError(f"--data names {', '.join(extra)}, and --sets does not")
    chosen = options.sets or tuple(places) or FIVE
    rows = {name: read_rows(name, places.get(name), options.column, options.split)
            for name in chosen}  # fmt: skip
    model, results = load_model(options), {}
    length = check_length(model, options.length)
    for name in chosen:
        results[name] = zero_shot(
            model, name, rows[name], options.num, length, options.end_each_row,
            repeats=options.repeats, times_each=options.times_each, seed=options.seed,
        )  # fmt: skip
        results[name] |= {"data": places.get(name, "hub"), "split": options.split or "test"}
        tell(results[name], f"{name}: ")
    return facts(model, options) | {"sets": results}


# ---- samples -------------------------------------------------------------------------------------


def add_samples(parser) -> None:
    add = add_network(parser, required=False)
    add("--texts", **NAME, help="judge these instead: a line each, or the rows of a data file")
    add = parser.add_argument_group("sampling").add_argument
    add("--num", **COUNT, help="how many samples, ≥ 1 [64, or all of --texts]")
    add("--length", **COUNT, help="tokens a sample, ≥ 1 [the network's]")
    add("--steps", **COUNT, default=128, help="sampling steps, ≥ 1 [128]")
    add("--sampler", default="tweedie", choices=("tweedie", "euler"), help="[tweedie]")
    add = parser.add_argument_group("judge").add_argument
    add("--judge", required=True, **NAME, help="causal language model of Hugging Face: name or "
        "folder; or synthetic, the known source of that language")  # fmt: skip
    add_end(add)
    add_source(parser, "real text to compare with, as much of it as there are samples [synthetic "
               "for that judge]", required=False)  # fmt: skip


def run_samples(options) -> dict:
    from sedd_mini.evaluation import generated
    from sedd_mini.evaluation.windows import spread
    from sedd_mini.model import working_device
    from sedd_mini.text.synthetic import SyntheticLanguage

    if (options.checkpoint is None) == (options.texts is None):
        raise ValueError("give either --checkpoint, whose samples are judged, or --texts")
    source = SyntheticLanguage() if options.judge == "synthetic" else None
    if options.data is None and source is None:
        raise ValueError("give real text to compare with, by --data: samples are never judged by "
                         "perplexity alone")  # fmt: skip
    model = load_model(options) if options.checkpoint else None
    tokenizer = model.tokenizer if model else tokenizer_of(options, source)
    if source is not None:
        generated.check_source(tokenizer, source)
        judge = None
    else:
        device = model.device if model else working_device(options.device)
        judge = generated.CausalJudge(options.judge, device)
    if model:
        num, length = options.num or 64, check_length(model, options.length)
        real = real_rows(options, source, tokenizer, [length] * num)
        samples = generated.draw(model, num, length, options.steps, options.sampler, options.seed)
        known = facts(model, options) | {"steps": options.steps, "sampler": options.sampler}
    else:
        samples = [tokenizer.encode(text) for text in texts_of(options)]
        samples = [samples[i] for i in spread(len(samples), options.num)]
        real = real_rows(options, source, tokenizer, [*map(len, samples)])
        known = {"texts": options.texts, "tokenizer": options.tokenizer}

    def score(rows):
        if judge is None:
            return generated.score_by_source(source, rows)
        return judge.score([tokenizer.decode(row) for row in rows])

    result = generated.judge_samples(samples, real, score, source)
    for name in ("samples", "real"):
        kind = f"{name:8s}"
        print(f"{kind}perplexity {plus_minus(result[name], 'perplexity', 2)} (corpus), "
              f"{plus_minus(result[name], 'perplexity_mean_of_sequences', 2)} (mean of sequences); "
              f"unigram entropy {plus_minus(result[name], 'unigram_entropy_bits', 3)} bits; "
              f"repetition {plus_minus(result[name], 'repetition', 3)}")  # fmt: skip
    for n in (1, 2, 3):
        if (name := f"kl_{n}gram_bits_least") in result["samples"]:
            ours, true = (f"{plus_minus(result[kind], name)} … {result[kind][most]:.4f}"
                          for kind in ("samples", "real")
                          for most in [f"kl_{n}gram_bits_most"])  # fmt: skip
            print(f"KL of {n}-grams from the source: {ours} bits (of real text {true})")
    examples = [tokenizer.decode(row) for row in samples[:2]]
    return known | {"judge": options.judge, "data": options.data or "synthetic",
                    "part": options.part, "seed": options.seed,
                    **result, "examples": examples}  # fmt: skip


def tokenizer_of(options, source):
    from sedd_mini.text.tokenizers import make_tokenizer

    if options.tokenizer is None and source is None:
        raise ValueError("--texts needs a --tokenizer, gpt2 or a folder, for what is counted")
    return source.tokenizer() if options.tokenizer is None else make_tokenizer(
        options.tokenizer, ())  # fmt: skip


def texts_of(options) -> list[str]:
    from sedd_mini.evaluation.zero_shot import rows_of

    return rows_of(options.texts, options.column, options.split)


def real_rows(options, source, tokenizer, lengths: list[int]) -> list[list[int]]:
    """Real text of these lengths in tokens: of --data, or else drawn from the source."""
    longest = max(lengths, default=1)
    if options.data is None:
        from sedd_mini.samplers import generators

        (generator,) = generators(options.seed, 1, first=len(lengths))
        windows = source.sample(len(lengths), longest, generator)
    else:
        windows, _ = windows_of(options, tokenizer, longest, len(lengths), exactly=True)
    rows = zip(windows.tolist(), lengths, strict=True)
    return [row[:length] for row, length in rows]


KINDS = {
    "bound": ("The likelihood bound on text: nats, bits, perplexity, with error bars.",
              add_bound, run_bound),
    "zero-shot": ("The bound on data sets that the network was not trained on.",
                  add_zero_shot, run_zero_shot),
    "samples": ("Generative perplexity of samples under a judge, beside what keeps it honest.",
                add_samples, run_samples),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    from sedd_mini.__main__ import main

    main(["evaluate", *(sys.argv[1:] if arguments is None else arguments)])
