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
# # 02. What must a network learn: how do you estimate ratios that nobody can compute?
#
# Chapter 01 ended with a promise. To turn noise back into data, all we need is the ratio
# $p_t(y)/p_t(x)$ for neighbours $x$ and $y$. There we wrote the world down and divided. For text
# nobody can do that. All we have is **samples**, and a network that must find the ratios in them.
#
# How do you train a network on a number that you cannot compute? Before score entropy there were three
# answers. Each is a good idea, and each has a price. This chapter builds all three, lets them compete
# under equal conditions, and finds the price of each with an exact oracle at hand. Chapter 03 then
# knows what to ask for.
#
# After this chapter you will be able to
#
# - derive three ways to learn ratios from samples: **mean prediction**, **ratio matching** and
#   **concrete score matching**, and prove each of them on a world small enough to enumerate;
# - judge a learned model against exact ratios, and compute the exact law of its samples;
# - say what goes wrong with each of the three, where, and how often.
#
# *You need* chapter 01: forward noise, the uniform graph, reverse rates. *Running time:* under 90 seconds
# on two CPU cores.

# %% [markdown]
# ## A picture first
#
# Take the spiral of chapter 01: two tokens with 32 values each, on the uniform graph. Its noise starts at $\bar\sigma = 0.01$,
# where one token in a hundred has been replaced, and ends at 20, where nothing is left. `Chain` is the
# oracle: it knows every probability. Sit at one pair, and ask for the 32 ratios that change its first token.

# %%
import torch
from sedd_mini import GeometricNoise, UniformGraph, plots
from sedd_mini.worlds.ctmc import Chain
from sedd_mini.worlds.toys import two_token_world

torch.set_num_threads(1)  # networks as small as ours are fastest on one core
plots.use_style()
graph, noise = UniformGraph(32), GeometricNoise(sigma_min=0.01, sigma_max=20)
world = two_token_world("spiral")
chain = Chain(graph, world)

# %%
pair = torch.tensor([13, 8])
fig, axes = plots.plt.subplots(1, 2, figsize=(9, 3.5), width_ratios=[1, 1.8])
axes[0].imshow(chain.marginal(0.1), cmap=plots.INK)
axes[0].plot(pair[1], pair[0], "o", color=plots.ORANGE)
axes[0].axvline(pair[1], color=plots.ORANGE, lw=1)
axes[0].set(xlabel="second token", ylabel="first token", title="the world, a little noisy")
axes[0].grid(False)
for sigma in (0.01, 0.1, 1, 4):
    axes[1].semilogy(chain.scores(sigma)[chain.index(pair), 0], label=f"σ = {sigma:g}")
axes[1].set(xlabel="new value y of the first token", ylabel="p(y) / p(x)")
axes[1].set_title("the true ratios along the line")
axes[1].legend(ncols=2, fontsize=10);

# %% [markdown]
# *What to see.* Left: the dot is the pair $x$, and the line holds the 32 pairs that it can become by a
# jump of its first token. Right: the ratio for each of them. It is exactly 1 at the dot itself, and about a hundred where the line
# crosses the spiral, if there is little noise. With much noise all ratios tend to 1. A network must
# produce such curves for every pair, both tokens, and every amount of noise, **and it never sees one of them**.

# %% [markdown]
# ## 1. The task
#
# Write $s_\theta(x)_y$ for the network's estimate of $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$. How many numbers is that, and how
# large are they? We ask the oracle. The training below never will.

# %% tags=["nbval-check-output"]
for sigma in (0.01, 0.1, 1.0):
    r = chain.scores(sigma)  # (1024, 2, 32): sequence, token to change, new value
    away = torch.arange(32) != chain.states[..., None]  # leave out y = x, where the ratio is 1
    low, high = r[away].min().item(), r[away].max().item()
    print(f"σ = {sigma:<4}  {away.sum()} ratios, from {low:.1g} to {high:.1g}")

# %% [markdown]
# Two facts to remember. All ratios are **positive**. And with little noise they span **more than four orders of magnitude**.
# There is a limit to it. For one token that was $x_0$, the ratio $p(y|x_0)/p(x|x_0)$ of forward probabilities takes only three
# values on the uniform graph: some $q < 1$ if the token still is $x_0$, then $1/q$ if it has moved and $y$ would move
# it back, and otherwise 1. Every true ratio is an average of such numbers, as we shall see now.

# %% tags=["nbval-check-output"]
sigma = torch.tensor(0.01)
kernel = graph.transition_probs(torch.tensor([7]), sigma)[0]  # p(· | x0 = 7)
q = (kernel[0] / kernel[7]).item()
print(f"at σ = 0.01:  q = {q:.2e}   1/q = {1 / q:.0f}")
r = chain.scores(0.01)
assert q <= r.min() and r.max() <= 1 / q

# %% [markdown]
# ## 2. First idea: guess the original (mean prediction)
#
# Ask the network a question that samples can answer: **given the noisy $x$, what was $x_0$?** We made $x$ from
# $x_0$, so we know the answer, and this is plain classification. What do ratios have to do with it?
#
# Let $y$ be $x$ with token $i$ replaced. The noise is independent, so $p(y|x_0)$ and $p(x|x_0)$ differ in one factor:
#
# $$p(y) = \sum_{x_0} p_0(x_0)\, p(y|x_0) = \sum_{x_0} \underbrace{p_0(x_0)\, p(x|x_0)}_{p(x)\, p(x_0|x)}\,
# \frac{p(y^i|x_0^i)}{p(x^i|x_0^i)} .$$
#
# Divide by $p(x)$. The ratio is the **mean**, over what $x_0$ may have been, of a ratio that we know in closed form:
#
# $$\boxed{\;\frac{p(y)}{p(x)} = \sum_a\, p(x_0^i = a \mid x)\; \frac{p(y^i \mid a)}{p(x^i \mid a)}\;}$$
#
# Only the posterior of *one token* is needed. So the network gives, for each token, a distribution over its
# original value. This is the parametrisation of D3PM (Austin et al. 2021) and tauLDR (Campbell et al. 2022).
#
# To see every number, take the smallest world: two tokens of cat, dog, owl. The table is that of chapter 01.

# %%
from sedd_mini.worlds.ctmc import total_variation

p0 = torch.tensor([[40, 5, 0], [5, 20, 5], [0, 5, 20]]).double() / 100
tiny, sigma = Chain(UniformGraph(3), p0), 0.5
kernel = tiny.kernel(sigma)  # kernel[y, a] = p(y | a), one token
posterior = tiny.posterior(sigma)  # (9, 2, 3): sequence, token, its original value

# %% [markdown]
# The boxed equation, symbol by symbol:

# %%
def ratio_from_posterior(posterior_of_token, x_i, y_i):
    return sum(posterior_of_token[a] * kernel[y_i, a] / kernel[x_i, a] for a in range(3))

# %%
x = torch.tensor([0, 2])  # cat owl
place = tiny.index(x)
for i in (0, 1):
    for y_i in range(3):
        naive = ratio_from_posterior(posterior[place, i], x[i], y_i)
        assert torch.isclose(naive, tiny.scores(sigma)[place, i, y_i])

# %% [markdown]
# All six ratios of *cat owl* are right. The library does it for a whole batch. Every model in this book is
# called as `model(x, sigma)`, with `x` of shape (B, L) and one `sigma` for each sequence; here its output is read as logits, and the logarithm
# of the true posterior will do. The function that turns output into ratios is `score_of_mean`.

# %%
from sedd_mini.baselines import score_of_mean


def exact_posterior(x, sigma):
    return posterior[tiny.index(x)].log()


levels = torch.full((9,), sigma).double()
found = score_of_mean(exact_posterior, tiny.graph, tiny.states, levels)
assert torch.allclose(found, tiny.scores(sigma))

# %% [markdown]
# And the loss? The usual one of classification: the **cross-entropy** $-\sum_i \log p_\theta(x_0^i \mid x)$. Its best answer is the true posterior.
# We check that without training. Let the model be a plain table of numbers, one for each possible output. Put the truth into the table. If
# the truth is optimal, the gradient of the expected loss is zero there; the loss is convex in the table, so a
# zero gradient means the minimum. `expected_loss` takes the expectation over all $x_0$ and all $x$, by enumeration.

# %%
from sedd_mini.baselines import mean_prediction_cross_entropy


def gradient_at(loss, table):
    """The largest gradient of the expected loss, when the model is this table (4, 4, 2, 3)."""
    table = table.clone().requires_grad_()
    tiny.expected_loss(loss, lambda x, sigma: table[x[:, 0], x[:, 1]], sigma).backward()
    return table.grad.abs().max().item()


def as_table(values):  # (9, 2, 3) → (4, 4, 2, 3): one row and column more, for later
    return torch.nn.functional.pad(values.reshape(3, 3, 2, 3), (0, 0, 0, 0, 0, 1, 0, 1))


truth = as_table(posterior.log())
assert gradient_at(mean_prediction_cross_entropy, truth) < 1e-12
assert gradient_at(mean_prediction_cross_entropy, truth * 1.1) > 1e-3

# %% [markdown]
# ### What mean prediction approximates
#
# If the posterior is right, the ratio is right: nothing is approximate yet. But the network's aim is the posterior, and we use
# something else: a sum in which the posterior is multiplied by numbers between $q$ and $1/q$. So look at a posterior that is
# *almost* right. Replace one per cent of it by ignorance: every value equally likely. That is a network that any classifier would be proud of. What happens to the ratios?

# %%
from functools import partial


def nearly_right(x, sigma):
    exact = chain.posterior(sigma[0].item())[chain.index(x)]
    return (0.99 * exact + 0.01 / 32).log()

# %% [markdown]
# To judge, we need a measure of error. A ratio of 0.001 that should be 0.01 misleads as much as 1000 that should
# be 100. So we compare **logarithms**: the root mean square of $\log s_\theta(x)_y - \log r$, with $r$ the true ratio, over all $y \ne x$, each $x$ weighted by its probability. An
# error of 0.1 is about 10 per cent; 2.3 is a factor of ten.

# %%
def ratio_error(score, chain, sigma):
    x = chain.states
    with torch.no_grad():
        found = score(x, torch.full((len(x),), sigma)).double()
    error = found.log() - chain.scores(sigma).log()  # 0 at y = x
    weight = chain.marginal(sigma).flatten()[:, None, None]
    neighbours = chain.length * (chain.num_states - 1)  # of each x
    return (weight * error**2).sum().sqrt().item() / neighbours**0.5

# %% tags=["nbval-check-output"]
score = partial(score_of_mean, nearly_right, graph)
for sigma in (0.01, 0.1, 1.0, 10.0):
    found = nearly_right(chain.states, torch.full((1024,), sigma)).exp()
    posterior_error = total_variation(found, chain.posterior(sigma)) / 2048  # a mean over all
    log_ratio_error = ratio_error(score, chain, sigma)
    print(f"σ = {sigma:<4}  posterior wrong by {posterior_error:.3f}", end="   ")
    print(f"log-ratios wrong by {log_ratio_error:.2f}")

# %% [markdown]
# The posterior is never wrong by more than 0.01 in total variation, at any noise. The ratios are wrong by a factor of
# $e^{3}\approx 20$ where noise is small, and nearly perfect where it is large. The reason is $1/q$: with $\bar\sigma = 0.01$ a
# mistake in the posterior is multiplied by up to 3200. **What is approximated is the posterior; what is used is its product with huge numbers.** The cross-entropy does
# not know about them. That is the price of mean prediction. We will see how much of it a trained network pays.

# %% [markdown]
# ## 3. Second idea: fill in the blank (ratio matching)
#
# Let $y$ again be $x$ with token $i$ replaced. Split both probabilities into "the other tokens" and "token $i$ given the others".
# The others are the same in $x$ and in $y$, so their probability cancels:
#
# $$\frac{p(y)}{p(x)} = \frac{p(y^i \mid x^{\text{others}})}{p(x^i \mid x^{\text{others}})} .$$
#
# So let the network see the noisy sequence with one token hidden, and guess the hidden *noisy* token. That is classification again, with the
# sequence itself as the answer; not even $x_0$ is needed. (The idea is Hyvärinen's, 2007, for bits; this form for
# diffusion is from Sun et al. 2023.) The equation first:

# %%
sigma = 0.5
conditional = tiny.conditionals(sigma)  # (9, 2, 3): p(token i = y | the other one)
own = conditional.gather(-1, tiny.states[..., None])  # (9, 2, 1): at y = x
assert torch.allclose(conditional / own, tiny.scores(sigma))

# %% [markdown]
# Now the loss: $-\sum_i \log p_\theta(x^i \mid x^{\text{others}})$. The library hides token $i$ by writing a token id that does not otherwise occur,
# one beyond the last, which is what the extra row and column of our table are for. The truth is where the gradient vanishes:

# %%
from sedd_mini.baselines import ratio_matching

table = torch.zeros(4, 4, 2, 3, dtype=torch.float64)
table[3, :3, 0] = conditional.reshape(3, 3, 2, 3)[0, :, 0].log()  # first token hidden
table[:3, 3, 1] = conditional.reshape(3, 3, 2, 3)[:, 0, 1].log()  # second token hidden
assert gradient_at(ratio_matching, table) < 1e-12
assert gradient_at(ratio_matching, table * 1.1) > 1e-3

# %% [markdown]
# Why hide it? Because a network that sees the token would simply copy it. Here is such a cheat: its cross-entropy is nearly zero, better than the truth can ever be, and its
# ratios are nonsense, the same for every neighbour.

# %% tags=["nbval-check-output"]
copying = 12.0 * torch.nn.functional.one_hot(tiny.states, 3).double()  # logits
loss = -copying.log_softmax(-1).gather(-1, tiny.states[..., None])
ratios = (copying - copying.gather(-1, tiny.states[..., None])).exp()
print(f"cross-entropy of a copy: {loss.mean():.5f}")
true = tiny.scores(sigma)
print(f"its ratio for every neighbour: {ratios.min():.0e}")
print(f"the true ones: {true.min():.2f} to {true.max():.2f}")

# %% [markdown]
# ### What ratio matching costs
#
# Each token has to be hidden in turn, and each time the whole network runs. We count it: a model that does nothing but
# note how many sequences it is given. The same for one evaluation of the scores.

# %%
def sequences_through_network(function, length):
    seen = []

    def model(x, sigma):
        seen.append(len(x))
        return torch.zeros(*x.shape, 8)

    x = torch.zeros(1, length, dtype=torch.int64)
    function(model, UniformGraph(8), x, torch.ones(1), x0=x)
    return sum(seen)

# %% tags=["nbval-check-output"]
from sedd_mini.baselines import denoising_concrete_score_matching

for length in (2, 16, 128):
    ours = sequences_through_network(ratio_matching, length)
    mean = sequences_through_network(mean_prediction_cross_entropy, length)
    squares = sequences_through_network(denoising_concrete_score_matching, length)
    print(f"{length:4} tokens: {ours:4} evaluations a loss, the others {mean} and {squares}")

# %% [markdown]
# With two tokens the price is a factor of two, for training and for sampling alike. With the 1024 tokens of a language model it is 1024. One can
# avoid it with an architecture in which output $i$ never touches input $i$, but then a plain transformer will not do.

# %% [markdown]
# ## 4. Third idea: regress on the ratio (concrete score matching)
#
# Why go through probabilities at all? The most direct loss is least squares, with weights $w_{xy} \ge 0$:
#
# $$L = \mathbb E_{x\sim p} \sum_{y \ne x} w_{xy}\, \tfrac12 \Big( s_\theta(x)_y - \frac{p(y)}{p(x)} \Big)^2 .$$
#
# Natural weights are the rates, $w_{xy} = Q(x, y)$: a ratio counts as much as it matters for the reverse process.
# The true ratio is unknown, but the boxed equation of section 2 says it is a mean, given $x$, of the **conditional ratio** $p(y|x_0)/p(x|x_0)$, which we know. And
# least squares aimed at a random target finds the mean of the target. So put the conditional ratio in its place. This is *denoising* concrete
# score matching (Meng et al. 2022). It works: at the true ratios the gradient is zero.

# %%
truth = as_table(tiny.scores(sigma))
assert gradient_at(denoising_concrete_score_matching, truth) < 1e-12
assert gradient_at(denoising_concrete_score_matching, truth * 1.1) > 1e-3

# %% [markdown]
# One evaluation a loss, the ratio itself as the output, no detour. What could go wrong? Nothing in the loss knows that a ratio is
# positive. To guess $-0.5$ for 0.01 costs no more than to guess 0.52. And look at the targets on the spiral. We draw noisy pairs
# at $\bar\sigma = 0.01$ and list the conditional ratios that a network is asked to fit.

# %%
from sedd_mini.losses import conditional_ratio

generator = torch.Generator().manual_seed(0)
x0 = chain.sample_data(20_000, generator)
sigma = torch.full((20_000,), 0.01).double()
x = graph.sample_transition(x0, sigma[:, None], generator)
target = conditional_ratio(graph, x, sigma, x0)[torch.arange(32) != x[..., None]]

# %% tags=["nbval-check-output"]
values, counts = target.float().unique(return_counts=True)
for name, value, share in zip(("q", "1", "1/q"), values, counts / len(target), strict=True):
    of_squares = share * value**2 / (target**2).mean()
    print(f"{name:3} = {value:.1e}: {share:6.2%} of targets, {of_squares:7.2%} of their squares")
assert abs(counts[-1] / len(target) - 0.01 / 32) < 1e-4

# %% [markdown]
# Nearly all targets are close to 0.0003, one in about three thousand is above 3000, and to the squares only the rare ones exist. A network whose 31 small
# ratios at some pair all come out as $-5$ hardly notices. We will count how often that happens.

# %% [markdown]
# ## 5. One network for all
#
# A fair comparison needs one network. Ours gets a pair and a noise level, and returns 32 numbers for each of the two
# tokens. We follow three pairs through it, one operation a cell. First, each token is looked up in a table of 64-dimensional vectors; the table has one
# row more than there are values, for "hidden".

# %%
x, sigma = torch.tensor([[3, 5], [0, 31], [7, 7]]), torch.tensor([0.01, 0.5, 20.0])
embed = torch.nn.Embedding(33, 64)
h = embed(x).flatten(1)  # (3, 2, 64) → (3, 128)

# %% [markdown]
# The noise level ranges over three orders of magnitude, so we give the network its logarithm, as waves of eight lengths. Then every scale of noise has a wave that changes there.

# %%
phase = sigma.log()[:, None] * 2.0 ** torch.arange(-3, 5)  # (3, 8)
h = torch.cat([h, phase.sin(), phase.cos()], -1)  # (3, 144)

# %% [markdown]
# Two hidden layers and a last linear one do the rest. That is all; as a module:

# %%
from torch import nn


class PairNet(nn.Module):
    def __init__(self, num_states, width=128, start=0.0):
        super().__init__()
        self.embed = nn.Embedding(num_states + 1, width // 2)
        self.layers = nn.Sequential(
            nn.Linear(width + 16, width), nn.SiLU(),
            nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 2 * num_states),
        )  # fmt: skip
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.constant_(self.layers[-1].bias, start)

    def forward(self, x, sigma):
        phase = sigma.log()[:, None] * 2.0 ** torch.arange(-3, 5)
        h = torch.cat([self.embed(x).flatten(1), phase.sin(), phase.cos()], -1)
        return self.layers(h).unflatten(-1, (2, -1))  # (B, 2, num_states)

# %% [markdown]
# The last layer starts at zero weights, so the first output is `start` everywhere. We choose it such that every method begins with all ratios
# equal to 1, the right answer for pure noise: 0 for logits, 1 where the output is the ratio itself. The library has the same network for any
# short length.

# %% tags=["nbval-check-output"]
from sedd_mini.worlds import toys

mine, library = PairNet(32), toys.PairNet(32)
library.load_state_dict(mine.state_dict())
assert torch.equal(mine(x, sigma), library(x, sigma))
num_parameters = sum(p.numel() for p in mine.parameters())
print("output:", tuple(mine(x, sigma).shape), "  parameters:", num_parameters)

# %% [markdown]
# Training data never run out: each step draws new pairs $x_0$, new times $t$, and new noise. The times are *stratified*, one in each of $B$ equal
# intervals, so that every batch covers all noise levels.

# %%
def noisy_batch(size, generator):
    place = torch.multinomial(world.flatten(), size, True, generator=generator)
    x0 = torch.stack([place // 32, place % 32], -1)  # (B, 2)
    t = (torch.randperm(size, generator=generator) + torch.rand(size, generator=generator)) / size
    t = 1e-3 + (1 - 1e-3) * t
    return x0, t, graph.sample_transition(x0, noise.total(t)[:, None], generator)

# %% [markdown]
# The loop is the usual one: Adam, with a learning rate that falls to zero along a cosine. One line deserves a word. A loss on ratios is
# weighted with rates *per unit of noise*; multiplied by $\sigma(t)$ it is per unit of time, and chapter 04 will show why that is the natural weight. The two
# cross-entropies need no such factor.

# %%
def fit(loss, net, steps=800, lr=5e-3, batch_size=256, weighted=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = []
    for _ in range(steps):
        x0, t, x = noisy_batch(batch_size, generator)
        value = loss(net, graph, x, noise.total(t), x0=x0)  # (B,)
        value = (noise.rate(t) * value if weighted else value).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        history.append(value.item())
    return history

# %% [markdown]
# The library's `fit` is this loop for any world, graph and noise (and it raises when a loss is no longer a number). Ten steps of both, from the same
# network with different random numbers, start alike:

# %%
loss, how = mean_prediction_cross_entropy, {"steps": 10, "weighted": False}
yours = fit(loss, mine, **how)
theirs = toys.fit(loss, library, graph, noise, world, **how)
assert abs(yours[0] - theirs[0]) < 1e-3 and abs(yours[-1] - theirs[-1]) < 0.3

# %% [markdown]
# ## 6. A fair contest
#
# A method is now four things: a loss, a way from the network's output to scores, the first output, and whether $\sigma(t)$ multiplies the loss. The library keeps
# our three in a table.

# %% tags=["nbval-check-output"]
from sedd_mini.worlds.toys import PREDECESSORS

for name, method in PREDECESSORS.items():
    functions = f"{method.loss.__name__:34} {method.to_score.__name__:22}"
    print(f"{name:24} {functions} {method.start}  {method.weighted}")

# %% [markdown]
# The conditions: the same network, 800 steps with the same 256 noisy pairs, the same optimiser. One thing must *not* be the same. A learning
# rate that suits one loss may be wrong for another, since losses have different scales. So each method tries the same three, and keeps the one with the lowest loss
# of its own on 8192 fresh pairs. That is how anyone without an oracle would choose.

# %%
def train(method, lr, seed=0):
    torch.manual_seed(seed)  # the first weights
    net = toys.PairNet(32, start=method.start)
    toys.fit(method.loss, net, graph, noise, world, lr=lr, weighted=method.weighted, seed=seed)
    return net


@torch.no_grad()
def held_out_loss(method, net):
    x0, t, x = toys.noisy_batch(graph, noise, world, 8192, torch.Generator().manual_seed(99))
    loss = method.loss(net, graph, x, noise.total(t), x0=x0)
    return (noise.rate(t) * loss if method.weighted else loss).mean().item()

# %%
grid = (1e-3, 5e-3, 2.5e-2)
nets = {name: [train(method, lr) for lr in grid] for name, method in PREDECESSORS.items()}

# %%
scores = {}
for name, method in PREDECESSORS.items():
    losses = [held_out_loss(method, net) for net in nets[name]]
    best = min(range(3), key=losses.__getitem__)
    scores[name] = partial(method.to_score, nets[name][best], graph)  # call it as (x, sigma)
    row = "   ".join(f"lr {lr}: {loss:8.3f}" for lr, loss in zip(grid, losses))
    print(f"{name:24} {row}   → {grid[best]}")

# %% [markdown]
# (Losses of different methods are different things: compare along a row only.) All three choose the middle of the grid, so none is held back by its edge. The
# winners are in `scores`. Only now do we ask the oracle.
#
# ## 7. Against the oracle
#
# Our `ratio_error` takes logarithms. Before we use it: are there any to take?

# %%
def share_not_positive(score, sigma):
    x = chain.states
    with torch.no_grad():
        found = score(x, torch.full((len(x),), sigma))
    weight = chain.marginal(sigma).flatten()[:, None, None] / 62  # 62 neighbours of each x
    return (weight * (found <= 0)).sum().item()

# %%
t = torch.linspace(0, 1, 9)
sigmas = noise.total(t).tolist()
not_positive = {
    name: [share_not_positive(score, s) for s in sigmas] for name, score in scores.items()
}
for name, shares in not_positive.items():
    print(f"{name:24}", " ".join(f"{share:6.1%}" for share in shares))
assert max(not_positive["mean prediction"] + not_positive["ratio matching"]) == 0
assert 0.15 < not_positive["concrete score matching"][0] < 0.45

# %% [markdown]
# From left to right the noise grows from $\bar\sigma = 0.01$ to 20. **Concrete score matching makes about a quarter of all ratios negative or zero where noise is small.** The two
# others cannot, as their ratios are built from probabilities. What do we do with a negative "ratio of probabilities"? As a rate it
# makes no sense. A sampler must cut it to zero, which forbids the jump. It has no logarithm, so for the error we leave it out and
# report it separately. That favours concrete score matching: its worst failures are not in the error. The library's `ratio_error` returns both numbers.

# %%
errors = {
    name: [toys.ratio_error(score, chain, s)[0] for s in sigmas] for name, score in scores.items()
}
ours = ratio_error(scores["ratio matching"], chain, sigmas[4])
assert abs(errors["ratio matching"][4] - ours) < 1e-3

# %%
fig, axes = plots.plt.subplots(1, 2, figsize=(9.5, 3.4))
for name in scores:
    axes[0].plot(t, errors[name], "o-", ms=4, label=name)
    axes[1].plot(t, not_positive[name], "o-", ms=4)
axes[0].set(xlabel="time t", ylabel="RMS error of log ratio", ylim=(0, None))
axes[0].set_title("error of the positive ratios")
axes[1].set(xlabel="time t", ylabel="share of ratios", title="ratios that are negative or zero")
axes[1].yaxis.set_major_formatter("{x:.0%}")
axes[0].legend(fontsize=10);

# %% [markdown]
# *What to see.* Left: at large $t$ all ratios are near 1, and all methods are good, ratio matching a little less so. At small $t$ the curves part. Ratio
# matching stays near 0.4; the two others climb to a factor of $e^{1.6} \approx 5$, mean prediction for the reason that we met in
# section 2. Right: the negative ratios of concrete score matching, which are *not* in the left curve.
#
# Averages hide what kind of mistakes these are. So here are single ratios, at $\bar\sigma = 0.03$, estimate against truth:

# %%
generator = torch.Generator().manual_seed(1)
x0 = chain.sample_data(60, generator)
x = graph.sample_transition(x0, torch.full((60, 1), 0.03), generator)
away = torch.arange(32) != x[..., None]
truth = chain.scores(0.03)[chain.index(x)][away]
fig, axes = plots.plt.subplots(1, 3, figsize=(10.5, 3.7), sharey=True)
for ax, (name, score), colour in zip(axes, scores.items(), plots.COLOURS):
    with torch.no_grad():
        found = score(x, torch.full((60,), 0.03))[away]
    ax.plot([5e-3, 200], [5e-3, 200], color="#444444", lw=1)
    ax.scatter(truth, found, s=3, alpha=0.35, color=colour)
    ax.set_yscale("symlog", linthresh=1e-3)
    ax.set(xscale="log", title=name, xlabel="true ratio", yticks=[-100, -1, -0.01, 0, 0.01, 1, 100])
axes[0].set_ylabel("estimated ratio");

# %% [markdown]
# *What to see.* Each dot is one neighbour of one of 60 noisy pairs; dots on the line are right, dots below 0 have the wrong sign. Ratio matching hugs the
# line from end to end. Mean prediction follows it in a broad band, often wrong by a factor of three. Concrete score matching is
# good at the few large ratios, which are all that its loss sees. Ratios below 0.1 fall into two clouds: far too large, or negative.
#
# How many? We count three kinds of failure: negative or zero, more than ten times too small, and more than ten times too large (the "exploding" ratios).

# %%
def failures(score, sigma):
    x, weight = chain.states, chain.marginal(sigma).flatten()[:, None, None] / 62
    with torch.no_grad():
        found = score(x, torch.full((len(x),), sigma)).double()
    quotient = found / chain.scores(sigma)
    kinds = (found <= 0, (found > 0) & (quotient < 0.1), quotient > 10)
    return [(weight * kind).sum().item() for kind in kinds]


print(f"at σ = 0.03: {'negative':>25} {'10 times too small':>20} {'10 times too large':>20}")
failed = {name: failures(score, 0.03) for name, score in scores.items()}
for name, shares in failed.items():
    print(f"{name:24}", "".join(f"{share:>13.1%}        " for share in shares))
assert sum(failed["concrete score matching"]) > 0.25 and sum(failed["ratio matching"]) < 0.01

# %% [markdown]
# ## 8. What comes out: the law of the samples
#
# Ratios are a means to an end. Run the reverse process with the estimated ratios from pure noise, and compare what arrives with the world. We could draw
# samples and count, as in chapter 01, and be left with sampling noise. But in a world this small we can push the whole *distribution* through
# the reverse process. `Chain.reverse_marginal` does that, and takes a model that returns log-ratios: $-\infty$ where we cut a negative ratio to zero. Training
# has not gone below $\bar\sigma = 0.01$, so we stop there, and compare with the world at that noise.

# %%
from sedd_mini.worlds.toys import law_of_samples


def sample_law(score):
    def model(x, sigma):
        with torch.no_grad():
            return score(x, sigma).double().clamp(min=0).log()

    pure_noise = torch.full((32, 32), 1 / 1024).double()
    return chain.reverse_marginal(model, sigma_max=20, p_base=pure_noise, steps=50, sigma_min=0.01)


laws = {name: sample_law(score) for name, score in scores.items()}
library = law_of_samples(scores["ratio matching"], chain, noise, steps=50)
assert torch.allclose(laws["ratio matching"], library)

# %% [markdown]
# Is 50 steps enough for the law? With *exact* ratios the result should be the world itself; what is missing is the error of our measurement.

# %% tags=["nbval-check-output"]
target = chain.marginal(0.01)
exact = law_of_samples(lambda x, sigma: chain.log_score(x, sigma).exp(), chain, noise, steps=50)
print(f"exact ratios: total variation {total_variation(exact, target):.3f}")
assert total_variation(exact, target) < 0.005

# %%
titles = ["the world", "mean\nprediction", "ratio\nmatching", "concrete score\nmatching"]
plots.show_worlds([target, *laws.values()], titles);

# %%
tv = {name: total_variation(law, target) for name, law in laws.items()}
for name, value in tv.items():
    print(f"{name:24} total variation from the world {value:.3f}")
assert tv["ratio matching"] < min(tv["mean prediction"], tv["concrete score matching"])

# %% [markdown]
# *What to see.* All three draw a spiral. Mean prediction speckles the paper around it, concrete score matching smears the ink, ratio matching is close: the probability of no event
# whatever is off by more than its total variation, about 6 per cent. Compare that with the ratios: errors of a factor of five at small noise cost less than one might fear, because by then most
# of the picture is in place, and few jumps remain.

# %% [markdown]
# ## 9. What to ask for
#
# | | mean prediction | ratio matching | concrete score matching |
# |---|---|---|---|
# | network learns | $p(x_0^i \mid x)$ | $p(x^i \mid \text{others})$ | $p(y)/p(x)$ itself |
# | loss | cross-entropy | cross-entropy | least squares |
# | evaluations a loss, $L$ tokens | 1 | $L$ | 1 |
# | ratios positive | always | always | a quarter are not, at small noise |
# | what hurts | errors multiplied by up to $1/q$ | cost | rare huge targets drown the small ones |
#
# The best ratios come from the method that cannot grow, and the method that aims at the ratio directly has a loss that does not know what a ratio is. So here is the wish for chapter 03: **aim at the ratio
# itself, with one evaluation; let the target be the conditional ratio, so that samples suffice; but with a loss that keeps ratios positive, and that
# respects the small ones.**
#
# ## Summary
#
# 1. A network has to learn $p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$ for all neighbours, four orders of magnitude at small noise, from samples only.
# 2. Mean prediction learns the posterior; ratios follow by a sum with factors up to $1/q$, so one per cent of error in the posterior may become a factor of 20.
# 3. Ratio matching learns to fill in a hidden token: the best ratios here, at $L$ network evaluations a loss.
# 4. Concrete score matching fits the ratio by least squares: one evaluation, but about a quarter of its ratios are negative at small noise, and more than a third have the wrong sign or are off by a factor of ten.
# 5. The mean over $x_0$ of the conditional ratio is the true ratio. This fact makes learning from samples possible, and chapter 03 builds on it.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it.
#
# **1. Three values** (★☆☆, 10 minutes). Derive $q = (1 - e^{-\bar\sigma}) / (1 - e^{-\bar\sigma} + N e^{-\bar\sigma})$ from the uniform kernel of chapter 01, and write it as a function `q_of(sigma, N)` that
# stays exact at $\bar\sigma = 10^{-9}$ in float32.
#
# ```python
# s = torch.tensor(1e-9)
# assert abs(q_of(s, 32) * 32 / s - 1) < 1e-6
# ```
#
# **2. Mean prediction with MASK** (★★☆, 15 minutes). On the absorbing graph a token has either kept its value or become MASK. Which entries of $p(y|a)/p(x|a)$ are left in the boxed equation, for
# $x^i = $ MASK? Show that the ratio is then the posterior times *one* number, so that no error is multiplied more than any other.
#
# ```python
# masked = Chain(AbsorbingGraph(3), p0)
# x = torch.tensor([3, 1])  # MASK dog
# yours = factor(0.5) * masked.posterior(0.5)[masked.index(x), 0]
# assert torch.allclose(yours, masked.scores(0.5)[masked.index(x), 0, :3])
# ```
#
# **3. Just cut it off?** (★★☆, 15 minutes). Train concrete score matching with the output passed through a softplus, so that it is positive. (Wrap the network in the loss *and* in the
# score, and choose `start` so that the first ratio is 1.) The negative ratios are gone. Is the error of the small ones?
#
# ```python
# assert share_not_positive(softplus_score, 0.01) == 0
# assert toys.ratio_error(softplus_score, chain, 0.01)[0] > errors["ratio matching"][0]
# ```
#
# **4. Another weight** (★★☆, 20 minutes). Perhaps $\sigma(t)$ is the wrong weight for least squares. Multiply the loss by $\bar\sigma$ once more, train, and plot error and share of negative ratios. What gets better, what gets worse?
#
# **5. A longer race** (★★★, 20 minutes and a coffee). Give all three methods 8000 steps. Which of the differences are a matter of patience, and which stay?

# %% [markdown]
# ## Further reading
#
# - J. Austin and others, [*Structured Denoising Diffusion Models in Discrete State-Spaces*](https://arxiv.org/abs/2107.03006), 2021. D3PM: mean prediction in discrete time.
# - A. Campbell and others, [*A Continuous Time Framework for Discrete Denoising Models*](https://arxiv.org/abs/2205.14987), 2022. tauLDR: mean prediction in continuous time.
# - H. Sun and others, [*Score-based Continuous-time Discrete Diffusion Models*](https://arxiv.org/abs/2211.16750), 2023. Ratio matching for diffusion, and architectures that hide a token from itself.
# - A. Hyvärinen, *Some extensions of score matching*, 2007. Ratio matching for binary data.
# - C. Meng and others, [*Concrete Score Matching: Generalized Score Matching for Discrete Data*](https://arxiv.org/abs/2211.00802), 2022.
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution*](https://arxiv.org/abs/2310.16834), 2023, section 2: the same three, in one page.
