"""Block diffusion: text drawn block by block, each block by diffusion given the clean ones before.

p(x) = Π_b p(x^b | x^{<b}) (Arriola et al. 2025, "BD3-LM"). Blocks of length 1 make an
autoregressive model, one block as long as the text is plain diffusion, and between them lies a
family. Clean blocks no longer change, so their keys and values are computed once and kept.

    config = settings.network(corpus.tokenizer.vocab_size)
    trainer = Trainer(settings, corpus, **in_blocks(config, 16))    # a BlockTransformer
    sample(trainer.average, graph, noise, (2, 1024), 16, "blocks")  # 16 steps a block, with a cache

**Training in one pass.** A noisy block needs the clean blocks before it, and all blocks are trained
at once: the network reads a noisy and a clean copy of the text, 2L tokens, under a mask of three
parts. Noisy tokens see their own noisy block (block-diagonal) and the clean blocks before it
(offset block-causal); clean tokens see the clean blocks up to their own (block-causal). A clean
token is read at σ̄ = 0 and sees no noise, so what it leaves behind is the same in every step.

In shape comments: B texts, L positions, l positions of a block, H heads, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.checks import graph_and_noise, whole_number
from sedd_mini.graphs import check_tokens
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig, check_input
from sedd_mini.samplers import (
    check_generator,
    check_rows,
    check_shape,
    check_times,
    evaluation_mode,
    find_device,
    sample,
)

# ---- the network ---------------------------------------------------------------------------------


@dataclass
class BlockConfig(DiTConfig):
    """Sizes of a BlockTransformer: those of the network, and `block_length`, which divides `length`
    (of training: a text that is drawn may be longer). Raises ValueError for what does not fit."""

    block_length: int = 16

    def __post_init__(self):
        super().__post_init__()
        self.block_length = whole_number("block_length", self.block_length, 1)
        if self.length % self.block_length:
            raise ValueError(f"block_length={self.block_length} does not divide length="
                             f"{self.length}: give one that does")  # fmt: skip

    def to_config(self) -> dict:
        return super().to_config() | {"block_length": self.block_length}

    @classmethod
    def from_config(cls, config: dict) -> "BlockConfig":
        if "block_length" not in config:
            raise ValueError("lacks the key 'block_length'")
        sizes = {name: value for name, value in config.items() if name != "block_length"}
        return cls(**vars(DiTConfig.from_config(sizes)), block_length=config["block_length"])


class BlockTransformer(DiffusionTransformer):
    """log s(x, σ̄) of every block of x, given the clean blocks before it.

    It has the parameters of a DiffusionTransformer, by the same names.
    """

    sampler = "blocks"  # the one in SAMPLERS that can draw from it
    reads_clean = True  # `clean`, and so `at_positions` of evaluation/bounds.py hands it x0
    any_length = True  # what it draws may be longer than config.length

    @classmethod
    def from_config(cls, config: dict) -> "BlockTransformer":
        return cls(BlockConfig.from_config(config))

    def forward(self, x: Tensor, sigma: Tensor, at=None, x0=None, graph=None, key=None,
                clean=None) -> Tensor:  # fmt: skip
        """Log-scores of noisy x (B, L) at σ̄ (B,), or, given x0 and graph, the score entropy.

        clean: (B, L) data tokens. Block b of x is read beside blocks < b of `clean`, by default of
        x0; its own block and later ones there change nothing. All else is as in
        `DiffusionTransformer.forward`, but L may exceed the config's length. Raises ValueError
        without clean tokens, and for what does not fit.
        """
        clean = x0 if clean is None else clean
        if clean is None:
            raise ValueError(
                "a BlockTransformer reads the clean blocks before each block, too: draw by the "
                "sampler 'blocks'; for a bound give loss=diffusion_weighted_in_head"
            )
        long_enough = replace(self.config, length=self.blocks_up_to(max(x.shape[-1], 1)))
        check_input(long_enough, x, sigma, at, x0, graph, key)
        if check_tokens(clean, self.config.num_tokens).shape != x.shape:
            raise ValueError(f"clean must have the shape of x, {tuple(x.shape)}; got "
                             f"{tuple(clean.shape)}")  # fmt: skip
        (num, length), keys = x.shape, None if key is None else torch.cat([key, ~key])
        both = torch.cat([x, clean])  # (2B, L): the copies lie beside each other, not end to end
        told = sigma if self.config.time_conditioning else torch.zeros_like(sigma)
        cond = self.condition(torch.cat([told, torch.zeros_like(told)]))  # (2B, C)
        mask = two_copies(length, self.config.block_length, x.device)
        hidden = self.through(
            self.vocab_embed(both), cond, *self.rotary_emb(length), self.dropout_keys(both, keys),
            partial(attention_of_copies, mask=mask),
        )  # (2B, L, D)
        return self.output_layer(hidden[:num], cond[:num], x, sigma, at, x0, graph)

    def condition(self, sigma: Tensor) -> Tensor:
        return F.silu(self.sigma_map(sigma))

    def blocks_up_to(self, length: int) -> int:
        """The least multiple of the block length that is no less than `length`."""
        return -(-length // self.config.block_length) * self.config.block_length

    def check_given(self, given: Tensor) -> None:
        """Raises ValueError where a token is given (…, L) bool, and one of an earlier block is not:
        that block is modelled without it."""
        L, l = given.shape[-1], self.config.block_length
        padded = F.pad(given.reshape(-1, L), (0, self.blocks_up_to(L) - L))
        some = padded.unflatten(-1, (-1, l)).any(-1)[:, 1:]  # (…, blocks − 1)
        whole = F.pad(given.reshape(-1, L), (0, self.blocks_up_to(L) - L), value=True)
        before = whole.unflatten(-1, (-1, l)).all(-1).cummin(-1).values[:, :-1]
        if (wrong := (some & ~before).any(0)).any():
            b = int(wrong.nonzero()[0]) + 1
            raise ValueError(
                f"a token of block {b} (positions {b * l} to {b * l + l - 1}) is given, but not "
                "all before that block, which do not see it: give a prompt, or gaps in the last "
                "block of the text alone"
            )


def in_blocks(config: DiTConfig, block_length: int, seed: int = 0) -> dict:
    """What a Trainer is handed to train block diffusion with the network of `config`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"model": BlockTransformer(BlockConfig(**vars(config), block_length=block_length))}


def two_copies(length: int, block_length: int, device=None) -> Tensor:
    """Which of 2L tokens (column) each of 2L tokens (row) sees: (2L, 2L) bool, noisy copy first.

        noisy → noisy  own block            noisy → clean  blocks before its own
        clean → noisy  nothing              clean → clean  blocks up to its own
    """
    block = torch.arange(length, device=device) // block_length
    row, column = block[:, None], block
    noisy = torch.cat([row == column, column < row], 1)  # (L, 2L)
    clean = torch.cat([torch.zeros_like(row == column), column <= row], 1)
    return torch.cat([noisy, clean])


def attention_of_copies(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """softmax(q kᵀ / √(D/H)) v where the mask of `two_copies` allows it; all (2B, H, L, D/H)."""
    length = q.shape[2]
    (q, q_clean), (k, k_clean), (v, v_clean) = (tensor.chunk(2) for tensor in (q, k, v))
    both = torch.cat([k, k_clean], 2), torch.cat([v, v_clean], 2)  # (B, H, 2L, D/H)
    noisy = F.scaled_dot_product_attention(q, *both, attn_mask=mask[:length])
    alone = mask[length:, length:]
    clean = F.scaled_dot_product_attention(q_clean, k_clean, v_clean, attn_mask=alone)
    return torch.cat([noisy, clean])


# ---- drawing -------------------------------------------------------------------------------------


class Prefix:
    """The clean blocks of B texts so far, with the keys and values that they leave in every layer.

    It is a model of the block that comes next, for the functions of samplers.py. cache: keep keys
    and values. Without, all clean tokens go through the network again at every call.
    """

    def __init__(self, model: BlockTransformer, num: int, length: int, device=None, cache=True):
        self.model, self.config, self.cache = model, model.config, cache
        length = model.blocks_up_to(length)
        self.positions = model.rotary_emb(length)  # cosines and sines, (length, D/H) each
        self.tokens = torch.empty(num, 0, dtype=torch.int64, device=device)  # (B, clean so far)
        config, like = model.config, model.vocab_embed.embedding
        size = num, config.num_heads, length, config.width // config.num_heads
        self.kept = [(like.new_empty(size), like.new_empty(size)) for _ in model.blocks]

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor, at: Tensor | None = None) -> Tensor:
        """Log-scores of the next block x (B, l) at σ̄ (B,): (B, l, num_states), or rows (M, ·)."""
        if not self.cache and self.tokens.shape[1]:
            self.read(self.tokens, 0)
        told = sigma if self.config.time_conditioning else torch.zeros_like(sigma)
        cond = self.model.condition(told)
        hidden = self.run(x, cond, self.tokens.shape[1], None)
        return self.model.output_layer(hidden, cond, x, sigma, at, None, None)

    @torch.no_grad()
    def append(self, x: Tensor) -> None:
        """The next blocks (B, whole blocks) are final."""
        start, self.tokens = self.tokens.shape[1], torch.cat([self.tokens, x], 1)
        if self.cache and x.shape[1]:
            self.read(x, start)

    def read(self, x: Tensor, start: int) -> None:
        """Clean blocks x (B, ·) from position `start` on: keeps their keys and values."""
        zero = x.new_zeros(len(x), dtype=self.positions[0].dtype)
        block = torch.arange(start + x.shape[1], device=x.device) // self.config.block_length
        self.run(x, self.model.condition(zero), start, block <= block[start:, None])

    def run(self, x: Tensor, cond: Tensor, start: int, mask: Tensor | None) -> Tensor:
        """Tokens x (B, n) from `start` on, that see all before them, and of each other those in the
        mask (n, start + n), None: all; hidden states (B, n, D)."""
        cos, sin = (table[start : start + x.shape[1]] for table in self.positions)
        hidden = self.model.vocab_embed(x)
        for block, kept in zip(self.model.blocks, self.kept, strict=True):
            attend = partial(attention_with_kept, kept=kept, start=start, mask=mask)
            hidden = block(hidden, cond, cos, sin, attend=attend)
        return hidden


def attention_with_kept(q: Tensor, k: Tensor, v: Tensor, kept, start: int, mask) -> Tensor:
    """Queries (B, H, n, D/H) see the kept keys before `start`, and k, which is written there."""
    (keys, values), end = kept, start + k.shape[2]
    keys[:, :, start:end], values[:, :, start:end] = k, v
    return F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], attn_mask=mask)


@torch.no_grad()
def sample_blocks(
    model: BlockTransformer, graph, noise, shape: tuple[int, int], steps: int | None = None,
    method: str | Callable = "tweedie", *, clamp: Tensor | None = None, start=None, times=None,
    denoise: bool = True, eps: float = 1e-5, generator=None, callback: Callable | None = None,
    device: torch.device | str | None = None, cache: bool = True,
) -> Tensor:  # fmt: skip
    """Tokens (B, L) int64, block after block, each by `sample` given those before it.

    Arguments are those of `sample`, with these differences. `steps` (or `times`) are those of each
    block, `method` is the step in a block; L may exceed the training length, and where L ends
    inside a block, that block is drawn whole and cut. clamp: a token may be given where all tokens
    of earlier blocks are (a prompt, say), as earlier blocks do not see later ones. The callback
    gets the blocks so far, (B, l), with l growing. cache: keep the keys and values of clean blocks;
    without, the same numbers come slower. Raises ValueError for a network that is no
    BlockTransformer, for `start`, and for what does not fit.
    """
    if not isinstance(model, BlockTransformer):
        raise ValueError(f"the sampler 'blocks' is for a BlockTransformer, got "
                         f"{type(model).__name__}: train one by in_blocks")  # fmt: skip
    if start is not None:
        raise ValueError("the sampler 'blocks' begins each block from noise: leave out start, and "
                         "give what is known by clamp")  # fmt: skip
    graph_and_noise(graph, noise, model)
    (num, length), l = check_shape(shape), model.config.block_length
    calls = len(check_times(times, steps, eps, denoise)) - (not denoise)
    generator = check_generator(generator, (num, length))
    device = find_device(model, generator, device)
    given = torch.full((num, model.blocks_up_to(length)), -1, device=device)
    if clamp is not None:
        given[:, :length] = check_rows("clamp", clamp, (num, length), device, -1, graph.num_tokens)
        model.check_given(given[:, :length] >= 0)
    known = (given >= 0).all(0).unflatten(0, (-1, l)).all(1)  # (blocks,)
    first = int(known.cummin(0).values.sum())  # blocks that a prompt fills
    x, told = given[:, : first * l], 0
    with evaluation_mode(model):
        prefix = Prefix(model, num, length, device, cache)
        prefix.append(x)
        for part in given[:, first * l :].split(l, dim=1):
            if x.shape[1] > prefix.tokens.shape[1]:
                prefix.append(x[:, -l:])

            def tell(k, t, block, x=x, told=told):
                if k or not told:  # a later block begins where the last one ended
                    callback(told + k, t, torch.cat([x, block], 1)[:, :length])

            block = sample(
                prefix, graph, noise, (num, l), steps, method, clamp=part, times=times,
                denoise=denoise, eps=eps, generator=generator, callback=callback and tell,
                device=device,
            )  # fmt: skip
            x, told = torch.cat([x, block], 1), told + calls
    return x[:, :length]


sample_blocks.is_sampler = True
