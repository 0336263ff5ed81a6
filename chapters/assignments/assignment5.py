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
# # Assignment 5. Samplers and precision
#
# You need chapters 08 and 09. Plan 120 minutes. There are 100 points: 80 for code, which is graded by tests, and 20 for two answers in words.
#
# - Write your code where it says `# YOUR CODE HERE`, and delete `raise NotImplementedError()`.
# - Run the test cell below each problem as often as you like. It says what does not hold yet, and how many points you have so far. More points are given by hidden
#   tests, which use other worlds, sizes and seeds. So an answer that fits only the visible numbers loses most of its points.
# - You may add cells. Cells that you cannot edit are restored before grading.
# - The problems do not depend on each other. You may solve them in any order.
#
# Noise is written σ̄, a ratio $s_y$ is $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$, and **bits** are logarithms to base 2. All tensors are float64 unless a problem says otherwise.

# %% nbgrader={"grade_id": "setup"}
import math
from itertools import pairwise

import torch

import grading
import tests5  # the tests, and three helpers; loaded before your cells run

world = grading.term()  # the numbers of problem 6

# %% [markdown]
# ## 1. The best leap, and what it costs (14 points, 15 minutes)
#
# Chapter 08 shows that every leap which moves each token on its own pays the total correlation, and that Tweedie's leap pays nothing else. You will compute both parts of the error, for any number of tokens, and so see how
# much of it belongs to Euler alone.
#
# `joint` is the true joint law of where the tokens were, given the present text: a tensor with one axis for each of $d$ tokens, whose sum is 1. `rows` is a list of $d$ laws: a leap draws token $i$ from `rows[i]`,
# without looking at the others. Write `price(joint, rows)`, which returns two numbers in **bits**:
#
# - `shared`: the KL divergence of `joint` from the product of its own marginals, which every such leap pays;
# - `own`: the sum over tokens of the KL divergence of the true marginal from `rows[i]`, which is 0 for Tweedie's leap.
#
# Some entries of `joint` may be 0, and add nothing. If a row gives probability 0 to a value that can occur, `own` is infinite (`math.inf`). Partial credit: an answer for two tokens only keeps 10 points.

# %% nbgrader={"grade_id": "price", "solution": true}
def price(joint, rows):
    """(shared, own) in bits. joint: d axes, sums to 1; rows: a list of d tensors."""
    ### BEGIN SOLUTION
    def kl(p, q):
        return torch.where(p > 0, p * (p / q).log2(), 0.0).sum().item()

    product, own = torch.ones((), dtype=joint.dtype), 0.0
    for i, row in enumerate(rows):
        others = [j for j in range(joint.ndim) if j != i]
        marginal = joint.sum(others)
        product = product[..., None] * marginal
        own += kl(marginal, row)
    return kl(joint, product), own
    ### END SOLUTION

# %% nbgrader={"grade_id": "price-visible", "grade": true}
import tests5 as tests

tests.price(price, points=6)

# %% nbgrader={"grade_id": "price-hidden", "grade": true}
# Hidden tests: other laws, two and three tokens (8 points).
### BEGIN HIDDEN TESTS
import hidden5 as hidden

hidden.price(price, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. Who reveals too early? (10 points, 12 minutes)
#
# With exact ratios on the absorbing graph, Euler and Tweedie differ in one thing only: the probability that a masked token appears in a leap. Chapter 08 shows that with log-linear noise even this is the same. With
# other schedules it is not, and a sampler that reveals at the wrong pace takes its decisions at the wrong moment.
#
# A schedule is given by two functions of a float: `total(t)` is $\bar\sigma(t)$ and `rate(t)` is its derivative. `times` is a falling list. At `times[0]` a token is masked. Write
# `still_masked(total, rate, times, method)`: the probability that it is still masked at `times[-1]`, after the leaps from each time to the next one, by `method` = `"euler"` or `"tweedie"`. There is no last step.
# In the tests σ̄ is below 20, and positive at every time before `times[-1]`.
#
# Remember that at MASK the exact ratios of all tokens sum to $1/(e^{\bar\sigma}-1)$. Where Euler's formula gives a masked token a probability above 1 to appear, it appears for certain.

# %% nbgrader={"grade_id": "pace", "solution": true}
def still_masked(total, rate, times, method):
    """P(masked at times[-1] | masked at times[0]), a float."""
    ### BEGIN SOLUTION
    left = 1.0
    for t, t_next in pairwise(times):
        if method == "euler":
            factor = (t - t_next) * rate(t)
        else:
            factor = math.expm1(total(t) - total(t_next))
        left *= 1 - min(1.0, factor / math.expm1(total(t)))
    return left
    ### END SOLUTION

# %% nbgrader={"grade_id": "pace-visible", "grade": true}
import tests5 as tests

tests.pace(still_masked, points=4)

# %% nbgrader={"grade_id": "pace-hidden", "grade": true}
# Hidden tests: other schedules and times (6 points).
### BEGIN HIDDEN TESTS
import hidden5 as hidden

hidden.pace(still_masked, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. How many bits does a rare word need? (14 points, 15 minutes)
#
# Chapter 08 derives what happens to rare moves that are drawn by Gumbel noise from random numbers of 24 bits. Hardware has other widths too, so you need the law for any number of bits $b$: the uniform numbers are
# multiples of $2^{-b}$, and nothing else changes.
#
# - Write `kept(p, bits)`: the share of its probability that a rare move of probability `p` keeps. `p` is a float64 tensor of any shape with entries between 0 and 1, `bits` an int from 1 to 64. Your result must agree
#   with the chapter's law within $10^{-9}$ (for few bits the law itself is only approximate), and never be NaN, both for moves that are nearly lost and for moves that keep nearly everything.
# - Write `fewest_bits(moves, share)`: the smallest number of bits, from 1 to 64, with which all `moves` of one row **together** keep at least `share` of their total probability. `moves` is a float64 tensor (M,). You may assume that 64 suffice.

# %% nbgrader={"grade_id": "gumbel", "solution": true}
def kept(p, bits):
    """Share of its probability that a rare move keeps; shape of p."""
    ### BEGIN SOLUTION
    inverse = 1 / (p * 2.0**bits)
    return inverse / torch.expm1(inverse)
    ### END SOLUTION


def fewest_bits(moves, share):
    """The smallest number of bits with which the moves (M,) together keep this share, an int."""
    ### BEGIN SOLUTION
    for bits in range(1, 65):
        if (moves * kept(moves, bits)).sum() >= share * moves.sum():
            return bits
    ### END SOLUTION

# %% nbgrader={"grade_id": "gumbel-visible", "grade": true}
import tests5 as tests

tests.gumbel(kept, fewest_bits, points=6)

# %% nbgrader={"grade_id": "gumbel-hidden", "grade": true}
# Hidden tests: other probabilities and widths, rows of many moves (8 points).
### BEGIN HIDDEN TESTS
import hidden5 as hidden

hidden.gumbel(kept, fewest_bits, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Fillings with weights (16 points, 20 minutes)
#
# With uniform noise, holding the given tokens fixed is not enough: chapter 09 repairs it with a weight for each filling, the probability that no given token would have jumped. You will write that sampler for small
# worlds, and say how many fillings its weights leave you.
#
# `rows` is a list with one tensor for each leap, the last step included. For texts of $d$ tokens with S values a tensor has $d$ axes of length S, then one axis of length $d$ and one of length S: for two tokens,
# `rows[k][a, b]` has shape (2, S). The row `[a, b, 0]` holds the probabilities of each value that the first token of the text (a, b) had one leap earlier, and `[a, b, 1]` is that of the second token. `given` (d,) holds a token where one is given and −1 at gaps.
# For instance, `rows = tests5.leap_rows(p0, 24)` makes the 24 leaps of a world whose data are `p0`.
#
# Write `fill(rows, given, num)`. It draws `num` fillings at once, and returns three things:
#
# - `x` (num, d), int64: the gaps start from uniform random values; in every leap each gap is drawn from its row at the present text, independently; given tokens stay;
# - `w` (num,): the weights of the fillings, which sum to 1. The weight of a leap uses the rows of the text before the gaps are drawn. There may be hundreds of leaps, in which a product of probabilities is too small for a float64, so add logarithms;
# - `worth`: the effective sample size (chapter 09, section 5), a float.
#
# Use torch's own random numbers, and no loop over fillings. (For an `x` of shape (num, d), `table[tuple(x.T)]` looks up all of them.) Partial credit: half of the points are for `x` as if without weights, and for weights and
# `worth` that fit each other.

# %% nbgrader={"grade_id": "fill", "solution": true}
def fill(rows, given, num):
    """Fillings x (num, d), weights (num,) that sum to 1, and the effective sample size."""
    ### BEGIN SOLUTION
    S, free = rows[0].shape[-1], given < 0
    x = torch.where(free, torch.randint(S, (num, len(given))), given)
    log_w = torch.zeros(num, dtype=torch.float64)
    for table in rows:
        here = table[tuple(x.T)]  # (num, d, S)
        stays = here.gather(-1, x[..., None])[..., 0]  # (num, d)
        log_w += torch.where(free, 0.0, stays.log()).sum(1)
        drawn = torch.multinomial(here.flatten(0, 1), 1).view(x.shape)
        x = torch.where(free, drawn, given)
    w = log_w.softmax(0)
    return x, w, 1 / (w**2).sum().item()
    ### END SOLUTION

# %% nbgrader={"grade_id": "fill-visible", "grade": true}
import tests5 as tests

tests.fill(fill, points=6)

# %% nbgrader={"grade_id": "fill-hidden", "grade": true}
# Hidden tests: other worlds and patterns, a long run (10 points).
### BEGIN HIDDEN TESTS
import hidden5 as hidden

hidden.fill(fill, points=10)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Graph or schedule? (8 points, 10 minutes)
#
# The paper has two samplers: uniform noise with the geometric schedule, and absorbing noise with the log-linear one. Two things differ between them, so a difference in their errors has no known cause. A
# **factorial** runs all four combinations, as chapter 08 did on one world.
#
# `error(graph, schedule, world)` is the error of a sampler: a positive number. `graph` is `"uniform"` or `"absorbing"`, `schedule` is `"geometric"` or `"log-linear"`. Errors act by factors, so we compare base-2
# logarithms: one unit is one halving of the error. Write `effects(error, worlds)`, which calls `error` for each of the four combinations and each world of the list, and returns a dictionary of three numbers:
#
# - `"graph"`: the halvings gained (negative if the error grows) by going from uniform to absorbing, the mean over both schedules and all worlds;
# - `"schedule"`: the halvings gained by going from geometric to log-linear, the mean over both graphs and all worlds;
# - `"interaction"`: the halvings gained by going from geometric to log-linear on the absorbing graph, **minus** the same on the uniform graph; the mean over all worlds.

# %% nbgrader={"grade_id": "effects", "solution": true}
def effects(error, worlds):
    """{"graph": …, "schedule": …, "interaction": …} in halvings of the error."""
    ### BEGIN SOLUTION
    table = torch.tensor([
        [[math.log2(error(graph, schedule, one)) for one in worlds]
         for schedule in ("geometric", "log-linear")]
        for graph in ("uniform", "absorbing")
    ]).mean(-1)  # (2, 2)  # fmt: skip
    gained = table[:, 0] - table[:, 1]  # of each graph, by the schedule
    return {
        "graph": (table[0] - table[1]).mean().item(),
        "schedule": gained.mean().item(),
        "interaction": (gained[1] - gained[0]).item(),
    }
    ### END SOLUTION

# %% nbgrader={"grade_id": "effects-visible", "grade": true}
import tests5 as tests

tests.effects(effects, points=3)

# %% nbgrader={"grade_id": "effects-hidden", "grade": true}
# Hidden tests: other errors, several worlds (5 points).
### BEGIN HIDDEN TESTS
import hidden5 as hidden

hidden.effects(effects, points=5)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. This term's sixteen leaps (18 points, 24 minutes)
#
# Equal leaps waste most of their time where nothing is decided. You will compute what a list of times costs, exactly, and then look for the best list for a language of this term's own.
#
# **The language.** A text has {{length}} tokens, each 0 or 1. It is of one of several kinds; `world["kinds"]` lists, for each kind, its share and the probability of a 1: {{kinds}}. Within a kind the tokens are
# independent. So visible tokens help to guess a masked one only because they tell of which kind the text is, and it does not matter *which* tokens are visible, only how many. `h = tests5.surprise(world)` is a list of
# {{length}} numbers: `h[m]` is the mean number of bits that one masked token costs a perfect model that sees $m$ others.
#
# **The sampler** uses absorbing noise with the log-linear schedule and exact ratios. It starts at $t=1$, where all is masked, and takes leaps through a falling list `times` from 1 to 0 (ε is neglected, and no last step
# is needed). So each token appears in the leap from $t$ to $t'$ with probability $t-t'$, whatever the others do. In a leap that starts with $m$ visible tokens each token that appears costs `h[m]` bits,
# since the new ones do not see each other. A perfect sampler pays `sum(h)` in all.
#
# - Write `cost(h, times)`: how many bits a text costs on average **more** than `sum(h)`. `h` is a list of any length. `times` falls from 1 to 0 and is a list or a float64 tensor of any length; return a number or a tensor without axes, so that an optimiser can use it. Hint: in the leap from $t$ to $t'$, one
#   particular token appears with probability $t-t'$. How many of the $L-1$ others are visible at $t$?
# - Name `even` the cost of sixteen equal leaps in this term's language, in bits a text, right within 1 %.
# - Find 17 falling times from 1 to 0 that cost less, as the list `times`. Below {{good}} bits you have three points, below {{best}} bits three more. For the first, the list `linspace(1, 0, 17) ** a`, also with an exponent below 1, suffices; print `h` first, and ask where it changes fastest. For
#   the second, let an optimiser change sixteen numbers whose softmax is the lengths of the leaps. The search should take a few seconds at most. Print what you reach: it is your place on the leaderboard.

# %% nbgrader={"grade_id": "term", "solution": true}
def cost(h, times):
    """Bits a text above sum(h). h: L numbers; times: a falling list from 1 to 0."""
    ### BEGIN SOLUTION
    h, t = torch.as_tensor(h).double(), torch.as_tensor(times).double()
    others, m = len(h) - 1, torch.arange(len(h))
    ways = torch.tensor([math.comb(others, k) for k in range(len(h))]).double()
    masked, seen = t[:-1, None], 1 - t[:-1, None]
    chance = ways * seen**m * masked ** (others - m)  # (K, L): m of the others are visible
    return len(h) * ((t[:-1] - t[1:]) * (chance @ h)).sum() - h.sum()
    ### END SOLUTION


### BEGIN SOLUTION
h = tests5.surprise(world)
even = cost(h, torch.linspace(1, 0, 17)).item()
z = torch.zeros(16, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.Adam([z], lr=0.2)
for _ in range(150):
    passed = z.softmax(0).cumsum(0).clamp(max=1)
    value = cost(h, torch.cat([torch.ones(1).double(), 1 - passed]))
    optimiser.zero_grad()
    value.backward()
    optimiser.step()
times = [1.0, *(1 - passed[:-1]).tolist(), 0.0]
print(f"even {even:.4f} bits, found {cost(h, times):.4f} bits")
### END SOLUTION

# %% nbgrader={"grade_id": "term-visible", "grade": true}
import tests5 as tests

tests.term(cost, even, times, points=7)

# %% nbgrader={"grade_id": "term-hidden", "grade": true}
# Hidden tests: other lists of times; is your `even` right, how good are your times? (11 points)
### BEGIN HIDDEN TESTS
import hidden5 as hidden

hidden.term(cost, even, times, points=11)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. The best leap that loses (10 points, 12 minutes, in words)
#
# Per leap, Tweedie's is proved to be the best of all leaps that move each token on its own. Yet on the uniform graph with the geometric schedule, chapter 08 finds Euler's run of 64 leaps *nearer* to the data. What
# exactly does the theorem compare, and why does it not forbid this? Chapter 08 names a difference in the distance of the leaps, and tests it by an experiment: what is varied there, what is held fixed, and what comes out? Answer in four to six
# sentences.

# %% [markdown] nbgrader={"grade_id": "best_leap", "grade": true, "solution": true, "points": 10}
# The theorem compares single leaps that start from the true noisy law, and measures each by its KL divergence from the true joint posterior. A run of 64 leaps starts each leap but the first from a law that is already off,
# and it is judged by the total variation at its end; the divergence of the ends is at most the sum of those of the leaps, so the best bound need not be the best end. The difference is distance: on the geometric schedule
# Euler multiplies the rate at the start of the leap, the highest one, by its whole length, which is more than Δσ̄ (1.1 times at 64 leaps). The experiment gives both methods the distance f Δσ̄ and varies f; graph, world, schedule
# and number of leaps are fixed. With f = 1 Euler's advantage is gone: it ends further from the data than Tweedie. Tweedie given Euler's distance does not gain, so the distance alone is not the cause either: Euler's lead needs both.

# %% [markdown]
# ## 8. What caused it? (10 points, 12 minutes, in words)
#
# Run `effects(tests5.error, [0, 1, 2])`. This `error` is the exact total variation of 16 leaps by Tweedie's method on three small worlds. (It takes about a second. If your `effects` is not finished, call `tests5.error` for the
# four combinations on world 0.) A friend says: "Absorbing noise with the log-linear schedule has less than half of the error of uniform noise with the geometric one. So absorbing noise is better." Say with your numbers what
# the graph does, what the schedule does (give its effect on each graph as well), and what the interaction means. What may be concluded, and about which samplers? Answer in four to six sentences.

# %% [markdown] nbgrader={"grade_id": "what_caused_it", "grade": true, "solution": true, "points": 10}
# The friend's two samplers differ by 1.1 halvings, but in graph and schedule at once. Averaged over schedules, the change of graph gains about −0.07 halvings, that is nothing. The log-linear schedule gains 1.2 halvings on average,
# so nearly all of the difference belongs to it. The interaction is about 0.8: the schedule gains 0.76 halvings on the uniform graph and 1.58 on the absorbing one. In other words absorbing noise is better with the log-linear
# schedule (by 0.34) and worse with the geometric one (by 0.47), so "which graph is better" has no answer without a schedule. This holds for exact ratios, Tweedie's leaps, 16 of them at equal steps of t, and these
# small worlds; for networks or for other numbers of leaps it must be measured again.
