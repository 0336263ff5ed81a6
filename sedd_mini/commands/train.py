"""Train a network, from a laptop's minutes to the published run."""

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from sedd_mini.network.hardware import print_any_text
from sedd_mini.network.pretrained import check_replaceable
from sedd_mini.training import distributed
from sedd_mini.training.export import export
from sedd_mini.training.report import as_text
from sedd_mini.training.settings import CHANGEABLE, PRESETS, Settings, preset
from sedd_mini.training.trainer import Trainer


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sedd_mini train", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train a score entropy discrete diffusion model on text. Run it again with the "
                    "same --out to go on where it stopped.",
        epilog="presets:\n" + "\n".join(f"  {k}: {v}" for k, v in PRESETS.items()),
    )  # fmt: skip
    parser.add_argument(
        "--preset", default="docs", choices=PRESETS, help="where the defaults are from"
    )
    parser.add_argument("--out", help="folder of the run (default: runs/PRESET-GRAPH)")
    parser.add_argument("--export", help="at the end, write the network here, small, to be shipped")
    parser.add_argument(
        "--change", default=(), type=lambda text: tuple(text.split(",")), metavar="NAME,NAME",
        help="settings that may differ from those the run in --out was saved with: "
             + ", ".join(CHANGEABLE),
    )  # fmt: skip
    for f in dataclasses.fields(Settings):
        kind = {bool: yes_or_no}.get(f.type, f.type)
        text = f"{f.metadata['help']} (default: {f.default})"
        flag = "--" + f.name.replace("_", "-")
        parser.add_argument(
            flag, dest=f.name, type=kind, help=text, metavar=f.type.__name__.upper()
        )
    return parser.parse_args(arguments)


def yes_or_no(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise argparse.ArgumentTypeError(f"expected 1, true, yes, 0, false or no, got {text!r}")
    return text.lower() in ("1", "true", "yes")


def main(arguments: list[str] | None = None) -> None:
    given = vars(parse(arguments))
    name, out, shipped, change = map(given.pop, ("preset", "out", "export", "change"))
    print_any_text()
    try:
        settings = preset(name, **{k: v for k, v in given.items() if v is not None})
        out = out or f"runs/{name}-{settings.graph}"
        if shipped:
            check_replaceable(shipped)
            if Path(out).resolve().is_relative_to(Path(shipped).resolve()):
                raise ValueError(f"--export {shipped} would replace the run in {out}")
        trainer = Trainer(settings, out=out, change=change)
        size = sum(p.numel() for p in trainer.model.parameters())
        info, processes = trainer.corpus.info, trainer.world_size
        spread = f" × {processes} processes ({settings.parallel})" if processes > 1 else ""
        tell = print if trainer.rank == 0 else lambda text: None
        tell(f"{size:,} parameters on {trainer.device}{spread} in {trainer.dtype}; "
              f"{info['train_tokens']:,} training tokens of {info['source']}, vocabulary "
              f"{trainer.graph.num_tokens}; step {trainer.step} to {settings.steps}")  # fmt: skip
        trainer.run(callback=lambda record: "report" in record and tell(as_text(record["report"])))
        if shipped:
            words = arguments if arguments is not None else sys.argv[1:]
            record = export(trainer, shipped, "python -m sedd_mini train " + shlex.join(words))
            if trainer.rank == 0:
                print(f"{shipped}: bound {record['bound_bits_per_token']:.4f} bits a token")
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    distributed.stop()
    tell(f"done: {out}. Now: python -m sedd_mini sample --checkpoint {out}")
