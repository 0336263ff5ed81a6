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
# # 01. Noise that jumps: what is diffusion when the data are discrete?
#
# An image becomes a little noisier when a small number is added to every pixel; a word cannot be changed a
# little, as there is no "cat plus 0.01". This chapter builds noise that destroys words gradually and can be
# run backwards: time stays continuous, and the word **jumps** at random times.
#
# After this chapter you will be able to
#
# - read and write a **rate matrix**, simulate its jumps, and compute the exact distribution at any time;
# - derive the two kinds of noise that language models use, **uniform** and **absorbing**, and apply them to
#   a vocabulary of any size without a matrix;
# - derive and write the reverse process, which needs only **ratios of probabilities**.
#
# *You need* probability (Bayes' rule), a little PyTorch, and the page of chapter 00. *Running time:* under
# 30 seconds on two CPU cores.

# %% [markdown]
# ## The lines of the page
#
# The model of chapter 00 makes its training data with these lines:
#
# ```python
# def loss_of(x0):
#     ...
#     t = (torch.rand(1) + torch.arange(len(x0)) / len(x0)) % 1  # (B,): spread over 0 to 1
#     t = t[:, None].clamp(min=1e-3)
#     x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # hide a share t of the words
# ```
#
# We hid a share $t$ of the words because it worked. Where does this noise come from, what else
# could we use instead of MASK, and what does $t$ measure? The chapter derives the line, and at its
# end replaces it by one that takes other noise too.

# %% [markdown]
# ## A picture, and a prediction
#
# The next cell gives one sentence two kinds of noise, in five rounds. In each round every letter is
# **hit** with probability 0.33, even if it has been hit before. On the left a hit puts a random
# letter in its place (**uniform** noise), on the right ■, which stands for MASK (**absorbing**
# noise). Sections 1 to 4 explain the code and σ̄ ("sigma bar"), the amount of noise; for now, only
# look.
#
# **Predict:** after five rounds, how many of the 16 letters are lost on each side? Then run the
# next two cells.

# %%
import torch
from sedd_mini import AbsorbingGraph, UniformGraph, plots

torch.set_default_dtype(torch.float64)  # this chapter checks exact formulas
plots.use_style()
alphabet = "abcdefghijklmnopqrstuvwxyz ■"
x0 = torch.tensor([alphabet.index(c) for c in "noise that jumps"])

# %% tags=["hide-input"]
#| alt: Two grids of letters, six rows each. Down the rows the sentence "noise that jumps" loses
#| more and more letters: to random letters on the left, to black squares on the right.
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 2.7), gridspec_kw={"wspace": 0.12})
lost = []
names = "Uniform: a lost letter becomes another one", "Absorbing: a lost letter is hidden"
for ax, graph, name in zip(axes, [UniformGraph(27), AbsorbingGraph(27)], names):
    rows, generator = [x0], torch.Generator().manual_seed(0)
    for _ in range(5):
        rows.append(graph.sample_transition(rows[-1], 0.4, generator))
    text = [[alphabet[i] for i in row] for row in rows]
    labels = [rf"$\bar\sigma$ = {0.4 * i:.1f}" for i in range(6)] if ax is axes[0] else []
    plots.show_tokens(ax, text, torch.stack(rows) != x0, labels)
    ax.set_title(name)
    lost.append((rows[-1] != x0).sum().item())

# %% tags=["hide-cell"]
assert lost == [13, 13]
is_hit = 1 - torch.exp(torch.tensor(-2.0))  # by at least one of the five rounds
assert abs(16 * is_hit - 13.8) < 0.05 and abs(16 * is_hit * 26 / 27 - 13.3) < 0.05

# %% [markdown]
# *What to see.* Tinted letters differ from the original; after five rounds 13 of the 16 do on
# either side. The space counts as a letter, so there are 27; a tinted blank is a letter replaced by
# a space.
#
# On average it is 13.8 on the right and 13.3 on the left, where one hit in 27 draws the letter that
# was there at first.

# %% [markdown]
# ## 1. Three words and a rate matrix
#
# Take a vocabulary of three words. A token holds one of them, and from time to time it jumps to
# another. We give each possible jump a **rate**, which is a probability per unit of time: if *cat →
# dog* has rate 1, then within a very short time $h$ a cat becomes a dog with probability about
# $1 \cdot h$. A rate may exceed 1; only $h$ times the rate is a probability.

# %%
words = ["cat", "dog", "owl"]
Q = torch.tensor(
    [
        [-1.0, 2.0, 0.0],  # into cat
        [1.0, -3.0, 0.5],  # into dog
        [0.0, 1.0, -0.5],  # into owl
    ]
)

# %% tags=["hide-input"]
#| alt: Three discs in a row, cat, dog and owl. Arrows with rates: cat to dog 1, dog to cat 2, dog
#| to owl 1, owl to dog 0.5.
fig, ax = plots.plt.subplots(figsize=(6, 1.9))
places = [(0, 0), (2.2, 0), (4.4, 0)]
plots.show_states(ax, words, Q, places, colours=plots.COLOURS)
ax.set_title("Three words, four jumps, each with its rate");

# %% [markdown]
# *What to see.* This is a **state diagram**: a disc for each state, an arrow for each possible
# jump, and its rate beside it.
#
# The **rate matrix** $Q$ holds the same numbers. We write the rate of the jump $x \to y$ as
# $Q(y, x)$, destination first, so **column $x$ lists where $x$ can go**. The middle column says
# that a dog becomes a cat at rate 2 and an owl at rate 1, so it leaves at rate 3. The diagonal
# holds that total with a minus sign: what leaves one state arrives in another, so every column sums
# to zero. (Many books use the transpose, whose rows sum to zero. The SEDD paper and this book use
# columns.)

# %% tags=["hide-cell"]
assert (Q.sum(0) == 0).all()

# %% [markdown]
# Let a short time $h = 0.01$ pass, starting with a dog for certain. The new distribution is the old one,
# plus $h$ times what flows in, minus $h$ times what flows out. The matrix does both at once:
# $p_h \approx p_0 + h\, Q\, p_0$.

# %% tags=["nbval-check-output"]
dog = torch.tensor([0.0, 1.0, 0.0])
h = 0.01
p_h = dog + h * Q @ dog
for word, probability in zip(words, p_h):
    print(f"{word}  {probability:.2f}")

# %% [markdown]
# ## 2. One token, jump by jump
#
# The rates depend on where the token is now, and on nothing else: given the present, the future
# does not depend on the past. A process with this **Markov property** that jumps at random times is
# a **continuous-time Markov chain** (CTMC).
#
# How long does a dog stay a dog? Cut a time $s$ into pieces of length $h$. The dog survives each
# piece with probability about $1 - 3h$, however long it has waited, so it survives all $s/h$ of
# them with probability about $(1 - 3h)^{s/h}$. With shorter and shorter pieces this becomes exact
# and tends to $e^{-3s}$:

# %% tags=["nbval-check-output"]
s = 0.5
for h in [0.1, 0.01, 0.001, 0.0001]:
    print(f"h = {h:<6}  survives: {(1 - 3 * h) ** (s / h):.4f}")
print(f"limit       survives: {torch.exp(torch.tensor(-3 * s)):.4f}")

# %% [markdown]
# The waiting time is **exponential**: $P(\text{wait} > s) = e^{-qs}$, where $q$ is the total rate
# of leaving. Its mean is $1/q$, for a dog 1/3. To draw one, take $u$ uniform in $[0, 1)$ and solve
# $e^{-qs} = 1 - u$ for $s$.

# %%
def waiting_time(q, generator, shape=()):
    u = torch.rand(shape, generator=generator)
    return -torch.log1p(-u) / q

# %% tags=["hide-cell"]
waits = waiting_time(3.0, torch.Generator().manual_seed(0), (100_000,))
assert abs(waits.mean() - 1 / 3) < 0.005
assert abs((waits > s).double().mean() - torch.exp(torch.tensor(-3 * s))) < 0.005

# %% [markdown]
# When the wait is over the token jumps, and the rates in its column say where. Within $h$ a dog
# becomes a cat with probability $2h$ and an owl with probability $h$; so if it jumps, it becomes a
# cat with probability $2h/3h = 2/3$. Then it waits again. This simulation is exact, and is named
# after Gillespie, who used it for molecules.
#
# The more time has passed, the noisier the token. So from now on we call this time the amount of
# noise, **σ̄**; section 5 explains the bar. In code `sigma` is always σ̄, also in names such as
# `sigma_min`.

# %%
def simulate(x, sigma, generator):
    """The path of one token until sigma: a list of (time of arrival, state)."""
    now, path = 0.0, [(0.0, x)]
    while True:
        now += waiting_time(-Q[x, x], generator).item()
        if now > sigma:
            return path
        x = torch.multinomial(Q[:, x].clamp(min=0), 1, generator=generator).item()
        path.append((now, x))

# %% tags=["hide-input"]
#| alt: Three step curves over time, black, purple and grey, which jump between the levels cat, dog
#| and owl and stay on each level for a random time, from less than 0.1 to more than 3 units.
generator = torch.Generator().manual_seed(11)
fig, ax = plots.plt.subplots(figsize=(7, 2.6))
for i, colour in enumerate(["#222222", plots.PURPLE, plots.GREY]):
    times, states = zip(*simulate(0, 6.0, generator), strict=True)
    heights = [state + 0.09 * (i - 1) for state in (*states, states[-1])]
    ax.step([*times, 6.0], heights, where="post", color=colour)
ax.set(xlabel=r"time $\bar\sigma$", yticks=range(3), yticklabels=words)
ax.set_title("A token waits a random time, then jumps");

# %% [markdown]
# *What to see.* Three tokens that start as a cat, drawn slightly apart to stay visible. A stay
# lasts 2 units on average for an owl, 1 for a cat and 1/3 for a dog, but single stays vary widely:
# one owl stays less than 0.1, another longer than 3.

# %% [markdown]
# ## 3. The distribution after σ̄
#
# One path is random. The distribution of the token at time σ̄, a vector $p_{\bar\sigma}$, is not. The short
# step of section 1 was $p_{\bar\sigma + h} \approx p_{\bar\sigma} + h\,Q\,p_{\bar\sigma}$. Subtract
# $p_{\bar\sigma}$, divide by $h$, and let $h \to 0$:
#
# $$\frac{dp_{\bar\sigma}}{d\bar\sigma} = Q\, p_{\bar\sigma} .$$
#
# This is the **master equation**, also called Kolmogorov's forward equation. Its solution is the
# **matrix exponential**, the series of $e^a$ with a matrix for $a$:
#
# $$p_{\bar\sigma} = \exp(\bar\sigma Q)\, p_0, \qquad \exp(A) = I + A + \frac{A^2}{2!} + \frac{A^3}{3!} + \dots$$
#
# At σ̄ = 0 this is $p_0$. The derivative of $\exp(\bar\sigma Q)$, term by term, is
# $Q \exp(\bar\sigma Q)$, so it solves the master equation. PyTorch computes it as
# `torch.matrix_exp`:

# %% tags=["nbval-check-output"]
cat, sigma = torch.tensor([1.0, 0.0, 0.0]), 1.0
K = torch.matrix_exp(sigma * Q)
print("a cat after σ̄ = 1:", {word: round(p, 3) for word, p in zip(words, (K @ cat).tolist())})

# %% [markdown]
# The matrix $\exp(\bar\sigma Q)$ is the **forward kernel**. Its entry in row $y$ and column $x_0$
# is $p_{\bar\sigma}(y \mid x_0)$, the probability that a token which was $x_0$ is now $y$, after
# any number of jumps. Noise may come in instalments, as in the first picture, because
# $\exp(aQ)\exp(bQ) = \exp((a+b)Q)$ (multiples of one matrix commute). One jump never leads from
# *cat* to *owl*, but the kernel's entry is positive: the token may pass through *dog*.

# %% tags=["nbval-check-output"]
print(f"rate of cat → owl: {Q[2, 0]:.0f}    P(owl | cat) after σ̄ = 1: {K[2, 0]:.3f}")
assert (K.sum(0) - 1).abs().max() < 1e-12
assert (torch.matrix_exp(0.3 * Q) @ torch.matrix_exp(0.7 * Q) - K).abs().max() < 1e-12

# %% tags=["hide-input"]
#| alt: Three panels, for a start as cat, dog and owl. In each the probabilities of cat, dog and
#| owl start at 0 or 1 and flatten at 0.4, 0.2 and 0.4.
sigmas = torch.linspace(0, 10, 200)
curves = torch.matrix_exp(sigmas[:, None, None] * Q)  # (200, 3, 3): σ̄, now, start
fig, axes = plots.plt.subplots(1, 3, figsize=(9, 2.7), sharey=True)
for x, ax in enumerate(axes):
    for y in range(3):
        ax.plot(sigmas, curves[:, y, x], color=plots.COLOURS[y])
    ax.set(xlabel=r"$\bar\sigma$", ylim=(0, 1.02), xticks=[0, 3, 6, 9], title=f"start: {words[x]}")
for colour, word, height in zip(plots.COLOURS, words, (0.46, 0.1, 0.28)):
    axes[0].annotate(word, (6, height), color=colour)
axes[0].set_ylabel("probability")
fig.suptitle("From every start: 40 % cat, 20 % dog, 40 % owl", x=0.01, ha="left", fontsize=12);

# %% tags=["hide-cell"]
mixture = torch.tensor([[0.4], [0.2], [0.4]]).expand(3, 3)
assert (torch.matrix_exp(30 * Q) - mixture).abs().max() < 1e-8
assert (Q @ mixture).abs().max() < 1e-12

# %% [markdown]
# *What to see.* Each panel is one column of the kernel as σ̄ grows. All three end at the same
# mixture, the **stationary distribution**: the $p$ with $Qp = 0$. Noise for a diffusion model must
# do exactly this: lead from any data to one known distribution.

# %% [markdown]
# ## 4. Two graphs for a real vocabulary
#
# A dense $Q$ for GPT-2's 50 257 tokens would take 20 GB (8 bytes an entry), so one chooses a $Q$ so
# regular that no matrix is needed. A choice of jumps and their rates is called a **graph**.
# Language models use two.
#
# - **Uniform:** a token jumps to each of the other $N - 1$ values at rate $1/N$. With $J$ the
#   matrix whose entries are all $1/N$, this is $Q = J - I$.
# - **Absorbing:** one state is added, MASK, with number $N$. Every token jumps to MASK at rate 1,
#   and then stays there.

# %%
N = 5
Q_uniform = torch.full((N, N), 1 / N) - torch.eye(N)
Q_absorbing = torch.zeros(N + 1, N + 1)
Q_absorbing[:N, :N] = -torch.eye(N)
Q_absorbing[N, :N] = 1.0

# %% tags=["hide-input"]
#| alt: Left, five letters on a circle, with arrows from each to every other. Right, five letters
#| in a row, with one arrow each, at rate 1, down to MASK, and no arrow out of MASK.
fig, axes = plots.plt.subplots(1, 2, figsize=(9, 3.7))
plots.show_states(axes[0], list("abcde"), Q_uniform, rates={(0, 1): "1/5"}, size=0.17)
places = [(0.9 * i, 2.3) for i in range(N)] + [(1.8, 0)]
colours = [plots.BLUE] * N + [plots.ORANGE]
plots.show_states(axes[1], [*"abcde", "■"], Q_absorbing, places, False, colours, size=0.28)
axes[1].text(3.0, 0.95, "each at rate 1", color="#555555")
axes[0].set_title("Uniform: all jumps exist, each at rate 1/N")
axes[1].set_title("Absorbing: one jump each, to MASK, for good");

# %% [markdown]
# *What to see.* Left: each token has an arrow to every other one, all with rate 1/5. Right: each has
# one arrow, and none leads out of MASK (■).
#
# Both kinds of noise are **hits** at rate 1. On the uniform graph a hit draws one of all $N$
# values, the present one included, so each other value comes at rate $1/N$. On the absorbing graph
# a hit always gives MASK. By section 2 a token has not been hit until σ̄ with probability
# $e^{-\bar\sigma}$. If it has, only its last hit matters, and its distribution is a vector $r$:
# $1/N$ everywhere on the uniform graph, 1 at MASK on the absorbing one. Let $e_x$ be the vector
# with 1 at $x$ and 0 elsewhere. Then column $x$ of the kernel is
# $e^{-\bar\sigma} e_x + (1 - e^{-\bar\sigma})\, r$. Column $x$ of $Q$ is $r - e_x$, so the whole
# kernel is
#
# $$\exp(\bar\sigma Q) = I + (1 - e^{-\bar\sigma})\, Q .$$
#
# So adding noise needs no simulation: leave the token with probability $e^{-\bar\sigma}$, otherwise
# redraw it from $r$. (A round of the first picture adds 0.4 to σ̄, and $1 - e^{-0.4} = 0.33$.) As
# σ̄ grows every token is hit in the end: the limit is $N$ equally likely values on the uniform
# graph, and MASK on the absorbing one. Sampling will start there.

# %%
def noise_uniform(x0, sigma):
    hit = torch.rand(x0.shape) < 1 - torch.exp(-sigma)
    return torch.where(hit, torch.randint(N, x0.shape), x0)


def noise_absorbing(x0, sigma):
    hit = torch.rand(x0.shape) < 1 - torch.exp(-sigma)
    return torch.where(hit, N, x0)

# %% [markdown]
# `noise_absorbing` is the page's line if $t = 1 - e^{-\bar\sigma}$: **the page's $t$ is the
# probability of a hit.** With the same random numbers, the two give the same words:

# %%
MASK, t = N, torch.tensor(0.3)
x0 = (torch.arange(32) % N).view(4, 8)
torch.manual_seed(0)
x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # the page
torch.manual_seed(0)
assert torch.equal(x, noise_absorbing(x0, sigma=-torch.log(1 - t)))

# %% [markdown]
# From here on we use the library's graphs. `transition_probs(x0, sigma)` gives the kernel's column
# for each token, and `sample_transition(x0, sigma)` draws the noise. Both agree with what we wrote
# (laboratory).

# %% [markdown]
# ## 5. How fast? The noise schedule
#
# A model is trained on a time $t$ that runs from 0 (data) to 1 (noise), and we are free to choose
# how fast noise comes. Let $\sigma(t)$ be the **noise rate** at $t$ (`rate` in the library), and
# $\bar\sigma(t)$ the **total noise** until then:
#
# $$\bar\sigma(t) = \int_0^t \sigma(s)\, ds, \qquad p_t = \exp(\bar\sigma(t)\, Q)\, p_0 .$$
#
# (An index $t$ is a time, an index $\bar\sigma$ an amount of noise.) By the chain rule,
# $dp_t/dt = \frac{d\bar\sigma}{dt}\, Q\, p_t = \sigma(t)\, Q\, p_t$: a schedule multiplies all
# rates by $\sigma(t)$. The same jumps happen with the same probabilities; only the times at which
# they happen change. This is what the bar means: σ is a speed, and σ̄ is the distance covered. The
# paper uses two schedules:

# %%
def log_linear(t, eps=1e-3):
    return -torch.log(1 - (1 - eps) * t)


def geometric(t, sigma_min=1e-4, sigma_max=20.0):
    return sigma_min ** (1 - t) * sigma_max**t

# %% [markdown]
# Under **log-linear** noise a token is hit with probability
# $1 - e^{-\bar\sigma(t)} = (1-\varepsilon)\,t$. This is the page's noise, up to ε: the page has
# $\varepsilon = 0$, and ε > 0 only keeps σ̄ finite at $t = 1$. **Geometric** noise multiplies σ̄ by
# equal factors in equal times. It starts at $\sigma_{\min}$ instead of 0, as if that much noise had
# come before $t = 0$. It hits fewer than 10 % of the tokens until $t = 0.57$, but 90 % by
# $t = 0.82$ (laboratory). The library has both schedules, as `LogLinearNoise` and `GeometricNoise`.

# %% [markdown]
# ## 6. More than one token
#
# Noise treats each token of a sentence **on its own**. All tokens share the same σ̄, but each waits
# and jumps without looking at the others. So the kernel of a pair is a product,
# $p(y_1 y_2 \mid x_1 x_2) = K(y_1, x_1)\, K(y_2, x_2)$. Our data are pairs of words that are equal
# with probability 0.8, as a 3 × 3 table $p$: first word down, second across. The noisy table has
# the entries $\sum_{x_1, x_2} K(y_1, x_1)\, p(x_1, x_2)\, K(y_2, x_2)$, which is the matrix product
# $K p K^\top$.

# %% tags=["nbval-check-output"]
pairs = torch.tensor([[0.40, 0.05, 0.00], [0.05, 0.20, 0.05], [0.00, 0.05, 0.20]])
K = torch.matrix_exp(0.8 * Q)
noisy_pairs = K @ pairs @ K.T
print("P(both words equal):     ", [round(p.diag().sum().item(), 2) for p in (pairs, noisy_pairs)])
product = noisy_pairs.sum(1, keepdim=True) * noisy_pairs.sum(0)
print("if they were independent:", round(product.diag().sum().item(), 2))

# %% [markdown]
# The *noise* is independent, the noisy *words* are not: after σ̄ = 0.8 they are equal with
# probability 0.45. If the words were independent with the same frequencies, this would be 0.36.

# %% tags=["hide-input"]
#| alt: The nine pairs of cat, dog and owl as a grid of discs. Arrows join only pairs that stand
#| next to each other in a row or a column.
fig, ax = plots.plt.subplots(figsize=(5.4, 3.8))
Q_pair = torch.kron(Q, torch.eye(3)) + torch.kron(torch.eye(3), Q)  # (9, 9)
places = [(1.7 * j, -1.05 * i) for i in range(3) for j in range(3)]
names = [f"{first}\n{second}" for first in words for second in words]
plots.show_states(ax, names, Q_pair, places, rates=False, size=0.32)
ax.set_title("A jump changes one word of the pair, never both");

# %% [markdown]
# *What to see.* Within a time $h$ both tokens jump with a probability of order $h^2$, which does
# not count for a small $h$: from any pair a jump leads along a row or along a column.
#
# Sequences that differ in one token are called **neighbours**. Here cat never jumps straight to
# owl, so not all neighbours are joined; on the uniform graph they are. A text of 1 024 GPT-2 tokens
# has $1024 \cdot 50\,256 \approx 5 \cdot 10^7$ neighbours, among about $10^{4814}$ texts.

# %% [markdown]
# ## 7. Backwards
#
# We look at the token at noise σ̄, and it is $x$. What was it a moment $h$ earlier? For $y \ne x$, Bayes'
# rule gives
#
# $$P(\text{was } y \mid \text{is } x) = \frac{P(\text{is } x \mid \text{was } y)\; p_{\bar\sigma-h}(y)}{p_{\bar\sigma}(x)}
# \approx h\, Q(x, y)\, \frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)} ,$$
#
# since a $y$ becomes $x$ within $h$ with probability $h\,Q(x, y)$, and $p_{\bar\sigma-h}$ is nearly
# $p_{\bar\sigma}$.
#
# The reverse walk comes from more noise to less, so what it has already seen are the later, noisier
# states. Do they matter once we know $x$? No: **the reversed chain is Markov too.** Suppose we also
# know that the token is $z$ later, at more noise. By the Markov property,
# $P(\text{was } y \mid x, z) \propto p(y)\, p(x \mid y)\, p(z \mid x)$. The last factor does not
# contain $y$, so it cancels when we normalise.
#
# The probability of a reverse jump is proportional to $h$, so it has a rate:
#
# $$\boxed{\;\bar Q(y, x) = \frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)}\; Q(x, y), \quad y \ne x\;}$$
#
# The diagonal again makes columns sum to 0. $Q$ appears with $x$ and $y$ swapped: to go back from
# $x$ to $y$, the way from $y$ to $x$ must exist. Unlike $Q$, $\bar Q$ changes with σ̄, because the
# ratios do. (In the time $t$ of a schedule, $\sigma(t)\,Q$ takes the place of $Q$.)
#
# This is a sampler already. For a small $h$, let a token at $x$ jump to each $y$ with probability
# $h\,\bar Q(y, x)$, and stay otherwise. Here it is in eight lines, for tokens `x` of any shape (`S`
# is the number of states):

# %%
def reverse_step(x, ratios, Q, h, generator):
    """From σ̄ to σ̄ − h. x (...), ratios (..., S): p(y)/p(x) for every y; Q (S, S)."""
    jump = h * ratios * Q[x]  # (..., S): h Q̄(y, x); row x of Q holds Q(x, y)
    jump.scatter_(-1, x[..., None], 0)  # no jump from x to x
    stay = 1 - jump.sum(-1, keepdim=True)
    assert stay.min() >= 0, "h is too large"
    chances = jump.scatter(-1, x[..., None], stay)
    u = torch.rand((*x.shape, 1), generator=generator)
    y = (chances.cumsum(-1) < u).sum(-1)  # the first y where the running sum reaches u
    return y.clamp(max=len(Q) - 1)

# %% [markdown]
# Try it on the three words. The data are 10 % cats, 10 % dogs and 80 % owls. We draw 20 000 tokens
# from $p_3$, the distribution at σ̄ = 3, and walk them back in 300 steps with the true ratios.
#
# **Predict:** as a control we walk a second time and claim that all ratios are 1. What share of
# owls will come out: still 80 %, the stationary 40 %, or something else? Then run the next two
# cells.

# %%
from itertools import pairwise

p0 = torch.tensor([0.1, 0.1, 0.8])


def p_at(sigma):
    return torch.matrix_exp(sigma * Q) @ p0


def walk_back(x, ratios_at, generator, steps=300):
    for high, low in pairwise(torch.linspace(3, 0, steps + 1)):
        x = reverse_step(x, ratios_at(high, x), Q, high - low, generator)
    return x

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
start = torch.multinomial(p_at(3.0), 20_000, True, generator=generator)
ours = walk_back(start, lambda sigma, x: p_at(sigma) / p_at(sigma)[x][:, None], generator)
ones = walk_back(start, lambda sigma, x: torch.ones(len(x), 3), generator)
for name, x in (("start", start), ("true ratios", ours), ("ratios all 1", ones)):
    share = torch.bincount(x, minlength=3) / len(x)
    print(f"{name:12}", "  ".join(f"{w} {s:.0%}" for w, s in zip(words, share)))

# %% [markdown]
# The true ratios bring the data back. With all ratios 1 and everything else unchanged, start
# included, the walk ends at 25 % cat, 50 % dog, 25 % owl: the start alone does not lead back to the
# data. (The laboratory says why these numbers.)
#
# We chose $Q$ ourselves. **All that we need to know about the data is the ratio
# $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$**, and only for neighbours. The start, $p_3$, came from the
# data too, but with more noise it tends to the stationary mixture, which is known without data.
#
# Why ratios, and not probabilities? Suppose a network gave each whole text a positive number,
# larger for likelier texts. To turn these numbers into probabilities one would divide by their sum
# over about $10^{4814}$ texts, which nobody can compute. (GPT avoids the sum by guessing word after
# word, in one fixed order.) **In a ratio this normalising constant cancels.** The paper calls the
# vector of ratios the **concrete score**, $s(x)_y = p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$. For
# continuous pixels the score is the gradient of $\log p$, which says how the probability changes
# for a small move; here the move is a jump.

# %% [markdown]
# ## 8. A spiral, dissolved and reassembled
#
# Now sequences of two tokens, each with 32 values. There are 1 024 such sequences, so a
# distribution over them is a picture: the first token is the row, the second the column, and darker
# means more probable (not in proportion, so that thin parts show). Ours is a spiral, with 3 % of
# its probability spread evenly, which keeps all ratios below 200.

# %%
from sedd_mini.worlds.ctmc import Chain, MatrixGraph, total_variation
from sedd_mini.worlds.toys import two_token_world

world = two_token_world("spiral")  # (32, 32)
Q_32 = torch.full((32, 32), 1 / 32) - torch.eye(32)


def noisy_world(sigma):
    K = torch.eye(32) + (1 - torch.exp(-sigma)) * Q_32
    return K @ world @ K.T

# %% [markdown]
# The first token of a pair $(i, j)$ may jump to any of 32 rows, so its 32 ratios are column $j$ of
# the noisy picture, each entry divided by the entry at $(i, j)$. Those of the second token are row
# $i$, divided by the same entry.

# %%
def ratios_of(p, x):
    i, j = x.T  # x (M, 2)
    return torch.stack([p[:, j].T, p[i]], 1) / p[i, j][:, None, None]  # (M, 2, 32)

# %% [markdown]
# The experiment has two rows. *Forward*: draw 15 000 pairs from the spiral and add noise from level
# to level. *Reverse*: draw 15 000 new pairs from pure noise, and let our `reverse_step` walk them
# back. The largest ratio grows as the noise falls, from 3 at σ̄ = 1 to 57 at 0.1 and 182 at 0.001,
# so the steps shrink with σ̄. We stop at 0.001, where one token in a thousand is still noise.

# %%
def walk_pairs_back(x, high, low, steps, generator):
    sigmas = torch.logspace(high.log10(), low.log10(), steps + 1)  # equal steps of log σ̄
    for a, b in pairwise(sigmas):
        x = reverse_step(x, ratios_of(noisy_world(a), x), Q_32, a - b, generator)
    return x

# %%
levels = torch.tensor([0.001, 0.2, 0.5, 1.0, 2.0, 4.0])
spiral, generator = Chain(UniformGraph(32), world), torch.Generator().manual_seed(4)
data = spiral.sample_data(15_000, generator)
forward = [spiral.graph.sample_transition(data, levels[0], generator)]
for low, high in pairwise(levels):
    step = spiral.graph.sample_transition(forward[-1], high - low, generator)
    forward.append(step)
back = [torch.randint(32, (15_000, 2), generator=generator)]
for high, low in pairwise(levels.flip(0)):
    steps = 60 if low < 0.1 else 20
    back.append(walk_pairs_back(back[-1], high, low, steps, generator))

# %% tags=["hide-input"]
#| alt: Two rows of six pictures. The upper row shows a spiral that fades into an even tint from
#| left to right. In the lower row, read from right to left, the same spiral appears out of an even
#| tint.
hit = [f"{100 * (1 - torch.exp(-s)):.2g} % hit" for s in levels]
titles = [rf"$\bar\sigma$ = {s:g}" + f"\n{text}" for s, text in zip(levels, hit)]
pictures = [[spiral.histogram(x) for x in xs] for xs in (forward, back[::-1])]
fig = plots.show_worlds(pictures, titles, ["forward\n→", "reverse\n←"], vmax=world.max())
fig.suptitle("Random pairs, led by ratios alone, reassemble the spiral", fontsize=13)
fig.savefig("../figures/reassembly.png", dpi=150, metadata={"Software": None})

# %% [markdown]
# *What to see.* Upper row, from left to right: the spiral fades into an even haze. Lower row, from
# right to left: random pairs jump along rows and columns until they form the spiral, although none
# was drawn from it.

# %% [markdown]
# How good is it? The **total variation** (TV) of two distributions is half the sum of their
# absolute differences: 0 if they are equal, 1 if they have nothing in common. A histogram of 15 000
# pairs never equals the distribution it came from, so the yardstick is the TV of fresh samples of
# the spiral.

# %% tags=["nbval-check-output"]
fresh = spiral.sample_data(15_000, generator)
samples = {"start": back[0], "our steps": back[-1], "fresh samples": fresh}
tv = {name: total_variation(spiral.histogram(x), world) for name, x in samples.items()}
for name, value in tv.items():
    print(f"{name:14} TV from the spiral {value:.3f}")

# %% [markdown]
# Our steps end about as close to the spiral as fresh samples do. The noise of 15 000 draws is enough to explain what is left; it would hide a small error of our steps.
#
# On the absorbing graph the same walk shows each token once and never changes it again
# (laboratory).

# %% tags=["hide-cell"]
assert tv["start"] > 0.5 and abs(tv["our steps"] - tv["fresh samples"]) < 0.015

# %% [markdown]
# ## What has changed on the page
#
# The page's line was absorbing noise at $\bar\sigma = -\log(1 - t)$. Now `loss_of` takes a graph (imported
# from `sedd_mini`), and with it uniform noise, or noise of your own:
#
# ```diff
# -def loss_of(x0):
# +def loss_of(x0, graph=AbsorbingGraph(N)):  # or UniformGraph(N), or one of your own
#      """Nats a word, on average over t: how hard are hidden words to guess?"""
#      t = (torch.rand(1) + torch.arange(len(x0)) / len(x0)) % 1  # (B,): spread over 0 to 1
#      t = t[:, None].clamp(min=1e-3)
# -    x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # hide a share t of the words
# +    sigma = -torch.log1p(-t)  # (B, 1): the noise that hits a share t of the words
# +    x = graph.sample_transition(x0, sigma)
# ```
#
# Both kinds of noise on a text of the little language, each word hit with probability 1/2:

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
tokenizer = language.tokenizer()
vocabulary = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)] + ["____"]
x0 = language.sample(1, 12, torch.Generator().manual_seed(1))
sigma = -torch.log1p(-torch.tensor([[0.5]]))
print("data     ", " ".join(vocabulary[i] for i in x0[0]))
for name, graph in (("uniform  ", UniformGraph(40)), ("absorbing", AbsorbingGraph(40))):
    x = graph.sample_transition(x0, sigma, torch.Generator().manual_seed(2))
    print(name, " ".join(vocabulary[i] for i in x[0]))

# %% [markdown]
# With the absorbing graph the page trains as before. With the uniform graph its noise is right but
# its *loss* is not: nothing marks the words that were replaced, so `x == MASK` is never true and
# the loss is 0 for every network. Chapters 02 and 03 find a loss for every graph, and learn the
# ratios from samples. Here we knew them because we could write down the whole world.
#
# The page's sampler already runs this noise backwards: the solution of exercise 3 derives its line.

# %% [markdown]
# ## Summary
#
# 1. Discrete noise is a continuous-time Markov chain: $Q(y, x)$ is the rate of the jump $x \to y$, and
#    columns sum to 0.
# 2. The master equation $dp/d\bar\sigma = Qp$ has the solution $p_{\bar\sigma} = \exp(\bar\sigma Q)\, p_0$.
#    For the uniform and the absorbing graph the kernel is $I + (1 - e^{-\bar\sigma})\,Q$: a token is hit
#    with probability $1 - e^{-\bar\sigma}$, the page's $t$.
# 3. A schedule $\bar\sigma(t)$ only sets the speed.
# 4. Tokens are noised independently, so a jump leads only to neighbours, which differ in one token.
# 5. The reversed chain is Markov too, with rates
#    $\bar Q(y, x) = \frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)}\, Q(x, y)$: apart from the start,
#    which tends to a known distribution, the ratios are all it needs from the data.

# %% [markdown]
# ## Exercises
#
# Write your answer into the stub, run it, and run the check below it. The check says what is wrong.

# %% [markdown]
# ### Exercise 1. The final mixture of a cycle (★☆☆, 5 minutes)
#
# A token has three states and can only go round in a circle: $a \to b$ at rate 2, $b \to c$ at rate 1,
# $c \to a$ at rate 4. Find its stationary distribution by hand: the three probabilities that noise no
# longer changes.
#
# <details><summary>Hint</summary>
#
# In the final mixture as much must flow into each state as flows out of it. The flow along an arrow is the
# probability of its origin times its rate. On a circle all three flows are therefore equal.
#
# </details>
#
# [Solution](solutions/01_noise_that_jumps.ipynb)

# %% tags=["exercise"]
import torch


def final_mixture() -> torch.Tensor:
    """The probabilities of a, b and c, shape (3,)."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("1"):
    found = torch.as_tensor(final_mixture()).double()
    assert found.shape == (3,), f"three probabilities are asked for, not shape {tuple(found.shape)}"
    assert abs(found.sum() - 1) < 1e-5, f"probabilities sum to 1; yours sum to {found.sum():.3f}"
    Q_cycle = torch.tensor([[-2, 0, 4], [2, -1, 0], [0, 1, -4]], dtype=torch.float64)
    for state, change in zip("abc", (Q_cycle @ found).tolist()):
        assert abs(change) < 1e-5, f"noise still changes P({state}), at a rate of {change:.3f}"

# %% [markdown]
# ### Exercise 2. A schedule of your own (★★☆, 10 minutes)
#
# Write a noise schedule under which a token has been hit by time $t < 1$ with probability
# $\sin^2(\pi t/2)$. This share changes slowly at both ends (the rate itself may grow without
# limit). Give the total noise $\bar\sigma(t)$ as `total(t)`, and its derivative $\sigma(t)$ as
# `rate(t)`, found by hand.
#
# <details><summary>Hint</summary>
#
# A token is hit with probability $1 - e^{-\bar\sigma(t)}$. Set this equal to $\sin^2(\pi t/2)$ and solve
# for $\bar\sigma(t)$; $1 - \sin^2 = \cos^2$ helps. Then use the chain rule.
#
# </details>
#
# [Solution](solutions/01_noise_that_jumps.ipynb)

# %% tags=["exercise"]
import torch


def total(t: torch.Tensor) -> torch.Tensor:
    """The total noise at time t, the shape of t."""
    raise NotImplementedError


def rate(t: torch.Tensor) -> torch.Tensor:
    """Its derivative with respect to t."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("2"):
    t = torch.linspace(0.01, 0.98, 98, dtype=torch.float64, requires_grad=True)
    noise = total(t)
    noise.sum().backward()
    wanted = torch.sin(torch.pi * t / 2) ** 2
    wrong = (-torch.expm1(-noise) - wanted).abs().max().item()
    assert wrong < 1e-6, f"the share of tokens hit under total(t) is off by up to {wrong:.2g}"
    wrong = (rate(t.detach()) / t.grad - 1).abs().max().item()
    assert wrong < 1e-5, f"rate(t) is not the derivative of total(t): off by up to {wrong:.0%}"

# %% [markdown]
# ### Exercise 3. How fast does a MASK turn into a word? (★★☆, 15 minutes)
#
# One token on the absorbing graph holds word $y$ with probability $p_0(y)$ at σ̄ = 0. At noise σ̄ it is
# MASK. With which reverse rates $\bar Q(y, \text{MASK})$ does it turn into each word? Write the rates in
# closed form, without a matrix.
#
# <details><summary>Hint</summary>
#
# You need $p_{\bar\sigma}(y)$ and $p_{\bar\sigma}(\text{MASK})$. At σ̄ a token shows word $y$ if it was $y$
# and has not been hit; it is MASK if it has been hit, whatever it was. The forward rate from any word to
# MASK is 1.
#
# </details>
#
# [Solution](solutions/01_noise_that_jumps.ipynb)

# %% tags=["exercise"]
import torch


def unmask_rates(p0: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The reverse rates from MASK to each word at total noise sigma (); p0 (N,) → (N,)."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini import AbsorbingGraph
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import Chain

with exercise("3"):
    data = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    oracle, mask = Chain(AbsorbingGraph(4), data), torch.tensor(4)
    for sigma in torch.tensor([0.1, 1.0, 4.0], dtype=torch.float64):
        true = oracle.graph.reverse_rates(mask, oracle.scores(sigma.item())[4, 0])[:4]
        found = unmask_rates(data, sigma)
        assert found.shape == (4,), f"one rate for each word, not shape {tuple(found.shape)}"
        share = found / found.sum()
        assert torch.allclose(share, data, atol=1e-6), "rates must favour the likelier words"
        off = (found / true).mean().item()
        message = f"at σ̄ = {sigma} your rates are {off:.3g} times the true ones"
        assert abs(off - 1) < 1e-5, message

# %% [markdown]
# ### Exercise 4. A step that cannot be too large (★★☆, 15 minutes)
#
# The chapter's `reverse_step` fails for a large $h$: the chances of a jump add up to more than 1.
# Repair it. Suppose the rates $\bar Q(y, x)$ keep their values during the whole step, and the token
# makes at most one jump, its first. Return for each token the probabilities of all its states after
# a time $h$, for any $h \ge 0$: of each $y$ that it may have jumped to, and of $x$ itself. Methods
# that fix the rates for a step and move all tokens at once are called **τ-leaping**; this is the
# variant with at most one jump a token.
#
# <details><summary>Hint</summary>
#
# Section 2 did the same forwards. How long does a token wait that leaves at total rate $q$? And when it
# jumps, how is its destination chosen? The entry of `rates` at $y = x$ is not the rate of a jump.
#
# </details>
#
# [Solution](solutions/01_noise_that_jumps.ipynb)

# %% tags=["exercise"]
import torch


def leap_chances(x: torch.Tensor, rates: torch.Tensor, h: float) -> torch.Tensor:
    """Where tokens are after h. x (M,) int64; rates (M, S), entry y the rate of x → y → (M, S).

    The entry of `rates` at y = x may hold anything, and does not count. Some other y has a rate
    above 0.
    """
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("4"):
    x = torch.tensor([2, 0, 1, 0])
    rates = torch.tensor([[0, 40, -40], [-3.0, 2, 1], [0.5, 7, 0], [5, 0.25, 3]]).double()
    given = rates.clone()
    for h in (0.0, 50.0, 1.0, 0.1, 1e-4):
        found = leap_chances(x, rates, h)
        assert torch.equal(rates, given), "your function changes the rates that it was given"
        assert found.shape == (4, 3), f"shape (M, S) is asked for, not {tuple(found.shape)}"
        for now, row, chances in zip(x.tolist(), given, found.double()):
            case = f"h = {h}, x = {now}, rates {row.tolist()}"
            assert chances.isfinite().all(), f"{case}: a chance is {chances.sum()}, not a number"
            assert chances.min() >= 0, f"{case}: a chance is {chances.min():.3g}, less than 0"
            mass = chances.sum()
            assert abs(mass - 1) < 1e-6, f"{case}: the chances must sum to 1, not {mass:.7g}"
            frozen = torch.zeros(3, 3, dtype=torch.float64)  # only x jumps, and once
            frozen[:, now] = row
            frozen[now, now] = row[now] - row.sum()
            wrong = (chances - torch.matrix_exp(h * frozen)[:, now]).abs().max()
            assert wrong < 1e-6, f"{case}: a chance is off by {wrong:.3g}"

# %% [markdown]
# ### Exercise 5. A graph of your own: the ring (★★★, 25 minutes)
#
# Let $N$ values stand in a ring, like the hours of a clock. A token jumps to the next value at rate
# 1/2 and to the previous one at rate 1/2; $N - 1$ and 0 are next to each other. Such noise suits
# values in a cyclic order, like directions or days of the week. Write its rate matrix, and a
# function that adds noise σ̄ to any tensor of tokens. (Take $N \ge 3$.)
#
# <details><summary>Hint 1</summary>
#
# Column $x$ of $Q$ has two positive entries; `% N` closes the ring. Once you have $Q$, its kernel
# `torch.matrix_exp(sigma * Q)` has a column for each value, from which the noise can be drawn.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The noise needs no matrix either: the number of jumps forward until σ̄ is a Poisson number with mean
# $\bar\sigma/2$, the number of jumps back is another one, and only their difference matters.
#
# </details>
#
# [Solution](solutions/01_noise_that_jumps.ipynb)

# %% tags=["exercise"]
import torch


def ring_rates(N: int) -> torch.Tensor:
    """The rate matrix Q (N, N), Q[y, x] the rate of x → y."""
    raise NotImplementedError


def ring_noise(x0: torch.Tensor, sigma: float, N: int) -> torch.Tensor:
    """x0 (any shape, int64 in 0 … N − 1) after total noise sigma; the same shape, int64."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("5"):
    torch.manual_seed(0)
    for n, sigma in ((6, 0.3), (7, 2.0), (6, 9.0)):
        Q_ring = ring_rates(n).double()
        assert Q_ring.shape == (n, n), f"Q must have shape {n, n}, not {tuple(Q_ring.shape)}"
        jumps = (Q_ring > 0).nonzero().tolist()
        steps = {(y - x) % n for y, x in jumps}
        assert steps == {1, n - 1} and len(jumps) == 2 * n, f"N = {n}: wrong or missing jumps"
        assert (Q_ring[Q_ring > 0] - 0.5).abs().max() < 1e-6, "each jump has rate 1/2"
        assert Q_ring.sum(0).abs().max() < 1e-6, "every column of Q must sum to 0"
        x0 = torch.arange(n).repeat(600, 100)
        x = ring_noise(x0, sigma, n)
        assert x.shape == x0.shape, f"noise must keep the shape, not give {tuple(x.shape)}"
        assert x.dtype == torch.int64, f"tokens are int64, not {x.dtype}"
        assert 0 <= x.min() and x.max() < n, f"values must be 0 … {n - 1}: {x.min()} … {x.max()}"
        found = torch.bincount((n * x + x0).flatten(), minlength=n * n).view(n, n) / 60_000
        wrong = found - torch.matrix_exp(sigma * Q_ring)  # (n, n): now, at first
        y, start = divmod(wrong.abs().argmax().item(), n)
        message = f"N = {n}, σ̄ = {sigma}: {start} becomes {y} {found[y, start]:.1%} of the time"
        assert wrong.abs().max() < 0.01, f"{message}, off by {wrong[y, start]:+.1%}"

# %% [markdown]
# ## Laboratory
#
# Optional reading: the chapter's claims, checked against exact matrices, and what was left out.

# %% [markdown]
# ### Simulation: do random paths follow the exponential?
#
# We run 3 000 cats until σ̄ = 3 and look at them at twelve moments. By chance alone a frequency from $M$
# runs misses its probability $p$ by about $\sqrt{p(1-p)/M}$, at most 0.009 here. That is one standard
# error. All 36 frequencies lie within four and a half of the exact probability.

# %%
def state_at(path, moment):
    return [state for time, state in path if time <= moment][-1]


generator = torch.Generator().manual_seed(2)
paths = [simulate(0, 3.0, generator) for _ in range(3000)]
moments = torch.arange(1, 13) / 4
states = torch.tensor([[state_at(path, moment) for path in paths] for moment in moments])
found = torch.stack([(states == y).double().mean(1) for y in range(3)], -1)  # (12, 3)

# %% tags=["hide-cell"]
true = MatrixGraph(Q).kernel(moments)[:, :, 0]  # (12, 3)
standard_error = (true * (1 - true) / len(paths)).sqrt()
assert ((found - true).abs() < 4.5 * standard_error).all()

# %% tags=["hide-input"]
#| alt: Three curves over σ̄, the probabilities of cat, dog and owl for a start as cat, with twelve
#| dots on each curve.
fine = torch.linspace(0, 3, 100)
curves = MatrixGraph(Q).kernel(fine)[:, :, 0]
fig, ax = plots.plt.subplots(figsize=(7, 3.1))
for y, word in enumerate(words):
    ax.plot(fine, curves[:, y])
    ax.plot(moments, found[:, y], "o", color=plots.COLOURS[y], markersize=5)
    ax.annotate(word, (3.04, curves[-1, y]), va="center", color=plots.COLOURS[y])
ax.set(xlabel=r"$\bar\sigma$", ylabel="probability", ylim=(0, 1.02), xlim=(0, 3.2))
ax.set_title("3 000 simulated cats (dots) lie on the exact curves (lines)");

# %% [markdown]
# *What to see.* The dots lie on the lines, up to chance. Neighbouring dots show the same cats a
# little later, so their errors are not independent.

# %% [markdown]
# ### Numerics: how fast does Euler converge, and when does the series fail?
#
# The naive way to solve the master equation takes the short step many times, which is Euler's
# method. Its $n$ steps multiply $p_0$ by $(I + \bar\sigma Q / n)^n$. For numbers, $(1 + a/n)^n$
# tends to $e^a$, and the same holds for matrices. Euler's error falls tenfold with ten times more
# steps, as that of any first-order method.

# %%
def euler(p, sigma, steps):
    for _ in range(steps):
        p = p + sigma / steps * (Q @ p)
    return p

# %% tags=["nbval-check-output"]
cat, sigma = torch.tensor([1.0, 0.0, 0.0]), 1.0
exact = torch.matrix_exp(sigma * Q) @ cat
errors = [(euler(cat, sigma, n) - exact).abs().max().item() for n in (10, 100, 1000)]
print("largest error, 10, 100, 1000 steps:", [f"{e:.1e}" for e in errors])
assert 8 < errors[0] / errors[1] < 13 and 9 < errors[1] / errors[2] < 11

# %% [markdown]
# The series is accurate for small σ̄. At σ̄ = 30 its terms grow to $4 \cdot 10^{48}$ before they
# cancel, and none of the 16 digits survives. The repair is $\exp(A) = \exp(A/2^k)^{2^k}$: divide by
# $2^k$, sum, then square $k$ times. PyTorch and the library's `MatrixGraph` do this too.

# %%
def exp_series(A, terms=40):
    total = term = torch.eye(len(A))
    for k in range(1, terms):
        term = term @ A / k
        total = total + term
    return total


def exp_better(A, k=8):
    return torch.linalg.matrix_power(exp_series(A / 2**k), 2**k)

# %% tags=["hide-cell"]
assert (exp_series(Q) - torch.matrix_exp(Q)).abs().max() < 1e-12
assert (MatrixGraph(Q).kernel(1.0) - torch.matrix_exp(Q)).abs().max() < 1e-12
assert (exp_series(30 * Q, 400) - torch.matrix_exp(30 * Q)).abs().max() > 1e20
assert (exp_better(30 * Q) - torch.matrix_exp(30 * Q)).abs().max() < 1e-12
term = torch.eye(3)
sizes = [(term := term @ (30 * Q) / k).abs().max().item() for k in range(1, 200)]
assert 4.2e48 < max(sizes) < 4.3e48

# %% [markdown]
# ### Closed forms: do they hold at every amount of noise?
#
# The closed forms also follow from the series, because both matrices satisfy $Q^2 = -Q$. On the
# uniform graph $J$ replaces every entry of a vector by their mean; a second time this changes
# nothing, $J^2 = J$, so $Q^2 = J^2 - 2J + I = I - J = -Q$. On the absorbing graph
# $Q e_x = e_{\text{MASK}} - e_x$ and $Q e_{\text{MASK}} = 0$, so $Q^2 e_x = -Q e_x$. Every higher
# power is $Q$ or $-Q$, and the series becomes
# $I + (\bar\sigma - \bar\sigma^2/2! + \bar\sigma^3/3! - \dots)\,Q = I + (1 - e^{-\bar\sigma})\,Q$.
#
# In numbers, the closed forms and the columns of the library's graphs equal the dense exponential
# within $10^{-13}$, from σ̄ = 10⁻⁶ to 50. Our two recipes and the library's `sample_transition` are
# tested by counting: 200 000 noisy copies of token 2 have the frequencies of column 2, within four
# and a half standard errors. At GPT-2's size a column is all that is ever built.

# %% tags=["hide-cell"]
for Q_graph in (Q_uniform, Q_absorbing):
    assert (Q_graph @ Q_graph + Q_graph).abs().max() < 1e-12
    closed = torch.eye(len(Q_graph)) + (1 - torch.exp(torch.tensor(-0.7))) * Q_graph
    assert (closed - torch.matrix_exp(0.7 * Q_graph)).abs().max() < 1e-12

# %% tags=["hide-cell"]
for graph, Q_graph in ((UniformGraph(N), Q_uniform), (AbsorbingGraph(N), Q_absorbing)):
    every = torch.arange(graph.num_states)
    assert (graph.rates(every).T - Q_graph).abs().max() < 1e-13
    for sigma in torch.tensor([1e-6, 0.1, 1.0, 10.0, 50.0]):
        dense = torch.matrix_exp(sigma * Q_graph)
        closed = torch.eye(len(Q_graph)) - torch.expm1(-sigma) * Q_graph
        assert (closed - dense).abs().max() < 1e-13
        assert (graph.transition_probs(every, sigma).T - dense).abs().max() < 1e-13

# %% tags=["hide-cell"]
sigma, copies = torch.tensor(0.7), torch.full((200_000,), 2)
torch.manual_seed(3)
uniform, absorbing = UniformGraph(N).sample_transition, AbsorbingGraph(N).sample_transition
recipes = ((noise_uniform, Q_uniform), (noise_absorbing, Q_absorbing))
recipes += ((uniform, Q_uniform), (absorbing, Q_absorbing))
for noise, Q_graph in recipes:
    column = torch.matrix_exp(sigma * Q_graph)[:, 2]
    counts = torch.bincount(noise(copies, sigma), minlength=len(Q_graph))
    standard_error = (column * (1 - column) / len(copies)).sqrt()
    assert ((counts / len(copies) - column).abs() <= 4.5 * standard_error).all()

# %% tags=["nbval-check-output"]
big = AbsorbingGraph(50_257)
column = big.transition_probs(torch.tensor([464]), 0.7)
print("one column:", tuple(column.shape), " the matrix would take", 50_258**2 * 8 // 10**9, "GB")
print(f"stays {column[0, 464]:.3f}   MASK {column[0, big.mask_id]:.3f}")

# %% [markdown]
# ### Schedules: is the rate the derivative of the total?
#
# PyTorch differentiates our two formulas; the library's `total` and `rate` agree with them.

# %%
from sedd_mini import GeometricNoise, LogLinearNoise

for formula, noise in ((geometric, GeometricNoise()), (log_linear, LogLinearNoise())):
    t = torch.linspace(0, 1, 101, requires_grad=True)
    formula(t).sum().backward()  # t.grad is now dσ̄/dt at every t
    assert torch.allclose(noise.total(t), formula(t), rtol=1e-12, atol=0)
    assert torch.allclose(noise.rate(t.detach()), t.grad, rtol=1e-12, atol=0)

# %% [markdown]
# And does only the total count? A cat goes through a whole log-linear schedule in small steps of $t$, each
# with the rate of its middle. It ends within 0.001 of the exponential of the total.

# %%
p, noise, steps = cat, LogLinearNoise(eps=0.1), 2000
for t in (torch.arange(steps) + 0.5) / steps:
    p = p + noise.rate(t) / steps * (Q @ p)
exact = torch.matrix_exp(noise.total(1.0) * Q) @ cat
assert (p - exact).abs().max() < 1e-3 < (p - cat).abs().max()

# %% [markdown]
# When has each schedule hit a given share of the tokens? The second line of the output holds the
# times that section 5 quotes.

# %% tags=["nbval-check-output"]
t = torch.linspace(0, 1, 100_001)
for noise in (LogLinearNoise(), GeometricNoise()):
    share_hit = 1 - torch.exp(-noise.total(t))
    at = [round(t[share_hit >= share][0].item(), 2) for share in (0.001, 0.1, 0.5, 0.9)]
    print(f"{type(noise).__name__:14} 0.1, 10, 50, 90 % hit at t = {at}")
assert (1 - torch.exp(-LogLinearNoise().total(t)) - (1 - 1e-3) * t).abs().max() < 1e-12
speed = LogLinearNoise().rate(t)
assert abs(speed[0] - 1) < 0.002 and abs(speed[-1] - 999) < 0.01 and (speed.diff() > 0).all()

# %% tags=["hide-input"]
#| alt: Share of tokens hit against time. The log-linear schedule is a straight line from 0 to 1.
#| The geometric one stays below 0.1 until t = 0.57, then rises steeply to 1.
t = torch.linspace(0, 1, 201)
fig, ax = plots.plt.subplots(figsize=(7, 3.1))
ax.plot(t, 1 - torch.exp(-log_linear(t)))
ax.plot(t, 1 - torch.exp(-geometric(t)))
ax.annotate("log-linear", (0.38, 0.42), ha="right", color=plots.BLUE)
ax.annotate("geometric", (0.75, 0.4), color=plots.ORANGE)
ax.set(xlabel="time t", ylabel="share of tokens hit")
ax.set_title("Log-linear: the share hit grows steadily. Geometric: late and fast");

# %% [markdown]
# *What to see.* The log-linear line is straight by construction. (Its *rate* rises from 1 to 999,
# as ever fewer tokens have not been hit yet.) The geometric schedule hits fewer than one token in a
# thousand until $t \approx 0.19$.

# %% [markdown]
# ### Pairs: is the product of two kernels the kernel of the pair?
#
# The naive way lists all nine pairs and writes their 9 × 9 rate matrix, `Q_pair` of section 6:
# either the first word jumps and the second stays, or the other way round. `torch.kron(A, B)` acts
# on the first word by $A$ and on the second by $B$. The exponential of `Q_pair` gives the same
# table as $K p K^\top$, with $p$ the table of pairs, and as the library's `Chain`.

# %% tags=["hide-cell"]
naive = (torch.matrix_exp(0.8 * Q_pair) @ pairs.flatten()).reshape(3, 3)
assert (noisy_pairs - naive).abs().max() < 1e-12
assert (noisy_pairs - Chain(MatrixGraph(Q), pairs).marginal(0.8)).abs().max() < 1e-12
assert (noisy_pairs - product).abs().max() > 0.03
assert (noisy_pairs.diag() > product.diag()).all()

# %% tags=["nbval-check-output"]
off_diagonal = Q_pair - Q_pair.diag().diag()
print("jumps between the 9 pairs:", (off_diagonal > 0).sum().item(), "of", 9 * 8)
print("digits of 50257^1024:     ", 1 + int(1024 * torch.tensor(50_257.0).log10()))
print("neighbours of a sequence: ", 1024 * 50_256)

# %% [markdown]
# ### Reverse rates: are they what Bayes' rule gives?
#
# The exact backward probabilities over a step $h$ are `backward[y, x]` below, without any approximation.
# Minus the identity and divided by $h$ they must tend to $\bar Q$. The distance falls tenfold with $h$.

# %%
def reverse_rates(p, Q):
    Q_bar = p[:, None] / p * Q.T  # ratio[y, x] Q(x, y)
    Q_bar.fill_diagonal_(0)
    return Q_bar - Q_bar.sum(0).diag()

# %% tags=["nbval-check-output"]
sigma, errors = 0.5, []
p = p_at(sigma)
for h in (0.01, 0.001, 0.0001):
    backward = p_at(sigma - h)[:, None] * torch.matrix_exp(h * Q).T / p
    assert (backward.sum(0) - 1).abs().max() < 1e-12
    errors.append(((backward - torch.eye(3)) / h - reverse_rates(p, Q)).abs().max().item())
print("distance from Q_bar:", [f"{e:.1e}" for e in errors])

# %% [markdown]
# A finite $h$ makes a small error, which can be avoided. The library's `reverse_gillespie` draws
# the exact time of every reverse jump, as section 2 did, and allows for rates that change between
# jumps, which section 2 did not need. It brings back $p_0$ within the noise of 20 000 draws. So do
# our 300 steps, whose error is smaller than this noise:

# %%
chain = Chain(MatrixGraph(Q), p0)  # any rate matrix, any data, everything exact
generator = torch.Generator().manual_seed(1)
begin = torch.multinomial(p_at(3.0), 20_000, True, generator=generator)
theirs, _ = chain.reverse_gillespie(begin[:, None], 3.0, generator=generator)
for x in (ours, theirs[:, 0]):
    assert (torch.bincount(x) / len(x) - p0).abs().max() < 0.012

# %% [markdown]
# That the reversed chain is Markov can be checked on all 27 triples $(y, x, z)$ of states at σ̄ = 0.3, 0.5
# and 0.9: $P(y \mid x, z)$ is the same for all $z$. A constant factor in $p$ changes no reverse rate, as it
# cancels in the ratio. And the library's `Chain` and `reverse_rates` hold the same numbers.

# %% tags=["hide-cell"]
early, late = torch.matrix_exp(0.2 * Q), torch.matrix_exp(0.4 * Q)
triples = p_at(0.3)[:, None, None] * early.T[:, :, None] * late.T[None]  # (y, x, z)
given = triples / triples.sum(0)
assert (given - given[:, :, :1]).abs().max() < 1e-12
for unknown_constant in (0.001, 7.0, 1e6):
    assert (reverse_rates(unknown_constant * p, Q) - reverse_rates(p, Q)).abs().max() < 1e-12
score = chain.scores(sigma)[:, 0]  # (3, 3): row x, entry y
found = chain.graph.reverse_rates(torch.arange(3), score).T
assert (found - reverse_rates(p, Q)).abs().max() < 1e-12

# %% [markdown]
# The whole distribution can be walked back without samples,
# $p_{\bar\sigma - h} = p_{\bar\sigma} + h\,\bar Q\,p_{\bar\sigma}$. It returns to $p_0$ with true
# ratios, and misses it when all ratios are 1. Then every arrow has the rate of its opposite, cat →
# dog 2 and dog → cat 1, dog → owl 0.5 and owl → dog 1. The walk ends where these flows balance, at
# 25 % cat, 50 % dog, 25 % owl: $25 \cdot 2 = 50 \cdot 1$ and $50 \cdot 0.5 = 25 \cdot 1$.

# %%
def run_backwards(p, ratios_of_level, steps):
    h = 3.0 / steps
    for k in range(steps, 0, -1):
        p = p + h * reverse_rates(ratios_of_level(k * h), Q) @ p
    return p

# %% tags=["nbval-check-output"]
for steps in (100, 1000):
    p_back = run_backwards(p_at(3.0), p_at, steps)
    print(f"{steps:5} steps:  {[round(v, 3) for v in p_back.tolist()]}")
lost = run_backwards(p_at(3.0), lambda sigma: torch.ones(3), 1000)
print("ratios all 1:", [round(v, 2) for v in lost.tolist()], "  truth:", p0.tolist())
assert (p_back - p0).abs().max() < 1e-3 and (lost - p0).abs().max() > 0.2

# %% [markdown]
# ### Wrong ratios: what do they cost?
#
# A network will never be exact. `reverse_marginal` solves the reverse equation for any model of the
# log-ratios and any starting distribution, more accurately than our steps. We multiply all ratios
# by 1.2 or 0.8, or start from the stationary distribution, which is known without data, instead of
# $p_3$.

# %% tags=["nbval-check-output"]
def scaled(factor):
    def model(x, sigma):
        other = torch.arange(3) != x[..., None]  # the ratio at y = x stays 1
        return chain.log_score(x, sigma) + other * torch.tensor(factor).log()

    return model


stationary = torch.tensor([0.4, 0.2, 0.4])
cases = [("exact", 1.0, p_at(3.0)), ("wrong start", 1.0, stationary)]
cases += [(f"ratios × {factor}", factor, p_at(3.0)) for factor in (1.2, 0.8)]
for name, factor, begin in cases:
    end = chain.reverse_marginal(scaled(factor), sigma_max=3.0, p_base=begin)
    print(f"{name:12}  sum {end.sum():.2f}   TV from the data {total_variation(end, p0):.3f}")
    assert factor != 1 or begin is stationary or (end - p0).abs().max() < 1e-4

# %% [markdown]
# Every result sums to 1, because any non-negative rates define a chain. Ratios that are 20 % too
# large or too small cost a TV of 0.03 to 0.04. The wrong start is itself 0.06 away from $p_3$, and
# costs 0.005 at the end.

# %% [markdown]
# ### With MASK: how does the walk back differ?
#
# The absorbing graph needs one more row and column, for MASK, at the lower and the right edge. This
# time the library makes exact jumps. For comparison it also walks the pairs of section 8 back, on
# the uniform graph.

# %% tags=["nbval-check-output"]
masked, generator = Chain(AbsorbingGraph(32), world), torch.Generator().manual_seed(6)
x = masked.graph.sample_limit((15_000, 2), generator)
stages, jumps_masked = [x], 0
for high, low in pairwise([4.0, 2.0, 1.0, 0.5, 0.2, 0.0]):
    x, more = masked.reverse_gillespie(x, high, low, generator)
    stages, jumps_masked = [*stages, x], jumps_masked + more
exact_pairs, jumps = spiral.reverse_gillespie(back[0], 4.0, generator=generator)
for name, count in (("uniform", jumps), ("absorbing", jumps_masked)):
    print(f"{name:9}  {count.double().mean():.1f} jumps a pair")

# %% tags=["hide-input"]
#| alt: Six pictures, read from right to left. All pairs are first in one corner, (MASK, MASK), then
#| on the lower and the right edge, and at last on a spiral; 100, 78, 42, 16, 3 and 0 % are in the
#| corner.
pictures = [masked.histogram(x) for x in stages[::-1]]
names = [rf"$\bar\sigma$ = {s}" for s in (0, 0.2, 0.5, 1, 2)] + ["start: all MASK"]
titles = [f"{name}\nboth hidden: {100 * p[-1, -1]:.0f} %" for name, p in zip(names, pictures)]
fig = plots.show_worlds(pictures, titles, ["reverse\n←"], vmax=world.max(), mask=True)
fig.set_figheight(2.9)
title = "With MASK the pairs leave the corner, pass an edge, and form the spiral"
fig.suptitle(title, fontsize=13);

# %% [markdown]
# *What to see.* At the right all pairs are (MASK, MASK), in the lower right corner. Read to the
# left: one token of a pair appears (the edges, drawn three cells wide), then the other (the
# spiral). The colour scale is that of the spiral, and ends there: on the edges and in the corner the darkest tone stands for everything above it, so tones there cannot be compared. The titles give the number for the corner: how many pairs have both tokens hidden. At σ̄ = 2 it is 78 %; forward noise would give 75 %. The run
# starts at σ̄ = 4 with every token hidden, where forward noise leaves 2 % visible.
#
# Every pair makes exactly 2 jumps: each token appears once and never changes again. On the uniform
# graph a pair made 7.8 on average. A reverse path is a forward path seen backwards, with as many jumps (nearly: ours start from uniform pairs, which differ little from those at σ̄ = 4), so we can count forwards. A hit is not always a jump: on the uniform graph one hit in $N$
# draws the token that is already there, so a token *leaves* at rate $(N-1)/N$ (and shows its
# original value with probability $e^{-\bar\sigma} + (1 - e^{-\bar\sigma})/N$). Two tokens that
# leave at rate 31/32 until σ̄ = 4 make $2 \cdot 4 \cdot 31/32 = 7.75$ jumps on average.

# %% tags=["hide-cell"]
hit_at_2, hit_at_4 = -torch.expm1(torch.tensor([-2.0, -4.0]))
assert abs(hit_at_2**2 - 0.75) < 0.005  # forward; backwards both are hidden for certain at σ̄ = 4
assert abs(masked.histogram(stages[1])[-1, -1] - (hit_at_2 / hit_at_4) ** 2) < 0.015
assert (jumps_masked == 2).all() and abs(jumps.double().mean() - 2 * 4 * 31 / 32) < 0.1
assert abs(total_variation(masked.histogram(stages[-1]), masked.p0) - tv["fresh samples"]) < 0.01

# %% [markdown]
# ### The spiral: is the reassembled law the true one?
#
# We draw 15 000 fresh pairs 20 times, and ask how far their TV from the spiral varies. One step of
# section 8 may move both tokens of a pair; this has a probability of order $h^2$ and is part of the
# step's error. The exact jumps have no such error, and their TV lies within five standard
# deviations of the mean, on both graphs. The start from perfectly uniform pairs costs little: at
# σ̄ = 4 the noisy world differs from them by a TV below 0.01, and the reverse walk cannot enlarge
# it (total variation never grows under a common kernel). On the absorbing graph, 2 % of the tokens
# are still visible at σ̄ = 4 and we start with none; that costs nothing, because a pair that is all
# MASK hides a pair from exactly $p_0$. The library's `scores` equal our `ratios_of`, and the
# largest ratios are those that section 8 names (186 without any noise).

# %% tags=["hide-cell"]
generator = torch.Generator().manual_seed(5)
direct = [spiral.histogram(spiral.sample_data(15_000, generator)) for _ in range(20)]
honest = torch.tensor([total_variation(histogram, world) for histogram in direct])
found_laws = spiral.histogram(exact_pairs), masked.histogram(stages[-1])
for law, target in zip(found_laws, (world, masked.p0)):
    assert abs(total_variation(law, target) - honest.mean()) < 5 * honest.std()
assert total_variation(spiral.marginal(4.0), torch.full((32, 32), 1 / 1024)) < 0.01
everywhere = ratios_of(noisy_world(torch.tensor(0.5)), spiral.states)
assert (everywhere - spiral.scores(0.5)).abs().max() < 1e-10
for sigma, largest in ((1.0, 3.03), (0.1, 56.8), (0.001, 182.3), (0.0, 186.1)):
    assert abs(ratios_of(noisy_world(torch.tensor(sigma)), spiral.states).max() - largest) < 0.1

# %% [markdown]
# How alike are the two rows of section 8's picture? A single hit keeps a pair in its row or its
# column, so rows and columns that the spiral does not reach (the right edge, the bottom) stay paler
# in both. At each σ̄ we compare both histograms with the exact distribution. The
# forward row is a true sample of it, so its TV is the yardstick. The TV of the reverse row differs
# from it by less than 0.01.

# %% tags=["nbval-check-output"]
for sigma, up, down in zip(levels.tolist(), forward, back[::-1]):
    law = spiral.marginal(sigma)
    tv_up, tv_down = (total_variation(spiral.histogram(x), law) for x in (up, down))
    print(f"σ̄ = {sigma:<5g}  TV forward {tv_up:.3f}   reverse {tv_down:.3f}")
    assert abs(tv_up - tv_down) < 0.01

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023. The method of this book. This chapter
#   covers its section 2; the two graphs are its equations 15 and 16 (its uniform matrix is $N$
#   times ours).
# - A. Campbell and others, [*A Continuous Time Framework for Discrete Denoising
#   Models*](https://arxiv.org/abs/2205.14987), 2022. Continuous-time Markov chains as generative
#   models, and τ-leaping.
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete
#   State-Spaces*](https://arxiv.org/abs/2107.03006), 2021. The same idea in discrete time, with
#   uniform and absorbing noise, and one for ordered values.
# - J. R. Norris, *Markov Chains*, 1997, chapter 2 (rate matrices, waiting times) and section 3.7
#   (time reversal, in the stationary case), with proofs, in the row convention.
# - D. T. Gillespie, *Exact stochastic simulation of coupled chemical reactions*, 1977. Simulation
#   jump by jump.
# - C. Moler and C. Van Loan, *Nineteen dubious ways to compute the exponential of a matrix,
#   twenty-five years later*, 2003. Why the series is not enough.
# - What came later: J. Shi and others, [*Simplified and Generalized Masked Diffusion for Discrete
#   Data*](https://arxiv.org/abs/2406.04329), 2024, on the absorbing graph in the page's time $t$;
#   Y. Schiff and others, [*Simple Guidance Mechanisms for Discrete Diffusion
#   Models*](https://arxiv.org/abs/2412.10193), 2024, on the uniform graph.
