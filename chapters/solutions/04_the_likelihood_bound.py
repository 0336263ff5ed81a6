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
# # Solutions to chapter 04
#
# Each answer is followed by wrong ones, and what is wrong with them. The checks in the chapter refuse those.

# %% [markdown]
# ## Exercise 1. Which machine is easier to recognise?
#
# In the integral of section 1, $D(a, b)$ does not depend on $t$, and $\int_0^T e^{-at}\,dt = (1 - e^{-aT})/a$. For the machines of the picture, A brings 0.625 nats an evening and B 1.020 nats. So B is easier to recognise: its long dark times are unlikely under A.

# %% tags=["solution"]
import math


def lamp_kl(a, b, T):
    D = b - a * math.log(b) + a * (math.log(a) - 1)
    return (1 - math.exp(-a * T)) / a * D

# %% tags=["wrong"]
# Counts every moment, also when the lamp is on.
import math


def lamp_kl(a, b, T):
    return T * (b - a * math.log(b) + a * (math.log(a) - 1))

# %% tags=["wrong"]
# KL(B || A): the two machines have changed places.
import math


def lamp_kl(a, b, T):
    return (1 - math.exp(-b * T)) / b * (a - b * math.log(a) + b * (math.log(b) - 1))

# %% tags=["wrong"]
# The lamp stays dark by B's law.
import math


def lamp_kl(a, b, T):
    return (1 - math.exp(-b * T)) / b * (b - a * math.log(b) + a * (math.log(a) - 1))

# %% tags=["wrong"]
# Watches for ever, whatever T is.
import math


def lamp_kl(a, b, T):
    return (b - a * math.log(b) + a * (math.log(a) - 1)) / a

# %% tags=["wrong"]
# The divergence of the ends: is the lamp on?
import math


def lamp_kl(a, b, T):
    p, q = 1 - math.exp(-a * T), 1 - math.exp(-b * T)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))

# %% [markdown]
# ## Exercise 2. Read the evidence off a path
#
# A wait of length $s$ at $x$ has the probability $e^{A(x,x)s}$, with $A(x,x) < 0$. So it brings $(A(x,x) - B(x,x))\,s$, and the last wait ends at $T$. The mean over many paths of A is the formula of section 2.

# %% tags=["solution"]
import math


def path_evidence(jumps, x, A, B, T):
    now, total = 0.0, 0.0
    for time, y in jumps:
        total += (A[x, x] - B[x, x]).item() * (time - now)
        total += math.log(A[y, x] / B[y, x])
        now, x = time, y
    return total + (A[x, x] - B[x, x]).item() * (T - now)

# %% [markdown]
# The mean over 3 000 simulated paths of A agrees with the integral of section 2:

# %%
import torch


def simulate(A, T, generator):
    """The jumps of one path that starts at state 0."""
    now, x, jumps = 0.0, 0, []
    while True:
        u = torch.rand((), generator=generator, dtype=torch.float64).item()
        now += math.log(1 - u) / A[x, x].item()
        if now > T:
            return jumps
        x = torch.multinomial(A[:, x].clamp(min=0), 1, generator=generator).item()
        jumps.append((now, x))


A = torch.tensor([[-2.5, 0.3, 1], [2, -1.3, 0.5], [0.5, 1, -1.5]], dtype=torch.float64)
B = torch.tensor([[-1.4, 1, 1], [0.7, -1.5, 1.5], [0.7, 0.5, -2.5]], dtype=torch.float64)
generator = torch.Generator().manual_seed(0)
values = [path_evidence(simulate(A, 2.0, generator), 0, A, B, 2.0) for _ in range(3000)]
values = torch.tensor(values, dtype=torch.float64)
error = values.std().item() / math.sqrt(3000)
t = (torch.arange(400).double() + 0.5) / 200
p = torch.matrix_exp(t[:, None, None] * A)[:, :, 0].mean(0)  # (3,): mean over the time
D = B - A * B.log() + A * (A.log() - 1)
integral = 2.0 * (D.fill_diagonal_(0).sum(0) @ p).item()
print(f"simulation {values.mean():.3f} ± {error:.3f}, integral {integral:.3f} nats")
assert abs(values.mean() - integral) < 4 * error  # a false alarm in 16 000

# %% tags=["wrong"]
# Forgets the wait after the last jump.
import math


def path_evidence(jumps, x, A, B, T):
    now, total = 0.0, 0.0
    for time, y in jumps:
        total += (A[x, x] - B[x, x]).item() * (time - now) + math.log(A[y, x] / B[y, x])
        now, x = time, y
    return total

# %% tags=["wrong"]
# Rows and columns exchanged: the rate of the jump y -> x.
import math


def path_evidence(jumps, x, A, B, T):
    now, total = 0.0, 0.0
    for time, y in jumps:
        total += (A[x, x] - B[x, x]).item() * (time - now) + math.log(A[x, y] / B[x, y])
        now, x = time, y
    return total + (A[x, x] - B[x, x]).item() * (T - now)

# %% tags=["wrong"]
# The sign of the waits: the diagonal is minus the rate of leaving.
import math


def path_evidence(jumps, x, A, B, T):
    now, total = 0.0, 0.0
    for time, y in jumps:
        total += (B[x, x] - A[x, x]).item() * (time - now) + math.log(A[y, x] / B[y, x])
        now, x = time, y
    return total + (B[x, x] - A[x, x]).item() * (T - now)

# %% tags=["wrong"]
# Takes the wait at the state that the jump leads to.
import math


def path_evidence(jumps, x, A, B, T):
    now, total = 0.0, 0.0
    for time, y in jumps:
        total += math.log(A[y, x] / B[y, x]) + (A[y, y] - B[y, y]).item() * (time - now)
        now, x = time, y
    return total + (A[x, x] - B[x, x]).item() * (T - now)

# %% tags=["wrong"]
# Which state a jump leads to, but not when.
import math


def path_evidence(jumps, x, A, B, T):
    total = 0.0
    for _, y in jumps:
        total += math.log((A[y, x] / A[x, x]) / (B[y, x] / B[x, x]))
        x = y
    return total + (A[x, x] - B[x, x]).item() * T * (not jumps)

# %% [markdown]
# ## Exercise 3. What does an even guess cost?
#
# Section 5 with $\pi_y = 1/N$ and $Z = 1$: a hidden word costs $\frac1t \log N$ and is hidden with probability $t$. Up to $\bar\sigma(1)$, where the share $1 - \delta$ is hidden, the integral is $(1 - \delta)\log N$ a word. The prior term adds $\delta\log N$. The sum is $\log N$ a word, whatever $\delta$ is.

# %% tags=["solution"]
import math


def guess_evenly(x, sigma, N):
    level = -sigma.expm1().log() - math.log(N)  # (B,)
    return level[:, None, None].expand(*x.shape, N + 1)

# %% tags=["wrong"]
# Scores of 1/(e^sigma - 1) for each word: they add up to N times too much.
def guess_evenly(x, sigma, N):
    return (-sigma.expm1().log())[:, None, None].expand(*x.shape, N + 1)

# %% tags=["wrong"]
# Probabilities in the place of ratios.
import math

import torch


def guess_evenly(x, sigma, N):
    return torch.full((*x.shape, N + 1), -math.log(N), dtype=torch.float64)

# %% tags=["wrong"]
# Counts MASK among the words.
import math


def guess_evenly(x, sigma, N):
    level = -sigma.expm1().log() - math.log(N + 1)
    return level[:, None, None].expand(*x.shape, N + 1)

# %% tags=["wrong"]
# The sign of the logarithm.
import math


def guess_evenly(x, sigma, N):
    level = sigma.expm1().log() - math.log(N)
    return level[:, None, None].expand(*x.shape, N + 1)

# %% tags=["wrong"]
# e^sigma in the place of e^sigma - 1.
import math


def guess_evenly(x, sigma, N):
    level = -sigma - math.log(N)
    return level[:, None, None].expand(*x.shape, N + 1)

# %% [markdown]
# ## Exercise 4. Hide k words, not a share t
#
# $\sum_{k=1}^L \frac1k(\dots)$ is $L$ times the mean over $k$ of the *mean* surprise of the hidden words. Nothing is divided by a small number, so no clamp is needed, and a draw is at most $L$ times the largest surprise.

# %% tags=["solution"]
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (B, 1), generator=generator)
    hidden = torch.rand(B, L, generator=generator).argsort(1).argsort(1) < k
    logits = model(torch.where(hidden, MASK, x0))
    surprise = F.cross_entropy(logits.transpose(1, 2), x0, reduction="none")  # (B, L)
    return L * (hidden * surprise).sum(1) / k[:, 0]

# %% tags=["wrong"]
# Forgets 1/k: the sum of the surprises, not their mean.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (B, 1), generator=generator)
    hidden = torch.rand(B, L, generator=generator).argsort(1).argsort(1) < k
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return L * (hidden * surprise).sum(1)

# %% tags=["wrong"]
# The mean surprise of a hidden word: nats a word, not a text.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (B, 1), generator=generator)
    hidden = torch.rand(B, L, generator=generator).argsort(1).argsort(1) < k
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return (hidden * surprise).sum(1) / k[:, 0]

# %% tags=["wrong"]
# Hides each word with probability k/L: the number of hidden words is then another one.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (B, 1), generator=generator)
    hidden = torch.rand(B, L, generator=generator) < k / L
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return L * (hidden * surprise).sum(1) / hidden.sum(1).clamp(min=1)

# %% tags=["wrong"]
# Hides the first k words, not k random ones.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (B, 1), generator=generator)
    hidden = torch.arange(L) < k
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return L * (hidden * surprise).sum(1) / k[:, 0]

# %% tags=["wrong"]
# Counts the visible words, too.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (B, 1), generator=generator)
    hidden = torch.rand(B, L, generator=generator).argsort(1).argsort(1) < k
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return surprise.sum(1)

# %% tags=["wrong"]
# k from 0 to L - 1: the text with all words hidden never occurs.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(L, (B, 1), generator=generator)
    hidden = torch.rand(B, L, generator=generator).argsort(1).argsort(1) < k
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return L * (hidden * surprise).sum(1) / k[:, 0].clamp(min=1)

# %% tags=["wrong"]
# One k for all rows.
import torch
import torch.nn.functional as F


def bound_by_count(model, x0, MASK, generator):
    B, L = x0.shape
    k = torch.randint(1, L + 1, (), generator=generator)
    hidden = torch.rand(B, L, generator=generator).argsort(1).argsort(1) < k
    surprise = F.cross_entropy(
        model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none"
    )
    return L * (hidden * surprise).sum(1) / k

# %% [markdown]
# ## Exercise 5. Draw the noise where it counts
#
# The weight is one over the density of $\bar\sigma$. In cell $k$ the density of $\log\bar\sigma$ is chance divided by width, and that of $\bar\sigma$ is this divided by $\bar\sigma$. A good choice of `height` is the root of the mean square of $\bar\sigma f$ at the level.

# %% tags=["solution"]
import torch


def draw_levels(edges, height, u):
    log = edges.log()
    width = log.diff()  # (K,)
    chance = height * width / (height * width).sum()
    upper = chance.cumsum(0)
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(height) - 1)  # (M,)
    inside = (u - (upper - chance)[k]) / chance[k]  # 0 to 1
    sigma = (log[k] + inside * width[k]).exp()
    return sigma, sigma * width[k] / chance[k]

# %% tags=["wrong"]
# Forgets dσ̄ = σ̄ d log σ̄.
import torch


def draw_levels(edges, height, u):
    log = edges.log()
    width = log.diff()
    chance = height * width / (height * width).sum()
    upper = chance.cumsum(0)
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(height) - 1)
    sigma = (log[k] + (u - (upper - chance)[k]) / chance[k] * width[k]).exp()
    return sigma, width[k] / chance[k]

# %% tags=["wrong"]
# Chances proportional to the heights alone.
import torch


def draw_levels(edges, height, u):
    log = edges.log()
    width = log.diff()
    chance = height / height.sum()
    upper = chance.cumsum(0)
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(height) - 1)
    sigma = (log[k] + (u - (upper - chance)[k]) / chance[k] * width[k]).exp()
    return sigma, sigma * width[k] / chance[k]

# %% tags=["wrong"]
# The levels are even in σ̄ within a cell, not in log σ̄.
import torch


def draw_levels(edges, height, u):
    width = edges.log().diff()
    chance = height * width / (height * width).sum()
    upper = chance.cumsum(0)
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(height) - 1)
    inside = (u - (upper - chance)[k]) / chance[k]
    return edges[k] + inside * edges.diff()[k], edges.diff()[k] / chance[k]

# %% tags=["wrong"]
# Widths in σ̄, not in log σ̄.
import torch


def draw_levels(edges, height, u):
    log = edges.log()
    chance = height * edges.diff() / (height * edges.diff()).sum()
    upper = chance.cumsum(0)
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(height) - 1)
    sigma = (log[k] + (u - (upper - chance)[k]) / chance[k] * log.diff()[k]).exp()
    return sigma, sigma * log.diff()[k] / chance[k]

# %% tags=["wrong"]
# Multiplies by the density where it must divide.
import torch


def draw_levels(edges, height, u):
    log = edges.log()
    width = log.diff()
    chance = height * width / (height * width).sum()
    upper = chance.cumsum(0)
    k = torch.searchsorted(upper, u, right=True).clamp(max=len(height) - 1)
    sigma = (log[k] + (u - (upper - chance)[k]) / chance[k] * width[k]).exp()
    return sigma, sigma * chance[k] / width[k]

# %% tags=["wrong"]
# Fresh random numbers for the place in the cell: sigma does not rise with u.
import torch


def draw_levels(edges, height, u):
    log = edges.log()
    width = log.diff()
    chance = height * width / (height * width).sum()
    k = torch.searchsorted(chance.cumsum(0), u, right=True).clamp(max=len(height) - 1)
    sigma = (log[k] + torch.rand(len(u)).double() * width[k]).exp()
    return sigma, sigma * width[k] / chance[k]
