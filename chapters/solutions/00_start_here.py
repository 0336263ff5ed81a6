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
# $t = 1$ nothing is given, and what remains is the entropy of the frequencies of single words, about 4.9 bits.

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
    x = torch.where(hidden, MASK, x0)
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")
    return surprise[hidden].mean()


# %% tags=["wrong"]
# wrong: an average over all places, where visible words count as 0
def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    x = torch.where(hidden, MASK, x0)
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")
    return (surprise * hidden).mean() / math.log(2)


# %% tags=["wrong"]
# wrong: visible words count as well
def bits_at(model, x0, t):
    hidden = torch.rand(x0.shape) < t
    x = torch.where(hidden, MASK, x0)
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")
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
    x = x.clone()
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
    x = x.clone()
    for i in reversed(range(x.shape[1])):
        word = torch.multinomial(model(x)[:, i].softmax(-1), 1)[:, 0]
        x[:, i] = torch.where(x[:, i] == MASK, word, x[:, i])
    return x


# %% tags=["wrong"]
# wrong: given words are overwritten
@torch.no_grad()
def write_in_order(model, x):
    x = x.clone()
    for i in range(x.shape[1]):
        x[:, i] = torch.multinomial(model(x)[:, i].softmax(-1), 1)[:, 0]
    return x


# %% tags=["wrong"]
# wrong: the guess for the place before, as GPT's outputs are shifted
@torch.no_grad()
def write_in_order(model, x):
    x = x.clone()
    for i in range(x.shape[1]):
        word = torch.multinomial(model(x)[:, i - 1].softmax(-1), 1)[:, 0]
        x[:, i] = torch.where(x[:, i] == MASK, word, x[:, i])
    return x


# %% tags=["wrong"]
# wrong: whether a place is hidden is asked of the first row alone
@torch.no_grad()
def write_in_order(model, x):
    x = x.clone()
    for i in range(x.shape[1]):
        if x[0, i] == MASK:
            x[:, i] = torch.multinomial(model(x)[:, i].softmax(-1), 1)[:, 0]
    return x


# %% tags=["wrong"]
# wrong: the most probable word, not a drawn one
@torch.no_grad()
def write_in_order(model, x):
    x = x.clone()
    for i in range(x.shape[1]):
        x[:, i] = torch.where(x[:, i] == MASK, model(x)[:, i].argmax(-1), x[:, i])
    return x


# %% tags=["wrong"]
# wrong: the argument itself is filled, so a second call finds nothing to do
@torch.no_grad()
def write_in_order(model, x):
    for i in range(x.shape[1]):
        word = torch.multinomial(model(x)[:, i].softmax(-1), 1)[:, 0]
        x[:, i] = torch.where(x[:, i] == MASK, word, x[:, i])
    return x


# %% [markdown]
# ## Exercise 3. Times to measure
#
# $L$ is the sum of the counts. After some steps, the words that have appeared are the sum of their counts, and the rest is hidden: that share is the time.
# With equal counts the times are equally spaced, as on the page.

# %% tags=["solution"]
def times_for(counts):
    times, hidden = [1.0], sum(counts)
    for count in counts:
        hidden -= count
        times.append(hidden / sum(counts))
    return times


# %% tags=["wrong"]
# wrong: equal steps, whatever the counts are
def times_for(counts):
    return [1 - k / len(counts) for k in range(len(counts) + 1)]


# %% tags=["wrong"]
# wrong: the counts in the opposite order
def times_for(counts):
    times = [1.0]
    for count in reversed(counts):
        times.append(times[-1] - count / sum(counts))
    return times


# %% tags=["wrong"]
# wrong: the start, t = 1, is missing
def times_for(counts):
    return [1 - sum(counts[: k + 1]) / sum(counts) for k in range(len(counts))]


# %% tags=["wrong"]
# wrong: a share of what is left in the place of a share of all
def times_for(counts):
    times = [1.0]
    for count in counts[:-1]:
        times.append(times[-1] * (1 - count / sum(counts)))
    return [*times, 0.0]
