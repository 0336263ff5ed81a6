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
# # Assignment 3. The bug museum
#
# You need chapters 03 to 07, with three sections of chapter 05's laboratory: "Epochs" (problem 2), "Float32" (problems 1 and 7) and "The first number" (problem 8). Plan 116 minutes.
# There are 100 points: 80 for code, which is graded by tests, and 20 for two answers in words.
#
# Every exhibit of this museum is a mistake that public implementations have made, cut down to a few lines. Each one runs without an error and looks right on small examples. Show what is wrong, measure it, and repair it.
#
# - Write your code where it says `# YOUR CODE HERE`, and delete `raise NotImplementedError()`.
# - Run the test cell below each problem as often as you like. It says what does not hold yet, and how many points you have so far. More points are given by hidden
#   tests, which use other worlds, sizes and seeds. So an answer that fits only the visible numbers loses most of its points.
# - You may add cells. Cells that you cannot edit, the exhibits among them, are restored before grading.
# - The problems do not depend on each other. You may solve them in any order.
#
# Three problems ask for a **check**: a function `check_…(f)` that tries a function `f`, raises `AssertionError` if `f` is wrong, and returns without an error if `f` is right. The hidden tests give your check several
# right functions, which differ in style and in rounding, and several broken ones, which have the exhibit's mistake or another one. A check that fails for a right function earns nothing, and neither does one that never fails.
# An `f` that fails with another error, or returns nothing, is wrong too: call it as `call(f, …)`, which is given in the first cell and turns that into `AssertionError`. The number type (dtype) of its result does not count.
# With the helpers that each problem gives, a check takes four to eight lines. The thinking goes into *which* inputs show a mistake.
#
# σ̄ is the amount of noise, and all logarithms are natural unless a problem says bits.

# %% nbgrader={"grade_id": "setup"}
import math

import torch

import grading
import tests3  # loaded before your cells run

world = grading.term()  # the numbers of problem 6


def call(f, *arguments):
    """f(*arguments) as a tensor; AssertionError if f raises an error or returns no numbers."""
    try:
        return torch.as_tensor(f(*arguments))
    except Exception as error:
        raise AssertionError(f"f fails: {error!r}") from error

# %% [markdown]
# ## 1. Lost digits (18 points, 21 minutes)
#
# On the uniform graph a network may output $\pi_y$, the probability that the original word is $y$. Noise mixes it with a uniform word, and the ratio is
#
# $$\frac{c_y}{c_x}, \qquad c_y = e^{-\bar\sigma}\, \pi_y + \frac{1 - e^{-\bar\sigma}}{N} .$$
#
# The exhibit computes its logarithm in float32. At σ̄ = 0.1 it is right to six digits, and at $\bar\sigma = 10^{-8}$ it is useless.

# %% nbgrader={"grade_id": "ratios-exhibit"}
def museum_log_ratios(log_pi, sigma, x):
    """log (c_y / c_x), (B, L, N). log_pi (B, L, N) and sigma (B, 1) float32, words x (B, L)."""
    moved = (1 - torch.exp(-sigma))[..., None]  # (B, 1, 1)
    c = (1 - moved) * log_pi.exp() + moved / log_pi.shape[-1]
    return (c / c.gather(-1, x[..., None])).log()


def some_words(N, level):
    """Inputs to try: log_pi (4, 3, N), sigma (4, 1) all equal to level, and x (4, 3).

    The probabilities are random, but for log_pi[0], where word 0 has probability 1.
    """
    generator = torch.Generator().manual_seed(0)
    log_pi = (3 * torch.randn(4, 3, N, generator=generator)).log_softmax(-1)
    log_pi[0], log_pi[0, :, 0] = -math.inf, 0.0
    return log_pi, torch.full((4, 1), level), torch.randint(N, (4, 3), generator=generator)

# %% [markdown]
# Write three functions. For σ̄ from $10^{-9}$ to 20 and N up to 1000 a result is right if it is within $10^{-4}$ of the true logarithm. A probability in `log_pi` may be 0, which makes its logarithm $-\infty$, and some may be 1.
#
# - `log_ratios(log_pi, sigma, x)`, the exhibit repaired. Find the operation that loses the digits, and do without it. (A switch to float64 gets the points too, but the same mistake waits there at smaller noise.)
# - `bits_off(f, log_pi, sigma, x)`, a number: the largest absolute error of the log-ratios `call(f, log_pi, sigma, x)` over all entries, in **bits** (`math.inf` if any of f's log-ratios is NaN or infinite).
#   As the truth take the exhibit with float64 inputs, which is right to six digits down to $\bar\sigma = 10^{-9}$.
# - `check_log_ratios(f)`, a check as described at the top. `some_words(N, level)` gives inputs, and `bits_off` measures. Which vocabularies and which levels show a mistake?

# %% nbgrader={"grade_id": "ratios", "solution": true}
def log_ratios(log_pi, sigma, x):
    """log (c_y / c_x), (B, L, N)."""
    ### BEGIN SOLUTION
    moved = -torch.expm1(-sigma)[..., None]
    c = torch.exp(-sigma)[..., None] * log_pi.exp() + moved / log_pi.shape[-1]
    log_c = c.log()
    return log_c - log_c.gather(-1, x[..., None])
    ### END SOLUTION


def bits_off(f, log_pi, sigma, x):
    """The largest error of f's log-ratios, in bits."""
    ### BEGIN SOLUTION
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = call(f, log_pi, sigma, x).double()
    if not found.isfinite().all():
        return math.inf
    return (found - true).abs().max().item() / math.log(2)
    ### END SOLUTION


def check_log_ratios(f):
    """Raises AssertionError if f is not a right log_ratios."""
    ### BEGIN SOLUTION
    for N in (2, 7, 1000):
        for level in (1e-9, 3e-8, 1e-6, 1e-3, 0.5, 20.0):
            off = bits_off(f, *some_words(N, level))
            assert off * math.log(2) < 1e-4, f"N = {N}, σ̄ = {level}: {off} bits off"
    ### END SOLUTION

# %% nbgrader={"grade_id": "ratios-visible", "grade": true}
import tests3 as tests

tests.ratios(log_ratios, bits_off, check_log_ratios, museum_log_ratios, points=7)

# %% nbgrader={"grade_id": "ratios-hidden", "grade": true}
# Hidden tests: other levels and vocabularies, and a row of functions for your check (11 points).
### BEGIN HIDDEN TESTS
import hidden3 as hidden

hidden.ratios(log_ratios, bits_off, check_log_ratios, points=11)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. An epoch that misses blocks (16 points, 16 minutes)
#
# `ranks` processes train together. At each step each of them reads one block out of `M`, where `M` is a multiple of `ranks`. An epoch takes `M // ranks` steps, and in an epoch the processes together should read every block exactly once, in an
# order that is new in each epoch. Here is how one training script chose the block.

# %% nbgrader={"grade_id": "order-exhibit"}
def museum_block(step, rank, ranks, M, seed):
    """The number of the block that process `rank` (0 … ranks - 1) reads at `step` (0, 1, …), an int."""
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed + rank))
    return order[step % (M // ranks)].item()


def read_in_epoch(f, number, ranks, M, seed):
    """The blocks that all processes read in epoch `number` (0, 1, …), in order: a list of ints."""
    steps = range(number * (M // ranks), (number + 1) * (M // ranks))
    return [int(call(f, step, rank, ranks, M, seed)) for step in steps for rank in range(ranks)]

# %% [markdown]
# - Write `block(step, rank, ranks, M, seed)`, the exhibit repaired. The result must be a function of the five arguments alone, so that a run can be resumed at any step. Another `seed` must give another order.
# - Write `never_read(ranks)`: the expected share of the blocks that **no** process of the exhibit reads in an epoch. (With 2 processes it is a quarter.)
# - Write `check_block(f)`, a check as described at the top. An epoch must be complete. Two epochs of one seed, or one epoch under two seeds, must not have the same order; nothing more is asked of the order.
#   An order of as few as three blocks may repeat by chance, so take more. `read_in_epoch` collects an epoch. You need not call `f` twice with the same arguments: no function that your check meets has a memory.

# %% nbgrader={"grade_id": "order", "solution": true}
def block(step, rank, ranks, M, seed):
    """The number of the block that this process reads at this step, an int."""
    ### BEGIN SOLUTION
    epoch, place = divmod(step * ranks + rank, M)
    generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
    return torch.randperm(M, generator=generator)[place].item()
    ### END SOLUTION


def never_read(ranks):
    """The expected share of blocks that no process reads in an epoch of the exhibit."""
    ### BEGIN SOLUTION
    return (1 - 1 / ranks) ** ranks
    ### END SOLUTION


def check_block(f):
    """Raises AssertionError if f is not a right block."""
    ### BEGIN SOLUTION
    first, second, other = (read_in_epoch(f, number, 4, 32, seed) for number, seed in ((0, 5), (1, 5), (0, 6)))
    for order in (first, second, other):
        assert sorted(order) == list(range(32)), "a block is read twice, or never"
    assert first != second, "two epochs have the same order"
    assert first != other, "two seeds have the same order"
    ### END SOLUTION

# %% nbgrader={"grade_id": "order-visible", "grade": true}
import tests3 as tests

tests.order(block, never_read, check_block, museum_block, points=6)

# %% nbgrader={"grade_id": "order-hidden", "grade": true}
# Hidden tests: other sizes and seeds, and a row of functions for your check (10 points).
### BEGIN HIDDEN TESTS
import hidden3 as hidden

hidden.order(block, never_read, check_block, points=10)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. Text that never arrives (12 points, 17 minutes)
#
# Documents are packed: laid end to end in one stream, with one end-of-text token **between** two documents, and cut into blocks of `L` tokens. Only an incomplete block at the very end of all text is dropped. Data libraries map a function over
# the documents, some documents at a time, and this one packs each such batch by itself.

# %% nbgrader={"grade_id": "packing-exhibit"}
def museum_pack(documents, L, eot, batch=2):
    """Blocks (n, L) of int64. documents: lists of tokens; eot: the end-of-text token."""
    blocks = []
    for start in range(0, len(documents), batch):
        stream = []
        for document in documents[start : start + batch]:
            stream += [*document, eot]
        blocks += [stream[i : i + L] for i in range(0, len(stream) - L + 1, L)]
    return torch.tensor(blocks, dtype=torch.int64).reshape(-1, L)

# %% [markdown]
# - Write `pack(documents, L, eot)`, repaired. `documents` holds at least one list, and no list is empty. If there is not enough text for one block, the result has shape (0, L).
# - Write `blocks_lost(lengths, L, batch)`: how many blocks fewer the exhibit returns than `pack`, for documents of these lengths. It is a whole number, and it may be negative.
# - Write `check_pack(f)`, a check as described at the top; `f` has the arguments of `pack`. A few documents of which you know the blocks are enough (those of the visible test do not show the mistake); `grading.close(call(f, …), want, "the blocks")` raises
#   `AssertionError` unless shape and values are those of `want`, a list or a tensor. Besides the exhibit's mistake, think of the first and the last token of the stream and of its incomplete last block.

# %% nbgrader={"grade_id": "packing", "solution": true}
def pack(documents, L, eot):
    """Blocks (n, L) of int64: one stream, with an end-of-text token between documents."""
    ### BEGIN SOLUTION
    stream = list(documents[0])
    for document in documents[1:]:
        stream += [eot, *document]
    return torch.tensor(stream[: len(stream) // L * L], dtype=torch.int64).reshape(-1, L)
    ### END SOLUTION


def blocks_lost(lengths, L, batch):
    """How many blocks the exhibit returns fewer than pack."""
    ### BEGIN SOLUTION
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return (sum(lengths) + len(lengths) - 1) // L - sum((sum(b) + len(b)) // L for b in batches)
    ### END SOLUTION


def check_pack(f):
    """Raises AssertionError if f is not a right pack."""
    ### BEGIN SOLUTION
    for documents, L, want in (
        ([[1, 2], [3], [4, 5], [6], [7, 8]], 3, [[1, 2, 0], [3, 0, 4], [5, 0, 6], [0, 7, 8]]),
        ([[1, 2], [3]], 3, [[1, 2, 0]]),  # the last block is incomplete
        ([[1, 2], [3]], 5, torch.zeros(0, 5)),  # one token is missing
    ):
        grading.close(call(f, documents, L, 0), want, "the blocks")
    ### END SOLUTION

# %% nbgrader={"grade_id": "packing-visible", "grade": true}
import tests3 as tests

tests.packing(pack, blocks_lost, check_pack, museum_pack, points=5)

# %% nbgrader={"grade_id": "packing-hidden", "grade": true}
# Hidden tests: other documents, and a row of functions for your check (7 points).
### BEGIN HIDDEN TESTS
import hidden3 as hidden

hidden.packing(pack, blocks_lost, check_pack, points=7)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Precision in the wrong place (12 points, 15 minutes)
#
# A large network multiplies in bfloat16, which is fast, and keeps its log-scores in float32, which is precise enough. Two exhibits have it the wrong way round. The first wants to multiply in bfloat16 and does not: `autocast` acts on the operations that *run*
# inside its block, and here only a definition runs there. The second computes in bfloat16 what should be in float32: it subtracts $\log(e^{\bar\sigma} - 1) + \log N$, the known part of the log-scores on the absorbing graph ("scale by σ"). It also fails
# where $e^{\bar\sigma}$ is too large for a float.

# %% nbgrader={"grade_id": "precision-exhibit"}
def museum_product(weight):
    """A function of features h (…, D) that returns h @ weight.T, computed in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):

        def product(h):
            return h @ weight.T

    return product


def museum_log_scores(logits, sigma):
    """logits (B, L, N) minus the known part, float32. logits: bfloat16; sigma (B,) float32."""
    known = torch.log(torch.exp(sigma) - 1) + math.log(logits.shape[-1])
    return (logits - known.to(logits.dtype)[:, None, None]).float()

# %% [markdown]
# - Write `make_product(weight)` and `log_scores(logits, sigma)`, both repaired. Calling `make_product` or its product must not change autocast outside of the product. `log_scores` must use the exact value of each bfloat16 logit (no further
#   rounding), with an error of at most $10^{-5} \cdot (1 + |\text{result}|)$, for σ̄ from $10^{-6}$ to 200.
# - Write `ratio_error(size)`. Log-scores whose absolute value lies between `size` and 2 · `size`, where `size` is a power of two, are rounded to the nearest bfloat16, which keeps 8 significant bits. By which share can a *ratio* be too large, at most?
#   (For sizes from 8 to 16 it is about 3 per cent, 0.03.)

# %% nbgrader={"grade_id": "precision", "solution": true}
def make_product(weight):
    """A function of features h (…, D) that returns h @ weight.T, computed in bfloat16."""
    ### BEGIN SOLUTION

    def product(h):
        with torch.autocast("cpu", torch.bfloat16):
            return h @ weight.T

    return product
    ### END SOLUTION


def log_scores(logits, sigma):
    """logits (B, L, N) minus the known part, float32. logits: bfloat16; sigma (B,) float32."""
    ### BEGIN SOLUTION
    known = sigma + torch.log(-torch.expm1(-sigma)) + math.log(logits.shape[-1])
    return logits.float() - known[:, None, None]
    ### END SOLUTION


def ratio_error(size):
    """The largest relative error of a ratio, a number such as 0.03."""
    ### BEGIN SOLUTION
    return math.expm1(size / 2**8)  # neighbours lie size / 2^7 apart
    ### END SOLUTION

# %% nbgrader={"grade_id": "precision-visible", "grade": true}
import tests3 as tests

tests.precision(make_product, log_scores, ratio_error, points=5)

# %% nbgrader={"grade_id": "precision-hidden", "grade": true}
# Hidden tests: other shapes, levels and sizes (7 points).
### BEGIN HIDDEN TESTS
import hidden3 as hidden

hidden.precision(make_product, log_scores, ratio_error, points=7)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. A number without its unit (8 points, 4 minutes)
#
# An evaluation has $-\log p$ of each document in nats, its number of tokens and its number of characters. The exhibit reports three numbers for the corpus. All three are wrong: documents are averaged as if they were equally long, an exponential is
# averaged, a division is missing, or a unit is missing.

# %% nbgrader={"grade_id": "meter-exhibit"}
def museum_report(nats, tokens, characters):
    """(nats a token, perplexity a token, bits a character) of a corpus. All inputs (M,)."""
    return nats.mean(), (nats / tokens).exp().mean(), (nats / characters).mean()

# %% [markdown]
# Write `report(nats, tokens, characters)`, repaired. A corpus counts as one long text: its $-\log p$ is the sum over the documents. The perplexity is $e$ to the power of the nats a token. Each of the three numbers gives a third of the points.

# %% nbgrader={"grade_id": "meter", "solution": true}
def report(nats, tokens, characters):
    """(nats a token, perplexity a token, bits a character) of the corpus."""
    ### BEGIN SOLUTION
    a_token = nats.sum() / tokens.sum()
    return a_token, a_token.exp(), nats.sum() / characters.sum() / math.log(2)
    ### END SOLUTION

# %% nbgrader={"grade_id": "meter-visible", "grade": true}
import tests3 as tests

tests.meter(report, points=3)

# %% nbgrader={"grade_id": "meter-hidden", "grade": true}
# Hidden tests: another corpus (5 points).
### BEGIN HIDDEN TESTS
import hidden3 as hidden

hidden.meter(report, points=5)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. This term's exhibit: only damaged words count (14 points, 17 minutes)
#
# With MASK noise only hidden words have a loss. Somebody keeps this habit for uniform noise: their denoising score entropy skips each token that still has its original value, $x = x_0$. The training runs well and finds wrong ratios.
# Take a single token with $N$ words on the uniform graph. These numbers are your course's own. Your notebook has them in the dictionary `world`.
#
# - `world["data"]`, the distribution $p_0$ of the $N$ words: {{data}}
# - `world["sigma"]`, the amount of noise σ̄: {{sigma}}
# - `world["state"]`, a noisy word $x$: {{state}}
#
# Assume a network so large that it finds the minimum of its loss for every noisy word. Compute, each right within 0.001 (absolute, or relative if the number is above 1),
#
# - `true`: the true ratios $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$ at $x$ = `state`, a list with one number for each $y$, 1 at $y = x$;
# - `learned`: the ratios that the broken loss finds at this $x$, a list in the same form. Hint: score entropy finds the mean of its target. Over which originals is the mean taken here?
# - `excess`: the price of the mistake in **bits** per unit of σ̄, $\;\sum_x p_{\bar\sigma}(x) \sum_{y \ne x} \frac1N \big( s_y - r_y \log s_y + K(r_y) \big)$, with the true ratios as $r$, the learned ones as $s$ and $K(r) = r(\log r - 1)$, now for *every* $x$.

# %% nbgrader={"grade_id": "term", "solution": true}
### BEGIN SOLUTION
p0 = torch.tensor(world["data"], dtype=torch.float64)
sigma, state, N = world["sigma"], world["state"], len(p0)
kernel = math.exp(-sigma) * torch.eye(N) + (1 - math.exp(-sigma)) / N  # p(y | a): row y, column a
p = kernel.double() @ p0


def learned_at(x):
    weight = p0 * kernel[x]  # of each original a
    weight[x] = 0
    ratios = kernel @ (weight / kernel[x]) / weight.sum()
    ratios[x] = 1
    return ratios


kernel = kernel.double()
true, learned = (p / p[state]).tolist(), learned_at(state).tolist()
excess = 0.0
for x in range(N):
    r, s = p / p[x], learned_at(x)
    terms = s - r * s.log() + r * (r.log() - 1)
    terms[x] = 0
    excess += (p[x] * terms.sum() / N / math.log(2)).item()
### END SOLUTION

# %% nbgrader={"grade_id": "term-visible", "grade": true}
import tests3 as tests

tests.term(true, learned, excess, world, points=4)

# %% nbgrader={"grade_id": "term-hidden", "grade": true}
# Hidden tests: are the three answers right? (10 points)
### BEGIN HIDDEN TESTS
import hidden3 as hidden

hidden.term(true, learned, excess, points=10)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. A repair that hides (10 points, 14 minutes, in words)
#
# A run on the uniform graph with $N$ = 50 000 computes the smallest ratio as $q = 1 - N/((e^{\bar\sigma} - 1) + N)$ in float32. Its loss at the tokens that noise has not moved is
#
# ```python
# loss = (s.sum(-1) - q * log_s.sum(-1) + (N - 1) * q * (q.log() - 1)) / N  # s = log_s.exp(); all y ≠ x
# ```
#
# At small noise $q$ comes out as 0, and this loss is NaN. A colleague writes `loss = torch.nan_to_num(loss, nan=0.0)` before the mean and the backward pass; PyTorch passes no gradient where this has replaced a NaN. The log looks healthy again.
#
# What is the gradient in `log_s` of these tokens (up to a constant factor) without the colleague's line, what is it with the line, and what should it be? How would you compute $q$, and which test would have found the mistake before the run?
# Answer in about five sentences.

# %% [markdown] nbgrader={"grade_id": "hides", "grade": true, "solution": true, "points": 10}
# The NaN stands in the constant K(q) = q(log q - 1), because 0 · log 0 is NaN in floating point. The constant does not depend on the network, so without the line the gradient in log s is finite: it is proportional to s - q with 0 in the place of q, where it should be s minus the true q.
# So every score is pushed down, the perfect ones too, towards a ratio of 0. With the line the gradient of these tokens is 0: at small noise they teach nothing any more, and what the network says about them is carried over from larger noise. Neither is right, and a number that
# could have warned is gone. I would compute q as (e^σ̄ - 1)/((e^σ̄ - 1) + N), with expm1, so that nothing is subtracted from 1. A test at the real N in float32, over the whole range of σ̄ and against float64, would have found it; so would an assertion that every loss is finite, or that perfect
# scores have a gradient of 0.

# %% [markdown]
# ## 8. The first number of three logs (10 points, 12 minutes, in words)
#
# Three people start to train the same untrained network on the absorbing graph: $N$ = 4096 words, $L$ = 256 tokens, log-linear noise, "scale by σ", last layer zero. By chapter 05 such a network costs nearly $\ln N$ nats a token, whatever the text.
# The means of their first hundred losses, before any learning, are 2129, 12.0 and 4.2. Which of the three runs may be right, and in which units are they? Which one would you stop, and which mistake could have caused its number?
# Name one measurement, cheap and made before training, that would tell you where to look. Answer in four or five sentences.

# %% [markdown] nbgrader={"grade_id": "three_logs", "grade": true, "solution": true, "points": 10}
# The first loss should be nearly ln 4096 = 8.32 nats a token. In nats a sequence this is 256 · 8.32 = 2129, and in bits a token 12.0, so these two runs agree and differ in their units only.
# 4.2 is half of 8.32 and fits none of these units: in nats a token it must be 8.3, in bits a token 12, and a sum over a sequence is in the thousands. So I would stop the third run. Its noise levels or positions have a wrong weight: without the rate σ(t), for instance, the expected loss at time t is
# (1 - t) ln N instead of ln N, and its mean over t is just one half. To see where it comes from, evaluate the untrained loss at single times t, which with log-linear noise must all give ln N. A slope points to the rate, and a constant factor to the mean over positions or to the noise.
