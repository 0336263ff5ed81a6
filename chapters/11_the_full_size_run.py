# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11. The full-size run: what does it take to train the real network?
#
# Everything so far was small enough to wait for. The network of the paper is not: 170 million
# parameters, a vocabulary of 50 257 tokens, texts of 1024 tokens, 1.3 million steps of 512 texts
# each. The code, however, is the one you know. No line of the loop changes between chapter 07 and
# a room full of GPUs. What changes is that every careless choice now has a price, so this chapter
# is about knowing what things cost: before the run, while it runs, and when it goes wrong.
#
# After this chapter you will be able to
#
# - count the parameters, the arithmetic, the memory, the hours and the money of a run before you
#   start it, and check the counts against a real step;
# - say what each acceleration buys on your machine, because you have measured it, and start the
#   same run on one GPU, on eight, or on several machines;
# - read a loss curve: what it should begin with, where it pauses, and what trouble looks like.
#
# *You need* chapters 06 and 07. About 5 GB of free memory. *Running time:* a minute or two on two
# CPU cores, without a GPU.
#
# ## A picture first
#
# This is the log of a real run of the full-size network, on one CPU core. The text was 17 books
# from Project Gutenberg, 7.4 MB, in the tokens of GPT-2. Two commands made it:
#
#     python -m sedd_mini prepare --data FOLDER_OF_BOOKS --tokenizer gpt2 --out runs/gutenberg
#     python -m sedd_mini train --preset small --data runs/gutenberg --steps 300 --batch-size 4 \
#         --length 128 --warmup 20 --log-every 2 --valid-every 150 --valid-blocks 16 \
#         --sample-every 0 --save-every 150 --out runs/small-gutenberg
#
# The first one turns text into a folder of token files ("shards"). The second is the training of
# chapter 07, with `--preset small` for the paper's sizes, and a batch that a single core can bear.
# It writes a line of JSON every two steps.

# %%
import gc
import json
import math
from pathlib import Path

import torch
from torch.testing import assert_close
from sedd_mini import plots

plots.use_style()
lines = Path("logs/small-gutenberg.jsonl").read_text().splitlines()
log = [json.loads(line) for line in lines]
losses = [(record["step"], record["loss"]) for record in log if "loss" in record]
checks = [record for record in log if "valid" in record]

# %%
fig, ax = plots.plt.subplots()
steps, values = zip(*losses, strict=True)
ax.plot(steps, values, ".", color=plots.GREY, ms=4, label="mean of two steps")
smooth = torch.tensor(values).unfold(0, 15, 1).mean(-1)
ax.plot(steps[7 : 7 + len(smooth)], smooth, color=plots.BLUE, label="mean of 15 dots")
for i, record in enumerate(checks):
    ax.errorbar(record["step"], record["valid"], 2 * record["valid_error"], fmt="o", capsize=3,
                color=plots.GREEN, label=None if i else "validation bound, ± 2 errors")  # fmt: skip
ax.axhline(math.log(50_257), color=plots.ORANGE, ls="--")
ax.text(60, math.log(50_257) + 0.25, "guessing: ln 50257", color=plots.ORANGE)
ax.set(xlabel="step", ylabel="loss (nats a token)", ylim=(None, 12.5))
ax.set_title("Three nats a token in 300 steps of the full-size network")
ax.legend(loc="upper right", bbox_to_anchor=(1, 0.8));  # fmt: skip
# %%
assert steps[-1] >= 200
assert abs(sum(values[:5]) / 5 - math.log(50_257)) < 0.5
assert math.log(50_257) - sum(values[-15:]) / 15 > 3

# %% [markdown]
# *What to see.* The curve starts at the dashed line, the price of a uniform guess among 50 257
# tokens, and falls by more than three nats a token. At first it learns which tokens occur at all.
# (The green points lie lower than the curve, because they come from a few blocks that happen to be
# easier, and because dropout is off in them.) So the code works at full size. Now for the sobering part: how much of the published run is
# this, and how long would this core need for the rest?

# %% tags=["nbval-check-output"]
tokens = max(record.get("tokens", 0) for record in log)
published_tokens = 1_300_000 * 512 * 1024
speed = next(record["report"]["tokens_per_s"] for record in log if "report" in record)
print(f"tokens seen:       {tokens:,}")
print(f"published:         {published_tokens:,}")
print(f"that is one in     {published_tokens / tokens:,.0f}")
print(f"all of it here:    {published_tokens / speed / 3600 / 24 / 365:,.0f} years")

# %% [markdown]
# Centuries. (The core had other work to do as well, but that changes no century into a month.) A
# large GPU is thousands of times as fast as one core, and with eight of them it is a matter of
# days. Hence the questions of this chapter.
#
# **Settings.** The cells below make three steps of the full-size network on a CPU. If PyTorch
# sees a GPU, they make 300 steps on longer texts, in the very same code. Raise `STEPS` to train
# for as long as you like. No GPU was at hand when this edition was made, so no speed of a GPU is
# shown in it: where numbers for GPUs appear, they are *planned*, and said to be.

# %%
device = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, BATCH, LENGTH = (300, 8, 1024) if device == "cuda" else (3, 2, 64)

# %% [markdown]
# ## 1. The network, counted
#
# The defaults of `DiTConfig` are the paper's small network. On the device called `meta`, PyTorch
# makes tensors that have a shape and no content. A network of any size fits there, and can be
# counted.

# %% tags=["nbval-check-output"]
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig

config = DiTConfig()
with torch.device("meta"):
    meta_network = DiffusionTransformer(config)
counts = dict.fromkeys(("embedding", "blocks", "noise level", "head"), 0)
for name, weight in meta_network.named_parameters():
    noisy = "adaLN" in name or "sigma_map" in name
    part = "blocks" if name.startswith("blocks") else "head"
    part = "embedding" if name.startswith("vocab_embed") else part
    counts["noise level" if noisy else part] += weight.numel()
for part, count in counts.items():
    print(f"{part:12} {count:12,}  {count / sum(counts.values()):4.0%}")
print(f"{'together':12} {sum(counts.values()):12,}")

# %% [markdown]
# The two tables of the vocabulary, embedding and head, are together nearly as large as the twelve
# blocks. The module `planner` holds such counts as formulas of the sizes: `parameters`, `forward_flops`,
# `training_flops` and `memory`. It needs no network, not even one on `meta`.

# %%
from sedd_mini.training import planner

assert planner.parameters(config) == sum(counts.values())

# %% [markdown]
# **The first number of the log.** Chapter 07 derived what an untrained network pays, with
# log-linear absorbing noise: $(1 - e^{-\bar\sigma(1)})\, L \ln N$ nats a sequence. At full size:

# %% tags=["nbval-check-output"]
from sedd_mini import LogLinearNoise

share = -torch.expm1(-LogLinearNoise().total(torch.tensor(1.0, dtype=torch.float64)))
print(f"share of the text that is MASK at t = 1: {share:.3f}")
print(f"first loss: {share * 1024 * math.log(50_257):,.0f} nats a sequence, "
      f"or {share * math.log(50_257):.2f} nats a token")  # fmt: skip

# %% [markdown]
# Learn that number, 11 074. Some programs log nats a sequence and others nats a token, as ours
# does. Whoever compares two runs without asking is wrong by a factor of 1024. If the first loss
# is neither of the two, stop: no amount of training repairs a wrong weight in the loss.
#
# ## 2. Three real steps
#
# Now with content. The network takes 0.7 GB, and training holds that five times: weights,
# gradients, Adam's two running means, averaged weights. Text: Python's documentation, in the word
# pieces of chapter 07. Those are far fewer than GPT-2's 50 257, and GPT-2's own list may not be
# on your disk. So `padded` adds unused tokens to the list until there are as many: the network
# keeps its full size, and every number below is what it would be with the real list, except what
# the text itself decides.

# %%
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.offline import padded
from sedd_mini.text.tokenizers import load_tokenizer

pieces = load_tokenizer("checkpoints/docs-absorb")
corpus = load_corpus("docs", LENGTH, tokenizer=padded(pieces, 50_257))
assert corpus.tokenizer.vocab_size == 50_257 and pieces.vocab_size < 10_000

# %% [markdown]
# The settings are the preset of the real run, with a few changes. `valid_blocks` and
# `valid_repeats` keep the validation at the end short. Without a folder (`out=`) nothing is
# written.

# %%
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

settings = preset("small", length=LENGTH, batch_size=BATCH, steps=STEPS, warmup=20,
                  valid_blocks=2, valid_repeats=2, device=device)  # fmt: skip
trainer = Trainer(settings, corpus)
size = sum(weight.numel() for weight in trainer.model.parameters())
assert size == planner.parameters(config)
print(f"{size:,} parameters on {trainer.device}, products in {trainer.dtype}")

# %% [markdown]
# Before a step: is the first loss right? The average over many batches is the 10.81 from above. One
# batch of two texts scatters around it, but what *this* batch has to cost can be computed: each ■
# costs $\sigma(t)\, r \ln N$ with $r = 1/(e^{\bar\sigma} - 1)$, and every other position nothing.

# %%
batch = trainer.draw_batch()
x0, x, t, *_ = batch  # (B, L), (B, L), (B,)
with torch.no_grad():
    loss = trainer.mean_loss(*(v.to(trainer.device) for v in batch)).item()
cost = trainer.noise.rate(t) / torch.expm1(trainer.noise.total(t)) * math.log(50_257)  # (B,)
by_hand = (cost[:, None] * (x == trainer.graph.mask_id)).mean().item()
assert math.isclose(loss, by_hand, rel_tol=1e-3)
average = (share * math.log(50_257)).item()
print(f"this batch {loss:.4f}, by hand {by_hand:.4f}, average batch {average:.4f}")

# %% [markdown]
# Right to the rounding, through twelve blocks and a head of 50 258 rows. Now the steps. `run` does
# them, validates once, and appends a *report* to its log: where the time of the last steps went
# (not of the first one, which is slower), and the most memory that the process has taken so far.

# %%
before = trainer.model.output_layer.linear.bias.detach().clone()
history = trainer.run()
report = next(record["report"] for record in history if "report" in record)
assert trainer.step == STEPS
assert not torch.equal(before, trainer.model.output_layer.linear.bias)

# %%
from sedd_mini.training.report import as_text

print(as_text(report))
losses = [record["loss"] for record in history if "loss" in record]
print(f"the last loss in the log: {losses[-1]:.2f}")

# %% [markdown]
# How to read it. **Utilisation** is the arithmetic that the network needs, divided by what the
# machine does in the same time in one large matrix product, its best discipline. It is measured
# on the spot. Anything above a third is decent. With a batch as small as ours much time goes into
# things other than products, as we shall see now. The loss says little: two texts a step scatter by
# more than three steps can teach.
#
# **Memory** was predicted. `planner.memory` counts, from the sizes alone, what a step holds at
# its fullest; Python and PyTorch themselves come on top.

# %%
planned = planner.memory(config, LENGTH, BATCH, report["precision"], device=device)
planned = sum(planned.values())
if report["peak_memory"]:
    print(f"planned {planned / 1e9:.1f} GB, taken {report['peak_memory'] / 1e9:.1f} GB")
    assert 0.75 < planned / report["peak_memory"] < 1.1

# %% [markdown]
# From a terminal, and with the word pieces made on the spot where GPT-2's are not at hand, the
# same is
#
#     python -m sedd_mini train --preset small --data docs --steps 2 --batch-size 2 --length 256

# %%
del trainer, history, before
gc.collect();  # fmt: skip
# %% [markdown]
# ## 3. Where the arithmetic, the seconds and the bytes go
#
# A product of an $(m, n)$ and an $(n, p)$ matrix takes $2mnp$ FLOPs (additions and
# multiplications). Chapter 06 counted those of the network by hand. `planner.forward_flops` is
# that count, for one text. Is it right? PyTorch can count as well, and it works on `meta`, where
# nothing is computed.

# %% tags=["nbval-check-output"]
from torch.utils.flop_counter import FlopCounterMode

with torch.device("meta"):
    text, level = torch.zeros(1, 1024, dtype=torch.int64), torch.ones(1)
with FlopCounterMode(display=False) as counter:
    meta_network(text, level)
flops = planner.forward_flops(config, 1024)
assert math.isclose(counter.get_total_flops(), sum(flops.values()), rel_tol=1e-3)
for part, count in flops.items():
    print(f"{part:16} {count / 1e9:6.1f} GFLOPs")
print(f"{'together':16} {sum(flops.values()) / 1e9:6.1f} GFLOPs")

# %% [markdown]
# The head works on masked positions alone, in training about half of them. `training_flops` takes
# that into account, and adds the backward pass, which has two products for each one of the
# forward pass. So in arithmetic the split of a step is known. Does the clock agree?

# %%
PARTS = ("trunk", "head and loss", "backward", "optimiser", "data")
here = planner.forward_flops(config, LENGTH, masked=0.5)
whole = planner.training_flops(config, LENGTH)
assert math.isclose(3 * sum(here.values()), whole)
head_share = here["head"] / whole
arithmetic = dict(zip(PARTS, (1 / 3 - head_share, head_share, 2 / 3, 0, 0), strict=True))
rows = {"arithmetic": arithmetic, "seconds": report["split"]}

# %%
fig, ax = plots.plt.subplots(figsize=(8.5, 2.6))
colours = dict(zip(PARTS, (plots.BLUE, "#8fbbdb", plots.GREEN, plots.ORANGE, plots.GREY)))
for row, split in enumerate(rows.values()):
    start = 0.0
    for part in PARTS:
        ax.barh(row, split[part], left=start, color=colours[part], label=None if row else part)
        if split[part] > 0.04:
            middle, ink = start + split[part] / 2, "#222222" if part == "head and loss" else "white"
            ax.text(middle, row, f"{split[part]:.0%}", ha="center", va="center", color=ink)
        start += split[part]
ax.set_yticks([0, 1], list(rows))
ax.set(xlim=(0, 1), ylim=(1.5, -0.5), xticks=[], title="One training step, split in two ways")
ax.grid(False)
ax.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.45, 0.02), handlelength=1)
assert abs(sum(report["split"].values()) - 1) < 1e-6

# %% [markdown]
# *What to see.* Above, what has to be multiplied. Below, what the clock says. The optimiser
# multiplies no matrices at all, and yet it takes time: it reads and writes every one of the five
# copies once a step. That is work for the memory, not for the arithmetic units, and it does not
# grow with the batch. So a larger batch hides it. The data take next to nothing.
#
# **The bytes.** Memory has two kinds of parts. The copies of the weights are there whatever you do.
# Activations, what the forward pass leaves for the backward pass, grow with the batch. So do the
# log-scores of the head, but only up to a point, because they are worked through in chunks.
# `planner.memory` gives all by part; here for texts of 1024 tokens on a GPU, where products are in
# bfloat16.

# %%
fixed = ("weights", "gradients", "Adam's moments", "averaged weights")
batches = [1, 8, 16, 32, 64, 96]
memory = [planner.memory(config, 1024, batch) for batch in batches]
fig, ax = plots.plt.subplots(figsize=(7.5, 3.8))
bottom = torch.zeros(len(batches))
shades = {"copies of the weights": plots.BLUE, "activations": plots.ORANGE, "head": plots.GREEN}
for name, colour in shades.items():
    parts = (*fixed, "copies in bfloat16") if name == "copies of the weights" else (name,)
    height = torch.tensor([sum(m[part] for part in parts) / 1e9 for m in memory])
    ax.bar(range(len(batches)), height, bottom=bottom, color=colour, label=name, width=0.6)
    bottom += height
for room in (24, 80):
    ax.axhline(room, color=plots.GREY, ls="--")
    ax.text(-0.4, room + 1.5, f"a GPU of {room} GB", color="#555555")
ax.set_xticks(range(len(batches)), batches)
ax.set(xlabel="texts at a time", ylabel="GB", ylim=(0, 92))
ax.set_title("Every text adds to the activations (planned, L = 1024)")
ax.legend(loc="upper left", bbox_to_anchor=(0, 0.82));  # fmt: skip
# %%
copies = sum(memory[0][part] for part in fixed)
assert math.isclose(copies, 5 * 4 * size)  # float32: 4 bytes
assert memory[2]["activations"] > copies > memory[0]["activations"]
assert math.isclose(memory[2]["activations"], 2 * memory[1]["activations"])
assert memory[-1]["head"] < 1.2 * memory[2]["head"]

# %% [markdown]
# *What to see.* The blue part stays the same, the orange one grows with every text, and the green
# one soon stops. A batch of 512 never lies on one GPU at once. It is divided in two ways: among GPUs (section 5), and in
# time. The setting `accumulate` works through a batch in parts and adds up their gradients, which
# takes no more memory than one part. `smallest_accumulate` finds how many parts are needed.

# %% tags=["nbval-check-output"]
for name, (_, room) in planner.KINDS.items():
    parts = planner.smallest_accumulate(config, 1024, 64, 0.9 * room)
    print(f"64 texts on one {name:8} in {parts:3d} parts of {64 // parts:2d}")

# %% [markdown]
# ## 4. What does each acceleration buy?
#
# The library does several things because they are said to be faster. Let us not believe it. Each
# is raced against the plain way here, on *your* machine. To be quick, the network is smaller, but
# has the same shape: a third of the width, four blocks, and the full vocabulary. The two ways
# take turns, so that whatever else the machine is doing disturbs both alike; what counts is the
# median. And speed alone proves nothing: next to each race stands an assertion that both ways
# give the same result, gradients included where there are any.

# %%
import statistics
import time
from sedd_mini import AbsorbingGraph
from sedd_mini.network.hardware import choose_precision, synchronize

results = []


def seconds(work):
    synchronize(device)  # a GPU may still be busy with what came before
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


def race(name, plain, fast, repeats=3):
    plain(), fast()  # the first time is always slower
    times = [(seconds(plain), seconds(fast)) for _ in range(repeats)]
    slow, quick = (statistics.median(column) for column in zip(*times, strict=True))
    results.append((name, slow, quick))
    return slow / quick


# %% [markdown]
# Time is half of it, memory the other half. PyTorch lets us watch every operation: a *dispatch
# mode* is called for each, and sees the tensors that come out of it. The meter below adds up the
# bytes of new tensors, subtracts them when they die, and remembers the highest level.

# %%
import weakref
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def storages(values):
    return [v.untyped_storage() for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


class MemoryMeter(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.alive, self.now, self.peak = {}, 0, 0

    def freed(self, key):
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        old = {storage._cdata for storage in storages((args, kwargs))}
        result = operation(*args, **(kwargs or {}))
        for storage in storages(result):
            if storage._cdata not in old and storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage._cdata)
        self.peak = max(self.peak, self.now)
        return result


# %%
def peak_bytes(work):
    if device == "cuda":  # the GPU keeps its own books
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with MemoryMeter() as meter:
        work()
    return meter.peak


assert device == "cuda" or peak_bytes(lambda: torch.ones(1000) + 1) == 8000

# %% [markdown]
# **The loss in the head.** The plain formula takes the log-scores of all positions, a table of $B
# \times L \times 50\,258$ numbers, and applies the loss to it. Chapter 06 has shown the other
# way: masked positions alone, in chunks, each reduced to its losses at once (`model(x, sigma,
# x0=x0, graph=graph)`).

# %%
torch.manual_seed(0)
sizes = {"width": 256, "num_blocks": 4, "num_heads": 4, "length": 128, "dropout": 0.0}
network = DiffusionTransformer(DiTConfig(**sizes)).to(device)
graph, noise = AbsorbingGraph(50_257), LogLinearNoise()
x0 = torch.randint(50_257, (4, 128))
sigma = noise.total((torch.arange(4) + 0.5) / 4)
x = graph.sample_transition(x0, sigma[:, None])
x0, x, sigma = x0.to(device), x.to(device), sigma.to(device)


def step_with(loss):
    network.zero_grad()
    value = loss().mean()
    value.backward()
    return value.item()


def gradients_of(work):
    work()
    return [weight.grad for weight in network.parameters()]


with torch.no_grad():  # as if trained: behind a head of zeros every gradient would be 0
    torch.nn.init.normal_(network.output_layer.linear.weight, std=0.02)


# %%
plain = lambda: graph.score_entropy(network(x, sigma), sigma[:, None], x, x0)
in_head = lambda: network(x, sigma, x0=x0, graph=graph)
assert math.isclose(step_with(plain), step_with(in_head), rel_tol=1e-4)
by_formula = gradients_of(lambda: step_with(plain))
assert_close(gradients_of(lambda: step_with(in_head)), by_formula, rtol=1e-3, atol=1e-4)
faster = race("loss in the head", lambda: step_with(plain), lambda: step_with(in_head))
bytes_plain = peak_bytes(lambda: step_with(plain))
bytes_head = peak_bytes(lambda: step_with(in_head))
print(f"{faster:.1f} times as fast, {bytes_head / bytes_plain:.0%} of the memory")
assert bytes_head < 0.7 * bytes_plain

# %% [markdown]
# **bfloat16.** A number of 16 bits: as wide a range as float32, with 8 binary digits instead of
# 24. Products take it; sums, norms, log-scores and the weights themselves remain float32. Whether
# it is fast depends on the processor, and the setting `precision="auto"` asks first. A processor
# without the right instructions may be *slower* with it.


# %%
def in_bfloat16():
    with torch.autocast(device, dtype=torch.bfloat16):
        return step_with(in_head)


precision = choose_precision("auto", device)
print(f"precision='auto' means {precision} here")
ways = in_bfloat16, lambda: step_with(in_head)
values, (rough, exact) = zip(
    *((way(), torch.cat([w.grad.flatten() for w in network.parameters()])) for way in ways)
)
assert math.isclose(*values, rel_tol=0.02)
assert (rough - exact).norm() < 0.05 * exact.norm()
repeats = 3 if precision == torch.bfloat16 else 1  # where it is slow, it may be very slow
faster = race("products in bfloat16", lambda: step_with(in_head), in_bfloat16, repeats)
print(f"{faster:.1f} times as fast")

# %% [markdown]
# **Adam in one go.** Written out, a step of Adam is a dozen operations for each weight tensor,
# and each operation reads and writes all of it. The fused form does everything to a number while
# it is in the processor.

# %%
step_with(in_head)
weights = {way: [w.detach().clone() for w in network.parameters()] for way in ("loop", "fused")}
adam = {}
for way, copies in weights.items():
    for copy, weight in zip(copies, network.parameters(), strict=True):
        copy.grad = weight.grad
    options = {"fused": True} if way == "fused" else {"fused": False, "foreach": False}
    adam[way] = torch.optim.AdamW(copies, lr=3e-4, **options)
faster = race("Adam, fused", adam["loop"].step, adam["fused"].step)
print(f"{faster:.1f} times as fast")
assert_close(weights["loop"], weights["fused"], atol=1e-4, rtol=1e-3)

# %% [markdown]
# **The average of the weights.** It is $a \leftarrow \beta a + (1 - \beta) w$ for every tensor.
# The formula as it stands makes two temporary copies of each. `torch._foreach_lerp_` does it in
# place, for the whole list of tensors in one call. On a GPU, where every call has a cost of its
# own, the list matters most.

# %%
averages = [[w.clone() for w in weights["loop"]] for _ in range(2)]
current = [w.detach() for w in network.parameters()]


def average_by_formula():
    for i, w in enumerate(current):
        averages[0][i] = 0.999 * averages[0][i] + 0.001 * w


def average_in_place():
    torch._foreach_lerp_(averages[1], current, 0.001)


faster = race("average, in place", average_by_formula, average_in_place)
print(f"{faster:.1f} times as fast")
assert_close(*averages, atol=1e-6, rtol=1e-4)

# %% [markdown]
# **Recomputing activations.** The opposite bargain: less memory, for more time. Of each block
# only the input is kept, and the backward pass runs the block once more. (Often called
# *activation checkpointing*; it has nothing to do with checkpoints on disk.) The forward pass of
# the blocks is done twice, so there is a third more arithmetic; the clock may show more than
# that, since whatever is no product is repeated too. We use a small vocabulary here, so that
# blocks, and not the head, fill the memory.


# %%
def block_network(recompute):
    torch.manual_seed(0)
    changes = {"num_tokens": 256, "num_blocks": 6, "checkpoint_activations": recompute}
    return DiffusionTransformer(DiTConfig(**sizes | changes)).to(device).train()


kept, recomputed = block_network(False), block_network(True)
small_x, small_sigma = x % 256, torch.ones(4, device=device)


def sweep(model):
    model.zero_grad()
    model(small_x, small_sigma).square().sum().backward()


# %%
faster = race("activations recomputed", lambda: sweep(kept), lambda: sweep(recomputed))
bytes_kept = peak_bytes(lambda: sweep(kept))
bytes_recomputed = peak_bytes(lambda: sweep(recomputed))
print(f"{1 / faster:.2f} times the time, {bytes_recomputed / bytes_kept:.0%} of the memory")
assert_close([w.grad for w in kept.parameters()], [w.grad for w in recomputed.parameters()])
assert bytes_recomputed < 0.8 * bytes_kept

# %% [markdown]
# **A compiler.** `torch.compile` turns the many small operations between the products into a few
# large ones. On a GPU that is often the largest gain after bfloat16. On a CPU it needs a C++
# compiler, takes a while to begin, and brings less. So it is off by default; `--compile true`
# turns it on. Only the blocks are compiled. The head is not: its number of rows changes with every
# batch, and the compiler would start over each time. This cell runs on a GPU alone.

# %%
if device == "cuda":
    eager, compiled = block_network(False), block_network(False)
    for block in compiled.blocks:
        block.compile()
    faster = race("blocks compiled", lambda: sweep(eager), lambda: sweep(compiled))
    pairs = zip(eager.parameters(), compiled.parameters(), strict=True)
    assert all((a.grad - b.grad).norm() <= 1e-2 * a.grad.norm() + 1e-6 for a, b in pairs)
    print(f"{faster:.1f} times as fast")

# %% [markdown]
# All results side by side:

# %%
print(f"{'':24} {'plain':>9} {'this way':>9}   plain / this way")
for name, slow, quick in results:
    print(f"{name:24} {slow * 1000:6.0f} ms {quick * 1000:6.0f} ms   {slow / quick:.2f}")
assert len(results) == 5 + (device == "cuda")

# %% [markdown]
# On the machine at hand these are the facts. On another one the order may differ, and a number
# below 1 is an answer too. The benchmark `tests/benchmarks/full_size.py` does such measurements
# at full size; on a GPU, start there.

# %% [markdown]
# ## 5. One GPU, eight, many machines
#
# First the text. OpenWebText is 40 GB, too much to be held in memory, let alone once in each
# process. So it is turned into token files once. They are then read in place, whatever part is
# needed. (This takes hours. A preparation that is interrupted goes on when it is started again.)
#
#     python -m sedd_mini prepare --data openwebtext --tokenizer gpt2 --out runs/openwebtext
#
# The preset `small` finds that folder by itself; for text of your own, name yours with `--data`.
# The command of the run is always the same module. `torchrun` starts one process a GPU, and tells
# each its number, the *rank*, and how many there are, the *world size*.
#
#     python -m sedd_mini train --preset small --compile true --accumulate 32 --out runs/small
#
#     torchrun --nproc_per_node=8 -m sedd_mini train --preset small --compile true \
#         --accumulate 4 --out runs/small
#
#     torchrun --nnodes=4 --nproc_per_node=8 --rdzv-backend=c10d \
#         --rdzv-endpoint=FIRST_MACHINE:29500 \
#         -m sedd_mini train --preset small --compile true --out SHARED_FOLDER/small
#
# In each of the three every GPU works on 16 texts at a time, which fits into 24 GB (a larger GPU
# takes more, and needs fewer parts).
# The last one is typed on each of four machines (`torchrun` calls a machine a *node*). `FIRST_MACHINE`
# is the address of one of them, where they meet, and all must see the same folder `--out`. Rank 0
# alone prints, logs, and with `--tensorboard true` writes for TensorBoard. There are two ways of
# sharing the work (`--parallel`):
#
# | | each process holds | the processes exchange | use it |
# |---|---|---|---|
# | `ddp` | all weights, gradients, moments | the mean of the gradients, once a step | if it fits |
# | `fsdp` | its share of them | also each block's weights, when it is their turn | if it does not |
#
# DDP is short for *distributed data parallel*, FSDP for *fully sharded data parallel*. In both,
# each process works on its own rows of the batch. 170 million parameters fit on any recent GPU,
# so here DDP is right.
#
# **What must not change.** `batch_size` counts the texts of *all* processes. Each step then is
# the same step, on one process or on eight, and a learning rate that was found on one holds on
# the other. It takes care to keep this promise: who draws the times and the noise? In our loop
# all processes draw them for the whole batch, from the seed and the number of the step, and each
# keeps its own rows. We can play two processes in one: set the rank by hand, and look.

# %%
from sedd_mini.text.blocks import BlockLoader

language = load_corpus("synthetic", 32)
tiny = preset("synthetic", width=32, num_blocks=1, num_heads=2, cond_dim=16, batch_size=8,
              dropout=0.1, precision="float64", device="cpu")  # fmt: skip


def process(rank, world_size):
    trainer = Trainer(tiny, language)
    trainer.rank, trainer.world_size = rank, world_size
    trainer.loader = BlockLoader(language.train, 8, tiny.seed, rank, world_size)
    torch.manual_seed(1)
    for weight in trainer.model.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # as if trained: no zeros to hide behind
    return trainer


# %% tags=["nbval-check-output"]
alone, first, second = process(0, 1), process(0, 2), process(1, 2)
batches = [trainer.draw_batch() for trainer in (alone, first, second)]
names = ("x0", "x", "t", "weight", "key")
for name, whole, top, bottom in zip(names, *batches, strict=True):
    print(f"{name:6} {tuple(top.shape)} and {tuple(bottom.shape)} make {tuple(whole.shape)}")
    assert torch.equal(torch.cat([top, bottom]), whole)

# %% [markdown]
# The two halves are the batch, noise included. (`weight` says how much a row counts, which chapter
# 07 explains. `key` is a sample's number. The masks of its dropout are made from it, so they are
# the same ones wherever the sample goes.) And the mean of
# the two gradients, which is all that DDP exchanges, is the gradient of the whole batch:

# %%
for trainer, batch in zip((alone, first, second), batches, strict=True):
    trainer.mean_loss(*batch).backward()
weights = [trainer.model.parameters() for trainer in (alone, first, second)]
for whole, top, bottom in zip(*weights, strict=True):
    assert_close((top.grad + bottom.grad) / 2, whole.grad, rtol=1e-9, atol=1e-12)

# %% [markdown]
# The tests of this repository do it with real processes, for DDP and FSDP, over several steps,
# down to the weights (`tests/test_distributed.py`). In float32 the sums come in another order, so
# the last digits differ; the run as such does not.
#
# **What may go wrong.** If a process dies, all others stop with a message, and the last checkpoint
# is whole. SIGTERM, which a cluster sends before it takes a machine away, saves and stops. The
# same command goes on from there, on as many processes as there are then: a checkpoint does not
# depend on their number. The tests kill a process, and resume with two, one, and two again.
#
# ## 6. What would it cost?
#
# Now put the counts together. First, what the preset sets: the published settings.

# %% tags=["nbval-check-output"]
run = preset("small")
print(f"data {run.data}, tokens {run.tokenizer}, L = {run.length}")
print(f"up to {run.steps:,} steps of {run.batch_size} texts, dropout {run.dropout}")
print(f"AdamW, β = (0.9, {run.beta2}), lr {run.lr} after {run.warmup:,} steps, weight decay "
      f"{run.weight_decay:g}, gradient cut at {run.clip:g}, average {run.ema}")  # fmt: skip

# %% [markdown]
# Arithmetic by speed is time, time by price is money. The speed of a GPU on its data sheet is
# never reached. Well-made training programs reach 30 to 50 % of it, and the planner assumes 40 %.
# (The report of section 2 divides by another number, a product measured on the spot.) This is the published run, on eight H100 at an assumed 2.50 an hour each.
# From a terminal: `python -m sedd_mini plan --preset small --gpus 8 --kind h100 --price 2.5`.

# %% tags=["nbval-check-output"]
print(planner.plan(preset("small"), gpus=8, kind="h100", price=2.5))

# %% [markdown]
# Less than two days on one such machine, if 40 % is reached (planned, not measured). Try other kinds of
# GPU, fewer steps, `--parallel fsdp`.
#
# **Where that run went.** These perplexities are from table 1 of Lou et al. 2023, on five test
# sets that the network was not trained for. Less is better; for the diffusion models they are
# upper bounds.
#
# | | LAMBADA | WikiText2 | PTB | WikiText103 | 1BW |
# |---|---|---|---|---|---|
# | GPT-2 small | 45.04 | 42.43 | 138.43 | 41.60 | 75.20 |
# | SEDD absorb small | ≤ 50.92 | ≤ 41.84 | ≤ 114.24 | ≤ 40.62 | ≤ 79.29 |
# | SEDD uniform small | ≤ 65.40 | ≤ 50.27 | ≤ 140.12 | ≤ 49.60 | ≤ 101.37 |
# | D3PM small | ≤ 93.47 | ≤ 77.28 | ≤ 200.82 | ≤ 75.16 | ≤ 138.92 |
# | GPT-2 medium | 35.66 | 31.80 | 123.14 | 31.39 | 55.72 |
# | SEDD absorb medium | ≤ 42.77 | ≤ 31.04 | ≤ 87.12 | ≤ 29.98 | ≤ 61.19 |
#
# The absorbing network beats GPT-2 of its size on three of the five, and the earlier discrete
# diffusion model (D3PM) on all. In nats a token, the scale of our logs, a perplexity of 40.62 is
# $\ln 40.62 = 3.70$.
#
# **What your budget buys.** Turned around: so many GPU hours are so many tokens. The table
# needs a yardstick. Hoffmann et al. 2022 found for language models that with a given amount of
# arithmetic it is best to read about 20 tokens for each parameter. (For other models than ours;
# take it as an order of magnitude.)

# %% tags=["nbval-check-output"]
per_token = planner.training_flops(config, 1024) / 1024
enough = 20 * planner.parameters(config)
print(f"{per_token / 1e9:.2f} GFLOPs a token; 20 tokens a parameter: {enough / 1e9:.1f} G tokens\n")
budgets = [("1 × rtx4090", 1, "a night", 10), ("1 × h100", 1, "a day", 24),
           ("8 × h100", 8, "a day", 24), ("8 × h100", 8, "a week", 168)]  # fmt: skip
for name, gpus, words, hours in budgets:
    kind_speed = planner.KINDS[name.split()[-1]][0]
    bought = gpus * hours * 3600 * 0.4 * kind_speed / per_token
    print(f"{name:11} for {words:8} {bought / 1e9:7.1f} G tokens   {bought / enough:6.2f} of enough"
          f"   {bought / published_tokens:7.2%} of the published run")  # fmt: skip

# %% [markdown]
# The published run is long, two hundred times "enough". One reason is that a network that is used
# for years may be trained for longer than is thrifty. Another may be that diffusion asks for more
# tokens: each text is met at one noise level at a time. Nothing here measures that.
#
# ## 7. Watching a run
#
# What should you look at while the hours pass? We watch a network that we can wait for: two
# blocks of width 64, on the documentation, in word pieces without padding. First the levels to
# expect. It starts at $\ln N$. The cheapest thing to learn is how *frequent* each token is. A
# model that knows the frequencies $p_i$ and nothing else pays their entropy, $-\sum_i p_i \ln
# p_i$, for every token (the *unigram entropy*).

# %%
docs = load_corpus("docs", 64)  # its own 1024 word pieces
frequency = torch.from_numpy(docs.train.arrays[0].astype("int64")).bincount().double()
frequency = frequency / frequency.sum()
guess = math.log(docs.tokenizer.vocab_size)
unigram = -torch.xlogy(frequency, frequency).sum().item()
print(f"guessing {guess:.2f}, frequencies alone {unigram:.2f} nats a token")
assert unigram < guess - 0.5

# %% [markdown]
# Then three runs, which differ in one number: the learning rate. The second has 30 times that of
# the first, the third 1000 times. (`decay="none"`: it rises for 20 steps and stays.)

# %%
watched = {"length": 64, "batch_size": 32, "steps": 140, "warmup": 20, "decay": "none",
           "width": 64, "num_blocks": 2, "num_heads": 2, "cond_dim": 16,
           "device": "cpu"}  # fmt: skip


def watch(lr, **changes):
    """The losses, and the error that ended the run, if one did."""
    trainer, losses = Trainer(preset("docs", **watched | {"lr": lr} | changes), docs), []
    try:
        while trainer.step < watched["steps"]:
            losses.append(trainer.train_step())
    except FloatingPointError as error:
        return losses, error
    return losses, None


runs = {lr: watch(lr) for lr in (0.003, 0.1, 3.0)}
for lr, (losses, error) in runs.items():
    print(f"learning rate {lr:<5}  {len(losses):3} steps; {error or 'to the end'}")

# %%
good, leaping, bad = (losses for losses, _ in runs.values())
fig, ax = plots.plt.subplots(figsize=(7.5, 3.4))
ax.plot(range(1, len(good) + 1), good, color=plots.BLUE, label="learning rate 0.003")
ax.plot(range(1, len(leaping) + 1), leaping, color=plots.PURPLE, lw=1, label="0.1")
ax.plot(range(1, len(bad) + 1), bad, "o-", color=plots.ORANGE, label="3.0")
for level, name in ((guess, "guessing"), (unigram, "frequencies alone")):
    ax.axhline(level, color=plots.GREY, ls="--", lw=1)
    ax.text(141, level, name, color="#555555", va="center", fontsize=10)
ax.set(xlabel="step", ylabel="loss (nats a token)", ylim=(5, 11), xlim=(-2, 140))
ax.set_title("A healthy run, one that leaps, and one that is gone")
ax.legend(loc="upper center");  # fmt: skip
# %%
assert [error is None for _, error in runs.values()] == [True, True, False] and len(bad) < 20
assert sum(good[:3]) / 3 > unigram + 0.3 and abs(sum(good[-60:]) / 60 - unigram) < 0.4
assert max(leaping[:60]) > guess + 1 > max(good) and max(bad) > 100
assert abs(sum(leaping[-40:]) / 40 - unigram) < 0.4

# %% [markdown]
# *What to see.* Blue falls from guessing to the frequencies, and stays there for a while: the
# **first plateau**. Every run of a language model has it, and an impatient person stops there. To
# get below it, the network must begin to look at neighbours, and that takes attention, which
# takes longer. The Gutenberg run above is near its own first plateau. Purple leaps while the
# learning rate rises, and comes back: Adam forgives much. Orange leaves the picture at once. Its
# weights jump over every valley, the scores explode, and their exponentials overflow.
#
# Signs of trouble, from mild to grave: the norm of the gradient grows (the log of a run holds it as
# `grad_norm`); single losses leap, and take ever longer to come back; the loss settles *above* the
# unigram entropy; inf or NaN. The remedies, in the order in which to try them: a lower learning
# rate, a longer warm-up, `--precision float32` (if that helps, 8 binary digits were too few
# somewhere). None of them needs a new start. Normally a run refuses to go on with other settings than
# it began with, but `--change lr` lets it: from the last checkpoint, with the new `--lr`.
#
# **When a number is no longer a number.** A step with a NaN in its gradient would put NaN into
# every weight, and the averaged weights would be lost too. So the loop looks *before* the
# optimiser acts: it raises `FloatingPointError`, and leaves weights and last checkpoint as they
# are. If the run has a folder, it writes the batch that did it there. We break a weight on
# purpose:

# %% tags=["nbval-check-output"]
import tempfile
from safetensors.torch import load_file

brief = preset("synthetic", width=32, num_blocks=1, num_heads=2, cond_dim=16, steps=8, batch_size=8,
               log_every=4, valid_blocks=4, valid_repeats=2, device="cpu",
               sample_every=0)  # fmt: skip
with tempfile.TemporaryDirectory() as place:
    broken = Trainer(brief, language, out=place)
    with torch.no_grad():
        broken.model.output_layer.linear.bias[3] = float("nan")
    average = broken.average.output_layer.linear.bias.clone()
    try:
        broken.train_step()
    except FloatingPointError as error:
        print(str(error).split(";")[0])
    (kept_batch,) = Path(place).glob("not-finite*")
    print({name: tuple(v.shape) for name, v in sorted(load_file(kept_batch).items())})
    assert torch.equal(broken.average.output_layer.linear.bias, average)

# %% [markdown]
# With the last checkpoint and this batch you can look for the cause at leisure: run the loss on
# it, layer by layer, until the first NaN appears.
#
# **Going on.** Long runs are interrupted: time limits, power, people. The same command goes on
# from the last checkpoint. And it goes on *exactly* (on a CPU; a GPU may add in another order): a checkpoint holds the weights, the averaged
# weights, Adam's moments and the position in the data, and all that is random in a step comes
# from the seed and the step's number. One run of eight steps, and one that is stopped after four
# and started again:

# %%
with tempfile.TemporaryDirectory() as place:
    straight = Trainer(brief, language)
    straight.run()
    Trainer(brief, language, out=place).run(4)
    resumed = Trainer(brief, language, out=place)
    assert resumed.step == 4  # found in the folder
    resumed.run()
for network in ("model", "average"):
    pairs = zip(getattr(straight, network).parameters(), getattr(resumed, network).parameters())
    assert all(torch.equal(a, b) for a, b in pairs)  # bit for bit

# %% [markdown]
# ## 8. The weights that were released
#
# The authors of the paper have published their networks. `load_pretrained` reads them by name,
# because ours has the same parts under the same names (the tests compare it with an independent
# second implementation).
#
# > **This cell may use the network.** With `DOWNLOAD = True` it fetches `louaaron/sedd-small`
# > (about 0.7 GB) and GPT-2's tokens from the Hugging Face hub. As it stands, it only looks
# > whether they are already on your disk. If not, it says so, and goes on with the small network
# > that is part of this repository. All cells below then work on either.

# %%
from huggingface_hub import try_to_load_from_cache
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.text.tokenizers import gpt2_tokenizer

DOWNLOAD = False
name, stand_in = "louaaron/sedd-small", "checkpoints/docs-absorb"
wanted = [(name, "config.json"), (name, "model.safetensors"), ("gpt2", "tokenizer.json")]
found = [try_to_load_from_cache(*file) for file in wanted]
try:
    if not DOWNLOAD and not all(isinstance(path, str) for path in found):
        raise FileNotFoundError(f"{name} is not on this disk, and DOWNLOAD is False")
    released, graph, noise = load_pretrained(name if DOWNLOAD else Path(found[0]).parent)
    tokenizer = gpt2_tokenizer("gpt2" if DOWNLOAD else Path(found[2]).parent)
except FileNotFoundError as error:
    print(f"{error}: {stand_in} stands in.")
    released, graph, noise = load_pretrained(stand_in)
    tokenizer = load_tokenizer(stand_in)
print(f"{sum(w.numel() for w in released.parameters()):,} parameters, {graph}")

# %% [markdown]
# **Write.** 96 tokens from nothing but MASK, in 64 steps (chapter 08).

# %%
from sedd_mini.samplers import sample

generator = torch.Generator().manual_seed(0)
y = sample(released, graph, noise, (1, 96), 64, generator=generator)
print(tokenizer.decode(y[0].tolist()))
assert (y < graph.num_tokens).all()  # no MASK is left

# %% [markdown]
# **Fill a gap.** `template` encodes a text whose gaps are underscores, with −1 for each token
# that is missing (chapter 09).

# %%
from sedd_mini.model import template

sentence = "Return True if the object is ____ instance of the class, and ____ otherwise."
given = template(tokenizer, text=sentence, gap=1)
generator = torch.Generator().manual_seed(0)
y = sample(released, graph, noise, (4, len(given)), 64, clamp=given, generator=generator)
for row in y.tolist():
    print(tokenizer.decode(row))
assert (y[:, given >= 0] == given[given >= 0]).all()

# %% [markdown]
# **Score a text.** The likelihood bound (chapter 04), for a sentence and for its own words in
# disorder. A model that knows anything about order must find the second one less likely.

# %%
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.losses import diffusion_weighted_in_head

sentence = ("Return the number of items in the list. If the list is empty, the method raises an "
            "exception and the value is not changed.")  # fmt: skip
words, bounds = sentence.split(), []
order = torch.randperm(len(words), generator=torch.Generator().manual_seed(0)).tolist()
for text in (sentence, " ".join(words[i] for i in order)):
    x0 = torch.tensor([tokenizer.encode(text)])  # (1, L)
    generator = torch.Generator().manual_seed(0)
    bound = likelihood_bound(released, graph, noise, x0, times_each=64, generator=generator,
                             loss=diffusion_weighted_in_head)  # fmt: skip
    print(f"{bound.nats:6.1f} ± {bound.error:.1f} nats   {text[:60]} …")
    bounds.append(bound.nats)
assert bounds[0] < bounds[1]

# %% [markdown]
# ## Summary
#
# 1. SEDD small has 169.6 M parameters; a first loss of $(1 - e^{-\bar\sigma(1)}) \ln 50257 = 10.81$
#    nats a token, 11 074 a sequence, says that loss and network are right.
# 2. Arithmetic, memory, hours and cost can be counted beforehand, and the counts agree with
#    PyTorch's own. The published run is about $5 \cdot 10^{20}$ FLOPs.
# 3. Accelerations are to be measured, with results compared: the loss in the head, bfloat16, a
#    fused optimiser, averages in place; and recomputation, which buys memory with time.
# 4. A step is defined by the whole batch. Processes and accumulation divide it and change nothing
#    but the order of sums.
# 5. Expect $\ln N$, then a plateau at the entropy of the token frequencies. A run that breaks stops
#    before it spoils its weights, and one that is interrupted goes on as if nothing had been.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it. If the check is silent, you are done.
#
# **1. Medium** (★☆☆, 10 minutes). SEDD medium has 24 blocks of width 1024, with 16 heads. With
# the planner, find its number of parameters, and how many times the arithmetic of small one of
# its steps takes. Name them `size` and `times_small`. Which grows faster, and why?
#
# ```python
# assert round(size / 1e6) == 424 and round(times_small, 1) == 3.1
# ```
#
# **2. The same step in parts** (★☆☆, 15 minutes). Make two trainers with the settings `tiny` of
# section 5, one with `accumulate=1` and one with `accumulate=4`; let both do three steps. Call
# them `whole` and `parts`. Are the weights equal bit for bit?
#
# ```python
# assert_close(list(whole.model.parameters()), list(parts.model.parameters()), rtol=1e-6, atol=1e-9)
# ```
#
# **3. Does clipping help?** (★★☆, 15 minutes). The loop cuts the norm of the gradient to `clip`.
# Think first: would `clip=0.01` have saved the run with learning rate 3? Remember what Adam
# divides by. Then try, and name the error, or its absence, `clipped_error`. What would you change
# instead?
#
# ```python
# assert isinstance(clipped_error, FloatingPointError)
# ```
#
# **4. The rule of six** (★★☆, 15 minutes). The rule of chapter 06 says 6 FLOPs a parameter and
# token. Compare it with `planner.training_flops` at $L = 1024$: name `rule_over_count` the first
# divided by the second. Three things make the rule too large here; which? (One is small.)
#
# ```python
# assert round(rule_over_count, 2) == 1.38
# ```
#
# **5. A small GPU** (★★☆, 20 minutes). How many texts of 1024 tokens fit at a time into 90 % of
# 24 GB, as they are, and with `checkpoint_activations=True`? Name the largest numbers `as_is` and
# `recomputing`. Is the time for recomputing well spent, if the batch of 512 is accumulated
# anyway?
#
# ```python
# assert (as_is, recomputing) == (24, 207)
# ```

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023. The run of this chapter is in section
#   5 and in the appendix on experiments.
# - J. Hoffmann and others, [*Training Compute-Optimal Large Language
#   Models*](https://arxiv.org/abs/2203.15556), 2022. Twenty tokens a parameter.
# - T. Chen and others, [*Training Deep Nets with Sublinear Memory
#   Cost*](https://arxiv.org/abs/1604.06174), 2016. Recomputing activations.
# - P. Micikevicius and others, [*Mixed Precision Training*](https://arxiv.org/abs/1710.03740),
#   2017. What may be in 16 bits and what may not.
# - Y. Zhao and others, [*PyTorch FSDP*](https://arxiv.org/abs/2304.11277), 2023. Weights in shares.
# - P. Goyal and others, [*Accurate, Large Minibatch SGD*](https://arxiv.org/abs/1706.02677), 2017.
#   Where the habit of warming up comes from.
