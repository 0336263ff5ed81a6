"""The trainings of chapters 12 and 13: heads, block lengths, digits, sizes, epochs, a search.

    python tests/benchmarks/beyond_training.py                # what is missing; on 2 cores twice
    python tests/benchmarks/beyond_training.py --part blocks-docs
    python tests/benchmarks/beyond_training.py --list         # what there is, and what is not
    python tests/benchmarks/beyond_training.py --ship         # two runs become chapters/checkpoints

    blocks-synthetic, blocks-docs   block diffusion by block length, beside plain diffusion and
                                    GPT-2, all at the same tokens, batches and steps
    digits    pixels by SEDD on both graphs and by GPT-2; labels and pixels; and a classifier of the
              same network, steps and batches
    sizes     SEDD and GPT-2 at three sizes, the same tokens for all
    epochs    SEDD and GPT-2 on 128 blocks of the documentation, again and again
    told      SEDD that is told σ̄ or not, times a head that is normalised or not
    search    16 draws of lr, width, blocks, heads, batch size, dropout, weight decay, schedule and
              draws, each at a quarter of the tokens of `sizes`; the best and the default at all

A unit is one training, one thread, at most 15 minutes on a quiet core, and becomes one JSON file in
chapters/results/beyond/PART, written whole at its end; one that is there is not made again. One
that was interrupted goes on from its checkpoint. Two processes share the units between them. What
is judged is −log p a token on validation blocks: exact for GPT-2, the bound for all others.
"""

import argparse
import math
import platform
import random
import sys
import time
from functools import cache
from pathlib import Path

import rivals
import torch

from sedd_mini.beyond.block_diffusion import in_blocks
from sedd_mini.beyond.pictures import label_log_prob, naming_loss
from sedd_mini.evaluation.rivals import Clock, gpt2_rival
from sedd_mini.files import lock, read_json, write_json
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.text.corpus import Corpus
from sedd_mini.text.digits import LEVELS, digits_corpus
from sedd_mini.training.settings import PRESETS, preset
from sedd_mini.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
BASE = {
    "synthetic": {"steps": 700},
    "docs": {"length": 64, "width": 128, "batch_size": 32, "steps": 600, "draws": "counted",
             "lr": 2.5e-3},
    "digits": {"length": 64, "width": 64, "num_blocks": 3, "cond_dim": 64, "batch_size": 32,
               "steps": 1500, "lr": 5e-3, "weight_decay": 0.1, "draws": "counted"},
}  # fmt: skip
BASE["labels"] = BASE["digits"] | {"length": 65, "time_conditioning": False}
GPT2_LR = {"synthetic": 2.5e-3, "docs": 5e-3}  # the best of tests/benchmarks/rivals.py
FEW = 128  # blocks of the small corpus: an epoch is four steps
TRIALS, SHARE = 16, 4  # of the search, and the part of the tokens that each trial gets


def unit(part: str, name: str, data: str, kind: str = "sedd", seed: int = 0, blocks: int = 0,
         few: bool = False, **changes) -> dict:  # fmt: skip
    lr = {"lr": GPT2_LR[data]} if kind == "gpt2" and data in GPT2_LR else {}
    changes = BASE[data] | lr | changes | {"seed": seed}
    return {"part": part, "name": f"{name}-seed{seed}", "data": data, "kind": kind,
            "blocks": blocks, "few": few, "changes": changes}  # fmt: skip


def by_length(data: str, lengths: tuple[int, ...]) -> list[dict]:
    part, units = f"blocks-{data}", []
    for seed in (0, 1):
        units += [unit(part, f"block{n}", data, seed=seed, blocks=n) for n in lengths]
        units += [unit(part, kind, data, kind, seed) for kind in ("sedd", "gpt2")]
    return units


def trial(number: int) -> dict:
    """The settings of a trial: drawn from (0, number) alone."""
    g = random.Random(f"trial {number}")
    width, heads = g.choice([(64, 4), (96, 4), (128, 4), (128, 8), (192, 4)])
    batch = g.choice([16, 32, 64])
    return {
        "lr": 10 ** g.uniform(math.log10(5e-4), math.log10(2e-2)), "width": width,
        "num_heads": heads, "num_blocks": g.choice([2, 3, 4, 6]), "batch_size": batch,
        "dropout": g.choice([0.0, 0.1]), "weight_decay": g.choice([0.0, 0.1]),
        "noise": g.choice(["loglinear", "cosine"]), "draws": g.choice(["independent", "counted"]),
    }  # fmt: skip


def of_tokens(settings: dict, share: int) -> dict:
    """The same with as many steps as make 1 / share of the tokens of BASE["docs"]."""
    steps = BASE["docs"]["steps"] * BASE["docs"]["batch_size"] // share // settings["batch_size"]
    return settings | {"steps": steps, "warmup": min(100, steps // 5)}


def search(args) -> list[dict]:
    units = [unit("search", f"trial{n:02d}", "docs", **of_tokens(trial(n), SHARE))
             for n in range(TRIALS)]  # fmt: skip
    found = {n: r for n, u in enumerate(units) if (r := result_of(u, args))}
    if len(found) < TRIALS:
        return units
    best = min(found, key=lambda n: (found[n]["tuning_nats_per_token"] or math.inf, n))
    last = {"best": trial(best), "default": BASE["docs"]}
    return units + [unit("search", name, "docs", seed=seed, **of_tokens(settings, 1))
                    for seed in (1, 2) for name, settings in last.items()]  # fmt: skip


def units_of(part: str, args) -> list[dict]:
    if part == "blocks-synthetic":
        return by_length("synthetic", (1, 4, 8, 16))
    if part == "blocks-docs":
        return by_length("docs", (1, 4, 16))
    if part == "digits":
        return [u for seed in (0, 1) for u in (
            unit(part, "pixels-absorb", "digits", seed=seed),
            unit(part, "pixels-uniform", "digits", seed=seed, graph="uniform"),
            unit(part, "pixels-gpt2", "digits", "gpt2", seed),
            unit(part, "labels-absorb", "labels", seed=seed),
            unit(part, "labels-classifier", "labels", "classifier", seed),
        )]  # fmt: skip
    if part == "told":
        heads = {"told": {}, "untold": {"time_conditioning": False},
                 "told-normalised": {"normalised": True},
                 "untold-normalised": {"time_conditioning": False, "normalised": True}}  # fmt: skip
        return [unit(part, name, "synthetic", seed=seed, **changes)
                for seed in (0, 1, 2) for name, changes in heads.items()]  # fmt: skip
    if part == "sizes":
        sizes = ((64, 3), (128, 4), (192, 5))
        return [unit(part, f"{kind}-width{width}", "docs", kind, width=width, num_blocks=depth)
                for width, depth in sizes for kind in ("sedd", "gpt2")]  # fmt: skip
    if part == "epochs":
        return [unit(part, kind, "docs", kind, seed, few=True, decay="none", ema=0.99)
                for seed in (0, 1) for kind in ("sedd", "gpt2")]  # fmt: skip
    return search(args)


PARTS = ("blocks-synthetic", "told", "blocks-docs", "digits", "sizes", "epochs", "search")


@cache
def corpus_of(data: str, few: bool) -> Corpus:
    if data in ("digits", "labels"):
        return digits_corpus(labels=data == "labels")
    whole = preset(data, **BASE[data]).make_corpus()
    if not few:
        return whole
    size = whole.tokenizer.vocab_size
    return Corpus.from_arrays(whole.train[:FEW], whole.valid[:], size, whole.tokenizer.decode)


def settings_of(u: dict, args):
    changes = dict(u["changes"])
    if args.steps:
        changes |= {"steps": args.steps}
    name = u["data"] if u["data"] in PRESETS else "docs"
    return preset(name, **changes, device="cpu", valid_every=0, sample_every=0,
                  valid_blocks=16, valid_repeats=2, log_every=20, save_every=100)  # fmt: skip


def file_of(u: dict, args) -> Path:
    return args.out / u["part"] / f"{u['name']}.json"


def result_of(u: dict, args) -> dict | None:
    """What was found, if it was; ValueError if that was another budget."""
    if not file_of(u, args).exists():
        return None
    result, steps = read_json(file_of(u, args)), settings_of(u, args).steps
    if result["steps"] != steps:
        raise ValueError(f"{file_of(u, args)} is of {result['steps']} steps, not {steps}: name "
                         "another --out")  # fmt: skip
    return result


def train(u: dict, args) -> dict:
    """Train one, or the rest of it, and judge it; an epochs run also on the way."""
    settings, corpus = settings_of(u, args), corpus_of(u["data"], u["few"])
    config = settings.network(corpus.tokenizer.vocab_size)
    parts = {}
    if u["kind"] == "gpt2":
        parts = gpt2_rival(config, settings.seed)
    elif u["kind"] == "classifier":
        parts = {"noise": Clock(), "loss": naming_loss}
    elif u["blocks"]:
        parts = in_blocks(config, u["blocks"], settings.seed)
    trainer = Trainer(settings, corpus, args.runs / u["part"] / u["name"], **parts)
    what = trainer.average, trainer.graph, trainer.noise
    half = min(args.judged, len(corpus.valid) // 2)
    first, second = corpus.valid[:half], corpus.valid[half : 2 * half]
    tokens = settings.batch_size * settings.length

    def watch(record: dict) -> None:
        if "loss" in record and u["few"]:
            value, error, _ = rivals.judge(*what, first[: args.judged // 2], 2)
            epochs = record["step"] * settings.batch_size / len(corpus.train)
            trainer.log({"step": record["step"], "judged": value, "judged_error": error,
                         "epochs": epochs})  # fmt: skip

    result = {
        "data": u["data"], "kind": u["kind"], "block_length": u["blocks"] or None,
        "settings": u["changes"], "steps": settings.steps, "tokens_seen": settings.steps * tokens,
        "train_tokens": corpus.train.num_tokens, "exact": u["kind"] == "gpt2",
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }  # fmt: skip
    try:
        trainer.run(callback=watch)
    except FloatingPointError as error:
        return result | {"failed": str(error).split(";")[0], "tuning_nats_per_token": None}
    finally:
        trainer.close()
    tuning = value = error = None
    if u["kind"] != "classifier":
        tuning, (value, error, _) = rivals.judge(*what, first, 4), rivals.judge(*what, second, 8)
    if u["data"] == "labels":
        rows = corpus.valid[:]
        named = label_log_prob(*what[:2], rows[:, 1:]).argmax(1) + LEVELS
        result |= {"named_right": (named == rows[:, 0]).double().mean().item(), "of": len(rows)}
    losses = [r for r in trainer.history if "loss" in r]
    return result | {
        "failed": None, "tuning_nats_per_token": tuning and tuning[0],
        "tuning_error": tuning and tuning[1],
        "nats_per_token": value, "nats_per_token_error": error,
        "curve": {"tokens": [r["step"] * tokens for r in losses],
                  "loss": [r["loss"] for r in losses]},
        "judged": [{k: r[k] for k in ("epochs", "judged", "judged_error")}
                   for r in trainer.history if "judged" in r],
        "seconds_a_step": trainer.seconds / settings.steps,
    }  # fmt: skip


def make(u: dict, args) -> bool:
    """Make a unit, unless another process is at it; whether it is made."""
    try:
        held = lock(args.runs / u["part"] / u["name"])
    except ValueError:
        return False
    with held:
        if result_of(u, args):
            return True
        start = time.perf_counter()
        result = train(u, args) | {
            "seconds": round(time.perf_counter() - start, 1),  # the last stretch, if interrupted
            "command": f"python tests/benchmarks/beyond_training.py --part {u['part']}",
            "threads": torch.get_num_threads(), "hardware": platform.machine(),
            "python": platform.python_version(), "torch": torch.__version__,
        }  # fmt: skip
        write_json(file_of(u, args), result)
    return True


SHIPPED = {  # folder in chapters/checkpoints → the run: its part and name
    "synthetic-block4": ("blocks-synthetic", "block4-seed0"),
    "digits-labels": ("digits", "labels-absorb-seed0"),
}


def ship(folder: str, args) -> None:
    """Write the averaged network of a run as the other weights are: in float16, with its record."""
    part, name = SHIPPED[folder]
    u = next(u for u in units_of(part, args) if u["name"] == name)
    if not (result := result_of(u, args)):
        raise ValueError(f"{part}/{name} is not trained yet: leave out --ship")
    corpus = corpus_of(u["data"], u["few"])
    what = load_pretrained(args.runs / part / name)
    told = ("steps", "tokens_seen", "parameters", "nats_per_token", "nats_per_token_error",
            "named_right", "of", "python", "torch")  # fmt: skip
    record = {
        "command": "python tests/benchmarks/beyond_training.py --ship", "run": f"{part}/{name}",
        "seed": u["changes"]["seed"], "wall_time_s": round(result["seconds_a_step"]
                                                          * result["steps"]),
        "hardware": f"{result['hardware']} cpu, {result['threads']} thread(s)",
        "corpus": corpus.info,
    } | {key: result[key] for key in told if key in result}  # fmt: skip
    words = corpus.tokenizer if u["data"] == "synthetic" else None
    save_pretrained(args.to / folder, *what, words, dtype=torch.float16, info=record)
    print(f"{args.to / folder}: {part}/{name}")


def tell(u: dict, result: dict | None) -> None:
    if not result or result["failed"]:
        text = result["failed"] if result else "not yet"
    else:
        value, error = result["nats_per_token"], result["nats_per_token_error"]
        text = "" if value is None else f"{value:.4f} ± {error:.4f} nats a token, "
        text += f"{result['named_right']:.1%} named right, " if "named_right" in result else ""
        text += f"{1000 * result['seconds_a_step']:.0f} ms a step, {result['seconds']:.0f} s"
    print(f"{u['part']:17s} {u['name']:22s} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", help="units whose name has this in it")
    parser.add_argument("--steps", type=int, help="for a try: another number, with another --out")
    parser.add_argument("--judged", type=int, default=256, help="validation blocks [256]")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no unit after that")
    parser.add_argument("--out", type=Path, default=ROOT / "chapters" / "results" / "beyond")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "beyond")
    parser.add_argument("--list", action="store_true", help="make nothing")
    parser.add_argument("--ship", action="store_true", help="write the networks that are shipped")
    parser.add_argument("--to", type=Path, default=ROOT / "chapters" / "checkpoints",
                        help="where --ship writes")  # fmt: skip
    args = parser.parse_args()
    torch.set_num_threads(1)

    if args.ship:
        for folder in SHIPPED:
            ship(folder, args)
        return

    def wanted() -> list[dict]:
        return [u for part in args.part for u in units_of(part, args)
                if not args.only or args.only in u["name"]]  # fmt: skip

    start = time.perf_counter()
    while not args.list and (missing := [u for u in wanted() if not result_of(u, args)]):
        if time.perf_counter() - start > 60 * args.minutes:
            print(f"{len(missing)} units or more are left: the same command goes on with them")
            break
        made = next((u for u in missing if make(u, args)), None)
        if made:
            tell(made, result_of(made, args))
        else:
            time.sleep(2)  # another process is at the last ones
    if args.list:
        for u in wanted():
            tell(u, result_of(u, args))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    except (OSError, ValueError) as error:
        sys.exit(f"beyond_training: {error}")
