"""Dropout by hashing: the masks look independent, and a sample meets the same ones anywhere."""

import pytest
import torch

from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.dropout import dropout, layer_keys, scramble

P, LAYERS, SAMPLES, LENGTH, WIDTH = 0.1, 8, 8, 128, 384


def masks() -> torch.Tensor:
    """Which entries are dropped, minus P, in units of the standard deviation; (layers, B, L, D)."""
    keys, ones = layer_keys(torch.arange(SAMPLES), LAYERS), torch.ones(SAMPLES, LENGTH, WIDTH)
    dropped = torch.stack([dropout(ones, P, key) == 0 for key in keys])
    return (dropped.double() - P) / (P * (1 - P)) ** 0.5


@pytest.mark.parametrize("shift", [1, 2, 5, 64])
def test_masks_have_the_rate_and_no_correlation(shift):
    z = masks()
    assert abs(z.mean()) * z.numel() ** 0.5 < 4
    for dim in range(4):
        if shift < z.shape[dim]:
            product = z.narrow(dim, 0, z.shape[dim] - shift) * z.narrow(
                dim, shift, z.shape[dim] - shift
            )
            assert abs(product.mean()) * product.numel() ** 0.5 < 4, dim
    for dim in range(4):  # sums along any direction spread as those of independent entries
        assert (z.mean(dim) * z.shape[dim] ** 0.5).std() == pytest.approx(1, abs=0.02)


def test_scramble_is_one_to_one():
    x = torch.randint(-(2**31), 2**31, (10**6,), dtype=torch.int64).unique().to(torch.int32)
    assert len(scramble(x).unique()) == len(x)


def test_kept_entries_are_scaled_and_carry_the_gradient():
    x = torch.randn(3, 4, 50, requires_grad=True)
    out = dropout(x, 0.25, torch.arange(3, dtype=torch.int32))
    torch.testing.assert_close(out[out != 0], x[out != 0] / 0.75)
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, (out != 0) / 0.75)


def test_a_sample_meets_the_same_masks_in_any_batch():
    torch.manual_seed(0)
    model = (
        DiffusionTransformer(
            DiTConfig(num_tokens=11, length=6, width=8, num_blocks=2, num_heads=2, dropout=0.5)
        )
        .double()
        .train()
    )
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x, sigma = torch.randint(11, (6, 6)), torch.linspace(0.1, 2, 6)
    key = torch.tensor([3, 10**12, 5, 2**40, 2**40 + 1, 7])
    whole = model(x, sigma, key=key)
    for rows in ([4, 1], [0], [5, 3, 2]):
        torch.testing.assert_close(model(x[rows], sigma[rows], key=key[rows]), whole[rows])
    assert (model(x, sigma, key=key + 1) - whole).abs().amax((1, 2)).min() > 1e-3
    assert (model(x, sigma) - model(x, sigma)).abs().max() > 1e-3  # without keys: drawn
