"""Graphs: where a token may jump. The uniform and the absorbing rate matrix, all in closed form.

A graph is a rate matrix Q over the states of one token: Q(y, x) is the rate of the jump x → y, and
every column sums to 0. At total noise σ̄ (`sigma`) the forward kernel is exp(σ̄Q). Tokens of a
sequence move independently, so everything here is for one token; x and x0 may have any shape S,
`sigma` and `dsigma` broadcast against S (so (B, 1) for (B, L)), and whatever runs over all states
has shape (*S, num_states). The noise rate σ(t) is nowhere included: multiply by `noise.rate(t)`.

Both classes offer the same methods, and `MatrixGraph` in worlds/ctmc.py offers them once more for
any rate matrix, by dense linear algebra: that one is the oracle which proves these. A graph of your
own has them too, by closed forms or as a subclass of `MatrixGraph`, and `to_config()`, the keyword
arguments of its constructor. Added to `GRAPHS` under a name, it trains, is saved and loaded like
these.

Work is done in float64 where digits would be lost; on a device that has none (Apple's MPS), in
float32: see `widest`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sedd_mini.checks import real_tensor, whole_number


class UniformGraph:
    """Every token jumps to every other one at rate 1/N: Q = 11ᵀ/N − I.

    Lou et al. 2023, section 4.1.
    """

    mask_id = None

    def __init__(self, num_tokens: int):
        self.num_tokens = whole_number("num_tokens", num_tokens, 2)
        self.num_states = self.num_tokens

    def transition_probs(self, x0: Tensor, sigma: Tensor | float) -> Tensor:
        """p(· | x0) = exp(σ̄Q)(·, x0), shape (*S, N)."""
        x0, sigma = check_tokens(x0, self.num_states), check_sigma(sigma, x0)
        elsewhere = (-torch.expm1(-sigma) / self.num_states)[..., None]  # (*S, 1)
        probs = elsewhere.expand(*x0.shape, self.num_states).clone()  # (*S, N)
        return probs.scatter_add(-1, x0[..., None], torch.exp(-sigma)[..., None])

    def sample_transition(
        self, x0: Tensor, sigma: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """x ~ p(· | x0), shape S: with probability 1 − e^{−σ̄} a fresh uniform token, else x0."""
        x0, sigma = check_tokens(x0, self.num_states), check_sigma(sigma, x0)
        fresh = torch.randint(self.num_states, x0.shape, generator=generator, device=x0.device)
        return torch.where(has_moved(sigma, generator), fresh, x0)

    def rates(self, x: Tensor) -> Tensor:
        """Q(·, x), the rates out of x, shape (*S, N), float64; −(1 − 1/N) at x itself."""
        return 1 / self.num_states - one_hot(x, self.num_states)

    def rates_into(self, x: Tensor) -> Tensor:
        """Q(x, ·), the rates at which each other state jumps into x, shape (*S, N); 0 at x."""
        return (1 - one_hot(x, self.num_states)) / self.num_states

    def reverse_rates(self, x: Tensor, score: Tensor) -> Tensor:
        """Q̄(·, x): score_y Q(x, y) for y ≠ x, minus their sum at x (eq. 3), shape (*S, N)."""
        score = check_scores(x, score, self.num_states)
        return with_diagonal(x, score / self.num_states)

    def staggered_score(self, score: Tensor, dsigma: Tensor | float) -> Tensor:
        """exp(−Δσ̄ Q) s ≈ p_{σ̄−Δσ̄}(y) / p_σ̄(x), shape (*S, N) (section 4.2)."""
        score = check_scores(None, score, self.num_states)
        dsigma = check_sigma(dsigma)[..., None].to(score)
        mean = score.mean(-1, keepdim=True)
        mean = torch.minimum(mean, score.amax(-1, keepdim=True))  # rounding may lift it above
        return score + dsigma.expm1() * (score - mean)  # e^Δ s − (e^Δ − 1) mean, not cancelling

    def tweedie_probs(self, x: Tensor, score: Tensor, dsigma: Tensor | float) -> Tensor:
        """Where x goes when Δσ̄ of noise is taken away, shape (*S, N).

        Section 4.2 of Lou et al. 2023; the score must be 1 at x.
        """
        score = check_scores(x, score, self.num_states)
        kernel = self.transition_probs(x, dsigma).to(score.dtype)  # exp(Δσ̄ Q) is symmetric
        return normalise(self.staggered_score(score, dsigma) * kernel)

    def score_entropy(
        self, log_score: Tensor, sigma: Tensor | float, x: Tensor, x0: Tensor
    ) -> Tensor:
        """Σ_{y≠x} Q(x, y) (s_y − r_y log s_y + K(r_y)), shape S (Lou et al. 2023, theorem 3.6).

        r_y = p(y|x0)/p(x|x0) takes three values. With q = (1 − e^{−σ̄}) / (1 − e^{−σ̄} + N e^{−σ̄}):
        it is q everywhere if x = x0; otherwise 1, but 1/q at y = x0. Each term is written as
        r (e^δ − 1 − δ), δ = log s − log r, which does not cancel near its optimum.
        """
        x, x0 = check_tokens(x, self.num_states), check_tokens(x0, self.num_states)
        log_score = check_scores(x, log_score, self.num_states)
        sigma = check_sigma(sigma, x, positive=True).to(widest(x.device))
        moved, stayed = -torch.expm1(-sigma), torch.exp(-sigma)  # S
        log_q = moved.log() - torch.log(moved + self.num_states * stayed)
        same = x == x0
        log_r = torch.where(same, log_q, 0)  # of the states that are neither x nor x0
        excess = relative_excess(log_score, log_r[..., None])  # (*S, N)
        ends = torch.stack([x, x0], -1)
        bulk = excess.scatter(-1, ends, 0).sum(-1) * log_r.exp().to(excess.dtype)
        at_x0 = relative_excess(log_score.gather(-1, x0[..., None])[..., 0], -log_q)
        at_x0 = torch.where(same, 0, at_x0 * (-log_q).exp().to(excess.dtype))
        return (bulk + at_x0) / self.num_states

    def sample_limit(self, shape, generator: torch.Generator | None = None, device=None) -> Tensor:
        """Tokens from the distribution at infinite noise: uniform; int64 of the given shape."""
        return torch.randint(self.num_states, shape, generator=generator, device=device)

    def limit_log_prob(self, x: Tensor, sigma_max: float = math.inf) -> Tensor:
        """log p_base(x) = −log N, shape S, float64 (`sigma_max` changes nothing here)."""
        x, wide = check_tokens(x, self.num_states), widest(x.device)
        check_sigma_max(sigma_max)
        return torch.full(x.shape, -math.log(self.num_states), dtype=wide, device=x.device)

    def prior_kl(self, sigma: Tensor | float) -> Tensor:
        """KL( p_σ̄(·|x0) ‖ p_base ) of one token in nats, the same for every x0; shape of sigma."""
        sigma, n = check_sigma(sigma), self.num_states
        stay = torch.exp(-sigma.to(widest(sigma.device)))
        here, elsewhere = (n - 1) * stay, -stay  # n p(y|x0) − 1 at y = x0 and at each other y
        kl = torch.special.xlog1py(1 + here, here) - here  # as Σ_y (n p − 1) = 0
        kl = kl + (n - 1) * (torch.special.xlog1py(1 + elsewhere, elsewhere) - elsewhere)
        return (kl / n).to(sigma.dtype)

    def to_config(self) -> dict:
        return {"num_tokens": self.num_tokens}

    def __repr__(self) -> str:
        return f"UniformGraph({self.num_tokens})"


class AbsorbingGraph:
    """Every token jumps to MASK at rate 1 and stays there (Lou et al. 2023, section 4.1).

    The states are the N tokens and MASK, which is the last: `mask_id` = N, `num_states` = N + 1.
    """

    def __init__(self, num_tokens: int):
        self.num_tokens = whole_number("num_tokens", num_tokens, 2)
        self.num_states = self.num_tokens + 1
        self.mask_id = self.num_tokens

    def transition_probs(self, x0: Tensor, sigma: Tensor | float) -> Tensor:
        """p(· | x0): e^{−σ̄} at x0, the rest at MASK; shape (*S, N + 1)."""
        x0, sigma = check_tokens(x0, self.num_states), check_sigma(sigma, x0)
        probs = torch.zeros(*x0.shape, self.num_states, dtype=sigma.dtype, device=x0.device)
        probs = probs.scatter_add(-1, x0[..., None], torch.exp(-sigma)[..., None])
        probs[..., self.mask_id] -= torch.expm1(-sigma)
        return probs

    def sample_transition(
        self, x0: Tensor, sigma: Tensor | float, generator: torch.Generator | None = None
    ) -> Tensor:
        """x ~ p(· | x0), shape S: MASK with probability 1 − e^{−σ̄}, else x0."""
        x0, sigma = check_tokens(x0, self.num_states), check_sigma(sigma, x0)
        return torch.where(has_moved(sigma, generator), self.mask_id, x0)

    def rates(self, x: Tensor) -> Tensor:
        """Q(·, x), the rates out of x, shape (*S, N + 1), float64; all 0 at MASK."""
        here = one_hot(x, self.num_states)
        return one_hot(torch.full_like(x, self.mask_id), self.num_states) - here

    def rates_into(self, x: Tensor) -> Tensor:
        """Q(x, ·): 1 for every token if x is MASK, else 0; shape (*S, N + 1); 0 at x."""
        masked = check_tokens(x, self.num_states) == self.mask_id
        out = masked.to(widest(x.device))[..., None].repeat_interleave(self.num_states, -1)
        out[..., self.mask_id] = 0
        return out

    def reverse_rates(self, x: Tensor, score: Tensor) -> Tensor:
        """Q̄(·, x): score_y Q(x, y) for y ≠ x, minus their sum at x (eq. 3), shape (*S, N + 1)."""
        score = check_scores(x, score, self.num_states)
        return with_diagonal(x, torch.where((x == self.mask_id)[..., None], score, 0))

    def staggered_score(self, score: Tensor, dsigma: Tensor | float) -> Tensor:
        """exp(−Δσ̄ Q) s ≈ p_{σ̄−Δσ̄}(y) / p_σ̄(x), shape (*S, N + 1) (section 4.2)."""
        score = check_scores(None, score, self.num_states)
        dsigma = check_sigma(dsigma).to(score)
        out = dsigma.exp()[..., None] * score
        taken = dsigma.expm1() * score[..., : self.mask_id].sum(-1)
        out[..., self.mask_id] = score[..., self.mask_id] - taken
        return out

    def tweedie_probs(self, x: Tensor, score: Tensor, dsigma: Tensor | float) -> Tensor:
        """Where x goes when Δσ̄ of noise is taken away, shape (*S, N + 1).

        Section 4.2 of Lou et al. 2023; the score must be 1 at x.
        """
        score = check_scores(x, score, self.num_states)
        dsigma = check_sigma(dsigma, x).to(score.dtype)
        moves = dsigma.expm1()[..., None] * score  # e^Δσ̄ s_y (1 − e^{−Δσ̄})
        moves[..., self.mask_id] = score[..., self.mask_id] - moves[..., : self.mask_id].sum(-1)
        stays = one_hot(x, self.num_states).to(score.dtype)  # a visible token never leaves
        return normalise(torch.where((x == self.mask_id)[..., None], moves, stays))

    def score_entropy(
        self, log_score: Tensor, sigma: Tensor | float, x: Tensor, x0: Tensor
    ) -> Tensor:
        """Σ_{y≠x} Q(x, y) (s_y − r_y log s_y + K(r_y)), shape S (Lou et al. 2023, theorem 3.6).

        Only x = MASK counts, where r_y is r = 1 / (e^σ̄ − 1) at y = x0 and 0 elsewhere. The term of
        x0 is written as r (e^δ − 1 − δ), δ = log s − log r, which does not cancel near its optimum.
        """
        x, x0 = check_tokens(x, self.num_states), check_tokens(x0, self.num_states)
        log_score = check_scores(x, log_score, self.num_states)
        sigma = check_sigma(sigma, x, positive=True).to(widest(x.device))
        masked = x == self.mask_id
        if x.device.type == "cpu" and (masked & (x0 == self.mask_id)).any():
            raise ValueError("x0 holds MASK where x is MASK: x0 must be data, tokens below mask_id")
        log_r = -sigma - torch.log(-torch.expm1(-sigma))  # S
        target = torch.where(masked, x0, 0)[..., None]
        excess = relative_excess(log_score.gather(-1, target)[..., 0], log_r)
        ends = torch.cat([target, torch.full_like(target, self.mask_id)], -1)
        others = log_score.scatter(-1, ends, -math.inf).exp().sum(-1)
        return torch.where(masked, others + excess * log_r.exp().to(excess.dtype), 0)

    def sample_limit(self, shape, generator: torch.Generator | None = None, device=None) -> Tensor:
        """Tokens from the distribution at infinite noise: all MASK; int64 of the given shape."""
        return torch.full(shape, self.mask_id, device=device)

    def limit_log_prob(self, x: Tensor, sigma_max: float = math.inf) -> Tensor:
        """log p_base(x), shape S, float64, p_base = (1 − δ) MASK + δ/N with δ = e^{−sigma_max}.

        With the default, p_base is all MASK, and every other state gets −inf.
        """
        x = check_tokens(x, self.num_states)
        delta = math.exp(-check_sigma_max(sigma_max))
        delta = torch.tensor(delta, dtype=widest(x.device), device=x.device)
        token = delta.log() - math.log(self.num_tokens)
        return torch.where(x == self.mask_id, torch.log1p(-delta), token)

    def prior_kl(self, sigma: Tensor | float) -> Tensor:
        """KL( p_σ̄(·|x0) ‖ p_base ) of one token in nats, for the p_base of `limit_log_prob`.

        p_σ̄(·|x0) and p_base give MASK the same probability; the δ = e^{−σ̄} that is left lies on x0
        in one and on all N tokens in the other: δ log N nats. Shape of sigma.
        """
        return torch.exp(-check_sigma(sigma)) * math.log(self.num_tokens)

    def to_config(self) -> dict:
        return {"num_tokens": self.num_tokens}

    def __repr__(self) -> str:
        return f"AbsorbingGraph({self.num_tokens})"


GRAPHS = {"absorb": AbsorbingGraph, "uniform": UniformGraph}


def only_masks_move(graph) -> bool:
    """Whether tokens other than MASK have no reverse jump and no score entropy, so need no scores.

    So it is for the absorbing graph. A subclass that changes one of these methods, or another graph
    with a mask_id, may move and price every token.
    """
    ways = ("rates_into", "reverse_rates", "tweedie_probs", "score_entropy")
    return isinstance(graph, AbsorbingGraph) and all(
        getattr(type(graph), name) is getattr(AbsorbingGraph, name) for name in ways
    )


class _RelativeExcess(torch.autograd.Function):
    """e^δ − 1 − δ without cancellation, and its derivative e^δ − 1.

    δ is split into a small and a large part instead of choosing between two results: on a CPU
    `torch.where` takes longer than an exponential.
    """

    @staticmethod
    def forward(ctx, delta: Tensor) -> Tensor:
        ctx.save_for_backward(delta)
        large = F.hardshrink(delta, 1 / 16)  # δ, but 0 where |δ| ≤ 1/16
        small = (delta - large).nan_to_num_(0)  # δ there, 0 elsewhere (∞ − ∞ too)
        last = 10 if delta.dtype == torch.float64 else 5  # δ²/2! + … + δ^last/last!, to rounding
        series = small / math.factorial(last)
        for k in range(last - 1, 1, -1):
            series.add_(1 / math.factorial(k)).mul_(small)
        return series.mul_(small).add_(large.expm1()).sub_(large)  # one of the two parts is 0

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (delta,) = ctx.saved_tensors
        return grad * delta.expm1()


def relative_excess(log_score: Tensor, log_r: Tensor) -> Tensor:
    """e^δ − 1 − δ at δ = log_score − log_r: score entropy of one ratio, divided by that ratio.

    `log_r` is float64 and broadcasts. It is subtracted in two pieces, so that δ is as exact as
    log_score itself even where log_score is float32 and both are large.
    """
    high = log_r.to(log_score.dtype)
    low = (log_r - high).to(log_score.dtype)
    return _RelativeExcess.apply((log_score - high) - low)


def has_moved(sigma: Tensor, generator: torch.Generator | None) -> Tensor:
    """True with probability 1 − e^{−σ̄}, shape of sigma; it may be rare."""
    u = fine_uniform(sigma.shape, generator, sigma.device)
    return u < -torch.expm1(-sigma.to(u.dtype))


def fine_uniform(shape, generator: torch.Generator | None, device) -> Tensor:
    """Uniform in [0, 1), fine enough that u < p has probability p for a p of 1e-9 too.

    In float64; where there is none, from two float32 numbers: the second one fills in the digits
    below 2⁻¹², so that u near 0 is a multiple of 2⁻³⁶ (one number alone is one of 2⁻²⁴).
    """
    if (wide := widest(device)) == torch.float64:
        return torch.rand(shape, generator=generator, dtype=wide, device=device)
    high = torch.randint(2**12, shape, generator=generator, device=device)
    low = torch.rand(shape, generator=generator, dtype=wide, device=device)
    return ((high + low) / 2**12).clamp(max=1 - 2**-24)  # rounding may lift it to 1


def widest(device: torch.device | str) -> torch.dtype:
    """The widest number format of a device: float64, but float32 on Apple's MPS."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def one_hot(x: Tensor, num_states: int) -> Tensor:
    """(*S,) int64 → (*S, num_states) float64."""
    return F.one_hot(check_tokens(x, num_states), num_states).to(widest(x.device))


def with_diagonal(x: Tensor, rates: Tensor) -> Tensor:
    """Replace the entry at x by minus the sum of the others, as in any rate matrix."""
    rates = rates.scatter(-1, x[..., None], 0)
    return rates.scatter(-1, x[..., None], -rates.sum(-1, keepdim=True))


def normalise(weights: Tensor) -> Tensor:
    """Weights over the last axis → probabilities; negative ones (learned scores) count as 0."""
    weights = weights.clamp(min=0)
    return weights / weights.sum(-1, keepdim=True)


def check_tokens(x: Tensor, num_states: int) -> Tensor:
    """x unchanged; raises unless it is int64 with every id in [0, num_states).

    The range is read on the CPU only: on a GPU the look would stall the queue at every step, and
    there an id out of range stops the program by itself.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"token ids must be an int64 tensor, got {type(x).__name__}")
    if x.dtype != torch.int64:
        raise TypeError(f"token ids must be int64, got {x.dtype}: use x.long()")
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and x.numel():
        low, high = (v.item() for v in x.aminmax())
        if low < 0 or high >= num_states:
            raise ValueError(f"token ids must lie in [0, {num_states}), got {low} to {high}")
    return x


def check_sigma(
    sigma: Tensor | float, like: Tensor | None = None, positive: bool = False
) -> Tensor:
    """sigma as a tensor of float32 or wider, expanded to the shape of `like` where given.

    Raises ValueError where it is negative, infinite or NaN, zero if `positive`, or does not fit.
    """
    sigma = real_tensor("total noise sigma", sigma)
    device = sigma.device if like is None else like.device
    sigma = sigma.to(device, torch.float32 if widest(device) == torch.float32 else sigma.dtype)
    if sigma.device.type == "cpu" and not torch.compiler.is_compiling():
        good = (sigma > 0 if positive else sigma >= 0) & sigma.isfinite()
        if not good.all():
            worst, wanted = sigma[~good].flatten()[0], "positive" if positive else "at least 0"
            raise ValueError(f"total noise sigma must be finite and {wanted}, got {worst:g}")
    if like is None:
        return sigma
    try:
        return sigma.expand(like.shape)
    except RuntimeError:
        raise ValueError(f"sigma of shape {tuple(sigma.shape)} does not broadcast to x of shape "
                         f"{tuple(like.shape)}: for one level a sequence pass sigma[:, None]"
                         ) from None  # fmt: skip


def check_sigma_max(sigma_max: float) -> float:
    if not sigma_max >= 0:
        raise ValueError(f"sigma_max must be at least 0, got {sigma_max}")
    return sigma_max


def check_scores(x: Tensor | None, score: Tensor, num_states: int) -> Tensor:
    """score in float32 or wider; raises ValueError or TypeError unless its shape is (*x.shape,
    num_states), or, without x, any that ends in num_states."""
    if not isinstance(score, Tensor):
        raise TypeError(f"scores must be a tensor, got {type(score).__name__}")
    shape = score.shape[:-1] if x is None else check_tokens(x, num_states).shape
    if score.shape != (*shape, num_states):
        raise ValueError(f"scores must have shape {(*shape, num_states)}: that of x and the "
                         f"{num_states} states; got {tuple(score.shape)}")  # fmt: skip
    return score.to(torch.promote_types(score.dtype, torch.float32))
