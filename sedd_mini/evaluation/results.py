"""Results files, read with care: numbers that know where they stand, and figures with error bars.

A result that is not there yet raises `NotYet`; one that is there and does not fit raises ValueError
in one line that names the place: a key that is missing, a NaN, a file of something else.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sedd_mini.files import read_json

HOLDS, PART, NOT = "holds here", "in part", "does not show at this scale"
FULL, OPEN = "needs the full run", "open"
SEEDS = {"synthetic": 3, "docs": 2}  # of tests/benchmarks/rivals.py
STUDENT = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447)  # 97.5 % points, by degrees of freedom from 1


class NotYet(Exception):
    """A result that is not made yet, or not whole."""


# ---- reading -------------------------------------------------------------------------------------


class Part:
    """A piece of a results file, and where it stands."""

    def __init__(self, value, where: str):
        self.value, self.where = value, where

    def __getitem__(self, key: str | int) -> "Part":
        fits = dict if isinstance(key, str) else list
        if not isinstance(self.value, fits) or (fits is dict and key not in self.value):
            raise ValueError(f"{self.where} has no {key!r}: remove what is wrong there, and make "
                             "results")  # fmt: skip
        return Part(self.value[key], f"{self.where}: {key}")

    def __iter__(self) -> Iterator["Part"]:
        if not isinstance(self.value, list) or not self.value:
            raise ValueError(f"{self.where} must be a list that is not empty, got "
                             f"{self.value!r:.40}")  # fmt: skip
        return (Part(value, f"{self.where}: {i}") for i, value in enumerate(self.value))

    @property
    def number(self) -> float:
        """The value, if it is a finite number."""
        if type(self.value) not in (int, float) or not math.isfinite(self.value):
            raise ValueError(f"{self.where} must be a finite number, got {self.value!r:.40}")
        return float(self.value)

    def numbers(self, *keys: str | int) -> list[float]:
        """The number at the end of `keys` in each element of a list."""
        out = []
        for part in self:
            for key in keys:
                part = part[key]
            out.append(part.number)
        return out


class Results:
    """The files in chapters/results."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)

    def part(self, file: str, unit: str | None = None) -> Part:
        """A file, or the unit of that name in it; NotYet where either is missing."""
        try:
            part = Part(read_json(self.folder / file), file)
        except FileNotFoundError:
            raise NotYet(f"{file} is not there yet") from None
        if unit is None:
            return part
        if unit not in part.value:
            raise NotYet(f"{file} has no {unit} yet")
        return part[unit]

    def spiral(self, method: str, key: str, most: bool = False) -> list[float]:
        """Of chapter 03's contest, by seed; `most`: the largest over noise levels."""
        seeds = self.part("03_page.json", "spiral")["methods"][method]
        return [max(seed[key].numbers()) for seed in seeds] if most else seeds.numbers(key)

    def longer(self, method: str, steps: int, key: str) -> list[float]:
        """Of chapter 02's contest with other seeds and more steps, by seed."""
        runs = self.part("02_longer.json")["runs"]
        found = [run for run in runs
                 if [run["method"].value, run["steps"].number] == [method, steps]]  # fmt: skip
        first(found, runs)
        return [run[key].number for run in found]

    def rivals(self, data: str, kind: str) -> list[Part]:
        """The trainings of one kind of model at its best learning rate, seed by seed.

        The best rate is that of seed 0 with the lowest `tuning_nats_per_token`, once its neighbours
        in the grid are tried, as in tests/benchmarks/rivals.py. NotYet while one of these or a seed
        is missing, or a seed did not train.
        """
        units = [self.part(str(path.relative_to(self.folder)))
                 for path in sorted((self.folder / "rivals" / data).glob("*.json"))]  # fmt: skip
        for unit in units:
            if [unit["data"].value, unit["steps"].number] != [data, units[0]["steps"].number]:
                raise ValueError(f"{unit.where} is of other data or another budget than "
                                 f"{units[0].where}: remove one of them")  # fmt: skip
        found = {(u["lr"].number, int(u["seed"].number)): u for u in units
                 if u["kind"].value == kind}  # fmt: skip
        if not found:
            raise NotYet(f"rivals/{data} is not whole yet")
        rates = sorted(next(iter(found.values()))["learning_rates"].numbers())
        values = {lr: unit["tuning_nats_per_token"].number for (lr, seed), unit in found.items()
                  if seed == 0 and not unit["failed"].value}  # fmt: skip
        best = min(values, key=lambda lr: (values[lr], lr), default=None)
        if best is not None and best not in rates:
            raise ValueError(f"rivals/{data}: {kind} has a rate that its grid {rates} lacks")
        beside = [] if best is None else neighbours(rates, best)
        if best is None or any((rate, 0) not in found for rate in beside):
            raise NotYet(f"rivals/{data} is not whole yet")
        seeds = [found.get((best, seed)) for seed in range(SEEDS[data])]
        if any(unit is None or unit["failed"].value for unit in seeds):
            raise NotYet(f"rivals/{data} is not whole yet")
        return seeds

    def samples(self, data: str, model: str) -> list[list[Part]]:
        """The rows of tests/benchmarks/frontier.py of a model, seed by seed in each way to draw."""
        files = [self.part(f"frontier/{data}-{model}-seed{seed}.json")["rows"]
                 for seed in range(SEEDS[data])]  # fmt: skip
        ways = [[row["how"].value for row in rows] for rows in files]
        if any(way != ways[0] for way in ways):
            raise ValueError(f"{files[0].where} and the other seeds have other rows: make them "
                             "again")  # fmt: skip
        return [list(rows) for rows in zip(*files, strict=True)]

    def un_annealed(self, data: str) -> list[Part]:
        """GPT-2's rows without temperature or nucleus, by seed."""
        for rows in self.samples(data, "gpt2"):
            if rows[0]["how"].value == "un-annealed":
                return rows
        raise ValueError(f"frontier/{data}-gpt2-seed0.json has no row that is un-annealed")


def neighbours(rates: list[float], rate: float) -> list[float]:
    i = rates.index(rate)
    return rates[max(0, i - 1) : i] + rates[i + 1 : i + 2]


# ---- figures -------------------------------------------------------------------------------------


class Figure(NamedTuple):
    """A number with half of its 95 % interval; error 0 where it is exact.

    Of an integral that is infinite the value is `math.inf`. `stopped` is then what there is of it
    up to the place that its name tells: it is shown in brackets, and is no measurement.
    """

    name: str
    value: float
    error: float = 0.0
    unit: str = ""
    stopped: "Figure | None" = None

    @property
    def low(self) -> float:
        return self.value - self.error

    @property
    def high(self) -> float:
        return self.value + self.error

    @property
    def told(self) -> str:
        """The number in words, with its unit."""
        if self.stopped:
            return f"infinite ({self.stopped.told} {self.stopped.name})"
        if not self.error:
            number = f"{self.value:z.3g}"
        elif self.error < 1e-5:
            number = f"{self.value:.1e} ± {self.error:.0e}"
        else:
            digits = max(0, 1 - math.floor(math.log10(self.error)))
            number = f"{self.value:z.{digits}f} ± {self.error:.{digits}f}"
        return f"{number.replace('-', '−')}{' ' * bool(self.unit)}{self.unit}"

    def __str__(self) -> str:
        return f"{self.name}: {self.told}"


def mean(name: str, seeds: Sequence[float], unit: str = "", estimates: Sequence[float] = ()):
    """The mean over seeds as a Figure.

    estimates: standard errors that the spread over seeds does not show, as all seeds share them.
    """
    n, value = len(seeds), sum(seeds) / len(seeds)
    if n < 2:
        raise ValueError(f"{name}: one seed has no spread")
    spread = math.sqrt(sum((seed - value) ** 2 for seed in seeds) / (n - 1))
    student = STUDENT[min(n - 2, len(STUDENT) - 1)] * spread / math.sqrt(n)
    return Figure(name, value, math.hypot(student, *(2 * e for e in estimates)), unit)


def estimate(name: str, value_and_error: Part, unit: str = "") -> Figure:
    """A value and its standard error, as they stand in a file, as a Figure."""
    value, error = (part.number for part in value_and_error)
    return Figure(name, value, 2 * error, unit)


def pooled(name: str, rows: Sequence[Part], key: str, unit: str = "") -> Figure:
    """The mean of independent estimates with standard errors of their own (`key`_error)."""
    values = [row[key].number for row in rows]
    errors = [row[f"{key}_error"].number for row in rows]
    return Figure(name, sum(values) / len(rows), 2 * math.hypot(*errors) / len(rows), unit)


def gap(name: str, a: Figure, b: Figure, unit: str = "") -> Figure:
    """a − b, of independent figures."""
    return Figure(name, a.value - b.value, math.hypot(a.error, b.error), unit)


def less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def first(found: Sequence[Part], rows: Part) -> Part:
    """The first of the rows that were looked for in `rows`; ValueError where there is none."""
    if not found:
        raise ValueError(f"{rows.where} has not all rows: remove the file, and make results")
    return found[0]


# ---- verdicts ------------------------------------------------------------------------------------


class Judged(NamedTuple):
    """Figures, what is said of them, and the verdict that follows.

    left_out: what is found beside, and by its nature no statement with a threshold.
    """

    figures: list[Figure]
    statements: dict[str, bool | None]  # None: cannot tell
    controls: dict[str, bool | None] | None = None
    verdict: str | None = None  # None: by the statements
    left_out: str = ""

    def grade(self) -> str:
        true = list(self.statements.values())
        all_true = all(true) and all((self.controls or {}).values())
        return self.verdict or (HOLDS if all_true else PART if any(true) else NOT)
