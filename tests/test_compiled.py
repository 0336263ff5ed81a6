"""The head's score entropy as the compiler gets it: equal to head.py's in value and slope."""

import copy
import pickle

import pytest
import torch
from machine import compiles

from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.network import head
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.training import compiled
from sedd_mini.training.compiled import Compiled, compile_parts, losses_and_slopes

GRAPHS = [AbsorbingGraph(11), UniformGraph(11), UniformGraph(16)]


def eager() -> Compiled:
    return Compiled(losses_and_slopes)


def network(graph) -> DiffusionTransformer:
    sizes = {"length": 8, "width": 8, "num_blocks": 1, "num_heads": 1, "cond_dim": 4}
    absorbing = graph.mask_id is not None
    return DiffusionTransformer(DiTConfig(num_tokens=11, absorbing=absorbing, **sizes))


def rows(graph, dtype=torch.float64, B=5, L=7, D=6):
    """(B, L, D) hidden states and what else a head needs, half of it where noise is little."""
    g = torch.Generator().manual_seed(0)
    hidden = 2 * torch.randn(B, L, D, generator=g, dtype=dtype)
    weight = torch.randn(graph.num_states, D, generator=g, dtype=dtype)
    bias = torch.randn(graph.num_states, generator=g, dtype=dtype)
    sigma = torch.logspace(-3, 1, B * L, dtype=dtype).reshape(B, L)[:, torch.randperm(L)]
    x0 = torch.randint(graph.num_tokens, (B, L), generator=g)
    x = graph.sample_transition(x0, 5 * sigma, g)
    at = x == graph.mask_id if graph.mask_id is not None else torch.ones_like(x, dtype=torch.bool)
    inputs = [v.requires_grad_() for v in (hidden, weight, bias)]
    return at, inputs, (x, 0.1 * sigma, sigma, x0, graph)


def value_and_slopes(loss, at, inputs, rest, normalised):
    out = loss(at, *inputs, *rest, normalised=normalised)
    weights = torch.linspace(0.5, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    return out, *torch.autograd.grad((weights * out).sum(), inputs)


@pytest.mark.parametrize("keep", [0, 3, 1000], ids="keep {}".format)
@pytest.mark.parametrize("normalised", [False, True], ids=["scores", "normalised"])
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_it_is_the_score_entropy_of_the_head(monkeypatch, graph, normalised, keep):
    """In chunks of 3 rows, of which all, one or none keep their slopes."""
    if normalised and graph.mask_id is None:
        pytest.skip("head.py takes a normalised head apart at masked positions only")
    monkeypatch.setattr(compiled, "chunk_size", lambda weight: 3)
    monkeypatch.setattr(compiled, "kept_size", lambda *inputs: keep)
    at, inputs, rest = rows(graph)
    expected = value_and_slopes(head.score_entropy_at, at, inputs, rest, normalised)
    found = value_and_slopes(eager(), at, inputs, rest, normalised)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_products_in_bfloat16(graph):
    """The two round in the same places but one: a slope is weighted before or after rounding."""
    at, inputs, rest = rows(graph, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        expected = value_and_slopes(head.score_entropy_at, at, inputs, rest, False)
        found = value_and_slopes(eager(), at, inputs, rest, False)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert (a - b).norm() <= 0.01 * b.norm()


@pytest.mark.parametrize("way", ["eager", pytest.param("compiled", marks=compiles)])
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_small_differences_from_the_truth_do_not_cancel(graph, way):
    """At log-scores 1e-6 off the true ones the loss is some 1e-12, in float32 to 1 part in 1000.

    A compiler's expm1 may be exp − 1.
    """
    work = losses_and_slopes if way == "eager" else torch.compile(losses_and_slopes)
    x0 = torch.arange(8)
    x = torch.full_like(x0, graph.mask_id) if graph.mask_id is not None else (x0 + 1) % 8
    sigma = torch.logspace(-4, 0.5, 8)
    probs = graph.transition_probs(x0, sigma.double())
    log_r = (probs / probs.gather(-1, x[:, None])).log().clamp(min=-40)
    logits = log_r.float() + (log_r.float().abs() * 2**-20).clamp(min=2**-20)
    leaf = logits.double().requires_grad_()
    exact = graph.score_entropy(leaf, sigma, x, x0)
    (slope,) = torch.autograd.grad(exact.sum(), leaf)
    ratios = compiled.log_ratios(graph, sigma, x, x0)
    found = work(logits, x, torch.zeros(8), *ratios, x0, graph, False)
    torch.testing.assert_close(found.double(), exact.detach(), rtol=1e-3, atol=1e-15)
    here = torch.arange(graph.num_states) == x[:, None]
    torch.testing.assert_close(logits.double(), slope.masked_fill(here, 0), rtol=1e-3, atol=1e-9)


@compiles
def test_compiled_at_hardly_any_noise():
    """σ̄ = 1e-17 is not 0: the loss of one moved token in float64."""
    graph = AbsorbingGraph(11)
    at, inputs, (x, offset, sigma, x0, _) = rows(graph)
    rest = x, offset, torch.full_like(sigma, 1e-17), x0, graph
    expected = value_and_slopes(head.score_entropy_at, at, inputs, rest, False)
    for a, b in zip(value_and_slopes(Compiled(), at, inputs, rest, False), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


def test_a_batch_without_a_row_that_counts():
    graph = AbsorbingGraph(11)
    at, inputs, rest = rows(graph)
    expected = value_and_slopes(head.score_entropy_at, at & False, inputs, rest, False)
    for a, b in zip(
        value_and_slopes(eager(), at & False, inputs, rest, False), expected,
        strict=True,
    ):  # fmt: skip
        assert torch.equal(a, b)
        assert not a.any()


class Twice(UniformGraph):
    def score_entropy(self, *inputs):
        return 2 * super().score_entropy(*inputs)


class Marked(UniformGraph):
    mask_id = 10


class Around:
    """A graph that hands everything on."""

    def __init__(self, graph):
        self.graph = graph

    def __getattr__(self, name):
        return getattr(self.graph, name)


def halved() -> UniformGraph:
    graph = UniformGraph(11)
    graph.score_entropy = lambda *inputs: UniformGraph.score_entropy(graph, *inputs) / 2
    return graph


@pytest.mark.parametrize("make", [Twice, Marked, halved, lambda *n: Around(Twice(11))])
def test_a_graph_of_ones_own_goes_the_plain_way(make):
    def never(*inputs):
        raise AssertionError("its losses are not these")

    graph = make() if make is halved else make(11)
    at, inputs, (*rest, _) = rows(UniformGraph(11))
    found = Compiled(never)(at, *inputs, *rest, graph)
    torch.testing.assert_close(found, head.score_entropy_at(at, *inputs, *rest, graph))


def test_what_is_no_data_is_refused():
    graph = AbsorbingGraph(11)
    at, inputs, (x, offset, sigma, x0, _) = rows(graph)
    for wrong in (torch.full_like(x0, 11), torch.full_like(x0, 99), x0.int(), x0.float()):
        with pytest.raises((ValueError, TypeError), match="token ids"):
            eager()(at, *inputs, x, offset, sigma, wrong, graph)


def test_float16_cannot_hold_slopes_without_their_weights():
    graph = AbsorbingGraph(11)
    at, inputs, rest = rows(graph, torch.float32)
    with torch.autocast("cpu", torch.float16):
        found = eager()(at, *inputs, *rest)
        assert torch.equal(found, head.score_entropy_at(at, *inputs, *rest))


def test_nothing_is_kept_where_no_gradient_is_wanted(monkeypatch):
    kept = []
    monkeypatch.setattr(compiled, "kept_size", lambda *inputs: kept.append(inputs) or 9)
    at, inputs, rest = rows(AbsorbingGraph(11))
    with torch.no_grad():
        eager()(at, *inputs, *rest)
    assert not kept


def test_a_network_of_this_form_gets_it_and_a_copy_keeps_its_own():
    graph = AbsorbingGraph(11)
    model = network(graph)
    kept = copy.deepcopy(model)
    compile_parts(model)
    assert isinstance(model.output_layer.score_entropy, Compiled)
    assert kept.output_layer.score_entropy is head.score_entropy_at
    assert model.state_dict().keys() == kept.state_dict().keys()
    compile_parts(torch.nn.Linear(2, 2))  # no blocks, no output layer
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again.output_layer.score_entropy, Compiled)

    own = network(graph)
    own.output_layer.score_entropy = mine = lambda *inputs, **options: None
    compile_parts(own)
    assert own.output_layer.score_entropy is mine


def test_a_compiled_whole_leaves_the_head_out():
    """Another number of hidden tokens compiles nothing new."""
    from torch._dynamo.testing import CompileCounter

    graph, counter = AbsorbingGraph(11), CompileCounter()
    model = network(graph)
    model.output_layer.score_entropy = eager()
    whole = torch.compile(model, backend=counter)
    x0 = torch.randint(11, (2, 8), generator=torch.Generator().manual_seed(0))
    frames = []
    for hidden in (3, 5, 7):
        x = x0.clone()
        x[:, :hidden] = graph.mask_id
        sigma = torch.tensor([0.5, 1.0])
        found = whole(x, sigma, x0=x0, graph=graph)
        torch.testing.assert_close(found, model(x, sigma, x0=x0, graph=graph))
        frames.append(counter.frame_count)
    assert frames[0] == frames[-1]
