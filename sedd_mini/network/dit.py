"""The diffusion transformer: tokens and a noise level in, one log-score per state out.

The network of Lou et al. 2023 (after DiT, Peebles and Xie 2023): a transformer encoder with rotary
positions, in which the noise level shifts, scales and gates every layer ("adaLN-zero"). Parameters
carry the names of the released checkpoints, so that these load without a translation.

In shape comments: B sequences, L positions, D width, H heads, C = cond_dim, M selected positions.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sedd_mini.checks import real_number, whole_number
from sedd_mini.graphs import check_sigma, check_tokens, only_masks_move
from sedd_mini.network import head
from sedd_mini.network.attention import RotaryEmbedding, attention, no_autocast, rotate
from sedd_mini.network.dropout import dropout, layer_keys

RELEASED = {  # names in config.json → names here
    "hidden_size": "width", "cond_dim": "cond_dim", "length": "length", "n_blocks": "num_blocks",
    "n_heads": "num_heads", "scale_by_sigma": "scale_by_sigma", "dropout": "dropout",
}  # fmt: skip
OPTIONS = {"normalised": False, "time_conditioning": True}  # not in the released networks


@dataclass
class DiTConfig:
    """Sizes of the network; the defaults are SEDD small with GPT-2's vocabulary (169.6 M weights).

    Medium is width=1024, num_blocks=24, num_heads=16. `normalised`: the head gives a distribution
    π over the data tokens at each masked position, and the log-score is log π − log(e^σ̄ − 1), the
    form that the exact ratios have. Absorbing only: on the uniform graph a distribution over x0 is
    no ratio; `baselines.score_of_mean` makes one of it. Without `time_conditioning` the network is
    told σ̄ = 0 always, and σ̄ only scales its output. Raises ValueError or TypeError for what does
    not fit.
    """

    num_tokens: int = 50257
    absorbing: bool = True  # one more state, MASK, at the input and at the output
    length: int = 1024  # the longest sequence
    width: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    cond_dim: int = 128
    dropout: float = 0.1
    scale_by_sigma: bool | None = None  # None: yes if absorbing; a uniform graph has no such scale
    normalised: bool = False  # log-softmax over the data tokens
    time_conditioning: bool = True
    checkpoint_activations: bool = False  # recompute each block in backward: less memory, +1/3 time

    def __post_init__(self):
        if self.scale_by_sigma is None:
            self.scale_by_sigma = self.absorbing
        for name in ("num_tokens", "length", "width", "num_blocks", "num_heads", "cond_dim"):
            setattr(self, name, whole_number(name, getattr(self, name), 1))
        for name in ("absorbing", "scale_by_sigma", "checkpoint_activations", *OPTIONS):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.width % (2 * self.num_heads):
            raise ValueError(f"width={self.width} must be a multiple of 2 * num_heads="
                             f"{2 * self.num_heads}: heads take equal parts, and rotary positions "
                             "turn pairs of dimensions")  # fmt: skip
        if not 0 <= real_number("dropout", self.dropout) < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.scale_by_sigma and not self.absorbing:
            raise ValueError("scale_by_sigma=True is for absorbing=True only: leave it None")
        if self.normalised and not self.absorbing:
            raise ValueError("normalised=True is for absorbing=True only: on the uniform graph a "
                             "distribution over tokens is no ratio")  # fmt: skip
        if self.normalised and not self.scale_by_sigma:
            raise ValueError("normalised=True includes the scale: leave scale_by_sigma None")

    @property
    def num_states(self) -> int:
        return self.num_tokens + self.absorbing

    def to_config(self) -> dict:
        """All that decides the function, in the names of the released config.json."""
        config = {"num_tokens": self.num_tokens, "absorbing": self.absorbing}
        config |= {name: getattr(self, own) for name, own in RELEASED.items()}
        options = {name: getattr(self, name) for name in OPTIONS}
        return config | {name: v for name, v in options.items() if v != OPTIONS[name]}

    @classmethod
    def from_config(cls, config: dict) -> "DiTConfig":
        """From what `to_config` gave; raises ValueError for a key that is unknown or missing."""
        wanted = {"num_tokens", "absorbing", *RELEASED}
        if unknown := sorted(config.keys() - wanted - OPTIONS.keys()):
            raise ValueError(f"unknown key {unknown[0]!r}")
        if missing := sorted(wanted - config.keys()):
            raise ValueError(f"lacks the key {missing[0]!r}")
        return cls(**{RELEASED.get(name, name): value for name, value in config.items()})


class DiffusionTransformer(nn.Module):
    """log s(x, σ̄): for every position and state y, the log of p_t(x with y there) / p_t(x)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.vocab_embed = VocabEmbedding(config.num_states, config.width)
        self.sigma_map = SigmaEmbedding(config.cond_dim)
        self.rotary_emb = RotaryEmbedding(config.width // config.num_heads)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.output_layer = OutputLayer(config)

    @classmethod
    def from_config(cls, config: dict) -> "DiffusionTransformer":
        """A new network, from what `model.config.to_config()` gave."""
        return cls(DiTConfig.from_config(config))

    def forward(self, x: Tensor, sigma: Tensor, at=None, x0=None, graph=None, key=None) -> Tensor:
        """Log-scores of x at total noise σ̄, or, given x0 and graph, the score entropy itself.

        x is (B, L) int64, sigma (B,) > 0. Returns float32 (also under autocast; float64 if the
        weights are), one of

        - model(x, sigma): log-scores (B, L, num_states), 0 at the current token;
        - model(x, sigma, at=mask): those of the M positions where the boolean (B, L) mask is True,
          (M, num_states) in the order of x[mask]; the head runs on these alone;
        - model(x, sigma, x0=x0, graph=graph): the graph's score entropy at every position, (B, L),
          value and gradient, without the (B, L, num_states) tensor (see head.py). Absorbing: the
          head runs on masked positions alone, as the others count 0.

        In training, `key`, (B,) integers, decides the masks of dropout sample by sample; None: they
        are drawn. Raises ValueError or TypeError for input of another shape, type or range (what
        only the data tell, token ids and the sign of sigma, is looked at on the CPU alone: a GPU
        would wait).
        """
        check_input(self.config, x, sigma, at, x0, graph, key)
        told = sigma if self.config.time_conditioning else torch.zeros_like(sigma)
        cond = F.silu(self.sigma_map(told))  # (B, C)
        hidden = self.vocab_embed(x)  # (B, L, D)
        cos, sin = self.rotary_emb(x.shape[1])  # (L, D/H) each
        hidden = self.through(hidden, cond, cos, sin, self.dropout_keys(x, key))
        return self.output_layer(hidden, cond, x, sigma, at, x0, graph)

    def through(self, hidden: Tensor, cond: Tensor, cos, sin, keys, attend=attention) -> Tensor:
        for i, block in enumerate(self.blocks):
            inputs = hidden, cond, cos, sin, *keys[2 * i : 2 * i + 2], attend
            if self.config.checkpoint_activations and self.training:
                hidden = checkpoint(block, *inputs, use_reentrant=False)
            else:
                hidden = block(*inputs)
        return hidden

    def dropout_keys(self, x: Tensor, key: Tensor | None) -> list:
        """A key for each of the two dropouts of every block, (B,) each; None where there is none.

        They decide the masks: the same ones in whatever batch, on whatever device the sample is.
        """
        num = 2 * self.config.num_blocks
        if not (self.training and self.config.dropout):
            return [None] * num
        if key is None:
            key = torch.randint(2**62, x.shape[:1], device=x.device)
        return list(layer_keys(key, num))


class VocabEmbedding(nn.Module):
    def __init__(self, num_states: int, width: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(num_states, width))
        nn.init.kaiming_uniform_(self.embedding, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.embedding)


class SigmaEmbedding(nn.Module):
    """σ̄ → 256 cosines and sines, of wavelengths 2π to 2π · 10 000 → (B, cond_dim), in float32."""

    def __init__(self, cond_dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, cond_dim), nn.SiLU(), nn.Linear(cond_dim, cond_dim))

    def forward(self, sigma: Tensor) -> Tensor:
        steps = torch.arange(128, device=sigma.device, dtype=sigma.dtype) / 128
        angles = sigma[:, None] * torch.exp(-math.log(10_000) * steps)  # (B, 128)
        features = torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, 256)
        with no_autocast(sigma):
            return self.mlp(features.to(self.mlp[0].weight.dtype))  # (B, C)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale) + shift


class Block(nn.Module):
    """Attention over all positions, then an MLP; σ̄ shifts and scales what goes into either, and
    gates what comes out. The gates start at 0: an untrained network passes its embeddings through.
    """

    def __init__(self, config: DiTConfig):
        super().__init__()
        width, self.num_heads = config.width, config.num_heads
        self.norm1 = nn.LayerNorm(width, bias=False)  # float32, as the residual stream x is
        self.norm2 = nn.LayerNorm(width, bias=False)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.dropout = config.dropout
        self.adaLN_modulation = zero_linear(config.cond_dim, 6 * width)

    def forward(self, x, cond, cos, sin, key1=None, key2=None, attend=attention) -> Tensor:
        with no_autocast(x):
            modulation = self.adaLN_modulation(cond)[:, None]  # (B, 1, 6 D)
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, dim=-1)  # (B, 1, D)

        h = modulate(self.norm1(x), shift1, scale1)  # (B, L, D)
        qkv = self.attn_qkv(h).unflatten(-1, (3, self.num_heads, -1))  # (B, L, 3, H, D/H)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, D/H) each
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        h = attend(q, k, v)  # (B, H, L, D/H)
        h = self.attn_out(h.transpose(1, 2).flatten(2))  # (B, L, D)
        h = h if key1 is None else dropout(h, self.dropout, key1)
        x = x + gate1 * h

        h = self.mlp(modulate(self.norm2(x), shift2, scale2))  # (B, L, D)
        h = h if key2 is None else dropout(h, self.dropout, key2)
        return x + gate2 * h


class OutputLayer(nn.Module):
    """Hidden states → log-scores, at all positions or some; or → score entropy, in chunks."""

    score_entropy = staticmethod(head.score_entropy_at)  # training/compiled.py puts a faster one
    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.norm_final = nn.LayerNorm(config.width, bias=False)
        self.linear = zero_linear(config.width, config.num_states)
        self.adaLN_modulation = zero_linear(config.cond_dim, 2 * config.width)

    def forward(self, hidden: Tensor, cond: Tensor, x: Tensor, sigma: Tensor, at, x0, graph):
        with no_autocast(hidden):
            modulation = self.adaLN_modulation(cond)[:, None]  # (B, 1, 2 D)
        hidden = modulate(self.norm_final(hidden), *modulation.chunk(2, dim=-1))  # (B, L, D)
        sigma, normalised = sigma[:, None].expand(x.shape), self.config.normalised  # (B, L)
        offset, linear = self.offset(sigma), self.linear
        if x0 is not None:
            hidden_only = only_masks_move(graph)
            at = x == graph.mask_id if hidden_only else torch.ones_like(x, dtype=torch.bool)
            rest = x, offset, sigma, x0, graph
            if not self.is_plain() or (normalised and not hidden_only):
                return head.score_entropy_of(linear, at, hidden, *rest, normalised)
            row = hidden, linear.weight, linear.bias
            return self.score_entropy(at, *row, *rest, normalised=normalised)
        if not self.is_plain():
            if at is not None:
                hidden, x, offset = head.select(at, hidden, x, offset)
            return head.from_logits(linear(hidden).clone(), x, offset, normalised)
        row = hidden, linear.weight, linear.bias, x, offset, normalised
        return head.log_scores(*row) if at is None else head.log_scores_at(at, *row)

    def is_plain(self) -> bool:
        """Whether `linear` is a matrix and a bias and nothing else: what head.py takes apart.

        Anything else put in its place (a soft-cap, a low-rank change, a hook) is called as it is.
        """
        linear = self.linear
        hooks = (linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks,
                 linear._backward_pre_hooks)  # fmt: skip
        as_made = type(linear) is nn.Linear and "forward" not in linear.__dict__
        return as_made and linear.bias is not None and not any(map(len, hooks))

    def offset(self, sigma: Tensor) -> Tensor:
        """What "scale by σ" subtracts from every log-score, shape of sigma: log(e^σ̄ − 1) + log N.

        An absorbing ratio is p(token | rest) / (e^σ̄ − 1). So the network itself has to give the log
        of N p(token | rest) only, which does not depend on σ̄, and is 0 for a uniform guess. A
        normalised head gives log p(token | rest), and no N is taken off.
        """
        if not self.config.scale_by_sigma:
            return torch.zeros_like(sigma)
        scale = sigma + torch.log(-torch.expm1(-sigma))
        return scale if self.config.normalised else scale + math.log(self.config.num_tokens)


def zero_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def check_input(config: DiTConfig, x: Tensor, sigma: Tensor, at, x0, graph, key=None) -> None:
    """Raises for anything that `DiffusionTransformer.forward` cannot take."""
    check_tokens(x, config.num_states)
    if not isinstance(sigma, Tensor):
        raise TypeError(f"sigma must be a tensor, one level a sequence, got {sigma!r}")
    check_sigma(sigma, positive=True)
    shape, most = tuple(x.shape), config.length
    if x.ndim != 2 or not 1 <= x.shape[1] <= most:
        raise ValueError(f"x must be (B, L), L from 1 to {most}, the config's length; got {shape}")
    if sigma.shape != x.shape[:1]:
        raise ValueError(f"sigma must be (B,) = {shape[:1]}, got {tuple(sigma.shape)}")
    if at is not None and (at.shape != x.shape or at.dtype != torch.bool):
        raise ValueError(f"at must be a boolean {shape}, as x; got {at.dtype} {tuple(at.shape)}")
    if key is not None and (key.shape != x.shape[:1] or key.is_floating_point()):
        raise ValueError(f"key must be {shape[:1]} integers, got {key.dtype} {tuple(key.shape)}")
    if (x0 is None) != (graph is None) or (x0 is not None and at is not None):
        raise ValueError("for the loss pass x0 and graph together, and no `at`")
    if x0 is not None and x0.shape != x.shape:
        raise ValueError(f"x0 must have the shape of x, {shape}; got {tuple(x0.shape)}")
    if graph is not None and graph.num_states != config.num_states:
        raise ValueError(f"{graph} has {graph.num_states} states, {config} {config.num_states}")
