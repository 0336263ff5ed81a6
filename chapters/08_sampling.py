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
# # 08. Sampling: in how few steps can noise become text?
#
# The reverse process of chapter 01 changes one token at a time, and each change alters the ratios everywhere. Followed exactly, a page of 1024 tokens costs at least 1024 calls of the network.
# Samplers change many tokens at once, a few dozen times in all. This chapter measures what that costs in quality.
#
# After this chapter you will be able to
#
# - take a step of **Euler's** and of **Tweedie's** sampler by hand, and prove which step is best if every token must move on its own;
# - measure the error of a sampler with $K$ steps, exactly on small worlds, and separate the effects of noise, schedule and step;
# - compute how 24-bit random numbers distort a sampler, and why its text then looks better than it is.
#
# *You need* chapters 01, 03 and 05; networks of the kind that chapter 07 trains are loaded. *Running time:* about a minute and a half on two CPU cores.

# %% [markdown]
# ## The lines of the page
#
# ```python
#     for t, s in pairwise(torch.linspace(1, 0, steps + 1)):
#         chances = model(x).softmax(-1)  # (B, L, N)
#         guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
#         shown = torch.rand(x.shape) < (t - s) / t
#         x = torch.where((x == MASK) & shown, guess, x)
# ```
#
# In each of `steps` steps the page reveals several words at once. Are these right together? How many steps are enough? And is `torch.rand(...) < p` exact?

# %% [markdown]
# ## A picture first
#
# A network trained on the language of 40 words (chapter 00) starts with twelve hidden words, ■, and takes eight steps.

# %%
import math
from itertools import pairwise

import torch
from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, UniformGraph, plots
from sedd_mini.network.pretrained import load_pretrained
from sedd_mini.samplers import sample
from sedd_mini.text.tokenizers import load_tokenizer

plots.use_style()
torch.set_num_threads(1)  # networks as small as ours are fastest on one core
network, graph, noise = load_pretrained("checkpoints/synthetic-absorb")
words, film = load_tokenizer("checkpoints/synthetic-absorb"), []
sample(
    network, graph, noise, (1, 12), steps=8, generator=torch.Generator().manual_seed(24),
    callback=lambda step, t, x: film.append((t, x[0])),
);  # fmt: skip

# %% tags=["hide-input"]
#| alt: A grid of nine rows and twelve columns. The first row is all hidden; each row shows some new
#| words, up to three at once. The last reads: cats follow every birds . this small dog near a
#| river sings.
film = film[:-1]  # without the last step of section 5, which finds nothing hidden here
rows = torch.stack([x for _, x in film])  # (9, 12)
new = torch.zeros_like(rows, dtype=torch.bool)
new[1:] = rows[1:] != rows[:-1]
shown = [["■" if i == graph.mask_id else words.words[i] for i in row] for row in rows]
fig, ax = plots.plt.subplots(figsize=(10, 3.2))
plots.show_tokens(ax, shown, new, [f"t = {t:.3f}" for t, _ in film])
ax.set_title("“every” and “birds” appear in the same step, and do not fit");

# %% tags=["hide-cell"]
assert " ".join(shown[-1]) == "cats follow every birds . this small dog near a river sings"
assert new[2].nonzero()[:, 0].tolist() == [2, 3, 10] and film[2][0] == 0.7500025

# %% [markdown]
# *What to see.* Read downwards: each row is one step later, and tinted words are new. At $t = 0.75$ *every* and *birds* appear in one step. Each is a good guess for the words visible before, but neither knew of the other. (The seed was chosen to show this.)

# %% [markdown]
# ## 1. Two words that must agree
#
# The smallest world with this problem has two tokens: *cat* or *cats*, then *sleeps* or *sleep*. In nine texts of ten they agree.
# The exact way back reveals one word, and then the other from ratios that have seen the first. The hasty way reveals both from the ratios at ■ ■: half *cat*, half *sleeps*, independently.
#
# Error is measured in **total variation** (TV), half the sum of the absolute differences: 0 for equal laws, 1 for laws with nothing in common.
#
# *Predict:* what is the TV between the data and the hasty way? Then run the next cell.

# %% tags=["nbval-check-output"]
from sedd_mini.worlds.ctmc import Chain, total_variation

agreeing = torch.tensor([[0.45, 0.05], [0.05, 0.45]], dtype=torch.float64)  # row: cat, cats
pair = Chain(AbsorbingGraph(2), agreeing)  # the oracle of chapter 01
both_at_once = agreeing.sum(1)[:, None] * agreeing.sum(0)
print(f"TV from the data: {total_variation(both_at_once, agreeing):.2f}")

# %% [markdown]
# **τ-leaping** lies between the two ways. Gillespie (2001) invented it for molecules: hold the ratios fixed for a short time τ, let every token jump on its own meanwhile, then compute the ratios again.
# Take $K$ equal leaps with the log-linear schedule (the page's: the hidden share grows like $t$). Each word then appears in leap 1, 2, …, $K$ with probability $1/K$ each. Both appear in the *same* leap with probability $K \cdot \frac1K \cdot \frac1K = \frac1K$, and only then do they ignore each other:
#
# $$\text{law of } K \text{ leaps} = \Big(1 - \frac1K\Big)\, p_0 + \frac1K\, p(\text{noun})\, p(\text{verb}), \qquad \text{TV} = \frac{0.4}{K} .$$

# %% tags=["hide-input"]
#| alt: Three tables of two by two numbers. The data: 0.45 on the diagonal, 0.05 beside it. Four
#| leaps: 0.40 and 0.10. One leap: all four numbers are 0.25.
laws = {
    "the data": agreeing,
    "four leaps: TV 0.10": 0.75 * agreeing + 0.25 * both_at_once,
    "one leap: TV 0.40": both_at_once,
}
fig = plots.show_agreement(laws, ["cat", "cats"], ["sleeps", "sleep"])
fig.suptitle("The fewer leaps, the less the two words agree", x=0.01, ha="left", fontsize=12);

# %% [markdown]
# *What to see.* Each table is a law of the pair. Single words keep their probabilities of one half in all three. Only the agreement is lost. Section 5 runs the sampler and finds $0.4/K$ to four digits.

# %% [markdown]
# ## 2. Euler's leap
#
# In a short time $\Delta t$ a token at $x$ jumps to $y$ with probability $\Delta t$ times its reverse rate $\sigma(t)\, Q(x, y)\, s_y$ (chapter 03, section 10). With $d = \Delta t\,\sigma(t)$:
#
# $$p(y) = d\; Q(x, y)\, s_y \quad (y \ne x), \qquad p(x) = 1 - \sum_{y \ne x} p(y) .$$

# %%
def euler_naive(Q, x, s, d):
    p = d * Q[x] * s  # (S,)
    p[x] = 0
    p[x] = 1 - p.sum()
    return p

# %% [markdown]
# To look at it we take a larger world, `rings`: pairs of tokens with eight values each, and uniform noise. The library's `reverse_rates` holds the rates of all tokens at once, with minus their sum at $x$ itself, so one only has to add 1 there.

# %%
from sedd_mini.worlds.toys import two_token_world

rings = Chain(UniformGraph(8), two_token_world("rings", 8))
Q, x = rings.token_rates(), rings.states  # (8, 8), (64, 2): every pair


def euler_probs(graph, x, s, d):
    here = torch.nn.functional.one_hot(x, graph.num_states)
    return here + d * graph.reverse_rates(x, s)  # (*x.shape, S)


s = rings.scores(1.0)  # (64, 2, 8) at σ̄ = 1: of each pair, each token, each value
naive = torch.stack([euler_naive(Q, x[n, i], s[n, i], 0.1) for n in range(64) for i in (0, 1)])
assert torch.allclose(euler_probs(rings.graph, x, s, 0.1), naive.view(64, 2, 8))

# %% [markdown]
# The rates are those at the start of the leap. In a long leap, a rate times $\Delta t$ can exceed 1, and then the token would stay with a *negative* probability. Here is one of $K$ leaps with the geometric schedule, from $t = 0.75$:

# %% tags=["nbval-check-output"]
schedule, t = GeometricNoise(), torch.tensor(0.75).double()
for K in (100, 20, 8):
    d, s = schedule.rate(t) / K, rings.scores(schedule.total(t).item())
    probs = euler_probs(rings.graph, x, s, d)
    negative = (probs < 0).any(-1).double().mean()
    print(f"K = {K:3}: lowest probability {probs.min():5.2f}, "
          f"{100 * negative:2.0f} % of tokens have one below 0")  # fmt: skip

# %% [markdown]
# The usual remedy: count negative entries as 0, and divide the row by its sum. A network's inexact ratios make this necessary for every sampler.

# %%
def valid(probs):
    probs = probs.clamp(min=0)
    return probs / probs.sum(-1, keepdim=True)

# %% [markdown]
# ## 3. Tweedie's leap
#
# Euler uses the reverse rate at one moment. But the forward noise of a single token is known over any stretch: the kernel of $\Delta\bar\sigma$ more noise is $\exp(\Delta\bar\sigma Q)$. Can the ratios at $t$ then say where one token was when there was $\Delta\bar\sigma$ less noise?
#
# Let $v_y$ be the probability that this token was $y$ then, *and* that all other tokens are now what we see. In between, this token went through its own noise. So, for every value $z$ that it might have now,
#
# $$p_t(x \text{ with } z) = \sum_y \exp(\Delta\bar\sigma Q)(z, y)\; v_y .$$
#
# Divide by $p_t(x)$. The left side becomes the ratio $s_z$, so $s = \exp(\Delta\bar\sigma Q)\, v / p_t(x)$. The inverse of a matrix exponential has a minus sign: $v / p_t(x) = \exp(-\Delta\bar\sigma Q)\, s$. Last, the token must have gone from $y$ to where it is now, $x$:
#
# $$\boxed{\;p(\text{was } y \mid x_t) = \big[\exp(-\Delta\bar\sigma Q)\, s\big]_y \; \exp(\Delta\bar\sigma Q)(x, y)\;} \qquad s_x = 1 .$$
#
# Nothing was approximated. The name recalls Tweedie's formula, which gives the mean clean value from the score of Gaussian noise.

# %%
def tweedie_naive(Q, x, s, dsigma):
    was = torch.matrix_exp(-dsigma * Q) @ s  # (S,)
    return was * torch.matrix_exp(dsigma * Q)[x]

# %% [markdown]
# Brute force can check it. Bayes' rule gives the **joint posterior**, where *both* tokens were, for every present pair. Summing out one token must give Tweedie's row for the other.

# %%
def joint_posterior(chain, sigma, dsigma):
    """p(x_earlier | x_t), (n, S, S): row x_t, then the two tokens of x_earlier."""
    kernel, x = chain.kernel(dsigma), chain.states
    earlier, p_t = chain.marginal(sigma - dsigma).flatten(), chain.marginal(sigma).flatten()
    forward = kernel[x[:, None], x[None]].prod(-1)  # (n, n): p(x_t | x_earlier)
    return (forward * earlier / p_t[:, None]).unflatten(1, chain.p0.shape)

# %%
sigma, dsigma = 1.0, 0.4
s, truth = rings.scores(sigma), joint_posterior(rings, sigma, dsigma)
alone = torch.stack([truth.sum(2), truth.sum(1)], 1)  # (64, 2, 8): each token alone
naive = [tweedie_naive(Q, x[n, i], s[n, i], dsigma) for n in range(64) for i in (0, 1)]
assert torch.allclose(torch.stack(naive).view(64, 2, 8), alone)
assert torch.allclose(rings.graph.tweedie_probs(x, s, dsigma), alone)  # the library's closed form

# %% [markdown]
# So with exact ratios Tweedie's leap gives each token its exact law, however long the leap. Only the error of section 1 is left: within a leap, tokens do not see each other.

# %% [markdown]
# ## 4. The best that tokens can do alone
#
# Lou, Meng and Ermon prove that no leap which moves every token on its own is better than Tweedie's. Let $P$ be the joint posterior, $P_1$ and $P_2$ its marginals, and $R_1 R_2$ any law under which the two tokens are independent. Split the logarithm:
#
# $$\mathrm{KL}(P\,\|\,R_1R_2) = \mathbb E_P \log\frac{P}{P_1P_2} + \mathbb E_P\log\frac{P_1P_2}{R_1R_2}
# = \underbrace{\mathrm{KL}(P\,\|\,P_1P_2)}_{\text{total correlation}} + \sum_i \mathrm{KL}(P_i\,\|\,R_i) .$$
#
# The first term contains no $R$, so **every token-wise leap pays it**. It measures how much the two tokens tell about each other. The second is 0 exactly if $R_i = P_i$, and that is Tweedie.

# %%
def errors_of_leap(chain, sigma, dsigma, probs):
    """KL(joint posterior ‖ product of rows probs (n, 2, S)) in nats, and TV; means over x_t."""
    truth = joint_posterior(chain, sigma, dsigma)
    leap = probs[:, 0, :, None] * probs[:, 1, None, :]  # (n, S, S)
    kl = torch.where(truth > 0, truth * (truth / leap).log(), 0).sum((1, 2))  # (n,)
    tv = (truth - leap).abs().sum((1, 2)) / 2
    p_t = chain.marginal(sigma).flatten()
    return (p_t @ kl).item(), (p_t @ tv).item()

# %%
lengths, losses = torch.logspace(-2, math.log10(0.5), 12).tolist(), {}
for dsigma in lengths:
    tweedie = rings.graph.tweedie_probs(x, s, dsigma)
    euler = valid(euler_probs(rings.graph, x, s, dsigma))
    losses[dsigma] = [errors_of_leap(rings, sigma, dsigma, rows) for rows in (tweedie, euler)]

# %% tags=["hide-input"]
#| alt: Two straight lines on logarithmic axes, loss in nats against length of the leap from 0.01 to
#| 0.5. The total correlation rises with slope 2, Euler's own loss with slope 3 from far below.
both = torch.tensor(list(losses.values()))  # (12, 2, 2): length, method, KL and TV
shared, own = both[:, 0, 0], both[:, 1, 0] - both[:, 0, 0]
fig, ax = plots.plt.subplots(figsize=(7, 3.6))
ax.loglog(lengths, shared, "o-", color=plots.BLUE)
ax.loglog(lengths, own, "s-", color=plots.ORANGE)
ax.annotate("total correlation:\nevery token-wise leap pays this", (0.011, 2e-3), color=plots.BLUE)
ax.annotate("Euler pays this as well", (0.075, 6e-6), color=plots.ORANGE)
ax.set(xlabel="length of the leap Δσ̄", ylabel="loss in nats")
ax.set_title("In short leaps Euler loses little more than Tweedie");

# %% [markdown]
# *What to see.* One leap down from $\bar\sigma = 1$, judged against the joint posterior. The total correlation grows with the square of the length, since it takes two tokens that move. Euler's own loss grows with the cube. (Euler gets $d = \Delta\bar\sigma$ here.)
#
# **One case has no difference.** At MASK both leaps reveal $y$ with probability $c\, s_y$, where Euler has $c = \Delta t\,\sigma(t)$ and Tweedie $c = e^{\Delta\bar\sigma} - 1$. For the log-linear schedule let $u = 1 - (1 - \varepsilon)t$, with $\varepsilon = 10^{-3}$ the share still visible at $t = 1$. Then $\bar\sigma = -\log u$, $\sigma(t) = (1 - \varepsilon)/u$, and both are $(u' - u)/u$ for $u'$ at the earlier time. With MASK and the log-linear schedule, which the paper pairs, Euler **is** Tweedie.

# %% tags=["hide-cell"]
factor = math.log(lengths[3] / lengths[0])
slopes = [(v[3] / v[0]).log().item() / factor for v in (shared, own, both[:, 0, 1])]
assert all(abs(slope - whole) < 0.1 for slope, whole in zip(slopes, (2, 3, 2)))
t, t_next = torch.tensor([0.5, 0.4]).double()
ratios = []
for schedule in (LogLinearNoise(), GeometricNoise()):
    c_tweedie = torch.expm1(schedule.total(t) - schedule.total(t_next))
    ratios.append((t - t_next) * schedule.rate(t) / c_tweedie)
assert abs(ratios[0] - 1) < 1e-12 and abs(ratios[1] - 1) > 0.1

# %% [markdown]
# ## 5. $K$ leaps: which choice matters?
#
# A run takes $K$ leaps at equally spaced times from $t = 1$ to $10^{-5}$, and a **last step** that removes all remaining noise: Tweedie's leap with $\Delta\bar\sigma = \bar\sigma$. On a small world the *whole law* can be pushed through each leap, so no sampling is needed:

# %%
def push(p, probs):
    """The law p (S, S) after each token moves by its own row of probs (n, 2, S)."""
    return torch.einsum("n,na,nb->ab", p.flatten(), probs[:, 0], probs[:, 1])


def run_law(chain, schedule, K, leap):
    """leap(graph, x, s, t, t_next, schedule) → rows (n, 2, S); K leaps and the last step."""
    g, x = chain.graph, chain.states
    times = torch.linspace(1, 1e-5, K + 1).double()
    p = g.limit_log_prob(torch.arange(g.num_states)).exp()[x].prod(-1)  # noise
    for t, t_next in pairwise(times):
        s = chain.scores(schedule.total(t).item())  # (n, 2, S)
        p = push(p, leap(g, x, s, t, t_next, schedule))
    sigma = schedule.total(times[-1]).item()
    return push(p, g.tweedie_probs(x, chain.scores(sigma), sigma))

# %%
def tweedie(g, x, s, t, t_next, schedule):
    return g.tweedie_probs(x, s, schedule.total(t) - schedule.total(t_next))


def euler(g, x, s, t, t_next, schedule):
    return valid(euler_probs(g, x, s, (t - t_next) * schedule.rate(t)))

# %% tags=["nbval-check-output"]
for K in (1, 2, 8, 32):
    law = run_law(pair, LogLinearNoise(), K, tweedie)
    print(f"two words, K = {K:2}: TV {total_variation(law, agreeing):.4f}")

# %% [markdown]
# That is $0.4/K$. Now the spiral of chapter 01: two tokens with 32 values each. The paper pairs the uniform graph with the geometric schedule, $\bar\sigma = \sigma_{\min}^{1-t}\sigma_{\max}^t$, and the absorbing graph (MASK) with the log-linear one. Two things differ between these samplers.
#
# *Predict:* which matters more, the graph or the schedule? The next cell runs all four combinations.

# %% tags=["nbval-check-output"]
spiral, Ks = two_token_world("spiral"), [1, 2, 4, 8, 16, 32, 64]
chains = {"uniform": Chain(UniformGraph(32), spiral), "absorbing": Chain(AbsorbingGraph(32), spiral)}
schedules = {"geometric": GeometricNoise(), "log-linear": LogLinearNoise()}
curves = {}
for graph_name, chain in chains.items():
    for name, schedule in schedules.items():
        tv = [total_variation(run_law(chain, schedule, K, tweedie), chain.p0) for K in Ks]
        curves[graph_name, name] = tv
        print(f"{graph_name:9} {name:10}  TV at K = 8: {tv[3]:.3f}, at K = 64: {tv[6]:.4f}")

# %% tags=["hide-input"]
#| alt: Four falling curves of TV against the number of leaps K on logarithmic axes. From K = 8 on
#| both log-linear curves lie below both geometric ones, and all run parallel to a line 1/K.
fig, ax = plots.plt.subplots(figsize=(8.4, 4.2))
plots.show_error_curves(ax, Ks, curves, {"uniform": plots.BLUE, "absorbing": plots.ORANGE},
                        {"geometric": "--", "log-linear": "-"})  # fmt: skip
ax.set(xlabel="leaps K", ylabel="TV from the data")
ax.set_title("From 8 leaps on, both log-linear samplers beat both geometric ones");

# %% [markdown]
# *What to see.* Colour is the graph, dashes the schedule. At $K = 64$ the log-linear schedule divides the error by 1.6 on the uniform graph and by 3.1 on the absorbing one. The graph's effect has no fixed sign: going to MASK divides the error by 1.2 with the log-linear schedule and multiplies it by 1.6 with the geometric one. So a comparison of the paper's two pairs is mostly a comparison of schedules.
#
# All four errors roughly halve when $K$ doubles. There is **a bound for $K$ leaps**. A wrong leap changes the law by its own TV at most, and later leaps never enlarge a difference of two laws. So the TV of the run is at most the sum of the TVs of its leaps, each from the true noisy law, plus that of the start. A leap's TV falls like its length squared, so $K$ leaps give $K \cdot K^{-2} = 1/K$. (Campbell and others, 2022, prove a bound of this kind for networks, with a term for wrong ratios.) The laboratory computes ours. It is loose: four to five times the true error on the rings.

# %% tags=["hide-cell"]
at_64 = {key: tv[6] for key, tv in curves.items()}
gain = [at_64[g, "geometric"] / at_64[g, "log-linear"] for g in chains]
assert abs(gain[0] - 1.6) < 0.05 and abs(gain[1] - 3.1) < 0.05
by_graph = [at_64["uniform", n] / at_64["absorbing", n] for n in schedules]
assert abs(1 / by_graph[0] - 1.6) < 0.05 and abs(by_graph[1] - 1.2) < 0.05
for k in range(3, 7):
    assert max(curves[g, "log-linear"][k] for g in chains) < min(
        curves[g, "geometric"][k] for g in chains
    )
assert all(1.6 < tv[5] / tv[6] < 2.3 for tv in curves.values())

# %% [markdown]
# ## 6. Euler or Tweedie, over a whole run?
#
# Per leap Tweedie is best. Does it follow that a run ends nearest to the data? On the uniform graph:

# %% tags=["nbval-check-output"]
for name, schedule in schedules.items():
    for K in (8, 64):
        ends = [run_law(chains["uniform"], schedule, K, leap) for leap in (tweedie, euler)]
        a, b = (total_variation(law, spiral) for law in ends)
        print(f"{name:10} K = {K:2}: Tweedie {a:.4f}, Euler {b:.4f}")

# %% [markdown]
# With log-linear noise Euler ends farther away. With geometric noise it ends **nearer**. The theorem does not forbid this: it is about single leaps from the true noisy law, in KL, and not about where $K$ leaps end.
#
# On the geometric schedule Euler's $d = \Delta t\,\sigma(t)$ is more than $\Delta\bar\sigma$, since $\sigma(t)$ is highest at the start of the leap: 1.098 times as much at $K = 64$. Is it the formula or this distance that helps? We give **both** methods the distance $f \cdot \Delta\bar\sigma$, and vary $f$.

# %%
def stretched(method, f):
    def leap(g, x, s, t, t_next, schedule):
        d = f * (schedule.total(t) - schedule.total(t_next))
        rows = g.tweedie_probs(x, s, d) if method == "Tweedie" else euler_probs(g, x, s, d)
        return valid(rows)

    return leap


t, factors = torch.tensor([1, 1 - (1 - 1e-5) / 64]).double(), [0.95, 1, 1.05, 1.098, 1.15, 1.2]
geometric = schedules["geometric"]
f_euler = ((t[0] - t[1]) * geometric.rate(t[0]) / (geometric.total(t[0]) - geometric.total(t[1])))
swept = {
    name: [total_variation(run_law(chains["uniform"], geometric, 64, stretched(name, f)), spiral)
           for f in factors]
    for name in ("Tweedie", "Euler")
}  # fmt: skip

# %% tags=["hide-input"]
#| alt: Two U-shaped curves of TV against the factor f from 0.95 to 1.2. Tweedie is lowest at 1.05,
#| Euler near 1.1. Circles mark Tweedie as defined at 1 and Euler as defined at 1.098.
fig, ax = plots.plt.subplots(figsize=(8, 3.8))
plots.show_stretch(ax, factors, swept, {"Tweedie": 1.0, "Euler": 1.098})
ax.set(xlabel="distance of each leap, as a multiple f of Δσ̄", ylabel="TV from the data, K = 64")
ax.set_title("Both methods end nearer to the data if each leap goes a little too far");

# %% [markdown]
# *What to see.* Circles: the methods as they are defined. At equal distance $f = 1$ Euler is the worse one (0.0155 against 0.0133). Given Euler's distance, Tweedie does not improve (0.0133), though it would at $f = 1.05$ (0.0118). Euler's own 1.098 happens to lie near the best that Euler can do, 0.0105.
#
# So Euler's lead needs both the formula and the distance, and the extra distance alone is no second chance to repair wrong pairs. We have no explanation why leaps that go a little too far end nearer, and claim none.

# %% tags=["hide-cell"]
assert abs(f_euler - 1.098) < 0.001
tw, eu = (dict(zip(factors, swept[name])) for name in ("Tweedie", "Euler"))
assert abs(tw[1] - 0.0133) < 1e-4 and abs(eu[1] - 0.0155) < 1e-4
assert abs(tw[1.098] - 0.0133) < 1e-4 and abs(tw[1.05] - 0.0118) < 1e-4
assert abs(eu[1.098] - 0.0105) < 1e-4 and min(eu, key=eu.get) == 1.098
assert min(tw, key=tw.get) == 1.05

# %% [markdown]
# ## 7. Which calls count?
#
# A run with uniform noise calls the network at every leap and at the last step, $K + 1$ times. With MASK most of the calls of a long run are wasted. Take a text of $L = 32$ words and the log-linear schedule. Each word appears in one of $K$ leaps, so the number of leaps in which anything appears is on average
#
# $$K \Big(1 - \big(1 - \tfrac1K\big)^L\Big) .$$
#
# In the others the network would see the same words again. The page can skip these calls: *which* words appear does not depend on the network, so decide that first.

# %%
def write(x, model, times, mask):
    """The page's sampler, with a call only where something appears; x (1, L)."""
    for t, s in pairwise(times):
        shown = (x == mask) & (torch.rand(x.shape, dtype=torch.float64) < (t - s) / t)
        if shown.any():
            chances = model(x)  # (B, L, N)
            guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
            x = torch.where(shown, guess, x)
    return x

# %%
from sedd_mini.text.synthetic import SyntheticLanguage

language = SyntheticLanguage()
V, calls = language.vocab_size, []


def exact_guess(x):
    """p(word | visible words) from the language itself (forward–backward), (B, L, V)."""
    calls.append(1)
    return language.posterior(x.clamp(max=V - 1), known=x != V)

# %%
torch.manual_seed(0)
for K in (8, 32, 256):
    calls.clear()
    for _ in range(20):  # texts
        write(torch.full((1, 32), V), exact_guess, torch.linspace(1, 0, K + 1).double(), mask=V)
    expected = K * (1 - (1 - 1 / K) ** 32)
    print(f"K = {K:3}: {len(calls) / 20:4.1f} calls a text; expected {expected:.1f}")
    assert abs(len(calls) / 20 - expected) < 1.5

# %% [markdown]
# Of 256 leaps only 30 need the network, and never can more than 32. This suggests **one word a call**: reveal the places one after the other in random order. With exact guesses it needs $L = 32$ calls, and its law is exactly the data's. Chapter 12 builds on this.

# %% [markdown]
# ## 8. Quality against calls, on text
#
# We sample blocks of 32 words of the language with exact ratios and with the trained network, and judge them by the language's exact $-\log_2 p$, in bits a word. With exact ratios all excess over real text is due to leaping.

# %%
def exact_model(x, sigma, at):
    """log-scores (M, V + 1) at the places `at`: log of p(word | visible) / (e^σ̄ - 1)"""
    posterior = language.posterior(x.clamp(max=V - 1), known=x != V)
    log_score = posterior.log() - sigma.double().expm1().log()[:, None, None]
    return torch.nn.functional.pad(log_score, (0, 1))[at].float()


def bits(x):
    """Mean of -log2 p(x) / L over blocks x (B, L), and its standard error."""
    each = -language.log_prob(x) / math.log(2) / x.shape[1]
    return each.mean().item(), (each.std() / math.sqrt(len(each))).item()

# %%
@torch.no_grad()
def one_by_one(model, graph, shape, level=1.0, seed=0):
    """Reveal one hidden place a call, in random order; the model is told σ̄ = level."""
    generator = torch.Generator().manual_seed(seed)
    x, sigma = graph.sample_limit(shape), torch.full(shape[:1], level)
    order = torch.rand(shape, generator=generator).argsort(-1)
    for place in order.T:  # L times (B,)
        at = torch.nn.functional.one_hot(place, shape[1]).bool()  # (B, L): one True a row
        weights = model(x, sigma, at=at)[:, : graph.num_tokens].double().exp()
        x[at] = torch.multinomial(weights, 1, generator=generator)[:, 0]
    return x

# %%
true_bits, true_error = bits(language.sample(8192, 32, torch.Generator().manual_seed(0)))
many, blocks = [1, 2, 4, 8, 16, 32, 64], {}
for name, model, num in (("exact ratios", exact_model, 192), ("network", network, 96)):
    for K in many:
        seed = torch.Generator().manual_seed(K)
        x = sample(model, graph, noise, (num, 32), K, generator=seed)
        blocks[name, K] = bits(x)
single = {
    "exact ratios": bits(one_by_one(exact_model, graph, (384, 32))),
    "network": bits(one_by_one(network, graph, (384, 32))),
}

# %% [markdown]
# Then Python's documentation in blocks of 128 tokens. Nobody knows its true law, so a judge stands in: a 5-gram model of the training text (`KneserNey`). Its bits a token are a generative perplexity on a log scale, and it can be fooled. So `report` prints the entropy of the samples' tokens as well, always of 16 blocks, since the entropy of a small sample depends on its size.

# %%
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.ngram import KneserNey

docs_network, docs_graph, _ = load_pretrained("checkpoints/docs-absorb")
bpe = load_tokenizer("checkpoints/docs-absorb")
corpus = load_corpus("docs", 128, tokenizer=bpe)
judge = KneserNey(corpus.train.arrays[0], 5, bpe.vocab_size)


def report(name, x):
    """Print and return the judge's bits a token, their standard error, and the tokens' entropy."""
    each = -judge.log2_prob(x).mean(1)  # (16,)
    judged, error = each.mean().item(), each.std().item() / math.sqrt(len(x))
    share = x.flatten().bincount().double() / x.numel()
    entropy = -torch.xlogy(share, share).sum().item() / math.log(2)
    print(f"{name:20} {judged:5.2f} ± {error:.2f} bits a token, entropy {entropy:.2f} bits")
    return judged, error, entropy

# %%
def docs_samples(K, model=docs_network):
    generator = torch.Generator().manual_seed(0)
    return sample(model, docs_graph, noise, (16, 128), K, generator=generator)


real = report("validation text", corpus.valid[range(0, 160, 10)])
docs = {K: report(f"K = {K}", docs_samples(K)) for K in (1, 4, 16, 64)}
docs[128] = report("one token a call", one_by_one(docs_network, docs_graph, (16, 128)))

# %% tags=["hide-input"]
#| alt: Two panels against the number of calls. Left, excess bits a word on a log axis: exact ratios
#| fall in half with each doubling; the network levels off near 0.1. Right, the judge's bits a token
#| fall from about 9 to 5 and stay above validation text.
excess = {
    name: [(blocks[name, K][0] - true_bits, blocks[name, K][1]) for K in many]
    for name in single
}
stars = {name: (bits_[0] - true_bits, bits_[1]) for name, bits_ in single.items()}
fig = plots.show_quality_against_calls(many, excess, stars["network"], docs, real[0])

# %% [markdown]
# *What to see.* Left, both axes logarithmic: what samples cost beyond true text. With exact ratios the excess about halves when $K$ doubles. The network adds a part of its own that more leaps do not remove; the star, one word a call, shows it without leaping. Right: a steep fall, then little. The star, with twice the calls, is no better than 64 leaps. What lies between it and validation text is not due to leaping.

# %% tags=["hide-cell"]
ideal = {K: blocks["exact ratios", K][0] - true_bits for K in many}
for K in (4, 8, 16):
    assert 1.5 < ideal[K] / ideal[2 * K] < 3
assert abs(single["exact ratios"][0] - true_bits) < 4 * math.hypot(
    single["exact ratios"][1], true_error
)
assert single["network"][0] - true_bits > 3 * math.hypot(single["network"][1], true_error)
assert docs[1][0] - 1 > docs[4][0] > docs[64][0] + 0.6 and docs[64][0] > real[0] + 0.7
assert abs(docs[128][0] - docs[64][0]) < 2 * math.hypot(docs[128][1], docs[64][1])

# %% [markdown]
# ## 9. Random numbers have 24 bits
#
# Many implementations draw a token from probabilities $p_y$ by **Gumbel noise**: give each entry the number $g_y = -\log(-\log u_y)$ with $u_y$ uniform in $(0, 1)$, and take the $y$ with the largest $\log p_y + g_y$. This is exact for real numbers: $E_y = -\log u_y$ is an exponential waiting time, $y$ wins if $E_y/p_y$ is the shortest, and that has probability $p_y$ (chapter 01's competing clocks).
#
# In float32, $u$ is one of $2^{24}$ multiples of $2^{-24}$. The smallest values of $E_y$ are, very nearly, $2^{-24}, 2 \cdot 2^{-24}, 3 \cdot 2^{-24}, \dots$, each with probability $2^{-24}$. Take a rare move of probability $p$ beside a stay of nearly 1, as in most steps of a long run. The move wins with probability $e^{-E_y/p}$. With $c = p \cdot 2^{24}$, the number of random numbers that the move is entitled to,
#
# $$P(\text{move}) = \sum_{k=1}^\infty 2^{-24}\, e^{-k/c} = \frac{2^{-24}}{e^{1/c} - 1}, \qquad \boxed{\;\frac{P(\text{move})}{p} = \frac{1/c}{e^{1/c} - 1}\;}$$

# %%
def kept(c):
    """The share of its probability that a rare move keeps, c = p · 2^bits."""
    return 1 / c / torch.expm1(1 / c)

# %% [markdown]
# There are only $2^{24}$ random numbers, so we can try *all* of them in float32. For each lucky number of the move, count the numbers with which the stay loses:

# %%
u = torch.arange(2**24) / 2**24  # float32: every random number there is
gumbel = -torch.log(-torch.log(u + 1e-10))  # many add 1e-10 or so, against log 0


def tried_all(p):
    """P(move) / p beside a stay of 1 - p, over all pairs of random numbers."""
    p = torch.tensor(p)
    move, stay = gumbel[-(2**18) :] + p.log(), gumbel + torch.log1p(-p)
    return (torch.searchsorted(stay, move).double().sum() / 2**48 / p).item()


rare = [1e-8, 2e-8, 4e-8, 1e-7, 2e-7, 5e-7, 1e-6, 1e-5]
counted = [tried_all(p) for p in rare]

# %% tags=["hide-input"]
#| alt: A curve that rises from 0 to 1 as the probability p of a move goes from 1e-8 to 1e-5. Eight
#| dots lie on it. A horizontal line at 1 is labelled: first whether, then where.
fig, ax = plots.plt.subplots(figsize=(8, 3.6))
grid = torch.logspace(-8.2, -5, 200).double()
ax.semilogx(grid, kept(grid * 2**24), color=plots.ORANGE)
ax.semilogx(rare, counted, "o", color=plots.ORANGE)
ax.axhline(1, color=plots.BLUE, lw=2)
ax.text(7e-9, 1.03, "first whether, then where (float64): all of it", color=plots.BLUE)
ax.text(1.6e-7, 0.62, "line: the formula\ndots: float32, all random numbers tried", color=plots.ORANGE)
ax.set(xlabel="probability p of the move", ylabel="share that happens", ylim=(0, 1.14))
ax.set_title("Drawn by float32 Gumbel noise, rare moves are lost");

# %% [markdown]
# *What to see.* A move of probability $10^{-7}$ loses a quarter of its share, one of $10^{-8}$ nearly all. The library first decides *whether* a token moves, by one float64 number, and then *where*, among the moves alone. This loses nothing (laboratory).
#
# What does it do to text? Take one token with Zipf's law, $\pi_y \propto 1/y$, over GPT-2's 50 257 tokens. The sampler knows $\pi$ exactly. In leap $k$ of $K$ a hidden token becomes $y$ with probability $\pi_y\, \Delta t / t$, and each such move keeps its share.

# %%
def gumbel_run(pi, K, bits=24):
    """The law (N,) of a token after K absorbing leaps drawn by Gumbel noise of so many bits."""
    law, hidden = torch.zeros_like(pi), 1.0
    for k in range(K):
        weights = pi / (K - k)  # Δt/t = (1/K) / (1 - k/K)
        weights = weights * kept((weights * 2**bits).clamp(min=2e-3))
        law += hidden * weights
        hidden *= 1 - weights.sum().item()
    return law / law.sum()

# %% tags=["nbval-check-output"]
pi = 1 / torch.arange(1, 50_258).double()
pi /= pi.sum()
zipf_Ks = [4**i for i in range(1, 7)]
false_laws = [gumbel_run(pi, K) for K in zipf_Ks]
judged = [torch.exp(-(law @ pi.log())).item() for law in false_laws]  # generative perplexity
correct = torch.exp(-(pi @ pi.log())).item()
for K, law, perplexity in zip(zipf_Ks, false_laws, judged):
    print(f"K = {K:4}: generative perplexity {perplexity:5.0f} (correct: {correct:.0f}), "
          f"TV {total_variation(law, pi):.2f}")  # fmt: skip

# %% tags=["hide-input"]
#| alt: Against K from 4 to 4096, a level blue line at about 1900 and two orange curves that
#| start on it and fall: generative perplexity to about 250 and the exponential of the entropy.
variety = [torch.exp(-torch.xlogy(law, law).sum()).item() for law in false_laws]
fig, ax = plots.plt.subplots(figsize=(8, 3.6))
plots.show_false_improvement(ax, zipf_Ks, judged, variety, correct)
ax.set_title("More leaps: the perplexity looks better and the law gets worse");

# %% [markdown]
# *What to see.* At $K = 1024$ the sampler has a third of the correct generative perplexity, though it draws from the true probabilities. It is not better than perfect: it leaves out rare words, its entropy has fallen as well, and a sixth of all probability is in the wrong place. Zheng and others (2024) found this effect in published samplers of masked diffusion. So draw rare events in float64, and **print entropy beside generative perplexity**.

# %% tags=["hide-cell"]
assert judged[4] < 0.4 * correct and 0.14 < total_variation(false_laws[4], pi) < 0.19
c = torch.tensor(rare).double() * 2**24
assert torch.allclose(torch.tensor(counted).double(), kept(c), rtol=0.001)
assert 0.7 < counted[3] < 0.8 and counted[0] < 0.05

# %% [markdown]
# ## What has changed on the page
#
# The page's step is Euler's leap and Tweedie's leap at once (section 4), and it decides whether a word appears apart from which. Two things are better done otherwise: the decision in float64, and no call without a new word (section 7).
#
# ```diff
# -        chances = model(x).softmax(-1)  # (B, L, N)
# -        guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
# -        shown = torch.rand(x.shape) < (t - s) / t
# -        x = torch.where((x == MASK) & shown, guess, x)
# +        shown = (x == MASK) & (torch.rand(x.shape, dtype=torch.float64) < (t - s) / t)
# +        if shown.any():
# +            chances = model(x).softmax(-1)  # (B, L, N)
# +            guess = torch.multinomial(chances.flatten(0, 1), 1).view_as(x)
# +            x = torch.where(shown, guess, x)
# ```
#
# ## Summary
#
# 1. τ-leaping holds the ratios fixed and lets every token jump on its own. Its error comes from tokens that move in the same leap, and falls like $1/K$.
# 2. Euler takes the rates of the moment. Tweedie takes the exact law of each token, $[\exp(-\Delta\bar\sigma Q)s]_y\exp(\Delta\bar\sigma Q)(x,y)$, and no token-wise leap is better in KL. With MASK and log-linear noise they are the same.
# 3. On the spiral the schedule matters more than the graph. A whole run of Euler can end nearer than Tweedie's, through the length of its leaps together with its formula.
# 4. A run on uniform noise calls the network $K + 1$ times. With MASK at most $L$ calls count; one word a call has no error of leaping.
# 5. Drawn by float32 Gumbel noise, a move keeps $(1/c)/(e^{1/c}-1)$ of its probability, $c = p\cdot2^{24}$. Generative perplexity then looks better while the law gets worse.

# %% [markdown]
# ## Exercises
#
# Write your answer into the first cell, run it, then run the check.

# %% [markdown]
# ### Exercise 1. Uneven leaps (★☆☆, 10 minutes)
#
# MASK noise with the log-linear schedule hides a share $t$ of the tokens (neglect ε). A sampler starts at `times[0]` = 1 with two hidden words and leaps through a falling list of times to `times[-1]` = 0, all words on their own. Write `same_leap(times)`: the probability that both words appear in the same leap. Then think: for which lists of $K + 1$ times is it smallest?
#
# <details><summary>Hint</summary>
#
# With what probability does one word appear in the leap from $t$ to $t'$? Look at the hidden shares before and after.
#
# </details>
#
# [Solution](solutions/08_sampling.ipynb)

# %% tags=["exercise"]
def same_leap(times: list[float]) -> float:
    """A probability, for times that fall from 1 to 0."""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise

with exercise("1"):
    generator = torch.Generator().manual_seed(0)
    assert abs(same_leap([1.0, 0.0]) - 1) < 1e-9, "one leap reveals both words"
    for K in (2, 3, 5, 9):
        cuts = torch.rand(K - 1, generator=generator).double().sort(descending=True).values
        times = [1.0, *cuts.tolist(), 0.0]
        moments = torch.rand(400_000, 2, generator=generator).double()  # when each word appears
        leap = torch.searchsorted(cuts.flip(0).contiguous(), moments)
        counted = (leap[:, 0] == leap[:, 1]).double().mean().item()
        found = float(same_leap(times))
        case = f"times {[round(t, 2) for t in times]}"
        assert found != 1 / K, f"{case}: the leaps are not equally long"
        assert abs(found - counted) < 0.004, f"{case}: {found:.3f}, but {counted:.3f} in a simulation"

# %% [markdown]
# ### Exercise 2. A leap that is safe (★★☆, 20 minutes)
#
# Write `leap_probs(Q, x, s, dsigma, last)`: Tweedie's leap for many tokens, any rate matrix `Q` (S, S) with `Q[y, x]` the rate of $x \to y$, and a network's inexact ratios `s` (M, S), with $s_x$ not exactly 1. So: set $s_x = 1$, compute $[\exp(-\Delta\bar\sigma Q)\, s]_y \exp(\Delta\bar\sigma Q)(x, y)$, count what is negative as 0, and let each row sum to 1. If `last` is a state, this is the last step, and no token may end there (for the absorbing graph it is MASK). Use no function of `sedd_mini`.
#
# <details><summary>Hint</summary>
#
# Row $m$ of `s @ A.T` is the matrix `A` times row $m$ of `s`. `kernel[x]` is $\exp(\Delta\bar\sigma Q)(x, y)$ for all $y$. Forbid the state before you normalise.
#
# </details>
#
# [Solution](solutions/08_sampling.ipynb)

# %% tags=["exercise"]
import torch


def leap_probs(Q, x, s, dsigma: float, last: int | None = None):
    """Q (S, S), x (M,), s (M, S) → probabilities (M, S)"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise
from sedd_mini.worlds.toys import small_chains

with exercise("2"):
    for name, (chain, _) in small_chains().items():
        Q, d, generator = chain.token_rates(), 0.3, torch.Generator().manual_seed(0)
        x = chain.states[:, 0]
        exact = chain.scores(0.7)[:, 0]  # (n, S)
        rough = exact * torch.randn(exact.shape, generator=generator).mul(1.5).exp()
        rough[torch.arange(len(x)), x] = 1
        for kind, s in (("exact", exact), ("inexact", rough)):
            wanted = chain.graph.tweedie_probs(x, s, torch.tensor(d).double())
            found = leap_probs(Q, x, s.clone(), d)
            case = f"{name} noise, {kind} ratios"
            assert found.shape == s.shape, f"shape {tuple(found.shape)}, not {tuple(s.shape)}"
            assert found.min() >= 0, f"{case}: a probability is negative"
            ones = torch.ones(len(x)).double()
            assert torch.allclose(found.sum(-1), ones), f"{case}: a row does not sum to 1"
            assert torch.allclose(found, wanted), f"{case}: look at signs, and at rows and columns"
        odd = rough.clone()
        odd[torch.arange(len(x)), x] = 1.4
        again = leap_probs(Q, x, odd, d)
        assert torch.allclose(again, wanted), f"{name} noise: the ratio of x to itself is not 1.4"
        state = len(Q) - 1
        ends = leap_probs(Q, x, rough.clone(), d, last=state)
        movable = wanted[:, :state].sum(-1) > 1e-9  # it can be elsewhere
        assert (ends[movable, state] == 0).all(), f"{name} noise: a token ends where it must not"
        rest = wanted[:, :state] / wanted[:, :state].sum(-1, keepdim=True)
        same = torch.allclose(ends[movable, :state], rest[movable])
        assert same, f"{name} noise, last step: the others must keep their proportions and sum to 1"

# %% [markdown]
# ### Exercise 3. The other way to be wrong (★★☆, 15 minutes)
#
# Deciding by `torch.rand(...) < p` in *float32* is wrong too, but in the other direction. The random numbers are $0, 2^{-24}, 2\cdot2^{-24}, \dots$, up to $1 - 2^{-24}$, each equally likely. Write `factor(p)`: how often `rand < p` is true, divided by $p$, for $2^{-40} \le p < 1$. (Take `p` itself as exact.) What does this do to rare words?
#
# <details><summary>Hint</summary>
#
# Count the random numbers that are smaller than $p$. The number 0 always is.
#
# </details>
#
# [Solution](solutions/08_sampling.ipynb)

# %% tags=["exercise"]
def factor(p: float) -> float:
    """P(rand < p) / p in float32"""
    raise NotImplementedError

# %% tags=["check"]
import random

from sedd_mini.exercises import exercise

with exercise("3"):
    rng = random.Random(0)
    step = 2.0**-24
    for p in [step, 3 * step, *(2.0 ** rng.uniform(-40, -1) for _ in range(200))]:
        count = float(factor(p)) * p / step  # of the random numbers
        assert abs(count - round(count)) < 1e-4, f"p = {p:.3g}: {count:.3f} numbers is no whole number"
        assert count > 0.5, f"p = {p:.3g}: the number 0 is smaller than p"
        # the largest number that counts is (count - 1) steps, and the next one no longer does
        assert (round(count) - 1) * step < p, f"p = {p:.3g}: you count a number that is not below p"
        assert round(count) * step >= p, f"p = {p:.3g}: you leave out a number below p"

# %% [markdown]
# ### Exercise 4. A step that repairs (★★★, 30 minutes)
#
# Forward noise has rates $Q(y, x)$ per unit of $\bar\sigma$, and the reverse process $Q(x, y)\, s_y$. Run forward, the one turns $p_{\bar\sigma}$ into a noisier law; the other undoes exactly this. A **corrector** (Campbell and others, 2022) uses the *sum* of both rates at a fixed noise level. It leaves $p_{\bar\sigma}$ unchanged, and leads other laws towards it. Write `corrector_probs(Q, x, s, h)`: one Euler step of size `h` with these rates, for tokens `x` (M,) with ratios `s` (M, S). `h` is small enough that nothing becomes negative. The check applies it to both tokens of small worlds, and to a law whose tokens are independent.
#
# <details><summary>Hint 1</summary>
#
# Write down the rate of $x \to y$ for $y \ne x$, first as a formula. `Q[y, x]` holds the forward rate of $x \to y$.
#
# </details>
#
# <details><summary>Hint 2</summary>
#
# `Q.T[x]` and `Q[x]` both have shape (M, S). Set the entries at $y = x$ to what is left.
#
# </details>
#
# [Solution](solutions/08_sampling.ipynb)

# %% tags=["exercise"]
import torch


def corrector_probs(Q, x, s, h: float):
    """Q (S, S), x (M,), s (M, S) → probabilities (M, S)"""
    raise NotImplementedError

# %% tags=["check"]
import torch
from sedd_mini.exercises import exercise
from sedd_mini.worlds.ctmc import total_variation
from sedd_mini.worlds.toys import small_chains

with exercise("4"):
    for name, (chain, _) in small_chains().items():
        Q, x, s, p = chain.token_rates(), chain.states, chain.scores(0.7), chain.marginal(0.7)
        n, S = len(x), len(Q)

        def chances(h):
            """Of each pair to each pair in one step, (n, n)."""
            rows = corrector_probs(Q, x.flatten(), s.flatten(0, 1).clone(), h).view(n, 2, S)
            assert (rows >= 0).all(), f"{name} noise: a probability is negative"
            assert torch.allclose(rows.sum(-1), torch.ones(n, 2).double()), "a row must sum to 1"
            return (rows[:, 0, :, None] * rows[:, 1, None, :]).flatten(1)

        drift = [total_variation(p.flatten() @ chances(h), p.flatten()) for h in (0.01, 0.005)]
        line = f"{name} noise: the law p drifts away by {drift[0]:.1e} in a step of 0.01"
        assert drift[0] < 1e-3 and drift[1] < 0.35 * drift[0] + 1e-9, line
        law = p.sum(1)[:, None] * p.sum(0)  # the tokens ignore each other
        start = total_variation(law, p)
        law = law.flatten() @ torch.linalg.matrix_power(chances(0.005), 1500)
        end = total_variation(law, p.flatten())
        assert end < 0.1 * start, f"{name} noise: TV from p goes from {start:.3f} only to {end:.3f}"
        if name == "MASK":
            row = corrector_probs(Q, torch.tensor([0]), s[:1, 0].clone(), 0.01)[0]
            assert abs(row[-1] / 0.01 - 1) < 1e-6, (
                f"MASK noise: a word becomes MASK at rate {row[-1] / 0.01:.3f}, not at the noise's 1"
            )
    even, h = torch.ones(1, 3).double(), 0.01
    Q = torch.full((3, 3), 1 / 3).double() - torch.eye(3)
    moves = 1 - corrector_probs(Q, torch.tensor([0]), even, h)[0, 0]
    assert abs(moves / h - 4 / 3) < 1e-6, (
        f"uniform noise, all ratios 1: a token should leave at rate 4/3, twice that of the noise, "
        f"not {moves / h:.3f}"
    )
