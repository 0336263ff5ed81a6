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
# # Solutions to chapter 10
#
# Cells tagged `wrong` are plausible answers that the checks refuse; they are kept so that a test can try them.

# %% [markdown]
# ## Exercise 1. One text, two tokenisers
#
# The nats belong to the whole text. Divide them by the number of units first; then bits are nats over $\ln 2$, and a perplexity is the exponential of nats a unit.
#
# Bits a token and perplexity a token depend on how many tokens the text was cut into, so they cannot compare models with different tokenisers. Perplexity a word and bits a character can: both models are asked about the same words and the same characters. (Both tokenisers must be able to give the text back
# exactly. One that drops the case of letters is asked about an easier text.)

# %% tags=["solution"]
import math


def units(nats, tokens, words, characters):
    bits = nats / math.log(2)
    return bits / tokens, math.exp(nats / tokens), math.exp(nats / words), bits / characters

# %% tags=["wrong"]
# Perplexity a word as the mean over tokens, raised to nothing: the unit is forgotten.
import math


def units(nats, tokens, words, characters):
    bits, per_token = nats / math.log(2), math.exp(nats / tokens)
    return bits / tokens, per_token, per_token * tokens / words, bits / characters

# %% tags=["wrong"]
# Takes the exponential of bits instead of nats.
import math


def units(nats, tokens, words, characters):
    bits = nats / math.log(2)
    return bits / tokens, math.exp(bits / tokens), math.exp(bits / words), bits / characters

# %% tags=["wrong"]
# Leaves nats where bits are asked for.
import math


def units(nats, tokens, words, characters):
    return nats / tokens, math.exp(nats / tokens), math.exp(nats / words), nats / characters

# %% tags=["wrong"]
# Multiplies bits a token by characters a token instead of dividing.
import math


def units(nats, tokens, words, characters):
    bits = nats / math.log(2)
    per_character = bits / tokens * characters / tokens
    return bits / tokens, math.exp(nats / tokens), math.exp(nats / words), per_character

# %% [markdown]
# ## Exercise 2. The error of a difference
#
# Reduce each draw $r$ to $d_r$, the mean over texts of $a_{rm} - b_{rm}$. What the texts and the noise do to both models alike has cancelled in $d_r$. The $R$ numbers are independent, so their mean has the standard error $s/\sqrt R$.
#
# The spread over all $R \cdot M$ differences would need them to be independent. They are not: the texts of one draw share their strata, and can be too high or too low together.

# %% tags=["solution"]
import torch


def paired(a, b):
    gap = (a - b).mean(1)  # (R,)
    return gap.mean().item(), (gap.std() / len(gap) ** 0.5).item()

# %% tags=["wrong"]
# Adds the two variances, as for independent estimates.
import torch


def paired(a, b):
    means = a.mean(1), b.mean(1)
    error = sum(mean.var() / len(mean) for mean in means) ** 0.5
    return (means[0].mean() - means[1].mean()).item(), error.item()

# %% tags=["wrong"]
# Forgets the square root of R: the spread of one draw.
import torch


def paired(a, b):
    gap = (a - b).mean(1)
    return gap.mean().item(), gap.std().item()

# %% tags=["wrong"]
# Takes all differences for independent.
import torch


def paired(a, b):
    gap = (a - b).flatten()
    return gap.mean().item(), (gap.std() / len(gap) ** 0.5).item()

# %% tags=["wrong"]
# The spread over texts instead of the spread over draws.
import torch


def paired(a, b):
    gap = (a - b).mean(0)  # (M,)
    return gap.mean().item(), (gap.std() / len(gap) ** 0.5).item()

# %% [markdown]
# ## Exercise 3. What the rest costs
#
# $-\log p(\text{rest} \mid \text{given}) = -\log p(\text{all}) + \log p(\text{given})$, and both terms are exact here.
#
# For a model the difference of two *upper bounds* is no bound at all. Let the bounds be $A \ge -\log p(\text{all})$ and $G \ge -\log p(\text{given})$. Then $A - G$ is below the truth whenever the bound on the given words is looser than the bound on all words. The conditional bound of `bounds(…, given=…)` avoids this: it never hides the given words, and bounds
# $-\log p(\text{rest} \mid \text{given})$ itself.

# %% tags=["solution"]
import torch


def rest(language, x, given):
    return language.log_prob(x, given) - language.log_prob(x)

# %% tags=["wrong"]
# The sign is turned round.
import torch


def rest(language, x, given):
    return language.log_prob(x) - language.log_prob(x, given)

# %% tags=["wrong"]
# The rest by itself, without what is given.
import torch


def rest(language, x, given):
    return -language.log_prob(x, ~given)

# %% tags=["wrong"]
# Each free word given all the given ones, as if the free words were independent.
import torch


def rest(language, x, given):
    p = language.posterior(x, given).gather(-1, x[..., None])[..., 0]  # (B, L)
    return -torch.where(given, 1.0, p).log().sum(1)

# %% [markdown]
# ## Exercise 4. The best cheat
#
# Lagrange's condition is $-\log p_y + \lambda\,(\log q_y + 1) + \mu = 0$, so $q_y \propto p_y^{\beta}$ with $\beta = 1/\lambda$. **The best cheat is a temperature**, $T = 1/\beta$. Its entropy falls as $\beta$ grows, so halving an interval finds $\beta$.
#
# If the publisher demands the entropy of real text, $h = H(p)$, the solution is $\beta = 1$, and $q = p$. Nothing can be gained by cheating then, because score minus entropy is $\mathrm{KL}(q \,\|\, p) \ge 0$. This needs the entropy of the *whole* law. The entropy of single words, which one can print, leaves room: a sampler may use
# the right words in a wrong order. But a wrong order costs score.

# %% tags=["solution"]
import torch


def cheat(p, h):
    low, high = 0.0, 1000.0
    for _ in range(100):
        beta = (low + high) / 2
        q = (beta * p.log()).softmax(-1)
        if -torch.xlogy(q, q).sum() > h:
            low = beta
        else:
            high = beta
    return (low * p.log()).softmax(-1)

# %% tags=["wrong"]
# The most probable words, with equal probabilities.
import math
import torch


def cheat(p, h):
    k = min(len(p), math.ceil(math.exp(h)))
    q = torch.zeros_like(p)
    q[p.topk(k).indices] = 1 / k
    return q

# %% tags=["wrong"]
# A nucleus: cuts the rare words off, and leaves the others in proportion.
import torch


def cheat(p, h):
    for k in range(1, len(p) + 1):
        q = torch.zeros_like(p)
        top = p.topk(k)
        q[top.indices] = top.values / top.values.sum()
        if -torch.xlogy(q, q).sum() >= h:
            return q
    return torch.full_like(p, 1 / len(p))

# %% tags=["wrong"]
# A nucleus with exactly the entropy h: of the last word it takes in only a part.
import torch


def cheat(p, h):
    order = p.argsort(descending=True)
    low, high = 0.0, float(len(p))
    for _ in range(100):
        size = (low + high) / 2
        q = torch.zeros_like(p)
        share = (size - torch.arange(len(p)).double()).clamp(0, 1)
        q[order] = p[order] * share
        q = q / q.sum()
        low, high = (low, size) if -torch.xlogy(q, q).sum() > h else (size, high)
    if high > len(p) - 1e-6:  # not enough: mix with even chances
        low, high = 0.0, 1.0
        for _ in range(100):
            part = (low + high) / 2
            q = (1 - part) * p + part / len(p)
            low, high = (low, part) if -torch.xlogy(q, q).sum() > h else (part, high)
    return q

# %% tags=["wrong"]
# Mixes the language with its most probable word until the entropy is h.
import torch


def cheat(p, h):
    top, even = torch.zeros_like(p), torch.full_like(p, 1 / len(p))
    top[p.argmax()] = 1.0
    other = top if -torch.xlogy(p, p).sum() > h else even
    low, high = 0.0, 1.0
    for _ in range(100):
        part = (low + high) / 2
        q = (1 - part) * p + part * other
        above = -torch.xlogy(q, q).sum() > h
        toward = above if other is top else not above
        low, high = (part, high) if toward else (low, part)
    return (1 - low) * p + low * other

# %% tags=["wrong"]
# Does what the publisher hopes for: the language itself.
import torch


def cheat(p, h):
    return p.clone()
