"""What came before score entropy: concrete score matching, ratio matching, mean prediction.

The losses are called like those of `losses.py`. What differs is what the network's output (B, L, S)
means, and so each has its own way from the network to the score:

    loss                                  output of the network              score
    concrete_score_matching, …            the score itself, of any sign      score_of_ratios
    ratio_matching                        logits of x_i given the others     score_of_conditionals
    mean_prediction_elbo, …cross_entropy  logits of x0_i given x             score_of_mean
    those of losses.py                    the log of the score               score_of_log
"""

import torch
from torch import Tensor

from sedd_mini.losses import at_neighbours, conditional_ratio, rates_out, require, weighted_sum


def concrete_score_matching(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_{y≠x} w_xy ½ (s_y − r_y)² with the true ratios (Meng et al. 2022), (B,)."""
    r = require(ratio, "ratio", "concrete_score_matching")
    return weighted_sum(graph.rates_into(x), (model(x, sigma) - r) ** 2 / 2)


def implicit_concrete_score_matching(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_{y≠x} (½ w_xy s(x)_y² − w_yx s(y)_x), (B,); the network runs at every neighbour."""
    own = weighted_sum(graph.rates_into(x), model(x, sigma) ** 2 / 2)
    return own - weighted_sum(rates_out(graph, x), at_neighbours(model, graph, x, sigma))


def denoising_concrete_score_matching(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """Σ_{y≠x} w_xy ½ (s_y − r_y)² with r_y = p(y|x0)/p(x|x0), (B,)."""
    r = conditional_ratio(graph, x, sigma, require(x0, "x0", "denoising_concrete_score_matching"))
    return weighted_sum(graph.rates_into(x), (model(x, sigma) - r) ** 2 / 2)


def ratio_matching(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """−Σ_i log p_θ(x_i | the other tokens of x), (B,) (after Sun et al. 2023).

    The network must not see x_i when it predicts it, so it runs L times, each time with another
    token replaced by the id num_states ("hidden"): its embedding needs that many rows and one.
    """
    log_p = hidden_logits(model, graph, x, sigma).log_softmax(-1)  # (B, L, S)
    return -log_p.gather(-1, x[..., None]).sum((1, 2))


def mean_prediction_elbo(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """The continuous-time ELBO of tauLDR (Campbell et al. 2022) over σ̄, (B,).

    The network predicts x0; its prediction is turned into a score, and that is put into DWDSE.
    """
    x0 = require(x0, "x0", "mean_prediction_elbo")
    score = score_of_mean(model, graph, x, sigma)
    return graph.score_entropy(score.clamp(min=1e-30).log(), sigma[:, None], x, x0).sum(-1)


def mean_prediction_cross_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """−Σ_i log p_θ(x0_i | x), (B,): the plain form (Austin et al. 2021)."""
    x0 = require(x0, "x0", "mean_prediction_cross_entropy")
    log_p = log_mean(model, graph, x, sigma)  # (B, L, N)
    return -log_p.gather(-1, x0[..., None]).sum((1, 2))


# ---- from the network's output to the score (B, L, S) --------------------------------------------


def score_of_log(model, graph, x, sigma) -> Tensor:
    """Networks of losses.py: positive by construction."""
    return model(x, sigma).exp()


def score_of_ratios(model, graph, x, sigma) -> Tensor:
    """Networks of concrete score matching, 1 at y = x; nothing keeps the rest positive."""
    return model(x, sigma).scatter(-1, x[..., None], 1)


def score_of_conditionals(model, graph, x, sigma) -> Tensor:
    """p_θ(y | others) / p_θ(x_i | others), by L evaluations of the network."""
    logits = hidden_logits(model, graph, x, sigma)
    return (logits - logits.gather(-1, x[..., None])).exp()


def score_of_mean(model, graph, x, sigma) -> Tensor:
    """s(x)_y = Σ_{x0} p_θ(x0 | x) p(y|x0)/p(x|x0), token by token."""
    guess = log_mean(model, graph, x, sigma).exp()  # (B, L, N)
    tokens = torch.arange(graph.num_tokens, device=x.device).expand(len(x), -1)
    kernel = graph.transition_probs(tokens, sigma[:, None]).to(guess.dtype)  # (B, N, S)
    here = kernel.gather(2, x[:, None].expand(-1, graph.num_tokens, -1)).mT  # p(x|x0), (B, L, N)
    return (guess / here.masked_fill(here <= 0, 1)) @ kernel  # guess is 0 where here is


def log_mean(model, graph, x, sigma) -> Tensor:
    """log p_θ(x0 | x), (B, L, N): log-softmax over the data tokens that x can come from at all."""
    tokens = torch.arange(graph.num_tokens, device=x.device).expand(len(x), -1)
    kernel = graph.transition_probs(tokens, sigma[:, None])  # (B, N, S)
    possible = kernel.gather(2, x[:, None].expand(-1, graph.num_tokens, -1)).mT > 0  # (B, L, N)
    logits = model(x, sigma)[..., : graph.num_tokens]
    return logits.masked_fill(~possible, -1e9).log_softmax(-1)


def hidden_logits(model, graph, x, sigma) -> Tensor:
    """The network's output at each position while that position is hidden, (B, L, S)."""
    B, L = x.shape
    hidden = x[:, None].repeat(1, L, 1)  # (B, L, L): one copy for each token to hide
    diagonal = torch.arange(L, device=x.device)
    hidden[:, diagonal, diagonal] = graph.num_states
    out = model(hidden.flatten(0, 1), sigma.repeat_interleave(L))  # (B L, L, S)
    return out.unflatten(0, (B, L))[:, diagonal, diagonal]
