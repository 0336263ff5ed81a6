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
# # Solutions to chapter 00
#
# For each exercise: the answer, why it is right, and some answers that the check refuses.

# %% [markdown]
# ## Exercise 1. How surprised, and when?
#
# Hide words with probability $t$, take the surprise at all places, and average it over the hidden ones. Divide by $\ln 2$ to get
# bits. On the page's model the surprise grows with $t$: the fewer words are visible, the harder a hidden one is to guess. At
# $t = 1$ nothing is given, and what remains is the entropy of the frequency of single words.

# %% tags=["solution"]
import math
import torch
import torch.nn.functional as F

MASK = 40


def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    x = torch.where(hidden, MASK, x0)
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")  # (B, L)
    return surprise[hidden].mean() / math.log(2)


# %% tags=["wrong"]
# wrong: nats, not bits
def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    surprise = F.cross_entropy(model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none")
    return surprise[hidden].mean()


# %% tags=["wrong"]
# wrong: an average over all places, where visible words count as 0
def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    surprise = F.cross_entropy(model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none")
    return (surprise * hidden).mean() / math.log(2)


# %% tags=["wrong"]
# wrong: visible words count as well
def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    surprise = F.cross_entropy(model(torch.where(hidden, MASK, x0)).transpose(1, 2), x0, reduction="none")
    return surprise.mean() / math.log(2)


# %% tags=["wrong"]
# wrong: nothing is hidden from the network
def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    surprise = F.cross_entropy(model(x0).transpose(1, 2), x0, reduction="none")
    return surprise[hidden].mean() / math.log(2)


# %% [markdown]
# ## Exercise 2. In order
#
# One place after the other, and one call of the network for each: a text of 32 words costs 32 calls, where `write` makes 16. What
# you gain is that no two words are chosen at the same time.

# %% tags=["solution"]
import torch

MASK = 40


@torch.no_grad()
def write_in_order(model, x):
    for i in range(x.shape[1]):
        chances = model(x)[:, i].softmax(-1)  # (B, N)
        word = torch.multinomial(chances, 1)[:, 0]  # (B,)
        x[:, i] = torch.where(x[:, i] == MASK, word, x[:, i])
    return x


# %% tags=["wrong"]
# wrong: one call for all places
@torch.no_grad()
def write_in_order(model, x):
    word = torch.multinomial(model(x).softmax(-1).flatten(0, 1), 1).view_as(x)
    return torch.where(x == MASK, word, x)


# %% tags=["wrong"]
# wrong: from right to left
@torch.no_grad()
def write_in_order(model, x):
    for i in reversed(range(x.shape[1])):
        word = torch.multinomial(model(x)[:, i].softmax(-1), 1)[:, 0]
        x[:, i] = torch.where(x[:, i] == MASK, word, x[:, i])
    return x


# %% tags=["wrong"]
# wrong: given words are overwritten
@torch.no_grad()
def write_in_order(model, x):
    for i in range(x.shape[1]):
        x[:, i] = torch.multinomial(model(x)[:, i].softmax(-1), 1)[:, 0]
    return x


# %% tags=["wrong"]
# wrong: the most probable word, not a drawn one
@torch.no_grad()
def write_in_order(model, x):
    for i in range(x.shape[1]):
        x[:, i] = torch.where(x[:, i] == MASK, model(x)[:, i].argmax(-1), x[:, i])
    return x


# %% [markdown]
# ## Exercise 3. How many words a step?
#
# Before a step from $t$ to $s$, $tL$ words are hidden on average. A share $(t - s)/t$ of these appears: $tL \cdot (t - s)/t = (t - s) L$,
# the same number in each step. With $t - s$ in the place of $(t - s)/t$ each step would show the same *share* of what is still hidden, the steps would
# show fewer and fewer words, and some would be left hidden at the end.

# %% tags=["solution"]
def shown(L, steps):
    hidden, found = L, []
    for k in range(steps):
        t, s = 1 - k / steps, 1 - (k + 1) / steps
        found.append(hidden * (t - s) / t)
        hidden = hidden - found[-1]
    return found


# %% tags=["wrong"]
# wrong: t − s is not divided by t, so words are left hidden
def shown(L, steps):
    hidden, found = L, []
    for _ in range(steps):
        found.append(hidden / steps)
        hidden = hidden - found[-1]
    return found


# %% tags=["wrong"]
# wrong: what has already appeared is forgotten
def shown(L, steps):
    return [L * (1 / steps) / (1 - k / steps) for k in range(steps)]


# %% tags=["wrong"]
# wrong: the sum so far, instead of each step's share
def shown(L, steps):
    return [L * (k + 1) / steps for k in range(steps)]
