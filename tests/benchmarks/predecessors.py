"""The contest of chapter 02 with other seeds and with ten times the steps: results/02_longer.json.

    python tests/benchmarks/predecessors.py

Each method at the learning rate that the chapter chooses for it, 0.005. Three to five minutes.
"""

import json
from functools import partial
from pathlib import Path

import torch

from sedd_mini import GeometricNoise, UniformGraph
from sedd_mini.files import write_text
from sedd_mini.worlds import toys
from sedd_mini.worlds.ctmc import Chain, total_variation

graph, noise = UniformGraph(32), GeometricNoise(sigma_min=0.01, sigma_max=20)
world = toys.two_token_world("spiral")
chain = Chain(graph, world)
mean = toys.PREDECESSORS["mean prediction"]


def from_one(net):
    """Logits plus log p(x_i | a): with logits 0 all ratios are 1. (This kernel is symmetric.)"""
    return lambda x, sigma: net(x, sigma) + graph.transition_probs(x, sigma[:, None]).log()


METHODS = {
    **toys.PREDECESSORS,
    "mean prediction, ratios from 1": toys.Method(
        lambda net, *a, **k: mean.loss(from_one(net), *a, **k),
        lambda net, *a: mean.to_score(from_one(net), *a),
        weighted=False,
    ),
}
RUNS = [(name, 800, seed) for name in METHODS for seed in range(3)]
RUNS += [("ratio matching", 400, seed) for seed in range(3)]
RUNS += [(name, 8000, 0) for name in METHODS] + [("ratio matching", 4000, 0)]


def run(name: str, steps: int, seed: int) -> dict:
    method = METHODS[name]
    torch.manual_seed(seed)
    net = toys.PairNet(32, start=method.start)
    how = {"steps": steps, "weighted": method.weighted, "seed": seed}
    toys.fit(method.loss, net, graph, noise, world, **how)
    score = partial(method.to_score, net, graph)
    error, negative = toys.ratio_error(score, chain, 0.01)
    law = toys.law_of_samples(score, chain, noise, steps=50)
    tv = total_variation(law, chain.marginal(0.01))
    row = {"method": name, "steps": steps, "seed": seed, "error": round(error, 3)}
    row |= {"negative": round(negative, 3), "tv": round(float(tv), 4)}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    torch.set_num_threads(1)
    facts = {
        "command": "python tests/benchmarks/predecessors.py",
        "what": "at σ̄ = 0.01: RMS error of positive log-ratios, share of ratios ≤ 0; "
        "TV of the law of the samples from the world",
        "runs": [run(*settings) for settings in RUNS],
    }
    folder = Path(__file__).parents[2] / "chapters" / "results"
    write_text(folder / "02_longer.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
