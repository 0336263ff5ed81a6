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
# # Solutions to chapter 06
#
# The diffusion transformer. Each solution is followed by wrong answers that the check catches.

# %% [markdown]
# ## Exercise 1. Where attention catches up
#
# The matrices of a block cost $2 (4 D^2 + 8 D^2) L = 24 D^2 L$, the products $4 L^2 D$. They are equal at $L = 6 D$, whatever the number of blocks or heads: 4608 tokens for SEDD small. At its length of 1024 the products take less than a quarter of what the matrices take.

# %% tags=["solution"]
def crossover(D):
    return 6 * D

# %% tags=["wrong"]
# Without the MLP: only the matrices of attention.
def crossover(D):
    return 2 * D

# %% tags=["wrong"]
# Only q·k, without a·v.
def crossover(D):
    return 12 * D

# %% tags=["wrong"]
# Products at 2 FLOPs a number, matrices at 1.
def crossover(D):
    return 3 * D

# %% tags=["wrong"]
# Each head takes part of the width; together they take all of it.
def crossover(D):
    return 6 * D / 12

# %% [markdown]
# ## Exercise 2. Turning without sines
#
# One product of complex numbers does the work of four real ones. Many libraries write rotary positions in this way, some of them with neighbouring entries as pairs.

# %% tags=["solution"]
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(L)[:, None] * 10_000 ** (-torch.arange(half) / half)  # (L, half)
    pairs = torch.complex(vectors[..., :half], vectors[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)

# %% tags=["wrong"]
# Pairs neighbouring entries, 2i and 2i + 1.
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(L)[:, None] * 10_000 ** (-torch.arange(half) / half)
    pairs = torch.complex(vectors[..., 0::2], vectors[..., 1::2])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.stack([turned.real, turned.imag], -1).flatten(-2)

# %% tags=["wrong"]
# Turns the wrong way round.
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(L)[:, None] * 10_000 ** (-torch.arange(half) / half)
    pairs = torch.complex(vectors[..., :half], vectors[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angle), -angle)
    return torch.cat([turned.real, turned.imag], -1)

# %% tags=["wrong"]
# The speeds fall by half as much: i / d instead of i / half.
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(L)[:, None] * 10_000 ** (-torch.arange(half) / (2 * half))
    pairs = torch.complex(vectors[..., :half], vectors[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)

# %% tags=["wrong"]
# Counts positions from 1.
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(1, L + 1)[:, None] * 10_000 ** (-torch.arange(half) / half)
    pairs = torch.complex(vectors[..., :half], vectors[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)

# %% tags=["wrong"]
# Multiplies by the angle instead of turning by it.
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(L)[:, None] * 10_000 ** (-torch.arange(half) / half)
    pairs = torch.complex(vectors[..., :half], vectors[..., half:]) * (1 + 1j * angle)
    return torch.cat([pairs.real, pairs.imag], -1)

# %% tags=["wrong"]
# The same speed for all pairs.
import torch


def turn_complex(vectors):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    angle = torch.arange(L)[:, None].float().expand(L, half)
    pairs = torch.complex(vectors[..., :half], vectors[..., half:])
    turned = pairs * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)

# %% [markdown]
# ## Exercise 3. Keep documents apart
#
# `ended.cumsum(1)` counts the `eot` up to and including a position. Subtracting `ended` leaves those before it, so an `eot` still counts for its own document. PyTorch's function takes the mask as `attn_mask`, with an axis more for the heads: `mask[:, None]`. The published SEDD trains without such a mask, so its positions see all documents of their block.

# %% tags=["solution"]
import torch


def same_document(x, eot):
    ended = (x == eot).long()
    number = ended.cumsum(1) - ended  # (B, L): of the document
    return number[:, :, None] == number[:, None, :]

# %% tags=["wrong"]
# An eot belongs to the document after it.
import torch


def same_document(x, eot):
    number = (x == eot).long().cumsum(1)
    return number[:, :, None] == number[:, None, :]

# %% tags=["wrong"]
# Looks to the left only.
import torch


def same_document(x, eot):
    ended = (x == eot).long()
    number = ended.cumsum(1) - ended
    return (number[:, :, None] == number[:, None, :]).tril()

# %% tags=["wrong"]
# Looks at everything up to the end of the own document, and so at earlier documents too.
import torch


def same_document(x, eot):
    ended = (x == eot).long()
    number = ended.cumsum(1) - ended
    return number[:, :, None] >= number[:, None, :]

# %% tags=["wrong"]
# Nobody looks at an eot, and an eot looks at nothing but itself.
import torch


def same_document(x, eot):
    number = (x == eot).long().cumsum(1)
    plain = x != eot
    same = (number[:, :, None] == number[:, None, :]) & plain[:, :, None] & plain[:, None, :]
    return same | torch.eye(x.shape[1], dtype=torch.bool)

# %% tags=["wrong"]
# The mask the other way round: True where looking is forbidden.
import torch


def same_document(x, eot):
    ended = (x == eot).long()
    number = ended.cumsum(1) - ended
    return number[:, :, None] != number[:, None, :]

# %% tags=["wrong"]
# Numbers for all rows together.
import torch


def same_document(x, eot):
    ended = (x == eot).long()
    number = ended.sum(0).cumsum(0)[None].expand_as(x)
    return number[:, :, None] == number[:, None, :]

# %% [markdown]
# ## Exercise 4. Features that tell small noise apart
#
# Equal factors of $\bar\sigma$ are equal differences of $\log\bar\sigma$. A pair of features with speed $f$ moves by $2\,|\sin(f \Delta / 2)|$ when its argument moves by $\Delta$, wherever it starts. With $\Delta = \log 10$ the whole vector moves by 4.8.

# %% tags=["solution"]
import torch


def log_features(sigma):
    f = 10_000 ** (-torch.arange(128) / 128)
    a = sigma.log()[:, None] * f  # (B, 128)
    return torch.cat([a.cos(), a.sin()], -1)

# %% tags=["wrong"]
# Faster waves of σ̄ itself: small noise is told apart, but not equally well.
import torch


def log_features(sigma):
    f = 1000 * 10_000 ** (-torch.arange(128) / 128)
    a = sigma[:, None] * f
    return torch.cat([a.cos(), a.sin()], -1)

# %% tags=["wrong"]
# log(1 + σ̄) is σ̄ where σ̄ is small.
import torch


def log_features(sigma):
    f = 10_000 ** (-torch.arange(128) / 128)
    a = torch.log1p(sigma)[:, None] * f
    return torch.cat([a.cos(), a.sin()], -1)

# %% tags=["wrong"]
# One wave for all: it comes round again, and distant levels look alike.
import torch


def log_features(sigma):
    a = sigma.log()[:, None].expand(-1, 128)
    return torch.cat([a.cos(), a.sin()], -1)

# %% tags=["wrong"]
# The logarithm itself, 256 times.
import torch


def log_features(sigma):
    return sigma.log()[:, None].expand(-1, 256)

# %% tags=["wrong"]
# A straight line in the logarithm: equal factors move it equally, but these are no waves.
import torch


def log_features(sigma):
    return (sigma.log()[:, None] / 10).expand(-1, 256)

# %% tags=["wrong"]
# Cosines alone: how far they move depends on where they start.
import torch


def log_features(sigma):
    f = 10_000 ** (-torch.arange(256) / 256)
    return (sigma.log()[:, None] * f).cos()

# %% tags=["wrong"]
# The features as they were.
import torch


def log_features(sigma):
    f = 10_000 ** (-torch.arange(128) / 128)
    a = sigma[:, None] * f
    return torch.cat([a.cos(), a.sin()], -1)

# %% [markdown]
# ## Exercise 5. What "scale by σ" saves at the start
#
# With $s_y = 1$ a hidden token costs $N + K(r)$. Let $\varepsilon = e^{-\bar\sigma_{\max}}$ and $u = e^{-\bar\sigma}$, so that $d\bar\sigma = -du/u$ and $(1 - u)\,r = u$. The integral becomes
#
# $$\int_\varepsilon^1 \Big( \frac{(1-u) N}{u} + \log\frac{u}{1-u} - 1 \Big) du = N\,(\bar\sigma_{\max} - 1 + \varepsilon) - (1 - \varepsilon) - \varepsilon\log\varepsilon - (1-\varepsilon)\log(1-\varepsilon) .$$
#
# For $N = 5$ and $\bar\sigma_{\max} = \log 1000$ this is 28.6 nats a token and 171 for a sentence of six, where a uniform guess costs 9.7. For $N = 50\,257$ it is 297 000 nats a token instead of 10.8. Section 8 shows what training makes of the small case.

# %% tags=["solution"]
import math


def loss_without_scale(N, sigma_max):
    low = math.exp(-sigma_max)
    rest = low * math.log(low) + (1 - low) * math.log(1 - low)
    return N * (sigma_max - 1 + low) - (1 - low) - rest

# %% tags=["wrong"]
# Counts every token as hidden.
import math


def loss_without_scale(N, sigma_max):
    total, n = 0.0, 100_000
    for i in range(n):
        u = math.exp(-sigma_max * (i + 0.5) / n)
        r = u / (1 - u)
        total += (N + r * (math.log(r) - 1)) * sigma_max / n
    return total

# %% tags=["wrong"]
# Without K(r).
import math


def loss_without_scale(N, sigma_max):
    return N * (sigma_max - 1 + math.exp(-sigma_max))

# %% tags=["wrong"]
# One score too many: MASK counts as a word.
import math


def loss_without_scale(N, sigma_max):
    low = math.exp(-sigma_max)
    rest = low * math.log(low) + (1 - low) * math.log(1 - low)
    return (N + 1) * (sigma_max - 1 + low) - (1 - low) - rest

# %% tags=["wrong"]
# The first loss with the scale.
import math


def loss_without_scale(N, sigma_max):
    return (1 - math.exp(-sigma_max)) * math.log(N)

# %% tags=["wrong"]
# The integral runs to infinity in its last terms.
import math


def loss_without_scale(N, sigma_max):
    return N * (sigma_max - 1) - 1
