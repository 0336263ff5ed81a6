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
# # 09. Infilling: can it write around what is already there?
#
# You have the beginning of a sentence and its end, and want the middle. Or every sixth word is
# illegible. A model that writes from left to right cannot simply be asked: when it comes to a gap,
# it has seen only what stands *before* it. A diffusion model looks at all positions at every step.
# So it seems that we need no new model and no new training: hold the known tokens fixed, and sample
# the rest. Is that right? It is tempting enough to be checked.
#
# The answer will be: with absorbing noise, exact ratios and short steps it is exact. With uniform
# noise it is not, although the same formula seems to justify it. Seeing why leads to a repair that
# costs one line.
#
# After this chapter you will be able to
#
# - condition a discrete diffusion model on tokens at any positions, and prove when that is exact;
# - measure the error of infilling, exactly on small worlds, and in bits on a language that is
#   known;
# - say what the text to the right of a gap is worth, and what goes wrong when several words of a
#   gap appear in one step.
#
# *You need* chapters 01, 03, 04 and 05, and Tweedie's leap from chapter 08. *Running time:* half a
# minute on two CPU cores.

# %% [markdown]
# ## A picture first
#
# A network has learned from Python's documentation (chapter 07). Here is a passage that it has
# never seen, since we wrote it for this page. Some words are missing. `template` turns the text
# into tokens and gaps, and `sample` fills the gaps, six times. Both are explained below. For now,
# only look.

# %%
import math
from itertools import pairwise, product
import torch
from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, plots
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.model import template
from sedd_mini.samplers import sample
from sedd_mini.text.tokenizers import load_tokenizer

plots.use_style()
torch.set_num_threads(1)  # most tensors here are small: a second thread would only wait
docs_net, docs_graph, docs_noise = load_pretrained("checkpoints/docs-absorb")
docs_tok = load_tokenizer("checkpoints/docs-absorb")

# %%
start = 'Return the first item of the list.  If the list is empty, a "ValueError" is raised.'
rest = """

The optional argument *key* is a function of one argument.  It is called for each item of the list,
and the result is used to compare the items.  If *key* is not given or is "None", the items are
compared directly."""
gaps = 'Return the ____ item of the list.  ____ the list ____ empty____ a "ValueError" is ____.'
given = template(docs_tok, text=gaps + rest, gap=1)  # (80,): token ids, and −1 at the five gaps
fills = sample(docs_net, docs_graph, docs_noise, (6, len(given)), steps=32, clamp=given,
               generator=torch.Generator().manual_seed(1))  # fmt: skip

# %%
def show_rows(rows, free, labels, title):
    """Rows of tokens (R, n) in aligned columns, on tinted paper where `free` (n,) says so."""
    pieces = [[docs_tok.decode([i]).replace("\n", "↵") for i in row] for row in rows.tolist()]
    widths = [max(len(row[i]) for row in pieces) for i in range(rows.shape[1])]
    _, ax = plots.plt.subplots(figsize=(10, 0.5 + 0.27 * len(rows)))
    style = {"family": "monospace", "va": "center", "fontsize": 1080 / sum(widths)}
    for i, width in enumerate(widths):
        x, ink = sum(widths[:i]), plots.BLUE if free[i] else "#555555"
        if free[i]:
            ax.barh(range(len(rows)), width - 0.1, left=x, height=0.9, color="#dbe7f2")
        for y, row in enumerate(pieces):
            ax.text(x, y, row[i], color=ink, **style)
    ax.set(xlim=(0, sum(widths)), ylim=(len(rows) - 0.4, -0.6), xticks=[], title=title)
    ax.set_yticks(range(len(rows)), labels)
    ax.tick_params(length=0)
    ax.grid(False)
    ax.spines[:].set_visible(False)


original = torch.tensor(docs_tok.encode(start + rest))  # (L,)
rows, n = torch.cat([fills, original[None]]), len(docs_tok.encode(start))
show_rows(rows[:, :n], given[:n] < 0, [*range(1, 7), "original"], "Five gaps, filled six times")

# %% [markdown]
# *What to see.* Each row is one filling, with what was given in grey. Where the rest of the passage
# leaves little choice (*If*, *is*, the comma), most rows agree. Where it leaves some, they differ,
# and not all of them make sense: the network is small. The *If* is easy because of what comes
# *after* it: *the list is empty, a "ValueError"*. Section 8 measures how much that helps.
#
# ## 1. Two words, counted
#
# The smallest example has two words. In a hundred sentences we have counted
#
# | | *sleeps* | *sleep* |
# |---|---|---|
# | *cat* | 40 | 8 |
# | *cats* | 2 | 50 |
#
# As a joint distribution of two tokens with two values each:

# %%
counts = torch.tensor([[40.0, 8.0], [2.0, 50.0]], dtype=torch.float64)  # row: cat, cats
p0 = counts / counts.sum()

# %% [markdown]
# The noun *cat* is given; which verb follows? We go through the sentences with *cat* and count.

# %% tags=["nbval-check-output"]
after_cat = counts[0] / counts[0].sum()
print(f"given cat: sleeps {after_cat[0]:.3f}, sleep {after_cat[1]:.3f}")

# %% [markdown]
# A diffusion model does not know this distribution. It knows ratios of the *joint* one: how much
# more probable is the whole sentence with this word than with that one? Compare *cat sleep* with
# *cat sleeps*, jointly and given *cat*:

# %%
joint_ratio = p0[0, 1] / p0[0, 0]  # 8 : 40
conditional_ratio = after_cat[1] / after_cat[0]
assert torch.isclose(joint_ratio, conditional_ratio)

# %% [markdown]
# The same number. It must be: a conditional probability is a joint one, divided by
# $p(\text{given})$, and in a ratio that divisor cancels. This is Bayes' rule for ratios. It holds
# at every noise level, for any tokens $x, y$ at the free positions:
#
# $$\boxed{\;\frac{p_t(y_{\text{free}} \mid \text{given})}{p_t(x_{\text{free}} \mid \text{given})}
# = \frac{p_t(y_{\text{free}},\, \text{given})}{p_t(x_{\text{free}},\, \text{given})}\;}$$
#
# On the right stands what the network has learned to answer for a neighbour $y$ of $x$. So it need
# not be changed. We put the given tokens where they belong, ask for the ratios at the other
# positions, and never let the given ones move. They are **clamped**. Let us check the formula at a
# noise level of 0.5 for both graphs: draw noisy pairs, keep those whose noun shows *cat*, and count
# their verbs. The oracle of chapter 01 knows the joint ratios.

# %%
from sedd_mini.worlds.ctmc import Chain

pairs = {"absorbing": Chain(AbsorbingGraph(2), p0), "uniform": Chain(UniformGraph(2), p0)}
g = torch.Generator().manual_seed(0)
for pair in pairs.values():
    x = pair.graph.sample_transition(pair.sample_data(200_000, g), torch.tensor(0.5), g)  # (B, 2)
    verb_given_cat = x[x[:, 0] == 0, 1].bincount()  # (S,): verbs where the noisy noun shows cat
    here = pair.index(torch.tensor([0, 0]))  # cat sleeps
    score = pair.scores(0.5)[here, 1]  # (S,): joint ratios for the second token
    assert torch.allclose(score, verb_given_cat / verb_given_cat[0].double(), rtol=0.05)

# %% [markdown]
# It holds. But read the comment beside `verb_given_cat` once more: *where the noisy noun shows
# cat*. The given token enters $p_t$ as a token of the **noisy** sentence. We know more: it is a
# token of the clean one. Whether that makes a difference, we now find out.

# %% [markdown]
# ## 2. The clamped sampler, exactly
#
# A run takes $K$ leaps and a last step, as in chapter 08. In each, every free token is drawn from
# its row of `tweedie_probs`: the law of what the token was a little earlier, given the whole
# present sentence. A clamped token ignores its row and stays. The rows themselves do not depend on
# what is given, so we compute them once for all sentences of a world.

# %%
def leap_rows(chain, schedule, K):
    """For each leap and the last step the rows (n, d, S): where each token of each state goes."""
    times = torch.linspace(1, 1e-5, K + 1, dtype=torch.float64)
    levels = [*schedule.total(times).tolist(), 0.0]
    return [
        chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        for high, low in pairwise(levels)
    ]

# %% [markdown]
# Tokens move independently of each other, so the probabilities of their joint move are products:

# %%
def together(rows):
    """Rows (n, k, S) of k tokens → the law of all k at once, (n, S^k)."""
    law = rows[:, 0]
    for i in range(1, rows.shape[1]):
        law = (law[:, :, None] * rows[:, i, None, :]).flatten(1)
    return law

# %% [markdown]
# Now the law of the filled gaps, without a single random number. We keep a probability for each way
# to fill the free positions, MASK included where there is one, and push it through the leaps. At
# the start the free tokens are pure noise. `given` holds a token where one is given and −1 where a
# position is free, as for the library's `sample`.

# %%
def showing(chain, given):
    """Which of the n states show the given tokens."""
    return ((chain.states == given) | (given < 0)).all(1)


def clamped_law(chain, leaps, given):
    here, free = showing(chain, given), given < 0
    p = chain.graph.limit_log_prob(chain.states[here][:, free]).exp().prod(1)  # noise at first
    for rows in leaps:
        p = p @ together(rows[here][:, free])
    return p

# %% [markdown]
# And the truth: the data's distribution, restricted to the sentences with the given tokens,
# normalised.

# %%
def conditional_law(chain, given):
    p = chain.p0.flatten()[showing(chain, given)]
    return p / p.sum()


cat = torch.tensor([0, -1])
assert torch.allclose(conditional_law(pairs["uniform"], cat), after_cat)

# %% tags=["nbval-check-output"]
from sedd_mini.worlds.ctmc import total_variation

schedules = {"absorbing": LogLinearNoise(), "uniform": GeometricNoise()}
print("TV from the truth, given cat:   K = 4      16      64     256")
for name, pair in pairs.items():
    errors = []
    for K in (4, 16, 64, 256):
        law = clamped_law(pair, leap_rows(pair, schedules[name], K), cat)
        errors.append(total_variation(law, conditional_law(pair, cat)))
    print(f"{name:28}", *(f"{e:7.3f}" for e in errors))
assert errors[-1] > 0.1

# %% [markdown]
# (TV is the total variation of chapter 01: half the sum of absolute differences.) Two graphs, the
# same formula, two outcomes. Absorbing noise gives the truth, with any number of leaps: one gap of
# one token is a single draw. Uniform noise misses it by 0.12, and more leaps do not help. The verb
# *sleeps* comes out in 71 of 100 sentences, where 83 would be right.
#
# Where does the uniform sampler lose these 12 sentences? Section 3 will tell. First, is this an
# unlucky example? Take three worlds of three tokens with three values, drawn at random, with 3 %
# spread evenly so that all ratios are finite. Give every possible choice of one or two tokens,
# every value: 36 choices a world.

# %%
def random_world(seed, power):
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(3, 3, 3, generator=g, dtype=torch.float64) ** power
    return 0.97 * p / p.sum() + 0.03 / 27


worlds = [random_world(0, 4), random_world(1, 4), random_world(0, 8)]
choices = torch.tensor([c for c in product(range(-1, 3), repeat=3) if 0 < c.count(-1) < 3])
assert len(choices) == 36

# %%
makers = {"absorbing": AbsorbingGraph, "uniform": UniformGraph}
chains = {name: [Chain(make(3), world) for world in worlds] for name, make in makers.items()}
steps, clamped = [2, 8, 32, 128], {}
leaps = {
    (name, K): [leap_rows(chain, schedules[name], K) for chain in chains[name]]
    for name in chains
    for K in steps
}
for (name, K), runs in leaps.items():
    clamped[name, K] = torch.tensor([
        total_variation(clamped_law(chain, run, c), conditional_law(chain, c))
        for chain, run in zip(chains[name], runs)
        for c in choices
    ])  # fmt: skip

# %%
two_gaps = (choices < 0).sum(1).repeat(3) == 2  # (108,): 9 choices in each world
fig, axes = plots.plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for ax, name, colour in zip(axes, chains, (plots.BLUE, plots.ORANGE)):
    curves = torch.stack([clamped[name, K] for K in steps]).clamp(min=1e-5)  # (4, 108)
    ax.loglog(steps, curves, color=colour, lw=0.6, alpha=0.35)
    ax.loglog(steps, curves[:, two_gaps].mean(1), "o-", color=colour, lw=3)
    ax.set_xticks(steps, steps)
    ax.minorticks_off()
    ax.set(xlabel="leaps K", title=f"{name} noise", ylim=(1e-4, 1))
axes[0].set_ylabel("TV from p(rest | given)")
axes[0].text(2.1, 3e-4, "mean, two tokens free", color=plots.BLUE);

# %% tags=["nbval-check-output"]
for name in chains:
    tv = clamped[name, 128]
    print(f"{name:9} 128 leaps: TV from {tv.min():.3f} to {tv.max():.3f}, mean {tv.mean():.3f}")
ratio = clamped["absorbing", 32][two_gaps] / clamped["absorbing", 128][two_gaps]
assert (ratio > 3.5).all() and (ratio < 4.5).all()  # four times the leaps, a quarter of the error
assert clamped["absorbing", 2][~two_gaps].max() < 1e-9  # one token free: exact at once

# %% [markdown]
# *What to see.* Each thin line is one choice of given tokens, thick ones are means. Left: every
# error falls like $1/K$. (Choices with a single free token are exact from the start and lie below
# the picture.) Right: the lines go flat. With uniform noise the clamped sampler keeps an error that
# no number of leaps removes: 0.16 on average over all choices, near 0 for some choices, and over a
# half for the worst.

# %% [markdown]
# ## 3. Why one is exact and the other is not
#
# What should the ratios be? If the given tokens are known for sure, the rest is a smaller world of
# its own, with the data distribution $p_0(\text{rest} \mid \text{given})$. Its noisy marginals are
# $p_t(\text{rest}_t \mid \text{given}_0)$, with an index 0: *given the clean tokens*. Reversing
# that world needs its ratios. The clamped sampler uses those of
# $p_t(\text{rest}_t \mid \text{given}_t)$: *given that the noisy tokens look like this*.
#
# **Absorbing noise.** A visible token is a clean token. If $x_t$ shows *cat*, then $x_0$ has *cat*
# there. Conversely, a clean *cat* is still visible with probability $e^{-\bar\sigma}$, whatever the
# other tokens are. With $m$ given tokens that makes
#
# $$p_t(\text{rest}_t, \text{given}_t) = e^{-m\bar\sigma}\; p_0(\text{given})\; p_t(\text{rest}_t \mid \text{given}_0) ,$$
#
# and the two factors in front cancel in every ratio. The ratios that are used are the right ones,
# so chapter 08 applies to the smaller world: with vanishing leaps its samples are exact. We take
# the first world, give its first token, and compare.

# %%
def smaller_world(chain, given):
    """The free tokens alone, with p0(rest | given) as their data."""
    law = chain.p0[tuple(slice(None) if v < 0 else v for v in given.tolist())]
    law = law[(slice(chain.graph.num_tokens),) * law.ndim]
    return Chain(chain.graph, law / law.sum())


given_first, difference = torch.tensor([0, -1, -1]), {}
for name in chains:
    chain = chains[name][0]
    used = chain.scores(0.5)[showing(chain, given_first)][:, 1:]  # (S², 2, S)
    right = smaller_world(chain, given_first).scores(0.5)
    difference[name] = (used / right - 1)[right > 0].abs().max().item()
assert difference["absorbing"] < 1e-12 and difference["uniform"] > 0.1
print(f"uniform noise: ratios are wrong by up to {100 * difference['uniform']:.0f} %")

# %% [markdown]
# **Uniform noise.** A token of the noisy sentence may have been replaced. When the noise is strong,
# a noisy *cat* is most likely a random word and says next to nothing about the verb. The network
# has learned to treat it so, and about noisy sentences it is right. But we know more than it was
# told. Here is *cat sleeps* under both conditions, at every noise level, and what becomes of the
# sampler that follows the wrong one:

# %%
pair, K = pairs["uniform"], 512
levels = torch.logspace(1, -4, K + 1, dtype=torch.float64).tolist()
p, asked, right, got = torch.full((2,), 0.5, dtype=torch.float64), [], [], []
for high, low in pairwise([*levels, 0.0]):
    noisy = pair.marginal(high)[0]
    asked.append((noisy[0] / noisy.sum()).item())  # the noisy noun shows cat
    right.append((pair.kernel(high) @ after_cat)[0].item())  # the clean noun is cat
    got.append(p[0].item())
    rows = pair.graph.tweedie_probs(pair.states, pair.scores(high), torch.tensor(high - low))
    p = p @ rows[showing(pair, cat), 1]

# %%
fig, ax = plots.plt.subplots(figsize=(7.5, 3.8))
ax.semilogx(levels, right, label="right: given that the clean noun is cat")
ax.semilogx(levels, asked, "--", c=plots.GREEN, label="asked: given that the noisy noun shows cat")
ax.semilogx(levels, got, c=plots.ORANGE, lw=3, label="drawn so far by the clamped sampler")
ax.invert_xaxis()
ax.set(xlabel=r"noise $\bar\sigma$ (the sampler runs to the right)", ylim=(0.48, 0.88))
ax.set_title("Probability of the verb “sleeps”")
ax.legend(loc="lower right");

# %% [markdown]
# *What to see.* At strong noise the dashed line stays low: *cat* counts as noise. At weak noise it
# comes up to the blue one, and in the end both conditions are the same. But the sampler (orange)
# comes too late. By the time the ratios are right, hardly anything moves any more: tokens jump
# while there is noise, and not at $\bar\sigma = 0.01$. What was decided early, when *cat* was not
# believed, remains.

# %%
truth, end = after_cat[0].item(), p[0].item()
assert abs(asked[-1] - truth) < 0.001 and abs(right[-1] - truth) < 0.001
assert levels[-200] < 0.01 and 0 <= end - got[-200] < 0.01  # the last 200 leaps hardly matter
assert truth - end > 0.1

# %% [markdown]
# ## 4. A weight puts it right
#
# Can uniform noise be conditioned exactly, with the same network? Think of the forward process.
# Each given token has its own clock, which rings at the same rate whatever the sentence is. Suppose
# that the clocks of the given tokens never ring at all. That has the same probability for every
# sentence, so to learn it teaches nothing about the rest. But it makes the noisy given tokens equal
# to the clean ones, all the way. Seen backwards:
#
# $$p_0(\text{rest} \mid \text{given}) = \text{law of the rest in the reverse process, given that the given tokens
# show their values and } \textbf{never jump}.$$
#
# Clamping *forbids* their jumps. To *condition* on there being none is more: a run in which a given
# token was likely to jump must count less, since most runs like it would have dropped out. In a
# leap each given token stays with the probability that its own row of `tweedie_probs` says. So
# every run gets a weight,
#
# $$w = \prod_{\text{leaps}}\;\prod_{i \,\in\, \text{given}} P(\text{token } i \text{ stays}) .$$
#
# If the verb so far is *sleep*, then *cat* looks wrong, wants to jump, and the run loses weight. On
# the absorbing graph a visible token never jumps, every weight is 1, and clamping alone is exact:
# one principle explains both graphs.
#
# One leap of the two words shows it, from $\bar\sigma = 0.5$ to $0.4$. How probable is it that
# *cat* stays, beside either verb?

# %% tags=["nbval-check-output"]
for name, pair in pairs.items():
    rows = pair.graph.tweedie_probs(pair.states, pair.scores(0.5), torch.tensor(0.1))  # (n, 2, S)
    stays = rows[showing(pair, cat), 0, 0]  # (S,): one number for each state of the verb
    print(f"{name:9}  cat sleeps: {stays[0]:.3f}   cat sleep: {stays[1]:.3f}")

# %% [markdown]
# With uniform noise *cat sleep* loses 9 % of its weight in this leap, *cat sleeps* less than 3 %.
# Over many leaps this adds up. In the code it is one line more, and a normalisation:

# %%
def weighted_law(chain, leaps, given):
    here, free = showing(chain, given), given < 0
    p = chain.graph.limit_log_prob(chain.states[here][:, free]).exp().prod(1)
    for rows in leaps:
        stays = rows[here][:, ~free, given[~free]].prod(1)  # that no given token wants to jump
        p = (p * stays) @ together(rows[here][:, free])
        p = p / p.sum()
    return p

# %% [markdown]
# Another idea is known from pictures (further reading). At every step, **replace** the given tokens
# by noisy versions of themselves, as noisy as the rest. Then the network sees sentences of the kind
# that it was trained on. It sounds more careful than clamping. Is it?

# %%
def replaced_law(chain, leaps, schedule, given):
    free, g = given < 0, chain.graph
    times = torch.linspace(1, 1e-5, len(leaps), dtype=torch.float64)
    levels = torch.cat([schedule.total(times), torch.zeros(1, dtype=torch.float64)])
    noisy = [g.transition_probs(given[~free], level) for level in levels]  # (k, S) each
    first = torch.zeros(1, chain.length, g.num_states, dtype=torch.float64)
    first[:, free] = g.limit_log_prob(torch.arange(g.num_states)).exp()
    first[:, ~free] = noisy[0]
    p = together(first)[0]
    for rows, target in zip(leaps, noisy[1:]):
        rows = rows.clone()
        rows[:, ~free] = target  # drawn afresh, from the clean tokens
        p = p @ together(rows)
    return p[showing(chain, given)]

# %%
methods = {
    "clamped": lambda chain, run, schedule, c: clamped_law(chain, run, c),
    "replaced": lambda chain, run, schedule, c: replaced_law(chain, run, schedule, c),
    "weighted": lambda chain, run, schedule, c: weighted_law(chain, run, c),
}
mean_tv, some = {}, choices[::3]
for name, method, K in product(chains, methods, steps[1:]):
    chain, arguments = chains[name][0], (leaps[name, K][0], schedules[name])
    laws = [(methods[method](chain, *arguments, c), conditional_law(chain, c)) for c in some]
    mean_tv[name, method, K] = sum(total_variation(*pair) for pair in laws) / len(laws)

# %% tags=["nbval-check-output"]
print("mean TV, first world, 12 of 36 choices")
print(f"{'K =':25}       8      32     128")
for name, method in product(chains, methods):
    errors = [mean_tv[name, method, K] for K in steps[1:]]
    print(f"{name:9} {method:16}", *(f"{e:7.3f}" for e in errors))
assert mean_tv["uniform", "weighted", 128] < 0.3 * mean_tv["uniform", "weighted", 32]
assert abs(mean_tv["absorbing", "weighted", 32] - mean_tv["absorbing", "clamped", 32]) < 1e-9
assert mean_tv["uniform", "replaced", 128] > mean_tv["uniform", "clamped", 128]

# %% [markdown]
# Weights make uniform noise exact: the error falls like $1/K$. Replacing is even worse than
# clamping here, and it spoils the absorbing graph too: while a given token is masked, the others
# are drawn without knowing it, and what is visible can never be taken back.
#
# In practice one draws many fillings at once, multiplies up the weight of each along the way, and
# at the end picks one with probability proportional to its weight. Section 6 does it with a
# network. The price is that the network has to answer for the given positions as well. The
# library's `sample` does not weigh: for uniform noise it clamps, and its documentation says that
# this is a heuristic.

# %% [markdown]
# ## 5. The library
#
# `sample(..., clamp=given)` is what we have pushed through exactly. Does it draw from that law? We
# compare 20 000 fillings with `clamped_law`, for four patterns on both graphs, by a $\chi^2$ test.
# $\chi^2$ is the sum of squared deviations of the counts, each divided by its expectation, and the
# p-value is the chance of a sum this large or larger if the laws agree. If they do, p-values are
# spread evenly between 0 and 1; if they do not, 20 000 fillings make them tiny. We would sound an
# alarm below $10^{-4}$: with eight tests, a false alarm in one of 1250 seeds.

# %%
def p_value(counts, law):
    expected = counts.sum() * law
    chi2 = ((counts - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor((len(law) - 1) / 2).double(), chi2 / 2).item()


lowest, generator = 1.0, torch.Generator().manual_seed(0)
for name, c in product(chains, ([0, -1, -1], [-1, -1, 2], [1, -1, 0], [-1, 2, -1])):
    chain, c = chains[name][2], torch.tensor(c)
    x = sample(chain.log_score, chain.graph, schedules[name], (20_000, 3), 8, clamp=c,
               generator=generator)  # fmt: skip
    counts = 20_000 * chain.histogram(x).flatten()[showing(chain, c)]
    law = clamped_law(chain, leap_rows(chain, schedules[name], 8), c)
    assert counts.sum() == 20_000  # every filling shows the given tokens
    possible = law > 1e-9  # a free token never ends as MASK
    assert counts[~possible].sum() == 0
    lowest = min(lowest, p_value(counts[possible], law[possible]))
print(f"lowest of eight p-values: {lowest:.2f}")
assert lowest > 1e-4

# %% [markdown]
# ## 6. Prefix, suffix, both, scattered
#
# Now sentences. The synthetic language of chapter 05 has 40 words, and it is a hidden Markov chain,
# so exact answers need no enumeration. Its blocks have 32 words. We take eight of them out, in four
# patterns:

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language, L = SyntheticLanguage(), 32
V, place = language.vocab_size, torch.arange(L)
patterns = {  # True at the gaps
    "prefix given": place >= 24,
    "suffix given": place < 8,
    "both given": (place >= 12) & (place < 20),
    "scattered": place % 4 == 2,
}
x0 = language.sample(384, L, torch.Generator().manual_seed(0))  # (384, 32)
words = language.tokenizer()

# %% tags=["nbval-check-output"]
for name, free in patterns.items():
    masked = torch.where(free, V, x0[5])
    print(f"{name:13}", words.decode(masked.tolist()))

# %% [markdown]
# **How hard are the gaps?** A perfect model of the language pays
# $-\log p(\text{gap} \mid \text{given})$, and `log_prob` knows it: with the argument `known`, it
# gives the probability of some of the tokens, whatever the others are. A perfect *left-to-right*
# model also knows the language, but it predicts each missing word from those to the left of it.
# What it pays more is the **information that it cannot see**. We count in bits for each missing
# word.

# %%
def bits(nats, free):
    return nats / (free.sum() * math.log(2))


def surprise(x, known, given):
    """−log p(x at `known` | x at `given`), in nats a block; (L,) bool, `known` includes `given`."""
    known, given = known.expand(x.shape), given.expand(x.shape)
    return language.log_prob(x, given) - language.log_prob(x, known)


hard, unseen = {}, {}
for name, free in patterns.items():
    everything = torch.ones(L, dtype=torch.bool)
    perfect = surprise(x0, everything, ~free)
    one_sided = sum(surprise(x0, place <= i, place < i) for i in place[free])
    hard[name] = bits(perfect, free).mean().item()
    unseen[name] = bits(one_sided - perfect, free)  # (384,)

# %% tags=["nbval-check-output"]
for name in patterns:
    print(f"{name:13} {hard[name]:.1f} bits a word; from the left alone "
          f"{unseen[name].mean():.1f} more")  # fmt: skip

# %% [markdown]
# With only a prefix there is nothing to see on the right. In all other patterns a left-to-right
# model, though perfect, lacks between four and eight tenths of a bit for every word. That is the
# room that infilling has.
#
# **The right ratios, exactly.** To measure what a network does with it, we need the true ratios of
# 32 words. In chapter 08 `posterior` gave them for absorbing noise. Noise of either kind acts on
# each word alone, so the noisy language is a hidden Markov chain too: the same hidden states, with
# other chances to show a word. Hence one forward–backward pass gives, for every position, the law
# of the hidden state given what is seen at all *other* positions.

# %%
def hidden_from_others(seen):
    """seen (B, L, H): p(what stands at i | hidden state) → p(state at i | all other places)."""
    T, links = language.transition, range(seen.shape[1] - 1)
    before = [language.stationary.expand(len(seen), -1)]
    after = [torch.ones_like(before[0])]
    for i in links:
        message = (before[-1] * seen[:, i]) @ T
        before.append(message / message.sum(-1, keepdim=True))
    for i in reversed(links):
        message = (after[0] * seen[:, i + 1]) @ T.T
        after.insert(0, message / message.sum(-1, keepdim=True))
    both = torch.stack(before, 1) * torch.stack(after, 1)
    return both / both.sum(-1, keepdim=True)  # (B, L, H)

# %% [markdown]
# A word at noise level $\bar\sigma$ is clean with probability $e^{-\bar\sigma}$. The switch `clean`
# says at which positions we *know* that it is clean. With it we get the right ratios, of
# $p_t(\text{rest}_t \mid \text{given}_0)$. Without it, we get the ratios that a perfectly trained
# network gives, and the clamped sampler uses. On the absorbing graph it changes nothing, as section
# 3 has shown.

# %%
def exact_model(graph, clean=None):
    """The language's own log-scores as a model(x, sigma, at); clean (L,) bool."""
    absorbing = graph.mask_id is not None

    def model(x, sigma, at):
        stay = torch.exp(-sigma.double())[:, None, None].expand(*x.shape, 1)  # (B, L, 1)
        known = stay if clean is None else torch.where(clean[:, None], 1.0, stay)
        shown = language.emission.T[x.clamp(max=V - 1)]  # (B, L, H)
        if absorbing:
            seen = torch.where((x == V)[..., None], 1.0, shown)
        else:
            seen = known * shown + (1 - known) / V
        word = (hidden_from_others(seen) @ language.emission)[at]  # (M, V): the clean word
        stay = stay[at]
        if absorbing:
            return torch.nn.functional.pad((word * stay / (1 - stay)).log(), (0, 1))
        p = (stay * word + (1 - stay) / V).log()  # the noisy word
        return p - p.gather(-1, x[at][:, None])

    return model

# %% [markdown]
# Is it exact? For absorbing noise the library's `posterior` must agree. For uniform noise we build
# the noisy language itself, as a hidden Markov chain, and compare the probabilities of whole blocks
# that differ in their eleventh word. For `clean` we let that word be the only noisy one. Then it
# shows $y$ either because it is clean and is $y$, or because it was replaced.

# %%
from sedd_mini.text.synthetic import HiddenMarkovChain

graphs = {"absorbing": AbsorbingGraph(V), "uniform": UniformGraph(V)}
level, everywhere = torch.full((4,), 0.7, dtype=torch.float64), torch.ones(4, L, dtype=torch.bool)
x = graphs["absorbing"].sample_transition(x0[:4], level[:, None], torch.Generator().manual_seed(0))
score = exact_model(graphs["absorbing"])(x, level, everywhere).exp().view(4, L, V + 1)
hidden = x == V
posterior = language.posterior(x.clamp(max=V - 1), ~hidden)
assert torch.allclose(score[..., :V][hidden] * math.expm1(0.7), posterior[hidden])

# %%
stay = math.exp(-0.7)
noisy = HiddenMarkovChain(language.transition, stay * language.emission + (1 - stay) / V)
x = graphs["uniform"].sample_transition(x0[:4], level[:, None], torch.Generator().manual_seed(0))
log_score = exact_model(graphs["uniform"])(x, level, everywhere).view(4, L, V)
for y in range(V):
    changed = x.clone()
    changed[:, 10] = y
    assert torch.allclose(log_score[:, 10, y], noisy.log_prob(changed) - noisy.log_prob(x))

# %%
alone, x = place == 10, x0[:4]
posterior = language.posterior(x, (~alone).expand(4, L))[:, 10]  # (4, V)
expected = (stay * posterior + (1 - stay) / V).log()
found = exact_model(graphs["uniform"], clean=~alone)(x, level, alone.expand(4, L))  # (4, V)
assert torch.allclose(found, expected - expected.gather(1, x[:, 10:11]))

# %% [markdown]
# **The error, in bits.** Chapter 04 measured how far the path law of one reverse chain is from that
# of another: by $D(r, s) = s - r \log s + K(r)$, the score entropy of the right ratio $r$ and the
# ratio $s$ that is used, times the rate, summed over all jumps and integrated over the noise. Here
# the chain is that of the free tokens. So
#
# $$\mathrm{KL}\big(p_0(\text{rest}\mid\text{given})\,\big\|\,\text{clamped sampler}\big) \;\le\;
# \int_0^{\bar\sigma(1)} \mathbb E \sum_{i\,\in\,\text{free}}\;\sum_{y \ne x_i} Q(x_i, y)\, D(r_{i,y}, s_{i,y})\; d\bar\sigma ,$$
#
# plus the prior term of chapter 04, for the sampler in continuous time, where $x$ is a text with
# noise on the free tokens only. (The prior term is small: below $10^{-15}$ bits a word here for
# uniform noise, and 0.005 for absorbing.) It is an upper bound, since paths tell more than ends. On
# the small worlds both sides are known. The pair first: how loose is it there?

# %%
from sedd_mini.worlds.ctmc import log_quadrature
from sedd_mini.losses import score_entropy_terms

pair, bound = pairs["uniform"], 0.0
small = smaller_world(pair, cat)
for level, weight in zip(*log_quadrature(1e-9, 20.0, 200)):
    used = pair.scores(level)[showing(pair, cat), 1]  # (2, 2)
    D = score_entropy_terms(used.log(), small.scores(level)[:, 0]) / 2  # the rates are 1/N
    bound += weight * (small.marginal(level) @ D.sum(-1)).item()
law = clamped_law(pair, leap_rows(pair, GeometricNoise(), 512), cat)
kl = (after_cat * (after_cat / law).log()).sum().item()

# %% tags=["nbval-check-output"]
print(f"given cat: KL {kl / math.log(2):.3f} bits, bound {bound / math.log(2):.3f} bits, "
      f"{bound / kl:.1f} times as large")  # fmt: skip
assert 1.5 < bound / kl < 1.8

# %% [markdown]
# The bound is of the right size, and larger by more than a half. It never flatters a sampler, but
# it can be too strict. (The grey bars below need no bound: a left-to-right model has no hidden
# paths.) On the language we estimate the right-hand side by drawing texts and noise levels.
# `sample_sigma` is the library's way to draw levels from the whole range, with the weights that
# make it an integral.

# %%
from sedd_mini.evaluate import sample_sigma, times


@torch.no_grad()
def gap_error(model, graph, schedule, free):
    """The bound above in bits a missing word, for each text of x0."""
    generator = torch.Generator().manual_seed(1)
    sigma, weight = sample_sigma(schedule, times(len(x0), generator), eps=1e-3)
    noisy = graph.sample_transition(x0, sigma[:, None], generator)
    x, at = torch.where(free, noisy, x0), free.expand(x0.shape)
    used = model(x, sigma.float(), at=at).double()  # (M, S)
    right = exact_model(graph, clean=~free)(x, sigma, at)
    D = graph.rates_into(x[at]) * score_entropy_terms(used, right.exp())
    return bits(weight * D.sum(-1).view(len(x0), -1).sum(1), free)

# %%
nets = {
    "absorbing": load_pretrained("checkpoints/synthetic-absorb"),
    "uniform": load_pretrained("checkpoints/synthetic-uniform"),
}
runs = {
    "uniform, exact ratios": (exact_model(graphs["uniform"]), graphs["uniform"], GeometricNoise()),
    "uniform, network": nets["uniform"],
    "absorbing, network": nets["absorbing"],
}

in_bits = {}
for name, free in patterns.items():
    in_bits["left to right, perfect", name] = unseen[name]
    for run, (model, graph, schedule) in runs.items():
        in_bits[run, name] = gap_error(model, graph, schedule, free)

# %%
exact_absorbing = exact_model(graphs["absorbing"])
none = gap_error(exact_absorbing, graphs["absorbing"], LogLinearNoise(), patterns["scattered"])
assert none.abs().max() < 1e-9  # clamping with exact absorbing ratios: none along the way
for (_, graph, schedule), most in zip(nets.values(), (0.0054, 1e-15)):
    assert graph.prior_kl(schedule.total(1.0).double()) / math.log(2) < most  # bits a word

# %%
fig, ax = plots.plt.subplots(figsize=(9, 3.8))
bars = ["left to right, perfect", *runs]
colours = [plots.GREY, "#f0b27d", plots.ORANGE, plots.BLUE]
for j, (bar, colour) in enumerate(zip(bars, colours)):
    values = torch.stack([in_bits[bar, name] for name in patterns])  # (4, B)
    error = values.std(1) / math.sqrt(values.shape[1])
    spots = torch.arange(4) + 0.2 * (j - 1.5)
    ax.bar(spots, values.mean(1), 0.18, yerr=error, color=colour, label=bar, ecolor="#444444")
ax.set_xticks(range(4), patterns)
ax.grid(axis="x", visible=False)
ax.set(ylabel="bits a missing word", title="How far each filling is from the truth, at most")
ax.legend();

# %% [markdown]
# *What to see.* Grey is what even a perfect left-to-right model cannot know. Blue, the absorbing
# network, is at about a hundredth of a bit in every pattern: it really uses the right side. Light
# orange is the price of clamping with uniform noise if the ratios were exact: real, but a few
# hundredths of a bit a word, where the pair of section 1 paid 0.06 for one word. (Perhaps because
# 24 given words vouch for each other, and are believed earlier.) Dark orange adds what the uniform
# network has not learned. (Thin lines: one standard error.)

# %%
mean = {key: value.mean().item() for key, value in in_bits.items()}
for name in patterns:
    assert mean["absorbing, network", name] < 0.025
    assert 0.005 < mean["uniform, exact ratios", name] < mean["uniform, network", name]
    assert mean["uniform, exact ratios", name] < 0.08 and mean["uniform, network", name] < 0.15
    if name != "prefix given":
        assert mean["left to right, perfect", name] > 3 * mean["absorbing, network", name]

# %% [markdown]
# ### One sentence
#
# Bits are abstract. Here is a gap that only its right side can fill: *▁ ▁ near a river sing
# quietly*. The verb, four words later, decides that the noun must be plural, whatever stands in
# between. Two sentences before it and two after it are given as well.

# %%
before = "some old dogs sleep again . every bird sees a cat . "
after = " . many children follow this dog . a small cat sleeps quietly ."
given = template(words, text=before + "____ ____ near a river sing quietly" + after)  # (32,)
known, noun = (given >= 0)[None], 13
plural = torch.tensor([w in ("cats", "dogs", "birds", "children") for w in words.words])


def share_plural(known):
    return language.posterior(given.clamp(min=0)[None], known)[0, noun, plural].sum().item()


exact_share = share_plural(known)

# %% tags=["nbval-check-output"]
print(f"P(plural noun): from the left {share_plural(known & (place < noun)):.2f}, "
      f"from both sides {exact_share:.2f}")  # fmt: skip
assert len(given) == L

# %% [markdown]
# (From the left alone the word may also be an adjective, hence less than a half.) Now the samplers,
# and the weights of section 4 on a network. The library has the two pieces of a leap:
# `move_weights` says how probable a move is and where it would go, `draw_moves` draws it. All that
# we add is to keep the probability that the given words stay. We start at $\bar\sigma=8$, where
# hardly anything is left of the text, and go down in equal factors. Unequal weights waste fillings.
# How many are left is told by the **effective sample size**, $1/\sum w^2$ for weights $w$ that sum
# to 1: the number of fillings if all weights are equal, and 1 if one of them has all the weight.

# %%
from sedd_mini.samplers import draw_moves, move_weights


@torch.no_grad()
def fill_with_weights(model, graph, given, num, K, generator):
    """num fillings (num, L) of the same gaps, and the logarithms of their weights (num,)."""
    given, log_w = given.expand(num, -1), torch.zeros(num, dtype=torch.float64)
    free, everywhere = given < 0, torch.ones(given.shape, dtype=torch.bool)
    x = torch.where(free, graph.sample_limit(given.shape, generator=generator), given)
    levels = torch.logspace(math.log10(8), -3, K, dtype=torch.float64).tolist()
    for high, low in pairwise([*levels, 0.0]):
        log_score = model(x, torch.full((num,), high), at=everywhere)  # (num L, S)
        moves, p_move = move_weights(graph, x.flatten(), log_score, high - low, "tweedie")
        stays = torch.log1p(-p_move.view(x.shape))
        log_w = log_w + torch.where(free, 0, stays).sum(1)
        u = torch.rand(2, x.numel(), generator=generator, dtype=torch.float64)
        x = torch.where(free, draw_moves(x.flatten(), moves, p_move, *u).view(x.shape), given)
    return x, log_w

# %%
generator = torch.Generator().manual_seed(0)
x = sample(*nets["absorbing"], (192, L), 24, clamp=given, generator=generator)
found = {"absorbing network, clamped": plural[x[:, noun]].double().mean().item()}
setups = {"uniform, exact ratios": (runs["uniform, exact ratios"][0], 1000),
          "uniform network": (nets["uniform"][0], 192)}  # fmt: skip
for name, (model, num) in setups.items():
    x, log_w = fill_with_weights(model, graphs["uniform"], given, num, 24, generator)
    w, hit = log_w.softmax(0), plural[x[:, noun]].double()
    found[f"{name}, clamped"] = hit.mean().item()
    found[f"{name}, weighted"] = (w @ hit).item()
    print(f"{name}: {num} fillings are worth {1 / (w**2).sum():.0f} with equal weights")

# %%
for name, share in found.items():
    print(f"{name:33} P(plural noun) = {share:.2f}")
exact_uniform = [found[f"uniform, exact ratios, {how}"] for how in ("clamped", "weighted")]
assert abs(exact_uniform[1] - exact_share) < 0.02 < exact_share - exact_uniform[0]
assert found["absorbing network, clamped"] > 0.85
assert found["uniform network, weighted"] > found["uniform network, clamped"]
times_as_often = (1 - exact_uniform[0]) / (1 - exact_share)
print(f"clamped, exact ratios: no plural noun, {times_as_often:.1f} times as often as in the truth")
assert 4 < times_as_often < 8

# %% [markdown]
# Even with exact ratios the clamped uniform sampler misses a plural noun five or six times too
# often. It starts to choose while the verb is not yet believed. Weights repair it, for exact ratios
# and for the network, and most of the fillings stay useful.

# %% [markdown]
# ## 7. What goes wrong with few steps
#
# Chapter 08 has shown that words which appear in the same leap do not know of each other. With
# absorbing noise each masked word picks one of the $K$ leaps at random. For two missing words the
# law is therefore a mixture, now with everything *given the rest of the text*:
#
# $$\text{law of } K \text{ leaps} = \Big(1-\frac1K\Big)\,p(\text{gap}\mid\text{given}) + \frac1K\,p(\text{first}\mid\text{given})\,p(\text{second}\mid\text{given}).$$

# %%
def product_law(chain, given):
    """p(first | given) p(second | given) for two gaps, over the states that show the given."""
    joint = conditional_law(chain, given).reshape(chain.num_states, chain.num_states)
    return (joint.sum(1, keepdim=True) * joint.sum(0)).flatten()


for K in (2, 8, 32):
    for chain, run in zip(chains["absorbing"], leaps["absorbing", K]):
        for c in choices[(choices < 0).sum(1) == 2]:
            mixture = (1 - 1 / K) * conditional_law(chain, c) + product_law(chain, c) / K
            assert torch.allclose(clamped_law(chain, run, c), mixture, atol=1e-4)

# %% [markdown]
# In words: with probability $1 - 1/K$ the two come in different leaps, the second sees the first,
# and all is well. Otherwise each is drawn as if the other were still unknown. So the error of one
# leap is the distance between a joint law and the product of its parts: the **total correlation**
# of the gap, given the rest. It is a property of the text and the pattern, not of the network. On
# the language we can compute what $K$ leaps cost in each pattern: let each missing word pick its
# leap, then pay for it given all words of earlier leaps, and compare with what a perfect model
# pays. (As in chapter 04 this bounds the divergence, since the choice of leaps counts as part of
# the path. For $K=1$ it is exact, and is the total correlation.)

# %%
def cost_of_leaps(x, free, K, generator):
    """KL of the K-leap law with exact ratios, at most, in bits a missing word, mean over x."""
    leap, nats = torch.randint(K, x.shape, generator=generator), 0.0
    for k in range(K):
        at, known = free & (leap == k), ~free | (leap < k)
        p = language.posterior(x, known).gather(-1, x[..., None])[..., 0]  # (B, L)
        nats = nats - torch.where(at, p.log(), 0.0).sum(1)
    perfect = surprise(x, torch.ones(L, dtype=torch.bool), ~free)
    return bits(nats - perfect, free).mean().item()


generator, leap_counts = torch.Generator().manual_seed(0), [1, 2, 4, 8, 16]
cost = {
    name: [cost_of_leaps(x0[:192], free, K, generator) for K in leap_counts]
    for name, free in patterns.items()
}

# %% [markdown]
# And one thing to count: the sentence from above with its verb removed as well,
# `____ ____ near a river ____ quietly`. Now either number is possible, but the three words must
# agree. What is the true share of agreement, slips included? `AGREEING` holds the language's pairs
# of singular and plural words, by their kind. We list all fillings that agree.

# %%
from sedd_mini.text.synthetic import AGREEING

given = template(words, text=before + "____ ____ near a river ____ quietly" + after)
gap = given < 0
slots = [AGREEING["det"], AGREEING["actor"], AGREEING["rests"] + AGREEING["acts"]]
fitting = torch.tensor([
    words.encode(" ".join(three))
    for number in (0, 1)
    for three in product(*[[pair[number] for pair in slot] for slot in slots])
])  # (120, 3): determiner, noun and verb of one number  # fmt: skip


def agreement(x):
    """The share of texts (B, L) whose three words agree."""
    return (x[:, None, gap] == fitting).all(-1).any(-1).double().mean().item()


texts = given.repeat(len(fitting), 1)
texts[:, gap] = fitting
true_share = torch.exp(-surprise(texts, torch.ones(L, dtype=torch.bool), ~gap)).sum().item()

# %%
by_exact, by_net, exact = {}, {}, (exact_model(graphs["absorbing"]), *nets["absorbing"][1:])
for K in (1, 2, 4, 8, 16, 64):
    g = torch.Generator().manual_seed(K)
    by_exact[K] = agreement(sample(*exact, (800, L), K, clamp=given, generator=g))
for K in (1, 2, 8):
    g = torch.Generator().manual_seed(K)
    x = sample(*nets["absorbing"], (192, L), K, clamp=given, generator=g)
    by_net[K] = agreement(x)
    print(f"K = {K}:", " | ".join(words.decode(row) for row in x[:3, 12:19].tolist()))

# %%
fig, (left, right) = plots.plt.subplots(1, 2, figsize=(10, 3.7))
for (name, values), marker in zip(cost.items(), "os^D"):
    left.plot(leap_counts, values, f"{marker}-", label=name)
right.axhline(true_share, color="#444444", lw=1)
right.text(1, true_share + 0.02, "true text", color="#444444")
right.plot(list(by_exact), list(by_exact.values()), "o-", label="exact ratios")
right.plot(list(by_net), list(by_net.values()), "s", label="network (192 texts: ± 0.03)", ms=8)
left.set(title="What few leaps cost", ylabel="bits a missing word, at most")
right.set(title="Share of sentences whose words agree", ylim=(0, 1.08))
for ax, ticks in ((left, leap_counts), (right, list(by_exact))):
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, ticks)
    ax.set(xlabel="leaps K")
    ax.legend(loc="upper right" if ax is left else "lower right");

# %% [markdown]
# *What to see.* Left: a long gap needs many leaps, whichever side is given, for its words have a
# lot to say to each other. Scattered gaps cost nothing, even with one leap: their neighbours are
# all known, and given those they are nearly independent. Right: with one leap a quarter of the
# sentences agree, as three coins would; each doubling of $K$ about halves what is missing. The true
# line is below 1, since the language makes slips.

# %%
assert abs(by_exact[1] - 0.25) < 0.06 and abs(by_exact[64] - true_share) < 0.04
assert cost["prefix given"][0] > 1 and cost["scattered"][0] < 0.02
for name in list(patterns)[:3]:
    assert 1.6 < cost[name][-2] / cost[name][-1] < 2.4  # twice the leaps, half the cost
assert by_net[8] > by_net[1] + 0.4

# %% [markdown]
# And uniform noise? It starts from pure noise, and there the given words count as noise too. So a
# single leap fills the gap as if nothing at all were given. With more leaps it catches up, since
# words that do not agree may change once more:

# %%
for K in (1, 8, 64):
    x = sample(*runs["uniform, exact ratios"], (800, L), K, clamp=given,
               generator=torch.Generator().manual_seed(K))  # fmt: skip
    print(f"uniform, exact ratios, K = {K:2}: {100 * agreement(x):2.0f} % agree")
    assert K > 1 or agreement(x) < 0.05

# %% [markdown]
# ## 8. Python's documentation
#
# Now the passage of the first picture. Nobody knows its true probabilities, but we can ask the
# network twice for each token: with all others visible, and with only those on the left, everything
# to the right of it being masked. On the absorbing graph the answer is a row of log-scores, whose
# softmax is the probability of each token. (Any noise level would do for exact ratios; we ask at
# 1.)

# %%
@torch.no_grad()
def bits_of_tokens(ids, only_left):
    """−log2 p(token) for each of the tokens ids (L,), each with its own view of the others."""
    n = len(ids)
    hide = torch.ones(n, n).triu() if only_left else torch.eye(n)  # row i: what hides for token i
    x = torch.where(hide.bool(), docs_graph.mask_id, ids)  # (L, L)
    log_score = docs_net(x, torch.ones(n), at=torch.eye(n).bool())[:, :-1].double()  # (L, N)
    return -log_score.log_softmax(-1).gather(1, ids[:, None])[:, 0] / math.log(2)


from_left, from_both = bits_of_tokens(original, True), bits_of_tokens(original, False)
print(f"bits a token: {from_left.mean():.2f} from the left, {from_both.mean():.2f} from both sides")
assert 1.5 < from_left.mean() - from_both.mean() < 2

# %%
fig, ax = plots.plt.subplots(figsize=(10, 3.4))
spots = torch.arange(n)
pieces = [docs_tok.decode([i]).replace(" ", "␣") for i in original[:n].tolist()]
ax.bar(spots - 0.2, from_left[:n], 0.38, color=plots.GREY, label="seeing the left side only")
ax.bar(spots + 0.2, from_both[:n], 0.38, color=plots.BLUE, label="seeing both sides")
ax.set_xticks(spots, pieces, rotation=60, ha="right", family="monospace")
ax.grid(axis="x", visible=False)
ax.set(ylabel="bits of surprise", title="What one token costs the network")
ax.legend();

# %% [markdown]
# *What to see.* Short bars are tokens that the network expects. The right side helps nearly
# everywhere, and most where the left side leaves everything open, as at the opening quotation mark
# and *ValueError* after it. Only the second *list* it then expects still less. (The tokens are
# words and pieces of words, chapter 05; ␣ is a space.) A fair warning: this is one network that was
# trained to use both sides. A network of this size that only ever saw the left side would use it
# better.
#
# **Four patterns.** We mask twelve tokens in each of the patterns of section 6, fill them eight
# times, and count how many tokens come back as they were.

# %%
place = torch.arange(len(original))
docs_patterns = {  # True at the gaps
    "prefix given": place >= len(original) - 12,
    "suffix given": place < 12,
    "both given": (place >= 34) & (place < 46),
    "scattered": (place % 6 == 3) & (place < 72),
}
back = {}
for name, free in docs_patterns.items():
    assert free.sum() == 12
    x = sample(docs_net, docs_graph, docs_noise, (8, len(original)), 24,
               clamp=torch.where(free, -1, original),
               generator=torch.Generator().manual_seed(0))  # fmt: skip
    back[name] = (x == original)[:, free].double().mean().item()
    print(f"{name:13} {100 * back[name]:2.0f} % of the tokens as they were")
assert back["scattered"] > 0.5 and back["scattered"] > 2 * max(back[p] for p in list(back)[:3])

# %% [markdown]
# More than half of the scattered tokens come back as they were; of the phrases of twelve tokens
# hardly any. That by itself is no failure: many phrases would fit, and a sample is one of them.
# What do they look like? Here is the middle, filled with 1, 2, 8 and 64 leaps. The gap begins after
# *function of* and ends before *list*.

# %%
print("original:", docs_tok.decode(original[28:52].tolist()).replace("\n", " "))
for K in (1, 2, 8, 64):
    x = sample(docs_net, docs_graph, docs_noise, (1, len(original)), K,
               clamp=torch.where(docs_patterns["both given"], -1, original),
               generator=torch.Generator().manual_seed(0))  # fmt: skip
    print(f"K = {K:2}:  ", docs_tok.decode(x[0, 28:52].tolist()).replace("\n", " "))

# %% [markdown]
# With one leap each token was drawn as if the other gaps were still empty: *as the first defaults
# is strings the*. With more leaps words take their neighbours into account. (One filling each
# proves little, and other seeds look no better; what section 7 counted does.) But even the last one
# does not fit the *list* after it. A network of three million weights, after an hour of training,
# knows which kind of word stands where, and little about what Python does.
#
# **Gaps by hand.** `template` reads a text in which runs of underscores mark what is missing. It
# encodes the text between them and puts −1 for each missing token; the result is what `sample`
# takes as `clamp`. A gap gets half as many tokens as underscores (in the language of words above, a
# gap is one word), or `gap=` tokens, if that is given. Here each gap is one token. Five seeds, and
# what they put into the five gaps:

# %%
text = (
    "Return the value of *key* in the dictionary.  If *key* is ____ found, return ____.\n"
    'The ____ raises a "KeyError" ____ the key ____ not exist.'
)
given = template(docs_tok, text=text, gap=1)
for seed in range(5):
    x = sample(docs_net, docs_graph, docs_noise, (1, len(given)), 64, clamp=given,
               generator=torch.Generator().manual_seed(seed))  # fmt: skip
    print(seed, [docs_tok.decode([i]) for i in x[0, given < 0].tolist()])

# %% [markdown]
# *not* is found in four of five. For *if*, which a reader would write before *the key*, there are
# *when*, *If* and three words that do not fit. *does*, which *not exist* demands, never comes, but
# mostly *is*. What the sentence is about, *None* or *method*, is a guess.
#
# The same from a terminal, in the folder of this chapter:
#
#     python -m sedd_mini sample --checkpoint checkpoints/docs-absorb --num 4 --text "The ____ statement"
#
# There, `--gap` sets the tokens of a gap, `--prompt` and `--suffix` fix the two ends of a text of
# `--length` tokens, and `--show` lets you watch the text form. From Python, `load` reads the network
# with all that belongs to it. Its `fill` does what we did, with one generator a text: text number
# $i$ of a seed is then the same one however many are asked for.

# %%
from sedd_mini import load
from sedd_mini.samplers import generators

model = load("checkpoints/docs-absorb", "cpu")
(filled,) = model.fill(text, gap=1, steps=64, seed=4)
x = sample(docs_net, docs_graph, docs_noise, (1, len(given)), 64, clamp=given,
           generator=generators(4, 1))  # fmt: skip
assert filled == docs_tok.decode(x[0].tolist())

# %%
def show(texts):
    for filled in texts:
        print("  ", filled.replace("\n", "↵"))


print("scattered")
show(model.fill("The ____ statement ____ an exception.", num=4, steps=64))
print("prompt")
show(model.write(num=4, length=16, steps=64, prompt="Return True if"))
print("suffix")
show(model.write(num=4, length=16, steps=64, suffix=" is raised."))
print("both")
show(model.write(num=4, length=20, steps=64, prompt="Return True if",
                 suffix=", otherwise return False."))  # fmt: skip

# %% [markdown]
# A dozen tokens are little to go by, and such short texts are not what the network was trained on,
# which were blocks of 128 tokens. With more text around, the gaps come out better, as in the
# passage.

# %% [markdown]
# ## 9. What this is, and what it is not
#
# **The length is given.** A gap has as many tokens as we say, and none can be inserted or deleted.
# Whoever does not know the length must try several (exercise 3). A left-to-right model has no such
# problem at the end of a text: it stops when it likes.
#
# **Left-to-right models can be taught.** If a text is cut up before training and the middle put
# last, a left-to-right model learns to fill the middle (further reading). It has to be trained for
# that. Here no training was needed, and any pattern will do.
#
# **What is claimed.** Lou, Meng and Ermon report that SEDD fills and continues text as well as
# GPT-2 with nucleus sampling does, for networks of GPT-2's size on web text, judged by MAUVE. That
# is a score which compares the features that a large language model computes from samples and from
# human text. We have neither such a model nor such a network here, and do not confirm the claim.
# What we can confirm is the principle, exactly, and that small networks follow it where the truth
# is known: the absorbing one to about a hundredth of a bit a word, the uniform one to about a
# tenth.

# %% [markdown]
# ## Summary
#
# 1. A ratio of joint probabilities is a ratio of conditional ones. So the network's output stays as
#    it is: put the given tokens in place, and let only the others move.
# 2. On the absorbing graph a visible token is a clean one. Clamping with exact ratios samples
#    $p_0(\text{rest} \mid \text{given})$, up to the $1/K$ of the leaps.
# 3. On the uniform graph clamping conditions on the *noisy* tokens. The total variation stays
#    between 0 and 0.6 on small worlds, however many leaps one takes. On 32 words the price was
#    below a tenth of a bit a word.
# 4. Weights repair it: multiply up the probability that the given tokens stay. Replacing them by
#    noisy versions does not.
# 5. The right side of a gap is worth four to eight tenths of a bit a word in our language, and
#    nearly two bits a token in documentation. Few leaps cost the total correlation of what they
#    reveal together: long gaps need many, scattered ones hardly any.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it. If the check is silent, you are done.
#
# **1. Backwards** (★☆☆, 5 minutes). Now the verb *sleep* is given. Count the law of the noun by
# hand from the table of section 1, and name it `answer`. Is the clamped uniform sampler better or
# worse here than for *cat*?
#
# ```python
# given = torch.tensor([-1, 1])
# assert torch.allclose(answer, conditional_law(pairs["uniform"], given))
# ```
#
# **2. When is clamping worst?** (★★☆, 15 minutes). Take pairs that disagree with probability $e$,
# otherwise agree, everything symmetric:
# $p_0 = \begin{pmatrix} (1-e)/2 & e/2 \\ e/2 & (1-e)/2 \end{pmatrix}$. At $e = 1/2$ the tokens are
# independent; then clamping is exact on the uniform graph too. Why? As $e \to 0$ it becomes exact
# again. Why? Find the `e` at which the total variation of the clamped sampler with 64 leaps is
# largest.
#
# ```python
# assert 0.08 < e < 0.14
# ```
#
# **3. How long is the gap?** (★★☆, 20 minutes). In *some dogs ▁ river sleep again .* a few words
# are missing before *river*, we do not know how many. The language can tell how probable the given
# words are for each length of the gap: `log_prob` with `known`. Put two sentences around, try 1 to
# 5 words, and name the best number `m`.
#
# ```python
# assert m == 2
# ```
#
# **4. Keep the runs in which nothing jumped** (★★☆, 20 minutes). Section 4 in flesh and blood.
# Start 40 000 uniform pairs whose noun is *cat* at $\bar\sigma = 3$, and take them down to 0 in a
# hundred steps of `pairs["uniform"].tau_leap(x, [high, low])`, with *no* clamping. Keep those whose
# noun was *cat* after every step. What share of them has the verb *sleeps*? What share of all runs
# could you keep, and how does it change if you start at $\bar\sigma = 8$?
#
# ```python
# assert abs(share - after_cat[0]) < 0.02
# ```
#
# **5. An order that knows** (★★★, 30 minutes). In section 7 two leaps reach an agreement of six in
# ten, because the words choose their leaps at random. Fill the three gaps in two rounds of your own
# choice instead, drawing all words of a round at once from `language.posterior`. Which order is
# best, which worst, and what has total correlation to do with it? Let `x` be 2000 fillings.
#
# ```python
# assert agreement(x) > 0.9
# ```

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023. Prompting and infilling by Bayes' rule,
#   and the comparison with GPT-2.
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete
#   State-Spaces*](https://arxiv.org/abs/2107.03006), 2021. Absorbing noise, and its kinship with
#   masked language models.
# - A. Lugmayr and others, [*RePaint: Inpainting using Denoising Diffusion Probabilistic
#   Models*](https://arxiv.org/abs/2201.09865), 2022. Replacing, for pictures, and going back and
#   forth to mend what it spoils.
# - B. Trippe and others, [*Diffusion Probabilistic Modeling of Protein Backbones in 3D for the
#   Motif-Scaffolding Problem*](https://arxiv.org/abs/2206.04119), 2022. Why replacing is not exact,
#   and weights with resampling that are.
# - L. Wu and others, [*Practical and Asymptotically Exact Conditional Sampling in Diffusion
#   Models*](https://arxiv.org/abs/2306.17775), 2023. Weighted samples along the way, in general.
# - M. Bavarian and others, [*Efficient Training of Language Models to Fill in the
#   Middle*](https://arxiv.org/abs/2207.14255), 2022. How left-to-right models learn it.
# - K. Pillutla and others, [*MAUVE: Measuring the Gap Between Neural Text and Human Text using
#   Divergence Frontiers*](https://arxiv.org/abs/2102.01454), 2021. The score of the published
#   comparison.
