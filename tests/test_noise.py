"""What the noise schedules promise: the published formulas, rate = d total / dt, t checked."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sedd_mini import GeometricNoise, LogLinearNoise

SCHEDULES = [GeometricNoise(), GeometricNoise(1e-5, 20.0), LogLinearNoise(), LogLinearNoise(1e-4)]
times = st.floats(0, 1)


@pytest.mark.parametrize("noise", SCHEDULES, ids=str)
@given(t=st.floats(1e-4, 1 - 1e-4))
def test_rate_is_the_derivative_of_total(noise, t):
    t = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(noise.total(t), t)
    torch.testing.assert_close(noise.rate(t), slope, rtol=1e-12, atol=0)


@given(t=times)
def test_geometric_is_the_published_formula(t):
    assert GeometricNoise(1e-4, 20.0).total(
        torch.tensor(t, dtype=torch.float64)
    ).item() == pytest.approx(1e-4 ** (1 - t) * 20**t, rel=1e-9)


@given(t=times)
def test_loglinear_moves_tokens_linearly_in_time(t):
    moved = -torch.expm1(-LogLinearNoise(1e-3).total(torch.tensor(t, dtype=torch.float64)))
    assert moved.item() == pytest.approx((1 - 1e-3) * t, rel=1e-12, abs=1e-300)


def test_ends():
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
    with pytest.raises(ValueError, match="0 < eps < 1"):
        LogLinearNoise(0.0)
