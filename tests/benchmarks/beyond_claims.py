"""What the ledger needs of chapters 12 and 13 beside the trainings: results/beyond/claims.json.

    python tests/benchmarks/beyond_claims.py                   # what is missing; all: five minutes
    python tests/benchmarks/beyond_claims.py --only few_calls  # one unit again, see UNITS

    few_calls   true cost of what the shipped network of the synthetic language writes, by sampler
    schedules   exact divergence of four steps, before and after a search for their times
    correctors  exact divergence of samplers that hide words again, exact and wrong scores
    digits      bits a pixel of tables that are counted, the yardstick for digits
"""

import claims
import torch

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise
from sedd_mini.beyond.pictures import pixel_bits
from sedd_mini.beyond.remasking import Corrector, Remask
from sedd_mini.beyond.schedule_search import divergence, search_times
from sedd_mini.beyond.tables import TableModel, exact_table
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.samplers import sample
from sedd_mini.text.digits import split_digits
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.worlds.ctmc import Chain

SEEDS = 3
CALLS = {"tweedie, 32 calls": ("tweedie", 32), "tweedie, 64 calls": ("tweedie", 64),
         "tweedie, 128 calls": ("tweedie", 128), "first hitting, 32 calls": ("first-hitting", 1),
         "surest first, 32 calls": ("confidence", 32)}  # fmt: skip


def few_calls() -> dict:
    """By sampler and seed: mean and error of −log p under the true language, nats a word."""
    folder = claims.CHAPTERS / "checkpoints" / "synthetic-absorb"
    model, graph, noise = load_pretrained(folder)
    language = SyntheticLanguage()
    length, rows = model.config.length, {}

    def cost(x: torch.Tensor) -> list[float]:
        return claims.mean_and_error(-language.log_prob(x) / length)

    for name, (method, steps) in CALLS.items():
        rows[name] = []
        for seed in range(SEEDS):
            g = torch.Generator().manual_seed(seed)
            x = sample(model, graph, noise, (512, length), steps, method, eps=1e-9, generator=g)
            rows[name].append(cost(x))
        print(name, rows[name], flush=True)
    real = [cost(language.sample(512, length, torch.Generator().manual_seed(100 + seed)))
            for seed in range(SEEDS)]  # fmt: skip
    return {"length": length, "samples": 512, "rows": rows, "real": real}


def schedules(steps: int = 4) -> dict:
    """By graph and world: KL of equal steps, and after two rounds of `search_times`."""
    found = {}
    for name, graph in claims.GRAPHS.items():
        noise = LogLinearNoise() if name == "absorb" else GeometricNoise(1e-4, 20.0)
        found[name] = []
        for seed in range(SEEDS):
            p = claims.random_world(seed, 3.0)
            chain = Chain(graph(3), p)
            score = exact_table(chain) if name == "absorb" else chain.log_score
            values = search_times(score, chain, noise, steps, rounds=2, tries=8)[1]
            found[name].append([values[0], values[-1]])
    return {"steps": steps, "kl": found}


def correctors(calls: int = 16) -> dict:
    """KL at equal network calls of plain leaps and of two ways to hide words again, by world.

    The wrong scores have a normal error of standard deviation 1 on each log-probability.
    """
    ways = {"leaps": ("tweedie", calls), "remasking, strength 0.3": (Remask(0.3), calls),
            "corrector": (Corrector(0.5), calls // 2)}  # fmt: skip
    found = {kind: {way: [] for way in ways} for kind in ("exact", "wrong")}
    for seed in range(SEEDS):
        chain = Chain(AbsorbingGraph(3), claims.random_world(seed, 3.0))
        table = exact_table(chain)
        g = torch.Generator().manual_seed(seed)
        off = torch.randn(table.logits.shape, generator=g, dtype=torch.float64)
        tables = {"exact": table, "wrong": TableModel(chain, table.logits + off)}
        for kind, model in tables.items():
            for way, (step, K) in ways.items():
                times = torch.linspace(1, 1e-5, K + 1, dtype=torch.float64).tolist()
                value = divergence(model, chain, LogLinearNoise(), times, step)
                found[kind][way].append(value)
    return {"calls": calls, "kl": found}


def digits() -> dict:
    train, valid = split_digits()
    return {"by place": pixel_bits(train[:, 1:], valid[:, 1:], neighbours=False),
            "by place and neighbours": pixel_bits(train[:, 1:], valid[:, 1:])}  # fmt: skip


UNITS = {"few_calls": few_calls, "schedules": schedules, "correctors": correctors,
         "digits": digits}  # fmt: skip


if __name__ == "__main__":
    claims.main(UNITS, claims.CHAPTERS / "results" / "beyond" / "claims.json")
