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

# %% tags=["wrong"]
# Normalises the ratios: a step with ratios twice as large has the same chances.
def chances(ratios, t, s):
    return (t - s) / t * ratios / ratios.sum()

# %% [markdown]
# ## Exercise 3. Pseudo-likelihood in one call
#
# `repeat` makes new memory, so the caller's `x` stays as it is. The diagonal is used twice: to hide, and to read.

# %% tags=["solution"]
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    B, L = x.shape
    copies = x[:, None].repeat(1, L, 1)  # (B, L, L): copy i of each sequence
    i = torch.arange(L)
    copies[:, i, i] = hidden
    logits = model(copies.flatten(0, 1)).unflatten(0, (B, L))[:, i, i]  # (B, L, S)
    return F.cross_entropy(logits.transpose(1, 2), x, reduction="none").sum(1)

# %% tags=["wrong"]
# One call for each position.
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
# Nothing is hidden in the copies either.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    B, L = x.shape
    i = torch.arange(L)
    logits = model(x.repeat_interleave(L, 0)).unflatten(0, (B, L))[:, i, i]
    return F.cross_entropy(logits.transpose(1, 2), x, reduction="none").sum(1)

# %% tags=["wrong"]
# Everything is hidden at once: one call, but the others are not seen.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    nothing = torch.full_like(x, hidden)
    return F.cross_entropy(model(nothing).transpose(1, 2), x, reduction="none").sum(1)

# %% tags=["wrong"]
# The copies are ordered by position, and read as if ordered by sequence.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    B, L = x.shape
    copies = x.repeat(L, 1, 1)  # (L, B, L)
    i = torch.arange(L)
    copies[i, :, i] = hidden
    logits = model(copies.flatten(0, 1)).unflatten(0, (B, L))[:, i, i]
    return F.cross_entropy(logits.transpose(1, 2), x, reduction="none").sum(1)

# %% tags=["wrong"]
# `expand` shares the memory of the copies: every token is hidden, and x is changed.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    B, L = x.shape
    copies = x[:, None].expand(B, L, L)
    for i in range(L):
        copies[:, i, i] = hidden
    logits = model(copies.flatten(0, 1)).unflatten(0, (B, L)).diagonal(dim1=1, dim2=2)  # (B, S, L)
    return F.cross_entropy(logits, x, reduction="none").sum(1)

# %% tags=["wrong"]
# The mean over positions, not the sum.
import torch
import torch.nn.functional as F


def pseudo_likelihood(model, x, hidden):
    B, L = x.shape
    copies = x[:, None].repeat(1, L, 1)
    i = torch.arange(L)
    copies[:, i, i] = hidden
    logits = model(copies.flatten(0, 1)).unflatten(0, (B, L))[:, i, i]
    return F.cross_entropy(logits.transpose(1, 2), x, reduction="none").mean(1)

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
# A table of all pairs: no memory for N = 50257 (here it gives up before it tries).
import torch
from sedd_mini import UniformGraph


def share_of_largest(sigma, N):
    if N > 10_000:
        raise MemoryError(f"a table of {N} × {N} numbers")
    p = UniformGraph(N).transition_probs(torch.tensor(0), torch.tensor(sigma).double())
    squares = (p[None] ** 2 / p[:, None]).fill_diagonal_(0)
    return (squares[1:, 0].sum() / squares.sum()).item()

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
# ## Exercise 5. A weight that cures, and one that does not
#
# *Part 1.* The derivative $\mathbb E\, w(r)(s - r)$ is zero at
#
# $$s = \frac{\mathbb E\, w(r)\, r}{\mathbb E\, w(r)} .$$
#
# For $w(r) = 1/r$ this is $1 / \mathbb E\,(1/r)$, the harmonic mean: with the numbers of the check 0.14 instead of the true 1.27. Only a weight that does not depend on $r$, given $x$, leaves the minimum at $\mathbb E\, r$
# for every distribution of $r$.
#
# *Part 2.* The mean of the derivative is $w(s)\,(s - \mathbb E\, r)$, negative below $\mathbb E\, r$ and positive above, for every $w(s) > 0$. With $w(s) = 1/s$ the derivative is $1 - r/s$, and
#
# $$\ell(s, r) = s - r \log s .$$
#
# Doubling a ratio costs $r\,(1 - \log 2)$: $10^4$ times as much at 100 as at 0.01. This is the score entropy of chapter 03. ($w(s) = 1/s^2$ gives $\log s + r/s$, the Itakura–Saito distance up to a constant, which counts all ratios alike.)

# %% tags=["solution"]
def learned(p, r, w):
    return (p * w(r) * r).sum() / (p * w(r)).sum()


def loss(s, r):
    return s - r * s.log()

# %% tags=["wrong"]
# Part 1: the mean of r, which ignores the weight.
def learned(p, r, w):
    return (p * r).sum()


def loss(s, r):
    return s - r * s.log()

# %% tags=["wrong"]
# Part 1: not divided by the sum of the weights.
def learned(p, r, w):
    return (p * w(r) * r).sum()


def loss(s, r):
    return s - r * s.log()

# %% tags=["wrong"]
# Part 1: divides by weights without probabilities.
def learned(p, r, w):
    return (p * w(r) * r).sum() / w(r).sum()


def loss(s, r):
    return s - r * s.log()

# %% tags=["wrong"]
# Part 2: squares, which hardly count small ratios.
def learned(p, r, w):
    return (p * w(r) * r).sum() / (p * w(r)).sum()


def loss(s, r):
    return (s - r) ** 2 / 2

# %% tags=["wrong"]
# Part 2: a weight before the square, not before the derivative: the minimum is at √(E r²).
def learned(p, r, w):
    return (p * w(r) * r).sum() / (p * w(r)).sum()


def loss(s, r):
    return (s - r) ** 2 / (2 * s)

# %% tags=["wrong"]
# Part 2: squares of logarithms have their minimum at the geometric mean.
def learned(p, r, w):
    return (p * w(r) * r).sum() / (p * w(r)).sum()


def loss(s, r):
    return (s.log() - (r + 1e-6).log()) ** 2

# %% tags=["wrong"]
# Part 2: the derivative with the wrong sign, so that the mean is a maximum.
def learned(p, r, w):
    return (p * w(r) * r).sum() / (p * w(r)).sum()


def loss(s, r):
    return r * s.log() - s
