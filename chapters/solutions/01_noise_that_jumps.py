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
# # Solutions to chapter 01
#
# Each exercise has a solution, and some wrong answers with what is wrong about them.

# %% [markdown]
# ## Exercise 1. The final mixture of a cycle
#
# The flow along each arrow is the probability of its origin times its rate. In the final mixture all three flows are equal:
# $2 p_a = 1 p_b = 4 p_c$. So $p_a : p_b : p_c = \tfrac12 : 1 : \tfrac14 = 2 : 4 : 1$, and the three sum to 1.
#
# A state that is left slowly holds much probability. Note that probability keeps going round here: it flows from $a$ to $b$ and never
# directly back. The chain of cat, dog and owl is different, as each pair of arrows balances by itself.

# %% tags=["solution"]
import torch


def final_mixture():
    return torch.tensor([2.0, 4.0, 1.0]) / 7

# %% tags=["wrong"]
# In proportion to the rates of leaving: a state that is left fast would hold much.
import torch


def final_mixture():
    return torch.tensor([2.0, 1.0, 4.0]) / 7

# %% tags=["wrong"]
# All equal: true only if every state is left at the same rate.
import torch


def final_mixture():
    return torch.ones(3) / 3

# %% tags=["wrong"]
# In balance, but not normalised.
import torch


def final_mixture():
    return torch.tensor([2.0, 4.0, 1.0])

# %% [markdown]
# ## Exercise 2. A schedule of your own
#
# $1 - e^{-\bar\sigma} = \sin^2(\pi t/2)$ means $e^{-\bar\sigma} = \cos^2(\pi t/2)$, so
#
# $$\bar\sigma(t) = -2 \log\cos\frac{\pi t}{2}, \qquad \sigma(t) = \pi \tan\frac{\pi t}{2} .$$
#
# The rate starts at 0 and grows without limit as $t \to 1$: the last tokens can only be reached by ever more noise.

# %% tags=["solution"]
import math
import torch


def total(t):
    return -2 * torch.log(torch.cos(math.pi * t / 2))


def rate(t):
    return math.pi * torch.tan(math.pi * t / 2)

# %% tags=["wrong"]
# Takes the share of tokens hit for the total noise.
import math
import torch


def total(t):
    return torch.sin(math.pi * t / 2) ** 2


def rate(t):
    return math.pi / 2 * torch.sin(math.pi * t)

# %% tags=["wrong"]
# The derivative of the share of tokens hit, not of the total noise.
import math
import torch


def total(t):
    return -2 * torch.log(torch.cos(math.pi * t / 2))


def rate(t):
    return math.pi / 2 * torch.sin(math.pi * t)

# %% tags=["wrong"]
# The inner derivative π/2 is forgotten.
import math
import torch


def total(t):
    return -2 * torch.log(torch.cos(math.pi * t / 2))


def rate(t):
    return 2 * torch.tan(math.pi * t / 2)

# %% [markdown]
# ## Exercise 3. How fast does a MASK turn into a word?
#
# $p_{\bar\sigma}(y) = e^{-\bar\sigma} p_0(y)$ and $p_{\bar\sigma}(\text{MASK}) = 1 - e^{-\bar\sigma}$. The forward rate is 1, so the reverse
# rate is the ratio:
#
# $$\bar Q(y, \text{MASK}) = \frac{e^{-\bar\sigma}\, p_0(y)}{1 - e^{-\bar\sigma}} = \frac{p_0(y)}{e^{\bar\sigma} - 1} .$$
#
# The noise decides *when* a MASK turns (the factor $1/(e^{\bar\sigma} - 1)$), and the data decide *into what* ($p_0$). For several tokens
# $p_0(y)$ becomes the probability of $y$ given the visible tokens.
#
# The page's line `shown = torch.rand(x.shape) < (t - s) / t` follows from these rates. The total rate is $1/(e^{\bar\sigma} - 1)$.
# With $t = 1 - e^{-\bar\sigma}$ it becomes $1/t$ per unit of $t$, so a word hidden at $t$ is still hidden at $s < t$ with probability
# $e^{-\int_s^t du/u} = s/t$, and is shown with probability $(t - s)/t$.
#
# The line can also be found without rates. A word hidden at the page's time $s$ is hidden at every later time $t > s$ too. It is hidden
# with probability $s$ at time $s$, and $t$ at time $t$. So of the words hidden at $t$ a share $s/t$ was hidden at $s$ already. On the way
# back these stay hidden, and the others are shown, each with probability $(t - s)/t$. The rates add *which* word appears.

# %% tags=["solution"]
import torch


def unmask_rates(p0, sigma):
    return p0 / torch.expm1(sigma)

# %% tags=["wrong"]
# Divides by nothing: p(y) instead of p(y)/p(MASK).
import torch


def unmask_rates(p0, sigma):
    return p0 * torch.exp(-sigma)

# %% tags=["wrong"]
# Forgets that a word must have been spared to be seen: p0(y)/p(MASK).
import torch


def unmask_rates(p0, sigma):
    return p0 / (1 - torch.exp(-sigma))

# %% tags=["wrong"]
# The ratio upside down.
import torch


def unmask_rates(p0, sigma):
    return torch.expm1(sigma) / p0

# %% tags=["wrong"]
# The same rate for every word: the data are left out.
import torch


def unmask_rates(p0, sigma):
    return torch.ones_like(p0) / len(p0) / torch.expm1(sigma)

# %% [markdown]
# ## Exercise 4. A step that cannot be too large
#
# A token that leaves at the total rate $q$ has not jumped after $h$ with probability $e^{-qh}$. When it jumps, it goes to $y$ with probability
# $\bar Q(y, x)/q$. So the chance of $y \ne x$ is $(1 - e^{-qh})\, \bar Q(y, x)/q$. For a small $h$ this is nearly $h\, \bar Q(y, x)$, the chapter's step; for
# a large $h$ it tends to $\bar Q(y, x)/q$.
#
# The step never fails, but a large one is still inaccurate, because the true rates change within it.

# %% tags=["solution"]
import torch


def leap_chances(x, rates, h):
    rates = rates.scatter(-1, x[:, None], 0)  # a new tensor: the caller's stays as it is
    q = rates.sum(-1, keepdim=True)  # (M, 1)
    chances = -torch.expm1(-q * h) * rates / q
    return chances.scatter(-1, x[:, None], torch.exp(-q * h))

# %% tags=["wrong"]
# The chapter's step: more than 1 for a large h.
import torch


def leap_chances(x, rates, h):
    jump = (h * rates).scatter(-1, x[:, None], 0)
    return jump.scatter(-1, x[:, None], 1 - jump.sum(-1, keepdim=True))

# %% tags=["wrong"]
# The chapter's step, cut at 0 and normalised: never negative, but not what the rates say.
import torch


def leap_chances(x, rates, h):
    jump = (h * rates).scatter(-1, x[:, None], 0)
    stay = (1 - jump.sum(-1, keepdim=True)).clamp(min=0)
    chances = jump.scatter(-1, x[:, None], stay)
    return chances / chances.sum(-1, keepdim=True)

# %% tags=["wrong"]
# Each jump by itself: the chances of the jumps do not know of each other.
import torch


def leap_chances(x, rates, h):
    jump = (-torch.expm1(-h * rates)).scatter(-1, x[:, None], 0)
    return jump.scatter(-1, x[:, None], 1 - jump.sum(-1, keepdim=True))

# %% tags=["wrong"]
# Counts the entry at x as the rate of a jump.
import torch


def leap_chances(x, rates, h):
    q = rates.sum(-1, keepdim=True)
    chances = -torch.expm1(-q * h) * rates / q
    return chances.scatter(-1, x[:, None], torch.exp(-q * h))

# %% tags=["wrong"]
# Takes the diagonal of `rates` for the entries at y = x: right only if x is 0, 1, 2, …
import torch


def leap_chances(x, rates, h):
    diagonal = torch.eye(*rates.shape, dtype=torch.bool)
    rates = rates.masked_fill(diagonal, 0)
    q = rates.sum(-1, keepdim=True)
    chances = -torch.expm1(-q * h) * rates / q
    return torch.where(diagonal, torch.exp(-q * h), chances)

# %% [markdown]
# ## Exercise 5. A graph of your own: the ring
#
# Column $x$ of $Q$ has 1/2 in the rows of both neighbours and −1 on the diagonal. `roll` moves the identity's rows by one, with the last row first.
#
# Jumps forward and jumps back come independently, each at rate 1/2. Their numbers until σ̄ are independent Poisson numbers with
# mean $\bar\sigma/2$, and the token has moved by their difference, around the ring. This is closed form for any $N$, without a matrix.

# %% tags=["solution"]
import torch


def ring_rates(N):
    I = torch.eye(N)
    return (I.roll(1, 0) + I.roll(-1, 0)) / 2 - I


def ring_noise(x0, sigma, N):
    mean = torch.full(x0.shape, sigma / 2)
    forward, back = torch.poisson(mean), torch.poisson(mean)
    return (x0 + (forward - back).long()) % N

# %% tags=["wrong"]
# The ring is cut: no jump between N − 1 and 0, which are left at rate 1/2 only.
import torch


def ring_rates(N):
    Q = torch.diag(torch.full((N - 1,), 0.5), 1) + torch.diag(torch.full((N - 1,), 0.5), -1)
    return Q - Q.sum(0).diag()


def ring_noise(x0, sigma, N):
    kernel = torch.matrix_exp(sigma * ring_rates(N))
    return torch.multinomial(kernel[:, x0.flatten()].T, 1).view_as(x0)

# %% tags=["wrong"]
# Rate 1 in each direction: twice as fast.
import torch


def ring_rates(N):
    I = torch.eye(N)
    return I.roll(1, 0) + I.roll(-1, 0) - 2 * I


def ring_noise(x0, sigma, N):
    kernel = torch.matrix_exp(sigma * ring_rates(N))
    return torch.multinomial(kernel[:, x0.flatten()].T, 1).view_as(x0)

# %% tags=["wrong"]
# At most one jump, with the probability of a hit: right on the uniform graph, wrong on the ring.
import torch


def ring_rates(N):
    I = torch.eye(N)
    return (I.roll(1, 0) + I.roll(-1, 0)) / 2 - I


def ring_noise(x0, sigma, N):
    hit = torch.rand(x0.shape) < 1 - torch.exp(torch.tensor(-sigma))
    step = 2 * torch.randint(2, x0.shape) - 1
    return torch.where(hit, x0 + step, x0) % N

# %% tags=["wrong"]
# Counts the jumps but lets all of them go forward.
import torch


def ring_rates(N):
    I = torch.eye(N)
    return (I.roll(1, 0) + I.roll(-1, 0)) / 2 - I


def ring_noise(x0, sigma, N):
    return (x0 + torch.poisson(torch.full(x0.shape, sigma)).long()) % N

# %% tags=["wrong"]
# Draws for all tokens from the column of the first one.
import torch


def ring_rates(N):
    I = torch.eye(N)
    return (I.roll(1, 0) + I.roll(-1, 0)) / 2 - I


def ring_noise(x0, sigma, N):
    column = torch.matrix_exp(sigma * ring_rates(N))[:, x0.flatten()[0]]
    return torch.multinomial(column, x0.numel(), replacement=True).view_as(x0)

# %% tags=["wrong"]
# Jumps to the next value only: the total rate is right, but half of the arrows are missing.
import torch


def ring_rates(N):
    I = torch.eye(N)
    return I.roll(1, 0) - I


def ring_noise(x0, sigma, N):
    kernel = torch.matrix_exp(sigma * ring_rates(N))
    return torch.multinomial(kernel[:, x0.flatten()].T, 1).view_as(x0)

# %% tags=["wrong"]
# Right for N = 6 alone.
import torch


def ring_rates(N):
    I = torch.eye(N)
    return (I.roll(1, 0) + I.roll(-1, 0)) / 2 - I


def ring_noise(x0, sigma, N):
    mean = torch.full(x0.shape, sigma / 2)
    return (x0 + (torch.poisson(mean) - torch.poisson(mean)).long()) % 6
