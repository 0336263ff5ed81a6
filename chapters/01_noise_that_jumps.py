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
# # 01. Noise that jumps: what is diffusion when nothing is continuous?
#
# An image can be made a little noisier: add a small number to every pixel. A word cannot. There is
# no "cat plus 0.01", and half way from *cat* to *dog* lies nothing at all. Diffusion models need
# noise that destroys data step by step, and that can be run backwards. What is such noise for text?
#
# The answer of this chapter: **jumps at random times**. A token keeps its value for a while, then
# suddenly has another one. Everything that follows in this book stands on three questions about
# such jumps: how fast they come, what they do to a distribution, and how to undo them.
#
# After this chapter you will be able to
#
# - read and write a **rate matrix**, simulate its jumps, and compute its exact distribution at any
#   time;
# - derive the two kinds of noise that language models use, **uniform** and **absorbing**, in closed
#   form, and apply them to a vocabulary of any size without ever building a matrix;
# - show that running noise backwards takes only **ratios of probabilities**, and do it.
#
# *You need* probability (Bayes' rule) and a little PyTorch. *Running time:* under 30 seconds on two
# CPU cores.

# %% [markdown]
# ## A picture first
#
# Here is a sentence of 16 characters under two kinds of noise. Each row has suffered more of it than
# the row above. `UniformGraph` and `AbsorbingGraph`, two objects of our library, are the goal of
# the first half of the chapter. For now, only look.

# %%
import math
import torch
from sedd_mini import AbsorbingGraph, UniformGraph, plots

torch.set_default_dtype(torch.float64)  # this chapter checks exact formulas
plots.use_style()

# %%
alphabet = "abcdefghijklmnopqrstuvwxyz ■"  # ■ stands for MASK
x0 = torch.tensor([alphabet.index(c) for c in "noise that jumps"])
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 2.7))
for ax, graph, name in zip(axes, [UniformGraph(27), AbsorbingGraph(27)], ["uniform", "absorbing"]):
    rows, generator = [x0], torch.Generator().manual_seed(324)
    for _ in range(5):
        rows.append(graph.sample_transition(rows[-1], 0.4, generator))
    text = [[alphabet[i] for i in row] for row in rows]
    labels = [rf"$\bar\sigma$ = {0.4 * i:.1f}" for i in range(6)]
    plots.show_tokens(ax, text, torch.stack(rows) != x0, labels)
    ax.set_title(f"{name} noise")

# %% [markdown]
# *What to see.* Tinted letters differ from the original. On the left a letter that is hit becomes a
# random letter; on the right it becomes ■, which is called MASK, for good. No letter ever moves "a
# little". The number σ̄ ("sigma bar") counts how much noise there has been. Let us find out what it
# means.

# %% [markdown]
# ## 1. Three words and a rate matrix
#
# The smallest example that shows everything has three states. Take a vocabulary of three words:
#
# | state | 0 | 1 | 2 |
# |---|---|---|---|
# | word | cat | dog | owl |
#
# One token sits at one of them and sometimes jumps. To say how, we give each possible jump a
# **rate**. A rate is a probability per unit of time: if the rate of *cat → dog* is 1, then within a
# very short time $h$ a cat becomes a dog with probability about $1 \cdot h$. We write the rate of
# the jump $x \to y$ as $Q(y, x)$: destination first, origin second. So **column $x$ lists where $x$
# can go**.

# %%
words = ["cat", "dog", "owl"]
Q = torch.tensor(
    [
        [-1.0, 2.0, 0.0],  # into cat
        [1.0, -3.0, 0.5],  # into dog
        [0.0, 1.0, -0.5],  # into owl
    ]
)

# %% [markdown]
# Read the middle column. A dog turns into a cat at rate 2 and into an owl at rate 1, so it leaves
# at rate 3 in total. The diagonal holds that total with a minus sign. Why? Probability that leaves
# one state must arrive in another one, so **every column sums to zero**.

# %%
assert (Q.sum(0) == 0).all()

# %% [markdown]
# See it at work. Start with a dog for certain, and let the short time $h = 0.01$ pass. The new
# distribution is the old one, plus $h$ times what flows in, minus $h$ times what flows out. The
# matrix does both at once: $p_h \approx p_0 + h\, Q\, p_0$.

# %% tags=["nbval-check-output"]
p0 = torch.tensor([0.0, 1.0, 0.0])
h = 0.01
p_h = p0 + h * Q @ p0
for word, probability in zip(words, p_h):
    print(f"{word}  {probability:.2f}")
assert abs(p_h.sum() - 1) < 1e-12

# %% [markdown]
# ## 2. Jump by jump
#
# How long does a dog stay a dog? Cut the time $s$ into pieces of length $h$. In each piece it
# survives with probability $1 - 3h$, so it survives all $s/h$ of them with probability
# $(1 - 3h)^{s/h}$. Make the pieces shorter and shorter, and this becomes $e^{-3s}$:

# %% tags=["nbval-check-output"]
s = 0.5
for h in [0.1, 0.01, 0.001, 0.0001]:
    print(f"h = {h:<6}  survives: {(1 - 3 * h) ** (s / h):.4f}")
limit = math.exp(-3 * s)
print(f"limit       survives: {limit:.4f}")
assert abs((1 - 3e-6) ** (s / 1e-6) - limit) < 1e-5

# %% [markdown]
# So the waiting time is **exponential**: $P(\text{wait} > s) = e^{-qs}$ with $q$ the total rate of
# leaving. To draw one, take $u$ uniform in $[0, 1)$ and solve $e^{-qs} = 1 - u$ for $s$. Its mean
# is $1/q$: a dog waits a third of a unit on average.

# %%
def waiting_time(q, generator, shape=()):
    u = torch.rand(shape, generator=generator)
    return -torch.log1p(-u) / q


waits = waiting_time(3.0, torch.Generator().manual_seed(0), (100_000,))
assert abs(waits.mean() - 1 / 3) < 0.005
assert abs((waits > s).double().mean() - limit) < 0.005

# %% [markdown]
# When the wait is over, the token jumps. The rates in its column say where: a dog becomes a cat
# with probability 2/3 and an owl with probability 1/3. Then it waits again. That is the whole
# simulation. Nothing in it is an approximation. It is often named after Gillespie, who used it for
# molecules.

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

# %%
generator = torch.Generator().manual_seed(11)
fig, ax = plots.plt.subplots(figsize=(7, 2.6))
for i in range(3):
    times, states = zip(*simulate(0, 6.0, generator), strict=True)
    heights = [state + 0.09 * (i - 1) for state in (*states, states[-1])]
    ax.step([*times, 6.0], heights, where="post")
ax.set(xlabel=r"time, which we call $\bar\sigma$", yticks=range(3), yticklabels=words)
ax.set_title("Three tokens that start as a cat");

# %% [markdown]
# *What to see.* Flat pieces and sudden jumps. (The lines are drawn slightly apart only to stay
# visible.) Dogs are short-lived, since their column has the largest rates. Owls, which leave at
# rate 0.5, last longest. And no cat becomes an owl directly: that rate is 0.
#
# From now on we call this time **σ̄**, the amount of noise, and `sigma` in code. Think of it as the
# chain's own clock. (The bar gets its meaning in section 5.)

# %% [markdown]
# ## 3. The distribution after σ̄: a matrix exponential
#
# One path is random. The distribution of the token at time σ̄ is not. Write it as a vector
# $p_{\bar\sigma}$. Our short step was
# $p_{\bar\sigma + h} \approx p_{\bar\sigma} + h\,Q\,p_{\bar\sigma}$. Subtract, divide by $h$, let
# $h \to 0$:
#
# $$\frac{dp_{\bar\sigma}}{d\bar\sigma} = Q\, p_{\bar\sigma} .$$
#
# The naive way to solve it is to take the short step many times. This is Euler's method.

# %%
def euler(p, sigma, steps):
    for _ in range(steps):
        p = p + sigma / steps * (Q @ p)
    return p

# %% [markdown]
# How good is it? We need something exact to compare with. Euler's $n$ steps multiply $p_0$ by
# $(I + \bar\sigma Q / n)^n$. For numbers, $(1 + a/n)^n$ tends to $e^a$. For matrices it is the
# same, and the limit is the **matrix exponential**, defined by the same series as for numbers:
#
# $$p_{\bar\sigma} = \exp(\bar\sigma Q)\, p_0, \qquad \exp(A) = I + A + \frac{A^2}{2!} + \frac{A^3}{3!} + \dots$$

# %%
def exp_series(A, terms=40):
    total = term = torch.eye(len(A))
    for k in range(1, terms):
        term = term @ A / k
        total = total + term
    return total

# %% [markdown]
# Now Euler against the series, for a cat after σ̄ = 1. Ten times more steps should make the error
# ten times smaller.

# %% tags=["nbval-check-output"]
cat, sigma = torch.tensor([1.0, 0.0, 0.0]), 1.0
exact = exp_series(sigma * Q) @ cat
errors = [(euler(cat, sigma, n) - exact).abs().max().item() for n in (10, 100, 1000)]
print("largest error, 10, 100, 1000 steps:", [f"{e:.0e}" for e in errors])
assert 8 < errors[0] / errors[1] < 13 and 9 < errors[1] / errors[2] < 11

# %% [markdown]
# The series is exact but fragile. For large σ̄ its terms grow huge before they cancel (exercise 2).
# PyTorch has a robust version. And our library has an object for *any* small rate matrix, built on
# it: `MatrixGraph`. All three must agree.

# %%
from sedd_mini.worlds.ctmc import MatrixGraph

K = torch.matrix_exp(sigma * Q)
assert torch.allclose(K, exp_series(sigma * Q), atol=1e-12)
assert torch.allclose(K, MatrixGraph(Q).kernel(sigma), atol=1e-12)

# %% [markdown]
# The matrix $\exp(\bar\sigma Q)$ is the **forward kernel**. Its entry at row $y$, column $x_0$ is
# $p_{\bar\sigma}(y \mid x_0)$: the probability that a token which was $x_0$ is now $y$, after any
# number of jumps on the way. Even *cat → owl* is possible now, by way of a dog.

# %% tags=["nbval-check-output"]
print("P(owl | cat), one jump: ", Q[2, 0].item())
print(f"P(owl | cat), sigma = 1:  {K[2, 0]:.3f}")
assert torch.allclose(K.sum(0), torch.ones(3))

# %% [markdown]
# Does the simulation agree with the exponential? Run 3000 cats until σ̄ = 3, look at them at twelve
# moments, and compare with the curves. Chance alone makes a frequency from $M$ runs miss its
# probability $p$ by about $\sqrt{p(1-p)/M}$, at most 0.009 here. That is one standard error. We
# allow four and a half.

# %%
generator = torch.Generator().manual_seed(2)
paths = [simulate(0, 3.0, generator) for _ in range(3000)]
moments = torch.arange(1, 13) / 4

# %%
def state_at(path, moment):
    return [state for time, state in path if time <= moment][-1]


states = torch.tensor([[state_at(path, moment) for path in paths] for moment in moments])
found = torch.stack([(states == y).double().mean(1) for y in range(3)], -1)  # (12, 3)
true = MatrixGraph(Q).kernel(moments)[:, :, 0]  # (12, 3)
standard_error = (true * (1 - true) / len(paths)).sqrt()
assert ((found - true).abs() < 4.5 * standard_error).all()

# %%
fine = torch.linspace(0, 3, 100)
curves = MatrixGraph(Q).kernel(fine)[:, :, 0]
fig, ax = plots.plt.subplots()
for y, word in enumerate(words):
    ax.plot(fine, curves[:, y])
    ax.plot(moments, found[:, y], "o", color=plots.COLOURS[y], markersize=5)
    ax.annotate(word, (3.04, curves[-1, y]), va="center", color=plots.COLOURS[y])
ax.set(xlabel=r"$\bar\sigma$", ylabel="probability", ylim=(0, 1.02), xlim=(0, 3.2))
ax.set_title(r"Where a cat is after $\bar\sigma$: exact (lines), simulated (dots)");

# %% [markdown]
# *What to see.* Dots on lines. (Neighbouring dots err in the same direction: they are the same
# cats, a little later.) The random paths and the smooth equation are one thing seen twice. And the
# curves flatten: the token forgets where it began. Wait long enough and all three columns of the
# kernel agree, whatever the start.

# %% tags=["nbval-check-output"]
for row in MatrixGraph(Q).kernel(30.0):
    print([round(entry, 3) for entry in row.tolist()])

# %% [markdown]
# This is what noise must do: lead from *any* data to *one* known distribution, which we can sample
# without knowing the data.

# %% [markdown]
# ## 4. Two graphs for real vocabularies
#
# Three words can have hand-made rates. For GPT-2's 50 257 tokens a dense $Q$ alone would take 20
# GB. So one chooses a $Q$ so regular that no matrix is needed. A choice of which jumps exist is
# called a **graph**. Two of them are in use.
#
# **Uniform.** A token jumps to each of the $N$ values at rate $1/N$. With $J$ the matrix whose
# entries are all $1/N$: $Q = J - I$.
#
# **Absorbing.** There is one more state, MASK, numbered $N$. Every token jumps to MASK at rate 1,
# and MASK never leaves.

# %%
N = 5
Q_uniform = torch.full((N, N), 1 / N) - torch.eye(N)
Q_absorbing = torch.zeros(N + 1, N + 1)
Q_absorbing[:N, :N] = -torch.eye(N)
Q_absorbing[N, :N] = 1.0

# %% [markdown]
# These two share a property that makes everything easy: **squaring $Q$ only flips its sign**. For
# the uniform graph, $J^2 = J$ (the average of averages is the average), so
# $Q^2 = J^2 - 2J + I = I - J = -Q$. For the absorbing one, apply $Q$ twice to a token: the first
# time gives MASK minus the token; the second time, MASK gives nothing and the token gives the same
# again, with a minus.

# %%
for Q_graph in (Q_uniform, Q_absorbing):
    assert torch.allclose(Q_graph @ Q_graph, -Q_graph)

# %% [markdown]
# Put that into the series. Every power is $Q$ again, with alternating sign: $Q^k = (-1)^{k-1} Q$.
# So all terms but the first are multiples of $Q$, and their factors add up to a number we know:
#
# $$\exp(\bar\sigma Q) = I + Q \Big(\bar\sigma - \frac{\bar\sigma^2}{2!} + \frac{\bar\sigma^3}{3!} - \dots\Big)
# = I + (1 - e^{-\bar\sigma})\, Q .$$
#
# Infinitely many matrix powers have become one number, $1 - e^{-\bar\sigma}$. Check it against the
# dense exponential, over a wide range of noise.

# %%
for Q_graph in (Q_uniform, Q_absorbing):
    for sigma in (1e-6, 0.1, 1.0, 10.0, 50.0):
        dense = torch.matrix_exp(sigma * Q_graph)
        moved = -torch.expm1(torch.tensor(-sigma))  # 1 − e^{−σ̄}
        closed = torch.eye(len(Q_graph)) + moved * Q_graph
        assert torch.allclose(closed, dense, atol=1e-13)

# %% [markdown]
# Now read the result column by column, as a recipe. With probability $e^{-\bar\sigma}$ nothing has
# happened to the token. Otherwise it has **moved**: in the uniform graph it is replaced by a fresh
# token drawn from all $N$ (by chance perhaps the same one), in the absorbing graph by MASK. How
# many jumps there were on the way does not matter: whoever is replaced twice is still just
# replaced.
#
# Two lines of code for each graph, and no matrix (`expm1(x)` is $e^x - 1$ without rounding errors):

# %%
def noise_uniform(x0, sigma, generator):
    moved = torch.rand(x0.shape, generator=generator) < -torch.expm1(-sigma)
    return torch.where(moved, torch.randint(N, x0.shape, generator=generator), x0)


def noise_absorbing(x0, sigma, generator):
    moved = torch.rand(x0.shape, generator=generator) < -torch.expm1(-sigma)
    return torch.where(moved, N, x0)

# %% [markdown]
# The check: 200 000 copies of token 2, counted, against column 2 of the dense kernel.

# %%
sigma, copies = torch.tensor(0.7), torch.full((200_000,), 2)
generator = torch.Generator().manual_seed(3)
for noise, Q_graph in ((noise_uniform, Q_uniform), (noise_absorbing, Q_absorbing)):
    column = torch.matrix_exp(sigma * Q_graph)[:, 2]
    counts = torch.bincount(noise(copies, sigma, generator), minlength=len(Q_graph))
    standard_error = (column * (1 - column) / len(copies)).sqrt()
    assert ((counts / len(copies) - column).abs() <= 4.5 * standard_error).all()

# %% [markdown]
# The library's `UniformGraph` and `AbsorbingGraph` hold these closed forms. `transition_probs(x0,
# sigma)` gives one column of the kernel for each token in `x0`, and `sample_transition(x0, sigma)`
# is the recipe. They agree with the dense matrices:

# %%
for graph, Q_graph in ((UniformGraph(N), Q_uniform), (AbsorbingGraph(N), Q_absorbing)):
    every = torch.arange(graph.num_states)
    assert torch.allclose(graph.rates(every).T, Q_graph)
    columns = graph.transition_probs(every, sigma)  # (states, states): a row for each x0
    assert torch.allclose(columns.T, torch.matrix_exp(sigma * Q_graph))

# %% [markdown]
# And at full size a column is all that is ever built, one for each token that needs it:

# %% tags=["nbval-check-output"]
big = AbsorbingGraph(50_257)
column = big.transition_probs(torch.tensor([464]), 0.7)
print("one column:", tuple(column.shape), " the matrix would take", 50_258**2 * 8 // 10**9, "GB")
print(f"stays {column[0, 464]:.3f}   MASK {column[0, big.mask_id]:.3f}")

# %% [markdown]
# ## 5. How fast? The noise schedule
#
# So far the clock was σ̄ itself. A model is trained on a time $t$ that runs from 0 (data) to 1
# (noise), and we are free to choose how fast noise comes. Let $\sigma(t)$ be the **rate of noise**
# at $t$: all rates are multiplied by it. Then $dp_t/dt = \sigma(t)\, Q\, p_t$. Running the clock
# fast or slow changes when things happen, never what happens, so
#
# $$p_t = \exp(\bar\sigma(t)\, Q)\, p_0, \qquad \bar\sigma(t) = \text{the integral of } \sigma(t) .$$
#
# This is the meaning of the bar: σ without it is a speed, and σ̄ is the **total noise**, the
# distance covered. The paper uses two schedules. The **geometric** one multiplies the total by
# equal factors in equal times: $\bar\sigma(t) = \sigma_{\min}^{1-t}\, \sigma_{\max}^{t}$. The
# **log-linear** one is $\bar\sigma(t) = -\log(1 - (1-\varepsilon)\,t)$. (The geometric one can never
# be 0. It starts at a tiny $\sigma_{\min}$, as if that much noise had come before $t = 0$.)

# %%
def geometric(t, sigma_min=1e-4, sigma_max=20.0):
    return sigma_min ** (1 - t) * sigma_max**t


def log_linear(t, eps=1e-3):
    return -torch.log(1 - (1 - eps) * t)

# %% [markdown]
# The library has both, each with `total(t)` for $\bar\sigma(t)$ and `rate(t)` for its derivative
# $\sigma(t)$. We let PyTorch differentiate our formulas, and compare.

# %%
from sedd_mini import GeometricNoise, LogLinearNoise

for formula, noise in ((geometric, GeometricNoise()), (log_linear, LogLinearNoise())):
    t = torch.linspace(0, 1, 101, requires_grad=True)
    formula(t).sum().backward()  # t.grad is now dσ̄/dt at every t
    assert torch.allclose(noise.total(t), formula(t))
    assert torch.allclose(noise.rate(t.detach()), t.grad)

# %% [markdown]
# And the claim that only the total counts? Let a cat go through a whole log-linear schedule in small
# steps of $t$, each with the rate of its middle. The end must be the exponential of the total.

# %%
p, noise, steps = cat, LogLinearNoise(eps=0.1), 2000
for t in (torch.arange(steps) + 0.5) / steps:
    p = p + noise.rate(t) / steps * (Q @ p)
exact = torch.matrix_exp(noise.total(1.0) * Q) @ cat
assert (p - exact).abs().max() < 1e-3 < (p - cat).abs().max()

# %% [markdown]
# What do these formulas mean for a sentence? A token has moved with probability
# $1 - e^{-\bar\sigma(t)}$. This **fraction of tokens moved** is the picture to keep in mind.

# %%
t = torch.linspace(0, 1, 201)
fig, ax = plots.plt.subplots()
for noise, label in ((LogLinearNoise(), "log-linear"), (GeometricNoise(), "geometric")):
    ax.plot(t, 1 - torch.exp(-noise.total(t)), label=label)
ax.set(xlabel="time t", ylabel="fraction of tokens moved")
ax.set_title("Two schedules, seen by the text")
ax.legend();

# %% [markdown]
# *What to see.* Log-linear noise takes tokens away at a steady pace: the logarithm was chosen for
# exactly that, since $1 - e^{-\bar\sigma(t)} = (1-\varepsilon)\,t$. The geometric schedule does
# nearly nothing for half of the time, then nearly everything within a quarter of it. It spends its
# early time on tiny noise, where only one token in thousands moves. Some numbers:

# %% tags=["nbval-check-output"]
t = torch.linspace(0, 1, 100_001)
for noise in (LogLinearNoise(), GeometricNoise()):
    moved = 1 - torch.exp(-noise.total(t))
    at = [round(t[moved >= share][0].item(), 2) for share in (0.1, 0.5, 0.9)]
    print(f"{type(noise).__name__:14} 10, 50, 90 % moved at t = {at}")
assert torch.allclose(1 - torch.exp(-LogLinearNoise().total(t)), (1 - 1e-3) * t)

# %% [markdown]
# ## 6. More than one token
#
# A sentence has many tokens. The noise treats **each on its own**: every token has its own clock
# for jumps and looks at no other one. Take two tokens from cat, dog and owl. A distribution over
# pairs is now a 3 × 3 table, first token down, second across. In our data the two tokens like to be
# equal:

# %%
p0 = torch.tensor([[0.40, 0.05, 0.00], [0.05, 0.20, 0.05], [0.00, 0.05, 0.20]])
assert abs(p0.sum() - 1) < 1e-12

# %% [markdown]
# The naive way: list all nine pairs, and write their 9 × 9 rate matrix. Either the first token
# jumps and the second stays, or the other way round. The Kronecker product `torch.kron(A, B)` is
# the matrix that acts on the first token by $A$ and on the second by $B$; so the rates are

# %%
I = torch.eye(3)
Q_pair = torch.kron(Q, I) + torch.kron(I, Q)  # (9, 9)
sigma = 0.8
naive = (torch.matrix_exp(sigma * Q_pair) @ p0.flatten()).reshape(3, 3)

# %% [markdown]
# The better way: independent noise means that the kernel of the pair is a product,
# $p(y_1 y_2 \mid x_1 x_2) = p(y_1 \mid x_1)\, p(y_2 \mid x_2)$. So we multiply the table by the
# small kernel from both sides. The library's `Chain` does this for any graph and a few tokens;
# `marginal(sigma)` is the exact table after noise.

# %%
from sedd_mini.worlds.ctmc import Chain

K = torch.matrix_exp(sigma * Q)
p_pair = K @ p0 @ K.T
assert torch.allclose(p_pair, naive)
assert torch.allclose(p_pair, Chain(MatrixGraph(Q), p0).marginal(sigma))

# %% [markdown]
# Two remarks that matter later. First, the *noise* is independent, but the noisy *tokens* are not.
# They still remember that they liked to be equal:

# %%
product = p_pair.sum(1, keepdim=True) * p_pair.sum(0, keepdim=True)
assert (p_pair - product).abs().max() > 0.03
assert (p_pair.diag() > product.diag()).all()

# %% [markdown]
# Second, two tokens never jump at the same instant. From any sequence only its **neighbours** can
# be reached in one jump: those that differ in one token. For text, the number of sequences is
# beyond all counting, and the number of neighbours is merely large:

# %% tags=["nbval-check-output"]
off_diagonal = Q_pair - Q_pair.diag().diag()
print("jumps between the 9 pairs:", (off_diagonal > 0).sum().item(), "of", 9 * 8)
print("digits of 50257^1024:     ", 1 + int(1024 * math.log10(50_257)))
print("neighbours of a sequence: ", 1024 * 50_256)

# %% [markdown]
# ## 7. Backwards
#
# Noise is easy. The art is to undo it. Suppose we look at the token at noise σ̄, and it is $x$.
# What was it a moment $h$ earlier? Ask Bayes. Before, it was $y$ with probability
# $p_{\bar\sigma-h}(y)$; from there it came to $x$ with probability $h\,Q(x, y)$, if $y \ne x$ and
# $h$ is short:
#
# $$P(\text{was } y \mid \text{is } x) = \frac{P(\text{is } x \mid \text{was } y)\; p_{\bar\sigma-h}(y)}{p_{\bar\sigma}(x)}
# \approx h\, Q(x, y)\, \frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)} .$$
#
# (For short $h$, $p_{\bar\sigma-h}$ is nearly $p_{\bar\sigma}$.)
#
# A probability proportional to a short time: that is a rate. So the reversed process is a jump
# process again, and its rates are
#
# $$\boxed{\;\bar Q(y, x) = \frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)}\; Q(x, y), \quad y \ne x\;}$$
#
# with the diagonal set so that columns sum to 0. (In the time $t$ of a schedule,
# $Q_t = \sigma(t)\,Q$ takes the place of $Q$.) Notice that $x$ and $y$ have swapped places in $Q$:
# to go back from $x$ to $y$, the way from $y$ to $x$ must exist.
#
# Same symbols, in code, for one token with some data distribution:

# %%
def reverse_rates(p, Q):
    ratio = p[:, None] / p[None, :]  # ratio[y, x] = p(y) / p(x)
    Q_bar = ratio * Q.T
    Q_bar.fill_diagonal_(0)
    return Q_bar - Q_bar.sum(0).diag()

# %% [markdown]
# First check: Bayes' rule without approximation. The exact backward probabilities over a step $h$
# are `backward[y, x]` below. Minus the identity and divided by $h$, they must tend to $\bar Q$, ten
# times closer for an $h$ ten times smaller.

# %% tags=["nbval-check-output"]
p0, sigma = torch.tensor([0.1, 0.1, 0.8]), 0.5
p = torch.matrix_exp(sigma * Q) @ p0
errors = []
for h in (0.01, 0.001, 0.0001):
    p_before = torch.matrix_exp((sigma - h) * Q) @ p0
    backward = p_before[:, None] * torch.matrix_exp(h * Q).T / p[None, :]
    assert torch.allclose(backward.sum(0), torch.ones(3))
    errors.append(((backward - torch.eye(3)) / h - reverse_rates(p, Q)).abs().max().item())
print("distance from Q_bar:", [f"{e:.0e}" for e in errors])

# %% [markdown]
# Second check: undo all of the noise. Start from $p_T$, the distribution at σ̄ = 3, and walk back
# in small steps, $p_{\bar\sigma - h} = p_{\bar\sigma} + h\,\bar Q\,p_{\bar\sigma}$, with the true
# ratios at each level. We should arrive at $p_0$.

# %%
def run_backwards(p, rates_at, sigma_max=3.0, steps=1000):
    h = sigma_max / steps
    for k in range(steps, 0, -1):
        p = p + h * rates_at(k * h) @ p
    return p


def marginal(sigma):
    return torch.matrix_exp(sigma * Q) @ p0

# %% tags=["nbval-check-output"]
for steps in (100, 1000):
    back = run_backwards(marginal(3.0), lambda s: reverse_rates(marginal(s), Q), steps=steps)
    print(f"{steps:5} steps: {[round(v, 3) for v in back.tolist()]}")
print("    truth:", p0.tolist())
assert (back - p0).abs().max() < 1e-3

# %% [markdown]
# It comes back. Is it really the ratios that do this? A control: pretend that all ratios are 1, and
# the walk goes nowhere near $p_0$.

# %% tags=["nbval-check-output"]
ones = torch.ones(3)
lost = run_backwards(marginal(3.0), lambda s: reverse_rates(ones, Q))
print("with all ratios 1:", [round(v, 2) for v in lost.tolist()])
assert (lost - p0).abs().max() > 0.2

# %% [markdown]
# Look once more at the boxed formula. $Q$ is ours: we chose it. **All that we need to know about
# the data is the ratio $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$**, and only for neighbours. Never
# $p_{\bar\sigma}$ itself. That is a gift: to normalise a distribution over all texts is hopeless,
# but in a ratio the normalising constant cancels.

# %%
for unknown_constant in (0.001, 7.0, 1e6):
    assert torch.allclose(reverse_rates(unknown_constant * p, Q), reverse_rates(p, Q))

# %% [markdown]
# The paper calls the vector of these ratios the **concrete score**,
# $s(x)_y = p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$. For pictures with continuous pixels the score is
# the gradient of $\log p$: how the probability changes if we move a little. Here we cannot move a
# little, so we ask how it changes if we jump. In the library, a graph turns scores into reverse
# rates. `Chain` knows the true `scores`, and their logarithm `log_score`, which is what a network
# will have to predict. Its `reverse_marginal` solves the reverse equation from any starting
# distribution `p_base`, more accurately than our small steps:

# %%
chain, every = Chain(MatrixGraph(Q), p0), torch.arange(3)
score = chain.scores(sigma)[:, 0]  # (3, 3): row x, entry y
assert torch.allclose(MatrixGraph(Q).reverse_rates(every, score).T, reverse_rates(p, Q))
back = chain.reverse_marginal(chain.log_score, sigma_max=3.0, p_base=marginal(3.0))
assert torch.allclose(back, p0, atol=1e-4)

# %% [markdown]
# ## 8. A world of two tokens, dissolved and reassembled
#
# Now something to look at. Take sequences of two tokens, each with 32 values. There are 1024 such
# sequences, so a distribution over them is a picture: the first token is the row, the second the
# column, and ink is probability. Ours is a spiral, with 3 % of its probability spread evenly so
# that every ratio is finite. Neither token alone has a shape; the two together do.

# %% tags=["nbval-check-output"]
from sedd_mini.worlds.toys import two_token_world

world = two_token_world("spiral")
uniform = Chain(UniformGraph(32), world)
print("world:", tuple(world.shape), "  sequences:", len(uniform.states))

# %% [markdown]
# What is a score here? Sit at the pair (16, 5). The first token may jump to any of 32 rows, so its
# 32 ratios are column 5 of the noisy picture, divided by one pixel. The second token's are a row.
# The library's `scores` lists them for all 1024 sequences, two tokens, 32 values each.

# %%
p = uniform.marginal(0.5)  # (32, 32)
scores = uniform.scores(0.5)  # (1024, 2, 32)
here = uniform.index(torch.tensor([16, 5]))
assert torch.allclose(scores[here, 0], p[:, 5] / p[16, 5])
assert torch.allclose(scores[here, 1], p[16, :] / p[16, 5])

# %% [markdown]
# The experiment has two rows. *Forward*: draw 15 000 sequences from the spiral and add noise, from
# level to level. *Reverse*: draw 15 000 *other* sequences from pure noise, which know nothing of
# any spiral, and let them jump back with the rates of the boxed formula. As the ratios change with
# σ̄, so do the rates; the library's `reverse_gillespie` draws the exact time of every jump
# nevertheless. After each level we count where the sequences are.

# %%
from itertools import pairwise


def there_and_back(chain, levels, num, generator):
    x = chain.sample_data(num, generator)
    forward = [chain.histogram(x)]
    for low, high in pairwise(levels):
        x = chain.graph.sample_transition(x, high - low, generator)
        forward.append(chain.histogram(x))
    x, jumps = chain.graph.sample_limit((num, 2), generator), 0
    back = [chain.histogram(x)]
    for high, low in pairwise(levels[::-1]):
        x, more = chain.reverse_gillespie(x, high, low, generator)
        back.append(chain.histogram(x))
        jumps = jumps + more
    return forward, back[::-1], jumps

# %%
levels = [0.0, 0.2, 0.5, 1.0, 2.0, 4.0]
generator = torch.Generator().manual_seed(4)
forward, back, jumps = there_and_back(uniform, levels, 15_000, generator)
titles = [rf"$\bar\sigma$ = {s:g}" + f"\n{-100 * math.expm1(-s):.0f} % moved" for s in levels]
row_labels = ["forward\n→", "reverse\n←"]
fig = plots.show_worlds([forward, back], titles, row_labels, vmax=world.max())
fig.savefig("../figures/reassembly.png", dpi=150, metadata={"Software": None})

# %% [markdown]
# *What to see.* Read the upper row from left to right, the lower one from right to left. In each
# column the two pictures are samples of one distribution, though no sequence of the one has ever
# met one of the other. Upper row: the spiral fades, and single moved tokens leave streaks along
# rows and columns. Lower row: 15 000 random pairs find their way to the spiral, each jumping along
# its own row or column, led by nothing but ratios.

# %% [markdown]
# "The same distribution" is a claim, so measure it. The **total variation** (TV) between two
# distributions is half the sum of their absolute differences: 0 if they are equal, 1 if they have
# nothing in common. A histogram of 15 000 samples is never exactly the law it came from. So we also
# ask what TV honest samples from the spiral have: pure sampling noise.

# %%
from sedd_mini.worlds.ctmc import total_variation

generator = torch.Generator().manual_seed(5)
direct = [uniform.histogram(uniform.sample_data(15_000, generator)) for _ in range(20)]
honest = torch.tensor([total_variation(histogram, world) for histogram in direct])
reassembled = total_variation(back[0], world)
start = total_variation(back[-1], world)

# %% tags=["nbval-check-output"]
print(f"TV from the spiral: start of the reverse run {start:.2f}")
print(f"                    reassembled              {reassembled:.2f}")
print(f"                    honest samples           {honest.mean():.2f}")
assert abs(reassembled - honest.mean()) < 5 * honest.std()
assert total_variation(uniform.marginal(4.0), torch.full((32, 32), 1 / 1024)) < 0.01

# %% [markdown]
# The reassembled samples are as good as samples from the spiral itself: what is left is sampling
# noise. The last assertion is about the start. We began from perfectly uniform pairs, and at σ̄ = 4
# the world is not *perfectly* uniform; but it differs by a TV of less than 0.01, and no process,
# run on both, can make two distributions easier to tell apart.

# %% [markdown]
# ### The same with MASK
#
# The absorbing graph needs one more row and one more column, for MASK. They are at the lower and
# the right edge.

# %%
absorbing = Chain(AbsorbingGraph(32), world)
generator = torch.Generator().manual_seed(6)
forward, back, jumps_absorbing = there_and_back(absorbing, levels, 15_000, generator)
fig = plots.show_worlds([forward, back], titles, row_labels, vmax=world.max())

# %% [markdown]
# *What to see.* The spiral does not blur: a visible token is always right. It drains, first into
# the edges (one token masked), then into the corner (both). Backwards, everything starts in the
# corner and comes out in two jumps: one token is revealed, then the other, in random order. The
# uniform graph instead jumps many times, and corrects itself as it goes.
#
# In the last column the rows differ. Above, 2 % of the tokens are still visible; below we start
# with none. That does no harm: MASK strikes without looking at the token, so a pair that is all
# MASK hides a pair from exactly $p_0$.

# %% tags=["nbval-check-output"]
print(f"jumps of a sequence, absorbing: {jumps_absorbing.min()} to {jumps_absorbing.max()}")
print(f"jumps of a sequence, uniform, on average: {jumps.double().mean():.1f}")
reassembled = total_variation(back[0], absorbing.p0)
assert abs(reassembled - honest.mean()) < 5 * honest.std()
assert (jumps_absorbing == 2).all() and abs(jumps.double().mean() - 2 * 4 * 31 / 32) < 0.1

# %% [markdown]
# (On its way into noise a uniform token jumps at rate 31/32, so two tokens make
# $2 \cdot 4 \cdot 31/32 = 7.75$ jumps until σ̄ = 4. The way back has just as many.)

# %% [markdown]
# ## What comes next
#
# Here we knew the ratios, because we could write down the whole world. For real data nobody can:
# there are more sentences than atoms, and the ratios are **unknown**. Chapter 02 learns them with a
# small network, from samples alone.
#
# ## Summary
#
# 1. Discrete noise is a jump process: $Q(y, x)$ is the rate of the jump $x \to y$, and columns sum
#    to 0.
# 2. Its distribution is exact: $p_{\bar\sigma} = \exp(\bar\sigma Q)\, p_0$. For the uniform and the
#    absorbing graph this is $I + (1 - e^{-\bar\sigma})\,Q$: a token has moved with probability
#    $1 - e^{-\bar\sigma}$.
# 3. A schedule $\bar\sigma(t)$ only sets the speed. Log-linear noise moves tokens at a steady pace;
#    geometric noise lingers at tiny noise.
# 4. Tokens are noised independently, so a jump leads only to neighbours, which differ in one token.
# 5. The reverse rates are $\bar Q(y, x) = \frac{p_{\bar\sigma}(y)}{p_{\bar\sigma}(x)}\, Q(x, y)$:
#    with the ratios one can undo the noise, exactly.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it. If the check is silent, you are done.
#
# **1. The final mixture** (★☆☆, 5 minutes). Find by hand the distribution `p` over cat, dog and owl
# that noise no longer changes: $Q p = 0$. Start with the cats: as much must flow in as flows out.
#
# ```python
# assert torch.allclose(Q @ p, torch.zeros(3)) and abs(p.sum() - 1) < 1e-12
# ```
#
# **2. When the series breaks** (★☆☆, 10 minutes). At σ̄ = 30, compare `exp_series(30 * Q,
# terms=400)` with `torch.matrix_exp(30 * Q)`. How large does the largest term of the series get,
# and how many of your 16 digits does that leave? Repair `exp_series` with
# $\exp(A) = \exp(A/2^k)^{2^k}$: divide, sum, then square $k$ times.
#
# ```python
# assert torch.allclose(exp_better(30 * Q), torch.matrix_exp(30 * Q), atol=1e-12)
# ```
#
# **3. Your own schedule** (★★☆, 10 minutes). Write a noise schedule in which the fraction of tokens
# moved is $\sin^2(\pi t/2)$ for $t < 1$: slow at both ends. Give `total(t)` and, by hand,
# `rate(t)`.
#
# ```python
# t = torch.linspace(0, 0.99, 100, requires_grad=True)
# total(t).sum().backward()
# assert torch.allclose(1 - torch.exp(-total(t)), torch.sin(torch.pi * t / 2) ** 2)
# assert torch.allclose(rate(t), t.grad)
# ```
#
# **4. Slightly wrong ratios** (★★☆, 15 minutes). A network will never be exact. In the three-word
# chain of section 7, run `chain.reverse_marginal` with a model that multiplies every ratio with
# $y \ne x$ by 1.2. Does the result stay a distribution? How far is it from $p_0$? Compare with 0.8.
# Then start from $(0.4, 0.2, 0.4)$ instead of $p_T$. Which of these mistakes costs more?
#
# ```python
# assert abs(wrong.sum() - 1) < 1e-9 and 0.01 < total_variation(wrong, p0) < 0.2
# ```
#
# **5. Both tokens at once** (★★★, 25 minutes). Jump by jump is exact but slow, as only one token
# moves at a time. Take 32 sequence-wide steps on the spiral instead: from level `high` to `low`,
# let each token jump to each $y \ne x$ with probability $(\text{high} - \text{low})\,\bar Q(y, x)$,
# and stay otherwise. This is *τ-leaping*. Plot TV against the number of steps, 8 to 256, equal
# steps in $\log \bar\sigma$ from 4 to 0.01. Where does sampling noise take over?
#
# ```python
# theirs = uniform.tau_leap(start, sigmas, method="euler", generator=generator)
# tv = [total_variation(uniform.histogram(x), world) for x in (yours, theirs)]
# assert abs(tv[0] - tv[1]) < 0.02
# ```

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023. The method
#   of this book. This chapter covers its section 2; the two graphs are its equations 15 and 16.
# - A. Campbell and others, [*A Continuous Time Framework for Discrete Denoising
#   Models*](https://arxiv.org/abs/2205.14987), 2022. Jump processes as generative models, and
#   τ-leaping.
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete
#   State-Spaces*](https://arxiv.org/abs/2107.03006), 2021. The same idea in discrete time.
# - J. R. Norris, *Markov Chains*, 1997, chapter 2. Rate matrices, waiting times and time reversal,
#   with proofs.
# - D. T. Gillespie, *Exact stochastic simulation of coupled chemical reactions*, 1977. Jump by
#   jump.
# - C. Moler and C. Van Loan, *Nineteen dubious ways to compute the exponential of a matrix,
#   twenty-five years later*, 2003. Why the series is not enough.
