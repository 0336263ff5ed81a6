"""What the ledger needs that no other script measures: chapters/results/claims.json.

    python tests/benchmarks/claims.py                  # what is missing; all: two minutes of a core
    python tests/benchmarks/claims.py --only bound     # one unit again, see UNITS

A unit is one claim of the paper, on worlds small enough to know the truth, or on the synthetic
language with the shipped networks. Each is written as soon as it is there. To make all of them
again, delete the file.
"""

import argparse
import math
import sys
from functools import partial
from itertools import pairwise, product
from pathlib import Path

import torch

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, baselines
from sedd_mini.evaluation.bounds import bounds
from sedd_mini.evaluation.law import divergences, law_of_sampler
from sedd_mini.files import read_json, write_json
from sedd_mini.losses import conditional_ratio, diffusion_weighted, weighted_sum
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.worlds import toys
from sedd_mini.worlds.ctmc import Chain, total_variation

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
GRAPHS = {"absorb": AbsorbingGraph, "uniform": UniformGraph}
SCHEDULES = {"absorb": LogLinearNoise(), "uniform": GeometricNoise()}
SEEDS = 3


def random_world(seed: int, power: float, size: int = 3) -> torch.Tensor:
    """Three tokens of `size` values with 3 % spread evenly, so that all ratios are finite."""
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(size, size, size, generator=g, dtype=torch.float64) ** power
    return 0.97 * p / p.sum() + 0.03 / size**3


# ---- the loss ------------------------------------------------------------------------------------


def squares_of_logs(model, graph, x, sigma, x0=None, ratio=None):
    """A control, whose minimiser is the geometric mean of the conditional ratios."""
    off = model(x, sigma) - conditional_ratio(graph, x, sigma, x0).clamp(min=1e-30).log()
    return weighted_sum(graph.rates_into(x), off**2)


def minimiser(chain: Chain, loss, sigma: float) -> torch.Tensor:
    """The table of log-scores (n, d, S) with the least exact mean loss, from zeros by L-BFGS."""
    table = torch.zeros(len(chain.states), chain.length, chain.num_states, dtype=torch.float64)
    table.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [table], max_iter=2000, tolerance_grad=1e-13, tolerance_change=0,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = chain.expected_loss(loss, lambda x, sigma: table[chain.index(x)], sigma)
        value.backward()
        return value

    optimizer.step(closure)
    return table.detach()


def optimum() -> dict:
    """The largest |log(minimiser / true ratio)| at three noise levels, where a ratio has weight."""

    def worst(name, loss):
        chain = Chain(GRAPHS[name](3), toys.small_chains()["uniform"][0].p0)
        weight = chain.graph.rates_into(chain.states) > 0  # (n, d, S)
        errors = []
        for sigma in (0.1, 0.5, 2.0):
            off = minimiser(chain, loss, sigma) - chain.scores(sigma).log()
            reached = chain.marginal(sigma).flatten() > 0
            errors.append(off[weight & reached[:, None, None]].abs().max().item())
        return max(errors)

    return {"error": {name: worst(name, diffusion_weighted) for name in GRAPHS},
            "error_of_squares_of_logs": worst("uniform", squares_of_logs)}  # fmt: skip


def squares_of_exponential(model, graph, x, sigma, x0=None, ratio=None):
    loss = baselines.denoising_concrete_score_matching
    return loss(lambda x, s: model(x, s).exp(), graph, x, sigma, x0=x0)


def gradients() -> dict:
    """Norms of the stochastic gradient on the spiral, each loss at chapter 03's learning rate.

    In the last quarter of 800 steps: the largest over the median, and the standard deviation over
    the mean. Each of three seeds.
    """
    graph, noise = UniformGraph(32), GeometricNoise(sigma_min=0.01, sigma_max=20)
    world, steps = toys.two_token_world("spiral"), 800
    losses = {  # loss, first output, learning rate
        "score entropy": (diffusion_weighted, 0.0, 5e-3),
        "concrete score matching": (baselines.denoising_concrete_score_matching, 1.0, 5e-3),
        "squares of an exponential": (squares_of_exponential, 0.0, 1e-3),
    }

    def run(loss, start, lr, seed):
        torch.manual_seed(seed)
        net, squares = toys.PairNet(32, start=start), []
        for parameter in net.parameters():
            parameter.register_post_accumulate_grad_hook(
                lambda p: squares.append(p.grad.double().square().sum())
            )
        toys.fit(loss, net, graph, noise, world, steps=steps, lr=lr, seed=seed)
        norms = torch.stack(squares).view(steps, -1).sum(1).sqrt()[-steps // 4 :]
        return {
            "largest_over_median": (norms.max() / norms.median()).item(),
            "deviation_over_mean": (norms.std() / norms.mean()).item(),
        }

    runs = {name: [run(*how, seed) for seed in range(SEEDS)] for name, how in losses.items()}
    return {"steps": steps, "seeds": runs}


def calls() -> dict:
    """Sequences that the network is given for one sequence's loss, by its length."""

    def count(loss, length):
        seen = []

        def model(x, sigma):
            seen.append(len(x))
            return torch.zeros(*x.shape, 8)

        x = torch.zeros(1, length, dtype=torch.int64)
        loss(model, UniformGraph(8), x, torch.ones(1), x0=x)
        return sum(seen)

    losses = {"score entropy": diffusion_weighted, "ratio matching": baselines.ratio_matching}
    lengths = 2, 16, 128
    counts = {name: [count(loss, n) for n in lengths] for name, loss in losses.items()}
    return {"lengths": lengths, **counts}


# ---- the bound -----------------------------------------------------------------------------------


def bound() -> dict:
    """With exact ratios the bound is −log p; of a network it lies above; of the shipped ones, too.

    The shipped networks: how many bits a token their bound of 1 024 new blocks lies above the exact
    −log p of the language, and the error over blocks.
    """
    language, out = SyntheticLanguage(), {"exact_ratios": {}, "networks": {}, "shipped": {}}
    rings = toys.two_token_world("rings", 8, floor=0.1)
    for name, make in GRAPHS.items():
        chain = Chain(make(4), random_world(0, 3, 4))
        base = chain.marginal(8.0).log()
        exact = chain.bound(chain.log_score, 8.0, log_base=base)[(slice(4),) * 3]
        p0 = chain.p0[(slice(4),) * 3]
        out["exact_ratios"][name] = (exact + p0.log()).abs().max().item()
        out["networks"][name] = gaps_of_networks(name, rings)

        parts = load_pretrained(CHAPTERS / "checkpoints" / f"synthetic-{name}")
        x0 = language.sample(1024, 32, torch.Generator().manual_seed(0))
        found = bounds(*parts, x0, repeats=8, generator=torch.Generator().manual_seed(1))
        excess = torch.tensor([b.nats for b in found], dtype=torch.float64) + language.log_prob(x0)
        out["shipped"][name] = mean_and_error(excess / 32 / math.log(2))
    return out


def gaps_of_networks(name: str, world: torch.Tensor) -> list[dict]:
    """Bound less exact −log p of a small trained model: the least and the mean over sequences."""
    graph, noise = GRAPHS[name](8), SCHEDULES[name]
    chain, sigma_max = Chain(graph, world), noise.total(torch.tensor(1.0).double()).item()

    def model(net, x, sigma):
        scale = sigma.expm1().log()[:, None, None] if name == "absorb" else 0
        return net(x, sigma) - scale

    out = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = toys.PairNet(graph.num_states, width=64)
        toys.fit(lambda net, *a, **k: diffusion_weighted(partial(model, net), *a, **k), net, graph,
                 noise, world, steps=400, seed=seed)  # fmt: skip
        with torch.no_grad():
            base = graph.limit_log_prob(torch.arange(graph.num_states), sigma_max)
            base = base[chain.states].sum(-1).exp()
            law = chain.reverse_marginal(partial(model, net), sigma_max, base, steps=300)
            gap = chain.bound(partial(model, net), sigma_max) + law[:8, :8].log()
        out.append({"least": gap.min().item(), "mean": (world * gap).sum().item()})
    return out


def mean_and_error(values: torch.Tensor) -> list[float]:
    return [values.mean().item(), (values.std() / math.sqrt(len(values))).item()]


# ---- sampling ------------------------------------------------------------------------------------


def leaps() -> dict:
    """Tweedie's leap against Euler's, exact ratios, on two tokens of three values.

    one_leap: the largest difference in probability from the best that tokens can do alone, which
    draws each from its own law given the whole noisy pair, for leaps between five noise levels.
    runs: KL(data ‖ law of K steps) in nats. By noise; "lopsided" is neither masks nor uniform.
    """
    steps, out = [2, 4, 8, 16, 32], {}
    for name, (chain, noise) in toys.small_chains().items():
        levels = noise.total(torch.linspace(0.1, 0.9, 5, dtype=torch.float64)).tolist()
        off = {"tweedie": 0.0, "euler": 0.0}
        for low, high in pairwise(levels):
            best = one_by_one(chain, low, high)
            seen = chain.marginal(high).flatten() > 0
            score, x = chain.scores(high), chain.states
            tweedie = chain.graph.tweedie_probs(x, score, torch.tensor(high - low).double())
            euler = (high - low) * chain.graph.reverse_rates(x, score)
            euler = euler.scatter_add(-1, x[..., None], torch.ones_like(euler[..., :1]))
            for way, law in (("tweedie", tweedie), ("euler", euler)):
                off[way] = max(off[way], (law - best)[seen].abs().max().item())
        runs = {way: [divergences(chain, chain.log_score, noise, K, way)[0] for K in steps]
                for way in off}  # fmt: skip
        out[name] = {"one_leap": off, "runs": runs}
    return {"steps": steps, "noise": out}


def one_by_one(chain: Chain, low: float, high: float) -> torch.Tensor:
    """p(token i at σ̄ = low | all tokens at σ̄ = high), (n, d, S), by enumeration."""
    kernel, x = chain.kernel(high - low), chain.states
    joint = kernel[x[:, None], x[None]].prod(-1) * chain.marginal(low).flatten()  # (high, low)
    joint = joint / joint.sum(1, keepdim=True).clamp(min=1e-300)
    at = torch.nn.functional.one_hot(x, chain.num_states).double()  # (n, d, S)
    return torch.einsum("hl,lds->hds", joint, at)


# ---- what is given -------------------------------------------------------------------------------


def bayes() -> dict:
    """Total variation of the clamped sampler's exact law from p(rest | given), exact ratios.

    Mean and largest over three worlds and all 36 choices of one or two given tokens in each.
    """
    worlds = [random_world(0, 4), random_world(1, 4), random_world(0, 8)]
    choices = [torch.tensor(c) for c in product(range(-1, 3), repeat=3) if 0 < c.count(-1) < 3]
    out = {"steps": [2, 8, 32, 128]}
    for name, make in GRAPHS.items():
        chains, out[name] = [Chain(make(3), world) for world in worlds], []
        for K in out["steps"]:
            far = torch.tensor([distance(chain, SCHEDULES[name], K, c)
                                for chain in chains for c in choices])  # fmt: skip
            out[name].append({"mean": far.mean().item(), "largest": far.max().item()})
    return out


def distance(chain: Chain, noise, steps: int, given: torch.Tensor) -> float:
    clamp = given[None]
    law = law_of_sampler(chain.log_score, chain.graph, noise, 3, steps, clamp=clamp).flatten()
    shown = ((chain.states == given) | (given < 0)).all(1)
    true = torch.where(shown, chain.p0.flatten(), 0)
    return total_variation(law, true / true.sum())


def infilling() -> dict:
    """Bits a hidden word by which the shipped absorbing network's bound of the gap lies above the
    exact −log p(gap | rest), and by which a perfect left-to-right model does; 512 blocks a pattern.
    """
    language, place, L = SyntheticLanguage(), torch.arange(32), 32
    patterns = {  # True at the gaps
        "prefix given": place >= 24, "suffix given": place < 8,
        "both given": (place >= 12) & (place < 20), "scattered": place % 4 == 2,
    }  # fmt: skip
    parts = load_pretrained(CHAPTERS / "checkpoints" / "synthetic-absorb")
    x0 = language.sample(512, L, torch.Generator().manual_seed(0))

    def surprise(known, given):  # −log p(x at `known` | x at `given`), nats a block
        known, given = known.expand(x0.shape), given.expand(x0.shape)
        return language.log_prob(x0, given) - language.log_prob(x0, known)

    out = {}
    for name, gap in patterns.items():
        unit = 1 / gap.sum().item() / math.log(2)
        exact = surprise(place >= 0, ~gap)
        left = sum(surprise(place <= i, place < i) for i in place[gap])
        found = bounds(*parts, x0, given=~gap, generator=torch.Generator().manual_seed(1))
        found = torch.tensor([b.nats for b in found], dtype=torch.float64)
        out[name] = {"above_exact": mean_and_error((found - exact) * unit),
                     "left_to_right": mean_and_error((left - exact) * unit)}  # fmt: skip
    return out


UNITS = {
    "optimum": optimum, "gradients": gradients, "calls": calls, "bound": bound, "leaps": leaps,
    "bayes": bayes, "infilling": infilling,
}  # fmt: skip


def main(units: dict = UNITS, out: Path = CHAPTERS / "results" / "claims.json") -> None:
    """Make the units that are missing in `out`; also for other scripts of such units."""
    script = Path(sys.argv[0]).name
    parser = argparse.ArgumentParser(description=f"What is missing of {out.name}, or one unit.")
    parser.add_argument("--only", choices=units, help="this one, even if it is there")
    parser.add_argument("--out", type=Path, default=out)
    args = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = read_json(args.out) if args.out.exists() else {}
        for name in [args.only] if args.only else [name for name in units if name not in found]:
            command = f"python tests/benchmarks/{script} --only {name}"
            found[name] = {"command": command, **units[name]()}
            write_json(args.out, found)
            print(name, "is made", flush=True)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    except (OSError, ValueError) as error:
        sys.exit(f"{script}: {error}")


if __name__ == "__main__":
    main()
