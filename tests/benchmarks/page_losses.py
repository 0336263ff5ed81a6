"""Chapter 03's longer runs: losses for the page of chapter 00, and for the spiral of chapter 02.

    python tests/benchmarks/page_losses.py                all, about 8 minutes of one core
    python tests/benchmarks/page_losses.py --only page    one part, see PARTS

Writes chapters/results/03_page.json, in which each part holds the command that made it. On the
page, the three losses that need one network evaluation a sequence see 32 sequences a step; ratio
matching, which hides one word at a time, has 32 evaluations a step as well: all 32 places of one
sequence (page), or one random place in each of 32 sequences (one_place). Lower is better
everywhere, bits are bits a word.
"""

import argparse
import json
import math
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from sedd_mini import GeometricNoise, UniformGraph, baselines
from sedd_mini.files import write_json
from sedd_mini.losses import diffusion_weighted
from sedd_mini.text.synthetic import HiddenMarkovChain
from sedd_mini.worlds import toys
from sedd_mini.worlds.ctmc import Chain, total_variation

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
RESULT = CHAPTERS / "results" / "03_page.json"
STEPS, SEEDS = 500, 3

# The page's language, sizes and block, as they stand there.
HEAD: dict = {}
exec((CHAPTERS / "page.py").read_text(encoding="utf-8").split("model = nn.Sequential")[0], HEAD)
language, N, L, D, MASK, Block = (HEAD[k] for k in ("language", "N", "L", "D", "MASK", "Block"))


# ---- the page ------------------------------------------------------------------------------------


class Conditioned(nn.Module):
    """The page's network, told the noise level: x (B, L), sigma (B, 1) → (B, L, N)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(N + 1, D)
        self.level = nn.Sequential(nn.Linear(9, D), nn.SiLU(), nn.Linear(D, D))
        self.body = nn.Sequential(Block(), Block(), Block(), nn.LayerNorm(D), nn.Linear(D, N))

    def forward(self, x, sigma):
        log = sigma.log()  # (B, 1)
        waves = log * 2.0 ** torch.arange(-3, 1)  # (B, 4)
        level = self.level(torch.cat([log / 3, waves.sin(), waves.cos()], -1))  # (B, D)
        return self.body(self.embed(x) + level[:, None])


def log_chances(net, x, sigma):
    """log c, c = (1 − t) π + t/N: chances of the noisy word where π are those of the clean one."""
    stayed = torch.exp(-sigma)[..., None]
    return (stayed * net(x, sigma).softmax(-1) + (1 - stayed) / N).log()


def quotients(net, x, sigma):
    """The log-score as a quotient c_y / c_x, which lies between q and 1/q."""
    log_c = log_chances(net, x, sigma)
    return log_c - log_c.gather(-1, x[..., None])


def plain():
    last = nn.LayerNorm(D), nn.Linear(D, N)
    return nn.Sequential(nn.Embedding(N + 1, D), Block(), Block(), Block(), *last)


def draw_times(B):
    t = (torch.rand(1) + torch.arange(B) / B) % 1
    return t[:, None].clamp(1e-3, 1 - 1e-3)  # (B, 1)


def masked(x0, t):
    return torch.where(torch.rand(x0.shape) < t, MASK, x0)


def replaced(x0, t):
    return torch.where(torch.rand(x0.shape) < t, torch.randint(N, x0.shape), x0)


def cross_entropy(net, x0, t):
    x = masked(x0, t)
    surprise = F.cross_entropy(net(x).transpose(1, 2), x0, reduction="none")
    return (x == MASK) * surprise / t


def masked_parts(net, x0, t):
    """Score entropy with MASK noise, and the part of it that is the price of Z ≠ 1; (B, L) each."""
    x = masked(x0, t)
    u = net(x) - math.log(N)  # log (score / r)
    Z = u.exp().sum(-1)
    hidden = (x == MASK) / t
    return hidden * (Z - 1 - u.gather(-1, x0[..., None])[..., 0]), hidden * (Z - 1 - Z.log())


def masked_score_entropy(net, x0, t):
    return masked_parts(net, x0, t)[0]


def uniform_terms(log_s, sigma, x, x0):
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    q = (moved / (moved + N * stayed))[..., None]  # (B, 1, 1)
    y = torch.arange(N)
    r = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1.0))
    terms = log_s.exp() - r * log_s + r * (r.log() - 1)
    return ((y != x[..., None]) * terms).sum(-1) / N


def free_score_entropy(net, x0, t):
    x, sigma = replaced(x0, t), -torch.log1p(-t)
    return uniform_terms(net(x, sigma), sigma, x, x0) / (1 - t)


def uniform_score_entropy(net, x0, t):
    return free_score_entropy(partial(quotients, net), x0, t)


def hidden_chances(net, x, sigma):
    """log c of each word of x (B, L) while it is hidden: L evaluations a sequence, (B, L, N)."""
    copies = x[:, None].repeat(1, L, 1)  # (B, L, L)
    copies.diagonal(dim1=1, dim2=2).fill_(MASK)
    log_c = log_chances(net, copies.flatten(0, 1), sigma.repeat_interleave(L, 0))  # (B L, L, N)
    every = torch.arange(L)
    return log_c.unflatten(0, (len(x), L))[:, every, every]


def ratio_matching(net, x0, t):
    x, sigma = replaced(x0, t), -torch.log1p(-t)
    return -hidden_chances(net, x, sigma).gather(-1, x[..., None])[..., 0]


def one_place_matching(net, x0, t):
    """Ratio matching at one random place of each sequence: (B,), one evaluation a sequence."""
    x, sigma = replaced(x0, t), -torch.log1p(-t)
    place = torch.randint(L, (len(x), 1))
    log_c = log_chances(net, x.scatter(1, place, MASK), sigma)  # (B, L, N)
    return -log_c.gather(-1, x[..., None])[..., 0].gather(1, place)[:, 0]


def hidden_quotients(net, x, sigma):
    log_c = hidden_chances(net, x, sigma)
    return log_c - log_c.gather(-1, x[..., None])


def fit_page(loss, net, seed, batch=32, steps=STEPS, lr=5e-3):
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for _ in range(steps):
        value = loss(net, language.sample(batch, L), draw_times(batch)).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    return net


def true_log_ratios(x, t):
    """Exact log p(y)/p(x) of uniform noise at one t, for every word of x (B, L): (B, L, N)."""
    kernel = (1 - t) * torch.eye(N, dtype=torch.float64) + t / N
    noisy = HiddenMarkovChain(language.transition, language.emission @ kernel)
    known = ~torch.eye(L, dtype=torch.bool).repeat(len(x), 1)  # (B L, L)
    every = torch.arange(L)
    p = noisy.posterior(x.repeat_interleave(L, 0), known).unflatten(0, (len(x), L))
    p = p[:, every, every].log()  # (B, L, N): given the others
    return p - p.gather(-1, x[..., None])


@torch.no_grad()
def judge_uniform(log_score):
    """Bits a word, and the RMS error of log-ratios at five times, of log_score(x, sigma)."""
    torch.manual_seed(1000)
    x0, t = language.sample(512, L), draw_times(512)
    x, sigma = replaced(x0, t), -torch.log1p(-t)
    bits = torch.cat([
        uniform_terms(log_score(a, s), s, a, b) / (1 - u)
        for a, s, b, u in zip(*(v.split(64) for v in (x, sigma, x0, t)), strict=True)
    ]).mean().item() / math.log(2)  # fmt: skip
    errors = []
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        x = replaced(language.sample(24, L), torch.full((24, 1), t))
        found = log_score(x, torch.full((24, 1), -math.log1p(-t))).double()
        away = torch.arange(N) != x[..., None]
        errors.append((found - true_log_ratios(x, t))[away].square().mean().sqrt().item())
    return {"bits": bits, "errors": errors}


@torch.no_grad()
def judge_masked(loss, net):
    torch.manual_seed(1000)
    x0 = language.sample(2048, L)
    return loss(net, x0, draw_times(2048)).mean().item() / math.log(2)


def page():
    torch.manual_seed(1000)
    truth = -language.log_prob(language.sample(2048, L)).mean().item() / L / math.log(2)
    out = {"steps": STEPS, "truth": truth, "guess": math.log2(N)}
    for name in ("cross-entropy", "score entropy", "price", "uniform", "free", "ratio matching"):
        out[name] = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = fit_page(cross_entropy, plain(), seed)
        out["cross-entropy"].append(judge_masked(cross_entropy, net))
        torch.manual_seed(seed)
        net = fit_page(masked_score_entropy, plain(), seed)
        out["score entropy"].append(judge_masked(masked_score_entropy, net))
        out["price"].append(judge_masked(lambda *a: masked_parts(*a)[1], net))
        torch.manual_seed(seed)
        net = fit_page(uniform_score_entropy, Conditioned(), seed)
        out["uniform"].append(judge_uniform(partial(quotients, net)))
        torch.manual_seed(seed)
        net = fit_page(free_score_entropy, Conditioned(), seed)
        out["free"].append(judge_uniform(net))
        torch.manual_seed(seed)
        net = fit_page(ratio_matching, Conditioned(), seed, batch=1)
        out["ratio matching"].append(judge_uniform(partial(hidden_quotients, net)))
        print(seed, {k: v[-1] for k, v in out.items() if isinstance(v, list)}, flush=True)
    out["exact ratios"] = exact_bits()
    return out


def one_block():
    """A control: score entropy with as many blocks of text as ratio matching gets, one a step."""
    out = {"steps": STEPS, "uniform": []}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = fit_page(uniform_score_entropy, Conditioned(), seed, batch=1)
        out["uniform"].append(judge_uniform(partial(quotients, net)))
    return out


def one_place():
    """A control: ratio matching with 32 evaluations a step, too, but in 32 different sequences."""
    out = {"steps": STEPS, "ratio matching": []}
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        net = fit_page(one_place_matching, Conditioned(), seed)
        out["ratio matching"].append(judge_uniform(partial(hidden_quotients, net)))
        print(seed, out["ratio matching"][-1], flush=True)
    return out


@torch.no_grad()
def exact_bits():
    """What the exact ratios score by the same estimator, on 64 sequences of one t each."""
    torch.manual_seed(1000)
    x0, t = language.sample(64, L), draw_times(64)
    x, sigma = replaced(x0, t), -torch.log1p(-t)
    exact = torch.cat([true_log_ratios(a[None], u.item()) for a, u in zip(x, t, strict=True)])
    found = uniform_terms(exact, sigma, x, x0) / (1 - t)
    truth = -language.log_prob(x0).mean() / L
    return {"bits": found.mean().item() / math.log(2), "truth": truth.item() / math.log(2)}


# ---- the spiral ----------------------------------------------------------------------------------


def squares_of_exponential(model, graph, x, sigma, x0=None, ratio=None):
    loss = baselines.denoising_concrete_score_matching
    return loss(lambda x, s: model(x, s).exp(), graph, x, sigma, x0=x0)


def spiral():
    """Chapter 02's contest: 800 steps of 256 noisy pairs, judged by the oracle."""
    graph, noise = UniformGraph(32), GeometricNoise(sigma_min=0.01, sigma_max=20)
    world = toys.two_token_world("spiral")
    chain = Chain(graph, world)
    target, times = chain.marginal(0.01), torch.linspace(0, 1, 9)

    def entry(method, lr, seed, steps=800):
        torch.manual_seed(seed)
        net = toys.PairNet(32, start=method.start)
        how = {"lr": lr, "weighted": method.weighted, "seed": seed, "steps": steps}
        toys.fit(method.loss, net, graph, noise, world, **how)
        score = partial(method.to_score, net, graph)
        judged = [toys.ratio_error(score, chain, s) for s in noise.total(times).tolist()]
        law = toys.law_of_samples(score, chain, noise, steps=30)
        generator = torch.Generator().manual_seed(99)
        with torch.no_grad():
            x0, t, x = toys.noisy_batch(graph, noise, world, 8192, generator)
            value = method.loss(net, graph, x, noise.total(t), x0=x0)
            value = (noise.rate(t) * value if method.weighted else value).mean().item()
        return {
            "lr": lr, "held out": value, "tv": total_variation(law, target),
            "error": [e for e, _ in judged], "not positive": [n for _, n in judged],
        }  # fmt: skip

    ours = toys.Method(diffusion_weighted, baselines.score_of_log)
    squares = toys.Method(squares_of_exponential, baselines.score_of_log)
    out = {"grid": {}, "methods": {}}
    grid = [1e-3, 5e-3, 2.5e-2]
    out["grid"]["score entropy"] = [entry(ours, lr, 0) for lr in grid]
    out["grid"]["squares of an exponential"] = [entry(squares, lr, 0) for lr in [2e-4, *grid]]
    best = min(out["grid"]["score entropy"], key=lambda e: e["held out"])["lr"]
    for name, method in {"score entropy": ours, **toys.PREDECESSORS}.items():
        lr = best if method is ours else 5e-3
        out["methods"][name] = [entry(method, lr, seed) for seed in range(SEEDS)]
        print(name, [round(e["tv"], 3) for e in out["methods"][name]], flush=True)
    half = toys.PREDECESSORS["ratio matching"]
    out["methods"]["ratio matching, half the steps"] = [
        entry(half, 5e-3, seed, steps=400) for seed in range(SEEDS)
    ]
    best = min(out["grid"]["squares of an exponential"], key=lambda e: e["tv"])["lr"]
    out["methods"]["squares of an exponential"] = [
        entry(squares, best, seed) for seed in range(SEEDS)
    ]
    return out


PARTS = {"spiral": spiral, "page": page, "one_block": one_block, "one_place": one_place}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    torch.set_num_threads(1)
    for name, part in PARTS.items():
        if only in (None, name):
            command = f"python tests/benchmarks/page_losses.py --only {name}"
            made = {"command": command, **part()}
            results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
            write_json(RESULT, {**results, name: made})
