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
# # 00. Start here: what does it look like when a text forms everywhere at once?
#
# Most language models write as we type: one word after the other, and no way back. The model of this
# book begins with a page on which every word is hidden, and uncovers it in any order, many places at
# a time. This chapter shows the finished thing at work. The chapters that follow build all of
# it, from a Markov chain with three states.
#
# After this chapter you will be able to
#
# - let a small diffusion model write, and fill gaps in your own sentences;
# - say what it can do that a left-to-right model cannot, and what that costs;
# - find your way through the book.
#
# *You need* nothing but a Python with this repository installed. There is not one equation here, and
# the code may be run without being read. *Running time:* half a minute on two CPU cores.

# %% [markdown]
# ## A picture first
#
# The folder `checkpoints/` holds **checkpoints**, the saved weights of networks that were trained once,
# so that you need not wait. We load one, with its tokeniser. A **token** is the unit of text here: a
# word, or a piece of one. `graph` and `noise` say what the noise does and how fast; chapter 01.

# %%
import json
import re
import torch
from pathlib import Path
from sedd_mini import plots
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.samplers import sample
from sedd_mini.text.tokenizers import load_tokenizer

# %%
plots.use_style()
torch.set_num_threads(1)  # networks as small as these gain nothing from a second one
folder = Path("checkpoints/docs-absorb")
network, graph, noise = load_pretrained(folder)
tokenizer = load_tokenizer(folder)

# %% [markdown]
# Beside the weights lies a file that says how they were made. The network is tiny: GPT-2's smallest
# version has 124 million parameters. And it has read one thing in its life, the documentation
# that comes with Python: two megabytes, about as much as four novels.

# %% tags=["nbval-check-output"]
facts = json.loads((folder / "training.json").read_text())
million = facts["parameters"] / 1e6
print(f"{million:.1f} million parameters; GPT-2 has {124 / million:.0f} times as many")
print(f"{tokenizer.vocab_size} kinds of tokens; trained on {facts['hardware']}")
assert 3 < million < 3.3

# %% [markdown]
# Now it writes. `sample` starts from 80 hidden tokens and uncovers them in 64 steps. After each step
# it calls our `callback`, which keeps what stands on the page: a film. (`clamp` is for text that is
# given; here there is none, and section 2 will use it.)


# %%
def write(seed, steps=64, num=1, given=None, length=128):
    """Texts as rows of tokens, and the film: every step's tokens of the first one."""
    film = []
    x = sample(
        network, graph, noise, (num, length), steps, clamp=given,
        generator=torch.Generator().manual_seed(seed),
        callback=lambda step, t, x: film.append(x[0]),
    )  # fmt: skip
    return x, torch.stack(film)


# %%
page, film = write(seed=11, length=80)
hidden = film == graph.mask_id  # (frames, 80)
assert hidden[0].all() and not hidden[-1].any()
assert (hidden[1:] <= hidden[:-1]).all()  # what is written stays

# %% [markdown]
# To see the film we need a way to draw one frame. A hidden token becomes a grey block, a token that
# has just appeared is blue, the others are black. (The drawing knows the final text, and gives each
# block the width of what will stand there, so that nothing moves. The network knows no such thing.)


# %%
def draw(ax, row_of_tokens, birth, now, since, columns=42, lines=True):
    """One frame: what was born after `now` is hidden, what was born after `since` is new."""
    layers = {"#222222": "", plots.BLUE: "", "#ccd1d9": ""}  # as yet empty: old, new, hidden
    old, new, hidden = layers
    for token, born in zip(row_of_tokens.tolist(), birth.tolist()):
        column = len(layers[old]) - layers[old].rfind("\n") - 1
        piece = re.sub("\n+", "\n" if column else "", tokenizer.decode([token]))
        piece = piece if lines else re.sub(r"\s+", " ", piece)
        if column + len(piece) > columns and piece.startswith(" "):
            piece = "\n" + piece[1:]
        blocks = re.sub(".", "█", re.sub(".$", "▌", piece))
        colour = hidden if born > now else new if born > since else old
        for layer in layers:
            shown = blocks if layer == hidden else piece
            layers[layer] += shown if layer == colour else re.sub(".", " ", piece)
    for colour, text in layers.items():
        for y, line in enumerate(text.split("\n")):
            ax.text(0, y, line, color=colour, family="monospace", fontsize=10, va="baseline")
    ax.set(ylim=(y + 0.5, -1), xlim=(-0.02, 1))
    ax.axis("off")


# %% [markdown]
# Six moments of the film:

# %%
birth = hidden.sum(0)  # the frame in which each token appears
moments = [0, 8, 20, 36, 52, 65]
fig, axes = plots.plt.subplots(2, 3, figsize=(11.4, 4.4))
for ax, since, now in zip(axes.flat, [0, *moments], moments):
    draw(ax, page[0], birth, now, since)
    ax.set_title({0: "at the start", 65: "the end"}.get(now, f"after step {now}"), fontsize=11)

# %% [markdown]
# *What to see.* The text does not grow from its beginning. Words and scraps of words appear all over the
# page, and later ones grow between them. The last picture holds the finished text: it sounds like
# Python's documentation, and it means nothing. That is what three million parameters and an hour on
# one processor core give. (Of seeds 0 to 23 it is the text that I liked best. Try others.)
#
# And the same as a moving picture. In JupyterLab and in the HTML book it plays by itself, again and again.

# %%
import base64
import tempfile
from matplotlib.animation import PillowWriter


def play(tokens, film, size, new=5, **layout):
    """Show a film as a GIF; what appeared in the last `new` steps is blue."""
    birth = (film == graph.mask_id).sum(0)
    fig, ax = plots.plt.subplots(figsize=size)
    writer = PillowWriter(fps=3)
    with tempfile.TemporaryDirectory() as scratch:
        with writer.saving(fig, f"{scratch}/film.gif", dpi=80):
            for now in [*range(0, 66, 5), *[70] * 5]:  # and the end, a while longer
                ax.clear()
                draw(ax, tokens, birth, now, max(0, now - new), **layout)
                writer.grab_frame()
        gif = Path(f"{scratch}/film.gif").read_bytes()
    plots.plt.close(fig)
    assert len(gif) < 150_000
    display({"image/gif": base64.b64encode(gif).decode()}, raw=True)  # noqa: F821, as in notebooks


play(page[0], film, size=(5, 2.2))

# %% [markdown]
# ## 1. How good is that?
#
# This book prefers numbers to impressions. Here is a crude one. Take all words (runs of letters) of the texts that
# the network learned from. What share of the words it writes is among them? To know what a share
# means we need two fixed points: documents that it has *not* seen, and tokens of the training text
# drawn in random order, which is what a model would write that knows how frequent tokens are and nothing about their
# neighbours.

# %%
from sedd_mini.text.blocks import split_documents
from sedd_mini.text.python_docs import python_docs

seen, unseen = split_documents(python_docs())
known_words = set(re.findall("[A-Za-z]+", " ".join(seen)))


def share_of_words(texts):
    words = [w for text in texts for w in re.findall("[A-Za-z]+", text)]
    return sum(w in known_words for w in words) / len(words)


# %%
some = torch.tensor(tokenizer.encode("\n".join(seen[::10])))
drawn = some[torch.randint(len(some), (64, 128), generator=torch.Generator().manual_seed(0))]
pages, _ = write(seed=0, steps=32, num=12)
shares = {
    "tokens in random order": share_of_words(map(tokenizer.decode, drawn.tolist())),
    "written by the network": share_of_words(map(tokenizer.decode, pages.tolist())),
    "documents it never saw": share_of_words(unseen),
}
for name, share in shares.items():
    print(f"{name}: {share:.2f} of the words are words")

# %%
low, model, high = shares.values()
assert 0.75 < low < 0.85 and high > 0.93
part = (model - low) / (high - low)
print(f"of the way from random order to real text: {part:.2f}")
assert 0.55 < part < 0.85

# %% [markdown]
# Nine words in ten. Most of that is the vocabulary's doing: its tokens are mostly whole words, so
# tokens in random order already reach eight in ten. About seven tenths of the remaining distance is behind
# the network. Keep the number in mind as a picture of scale. The small one of the two published models is
# some fifty times larger and has read thousands of times as much. Chapter 04 replaces this crude measure
# by a proper one.
#
# ## 2. It fills gaps
#
# A model that uncovers hidden tokens does not care which ones are hidden. Give it a sentence with
# gaps: what is given simply is not hidden at the start, and everything else stays as it was.
# No training for the purpose is needed. `template` turns text into tokens and every run of
# underscores into free places, half as many as underscores (in the language of words below, a gap is
# one word).

# %%
from sedd_mini.model import template

sentence = "The optional argument ____ specifies the ____ of the ____; it defaults to ____."
given = template(tokenizer, text=sentence)  # (L,): tokens, and −1 where free
filled, film = write(seed=0, num=8, given=given, length=len(given))
assert (filled[:, given >= 0] == given[given >= 0]).all()  # what was given is untouched
print("free:", int((given < 0).sum()), "of", len(given), "tokens")

# %%
fig, axes = plots.plt.subplots(5, 1, figsize=(10, 2.6))
when = (given < 0).long()
draw(axes[0], filled[0], when, now=0, since=0, columns=200, lines=False)
axes[0].set_title("given")
for i, ax in enumerate(axes[1:]):
    draw(ax, filled[i], when, now=1, since=0, columns=200, lines=False)
axes[1].set_title("filled four times");

# %% [markdown]
# *What to see.* Blue is the network's. Each filling is different, and each bends itself to both of its
# sides, more or less: a *level*, a *value* or an *occurrence* is always of something, but *the be None* is
# no English at all. (The blocks above are as wide as the first filling; the number of tokens is all that
# the network was told.) These are the first four that came, not the best four. And the first of them as a
# film:

# %%
play(filled[0], film, size=(10, 0.4), new=100, columns=200, lines=False)

# %% [markdown]
# ## 3. What left-to-right cannot do
#
# **It sees both sides.** A left-to-right model chooses each word knowing only what stands before. Without
# special training it cannot use what stands after a gap. How much does that matter? We ask in a language
# whose truth is known exactly. The book has one: a little grammar of 40 words, with sentences such as "some cats sleep .", small
# enough that the right probability of every word in every gap can be computed. It is called
# `SyntheticLanguage`, and it will be our judge in many chapters. A second checkpoint was trained on its sentences.
#
# Consider what comes after a full stop. It is a determiner: *a, every, this* before one
# thing, *some, many, these* before several. Which? Only what follows can tell.

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
words = language.tokenizer()
small_network, small_graph, small_noise = load_pretrained("checkpoints/synthetic-absorb")
determiners = ["a", "every", "this", "some", "many", "these"]
columns = [words.encode(word)[0] for word in determiners]


def truth(text):
    """The exact probabilities of the six words in the first gap, given all that is visible."""
    x = template(words, text=text)
    return language.posterior(x.clamp(min=0)[None], x[None] >= 0)[
        0, (x < 0).int().argmax(), columns
    ]


# %% [markdown]
# The network is asked by letting it fill the gap a thousand times for each question, and counting. It
# was trained on longer texts, so we tell it that more words follow: all texts have eight places, and those
# after the sentence are free too.


# %%
def fillings(text, steps, num):
    x = template(words, text=text)
    x = torch.nn.functional.pad(x, (0, 8 - len(x)), value=-1)  # (8,)
    return sample(small_network, small_graph, small_noise, (num, 8), steps, clamp=x,
                  generator=torch.Generator().manual_seed(0))  # fmt: skip


def counted(text, num=1000):
    first_gap = fillings(text, 1, num)[:, 1]
    return torch.stack([(first_gap == i).double().mean() for i in columns])


# %%
questions = [". ____ ____ ____ ____", ". ____ cats sleep .", ". ____ cat sleeps ."]
exact = torch.stack([truth(text) for text in questions])  # (3, 6)
found = torch.stack([counted(text) for text in questions])
assert (exact - found).abs().max() < 0.04

# %%
titles = ["only what comes before:\n .  ___", "both sides:\n .  ___ cats sleep .",
          "both sides:\n .  ___ cat sleeps ."]  # fmt: skip
fig, axes = plots.plt.subplots(1, 3, figsize=(10, 3.3), sharey=True)
colours = [plots.ORANGE] * 3 + [plots.BLUE] * 3
for ax, title, bars, dots in zip(axes, titles, exact, found):
    ax.bar(determiners, bars, color=colours, alpha=0.75)
    ax.plot(determiners, dots, "o", color="#222222", markersize=6)
    ax.set_title(title, fontsize=11.5)
    ax.tick_params(axis="x", labelsize=9.5)
axes[0].set_ylabel("probability in the gap");

# %% [markdown]
# *What to see.* Bars are the truth, dots the network. Orange words are singular, blue ones plural.
# With the left side alone (where the network, too, sees nothing else: the other places are hidden) the number is a coin toss, and no
# model, however large, can do better. With both sides it is certain, but for the slips of two per cent that
# this language makes.

# %% tags=["nbval-check-output"]
for text, row in zip(questions, exact):
    print(f"{text:22} plural: {row[3:].sum() / row.sum():.3f}")

# %% [markdown]
# **Its number of steps is free.** A left-to-right model calls its network once for every token. Here you
# choose: sixteen steps for a page of 128 tokens, or 128. We count the calls, which are what costs time:
# one for each frame of the film in which something is still hidden.

# %%
for steps in (16, 128):
    text, film = write(seed=2, steps=steps)
    calls = (film == graph.mask_id).any(1).sum()
    print(f"--- {steps} steps, {calls} calls of the network")
    print(tokenizer.decode(text[0].tolist()).strip()[:240], "\n")

# %% [markdown]
# **And its price.** Tokens that are uncovered *in the same step* do not see each other. Ask the little
# language for two words that must agree, a determiner and its noun: "▢ ▢ near a river". If both
# come in one step, each is fine by itself, and together they are right half of the time, as in "a dogs" or "some cat". With more
# steps the second word usually sees the first. We measure both effects, on agreement and on the share of
# words from section 1.

# %%
from itertools import product

pairs = [
    *product(["a", "every", "this"], ["cat", "dog", "bird", "child"]),
    *product(["some", "many", "these"], ["cats", "dogs", "birds", "children"]),
]
agreeing = torch.tensor([words.encode(f". {a} {b} near a river") for a, b in pairs])  # (24, 6)
visible = template(words, text=". ____ ____ near a river")[None] >= 0  # (1, 6)
log_share = language.log_prob(agreeing) - language.log_prob(agreeing[:1], visible)
true_share = log_share.exp().sum().item()


def agreement(steps, num=300):
    found = fillings(". ____ ____ near a river", steps, num)[:, None, :3]
    return (found == agreeing[:, :3]).all(-1).any(-1).double().mean().item()


# %%
choices = [1, 2, 4, 8, 16]
agree = [agreement(steps) for steps in choices]
spelled = [share_of_words(map(tokenizer.decode, write(0, n, num=12)[0].tolist())) for n in choices]
spelled.append(model)  # with 32 steps, from section 1
assert agree[0] < 0.6 and abs(agree[-1] - true_share) < 0.06
assert spelled[-1] > spelled[0] + 0.08

# %%
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 3.2))
axes[0].plot(choices, agree, "o-")
axes[0].axhline(true_share, color=plots.GREY, ls="--", lw=1.2)
axes[0].text(1, true_share - 0.05, "true text", color="#555555")
axes[0].set(title="pairs of words that agree", ylabel="share", ylim=(0.4, 1.02))
axes[1].plot([*choices, 32], spelled, "o-", color=plots.ORANGE)
axes[1].axhline(high, color=plots.GREY, ls="--", lw=1.2)
axes[1].text(1, high - 0.05, "documents it never saw", color="#555555")
axes[1].set(title="words that are words", ylim=(0.4, 1.02))
for ax in axes:
    ax.set_xscale("log", base=2)
    ax.set(xlabel="steps", xticks=[*choices, 32], xticklabels=[*choices, 32])

# %% [markdown]
# *What to see.* Left: with one step the agreement is a coin toss, with 16 it is close to that of true text
# (line). Right: the spelling of the other network improves too, quickly at first; what is missing then is
# not steps but learning. How fast the harm of hasty steps goes away, and how to take better ones, is the
# subject of chapter 08.
#
# ## 4. The map of the book

# %%
fig, ax = plots.plt.subplots(figsize=(10, 4))
boxes = {
    (0, 2): "text, as tokens\n05", (9, 2): "noise:\nall is hidden", (0, 0): "a new text",
    (4.5, 1): "a network that knows\nratios of probabilities\n06",
    (1.2, 1): "how to train it\n02  03  07  11", (7.9, 1): "how good is it?\n04",
}  # fmt: skip
for (x, y), text in boxes.items():
    edge = plots.BLUE if text[-1].isdigit() else "#666666"
    style = {"boxstyle": "round,pad=0.45", "fc": "white", "ec": edge, "lw": 1.6}
    ax.text(x, y, text, ha="center", va="center", color=edge, bbox=style, fontsize=11.5)
corner = "angle,angleA=-90,angleB=180,rad=12"
arrows = [
    ((1.2, 2), (8, 2), "arc3"), ((9, 1.62), (0.8, 0), corner), ((2.2, 1), (3.1, 1), "arc3"),
    ((7, 1), (5.9, 1), "arc3"), ((4.5, 0.55), (4.5, 0.08), "arc3"),
]  # fmt: skip
for start, end, bend in arrows:
    line = {"arrowstyle": "-|>", "lw": 1.6, "connectionstyle": bend, "fc": "#222222"}
    ax.annotate("", end, start, arrowprops=line)
ax.text(4.6, 2.12, "noise that jumps  01", ha="center", color=plots.BLUE)
ax.text(4.5, -0.25, "backwards, step by step: sampling  08,  filling gaps  09", ha="center",
        color=plots.BLUE)  # fmt: skip
ax.set(xlim=(-1.2, 10), ylim=(-0.5, 2.5))
ax.axis("off");

# %% [markdown]
# *What to see.* Above, noise destroys text: that is easy, and known exactly. Below, the way back. It needs
# one thing that only the data can teach, how much more probable one word is here than another, and a
# network learns it. Numbers are chapters.
#
# | chapter | its question | what it proves, in code |
# |---|---|---|
# | 01 Noise that jumps | What is diffusion when nothing is continuous? | Noise runs backwards by ratios of probabilities alone. |
# | 02 What must a network learn? | How can ratios be learned from samples? | Three earlier methods, and where each fails. |
# | 03 Score entropy | Which loss keeps ratios positive and right? | Three forms of one loss, equal to the last digit that matters. |
# | 04 How good is it? | Can it be compared with other models? | The loss bounds the likelihood, and how tightly. |
# | 05 From one token to text | How can anyone compute with 50257¹⁰²⁴ states? | One edit at a time is enough. |
# | 06 The diffusion transformer | What network answers for every word at once? | Written by hand, it equals the library's. |
# | 07 Training | What turns a loss into a model? | A short training, run before your eyes. |
# | 08 Sampling | How few steps are enough? | The error of a step, measured against the truth. |
# | 09 Infilling | Why may gaps simply be left hidden? | It follows the exact conditional law. |
# | 11 The full-size run | What does it take to train the real network? | Its cost, counted before the run and checked on a step. |
#
# Chapter 10, on evaluation by other models, is to come.
#
# **How to read it.** Chapters 01 to 04 use worlds so small that everything can be counted, and build on each other.
# They ask for probability (Bayes' rule, expectations) and a little PyTorch, nothing else. If you want to *use* such a model, read
# 01, run 02 to 04 without following the proofs, then read 05 to 09, and come back for the proofs. If you have met diffusion models for images, skim
# 01 and begin in earnest with 02. If you came for the bound, 01, 03 and 04 are a complete path.
# Every chapter is a notebook that runs in half a minute to three: change things.

# %% [markdown]
# ## Summary
#
# - A discrete diffusion model starts from hidden tokens and uncovers them in any order, many at a time.
# - It fills gaps without being trained for it, and sees both sides of each.
# - The number of steps is yours to choose: time against quality.
# - Tokens of one step do not see each other. That is the price, and it shrinks with more steps.
# - The model here is tiny: its words are mostly words, its sentences are not yet thoughts.
#
# ## Exercises
#
# **1. Your sentence** (★☆☆, 5 minutes). Put a sentence of your own with gaps into section 2. The network
# knows only how documentation sounds. What happens with "Once upon a time ________"? Make the gaps longer or
# shorter than the answer that you have in mind.
#
# **2. Other pages** (★☆☆, 5 minutes). Write with seeds 0 to 9, then with 1, 4 and 256 steps. From how many
# steps on can you no longer tell, by eye, that there are more? Compare with the right-hand curve of section 3.
#
# **3. Which side decides?** (★★☆, 10 minutes). A verb agrees with a subject on its left. Put the ids of
# `sleep` and `sleeps` into `columns`, and ask `truth` about ". some cats near a river ____ .": does it need its
# right side? Then hide the subject as well, ". some ____ near a river ____ .", and at last the determiner too.
#
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023: the method of this book.
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete
#   State-Spaces*](https://arxiv.org/abs/2107.03006), 2021: the forerunner, in discrete time.
