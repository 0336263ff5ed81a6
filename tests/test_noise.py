"""What the noise schedules promise: the published formulas, rate = d total / dt, t checked.

And that the cosine schedule, the worked example of one more, gives an exact likelihood.
"""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import random_chain

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, noise
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.noise import CosineNoise

SCHEDULES = [
    GeometricNoise(), GeometricNoise(1e-5, 20.0), LogLinearNoise(), LogLinearNoise(1e-4),
    CosineNoise(), CosineNoise(1e-4),
]  # fmt: skip
times = st.floats(0, 1)


@pytest.mark.parametrize("noise", SCHEDULES, ids=str)
@given(t=st.floats(1e-4, 1 - 1e-4))
def test_rate_is_the_derivative_of_total(noise, t):
    t = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(noise.total(t), t)
    torch.testing.assert_close(noise.rate(t), slope, rtol=1e-12, atol=0)


@pytest.mark.parametrize("noise", SCHEDULES, ids=str)
def test_total_is_the_integral_of_rate(noise):
    """From 0 to 1, by 500 Gauss–Legendre nodes: none of it is at the ends alone."""
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(500))
    found = (weights * noise.rate((nodes + 1) / 2)).sum() / 2
    ends = noise.total(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(found, ends[1] - ends[0], rtol=1e-8, atol=0)


@given(t=times)
def test_geometric_is_the_published_formula(t):
    assert GeometricNoise(1e-4, 20.0).total(
        torch.tensor(t, dtype=torch.float64)
    ).item() == pytest.approx(1e-4 ** (1 - t) * 20**t, rel=1e-9)


@given(t=times)
def test_loglinear_moves_tokens_linearly_in_time(t):
    moved = -torch.expm1(-LogLinearNoise(1e-3).total(torch.tensor(t, dtype=torch.float64)))
    assert moved.item() == pytest.approx((1 - 1e-3) * t, rel=1e-12, abs=1e-300)


@given(t=times)
def test_cosine_shows_the_share_of_masked_diffusion(t):
    """e^{−σ̄} is 1 − cos(π(1 − t)/2), as MaskGIT and MD4 have it, but ends at ε."""
    shown = torch.exp(-CosineNoise(1e-3).total(torch.tensor(t, dtype=torch.float64)))
    assert shown.item() == pytest.approx(1e-3 + (1 - 1e-3) * (1 - math.cos(math.pi * (1 - t) / 2)))


def test_the_bound_by_cosine_noise_is_the_exact_likelihood():
    """The exact ratios of a small world on the absorbing graph: −log p0, but for 1e-5 · L log N.

    The error bar of 32 repeats: 6 of them are passed once in 8e5 runs.
    """
    chain, g = random_chain(AbsorbingGraph(3), 2, seed=4), torch.Generator().manual_seed(0)
    at_one = chain.scores(1.0)  # as time has no part in p(token | visible) = score · (e^σ̄ − 1)

    def model(x, sigma):
        ratio = at_one[chain.index(x)] * math.expm1(1) / sigma.double().expm1()[:, None, None]
        return ratio.clamp(min=1e-300).log()

    x0 = chain.sample_data(8000, g)
    bound = likelihood_bound(
        model, chain.graph, CosineNoise(1e-5), x0, repeats=32, batch_size=8000, generator=g
    )
    truth = -chain.p0.flatten()[chain.index(x0)].log().mean().item()
    assert bound.error < 0.015
    assert abs(bound.nats - truth) < 6 * bound.error + 1e-4


@pytest.mark.parametrize("one", SCHEDULES, ids=str)
def test_each_is_rebuilt_from_what_it_says_of_itself(one):
    again = type(one)(**json.loads(json.dumps(one.to_config())))
    assert repr(again) == repr(one)
    assert type(one) in noise.SCHEDULES.values()


def test_ends():
    for cosine in (CosineNoise(1e-3), CosineNoise(1e-9)):
        for dtype in (torch.float32, torch.float64):
            first, last = cosine.total(torch.tensor([0.0, 1.0], dtype=dtype)).tolist()
            assert first == 0
            assert last == pytest.approx(-math.log(cosine.eps), rel=1e-6)
    assert CosineNoise().rate(0.0).item() == pytest.approx(math.pi / 2 * (1 - 1e-3))
    assert 0 <= CosineNoise().rate(1.0).item() < 1e-4
    geometric, loglinear = GeometricNoise(1e-4, 20.0), LogLinearNoise(1e-3)
    assert geometric.total(0.0).item() == pytest.approx(1e-4)
    assert geometric.total(1.0).item() == pytest.approx(20)
    assert loglinear.total(0.0).item() == 0
    assert loglinear.total(torch.tensor(1.0).double()).item() == pytest.approx(-math.log(1e-3))


@pytest.mark.parametrize("noise", SCHEDULES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_and_precision_are_those_of_t(noise, dtype):
    t = torch.rand(3, 2, dtype=dtype)
    for value in (noise.total(t), noise.rate(t)):
        assert value.shape == t.shape
        assert value.dtype == dtype


@pytest.mark.parametrize("noise", SCHEDULES, ids=str)
@pytest.mark.parametrize("t", [-1e-3, 1.001, math.nan])
def test_time_outside_the_unit_interval_is_refused(noise, t):
    for function in (noise.total, noise.rate):
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            function(torch.tensor([0.5, t]))


def test_settings_are_checked():
    with pytest.raises(ValueError, match="sigma_min < sigma_max"):
        GeometricNoise(1.0, 0.5)
    for wrong in (0.0, 1, -1, math.nan):
        for kind in (LogLinearNoise, CosineNoise):
            with pytest.raises(ValueError, match="eps must be a number, above 0 and below 1"):
                kind(wrong)
    for wrong in ("0.1", None, True, [0.1]):
        with pytest.raises(ValueError, match="sigma_min must be a number, above 0, got"):
            GeometricNoise(wrong, 20)
        with pytest.raises(ValueError, match="eps must be a number, above 0"):
            CosineNoise(wrong)
