"""SEDD small, trained for minutes on one GPU: chapters/results/small-gpu.json.

    python -m sedd_mini prepare --data BOOKS --tokenizer gpt2 --out runs/books
    python tests/benchmarks/small_gpu.py --data runs/books --about "what BOOKS are"
    python tests/benchmarks/small_gpu.py --speed     # no training: full-size-speed.json instead
    python tests/benchmarks/small_gpu.py --quick --data docs     # anywhere: a tiny network

First the speed and the peak memory of each variant of training (full_size.py), then one training of
the published network for --minutes: the settings are those of the preset but for the batch, and a
learning rate, warm-up, average and decay that fit so few steps. Stopped, the same command goes on
from the last checkpoint. Then the bound on validation text beside a model of frequencies alone, the
seconds of one sample, and samples. The file is written again after each part, so a run that is cut
off leaves what it has measured.
"""

import argparse
import gc
import math
import platform
import shlex
import sys
import time
from pathlib import Path

import torch
from full_size import QUICK, VARIANTS, train

from sedd_mini.files import newest_checkpoint, read_json, write_json
from sedd_mini.network.hardware import autocast, synchronize
from sedd_mini.samplers import sample
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.offline import docs_with_gpt2_tokens
from sedd_mini.training.report import read_log
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
RUN = {"lr": 6e-4, "warmup": 250, "decay": "cosine", "ema": 0.995, "beta2": 0.99,
       "weight_decay": 0.1, "draws": "counted", "log_every": 10, "save_every": 500,
       "sample_every": 0, "valid_repeats": 4}  # fmt: skip


def frequencies(train: torch.Tensor, valid: torch.Tensor, size: int) -> float:
    """Bits a token of validation ids under the frequencies of the training ids, plus one each."""
    counts = torch.bincount(train.flatten(), minlength=size).double() + 1  # (size,)
    return -(counts / counts.sum()).log2()[valid.flatten()].mean().item()


def speeds(args, corpus, settings: dict, found: dict) -> None:
    """The report of each variant, into found["variants"]; SystemExit if one trains otherwise."""
    first = None
    for name, changes in VARIANTS.items():
        if name not in args.variants or (changes.get("compile") and args.device == "cpu"):
            continue
        gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        trainer = train(preset("small", **settings | changes), corpus, args.steps)
        found["variants"][name] = trainer.report()
        last = {"loss": trainer.train_step(), "grad_norm": trainer.grad_norm}
        print(name, found["variants"][name], last, flush=True)
        write_json(args.out, found)
        first = first or last  # all start with the same weights, and see the same batches
        if any(abs(last[key] / first[key] - 1) > 0.05 for key in last):
            raise SystemExit(f"{name} trains another network: {last}, not {first}")


def training(args, corpus, settings: dict, found: dict) -> Trainer:
    """One run of as many steps as fit into --minutes; its curves into `found`."""
    name, fastest = max(found["variants"].items(), key=lambda kv: kv[1]["tokens_per_s"])
    steps = max(20, int(0.96 * 60 * args.minutes / fastest["step_s"]))
    if begun := newest_checkpoint(args.runs):  # of that many steps it goes on
        steps = read_json(begun / "state.json")["settings"]["steps"]
    changes = RUN | VARIANTS[name] | {"steps": steps, "valid_every": max(1, steps // 8)}
    if args.quick:
        changes |= {"warmup": 5}
    gc.collect()
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(preset("small", **settings | changes), corpus, args.runs)
    tokens = trainer.settings.batch_size * trainer.settings.length
    found |= {"variant": name, "steps": steps, "tokens_seen": steps * tokens,
              "epochs": steps * tokens / corpus.train.num_tokens,
              "parameters": sum(p.numel() for p in trainer.model.parameters()),
              "settings": {k: v for k, v in (settings | changes).items()
                           if k not in ("device", "data")}}  # fmt: skip

    def watch(record: dict) -> None:
        if "valid" in record:
            write_json(args.out, found | curves(read_log(args.runs)))

    trainer.run(callback=watch)
    found |= curves(read_log(args.runs)) | {"training_seconds": trainer.seconds}
    return trainer


def curves(log: list[dict]) -> dict:
    """Loss in nats a token, the bound in bits, and the last report, of a whole run."""
    facts = {
        "curve": [{k: r[k] for k in ("step", "loss", "grad_norm", "seconds")}
                  for r in log if "loss" in r],
        "valid": [{"step": r["step"], "bits": r["valid"] / math.log(2),
                   "error": r["valid_error"] / math.log(2)} for r in log if "valid" in r],
    }  # fmt: skip
    for record in log:
        facts |= record.get("report", {})
    return facts


def judged(args, corpus, trainer: Trainer, found: dict) -> None:
    """The bound of the averaged network on all validation blocks."""
    trainer.settings.valid_repeats = args.repeats
    blocks = corpus.valid[: 16 if args.quick else len(corpus.valid)]
    bound = trainer.validate(blocks)
    nats, error = bound.nats / corpus.valid.length, bound.error / corpus.valid.length
    bits = nats / math.log(2)
    found |= {
        "bits_per_token": bits, "bits_per_token_error": error / math.log(2),
        "bits_per_character": bits / corpus.info["chars_per_token"], "perplexity": math.exp(nats),
        "valid_tokens": blocks.numel(), "is_bound": trainer.loss_is_bound(),
        "frequencies_bits_per_token": frequencies(
            corpus.train[:], blocks, corpus.tokenizer.vocab_size
        ),
    }  # fmt: skip
    write_json(args.out, found)


def written(args, corpus, trainer: Trainer, found: dict) -> None:
    """Samples, and the seconds of one; into found["sampling"] and found["samples"]."""
    with autocast(args.device, trainer.dtype):  # the first calls are slower
        sample(trainer.average, trainer.graph, trainer.noise, (1, corpus.train.length), 2)
    for num, steps in ((1, 4), (1, 8), (2, 8)) if args.quick else ((1, 128), (1, 1024), (16, 128)):
        generator = torch.Generator(args.device).manual_seed(0)
        with autocast(args.device, trainer.dtype):
            synchronize(args.device)
            start = time.perf_counter()
            x = sample(trainer.average, trainer.graph, trainer.noise,
                       (num, corpus.train.length), steps, generator=generator)  # fmt: skip
            synchronize(args.device)
        seconds = time.perf_counter() - start
        found["sampling"].append({"samples": num, "steps": steps, "seconds": seconds})
        counts = torch.bincount(x.flatten().cpu()).double()
        p = counts[counts > 0] / counts.sum()
        found["samples"].append({
            "steps": steps, "of": num, "entropy_bits": -(p * p.log2()).sum().item(),
            "text": corpus.tokenizer.decode(x[0].tolist())[:1500],
        })  # fmt: skip
        print(found["sampling"][-1], flush=True)
        write_json(args.out, found)
    rows = corpus.valid[:16].flatten()
    p = torch.bincount(rows).double() / len(rows)
    found["entropy_bits_of_text"] = -(p[p > 0] * p[p > 0].log2()).sum().item()
    write_json(args.out, found)


def speed(args, corpus, settings: dict, found: dict) -> None:
    """What chapter 11 and `plan` read: one step, peak memories, seconds of sampling."""
    written(args, corpus, Trainer(preset("small", **settings), corpus), found)
    write_json(args.out, {
        "about": "SEDD small, L = 1024, batch 64, on one GPU. The network that was sampled had "
        "learned nothing; seconds do not depend on it.",
        **{key: found[key] for key in ("command", "device", "torch", "python", "sampling",
                                       "variants")},
    })  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="docs", help="shards, or docs in a stand-in's tokens")
    parser.add_argument("--about", help="the data in words, for the file")
    parser.add_argument("--minutes", type=float, default=30, help="of training [30]")
    parser.add_argument("--steps", type=int, default=8, help="of a variant that are measured [8]")
    parser.add_argument("--speed", action="store_true", help="no training, all of bfloat16")
    parser.add_argument("--repeats", type=int, default=16, help="of each validation block [16]")
    parser.add_argument("--quick", action="store_true", help="a tiny network")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "small-gpu")
    parser.add_argument("--out", type=Path, help="[in chapters/results]")
    args = parser.parse_args()
    name = "full-size-speed.json" if args.speed else "small-gpu.json"
    args.out = args.out or ROOT / "chapters" / "results" / name
    measured = [name for name in VARIANTS if name.startswith("bfloat16")]
    args.variants = measured if args.speed else ["bfloat16", "bfloat16, compiled"]
    args.device = "cuda" if torch.cuda.is_available() else "cpu"
    length, batch = (64, 4) if args.quick else (1024, 64)
    docs = args.data == "docs"
    corpus = docs_with_gpt2_tokens(length) if docs else load_corpus(args.data, length)
    settings = {"data": "docs" if docs else str(args.data), "length": length, "batch_size": batch,
                "device": args.device, "precision": "bfloat16"} | (QUICK if args.quick else {})
    found = {
        "about": args.about or "Python's documentation", "device": torch.cuda.get_device_name()
        if args.device == "cuda" else "CPU", "torch": torch.__version__,
        "python": platform.python_version(), "train_tokens": corpus.train.num_tokens,
        "command": shlex.join(["python", "tests/benchmarks/small_gpu.py", *sys.argv[1:]]),
        "variants": {}, "sampling": [], "samples": [],
    }  # fmt: skip
    speeds(args, corpus, settings, found)
    if args.speed:
        return speed(args, corpus, settings, found)
    trainer = training(args, corpus, settings, found)
    judged(args, corpus, trainer, found)
    written(args, corpus, trainer, found)
    print({k: found[k] for k in ("device", "steps", "bits_per_token", "bits_per_token_error",
                                 "frequencies_bits_per_token", "tokens_per_s", "utilisation")})


if __name__ == "__main__":
    main()
