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
# # Solutions to chapter 07
#
# Each answer is followed by wrong ones, and what is wrong with them. The checks in the chapter refuse those.

# %% [markdown]
# ## Exercise 1. How long is the memory?
#
# $w_k$ enters at step $k$ with the share $1 - \mu_k$, and each later step $i$ multiplies this share by $\mu_i$. The start has the share 1 instead. After 60 steps the untrained start has a share of $1.5 \cdot 10^{-10}$ left. While the fraction is the smaller of the two, the newest tenth of the steps has about 60 % of the weight, so the memory is about a tenth of the run so far.

# %% tags=["solution"]
def weight_of(k, n):
    weight = 1.0
    for i in range(k, n + 1):
        mu = min(0.999, (1 + i) / (10 + i))
        if i > k:
            weight *= mu
        elif k > 0:
            weight *= 1 - mu
    return weight

# %% tags=["wrong"]
# A plain mean of all weights but the start's.
def weight_of(k, n):
    return (k > 0) / n

# %% tags=["wrong"]
# The start is given the factor 1 - μ as well.
def weight_of(k, n):
    weight = 1 - min(0.999, (1 + k) / (10 + k))
    for i in range(k + 1, n + 1):
        weight *= min(0.999, (1 + i) / (10 + i))
    return weight

# %% tags=["wrong"]
# One μ for all steps, the last one.
def weight_of(k, n):
    mu = min(0.999, (1 + n) / (10 + n))
    return mu ** (n - k) * (1 - mu if k > 0 else 1)

# %% tags=["wrong"]
# The bound 0.999 is forgotten, which shows after 8 990 steps only.
def weight_of(k, n):
    weight = 1 - (1 + k) / (10 + k) if k > 0 else 1.0
    for i in range(k + 1, n + 1):
        weight *= (1 + i) / (10 + i)
    return weight

# %% tags=["wrong"]
# A step too few: the product over the later μ stops before n.
def weight_of(k, n):
    weight = 1 - min(0.999, (1 + k) / (10 + k)) if k > 0 else 1.0
    for i in range(k + 1, n):
        weight *= min(0.999, (1 + i) / (10 + i))
    return weight

# %% [markdown]
# ## Exercise 2. Three wrong starts
#
# At time $t$ a hidden word costs $\sigma(t)\, r \ln N = \frac{0.999}{\lambda} \ln N$, and a word is hidden with probability $\lambda$. So the right loss is $0.999 \ln N$ at every $t$.
#
# Without the rate the mean cost at $t$ is $\lambda\, r \ln N = (1 - \lambda) \ln N$. Its mean over $t$ is about half of $\ln N$.
#
# The mean over hidden words alone is $\frac{0.999}{\lambda} \ln N = \frac1t \ln N$. The mean of $1/t$ over 0.001 to 1 is $\ln 1000 / 0.999$, so the loss is 6.9 times too large.
#
# BERT's choice of one $t$ gives the right first number, because it is the same at every $t$. The first number does not find every mistake.

# %% tags=["solution"]
import math


def loss_with_mistake(N, mistake):
    if mistake == "no rate":
        return (1 - 0.999 * (0.001 + 1) / 2) * math.log(N)
    if mistake == "hidden only":
        return math.log(1000) / 0.999 * math.log(N)
    return 0.999 * math.log(N)

# %% tags=["wrong"]
# In bits.
import math


def loss_with_mistake(N, mistake):
    factor = {"no rate": 0.5, "hidden only": math.log(1000)}.get(mistake, 0.999)
    return factor * math.log2(N)

# %% tags=["wrong"]
# The mean over hidden words is taken for the right loss.
import math


def loss_with_mistake(N, mistake):
    return {"no rate": 0.5}.get(mistake, 0.999) * math.log(N)

# %% tags=["wrong"]
# "BERT hides 15 %, so the loss is 15 % of the right one": the weight 1/t makes up for that.
import math


def loss_with_mistake(N, mistake):
    factor = {"no rate": 0.5, "hidden only": math.log(1000), "bert": 0.15}.get(mistake, 0.999)
    return factor * math.log(N)

# %% tags=["wrong"]
# Without the rate nothing is thought to change.
import math


def loss_with_mistake(N, mistake):
    return (math.log(1000) if mistake == "hidden only" else 0.999) * math.log(N)

# %% [markdown]
# ## Exercise 3. The examiner at one place
#
# The mean loss is $\frac1t (Z - 1 - \sum_y \pi_y u_y)$. A perfect network has $Z = 1$, so its mean loss is the entropy of $\pi$, divided by $t$. With $u_y - \log Z$ the first would be $\frac1t (\log Z - \sum_y \pi_y u_y)$, so $\frac1t (Z - 1 - \log Z)$ of the gap is the price. The rest is $\frac1t \mathrm{KL}\big(\pi \,\|\, \mathrm{softmax}(u)\big)$, the Kullback–Leibler divergence.

# %% tags=["solution"]
import torch


def gap_and_price(u, pi, t):
    log_Z = u.logsumexp(0)
    Z = log_Z.exp()
    mean_loss = (Z - 1 - (pi * u).sum()) / t
    entropy = -torch.xlogy(pi, pi).sum()
    return (mean_loss - entropy / t).item(), ((Z - 1 - log_Z) / t).item()

# %% tags=["wrong"]
# The gap without the price: only the Kullback–Leibler divergence from softmax(u).
import torch


def gap_and_price(u, pi, t):
    kl = (torch.xlogy(pi, pi) - pi * u.log_softmax(0)).sum()
    return kl / t, (u.exp().sum() - 1 - u.logsumexp(0)) / t

# %% tags=["wrong"]
# The divergence from e^u as if Z were 1: Z − 1 is missing.
import torch


def gap_and_price(u, pi, t):
    kl = (torch.xlogy(pi, pi) - pi * u).sum()
    return kl / t, (u.exp().sum() - 1 - u.logsumexp(0)) / t

# %% tags=["wrong"]
# The mean loss, without the perfect network's.
import torch


def gap_and_price(u, pi, t):
    Z = u.exp().sum()
    return (Z - 1 - (pi * u).sum()) / t, (Z - 1 - Z.log()) / t

# %% tags=["wrong"]
# The weight 1/t is forgotten.
import torch


def gap_and_price(u, pi, t):
    Z = u.exp().sum()
    gap = Z - 1 - (pi * u).sum() + torch.xlogy(pi, pi).sum()
    return gap, Z - 1 - Z.log()

# %% tags=["wrong"]
# 0 log 0 is not a number.
import torch


def gap_and_price(u, pi, t):
    Z = u.exp().sum()
    gap = (Z - 1 - (pi * u).sum() + (pi * pi.log()).sum()) / t
    return gap, (Z - 1 - Z.log()) / t

# %% tags=["wrong"]
# The divergence the wrong way round: the mean is taken over the network's guesses.
import torch


def gap_and_price(u, pi, t):
    q = u.softmax(0)
    Z = u.exp().sum()
    price = (Z - 1 - Z.log()) / t
    return (q * (q.log() - pi.clamp(min=1e-9).log())).sum() / t + price, price

# %% tags=["wrong"]
# The price is taken as Z − 1, as if normalising left u as it is.
import torch


def gap_and_price(u, pi, t):
    Z = u.exp().sum()
    gap = (Z - 1 - (pi * u).sum() + torch.xlogy(pi, pi).sum()) / t
    return gap, (Z - 1) / t

# %% tags=["wrong"]
# In bits.
import torch


def gap_and_price(u, pi, t):
    Z = u.exp().sum()
    gap = (Z - 1 - (pi * u).sum() + torch.xlogy(pi, pi).sum()) / t
    price = (Z - 1 - Z.log()) / t
    return gap / 0.6931, price / 0.6931

# %% [markdown]
# ## Exercise 4. One step of AdamW
#
# The decay touches the weights alone. If it were added to the gradient it would be divided by $\sqrt{\hat v}$ as well, so that weights with large gradients would decay less.

# %% tags=["solution"]
def adamw(w, g, m, v, n, lr, decay, beta1, beta2, eps):
    w = w * (1 - lr * decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
    return w - lr * m_hat / (v_hat.sqrt() + eps), m, v

# %% tags=["wrong"]
# The decay is added to the gradient: Adam with L2, not AdamW.
def adamw(w, g, m, v, n, lr, decay, beta1, beta2, eps):
    g = g + decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
    return w - lr * m_hat / (v_hat.sqrt() + eps), m, v

# %% tags=["wrong"]
# No correction for the start at 0.
def adamw(w, g, m, v, n, lr, decay, beta1, beta2, eps):
    w = w * (1 - lr * decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return w - lr * m / (v.sqrt() + eps), m, v

# %% tags=["wrong"]
# The corrected means are kept for the next step.
def adamw(w, g, m, v, n, lr, decay, beta1, beta2, eps):
    w = w * (1 - lr * decay)
    m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**n)
    v = (beta2 * v + (1 - beta2) * g**2) / (1 - beta2**n)
    return w - lr * m / (v.sqrt() + eps), m, v

# %% tags=["wrong"]
# eps under the root.
def adamw(w, g, m, v, n, lr, decay, beta1, beta2, eps):
    w = w * (1 - lr * decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
    return w - lr * m_hat / (v_hat + eps).sqrt(), m, v

# %% tags=["wrong"]
# The decay forgets the learning rate.
def adamw(w, g, m, v, n, lr, decay, beta1, beta2, eps):
    w = w * (1 - decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    m_hat, v_hat = m / (1 - beta1**n), v / (1 - beta2**n)
    return w - lr * m_hat / (v_hat.sqrt() + eps), m, v
