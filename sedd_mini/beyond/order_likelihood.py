"""The exact likelihood of a model that writes in an order of its own, one token at a time.

A rule that looks at visible tokens only takes one order on each x, so the law of what it writes is
q(x) = Π π(x_i | visible) along that order. −log q(x) is then known exactly, from L calls: no bound,
no estimate, and its mean over data less their entropy is the true divergence. The any-order loss
(one_loss.py) is a bound for the uniform order, and none on this.
"""

import itertools

import torch
from torch import Tensor

from sedd_mini.beyond.confidence import ByConfidence
from sedd_mini.beyond.heads import check_absorbing
from sedd_mini.evaluate import check_data
from sedd_mini.samplers import check_times, evaluation_mode


@torch.no_grad()
def exact_nats(model, graph, noise, x0: Tensor, key="probability", eps: float = 1e-5) -> Tensor:
    """−log q(x0) in nats, (B,) float64, q the law of `sample` with ByConfidence(key, at_once=1).

    x0 (B, L) data; L calls of the network, for a run of L steps. No estimate: the rule looks at
    visible tokens only, so the order that it takes on x0 is the only one that gives x0. Raises
    ValueError for a graph without MASK.
    """
    check_absorbing(graph, "the exact law of an order")
    check_data(x0, graph)
    step, nats = ByConfidence(key, at_once=1), torch.zeros(len(x0), dtype=torch.float64)
    x, free = torch.full_like(x0, graph.mask_id), torch.ones_like(x0, dtype=torch.bool)
    times = check_times(None, x0.shape[1], eps, True)
    with evaluation_mode(model):
        for t, t_next in itertools.pairwise(times):
            show, probs = step.choose(model, graph, noise, x, free, t, t_next)  # one a row
            truth = x0[show].to(probs.device)
            nats -= probs.gather(-1, truth[:, None])[:, 0].log().cpu()
            x = torch.where(show, x0, x)
    return nats
