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
#   sedd_mini:
#     edition: 2
# ---

# %% [markdown]
# # 11. The full-size run: what does it take to train the real network?
#
# The network of the paper has 170 million weights and a vocabulary of 50 257 tokens, and its training run read 200 to 700 billion tokens. The training loop is the one of chapter 07.
# This chapter counts what such a run costs, takes two real steps, and breaks a small run on purpose.
#
# After this chapter you will be able to
#
# - count the weights, arithmetic, memory, hours and money of a run, and check the counts against a real step;
# - say with one roofline argument whether a piece of work waits for arithmetic or for memory;
# - read a loss curve: where it must start, which level it meets first, and what trouble looks like.
#
# *You need* chapters 06 and 07, and 5 GB of free memory. *Running time:* about a minute on two CPU cores (one is used). No cell needs a GPU.

# %% [markdown]
# ## The lines of the page
#
# ```python
# N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
# ...
#     for _ in range(steps):
#         loss = loss_of(language.sample(B, L))
#         optimizer.zero_grad()
#         loss.backward()
#         optimizer.step()
# ```
#
# The first line sets what a step costs. The published run has N = 50 257, L = 1024, B = 512, D = 768, 12 heads, and 12 blocks where the page has 3. The loop assumes that B texts fit into memory at once, and that every loss is a finite number. Section 4 drops the first assumption, and section 6 the second.

# %% [markdown]
# ## A picture first
#
# These are two real runs of the full-size network on the same text, 17 books of Project Gutenberg (1.7 million tokens of GPT-2). One took 300 steps of 4 × 128 tokens, on one CPU core that two other trainings shared. The other took 2 470 steps of 64 × 1024 tokens, on an H100. The first command makes tokens, and the others train:
#
#     python -m sedd_mini prepare --data FOLDER_OF_BOOKS --tokenizer gpt2 --out runs/gutenberg
#     python -m sedd_mini train --preset small --data runs/gutenberg --steps 300 --batch-size 4 \
#         --length 128 --warmup 20 --log-every 2 --valid-every 150 --valid-blocks 16 \
#         --sample-every 0 --save-every 150 --out runs/small-gutenberg
#     python tests/benchmarks/small_gpu.py --data runs/gutenberg --minutes 6.5
#
# *Predict:* an untrained network guesses all 50 257 tokens alike. How many nats does it pay for a token? And what happens to the loss on held-out text while the other text is read 93 times?

# %%
import json
import math
from pathlib import Path

import torch
from sedd_mini import plots
from torch.testing import assert_close

torch.set_num_threads(1)
plots.use_style()
log = [json.loads(line) for line in Path("logs/small-gutenberg.jsonl").read_text().splitlines()]
about = json.loads(Path("logs/small-gutenberg.json").read_text())["token_frequencies"]
losses = {record["step"]: record["loss"] for record in log if "loss" in record}
run = json.loads(Path("results/small-gpu.json").read_text())  # on the H100
long = {row["step"]: row["loss"] for row in run["curve"]}  # means of ten steps
guess, table = math.log(50_257), about["nats_a_token_of_the_training_text"]
late = torch.tensor([loss for step, loss in losses.items() if step > 200])
error = late.std() / math.sqrt(len(late))
print(f"guessing {guess:.2f}, token frequencies {table:.2f} nats a token")
print(f"CPU, steps 201 to 300: {late.mean():.2f} ± {error:.2f}; H100, last: {long[2470]:.2f}")

# %% tags=["hide-input"]
#| alt: Two panels, loss against step. Left, dots start at the dashed line of guessing, 10.8 nats,
#| and scatter around 7.2 at step 300, above a dashed line at 6.8, the token frequencies. Right, a
#| curve falls to the lower line, rests on it up to step 180, and falls to 3.6. Green points, text
#| held out, fall from 6.3 to 4.8 at step 1540, and rise a little.
checks = [(row["step"], *(v * math.log(2) for v in (row["bits"], 2 * row["error"])))
          for row in run["valid"] if row["step"] % 308 == 0]  # fmt: skip
levels = {"guessing: ln 50 257": guess, "token frequencies": table}
fig = plots.show_two_runs(losses, long, checks, levels)
title = "300 small steps do not reach the token frequencies; six minutes of an H100 pass them"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% tags=["hide-cell"]
first = list(losses.values())[:5]
assert abs(sum(first) / 5 - guess) < 0.5 and max(losses) == 300
assert guess - late.mean() > 3 and late.mean() - table > 3 * error
assert all(abs(long[step] - table) < 0.07 for step in range(80, 180, 10)) and 3.5 < long[2470] < 3.7
lowest = min(checks, key=lambda check: check[1])
assert lowest[0] == 1540 and round(lowest[1], 2) == 4.79 and round(checks[-1][1], 2) == 4.86
assert round(1540 * 65_536 / run["train_tokens"]) == 58 and round(run["epochs"]) == 93
assert round(80 * 65_536 / (300 * 512)) == 34
assert round(run["frequencies_bits_per_token"] * math.log(2), 2) == 6.89

# %% [markdown]
# *What to see.* The first losses scatter around $\ln 50\,257 = 10.82$. A **table of token frequencies**, which knows how often each token occurs in the text and nothing else, would pay 6.83. On the CPU the network still pays more in its last hundred steps, 7.27 ± 0.09 (with dropout): the loop runs at full size, but 300 steps of 512 tokens did not reach the table's level. The run on the H100 reaches it in 80 steps (5 million tokens, 34 times what the CPU read), rests there for a hundred steps, and then learns to use the tokens around a hidden one.
#
# The green points are bounds of the averaged weights, without dropout, on the 5 % of the text that was held out, each time with the same noise. They are lowest near 58 passes over the books, 4.79 ± 0.01 nats a token (one standard error), and then rise to 4.86, while the training loss goes on falling to 3.60: the network **overfits**. (The table pays 6.89 there.) At these settings, more passes over 1.7 million tokens do not help.
#
# The length of the published run is not certain. The released configuration says 1.3 million steps; [asked in public](https://github.com/louaaron/Score-Entropy-Discrete-Diffusion/issues/6), the author named 400 000 for OpenWebText, the run's text (about 9 billion tokens).

# %% tags=["nbval-check-output"]
tokens = max(record.get("tokens", 0) for record in log)
speed = next(record["report"]["tokens_per_s"] for record in log if "report" in record)
fast = run["tokens_seen"] / run["training_seconds"]
print(f"the CPU: {tokens:,} tokens, at {speed:.0f} a second (on a shared core)")
print(f"the H100 ({run['variant']}): {run['tokens_seen']:,} tokens, at {fast:,.0f} a second")
for steps in (400_000, 1_300_000):
    published = steps * 512 * 1024
    years, days = published / speed / 3600 / 24 / 365, published / fast / 3600 / 24
    print(f"{steps:,} steps: {published / 1e9:.0f} billion tokens, {published / 9e9:.0f} passes "
          f"over the text; {years:.0f} years, or {days:.1f} days")  # fmt: skip

# %% [markdown]
# This edition had one H100 for minutes. This run (with a compiler, section 3, and the *counted* draws of section 6), single steps with their memory, and the seconds of sampling were *measured*. All other numbers about GPUs are *planned*: computed from data sheets.

# %% [markdown]
# ## 1. Count first
#
# A tensor on the device `meta` has a shape but no contents, so the weights of any network can be counted there. The module `planner` computes the same counts from the sizes alone.

# %% tags=["nbval-check-output"]
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.training import planner

config = DiTConfig()  # the sizes of the published small network
with torch.device("meta"):
    empty = DiffusionTransformer(config)


def part_of(name):
    if "adaLN" in name or "sigma_map" in name:
        return "noise level"
    if name.startswith("vocab_embed"):
        return "embedding"
    return "blocks" if name.startswith("blocks") else "head"


counts = dict.fromkeys(("embedding", "blocks", "noise level", "head"), 0)
for name, weight in empty.named_parameters():
    counts[part_of(name)] += weight.numel()
for part, count in counts.items():
    print(f"{part:12} {count:12,}")
print(f"{'together':12} {planner.parameters(config):12,}")

# %% tags=["hide-cell"]
assert planner.parameters(config) == sum(counts.values())

# %% [markdown]
# Arithmetic is counted in **FLOPs**: the product of an $(m, n)$ and an $(n, p)$ matrix takes $2mnp$ (chapter 06). The *trunk*, everything before the head, works on every token, and the head only on hidden tokens, in training about half of all. The backward pass has two products for each one of the forward pass, so a step needs three times the FLOPs of the forward pass.

# %% tags=["nbval-check-output"]
forward = planner.forward_flops(config, 1024, masked=0.5)  # of one text
whole = planner.training_flops(config, 1024)
for part in ("attention", "q · k and a · v", "MLP", "head"):
    print(f"{part:16} {forward[part] / 1024 / 1e6:6.1f} million FLOPs a token")
print(f"forward {whole / 3 / 1024 / 1e6:.0f}, with backward {whole / 1024 / 1e6:.0f}")
print(f"400,000 steps: {whole * 512 * 400_000:.2e} FLOPs")

# %% tags=["hide-cell"]
assert math.isclose(3 * sum(forward.values()), whole)

# %% [markdown]
# With log-linear MASK noise an untrained network pays $(1 - e^{-\bar\sigma(1)}) \ln N$ nats a token on average (chapter 05's laboratory), and $L$ times as much a text:

# %% tags=["nbval-check-output"]
from sedd_mini import LogLinearNoise

share = -LogLinearNoise().total(torch.tensor(1.0).double()).neg().expm1()  # MASK at t = 1
average = (share * math.log(50_257)).item()
print(f"first loss: {average:.2f} nats a token, {1024 * average:,.0f} nats a text")

# %% [markdown]
# Ours logs nats a token, some programs nats a text. If a run's first losses scatter around neither, stop it and look for the error.

# %% [markdown]
# ## 2. Two real steps
#
# GPT-2's list of tokens may not be on your disk. So we take Python's documentation in the word pieces of a small checkpoint, and `padded` adds unused tokens up to 50 257. A step has 2 texts of 64 tokens, and products are in float32. Network, noise and loss are those of the published run.

# %%
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.offline import padded
from sedd_mini.text.tokenizers import load_tokenizer
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

pieces = load_tokenizer("checkpoints/docs-absorb")
corpus = load_corpus("docs", 64, tokenizer=padded(pieces, 50_257))
settings = preset(
    "small", length=64, batch_size=2, steps=2, warmup=20, device="cpu", precision="float32"
)
trainer = Trainer(settings, corpus)
print(f"{sum(weight.numel() for weight in trainer.model.parameters()):,} weights")

# %% [markdown]
# Is the first loss right? The loss of two texts scatters around 10.81, but the cost of *this* batch can be computed. The untrained network gives all tokens the same probability, so each hidden token costs $\sigma(t)\, \frac{1}{e^{\bar\sigma(t)} - 1} \ln N$: the rate, times chapter 03's $r$, times the surprise. A visible token costs nothing.

# %%
batch = trainer.draw_batch()
x0, x, t, *_ = batch  # (B, L), (B, L), (B,)
with torch.no_grad():
    loss = trainer.mean_loss(*batch).item()

# %%
r = 1 / trainer.noise.total(t).expm1()  # (B,)
cost = trainer.noise.rate(t) * r * math.log(50_257)  # (B,): of a hidden token
hidden = x == trainer.graph.mask_id  # (B, L)
by_hand = (cost[:, None] * hidden).mean().item()
print(f"this batch: {loss:.4f} nats a token; by hand {by_hand:.4f}")

# %% tags=["hide-cell"]
assert math.isclose(loss, by_hand, rel_tol=1e-3)

# %% [markdown]
# We time the second of two steps (the first is slower), and the trainer reports where its time went.

# %%
from sedd_mini.training.report import as_text

before = trainer.model.output_layer.linear.bias.detach().clone()
for step in range(2):
    trainer.watch.start(running=step == 1)
    trainer.train_step()
report = trainer.report()
print(as_text(report))
planned = sum(planner.memory(config, 64, 2, "float32", device="cpu").values())
print(f"  memory as planned: {planned / 1e9:.2f} GB, and Python and PyTorch themselves")

# %% tags=["hide-cell"]
assert not torch.equal(before, trainer.model.output_layer.linear.bias)
assert report["peak_memory"] is None or 0.6 < planned / report["peak_memory"] < 1.1

# %% [markdown]
# **Utilisation** is the arithmetic that the network needs, divided by what the device could do in the same time. The report takes the speed of a large matrix product on your machine. A GPU's data sheet names a higher one, so percentages of that are lower. Large models have been trained at 21 % (GPT-3) to 46 % (PaLM) of the data sheet (Chowdhery et al. 2022).

# %% [markdown]
# ## 3. Arithmetic or memory: one roofline
#
# A processor has two speeds: $S$, the FLOPs it can do in a second, and $W$, the bytes it can move between its memory and its arithmetic units in a second (the *bandwidth*). At best arithmetic and transfers overlap, so (**roofline**)
#
# $$\text{time} \;\ge\; \max\left(\frac{\text{FLOPs}}{S},\; \frac{\text{bytes}}{W}\right).$$
#
# The **intensity** of a piece of work is its FLOPs a byte. Below $S/W$ the work waits for memory, above it for arithmetic. For an H100, with products of 16-bit numbers (**bfloat16**, chapter 06's laboratory), $S/W$ is (989 · 10¹²) / (3.35 · 10¹²) ≈ 295 FLOPs a byte.
#
# Take the product of $m$ tokens, $(m, n)$, with a matrix of weights $(n, p)$, in numbers of $w$ bytes. Each of the three matrices moves once:
#
# $$I = \frac{2mnp}{w\,(mn + np + mp)} = \frac{2/w}{1/m + 1/n + 1/p} .$$

# %% tags=["nbval-check-output"]
def intensity(m, n=768, p=3072, w=2):
    return 2 / w / (1 / m + 1 / n + 1 / p)


for m, p in ((1, 3072), (64, 3072), (1024, 3072), (16 * 1024, 3072), (1024, 768)):
    print(f"{m:6} tokens, (768, {p:4}) weights: {intensity(m, p=p):4.0f} FLOPs a byte")
per_weight = 10 * 4  # bytes: ten float32 numbers are read or written for each weight
print(f"Adam and the average: about {16 / per_weight:.1f} FLOPs a byte")

# %% [markdown]
# The weights (768, 3072) are those of a block's first MLP layer, and (768, 768) those of the layer after attention. With few tokens most of the traffic is weights, and each is used for only $m$ tokens. For each weight Adam reads four numbers (weight, gradient, and two *moments*, the running means of the gradient and of its square) and writes three; the average reads two and writes one. All that serves about 16 FLOPs.

# %% tags=["hide-input"]
#| alt: Log-log plot of two roofs, RTX 4090 and H100. Each rises with FLOPs a byte and turns flat at
#| a ring, at 163 and at 295. Dotted verticals at 0.4, 1, 58, 279, 384 and 592, with a dot where
#| each meets a roof: the first three lie left of the rings, 279 between them, the last two right.
bandwidth = {"rtx4090": 1.01e12, "h100": 3.35e12}  # bytes a second
colours = {"rtx4090": plots.GREEN, "h100": plots.BLUE}
names = {"rtx4090": "RTX 4090", "h100": "H100"}
roofs = {names[k]: (planner.KINDS[k][0], w, colours[k]) for k, w in bandwidth.items()}
works = {"Adam and the average": 16 / per_weight}
works |= {f"product, {m:,} token{'s' * (m > 1)}": intensity(m) for m in (1, 64, 1024, 16 * 1024)}
works["after attention, 1,024 tokens"] = intensity(1024, p=768)
fig, ax = plots.plt.subplots(figsize=(8, 4))
plots.show_roofline(ax, roofs, works)
ax.set_title("Left of a roof's corner, work waits for memory");

# %% tags=["hide-cell"]
for kind, moved in bandwidth.items():
    corner = planner.KINDS[kind][0] / moved
    assert 16 / per_weight < intensity(1) < intensity(64) < corner < intensity(1024)
assert 0.9 * corner < intensity(1024, p=768) < corner  # of the H100

# %% [markdown]
# *What to see.* A line is a GPU's highest speed at intensity $I$, $\min(S, WI)$ (planned), and a dot that of one piece of work. The optimiser is far left of both corners (rings), so its best time is bytes divided by bandwidth, whatever the number of tokens. Products move to the right as tokens are added; the layer after attention stands just left of the H100's corner.
#
# ### The two real steps once more
#
# A step has four parts: trunk, head with loss, backward pass, optimiser. The optimiser has no products (its 16 FLOPs a weight are 3 % of a step of 128 tokens). Even few tokens need the traffic of the weights: the forward pass reads them, the backward pass reads them again and writes their gradients, and the optimiser moves ten numbers for each.

# %%
STAGES = ("trunk", "head and loss", "backward", "optimiser")
one_text = planner.forward_flops(config, 64, masked=0.5)
head_flops, all_flops = one_text["head"], sum(one_text.values())
products = (all_flops - head_flops, head_flops, 2 * all_flops, 0)  # FLOPs

# %%
trunk, head = counts["blocks"] + counts["noise level"], counts["head"]
every = sum(counts.values())
moved = (trunk, head, trunk + head + every, 10 * every)  # numbers read or written

# %%
def shares(amounts):
    return {stage: amount / sum(amounts) for stage, amount in zip(STAGES, amounts, strict=True)}


of_log = next(record["report"]["split"] for record in log if "report" in record)
measured = json.loads(Path("results/full-size-speed.json").read_text())
on_gpu, compiled = (measured["variants"][name] for name in ("bfloat16", "bfloat16, compiled"))
rows = {
    "counted: products": shares(products),
    "time, 65 536 tokens (H100)": on_gpu["split"],
    "time, 512 tokens (the log)": of_log,
    "time, 128 tokens (section 2)": report["split"],
    "counted: traffic of weights": shares(moved),
}

# %% tags=["hide-input"]
#| alt: Five stacked bars with the shares of trunk, head and loss, backward, optimiser. Products:
#| 27, 6, 67, 0 per cent. Time on the H100 with 65 536 tokens: 30, 9, 57, 2. Time with 512 tokens:
#| 23, 6, 64, 7. With 128 tokens the optimiser has more. Traffic of weights: 4, 2, 14, 80.
white, dark = "#ffffff", "#222222"
inks = {"trunk": (plots.BLUE, white), "head and loss": (plots.GREEN, white),
        "backward": (plots.GREY, dark), "optimiser": (plots.ORANGE, dark)}  # fmt: skip
fig = plots.show_shares(rows, inks)
title = "The optimiser has no products and 80 % of the traffic of weights"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% tags=["hide-cell"]
assert math.isclose(3 * all_flops, planner.training_flops(config, 64))
assert 0.03 < 16 * every / (2 * planner.training_flops(config, 64)) < 0.035
assert [round(100 * share) for share in shares(products).values()] == [27, 6, 67, 0]
assert [round(100 * share) for share in shares(moved).values()] == [4, 2, 14, 80]
assert [round(100 * of_log[part]) for part in STAGES] == [23, 6, 64, 7]
assert [round(100 * on_gpu["split"][part]) for part in STAGES] == [30, 9, 57, 2]

# %% [markdown]
# *What to see.* The optimiser's share of the time falls with more tokens: 7 % with 512, 2 % with 65 536 on an H100 (where drawing the batch takes another 1 %). The rows also differ in machine and precision; the laboratory changes the number of texts alone.
#
# ### One step on an H100, measured
#
# The step of the second bar has 64 texts of 1024 tokens, in bfloat16, without a compiler (`on_gpu`). *Predict:* what share of its time would the products take at the speed of one large product?

# %%
peak = on_gpu["peak_flops_per_s"]  # of a large matrix product, measured on the same card
reached = on_gpu["flops_per_s"] / planner.KINDS["h100"][0]
forward_products = sum(forward.values()) - forward["head"], forward["head"]
of_step = (*forward_products, 2 * sum(forward.values()), 0)  # FLOPs of one text
print(f"{64 * whole / 1e12:.0f} TFLOP at {peak / 1e12:.0f} TFLOP/s: {64 * whole / peak:.3f} s; "
      f"measured {on_gpu['step_s']:.3f} s, {on_gpu['tokens_per_s']:,.0f} tokens/s")  # fmt: skip
print(f"utilisation {on_gpu['utilisation']:.1%}; of the data sheet {reached:.1%}")
for part, flops in zip(STAGES, of_step, strict=True):
    plain, joined = (1e3 * of["split"][part] * of["step_s"] for of in (on_gpu, compiled))
    print(f"{part:14} products {64e3 * flops / peak:5.1f} ms, measured {plain:5.1f} ms, "
          f"compiled {joined:5.1f} ms")  # fmt: skip
print(f"optimiser: its traffic {1e3 * per_weight * every / bandwidth['h100']:.1f} ms")

# %% tags=["hide-cell"]
del trainer
assert 1 / 6.6 < 64 * whole / peak / on_gpu["step_s"] < 1 / 6.2
assert math.isclose(64 * whole / peak / on_gpu["step_s"], on_gpu["utilisation"], rel_tol=1e-3)
assert round(reached, 2) == 0.12 and round(compiled["utilisation"], 2) == 0.42
assert [round(1e3 * of["step_s"]) for of in (on_gpu, compiled)] == [405, 158]
assert [round(1e3 * of["split"]["trunk"] * of["step_s"]) for of in (on_gpu, compiled)] == [122, 40]
backward = 64 * 2 * sum(forward.values()) / peak, on_gpu["split"]["backward"] * on_gpu["step_s"]
assert [round(1e3 * seconds) for seconds in backward] == [43, 231]
again = measured["variants"]["bfloat16, recomputed"]["step_s"]
assert round(again / on_gpu["step_s"], 2) == 1.3 and round(again, 2) == 0.53  # exercise 3

# %% [markdown]
# At full speed the products would take a sixth of the time. Where do the other five sixths go? One suspect is the work between the products (norms, shifts, scales and gates, dropout, a float32 loss over 50 258 columns): it has few FLOPs a byte, like the optimiser. We count its traffic in the trunk only; the largest gap, that of the backward pass (231 against 43 ms), is not counted. (The optimiser's part is four times its traffic. It also holds the clipping of the gradient, section 6; the rest of the gap was not explored.)
#
# The laboratory counts what the trunk moves if each operation reads its inputs from memory and writes its results: 245 GB, 73 ms at 3.35 TB/s, four times the 18 ms of its products. The measured time is 122 ms. The control is a **compiler** (`--compile true`): in the trunk it leaves the products as they are, and joins the small operations between them, so that fewer results are written and read again. (It also starts fewer operations, so two things change at once.) With it the trunk takes 40 ms, and a step 158 instead of 405: a utilisation of 42 %, or 31 % of the data sheet.

# %% [markdown]
# ## 4. Does it fit? A batch in parts
#
# Five copies are in memory in any case: weights, gradients, Adam's two moments and the averaged weights, and with bfloat16 a sixth, smaller one. **Activations** are what the forward pass keeps for the backward pass; they grow with the number of texts. `planner.memory` counts both.

# %% tags=["hide-input"]
#| alt: Stacked bars for 1 to 64 texts at a time. The copies of the weights stay at 4 GB.
#| Activations grow from 0.5 to 33 GB, the head to 5. Dashed lines at 24 and 48 GB: 16 texts fit
#| under 24. A ring, measured for 64 texts, lies at 41 GB, just below the top of its bar.
batches = (1, 8, 16, 32, 64)
sizes = [planner.memory(config, 1024, batch) for batch in batches]
changing = ("activations", "head")
copies = [sum(v for part, v in size.items() if part not in changing) for size in sizes]
parts = {"weights, in copies": (copies, plots.BLUE)}
for part, colour in (("activations", plots.ORANGE), ("head", plots.GREEN)):
    parts[part] = ([size[part] for size in sizes], colour)
rooms = {"RTX 3090, RTX 4090,\nA10, L4: 24 GB": 24e9, "L40S: 48 GB": 48e9}
fig, ax = plots.plt.subplots(figsize=(8, 3.9))
peaks = {64: on_gpu["peak_memory"]}
plots.show_memory(ax, batches, parts, rooms, peaks)
ax.set_title("Each text of 1024 tokens adds 0.5 GB of activations (planned)");

# %% tags=["hide-cell"]
each = (sizes[-1]["activations"] - sizes[0]["activations"]) / 63
assert 0.45e9 < each < 0.55e9 and len({round(size) for size in copies}) == 1
assert math.isclose(sum(sizes[0][k] for k in list(sizes[0])[:4]), 5 * 4 * sum(counts.values()))
assert sum(sizes[2].values()) < 0.9 * 24e9 < sum(sizes[3].values()) and copies[0] < 4e9
assert 265e9 < sum(planner.memory(config, 1024, 512).values()) < 275e9

# %% [markdown]
# *What to see.* The copies of the weights stay below 4 GB. A batch of 512 texts would need about 270 GB. Does the plan hold on the H100, also with blocks *recomputed* (a block's input alone is kept, and the backward pass runs the block again)?

# %%
from dataclasses import replace

for recompute, name in ((False, "bfloat16"), (True, "bfloat16, recomputed")):
    changed = replace(config, checkpoint_activations=recompute)
    plan = sum(planner.memory(changed, 1024, 64).values())
    names = name, name.replace("16", "16, compiled")
    real, joined = (measured["variants"][name]["peak_memory"] for name in names)
    print(f"{name:21} planned {plan / 1e9:.1f} GB, measured {real / 1e9:.1f} "
          f"({plan / real - 1:+.0%}), compiled {joined / 1e9:.1f}")  # fmt: skip

# %% tags=["hide-cell"]
assert round(100 * (plan / real - 1)) == -14 and joined < real  # recomputed

# %% [markdown]
# The plan is 3 % above the measured peak. With recomputing it is 14 % below the peak: leave a fifth more room than it says. A compiler lowers both peaks.
#
# No GPU of section 5 holds the 270 GB of a whole batch. So a step is done in parts, and the gradients are added up (*gradient accumulation*). The loss is a mean over texts, so with equal parts the mean of the parts' gradients is the gradient of the whole:

# %%
from sedd_mini import AbsorbingGraph

torch.manual_seed(0)
small = {"num_tokens": 40, "length": 16, "width": 32, "num_blocks": 1, "num_heads": 2}
network = DiffusionTransformer(DiTConfig(**small, dropout=0.0)).double()
for weight in network.parameters():
    torch.nn.init.normal_(weight, std=0.1)  # as if trained: not all zeros in the head
graph, noise = AbsorbingGraph(40), LogLinearNoise()
x0 = torch.randint(40, (8, 16))  # 8 texts
sigma = noise.total((torch.arange(8) + 0.5) / 8).double()
x = graph.sample_transition(x0, sigma[:, None])


def gradient_in(parts):
    network.zero_grad()
    for rows in torch.arange(8).chunk(parts):
        loss = network(x[rows], sigma[rows], x0=x0[rows], graph=graph).mean()
        (loss / parts).backward()  # adds to the gradients that are there
    return [weight.grad.clone() for weight in network.parameters()]

# %%
assert_close(gradient_in(4), gradient_in(1))

# %% [markdown]
# Here `x` was drawn once for the whole batch, as the library's setting `accumulate` does. If each part draws noise of its own, the gradient has the same mean but another value.

# %% [markdown]
# ## 5. Hours, money, and more than one GPU
#
# The planner divides FLOPs by speed. It *assumes* 40 % of the data sheet's speed, near the upper end of the published range (21 to 46 %, section 2), on any number of GPUs. Our measured step reached 12 %, and 31 % with the compiler; at those speeds a run takes 3.3 and 1.3 times as long as planned. The plan for one GPU:

# %% tags=["nbval-check-output"]
night = 10 * 3600  # seconds
print("GPU       a batch of 512 in   tokens in a night   400 000 steps take")
for kind in ("t4", "v100", "rtx3090", "a10", "l4", "rtx4090", "a100", "h100"):
    speed, room = planner.KINDS[kind]
    precision = "float32" if kind in planner.NO_BFLOAT16 else "bfloat16"
    parts = planner.smallest_accumulate(config, 1024, 512, 0.9 * room, precision=precision)
    tokens = 0.4 * speed * night / (whole / 1024)
    days = 400_000 * 512 * 1024 / tokens * night / 86_400
    print(f"{kind:9} {parts:8} parts   {tokens / 1e9:9.2f} billion   {days:11.1f} days")

# %% [markdown]
# The T4 and the V100 have no bfloat16 in hardware, so products there are in float32. For a fixed number of FLOPs, left-to-right models have the lowest loss with about 20 tokens for each parameter (Hoffmann et al. 2022), here 3.4 billion. The published run read 60 to 200 times as many.
#
# A whole plan, for eight H100 at an assumed price of 2.50 an hour each, is one command: `python -m sedd_mini plan --preset small --steps 400000 --gpus 8 --kind h100 --price 2.5`.

# %% tags=["nbval-check-output"]
print(planner.plan(preset("small", steps=400_000), gpus=8, kind="h100", price=2.5))
for of, name in ((on_gpu, "measured"), (compiled, "compiled")):
    hours = 400_000 * 512 * whole / (8 * of["flops_per_s"]) / 3600
    share = of["flops_per_s"] / planner.KINDS["h100"][0]
    print(f"at the {share:.0%} {name}: {hours:.0f} hours, {hours * 8 * 2.5:.0f}")

# %% tags=["hide-cell"]
enough = 20 * planner.parameters(config)
assert 3.3 < 0.4 / reached < 3.35 and 1.28 < 0.4 / share < 1.32
assert 3.35e9 < enough < 3.45e9
assert 60 < 400_000 * 512 * 1024 / enough < 63 and 195 < 1_300_000 * 512 * 1024 / enough < 205

# %% [markdown]
# Eight GPUs run eight copies of the same program, which `torchrun` starts. Each works on its own rows of the batch:
#
#     python -m sedd_mini train --preset small --accumulate 32 --out runs/small
#     torchrun --nproc_per_node=8 -m sedd_mini train --preset small --accumulate 4 --out runs/small
#
# Both lines work on 16 texts at a time. With `--parallel ddp` (*distributed data parallel*, the default) each process holds all weights, and once a step they exchange the mean of the gradients. With `--parallel fsdp` (*fully sharded data parallel*) each holds a share of weights, gradients and moments, for networks that do not fit on one GPU. Eight processes take the same steps as one, up to rounding (laboratory).

# %% [markdown]
# ## 6. Watching a run
#
# Here is a small network: two blocks of width 64, on the documentation in 1024 word pieces. First the two levels:

# %%
def frequency_cost(tokens, blocks, N):
    """Nats a token of a model that knows how often each token occurs in `tokens`."""
    counts = tokens.flatten().bincount(minlength=N) + 0.1  # 0.1: for tokens that never occur
    return -(counts / counts.sum()).log()[blocks].mean().item()


docs = load_corpus("docs", 64)
N, train_tokens = docs.tokenizer.vocab_size, torch.as_tensor(docs.train[:])  # (blocks, 64)
levels = {"guessing": math.log(N), "frequencies": frequency_cost(train_tokens, train_tokens, N)}
print(", ".join(f"{name} {level:.2f}" for name, level in levels.items()), "nats a token")

# %% [markdown]
# Three runs differ in one number, the learning rate: 0.003, 0.1 and 3. It rises for 20 steps and then stays. (`draws="counted"` draws the number of hidden tokens instead of their share: chapter 07's laboratory.)
#
# *Predict:* which of them breaks, and does it break while the rate rises or later?

# %%
sizes = {"length": 64, "width": 64, "num_blocks": 2, "num_heads": 2, "cond_dim": 16}
course = {"batch_size": 32, "steps": 60, "warmup": 20, "decay": "none", "draws": "counted"}


def watch(lr, clip=1.0):
    """The losses, the error that ended the run, if one did, and the norms before clipping."""
    options = sizes | course | {"lr": lr, "clip": clip, "device": "cpu", "precision": "float32"}
    trainer, losses, norms = Trainer(preset("docs", **options), docs), [], []
    try:
        while trainer.step < course["steps"]:
            losses.append(trainer.train_step())
            norms.append(float(trainer.grad_norm))
    except FloatingPointError as error:
        return losses, str(error).split(";")[0], norms
    return losses, "to the end", norms


runs = {lr: watch(lr) for lr in (0.003, 0.1, 3.0)}
for lr, (values, end, norms) in runs.items():
    print(f"learning rate {lr:<5}  {len(values):3} steps: {end}")
    first = ", ".join(f"{norm:,.1f}" for norm in norms[:3])
    print(f"  norm of the gradient: {first} in steps 1 to 3, at most {max(norms):,.1f}")

# %% tags=["hide-input"]
#| alt: Left, two loss curves on a narrow linear axis. Both fall from guessing, 6.9 nats, to the
#| frequencies, 5.95. Green leaves the panel twice, near steps 5 and 20, and comes back; purple
#| leaves it at step 2. Right, all three on a log axis: green leaps above 100 and returns; purple
#| climbs from 7 to above 10 000 in three steps and ends.
healthy, leaping, lost = (values for values, *_ in runs.values())
fig = plots.show_three_runs({lr: values for lr, (values, *_) in runs.items()}, levels)
fig.axes[0].set_title("Rates 0.003 and 0.1 both reach the frequencies")
fig.axes[1].set_title("Rate 3 breaks at step 4 (log axis)");

# %% tags=["hide-cell"]
assert [end == "to the end" for _, end, _ in runs.values()] == [True, True, False]
assert len(lost) == 3 and all(b > 10 * a for a, b in zip(lost, lost[1:]))
assert max(leaping[:40]) > levels["guessing"] + 1 > max(healthy)
for values in (healthy, leaping):
    assert abs(sum(values[-20:]) / 20 - levels["frequencies"]) < 0.3
assert abs(5.95 - levels["frequencies"]) < 0.02

# %% [markdown]
# *What to see.* Blue falls from guessing to the frequencies and then hardly moves: this is chapter 07's **plateau**, on which the run on the H100 rested too. Green leaves the left panel twice and comes back. Purple is lost while the rate still rises: each loss is more than ten times the one before. The fourth is infinite (the message counts steps from 0).
#
# Signs of trouble, from mild to grave: the gradient's norm grows (`grad_norm` in a run's log), single losses leap and take longer each time to come back, the loss settles *above* the frequencies, inf or NaN. Usual remedies, in this order: a lower learning rate, a longer warm-up, `--precision float32`. (Exercise 4 asks about `clip`.) `--change lr --lr 1e-4` goes on from the last checkpoint with another rate.
#
# **When a loss is not finite.** One NaN in the gradient makes its norm NaN. Clipping would make the whole gradient NaN, and the optimiser's step would make every weight NaN. So the loop checks loss and norm *before* the optimiser acts. If one is not finite, it stops, and writes the batch into the run's folder. (There, `weight` says how much a text counts, and `key` is the number from which its dropout is drawn.) We break a weight on purpose:

# %% tags=["nbval-check-output"]
import tempfile

from safetensors.torch import load_file

language = load_corpus("synthetic", 32)
brief = preset("synthetic", width=32, num_blocks=1, num_heads=2, cond_dim=16, steps=8,
               batch_size=8, device="cpu", precision="float32")  # fmt: skip
with tempfile.TemporaryDirectory() as folder:
    broken = Trainer(brief, language, out=folder)
    with torch.no_grad():
        broken.model.output_layer.linear.bias[3] = float("nan")
    averages = [weight.clone() for weight in broken.average.parameters()]
    try:
        broken.train_step()
    except FloatingPointError as error:
        print(str(error).split(";")[0])
    (kept,) = Path(folder).glob("not-finite*")
    print(kept.name, {name: tuple(v.shape) for name, v in sorted(load_file(kept).items())})
    broken.close()

# %% tags=["hide-cell"]
assert all(torch.equal(a, b) for a, b in zip(averages, broken.average.parameters(), strict=True))

# %% [markdown]
# With the last checkpoint and this batch you can find the first layer that returns NaN. An interrupted run goes on with the same command (on a CPU bit for bit, laboratory).

# %% [markdown]
# ## 7. The weights that were released
#
# The authors have published their networks, and `load_pretrained` reads them by name. The next cell loads the small one from your disk, or with `DOWNLOAD = True` first fetches 0.7 GB from the Hugging Face hub. This edition was made without it.

# %%
from huggingface_hub import try_to_load_from_cache
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.text.tokenizers import gpt2_tokenizer

DOWNLOAD = False
name, released = "louaaron/sedd-small", None
wanted = [(name, "config.json"), (name, "model.safetensors"), ("gpt2", "tokenizer.json")]
found = [try_to_load_from_cache(*file) for file in wanted]
if DOWNLOAD:
    released = (*load_pretrained(name), gpt2_tokenizer("gpt2"))
elif all(isinstance(path, str) for path in found):
    released = (*load_pretrained(Path(found[0]).parent), gpt2_tokenizer(Path(found[2]).parent))
else:
    print(f"{name} is not on this disk, and DOWNLOAD is False")

# %% [markdown]
# These functions do what chapters 08, 09 and 04 did with small networks: write a text, fill gaps, bound $-\log p$ of a text.

# %%
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.model import template
from sedd_mini.samplers import sample


def write_and_fill(network, graph, noise, tokenizer, length, sentence, steps=32):
    """A text of `length` tokens, and `sentence` with its gaps ____ filled, twice."""
    generator = torch.Generator().manual_seed(0)
    y = sample(network, graph, noise, (1, length), steps, generator=generator)
    given = template(tokenizer, text=sentence, gap=1)  # (L,): -1 where a token is missing
    z = sample(network, graph, noise, (2, len(given)), steps, clamp=given, generator=generator)
    return y, z, given


def bound(network, graph, noise, tokenizer, text):
    """An upper bound on -log p of the text, in nats, with its error."""
    x0 = torch.tensor([tokenizer.encode(text)])  # (1, L)
    return likelihood_bound(
        network, graph, noise, x0, times_each=16, loss=diffusion_weighted_in_head,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip


sentence = "Return True if the object is ____ instance of the class, and ____ otherwise."
if released:
    y, z, _ = write_and_fill(*released, 96, sentence)
    print(*map(released[-1].decode, [*y.tolist(), *z.tolist()]), sep="\n")

# %% [markdown]
# The laboratory runs them on a small network, and has the published perplexities. Seconds on the H100, measured:

# %% tags=["nbval-check-output"]
for found in measured["sampling"]:
    seconds, steps = found["seconds"], found["steps"]
    print(f"{found['samples']:2} × 1024 tokens, {steps:4} steps: {seconds:4.1f} s, "
          f"{1e3 * seconds / steps:4.1f} ms a step")  # fmt: skip

# %% tags=["hide-cell"]
one, long_one, sixteen = (found["seconds"] for found in measured["sampling"])
assert round(long_one / one) == 6 and round(sixteen / one) == 2

# %% [markdown]
# (The weights had learned nothing; the sampler does the same arithmetic with any.) Eight times the steps take only six times as long, so a part of the first time does not grow with the steps. With 128 steps, sixteen texts take twice as long as one.

# %% [markdown]
# ## What has changed on the page
#
# The loop works on a batch in parts, cuts the gradient's norm at 1, and stops before a bad gradient reaches the weights:
#
# ```diff
# -N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
# +N, L, B, D, HEADS, PARTS = 50_257, 1024, 512, 768, 12, 32
#  ...
#      for _ in range(steps):
# -        loss = loss_of(language.sample(B, L))
#          optimizer.zero_grad()
# -        loss.backward()
# +        for _ in range(PARTS):  # chapter 05's loader, with B // PARTS texts at a time
# +            (loss_of(next(loader)) / PARTS).backward()
# +        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
# +        if not norm.isfinite():
# +            raise FloatingPointError(f"the gradient's norm is {norm}")
#          optimizer.step()
# ```

# %% tags=["hide-cell"]
model = torch.nn.Linear(2, 1)
optimizer, PARTS, loader = torch.optim.AdamW(model.parameters(), 0.1), 4, iter(range(8))
for factor in (1.0, math.nan):
    kept = model.weight.detach().clone()
    optimizer.zero_grad()
    for _ in range(PARTS):
        (model(torch.ones(2) * next(loader) * factor).sum() / PARTS).backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert norm.isfinite() == (factor == 1.0)
    if norm.isfinite():
        optimizer.step()
        assert not torch.equal(kept, model.weight)

# %% [markdown]
# ## Summary
#
# 1. SEDD small has 169.6 million weights and needs 739 million FLOPs a token in training. Its first loss must be about 10.81 nats a token.
# 2. Work with fewer FLOPs a byte than $S/W$ waits for memory, as the optimiser does. In SEDD small, products of few tokens do too, and products of thousands of tokens wait for arithmetic.
# 3. Activations fill the memory, so a batch is worked on in parts, or spread over processes. With the same noise the gradient is the same.
# 4. 400 000 steps would take about 14 hours on eight H100 at 40 % of the data sheet, which the planner assumes, and 18 at the 31 % that was measured on one (45 without the compiler).
# 5. The training loss of a healthy run falls from $\ln N$ to the token frequencies first, and rests there. Whether it overfits, only held-out text tells. A step that is not finite must not reach the weights.

# %% [markdown]
# ## Exercises
#
# Write your answer into the first cell, run it, then run the check.

# %% [markdown]
# ### Exercise 1. Where is the corner? (★☆☆, 10 minutes)
#
# A device does $S$ FLOPs and moves $W$ bytes a second. $m$ tokens, a matrix $(m, n)$, are multiplied with weights $(n, p)$. Numbers have $w$ bytes, and each of the three matrices moves once. Write `fewest_tokens(n, p, w, S, W)`: the smallest $m$ for which the product does not wait for memory, so that $\text{FLOPs}/S \ge \text{bytes}/W$. Return `None` if there is no such $m$.
#
# <details><summary>Hint</summary>
#
# Solve the formula of section 3 for $1/m$. When is there no positive solution? Mind that $m$ is a whole number.
#
# </details>
#
# [Solution](solutions/11_the_full_size_run.ipynb)

# %% tags=["exercise"]
import math


def fewest_tokens(n: int, p: int, w: int, S: float, W: float) -> int | None:
    """Tokens m from which on (m, n) times (n, p) waits for arithmetic."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise
from torch.utils.flop_counter import FlopCounterMode


def both_times(m, n, p, dtype, S, W):  # seconds of arithmetic, seconds of traffic
    a, b = (torch.empty(s, dtype=dtype, device="meta") for s in ((m, n), (n, p)))
    with FlopCounterMode(display=False) as counter:
        c = a @ b
    return counter.get_total_flops() / S, sum(v.nbytes for v in (a, b, c)) / W


with exercise("1"):
    for n, p, dtype, S, W in (
        (768, 3072, torch.bfloat16, 989e12, 3.35e12), (768, 768, torch.bfloat16, 165e12, 1.01e12),
        (3072, 768, torch.float32, 8.1e12, 0.32e12), (768, 50_258, torch.float32, 1e11, 1e10),
    ):  # fmt: skip
        m = fewest_tokens(n, p, dtype.itemsize, S, W)
        case = f"n = {n}, p = {p}, {dtype.itemsize} bytes"
        assert isinstance(m, int) and m > 0, f"{case}: {m!r} is not a whole number of tokens"
        times, fewer = (both_times(k, n, p, dtype, S, W) for k in (m, m - 1))
        assert times[0] >= times[1], f"{case}: with {m} tokens it still waits for memory"
        assert fewer[0] < fewer[1], f"{case}: fewer tokens than {m} do as well"
    thin = fewest_tokens(64, 64, 2, 989e12, 3.35e12)
    assert thin is None, "n = p = 64 on an H100: does any number of tokens suffice?"

# %% [markdown]
# ### Exercise 2. Unequal parts (★★☆, 15 minutes)
#
# A batch of 10 texts is worked on with at most 4 at a time, so the parts have 4, 4 and 2 texts. `loss(rows)` returns the mean loss of these texts. Write `accumulate(weights, loss, batch, most)`: it leaves in each `weight.grad` the gradient of the mean loss over the whole batch, and holds the activations of one part at a time.
#
# <details><summary>Hint</summary>
#
# How often must a text of the last part count, compared with a text of the first? And what was in `.grad` before?
#
# </details>
#
# [Solution](solutions/11_the_full_size_run.ipynb)

# %% tags=["exercise"]
import torch


def accumulate(weights: list[torch.Tensor], loss, batch: torch.Tensor, most: int) -> None:
    """loss(rows) is a mean over rows; batch (B, …); changes nothing but weight.grad."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("2"):
    generator = torch.Generator().manual_seed(0)
    batch = torch.randn(10, 3, generator=generator).double()
    start = torch.randn(3, generator=generator).double()
    w, alive, largest = start.clone().requires_grad_(), set(), [0]

    def loss(rows):
        size = len(rows)
        value = (rows @ w).tanh().square().mean()
        alive.add(key := object())
        largest[0] = max(largest[0], size)
        assert len(alive) == 1, "two parts are held at a time: call backward on one part first"
        value.register_hook(lambda grad: alive.discard(key))
        return value

    (right,) = torch.autograd.grad((batch @ w).tanh().square().mean(), w)
    for most in (10, 5, 4, 3, 1):
        w.grad, largest[0] = torch.full_like(w, 7.0), 0  # left over from the last step
        accumulate([w], loss, batch, most)
        assert w.grad is not None, "weight.grad is None"
        assert largest[0] <= most, f"a part of {largest[0]} texts, where at most {most} fit"
        ratio = (w.grad @ right / (right @ right)).item()
        wrong = f"{most} at a time: the gradient is wrong (its size, compared: {ratio:.3f})"
        assert torch.allclose(w.grad, right, rtol=1e-9), wrong
        assert torch.equal(w.detach(), start), "the weights themselves were changed"

# %% [markdown]
# ### Exercise 3. A small GPU (★★☆, 15 minutes)
#
# Write `most_texts(config, length, room, recompute)`: the largest number of texts that can be worked on at a time in at most `room` bytes, planned with `planner.memory`. With `recompute` (in the configuration: `checkpoint_activations=True`) the backward pass computes the blocks' activations again. If not even one text fits, return 0. Then compare for `room = 0.9 * 24e9`: does recomputing make a step of 512 texts, done in parts, any faster? Use section 3.
#
# <details><summary>Hint</summary>
#
# `dataclasses.replace(config, checkpoint_activations=...)` makes a changed copy. Memory grows with the number of texts: count up, or halve an interval.
#
# </details>
#
# [Solution](solutions/11_the_full_size_run.ipynb)

# %% tags=["exercise"]
from sedd_mini.network.dit import DiTConfig


def most_texts(config: DiTConfig, length: int, room: float, recompute: bool) -> int:
    """Texts of `length` tokens at a time, in at most `room` bytes."""
    raise NotImplementedError

# %% tags=["check"]
import dataclasses

from sedd_mini.exercises import exercise
from sedd_mini.network.dit import DiTConfig
from sedd_mini.training import planner

with exercise("3"):
    medium = DiTConfig(width=1024, num_blocks=24, num_heads=16)
    again = DiTConfig(checkpoint_activations=True)
    need = lambda c, length, n: sum(planner.memory(c, length, n).values())
    for c, length, room in (
        (DiTConfig(), 1024, 0.9 * 24e9), (medium, 1024, 0.9 * 24e9), (DiTConfig(), 512, 16e9),
        (medium, 1024, 5e9), (DiTConfig(), 1024, need(DiTConfig(), 1024, 7)), (again, 1024, 20e9),
        (again, 1024, need(again, 1024, 7)), (DiTConfig(dropout=0.0), 256, 80e9),
        (DiTConfig(absorbing=False), 1024, 0.9 * 24e9),
    ):  # fmt: skip
        for recompute in (False, True):
            given = dataclasses.replace(c)
            n = most_texts(given, length, room, recompute)
            case = f"{c}, L = {length}, {room / 1e9:.2f} GB, {recompute=}"
            assert given == c, "the configuration that was passed in has been changed"
            assert type(n) is int and n >= 0, f"{case}: {n!r} is no number of texts"
            other = dataclasses.replace(c, checkpoint_activations=recompute)
            assert n == 0 or need(other, length, n) <= room, f"{case}: {n} texts do not fit"
            assert need(other, length, n + 1) > room, f"{case}: more texts than {n} fit"

# %% [markdown]
# ### Exercise 4. Would clipping have saved the lost run? (★★★, 30 minutes)
#
# The loop cuts the norm of the gradient to `clip`: if the norm is larger, the gradient is multiplied by clip/norm. The run with learning rate 3 broke although `clip` was 1. Would 0.01 have saved it? Write `adam_path` (clipping, and the AdamW of chapter 07's exercise 4): the positions of a weight vector, starting at 0, after each step of Adam with clipping, with $\beta_1 = 0.9$, $\beta_2 = 0.99$, $\epsilon = 10^{-8}$ and no weight decay:
#
# $$m \leftarrow \beta_1 m + (1-\beta_1)\, g, \quad v \leftarrow \beta_2 v + (1-\beta_2)\, g^2, \quad w \leftarrow w - \text{lr}\, \frac{m/(1-\beta_1^n)}{\sqrt{v/(1-\beta_2^n)} + \epsilon} \quad (n = 1, 2, \dots)$$
#
# The lost run met gradients of norms 0.8, 15 000 and 1.4 million. Follow random gradients of these norms with `clip` 1 and 0.01:
#
# ```python
# g = torch.randn(3, 1000)
# g *= torch.tensor([[0.8], [15e3], [1.4e6]]) / g.norm(dim=1, keepdim=True)
# a, b = adam_path(g, lr=3.0, clip=1.0), adam_path(g, lr=3.0, clip=0.01)
# print((a - b).norm(dim=1) / a.norm(dim=1))  # after each of three steps
# ```
#
# How far apart are the two paths, and what follows for the lost run?
#
# <details><summary>Hint</summary>
#
# Clip first. Then $g$, $m$, $v$ and $w$ are vectors; treat each number alone. In the second question, look at what a constant factor in $g$ does to $m/\sqrt v$.
#
# </details>
#
# [Solution](solutions/11_the_full_size_run.ipynb)

# %% tags=["exercise"]
import torch


def adam_path(gradients: torch.Tensor, lr: float, clip: float) -> torch.Tensor:
    """gradients (steps, d), as they come before clipping → positions (steps, d)"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("4"):
    g = torch.randn(12, 5, generator=torch.Generator().manual_seed(0)).double()
    steep = g[:3] / g[:3].norm(dim=1, keepdim=True) * torch.tensor([[0.8], [15e3], [1.4e6]])
    pause = g * (torch.arange(12) % 3 > 0)[:, None]  # every third gradient is zero
    for name, row, lr, clip in (
        ("random gradients", g, 0.1, 1e9), ("small ones", 0.1 * g, 0.1, 1.0),
        ("random gradients", g, 0.1, 1.0), ("tiny ones", 1e-7 * g, 0.02, 1.0),
        ("the lost run's norms", steep, 3.0, 1.0), ("the lost run's norms", steep, 3.0, 0.01),
        ("some gradients are zero", pause, 0.1, 1.0), ("a hundred steps", g.repeat(9, 1), 0.1, 2.0),
    ):  # fmt: skip
        w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        adam, path = torch.optim.AdamW([w], lr, betas=(0.9, 0.99), weight_decay=0.0), []
        for one in row:
            w.grad = one.clone()
            torch.nn.utils.clip_grad_norm_([w], clip)
            adam.step()
            path.append(w.detach().clone())
        found = adam_path(given := row.clone(), lr, clip)
        assert torch.equal(given, row), "the gradients that were passed in have been changed"
        assert found.shape == row.shape, f"shape {tuple(found.shape)}, not {tuple(row.shape)}"
        for n, (a, b) in enumerate(zip(found, path, strict=True), 1):
            wrong = f"{name}, clip {clip:g}: step {n} goes to another place"
            assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-6), wrong

# %% [markdown]
# ## Laboratory
#
# Optional reading: are the counts right, what does a block move, what does the number of texts change, does a smaller `clip` save the lost run, what does each acceleration buy, do two processes take the same step as one, does a resumed run take the same steps, does the code of section 7 work, and what was published? Read the sections in any order; their cells run from top to bottom.
#
# ### Counts: does PyTorch count the same?
#
# `FlopCounterMode` adds up the matrix products while a network runs; on `meta` nothing is computed. The second number is chapter 06's rule of six (6 FLOPs a weight and token) divided by the count.

# %% tags=["nbval-check-output"]
from torch.utils.flop_counter import FlopCounterMode

medium = DiTConfig(width=1024, num_blocks=24, num_heads=16)
for name, c in (("small", config), ("medium", medium)):
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        DiffusionTransformer(c)(torch.zeros(1, 1024, dtype=torch.int64), torch.ones(1))
    assert counter.get_total_flops() == sum(planner.forward_flops(c, 1024).values())
    million = planner.parameters(c) / 1e6
    rule = 6e6 * million * 1024 / planner.training_flops(c, 1024)
    print(f"{name:7} {million:.1f} M parameters; the rule of six is {rule:.2f} times the count")
print(f"a step of medium: {planner.training_flops(medium, 1024) / whole:.1f} times one of small")

# %% [markdown]
# The rule counts the embedding, which does no arithmetic, and the head for every token, where half the tokens need it. It leaves out the products of attention, which have no parameters. Medium has a smaller part of its weights in these two tables. The layers of the noise level run once a text and cost almost nothing.
#
# Memory: the head's work space is limited, and with float32 (T4, V100) activations take more.

# %% tags=["nbval-check-output"]
for precision in ("bfloat16", "float32"):
    need = planner.memory(config, 1024, 16, precision)
    print(f"16 texts, {precision:8}: activations {need['activations'] / 1e9:.1f} GB, "
          f"together {sum(need.values()) / 1e9:.1f} GB")  # fmt: skip

# %% tags=["hide-cell"]
heads = [planner.memory(config, 1024, n)["head"] for n in (16, 96)]
assert heads[1] < 1.2 * heads[0]

# %% [markdown]
# ### Traffic: what does a block move, operation by operation?
#
# A *dispatch mode* sees every operation of PyTorch. This one adds the bytes that each one reads and writes, as if nothing stayed near the processor in between. A view (a transpose, a slice) moves nothing.

# %%
import torch.nn.functional as F
from sedd_mini.network.dit import Block
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors(values):
    return [v for v in tree_leaves(values) if isinstance(v, torch.Tensor)]


class TrafficMeter(TorchDispatchMode):
    moved = 0  # bytes

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        read, written = tensors((args, kwargs)), tensors(result)
        owned = {v.untyped_storage()._cdata for v in read}
        if not any(v.untyped_storage()._cdata in owned for v in written):  # no view
            self.moved += sum(v.nbytes for v in read + written)
        return result

# %% [markdown]
# We count the forward pass of one block of the published size, with 128 and with 256 tokens. The difference leaves out the weights and belongs to 128 tokens. All 12 blocks and 65 536 tokens give the trunk of the measured step.

# %%
@torch.no_grad()
def traffic(tokens, dropout):
    """Bytes that the forward pass of one block moves, products in bfloat16."""
    block = Block(replace(config, dropout=dropout))
    x, cond = torch.randn(1, tokens, 768), torch.randn(1, 128)  # (B, L, D), (B, C)
    cos, sin = torch.ones(2, tokens, 64)  # (L, D/H) each
    keys = 2 * [torch.ones(1, dtype=torch.int32) if dropout else None]
    with TrafficMeter() as meter, torch.autocast("cpu", torch.bfloat16):
        block(x, cond, cos, sin, *keys, F.scaled_dot_product_attention)
    return meter.moved


trunk_moves = {}
for dropout in (0.0, 0.1):
    a_token = (traffic(256, dropout) - traffic(128, dropout)) / 128
    trunk_moves[dropout] = 12 * 65_536 * a_token
    print(f"dropout {dropout}: {trunk_moves[dropout] / 1e9:.0f} GB, "
          f"{1e3 * trunk_moves[dropout] / bandwidth['h100']:.0f} ms at 3.35 TB/s")  # fmt: skip
trunk_time = on_gpu["split"]["trunk"] * on_gpu["step_s"]
print(f"products {64e3 * forward_products[0] / peak:.0f} ms, measured {1e3 * trunk_time:.0f} ms")

# %% tags=["hide-cell"]
assert math.isclose(trunk_moves[0.1], 245e9, rel_tol=0.05)
assert math.isclose(trunk_moves[0.1] - trunk_moves[0.0], 109e9, rel_tol=0.05)
assert 3.5 < trunk_moves[0.1] / bandwidth["h100"] / (64 * forward_products[0] / peak) < 4.5

# %% [markdown]
# Dropout has 44 % of this traffic, 32 ms. It computes its masks from a number of each text (*Processes*): each element's mask comes from about ten operations on an int32 of its own. The count was made on a CPU, and a GPU may cut the work into other operations. A compiler joins operations, so that what lies between them is not written. Whether dropout also takes 44 % of the trunk's time is not known: that needs a GPU's step with dropout 0.
#
# ### Texts: is it their number that lowers the optimiser's share?
#
# A narrower network with the same vocabulary, in which only the number of texts changes:

# %%
narrow = {"width": 128, "num_blocks": 4, "num_heads": 4, "length": 32, "steps": 3}
short = load_corpus("docs", 32, tokenizer=padded(pieces, 50_257))
for texts in (1, 4, 16):
    options = narrow | {"batch_size": texts, "device": "cpu", "precision": "float32"}
    trainer = Trainer(preset("small", **options), short)
    for step in range(3):
        trainer.watch.start(running=step > 0)
        trainer.train_step()
    seconds = trainer.watch.seconds
    print(f"{32 * texts:4} tokens a step: optimiser "
          f"{seconds['optimiser'] / sum(seconds.values()):3.0%} of the time")  # fmt: skip

# %% [markdown]
# With more tokens the optimiser's share falls.

# %% [markdown]
# ### Clipping: does 0.01 save the lost run?
#
# (Do exercise 4 first.) The runs of section 6 with rates 3 and 0.1 once more. Only `clip` changes, from 1 to 0.01:

# %%
clipped = {lr: watch(lr, clip=0.01) for lr in (3.0, 0.1)}
for lr, (values, end, _) in clipped.items():
    before = max(runs[lr][0])
    print(f"learning rate {lr}: {len(values)} steps, {end}")
    print(f"  highest loss {max(values):,.0f}, with clip 1 {before:,.0f}")

# %% tags=["hide-cell"]
assert clipped[3.0][1] != "to the end" and len(clipped[3.0][0]) == len(lost)
assert clipped[0.1][1] == "to the end" and max(clipped[0.1][0]) < max(leaping) / 2

# %% [markdown]
# The run with rate 3 breaks in the same step. The one with rate 0.1 leaps less high. The solution of exercise 4 says why.

# %% [markdown]
# ### Races: what does each acceleration buy here?
#
# The library does several things because they are said to be faster. Each is raced against the plain way on your machine, with a narrow network and the full vocabulary. The two take turns, and the shortest time of each counts. At each race an assertion checks that both ways agree, up to rounding; the times are only printed.

# %%
import time

results = []


def race(name, plain, fast, repeats=3):
    times = []
    for _ in range(repeats + 1):  # the first time is slower, and so never the shortest
        for work in (plain, fast):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    results.append((name, min(times[::2]), min(times[1::2])))

# %% [markdown]
# Some ways are there to save memory, so we measure that too. Another dispatch mode adds the bytes of each new tensor, and subtracts them when the tensor is freed:

# %%
import weakref
from functools import partial


def storages(values):
    return [v.untyped_storage() for v in tensors(values)]


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
    with MemoryMeter() as meter:
        work()
    return meter.peak


assert peak_bytes(lambda: torch.ones(1000) + 1) == 8000

# %% [markdown]
# **The loss in the head.** The plain way makes the log-scores of all positions, $B \times L \times 50\,258$ numbers, and applies the loss to them. The way of chapter 06's laboratory (*Rows*) runs the head on hidden positions in pieces, and turns each piece into losses at once.

# %%
torch.manual_seed(0)
lean = {"width": 128, "num_blocks": 2, "num_heads": 2, "length": 64, "dropout": 0.0}
network = DiffusionTransformer(DiTConfig(**lean))
torch.nn.init.normal_(network.output_layer.linear.weight, std=0.02)  # as if trained
graph, noise = AbsorbingGraph(50_257), LogLinearNoise()
x0 = torch.randint(50_257, (2, 64))
sigma = noise.total((torch.arange(2) + 0.5) / 2)
x = graph.sample_transition(x0, sigma[:, None])


def gradients_of(loss):
    network.zero_grad()
    loss().mean().backward()
    return [weight.grad for weight in network.parameters()]


plain = lambda: graph.score_entropy(network(x, sigma), sigma[:, None], x, x0)
in_head = lambda: network(x, sigma, x0=x0, graph=graph)
expected = gradients_of(plain)
assert_close(gradients_of(in_head), expected, rtol=1e-3, atol=1e-4)
race("loss in the head", lambda: gradients_of(plain), lambda: gradients_of(in_head))
bytes_plain, bytes_head = (peak_bytes(partial(gradients_of, way)) for way in (plain, in_head))
print(f"{bytes_head / bytes_plain:.0%} of the memory")

# %% tags=["hide-cell"]
assert bytes_head < 0.7 * bytes_plain

# %% [markdown]
# **bfloat16** has the range of float32 with 8 binary digits instead of 24. Products use it; sums, norms, log-scores and the weights stay in float32. `precision="auto"` asks first whether the processor has the instructions for it; without them it may be many times *slower*, so it is raced only where it is chosen.

# %%
from sedd_mini.network.hardware import choose_precision


def in_bfloat16():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return network(x, sigma, x0=x0, graph=graph)


rough, exact = (torch.cat([g.flatten() for g in gradients_of(w)]) for w in (in_bfloat16, in_head))
print(f"gradient in bfloat16: off by {(rough - exact).norm() / exact.norm():.1%}")
if choose_precision("auto", "cpu") == torch.bfloat16:
    race("products in bfloat16", lambda: gradients_of(in_head), lambda: gradients_of(in_bfloat16))

# %% tags=["hide-cell"]
assert (rough - exact).norm() < 0.05 * exact.norm()

# %% [markdown]
# **Adam in one pass.** Written as a loop, Adam is a dozen operations a tensor, and each reads and writes all of it. `foreach=True` runs each operation over the whole list of tensors. `fused=True` does everything to a number while it is in the processor.

# %%
ways = {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
copies, adam = {}, {}
for way, options in ways.items():
    copies[way] = [w.detach().clone() for w in network.parameters()]
    for copy, weight in zip(copies[way], network.parameters(), strict=True):
        copy.grad = 0.1 * weight.detach()  # any gradient
    adam[way] = torch.optim.AdamW(copies[way], lr=3e-4, **options)
    adam[way].step()
assert_close(copies["foreach"], copies["loop"], atol=1e-6, rtol=1e-5)
assert_close(copies["fused"], copies["loop"], atol=1e-6, rtol=1e-5)
for way in ("foreach", "fused"):
    race(f"Adam, {way}, against the loop", adam["loop"].step, adam[way].step)

# %% [markdown]
# **The averaged weights.** The formula $a \leftarrow \beta a + (1 - \beta) w$ as it stands makes temporary copies. `torch._foreach_lerp_` works in place, on the whole list in one call.

# %%
averages = [[w.clone() for w in copies["loop"]] for _ in range(2)]
current = [w.detach() for w in network.parameters()]


def by_formula():
    for i, w in enumerate(current):
        averages[0][i] = 0.999 * averages[0][i] + 0.001 * w


def in_place():
    torch._foreach_lerp_(averages[1], current, 0.001)


race("average, in place", by_formula, in_place)
assert_close(*averages, atol=1e-6, rtol=1e-4)

# %% [markdown]
# **Recomputing activations** saves memory and costs time. Only the input of each block is kept, and the backward pass runs the block once more (*activation checkpointing*). A small vocabulary here, so that blocks fill the memory and not the head:

# %%
def block_network(recompute):
    torch.manual_seed(0)
    changes = {"num_tokens": 256, "num_blocks": 6, "checkpoint_activations": recompute}
    return DiffusionTransformer(DiTConfig(**lean | changes)).train()


many = torch.randint(256, (16, 64))


def sweep(model):
    model.zero_grad()
    model(many, torch.ones(16)).square().sum().backward()


kept, recomputed = block_network(False), block_network(True)
race("activations recomputed", lambda: sweep(kept), lambda: sweep(recomputed))
bytes_kept, bytes_again = (peak_bytes(partial(sweep, model)) for model in (kept, recomputed))
print(f"{bytes_again / bytes_kept:.0%} of the memory")
assert_close([w.grad for w in kept.parameters()], [w.grad for w in recomputed.parameters()])

# %% tags=["hide-cell"]
assert bytes_again < 0.8 * bytes_kept

# %%
print(f"{'':34} {'plain':>8} {'this way':>9}   plain / this way")
for name, slow, quick in results:
    print(f"{name:34} {slow * 1000:5.1f} ms {quick * 1000:6.1f} ms   {slow / quick:.2f}")

# %% [markdown]
# Numbers below 1 mean slower. They are facts about one machine. **A compiler** (`--compile true`) joins the small operations between products: in each block, and from the logits to the loss and its slopes (`training/compiled.py`, equal to the plain form in every entry). On a CPU it needs a C++ compiler, so it is off by default and not raced here. On a GPU (section 3), `python tests/benchmarks/full_size.py` measures precision, compiler and recomputing at full size; start there.

# %% [markdown]
# ### Processes: is a step on two the step on one?
#
# `batch_size` counts the texts of all processes, so a learning rate that was found on one GPU holds on eight. For this the noise may not depend on how the batch is shared. All processes draw it for the whole batch, from the seed and the step's number, and each keeps its rows. We play two processes in one, by setting the rank (a process's number) by hand:

# %%
from sedd_mini.text.blocks import BlockLoader

tiny = preset("synthetic", width=32, num_blocks=1, num_heads=2, cond_dim=16, batch_size=8,
              dropout=0.1, precision="float64", device="cpu")  # fmt: skip


def process(rank, world_size):
    trainer = Trainer(tiny, language)
    trainer.rank, trainer.world_size = rank, world_size
    trainer.loader = BlockLoader(language.train, 8, tiny.seed, rank, world_size)
    torch.manual_seed(1)
    for weight in trainer.model.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # as if trained
    return trainer

# %% tags=["nbval-check-output"]
alone, first, second = process(0, 1), process(0, 2), process(1, 2)
batches = [trainer.draw_batch() for trainer in (alone, first, second)]
names = ("x0", "x", "t", "weight", "key")
for name, both, top, bottom in zip(names, *batches, strict=True):
    print(f"{name:6} {tuple(top.shape)} and {tuple(bottom.shape)} make {tuple(both.shape)}")
    assert torch.equal(torch.cat([top, bottom]), both)

# %% [markdown]
# (`weight` says how much a row counts, chapter 07. `key` is a sample's number, from which its dropout is made.) The mean of the two gradients is all that `ddp` exchanges, and it is the gradient of the whole batch:

# %%
for trainer, batch in zip((alone, first, second), batches, strict=True):
    trainer.mean_loss(*batch).backward()
weights = [trainer.model.parameters() for trainer in (alone, first, second)]
for both, top, bottom in zip(*weights, strict=True):
    assert_close((top.grad + bottom.grad) / 2, both.grad, rtol=1e-9, atol=1e-12)

# %% [markdown]
# A step in parts agrees as well, after three steps with the optimiser:

# %%
after = []
for parts in (1, 4):
    trainer = Trainer(replace(tiny, accumulate=parts, device="cpu"), language)
    for _ in range(3):
        trainer.train_step()
    after.append(list(trainer.model.parameters()))
assert_close(*after, rtol=1e-6, atol=1e-9)

# %% [markdown]
# The tests of this repository do it with real processes, for `ddp` and `fsdp`, down to the weights (`tests/test_distributed.py`). In float32 the sums come in another order, so the last digits differ. If a process dies, the others stop with a message, and the last checkpoint is whole. On several machines (*nodes*) each one runs this line, with the address of one of them and a folder that all can see:
#
#     torchrun --nnodes=4 --nproc_per_node=8 --rdzv-backend=c10d \
#         --rdzv-endpoint=FIRST_MACHINE:29500 \
#         -m sedd_mini train --preset small --compile true --out SHARED_FOLDER/small
#
# ### Going on: does an interrupted run take the same steps?
#
# Chapter 07's laboratory showed what a checkpoint must hold. Here is the check once more, with the loop of this chapter: one run of eight steps, and one that is stopped after four and started again:

# %%
straight = Trainer(brief, language)
for _ in range(8):
    straight.train_step()
with tempfile.TemporaryDirectory() as folder:
    stopped = Trainer(brief, language, out=folder)
    for _ in range(4):
        stopped.train_step()
    stopped.save()
    stopped.close()
    resumed = Trainer(brief, language, out=folder)
    assert resumed.step == 4  # found in the folder
    for _ in range(4):
        resumed.train_step()
    resumed.close()
for part in ("model", "average"):
    pairs = zip(getattr(straight, part).parameters(), getattr(resumed, part).parameters())
    assert all(torch.equal(a, b) for a, b in pairs)  # bit for bit

# %% [markdown]
# (On a CPU. A GPU may add in another order.)
#
# ### Released weights: does the code of section 7 work?
#
# The same functions on `docs-absorb`, a network of 3 million weights that has read only Python's documentation. Expect its words and names, but no sense. In the two sentences only the gaps are filled.

# %%
stand_in = "checkpoints/docs-absorb"
parts = (*load_pretrained(stand_in), load_tokenizer(stand_in))
y, z, given = write_and_fill(*parts, 64, sentence)
print(parts[-1].decode(y[0].tolist()), *map(parts[-1].decode, z.tolist()), sep="\n---\n")

# %% tags=["hide-cell"]
assert (y < parts[1].num_tokens).all()  # no MASK is left
assert (z[:, given >= 0] == given[given >= 0]).all()  # the given words stand

# %% [markdown]
# And the bound, for a sentence and for its own words in disorder. A network that uses the order of words should give the second one the larger bound.

# %%
ordered = ("Return the number of items in the list. If the list is empty, the method raises an "
           "exception and the value is not changed.")  # fmt: skip
words = ordered.split()
order = torch.randperm(len(words), generator=torch.Generator().manual_seed(0)).tolist()
bounds = [bound(*parts, text) for text in (ordered, " ".join(words[i] for i in order))]
for found in bounds:
    print(f"{found.nats:6.1f} ± {found.error:.1f} nats")

# %% tags=["hide-cell"]
assert bounds[0].nats + 30 < bounds[1].nats

# %% [markdown]
# ### Published results
#
# Perplexities on five data sets that the networks were not trained on (table 1 of Lou et al. 2023; lower is better, and for diffusion models these are upper bounds):
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
# At the small size the absorbing network's bound is below GPT-2 on three of the five sets, and below D3PM (earlier discrete diffusion) on all. In nats a token, the unit of our logs, a perplexity of 40.62 is $\ln 40.62 = 3.70$.

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023. The run of this chapter: section 5 and the appendix on experiments.
# - S. Williams, A. Waterman, D. Patterson, *Roofline: An Insightful Visual Performance Model for Multicore Architectures*, 2009. The source of section 3.
# - J. Austin and others, [*How to Scale Your Model*](https://jax-ml.github.io/scaling-book/), 2025. Rooflines for whole training runs, on TPUs and GPUs.
# - A. Chowdhery and others, [*PaLM*](https://arxiv.org/abs/2204.02311), 2022. Defines model FLOPs utilisation, and compares four large runs.
# - J. Hoffmann and others, [*Training Compute-Optimal Large Language Models*](https://arxiv.org/abs/2203.15556), 2022. Twenty tokens a parameter.
# - P. Micikevicius and others, [*Mixed Precision Training*](https://arxiv.org/abs/1710.03740), 2017. What may be in 16 bits and what may not.
# - T. Chen and others, [*Training Deep Nets with Sublinear Memory Cost*](https://arxiv.org/abs/1604.06174), 2016. Recomputing activations.
# - P. Goyal and others, [*Accurate, Large Minibatch SGD*](https://arxiv.org/abs/1706.02677), 2017. Large batches, and the habit of warming up.
# - Y. Zhao and others, [*PyTorch FSDP*](https://arxiv.org/abs/2304.11277), 2023. Weights in shares.
# - S. Nie and others, [*Large Language Diffusion Models*](https://arxiv.org/abs/2502.09992), 2025. A later masked diffusion model of 8 billion weights, trained on 2.3 trillion tokens.
