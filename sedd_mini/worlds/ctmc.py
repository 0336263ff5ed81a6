"""The oracle: small continuous-time Markov chains (CTMCs), solved exactly.

`MatrixGraph` does for any rate matrix, by dense linear algebra, what the graphs of `graphs.py` do
in closed form. `Chain` puts a data distribution on short sequences whose tokens move on a graph,
and gives, by enumerating every sequence, what a network can only estimate: marginals, ratios,
posteriors, losses, likelihoods, and the exact reverse process. All in float64. A sequence of d
tokens with S states each has n = S^d states; a few thousand are comfortable. One token (d = 1)
makes it a plain chain.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sedd_mini.graphs import check_scores, check_sigma, check_tokens, normalise, with_diagonal


class MatrixGraph:
    """Any rate matrix Q of shape (S, S), Q(y, x) the rate of x → y, with the methods of a graph.

    The first `num_tokens` states are data (default: all). Slow and plain, to be trusted.
    Raises ValueError unless off-diagonal entries are ≥ 0 and columns sum to 0.
    """

    def __init__(self, Q: Tensor, num_tokens: int | None = None):
        Q = torch.as_tensor(Q, dtype=torch.float64)
        if Q.ndim != 2 or Q.shape[0] != Q.shape[1]:
            raise ValueError(f"a rate matrix is square, got shape {tuple(Q.shape)}")
        if (Q - Q.diag().diag()).min() < 0:
            raise ValueError("rates of jumps, off the diagonal of Q, must not be negative")
        if Q.sum(0).abs().max() > 1e-9 * (1 + Q.abs().max()):
            raise ValueError(f"every column of Q must sum to 0, got {Q.sum(0).tolist()}")
        self.Q, self.num_states = Q, len(Q)
        self.num_tokens = self.num_states if num_tokens is None else num_tokens
        self.mask_id = None if self.num_tokens == self.num_states else self.num_states - 1

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self.num_states} states"

    @staticmethod
    def of(graph) -> "MatrixGraph":
        """The same graph without its closed forms."""
        return MatrixGraph(graph.rates(torch.arange(graph.num_states)).T, graph.num_tokens)

    def kernel(self, sigma: Tensor | float) -> Tensor:
        """exp(σ̄Q), shape (*sigma.shape, S, S), entry (y, x0) = p(y | x0)."""
        kernels, index = self.kernels(sigma)
        return kernels[index]

    def kernels(self, sigma: Tensor | float) -> tuple[Tensor, Tensor]:
        """Those of the different levels, (levels, S, S), and which one each sigma has."""
        levels, index = torch.as_tensor(sigma, dtype=torch.float64).unique(return_inverse=True)
        return torch.matrix_exp(levels[:, None, None] * self.Q.to(levels.device)), index

    def transition_probs(self, x0: Tensor, sigma: Tensor | float) -> Tensor:
        """p(· | x0), shape (*S, num_states)."""
        x0, sigma = check_tokens(x0, self.num_states), check_sigma(sigma, x0)
        kernels, index = self.kernels(sigma)
        return kernels[index, :, x0]

    def sample_transition(
        self, x0: Tensor, sigma: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """x ~ p(· | x0), shape S."""
        return draw(self.transition_probs(x0, sigma).clamp(min=0), generator)

    def rates(self, x: Tensor) -> Tensor:
        """Q(·, x), shape (*S, num_states)."""
        return self.Q.to(x.device).T[x]

    def rates_into(self, x: Tensor) -> Tensor:
        """Q(x, ·), shape (*S, num_states), 0 at x."""
        return self.Q.to(x.device)[x].scatter(-1, x[..., None], 0)

    def reverse_rates(self, x: Tensor, score: Tensor) -> Tensor:
        """Q̄(·, x): score_y Q(x, y) for y ≠ x, minus their sum at x, shape (*S, num_states)."""
        return with_diagonal(x, check_scores(x, score, self.num_states) * self.rates_into(x))

    def staggered_score(self, score: Tensor, dsigma: Tensor | float) -> Tensor:
        """exp(−Δσ̄ Q) s, shape (*S, num_states)."""
        dsigma = torch.as_tensor(dsigma, dtype=torch.float64).expand(score.shape[:-1])
        (kernels, index), out = self.kernels(-dsigma), score.double().clone()
        for level, kernel in enumerate(kernels):
            out[index == level] = out[index == level] @ kernel.T
        return out

    def tweedie_probs(self, x: Tensor, score: Tensor, dsigma: Tensor | float) -> Tensor:
        """∝ [exp(−Δσ̄ Q) s]_y exp(Δσ̄ Q)(x, y), shape (*S, num_states)."""
        kernels, index = self.kernels(check_sigma(dsigma, x))
        return normalise(self.staggered_score(score, dsigma) * kernels[index, x])

    def score_entropy(
        self, log_score: Tensor, sigma: Tensor | float, x: Tensor, x0: Tensor
    ) -> Tensor:
        """Σ_{y≠x} Q(x, y) (s_y − r_y log s_y + K(r_y)), r_y = p(y|x0)/p(x|x0); shape S."""
        probs = self.transition_probs(x0, sigma)  # (*S, num_states)
        r = probs / probs.gather(-1, x[..., None])
        weight, log_score = self.rates_into(x), log_score.double()
        terms = log_score.exp() - r * log_score + torch.xlogy(r, r) - r
        return torch.where(weight > 0, weight * terms, 0).sum(-1)

    def limit(self) -> Tensor:
        """The stationary distribution (S,): Qp = 0. Raises ValueError if there are several."""
        _, size, right = torch.linalg.svd(self.Q)
        if size[-2] <= 1e-9 * size[0]:
            raise ValueError("this chain has several stationary distributions")
        return normalise(right[-1] * right[-1].sum().sign())

    def sample_limit(self, shape, generator: torch.Generator | None = None, device=None) -> Tensor:
        """Tokens from the stationary distribution; int64 of the given shape."""
        return draw(self.limit().expand(*shape, -1), generator).to(device)

    def limit_log_prob(self, x: Tensor, sigma_max: float = math.inf) -> Tensor:
        """log of the stationary distribution at x, shape S."""
        return self.limit().log()[x]

    def prior_kl(self, sigma: Tensor | float) -> Tensor:
        """KL( p_σ̄(·|x0) ‖ stationary ) in nats, the largest over the data x0; shape of sigma.

        Infinite where the stationary distribution leaves out a state, as one that is all MASK does.
        """
        p = self.kernel(sigma)[..., : self.num_tokens].clamp(min=0)  # (…, S, N)
        return (torch.xlogy(p, p) - torch.xlogy(p, self.limit()[:, None])).sum(-2).amax(-1)


class Chain:
    """A data distribution p0 on sequences of d tokens, and its exact life under a graph's noise.

    graph: UniformGraph, AbsorbingGraph or MatrixGraph; p0: joint probabilities, shape (N,)*d.
    A `model` is any function (x (B, d), sigma (B,)) → log-scores (B, d, S), exact or learned.
    """

    def __init__(self, graph, p0: Tensor):
        p0 = torch.as_tensor(p0, dtype=torch.float64)
        self.graph, self.length, self.num_states = graph, p0.ndim, graph.num_states
        if p0.ndim < 1 or set(p0.shape) != {graph.num_tokens}:
            raise ValueError(
                f"p0 must have shape ({graph.num_tokens},)*d for {graph}, got {tuple(p0.shape)}"
            )
        if p0.min() < 0 or abs(p0.sum() - 1) > 1e-9:
            raise ValueError(f"p0 must be probabilities that sum to 1, got sum {p0.sum():.9f}")
        self.p0 = torch.zeros((self.num_states,) * self.length, dtype=torch.float64)
        self.p0[(slice(graph.num_tokens),) * self.length] = p0
        self.states = torch.cartesian_prod(*[torch.arange(self.num_states)] * self.length)
        self.states = self.states.reshape(-1, self.length)  # (n, d)
        self._powers = self.p0.reshape(1, -1)  # of the uniformised chain, see marginals()

    # ---- what happens to the data -------------------------------------------------------------

    def index(self, x: Tensor) -> Tensor:
        """(…, d) sequences → (…,) their places among the n states."""
        strides = self.num_states ** torch.arange(self.length - 1, -1, -1)
        return (x * strides).sum(-1)

    def neighbours(self, x: Tensor) -> Tensor:
        """(…, d) → (…, d, S): the places of x with token i replaced by y."""
        strides = self.num_states ** torch.arange(self.length - 1, -1, -1)
        change = (torch.arange(self.num_states) - x[..., None]) * strides[:, None]
        return self.index(x)[..., None, None] + change

    def sample_data(self, num: int, generator: torch.Generator | None = None) -> Tensor:
        """num sequences from p0, (num, d)."""
        return self.states[torch.multinomial(self.p0.flatten(), num, True, generator=generator)]

    def kernel(self, sigma: float) -> Tensor:
        """p(y | x0) of one token, (S, S)."""
        every = torch.arange(self.num_states)
        return self.graph.transition_probs(every, torch.tensor(sigma, dtype=torch.float64)).T

    def marginal(self, sigma: float) -> Tensor:
        """p_σ̄ = exp(σ̄Q) p0 on every axis, shape (S,)*d."""
        return on_every_axis(self.kernel(sigma), self.p0)

    def marginals(self, sigma: Tensor, places: Tensor | None = None) -> Tensor:
        """p_σ̄ for many noise levels at once, (M,) → (M, n), or (M,) at one place each.

        By uniformisation: with Λ no less than any exit rate, exp(σ̄Q) is the sum over k of
        Poisson(k; Λσ̄) (I + Q/Λ)^k, all terms ≥ 0, whose matrix powers serve every σ̄ alike.
        """
        most = float(-self.token_rates().diag().min()) * self.length
        mean = most * sigma.double()[:, None]  # (M, 1)
        terms = int(mean.max() + 12 * mean.max().sqrt() + 30)
        while len(self._powers) < terms:
            last = self._powers[-1].reshape(self.p0.shape)
            step = last + self.apply_rates(last) / most
            self._powers = torch.cat([self._powers, step.reshape(1, -1)])
        k = torch.arange(terms, dtype=torch.float64)
        log_mean = mean.log().clamp(min=-1e4)  # finite, so that 0 · log 0 = 0
        weights = torch.exp(k * log_mean - mean - torch.lgamma(k + 1))  # (M, terms)
        if places is None:
            return weights @ self._powers[:terms]
        return (weights * self._powers[:terms].T[places]).sum(-1)

    def token_rates(self) -> Tensor:
        """Q of one token, (S, S)."""
        return self.graph.rates(torch.arange(self.num_states)).T

    def apply_rates(self, p: Tensor) -> Tensor:
        """dp/dσ̄ = Qp for the whole sequence: the sum over axes of Q applied to one, (S,)*d."""
        Q = self.token_rates()
        return sum(torch.tensordot(Q, p, ([1], [i])).movedim(0, i) for i in range(self.length))

    def rate_matrix(self) -> Tensor:
        """Q of the whole sequence as one dense (n, n) matrix."""
        columns = torch.eye(len(self.states), dtype=torch.float64)
        shape = (self.num_states,) * self.length
        return torch.stack([self.apply_rates(c.reshape(shape)).flatten() for c in columns], -1)

    # ---- what a network has to learn ----------------------------------------------------------

    def scores(self, sigma: float) -> Tensor:
        """The true ratios p_σ̄(x with token i ← y) / p_σ̄(x), (n, d, S); 0 where p_σ̄(x) = 0."""
        p = self.marginal(sigma).flatten()
        return ratio(p[self.neighbours(self.states)], p[:, None, None])

    def log_score(self, x: Tensor, sigma: Tensor | float, at: Tensor | None = None) -> Tensor:
        """The exact `model`: x (B, d), sigma (B,) → (B, d, S), or (M, S) for the rows in `at`."""
        sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(len(x))
        levels, which = sigma.unique(return_inverse=True)
        p = torch.stack([self.marginal(s.item()).flatten() for s in levels])  # (levels, n)
        out = p[which[:, None, None], self.neighbours(x)].log()
        out = out - p[which, self.index(x)].log()[:, None, None]
        return out if at is None else out[at]

    def posterior(self, sigma: float) -> Tensor:
        """p(x0 token i = a | x), (n, d, N): what mean prediction has to learn; 0 where p(x) = 0."""
        kernel, n_tokens = self.kernel(sigma), self.graph.num_tokens
        rows = []
        for i in range(self.length):
            others = on_every_axis(kernel, self.p0, skip=i).movedim(i, -1).unsqueeze(i)
            shape = [1] * (self.length + 1)
            shape[i], shape[-1] = self.num_states, self.num_states
            rows.append((others * kernel.reshape(shape)).flatten(0, -2))  # (n, S)
        joint = torch.stack(rows, 1)[..., :n_tokens]
        return ratio(joint, self.marginal(sigma).reshape(-1, 1, 1))

    def conditionals(self, sigma: float) -> Tensor:
        """p_σ̄(x_i = y | the other tokens of x), (n, d, S): what ratio matching has to learn."""
        p = self.marginal(sigma).flatten()[self.neighbours(self.states)]
        return ratio(p, p.sum(-1, keepdim=True))

    # ---- losses and likelihoods, by enumeration -------------------------------------------------

    def expected_loss(self, loss: Callable, model: Callable, sigma: float) -> Tensor:
        """E[loss] over x0 ~ p0 and x ~ p(·|x0), exactly; for the losses of losses.py; a scalar."""
        data, n = self.states[self.p0.flatten() > 0], len(self.states)
        x0 = data.repeat_interleave(n, 0)  # (pairs, d)
        x = self.states.repeat(len(data), 1)
        weight = self.kernel(sigma)[x, x0].prod(-1) * self.p0.flatten()[self.index(x0)]
        x, x0, weight = x[weight > 0], x0[weight > 0], weight[weight > 0]
        true, total = self.scores(sigma), torch.zeros((), dtype=torch.float64)
        for part in torch.arange(len(x)).split(2**15):  # a bounded share of the memory at a time
            levels = torch.full((len(part),), sigma, dtype=torch.float64)
            ratio = true[self.index(x[part])]
            values = loss(model, self.graph, x[part], levels, x0=x0[part], ratio=ratio)
            total = total + weight[part] @ values.double()
        return total

    def loss_by_data(self, model: Callable, sigma: float) -> Tensor:
        """E_{x|x0} Σ_{y≠x} Q(x, y) (s − r log s + K(r)) for every x0 at once, shape (N,)*d."""
        n, d, n_tokens = len(self.states), self.length, self.graph.num_tokens
        levels = torch.full((n,), sigma, dtype=torch.float64)
        log_score = model(self.states, levels).double()[:, :, None].expand(n, d, n_tokens, -1)
        x0 = torch.arange(n_tokens).expand(n, d, n_tokens)
        x = self.states[..., None].expand(n, d, n_tokens)
        kernel = self.kernel(sigma)[:, :n_tokens]  # (S, N)
        reachable = kernel[x, x0] > 0
        terms = torch.zeros(n, d, n_tokens, dtype=torch.float64)
        terms[reachable] = self.graph.score_entropy(
            log_score[reachable], torch.tensor(sigma, dtype=torch.float64), x[reachable],
            x0[reachable],
        )  # fmt: skip
        total = torch.zeros((n_tokens,) * d, dtype=torch.float64)
        for i in range(d):
            term = terms[:, i].reshape((self.num_states,) * d + (n_tokens,))
            term = (term.movedim(i, -2) * kernel).sum(-2)  # x_i summed out; x0_i is the last axis
            for _ in range(d - 1):  # the first axis is an x_j: sum it out, x0_j goes last
                term = torch.tensordot(term, kernel, ([0], [0]))
            # the axes are now x0_i and then the other x0_j in order: put x0_i in its place
            total += term.movedim(0, i)
        return total

    def prior_kl(self, sigma: float, log_base: Tensor | None = None) -> Tensor:
        """KL( p_σ̄(·|x0) ‖ p_base ) for every x0, shape (N,)*d.

        log_base: (S,)*d, default the graph's limit token by token (`limit_log_prob`).
        """
        if log_base is None:
            token = self.graph.limit_log_prob(torch.arange(self.num_states), sigma)
            log_base = sum(token[self.states[:, i]] for i in range(self.length))
            log_base = log_base.reshape((self.num_states,) * self.length)
        kernel = self.kernel(sigma)[:, : self.graph.num_tokens]
        cross = -on_every_axis(kernel.T, log_base.clamp(min=-1e300))
        entropy = -torch.xlogy(kernel, kernel).sum(0)  # (N,)
        data = self.states[(self.states < self.graph.num_tokens).all(-1)]
        return cross - entropy[data].sum(-1).reshape(cross.shape)

    def bound(
        self, model: Callable, sigma_max: float, log_base: Tensor | None = None, nodes: int = 200
    ) -> Tensor:
        """The upper bound on −log p_θ(x0) in nats for every x0, shape (N,)*d (section 3.3).

        ∫ loss_by_data dσ̄ over (0, sigma_max] + prior_kl, by Gauss–Legendre in log σ̄ from 1e-12.
        """
        sigma, weight = log_quadrature(1e-12, sigma_max, nodes)
        integral = sum(w * self.loss_by_data(model, s) for s, w in zip(sigma, weight, strict=True))
        return integral + self.prior_kl(sigma_max, log_base)

    def reverse_marginal(
        self, model: Callable, sigma_max: float, p_base: Tensor, steps: int = 400,
        sigma_min: float = 1e-10,
    ) -> Tensor:  # fmt: skip
        """p_θ at σ̄ = sigma_min of the model's own reverse chain from p_base, shape (S,)*d.

        Solves dp/dσ̄ = −Q̄p from σ̄ = sigma_max down on a grid of equal steps in log σ̄, with the
        rates of each step's middle; the error falls as 1/steps². With the default sigma_min this is
        the exact likelihood of every x0.
        """
        ends = math.log10(sigma_max), math.log10(sigma_min)
        edges = torch.logspace(*ends, steps + 1, dtype=torch.float64)
        target, p = self.neighbours(self.states).flatten(), p_base.flatten().double()
        for high, low in itertools.pairwise(edges.tolist()):
            levels = torch.full((len(p),), math.sqrt(high * low), dtype=torch.float64)
            score = model(self.states, levels).double().exp()
            rates = self.graph.reverse_rates(self.states, score).double()  # (n, d, S)
            most = float((-rates.clamp(max=0).sum((1, 2))).max()) + 1e-300
            mean, power, result = most * (high - low), p, torch.zeros_like(p)
            for k in range(int(mean + 12 * math.sqrt(mean) + 30)):  # uniformisation, as above
                result += math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) * power
                flow = (power[:, None, None] * rates).flatten() / most
                power = power.index_add(0, target, flow)
            p = result
        return p.reshape((self.num_states,) * self.length)

    # ---- paths ----------------------------------------------------------------------------------

    def reverse_gillespie(
        self, x: Tensor, sigma: float, stop: float = 0.0, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run the exact reverse process from x (M, d) at `sigma` down to `stop`, jump by jump.

        The reverse chain stays at x from σ̄ down to u with probability
        p_u(x)/p_σ̄(x) · e^{−q(x)(σ̄−u)}, q(x) the forward exit rate: the integral of the reverse exit
        rates, in closed form. The time of each jump solves this for a uniform number (by
        bisection); where it goes is drawn from Q(x, y) p_u(y). Returns x at `stop` and the number
        of jumps of each path, (M,).
        """
        x, jumps = x.clone(), torch.zeros(len(x), dtype=torch.int64)
        now = torch.full((len(x),), float(sigma), dtype=torch.float64)
        exit_rates = -self.token_rates().diag()
        active = torch.arange(len(x))
        while len(active):
            here, top = x[active], now[active]
            places, q = self.index(here), exit_rates[here].sum(-1)
            level = torch.rand(len(active), generator=generator, dtype=torch.float64)
            level = level * self.marginals(top, places)
            low, high = torch.full_like(top, stop), top
            jumping = self.marginals(low, places) * torch.exp(-q * (top - low)) < level
            active, here, level = active[jumping], here[jumping], level[jumping]
            places, q, low = places[jumping], q[jumping], low[jumping]
            high = top = top[jumping]
            if not len(active):
                break
            for _ in range(45):
                middle = (low + high) / 2
                left = self.marginals(middle, places) * torch.exp(-q * (top - middle)) < level
                low, high = torch.where(left, middle, low), torch.where(left, high, middle)
            p_u = self.marginals(high)  # (M, n)
            weight = p_u[torch.arange(len(active))[:, None, None], self.neighbours(here)]
            weight = weight * self.graph.rates_into(here)  # (M, d, S)
            choice = draw(weight.flatten(1), generator)
            row, token = choice // self.num_states, choice % self.num_states
            x[active, row], now[active] = token, high
            jumps[active] += 1
        return x, jumps

    def tau_leap(
        self, x: Tensor, sigmas: list[float], method: str = "tweedie",
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        """Take x (M, d) down a falling list of noise levels, all tokens at once, exact ratios."""
        if method not in ("tweedie", "euler"):
            raise ValueError(f"method must be 'tweedie' or 'euler', got {method!r}")
        for high, low in itertools.pairwise(sigmas):
            score = self.scores(high)[self.index(x)]  # (M, d, S)
            if method == "tweedie":
                probs = self.graph.tweedie_probs(x, score, torch.tensor(high - low).double())
            else:
                probs = (high - low) * self.graph.reverse_rates(x, score)
                probs = probs.scatter_add(-1, x[..., None], torch.ones_like(probs[..., :1]))
                probs = normalise(probs)
            x = draw(probs, generator)
        return x

    def histogram(self, x: Tensor) -> Tensor:
        """Frequencies of the sequences x (M, d), shape (S,)*d."""
        counts = torch.bincount(self.index(x), minlength=len(self.states)).double()
        return (counts / len(x)).reshape((self.num_states,) * self.length)


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of |p − q|: the largest difference in probability of any event."""
    return 0.5 * (p - q).abs().sum().item()


def log_quadrature(low: float, high: float, nodes: int) -> tuple[list[float], list[float]]:
    """Gauss–Legendre nodes and weights for ∫ f(σ̄) dσ̄ over [low, high], in u = log σ̄.

    Split into panels of 20 nodes, so that f may have structure at any scale of σ̄.
    """
    import numpy as np

    points, weights = np.polynomial.legendre.leggauss(20)
    edges = np.linspace(math.log(low), math.log(high), max(nodes // 20, 1) + 1)
    half = (edges[1:] - edges[:-1])[:, None] / 2
    u = (edges[:-1, None] + half + half * points).ravel()
    return np.exp(u).tolist(), (np.exp(u) * (half * weights).ravel()).tolist()


def draw(probs: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One index from each row of (unnormalised) probabilities, (*S, K) → (*S,), in float64."""
    cumulative = probs.double().cumsum(-1)
    u = torch.rand((*probs.shape[:-1], 1), generator=generator, dtype=torch.float64)
    return torch.searchsorted(cumulative, u * cumulative[..., -1:], right=True)[..., 0].clamp(
        max=probs.shape[-1] - 1
    )


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b = 0."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1), 0)


def on_every_axis(matrix: Tensor, p: Tensor, skip: int | None = None) -> Tensor:
    """Apply a matrix (rows × S) to every axis of p (S,)*d, but for the axis `skip`."""
    for i in range(p.ndim):
        if i != skip:
            p = torch.tensordot(matrix, p, ([1], [i])).movedim(0, i)
    return p
