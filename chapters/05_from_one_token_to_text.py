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
# # 05. From one token to text: how can anyone compute with $50257^{1024}$ states?
#
# The worlds of chapters 01 to 04 were small: three words, pairs of tokens, a language of 40 words. A text of GPT-2's size has 1024 tokens from a vocabulary of 50 257, so there are $50257^{1024}$ such texts, a number of 4815 digits.
# This chapter shows that the reverse process on such texts needs only a small part of the ratios of their probabilities, without any approximation, and how a folder of documents becomes the rows of tokens that a network trains on.
#
# After this chapter you will be able to
#
# - explain, by counting and by an exact check, why $L(N-1)$ ratios suffice for a sequence of $L$ tokens with $N$ values each;
# - turn text into tokens and blocks, and compare models that use different tokens;
# - split text without leakage, and measure how much a leak flatters a model.
#
# *You need* chapters 00, 01 and 03 (04 for exercise 5). *Running time:* about half a minute on two CPU cores.

# %% [markdown]
# ## The lines of the page
#
# ```python
# language = SyntheticLanguage()
# words = language.tokenizer()  # 40 words, and each word is one token
# N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
# ...
# model = nn.Sequential(  # (B, L) tokens → (B, L, N) logits: what may stand at each place?
# ...
#         loss = loss_of(language.sample(B, L))
# ```
#
# Sections 1 and 2 explain the shape (B, L, N). Sections 3 to 6 replace the artificial language by English documents, and section 7 trains the page on them.

# %% [markdown]
# ## A picture first
#
# Noise hits each token on its own, so it matters what a token is. Below, a sentence is cut in three ways: into words, into **pieces** that were learned from a corpus (section 3), and into characters.
# Every token is then hidden with the same probability, $1 - e^{-0.5} \approx 0.39$. This is MASK noise at $\bar\sigma = 0.5$.

# %%
import math

import torch
from sedd_mini import AbsorbingGraph, UniformGraph, plots
from sedd_mini.text.blocks import split_documents
from sedd_mini.text.python_docs import python_docs
from sedd_mini.text.tokenizers import BPETokenizer

torch.set_num_threads(1)  # networks as small as ours are fastest on one core
plots.use_style()
train_docs, valid_docs = split_documents(python_docs())  # section 6
bpe = BPETokenizer.train(train_docs, vocab_size=1024)  # section 3

# %% tags=["hide-input"]
#| alt: One sentence in three rows of boxes: 9 words, 12 pieces, 46 characters. About four boxes in
#| ten are dark, with dots in place of their letters. In the row of words whole words are dark, in
#| the row of characters single letters.
sentence = "Return an iterator over the lines of the file."
rows = {
    "words": [" " * (i > 0) + word for i, word in enumerate(sentence.split())],
    "pieces": [bpe.decode([i]) for i in bpe.encode(sentence)],
    "characters": list(sentence),
}
noise = [torch.rand(len(row), generator=torch.Generator().manual_seed(7)) for row in rows.values()]
fig, ax = plots.plt.subplots(figsize=(10, 1.9))
plots.show_pieces(ax, rows, [u < 1 - math.exp(-0.5) for u in noise])
ax.set_title("The choice of tokens decides which letters disappear together");

# %% [markdown]
# *What to see.* Dark tokens are hidden. Each dot stands for a hidden character, but the model sees one MASK for each dark token. Many hidden characters can be guessed from the letters around them, a hidden word only from other words. The mathematics treats all three rows the same way: each is a row of $L$ tokens, and each token has one of $N$ values.

# %% [markdown]
# ## 1. A sequence is one state
#
# Take sequences of $L = 3$ tokens with the values a, b, c. There are $3^3 = 27$ of them, and each is **one state** of one Markov chain.
# The noise changes each token independently. Take the uniform noise of chapter 01. After a small amount $h$ of total noise a token has become another one with probability $c = \frac23 (1 - e^{-h})$, and the number of changed tokens is binomial.
#
# *Predict:* make $h$ ten times smaller. How many times less likely is it that one token has changed? That two have? Then run the next cell.

# %% tags=["nbval-check-output"]
print("     h   P(1 changed)   P(2 changed)   P(3 changed)")
for h in (0.1, 0.01, 0.001):
    c = 2 / 3 * (1 - math.exp(-h))
    chances = [math.comb(3, k) * c**k * (1 - c) ** (3 - k) for k in (1, 2, 3)]
    print(f"{h:6}", *(f"{p:14.1e}" for p in chances))

# %% [markdown]
# One change becomes about ten times rarer, two changes a hundred times, three changes a thousand times. A *rate* is such a probability divided by $h$, in the limit $h \to 0$. The first column tends to 2 (six jumps with the rate 1/3 each), the other two to 0.
# `Chain` of chapter 01 is our oracle: it lists all 27 states. The matrix exponential of its rate matrix gives the same table, and the rate matrix has exactly the jumps that change one token (folded cell).

# %%
from sedd_mini.worlds.ctmc import Chain

p0 = torch.rand(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
p0 = 0.95 * p0 / p0.sum() + 0.05 / 27  # any data distribution without zeros
chain = Chain(UniformGraph(3), p0)
Q = chain.rate_matrix()  # (27, 27)

# %% tags=["hide-cell"]
distance = (chain.states[:, None] != chain.states).sum(-1)  # (27, 27): tokens that differ
for h in (0.1, 0.01, 0.001):
    c, p_h = 2 / 3 * (1 - math.exp(-h)), torch.matrix_exp(h * Q)[:, 0]
    for k in (1, 2, 3):
        binomial = math.comb(3, k) * c**k * (1 - c) ** (3 - k)
        assert abs(p_h[distance[0] == k].sum() - binomial) < 1e-10
assert (distance[Q > 0] == 1).all()
assert ((Q > 0).sum(0) == 3 * (3 - 1)).all()  # 6 of 26, from every state

# %% tags=["hide-input"]
#| alt: Three 3 by 3 tables hold the 27 sequences. abc is blue; orange are the other two in its row,
#| the other two in its column, and bbc and cbc. Right, a 27 by 27 pattern, mostly white, with six
#| dark cells in each column; the column of abc is outlined.
names = ["".join("abc"[i] for i in x) for x in chain.states.tolist()]
fig = plots.show_edits(names, Q, names.index("abc"))
title = "One jump leads from abc to 6 of the 26 other sequences"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% [markdown]
# *What to see.* Left: from abc (blue) one jump reaches the orange sequences, which differ from it in one token. (Rows of a table share the second token, columns the third.) Right: the rate matrix of all 27 sequences in alphabetical order; the diagonal is left white. The outlined column belongs to abc. It has six dark cells, one for each orange sequence.
#
# With uniform noise in general, **one jump leads from a sequence to the $L(N-1)$ sequences that differ in one token** (its *neighbours*, chapter 01). Every other sequence can still be reached, one token after another. MASK noise allows only some of these jumps (exercise 1). How does $L(N-1)$ compare with the number of states?

# %% tags=["nbval-check-output"]
for name, n, length in [
    ("this toy", 3, 3),
    ("64 letters", 27, 64),  # 26 letters and the space
    ("GPT-2's size", 50257, 1024),
]:
    digits = 1 + math.floor(length * math.log10(n))
    edits = length * (n - 1)
    print(f"{name:12}  states: a number of {digits:4} digits   jumps out of one: {edits:10,}")

# %% [markdown]
# ## 2. The reverse process needs only these ratios
#
# Chapter 01 derived the reverse rates for any chain. They hold for whole sequences too: $\bar Q(y, x) = \frac{p(y)}{p(x)}\, Q(x, y)$ for $y \ne x$. The direct way tabulates the ratio of *every* pair of sequences:

# %%
sigma = 1.0
p = chain.marginal(sigma).flatten()  # (27,)
ratios = p[:, None] / p[None, :]  # (27, 27): p(y) / p(x)
naive = (ratios * Q.T).fill_diagonal_(0)  # the reverse rate of x → y in row y, column x

# %% [markdown]
# Where $Q(x, y) = 0$ the ratio is multiplied by 0. So it is enough to know the ratios **one edit away** (an edit replaces one token). `chain.scores(sigma)` holds, for each of the 27 sequences $x$, a table with $L$ rows and $N$ columns. The entry in row $i$ and column $y$ is the ratio for "$x$ with token $i$ replaced by $y$". The cell multiplies the entries by the rates $Q(x, y)$ and puts the products where they belong in the matrix:

# %%
scores = chain.scores(sigma)  # (27, L, N)
rates = scores * chain.graph.rates_into(chain.states)  # (27, L, N): ratio times Q(x, y)
places = chain.neighbours(chain.states)  # (27, L, N): the number of the sequence after the edit
one_edit = torch.zeros_like(Q).scatter_(0, places.reshape(27, -1).T, rates.reshape(27, -1).T)
assert torch.allclose(one_edit, naive, atol=1e-14)

# %% [markdown]
# Both ways give *the same matrix*: nothing was approximated. The laboratory runs this reverse process from noise back to the data. (A sampler's finite steps do approximate: chapter 08.)
#
# This fixes the shape of a network's output. For $B$ sequences of $L$ tokens it returns **log-scores of shape (B, L, N)**, and entry $[b, i, y]$ estimates the log of the ratio for sequence $b$ with its token $i$ replaced by $y$. Where $y$ is the present token, nothing changes: the ratio is 1 and its log 0.
# The page's logits have this shape too: their `log_softmax` minus $\log(e^{\bar\sigma} - 1)$ estimates the log-scores of a hidden token (chapter 03). With MASK noise the library's log-scores have $N + 1$ columns. The last column belongs to MASK and is never used, because the reverse process never jumps to MASK. The next cell takes the exact log-scores of two sequences and computes one entry by hand:

# %%
x = chain.states[[5, 14]]  # (B, L) = (2, 3): abc and bbc
log_score = chain.log_score(x, sigma)  # (B, L, N)
edited = x[0].clone()
edited[2] = 0  # the last token becomes a: aba
by_hand = (p[chain.index(edited)] / p[chain.index(x[0])]).log()
assert torch.isclose(log_score[0, 2, 0], by_hand)

# %% tags=["hide-cell"]
assert log_score.shape == (2, 3, 3)
assert (log_score.gather(-1, x[..., None]) == 0).all()  # at the present token

# %% [markdown]
# The noise acts on each token independently, but the tokens of the data depend on each other. So the ratio of an edit depends on the tokens that stay. Here the first token changes from a to b:

# %%
scores = chain.scores(0.1)  # little noise, so that much of the data is left
for before in ("aaa", "aab", "acb"):
    after = "b" + before[1:]
    print(f"p({after}) / p({before}) = {scores[names.index(before), 0, 1]:.2f}")

# %% [markdown]
# So the network has to read the whole sequence. One evaluation then gives all 51 million ratios of a text of GPT-2's size. The price is memory. A batch of 512 such texts, as in the published run, has log-scores of

# %% tags=["nbval-check-output"]
print(f"(512, 1024, 50257) in float32: {512 * 1024 * 50257 * 4 / 1e9:.0f} GB")

# %% [markdown]
# This is more than a GPU of 80 GB holds. Chapter 06 shows how the library trains without ever storing the whole tensor.

# %% [markdown]
# ## 3. What is a token?
#
# A **tokeniser** turns text into a list of numbers from 0 to $N - 1$, and back. Our first demand is that the text comes back unchanged. The simplest tokeniser numbers characters. The library's `CharTokenizer` has 97 tokens: the 95 printable characters of ASCII, the newline, and an **end-of-text** token that stands between documents and never inside one.

# %% tags=["nbval-check-output"]
from sedd_mini.text.tokenizers import CharTokenizer, to_printable

chars = CharTokenizer()
ids = chars.encode("Noise, then text.")
print(ids)
print(chars.decode(ids), "| N =", chars.vocab_size)

# %% [markdown]
# What about "café" or "日本"? A fixed alphabet has to replace a character that it does not know, or fail. Computers store text of any language as **bytes**, numbers below 256 (in the encoding UTF-8), so 256 tokens are enough. But a character outside ASCII takes two to four bytes:

# %% tags=["nbval-check-output"]
stranger = "naïve café 日本"
print(repr(to_printable(stranger)))  # what CharTokenizer makes of it
print(len(stranger), "characters,", len(stranger.encode("utf-8")), "bytes")

# %% [markdown]
# Bytes lose nothing, but rows of bytes are long, and a transformer's work grows with the length of the row. **Byte-pair encoding** (BPE) shortens the rows. Start with single symbols, find the pair of adjacent symbols that occurs most often in a corpus, make a new token of it, and write this token wherever the pair occurs. Then repeat.
# No token may span two words, so the text is first cut into words (each with the space before it), numbers, punctuation and runs of spaces.

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
# Our corpus is **Python's own documentation**: the language reference and the docstrings of the standard library, 480 documents with two million characters. It is frozen inside the package. About fifty documents are enough for the first merges:

# %%
some = train_docs[::9]
merges = learn_merges(some, 8)
print(merges)

# %% [markdown]
# Two spaces are the most frequent pair (documentation has many indented lines), and the eighth merge already makes the token " the". The library's `BPETokenizer.train` calls the package `tokenizers`, which does the same on bytes, and faster. Its first eight merges equal ours.

# %% tags=["hide-cell"]
library = BPETokenizer.train(some, vocab_size=300).as_json()["model"]["merges"]
visible = str.maketrans({"Ġ": " ", "Ċ": "\n"})  # how it writes a space and a newline
assert [tuple(part.translate(visible) for part in pair) for pair in library[:8]] == merges
assert len(python_docs()) == 480 and 1.5e6 < sum(map(len, python_docs())) < 3e6
assert all(chars.decode(chars.encode(d)) == to_printable(d) for d in valid_docs)

# %% tags=["hide-input"]
#| alt: One sentence in four rows of boxes. With no merges every character is a box; with 43 and 255
#| merges some letters join; with 767 merges most words are a single box.
cuts = {n: BPETokenizer.train(train_docs, vocab_size=257 + n) for n in (0, 43, 255)}
cuts[767] = bpe
rows = {
    f"tokens, {merged} merges": [cut.decode([i]) for i in cut.encode(sentence)]
    for merged, cut in cuts.items()
}
fig, ax = plots.plt.subplots(figsize=(10.5, 2.4))
plots.show_pieces(ax, rows)
ax.set_title("More merges make longer tokens and shorter rows");

# %% [markdown]
# *What to see.* The same sentence after more and more merges. The last row is `bpe`, the tokeniser of the first picture: 256 bytes, the end of text, and 767 merges make 1024 tokens. GPT-2's tokeniser has 50 000 merges, hence its 50 257 tokens.
#
# Every string comes back unchanged from `bpe`. Even "日本" does: each character becomes three tokens of one byte. A token can also be a whole word, as in the page's language of 40 words, but English has too many for a list.

# %% tags=["hide-cell"]
assert bpe.vocab_size == 1024
for text in (stranger, *valid_docs):
    assert bpe.decode(bpe.encode(text)) == text

# %% [markdown]
# ## 4. A loss per token depends on the token
#
# Take the dullest model: every token is equally likely. It needs $\log_2 N$ bits a token. That is 6.6 for characters and 10 for our pieces. These cannot be compared, because a piece holds more text than a character. We can compare **bits a character**: bits a token, divided by characters a token, on documents that the tokeniser has not seen.

# %%
text_size = sum(len(d) for d in valid_docs)
for name, tokenizer in (("characters", chars), ("pieces", bpe)):
    per_token = text_size / sum(len(tokenizer.encode(d)) for d in valid_docs)
    bits = math.log2(tokenizer.vocab_size)
    print(f"{name:10}  {bits:5.2f} bits a token / {per_token:.2f} characters a token", end="")
    print(f" = {bits / per_token:.2f} bits a character")

# %% tags=["hide-cell"]
assert 2.5 < per_token < 2.7 and 3.7 < bits / per_token < 4.0
assert all(text.isascii() for text in valid_docs)

# %% [markdown]
# The dullest model needs two fifths fewer bits with pieces, because frequent groups of letters are single tokens. So state the unit of every loss: per sequence, per token or per character, in nats or in bits. (This is fair only if both tokenisers lose nothing, as on these ASCII documents.)

# %% [markdown]
# ## 5. From documents to blocks
#
# A network trains on rows of exactly $L$ tokens, but documents have all lengths. So documents are **packed**: laid end to end in one stream, with the end-of-text token between two of them (drawn as ¶), and the stream is cut into blocks of $L$.

# %%
from sedd_mini.text.blocks import pack

tiny = ["to be", "or", "not to be"]
stream = []
for document in tiny:
    stream += [chars.eot_id] * bool(stream) + chars.encode(document)
blocks = torch.tensor(stream[: len(stream) // 6 * 6]).reshape(-1, 6)  # (blocks, L)
assert torch.equal(pack(tiny, chars, 6)[:], blocks)  # the library's function

# %% tags=["hide-input"]
#| alt: Above, three documents as rows of letters in three colours: to be, or, not to be. In the
#| middle one stream with grey paragraph signs between them and a line after every six tokens.
#| Below, three blocks of 6.
fig = plots.show_packing(tiny, 6)
title = "Three documents become one stream and three full blocks"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% [markdown]
# *What to see.* Each colour is a document, and an empty cell is a space. A block may start inside a document and hold parts of several. Nothing is lost except an incomplete block at the very end.
#
# The alternative is to give every document blocks of its own, and to fill up the last one. On our validation documents this would waste 11 % of all positions at $L = 256$ pieces (laboratory).

# %% [markdown]
# ## 6. Split first, then pack
#
# To know whether a model has learned the language or only its training text, we keep some text for testing, the *validation* documents (`valid_docs`). The rule is: *split documents, not blocks, and keep copies together*. `split_documents` did so at the top of this chapter. It first puts copies into one group (texts that differ at most in line ends and outer white space). Then it goes through the groups in the order of a hash, a number that depends on the text alone. Each group goes to the validation side if there is still room for it (5 % of all characters), otherwise to the training side. Near-copies, in which some words differ, are not recognised; exercise 4 looks for those.
#
# What happens if we break the rule? We try it with a model that learns within a second. A **6-gram model** counts how often each character follows the five before it, and mixes in the counts for shorter contexts (`KneserNey` in `ngram.py`). We take a quarter of the documents and hold some of them out. The held-out documents are packed, and every second block is a test block. (The control text and the new documents come from the other quarters.) The four training texts:
#
# - **clean**: no test document is in it;
# - **clean, and more**: the clean text, and as much from other documents as the next row adds. This is the control: its gain comes from more text, not from a leak;
# - **blocks split**: the blocks between the test blocks are added to the clean text, as if someone had packed first and then split the blocks;
# - **copies**: a third of the test blocks themselves is added to the clean text. Text from the web holds such copies.

# %%
few = python_docs()[::4]
clean_docs, tested = split_documents(few, valid_fraction=0.11)  # whole documents, none is cut
blocks = pack(tested, chars, 256)
test, between = blocks[0::2], blocks[1::2]  # (blocks, L) each
clean = pack(clean_docs, chars, 256)[:].flatten()
other = pack(python_docs()[1::4], chars, 256)[: len(between)]
training = {
    "clean": clean,
    "clean, and more": torch.cat([clean, other.flatten()]),
    "blocks split": torch.cat([clean, between.flatten()]),
    "copies": torch.cat([clean, test[::3].flatten()]),
}

# %% [markdown]
# *Predict:* the clean model needs 2.22 bits a character on the test text. By how many bits will each leak lower this number? And by how many on new documents, which none of the four texts contains?

# %%
from sedd_mini.text.ngram import KneserNey

unseen = pack(python_docs()[2::16], chars, 256)[:]
bits = {}
for name, tokens in training.items():
    model = KneserNey(tokens, 6, chars.vocab_size)
    bits[name] = [-model.log2_prob(x).mean().item() for x in (test, unseen)]

# %% tags=["hide-cell"]
gain = {name: (bits["clean"][0] - a, bits["clean"][1] - b) for name, (a, b) in bits.items()}
assert len(train_docs) + len(valid_docs) == 480  # no document was cut here,
assert len(clean_docs) + len(tested) == len(few)  # nor here
assert abs(gain["clean, and more"][0]) < 0.03 and 0 < gain["clean, and more"][1] < 0.05
assert gain["blocks split"][0] > 0.2 and gain["copies"][0] > 0.3
assert abs(gain["blocks split"][0] - 0.27) < 0.02
assert all(0 < b < 0.05 for name, (_, b) in gain.items() if name != "clean")

# %% tags=["hide-input"]
#| alt: Bars of bits a character. On the test text clean 2.22, clean and more 2.20, blocks split
#| 1.95, copies 1.85. On new documents all four have 2.13 to 2.15.
titles = ["on the test text", "on new documents"]
colours = [plots.BLUE, plots.BLUE, plots.ORANGE, plots.ORANGE]
fig = plots.show_bars(bits, titles, colours)
fig.axes[0].set_xticks([0, 1, 2])
title = "Leaks (orange) lower the test number, and improve the model hardly at all"
fig.suptitle(title, x=0.01, ha="left", fontsize=12)
fig.supxlabel("bits a character (lower is better)", fontsize=10.5);

# %% [markdown]
# *What to see.* On the left both leaks seem to help: the clean model needs 2.22 bits, the leaky ones 1.95 and 1.85. On the right, on documents new to all four models, the leaky ones gain 0.03 and 0.01 (before rounding). The control gains 0.02 on both sides, so more text alone explains little of the 0.27 that *blocks split* gains on the left.

# %% [markdown]
# ## 7. The page on real text
#
# Now the page of chapter 00. Its network and loss are folded below. Three things change: the tokeniser, the source of the texts, and how tokens are shown. `BlockLoader` visits all blocks once in a random order, then again in a new order, without end.

# %%
from sedd_mini.text.blocks import BlockLoader

torch.manual_seed(0)
words = bpe  # 1024 pieces
N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
MASK = N
loader = BlockLoader(pack(train_docs, words, L), B)
test = pack(valid_docs, words, L)[:512]  # (512, L)

# %%
def text(x):
    return [words.decode(row, mask="____") for row in x.tolist()]  # number N becomes ____


x = test[[18, 495]]
print(*text(torch.where(torch.rand(x.shape) < 0.39, MASK, x)), sep="\n-----\n")

# %% [markdown]
# These are two test blocks. Each token was hidden with probability 0.39 and is then shown as ____; a longer line is several hidden tokens in a row. The space before a word belongs to the word's token.

# %% tags=["hide-input"]
import torch.nn.functional as F
from torch import nn


def rotate(x):
    """Turn the pairs of x (B, HEADS, L, D/HEADS) by angles that grow with the position."""
    a, b = x.chunk(2, dim=-1)
    speed = 10_000 ** (-torch.arange(a.shape[-1]) / a.shape[-1])
    angle = torch.arange(x.shape[-2])[:, None] * speed  # (L, D/HEADS/2)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))

    def forward(self, h):  # (B, L, D)
        q, k, v = self.qkv(self.norm1(h)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(rotate(q), rotate(k), v)  # (B, HEADS, L, D/HEADS)
        h = h + self.out(mixed.transpose(1, 2).flatten(2))
        return h + self.mlp(self.norm2(h))

# %% tags=["hide-input"]
model = nn.Sequential(  # (B, L) tokens → (B, L, N) logits: what may stand at each place?
    nn.Embedding(N + 1, D), Block(), Block(), Block(), nn.LayerNorm(D), nn.Linear(D, N)
)


def loss_of(x0):
    """Nats a token, on average over t: how hard are hidden tokens to guess?"""
    t = (torch.rand(1) + torch.arange(len(x0)) / len(x0)) % 1  # (B,): spread over 0 to 1
    t = t[:, None].clamp(min=1e-3)
    x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # hide a share t of the tokens
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")  # (B, L)
    return ((x == MASK) * surprise / t).mean()

# %%
def train(steps, lr=5e-3):
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for _ in range(steps):
        loss = loss_of(next(loader))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def bits_a_token():
    return loss_of(test).item() / math.log(2)

# %% [markdown]
# For real text nobody knows the truth, so we need other yardsticks: guessing, a table of how frequent tokens are, and a table of how often each token follows another (`KneserNey` with $n = 1$ and $2$).

# %% tags=["hide-cell"]
with torch.no_grad():  # all hidden, no random draw: equal logits would cost 10 bits
    surprise = F.cross_entropy(model(torch.full_like(test, MASK)).transpose(1, 2), test)
assert 10.1 < surprise / math.log(2) < 10.5

# %%
before = bits_a_token()
train(steps=80)
after = bits_a_token()

# %%
stream = pack(train_docs, words, L)[:].flatten()
tables = [-KneserNey(stream, n, N).log2_prob(test).mean().item() for n in (1, 2)]
print("bits a token, on documents that no model has seen")
print(f"guessing {math.log2(N):.1f}, frequencies {tables[0]:.1f}, pairs {tables[1]:.1f}")
print(f"the page: {before:.1f} before training, {after:.1f} after 80 steps", end="")
print(f" ({after / per_token:.1f} bits a character)")  # per_token: of the pieces, section 4

# %% tags=["hide-cell"]
assert abs(before - 10.3) < 0.6 and 8 < after < 9.3
assert 8.3 < tables[0] < 8.8 and 5.5 < tables[1] < 6.2
assert abs(tables[1] / per_token - 2.27) < 0.08

# %% [markdown]
# The page runs on English with the same network and loss. Before training its random logits are unequal, so it needs more (10.3 bits) than guessing (10.0). After 80 steps, or 82 000 tokens, it is about as good as the table of frequencies. The table of pairs is far ahead: 5.9 bits a token are 2.3 bits a character. (The tables have counted the whole training text; the page's numbers estimate upper bounds, chapter 04.) Chapters 07 and 11 train for longer.

# %% [markdown]
# ## What has changed on the page
#
# Only lines about data and text change. Section 7 trains for 80 steps instead of 1200 and leaves out `write`, which would work as it is; `truth`, which nobody knows; and the filled gap, whose line assumes that each word is one token.
#
# ```diff
# -language = SyntheticLanguage()
# -words = language.tokenizer()  # 40 words, and each word is one token
# +train_docs, valid_docs = split_documents(python_docs())
# +words = BPETokenizer.train(train_docs, vocab_size=1024)
#  N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
# +loader = BlockLoader(pack(train_docs, words, L), B)
#  ...
# -        loss = loss_of(language.sample(B, L))
# +        loss = loss_of(next(loader))
#  ...
# -    return [" ".join("____" if i == MASK else words.decode([i]) for i in row) for row in x.tolist()]
# +    return [words.decode(row, mask="____") for row in x.tolist()]
#  ...
# -test = language.sample(4096, L)
# +test = pack(valid_docs, words, L)[:512]
# ```
#
# ## Summary
#
# 1. A sequence is one state, and a jump changes one token. So the reverse process needs only the $L(N-1)$ ratios one edit away, exactly, and a network returns log-scores of shape (B, L, N).
# 2. A token may be a character, a byte, a learned piece or a word. The tokeniser should lose nothing.
# 3. Models with different tokens are compared in bits a character.
# 4. Documents are packed into one stream with end-of-text tokens and cut into blocks. Split documents first, and keep copies together: a leak lowered the test number from 2.22 to 1.85 bits a character and hardly improved the model.
# 5. The page trains on real text, with the same network and loss.

# %% [markdown]
# ## Exercises
#
# Write your answer into the first cell, run it, then run the check.

# %% [markdown]
# ### Exercise 1. Count the jumps (★☆☆, 10 minutes)
#
# A sequence has $L$ tokens. Of these, $m$ are MASK, and the others are words from a vocabulary of $N$. Write `jumps_out(L, N, m)`: to how many sequences can MASK noise take it in one jump, and to how many can the reverse process take it in one jump? (Assume that every text has a positive probability.)
#
# <details><summary>Hint</summary>
#
# Noise can turn a word into MASK, and into nothing else. Which tokens can the reverse process change, and what can each of them become?
#
# </details>
#
# [Solution](solutions/05_from_one_token_to_text.ipynb)

# %% tags=["exercise"]
def jumps_out(L: int, N: int, m: int) -> tuple[int, int]:
    """(forward jumps, reverse jumps)"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini import AbsorbingGraph
from sedd_mini.exercises import exercise

with exercise("1"):
    for N, tokens in ((7, [0, 7, 1, 7, 4]), (7, [7, 7, 7, 2]), (3, [3, 3]), (4, [1, 2, 0])):
        graph, x = AbsorbingGraph(N), torch.tensor(tokens)
        forward, reverse = jumps_out(len(tokens), N, tokens.count(N))
        case = f"L = {len(tokens)}, N = {N}, m = {tokens.count(N)}"
        right = int((graph.rates(x) > 0).sum()), int((graph.rates_into(x) > 0).sum())
        assert forward == right[0], f"{case}: not {forward} forward jumps; which tokens can jump?"
        assert reverse == right[1], f"{case}: not {reverse} reverse jumps; into how many words?"

# %% [markdown]
# ### Exercise 2. Two papers, two tokenisers (★☆☆, 10 minutes)
#
# Two papers use different tokenisers, so their numbers per token cannot be compared. Each reports a model's **perplexity** per token on the same text: $e^u$, where $u$ is the mean of $-\log p$ over the tokens, in nats. You know how many tokens each tokeniser makes of the text, and how many words and characters the text has. Write `convert(perplexity, tokens, words, characters)`, which returns for one paper the perplexity per *word* and the bits per *character*.
#
# <details><summary>Hint</summary>
#
# The perplexity per token, the perplexity per word and the bits per character all follow from one total: $-\log p$ of the whole text.
#
# </details>
#
# [Solution](solutions/05_from_one_token_to_text.ipynb)

# %% tags=["exercise"]
def convert(perplexity: float, tokens: int, words: int, characters: int) -> tuple[float, float]:
    """(perplexity per word, bits per character)"""
    raise NotImplementedError

# %% tags=["check"]
import math

import torch
from sedd_mini.exercises import exercise

with exercise("2"):
    for seed, words, characters in ((0, 80, 431), (1, 100, 520), (2, 240, 1100)):
        surprise = 6 * torch.rand(130, generator=torch.Generator().manual_seed(seed)).double()
        given = surprise.mean().exp().item()  # nats of 130 tokens, made up
        per_word, per_character = convert(given, 130, words, characters)
        wrong = f"a text of {words} words and 130 tokens: not {per_word:.4g} a word"
        assert math.isclose(words * math.log(per_word), surprise.sum(), rel_tol=1e-6), wrong
        total = characters * per_character * math.log(2)
        assert not math.isclose(total, surprise.sum() * math.log(2)), "nats, not bits"
        assert math.isclose(total, surprise.sum(), rel_tol=1e-6), "the bits a character are wrong"

# %% [markdown]
# ### Exercise 3. Encode a word (★★☆, 20 minutes)
#
# Learning gave a list of merges. Encoding uses it: start from single characters. Of all neighbouring pairs in the word that are in the list, take the pair that stands **earliest in the list**, and join each of its occurrences from left to right. Repeat until no neighbouring pair is in the list. Write `encode_word(word, merges)`.
#
# <details><summary>Hint</summary>
#
# `rank = {pair: i for i, pair in enumerate(merges)}`, and `min(pairs, key=...)`.
#
# </details>
#
# [Solution](solutions/05_from_one_token_to_text.ipynb)

# %% tags=["exercise"]
def encode_word(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """For example "these" with [("t", "h"), ("th", "e")] becomes ["the", "s", "e"]."""
    raise NotImplementedError

# %% tags=["check"]
import re

from sedd_mini.exercises import exercise
from sedd_mini.text.python_docs import python_docs
from sedd_mini.text.tokenizers import BPETokenizer

with exercise("3"):
    small = [("t", "h"), ("h", "e"), ("e", "r"), ("th", "er"), ("a", "a")]
    assert encode_word("the", []) == ["t", "h", "e"], "no merges: single characters"
    found = encode_word("aaa", small)
    assert found != ["aaa"], "'aaa' is not a token: no merge makes it"
    assert found == ["aa", "a"], f"'aaa', with the merge a + a, became {found}"
    found = encode_word("there", small)
    assert found != ["t", "he", "r", "e"], "'there': t + h is earlier in the list than h + e"
    assert "".join(found) == "there", f"'there' became {found}: letters were lost"
    left = f"'there' became {found}; does a pair of the list still stand side by side?"
    assert found == ["ther", "e"], left
    texts = python_docs()[::9]
    trained = BPETokenizer.train(texts, vocab_size=600)
    its_merges = [tuple(pair) for pair in trained.as_json()["model"]["merges"]]
    for word in sorted(set(re.findall("[A-Za-z]+", " ".join(texts[:8])))):
        pieces = [trained.decode([i]) for i in trained.encode(word)]
        found = encode_word(word, its_merges)
        assert found == pieces, f"{word!r} became {found}, and with the library {pieces}"

# %% [markdown]
# ### Exercise 4. A leak detector (★★☆, 20 minutes)
#
# `train` and `test` are streams of tokens, lists of numbers. A position of `test` counts as *seen* if it lies inside a run of $n$ successive test tokens that also occurs, token for token, as a run in `train`. Write `seen_share(train, test, n)`, which returns the share of seen positions.
#
# <details><summary>Hint</summary>
#
# Put all runs of `train` into a set of tuples. Then walk through the runs of `test`, and mark all positions of each run that is in the set.
#
# </details>
#
# [Solution](solutions/05_from_one_token_to_text.ipynb)

# %% tags=["exercise"]
def seen_share(train: list[int], test: list[int], n: int) -> float:
    """A number from 0 to 1."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("4"):
    generator = torch.Generator().manual_seed(0)
    old = torch.randint(500, (20_000,), generator=generator).tolist()
    new = torch.randint(500, 1000, (400,), generator=generator).tolist()  # none of them is in old
    assert seen_share(old, new, 8) == 0, "not a single token of this test stream is in train"
    for size, seen, what in (
        (8, 8, "a copied run of exactly n tokens"), (7, 0, "a copy shorter than n"),
        (100, 100, "a long copy: count positions, each once"),
    ):  # fmt: skip
        ends = ((0, "at the start"), (150, "in the middle"), (400 - size, "at the end"))
        for place, where in ends:
            planted = [*new[:place], *old[-size:], *new[place + size :]]
            found = seen_share(old, planted, 8) * 400
            assert abs(found - seen) < 1e-6, f"{what}, {where}: {found:g} of 400, not {seen}"
    reordered = [*new[:150], *reversed(old[700:740]), *new[190:]]
    assert seen_share(old, reordered, 8) == 0, "the same tokens in another order are not seen"
    inside = seen_share([11, 23], [1, 2], 2)
    assert inside == 0, "tokens are numbers: 1, 2 is not inside 11, 23"
    found = seen_share([1, 2, 3, 1, 2], [2, 1, 2, 3, 3], 2) * 5
    assert abs(found - 3) < 1e-6, f"n = 2, a short stream: {found:g} of 5, not 3"
    twice = [*new[:50], *old[10:20], *new[60:90], *old[10_005:10_020], *new[105:]]
    found = seen_share(old, twice, 8) * 400
    assert abs(found - 25) < 1e-6, f"two copies of 10 and 15 tokens: {found:g} of 400, not 25"

# %% [markdown]
# ### Exercise 5. The first loss on the uniform graph (★★★, 30 minutes)
#
# Before training, the published network for uniform noise gives log-score 0 (its last layer starts at 0), so $s_y = 1$ for every $y$. Write `first_loss(sigma, N)`: the score entropy of one token at total noise $\bar\sigma$ for these $s_y$, as an expectation over the noisy token $x$,
#
# $$\mathbb E_{x|x_0} \sum_{y \ne x} \frac1N \Big(s_y - R_y \log s_y + K(R_y)\Big), \qquad K(a) = a (\log a - 1).$$
#
# Chapter 03 found the targets. Let $q = (1 - e^{-\bar\sigma}) / (1 - e^{-\bar\sigma} + N e^{-\bar\sigma})$. If the token has not moved, every $R_y$ is $q$. If it has moved, $R_y$ is $1/q$ for $y = x_0$ and 1 otherwise. Use only numbers, no table over the $N$ tokens. The check wants six digits at $N = 50\,257$, also at $\bar\sigma = 10^{-15}$.
#
# Then think: the integral of your function over all $\bar\sigma$ is $\log N$, exactly the cost of a uniform guess. Why must the two be equal?
#
# <details><summary>Hint 1</summary>
#
# A token has moved with probability $(1 - e^{-\bar\sigma})(1 - 1/N)$, because a random replacement may be $x_0$ itself.
#
# </details>
#
# <details><summary>Hint 2 (the integral)</summary>
#
# If all ratios are 1, the reverse process has the rates of the noise itself, started from uniform tokens. Chapter 04 compares two laws of paths. Follow both from $\bar\sigma = 0$ upwards: where do they differ?
#
# </details>
#
# [Solution](solutions/05_from_one_token_to_text.ipynb)

# %% tags=["exercise"]
import math


def first_loss(sigma: float, N: int) -> float:
    """Nats per unit of total noise."""
    raise NotImplementedError

# %% tags=["check"]
import math

import torch
from sedd_mini import UniformGraph
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import MatrixGraph, log_quadrature

with exercise("5"):
    for N in (2, 3, 6):
        oracle, x, x0 = MatrixGraph.of(UniformGraph(N)), torch.arange(N), torch.zeros(N).long()
        for sigma in (1e-3, 0.5, 4.0):
            loss = oracle.score_entropy(torch.zeros(N, N), sigma, x, x0)
            right = (oracle.transition_probs(x0[:1], sigma)[0] * loss).sum().item()
            found = float(first_loss(sigma, N))
            side = "large" if found > right else "small"
            hint = f"N = {N}, σ̄ = {sigma}: too {side}; are both cases in, each times its chance?"
            assert math.isclose(found, right, rel_tol=1e-6), hint
    for N, sigma in ((300, 0.02), (50_257, 1.0), (50_257, 1e-15)):
        graph, sigma, x0 = UniformGraph(N), torch.tensor(sigma).double(), torch.tensor([0, 0])
        loss = graph.score_entropy(torch.zeros(2, N).double(), sigma, torch.tensor([0, 1]), x0)
        p = graph.transition_probs(x0[:1], sigma)[0]
        right, found = p[0] * loss[0] + (N - 1) * p[1] * loss[1], float(first_loss(sigma.item(), N))
        wrong = f"N = {N}, σ̄ = {sigma:g}: {found:.9g} is not right to six digits"
        assert math.isclose(found, right, rel_tol=1e-6), wrong
    sigmas, weights = log_quadrature(1e-9, 30, 400)
    total = sum(w * float(first_loss(s, 50_257)) for s, w in zip(sigmas, weights))
    assert abs(total - math.log(50_257)) < 1e-4, f"the integral over all noise is {total:.4g}"

# %% [markdown]
# ## Laboratory
#
# Optional reading: checks by the oracle, more about data, and the loss at a vocabulary of 50 257 in float32. Read the sections in any order; their cells run from top to bottom.

# %% [markdown]
# ### The way back: do ratios one edit away lead from noise to the data?
#
# `reverse_marginal` solves $dp/d\bar\sigma = -\bar Q p$ in small steps from $\bar\sigma = 8$ down to 0, starting from the exact distribution at 8. Its first argument, the model, returns only tables of $L \times N$ log-ratios.

# %%
back = chain.reverse_marginal(chain.log_score, 8.0, chain.marginal(8.0), steps=200)
noisy = chain.marginal(8.0)
print(f"largest error of a probability: {(back - chain.p0).abs().max():.0e}")
print(f"before, at σ̄ = 8:               {(noisy - chain.p0).abs().max():.0e}")

# %% tags=["hide-cell"]
assert (back - chain.p0).abs().max() < 1e-3 < 0.05 < (noisy - chain.p0).abs().max()

# %% [markdown]
# ### Vocabularies: how large should one be?
#
# A larger vocabulary makes shorter rows. The network returns $L N$ numbers: $L$ falls and $N$ grows, so what does the product do? Here is a text of a thousand characters:

# %%
def row_length(cut):  # tokens for a thousand characters
    return 1000 / text_size * sum(len(ids) for ids in cut.encode_batch(valid_docs))


larger = [BPETokenizer.train(train_docs, vocab_size=size) for size in (2048, 4096)]
for cut in (*cuts.values(), *larger):
    size, row = cut.vocab_size, row_length(cut)
    output = row * size / 1000
    print(f"N = {size:4}: a row of {row:4.0f} tokens, an output of {output:4.0f} thousand")

# %% [markdown]
# Of these six, $N = 300$ has the smallest output, and $N = 4096$ the shortest row. Attention compares all pairs of tokens in a row, so short rows make it cheaper; a small output makes the last layer cheaper. We take 1024, between the two. (Which size makes the best model we did not measure.)
#
# ### Tokenisers: does one that saw the test text leak?
#
# We trained ours on the training documents only. What if it had read the test documents too?

# %%
leaky = BPETokenizer.train(train_docs + valid_docs, vocab_size=1024)
honest_row, row = row_length(bpe), row_length(leaky)
print(f"tokens for a thousand characters: {honest_row:.1f} honest, {row:.1f} leaky")

# %% tags=["hide-cell"]
assert 0 <= 1 - row / honest_row < 0.02

# %% [markdown]
# The rows become 0.5 % shorter, so the model of section 4, for which all tokens are equally likely, needs 0.5 % fewer bits a character. What a trained model would gain we did not measure. The leak is easy to avoid: train the tokeniser on the training documents.

# %% [markdown]
# ### Padding: what does packing save?
#
# If each validation document gets blocks of its own, how many positions of these blocks are filler, at $L = 256$ pieces?

# %%
lengths = torch.tensor([len(ids) for ids in bpe.encode_batch(valid_docs)])
used = (lengths / 256).ceil() * 256
print(f"filler: {1 - lengths.sum() / used.sum():.0%} of all positions")

# %% tags=["hide-cell"]
assert 0.1 < 1 - lengths.sum() / used.sum() < 0.17

# %% [markdown]
# ### Epochs: how can an interrupted run go on exactly where it stopped?
#
# One pass through all blocks is an **epoch**. Each epoch should visit every block once, in a new order. And a run that was interrupted should continue with the batch that would have come next.
# One idea gives both. Number the samples of the endless stream $n = 0, 1, 2, \dots$ With $M$ blocks, sample $n$ lies in epoch $\lfloor n / M \rfloor$, and the order of an epoch is a permutation drawn from the seed and the epoch's number *alone*.

# %%
def block_of(n, M, seed):
    epoch, place = divmod(n, M)
    generator = torch.Generator().manual_seed(seed + 1_000_003 * epoch)
    return torch.randperm(M, generator=generator)[place].item()


blocks = pack(valid_docs, chars, 256)
M = len(blocks)
ours = BlockLoader(blocks, batch_size=4, seed=1)
assert torch.equal(next(ours), blocks[[block_of(n, M, 1) for n in range(4)]])

# %% [markdown]
# So, besides the seed, one number says where a run is in its data. Save both, load them into a new loader, and the next batch is the one that would have come. Chapter 07 saves the rest of a run: the weights and the state of the optimiser. (A common mistake is to start every time with the first batch of the order: the blocks early in the order are then seen most often.)

# %%
saved = ours.state_dict()
print(saved)
expected = next(ours)
fresh = BlockLoader(blocks, batch_size=4)
fresh.load_state_dict(saved)
assert torch.equal(next(fresh), expected)

# %% tags=["hide-cell"]
orders = [[block_of(n, M, 1) for n in range(e * M, (e + 1) * M)] for e in (0, 1)]
assert sorted(orders[0]) == sorted(orders[1]) == list(range(M)) and orders[0] != orders[1]

# %% [markdown]
# ### The split: does it depend on the order of the documents?
#
# It does not: the reversed list gives the same split. And if every second document occurs twice, each copy lands on the side of its original. The folded cell checks both.

# %% tags=["hide-cell"]
assert not set(train_docs) & set(valid_docs)
assert split_documents(python_docs()[::-1]) == (train_docs[::-1], valid_docs[::-1])
doubled = split_documents([*python_docs(), *python_docs()[::2]])
assert len(doubled[0]) + len(doubled[1]) == 720 and not set(doubled[0]) & set(doubled[1])

# %% [markdown]
# ### The synthetic language: how can its truth be known?
#
# Nobody knows the probability of an English sentence, but we know that of a sentence in the page's language. Behind its words is a Markov chain that moves once a word. Its 28 states are roles in the grammar, such as *plural subject*, and each state emits a word from its own table of probabilities. Only the words are seen, so this is a **hidden Markov chain** (also called hidden Markov *model*).
# The probability of a string sums over all paths of the hidden states. With $S = 28$ states, three words have $S^3$ paths, which can be listed:

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
tok, V = language.tokenizer(), language.vocab_size
three = tok.encode("some cats sleep")
start, T, E = language.stationary, language.transition, language.emission  # T[from, to]
e = [E[:, word] for word in three]  # P(word | state), (S,) each
paths = (start * e[0])[:, None, None] * (T * e[1])[:, :, None] * (T * e[2])[None]  # (S, S, S)
naive = paths.sum().log()

# %% [markdown]
# It is faster to sum as you go: after each word keep, for each state, the total probability of all paths that end there. This is the **forward algorithm**, whose cost grows linearly with the length. `log_prob` uses it.

# %%
total = start * e[0]  # (S,)
for likelihood in e[1:]:
    total = (total @ T) * likelihood
assert torch.allclose(total.sum().log(), naive)
assert torch.allclose(language.log_prob(torch.tensor([three]))[0], naive)

# %% tags=["hide-cell"]
pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
assert abs(language.log_prob(pairs).exp().sum() - 1) < 1e-12  # V² strings of two words

# %% [markdown]
# The difficult part of this language is agreement. Hide the verb of a sentence and ask for the exact probability of its two forms, where the noun next to the verb has the other number:

# %%
for subject, place in (("some cats", "a river"), ("every cat", "some rivers")):
    ids = tok.encode(f". {subject} near {place} sleep .")
    known = torch.tensor([[i != 6 for i in range(8)]])  # all but the verb
    probs = language.posterior(torch.tensor([ids]), known)[0, 6]  # (V,)
    sleep, sleeps = probs[tok.ids["sleep"]].item(), probs[tok.ids["sleeps"]].item()
    print(f"{subject} near {place} …   sleep {sleep:.3f}   sleeps {sleeps:.3f}")
    assert max(sleep, sleeps) > 10 * min(sleep, sleeps) and (sleep > sleeps) == ("cats" in subject)

# %% [markdown]
# The subject decides, not the nearer noun. (*sing* and *run* in the right form share nearly all of the rest.) The wrong form keeps a small probability, because 2 % of the words are slips, drawn from all words alike.
#
# We compare every model of this language with its **entropy rate**: the bits that a word costs the exact model, on average, when the whole past is known. We estimate it from the second halves of sampled blocks, given their first halves. The library's `entropy_rate` encloses it more narrowly from both sides.

# %%
x = language.sample(4096, 64, torch.Generator().manual_seed(0))  # (4096, 64)
per_word = (language.log_prob(x[:, :32]) - language.log_prob(x)) / 32 / math.log(2)  # (4096,)
error = per_word.std() / math.sqrt(4096)
rate = language.entropy_rate()
print(f"ours {per_word.mean():.3f} ± {error:.3f}, the library's {rate.bits:.3f} bits a word")
assert abs(per_word.mean() - rate.bits) < 4 * error < 0.1

# %% [markdown]
# (Blocks of 32 words, as on the page, cost a little more, about 2.39 bits a word, as their first words have little or no past; the page's test texts happen to cost 2.38.)

# %% tags=["hide-cell"]
of_page = -language.log_prob(x[:, :32]).mean() / 32 / math.log(2)
assert abs(of_page - 2.39) < 0.012  # three standard errors

# %% [markdown]
# ### Large vocabularies: does the loss of chapter 03 still work?
#
# By its definition the loss of a token needs the kernel $\exp(\bar\sigma Q)$:

# %%
def K(a):
    return torch.xlogy(a, a) - a


def naive_loss(log_score, sigma, x, x0, Q):
    P = torch.matrix_exp(sigma * Q)  # P[y, x0]
    total = torch.zeros((), dtype=torch.float64)
    for y in range(len(Q)):
        if y != x and Q[x, y] > 0:  # Q[x, y]: the rate of y → x
            r = P[y, x0] / P[x, x0]
            total += Q[x, y] * (log_score[y].exp() - r * log_score[y] + K(r))
    return total

# %% [markdown]
# The oracle `MatrixGraph` does the same for whole batches. What would it cost at $N = 50\,257$? Every sequence of a batch has its own $\bar\sigma$, hence its own matrix:

# %% tags=["nbval-check-output"]
N = 50_257
print(f"one matrix in float32: {4 * N**2 / 1e9:.0f} GB")
print(f"one product of two:    {2 * N**3:.1e} operations")
print(f"a batch of 512:        {512 * 4 * N**2 / 1e12:.1f} TB of kernels")

# %% tags=["hide-cell"]
from sedd_mini.worlds.ctmc import MatrixGraph

generator = torch.Generator().manual_seed(0)
for graph in (UniformGraph(5), AbsorbingGraph(5)):
    oracle = MatrixGraph.of(graph)
    for x, x0 in [(2, 2), (graph.num_states - 1, 2), (0, 0)]:
        log_score = torch.randn(graph.num_states, dtype=torch.float64, generator=generator)
        ours = naive_loss(log_score, 0.3, x, x0, oracle.Q)
        theirs = oracle.score_entropy(log_score[None], 0.3, torch.tensor([x]), torch.tensor([x0]))
        assert torch.allclose(ours, theirs[0])

# %% [markdown]
# Chapter 03's loss needs no matrix, but its `uniform_term` still builds a target $R_y$ for every $y$. The targets take three values, so sums are enough. Let $\ell$ be the loss of one token and $q = \dfrac{e^{\bar\sigma} - 1}{(e^{\bar\sigma} - 1) + N}$ (chapter 03's $q$, with both parts multiplied by $e^{\bar\sigma}$). An unmoved token has
#
# $$N \ell = \sum_{y \ne x} s_y - q \sum_{y \ne x} \log s_y + (N - 1) K(q),$$
#
# and a moved one, with $K(1) = -1$ for the $N - 2$ words that are neither $x$ nor $x_0$,
#
# $$N \ell = \sum_{y \ne x} s_y - \sum_{y \ne x} \log s_y - \Big(\frac1q - 1\Big) \log s_{x_0} - (N - 2) + K\Big(\frac1q\Big).$$

# %%
def q_of(sigma, N):
    return torch.expm1(sigma) / (torch.expm1(sigma) + N)


def uniform_loss(log_score, q, x, x0, factor=None):
    """The two lines above; log_score (M, N), q, x and x0 (M,) → (M,)

    `factor` (M,) of log s_x0 for a moved token: 1/q - 1, unless it is given.
    """
    N = log_score.shape[-1]
    factor = 1 / q - 1 if factor is None else factor
    at_x = log_score.gather(-1, x[:, None])[:, 0]
    at_x0 = log_score.gather(-1, x0[:, None])[:, 0]
    sum_s = log_score.exp().sum(-1) - at_x.exp()
    sum_log = log_score.sum(-1) - at_x
    unmoved = sum_s - q * sum_log + (N - 1) * K(q)
    moved = sum_s - sum_log - factor * at_x0 - (N - 2) + K(1 / q)
    return torch.where(x == x0, unmoved, moved) / N

# %%
def absorbing_loss(log_score, sigma, x, x0):
    """Chapter 03's line for MASK; log_score (M, N + 1), the last state MASK → (M,)"""
    mask = log_score.shape[-1] - 1
    r = 1 / torch.expm1(sigma)
    at_x0 = log_score.gather(-1, x0[:, None])[:, 0]
    masked = log_score[:, :mask].exp().sum(-1) - r * at_x0 + K(r)
    return torch.where(x == mask, masked, 0)

# %% [markdown]
# Both agree with the oracle and with the library for 7 words, at every possible pair $(x, x_0)$ and at four noise levels from $10^{-4}$ to 7. At 50 257 words the uniform one is compared with the library once more.

# %% tags=["hide-cell"]
def every_pair(graph):
    """All (x, x0) that occur: with MASK noise x is x0 or MASK."""
    x, x0 = torch.cartesian_prod(torch.arange(graph.num_states), torch.arange(graph.num_tokens)).T
    possible = torch.ones_like(x, dtype=torch.bool)
    if graph.mask_id is not None:
        possible = (x == x0) | (x == graph.mask_id)
    return x[possible], x0[possible]


for graph in (UniformGraph(7), AbsorbingGraph(7)):
    x, x0 = every_pair(graph)
    size = len(x), graph.num_states
    log_score = torch.randn(size, dtype=torch.float64, generator=generator)
    for level in (1e-4, 0.1, 1.0, 7.0):
        sigma = torch.full(x.shape, level, dtype=torch.float64)
        exact = MatrixGraph.of(graph).score_entropy(log_score, sigma, x, x0)
        if graph.mask_id is None:
            ours = uniform_loss(log_score, q_of(sigma, 7), x, x0)
            direct = uniform_loss(log_score, q_of(sigma, 7), x, x0, 7 / torch.expm1(sigma))
            assert torch.allclose(direct, ours, rtol=1e-10)  # 1/q - 1 = N / (e^σ̄ - 1)
        else:
            ours = absorbing_loss(log_score, sigma, x, x0)
        assert torch.allclose(ours, exact, rtol=1e-8)
        assert torch.allclose(ours, graph.score_entropy(log_score, sigma, x, x0), rtol=1e-8)

x, x0 = torch.tensor([7, 7]), torch.tensor([7, 9])
sigma = torch.tensor([0.5, 0.5], dtype=torch.float64)
log_score = torch.randn(2, N, dtype=torch.float64, generator=generator).scatter(-1, x[:, None], 0)
ours = uniform_loss(log_score, q_of(sigma, N), x, x0)
assert torch.allclose(ours, UniformGraph(N).score_entropy(log_score, sigma, x, x0))

# %% [markdown]
# ### Float32: what does the public formula get wrong, and what does that harm?
#
# Public code for the uniform graph often writes the same $q$ as $1 - N / \big((e^{\bar\sigma} - 1) + N\big)$. On paper the two are equal. In float32, the usual format for a loss, this one loses its digits when $\bar\sigma$ is small. What we shall find:
#
# - **Harmed: the value of the loss.** At $N = 50\,257$ it is wrong at small noise. The part of a moved token's loss that does not depend on the network, for example, is 20 times too small at $\bar\sigma = 1.8 \cdot 10^{-4}$. At most other $N$ the loss becomes infinite or NaN ("not a number") there.
# - **Hardly harmed: the mean of the loss over all noise levels** at 50 257 (by 0.012 nats a token), and **the gradient**. Public code does not use $q$ for the factor of $\log s_{x_0}$ in $N$ times a moved token's loss. It takes $N/(e^{\bar\sigma} - 1)$, which equals the exact $1/q - 1$ (previous section) and loses no digits. So only the gradient of unmoved tokens is wrong, and its error is tiny in absolute terms.
#
# So training can go well while the loss at a single small noise level is wrong. With most other vocabularies the printed loss and the bound can be infinite or NaN as well. Here is the formula with $N$ as a Python integer, as it usually is:

# %%
def q_public(sigma, N):
    return 1 - N / (torch.expm1(sigma) + N)


def moved_constant(q, N):  # the part of a moved token's loss that has no score in it
    return ((1 / q) * ((1 / q).log() - 1) - (N - 2)) / N

# %%
print("σ̄         q: exact     public   constant of a move: exact     public")
for level in (1.8e-4, 1e-3, 3.9e-3, 1e-2, 0.1):
    narrow, wide = torch.tensor(level), torch.tensor(level).double()
    q, exact = q_public(narrow, N), q_of(wide, N)
    cost = moved_constant(exact, N), moved_constant(q, N)
    print(f"{level:<8} {exact:9.2e} {q:10.2e} {cost[0]:27,.0f} {cost[1]:10,.0f}")

# %% [markdown]
# The digits are lost in the denominator. Near 50 257 neighbouring float32 numbers are $2^{-8} \approx 0.004$ apart, so adding $e^{\bar\sigma} - 1 = 0.001$ changes nothing. PyTorch computes `N / tensor` as $N$ times the reciprocal of the tensor. Up to $\bar\sigma = 0.0058$ the sum is 50 257 or the next float32 number. For both this product rounds to just below 1, and $q$ is $2^{-24}$.

# %% tags=["hide-input"]
#| alt: Two panels over the noise, log axes. Left, the exact q rises as a straight line, the public
#| one is flat at 6e-8 up to 0.006 and then climbs in stairs to the line. Right, the exact cost of a
#| moved token falls from 200 000 nats, the public one stays at 5219.
levels = torch.logspace(-4, -1, 600)
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.6))
for ax, of in zip(axes, (lambda q: q, lambda q: moved_constant(q, N))):
    ax.loglog(levels, of(q_of(levels.double(), N)), color=plots.BLUE)
    ax.loglog(levels, of(q_public(levels, N)), color=plots.ORANGE)
    ax.set_xlabel("total noise σ̄")
axes[0].set_title("q")
axes[0].text(1.3e-4, 8e-8, "public formula, float32", color=plots.ORANGE)
axes[0].text(4e-4, 4e-9, "exact", color=plots.BLUE)
axes[1].set_title("constant part of a moved token's loss, nats")
axes[1].text(1.3e-4, 2.3e3, "public formula, float32", color=plots.ORANGE)
axes[1].text(3e-4, 1e5, "exact", color=plots.BLUE)
fig.suptitle("N = 50 257: below σ̄ = 0.006 the public q is constant", x=0.01, ha="left");

# %% [markdown]
# *What to see.* Left: below $\bar\sigma = 0.006$ the public $q$ is one constant, and above it climbs in stairs. Right: the part of a moved token's loss that does not depend on the network. The public formula gives 5 219 nats at every small noise level; the exact value grows to 20 times as much at $1.8 \cdot 10^{-4}$ and 36 times at $10^{-4}$.

# %% tags=["hide-cell"]
levels = torch.logspace(-5, -1, 20_001)
flat = levels[q_public(levels, N) == 2**-24]
assert 0.0057 < flat.max() < 0.0059 and len(flat) == (levels <= flat.max()).sum()
costs = [moved_constant(q_public(torch.tensor(s), N), N).item() for s in (1.8e-4, 3.9e-3)]
exact = [moved_constant(q_of(torch.tensor(s).double(), N), N).item() for s in (1.8e-4, 3.9e-3)]
assert all(abs(c - 5219) < 1 for c in costs) and abs(exact[0] - 102_475) < 1
assert abs(exact[1] - 3932) < 1
gap = moved_constant(q_of(torch.tensor(1e-4).double(), N), N) - 5219
assert abs(gap - 185_122) < 5 and 225 < 1e-4 * math.log(2e5) * gap < 227
double = torch.logspace(-3, 0, 50, dtype=torch.float64)
assert torch.allclose(q_public(double, N), q_of(double, N), rtol=1e-6)  # float64: no difference

# %% [markdown]
# At 50 257 the product happens to round to just below 1. Where it rounds to 1, $q$ is 0, its logarithm is $-\infty$, and $0 \cdot (-\infty)$ is NaN. How often does this happen?

# %%
def reciprocal_q(sigma, N):  # what PyTorch computes for a Python integer N, for many N at once
    return 1 - N * torch.reciprocal(torch.expm1(torch.tensor(sigma)) + N)


near, every = torch.arange(50_000.0, 51_000), torch.arange(2.0, 100_001)
broken = (reciprocal_q(1e-3, near) == 0).double().mean()
print(f"σ̄ = 1e-03: q = 0 for {broken:6.1%} of all N from 50 000 to 51 000")
for level in (1e-5, 1e-4, 1e-3, 1e-2):
    broken = (reciprocal_q(level, every) == 0).double().mean()
    print(f"σ̄ = {level:5.0e}: q = 0 for {broken:6.1%} of all N up to 100 000")

# %% tags=["hide-cell"]
for n in (50_257, 50_258, 50_300, 77):  # the vectorised form is what PyTorch does for an int
    assert q_public(torch.tensor(1e-3), n) == reciprocal_q(1e-3, torch.tensor(float(n)))
assert q_public(torch.tensor(1e-3), 50_258) == 0
assert 1 - torch.tensor(N) / (torch.expm1(torch.tensor(1e-3)) + N) == 0  # N as a tensor
assert abs((reciprocal_q(1e-3, near) == 0).double().mean() - 0.835) < 0.01
for level in torch.logspace(-4, 1, 200).tolist():
    assert (reciprocal_q(level, every[:30]) > 0).all()

# %% [markdown]
# At $\bar\sigma = 0.001$ five of six vocabulary sizes near GPT-2's fail, the next one (50 258) included; so does 50 257 itself if $N$ is a tensor, because PyTorch then divides directly, and the quotient rounds to 1. With up to 31 words nothing fails at $\bar\sigma \ge 10^{-4}$, so code can pass all tests on small worlds and fail at full size.
#
# **The gradient.** Take $N = 50\,258$, where the public $q$ is 0, an unmoved token, and a *perfect* network, whose scores are the correct $q$. With the correct $q$ the gradient of $N \ell$ in a log-score, $s - q$, is 0. With the public one it is:

# %%
n, level = 50_258, torch.tensor([0.001])  # float32
log_score = q_of(level, n).log().repeat(n).requires_grad_()
q = q_public(level, n)
loss = (log_score[1:].exp().sum() - q * log_score[1:].sum() + (n - 1) * q * (q.log() - 1)) / n
loss.sum().backward()
print(f"loss {loss.item()}, gradient of N times the loss {n * log_score.grad[1].item():.1e}")

# %% tags=["hide-cell"]
assert loss.isnan() and abs(n * log_score.grad[1] - 2e-8) < 1e-9
x, x0, direct = torch.tensor([7]), torch.tensor([9]), n / torch.expm1(level)
perfect = torch.zeros(1, n).scatter(-1, x0[:, None], -q_of(level, n).log()[:, None])
for factor, finite in ((direct, True), (None, False)):  # as in public code, and 1/q - 1
    leaf = perfect.clone().requires_grad_()
    loss = uniform_loss(leaf, q, x, x0, factor)
    loss.sum().backward()
    assert not loss.isfinite().any() and leaf.grad.isfinite().all() == finite
    if finite:  # the network is perfect: 0, but for rounding
        assert (n * leaf.grad).abs().max() < 1e-5 * direct

# %% [markdown]
# The loss is NaN. The gradient is finite: the NaN is in a constant that does not depend on the network. The same holds for a moved token with the factor $N/(e^{\bar\sigma} - 1)$ of public code. (With $1/q - 1$, which is infinite at $q = 0$, its gradient would not be finite.) The gradient pushes the scores of unmoved tokens towards 0, while $2 \cdot 10^{-8}$ is right. Relative to the right score this is an error of 100 %. In absolute terms the error is tiny. A network that had learned the public $q$ exactly would make fewer than one jump too many or too few in a billion tokens over all $\bar\sigma < 0.0058$. This holds at 50 258, and at 50 257, where $q$ is one constant over this range.
#
# **The mean over all noise levels.** The uniform graph goes with geometric noise from $10^{-4}$ to 20. At $N = 50\,257$ we integrate the error of the constants over it:

# %%
edges = torch.logspace(-4, math.log10(20), 200_001, dtype=torch.float64)
middle, width = (edges[1:] * edges[:-1]).sqrt(), edges.diff()
moves = -torch.expm1(-middle) * (1 - 1 / N)  # the probability that a token has moved
q, exact = q_public(middle.float(), N).double(), q_of(middle, N)
of_moved = moves * (moved_constant(q, N) - moved_constant(exact, N))
of_unmoved = (1 - moves) * (N - 1) / N * (K(q) - K(exact))
parts = [(width * part).sum().item() for part in (of_moved, of_moved.abs(), of_unmoved)]
print("moved tokens: {:+.3f} nats a token, {:.2f} without signs; unmoved: {:+.0e}".format(*parts))

# %% tags=["hide-cell"]
from sedd_mini import GeometricNoise

assert abs(parts[0] - 0.0121) < 5e-4 and 0.12 < parts[1] < 0.15 and abs(parts[2]) < 1e-6
assert abs(GeometricNoise().total(torch.tensor(0.0)) - 1e-4) < 1e-9
sigma = GeometricNoise().total(torch.linspace(0, 1, 10_001))
share = (q_public(sigma, N) == 2**-24).double().mean()
assert 0.32 < share < 0.35
for n in (50_257, 50_258):  # fewer than one wrong jump in a billion tokens
    difference = q_public(middle.float(), n).double() - q_of(middle, n)
    assert (width * difference.abs())[middle < 0.0058].sum() < 1e-9

# %% [markdown]
# Errors of both signs nearly cancel: what remains is 0.012 nats a token, where an untrained network costs some 10.8. In a single batch they need not cancel. A third of all draws of $t$ lie below $\bar\sigma = 0.0058$. The score entropy of one token that has moved there can be off by 185 000 nats (at $\bar\sigma = 10^{-4}$). Its weight $\sigma(t) = 12.2\,\bar\sigma$ is small there, so each moved token puts the weighted loss of its sequence off by at most about 226 nats. An untrained network costs 11 000 nats a sequence of 1024 tokens.
#
# The repair is the form of the previous section, in which nothing is subtracted from 1. Its error is a few roundings. Large noise needs care too: above $\bar\sigma = 88$ the exponential overflows in float32. The library divides both parts by $e^{\bar\sigma}$ and works with $\log q = \log(1 - e^{-\bar\sigma}) - \log(1 - e^{-\bar\sigma} + N e^{-\bar\sigma})$.

# %% tags=["hide-cell"]
def log_q_of(sigma, N):
    moved = -torch.expm1(-sigma)
    return moved.log() - (moved + N * torch.exp(-sigma)).log()


levels, sizes = torch.logspace(-5, 0, 121), torch.logspace(1, 5.3, 121).round()
true = q_of(levels.double()[None], sizes.double()[:, None])
assert ((q_of(levels[None], sizes[:, None]).double() - true).abs() / true).max() < 5e-7
ends = torch.tensor([1e-6, 1e-3, 1.0, 80.0, 100.0, 1000.0])
assert q_of(ends, 1000)[-1].isnan()
wanted = torch.tensor([-20.72327, -13.81501, -6.36812, 0.0, 0.0, 0.0])
assert torch.allclose(log_q_of(ends, 1000), wanted, atol=1e-4)

# %% [markdown]
# ### Cancellation: why can a loss that is never negative come out negative?
#
# Chapter 03's laboratory met this for one ratio; here it is for many, with the repair written out. Near the optimum $s = r$ the terms of $s - r \log s + K(r)$ are of the order of $r$, and their sum is nearly 0. With $\delta = \log s - \log r$,
#
# $$s - r \log s + r \log r - r = r\,\big(e^\delta - \delta - 1\big) \approx \tfrac12\, r\, \delta^2 .$$
#
# At $\delta = 10^{-3}$ the result is two million times smaller than the terms, and float32 keeps only seven digits of those. Here are 2000 terms, with ratios $r$ between 0.1 and 10 and a network that is off by $\delta$:

# %%
delta = torch.logspace(-5.5, 0.5, 2000, dtype=torch.float64)
r = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 9.9 + 0.1
log_score = (r.log() + delta).float()  # what a network gives
terms = log_score.exp() - r.float() * log_score + K(r.float())
print(f"negative: {(terms[delta < 2e-4] < 0).float().mean():.0%} of the terms with δ < 0.0002")

# %% [markdown]
# The equation shows the way out: compute $r\,(e^\delta - 1 - \delta)$, and $e^\delta - 1$ in it with `expm1`. The two numbers that are subtracted are then as large as $\delta$ instead of 1. Two refinements keep the remaining digits: for $|\delta| < 1/16$ the series $\frac{\delta^2}2\big(1 + \frac\delta3(1 + \frac\delta4(\dots))\big)$, which cancels nothing, and a $\delta$ that is itself exact, with $\log r$ in float64.

# %%
def relative_excess(delta):
    """e^δ − 1 − δ: the score entropy of one ratio, divided by that ratio."""
    series = 1 + delta / 3 * (1 + delta / 4 * (1 + delta / 5 * (1 + delta / 6 * (1 + delta / 7))))
    return torch.where(delta.abs() < 1 / 16, delta**2 / 2 * series, delta.expm1() - delta)


exact = r * relative_excess(log_score.double() - r.log())  # float64, of the very same log-scores
rough = log_score - r.log().float()  # δ by subtracting in float32
fine = (log_score.double() - r.log()).float()
lines = {
    "three terms": terms,
    "expm1": r.float() * (rough.expm1() - rough),
    "series, exact δ": r.float() * relative_excess(fine),
}
errors = {name: ((v.double() - exact).abs() / exact).clamp(min=1e-9) for name, v in lines.items()}

# %% tags=["hide-cell"]
assert (terms[delta < 2e-4] < 0).float().mean() > 0.1
assert errors["three terms"][delta < 1e-3].median() > 0.3
assert errors["series, exact δ"].max() < 5e-6

# %% tags=["hide-input"]
#| alt: Relative error against the distance from the optimum, log axes, as clouds of dots. Three
#| terms: from over 1e4 at δ = 3e-6 down to 1 near 3e-4 and 1e-7 at δ = 1, with a row of dots at
#| exactly 1 left of 5e-4. expm1 lies below it and falls more slowly. The series lies at the bottom,
#| below 1e-5, everywhere.
fig, ax = plots.plt.subplots(figsize=(8, 3.9))
places = {"three terms": (1e-4, 1e3), "expm1": (4e-5, 0.1), "series, exact δ": (4e-6, 3e-6)}
for (name, error), colour in zip(errors.items(), plots.COLOURS):
    ax.loglog(delta, error, ".", markersize=2.5, color=colour)
    ax.text(*places[name], name, color=colour, fontsize=11.5)
ax.axhline(1, color="#888888", lw=1, zorder=0)
ax.text(3, 1.3, "above: no digit is right", color="#555555", ha="right", va="bottom")
ax.set(xlabel=r"distance from the optimum, $\delta=\log s-\log r$", xlim=(2.5e-6, 4))
ax.set(ylabel="relative error in float32")
ax.set_title("The series with an exact δ keeps its digits near the optimum");

# %% [markdown]
# *What to see.* The plain formula (blue) loses two digits each time $\delta$ shrinks by ten, and below $2 \cdot 10^{-4}$ none of its digits is right (where the dots lie on the grey line, the result is exactly 0). With `expm1` (orange) it loses one. The last form (green) has five correct digits or more everywhere; its step at $\delta = 1/16$ is where `expm1` takes over from the series. Errors below $10^{-9}$ are drawn at $10^{-9}$.
#
# The library's `score_entropy` computes this last form, for both graphs. Here it is at full size: $N = 50\,257$, float32, an unmoved and a moved token, $\bar\sigma = 0.001$, and a network whose scores are off by about one part in a thousand.

# %%
x, x0 = torch.tensor([7, 7]), torch.tensor([7, 9])
sigma = torch.full((2,), 0.001)
log_q = q_of(sigma.double(), N).log()
log_r = torch.zeros(2, N, dtype=torch.float64)
log_r[0], log_r[1, 9] = log_q[0], -log_q[1]  # q everywhere; 1, and 1/q at x0
off = torch.randn(2, N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
log_score = (log_r + 1e-3 * off).float()
others = torch.arange(N) != x[:, None]
excess = log_r.exp() * relative_excess(log_score.double() - log_r)
truth = (others * excess).sum(-1) / N  # float64

# %%
results = {
    "truth": truth,
    "public q": uniform_loss(log_score, q_public(sigma, N), x, x0),
    "public code": uniform_loss(log_score, q_public(sigma, N), x, x0, N / torch.expm1(sigma)),
    "q repaired": uniform_loss(log_score, q_of(sigma, N), x, x0),
    "library": UniformGraph(N).score_entropy(log_score, sigma, x, x0),
}
for name, values in results.items():
    print(f"{name:11}  unmoved: {values[0].item():9.2e}   moved: {values[1].item():9.2e}")

# %% tags=["hide-cell"]
assert -11_600 < results["public code"][1] < -11_400
for name in ("public q", "public code"):
    assert ((results[name].double() - truth) / truth).abs().min() > 10
assert ((results["q repaired"].double() - truth) / truth).abs().max() > 0.1
assert torch.allclose(results["library"].double(), truth, rtol=1e-5)

# %% [markdown]
# The two public rows differ in the factor of $\log s_{x_0}$ in $N \ell$: *public q* takes $1/q - 1$ with the public $q$, *public code* takes $N/(e^{\bar\sigma} - 1)$. With the latter, a loss that is never negative comes out near $-11\,500$ nats. The value of the loss is wrong even with $q$ repaired, if it is computed from three terms. The gradient is not: it is $s - r$, a single subtraction, and autograd finds it to three digits or more even from the three terms. So cancellation need not disturb training, but the comparison of two nearly perfect networks at one small noise level needs the library's form.

# %% tags=["hide-cell"]
leaf = log_score.clone().requires_grad_()
uniform_loss(leaf, q_of(sigma, N), x, x0).sum().backward()
slope = (log_score.double().exp() - log_r.exp()).scatter(-1, x[:, None], 0) / N
assert ((leaf.grad - slope).norm(dim=-1) < 1e-3 * slope.norm(dim=-1)).all()

# %% tags=["hide-cell"]
def stable_uniform(log_score, sigma, x, x0):
    log_q = log_q_of(sigma.double(), log_score.shape[-1])  # (M,)
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


assert torch.allclose(stable_uniform(log_score, sigma, x, x0), results["library"], rtol=1e-5)
for graph, loss in ((UniformGraph(7), stable_uniform), (AbsorbingGraph(7), stable_absorbing)):
    x, x0 = every_pair(graph)
    size = len(x), graph.num_states
    table = torch.randn(size, dtype=torch.float64, generator=generator)
    for level in (1e-4, 0.1, 1.0, 7.0):
        sigma = torch.full(x.shape, level, dtype=torch.float64)
        ours = loss(table, sigma, x, x0)
        exact = MatrixGraph.of(graph).score_entropy(table, sigma, x, x0)
        assert torch.allclose(ours, exact, rtol=1e-8)
        assert torch.allclose(ours, graph.score_entropy(table, sigma, x, x0), rtol=1e-10)

# %% [markdown]
# ### The first number: what does an untrained network cost?
#
# The first line of a training log should show this cost (chapter 07 measures it). Take MASK noise. The published network subtracts $\log(e^{\bar\sigma} - 1) + \log N$ from its output, so an output of 0 means $s_y = r/N$ for every word, with $r = 1/(e^{\bar\sigma} - 1)$. The scores then sum to $r$, and a hidden word costs
#
# $$r - r(\log r - \log N) + r \log r - r = r \log N .$$
#
# A word is hidden with probability $1 - e^{-\bar\sigma}$, and $(1 - e^{-\bar\sigma})\, r = e^{-\bar\sigma}$. The loss of a sequence weights the noise levels by $\sigma(t)$, the derivative of $\bar\sigma$, so its expectation is
#
# $$L \log N \int_0^1 \sigma(t)\, e^{-\bar\sigma(t)}\, dt = \big(1 - e^{-\bar\sigma(1)}\big)\, L \log N .$$
#
# With the log-linear schedule the bracket is 0.999, and the integrand $\sigma e^{-\bar\sigma}$ is 0.999 at *every* $t$, so all noise levels count alike. The library's loss confirms it at 64 of them:

# %% tags=["nbval-check-output"]
from sedd_mini import LogLinearNoise

graph, schedule = AbsorbingGraph(N), LogLinearNoise()
t = (torch.arange(64) + 0.5) / 64
sigma = schedule.total(t)
newborn = (-sigma.expm1().log() - math.log(N))[:, None].expand(-1, N + 1)  # (64, N + 1)
loss = graph.score_entropy(newborn, sigma, torch.full((64,), graph.mask_id), torch.full((64,), 464))
each = schedule.rate(t) * -torch.expm1(-sigma) * loss  # (64,): rate · P(hidden) · loss
mean = each.mean().item()
print(f"{mean:.3f} nats a token, {1024 * mean:,.0f} nats a sequence of 1024 tokens")

# %% tags=["hide-cell"]
assert (each / (0.999 * math.log(N)) - 1).abs().max() < 1e-4
hidden = torch.rand(64, 1024) < -torch.expm1(-sigma)[:, None]  # one batch: only this is drawn
assert (schedule.rate(t) * loss * hidden.sum(1) / (1024 * mean)).std() > 0.01

# %% [markdown]
# If the first lines of a log show about 11 000, the numbers are nats per sequence; if they show 10.8, nats per token. A single batch scatters around these values, because at every $t$ the number of hidden tokens is random. Exercise 5 finds the same $\log N$ for uniform noise.

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023, sections 3.3 and 4.1. Sequences, and the losses of both graphs.
# - R. Sennrich, B. Haddow, A. Birch, [*Neural Machine Translation of Rare Words with Subword Units*](https://arxiv.org/abs/1508.07909), 2016. Byte-pair encoding for text.
# - A. Radford and others, *Language Models are Unsupervised Multitask Learners*, 2019, section 2.2. Byte-pair encoding on bytes, with GPT-2's 50 257 tokens.
# - K. Lee and others, [*Deduplicating Training Data Makes Language Models Better*](https://arxiv.org/abs/2107.06499), 2022. How many copies real corpora hold.
# - D. Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*, 1991. Cancellation, from the beginning.
# - L. Rabiner, *A Tutorial on Hidden Markov Models*, 1989. The forward algorithm and its relatives.
# - What came later: Y. Schiff and others, [*Simple Guidance Mechanisms for Discrete Diffusion Models*](https://arxiv.org/abs/2412.10193), 2024, derive a bound for uniform noise in continuous time and use it on small vocabularies (bases, pixels, characters) too.
