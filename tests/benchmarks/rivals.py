"""The comparison of chapter 10: score entropy, mean prediction and GPT-2 at equal size and budget.

    python tests/benchmarks/rivals.py                 # what is missing; on 2 cores start it twice
    python tests/benchmarks/rivals.py --data docs
    python tests/benchmarks/rivals.py --list          # what there is, and what is not

A unit is one training of one model: the same tokens in the same order, batches, optimiser, warm-up,
decay and averaging for all, by the library's Trainer. Every kind of model is tuned in the same way
with seed 0: from the middle of one grid of learning rates, up, or else down, until both neighbours
of the best are worse. The best is then trained with the other seeds. That choice looks at the first
half of the validation blocks, and what is reported at the second.

Each unit takes minutes, on one thread, and becomes one JSON file, written whole at its end; one
that is there is not made again. One that was interrupted goes on from its checkpoint. Two processes
share the units between them.
"""

import argparse
import math
import platform
import sys
import time
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from sedd_mini.evaluate import likelihood_bound
from sedd_mini.evaluation.bounds import at_positions, bounds, total
from sedd_mini.evaluation.rivals import GPT2, MeanPrediction, gpt2_rival, mean_rival, nats
from sedd_mini.files import lock, read_json, write_json
from sedd_mini.text.corpus import Corpus
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
KINDS = {  # name → graph, and what the Trainer is handed
    "sedd-absorb": ("absorb", lambda config, seed: {}),
    "sedd-uniform": ("uniform", lambda config, seed: {}),
    "mean-absorb": ("absorb", mean_rival),
    "mean-uniform": ("uniform", mean_rival),
    "informed-uniform": ("uniform", partial(mean_rival, informed=True)),
    "gpt2": ("absorb", gpt2_rival),
}
RATES = (6.25e-4, 1.25e-3, 2.5e-3, 5e-3, 1e-2, 2e-2)
DATA = {  # name → settings, and seeds
    "synthetic": (preset("synthetic"), 3),
    "docs": (preset("docs", length=64, width=128, batch_size=32, steps=600, draws="counted"), 2),
}
POINTS = 10  # of a learning curve


def settings_of(unit, args):
    kind, lr, seed = unit
    settings, _ = DATA[args.data]
    steps = args.steps or settings.steps
    every = max(1, steps // POINTS)
    changes = {"graph": KINDS[kind][0], "lr": lr, "seed": seed, "steps": steps, "device": "cpu",
               "log_every": every, "save_every": every, "valid_every": 0, "sample_every": 0,
               "valid_blocks": 16, "valid_repeats": 2}  # fmt: skip
    return type(settings)(**vars(settings) | changes)


@cache
def corpus_of(data: str) -> Corpus:
    return DATA[data][0].make_corpus()


def name_of(unit) -> str:
    kind, lr, seed = unit
    return f"{kind}-lr{lr:g}-seed{seed}"


def result_of(unit, args) -> dict | None:
    """What was found, if it was; ValueError if that was another budget."""
    file = args.out / args.data / f"{name_of(unit)}.json"
    if not file.exists():
        return None
    result, steps = read_json(file), settings_of(unit, args).steps
    if result["steps"] != steps:
        raise ValueError(f"{file} is of {result['steps']} steps, not {steps}: name another --out")
    return result


def search(kind: str, args) -> tuple[float | None, float | None]:
    """The learning rate to try next with seed 0, and where none is left, the best.

    The best has the lowest validation; both are None if no rate trains at all.
    """
    rates = sorted(args.rates)
    found = {lr: r for lr in rates if (r := result_of((kind, lr, 0), args))}
    if not found:
        return rates[(len(rates) - 1) // 2], None
    values = {lr: math.inf if r["failed"] else r["tuning_nats_per_token"]
              for lr, r in found.items()}  # fmt: skip
    best = min(values, key=lambda lr: (values[lr], lr))
    failed, i = values[best] == math.inf, rates.index(best)
    beside = rates[i - 1 : i] if failed else rates[i + 1 : i + 2] + rates[max(0, i - 1) : i]
    missing = [lr for lr in beside if lr not in found]
    return (missing[0], None) if missing else (None, None if failed else best)


def best_rate(kind: str, args) -> float | None:
    return search(kind, args)[1]


def all_units(args) -> list:
    """The units as far as they are known: what comes next hangs on what was found."""
    tried = [(kind, lr, 0) for lr in sorted(args.rates) for kind in args.kinds
             if result_of((kind, lr, 0), args)]  # fmt: skip
    where = {kind: search(kind, args) for kind in args.kinds}
    return (tried + [(kind, lr, 0) for kind, (lr, _) in where.items() if lr]
            + [(kind, lr, seed) for seed in range(1, args.seeds)
               for kind, (_, lr) in where.items() if lr])  # fmt: skip


def judge(model, graph, noise, blocks, repeats: int) -> tuple[float, float, Tensor | None]:
    """−log p in nats a token, or its bound; the error of its estimate (exact: 0); nats a block.

    The last is None for plain mean prediction on the uniform graph. Its bound is infinite, and the
    number the part of it above σ̄ = 1e-9, where `likelihood_bound` stops.
    """
    length, generator = blocks.shape[1], torch.Generator().manual_seed(0)
    if isinstance(model, GPT2):
        each = nats(model, blocks)
        return each.mean().item() / length, 0.0, each
    if type(model) is MeanPrediction and graph.mask_id is None:
        bound = likelihood_bound(model, graph, noise, blocks, repeats, generator=generator)
        return bound.nats / length, bound.error / length, None
    terms = at_positions if isinstance(model, MeanPrediction) else None
    found = bounds(model, graph, noise, blocks, repeats=repeats, generator=generator, terms=terms)
    whole, each = total(found), torch.tensor([bound.nats for bound in found], dtype=torch.float64)
    return whole.nats / whole.length, whole.error / whole.length, each


def train(unit, args) -> dict:
    """Train one, or the rest of it, and judge it."""
    kind, lr, seed = unit
    settings, corpus = settings_of(unit, args), corpus_of(args.data)
    config = settings.network(corpus.tokenizer.vocab_size)
    parts = KINDS[kind][1](config, seed)
    trainer = Trainer(settings, corpus, args.runs / args.data / name_of(unit), **parts)
    what = trainer.average, trainer.graph, trainer.noise
    half = min(args.valid_blocks or len(corpus.valid), len(corpus.valid)) // 2
    first, second = corpus.valid[:half], corpus.valid[half : 2 * half]

    def watch(record: dict) -> None:
        if "loss" in record:
            start = time.perf_counter()
            value, error, _ = judge(*what, first[:256], 4)
            trainer.log({"step": record["step"], "judged": value, "judged_error": error,
                         "judged_seconds": time.perf_counter() - start})  # fmt: skip

    result = {
        "data": args.data, "kind": kind, "lr": lr, "seed": seed, "steps": settings.steps,
        "learning_rates": args.rates, "tokens_a_step": settings.batch_size * settings.length,
        "tokens_seen": settings.steps * settings.batch_size * settings.length,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "length": settings.length, "blocks_judged": half, "exact": kind == "gpt2",
    }  # fmt: skip
    try:
        trainer.run(callback=watch)
    except FloatingPointError as error:  # a rate that is too high is a result too
        return result | {"failed": str(error).split(";")[0]}
    finally:
        trainer.close()
    aside = sum(r.get("judged_seconds", 0) for r in trainer.history)
    tuning = judge(*what, first, 4)
    value, error, each = judge(*what, second, 8)
    result |= {
        "failed": None, "tuning_nats_per_token": tuning[0], "tuning_error": tuning[1],
        "nats_per_token": value, "nats_per_token_error": error,
        "curve": curve(trainer.history, result["tokens_a_step"]),
        "seconds_a_step": (trainer.seconds - aside) / settings.steps,
    }  # fmt: skip
    if args.data == "synthetic":  # the error: of the estimate and of the choice of blocks
        bits, true = 1 / (settings.length * math.log(2)), -SyntheticLanguage().log_prob(second)
        excess = None if each is None else (each - true) * bits  # (M,)
        off = error / math.log(2) if each is None else (excess.std() / math.sqrt(half)).item()
        true = true.mean().item() / settings.length
        result |= {"true_nats_per_token": true, "excess_bits": (value - true) / math.log(2),
                   "excess_bits_error": off}  # fmt: skip
    return result


def curve(history: list[dict], tokens: int) -> dict[str, list]:
    """Tokens seen, the loss of training before, the bound (GPT-2: −log p) and its error."""
    losses = {r["step"]: r["loss"] for r in history if "loss" in r}
    judged = {r["step"]: r for r in history if "judged" in r}
    steps = sorted(losses.keys() & judged.keys())
    return {
        "tokens": [step * tokens for step in steps], "loss": [losses[step] for step in steps],
        "nats_per_token": [judged[step]["judged"] for step in steps],
        "error": [judged[step]["judged_error"] for step in steps],
    }  # fmt: skip


def make(unit, args) -> bool:
    """Make a unit, unless another process is at it; whether it is made."""
    try:
        held = lock(args.runs / args.data / name_of(unit))
    except ValueError:
        return False
    with held:
        if result_of(unit, args):
            return True
        start = time.perf_counter()
        result = train(unit, args)
        result |= {
            "seconds": round(time.perf_counter() - start, 1),  # the last stretch, if interrupted
            "command": f"python tests/benchmarks/rivals.py --data {args.data}",
            "threads": torch.get_num_threads(), "hardware": platform.machine(),
            "python": platform.python_version(), "torch": torch.__version__,
        }  # fmt: skip
        write_json(args.out / args.data / f"{name_of(unit)}.json", result)
    return True


def tell(unit, result: dict | None) -> None:
    if not result:
        text = "not yet"
    elif result["failed"]:
        text = result["failed"]
    else:
        text = f"{result['nats_per_token']:.4f} ± {result['nats_per_token_error']:.4f} nats a token"
        if "excess_bits" in result:
            text += f", {result['excess_bits']:.4f} bits above the truth"
        text += f", {1000 * result['seconds_a_step']:.0f} ms a step"
    print(f"{name_of(unit):32s} {text}", flush=True)


def summary(args) -> None:
    """Each kind at its best rate: mean over seeds, and their spread."""
    for kind in args.kinds:
        lr = best_rate(kind, args)
        found = [lr and result_of((kind, lr, seed), args) for seed in range(args.seeds)]
        values = [r["nats_per_token"] for r in found if r and not r["failed"]]
        if lr and values:
            edge = ", at the edge of the grid" if lr in (min(args.rates), max(args.rates)) else ""
            seeds = torch.tensor(values, dtype=torch.float64)
            spread = f" (spread {seeds.std():.4f})" if len(values) > 1 else ""
            print(f"{kind:20s} {seeds.mean():.4f} nats a token over {len(values)} seeds{spread}, "
                  f"lr {lr:g}{edge}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=DATA, default="synthetic")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES))
    parser.add_argument("--seeds", type=int, help="[3 synthetic, 2 docs]")
    parser.add_argument("--steps", type=int, help="[1550 synthetic, 600 docs]")
    parser.add_argument("--valid-blocks", type=int, help="[all]")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no unit after that")
    parser.add_argument("--out", type=Path, default=ROOT / "chapters" / "results" / "rivals")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "rivals")
    parser.add_argument("--list", action="store_true", help="make nothing")
    args = parser.parse_args()
    args.seeds = args.seeds or DATA[args.data][1]
    torch.set_num_threads(1)
    start = time.perf_counter()
    while not args.list and (missing := [u for u in all_units(args) if not result_of(u, args)]):
        if time.perf_counter() - start > 60 * args.minutes:
            print(f"{len(missing)} units or more are left: the same command goes on with them")
            break
        unit = next((u for u in missing if make(u, args)), None)
        if unit:
            tell(unit, result_of(unit, args))
        else:
            time.sleep(2)  # others are at the last ones
    if args.list:
        for unit in all_units(args):
            tell(unit, result_of(unit, args))
    summary(args)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    except (OSError, ValueError) as error:
        sys.exit(f"rivals: {error}")
