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
# # 04. The likelihood bound: may a loss be compared with the truth?
#
# Chapter 03 trained one network on MASK noise and one on uniform noise. We set their losses, 2.74 and 3.18 bits a word, beside the truth of 2.38 bits, which is a log-probability.
# This chapter shows why that is fair: with two small pieces added, the loss is an upper bound on $-\log p$ of the text under the model, for any noise.
#
# After this chapter you will be able to
#
# - derive the Kullback–Leibler divergence of two jump processes, and recognise score entropy in it;
# - derive the **likelihood bound**, say what its gap is, and when it is zero;
# - estimate the bound of a network with an error bar, and name the pieces that are easily left out.
#
# *You need* chapters 01 to 03. *Running time:* about a minute on two CPU cores.

# %% [markdown]
# ## The lines of the page
#
# ```python
#     t = t[:, None].clamp(min=1e-3)
# ...
#     return ((x == MASK) * surprise / t).mean()
# ...
#     bits = loss_of(test).item() / math.log(2)
# ```
#
# Chapter 00 called `bits` an upper bound and promised a proof. Why does the loss divide by $t$? What does the `clamp` do to the number?
# And `loss_of` draws random times and masks: how much of `bits` is chance?

# %% [markdown]
# ## A picture first
#
# Two machines each switch on a lamp once, after a random wait: machine A at rate 2 a second, machine B at rate 0.5. You watch one of them for two seconds, without knowing which.
# Your **evidence** for A is the log-likelihood ratio $\log\,(P_A/P_B)$. Here $P_A$ and $P_B$ are the probabilities that A and B give to what you have seen so far. It falls while the lamp is dark, since B is the slow machine, and rises when the lamp comes on.
#
# *Predict:* you watch machine A on thirty evenings. On how many does the evidence end below zero, against A? Then run the next cell.

# %%
import math

import torch
from sedd_mini import plots

torch.set_num_threads(1)  # networks as small as ours are fastest on one core
plots.use_style()
lam, mu, T = 2.0, 0.5, 2.0  # rates of A and of B, a second; seconds of watching


def evenings(rate, n, seed):
    """When the lamp comes on, (n,) seconds: P(later than s) = exp(-rate s)."""
    u = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return -u.log() / rate

# %% tags=["hide-input"]
#| alt: Left, two state diagrams, dark to lit, at rate 2 and at rate 0.5 a second. Right, evidence
#| for A against time: thirty lines fall from 0 and jump up by 1.4 when the lamp comes on. Five of
#| them end below zero.
def evidence_at(clock, lit):
    seen = torch.as_tensor(clock)
    return ((seen >= lit) * math.log(lam / mu) - (lam - mu) * seen.clamp(max=lit)).numpy()


fig = plots.show_two_lamps((lam, mu), T, evenings(lam, 30, seed=1), evidence_at)

# %% [markdown]
# *What to see.* Each line is one evening with machine A. If the lamp is still dark after 0.92 seconds (probability 16 % with A, section 1), the evidence ends below zero. A **path** is the course of one evening. The mean evidence over many evenings is a divergence between two laws of paths, and so is the likelihood bound.

# %% [markdown]
# ## 1. One jump
#
# Machine A stays dark for a time $s$ with probability $e^{-\lambda s}$ (chapter 01), and comes on within the next short $ds$ with probability $\lambda\,ds$. So "on at $s$" has probability $\lambda e^{-\lambda s}ds$ under A, and $\mu e^{-\mu s}ds$ under B. The evidence is
#
# $$\log\frac{\lambda e^{-\lambda s}}{\mu e^{-\mu s}} = \underbrace{\log\frac\lambda\mu}_{\text{at the jump}} - \underbrace{(\lambda-\mu)\,s}_{\text{while waiting}} .$$
#
# A lamp that stays dark for all $T$ seconds gives $-(\lambda-\mu)\,T$.

# %%
def evidence(s):
    """Nats for A, if the lamp comes on at s; s ≥ T: dark while we watch."""
    jump = torch.where(s < T, math.log(lam / mu), 0.0)
    return jump - (lam - mu) * s.clamp(max=T)

# %% [markdown]
# The mean evidence over evenings with A is the **Kullback–Leibler divergence** $\mathrm{KL}(A\|B)$ of the two laws of paths. We find it by simulation (± is the standard error, section 9):

# %%
sample = evidence(evenings(lam, 400_000, seed=0))
error = sample.std().item() / math.sqrt(len(sample))
print(f"KL(A‖B) by simulation: {sample.mean():.4f} ± {error:.4f} nats")

# %% [markdown]
# The same number follows from one short moment $dt$ in which the lamp is still dark. It comes on with probability $\lambda\,dt$, which brings $\log\frac\lambda\mu$. The wait costs $(\lambda-\mu)\,dt$ in any case. The mean is
#
# $$\Big(\lambda\log\frac\lambda\mu - \lambda + \mu\Big)dt = D(\lambda,\mu)\,dt, \qquad D(a, b) = b - a\log b + a(\log a - 1) .$$
#
# This is **score entropy** of one ratio (chapter 03), with $\lambda$ in the place of the true ratio and $\mu$ in that of the estimate. There $F(u) = u\log u$ was one convex function among many. Here nothing was chosen: the logarithm comes from the jump, and $\mu - \lambda$ from the wait.
#
# A moment counts only if the lamp is still dark, which has probability $e^{-\lambda t}$. We add up the moments:
#
# $$\mathrm{KL}(A\|B) = \int_0^T e^{-\lambda t}\, D(\lambda,\mu)\, dt .$$

# %%
def D(a, b):
    return b - torch.xlogy(a, b) + torch.xlogy(a, a) - a  # where a = 0 it is b


rates = torch.tensor([lam, mu]).double()
t = (torch.arange(4000).double() + 0.5) * T / 4000  # the middles of 4000 short moments
by_moments = (torch.exp(-lam * t) * D(*rates)).mean() * T
print(f"KL(A‖B) moment by moment: {by_moments:.4f} nats")

# %% tags=["hide-cell"]
from sedd_mini.losses import score_entropy_terms

some, other = torch.tensor([2.0, 0.5, 1.0, 0.0]), torch.tensor([0.5, 2.0, 1.0, 0.3])
assert torch.allclose(D(some, other), score_entropy_terms(other.log(), some))
assert D(some, other).min() >= 0 and D(some, other)[2] == 0
assert abs(sample.mean() - by_moments) < 4 * error  # a false alarm in 16 000
assert abs(by_moments - (1 - math.exp(-lam * T)) / lam * D(*rates)) < 1e-6
density, dark_all_along = lam * torch.exp(-lam * t), math.exp(-lam * T)  # all paths of A
assert abs(density.mean() * T + dark_all_along - 1) < 1e-6
by_paths = (density * evidence(t)).mean() * T - dark_all_along * (lam - mu) * T
assert abs(by_paths - by_moments) < 1e-6

# %% [markdown]
# ## 2. Any chain
#
# Let A and B be chains with many states, and $A(y, x)$ and $B(y, x)$ their rates of the jump $x \to y$. A path is a list of waits and jumps, and each brings evidence as before. While a chain of law A is at $x$, each possible jump $x \to y$ adds $D(A(y,x), B(y,x))$ per unit of time to the mean evidence. It is at $x$ with probability $p_t(x)$, so
#
# $$\mathrm{KL}(A\|B) = \mathrm{KL}(\text{starts}) + \int_0^T \sum_x p_t(x) \sum_{y\ne x} D\big(A_t(y,x),\, B_t(y,x)\big)\, dt .$$
#
# The first term compares the starts. (If B excludes a start or a jump that A makes, the sum is infinite.) The rates may depend on $t$, since the argument looked at one moment only. In code, for constant rates and equal starts:

# %%
def path_kl(A, B, p0, T, n=400):
    """KL of the laws of paths of two chains that start from p0 (S,); rates A and B (S, S)."""
    jumps = ~torch.eye(len(A), dtype=torch.bool)
    per_second = torch.where(jumps, D(A, B), 0).sum(0)  # (S,): at each state x
    t = (torch.arange(n).double() + 0.5) * T / n
    p_t = torch.matrix_exp(t[:, None, None] * A) @ p0  # (n, S)
    return (p_t @ per_second).mean().item() * T

# %% tags=["nbval-check-output"]
lamp_A, lamp_B = (torch.tensor([[-rate, 0], [rate, 0]]).double() for rate in (lam, mu))
three_A = torch.tensor([[-2.5, 0.3, 1], [2, -1.3, 0.5], [0.5, 1, -1.5]]).double()
three_B = torch.tensor([[-1.4, 1, 1], [0.7, -1.5, 1.5], [0.7, 0.5, -2.5]]).double()
dark, first = torch.tensor([1.0, 0]).double(), torch.tensor([1.0, 0, 0]).double()
print(f"the lamps {path_kl(lamp_A, lamp_B, dark, T):.3f} nats")
print(f"three states {path_kl(three_A, three_B, first, T):.3f} nats")

# %% [markdown]
# The laboratory checks changing rates and three states.

# %% [markdown]
# ## 3. From paths to their ends
#
# The probability $p_\theta(x_0)$ of a text is about ends of paths. Split a path into its end $z$ and the way $w$ that led there. Its probability is $P(z)\,P(w|z)$. So the evidence is a sum, and so is its mean (the *chain rule*):
#
# $$\underbrace{\mathrm{KL}\big(A(z,w)\,\|\,B(z,w)\big)}_{\text{paths}} = \underbrace{\mathrm{KL}\big(A(z)\,\|\,B(z)\big)}_{\text{ends}} + \underbrace{\mathbb E_{z\sim A}\,\mathrm{KL}\big(A(w|z)\,\|\,B(w|z)\big)}_{\text{the way, given the end}} .$$
#
# The last part is a mean of divergences, so it is not negative. Hence **the divergence of the ends is at most that of the paths** (the *data-processing inequality*). For the lamps, the end says whether the lamp is on, and the way says when it came on.

# %% tags=["nbval-check-output"]
on_A, on_B = 1 - math.exp(-lam * T), 1 - math.exp(-mu * T)
ends = on_A * math.log(on_A / on_B) + (1 - on_A) * math.log((1 - on_A) / (1 - on_B))
when_A, when_B = lam * torch.exp(-lam * t) / on_A, mu * torch.exp(-mu * t) / on_B
way = on_A * (when_A * (when_A / when_B).log()).mean().item() * T  # a dark lamp has one way only
print(f"ends {ends:.3f} + way {way:.3f} = paths {ends + way:.3f} nats")

# %% tags=["hide-input"]
#| alt: Divergence against seconds watched. The curve of whole paths rises to 0.64 nats and stays.
#| The curve of ends rises to 0.48 at one second and falls to nearly 0 at 8 seconds. A dotted line
#| stands at 2 seconds.
watched = torch.linspace(0.01, 8, 300).double()
both = [-torch.expm1(-rate * watched) for rate in (lam, mu)]  # P(on)
of_paths = both[0] / lam * D(*rates)
of_ends = sum(p * (p / q).log() for p, q in (both, [1 - both[0], 1 - both[1]]))
fig, ax = plots.plt.subplots(figsize=(7.5, 3.4))
ax.fill_between(watched, of_ends, of_paths, color="#eeeeee")
for curve, colour in ((of_paths, plots.ORANGE), (of_ends, plots.BLUE)):
    ax.plot(watched, curve, color=colour)
for spot, name, ink in (((5, 0.66), "whole paths", plots.ORANGE), ((2.6, 0.1), "ends", plots.BLUE)):
    ax.annotate(name, spot, color=ink)
ax.annotate("the way, given the end", (4, 0.35), color="#666666")
ax.axvline(T, color="#666666", lw=1, ls=":")
ax.annotate("T = 2, as above", (T - 0.08, 0.04), color="#666666", ha="right")
ax.set(xlabel="seconds watched", ylabel="KL(A ‖ B), nats", ylim=(0, 0.75))
ax.set_title("The end of a path tells less than the path");

# %% tags=["hide-cell"]
assert abs(ends + way - by_moments) < 1e-6 and (of_ends <= of_paths).all()
assert abs(path_kl(lamp_A, lamp_B, dark, T) - by_moments) < 1e-5

# %% [markdown]
# *What to see.* After eight seconds each lamp is on with a probability above 98 %, so the end tells nearly nothing. The height of the grey area at each time is the last part of the equation. For texts this part is the gap of the bound.

# %% [markdown]
# ## 4. The bound
#
# Fix one text $x_0$ and take two laws of paths. A state is a whole text, and a jump changes one word. The clock $\bar\sigma$ runs from the largest noise, $\bar\sigma(1)$, down to 0.
#
# - **Law A, the truth about $x_0$:** add noise to $x_0$, and watch the film backwards. The data is this one $x_0$, so by chapter 01 the reverse jumps have the rates $Q(x, y)\,R_y$ with $R_y = p(y|x_0)/p(x|x_0)$. The paths start at the largest noise, with a draw of $p_{T|0}(\cdot|x_0)$ (the index $T$ means $t = 1$), and all end at $x_0$.
# - **Law B, the model:** the paths start from a draw of a fixed law $p_{\text{base}}$ and jump at the rates $Q(x, y)\,s_\theta(x)_y$. The probability that a path ends at $x$ is called $p_\theta(x)$.
#
# Insert the two into section 3. *Ends:* A ends at $x_0$ with probability 1, so the divergence is $1\cdot\log\frac{1}{p_\theta(x_0)}$. *Paths:* section 2 gives an integral, and the starts give the prior term. Both rates contain $Q(x, y)$, and $D(Qa, Qb) = Q\,D(a, b)$. So
#
# $$\boxed{\;-\log p_\theta(x_0) \;\le\; \underbrace{\int_0^{\bar\sigma(1)} \mathbb E_{x|x_0} \sum_{y\ne x} Q(x,y)\, D\big(R_y,\, s_\theta(x)_y\big)\, d\bar\sigma}_{L_{DWDSE}(x_0)} + \underbrace{\mathrm{KL}\big(p_{T|0}(\cdot|x_0)\,\|\,p_{\text{base}}\big)}_{\text{prior term}}\;}$$
#
# The integral is chapter 03's DWDSE of one text: $d\bar\sigma = \sigma(t)\,dt$. Three choices of chapter 03 are now settled: the function $F(u) = u\log u$, the weight $Q(x, y)$ of a jump, and the factor $\sigma(t)$. Other choices share the minimiser but not the value (section 6 varies all three).
# The negative of the right side is an **evidence lower bound** (ELBO), as in a variational autoencoder. The path is the hidden variable and law A the encoder.

# %% [markdown]
# ## 5. One hidden word, by hand
#
# Take one word, *cat*, and the page's MASK noise: the word is hidden at time $t$ with probability $t$. Watch backwards. A word hidden at $t$ is still hidden at $t - dt$ with probability $(t - dt)/t$, so it **reappears at rate $1/t$**. This is the $1/t$ of the page. Law A jumps from MASK to *cat* at this rate.
#
# The model guesses *cat, dog, owl* with probabilities $\pi$, and its scores are off by a factor $Z$: it jumps to $y$ at rate $Z\pi_y/t$.

# %% tags=["hide-input"]
#| alt: Left, two state diagrams. Law A has one arrow from MASK to cat at rate 1/t. Law B has arrows
#| to cat, dog and owl at 0.7, 0.2 and 0.1 times Z/t. Right, the density of the time when the word
#| reappears: flat for A; for B with Z = 2 it falls from 2 at t = 1 to 0 at t = 0.
plots.show_one_hidden_word((0.7, 0.2, 0.1), Z=2.0);

# %% [markdown]
# *What to see.* Under A the time of reappearing is spread evenly. With $Z = 2$ all rates of the model are doubled, so the word tends to reappear too early.
#
# While the word is hidden, each possible jump adds its $D$ to the mean evidence. For *dog* and *owl*, whose rate under A is 0, this is $D(0, b) = b$:
#
# $$D\Big(\frac1t, \frac{Z\pi_{x_0}}t\Big) + \sum_{y\ne x_0} \frac{Z\pi_y}t = \frac1t\Big(\!-\log\pi_{x_0} + Z - 1 - \log Z\Big) .$$
#
# The word is hidden with probability $t$, which cancels $1/t$. So the integral over $t$ from 0 to 1 is $-\log\pi_{x_0} + (Z - 1 - \log Z)$. For $Z = 1$ this is **the page's cross-entropy**. (In a text of $L$ words each hidden place adds such a term, with the guess given the visible words. The page divides the sum by $L$.) There is no prior term, since both laws start at MASK.
#
# What is $p_\theta(\textit{cat})$? The model leaves MASK sooner or later, and goes to *cat* with probability $\pi_{x_0}$, **whatever $Z > 0$ is**. So the gap of the bound is $Z - 1 - \log Z$. By section 3 it should be the divergence of the ways, here of the times in the picture. The word is hidden at $t$ with probability $t$ under A and $t^Z$ under B (total rate $Z/t$), so the densities of this time are 1 and $Z t^{Z-1}$.

# %% tags=["nbval-check-output"]
pi, Z = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), 2.0
t = (torch.arange(4000).double() + 0.5) / 4000
true_rate, model_rate = 1 / t, Z * pi[:, None] / t  # (4000,), (3, 4000)
per_time = D(true_rate, model_rate[0]) + model_rate[1:].sum(0)
bound = (t * per_time).mean()  # hidden with probability t
times_kl = -(Z * t ** (Z - 1)).log().mean()  # E_A of log 1 / (Z t^(Z-1))
print(f"-log p = {-pi[0].log():.3f}, bound {bound:.3f}, gap {bound + pi[0].log():.3f} nats")
print(f"KL of the times: {times_kl:.3f} nats")

# %% tags=["hide-cell"]
from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.worlds.ctmc import Chain, log_quadrature

one_word = Chain(AbsorbingGraph(3), torch.ones(3).double() / 3)


def too_fast(x, sigma):  # log (Z π_y / (e^σ̄ - 1)), and 0 at MASK
    known = torch.cat([(Z * pi).log(), torch.zeros(1)]) - sigma.expm1().log()[:, None]
    return known[:, None].expand(-1, 1, -1)


assert abs(bound + pi[0].log() - times_kl) < 1e-4 and abs(times_kl - 1 + math.log(2)) < 1e-3
assert abs(one_word.bound(too_fast, 25.0)[0] - bound) < 1e-3
late = torch.tensor([0, 0, 0, 1.0]).double()
assert abs(one_word.reverse_marginal(too_fast, 25.0, late)[0] - pi[0]) < 1e-3

# %% [markdown]
# ## 6. Exact ratios: an equality
#
# Now two words: a world of 8 × 8 pairs, with 90 % of the probability near two rings and 10 % spread evenly. These are 64 texts, so the oracle can sum over everything. We insert the **exact ratios** $s_y = p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$ and start from $p_{\text{base}} = p_T$, the data with all its noise. `Chain.bound` is the right side of the box for every $x_0$ (written with three loops in the laboratory). `log_quadrature` gives levels and weights for its integral.

# %%
from sedd_mini import GeometricNoise, LogLinearNoise
from sedd_mini.worlds.toys import two_token_world

N = 8
p0 = two_token_world("rings", N, floor=0.1)  # (8, 8)
graphs = {"MASK": AbsorbingGraph(N), "uniform": UniformGraph(N)}
noises = {"MASK": LogLinearNoise(), "uniform": GeometricNoise()}
chains = {name: Chain(graph, p0) for name, graph in graphs.items()}
last = torch.tensor(1.0).double()  # t = 1
sigma_max = {name: noise.total(last).item() for name, noise in noises.items()}

# %% tags=["nbval-check-output"]
for name, chain in chains.items():
    log_p_T = chain.marginal(sigma_max[name]).log()
    difference = chain.bound(chain.log_score, sigma_max[name], log_base=log_p_T) + p0.log()
    print(f"{name:8} largest |bound + log p0| of 64 texts: {difference.abs().max():.6f} nats")

# %% [markdown]
# The bound is $-\log p_0(x_0)$ **for every single text**. With exact ratios law B is the noising of the whole data, run backwards. It ends at $x_0$ with probability $p_0(x_0)$. Its paths to $x_0$ are the noisings of $x_0$, as under law A, so the gap is 0.
#
# The integral is *not* zero here, since $R_y$ depends on $x_0$, which no network sees. Let $x_T$ be the noised text at $t = 1$. On average over the data the integral is the conditional entropy $H(x_0|x_T)$, and the prior term is the mutual information of $x_0$ and $x_T$. The sum is the entropy $H(x_0)$. (Checked in a folded cell.)
#
# Now the control, for MASK noise. We change $F$ or the weights $Q(x, y)$, or leave out $\sigma(t)$ (on the page this puts $dt = e^{-\bar\sigma}\,d\bar\sigma$ in the place of $d\bar\sigma$), and keep the exact ratios:

# %%
from sedd_mini.losses import (
    conditional_ratio,
    denoising_score_entropy,
    score_entropy_terms,
    weighted_sum,
)


def other_F(alpha):  # the Bregman divergence of u^α / (α(α - 1)), chapter 03's exercise 5
    def loss(model, graph, x, sigma, x0=None, ratio=None):
        r, s = conditional_ratio(graph, x, sigma, x0), model(x, sigma).exp()
        terms = r**alpha + (alpha - 1) * s**alpha - alpha * r * s ** (alpha - 1)
        return weighted_sum(graph.rates_into(x), terms / (alpha * (alpha - 1)))

    return loss


def doubled_for_even(model, graph, x, sigma, x0=None, ratio=None):
    rates = graph.rates_into(x) * (1 + (torch.arange(graph.num_states) % 2 == 0))
    terms = score_entropy_terms(model(x, sigma), conditional_ratio(graph, x, sigma, x0))
    return weighted_sum(rates, terms)


def without_rate(model, graph, x, sigma, x0=None, ratio=None):  # on the page dt = e^-σ̄ dσ̄
    return denoising_score_entropy(model, graph, x, sigma, x0) * torch.exp(-sigma)

# %% tags=["nbval-check-output"]
def over_all_noise(loss, chain, top):
    nodes = zip(*log_quadrature(1e-12, top, 100))
    return sum(w * chain.expected_loss(loss, chain.log_score, s) for s, w in nodes).item()


entropy = -(p0 * p0.log()).sum().item()
chain, top = chains["MASK"], sigma_max["MASK"]
prior = (p0 * chain.prior_kl(top, chain.marginal(top).log())).sum().item()
choices = {
    "u log u": denoising_score_entropy,
    "u log u, 2 Q(x,y) for even y": doubled_for_even,
    "u^0.5": other_F(0.5), "u^1.5": other_F(1.5), "u log u, without σ(t)": without_rate,
}  # fmt: skip
print(f"entropy of the data {entropy:.3f} nats a text")
found = {name: over_all_noise(loss, chain, top) + prior for name, loss in choices.items()}
for name, value in found.items():
    print(f"{name:28} integral + prior term {value:6.3f}")

# %% tags=["hide-cell"]
for name, chain in chains.items():
    log_p_T = chain.marginal(sigma_max[name]).log()
    difference = chain.bound(chain.log_score, sigma_max[name], log_base=log_p_T) + p0.log()
    assert difference.abs().max() < 1e-6
    x_T = torch.einsum("xa,yb,ab->abxy", *[chain.kernel(sigma_max[name])[:, :N]] * 2, p0)
    unknown = (log_p_T.exp() * log_p_T).sum() - torch.xlogy(x_T, x_T).sum()  # H(x0 | x_T)
    told = (p0 * chain.prior_kl(sigma_max[name], log_p_T)).sum()
    assert abs(unknown + told - entropy) < 1e-9
    integral = over_all_noise(denoising_score_entropy, chain, sigma_max[name])
    assert abs(integral - unknown) < 1e-5
others = [value for name, value in found.items() if name != "u log u"]
assert abs(found["u log u"] - entropy) < 1e-5 and min(abs(v - entropy) for v in others) > 0.5

# %% [markdown]
# Only the first gives the entropy. The last two lie below it, so they are not upper bounds.

# %% [markdown]
# ## 7. A trained network: a bound
#
# A network's ratios are not exact. We train `PairNet` of chapter 02 for 400 steps on each noise, too few on purpose. For MASK noise we subtract the known $\log(e^{\bar\sigma} - 1)$ from the network's output, as in chapter 03.

# %%
from sedd_mini.losses import diffusion_weighted
from sedd_mini.worlds.toys import PairNet, fit


def with_known_factor(net):
    return lambda x, sigma: net(x, sigma) - sigma.expm1().log()[:, None, None]


def train(name, dress):
    torch.manual_seed(0)
    net = PairNet(graphs[name].num_states, width=64)
    loss = lambda net, *args, **kwargs: diffusion_weighted(dress(net), *args, **kwargs)
    fit(loss, net, graphs[name], noises[name], p0, steps=400)
    return dress(net)


models = {"MASK": train("MASK", with_known_factor), "uniform": train("uniform", lambda net: net)}

# %% [markdown]
# In a world this small $p_\theta(x_0)$ can be computed: `Chain.reverse_marginal` solves the master equation of the model's own reverse chain. From here on $p_{\text{base}}$ uses no data: even chances for uniform noise, nearly all MASK for MASK noise (section 8).
#
# *Predict:* bound minus entropy has two parts: $\mathrm{KL}(p_0\|p_\theta)$, as $p_\theta$ is not exactly $p_0$, and the gap. Which is larger?

# %%
@torch.no_grad()
def exact_nll(name, model, steps=300):
    """-log p_θ(x0) for every x0, (N, N)"""
    chain, top = chains[name], sigma_max[name]
    token = chain.graph.limit_log_prob(torch.arange(chain.num_states), top)  # (S,): log p_base
    p_base = token[chain.states].sum(-1).exp()
    return -chain.reverse_marginal(model, top, p_base, steps=steps)[:N, :N].log()


exact = {name: exact_nll(name, model) for name, model in models.items()}
with torch.no_grad():
    bounds = {name: chain.bound(models[name], sigma_max[name]) for name, chain in chains.items()}

# %% tags=["hide-input"]
#| alt: Two panels of 64 dots, the gap between bound and exact value against the exact value. All
#| dots lie above zero. With MASK noise most gaps are below 0.03 nats and the largest is 0.15; with
#| uniform noise they lie between 0.02 and 0.10.
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.5), sharex=True, sharey=True)
for ax, name, colour in zip(axes, chains, (plots.PURPLE, plots.GREEN)):
    ax.axhline(0, color="#444444", lw=1)
    ax.scatter(exact[name], bounds[name] - exact[name], s=26, color=colour, alpha=0.8, lw=0)
    ax.set(xlabel="exact $-\\log p_\\theta(x_0)$, nats", ylim=(-0.01, 0.17))
    gap = (p0 * (bounds[name] - exact[name])).sum()
    ax.set_title(f"{name[0].upper() + name[1:]} noise: the mean gap is {gap:.4f} nats")
axes[0].set_ylabel("bound − exact, nats");

# %%
for name in chains:
    means = [(p0 * values[name]).sum().item() for values in (exact, bounds)]
    rising = f"entropy {entropy:.4f} < exact {means[0]:.4f} < bound {means[1]:.4f}"
    print(f"{name:8} {rising} nats a text")

# %% tags=["hide-cell"]
for name in chains:
    assert (exact_nll(name, models[name], steps=150) - exact[name]).abs().max() < 2e-3
    assert (bounds[name] >= exact[name]).all() and (bounds[name] - exact[name]).max() < 0.2
    means = [(p0 * values[name]).sum().item() for values in (exact, bounds)]
    assert entropy < means[0] < means[1] < entropy + 0.15

# %% [markdown]
# *What to see.* A dot is one text, and likely texts are on the left. No dot lies below zero. On average over $p_0$, exact minus entropy is $\mathrm{KL}(p_0\|p_\theta)$, and bound minus exact is the gap. For these two networks the KL is the larger part with MASK noise (0.0250 nats, gap 0.0045), and the gap with uniform noise (0.0251, KL 0.0179).

# %% [markdown]
# ## 8. Two pieces that are easily left out
#
# **The prior term.** Law A starts from a draw of $p_{T|0}(\cdot|x_0)$, the model from a draw of $p_{\text{base}}$. With uniform noise the two laws agree to many digits. With MASK noise the obvious $p_{\text{base}}$ is all MASK. But under law A a word is still visible with probability $\delta = e^{-\bar\sigma(1)}$ (0.001 with log-linear noise). All MASK excludes that, so the term is infinite.
# We therefore give $p_{\text{base}}$ probability $1 - \delta$ for MASK and $\delta/N$ for each word. The term is then $\delta\log\frac{\delta}{\delta/N} = \delta\log N$ a word.

# %% tags=["nbval-check-output"]
large = AbsorbingGraph(50_257)
top = LogLinearNoise().total(last)
start = large.transition_probs(torch.tensor(17), top)  # (50258,): p(x_T | x0 = 17)
for name, level in (("all MASK", math.inf), ("with δ/N", top.item())):
    log_base = large.limit_log_prob(torch.arange(50_258), level)
    a_word = torch.where(start > 0, start * (start.log() - log_base), 0).sum()
    print(f"p_base {name}: {a_word:.4f} nats a word, {1024 * a_word:.1f} for 1024 words")

# %% [markdown]
# These are eleven nats for 1 024 words of GPT-2's vocabulary. In return the integral stops at $\bar\sigma(1)$ and saves about $\delta\sum_i \text{surprise}_i$, the surprise of each word when all are hidden. The net cost is about $\delta\,(L\log N - \sum_i \text{surprise}_i)$. It is negative for texts of rare words (laboratory).
#
# **The low end of the integral.** Training draws $t$ from $[0.001, 1]$, and geometric noise begins at $\bar\sigma = \sigma_{\min}$, not at 0. Without these levels the number may fall below the truth. With exact ratios it must, since the whole bound is the truth:

# %%
def piece(chain, model, low, high, nodes=100):
    """The part of the integral between two noise levels, for every x0."""
    levels = zip(*log_quadrature(low, high, nodes))
    return sum(weight * chain.loss_by_data(model, sigma) for sigma, weight in levels)


begin = {name: noise.total(torch.tensor(1e-3).double()).item() for name, noise in noises.items()}
missing, kept = {}, {}
for name, chain in chains.items():
    missing[name] = piece(chain, chain.log_score, 1e-12, begin[name])
    rest = piece(chain, chain.log_score, begin[name], sigma_max[name], 200)
    kept[name] = rest + chain.prior_kl(sigma_max[name], chain.marginal(sigma_max[name]).log())
    below = (kept[name] < -p0.log()).sum()
    print(f"{name:8} without σ̄ < {begin[name]:.1e}: {below} of 64 texts below the truth")

# %% tags=["hide-input"]
#| alt: Two panels of the integrand, scaled by the noise level, against the noise level on a log
#| axis. Both are hills, with the top near 1 for MASK noise and near 0.6 for uniform noise. A grey
#| strip on the left, below 0.001 and below 0.0001, marks what training leaves out. It says: almost
#| nothing lies here.
levels = torch.logspace(math.log10(3e-5), 1.3, 90).double().tolist()
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.5), sharey=True)
for ax, name, colour in zip(axes, chains, (plots.PURPLE, plots.GREEN)):
    chain = chains[name]
    curve = [s * (p0 * chain.loss_by_data(chain.log_score, s)).sum().item() for s in levels]
    ax.semilogx(levels, curve, color=colour)
    ax.axvspan(levels[0], begin[name], color="#e9e9e9")
    left_out = (p0 * missing[name]).sum().item()
    ax.text(3.9e-5, 0.1, "almost nothing lies here", color="#555555", rotation=90)
    ax.set(xlabel="total noise σ̄", xlim=(levels[0], levels[-1]), ylim=(0, 1.5))
    title = f"{name[0].upper() + name[1:]} noise: training leaves out {left_out:.4f} nats"
    ax.set_title(title)
axes[0].set_ylabel("nats per factor e of noise");

# %% tags=["hide-cell"]
for name in chains:
    assert torch.allclose(kept[name] + missing[name], -p0.log(), atol=1e-6)
    assert (kept[name] < -p0.log()).all()
assert abs(a_word - large.prior_kl(top)) < 1e-9
assert UniformGraph(50_257).prior_kl(torch.tensor(20.0).double()) < 1e-12

# %% [markdown]
# *What to see.* The height is the integrand times $\bar\sigma$, so equal areas are equal nats. The whole area is the integral of section 6, about 3.55 nats, and the grey piece 0.003 (MASK) and 0.002 nats (uniform).
#
# The page goes up to $t = 1$ and needs no prior term. Its `clamp` leaves out nothing: it moves lower times to 0.001. With exact ratios this makes the number a little too high (with uniform noise, too low: laboratory).

# %% [markdown]
# ## 9. Drawing the integral
#
# For a real network the integral is estimated: draw $t$ evenly, draw $x$, and average $\sigma(t)$ times the integrand. That is the training loss.

# %%
@torch.no_grad()
def draws(model, graph, noise, x0, generator):
    """One draw for each sequence x0 (M, L): σ(t) times the integrand, (M,)."""
    t = torch.rand(len(x0), generator=generator)
    sigma = noise.total(t)
    x = graph.sample_transition(x0, sigma[:, None], generator)
    return noise.rate(t) * diffusion_weighted(model, graph, x, sigma, x0=x0)


graph, noise, model = graphs["uniform"], noises["uniform"], models["uniform"]
texts = torch.cartesian_prod(torch.arange(N), torch.arange(N))  # (64, 2): each text once
values = draws(model, graph, noise, texts.repeat(256, 1), torch.Generator().manual_seed(5))
naive_error = values.std().item() / math.sqrt(len(values))
whole = bounds["uniform"].mean().item()
print(f"16 384 naive draws: {values.mean():.3f} ± {naive_error:.3f}; exact bound {whole:.3f}")
print(f"standard deviation of one draw {values.std():.1f}, largest {values.max():.0f} nats")

# %% [markdown]
# The number after ± is the **standard error**: the standard deviation of one draw, divided by the root of the number of draws. The deviation of one draw is over twice the mean. (All texts count alike here; weighted by $p_0$ the bound was 3.5985.)
#
# The naive estimate lacks $\bar\sigma < \sigma_{\min}$ and the prior term. The library's `likelihood_bound` adds the prior term exactly and spends one draw in eight on small noise. It can **stratify** $t$: one of $n$ values falls in each of $n$ equal intervals. It repeats the estimate (here 64 times) and takes the error bar from the spread. With 16 384 draws in all, as before:

# %%
from sedd_mini import likelihood_bound

for stratified in (False, True):
    report = likelihood_bound(
        model, graph, noise, texts, repeats=64, times_each=4, batch_size=256,
        generator=torch.Generator().manual_seed(6), stratified=stratified,
    )  # fmt: skip
    print(f"stratified {stratified!s:5}: {report.nats:.3f} ± {report.error:.3f} nats a text")

# %% tags=["hide-cell"]
lacking = piece(chains["uniform"], lambda x, s: model(x, s).detach(), 1e-12, noise.sigma_min)
assert abs(values.mean() - (whole - lacking.mean())) < 4 * naive_error
assert abs(report.nats - whole) < 4 * report.error
assert values.std() > 2 * values.mean() and 0.7 < report.error / naive_error < 1.5

# %% [markdown]
# All three error bars have about the same length. In the laboratory, strata pay off on longer texts with this noise. With MASK noise and $t$ down to 0 a naive draw has infinite variance; exercise 4 avoids that.

# %% [markdown]
# ## 10. Two noises, one scale
#
# Two larger networks were trained on the page's language (`checkpoints/`). Here are their bounds for 256 texts.

# %%
import json
from pathlib import Path

from sedd_mini import load_pretrained
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
test = language.sample(256, 32, torch.Generator().manual_seed(1000))
nats_to_bits = 1 / (32 * math.log(2))  # nats a text → bits a word
print(f"truth {-language.log_prob(test).mean() * nats_to_bits:.2f}, guessing {math.log2(40):.2f}")
for name in ("absorb", "uniform"):
    folder = Path("checkpoints") / f"synthetic-{name}"
    parts = load_pretrained(folder)  # network, graph, noise
    report = likelihood_bound(*parts, test, generator=torch.Generator().manual_seed(0))
    long = json.loads((folder / "training.json").read_text())
    print(f"{name:8} {report.bits_per_token:.2f} ± {report.error * nats_to_bits:.2f} bits a word;"
          f" {long['valid_blocks']} other texts: {long['bound_bits_per_token']:.3f} ± "
          f"{long['bound_error_bits_per_token']:.3f}")  # fmt: skip

# %% [markdown]
# Both bounds are close to the truth. (The two networks had different learning rates and numbers of steps, so this does not compare the noises.) The last column is from `training.json`; the truth of 2.38 is for the 256 texts only.
#
# So the answer to the title is: yes, if the bound is whole. On average over the language no model's $-\log p$ is below the truth, and the bound lies above the model's. It may also be compared with the $-\log p$ of another model, such as a left-to-right one, on the same texts. If the bound is lower by more than chance, the diffusion model gives the texts more probability. If it is higher we cannot tell, as the gap is unknown.

# %% [markdown]
# ## What has changed on the page
#
# The page's loss stays: it is the bound for $Z = 1$, up to its `clamp`. The number that the page prints gets an error bar:
#
# ```diff
#  with torch.no_grad():
# -    bits = loss_of(test).item() / math.log(2)
# +    draws = torch.stack([loss_of(test) for _ in range(8)]) / math.log(2)
# +bits, error = draws.mean().item(), draws.std().item() / math.sqrt(8)
#  truth = -language.log_prob(test).mean().item() / L / math.log(2)
# -print(f"{bits:.2f} bits a word; guessing costs {math.log2(N):.2f}, the truth is {truth:.2f}")
# +print(f"at most {bits:.3f} ± {error:.3f} bits a word; the truth is {truth:.3f}")
# ```
#
# Eight draws for the page's seed gave 2.581 ± 0.007 bits (`results/00_page.json`); the truth is 2.383. One draw alone has a standard error of about $0.007\sqrt 8 = 0.02$ bits.
#
# ## Summary
#
# 1. A jump with rate $a$ in one process and $b$ in another adds $D(a, b)$ nats per unit of time to the mean evidence: score entropy. The sum over jumps and times is the KL divergence of the paths.
# 2. The ends have at most this divergence. So $-\log p_\theta(x_0) \le L_{DWDSE}(x_0) + \mathrm{KL}(p_{T|0}(\cdot|x_0)\|p_{\text{base}})$ for every $x_0$ and any network. This settles $F(u) = u\log u$, the weights $Q(x, y)$ and the factor $\sigma(t)$. The page's $1/t$ is the rate at which a hidden word reappears.
# 3. The gap is the divergence of the ways, given the end: 0 for exact ratios with $p_{\text{base}} = p_T$, and $Z - 1 - \log Z$ for one hidden word.
# 4. A whole bound contains the prior term and the noise below the first training time. Without them it can fall below the truth.
# 5. An estimate of the bound needs an error bar. The bound is about the chain in continuous time, not about a sampler with $K$ steps.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1. Which machine is easier to recognise? (★☆☆, 10 minutes)
#
# A lamp comes on once, at rate $a$ under machine A and at rate $b$ under machine B. You watch for $T$ seconds. Write `lamp_kl(a, b, T)`, the divergence $\mathrm{KL}(A\|B)$ of the laws of the paths, without simulation. Then compare $\mathrm{KL}(A\|B)$ with $\mathrm{KL}(B\|A)$ for the machines of the picture: which machine brings more evidence for itself on an average evening?
#
# <details><summary>Hint</summary>
#
# Section 1 has the divergence as an integral over $t$. Only one factor in it depends on $t$.
#
# </details>
#
# [Solution](solutions/04_the_likelihood_bound.ipynb)

# %% tags=["exercise"]
import math


def lamp_kl(a: float, b: float, T: float) -> float:
    """Nats; rates a, b > 0 a second, T > 0 seconds."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("1"):
    for a, b, seconds in ((2.0, 0.5, 2.0), (0.5, 2.0, 2.0), (1.5, 1.0, 0.3), (3.0, 7.0, 20.0)):
        when = (torch.arange(200_000).double() + 0.5) * seconds / 200_000
        path = a * torch.exp(-a * when) * (math.log(a / b) - (a - b) * when)
        wanted = path.mean().item() * seconds + math.exp(-a * seconds) * (b - a) * seconds
        found = float(lamp_kl(a, b, seconds))
        told = f"a = {a}, b = {b}, T = {seconds}: your {found:.4f} is too "
        assert found < wanted + 1e-4, told + "large; which moments count, and under whose law?"
        assert found > wanted - 1e-4, told + "small; is it of paths, and under whose law?"
    assert abs(float(lamp_kl(1.3, 1.3, 2.0))) < 1e-9, "equal machines have divergence 0"

# %% [markdown]
# ### Exercise 2. Read the evidence off a path (★★☆, 20 minutes)
#
# A chain starts at state `x` and is watched until time `T`. `jumps` lists its jumps in order, as (time, new state). Write `path_evidence(jumps, x, A, B, T)`: the logarithm of (the path's probability under rates `A`) / (its probability under rates `B`). `A[y, x]` is the rate of the jump $x \to y$, and each column sums to 0.
#
# <details><summary>Hint</summary>
#
# A chain stays at $x$ for a time $s$ with probability $e^{A(x,x)s}$. There is a wait after the last jump, too.
#
# </details>
#
# [Solution](solutions/04_the_likelihood_bound.ipynb)

# %% tags=["exercise"]
import math

import torch


def path_evidence(jumps, x: int, A: torch.Tensor, B: torch.Tensor, T: float) -> float:
    """jumps: list of (time, new state); A and B (S, S) → nats"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("2"):
    rate_a = [[-2.5, 0.3, 1], [2, -1.3, 0.5], [0.5, 1, -1.5]]
    rate_b = [[-1.4, 1, 1], [0.7, -1.5, 1.5], [0.7, 0.5, -2.5]]
    rate_a, rate_b = (torch.tensor(rows, dtype=torch.float64) for rows in (rate_a, rate_b))
    step_a, step_b = (torch.matrix_exp(1e-4 * rows).log() for rows in (rate_a, rate_b))
    for trace, begin_at, hint in (
        ([], 1, "a path without jumps"),
        ([(0.4, 1)], 0, "one jump"),
        ([(0.2, 2), (0.9, 1), (1.7, 0)], 1, "three jumps"),
    ):
        after = torch.full((20_000,), begin_at)  # the state after each short step
        for moment, new in trace:
            after[round(moment / 1e-4) :] = new
        before = torch.cat([torch.tensor([begin_at]), after[:-1]])
        wanted = (step_a - step_b)[after, before].sum().item()
        yours = float(path_evidence(trace, begin_at, rate_a, rate_b, 2.0))
        told = f"{hint}, {trace} from state {begin_at}: yours {yours:.3f}, in steps {wanted:.3f}"
        assert abs(yours - wanted) < 0.003, told

# %% [markdown]
# ### Exercise 3. What does an even guess cost? (★★☆, 15 minutes)
#
# With MASK noise, let the model guess each of the $N$ words with probability $1/N$ at every hidden place. Show on paper that its whole bound, with the prior term of section 8, is $L\log N$ for every text and every $\bar\sigma(1)$. Then write this model, `guess_evenly(x, sigma, N)`. The oracle computes its bound.
#
# <details><summary>Hint</summary>
#
# The integral is that of section 5, but it ends where the share $1 - \delta$ is hidden, $\delta = e^{-\bar\sigma(1)}$. For the code: chapter 03 writes the score at MASK as $r$ times the guess, $r = 1/(e^{\bar\sigma} - 1)$.
#
# </details>
#
# [Solution](solutions/04_the_likelihood_bound.ipynb)

# %% tags=["exercise"]
import math

import torch


def guess_evenly(x: torch.Tensor, sigma: torch.Tensor, N: int) -> torch.Tensor:
    """x (B, L) with MASK = N, sigma (B,) → log-scores (B, L, N + 1); any number for MASK"""
    raise NotImplementedError

# %% tags=["check"]
import math

import torch
from sedd_mini import AbsorbingGraph
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import Chain

with exercise("3"):
    for size, length in ((3, 1), (5, 2)):
        flat = torch.ones((size,) * length).double() / size**length
        even_chain = Chain(AbsorbingGraph(size), flat)

        def even_model(x, sigma, size=size):
            return guess_evenly(x, sigma, size)

        shown = even_model(even_chain.states, torch.ones(len(even_chain.states)).double())
        fits = (*even_chain.states.shape, size + 1)
        assert shown.shape == fits, f"log-scores of shape {fits}, yours {tuple(shown.shape)}"
        for until in (0.5, 6.0):
            off = even_chain.bound(even_model, until, nodes=80) - length * math.log(size)
            off = off.abs().max().item()
            assert off < 1e-4, f"N = {size}, L = {length}: the bound is off by {off:.3f} nats"

# %% [markdown]
# ### Exercise 4. Hide k words, not a share t (★★☆, 25 minutes)
#
# The page hides each word with probability $t$, divides by $t$, and needs a clamp. Draw the *number* of hidden words instead: $k$ from 1 to $L$, all equally likely, then $k$ random places out of $L$. The page's bound is
#
# $$\int_0^1 \frac1t\, \mathbb E_t \sum_{\text{hidden } i} \text{surprise}_i\; dt = \sum_{k=1}^{L} \frac1k\; \mathbb E_{k\text{ hidden}} \sum_{\text{hidden } i} \text{surprise}_i ,$$
#
# because $\int_0^1 \frac1t \binom Lk t^k (1-t)^{L-k}\, dt = \frac1k$. Write `bound_by_count(model, x0, MASK, generator)`, one unbiased draw of the right side for each row of `x0`, in nats a text. `model(x)` gives logits. The check allows five standard errors of 100 000 draws.
#
# <details><summary>Hint</summary>
#
# The sum over $k$ is $L$ times a mean over $k$. For the places, sort random numbers: `torch.rand(B, L).argsort(1).argsort(1) < k` is true at $k$ random places of each row.
#
# </details>
#
# [Solution](solutions/04_the_likelihood_bound.ipynb)

# %% tags=["exercise"]
import torch


def bound_by_count(model, x0: torch.Tensor, MASK: int, generator) -> torch.Tensor:
    """x0 (B, L), model(x) → logits (B, L, N) → one draw of the bound for each row, (B,)"""
    raise NotImplementedError

# %% tags=["check"]
import itertools

import torch
from sedd_mini.exercises import exercise

with exercise("4"):
    mixer = torch.randn(5, 3, 3, 4, generator=torch.Generator().manual_seed(0)).double()

    def three_words(x):  # any logits (B, 3, 4) that depend on all three words; MASK = 4
        return 2 * sum(mixer[x[:, i], i] for i in range(3))

    for given in ([0, 1, 2], [3, 3, 0]):
        text_, exactly = torch.tensor([given]), 0.0
        for hide_ in itertools.product([False, True], repeat=3):
            gone = torch.tensor([hide_])
            logs = three_words(torch.where(gone, 4, text_)).log_softmax(-1)
            costs = -logs.gather(-1, text_[..., None])[..., 0][gone].sum().item()
            ways = (0, 3, 3, 1)[sum(hide_)]  # how many patterns hide so many words
            exactly += costs / max(sum(hide_), 1) / ways if any(hide_) else 0.0
        source = torch.Generator().manual_seed(1)
        drawn = bound_by_count(three_words, text_.expand(100_000, 3).clone(), 4, source).double()
        assert drawn.shape == (100_000,), f"one draw a row, (B,): yours {tuple(drawn.shape)}"
        assert drawn.isfinite().all(), "not finite: is at least one word hidden in each row?"
        spread = drawn.std() / 100_000**0.5
        assert spread < 0.03, "your draws vary too much; each row needs its own k and places"
        compared = f"your mean is {drawn.mean():.3f} ± {spread:.3f}, the sum is {exactly:.3f}"
        assert abs(drawn.mean() - exactly) < 5 * spread + 1e-6, f"x0 = {given}: {compared}"

# %% [markdown]
# ### Exercise 5. Draw the noise where it counts (★★★, 30 minutes)
#
# Noise levels may be drawn from any positive density, if each value of the integrand is divided by the density. Cut the axis of $\log\bar\sigma$ into $K$ cells with rising `edges` (K + 1,), given as values of $\bar\sigma$. Draw cell $k$ with probability proportional to `height[k]` times its width in $\log\bar\sigma$, and $\log\bar\sigma$ evenly within the cell. Write `draw_levels(edges, height, u)`, which turns uniform numbers `u` (M,) into levels `sigma` (M,) and weights `w` (M,) with
#
# $$\mathbb E\, [\,w\, f(\bar\sigma)\,] = \int f(\bar\sigma)\, d\bar\sigma \quad\text{over all cells.}$$
#
# `sigma` must rise with `u`. (The laboratory says how much the best heights gain.)
#
# <details><summary>Hint 1</summary>
#
# The chances of the cells, summed with `cumsum`, cut $[0, 1]$ into $K$ intervals. `torch.searchsorted` finds the interval of each $u$. The place of $u$ in it is the place of the level in the cell.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# The density of $\log\bar\sigma$ in cell $k$ is its chance divided by its width. And $d\bar\sigma = \bar\sigma\, d\log\bar\sigma$.
#
# </details>
#
# [Solution](solutions/04_the_likelihood_bound.ipynb)

# %% tags=["exercise"]
import torch


def draw_levels(edges: torch.Tensor, height: torch.Tensor, u: torch.Tensor):
    """edges (K + 1,) rising, height (K,) > 0, u (M,) in [0, 1) → sigma (M,), w (M,)"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("5"):
    cuts = torch.tensor([1e-3, 2e-3, 0.1, 0.5, 4.0], dtype=torch.float64)
    even = (torch.arange(200_000).double() + 0.5) / 200_000
    exact_areas = (
        (torch.ones_like, cuts[-1] - cuts[0]), (torch.reciprocal, (cuts[-1] / cuts[0]).log()),
        (torch.exp, cuts[-1].exp() - cuts[0].exp()),
    )  # fmt: skip
    for tall in ([1.0, 1, 1, 1], [0.2, 3, 1, 0.5], [5, 0.01, 0.3, 2]):
        tall = torch.tensor(tall, dtype=torch.float64)
        level, scale = draw_levels(cuts, tall, even)
        assert level.shape == scale.shape == even.shape, "one level and one weight for each u"
        assert level.min() > 0.999e-3 and level.max() < 4.001, "a level is outside of the edges"
        assert (level.diff() > 0).all(), "sigma must rise with u"
        halves = torch.stack([cuts[:-1], (cuts[1:] * cuts[:-1]).sqrt()], 1).flatten()  # of cells
        share = torch.bincount(torch.bucketize(level, halves) - 1, minlength=8).double() / 200_000
        fair = (tall * cuts.log().diff()).repeat_interleave(2)
        fair, share_of_cell = fair / fair.sum(), share.view(4, 2).sum(1)
        assert torch.allclose(share_of_cell, 2 * fair[::2], atol=1e-4), "wrong chances of the cells"
        assert torch.allclose(share, fair, atol=1e-4), "log σ̄ is not even within a cell"
        for f, area in exact_areas:
            mean_ = (scale * f(level)).mean()
            told = f"an integral of {area:.3f} comes out as {mean_:.3f}: look at the weights"
            assert abs(mean_ / area - 1) < 1e-3, told

# %% [markdown]
# ## Laboratory
#
# Optional reading: further checks of the formulas, the gap in general, and what moves an estimate. Read the sections in any order; their cells run from top to bottom.

# %% [markdown]
# ### Units: what is divided by what?
#
# `likelihood_bound` reports nats a text. Divided by the number of words it is nats a word, and by $\log 2$ again bits a word. The exponential of nats a word is the **perplexity**: as many equally likely words would be as hard to guess. Whoever takes nats a text for nats a word is wrong by a factor $L$ in the exponent. Here is the report of section 10's last network:

# %%
print(f"{report.nats:.1f} nats a text of {report.length} words")
print(report)

# %% tags=["hide-cell"]
a_word_of_it = report.nats / report.length
assert math.isclose(report.perplexity, math.exp(a_word_of_it))
assert math.isclose(report.bits_per_token, a_word_of_it / math.log(2))

# %% [markdown]
# ### Weights: can one learn about A by watching B?
#
# Yes. Turned around, the evidence is a *change of measure*: $\mathbb E_A[f] = \mathbb E_B[e^{\text{evidence}} f]$. How often does lamp A come on within half a second? We watch B only, and give each of its evenings the weight $e^{\text{evidence}}$.

# %% tags=["nbval-check-output"]
seen = evenings(mu, 400_000, seed=2)
early = (seen < 0.5).double()
weighed = (evidence(seen).exp() * early).mean().item()
truth_A = 1 - math.exp(-lam / 2)
print(f"B itself {early.mean():.2f}, B weighed {weighed:.2f}, A {truth_A:.2f}")

# %% tags=["hide-cell"]
assert abs(weighed - truth_A) < 0.01

# %% [markdown]
# ### Rates that change: does the formula of section 2 survive?
#
# Let machine A warm up, $\lambda(t) = 2t$, so that it stays dark until $s$ with probability $e^{-s^2}$, and let B have the constant rate 1. A lamp that comes on at $s$ gives the evidence $\log 2s - s^2 + s$.

# %% tags=["nbval-check-output"]
u = torch.rand(400_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
on = (-u.log()).sqrt()
until = on.clamp(max=T)
warm = torch.where(on < T, (2 * until).log(), 0.0) - (until**2 - until)
t = (torch.arange(4000).double() + 0.5) * T / 4000
warm_by_moments = (torch.exp(-(t**2)) * D(2 * t, torch.ones_like(t))).mean() * T
print(f"simulation {warm.mean():.2f}, moment by moment {warm_by_moments:.2f} nats")

# %% tags=["hide-cell"]
assert abs(warm.mean() - warm_by_moments) < 4 * warm.std() / math.sqrt(len(warm))

# %% [markdown]
# ### Many states: is the sum over moments the divergence of the paths?
#
# Look at the two chains with three states only at the times $h, 2h, 3h, \dots$ Such a list of states has a divergence that is a finite sum, without $D$: that of one step, averaged over where the step starts. Rare glances tell less (section 3). As $h$ falls the divergence should rise to that of the whole paths.

# %%
def kl_of_glances(A, B, p0, T, n):
    """KL of what is seen at n equally spaced times."""
    step_A, step_B = (torch.matrix_exp(T / n * M) for M in (A, B))
    kl_step = torch.xlogy(step_A, step_A / step_B).sum(0)  # (S,): of one step from each state
    total, p = 0.0, p0
    for _ in range(n):
        total += (p @ kl_step).item()
        p = step_A @ p
    return total

# %% tags=["nbval-check-output"]
for n in (1, 4, 16, 64, 1024):
    print(f"{n:5} glances: {kl_of_glances(three_A, three_B, first, T, n):.3f} nats")
print(f"  whole paths: {path_kl(three_A, three_B, first, T):.3f} nats")

# %% tags=["hide-cell"]
glances = [kl_of_glances(three_A, three_B, first, T, 2**n) for n in range(13)]
paths = path_kl(three_A, three_B, first, T, n=4000)
assert all(a < b for a, b in zip(glances, glances[1:])) and 0 < paths - glances[-1] < 2e-3

# %% [markdown]
# One glance gives the divergence of the ends. Here it is for paths of other lengths:

# %% tags=["hide-input"]
#| alt: Divergence against the length of the paths. For whole paths it grows in a nearly straight
#| line to 2.3 nats at length 4. For the ends it rises to 0.13 and stays there.
lengths = torch.linspace(0.02, 4, 60).double().tolist()
fig, ax = plots.plt.subplots(figsize=(7.5, 3.2))
for color, name, spot, kl in (
    (plots.ORANGE, "whole paths", (2.2, 1.45), path_kl),
    (plots.BLUE, "ends only", (2.9, 0.27), lambda *which: kl_of_glances(*which, n=1)),
):
    ax.plot(lengths, [kl(three_A, three_B, first, length) for length in lengths], color=color)
    ax.annotate(name, spot, color=color, ha="right")
ax.set(xlabel="length T of the paths", ylabel="KL(A ‖ B), nats", ylim=(0, None))
ax.set_title("The divergence of the paths keeps growing, that of the ends stops at 0.13");

# %% [markdown]
# *What to see.* Both chains soon forget where they began. From then on the divergence of the ends is that of the two stationary distributions. That of the paths grows with every second watched.

# %% [markdown]
# ### Naive sums: does the oracle compute what the box says?
#
# Here is the integrand of the box in three loops, with its own symbols. We compare it with `Chain.loss_by_data`, and the integral plus the prior term with `Chain.bound`. The world has two words of three values. The model is wrong on purpose: exact log-ratios plus something.

# %%
def dwdse_naive(chain, model, x0, sigma):
    """E over x ~ p(·|x0) of Σ_{y≠x} Q(x, y) D(R_y, s_y), at one σ̄"""
    p, Q, total = chain.kernel(sigma), chain.token_rates(), 0.0
    for x in chain.states:
        prob = p[x, x0].prod()
        if prob == 0:
            continue
        log_s = model(x[None], torch.full((1,), sigma, dtype=torch.float64))[0]  # (L, S)
        for i in range(chain.length):
            for y in range(chain.num_states):
                if y != x[i] and Q[x[i], y] > 0:
                    R = p[y, x0[i]] / p[x[i], x0[i]]
                    total += prob * Q[x[i], y] * D(R, log_s[i, y].exp())
    return total


def spoilt(chain):
    wave = 0.3 * torch.sin(torch.arange(chain.num_states))
    return lambda x, sigma: chain.log_score(x, sigma) + wave

# %% tags=["hide-cell"]
nine = torch.rand(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.1
nine_texts = torch.cartesian_prod(torch.arange(3), torch.arange(3))
for small in [Chain(graph, nine / nine.sum()) for graph in (UniformGraph(3), AbsorbingGraph(3))]:
    for level in (0.01, 0.5, 3.0):
        slow = [dwdse_naive(small, spoilt(small), x0, level) for x0 in nine_texts]
        fast = small.loss_by_data(spoilt(small), level).flatten()
        assert torch.allclose(fast, torch.stack(slow), rtol=1e-10)
small, x0 = Chain(UniformGraph(3), nine / nine.sum()), torch.tensor([2, 0])
nodes = zip(*log_quadrature(1e-12, 5.0, 100))
integral = sum(w * dwdse_naive(small, spoilt(small), x0, s) for s, w in nodes)
p_T, log_base = small.kernel(5.0)[small.states, x0].prod(-1), small.marginal(5.0).log()
prior_naive = (p_T * (p_T.log() - log_base.flatten())).sum()
assert abs(integral + prior_naive - small.bound(spoilt(small), 5.0, log_base)[2, 0]) < 1e-6

# %% [markdown]
# The integrands agree to ten digits on both graphs, and the bound, for one text with uniform noise, to within $10^{-6}$ nats. The equality of section 6 also holds beyond two words: here are three words of four values with random probabilities.

# %% tags=["nbval-check-output"]
cube = torch.rand(4, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64) ** 3
cube = (cube + 0.01) / (cube + 0.01).sum()
for graph in (UniformGraph(4), AbsorbingGraph(4)):
    three_words = Chain(graph, cube)
    whole_bound = three_words.bound(three_words.log_score, 8.0, three_words.marginal(8.0).log())
    print(f"{graph}: largest |bound + log p0| {(whole_bound + cube.log()).abs().max():.6f} nats")

# %% tags=["hide-cell"]
assert (whole_bound + cube.log()).abs().max() < 1e-8

# %% [markdown]
# ### The gap in general: is it the divergence of the ways?
#
# Section 5 had one word. In general the model *given that it ends at $x_0$* is a jump process of its own. Let $h(x)$ be the probability that the model's chain, now at $x$, ends at $x_0$. By Bayes' rule a jump $x \to y$ is more frequent by the factor $h(y)/h(x)$ among the paths that end at $x_0$, so the rates are $B(y,x)\,h(y)/h(x)$ (*Doob's h-transform*). At $\bar\sigma = 0$, $h$ is 1 at $x_0$ and 0 elsewhere. Further up it solves $dh/d\bar\sigma = B^\top h$, the *backward equation*: in a short time the chain jumps to $y$ at rate $B(y,x)$, and from there it ends at $x_0$ with probability $h(y)$. Section 2 then gives the divergence of law A from this process.

# %%
def model_rates(chain, model, sigma):
    """B(y, x), the model's reverse rates between whole texts, (n, n)"""
    n = len(chain.states)
    score = model(chain.states, torch.full((n,), sigma, dtype=torch.float64)).double().exp()
    rates = chain.graph.reverse_rates(chain.states, score)  # (n, L, S)
    target = chain.neighbours(chain.states)  # (n, L, S)
    source = torch.arange(n)[:, None, None].expand_as(target)
    return torch.zeros(n, n).double().index_put((target, source), rates, accumulate=True)


@torch.no_grad()
def divergence_of_the_ways(chain, model, x0, top, p_base, steps=300):
    """KL of law A from the model given that it ends at x0, and p_θ(x0)"""
    Q = chain.rate_matrix()
    jumps = (Q.T > 0).fill_diagonal_(False)
    h = torch.nn.functional.one_hot(chain.index(x0), len(Q)).double()
    total, edges = 0.0, torch.logspace(-8, math.log10(top), steps + 1).double().tolist()
    for low, high in zip(edges, edges[1:]):
        middle = math.sqrt(low * high)
        B = model_rates(chain, model, middle)
        p = chain.kernel(middle)[chain.states, x0].prod(-1)  # p(x | x0)
        now = torch.matrix_exp(B.T * (middle - low)) @ h
        a, b = Q.T * p[:, None] / p, B * now[:, None] / now  # (n, n): y, x
        total += (high - low) * (torch.where(jumps, D(a, b), 0) @ p).sum()
        h = torch.matrix_exp(B.T * (high - low)) @ h
    p, p_x0 = chain.kernel(top)[chain.states, x0].prod(-1), (p_base * h).sum()
    return total + (p * (p * p_x0 / (p_base * h)).log()).sum(), p_x0  # the start counts, too

# %%
flat = torch.full((N * N,), 1 / N**2).double()
for x0 in (torch.tensor([0, 0]), torch.tensor([2, 3])):
    found, p_x0 = divergence_of_the_ways(chains["uniform"], models["uniform"], x0, 20.0, flat)
    gap = (bounds["uniform"] - exact["uniform"])[tuple(x0)]
    print(f"text {x0.tolist()}: gap {gap:.4f}, divergence of the ways {found:.4f} nats")
    assert abs(found / gap - 1) < 0.03
    assert abs(-p_x0.log() - exact["uniform"][tuple(x0)]) < 2e-3

# %% [markdown]
# The two computations share only the network, the rates and $D$, and agree to about one per cent.

# %% [markdown]
# ### The start: what does the $p_{\text{base}}$ of section 8 do to one word?
#
# Take section 5's word again, with $Z = 1$, but stop at $\bar\sigma(1) = 4$, so that $\delta = e^{-4}$. The model starts at MASK with probability $1 - \delta$ and ends at *cat* in the share $\pi_{x_0}$ of these cases, or it starts at one of the three words and stays. The integral is $-(1-\delta)\log\pi_{x_0}$. Two ways end at *cat*: through MASK, or there from the start. Under A their probabilities are $1 - \delta$ and $\delta$, and Bayes' rule gives those under B. The gap must be their divergence.

# %% tags=["nbval-check-output"]
delta = math.exp(-4.0)
p_cat = (1 - delta) * pi[0] + delta / 3
its_bound = -(1 - delta) * pi[0].log() + delta * math.log(3)
ways_A = torch.tensor([1 - delta, delta], dtype=torch.float64)
ways_B = torch.stack([(1 - delta) * pi[0], torch.tensor(delta / 3, dtype=torch.float64)]) / p_cat
its_gap = (ways_A * (ways_A / ways_B).log()).sum()
print(f"-log p = {-p_cat.log():.5f}, bound {its_bound:.5f}, gap {its_bound + p_cat.log():.5f}")
print(f"KL of the ways {its_gap:.5f} nats")

# %% tags=["hide-cell"]
def guess_pi(x, sigma):
    known = torch.cat([pi.log(), torch.zeros(1)]) - sigma.expm1().log()[:, None]
    return known[:, None].expand(-1, 1, -1)


assert abs(its_bound + p_cat.log() - its_gap) < 1e-9
assert abs(one_word.bound(guess_pi, 4.0)[0] - its_bound) < 1e-9

# %% [markdown]
# ### The prior term: what does it cost net?
#
# With MASK noise and exact ratios, compare the bound that stops at $\bar\sigma(1)$, prior term included, with the truth $-\log p_0(x_0)$, which is the bound for $\bar\sigma(1) = \infty$. The bound that stops lacks the page's times from $1 - \delta$ to 1. Nearly all words are hidden there, so the integrand is about $\sum_i\text{surprise}_i$, where a word's surprise is $-\log$ of its frequency. Hence section 8's difference, $\delta\,(L\log N - \sum_i\text{surprise}_i)$, up to terms of size $\delta^2$.

# %%
delta = math.exp(-sigma_max["MASK"])
with_prior = chains["MASK"].bound(chains["MASK"].log_score, sigma_max["MASK"])
net = with_prior + p0.log()
surprises = -p0.sum(1).log()[:, None] - p0.sum(0).log()  # (N, N)
claimed = delta * (2 * math.log(N) - surprises)
print(f"prior term {2000 * delta * math.log(N):.2f} thousandths of a nat a text")
mean_net, least, largest = 1000 * (p0 * net).sum(), 1000 * net.min(), 1000 * net.max()
print(f"net cost: on average {mean_net:.2f}, for single texts {least:.2f} to {largest:.2f}")

# %% tags=["hide-cell"]
assert (net - claimed).abs().max() < 1e-5 and net.min() < 0 < net.max()

# %% [markdown]
# The mean net cost is much smaller than the prior term, because the words of this world are nearly equally frequent: each surprise is close to $\log N$. It is negative for texts of rarer words. This does not break the bound: $p_\theta$ with this $p_{\text{base}}$ is another model, which gives rare words a little more probability.

# %% [markdown]
# ### The known factor: what if the network must learn it?
#
# Section 7 subtracted $\log(e^{\bar\sigma} - 1)$ from the network's output for MASK noise. The control: the same network, seed and steps without it.

# %%
plain = train("MASK", lambda net: net)
plain_nll = exact_nll("MASK", plain)
for name, nll in (("with the factor", exact["MASK"]), ("without", plain_nll)):
    total = (-nll).exp().sum()
    print(f"{name:16} exact {(p0 * nll).sum():.3f} nats a text; p_θ adds up to {total:.3f}")
print(f"entropy {entropy:.3f}, nothing learned {2 * math.log(N):.3f}")

# %% tags=["hide-cell"]
assert (-plain_nll).exp().sum() < 0.995 and (-exact["MASK"]).exp().sum() > 0.995
assert (p0 * plain_nll).sum() > (p0 * exact["MASK"]).sum() + 0.1

# %% [markdown]
# Without the factor the network does worse after the same 400 steps, at this one seed and learning rate. Its probabilities of the 64 texts do not add up to 1: the rest is on texts in which a MASK is left at $\bar\sigma \approx 0$.

# %% [markdown]
# ### Clamps: which way do they move the number?
#
# With the schedule of the page, $1 - e^{-\bar\sigma} = t$, and exact ratios we compare two numbers for the times below 0.001: the true piece of the integral over $t$, and 0.001 times its integrand at 0.001 (the clamp).

# %%
small_t = 1e-3
sigma_t = -math.log1p(-small_t)
for name, chain in chains.items():
    true_piece = (p0 * piece(chain, chain.log_score, 1e-12, sigma_t)).sum().item()
    at_clamp = (p0 * chain.loss_by_data(chain.log_score, sigma_t)).sum().item()
    clamped = small_t * at_clamp / (1 - small_t)  # σ(t) = 1 / (1 - t)
    in_thousandths = f"true {1000 * true_piece:.3f}, clamped {1000 * clamped:.3f}"
    print(f"{name:8} {in_thousandths} thousandths of a nat")
    assert (clamped > true_piece) == (name == "MASK")

# %% [markdown]
# The clamp is nearly right for MASK noise, and a little too high. For uniform noise it is too low.

# %% [markdown]
# ### σ_min: which piece of geometric noise is the larger one?
#
# Two pieces are missing below the first training time: $\bar\sigma$ from 0 to $\sigma_{\min} = 10^{-4}$, and $t$ from 0 to 0.001. Training code shows the second, but the first is about a hundred times larger:

# %% tags=["nbval-check-output"]
chain, sigma_min = chains["uniform"], noises["uniform"].sigma_min
below_sigma_min = (p0 * piece(chain, chain.log_score, 1e-12, sigma_min)).sum().item()
below_t = (p0 * piece(chain, chain.log_score, sigma_min, begin["uniform"])).sum().item()
print(f"σ̄ < σ_min: {1000 * below_sigma_min:.2f} thousandths of a nat")
print(f"t < 0.001: {1000 * below_t:.2f}")

# %% [markdown]
# And for GPT-2's vocabulary? Take words drawn evenly and independently. All true ratios are 1, all log-scores 0, and the whole bound must be $\log N = 10.825$ nats a word. The cell also prints the part of it below $\sigma_{\min}$, which training never sees.

# %% tags=["nbval-check-output"]
graph = UniformGraph(50_257)
sigma, weight = (torch.tensor(v).double() for v in log_quadrature(1e-12, 20.0, 100))
log_s, zero = torch.zeros(100, 50_257), torch.zeros(100, dtype=torch.int64)
unmoved, moved = (graph.score_entropy(log_s, sigma, zero, x0).double() for x0 in (zero, zero + 1))
p_moved = -torch.expm1(-sigma) * (1 - 1 / 50_257)
parts = weight * ((1 - p_moved) * unmoved + p_moved * moved)
low_part = parts[sigma < 1e-4].sum().item()
print(f"whole {parts.sum():.3f}, below 1e-4 {low_part:.3f} nats a word, "
      f"{1024 * low_part:.0f} for 1024 words")  # fmt: skip

# %% tags=["hide-cell"]
assert 50 < below_sigma_min / below_t < 150
assert abs(parts.sum() - math.log(50_257)) < 1e-3

# %% [markdown]
# ### Variance: how large are single draws with MASK noise?
#
# A word is hidden with probability about $t$ and then costs its surprise times $1/t$, so the mean square of a naive draw is a multiple of $\int dt/t$. This is infinite if $t$ goes down to 0. Here it is for the even guess, with $t$ from a lowest value to 1.

# %% tags=["nbval-check-output"]
graph, noise = graphs["MASK"], noises["MASK"]
for lowest in (1e-3, 1e-6, 1e-9):
    t, weight = (torch.tensor(v).double() for v in log_quadrature(lowest, 1.0, 200))
    sigma, zero = noise.total(t), torch.zeros(200, dtype=torch.int64)
    even_guess = -(sigma.expm1().log()[:, None] + math.log(N)).expand(-1, N + 1)
    draw = noise.rate(t) * graph.score_entropy(even_guess, sigma, zero + graph.mask_id, zero)
    print(f"t from {lowest:.0e}: mean square {(weight * -torch.expm1(-sigma) * draw**2).sum():.1f}")

# %% [markdown]
# Each factor of 1000 adds the same amount. An estimate with $t$ down to 0 has no finite standard error. `likelihood_bound` covers the lowest levels evenly in $\log\bar\sigma$, where its draws have a bounded size.

# %% [markdown]
# ### Levels: how much would the best density gain?
#
# For independent draws with density $g(\bar\sigma)$ the mean square is $\int m_2/g\, d\bar\sigma$, where $m_2(\bar\sigma)$ is the mean square of the integrand. It is smallest for $g \propto \sqrt{m_2}$. Drawing $t$ evenly is $g \propto 1/\sigma(t)$. We enumerate $m_2$ for the trained model on uniform noise, texts drawn evenly as in section 9, so no draw is needed. Exercise 5 writes the drawing.

# %%
@torch.no_grad()
def mean_square(chain, model, sigma):
    """Of the integrand at σ̄, over all texts alike and x ~ p(·|x0)."""
    data = texts.repeat_interleave(len(chain.states), 0)
    x = chain.states.repeat(len(texts), 1)
    chance = chain.kernel(sigma)[x, data].prod(-1) / len(texts)
    values = diffusion_weighted(model, chain.graph, x, torch.full((len(x),), sigma), x0=data)
    return (chance * values.double() ** 2).sum().item()


sigma, weight = log_quadrature(noises["uniform"].sigma_min, 20.0, 60)
m2 = torch.tensor([mean_square(chains["uniform"], models["uniform"], s) for s in sigma]).double()
sigma, weight = torch.tensor(sigma).double(), torch.tensor(weight).double()
mean = piece(chains["uniform"], lambda x, s: model(x, s).detach(), 1e-4, 20.0).mean()
even_t = math.log(20 / 1e-4) * (weight * sigma * m2).sum() - mean**2
best = (weight * m2.sqrt()).sum() ** 2 - mean**2
print(f"deviation of one draw: even t {even_t.sqrt():.1f}, best density {best.sqrt():.1f} nats")

# %% tags=["hide-cell"]
assert abs(even_t.sqrt() / values.std() - 1) < 0.1 and best < 0.8 * even_t

# %% [markdown]
# The best density shortens the error bar by a factor of 1.4, so half as many draws do.

# %% [markdown]
# ### Error bars: do they cover the truth?
#
# The truth here is the exact bound. How often should an error bar contain it? With eight repeats the standard error is itself estimated from eight numbers, so Student's $t$ with seven degrees of freedom answers: 65 % within one standard error, 91 % within two. We know the exact bound, and count.

# %%
graph, noise, hits = graphs["uniform"], noises["uniform"], torch.zeros(2)
for seed in range(200):
    report = likelihood_bound(
        model, graph, noise, texts, repeats=8, times_each=4, batch_size=256,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    distance = abs(report.nats - whole) / report.error
    hits += torch.tensor([distance < 1, distance < 2])
inside = hits / 200
print(f"of 200 error bars {inside[0]:.0%} reach the exact bound, {inside[1]:.0%} do when doubled")

# %% tags=["hide-cell"]
assert abs(inside[0] - 0.649) < 0.13 and abs(inside[1] - 0.914) < 0.08  # 4 standard errors

# %% [markdown]
# Both shares agree with Student's $t$ to about one standard error (3 % and 2 % with 200 bars). The error bar covers the random $t$ and $x$ only. The choice of the test texts is another source of chance, which it does not include.

# %% [markdown]
# ### Strata: what do they bring, and when?
#
# The variance of a draw has two parts: how the mean at $t$ varies *between* values of $t$, and how draws vary *within* one $t$. Strata remove the first. Over $L$ independent words the means add up to $L m(t)$ and the variances to $L v(t)$. So with many strata the error bar should shrink by the factor $\sqrt{1 + L\,\mathrm{Var}_t(m)/\mathbb E_t(v)}$. One word has few states, and its $m$ and $v$ are plain sums. We measure the factor for texts of independent words, whose exact ratios are those of one word: 64 texts and 64 times make one estimate, and we take the spread of 400 estimates.

# %%
from sedd_mini.evaluate import times
from sedd_mini.losses import training_loss

word_p = torch.softmax(torch.arange(N) / 2.0, 0)


def independent_words(graph, p):
    """The exact model of texts whose words are independent draws from p (N,)"""
    def log_score(x, sigma):
        every = torch.arange(len(p)).expand(len(x), -1)
        log_p = (graph.transition_probs(every, sigma[:, None]) * p[:, None]).sum(1).log()  # (B, S)
        return log_p[:, None] - log_p.gather(1, x)[..., None]
    return log_score


def standard_error(name, L, stratified, groups=50):
    """The spread of 400 estimates, and the relative standard error of this spread"""
    graph, noise, estimates = graphs[name], noises[name], []
    generator, exact_model = torch.Generator().manual_seed(L), independent_words(graph, word_p)
    for _ in range(400 // groups):
        x0 = torch.multinomial(word_p, groups * 64 * L, True, generator=generator).reshape(-1, L)
        t = torch.cat([times(64, generator, stratified) for _ in range(groups)])
        t = 1e-3 + (1 - 1e-3) * t.float()
        one = training_loss(exact_model, graph, noise, x0, t, generator=generator)
        estimates.append(one.reshape(groups, 64).mean(1))
    estimates = torch.cat(estimates)
    fourth = ((estimates - estimates.mean()) / estimates.std()).pow(4).mean().item()
    return estimates.std().item(), math.sqrt((fourth - 1) / (4 * len(estimates)))

# %%
def predicted(name, L):
    graph, noise = graphs[name], noises[name]
    t = 1e-3 + (1 - 1e-3) * (torch.arange(2000).double() + 0.5) / 2000
    sigma, S = noise.total(t), graph.num_states
    x, x0 = (v.expand(len(t), S, N) for v in (torch.arange(S)[:, None], torch.arange(N)))
    log_s = independent_words(graph, word_p.double())(x[:, :, 0], sigma)[:, :, None]
    chance = graph.transition_probs(x0[:, 0], sigma[:, None]).mT * word_p  # (2000, S, N)
    possible = torch.where(chance > 0, x, x0)  # where (x, x0) cannot occur it does not count
    terms = graph.score_entropy(log_s.expand(-1, -1, N, -1), sigma[:, None, None], possible, x0)
    terms = noise.rate(t)[:, None, None] * terms
    m, square = (chance * terms).sum((1, 2)), (chance * terms**2).sum((1, 2))
    return math.sqrt(1 + L * m.var().item() / (square - m**2).mean().item())


def measured(name, L):
    """The factor by which strata shorten the error bar, and its standard error"""
    (plain, off), (short, off_too) = (standard_error(name, L, strata) for strata in (False, True))
    return plain / short, plain / short * math.hypot(off, off_too)


sizes = [8, 32, 128]
narrower = {name: torch.tensor([measured(name, L) for L in sizes]) for name in chains}  # (3, 2)
for name, factors in narrower.items():
    print(f"{name:8}", ", ".join(f"{factor:.2f} ± {e:.2f}" for factor, e in factors.tolist()))

# %% tags=["hide-input"]
#| alt: Left, 16 independent times leave holes and clusters; of 16 stratified ones, one lies in
#| each of 16 strata. Right, the factor by which strata shorten the error bar: with uniform noise
#| it grows with the length of the text, to 5 at 128 words; with MASK noise the line is at 1 and
#| the dots at 1.05 to 1.11.
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.5), width_ratios=[1, 1.3])
t = torch.rand(16, generator=torch.Generator().manual_seed(0))
axes[0].vlines(t, 1.1, 1.5, color=plots.GREY, lw=2)
axes[0].vlines((torch.arange(16) + t) / 16, 0.3, 0.7, color=plots.BLUE, lw=2)
axes[0].vlines(torch.arange(17) / 16, 0.25, 0.75, color=plots.GREY, lw=0.5)
axes[0].text(0, 1.56, "16 independent times", color="#555555")
axes[0].text(0, 0.76, "16 stratified times", color=plots.BLUE)
axes[0].set(xlabel="t", yticks=[], ylim=(0, 2), title="Strata leave no holes")
axes[0].grid(False)
for name, colour, spot in (("MASK", plots.PURPLE, (90, 0.62)), ("uniform", plots.GREEN, (52, 3.9))):
    lengths = torch.logspace(3, 7, 11, base=2).tolist()
    axes[1].plot(lengths, [predicted(name, L) for L in lengths], color=colour, lw=1)
    axes[1].errorbar(sizes, *narrower[name].T, fmt="o", ms=4, capsize=3, color=colour)
    axes[1].annotate(f"{name} noise", spot, color=colour, ha="right")
axes[1].set(xscale="log", xlabel="words in a text", ylim=(0, None))
axes[1].set_ylabel("independent / stratified")
axes[1].set_xticks(sizes, sizes)
axes[1].minorticks_off()
axes[1].set_title("Uniform noise, long texts: shorter error bars");

# %% tags=["hide-cell"]
for name in chains:
    assert abs(narrower[name][-1, 0] / predicted(name, sizes[-1]) - 1) < 0.3

# %% [markdown]
# *What to see.* Dots are measured, with bars of one standard error, and lines are predicted. With uniform noise and the geometric schedule the gain grows with the length. With MASK noise and the log-linear schedule the prediction is 1, no gain, and the dots (1.05, 1.11 and 1.11) lie within one and a half standard errors of it.
#
# The prediction explains this case: with independent words the mean at every $t$ is the entropy of the words, since a word is hidden with probability proportional to $t$ and then costs its surprise times $1/t$. So nothing varies between times, and strata have nothing to remove.

# %% [markdown]
# ### Schedules: do they change the bound?
#
# The bound is an integral over $\bar\sigma$, so two schedules with the same end give the same bound for one model. Their *draws* differ. The model of section 7 with MASK noise, at equal draws:

# %%
schedules = {"log-linear": LogLinearNoise(), "geometric": GeometricNoise(1e-4, -math.log(1e-3))}
exact_bound = bounds["MASK"].mean().item()
print(f"exact {exact_bound:.3f}")
for name, noise in schedules.items():
    report = likelihood_bound(
        models["MASK"], graphs["MASK"], noise, texts, repeats=64, times_each=16, batch_size=1024,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    print(f"{name:10} {report.nats:.3f} ± {report.error:.3f} nats a text")
    assert abs(report.nats - exact_bound) < 5 * report.error

# %% [markdown]
# Both agree with the exact bound. The geometric draws scatter a little less here, but an error bar from 64 repeats is itself uncertain by a tenth, so this may be chance.

# %% [markdown]
# ### Samplers: does a tight bound mean good samples?
#
# Not with few steps. Take exact ratios on uniform noise: the gap is 0. A sampler takes $K$ steps, evenly spaced in $\log\bar\sigma$, the last one down to 0. In each step every word draws its new value from its own exact law given the present pair (`tweedie_probs`, chapter 08), all at the same time. The law of what comes out can be computed.

# %%
def sampler_law(chain, levels):
    """The exact law (S, S) of a sampler of pairs that steps down through these levels."""
    p = chain.marginal(levels[0]).flatten()
    for high, low in zip(levels, levels[1:]):
        step = torch.tensor(high - low, dtype=torch.float64)
        probs = chain.graph.tweedie_probs(chain.states, chain.scores(high), step)  # (n, 2, S)
        p = torch.einsum("n,na,nb->ab", p, probs[:, 0], probs[:, 1]).flatten()
    return p.reshape(N, N)

# %% tags=["nbval-check-output"]
divergences = []
for K in (1, 4, 16, 64):
    levels = [*torch.logspace(math.log10(8), -2, K).double().tolist(), 0.0]
    law = sampler_law(chains["uniform"], levels)
    divergences.append((p0 * (p0 / law).log()).sum().item())
    print(f"{K:3} steps: KL(data ‖ samples) = {divergences[-1]:.4f} nats; gap of the bound: 0")

# %% tags=["hide-cell"]
assert all(a > b > 0 for a, b in zip(divergences, divergences[1:]))

# %% [markdown]
# The ratios and the bound are the same in all four lines, and the samples range from poor to nearly perfect. (A sampler that draws all pairs evenly would be 0.603 nats away.) The bound of this chapter is about the chain in continuous time. A sampler with $K$ steps has an ELBO of its own, as in Ho et al. (2020) for Gaussian noise, and Campbell et al. (2022) bound the error that finite steps add.

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023, section 3.3 and theorem 3.6: the bound, with the proof by path measures in the appendix.
# - A. Campbell and others, [*A Continuous Time Framework for Discrete Denoising Models*](https://arxiv.org/abs/2205.14987), 2022. The same bound for mean prediction, and bounds on the error of a sampler with finite steps.
# - J. Ho, A. Jain, P. Abbeel, [*Denoising Diffusion Probabilistic Models*](https://arxiv.org/abs/2006.11239), 2020. The evidence lower bound of diffusion with Gaussian noise.
# - P. Brémaud, *Point Processes and Queues*, 1981. Changes of measure for jump processes, with the care that we left out.
# - T. Cover, J. Thomas, *Elements of Information Theory*, chapter 2. The chain rule and the data-processing inequality.
# - S. Sahoo and others, [*Simple and Effective Masked Diffusion Language Models*](https://arxiv.org/abs/2406.07524), and J. Shi and others, [*Simplified and Generalized Masked Diffusion for Discrete Data*](https://arxiv.org/abs/2406.04329), 2024. Later: with MASK noise and a normalised head the bound is the page's weighted cross-entropy, the same for every schedule.
# - J. Ou and others, [*Your Absorbing Discrete Diffusion Secretly Models the Conditional Distributions of Clean Data*](https://arxiv.org/abs/2406.03736), 2024. Later: the bound as a mean over orders of the words, which exercise 4 comes close to; chapter 12.
