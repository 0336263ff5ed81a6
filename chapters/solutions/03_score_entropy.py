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
# # Solutions to chapter 03
#
# Each answer is followed by wrong ones, and what is wrong with them. The checks in the chapter refuse those.

# %% [markdown]
# ## Exercise 1. A biased loss
#
# The derivative of $\mathbb E[s/R - \log s]$ is $\mathbb E[1/R] - 1/s$. It is zero at $s = 1/\mathbb E[1/R]$, the harmonic mean of the target. The loss depends on the target through $1/R$, not linearly through $R$, so it is no Bregman divergence
# with the target in the first place. With MASK noise it is useless: a target of 0 makes it infinite.

# %% tags=["solution"]
def found_by_biased_loss(R, chance):
    return 1 / (chance / R).sum()

# %% tags=["wrong"]
# The mean: what the unbiased loss finds.
def found_by_biased_loss(R, chance):
    return (chance * R).sum()

# %% tags=["wrong"]
# The geometric mean: what the squared error of the logarithms finds.
def found_by_biased_loss(R, chance):
    return (chance * R.log()).sum().exp()

# %% tags=["wrong"]
# Forgets the last step: this is 1/s.
def found_by_biased_loss(R, chance):
    return (chance / R).sum()

# %% [markdown]
# ## Exercise 2. The loss for any rate matrix
#
# The kernel has $x_0$ in its columns, so `kernel[:, x0]` holds $p(\cdot|x_0)$ with the states in front. The weights $Q(x, y)$ are the rates of the jumps *into* $x$, which are the row `Q[x]`. On a symmetric matrix such as the uniform one, rows and columns are the same, and the
# mistake would not show.

# %% tags=["solution"]
import torch


def dwdse(log_s, sigma, rate, Q, x, x0):
    kernel = torch.matrix_exp(sigma * Q)  # (S, S)
    p = kernel[:, x0].movedim(0, -1)  # (B, L, S): p(y | x0)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s + torch.xlogy(r, r) - r
    weight = Q[x].scatter(-1, x[..., None], 0)  # Q(x, y), 0 at y = x
    return rate * (weight * terms).sum(-1)

# %% tags=["wrong"]
# The rates out of x, Q(y, x), in the place of the rates into it.
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[:, x0].movedim(0, -1)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s + torch.xlogy(r, r) - r
    weight = Q.T[x].scatter(-1, x[..., None], 0)
    return rate * (weight * terms).sum(-1)

# %% tags=["wrong"]
# Forgets to leave out y = x.
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[:, x0].movedim(0, -1)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s + torch.xlogy(r, r) - r
    return rate * (Q[x] * terms).sum(-1)

# %% tags=["wrong"]
# The noise rate σ(t) is missing.
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[:, x0].movedim(0, -1)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s + torch.xlogy(r, r) - r
    return (Q[x].scatter(-1, x[..., None], 0) * terms).sum(-1)

# %% tags=["wrong"]
# The sign of the logarithm's term is wrong.
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[:, x0].movedim(0, -1)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() + r * log_s + torch.xlogy(r, r) - r
    return rate * (Q[x].scatter(-1, x[..., None], 0) * terms).sum(-1)

# %% tags=["wrong"]
# K(r) is missing: the minimum of each term is not 0.
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[:, x0].movedim(0, -1)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s
    return rate * (Q[x].scatter(-1, x[..., None], 0) * terms).sum(-1)

# %% tags=["wrong"]
# log 0 at a target of 0.
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[:, x0].movedim(0, -1)
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s + r * (r.log() - 1)
    return rate * (Q[x].scatter(-1, x[..., None], 0) * terms).sum(-1)

# %% tags=["wrong"]
# The kernel's row in the place of its column: p(x0 | y), not p(y | x0).
def dwdse(log_s, sigma, rate, Q, x, x0):
    p = torch.matrix_exp(sigma * Q)[x0]
    r = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - r * log_s + torch.xlogy(r, r) - r
    return rate * (Q[x].scatter(-1, x[..., None], 0) * terms).sum(-1)

# %% [markdown]
# ## Exercise 3. The whole loss, with geometric noise
#
# With $c = \sigma_{\max}/\sigma_{\min}$ the total noise is $\sigma_{\min} c^t$ and its rate is $\bar\sigma \log c$. A replaced word is drawn from all $N$ words, its own included. The closed form is that of section 6: $q$ for all words if the word did not move, and $1/q$ at $x_0$ and 1 elsewhere if it did.

# %% tags=["solution"]
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)  # (B, 1)
    log_c = math.log(10 / 0.01)
    sigma = 0.01 * (t * log_c).exp()
    rate = sigma * log_c
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)  # (B, L, N)

    q = (moved / (moved + N * stayed))[..., None]  # (B, 1, 1)
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# Only moved words count, as with MASK noise.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * (terms.sum(-1) * (x != x0)).sum(-1)

# %% tags=["wrong"]
# The page's noise, σ̄ = -log(1 - t), in the place of the geometric one.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma, rate = -torch.log1p(-t), 1 / (1 - t)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# Total noise σ̄ in the place of its rate σ.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# The rate is missing.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = torch.ones_like(sigma)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# A mean over the places, not a sum.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum(-1).mean(-1)

# %% tags=["wrong"]
# The weight Q(x, y) = 1/N is missing.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms)
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# y = x is in the sum.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = terms / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# The word is always replaced by another one.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, (x0 + 1 + torch.randint(N - 1, x0.shape)) % N, x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# N is missing in q.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# A moved word has q, not 1/q, at the original word.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# A moved word: 1/q at every other word.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, 1 / q)
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# K(R) is missing.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% tags=["wrong"]
# One t for all rows.
import math

import torch


def whole_loss(x0, net):
    t = torch.rand(1, 1).expand(len(x0), 1)
    sigma = 0.01 * 1000**t
    rate = sigma * math.log(1000)
    moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)
    N = net(x0, sigma).shape[-1]
    x = torch.where(torch.rand(x0.shape) < moved, torch.randint(N, x0.shape), x0)
    log_s = net(x, sigma)
    q = (moved / (moved + N * stayed))[..., None]
    y = torch.arange(N)
    R = torch.where((x == x0)[..., None], q, torch.where(y == x0[..., None], 1 / q, 1))
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(y == x[..., None], 0, terms) / N
    return rate[:, 0] * terms.sum((1, 2))

# %% [markdown]
# ## Exercise 4. A reverse sampler for any rates
#
# The row `Q[x]` holds the rates $Q(x, y)$. Reverse jumps go against the forward ones, so the reverse rate of $x \to y$ uses the forward rate of $y \to x$. What is left of the probability stays at $x$. `torch.multinomial` normalises, which scales the sum down to 1 where it exceeds 1.

# %% tags=["solution"]
from itertools import pairwise

import torch


def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()  # (B, L, S)
        p = (t - t_next) * noise.rate(t) * Q[x] * score  # P(x → y)
        p = p.scatter(-1, x[..., None], 0)
        stay = (1 - p.sum(-1, keepdim=True)).clamp(min=0)
        p = p.scatter(-1, x[..., None], stay)
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# The forward rate Q(y, x) of the jump from x to y.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        p = ((t - t_next) * noise.rate(t) * Q.T[x] * score).nan_to_num(0)
        p = p.scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# The noise rate σ(t) is missing.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        p = ((t - t_next) * Q[x] * score).scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# Total noise σ̄(t) in the place of its rate σ(t).
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        p = ((t - t_next) * noise.total(t) * Q[x] * score).scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# Forgets the ratios: every jump that noise can make is undone at the forward rate.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        p = ((t - t_next) * noise.rate(t) * Q[x]).scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# Takes the log-score for the score.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).clamp(min=0)
        p = ((t - t_next) * noise.rate(t) * Q[x] * score).scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# Noise is added after every step: what was revealed is hidden a second time.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        for p in (Q[x] * score, Q.T[x]):
            p = ((t - t_next) * noise.rate(t) * p).nan_to_num(0).scatter(-1, x[..., None], 0)
            p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
            x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# Does not set y = x to 0 before the rest is computed: Q(x, x) < 0 enters the sum.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        p = (t - t_next) * noise.rate(t) * Q[x] * score
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# The rate σ at the step's end, not at its start.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        p = ((t - t_next) * noise.rate(t_next) * Q[x] * score).scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# The score at the step's end, not at its start.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t_next).expand(len(x))).exp()
        p = ((t - t_next) * noise.rate(t) * Q[x] * score).scatter(-1, x[..., None], 0)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% tags=["wrong"]
# Cuts each probability at 1, and does not scale them together.
def reverse_sample(log_score, Q, x, times, noise, generator):
    for t, t_next in pairwise(times):
        score = log_score(x, noise.total(t).expand(len(x))).exp()
        p = ((t - t_next) * noise.rate(t) * Q[x] * score).scatter(-1, x[..., None], 0)
        p = p.clamp(max=1)
        p = p.scatter(-1, x[..., None], (1 - p.sum(-1, keepdim=True)).clamp(min=0))
        x = torch.multinomial(p.flatten(0, 1), 1, generator=generator).view_as(x)
    return x

# %% [markdown]
# ## Exercise 5. A family of losses
#
# With $F'(s) = s^{\alpha-1}/(\alpha-1)$, the divergence $F(r) - F(s) - F'(s)(r - s)$ becomes
#
# $$\frac{r^\alpha - \alpha\, r\, s^{\alpha-1} + (\alpha - 1)\, s^\alpha}{\alpha(\alpha-1)} .$$
#
# At $r = 0$ this is $s^\alpha/\alpha$. The derivative in $\log s$ is $(s - r)\, s^{\alpha - 1}$. The answer to the closing question is $\alpha \to 1$: the factor $s^{\alpha-1}$ disappears in this limit only, which is score entropy.

# %% tags=["solution"]
def alpha_loss(log_s, r, alpha):
    s = log_s.exp()
    top = r**alpha - alpha * r * s ** (alpha - 1) + (alpha - 1) * s**alpha
    return top / (alpha * (alpha - 1))

# %% tags=["wrong"]
# The arguments are swapped: D(s, r), which is infinite or biased for a noisy target.
def alpha_loss(log_s, r, alpha):
    s = log_s.exp()
    top = s**alpha - alpha * s * r ** (alpha - 1) + (alpha - 1) * r**alpha
    return top / (alpha * (alpha - 1))

# %% tags=["wrong"]
# The term F(r) is missing: the minimum is not 0.
def alpha_loss(log_s, r, alpha):
    s = log_s.exp()
    return (-alpha * r * s ** (alpha - 1) + (alpha - 1) * s**alpha) / (alpha * (alpha - 1))

# %% tags=["wrong"]
# Takes log s for s.
def alpha_loss(log_s, r, alpha):
    s = log_s
    top = r**alpha - alpha * r * s ** (alpha - 1) + (alpha - 1) * s**alpha
    return top / (alpha * (alpha - 1))

# %% tags=["wrong"]
# Least squares, whatever alpha is.
def alpha_loss(log_s, r, alpha):
    return (log_s.exp() - r) ** 2 / 2
