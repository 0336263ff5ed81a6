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
# # 06. The diffusion transformer: how can one network answer for every word at every noise level?
#
# We know what a network has to say: for each position of a noisy text, and for each state $y$ that
# the token there could jump to, the logarithm of the ratio $s(x)_y = p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$.
# For a text of $L$ tokens this is a table of $L \times (N+1)$ numbers. The entries of one row depend
# on all the other words, near and far, on both sides, and on how noisy the text is.
#
# The small networks of the earlier chapters knew sequences of two or three tokens by heart. For text
# we need one that shares what it knows between positions. This chapter builds it, piece by piece, on
# one tiny tensor that you can print. It is the **diffusion transformer** of the paper. At the end you
# will have written every line of it, and it will be equal, number for number, to the library's.
#
# After this chapter you will be able to
#
# - build each piece of the network by hand: embeddings, rotary positions, attention, conditioning on
#   the noise, the log-score head, and say why it is there;
# - explain "scale by σ": which part of the answer is known, and why the network should not learn it;
# - count the parameters and the arithmetic of a network before you run it, and save some.
#
# *You need* chapters 01 to 05 and PyTorch. *Running time:* under a minute on two CPU cores.

# %% [markdown]
# ## A picture first
#
# Here is the map. $B$ is the number of sequences in a batch, $L$ their length, $D$ the **width**: the
# number of features by which the network describes a position.

# %%
import math
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from sedd_mini import AbsorbingGraph, LogLinearNoise, UniformGraph, plots

plots.use_style()
fig, ax = plots.plt.subplots(figsize=(10, 2.9))
frame = {"ha": "center", "va": "center", "multialignment": "center"}
stages = ["tokens x\n(B, L)", "embedding\n(B, L, D)", "block 1\n(B, L, D)", "block 2\n(B, L, D)",
          "head\n(B, L, N+1)", "log-scores\n(B, L, N+1)"]  # fmt: skip
for i, text in enumerate(stages):
    colour = plots.BLUE if 0 < i < 5 else "#555555"
    box = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": colour, "lw": 1.8}
    ax.text(2 * i, 1, text, color=colour, bbox=box, **frame)
    if i:
        ax.annotate("", (2 * i - 0.72, 1), (2 * i - 1.28, 1), arrowprops={"arrowstyle": "->"})
orange = {"boxstyle": "round,pad=0.5", "fc": "white", "ec": plots.ORANGE, "lw": 1.8}
ax.text(2, -0.6, "noise level $\\bar\\sigma$, (B,)\nas a condition", bbox=orange, **frame)
for i in (4, 6, 8):
    ax.annotate("", (i, 0.5), (2.95, -0.6), arrowprops={"arrowstyle": "->", "color": plots.ORANGE})
ax.text(7.6, -0.45, "shift, scale (and gate, in blocks)", color=plots.ORANGE, **frame)
ax.text(5, 2.1, "positions turn queries and keys", color=plots.GREEN, **frame)
for i in (4, 6):
    ax.annotate("", (i, 1.5), (5, 1.95), arrowprops={"arrowstyle": "->", "color": plots.GREEN})
ax.set(xlim=(-0.9, 10.9), ylim=(-1.1, 2.4))
ax.set_axis_off()

# %% [markdown]
# *What to see.* The text goes through from left to right. Along the way each position has a vector of
# $D$ numbers, and every block adds something to it. Two things enter from the side: *where* a token
# is (green), inside the blocks, and *how noisy* the text is (orange), in every block and in the head.
# SEDD small has 12 blocks. Ours has two.
#
# ## 1. One tiny tensor
#
# Five words, $N = 5$, and MASK, written ■, as the sixth state. Two sentences of six tokens, the first
# at little noise and the second at much.

# %% tags=["nbval-check-output"]
words = ["the", "cat", "saw", "dog", ".", "■"]
x = torch.tensor([[0, 5, 2, 0, 3, 4], [5, 5, 2, 5, 5, 4]])  # (B, L) = (2, 6)
sigma = torch.tensor([0.2, 1.5])  # (B,)
for row in x:
    print(" ".join(words[token] for token in row))

# %% [markdown]
# We take the weights from the library's network, at a tiny size: width $D = 8$, two blocks, two
# *heads* (section 3 says what they are). So whatever we build can be compared with it at every step.
# One copy stays as it was made, `untrained`. In the other, `model`, all weights are random numbers.
# They stand for a training that we have not done: an untrained network has so many zeros, on purpose,
# that it could hide our mistakes.

# %% tags=["nbval-check-output"]
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig

tiny = {"num_tokens": 5, "length": 6, "width": 8, "num_blocks": 2, "num_heads": 2, "dropout": 0.0}
config = DiTConfig(**tiny, cond_dim=4)
torch.manual_seed(0)
untrained = DiffusionTransformer(config)
model = DiffusionTransformer(config).requires_grad_(False)
for weight in model.parameters():
    weight.normal_(std=0.5)
print(model(x, sigma).shape)

# %% [markdown]
# (Dropout sets random entries to 0 during training, against overfitting. Here it is off.)
#
# **Embedding.** Token number 3 is not three times token number 1, so the number itself must not be
# used for arithmetic. Instead each state gets a row of $D$ learned numbers, and a token is replaced by
# its row. As a formula it is a product: the one-hot vector of the token times the matrix of rows.
# Nearly all of that product is zeros, so in practice one looks the row up.

# %%
E = model.vocab_embed.embedding  # (N + 1, D)
by_product = F.one_hot(x, 6).float() @ E  # (B, L, D)
hidden = E[x]  # (B, L, D)
assert_close(hidden, by_product)
assert_close(hidden, model.vocab_embed(x))

# %% [markdown]
# `assert_close` raises an error unless two tensors agree to the rounding of their number type. And
# `hidden` is the tensor that we now carry through the chapter. Note what it does *not* know: both
# *the* in the first sentence have the same eight numbers.

# %%
assert torch.equal(hidden[0, 0], hidden[0, 3])

# %% [markdown]
# ## 2. Where is a word? Rotary positions
#
# Soon, positions will compare vectors by dot products: $q \cdot k$, where $q$ belongs to the position
# that asks and $k$ to the one that is looked at. That number ought to depend on how far apart the two
# are. Here is a lovely way: **turn every vector by an angle proportional to its position**. Turning
# both vectors by the same angle changes no dot product, so only the *difference* of the angles can
# matter. In the plane,
#
# $$R_a = \begin{pmatrix} \cos a & -\sin a \\ \sin a & \cos a \end{pmatrix}, \qquad
# (R_{m\theta}\, q) \cdot (R_{n\theta}\, k) = q \cdot R_{(n-m)\theta}\, k .$$

# %%
def R(a):
    return torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])


q, k, theta = torch.tensor([1.0, 0.3]), torch.tensor([-0.2, 0.8]), 0.4
for m, n in [(0, 0), (2, 5), (7, 1)]:
    assert_close((R(m * theta) @ q) @ (R(n * theta) @ k), q @ R((n - m) * theta) @ k)

# %% [markdown]
# A vector with more than two entries is cut into pairs. Pair number $i$ turns with its own frequency
# $\theta_i = 10\,000^{-i/\text{half}}$: the first pair quickly, so that it tells neighbours apart, the
# last one hardly at all, so that it still knows something at a distance of thousands. Which entries
# make a pair is a convention. SEDD takes entry $i$ of the first half and entry $i$ of the second. The
# naive code says just that:

# %%
def turn(vectors):  # (L, width of a head)
    out, half = vectors.clone(), vectors.shape[-1] // 2
    for position in range(len(vectors)):
        for i in range(half):
            a = position * 10_000 ** (-i / half)
            pair = R(a) @ vectors[position, [i, i + half]]
            out[position, i], out[position, i + half] = pair
    return out

# %% [markdown]
# The better code has no loops. Written out, a turned vector is $(u \cos a - v \sin a,\; v \cos a + u
# \sin a)$ for the halves $u$ and $v$: the vector times the cosines, plus the vector with its halves
# exchanged (and one sign) times the sines. This trick is known as *rotate-half*. Cosines and sines
# are made once and serve all blocks.

# %%
def cos_sin(length, width):
    half = width // 2
    a = torch.arange(length)[:, None] * 10_000 ** (-torch.arange(half) / half)  # (L, half)
    a = torch.cat([a, a], -1)  # (L, width): both members of a pair turn by the same angle
    return a.cos(), a.sin()


def rotate_half(vectors, cos, sin):
    u, v = vectors.chunk(2, -1)
    return vectors * cos + torch.cat([-v, u], -1) * sin

# %%
from sedd_mini.network.dit import rotate

vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
cos, sin = cos_sin(6, 4)
assert_close(rotate_half(vectors, cos, sin), turn(vectors))
assert_close(rotate_half(vectors, cos, sin), rotate(vectors, cos, sin))
assert_close((cos, sin), model.rotary_emb(6))

# %% [markdown]
# Does it do what we wanted? Put the same $q$ and the same $k$ at all of 24 positions and look at all
# dot products at once. If they depend on the distance alone, every diagonal of the table is constant.

# %%
q, k = torch.randn(2, 16, generator=torch.Generator().manual_seed(1))
long = cos_sin(24, 16)
q_turned, k_turned = (rotate_half(vector.expand(24, 16), *long) for vector in (q, k))
dots = q_turned @ k_turned.T  # (24, 24)
for distance in range(-23, 24):
    diagonal = dots.diagonal(distance)
    assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4, rtol=0)
assert dots.std() > 1  # and different distances do give different ones

# %%
fig, (left, right) = plots.plt.subplots(1, 2, figsize=(8.5, 3.4))
for position in range(6):
    tip = R(position * theta) @ torch.tensor([1.0, 0.0])
    left.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": plots.BLUE, "lw": 2})
    left.text(*(1.13 * tip), str(position), ha="center", va="center")
left.set(xlim=(-0.7, 1.3), ylim=(-0.2, 1.3), aspect="equal", title="One pair at positions 0 to 5")
image = right.imshow(dots, cmap="PuOr_r", vmin=-8, vmax=8)
right.set(xlabel="position of k", ylabel="position of q", title="q · k, both turned")
right.grid(False)
fig.colorbar(image, ax=right);

# %% [markdown]
# *What to see.* Left: the same pair of numbers, turned a little more at each position. Right: stripes
# along the diagonals. The dot product of two words depends on how far apart they are and in which
# order, and on nothing else. So what is learned at one place in the text holds at every other place.

# %% [markdown]
# ## 3. Attention: looking at the others
#
# To guess a masked word one needs the words around it. **Attention** is how positions look at each
# other. Each position makes three vectors from its own: a *query* $q$ (what am I looking for?), a
# *key* $k$ (what do I have?) and a *value* $v$ (what do I tell?). Position $i$ compares its query with
# all keys, turns the dot products into weights that sum to 1, and takes the weighted mean of the
# values:
#
# $$a_{ij} = \frac{\exp(q_i \cdot k_j / \sqrt{d})}{\sum_{j'} \exp(q_i \cdot k_{j'} / \sqrt{d})}, \qquad
# o_i = \sum_j a_{ij}\, v_j .$$
#
# Here $d$ is the length of $q$. A dot product of $d$ independent terms has a standard deviation that
# grows like $\sqrt d$; the division keeps the exponent at a reasonable size. One weighted mean
# can look for one thing only, so the width is cut into $H$ parts, the **heads**, each of which does
# this for itself with $d = D/H$ numbers. One matrix makes all queries, keys and values at once:

# %% tags=["nbval-check-output"]
block = model.blocks[0]
qkv = hidden @ block.attn_qkv.weight.T  # (B, L, 3 D)
qkv = qkv.unflatten(-1, (3, 2, 4))  # (B, L, 3, H, D/H): first q, k, v; then heads
q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, D/H) each
q, k = rotate(q, cos, sin), rotate(k, cos, sin)
print("q, k and v are each", tuple(q.shape))

# %% [markdown]
# Values are not turned: what a word tells should not depend on where it stands. Now the formula, with
# loops over the asking position $i$ and the answering position $j$.

# %%
def attend_slowly(q, k, v):  # (L, d) each: one head of one sentence
    o = torch.zeros_like(v)
    for i in range(len(q)):
        a = [torch.exp(q[i] @ k[j] / math.sqrt(q.shape[-1])) for j in range(len(k))]
        for j in range(len(k)):
            o[i] += a[j] / sum(a) * v[j]
    return o

# %% [markdown]
# PyTorch has it as one function, which never stores all the $a_{ij}$ and is far faster.

# %%
o = F.scaled_dot_product_attention(q, k, v)  # (B, H, L, D/H)
for b in range(2):
    for head in range(2):
        assert_close(o[b, head], attend_slowly(q[b, head], k[b, head], v[b, head]))

# %% [markdown]
# Last, the heads are laid side by side again and mixed by one more matrix. Here is the whole of it as
# a function, with one switch that we discuss at once.

# %%
def attention(block, h, cos, sin, causal=False):
    qkv = (h @ block.attn_qkv.weight.T).unflatten(-1, (3, block.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # (B, H, L, D/H) each
    q, k = rotate_half(q, cos, sin), rotate_half(k, cos, sin)
    o = F.scaled_dot_product_attention(q, k, v, is_causal=causal)  # (B, H, L, D/H)
    return o.transpose(1, 2).flatten(2) @ block.attn_out.weight.T  # (B, L, D)


assert_close(attention(block, hidden, cos, sin), block.attn_out(o.transpose(1, 2).flatten(2)))

# %% [markdown]
# The switch: a model that writes from left to right must not see what it is about to predict, so it
# uses a **causal mask**, which sets $a_{ij} = 0$ for all $j > i$. We must *not* have one. A ■ in the
# middle of a sentence is explained by both of its sides, and nothing is given away: what has to be
# guessed is hidden in the input already. Let us see who sees whom. Change the token at $j$ to another
# one, and measure how much the output at $i$ changes.

# %%
def influence(causal):
    before = attention(block, E[x[:1]], cos, sin, causal)  # (1, L, D)
    rows = []
    for j in range(6):
        changed = x[:1].clone()
        changed[0, j] = (changed[0, j] + 1) % 6
        rows.append((attention(block, E[changed], cos, sin, causal) - before)[0].norm(dim=-1))
    return torch.stack(rows, -1)  # (L, L): row i, column j


both_sides, left_only = influence(causal=False), influence(causal=True)
assert (both_sides > 1e-4).all()
assert (left_only.triu(1) == 0).all() and (left_only.tril() > 0).sum() == 21

# %%
fig, axes = plots.plt.subplots(1, 2, figsize=(8.5, 3.5))
titles = ["without a mask: our network", "with a causal mask: a left-to-right model"]
for ax, table, title in zip(axes, (both_sides, left_only), titles):
    ax.imshow(table.clamp(min=1e-4).log(), cmap=plots.INK, vmin=-5, vmax=1.5)
    labels = [words[token] for token in x[0]]
    ax.set_xticks(range(6), labels)
    ax.set_yticks(range(6), labels)
    ax.set(xlabel="the token that is changed", ylabel="the position that notices", title=title)
    ax.grid(False)

# %% [markdown]
# *What to see.* Dark means a large change, white none at all. On the right the ■ can learn from *the*
# only. On the left it hears from all of the sentence. This freedom has a price: when one token
# changes, everything changes, so nothing computed for one step of a sampler can be kept for the next.
# (A left-to-right model keeps its keys and values, the "KV cache".)

# %% [markdown]
# ## 4. How noisy is it? Features of σ̄
#
# The network gets σ̄ as well: one number for each sentence. One number is a poor input for linear
# layers. We spread it out into 256 **sinusoidal features**, cosines and sines of σ̄ at 128
# frequencies, the same idea as in section 2:
#
# $$\cos(f_k \bar\sigma),\; \sin(f_k \bar\sigma), \qquad f_k = 10\,000^{-k/128}, \quad k = 0, \dots, 127 .$$
#
# Two linear layers with a nonlinearity between them turn these into a **condition** $c$ of $C$
# numbers, 128 in SEDD and 4 here. The nonlinearity is called SiLU, $u / (1 + e^{-u})$: nearly 0 for
# negative $u$, nearly $u$ for positive.

# %%
def silu(u):
    return u / (1 + torch.exp(-u))


def features(sigma):
    f = 10_000 ** (-torch.arange(128) / 128)
    a = sigma[:, None] * f  # (B, 128)
    return torch.cat([a.cos(), a.sin()], -1)  # (B, 256)


def condition(model, sigma):
    first, _, second = model.sigma_map.mlp
    return silu(second(silu(first(features(sigma)))))  # (B, C)


c = condition(model, sigma)
assert_close(c, F.silu(model.sigma_map(sigma)))

# %% [markdown]
# What can the network tell from these features? The fastest wave has length $2\pi$, so noise levels
# of 0.5 and 2 look different. But between 0.001 and 0.01 hardly anything moves, and the true scores
# there differ by a factor of ten. Section 10 and exercise 5 come back to this.

# %% tags=["nbval-check-output"]
def difference(a, b):
    return (features(torch.tensor([a])) - features(torch.tensor([b]))).norm().item()


length = features(torch.tensor([1.0])).norm().item()
print(f"a feature vector has length {length:.1f}; it moves by")
print(f"{difference(0.5, 2.0):.2f} from noise 0.5 to noise 2")
print(f"{difference(0.001, 0.01):.2f} from noise 0.001 to noise 0.01")

# %% [markdown]
# ## 5. Shift, scale, gate
#
# How does $c$ act on the positions? In a usual transformer each block has constants which are the same
# for every input; here $c$ decides them. We begin with where they belong. After many additions the
# vectors of different positions differ widely in length. **LayerNorm** brings each of them back to mean 0
# and variance 1, and multiplies each feature by a learned weight $w$:
#
# $$\mathrm{norm}(h) = w\, \frac{h - \mathrm{mean}(h)}{\sqrt{\mathrm{var}(h) + 10^{-5}}} .$$

# %%
def layer_norm(h, w):
    h = h - h.mean(-1, keepdim=True)
    return w * h / torch.sqrt((h**2).mean(-1, keepdim=True) + 1e-5)


assert_close(layer_norm(hidden, block.norm1.weight), block.norm1(hidden))

# %% [markdown]
# On GPUs matrix products usually run in **bfloat16**, a number type with 8 significant bits. The sum
# `hidden`, to which every block adds, must stay in float32, and so must its norm: in bfloat16 a small
# addition to a larger number is simply lost. (`autocast` is PyTorch's switch: inside it, matrix
# products use bfloat16. In the library's block only the products of attention and of the MLP obey it.)

# %%
four = torch.tensor(4.0, dtype=torch.bfloat16)
assert four + 0.01 == four
with torch.autocast("cpu", torch.bfloat16):
    assert block.attn_qkv(hidden).dtype == torch.bfloat16
    assert block(hidden, c, cos, sin).dtype == torch.float32

# %% [markdown]
# Now the noise. From $c$ one linear layer makes, for each of the $D$ features, a **shift** and a
# **scale**, and the norm becomes $\mathrm{norm}(h)\,(1 + \text{scale}) + \text{shift}$. A third
# vector, the **gate**, multiplies what attention answers before it is added:
#
# $$h \leftarrow h + \text{gate} \cdot \mathrm{attention}\big(\mathrm{norm}(h)\,(1 + \text{scale}) + \text{shift}\big).$$
#
# A second triple does the same for the second half of the block. So there are six vectors of $D$
# numbers per block: "adaptive layer norm", adaLN.

# %%
def modulate(h, shift, scale):
    return h * (1 + scale) + shift


six = block.adaLN_modulation(c)[:, None]  # (B, 1, 6 D): the same for every position
shift1, scale1, gate1, shift2, scale2, gate2 = six.chunk(6, -1)  # (B, 1, D) each
h = modulate(layer_norm(hidden, block.norm1.weight), shift1, scale1)  # (B, L, D)
hidden_1 = hidden + gate1 * attention(block, h, cos, sin)  # (B, L, D)

# %% [markdown]
# That second half is an **MLP**: at each position on its own, a linear layer to $4D$ features, a
# nonlinearity, and a linear layer back. Attention moves information between positions; the MLP works
# on it. Its nonlinearity is GELU in the approximate form that GPT-2 made popular:

# %%
def gelu(u):
    return u / 2 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))


def mlp(block, h):
    wide, _, back = block.mlp
    return back(gelu(wide(h)))  # (B, L, 4 D), then (B, L, D)


assert_close(mlp(block, h), block.mlp(h))

# %% [markdown]
# All of it together is the block. (For the norm and the MLP it calls PyTorch's fast versions, which we
# have just found equal to ours.) And the block equals the library's:

# %%
def run_block(block, hidden, c, cos, sin, causal=False):
    six = block.adaLN_modulation(c)[:, None].chunk(6, -1)
    shift1, scale1, gate1, shift2, scale2, gate2 = six  # (B, 1, D) each
    h = modulate(block.norm1(hidden), shift1, scale1)
    hidden = hidden + gate1 * attention(block, h, cos, sin, causal)
    h = modulate(block.norm2(hidden), shift2, scale2)
    return hidden + gate2 * block.mlp(h)


h = modulate(layer_norm(hidden_1, block.norm2.weight), shift2, scale2)
expected = hidden_1 + gate2 * mlp(block, h)  # the second half, by our own pieces
assert_close(run_block(block, hidden, c, cos, sin), expected)
assert_close(run_block(block, hidden, c, cos, sin), block(hidden, c, cos, sin))

# %% [markdown]
# **Why "zero".** The full name is adaLN-*zero*: the layer that makes the six vectors starts with all
# its weights at 0. Then every gate is 0, and an untrained block adds nothing at all. However deep the
# network, its input arrives at the other end intact, and each block joins in as far as it helps.

# %%
fresh = untrained.blocks[0]
assert torch.equal(fresh(hidden, c, cos, sin), hidden)

# %% [markdown]
# ## 6. The head: why a logarithm?
#
# The last layer turns the $D$ numbers of a position into $N + 1$: one for each state. It is a norm
# (modulated, without a gate) and a matrix. What should come out? Ratios are positive, and they live
# on very different scales. For a ■ of a text with little noise, σ̄ = 0.001, they run from far below 1
# to 1000. So we let the network give $\log s$. Any real number is allowed there, its exponential is
# positive by construction, and a factor of ten is the same step everywhere.
#
# One entry is known. At the current token, $y = x$, the ratio is $p(x)/p(x) = 1$, so its log is 0. We
# put it there.

# %%
def head(model, hidden, c, x):
    out = model.output_layer
    shift, scale = out.adaLN_modulation(c)[:, None].chunk(2, -1)  # (B, 1, D) each
    h = modulate(out.norm_final(hidden), shift, scale)
    logits = h @ out.linear.weight.T + out.linear.bias  # (B, L, N + 1)
    return torch.where(F.one_hot(x, logits.shape[-1]).bool(), 0.0, logits)

# %% [markdown]
# Its matrix starts at zero too. So the untrained head answers 0 everywhere, and all ratios are 1:
# "every state is as likely as every other". For the uniform graph this is exactly true at infinite
# noise, which is a sensible place to begin. (That graph has no ■; here a full stop takes its place.)

# %%
torch.manual_seed(0)
uniform_net = DiffusionTransformer(DiTConfig(**tiny, absorbing=False))
assert (uniform_net(x.clamp(max=4), sigma) == 0).all()

# %% [markdown]
# It has a curious consequence. With a zero matrix at the end, no gradient can pass to anything before
# it. Then how does the network ever start to learn? Let us count the weight tensors that get a
# gradient in the first three steps of training (chapter 03's loss; `graph.score_entropy`).

# %% tags=["nbval-check-output"]
graph = AbsorbingGraph(5)
x0 = torch.tensor([[0, 1, 2, 0, 3, 4], [0, 3, 2, 0, 1, 4]])
for step in range(1, 4):
    loss = graph.score_entropy(untrained(x, sigma), sigma[:, None], x, x0).mean()
    gradients = torch.autograd.grad(loss, list(untrained.parameters()))
    awake = sum(g.abs().max().item() > 0 for g in gradients)
    print(f"step {step}: {awake} of {len(gradients)} weight tensors have a gradient")
    with torch.no_grad():
        for weight, g in zip(untrained.parameters(), gradients):
            weight -= 0.1 * g

# %% [markdown]
# It wakes up from the end. In step 1 the head's matrix and bias move. In step 2 a gradient passes
# through them and reaches the embedding and the gates. In step 3 the gates are open, and everything
# learns.

# %% [markdown]
# ## 7. Scale by σ: do not learn what is known
#
# On the absorbing graph there is more to know beforehand. Take a noisy sequence $x$ with a ■ at some
# position, and let $y$ be the same sequence with token $a$ there. How does $y$ arise? The token at
# that position was $a$ and survived, with probability $e^{-\bar\sigma}$. And $x$? The token was
# anything, and was masked, with probability $1 - e^{-\bar\sigma}$. All else is equal in both, and the
# noise on other tokens does not look at this one. So
#
# $$\frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)}
# = \frac{e^{-\bar\sigma}}{1 - e^{-\bar\sigma}}\; p(x_0 = a \mid \text{visible tokens of } x)
# = \frac{1}{e^{\bar\sigma} - 1}\; p(x_0 = a \mid \text{visible tokens of } x) .$$
#
# The noise level stands in the first factor alone. And the second factor is a plain conditional
# probability of the *data*, which is the same at every noise level. Check it on the oracle: a random
# world of three tokens with three values each, all its ratios by enumeration.

# %%
from sedd_mini.worlds.ctmc import Chain

generator = torch.Generator().manual_seed(4)
p0 = torch.rand(3, 3, 3, generator=generator, dtype=torch.float64) ** 3 + 0.01
chain = Chain(AbsorbingGraph(3), p0 / p0.sum())
masked = chain.states == 3  # (n, 3): every sequence with ■ (state 3) anywhere
posterior = chain.posterior(0.5)[masked]  # p(x0 = a | x), (M, 3)
for level in (0.001, 0.1, 1.0, 5.0):
    assert_close(chain.scores(level)[masked][:, :3] * math.expm1(level), posterior)

# %%
levels = torch.logspace(-3, 0.8, 60, dtype=torch.float64)
rows = chain.log_score(torch.tensor([[1, 3, 0]]).expand(60, 3), levels)[:, 1, :3]  # (60, 3)
fig, axes = plots.plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
axes[0].plot(levels, rows, label=["token 0", "token 1", "token 2"])
axes[0].legend()
axes[1].plot(levels, rows + torch.log(torch.expm1(levels))[:, None])
axes[0].set(title="true log-scores at ■ in 1 ■ 0", ylabel="log-score")
axes[1].set_title(r"... with $\log(e^{\bar\sigma} - 1)$ added")
for ax in axes:
    ax.set(xscale="log", xlabel=r"$\bar\sigma$")

# %% [markdown]
# *What to see.* Left: the log-scores of the three tokens at the ■ fall by more than ten as noise grows,
# but always in parallel. Right: add the known term, and three constants are left, the logarithms of
# the three conditional probabilities. They are all that has to be learned.
#
# So the library subtracts $\log(e^{\bar\sigma} - 1)$ from whatever the network says, together with
# $\log N$, so that an output of 0 means the uniform guess $p = 1/N$. This is "scale by σ". Then the
# *untrained* network on the absorbing graph already gives the exact ratios of a world in which all
# sequences are equally likely.

# %%
torch.manual_seed(0)
untrained = DiffusionTransformer(config)
even = Chain(AbsorbingGraph(5), torch.full((5, 5, 5), 1 / 125, dtype=torch.float64))
exact = even.log_score(x[:, :3], sigma)
hidden_words = x[:, :3] == 5
assert_close(untrained(x[:, :3], sigma)[hidden_words], exact[hidden_words].float())

# %% [markdown]
# How to compute $\log(e^{\bar\sigma} - 1)$? Not as it stands. In float32 the subtraction destroys the
# digits of a small σ̄, and the exponential of a large one overflows. With `expm1` on the negative side
# both are fine: $\log(e^{\bar\sigma} - 1) = \bar\sigma + \log(1 - e^{-\bar\sigma})$.

# %%
def log_expm1(sigma):
    return sigma + torch.log(-torch.expm1(-sigma))


hard = torch.tensor([1e-6, 100.0])
assert_close(log_expm1(hard), torch.tensor([math.log(1e-6), 100.0]))
assert torch.log(hard[0].exp() - 1) - math.log(1e-6) < -0.04  # nearly 5 % off
assert torch.log(hard[1].exp() - 1).isinf()
assert_close(log_expm1(sigma) + math.log(5), model.output_layer.offset(sigma))

# %% [markdown]
# And in which number type? With $N = 50\,257$ these terms are large: $\log N$ is 10.8. Between 8 and
# 16 neighbouring bfloat16 numbers lie 1/16 apart, so rounding moves a log-score by up to 1/32, and
# every ratio by up to three per cent. Hence log-scores are made float32 *before* the subtraction, and
# stay so.

# %% tags=["nbval-check-output"]
log_score = -torch.linspace(8, 16, 10_000)
error = (log_score.bfloat16().float() - log_score).exp() - 1
print(f"ratios from bfloat16 log-scores: off by up to {100 * error.abs().max():.1f} %")
with torch.autocast("cpu", torch.bfloat16):
    assert model(x, sigma).dtype == torch.float32

# %% [markdown]
# ## 8. The whole network
#
# Every piece is there. `positions=False` and `noise=False` are switches for the experiment in section
# 10, like `causal`: they take a piece out.

# %%
def network(model, x, sigma, causal=False, positions=True, noise=True):
    c = condition(model, sigma) * noise  # (B, C)
    cos, sin = cos_sin(x.shape[1], model.config.width // model.config.num_heads)
    if not positions:
        cos, sin = torch.ones_like(cos), torch.zeros_like(sin)  # turn by nothing
    hidden = model.vocab_embed.embedding[x]  # (B, L, D)
    for block in model.blocks:
        hidden = run_block(block, hidden, c, cos, sin, causal)
    log_score = head(model, hidden, c, x)  # (B, L, N + 1)
    if model.config.scale_by_sigma:
        known = log_expm1(sigma) + math.log(model.config.num_tokens)  # (B,)
        log_score = log_score - known[:, None, None]
    return torch.where(F.one_hot(x, log_score.shape[-1]).bool(), 0.0, log_score)


assert_close(network(model, x, sigma), model(x, sigma))

# %% [markdown]
# That is the moment this chapter was written for. Every line of this network has stood on these pages,
# and it is equal to the library's; with other sizes and weights it is the published one.
# `sedd_mini/network/dit.py` says the same in classes. One more check, that everything gets through: a changed
# last token, or another σ̄, changes what the network itself says, the known term aside, at every
# position.

# %%
def inner(x, sigma):  # without the known term, which moves with σ̄ by itself
    out = model(x, sigma) + model.output_layer.offset(sigma)[:, None, None]
    return out.masked_fill(F.one_hot(x, 6).bool(), 0)


changed = x.clone()
changed[:, -1] = 1
for other in (inner(changed, sigma), inner(x, 2 * sigma)):
    moved = (other - inner(x, sigma)).abs().amax(-1)  # (B, L)
    assert (moved > 1e-3).all()

# %% [markdown]
# ### Rows only where an answer is needed
#
# On the absorbing graph only a ■ will ever jump backwards. The rows of visible tokens are computed and
# thrown away, and a row is expensive: 50 258 numbers. The library's `at=` takes a mask of positions,
# runs the head on those alone, and gives one row for each.

# %% tags=["nbval-check-output"]
rows = model(x, sigma, at=x == 5)
assert_close(rows, model(x, sigma)[x == 5])
print("all rows:", tuple(model(x, sigma).shape), " rows needed:", tuple(rows.shape))

# %% [markdown]
# In training not even these rows are wanted, only the loss. At $N = 50\,257$ the rows of one batch can
# fill a GPU. So, given the clean text `x0` and the graph, the network computes the score entropy inside
# its head, some rows at a time, and forgets each piece when its loss is known.

# %%
inside = model(x, sigma, x0=x0, graph=graph)  # (B, L); x0 and graph as in section 6
assert_close(inside, graph.score_entropy(model(x, sigma), sigma[:, None], x, x0))

# %% [markdown]
# How much does it save? We count **FLOPs**: floating-point operations. A product of an $(m \times n)$
# and an $(n \times p)$ matrix takes $m\,p$ dot products of $n$ multiplications and $n$ additions
# each: $2mnp$. Everything else in a network is small beside that. PyTorch's `FlopCounterMode` adds up
# the matrix products while the code runs.

# %%
from torch.utils.flop_counter import FlopCounterMode


def count_flops(function, *inputs, **options):
    with FlopCounterMode(display=False) as counter:
        function(*inputs, **options)
    return counter.get_total_flops()

# %%
torch.manual_seed(0)
wide = DiffusionTransformer(DiTConfig(num_tokens=5000, length=64, width=64, num_heads=2))
text = torch.arange(64)[None] * 70  # (1, 64)
text[:, ::2] = 5000  # every other token masked
level = torch.ones(1)
saved = count_flops(wide, text, level) - count_flops(wide, text, level, at=text == 5000)
assert saved == 2 * 32 * 64 * 5001  # 32 rows of 64 numbers, times a (64, 5001) matrix

# %% [markdown]
# ## 9. How large is it?
#
# Let us count the real thing by hand. $S = N + 1 = 50\,258$ states, and the sizes of SEDD small and
# medium. A linear layer from $a$ to $b$ features has $ab$ weights, and $b$ more if it has a bias. It
# costs $2ab$ FLOPs for each vector that it is applied to. Attention costs extra: $L$ queries times $L$
# keys, and $L \times L$ weights times $L$ values, each $2L^2D$ FLOPs with all heads together.

# %%
def parameters(D, blocks, S=50_258, C=128):
    return {
        "embedding": S * D,
        "attention": blocks * (3 * D * D + D * D),  # q, k, v; out
        "q · k and a · v": 0,
        "MLP": blocks * (D * 4 * D + 4 * D + 4 * D * D + D),
        "noise, norms": (6 * blocks + 2) * D * (C + 1) + (2 * blocks + 1) * D
        + (256 + 1) * C + (C + 1) * C,
        "head": S * (D + 1),
    }  # fmt: skip

# %%
def flops(D, blocks, S=50_258, C=128, L=1024):  # one sequence, forward
    return {
        "embedding": 0,
        "attention": L * blocks * 2 * 4 * D * D,
        "q · k and a · v": blocks * 2 * 2 * L * L * D,
        "MLP": L * blocks * 2 * 8 * D * D,
        "noise, norms": 2 * ((6 * blocks + 2) * D * C + 256 * C + C * C),  # once, not L times
        "head": L * 2 * S * D,
    }

# %% [markdown]
# To check this we build the full-size network on the `meta` device. A tensor there has a shape and a
# type but no numbers, so it needs neither memory nor time. Its parameters can be counted, and so can
# its FLOPs, forward and backward.

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    for name, D, blocks, heads in (("small", 768, 12, 12), ("medium", 1024, 24, 16)):
        big = DiffusionTransformer(DiTConfig(width=D, num_blocks=blocks, num_heads=heads))
        P = sum(weight.numel() for weight in big.parameters())
        text, level = torch.zeros(1, 1024, dtype=torch.int64), torch.ones(1)
        assert P == sum(parameters(D, blocks).values())
        assert count_flops(big, text, level) == sum(flops(D, blocks).values())
        inside = sum(weight.numel() for weight in big.blocks.parameters())
        print(f"SEDD {name}: {P / 1e6:.1f} M parameters, {inside / 1e6:.1f} M of them in blocks")

# %% [markdown]
# The hand count is exact, for parameters and FLOPs, at both sizes. Where are they?

# %%
fig, ax = plots.plt.subplots(figsize=(8.5, 2.8))
colours = [plots.PURPLE, plots.BLUE, "#8fbbdb", plots.GREEN, plots.GREY, plots.ORANGE]
for y, shares in enumerate((parameters(768, 12), flops(768, 12))):
    start, total = 0.0, sum(shares.values())
    for (name, part), colour in zip(shares.items(), colours):
        ax.barh(y, part / total, left=start, color=colour, label=name if y == 0 else None)
        if part / total > 0.03:
            middle, label = start + part / total / 2, f"{100 * part / total:.0f} %"
            ax.text(middle, y, label, ha="center", va="center", color="white", fontsize=10)
        start += part / total
ax.set_yticks([0, 1], ["parameters\n169.6 million", "FLOPs of one text\n292 billion"])
ax.set(xlim=(0, 1), ylim=(1.5, -0.5), xticks=[])
ax.set_title("SEDD small: where it is large, and where it works")
ax.grid(False)
ax.legend(ncols=6, loc="upper center", bbox_to_anchor=(0.45, 0.02), fontsize=9.5, handlelength=1)
assert round(sum(flops(768, 12).values()) / 1e9) == 292

# %% [markdown]
# *What to see.* Nearly half of the parameters are two tables of the vocabulary. The embedding is free
# to use (a look-up), the head is not: over a quarter of all arithmetic. That is what `at=` saves on.
# The noise level has seven million parameters and costs next to nothing, since its layers run once a
# text, not once a token.
#
# **The 6·P·tokens rule.** People estimate the cost of training as 6 FLOPs per parameter and token: 2
# forward, and 4 backward, because the backward pass has two products for each one of the forward pass
# (a gradient for the weights, one for the input). How good is it here?

# %% tags=["nbval-check-output"]
with torch.device("meta"):
    big = DiffusionTransformer(DiTConfig())
    text, level = torch.zeros(1, 1024, dtype=torch.int64), torch.ones(1)
    measured = count_flops(lambda: big(text, level).sum().backward())
P, embedding = sum(parameters(768, 12).values()), parameters(768, 12)["embedding"]
print(f"backward / forward:               {measured / sum(flops(768, 12).values()) - 1:.2f}")
print(f"measured / rule, all parameters:  {measured / (6 * P * 1024):.2f}")
print(f"measured / rule, no embedding:    {measured / (6 * (P - embedding) * 1024):.2f}")

# %% [markdown]
# The rule is good to a sixth. Taken literally it counts the embedding, which does no arithmetic; and it
# leaves out the products of attention, which have no parameters. With 1.3 million steps of 512 texts,
# the paper's longest run comes to
#
# $$3 \cdot 292 \cdot 10^9 \cdot 512 \cdot 1.3 \cdot 10^6 \approx 6 \cdot 10^{20} \text{ FLOPs,}$$
#
# weeks on one of today's GPUs. You will not do that here.

# %%
assert round(measured * 512 * 1.3e6 / 1e20) == 6

# %% [markdown]
# ## 10. Experiment: what is each piece worth?
#
# We have claimed a lot. Bidirectional attention, positions, scale by σ, conditioning on the noise: does
# each of them matter? Take each one out and train what is left. The language: our five words in a
# circle, *the → cat → saw → dog → . → the*. The next word is the next in the circle with probability
# 0.8, and one of the other four with 0.05 each. A sentence starts anywhere. The entropy of these
# sentences is known exactly. By chapter 04 no model's bound can be lower on average, and the exact
# ratios reach it.

# %% tags=["nbval-check-output"]
def sentences(num, generator):
    columns = [torch.randint(5, (num,), generator=generator)]
    for _ in range(5):
        follows = torch.rand(num, generator=generator) < 0.75
        fresh = torch.randint(5, (num,), generator=generator)  # again the follower, once in five
        columns.append(torch.where(follows, (columns[-1] + 1) % 5, fresh))
    return torch.stack(columns, -1)  # (num, 6)


entropy = math.log(5) - 5 * (0.8 * math.log(0.8) + 4 * 0.05 * math.log(0.05))
print(f"entropy {entropy:.2f} nats a sentence; a uniform guess pays {6 * math.log(5):.2f}")

# %% [markdown]
# The network is ours from section 8, at width 32 with four heads. Training is the loop of chapter 03, with a learning
# rate that rises and then falls to 0; chapter 07 looks at that closely. `likelihood_bound` is chapter
# 04's. All variants see the same sentences and the same noise.

# %%
from sedd_mini.evaluate import likelihood_bound, times
from sedd_mini.losses import training_loss


def train_and_measure(scale_by_sigma=True, steps=300, batch=128, **switches):
    torch.manual_seed(0)
    sizes = {**tiny, "width": 32, "num_heads": 4, "cond_dim": 16, "scale_by_sigma": scale_by_sigma}
    net, schedule = DiffusionTransformer(DiTConfig(**sizes)), LogLinearNoise()
    model = lambda x, sigma: network(net, x, sigma, **switches)
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), fused=True)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for _ in range(steps):
        x0, t = sentences(batch, generator), 1e-3 + 0.999 * times(batch, generator).float()
        loss = training_loss(model, graph, schedule, x0, t, generator=generator).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    x0 = sentences(2048, generator)
    return likelihood_bound(model, graph, schedule, x0, generator=generator, batch_size=2048)

# %%
variants = {
    "everything": {},
    "no σ̄ inside the network": {"noise": False},
    "no positions": {"positions": False},
    "left side only (causal)": {"causal": True},
    "no scale by σ": {"scale_by_sigma": False},
}
bounds = {name: train_and_measure(**switches) for name, switches in variants.items()}
excess = {name: bound.nats - entropy for name, bound in bounds.items()}

# %%
fig, ax = plots.plt.subplots(figsize=(8.5, 2.9))
errors = [2 * bound.error for bound in bounds.values()]
colours = [plots.BLUE, plots.BLUE, plots.ORANGE, plots.ORANGE, plots.ORANGE]
ax.barh(list(excess), list(excess.values()), xerr=errors, color=colours, height=0.6)
ax.axvline(6 * math.log(5) - entropy, color=plots.GREY, ls="--")
ax.text(6 * math.log(5) - entropy - 0.06, 0.9, "uniform guess", color="#555555", ha="right")
ax.invert_yaxis()
ax.grid(axis="y", visible=False)
ax.set(xlabel="bound minus entropy (nats a sentence)", title="What is lost without each piece");

# %%
for name in ("no positions", "left side only (causal)", "no scale by σ"):
    assert excess[name] > excess["everything"] + 0.6, name
assert excess["no scale by σ"] > 0.85 * (6 * math.log(5) - entropy)  # nothing was found
assert -0.2 < excess["everything"] < 0.2 * (6 * math.log(5) - entropy)
assert abs(excess["no σ̄ inside the network"] - excess["everything"]) < 0.4

# %% [markdown]
# *What to see.* 0 is the best that any model can do. Blue: a few seconds of training have found about
# nine tenths of what there is to know (the thin bars are two standard errors; more steps bring the rest,
# chapter 07). Orange: the same seconds with a piece missing. Without positions there is no "next word".
# With the left side only, half of the evidence is out of sight. Without the scale the network must first
# find $\log(e^{\bar\sigma} - 1)$ from features that hardly move where it is steepest. After
# these 300 steps it has found nothing at all.

# %% [markdown]
# **And the piece that was not missed?** Without σ̄ inside, the network is as good as with it. It is no
# accident: section 7 has shown that on the absorbing graph the rest of the answer does not depend on
# σ̄. So there the conditioning can be left out, and later work does so. On the uniform graph it cannot.
# There a visible word may be wrong, and how far to trust it depends on the noise. The oracle confirms:

# %% tags=["nbval-check-output"]
for g in (AbsorbingGraph(3), UniformGraph(3)):
    world = Chain(g, p0 / p0.sum())
    low, high = world.posterior(0.1), world.posterior(2.0)  # every sequence, two levels
    print(f"{g}: p(x0 | x) changes with the noise level by up to {(low - high).abs().max():.2f}")

# %% [markdown]
# ## Summary
#
# 1. Tokens become vectors; rotary positions turn queries and keys, so that attention compares by
#    distance; attention is bidirectional, since a ■ is explained by both of its sides.
# 2. The noise level becomes sinusoidal features, then a condition, then a shift, scale and gate in each
#    block. They start at 0: an untrained block is the identity.
# 3. The head gives log-scores, in float32: 0 at the current token, and 0 everywhere at the start.
# 4. On the absorbing graph the score is $p(x_0 \mid \text{visible})/(e^{\bar\sigma} - 1)$. The known
#    factor is taken out ("scale by σ"), and what remains to be learned does not depend on time.
# 5. SEDD small has 169.6 M parameters, 92.1 M of them in its blocks. Training costs three forward
#    passes a step, and the head, over a quarter of it, can be run on masked positions alone.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it. If the check is silent, you are done.
#
# **1. Long texts** (★☆☆, 5 minutes). At which length `L` do the products $q \cdot k$ and $a \cdot v$ of
# SEDD small cost as much as all matrices inside its blocks? Work it out by hand.
#
# ```python
# cost = flops(768, 12, L=L)
# assert cost["q · k and a · v"] == cost["attention"] + cost["MLP"]
# ```
#
# **2. Turning without sines** (★★☆, 15 minutes). A pair of numbers is one complex number, and turning
# it by $a$ is a multiplication by $e^{ia}$. Write `turn_complex(vectors)` with `torch.complex` and
# `torch.polar`, and no call of `rotate_half`.
#
# ```python
# assert_close(turn_complex(vectors), turn(vectors))
# ```
#
# **3. A bag of words** (★★☆, 15 minutes). Without positions the network should not notice in which
# order the words come: permuting the input permutes the output, and nothing else. Is it so? And why does
# the causal mask break this, though it knows no positions either? Make `shuffled`, the output for
# `x[:, order]`.
#
# ```python
# order = torch.tensor([3, 1, 5, 0, 2, 4])
# assert_close(shuffled, network(model, x, sigma, positions=False)[:, order])
# ```
#
# **4. What "scale by σ" saves at the start** (★★☆, 25 minutes). Without the scale an untrained network
# says $s = 1$ everywhere. What does one ■ cost then at noise σ̄? Multiply by the probability of a ■ and
# integrate from 0 to $\bar\sigma(1) = \log 1000$ (hint: substitute $u = e^{-\bar\sigma}$; then
# $\int_0^1 \log\frac{1 - u}{u}\, du = 0$, and what lies below $u = 0.001$ may be neglected). Name the nats
# of a sentence of six words `foretold`. Then estimate them by `training_loss`, with a new network with
# `scale_by_sigma=False`, 20 000 sentences and `t = times(20_000, generator).float()`, as `first_loss`.
# Compare with $6 \log 5$: that is what the scale is for.
#
# ```python
# assert foretold > 100 and abs(first_loss / foretold - 1) < 0.02
# ```
#
# **5. Small noise, seen** (★★★, 30 minutes). Section 4 showed that the features hardly tell 0.001
# from 0.01. With uniform noise and a geometric schedule from $10^{-4}$ to 20, more than a third of
# all training happens below 0.01. Write `features_of_log(sigma)`, of the same shape, so that factors of ten are told apart equally well
# everywhere between $10^{-4}$ and 20. Then train both kinds on the uniform graph: does it pay?
# (Copy `train_and_measure`, with `UniformGraph(5)`, `GeometricNoise()` and a config with
# `absorbing=False, scale_by_sigma=None`. `network` finds the function by its name, so that
# `features = features_of_log` exchanges it.)
#
# ```python
# a, b, c, d = features_of_log(torch.tensor([0.001, 0.01, 0.1, 1.0]))
# gaps = torch.stack([(a - b).norm(), (b - c).norm(), (c - d).norm()])
# assert gaps.min() > 1 and gaps.max() / gaps.min() < 1.01
# ```

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023. The network is in its appendix on
#   experiments.
# - W. Peebles, S. Xie, [*Scalable Diffusion Models with
#   Transformers*](https://arxiv.org/abs/2212.09748), 2023. Where adaLN-zero comes from, compared with
#   other ways of conditioning.
# - J. Su and others, [*RoFormer: Enhanced Transformer with Rotary Position
#   Embedding*](https://arxiv.org/abs/2104.09864), 2021.
# - A. Vaswani and others, [*Attention Is All You Need*](https://arxiv.org/abs/1706.03762), 2017.
#   Attention, heads, and sinusoidal features.
# - J. Ou and others, [*Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions
#   of Clean Data*](https://arxiv.org/abs/2406.03736), 2024. Leaves σ̄ out of the network, for the
#   reason of section 7.
# - J. Kaplan and others, [*Scaling Laws for Neural Language
#   Models*](https://arxiv.org/abs/2001.08361), 2020. The 6·P·tokens rule.
