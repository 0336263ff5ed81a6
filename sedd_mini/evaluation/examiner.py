"""The examiner: how far a network is from the truth, on a language whose truth is known.

The loss of a noisy text asks how surprised the network is by the one text that it came from. The
examiner asks instead how far its ratios are from the true ones, p(y)/p(x), which the hidden Markov
chain of a language gives for both graphs. What it finds is the gap between the likelihood bound and
the truth. Each of its terms is at least 0, and 0 for a perfect network, so few texts say much.
"""

import math

import torch
from torch import Tensor

from sedd_mini.evaluate import times
from sedd_mini.losses import score_entropy
from sedd_mini.samplers import evaluation_mode
from sedd_mini.text.synthetic import HiddenMarkovChain

FIRST = 1e-3  # as in training, times before this one are left out
PART = 64  # texts that the network sees at a time


def exact_log_score(language: HiddenMarkovChain, graph, x: Tensor, sigma: Tensor) -> Tensor:
    """log p_t(y)/p_t(x) of texts of the language, x (B, L) and sigma (B,) → (B, L, S), float64.

    The forward-backward algorithm over hidden states, each place weighing its noisy token by
    p(token | state): 1 for MASK, and with uniform noise e^{−σ̄} p + (1 − e^{−σ̄})/N. Raises
    ValueError for a graph whose tokens are not those of the language.
    """
    N = language.vocab_size
    if graph.num_tokens != N:
        raise ValueError(f"the language has {N} tokens and the graph {graph.num_tokens}")
    stay, emission = torch.exp(-sigma.double())[:, None, None], language.emission.T  # (N, states)
    if graph.mask_id is None:
        speaks = stay * emission[x] + (1 - stay) / N  # (B, L, states)
    else:
        masked = (x == graph.mask_id)[..., None]
        speaks = torch.where(masked, 1.0, emission[x.clamp(max=N - 1)])
    p = language.from_the_others(speaks)  # (B, L, N)
    if graph.mask_id is None:
        c = stay * p + (1 - stay) / N
        return (c / c.gather(-1, x[..., None])).log()
    ratio = torch.cat([stay / (1 - stay) * p, torch.ones_like(p[..., :1])], -1)
    return torch.where(masked, ratio, 1.0).log()


class Exam:
    """Noisy texts of a language with their true ratios: made once, set to many networks.

    Texts x0 (M, L) get stratified times t in [0.001, 1] and noise, drawn with the seed. The
    attributes t, sigma, rate (M,), x (M, L) and log_ratio (M, L, S) hold them.
    """

    def __init__(self, language: HiddenMarkovChain, graph, noise, x0: Tensor, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        self.graph, self.x0 = graph, x0
        self.t = (FIRST + (1 - FIRST) * times(len(x0), generator)).float()
        self.sigma, self.rate = noise.total(self.t), noise.rate(self.t).double()
        self.x = graph.sample_transition(x0, self.sigma[:, None], generator)
        self.log_ratio = exact_log_score(language, graph, self.x, self.sigma)

    @torch.no_grad()
    def gaps(self, model) -> Tensor:
        """Each text's term of the gap, bits a token, (M,): the mean over texts is the gap.

        σ(t) times the score entropy of the model with the true ratios. Raises FloatingPointError
        where the model's log-scores are not finite.
        """
        with evaluation_mode(model):
            parts = zip(self.x.split(PART), self.sigma.split(PART), strict=True)
            found = torch.cat([model(x, sigma) for x, sigma in parts]).double()
        ratio = self.log_ratio.exp()
        terms = score_entropy(lambda x, sigma: found, self.graph, self.x, self.sigma, ratio=ratio)
        if not terms.isfinite().all():
            raise FloatingPointError("the model's log-scores are not finite")
        return self.rate * terms / (self.x.shape[1] * math.log(2))
