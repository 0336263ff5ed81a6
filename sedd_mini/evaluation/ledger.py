"""The ledger: every claim about the method, our figures, the published ones, and a verdict.

    python -m sedd_mini.evaluation.ledger      in the repository's root

From chapters/results it writes ledger.json and ledger.md there, and a short form into README.md.
Claims and published figures are named here; figures and verdicts of ours are computed (see
verdicts.py and results.py). A row whose results are not made yet is "open", and says what will
settle it.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sedd_mini.evaluation import verdicts as judge
from sedd_mini.evaluation.results import (
    FULL,
    HOLDS,
    NOT,
    OPEN,
    PART,
    Figure,
    Judged,
    NotYet,
    Results,
)
from sedd_mini.files import write_text

COMMAND = "python -m sedd_mini.evaluation.ledger"
BEGIN, END = "<!-- ledger: begin -->", "<!-- ledger: end -->"
RIVALS = "results/rivals"
FRONTIER = "results/frontier"


class Claim(NamedTuple):
    claim: str
    where: str
    published: str
    judge: Callable[[Results], Judged] | None = None
    settled_by: str = "make results"  # where the row is open


CLAIMS = (
    Claim("The loss is consistent: its minimiser is the true ratio",
          "chapter 03, section 1 and laboratory; results/claims.json: optimum",
          "a theorem", judge.optimum),
    Claim("Score entropy keeps ratios positive",
          "chapter 03, section 3 and laboratory; results/03_page.json: spiral",
          "by its form", judge.positivity),
    Claim("Its gradients are stable",
          "chapter 03, section 3; results/claims.json: gradients", "no figure", judge.gradients),
    Claim("Concrete score matching is unstable: nothing keeps its ratios positive, and it diverges",
          "chapter 02, sections 5 to 7; results/03_page.json, results/02_longer.json",
          "no figure", judge.concrete),
    Claim("Ratio matching is costly, or needs a network of its own kind",
          "chapter 02, section 4; chapter 03, laboratory; results/claims.json: calls, "
          "results/03_page.json: one_place", "no figure", judge.ratio_matching),
    Claim("Mean prediction is weaker",
          f"chapters 02 and 10; {RIVALS}, results/02_longer.json", "text8: ≤ 1.39 bits a "
          "character against 1.45 (D3PM)", judge.mean_prediction),
    Claim("Perplexity is 25–75 % lower than that of earlier language diffusion",
          f"chapter 10; {RIVALS}", "25–75 %; from the zero-shot table: 43–46 % below D3PM, 11–20 % "
          "below PLAID", judge.lower),
    Claim("Level with or better than GPT-2 of the same size",
          f"chapter 10; {RIVALS}", "zero-shot perplexity of the small model against GPT-2's: "
          "from 17 % lower (PTB) to 13 % higher (LAMBADA), lower on 3 of 5", judge.level),
    Claim("Generative perplexity is 6–8 times better than that of un-annealed GPT-2",
          f"chapters 08 and 10; {FRONTIER}", "6–8 times", judge.generative),
    Claim("Equal quality with 32 times fewer network evaluations",
          f"chapters 08 and 10; {FRONTIER}", "32 times", judge.calls),
    Claim("Faithful text without annealing", f"chapters 08 and 10; {FRONTIER}", "no figure",
          judge.annealing),
    Claim("Tweedie's leap is the best that tokens can do one by one",
          "chapter 08, sections 4 to 6; results/claims.json: leaps", "a theorem", judge.leaps),
    Claim("Infilling at any position", "chapter 09, section 6; results/claims.json: infilling",
          "as good as nucleus sampling of an autoregressive model (not compared here)",
          judge.infilling),
    Claim("Conditional generation by Bayes' rule",
          "chapter 09, sections 2 and 3 and laboratory; results/claims.json: bayes",
          "an identity", judge.bayes),
    Claim("The bound trains the likelihood",
          "chapter 04, sections 7 and 8; results/claims.json: bound", "a theorem", judge.bound),
    Claim("No cache of keys and values, hence slow sampling",
          f"chapters 10 and 13; {FRONTIER}/synthetic-seconds.json, results/beyond/cache.json",
          "no figure", judge.seconds),
    Claim("A gap to larger models remains", "chapter 11; results/small-gpu.json", "no figure",
          judge.full_size, "chapter 11, by a run at full size: results/small-gpu.json"),
    Claim("Hyper-parameters were searched little: a search would find better ones",
          "chapter 13; results/beyond/search", "no figure", judge.hyper_parameters),
    *(Claim(f"Future direction: {name}", where, "no figure", judged)
      for name, where, judged in (
        ("larger models", "chapter 13; results/beyond/sizes", judge.larger),
        ("samplers that need fewer evaluations",
         "chapter 12; results/beyond/claims.json: few_calls", judge.fewer_evaluations),
        ("a systematic search of noise schedules",
         "chapter 12; results/beyond/claims.json: schedules", judge.schedules),
        ("techniques of continuous diffusion",
         "chapter 12; results/beyond/claims.json: correctors", judge.continuous),
        ("other discrete domains", "chapter 13; results/beyond/digits", judge.other_domains),
        ("several modalities", "chapter 13; results/beyond/digits", judge.modalities),
    )),
)  # fmt: skip


TOLD = {True: "yes", False: "no", None: "cannot tell"}


class Row(NamedTuple):
    claim: Claim
    verdict: str
    judged: Judged
    why_open: str = ""

    @property
    def ours(self) -> str:
        """The figures in words; of an open row, what is missing."""
        figures = "; ".join(str(figure) for figure in self.judged.figures)
        return figures or f"{self.why_open}; settled by {self.claim.settled_by}".removeprefix("; ")

    def as_dict(self) -> dict:
        return {
            "claim": self.claim.claim, "where": self.claim.where, "ours": self.ours,
            "figures": [rounded(figure) for figure in self.judged.figures],
            "statements": self.judged.statements, "controls": self.judged.controls or {},
            "published": self.claim.published, "verdict": self.verdict,
        } | ({"left_out": self.judged.left_out} if self.judged.left_out else {})  # fmt: skip


def rounded(figure: Figure) -> dict:
    """To six digits, which are the same on every machine; JSON has no infinity."""
    if figure.stopped:
        return {"name": figure.name, "value": "infinite", "stopped": rounded(figure.stopped)}
    numbers = {key: float(f"{getattr(figure, key):.6g}") for key in ("value", "error")}
    return {"name": figure.name, **numbers, "unit": figure.unit}


def ledger(results: Path) -> list[Row]:
    """One row a claim, from the files in `results`; ValueError in one line for what is wrong."""
    rows, source = [], Results(results)
    for claim in CLAIMS:
        row = Row(claim, OPEN, Judged([], {}))
        try:
            if claim.judge:
                judged = claim.judge(source)
                row = Row(claim, judged.grade(), judged)
        except NotYet as reason:
            row = row._replace(why_open=str(reason))
        rows.append(row)
    return rows


# ---- what is written -----------------------------------------------------------------------------


def as_markdown(rows: list[Row]) -> str:
    lines = [
        f"Made by `{COMMAND}` from the files beside it.", "",
        "After ± stands half of a 95 % interval: Student's t over training seeds, and twice the "
        "standard error of an estimate. A figure without ± is exact, or a count. A perplexity of "
        "diffusion is an upper bound. Where the bound is infinite, brackets have what its integral "
        "has come to at the noise level where it was stopped: a lower one would make it larger. "
        "Level means at most 5 % above in perplexity.", "",
        f'The verdict follows from the statements below the table. All are true: "{HOLDS}"; some: '
        f'"{PART}"; none: "{NOT}". If a control fails, a claim holds "{PART}" at most. A '
        "statement about a figure with ± that is false comes out true once in forty times. Where "
        'the interval holds the threshold, it reads "cannot tell", and counts as not true.', "",
        "| claim | where it is tested | here | published | verdict |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        claim, where, published, *_ = row.claim
        lines.append(line(claim, where, row.ours.replace("; ", "<br>"), published,
                          f"**{row.verdict}**"))  # fmt: skip
    lines += ["", "**The statements**"]
    for row in rows:
        controls = {f"control: {text}": ok for text, ok in (row.judged.controls or {}).items()}
        if checks := row.judged.statements | controls:
            lines += ["", f"{row.claim.claim}: **{row.verdict}**", ""]
            lines += [f"- {text}: {TOLD[ok]}" for text, ok in checks.items()]
            lines += [f"- not counted: {text}" for text in [row.judged.left_out] if text]
    return "\n".join(lines) + "\n"


def line(*cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def short(rows: list[Row]) -> str:
    """For README: verdicts with examples of their statements; what is open, in one sentence."""
    numbers = [(sum(row.verdict == verdict for row in rows), verdict)
               for verdict in (HOLDS, PART, NOT, FULL, OPEN)]  # fmt: skip
    told = ", ".join(f"{verdict} {number}" for number, verdict in numbers if number)
    later = sum(row.claim.claim.startswith("Future direction") for row in rows)
    lines = [f"Verdicts on {len(rows) - later} claims and {later} directions: {told}.", "",
             "| claim | verdict | of its statements |", "|---|---|---|"]  # fmt: skip
    lines += [line(row.claim.claim, row.verdict, examples(row.judged.statements) or row.ours)
              for row in rows if row.verdict != OPEN]
    names = [row.claim.claim for row in rows if row.verdict == OPEN]
    if names:
        names = "; ".join(name[0].lower() + name[1:] for name in names)
        lines += ["", f"Open: {names}.".replace("; future direction: ", "; future directions: ", 1)
                  .replace("future direction: ", "")]  # fmt: skip
    return "\n".join(lines)


def examples(statements: dict[str, bool | None]) -> str:
    """The first statement of each answer; how many more there are of it."""
    parts = []
    for answer, word in TOLD.items():
        if given := [text for text, ok in statements.items() if ok is answer]:
            text = re.sub(r", uniform(?! noise)", ", uniform noise", given[0])
            more = f" (and {len(given) - 1} more)" if len(given) > 1 else ""
            parts.append(f"*{word}*: {text.replace(', absorb', ', MASK noise')}{more}")
    return "; ".join(parts)


def texts(results: Path, readme: Path) -> dict[Path, str]:
    """Everything that is made from the ledger: file → text."""
    rows, page = ledger(results), readme.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} has no lines {BEGIN} and {END}: put them where the short form "
                         "is to stand")  # fmt: skip
    content = {"command": COMMAND, "rows": [row.as_dict() for row in rows]}
    return {
        results / "ledger.json": json.dumps(content, ensure_ascii=False, indent=1) + "\n",
        results / "ledger.md": as_markdown(rows),
        readme: f"{before}{BEGIN}\n\n{short(rows)}\n\n{END}{after}",
    }


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("chapters/results"))
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    args = parser.parse_args(given)
    try:
        made = texts(args.results, args.readme)
        for path, text in made.items():
            write_text(path, text)
    except (OSError, ValueError) as error:
        sys.exit(f"ledger: {error}")
    rows = json.loads(made[args.results / "ledger.json"])["rows"]
    verdicts = [row["verdict"] for row in rows]
    for verdict in (HOLDS, PART, NOT, FULL, OPEN):
        print(f"{verdicts.count(verdict):3d} {verdict}")


if __name__ == "__main__":
    main()
