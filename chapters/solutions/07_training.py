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
# $w_k$ enters at step $k$ with the share $1 - \mu_k$, and each later step $i$ multiplies this share by $\mu_i$. The start has the share 1 instead. After 60 steps the untrained start has a share of about $10^{-9}$ left: the short memory at the beginning forgets it.

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


def first_loss(N, mistake):
    if mistake == "no rate":
        return (1 - 0.999 * (0.001 + 1) / 2) * math.log(N)
    if mistake == "hidden only":
        return math.log(1000) / 0.999 * math.log(N)
    return 0.999 * math.log(N)

# %% tags=["wrong"]
# In bits.
import math


def first_loss(N, mistake):
    factor = {"no rate": 0.5, "hidden only": math.log(1000)}.get(mistake, 0.999)
    return factor * math.log2(N)

# %% tags=["wrong"]
# The mean over hidden words is taken for the right loss.
import math


def first_loss(N, mistake):
    return {"no rate": 0.5}.get(mistake, 0.999) * math.log(N)

# %% tags=["wrong"]
# "BERT hides 15 %, so the loss is 15 % of the right one": the weight 1/t makes up for that.
import math


def first_loss(N, mistake):
    factor = {"no rate": 0.5, "hidden only": math.log(1000), "bert": 0.15}.get(mistake, 0.999)
    return factor * math.log(N)

# %% tags=["wrong"]
# Without the rate nothing is thought to change.
import math


def first_loss(N, mistake):
    return (math.log(1000) if mistake == "hidden only" else 0.999) * math.log(N)

# %% [markdown]
# ## Exercise 3. Clip by hand
#
# One factor for all keeps the direction of the gradient, and changes its length only. A gradient of length 0 is short, so it is never divided by its length.

# %% tags=["solution"]
def clip(grads, most):
    length = sum((g**2).sum() for g in grads).sqrt()
    return [g * (most / length) if length > most else g.clone() for g in grads]

# %% tags=["wrong"]
# Each tensor is clipped by itself, which changes the direction of the whole.
def clip(grads, most):
    return [g * min(1, most / max(g.norm().item(), 1e-12)) for g in grads]

# %% tags=["wrong"]
# Each entry is clipped by itself.
def clip(grads, most):
    return [g.clamp(-most, most) for g in grads]

# %% tags=["wrong"]
# A short gradient is made longer.
def clip(grads, most):
    length = sum((g**2).sum() for g in grads).sqrt().clamp(min=1e-12)
    return [g * (most / length) for g in grads]

# %% tags=["wrong"]
# The square root is forgotten.
def clip(grads, most):
    length = sum((g**2).sum() for g in grads)
    return [g * (most / length) if length > most else g.clone() for g in grads]

# %% tags=["wrong"]
# The lengths of the tensors are added.
def clip(grads, most):
    length = sum(g.norm() for g in grads)
    return [g * (most / length) if length > most else g.clone() for g in grads]

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
