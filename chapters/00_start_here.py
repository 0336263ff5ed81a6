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
# # 00. Start here: what does it look like when a text forms everywhere at once?
#
# Most language models write the way we type: one word after the other, from left to right. The model in this book starts from a text in which every word is hidden, and uncovers the words in any order, many at a time. This chapter shows a trained one at work, and then
# builds a small one from nothing, on a single page of PyTorch.
#
# After this chapter you will be able to
#
# - let a small diffusion model write, and let it fill gaps in your own sentences;
# - write, train and use a *masked diffusion* model yourself, in 90 lines;
# - say how it differs from BERT and from GPT, and what the rest of the book adds to it.
#
# To read you need nothing installed: every result is shown. To run the cells *you need* this repository (its README says how). Section 4 asks for some PyTorch; no knowledge of diffusion is assumed.
# *Running time:* a minute and a half on two CPU cores. If something does not run, `python -m sedd_mini doctor` in a terminal says what
# this machine lacks and how to mend it.

# %% [markdown]
# ## The lines of the page
#
# Three lines of PyTorch carry the whole idea. They hide a random share `t` of the words of `x0` (B texts of L words), ask a network (`model`) to guess
# the hidden words, and average its surprise at the true ones (large if it thought them unlikely), divided by `t` for a reason that section 4 gives. The lines
# come from the program of section 4, which this book calls *the page*:
#
# ```python
# x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # hide a share t of the words
# surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")  # (B, L)
# return ((x == MASK) * surprise / t).mean()
# ```
#
# Section 4 puts the rest around them: a network, a training loop, and a loop that writes. First, look at what comes out.

# %% [markdown]
# ## 1. A film
#
# The folder `checkpoints/` holds the weights of networks that were trained once, so that you need not wait. We load one of them.
# It has 3 million parameters (the smallest GPT-2 has 124 million), and it has read one thing in its life: the documentation that comes
# with Python, two megabytes of English.

# %%
import sedd_mini

docs = sedd_mini.load("checkpoints/docs-absorb", device="cpu")
print(docs.write(1, length=80, steps=64, seed=3)[0][:150].strip())

# %% [markdown]
# A **token** is the unit of text here: a word, or a piece of one. `write` starts from 80 hidden tokens and uncovers them in 64 steps.
# It calls a function of ours after each step, and that is enough to make a film.

# %%
import torch


def filmed(method, *arguments, **how):
    """What docs.write or docs.fill returns, and the tokens of the first text after every step."""
    frames = []
    texts = method(*arguments, callback=lambda step, t, x: frames.append(x[0]), **how)
    return texts, torch.stack(frames)  # (steps + 2, L): the start, each step, and one last step


_, frames = filmed(docs.write, 1, length=80, steps=64, seed=3)
hidden = frames == docs.graph.mask_id
births = hidden.sum(0)  # the step at which each token appears

# %% tags=["hide-cell"]
assert hidden[0].all() and not hidden[-1].any()
assert (hidden[1:] <= hidden[:-1]).all()  # what is written stays

# %% tags=["hide-input"]
#| alt: Six frames of a text that forms. At first only grey blocks; then blue and black words appear
#| scattered over the whole page; the last frame is a complete text in the tone of documentation.
from sedd_mini import plots

plots.use_style()
pieces = [docs.tokenizer.decode([token]) for token in frames[-1].tolist()]
moments = [0, 8, 20, 36, 52, 65]
fig, axes = plots.plt.subplots(2, 3, figsize=(11.4, 4.4))
for ax, since, now in zip(axes.flat, [0, *moments], moments):
    plots.show_frame(ax, pieces, births.tolist(), now, since)
    ax.set_title({0: "at the start", 65: "the end"}.get(now, f"after step {now}"), fontsize=11)
fig.suptitle("Words appear all over the page, in no order", fontsize=12, x=0.01, ha="left");

# %% [markdown]
# *What to see.* Grey blocks are hidden tokens, blue words have appeared since the picture before, black ones are older. Later words are chosen to fit those
# that are already there. (Lines are wrapped to fit and blank lines left out. A block is as wide as what will stand there, so that nothing
# moves; the network does not know these widths.)
#
# The last picture sounds like Python's documentation and means nothing. That is the quality to expect from 3 million parameters and an
# hour of training on one processor core. I chose this seed among 24 because its text reads best. Here is the same as a film:

# %% tags=["hide-input"]
#| alt: A film. Hidden tokens are grey; step by step words appear all over the text.
steps = [*range(0, 66, 5), *[70] * 5]  # the end stays a while longer
plots.film(pieces, births.tolist(), steps, size=(5, 2.4))

# %% [markdown]
# ## 2. A filled sentence
#
# The network guesses whatever is hidden, wherever it stands. So give it a sentence with gaps: the given words are simply never
# hidden. It needs no special training for that. With this tokeniser each "____" stands for two tokens (`gap=` sets another number).

# %%
sentence = "The optional argument ____ specifies the ____ of the ____; it defaults to ____."
for filled in docs.fill(sentence, num=4, seed=0):
    print("-", filled)

# %% [markdown]
# These are the first four that came, not the best four. In the two middle gaps all four have a noun where the grammar wants one (*specifies the given value of the option dictionary*). The first and the last mostly do not fit (*argument argument argument*, *defaults to logemail*). A left-to-right
# model would have to choose each word before it has read what stands after the gap.
#
# ## 3. A first number
#
# How good is that? Here is a crude measure. Collect all words of the training texts, and ask what share of the words
# that the network writes is among them. Such a number means little without a yardstick, so we take two. The lower one is training
# tokens in random order: that is what a model would write that knows how frequent tokens are, and nothing about their
# neighbours. The upper one is documents that the network has never seen. (It is no ceiling: "the the the" would score 1.00. The measure sees
# spelling, not sense.)
#
# *Predict:* where will the network land?

# %%
import re
from sedd_mini.text.blocks import split_documents
from sedd_mini.text.python_docs import python_docs

seen, unseen = split_documents(python_docs())
known = set(re.findall("[A-Za-z]+", " ".join(seen)))


def share_of_words(texts):
    found = [word for text in texts for word in re.findall("[A-Za-z]+", text)]
    return sum(word in known for word in found) / len(found)


# %%
tokens = torch.tensor(docs.tokenizer.encode("\n".join(seen[::10])))
shuffled = tokens[torch.randint(len(tokens), (64, 128), generator=torch.Generator().manual_seed(0))]
low = share_of_words(docs.tokenizer.decode(row) for row in shuffled.tolist())
written = share_of_words(docs.write(12, steps=32, seed=0, length=128))
high = share_of_words(unseen)
print(f"random order {low:.2f}   the network {written:.2f}   unseen documents {high:.2f}")

# %% tags=["hide-cell"]
assert 0.75 < low < 0.85 and high > 0.93
assert 0.55 < (written - low) / (high - low) < 0.95

# %% [markdown]
# Tokens are mostly whole words already, so even random order reaches eight in ten. The network covers about four fifths of the remaining
# distance. Chapter 04 replaces this crude measure by a proper one, the likelihood.
#
# ## 4. A whole model on one page
#
# Now build one. The page is short because it leaves out everything that can wait: it is a complete
# model nevertheless, and you can change any line of it. The file `chapters/page.py` holds the same lines in one piece; `python
# chapters/page.py` runs them. Nothing comes from our library but the data and their tokeniser.
#
# **The data** are sentences of a small artificial language: 40 words, a little grammar, a few slips. Its great advantage is that
# the true probability of every text is known, so that we can say later how far our model is from perfect.

# %% tags=["page"]
import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from sedd_mini.text.synthetic import SyntheticLanguage

# %% tags=["page"]
torch.manual_seed(0)
language = SyntheticLanguage()
words = language.tokenizer()  # 40 words, and each word is one token
N, L, B, D, HEADS = words.vocab_size, 32, 32, 64, 4
MASK = N  # one more token, for "hidden"

# %% [markdown]
# **The network** is a small transformer, of the kind that BERT and GPT use. (Chapter 06 builds it slowly. If you know transformers, skim; if you do not, take
# `model` as a function from a text with holes to guesses, and go on to the loss.) Each word becomes a vector of 64 numbers. In a block, *attention* lets every
# place look at every other place, to its left and to its right; then a small network (*MLP*) works on each place alone. The order of the words enters by
# *rotary position embedding* (RoPE): `rotate` turns pairs of numbers by an angle that grows with the position, so that positions enter the product of a query and a
# key only through their distance.

# %% tags=["page"]
def rotate(x):
    """Turn the pairs of x (B, HEADS, L, D/HEADS) by angles that grow with the position."""
    a, b = x.chunk(2, dim=-1)
    speed = 10_000 ** (-torch.arange(a.shape[-1]) / a.shape[-1])
    angle = torch.arange(x.shape[-2])[:, None] * speed  # (L, D/HEADS/2)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)

# %% tags=["page"]
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

# %% [markdown]
# Three blocks, and a last layer that gives a number (a *logit*) for each of the 40 words at each place. The softmax of these is the network's guess.
# GPT's attention mask, which hides the words to the right, is absent here: every place sees every other, and what must not be seen is
# hidden in the input itself. The network is not told $t$ either, and need not be: which word stands in a hidden place depends on the visible words, not on $t$.

# %% tags=["page"]
model = nn.Sequential(  # (B, L) tokens → (B, L, N) logits: what may stand at each place?
    nn.Embedding(N + 1, D), Block(), Block(), Block(), nn.LayerNorm(D), nn.Linear(D, N)
)

# %% [markdown]
# **The loss.** Draw a share $t$ between 0 and 1 for each text, hide about that share of its words, and let the network guess them. The *surprise* is the cross-entropy $-\log p_\theta(\text{true word})$ in nats (natural logarithms; $\theta$ stands for the network's weights), counted at hidden places only. Masked language models such as BERT are
# trained in nearly the same way. Two differences matter here:
#
# - BERT always hides about 15 % of the words. Here $t$ takes all values, so that the network learns to guess with one word missing, with
#   half of them missing, and with nothing to go by.
# - We divide by $t$. With a share $t$ hidden, about $tL$ of the $L$ words are counted; dividing by $t$ makes every $t$ count for $L$ words on average.
#   With this weight the average over $t$ is an upper bound on $-\log p_\theta(\text{text})/L$. (Its negative is called the *evidence lower bound*, ELBO.) Here $p_\theta(\text{text})$ is the
#   probability that the model writes this text in very many small steps. GPT's loss is the exact $-\log p(\text{text})/L$ of its own model. Chapter 04 proves the bound.
#
# In the code, one random offset spreads the values of `t` evenly over 0 to 1, which makes the loss less noisy, and the clamp avoids a division by zero.

# %% tags=["page"]
def loss_of(x0):
    """Nats a word, on average over t: how hard are hidden words to guess?"""
    t = (torch.rand(1) + torch.arange(len(x0)) / len(x0)) % 1  # (B,): spread over 0 to 1
    t = t[:, None].clamp(min=1e-3)
    x = torch.where(torch.rand(x0.shape) < t, MASK, x0)  # hide a share t of the words
    surprise = F.cross_entropy(model(x).transpose(1, 2), x0, reduction="none")  # (B, L)
    return ((x == MASK) * surprise / t).mean()

# %% [markdown]
# **The training loop** is the usual one. New sentences are drawn at each step, so the network never sees the same text twice.

# %% tags=["page"]
def train(steps, lr=5e-3):
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.1)
    for _ in range(steps):
        loss = loss_of(language.sample(B, L))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

# %% [markdown]
# **Writing** reverses hiding. Start from a text with everything hidden, $t = 1$, and lower $t$ in 16 steps to 0. At a level $t$ about $tL$ words
# are hidden, and at the next level $s$ only $sL$ should be. So each hidden word is shown with probability $(t - s)/t$, and the word itself is drawn from
# the network's guess. In the last step $s = 0$, and all that is left is shown.

# %% tags=["page"]
@torch.no_grad()
def write(x, steps=16):
    """Fill in every MASK of x (B, L), a few at each step."""
    for t, s in pairwise(torch.linspace(1, 0, steps + 1)):
        chances = model(x).softmax(-1)  # (B, L, N)
        guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
        shown = torch.rand(x.shape) < (t - s) / t
        x = torch.where((x == MASK) & shown, guess, x)
    return x

# %% tags=["page"]
def text(x):
    return [" ".join("____" if i == MASK else words.decode([i]) for i in row) for row in x.tolist()]

# %% [markdown]
# *Predict:* what does the untrained network write? What will change after 1 200 steps, the words or the grammar? Then train it, which takes about
# 40 seconds.

# %% tags=["page"]
empty = torch.full((2, L), MASK)
before = text(write(empty))
train(steps=1200)
after = text(write(empty))
print("before:", *before, "after:", *after, sep="\n  ")

# %% [markdown]
# Before training both the choice of the words and their order are random. Afterwards most of the grammar is there: determiners before nouns, verbs that agree
# with their subjects in most places, and full stops between sentences. (A text is a window of 32 words, so it may begin and end inside a sentence.) There are mistakes too, such as *these cats … follows*. Some of them may not be the network's fault: the language itself contains two per cent of random words.
#
# **A gap** is text with some words given; here each ____ is one word. The same function fills it.

# %% tags=["page"]
given = "some ____ ____ near a river ____ ."
gap = [MASK if word == "____" else words.encode(word)[0] for word in given.split()]
print("filled:", *text(write(torch.tensor([gap] * 4))), sep="\n  ")

# %% [markdown]
# After *some* a plural must follow. A filling that disagrees can have three causes, and one text does not say which: the language's own random
# words, an error of this small network, or two words shown in the same step, which cannot take each other into account (the laboratory's last section measures this).
#
# Finally, how good is it? The loss is a number of nats a word; divided by $\ln 2$ it is bits. The language knows the true probability of the same texts.

# %% tags=["page", "nbval-ignore-output"]
test = language.sample(4096, L)
with torch.no_grad():
    bits = loss_of(test).item() / math.log(2)
truth = -language.log_prob(test).mean().item() / L / math.log(2)
print(f"{bits:.2f} bits a word; guessing costs {math.log2(N):.2f}, the truth is {truth:.2f}")

# %% tags=["hide-cell"]
assert bits > truth, "below the truth: the loss does not count what it should"
assert bits - truth < 0.3, "too far above the truth: did the training run to its end?"

# %% [markdown]
# Guessing blindly among 40 words costs 5.32 bits. If every guess of the network were the exact conditional probability, the bound would equal the truth,
# so the remaining gap of about 0.2 bit is what the network has not learned. For seeds 0, 1 and 2, measured with less noise, the gap
# is 0.16 to 0.20 bit (laboratory).
#
# **Your own text.** Put a (B, L) tensor of numbers below `N`, drawn afresh from your text, in the place of each `language.sample(…)`, set `N`, and adapt `text`, which turns
# numbers into words. The true probability is known for our language only, so leave out `truth`.
#
# ## 5. What the page is, and what it is not yet
#
# You have built a **masked diffusion** model. "Diffusion" means: destroy the data step by step, by noise that you know, and learn to undo it.
# The noise here hides words. (Training may jump straight to a level $t$: to hide in many small steps and to hide once give the same distribution.)
# Beside the two models that you may know, it looks like this:
#
# | | BERT | this page | GPT |
# |---|---|---|---|
# | hidden in training | about 15 % of the words | a random share, from none to all | everything to the right |
# | its loss | surprise at hidden words | the same, divided by the share | surprise at the next word |
# | the loss and $-\log p(\text{text})$ | no bound | an upper bound | the exact value |
# | writes | not made for it | in any order, many words at a time | from left to right, one at a time |
# | fills gaps | yes, but was trained with few words hidden | yes, however many words are hidden | only with special training |
# | network calls for a text | – | as many as you like: time against quality | one a word |
#
# It is not yet SEDD, *score entropy discrete diffusion*, the method of Lou, Meng and Ermon that this book is about (the trained network of sections 1 to 3 is SEDD). Three questions are open.
#
# 1. **Other noise.** Hiding words is one choice of noise, called *absorbing*. What if noise replaced words by random other words instead? Then nothing shows
#    which words are wrong. Try it: put `torch.randint(N, x0.shape)` in the place of `MASK` in the `torch.where` line of `loss_of`, predict the loss, then run it (the answer is in the
#    summary). Chapter 01 defines both kinds of noise.
# 2. **The right thing to learn.** Undoing *any* noise takes one kind of number: the ratio of the probabilities of two noisy texts that differ in
#    one word. Chapters 02 and 03 find a loss for such ratios, score entropy. For hidden words it becomes our cross-entropy again,
#    plus a term that vanishes if the network's guesses sum to one, as a softmax always does.
# 3. **Weights and bounds.** Why divide by $t$, why is the result a bound, and how fast may one uncover? Chapters 04 and 08.
#
# At the end of chapter 03 you will put score entropy into this page with your own hands.
#
# ## 6. The map of the book

# %% tags=["hide-input"]
#| alt: A map. Text becomes noise through noise that jumps, chapter 01; noise becomes new text step
#| by step, chapters 08 and 09, with a network: 06; trained in 02, 03, 07, 11, judged in 04, 10.
plots.show_map();

# %% [markdown]
# *What to see.* Along the top, noise destroys text: that is easy, and known exactly. The way back runs along the bottom. It needs a network that knows how
# much more probable one word is than another at each place (on our page: guesses for hidden words). Numbers are chapters (12 and 13 are not drawn).
#
# | chapter | its question | what you will have |
# |---|---|---|
# | 01 Noise that jumps | What is diffusion for words? | noise as random jumps, run backwards by ratios alone |
# | 02 What must a network learn? | How can ratios be learned from samples? | three earlier methods, and where each fails |
# | 03 Score entropy | Which loss keeps ratios positive and right? | the loss and the sampler, written by you |
# | 04 The likelihood bound | Can it be compared with other models? | a bound on the likelihood, and how tight it is |
# | 05 From one token to text | How can one compute with texts of 1 024 tokens, each one of 50 257? | real text, and a loss at full vocabulary size |
# | 06 The diffusion transformer | Which network answers for every word at once? | the network, built by hand |
# | 07 Training | What turns a loss into a model? | a training run before your eyes |
# | 08 Sampling | How few steps are enough? | the error of a step, measured against the truth |
# | 09 Infilling | Why may gaps simply be left hidden? | gaps filled with the exact conditional law |
# | 10 Is it any good? | How would you tell whether a text model is good? | error bars, a rival, and a verdict on every claim |
# | 11 The full-size run | What does the real network take? | its cost, counted before the run |
# | 12 One loss, many names | What did the models after SEDD change? | their losses and samplers, on one small world |
# | 13 Blocks, caches and pictures | How far does the page stretch? | text in blocks with a cache, and pictures |
#
# Chapters 01 to 04 use worlds so small that everything can be counted. They build on each other, and ask for probability (Bayes' rule, expectations)
# and a little PyTorch. If you want to *use* such a model, read 01, 03 and the openings of 02 and 04, then 05 to 10. If you know diffusion for images,
# skim 01 and start in earnest with 02. In each chapter the numbered sections are the core; the laboratory at the end is for those who want to see every check.
#
# **What has changed on the page:** nothing yet. This is where each later chapter will show its few changed lines, always compared with the page of this chapter.

# %% [markdown]
# ## Summary
#
# - A masked diffusion model hides a random share of the words and learns to guess them; it writes by uncovering hidden words, many at a time.
# - Its loss is BERT's, at every share $t$ and divided by $t$; averaged, it bounds what GPT's loss measures.
# - It fills gaps without being trained for it, and sees both sides of each.
# - The number of steps is yours to choose. Words of one step do not see each other, so fewer steps cost quality.
# - Random words in the place of `MASK` break the page silently: no word is ever `MASK`, so its loss is exactly 0, "better" than the truth, nothing is learned, and `write` cannot
#   know what to replace and what is given. The page is not SEDD yet. SEDD works for any noise, learns ratios, and gives the weights of the loss and the bound it belongs to.

# %% [markdown]
# ## Exercises
#
# Replace `raise NotImplementedError` by your answer, run the cell, and then the check below it.

# %% [markdown]
# ### Exercise 1. How surprised, and when? (★☆☆, 10 minutes)
#
# The loss mixes all shares $t$. Take it apart: write `bits_at(model, x0, t)`, the mean surprise **in bits of a hidden word** when each word of `x0` (B, L) is
# hidden with the same probability `t`, independently. A hidden word has the number `MASK = 40`; `model` maps (B, L) tokens to (B, L, 40) logits. Then run `bits_at(model, test, t)` with
# section 4's `model` and `test` for $t$ = 0.1, 0.5 and 1 (inside `torch.no_grad()`). At which $t$ is a hidden word hardest to guess, and what does the value at $t = 1$ measure?
#
# <details><summary>Hint</summary>
#
# The surprise at all places is one call of `F.cross_entropy` with `reduction="none"`. Average it over hidden places only: how many of them are there? And `cross_entropy` counts in nats.
#
# </details>
#
# [Solution](solutions/00_start_here.ipynb)

# %% tags=["exercise"]
import math
import torch
import torch.nn.functional as F

MASK = 40


def bits_at(model, x0, t):
    raise NotImplementedError


# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("1"):
    torch.manual_seed(0)
    x0 = torch.randint(0, 40, (64, 50))
    even = float(bits_at(lambda x: torch.zeros(*x.shape, 40), x0, 0.5))
    assert abs(even - 5.3219) < 1e-3, f"a network that knows nothing needs 5.32, not {even:.3f}"
    knowing = 20.0 * torch.nn.functional.one_hot(x0, 40)
    assert float(bits_at(lambda x: knowing, x0, 0.3)) < 1e-3, "the true word was certain: 0 bits"
    copying = lambda x: 20.0 * torch.nn.functional.one_hot(x, 41)[..., :40].float()
    lazy = float(bits_at(copying, x0, 0.2))
    assert abs(lazy - 5.3219) < 1e-3, "visible words are given, they must not count"
    given = []
    bits_at(lambda x: given.append(x) or torch.zeros(*x.shape, 40), x0, 0.3)
    share = (given[0] == 40).double().mean(0)  # (50,): of 64 rows, at each place
    assert abs(share.mean() - 0.3) < 0.05, "a share t of the words should be hidden from it"
    assert share.min() > 0.02 and share.max() < 0.65, "every word should have the same chance"

# %% [markdown]
# ### Exercise 2. In order (★★☆, 15 minutes)
#
# The same network can write from left to right. Write `write_in_order(model, x)`: fill the hidden places of `x` (B, L) one at a time, beginning with the
# leftmost, call the network again for every place, and return the filled tensor; leave `x` itself as it was. How many calls is that for L places? Compare a few texts with those of `write`.
#
# <details><summary>Hint</summary>
#
# Loop over the places 0 … L − 1. At each place: call the network, draw a word for this place from the softmax, and use it only where the place is hidden
# (`torch.where`). Drawing is not taking the most probable word.
#
# </details>
#
# [Solution](solutions/00_start_here.ipynb)

# %% tags=["exercise"]
import torch

MASK = 40


@torch.no_grad()
def write_in_order(model, x):
    raise NotImplementedError


# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("2"):
    torch.manual_seed(0)
    calls, place = [], torch.arange(6).expand(400, 6)

    def coin(x):  # at place i the word is 2i or 2i + 1, like the toss of a coin
        calls.append(x.clone())
        word = torch.arange(40)
        return torch.where(word // 2 == place[..., None], 0.0, -1e4)  # (400, 6, 40)

    x = torch.full((400, 6), 40)
    given = torch.rand(400, 6) < 0.2
    x[given] = 39
    kept = x.clone()
    y = write_in_order(coin, x)
    assert torch.equal(x, kept), "your function changes the tensor that it was given"
    assert (y[given] == 39).all(), "a given word was overwritten"
    assert (y != 40).all(), "something is still hidden"
    assert (y // 2 == place)[~given].all(), "a word was drawn from the guess for another place"
    odd = (y % 2)[~given].double().mean()
    assert 0.43 < odd < 0.57, "draw from the guess: do not take one word for certain"
    for i in range(6):
        hidden = ~given & (place >= i)  # what should still be hidden when place i is filled
        asked = any(((c == 40) == hidden).all() for c in calls)
        assert asked, f"place {i} must be filled when all to its left is, and nothing to its right"

# %% [markdown]
# ### Exercise 3. Times to measure (★★☆, 15 minutes)
#
# `write` lowers $t$ from 1 to 0 in equal steps. One may choose other times: at the beginning nothing is known, so it may be wise to show few words first. Write `times_for(counts)`:
# given how many words should appear in each step on average, such as `[1, 3, 8, 20]`, return the falling list of times, from 1 to 0 and one longer than `counts`, that `write` would have to use.
#
# <details><summary>Hint</summary>
#
# At time $t$ about $tL$ words are hidden, and $L$ is the sum of all counts. How many are hidden after the first step?
#
# </details>
#
# [Solution](solutions/00_start_here.ipynb)

# %% tags=["exercise"]
def times_for(counts):
    raise NotImplementedError


# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("3"):
    for counts in ([1, 3, 8, 20], [30, 15, 5]):
        found = [float(t) for t in times_for(counts)]
        assert len(found) == len(counts) + 1, "one time more than there are steps"
        assert found[0] == 1 and abs(found[-1]) < 1e-9, "the times run from 1 to 0"
        assert all(t > s for t, s in zip(found, found[1:])), "the times fall"
        left, generator = torch.full((4000,), float(sum(counts))), torch.Generator().manual_seed(0)
        for k, (t, s) in enumerate(zip(found, found[1:])):  # as `write` does, 4000 times
            appeared = torch.binomial(left, torch.full((4000,), (t - s) / t), generator=generator)
            left, mean = left - appeared, appeared.mean().item()
            # standard error at most 0.055: a right answer is off by 0.25 about 5 times in a million
            assert abs(mean - counts[k]) < 0.25, f"step {k + 1} shows {mean:.1f}, not {counts[k]}"

# %% [markdown]
# ## Laboratory
#
# Each section opens with its question. None of them is needed for the next chapters.
#
# ### Seeds: was our seed a lucky one?
#
# No: the page's seed, 0, has the largest gap of three. The file `results/00_page.json` holds what the page gives for seeds 0, 1 and 2, with eight draws of the noise each. The command
# that made it stands in the file.

# %%
import json
from pathlib import Path

facts = json.loads(Path("results/00_page.json").read_text())
print("made by:", facts["command"])
for run in facts["runs"]:
    above = run["bits"] - run["truth"]
    print(f"seed {run['seed']}: {run['bits']:.3f} bits, {above:.3f} above the truth")

# %% tags=["hide-cell"]
assert len(facts["runs"]) == 3 and all(0 < r["bits"] - r["truth"] < 0.25 for r in facts["runs"])

# %% [markdown]
# ### Both sides: what does seeing the right side buy?
#
# Consider the word after a full stop. It is a determiner: *a, every, this* before one thing, *some, many, these* before several. Only what follows can tell
# which. We ask the exact language and a trained network (the checkpoint `synthetic-absorb`) for the six words, once with nothing given on the right, twice with a sentence given. The network is asked by
# letting it fill the gap a thousand times and counting.

# %%
from sedd_mini.model import template

small = sedd_mini.load("checkpoints/synthetic-absorb", device="cpu")
determiners = ["a", "every", "this", "some", "many", "these"]
columns = [small.tokenizer.encode(word)[0] for word in determiners]


def truth_of(question):
    """The exact probabilities of the six words in the first gap, given all that is visible."""
    x = template(small.tokenizer, text=question)  # (L,): tokens, and −1 where free
    place = (x < 0).int().argmax()
    return language.posterior(x.clamp(min=0)[None], x[None] >= 0)[0, place, columns]


# %%
def counted(question, num=1000):
    gaps = " ____" * (8 - len(question.split()))  # it was trained on longer texts
    filled = small.fill(question + gaps, num, steps=1, seed=0)
    words_there = [line.split()[1] for line in filled]
    return torch.tensor([words_there.count(word) / num for word in determiners]).double()


questions = [". ____ ____ ____ ____", ". ____ cats sleep .", ". ____ cat sleeps ."]
exact = torch.stack([truth_of(question) for question in questions])  # (3, 6)
found = torch.stack([counted(question) for question in questions])
for question, row, counts in zip(questions, exact, found):
    plural, of_network = (of[3:].sum() / of.sum() for of in (row, counts))
    print(f"{question:22} plural: exact {plural:.3f}, network {of_network:.3f}")

# %% tags=["hide-cell"]
assert (exact - found).abs().max() < 0.05

# %% tags=["hide-input"]
#| alt: Three bar charts of the probabilities of six determiners. With the left side alone singular
#| and plural are equally likely; with "cats sleep" on the right only plurals are, with "cat sleeps"
#| only singulars.
titles = ["left side only:\n.  ___", "both sides:\n.  ___ cats sleep .",
          "both sides:\n.  ___ cat sleeps ."]  # fmt: skip
singular, plural = [plots.ORANGE] * 3, [plots.BLUE] * 3
fig, axes = plots.plt.subplots(1, 3, figsize=(10, 3.3), sharey=True)
for ax, title, bars, dots in zip(axes, titles, exact, found):
    ax.bar(determiners, bars, color=singular + plural, alpha=0.75)
    ax.plot(determiners, dots, "o", color="#222222", markersize=6)
    ax.set_ylim(-0.02, 0.6)
    ax.set_title(title, fontsize=11.5)
    ax.tick_params(axis="x", labelsize=9.5)
axes[0].set_ylabel("probability in the gap")
axes[0].text(1, 0.3, "singular", color=plots.ORANGE, ha="center")
axes[0].text(4, 0.3, "plural", color=plots.BLUE, ha="center")
axes[1].text(0, 0.45, "bars: truth\ndots: network", color="#444444")
fig.suptitle("Only the right side tells how many", fontsize=12, x=0.01, ha="left");

# %% [markdown]
# *What to see.* With the left side alone, singular or plural is a coin toss for any model, however large. With both sides it is 99.8 % certain; the rest comes from
# the language's random slips.
#
# ### Calls: why do 16 steps make 17 calls of the network?
#
# On the page 16 steps are 16 calls. The library's sampler takes one step more (in section 1, 64 steps gave 66 frames, the start among them): its steps end at $t = 10^{-5}$, not at 0, and a last step takes away whatever is still
# noise. With random-word noise this step is always needed, as nothing shows which words are still wrong. With hidden words it is needed only if some are left.
#
# *Predict:* how many of 128 tokens are still hidden at $t = 10^{-5}$? By the rule of the page, about one in a thousand texts should have one. We count one call for each
# frame that still has hidden tokens.

# %%
for steps in (16, 64):
    for seed in (2, 3):
        _, frames = filmed(docs.write, 1, length=128, steps=steps, seed=seed)
        hidden = frames == docs.graph.mask_id  # (steps + 2, L)
        print(f"{steps} steps: {hidden[-2].sum()} tokens left, {hidden.any(1).sum()} calls")

# %% [markdown]
# In three of these four texts some are left, and one more call is made: 17 for 16 steps, 65 for 64. The page's guesses are a softmax and sum to one. A SEDD network gives ratios, and the
# sum that they should have is one more thing that it must learn. If the sum is too small, tokens stay hidden too long; that would explain the counts, but we do not measure it here. Chapter 03 gives
# this sum a name, and its price.
#
# ### Steps: what do few steps cost?
#
# Words that are shown *in the same step* do not see each other. We ask for two words that must agree, a determiner and its noun, in ". ____ ____ near a river",
# with 1 to 16 steps, and count how often they do. The line is the exact share in true text. For the other network, which writes documentation, we count words that are words of the training texts (section 3).

# %%
from itertools import product

pairs = [
    *product(["a", "every", "this"], ["cat", "dog", "bird", "child"]),
    *product(["some", "many", "these"], ["cats", "dogs", "birds", "children"]),
]
agreeing = torch.tensor([small.tokenizer.encode(f". {a} {b} near a river") for a, b in pairs])
visible = template(small.tokenizer, text=". ____ ____ near a river")[None] >= 0  # (1, 6)
log_share = language.log_prob(agreeing) - language.log_prob(agreeing[:1], visible)
true_share = log_share.exp().sum().item()


# %%
def agreement(steps, num=300):
    filled = small.fill(". ____ ____ near a river ____ ____", num, steps=steps, seed=0)
    return sum(tuple(line.split()[1:3]) in pairs for line in filled) / num


choices = [1, 2, 4, 8, 16]
agree = [agreement(steps) for steps in choices]
spelled = [share_of_words(docs.write(12, length=128, steps=n, seed=0)) for n in choices]
spelled.append(written)  # with 32 steps, from section 3

# %% tags=["hide-cell"]
assert agree[0] < 0.62 and abs(agree[-1] - true_share) < 0.07
assert spelled[-1] > spelled[0] + 0.05

# %% tags=["hide-input"]
#| alt: Two curves against the number of steps. The share of agreeing pairs rises from about a half
#| to nearly that of true text; the share of real words rises and stays below unseen documents.
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.2))
axes[0].plot(choices, agree, "o-")
axes[0].axhline(true_share, color=plots.GREY, ls="--", lw=1.2)
axes[0].text(1, true_share + 0.01, "true text", color="#555555")
axes[0].set(title="Small language: more steps, more pairs agree", ylabel="share of agreeing pairs")
axes[1].plot([*choices, 32], spelled, "o-", color=plots.ORANGE)
axes[1].axhline(high, color=plots.GREY, ls="--", lw=1.2)
axes[1].axhline(low, color=plots.GREY, ls=":", lw=1.2)
axes[1].text(1, high + 0.01, "documents it never saw", color="#555555")
axes[1].text(8, low - 0.05, "random order", color="#555555")
axes[1].set(title="Documentation: more words are known", ylabel="share of known words")
for ax, ticks in zip(axes, (choices, [*choices, 32])):
    ax.set_xscale("log", base=2)
    ax.set(xlabel="steps", ylim=(0.4, 1.04), xticks=ticks, xticklabels=ticks)

# %% [markdown]
# *What to see.* Left: with one step the agreement is a coin toss; with 16 steps it is close to that of true text. Right: with one step the other network is no better than random order, and it
# improves quickly at first. (One standard error on the left is 0.03 at one step and less than 0.02 at 8 and 16, on the right about 0.01, so 8 and 16 steps cannot be told apart.)
# Chapter 08 measures how fast the error of a step falls, and finds better steps.
#
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023: SEDD, the method of this book.
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete State-Spaces*](https://arxiv.org/abs/2107.03006), 2021: D3PM, which introduced absorbing noise for discrete diffusion, in discrete time.
# - S. Sahoo and others, [*Simple and Effective Masked Diffusion Language Models*](https://arxiv.org/abs/2406.07524), 2024, and J. Shi and others,
#   [*Simplified and Generalized Masked Diffusion for Discrete Data*](https://arxiv.org/abs/2406.04329), 2024: the loss of our page, after SEDD.
# - J. Devlin and others, [*BERT*](https://arxiv.org/abs/1810.04805), 2018: hidden words as a training task.
# - S. Nie and others, [*Large Language Diffusion Models*](https://arxiv.org/abs/2502.09992), 2025: LLaDA, the same idea with 8 billion parameters.
