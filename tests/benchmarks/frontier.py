"""The frontier of chapter 10: quality of samples against network calls, and against seconds.

    python tests/benchmarks/frontier.py               # samples, judged: what is missing
    python tests/benchmarks/frontier.py --data docs
    python tests/benchmarks/frontier.py gumbel        # a sampler that games generative perplexity
    python tests/benchmarks/frontier.py seconds       # of sampling: on a machine with nothing else
    python tests/benchmarks/frontier.py ship          # chapters/checkpoints/synthetic-gpt2

It needs the grid of rivals.py, and of each kind of model takes the run of the best learning rate
with seed 0; one whose folder is gone is trained again.

K network calls of diffusion stand at t = 1, 1 − 1/K, …, 1/K, and the last one takes all noise away
(`sample` with its own times would spend its last call at t = 1e-5, where nothing is left to do).
GPT-2 makes one call a token. Calls are counted, not assumed; so are the positions that a sample
sends through the network: all of it in each call of diffusion, one a call with keys and values
kept. (A call in which no sample of the batch has a MASK left is not made.)

The judge of the synthetic language is its source, so −log p is exact and the source's own samples
are the yardstick. The judge of the documentation is a GPT-2 of the grid with another seed than the
one that is judged; it shares architecture and training data with that, which may favour it. Its
yardstick is real text, from the half of the validation blocks on which no learning rate was chosen:
306 blocks, so that the draws of two seeds of 256 share most of theirs.

A unit is one model and one seed of sampling, takes minutes on one thread, and becomes one JSON
file, written whole at its end; one that is there is not made again, and one that was interrupted
goes on after its last way of sampling. Several processes share them.
"""

import argparse
import contextlib
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

import rivals
import torch
from torch import Tensor

from sedd_mini.evaluation import generated
from sedd_mini.evaluation.rivals import GPT2, nats, sample_gpt2
from sedd_mini.files import lock, newest_checkpoint, read_json, step_of, write_json
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.samplers import leap_at, movable, move_weights, pick, sample
from sedd_mini.text.synthetic import SyntheticLanguage

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "chapters" / "checkpoints"
CALLS = {  # four, or one, a token at most: on the documentation more took an hour and moved nothing
    "synthetic": (1, 2, 4, 8, 16, 32, 64, 128),
    "docs": (1, 2, 4, 8, 16, 32, 64),
}
GUMBEL_CALLS = (32, 128)
GPT2_WAYS = (
    {"un-annealed": {}}
    | {f"temperature {T}": {"temperature": T} for T in (0.9, 0.8, 0.7, 0.5, 0.3)}
    | {f"nucleus {p}": {"nucleus": p} for p in (0.95, 0.9, 0.8)}
)
BATCH = 64
DATA = {  # models (the last is the yardstick), samples of a seed, seeds
    "synthetic": (("sedd-absorb", "sedd-uniform", "gpt2", "source"), 1024, 3),
    "docs": (("sedd-absorb", "gpt2", "real text"), 256, 2),
}


# ---- models of the grid --------------------------------------------------------------------------


def best(kind: str, args, seed: int = 0) -> tuple:
    """The unit of rivals.py with the best learning rate; ValueError where that is not known yet."""
    lr = rivals.best_rate(kind, grid(args))
    if lr is None:
        raise ValueError(f"the runs of {kind} that choose its learning rate are not all there: "
                         f"first python tests/benchmarks/rivals.py --data {args.data}")  # fmt: skip
    return kind, lr, seed


def grid(args) -> SimpleNamespace:
    """The arguments of rivals.py."""
    return SimpleNamespace(data=args.data, out=args.grid, runs=args.runs, rates=args.rates,
                           steps=args.training_steps, valid_blocks=None)  # fmt: skip


def load_run(unit, args) -> tuple:
    """(averaged network, graph, noise) of a unit; trained again, or on, where it is not whole."""
    folder = args.runs / args.data / rivals.name_of(unit)
    if step_of(newest_checkpoint(folder)) != rivals.settings_of(unit, grid(args)).steps:
        with lock(folder):
            rivals.train(unit, grid(args))
    return load_pretrained(folder)


# ---- samples -------------------------------------------------------------------------------------


@contextlib.contextmanager
def counting(model: torch.nn.Module):
    """What a network does meanwhile: `calls`, and the `positions` of all samples it computed."""
    count = SimpleNamespace(calls=0, positions=0)

    def look(module, args) -> None:
        count.calls += 1
        count.positions += args[0].numel()

    module = model.transformer if isinstance(model, GPT2) else model
    handle = module.register_forward_pre_hook(look)
    try:
        yield count
    finally:
        handle.remove()


def ways_of(model: torch.nn.Module, graph, noise, calls=()) -> dict[tuple, Callable]:
    """(how, calls asked for) → a function (shape, generator) → tokens."""
    if isinstance(model, GPT2):
        return {(how, None): partial(sample_gpt2, model, **options)
                for how, options in GPT2_WAYS.items()}  # fmt: skip
    return {("tweedie", K): partial(diffuse, model, graph, noise, K) for K in calls}


def diffuse(model, graph, noise, calls: int, shape, generator, **options) -> Tensor:
    if calls == 1:  # for `sample` the times of one call are too few
        return sample(model, graph, noise, shape, times=torch.tensor([1.0, 0.0]), denoise=False,
                      method=at_once, generator=generator, **options)  # fmt: skip
    times = torch.linspace(1, 0, calls + 1, dtype=torch.float64)[:-1]
    return sample(model, graph, noise, shape, times=times, generator=generator, **options)


def at_once(model, graph, noise, x, free, t, t_next, generator) -> Tensor:
    """All noise away in one step."""
    return leap_at(model, graph, x, free, noise.total(t), noise.total(t), "denoise", generator)


def draw(model, way: Callable, num: int, length: int, seed: int) -> tuple[Tensor, dict]:
    """Samples (num, length), and the calls of a batch and the positions of a sample it took."""
    generator, parts = torch.Generator().manual_seed(seed), []
    with counting(model) as count:
        for start in range(0, num, BATCH):
            parts.append(way((min(BATCH, num - start), length), generator=generator))
    made = {"calls": count.calls / len(parts), "positions_a_sample": count.positions / num}
    return torch.cat(parts), made


def judged(x: Tensor, score: Callable[[Tensor], Tensor], source=None) -> dict:
    """Samples (B, L) under a judge's −log p (B,), and what must stand beside that."""
    told = generated.Scores(score(x), torch.full((len(x),), x.shape[1])).as_dict()
    beside = generated.statistics(x.tolist())
    names = ("nats_per_token", "nats_per_token_error", "perplexity", "perplexity_error")
    row = {name: told[name] for name in names} | {
        "entropy_bits": beside["unigram_entropy_bits"],
        "entropy_bits_error": beside["unigram_entropy_bits_error"],
        "entropy_pooled_bits": beside["pooled_entropy_bits"],
    }  # fmt: skip
    row |= {name: beside[name] for name in ("distinct_2", "distinct_3", "repetition",
                                            "repetition_error")}  # fmt: skip
    if source is not None:
        found = generated.divergence(source, x, min(3, x.shape[1]))._asdict()
        row |= {f"divergence_{name}": value for name, value in found.items()}
    return row


@cache
def language() -> SyntheticLanguage:
    return SyntheticLanguage()


class Rows(list):
    """The rows of a unit, each kept in a file as it comes; what is there of the same budget, too.

    The ways of sampling have an order, so the number of rows tells which are left.
    """

    def __init__(self, file: Path, told: dict):
        self.file, self.told = file, told
        there = read_json(file) if file.exists() else {}
        super().__init__(there["rows"] if there.get("told") == told else [])

    def add(self, row: dict) -> None:
        self.append(row)
        write_json(self.file, {"told": self.told, "rows": self})
        print("  {model}, {how}, {calls:g} calls: {nats_per_token:.4f} nats a token".format(**row),
              flush=True)  # fmt: skip


def make_samples(unit, args, rows: Rows) -> dict:
    """All ways of one model with one seed, judged."""
    kind, seed = unit
    length = rivals.DATA[args.data][0].length
    result = {"num": args.num, "length": length, "batch_size": BATCH}
    who = {"model": kind, "seed": seed}
    if args.data == "synthetic":
        source, judge = language(), lambda x: -language().log_prob(x)
    else:
        source, judge = None, partial(nats, load_run(best("gpt2", args, seed=1), args)[0])
    if kind == yardstick(args):
        generator = torch.Generator().manual_seed(1000 + seed)  # the corpus has 0 and 1
        if source is not None:
            x = source.sample(args.num, length, generator)
        else:
            blocks = rivals.corpus_of(args.data).valid
            blocks = blocks[len(blocks) // 2 :]
            if len(blocks) < args.num:
                raise ValueError(f"there are {len(blocks)} blocks of real text, not {args.num}")
            x = blocks[torch.randperm(len(blocks), generator=generator)[: args.num]]
        who |= {"how": kind, "calls": 0, "positions_a_sample": 0}
        rows.add(who | judged(x, judge, source))
    else:
        model, graph, noise = load_run(best(kind, args), args)
        result["parameters"] = sum(p.numel() for p in model.parameters())
        ways = ways_of(model, graph, noise, CALLS[args.data])
        for (how, K), way in [*ways.items()][len(rows) :]:
            x, made = draw(model, way, args.num, length, seed)
            rows.add(who | {"how": how, "calls_asked": K} | made | judged(x, judge, source))
    return result | {"rows": rows}


def yardstick(args) -> str:
    return DATA[args.data][0][-1]


# ---- low-precision Gumbel noise ------------------------------------------------------------------


def step_of_draw(choose: Callable) -> Callable:
    """A Tweedie step of `sample` whose tokens are drawn over the whole row, staying included.

    choose(p, generator) → (M,) indices; p (M, N + 1) float64 sums to 1, the last is to stay MASK.
    The step to t = 0 leaves no MASK: so `sample` needs no last step of its own.
    """

    def step(model, graph, noise, x, free, t, t_next, generator) -> Tensor:
        at = movable(graph, x, free)
        if not at.any():
            return x
        sigma = noise.total(t)
        log_score = model(x, torch.full((len(x),), float(sigma)), at=at)
        dsigma, how = float(sigma - noise.total(t_next)), "tweedie" if t_next > 0 else "denoise"
        moves, p_move = move_weights(graph, x[at], log_score, dsigma, how)
        p = moves.double()
        p *= (p_move / p.sum(-1))[:, None]
        p[:, -1] = 1 - p_move
        return x.masked_scatter(at, choose(p, generator))

    return step


def exactly(p: Tensor, generator) -> Tensor:
    return pick(p, torch.rand(len(p), generator=generator, dtype=torch.float64))


def by_gumbel(bits: int, p: Tensor, generator) -> Tensor:
    """argmax of log p + Gumbel noise made of so many random bits, in float32: as it was done.

    24 bits are torch.rand's float32. 11 are what float16 has just below 1, where the luck of a rare
    move lies; the rest of the arithmetic stays float32.
    """
    u = torch.randint(2**bits, p.shape, generator=generator) / 2**bits
    return (p.float().log() - torch.log(-torch.log(u + 1e-10))).argmax(-1)


def by_law(bits: int, p: Tensor, generator) -> Tensor:
    """What chapter 08's law says of that, drawn exactly."""
    return exactly(lawful(p, bits), generator)


def lawful(p: Tensor, bits: int) -> Tensor:
    """Rows (M, S), the last to stay: a move keeps (1/c)/(e^{1/c} − 1) of its p, c = p · 2^bits.

    What the moves lose goes to staying; where that has no probability, to all moves in proportion.
    """
    q = p * kept(p * 2**bits)
    q[:, -1] = torch.where(p[:, -1] > 0, 1 - q[:, :-1].sum(-1), 0)
    return q / q.sum(-1, keepdim=True)


def kept(c: Tensor) -> Tensor:
    c = c.clamp(min=1e-3)  # e^{1000} is inf, and 0 the answer
    return 1 / c / torch.expm1(1 / c)


def law_of_a_run(pi: Tensor, K: int, bits: int) -> Tensor:
    """The law (M, N) of a token after K leaps drawn so, from pi (M, N) that does not change."""
    law, masked, size = torch.zeros_like(pi), torch.ones(len(pi)).double(), pi.numel()
    for part in torch.arange(K).split(max(1, 2**22 // size)):
        moves = pi / (K - part)[:, None, None]  # (k, M, N): π Δt/t
        moves = moves * kept(moves * 2**bits)
        stays = (1 - moves.sum(-1)).clamp(min=0).cumprod(0)  # (k, M), after each leap
        before = torch.cat([torch.ones_like(stays[:1]), stays[:-1]]) * masked
        law, masked = law + (before[..., None] * moves).sum(0), masked * stays[-1]
    return law / law.sum(-1, keepdim=True)


def nats_off(pi: Tensor, K: int, bits: int) -> float:
    """By how much −log π of such a token, a mean over rows, differs from the entropy of π."""
    told = -torch.xlogy(law_of_a_run(pi, K, bits), pi).sum(-1).mean()
    return (told + torch.xlogy(pi, pi).sum(-1).mean()).item()


def make_gumbel(args, rows: Rows) -> dict:
    """The shipped absorbing model, drawn by Gumbel noise of few bits, and as the law predicts."""
    model, graph, noise = load_pretrained(SHIPPED / "synthetic-absorb")
    num, draws = args.num // 4, (
        ("exact", None, exactly), ("gumbel", 24, partial(by_gumbel, 24)),
        ("gumbel", 11, partial(by_gumbel, 11)), ("law", 11, partial(by_law, 11)),
    )  # fmt: skip
    ways = [(K, *way) for K in GUMBEL_CALLS for way in draws]
    for K, how, bits, choose in ways[len(rows) :]:
        times = torch.linspace(1, 0, K + 1, dtype=torch.float64)
        way = partial(sample, model, graph, noise, times=times, denoise=False,
                      method=step_of_draw(choose))  # fmt: skip
        x, made = draw(model, way, num, model.config.length, 0)
        row = {"model": "synthetic-absorb", "how": how, "bits": bits, "seed": 0, "calls_asked": K}
        rows.add(row | made | judged(x, lambda x: -language().log_prob(x), language()))
    return {"num": num, "length": model.config.length, "rows": rows, "by_leaps": by_leaps()}


def by_leaps(bits: int = 24) -> dict:
    """What the noise of float32 (24 bits) does to −log π a token, for more and more leaps.

    By the law alone, for tokens of fixed π: the word frequencies of the synthetic language, what
    its true posterior says of hidden words among others (hidden at a random rate), and Zipf's form
    over GPT-2's vocabulary. `shows_from`: the least of these K at which it is 0.01 nats or more.
    """
    truth = language()
    generator = torch.Generator().manual_seed(0)
    x = truth.sample(64, 32, generator)
    known = torch.rand(64, 32, generator=generator) > torch.rand(64, 1, generator=generator)
    hidden = truth.posterior(x, known)[~known][::8]  # (M, 40)
    words = (truth.stationary @ truth.emission)[None]
    zipf = 1 / torch.arange(1, 50_258, dtype=torch.float64)[None]
    found = {}
    for name, pi, most in (("words", words, 17), ("hidden words", hidden, 13),
                           ("zipf", zipf / zipf.sum(), 12)):  # fmt: skip
        leaps = [2**i for i in range(1, most + 1)]
        off = [nats_off(pi, K, bits) for K in leaps]
        shows = next((K for K, d in zip(leaps, off, strict=True) if abs(d) >= 0.01), None)
        found[name] = {"num_tokens": pi.shape[1], "bits": bits, "leaps": leaps, "nats_off": off,
                       "shows_from": shows}  # fmt: skip
    return found


# ---- seconds -------------------------------------------------------------------------------------


def make_seconds(args, rows: list, rounds: int = 3) -> dict:
    """Seconds a sample on one thread: all ways take turns, and the median over rounds is told."""
    length, ways = rivals.DATA[args.data][0].length, {}
    for kind in DATA[args.data][0][:-1]:
        model, graph, noise = load_run(best(kind, args), args)
        for (how, K), way in ways_of(model, graph, noise, CALLS[args.data]).items():
            if K or how in ("un-annealed", "temperature 0.7", "nucleus 0.9"):
                ways[kind, how, K] = model, way
        if isinstance(model, GPT2):
            ways[kind, "un-annealed, no cache", None] = model, partial(
                sample_gpt2, model, cache=False)  # fmt: skip
    for size in (1, BATCH):
        took, made = {name: [] for name in ways}, {}
        for round_ in range(rounds + 1):  # the first warms up
            for name, (model, way) in ways.items():
                generator, start = torch.Generator().manual_seed(round_), time.perf_counter()
                with counting(model) as count:
                    way((size, length), generator=generator)
                if round_:
                    took[name].append((time.perf_counter() - start) / size)
                    made[name] = count
        for name, seconds in took.items():
            rows.append({
                "model": name[0], "how": name[1], "calls_asked": name[2], "batch_size": size,
                "calls": made[name].calls, "positions_a_sample": made[name].positions / size,
                "seconds_a_sample": statistics.median(seconds),
                "seconds_a_sample_least": min(seconds), "seconds_a_sample_most": max(seconds),
            })  # fmt: skip
    return {"length": length, "rounds": rounds, "rows": rows}


# ---- the model that is shipped -------------------------------------------------------------------


def ship(args) -> None:
    """Write the best GPT-2 of the synthetic language as the other weights are: in float16."""
    unit, corpus = best("gpt2", args), rivals.corpus_of(args.data)
    settings, folder = rivals.settings_of(unit, grid(args)), args.to / "synthetic-gpt2"
    parts = *load_run(unit, args), corpus.tokenizer
    save_pretrained(folder, *parts, dtype=torch.float16)
    model, found = load_pretrained(folder)[0], rivals.result_of(unit, grid(args))
    bits = nats(model, corpus.valid[:]) / settings.length / math.log(2)  # of what was written
    record = {
        "command": "python tests/benchmarks/frontier.py ship", "run": rivals.name_of(unit),
        "seed": unit[2], "lr": unit[1], "steps": settings.steps,
        "tokens_seen": found["tokens_seen"], "parameters": found["parameters"],
        "wall_time_s": round(found["seconds_a_step"] * settings.steps),
        "hardware": f"{found['hardware']} cpu, {found['threads']} thread(s)",
        "python": found["python"], "torch": found["torch"], "corpus": corpus.info,
        "valid_blocks": len(bits), "bits_per_token": bits.mean().item(),
    }  # fmt: skip
    save_pretrained(folder, *parts, dtype=torch.float16, info=record)
    print(f"{folder.name}: {rivals.name_of(unit)}, {bits.mean():.4f} bits a token")


# ---- units ---------------------------------------------------------------------------------------


def units_of(args) -> dict[str, Callable[[], dict]]:
    """File name → what makes its content."""
    if args.what != "samples":
        return {f"{args.data}-{args.what}": {"gumbel": make_gumbel, "seconds": make_seconds}[
            args.what]}  # fmt: skip
    names = {f"{args.data}-{kind.replace(' ', '-')}-seed{seed}": (kind, seed)
             for seed in range(args.seeds) for kind in args.models}  # fmt: skip
    return {name: partial(make_samples, unit) for name, unit in names.items()}


def budget(name: str, args) -> dict:
    """What a result must agree with to be taken as made."""
    told = {"data": args.data}
    if args.what != "seconds":
        told["samples_asked"] = args.num
    if args.what == "gumbel":
        return told | {"calls_asked": list(GUMBEL_CALLS)}
    kinds = DATA[args.data][0][:-1]
    if args.what == "samples":
        kinds = [kind for kind in kinds if name.startswith(f"{args.data}-{kind}-seed")]
    told["runs"] = [rivals.name_of(best(kind, args)) for kind in kinds]
    if args.data == "docs" and args.what == "samples":
        told["judge"] = rivals.name_of(best("gpt2", args, seed=1))
    if "gpt2" in kinds:
        told["ways"] = list(GPT2_WAYS)
    if set(kinds) - {"gpt2"}:
        told["calls_asked"] = list(CALLS[args.data])
    return told


def result_of(name: str, args) -> dict | None:
    """What was found, if it was; ValueError if that was another budget."""
    file = args.out / f"{name}.json"
    if not file.exists():
        return None
    result = read_json(file)
    for key, wanted in budget(name, args).items():
        if result.get(key) != wanted:
            raise ValueError(f"{file} has {key} {result.get(key)}, not {wanted}: name another "
                             "--out, or remove it to make it again")  # fmt: skip
    return result


def make(name: str, maker: Callable, args) -> bool:
    """Make a unit, unless another process is at it; whether it is there."""
    try:
        held = lock(args.locks / name)
    except ValueError:
        return False
    with held:
        if result_of(name, args):
            return True
        start, busy = time.perf_counter(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        told, file = budget(name, args), args.locks / name / "rows.json"
        command = f"python tests/benchmarks/frontier.py {args.what} --data {args.data}"
        result = told | maker(args, Rows(file, told)) | {
            "seconds": round(time.perf_counter() - start, 1),  # the last stretch, if interrupted
            "load_at_start": busy,
            "command": command, "threads": torch.get_num_threads(),
            "hardware": platform.machine(), "python": platform.python_version(),
            "torch": torch.__version__,
        }  # fmt: skip
        write_json(args.out / f"{name}.json", result)
        file.unlink(missing_ok=True)
        print(f"{name}: {result['seconds']:.0f} s", flush=True)
    return True


def table(args) -> None:
    """Each way: the mean over seeds and its error, or the seconds."""
    found = [result_of(name, args) for name in units_of(args)]
    rows = {}
    for row in (row for result in found if result for row in result["rows"]):
        what = row["model"], f"{row['how']} {row.get('bits') or ''}", row.get("calls_asked")
        rows.setdefault((*what, row.get("batch_size")), []).append(row)
    for (model, how, asked, size), same in rows.items():
        text = f"{model:16s} {how:22s} {asked or same[0]['calls']:4g} calls"
        if size:
            text += f", batch {size:2d}: {1000 * same[0]['seconds_a_sample']:.2f} ms a sample"
        for key in ("nats_per_token", "entropy_bits", "divergence_least", "divergence_most"):
            if key in same[0]:
                error = math.hypot(*(r.get(f"{key}_error") or 0 for r in same)) / len(same)
                value = statistics.mean(r[key] for r in same)
                text += f"  {key} {value:.4f} ± {error:.4f}"
        print(text)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", default="samples",
                        choices=("samples", "gumbel", "seconds", "ship"))  # fmt: skip
    parser.add_argument("--data", choices=DATA, default="synthetic")
    parser.add_argument("--models", nargs="+", help="[all]")
    parser.add_argument("--num", type=int, help="samples a seed [1024 synthetic, 256 docs]")
    parser.add_argument("--seeds", type=int, help="of sampling [3 synthetic, 2 docs]")
    parser.add_argument("--rates", nargs="+", type=float, default=list(rivals.RATES),
                        help="learning rates of the grid to choose from")  # fmt: skip
    parser.add_argument("--training-steps", type=int, help="of the grid [as rivals.py]")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no unit after that")
    results = ROOT / "chapters" / "results"
    parser.add_argument("--grid", type=Path, default=results / "rivals", help="what rivals.py said")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "rivals")
    parser.add_argument("--out", type=Path, default=results / "frontier")
    parser.add_argument("--locks", type=Path, default=ROOT / "runs" / "frontier")
    parser.add_argument("--to", type=Path, default=SHIPPED, help="where ship writes")
    parser.add_argument("--list", action="store_true", help="make nothing")
    args = parser.parse_args(given)
    models, num, seeds = DATA[args.data]
    args.models, args.num = args.models or models, args.num or num
    args.seeds = args.seeds or seeds
    if unknown := set(args.models) - set(models):
        parser.error(f"of {args.data} there is no model {min(unknown)}, but {', '.join(models)}")
    if args.data != "synthetic" and args.what in ("gumbel", "ship"):
        parser.error(f"{args.what} is of the synthetic language")
    return args


def main(given: list[str] | None = None) -> None:
    args = arguments(given)
    torch.set_num_threads(1)
    if args.what == "ship":
        return ship(args)
    start, units = time.perf_counter(), units_of(args)
    while not args.list and (missing := [name for name in units if not result_of(name, args)]):
        if time.perf_counter() - start > 60 * args.minutes:
            print(f"{len(missing)} units are left: the same command goes on with them")
            break
        if not any(make(name, units[name], args) for name in missing):
            time.sleep(2)  # others are at the last ones
    table(args)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    except (OSError, ValueError) as error:
        sys.exit(f"frontier: {error}")
