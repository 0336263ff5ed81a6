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
# # Solutions to chapter 12
#
# Cells tagged `wrong` are plausible answers that the checks refuse; they are kept so that a test can try them.

# %% [markdown]
# ## Exercise 1. Your own recipe
#
# You draw a given set of $n$ words with probability $q(n) / \binom Ln$. Its costs shall enter with $\frac1n / \binom Ln$. So $w(n) = \frac{1}{n\, q(n)}$. The uniform $q(n) = 1/L$ gives LLaDA's $L/n$.

# %% tags=["solution"]
import torch


def weights(q):
    n = torch.arange(1, len(q) + 1)
    return 1 / (n * q)

# %% tags=["wrong"]
# The weight of the uniform recipe, whatever q is.
import torch


def weights(q):
    return len(q) / torch.arange(1, len(q) + 1).double()

# %% tags=["wrong"]
# Corrects for q, and forgets that a set of n words has n costs.
import torch


def weights(q):
    return 1 / q

# %% tags=["wrong"]
# Counts the sets twice: the draw already has 1 / binom(L, n).
import math

import torch


def weights(q):
    L = len(q)
    return torch.tensor([1 / (n * math.comb(L, n) * q[n - 1].item()) for n in range(1, L + 1)])

# %% [markdown]
# ## Exercise 2. When do the words appear?
#
# With $n$ words hidden at share $\lambda$, each appears at a time that is uniform on $[0, \lambda]$. The first to appear is the largest of $n$ such times; it lies below $a$ with probability $(a/\lambda)^n$, so it is $\lambda u^{1/n}$. Sorting $L$ uniform numbers gives the same law.

# %% tags=["solution"]
import torch


def appearances(num, L, generator):
    shares, lam = [], torch.ones(num, dtype=torch.float64)
    for n in range(L, 0, -1):
        lam = lam * torch.rand(num, generator=generator, dtype=torch.float64) ** (1 / n)
        shares.append(lam)
    return torch.stack(shares, 1)

# %% tags=["wrong"]
# Forgets that the first of n comes sooner than a single one would.
import torch


def appearances(num, L, generator):
    return torch.rand(num, L, generator=generator, dtype=torch.float64).cumprod(1)

# %% tags=["wrong"]
# Always as if all L words were still hidden.
import torch


def appearances(num, L, generator):
    u = torch.rand(num, L, generator=generator, dtype=torch.float64)
    return (u ** (1 / L)).cumprod(1)

# %% tags=["wrong"]
# The smallest of n uniform numbers instead of the largest.
import torch


def appearances(num, L, generator):
    u, n = torch.rand(num, L, generator=generator, dtype=torch.float64), torch.arange(L, 0, -1)
    return (1 - u ** (1 / n)).cumprod(1)

# %% tags=["wrong"]
# Equal distances: right on average, but the words do not appear independently.
import torch


def appearances(num, L, generator):
    shift = torch.rand(num, 1, generator=generator, dtype=torch.float64)
    return (torch.arange(L - 1, -1, -1) + shift) / L

# %% tags=["wrong"]
# Sorts across the texts too: right at each share, but no text is a path of the chain any more.
import torch


def appearances(num, L, generator):
    u = torch.rand(num, L, generator=generator, dtype=torch.float64)
    return u.sort(1, descending=True).values.sort(0).values

# %% [markdown]
# ## Exercise 3. How many at once?
#
# Sorted, the largest of the first $m$ entropies is the $m$-th, so the bound on the error of the first $m$ is the sum of the first $m - 1$. The last, most uncertain word is free. The sums grow, so we count how many are within the bound; the first one, 0, always is.

# %% tags=["solution"]
import torch


def how_many(entropies, bound):
    ordered = entropies.sort().values
    return int((ordered.cumsum(0) - ordered <= bound + 1e-12).sum())

# %% tags=["wrong"]
# Spends the bound on all entropies: the largest is not taken off.
import torch


def how_many(entropies, bound):
    return max(1, int((entropies.sort().values.cumsum(0) <= bound).sum()))

# %% tags=["wrong"]
# Takes the words as they come.
import torch


def how_many(entropies, bound):
    spent = entropies.cumsum(0) - entropies.cummax(0).values
    return int((spent <= bound + 1e-12).cumprod(0).sum())

# %% tags=["wrong"]
# Compares each entropy with the bound on its own.
import torch


def how_many(entropies, bound):
    return max(1, int((entropies <= bound).sum()))

# %% [markdown]
# ## Exercise 4. The exact likelihood of a sampler
#
# On the way to $x$ the visible words are those of $x$, so the place is known at every step, and $q(x)$ is the product of the probabilities of the words of $x$ there. The orders of other texts do not enter.

# %% tags=["solution"]
import torch


def log_q(guess, x):
    size = guess(x).shape[-1]
    y, total = torch.full_like(x, size), torch.zeros((), dtype=torch.float64)
    for _ in range(len(x)):
        pi = guess(y)  # (L, N)
        best = torch.where(y == size, pi.amax(-1), -1.0)
        place = int((best == best.max()).nonzero()[0, 0])
        total = total + pi[place, x[place]].log()
        y[place] = x[place]
    return total

# %% tags=["wrong"]
# Chooses the place by the word that is written there, which the sampler has not drawn yet.
import torch


def log_q(guess, x):
    size = guess(x).shape[-1]
    y, total = torch.full_like(x, size), torch.zeros((), dtype=torch.float64)
    for _ in range(len(x)):
        of_x = guess(y).gather(1, x[:, None])[:, 0]
        place = int(torch.where(y == size, of_x, -1.0).argmax())
        total = total + of_x[place].log()
        y[place] = x[place]
    return total

# %% tags=["wrong"]
# From left to right.
import torch


def log_q(guess, x):
    size = guess(x).shape[-1]
    y, total = torch.full_like(x, size), torch.zeros((), dtype=torch.float64)
    for place in range(len(x)):
        total = total + guess(y)[place, x[place]].log()
        y[place] = x[place]
    return total

# %% tags=["wrong"]
# All words at once: what follows from the first guess alone.
import torch


def log_q(guess, x):
    pi = guess(torch.full_like(x, guess(x).shape[-1]))
    return pi.gather(1, x[:, None]).log().sum()

# %% tags=["wrong"]
# The least sure place first.
import torch


def log_q(guess, x):
    size = guess(x).shape[-1]
    y, total = torch.full_like(x, size), torch.zeros((), dtype=torch.float64)
    for _ in range(len(x)):
        pi = guess(y)
        place = int(torch.where(y == size, pi.amax(-1), 2.0).argmin())
        total = total + pi[place, x[place]].log()
        y[place] = x[place]
    return total
