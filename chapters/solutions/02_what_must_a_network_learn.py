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
# # Solutions to chapter 02
#
# What must a network learn? Each solution is followed by wrong answers that the check catches.

# %% [markdown]
# ## Exercise 1. The smallest ratio
#
# $p(y|x_0) = (1 - e^{-\bar\sigma})/N$ and $p(x_0|x_0) = e^{-\bar\sigma} + (1 - e^{-\bar\sigma})/N$. Multiply both by $N$:
#
# $$q = \frac{1 - e^{-\bar\sigma}}{1 - e^{-\bar\sigma} + N e^{-\bar\sigma}} .$$
#
# In float32 $e^{-\bar\sigma}$ is exactly 1 for $\bar\sigma = 10^{-9}$, and the difference would be 0. `expm1` computes $e^z - 1$ without this cancellation.

# %% tags=["solution"]
import torch


def q_of(sigma, N):
    moved = -torch.expm1(-sigma)
    return moved / (moved + N * torch.exp(-sigma))

# %% tags=["wrong"]
# The difference cancels at small noise.
import torch


def q_of(sigma, N):
    moved = 1 - torch.exp(-sigma)
    return moved / (moved + N * torch.exp(-sigma))

# %% tags=["wrong"]
# Forgets that a random replacement may be x0 itself.
import torch


def q_of(sigma, N):
    return -torch.expm1(-sigma) / (N * torch.exp(-sigma))

# %% tags=["wrong"]
# The first term of the series: right at small noise only.
def q_of(sigma, N):
    return sigma / N

# %% [markdown]
# ## Exercise 2. The page's sampler is a reverse step
#
# From $1 - e^{-\bar\sigma} = t$ follows $\bar\sigma = -\log(1 - t)$, so $\sigma = d\bar\sigma/dt = 1/(1 - t)$. The rate to the word $y$ is $s_y/(1-t)$, and with $s_y = p_y (1-t)/t$ that is $p_y/t$. A step of length $t - s$ shows
# the word $y$ with probability $p_y\, (t-s)/t$, just as on the page.

# %% tags=["solution"]
def chances(ratios, t, s):
    rate = ratios / (1 - t)  # σ(t) s_y
    return (t - s) * rate

# %% tags=["wrong"]
# The total noise in place of its rate.
import math


def chances(ratios, t, s):
    return (t - s) * -math.log(1 - t) * ratios

# %% tags=["wrong"]
# The rate of the jump without the length of the step.
def chances(ratios, t, s):
    return ratios / (1 - t)

# %% tags=["wrong"]
# The ratios taken for the posterior.
def chances(ratios, t, s):
    return (t - s) / t * ratios

# %% [markdown]
# ## Exercise 3. Pseudo-likelihood for any length
#
# One evaluation for each position. `clone` keeps the caller's `x` as it is.

# %% tags=["solution"]
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    loss = torch.zeros(len(x))
    for i in range(x.shape[1]):
        others = x.clone()
        others[:, i] = hidden
        loss = loss + F.cross_entropy(model(others)[:, i], x[:, i], reduction="none")
    return loss

# %% tags=["wrong"]
# Nothing is hidden: the network copies.
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    return F.cross_entropy(model(x).transpose(1, 2), x, reduction="none").sum(1)

# %% tags=["wrong"]
# Everything is hidden at once: one evaluation, but the others are not seen.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    nothing = torch.full_like(x, hidden)
    return F.cross_entropy(model(nothing).transpose(1, 2), x, reduction="none").sum(1)

# %% tags=["wrong"]
# The copy is made once, so that more and more tokens are hidden.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    loss, others = torch.zeros(len(x)), x.clone()
    for i in range(x.shape[1]):
        others[:, i] = hidden
        loss = loss + F.cross_entropy(model(others)[:, i], x[:, i], reduction="none")
    return loss

# %% tags=["wrong"]
# The mean over positions, not the sum.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    loss = torch.zeros(len(x))
    for i in range(x.shape[1]):
        others = x.clone()
        others[:, i] = hidden
        loss = loss + F.cross_entropy(model(others)[:, i], x[:, i], reduction="none")
    return loss / x.shape[1]

# %% [markdown]
# ## Exercise 4. Who supplies the squares?
#
# The token has moved with probability $m = (1 - e^{-\bar\sigma})(1 - 1/N)$. Then one target is $1/q$ and the other $N - 2$ are 1. Otherwise all $N - 1$ targets are $q$. So
#
# $$\mathbb E \sum_{y \ne x} r_y^2 = (1 - m)(N - 1)\, q^2 + m \left( N - 2 + \frac{1}{q^2} \right),$$
#
# and the share is $m / q^2$ divided by that. At $\bar\sigma = 0.01$ and $N = 32$ it is 0.999997.

# %% tags=["solution"]
import math


def share_of_largest(sigma, N):
    fresh = -math.expm1(-sigma)
    q = fresh / (fresh + N * math.exp(-sigma))
    m = fresh * (1 - 1 / N)
    return m / q**2 / ((1 - m) * (N - 1) * q**2 + m * (N - 2 + 1 / q**2))

# %% tags=["wrong"]
# Counts every replacement as a move.
import math


def share_of_largest(sigma, N):
    m = -math.expm1(-sigma)
    q = m / (m + N * math.exp(-sigma))
    return m / q**2 / ((1 - m) * (N - 1) * q**2 + m * (N - 2 + 1 / q**2))

# %% tags=["wrong"]
# Forgets the targets that are 1.
import math


def share_of_largest(sigma, N):
    fresh = -math.expm1(-sigma)
    q = fresh / (fresh + N * math.exp(-sigma))
    m = fresh * (1 - 1 / N)
    return m / q**2 / ((1 - m) * (N - 1) * q**2 + m / q**2)

# %% tags=["wrong"]
# The share of the targets' sum, without the squares.
import math


def share_of_largest(sigma, N):
    fresh = -math.expm1(-sigma)
    q = fresh / (fresh + N * math.exp(-sigma))
    m = fresh * (1 - 1 / N)
    return m / q / ((1 - m) * (N - 1) * q + m * (N - 2 + 1 / q))

# %% [markdown]
# ## Exercise 5. A cure that cures the wrong number
#
# The derivative $\mathbb E\, w(r)(s - r)$ is zero at
#
# $$s = \frac{\mathbb E\, w(r)\, r}{\mathbb E\, w(r)} .$$
#
# For $w(r) = 1/r$ this is $1 / \mathbb E\,(1/r)$, the harmonic mean: with the numbers of the check 0.14 instead of the true 1.27. Only a weight that does not depend on $r$, given $x$, leaves the minimum at $\mathbb E\, r$
# for every distribution of $r$. But the weight *may depend on the estimate $s$*: a loss whose derivative is $w(s)\,(s - \mathbb E\, r)$ still has its minimum at $\mathbb E\, r$. With $w(s) = 1/s$ it is the score entropy of chapter 03.

# %% tags=["solution"]
def learned(p, r, w):
    return (p * w(r) * r).sum() / (p * w(r)).sum()

# %% tags=["wrong"]
# The mean of r: ignores the weight.
def learned(p, r, w):
    return (p * r).sum()

# %% tags=["wrong"]
# Not divided by the sum of the weights.
def learned(p, r, w):
    return (p * w(r) * r).sum()

# %% tags=["wrong"]
# Divides by weights without probabilities.
def learned(p, r, w):
    return (p * w(r) * r).sum() / w(r).sum()
