"""The network: its size, names, precision, and each property that the book claims."""

import math

import pytest
import torch

from sedd_mini import AbsorbingGraph, LogLinearNoise, UniformGraph
from sedd_mini.network.attention import attention
from sedd_mini.network.dit import Block, DiffusionTransformer, DiTConfig, rotate
from sedd_mini.network.hardware import check_device, choose_precision

TINY = {"num_tokens": 11, "length": 16, "width": 32, "num_blocks": 2, "num_heads": 2}


def tiny(randomise: bool = True, **changes) -> DiffusionTransformer:
    """A small network in eval mode; `randomise` also fills what starts at 0."""
    torch.manual_seed(0)
    model = DiffusionTransformer(DiTConfig(**{**TINY, **changes})).eval()
    if randomise:
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def tokens(num_states: int = 12, shape=(3, 16)) -> torch.Tensor:
    return torch.randint(num_states, shape, generator=torch.Generator().manual_seed(1))


SIGMA = torch.tensor([0.05, 1.0, 6.0])


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_size_of_sedd_small():
    with torch.device("meta"):
        model = DiffusionTransformer(DiTConfig())
        assert round(count(model) / 1e6, 1) == 169.6
        assert 92.0 < count(model.blocks) / 1e6 < 92.3
        out = model(torch.zeros(2, 1024, dtype=torch.int64), torch.ones(2))
    assert out.shape == (2, 1024, 50258)


def test_names_are_those_of_the_released_checkpoints():
    names = set(tiny(num_blocks=1).state_dict())
    block = """norm1.weight norm2.weight attn_qkv.weight attn_out.weight mlp.0.weight mlp.0.bias
        mlp.2.weight mlp.2.bias adaLN_modulation.weight adaLN_modulation.bias"""
    rest = """vocab_embed.embedding rotary_emb.inv_freq sigma_map.mlp.0.weight sigma_map.mlp.0.bias
        sigma_map.mlp.2.weight sigma_map.mlp.2.bias output_layer.norm_final.weight
        output_layer.linear.weight output_layer.linear.bias output_layer.adaLN_modulation.weight
        output_layer.adaLN_modulation.bias"""
    assert names == {f"blocks.0.{name}" for name in block.split()} | set(rest.split())


def test_first_loss_of_an_untrained_scaled_model_is_that_of_a_uniform_guess():
    """(1 − e^{−σ̄(1)}) L ln N nats a sequence; at L = 1024, N = 50 257: 11 074."""
    graph, noise, length = AbsorbingGraph(11), LogLinearNoise(), 16
    model = tiny(randomise=False)
    t = (torch.arange(2000) + 0.5) / 2000
    x = torch.full((2000, length), graph.mask_id)
    x0 = tokens(11, (2000, length))
    sigma = noise.total(t)
    with torch.no_grad():
        if_masked = model(x, sigma, x0=x0, graph=graph).sum(1)
    expected_masked = -torch.expm1(-sigma)
    loss = (noise.rate(t) * expected_masked * if_masked).mean()
    truth = -math.expm1(-noise.total(1.0)) * length * math.log(11)
    assert loss.item() == pytest.approx(truth, rel=1e-4)
    full_size = -math.expm1(-noise.total(1.0)) * 1024 * math.log(50257)
    assert round(full_size) == 11074


@pytest.mark.parametrize("absorbing", [True, False])
def test_log_scores_are_float32_and_zero_at_the_current_token(absorbing):
    model = tiny(absorbing=absorbing)
    x = tokens(11 + absorbing)
    out = model(x, SIGMA)
    assert out.shape == (3, 16, 11 + absorbing)
    assert out.dtype == torch.float32
    assert (out.gather(-1, x[..., None]) == 0).all()
    assert (out != 0).sum() == out.numel() - x.numel()


def test_selected_rows_are_the_rows_of_the_whole():
    model, x = tiny(), tokens()
    whole = model(x, SIGMA)
    for at in (x == 11, x > 5, torch.zeros_like(x, dtype=torch.bool)):
        torch.testing.assert_close(model(x, SIGMA, at=at), whole[at])


def test_head_runs_on_the_selected_rows_alone(monkeypatch):
    model, x, seen = tiny(), tokens(), []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(
        "sedd_mini.network.head.F.linear",
        lambda h, w, b=None: seen.append(h.shape) or linear(h, w, b),
    )
    at = x == 11
    model(x, SIGMA, at=at)
    assert seen[-1] == (at.sum(), 32)


def test_scale_by_sigma_is_exact_at_any_noise():
    layer = tiny().output_layer
    sigma = torch.logspace(-6, math.log10(50), 200)
    wide = sigma.double()
    truth = torch.where(wide < 1, wide.expm1().log(), wide + torch.log1p(-torch.exp(-wide)))
    truth = truth + math.log(11)
    torch.testing.assert_close(layer.offset(sigma).double(), truth, rtol=1e-6, atol=1e-6)
    assert (tiny(scale_by_sigma=False).output_layer.offset(sigma) == 0).all()


def test_a_normalised_head_gives_a_distribution_over_the_tokens():
    """At masked positions s (e^σ̄ − 1) sums to 1; it is the softmax of the same logits."""
    model, x = tiny(normalised=True), torch.full((3, 16), 11)
    probs = model(x, SIGMA)[..., :11].double().exp() * SIGMA.double().expm1()[:, None, None]
    torch.testing.assert_close(probs.sum(-1).float(), torch.ones(3, 16))
    plain = tiny(scale_by_sigma=False)
    torch.testing.assert_close(probs.float(), plain(x, SIGMA)[..., :11].softmax(-1))
    at = tokens(2).bool()
    torch.testing.assert_close(model(x, SIGMA, at=at), model(x, SIGMA)[at])
    with torch.autocast("cpu", torch.bfloat16):
        assert model(x, SIGMA).dtype == torch.float32


@pytest.mark.parametrize("normalised", [True, False])
def test_without_time_conditioning_noise_only_scales(normalised):
    model, x = tiny(time_conditioning=False, normalised=normalised), tokens()
    change = model(x, SIGMA) - model(x, 2 * SIGMA)
    expected = model.output_layer.offset(2 * SIGMA) - model.output_layer.offset(SIGMA)
    at = torch.ones_like(change).scatter(-1, x[..., None], 0).bool()
    expected = expected[:, None, None].expand(change.shape)
    torch.testing.assert_close(change[at], expected[at], rtol=1e-5, atol=1e-5)
    timed = tiny(normalised=normalised)
    assert set(timed.state_dict()) == set(model.state_dict())
    assert (timed(x, SIGMA) - model(x, SIGMA)).abs().max() > 1e-3


@pytest.mark.parametrize("changes", [{}, {"normalised": True, "time_conditioning": False},
                                     {"absorbing": False}, {"scale_by_sigma": False}])  # fmt: skip
def test_config_is_rebuilt_from_what_it_says(changes):
    config = DiTConfig(**TINY | changes)
    said = config.to_config()
    assert DiTConfig.from_config(said) == config
    assert {"normalised", "time_conditioning"} & set(said) == (
        {"normalised", "time_conditioning"} & set(changes)
    )
    with pytest.raises(ValueError, match="unknown key 'n_layers'"):
        DiTConfig.from_config(said | {"n_layers": 3})
    del said["n_heads"]
    with pytest.raises(ValueError, match="lacks the key 'n_heads'"):
        DiTConfig.from_config(said)


def test_untrained_blocks_pass_their_input_through():
    block = Block(DiTConfig(**TINY)).eval()
    x, angle = torch.randn(2, 16, 32), torch.rand(16, 16)
    assert torch.equal(block(x, torch.randn(2, 128), angle.cos(), angle.sin()), x)


def test_rotary_scores_depend_on_distance_alone():
    rotary = tiny().double().rotary_emb
    cos, sin = rotary(16)
    q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64).expand(2, 1, 1, 16, 16)
    scores = (rotate(q, cos, sin) @ rotate(k, cos, sin).mT)[0, 0]  # (L, L)
    for distance in range(-15, 16):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert not torch.allclose(scores[0, 1:3], scores[0, 0])


def test_every_position_sees_every_other_and_the_noise():
    model, x = tiny(), tokens()
    first = model(x, SIGMA)[:, 0]
    changed = x.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 12
    assert ((model(changed, SIGMA)[:, 0] - first).abs().amax(1) > 1e-4).all()
    assert ((model(x, 2 * SIGMA)[:, 0] - first).abs().amax(1) > 1e-4).all()


def test_attention_in_bfloat16_is_that_of_float32():
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(2, 3, 17, 8, generator=generator).bfloat16().float() for _ in range(3)]
    grad = torch.randn(2, 3, 17, 8, generator=generator).bfloat16()
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [v.to(dtype).requires_grad_() for v in exact]
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = attention(*leaves)
        assert out.dtype == dtype
        results.append([out, *torch.autograd.grad(out, leaves, grad.to(dtype))])
    for wide, narrow in zip(*results, strict=True):  # bfloat16 rounds by up to 2⁻⁹ an operation
        assert (narrow.float() - wide).norm() < 0.01 * wide.norm()


def test_autocast_leaves_float32_where_it_matters():
    model, x, dtypes = tiny(), tokens(), {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, inputs, out, name=name: dtypes.update({name: getattr(out, "dtype", None)})
        )
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x, SIGMA)
    for name in ("sigma_map", "vocab_embed", "blocks.0", "blocks.1.norm1", "blocks.1.norm2",
                 "blocks.1.adaLN_modulation", "output_layer.norm_final", "output_layer",
                 "output_layer.adaLN_modulation"):  # fmt: skip
        assert dtypes[name] == torch.float32, name
    for name in ("blocks.0.attn_qkv", "blocks.0.attn_out", "blocks.0.mlp"):
        assert dtypes[name] == torch.bfloat16, name
    # What "scale by σ" subtracts keeps its digits: in bfloat16 11.9 has a step of 1/16.
    sigma = torch.full((3,), 1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        shift = model(x, sigma) - tiny(scale_by_sigma=False)(x, sigma)
    off_token = torch.ones_like(low, dtype=torch.bool).scatter(-1, x[..., None], False)
    torch.testing.assert_close(shift[off_token], -model.output_layer.offset(sigma[:1]).expand(
        off_token.sum()), rtol=0, atol=1e-5)  # fmt: skip
    assert (low - model(x, SIGMA)).abs().max() < 0.3


def test_dropout_in_training_only_and_checkpointing_changes_nothing():
    x0, graph = tokens(11), AbsorbingGraph(11)
    x = torch.where(tokens(2) == 0, graph.mask_id, x0)
    results = []
    for checkpointing in (False, True):
        model = tiny(dropout=0.5, checkpoint_activations=checkpointing)
        assert torch.equal(model(x, SIGMA), model(x, SIGMA))
        model.train()
        torch.manual_seed(2)
        loss = model(x, SIGMA, x0=x0, graph=graph).sum()
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        assert loss != model.eval()(x, SIGMA, x0=x0, graph=graph).sum()
    torch.testing.assert_close(*results)


def test_compiler_is_not_started_over_by_another_number_of_masked_tokens():
    torch._dynamo.reset()
    graphs = []
    model, graph = tiny(), AbsorbingGraph(11)

    def backend(module, inputs):
        graphs.append(module)
        return module

    compiled = torch.compile(model, backend=backend)
    x0 = tokens(11)
    for share in range(5):
        x = torch.where(tokens(4) < share, graph.mask_id, x0)
        loss = compiled(x, SIGMA, x0=x0, graph=graph)
        torch.testing.assert_close(loss, model(x, SIGMA, x0=x0, graph=graph))
        torch.testing.assert_close(compiled(x, SIGMA, at=x == 11), model(x, SIGMA, at=x == 11))
        if share == 0:
            first = len(graphs)
    assert len(graphs) == first
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30, "num_heads": 4}, "multiple of 2 \\* num_heads=8"),
        ({"num_blocks": 0}, "num_blocks must be a whole number, at least 1, got 0"),
        ({"num_tokens": 2.5}, "num_tokens must be a whole number, at least 1"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"absorbing": False, "scale_by_sigma": True}, "absorbing=True only"),
        ({"num_blocks": True}, "num_blocks must be a whole number, at least 1, got True"),
        ({"length": -3}, "length must be a whole number, at least 1, got -3"),
        ({"dropout": math.nan}, "dropout must be a number"),
        ({"dropout": "0.1"}, "dropout must be a number, finite, got '0.1'"),
        ({"scale_by_sigma": 1}, "scale_by_sigma must be True or False, got 1"),
        ({"time_conditioning": None}, "time_conditioning must be True or False, got None"),
        ({"normalised": True, "absorbing": False}, "a distribution over tokens is no ratio"),
        ({"normalised": True, "scale_by_sigma": False}, "leave scale_by_sigma None"),
    ],
)
def test_config_errors(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        DiTConfig(**{**TINY, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": tokens() + 1}, r"token ids must lie in \[0, 12\), got 1 to 12"),
        ({"x": tokens().int()}, "int64"),
        ({"x": tokens()[0]}, r"\(B, L\)"),
        ({"x": tokens(12, (3, 17))}, "L from 1 to 16"),
        ({"sigma": SIGMA[:, None]}, r"sigma must be \(B,\) = \(3,\)"),
        ({"sigma": torch.tensor([1.0, 0.0, 1.0])}, "positive, got 0"),
        ({"sigma": torch.tensor([1.0, math.nan, 1.0])}, "finite"),
        ({"at": tokens()}, "boolean"),
        ({"at": torch.ones(3, 4, dtype=torch.bool)}, "boolean"),
        ({"x0": tokens(11)}, "x0 and graph together"),
        ({"x0": tokens(11, (3, 4)), "graph": AbsorbingGraph(11)}, "shape of x"),
        ({"x0": tokens(11), "graph": UniformGraph(11)}, "has 11 states"),
        ({"x": [[0, 1]]}, "int64 tensor, got list"),
        ({"sigma": 1.0}, "sigma must be a tensor, one level a sequence, got 1.0"),
        ({"key": torch.zeros(4).long()}, r"key must be \(3,\) integers"),
        ({"key": torch.zeros(3)}, r"key must be \(3,\) integers, got torch.float32"),
    ],
)
def test_input_errors(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        tiny()(**{"x": tokens(), "sigma": SIGMA, **changes})


# ---- the machine ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["foo", "cuda", "cuda:7", "mps", "meta", "cpu:3", "", 3, None])
def test_devices_that_are_not_here(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"choose auto, cpu|there is no cpu:3") as raised:
        check_device(name)
    assert "\n" not in str(raised.value)


def test_devices_that_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [check_device(d) for d in ("auto", "cpu", torch.device("cpu"))] == ["cpu"] * 3
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [check_device(d) for d in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(ValueError, match="there is no cuda:7: cuda counts 2 here, from 0"):
        check_device("cuda:7")


def test_bfloat16_only_where_it_is_not_emulated(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: (
        including_emulation))  # fmt: skip
    assert choose_precision("auto", "cuda") == torch.float32
    assert choose_precision("bfloat16", "cuda") == torch.bfloat16  # as asked for
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision("auto", "cuda:0") == torch.bfloat16
    assert choose_precision("auto", "mps") == torch.float32
    for precision, device in (("float16", "cpu"), (None, "cpu"), ("float64", "mps")):
        with pytest.raises(ValueError, match="precision"):
            choose_precision(precision, device)
