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
# # 03. Score entropy: which loss knows what a ratio is?
#
# Chapter 02 ended with a wish. Aim at the ratio $p(y)/p(x)$ itself, one network evaluation a loss, from samples
# alone; but with a loss that keeps ratios positive and respects the small ones. Least squares failed at the last two. Is
# there another loss?
#
# There is, and it is not far away. This chapter finds **score entropy**, the loss that SEDD is named after, proves on a small world that it does what
# was asked, derives the two forms that need no true ratio, and puts it into the contest of chapter 02. Then it says what is better and what is not.
#
# After this chapter you will be able to
#
# - derive score entropy as a **Bregman divergence**, and say why its minimiser is the true ratio even if the target is noisy;
# - turn it, line by line, into the **implicit** and the **denoising** form, which can be computed from samples;
# - judge, with error bars, how it compares with its three predecessors.
#
# *You need* chapters 01 and 02. *Running time:* about 90 seconds on two CPU cores.

# %% [markdown]
# ## A picture first

# %%
import torch
from sedd_mini import GeometricNoise, UniformGraph, plots

torch.set_num_threads(1)  # networks as small as ours are fastest on one core
plots.use_style()

# %%
fig, axes = plots.plt.subplots(1, 2, figsize=(9.5, 3.4))
s, r = torch.linspace(-0.6, 1.4, 400), 0.2
axes[0].plot(s, (s - r) ** 2 / 2, label="least squares", color=plots.GREEN)
axes[0].plot(s, s - r * (s / r).log() - r, label="score entropy", color=plots.PURPLE)
axes[0].axvline(0, color="#999999", lw=1)
axes[0].set(xlabel="estimate s", ylabel="loss", ylim=(0, 1), title="true ratio r = 0.2")
r = torch.logspace(-2.5, 2.5, 100)
s = 2 * r
axes[1].loglog(r, (s - r) ** 2 / 2, color=plots.GREEN)
axes[1].loglog(r, s - r * (s / r).log() - r, color=plots.PURPLE)
axes[1].set(xlabel="true ratio r", ylabel="loss", title="the estimate is twice the truth")
axes[0].legend(loc="upper center");

# %% [markdown]
# *What to see.* Left: least squares lets an estimate slide through zero as if nothing were there. Score entropy has a wall at zero. Right: both charge for an estimate of $2r$ instead of $r$. For
# least squares the price grows with $r^2$: between the ends of this axis it differs by a factor of $10^{10}$. For score entropy it grows with $r$, and the
# factor is $10^{5}$. Small ratios get a voice.

# %% [markdown]
# ## 1. Losses that find the mean
#
# From chapter 02 we know the one thing that makes learning from samples possible. Given the noisy $x$, the original $x_0$ is random, and so is the conditional ratio
# $R = p(y|x_0)/p(x|x_0)$. Its **mean** is the true ratio $r = p(y)/p(x)$. So we may only use a loss that is minimised by the mean of its target. That is a strong demand. Try four losses on
# a target that is 0.1 nine times out of ten, and 10 otherwise:

# %%
R, chance = torch.tensor([0.1, 10.0]).double(), torch.tensor([0.9, 0.1]).double()
s = torch.logspace(-2, 1.5, 20_001).double()[:, None]  # every estimate worth trying
losses = {
    "least squares": (s - R) ** 2 / 2,
    "absolute error": (s - R).abs(),
    "squared error of logs": (s.log() - R.log()) ** 2,
    "s - R log s": s - R * s.log(),
}

# %% tags=["nbval-check-output"]
mean = (chance * R).sum().item()
print(f"the mean of the target is {mean:.2f}; minimisers:")
for name, loss in losses.items():
    print(f"  {name:22} {s[(loss @ chance).argmin()].item():.2f}")

# %% [markdown]
# The absolute error finds the median, the logarithms find the geometric mean. Both are wrong for us, however reasonable they look. Least squares is right, and so is the odd
# expression in the last line. What do these two have in common?
#
# Take any convex function $F$. At the estimate $s$ draw its tangent. At $r$ the tangent lies below $F$, by
#
# $$D_F(r, s) = F(r) - F(s) - F'(s)\,(r - s) \;\ge 0 .$$
#
# This is the **Bregman divergence** of $F$. It is zero if $s = r$ and, if $F$ is strictly convex, nowhere else. In code, with autograd for the slope:

# %%
def bregman(F, r, s):
    s = s.detach().requires_grad_()
    (slope,) = torch.autograd.grad(F(s).sum(), s)
    return (F(r) - F(s) - slope * (r - s)).detach()

# %% [markdown]
# It depends on the target $r$ through $F(r)$, in which the network does not occur, and otherwise **linearly**. So if the target is random, its mean is all that matters to the network:
#
# $$\mathbb E\, D_F(R, s) = D_F(r, s) + \text{something without } s, \qquad r = \mathbb E R .$$
#
# Check it for three convex functions and many $s$:

# %%
convex = {
    "u²/2": lambda u: u**2 / 2,
    "u log u": lambda u: u * u.log(),
    "-log u": lambda u: -u.log(),
}
s = torch.logspace(-2, 1.5, 50).double()[:, None]
for F in convex.values():
    rest = bregman(F, R, s) @ chance - bregman(F, torch.tensor(mean), s)[:, 0]
    assert torch.allclose(rest, rest[0]) and rest[0] > 0

# %% [markdown]
# So each convex $F$ gives a loss that is safe with noisy targets. $F(u) = u^2/2$ gives least squares. We want a wall at zero, so we need an $F$ whose slope dives to $-\infty$ there: the tangent at a tiny
# $s$ is then nearly vertical, and far below $F(r)$. The simplest such function is $F(u) = u \log u$. Insert it, with $F'(s) = \log s + 1$:
#
# $$D_F(r, s) = r\log r - s \log s - (\log s + 1)(r - s) = s - r \log s + \underbrace{r(\log r - 1)}_{K(r)} .$$
#
# This is **score entropy** for one ratio. The constant $K(r)$ makes the minimum 0.

# %%
def K(a):
    return torch.xlogy(a, a) - a  # a (log a - 1), and 0 at a = 0


def score_entropy_term(s, r):
    return s - r * s.log() + K(r)


r = torch.logspace(-3, 3, 13).double()[:, None]
s = torch.logspace(-3, 3, 50).double().expand(13, 50)
assert torch.allclose(score_entropy_term(s, r), bregman(convex["u log u"], r, s))
assert (score_entropy_term(s, r) >= 0).all() and (score_entropy_term(r, r).abs() < 1e-9).all()
assert torch.allclose(bregman(convex["u²/2"], r, s), (s - r) ** 2 / 2)

# %% [markdown]
# It has two more faces. The paper names another convex function, $F = -\log$, and means this: with the arguments swapped and a factor $r$ it is the same loss,
# $r\,D_{-\log}(s, r)$. And statisticians know $s - r \log s$ as the loss of **Poisson regression**, where counts, which are never negative, are predicted through a logarithm.

# %%
assert torch.allclose(score_entropy_term(s, r), r * bregman(convex["-log u"], s, r))
poisson = torch.nn.functional.poisson_nll_loss(s.log(), r.expand_as(s), reduction="none")
assert torch.allclose(score_entropy_term(s, r), poisson + K(r))

# %% [markdown]
# ## 2. The wall and the slope
#
# How does a network feel this loss? Through its derivative, $1 - r/s = (s - r)/s$. That is the derivative of least squares, $s - r$, **divided by $s$**. Where $s$ is small the push is strong.

# %%
s_ = s.clone().requires_grad_()
(slope,) = torch.autograd.grad(score_entropy_term(s_, r).sum(), s_)
assert torch.allclose(slope, (s - r) / s)

# %% [markdown]
# Near $s = 0$ the push away from the wall grows without limit. To make sure that no step ever jumps through the wall, we let the network output $u = \log s$, so that $s = e^u$ cannot be negative at all. By the chain rule
# the derivative in $u$ is $(s - r)/s \cdot s = s - r$: simple, and as well-behaved as that of least squares in $s$.

# %%
u = s.log().requires_grad_()
(slope,) = torch.autograd.grad(score_entropy_term(u.exp(), r).sum(), u)
assert torch.allclose(slope, s - r)

# %% [markdown]
# Then why not simply keep least squares, and exponentiate *its* output? That is positive, too. But now its derivative in $u$ is $s\,(s - r)$. Near the right answer it pulls with strength $r^2$, where score entropy pulls with $r$.
# On the spiral, at $\bar\sigma = 0.01$, we let the oracle tell how different the pulls on the largest and the smallest ratio are:

# %% tags=["nbval-check-output"]
from sedd_mini.worlds.ctmc import Chain, total_variation
from sedd_mini.worlds.toys import two_token_world

graph, noise = UniformGraph(32), GeometricNoise(sigma_min=0.01, sigma_max=20)
world = two_token_world("spiral")
chain = Chain(graph, world)
ratios = chain.scores(0.01)
spread = (ratios.max() / ratios.min()).item()
print(f"score entropy: {spread:.0e}    least squares of an exponential: {spread**2:.0e}")

# %% [markdown]
# One learning rate has to serve all of them. A spread of nearly a billion is hopeless; section 8 will show it.
#
# **Does the wall matter, in practice?** A single number fitted by least squares to positive targets does not become negative. It is the *sharing* of parameters that does it. Here is a network in miniature: 32 ratios, a line through the spiral
# at $\bar\sigma = 0.03$, fitted with only nine waves. Least squares has the waves as its output. Score entropy has them as the logarithm.

# %%
line = chain.scores(0.03)[chain.index(torch.tensor([13, 8])), 0]  # the line of chapter 02's picture
grid = torch.arange(32).double()[:, None] + 0.5
waves = torch.cos(torch.pi * grid / 32 * torch.arange(9))  # (32, 9)
squares = waves @ torch.linalg.lstsq(waves, line[:, None]).solution[:, 0]

# %%
coefficients = torch.zeros(9, dtype=torch.float64, requires_grad=True)
how = {"max_iter": 2000, "tolerance_change": 1e-14, "line_search_fn": "strong_wolfe"}
optimizer = torch.optim.LBFGS([coefficients], **how)


def closure():
    optimizer.zero_grad()
    loss = score_entropy_term((waves @ coefficients).exp(), line).mean()
    loss.backward()
    return loss


optimizer.step(closure)
entropy = (waves @ coefficients).exp().detach()

# %% tags=["nbval-check-output"]
for name, fitted in (("least squares", squares), ("score entropy", entropy)):
    print(f"{name}: {(fitted < 0).sum()} negative ratios of 32")

# %%
fig, ax = plots.plt.subplots(figsize=(8.5, 3.4))
ax.plot(line, "o", color="#333333", ms=5, label="true ratio")
ax.plot(squares, color=plots.GREEN, label="least squares")
ax.plot(entropy, color=plots.PURPLE, label="score entropy,\nexponential output")
ax.set_yscale("symlog", linthresh=0.01)
ax.axhline(0, color="#999999", lw=1)
ax.set(xlabel="new value y of the first token", ylabel="p(y) / p(x)")
ax.set_yticks([-10, -1, -0.1, 0, 0.1, 1, 10, 100])
ax.set_title("Nine waves for 32 ratios")
ax.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5));

# %% [markdown]
# *What to see.* Both fits have too few parameters, and both get the large ratios roughly right. Least squares swings around zero to do so, and doesn't care. Score entropy swings as well, but around the small ratios, on the positive side.

# %% [markdown]
# ## 3. All ratios at once
#
# A network has to get all ratios right, so sum over all neighbours $y$ of $x$, and take the mean over $x$, with weights $w_{xy} \ge 0$:
#
# $$L_{SE} = \mathbb E_{x \sim p} \sum_{y \ne x} w_{xy} \Big( s_\theta(x)_y - \frac{p(y)}{p(x)} \log s_\theta(x)_y + K\Big(\frac{p(y)}{p(x)}\Big) \Big).$$
#
# Any positive weights have the same minimiser. We take the rates $w_{xy} = Q(x, y)$ as in chapter 02. The oracle can compute this loss; we do it naively, on the small world of two tokens (cat, dog, owl), for a "network" that is a table of
# random numbers. `chain.neighbours(x)` gives the places of $x$ with token $i$ replaced by $y$.

# %%
p0 = torch.tensor([[40, 5, 0], [5, 20, 5], [0, 5, 20]]).double() / 100
tiny, sigma = Chain(UniformGraph(3), p0), 0.5
p, states, neighbours = tiny.marginal(sigma).flatten(), tiny.states, tiny.neighbours(tiny.states)
generator = torch.Generator().manual_seed(0)
log_s = torch.randn(9, 2, 3, generator=generator).double()  # sequence, token to change, new value

# %%
Q = tiny.token_rates()
naive = 0.0
for x in range(9):
    for i in (0, 1):
        for v in range(3):
            if v != states[x, i]:
                w, r = Q[states[x, i], v], p[neighbours[x, i, v]] / p[x]
                s = log_s[x, i, v].exp()
                naive += p[x] * w * (s - r * s.log() + K(r))

# %% [markdown]
# The library has it as `score_entropy`, called like every loss of chapter 02, and `expected_loss` takes the mean over all sequences. Models output the *logarithm* of the score.

# %%
from sedd_mini.losses import score_entropy


def model(x, sigma):
    return log_s[tiny.index(x)]


L_SE = tiny.expected_loss(score_entropy, model, sigma)
assert torch.isclose(naive, L_SE)

# %% [markdown]
# ## 4. The implicit form: trade the ratio for the neighbours
#
# The loss contains $p(y)/p(x)$, which nobody knows. We remove it in three lines, and check each of them on the table. First as arrays: $w_{xy}$, zero at $y = x$, and the true $r$. Three sums make up the loss, $L_{SE} = A - B + C$:

# %%
w = tiny.graph.rates_into(states)  # (9, 2, 3): Q(x, y), 0 at y = x
r = tiny.scores(sigma)
E = p[:, None, None]  # multiply by this and sum: the mean over x
A = (E * w * log_s.exp()).sum()
B = (E * w * r * log_s).sum()
C = (E * w * K(r)).sum()
assert torch.isclose(A - B + C, L_SE)

# %% [markdown]
# $A$ has no ratio in it. $C$ has no network. Only $B$ needs work.
#
# **Line 1.** In the mean over $x$, the factor $p(x)$ cancels the denominator of the ratio:
#
# $$B = \sum_x p(x) \sum_{y \ne x} w_{xy} \frac{p(y)}{p(x)} \log s(x)_y = \sum_x \sum_{y \ne x} w_{xy}\, p(y) \log s(x)_y .$$

# %%
line_1 = (w * p[neighbours] * log_s).sum()
assert torch.isclose(line_1, B)

# %% [markdown]
# **Line 2.** A double sum over all pairs of neighbours does not mind if we swap the names $x$ and $y$:
#
# $$B = \sum_x \sum_{y \ne x} w_{yx}\, p(x) \log s(y)_x = \mathbb E_{x} \sum_{y \ne x} w_{yx} \log s(y)_x .$$
#
# $s(y)_x$ is the network *at the neighbour* $y$, and its entry for the way back to $x$.

# %%
token = torch.tensor([0, 1])[:, None]  # (2, 1): which token differs
back = log_s[neighbours, token, states[..., None]]  # (9, 2, 3): log s(y)_x
w_back = Q.T[states] * (w > 0)  # Q(y, x), 0 at y = x
line_2 = (E * w_back * back).sum()
assert torch.isclose(line_2, B)

# %% [markdown]
# **Line 3.** Put it together and drop $C$. This is the **implicit score entropy**, with no ratio left in it:
#
# $$L_{ISE} = \mathbb E_{x \sim p} \sum_{y \ne x} \Big( w_{xy}\, s_\theta(x)_y - w_{yx} \log s_\theta(y)_x \Big) = L_{SE} - C .$$

# %%
from sedd_mini.losses import implicit_score_entropy

L_ISE = tiny.expected_loss(implicit_score_entropy, model, sigma)
assert torch.isclose(L_ISE, A - line_2) and torch.isclose(L_ISE, L_SE - C)

# %% [markdown]
# Read it as a tug of war: at every sequence that occurs, push all outgoing scores down; at its neighbours, push the score of coming back up. But it needs the network at *every* neighbour. How many evaluations is that? We count, as in chapter 02.

# %% tags=["nbval-check-output"]
def sequences_through_network(loss, length):
    seen = []

    def counting(x, sigma):
        seen.append(len(x))
        return torch.zeros(*x.shape, 8)

    x = torch.zeros(1, length, dtype=torch.int64)
    loss(counting, UniformGraph(8), x, torch.ones(1), x0=x)
    return sum(seen)


for length in (2, 16, 64):
    count = sequences_through_network(implicit_score_entropy, length)
    print(f"{length:4} tokens of 8 values: {count} evaluations a loss")
    assert count == 1 + length * 7
print(f"1024 tokens of 50257 values: {1 + 1024 * 50_256:,}")

# %% [markdown]
# One and $L(N-1)$ more. Even ratio matching is cheap against that. (On the absorbing graph a sequence has only $L$ ways out; exercise 3.) We need a third form.

# %% [markdown]
# ## 5. The denoising form: trade the ratio for the original
#
# Go back to line 1, where $B$ contains $p(y)$ without a denominator.
#
# **Line 1'.** The noisy distribution is a mixture over originals, $p(y) = \sum_{x_0} p_0(x_0)\, p(y|x_0)$. Below, `forward[x, x0]` is the kernel of the whole sequence:
#
# $$B = \sum_{x_0} p_0(x_0) \sum_x \sum_{y \ne x} w_{xy}\, p(y|x_0) \log s(x)_y .$$

# %%
kernel = tiny.kernel(sigma)
forward = torch.kron(kernel, kernel)  # (9, 9)
assert torch.allclose(forward @ p0.flatten(), p)
to_y = forward[neighbours]  # (9, 2, 3, 9): p(y | x0) for each x, token, value, x0
line_1b = torch.einsum("o,xiv,xivo,xiv->", p0.flatten(), w, to_y, log_s)
assert torch.isclose(line_1b, B)

# %% [markdown]
# **Line 2'.** Multiply and divide by $p(x|x_0)$, so that the sum over $x$ becomes a mean over noisy versions of $x_0$:
#
# $$B = \mathbb E_{x_0 \sim p_0}\, \mathbb E_{x \sim p(\cdot|x_0)} \sum_{y \ne x} w_{xy}\, \frac{p(y|x_0)}{p(x|x_0)} \log s(x)_y .$$

# %%
joint = forward * p0.flatten()  # (9, 9): p0(x0) p(x | x0)
conditional = to_y / forward[:, None, None]  # (9, 2, 3, 9): p(y|x0) / p(x|x0)
line_2b = torch.einsum("xo,xiv,xivo,xiv->", joint, w, conditional, log_s)
assert torch.isclose(line_2b, B)

# %% [markdown]
# **Line 3'.** $A$ is a mean over $x$ already. So $A - B$ is $L_{SE}$ with the conditional ratio in the place of the true one. This is the **denoising score entropy**. With a constant that makes each term $\ge 0$,
#
# $$L_{DSE} = \mathbb E_{x_0 \sim p_0,\; x \sim p(\cdot|x_0)} \sum_{y \ne x} w_{xy} \Big( s_\theta(x)_y - \frac{p(y|x_0)}{p(x|x_0)} \log s_\theta(x)_y + K\Big(\frac{p(y|x_0)}{p(x|x_0)}\Big)\Big) .$$

# %%
from sedd_mini.losses import denoising_score_entropy

L_DSE = tiny.expected_loss(denoising_score_entropy, model, sigma)
C_b = torch.einsum("xo,xiv,xivo->", joint, w, K(conditional))
assert torch.isclose(L_DSE, A - line_2b + C_b)
assert torch.isclose(L_DSE - L_SE, C_b - C) and C_b > C

# %% [markdown]
# One evaluation of the network, and nothing but samples: draw $x_0$, add noise, and the conditional ratio is known in closed form. Seen from section 1, nothing else could happen: score entropy is a Bregman divergence, and the true ratio is the mean of
# the conditional one. The loss no longer goes to zero, though. Even with the true ratios, $C_b - C$ remains: what a noisy target costs.

# %% [markdown]
# ## 6. Three forms, one minimiser
#
# If that is all true, three optimisations of a free table must end at the true ratios. Start each from random numbers, and let L-BFGS run on the exact expected loss.

# %%
def minimise(loss, generator):
    table = torch.randn(9, 2, 3, generator=generator).double().requires_grad_()
    how = {"tolerance_grad": 1e-12, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([table], max_iter=500, **how)

    def closure():
        optimizer.zero_grad()
        value = tiny.expected_loss(loss, lambda x, sigma: table[tiny.index(x)], sigma)
        value.backward()
        return value

    optimizer.step(closure)
    return table.detach().exp()

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(1)
for loss in (score_entropy, implicit_score_entropy, denoising_score_entropy):
    found = minimise(loss, generator)
    error = (found / tiny.scores(sigma) - 1)[w > 0].abs().max().item()
    print(f"{loss.__name__:24} finds the true ratios to a relative 1e-5: {error < 1e-5}")
    assert error < 1e-5

# %% [markdown]
# ## 7. In closed form, and without cancellation
#
# On the uniform graph the conditional ratio takes three values, $q$, 1 and $1/q$ (chapter 02), so the sum over $y$ needs no matrix. The graph has this closed form as `graph.score_entropy`, and the loss that uses it is called
# `diffusion_weighted`: with the rates as weights, times $\sigma(t)$, it is the paper's *diffusion-weighted denoising score entropy*, DWDSE. Chapter 04 is about that name. Here we
# check that it equals the definition, sequence by sequence, on the spiral:

# %%
from sedd_mini.losses import diffusion_weighted

generator = torch.Generator().manual_seed(2)
x0 = chain.sample_data(200, generator)
levels = noise.total(torch.rand(200, generator=generator).double())
x = graph.sample_transition(x0, levels[:, None], generator)
any_scores = torch.randn(200, 2, 32, generator=generator).double()
naive = denoising_score_entropy(lambda x, s: any_scores, graph, x, levels, x0=x0)
assert torch.allclose(naive, diffusion_weighted(lambda x, s: any_scores, graph, x, levels, x0=x0))

# %% [markdown]
# There is one more reason to use it. Training runs in float32, with seven digits. Close to the optimum the three terms $s$, $-r\log s$ and $K(r)$ are large and nearly cancel. Write $\delta = \log s - \log r$, the error of
# the log-ratio. The same term is $r\,(e^\delta - 1 - \delta)$, which can be computed without any cancellation. Try an estimate that is off by a tenth of a per cent, for a ratio of 3000:

# %%
r = torch.tensor(3000.0)
u = r.log() + 0.001  # the network's output, float32
exact = score_entropy_term(u.double().exp(), r.double()).item()
three_terms = score_entropy_term(u.exp(), r).item()
assert abs(three_terms / exact - 1) > 0.05

# %%
from sedd_mini.graphs import relative_excess  # e^δ - 1 - δ, as the library computes it

one_term = r * relative_excess(u, r.double().log())
assert abs(one_term / exact - 1) < 1e-4

# %% [markdown]
# ### Mean prediction, seen from here
#
# Chapter 02 trained mean prediction by cross-entropy. tauLDR (Campbell et al. 2022) has another loss for it, a bound on the likelihood. It looks at the forward jumps: when noise moves $x$ to $y$, at rate $Q(y, x)$, the model's reverse rate
# of moving back, $\hat R(x \mid y)$, should be high, and all its other rates low. Up to a constant,
#
# $$L_{\tau LDR} = \mathbb E_{x} \Big[ \sum_{y \ne x} \hat R(y \mid x) - \sum_{y \ne x} Q(y, x) \log \hat R(x \mid y) \Big], \quad
# \hat R(y \mid x) = Q(x, y) \sum_a p_\theta(a \mid x) \frac{p(y|a)}{p(x|a)} .$$
#
# You have seen this. The sum over $a$ is mean prediction's score, and the rest is the implicit form of section 4. So tauLDR's bound **is** score entropy, with the score written as a posterior mean. In numbers: for any two networks the difference to `mean_prediction_elbo`, which
# puts that score into `diffusion_weighted`, must be the same constant.

# %%
from sedd_mini.baselines import mean_prediction_elbo, score_of_mean


def tauldr(logits):
    score = score_of_mean(lambda x, s: logits, tiny.graph, states, torch.full((9,), sigma).double())
    rate = w * score  # R̂(y | x)
    rate_back = rate[neighbours, token, states[..., None]]  # R̂(x | y)
    log_back = torch.where(w > 0, rate_back, 1).log()
    return (E * (rate - w_back * log_back)).sum()


def difference(seed):
    logits = torch.randn(9, 2, 3, generator=torch.Generator().manual_seed(seed)).double()
    elbo = tiny.expected_loss(mean_prediction_elbo, lambda x, s: logits[tiny.index(x)], sigma)
    return (elbo - tauldr(logits)).item()


assert abs(difference(3) - difference(4)) < 1e-12

# %% [markdown]
# What is new in SEDD is thus not the bound. It is that the network may output the ratio itself.

# %% [markdown]
# ## 8. The contest
#
# Score entropy enters the contest of chapter 02: the same spiral, the same network, 800 steps of 256 noisy pairs, the same optimiser. Chapter 02 let each predecessor choose its learning rate from 0.001, 0.005 and 0.025, and all
# three chose the middle. Score entropy gets the same grid, and chooses by its own loss on fresh pairs.

# %%
from functools import partial
from sedd_mini.worlds import toys
from sedd_mini.baselines import score_of_log
from sedd_mini.worlds.toys import PREDECESSORS, Method


def train(method, lr=5e-3, seed=0, **how):
    torch.manual_seed(seed)  # the first weights
    net = toys.PairNet(32, start=method.start)
    how = dict(lr=lr, weighted=method.weighted, seed=seed, **how)
    toys.fit(method.loss, net, graph, noise, world, **how)
    return net

# %%
@torch.no_grad()
def held_out_loss(net):
    x0, t, x = toys.noisy_batch(graph, noise, world, 8192, torch.Generator().manual_seed(99))
    return (noise.rate(t) * diffusion_weighted(net, graph, x, noise.total(t), x0=x0)).mean().item()


ours = Method(diffusion_weighted, score_of_log)
by_lr = {lr: train(ours, lr) for lr in (1e-3, 5e-3, 2.5e-2)}
losses = {lr: held_out_loss(net) for lr, net in by_lr.items()}
best = min(losses, key=losses.get)
print({lr: round(loss, 3) for lr, loss in losses.items()}, "→", best)

# %% [markdown]
# Now four methods, three seeds each. A seed changes the first weights, the data, and the noise.

# %%
methods = {"score entropy": ours, **PREDECESSORS}
scores = {}
for name, method in methods.items():
    nets = [by_lr[best] if method is ours and seed == 0 else
            train(method, best if method is ours else 5e-3, seed) for seed in range(3)]  # fmt: skip
    scores[name] = [partial(method.to_score, net, graph) for net in nets]

# %% [markdown]
# The oracle judges as in chapter 02. *Ratio error*: the root mean square of the error of log-ratios, at nine times $t$ from 0 to 1, and their overall root mean square. *Not positive*: the share of ratios that are negative or zero, at $t = 0$; they have no logarithm, are left out of
# the error, and are cut to zero in sampling. *TV*: the total variation between the exact law of the samples and the world at $\bar\sigma = 0.01$, where training ends.

# %%
t = torch.linspace(0, 1, 9)
sigmas, target = noise.total(t).tolist(), chain.marginal(0.01)
curves, tv = {}, {}
for name, three in scores.items():
    judged = [[toys.ratio_error(score, chain, s) for s in sigmas] for score in three]
    curves[name] = torch.tensor(judged)  # (3, 9, 2): seed, time, (error, share not positive)
    laws = [toys.law_of_samples(score, chain, noise, steps=30) for score in three]
    tv[name] = torch.tensor([total_variation(law, target) for law in laws])

# %%
evaluations = {name: 2 if name == "ratio matching" else 1 for name in methods}
overall = {name: curve[..., 0].square().mean(1).sqrt() for name, curve in curves.items()}
print("mean ± std of three seeds   evaluations   ratio error    not positive   TV")
for name in methods:
    columns = overall[name], curves[name][:, 0, 1], tv[name]
    (e, de), (n, dn), (v, dv) = [(c.mean().item(), c.std().item()) for c in columns]
    cells = f"{e:.2f} ± {de:.2f}    {n:3.0%} ± {dn:.0%}       {v:.3f} ± {dv:.3f}"
    print(f"{name:28}{evaluations[name]:6}        {cells}")

# %%
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.7), width_ratios=[1.5, 1])
colours = dict(zip(methods, [plots.PURPLE, plots.BLUE, plots.ORANGE, plots.GREEN]))
for k, name in enumerate(methods):
    mean, spread = curves[name][..., 0].mean(0), curves[name][..., 0].std(0)
    axes[0].plot(t, mean, "o-", ms=4, color=colours[name], label=name)
    axes[0].fill_between(t, mean - spread, mean + spread, color=colours[name], alpha=0.2, lw=0)
    bar = {"fmt": "o", "capsize": 4, "color": colours[name]}
    axes[1].errorbar(tv[name].mean(), -k, xerr=tv[name].std(), **bar)
axes[0].set(xlabel="time t", ylabel="RMS error of log ratio", ylim=(0, None), title="ratios")
axes[1].set(xlabel="total variation", xlim=(0, None), ylim=(-3.5, 0.5), title="samples")
axes[1].set_yticks([0, -1, -2, -3], methods)
axes[0].legend(fontsize=10);

# %% [markdown]
# *What to see.* Left: the error of the ratios, with a band of one standard deviation over seeds. All methods are good at large $t$; the order at small $t$ is clear. Right: how far the law of the samples is from the truth. The order is the same, but the distances are smaller.
#
# What is better, and what is not, as assertions that hold for each of the three seeds, not only for the mean (but for the last one):

# %%
def clearly_below(numbers, a, b):
    """Every seed of a is below every seed of b."""
    return (numbers[a].max() < numbers[b].min()).item()


assert (curves["score entropy"][..., 1] == 0).all()  # never a negative ratio
assert clearly_below(overall, "score entropy", "concrete score matching")
assert clearly_below(tv, "score entropy", "concrete score matching")
assert clearly_below(overall, "score entropy", "mean prediction")
assert clearly_below(overall, "ratio matching", "score entropy")
assert tv["ratio matching"].mean() < tv["score entropy"].mean()

# %% [markdown]
# - **Against concrete score matching**, which has the same target and the same cost, score entropy is better in everything: no negative ratio, and errors and TV lower by about a third.
# - **Against mean prediction** it has better ratios (0.58 against 0.71). Its samples are better by about as much as the error bars: 0.08 against 0.09. With such short training we would not call that a victory.
# - **Against ratio matching** it **loses**, in this small world: ratio matching has less than half of the error of the ratios, and better samples. It costs twice as many network evaluations here. What if it gets only as many as the others, by half as many steps?

# %%
method = PREDECESSORS["ratio matching"]
half = partial(method.to_score, train(method, steps=400), graph)
error = torch.tensor([toys.ratio_error(half, chain, s)[0] for s in sigmas]).square().mean().sqrt()
half_tv = total_variation(toys.law_of_samples(half, chain, noise, steps=30), target)
print(f"ratio matching, 400 steps: ratio error {error:.2f}, TV {half_tv:.3f}")
assert error < overall["score entropy"].min()

# %% [markdown]
# It keeps better ratios, by a factor of two; in the samples the two are then within an error bar. So in a world of two tokens, ratio matching is the method of choice, and we say so. The reason to prefer score entropy is
# that its cost **does not grow**: one evaluation at any length, where ratio matching needs $L$, 1024 for SEDD's texts.
#
# Last, the promise of section 2. Was it the positive output that helped, or the loss? Here is least squares with an exponential output, at the learning rate of the grid that suits it best (0.001; the two larger ones are worse):

# %%
from sedd_mini.baselines import denoising_concrete_score_matching


def squares_of_exponential(model, graph, x, sigma, x0=None, ratio=None):
    return denoising_concrete_score_matching(lambda x, s: model(x, s).exp(), graph, x, sigma, x0=x0)


net = train(Method(squares_of_exponential, score_of_log), lr=1e-3)
law = toys.law_of_samples(partial(score_of_log, net, graph), chain, noise, steps=30)
exponential_tv = total_variation(law, target)
print(f"least squares with an exponential output: TV {exponential_tv:.2f}")
assert exponential_tv > 2 * tv["score entropy"].mean()

# %% [markdown]
# Positive, and worse than with negative ratios. It is the **loss**.
#
# Finally, the single ratios of score entropy, in the same plot as those of chapter 02, at $\bar\sigma = 0.03$:

# %%
generator = torch.Generator().manual_seed(1)
x0 = chain.sample_data(60, generator)
x = graph.sample_transition(x0, torch.full((60, 1), 0.03), generator)
away = torch.arange(32) != x[..., None]
truth = chain.scores(0.03)[chain.index(x)][away]
fig, axes = plots.plt.subplots(1, 2, figsize=(7.5, 3.7), sharey=True)
for ax, name in zip(axes, ["concrete score matching", "score entropy"]):
    with torch.no_grad():
        found = scores[name][0](x, torch.full((60,), 0.03))[away]
    ax.plot([5e-3, 200], [5e-3, 200], color="#444444", lw=1)
    ax.scatter(truth, found, s=3, alpha=0.35, color=colours[name])
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set(xscale="log", title=name, xlabel="true ratio", yticks=[-100, -1, -0.01, 0, 0.01, 1, 100])
axes[0].set_ylabel("estimated ratio");

# %% [markdown]
# *What to see.* The same target, the same network, the same samples. Nothing lies below zero on the right, and the cloud follows the line down to the small ratios. It is not thin: 800 steps are few.
#
# ## Summary
#
# 1. Losses that are minimised by the mean of a noisy target are Bregman divergences. $F(u) = u\log u$ gives score entropy, $s - r\log s + K(r)$.
# 2. It has a wall at zero; its gradient is that of least squares divided by $s$; with $s = e^u$ it is $s - r$.
# 3. The implicit form needs no ratio but the network at all neighbours; the denoising form needs $x_0$ and one evaluation. All three have the true ratios as their minimiser.
# 4. At equal budgets on the spiral, score entropy beats concrete score matching clearly, and mean prediction in the ratios; ratio matching is better still, at $L$ times the evaluations.
# 5. tauLDR's bound is this loss with the score written as a posterior mean. Why it is a bound at all is chapter 04.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it.
#
# **1. Another wall** (★☆☆, 10 minutes). Which loss does $F(u) = -\log u$ give, when it is used as $D_F(r, s)$ without swapping? It is safe with noisy targets (section 1) and seems to have a wall. What happens if the target is 0, as it often is with the absorbing graph?
#
# ```python
# assert torch.allclose(your_loss(s, r), bregman(convex["-log u"], r, s))
# ```
#
# **2. A biased loss** (★★☆, 10 minutes). Someone divides the denoising loss by its target, "so that all ratios count the same": $s/R - \log s$. It looks harmless. Which ratio does `minimise` find, on the tiny world? Explain it with section 1.
#
# ```python
# assert (minimise(biased, generator) / tiny.scores(sigma) - 1)[w > 0].abs().max() > 0.1
# ```
#
# **3. Implicit, but cheap** (★★☆, 20 minutes). Instead of all neighbours, draw *one* neighbour $y$ of $x$ uniformly, and multiply its term by the number of neighbours. Show that this is unbiased, and compare the standard deviation over samples with that of the denoising loss. How many evaluations would the implicit form need on the absorbing graph?
#
# ```python
# assert abs(estimates.mean() - L_ISE) < 4 * estimates.std() / len(estimates) ** 0.5
# ```
#
# **4. The bound for mean prediction** (★★☆, 15 minutes). Train mean prediction by `mean_prediction_elbo` (weighted) instead of cross-entropy. Does it get better ratios than cross-entropy? Better samples?
#
# ```python
# elbo = Method(mean_prediction_elbo, score_of_mean)
# assert abs(total_variation(your_law, chain.marginal(0.01)) - 0.09) < 0.05
# ```
#
# **5. A family of losses** (★★★, 30 minutes). Take $F_\alpha(u) = u^\alpha / (\alpha(\alpha - 1))$, which joins least squares ($\alpha = 2$) and score entropy ($\alpha \to 1$). Derive the loss with $s = e^u$, train for α = 1.1, 1.25 and 1.5, and plot the ratio error against α. Is score entropy at the best place?

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023, section 3: score entropy and its three forms.
# - A. Banerjee, X. Guo, H. Wang, *On the optimality of conditional expectation as a Bregman predictor*, 2005. The losses minimised by the mean are the Bregman divergences, and no others.
# - C. Meng and others, [*Concrete Score Matching*](https://arxiv.org/abs/2211.00802), 2022. The least-squares ancestor.
# - A. Campbell and others, [*A Continuous Time Framework for Discrete Denoising Models*](https://arxiv.org/abs/2205.14987), 2022. The bound of section 7.
# - J. Benton and others, [*From Denoising Diffusions to Denoising Markov Models*](https://arxiv.org/abs/2211.03595), 2022. A general view, in which score entropy's implicit form is one case.
