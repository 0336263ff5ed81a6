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
# # Solutions to chapter 05
#
# From one token to text. Each solution is followed by wrong answers that the check catches.

# %% [markdown]
# ## Exercise 1. Count the jumps
#
# Forward, each of the $L - m$ visible words can become MASK. Backwards, each of the $m$ MASKs can become one of $N$ words, and a visible word never changes.

# %% tags=["solution"]
def jumps_out(L, N, m):
    return L - m, m * N

# %% tags=["wrong"]
# The two directions are swapped.
def jumps_out(L, N, m):
    return m * N, L - m

# %% tags=["wrong"]
# The count of the uniform graph: every token, to N - 1 others.
def jumps_out(L, N, m):
    return L * (N - 1), L * (N - 1)

# %% tags=["wrong"]
# A MASK can become any of N words, not N - 1: it is none of them.
def jumps_out(L, N, m):
    return L - m, m * (N - 1)

# %% tags=["wrong"]
# One MASK at a time changes, but which one is a choice too.
def jumps_out(L, N, m):
    return L - m, N if m else 0

# %% [markdown]
# ## Exercise 2. Two papers, two tokenisers
#
# The total is `tokens * log(perplexity)` nats. Divide by the number of words and take the exponential; divide by the number of characters and by $\log 2$. For example, a perplexity of 40 per token at 1.3 tokens a word is $40^{1.3} = 121$ per word.

# %% tags=["solution"]
import math


def convert(perplexity, tokens, words, characters):
    total = tokens * math.log(perplexity)  # nats
    return math.exp(total / words), total / characters / math.log(2)

# %% tags=["wrong"]
# A perplexity is not a sum: it cannot be scaled.
import math


def convert(perplexity, tokens, words, characters):
    return perplexity * tokens / words, tokens * math.log2(perplexity) / characters

# %% tags=["wrong"]
# The exponent is upside down.
import math


def convert(perplexity, tokens, words, characters):
    return perplexity ** (words / tokens), tokens * math.log2(perplexity) / characters

# %% tags=["wrong"]
# Nats a character, not bits.
import math


def convert(perplexity, tokens, words, characters):
    total = tokens * math.log(perplexity)
    return math.exp(total / words), total / characters

# %% tags=["wrong"]
# Bits a token.
import math


def convert(perplexity, tokens, words, characters):
    return perplexity ** (tokens / words), math.log2(perplexity)

# %% tags=["wrong"]
# Divides by log 2 the wrong way round.
import math


def convert(perplexity, tokens, words, characters):
    total = tokens * math.log(perplexity)
    return math.exp(total / words), total / characters * math.log(2)

# %% [markdown]
# ## Exercise 3. Encode a word
#
# The order of the list matters: a merge was learned on words in which all earlier merges had been made.

# %% tags=["solution"]
def encode_word(word, merges):
    rank = {pair: i for i, pair in enumerate(merges)}
    tokens = list(word)
    while pairs := [p for p in zip(tokens, tokens[1:]) if p in rank]:
        best, out = min(pairs, key=rank.get), []
        for token in tokens:
            if out and (out[-1], token) == best:
                out[-1] += token
            else:
                out.append(token)
        tokens = out
    return tokens

# %% tags=["wrong"]
# The longest token that fits, from left to right.
def encode_word(word, merges):
    known = {a + b for a, b in merges}
    out = []
    while word:
        n = next((n for n in range(len(word), 1, -1) if word[:n] in known), 1)
        out.append(word[:n])
        word = word[n:]
    return out

# %% tags=["wrong"]
# The leftmost pair that is in the list, not the earliest of the list.
def encode_word(word, merges):
    tokens, i = list(word), 0
    while i < len(tokens) - 1:
        if (tokens[i], tokens[i + 1]) in merges:
            tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
            i = 0
        else:
            i += 1
    return tokens

# %% tags=["wrong"]
# The latest pair of the list first.
def encode_word(word, merges):
    rank = {pair: -i for i, pair in enumerate(merges)}
    tokens = list(word)
    while pairs := [p for p in zip(tokens, tokens[1:]) if p in rank]:
        i = list(zip(tokens, tokens[1:])).index(min(pairs, key=rank.get))
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens

# %% tags=["wrong"]
# Only one merge.
def encode_word(word, merges):
    tokens = list(word)
    for pair in merges:
        for i in range(len(tokens) - 1):
            if (tokens[i], tokens[i + 1]) == pair:
                return [*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :]]
    return tokens

# %% tags=["wrong"]
# Replaces text, and forgets where tokens end: "t" + "he" would count as the pair "th", "e".
def encode_word(word, merges):
    tokens = list(word)
    for a, b in merges:
        text = "".join(tokens)
        if a + b in text:
            i = text.index(a + b)
            tokens = [*text[:i], a + b, *text[i + len(a + b) :]]
    return tokens

# %% [markdown]
# ## Exercise 4. A leak detector
#
# Runs overlap, so a position may lie in several of them; the array `seen` counts it once. Copies in which a few tokens differ remain hidden from this detector wherever the equal stretches are shorter than $n$. The library's version is `copies.seen_share`: it counts runs (of 13 tokens) instead of positions, and compares hashes, which large corpora need.

# %% tags=["solution"]
def seen_share(train, test, n):
    runs = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    seen = [False] * len(test)
    for i in range(len(test) - n + 1):
        if tuple(test[i : i + n]) in runs:
            seen[i : i + n] = [True] * n
    return sum(seen) / len(test)

# %% tags=["wrong"]
# Counts runs, not positions: a copied run of n tokens would count as one.
def seen_share(train, test, n):
    runs = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    found = [tuple(test[i : i + n]) in runs for i in range(len(test) - n + 1)]
    return sum(found) / len(test)

# %% tags=["wrong"]
# Counts a position once for each run that it lies in.
def seen_share(train, test, n):
    runs = {tuple(train[i : i + n]) for i in range(len(train) - n + 1)}
    found = [tuple(test[i : i + n]) in runs for i in range(len(test) - n + 1)]
    return n * sum(found) / len(test)

# %% tags=["wrong"]
# The last run is never looked at.
def seen_share(train, test, n):
    runs = {tuple(train[i : i + n]) for i in range(len(train) - n)}
    seen = [False] * len(test)
    for i in range(len(test) - n):
        if tuple(test[i : i + n]) in runs:
            seen[i : i + n] = [True] * n
    return sum(seen) / len(test)

# %% tags=["wrong"]
# Single tokens, whatever n is.
def seen_share(train, test, n):
    known = set(train)
    return sum(token in known for token in test) / len(test)

# %% tags=["wrong"]
# Only runs that start at a multiple of n, as if both streams were cut into blocks.
def seen_share(train, test, n):
    runs = {tuple(train[i : i + n]) for i in range(0, len(train) - n + 1, n)}
    seen = [False] * len(test)
    for i in range(0, len(test) - n + 1, n):
        if tuple(test[i : i + n]) in runs:
            seen[i : i + n] = [True] * n
    return sum(seen) / len(test)

# %% tags=["wrong"]
# The order of the tokens in a run is lost.
def seen_share(train, test, n):
    runs = {frozenset(train[i : i + n]) for i in range(len(train) - n + 1)}
    seen = [False] * len(test)
    for i in range(len(test) - n + 1):
        if frozenset(test[i : i + n]) in runs:
            seen[i : i + n] = [True] * n
    return sum(seen) / len(test)

# %% tags=["wrong"]
# Searches in text, where 1 2 lies inside 11 23.
def seen_share(train, test, n):
    text = " ".join(map(str, train))
    seen = [False] * len(test)
    for i in range(len(test) - n + 1):
        if " ".join(map(str, test[i : i + n])) in text:
            seen[i : i + n] = [True] * n
    return sum(seen) / len(test)

# %% [markdown]
# ## Exercise 5. The first loss on the uniform graph
#
# With $s_y = 1$ a term is $1 + K(R_y)$, which is 0 for $R_y = 1$. An unmoved token has $N - 1$ terms with $R_y = q$, a moved one a single term with $R_y = 1/q$. `expm1` keeps the digits of $1 - e^{-\bar\sigma}$ at small noise.
#
# *Why $\log N$?* With all ratios 1 the reverse rates are $Q(x, y) = 1/N$, those of the noise itself, and uniform tokens stay uniform under them. So the model's law of paths, seen forwards in $\bar\sigma$, is: a uniform token, then noise. The data's law, given $x_0$, is: the token $x_0$, then the same noise. The two differ in the first token only, so their Kullback–Leibler divergence is
# $\log\big(1 / (1/N)\big) = \log N$. By chapter 04 this divergence is the integral of the loss plus the prior term, which is 0 once all noise has been added.

# %% tags=["solution"]
import math


def first_loss(sigma, N):
    replaced = -math.expm1(-sigma)
    q = replaced / (replaced + N * math.exp(-sigma))
    moved = replaced * (1 - 1 / N)
    at_unmoved = (N - 1) / N * (1 + q * (math.log(q) - 1))
    at_moved = (1 + (-math.log(q) - 1) / q) / N
    return (1 - moved) * at_unmoved + moved * at_moved

# %% tags=["wrong"]
# Every replacement counts as a move.
import math


def first_loss(sigma, N):
    moved = -math.expm1(-sigma)
    q = moved / (moved + N * math.exp(-sigma))
    at_unmoved = (N - 1) / N * (1 + q * (math.log(q) - 1))
    at_moved = (1 + (-math.log(q) - 1) / q) / N
    return (1 - moved) * at_unmoved + moved * at_moved

# %% tags=["wrong"]
# An unmoved token is taken to cost nothing, as with MASK noise.
import math


def first_loss(sigma, N):
    replaced = -math.expm1(-sigma)
    q = replaced / (replaced + N * math.exp(-sigma))
    return replaced * (1 - 1 / N) * (1 + (-math.log(q) - 1) / q) / N

# %% tags=["wrong"]
# The weight 1/N is missing.
import math


def first_loss(sigma, N):
    replaced = -math.expm1(-sigma)
    q = replaced / (replaced + N * math.exp(-sigma))
    moved = replaced * (1 - 1 / N)
    at_unmoved = (N - 1) * (1 + q * (math.log(q) - 1))
    at_moved = 1 + (-math.log(q) - 1) / q
    return (1 - moved) * at_unmoved + moved * at_moved

# %% tags=["wrong"]
# K without its - 1: the terms with ratio 1 would then cost 1 each, and are forgotten too.
import math


def first_loss(sigma, N):
    replaced = -math.expm1(-sigma)
    q = replaced / (replaced + N * math.exp(-sigma))
    moved = replaced * (1 - 1 / N)
    at_unmoved = (N - 1) / N * (1 + q * math.log(q))
    at_moved = (1 - math.log(q) / q) / N
    return (1 - moved) * at_unmoved + moved * at_moved

# %% tags=["wrong"]
# 1 - exp(-σ̄) for the share that is replaced: at 1e-15 few of its digits are left.
import math


def first_loss(sigma, N):
    replaced = -math.expm1(-sigma)
    q = replaced / (replaced + N * math.exp(-sigma))
    moved = (1 - math.exp(-sigma)) * (1 - 1 / N)
    at_unmoved = (N - 1) / N * (1 + q * (math.log(q) - 1))
    at_moved = (1 + (-math.log(q) - 1) / q) / N
    return (1 - moved) * at_unmoved + moved * at_moved

# %% tags=["wrong"]
# 1 - exp(-σ̄) loses digits at small noise.
import math


def first_loss(sigma, N):
    replaced = 1 - math.exp(-sigma)
    q = 1 - N / (math.exp(sigma) - 1 + N)
    moved = replaced * (1 - 1 / N)
    at_unmoved = (N - 1) / N * (1 + q * (math.log(q) - 1))
    at_moved = (1 + (-math.log(q) - 1) / q) / N
    return (1 - moved) * at_unmoved + moved * at_moved
