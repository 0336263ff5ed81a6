# %% [markdown]
# # 04. How good is it? The likelihood bound
#
# Chapter 03 left us with a trained network and a loss. Is a loss of 3.6 good? Compared with what? We would like
# to ask the model a question that any model of text can be asked: *how probable do you think this sequence is?*
# A model that writes from left to right answers by multiplying its conditional probabilities. A diffusion model
# has nothing to multiply. It only has a reverse chain, which starts from noise, jumps at the rates that the
# network gives, and ends somewhere; and $p_\theta(x_0)$ is the probability that it ends at $x_0$. Nobody can
# add up all the paths that lead there.
#
# This chapter shows that nobody has to. The loss of chapter 03, integrated over all noise levels, plus one
# small term that is known exactly, is never less than $-\log p_\theta(x_0)$:
#
# $$-\log p_\theta(x_0)\;\le\;\mathcal L_{\mathrm{DWDSE}}(x_0)+\mathrm{KL}\big(p_{T|0}(\cdot|x_0)\,\big\|\,p_{\mathrm{base}}\big).$$
#
# **What you will be able to do**
#
# - weigh the path of one jump process against the law of another, and derive the divergence between two such laws;
# - derive the bound from it, say when it is an equality, and say what the gap is when it is not;
# - estimate the bound with an error bar that deserves its name, with the two ends of the integral that are easily forgotten.
#
# **What you need:** chapters 01 to 03. **Running time:** under a minute on two CPU cores.
#
# ## A picture first
#
# Two machines sit in a dark room. Each will switch on a lamp once, after a random wait, and never switch it
# off. Machine A waits half a second on average, machine B two seconds. You are led to one of them and watch.
# While the lamp stays dark, you slowly come to think that this is B, the slow one. The moment it lights up, you
# lean sharply back to A. Your *evidence* for A is the logarithm of the ratio of two probabilities: of what you
# have seen so far under A, and under B. Here it is, for thirty evenings with machine A.

# %%
import math
import matplotlib.pyplot as plt
import torch
from sedd_mini import plots

plots.use_style()
torch.set_num_threads(1)  # for arrays as small as ours a second thread only gets in the way
lam, mu, T = 2.0, 0.5, 2.0  # jumps a second of A and of B; seconds of watching
clock = torch.linspace(0, T, 400, dtype=torch.float64)
wait = -torch.rand(30, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log() / lam
fig, ax = plt.subplots()
for i, s in enumerate(wait):
    evidence = (clock >= s) * math.log(lam / mu) - (lam - mu) * clock.clamp(max=s)
    ax.plot(
        clock,
        evidence,
        color=plots.BLUE if i == 14 else "#c5ccd6",
        lw=2 if i == 14 else 0.8,
        zorder=3 if i == 14 else 1,
    )
mean = (1 - torch.exp(-lam * clock)) * (math.log(lam / mu) + mu / lam - 1)
ax.plot(clock, mean, color=plots.ORANGE, lw=3, zorder=4)
ax.text(1.46, 0.7, "mean of all evenings", color=plots.ORANGE, backgroundcolor="white", zorder=2)
ax.text(
    0.04, -2.1, "going down: the lamp is still dark\njump upward: it lights up", color="#555555"
)
ax.set(
    xlabel="seconds watched",
    ylabel="evidence for A (nats)",
    title="What a path says about the machine that made it",
);

# %% [markdown]
# *Each grey line is one evening, the blue one among them; the jump upward is the lamp. On some evenings the
# evidence ends up against A, although it was A all along. The mean over all evenings (orange) only ever rises.
# Its height at the end is a Kullback–Leibler divergence between two laws of paths, and in this chapter we learn
# to compute it, for any chain. The likelihood bound is such a height.*
#
# ## 1. One jump
#
# The smallest jump process is a chain with two states and one jump upward, $0\to1$, at rate $\lambda$. A path
# is described completely by one number, the time $s$ of its jump. In each short stretch $ds$ the chain survives
# with probability $1-\lambda\,ds$; over a time $s$ these factors multiply to $e^{-\lambda s}$. So a jump in
# $[s, s+ds]$ has probability $\lambda e^{-\lambda s}ds$, and no jump until the end $T$ of our watch has
# probability $e^{-\lambda T}$. That is all there is to know about this chain, and the two together must make 1:

# %%
def density(s, rate):
    """Density of a path with its one jump at time s."""
    return rate * torch.exp(-rate * s)


s = (torch.arange(4000, dtype=torch.float64) + 0.5) * T / 4000  # middles of 4000 short stretches
ds = T / 4000
total = (density(s, lam) * ds).sum() + math.exp(-lam * T)
assert abs(total - 1) < 1e-6

# %% [markdown]
# Machine B is the same chain with rate $\mu$. Divide one density by the other, take the logarithm, and the
# evidence of the picture appears. It has two parts:
#
# $$\log\frac{\lambda e^{-\lambda s}}{\mu e^{-\mu s}}=\underbrace{\log\frac\lambda\mu}_{\text{at the jump}}\;-\;\underbrace{(\lambda-\mu)\,s}_{\text{while waiting}},
# \qquad\text{and without a jump only }-(\lambda-\mu)T .$$

# %%
def log_ratio(s):
    """log of (probability of this path under A / under B); s >= T: no jump while we watched."""
    at_the_jump = torch.where(s < T, math.log(lam / mu), 0.0)
    while_waiting = -(lam - mu) * s.clamp(max=T)
    return at_the_jump + while_waiting

# %% [markdown]
# This is called a *change of measure*, because it turns averages over one law into averages over another:
# $\mathbb E_A[f]=\mathbb E_B[e^{\text{log ratio}}f]$. Try it on the question "has the lamp come on within half
# a second?". The answer for A is $1-e^{-\lambda/2}\approx0.632$. We never touch machine A; we watch B, whose
# own answer is 0.221, and weigh each of its evenings.

# %% tags=["nbval-check-output"]
g = torch.Generator().manual_seed(0)
jump_of_B = -torch.rand(400_000, generator=g, dtype=torch.float64).log() / mu
early = (jump_of_B < 0.5).double()
weighed = (log_ratio(jump_of_B).exp() * early).mean().item()
assert abs(weighed - (1 - math.exp(-lam / 2))) < 0.01
print(f"B itself: {early.mean():.2f}   B, weighed: {weighed:.2f}   A: {1 - math.exp(-lam / 2):.2f}")

# %% [markdown]
# The mean of the log ratio under A is the Kullback–Leibler divergence of the two path laws,
# $\mathrm{KL}(A\|B)$: the evidence that an evening brings on average. We get it three ways. First by
# simulation. A uniform number $U$ becomes a jump time by $s=-\log U/\lambda$, since then
# $P(s>u)=P(U<e^{-\lambda u})=e^{-\lambda u}$.

# %%
jump_of_A = -torch.rand(400_000, generator=g, dtype=torch.float64).log() / lam
evidence = log_ratio(jump_of_A)
by_simulation, error = evidence.mean().item(), evidence.std().item() / math.sqrt(len(evidence))

# %% [markdown]
# Second by quadrature: the log ratio of every jump time, weighed with its density, plus the one path that does
# not jump.

# %%
by_quadrature = (density(s, lam) * log_ratio(s) * ds).sum() + math.exp(-lam * T) * -(lam - mu) * T
assert abs(by_simulation - by_quadrature) < 4 * error  # 4 standard errors: a false alarm in 16 000

# %% [markdown]
# Third by thinking about one moment. Suppose the chain is still at 0, and a short time $dt$ passes. With
# probability $\lambda\,dt$ the jump comes and brings $\log\frac\lambda\mu$; in any case the wait costs
# $(\lambda-\mu)\,dt$. The evidence expected from this moment is therefore
#
# $$\Big(\lambda\log\frac\lambda\mu-\lambda+\mu\Big)dt\;=\;D(\lambda,\mu)\,dt,\qquad D(a,b)=b-a\log b+K(a),\quad K(a)=a(\log a-1).$$
#
# Look at it twice: we have met it. It is the Bregman divergence of chapter 03, the summand of score entropy,
# with a true rate in the place of the true ratio $r$ and another rate in the place of the score. Nobody chose
# it here. It is what the probabilities of jumping and of waiting make together, and this is the reason why
# score entropy, among all the losses with the right minimiser, measures likelihood.

# %%
from sedd_mini.losses import score_entropy_terms

def D(a, b):
    """The Bregman divergence of rates, b - a log b + K(a); b > 0, and a may be 0, where it is b."""
    return b - a * torch.log(b) + torch.xlogy(a, a) - a

a, b = torch.tensor([2.0, 0.5, 1.0, 0.0]), torch.tensor([0.5, 2.0, 1.0, 0.3])
assert torch.allclose(D(a, b), score_entropy_terms(b.log(), a))  # chapter 03's s - r log s + K(r)
assert D(a, b).min() >= 0 and D(a, b)[2] == 0  # never negative, 0 where the rates agree

# %% [markdown]
# The whole evening is the sum of its moments. A moment at time $t$ counts only if the chain is still at 0,
# which has probability $e^{-\lambda t}$; at 1 nothing can happen under either law, and no evidence comes. So
#
# $$\mathrm{KL}(A\|B)=\int_0^T P_A(\text{still at 0 at }t)\;D(\lambda,\mu)\,dt .$$

# %% tags=["nbval-check-output"]
rates = torch.tensor([lam, mu], dtype=torch.float64)
by_moments = (torch.exp(-lam * s) * D(*rates) * ds).sum()
assert abs(by_moments - by_quadrature) < 1e-6
print(
    f"simulation {by_simulation:.2f}, quadrature {by_quadrature:.3f}, "
    f"moment by moment {by_moments:.3f} nats"
)

# %% [markdown]
# ## 2. Rates that change with time
#
# Noise comes at a changing rate, and the reverse of noise too. Does the argument survive? Read it again: it
# looked at one moment, and at that moment a changing rate has one value. Only the probability of waiting must
# be rewritten, as $\exp(-\int_0^s\lambda(u)du)$. Let machine A warm up, $\lambda(t)=2t$, so that it waits until
# $s$ with probability $e^{-s^2}$; and let B keep the constant rate 1. The log ratio of a path that jumps at $s$
# is
#
# $$\log\frac{2s}{1}-\int_0^s(2u-1)\,du=\log 2s-s^2+s .$$

# %%
U = torch.rand(400_000, generator=g, dtype=torch.float64)
jump = (-U.log()).sqrt()  # P(jump > s) = exp(-s²)
until = jump.clamp(max=T)
evidence = torch.where(jump < T, (2 * until).log(), 0.0) - (until**2 - until)
by_moments = (torch.exp(-(s**2)) * D(2 * s, torch.ones_like(s)) * ds).sum()
assert abs(evidence.mean() - by_moments) < 4 * evidence.std() / math.sqrt(len(evidence))

# %% tags=["nbval-check-output"]
print(f"simulation {evidence.mean():.2f}, moment by moment {by_moments:.2f} nats")

# %% [markdown]
# ## 3. Any chain
#
# Now let there be many states and many jumps, with rate $A(y,x)$ of the jump $x\to y$ in one law and $B(y,x)$
# in the other. We keep chapter 01's convention: the column says where the chain is, and the diagonal holds
# minus the sum of the rates out. A path is a row of waits and jumps, each of which brings evidence as before: a
# jump $x\to y$ brings $\log A(y,x)/B(y,x)$, and a wait at $x$ costs, for every second, the difference of the
# total rates out of $x$. If the chains start differently, the start brings its own log ratio. Here are two
# chains on three states.

# %%
A = torch.tensor([[0.0, 0.3, 1.0], [2.0, 0.0, 0.5], [0.5, 1.0, 0.0]], dtype=torch.float64)
B = torch.tensor([[0.0, 1.0, 1.0], [0.7, 0.0, 1.5], [0.7, 0.5, 0.0]], dtype=torch.float64)
A, B = A - A.sum(0).diag(), B - B.sum(0).diag()  # every column sums to 0

# %% [markdown]
# To draw a path of A we do what chapter 01 did: wait for an exponential time with the total rate out of $x$,
# then jump to $y$ with probability proportional to $A(y,x)$, until the time is over.

# %%
def sample_path(A, T, generator):
    """The jumps (time, from, to) of one path that starts at 0, and the state where it ends."""
    x, now, jumps = 0, 0.0, []
    while True:
        u = torch.rand((), generator=generator, dtype=torch.float64).item()
        now += -math.log(1 - u) / -A[x, x].item()
        if now > T:
            return jumps, x
        y = torch.multinomial(A[:, x].clamp(min=0), 1, generator=generator).item()
        jumps.append((now, x, y))
        x = y

sample_path(A, 2.0, torch.Generator().manual_seed(5))

# %% [markdown]
# Three jumps, $0\to1\to2\to0$, with their times. The evidence of a path is a sum that can be read off it.

# %%
def path_log_ratio(jumps, end, A, B, T):
    """Σ over jumps of log A/B, minus the excess of A's exit rates over B's while waiting."""
    A, B = A.tolist(), B.tolist()
    now, total = 0.0, 0.0
    for time, x, y in jumps:
        total += math.log(A[y][x] / B[y][x]) + (A[x][x] - B[x][x]) * (time - now)
        now = time
    return total + (A[end][end] - B[end][end]) * (T - now)

evidence = torch.tensor([path_log_ratio(*sample_path(A, 2.0, g), A, B, 2.0) for _ in range(3000)])

# %% [markdown]
# And its mean follows moment by moment, exactly as before. At time $t$ the chain is at $x$ with probability
# $p_t(x)$; while it is there, every possible jump $x\to y$ brings evidence at rate $D(A(y,x),B(y,x))$:
#
# $$\mathrm{KL}(A\|B)=\mathrm{KL}(\text{start})+\int_0^T\sum_x p_t(x)\sum_{y\ne x}D\big(A_t(y,x),B_t(y,x)\big)\,dt .$$
#
# Here both chains start at 0, so the first term vanishes, and $p_t=e^{tA}p_0$ by a matrix exponential.

# %%
off = ~torch.eye(3, dtype=torch.bool)
evidence_rate = torch.where(off, D(A, torch.where(off, B, 1)), 0).sum(0)  # (3,): of each state x


def path_kl(T, n=400):
    """Moment by moment: the middles of n short stretches of [0, T]."""
    t = (torch.arange(n, dtype=torch.float64) + 0.5) * T / n
    p_t = torch.matrix_exp(t[:, None, None] * A)[:, :, 0]  # (n, 3)
    return (p_t @ evidence_rate).sum().item() * T / n

# %% tags=["nbval-check-output"]
error = evidence.std().item() / math.sqrt(len(evidence))
assert abs(evidence.mean() - path_kl(2.0)) < 4 * error
print(
    f"3000 paths agree with the integral, {path_kl(2.0):.3f} nats: "
    f"{abs(evidence.mean() - path_kl(2.0)) < 4 * error}"
)

# %% [markdown]
# ## 4. Seeing only the end
#
# We know how to compare laws of whole paths. But $p_\theta(x_0)$ speaks of ends only: where the reverse chain
# arrives, by whatever way. What does one say about the other? Split the path into its end $z$ and the way $w$
# that led there. Any joint law is the law of $z$ times the law of $w$ given $z$; the logarithm turns the
# product into a sum; and the mean of that sum is the *chain rule*
#
# $$\underbrace{\mathrm{KL}\big(A(z,w)\|B(z,w)\big)}_{\text{paths}}=\underbrace{\mathrm{KL}\big(A(z)\|B(z)\big)}_{\text{ends}}+\underbrace{\mathbb E_{z\sim A}\,\mathrm{KL}\big(A(w|z)\|B(w|z)\big)}_{\text{the way, given the end}\;\ge\;0}.$$
#
# The last part is a mean of divergences, so it is not negative, and the divergence of the ends is at most that
# of the paths. This is the *data-processing inequality*: whoever sees less can tell less. On the lamp every
# part can be computed. The end says whether the lamp is on; the way says when it came on, if it did.

# %%
on_A, on_B = 1 - math.exp(-lam * T), 1 - math.exp(-mu * T)
ends = on_A * math.log(on_A / on_B) + (1 - on_A) * math.log((1 - on_A) / (1 - on_B))
when_A, when_B = density(s, lam) / on_A, density(s, mu) / on_B  # when, given that it came on
way = on_A * (when_A * (when_A / when_B).log() * ds).sum().item()  # still dark: one way only

# %% tags=["nbval-check-output"]
assert abs(ends + way - by_quadrature) < 1e-6
print(f"ends {ends:.3f} + way {way:.3f} = paths {by_quadrature:.3f} nats")

# %% [markdown]
# Two fifths of the evidence about the lamp lie in *when* it came on. The three-state chains show the same, more
# drastically: after a long time both have forgotten where they began, their ends can tell no more than their
# two equilibria, while the paths keep talking.

# %%
times_T = torch.linspace(0.02, 4, 60, dtype=torch.float64)
end_A, end_B = (torch.matrix_exp(times_T[:, None, None] * M)[:, :, 0] for M in (A, B))
kl_ends = (end_A * (end_A / end_B).log()).sum(-1)
kl_paths = torch.tensor([path_kl(t) for t in times_T.tolist()], dtype=torch.float64)
assert (kl_ends <= kl_paths).all()
fig, ax = plt.subplots()
ax.plot(times_T, kl_paths, color=plots.ORANGE)
ax.plot(times_T, kl_ends, color=plots.BLUE)
ax.fill_between(times_T, kl_ends, kl_paths, color="#eeeeee")
ax.text(2.3, 1.5, "whole paths", color=plots.ORANGE, ha="right")
ax.text(3.0, 0.20, "ends only", color=plots.BLUE)
ax.text(2.3, 0.65, "the way, given the end", color="#666666")
ax.set(
    xlabel="length T of the paths",
    ylabel="KL(A ‖ B), nats",
    ylim=(0, None),
    title="Whoever sees only the end can tell less",
);

# %% [markdown]
# *The blue curve never crosses the orange one. The grey gap between them is what was lost by looking at the
# ends only; remember it, for it comes back below as the gap of the likelihood bound.*
#
# ## 5. The two laws of diffusion
#
# Everything is ready; we only have to name the two laws. Fix one sequence $x_0$. As the clock of the process we
# take the total noise $\bar\sigma$ itself, in code `sigma`, running from $\bar\sigma(1)$ down to 0. (On another
# clock the rates are multiplied and the moments $dt$ divided by the same factor, and the integral does not
# notice.)
#
# - **Law A** is the truth about $x_0$: noise it by the forward chain, and watch the film backwards. By chapter 01 the reverse of a noising process
#   jumps $x\to y$ at rate $Q(x,y)$ times the ratio of its marginals. The data is the single point $x_0$, so the marginal is the forward kernel, and
#   the ratio is $r_y=p(y|x_0)/p(x|x_0)$. The film starts at a draw of $p_{T|0}(\cdot|x_0)$ and ends, with certainty, at $x_0$.
# - **Law B** is the model. It starts at a draw of $p_{\mathrm{base}}$, jumps at rate $Q(x,y)\,s_\theta(x)_y$, and ends at $x$ with probability $p_\theta(x)$,
#   which is the definition of $p_\theta$.
#
# Now read the inequality of section 4. *Ends:* A ends at $x_0$ with probability 1, so the divergence of the
# ends is $1\cdot\log\frac1{p_\theta(x_0)}$. *Paths:* by the formula of section 3, it is the start plus the
# integral of rates of evidence, and as both rates hold the same factor, $D(Qr,Qs)=Q\,D(r,s)$:
#
# $$-\log p_\theta(x_0)\;\le\;\mathrm{KL}\big(p_{T|0}(\cdot|x_0)\,\|\,p_{\mathrm{base}}\big)+\int_0^{\bar\sigma(1)}\mathbb E_{x\sim p(\cdot|x_0)}\sum_{y\ne x}Q(x,y)\big(s_y-r_y\log s_y+K(r_y)\big)\,d\bar\sigma .$$
#
# The integrand is what chapter 03 called diffusion-weighted denoising score entropy, DWDSE: no weight in it was
# chosen by taste. Lou, Meng and Ermon prove this as theorem 3.6. The integral is $\mathcal
# L_{\mathrm{DWDSE}}(x_0)$, the other term the *prior term*.
#
# ### By hand: one token that is masked
#
# Take one token of three, on the absorbing graph. Law A is our lamp: MASK is dark, and the only jump goes to
# $x_0$, at rate $r=1/(e^{\bar\sigma}-1)$. Let the model guess $x_0$ with probability $\pi_{x_0}$, and the
# others with theirs: $s_y=\pi_y\,r$. Then at MASK
#
# $$D(r,\pi_{x_0}r)+\sum_{y\ne x_0}D(0,\pi_yr)=r\big(-\log\pi_{x_0}-1+\pi_{x_0}\big)+r\big(1-\pi_{x_0}\big)=-r\log\pi_{x_0}:$$
#
# jumps that A never makes cost as much as B makes them. All the noise level does is to multiply the
# cross-entropy of a guess. The token is masked with probability $1-e^{-\bar\sigma}$, and
# $(1-e^{-\bar\sigma})\,r=e^{-\bar\sigma}$, whose integral is $1-\delta$ with $\delta=e^{-\bar\sigma(1)}$, the
# share of tokens that are never masked. Hence $\mathcal L_{\mathrm{DWDSE}}=-(1-\delta)\log\pi_{x_0}$. Does the
# library's integrand say so?

# %%
from sedd_mini import AbsorbingGraph, UniformGraph
from sedd_mini.worlds.ctmc import Chain, log_quadrature

graph = AbsorbingGraph(3)
pi = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
sigma_max = 4.0
sigma, weight = (
    torch.tensor(v, dtype=torch.float64) for v in log_quadrature(1e-12, sigma_max, 100)
)
log_score = torch.cat([pi.log(), torch.zeros(1)]) - sigma.expm1().log()[:, None]  # (100, 4)
mask, x0 = torch.full((100,), graph.mask_id), torch.zeros(100, dtype=torch.int64)
integrand = -torch.expm1(-sigma) * graph.score_entropy(log_score, sigma, mask, x0)
dwdse = (weight * integrand).sum().item()
delta = math.exp(-sigma_max)
assert abs(dwdse + (1 - delta) * math.log(pi[0])) < 1e-9

# %% [markdown]
# (`log_quadrature` gives points and weights for an integral over $\bar\sigma$, spaced evenly in
# $\log\bar\sigma$, because noise has structure on every scale.)
#
# The model's own probability is simple here. It starts at MASK with probability $1-\delta$ and ends at $x_0$ in
# the share $\pi_{x_0}$ of these cases; or it starts at one of the three tokens, $\delta/3$ each, and stays.
# (Section 9 explains that start.) The prior term is then $\delta\log3$: both laws agree about MASK, and the
# rest, $\delta$, lies on $x_0$ alone in A, on three tokens in B. And the gap? It has to be the divergence of
# *the way, given the end*. Only two ways lead to $x_0$: through MASK, or sitting there from the start. Under A
# they have probabilities $1-\delta$ and $\delta$; under B, given the end, Bayes' rule says what.

# %% tags=["nbval-check-output"]
p_model = (1 - delta) * pi[0] + delta / 3
bound = dwdse + graph.prior_kl(sigma_max).item()
way_A = torch.tensor([1 - delta, delta], dtype=torch.float64)
way_B = torch.stack([(1 - delta) * pi[0], torch.tensor(delta / 3)]) / p_model
gap = (way_A * (way_A / way_B).log()).sum()
assert abs(bound + p_model.log() - gap) < 1e-6
print(
    f"-log p = {-p_model.log():.4f}, bound = {bound:.4f}, "
    f"gap = {bound + p_model.log():.4f}; KL of the ways = {gap:.4f}"
)

# %% [markdown]
# ## 6. The same sum, for sequences
#
# Here is the integrand at one noise level, for a sequence, as naively as it can be written: the same symbols as
# in the formula, three loops, nothing clever. A model is a function from sequences and noise levels to
# log-scores, one row of entries for each position. `chain` is the oracle of chapter 01; it knows the kernel
# $p(\cdot|x_0)$ of one token, and tokens are noised independently, so kernels multiply.

# %%
def dwdse_naive(chain, model, x0, sigma):
    """E over x ~ p(·|x0) of Σ_{y≠x} Q(x, y) (s_y - r_y log s_y + K(r_y)), at one sigma."""
    p, Q, total = chain.kernel(sigma), chain.token_rates(), 0.0
    for x in chain.states:
        prob = p[x, x0].prod()
        if prob == 0:
            continue
        log_score = model(x[None], torch.tensor([sigma], dtype=torch.float64))[0]  # (d, S)
        for i in range(chain.length):
            for y in range(chain.num_states):
                if y != x[i] and Q[x[i], y] > 0:
                    r = p[y, x0[i]] / p[x[i], x0[i]]
                    total += prob * Q[x[i], y] * D(r, log_score[i, y].exp())
    return total

# %% [markdown]
# The oracle has a better version, `loss_by_data`, which does the sums for every $x_0$ at once as products of
# arrays. We compare them on a world of two tokens with three values each, and with a model that is wrong on
# purpose: the exact log-ratios, plus something.

# %%
g = torch.Generator().manual_seed(2)
p0 = torch.rand(3, 3, generator=g, dtype=torch.float64) + 0.1
p0 /= p0.sum()
nine = torch.cartesian_prod(torch.arange(3), torch.arange(3))  # every x0, (9, 2)


def spoilt(chain):
    """A model of this chain that is wrong on purpose."""
    return lambda x, sigma: (
        chain.log_score(x, sigma) + 0.3 * torch.sin(torch.arange(chain.num_states))
    )


for chain in (Chain(UniformGraph(3), p0), Chain(AbsorbingGraph(3), p0)):
    for level in (0.01, 0.5, 3.0):
        fast = chain.loss_by_data(spoilt(chain), level)  # (3, 3): one entry for each x0
        slow = [dwdse_naive(chain, spoilt(chain), x0, level) for x0 in nine]
        assert torch.allclose(fast.flatten(), torch.stack(slow), rtol=1e-10)

# %% [markdown]
# The bound is the integral of this plus the prior term, and that is what `Chain.bound` computes, for every
# $x_0$. Again the naive version first; the prior term is a sum over all sequences that noise can make of $x_0$.

# %%
chain, x0, sigma_max = Chain(UniformGraph(3), p0), torch.tensor([2, 0]), 5.0
log_base = chain.marginal(sigma_max).log()  # some p_base: the noised data
levels, weights = log_quadrature(1e-12, sigma_max, 100)
integral = sum(
    w * dwdse_naive(chain, spoilt(chain), x0, level) for level, w in zip(levels, weights)
)
p_T = chain.kernel(sigma_max)[chain.states, x0].prod(-1)  # p(x | x0) for each of the nine x
prior = (p_T * (p_T.log() - log_base.flatten())).sum()
library = chain.bound(spoilt(chain), sigma_max, log_base=log_base)
assert abs(integral + prior - library[2, 0]) < 1e-6

# %% [markdown]
# ## 7. Exact ratios: an equality
#
# How much does the inequality give away? Put in the exact ratios of the data,
# $s_y=p_{\bar\sigma}(y)/p_{\bar\sigma}(x)$, and start from $p_{\mathrm{base}}=p_T$, the data with all its
# noise. Then law B is the film, run backwards, of the noising of *all* the data. Pick from it the films that
# end at $x_0$: they are the films of $x_0$ being noised, no more and no less, which is law A. The way, given
# the end, is the same in both laws; its divergence is 0; and the bound is no bound any more but the likelihood
# itself. Not on average: for every single $x_0$. We check this on three tokens of four values, random data,
# both graphs.

# %% tags=["nbval-check-output"]
p0 = torch.rand(4, 4, 4, generator=g, dtype=torch.float64) ** 3 + 0.01
p0 /= p0.sum()
for graph in (UniformGraph(4), AbsorbingGraph(4)):
    chain = Chain(graph, p0)
    bound = chain.bound(chain.log_score, 8.0, log_base=chain.marginal(8.0).log())  # (4, 4, 4)
    worst = (bound + p0.log()).abs().max().item()
    assert worst < 1e-8
    print(f"{graph}: bound = -log p0 for all {p0.numel()} sequences, to 8 digits: {worst < 1e-8}")

# %% [markdown]
# Two things deserve a second look. The integrand itself is *not* zero for exact ratios: $r_y$ is the ratio
# given $x_0$, and no network that sees only $x$ could know it. What remains is the uncertainty about $x_0$, and
# it adds up to precisely $-\log p_0(x_0)$. So a loss that stays far above zero is no sign of a bad network; the
# best possible loss is the entropy of the data.
#
# And the equality needs everything: all of $(0,\bar\sigma(1)]$ and $p_{\mathrm{base}}=p_T$. Sections 9 and 10
# look at what is missing in practice.
#
# ## 8. A trained network: a bound
#
# Now the real case. Our world is a small one of the kind of chapter 02, two rings of eight values a token: 64
# sequences, few enough to know each of them. We train the network of chapters 02 and 03 on it by DWDSE, a few
# seconds for each graph, with the schedule that belongs to it: geometric noise with the uniform graph,
# log-linear noise with the absorbing one. The training is short on purpose, because we want a model that is not
# perfect.
#
# One thing is known about the ratios of the absorbing graph, and we do not make the network learn it. We saw by
# hand that $s_y=\pi_y/(e^{\bar\sigma}-1)$ for a guess $\pi$. The factor runs over many orders of magnitude, the
# guess stays in its place; so, as Lou, Meng and Ermon do, we let the network give $\log\pi$ and subtract
# $\log(e^{\bar\sigma}-1)$. Exercise 3 shows what happens without.

# %%
from sedd_mini import GeometricNoise, LogLinearNoise
from sedd_mini.losses import diffusion_weighted
from sedd_mini.worlds.toys import PairNet, fit, two_token_world

N = 8
p0 = two_token_world("rings", N, floor=0.1)
setups = {
    "uniform": (UniformGraph(N), GeometricNoise()),
    "absorbing": (AbsorbingGraph(N), LogLinearNoise()),
}


def plain(net):
    return net


def scaled(net):
    """The model whose log-score is the network's output minus log(e^σ̄ - 1)."""
    return lambda x, sigma: net(x, sigma) - sigma.expm1().log()[:, None, None]

# %%
def train(graph, noise, dress):
    """A PairNet, dressed as a model (plain or scaled), trained on the two rings by DWDSE."""

    def loss(net, *args, **kwargs):
        return diffusion_weighted(dress(net), *args, **kwargs)

    torch.manual_seed(0)
    net = PairNet(graph.num_states, width=64)
    fit(loss, net, graph, noise, p0, steps=400, batch_size=256, lr=5e-3)
    return dress(net)


models = {
    "uniform": train(*setups["uniform"], plain),
    "absorbing": train(*setups["absorbing"], scaled),
}

# %% [markdown]
# What is $p_\theta(x_0)$ exactly? Usually nobody knows; here we do. `Chain.reverse_marginal` takes the whole
# distribution $p_{\mathrm{base}}$ over sequences and pushes it through the model's own reverse chain,
# $dp/d\bar\sigma=-\bar Qp$, in small steps down to $\bar\sigma\approx0$, as one solves any linear differential
# equation. What arrives at $x_0$ is $p_\theta(x_0)$. Doubling the number of steps shows how exact that is. The
# base distribution is the graph's own, `limit_log_prob`, token by token.

# %%
@torch.no_grad()
def exact_nll(chain, model, sigma_max, steps=300):
    """-log p_θ(x0) of the model's own reverse chain, for every x0, (N, N)."""
    token = chain.graph.limit_log_prob(torch.arange(chain.num_states), sigma_max)
    p_base = token[chain.states].sum(-1).exp()
    return -chain.reverse_marginal(model, sigma_max, p_base, steps=steps)[:N, :N].log()

# %%
chains = {name: Chain(graph, p0) for name, (graph, _) in setups.items()}
exact, bound, last = {}, {}, torch.tensor(1.0, dtype=torch.float64)
for name, chain in chains.items():
    sigma_max = setups[name][1].total(last).item()
    exact[name] = exact_nll(chain, models[name], sigma_max)
    coarse = exact_nll(chain, models[name], sigma_max, steps=150)
    assert (coarse - exact[name]).abs().max() < 2e-3  # the error left is about a third of this
    with torch.no_grad():
        bound[name] = chain.bound(models[name], sigma_max)
    assert (bound[name] >= exact[name]).all()

# %% [markdown]
# The last line is the claim of this chapter, asserted for each of the 64 sequences on both graphs. The picture
# shows by how much.

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), sharey=True)
for ax, name in zip(axes, setups):
    gap = bound[name] - exact[name]
    ax.axhline(0, color="#444444", lw=1)
    ax.scatter(
        exact[name], gap, s=26, color=plots.BLUE if name == "uniform" else plots.ORANGE, alpha=0.8
    )
    ax.set(title=f"{name} graph", xlabel="exact $-\\log p_\\theta(x_0)$, nats", ylim=(-0.01, None))
axes[0].set_ylabel("bound − exact, nats");

# %% [markdown]
# *One dot for each of the 64 sequences: to the left what the model holds to be likely, to the right what it
# holds to be unlikely. No dot lies below the line. The gap is at most about a tenth of a nat, on sequences that
# cost three to seven nats: the bound is tight, also for models trained for a few seconds.*
#
# How good are these models? The mean over the data compares everything with one number, the entropy of the
# data, which no model can beat.

# %%
entropy = -(p0 * p0.log()).sum().item()
for name in setups:
    mean_exact, mean_bound = ((p0 * v[name]).sum().item() for v in (exact, bound))
    print(
        f"{name:9}: entropy {entropy:.3f} < exact {mean_exact:.3f} < bound {mean_bound:.3f}; "
        f"nothing learned: {2 * math.log(N):.3f}"
    )
    assert entropy < mean_exact < mean_bound < entropy + 0.15

# %% [markdown]
# The step from entropy to exact is $\mathrm{KL}(p_0\|p_\theta)$, the fault of the network. The step from exact
# to bound is the mean gap, the fault of the bound. Both are small beside what was learned, and in practice only
# their sum is seen.
#
# ### What the gap is
#
# By section 4 it is the divergence of *the way, given the end*: how the data really dissolves, seen backwards,
# against how the model, given that it ended at $x_0$, got there. We can measure it by itself. Let $h(x)$ be the
# probability that the model's chain, now at $x$, will end at $x_0$. Bayes' rule for one moment says that, among
# the paths that will end at $x_0$, a jump $x\to y$ is more frequent by the factor $h(y)/h(x)$. So the model
# *given its end* is one more jump process, with rates $B(y,x)h(y)/h(x)$, and section 3 gives its divergence
# from law A. First the rates of the model and of the forward chain, as $64\times64$ matrices:

# %%
def model_rates(chain, model, sigma):
    """B(y, x), the model's reverse rates between whole sequences, (n, n)."""
    n = len(chain.states)
    score = model(chain.states, torch.full((n,), sigma, dtype=torch.float64)).double().exp()
    rates = chain.graph.reverse_rates(chain.states, score)  # (n, d, S)
    target = chain.neighbours(chain.states)  # (n, d, S): the place of x with token i replaced by y
    source = torch.arange(n)[:, None, None].expand_as(target)
    return torch.zeros(n, n, dtype=torch.float64).index_put(
        (target, source), rates, accumulate=True
    )

# %% [markdown]
# Then $h$. At $\bar\sigma=0$ it is 1 at $x_0$ and 0 elsewhere. Standing at $x$ a little earlier, the chain will
# first jump and then have the chance of the place it jumped to: $dh/d\bar\sigma=B^\top h$, which we follow
# upward, from the end of the model's life to its start. On the way we add up $D$, of law A's rates and of the
# model's given its end.

# %%
@torch.no_grad()
def divergence_of_the_ways(chain, model, x0, sigma_max, p_base, steps=300):
    """KL of law A from the model given that it ends at x0, and p_θ(x0) on the way."""
    Q, place = chain.rate_matrix(), chain.index(x0)
    h = torch.zeros(len(Q), dtype=torch.float64)
    h[place], total = 1.0, 0.0
    edges = torch.logspace(-8, math.log10(sigma_max), steps + 1, dtype=torch.float64).tolist()
    for low, high in zip(edges, edges[1:]):
        middle = math.sqrt(low * high)
        B = model_rates(chain, model, middle)
        p = chain.kernel(middle)[chain.states, x0].prod(-1)  # p(x | x0) for all x
        now = torch.matrix_exp(B.T * (middle - low)) @ h
        a, b = Q.T * p[:, None] / p, B * now[:, None] / now  # (y, x)
        jumps = (Q.T > 0).fill_diagonal_(False)
        total += (high - low) * (
            torch.where(jumps, D(a.clamp(min=0), torch.where(jumps, b, 1)), 0) @ p
        ).sum()
        h = torch.matrix_exp(B.T * (high - low)) @ h
    p = chain.kernel(sigma_max)[chain.states, x0].prod(-1)
    p_x0 = (p_base * h).sum()
    return total + (p * (p * p_x0 / (p_base * h)).log()).sum(), p_x0

# %% [markdown]
# The start counts too: given its end, the model started at $x$ with probability
# $p_{\mathrm{base}}(x)h(x)/p_\theta(x_0)$. Nothing in this code knows of the bound. It must give the gap all
# the same.

# %%
p_base = torch.full((N * N,), 1 / N**2, dtype=torch.float64)
gap = bound["uniform"] - exact["uniform"]
for x0 in (torch.tensor([0, 0]), torch.tensor([2, 3])):
    way, p_x0 = divergence_of_the_ways(chains["uniform"], models["uniform"], x0, 20.0, p_base)
    assert abs(way / gap[tuple(x0)] - 1) < 0.03
    assert abs(-p_x0.log() - exact["uniform"][tuple(x0)]) < 2e-3
    print(f"x0 = {x0.tolist()}: gap {gap[tuple(x0)]:.4f}, divergence of the ways {way:.4f} nats")

# %% [markdown]
# Two computations with nothing but $D$ in common agree, to one per cent. So the gap vanishes if and only if the
# model, given that it ends at $x_0$, gets there as noised data does. With exact ratios it does, and that was
# section 7.
#
# ## 9. The prior term, openly
#
# The start of law A is $x_0$ with all the noise that there is, the start of law B is $p_{\mathrm{base}}$. On
# the uniform graph nothing could be simpler: $p_{\mathrm{base}}$ is uniform, and after $\bar\sigma=20$ the two
# can hardly be told apart. On the absorbing graph there is a trap. The obvious $p_{\mathrm{base}}$ is "all
# MASK", and it is what samplers start from. But a token of A escapes the mask with probability
# $\delta=e^{-\bar\sigma(1)}$, which is $10^{-3}$ for log-linear noise. Law A can thus do what law B cannot, and
# the divergence is infinite. The bound then reads $-\log p_\theta(x_0)\le\infty$: true, and useless.
#
# The honest way out is to say that B, too, lets a token through now and then:
# $p_{\mathrm{base}}=(1-\delta)\,\mathrm{MASK}+\delta/N$ on each token. Then A and B agree about MASK. The rest,
# $\delta$, lies on $x_0$ alone in A and on all $N$ tokens in B, and a token costs
#
# $$\delta\log\frac{\delta}{\delta/N}=\delta\log N\ \text{ nats},\qquad L\,\delta\log N\ \text{ a sequence.}$$

# %% tags=["nbval-check-output"]
graph, x0 = AbsorbingGraph(50257), torch.tensor(17)
sigma_max = LogLinearNoise().total(torch.tensor(1.0, dtype=torch.float64))
p_T = graph.transition_probs(x0, sigma_max)  # (50258,)
for name, log_base in {
    "all MASK": graph.limit_log_prob(torch.arange(50258)),
    "(1-δ) MASK + δ/N": graph.limit_log_prob(torch.arange(50258), sigma_max.item()),
}.items():
    prior = torch.where(p_T > 0, p_T * (p_T.log() - log_base), 0).sum()
    print(f"{name:16}: {prior:.4f} nats a token, {1024 * prior:.2f} nats for 1024 tokens")
assert abs(prior - graph.prior_kl(sigma_max)) < 1e-9  # the library's closed form of the second
prior = UniformGraph(50257).prior_kl(torch.tensor(20.0).double()).item()
print(f"uniform graph   : below 1e-12 nats a token: {prior < 1e-12}")

# %% [markdown]
# Eleven nats in a text of 1024 tokens: one per cent of a nat a token, or one per cent of the perplexity. That
# is small; it is not nothing. Whoever reports a number for an absorbing model should say whether it is in. In
# this book it is. (A sampler that starts from all MASK is thus not quite the model of the bound: they differ at
# the start, with probability $\delta$ a token.)
#
# ## 10. The two ends of the integral
#
# The integral runs from 0 to $\bar\sigma(1)$. Training does not: it draws $t$ from $[10^{-3},1]$, and geometric
# noise moreover starts at $\bar\sigma(0)=\sigma_{\min}=10^{-4}$, so that even $t=0$ leaves a piece out. For
# training this hardly matters. For a bound it does, since every piece left out is an amount by which the "upper
# bound" is too low. How low? We cut the integral of the exact ratios into pieces.

# %%
def piece(chain, model, low, high, nodes=100):
    """The part of the integral between two noise levels, for every x0."""
    return sum(
        w * chain.loss_by_data(model, level) for level, w in zip(*log_quadrature(low, high, nodes))
    )


starts = {
    name: [noise.total(torch.tensor(t, dtype=torch.float64)).item() for t in (0, 1e-3, 1)]
    for name, (_, noise) in setups.items()
}
ends, main = {}, {}
for name, chain in chains.items():
    first, trained_from, sigma_max = starts[name]
    ends[name] = piece(chain, chain.log_score, 1e-12, trained_from)
    main[name] = piece(chain, chain.log_score, trained_from, sigma_max, 200)
    prior = chain.prior_kl(sigma_max, log_base=chain.marginal(sigma_max).log())
    assert torch.allclose(
        main[name] + ends[name] + prior, -p0.log(), atol=1e-6
    )  # whole: an equality
    assert (main[name] + prior < -p0.log()).all()  # without its end: below the truth, for every x0

# %% [markdown]
# There it is: a "bound" without its end lies *below* the truth, for each of the 64 sequences. Where do the nats
# come from? Plotted over $\log\bar\sigma$, with the integrand multiplied by $\bar\sigma$, equal areas are equal
# nats.

# %%
levels = torch.logspace(-5, 1.3, 90, dtype=torch.float64).tolist()
fig, axes = plt.subplots(1, 2, figsize=(8, 3.5), sharey=True)
for ax, name in zip(axes, chains):
    curve = [
        s * (p0 * chains[name].loss_by_data(chains[name].log_score, s)).sum().item() for s in levels
    ]
    ax.semilogx(levels, curve, color=plots.BLUE if name == "uniform" else plots.ORANGE)
    ax.axvspan(levels[0], starts[name][1], color="#eeeeee")
    left_out = (p0 * ends[name]).sum().item()
    ax.text(1.5e-5, 1.05, f"grey: left out in\ntraining, {left_out:.4f} nats", color="#555555")
    ax.set(title=f"{name} graph", xlabel="total noise σ̄", xlim=(levels[0], levels[-1]))
axes[0].set(ylabel="nats for each factor e of noise", ylim=(0, 1.5));

# %% [markdown]
# *The area under each curve is the entropy of the data, 3.555 nats, up to the prior term. The same information
# is paid for at different noise levels on the two graphs. The grey end is thin: a few thousandths of a nat. It
# is nevertheless what separates a bound from something else.*
#
# For geometric noise the grey part has two pieces, $[0,\sigma_{\min}]$ and what $t\in[0,10^{-3}]$ covers. It is
# tempting to think only of the second, since the code says `1e-3` and one can see it. Measured, the first is
# nearly all:

# %% tags=["nbval-check-output"]
first, trained_from, _ = starts["uniform"]
below_sigma_min = (
    (p0 * piece(chains["uniform"], chains["uniform"].log_score, 1e-12, first)).sum().item()
)
below_t = (
    (p0 * piece(chains["uniform"], chains["uniform"].log_score, first, trained_from)).sum().item()
)
assert 50 < below_sigma_min / below_t < 150
print(
    f"[0, σ_min]: {1000 * below_sigma_min:.2f} thousandths of a nat; "
    f"t in [0, 0.001]: {1000 * below_t:.2f}"
)

# %% [markdown]
# And at real size? Take GPT-2's vocabulary and text of the plainest kind: tokens drawn evenly and
# independently. All ratios are 1, so all log-scores are 0, and the whole bound must be $\log N=10.825$ nats a
# token. Its piece in $[0,\sigma_{\min}]$:

# %% tags=["nbval-check-output"]
graph = UniformGraph(50257)
nodes, weight = (torch.tensor(v, dtype=torch.float64) for v in log_quadrature(1e-12, 20.0, 100))
log_score, zero = torch.zeros(100, 50257), torch.zeros(100, dtype=torch.int64)
unmoved, moved = (
    graph.score_entropy(log_score, nodes, zero, x0).double() for x0 in (zero, zero + 1)
)
p_moved = -torch.expm1(-nodes) * (1 - 1 / 50257)
parts = weight * ((1 - p_moved) * unmoved + p_moved * moved)
assert abs(parts.sum() - math.log(50257)) < 1e-3
end = parts[nodes < 1e-4].sum().item()
print(
    f"whole {parts.sum():.3f}, of which below 1e-4: about {end:.3f} nats a token, "
    f"{1024 * end:.0f} nats for 1024 tokens"
)

# %% [markdown]
# ## 11. Estimating it
#
# No real model can be enumerated, so the integral must be estimated by drawing. The simplest way is the
# training loss itself: draw $t$ evenly from $[0,1]$ and $x$ from $p_{t|0}(\cdot|x_0)$. With the factor
# $\sigma(t)=d\bar\sigma/dt$ the mean of this is $\int\dots d\bar\sigma$, over the noise levels that $t\in[0,1]$
# reaches. Naively:

# %%
@torch.no_grad()
def naive_draws(model, graph, noise, x0, generator):
    """One draw for each sequence x0 (M, L): σ(t) times the integrand, (M,)."""
    t = torch.rand(len(x0), generator=generator)
    sigma = noise.total(t)
    x = graph.sample_transition(x0, sigma[:, None], generator)
    return noise.rate(t) * diffusion_weighted(model, graph, x, sigma, x0=x0)

graph, noise = setups["uniform"]
model, chain = models["uniform"], chains["uniform"]
every_x0 = torch.cartesian_prod(torch.arange(N), torch.arange(N))  # all 64 sequences, each once
values = naive_draws(model, graph, noise, every_x0.repeat(500, 1), torch.Generator().manual_seed(5))
error = values.std().item() / math.sqrt(len(values))
with torch.no_grad():
    truth = piece(chain, model, noise.sigma_min, noise.sigma_max).mean().item()
assert abs(values.mean() - truth) < 4 * error

# %% [markdown]
# It agrees with the quadrature, and its *standard error*, the standard deviation of one draw divided by the
# square root of their number, says how well. Look at the draws themselves, though:

# %%
share = (values > 30).float().mean().item()
print(
    f"mean {values.mean():.3f} ± {error:.3f}; deviation of one draw {values.std():.1f}; "
    f"{100 * share:.1f} % of the draws exceed 30"
)
assert values.std() > 2 * values.mean()

# %% [markdown]
# One draw deviates by more than twice its mean. Most draws are small, and a few are large: a token that moved
# although there was hardly any noise. This is the nature of the integrand, so many draws are needed, and an
# estimate without an error bar is worthless.
#
# With log-linear noise on the absorbing graph it is worse. There a token is masked with probability about $t$
# and then costs its cross-entropy times $\sigma(t)\,r=1/t$, so the mean of the square is $\int dt/t$, which has
# no end: the variance of the naive draw is infinite, and it has no error bar at all. Watch the second moment
# grow as the lowest $t$ falls.

# %% tags=["nbval-check-output"]
graph, noise = setups["absorbing"]
for lowest in (1e-3, 1e-6, 1e-9):
    t, weight = (torch.tensor(v, dtype=torch.float64) for v in log_quadrature(lowest, 1.0, 200))
    sigma, zero = noise.total(t), torch.zeros(200, dtype=torch.int64)
    even = -(sigma.expm1().log()[:, None] + math.log(N))  # (M, 1): a guess, the same for all tokens
    log_score = even.expand(-1, N + 1)
    draw = noise.rate(t) * graph.score_entropy(log_score, sigma, zero + graph.mask_id, zero)
    print(
        f"t from {lowest:.0e}: second moment {(weight * -torch.expm1(-sigma) * draw**2).sum():.1f}"
    )

# %% [markdown]
# This, and no trouble with floating-point numbers, is a good reason to train on $[10^{-3},1]$. For the bound
# the rest must come in by another way.
#
# The library's `likelihood_bound` is our estimate with three improvements. An eighth of the draws goes to the
# end $(0,\bar\sigma(10^{-3})]$, spread evenly in $\log\bar\sigma$ and weighed accordingly, so that the number
# is a whole bound and its variance finite; the prior term is added in closed form; and the values of $t$ are
# stratified, of which more in a moment. It makes the whole estimate several times, `repeats`, and the spread of
# these gives the error bar.

# %%
from sedd_mini.evaluate import likelihood_bound

graph, noise = setups["uniform"]
report = likelihood_bound(model, graph, noise, every_x0, repeats=8, times_each=32, batch_size=2048,
                          generator=torch.Generator().manual_seed(6))  # fmt: skip
truth = bound["uniform"].mean().item()
assert abs(report.nats - truth) < 6 * report.error
print(f"estimated {report.nats:.3f} ± {report.error:.3f}, exact {truth:.3f} nats a sequence")
print(report)

# %% [markdown]
# The second line is how results are written: nats a token, and the perplexity $\exp(\text{nats}/L)$, the number
# of equally likely tokens that would be as hard to guess. Note the unit. A loss in nats a sequence, read as
# nats a token, is wrong by a factor $L$ in the exponent. (Here every sequence counted once; with sequences
# drawn from the data, it would bound the data's perplexity.)
#
# ### Does the error bar deserve its name?
#
# An error bar makes a claim: the truth lies within one standard error so often, within two so often. We know
# the truth, so we can count. With eight repeats, the standard error is itself estimated from eight numbers, and
# the claim is not the familiar 68 % and 95 % but that of Student's $t$ with seven degrees of freedom: 65 % and
# 91 %.

# %%
hits = torch.zeros(2)
for seed in range(200):
    g = torch.Generator().manual_seed(seed)
    report = likelihood_bound(
        model, graph, noise, every_x0, repeats=8, times_each=4, batch_size=256, generator=g
    )
    distance = abs(report.nats - truth) / report.error
    hits += torch.tensor([distance < 1, distance < 2])
inside = hits / 200
print(
    f"of 200 error bars, {100 * inside[0]:.0f} % reach the truth once, "
    f"{100 * inside[1]:.0f} % twice (65 % and 91 % promised)"
)
assert abs(inside[0] - 0.649) < 0.13 and abs(inside[1] - 0.914) < 0.08  # 4 standard errors

# %% [markdown]
# The bar covers what it promises. It speaks of chance in $t$ and $x$ only: which sequences were put into the
# test set is a further source of chance that it does not see.
#
# ### Stratified t
#
# Sixteen independent values of $t$ leave holes and make clusters, and the integrand depends strongly on $t$.
# *Stratified* values are one in each of sixteen equal intervals: each alone is still evenly spread, hence no
# bias, but together they can no longer crowd at one end. It costs nothing. What does it bring? The variance of
# a draw has two parts: how the mean at $t$ varies *between* values of $t$, and how draws vary *within* one $t$.
# Strata remove the first part and leave the second.
#
# Which part is larger depends on the length of the sequence: over $L$ tokens the chance within one $t$ averages
# out, whereas all tokens share their $t$. So we measure it by length, on sequences of independent tokens, whose
# exact ratios are those of one token at every position.

# %%
def independent_tokens(graph, p):
    """The exact model of sequences whose tokens are independent draws from p (N,)."""
    def model(x, sigma):
        every = torch.arange(len(p)).expand(len(x), -1)
        log_p = (graph.transition_probs(every, sigma[:, None]) * p[:, None]).sum(1).log()  # (B, S)
        return log_p[:, None] - log_p.gather(1, x)[..., None]  # (B, L, S)
    return model

# %% [markdown]
# For each length: 64 fresh sequences and 64 values of $t$ make one estimate, once with strata and once without;
# the spread of 400 such estimates gives a standard error; and we take the ratio of the two. `training_loss` is
# the library's name for our naive draw, `times` draws the values of $t$. They lie in $[10^{-3},1]$, as in
# training.

# %%
from sedd_mini.evaluate import times
from sedd_mini.losses import training_loss

p, lengths = torch.softmax(torch.arange(N) / 2.0, 0), [8, 32, 128]


def standard_error(graph, noise, L, stratified, groups=50):
    """Of the mean over 64 sequences of L tokens: the spread of 400 estimates."""
    g, model, estimates = torch.Generator().manual_seed(L), independent_tokens(graph, p), []
    for _ in range(400 // groups):
        x0 = torch.multinomial(p, groups * 64 * L, True, generator=g).reshape(-1, L)
        t = torch.cat([times(64, g, stratified) for _ in range(groups)])
        draws = training_loss(model, graph, noise, x0, 1e-3 + (1 - 1e-3) * t.float(), generator=g)
        estimates.append(draws.reshape(groups, 64).mean(1))
    return torch.cat(estimates).std().item()


narrower = {
    name: [standard_error(*setup, L, False) / standard_error(*setup, L, True) for L in lengths]
    for name, setup in setups.items()
}
print({name: [round(v, 2) for v in values] for name, values in narrower.items()})

# %% [markdown]
# We can also predict it. Let $m(t)$ and $v(t)$ be the mean and the variance of one token's draw at $t$. Over
# $L$ tokens the means add up to $Lm$ and the variances to $Lv$. Strata, if there are enough of them, leave only
# the latter, so the ratio is $\sqrt{1+L\,\mathrm{Var}_t(m)/\mathbb E_t(v)}$. One token has few states, and its
# $m$ and $v$ are plain sums.

# %%
def predicted(graph, noise, L):
    """The ratio of standard errors for sequences of L independent tokens and many strata."""
    t = 1e-3 + (1 - 1e-3) * (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    sigma, S = noise.total(t), graph.num_states
    x, x0 = (v.expand(len(t), S, N) for v in (torch.arange(S)[:, None], torch.arange(N)))
    log_score = independent_tokens(graph, p.double())(x[:, :, 0], sigma)[:, :, None].expand(
        -1, -1, N, -1
    )
    probs = graph.transition_probs(x0[:, 0], sigma[:, None]).mT * p  # (2000, S, N): p(x, x0) at t
    safe_x = torch.where(probs > 0, x, x0)  # where the pair cannot occur its value does not count
    draws = noise.rate(t)[:, None, None] * graph.score_entropy(
        log_score, sigma[:, None, None], safe_x, x0
    )
    m, square = (probs * draws).sum((1, 2)), (probs * draws**2).sum((1, 2))
    return math.sqrt(1 + L * m.var().item() / (square - m**2).mean().item())

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), width_ratios=[1, 1.3])
t = torch.rand(16, generator=torch.Generator().manual_seed(0))
axes[0].vlines(t, 1.1, 1.5, color=plots.GREY, lw=2)
axes[0].vlines((torch.arange(16) + t) / 16, 0.3, 0.7, color=plots.GREEN, lw=2)
axes[0].text(0, 1.56, "16 independent values", color="#555555")
axes[0].text(0, 0.76, "16 stratified values", color=plots.GREEN)
axes[0].set(xlabel="t", yticks=[], ylim=(0, 2), title="Holes and clusters, or none")
axes[0].grid(False)
for name, marker in (("uniform", "o"), ("absorbing", "s")):
    colour, expected = (
        plots.BLUE if name == "uniform" else plots.ORANGE,
        [predicted(*setups[name], L) for L in lengths],
    )
    axes[1].plot(lengths, expected, color=colour, lw=1)
    axes[1].plot(lengths, narrower[name], marker, color=colour, label=f"{name} graph")
    assert abs(narrower[name][-1] / expected[-1] - 1) < 0.3
axes[1].set(
    xscale="log",
    xlabel="tokens in a sequence",
    title="Error bar: independent / stratified",
    ylim=(0, None),
)
axes[1].set_xticks(lengths, lengths)
axes[1].minorticks_off()
axes[1].legend();

# %% [markdown]
# *Left: what strata do. Right, dots measured, lines predicted: with the uniform graph and geometric noise the
# error bar shrinks more and more as sequences grow. With the absorbing graph and log-linear noise it does not
# shrink at all. (The dots scatter by about a tenth around the lines: a standard error found from 400 estimates
# has an error of its own.)*
#
# An honest result, and one that can be understood. With log-linear noise and independent tokens the mean at
# every $t$ is the same number, the entropy: a token is masked with probability $\propto t$, and then it costs
# its entropy times $\sigma(t)\,r=1/t$. Strata can remove only what varies with $t$, and nothing does. That is a
# virtue of this schedule, not a fault of the strata. With geometric noise $\log\bar\sigma$ is linear in $t$, so
# section 10's left picture has $t$ as its axis: nearly everything happens in a narrow band, and strata make
# sure that the band gets its share.
#
# ## 12. What the bound does not say
#
# All of this was about one object: the chain in continuous time that jumps at the model's rates. Nobody samples
# from it. Samplers take $K$ steps, and in each of them every token moves on its own. Their law is another one,
# and the bound knows nothing about it. We can compute that law exactly. With exact ratios, so that the bound is
# an equality and its gap 0, we take $K$ steps, evenly spaced in $\log\bar\sigma$ and the last one down to 0. In
# a step each token draws its new value from its own exact distribution given the present pair (`tweedie_probs`;
# a later chapter derives it), without regard for what the other token draws. How far is what comes out from the
# data?

# %%
def sampler_law(chain, levels):
    """The exact law (S, S) of a sampler of pairs that steps down through these noise levels."""
    p = chain.marginal(levels[0]).flatten()
    for high, low in zip(levels, levels[1:]):
        score = chain.scores(high)  # (n, 2, S)
        probs = chain.graph.tweedie_probs(
            chain.states, score, torch.tensor(high - low, dtype=torch.float64)
        )
        p = torch.einsum(
            "n,na,nb->ab", p, probs[:, 0], probs[:, 1]
        ).flatten()  # tokens on their own
    return p.reshape(N, N)

# %% tags=["nbval-check-output"]
previous = math.inf
for K in (1, 4, 16, 64):
    levels = [*torch.logspace(math.log10(8), -2, K, dtype=torch.float64).tolist(), 0.0]
    made = sampler_law(chains["uniform"], levels)
    kl = (p0 * (p0 / made).log()).sum().item()
    assert 0 < kl < previous
    previous = kl
    print(f"{K:3} steps: KL(data ‖ samples) = {kl:.4f} nats; gap of the bound: 0")

# %% [markdown]
# The same ratios, the same bound, and samples from poor to nearly perfect. A good bound says that good samples
# *can* be had from these ratios, with steps enough. How many steps, and which, is the business of the chapters
# on sampling.
#
# ## Summary
#
# 1. The evidence of a jump process comes at rate $D(a,b)$, the Bregman divergence of its rates; its integral along the chain is the divergence of path laws. Score entropy *is* that rate.
# 2. Ends tell less than paths, so $-\log p_\theta(x_0)\le\mathcal L_{\mathrm{DWDSE}}(x_0)+\mathrm{KL}(p_{T|0}(\cdot|x_0)\|p_{\mathrm{base}})$, for every $x_0$ and any network.
# 3. With exact ratios and $p_{\mathrm{base}}=p_T$ it is an equality; otherwise the gap is the divergence of the ways, given the end.
# 4. A whole bound includes the prior term ($L\delta\log N$ on the absorbing graph, with a $p_{\mathrm{base}}$ that is not pure MASK) and the end $[0,\bar\sigma(10^{-3})]$; without them it can fall below the truth.
# 5. Its Monte Carlo estimate has large single draws: use an error bar, stratify $t$, and remember that the bound is about the continuous chain and not about a sampler.
#
# ## Exercises
#
# **1. The other way round** (easy, 10 minutes). Compute $\mathrm{KL}(B\|A)$ for the two lamps of the first
# picture, by hand from the integral of section 1, and replace `None`. Is it easier to recognise A or B?

# %%
answer = None  # KL(B || A) in nats, as a number
if answer is not None:
    check = (density(s, mu) * -log_ratio(s) * ds).sum() + math.exp(-mu * T) * (lam - mu) * T
    assert abs(answer - check) < 1e-3, (
        "mean of -log_ratio under B: mind which rate stands where in D"
    )

# %% [markdown]
# **2. An untrained network** (easy, 15 minutes). On the absorbing graph, let the model guess every token
# evenly: log-score $-\log(e^{\bar\sigma}-1)-\log N$ at every token. Show by hand that its whole bound is
# exactly $L\log N$, whatever the schedule: the prior term is just what is missing. Then complete the model and
# let the oracle confirm it.

# %%
def guess_evenly(x, sigma):
    """Log-scores (B, 2, N + 1)."""
    return None


if guess_evenly(every_x0, torch.ones(64)) is not None:
    assert torch.allclose(
        chains["absorbing"].bound(guess_evenly, 6.0),
        torch.tensor(2 * math.log(N)).double(),
        atol=1e-5,
    )

# %% [markdown]
# **3. Leave the known part to the network** (easy, 15 minutes). Train the absorbing model of section 8 once
# more, `plain` in place of `scaled`, and compute its exact likelihoods. Guess first: how much of the data's
# structure does it learn in the same 400 steps? And do its probabilities of the 64 sequences still sum to 1?
# Where is the rest?

# %%
plain_model = None  # train(...)
if plain_model is not None:
    nll = exact_nll(chains["absorbing"], plain_model, starts["absorbing"][2])
    print(
        f"mean {(p0 * nll).sum():.3f} nats; evenly spread it would be {2 * math.log(N):.3f}; "
        f"sum {torch.exp(-nll).sum():.3f}"
    )
    assert torch.exp(-nll).sum() < 0.995, "did you pass plain?"

# %% [markdown]
# **4. The schedule does not matter, and it does** (medium, 20 minutes). The bound is an integral over
# $\bar\sigma$, so two schedules with the same $\bar\sigma(1)$ give the same bound for the same model. Confirm
# it by Monte Carlo with `likelihood_bound`, with exact ratios on the absorbing graph: `LogLinearNoise()`
# against `GeometricNoise(1e-4, 6.9078)`. Then compare their standard errors at an equal number of draws. Which
# schedule would you use to *measure*, and does section 10's right picture tell you why?
#
# **5. Draw t where it counts** (hard, 40 minutes). The best density for drawing noise levels is proportional to
# the root of the integrand's second moment, $\sqrt{\mathbb E[f^2]}$, in place of the $1/\sigma(t)$ that comes
# from drawing $t$ evenly. Compute the second moment for the uniform graph by enumeration, draw from the better
# density by inverting its cumulative sum on a grid, weigh the draws, and check two things: the mean is
# unchanged, and the standard error falls. By how much, compared with stratifying?
#
# ## Further reading
#
# - Lou, Meng, Ermon, *Discrete Diffusion Modeling by Estimating the Ratios of the Data Distribution* (2023), section 3.3 and theorem 3.6: the bound, with the proof by path measures in the appendix.
# - Campbell, Benton, De Bortoli, Rainforth, Deligiannidis, Doucet, *A Continuous Time Framework for Discrete Denoising Models* (2022): the same bound for mean prediction.
# - Hanson, *Applied Stochastic Processes and Control for Jump-Diffusions* (2007), and Brémaud, *Point Processes and Queues* (1981): changes of measure for jump processes, with all the care that we left out.
# - Cover, Thomas, *Elements of Information Theory*, chapter 2: the chain rule and the data-processing inequality.
