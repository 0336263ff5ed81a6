"""What the closed forms promise: each equals dense linear algebra, at any N, σ̄, shape and dtype.

The oracle is `ctmc.MatrixGraph`, which knows nothing but the rate matrix Q itself.
"""

import decimal
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.graphs import GRAPHS, fine_uniform, relative_excess, widest
from sedd_mini.worlds.ctmc import MatrixGraph

both = pytest.mark.parametrize("make", [UniformGraph, AbsorbingGraph])
EXACT = {"rtol": 1e-10, "atol": 1e-10}

sizes = st.integers(2, 7)
sigmas = st.floats(1e-6, 5.0)  # dense exponentials of −σ̄Q stay accurate to 1e-10 here
shapes = st.sampled_from([(4,), (2, 3), (2, 1, 2)])
seeds = st.integers(0, 2**31)


def scene(make, num_tokens, shape, seed, sigma):
    """A graph, its oracle, data x0, reachable x, one noise level a row, and positive scores."""
    g = torch.Generator().manual_seed(seed)
    graph = make(num_tokens)
    x0 = torch.randint(num_tokens, shape, generator=g)
    level = sigma * (0.5 + torch.rand((shape[0],) + (1,) * (len(shape) - 1), generator=g).double())
    x = graph.sample_transition(x0, level.expand(shape).clamp(min=0.7), g)
    score = torch.randn(*shape, graph.num_states, generator=g).double().exp()
    return graph, MatrixGraph.of(graph), x0, x, level, score.scatter(-1, x[..., None], 1)


def test_rate_matrices_are_those_of_the_paper():
    N = 5
    uniform = MatrixGraph.of(UniformGraph(N)).Q
    torch.testing.assert_close(uniform, torch.ones(N, N).double() / N - torch.eye(N).double())
    absorbing = -torch.eye(N + 1).double()
    absorbing[N] = 1  # every token jumps to MASK, and MASK nowhere
    absorbing[N, N] = 0
    torch.testing.assert_close(MatrixGraph.of(AbsorbingGraph(N)).Q, absorbing)


@both
@given(n=sizes, shape=shapes, seed=seeds, sigma=sigmas)
@settings(deadline=None, max_examples=60)
def test_closed_forms_equal_dense_linear_algebra(make, n, shape, seed, sigma):
    graph, oracle, x0, x, level, score = scene(make, n, shape, seed, sigma)
    pairs = [
        (graph.transition_probs(x0, level), oracle.transition_probs(x0, level)),
        (graph.transition_probs(x, level), oracle.transition_probs(x, level)),
        (graph.rates(x), oracle.rates(x)),
        (graph.rates_into(x), oracle.rates_into(x)),
        (graph.reverse_rates(x, score), oracle.reverse_rates(x, score)),
        (graph.staggered_score(score, level), oracle.staggered_score(score, level)),
        (graph.tweedie_probs(x, score, level), oracle.tweedie_probs(x, score, level)),
    ]
    for fast, slow in pairs:
        assert fast.shape == (*shape, graph.num_states)
        torch.testing.assert_close(fast, slow, **EXACT)


@both
@given(n=sizes, shape=shapes, seed=seeds, sigma=st.floats(1e-3, 5.0))
@settings(deadline=None, max_examples=60)
def test_score_entropy_equals_its_definition_in_value_and_gradient(make, n, shape, seed, sigma):
    graph, oracle, x0, x, level, score = scene(make, n, shape, seed, sigma)
    log_score = score.log().requires_grad_()
    values = [g.score_entropy(log_score, level, x, x0) for g in (graph, oracle)]
    assert values[0].shape == shape
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-9)
    fast, slow = (torch.autograd.grad(v.sum(), log_score)[0] for v in values)
    off_x = torch.ones_like(score).scatter(-1, x[..., None], 0)  # the entry at x is not a ratio
    torch.testing.assert_close(fast * off_x, slow * off_x, rtol=1e-9, atol=1e-9)
    assert (values[0] >= 0).all()


@both
def test_kernels_compose(make):
    """exp(aQ) exp(bQ) = exp((a + b)Q): what staggered scores rest on."""
    graph = make(6)
    every = torch.arange(graph.num_states)
    a, b, ab = (graph.transition_probs(every, s).double().T for s in (0.4, 1.1, 1.5))
    torch.testing.assert_close(a @ b, ab, rtol=0, atol=1e-6)


@both
def test_sampling_follows_the_kernel(make):
    """χ² of 200 000 draws at each of three noise levels; false-alarm rate 1e-4 a graph."""
    graph, g = make(5), torch.Generator().manual_seed(3)
    for sigma in (0.05, 0.7, 4.0):
        x = graph.sample_transition(torch.full((200_000,), 2), sigma, g)
        law = graph.transition_probs(torch.tensor(2), torch.tensor(sigma).double())
        counts = torch.bincount(x, minlength=graph.num_states)
        assert (counts[law == 0] == 0).all()
        seen, expected = counts[law > 0].numpy(), (law[law > 0] * 200_000).numpy()
        assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4 / 3


@both
def test_rare_moves_keep_their_rate(make):
    """4 M draws at σ̄ = 5e-6: about 20 moves, Poisson; outside [4, 45] once in 1e5 runs."""
    graph, g = make(50_000), torch.Generator().manual_seed(0)
    x0 = torch.zeros(4_000_000, dtype=torch.int64)
    assert 4 <= (graph.sample_transition(x0, 5e-6, g) != x0).sum() <= 45


@both
def test_many_noise_levels_broadcast_over_positions(make):
    graph, g = make(50), torch.Generator().manual_seed(1)
    x0, sigma = torch.randint(50, (3, 40_000), generator=g), torch.tensor([[0.01], [0.3], [3.0]])
    moved = (graph.sample_transition(x0, sigma, g) != x0).double().mean(1)
    share = 1 if make is AbsorbingGraph else 1 - 1 / 50
    expected = -share * torch.expm1(-sigma[:, 0].double())
    error = (expected * (1 - expected) / 40_000).sqrt()
    assert ((moved - expected).abs() < 5 * error).all()  # false alarm below 2e-6


# ---- precision ----------------------------------------------------------------------------------

SWEEP_N = [2**k for k in range(1, 17)] + [50_257, 50_304]
SWEEP_SIGMA = torch.logspace(-6, math.log10(50), 24)


@both
@pytest.mark.parametrize("n", SWEEP_N)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_nan_or_infinite(make, n, dtype):
    """Losses, their gradients and kernels for every power of two up to 65 536 and GPT-2's sizes.

    x is a moved and an unmoved position; scores are those of an untrained network, and exact ones.
    """
    graph = make(n)
    sigma = SWEEP_SIGMA.to(dtype).repeat_interleave(2)[:, None]  # (M, 1)
    x0 = torch.tensor([1]).repeat(len(sigma), 1)
    moved = n - 1 if graph.mask_id is None else graph.mask_id
    x = torch.tensor([moved, 1]).repeat(len(SWEEP_SIGMA))[:, None]
    step = 12 if n > 5000 else len(x)
    for k in range(0, len(x), step):
        a, b, s = x[k : k + step], x0[k : k + step], sigma[k : k + step]
        log_score = torch.zeros(*a.shape, graph.num_states, dtype=dtype, requires_grad=True)
        loss = graph.score_entropy(log_score, s, a, b)
        (slope,) = torch.autograd.grad(loss.sum(), log_score)
        probs = graph.transition_probs(a, s)
        score = log_score.detach().exp()
        tensors = [loss, slope, probs, graph.tweedie_probs(a, score, s)]
        tensors += [graph.reverse_rates(a, score), graph.staggered_score(score, s)]
        for value in tensors:
            assert value.isfinite().all()
            assert value.dtype == dtype
        assert (loss >= 0).all()
        assert (probs >= 0).all()
        torch.testing.assert_close(probs.sum(-1).double(), torch.ones(a.shape).double(), rtol=0,
                                   atol=1e-4 if dtype == torch.float32 else 1e-12)  # fmt: skip


@both
@pytest.mark.parametrize("n", [2, 100, 50_257])
def test_float32_loses_no_accuracy(make, n):
    """float32 against float64 on the same inputs, from σ̄ = 1e-6 to 50: 1e-5 relative."""
    graph, g = make(n), torch.Generator().manual_seed(n)
    for sigma in SWEEP_SIGMA:
        x0 = torch.randint(n, (4,), generator=g)
        x = torch.cat([graph.sample_limit((2,), g), x0[2:]])
        log_score = torch.randn(4, graph.num_states, generator=g)
        single = graph.score_entropy(log_score, sigma, x, x0)
        double = graph.score_entropy(log_score.double(), sigma.double(), x, x0)
        torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=0)


@both
@pytest.mark.parametrize("delta", [1e-1, 1e-3, 1e-5])
def test_near_the_optimum_the_loss_keeps_its_relative_accuracy(make, delta):
    """s = r e^δ: the loss is about r δ²/2 an entry, far below the size of its three terms."""
    graph = make(50_257)
    for sigma in (1e-6, 1e-3, 1.0, 20.0):
        x0, x = torch.tensor([7]), torch.tensor([graph.num_states - 1])
        probs = graph.transition_probs(x0, torch.tensor(sigma).double())
        log_r = (probs / probs.gather(-1, x[:, None])).log()
        log_score = (log_r + delta).float().clamp(min=-80)  # as float32 can hold it
        loss = graph.score_entropy(log_score, sigma, x, x0).double()
        slow = graph.score_entropy(log_score.double(), torch.tensor(sigma).float().double(), x, x0)
        torch.testing.assert_close(loss, slow, rtol=1e-5, atol=0)


@given(delta=st.floats(-30, 3), log_r=st.floats(-20, 20))
def test_relative_excess_in_float32_is_that_of_exact_arithmetic(delta, log_r):
    log_score = torch.tensor([log_r + delta]).float()
    out = relative_excess(log_score, torch.tensor([log_r], dtype=torch.float64)).item()
    with decimal.localcontext(prec=60):
        d = decimal.Decimal(log_score.item()) - decimal.Decimal(log_r)
        exact = float(d.exp() - 1 - d)
    assert out == pytest.approx(exact, rel=1e-5, abs=1e-30)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.float64, 1e-14)])
def test_relative_excess_on_both_sides_of_where_its_series_ends(dtype, tolerance):
    """At 1/16; and far from it, a score of 0 costs ∞, not NaN."""
    delta, zero = torch.linspace(-0.07, 0.07, 701, dtype=dtype), torch.zeros(()).double()
    for d, out in zip(delta.tolist(), relative_excess(delta, zero).tolist(), strict=True):
        with decimal.localcontext(prec=60):
            exact = float(decimal.Decimal(d).exp() - 1 - decimal.Decimal(d))
        assert out == pytest.approx(exact, rel=tolerance, abs=1e-30)
    assert relative_excess(torch.tensor(-math.inf, dtype=dtype), zero) == math.inf


# ---- the limit ----------------------------------------------------------------------------------


@both
@given(n=sizes, sigma=st.floats(1e-3, 30))
def test_prior_term_is_the_divergence_from_the_kernel_to_the_limit(make, n, sigma):
    graph = make(n)
    sigma = torch.tensor(sigma, dtype=torch.float64)
    p = graph.transition_probs(torch.tensor(0), sigma)
    log_base = graph.limit_log_prob(torch.arange(graph.num_states), sigma.item())
    assert log_base.exp().sum().item() == pytest.approx(1)
    kl = (torch.xlogy(p, p) - torch.where(p > 0, p * log_base, 0)).sum()
    torch.testing.assert_close(graph.prior_kl(sigma), kl, rtol=1e-9, atol=1e-12)
    if graph.mask_id is None:
        oracle = MatrixGraph.of(graph).prior_kl(sigma)
        torch.testing.assert_close(oracle, kl, rtol=1e-9, atol=1e-12)


def test_limits():
    g = torch.Generator().manual_seed(0)
    graph = AbsorbingGraph(4)
    assert (graph.sample_limit((2, 3), g) == graph.mask_id).all()
    assert graph.limit_log_prob(torch.tensor([0, 4])).tolist() == [-math.inf, 0]
    counts = torch.bincount(UniformGraph(4).sample_limit((40_000,), g), minlength=4)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4  # false-alarm rate 1e-4


# ---- a device without float64 -------------------------------------------------------------------


class NoFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            assert not isinstance(value, torch.Tensor) or value.dtype != torch.float64, func
        return out


@both
@pytest.mark.parametrize("n", [5, 50_257])
def test_no_float64_where_the_device_has_none(make, n, monkeypatch):
    """As Apple's MPS, played by the CPU: everything runs, and is what float64 gives."""
    kinds = [widest(device) for device in ("mps", "cpu", "cuda:1")]
    assert kinds == [torch.float32, torch.float64, torch.float64]
    graph, g = make(n), torch.Generator().manual_seed(0)
    x0 = torch.randint(n, (4, 3), generator=g)
    sigma = torch.tensor([1e-4, 0.1, 2.0, 19.0])[:, None]
    x = graph.sample_transition(x0, sigma, g)
    log_score = torch.randn(4, 3, graph.num_states, generator=g).scatter(-1, x[..., None], 0)

    def everything():
        score = log_score.exp()
        return [
            graph.transition_probs(x0, sigma), graph.rates(x), graph.rates_into(x),
            graph.reverse_rates(x, score), graph.staggered_score(score, sigma),
            graph.tweedie_probs(x, score, sigma), graph.score_entropy(log_score, sigma, x, x0),
            graph.limit_log_prob(x, 7.0), graph.prior_kl(sigma), graph.tweedie_probs(x, score, 0.3),
        ]  # fmt: skip

    usual = everything()
    monkeypatch.setattr("sedd_mini.graphs.widest", lambda device: torch.float32)
    with NoFloat64():
        narrow = everything()
        graph.sample_transition(x0, sigma, g)
        graph.sample_limit((2, 3), g)
    for a, b in zip(usual, narrow, strict=True):
        torch.testing.assert_close(b.double(), a.double(), rtol=2e-5, atol=1e-6)
    level = torch.tensor(0.3, dtype=torch.float64)  # made on the CPU: narrowed on its way
    assert graph.transition_probs(x0, level).dtype == torch.float32


def test_fine_uniform_numbers_from_two_of_float32(monkeypatch):
    """Near 0 they are finer than 2⁻²⁴; χ² of 2 M in 64 parts, false-alarm rate 1e-4."""
    monkeypatch.setattr("sedd_mini.graphs.widest", lambda device: torch.float32)
    u = fine_uniform((2_000_000,), torch.Generator().manual_seed(0), "cpu")
    assert u.dtype == torch.float32
    assert ((u >= 0) & (u < 1)).all()
    assert stats.chisquare(torch.histc(u, 64, 0, 1).numpy()).pvalue > 1e-4
    near = u[u < 2**-12].double()
    assert 350 < len(near) < 640  # 488 ± 22
    assert ((near * 2**24) % 1 != 0).double().mean() > 0.9


# ---- names --------------------------------------------------------------------------------------


@both
def test_each_is_rebuilt_from_what_it_says_of_itself(make):
    again = GRAPHS["uniform" if make is UniformGraph else "absorb"](**make(7).to_config())
    assert (type(again), again.num_tokens) == (make, 7)


# ---- bad input ----------------------------------------------------------------------------------


@both
def test_bad_input_is_refused_with_a_reason(make):
    graph, x = make(4), torch.tensor([[0, 1], [2, 3]])
    score = torch.ones(2, 2, graph.num_states)
    cases = [
        (ValueError, "must lie in", lambda: graph.transition_probs(x + 3, 1.0)),
        (ValueError, "must lie in", lambda: graph.sample_transition(x - 1, 1.0)),
        (TypeError, "int64", lambda: graph.transition_probs(x.float(), 1.0)),
        (ValueError, "at least 0", lambda: graph.transition_probs(x, -1.0)),
        (ValueError, "finite", lambda: graph.sample_transition(x, math.nan)),
        (ValueError, "positive", lambda: graph.score_entropy(score, 0.0, x, x)),
        (ValueError, "does not broadcast", lambda: graph.transition_probs(x, torch.ones(3))),
        (ValueError, "scores must have shape", lambda: graph.tweedie_probs(x, score[..., 1:], 1.0)),
        (ValueError, "scores must have shape", lambda: graph.reverse_rates(x[0], score)),
        (ValueError, "scores must have shape", lambda: graph.score_entropy(score[0], 1.0, x, x)),
        (ValueError, "at least 2", lambda: make(1)),
        (ValueError, "whole number, at least 2", lambda: make(4.0)),
        (ValueError, "whole number, at least 2", lambda: make("4")),
        (ValueError, "whole number, at least 2", lambda: make(True)),
        (TypeError, "int64 tensor, got list", lambda: graph.transition_probs([0, 1], 1.0)),
        (ValueError, "must lie in", lambda: graph.rates(x + 3)),
        (ValueError, "must lie in", lambda: graph.rates_into(x - 1)),
        (ValueError, "scores must have shape", lambda: graph.staggered_score(score[..., 1:], 1.0)),
        (ValueError, "sigma_max must be at least 0", lambda: graph.limit_log_prob(x, -1.0)),
        (ValueError, "sigma_max must be at least 0", lambda: graph.limit_log_prob(x, math.nan)),
        (ValueError, "finite", lambda: graph.prior_kl(math.inf)),
    ]
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()


def test_masked_data_is_refused():
    graph, x = AbsorbingGraph(3), torch.tensor([3])
    with pytest.raises(ValueError, match="x0 must be data"):
        graph.score_entropy(torch.zeros(1, 4), 1.0, x, x)


@pytest.mark.parametrize("graph", [AbsorbingGraph(3), UniformGraph(3)], ids=str)
def test_compiled_score_entropy_has_the_same_gradient(graph):
    """PyTorch 2.11 left out the derivative of a term, though the value was right; 2.13 does not."""
    g = torch.Generator().manual_seed(0)
    x0 = torch.randint(3, (6,), generator=g)
    x = (x0 + 1) % 3 if graph.mask_id is None else torch.full_like(x0, graph.mask_id)
    log_score = torch.randn(6, graph.num_states, generator=g, requires_grad=True)
    compiled = torch.compile(graph.score_entropy, backend="aot_eager")
    slopes = [torch.autograd.grad(loss(log_score, torch.tensor(0.7), x, x0).sum(), log_score)[0]
              for loss in (graph.score_entropy, compiled)]  # fmt: skip
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)
