"""A whole training step, ours against the published formula's way: time, and the share of products.

    python tests/benchmarks/training_step.py [--threads 2] [--repeats 5] [--small]

A step is forward, backward, clipping, AdamW and the average of the weights, the same in both ways
but for the loss. The formula's way computes float32 log-scores of all positions and states, (B, L,
N), and the loss from them as it is written; ours computes it in the head (network/head.py), and
under bfloat16 too where the processor multiplies it fast. The vocabulary is GPT-2's; the network
has 4 blocks of width 256, or with --small is SEDD small. The ways take turns, at the same new
noise. With --threads 1 it is processor time that is measured, which other programs on the machine
hardly disturb. Then the share of our float32 step that lies in matrix products (attention
included), which no rewriting of the loss shortens. Goals:
1.5 times as fast for absorbing noise, 1.25 for uniform; with bfloat16 2.7 and 2.2 times.
"""

import argparse
import copy
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from sedd_mini.evaluate import times
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.hardware import choose_precision
from sedd_mini.noise import GeometricNoise, LogLinearNoise

WORLDS = {
    "absorbing": (AbsorbingGraph, LogLinearNoise()),
    "uniform": (UniformGraph, GeometricNoise()),
}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product")


def absorbing_formula(log_score, x, x0, sigma, graph):
    """Σ_y s_y − r log s_{x0} + K(r), r = 1 / (e^σ̄ − 1), at the positions that are MASK; (B, L)."""
    masked = x == graph.mask_id
    r = (1 / torch.expm1(sigma))[:, None].expand(x.shape)[masked]  # (M,)
    rows = log_score[masked]  # (M, N + 1)
    negative = r * rows.gather(-1, x0[masked][:, None])[:, 0]
    positive = rows[:, :-1].exp().sum(-1)
    entropy = torch.zeros_like(log_score[..., 0])
    entropy[masked] = positive - negative + r * (r.log() - 1)
    return entropy


def uniform_formula(log_score, x, x0, sigma, graph):
    """(Σ_{y≠x} s_y − r_y log s_y + K(r_y)) / N, r_y as for x = x0 or for x ≠ x0; (B, L)."""
    size = graph.num_tokens
    e = torch.expm1(sigma)[:, None].expand(x.shape)
    q = e / (e + size)  # 1 − N / (e^σ̄ − 1 + N), without cancellation
    at_x = log_score.gather(-1, x[..., None])[..., 0]
    at_x0 = log_score.gather(-1, x0[..., None])[..., 0]
    mean = log_score.mean(-1) - at_x / size
    negative = torch.where(x == x0, q * mean, mean + at_x0 * (1 / q - 1) / size)
    score = log_score.exp()
    positive = score.mean(-1) - score.gather(-1, x[..., None])[..., 0] / size
    same = (size - 1) / size * q * (q.log() - 1)
    other = ((-q.log() - 1) / q - (size - 2)) / size
    return positive - negative + torch.where(x == x0, same, other)


def by_formula(model, graph, x, sigma, x0):
    formula = uniform_formula if graph.mask_id is None else absorbing_formula
    return formula(model(x, sigma), x, x0, sigma, graph).sum(-1)


class Step:
    """A network, its average and its optimiser; called, one step in one of the ways."""

    def __init__(self, kind: str, args):
        graph, self.noise = WORLDS[kind]
        self.generator = torch.Generator().manual_seed(0)
        self.graph, self.shape = graph(50257), (args.batch, args.length)
        sizes = {} if args.small else {"width": 256, "num_blocks": 4, "num_heads": 4}
        config = DiTConfig(absorbing=kind == "absorbing", dropout=0.0, **sizes)
        torch.manual_seed(0)
        self.model = DiffusionTransformer(config)
        torch.nn.init.normal_(self.model.output_layer.linear.weight, std=0.02)
        self.average = copy.deepcopy(self.model)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, fused=True)

    def new_noise(self):
        t = (1e-3 + (1 - 1e-3) * times(self.shape[0], self.generator)).float()
        x0 = torch.randint(50257, self.shape, generator=self.generator)
        x = self.graph.sample_transition(x0, self.noise.total(t)[:, None], self.generator)
        return x, x0, t

    def __call__(self, way: str, x, x0, t) -> tuple[float, float]:
        """Loss in nats a token, and the gradient's norm before it was clipped."""
        loss = by_formula if way == "formula" else diffusion_weighted_in_head
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way == "bfloat16"):
            value = loss(self.model, self.graph, x, self.noise.total(t), x0=x0)  # (B,)
        value = (self.noise.rate(t) * value).mean() / x.shape[1]
        self.optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            pairs = list(self.average.parameters()), list(self.model.parameters())
            torch._foreach_lerp_(*pairs, 1e-3)
        return value.item(), norm.item()


def share_of_products(step: Step, repeats: int) -> float:
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        for _ in range(repeats):
            step("head", *step.new_noise())
    spent = {e.key: e.self_cpu_time_total for e in watched.key_averages()}
    products = sum(
        seconds
        for name, seconds in spent.items()
        if name.removeprefix("aten::").startswith(PRODUCTS)
    )
    return products / sum(spent.values())


def measure(kind: str, args) -> None:
    step, clock = Step(kind, args), time.process_time if args.threads == 1 else time.perf_counter
    seconds = {"formula": [], "head": []}
    if choose_precision("auto", "cpu") == torch.bfloat16:
        seconds["bfloat16"] = []
    for repeat in range(args.repeats + 1):
        batch, found = step.new_noise(), {}
        for way in seconds:
            start = clock()
            found[way] = step(way, *batch)
            if repeat:  # the first warms up
                seconds[way].append(clock() - start)
        for way, (loss, norm) in found.items():
            tolerance = 0.05 if way == "bfloat16" else 1e-3
            assert abs(loss / found["formula"][0] - 1) < tolerance, (way, found)
            assert abs(norm / found["formula"][1] - 1) < tolerance, (way, found)
    formula = statistics.median(seconds["formula"])
    for way, values in seconds.items():
        median = statistics.median(values)
        print(f"{kind:10} {way:9} {median:6.2f} s a step, {formula / median:.2f} times as fast")
    share = share_of_products(step, args.repeats)
    print(f"{kind:10} matrix products take {share:.0%} of a step by the head", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--small", action="store_true", help="SEDD small: 12 blocks of width 768")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fast = choose_precision("auto", "cpu") == torch.bfloat16
    print(f"{args.threads} threads; this processor is {'' if fast else 'not '}fast with bfloat16")
    for kind in WORLDS:
        measure(kind, args)


if __name__ == "__main__":
    main()
