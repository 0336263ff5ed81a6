"""Samplers against exact laws. A χ² test fails by chance with probability 1e-6; seeds are fixed."""

import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from worlds import random_chain

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, samplers
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.samplers import (
    draw_moves,
    generators,
    leap,
    movable,
    move_weights,
    pick,
    sample,
    stream,
    uniforms,
)
from sedd_mini.worlds.ctmc import MatrixGraph, total_variation

GRAPHS = [UniformGraph(4), AbsorbingGraph(4)]
NOISE = GeometricNoise(0.05, 5)  # with log-linear noise, absorbing Euler and Tweedie are the same


@pytest.fixture(autouse=True)
def one_thread():
    """Many small tensors: a second thread only waits, and for long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_follows(counts: torch.Tensor, law: torch.Tensor) -> None:
    """Counts (K,) against probabilities (K,): nothing where the law is 0, χ² for the rest."""
    assert counts[law <= 1e-12].sum() == 0
    counts, law = counts[law > 1e-12], law[law > 1e-12]
    if len(law) > 1:
        assert chisquare(counts, law / law.sum() * counts.sum()).pvalue > 1e-6


class Fixed:
    """A model whose log-scores depend on nothing but the token: rows of a random table."""

    def __init__(self, graph, spread: float = 2.0):
        shape = graph.num_states, graph.num_states
        table = spread * torch.randn(shape, generator=seeded(5), dtype=torch.float64) - 1
        self.table, self.calls, self.seen = table.fill_diagonal_(0), 0, []

    def __call__(self, x, sigma, at):
        assert sigma.shape == (len(x),)
        self.calls += 1
        self.seen.append(x.clone())
        return self.table[x[at]]


def step_law(graph, x, score, t, t_next, method, noise=NOISE) -> torch.Tensor:
    """Probabilities of one step by dense linear algebra: (*S, num_states)."""
    oracle = MatrixGraph.of(graph)
    t, t_next = torch.tensor([t, t_next], dtype=torch.float64)
    dsigma = noise.total(t) - (0 if method == "denoise" else noise.total(t_next))
    stay = torch.nn.functional.one_hot(x, graph.num_states)
    if method == "euler":
        rates = score * oracle.Q[x] * (1 - stay)  # Q(x, y) s_y
        law = (t - t_next) * noise.rate(t) * rates
        law = law + stay * (1 - law.sum(-1, keepdim=True))
    else:
        kernel = torch.matrix_exp(dsigma * oracle.Q)
        law = (score @ torch.matrix_exp(-dsigma * oracle.Q).T) * kernel[x]
    law = law.clamp(min=0)
    if method == "denoise" and graph.mask_id is not None:
        law[..., graph.mask_id] = 0
    return law / law.sum(-1, keepdim=True)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("method", ["tweedie", "euler", "denoise"])
@pytest.mark.parametrize("times", [(0.95, 0.9), (0.3, 0.25), (0.3, 0.29)])
def test_law_of_one_step(graph, method, times):
    model, ends = Fixed(graph), []
    if method == "denoise":
        arguments = {"times": [1.0, times[0]]}
    else:
        arguments = {"times": times, "denoise": False, "method": method}
    sample(
        model, graph, NOISE, (400, 250), **arguments, generator=seeded(),
        callback=lambda step, t, x: ends.append(x.flatten()),
    )  # fmt: skip
    before, after = ends[-2:]
    every = torch.arange(graph.num_states)
    law = step_law(graph, every, model.table.exp(), *times, method)
    for x in before.unique():
        if graph.mask_id is not None and x != graph.mask_id:
            assert (after[before == x] == x).all()
        else:
            counts = after[before == x].bincount(minlength=graph.num_states)
            assert_follows(counts.double(), law[x])


def test_the_laws_tested_above_include_negative_weights():
    graph, t, t_next = UniformGraph(4), *torch.tensor([0.95, 0.9], dtype=torch.float64)
    oracle, score = MatrixGraph.of(graph), Fixed(graph).table.exp()
    dsigma = NOISE.total(t) - NOISE.total(t_next)
    assert (score @ torch.matrix_exp(-dsigma * oracle.Q).T < 0).any()
    rates = oracle.reverse_rates(torch.arange(4), score)
    assert ((t - t_next) * NOISE.rate(t) * rates.diag() < -1).any()


@pytest.mark.parametrize("method", ["tweedie", "euler", "denoise"])
def test_an_absorbing_row_whose_moves_weigh_more_than_1_moves_for_certain(method):
    """P(move) is then 1, not more (a particle filter takes the logarithm of 1 − P), and the places
    keep their shares; a row below 1 moves with what it weighs."""
    graph, x = AbsorbingGraph(4), torch.full((2,), 4)
    factor = 0.5 if method == "euler" else math.expm1(0.5)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).double() * torch.tensor([[1.0], [0.01]]).double()
    log_score = torch.cat([(weights / factor).log(), torch.zeros(2, 1)], 1)
    moves, p_move = move_weights(graph, x, log_score, 0.5, method)
    torch.testing.assert_close(moves[:, :4], weights)
    expected = [1, 1] if method == "denoise" else [1, 0.1]
    torch.testing.assert_close(p_move, torch.tensor(expected, dtype=torch.float64))
    assert p_move.max() == 1


def test_euler_is_tweedie_for_absorbing_with_log_linear_noise():
    """Δt σ(t) = e^Δσ̄ − 1 there; it is not with geometric noise, nor on the uniform graph."""
    for graph, noise, same in (
        (AbsorbingGraph(4), LogLinearNoise(), True),
        (AbsorbingGraph(4), GeometricNoise(), False),
        (UniformGraph(4), LogLinearNoise(), False),
    ):
        x, score = torch.arange(graph.num_states), Fixed(graph).table.exp()
        laws = [step_law(graph, x, score, 0.5, 0.45, how, noise) for how in ("euler", "tweedie")]
        assert torch.allclose(*laws, atol=1e-12) == same


def law_of_a_run(chain, times, method, noise=NOISE) -> torch.Tensor:
    """The exact law of a whole run with exact scores: step matrices over all sequences."""
    graph, states = chain.graph, chain.states
    every = torch.arange(graph.num_states)
    limit = graph.limit_log_prob(every).exp()
    p = limit[states].prod(-1)  # (n,)
    steps = [(*pair, method) for pair in itertools.pairwise(times)]
    for t, t_next, how in [*steps, (times[-1], 0.0, "denoise")]:
        sigma = noise.total(torch.tensor(t, dtype=torch.float64)).item()
        law = step_law(graph, states, chain.scores(sigma), t, t_next, how, noise)  # (n, d, S)
        joint = law[:, 0]
        for i in range(1, chain.length):
            joint = (joint[:, :, None] * law[:, i, None, :]).flatten(1)  # (n, S^(i+1))
        p = p @ joint
    return p


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("method", ["tweedie", "euler"])
@pytest.mark.parametrize("times", [[1.0, 1e-2], [1.0, 0.7, 0.3, 0.05]])
def test_law_of_a_whole_run_with_exact_scores(graph, method, times):
    chain = random_chain(graph, length=2)
    x = sample(
        chain.log_score, graph, NOISE, (40_000, 2), times=times, method=method, generator=seeded()
    )
    assert_follows(chain.histogram(x).flatten() * len(x), law_of_a_run(chain, times, method))


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("method", ["tweedie", "euler"])
def test_many_steps_with_exact_scores_sample_the_data(graph, method):
    """The run's exact law is near p0 (measured: 0.009 at most), and the samples follow that law."""
    noise = LogLinearNoise(1e-3) if graph.mask_id else GeometricNoise(1e-4, 20)
    chain = random_chain(graph, length=3)
    times = torch.linspace(1, 1e-5, 65, dtype=torch.float64).tolist()
    law = law_of_a_run(chain, times, method, noise).reshape(chain.p0.shape)
    assert total_variation(law, chain.p0) < 0.02
    x = sample(chain.log_score, graph, noise, (20_000, 3), 64, method, generator=seeded())
    assert_follows(chain.histogram(x).flatten() * len(x), law.flatten())
    # 64 sequences, 20 000 samples: sampling alone gives 0.022 on average
    assert total_variation(chain.histogram(x), chain.p0) < 0.045


def test_rare_moves_keep_their_rate_in_float32():
    """50 000 moves of probability 2e-8 each beside a stay of 0.999.

    One float32 Gumbel draw over such a row keeps 16 % of them (REFERENCE: (1/c) / (e^{1/c} − 1) at
    c = p · 2²⁴). Here P(move) = 1e-3 to six digits, and the number of moves is within 5 σ.
    """
    graph, num, rows = AbsorbingGraph(50_000), 50_000, 200_000
    dsigma = 1e-4
    log_score = torch.full((3, num + 1), math.log(2e-8 / math.expm1(dsigma)))
    masked = torch.full((3,), graph.mask_id)
    moves, p_move = move_weights(graph, masked, log_score, dsigma, "tweedie")
    assert moves.dtype == torch.float32
    torch.testing.assert_close(p_move, torch.full_like(p_move, 1e-3), rtol=3e-6, atol=0)
    x = torch.full((rows,), graph.mask_id)
    u = torch.rand(2, rows, generator=seeded(), dtype=torch.float64)
    after = draw_moves(x, moves[:1].expand(rows, -1), p_move[:1].expand(rows), *u)
    moved = after[after != graph.mask_id]
    assert abs(len(moved) - 200) < 5 * math.sqrt(200)
    tenths = (moved // (num // 10)).bincount(minlength=10).double()
    assert_follows(tenths, torch.full((10,), 0.1).double())


def test_leap_decides_in_float64(monkeypatch):
    """Float32 uniforms are multiples of 2⁻²⁴: moves of probability 1e-9 came a hundred times too
    often."""
    seen, real = [], samplers.draw_moves
    monkeypatch.setattr(samplers, "draw_moves", lambda *a: seen.extend(a[2:]) or real(*a))
    for graph in GRAPHS:
        x = graph.sample_limit((99,), generator=seeded())
        u = uniforms(torch.ones(1, 99, dtype=torch.bool), seeded())
        leap(graph, x, torch.zeros(99, graph.num_states), 0.1, "tweedie", u)
    assert len(seen) == 3 * len(GRAPHS)  # P(move), and the uniforms for whether and where
    assert all(values.dtype == torch.float64 for values in seen)
    for drawn in seen[1::3] + seen[2::3]:
        assert (drawn * 2**24 % 1 != 0).any()


def test_half_precision_scores_lose_nothing_more():
    graph = AbsorbingGraph(50_257)
    x = torch.full((1,), graph.mask_id)
    log_score = torch.full((1, graph.num_states), -6.0).half()
    for method in ("tweedie", "euler"):
        rows = [move_weights(graph, x, s, 1e-5, method)[0] for s in (log_score, log_score.float())]
        torch.testing.assert_close(*rows)


def test_places_of_weight_zero_are_never_drawn():
    moves = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    one = torch.ones(1, dtype=torch.float64)
    x = torch.tensor([4])
    assert draw_moves(x, moves, one, 0 * one, 0 * one) == 1
    assert draw_moves(x, moves, one, 0 * one, one - 2**-53) == 3


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("batched", [True, False])
def test_clamped_positions_are_there_from_the_start_and_never_change(graph, batched):
    model, seen = Fixed(graph), []
    clamp = torch.tensor([2, -1, -1, 0, 3, -1])
    if batched:
        clamp = torch.stack([clamp, clamp.flip(0)] * 10)
    x = sample(
        model, graph, NOISE, (20, 6), 5, clamp=clamp, generator=seeded(),
        callback=lambda step, t, x: seen.append(x),
    )  # fmt: skip
    fixed = clamp.expand(20, 6) >= 0
    for state in [*seen, *model.seen, x]:
        assert torch.equal(state[fixed], clamp.expand(20, 6)[fixed])
    assert (x[~fixed] != seen[0][~fixed]).any()


@pytest.mark.parametrize("given", [[2, -1, -1], [-1, -1, 1], [-1, 3, -1], [0, -1, 3]])
def test_absorbing_infilling_follows_the_conditional_law(given):
    """p(rest | given) = p_0 restricted and normalised: prefix, suffix, middle, and both ends."""
    graph, given = AbsorbingGraph(4), torch.tensor(given)
    chain = random_chain(graph, length=3)
    noise = LogLinearNoise()
    x = sample(chain.log_score, graph, noise, (10_000, 3), 64, clamp=given, generator=seeded())
    allowed = ((chain.states == given) | (given < 0)).all(-1).reshape(chain.p0.shape)
    truth = chain.p0 * allowed / chain.p0[allowed].sum()
    found = chain.histogram(x)
    assert found[~allowed].sum() == 0
    assert total_variation(found, truth) < 0.04  # 16 sequences at most: sampling alone gives 0.015


def test_the_network_is_not_called_when_nothing_can_change():
    for graph in GRAPHS:
        model = Fixed(graph)
        given = torch.tensor([1, 2, 3])
        x = sample(model, graph, NOISE, (2, 3), 4, clamp=given, generator=seeded())
        assert torch.equal(x, given.expand(2, 3))
        assert model.calls == 0
    model = Fixed(AbsorbingGraph(4))
    model.table += 20  # all move in the first step
    sample(model, AbsorbingGraph(4), NOISE, (2, 3), 4, generator=seeded())
    assert model.calls == 1


def test_absorbing_asks_for_masked_positions_alone():
    graph, asked = AbsorbingGraph(4), []
    table = Fixed(graph)

    def model(x, sigma, at):
        asked.append(torch.equal(at, x == graph.mask_id))
        return table(x, sigma, at) - 8

    sample(model, graph, NOISE, (5, 6), 4, generator=seeded())
    assert asked == [True] * 5


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("steps", [1, 7])
def test_callback_and_denoising(graph, steps):
    seen = []
    run = {"steps": steps, "callback": lambda *args: seen.append(args)}
    x = sample(Fixed(graph), graph, NOISE, (30, 8), **run, generator=seeded())
    assert [step for step, _, _ in seen] == list(range(steps + 2))
    times = torch.linspace(1, 1e-5, steps + 1, dtype=torch.float64).tolist()
    assert [t for _, t, _ in seen] == [*times, 0.0]
    assert torch.equal(seen[-1][2], x)
    assert len({state.data_ptr() for _, _, state in seen}) == steps + 2
    assert x.dtype == torch.int64
    assert (x < graph.num_tokens).all()
    seen.clear()
    sample(Fixed(graph), graph, NOISE, (30, 8), **run, denoise=False, generator=seeded())
    assert len(seen) == steps + 1


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_seeds_reproduce_and_grouping_of_rows_does_not_matter(graph, monkeypatch):
    def run(seed):
        return sample(Fixed(graph), graph, NOISE, (30, 8), 5, generator=seeded(seed))

    first = run(1)
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))
    monkeypatch.setattr("sedd_mini.samplers.piece_size", lambda log_score: 7)
    assert torch.equal(first, run(1))


@pytest.mark.parametrize("absorbing", [True, False])
def test_with_the_network(absorbing):
    torch.manual_seed(0)
    graph = AbsorbingGraph(11) if absorbing else UniformGraph(11)
    config = DiTConfig(11, absorbing=absorbing, length=16, width=32, num_blocks=1, num_heads=2)
    model = DiffusionTransformer(config)
    torch.nn.init.normal_(model.output_layer.linear.weight, std=0.5)
    model.train()
    runs = [sample(model, graph, NOISE, (4, 16), 8, generator=seeded()) for _ in range(2)]
    assert torch.equal(*runs)  # no dropout
    assert model.training
    assert (runs[0] < 11).all()
    with torch.autocast("cpu", torch.bfloat16):
        assert (sample(model, graph, NOISE, (4, 16), 8, generator=seeded()) < 11).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "analytic"}, "'tweedie', 'euler', .*, or a function, got 'analytic'"),
        ({"method": 3}, "or a function, got 3"),
        ({"steps": 0}, "at least 1, got 0"),
        ({"steps": True}, "steps must be a whole number, at least 1, got True"),
        ({"steps": 4.0}, "steps must be a whole number, at least 1, got 4.0"),
        ({"steps": "4"}, "got '4'"),
        ({"eps": 0}, "eps must be a number, above 0 and below 1, got 0"),
        ({"eps": math.nan}, "got nan"),
        ({"eps": "no"}, "got 'no'"),
        ({"steps": None, "times": [1.0, math.nan]}, "falling"),
        ({"steps": None, "times": "later"}, "falling numbers in .*, got 'later'"),
        ({"steps": None, "times": [1.0, 0.7, 0.7]}, "falling"),
        ({"start": torch.zeros(2, 5)}, r"start must be \(tokens, t\)"),
        ({"start": (torch.zeros(2, 5), 0.5)}, "start must be int64 tokens"),
        ({"start": (torch.full((2, 5), 5), 0.5)}, r"start must be int64 tokens in \[0, 5\)"),
        ({"start": (torch.full((2, 5), -1), 0.5)}, "from -1 to -1"),
        ({"start": (torch.zeros(2, 6, dtype=torch.int64), 0.5)}, "start must have shape"),
        ({"start": (torch.full((2, 5), 4), 1.5)}, "time t of start .* got 1.5"),
        ({"start": (torch.full((2, 5), 4), 1e-6)}, "eps must be"),
        ({"start": (torch.full((2, 5), 4), 0.5), "times": [1.0, 0.5, 0.1]}, "start is at t = 0.5"),
        ({"shape": (2, -5)}, r"shape must be \(B, L\)"),
        ({"shape": (2.0, 5)}, r"shape must be \(B, L\)"),
        ({"shape": 5}, r"shape must be \(B, L\), .* got 5"),
        ({"clamp": ["a"]}, "clamp must be int64 tokens"),
        ({"device": "nowhere"}, "device must be .* got 'nowhere'"),
        ({"generator": [torch.Generator()]}, "2 samples need as many generators, got 1"),
        ({"generator": [torch.default_generator] * 2}, "need as many generators, got 1 different"),
        ({"steps": None}, "or give times"),
        ({"steps": None, "times": [0.1, 0.5]}, "falling"),
        ({"steps": None, "times": [1.0]}, "at least 2"),
        ({"steps": None, "times": [1.5, 0.5]}, "lie in"),
        ({"steps": None, "times": [1.0, 0.0]}, "denoise=False"),
        ({"steps": 3, "times": [1.0, 0.5]}, "make 1 steps, not steps=3"),
        ({"shape": (5,)}, r"shape must be \(B, L\)"),
        ({"clamp": torch.zeros(3, dtype=torch.int64)}, "clamp must have shape"),
        ({"clamp": torch.full((5,), 4)}, r"tokens in \[0, 4\)"),
        ({"clamp": torch.zeros(5)}, "int64"),
        ({"model": lambda x, sigma, at: torch.full((10, 5), math.nan)}, "NaN"),
        ({"model": lambda x, sigma, at: torch.full((10, 5), 200.0)}, "too large"),
        ({"model": lambda x, sigma, at: torch.zeros(2, 5, 5)}, r"of shape \(10, 5\)"),
    ],
)
def test_errors(changes, message):
    graph = AbsorbingGraph(4)
    arguments = {"model": Fixed(graph), "shape": (2, 5), "steps": 2, **changes}
    with pytest.raises(ValueError, match=message):
        sample(graph=graph, noise=NOISE, **arguments)


def test_what_is_no_function_is_refused():
    for changes in ({"model": None}, {"callback": 3}):
        arguments = {"model": Fixed(GRAPHS[0]), "callback": None, **changes}
        with pytest.raises(TypeError, match=r"(model|callback) must be a function"):
            sample(graph=GRAPHS[0], noise=NOISE, shape=(1, 2), steps=2, **arguments)
    for generator in (5, [5], "seed"):
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator or a list"):
            sample(Fixed(GRAPHS[0]), GRAPHS[0], NOISE, (1, 2), 2, generator=generator)


def test_leap_takes_rows_of_any_number():
    graph = UniformGraph(4)
    nothing = torch.zeros(0, dtype=torch.int64)
    u = torch.zeros(2, 0, dtype=torch.float64)
    assert leap(graph, nothing, torch.zeros(0, 4), 0.1, "tweedie", u).shape == (0,)


@pytest.mark.parametrize("method", ["tweedie", "euler"])
def test_a_masked_row_whose_moves_outweigh_certainty_is_clipped(method):
    """Weights that sum to 2.5: staying counts 0, the move is certain, its place has their law.
    Beside it a row that sums to 0.5. χ² of 100 000 draws, false-alarm rate 1e-6."""
    graph, dsigma = AbsorbingGraph(4), 0.5
    factor = dsigma if method == "euler" else math.expm1(dsigma)
    weights = torch.tensor([[0.2, 0.3, 0.5, 1.5], [0.1, 0.1, 0.1, 0.2]], dtype=torch.float64)
    log_score = torch.cat([(weights / factor).log(), torch.zeros(2, 1)], -1)
    x = torch.full((2,), graph.mask_id)
    moves, p_move = move_weights(graph, x, log_score, dsigma, method)
    torch.testing.assert_close(p_move, torch.tensor([1.0, 0.5], dtype=torch.float64))
    assert p_move[0] == 1
    torch.testing.assert_close(moves[:, :4], weights)
    num = 100_000
    u = torch.rand(2, num, generator=seeded(4), dtype=torch.float64)
    rows = log_score[:1].expand(num, -1).contiguous()
    y = leap(graph, x[:1].expand(num), rows, dsigma, method, u)
    law = torch.cat([weights[0] / 2.5, torch.zeros(1)])
    assert_follows(torch.bincount(y, minlength=5), law)


# ---- steps of one's own --------------------------------------------------------------------------


def surest_first(model, graph, noise, x, free, t, t_next, generator):
    """One more token of each sequence: at the place where the network is surest, drawn."""
    hidden = movable(graph, x, free)
    left = hidden.any(1)  # (B,)
    level = noise.total(t).float().expand(len(x))
    weights = model(x, level, at=hidden)[:, : graph.mask_id].softmax(-1)  # (M, N)
    sure = torch.zeros(x.shape).masked_scatter(hidden, weights.amax(-1).float())
    place = torch.zeros_like(hidden).scatter(1, sure.argmax(1)[:, None], left[:, None])
    drawn = pick(weights[place[hidden]], *uniforms(place, generator, num=1))  # (B left,)
    return x.masked_scatter(place, drawn)


def surest_value(model, graph, noise, x, free, t, t_next, generator):
    """The same with the value at its most probable: no sample of the law."""
    hidden = movable(graph, x, free)
    level = noise.total(t).float().expand(len(x))
    best = model(x, level, at=hidden)[:, : graph.mask_id].max(-1)
    sure = torch.zeros(x.shape).masked_scatter(hidden, best.values.exp().float())
    place = torch.zeros_like(hidden).scatter(1, sure.argmax(1)[:, None], hidden.any(1)[:, None])
    return x.masked_scatter(place, best.indices[place[hidden]])


def test_confidence_order_keeps_the_law():
    """The place by a rule that sees visible tokens only, the value drawn: exactly p0.

    Not so if the most probable value is taken.
    """
    graph, times = AbsorbingGraph(4), [1.0, 0.7, 0.4, 0.1]
    chain = random_chain(graph, length=3)
    run = {"times": times, "denoise": False, "generator": seeded()}
    x = sample(chain.log_score, graph, NOISE, (20_000, 3), method=surest_first, **run)
    assert_follows(chain.histogram(x).flatten() * len(x), chain.p0.flatten())
    x = sample(chain.log_score, graph, NOISE, (100, 3), method=surest_value, **run)
    assert len(x.unique(dim=0)) == 1
    clamp = torch.tensor([-1, 2, -1])  # and where there is something to keep
    run["times"] = times[:3]
    x = sample(chain.log_score, graph, NOISE, (20_000, 3), method=surest_first, clamp=clamp, **run)
    allowed = torch.zeros_like(chain.p0)
    allowed[:, 2] = chain.p0[:, 2]
    assert_follows(chain.histogram(x).flatten() * len(x), (allowed / allowed.sum()).flatten())


def test_the_named_steps_are_functions_too():
    for graph in GRAPHS:
        for name in samplers.SAMPLERS:
            if graph.mask_id is None and name not in ("tweedie", "euler", "corrector"):
                continue
            if name == "blocks":  # for a network of its own
                continue
            step, clamp = samplers.find_step(name), torch.tensor([1] + [-1] * 7)
            runs = [sample(Fixed(graph), graph, NOISE, (30, 8), 5, how, clamp=clamp,
                           generator=seeded()) for how in (name, step)]  # fmt: skip
            assert torch.equal(*runs)


def test_a_step_knows_the_times_and_what_is_free():
    graph, seen = AbsorbingGraph(4), []

    def step(model, graph, noise, x, free, t, t_next, generator):
        seen.append((t.item(), t_next.item()))
        assert free.tolist() == [[True, False, True]] * 2
        return x

    clamp, times = torch.tensor([-1, 1, -1]), [0.9, 0.5, 0.2]
    x = sample(Fixed(graph), graph, NOISE, (2, 3), None, step, times=times, clamp=clamp)
    assert seen == [(0.9, 0.5), (0.5, 0.2)]
    assert (x < 4).all()  # the step did nothing, denoising all


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: None, "bad must return int64 tokens of shape .2, 3., got None"),
        (lambda x: x[:, :2], r"of shape \(2, 3\), got torch.int64 \(2, 2\)"),
        (lambda x: x.float(), r"got torch.float32 \(2, 3\)"),
        (lambda x: x + 1, r"tokens in \[0, 5\), got torch.int64 from 2 to 5"),
        (lambda x: x - 3, r"tokens in \[0, 5\), got torch.int64 from -2 to 1"),
        (lambda x: torch.zeros_like(x), "the given tokens as they are"),
        (lambda x: x.zero_(), "the given tokens as they are"),  # in place, too
    ],
)
def test_what_a_step_returns_is_looked_at(wrong, message):
    def bad(model, graph, noise, x, *rest):
        return wrong(x)

    graph = AbsorbingGraph(4)
    with pytest.raises(ValueError, match=message) as error:
        sample(Fixed(graph), graph, NOISE, (2, 3), 2, bad, clamp=torch.tensor([-1, 1, -1]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_start_goes_on_from_a_noised_text(graph):
    """Two halves of a run give the law of the whole; the tokens of the start are the first ones."""
    chain, times = random_chain(graph, length=2), [1.0, 0.7, 0.3, 0.05]
    half = sample(
        chain.log_score, graph, NOISE, (40_000, 2), times=times[:3], denoise=False,
        generator=seeded(),
    )  # fmt: skip
    x = sample(
        chain.log_score, graph, NOISE, (40_000, 2), start=(half, 0.3), times=times[2:],
        generator=seeded(1),
    )  # fmt: skip
    law = law_of_a_run(chain, times, "tweedie")
    assert_follows(chain.histogram(x).flatten() * len(x), law)
    seen = []
    sample(
        Fixed(graph), graph, NOISE, (3, 2), 4, start=(torch.tensor([1, 2]), 0.5),
        clamp=torch.tensor([-1, 3]), generator=seeded(), callback=lambda *args: seen.append(args),
    )  # fmt: skip
    assert seen[0][2].tolist() == [[1, 3]] * 3
    assert [t for _, t, _ in seen] == pytest.approx([*torch.linspace(0.5, 1e-5, 5).tolist(), 0])


class Leaving(AbsorbingGraph):
    """A subclass in which visible tokens may move as well: to the next one, at rate 1."""

    def rates(self, x):
        out = super().rates(x)
        for y in range(self.num_tokens):
            out[x == y, (y + 1) % self.num_tokens] += 1
            out[x == y, y] -= 1
        return out

    def reverse_rates(self, x, score):
        return MatrixGraph.of(self).reverse_rates(x, score)

    def tweedie_probs(self, x, score, dsigma):
        return MatrixGraph.of(self).tweedie_probs(x, score, dsigma)


@pytest.mark.parametrize("make", [Leaving, lambda n: MatrixGraph.of(Leaving(n))])
@pytest.mark.parametrize("method", ["tweedie", "euler"])
def test_a_mask_does_not_keep_visible_tokens_of_other_graphs_from_moving(make, method):
    graph = make(4)
    model, x = Fixed(graph), torch.arange(5).expand(4000, 5)
    after = sample(
        model, graph, NOISE, (4000, 5), None, method, start=(x, 0.3), times=[0.3, 0.25],
        denoise=False, generator=seeded(),
    )  # fmt: skip
    law = step_law(graph, torch.arange(5), model.table.exp(), 0.3, 0.25, method)
    for token in range(5):
        assert_follows(after[:, token].bincount(minlength=5).double(), law[token])


# ---- one generator a sample ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["tweedie", "euler", surest_first])
@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_a_sample_of_a_seed_is_the_same_whatever_stands_beside_it(graph, method):
    if method is surest_first and graph.mask_id is None:
        pytest.skip("no hidden tokens")
    model = Fixed(graph)
    model.table = model.table + 3  # some samples are finished long before others

    def run(num, first=0):
        some = generators(5, num, first)
        return sample(model, graph, NOISE, (num, 40), 6, method, generator=some)

    whole = run(12)
    assert torch.equal(torch.cat([run(1, i) for i in range(12)]), whole)
    assert torch.equal(torch.cat([run(5), run(7, 5)]), whole)
    other = sample(model, graph, NOISE, (12, 40), 6, method, generator=generators(6, 12))
    assert not (other[:, None] == whole).all(-1).any()


def test_a_list_of_generators_follows_the_law():
    for graph in GRAPHS:
        chain, times = random_chain(graph, length=2), [1.0, 0.7, 0.3, 0.05]
        x = sample(
            chain.log_score, graph, NOISE, (4000, 2), times=times, generator=generators(0, 4000)
        )
        assert_follows(chain.histogram(x).flatten() * len(x), law_of_a_run(chain, times, "tweedie"))


def test_seeds_share_no_sample():
    """No two streams of small (seed, i) are one; beyond, only chance makes them so."""
    small = [stream(seed, i) for seed in range(300) for i in range(300)]
    small += [stream(seed, i) for seed in (65_535, 65_534) for i in range(65_000, 65_536)]
    large = [stream(seed, i) for seed in (2**16, 2**32, 2**63 - 1, 0) for i in (0, 1, 2**16, 2**40)]
    assert len({*small, *large}) == len(small) + len(large) - 2  # (0, 0) and (0, 1) stand in both
    assert all(0 <= value < 2**32 for value in small + large)
    first = torch.stack([torch.rand(2, generator=g).double() for g in generators(0, 4000)])
    bound = 4.5 / math.sqrt(12 * 4000)  # neighbours are independent: means and products
    assert (first.mean(0) - 0.5).abs().max() < bound
    centred = first - 0.5
    assert (centred[1:] * centred[:-1]).mean(0).abs().max() < bound / math.sqrt(12)
    for bad in (-1, 2**63, 1.0, True, None, "1"):
        with pytest.raises(ValueError, match="seed must be a whole number, at least 0 and at most"):
            generators(bad, 1)


def test_uniforms_of_either_kind():
    at = torch.tensor([[True, False, True], [False, False, False], [False, True, True]])
    for generator in (None, seeded(), generators(0, 3)):
        u = uniforms(at, generator, num=3)
        assert u.shape == (3, 4)
        assert u.dtype == torch.float64
        assert ((u >= 0) & (u < 1)).all()
        assert len(u.unique()) == 12
    some = generators(0, 3)
    assert uniforms(at, some).shape == (2, 4)
    assert torch.equal(some[1].get_state(), generators(0, 2)[1].get_state())  # an empty row


# ---- devices without float64 ---------------------------------------------------------------------


class OnMps(torch.Tensor):
    """A tensor that says it lies on MPS and, like one there, is never of float64."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name == "__get__" and function.__self__ is torch.Tensor.device:
            return torch.device("mps")
        plain = [a.as_subclass(torch.Tensor) if isinstance(a, OnMps) else a for a in args]
        if name == "to" and args[1:2] == (torch.device("cpu"),):
            return plain[0]
        out = function(*plain, **(kwargs or {}))
        several = isinstance(out, tuple | list)
        outs = [o.as_subclass(OnMps) if isinstance(o, torch.Tensor) else o
                for o in (out if several else [out])]  # fmt: skip
        if any(isinstance(o, OnMps) and o.as_subclass(torch.Tensor).dtype == torch.float64
               for o in outs):  # fmt: skip
            raise TypeError("MPS has no float64")
        return tuple(outs) if several else outs[0]


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize("method", ["tweedie", "euler", "denoise"])
def test_a_step_works_where_there_is_no_float64(graph, method):
    x = graph.sample_limit((9,), generator=seeded())
    log_score = Fixed(graph).table[x].float()
    at = torch.ones(3, 3, dtype=torch.bool)
    for generator in (seeded(), generators(0, 3)):
        u = uniforms(at.as_subclass(OnMps), generator)
        assert (type(u), u.dtype) == (torch.Tensor, torch.float64)
        moved = leap(graph, x, log_score.as_subclass(OnMps), 0.1, method, u)
        assert torch.equal(moved, leap(graph, x, log_score, 0.1, method, u))
    with pytest.raises(TypeError, match="no float64"):
        log_score.as_subclass(OnMps).double()


def test_a_generator_on_another_device_is_refused(monkeypatch):
    class There:
        device = torch.device("mps")

    model = Fixed(GRAPHS[0])
    monkeypatch.setattr(samplers.torch, "Generator", There)
    for device in ("mps", "cpu"):
        with pytest.raises(ValueError, match=r"generator is on mps.* make it with torch.Generator"):
            sample(model, GRAPHS[0], NOISE, (1, 2), 2, generator=There(), device=device)
