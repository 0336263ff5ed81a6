"""How each claim of the ledger is judged: figures from results files, and statements about them.

A function here takes the `Results`, makes figures with error bars, and checks statements about
these figures. The verdict follows from the statements alone: if all are true, "holds here"; some,
"in part"; none, "does not show at this scale". A control that fails takes "holds here" away, and
gives nothing. A statement is true where the whole 95 % interval of its figure says so. A result
that is not made yet raises `NotYet`.
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

from sedd_mini.evaluation.results import (
    FULL,
    Figure,
    Judged,
    Results,
    estimate,
    first,
    gap,
    less,
    mean,
    pooled,
)

LEVEL = 1.05  # perplexities are level where one is at most 5 % above the other
DATA, GRAPHS = ("synthetic", "docs"), ("absorb", "uniform")
PAIRS = [(data, graph) for data in DATA for graph in GRAPHS]
INFORMED = ", informed"  # mean prediction that is told p(x_t | x0): it starts at ratios of 1
MEANS = {"absorb": ("mean-absorb", ""), "uniform": ("informed-uniform", INFORMED)}  # finite bounds
PLAIN, STOP = "mean-uniform", "1e-9"  # its bound is infinite; likelihood_bound stops at this σ̄
BITS, NATS = "bits a word", "nats a token"
WIDTHS, TRIALS = (64, 128, 192), 16  # of tests/benchmarks/beyond_training.py
OURS, SQUARES = "score entropy", "concrete score matching"


def above(figure: Figure, bound: float) -> bool | None:
    """None, cannot tell: the bound lies within the figure's interval."""
    return figure.low > bound if not figure.low <= bound < figure.high else None


def at_most(figure: Figure, bound: float) -> bool | None:
    over = above(figure, bound)
    return None if over is None else not over


def both(answers: Iterable[bool | None]) -> bool | None:
    """False if one is, or else None if one is; True if all are."""
    answers = set(answers)
    return False if False in answers else None if None in answers else True


# ---- the loss ------------------------------------------------------------------------------------


def optimum(results: Results) -> Judged:
    unit = results.part("claims.json", "optimum")
    errors = {graph: unit["error"][graph].number for graph in GRAPHS}
    control = unit["error_of_squares_of_logs"].number
    figures = [Figure(f"largest error of a log-ratio, {g}", e) for g, e in errors.items()]
    return Judged(
        [*figures, Figure("the same of another loss (control)", control)],
        {f"the minimiser is the true ratio to 1e-4, {g}": e < 1e-4 for g, e in errors.items()},
        {"the check tells another loss apart": control > 0.01},
    )


def positivity(results: Results) -> Judged:
    ours, squares, plain = (
        [100 * share for share in results.spiral(name, "not positive", most=True)]
        for name in (OURS, "squares of an exponential", SQUARES)
    )
    return Judged(
        [mean("share of ratios ≤ 0, score entropy", ours, "%"),
         mean("least squares with an exponential output", squares, "%"),
         mean("least squares", plain, "%")],
        {"score entropy has no ratio ≤ 0, in any seed": max(ours) == 0},
        {"least squares without an exponential has some, in each seed": min(plain) > 0},
    )  # fmt: skip


def gradients(results: Results) -> Judged:
    seeds = results.part("claims.json", "gradients")["seeds"]
    by = {name: seeds[name].numbers("deviation_over_mean") for name in seeds.value}
    ours, figures, statements = by.pop(OURS), [], {}
    for name, theirs in by.items():
        figures.append(mean(f"the same of {name}", theirs))
        less_than = above(mean(name, less(theirs, ours)), 0)
        statements[f"score entropy's gradient fluctuates less than that of {name}"] = less_than
    figures.insert(0, mean("standard deviation of the gradient's norm over its mean", ours))
    return Judged(figures, statements)


def concrete(results: Results) -> Judged:
    bad = [100 * v for v in results.spiral(SQUARES, "not positive", most=True)]
    further = mean("total variation of its samples, less that of score entropy",
                   less(results.spiral(SQUARES, "tv"), results.spiral(OURS, "tv")))  # fmt: skip
    longer = max(results.longer(SQUARES, 8000, "negative"))
    seeds = results.part("claims.json", "gradients")["seeds"]
    spikes = seeds[SQUARES].numbers("largest_over_median")
    return Judged(
        [mean("share of ratios ≤ 0", bad, "%"), further,
         Figure("share of ratios ≤ 0 after ten times the steps", 100 * longer, 0, "%"),
         Figure("largest gradient over the median", max(spikes))],
        {"some of its ratios are ≤ 0, in each seed": min(bad) > 0,
         "ten times the steps do not cure it": longer > 0,
         "its samples are worse than those of score entropy": above(further, 0),
         "training diverges: a gradient ten times the median": max(spikes) > 10},
    )  # fmt: skip


def ratio_matching(results: Results) -> Judged:
    unit = results.part("claims.json", "calls")
    lengths, theirs = unit["lengths"].numbers(), unit["ratio matching"].numbers()
    page = results.part("03_page.json", "page")["uniform"].numbers("bits")
    place = results.part("03_page.json", "one_place")["ratio matching"].numbers("bits")
    worse = mean("at equal evaluations its bound is higher by", less(place, page), BITS)
    return Judged(
        [Figure(f"network evaluations for {lengths[-1]:.0f} tokens", theirs[-1]),
         Figure("of score entropy", unit[OURS].numbers()[-1]), worse,
         mean("at equal steps, total variation of its samples on two tokens",
              results.spiral("ratio matching", "tv")),
         mean("the same of score entropy", results.spiral(OURS, "tv"))],
        {"one evaluation a token of the sequence, where score entropy takes one in all":
            theirs == lengths and set(unit[OURS].numbers()) == {1},
         "at equal evaluations its bound is worse": above(worse, 0)},
    )  # fmt: skip


# ---- the rivals ----------------------------------------------------------------------------------


def against(results: Results, data: str, ours: str, theirs: str, name: str, form: Callable, unit):
    """form(nats a token of theirs − of ours) over seeds, as a Figure; form(0) is 0."""
    a, b = results.rivals(data, ours), results.rivals(data, theirs)
    slope = abs(form(1e-6) / 1e-6)
    errors = [slope * max(u["nats_per_token_error"].number for u in units) for units in (a, b)]
    gaps = less(*([u["nats_per_token"].number for u in units] for units in (b, a)))
    return mean(name, [form(nats) for nats in gaps], unit, errors)


def endless(results: Results, data: str) -> Figure:
    """The bound of plain mean prediction with uniform noise, of which no difference can be taken.

    It pays 1 − π_{x_i} for each e-fold of σ̄ down to 0 (InformedMean of rivals.py), so it is
    infinite whatever a network has learned. The files have its integral from σ̄ = STOP up.
    """
    units = results.rivals(data, PLAIN)
    nats, errors = ([u[key].number for u in units]
                    for key in ("nats_per_token", "nats_per_token_error"))  # fmt: skip
    stopped = mean(f"down to σ̄ = {STOP}", nats, NATS, [max(errors)])
    return Figure(f"bound of plain mean prediction, {data}, uniform", math.inf, 0, NATS, stopped)


WITHOUT_END = (
    "plain mean prediction with uniform noise. Its bound is infinite whatever its network has "
    "learned: it pays for each e-fold of σ̄ down to 0 (chapter 10, laboratory). The informed form "
    "and score entropy do not"
)


def mean_prediction(results: Results) -> Judged:
    """By the forms with finite bounds; the infinite one is a finding beside."""
    rows = [(f"{data}, {graph}{MEANS[graph][1]}", data, graph) for data, graph in PAIRS]
    figures = [against(results, data, f"sedd-{graph}", MEANS[graph][0],
                       f"mean prediction less score entropy, {name}", float, NATS)
               for name, data, graph in rows]  # fmt: skip
    later = "mean prediction, ratios from 1"
    two = {
        "two tokens": results.spiral("mean prediction", "tv"),
        f"two tokens{INFORMED}": results.longer(later, 800, "tv"),
    }
    for name, tv in two.items():
        name = f"total variation of samples, mean prediction less score entropy, {name}"
        figures.append(mean(name, less(tv, results.spiral(OURS, "tv"))))
    names = [name for name, *_ in rows] + list(two)
    statements = {f"mean prediction is weaker, {name}": above(figure, 0)
                  for name, figure in zip(names, figures, strict=True)}  # fmt: skip
    figures += [endless(results, data) for data in DATA]
    return Judged(figures, statements, left_out=WITHOUT_END)


def lower(results: Results) -> Judged:
    """Than the form of mean prediction with a finite bound: any number is 100 % below infinity."""
    figures, statements = [], {}
    for data, graph in PAIRS:
        theirs, how = MEANS[graph]
        name = f"perplexity bound lower than that of mean prediction by, {data}, {graph}{how}"
        figures.append(against(results, data, f"sedd-{graph}", theirs, name,
                               lambda nats: -100 * math.expm1(-nats), "%"))  # fmt: skip
        statements[f"lower by at least 25 %, {data}, {graph}{how}"] = above(figures[-1], 25)
    figures += [endless(results, data) for data in DATA]
    return Judged(figures, statements, left_out=WITHOUT_END)


def level(results: Results) -> Judged:
    figures, statements = [], {}
    for data in DATA:
        name = f"perplexity bound above the exact perplexity of GPT-2 by, {data}"
        figures.append(against(results, data, "sedd-absorb", "gpt2", name,
                               lambda nats: 100 * math.expm1(-nats), "%"))  # fmt: skip
        statements[f"at most 5 % above GPT-2, {data}"] = at_most(figures[-1], 100 * (LEVEL - 1))
    return Judged(figures, statements)


# ---- samples -------------------------------------------------------------------------------------


def three(results: Results, data: str) -> tuple[list, list, list]:
    """Rows by seed of un-annealed samples: ours at the most calls, GPT-2's, and real text's."""
    real = "source" if data == "synthetic" else "real-text"
    ours = max(results.samples(data, "sedd-absorb"), key=asked)
    real = results.samples(data, real)[0]
    if data == "docs":  # its seeds share most of their blocks: one of them counts
        real = real[:1]
    return ours, results.un_annealed(data), real


def asked(rows: list) -> float:
    """The calls asked for; a call in which nothing is left to do is not made."""
    return rows[0]["calls_asked"].number


def generative(results: Results) -> Judged:
    figures, statements, controls = [], {}, {}
    for data in DATA:
        ours, gpt2, real = three(results, data)
        for name, rows in (("ours", ours), ("real text's", real)):
            factor = math.exp(apart(gpt2, rows).value)
            figures.append(Figure(f"GPT-2's generative perplexity over {name}, {data}", factor,
                                  factor * apart(gpt2, rows).error))  # fmt: skip
        statements[f"a factor of 6 or more, {data}"] = above(figures[-2], 6)
        controls[f"and not by lost entropy, {data}"] = rich(ours, real)
    return Judged(figures, statements, controls)


def apart(a: list, b: list, key: str = "nats_per_token") -> Figure:
    return gap(key, pooled(key, a, key), pooled(key, b, key))


def rich(ours: list, theirs: list) -> bool | None:
    """Whether a text's unigram entropy is at most 5 % of perplexity below that of theirs."""
    return at_most(apart(theirs, ours, "entropy_bits"), math.log2(LEVEL))


def calls(results: Results) -> Judged:
    figures, statements = [], {}
    for data in DATA:
        gpt2, at = results.un_annealed(data), level_calls(results, data)
        factor = gpt2[0]["calls"].number / at if at else 0.0
        tried = [asked(rows) for rows in results.samples(data, "sedd-absorb")]
        name = f"of {min(tried):.0f} to {max(tried):.0f} calls (0: at none), {data}"
        name = f"GPT-2's calls over the least at which ours are level, {name}"
        figures.append(Figure(name, factor))
        statements[f"level at 32 times fewer calls, {data}"] = factor >= 32
        statements[f"level at fewer calls, {data}"] = factor > 1
    return Judged(figures, statements)


def level_calls(results: Results, data: str) -> float | None:
    """The least calls at which our samples are level with GPT-2's un-annealed ones.

    In generative perplexity, and besides in divergence of 3-grams where the source is known, in
    entropy elsewhere: 5 % a token.
    """
    gpt2 = results.un_annealed(data)

    def is_level(rows: list) -> bool | None:
        if apart(rows, gpt2).high > math.log(LEVEL):
            return False
        if data == "synthetic":
            keys = "divergence_least", "divergence_most"  # of samples of equal number
            return all(apart(rows, gpt2, key).high <= 3 * math.log2(LEVEL) for key in keys)
        return rich(rows, gpt2)

    ways = results.samples(data, "sedd-absorb")
    return min((asked(rows) for rows in ways if is_level(rows)), default=None)


def annealing(results: Results) -> Judged:
    figures, statements, controls = [], {}, {}
    for data in DATA:
        ours, gpt2, real = (pooled("", rows, "nats_per_token") for rows in three(results, data))
        figures += [gap(f"un-annealed samples less real text, {name}, {data}", rows, real, NATS)
                    for name, rows in (("ours", ours), ("GPT-2's", gpt2))]  # fmt: skip
        sides = at_most(figures[-2], math.log(LEVEL)), above(figures[-2], -math.log(LEVEL))
        statements[f"ours are level with real text, {data}"] = both(sides)
        controls[f"GPT-2's are further from it, {data}"] = above(gap("", gpt2, ours), 0)
    return Judged(figures, statements, controls)


def leaps(results: Results) -> Judged:
    unit, figures, statements, controls = results.part("claims.json", "leaps"), [], {}, {}
    steps = unit["steps"].numbers()
    for name in ("MASK", "uniform", "lopsided"):
        off, run = unit["noise"][name]["one_leap"], unit["noise"][name]["runs"]
        tweedie, euler = run["tweedie"].numbers(), run["euler"].numbers()
        figures += [
            Figure(f"furthest from the best single leap, {name} noise", off["tweedie"].number),
            Figure(f"KL of {steps[-1]:.0f} steps over that of Euler's, {name} noise",
                   tweedie[-1] / euler[-1]),
        ]  # fmt: skip
        statements[f"one leap is the best, to 1e-6, {name} noise"] = off["tweedie"].number < 1e-6
        statements[f"{steps[0]:.0f} to {steps[-1]:.0f} steps are never worse than Euler's, "
                   f"{name} noise"] = all(
            a <= b * (1 + 1e-9) for a, b in zip(tweedie, euler, strict=True))  # fmt: skip
        controls[f"Euler's leap is not the best, {name} noise"] = off["euler"].number > 0.01
    return Judged(figures, statements, controls)


# ---- what is given, and the bound ----------------------------------------------------------------


def just_above(bound: Figure) -> bool | None:
    """At most 0.1 above the truth, and not below it by more than three standard errors."""
    return both((at_most(bound, 0.1), bound.value >= -1.5 * bound.error))


def infilling(results: Results) -> Judged:
    unit, figures, statements = results.part("claims.json", "infilling"), [], {}
    for name in ("prefix given", "suffix given", "both given", "scattered"):
        ours = estimate(f"bound above the exact −log p, {name}", unit[name]["above_exact"], BITS)
        left = estimate(f"a perfect left-to-right model above it, {name}",
                        unit[name]["left_to_right"], BITS)  # fmt: skip
        figures += [ours, left]
        statements[f"bound within 0.1 bit of the truth, {name}"] = just_above(ours)
        if name != "prefix given":
            better = f"better than a perfect model that sees the left side only, {name}"
            statements[better] = above(gap("", left, ours), 0)
    return Judged(figures, statements)


def bayes(results: Results) -> Judged:
    unit, figures, statements = results.part("claims.json", "bayes"), [], {}
    steps = unit["steps"].numbers()[-1]
    for graph in GRAPHS:
        *_, before, last = unit[graph].numbers("largest")
        figures.append(Figure(f"largest total variation from p(rest | given) at {steps:.0f} steps, "
                              f"{graph}", last))  # fmt: skip
        statements[f"exact in the limit, {graph}"] = last < 0.01 and last < before / 2
    return Judged(figures, statements)


def bound(results: Results) -> Judged:
    unit, figures, statements = results.part("claims.json", "bound"), [], {}
    for graph in GRAPHS:
        equal = unit["exact_ratios"][graph].number
        least = min(unit["networks"][graph].numbers("least"))
        name = f"shipped network above the truth, {graph}"
        shipped = estimate(name, unit["shipped"][graph], BITS)
        figures += [
            Figure(f"bound less −log p with exact ratios, {graph}", equal, 0, "nats"),
            Figure(f"least gap of a small network, {graph}", least, 0, "nats"), shipped,
        ]  # fmt: skip
        statements[f"with exact ratios it is −log p, to 1e-6, {graph}"] = equal < 1e-6
        statements[f"no sequence's lies below −log p of its network, {graph}"] = least >= 0
        name = f"trained by it, a network comes within 0.1 bit of the truth, {graph}"
        statements[name] = just_above(shipped)
    return Judged(figures, statements)


def seconds(results: Results) -> Judged:
    rows, figures, statements = results.part("frontier/synthetic-seconds.json")["rows"], [], {}
    for size, name in ((1, "one at a time"), (64, "64 at a time")):
        batch = [row for row in rows if row["batch_size"].number == size]
        gpt2 = [row for row in batch if row["model"].value == "gpt2"]
        gpt2 = first([row for row in gpt2 if row["how"].value == "un-annealed"], rows)
        enough = level_calls(results, "synthetic") or gpt2["calls"].number
        ours = [row for row in batch if row["model"].value == "sedd-absorb"
                and row["calls_asked"].number >= enough]  # fmt: skip
        ours = first(sorted(ours, key=lambda row: row["calls_asked"].number), rows)
        keys = [f"seconds_a_sample{end}" for end in ("", "_least", "_most")]
        (a, low, high), (b, best, worst) = ([row[k].number for k in keys] for row in (ours, gpt2))
        off = max(high / best - a / b, a / b - low / worst)
        figures.append(Figure(f"seconds a sample over GPT-2's with its cache, {name}, "
                              f"{ours['calls_asked'].number:.0f} calls", a / b, off))  # fmt: skip
        statements[f"slower than GPT-2 with its cache, {name}"] = above(figures[-1], 1)
    cache = results.part("beyond/cache.json")["median"]
    ours, without, theirs = (cache[name].number for name in (
        "blocks, cache", "blocks, no cache", "gpt2, cache"))  # fmt: skip
    figures += [Figure("diffusion in blocks, which can have one: seconds without over with it",
                       without / ours),
                Figure("with it, over GPT-2 with its own", ours / theirs)]  # fmt: skip
    return Judged(figures, statements)


def full_size(results: Results) -> Judged:
    run = results.part("small-gpu.json")
    bits, error = run["bits_per_token"].number, run["bits_per_token_error"].number
    tokens, passes = run["tokens_seen"].number, run["epochs"].number
    return Judged([
        Figure(f"bound after {tokens / 1e6:.0f} million tokens, {passes:.0f} passes over the text",
               bits, 2 * error, "bits a token"),
        Figure("token frequencies", run["frequencies_bits_per_token"].number, 0, "bits a token"),
    ], {}, verdict=FULL)  # fmt: skip


def larger(results: Results) -> Judged:
    """Sizes at equal tokens on the documentation, one seed: the error is that of the bound."""
    units = {kind: [results.part(f"beyond/sizes/{kind}-width{width}-seed0.json")
                    for width in WIDTHS] for kind in ("sedd", "gpt2")}  # fmt: skip
    figures, falls = [], {}
    for kind, name in (("sedd", "score entropy"), ("gpt2", "GPT-2 (control)")):
        row = [Figure(f"{name}, width {width}", unit["nats_per_token"].number,
                      2 * unit["nats_per_token_error"].number, NATS)
               for width, unit in zip(WIDTHS, units[kind], strict=True)]  # fmt: skip
        figures += row
        falls[kind] = both(above(gap("", a, b), 0) for a, b in pairwise(row))
    return Judged(figures, {"at equal tokens a larger network has a lower bound": falls["sedd"]},
                  {"GPT-2's loss falls with its size": falls["gpt2"]})  # fmt: skip


def hyper_parameters(results: Results) -> Judged:
    """A random search at a quarter of the tokens; its best and the default at all, two seeds."""
    trials = [results.part(f"beyond/search/trial{n:02d}-seed0.json") for n in range(TRIALS)]
    bounds = [t["nats_per_token"].number for t in trials if not t["failed"].value]
    last = {name: [results.part(f"beyond/search/{name}-seed{seed}.json")["nats_per_token"].number
                   for seed in (1, 2)] for name in ("best", "default")}  # fmt: skip
    gain = mean("default less the best of the search, at all tokens",
                less(last["default"], last["best"]), NATS)  # fmt: skip
    return Judged(
        [gain, Figure(f"trials, of {TRIALS}, that trained", len(bounds)),
         Figure("their best at a quarter of the tokens", min(bounds), 0, NATS),
         Figure("their worst", max(bounds), 0, NATS)],
        {"what a search finds is better than the default": above(gain, 0)},
    )  # fmt: skip


def fewer_evaluations(results: Results) -> Judged:
    rows = results.part("beyond/claims.json", "few_calls")["rows"]
    costs = {name: [seed[0].number for seed in rows[name]] for name in rows.value}
    hit = costs["first hitting, 32 calls"]
    figures = [mean(f"{name} less first hitting, 32 calls", less(costs[name], hit), NATS)
               for name in ("tweedie, 32 calls", "tweedie, 64 calls", "tweedie, 128 calls")]
    return Judged(figures, {
        "at equal calls another sampler writes what the true language finds likelier":
            above(figures[0], 0),
        "it does so with half of the calls": above(figures[1], 0),
    })  # fmt: skip


def schedules(results: Results) -> Judged:
    kl = results.part("beyond/claims.json", "schedules")["kl"]
    figures, statements = [], {}
    for graph in GRAPHS:
        ratios = [pair[0].number / pair[1].number for pair in kl[graph]]
        figures.append(mean(f"divergence of four equal steps over that of searched ones, {graph}",
                            ratios))  # fmt: skip
        statements[f"searched times are better by half or more in each world, {graph}"] = (
            min(ratios) > 1.5
        )
    return Judged(figures, statements)


def continuous(results: Results) -> Judged:
    """Correctors, from the diffusion of continuous values: exact laws at equal network calls."""
    kl = results.part("beyond/claims.json", "correctors")["kl"]
    figures, statements = [], {}
    for kind in ("wrong", "exact"):
        leaps = kl[kind]["leaps"].numbers()
        for way in ("remasking, strength 0.3", "corrector"):
            ratios = [a / b for a, b in zip(kl[kind][way].numbers(), leaps, strict=True)]
            figures.append(mean(f"divergence with {way} over plain leaps, {kind} scores", ratios))
            statements[f"{way} lowers it in each world, {kind} scores"] = max(ratios) < 1
    return Judged(figures, statements)


def digits(results: Results, name: str, key: str) -> list[float]:
    return [results.part(f"beyond/digits/{name}-seed{seed}.json")[key].number for seed in (0, 1)]


def other_domains(results: Results) -> Judged:
    tables = results.part("beyond/claims.json", "digits")
    figures, statements = [], {}
    for table in ("by place", "by place and neighbours"):
        least = tables[table].number
        for graph in GRAPHS:
            bits = [nats / math.log(2) for nats in digits(results, f"pixels-{graph}",
                                                          "nats_per_token")]  # fmt: skip
            found = mean(f"bits a pixel of digits, tables {table} less score entropy, {graph}",
                         [least - b for b in bits])  # fmt: skip
            figures.append(found)
            statements[f"fewer bits than tables {table}, {graph}"] = above(found, 0)
    bits = [nats / math.log(2) for nats in digits(results, "pixels-gpt2", "nats_per_token")]
    figures.append(mean("bits a pixel of GPT-2", bits))
    return Judged(figures, statements)


def modalities(results: Results) -> Judged:
    joint = [100 * share for share in digits(results, "labels-absorb", "named_right")]
    alone = [100 * share for share in digits(results, "labels-classifier", "named_right")]
    behind = mean("a classifier of the same network and budget leads by", less(alone, joint), "%")
    named = mean("digits that labels and pixels in one sequence name right", joint, "%")
    return Judged([named, behind], {
        "names pictures far better than guesses, which are right in 10 %": above(named, 50),
        "level with a classifier: behind by at most 2 %": at_most(behind, 2),
    })  # fmt: skip
