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
# # 05. From one token to text: how can anyone compute with $50257^{1024}$ states?
#
# So far everything was small enough to be listed: three words, pairs of tokens, a world of 64 sequences. A page of text is
# 1024 tokens out of a vocabulary of 50 257. Written down, the number of such pages has 4815 digits. We cannot list them,
# and the rate matrix between them cannot be written on all the paper there is. Yet chapters 01 to 04 carry over to pages of
# text without a single approximation. Why?
#
# Three things have to be settled. What is one *state* when the data are sequences, and which ratios does its reverse
# process ask for? What is a *token*, and how does a pile of documents become tidy rows of them? And how is the loss of chapter 03
# computed when $N$ is 50 257, in the 32-bit numbers that networks use, without nonsense coming out?
#
# **What you will be able to do**
#
# - explain, by counting and by an exact check, why $L(N-1)$ ratios suffice for a sequence of $L$ tokens, and what shape a
#   network's output has;
# - turn text into tokens and blocks, split them without leakage, and say how much a leak flatters;
# - derive the losses of both graphs in closed form at any $N$, and keep them correct in float32.
#
# **What you need:** chapters 01 to 04. **Running time:** about half a minute on two CPU cores. (The very first run may take ten
# seconds more, to gather Python's documentation on your machine; the result is kept.)
#
# ## A picture first
#
# Noise hits tokens, each on its own. So it matters what a token is. Below, one sentence is cut in three ways: into
# characters, into pieces that were learned from a corpus (section 2 learns them), and into words. Each row then gets the same
# absorbing noise as in chapter 01, at $\bar\sigma=0.5$.

# %%
import math
import torch
from sedd_mini import AbsorbingGraph, UniformGraph, plots
from sedd_mini.text.blocks import split_documents
from sedd_mini.text.python_docs import python_docs
from sedd_mini.text.tokenizers import BPETokenizer

plots.use_style()
train_docs, valid_docs = split_documents(python_docs())
bpe = BPETokenizer.train(train_docs, vocab_size=1024)

# %%
sentence = "some small cats near a river sleep quietly ."
words = [" " * (i > 0) + word for i, word in enumerate(sentence.split())]
pieces = [bpe.decode([i]) for i in bpe.encode(sentence)]
rows = {"words": words, "pieces": pieces, "characters": list(sentence)}
fig, ax = plots.plt.subplots(figsize=(10, 2.1))
for y, pieces in enumerate(rows.values()):
    gone = torch.rand(len(pieces), generator=torch.Generator().manual_seed(7)) < 1 - math.exp(-0.5)
    left = 0
    for piece, masked in zip(pieces, gone.tolist()):
        colour, ink = (plots.BLUE, "white") if masked else ("#dbe1ea", "#222222")
        ax.barh(y, len(piece) - 0.18, left=left, height=0.62, color=colour)
        for j, character in enumerate(piece):
            style = {"ha": "center", "va": "center", "color": ink, "family": "monospace"}
            ax.text(left + j + 0.43, y, character, **style)
        left += len(piece)
ax.set_yticks(range(3), [f"{len(pieces)} {name}" for name, pieces in rows.items()])
ax.set(xticks=[], title="What a token is decides what disappears together (dark: masked)")
ax.grid(False)
ax.spines[:].set_visible(False)

# %% [markdown]
# *What to see. The noise is the same in every row: a token disappears with probability $1-e^{-0.5}\approx0.39$. In the top row
# single letters vanish, and most can be guessed from their neighbours. In the bottom row whole words do, and only the sense of the rest
# tells what stood there. To the mathematics it is all one: a row of $L$ tokens, each from $N$ values.*
#
# ## 1. A sequence is one state
#
# Take sequences of $L=3$ tokens from $N=3$ values. There are $3^3=27$ of them, and each is **one state** of one Markov chain.
# Chapter 01 built such a chain for two tokens, and the library's `Chain` does it for any few. Our data distribution is
# arbitrary; a little is added everywhere to keep all ratios finite.

# %%
from sedd_mini.worlds.ctmc import Chain

N, L = 3, 3
p0 = torch.rand(N, N, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
p0 = 0.95 * p0 / p0.sum() + 0.05 / N**L
chain = Chain(UniformGraph(N), p0)

# %% [markdown]
# Every token jumps by its own clock and looks at no other one. What can happen within a short time $h$? To change two tokens,
# two clocks have to ring, each with a probability of about $h$; so both do with about $h^2$. Let the exact kernel of the 27 states say it. We start at
# the first state and sort the others by their **distance**: the number of tokens that differ.

# %% tags=["nbval-check-output"]
Q = chain.rate_matrix()  # (27, 27)
distance = (chain.states[:, None] != chain.states).sum(-1)  # (27, 27)
print("     h   P(1 changed)   P(2 changed)   P(3 changed)")
for h in (0.1, 0.01, 0.001):
    p_h = torch.matrix_exp(h * Q)[:, 0]
    print(f"{h:6}", *(f"{p_h[distance[0] == k].sum().item():14.1e}" for k in (1, 2, 3)))

# %% [markdown]
# Ten times less time: ten times fewer single changes, a hundred times fewer double ones, a thousand times fewer triple ones. A *rate* is the
# probability divided by $h$ as $h\to0$, so only the first column leaves a rate behind. Any sequence can still become any other; it only has to go
# one token at a time. **From a sequence, one jump leads to the $L(N-1)$ sequences that differ in one token**, and
# nowhere else.

# %%
jumps = Q > 0
assert (distance[jumps] == 1).all()
assert (jumps.sum(0) == L * (N - 1)).all()  # 6 of 26, from every state

# %% [markdown]
# With four tokens the rate matrix can still be drawn:

# %%
four = Chain(UniformGraph(3), torch.full((3,) * 4, 1 / 81, dtype=torch.float64))
fig, ax = plots.plt.subplots(figsize=(4.4, 4.2))
ax.imshow(four.rate_matrix() > 0, cmap=plots.INK, interpolation="nearest")
ax.set(xlabel="from sequence", ylabel="to sequence", title="81 sequences: 8 jumps from each")
ax.grid(False)

# %% [markdown]
# *What to see. Nearly all is white, and it has a pattern. The three 27 × 27 squares on the diagonal are alike: the first token is held, and the other three jump.
# The long thin stripes outside them are the jumps of the first token. Every token more makes the white share larger.*
#
# How quickly does it grow? Compare the number of states with the number of jumps out of one, from this toy to the published network.

# %% tags=["nbval-check-output"]
for name, n, length in [("this toy", 3, 3), ("letters", 27, 64), ("GPT-2's page", 50257, 1024)]:
    digits = 1 + math.floor(length * math.log10(n))
    out = length * (n - 1)
    print(f"{name:12}  states: a number of {digits:4} digits   jumps out of one: {out:10,}")

# %% [markdown]
# ### Only those ratios
#
# Now backwards. Chapter 01 derived the reverse rates for any chain, so also for this one, with whole sequences as states:
# $\bar Q(y,x)=\frac{p(y)}{p(x)}\,Q(x,y)$. In a naive implementation we tabulate the ratio of *every* pair of sequences.

# %%
sigma = 1.0
p = chain.marginal(sigma).flatten()  # (27,)
ratios = p[:, None] / p[None, :]  # (27, 27): p(y) / p(x)
naive = ratios * Q.T
naive.fill_diagonal_(0);

# %% [markdown]
# But look at the second factor: where $Q(x,y)=0$ the ratio is multiplied by zero. Of each column's ratios only the $L(N-1)$ with one
# token changed are ever used. So ask for those alone. `chain.scores(sigma)` holds, for each of the 27 sequences $x$, a table of $L$ rows and $N$ columns: the entry at
# row $i$, column $y$ is the ratio for "$x$ with token $i$ replaced by $y$".

# %%
scores = chain.scores(sigma)  # (27, L, N)
rates = scores * chain.graph.rates_into(chain.states)  # (27, L, N): ratio times Q(x, y)
places = chain.neighbours(chain.states)  # (27, L, N): which state that replacement is
better = torch.zeros_like(Q).scatter_(0, places.reshape(27, -1).T, rates.reshape(27, -1).T)
assert torch.allclose(better, naive, atol=1e-14)

# %% [markdown]
# The two reverse processes are *the same matrix*. Nothing was approximated. Let it prove itself: start from the noisy distribution at $\bar\sigma=8$ and run
# the reverse chain back down to the data. (`reverse_marginal` solves $dp/d\bar\sigma=-\bar Qp$ in small steps, and only ever asks its first
# argument, the model, for tables of $L\times N$ log-ratios.)

# %%
back = chain.reverse_marginal(chain.log_score, 8.0, chain.marginal(8.0), steps=200)
assert (back - chain.p0).abs().max() < 1e-3 < (chain.marginal(8.0) - chain.p0).abs().max()

# %% [markdown]
# This settles the shape of the network. For a batch of $B$ sequences $x$, shape $(B, L)$, and their noise levels it returns **log-scores of shape
# $(B, L, N)$**. Entry $[b,i,y]$ estimates the log of the ratio for sequence $b$ with its token $i$ replaced by $y$. Where $y$ is the present token
# nothing is replaced: the ratio is 1, the log 0. (On the absorbing graph there is one column more, for MASK.) The exact ratios, served in the form of a network:

# %%
x = chain.states[[5, 14]]  # (B, L) = (2, 3)
log_score = chain.log_score(x, sigma)  # (B, L, N)
assert log_score.shape == (2, L, N)
assert (log_score.gather(-1, x[..., None]) == 0).all()  # at the present token
edited = x[0].clone()
edited[2] = 0  # replace token 2 by value 0
assert torch.isclose(log_score[0, 2, 0], (p[chain.index(edited)] / p[chain.index(x[0])]).log())

# %% [markdown]
# One evaluation of the network answers for all $L(N-1)$ neighbours at once. Each answer depends on the *whole* sequence: that the noise is
# independent does not make the ratios so. The price is one big tensor. For the published batch of 512 pages, in 4-byte numbers:

# %% tags=["nbval-check-output"]
print(f"(512, 1024, 50257) float32: {512 * 1024 * 50257 * 4 / 1e9:.0f} GB")

# %% [markdown]
# More than a GPU of 80 GB holds, and the gradient would ask for as much again. Section 5 will show that the loss needs little of it; in training the library never holds it all at one time (chapter 06, section 8).
#
# ## 2. What is a token?
#
# A **tokeniser** turns text into a list of numbers from $0$ to $N-1$ and back. The first requirement is that the round trip loses nothing.
# The simplest one numbers characters. The library's `CharTokenizer` knows the 95 printable characters of ASCII and the newline. One more number is the
# **end-of-text** token, which stands between documents and never inside one.

# %% tags=["nbval-check-output"]
from sedd_mini.text.tokenizers import CharTokenizer, to_printable

chars = CharTokenizer()
ids = chars.encode("Noise, then text.")
print(ids)
print(chars.decode(ids), "| N =", chars.vocab_size)
assert all(chars.decode(chars.encode(d)) == to_printable(d) for d in valid_docs)

# %% [markdown]
# What of "café" or "日本"? A finite alphabet must either replace a stranger or fail. `to_printable` replaces: the accent is dropped, the rest becomes "?".
# There is a way to lose nothing. Computers store every text as **bytes**, numbers below 256 (in the encoding UTF-8), so 256 tokens are enough for all the languages of the world.
# But a byte is not a character: outside ASCII, a character takes two to four.

# %% tags=["nbval-check-output"]
stranger = "naïve café 日本"
print(repr(to_printable(stranger)))
print(len(stranger), "characters,", len(stranger.encode("utf-8")), "bytes")
print("日 =", list("日".encode()))

# %% [markdown]
# Bytes lose nothing, but a page becomes a long row of them, and long rows are what a transformer pays for. **Byte-pair encoding** (BPE) shortens the row.
# Begin with single symbols. Find the pair of neighbours that occurs most often in a corpus, make it a new token, replace it everywhere. Repeat. So that no token spans two words, the text
# is first cut into words, each with the space before it. Here is the whole algorithm:

# %%
import re
from collections import Counter

WORD = r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+"

def merge(word, pair):
    """("t", "h", "e") and the pair ("t", "h") → ("th", "e")."""
    out = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] = out[-1] + symbol
        else:
            out.append(symbol)
    return tuple(out)

# %%
def learn_merges(texts, num):
    words = Counter(tuple(word) for text in texts for word in re.findall(WORD, text))
    merges = []
    for _ in range(num):
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        merges.append(max(pairs, key=pairs.get))
        words = Counter({merge(word, merges[-1]): count for word, count in words.items()})
    return merges

# %% [markdown]
# The corpus is on your machine already: **Python's own documentation**, the language reference and the docstrings of the standard library, about two million characters in some 480 documents.
# It comes frozen inside the package, so it is the same on every Python and every machine. Fifty of its documents will do for the first merges.

# %%
assert 400 < len(python_docs()) < 600 and 1.5e6 < sum(map(len, python_docs())) < 3e6
some = train_docs[::9]
merges = learn_merges(some, 8)
print(merges)

# %% [markdown]
# Spaces pair with spaces, since documentation is indented; before long pairs of pairs make the word *the*. Production code does the same, faster and on bytes. The library's `BPETokenizer.train` calls the `tokenizers` package.
# Its first merges must be ours. (It writes a space inside a token as Ġ and a newline as Ċ, so that tokens can be stored in a table of visible characters.)

# %%
library = BPETokenizer.train(some, vocab_size=300).as_json()["model"]["merges"]
visible = str.maketrans({"Ġ": " ", "Ċ": "\n"})
assert [tuple(part.translate(visible) for part in pair) for pair in library[:8]] == merges

# %% [markdown]
# The tokeniser `bpe` of the first picture went on until it had 1024 tokens: 256 bytes, the end of text, and 767 merges. Round trips are exact for every string, also for the stranger, whose rare
# characters simply fall apart into their bytes. A single token may then be a piece of a character that cannot be shown alone.

# %%
assert bpe.vocab_size == 1024
for text in (stranger, *valid_docs):
    assert bpe.decode(bpe.encode(text)) == text
print([bpe.decode([i]) for i in bpe.encode("the docstring of café")])

# %% [markdown]
# The third kind of token is the word. It suits a language with few of them, such as the one of section 4. For English it does not: either the vocabulary is endless, or new words cannot be written.
#
# ### A loss per token depends on the token
#
# Suppose a model has learned nothing and finds all tokens equally likely. It needs $\log_2N$ bits a token: 6.6 with characters, 10 with our pieces. Does that make characters the better choice? No: a piece says more.
# What can be compared is **bits per character**, bits per token divided by characters per token. Measure it on documents that the tokeniser was not trained on.

# %%
text_size = sum(len(d) for d in valid_docs)
for name, tokenizer in {"characters": chars, "pieces": bpe}.items():
    per_token = text_size / sum(len(tokenizer.encode(d)) for d in valid_docs)
    bits = math.log2(tokenizer.vocab_size)
    print(f"{name:10}  {bits:5.2f} bits a token / {per_token:.2f} characters a token", end="")
    print(f" = {bits / per_token:.2f} bits a character")
assert 2.2 < per_token < 2.9

# %% [markdown]
# The tokeniser alone, knowing only which letters go together, saves two fifths. Remember this when you read a loss: ask first *per what?* Per sequence, per token or per character, in nats or in bits.
#
# ## 3. From documents to blocks
#
# A network is trained on rows of exactly $L$ tokens, but documents have every length. Cutting or padding each one wastes text or computing time. Instead they are **packed**: laid end to end in
# one stream, with an end-of-text token between two documents, and the stream is cut into blocks. Three tiny documents show it, with $L=6$.

# %% tags=["nbval-check-output"]
tiny = ["to be", "or", "not to be"]
stream = []
for document in tiny:
    stream += [chars.eot_id] * bool(stream) + chars.encode(document)
blocks = torch.tensor(stream[: len(stream) // 6 * 6]).reshape(-1, 6)  # (blocks, L)
for block in blocks:
    print("|" + chars.decode(block.tolist()).replace("<|endoftext|>", "¶") + "|")

# %% [markdown]
# A block may begin in the middle of a document and hold pieces of several. The network learns what ¶ means: what follows has nothing to do with what went before. Nothing is lost but an incomplete
# block at the very end, here none. The library's `pack` does the same:

# %%
from sedd_mini.text.blocks import pack

assert torch.equal(pack(tiny, chars, 6)[:], blocks)

# %% [markdown]
# What would padding have cost? Give every document blocks of its own, fill the last one up, and count how much is filler, at $L=256$ pieces.

# %%
lengths = torch.tensor([len(bpe.encode(d)) for d in valid_docs])
used = (lengths / 256).ceil() * 256
print(f"filler: {1 - lengths.sum() / used.sum():.0%} of all positions")
assert 0.03 < 1 - lengths.sum() / used.sum() < 0.3

# %% [markdown]
# ### Split first, then pack
#
# To know whether a model has learned the language or only its textbook, we keep some text out of training and measure on that. The rule is simple: *split documents, not blocks; keep copies together*. `split_documents` did so above. It sorts the documents by a hash of
# their text (a number that looks random but depends on the text alone), so that the order of the files does not matter and two copies always land on one side.

# %%
assert not set(train_docs) & set(valid_docs)
shuffled = list(reversed(python_docs()))
assert set(split_documents(shuffled)[1]) == set(valid_docs)
doubled = split_documents([*python_docs(), *python_docs()[::2]])
assert not set(doubled[0]) & set(doubled[1])

# %% [markdown]
# What if we break the rule? Three training sets, one and the same test text. **Honest:** no document of the test is in training. **Blocks shuffled:** packed first, and then every second block of the
# test documents given to training. (A random split of all blocks would give away more.) **Copies:** a third of the test text stands in the training set a second time, as happens with texts collected from the web.

# %%
few = python_docs()[::4]
honest, tested = split_documents(few, valid_fraction=0.1)
blocks = pack(tested, chars, 256)
test, between = blocks[0::2], blocks[1::2]  # (blocks, L) each
clean = pack(honest, chars, 256)[:].flatten()
training = {
    "honest": clean,
    "blocks shuffled": torch.cat([clean, between.flatten()]),
    "copies": torch.cat([clean, test[::3].flatten()]),
}

# %% [markdown]
# As the model we take one that counts: how often does each character follow the five before it? Where those five were never seen, it falls back on four, and so on (`KneserNey` in `ngram.py`
# mixes the counts well). Such a model learns in a second and remembers what it has read. Its mean $-\log_2p$ on the test text, and on documents that none of the three has seen:

# %%
from sedd_mini.text.ngram import KneserNey

unseen = pack([d for d in python_docs()[1::16] if d not in few], chars, 256)[:]
bits, new = {}, {}
for name, tokens in training.items():
    model = KneserNey(tokens, 6, chars.vocab_size)
    bits[name] = -model.log2_prob(test).mean().item()
    new[name] = -model.log2_prob(unseen).mean().item()
for name in ("blocks shuffled", "copies"):
    assert bits["honest"] - bits[name] > max(0.1, 5 * abs(new["honest"] - new[name]))

# %%
fig, ax = plots.plt.subplots(figsize=(7, 2.1))
colours = [plots.BLUE, plots.ORANGE, plots.ORANGE]
bars = ax.barh(list(bits), list(bits.values()), color=colours, height=0.6)
ax.bar_label(bars, fmt="%.2f", padding=4)
ax.invert_yaxis()
ax.set(xlabel="bits per character on the same test text (lower looks better)")
ax.set_title("A leak flatters")
ax.grid(axis="y", visible=False)

# %% [markdown]
# *What to see. The same model, tested on the same characters: both leaks (orange) lower the number, by 0.3 bits or so. On new documents they gain a hundredth of a bit, for having read a little more. A larger network, which remembers more, would be flattered more. The tokeniser was trained on the training
# documents alone, for the same reason.*
#
# ### An order for every epoch
#
# One pass through all blocks is an **epoch**. Each should visit every block once, in a new order: an order repeated is a pattern that a network can lean on. And a run that was interrupted should go on exactly where it stopped.
# Both come from one idea. Number the samples of the endless stream $n=0,1,2,\dots$. Sample $n$ lies in epoch $n\,\mathrm{div}\,M$, with $M$ blocks; the epoch's order is a permutation drawn from the seed and the epoch *alone*.

# %%
def block_of(n, M, seed):
    epoch, place = divmod(n, M)
    generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
    return torch.randperm(M, generator=generator)[place].item()

# %%
from sedd_mini.text.blocks import BlockLoader

blocks = pack(valid_docs, chars, 256)
M = len(blocks)
loader = BlockLoader(blocks, batch_size=4, seed=1)
assert torch.equal(next(loader), blocks[[block_of(n, M, 1) for n in range(4)]])
orders = [[block_of(n, M, 1) for n in range(e * M, (e + 1) * M)] for e in (0, 1)]
assert sorted(orders[0]) == sorted(orders[1]) == list(range(M)) and orders[0] != orders[1]

# %% [markdown]
# So the whole position of a training run in its data is a single number, $n$. Save it, make a new loader, put it back: the next batch is the one that would have come. (Beginning with the first block again is a common mistake, and a silent one: the
# early part of the corpus is then seen most often.)

# %%
saved = loader.state_dict()
expected = next(loader)
fresh = BlockLoader(blocks, batch_size=4)
fresh.load_state_dict(saved)
assert torch.equal(next(fresh), expected)
print(saved)

# %% [markdown]
# ## 4. A language whose truth is known
#
# No one knows the probability of an English sentence. How then can we tell whether a network has found it? We make a language that we know completely. The library's `SyntheticLanguage` has a few dozen words and a little grammar, with one difficulty worth learning: a verb agrees with the number of its
# subject, whatever stands between the two. And with probability 2 % a word is a **slip**, drawn from all words alike, so that no string is impossible.

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
tok, V = language.tokenizer(), language.vocab_size
sample = language.sample(3, 14, torch.Generator().manual_seed(5))  # (3, 14)
for row in sample:
    print("…", tok.decode(row.tolist()), "…")
print(V, "words,", len(language.states), "hidden states")

# %% [markdown]
# (A block is any stretch of an endless stream, hence the dots.) Behind the words is a Markov chain, this time in steps of a word. Its states, which we count by $S$, are positions in the grammar, such as *just after a plural subject*. Each state says a word by its own table of probabilities. Only the words are seen, so this is called a **hidden Markov chain**.
#
# The probability of a string is a sum over all ways the hidden states could have gone. For three words that is $S^3$ paths, which can still be listed:

# %%
three = tok.encode("some cats sleep")
start, T, E = language.stationary, language.transition, language.emission
e = [E[:, word] for word in three]  # P(word | state), (S,) each
paths = (start * e[0])[:, None, None] * (T * e[1])[:, :, None] * (T * e[2])[None]  # (S, S, S)
naive = paths.sum().log()

# %% [markdown]
# Better: sum as you go. After each word keep, for each state, the total probability of all paths that end there. This is the *forward algorithm*; its cost grows linearly with the length. The library has it as `log_prob`.

# %%
total = start * e[0]  # (S,)
for likelihood in e[1:]:
    total = (total @ T) * likelihood
assert torch.allclose(total.sum().log(), naive)
assert torch.allclose(language.log_prob(torch.tensor([three]))[0], naive)

# %% [markdown]
# A probability over strings has to sum to one. There are $V^2$ strings of two words, with $V$ the number of words:

# %%
pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
assert abs(language.log_prob(pairs).exp().sum() - 1) < 1e-12

# %% [markdown]
# And the agreement? Mask the verb of a sentence, and ask for the exact probability of its two forms. This is the question that an absorbing diffusion model answers at a masked position; here we have the truth. To make it hard, the noun next to the verb has the other number.

# %%
for subject, place in (("some cats", "a river"), ("every cat", "some rivers")):
    text = tok.encode(f". {subject} near {place} sleep .")
    known = torch.tensor([[i != 6 for i in range(8)]])  # all but the verb
    probs = language.posterior(torch.tensor([text]), known)[0, 6]  # (V,)
    sleep, sleeps = probs[tok.ids["sleep"]].item(), probs[tok.ids["sleeps"]].item()
    print(f"{subject} near {place} …   sleep {sleep:.3f}   sleeps {sleeps:.3f}")
    assert max(sleep, sleeps) > 10 * min(sleep, sleeps) and (sleep > sleeps) == ("cats" in subject)

# %% [markdown]
# The subject decides, not the nearer noun. The wrong form keeps a small probability, for the slips. Last, the number that all models will be held against: the **entropy rate**, the bits a word costs on average when the past is known. No model can do better, and one that claims to is mistaken.
# We estimate it by $-\log_2p$ of the second halves of sampled blocks, given their first halves: those provide the past. The library encloses it more narrowly, from both sides.

# %%
x = language.sample(512, 64, torch.Generator().manual_seed(0))  # (512, 64)
per_token = (language.log_prob(x[:, :32]) - language.log_prob(x)) / 32 / math.log(2)  # (512,)
error = per_token.std() / math.sqrt(512)
rate = language.entropy_rate(num_blocks=512)
print(f"entropy rate {rate.bits:.2f} bits a word; with no knowledge at all {math.log2(V):.2f}")
assert abs(per_token.mean() - rate.bits) < 4 * error < 0.1

# %% [markdown]
# Chapter 07 trains networks on this language and on Python's documentation. On the former we shall know to the hundredth of a bit what they have missed.
#
# ## 5. The loss at a real vocabulary
#
# Shapes and data are settled; now the loss. The noise is independent, so the score entropy of a sequence is a sum over positions, and we need it for one token with value $x$ now and $x_0$ in the data:
#
# $$\ell=\sum_{y\ne x}Q(x,y)\,\big(s_y-r_y\log s_y+K(r_y)\big),\qquad r_y=\frac{p_{\bar\sigma}(y|x_0)}{p_{\bar\sigma}(x|x_0)},\quad K(a)=a(\log a-1).$$
#
# With the formula's own symbols, and $p_{\bar\sigma}$ from the matrix exponential:

# %%
def K(a):
    return torch.xlogy(a, a) - a  # xlogy(0, 0) is 0

def naive_loss(log_score, sigma, x, x0, Q):
    P = torch.matrix_exp(sigma * Q)  # P[y, x0]
    total = 0.0
    for y in range(len(Q)):
        if y != x and Q[x, y] > 0:
            r = P[y, x0] / P[x, x0]
            total += Q[x, y] * (log_score[y].exp() - r * log_score[y] + K(r))
    return total

# %% [markdown]
# The oracle `MatrixGraph` computes the same for whole batches, by dense algebra. They agree for both graphs, on tokens that have moved and tokens that have not:

# %%
from sedd_mini.worlds.ctmc import MatrixGraph

torch.manual_seed(0)
for graph in (UniformGraph(5), AbsorbingGraph(5)):
    oracle = MatrixGraph.of(graph)
    for x, x0 in [(2, 2), (graph.num_states - 1, 2), (0, 0)]:
        log_score = torch.randn(graph.num_states, dtype=torch.float64)
        ours = naive_loss(log_score, 0.3, x, x0, oracle.Q)
        theirs = oracle.score_entropy(log_score[None], 0.3, torch.tensor([x]), torch.tensor([x0]))
        assert torch.allclose(torch.as_tensor(ours, dtype=torch.float64), theirs)

# %% [markdown]
# What does this cost at $N=50\,257$? A matrix exponential takes about ten products of $N\times N$ matrices, and every sequence has its own $\bar\sigma$, hence its own matrix:

# %% tags=["nbval-check-output"]
N = 50_257
print(f"one matrix in float32: {4 * N**2 / 1e9:.0f} GB")
print(f"one product of two:    {2 * N**3:.1e} operations")
print(f"a batch of 512:        {512 * 4 * N**2 / 1e12:.1f} TB of kernels")

# %% [markdown]
# ### Uniform: three values
#
# Chapter 01 gave the kernel in closed form: with $a=(1-e^{-\bar\sigma})/N$, a token is found at $x_0$ with probability $a+e^{-\bar\sigma}$, and at each other value with $a$. So there are only two different probabilities, and their ratios take **three values**. Write
#
# $$q=\frac{a}{a+e^{-\bar\sigma}}=\frac{1-e^{-\bar\sigma}}{1-e^{-\bar\sigma}+Ne^{-\bar\sigma}}=\frac{e^{\bar\sigma}-1}{(e^{\bar\sigma}-1)+N}.$$
#
# - If the token has not moved, $x=x_0$: the likely one is below the line, so $r_y=q$ for every $y\ne x$.
# - If it has, $x\ne x_0$: then $r_y=1$ for every $y$ that is neither, and $r_{x_0}=1/q$.
#
# Now put them in, line by line. All jumps into $x$ have the rate $1/N$. In the first case all $N-1$ constants are alike,
#
# $$N\ell=\sum_{y\ne x}s_y-q\sum_{y\ne x}\log s_y+(N-1)K(q),$$
#
# and in the second, with $K(1)=-1$ for the $N-2$ bystanders and the surplus $1/q-1$ at $x_0$,
#
# $$N\ell=\sum_{y\ne x}s_y-\sum_{y\ne x}\log s_y-\Big(\frac1q-1\Big)\log s_{x_0}-(N-2)+K\Big(\frac1q\Big).$$
#
# Note that a token which has *not* moved contributes as well: nothing on the uniform graph shows whether a token has moved, and the network has to say how sure it is.

# %%
def uniform_loss(log_score, q, x, x0):
    """The two lines above; log_score (M, N), q, x and x0 (M,) -> (M,)."""
    N = log_score.shape[-1]
    at_x = log_score.gather(-1, x[:, None])[:, 0]
    at_x0 = log_score.gather(-1, x0[:, None])[:, 0]
    sum_s = log_score.exp().sum(-1) - at_x.exp()
    sum_log = log_score.sum(-1) - at_x
    unmoved = sum_s - q * sum_log + (N - 1) * K(q)
    moved = sum_s - sum_log - (1 / q - 1) * at_x0 - (N - 2) + K(1 / q)
    return torch.where(x == x0, unmoved, moved) / N

# %% [markdown]
# ### Absorbing: masked positions only
#
# Here $Q(x,y)$ is the rate of the jump $y\to x$, and only one state is ever jumped into: MASK. If $x$ is a visible token, every weight is 0 and the position contributes nothing. If $x$ is MASK, it came from $x_0$ and from nothing else, so $r_y=0$ for all other tokens. Their terms are $s_y-0+K(0)=s_y$. And for $x_0$ the ratio is
#
# $$r=\frac{e^{-\bar\sigma}}{1-e^{-\bar\sigma}}=\frac1{e^{\bar\sigma}-1},\qquad\text{so}\qquad\ell=\sum_{y\ne\mathrm{MASK}}s_y-r\log s_{x_0}+K(r).$$

# %%
def absorbing_loss(log_score, sigma, x, x0):
    """The line above; log_score (M, N + 1), the last state MASK; sigma, x and x0 (M,) -> (M,)."""
    mask = log_score.shape[-1] - 1
    r = 1 / torch.expm1(sigma)
    at_x0 = log_score.gather(-1, x0[:, None])[:, 0]
    masked = log_score[:, :mask].exp().sum(-1) - r * at_x0 + K(r)
    return torch.where(x == mask, masked, 0)

# %% [markdown]
# Both against the oracle, at every pair $(x,x_0)$ of a small vocabulary and at noise from very little to much. (`sigma` is a batch now, one level for each row.)

# %%
def every_pair(graph):
    """All (x, x0) that occur: on the absorbing graph x is x0 or MASK."""
    x, x0 = torch.cartesian_prod(torch.arange(graph.num_states), torch.arange(graph.num_tokens)).T
    possible = torch.ones_like(x, dtype=torch.bool)
    if graph.mask_id is not None:
        possible = (x == x0) | (x == graph.mask_id)
    return x[possible], x0[possible]

# %%
def q_of(sigma, N):
    return torch.expm1(sigma) / (torch.expm1(sigma) + N)

for graph in (UniformGraph(7), AbsorbingGraph(7)):
    x, x0 = every_pair(graph)
    log_score = torch.randn(len(x), graph.num_states, dtype=torch.float64)
    for level in (1e-4, 0.1, 1.0, 7.0):
        sigma = torch.full(x.shape, level, dtype=torch.float64)
        exact = MatrixGraph.of(graph).score_entropy(log_score, sigma, x, x0)
        if graph.mask_id is None:
            ours = uniform_loss(log_score, q_of(sigma, 7), x, x0)
        else:
            ours = absorbing_loss(log_score, sigma, x, x0)
        assert torch.allclose(ours, exact, rtol=1e-8)
        assert torch.allclose(ours, graph.score_entropy(log_score, sigma, x, x0), rtol=1e-8)

# %% [markdown]
# The matrices are gone: beyond the log-scores themselves a position needs a handful of numbers. The last line has compared with the library's `graph.score_entropy` too. At GPT-2's vocabulary there is no oracle any more, but the closed forms do not care how large $N$ is:

# %%
N = 50_257
x, x0 = torch.tensor([7, 7]), torch.tensor([7, 9])
sigma = torch.tensor([0.5, 0.5], dtype=torch.float64)
log_score = torch.randn(2, N, dtype=torch.float64).scatter(-1, x[:, None], 0)
ours = uniform_loss(log_score, q_of(sigma, N), x, x0)
assert torch.allclose(ours, UniformGraph(N).score_entropy(log_score, sigma, x, x0))

# %% [markdown]
# ## 6. The same formulas in float32
#
# All this was in float64, which keeps 16 digits. Networks compute in float32, which keeps 7, and that is where correct formulas go wrong. Two do here.
#
# ### A NaN at small noise
#
# In public code the ratio $q$ is often written in another way, the same number on paper:
#
# $$q=1-\frac{N}{(e^{\bar\sigma}-1)+N}.$$

# %%
def q_textbook(sigma, N):
    return 1 - torch.as_tensor(N) / (torch.expm1(sigma) + N)

sigma = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
assert torch.allclose(q_textbook(sigma, N), q_of(sigma, N), rtol=1e-6)  # in float64: no quarrel

# %% [markdown]
# Now in float32, at GPT-2's $N$:

# %% tags=["nbval-check-output"]
for level in sigma:
    q_32 = q_textbook(level.float(), N)
    print(f"sigma {level:5.3f}   q = {q_of(level, N):.2e}   textbook in float32: {q_32:.2e}")

# %% [markdown]
# The digits are lost in the denominator. Near 50 257, neighbouring float32 numbers lie $2^{-8}\approx0.004$ apart, so that adding $e^{\bar\sigma}-1=0.001$ changes nothing: the fraction is exactly 1. Then $q=0$, its logarithm is $-\infty$, and $0\cdot(-\infty)$ is **NaN**, "not a number", which swallows everything it is added to.
# What does a training step see? We take an untouched token and a *perfect* network, whose scores are exactly $q$. The gradient of $N\ell$ in a log-score is $s-r$, so it should be 0. We write $K$ as most people do.

# %%
def K_plain(a):
    return a * (a.log() - 1)

level = torch.tensor([0.001])  # float32
assert torch.expm1(level) + N == N
log_score = q_of(level, N).log().repeat(N).requires_grad_()  # (N,)
q = q_textbook(level, N)
loss = (log_score[1:].exp().sum() - q * log_score[1:].sum() + (N - 1) * K_plain(q)) / N
loss.sum().backward()

# %% tags=["nbval-check-output"]
push = N * log_score.grad[1] / q_of(level, N)
print(f"loss: {loss.item()}   push on a score, relative to the score: {push.item():.2f}")

# %% [markdown]
# The loss is NaN. The gradient is not, since the NaN sits in the constant $K(q)$, which does not depend on the network. This is the treacherous part: where nobody looks at the logged loss, the run goes on, and pushes perfect scores down at full strength, towards 0.
#
# Is it a rare accident? It depends on $N$ and on $\bar\sigma$. Try every vocabulary up to 100 000:

# %% tags=["nbval-check-output"]
every_N = torch.arange(2, 100_001, dtype=torch.float32)
for level in (1e-5, 1e-4, 1e-3, 1e-2):
    broken = K_plain(q_textbook(torch.tensor(level), every_N)).isnan()
    print(f"sigma {level:7.0e}:  NaN at {broken.double().mean():6.1%} of all N up to 100 000")

# %% [markdown]
# And where it is no NaN it may still be wrong. A map:

# %%
levels, sizes = torch.logspace(-5, 0, 121), torch.logspace(1, 5.3, 121).round()
wrong = q_textbook(levels[None], sizes[:, None])  # (N, sigma), float32
true = q_of(levels.double()[None], sizes.double()[:, None])
error = ((wrong.double() - true).abs() / true).log10().masked_fill(wrong == 0, math.nan)
fig, ax = plots.plt.subplots(figsize=(7, 4))
image = ax.pcolormesh(levels, sizes, error, cmap=plots.INK, vmin=-6, vmax=0)
fig.colorbar(image, label="relative error of q, as a power of 10")
ax.set_facecolor(plots.ORANGE)
ax.axhline(50_257, color="#222222", lw=1, ls="--")
ax.text(0.95, 60_000, "GPT-2", ha="right", va="bottom")
ax.grid(False)
ax.text(2.5e-5, 12_000, "NaN", color="white", fontsize=16)
ax.set(xscale="log", yscale="log", xlabel=r"$\bar\sigma$", ylabel="vocabulary size N")
ax.set_title("The textbook formula in float32");

# %% [markdown]
# *What to see. In the orange corner the textbook formula gives NaN; along its border, an error of the size of the number itself (dark). The border has steps at the powers of two, where the spacing of float32 numbers doubles. The small worlds on which one tests, at the bottom, lose digits, but never all of them. Code can be tested well and fail at full size.*
#
# How much of a training run lies in the orange part? The uniform graph goes with geometric noise, from $\bar\sigma=10^{-4}$ to 20, with equal shares of $t$ for equal factors. At GPT-2's $N$:

# %%
from sedd_mini import GeometricNoise

t = torch.linspace(0, 1, 10_001)
share = (q_textbook(GeometricNoise().total(t), N) == 0).float().mean().item()
print(f"NaN in {share:.0%} of all draws of t")
assert 0.22 < share < 0.28

# %% [markdown]
# One draw in four. There is a twist, which makes the matter harder to find. If $N$ is a plain Python number, as it usually is, PyTorch computes `N / tensor` as $N$ times the reciprocal of the tensor. Then
# $N\cdot\frac1N$ may round to 1 or to just below, depending on the digits of $N$. Here is that way of computing it, spelt out:

# %%
q = 1 - every_N * torch.reciprocal(torch.expm1(torch.tensor(1e-4)) + every_N)
print(f"NaN at {(q == 0).float().mean():.0%} of all N; at 50 257 q = {q[N - 2].item():.1e}")
assert 0.8 < (q == 0).float().mean() < 0.9 and q[N - 2] > 0 and q[N - 1] == 0

# %% [markdown]
# GPT-2's own vocabulary escapes the NaN, by luck, with a $q$ thirty times too large. With one token more, 50 258, it would not escape, and neither do most sizes. A formula should not depend on such luck.
#
# The repair is the form we derived first, in which nothing is subtracted from 1. Both its numerator and its denominator are sums of positive numbers, given `expm1`, which computes $e^{\bar\sigma}-1$ without forming $e^{\bar\sigma}$. Over the whole map its error is a few roundings:

# %%
repaired = q_of(levels[None], sizes[:, None])  # float32
assert ((repaired.double() - true).abs() / true).max() < 5e-7

# %% [markdown]
# ### Three terms that cancel
#
# The other trouble is in the loss itself, and concerns both graphs. Near the optimum $s=r$ the terms of $s-r\log s+K(r)$ are as large as $r$, and their sum is nearly 0. How near? Write $\delta=\log s-\log r$ and expand:
#
# $$s-r\log s+r\log r-r=r\,\big(e^\delta-\delta-1\big)\approx\tfrac12\,r\,\delta^2 .$$
#
# At $\delta=10^{-3}$ the result is two million times smaller than the terms, and float32 keeps only seven digits of those. A loss that cannot be negative comes out negative, in a quarter of the cases very close to the optimum. Here are 2000 terms, with ratios $r$ between 0.1 and 10 and a network that is off by $\delta$:

# %%
delta = torch.logspace(-5.5, 0.5, 2000, dtype=torch.float64)
r = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10 + 0.1
log_score = (r.log() + delta).float()  # what a network gives
terms = log_score.exp() - r.float() * log_score + K(r.float())
print(f"negative: {(terms[delta < 2e-4] < 0).float().mean():.0%} of the terms with δ < 0.0002")
assert (terms[delta < 2e-4] < 0).float().mean() > 0.1

# %% [markdown]
# The same line shows the way out: compute $r(e^\delta-1-\delta)$, with `expm1`. The terms are now as large as $\delta$ instead of 1, and one subtraction has gone. For the last bit two refinements: below 1/16 the series $\frac{\delta^2}2\big(1+\frac\delta3(1+\frac\delta4(\dots))\big)$, which subtracts nothing; and
# a $\delta$ that is itself exact, with $\log r$ in float64.

# %%
def relative_excess(delta):
    """e^δ − 1 − δ: the score entropy of one ratio, divided by that ratio."""
    series = 1 + delta / 3 * (1 + delta / 4 * (1 + delta / 5 * (1 + delta / 6 * (1 + delta / 7))))
    return torch.where(delta.abs() < 1 / 16, delta**2 / 2 * series, delta.expm1() - delta)

# %%
def error_of(values):
    return ((values.double() - exact).abs() / exact).clamp(min=1e-9)

exact = r * relative_excess(log_score.double() - r.log())  # float64, of the very same log-scores
rough = log_score - r.log().float()  # δ by subtracting in float32
fine = (log_score.double() - r.log()).float()
lines = {
    "three terms": terms,
    "expm1": r.float() * (rough.expm1() - rough),
    "series and exact δ": r.float() * relative_excess(fine),
}
assert error_of(lines["three terms"])[delta < 1e-3].median() > 0.3
assert error_of(lines["series and exact δ"]).max() < 5e-6

# %%
fig, ax = plots.plt.subplots()
for name, values in lines.items():
    ax.loglog(delta, error_of(values), ".", markersize=3, label=name)
ax.axhline(1, color="#888888", lw=1)
ax.text(3, 0.5, "above: no digit is right", color="#555555", ha="right", va="top")
ax.set(xlabel=r"$\delta=\log s-\log r$, the distance from the optimum")
ax.set(ylabel="relative error in float32", title="One term of the loss, computed in three ways")
ax.legend(markerscale=4);

# %% [markdown]
# *What to see. The plain formula (blue) loses two digits each time $\delta$ shrinks by ten, and below $3\cdot10^{-4}$ says nothing at all. (The dots on the line are terms that came out as exactly 0.) With* `expm1` *(orange) it loses one. The last form (green) has five digits or more everywhere.*
#
# Here are both losses in their final form.

# %%
def stable_uniform(log_score, sigma, x, x0):
    log_q = q_of(sigma.double(), log_score.shape[-1]).log()  # (M,)
    log_r = torch.where(x == x0, log_q, 0)[:, None].expand(log_score.shape)  # q or 1 …
    log_r = log_r.scatter(-1, x0[:, None], -log_q[:, None])  # … and 1/q at x0
    terms = log_r.exp() * relative_excess((log_score.double() - log_r).to(log_score.dtype))
    return terms.scatter(-1, x[:, None], 0).sum(-1).to(log_score.dtype) / log_score.shape[-1]


def stable_absorbing(log_score, sigma, x, x0):
    mask, log_r = log_score.shape[-1] - 1, -sigma.double().expm1().log()
    ends = torch.stack([x0, torch.full_like(x0, mask)], -1)
    others = log_score.scatter(-1, ends, -math.inf).exp().sum(-1)  # r = 0 there: s alone
    delta = log_score.gather(-1, x0[:, None])[:, 0].double() - log_r
    own = (log_r.exp() * relative_excess(delta)).to(log_score.dtype)
    return torch.where(x == mask, others + own, 0)

# %% [markdown]
# Check them against the naive code's oracle at small $N$, in float64, and against the library, which does the same with less memory (it never writes down a row of $\log r$, and splits it into two float32 pieces instead of lifting a whole row to float64).

# %%
for graph, loss in ((UniformGraph(7), stable_uniform), (AbsorbingGraph(7), stable_absorbing)):
    x, x0 = every_pair(graph)
    log_score = torch.randn(len(x), graph.num_states, dtype=torch.float64)
    for level in (1e-4, 0.1, 1.0, 7.0):
        sigma = torch.full(x.shape, level, dtype=torch.float64)
        ours = loss(log_score, sigma, x, x0)
        exact = MatrixGraph.of(graph).score_entropy(log_score, sigma, x, x0)
        assert torch.allclose(ours, exact, rtol=1e-8)
        assert torch.allclose(ours, graph.score_entropy(log_score, sigma, x, x0), rtol=1e-10)

# %% [markdown]
# And the proof at full size: $N=50\,257$, float32, a moved and an unmoved token, noise of 0.001, a network that is off by one part in a thousand everywhere. The truth is the same formula in float64.

# %%
N = 50_257
x, x0 = torch.tensor([7, 7]), torch.tensor([7, 9])
sigma = torch.full((2,), 0.001)
log_q = q_of(sigma.double(), N).log()
log_r = torch.zeros(2, N, dtype=torch.float64)
log_r[0], log_r[1, 9] = log_q[0], -log_q[1]  # the three values once more
off = torch.randn(2, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
log_score = (log_r + 1e-3 * off).float()
truth = stable_uniform(log_score.double(), sigma.double(), x, x0)

# %%
textbook = uniform_loss(log_score, q_textbook(sigma, N), x, x0)
three_terms = uniform_loss(log_score, q_of(sigma, N), x, x0)
library = UniformGraph(N).score_entropy(log_score, sigma, x, x0)
results = {"truth": truth, "textbook": textbook, "q repaired": three_terms, "library": library}
for name, values in results.items():
    print(f"{name:11}  unmoved: {values[0].item():8.1e}   moved: {values[1].item():8.1e}")

# %%
assert textbook[1].isnan() and textbook[0] > 1e5 * truth[0]
assert ((three_terms.double() - truth) / truth).abs().max() > 0.1
assert torch.allclose(library.double(), truth, rtol=1e-5)
assert torch.allclose(stable_uniform(log_score, sigma, x, x0), library, rtol=1e-5)

# %% [markdown]
# Does it matter? Less for training than one might fear: the gradient is $s-r$, a single subtraction, and automatic differentiation finds it to three digits or more even from the three terms. But at one small noise level the *value* can be wrong altogether, 0 or negative, as here. Then no test, and no comparison of two nearly perfect networks, can lean on it.

# %%
leaf = log_score.clone().requires_grad_()
uniform_loss(leaf, q_of(sigma, N), x, x0).sum().backward()
slope = (log_score.double().exp() - log_r.exp()).scatter(-1, x[:, None], 0) / N
assert ((leaf.grad - slope).norm(dim=-1) < 1e-3 * slope.norm(dim=-1)).all()

# %% [markdown]
# ## 7. The first number you will see
#
# A network that has learned nothing: what is its loss? It is worth knowing by heart, because it is the first line of every training log, and the first thing to be wrong. Take the absorbing graph. A newborn network gives every token the same chance, and the published design leaves to it only what is unknown: it subtracts $\log(e^{\bar\sigma}-1)+\log N$ from the output, so that
# an output of 0 means $s_y=r/N$ at every token, with $r=1/(e^{\bar\sigma}-1)$. Put it into the closed form. The scores sum to $r$, and
#
# $$\ell=r-r(\log r-\log N)+r\log r-r=r\log N .$$
#
# A position is masked with probability $1-e^{-\bar\sigma}$, and $(1-e^{-\bar\sigma})\,r=e^{-\bar\sigma}$. The training loss weighs noise levels by $\sigma(t)$, the derivative of $\bar\sigma$, so its expectation over $t$ is
#
# $$L\log N\int_0^1\sigma(t)\,e^{-\bar\sigma(t)}\,dt=\big(1-e^{-\bar\sigma(1)}\big)\,L\log N .$$
#
# With the log-linear schedule the bracket is 0.999, and more: $\sigma e^{-\bar\sigma}$ is 0.999 at *every* $t$, so that all noise levels count alike. Let the library's loss confirm it at 64 of them:

# %% tags=["nbval-check-output"]
from sedd_mini import LogLinearNoise

graph, noise = AbsorbingGraph(N), LogLinearNoise()
t = (torch.arange(64) + 0.5) / 64
sigma = noise.total(t)
newborn = (-sigma.expm1().log() - math.log(N))[:, None].expand(-1, N + 1)  # (64, N + 1)
loss = graph.score_entropy(newborn, sigma, torch.full((64,), graph.mask_id), torch.full((64,), 464))
each = noise.rate(t) * -torch.expm1(-sigma) * loss  # (64,): rate · probability of MASK · loss
assert (each / (0.999 * math.log(N)) - 1).abs().max() < 1e-4
mean = each.mean().item()
print(f"{mean:.3f} nats a token, {1024 * mean:,.0f} nats a sequence of 1024 tokens")

# %% [markdown]
# If the first lines of a log show about 11 000, it is in nats per sequence and all is well. If they show 10.8, it is per token. Anything else, and something is broken before training has begun. A batch will scatter around these numbers, since each $t$ masks its own share of tokens.
#
# ## Summary
#
# 1. Independent clocks never ring together, so a jump changes one token; the reverse process of sequences needs only the $L(N-1)$ ratios one edit away, exactly, and a network returns log-scores of shape $(B,L,N)$.
# 2. A token is a convention (character, byte, learned piece, word); compare models in bits per character, and keep the round trip exact.
# 3. Split documents before packing, copies together; a leak lowers the number and hardly improves the model. One number restores the position in reshuffled epochs.
# 4. On the uniform graph $r$ takes the values $q$, $1$ and $1/q$; on the absorbing one only masked positions count, with $r=1/(e^{\bar\sigma}-1)$: no matrix at any $N$.
# 5. In float32 write $q$ with `expm1`, never as $1-\dots$, and the loss as $r(e^\delta-1-\delta)$; an untrained absorbing model starts at $(1-e^{-\bar\sigma(1)})\,L\log N$.
#
# ## Exercises
#
# **1. Count the jumps** (easy, 10 minutes). On the absorbing graph, a sequence of $L$ tokens has $m$ positions at MASK. To how many sequences can the noise take it in one jump, and to how many the reverse process? Fill in the two numbers.

# %%
def jumps_out(L, N, m):
    forward, reverse = None, None
    return forward, reverse

if jumps_out(5, 7, 2) != (None, None):
    seven = AbsorbingGraph(7)
    for tokens in ([0, 7, 1, 7, 4], [7, 7, 7, 2]):  # 7 is MASK
        sequence = torch.tensor(tokens)
        forward = int((seven.rates(sequence) > 0).sum())
        reverse = int((seven.rates_into(sequence) > 0).sum())
        found = jumps_out(len(tokens), 7, tokens.count(7))
        assert found == (forward, reverse), "which tokens can jump? where to?"

# %% [markdown]
# **2. How large a vocabulary?** (easy, 20 minutes). Train the tokeniser with 257, 512, 1024, 2048 and 4096 tokens on `some` and measure characters per token on `valid_docs`. The network's output has $LN$ entries for a text of $L$ tokens. For a text of a thousand characters, which vocabulary gives the smallest output, which the shortest row? What would you choose, and what else
# would you want to know?
#
# **3. The other end of float32** (medium, 15 minutes). At large $\bar\sigma$ our own `q_of` fails as well: `expm1` overflows above 88. Write $\log q$ in a form that is right from $10^{-6}$ to $10^3$ (hint: divide numerator and denominator by $e^{\bar\sigma}$).

# %%
def log_q_of(sigma, N):
    return None

sigma = torch.tensor([1e-6, 1e-3, 1.0, 80.0, 100.0, 1000.0])
if log_q_of(sigma, 1000) is not None:
    assert torch.isnan(q_of(sigma, 1000)[-1])  # what went wrong
    want = torch.tensor([-20.72327, -13.81501, -6.36812, 0.0, 0.0, 0.0])
    assert torch.allclose(log_q_of(sigma, 1000), want, atol=1e-4)

# %% [markdown]
# **4. A quieter leak** (medium, 30 minutes). Train the tokeniser once on `train_docs` and once on training and validation documents together. By how much do the characters per token on `valid_docs` change? Compare with the leaks of section 3: which would you forgive in someone's paper, and which not?
#
# **5. The first loss on the uniform graph** (hard, 40 minutes). A newborn network on the uniform graph says $s_y=1$ everywhere. Show that an unmoved position contributes $\frac{N-1}N(1+K(q))$ and a moved one $\frac1N(1+K(1/q))$; weigh the two with their probabilities; and integrate over $\bar\sigma$ from $10^{-4}$ to 20, by quadrature in $\log\bar\sigma$, for $N=50\,257$. The result
# is very near $\log N=10.82$ nats a token. Explain with chapter 04 why it has to be: a reverse process whose ratios are all 1 is the noise itself, run on uniform tokens. Which two laws of paths are compared, and where do they differ?
#
# ## Further reading
#
# - Lou, Meng, Ermon, *Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution* (2023), sections 3.3 and 4.1: sequences, and the losses of both graphs.
# - Sennrich, Haddow, Birch, *Neural Machine Translation of Rare Words with Subword Units* (2016): byte-pair encoding for text. Radford et al., *Language Models are Unsupervised Multitask Learners* (2019), section 2.2: on bytes.
# - Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic* (1991): cancellation, from the beginning.
# - Rabiner, *A Tutorial on Hidden Markov Models* (1989): the forward algorithm and its relatives.
# - Lee et al., *Deduplicating Training Data Makes Language Models Better* (2022): how many copies real corpora hold.
