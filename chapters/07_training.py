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
# # 07. Training: how does a network that knows nothing become a model of a language?
#
# All the parts are on the table: noise that is drawn in one step, a loss that is a likelihood bound,
# batches of text, a transformer. This chapter puts them together and presses the button. The loop has
# fifteen lines, and it will run for a minute or two. The questions around it are the interesting
# part. Which number should the loss begin with? Which noise levels does it come from? How far is the
# finished network from the truth, when the loss itself is so noisy that it cannot tell?
#
# After this chapter you will be able to
#
# - write the training loop into an empty cell, and know from its first number whether it is right;
# - measure how far a model is from the truth, far more sharply than its loss does, on a language
#   whose truth is known;
# - say what averaged weights, a falling learning rate and the choice of noise are worth, in bits.
#
# *You need* chapters 03 to 06. *Running time:* about three minutes on two CPU cores.
#
# ## A picture first
#
# The synthetic language of chapter 05 has 40 words, and little sentences in which verbs agree with
# their subjects. Its probabilities are known exactly. Here is a network meeting it for the first
# time. Each step of training is one batch of 64 blocks of 32 words. The object `Trainer` is the
# library's loop, which we take apart below; for now it makes 150 steps.

# %%
import copy
import math
import torch
from torch.testing import assert_close
from sedd_mini import plots
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.training.settings import preset
from sedd_mini.training.trainer import Trainer

# %%
plots.use_style()
torch.set_num_threads(min(2, torch.get_num_threads()))  # more gain nothing at this size
language = SyntheticLanguage()
trainer = Trainer(preset("synthetic", device="cpu"))  # where our own tensors are; absorbing noise
losses = [trainer.train_step() / math.log(2) for _ in range(150)]  # bits a token

# %%
corpus, graph, noise = trainer.corpus, trainer.graph, trainer.noise
exam_blocks = corpus.valid[:1024]  # (1024, 32), never trained on
surprise = -language.log_prob(exam_blocks) / (32 * math.log(2))  # bits a token, of every block
truth, guess = surprise.mean().item(), math.log2(graph.num_tokens)
rate = language.entropy_rate()

# %%
fig, ax = plots.plt.subplots()
ax.plot(range(1, 151), losses, ".", color=plots.GREY, ms=4)
smooth = torch.tensor(losses).unfold(0, 15, 1).mean(-1)
ax.plot(range(8, 8 + len(smooth)), smooth, color=plots.BLUE)
for level, text, at in ((guess, "guessing: log₂ 40", 120), (truth, "the truth: −log₂ p", 0)):
    ax.axhline(level, color=plots.ORANGE, ls="--")
    ax.text(at, level + 0.08, text, color=plots.ORANGE)
ax.set(xlabel="step", ylabel="loss (bits a token)")
ax.set_title("The first seconds of training");  # fmt: skip
# %% [markdown]
# *What to see.* Grey: the loss of each batch. Blue: a running mean. It starts at $\log_2 40$, the price of
# a uniform guess, and falls towards the true entropy of the language (lower orange line). No model can get below
# that line on average. Most of the way is done in seconds. Note how noisy the grey dots are: by the loss alone we
# could not tell a good model from a perfect one. We will.
#
# ## 1. One batch
#
# Slowly now. We take the first four blocks of the training set, and give each of them its own time $t$.
# The noise level is $\bar\sigma(t)$, and each word turns into MASK, ■, with probability
# $1 - e^{-\bar\sigma(t)}$, independently of the others.

# %% tags=["nbval-check-output"]
words = [*corpus.tokenizer.words, "■"]
x0 = corpus.train[:4]  # (B, L) = (4, 32)
t = torch.tensor([0.1, 0.4, 0.7, 1.0])  # (B,)
sigma = noise.total(t)  # (B,)
x = graph.sample_transition(x0, sigma[:, None], torch.Generator().manual_seed(0))
for row, time in zip(x, t):
    print(f"t = {time:.1f}:", " ".join(words[token] for token in row[:12]))

# %% [markdown]
# Now the network of chapter 06, untrained. Its output layer starts at zero. With "scale by σ" its score
# is then $s_y = r/N$ for each word $y$, with $r = 1/(e^{\bar\sigma} - 1)$: the right total, divided equally among the
# $N$ words. So it *is* a model, the one that knows nothing. What does one ■ cost it? Put $s$ into the
# loss of chapter 05:
#
# $$\sum_y s_y - r \log s_{x_0} + K(r) = r - r \log \tfrac{r}{N} + r \log r - r = r \ln N .$$

# %%
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig

sizes = {"num_tokens": 40, "length": 32, "width": 32, "num_blocks": 2, "num_heads": 4}
torch.manual_seed(0)
untrained = DiffusionTransformer(DiTConfig(**sizes, cond_dim=16, dropout=0.0))
with torch.no_grad():
    entropy = untrained(x, sigma, x0=x0, graph=graph)  # (B, L): score entropy of each position
r = (1 / torch.expm1(sigma))[:, None]
assert_close(entropy, torch.where(x == graph.mask_id, r * math.log(40), 0.0))

# %% [markdown]
# (Given `x0` and `graph`, the network returns the loss of every position; chapter 06 showed why it is
# computed inside its head.)
#
# The training loss multiplies this by the rate $\sigma(t)$ and takes the mean over $t$. A position is ■ with probability
# $1 - e^{-\bar\sigma}$, and $(1 - e^{-\bar\sigma})\, r = e^{-\bar\sigma}$. So the expected loss of a token is
#
# $$\int_0^1 \sigma(t)\, e^{-\bar\sigma(t)} \ln N \, dt = \big(1 - e^{-\bar\sigma(1)}\big) \ln N ,$$
#
# for every schedule, since $\sigma = d\bar\sigma/dt$. Here $e^{-\bar\sigma(1)} = 0.001$. **The first loss
# of an absorbing model is $\ln N$ nats a token.** Look at this number before anything else. (A single batch shows it
# to within a tenth or so; take the mean of several.) If a loss begins at another value, something is broken: the
# weights of the loss, its unit, or the last layer's zeros.

# %%
from sedd_mini.losses import training_loss
from sedd_mini.evaluate import times

generator = torch.Generator().manual_seed(0)
many = corpus.train[:4096]
t = times(len(many), generator).float()
with torch.no_grad():
    start = training_loss(untrained, graph, noise, many, t, generator=generator) / 32  # nats/token
error = start.std() / len(start) ** 0.5
assert abs(start.mean() - 0.999 * math.log(40)) < 4 * error and error < 0.1

# %% tags=["nbval-check-output"]
print(f"ln 40 = {math.log(40):.2f} nats = {math.log2(40):.2f} bits")
print(f"the paper's: ln 50257 = {math.log(50257):.2f} nats a token, times 1024 tokens "
      f"= {0.999 * 1024 * math.log(50257):.0f} nats a sequence")  # fmt: skip

# %% [markdown]
# ## 2. The loop, in an empty cell
#
# A step does this: take data; draw a time for each block; draw the noise; ask the network; multiply by
# the rate; go down the gradient. Around it stand four habits, each one line long.
#
# - **Stratified times.** Instead of $B$ independent times, one from each of $B$ equal parts of $[0, 1]$
#   (`times`, chapter 04). They start at 0.001, where $r$ is a thousand and not infinite.
# - **A learning rate that rises, then falls.** Adam divides each gradient by its typical size, and
#   at the first steps it does not know that size yet. So the rate goes up along a line over 100 steps. Then it falls
#   along a cosine, to 0 at the last step.
# - **Clipping.** If the gradient is longer than 1 it is scaled to length 1, so that a rare batch
#   cannot throw the weights far away.
# - **Averaged weights.** A second copy of the network follows the first one slowly. This *exponential
#   moving average*, EMA, is the copy that is used in the end. After step $n$, with
#   $\mu = \min\big(0.999, \frac{1 + n}{10 + n}\big)$,
#
# $$\text{average} \leftarrow \mu \cdot \text{average} + (1 - \mu) \cdot \text{weights} .$$
#
# The fraction $(1+n)/(10+n)$ makes the memory short at the beginning, when the old weights are not
# worth remembering: about a tenth of the run, and later 1000 steps.


# %%
def one_step(n, model, average, optimizer, x0, generator):
    t = (1e-3 + (1 - 1e-3) * times(len(x0), generator)).float()  # (B,)
    sigma = noise.total(t)
    x = graph.sample_transition(x0, sigma[:, None], generator)  # (B, L)
    loss = (noise.rate(t)[:, None] * model(x, sigma, x0=x0, graph=graph)).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = 5e-3 * min(1, (n + 1) / 100) * (1 + math.cos(math.pi * n / 1550)) / 2
    optimizer.step()
    mu = min(0.999, (2 + n) / (11 + n))  # steps made so far: n + 1
    with torch.no_grad():
        for slow, fast in zip(average.parameters(), model.parameters()):
            slow.lerp_(fast, 1 - mu)
    return loss.item()


# %% [markdown]
# That is all of it. Forty steps with the small network from above (32 wide, two blocks). The optimiser is AdamW. That is
# Adam with **weight decay**: each step also makes every weight smaller, here by one part in two thousand at most (0.1 times
# the learning rate), so that only what the data keep asking for stays large. `fused` makes it faster and nothing else.

# %%
from sedd_mini.text.blocks import BlockLoader


def begin(dtype=torch.float32):
    model = copy.deepcopy(untrained).to(dtype)
    options = {"betas": (0.9, 0.99), "weight_decay": 0.1, "fused": True}
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    return model, copy.deepcopy(model), optimizer, BlockLoader(corpus.train, 64, seed=0)


*state, loader = begin()
generator = torch.Generator().manual_seed(0)
small = [one_step(n, *state, next(loader), generator) for n in range(40)]
assert abs(small[0] - math.log(40)) < 1 and sum(small[-10:]) < sum(small[:10])

# %% [markdown]
# `BlockLoader` gives the blocks in a shuffled order, a new one for each pass over the data. Does the
# library's loop do the same? Its randomness in step $n$ comes from a generator with the seed
# $7919\,(n + 1)$, so that any step can be repeated without the ones before. We use the same seeds, make five
# steps each, and compare the losses and all of the weights (in float64: at first Adam divides by numbers near 0, which
# magnifies rounding).

# %%
settings = preset("synthetic", width=32, num_blocks=2, num_heads=4, cond_dim=16,
                  precision="float64", draws="independent", device="cpu")  # fmt: skip
library = Trainer(settings, corpus=corpus)
model, average, optimizer, loader = begin(torch.float64)
model.load_state_dict(library.model.state_dict())
average.load_state_dict(library.model.state_dict())
for n in range(5):
    draws = torch.Generator().manual_seed(7919 * (n + 1))
    ours = one_step(n, model, average, optimizer, next(loader), draws)
    assert_close(ours, library.train_step(), rtol=1e-9, atol=0)
for mine, theirs in ((model, library.model), (average, library.average)):
    assert_close(dict(mine.named_parameters()), dict(theirs.named_parameters()), rtol=0, atol=1e-9)

# %% [markdown]
# What the library adds is around the step, not in it: bfloat16 where the processor is fast at it,
# batches in several parts, several processes, a log, checkpoints. From here on we use it.
#
# ## 3. The truth, as an examiner
#
# How will we know that training works? A validation bound, said chapter 04. For this language we can
# do better, as the *true* ratios are known. The language is a hidden Markov chain: a hidden state (the
# place in the grammar) moves at random, and says a word. For such a chain, the probability of any
# hidden state given all words before it, or given all words after it, comes from passing a message along the text:
# the **forward–backward algorithm**. Both messages together say what the *rest* of a text knows about
# position $i$. Noise changes one thing only, how strongly a noisy token speaks for a hidden state.


# %%
def from_the_rest(speaks):  # (B, L, S): p(noisy token | hidden state)
    before, after = [language.stationary.expand(len(speaks), -1)], [torch.ones(1).double()]
    for i in range(speaks.shape[1] - 1):
        message = (before[-1] * speaks[:, i]) @ language.transition  # (B, S)
        before.append(message / message.sum(-1, keepdim=True))
    for i in range(speaks.shape[1] - 1, 0, -1):
        message = (after[0] * speaks[:, i]) @ language.transition.T
        after.insert(0, message / message.sum(-1, keepdim=True))
    states = torch.stack([b * a for b, a in zip(before, after)], 1)  # (B, L, S)
    probs = states @ language.emission
    return probs / probs.sum(-1, keepdim=True)  # (B, L, N): p(word i | the rest)


# %% [markdown]
# From this to ratios. With absorbing noise a visible token is certain, ■ says nothing, and the ratio at ■
# is $p(\text{word} \mid \text{rest})/(e^{\bar\sigma} - 1)$ by chapter 06. With uniform noise every token may be
# wrong: it is the true word with probability $e^{-\bar\sigma}$, and else any word. The ratio is then a
# quotient of two numbers $q_y = e^{-\bar\sigma}\, p(y \mid \text{rest}) + (1 - e^{-\bar\sigma})/N$.


# %%
def evidence(graph, x, keep):  # p(noisy token | hidden state), (B, L, S)
    if graph.mask_id is None:
        return keep * language.emission.T[x] + (1 - keep) / 40
    masked = x == graph.mask_id
    return torch.where(masked[..., None], 1.0, language.emission.T[torch.where(masked, 0, x)])


def exact_log_score(graph, x, sigma):  # (B, L), (B,) → (B, L, num_states), float64
    keep = torch.exp(-sigma.double())[:, None, None]
    probs = from_the_rest(evidence(graph, x, keep))  # (B, L, N)
    if graph.mask_id is None:
        q = keep * probs + (1 - keep) / 40
        return (q / q.gather(-1, x[..., None])).log()
    ratios = keep / (1 - keep) * probs  # keep / (1 − keep) = r
    ratios = torch.cat([ratios, torch.ones_like(ratios[..., :1])], -1)  # MASK's column
    return torch.where((x == graph.mask_id)[..., None], ratios, 1.0).log()


# %% [markdown]
# An examiner must be examined first. The library's oracle gives $p(\text{word} \mid \text{visible})$,
# and for uniform noise the noisy text is a hidden Markov chain itself.

# %%
from sedd_mini import UniformGraph
from sedd_mini.text.synthetic import HiddenMarkovChain

x = graph.sample_transition(x0, sigma[:, None], torch.Generator().manual_seed(0))
masked, r = x == graph.mask_id, 1 / torch.expm1(sigma.double())[:, None, None]
exact = exact_log_score(graph, x, sigma).exp()[..., :40]
oracle = r * language.posterior(torch.where(masked, 0, x), ~masked)
assert_close(exact[masked], oracle[masked])
noisy = HiddenMarkovChain(language.transition, 0.7 * language.emission + 0.3 / 40)
y = x0.clone()
y[:, 9] = 5  # another word at place 9
by_definition = (noisy.log_prob(y) - noisy.log_prob(x0)).exp()  # p_t(y) / p_t(x)
exact = exact_log_score(UniformGraph(40), x0, torch.full((4,), -math.log(0.7)).double()).exp()
assert_close(exact[:, 9, 5], by_definition)

# %% [markdown]
# How to use it? The gap between a model's bound and the truth was computed in chapter 04: it is the divergence of
# two laws of paths. Moment by moment, it is the score entropy of the model with the *true* ratios $s^*$ in the place
# of $r$:
#
# $$\text{gap} = \int_0^1 \sigma(t)\; \mathbb{E}_{x_t} \sum_{y \ne x_t} Q(x_t, y) \big( s_y - s^*_y \log s_y + K(s^*_y) \big)\, dt .$$
#
# Compare it with the training loss, where $r$ is the ratio given $x_0$. The mean is the same, but for a
# constant. The noise is not: each term of the gap is at least 0, and exactly 0 for the true scores. *For a
# perfect network this estimate has no variance at all*; for a good one it has little. (It is the loss
# minus the loss of a perfect network on the same noise, averaged over all $x_0$ that could have led to this $x_t$.)

# %%
from sedd_mini.losses import score_entropy


class Exam:
    """Noisy validation blocks of one graph with their true ratios: made once, used often."""

    def __init__(self, graph, noise, x0=exam_blocks, seed=1):
        generator = torch.Generator().manual_seed(seed)
        self.graph, self.x0, self.t = graph, x0, 1e-3 + 0.999 * times(len(x0), generator).float()
        self.sigma, self.rate = noise.total(self.t), noise.rate(self.t).double()
        self.x = graph.sample_transition(x0, self.sigma[:, None], generator)
        self.log_ratio = exact_log_score(graph, self.x, self.sigma)  # (M, L, num_states)

    @torch.no_grad()
    def gaps(self, model):
        """Each block's term of the gap at its own time, bits a token: (M,); their mean is it."""
        parts = zip(self.x.split(64), self.sigma.split(64))  # in small parts it is faster
        answer = torch.cat([model(x, sigma) for x, sigma in parts]).double()
        value = score_entropy(lambda x, sigma: answer, self.graph, self.x, self.sigma,
                              ratio=self.log_ratio.exp())  # fmt: skip
        return self.rate * value / (32 * math.log(2))


# %%
def mean_and_error(values):
    return values.mean().item(), values.std().item() / len(values) ** 0.5


# %%
exam = Exam(graph, noise)
before, error = mean_and_error(exam.gaps(untrained))
assert abs(before - (guess - truth)) < 5 * error  # a uniform guess: log₂ 40

# %% [markdown]
# The untrained network's gap is $\log_2 40$ minus the entropy, as it must be. (That the examiner's own scores are the
# true ones was checked above, and will be once more in section 4.)
#
# ## 4. Training
#
# Now the long cell, up to two minutes. The network is 96 wide with four blocks, 636 000 parameters.
# 150 of its 1550 steps are done, for the picture. Now and then the examiner looks at it, once with
# the averaged and once with the raw weights. (`Trainer` draws times and noise in a better way than our loop, with the same
# mean: the laboratory at the end of the chapter shows how.)

# %%
looks = [150, 500, 1000, 1550]
averaged, raw = [], []
for stop in looks:
    while trainer.step < stop:
        losses.append(trainer.train_step() / math.log(2))
    averaged.append(mean_and_error(exam.gaps(trainer.average)))
    raw.append(mean_and_error(exam.gaps(trainer.model)))

# %%
fig, ax = plots.plt.subplots(figsize=(7.5, 3.8))
ax.plot(range(1, 1551), losses, ".", color=plots.GREY, ms=1.5, alpha=0.5)
ax.plot([], [], ".", color=plots.GREY, label="loss of a batch")
bounds = [truth + gap for gap, _ in averaged]
ax.plot(looks, bounds, "o-", color=plots.BLUE, label="averaged weights: truth + gap")
ax.axhline(truth, color=plots.ORANGE, ls="--", label="truth of these blocks, −log₂ p")
ax.axhline(rate.bits, color=plots.ORANGE, ls=":", label="entropy rate, of endless text")
ax.set(xscale="log", xlabel="step", ylabel="bits a token", ylim=(1.5, 5.7))
ax.set_title("From guessing to a few hundredths of a bit from the truth")
ax.legend(loc="upper right");  # fmt: skip
# %% [markdown]
# *What to see.* The dots are single batches: they spread over half a bit to the very end, even though nothing is
# wrong. The blue points are the examiner's. They come down to the orange line, and to see what is left
# between them one has to print it. Three ways, on the same 1024 blocks: the plain bound minus $-\log_2 p$;
# the bound minus that of the *exact* scores on the same noise; and the gap by the true ratios.

# %%
from sedd_mini.evaluate import likelihood_bound
from sedd_mini.losses import diffusion_weighted, diffusion_weighted_in_head


def whole_bound(model, blocks, graph, noise, repeats=4):
    in_head = isinstance(model, DiffusionTransformer)  # the same loss, computed inside the network
    loss = diffusion_weighted_in_head if in_head else diffusion_weighted
    return likelihood_bound(model, graph, noise, blocks, repeats, batch_size=64, loss=loss,
                            generator=torch.Generator().manual_seed(0))  # fmt: skip


bound = whole_bound(trainer.average, exam_blocks, graph, noise)
perfect = whole_bound(lambda x, s: exact_log_score(graph, x, s), exam_blocks, graph, noise)
gap, gap_error = averaged[-1]
bit = 32 * math.log(2)  # nats a sequence → bits a token

# %%
print(
    f"the bound                  {bound.bits_per_token:.3f} ± {bound.error / bit:.3f} bits a token"
)
print(f"minus the truth            {bound.bits_per_token - truth:.3f} ± {bound.error / bit:.3f}")
print(f"minus the exact scores'    {bound.bits_per_token - perfect.bits_per_token:.3f}")
print(f"gap by the true ratios     {gap:.4f} ± {gap_error:.4f}")

# %%
assert gap < 0.06 and gap_error < 0.005
assert abs(bound.bits_per_token - truth - gap) < 4 * bound.error / bit + 0.01
assert abs(bound.bits_per_token - perfect.bits_per_token - gap) < 0.03
assert abs(perfect.bits_per_token - truth) < 4 * perfect.error / bit + 0.01

# %% tags=["nbval-check-output"]
print(f"truth, blocks of 32 words: {truth:.2f} bits a token; endless text: {rate.bits:.2f}")
print(f"of the {guess - truth:.1f} bits to be learned, over 97 % were learned:",
      gap < 0.03 * (guess - truth))  # fmt: skip

# %% [markdown]
# The three agree, and only the last is sharp: about a twentieth of a bit is left after 1550 steps, of the three
# bits that there were to learn. (The truth for blocks lies a little above the entropy rate, because a block
# starts in the middle of a sentence: its first words have nothing to go by.)
#
# ## 5. Which noise levels does the loss come from?
#
# A batch holds all noise levels. Which of them teach? With the log-linear schedule
# $\sigma(t)\, e^{-\bar\sigma(t)} = 1 - \varepsilon$, a constant. So by the calculation of section 1, with
# $s_y = r\, p(y)$ instead of $r/N$, the expected loss at time $t$ is simply *the mean cross-entropy of a hidden word when a share $t$ of the words is hidden*.
# Every $t$ has the same weight, and the area under the curve is the bound. Let us draw it: for the
# untrained network, for ours, and for the exact scores.


# %%
def loss_by_time(exam, log_score):  # (M,): σ(t) · score entropy, bits a token
    value = exam.graph.score_entropy(log_score, exam.sigma[:, None], exam.x, exam.x0).sum(-1)
    return exam.rate * value.double() / bit


def in_bins(t, values, bins=16):
    """Centres of equal bins of [0, 1], means, standard deviations."""
    which = (t * bins).long().clamp(max=bins - 1)
    groups = [values[which == b] for b in range(bins)]
    centres = (torch.arange(bins) + 0.5) / bins
    return centres, torch.stack([g.mean() for g in groups]), torch.stack([g.std() for g in groups])


# %% [markdown]
# The loss at one $x_0$ is noisy, so we draw the smooth thing: for the exact scores, the true entropy of
# the hidden words; for the network, that plus its gap.


# %%
def true_entropy(exam):  # (M,): like the loss of exact scores, averaged over x0; absorbing only
    probs = exam.log_ratio[..., :40].exp() * torch.expm1(exam.sigma.double())[:, None, None]
    surprise = -torch.special.xlogy(probs, probs).sum(-1)  # (M, L)
    hidden = exam.x == exam.graph.mask_id
    r = 1 / torch.expm1(exam.sigma.double())
    return exam.rate * r * torch.where(hidden, surprise, 0).sum(-1) / bit


entropies, gaps = true_entropy(exam), exam.gaps(trainer.average)
spread = loss_by_time(exam, exam.log_ratio)  # what a batch would see, at best
assert abs(entropies.mean() - truth) < 0.15
assert abs(spread.mean() - entropies.mean()) < 4 * mean_and_error(spread)[1]

# %%
centres, hidden_entropy, _ = in_bins(exam.t, entropies)
_, model_gap, _ = in_bins(exam.t, gaps)
_, _, deviation = in_bins(exam.t, spread)

# %%
fig, (left, right) = plots.plt.subplots(1, 2, figsize=(10, 3.6))
left.axhline(guess, color=plots.GREY, label="untrained")
left.plot(centres, hidden_entropy + model_gap, "o", color=plots.BLUE, ms=5, label="trained")
left.plot(centres, hidden_entropy, color=plots.ORANGE, label="exact scores")
left.fill_between(centres, hidden_entropy, color=plots.ORANGE, alpha=0.12)
left.set(xlabel="t, share of hidden words", ylabel="loss (bits a token)", ylim=(0, 5.8))
left.set_title("The area under the curve is the bound")
left.legend(loc="lower right")
right.plot(centres, deviation, "o-", color=plots.PURPLE)
right.set(xlabel="t, share of hidden words", ylabel="standard deviation", ylim=(0, None))
right.set_title("Where the noise of the loss comes from");  # fmt: skip
# %% [markdown]
# *What to see.* Left: with few words hidden, a hidden word costs little more than one bit, since its neighbours
# nearly tell it; with all hidden, only word frequencies are left. The untrained network pays $\log_2 40$ everywhere. The trained one is on
# the orange curve. Right: the loss of a single block, for the exact scores, is noisiest at small $t$. There a block
# has one hidden word or none, and its weight $r\,\sigma$ is large.
#
# This is what stratified times help against, but only in part. Times that are spread evenly remove the spread
# *between* noise levels. The spread *within* a level stays. The law of total variance
# says what is gained:

# %%
order = exam.t.argsort()
within = spread[order].view(32, 32).var(-1).mean()  # 32 strata of 32 blocks each
share = (within / spread.var()).item()
print(
    f"variance of the loss with stratified times: {100 * share:.0f} % of that with independent ones"
)
assert 0.3 < share < 0.98 and deviation.argmax() == 0 and hidden_entropy[0] < 1.6

# %% [markdown]
# ## 6. Absorbing against uniform
#
# Uniform noise replaces a word by a random word, and does not say where. It has a geometric schedule,
# whose noise levels are spread evenly on a logarithmic scale, from $\sigma_\text{min}$ on. Of the settings that we
# tried, it learned best with less than half the learning rate and without the very lowest noise levels, where a
# batch meets hardly any wrong word:
#
# `python -m sedd_mini train --preset synthetic --graph uniform --lr 2e-3 --sigma-min 1e-3 --steps 2000`
#
# takes about three minutes. Here we make 150 steps of it. The examiner works for uniform noise, too. And an
# untrained network, whose scores are all 1, starts from the same distance: $\log_2 40$ minus the entropy.

# %%
best = preset("synthetic", graph="uniform", lr=2e-3, sigma_min=1e-3, steps=2000, device="cpu")
uniform = Trainer(best, corpus=corpus)
uniform_exam = Exam(uniform.graph, uniform.noise)
before, error = mean_and_error(uniform_exam.gaps(uniform.model))
assert abs(before - (guess - truth)) < 5 * error  # untrained: the same distance as before

# %%
uniform_looks = [50, 150]
uniform_gaps = []
for stop in uniform_looks:
    while uniform.step < stop:
        uniform.train_step()
    uniform_gaps.append(mean_and_error(uniform_exam.gaps(uniform.average)))

# %% [markdown]
# They are few. The folder `checkpoints/` has both kinds after a long training, with the record
# of how they were made. We load them and measure them in the same way.

# %%
import json
from pathlib import Path
from sedd_mini.network.pretrained import load_pretrained

shipped = {}
for kind, test in (("absorb", exam), ("uniform", uniform_exam)):
    folder = Path("checkpoints") / f"synthetic-{kind}"
    record = json.loads((folder / "training.json").read_text())
    network, _, schedule = load_pretrained(folder)
    assert schedule.total(0.5) == (noise if kind == "absorb" else uniform.noise).total(0.5)
    shipped[kind] = record["steps"], *mean_and_error(test.gaps(network))
    print(f"{kind}: {record['steps']} steps, gap {shipped[kind][1]:.4f} ± {shipped[kind][2]:.4f}")

# %%
fig, ax = plots.plt.subplots()
for name, colour, at, found in (
    ("absorb", plots.BLUE, looks, averaged), ("uniform", plots.ORANGE, uniform_looks, uniform_gaps),
):  # fmt: skip
    gap_of, error_of = zip(*found)
    ax.errorbar(at, gap_of, [2 * e for e in error_of], fmt="o-", color=colour, label=name)
    steps, value, error = shipped[name]
    ax.errorbar(steps, value, 2 * error, fmt="D", color=colour, ms=7)
    ax.annotate("shipped", (steps, value), (-4, 9), textcoords="offset points", ha="right")
ax.set(xscale="log", yscale="log", xlabel="step", ylabel="gap to the truth (bits a token)")
ax.set_title("The same network, two kinds of noise")
ax.legend();  # fmt: skip
# %%
absorb_at = dict(zip(looks, averaged))
assert uniform_gaps[-1][0] > 2 * absorb_at[150][0]
times_as_far = shipped["uniform"][1] / shipped["absorb"][1]
print(f"shipped: the uniform one is {times_as_far:.1f} times as far from the truth")
assert 2.5 < times_as_far < 7

# %% [markdown]
# *What to see.* At equal steps the uniform model is several times further from the same truth. (Vertical bars: two
# standard errors. To be fair: at 150 steps its learning rate has hardly begun to fall, being planned for 2000.) Diamonds:
# after a long training both are close, in the same order.
#
# Why is it harder? Two reasons can be counted. First, a uniform model must say something about
# *every* position at every noise level, while the absorbing loss has terms at ■ only. How much of
# the gap lies at words that noise never touched?

# %%
from sedd_mini.losses import score_entropy_terms


@torch.no_grad()
def share_untouched(exam, model):
    terms = score_entropy_terms(model(exam.x, exam.sigma).double(), exam.log_ratio.exp())
    terms = (exam.graph.rates_into(exam.x) * terms).sum(-1) * exam.rate[:, None]  # (M, L)
    return (terms[exam.x == exam.x0].sum() / terms.sum()).item()


untouched = share_untouched(uniform_exam, uniform.average)
print(f"uniform: {100 * untouched:.0f} % of the gap lies at words that noise has not touched")
assert untouched > 0.1 and share_untouched(exam, trainer.average) == 0

# %% [markdown]
# Second, it must find out *which* words to believe, and that depends on the noise level. Look at the
# evidence itself. Take a level where each word has been left alone with probability ½. How much doubt about a
# word does a perfect reader of the *other* positions keep, if what was hit is masked, and if it is replaced by
# random words?

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(2)
level = torch.full((1024,), math.log(2.0))  # half of the words survive
for g in (graph, uniform.graph):
    x = g.sample_transition(exam_blocks, level[:, None], generator)
    probs = from_the_rest(evidence(g, x, keep=0.5))
    left = -torch.special.xlogy(probs, probs).sum(-1).mean() / math.log(2)
    print(f"{g}: the rest leaves {left:.1f} bits about a word")

# %% [markdown]
# Random words mislead: even the perfect reader knows less. And how far to believe a word depends on the noise
# level, so that the network has to learn a different answer for every level. The absorbing network has one answer for
# all of them (chapter 06).
#
# ## 7. What is the average worth?
#
# At each look we have examined the raw weights as well, on the same noise. So their difference is
# sharp, even where the two values are not.

# %%
fig, ax = plots.plt.subplots()
ax.plot(looks, [g for g, _ in raw], "o-", color=plots.GREY, label="raw weights")
ax.plot(looks, [g for g, _ in averaged], "o-", color=plots.BLUE, label="averaged weights")
ax.set(xscale="log", yscale="log", xlabel="step", ylabel="gap to the truth (bits a token)")
ax.set_xticks(looks, looks)
ax.set_yticks([0.05, 0.1, 0.2, 0.4], [0.05, 0.1, 0.2, 0.4])
ax.minorticks_off()
ax.set_title("The average is ahead, until the learning rate has gone")
ax.legend();  # fmt: skip
# %%
middle = looks.index(1000)
for name, at in (("at step 1000", middle), ("at the end", -1)):
    worth = raw[at][0] - averaged[at][0]
    print(f"{name} the average is worth {worth:.4f} bits a token, "
          f"{worth / raw[at][0]:.0%} of the gap")  # fmt: skip
assert raw[middle][0] > 1.05 * averaged[middle][0]
assert 0.6 < raw[-1][0] / averaged[-1][0] < 1.2

# %% [markdown]
# *What to see.* In the middle of the run the learning rate is high, and the raw weights jump around a good place
# without settling. The average, of the last tenth of the run or so, is near the middle of what they jump around.
# At the end the learning rate is 0, the jumping has died down, and the two agree: **as the learning rate falls, it does
# the work of the average.** (Exercise 4 tries each alone.) The paper's run keeps its learning rate constant, so there the average
# is not optional.
#
# ## 8. Real text
#
# Now a language whose truth nobody knows: the documentation that comes with Python, nearly two million characters.
# Two networks for it lie in `checkpoints/`. Each comes with the command that made it, here the absorbing one's.

# %%
folder = Path("checkpoints/docs-absorb")
record = json.loads((folder / "training.json").read_text())
print(record["command"])
print(f"{record['parameters'] / 1e6:.1f} million parameters, "
      f"{record['wall_time_s'] / 60:.0f} minutes, "
      f"{record['tokens_seen'] / 1e6:.0f} million tokens")  # fmt: skip

# %% [markdown]
# That is an hour. Let us run the same command with 3 steps, in a folder that is thrown away afterwards.

# %%
import shlex
import subprocess
import sys
import tempfile

_, *arguments = shlex.split(record["command"].split(" --out")[0])
with tempfile.TemporaryDirectory() as place:
    changes = ["--steps", "3", "--valid-blocks", "16", "--valid-repeats", "2", "--device", "cpu",
               "--out", place]  # fmt: skip
    done = subprocess.run([sys.executable, *arguments, *changes], capture_output=True, text=True)
    log = [json.loads(line) for line in (Path(place) / "log.jsonl").read_text().splitlines()]
    print(sorted(path.name for path in Path(place).iterdir()))

# %%
assert done.returncode == 0, done.stderr
assert log[0]["step"] == 3 and abs(log[0]["loss"] - math.log(8192)) < 1

# %% [markdown]
# The absorbing network has a vocabulary of 8192 word pieces (chapter 05), most of them whole words. The uniform one
# has 1024 pieces, scraps of words: its loss looks at every piece of the vocabulary at *every* position, and with 8192
# most of its time would go into that. So bits a token cannot be compared between the two. Bits *a character* can: both
# divide up the same text.
#
# With no truth at hand we need a yardstick. An **n-gram model** predicts a token from the $n - 1$ before it, by
# counting, with Kneser–Ney smoothing for what was never seen. It is simple, strong on little data, and gives an
# exact likelihood. It is trained on the same split, and scored on the same validation blocks.

# %%
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.ngram import ngram_bits
from sedd_mini.text.tokenizers import load_tokenizer

docs, records, bits = {}, {}, {}
for kind in ("absorb", "uniform"):
    folder = Path(f"checkpoints/docs-{kind}")
    records[kind] = json.loads((folder / "training.json").read_text())
    docs[kind] = text = load_corpus("docs", 128, tokenizer=load_tokenizer(folder))
    stream, size = text.train.arrays[0], text.tokenizer.vocab_size
    bits[kind] = {f"{n}-gram": ngram_bits(stream, text.valid, n, size) for n in (1, 2, 3, 5)}
    print(f"{kind:8} {size} kinds of pieces, {text.info['chars_per_token']:.2f} characters each")

# %%
same_text = docs["absorb"].info["hash"] == records["absorb"]["corpus"]["hash"]
for kind, record in records.items():
    mean, error = (record[f"bound_{name}bits_per_token"] for name in ("", "error_"))
    if same_text:
        model, g, schedule = load_pretrained(f"checkpoints/docs-{kind}")
        here = whole_bound(model, docs[kind].valid[:], g, schedule, repeats=2).bits_per_token
        assert abs(here - mean) < 5 * math.sqrt(1 + 8 / 2) * error
        print(f"{kind:8} {here:.2f} bits a token here, {mean:.2f} recorded")
    else:
        print("Your Python has other documentation: the bound is shown as recorded.")
    bits[kind] |= {"SEDD": mean}

# %%
fig, axes = plots.plt.subplots(1, 2, figsize=(10, 2.9), sharex=True)
for ax, (kind, found) in zip(axes, bits.items()):
    per_char = docs[kind].info["chars_per_token"]
    error = records[kind]["bound_error_bits_per_token"] / per_char
    for name, value in sorted(found.items(), key=lambda item: -item[1]):
        sedd = name == "SEDD"
        colour = plots.GREY if not sedd else plots.BLUE if kind == "absorb" else plots.ORANGE
        ax.barh(name, value / per_char, xerr=2 * error * sedd, color=colour, height=0.65)
        ax.text(value / per_char + 0.06, name, f"{value / per_char:.2f}", va="center")
    ax.set(xlabel="bits a character (SEDD: an upper bound)", xlim=(0, 3.7))
    ax.set_title(f"SEDD {kind}, {docs[kind].tokenizer.vocab_size} pieces")
    ax.grid(axis="y", visible=False)
# %%
assert bits["absorb"]["SEDD"] < bits["absorb"]["3-gram"] < bits["absorb"]["2-gram"]
assert abs(bits["absorb"]["SEDD"] - bits["absorb"]["5-gram"]) < 0.15
assert bits["uniform"]["3-gram"] < bits["uniform"]["SEDD"] < bits["uniform"]["1-gram"]
assert abs(bits["uniform"]["SEDD"] - bits["uniform"]["2-gram"]) < 0.15

# %% [markdown]
# *What to see.* Less is better. The absorbing network, after an hour on one core, has overtaken the trigrams, and is about
# level with the 5-grams, a table of everything that ever followed four tokens. (Its number is an *upper bound*, and theirs
# are exact.) The uniform one, after more than an hour too, is about level with the bigrams.
#
# The text is small: the absorbing network has read it fifty times. Has it begun to learn it by heart? Two settings in
# its command work against that: **dropout**, which in training sets a tenth of what each layer adds to zero, at random,
# and weight decay. To see what is left we ask for the bound on as many
# blocks that it *was* trained on. (These could be easier text; the unigram model, which knows nothing by heart, tells.)

# %%
text = docs["absorb"]
seen, unseen = text.train[: len(text.valid)], text.valid[:]
by_frequency = [ngram_bits(text.train.arrays[0], x, 1, 8192) for x in (seen, unseen)]
print("bits a token on training text, on other text")
print(f"word frequencies: {by_frequency[0]:.2f}, {by_frequency[1]:.2f}")

# %%
if same_text:
    model, *rest = load_pretrained("checkpoints/docs-absorb")
    on_seen = whole_bound(model, seen, *rest, repeats=2).bits_per_token
    print(f"SEDD:             {on_seen:.2f}, {bits['absorb']['SEDD']:.2f}")
    assert bits["absorb"]["SEDD"] - on_seen > 0.1 + abs(by_frequency[1] - by_frequency[0])

# %% [markdown]
# It has, all the same. Here more text would be worth more than more steps. In the paper, with
# OpenWebText and eighty times as many parameters, the absorbing model is about level with GPT-2 of the same
# size, which is far beyond any n-gram.
#
# ## 9. A run that is killed
#
# Long runs die: a power cut, a time limit. What must be saved so that a run *goes on* as if nothing
# had happened? The weights are not enough. Adam's running means are needed, the averaged weights, the
# position in the data, and the state of all random numbers. Ours come from the number of the
# step, so there is nothing to save. In the following run of 20 steps, a checkpoint is written at every fifth. The power
# fails at step 10, before that step is saved. Then we start the run again with the same folder.

# %%
import contextlib
import io

brief = preset("synthetic", width=32, num_blocks=1, cond_dim=16, steps=20, log_every=5,
               save_every=5, valid_blocks=32, sample_every=0, precision="float32",
               device="cpu")  # fmt: skip


class PowerCut(Exception):
    pass


def power_cut(record):  # called before the step is saved
    if record["step"] == 10:
        raise PowerCut


with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
    with contextlib.redirect_stdout(io.StringIO()):
        straight = Trainer(brief, corpus=corpus)
        straight.run()
        with contextlib.suppress(PowerCut):
            Trainer(brief, corpus=corpus, out=place).run(callback=power_cut)
        again = Trainer(brief, corpus=corpus, out=place)
        resumed_at = again.step
        again.run()

# %%
assert resumed_at == 5  # what was saved last
for a, b in zip(straight.model.parameters(), again.model.parameters()):
    assert torch.equal(a, b)
for a, b in zip(straight.average.parameters(), again.average.parameters()):
    assert torch.equal(a, b)

# %% [markdown]
# The run that was cut off went on from step 5, and ends with the same weights as the other, bit for bit (on a CPU).
#
# ## Summary
#
# 1. Training is one loop of fifteen lines. Its first loss is $\ln N$ nats a token for absorbing noise;
#    check that first.
# 2. With the log-linear schedule the loss at time $t$ is the cross-entropy of a hidden word when a share $t$ is
#    hidden; all $t$ count alike; the area is the bound.
# 3. Where the truth is known, the gap can be measured with the true ratios. That estimate has no variance for
#    a perfect model, and shows what the loss cannot.
# 4. At equal steps uniform noise is several times further from the truth: it must judge every
#    position, and find out which words to believe.
# 5. As the learning rate falls, it does the work of averaged weights. On small text an hour of SEDD, absorbing and with
#    dropout, is about level with counted 5-grams.

# %% [markdown]
# ## Exercises
#
# Write your answer in a new cell, with the check below it. If the check is silent, you are done.
#
# **1. How long is the memory?** (★☆☆, 10 minutes). After $n$ steps, which weight does the average give
# to the weights of step $k$? Write `weight_of(k, n)` with $\mu_n = \min(0.999, (1+n)/(10+n))$; step 0 is
# the start. The weights sum to 1.
#
# ```python
# assert abs(sum(weight_of(k, 50) for k in range(51)) - 1) < 1e-9
# assert weight_of(0, 50) < 1e-6  # the untrained start is soon forgotten
# ```
#
# **2. A wrong start** (★☆☆, 15 minutes). Somebody forgets the factor $\sigma(t)$ in the loss. What is the first loss
# then, in nats a token, with log-linear noise? Work it out, then measure it. Name your answer `first`.
#
# ```python
# no_rate = training_loss(untrained, graph, noise, many, t, generator=generator) / noise.rate(t) / 32
# assert abs(first / no_rate.mean() - 1) < 0.05
# ```
#
# **3. Better times?** (★★☆, 30 minutes). Section 5 found the noise of the loss at small $t$. Draw $t$ from a density
# $g(t)$ proportional to the root of the mean square of the loss at $t$, and divide each loss by $g(t)$ (importance
# sampling). With the 16 bins of section 5, which variance would independent times have? Name it `variance`.
#
# ```python
# assert truth**2 * 0.01 < variance < spread.var()
# ```
#
# **4. Without the average** (★★☆, 20 minutes). Train 600 steps with `decay="none"` and once more with
# `decay="cosine"`, both with `steps=600`, and measure raw and averaged weights of each with `exam`: a table `gaps_of` of
# four numbers with keys such as `("none", "raw")`. Which two agree best?
#
# ```python
# assert gaps_of["none", "raw"] > gaps_of["none", "averaged"]
# assert gaps_of["none", "raw"] > gaps_of["cosine", "raw"]
# ```
#
# **5. Your own text** (★★★, 60 minutes). Train the `docs` preset on a text file of yours for 3000 steps
# (`--data my.txt`), and compare its bound with 1-, 2-, 3- and 5-grams at the same split. How much text do you
# need until the network wins over the bigram?

# %% [markdown]
# ## Laboratory: can a batch teach more at the same price?
#
# *Optional. It explains the setting `draws="counted"`, with which the network of section 4 was trained.*
#
# Section 5 found the noisiest losses at small $t$. By chance, a block there has one hidden word, or two, or none, and
# each counts much. This chance teaches nothing. Can we take it out and leave the loss what it is?
#
# Write $\lambda = 1 - e^{-\bar\sigma}$ for the probability that a word is hidden. A hidden word at place $i$ costs
# $r\, g_i$, where $g_i$ does not contain $r$ (for normalised scores it is the cross-entropy), and
# $r\, d\bar\sigma = d\lambda / \lambda$. So the loss of a block is
#
# $$\int_0^1 \frac{d\lambda}{\lambda} \sum_{n=1}^{L} \binom{L}{n} \lambda^n (1 - \lambda)^{L-n} \;
# \mathbb{E}_{|S| = n} \sum_{i \in S} g_i ,$$
#
# where $S$ is the set of hidden places. All sets of the same size $n$ are equally likely. Now exchange integral
# and sum. The factor $\lambda^{n-1} (1 - \lambda)^{L-n}$ is the density of a Beta distribution
# without its constant. Of constant and binomial coefficient together only $1/n$ is left:
#
# $$\sum_{n=1}^{L} \; \mathbb{E}_{\lambda \sim \text{Beta}(n,\, L-n+1)} \; \mathbb{E}_{|S| = n} \;
# \frac{1}{n} \sum_{i \in S} g_i .$$
#
# **Every number $n$ of hidden words counts the same, and its loss is a mean over the hidden words.** So
# we may choose $n$ first, spread evenly over the batch, then the places, then the noise level.
#
# Two refinements. A mean over $n$ words scatters like $n^{-1/2}$, so small $n$ deserve more draws: we draw $n$ with
# probability $q(n) \propto n^{-1/2}$ and divide by $q(n)$. And places and noise level can be drawn together. Give
# each place a uniform number $u_i$, and hide it once $\lambda$ has passed $u_i$. Then stop the clock at the moment
# when the $n$-th word is hidden: $\lambda$ is the $n$-th smallest $u$, which has just the Beta distribution above.


# %%
def draw_counted(x0, generator):
    num, length = x0.shape
    q = torch.arange(1, length + 1).double() ** -0.5
    q = q / q.sum()
    n = 1 + torch.bucketize(times(num, generator), q.cumsum(0)[:-1], right=True)  # (B,)
    u = torch.rand(num, length, generator=generator, dtype=torch.float64)  # (B, L)
    level = u.sort(1).values.gather(1, n[:, None] - 1)  # (B, 1): λ
    weight = level[:, 0] / (1 - level[:, 0]) / (n * q[n - 1])  # 1 / (r n q): r is in the loss
    return torch.where(u <= level, graph.mask_id, x0), level[:, 0], weight


# %% [markdown]
# The library does the same in `training/draws.py`, for any schedule and with the times of section 2, from 0.001 to 1; a
# block that falls outside gets the weight 0. (The tests compare its expectation with the exact integral, by
# enumeration.)

# %%
from sedd_mini.training.draws import noised

x, level, weight = draw_counted(exam_blocks, torch.Generator().manual_seed(3))
theirs, t, factor = noised(graph, noise, exam_blocks, torch.Generator().manual_seed(3), "counted")
inside = factor > 0  # (M,)
assert torch.equal(x, theirs) and inside.float().mean() > 0.98
assert_close(t[inside], (level / 0.999)[inside].float())
assert_close((factor * noise.rate(t))[inside], (weight / 0.999)[inside].float(), rtol=1e-3, atol=0)

# %% [markdown]
# What is it worth? We take the network as it is now and draw batches of 64 blocks in both ways. How much does the loss vary
# from batch to batch, and how much the gradient (the sum of the variances of its 636 000 numbers)?


# %%
def one_batch(how, generator):
    x0 = corpus.train[torch.randint(len(corpus.train), (64,), generator=generator)]
    x, t, weight = noised(graph, noise, x0, generator, how)
    entropy = trainer.model(x, noise.total(t), x0=x0, graph=graph)  # (B, L)
    loss = ((weight * noise.rate(t))[:, None] * entropy).mean()
    grads = torch.autograd.grad(loss, list(trainer.model.parameters()))
    return loss.item() / math.log(2), torch.cat([g.flatten() for g in grads])


spreads = {}
for how in ("independent", "counted"):
    generator = torch.Generator().manual_seed(4)
    some, grads = zip(*(one_batch(how, generator) for _ in range(24)))
    spreads[how] = torch.tensor(some).var().item(), torch.stack(grads).var(0).sum().item()
loss_gain, gradient_gain = (a / b for a, b in zip(*spreads.values()))
print(f"variance of the loss divided by {loss_gain:.1f}, of the gradient by {gradient_gain:.1f}")
assert loss_gain > 1.2 and gradient_gain > 1.2

# %% [markdown]
# The gradient varies less, at the same number of calls: a third less here, for a network that has nearly converged.
# Uniform noise gains nothing of the kind: all words
# count there, so no number of them is drawn.

# %% [markdown]
# ## Further reading
#
# - A. Lou, C. Meng, S. Ermon, [*Discrete Diffusion Modeling by Estimating the Ratios of the Data
#   Distribution*](https://arxiv.org/abs/2310.16834), 2023. The settings of the published runs are in its
#   appendix.
# - I. Loshchilov, F. Hutter, [*Decoupled Weight Decay Regularization*](https://arxiv.org/abs/1711.05101), 2017.
#   AdamW.
# - B. Polyak, A. Juditsky, *Acceleration of stochastic approximation by averaging*, SIAM Journal on Control
#   and Optimization 30, 1992. Why an average of the iterates is better than the last one.
# - D. Kingma, T. Salimans, B. Poole, J. Ho, [*Variational Diffusion
#   Models*](https://arxiv.org/abs/2107.00630), 2021. Evenly spread times in a batch, and schedules
#   that lower the variance of the loss.
# - S. Chen, J. Goodman, *An empirical study of smoothing techniques for language modeling*, Computer Speech and
#   Language 13, 1999. Kneser–Ney and its competitors, measured.
# - L. Rabiner, *A tutorial on hidden Markov models and selected applications in speech recognition*,
#   Proceedings of the IEEE 77, 1989. The forward–backward algorithm.
