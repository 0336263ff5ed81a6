"""One loss, many names: each line added up on its own, equal to 1e-9 in float64."""

import math

import pytest
import torch
from runs import TINY
from worlds import planted, random_chain, seeded

from sedd_mini import AbsorbingGraph, LogLinearNoise, Settings, Trainer, UniformGraph
from sedd_mini.beyond import estimators as estimators_file
from sedd_mini.beyond import one_loss as file
from sedd_mini.beyond.estimators import (
    ESTIMATORS,
    counted_cross_entropy,
    masked_cross_entropy,
    moments,
)
from sedd_mini.beyond.first_hitting import law_in_random_order
from sedd_mini.beyond.heads import Normalised
from sedd_mini.beyond.order_likelihood import exact_nats
from sedd_mini.beyond.tables import exact_table, random_table
from sedd_mini.losses import diffusion_weighted, training_loss
from sedd_mini.noise import CosineNoise, GeometricNoise

GRAPH = AbsorbingGraph(3)
CHAIN = random_chain(GRAPH, length=3)
NORMALISED, FREE = random_table(CHAIN, seed=2), random_table(CHAIN, seed=2, place=0.7)
WORST = 1e-9


def apart(a, b) -> float:
    return (a - b).abs().max().item()


def lines(model, module=file) -> dict[str, torch.Tensor]:
    """What every name says, for each x0."""
    sets, entropy, excess = module.hidden_costs(model, CHAIN)
    return {
        "DWDSE": module.score_entropy_integral(model, CHAIN),
        "λ-DCE": module.over_shares(sets, entropy),
        "orders": module.over_orders(sets, entropy),
        "price": module.over_shares(sets, excess),
        "price by orders": module.over_orders(sets, excess),
    }


def test_a_normalised_head():
    found = lines(NORMALISED)
    assert apart(found["DWDSE"], found["λ-DCE"]) < WORST
    assert apart(found["λ-DCE"], found["orders"]) < WORST
    assert found["price"].abs().max() < WORST


def test_a_head_that_is_not_pays_the_price_of_its_mass():
    """r (Z − 1 − log Z) ≥ 0 a hidden token; normalising after the fact takes it off."""
    found = lines(FREE)
    assert apart(found["DWDSE"], found["orders"] + found["price"]) < WORST
    assert apart(found["price"], found["price by orders"]) < WORST
    assert found["price"].min() > 0.1
    assert apart(found["orders"], lines(NORMALISED)["orders"]) < WORST  # the same π
    after = lines(Normalised(FREE))
    assert apart(after["DWDSE"], found["orders"]) < WORST


@pytest.mark.parametrize("noise", [
    LogLinearNoise(), CosineNoise(), LogLinearNoise(0.05), GeometricNoise(1e-4, 20.0),
], ids=str)  # fmt: skip
def test_over_time(noise):
    """t-DCE: the same for all schedules with equal ends, whatever lies between."""
    sets, entropy, _ = file.hidden_costs(NORMALISED, CHAIN)
    ends = [-math.expm1(-float(noise.total(torch.tensor(t).double()))) for t in (0, 1)]
    low, high = (file.over_shares(sets, entropy, most) for most in ends)
    assert apart(file.over_times(sets, entropy, noise), high - low) < WORST
    assert apart(file.score_entropy_integral(NORMALISED, CHAIN, ends[1]), high) < WORST


def test_exact_scores_give_the_entropy_and_others_a_bound():
    p0 = CHAIN.p0[:3, :3, :3].flatten()
    assert apart(lines(exact_table(CHAIN))["orders"], -p0.log()) < WORST
    gap = lines(NORMALISED)["orders"] + law_in_random_order(NORMALISED, CHAIN)[
        :3, :3, :3].flatten().log()  # fmt: skip
    assert gap.min() > 0.01  # Jensen: the any-order loss is a bound of the law in random order
    data = CHAIN.states[(CHAIN.states < 3).all(1)]
    surest = exact_nats(NORMALISED, GRAPH, LogLinearNoise(), data)
    above = surest > lines(NORMALISED)["orders"]
    assert 5 < above.sum() < 22  # and none of that of another order


@pytest.mark.parametrize(("old", "new"), [
    ("weight / part @ expected", "weight @ expected"),
    ("w / (1 - lam) *", "w *"),
    ("excess[at] = z - 1 - z.log()", "excess[at] = z - 1"),
    ("excess[at] = z - 1 - z.log()", "excess[at] = z.log() + 1 / z - 1"),
    ("total += costs[number[tuple(hidden)], :, place]",
     "hidden[place] = False; total += costs[number[tuple(hidden)], :, place]"),
    ("/ math.factorial(d)", "/ d"),
    ("x0[at][:, None]", "x0[at].flip(0)[:, None]"),
    ("torch.special.xlog1py(sets.shape[1] - hidden", "torch.special.xlog1py(0 * hidden"),
])  # fmt: skip
def test_planted_bugs_are_seen(old, new):
    found = lines(FREE, planted(file, old, new))
    errors = (
        apart(found["DWDSE"], found["orders"] + found["price"]),
        apart(found["price"], found["price by orders"]),
        apart(found["λ-DCE"], found["orders"]),
    )
    assert max(errors) > 1e-3


# ---- estimators ----------------------------------------------------------------------------------


def test_all_estimators_have_the_same_mean_and_not_the_same_variance():
    sets, costs, _ = file.hidden_costs(NORMALISED, CHAIN)
    truth, variance = file.over_shares(sets, costs), {}
    for how in ESTIMATORS:
        mean, variance[how] = moments(sets, costs, how)
        assert apart(mean, truth) < WORST
    assert (variance["time"] == math.inf).all()
    assert (variance["count"] < variance["place"]).all()
    _, some = moments(sets, costs, "time", first=1e-3)
    _, more = moments(sets, costs, "time", first=1e-6)
    single = sets.sum(1) == 1  # n = 1: ∫ dλ/λ grows by log 1000 as the first λ falls to 1e-6
    growth = (costs[single].sum(-1) ** 2).sum(0) * math.log(1000)
    assert ((more - some) / growth - 1).abs().max() < 0.02
    with pytest.raises(ValueError, match="how must be one of time, count, place, got 'luck'"):
        moments(sets, costs, "luck")


NOISE = LogLinearNoise(1e-9)


def drawn(loss, x0, num=40_000, model=NORMALISED):
    """`num` values of a training loss of x0, t uniform in [0.001, 1]."""
    t = 1e-3 + (1 - 1e-3) * torch.rand(num, generator=seeded(), dtype=torch.float64)
    data = x0.expand(num, -1)
    return training_loss(model, GRAPH, NOISE, data, t, generator=seeded(1), loss=loss)


def test_the_losses_have_these_means_and_variances():
    """Mean and variance of 40 000 draws, each within 5 standard errors (false alarm 6e-7)."""
    sets, costs, _ = file.hidden_costs(NORMALISED, CHAIN)
    x0, place = torch.tensor([2, 0, 1]), 2 * 9 + 0 * 3 + 1
    for loss, how in ((masked_cross_entropy, "time"), (counted_cross_entropy, "count")):
        values = drawn(loss, x0)
        mean, variance = (m[place].item() for m in moments(sets, costs, how, 1e-3))
        if how == "count":  # n = 0 is drawn as well: L of L + 1 draws cost something
            square = (variance + mean**2) * 4 / 3
            variance = square - mean**2
        error = math.sqrt(variance / len(values))
        assert abs(values.mean() - mean) < 5 * error + 2e-3 * mean  # t < 0.001 is left out
        spread = (values - mean) ** 2
        assert abs(spread.mean() - variance) < 5 * spread.std() / math.sqrt(len(values)) + 0.05


def test_masked_cross_entropy_is_score_entropy_draw_by_draw():
    x0 = torch.tensor([2, 0, 1])
    same = drawn(masked_cross_entropy, x0, 200), drawn(diffusion_weighted, x0, 200)
    torch.testing.assert_close(*same, rtol=1e-9, atol=1e-9)
    free = drawn(masked_cross_entropy, x0, 200, FREE), drawn(diffusion_weighted, x0, 200, FREE)
    torch.testing.assert_close(free[0], same[0], rtol=1e-9, atol=1e-9)
    assert (free[1] >= free[0] - 1e-9).all()
    after = drawn(diffusion_weighted, x0, 200, Normalised(FREE))
    torch.testing.assert_close(after, same[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("old", "new"), [
    ("(x.shape[1] + 1) / number", "x.shape[1] / number"),
    ("* torch.exp(-sigma)", "* torch.exp(-2 * sigma)"),
    ("[0] / torch.expm1(sigma)", "[0] * torch.exp(-sigma)"),
    ("log_score[..., : graph", "log_score[..., 0 * graph"),
    ("log_score.logsumexp(-1) -", "-"),
])  # fmt: skip
def test_planted_bugs_of_the_losses_are_seen(old, new):
    old = old.replace("log_score[..., : graph", "sigma)[..., : graph.num_tokens]  # (B, L, N)")
    new = new.replace("log_score[..., 0 * graph", "sigma)  # (B, L, N + 1)")
    wrong, x0 = planted(estimators_file, old, new), torch.tensor([2, 0, 1])
    sets, costs, _ = file.hidden_costs(FREE, CHAIN)
    truth = file.over_shares(sets, costs)[19].item()
    seen = []
    for name in ("masked_cross_entropy", "counted_cross_entropy"):
        values = drawn(getattr(wrong, name), x0, 20_000, FREE)
        seen.append(abs(values.mean().item() - truth) > 6 * values.std().item() / 20_000**0.5)
    assert any(seen)


def test_errors():
    x = torch.full((1, 3), 3)
    with pytest.raises(ValueError, match="masked cross-entropy is for the absorbing graph"):
        masked_cross_entropy(None, UniformGraph(4), x, torch.ones(1), x0=x)
    with pytest.raises(ValueError, match="masked cross-entropy needs x0"):
        masked_cross_entropy(NORMALISED, GRAPH, x, torch.ones(1))
    with pytest.raises(ValueError, match=r"x0 must have shape \(1, 3\), got \(1, 2\)"):
        counted_cross_entropy(NORMALISED, GRAPH, x, torch.ones(1), x0=x[:, :2])
    with pytest.raises(ValueError, match="hidden token is for the absorbing graph"):
        file.hidden_costs(None, random_chain(UniformGraph(3)))


@pytest.mark.parametrize("loss", [masked_cross_entropy, counted_cross_entropy])
def test_the_trainer_takes_them(loss, text, tmp_path):
    settings = Settings(**TINY | {"data": text, "steps": 12, "width": 32, "lr": 1e-2,
                                  "device": "cpu", "normalised": True, "time_conditioning": False,
                                  "draws": "independent"})  # fmt: skip
    trainer = Trainer(settings, out=tmp_path / "run", loss=loss)
    trainer.run()
    history = [r["loss"] for r in trainer.history if "loss" in r]
    assert history[-1] < history[0]
    assert trainer.loss_is_bound()
