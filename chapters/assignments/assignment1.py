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
# # Assignment 1. Chains and time reversal
#
# You need chapters 00 and 01 (for problem 2 also "Numerics" in the laboratory of chapter 01). Plan 92 minutes. There are 100 points: 80 for code, which is graded by tests, and 20 for two answers in words.
#
# - Write your code where it says `# YOUR CODE HERE`, and delete `raise NotImplementedError()`.
# - Run the test cell below each problem as often as you like. It says what does not hold yet, and how many points you have so far. More points are given by hidden
#   tests, which use other chains, sizes and seeds. So an answer that fits only the visible numbers loses most of its points.
# - You may add cells. Cells that you cannot edit are restored before grading.
# - The problems do not depend on each other. You may solve them in any order.
#
# As in the chapters, $Q(y, x)$ is the rate of the jump $x \to y$, so that columns of $Q$ sum to 0, and σ̄ is the amount of noise. All tensors are float64 unless a problem says otherwise.

# %% nbgrader={"grade_id": "setup"}
import math

import torch

import grading
import tests1  # loaded before your cells run

world = grading.term()  # the numbers of problem 7

# %% [markdown]
# ## 1. A rate matrix from a list of jumps (10 points, 8 minutes)
#
# Write `rate_matrix(S, jumps)`. `jumps` is a list of triples `(x, y, rate)`: the token jumps from `x` to `y` at this rate. Return $Q$, float64 of shape (S, S). A jump may stand in
# the list twice, from two causes: then its rates add up. A jump that is not in the list has rate 0.

# %% nbgrader={"grade_id": "rates", "solution": true}
def rate_matrix(S, jumps):
    """Q of shape (S, S), from a list of (x, y, rate)."""
    ### BEGIN SOLUTION
    Q = torch.zeros(S, S, dtype=torch.float64)
    for x, y, rate in jumps:
        Q[y, x] += rate
        Q[x, x] -= rate
    return Q
    ### END SOLUTION

# %% nbgrader={"grade_id": "rates-visible", "grade": true}
import tests1 as tests

tests.rates(rate_matrix, points=4)

# %% nbgrader={"grade_id": "rates-hidden", "grade": true}
# Hidden tests: other chains (6 points).
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.rates(rate_matrix, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A kernel by halves (15 points, 15 minutes)
#
# Noise may come in instalments: the kernel for σ̄ is the square of the kernel for σ̄/2. For a very small σ̄ the kernel is nearly $I + \bar\sigma Q$. Put the two together: write `kernel(Q, sigma)`, the forward
# kernel $\exp(\bar\sigma Q)$ of any rate matrix, **without** `torch.matrix_exp` (the tests switch it off). `sigma` is a number, from 0 to 100.
# Every entry must be right within $10^{-6}$. Half of the hidden points are for fast chains with rates up to 100, for which a few halvings are not enough.
# The function `exp_better` in the laboratory of chapter 01 has a fixed number of them, 8; how many are needed depends on σ̄ and $Q$. Too many halvings lose digits as well, since each squaring doubles the rounding error.

# %% nbgrader={"grade_id": "kernel", "solution": true}
def kernel(Q, sigma):
    """exp(sigma Q), shape (S, S), to 1e-6, from sums and products of matrices."""
    ### BEGIN SOLUTION
    size = max(1.0, float(sigma * Q.abs().sum(0).max()))
    halvings = math.ceil(math.log2(size)) + 6
    A = Q * sigma / 2**halvings
    K = term_ = torch.eye(len(Q), dtype=Q.dtype)
    for n in range(1, 9):  # the series, for a matrix of norm at most 1/64
        term_ = term_ @ A / n
        K = K + term_
    for _ in range(halvings):
        K = K @ K
    return K
    ### END SOLUTION

# %% nbgrader={"grade_id": "kernel-visible", "grade": true}
import tests1 as tests

tests.kernel(kernel, points=6)

# %% nbgrader={"grade_id": "kernel-hidden", "grade": true}
# Hidden tests: other chains, slow and fast (9 points).
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.kernel(kernel, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The law of a jump time (12 points, 8 minutes)
#
# Noise follows the schedule $\bar\sigma(t) = a\,t^2$, with $a > 0$. At time $s$ a token is in a state that it leaves at the total rate $q$ per unit of σ̄. It stays there until a random time $T > s$.
#
# - Write `still_there(t, q, a, s)`, the probability that $T > t$, for $t \ge s$.
# - Write `jump_time(u, q, a, s)`, the time $t$ for which this probability is `u`. With `u` uniform between 0 and 1 these are draws of $T$.
#
# `t` and `u` are tensors of any shape; `q`, `a` and `s` are numbers.

# %% nbgrader={"grade_id": "jump_time", "solution": true}
def still_there(t, q, a, s):
    """P(T > t), shape of t."""
    ### BEGIN SOLUTION
    return torch.exp(-q * a * (t**2 - s**2))
    ### END SOLUTION


def jump_time(u, q, a, s):
    """The t with P(T > t) = u, shape of u."""
    ### BEGIN SOLUTION
    return torch.sqrt(s**2 - torch.log(u) / (q * a))
    ### END SOLUTION

# %% nbgrader={"grade_id": "jump_time-visible", "grade": true}
import tests1 as tests

tests.jump_time(still_there, jump_time, points=5)

# %% nbgrader={"grade_id": "jump_time-hidden", "grade": true}
# Hidden tests: other rates and starting times (7 points).
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.jump_time(still_there, jump_time, points=7)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. One large step back (15 points, 10 minutes)
#
# Chapter 01 walks back in small steps of size $h$, and its step is wrong for a large one. With Bayes' rule one step can be exact for every $h$. A token is at `x` when the noise is σ̄. Write
# `step_back(x, ratios, Q, h)`: the probabilities of each state $y$ that it may have had at noise $\bar\sigma - h$, shape (S,).
#
# You are given the ratios at the noise σ̄, $\;$ `ratios[y]` $= p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$, $\;$ the rate matrix `Q` and `h`. Two facts help: $p_{\bar\sigma} = \exp(hQ)\, p_{\bar\sigma-h}$, and
# the inverse of $\exp(hQ)$ is $\exp(-hQ)$. Here you may use `torch.matrix_exp`. In the tests $h$ times the rates is at most about 5, so float64 has digits enough. Partial credit: a step that is right to first order in $h$ keeps the points of the tests with a tiny $h$.

# %% nbgrader={"grade_id": "step_back", "solution": true}
def step_back(x, ratios, Q, h):
    """P(was y | is x), shape (S,), exact for every h ≥ 0. x: an int; ratios (S,); Q (S, S)."""
    ### BEGIN SOLUTION
    before = torch.matrix_exp(-h * Q) @ ratios  # p(y) at less noise, divided by p(x) at more
    return torch.matrix_exp(h * Q)[x] * before
    ### END SOLUTION

# %% nbgrader={"grade_id": "step_back-visible", "grade": true}
import tests1 as tests

tests.step_back(step_back, points=6)

# %% nbgrader={"grade_id": "step_back-hidden", "grade": true}
# Hidden tests: other chains and sizes (9 points).
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.step_back(step_back, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. A chain of your own (10 points, 12 minutes)
#
# Design noise that goes round in one direction. Write `one_way(mixture)`: given a distribution over S states, all positive, return a rate matrix $Q$ (S, S) for which
#
# - `mixture` is stationary: $Q\,p = 0$ for $p$ = `mixture`;
# - a token jumps once per unit of σ̄ on average when it is distributed like `mixture` (that is, $\sum_x p(x)\,|Q(x, x)| = 1$);
# - whenever the jump $x \to y$ is possible, the jump $y \to x$ is not;
# - every state can be reached from every other one.
#
# S is 3 or more. There is more than one answer.

# %% nbgrader={"grade_id": "one_way", "solution": true}
def one_way(mixture):
    """A rate matrix (S, S) without any pair of opposite jumps, with this stationary mixture."""
    ### BEGIN SOLUTION
    S = len(mixture)
    Q = torch.zeros(S, S, dtype=mixture.dtype)
    for x in range(S):
        rate = 1 / (S * mixture[x])  # each arrow carries 1/S of the flow
        Q[(x + 1) % S, x] += rate
        Q[x, x] -= rate
    return Q
    ### END SOLUTION

# %% nbgrader={"grade_id": "one_way-visible", "grade": true}
import tests1 as tests

tests.one_way(one_way, points=4)

# %% nbgrader={"grade_id": "one_way-hidden", "grade": true}
# Hidden tests: other mixtures and sizes (6 points).
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.one_way(one_way, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. The loss of the page, in bits (6 points, 5 minutes)
#
# Chapter 00 hides a share $t$ of the words of each text and counts the surprise at hidden words only. Write `bits_a_word(surprise, hidden, t)`: the page's loss in **bits** a word. `surprise` (B, L) is
# $-\log p$ of each true word in nats (float32 here, as on the page), `hidden` (B, L) is True where the word was hidden, and `t` (B,) is the share of each text.

# %% nbgrader={"grade_id": "page", "solution": true}
def bits_a_word(surprise, hidden, t):
    """The page's loss in bits a word, a number. surprise, hidden (B, L); t (B,)."""
    ### BEGIN SOLUTION
    return (surprise * hidden / t[:, None]).mean() / math.log(2)
    ### END SOLUTION

# %% nbgrader={"grade_id": "page-visible", "grade": true}
import tests1 as tests

tests.page(bits_a_word, points=2)

# %% nbgrader={"grade_id": "page-hidden", "grade": true}
# Hidden tests: other texts and shares (4 points).
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.page(bits_a_word, points=4)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. This term's chain (12 points, 12 minutes)
#
# These numbers are your course's own. Your notebook has them in the dictionary `world`.
#
# - `world["rates"]`, the matrix $Q$, row by row: {{rates}}
# - `world["data"]`, the distribution $p_0$ of the data: {{data}}
# - `world["sigma"]`, an amount of noise σ̄: {{sigma}}
# - `world["state"]`, a state $x$: {{state}}
#
# Compute three lists of numbers, each right within 0.001:
#
# - `stationary`: the stationary distribution of $Q$;
# - `noisy`: the distribution $p_{\bar\sigma}$ after this noise;
# - `back`: the reverse rates $\bar Q(y, x)$ out of state $x$ at this σ̄, one for each $y$; the entry at $y = x$ makes their sum 0.
#
# Make float64 tensors of the lists in `world`.

# %% nbgrader={"grade_id": "term", "solution": true}
### BEGIN SOLUTION
Q = torch.tensor(world["rates"], dtype=torch.float64)
p0 = torch.tensor(world["data"], dtype=torch.float64)
stationary = torch.matrix_exp(1000 * Q)[:, 0].tolist()
p = torch.matrix_exp(world["sigma"] * Q) @ p0
noisy = p.tolist()
x = world["state"]
back = Q[x] * p / p[x]
back[x] = 0
back[x] = -back.sum()
back = back.tolist()
### END SOLUTION

# %% nbgrader={"grade_id": "term-visible", "grade": true}
import tests1 as tests

tests.term(stationary, noisy, back, world, points=3)

# %% nbgrader={"grade_id": "term-hidden", "grade": true}
# Hidden tests: are the numbers right? (9 points)
### BEGIN HIDDEN TESTS
import hidden1 as hidden

hidden.term(stationary, noisy, back, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. Why ratios? (10 points, 10 minutes, in words)
#
# A network is to learn what the reverse process needs. Why is it enough to learn the ratios $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$, for which sequences $y$ are they needed, and what is gained over learning
# the probabilities themselves? What else does the reverse process need to start? Answer in four to six sentences.

# %% [markdown] nbgrader={"grade_id": "why_ratios", "grade": true, "solution": true, "points": 10}
# The rate of the reverse jump from $x$ to $y$ is the forward rate from $y$ to $x$ times $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$. The forward rates are ours, so the data enter through this ratio alone.
# It is needed for those $y$ from which a forward jump to $x$ is possible. Noise changes one token at a time, so these are neighbours of $x$, which differ from it in one token.
# A probability would have to be normalised by a sum over all sequences, which nobody can compute; in a ratio this constant cancels. To start, the process needs a draw from $p_{\bar\sigma}$ at the largest noise.
# For enough noise this tends to the stationary distribution, which is known without the data.

# %% [markdown]
# ## 9. Two words in one step (10 points, 12 minutes, in words)
#
# Noise treats the two words of a pair independently. A friend concludes: "So the noisy words are independent, and the way back may treat each word on its own, in steps as large as I like." What is right, what is
# wrong, and what does a small step change? Use the fact that a step of size $h$ moves both words with a probability of order $h^2$. Answer in four to six sentences.

# %% [markdown] nbgrader={"grade_id": "two_words", "grade": true, "solution": true, "points": 10}
# Right: given the clean pair, each word jumps without looking at the other, so the kernel of the pair is a product. Wrong: the noisy words are not independent, because the clean words were not; the noise weakens
# the dependence but does not remove it at any finite σ̄. Going back, the rate of each word's jump depends on the current value of the other word. In a large step both words may move at once, each by a rate that
# assumes that the other one stays, and so the pair may become one that the data do not have. In a small step both move with a probability of order $h^2$ only. There are of order $1/h$ steps, so the total error is of
# order $h$ and vanishes as $h \to 0$.
