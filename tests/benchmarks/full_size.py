"""SEDD small on the machine at hand: what each setting of training is worth, and sampling.

    python tests/benchmarks/full_size.py            # on a GPU: L = 1024, batch 64, bfloat16
    python tests/benchmarks/full_size.py --quick    # anywhere: the same steps, a tiny network
    python tests/benchmarks/full_size.py --train-minutes 10 --data SHARDS    # a GPU: only the loss

Prints a line of JSON for each measurement. Training: tokens a second, utilisation of a large matrix
product's FLOPs (measured beside it), peak memory, the split of a step. Sampling: seconds for a
whole sample of L tokens, denoising step included. Needs no network: Python's documentation, in a
small BPE whose vocabulary is filled up to GPT-2's 50 257. With --train-minutes: the loss as time
goes by, and the bound on validation text at the end, of the published settings but for batch,
warm-up and compilation.
"""

import argparse
import gc
import json
import time

import torch

from sedd_mini.network.hardware import synchronize
from sedd_mini.samplers import sample
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.offline import docs_with_gpt2_tokens
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

VARIANTS = {
    "bfloat16": {},
    "float32": {"precision": "float32"},
    "bfloat16, compiled": {"compile": True},
    "bfloat16, recomputed": {"checkpoint_activations": True},
    "bfloat16, compiled, recomputed": {"compile": True, "checkpoint_activations": True},
}
QUICK = {"width": 64, "num_blocks": 2, "num_heads": 2, "cond_dim": 16}


def tell(**facts) -> None:
    print(json.dumps(facts), flush=True)


def train(settings, corpus, steps: int) -> Trainer:
    """`steps` steps to warm up (and to compile), then as many that are looked at."""
    trainer = Trainer(settings, corpus)
    for _ in range(steps):
        trainer.train_step()
    for _ in range(steps):
        trainer.watch.start(True)
        trainer.train_step()
    return trainer


def train_for(minutes: float, settings, corpus, **facts) -> None:
    """The mean loss of each twentieth of the time, and the bound at the end; nats a token."""
    trainer = Trainer(settings, corpus)
    start, losses, told = time.perf_counter(), [], 0
    while told < 20:
        losses.append(trainer.train_step())
        passed = (time.perf_counter() - start) / 60
        if passed >= (told + 1) * minutes / 20:
            tokens = trainer.step * settings.batch_size * settings.length
            tell(minutes=passed, step=trainer.step, tokens=tokens, loss=sum(losses) / len(losses))
            told, losses = max(told + 1, int(20 * passed / minutes)), []
    bound = trainer.validate()
    tell(trained=corpus.info["source"], minutes=passed, steps=trainer.step, tokens=tokens,
         valid=bound.nats / settings.length, valid_error=bound.error / settings.length,
         **facts)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--batch-size", type=int, help="sequences (default: 64, quick: 4)")
    parser.add_argument("--steps", type=int, default=10, help="training steps that are measured")
    parser.add_argument("--train-minutes", type=float, help="train so long, and measure no more")
    parser.add_argument("--data", help="a folder of shards, to train on (default: as above)")
    args = parser.parse_args()
    length, batch = (64, 4) if args.quick else (1024, 64)
    sizes = QUICK if args.quick else {}
    batch = args.batch_size or batch
    corpus = load_corpus(args.data, length) if args.data else docs_with_gpt2_tokens(length)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    s = {"length": length, "batch_size": batch, "device": device, "precision": "bfloat16"}
    if args.train_minutes:
        settings = preset("small", **sizes | s, warmup=100, compile=device == "cuda")
        return train_for(args.train_minutes, settings, corpus, hardware=name, batch=batch)
    trainer = None
    for variant, changes in VARIANTS.items():
        if changes.get("compile") and device == "cpu":
            continue  # may have no C++ compiler
        trainer = None
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        settings = preset("small", data="docs", **sizes | s | changes)
        trainer = train(settings, corpus, args.steps)
        tell(training=variant, hardware=name, batch=batch, length=length, **trainer.report())
    network = trainer.average
    for num in (1, 2 if args.quick else 32):
        for steps in (4, 8) if args.quick else (128, 1024):
            generator = torch.Generator(device).manual_seed(0)
            with torch.autocast(device, torch.bfloat16):
                synchronize(device)
                start = time.perf_counter()
                sample(
                    network, trainer.graph, trainer.noise, (num, length), steps, generator=generator
                )
                synchronize(device)
            tell(sampling=f"{steps} Tweedie steps", hardware=name, batch=num, length=length,
                 seconds=time.perf_counter() - start)  # fmt: skip


if __name__ == "__main__":
    main()
