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
# # Solutions to chapter 13
#
# Cells tagged `wrong` are plausible answers that the checks refuse; they are kept so that a test can try them.

# %% [markdown]
# ## Exercise 1. What the cache saves
#
# With a cache each of the $L/l$ blocks is read $K$ times while it is written, which makes $KL$ tokens, and all blocks but the last are read once more. Without a cache block number $b$ costs $K\,(b + 1)\,l$ tokens; the sum over $b$ is $K\,l\,n(n + 1)/2$ with $n = L/l$ blocks. It grows with $L^2$.

# %% tags=["solution"]
def tokens_read(L, l, K, cache):
    if cache:
        return K * L + L - l
    n = L // l
    return K * l * n * (n + 1) // 2

# %% tags=["wrong"]
# Reads the last block once more, which no other block needs.
def tokens_read(L, l, K, cache):
    n = L // l
    return K * L + L if cache else K * l * n * (n + 1) // 2

# %% tags=["wrong"]
# With a cache a finished block is never read clean: what was kept would be that of a noisy block.
def tokens_read(L, l, K, cache):
    n = L // l
    return K * L if cache else K * l * n * (n + 1) // 2

# %% tags=["wrong"]
# Without a cache, forgets the block that is being written.
def tokens_read(L, l, K, cache):
    n = L // l
    return K * L + L - l if cache else K * l * n * (n - 1) // 2

# %% tags=["wrong"]
# Without a cache, reads the whole text at each call, as full diffusion does.
def tokens_read(L, l, K, cache):
    return K * L + L - l if cache else K * L * (L // l)

# %% [markdown]
# ## Exercise 2. A window in the mask
#
# A clean block that lies `row - column` blocks back may be read if this is at most $w$. A noisy token still reads its own noisy block, and no clean one of its own.

# %% tags=["solution"]
import torch


def window(L, l, w):
    block = torch.arange(L) // l
    back = block[:, None] - block[None]  # how many blocks the read token lies back
    noisy = torch.cat([back == 0, (back > 0) & (back <= w)], 1)
    clean = torch.cat([torch.zeros(L, L).bool(), (back >= 0) & (back <= w)], 1)
    return torch.cat([noisy, clean])

# %% tags=["wrong"]
# One block too few: the own block is counted as one of the w.
import torch


def window(L, l, w):
    block = torch.arange(L) // l
    back = block[:, None] - block[None]
    noisy = torch.cat([back == 0, (back > 0) & (back < w)], 1)
    clean = torch.cat([torch.zeros(L, L).bool(), (back >= 0) & (back <= w)], 1)
    return torch.cat([noisy, clean])

# %% tags=["wrong"]
# A noisy token reads its own clean block, and so the answer.
import torch


def window(L, l, w):
    block = torch.arange(L) // l
    back = block[:, None] - block[None]
    near = (back >= 0) & (back <= w)
    noisy = torch.cat([back == 0, near], 1)
    clean = torch.cat([torch.zeros(L, L).bool(), near], 1)
    return torch.cat([noisy, clean])

# %% tags=["wrong"]
# Counts tokens, not blocks.
import torch


def window(L, l, w):
    place = torch.arange(L)
    block, apart = place // l, place[:, None] - place[None]
    back = block[:, None] - block[None]
    noisy = torch.cat([back == 0, (back > 0) & (apart <= w * l)], 1)
    clean = torch.cat([torch.zeros(L, L).bool(), (back >= 0) & (apart <= w * l)], 1)
    return torch.cat([noisy, clean])

# %% tags=["wrong"]
# The window holds for noisy tokens only; clean ones still read everything before them.
import torch


def window(L, l, w):
    block = torch.arange(L) // l
    back = block[:, None] - block[None]
    noisy = torch.cat([back == 0, (back > 0) & (back <= w)], 1)
    clean = torch.cat([torch.zeros(L, L).bool(), back >= 0], 1)
    return torch.cat([noisy, clean])

# %% [markdown]
# ## Exercise 3. Guidance by hand
#
# The logarithm of the product is $(1 + \gamma)\log p(y \mid \text{label}) - \gamma \log p(y)$. `softmax` takes the largest one off before it exponentiates, so nothing overflows, and $\log 0 = -\infty$ becomes a probability of 0.

# %% tags=["solution"]
import torch


def guided(told, untold, gamma):
    return ((1 + gamma) * told.log() - gamma * untold.log()).softmax(-1)

# %% tags=["wrong"]
# Not normalised.
import torch


def guided(told, untold, gamma):
    return told ** (1 + gamma) / untold**gamma

# %% tags=["wrong"]
# γ instead of 1 + γ: at γ = 0 nothing is left of the label.
import torch


def guided(told, untold, gamma):
    return (gamma * told.log() - gamma * untold.log()).nan_to_num(neginf=-1e9).softmax(-1)

# %% tags=["wrong"]
# A mixture of the probabilities, not of their logarithms.
import torch


def guided(told, untold, gamma):
    mixed = ((1 + gamma) * told - gamma * untold).clamp(min=0)
    return mixed / mixed.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Right, but overflows for a large γ.
import torch


def guided(told, untold, gamma):
    weight = told ** (1 + gamma) / untold**gamma
    return weight / weight.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Clamps the zeros: a level that the label excludes gets a probability again.
import torch


def guided(told, untold, gamma):
    log_p = told.clamp(min=1e-12).log()
    return ((1 + gamma) * log_p - gamma * untold.log()).softmax(-1)

# %% tags=["wrong"]
# Caps γ, so that nothing overflows: the law is another one for a large γ.
import torch


def guided(told, untold, gamma):
    gamma = min(gamma, 100.0)
    return ((1 + gamma) * told.log() - gamma * untold.log()).softmax(-1)

# %% [markdown]
# ## Exercise 4. The loss by count
#
# In one block, the number $n$ of hidden words is drawn from 1 to $l$, then a set of this size; all its costs count, times $l/n$. So a set enters with $\frac1l \big/ \binom ln$ times $\frac ln$, which is $\frac1n \big/ \binom ln$. A block has $2^l - 1$ such sets, where the orders are $l!$.

# %% tags=["solution"]
import itertools
import math


def loss_by_count(cost, L, l):
    total = 0.0
    for start in range(0, L, l):
        for inside in itertools.product([False, True], repeat=l):
            n = sum(inside)
            if n:
                hidden = (False,) * start + inside + (True,) * (L - start - l)
                of_block = sum(cost(hidden)[start : start + l])
                total += of_block / n / math.comb(l, n)
    return total

# %% tags=["wrong"]
# Later blocks are visible: the block is told what comes after it.
import itertools
import math


def loss_by_count(cost, L, l):
    total = 0.0
    for start in range(0, L, l):
        for inside in itertools.product([False, True], repeat=l):
            n = sum(inside)
            if n:
                hidden = (False,) * start + inside + (False,) * (L - start - l)
                total += sum(cost(hidden)[start : start + l]) / n / math.comb(l, n)
    return total

# %% tags=["wrong"]
# The costs of later, hidden blocks count, too.
import itertools
import math


def loss_by_count(cost, L, l):
    total = 0.0
    for start in range(0, L, l):
        for inside in itertools.product([False, True], repeat=l):
            n = sum(inside)
            if n:
                hidden = (False,) * start + inside + (True,) * (L - start - l)
                total += sum(cost(hidden)) / n / math.comb(l, n)
    return total

# %% tags=["wrong"]
# All sets of a block have the same weight.
import itertools


def loss_by_count(cost, L, l):
    total = 0.0
    for start in range(0, L, l):
        for inside in itertools.product([False, True], repeat=l):
            if any(inside):
                hidden = (False,) * start + inside + (True,) * (L - start - l)
                total += sum(cost(hidden)[start : start + l]) / 2 ** (l - 1)
    return total

# %% tags=["wrong"]
# Full diffusion: the sets of the whole text, whatever the block length.
import itertools
import math


def loss_by_count(cost, L, l):
    total = 0.0
    for hidden in itertools.product([False, True], repeat=L):
        n = sum(hidden)
        if n:
            total += sum(cost(hidden)) / n / math.comb(L, n)
    return total

# %% tags=["wrong"]
# The right number, but by all orders: (l!)^(L/l) of them.
import itertools
import math


def loss_by_count(cost, L, l):
    inside = [list(itertools.permutations(range(b, b + l))) for b in range(0, L, l)]
    total = 0.0
    for parts in itertools.product(*inside):
        hidden = [True] * L
        for place in sum(parts, ()):
            total += cost(tuple(hidden))[place]
            hidden[place] = False
    return total / math.factorial(l) ** (L // l)
