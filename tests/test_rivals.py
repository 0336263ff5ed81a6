"""The rivals against enumeration: GPT-2's law and its samples, mean prediction's ratios and bound.

Statistical tests are seeded; each states the chance at which a right implementation would fail for
a random seed (its false-alarm rate).
"""

import itertools
import math
import subprocess
import sys
from functools import partial

import pytest
import torch
from scipy.stats import chisquare
from worlds import random_chain

from sedd_mini import load
from sedd_mini.baselines import mean_prediction_cross_entropy, mean_prediction_elbo, score_of_mean
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.evaluation import rivals
from sedd_mini.evaluation.bounds import at_positions, bounds, total
from sedd_mini.evaluation.rivals import (
    GPT2,
    InformedMean,
    MeanPrediction,
    annealed,
    gpt2_rival,
    gpt2_sizes,
    load_gpt2,
    mean_cross_entropy,
    mean_rival,
    nats,
    next_token,
    sample_gpt2,
    save_gpt2,
)
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.losses import diffusion_weighted
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import save_pretrained
from sedd_mini.noise import GeometricNoise, LogLinearNoise
from sedd_mini.samplers import generators
from sedd_mini.text.corpus import synthetic_corpus
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer
from sedd_mini.worlds.ctmc import log_quadrature

GRAPHS = {"absorb": AbsorbingGraph, "uniform": UniformGraph}


def gpt2(num_tokens: int = 3, length: int = 4, double: bool = True, **sizes) -> GPT2:
    """A small one whose random weights are large enough for a law far from uniform."""
    torch.manual_seed(1)
    model = GPT2(num_tokens, length, **{"width": 12, "num_blocks": 2, "num_heads": 2} | sizes)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                p.normal_(std=0.5 if "wte" in name or "wpe" in name else 0.3)
    return model.double().eval() if double else model.eval()


def every(num_tokens: int, length: int):
    return torch.tensor(list(itertools.product(range(num_tokens), repeat=length)))


def law_by_hand(model: GPT2, x, change=lambda p: p):
    """p(x) token by token, from the logits of transformers' own GPT2LMHeadModel; (M,)."""
    whole = rivals.hugging_face(model.sizes).double().eval()
    whole.transformer.load_state_dict(model.transformer.state_dict())
    total = torch.ones(len(x), dtype=torch.float64)
    for i in range(x.shape[1]):
        begin = torch.full((len(x), 1), model.begin)
        with torch.no_grad():
            logits = whole(torch.cat([begin, x[:, :i]], 1)).logits[:, -1, : model.num_tokens]
        law = torch.stack([change(p) for p in logits.softmax(-1)])
        total *= law.gather(-1, x[:, i : i + 1])[:, 0]
    return total


# ---- GPT-2 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [None, 1])
def test_the_probabilities_of_all_blocks_sum_to_1(begin):
    model = gpt2(begin=begin)
    for length in (1, 4):
        x = every(3, length)
        p = torch.exp(-nats(model, x, batch_size=7))
        assert p.sum().item() == pytest.approx(1, abs=1e-12)
        torch.testing.assert_close(p, law_by_hand(model, x), rtol=1e-10, atol=0)
        assert p.max() > 2 * p.min()


def test_the_loss_is_minus_log_p_whatever_the_noise():
    model, x0 = gpt2(), every(3, 4)
    x = torch.zeros_like(x0)
    loss = next_token(model, UniformGraph(3), x, torch.full((81,), 0.3), x0=x0)
    torch.testing.assert_close(loss, nats(model, x0))
    with pytest.raises(ValueError, match="needs x0"):
        next_token(model, UniformGraph(3), x, torch.full((81,), 0.3))


def test_the_trainers_loss_is_nats_a_token():
    """The mean of −log p / L over the batch, to rounding: times and draws weigh nothing."""
    corpus = synthetic_corpus(8, 2**10, 2**9)
    for draws in ("independent", "counted"):
        settings = small_settings("absorb", length=8, batch_size=16, draws=draws)
        trainer = Trainer(settings, corpus, **gpt2_rival(settings.network(40)))
        before = nats(trainer.model, trainer.corpus.train[:])
        batch = trainer.draw_batch()
        ids = [trainer.loader.block_of(n) for n in range(16)]
        loss = trainer.mean_loss(*batch).item()
        assert loss == pytest.approx(before[ids].mean().item() / 8, rel=1e-6)


@pytest.mark.parametrize(
    ("temperature", "nucleus"), [(1.0, 1.0), (0.6, 1.0), (1.0, 0.8), (1.5, 0.7)]
)
def test_samples_follow_the_law(temperature, nucleus):
    """χ² of 20 000 samples against the enumerated law, whose tokens with temperature and nucleus
    are worked out one by one; false-alarm rate 1e-5 each."""

    def change(p):
        p = p ** (1 / temperature)
        p = (p / p.sum()).tolist()
        kept, total = [], 0.0
        for i in sorted(range(len(p)), key=lambda i: -p[i]):
            if total < nucleus:
                kept.append(i)
                total += p[i]
        law = [p[i] / total if i in kept else 0.0 for i in range(len(p))]
        return torch.tensor(law, dtype=torch.float64)

    model, x = gpt2(), every(3, 4)
    expected = law_by_hand(model, x, change)
    assert expected.sum().item() == pytest.approx(1)
    assert (nucleus == 1) == bool((expected > 0).all())
    g = torch.Generator().manual_seed(5)
    drawn = sample_gpt2(model, (20_000, 4), temperature, nucleus, generator=g)
    counts = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81)
    assert counts[expected == 0].sum() == 0
    rare = expected * 20_000 < 5  # put together, so that χ² holds
    seen = [*counts[~rare].tolist(), counts[rare].sum().item()]
    wanted = [*(expected[~rare] * 20_000).tolist(), expected[rare].sum().item() * 20_000]
    if wanted[-1] < 5:
        seen[0], wanted[0] = seen[0] + seen.pop(), wanted[0] + wanted.pop()
    assert len(wanted) > 5
    assert chisquare(seen, wanted).pvalue > 1e-5


def test_annealing_by_hand():
    log_p = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]]).double().log()
    torch.testing.assert_close(annealed(log_p), log_p.exp())
    cold = annealed(log_p, temperature=0.5)
    torch.testing.assert_close(cold[0], torch.tensor([25, 9, 4]).double() / 38)
    kept = annealed(log_p, nucleus=0.6)  # 0.5 is too little; in the second row 0.6 is enough
    torch.testing.assert_close(kept[0], torch.tensor([0.625, 0.375, 0]).double())
    assert kept[1].tolist() == [0, 0, 1]


def test_the_cache_changes_nothing():
    model = gpt2(5, 12, double=False, num_heads=3)
    x = torch.randint(5, (4, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cache = model(x), None
        for i in range(12):
            log_p, cache = model.extend(model.after_begin(x)[:, i : i + 1], cache)
            torch.testing.assert_close(log_p, whole[:, i], rtol=0, atol=1e-5)
    prompt = x[:, :3]
    for given in (None, prompt, prompt[0]):
        samples = [
            sample_gpt2(model.double(), (4, 12), 0.9, 0.95, given, generators(0, 4), cache)
            for cache in (True, False)
        ]
        assert torch.equal(*samples)
        if given is not None:
            assert torch.equal(samples[0][:, :3], given.expand(4, -1))
    one = sample_gpt2(model, (1, 12), 0.9, 0.95, prompt[0], generators(0, 1))
    assert torch.equal(one[0], samples[0][0])  # whatever is sampled beside it


def test_parameters_match():
    for config in (
        preset("synthetic").network(40),
        preset("docs").network(1024),
        DiTConfig(dropout=0.0),
        DiTConfig(width=1024, num_blocks=24, num_heads=16),
    ):
        target = rivals.count(config)
        like = config.num_blocks, config.num_heads, config.width // config.num_heads
        sizes = gpt2_sizes(target, config.num_tokens, config.length, like)
        with torch.device("meta"):
            model = GPT2(config.num_tokens, config.length, **sizes)
        found = sum(p.numel() for p in model.parameters())
        assert abs(found / target - 1) <= 0.02, (sizes, found, target)
        assert abs(sizes["num_blocks"] - config.num_blocks) <= config.num_blocks / 4
    exact = sum(p.numel() for p in gpt2(7, 5).parameters())
    assert gpt2_sizes(exact, 7, 5, (2, 2, 6), 0) == {"width": 12, "num_blocks": 2, "num_heads": 2}
    with pytest.raises(ValueError, match="no GPT-2 of up to 2 blocks and 4 heads has 50 param"):
        gpt2_sizes(50, 40, 32, (1, 2, 8))


@pytest.mark.parametrize("begin", [None, 2])
def test_saved_as_transformers_reads_it(tmp_path, begin):
    from transformers import GPT2LMHeadModel

    model, x = gpt2(begin=begin), every(3, 4)
    tokenizer = synthetic_corpus(8, 16, 8).tokenizer
    for _ in range(2):  # the second replaces the first
        save_gpt2(tmp_path / "gpt2", model.float(), tokenizer)
    found = {p.name for p in (tmp_path / "gpt2").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= found
    again = load_gpt2(tmp_path / "gpt2")
    assert again.to_config() == model.to_config()
    assert torch.equal(nats(again, x), nats(model, x))
    whole = GPT2LMHeadModel.from_pretrained(tmp_path / "gpt2", local_files_only=True)
    ids = whole.generate(torch.tensor([[model.begin]] * 20), do_sample=True, max_new_tokens=3)
    assert ids.shape == (20, 4)
    assert ids[:, 1:].max() < 3  # the begin token is not generated
    (tmp_path / "gpt2" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds more than a network"):
        save_gpt2(tmp_path / "gpt2", model)
    with pytest.raises(FileNotFoundError, match=r"^[^\n]*holds neither config\.json nor"):
        load_gpt2(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_gpt2(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"^[^\n]*config\.json: lacks the key 'tokens'$"):
        load(tmp_path / "gpt2")
    (tmp_path / "gpt2" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=r"^[^\n]*holds no GPT-2 that can be read[^\n]*$"):
        load_gpt2(tmp_path / "gpt2")


def test_a_gpt2_of_others_is_read(tmp_path):
    """Its end of text, a token like any other, stands before each block, as in the released one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"vocab_size": 7, "n_positions": 6, "n_embd": 12, "n_layer": 2, "n_head": 2}
    whole = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=6, eos_token_id=6)).eval()
    torch.nn.init.normal_(whole.transformer.wte.weight)
    whole.save_pretrained(tmp_path / "other")
    x = torch.randint(7, (5, 6), generator=torch.Generator().manual_seed(0))
    ids = torch.cat([torch.full((5, 1), 6), x], 1)[:, :6]
    with torch.no_grad():
        log_p = whole(ids).logits.log_softmax(-1)
    model = load_gpt2(tmp_path / "other")
    assert (model.num_tokens, model.begin) == (7, 6)
    expected = -log_p.gather(-1, x[..., None])[..., 0].sum(-1).double()
    torch.testing.assert_close(nats(model, x), expected, rtol=1e-5, atol=0)


def test_bad_arguments():
    model = gpt2()
    for call, message in [
        (lambda: GPT2(3, 4, 10, 1, 3), "width=10 must be a multiple of num_heads=3"),
        (lambda: GPT2(3, 4, 12, 1, 3, begin=4), "begin must be a whole number"),
        (lambda: GPT2(3, 4, 12, 1, 3, dropout=1.0), "dropout must lie in"),
        (lambda: nats(model, torch.tensor([[0, 3]])), r"token ids must lie in \[0, 3\)"),
        (lambda: nats(model, torch.zeros(1, 5, dtype=torch.int64)), "l from 1 to 4"),
        (lambda: nats(model, torch.zeros(4, dtype=torch.int64)), "l from 1 to 4"),
        (lambda: sample_gpt2(model, (2, 5)), "more than the 4 of the network"),
        (lambda: sample_gpt2(model, (2, 4), temperature=0), "temperature must be a number"),
        (lambda: sample_gpt2(model, (2, 4), nucleus=1.1), "nucleus must be a number"),
        (lambda: sample_gpt2(model, (2, 4), prompt=[0, 1, 2, 0]), "leaves none of 4 free"),
        (lambda: sample_gpt2(model, (2, 4), prompt=[[0]] * 3), r"must be \(P,\) or \(2, P\)"),
        (lambda: model(every(3, 4), None, at=torch.ones(81, 4)), "sample_every=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    model.transformer.wte.weight.data[0] = math.nan
    with pytest.raises(FloatingPointError, match="not finite"):
        nats(model, every(3, 4))
    with pytest.raises(FloatingPointError, match="not finite"):
        sample_gpt2(model, (2, 4))


# ---- training ------------------------------------------------------------------------------------


def small_settings(graph: str, **more):
    sizes = {"length": 16, "width": 32, "num_blocks": 2, "num_heads": 2, "cond_dim": 16}
    rest = {"batch_size": 32, "steps": 30, "warmup": 5, "valid_blocks": 16, "valid_repeats": 2,
            "sample_every": 0, "log_every": 1, "device": "cpu", "graph": graph}  # fmt: skip
    return preset("synthetic", **sizes | rest | more)


@pytest.mark.parametrize("kind", ["gpt2", "absorb", "uniform", "informed"])
def test_a_short_training_on_the_synthetic_language(kind, tmp_path):
    graph = "uniform" if kind in ("uniform", "informed") else "absorb"
    settings, corpus = small_settings(graph), synthetic_corpus(16, 2**14, 2**10)
    make = gpt2_rival if kind == "gpt2" else partial(mean_rival, informed=kind == "informed")
    trainer = Trainer(settings, corpus, tmp_path / "run", **make(settings.network(40)))
    before = trainer.validate(corpus.valid[:])
    trainer.run(20)
    trainer.close()
    again = Trainer(settings, corpus, tmp_path / "run", **make(settings.network(40), seed=3))
    assert again.step == 20  # its weights are those of the run, not those of another seed
    again.run()
    after = again.validate(corpus.valid[:])
    assert after.nats - after.prior < 0.98 * (before.nats - before.prior)  # at the same noise
    if kind == "gpt2":
        whole = Trainer(settings, corpus, **make(settings.network(40)))
        whole.run()
        valid, found = corpus.valid[:], nats(again.average, corpus.valid[:])
        assert torch.equal(nats(whole.average, valid), found)
        assert any("valid_loss" in r for r in again.history)
        save_gpt2(tmp_path / "gpt2", again.average, corpus.tokenizer)
        for folder in ("gpt2", "run"):  # of transformers' form, and of ours
            assert torch.equal(nats(load_gpt2(tmp_path / folder), valid), found)
        with pytest.raises(ValueError, match=r"^[^\n]*run holds a GPT-2, [^\n]*load_gpt2[^\n]*$"):
            load(tmp_path / "run", "cpu")
        return
    with pytest.raises(ValueError, match=r"holds a (Informed)?Mean[^\n]*, no GPT-2: load reads it"):
        load_gpt2(tmp_path / "run")
    logged = {key for record in again.history for key in record}
    assert ("valid_loss" if kind == "uniform" else "valid") in logged  # a bound, if it has an end
    model = load(tmp_path / "run", "cpu")
    assert type(model.network) is (InformedMean if kind == "informed" else MeanPrediction)
    x = corpus.valid[:2]
    x = model.graph.sample_transition(x, 0.7, torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.7])
    assert torch.equal(model.network(x, sigma), again.average(x, sigma))
    assert len(model.write(2, steps=4)) == 2
    if kind == "uniform":
        with pytest.raises(ValueError, match="plain MeanPrediction is infinite on UniformGraph"):
            model.bound([corpus.valid[0]])
    else:
        assert model.bound([corpus.valid[0]])[0].nats > 0


def test_a_fresh_process_loads_them_by_name(tmp_path):
    """Nothing of ours is imported but `load_pretrained`: it finds the class, and the noise."""
    config = DiTConfig(3, True, length=4, width=8, num_blocks=1, num_heads=1, cond_dim=8)
    mean = MeanPrediction(DiffusionTransformer(config))
    save_pretrained(tmp_path / "gpt2", gpt2(double=False), UniformGraph(3), rivals.Clock())
    save_pretrained(tmp_path / "mean", mean, AbsorbingGraph(3), LogLinearNoise())
    code = """import sys; from sedd_mini import load_pretrained
print([type(part).__name__ for folder in sys.argv[1:] for part in load_pretrained(folder)])"""
    command = [sys.executable, "-c", code, str(tmp_path / "gpt2"), str(tmp_path / "mean")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(["GPT2", "UniformGraph", "Clock",
                                "MeanPrediction", "AbsorbingGraph", "LogLinearNoise"])  # fmt: skip


# ---- mean prediction -----------------------------------------------------------------------------


class Exact(torch.nn.Module):
    """Exact posteriors in the place of a network: log p(x0_i | x) + an offset a position.

    With `places`, those of a near σ̄, one of so many an e-fold, so that few have to be enumerated:
    at 50 it is 1 % off, which costs the bound about 1e-4.
    """

    def __init__(self, chain, places: int | None = None):
        super().__init__()
        self.chain, self.places, self.known = chain, places, {}
        absorbing = chain.graph.mask_id is not None
        self.config = DiTConfig(chain.graph.num_tokens, absorbing, dropout=0.0)

    def forward(self, x, sigma, at=None, key=None):
        if self.places:
            sigma = ((sigma.log() * self.places).round() / self.places).exp()
        levels, which = sigma.double().unique(return_inverse=True)
        for s in set(levels.tolist()) - self.known.keys():
            self.known[s] = self.chain.posterior(s)
        rows = torch.stack([self.known[s] for s in levels.tolist()])
        out = rows[which, self.chain.index(x)].clamp(min=1e-300).log() + 1.7
        if self.config.absorbing:
            out = torch.cat([out, torch.zeros_like(out[..., :1])], -1)
        return out if at is None else out[at]


class Prior(Exact):
    """The posterior divided by p(x_i | x0_i): what an InformedMean multiplies by it again."""

    def forward(self, x, sigma, at=None, key=None):
        tokens = torch.arange(self.config.num_tokens).expand(len(x), -1)
        kernel = self.chain.graph.transition_probs(tokens, sigma.double()[:, None])  # (B, N, S)
        here = kernel.gather(2, x[:, None].expand(*tokens.shape, -1)).mT  # (B, L, N)
        out = super().forward(x, sigma) - here.log()
        return out if at is None else out[at]


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("absorb", lambda chain: MeanPrediction(Exact(chain))),
        ("absorb", lambda chain: InformedMean(Exact(chain))),
        ("uniform", lambda chain: MeanPrediction(Exact(chain))),
        ("uniform", lambda chain: InformedMean(Prior(chain))),
    ],
)
def test_with_exact_posteriors_the_ratios_and_the_bound_are_exact(kind, make):
    graph = GRAPHS[kind](3)
    chain = random_chain(graph, length=2, seed=2)
    model = make(chain)
    x = chain.states
    at = x == graph.mask_id if kind == "absorb" else torch.ones_like(x, dtype=torch.bool)
    for level in (1e-4, 0.3, 4.0):
        sigma = torch.full((len(x),), level, dtype=torch.float64)
        found, true = model(x, sigma), chain.log_score(x, sigma)
        torch.testing.assert_close(model(x, sigma, at=at), found[at])
        data = slice(graph.num_tokens)
        torch.testing.assert_close(found[at][:, data], true[at][:, data], rtol=1e-8, atol=1e-8)
        assert found.gather(-1, x[..., None]).abs().max() == 0
    sigma_max = 7.0
    base = chain.marginal(sigma_max).clamp(min=1e-300).log()
    bound = chain.bound(model, sigma_max, log_base=base)
    assert (bound + chain.p0[:3, :3].log()).abs().max() < 1e-6


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_closed_form_is_that_of_the_baselines(kind):
    graph, generator = GRAPHS[kind](5), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = DiffusionTransformer(DiTConfig(5, kind == "absorb", 6, 8, 1, 2, 4, 0.0))
    torch.nn.init.normal_(network.output_layer.linear.weight)
    network.double().eval()
    model = MeanPrediction(network)
    x0 = torch.randint(5, (40, 6), generator=generator)
    sigma = torch.logspace(-3, 1, 40, dtype=torch.float64)
    x = graph.sample_transition(x0, sigma[:, None], generator)
    at = x == graph.mask_id if kind == "absorb" else torch.ones_like(x, dtype=torch.bool)
    wanted = score_of_mean(network, graph, x, sigma)[at][:, :5]
    torch.testing.assert_close(model(x, sigma)[at][:, :5].exp(), wanted, rtol=1e-8, atol=1e-12)
    for ours, theirs in [
        (diffusion_weighted, mean_prediction_elbo),
        (lambda *args: at_positions(*args).sum(-1), mean_prediction_elbo),
        (mean_cross_entropy, mean_prediction_cross_entropy),
    ]:
        args = graph, x, sigma, x0
        torch.testing.assert_close(ours(model, *args), theirs(network, *args), rtol=1e-8, atol=0)


@pytest.mark.parametrize("kind", GRAPHS)
def test_the_bound_by_monte_carlo_is_that_of_enumeration(kind):
    """The same `likelihood_bound` as for every model, in float32, from exact posteriors: within 4
    of its standard errors, and 1e-3 for the truncation; false-alarm rate 1e-2 for 8 repeats."""
    graph = GRAPHS[kind](3)
    noise = LogLinearNoise(1e-4) if kind == "absorb" else GeometricNoise()
    chain = random_chain(graph, length=2, seed=2)
    x0 = chain.sample_data(16_000, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    bound = likelihood_bound(MeanPrediction(Exact(chain, 50)), graph, noise, x0, 8,
                             batch_size=16_000, generator=generator)  # fmt: skip
    exact = -chain.p0.flatten()[chain.index(x0)].log().mean().item()
    assert abs(bound.nats - exact) < 4 * bound.error + 1e-3


@pytest.mark.parametrize("make", [Exact, Prior])
def test_one_bound_a_sequence(make):
    """`bounds`, the better estimator: within 4 of its standard errors; false-alarm rate 1e-2."""
    kind = "absorb" if make is Exact else "uniform"
    graph, noise = GRAPHS[kind](3), LogLinearNoise(1e-4)
    chain = random_chain(graph, length=2, seed=2)
    x0 = chain.sample_data(512, torch.Generator().manual_seed(0))
    generator, model = torch.Generator().manual_seed(1), InformedMean(make(chain, 50))
    found = total(bounds(model, graph, noise, x0, terms=at_positions, generator=generator))
    exact = -chain.p0.flatten()[chain.index(x0)].log().sum().item()
    assert abs(found.nats - exact) < 4 * found.error + 512 * 1e-3


# ---- a bound that is infinite --------------------------------------------------------------------


class Smooth(Exact):
    """Exact posteriors, of which 1 % is spread evenly: what a network might guess at any σ̄."""

    base = Exact

    def forward(self, x, sigma, at=None, key=None):
        num = self.config.num_tokens
        p = self.base.forward(self, x, sigma)[..., :num].softmax(-1)
        out = (0.99 * p + 0.01 / num).log()
        if self.config.absorbing:
            out = torch.cat([out, torch.zeros_like(out[..., :1])], -1)
        return out if at is None else out[at]


class SmoothPrior(Smooth, Prior):
    base = Prior


def nats_between(chain, model, low: float, high: float) -> float:
    """The part of the bound from σ̄ = low to high, exact, on average over the data."""
    sigma, weight = log_quadrature(low, high, 40)
    loss = sum(w * chain.loss_by_data(model, s) for s, w in zip(sigma, weight, strict=True))
    data = (slice(chain.graph.num_tokens),) * chain.length
    return (loss[data] * chain.p0[data]).sum().item()


def test_the_bound_of_plain_mean_prediction_with_uniform_noise_is_infinite():
    """Each e-fold of σ̄ costs 1 − π_{x_i}, here 0.01 · 2/3, a token: by enumeration, on two of them.

    The controls cost nothing down there: the exact ratios, the exact posterior, ratios of a score
    entropy that are wrong, the same guess made into an informed one, and the same guess on MASK.
    """
    uniform, absorb = (random_chain(GRAPHS[kind](3), seed=2) for kind in ("uniform", "absorb"))
    off = 0.3 * torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    off = off.scatter(-1, uniform.states[..., None], 0)
    plain, each = MeanPrediction(Smooth(uniform)), 2 * 0.01 * 2 / 3 * math.log(1000)
    for low in (1e-15, 1e-12, 1e-9):
        assert nats_between(uniform, plain, low, 1e3 * low) == pytest.approx(each, rel=1e-3)
    for chain, model in [
        (uniform, uniform.log_score),
        (uniform, MeanPrediction(Exact(uniform))),
        (uniform, lambda x, sigma: uniform.log_score(x, sigma) + off[uniform.index(x)]),
        (uniform, InformedMean(SmoothPrior(uniform))),
        (absorb, MeanPrediction(Smooth(absorb))),
    ]:
        assert nats_between(chain, model, 1e-9, 1e-6) < 1e-4 < 0.01 * each
        assert nats_between(chain, model, 1e-6, 8.0) > 1


def test_it_is_infinite_with_any_network():
    """A network sees σ̄ by functions that converge as σ̄ → 0, so its guess does, short of sure."""
    chain = random_chain(UniformGraph(3), seed=2)
    torch.manual_seed(0)
    network = DiffusionTransformer(DiTConfig(3, False, 2, 8, 1, 2, 4, 0.0)).double().eval()
    torch.nn.init.normal_(network.output_layer.linear.weight)
    plain, informed = MeanPrediction(network), InformedMean(network)
    with torch.no_grad():
        for low in (1e-12, 1e-9):
            sigma = torch.full((9,), low, dtype=torch.float64)
            sure = plain(chain.states, sigma, guess=True).exp()
            sure = sure.gather(-1, chain.states[..., None])[..., 0]  # (9, 2): π_{x_i}
            wrong = ((1 - sure).sum(1) * chain.p0.flatten()).sum().item()
            assert wrong > 0.1
            found = nats_between(chain, plain, low, 10 * low)
            assert found == pytest.approx(wrong * math.log(10), rel=1e-5)
            assert nats_between(chain, informed, low, 10 * low) < 1e-5
