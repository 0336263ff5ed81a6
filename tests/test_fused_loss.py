"""Head and loss in chunks: equal to the plain formula, in value and gradient, and smaller."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from worlds import random_graph

from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.head import chunk_size, kept_size, log_scores, score_entropy_at
from sedd_mini.worlds.ctmc import MatrixGraph


def mixed_graph(num_tokens: int) -> MatrixGraph:
    """Tokens jump to MASK, and to any state, MASK leaves again: a mask_id, and work everywhere."""
    absorbing = AbsorbingGraph(num_tokens)
    to_any = UniformGraph(absorbing.num_states).rates(torch.arange(absorbing.num_states)).T
    return MatrixGraph(MatrixGraph.of(absorbing).Q + 0.3 * to_any, num_tokens)


CASES = [
    (AbsorbingGraph(11), True),
    (AbsorbingGraph(11), False),
    (UniformGraph(11), False),
    (random_graph(3, size=11), False),
    (mixed_graph(11), True),
]


def problem(graph, dtype, scaled=False, **options):
    """A random network, x at three noise levels, and an upstream gradient of either sign."""
    g = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    config = DiTConfig(
        graph.num_tokens, absorbing=graph.mask_id is not None, length=16, width=32, num_blocks=1,
        num_heads=2, scale_by_sigma=scaled, **options,
    )  # fmt: skip
    model = DiffusionTransformer(config).eval().to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=g)
    x0 = torch.randint(graph.num_tokens, (3, 16), generator=g)
    sigma = torch.tensor([0.02, 0.7, 5.0], dtype=dtype)
    x = graph.sample_transition(x0, sigma[:, None], generator=g)
    upstream = torch.randn(x.shape, generator=g, dtype=dtype)
    return model, x, sigma, x0, upstream


def plain_and_fused(model, graph, x, sigma, x0, upstream):
    results = []
    for losses in (
        graph.score_entropy(model(x, sigma), sigma[:, None], x, x0),
        model(x, sigma, x0=x0, graph=graph),
    ):
        gradients = torch.autograd.grad((losses * upstream).sum(), list(model.parameters()))
        results.append([losses, *gradients])
    return results


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("graph", "scaled"), CASES)
def test_equals_the_plain_formula(graph, scaled, dtype, tolerance):
    model, *data = problem(graph, dtype, scaled)
    plain, fused = plain_and_fused(model, graph, *data)  # losses, then every gradient
    for a, b in zip(plain, fused, strict=True):
        assert (a - b).norm() <= tolerance * a.norm()


@pytest.mark.parametrize("graph", [AbsorbingGraph(11), UniformGraph(11)])
@pytest.mark.parametrize("chunk", [1, 7, 48, 1000])
def test_chunks_of_any_size(graph, chunk, monkeypatch):
    monkeypatch.setattr("sedd_mini.network.head.piece_size", lambda log_score: 3)
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, 16, 8, generator=g, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(graph.num_states, 8, generator=g, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(graph.num_states, generator=g, dtype=torch.float64, requires_grad=True)
    offset, sigma = torch.rand(2, 3, 16, generator=g, dtype=torch.float64) + 0.1
    x0 = torch.randint(11, (3, 16), generator=g)
    x = graph.sample_transition(x0, sigma, generator=g)
    at = x == graph.mask_id if graph.mask_id else x >= 0
    results = []
    for losses in (
        graph.score_entropy(log_scores(hidden, weight, bias, x, offset), sigma, x, x0),
        score_entropy_at(at, hidden, weight, bias, x, offset, sigma, x0, graph, chunk),
    ):
        results.append([losses, *torch.autograd.grad(losses.sum(), (hidden, weight, bias))])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("graph", [AbsorbingGraph(11), UniformGraph(11)])
@pytest.mark.parametrize("keep", [0, 6, 12, 1000])
def test_slopes_kept_or_computed_again_and_twice(graph, keep, monkeypatch):
    monkeypatch.setattr("sedd_mini.network.head.chunk_size", lambda weight: 5)
    model, x, sigma, x0, upstream = problem(graph, torch.float64)
    parameters = list(model.parameters())
    plain = torch.autograd.grad(
        graph.score_entropy(model(x, sigma), sigma[:, None], x, x0), parameters, upstream
    )
    monkeypatch.setattr("sedd_mini.network.head.kept_size", lambda weight: keep)
    losses = model(x, sigma, x0=x0, graph=graph)
    first = torch.autograd.grad(losses, parameters, upstream, retain_graph=True)
    second = torch.autograd.grad(losses, parameters, upstream)  # what was kept is used up
    torch.testing.assert_close(first, plain, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second, plain, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("keep", "again"), [(0, 10), (12, 8), (48, 0)])
def test_no_more_is_kept_than_allowed(keep, again, monkeypatch):
    """48 rows in chunks of 5: those which were not kept are computed again, and no others."""
    assert kept_size(torch.empty(50257, 1)) * 50257 <= 2**26
    calls = []
    counted = lambda *a: calls.append(0) or log_scores(*a)  # noqa: E731
    monkeypatch.setattr("sedd_mini.network.head.log_scores", counted)
    monkeypatch.setattr("sedd_mini.network.head.chunk_size", lambda weight: 5)
    monkeypatch.setattr("sedd_mini.network.head.kept_size", lambda weight: keep)
    model, x, sigma, x0, _ = problem(UniformGraph(11), torch.float32)
    losses = model(x, sigma, x0=x0, graph=UniformGraph(11))
    calls.clear()
    losses.sum().backward()
    assert len(calls) == again


def test_nothing_masked_gives_zero_and_zero_gradients_for_all():
    graph = AbsorbingGraph(11)
    model, _, sigma, x0, _ = problem(graph, torch.float32)
    losses = model(x0, sigma, x0=x0, graph=graph)
    assert losses.shape == x0.shape
    assert (losses == 0).all()
    losses.sum().backward()
    assert all(p.grad is not None and (p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize(("graph", "scaled"), CASES[:3])
def test_autocast_multiplies_in_bfloat16_and_reduces_in_float32(graph, scaled):
    model, x, sigma, x0, _ = problem(graph, torch.float32, scaled)
    upstream = torch.rand(x.shape)
    with torch.autocast("cpu", torch.bfloat16):
        (plain, *plain_grads), (fused, *fused_grads) = plain_and_fused(
            model, graph, x, sigma, x0, upstream
        )
    torch.testing.assert_close(fused, plain)  # the same bfloat16 products, then float32
    full = model(x, sigma, x0=x0, graph=graph)
    assert 0 < (fused - full).abs().max() < 0.02 * full.abs().max()
    for a, b in zip(plain_grads, fused_grads, strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() <= 0.02 * a.norm()


class LargestTensor(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        self.numel = max([self.numel, *sizes])
        return out


@pytest.mark.parametrize("graph_type", [AbsorbingGraph, UniformGraph])
def test_no_tensor_over_all_positions_and_all_tokens(graph_type, monkeypatch):
    assert chunk_size(torch.empty(50257, 1)) * 50257 <= 2**23
    monkeypatch.setattr("sedd_mini.network.head.chunk_size", lambda weight: 20)
    graph = graph_type(2000)
    config = DiTConfig(
        2000, absorbing=graph.mask_id is not None, width=4, num_blocks=1, num_heads=1
    )
    model = DiffusionTransformer(config)
    x0 = torch.randint(2000, (2, 50), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([9.0, 9.0])
    x = graph.sample_transition(x0, sigma[:, None])
    with LargestTensor() as largest:
        model(x, sigma, x0=x0, graph=graph).sum().backward()
    assert largest.numel == 20 * graph.num_states
    with LargestTensor() as largest, torch.no_grad():
        model(x, sigma)
    assert largest.numel == x.numel() * graph.num_states


# ---- other heads ---------------------------------------------------------------------------------


class ByToken(AbsorbingGraph):
    """Weighs the ratios of the tokens unequally: the slopes of its loss do not sum to 0."""

    def score_entropy(self, log_score, sigma, x, x0):
        weighted = log_score + torch.arange(self.num_states, dtype=log_score.dtype) / 10
        return super().score_entropy(weighted, sigma, x, x0)


@pytest.mark.parametrize("graph", [AbsorbingGraph(11), ByToken(11)])
@pytest.mark.parametrize("keep", [0, 6, 1000])
def test_a_normalised_head_is_the_plain_formula(graph, keep, monkeypatch):
    """In value and gradient, for slopes kept and computed again, whatever they sum to."""
    monkeypatch.setattr("sedd_mini.network.head.chunk_size", lambda weight: 5)
    monkeypatch.setattr("sedd_mini.network.head.piece_size", lambda log_score: 3)
    monkeypatch.setattr("sedd_mini.network.head.kept_size", lambda weight: keep)
    model, *data = problem(graph, torch.float64, True, normalised=True)
    plain, fused = plain_and_fused(model, graph, *data)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)


def test_without_its_own_slopes_a_softmax_is_right_by_luck_alone():
    """The slopes of the absorbing loss sum to 0 over a softmax; those of other weights do not."""
    for graph, lucky in ((AbsorbingGraph(11), True), (ByToken(11), False)):
        model, x, sigma, x0, _ = problem(graph, torch.float64, True, normalised=True)
        at = x == 11
        leaf = model(x, sigma, at=at).detach().requires_grad_()
        level = sigma[:, None].expand(x.shape)[at]
        loss = graph.score_entropy(leaf, level, x[at], x0[at])
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        assert (slope[:, :-1].sum(-1).abs().max() < 1e-9 * slope.abs().max()) == lucky


class SoftCap(torch.nn.Module):
    """Logits kept between −2 and 2."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def forward(self, hidden):
        return 2 * torch.tanh(self.linear(hidden) / 2)


def soft_capped(model):
    model.output_layer.linear = SoftCap(model.output_layer.linear)


def hooked(model):
    model.output_layer.linear.register_forward_hook(lambda _, inputs, out: 2 * (out / 2).tanh())


def ends_in_tanh(model):
    """What tanh gives is needed by its backward pass, and may not be overwritten."""
    linear = model.output_layer.linear
    model.output_layer.linear = torch.nn.Sequential(linear, torch.nn.Tanh())


@pytest.mark.parametrize("change", [soft_capped, hooked, ends_in_tanh])
@pytest.mark.parametrize(("graph", "scaled"), CASES[:3])
def test_any_other_head_goes_the_general_way(graph, scaled, change, monkeypatch):
    monkeypatch.setattr("sedd_mini.network.head.chunk_size", lambda weight: 5)
    model, *data = problem(graph, torch.float64, scaled)
    x, sigma, x0, _ = data
    before = model(x, sigma)
    torch.nn.init.normal_(model.output_layer.linear.weight, std=3)
    change(model)
    at = x0 > 5
    torch.testing.assert_close(model(x, sigma, at=at), model(x, sigma)[at])
    off_x = torch.ones_like(before).scatter(-1, x[..., None], 0).bool()
    logits = model(x, sigma) + model.output_layer.offset(sigma)[:, None, None]
    assert (logits[off_x].abs() <= 2).all()  # capped, which a matrix alone would not be
    plain, fused = plain_and_fused(model, graph, *data)
    torch.testing.assert_close(fused, plain, rtol=1e-10, atol=1e-10)
    clean = model(x0, sigma, x0=x0, graph=graph)
    assert clean.shape == x0.shape
    if graph.mask_id is not None:
        assert (clean == 0).all()  # no row at all


def test_a_cap_taken_for_a_matrix_would_be_wrong():
    """What the general way is for: the slopes by the capped logits are not those by the others."""
    graph = AbsorbingGraph(11)
    model, x, sigma, x0, upstream = problem(graph, torch.float64)
    torch.nn.init.normal_(model.output_layer.linear.weight, std=3)
    soft_capped(model)
    right = torch.autograd.grad(
        model(x, sigma, x0=x0, graph=graph), list(model.parameters()), upstream
    )
    model.output_layer.linear = model.output_layer.linear.linear
    wrong = torch.autograd.grad(
        model(x, sigma, x0=x0, graph=graph), list(model.parameters()), upstream
    )
    assert (right[0] - wrong[0]).norm() > 0.1 * right[0].norm()


@pytest.mark.parametrize("graph", [AbsorbingGraph(2000), UniformGraph(2000)])
def test_the_general_way_holds_one_chunk_too(graph, monkeypatch):
    monkeypatch.setattr("sedd_mini.network.head.chunk_size", lambda weight: 20)
    config = DiTConfig(
        2000, absorbing=graph.mask_id is not None, width=4, num_blocks=1, num_heads=1
    )
    model = DiffusionTransformer(config)
    soft_capped(model)
    x0 = torch.randint(2000, (2, 50), generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([9.0, 9.0])
    x = graph.sample_transition(x0, sigma[:, None])
    with LargestTensor() as largest:
        model(x, sigma, x0=x0, graph=graph).sum().backward()
    assert largest.numel == 20 * graph.num_states
