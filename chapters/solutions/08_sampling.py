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
# # Solutions to chapter 08
#
# Sampling. Each solution is followed by wrong answers that the check catches.

# %% [markdown]
# ## Exercise 1. Uneven leaps
#
# The hidden share falls by $t - t'$ in a leap, so a word appears there with probability $t - t'$. Both do with $(t - t')^2$. The sum of squares of $K$ positive numbers that add up to 1 is smallest when all are $1/K$, so for two words equal leaps are best, and `best_times` has equal steps. For longer texts it matters also what the words tell about each other at each time (chapter 12).

# %% tags=["solution"]
def same_leap(times):
    return sum((t - t_next) ** 2 for t, t_next in zip(times, times[1:]))


def best_times(K):
    return [1 - k / K for k in range(K + 1)]

# %% tags=["wrong"]
# Right for equal leaps only.
def same_leap(times):
    return 1 / (len(times) - 1)


def best_times(K):
    return [1 - k / K for k in range(K + 1)]

# %% tags=["wrong"]
# The chance of appearing, given that the word is hidden at the start of the leap.
def same_leap(times):
    return sum(((t - t_next) / t) ** 2 for t, t_next in zip(times, times[1:]))


def best_times(K):
    return [1 - k / K for k in range(K + 1)]

# %% tags=["wrong"]
# The longest leap alone.
def same_leap(times):
    return max(t - t_next for t, t_next in zip(times, times[1:])) ** 2


def best_times(K):
    return [1 - k / K for k in range(K + 1)]

# %% tags=["wrong"]
# One minus the chance that no leap has both, as if leaps were independent of each other.
def same_leap(times):
    none = 1.0
    for t, t_next in zip(times, times[1:]):
        none *= 1 - (t - t_next) ** 2
    return 1 - none


def best_times(K):
    return [1 - k / K for k in range(K + 1)]

# %% tags=["wrong"]
# Each time half of the one before.
def same_leap(times):
    return sum((t - t_next) ** 2 for t, t_next in zip(times, times[1:]))


def best_times(K):
    return [0.5**k for k in range(K)] + [0.0]

# %% tags=["wrong"]
# Short leaps at the end, where little is hidden.
def same_leap(times):
    return sum((t - t_next) ** 2 for t, t_next in zip(times, times[1:]))


def best_times(K):
    return [(1 - k / K) ** 2 for k in range(K + 1)]

# %% [markdown]
# ## Exercise 2. A leap that is safe
#
# `s @ A.T` applies the matrix to each row. The order of the last three operations matters: first negative entries become 0, then the forbidden state, and only then does the row get its sum of 1.

# %% tags=["solution"]
import torch


def tweedie_leap(Q, x, s, dsigma, last=None):
    s = s.scatter(-1, x[:, None], 1.0)  # (M, S)
    was = s @ torch.matrix_exp(-dsigma * Q).T  # (M, S)
    probs = was * torch.matrix_exp(dsigma * Q)[x]
    probs = probs.clamp(min=0)
    if last is not None:
        probs[:, last] = 0
    return probs / probs.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Rows and columns of the first kernel are exchanged.
import torch


def tweedie_leap(Q, x, s, dsigma, last=None):
    s = s.scatter(-1, x[:, None], 1.0)
    probs = (s @ torch.matrix_exp(-dsigma * Q)) * torch.matrix_exp(dsigma * Q)[x]
    probs = probs.clamp(min=0)
    if last is not None:
        probs[:, last] = 0
    return probs / probs.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Adds noise instead of taking it away.
import torch


def tweedie_leap(Q, x, s, dsigma, last=None):
    s = s.scatter(-1, x[:, None], 1.0)
    probs = (s @ torch.matrix_exp(dsigma * Q).T) * torch.matrix_exp(-dsigma * Q)[x]
    probs = probs.clamp(min=0)
    if last is not None:
        probs[:, last] = 0
    return probs / probs.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Takes the absolute value of what is negative.
import torch


def tweedie_leap(Q, x, s, dsigma, last=None):
    s = s.scatter(-1, x[:, None], 1.0)
    probs = (s @ torch.matrix_exp(-dsigma * Q).T) * torch.matrix_exp(dsigma * Q)[x]
    probs = probs.abs()
    if last is not None:
        probs[:, last] = 0
    return probs / probs.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Believes the network about the ratio of x to itself.
import torch


def tweedie_leap(Q, x, s, dsigma, last=None):
    probs = (s @ torch.matrix_exp(-dsigma * Q).T) * torch.matrix_exp(dsigma * Q)[x]
    probs = probs.clamp(min=0)
    if last is not None:
        probs[:, last] = 0
    return probs / probs.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Forbids the state after the row was normalised.
import torch


def tweedie_leap(Q, x, s, dsigma, last=None):
    s = s.scatter(-1, x[:, None], 1.0)
    probs = (s @ torch.matrix_exp(-dsigma * Q).T) * torch.matrix_exp(dsigma * Q)[x]
    probs = probs.clamp(min=0)
    probs = probs / probs.sum(-1, keepdim=True)
    if last is not None:
        probs[:, last] = 0
    return probs

# %% [markdown]
# ## Exercise 3. The other way to be wrong
#
# The numbers below $p$ are $0, 1, \dots$ steps, as many as $p/2^{-24}$ rounded **up**. A move of probability $10^{-9}$ happens 60 times too often, as the number 0 alone has probability $6 \cdot 10^{-8}$. So rare words become too frequent, the opposite of what Gumbel noise does.

# %% tags=["solution"]
import math


def share_in_float32(p):
    return math.ceil(p * 2**24) / (p * 2**24)

# %% tags=["wrong"]
# Rounds down: the number 0 is forgotten.
import math


def share_in_float32(p):
    return math.floor(p * 2**24) / (p * 2**24)

# %% tags=["wrong"]
# Rounds to the nearest.
def share_in_float32(p):
    return round(p * 2**24) / (p * 2**24)

# %% tags=["wrong"]
# The law of Gumbel noise.
import math


def share_in_float32(p):
    c = p * 2**24
    return 1 / c / math.expm1(min(1 / c, 700))

# %% tags=["wrong"]
# One too many where p is itself one of the numbers.
import math


def share_in_float32(p):
    return (math.floor(p * 2**24) + 1) / (p * 2**24)

# %% [markdown]
# ## Exercise 4. A step that repairs
#
# The rate of $x \to y$ is $Q(y, x) + Q(x, y)\, s_y$. Probability flows from $x$ to $y$ at $p(x) Q(y, x) + Q(x, y)\, p(y)$, since $p(x)\, s_y = p(y)$. This is the same with $x$ and $y$ exchanged, so as much flows back: $p$ stays. On the absorbing graph the corrector hides visible words again and reveals others.

# %% tags=["solution"]
import torch


def corrector_probs(Q, x, s, h):
    probs = h * (Q.T[x] + Q[x] * s)  # (M, S)
    probs.scatter_(-1, x[:, None], 0.0)
    stay = 1 - probs.sum(-1, keepdim=True)
    return probs.scatter(-1, x[:, None], stay)

# %% tags=["wrong"]
# The reverse rates alone: this is Euler's leap.
import torch


def corrector_probs(Q, x, s, h):
    probs = h * Q[x] * s
    probs.scatter_(-1, x[:, None], 0.0)
    return probs.scatter(-1, x[:, None], 1 - probs.sum(-1, keepdim=True))

# %% tags=["wrong"]
# The two matrices are exchanged.
import torch


def corrector_probs(Q, x, s, h):
    probs = h * (Q[x] + Q.T[x] * s)
    probs.scatter_(-1, x[:, None], 0.0)
    return probs.scatter(-1, x[:, None], 1 - probs.sum(-1, keepdim=True))

# %% tags=["wrong"]
# Nothing moves: that leaves p unchanged too.
import torch


def corrector_probs(Q, x, s, h):
    return torch.nn.functional.one_hot(x, s.shape[-1]).double()

# %% tags=["wrong"]
# Half of the rates: p stays, but this is not the sum.
import torch


def corrector_probs(Q, x, s, h):
    probs = h * (Q.T[x] + Q[x] * s) / 2
    probs.scatter_(-1, x[:, None], 0.0)
    return probs.scatter(-1, x[:, None], 1 - probs.sum(-1, keepdim=True))

# %% tags=["wrong"]
# The difference of the rates, as in the drift of a diffusion.
import torch


def corrector_probs(Q, x, s, h):
    probs = (h * (Q[x] * s - Q.T[x])).clamp(min=0)
    probs.scatter_(-1, x[:, None], 0.0)
    return probs.scatter(-1, x[:, None], 1 - probs.sum(-1, keepdim=True))
