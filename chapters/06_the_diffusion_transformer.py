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
# # 06. The diffusion transformer: how can one network answer for every word at every noise level?
#
# The page of chapter 00 has a small transformer, not yet explained. It is not told the noise level, and its last layer gives logits of words, where SEDD needs log-scores. This chapter explains it line by line and turns it into SEDD's network, the **diffusion transformer**.
#
# After this chapter you will be able to
#
# - write each part of the network: embedding, rotary positions, attention, conditioning on the noise, and the head that gives log-scores;
# - explain "scale by σ": which part of a log-score is known in advance, and what happens to training if the network has to learn it;
# - count a network's weights and its arithmetic before you run it.
#
# *You need* chapters 00 to 05. *Running time:* about a minute on two CPU cores.

# %% [markdown]
# ## The lines of the page
#
# ```python
#     def forward(self, h):  # (B, L, D)
#         q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
#         mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v)  # (B, HEADS, L, D/HEADS)
#         h = h + self.out(mixed.transpose(1, 2).flatten(2))
#         return h + self.mlp(self.norm2(h))
# ...
#     nn.Embedding(N + 1, D), Block(), Block(), Block(), nn.LayerNorm(D), nn.Linear(D, N)
# ```
#
# Sections 1 to 3 explain these lines. Section 4 tells the network the noise level, and section 5 replaces the last layer.

# %% [markdown]
# ## A picture first

# %%
import math

import torch
import torch.nn.functional as F
from sedd_mini import plots
from torch import nn

torch.set_num_threads(1)  # networks as small as ours are fastest on one core
plots.use_style()

# %% tags=["hide-input"]
#| alt: A row of boxes with arrows: tokens x, embedding, block 1, block 2, head, log-scores. Below,
#| the noise level becomes a condition c, from which orange arrows lead to both blocks and to the
#| head. Above, rotary positions enter the two blocks.
fig = plots.show_network()
fig.suptitle("The diffusion transformer: a table of log-scores from tokens and a noise level",
             x=0.01, ha="left", fontsize=12);  # fmt: skip

# %% [markdown]
# *What to see.* $B$ is the number of sequences in a batch, $L$ their length. Each position carries a vector of $D$ numbers (the **width**), and every block adds something to it. SEDD small has 12 blocks and $D = 768$; ours has two blocks and $D = 32$.

# %% [markdown]
# ## 1. Tokens become vectors
#
# Our examples are sentences of six tokens from a language of five words; the full stop is one of them. ■ is MASK. Here are two noisy sentences, the first at total noise $\bar\sigma = 0.2$, the second at 1.5.

# %% tags=["pieces"]
words = ["the", "cat", "saw", "dog", ".", "■"]
N, L, D, HEADS, C = 5, 6, 32, 4, 16  # words, positions, width, heads, condition (section 4)
MASK = N

# %%
x = torch.tensor([[0, 5, 2, 0, 3, 4], [5, 5, 2, 5, 5, 4]])  # (B, L)
sigma = torch.tensor([0.2, 1.5])  # (B,)
for row in x:
    print(" ".join(words[i] for i in row))

# %% [markdown]
# A token's number is only a name. So each of the $N + 1$ states gets a row of $D$ learned numbers, which `nn.Embedding` looks up. This equals the token's one-hot vector times the table.

# %%
torch.manual_seed(0)
embed = nn.Embedding(N + 1, D)
h = embed(x)  # (B, L, D)
assert torch.allclose(h, F.one_hot(x, N + 1).float() @ embed.weight)

# %% [markdown]
# A row says which word it is, but not where it stands: both *the* of the first sentence have the same 32 numbers.

# %% tags=["hide-cell"]
assert torch.equal(h[0, 0], h[0, 3]) and not torch.equal(h[0, 0], h[0, 2])

# %% [markdown]
# ## 2. Where is a word? Rotary positions
#
# Attention (section 3) compares two positions by a dot product $q \cdot k$. The *query* $q$ is made from the vector of one position, the *key* $k$ from that of the other. The product should depend on the *offset* of the two words: how far apart they are, and which comes first.
#
# **Rotary positions** turn every query and key by an angle proportional to its position. In the plane, the matrix that turns a vector by $a$ radians is
#
# $$R_a = \begin{pmatrix} \cos a & -\sin a \\ \sin a & \cos a \end{pmatrix} .$$
#
# A vector of $d$ numbers is cut into $d/2$ pairs: entry $i$ of its first half goes with entry $i$ of its second half. Pair $i$ turns by $\theta_i = 10\,000^{-i/(d/2)}$ radians a position. The first pairs turn fast and tell neighbours apart. The last pairs turn slowly and tell distant positions apart.

# %%
def turn(vectors):  # (L, d)
    out, half = vectors.clone(), vectors.shape[-1] // 2
    for position in range(len(vectors)):
        for i in range(half):
            a = position * 10_000 ** (-i / half)
            R = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
            out[position, [i, i + half]] = R @ vectors[position, [i, i + half]]
    return out

# %% [markdown]
# The page's `rotate` computes the same without loops:

# %% tags=["pieces"]
def rotate(x):
    """Turn the pairs of x (B, HEADS, L, D/HEADS) by angles that grow with the position."""
    a, b = x.chunk(2, dim=-1)
    speed = 10_000 ** (-torch.arange(a.shape[-1]) / a.shape[-1])
    angle = torch.arange(x.shape[-2])[:, None] * speed  # (L, D/HEADS/2)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

# %%
vectors = torch.randn(6, 8)
assert torch.allclose(rotate(vectors), turn(vectors), atol=1e-6)

# %% [markdown]
# *Predict:* we put one query $q$ at all of 24 positions, and one key $k$, turn them, and make the 24 × 24 table of dot products. Which cells will be equal? Then run the next cells.

# %%
q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
dots = rotate(q.expand(24, 16)) @ rotate(k.expand(24, 16)).T  # (24, 24)

# %% tags=["hide-input"]
#| alt: Left, six arrows from one point, turned further and further, numbered 0 to 5. Right, a
#| table of 24 by 24 coloured cells with stripes along the diagonals.
fig = plots.show_turns(0.4, dots)
fig.suptitle("The product of a turned query and key depends on the offset of the positions alone",
             x=0.01, ha="left", fontsize=12);  # fmt: skip

# %% tags=["hide-cell"]
for distance in range(-23, 24):
    assert dots.diagonal(distance).std(correction=0) < 1e-4
assert dots.std() > 1  # and different distances do give different ones

# %% [markdown]
# *What to see.* Left: one pair, turned by 0.4 radians a position. Right: every diagonal has a single colour. So the product depends on the offset alone. A comparison learned at one place works at every other.
#
# The reason: if two vectors are turned by the same angle, their dot product does not change, so only the difference of the angles counts. For positions $m$ and $n$ and one pair, turned by $\theta$ radians a position,
#
# $$(R_{m\theta}\, q) \cdot (R_{n\theta}\, k) = q \cdot R_{(n-m)\theta}\, k .$$

# %% [markdown]
# ## 3. Attention: looking at the other words
#
# To guess a hidden word one needs the words around it. In **attention** each position makes three vectors from its own: a query $q$ (what am I looking for?), a key $k$ (what do I offer?) and a value $v$ (what do I pass on?). Position $i$ makes weights that sum to 1 from the products of its query with all keys, and takes the weighted mean of the values. With $d$ numbers in a query,
#
# $$a_{ij} = \frac{\exp(q_i \cdot k_j / \sqrt{d})}{\sum_{j'} \exp(q_i \cdot k_{j'} / \sqrt{d})}, \qquad
# o_i = \sum_j a_{ij}\, v_j .$$
#
# The product $q_i \cdot k_j$ is a sum of $d$ terms. If these are independent, with mean 0, the sum grows like $\sqrt d$, and the division undoes this. Here is the formula with loops. Queries and keys are turned; values are not.

# %%
def attend_slowly(q, k, v):  # (L, d) each
    q, k, o = turn(q), turn(k), torch.zeros_like(v)
    for i in range(len(q)):
        e = [torch.exp(q[i] @ k[j] / math.sqrt(q.shape[-1])) for j in range(len(k))]
        for j in range(len(k)):
            o[i] += e[j] / sum(e) * v[j]
    return o

# %% [markdown]
# The page calls PyTorch's function, which is far faster:

# %% tags=["pieces"]
def attend(q, k, v):  # (..., L, d) each
    return F.scaled_dot_product_attention(rotate(q), rotate(k), v)

# %%
q, k, v = torch.randn(3, 6, 8)
assert torch.allclose(attend(q, k, v), attend_slowly(q, k, v), atol=1e-6)

# %% [markdown]
# A single query gives one weighted mean. So the width is cut into `HEADS` parts, the **heads**, each with its own queries, keys and values of $d$ = `D/HEADS` numbers. One matrix makes them all; `unflatten` and `permute` sort its $3D$ numbers into `q`, `k` and `v`, each (B, HEADS, L, D/HEADS). Another matrix mixes the answers of the heads:

# %%
qkv, out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)


@torch.no_grad()
def attention(h, attend=attend):  # (B, L, D)
    q, k, v = qkv(h).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    return out(attend(q, k, v).transpose(1, 2).flatten(2))  # from (B, HEADS, L, D/HEADS)

# %% [markdown]
# ### Why there is no mask
#
# A left-to-right model must not see the word that it predicts. It uses a **causal mask**: $a_{ij} = 0$ for all $j > i$. Our network needs no mask: it never reads the clean text. We change one token $j$ and measure how far attention's answer at each position $i$ moves, in lengths of that answer (random weights):

# %% tags=["pieces"]
def attend_left(q, k, v):
    return F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)

# %%
def influence(attend):
    before, columns = attention(embed(x[:1]), attend), []  # (1, L, D)
    for j in range(L):
        changed = x[:1].clone()
        changed[0, j] = (changed[0, j] + 1) % (N + 1)
        moved = attention(embed(changed), attend) - before
        columns.append((moved.norm(dim=-1) / before.norm(dim=-1))[0])
    return torch.stack(columns, -1)  # (L, L): position i notices, token j changed


both_sides, left_only = influence(attend), influence(attend_left)

# %% tags=["hide-input"]
#| alt: Two tables of 6 by 6 cells. Without a mask every cell is blue. With a causal mask
#| those above the diagonal are white, the others blue: a position notices its left side and itself.
#| A bar at the right says what the colours mean: from 0 to 1.7 lengths of the answer.
panels = {"no mask (ours)": both_sides, "causal mask (left to right)": left_only}
fig = plots.show_influence(panels, [words[i] for i in x[0]])
title = "Without a mask a position notices every change, with a causal mask none to its right"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% tags=["hide-cell"]
assert (both_sides > 0.01).all()
assert (left_only.triu(1) == 0).all() and (left_only.tril() > 0).sum() == 21

# %% [markdown]
# *What to see.* Darker cells are larger changes; white is none. With a causal mask the ■ learns about *the* and itself only, without it about the whole sentence. An advantage of the causal mask: keys and values of earlier words never change and can be kept (a *KV cache*).
#
# Two parts of the page's block remain. `nn.LayerNorm` brings the vector at each position to mean 0 and variance 1, then multiplies each feature by a learned weight (and, on the page, adds a learned bias). The **MLP** works at each position alone: a layer to $4D$ numbers, a smooth nonlinearity (GELU), and a layer back. Both attention and MLP *add* their answer to $h$. (Laboratory: norm, GELU.)

# %% [markdown]
# ## 4. How noisy is it? Shift, scale and gate
#
# With uniform noise a visible word may be wrong, and how far to trust it depends on $\bar\sigma$. So the network is told $\bar\sigma$. A linear layer can only stretch and shift a single number, so we first spread it over 256 **features**, cosines and sines with 128 speeds, as in section 2:
#
# $$\cos(f_k \bar\sigma),\; \sin(f_k \bar\sigma), \qquad f_k = 10\,000^{-k/128}, \quad k = 0, \dots, 127 .$$

# %% tags=["pieces"]
def features(sigma):
    f = 10_000 ** (-torch.arange(128) / 128)
    a = sigma[:, None] * f  # (B, 128)
    return torch.cat([a.cos(), a.sin()], -1)  # (B, 256)

# %% [markdown]
# Two linear layers, each followed by the smooth nonlinearity SiLU, turn the features into the **condition** $c$, a vector of $C$ numbers (128 in SEDD, 16 here). From $c$ one linear layer in each block makes six vectors of $D$ numbers: a **shift**, a **scale** and a **gate** for each half of the block.

# %% tags=["hide-input"]
#| alt: A diagram. h goes through norm, times (1 + scale) plus shift, attention or MLP, times gate,
#| and is added to h, which also goes past unchanged. The condition c, from the noise level, feeds
#| the scale and shift and the gate.
fig = plots.show_half_a_block()
fig.suptitle("The noise level acts before and after attention, and before and after the MLP",
             x=0.01, ha="left", fontsize=12);  # fmt: skip

# %% [markdown]
# *What to see.* Blue is the page's block, and orange is new. The half with attention computes
#
# $$h \leftarrow h + \text{gate} \cdot \mathrm{attention}\big(\mathrm{norm}(h)\,(1 + \text{scale}) + \text{shift}\big).$$
#
# The layer that makes the six vectors starts with zeros. So every gate is 0, and an untrained block returns its input (**adaLN-zero**, adaptive layer norm). Like the published block, ours uses GELU in its tanh form, and no bias in the norms and in attention:

# %% tags=["pieces"]
def zeros(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

# %% tags=["pieces"]
class Block(nn.Module):
    def __init__(self, attend=attend):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU("tanh"), nn.Linear(4 * D, D))
        self.shift_scale_gate, self.attend = zeros(nn.Linear(C, 6 * D)), attend

    def forward(self, h, c):  # (B, L, D), (B, C)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.shift_scale_gate(c)[:, None].chunk(6, 2)
        a = self.norm1(h) * (1 + scale1) + shift1
        q, k, v = self.qkv(a).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = self.attend(q, k, v)  # (B, HEADS, L, D/HEADS)
        h = h + gate1 * self.out(mixed.transpose(1, 2).flatten(2))
        return h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)

# %% tags=["hide-cell"]
assert torch.equal(Block()(h, torch.randn(2, C)), h)  # untrained

# %% [markdown]
# ## 5. The head: log-scores, scaled by σ
#
# The last layer, the **head** (not one of the heads of attention), gives $N + 1$ numbers at each position, the logarithms of the ratios $s(x)_y$. Any real number may be a logarithm, and its exponential is positive, as a ratio must be. For the current token, $y = x$, the ratio is 1, so the network puts 0 there.
#
# With MASK noise more is known. By chapter 03 the true ratio at a hidden place is
#
# $$\frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)}
# = \frac{1}{e^{\bar\sigma} - 1}\; p(x_0 = y \mid \text{visible words}) .$$
#
# Only the first factor depends on the noise level, and it is known. The second is a conditional probability of the *data*. The oracle (chapter 01) shows this for a random world of three tokens with three values each:

# %%
from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.worlds.ctmc import Chain

generator = torch.Generator().manual_seed(4)
p0 = torch.rand(3, 3, 3, generator=generator, dtype=torch.float64) ** 3 + 0.01
chain = Chain(AbsorbingGraph(3), p0 / p0.sum())
levels = torch.logspace(-3, 0.8, 60, dtype=torch.float64)
noisy = torch.tensor([[1, 3, 2]]).expand(60, 3)  # 1 ■ 2, at 60 noise levels
log_scores = chain.log_score(noisy, levels)[:, 1, :3]  # (60, 3): of the three values at ■

# %% tags=["hide-input"]
#| alt: Left, three parallel curves of log-scores fall from about 6 to -8 as the noise level grows.
#| Right, after adding log(e^σ̄ - 1), three horizontal lines. In both, value 0 lies highest, then
#| value 2, then value 1.
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.8), sharey=True)
curves = {"true log-scores at the ■ of 1 ■ 2": log_scores}
curves["the same, plus $\\log(e^{\\bar\\sigma} - 1)$"] = log_scores + levels.expm1().log()[:, None]
for ax, (title, of_values) in zip(axes, curves.items()):
    ax.plot(levels, of_values)
    ax.set(xscale="log", xlim=(1.4e-4, 10), ylim=(-9, 8), yticks=range(-8, 9, 4),
           xlabel=r"noise level $\bar\sigma$")
    ax.set_title(title, fontsize=11.5)
    heights = plots.spread_labels(of_values[0].tolist(), least=1.1)
    for value, (height, colour) in enumerate(zip(heights, plots.COLOURS)):
        ax.text(8e-4, height, f"value {value}", color=colour, ha="right", va="center")
fig.suptitle("What remains after the known term is the same at every noise level",
             x=0.01, ha="left", fontsize=12);  # fmt: skip

# %% tags=["hide-cell"]
masked = chain.states == 3  # (n, 3): every sequence with ■ anywhere
posterior = chain.posterior(0.5)[masked]  # p(x0 = y | x), (M, 3)
for level in (0.001, 0.1, 1.0, 5.0):
    scores = chain.scores(level)[masked][:, :3]
    assert torch.allclose(scores * math.expm1(level), posterior)

# %% [markdown]
# *What to see.* Left: the three log-scores fall in parallel, by more than ten. Right: with the known term added, three constants are left, the logarithms of the conditional probabilities. Only these have to be learned.
#
# So on the absorbing graph (MASK noise) we subtract $\log(e^{\bar\sigma} - 1)$ from the output of the last layer. We also subtract $\log N$, so that an output of 0 means the uniform guess $p = 1/N$. This is **"scale by σ"**.

# %% tags=["pieces"]
def known(sigma):  # log(e^σ̄ - 1) + log N; the laboratory says why it is written so
    return sigma + torch.log(-torch.expm1(-sigma)) + math.log(N)

# %% [markdown]
# ## 6. The whole network
#
# The arguments `attend`, `told`, `by_sigma` and `softmax` are for the experiments of section 8. `shift_scale` makes shift and scale for the head.

# %% tags=["pieces"]
class Network(nn.Module):
    def __init__(self, attend=attend, told=True, by_sigma=True, softmax=False):
        super().__init__()
        self.embed = nn.Embedding(N + 1, D)
        self.level = nn.Sequential(nn.Linear(256, C), nn.SiLU(), nn.Linear(C, C))
        self.blocks = nn.ModuleList([Block(attend), Block(attend)])
        self.norm, self.head = nn.LayerNorm(D, bias=False), zeros(nn.Linear(D, N + 1))
        self.shift_scale = zeros(nn.Linear(C, 2 * D))
        self.told, self.by_sigma, self.softmax = told, by_sigma, softmax

    def forward(self, x, sigma):  # (B, L), (B,) → log-scores (B, L, N + 1)
        c = F.silu(self.level(features(sigma if self.told else 0 * sigma)))  # (B, C)
        h = self.embed(x)  # (B, L, D)
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.shift_scale(c)[:, None].chunk(2, 2)  # (B, 1, D)
        u = self.head(self.norm(h) * (1 + scale) + shift)  # (B, L, N + 1)
        if self.softmax:
            u = u - u[..., :N].logsumexp(-1, keepdim=True) + math.log(N)
        if self.by_sigma:
            u = u - known(sigma)[:, None, None]
        return u.masked_fill(F.one_hot(x, N + 1).bool(), 0)

# %% [markdown]
# The library has the same network. We give both the same random weights (the zeros of untrained weights would hide mistakes), and they return the same log-scores.

# %%
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig

sizes = {"num_tokens": N, "length": L, "width": D, "num_blocks": 2, "num_heads": HEADS}
mine, library = Network(), DiffusionTransformer(DiTConfig(**sizes, cond_dim=C, dropout=0.0))
with torch.no_grad():
    for a, b in zip(mine.parameters(), library.parameters(), strict=True):
        b.copy_(a.normal_(std=0.3))
    assert torch.allclose(mine(x, sigma), library(x, sigma), atol=1e-4)

# %% [markdown]
# With other sizes and weights this is the published network. (Dropout, which sets random entries to 0 during training, is off here.)

# %% [markdown]
# ## 7. Which part learns first?
#
# The head's matrix and bias start at zero too. So the untrained network says "every word is equally likely" at each hidden place. But while the last matrix is zero, nothing before it has an effect on the output. Can such a network learn?
#
# *Predict:* the network has 30 weight tensors. How many have a gradient other than 0 in the first, second and third step? Then run the next cells.

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
net, graph = Network(), AbsorbingGraph(N)
x0 = torch.tensor([[0, 1, 2, 0, 3, 4], [0, 3, 2, 0, 1, 4]])
history = []  # the gradients of each step
for step in range(3):
    loss = graph.score_entropy(net(x, sigma), sigma[:, None], x, x0).mean()  # chapter 03
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    learning = sum(g.abs().max().item() > 0 for g in gradients)
    history.append(gradients)
    print(f"step {step + 1}: {learning} of {len(gradients)} tensors have a gradient")
    with torch.no_grad():
        for weight, g in zip(net.parameters(), gradients):
            weight -= 0.1 * g

# %% tags=["hide-input"]
#| alt: A table of seven parts of the network and three steps. The head learns from step 1; the last
#| norm with its shift and scale, the embedding and the blocks' gates from step 2; the shifts,
#| scales, attention, MLP and norms of the blocks, and the way from noise to the condition from
#| step 3.
import re

patterns = {
    "head: matrix and bias": r"head\.", "last norm, its shift and scale": r"(norm|shift_scale)\.",
    "embedding": r"embed\.", "blocks: gates": r"blocks.*gate\.\w+ [25]",
    "blocks: shifts, scales": r"blocks.*gate\.\w+ [0134]",
    "blocks: attention, MLP, norms": r"blocks\.\d\.(?!shift)",
    "noise features → condition": r"level\.",
}  # fmt: skip
awake = {part: set() for part in patterns}
for (name, _), *steps in zip(net.named_parameters(), *history):
    split = [g.chunk(6 if "gate" in name else 1) for g in steps]  # the six vectors of a block apart
    for i, piece in enumerate(zip(*split)):
        part = next(part for part, pattern in patterns.items() if re.match(pattern, f"{name} {i}"))
        awake[part].add(tuple(g.any().item() for g in piece))  # in steps 1, 2, 3
# all tensors of a part get a gradient in the same step
assert all(len(when) == 1 for when in awake.values())
fig = plots.show_awake({part: when.pop() for part, when in awake.items()})
fig.suptitle("The head learns first, attention and MLP last", x=0.01, ha="left", fontsize=12);

# %% [markdown]
# *What to see.* A gradient is multiplied by every matrix and gate that it passes on its way back. In step 1 the head's zero matrix stops it, so only the head learns. In step 2 it reaches the last norm, the embedding and the gates (rows of the layer that makes a block's six vectors). The gates are still 0, so the rest of each block gets no gradient. The layers that read the condition still have zero matrices, so the layers that make it get none. In step 3 every tensor has a gradient.
#
# (If attention's `out` started at zero *as well as* its gate, neither would ever move: each is a factor of the other's gradient.)

# %% tags=["hide-cell"]
torch.manual_seed(0)
stuck = Network()
for block in stuck.blocks:
    nn.init.zeros_(block.out.weight)
optimizer = torch.optim.SGD(stuck.parameters(), 0.1)
for _ in range(20):
    optimizer.zero_grad()
    graph.score_entropy(stuck(x, sigma), sigma[:, None], x, x0).mean().backward()
    optimizer.step()
assert all((block.out.weight == 0).all() for block in stuck.blocks)
gates = [block.shift_scale_gate.weight.chunk(6)[2::3] for block in stuck.blocks]
assert all((a == 0).all() for a, _ in gates) and gates[0][1].any()  # the MLP's gate does move

# %% [markdown]
# ## 8. What is each piece worth?
#
# We take one piece out at a time and train what is left. Our five words form a circle, *the → cat → saw → dog → . → the*. After each word comes the next in the circle with probability 0.8, and each of the other four (the same word again is one) with 0.05. The first word is any of the five, equally likely. So the exact log-probability of a sentence is known.

# %% tags=["pieces"]
def sentences(num, generator):
    columns = [torch.randint(N, (num,), generator=generator)]
    for _ in range(L - 1):
        follows = torch.rand(num, generator=generator) < 0.75
        fresh = torch.randint(N, (num,), generator=generator)  # again the follower, once in five
        columns.append(torch.where(follows, (columns[-1] + 1) % N, fresh))
    return torch.stack(columns, -1)  # (num, L)


def log_prob(x):  # (num, L) → (num,)
    follows = x[:, 1:] == (x[:, :-1] + 1) % N
    return torch.where(follows, math.log(0.8), math.log(0.05)).sum(-1) - math.log(N)

# %% [markdown]
# Training is the loop of chapter 03 (`training_loss` is its $\sigma(t)$ times the score entropy), and `likelihood_bound` is from chapter 04. All networks see the same sentences and the same noise.

# %% tags=["pieces"]
from sedd_mini import AbsorbingGraph, LogLinearNoise
from sedd_mini.evaluate import likelihood_bound, times
from sedd_mini.losses import training_loss

graph, noise = AbsorbingGraph(N), LogLinearNoise()


def train(net, steps=300, seed=0, graph=graph):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    for _ in range(steps):
        x0, t = sentences(128, generator), 1e-3 + 0.999 * times(128, generator).float()
        loss = training_loss(net, graph, noise, x0, t, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net

# %% tags=["pieces"]
test = sentences(1024, torch.Generator().manual_seed(1000))
truth = -log_prob(test).mean().item()


def excess(model, graph=graph):
    """Nats a sentence by which the bound lies above the truth, on the same sentences and noise."""
    generator = torch.Generator().manual_seed(1)
    bound = likelihood_bound(model, graph, noise, test, generator=generator, batch_size=1024)
    return bound.nats - truth

# %% [markdown]
# The yardsticks are the truth and the uniform guess of an untrained network. (The guess costs exactly $6 \log 5$ on every sentence; the estimate differs, as its times and hidden places are random.)

# %% tags=["pieces"]
def build(seed=0, **options):
    torch.manual_seed(seed)
    return Network(**options)

# %%
guess, exact = excess(build()), L * math.log(N) - truth  # nats above the truth
print(f"truth {truth:.2f} nats; "
      f"uniform guess, above it: estimated {guess:.2f}, exactly {exact:.2f}")

# %% [markdown]
# The page ends in a softmax, whose probabilities sum to 1. SEDD's head is free. At a hidden place write its scores as $s_y = r\, Z\, \pi_y$, where $r = 1/(e^{\bar\sigma} - 1)$, $Z$ is the sum of $s_y/r$ over the words, and $\pi$ is a distribution. Chapter 03 split $\sigma(t)$ times the loss of this place (there $\sigma(t)\,r = 1/t$). The loss itself is
#
# $$\underbrace{r\,(-\log \pi_{x_0})}_{\text{cross-entropy}} \;+\; \underbrace{r\,(Z - 1 - \log Z)}_{\text{price of } Z \ne 1} .$$
#
# We evaluate every network twice, as it is and with $Z$ divided out. The difference is the price.

# %% tags=["pieces"]
def divide_out_Z(net):
    def model(x, sigma):
        u = net(x, sigma)
        log_pi = u - u[..., :N].logsumexp(-1, keepdim=True)
        log_r = math.log(N) - known(sigma)
        return (log_pi + log_r[:, None, None]).masked_fill(F.one_hot(x, N + 1).bool(), 0)

    return model


def two_parts(net):
    words = excess(divide_out_Z(net))
    return words, excess(net) - words  # nats: cross-entropy above the truth, price of Z ≠ 1

# %% [markdown]
# *Predict:* which of these networks will be about as good as the whole one? What will the one without "scale by σ" have learned? Then run the next cells (half a minute).

# %% tags=["pieces"]
variants = {
    "the whole network": {},
    "softmax head": {"softmax": True},
    "not told σ̄": {"told": False},
    "no positions": {"attend": F.scaled_dot_product_attention},
    "left side only": {"attend": attend_left},
    "no scale by σ": {"by_sigma": False},
}

# %%
costs = {name: two_parts(train(build(**options))) for name, options in variants.items()}
before, price_before = two_parts(build(by_sigma=False))
print(f"no scale by σ: before training {before:.2f} + {price_before:.1f}", end="")
print(", after it {:.2f} + {:.2f} nats".format(*costs["no scale by σ"]))

# %% tags=["hide-input"]
#| alt: Bars of nats above the truth. The whole network, the softmax head and the network that is
#| not told σ̄ have about half a nat. Left side only has 1.7, no positions 3.3, and no scale by σ
#| 4.0, where the dotted line of a uniform guess stands, plus a price of 0.2.
fig = plots.show_parts(costs, guess, ("cross-entropy above the truth", "price of Z ≠ 1"))
title = "Without positions, the right side or the scale, the network stays far from the truth"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% tags=["hide-cell"]
total = {name: sum(both) for name, both in costs.items()}
for name in ("no positions", "left side only", "no scale by σ"):
    assert total[name] > total["the whole network"] + 0.6, name
assert 0 < total["the whole network"] < 0.2 * guess
for name in ("not told σ̄", "softmax head"):
    assert abs(total[name] - total["the whole network"]) < 0.35, name
assert abs(costs["softmax head"][1]) < 1e-3  # its Z is 1
assert all(price < 0.1 for name, (_, price) in costs.items() if name != "no scale by σ")
assert price_before > 140 and costs["no scale by σ"][1] < 1
assert abs(costs["no scale by σ"][0] - guess) < 0.2 and abs(before - guess) < 1e-3
assert abs(guess - exact) < 0.3
s = torch.linspace(1e-4, math.log(1000), 100_000).double()  # noise levels
r = 1 / s.expm1()
price = -torch.expm1(-s) * r * (5 / r - 1 - (5 / r).log())  # of scores of 1: Z = 5 / r
assert price[s > 1].sum() > 0.9 * price.sum()

# %% [markdown]
# *What to see.* 0 is the truth, and the dotted line is the uniform guess. Training brings the whole network nearly nine tenths of the way from the guess to the truth. Without positions it does not see the order of words (laboratory) and gains 0.65 of 3.96 nats; with the left side only, 2.3.
#
# **The scale.** Without "scale by σ" an untrained network says $s_y = 1$ at every noise level, while the true ratios sum to $r$, which falls from about 1000 to 1/1000. Its first loss is about 170 nats a sentence (exercise 5), nearly all of it the price of $Z \ne 1$ at high noise ($\bar\sigma > 1$), where its scores are far too large. After 300 steps the price is nearly gone, and the cross-entropy is still that of a uniform guess: nothing has been learned yet about the words.
#
# **The free head.** The whole network has learned $Z \approx 1$. The softmax head pays no price, but is behind by less than 0.1 nats with each of three seeds (laboratory), little beside the 3.5 nats gained by training. With uniform noise the ratios are not a known number times a distribution, but a free head can learn them.
#
# **The noise level.** The network that is not told $\bar\sigma$ (its head still subtracts the known term) is behind by less than 0.1 nats too. This agrees with section 5: with MASK noise, $p(x_0 \mid x)$ is the same at every level. With uniform noise it changes (oracle, below), and a network with SEDD's head must be told (laboratory).

# %% tags=["nbval-check-output"]
for g in (AbsorbingGraph(3), UniformGraph(3)):
    world = Chain(g, p0 / p0.sum())
    low, high = world.posterior(0.1), world.posterior(2.0)  # every sequence, two levels
    print(f"{g}: p(x0 | x) changes with the noise level by up to {(low - high).abs().max():.2f}")

# %% [markdown]
# ## 9. How large is it?
#
# We count the full-size network by hand, with $S = N + 1 = 50\,258$ states. A linear layer from $a$ to $b$ numbers has $ab$ weights, and $b$ more if it has a bias. For each vector it makes $b$ numbers with $a$ multiplications and $a$ additions each: $2ab$ **FLOPs** (floating-point operations). Attention adds $L$ queries times $L$ keys, and $L \times L$ weights times $L$ values, each $2L^2D$ FLOPs for all heads together. Everything else is small beside these.

# %%
def parameters(D, blocks, S=50_258, C=128):
    return {
        "embedding": S * D,
        "attention": blocks * (3 * D * D + D * D),  # queries, keys, values; out
        "MLP": blocks * (D * 4 * D + 4 * D + 4 * D * D + D),
        "noise, norms": (6 * blocks + 2) * D * (C + 1) + (2 * blocks + 1) * D
        + (256 + 1) * C + (C + 1) * C,
        "head": S * (D + 1),
    }  # fmt: skip


def flops(D, blocks, S=50_258, C=128, L=1024):  # one sequence, forward
    return {
        "attention": L * blocks * 2 * 4 * D * D,
        "q·k and a·v": blocks * 2 * 2 * L * L * D,
        "MLP": L * blocks * 2 * 8 * D * D,
        "noise, norms": 2 * ((6 * blocks + 2) * D * C + 256 * C + C * C),  # once a text
        "head": L * 2 * S * D,
    }

# %% [markdown]
# A *text* here has $L = 1024$ tokens. The folded cell below lets PyTorch count matrix products (`FlopCounterMode`) on the `meta` device (shapes without numbers). The counts agree for SEDD small and medium.

# %% tags=["nbval-check-output"]
for name, width, blocks in (("small", 768, 12), ("medium", 1024, 24)):
    weights, work = parameters(width, blocks), flops(width, blocks)
    inside = sum(weights[part] for part in ("attention", "MLP", "noise, norms"))
    print(f"SEDD {name:6} {sum(weights.values()) / 1e6:.1f} M weights", end="")
    print(f" ({inside / 1e6:.1f} M without embedding and head)", end="")
    print(f", {sum(work.values()) / 1e9:.0f} billion FLOPs a text")

# %% tags=["hide-cell"]
from torch.utils.flop_counter import FlopCounterMode


def count_flops(function, *inputs, **options):
    with FlopCounterMode(display=False) as counter:
        function(*inputs, **options)
    return counter.get_total_flops()


with torch.device("meta"):
    for width, blocks, heads in ((768, 12, 12), (1024, 24, 16)):
        big = DiffusionTransformer(DiTConfig(width=width, num_blocks=blocks, num_heads=heads))
        total = sum(weight.numel() for weight in big.parameters())
        text, level = torch.zeros(1, 1024, dtype=torch.int64), torch.ones(1)
        assert total == sum(parameters(width, blocks).values())
        assert count_flops(big, text, level) == sum(flops(width, blocks).values())

# %% tags=["hide-input"]
#| alt: Two stacked bars for SEDD small. Weights: embedding 23, attention 17, MLP 33, noise and
#| norms 4, head 23 per cent. FLOPs: attention 20, q·k and a·v 13, MLP 40, head 27 per cent.
colours = {"embedding": plots.PURPLE, "attention": plots.BLUE, "q·k and a·v": "#4f8fc0",
           "MLP": plots.GREEN, "noise, norms": "#6b7079", "head": plots.ORANGE}  # fmt: skip
bars = {"169.6 million\nweights": parameters(768, 12), "292 billion\nFLOPs a text": flops(768, 12)}
fig = plots.show_stacked(bars, colours)
title = "SEDD small: the embedding holds 23 % of the weights and does no arithmetic"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% [markdown]
# *What to see.* Nearly half of the weights are in the embedding and the head. The embedding is only looked up, but the head does over a quarter of the arithmetic. The 7 million weights for the noise level run once a text, not once a token.
#
# With MASK noise only hidden places need the head. The table of all log-scores, too large for a GPU (chapter 05), is never stored (laboratory).

# %% [markdown]
# ## What has changed on the page
#
# The block gets a second input, the condition (and its `__init__` the line `self.shift_scale_gate = zeros(nn.Linear(C, 6 * D))`). `Network` replaces the old `model`.
#
# ```diff
# -    def forward(self, h):  # (B, L, D)
# -        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
# +    def forward(self, h, c):  # (B, L, D), (B, C)
# +        shift1, scale1, gate1, shift2, scale2, gate2 = self.shift_scale_gate(c)[:, None].chunk(6, 2)
# +        a = self.norm1(h) * (1 + scale1) + shift1
# +        q, k, v = self.qkv(a).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
#          mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v)  # (B, HEADS, L, D/HEADS)
# -        h = h + self.out(mixed.transpose(1, 2).flatten(2))
# -        return h + self.mlp(self.norm2(h))
# +        h = h + gate1 * self.out(mixed.transpose(1, 2).flatten(2))
# +        return h + gate2 * self.mlp(self.norm2(h) * (1 + scale2) + shift2)
# ```
#
# ## Summary
#
# 1. Tokens become vectors. Rotary positions turn queries and keys, so their product depends on the offset. Attention has no mask: a hidden word is guessed from both sides.
# 2. The noise level becomes features, then a condition, then a shift, scale and gate in each half of a block. The gates and the head start at 0: an untrained block returns its input, and the head learns first.
# 3. The head gives log-scores, with 0 at the current token. With MASK noise the known term $\log(e^{\bar\sigma} - 1)$ is taken out ("scale by σ"); the rest does not depend on the noise level.
# 4. With MASK noise the loss of a hidden place is a cross-entropy plus a price $r(Z - 1 - \log Z)$, since the scores need not sum to $r$. Without the scale, 300 steps remove most of this price and teach nothing about the words.
# 5. SEDD small has 169.6 million weights, 92.4 million without embedding and head. The head does 27 % of the arithmetic.

# %% [markdown]
# ## Exercises
#
# Write your answer into the first cell, run it, then run the check.

# %% [markdown]
# ### Exercise 1. Where attention catches up (★☆☆, 10 minutes)
#
# The products $q \cdot k$ and $a \cdot v$ grow with $L^2$, the matrices of a block (queries, keys and values; out; MLP) with $L$. Write `crossover(D)`: the length $L$ at which both take equally many FLOPs in a block of width $D$. Leave the condition's layers out.
#
# <details><summary>Hint</summary>
#
# Section 9 has both numbers for all blocks. Does the number of blocks matter, or that of heads?
#
# </details>
#
# [Solution](solutions/06_the_diffusion_transformer.ipynb)

# %% tags=["exercise"]
def crossover(D: int) -> float:
    """Tokens."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise
from sedd_mini.network import dit
from torch.utils.flop_counter import FlopCounterMode

with exercise("1"):
    for width, heads in ((64, 2), (256, 4), (768, 12)):
        length = round(float(crossover(width)))
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            half = [torch.ones(length, width // heads)] * 2  # cosines and sines
            one = dit.Block(dit.DiTConfig(width=width, num_heads=heads, cond_dim=1))
            one(torch.ones(1, length, width), torch.ones(1, 1), *half)
        counts = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
        products = sum(n for op, n in counts.items() if "attention" in op or "bmm" in op)
        quotient = products / (sum(counts.values()) - products)
        wrong = f"q·k and a·v take {quotient:.3g} times the FLOPs of the matrices"
        assert abs(quotient - 1) < 0.01, f"D = {width}, L = {length}: {wrong}"

# %% [markdown]
# ### Exercise 2. Turning without sines (★★☆, 15 minutes)
#
# A pair of numbers $(u, v)$ is one complex number $u + iv$, and turning it by an angle $a$ multiplies it by $e^{ia}$. Write `turn_complex(vectors)`, which turns `vectors` (..., L, d) as the page's `rotate` does, with `torch.complex` and `torch.polar` instead of sines and cosines.
#
# <details><summary>Hint</summary>
#
# Which entries make a pair (section 2)? `torch.polar(length, angle)` makes a tensor of complex numbers; `.real` and `.imag` take it apart.
#
# </details>
#
# [Solution](solutions/06_the_diffusion_transformer.ipynb)

# %% tags=["exercise"]
import torch


def turn_complex(vectors: torch.Tensor) -> torch.Tensor:
    """(..., L, d) → (..., L, d); the first position is number 0."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise
from sedd_mini.network import attention as theirs

with exercise("2"):
    for shape in ((6, 4), (2, 3, 9, 10), (24, 16)):
        given = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        found, half = turn_complex(given), shape[-1] // 2
        assert found.shape == given.shape, f"shape {shape} became {tuple(found.shape)}"
        assert not found.is_complex(), "the answer is complex: take it apart again"
        lengths = found.norm(dim=-1), given.norm(dim=-1)
        assert torch.allclose(*lengths, rtol=1e-4), "turning must not change a vector's length"
        first = torch.allclose(found[..., 0, :], given[..., 0, :], atol=1e-4)
        assert first, "position 0 turns by 0; are the entries back in their places?"
        unit = torch.eye(shape[-1])[0].expand(2, -1)  # only entry 0 is not 0
        partner = 1 + turn_complex(unit)[1, 1:].abs().argmax().item()
        assert partner == half, f"d = {shape[-1]}: entry 0 is turned with entry {partner}"
        right = theirs.rotate(given, *theirs.RotaryEmbedding(shape[-1])(shape[-2]))
        pair = (found - right).abs().flatten(0, -2).amax(0).argmax().item() % half
        wrong = f"d = {shape[-1]}: pair {pair} turns by wrong angles, or the wrong way round"
        assert torch.allclose(found, right, atol=1e-4), wrong

# %% [markdown]
# ### Exercise 3. Keep documents apart (★★☆, 15 minutes)
#
# A packed block holds parts of several documents, with an end-of-text token between two of them (chapter 05). Write `same_document(x, eot)`, which returns for tokens `x` (B, L) a boolean mask (B, L, L): `True` at $[b, i, j]$ if position $i$ of row $b$ may look at position $j$, that is, if both lie in the same document. The token `eot` belongs to the document that it ends. (The published SEDD trains without such a mask.)
#
# <details><summary>Hint</summary>
#
# Give each position the number of its document: how many `eot` stand *before* it? `cumsum` counts, and a comparison of shapes (B, L, 1) and (B, 1, L) makes the table.
#
# </details>
#
# [Solution](solutions/06_the_diffusion_transformer.ipynb)

# %% tags=["exercise"]
import torch


def same_document(x: torch.Tensor, eot: int) -> torch.Tensor:
    """(B, L) int64 → (B, L, L) bool"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("3"):
    for eot, documents in ((9, ([3, 4, 5], [12], [1, 1, 10], [5, 7])), (0, ([2, 6], [8], [7, 1]))):
        shape, generator = (len(documents), sum(documents[0])), torch.Generator().manual_seed(0)
        packed = torch.randint(1, 9, shape, generator=generator)
        for row, lengths in zip(packed, documents):
            row[torch.tensor(lengths).cumsum(0)[:-1] - 1] = eot
        mask = same_document(packed, eot)
        assert mask.shape == (*shape, shape[1]), f"the mask has shape {tuple(mask.shape)}"
        assert mask.dtype == torch.bool, f"the mask has type {mask.dtype}, not bool"
        for row, lengths, seen in zip(packed.tolist(), documents, mask):
            document = [k for k, n in enumerate(lengths) for _ in range(n)]
            for i, j in [(i, j) for i in range(len(row)) for j in range(len(row))]:
                apart = document[i] != document[j]
                what = "must not look" if apart else "may look"
                case = f"x = {row}, eot = {eot}: position {i} {what} at position {j}"
                assert seen[i, j] != apart, case

# %% [markdown]
# ### Exercise 4. Features that tell small noise apart (★★☆, 20 minutes)
#
# Uniform noise is often used with a geometric schedule from $\bar\sigma = 10^{-4}$ to 20, and then more than a third of all training happens below 0.01. But `features` of section 4 hardly moves there: by 0.02 from 0.001 to 0.01 (its vectors have length 11.3). Write `log_features(sigma)`, (B,) → (B, 256): again 128 cosines, and the sines of the same angles, such that for all levels from $10^{-4}$ to 20
#
# - from $\bar\sigma$ to $10\,\bar\sigma$ the vector moves by the same distance for every $\bar\sigma$, and by 1 or more;
# - two levels that differ by more than a factor of 10 have vectors at least as far apart as that distance.
#
# <details><summary>Hint</summary>
#
# The distance between two vectors of `features` depends on the difference of the two levels only. Which function turns equal factors into equal differences?
#
# </details>
#
# [Solution](solutions/06_the_diffusion_transformer.ipynb)

# %% tags=["exercise"]
import torch


def log_features(sigma: torch.Tensor) -> torch.Tensor:
    """(B,) float → (B, 256)"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("4"):
    noises = 20 * torch.logspace(-5.25, 0, 22)  # four levels for each factor of 10
    found = log_features(noises)
    assert found.shape == (22, 256), f"22 levels became {tuple(found.shape)}, not (22, 256)"
    squares = found.square().sort().values  # cos² of an angle is 1 - sin² of the same angle
    paired = torch.allclose(squares + squares.flip(-1), torch.ones(()), atol=1e-3)
    assert paired, "the 256 entries are not the cosines and sines of 128 angles"
    gaps = (found[4:] - found[:-4]).norm(dim=-1)  # from σ̄ to 10 σ̄
    low, high = gaps.argmin(), gaps.argmax()
    least, most = gaps[low].item(), gaps[high].item()
    far = f"from {noises[low]:.2g} to ten times as much the vector moves by {least:.3g}"
    assert least >= 1, far
    assert most < 1.02 * least, f"{far}, but by {most:.3g} from {noises[high]:.2g}"
    apart = torch.cdist(found, found, compute_mode="donot_use_mm_for_euclid_dist")
    distant = (torch.arange(22)[:, None] - torch.arange(22)).abs() > 4
    i, j = divmod(torch.where(distant, apart, torch.inf).argmin().item(), 22)
    near = f"{noises[i]:.2g} and {noises[j]:.2g} have nearly the same vector"
    assert apart[i, j] > 0.99 * least, near

# %% [markdown]
# ### Exercise 5. What "scale by σ" saves at the start (★★★, 30 minutes)
#
# Without the scale an untrained network says $\log s_y = 0$ everywhere. Write `loss_without_scale(N, sigma_max)`: its expected loss with MASK noise, in nats a token,
#
# $$\int_0^{\bar\sigma_{\max}} (1 - e^{-\bar\sigma}) \Big( \sum_{y \ne \text{MASK}} s_y - r \log s_{x_0} + K(r) \Big)\, d\bar\sigma, \qquad r = \frac{1}{e^{\bar\sigma} - 1}, \quad K(r) = r(\log r - 1),$$
#
# where $1 - e^{-\bar\sigma}$ is the probability that the token is hidden. The check wants four digits. Then compare its value at $N = 50\,257$, $\bar\sigma_{\max} = \log 1000$ with the loss with the scale, $\log N = 10.8$ (chapter 07).
#
# <details><summary>Hint</summary>
#
# Substitute $u = e^{-\bar\sigma}$, so that $r = u/(1-u)$. An antiderivative of $\log u - \log(1 - u)$ is $u \log u + (1 - u)\log(1 - u)$.
#
# </details>
#
# [Solution](solutions/06_the_diffusion_transformer.ipynb)

# %% tags=["exercise"]
import math


def loss_without_scale(N: int, sigma_max: float) -> float:
    """Nats a token."""
    raise NotImplementedError

# %% tags=["check"]
import math

import torch
from sedd_mini import AbsorbingGraph
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import log_quadrature

with exercise("5"):
    for num, top in ((2, 1.0), (5, math.log(1000)), (50, 3.0), (50_257, math.log(1000))):
        nodes, weights = torch.tensor(log_quadrature(1e-9, top, 60), dtype=torch.float64)
        at_mask = torch.full((len(nodes), 1), num)
        silent = torch.zeros(1, 1, 1).double().expand(len(nodes), 1, num + 1)  # log-scores
        graph_of = AbsorbingGraph(num)
        cost = graph_of.score_entropy(silent, nodes[:, None], at_mask, torch.zeros_like(at_mask))
        right = (weights * -torch.expm1(-nodes) * cost[:, 0]).sum().item()
        found = float(loss_without_scale(num, top))
        wrong = f"N = {num}, σ̄max = {top:.3g}: {found:.6g} is {found / right:.4g} times the loss"
        assert math.isclose(found, right, rel_tol=1e-4), wrong

# %% [markdown]
# ## Laboratory
#
# ### Seeds: do the differences of section 8 repeat?
#
# `tests/benchmarks/pieces.py` ran this chapter's own cells with two more seeds, the network without the scale for five times as many steps, and once with features of $\log\bar\sigma$ (exercise 4). Numbers are nats a sentence, cross-entropy above the truth plus price of $Z \ne 1$.

# %%
import json
from pathlib import Path

shown = [(name, 300, *costs[name]) for name in costs]  # section 8: seed 0
for run in json.loads(Path("results/06_pieces.json").read_text())["runs"]:
    shown.append((run["network"], run["steps"], run["cross-entropy"], run["price"]))
for kind in dict.fromkeys(row[:2] for row in shown):
    sums = "   ".join(
        f"{a:.2f} + {round(b, 2) + 0.0:.2f}" for *same, a, b in shown if tuple(same) == kind
    )
    print(f"{kind[0]:34} {kind[1]:5} steps   {sums}")

# %% [markdown]
# The order of section 8 repeats with every seed. The last two rows have one seed each. With five times as many steps the network without the scale does learn much of the language, but is still behind the whole network after 300 steps. With features of $\log\bar\sigma$, which tell small noise apart, its price nearly vanishes, and its cross-entropy stays at the uniform guess. In this run coarse features account for most of the remaining price, not for the failure to learn the words.
#
# ### Uniform noise: does the network have to be told the noise level there?
#
# We train networks of section 8 on the uniform graph, without the column for MASK and without the scale, which belongs to MASK noise. The noise level says two things: how large the ratios are, and how far the other words can be trusted. To separate the two, two of the four networks end in a formula with $\bar\sigma$. They give probabilities $\pi$ of the clean word at each position, and with $\alpha = e^{-\bar\sigma}$
#
# $$s_y = \frac{\alpha\, \pi_y + (1 - \alpha)/N}{\alpha\, \pi_x + (1 - \alpha)/N} .$$
#
# This is the exact ratio if $\pi$ is the exact distribution given the other noisy words.

# %%
def by_formula(log_pi, x, sigma):  # (B, L, N), (B, L), (B,) → log-scores (B, L, N)
    moved = -torch.expm1(-sigma)[:, None, None]  # 1 - α
    p = (1 - moved) * log_pi.softmax(-1) + moved / log_pi.shape[-1]
    return p.log() - p.gather(-1, x[..., None]).log()


class OnUniform(nn.Module):
    def __init__(self, net, formula):
        super().__init__()
        self.net, self.formula = net, formula

    def forward(self, x, sigma):
        u = self.net(x, sigma)[..., :N]
        return by_formula(u, x, sigma) if self.formula else u


uniform, on_uniform = UniformGraph(N), {}
for formula in (False, True):
    for is_told in (True, False):
        net = OnUniform(build(by_sigma=False, told=is_told), formula)
        on_uniform[formula, is_told] = nats = excess(train(net, graph=uniform), uniform)
        head = "formula" if formula else "free head"
        print(f"{head:9}  {'told' if is_told else 'not told':8}  {nats:.2f} nats above the truth")
even_guess = excess(OnUniform(build(by_sigma=False), formula=False), uniform)
print(f"a uniform guess      {even_guess:.2f}")

# %% tags=["hide-cell"]
assert on_uniform[False, True] + 1.5 < on_uniform[False, False]
for way in ((False, True), (True, True), (True, False)):
    assert on_uniform[way] < 0.5 * guess, way
assert abs(on_uniform[True, True] - on_uniform[True, False]) < 0.6

level = torch.tensor([0.7])
move = math.exp(-0.7) * torch.eye(3) + (1 - math.exp(-0.7)) / 3  # (x0, x)
others = torch.einsum("ijk,ja,kb->iab", (p0 / p0.sum()).float(), move, move)  # first token clean
world = Chain(UniformGraph(3), p0 / p0.sum())
for state, exact in zip(world.states, world.scores(0.7)[:, 0]):
    log_pi = others[:, state[1], state[2]].log()[None, None]  # (1, 1, 3)
    found = by_formula(log_pi, state[None, :1], level).exp()
    assert torch.allclose(found[0, 0], exact.float(), rtol=1e-4)

# %% [markdown]
# With a free head the network that is not told $\bar\sigma$ stays near the uniform guess (4.25 with these draws, 4.11 exactly). With the formula it makes little difference whether the network is told. So SEDD's head needs the noise level here for the size of the ratios (which includes how far to trust the token itself). How far to trust the other words matters little in this language (one seed, 300 steps).
#
# ### Smooth functions: what do LayerNorm, GELU and SiLU compute?
#
# At each position LayerNorm takes the mean and the variance over the $D$ numbers of the vector. GELU in its tanh form and SiLU are near 0 if $u$ is far below 0, and near $u$ if it is far above.

# %%
def layer_norm(h, w):
    h = h - h.mean(-1, keepdim=True)
    return w * h / torch.sqrt((h**2).mean(-1, keepdim=True) + 1e-5)


def gelu(u):
    return u / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))


def silu(u):
    return u / (1 + torch.exp(-u))

# %%
norm, u = nn.LayerNorm(D, bias=False), torch.linspace(-4, 4, 101)
nn.init.normal_(norm.weight)
assert torch.allclose(layer_norm(h, norm.weight), norm(h), atol=1e-5)
assert torch.allclose(gelu(u), F.gelu(u, approximate="tanh"), atol=1e-6)
assert torch.allclose(silu(u), F.silu(u), atol=1e-6)

# %% [markdown]
# ### Piece by piece: is each part equal to the library's?
#
# Section 6 compared whole networks. The folded cell compares the parts: rotary angles, noise features and condition, a block, the known term. It also checks the formula of section 2, and that the untrained network for uniform noise says $s_y = 1$ everywhere.

# %% tags=["hide-cell"]
from sedd_mini.network.attention import RotaryEmbedding
from sedd_mini.network.attention import attention as library_attention
from sedd_mini.network.attention import rotate as library_rotate

turns = RotaryEmbedding(8)(L)  # cosines and sines
assert torch.allclose(library_rotate(vectors, *turns), rotate(vectors), atol=1e-6)
same = [q[None, None]] * 3
assert torch.allclose(library_attention(*same), F.scaled_dot_product_attention(*same))
c = F.silu(mine.level(features(sigma)))
assert torch.allclose(c, F.silu(library.sigma_map(sigma)), atol=1e-5)
hidden = mine.embed(x)
assert torch.allclose(mine.blocks[0](hidden, c), library.blocks[0](hidden, c, *turns), atol=1e-4)
assert torch.allclose(known(sigma), library.output_layer.offset(sigma))


def R(a):
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


two_q, two_k, theta = torch.tensor([1.0, 0.3]), torch.tensor([-0.2, 0.8]), 0.4
for m, n in [(0, 0), (2, 5), (7, 1)]:
    turned = (R(m * theta) @ two_q) @ (R(n * theta) @ two_k)
    assert torch.isclose(turned, two_q @ R((n - m) * theta) @ two_k)
for_uniform = DiffusionTransformer(DiTConfig(**sizes, cond_dim=C, absorbing=False))
assert (for_uniform(x.clamp(max=4), sigma) == 0).all()

# %% [markdown]
# ### Everything gets through: does each answer depend on each input?
#
# A changed last token, or another noise level, changes what the network says at every position, the known term aside. Without positions the network is blind to order: shuffling the words shuffles the answers, and does nothing else.

# %%
@torch.no_grad()
def inner(net, x, sigma):  # (B, L, N + 1), without the known term
    u = net(x, sigma) + known(sigma)[:, None, None]
    return u.masked_fill(F.one_hot(x, N + 1).bool(), 0)


changed = x.clone()
changed[:, -1] = 1
for other in (inner(mine, changed, sigma), inner(mine, x, 2 * sigma)):
    moved = (other - inner(mine, x, sigma)).abs().amax(-1)  # (B, L)
    assert (moved > 1e-3).all()

# %%
order = torch.tensor([3, 1, 5, 0, 2, 4])
answers = {}
for name, how in (("no positions", F.scaled_dot_product_attention), ("positions", attend)):
    bag = Network(attend=how)
    bag.load_state_dict(mine.state_dict())
    with torch.no_grad():
        answers[name] = (bag(x[:, order], sigma) - bag(x, sigma)[:, order]).abs().max().item()
assert answers["no positions"] < 1e-4 and answers["positions"] > 0.1

# %% [markdown]
# ### The untrained network: which world does it describe?
#
# The untrained network (with the scale) gives the exact ratios of a world in which all sequences are equally likely. Here are three tokens with five values:

# %%
even = Chain(AbsorbingGraph(N), torch.full((N, N, N), 1 / N**3, dtype=torch.float64))
exact = even.log_score(x[:, :3], sigma)
at_masks = x[:, :3] == MASK
with torch.no_grad():
    found = Network()(x[:, :3], sigma)[at_masks]
assert torch.allclose(found, exact[at_masks].float(), atol=1e-5)

# %% [markdown]
# ### Noise features: which levels can the network tell apart?
#
# The fastest wave has length $2\pi$, so the vectors of noise levels 0.5 and 2 differ. From 0.001 to 0.01 the vector hardly moves, but the ratios fall by a factor of ten (exercise 4).

# %% tags=["nbval-check-output"]
def distance(a, b):
    return (features(torch.tensor([a])) - features(torch.tensor([b]))).norm().item()


print(f"length {features(torch.tensor([1.0])).norm():.1f}; from 0.5 to 2 it moves by", end=" ")
print(f"{distance(0.5, 2.0):.2f}, from 0.001 to 0.01 by {distance(0.001, 0.01):.2f}")

# %% [markdown]
# ### Floats: how should $\log(e^{\bar\sigma} - 1)$ be computed, and in which type?
#
# As it stands, the formula fails in float32: for small $\bar\sigma$ the subtraction destroys digits, and for large $\bar\sigma$ the exponential overflows. Since $e^{\bar\sigma} - 1 = e^{\bar\sigma}(1 - e^{-\bar\sigma})$, it is $\bar\sigma + \log(1 - e^{-\bar\sigma})$, and `expm1` keeps the digits of the difference. This is how `known` is written.

# %% tags=["nbval-check-output"]
hard = torch.tensor([1e-6, 100.0])
right = torch.tensor([math.log(1e-6), 100.0])
naive, ours = torch.log(hard.exp() - 1), known(hard) - math.log(N)
print(f"σ̄ = 1e-6: {naive[0]:.3f} as it stands, {ours[0]:.3f} with expm1; right is {right[0]:.3f}")
print(f"σ̄ = 100:  {naive[1]:.3f} as it stands, {ours[1]:.3f} with expm1")

# %% tags=["hide-cell"]
assert torch.allclose(ours, right) and naive[0] - right[0] < -0.04 and naive[1].isinf()

# %% [markdown]
# On GPUs matrix products often run in **bfloat16**, a type with 8 significant bits. Two things must stay in float32. One is the sum $h$, to which every block adds: in bfloat16 a small addition to a larger number is lost. The other is the log-score: at $N = 50\,257$ these numbers are large, and between 8 and 16 neighbouring bfloat16 numbers lie 1/16 apart. So a ratio could be off by three per cent:

# %% tags=["nbval-check-output"]
four = torch.tensor(4.0, dtype=torch.bfloat16)
log_score = -torch.linspace(8, 16, 10_000)
error = (log_score.bfloat16().float() - log_score).exp() - 1
print(f"4 + 0.01 = {(four + 0.01).item()} in bfloat16")
print(f"ratios from bfloat16 log-scores are off by up to {100 * error.abs().max():.1f} %")

# %% [markdown]
# The library keeps both in float32 also inside `autocast`, PyTorch's switch that lets matrix products run in bfloat16.

# %% tags=["hide-cell"]
assert four + 0.01 == four
with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
    assert library.blocks[0].attn_qkv(hidden).dtype == torch.bfloat16
    assert library.blocks[0](hidden, c, *turns).dtype == torch.float32
    assert library(x, sigma).dtype == torch.float32

# %% [markdown]
# ### Rows: how does the library train without the whole table of log-scores?
#
# `at=` takes a mask of positions, runs the head on these alone, and returns one row for each:

# %% tags=["nbval-check-output"]
with torch.no_grad():
    table, rows = library(x, sigma), library(x, sigma, at=x == MASK)
print("all rows:", tuple(table.shape), " rows at MASK:", tuple(rows.shape))

# %% [markdown]
# In training not even these rows are wanted, only the loss. Given the clean text and the graph, the network computes the score entropy inside its head, some rows at a time, and forgets each piece when its loss is known. (If memory is short, the backward pass computes the piece again.)

# %%
with torch.no_grad():
    inside = library(x, sigma, x0=x0, graph=graph)  # (B, L)
assert torch.allclose(inside, graph.score_entropy(table, sigma[:, None], x, x0), rtol=1e-4)

# %% [markdown]
# If half of the tokens are hidden, the head does half of its arithmetic. The folded cell counts the FLOPs: with 32 of 64 tokens hidden, `at=` saves exactly 32 products of a vector with the matrix of the head.

# %% tags=["hide-cell"]
assert torch.allclose(rows, table[x == MASK], atol=1e-5)
torch.manual_seed(0)
wide = DiffusionTransformer(DiTConfig(num_tokens=5000, length=64, width=64, num_heads=2))
long_text = torch.arange(64)[None] * 70  # (1, 64)
long_text[:, ::2] = 5000  # every other token hidden
one = torch.ones(1)
saved = count_flops(wide, long_text, one) - count_flops(wide, long_text, one, at=long_text == 5000)
assert saved == 2 * 32 * 64 * 5001

# %% [markdown]
# ### The rule of six: how well does 6 FLOPs a weight and token estimate training?
#
# People estimate the cost of training as 6 FLOPs for each weight and token. The forward pass takes 2. The backward pass takes 4, two products for each: one for the gradient of the weights, one for that of the input.

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    big, level = DiffusionTransformer(DiTConfig()), torch.ones(1)
    measured = count_flops(lambda: big(torch.zeros(1, 1024).long(), level).sum().backward())
weights, forward = parameters(768, 12), sum(flops(768, 12).values())
P = sum(weights.values())
print(f"backward / forward:              {measured / forward - 1:.2f}")
print(f"measured / rule, all weights:    {measured / (6 * P * 1024):.2f}")
print(f"measured / rule, no embedding:   {measured / (6 * (P - weights['embedding']) * 1024):.2f}")

# %% [markdown]
# With all weights the rule is almost a fifth too high, because it counts the embedding, which does no arithmetic. Without the embedding it is 8 % too low: the products $q \cdot k$ and $a \cdot v$ have no weights (and the weights for the noise level, which it counts for every token, make up for part of this). The released configuration of SEDD small names 1.3 million steps of 512 texts (the paper's author has said that the run on OpenWebText took 400 000). With 1.3 million steps training takes
#
# $$3 \cdot 292 \cdot 10^9 \cdot 512 \cdot 1.3 \cdot 10^6 \approx 6 \cdot 10^{20} \text{ FLOPs.}$$
#
# Chapter 11 turns this into days. (It runs the head on hidden tokens only, which saves a seventh.)

# %% tags=["hide-cell"]
assert round(measured * 512 * 1.3e6 / 1e20) == 6
assert round(forward / 1e9) == 292 and abs(measured / forward - 3) < 0.01

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023. The network is in its appendix on experiments.
# - W. Peebles, S. Xie, [*Scalable Diffusion Models with Transformers*](https://arxiv.org/abs/2212.09748), 2022. The diffusion transformer for images: adaLN-zero, compared with other ways of conditioning.
# - J. Su and others, [*RoFormer: Enhanced Transformer with Rotary Position Embedding*](https://arxiv.org/abs/2104.09864), 2021. Rotary positions.
# - A. Vaswani and others, [*Attention Is All You Need*](https://arxiv.org/abs/1706.03762), 2017. Attention, heads, and sinusoidal features.
# - J. Kaplan and others, [*Scaling Laws for Neural Language Models*](https://arxiv.org/abs/2001.08361), 2020. The rule of six.
# - What came later: J. Ou and others, [*Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data*](https://arxiv.org/abs/2406.03736), 2024. Leaves the noise level out of the network, for the reason of section 5.
# - S. Sahoo and others, [*Simple and Effective Masked Diffusion Language Models*](https://arxiv.org/abs/2406.07524), 2024. The same transformer with a softmax head, for MASK noise.
