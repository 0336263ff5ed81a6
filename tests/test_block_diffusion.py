"""Block diffusion: its mask, its bound, its cache and its law, against enumeration.

Statistical tests are seeded; each states the chance at which a right implementation would fail for
a random seed (its false-alarm rate).
"""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from worlds import random_chain

from sedd_mini import load, sample
from sedd_mini.beyond import block_diffusion
from sedd_mini.beyond.block_diffusion import (
    BlockConfig,
    BlockTransformer,
    Prefix,
    in_blocks,
    sample_blocks,
    two_copies,
)
from sedd_mini.beyond.block_worlds import ExactBlocks, enumerated_bound
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.evaluation.bounds import at_positions, bounds, total
from sedd_mini.files import read_json
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.noise import GeometricNoise, LogLinearNoise
from sedd_mini.samplers import generators
from sedd_mini.text.corpus import synthetic_corpus
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

SIZES = {"num_tokens": 3, "length": 4, "width": 16, "num_blocks": 2, "num_heads": 2, "cond_dim": 8,
         "dropout": 0.0}  # fmt: skip
TIME_FREE = {"normalised": True, "time_conditioning": False}
NOISE = LogLinearNoise()
END = NOISE.total(torch.tensor(1.0, dtype=torch.float64)).item()


def filled(model, std: float = 0.3, double: bool = True):
    """Weights that are far from an untrained network's, the same for the same shapes."""
    torch.manual_seed(1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=std)
    return model.double().eval() if double else model.eval()


def blocks(block_length: int, double: bool = True, **sizes) -> BlockTransformer:
    config = BlockConfig(**SIZES | sizes, block_length=block_length)
    return filled(BlockTransformer(config), double=double)


def attentive(model: BlockTransformer) -> BlockTransformer:
    """Changes the weights so that a law depends much on the tokens that are seen."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.fill_(1)
            elif "adaLN" in name:
                p.zero_()
                if "blocks" in name and p.ndim == 1:
                    p.view(6, -1)[2::3] = 1  # the gates
        model.vocab_embed.embedding.mul_(3)[-1] = 0
        model.output_layer.linear.bias.zero_()
    return model


def every(num_tokens: int, length: int) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(num_tokens), repeat=length)))


def tokens(num_tokens: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(num_tokens, shape, generator=torch.Generator().manual_seed(seed))


# ---- what sees what ------------------------------------------------------------------------------


def test_the_mask_by_hand():
    """Four tokens in blocks of two; rows and columns: four noisy, then four clean."""
    rows = ["11000000", "11000000", "00111100", "00111100",
            "00001100", "00001100", "00001111", "00001111"]  # fmt: skip
    assert two_copies(4, 2).int().tolist() == [[int(c) for c in row] for row in rows]


def seen_by_outputs(model, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Which noisy and which clean tokens (column) change each position's log-scores (row)."""
    x, clean = tokens(4, 1, length, seed=2), tokens(3, 1, length, seed=3)
    sigma, found = torch.tensor([0.7], dtype=torch.float64), []
    with torch.no_grad():
        before = model(x, sigma, clean=clean)
        for noisy, j in itertools.product((True, False), range(length)):
            x_, clean_ = x.clone(), clean.clone()
            (x_ if noisy else clean_)[0, j] += 1
            (x_ if noisy else clean_)[0, j] %= 4 if noisy else 3
            change = (model(x_, sigma, clean=clean_) - before).abs()
            x_same = (x_ == x)[0]
            found.append((change.amax(-1)[0] > 1e-9) | ~x_same)  # 0 at the current token moves
    return torch.stack(found[:length], 1), torch.stack(found[length:], 1)


@pytest.mark.parametrize("block_length", [1, 2, 6])
def test_the_network_sees_what_the_mask_says_and_no_more(block_length):
    length = 6
    mask = two_copies(length, block_length)[:length]
    noisy, clean = seen_by_outputs(blocks(block_length, length=length), length)
    assert torch.equal(noisy, mask[:, :length])
    assert torch.equal(clean, mask[:, length:])


def leaky(length: int, block_length: int, device=None):
    """The likely bug: ≤ for <, so that a noisy block sees its own clean copy."""
    mask = two_copies(length, block_length, device)
    block = torch.arange(length) // block_length
    mask[:length, length:] = block <= block[:, None]
    return mask


def test_a_leak_of_the_clean_copy_is_caught(monkeypatch):
    monkeypatch.setattr(block_diffusion, "two_copies", leaky)
    _, clean = seen_by_outputs(blocks(2, length=6), 6)
    assert not torch.equal(clean, two_copies(6, 2)[:6, 6:])
    with pytest.raises(AssertionError):
        test_one_block_is_the_plain_network()


# ---- the bound -----------------------------------------------------------------------------------


@pytest.mark.parametrize("graph", [AbsorbingGraph(2), UniformGraph(2)], ids=str)
def test_exact_conditionals_give_the_same_number_at_every_block_length(graph):
    """−log p(x0) of every x0, by every length; a table that is exact for another law does not."""
    chain = random_chain(graph, 4, seed=3)
    p0 = chain.p0[(slice(2),) * 4]
    x0, truth = every(2, 4)[::3], -p0.flatten().log()[::3]
    sigma_max = 40.0 if graph.mask_id is not None else 24.0
    for block_length in (1, 2, 4):
        exact = ExactBlocks(graph, p0, block_length)
        found = enumerated_bound(exact, graph, sigma_max, x0, nodes=160)
        assert (found - truth).abs().max() < 1e-9
    other = ExactBlocks(graph, random_chain(graph, 4, seed=4).p0[(slice(2),) * 4], 2)
    wrong = enumerated_bound(other, graph, sigma_max, every(2, 4), nodes=40)
    assert (p0.flatten() * (wrong + p0.flatten().log())).sum() > 1e-3  # a KL divergence


def autoregressive_nats(model, x0: torch.Tensor) -> torch.Tensor:
    """−log p(x0) (M,) of blocks of one token: Σ −log p(x_i | x_<i), in one call, all masked."""
    sigma = torch.full((len(x0),), 0.9, dtype=torch.float64)
    with torch.no_grad():
        log_score = model(torch.full_like(x0, 3), sigma, clean=x0)
    log_p = log_score + math.log(math.expm1(0.9))  # log π, as the head is normalised
    assert log_p[..., :3].exp().sum(-1).sub(1).abs().max() < 1e-12
    return -log_p.gather(-1, x0[..., None])[..., 0].sum(-1)


def test_blocks_of_one_token_are_an_autoregressive_model():
    """(1 − δ) of its loss + L δ ln N, δ = e^{−σ̄(1)}: for every x0; and their p sums to 1."""
    model, x0 = blocks(1, **TIME_FREE), every(3, 4)
    exact, delta = autoregressive_nats(model, x0), math.exp(-END)
    assert torch.exp(-exact).sum().item() == pytest.approx(1, abs=1e-12)
    assert exact.max() - exact.min() > 1
    found = enumerated_bound(model, AbsorbingGraph(3), END, x0[::13], nodes=100)
    wanted = (1 - delta) * exact[::13] + 4 * delta * math.log(3)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    assert (found - exact[::13]).abs().max() > 1e-4  # which the truncation moves


def test_one_block_is_the_plain_network():
    """A block as long as the text: the numbers of a DiffusionTransformer of the same weights."""
    model, plain = blocks(4), filled(DiffusionTransformer(DiTConfig(**SIZES)))
    graph, x, clean = AbsorbingGraph(3), tokens(4, 5, 4), tokens(3, 5, 4, seed=1)
    sigma = torch.linspace(0.1, 3, 5, dtype=torch.float64)
    with torch.no_grad():
        both = model(x, sigma, clean=clean), plain(x, sigma)
        torch.testing.assert_close(*both, rtol=0, atol=1e-12)
        both = (m(x, sigma, x0=clean, graph=graph) for m in (model, plain))
        torch.testing.assert_close(*both, rtol=0, atol=1e-12)


def test_estimates_of_the_bound_agree_with_enumeration():
    """Both estimators and the loss that trains, within 4.5 standard errors of the exact bound:
    false-alarm rate 7e-6 each (two-sided, if normal)."""
    graph, model, x0 = AbsorbingGraph(3), blocks(2, length=4), every(3, 4)[::16]
    truth = enumerated_bound(model, graph, END, x0, nodes=40).mean().item()
    g = torch.Generator().manual_seed(0)
    plain = likelihood_bound(model, graph, NOISE, x0, repeats=16, times_each=32, generator=g,
                             loss=diffusion_weighted_in_head)  # fmt: skip
    g = torch.Generator().manual_seed(0)
    options = {"repeats": 16, "times_each": 8, "generator": g}
    fine = [total(bounds(model, graph, NOISE, x0, terms=terms, **options))
            for terms in (None, at_positions)]  # fmt: skip
    for found in (plain.nats, fine[0].nats / len(x0), fine[1].nats / len(x0)):
        assert found == pytest.approx(truth, abs=4.5 * plain.error)
    assert abs(fine[0].nats / len(x0) - truth) < 4.5 * fine[0].error / len(x0)
    assert fine[0].error / len(x0) < 0.02 * truth


def test_the_trainer_trains_it_and_its_draws_are_unbiased():
    """Both ways to draw noise have the same mean loss, to 4.5 standard errors (false-alarm rate
    7e-6); and 30 steps take a quarter nat off a uniform guess."""
    corpus, means, errors = synthetic_corpus(8, 2**12, 2**10), [], []
    for draws in ("independent", "counted"):
        settings = preset("synthetic", length=8, width=16, num_blocks=1, num_heads=2, cond_dim=8,
                          batch_size=64, steps=30, warmup=5, draws=draws, device="cpu", lr=2e-2,
                          log_every=10, valid_every=0, valid_blocks=4, valid_repeats=2)  # fmt: skip
        trainer = Trainer(settings, corpus, **in_blocks(settings.network(40), 2))
        assert trainer.loss_is_bound()
        torch.manual_seed(0)
        torch.nn.init.normal_(trainer.model.output_layer.linear.weight, std=0.3)
        with torch.no_grad():
            losses = torch.empty(40 if draws == "counted" else 80)
            for trainer.step in range(len(losses)):  # which the noise is drawn from
                losses[trainer.step] = trainer.mean_loss(*trainer.draw_batch())
        means.append(losses.mean().item())
        errors.append(losses.std().item() / math.sqrt(len(losses)))
    assert abs(means[0] - means[1]) < 4.5 * math.hypot(*errors)
    assert math.hypot(*errors) < 0.05 * means[0]
    torch.nn.init.zeros_(trainer.model.output_layer.linear.weight)
    trainer.step = 0
    trainer.run()
    assert [r["loss"] for r in trainer.history if "loss" in r][-1] < math.log(40) - 0.25


# ---- drawing -------------------------------------------------------------------------------------


def test_cached_uncached_and_two_copies_give_the_same_log_scores():
    """In float32, at three times the training length, to 1e-5; and a cache that keeps what a noisy
    block left is another function."""
    model = blocks(4, double=False, num_tokens=11, length=8, width=32)
    clean, x, sigma = tokens(11, 3, 24), tokens(12, 3, 24, seed=1), torch.tensor([0.2, 1.0, 4.0])
    with torch.no_grad():
        whole = model(x, sigma, clean=clean)
    for cache in (True, False):
        prefix = Prefix(model, 3, 24, cache=cache)
        prefix.append(clean[:, :8])  # two at once, as a prompt
        for start in (8, 12, 16, 20):
            part = slice(start, start + 4)
            found = prefix(x[:, part], sigma)
            torch.testing.assert_close(found, whole[:, part], rtol=0, atol=1e-5)
            at = x[:, part] == 11
            torch.testing.assert_close(prefix(x[:, part], sigma, at=at), found[at])
            prefix.append(clean[:, part])
    bad = Prefix(model, 3, 24)
    bad.append(clean[:, :8])
    bad(x[:, 8:12], sigma)
    bad.tokens = clean[:, :12]  # the likely bug: the block is final, but was not read clean
    assert (bad(x[:, 12:16], sigma) - whole[:, 12:16]).abs().max() > 1e-3


def law_in_blocks(model, shares: list[float]) -> torch.Tensor:
    """The law (N^4,) of two blocks of two tokens of a normalised head without time: in each block
    the two appear at once with probability Σ shares², else in either order."""
    sigma = torch.full((81,), 0.9, dtype=torch.float64)
    x0, together = every(3, 4), sum(share**2 for share in shares)
    p = torch.ones(81, dtype=torch.float64)

    def prob(x, i):
        with torch.no_grad():
            log_score = model(x, sigma, clean=x0)[:, i]
        return log_score.gather(-1, x0[:, i : i + 1])[:, 0].exp() * math.expm1(0.9)

    for i, j in ((0, 1), (2, 3)):
        hidden = torch.full_like(x0, 3)
        one, other = hidden.clone(), hidden.clone()
        one[:, i], other[:, j] = x0[:, i], x0[:, j]
        a, b = prob(hidden, i), prob(hidden, j)
        p *= together * a * b + (1 - together) * (a * prob(one, j) + b * prob(other, i)) / 2
    return p


def p_value(drawn: torch.Tensor, law: torch.Tensor) -> float:
    """χ² of samples (M, 4); rare values are put together, so that χ² holds."""
    counts = torch.bincount(drawn @ torch.tensor([27, 9, 3, 1]), minlength=81)
    wanted, order = law.sort(descending=True)
    rare = wanted * len(drawn) < 8
    assert (~rare).sum() > 10
    seen = [*counts[order][~rare].tolist(), counts[order][rare].sum().item()]
    wanted = [*wanted[~rare].tolist(), wanted[rare].sum().item()]
    return chisquare(seen, [p * len(drawn) for p in wanted]).pvalue


def test_samples_follow_the_law_of_the_steps(monkeypatch):
    """χ² of 6 000 samples against the enumerated law of three steps a block: false-alarm rate
    1e-5; the bug of a cache that is not written is caught at the same level."""
    graph, model = AbsorbingGraph(3), attentive(blocks(2, num_blocks=1, **TIME_FREE))
    times = torch.linspace(1, 1e-5, 4, dtype=torch.float64)
    level = -torch.expm1(-NOISE.total(times))
    shares = [*((level[:-1] - level[1:]) / level[0]).tolist(), (level[-1] / level[0]).item()]
    law = law_in_blocks(model, shares)
    assert law.sum().item() == pytest.approx(1, abs=1e-12)
    g = torch.Generator().manual_seed(0)
    drawn = sample(model, graph, NOISE, (6_000, 4), 3, "blocks", generator=g)
    assert p_value(drawn, law) > 1e-5

    def not_written(self, x):
        self.tokens = torch.cat([self.tokens, x], 1)

    monkeypatch.setattr(Prefix, "append", not_written)
    drawn = sample(model, graph, NOISE, (6_000, 4), 3, "blocks", generator=g)
    assert p_value(drawn, law) < 1e-5


@pytest.mark.parametrize("absorbing", [True, False])
def test_samples_do_not_depend_on_the_cache_the_batch_or_a_longer_text(absorbing):
    graph = (AbsorbingGraph if absorbing else UniformGraph)(3)
    noise = NOISE if absorbing else GeometricNoise()
    model, steps = blocks(4, absorbing=absorbing, length=8), 6
    clamp = torch.full((26,), -1)
    clamp[:6] = tokens(3, 6)  # the prompt ends inside a block; the text, too
    seen, run = [], {"clamp": clamp, "generator": generators(0, 2)}
    look = {"callback": lambda k, t, x: seen.append((k, round(t, 3), x.shape[1]))}
    x = sample_blocks(model, graph, noise, (2, 26), steps, **run, **look)
    assert x.shape == (2, 26)
    assert x.max() < 3
    assert torch.equal(x[:, :6], clamp[:6].expand(2, 6))
    blocks_drawn = math.ceil(26 / 4) - 1
    assert [k for k, _, _ in seen] == list(range(blocks_drawn * (steps + 1) + 1))
    assert seen[0] == (0, 1.0, 8)
    assert seen[-1] == (len(seen) - 1, 0.0, 26)
    run["generator"] = generators(0, 2)
    assert torch.equal(x, sample_blocks(model, graph, noise, (2, 26), steps, **run, cache=False))
    run["generator"] = generators(0, 1)
    assert torch.equal(x[:1], sample_blocks(model, graph, noise, (1, 26), steps, **run))
    run["generator"] = generators(0, 2)
    run["clamp"] = torch.cat([clamp, torch.full((6,), -1)])
    assert torch.equal(x, sample_blocks(model, graph, noise, (2, 32), steps, **run)[:, :26])


# ---- folders, texts, bad input -------------------------------------------------------------------


def test_block_models_are_saved_trained_on_and_written_with(tmp_path, capsys):
    corpus = synthetic_corpus(8, 2**11, 2**10)
    settings = preset("synthetic", length=8, width=16, num_blocks=1, num_heads=2, cond_dim=8,
                      batch_size=8, steps=4, sample_every=2, save_every=2, device="cpu",
                      valid_every=0, valid_blocks=8)  # fmt: skip
    config = settings.network(40)
    trainer = Trainer(settings, corpus, tmp_path / "run", **in_blocks(config, 4))
    trainer.run(2)
    trainer.close()
    again = Trainer(settings, corpus, tmp_path / "run", **in_blocks(config, 4, seed=5))
    assert again.step == 2
    again.run()
    again.close()
    saved = read_json(tmp_path / "run" / "step-00000004" / "config.json")
    assert saved["model"]["type"] == "blocks"
    assert saved["model"]["block_length"] == 4
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 2
    text = load(tmp_path / "run", "cpu")
    assert isinstance(text.network, BlockTransformer)
    written = text.write(2, length=21, steps=4, sampler="blocks", prompt="some cats")
    assert all(len(w.split()) == 21 and w.startswith("some cats") for w in written)
    assert written[:1] == text.write(1, length=21, steps=4, sampler="blocks", prompt="some cats")
    (bound,) = text.bound([written[0]], 2, 2)
    (given,) = text.bound([written[0]], 2, 2, given=[2])
    assert 0 < given.nats < bound.nats
    with pytest.raises(ValueError, match="sampler 'blocks'"):
        text.write(1, steps=4)
    from sedd_mini.__main__ import main

    main(["sample", "--checkpoint", str(tmp_path / "run"), "--sampler", "blocks", "--length", "21",
          "--steps", "4", "--prompt", "some cats", "--num", "2"])  # fmt: skip
    assert all(w in capsys.readouterr().out for w in written[:1])


def test_a_plain_folder_says_nothing_of_blocks(tmp_path):
    graph, plain = AbsorbingGraph(3), DiffusionTransformer(DiTConfig(**SIZES))
    save_pretrained(tmp_path / "plain", plain, graph, NOISE)
    assert "block_length" not in read_json(tmp_path / "plain" / "config.json")["model"]
    assert type(load_pretrained(tmp_path / "plain")[0]) is DiffusionTransformer
    model = blocks(2, double=False)
    save_pretrained(tmp_path / "blocks", model, graph, NOISE)
    loaded = load_pretrained(tmp_path / "blocks")[0]
    assert loaded.config == model.config
    x, sigma = tokens(4, 2, 4), torch.tensor([0.3, 2.0])
    with torch.no_grad():
        assert torch.equal(loaded(x, sigma, clean=x % 3), model(x, sigma, clean=x % 3))


def test_bad_input_is_one_line_each():
    model, graph, x = blocks(2), AbsorbingGraph(3), tokens(3, 2, 4)
    plain, sigma = DiffusionTransformer(DiTConfig(**SIZES)), torch.ones(2, dtype=torch.float64)
    late = torch.tensor([[0, -1, 1, -1]])
    cases = [
        (lambda: BlockConfig(**SIZES, block_length=3), "block_length=3 does not divide length=4"),
        (lambda: BlockConfig(**SIZES, block_length=0), "block_length must be a whole number"),
        (lambda: in_blocks(DiTConfig(**SIZES), 2.0), "block_length must be a whole number"),
        (lambda: BlockConfig.from_config(DiTConfig(**SIZES).to_config()), "lacks the key 'block"),
        (lambda: ExactBlocks(graph, torch.ones(3, 3) / 9, 3), "does not divide the 2 tokens"),
        (lambda: model(x, sigma), "clean blocks before each block"),
        (lambda: model(x, sigma, clean=x[:, :2]), "clean must have the shape of x"),
        (lambda: model(x, sigma, clean=torch.full_like(x, 3)), r"must lie in \[0, 3\), got 3"),
        (lambda: sample(plain, graph, NOISE, (1, 4), 2, "blocks"), "is for a BlockTransformer"),
        (lambda: sample(model, graph, NOISE, (1, 4), 2), "draw by the sampler 'blocks'"),
        (lambda: sample(model, graph, NOISE, (1, 4), 2, "blocks", start=(x[:1], 0.5)), "start"),
        (lambda: sample(model, graph, NOISE, (1, 4), 0, "blocks"), "steps must be"),
        (lambda: sample(model, graph, NOISE, (1, 4), 2, "blocks", clamp=late),
         r"a token of block 1 \(positions 2 to 3\) is given"),
        (lambda: bounds(model, graph, NOISE, x, given=torch.tensor([False, True, True, False])),
         r"a token of block 1 .* is given"),
    ]  # fmt: skip
    for call, words in cases:
        with pytest.raises(ValueError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    ahead = torch.tensor([[0, 1, 1, -1, -1]])  # what comes first, into a block, is no such case
    x = sample(model, graph, NOISE, (1, 5), 2, "blocks", clamp=ahead)
    assert x[0, :3].tolist() == [0, 1, 1]
