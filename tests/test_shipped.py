"""The weights in chapters/checkpoints: each loads, and is as good as its training.json says."""

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from sedd_mini.checkpoint import load_pretrained
from sedd_mini.data import load_corpus
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.synthetic import SyntheticLanguage
from sedd_mini.tokenizers import load_tokenizer

SHIPPED = Path(__file__).parents[1] / "chapters/checkpoints"
NAMES = ["docs-absorb", "docs-uniform", "synthetic-absorb", "synthetic-uniform"]


def record(name: str) -> dict:
    return json.loads((SHIPPED / name / "training.json").read_text())


@cache
def corpus(source: str, length: int):
    vocab_size = load_tokenizer(SHIPPED / "docs-absorb").vocab_size
    return load_corpus(source, length, tokenizer="bpe", vocab_size=vocab_size)


def bound(name: str, blocks: torch.Tensor, repeats: int):
    return likelihood_bound(
        *load_pretrained(SHIPPED / name), blocks, repeats=repeats,
        generator=torch.Generator().manual_seed(11), loss=diffusion_weighted_in_head,
    )  # fmt: skip


def test_nothing_else_is_shipped_and_it_is_small():
    assert sorted(path.name for path in SHIPPED.iterdir()) == NAMES
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file())
    assert size <= 12_000_000


@pytest.mark.parametrize("name", NAMES)
def test_record_says_how_it_was_made(name):
    facts = record(name)
    assert facts["command"].startswith("python -m sedd_mini.train --preset ")
    assert facts["command"].endswith(f"--export chapters/checkpoints/{name}")
    assert facts["tokens_seen"] > 0
    assert facts["wall_time_s"] > 0
    assert facts["hardware"]
    parameters = sum(p.numel() for p in load_pretrained(SHIPPED / name)[0].parameters())
    assert facts["parameters"] == parameters
    assert 0 < facts["bound_error_bits_per_token"] < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_recorded_bound_is_found_again(name):
    """On the same validation blocks with another seed. An error bar from 8 repeats is itself
    uncertain: 5 of them are passed in 1 of 600 cases (t with 7 degrees of freedom)."""
    facts = record(name)
    model = load_pretrained(SHIPPED / name)[0]
    found = corpus(facts["corpus"]["source"], model.config.length)
    if found.info["hash"] != facts["corpus"]["hash"]:
        pytest.skip("this Python comes with another documentation than the record is about")
    repeats = 8 if facts["valid_blocks"] < 1000 else 2  # the record is the mean of 8
    found = bound(name, found.valid[:], repeats).bits_per_token
    allowed = 5 * math.sqrt(1 + 8 / repeats) * facts["bound_error_bits_per_token"]
    assert abs(found - facts["bound_bits_per_token"]) < allowed


@torch.no_grad()
def test_gap_of_the_synthetic_absorbing_model():
    """Diffusion part of bound minus truth at most 0.02 bits a token, as the loss against the exact
    ratios: every draw is at least 0, and 0 for a perfect network, so few draws say much. (The
    whole bound has 0.005 more, the prior term.)"""
    model, graph, noise = load_pretrained(SHIPPED / "synthetic-absorb")
    x0 = corpus("synthetic", 32).valid[:2048]
    generator = torch.Generator().manual_seed(3)
    t = 1e-3 + (1 - 1e-3) * (torch.arange(len(x0)) + 0.5) / len(x0)
    sigma = noise.total(t)
    x = graph.sample_transition(x0, sigma[:, None], generator)
    masked = x == graph.mask_id
    posterior = SyntheticLanguage().posterior(x.where(~masked, 0), ~masked)[masked]  # (M, N)
    odds = 1 / torch.expm1(sigma.double())[:, None].expand(x.shape)[masked]  # (M,)
    ratio = posterior * odds[:, None]
    log_score = model(x, sigma, at=masked).double()[:, : graph.mask_id]
    loss = log_score.exp() - ratio * log_score + torch.xlogy(ratio, ratio) - ratio  # (M, N)
    assert (loss > -1e-9).all()
    weight = noise.rate(t).double()[:, None].expand(x.shape)[masked]
    gap = (loss.sum(-1) * weight).sum() / x.numel() / math.log(2)
    assert gap < 0.02


def test_gap_of_the_synthetic_uniform_model():
    """At most 0.12 bits a token, on the same blocks, of which 0.008 is the bound's error."""
    facts = record("synthetic-uniform")
    x0 = corpus("synthetic", 32).valid[:]
    truth = -SyntheticLanguage().log_prob(x0).mean().item() / x0.shape[1] / math.log(2)
    assert facts["bound_bits_per_token"] - truth < 0.12
