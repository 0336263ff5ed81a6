"""The script of chapter 10's frontier: calls are counted, ways are what they are called, units go
on and refuse another budget; and what low-precision Gumbel noise does is what the law says.

Statistical tests are seeded; each states the chance at which a right implementation would fail for
a random seed (its false-alarm rate).
"""

import importlib.util
import json
import math
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import chisquare
from worlds import random_chain

from sedd_mini.evaluation.rivals import GPT2, Clock, annealed, nats
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.noise import LogLinearNoise
from sedd_mini.samplers import sample

SCRIPT = Path(__file__).parent / "benchmarks/frontier.py"
SHIPPED = Path(__file__).parents[1] / "chapters/checkpoints"


@pytest.fixture(scope="module")
def frontier():
    sys.path.insert(0, str(SCRIPT.parent))  # it imports rivals.py
    try:
        spec = importlib.util.spec_from_file_location("frontier", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.fixture(scope="module")
def gpt2():
    return load_pretrained(SHIPPED / "synthetic-gpt2")


@pytest.mark.parametrize("given", [
    ["samples"], ["samples", "--data", "docs"], ["gumbel"], ["seconds"],
])  # fmt: skip
def test_the_files_that_are_there_are_what_the_script_would_make(frontier, given):
    """Else `make results` stops at the first, and what chapter 10 shows cannot be made again."""
    args = frontier.arguments(given)
    for name in frontier.units_of(args):
        assert frontier.result_of(name, args)["rows"]


# ---- calls and ways ------------------------------------------------------------------------------


def test_calls_are_counted(frontier, gpt2, monkeypatch):
    """Of each batch: K of diffusion, its last one included, of all positions; L of GPT-2."""
    monkeypatch.setattr(frontier, "BATCH", 12)
    absorb = load_pretrained(SHIPPED / "synthetic-absorb")
    levels = []
    handle = absorb[0].register_forward_pre_hook(lambda _, args: levels.append(args[1][0].item()))
    for K in (4, 8, 1):
        way = partial(frontier.diffuse, *absorb, K)
        x, made = frontier.draw(absorb[0], way, 20, 32, 0)  # 12 and 8
        assert made == {"calls": K, "positions_a_sample": 32 * K}
        assert x.shape == (20, 32)
        assert x.max() < 40
    handle.remove()
    t = torch.tensor([1, 0.75, 0.5, 0.25])
    torch.testing.assert_close(torch.tensor(levels[:4]), absorb[2].total(t))
    with_cache = frontier.GPT2_WAYS["un-annealed"]
    for options, positions in ((with_cache, 32), ({"cache": False}, 32 * 33 / 2)):
        way = partial(frontier.sample_gpt2, gpt2[0], **options)
        _, made = frontier.draw(gpt2[0], way, 20, 32, 0)
        assert made == {"calls": 32, "positions_a_sample": positions}


def test_ways_of_gpt2_are_what_they_are_called(frontier, gpt2):
    """First tokens against the annealed law of each name; χ², false-alarm rate 1e-5 each."""
    (law,) = gpt2[0](torch.zeros(1, 1, dtype=torch.int64)).detach().double()  # (1, 40)
    ways, seen = frontier.ways_of(*gpt2), set()
    for (how, _), way in ways.items():
        kind, _, value = how.partition(" ")
        options = {} if how == "un-annealed" else {kind: float(value)}
        p = annealed(law, **options)[0]
        x = way((4000, 1), generator=torch.Generator().manual_seed(1))[:, 0]
        counts = torch.bincount(x, minlength=40)
        assert counts[p == 0].sum() == 0
        common = p * 4000 >= 5
        rest = [(v[~common]).sum().item() for v in (counts, 4000 * p)]
        found, expected = counts[common].tolist(), (4000 * p[common]).tolist()
        if rest[1] > 0:
            found, expected = [*found, rest[0]], [*expected, rest[1]]
        assert chisquare(found, expected).pvalue > 1e-5, how
        seen.add(tuple(p.tolist()))
    assert len(seen) == len(ways) == 9


def test_judging(frontier):
    """The yardstick: the source's own samples are at no distance from it, and have its entropy."""
    source = frontier.language()
    x = source.sample(200, 32, torch.Generator().manual_seed(0))
    row = frontier.judged(x, lambda x: -source.log_prob(x), source)
    assert row["nats_per_token"] == pytest.approx(-source.log_prob(x).mean().item() / 32)
    assert row["perplexity"] == pytest.approx(math.exp(row["nats_per_token"]))
    assert abs(row["divergence_least"]) <= 5 * row["divergence_least_error"] + 1e-6
    assert row["divergence_most"] > 10 * abs(row["divergence_least"])  # the bias of few samples
    assert "divergence_least" not in frontier.judged(x, lambda x: -source.log_prob(x))


# ---- units ---------------------------------------------------------------------------------------


def a_run(folder, gpt2, lr=0.0025):
    """A folder as the grid leaves it, with the shipped weights as the run of that rate."""
    for name, value in (("grid", 1.6), ("runs", None)):
        place = folder / name / "synthetic" / f"gpt2-lr{lr:g}-seed0"
        if value:
            place.parent.mkdir(parents=True)
            facts = {"steps": 1550, "failed": None, "tuning_nats_per_token": value}
            place.with_name(place.name + ".json").write_text(json.dumps(facts))
        else:
            save_pretrained(place / "step-00001550", *gpt2)
    places = [f"--{name}={folder / name}" for name in ("grid", "runs", "out", "locks")]
    return [*places, "--rates", f"{lr:g}"]


def test_units_are_made_once_and_no_other_budget_is_taken(frontier, gpt2, tmp_path, monkeypatch):
    two = {how: frontier.GPT2_WAYS[how] for how in ("un-annealed", "temperature 0.5")}
    monkeypatch.setattr(frontier, "GPT2_WAYS", two)
    given = a_run(tmp_path, gpt2)
    small = [*given, "--num", "20", "--models", "gpt2", "source", "--seeds", "2"]
    frontier.main([*small, "--minutes", "0"])
    assert not list(tmp_path.glob("out/*"))
    made, draw = [], frontier.draw

    def spy(model, way, num, length, seed):
        if seed == 1 and len(made) == 3:
            made.append("interrupted")
            raise KeyboardInterrupt
        made.append(seed)
        return draw(model, way, num, length, seed)

    monkeypatch.setattr(frontier, "draw", spy)
    with pytest.raises(KeyboardInterrupt):
        frontier.main(small)
    assert sorted(p.name for p in tmp_path.glob("out/*")) == [
        "synthetic-gpt2-seed0.json", "synthetic-source-seed0.json"]  # fmt: skip
    frontier.main(small)  # goes on
    frontier.main(small)  # does nothing
    assert made == [0, 0, 1, "interrupted", 1]  # the first way of seed 1 was kept
    assert not list(tmp_path.glob("locks/*/*"))
    assert len(list(tmp_path.glob("out/*"))) == 4
    result = json.loads((tmp_path / "out/synthetic-gpt2-seed1.json").read_text())
    assert result["runs"] == ["gpt2-lr0.0025-seed0"]
    assert str(tmp_path) not in json.dumps(result)
    assert [row["how"] for row in result["rows"]] == [*two]
    row = result["rows"][0]
    assert (row["model"], row["how"], row["calls"], row["seed"]) == ("gpt2", "un-annealed", 32, 1)
    model, x = gpt2[0], draw(gpt2[0], partial(frontier.sample_gpt2, gpt2[0]), 20, 32, 1)[0]
    assert row["nats_per_token"] == pytest.approx(-frontier.language().log_prob(x).mean() / 32)
    assert result["ways"] == [*two]
    assert nats(model, x).mean() / 32 != pytest.approx(row["nats_per_token"])  # not judged by it

    with pytest.raises(ValueError, match=r"samples_asked 20, not 21: name another --out"):
        frontier.main([*small, "--num", "21"])
    (tmp_path / "two").mkdir()
    other = a_run(tmp_path / "two", gpt2, lr=0.005)
    with pytest.raises(ValueError, match=r"runs \['gpt2-lr0.0025-seed0'\], not \['gpt2-lr0.005"):
        frontier.main([*small, *other[:2], "--rates", "0.005"])
    with pytest.raises(ValueError, match=r"choose its learning rate are not all there"):
        frontier.main([*small, "--rates", "0.0025", "0.005"])
    with pytest.raises(SystemExit):
        frontier.main(["--models", "bert"])


def test_a_run_that_is_gone_is_trained_again(frontier, gpt2, tmp_path, monkeypatch):
    given = a_run(tmp_path, gpt2)
    asked = []

    def train(unit, args):
        asked.append((unit, args.data, args.steps))
        save_pretrained(args.runs / args.data / "gpt2-lr0.0025-seed0" / "step-00001550", *gpt2)

    monkeypatch.setattr(frontier.rivals, "train", train)
    args = frontier.arguments(given)
    frontier.load_run(("gpt2", 0.0025, 0), args)
    assert not asked
    folder = tmp_path / "runs/synthetic/gpt2-lr0.0025-seed0"
    (folder / "step-00001550").rename(folder / "step-00000775")  # it was interrupted
    assert isinstance(frontier.load_run(("gpt2", 0.0025, 0), args)[0], GPT2)
    assert asked == [(("gpt2", 0.0025, 0), "synthetic", None)]


def test_seconds(frontier, gpt2, tmp_path, monkeypatch):
    monkeypatch.setitem(frontier.DATA, "synthetic", (("gpt2", "source"), 8, 1))
    monkeypatch.setattr(frontier, "BATCH", 2)
    frontier.main(["seconds", *a_run(tmp_path, gpt2)])
    result = json.loads((tmp_path / "out/synthetic-seconds.json").read_text())
    assert {row["batch_size"] for row in result["rows"]} == {1, 2}
    for row in result["rows"]:
        assert row["calls"] == 32
        assert row["positions_a_sample"] == (32 * 33 / 2 if "no cache" in row["how"] else 32)
        assert (0 < row["seconds_a_sample_least"] <= row["seconds_a_sample"]
                <= row["seconds_a_sample_most"])  # fmt: skip


# ---- Gumbel noise --------------------------------------------------------------------------------


def test_float16_has_11_random_bits():
    """Near 1, where the luck of a rare move lies; its largest number comes once in 2¹¹."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(2**21, generator=generator, dtype=torch.float16).float() * 2**11
    upper = u[u >= 2**10]
    assert torch.equal(upper.round(), upper)
    assert upper.max() == 2**11 - 1
    assert abs((upper == 2**11 - 1).sum() - 2**10) < 4.5 * 2**5  # false-alarm rate 7e-6


@pytest.mark.parametrize("bits", [11, 12])
def test_gumbel_noise_of_few_bits_draws_as_the_law_says(frontier, bits):
    """Thirty moves of c = 0.5 and ten of c = 2 beside a stay. The number of either kind lies within
    4.5 standard errors, false-alarm rate 1.4e-5; the law of a bit more or less is 6 or more off."""
    p = torch.tensor([0.5] * 30 + [2.0] * 10, dtype=torch.float64) / 2**bits
    p = torch.cat([p, 1 - p.sum(0, keepdim=True)])
    rows, generator = 100_000, torch.Generator().manual_seed(bits)
    x = torch.cat([frontier.by_gumbel(bits, p.expand(20_000, -1), generator)
                   for _ in range(rows // 20_000)])  # fmt: skip
    found = torch.bincount(x, minlength=41).double()

    def off(bits):
        expected = rows * frontier.lawful(p[None], bits)[0]
        kinds = [(v[:30].sum(), v[30:40].sum()) for v in (found, expected)]
        return torch.tensor([abs(f - e) / e.sqrt() for f, e in zip(*kinds, strict=True)])

    assert off(bits).max() < 4.5
    assert off(bits + 1).max() > 6
    assert off(bits - 1).max() > 6


def test_the_law_of_a_run_is_that_of_its_leaps(frontier):
    """Against the leaps one by one, in blocks of any size; right without end with many bits."""
    pi = torch.tensor([[0.6, 0.3, 0.09, 0.01], [0.25, 0.25, 0.25, 0.25]]).double()
    K, bits = 64, 8
    law, masked = torch.zeros_like(pi), torch.ones(2, 1).double()
    for k in range(K):
        stay = torch.full((2, 1), 1 - 1 / (K - k)).double()
        p = torch.cat([pi / (K - k), stay], 1)
        q = p * frontier.kept(p * 2**bits)
        law, masked = law + masked * q[:, :-1], masked * (1 - q[:, :-1].sum(1, keepdim=True))
    found = frontier.law_of_a_run(pi, K, bits)
    torch.testing.assert_close(found, law / law.sum(1, keepdim=True))
    assert found[0, 3] < 0.2 * pi[0, 3]
    torch.testing.assert_close(frontier.law_of_a_run(pi, K, 50), pi)
    wrong, entropy = -(found * pi.log()).sum() / 2, -(pi * pi.log()).sum() / 2
    assert frontier.nats_off(pi, K, bits) == pytest.approx((wrong - entropy).item())
    assert -0.01 > frontier.nats_off(pi, 32, bits) > frontier.nats_off(pi, K, bits)  # more and more
    assert abs(frontier.nats_off(pi, K, 40)) < 1e-6


def test_drawn_over_the_whole_row_the_exact_step_is_tweedie(frontier):
    """Pairs of tokens from exact scores in 3 leaps, by both; χ², false-alarm rate 1e-5."""
    chain = random_chain(AbsorbingGraph(3), 2, seed=0)
    counts = []
    for steps, more in ((3, {"method": frontier.step_of_draw(frontier.exactly)}), (3, {})):
        x = sample(lambda x, sigma, at: chain.log_score(x, sigma)[at], chain.graph,
                   LogLinearNoise(), (10_000, 2), denoise=False,
                   times=torch.linspace(1, 0, steps + 1).double(),
                   generator=torch.Generator().manual_seed(len(counts)), **more)  # fmt: skip
        counts.append(torch.bincount((x * torch.tensor([3, 1])).sum(1), minlength=9).double())
    assert all(c.sum() == 10_000 and len(c) == 9 for c in counts)
    both = torch.stack(counts)
    expected = both.sum(0) / 2
    statistic = ((both - expected) ** 2 / expected).sum()
    assert statistic < 37.3  # χ² with 8 degrees of freedom, 1e-5


def test_clock_is_the_noise_of_the_shipped_gpt2(gpt2):
    assert isinstance(gpt2[1], UniformGraph)
    assert isinstance(gpt2[2], Clock)


# ---- the grid's search ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value_of", "tried", "best"),
    [
        (lambda lr: abs(math.log(lr / 2.5e-3)), [2.5e-3, 5e-3, 1.25e-3], 2.5e-3),
        (lambda lr: abs(math.log(lr / 1e-2)), [2.5e-3, 5e-3, 1e-2, 2e-2], 1e-2),
        (lambda lr: lr, [2.5e-3, 5e-3, 1.25e-3, 6.25e-4], 6.25e-4),  # the grid ends there
        (lambda lr: math.inf if lr > 2e-3 else -lr, [2.5e-3, 1.25e-3, 6.25e-4], 1.25e-3),
        (lambda lr: math.inf, [2.5e-3, 1.25e-3, 6.25e-4], None),
    ],
    ids=["middle", "up", "down", "failures are worse", "nothing trains"],
)
def test_the_learning_rate_is_searched_until_both_neighbours_are_worse(
    frontier, monkeypatch, value_of, tried, best
):
    """Each rate is tried once, in this order; the result of a rate that failed has no value."""
    rivals, found = frontier.rivals, {}
    monkeypatch.setattr(rivals, "result_of", lambda unit, args: found.get(unit[1]))
    args = SimpleNamespace(rates=[2e-2, *rivals.RATES[:-1]])
    while (lr := rivals.search("gpt2", args)[0]) is not None:
        assert rivals.search("gpt2", args)[1] is None
        value = value_of(lr)
        failed = "NaN" if value == math.inf else None
        found[lr] = {"failed": failed} | ({} if failed else {"tuning_nats_per_token": value})
    assert list(found) == tried
    assert rivals.search("gpt2", args) == (None, best)
