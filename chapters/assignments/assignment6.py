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
# # Assignment 6. Honest evaluation and planning
#
# You need chapters 10 and 11. Plan 120 minutes. There are 100 points: 80 for code, which is graded by tests, and 20 for two answers in words.
#
# - Write your code where it says `# YOUR CODE HERE`, and delete `raise NotImplementedError()`.
# - Run the test cell below each problem as often as you like. It says what does not hold yet, and how many points you have so far. More points are given by hidden
#   tests, which use other languages, networks, sizes and seeds. So an answer that fits only the visible numbers loses most of its points.
# - You may add cells. Cells that you cannot edit are restored before grading.
# - The problems do not depend on each other. You may solve them in any order.
#
# **The language of problems 1 and 2.** It has $N$ words, numbered from 0. The first word of a text is drawn from `start`, shape (N,). Each later word depends on the word before it: `step[x, y]` is the
# probability that $y$ follows $x$. So each *row* of `step` (N, N) sums to 1. All these probabilities are positive, and all tensors are float64.

# %% nbgrader={"grade_id": "setup"}
import math

import torch

import grading
import tests6  # loaded before your cells run
from sedd_mini.network.dit import DiTConfig
from sedd_mini.training import planner

world = grading.term()  # the numbers of problem 7

# %% [markdown]
# ## 1. What the judge sees (12 points, 14 minutes)
#
# Chapter 10 splits the generative perplexity of a sampler into the entropy of its texts and their divergence from the language. For real networks both parts can only be estimated, so here you compute them exactly, for a
# sampler that draws texts like a language but with wrong probabilities.
#
# Write `split(start, step, q_start, q_step, L)`. The language has `start` and `step`. The sampler draws texts of `L` words with `q_start` and `q_step` in their place, of the same shapes. Return three numbers, **in bits a word** (bits of a
# whole text, divided by `L`):
#
# 1. what the judge sees, $\mathbb E_{x \sim q}[-\log_2 p(x)]$, where the judge is the language itself;
# 2. the entropy of the sampler's texts, $H(q)$;
# 3. the divergence $\mathrm{KL}(q \,\|\, p)$.
#
# The sampler's probabilities may be 0, and $0 \log 0$ is 0. The hidden tests have `L` up to 300, so you cannot list all texts. Instead, follow how likely each word is at each place.

# %% nbgrader={"grade_id": "split", "solution": true}
def split(start, step, q_start, q_step, L):
    """(what the judge sees, entropy, divergence), three numbers in bits a word."""
    ### BEGIN SOLUTION
    def surprise(q, p):  # −Σ q log₂ p over the last dimension
        return -torch.where(q > 0, q * p.log2(), 0.0).sum(-1)

    judged, entropy = surprise(q_start, start), surprise(q_start, q_start)
    here = q_start  # the law of the word at one place
    for _ in range(L - 1):
        judged = judged + here @ surprise(q_step, step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ q_step
    judged, entropy = judged.item() / L, entropy.item() / L
    return judged, entropy, judged - entropy
    ### END SOLUTION

# %% nbgrader={"grade_id": "split-visible", "grade": true}
import tests6 as tests

tests.split(split, points=5)

# %% nbgrader={"grade_id": "split-hidden", "grade": true}
# Hidden tests: other languages and samplers, short and long texts (7 points).
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.split(split, points=7)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. A sampler that wins (10 points, 18 minutes)
#
# A contest ranks samplers by generative perplexity. Its organisers have heard that one phrase said again and again would win, so they also demand that all texts together use their words as evenly as real text does. Show them that
# this is not enough.
#
# In their languages every word has a **favourite follower**: a word $y$ with `step[x, y]` above 1/2. No two words have the same favourite follower. A word may be its own favourite. The probabilities of the first word, `start`, may be very unequal.
#
# Write `cheat(start, step, n, L)`, a sampler that returns `n` texts of `L` words, as integers of shape (n, L), such that
#
# - the mean of $-\log_2 p$ a word, where the judge $p$ is the language, is at most 60 % of that of real text;
# - the *pooled* entropy (the entropy of how often each word occurs in all `n` texts together) is at most 0.1 bit below that of real text (of the mean of the laws of the `L` places, computed exactly).
#
# It need not draw at random. `n` is at least 100 and at least ten times the number of words, `L` is at least 20. There is more than one answer. What does a text pay for a rare first word, and is there a cheaper way to reach that word? Partial credit: the first demand alone earns a third
# of the points, the second alone a sixth, and half of them are for both at once.

# %% nbgrader={"grade_id": "cheat", "solution": true}
def cheat(start, step, n, L):
    """n texts of L words, integers of shape (n, L), that win the contest."""
    ### BEGIN SOLUTION
    texts = [torch.arange(n) % len(start)]  # begin with every word equally often
    for _ in range(L - 1):
        texts.append(step.argmax(-1)[texts[-1]])  # then only favourites
    return torch.stack(texts, 1)
    ### END SOLUTION

# %% nbgrader={"grade_id": "cheat-visible", "grade": true}
import tests6 as tests

tests.cheat(cheat, points=4)

# %% nbgrader={"grade_id": "cheat-hidden", "grade": true}
# Hidden tests: other languages (6 points).
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.cheat(cheat, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The numbers that expose it (10 points, 12 minutes)
#
# A single number beside the perplexity can be satisfied by a sampler that is bad in another way. Four numbers, compared with those of equally many real texts, are much harder to satisfy together.
#
# Write `numbers(texts)` for `texts`, a tensor of integers of shape (n, L) with $n \ge 1$ and $L \ge 2$. It returns four numbers, and each has a quarter of the points:
#
# 1. the entropy of a text's own words, in bits: from how often each word occurs in this text, then the mean over texts;
# 2. the pooled entropy, in bits: from how often each word occurs in all texts together;
# 3. what the next word adds, in bits: the mean over all pairs of neighbours $(x, y)$ in all texts of $-\log_2 \hat p(y \mid x)$, where $\hat p(y \mid x)$ is the share of $y$ among the words that follow $x$ anywhere in these texts;
# 4. the share of different texts: how many different texts there are, divided by `n`.
#
# Words are any integers from 0 on. You may use the library. (Not graded: what do the four numbers say about your sampler of problem 2?)

# %% nbgrader={"grade_id": "numbers", "solution": true}
def numbers(texts):
    """(entropy of a text's own words, pooled entropy, what the next word adds, share of different texts)."""
    ### BEGIN SOLUTION
    def entropy(x, dim=None):
        p = x.unique(return_counts=True, dim=dim)[1].double() / len(x)
        return -(p * p.log2()).sum().item()

    own = sum(entropy(text) for text in texts) / len(texts)
    pairs = torch.stack([texts[:, :-1].flatten(), texts[:, 1:].flatten()], 1)
    following = entropy(pairs, dim=0) - entropy(pairs[:, 0])
    return own, entropy(texts.flatten()), following, len(texts.unique(dim=0)) / len(texts)
    ### END SOLUTION

# %% nbgrader={"grade_id": "numbers-visible", "grade": true}
import tests6 as tests

tests.numbers(numbers, points=4)

# %% nbgrader={"grade_id": "numbers-hidden", "grade": true}
# Hidden tests: other texts (6 points).
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.numbers(numbers, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Better on texts like these? (14 points, 14 minutes)
#
# Chapter 10 compares two models on the same texts with the same noise, and its error bar is that of the noise on *these* texts. To claim that a model is better on *other texts of this kind*, you need an error bar for the choice of texts. (Not the library's `compare`, which has the error of the noise.)
#
# Two models were bounded on the same $M$ texts, $R$ times each. In draw $r$ both saw the same noise, and the noise of different texts is independent (unlike in exercise 2 of chapter 10). You get `a` and `b`, tensors (R, M) in nats **of the whole text**, and `tokens` (M,), the number of tokens of each text, a tensor of integers. Write
# `compare(a, b, tokens)`. It returns three numbers:
#
# 1. `difference`, in nats a token: all nats of `a` less all nats of `b` (the mean over draws), divided by all tokens. Long texts count more, as in the corpus form of perplexity.
# 2. `error`, its standard error. The texts are the sample, and their draws are averaged first. For a quotient of two sums over texts, $D = \sum_m d_m \,/ \sum_m n_m$, the standard error is, to first order, that of the mean of $d_m - D\, n_m$ over the $M$ texts, divided by the mean of
#    the $n_m$. The standard error of a mean of $M$ numbers is $s/\sqrt M$, with $M - 1$ in the standard deviation $s$.
# 3. `unpaired`, the standard error that the difference would have if each model had been measured on $M$ texts of its own: the errors of both models' nats a token, each computed as above, combined for independent numbers.
#
# Then write `texts_needed(difference, error, M, k)`: the smallest number of texts for which the difference would be at least `k` standard errors, if the difference stays as it is and the error falls with the square root of the number of texts. The error given was measured with `M`
# texts. A difference may be negative, but it is not 0. The tests avoid cases where the number comes out whole.
#
# Partial credit: a function `compare` that is right only where all texts have the same length keeps more than half of the points.

# %% nbgrader={"grade_id": "compare", "solution": true}
def compare(a, b, tokens):
    """(difference, error, unpaired), three numbers in nats a token. a, b (R, M) nats; tokens (M,)."""
    ### BEGIN SOLUTION
    def rate(nats):  # (M,) → nats a token, and its error
        quotient = nats.sum() / tokens.sum()
        rest = nats - quotient * tokens
        return quotient.item(), (rest.std() / math.sqrt(len(rest)) / tokens.double().mean()).item()

    a, b = a.mean(0), b.mean(0)
    return *rate(a - b), math.hypot(rate(a)[1], rate(b)[1])
    ### END SOLUTION

# %% nbgrader={"grade_id": "compare-needed", "solution": true}
def texts_needed(difference, error, M, k):
    """How many texts make the difference k standard errors, a whole number."""
    ### BEGIN SOLUTION
    return math.ceil(M * (k * error / difference) ** 2)
    ### END SOLUTION

# %% nbgrader={"grade_id": "compare-visible", "grade": true}
import tests6 as tests

tests.compare(compare, texts_needed, points=5)

# %% nbgrader={"grade_id": "compare-hidden", "grade": true}
# Hidden tests: other models and texts; is the error as large as the difference really scatters? (9 points)
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.compare(compare, texts_needed, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Will it fit? (12 points, 12 minutes)
#
# A run that does not fit into the memory of a GPU fails after you have paid for the machine. A short calculation and two short trials on a smaller batch tell beforehand.
#
# Write `fixed_bytes(size, products, precision, moments, average)`: the bytes that training holds whatever the batch is. The network has `size` weights. Weights and gradients are in float32, and so are the optimiser's running means. There are `moments` of these for each weight (AdamW has 2,
# gradient descent with momentum 1, plain gradient descent 0). If `average` is True there is one averaged copy of the weights, in float32. With `precision="bfloat16"` those `products` weights that stand in matrix products also have a copy of 16 bits each; with `precision="float32"` they have none.
#
# Write `smallest_parts(batch, room, small, large)`. A step on `batch` texts is to be worked through in equal parts, as with `--accumulate`. Two trials have measured the peak of the memory: `small` and `large` are pairs
# (texts at a time, bytes). The peak is a straight line in the number of texts at a time. Return the smallest number of parts for which one part needs at most 90 % of `room` bytes. The number of parts must divide `batch`. If not even one text at a time fits, raise a `ValueError`.

# %% nbgrader={"grade_id": "memory", "solution": true}
def fixed_bytes(size, products, precision, moments, average):
    """The bytes of all copies of the weights, a number."""
    ### BEGIN SOLUTION
    return 4 * size * (2 + moments + average) + 2 * products * (precision == "bfloat16")
    ### END SOLUTION

# %% nbgrader={"grade_id": "memory-parts", "solution": true}
def smallest_parts(batch, room, small, large):
    """In how many parts a step fits, a whole number that divides batch; ValueError if in none."""
    ### BEGIN SOLUTION
    each = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - each * small[0]
    for parts in range(1, batch + 1):
        if batch % parts == 0 and fixed + each * (batch // parts) <= 0.9 * room:
            return parts
    raise ValueError("not even one text at a time fits")
    ### END SOLUTION

# %% nbgrader={"grade_id": "memory-visible", "grade": true}
import tests6 as tests

tests.memory(fixed_bytes, smallest_parts, points=5)

# %% nbgrader={"grade_id": "memory-hidden", "grade": true}
# Hidden tests: other networks, batches and GPUs (7 points).
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.memory(fixed_bytes, smallest_parts, points=7)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Why did it take longer? (10 points, 9 minutes)
#
# The planner multiplies the speed on the data sheet of a GPU by a utilisation that it assumes. The report at the end of a run (chapter 11) tells what was reached, and where the time went.
#
# Write `slower(report, speed, utilisation)`. `speed` is the FLOPs a second of **one** GPU on its data sheet, and `utilisation` is the share of it that the plan assumed. `report` is a dictionary with these keys:
#
# | key | what it holds |
# |---|---|
# | `"processes"` | the number of GPUs, one for each process |
# | `"flops_per_s"` | the arithmetic that the network needs, divided by the time it took; of all GPUs together |
# | `"peak_flops_per_s"` | what one large matrix product reached on this machine; of all GPUs together |
# | `"split"` | the shares of a step's time, which sum to 1: a dictionary with the keys `"data"`, `"trunk"`, `"head and loss"`, `"backward"`, `"optimiser"` |
#
# Return four numbers:
#
# 1. `total`: how many times as long as planned the run took;
# 2. `machine`: the speed of all GPUs on their data sheets, divided by that of the measured large product;
# 3. `outside`: a step's time, divided by the time that the network itself took (trunk, head and loss, backward);
# 4. `network`: the planned utilisation, divided by the utilisation that was reached *while the network worked*. That one is the arithmetic that the network needs, divided by the network's own time only, as a share of the speed of the measured large product.
#
# If you have them right, the first is the product of the other three. So each factor names a cause of its own: the GPU, what surrounds the network, and how well the network uses the GPU.

# %% nbgrader={"grade_id": "slower", "solution": true}
def slower(report, speed, utilisation):
    """(total, machine, outside, network), four factors; above 1 means slower than planned."""
    ### BEGIN SOLUTION
    sheet, peak = report["processes"] * speed, report["peak_flops_per_s"]
    busy = sum(report["split"][part] for part in ("trunk", "head and loss", "backward"))
    total = sheet * utilisation / report["flops_per_s"]
    return total, sheet / peak, 1 / busy, utilisation * peak * busy / report["flops_per_s"]
    ### END SOLUTION

# %% nbgrader={"grade_id": "slower-visible", "grade": true}
import tests6 as tests

tests.slower(slower, points=4)

# %% nbgrader={"grade_id": "slower-hidden", "grade": true}
# Hidden tests: other runs (6 points).
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.slower(slower, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. This term's plan (12 points, 17 minutes)
#
# Your course wants to train a network of its own on one GPU. Before you ask for the money you say what fits, how long it takes and what it costs.
#
# These numbers are your course's own. Your notebook has them in the dictionary `world`.
#
# - The network: width {{width}} (`world["width"]`), {{blocks}} blocks (`"blocks"`), {{heads}} heads (`"heads"`), a vocabulary of {{vocabulary}} tokens without MASK (`"vocabulary"`; `DiTConfig` calls it `num_tokens`), the `length` of the texts, all else as in the defaults of `DiTConfig`.
# - The texts have {{length}} tokens (`"length"`), a step has {{batch}} texts (`"batch"`), and the run has {{steps}} steps (`"steps"`).
# - The GPU: {{kind}} (`"kind"`), a name in `planner.KINDS`, which gives two numbers: its FLOPs a second, then its bytes of memory. Products are in bfloat16. Assume that a share of {{utilisation}} (`"utilisation"`) of its speed is reached. An hour costs {{price}} (`"price"`).
#
# Sections 1, 4 and 5 and exercise 3 of chapter 11 show the functions that you need, in the module `planner`. (The command `python -m sedd_mini plan --help` shows what can be planned from a terminal. Its networks have the sizes of presets, so it does not know yours, but it is good for practice.) Find these six numbers:
#
# - `size`: the number of weights of the network;
# - `as_is`: the largest number of texts that can be worked on at a time, in at most 90 % of the GPU's memory (whatever the batch is);
# - `recomputing`: the same, if the blocks' activations are recomputed in the backward pass (`checkpoint_activations=True`);
# - `parts`: without recomputing, the smallest number of equal parts in which a step fits, in at most 90 % of the memory;
# - `hours`: the time of the whole run without recomputing;
# - `cost`: what it costs.
#
# The first four must be exact, `hours` and `cost` right within 1 %. Partial credit: each number counts alike. If one is missing, set it to 0, so that the test cell can run.

# %% nbgrader={"grade_id": "term", "solution": true}
### BEGIN SOLUTION
def network(recompute):
    return DiTConfig(
        num_tokens=world["vocabulary"], width=world["width"], num_blocks=world["blocks"],
        num_heads=world["heads"], length=world["length"], checkpoint_activations=recompute,
    )  # fmt: skip


speed, room = planner.KINDS[world["kind"]]


def most(recompute):
    n = 0
    while sum(planner.memory(network(recompute), world["length"], n + 1).values()) <= 0.9 * room:
        n += 1
    return n


size = planner.parameters(network(False))
as_is, recomputing = most(False), most(True)
parts = planner.smallest_accumulate(network(False), world["length"], world["batch"], 0.9 * room)
flops = planner.training_flops(network(False), world["length"]) * world["batch"] * world["steps"]
hours = flops / (world["utilisation"] * speed) / 3600
cost = hours * world["price"]
### END SOLUTION

# %% nbgrader={"grade_id": "term-visible", "grade": true}
import tests6 as tests

tests.term(size, as_is, recomputing, parts, hours, cost, world, points=4)

# %% nbgrader={"grade_id": "term-hidden", "grade": true}
# Hidden tests: are the numbers right? (8 points)
### BEGIN HIDDEN TESTS
import hidden6 as hidden

hidden.term(size, as_is, recomputing, parts, hours, cost, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. A table in a paper (10 points, 11 minutes, in words)
#
# The table of an imagined paper. All rows have the same number of texts of equal length. The judge, for the sake of this question, is the language itself, so that it knows every probability exactly.
#
# | | generative perplexity | bits a word | entropy of a text's own words | repetition |
# |---|---|---|---|---|
# | real text | 24.0 | 4.58 | 5.1 bits | 2 % |
# | sampler A | 15.0 | 3.91 | 4.2 bits | 19 % |
# | sampler B | 31.0 | 4.95 | 5.1 bits | 2 % |
#
# The authors of A write: "Our texts are better than real text, and much better than those of B." What follows for A from its bits a word alone, if you split what the judge sees into two parts? What do the other columns add? What can be said about B? Which claim can the table not decide, and what would you measure to decide it?
# Answer in five to seven sentences.

# %% [markdown] nbgrader={"grade_id": "paper", "grade": true, "solution": true, "points": 10}
# What the judge sees is the entropy of the sampler's texts plus their divergence from the language. For real text the divergence is 0, so the entropy of the language is 4.58 bits a word. A has 3.91 bits for both parts together, and no divergence is negative, so the entropy of A's texts is at most 3.91 bits, certainly
# smaller than that of the language: A says less than real text does, and "better than real text" is a sign of that, not of quality. The smaller entropy within a text and the many repetitions agree with this. B has 4.95 bits; its texts use words as real texts do, so its divergence may be about 0.4 bit a word, but this is no
# proof, because the entropy of a text's words is not the entropy of its texts. Which of the two is closer to the language the table cannot decide, since it does not give A's divergence. I would estimate the divergence from the language (of n-grams, say), and compare both models' likelihood bounds on the same real texts, with error
# bars; or give both samplers the same entropy, for example by their temperatures, and compare the perplexities then.

# %% [markdown]
# ## 9. Three minutes too many (10 points, 13 minutes, in words)
#
# These are real numbers, from the log of a run like that of chapter 11: the full-size network on one CPU core, 300 steps. Every line of the log is for two steps, which always have the same number of tokens.
#
# | steps | seconds for two steps | their mean | what else the program did then |
# |---|---|---|---|
# | 1–2 | 26.9 | 26.91 | |
# | 3–46 | 14 to 17 | 15.44 | |
# | 47–50 | 27.8, 22.1 | 24.92 | |
# | 51–150 | 14 to 17 | 15.29 | |
# | 151–152 | 32.8 | 32.76 | a validation and a checkpoint |
# | 153–158 | 19 to 22 | 20.05 | |
# | 159–204 | 15 to 17 | 15.66 | |
# | 205–216 | 16 to 24 | 18.83 | |
# | 217–228 | 31.2, 30.1, 30.9, 31.6, 30.2, 24.7 | 29.78 | |
# | 229–242 | 15 to 28 | 19.36 | |
# | 243–300 | 14 to 18 | 15.78 | |
#
# The usual pace, the median, is 15.6 seconds for two steps. At this pace 300 steps take 2340 seconds. The run took 2519, that is 179 seconds more. (Lines × (mean − 15.6) gives the seconds of a row.) The report at its end splits an average step into: data 0 %, trunk 23 %, head and loss 6 %, backward 64 %, optimiser 7 %.
# A note beside the log says that two other trainings shared the machine.
#
# Explain the three minutes. Which parts of them does the program itself account for? Which row of the table is the largest part, about how many seconds is it, what is its likely cause, and which other causes do the numbers speak against? Why does the split not help here? Which measurement or run would decide? Answer in six to nine
# sentences.

# %% [markdown] nbgrader={"grade_id": "minutes", "grade": true, "solution": true, "points": 10}
# The first two steps took 11 seconds more than usual, as first steps do, and steps 151–152 took 17 seconds more, because validation and a checkpoint fell into their time; together that is about half a minute. The largest part is in steps 217–228: six lines of 25 to 32 instead of 15.6 seconds, 85 seconds more. Its
# likely cause is that the other trainings took a share of the core or of the memory's speed just then. The numbers speak against more work in these steps, since each line has the same number of tokens, and against a slowness that grows with time, like a leak, since the usual pace comes back. The split does not help: it is an average over
# the steps, and if the whole core is slower, all parts become slower alike and their shares stay as they are. That the other trainings are the cause is not proved. The run can be repeated exactly, so I would go on from the checkpoint of step 150 with nothing else on the machine and see whether steps 217–228 are slow again; or log the
# processor time beside the time of the clock: if only the clock's grows, the process was waiting for the others.
