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
# ---

# %% [markdown]
# # Assignment 2. Score entropy and its rivals
#
# You need chapters 02, 03 and 04. Plan 119 minutes. There are 100 points: 80 for code, which is graded by tests, and 20 for two answers in words.
#
# - Write your code where it says `# YOUR CODE HERE`, and delete `raise NotImplementedError()`.
# - Run the test cell below each problem as often as you like. It says what does not hold yet, and how many points you have so far. More points are given by hidden
#   tests, which use other worlds, sizes and seeds. So an answer that fits only the visible numbers loses most of its points.
# - You may add cells. Cells that you cannot edit are restored before grading.
# - The problems do not depend on each other. You may solve them in any order.
#
# As in the chapters, $Q(y, x)$ is the rate of the jump $x \to y$, so that columns of $Q$ sum to 0. σ̄ is the amount of noise, $s_y$ the network's estimate of $p(y)/p(x)$, and $K(r) = r(\log r - 1)$ with $K(0) = 0$.
# All logarithms are natural. Tensors of numbers come in float32 or in float64, all of one call in the same type. Use no function of `sedd_mini`: the hidden tests compare with it.

# %% nbgrader={"grade_id": "setup"}
import math

import torch

import grading
import tests2  # loaded before your cells run

world = grading.term()  # the numbers of problem 6


def noise_levels(sigma_max):
    """400 noise levels between 1e-8 and sigma_max, and weights (both (400,), float64).

    An integral over σ̄ from 0 to sigma_max is nearly `weights @ values`.
    """
    edges = torch.logspace(-8, math.log10(sigma_max), 401, dtype=torch.float64)
    return (edges[1:] * edges[:-1]).sqrt(), edges.diff()


def entropy_terms(log_s, R):
    """s - R log s + K(R), entry by entry, of scores and targets whose shapes broadcast."""
    return log_s.exp() - R * log_s + torch.xlogy(R, R) - R

# %% [markdown]
# ## 1. Find the bias of a loss (14 points, 13 minutes)
#
# A denoising loss compares the estimate $s$ with a noisy target $R$, whose **mean** is the true ratio. A loss is safe only if it is smallest on average at $s = \mathbb E R$, and public code
# has contained variants that are not. The surest check is to search for the minimum.
#
# Write `bias(loss, R, chance)`. The target takes the values `R` (n,) with the probabilities `chance` (n,). Find the $s$ between $10^{-3}$ and $10^3$ at which $\mathbb E\,\texttt{loss}(s, R)$ is smallest,
# and return $\log(s / \mathbb E R)$, a number: 0 for a safe loss, positive if the loss finds too large a ratio. It must be right within 0.002.
#
# `loss(s, R)` accepts tensors of shapes that broadcast, and returns the loss of each pair. Every mean loss in the tests has one minimum in $s$ and no other local one. Some are smooth, and some have kinks.

# %% nbgrader={"grade_id": "bias", "solution": true}
def bias(loss, R, chance):
    """log(s / E R), where s minimises the mean of loss(s, R). R and chance: (n,)."""
    ### BEGIN SOLUTION
    R, chance = R.double(), chance.double()
    s = torch.logspace(-3, 3, 20_001, dtype=torch.float64)[:, None]
    best = s[(loss(s, R) @ chance).argmin(), 0]
    return (best / (chance @ R)).log().item()
    ### END SOLUTION

# %% nbgrader={"grade_id": "bias-visible", "grade": true}
import tests2 as tests

tests.bias(bias, points=5)

# %% nbgrader={"grade_id": "bias-hidden", "grade": true}
# Hidden tests: other losses and targets (9 points).
### BEGIN HIDDEN TESTS
import hidden2 as hidden

hidden.bias(bias, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Both kinds of noise at once (20 points, 20 minutes)
#
# MASK noise and uniform noise each have a closed form of the loss. What if a token suffers both? A word that is not hidden jumps to MASK at rate `a`. Independently, at rate `b`, it is replaced by a random one of the $N$ words (maybe
# itself). MASK never leaves. So, with σ̄ the amount of noise,
#
# $$p(\text{MASK}|x_0) = 1 - e^{-a\bar\sigma}, \qquad p(y|x_0) = e^{-a\bar\sigma} \Big( e^{-b\bar\sigma}\,[y = x_0] + \frac{1 - e^{-b\bar\sigma}}{N} \Big) \text{ for a word } y .$$
#
# Write `mixed_loss(log_s, sigma, a, b, x, x0)`, the denoising score entropy of each token,
#
# $$\sum_{y \ne x} Q(x, y)\, \big( s_y - R_y \log s_y + K(R_y) \big), \qquad R_y = \frac{p(y|x_0)}{p(x|x_0)} .$$
#
# `log_s` is $\log s$, (B, L, N + 1), with MASK as state number $N$. `x` (B, L) holds the noisy tokens, `x0` (B, L) the words, `sigma` (B, 1) is positive, and `a` and `b` are positive numbers.
# The entries of `log_s` at $y = x$ and at MASK have no weight; they may hold any finite number. Two functions are given: `entropy_terms` in the first cell, and `word_law` below.
# First list the cases: for $x$ = MASK, for $x = x_0$ and for another word $x$, which $y$ have a weight $Q(x, y) > 0$, and what is $R_y$? Each of the three cases gives a third of the points.
#
# Some hidden tests have $N = 30\,000$ words. So do not build an $N \times N$ matrix.

# %% nbgrader={"grade_id": "mixed-given"}
def word_law(x0, sigma, a, b, N):
    """p(y | x0) of each word y, (B, L, N), at the places x0 (B, L) and noise levels sigma (B, 1)."""
    fresh = (-torch.expm1(-b * sigma) / N)[..., None]  # a word that has been replaced, (B, 1, 1)
    same = torch.arange(N) == x0[..., None]
    return torch.exp(-a * sigma)[..., None] * torch.where(same, torch.exp(-b * sigma)[..., None] + fresh, fresh)

# %% nbgrader={"grade_id": "mixed", "solution": true}
def mixed_loss(log_s, sigma, a, b, x, x0):
    """log_s (B, L, N + 1), sigma (B, 1), a and b numbers, x and x0 (B, L) → (B, L)."""
    ### BEGIN SOLUTION
    N = log_s.shape[-1] - 1
    p, hidden = word_law(x0, sigma, a, b, N), x == N  # (B, L, N) and (B, L)
    word = torch.where(hidden, 0, x)
    p_x = torch.where(hidden, -torch.expm1(-a * sigma), p.gather(-1, word[..., None])[..., 0])
    terms = entropy_terms(log_s[..., :N], p / p_x[..., None])
    others = torch.where(torch.arange(N) == x[..., None], 0, terms).sum(-1)
    return torch.where(hidden, a, b / N) * others
    ### END SOLUTION

# %% nbgrader={"grade_id": "mixed-visible", "grade": true}
import tests2 as tests

tests.mixed(mixed_loss, points=8)

# %% nbgrader={"grade_id": "mixed-hidden", "grade": true}
# Hidden tests: other rates, noise levels and vocabularies, against the matrix exponential (12 points).
### BEGIN HIDDEN TESTS
import hidden2 as hidden

hidden.mixed(mixed_loss, points=12)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. What the rivals' networks say about ratios (10 points, 8 minutes)
#
# Mean prediction and ratio matching train a classifier by cross-entropy. To compare them with score entropy, turn their outputs into ratios. Chapter 02 does this for noise that treats all
# words alike; here the noise may prefer some words, so mind which index is which.
#
# - Write `from_guess(kernel, guess, x)` for mean prediction. `kernel[y, a]` is $p(y|a)$ for one token, (S, S), all entries positive; `guess` (B, L, S) is the network's probability of each *original* value, given the whole noisy `x` (B, L).
# - Write `from_blank(blank, x)` for ratio matching. `blank` (B, L, S) is the network's probability of each *noisy* value at a place, given the other noisy tokens.
#
# Both return the ratios $p(y)/p(x)$, where $y$ is $x$ with one token changed: shape (B, L, S), and 1 at $y = x$. Each function gives half of the points.

# %% nbgrader={"grade_id": "rivals", "solution": true}
def from_guess(kernel, guess, x):
    """The ratios of mean prediction, (B, L, S)."""
    ### BEGIN SOLUTION
    # kernel[x]: (B, L, S), p(x | a) for each a
    return (guess / kernel[x]) @ kernel.T
    ### END SOLUTION


def from_blank(blank, x):
    """The ratios of ratio matching, (B, L, S)."""
    ### BEGIN SOLUTION
    return blank / blank.gather(-1, x[..., None])
    ### END SOLUTION

# %% nbgrader={"grade_id": "rivals-visible", "grade": true}
import tests2 as tests

tests.rivals(from_guess, from_blank, points=4)

# %% nbgrader={"grade_id": "rivals-hidden", "grade": true}
# Hidden tests: exact outputs in other worlds must give the exact ratios (6 points).
### BEGIN HIDDEN TESTS
import hidden2 as hidden

hidden.rivals(from_guess, from_blank, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. The bound, for any chain (14 points, 20 minutes)
#
# The likelihood bound of chapter 04 holds for every rate matrix, and with exact ratios it is an equality. That makes it a strict test of a loss: one wrong weight or a forgotten term, and the equality fails.
#
# Write `bound(Q, log_s, log_base, sigma_max)`: for one token with S states and each original value $x_0$, the upper bound on $-\log p_\theta(x_0)$ in nats,
#
# $$\int_0^{\bar\sigma_{\max}} \sum_x p_{\bar\sigma}(x|x_0) \sum_{y \ne x} Q(x, y)\, \big( s_y - R_y \log s_y + K(R_y) \big)\, d\bar\sigma \;+\; \mathrm{KL}\big( p_{\bar\sigma_{\max}}(\cdot|x_0) \,\big\|\, p_{\text{base}} \big), \qquad R_y = \frac{p_{\bar\sigma}(y|x_0)}{p_{\bar\sigma}(x|x_0)} .$$
#
# `Q` is (S, S), float64, with all jumps possible. `log_s(sigma)` takes noise levels (M,) and returns $\log s$, (M, S, S): entry `[m, x, y]` is the log of the estimated $p(y)/p(x)$ at level m (`matrix_exp` of the chain gives `[m, y, x0]`; with it all four indices are `[m, x, y, x0]`); entries with y = x do not count and are finite. `log_base` (S,) is
# $\log p_{\text{base}}$. The result has shape (S,) and must be right within 0.002. Use `torch.matrix_exp`, and from the first cell `noise_levels` for the integral and `entropy_terms` for the terms. `torch.matrix_exp` takes a stack of matrices (M, S, S) too.
#
# Partial credit: the integral alone keeps the points of the tests in which the prior term is nearly 0.

# %% nbgrader={"grade_id": "bound", "solution": true}
def bound(Q, log_s, log_base, sigma_max):
    """The bound on -log p(x0) for each x0, (S,). Q (S, S), log_s: (M,) → (M, S, S), log_base (S,)."""
    ### BEGIN SOLUTION
    sigma, weight = noise_levels(sigma_max)
    p = torch.matrix_exp(sigma[:, None, None] * Q)  # (M, x, x0)
    R = p[:, None] / p[:, :, None]  # (M, x, y, x0)
    terms = entropy_terms(log_s(sigma)[..., None], R)
    rates = Q - Q.diagonal().diag()  # (x, y)
    integrand = torch.einsum("mxo,xy,mxyo->mo", p, rates, terms)
    last = torch.matrix_exp(sigma_max * Q)
    return weight @ integrand + (last * (last.log() - log_base[:, None])).sum(0)
    ### END SOLUTION

# %% nbgrader={"grade_id": "bound-visible", "grade": true}
import tests2 as tests

tests.bound(bound, points=6)

# %% nbgrader={"grade_id": "bound-hidden", "grade": true}
# Hidden tests: other chains, scores that are wrong on purpose, other base distributions (8 points).
### BEGIN HIDDEN TESTS
import hidden2 as hidden

hidden.bound(bound, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. What the bound does not see: two tokens in one leap (10 points, 10 minutes)
#
# Even with exact ratios a sampler that changes several tokens at once draws from another law than the data, and the bound knows nothing of it. For two tokens and MASK noise this law has a short form.
#
# Both tokens start as MASK. Let $t$ be the share of hidden tokens. The sampler leaps through the times `times`, a falling list from 1 to 0. In the leap from $t$ to $s$ each token that is still hidden appears with probability
# $(t - s)/t$, each for itself, so it is still hidden at time $s$ with probability $s$. A token that appears is drawn from its exact conditional distribution, given the token that was visible *before the leap*, if there was one.
#
# Write `law_of_leaps(p, times)`. `p` (N, N) is the distribution of pairs of words. Return the distribution of pairs that the sampler writes, (N, N). Hint: with which probability do both tokens appear in the same leap? How are they drawn
# then, and how if one appears earlier?

# %% nbgrader={"grade_id": "leaps", "solution": true}
def law_of_leaps(p, times):
    """The law of the written pairs, (N, N). p: (N, N); times: a list that falls from 1 to 0."""
    ### BEGIN SOLUTION
    times = torch.as_tensor(times, dtype=p.dtype)
    together = (times.diff() ** 2).sum()  # a token appears between t and s with probability t - s
    return (1 - together) * p + together * p.sum(1, keepdim=True) * p.sum(0)
    ### END SOLUTION

# %% nbgrader={"grade_id": "leaps-visible", "grade": true}
import tests2 as tests

tests.leaps(law_of_leaps, points=4)

# %% nbgrader={"grade_id": "leaps-hidden", "grade": true}
# Hidden tests: other pairs and times, against the law pushed through each leap (6 points).
### BEGIN HIDDEN TESTS
import hidden2 as hidden

hidden.leaps(law_of_leaps, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. This term's triples (12 points, 20 minutes)
#
# Now three tokens, with two words 0 and 1 at each place. These numbers are your course's own. Your notebook has them in the dictionary `world`.
#
# - `world["triples"]`, the probability $p(i, j, k)$ of each triple, as a list of lists of lists: {{triples}}
# - `world["leaps"]`, a number of leaps $K$: {{leaps}}
# - `world["goal"]`, a total variation: {{goal}}
#
# The sampler is that of problem 5, with three tokens and $K$ **equal** leaps, from $t = 1$ in steps of $1/K$. A token that appears is drawn from its exact conditional given the tokens that were visible before the leap. Compute
#
# - `law`: the probabilities of the eight triples that the sampler writes in $K$ leaps, a tensor or nested list of shape (2, 2, 2), right within 0.001;
# - `tv`: the total variation (half the sum of the absolute differences) between `law` and the triples, right within 0.001;
# - `needed`: the smallest number of equal leaps with a total variation of at most `goal`, a whole number.
#
# Hint: each token appears in a leap of its own choice, uniformly among the $K$. So all that matters is which tokens share a leap, and in which order the groups appear.
# Three cases have different laws: all three share a leap (probability $1/K^2$); no two do; a pair does and the third token does not ($(K-1)/K^2$ for each of the three pairs), where the pair is as often first as last.
# Check yourself: with $K = 1$ your law is the product of the marginals; for two tokens your method must give problem 5.

# %% nbgrader={"grade_id": "term", "solution": true}
### BEGIN SOLUTION
p = torch.tensor(world["triples"], dtype=torch.float64)


def law_of(K):
    one = [p.sum((1, 2)).reshape(2, 1, 1), p.sum((0, 2)).reshape(1, 2, 1), p.sum((0, 1))]
    result = (K - 1) * (K - 2) / K**2 * p + one[0] * one[1] * one[2] / K**2
    for alone in range(3):  # this token has a leap of its own, before or after the two others
        i, j = (d for d in range(3) if d != alone)
        both = one[i] * one[j] * p / p.sum(alone, keepdim=True)  # the pair first
        given = p.sum(i, keepdim=True) * p.sum(j, keepdim=True) / one[alone]  # the pair last
        result = result + (K - 1) / K**2 / 2 * (both + given)
    return result


def tv_of(K):
    return (law_of(K) - p).abs().sum().item() / 2


law, tv, needed = law_of(world["leaps"]), tv_of(world["leaps"]), 1
while tv_of(needed) > world["goal"]:
    needed += 1
### END SOLUTION

# %% nbgrader={"grade_id": "term-visible", "grade": true}
import tests2 as tests

tests.term(law, tv, needed, points=3)

# %% nbgrader={"grade_id": "term-hidden", "grade": true}
# Hidden tests: are the three answers right? (9 points)
### BEGIN HIDDEN TESTS
import hidden2 as hidden

hidden.term(law, tv, needed, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. Prove the 1/K law (10 points, 15 minutes, in words)
#
# Take two tokens, MASK noise, exact conditionals and $K$ equal leaps, as in problem 5. Prove that the total variation between the written pairs and the data is exactly $c/K$, and say what $c$ is in terms of $p$. Show also with which probability the two tokens share a leap, and why.
# Then say in one or two sentences why the likelihood bound of the same ratios does not depend on $K$.

# %% [markdown] nbgrader={"grade_id": "one_over_k", "grade": true, "solution": true, "points": 10}
# Each token appears in leap $k$ with probability $1/K$, whichever $k$: it is still hidden before the leap with probability $1 - (k-1)/K$ and then appears with probability $(1/K)/(1 - (k-1)/K)$. The two tokens choose independently, so they share a
# leap with probability $K \cdot (1/K)^2 = 1/K$. If they do, both are drawn with nothing visible, from their marginals: the pair has the law $p_1 p_2$. If they do not, the first one is drawn from its marginal and the second
# from its conditional given the first: the pair has the law $p$. So the law is $(1 - 1/K)\,p + (1/K)\,p_1 p_2$. Its difference from $p$ is $(p_1 p_2 - p)/K$, and the total variation is $c/K$ with $c$ the total variation between
# $p_1 p_2$ and $p$, which is 0 only for independent tokens. The bound is about the chain in continuous time, in which two tokens never jump at the same moment; it contains the ratios and no number of leaps.

# %% [markdown]
# ## 8. A loss that does not go to zero (10 points, 13 minutes, in words)
#
# A classmate trains two networks on the same text and reads off their losses on fresh text, each an average of the denoising loss (A's with the constant $K$), integrated over the noise levels
# (A's over all of them, from σ̄ = 0 to infinity; B's from 0.001 upwards). Network A, with score entropy on MASK noise, ends at 2.6 nats a token.
# Network B, with squared errors of the ratios (concrete score matching) on uniform noise, ends at 41. "Neither reached zero, so both learned badly, and B is sixteen times worse than A." What is wrong with each half of this conclusion? What is the lowest value that A's
# loss can have on average over texts, and how would you compare A and B fairly? Answer in four to six sentences.

# %% [markdown] nbgrader={"grade_id": "not_zero", "grade": true, "solution": true, "points": 10}
# The target of a denoising loss is the ratio given the original token, which a network that sees only the noisy text cannot know. So even with the exact ratios a positive rest remains, the spread of the targets, and a loss above zero is no sign of a bad network.
# For A we know this rest: with exact ratios the likelihood bound is an equality, so the average loss cannot fall below the entropy of the text per token (integrated to infinity, the bound has no prior term). Whether 2.6 is good depends on that number.
# B's loss is in squared ratios, not in nats; its rest is dominated by the rare large targets at small noise and depends on where the integral begins, so 41 and 2.6 cannot be divided by each other. To compare, put the ratios of both networks (B's only if they are positive) into the likelihood bound
# of their own noise, with the prior term and the whole integral, on the same held-out text, and compare nats a token with error bars.
