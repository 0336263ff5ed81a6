"""Train a network on text; the same command once more goes on where the run stopped.

What the run will write, and the memory that it will take, is told before the first step; what
cannot fit is refused.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from sedd_mini.commands import options as cli
from sedd_mini.files import check_writable, lock, newest_checkpoint
from sedd_mini.network.hardware import choose_precision
from sedd_mini.network.pretrained import check_replaceable
from sedd_mini.text.shard_files import INDEX
from sedd_mini.training import distributed, planner
from sedd_mini.training.export import export
from sedd_mini.training.report import as_text
from sedd_mini.training.settings import CHANGEABLE, NAMED, PRESETS, Settings, compare, preset
from sedd_mini.training.trainer import Trainer

VALUES = {int: "N", float: "X", str: "NAME", bool: ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += " [default]"
    add = parser.add_argument
    add("--preset", default="docs", choices=PRESETS, metavar="NAME",
        help=f"whose values are the other defaults: {', '.join(PRESETS)} [docs]")  # fmt: skip
    add("--out", type=cli.folder, metavar="FOLDER",
        help="of the run [runs/PRESET-GRAPH, then -DATA and what makes it another run]"
    )  # fmt: skip
    add("--export", type=cli.folder, metavar="FOLDER",
        help="at the end, write the network here, small, to be shipped")  # fmt: skip
    add("--change", default=(), type=changes, metavar="A,B",
        help="settings (lr, steps, …) that may differ from the saved run's")  # fmt: skip
    groups = {}
    for f in dataclasses.fields(Settings):
        facts = f.metadata
        title = facts.get("group", "settings")
        group = groups.setdefault(title, None) or parser.add_argument_group(title)
        groups[title] = group
        bounds = {name: facts.get(name) for name in ("least", "most", "above", "below")}
        kind = {bool: cli.yes_or_no, str: cli.filled}.get(f.type) or cli.number(f.type, **bounds)
        range_ = cli.span(**bounds)
        default = ("no", "yes")[f.default] if f.type is bool else f"{f.default}"
        group.add_argument(
            "--" + f.name.replace("_", "-"), dest=f.name, type=kind, metavar=VALUES[f.type],
            choices=tuple(facts["choices"]) if facts.get("choices") else None,
            help=f"{facts['help']}{range_ and ', ' + range_} [{default}]".replace("%", "%%"),
            **({"nargs": "?", "const": True} if f.type is bool else {}),
        )  # fmt: skip


def changes(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if unknown := [name for name in names if name not in CHANGEABLE]:
        raise argparse.ArgumentTypeError(
            f"no run can go on with another {', '.join(map(repr, unknown))}: what can be changed "
            f"is {', '.join(CHANGEABLE)}"
        )
    return names


def parse(arguments: list[str]) -> argparse.Namespace:
    from sedd_mini.__main__ import parse

    return parse(["train", *arguments])


def settings_of(options: argparse.Namespace) -> Settings:
    """The preset, with whatever was given on the command line."""
    names = [f.name for f in dataclasses.fields(Settings)]
    given = {name: getattr(options, name) for name in names}
    return preset(options.preset, **{k: v for k, v in given.items() if v is not None})


def default_out(name: str, settings: Settings, change: tuple[str, ...] = ()) -> str:
    """runs/PRESET-GRAPH for a preset as it is; what makes it another run stands behind that.

    So a try on other data never claims the folder of the whole run. What may be another when a run
    goes on, by itself or by `change`, is not named; what would be too long ends in a hash.
    """
    _, other = compare(dataclasses.asdict(preset(name)), settings, change)
    words = []
    for key, (_, value) in other.items():
        if isinstance(value, str):  # of a path, the last part without its ending
            value = re.sub(r"(?<=.)\.[a-z]+$", "", Path(value).resolve().name)
        if key != "graph":
            words.append(str(value) if key == "data" else f"{key.replace('_', '-')}{value}")
    words = [re.sub(r"[^\w.]+", "-", word)[:30] for word in words]
    if len("-".join(words)) > 45:
        digest = hashlib.sha256("-".join(words).encode()).hexdigest()[:6]
        words = [*words[: "data" in other], digest]
    return "-".join([f"runs/{name}-{settings.graph}", *words])


def run(options: argparse.Namespace) -> None:
    settings = settings_of(options)
    options.out = out = options.out or default_out(options.preset, settings, options.change)
    settings.network(num_tokens=1)  # sizes that do not go together are found before text is read
    check_places(options, settings, out)
    device = distributed.start(settings.device)
    first = distributed.rank() == 0
    with lock(out) if first else contextlib.nullcontext():  # before the text is read
        run_in(out, options, settings, device, print if first else lambda text: None)
    distributed.stop()
    if first:
        print(f"done: {out}. Now: python -m sedd_mini sample --checkpoint {shlex.quote(out)}")


def run_in(out: str, options, settings: Settings, device: str, tell: Callable) -> None:
    given = [name for name in ("tokenizer", "vocab_size") if getattr(options, name) is not None]
    corpus = settings.make_corpus(given)
    if seen := corpus.info.get("seen_13grams"):
        tell(f"{seen:.1%} of the 13-grams of the validation text occur in the training text")
    num_tokens = corpus.tokenizer.vocab_size
    precision = str(choose_precision(settings.precision, device)).removeprefix("torch.")
    about = {"device": device, "precision": precision, "processes": distributed.world_size()}
    room = planner.machine_memory(device)
    if room and (advice := planner.fitting(settings, num_tokens, room=room, **about)):
        raise ValueError(advice)
    tell(planner.disk(settings, num_tokens, out))
    try:
        train(options, settings, corpus, out, tell)
    except Exception as error:
        if not cli.out_of_memory(error):
            raise
        advice = planner.fitting(settings, num_tokens, room=None, **about)
        raise MemoryError(f"out of memory ({cli.first_line(error)}): {advice}") from error


def check_places(options: argparse.Namespace, settings: Settings, out: str) -> None:
    """Raises ValueError where the run or its export cannot be written, before any text is read."""
    if options.export:
        check_replaceable(options.export)
        if in_folder(out, options.export):
            raise ValueError(f"--export {options.export} would replace the run in {out}")
    data = Path(settings.data)
    as_text = settings.data not in NAMED and data.is_dir() and not (data / INDEX).exists()
    for path in filter(None, (out, options.export)):
        check_writable(path)
        if as_text and in_folder(path, data):
            raise ValueError(f"{path} lies in --data {data}, where what the run writes would be "
                             "read as text: name a folder outside")  # fmt: skip
    if options.change and newest_checkpoint(Path(out)) is None:
        raise ValueError(f"--change is for a run that goes on, and {out} holds no checkpoint: give "
                         "its folder by --out")  # fmt: skip


def in_folder(path: str, folder: str | Path) -> bool:
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def train(options: argparse.Namespace, settings: Settings, corpus, out: str, tell) -> None:
    trainer = Trainer(settings, corpus, out=out, change=options.change)
    size = sum(p.numel() for p in trainer.model.parameters())
    info, processes = trainer.corpus.info, trainer.world_size
    spread = f" × {processes} processes ({settings.parallel})" if processes > 1 else ""
    tell(f"{size:,} parameters on {trainer.device}{spread} in {trainer.dtype}; "
         f"{info['train_tokens']:,} training tokens of {info['source']}, vocabulary "
         f"{trainer.graph.num_tokens}; step {trainer.step} to {settings.steps}")  # fmt: skip
    trainer.run(callback=lambda record: "report" in record and tell(as_text(record["report"])))
    if options.export:
        record = export(trainer, options.export, options.command)
        if trainer.rank == 0:
            tell(f"{options.export}: bound {record['bound_bits_per_token']:.4f} bits a token")


def main(arguments: list[str] | None = None) -> None:
    from sedd_mini.__main__ import main

    main(["train", *(sys.argv[1:] if arguments is None else arguments)])
