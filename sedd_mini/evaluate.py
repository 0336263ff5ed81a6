"""How good a model is: an upper bound on −log p(x0) by Monte Carlo, with its error bar.

The bound (theorem 3.6 of Lou et al. 2023) is an integral of the loss over all noise levels and a
prior term. `likelihood_bound` draws levels and noise, averages, and repeats that to know its error.
evaluation/bounds.py estimates the same from several times fewer calls, sequence by sequence.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sedd_mini.checks import graph_and_noise, real_number, whole_number
from sedd_mini.losses import diffusion_weighted
from sedd_mini.samplers import evaluation_mode


@dataclass
class Bound:
    """An upper bound on −log p_θ(x0), in nats a sequence, averaged over the sequences given.

    nats        the bound, prior included
    error       one standard error of its Monte Carlo estimate
    prior       its part KL( p_{T|0} ‖ p_base ), known exactly
    length      tokens a sequence
    characters  of the text; None if it is no text
    draws       the estimates whose mean and spread are `nats` and `error`, in the order drawn
    """

    nats: float
    error: float
    prior: float
    length: int
    characters: int | None = None
    draws: tuple[float, ...] = field(default=(), repr=False, compare=False)

    @property
    def bits_per_token(self) -> float:
        return self.nats / self.length / math.log(2)

    @property
    def bits_per_character(self) -> float | None:
        """None where the number of characters is not known."""
        return self.bits_per(self.characters) if self.characters else None

    def bits_per(self, characters: int) -> float:
        """Bits a character, or a byte, of a text of so many."""
        return self.nats / whole_number("characters", characters, 1) / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats a token): bounds the corpus perplexity; it is no mean of exponentials."""
        per_token = self.nats / self.length
        return math.exp(per_token) if per_token < 700 else math.inf  # beyond, floats end

    def __str__(self) -> str:
        per_token, error = self.nats / self.length, self.error / self.length
        text = f"≤ {per_token:.4f} ± {error:.4f} nats a token (perplexity ≤ {self.perplexity:.2f})"
        if self.characters:
            text += f", {self.bits_per_character:.4f} bits a character"
        return text


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
    end [1e-9, σ̄(eps)] that training leaves out (below lie less than 1e-7 nats a token, unless the
    bound is infinite: see evaluation/rivals.py). Each of the `repeats` is one estimate over all
    sequences with `times_each` draws each; the error bar is their spread. For a
    DiffusionTransformer, `loss=diffusion_weighted_in_head` is the same with less memory. The model
    is evaluated without dropout, and left as it was. All is drawn on the CPU: with one `generator`
    there, the draws are the same on every device. Raises ValueError or TypeError for what is wrong.
    """
    repeats = whole_number("repeats (an error bar needs several)", repeats, 2)
    times_each = whole_number("times_each", times_each, 1)
    batch_size = whole_number("batch_size", batch_size, 1)
    eps = real_number("eps", eps, 0, 1)
    graph_and_noise(graph, noise, model)
    check_data(x0, graph)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != "cpu":
        raise ValueError(f"generator must be torch.Generator(), on the CPU, got {generator.device}")
    data, estimates = x0.cpu().repeat_interleave(times_each, 0), []
    for _ in range(repeats):
        sigma, weight = sample_sigma(noise, times(len(data), generator, stratified), eps)
        total = 0.0
        for start in range(0, len(data), batch_size):
            part = slice(start, start + batch_size)
            x0_part, level = data[part], sigma[part].float()
            x = graph.sample_transition(x0_part, level[:, None], generator)
            x, level, x0_part = (tensor.to(x0.device) for tensor in (x, level, x0_part))
            with evaluation_mode(model):
                values = loss(model, graph, x, level, x0=x0_part).cpu().double()
            total += (weight[part] * values).sum().item()
        if not math.isfinite(total):
            raise FloatingPointError(f"the loss is {total}: does the model give finite log-scores?")
        estimates.append(total / len(data))
    values = torch.tensor(estimates, dtype=torch.float64)
    sigma_max = noise.total(torch.tensor(1.0, dtype=torch.float64))
    prior = x0.shape[1] * graph.prior_kl(sigma_max).item()
    error = (values.std() / math.sqrt(repeats)).item()
    draws = tuple((values + prior).tolist())
    return Bound(values.mean().item() + prior, error, prior, x0.shape[1], draws=draws)


def check_data(x0, graph, name: str = "x0") -> None:
    """Raises unless x0 (M, L) are tokens of the graph, none of them MASK."""
    if not isinstance(x0, Tensor) or x0.dtype != torch.int64:
        kind = x0.dtype if isinstance(x0, Tensor) else type(x0).__name__
        raise TypeError(f"{name} must be an int64 tensor of tokens, got {kind}: torch.as_tensor?")
    if x0.ndim != 2 or x0.numel() == 0:
        raise ValueError(f"{name} must be (M, L), with at least one row, got {tuple(x0.shape)}")
    if x0.device.type == "mps":
        raise ValueError(f"{name} is on mps, which has no float64: move all to the cpu")
    low, high = x0.min().item(), x0.max().item()
    if low < 0 or high >= graph.num_tokens:
        mask = " (MASK is no data)" if high == graph.mask_id else ""
        raise ValueError(
            f"{name}: token ids must lie in [0, {graph.num_tokens}), got {low} to {high}{mask}"
        )


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
