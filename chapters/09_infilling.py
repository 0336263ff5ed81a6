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
# # 09. Infilling: can it write around what is already there?
#
# You have the beginning and the end of a sentence, and want the middle. A diffusion model looks at all positions at every step, so it should be enough to hold the known words fixed and to sample the others.
# This chapter shows for which noise that is exact, and how weights make it so for the other.
#
# After this chapter you will be able to
#
# - hold tokens fixed at any positions while a diffusion model writes, and prove when that is exact;
# - measure the error of a filled gap, on small worlds and on a language whose truth is known;
# - say what the words to the right of a gap are worth, and what goes wrong if several words appear in one step.
#
# *You need* chapters 01, 03 and 04, and Tweedie's leap from chapter 08. *Running time:* about a minute on two CPU cores.

# %% [markdown]
# ## The lines of the page
#
# ```python
# given = "some ____ ____ near a river ____ ."
# gap = [MASK if word == "____" else words.encode(word)[0] for word in given.split()]
# print("filled:", *text(write(torch.tensor([gap] * 4))), sep="\n  ")
# ...
#         x = torch.where((x == MASK) & shown, guess, x)
# ```
#
# The page fills gaps: its sampler changes hidden words only, so the given words stay. Does it draw the missing words from $p(\text{missing} \mid \text{given})$? Section 7 rewrites the loop.

# %% [markdown]
# ## A picture first
#
# The network of `checkpoints/docs-absorb` learned from Python's documentation for an hour (chapter 07). We wrote a new passage of that kind and removed five tokens. `template` turns the text into token ids, with −1 at gaps, and `sample` fills them six times.

# %%
import math
from itertools import pairwise, product

import torch
from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, load, plots
from sedd_mini.model import template
from sedd_mini.samplers import sample

plots.use_style()
torch.set_num_threads(1)  # networks as small as ours are fastest on one core
docs = load("checkpoints/docs-absorb", "cpu")
docs_parts = docs.network, docs.graph, docs.noise

# %%
start = 'Return the first item of the list.  If the list is empty, a "ValueError" is raised.'
gaps = 'Return the ____ item of the list.  ____ the list ____ empty____ a "ValueError" is ____.'
rest = """

The optional argument *key* is a function of one argument.  It is called for each item of the list,
and the result is used to compare the items.  If *key* is not given or is "None", the items are
compared directly."""
given = template(docs.tokenizer, text=gaps + rest, gap=1)  # (80,): ids, and −1 at the gaps
fills = sample(*docs_parts, (6, len(given)), steps=32, clamp=given,
               generator=torch.Generator().manual_seed(1))  # fmt: skip

# %% tags=["hide-input"]
#| alt: Six rows of the same two sentences, with five gaps in blue on tinted paper, and below a line
#| the original. In the gaps of If, is and the comma most of six fillings agree with it; in the
#| other two they vary.
original = torch.tensor(docs.tokenizer.encode(start + rest))  # (80,)
n = len(docs.tokenizer.encode(start))
rows = [[docs.tokenizer.decode([i]) for i in row] for row in [*fills.tolist(), original.tolist()]]
title = "Six fillings of five gaps: If, is and the comma come back most often"
labels, free = [*range(1, 7), "original"], (given < 0).tolist()[:n]
plots.show_fillings([row[:n] for row in rows], free, labels, title);

# %% [markdown]
# *What to see.* Each row is one filling, gaps in blue; the paragraph after it is given too. Four of six write *If*, five *is*, four the comma. None finds *first*, and two break the line after *the*. Below the line is the original. *If* costs the network 0.2 bits if it sees both sides, and 2.3 bits from the left alone (laboratory, *English*).
#
# ## 1. Two words, counted
#
# The smallest example has two words. In a hundred sentences we counted
#
# | | *sleeps* | *sleep* |
# |---|---|---|
# | *cat* | 40 | 8 |
# | *cats* | 2 | 50 |
#
# The noun *cat* is given. Which verb follows?

# %% tags=["nbval-check-output"]
counts = torch.tensor([[40.0, 8.0], [2.0, 50.0]], dtype=torch.float64)  # rows: cat, cats
p0 = counts / counts.sum()
after_cat = counts[0] / counts[0].sum()
print(f"given cat: sleeps {after_cat[0]:.3f}, sleep {after_cat[1]:.3f}")

# %% [markdown]
# A diffusion model knows only ratios of *joint* probabilities: how probable is the whole sentence *cat sleep*, compared with *cat sleeps*? Here is this ratio beside the one given *cat*:

# %% tags=["nbval-check-output"]
print(f"joint ratio {p0[0, 1] / p0[0, 0]:.3f}, given cat {after_cat[1] / after_cat[0]:.3f}")

# %% [markdown]
# They are equal. A conditional probability is a joint one divided by $p(\text{given})$, which cancels in a ratio. This is Bayes' rule for ratios. It holds at every noise level $t$, for any tokens $x, y$ at the free positions:
#
# $$\boxed{\;\frac{p_t(y_{\text{free}} \mid \text{given})}{p_t(x_{\text{free}} \mid \text{given})}
# = \frac{p_t(y_{\text{free}},\, \text{given})}{p_t(x_{\text{free}},\, \text{given})}\;}$$
#
# The network has learned the right-hand side where $x$ and $y$ differ in one position, so it stays as it is. We put the given tokens in place, ask for the ratios elsewhere, and never change the given tokens. They are **clamped**.
#
# But $p_t$ is the law of the *noisy* sentence, so "given" means here that the **noisy** sentence shows *cat*. We know that the *clean* sentence has *cat*. Does that make a difference?
#
# ## 2. The clamped sampler, exactly
#
# A run takes $K$ leaps from pure noise, and a last step that removes what noise is left (chapter 08). In each leap a free token is drawn from its row of `tweedie_probs`, computed from the ratios at the present sentence. The noun stays *cat*. We need no random numbers: we multiply the law of the verb by these rows. `Chain`, the oracle of chapter 01, has the exact ratios.

# %%
from sedd_mini.worlds.ctmc import Chain, total_variation

CAT = 0


def leaps(chain, schedule, K):
    """For each leap and the last step: the rows of both tokens, for each verb beside cat."""
    times = torch.linspace(1, 1e-5, K + 1, dtype=torch.float64)
    levels = [*schedule.total(times).tolist(), 0.0]
    for high, low in pairwise(levels):
        rows = chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        yield rows[chain.states[:, 0] == CAT]  # (S, 2, S): verb, token that moves, new value

# %%
def clamped(chain, schedule, K):
    """The law of the verb after K leaps and the last step, with the noun held at cat."""
    p = chain.graph.limit_log_prob(torch.arange(chain.num_states)).exp()  # pure noise, (S,)
    for rows in leaps(chain, schedule, K):
        p = p @ rows[:, 1]
    return p

# %% [markdown]
# *Predict:* the truth is 0.833 for *sleeps*. With many leaps, does the clamped sampler reach it with MASK noise? With uniform noise? (TV is total variation.)

# %% tags=["nbval-check-output"]
pairs = {"MASK": Chain(AbsorbingGraph(2), p0), "uniform": Chain(UniformGraph(2), p0)}
schedules = {"MASK": LogLinearNoise(), "uniform": GeometricNoise()}
print("TV from the truth   K = 4      16      64     256")
for name, pair in pairs.items():
    laws = [clamped(pair, schedules[name], K) for K in (4, 16, 64, 256)]
    print(f"{name:16}", *(f"{total_variation(law[:2], after_cat):7.3f}" for law in laws))
print(f"uniform noise, 256 leaps: sleeps {laws[-1][0]:.3f}, truth {after_cat[0]:.3f}")

# %% [markdown]
# MASK noise gives the truth with any number of leaps: a single free token is one exact draw. Uniform noise stays 0.12 away even with 256 leaps. (The two noises have different schedules. With the log-linear one uniform noise has the same TV at 256 leaps, within 0.01.)
#
# Was the pair unlucky? On the laboratory's random worlds (108 choices of given tokens, 128 leaps) the TV is 0.16 on average with uniform noise, and at most 0.004 with MASK noise, where it falls as $1/K$.

# %% [markdown]
# ## 3. Why MASK noise is exact and uniform noise is not
#
# At noise level $t$ the verb should follow $p_t(\text{verb}_t \mid \text{noun}_0 = \text{cat})$, given the *clean* noun (index 0). The clamped sampler uses the ratios of $p_t(\text{verb}_t \mid \text{noun}_t = \text{cat})$, given the *noisy* noun.

# %% tags=["hide-input"]
#| alt: Three diagrams of clean noun, clean verb, noisy noun and noisy verb, with arrows for noise.
#| What we know: the clean noun is cat. Uniform noise: the noisy noun is cat. MASK noise: both are.
fig = plots.show_conditions({
    "what we know": ["clean noun"],
    "what the ratios of uniform noise assume": ["noisy noun"],
    "what those of MASK noise assume": ["noisy noun", "clean noun"],
})  # fmt: skip
title = "With uniform noise the ratios assume only that the noisy noun is cat"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% [markdown]
# *What to see.* Orange is what is known or assumed. With MASK noise a visible token has not been changed, so a noisy *cat* is a clean *cat*. With uniform noise a noisy *cat* may be a random word, which says nothing about the verb.
#
# **MASK noise.** A given token of the clean sentence is still visible at noise $\bar\sigma$ with probability $e^{-\bar\sigma}$, whatever the other tokens are. With $m$ given tokens,
#
# $$p_t(\text{rest}_t, \text{given}_t) = e^{-m\bar\sigma}\; p_0(\text{given})\; p_t(\text{rest}_t \mid \text{given}_0) .$$
#
# The two factors in front do not depend on the rest and cancel in every ratio. So the sampler's ratios are the right ones, and only the error of the leaps remains (section 7).
#
# **Uniform noise.** The next cell follows the probability of *sleeps* through 512 leaps: under the right condition, under the assumed one, and in the sampler itself.

# %%
pair, K = pairs["uniform"], 512
levels = GeometricNoise().total(torch.linspace(1, 1e-5, K + 1).double())
right = [(pair.kernel(s) @ after_cat)[0].item() for s in levels.tolist()]  # clean noun is cat
shows_cat = [pair.marginal(s)[CAT] for s in levels.tolist()]
assumed = [(verb[0] / verb.sum()).item() for verb in shows_cat]  # noisy noun is cat
p, drawn = torch.full((2,), 0.5, dtype=torch.float64), []
for rows in leaps(pair, GeometricNoise(), K):
    drawn.append(p[0].item())
    p = p @ rows[:, 1]

# %% tags=["hide-input"]
#| alt: Probability of sleeps against the noise, which falls to the right, with an arrow from each
#| name to its line. The blue line rises from 0.5 to 0.83. The others fall slightly below 0.5 first;
#| then the green dashed one rises to the same value, the orange one to 0.71.
fig, ax = plots.plt.subplots(figsize=(8, 3.8))
for curve, colour, style, told, at, place_ in (
    (right, plots.BLUE, "-", "right: the clean noun is cat", 0.5, (18, 0.77)),
    (assumed, plots.GREEN, "--", "assumed: the noisy noun is cat", 0.13, (0.045, 0.757)),
    (drawn, plots.ORANGE, "-", "drawn by the clamped sampler", 0.1, (0.045, 0.615)),
):
    ax.semilogx(levels, curve, style, color=colour)
    spot = (levels - at).abs().argmin().item()
    ax.annotate(told, (at, curve[spot]), place_, color=colour, va="center",
                arrowprops={"arrowstyle": "->", "color": colour})  # fmt: skip
ax.set(xlim=(22, 1e-3), ylim=(0.48, 0.86), ylabel="probability of sleeps")
ax.set_xlabel(r"total noise $\bar\sigma$ (the sampler runs to the right)")
ax.set_title("The clamped sampler follows the wrong condition, and ends at 0.71 instead of 0.83");

# %% [markdown]
# *What to see.* Green and orange fall at first, as *sleeps* is the rarer verb (42 of 100). Green reaches blue when little noise is left. The sampler (orange) ends lower: green also rises by jumps of the noun (*cat sleep* to *cats sleep*), which clamping forbids.
#
# As a control, the next cell takes the same leaps with the right ratios, those for a *clean* noun *cat*. It ends at the truth.

# %%
told_clean = Chain(UniformGraph(2), after_cat)  # a world of one token: the verb after a clean cat
p = torch.full((2,), 0.5, dtype=torch.float64)
for high, low in pairwise([*levels.tolist(), 0.0]):
    rows = told_clean.graph.tweedie_probs(
        told_clean.states, told_clean.scores(high), torch.tensor(high - low)
    )
    p = p @ rows[:, 0]
print(f"with the right ratios: TV {total_variation(p, after_cat):.6f}")

# %% tags=["hide-cell"]
assert total_variation(p, after_cat) < 1e-6
late = levels < 0.01
assert 0 <= drawn[-1] - torch.tensor(drawn)[late][0] < 0.01
assert abs(assumed[-1] - after_cat[0]) < 0.001 and abs(right[-1] - after_cat[0]) < 0.001
for name, pair in pairs.items():
    errors = [total_variation(clamped(pair, schedules[name], K)[:2], after_cat) for K in (4, 256)]
    assert errors[1] < 1e-9 if name == "MASK" else 0.11 < errors[1] < errors[0]
other = clamped(pairs["uniform"], LogLinearNoise(), 256)
assert abs(total_variation(other, after_cat) - errors[1]) < 0.01

# %% [markdown]
# ## 4. A weight makes uniform noise exact
#
# In the forward process every token jumps on its own, at the same rate whatever the sentence is. So the event "no given token ever jumps" has the same probability for every sentence, and conditioning on it leaves the law of the rest unchanged. In this event the noisy given tokens *are* the clean ones, at every noise level. Hence
#
# $$p_0(\text{rest} \mid \text{given}) = \text{law of the rest in the reverse process, given that the given tokens show their values and } \textbf{never jump}.$$
#
# *Conditioning* on no jump would mean: let the given tokens move too, and drop each run in which one jumps. Runs in which a jump is likely then survive less often. Clamping *forbids* the jumps and keeps every run, so each run needs as its weight the probability to survive. The row of a given token holds its probability to stay, so the weight is
#
# $$w = \prod_{\text{leaps}}\;\prod_{i \,\in\, \text{given}} P(\text{token } i \text{ stays}) .$$
#
# How probable is it that *cat* stays in one leap, from $\bar\sigma = 0.5$ to $0.4$, beside either verb?

# %% tags=["nbval-check-output"]
for name, pair in pairs.items():
    rows = pair.graph.tweedie_probs(pair.states, pair.scores(0.5), torch.tensor(0.1))  # (n, 2, S)
    stays = rows[pair.states[:, 0] == CAT, 0, CAT]  # (S,): a number for each verb
    print(f"{name:9} beside sleeps {stays[0]:.3f}, beside sleep {stays[1]:.3f}")

# %% [markdown]
# With uniform noise *cat sleep* loses 9 % of its weight in this leap, *cat sleeps* less than 3 %. With MASK noise a visible token never jumps: every weight is 1, and clamping alone is exact.
#
# The code has one new line and a normalisation:

# %%
def weighted(chain, schedule, K):
    p = chain.graph.limit_log_prob(torch.arange(chain.num_states)).exp()
    for rows in leaps(chain, schedule, K):
        p = p * rows[:, 0, CAT]  # the noun stays
        p = p @ rows[:, 1]
        p = p / p.sum()
    return p

# %% tags=["nbval-check-output"]
print("uniform noise, TV   K = 4      16      64     256")
for how in (clamped, weighted):
    laws = [how(pairs["uniform"], GeometricNoise(), K) for K in (4, 16, 64, 256)]
    print(f"{how.__name__:16}", *(f"{total_variation(law, after_cat):7.3f}" for law in laws))

# %% tags=["hide-cell"]
few, many = (weighted(pairs["uniform"], GeometricNoise(), K) for K in (64, 256))
assert 3 < total_variation(few, after_cat) / total_variation(many, after_cat) < 5
for K in (4, 64):
    a, b = (how(pairs["MASK"], LogLinearNoise(), K) for how in (clamped, weighted))
    assert torch.allclose(a, b)

# %% [markdown]
# With weights the error falls as $1/K$. In practice one draws many fillings with their weights, and picks one with probability proportional to its weight (laboratory, *Weights*). The library's `sample` only clamps. Image models often **replace** the given part by a noisy version before every step; in a world of the laboratory this is worse than clamping (*Replacing*).

# %% [markdown]
# ## 5. What are the words to the right worth?
#
# A **left-to-right model**, such as GPT-2, predicts each word from those before it. What does it lose in a gap? We remove eight words, in four patterns, from blocks of 32 words of the artificial language (chapter 00). It is a hidden Markov chain (chapter 05's laboratory), so exact probabilities are cheap: `log_prob(x, known)` is the log-probability of the known words alone.

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language, L = SyntheticLanguage(), 32
words, V, place = language.tokenizer(), language.vocab_size, torch.arange(L)
patterns = {  # True at the gaps
    "prefix given": place >= 24,
    "suffix given": place < 8,
    "both given": (place >= 12) & (place < 20),
    "scattered": place % 4 == 2,
}
x0 = language.sample(384, L, torch.Generator().manual_seed(0))  # (384, 32)

# %% [markdown]
# A perfect left-to-right model pays $-\log_2 p(\text{word} \mid \text{words before})$ bits for each missing word. The truth needs $-\log_2 p(\text{gaps} \mid \text{given})$ bits. On average the difference is the divergence of the model's fillings from the truth.

# %%
def surprise(x, known, given):
    """−log p(x at `known` | x at `given`), (B,) nats; (L,) bool, `known` includes `given`."""
    known, given = known.expand(x.shape), given.expand(x.shape)
    return language.log_prob(x, given) - language.log_prob(x, known)


def bits(nats, gaps):
    return nats / (gaps.sum() * math.log(2))  # a missing word


everywhere, truth, lacks = torch.ones(L, dtype=torch.bool), {}, {}
for name, gaps in patterns.items():
    truth[name] = bits(surprise(x0, everywhere, ~gaps), gaps)  # (384,)
    from_left = sum(surprise(x0, place <= i, place < i) for i in place[gaps])
    lacks[name] = bits(from_left, gaps) - truth[name]

# %% tags=["hide-input"]
#| alt: Four rows of 32 cells with eight dark gaps each: the last eight, the first eight, eight in
#| the middle, every fourth. At their right: what the truth needs, and what the left side lacks.
notes = {name: f"{truth[name].mean():.2f} + {lacks[name].mean():.2f}" for name in patterns}
rows = {name: gaps.tolist() for name, gaps in patterns.items()}
fig = plots.show_gap_patterns(rows, notes, "truth + loss")
title = "A perfect left-to-right model loses 0.4 to 0.8 bits a word if words stand to the right"
fig.axes[0].set_title(title);

# %% [markdown]
# *What to see.* Dark cells are missing words. At the right, in bits a missing word: what the truth needs, plus what a perfect left-to-right model loses.

# %% tags=["hide-cell"]
assert lacks["prefix given"].abs().max() < 1e-9
assert all(0.35 < lacks[name].mean() < 0.95 for name in list(patterns)[1:])

# %% [markdown]
# ### Weights help the left-to-right model too
#
# Draw a gap from the left, and give it the weight $p(\text{suffix} \mid \text{prefix, gap})$, which a left-to-right model also knows. By Bayes' rule the weighted fillings are exact in the limit of many. Take two gaps that only the right side can settle: *____ ____ near a river sing quietly*. The verb *sing* demands a plural noun.

# %%
before = "some old dogs sleep again . every bird sees a cat . "
after = " . many children follow this dog . a small cat sleeps quietly ."
with_verb = template(words, text=before + "____ ____ near a river sing quietly" + after)  # (32,)
noun = 13
plural = torch.tensor([w in ("cats", "dogs", "birds", "children") for w in words.words])

torch.manual_seed(0)
x = with_verb.clamp(min=0).repeat(1000, 1)
for i in (12, 13):  # word by word, from the words before
    x[:, i] = torch.multinomial(language.posterior(x, (place < i).expand(x.shape))[:, i], 1)[:, 0]
w = (-surprise(x, everywhere, place <= noun)).softmax(0)  # p(suffix | prefix, gap), sum 1

# %%
exact = language.posterior(with_verb.clamp(min=0)[None], (with_verb >= 0)[None])[0, noun]  # (40,)
hit = plural[x[:, noun]].double()
print(f"P(plural): from the left {hit.mean():.2f}, weighted {w @ hit:.2f}, "
      f"truth {exact[plural].sum():.2f}")  # fmt: skip
print(f"1000 fillings are worth {1 / (w**2).sum():.0f}")

# %% tags=["hide-cell"]
exact_share = exact[plural].sum().item()
assert abs(w @ hit - exact_share) < 0.03 and hit.mean() < 0.45
assert 250 < 1 / (w**2).sum() < 500

# %% [markdown]
# The last number is the **effective sample size**, $1/\sum w^2$ for weights that sum to 1: 1000 if all are equal, 1 if one filling has all the weight. Let $q$ be the left-to-right law of the gaps and $p$ the true one. Weights are proportional to $p/q$, so the effective size of $n$ draws is about $n / \mathbb E_q[(p/q)^2]$: for one filling from $p$ we need $\mathbb E_q[(p/q)^2] = \mathbb E_p[p/q]$ draws. This is at least $2^{\mathbb E_p \log_2 p/q}$ (Jensen's inequality), and the exponent is the loss above, summed over the eight words:

# %% tags=["nbval-check-output"]
for name in patterns:
    print(f"{name:13} at least {2 ** (8 * lacks[name].mean()):3.0f} draws for one filling")

# %% [markdown]
# Weights *can* do it, but the draws grow at least exponentially with the bits that the model lacks. (Particle filters may need fewer; we did not try.) A diffusion model uses the right side at every step.

# %% [markdown]
# ## 6. How close does a network come?
#
# Two networks have learned this language, one with each noise. Chapter 04 bounds the divergence of two reverse processes by the score entropy $D(r, s)$ of the right ratio $r$ and the ratio $s$ that is used, here at the free tokens:
#
# $$\mathrm{KL}\big(p_0(\text{rest}\mid\text{given})\,\big\|\,\text{clamped sampler}\big) \;\le\;
# \int_0^{\bar\sigma(1)} \mathbb E \sum_{i\,\in\,\text{free}}\;\sum_{y \ne x_i} Q(x_i, y)\, D(r_{i,y}, s_{i,y})\; d\bar\sigma \;+\; \text{prior term}.$$
#
# Only the free tokens are noisy, and $r$ are the ratios given the *clean* words. The prior term is at most 0.0054 bits a word; the error of the leaps is not included. (On the pair of section 2 the bound is 1.6 times the divergence.) `exact_model` (folded; explained in the laboratory) computes exact ratios: with `clean` the ratios $r$, without it those of a perfectly trained network.

# %% tags=["hide-input"]
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

# %% tags=["hide-input"]
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
# `gap_error` estimates the bound at random noise levels. `sample_sigma` draws them, with weights that turn the mean into the integral.

# %%
from sedd_mini.evaluate import sample_sigma, times
from sedd_mini.losses import score_entropy_terms


@torch.no_grad()
def gap_error(model, graph, schedule, gaps):
    """The bound without its prior term, in bits a missing word, for each text of x0: (384,)."""
    generator = torch.Generator().manual_seed(1)
    sigma, weight = sample_sigma(schedule, times(len(x0), generator), eps=1e-3)
    noisy = graph.sample_transition(x0, sigma[:, None], generator)
    x, at = torch.where(gaps, noisy, x0), gaps.expand(x0.shape)
    used = model(x, sigma.float(), at=at).double()  # (M, S)
    if graph.mask_id is None:
        right = exact_model(graph, clean=~gaps)(x, sigma, at)  # (M, S)
    else:  # chapter 07's law of a hidden word, times r
        p = language.posterior(x.clamp(max=V - 1), x != V) / sigma.expm1()[:, None, None]
        right = torch.nn.functional.pad(p[at].log(), (0, 1))
    D = graph.rates_into(x[at]) * score_entropy_terms(used, right.exp())
    return bits(weight * D.sum(-1).view(len(x0), -1).sum(1), gaps)

# %%
from sedd_mini import load_pretrained

mask_parts = load_pretrained("checkpoints/synthetic-absorb")  # network, graph, noise
uniform_parts = load_pretrained("checkpoints/synthetic-uniform")
exact_uniform = exact_model(uniform_parts[1]), *uniform_parts[1:]
exact_mask = exact_model(mask_parts[1]), *mask_parts[1:]
models = {
    "MASK, exact ratios": exact_mask,
    "MASK, network": mask_parts,
    "uniform, exact ratios": exact_uniform,
    "uniform, network": uniform_parts,
}
errors = {"left to right, perfect": lacks}
for name, parts in models.items():
    errors[name] = {which: gap_error(*parts, gaps) for which, gaps in patterns.items()}
mean = {name: [v.mean().item() for v in row.values()] for name, row in errors.items()}

# %% tags=["hide-input"]
#| alt: Four patterns, each with two panels of bars. Above, a perfect left-to-right model: 0, then
#| 0.4 to 0.8 bits. Below, up to 0.15 bits: MASK at 0 and 0.01, uniform noise at 0.02 to 0.11.
colours = [plots.GREY, plots.BLUE, plots.BLUE, "#f0b27d", plots.ORANGE]
scales = "exact", "upper bounds, drawn about 8 times as long as the bars above"
fig = plots.show_bars(mean, list(patterns), colours, 1, scales)
title = "Bits a missing word above the truth, on two scales: the MASK network is at about 0.01"
fig.suptitle(title, x=0.01, ha="left", fontsize=12);

# %% tags=["hide-cell"]
for i in range(len(patterns)):
    assert mean["MASK, network"][i] < 0.025
    assert 0.005 < mean["uniform, exact ratios"][i] < 0.08
    assert mean["uniform, exact ratios"][i] < mean["uniform, network"][i] < 0.15
    if i > 0:
        assert mean["left to right, perfect"][i] > 3 * mean["MASK, network"][i]
assert all(v.abs().max() < 1e-9 for v in errors["MASK, exact ratios"].values())
for name, row in errors.items():
    error = max((v.std() / math.sqrt(len(v))).item() for v in row.values())
    assert error < (0.0035 if name == "MASK, network" else 0.021)
for parts, most in ((mask_parts, 0.0054), (uniform_parts, 1e-15)):
    assert parts[1].prior_kl(parts[2].total(1.0).double()) / math.log(2) < most  # bits a word

# %% [markdown]
# *What to see.* Grey is the loss of section 5 itself. The bars below are upper bounds, drawn about 8 times as long. With exact ratios MASK noise has no error (section 3). The bound of the MASK network is about 0.01 bit in every pattern (below 0.02 with the prior term), far below the grey bars where words stand to the right. So it does use them. Clamping with uniform noise costs at most 0.02 to 0.07 bits with exact ratios (light orange), and 0.06 to 0.11 with the network (orange). Standard errors are at most 0.003 bits for the MASK network, 0.02 for others.
#
# ## 7. Words that appear in the same leap
#
# Words that appear in the same leap do not see each other. With MASK noise two missing words share a leap with probability $1/K$ (chapter 08), so their law is a mixture:
#
# $$\text{law of } K \text{ leaps} = \Big(1-\frac1K\Big)\,p(\text{gap}\mid\text{given}) + \frac1K\,p(\text{first}\mid\text{given})\,p(\text{second}\mid\text{given}).$$
#
# One leap makes them independent. It is better to reveal **one word at a time**, in random order, so that each word sees those before it. With exact probabilities this is exact (chain rule), and takes one evaluation for each missing word. A network's probabilities are the softmax of its log-scores (chapter 06).

# %%
def one_by_one(chances, x):
    """Fill every MASK of x (B, L), one word of each text at a time; chances(x) gives (B, L, V)."""
    for _ in range(int((x == V).sum(1).max())):
        guess = torch.multinomial(chances(x).flatten(0, 1), 1).view_as(x)
        draw = torch.rand(x.shape).masked_fill(x != V, -1)
        shown = draw == draw.max(1, keepdim=True).values
        x = torch.where((x == V) & shown, guess, x)
    return x

# %% [markdown]
# We compare both on *____ ____ near a river ____ quietly*, inside the same block. Singular and plural are both possible. *Predict:* how often do the three words agree after one leap?

# %% tags=["hide-input"]
from sedd_mini.text.synthetic import AGREEING

without_verb = template(words, text=before + "____ ____ near a river ____ quietly" + after)
gap_of_three = without_verb < 0
slots = [AGREEING["det"], AGREEING["actor"], AGREEING["rests"] + AGREEING["acts"]]
fitting = torch.tensor([
    words.encode(" ".join(three))
    for number in (0, 1)
    for three in product(*[[pair[number] for pair in slot] for slot in slots])
])  # (120, 3): determiner, noun and verb of one number  # fmt: skip


def agreement(x):
    """The share of texts (B, L) whose three words agree."""
    return (x[:, None, gap_of_three] == fitting).all(-1).any(-1).double().mean().item()

# %%
texts = without_verb.repeat(len(fitting), 1)
texts[:, gap_of_three] = fitting
true_share = torch.exp(-surprise(texts, everywhere, ~gap_of_three)).sum().item()

by_leaps, leap_numbers = {}, (1, 2, 3, 4, 8, 16, 32)
for K in leap_numbers:
    generator = torch.Generator().manual_seed(K)
    x = sample(*exact_mask, (800, L), K, clamp=without_verb, generator=generator)
    by_leaps[K] = agreement(x)

# %% [markdown]
# The expected share follows from the mixture for three words: with $K$ leaps all three share one with probability $1/K^2$, exactly two do with $3(K-1)/K^2$. `agreement_in_rounds` (folded) gives the share of fillings that agree, if the words of a round are drawn at once, given all earlier ones.

# %% tags=["hide-cell"]
def agreement_in_rounds(rounds):
    probability, known = 1.0, ~gap_of_three
    for some in rounds:
        p = language.posterior(texts, known.expand(texts.shape))[:, some]  # (120, k, V)
        probability = probability * p.gather(-1, texts[:, some, None])[..., 0].prod(1)
        known = known.clone()
        known[some] = True
    return probability.sum().item()


a, b, c = gap_of_three.nonzero()[:, 0].tolist()
at_once = agreement_in_rounds([[a, b, c]])
pairs_first = [agreement_in_rounds([[i, j], [k]]) for i, j, k in ((a, b, c), (a, c, b), (b, c, a))]
pairs_last = [agreement_in_rounds([[k], [i, j]]) for i, j, k in ((a, b, c), (a, c, b), (b, c, a))]
two_rounds = sum(pairs_first + pairs_last) / 6

# %%
expected = {
    K: (at_once + 3 * (K - 1) * two_rounds + (K - 1) * (K - 2) * true_share) / K**2
    for K in leap_numbers
}
print("expected share:", ", ".join(f"K = {K}: {share:.2f}" for K, share in expected.items()))

# %%
def exact_chances(x):
    return language.posterior(x.clamp(max=V - 1), x != V)


def network_chances(x):
    everything = torch.ones_like(x, dtype=torch.bool)
    with torch.no_grad():
        log_score = mask_parts[0](x, torch.ones(len(x)), at=everything)  # (B L, V + 1), σ̄ = 1
    return log_score[:, :V].softmax(-1).view(*x.shape, V)


torch.manual_seed(0)
blank = torch.where(gap_of_three, V, without_verb)
one = {
    "exact ratios": agreement(one_by_one(exact_chances, blank.repeat(800, 1))),
    "network": agreement(one_by_one(network_chances, blank.repeat(800, 1))),
}
network_3 = agreement(sample(*mask_parts, (800, L), 3, clamp=without_verb))
print("one word at a time:", ", ".join(f"{name} {share:.3f}" for name, share in one.items()))
print(f"truth {true_share:.3f}; three leaps, network {network_3:.3f}")

# %% tags=["hide-input"]
#| alt: Share of fillings that agree against the number of leaps, 1 to 32: a blue line from 0.24 to
#| 0.92 with dots near it; at K = 3 it is at 0.71, a dot a bit below, a hollow one of the network a
#| bit above. Two stars for three evaluations, one hollow, lie at the truth, 0.95.
fig, ax = plots.plt.subplots(figsize=(8, 3.6))
ax.axhline(true_share, color="#444444", lw=1)
ax.text(0.95, true_share - 0.02, f"truth {true_share:.2f}", color="#444444", va="top")
ax.semilogx(leap_numbers, list(expected.values()), color=plots.BLUE, base=2)
for K, share in by_leaps.items():
    ax.errorbar(K, share, math.sqrt(share * (1 - share) / 800), fmt="o", color=plots.BLUE)
ax.errorbar(3, network_3, math.sqrt(network_3 * (1 - network_3) / 800), fmt="o", color=plots.BLUE,
            mfc="white")  # fmt: skip
ax.text(4.5, 0.56, "K leaps: expected, and of 800 fillings\n(hollow: the network)",
        color=plots.BLUE)  # fmt: skip
ax.plot(2.8, one["exact ratios"], "*", color=plots.ORANGE, ms=17)  # both stars stand for 3
ax.plot(3.2, one["network"], "*", color=plots.ORANGE, mfc="white", ms=17)
label = "one word at a time, 3 evaluations (hollow: the network)"
ax.text(1.3, 1.02, label, color=plots.ORANGE)
plots.plain_ticks(ax.xaxis, leap_numbers)
ax.set(xlabel="leaps K", ylabel="share that agrees", ylim=(0, 1.1))
ax.set_title("One word at a time reaches the truth with three evaluations");

# %% tags=["hide-cell"]
spread = math.sqrt(true_share * (1 - true_share) / 800)
assert abs(one["exact ratios"] - true_share) < 4 * spread
assert abs(one["network"] - true_share) < 0.04 and abs(network_3 - expected[3]) < 0.07
assert abs(by_leaps[1] - 0.25) < 0.06 and by_leaps[4] < one["exact ratios"] - 0.1
for K, share in expected.items():
    assert abs(by_leaps[K] - share) < 4 * math.sqrt(share * (1 - share) / 800)

# %% [markdown]
# *What to see.* Blue line: the expected share; dots: 800 fillings each, with their standard error. With one leap a quarter agree, as often as three coins show the same side; 32 leaps reach 0.92. The truth is 0.95, as the language makes random slips. One word at a time reaches it (stars, side by side at 3), with the network too (hollow); after three leaps 0.745 of its fillings agree (standard error 0.015).
#
# A leap costs the total correlation (chapter 08) of its new words, given the visible ones. In this language a long gap needs many leaps, scattered words one (laboratory, *Leaps*).
#
# ## 8. Gaps in English, and what this does not do
#
# `fill` makes a template, clamps and samples. A run of underscores is a gap, of one token with `gap=1`.

# %%
text = 'If *key* is ____ found, return ____. A "KeyError" is ____ if the key ____ not exist.'
for filled in docs.fill(text, gap=1, num=4, steps=64):
    print(filled)

# %% [markdown]
# All four write *not*, one returns *None*. In the last gap *not exist* demands *does*, and all four write *is* or *was*. The network often finds the right kind of word, and knows little about Python. What this method leaves open:
#
# - **The length is given.** If nobody knows it, one must try several (exercise 3).
# - **Left-to-right models can be taught to fill**, if texts are cut before training and the middle is put last (further reading). Diffusion needs no such change, and takes any pattern.
# - **The paper's claim is not tested here.** Lou, Meng and Ermon report that SEDD at GPT-2's size continues and fills web text about as well as GPT-2 with nucleus sampling (chapter 10) continues it, judged by a score called MAUVE.

# %% [markdown]
# ## What has changed on the page
#
# The page's `write` already keeps the given words. It now reveals one word at each step, which removes the error of section 7. Three missing words take three evaluations instead of 16, and 32 take 32. Chapter 08's changes are not needed: every call reveals a word, and no random number is compared with a probability.
#
# ```diff
# -def write(x, steps=16):
# -    """Fill in every MASK of x (B, L), a few at each step."""
# -    for t, s in pairwise(torch.linspace(1, 0, steps + 1)):
# +def write(x):
# +    """Fill in every MASK of x (B, L), one word of each text at a time."""
# +    for _ in range(int((x == MASK).sum(1).max())):
#          chances = model(x).softmax(-1)  # (B, L, N)
#          guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
# -        shown = torch.rand(x.shape) < (t - s) / t
# +        draw = torch.rand(x.shape).masked_fill(x != MASK, -1)
# +        shown = draw == draw.max(1, keepdim=True).values
#          x = torch.where((x == MASK) & shown, guess, x)
#      return x
# ```
#
# ## Summary
#
# 1. A ratio of joint probabilities is a ratio of conditional ones. So we clamp the given tokens, and the network stays as it is.
# 2. With MASK noise a visible token is clean, so clamping with exact ratios is exact, up to the $1/K$ of the leaps. With uniform noise the ratios assume only the *noisy* tokens, and an error stays: TV 0.12 for our pair.
# 3. A weight repairs it: the probability that the given tokens never jump. A left-to-right model can fill gaps by weights too, with at least $2^{I}$ draws for one filling, if it lacks $I$ bits.
# 4. The words to the right are worth 0.4 to 0.8 bits for each missing word of our language. By section 6's bound the MASK network is at about 0.01 bit a word, the clamped uniform network at 0.06 to 0.11.
# 5. Words that appear in the same leap do not see each other. With exact probabilities one word at a time is exact, at one evaluation a word.

# %% [markdown]
# ## Exercises

# %% [markdown]
# ### Exercise 1. What should stand in the gaps? (★☆☆, 10 minutes)
#
# Write `law_of_gaps(p0, given)`: the law of the missing tokens, given the others. `p0` holds joint probabilities, with one axis of length S for each of $d$ tokens. `given` (d,) holds the values of known tokens, and −1 at gaps. The result has one axis for each gap, in the order of the tokens.
#
# <details><summary>Hint</summary>
#
# An index may be a tuple that holds numbers and `slice(None)`.
#
# </details>
#
# [Solution](solutions/09_infilling.ipynb)

# %% tags=["exercise"]
import torch


def law_of_gaps(p0: torch.Tensor, given: torch.Tensor) -> torch.Tensor:
    """p0 (S,)*d, given (d,) int64 with −1 at gaps → one axis of length S for each gap."""
    raise NotImplementedError

# %% tags=["check"]
from itertools import product

import torch
from sedd_mini.exercises import exercise

with exercise("1"):
    for seed, given in enumerate(([0, -1], [-1, 1], [2, -1, -1], [-1, 0, -1], [-1, -1, 0])):
        g = torch.Generator().manual_seed(seed)
        table = torch.rand((3,) * len(given), generator=g).double()
        table = table / table.sum()
        found = law_of_gaps(table.clone(), torch.tensor(given))
        free = [i for i, value in enumerate(given) if value < 0]
        assert found.shape == (3,) * len(free), f"one axis for each gap: shape {(3,) * len(free)}"
        assert abs(found.sum() - 1) < 1e-9, "the probabilities do not sum to 1"
        shown = [x for x in product(range(3), repeat=len(given))
                 if all(v in (-1, a) for v, a in zip(given, x))]  # fmt: skip
        at = [found[tuple(x[i] for i in free)] for x in shown]
        for x, value in zip(shown, at):
            same = torch.isclose(value / at[0], table[x] / table[shown[0]])
            assert same, "a ratio of two fillings is not that of the whole texts"

# %% [markdown]
# ### Exercise 2. How much do copies help? (★★☆, 20 minutes)
#
# Two tokens, each 0 or 1, disagree with probability $e$: $p_0 = \begin{pmatrix} (1-e)/2 & e/2 \\ e/2 & (1-e)/2 \end{pmatrix}$. A text holds $k$ copies of the first, then the second. The copies are given as 0, and the noise is uniform. Write `clamping_error(e, k, K)`: the total variation between the law of the last token after the clamped sampler's $K$ leaps, and the true one.
#
# The starter has `rows_of_leaps`, which needs no change. When it is right, plot it against $e$, from 0.001 to 0.5, with $K = 64$, for $k = 1$ and $k = 3$. Explain the values at both ends.
#
# <details><summary>Hint</summary>
#
# Keep a law of the last token, at first $(1/2, 1/2)$. `chain.states[:2]` are the texts that begin with $k$ zeros. For small $e$: let $f$ be the probability that the noise that is left flips a token. How probable is the noisy text $0 \ldots 0\,1$ if its zeros are clean, and if they may be flipped ones?
#
# </details>
#
# [Solution](solutions/09_infilling.ipynb)

# %% tags=["exercise"]
from itertools import pairwise

import torch
from sedd_mini import GeometricNoise, UniformGraph
from sedd_mini.worlds.ctmc import Chain


def rows_of_leaps(chain, K):
    """For each leap and the last step the rows (n, k + 1, 2) of the texts chain.states (n, k + 1).

    The row of a token holds the probabilities that it is 0 or 1 after the leap.
    """
    times = torch.linspace(1, 1e-5, K + 1, dtype=torch.float64)
    levels = [*GeometricNoise().total(times).tolist(), 0.0]
    for high, low in pairwise(levels):
        yield chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))


def clamping_error(e: float, k: int, K: int) -> float:
    """The total variation between the law of the clamped sampler's last token and the true one.

    Begin with chain = Chain(UniformGraph(2), p0), where p0 (float64) has an axis of length 2 for
    each of the k + 1 tokens.
    """
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini import GeometricNoise, UniformGraph
from sedd_mini.evaluation.law import law_of_sampler
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import Chain

with exercise("2"):
    noise = GeometricNoise()
    for e, k, K in ((0.1, 1, 1), (0.02, 1, 8), (0.1, 1, 32), (0.3, 2, 32), (0.05, 3, 16)):
        yours = float(clamping_error(e, k, K))
        assert 0 <= yours <= 1, "a total variation lies between 0 and 1"
        world = torch.zeros((2,) * (k + 1), dtype=torch.float64)
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            world[(a,) * k + (b,)] = (e if a != b else 1 - e) / 2
        chain, held = Chain(UniformGraph(2), world), torch.tensor([[0] * k + [-1]])
        law = law_of_sampler(chain.log_score, chain.graph, noise, k + 1, K, clamp=held).flatten()
        away = abs(yours - abs(law[1].item() - e))
        assert away < 2e-5, f"e = {e}, k = {k}, K = {K}: yours is off by {away:.5f}"
    assert clamping_error(0.5, 2, 8) < 1e-6, "at e = 1/2 the last token is independent of the rest"

# %% [markdown]
# ### Exercise 3. How long is the gap? (★★☆, 20 minutes)
#
# Nobody knows how many words are missing between `before` and `after`, two lists of ids. Lengths from 1 to `longest` are equally likely beforehand. Write `length_posterior(language, before, after, longest)`: the probability of each length, given the known words.
#
# When it is right, try *some dogs* before and *river sleep again .* after, with `longest` 5, in the language of section 5. Which two lengths are probable, and why?
#
# <details><summary>Hint</summary>
#
# For each length, put any tokens into the gap and mark them as not known. Then use Bayes' rule.
#
# </details>
#
# [Solution](solutions/09_infilling.ipynb)

# %% tags=["exercise"]
import torch


def length_posterior(language, before: list, after: list, longest: int) -> torch.Tensor:
    """(longest,): the probabilities of gaps of 1, 2, … words.

    language.log_prob(tokens, known), both (1, n), known bool → (1,): log p of the known tokens.
    """
    raise NotImplementedError

# %% tags=["check"]
from itertools import product

import torch
from sedd_mini.exercises import exercise
from sedd_mini.text.synthetic import HiddenMarkovChain

with exercise("3"):
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        T, E = (torch.rand(3, 3, generator=g).double() ** 4 for _ in range(2))
        tiny = HiddenMarkovChain(T / T.sum(1, keepdim=True), E / E.sum(1, keepdim=True))
        before, after = ([0, 1], [2]) if seed else ([2], [0, 0, 1])
        yours = torch.as_tensor(length_posterior(tiny, before, after, 4)).double()
        assert yours.shape == (4,), f"four numbers, not shape {tuple(yours.shape)}"
        assert abs(yours.sum() - 1) < 1e-9, "probabilities sum to 1"
        for a, b in ((1, 2), (2, 4), (3, 1)):
            texts = [[[*before, *gap, *after] for gap in product(range(3), repeat=n)]
                     for n in (a, b)]  # fmt: skip
            odds = [tiny.log_prob(torch.tensor(some)).exp().sum() for some in texts]
            same = torch.isclose(yours[a - 1] / yours[b - 1], odds[0] / odds[1])
            assert same, f"the odds of {a} missing words against {b} are not right"

# %% [markdown]
# ### Exercise 4. Keep the runs in which nothing jumped (★★☆, 20 minutes)
#
# This is section 4 by brute force. Write `keep_unjumped(pair, levels, num, generator)`: start `num` pairs with first token 0 and a uniformly random second token. Take them down the falling list `levels`, leap by leap, with `pair.tau_leap(x, [high, low], generator=generator)`, which moves **both** tokens. Keep the pairs whose first token was 0 after *every* leap.
#
# Return the law of the second token among the kept pairs, (N,), and the share that is kept. When it is right, raise the first level (3 in the check): what does the share do, and why?
#
# <details><summary>Hint</summary>
#
# Keep a tensor of bools, and combine it by `&` with what each leap shows.
#
# </details>
#
# [Solution](solutions/09_infilling.ipynb)

# %% tags=["exercise"]
from itertools import pairwise

import torch


def keep_unjumped(pair, levels, num, generator):
    """pair: a Chain of two tokens, N = pair.graph.num_tokens values each, and uniform noise.

    → law of the second token among the kept pairs (N,), and the share that is kept.
    """
    raise NotImplementedError

# %% tags=["check"]
import math

import torch
from sedd_mini import UniformGraph
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import Chain

with exercise("4"):
    levels = [*torch.logspace(math.log10(3), -3, 40).tolist(), 0.0]
    for seed, world in enumerate(([[40, 8], [2, 50]], [[5, 30, 1], [9, 1, 5], [20, 9, 20]])):
        world = torch.tensor(world).double() / 100
        pair, g = Chain(UniformGraph(len(world)), world), torch.Generator().manual_seed(seed)
        law, share = keep_unjumped(pair, levels, 20_000, g)
        assert law.shape == (len(world),), f"one probability for each of {len(world)} values"
        staying = math.exp(-3 * (1 - 1 / len(world)))  # of a jump-free way, in the forward process
        exact_kept = world[0].sum() * staying / pair.marginal(3.0)[0].sum()
        assert share < 2 * exact_kept, f"you keep {share:.0%} of the pairs: far too many"
        assert share > 0.8 * exact_kept, f"you keep {share:.0%} of the pairs: too few"
        wanted = world[0] / world[0].sum()
        assert (law - wanted).abs().max() < 0.04, "the law of the second token is not right"

# %% [markdown]
# ### Exercise 5. What does an order cost? (★★★, 30 minutes)
#
# Gaps are filled in rounds. The tokens of a round are drawn at once, each from its exact law given the tokens of *earlier* rounds. Write `cost_of_rounds(joint, rounds)`: the divergence $\mathrm{KL}(\text{true} \,\|\, \text{result})$ in **bits**. `joint` is the true law of the gaps, with one axis for each (some entries may be 0). `rounds` is a list of lists of axes, such as `[[1], [0, 2]]`.
#
# When it is right, guess which ways to split *determiner, noun, verb*, the gaps of section 7, into two rounds cost least. (The solution gives the bits of all six.)
#
# <details><summary>Hint 1</summary>
#
# The divergence is a sum over rounds. A round costs the entropies of its tokens minus their joint entropy, all given the earlier rounds.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# $H(A \mid B) = H(A, B) - H(B)$, and the entropy of some of the axes is that of the table summed over the others.
#
# </details>
#
# [Solution](solutions/09_infilling.ipynb)

# %% tags=["exercise"]
import torch


def cost_of_rounds(joint: torch.Tensor, rounds: list) -> float:
    """joint: an axis for each gap, sums to 1; rounds: lists of axes → bits."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("5"):
    twins, parity = torch.zeros(2, 2, 2).double(), torch.zeros(2, 2, 2).double()
    for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
        twins[a, a, b] = parity[a, b, a ^ b] = 0.25
    for name, table, rounds, bits_ in (
        ("three free choices", torch.full((2, 2, 2), 1 / 8).double(), [[0, 1, 2]], 0),
        ("token 1 a copy of token 0", twins, [[0, 1], [2]], 1),
        ("token 1 a copy of token 0", twins, [[0, 2], [1]], 0),
        ("token 2 the parity of the others", parity, [[0, 1], [2]], 0),
        ("token 2 the parity of the others", parity, [[0], [1, 2]], 1),
        ("one token a round", torch.arange(1.0, 9).view(2, 2, 2).double() / 36, [[2], [0], [1]], 0),
    ):
        found = float(cost_of_rounds(table, rounds))
        assert abs(found - bits_) < 1e-6, f"{name}, rounds {rounds}: yours is {found:.3f} bits"
    g = torch.Generator().manual_seed(0)
    table = torch.rand(3, 3, 3, 3, generator=g).double() ** 6
    table = table / table.sum()
    cases = ([[0, 1, 2, 3]], 1.4451), ([[3, 1], [0, 2]], 0.8541), ([[2], [0], [1, 3]], 0.4500)
    for rounds, bits_ in cases:
        found = float(cost_of_rounds(table, rounds))
        hint = "are later rounds given all earlier ones?"
        assert abs(found - bits_) < 1e-3, f"random table, rounds {rounds}: {found:.3f}; {hint}"

# %% [markdown]
# ## Laboratory
#
# Optional reading: more worlds, other repairs, the exact ratios of the language, and more gaps in English. Read the sections in any order; their cells run from top to bottom.

# %% [markdown]
# ### Counting: does the box hold for noisy sentences?
#
# Draw noisy pairs at $\bar\sigma = 0.5$, keep those whose noisy noun shows *cat*, and count their verbs. For both noises the quotients of the counts are the joint ratios of the oracle, within 5 %.

# %%
generator = torch.Generator().manual_seed(0)
for name, pair in pairs.items():
    x = pair.graph.sample_transition(
        pair.sample_data(200_000, generator), torch.tensor(0.5), generator
    )  # (B, 2)
    verbs = x[x[:, 0] == CAT, 1].bincount().double()  # (S,), where the noisy noun shows cat
    joint = pair.scores(0.5)[pair.index(torch.tensor([0, 0])), 1]  # (S,): ratios of cat sleeps
    assert torch.allclose(joint, verbs / verbs[0], rtol=0.05)
    print(f"{name:8} counted", [f"{r:.2f}" for r in (verbs / verbs[0]).tolist()],
          "exact", [f"{r:.2f}" for r in joint.tolist()])  # fmt: skip

# %% [markdown]
# ### More worlds: was the pair unlucky?
#
# Now any number of tokens and any pattern. In a leap all free tokens move, each by itself, so the probabilities of their joint move are products. `given` holds a token where one is given and −1 at gaps, as for the library's `sample`.

# %%
def leap_rows(chain, schedule, K):
    """For each leap and the last step the rows (n, d, S) of all n sequences."""
    times = torch.linspace(1, 1e-5, K + 1, dtype=torch.float64)
    levels = [*schedule.total(times).tolist(), 0.0]
    return [
        chain.graph.tweedie_probs(chain.states, chain.scores(high), torch.tensor(high - low))
        for high, low in pairwise(levels)
    ]


def together(rows):
    """Rows (n, k, S) of k tokens → the law of all k at once, (n, S^k)."""
    law = rows[:, 0]
    for i in range(1, rows.shape[1]):
        law = (law[:, :, None] * rows[:, i, None, :]).flatten(1)
    return law

# %%
def showing(chain, given):
    """Which of the n sequences show the given tokens."""
    return ((chain.states == given) | (given < 0)).all(1)


def gap_law(chain, runs, given, weights=False):
    """The law of the gaps after the leaps `runs`: clamped, or weighted as in section 4."""
    here, free = showing(chain, given), given < 0
    p = chain.graph.limit_log_prob(chain.states[here][:, free]).exp().prod(1)
    for rows in runs:
        if weights:
            p = p * rows[here][:, ~free, given[~free]].prod(1)
        p = p @ together(rows[here][:, free])
    return p / p.sum()


def true_law(chain, given):
    p = chain.p0.flatten()[showing(chain, given)]
    return p / p.sum()

# %% [markdown]
# For the pair, this is what sections 2 and 4 computed:

# %% tags=["hide-cell"]
cat = torch.tensor([CAT, -1])
for name, pair in pairs.items():
    runs = leap_rows(pair, schedules[name], 8)
    assert torch.allclose(gap_law(pair, runs, cat), clamped(pair, schedules[name], 8))
    assert torch.allclose(gap_law(pair, runs, cat, True), weighted(pair, schedules[name], 8))
    assert torch.allclose(true_law(pair, cat)[:2], after_cat)

# %% [markdown]
# Three worlds of three tokens with three values are drawn at random, with 3 % spread evenly so that all ratios are finite. In each there are 36 ways to give one or two tokens.

# %%
def random_world(seed, power):
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(3, 3, 3, generator=g, dtype=torch.float64) ** power
    return 0.97 * p / p.sum() + 0.03 / 27


worlds = [random_world(0, 4), random_world(1, 4), random_world(0, 8)]
choices = torch.tensor([c for c in product(range(-1, 3), repeat=3) if 0 < c.count(-1) < 3])
makers = {"MASK": AbsorbingGraph, "uniform": UniformGraph}
chains = {name: [Chain(make(3), world) for world in worlds] for name, make in makers.items()}
leap_counts = (2, 8, 32, 128)
runs = {
    (name, K): [leap_rows(chain, schedules[name], K) for chain in chains[name]]
    for name in chains
    for K in leap_counts
}

# %%
far = {}
for (name, K), of_world in runs.items():
    far[name, K] = torch.tensor([
        total_variation(gap_law(chain, run, c), true_law(chain, c))
        for chain, run in zip(chains[name], of_world)
        for c in choices
    ])  # (108,)  # fmt: skip

# %% tags=["hide-input"]
#| alt: Two panels of total variation against the number of leaps, log axes, with a thin line for
#| each of 27 choices and a thick one for their mean, with error bars. MASK noise: straight lines,
#| the mean falls from 0.09 to 0.0014. Uniform noise: most go flat, the mean from 0.3 to 0.13.
two_gaps = (choices < 0).sum(1).repeat(3) == 2  # (108,): 9 choices in each world
fig, axes = plots.plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
for ax, name, colour in zip(axes, chains, (plots.BLUE, plots.ORANGE)):
    curves = torch.stack([far[name, K][two_gaps] for K in leap_counts])  # (4, 27)
    ax.loglog(leap_counts, curves, color=colour, lw=0.7, alpha=0.6)
    ax.errorbar(leap_counts, curves.mean(1), curves.std(1) / math.sqrt(27), fmt="o-", capsize=5,
                color=colour, lw=3)  # fmt: skip
    ax.set(xlabel="leaps K", ylim=(1e-4, 1))
    plots.plain_ticks(ax.xaxis, leap_counts)
    plots.plain_ticks(ax.yaxis, (1e-3, 0.01, 0.1, 1))
axes[0].set_ylabel("TV from p(rest | given)")
axes[1].text(2.1, 1e-3, "thin: a choice of given tokens\nthick: mean, with its standard error")
axes[0].set_title("MASK noise: the error falls as 1/K")
axes[1].set_title("Uniform noise: most errors stay after 32 leaps");

# %% [markdown]
# *What to see.* Each thin line is one of the 27 choices that leave two gaps, in three worlds. With MASK noise every error falls as $1/K$. With uniform noise most errors hardly change from 32 leaps to 128. Choices that leave one gap are not drawn: with MASK noise they are exact from the start.

# %% tags=["nbval-check-output"]
print("128 leaps:  TV, mean ± standard error")
for name in chains:
    for label, which in (("one gap", ~two_gaps), ("two gaps", two_gaps), ("all", two_gaps >= 0)):
        tv = far[name, 128][which]
        print(f"{name:8} {label:8} {tv.mean():7.4f} ± {tv.std() / math.sqrt(len(tv)):.4f}, "
              f"from {tv.min():.4f} to {tv.max():.4f}")  # fmt: skip

# %% tags=["hide-cell"]
quarter = far["MASK", 32][two_gaps] / far["MASK", 128][two_gaps]
assert ((far["uniform", 32] / far["uniform", 128])[two_gaps] < 1.2).double().mean() > 0.5
assert (quarter > 3.5).all() and (quarter < 4.5).all()  # four times the leaps
assert far["MASK", 2][~two_gaps].max() < 1e-9  # one token free: exact at once

# %% [markdown]
# ### Ratios: how wrong are the ones that clamping uses?
#
# The free tokens alone, with $p_0(\text{rest} \mid \text{given})$ as their data, are a smaller world. Its ratios are the right ones. In the first world, with the first token given and $\bar\sigma = 0.5$:

# %%
def smaller_world(chain, given):
    """The free tokens alone, with p0(rest | given) as their data."""
    law = chain.p0[tuple(slice(None) if v < 0 else v for v in given.tolist())]
    law = law[(slice(chain.graph.num_tokens),) * law.ndim]
    return Chain(chain.graph, law / law.sum())


given_first, off = torch.tensor([0, -1, -1]), {}
for name in chains:
    chain = chains[name][0]
    used = chain.scores(0.5)[showing(chain, given_first)][:, 1:]  # (S², 2, S)
    right_ratios = smaller_world(chain, given_first).scores(0.5)
    off[name] = (used / right_ratios - 1)[right_ratios > 0].abs().max().item()
    print(f"{name:8} clamping's ratios are off by up to {off[name]:.0%}")

# %% tags=["hide-cell"]
assert off["MASK"] < 1e-12 and off["uniform"] > 0.1

# %% [markdown]
# ### Replacing: is it better to make the given tokens noisy again?
#
# Before every leap the given tokens are replaced by noisy versions of themselves, as noisy as the rest. The network then sees sentences of the kind that it was trained on. Here is the exact law of such a run, beside the two others.

# %%
def replaced_law(chain, runs, schedule, given):
    free, g = given < 0, chain.graph
    times = torch.linspace(1, 1e-5, len(runs), dtype=torch.float64)
    levels = torch.cat([schedule.total(times), torch.zeros(1, dtype=torch.float64)])
    noisy = [g.transition_probs(given[~free], level) for level in levels]  # (k, S) each
    first = torch.zeros(1, chain.length, g.num_states, dtype=torch.float64)
    first[:, free] = g.limit_log_prob(torch.arange(g.num_states)).exp()
    first[:, ~free] = noisy[0]
    p = together(first)[0]
    for rows, target in zip(runs, noisy[1:]):
        rows = rows.clone()
        rows[:, ~free] = target  # drawn afresh, from the clean tokens
        p = p @ together(rows)
    return p[showing(chain, given)]

# %%
methods = {
    "clamped": lambda chain, run, name, c: gap_law(chain, run, c),
    "replaced": lambda chain, run, name, c: replaced_law(chain, run, schedules[name], c),
    "weighted": lambda chain, run, name, c: gap_law(chain, run, c, True),
}
mean_tv, some = {}, choices[::3]
for name, method, K in product(chains, methods, leap_counts[1:]):
    chain, run = chains[name][0], runs[name, K][0]
    laws = [(methods[method](chain, run, name, c), true_law(chain, c)) for c in some]
    mean_tv[name, method, K] = sum(total_variation(*two) for two in laws) / len(laws)

# %% tags=["nbval-check-output"]
print("mean TV, first world, 12 of 36 choices")
print(f"{'K =':25}       8      32     128")
for name, method in product(chains, methods):
    row = [mean_tv[name, method, K] for K in leap_counts[1:]]
    print(f"{name:9} {method:16}", *(f"{e:7.3f}" for e in row))

# %% tags=["hide-cell"]
assert mean_tv["uniform", "weighted", 128] < 0.3 * mean_tv["uniform", "weighted", 32]
assert abs(mean_tv["MASK", "weighted", 32] - mean_tv["MASK", "clamped", 32]) < 1e-9
for name in chains:
    assert mean_tv[name, "replaced", 128] > mean_tv[name, "clamped", 128]

# %% [markdown]
# In this world replacing is worse than clamping for both noises. With MASK noise it loses exactness: while a given token is masked, the others are drawn without it, and a visible token is never taken back. Weights make uniform noise as good as one wishes here too: the error falls as $1/K$.
#
# ### Copies: does it help to give a word twice?
#
# For clamping with uniform noise and exact ratios, the bound of section 6 is 0.02 to 0.07 bits a word on the language, and 0.09 bits on the pair. One guess at the reason: many given words confirm each other, so that the ratios depend on them earlier. The next cell tests this on the pair. The noun is written $k$ times, which adds no information about the verb. In the control the added words are fair coins that say nothing about the noun.

# %%
print("copies k    noun k times    noun once, k − 1 coins")
copies = {}
for k in (1, 2, 3, 5):
    same = torch.zeros((2,) * (k + 1), dtype=torch.float64)
    same[(0,) * k], same[(1,) * k] = p0[0], p0[1]
    coins = p0.view(2, *[1] * (k - 1), 2).expand((2,) * (k + 1)) / 2 ** (k - 1)
    held = torch.tensor([CAT] * k + [-1])
    copies[k] = []
    for world in (same, coins):
        chain = Chain(UniformGraph(2), world)
        law = gap_law(chain, leap_rows(chain, GeometricNoise(), 128), held)
        copies[k].append(total_variation(law, after_cat))
    print("{:8} {:15.3f} {:25.3f}".format(k, *copies[k]))

# %% tags=["hide-cell"]
assert copies[1][0] > 2 * copies[2][0] > 4 * copies[3][0] > 4 * copies[5][0]
assert all(abs(coin - copies[1][0]) < 1e-6 for _, coin in copies.values())

# %% [markdown]
# Copies shrink the error, coins do not (exercise 2 varies the pair). So given words that confirm each other do help. Whether this explains the language is not shown: its words are not copies of each other.
#
# ### The library: does `sample` draw from this law?
#
# We compare 20 000 fillings of `sample(..., clamp=given)` with `gap_law`, for four patterns and both noises, by a $\chi^2$ test. The p-value is the chance of a sum of squares this large or larger if the laws agree. If they do, p-values are spread evenly from 0 to 1, so the **smallest of eight** is $1/9 \approx 0.11$ on average. We would sound an alarm below $10^{-4}$: a false alarm in one of 1250 seeds.

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
    found = 20_000 * chain.histogram(x).flatten()[showing(chain, c)]
    law = gap_law(chain, leap_rows(chain, schedules[name], 8), c)
    assert found.sum() == 20_000  # every filling shows the given tokens
    possible = law > 1e-9  # a free token never ends as MASK
    assert found[~possible].sum() == 0
    lowest = min(lowest, p_value(found[possible], law[possible]))
as_low = 1 - (1 - lowest) ** 8
print(f"smallest of eight p-values {lowest:.3f}; as small or smaller in {as_low:.0%} of seeds")
assert lowest > 1e-4

# %% [markdown]
# ### The exact model: how are the ratios of 32 noisy words computed?
#
# As in chapter 07's laboratory, the noisy language is a hidden Markov chain too, with other chances to show a word. One forward–backward pass gives, for every position, the law of the hidden state given what is seen at all *other* positions (`hidden_from_others`). From it follow the law of the clean word there and the ratios. At noise $\bar\sigma$ a word is clean with probability $e^{-\bar\sigma}$; `clean` says at which positions we *know* it to be.
#
# Three checks. With MASK noise the ratios times $e^{\bar\sigma} - 1$ are the library's `posterior`. With uniform noise they equal quotients of the probabilities of whole blocks that differ in the eleventh word. With `clean`, when that word is the only noisy one, it shows $y$ either because it is clean and is $y$, or because it was replaced.

# %%
from sedd_mini.text.synthetic import HiddenMarkovChain

mask_graph, uniform_graph = mask_parts[1], uniform_parts[1]
level, all_four = torch.full((4,), 0.7, dtype=torch.float64), torch.ones(4, L, dtype=torch.bool)
x = mask_graph.sample_transition(x0[:4], level[:, None], torch.Generator().manual_seed(0))
score = exact_model(mask_graph)(x, level, all_four).exp().view(4, L, V + 1)
hidden = x == V
posterior = language.posterior(x.clamp(max=V - 1), ~hidden)
assert torch.allclose(score[..., :V][hidden] * math.expm1(0.7), posterior[hidden])

# %%
stay = math.exp(-0.7)
noisy = HiddenMarkovChain(language.transition, stay * language.emission + (1 - stay) / V)
x = uniform_graph.sample_transition(x0[:4], level[:, None], torch.Generator().manual_seed(0))
log_score = exact_model(uniform_graph)(x, level, all_four).view(4, L, V)
for y in range(V):
    changed = x.clone()
    changed[:, 10] = y
    assert torch.allclose(log_score[:, 10, y], noisy.log_prob(changed) - noisy.log_prob(x))

# %%
alone, x = place == 10, x0[:4]
posterior = language.posterior(x, (~alone).expand(4, L))[:, 10]  # (4, V)
expected = (stay * posterior + (1 - stay) / V).log()
found = exact_model(uniform_graph, clean=~alone)(x, level, alone.expand(4, L))  # (4, V)
assert torch.allclose(found, expected - expected.gather(1, x[:, 10:11]))

# %% [markdown]
# ### The bound: how loose is it?
#
# For the pair both sides of the inequality of section 6 are known.

# %% tags=["nbval-check-output"]
from sedd_mini.worlds.ctmc import log_quadrature

pair, bound = pairs["uniform"], 0.0
small = smaller_world(pair, cat)
for level, weight in zip(*log_quadrature(1e-9, 20.0, 200)):
    used = pair.scores(level)[showing(pair, cat), 1]  # (2, 2)
    D = score_entropy_terms(used.log(), small.scores(level)[:, 0]) / 2  # the rates are 1/N
    bound += weight * (small.marginal(level) @ D.sum(-1)).item()
law = gap_law(pair, leap_rows(pair, GeometricNoise(), 512), cat)
kl = (after_cat * (after_cat / law).log()).sum().item()
print(f"KL {kl / math.log(2):.3f} bits, bound {bound / math.log(2):.3f} bits, "
      f"{bound / kl:.1f} times as large")  # fmt: skip

# %% tags=["hide-cell"]
assert 1.5 < bound / kl < 1.8

# %% [markdown]
# ### Weights: do they work with a network?
#
# We take the sentence of section 5, *____ ____ near a river sing quietly*. The library has the two pieces of a leap: `move_weights` says how probable a move is and where it would go, `draw_moves` draws it. All that we add is the probability that the given words stay. The run starts at $\bar\sigma = 8$, where hardly anything is left of the text, and goes down in equal factors.

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
x = sample(*mask_parts, (192, L), 24, clamp=with_verb, generator=generator)
share = {"MASK network, clamped": plural[x[:, noun]].double().mean().item()}
setups = {"uniform, exact ratios": (exact_uniform[0], 1000),
          "uniform network": (uniform_parts[0], 192)}  # fmt: skip
for name, (model, num) in setups.items():
    x, log_w = fill_with_weights(model, uniform_graph, with_verb, num, 24, generator)
    w, hit = log_w.softmax(0), plural[x[:, noun]].double()
    share[f"{name}, clamped"] = hit.mean().item()
    share[f"{name}, weighted"] = (w @ hit).item()
    print(f"{name}: {num} fillings are worth {1 / (w**2).sum():.0f}")
for name, value in {**share, "truth": exact_share}.items():
    print(f"{name:33} P(plural noun) = {value:.2f}")

# %% tags=["hide-cell"]
clamped_share, weighted_share = (share[f"uniform, exact ratios, {how}"]
                                 for how in ("clamped", "weighted"))  # fmt: skip
assert abs(weighted_share - exact_share) < 0.02 < exact_share - clamped_share
assert share["MASK network, clamped"] > 0.85
assert share["uniform network, weighted"] > share["uniform network, clamped"]
assert 4 < (1 - clamped_share) / (1 - exact_share) < 8

# %% [markdown]
# Even with exact ratios the clamped uniform sampler misses the plural in 12 % of its fillings, where 2 % would be right. With weights it is 2 %, and the fillings keep more than four fifths of their worth; in section 5 they kept 37 %. (One standard error of a clamped share is 0.01 with 1000 fillings, and at most 0.02 with 192.)
#
# ### The mixture: is it the exact law of K leaps?
#
# For every choice with two gaps in the three random worlds, the law of the clamped sampler with MASK noise is the mixture of section 7, within $10^{-4}$.

# %%
def product_law(chain, given):
    """p(first | given) p(second | given) for two gaps, over the sequences that show the given."""
    joint = true_law(chain, given).reshape(chain.num_states, chain.num_states)
    return (joint.sum(1, keepdim=True) * joint.sum(0)).flatten()


for K in (2, 8, 32):
    for chain, run in zip(chains["MASK"], runs["MASK", K]):
        for c in choices[(choices < 0).sum(1) == 2]:
            mixture = (1 - 1 / K) * true_law(chain, c) + product_law(chain, c) / K
            assert torch.allclose(gap_law(chain, run, c), mixture, atol=1e-4)

# %% [markdown]
# ### Leaps: which patterns need many?
#
# We assign each missing word to one of $K$ leaps at random, and add up the words' bits, $-\log_2 p(\text{word} \mid \text{given words and words of earlier leaps})$. From the sum we subtract the bits that the truth needs. On average the difference bounds the divergence of the $K$-leap sampler with exact ratios, since the choice of leaps counts as part of the path (chapter 04). For $K = 1$ it is exact, and is the total correlation of chapter 08, of the gaps given the rest: the divergence of their joint law from the product of its parts.

# %%
def cost_of_leaps(x, gaps, K, generator):
    """KL of the K-leap law with exact ratios, at most, in bits a missing word, mean over x."""
    leap, nats = torch.randint(K, x.shape, generator=generator), 0.0
    for k in range(K):
        at, known = gaps & (leap == k), ~gaps | (leap < k)
        p = language.posterior(x, known).gather(-1, x[..., None])[..., 0]  # (B, L)
        nats = nats - torch.where(at, p.log(), 0.0).sum(1)
    return bits(nats - surprise(x, everywhere, ~gaps), gaps).mean().item()


generator, counts_of_leaps = torch.Generator().manual_seed(0), [1, 2, 4, 8, 16]
cost = {
    name: [cost_of_leaps(x0[:192], gaps, K, generator) for K in counts_of_leaps]
    for name, gaps in patterns.items()
}

# %% tags=["hide-input"]
#| alt: Bits a missing word against the number of leaps. A wide pale line (prefix given) and a thin
#| one on it (suffix given) fall together from 1.6 at one leap to 0.1 at sixteen, the line of both
#| given from 1.1; that of scattered gaps lies at 0.
fig, ax = plots.plt.subplots(figsize=(8, 3.5))
ends = plots.spread_labels([values[0] for values in cost.values()], 0.11)
for (name, values), y, colour in zip(cost.items(), ends, plots.COLOURS):
    line = {"color": colour, "ms": 5}
    if name == "prefix given":  # wide and pale, so that its twin can be seen on it
        line = {"color": "#a9c4dc", "ms": 13, "lw": 7}
    ax.semilogx(counts_of_leaps, values, "o-", base=2, **line)
    ax.annotate(name, (1, values[0]), (0.93, y), color=colour, ha="right", va="center")
ax.set_xticks(counts_of_leaps, counts_of_leaps)
ax.set(xlabel="leaps K", ylabel="bits a missing word, at most", xlim=(0.55, 17), ylim=(-0.07, 1.75))
ax.set_title("Eight words in a row need many leaps, scattered ones a single leap");

# %% tags=["hide-cell"]
assert cost["prefix given"][0] > 1 and max(cost["scattered"]) < 0.02
for name in list(patterns)[:3]:
    assert 1.6 < cost[name][-2] / cost[name][-1] < 2.4  # twice the leaps, half the cost
assert all(abs(a - b) < 0.03 for a, b in zip(cost["prefix given"], cost["suffix given"]))

# %% [markdown]
# *What to see.* The bound for eight words in a row falls by more than half from one leap to two, and by about half with each further doubling, whichever side is given. Prefix and suffix (the wide line and the one on it) cost the same within 0.03 bits. Scattered gaps cost less than 0.02 bits even with one leap: given all their neighbours they are nearly independent.
#
# And uniform noise? A run starts at $\bar\sigma = 20$. At that noise the clamped ratios take the given words for noise as well (section 3), so one leap should draw the three words of section 7 by their frequency in the language. As a control, the second row takes the same leaps with ratios that are told that the given words are clean.

# %%
told_clean = exact_model(uniform_parts[1], clean=~gap_of_three), *uniform_parts[1:]
in_rows = {"clamped": exact_uniform, "clamped, told that they are clean": told_clean}
agreeing = {}
print("uniform noise, exact ratios: how many of 800 agree    K = 1     4    16")
for name, parts in in_rows.items():
    agreeing[name] = []
    for K in (1, 4, 16):
        x = sample(*parts, (800, L), K, clamp=without_verb,
                   generator=torch.Generator().manual_seed(K))  # fmt: skip
        agreeing[name].append(round(800 * agreement(x)))
    print(f"{name:53}", *(f"{count:5}" for count in agreeing[name]))
x = sample(*exact_uniform, (8000, L), 1, clamp=without_verb, denoise=False,
           generator=torch.Generator().manual_seed(1))  # fmt: skip
one_leap, frequency = round(8000 * agreement(x)), language.stationary @ language.emission  # (40,)
expected = 8000 * frequency[fitting].prod(1).sum().item()
print(f"one leap without the last step: {one_leap} of 8000; "
      f"by frequency {expected:.1f} are expected")  # fmt: skip

# %% tags=["hide-cell"]
assert agreeing["clamped"][0] < 15 and abs(one_leap - expected) < 4 * math.sqrt(expected)
assert abs(agreeing["clamped, told that they are clean"][0] / 800 - by_leaps[1]) < 0.08
for k in (1, 2):
    a, b = (row[k] for row in agreeing.values())
    assert abs(a - b) < 4 * math.sqrt(2 * a * (800 - a) / 800)

# %% [markdown]
# After one clamped leap the three words hardly ever agree: in 5 of 800 fillings. Without the last step it is 13 of 8000, which differs by no more than chance from the 19 expected of words drawn by their frequency. With ratios that are told what is clean a quarter agree, as with MASK noise. With 4 or 16 leaps the rows differ by no more than chance.

# %% [markdown]
# ### English: what do both sides bring?
#
# Nobody knows the true probabilities of the passage of the first picture. But we can ask the network twice for each token: with all others visible, and with only those on the left. With MASK noise the softmax of its log-scores is the probability of each token. (For exact ratios any noise level would do; we ask at 1.)

# %%
@torch.no_grad()
def bits_of_tokens(ids, only_left):
    """−log2 p(token) for each of the tokens ids (L,), each with its own view of the others."""
    n = len(ids)
    hide = torch.ones(n, n).triu() if only_left else torch.eye(n)  # row i: what hides for token i
    x = torch.where(hide.bool(), docs.graph.mask_id, ids)  # (L, L)
    log_score = docs.network(x, torch.ones(n), at=torch.eye(n).bool())[:, :-1].double()  # (L, N)
    return -log_score.log_softmax(-1).gather(1, ids[:, None])[:, 0] / math.log(2)


from_left, from_both = bits_of_tokens(original, True), bits_of_tokens(original, False)
print(f"bits a token: {from_left.mean():.2f} from the left, {from_both.mean():.2f} from both sides")

# %% tags=["hide-input"]
#| alt: Two bars for each token of the first two sentences: bits with the left side only, grey, and
#| with both sides, blue. All blue bars but one are shorter, that of the quotation mark by far.
fig, ax = plots.plt.subplots(figsize=(10, 3.6))
spots = torch.arange(n)
pieces = [docs.tokenizer.decode([i]).replace(" ", "␣") for i in original[:n].tolist()]
ax.bar(spots - 0.2, from_left[:n], 0.38, color=plots.GREY)
ax.bar(spots + 0.2, from_both[:n], 0.38, color=plots.BLUE)
ax.set_xticks(spots, pieces, rotation=60, ha="right", family="monospace")
ax.grid(axis="x", visible=False)
ax.set(ylabel="bits a token")
ax.set_title("All but one of these tokens cost this network less if it sees both sides")
for told, spot, place_, colour in (
    ("seeing the left\nside only", (15.75, 8.6), (11.6, 8.6), "#555555"),
    ("seeing both sides", (17.2, 4.2), (18.2, 6.3), plots.BLUE),
):
    ax.annotate(told, spot, place_, color=colour, va="center",
                arrowprops={"arrowstyle": "->", "color": colour})  # fmt: skip

# %% tags=["hide-cell"]
assert 1.5 < from_left.mean() - from_both.mean() < 2
costs_more = [i for i in range(n) if from_both[i] > from_left[i]]
assert [pieces[i] for i in costs_more] == ["␣list"] and costs_more[0] > 6  # the second one
assert pieces[9] == "␣If" and abs(from_left[9] - 2.3) < 0.1 and abs(from_both[9] - 0.2) < 0.05

# %% [markdown]
# *What to see.* The means above are over all 80 tokens; here are the first 22. Short bars are tokens that the network expects. (␣ is a space.) The exception is the second *list*: 5.4 bits from the left, 6.6 from both sides. This network was trained to use both sides; one that was trained on the left side alone might use that side better, so the difference is not what the right side is worth in English.
#
# ### Passages: how many tokens come back?
#
# We remove twelve tokens of the passage in four patterns, fill them eight times, and count how many come back as they were.

# %%
at = torch.arange(len(original))
docs_patterns = {  # True at the gaps
    "prefix given": at >= len(original) - 12,
    "suffix given": at < 12,
    "both given": (at >= 34) & (at < 46),
    "scattered": (at % 6 == 3) & (at < 72),
}
back = {}
for name, gaps in docs_patterns.items():
    assert gaps.sum() == 12
    x = sample(*docs_parts, (8, len(original)), 24, clamp=torch.where(gaps, -1, original),
               generator=torch.Generator().manual_seed(0))  # fmt: skip
    back[name] = (x == original)[:, gaps].double().mean().item()
    print(f"{name:13} {back[name]:3.0%} of the tokens as they were")

# %% tags=["hide-cell"]
assert back["scattered"] > 0.5 and max(back[p] for p in list(back)[:3]) < 0.055

# %% [markdown]
# More than half of the scattered tokens come back, and 0 to 5 % of the tokens of each phrase. That is no failure by itself, as many phrases would fit. Here is the middle, which begins after *function of* and ends before *list*, filled with 1, 2, 8 and 64 leaps:

# %%
print("original:", docs.tokenizer.decode(original[28:52].tolist()).replace("\n", " "))
for K in (1, 2, 8, 64):
    x = sample(*docs_parts, (1, len(original)), K,
               clamp=torch.where(docs_patterns["both given"], -1, original),
               generator=torch.Generator().manual_seed(0))  # fmt: skip
    print(f"K = {K:2}:  ", docs.tokenizer.decode(x[0, 28:52].tolist()).replace("\n", " "))

# %% [markdown]
# One filling for each $K$ proves little. With 1 and 2 leaps the phrase ends in *the the*; with 8 and 64 its end does not fit the *list* after it.
#
# `fill` and `sample` draw the same texts. `fill` gives each text a generator of its own, so text number $i$ of a seed is the same however many are asked for. `write` takes a prompt, a suffix, or both:

# %%
for how in ({"prompt": "Return True if"}, {"suffix": " is raised."},
            {"prompt": "Return True if", "suffix": ", otherwise return False."}):  # fmt: skip
    for written in docs.write(num=2, length=18, steps=64, **how):
        print(repr(written))

# %% tags=["hide-cell"]
from sedd_mini.samplers import generators

(filled,) = docs.fill(text, gap=1, steps=64, seed=4)
held = template(docs.tokenizer, text=text, gap=1)
x = sample(*docs_parts, (1, len(held)), 64, clamp=held, generator=generators(4, 1))
assert filled == docs.tokenizer.decode(x[0].tolist())

# %% [markdown]
# The network was trained on blocks of 128 tokens, not on such short texts.
#
# From a terminal, in the folder of this chapter:
#
#     python -m sedd_mini sample --checkpoint checkpoints/docs-absorb --num 4 --text "The ____ statement"
#
# There, `--gap` sets the tokens of a gap, `--prompt` and `--suffix` fix the ends of a text of `--length` tokens, and `--show` lets you watch the text form.

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023. Prompting and infilling by Bayes' rule, and the comparison with GPT-2.
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete State-Spaces*](https://arxiv.org/abs/2107.03006), 2021. Absorbing (MASK) noise, and its kinship with masked language models.
# - A. Lugmayr and others, [*RePaint: Inpainting using Denoising Diffusion Probabilistic Models*](https://arxiv.org/abs/2201.09865), 2022. Replacing, for pictures, with repeated steps back and forth that make its error smaller.
# - B. Trippe and others, [*Diffusion Probabilistic Modeling of Protein Backbones in 3D for the Motif-Scaffolding Problem*](https://arxiv.org/abs/2206.04119), 2022. Why replacing is not exact, and weights with resampling that are.
# - L. Wu and others, [*Practical and Asymptotically Exact Conditional Sampling in Diffusion Models*](https://arxiv.org/abs/2306.17775), 2023. Weights and resampling at every step, for any condition.
# - M. Bavarian and others, [*Efficient Training of Language Models to Fill in the Middle*](https://arxiv.org/abs/2207.14255), 2022. How left-to-right models learn it.
# - K. Pillutla and others, [*MAUVE: Measuring the Gap Between Neural Text and Human Text using Divergence Frontiers*](https://arxiv.org/abs/2102.01454), 2021. The score of the published comparison.
# - What came later: S. Nie and others, [*Large Language Diffusion Models*](https://arxiv.org/abs/2502.09992), 2025. LLaDA, with eight billion weights: masked diffusion that continues a clamped prompt, and reveals the words it is surest of first.
# - Also later: K. Zheng and others, [*Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling*](https://arxiv.org/abs/2409.02908), 2024. One token at a time, at the moments at which the process itself would reveal them.
