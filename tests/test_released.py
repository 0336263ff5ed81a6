"""The authors' weights: folders in the form of louaaron/sedd-small, loaded and compared with a
second network, written here from the description of the paper, in NumPy, with a loop over heads.

It shares no code with sedd_mini: names, layout and arithmetic are stated twice. The sizes are small
and the weights random; those of the releases differ in nothing else.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from sedd_mini.commands.sample import main
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.samplers import sample

TOKENS, LENGTH, WIDTH, COND, BLOCKS, HEADS = 13, 10, 24, 8, 2, 3
CASES = {
    "absorb, scaled": ("absorb", True),
    "absorb, plain": ("absorb", False),
    "uniform": ("uniform", False),
}


def released_config(graph: str, scaled: bool) -> dict:
    """config.json as a training script writes it: more than a network needs."""
    return {
        "ngpus": 8,
        "tokens": TOKENS,
        "training": {"batch_size": 512, "accum": 1, "ema": 0.9999},
        "data": {"train": "openwebtext", "valid": "wikitext103"},
        "graph": {"type": graph, "file": "data", "report_all": False},
        "noise": {
            "type": "loglinear" if graph == "absorb" else "geometric",
            "sigma_min": 1e-4,
            "sigma_max": 20,
        },
        "model": {
            "name": "small", "type": "ddit", "hidden_size": WIDTH, "cond_dim": COND,
            "length": LENGTH, "n_blocks": BLOCKS, "n_heads": HEADS, "scale_by_sigma": scaled,
            "dropout": 0.1,
        },
    }  # fmt: skip


def released_weights(graph: str, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    states = TOKENS + (graph == "absorb")
    shapes = {
        "vocab_embed.embedding": (states, WIDTH),
        "sigma_map.mlp.0.weight": (COND, 256),
        "sigma_map.mlp.0.bias": (COND,),
        "sigma_map.mlp.2.weight": (COND, COND),
        "sigma_map.mlp.2.bias": (COND,),
        "output_layer.norm_final.weight": (WIDTH,),
        "output_layer.linear.weight": (states, WIDTH),
        "output_layer.linear.bias": (states,),
        "output_layer.adaLN_modulation.weight": (2 * WIDTH, COND),
        "output_layer.adaLN_modulation.bias": (2 * WIDTH,),
    }
    for i in range(BLOCKS):
        shapes |= {
            f"blocks.{i}.norm1.weight": (WIDTH,),
            f"blocks.{i}.norm2.weight": (WIDTH,),
            f"blocks.{i}.attn_qkv.weight": (3 * WIDTH, WIDTH),
            f"blocks.{i}.attn_out.weight": (WIDTH, WIDTH),
            f"blocks.{i}.mlp.0.weight": (4 * WIDTH, WIDTH),
            f"blocks.{i}.mlp.0.bias": (4 * WIDTH,),
            f"blocks.{i}.mlp.2.weight": (WIDTH, 4 * WIDTH),
            f"blocks.{i}.mlp.2.bias": (WIDTH,),
            f"blocks.{i}.adaLN_modulation.weight": (6 * WIDTH, COND),
            f"blocks.{i}.adaLN_modulation.bias": (6 * WIDTH,),
        }
    weights = {k: rng.normal(0, 0.4, shape).astype(np.float32) for k, shape in shapes.items()}
    half = np.arange(0, WIDTH // HEADS, 2) / (WIDTH // HEADS)
    return weights | {"rotary_emb.inv_freq": (10_000.0**-half).astype(np.float32)}


def released_folder(folder, graph: str, scaled: bool):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(released_config(graph, scaled)))
    save_file(released_weights(graph), folder / "model.safetensors")
    return folder


# ---- the second network: one sequence at a time, float64 -----------------------------------------


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def norm(x, weight):
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * weight


def turn(x, inverse_frequencies):
    """(L, d): the pair (i, i + d/2) of position m turns by m times the i-th frequency."""
    out = np.empty_like(x)
    half = x.shape[1] // 2
    for m in range(len(x)):
        for i in range(half):
            angle = m * inverse_frequencies[i]
            a, b = x[m, i], x[m, i + half]
            out[m, i] = a * np.cos(angle) - b * np.sin(angle)
            out[m, i + half] = b * np.cos(angle) + a * np.sin(angle)
    return out


def plain_network(w: dict, tokens: np.ndarray, sigma: float, scaled: bool) -> np.ndarray:
    """Log-scores (L, states) of one sequence (L,)."""
    w = {k: v.astype(np.float64) for k, v in w.items()}
    angles = [sigma * 10_000 ** (-i / 128) for i in range(128)]
    features = np.array([np.cos(a) for a in angles] + [np.sin(a) for a in angles])
    cond = silu(w["sigma_map.mlp.0.weight"] @ features + w["sigma_map.mlp.0.bias"])
    cond = silu(w["sigma_map.mlp.2.weight"] @ cond + w["sigma_map.mlp.2.bias"])
    h = w["vocab_embed.embedding"][tokens]
    d = WIDTH // HEADS
    for b in range(BLOCKS):
        p = {k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"blocks.{b}.")}
        six = p["adaLN_modulation.weight"] @ cond + p["adaLN_modulation.bias"]
        shift1, scale1, gate1, shift2, scale2, gate2 = six.reshape(6, WIDTH)
        into = norm(h, p["norm1.weight"]) * (1 + scale1) + shift1
        heads = []
        for n in range(HEADS):
            first = [part * WIDTH + n * d for part in range(3)]  # rows of q, of k, of v
            q, k, v = (into @ p["attn_qkv.weight"][r : r + d].T for r in first)
            q, k = turn(q, w["rotary_emb.inv_freq"]), turn(k, w["rotary_emb.inv_freq"])
            weights = np.exp(q @ k.T / np.sqrt(d))
            heads.append(weights / weights.sum(1, keepdims=True) @ v)
        h = h + gate1 * (np.concatenate(heads, axis=1) @ p["attn_out.weight"].T)
        into = norm(h, p["norm2.weight"]) * (1 + scale2) + shift2
        inner = gelu(into @ p["mlp.0.weight"].T + p["mlp.0.bias"])
        h = h + gate2 * (inner @ p["mlp.2.weight"].T + p["mlp.2.bias"])
    two = w["output_layer.adaLN_modulation.weight"] @ cond + w["output_layer.adaLN_modulation.bias"]
    h = norm(h, w["output_layer.norm_final.weight"]) * (1 + two[WIDTH:]) + two[:WIDTH]
    out = h @ w["output_layer.linear.weight"].T + w["output_layer.linear.bias"]
    if scaled:
        out = out - np.log(np.exp(sigma) - 1) - np.log(TOKENS)
    for position, token in enumerate(tokens):
        out[position, token] = 0
    return out


# ---- what is compared ----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 7, LENGTH])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_second_network(tmp_path, case, length):
    kind, scaled = CASES[case]
    model, graph, _ = load_pretrained(released_folder(tmp_path / "net", kind, scaled))
    weights, rng = released_weights(kind), np.random.default_rng(1)
    tokens = rng.integers(0, graph.num_states, (4, length))
    sigma = np.array([1e-3, 0.3, 2.0, 6.5])
    expected = np.stack([
        plain_network(weights, row, s, scaled) for row, s in zip(tokens, sigma, strict=True)
    ])  # fmt: skip
    assert np.abs(expected).max() > 1
    x, s = torch.from_numpy(tokens), torch.from_numpy(sigma)
    with torch.no_grad():
        single = model(x, s.float()).numpy()
        double = model.double()(x, s).numpy()
    np.testing.assert_allclose(double, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_what_is_loaded_samples_infills_and_evaluates(tmp_path, case):
    model, graph, noise = load_pretrained(released_folder(tmp_path / "net", *CASES[case]))
    assert not model.training
    generator = torch.Generator().manual_seed(0)
    x = sample(model, graph, noise, (3, LENGTH), 8, generator=generator)
    assert ((x >= 0) & (x < TOKENS)).all()
    given = torch.full((3, LENGTH), -1)
    given[:, [0, 4]] = torch.tensor([2, 5])
    x = sample(model, graph, noise, (3, LENGTH), 8, clamp=given, generator=generator)
    assert (x[:, [0, 4]] == torch.tensor([2, 5])).all()
    bound = likelihood_bound(model, graph, noise, x, repeats=4, generator=generator)
    assert np.isfinite(bound.nats)
    assert bound.nats > 0


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("noise", {"type": "cosine"}, "unknown noise 'cosine', expected 'loglinear' or"),
        ("graph", {"type": "roulette"}, "unknown graph 'roulette'"),
        ("graph", None, "graph must be a JSON object, got None"),
        ("tokens", "13", "num_tokens must be a whole number, at least 1, got '13'"),
        ("model", {"hidden_size": "24"}, "width must be a whole number, at least 1, got '24'"),
        ("model", {"dropout": None}, "dropout must be a number, finite, got None"),
    ],
)
def test_what_is_read_of_a_released_folder_is_checked(tmp_path, section, change, message):
    """Another file's cosine need not be ours; all that is not read is passed over, as above."""
    folder = released_folder(tmp_path / "net", "absorb", True)
    config = released_config("absorb", True)
    config[section] = config[section] | change if isinstance(change, dict) else change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message) as raised:
        load_pretrained(folder)
    assert str(folder / "config.json") in str(raised.value)


def test_sampling_without_a_tokeniser_says_how_to_give_one(tmp_path):
    folder = released_folder(tmp_path / "net", "absorb", True)
    with pytest.raises(SystemExit, match=r"no tokeniser in .*net.* --tokenizer gpt2"):
        main(["--checkpoint", str(folder)])


def test_a_hub_name_is_found_in_the_cache(tmp_path, monkeypatch):
    """Laid out as a download leaves it: refs/main names the snapshot."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached, commit = tmp_path / "models--louaaron--sedd-small", "0" * 40
    released_folder(cached / "snapshots" / commit, "absorb", True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    model, graph, noise = load_pretrained("louaaron/sedd-small")
    assert (graph.num_states, noise.eps, model.config.width) == (TOKENS + 1, 1e-3, WIDTH)
    weight = released_weights("absorb")["blocks.1.attn_out.weight"]
    assert np.array_equal(model.blocks[1].attn_out.weight.detach().numpy(), weight)
