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
# # Solutions to chapter 09
#
# Infilling. Each solution is followed by wrong answers that the check catches.

# %% [markdown]
# ## Exercise 1. What should stand in the gaps?
#
# Keep the texts that show the given tokens, and divide by the sum of their probabilities.

# %% tags=["solution"]
import torch


def law_of_gaps(p0, given):
    shown = p0[tuple(slice(None) if value < 0 else value for value in given.tolist())]
    return shown / shown.sum()

# %% tags=["wrong"]
# Joint probabilities, not divided by p(given).
def law_of_gaps(p0, given):
    return p0[tuple(slice(None) if value < 0 else value for value in given.tolist())]

# %% tags=["wrong"]
# The law of the gaps whatever the other tokens are: what is given is ignored.
def law_of_gaps(p0, given):
    return p0.sum([i for i, value in enumerate(given.tolist()) if value >= 0])

# %% tags=["wrong"]
# Takes −1 for the last value.
def law_of_gaps(p0, given):
    return p0[tuple(given.tolist())]

# %% tags=["wrong"]
# Each gap by itself: a product of laws, which forgets that gaps depend on each other.
def law_of_gaps(p0, given):
    shown = p0[tuple(slice(None) if value < 0 else value for value in given.tolist())]
    shown = shown / shown.sum()
    if shown.ndim < 2:
        return shown
    return shown.sum(1)[:, None] * shown.sum(0)

# %% [markdown]
# ## Exercise 2. How much do copies help?
#
# At $e = 1/2$ the last token is independent of the copies, so it does not matter whether they are noisy. With 64 leaps the error is largest near $e = 0.11$ for one copy (0.105), and near 0.2 for three (0.019).
#
# At small $e$, let $f$ be the probability that the noise that is left flips a token, also small. The last token shows 1 with probability about $e + f$ if the zeros before it are clean. The text $0 \ldots 0\,1$ has the probability $(e + f)/2$ then. If the zeros may be noisy, it is $(e + f + f^k)/2$, as all $k$ may be flipped ones. With one copy this is nearly twice too much where $f$ is far above $e$, so the ratio that moves the last token from 1 to 0 is too small by half, even late in the run. The error is still 0.021 at $e = 0.001$. With three copies $f^3$ is small beside $f$, and the error there is 0.0003.

# %% tags=["solution"]
from itertools import pairwise

import torch
from sedd_mini import GeometricNoise, UniformGraph
from sedd_mini.worlds.ctmc import Chain


def rows_of_leaps(chain, K):
    times = torch.linspace(1, 1e-5, K + 1, dtype=torch.float64)
    levels = [*GeometricNoise().total(times).tolist(), 0.0]
    for high, low in pairwise(levels):
        yield chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))


def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    p = torch.tensor([0.5, 0.5]).double()
    for rows in rows_of_leaps(chain, K):  # (n, k + 1, 2)
        p = p @ rows[:2, -1]  # the two texts that begin with k zeros
    return abs(p[1].item() - e)  # two values: half of two equal differences

# %% tags=["wrong"]
# The weighted sampler: its error is too small.
def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.tensor([0.5, 0.5]).double()
    for high, low in pairwise([*levels.tolist(), 0.0]):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        p = (p * rows[:2, :-1, 0].prod(1)) @ rows[:2, -1]
        p = p / p.sum()
    return abs(p[1].item() - e)

# %% tags=["wrong"]
# Twice the total variation: the sum of differences is not halved.
def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.tensor([0.5, 0.5]).double()
    for high, low in pairwise([*levels.tolist(), 0.0]):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        p = p @ rows[:2, -1]
    return (p - torch.tensor([1 - e, e])).abs().sum().item()

# %% tags=["wrong"]
# One copy, whatever k is.
def clamping_error(e, k, K):
    p0 = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.tensor([0.5, 0.5]).double()
    for high, low in pairwise([*levels.tolist(), 0.0]):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        p = p @ rows[:2, -1]
    return abs(p[1].item() - e)

# %% tags=["wrong"]
# The rows of the second token, which is a copy if k > 1.
def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.tensor([0.5, 0.5]).double()
    for high, low in pairwise([*levels.tolist(), 0.0]):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        p = p @ rows[:2, 1]
    return abs(p[1].item() - e)

# %% tags=["wrong"]
# Nothing is clamped: the law of the texts whose copies happen to be 0 at the end.
def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.zeros(2 ** (k + 1), dtype=torch.float64)
    p[:2] = 0.5
    for high, low in pairwise([*levels.tolist(), 0.0]):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        move = rows[:, 0]
        for i in range(1, k + 1):
            move = (move[:, :, None] * rows[:, i, None, :]).flatten(1)
        p = p @ move
    return abs((p[1] / p[:2].sum()).item() - e)

# %% tags=["wrong"]
# The ratios at the end of each leap, not at its start.
def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.tensor([0.5, 0.5]).double()
    for high, low in pairwise([*levels.tolist(), 1e-9]):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(low), torch.tensor(high - low))
        p = p @ rows[:2, -1]
    return abs(p[1].item() - e)

# %% tags=["wrong"]
# No last step.
def clamping_error(e, k, K):
    p0 = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    p0[(0,) * k], p0[(1,) * k] = torch.tensor([[1 - e, e], [e, 1 - e]], dtype=torch.float64) / 2
    chain = Chain(UniformGraph(2), p0)
    levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1, dtype=torch.float64))
    p = torch.tensor([0.5, 0.5]).double()
    for high, low in pairwise(levels.tolist()):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        p = p @ rows[:2, -1]
    return abs(p[1].item() - e)

# %% [markdown]
# ## Exercise 3. How long is the gap?
#
# All lengths have the same number of known words, so their probabilities may be compared. Bayes' rule with an even prior divides each by their sum. In *some dogs ▁ river sleep again .* with `longest` = 5, two words (*near a*) have the probability 0.81, five words 0.19, and the other lengths nearly nothing. With five words *some dogs* may end a sentence: *some dogs . many birds near a river sleep again .* A larger `longest` gives longer gaps a share as well: with 6 it is 0.71 for two words, 0.17 for five and 0.12 for six.

# %% tags=["solution"]
import torch


def length_posterior(language, before, after, longest):
    logs = []
    for m in range(1, longest + 1):
        tokens = torch.tensor([[*before, *[0] * m, *after]])
        known = torch.tensor([[True] * len(before) + [False] * m + [True] * len(after)])
        logs.append(language.log_prob(tokens, known))
    return torch.cat(logs).softmax(0)

# %% tags=["wrong"]
# The tokens in the gap are taken as known.
def length_posterior(language, before, after, longest):
    logs = [language.log_prob(torch.tensor([[*before, *[0] * m, *after]]))
            for m in range(1, longest + 1)]  # fmt: skip
    return torch.cat(logs).softmax(0)

# %% tags=["wrong"]
# Divides by the length of the text, as for bits a word.
def length_posterior(language, before, after, longest):
    logs = []
    for m in range(1, longest + 1):
        tokens = torch.tensor([[*before, *[0] * m, *after]])
        known = torch.tensor([[True] * len(before) + [False] * m + [True] * len(after)])
        logs.append(language.log_prob(tokens, known) / tokens.shape[1])
    return torch.cat(logs).softmax(0)

# %% tags=["wrong"]
# The best filling of each length, not the sum over all fillings.
from itertools import product


def length_posterior(language, before, after, longest):
    best = []
    for m in range(1, longest + 1):
        texts = [[*before, *gap, *after] for gap in product(range(language.vocab_size), repeat=m)]
        best.append(language.log_prob(torch.tensor(texts)).max())
    return torch.stack(best).softmax(0)

# %% tags=["wrong"]
# Gaps of 0 to longest − 1 words.
def length_posterior(language, before, after, longest):
    logs = []
    for m in range(longest):
        tokens = torch.tensor([[*before, *[0] * m, *after]])
        known = torch.tensor([[True] * len(before) + [False] * m + [True] * len(after)])
        logs.append(language.log_prob(tokens, known))
    return torch.cat(logs).softmax(0)

# %% tags=["wrong"]
# A softmax of probabilities.
def length_posterior(language, before, after, longest):
    logs = []
    for m in range(1, longest + 1):
        tokens = torch.tensor([[*before, *[0] * m, *after]])
        known = torch.tensor([[True] * len(before) + [False] * m + [True] * len(after)])
        logs.append(language.log_prob(tokens, known).exp())
    return torch.cat(logs).softmax(0)

# %% [markdown]
# ## Exercise 4. Keep the runs in which nothing jumped
#
# The law of the kept pairs is the true one, up to sampling and the leaps. A weight is the chance to be kept, multiplied up; here each pair is kept or not. The share falls as the first level rises: in the forward process, which starts at clean pairs, the first token does not jump with probability $e^{-\bar\sigma(1 - 1/N)}$. At $\bar\sigma = 8$ and $N = 2$ it is below 2 %. Weights spare these lost runs, because a clamped run is never lost, only weighted.

# %% tags=["solution"]
from itertools import pairwise

import torch


def keep_unjumped(pair, levels, num, generator):
    N = pair.graph.num_tokens
    x = torch.zeros(num, 2, dtype=torch.int64)
    x[:, 1] = torch.randint(N, (num,), generator=generator)
    kept = torch.ones(num, dtype=torch.bool)
    for high, low in pairwise(levels):
        x = pair.tau_leap(x, [high, low], generator=generator)
        kept = kept & (x[:, 0] == 0)
    law = x[kept, 1].bincount(minlength=N).double() / kept.sum()
    return law, kept.double().mean().item()

# %% tags=["wrong"]
# Looks at the end only: some of these tokens jumped away and back.
def keep_unjumped(pair, levels, num, generator):
    N = pair.graph.num_tokens
    x = torch.zeros(num, 2, dtype=torch.int64)
    x[:, 1] = torch.randint(N, (num,), generator=generator)
    for high, low in pairwise(levels):
        x = pair.tau_leap(x, [high, low], generator=generator)
    kept = x[:, 0] == 0
    law = x[kept, 1].bincount(minlength=N).double() / kept.sum()
    return law, kept.double().mean().item()

# %% tags=["wrong"]
# Clamps: the first token is put back after every leap, and every pair is kept.
def keep_unjumped(pair, levels, num, generator):
    N = pair.graph.num_tokens
    x = torch.zeros(num, 2, dtype=torch.int64)
    x[:, 1] = torch.randint(N, (num,), generator=generator)
    for high, low in pairwise(levels):
        x = pair.tau_leap(x, [high, low], generator=generator)
        x[:, 0] = 0
    return x[:, 1].bincount(minlength=N).double() / num, 1.0

# %% tags=["wrong"]
# The law of the second token over all pairs, not over the kept ones.
def keep_unjumped(pair, levels, num, generator):
    N = pair.graph.num_tokens
    x = torch.zeros(num, 2, dtype=torch.int64)
    x[:, 1] = torch.randint(N, (num,), generator=generator)
    kept = torch.ones(num, dtype=torch.bool)
    for high, low in pairwise(levels):
        x = pair.tau_leap(x, [high, low], generator=generator)
        kept = kept & (x[:, 0] == 0)
    return x[:, 1].bincount(minlength=N).double() / num, kept.double().mean().item()

# %% tags=["wrong"]
# Keeps the pairs in which neither token jumped.
def keep_unjumped(pair, levels, num, generator):
    N, zeros = pair.graph.num_tokens, torch.zeros(num, dtype=torch.int64)
    x = torch.stack([zeros, torch.randint(N, (num,), generator=generator)], 1)
    first, kept = x.clone(), torch.ones(num, dtype=torch.bool)
    for high, low in pairwise(levels):
        x = pair.tau_leap(x, [high, low], generator=generator)
        kept = kept & (x == first).all(1)
    law = x[kept, 1].bincount(minlength=N).double() / kept.sum()
    return law, kept.double().mean().item()

# %% tags=["wrong"]
# Clamps and weighs nothing, but counts the clamped tokens that wanted to jump as lost.
def keep_unjumped(pair, levels, num, generator):
    N = pair.graph.num_tokens
    x = torch.zeros(num, 2, dtype=torch.int64)
    x[:, 1] = torch.randint(N, (num,), generator=generator)
    kept = torch.ones(num, dtype=torch.bool)
    for high, low in pairwise(levels):
        x = pair.tau_leap(x, [high, low], generator=generator)
        kept, x[:, 0] = kept & (x[:, 0] == 0), 0
    return x[:, 1].bincount(minlength=N).double() / num, kept.double().mean().item()

# %% [markdown]
# ## Exercise 5. What does an order cost?
#
# By the chain rule the divergence is a sum over rounds, and each round costs the total correlation of its tokens given the earlier ones. For determiner, noun and verb the best two rounds begin with a single word and draw the two others together, at 0.03 bits, whichever word it is: once one word shows the number, the two others are nearly independent. Two words in the first round may disagree, and cost 0.93 or 0.94 bits. All three at once cost 1.90 bits. The cell after the solution computes these numbers.

# %% tags=["solution"]
import math

import torch


def entropy(joint, axes):
    """H of some of the axes, in bits."""
    others = [i for i in range(joint.ndim) if i not in axes]
    table = joint.sum(others) if others else joint
    return -torch.xlogy(table, table).sum().item() / math.log(2)


def cost_of_rounds(joint, rounds):
    earlier, before, total = [], 0.0, 0.0
    for some in rounds:
        alone = sum(entropy(joint, [*earlier, i]) - before for i in some)
        earlier = [*earlier, *some]
        after = entropy(joint, earlier)
        total, before = total + alone - (after - before), after
    return total

# %% tags=["nbval-check-output"]
from sedd_mini.model import template
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
before = "some old dogs sleep again . every bird sees a cat . "
after = " . many children follow this dog . a small cat sleeps quietly ."
text = before + "____ ____ near a river ____ quietly" + after
given = template(language.tokenizer(), text=text, gap=1)  # (32,), −1 at the gaps
V = language.vocab_size
texts = given.repeat(V**3, 1)  # with each of V³ fillings
texts[:, given < 0] = torch.cartesian_prod(*[torch.arange(V)] * 3)
joint = language.log_prob(texts).softmax(0).view(V, V, V)
for rounds in ([[0, 1, 2]], [[0], [1, 2]], [[1], [0, 2]], [[2], [0, 1]],
               [[0, 1], [2]], [[0, 2], [1]], [[1, 2], [0]]):  # fmt: skip
    print(f"{cost_of_rounds(joint, rounds):.2f} bits: rounds {rounds}")

# %% tags=["wrong"]
# Nats, not bits.
def entropy(joint, axes):
    others = [i for i in range(joint.ndim) if i not in axes]
    table = joint.sum(others) if others else joint
    return -torch.xlogy(table, table).sum().item()


def cost_of_rounds(joint, rounds):
    earlier, before, total = [], 0.0, 0.0
    for some in rounds:
        alone = sum(entropy(joint, [*earlier, i]) - before for i in some)
        earlier = [*earlier, *some]
        after = entropy(joint, earlier)
        total, before = total + alone - (after - before), after
    return total

# %% tags=["wrong"]
# The total correlation of each round by itself, not given the earlier rounds.
import math


def entropy(joint, axes):
    others = [i for i in range(joint.ndim) if i not in axes]
    table = joint.sum(others) if others else joint
    return -torch.xlogy(table, table).sum().item() / math.log(2)


def cost_of_rounds(joint, rounds):
    return sum(sum(entropy(joint, [i]) for i in some) - entropy(joint, some) for some in rounds)

# %% tags=["wrong"]
# Rounds that know nothing of each other: a product over rounds, each joint by itself.
import math


def entropy(joint, axes):
    others = [i for i in range(joint.ndim) if i not in axes]
    table = joint.sum(others) if others else joint
    return -torch.xlogy(table, table).sum().item() / math.log(2)


def cost_of_rounds(joint, rounds):
    return sum(entropy(joint, some) for some in rounds) - entropy(joint, range(joint.ndim))

# %% tags=["wrong"]
# Only the last round given, not all earlier ones.
import math


def entropy(joint, axes):
    others = [i for i in range(joint.ndim) if i not in axes]
    table = joint.sum(others) if others else joint
    return -torch.xlogy(table, table).sum().item() / math.log(2)


def cost_of_rounds(joint, rounds):
    last, total = [], 0.0
    for some in rounds:
        before = entropy(joint, last) if last else 0.0
        alone = sum(entropy(joint, [*last, i]) - before for i in some)
        total += alone - (entropy(joint, [*last, *some]) - before)
        last = list(some)
    return total

# %% tags=["wrong"]
# Rounds in the reverse order.
import math


def entropy(joint, axes):
    others = [i for i in range(joint.ndim) if i not in axes]
    table = joint.sum(others) if others else joint
    return -torch.xlogy(table, table).sum().item() / math.log(2)


def cost_of_rounds(joint, rounds):
    earlier, before, total = [], 0.0, 0.0
    for some in rounds[::-1]:
        alone = sum(entropy(joint, [*earlier, i]) - before for i in some)
        earlier = [*earlier, *some]
        after = entropy(joint, earlier)
        total, before = total + alone - (after - before), after
    return total
