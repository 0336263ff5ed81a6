"""How good a model is: the likelihood bound with its error bar."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sedd_mini.losses import diffusion_weighted
from sedd_mini.samplers import evaluation_mode


@dataclass
class Bound:
    """An upper bound on −log p_θ(x0), in nats a sequence, averaged over the sequences given.

    nats: the bound; error: one standard error of its Monte Carlo estimate; of which prior: the
    part KL( p_{T|0} ‖ p_base ), known exactly; length: tokens a sequence.
    """

    nats: float
    error: float
    prior: float
    length: int

    @property
    def bits_per_token(self) -> float:
        return self.nats / self.length / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats a token): bounds the corpus perplexity; it is no mean of exponentials."""
        per_token = self.nats / self.length
        return math.exp(per_token) if per_token < 700 else math.inf  # beyond, floats end

    def __str__(self) -> str:
        per_token, error = self.nats / self.length, self.error / self.length
        return f"≤ {per_token:.4f} ± {error:.4f} nats a token (perplexity ≤ {self.perplexity:.2f})"


def times(num: int, generator: torch.Generator | None = None, stratified: bool = True) -> Tensor:
    """num values in [0, 1), float64: independent, or one in each of num equal strata, shuffled."""
    u = torch.rand(num, generator=generator, dtype=torch.float64)
    if not stratified:
        return u
    return (torch.randperm(num, generator=generator) + u) / num


@torch.no_grad()
def likelihood_bound(
    model, graph, noise, x0: Tensor, repeats: int = 8, times_each: int = 1, batch_size: int = 64,
    generator: torch.Generator | None = None, stratified: bool = True, eps: float = 1e-3,
    loss=diffusion_weighted,
) -> Bound:  # fmt: skip
    """The whole bound of theorem 3.6 on sequences x0 (M, L), by Monte Carlo.

    ∫ over σ̄ ∈ (0, σ̄(1)] of DWDSE, plus the prior term for the p_base of `graph.limit_log_prob`.
    Most draws are uniform in t ∈ [eps, 1], as in training; a share, uniform in log σ̄, covers the
    end [1e-9, σ̄(eps)] that training leaves out (below 1e-9 lie less than 1e-7 nats a token). Each
    of the `repeats` is one estimate over all sequences with `times_each` draws a sequence, strata
    shared by all; the error bar is the spread of the repeats. For a DiffusionTransformer,
    `loss=diffusion_weighted_in_head` is the same with less memory. The model is evaluated without
    dropout, and left as it was.
    """
    if repeats < 2:
        raise ValueError(f"an error bar needs at least 2 repeats, got {repeats}")
    if x0.ndim != 2 or x0.numel() == 0:
        raise ValueError(f"x0 must be (M, L), at least one sequence, got shape {tuple(x0.shape)}")
    if not 0 < eps < 1:
        raise ValueError(f"eps must lie in (0, 1), got {eps}")
    data, estimates = x0.repeat_interleave(times_each, 0), []
    for _ in range(repeats):
        sigma, weight = sample_sigma(noise, times(len(data), generator, stratified), eps)
        total = 0.0
        for start in range(0, len(data), batch_size):
            part = slice(start, start + batch_size)
            x0_part, level = data[part], sigma[part].to(data.device, torch.float32)
            x = graph.sample_transition(x0_part, level[:, None], device_generator(x0, generator))
            with evaluation_mode(model):
                values = loss(model, graph, x, level, x0=x0_part).double().cpu()
            total += (weight[part] * values).sum().item()
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total}: does the model give finite log-scores?")
        estimates.append(total / len(data))
    values = torch.tensor(estimates, dtype=torch.float64)
    sigma_max = noise.total(torch.tensor(1.0, dtype=torch.float64))
    prior = x0.shape[1] * graph.prior_kl(sigma_max).item()
    error = (values.std() / math.sqrt(repeats)).item()
    return Bound(values.mean().item() + prior, error, prior, x0.shape[1])


def sample_sigma(
    noise, u: Tensor, eps: float, share: float = 1 / 8, lowest: float = 1e-9
) -> tuple[Tensor, Tensor]:
    """Uniform numbers u (M,) → noise levels σ̄ and the weights dσ̄/du, so that E[weight·f] = ∫ f dσ̄.

    u < share covers [lowest, σ̄(eps)] evenly in log σ̄, the rest t ∈ [eps, 1] evenly.
    """
    first = noise.total(torch.tensor(eps, dtype=torch.float64)).item()
    span = math.log(first / lowest)
    near = lowest * torch.exp((u / share).clamp(max=1) * span)
    t = eps + (1 - eps) * ((u - share) / (1 - share)).clamp(min=0)
    sigma = torch.where(u < share, near, noise.total(t))
    rate = (1 - eps) / (1 - share) * noise.rate(t)
    return sigma, torch.where(u < share, near * span / share, rate)


def device_generator(x: Tensor, generator: torch.Generator | None) -> torch.Generator | None:
    """The generator, if it can be used on the device of x; otherwise that device's default one."""
    return generator if generator is None or generator.device == x.device else None
