"""Block diffusion on laws that can be enumerated: exact conditionals, and bounds without chance."""

import torch
from torch import Tensor

from sedd_mini.checks import whole_number
from sedd_mini.evaluate import check_data
from sedd_mini.worlds.ctmc import Chain, log_quadrature


class ExactBlocks:
    """The exact block network of a law p0 (N,)*L > 0, called as a BlockTransformer is.

    Its log-scores are the ratios of p(x^b | x^{<b}) under noise, from a `Chain` for each x^{<b}.
    """

    def __init__(self, graph, p0: Tensor, block_length: int):
        self.graph, self.p0 = graph, torch.as_tensor(p0, dtype=torch.float64)
        self.block_length = whole_number("block_length", block_length, 1)
        if self.p0.ndim % self.block_length:
            raise ValueError(f"block_length={block_length} does not divide the {self.p0.ndim} "
                             "tokens of p0: give one that does")  # fmt: skip
        self.chains: dict[tuple, Chain] = {}

    def chain(self, before: tuple[int, ...]) -> Chain:
        """The law of the block after the tokens `before`, and its life under noise."""
        if before not in self.chains:
            joint = self.p0[before].reshape((self.graph.num_tokens,) * self.block_length + (-1,))
            block = joint.sum(-1)
            self.chains[before] = Chain(self.graph, block / block.sum())
        return self.chains[before]

    def __call__(self, x: Tensor, sigma: Tensor, at=None, x0=None, graph=None, clean=None):
        """Log-scores (B, L, S), or the rows in `at`; given x0 and graph, score entropy (B, L)."""
        clean = x0 if clean is None else clean
        out = torch.zeros(*x.shape, self.graph.num_states, dtype=torch.float64)
        for start in range(0, x.shape[1], self.block_length):
            part = slice(start, start + self.block_length)
            digit = self.graph.num_tokens ** torch.arange(start)
            number = (clean[:, :start] * digit).sum(1)  # (B,): the same for the same clean tokens
            for one in number.unique():
                rows = (number == one).nonzero()[:, 0]
                chain = self.chain(tuple(clean[rows[0], :start].tolist()))
                out[rows, part] = chain.log_score(x[rows, part], sigma[rows])
        if graph is not None:
            return graph.score_entropy(out, sigma[:, None].expand(x.shape), x, x0)
        return out if at is None else out[at]


@torch.no_grad()
def enumerated_bound(model, graph, sigma_max: float, x0: Tensor, nodes: int = 200) -> Tensor:
    """The bound of theorem 3.6 for each of x0 (M, L), in nats, (M,) float64, without chance.

    Every noisy x is enumerated, and ∫ dσ̄ over (0, sigma_max] is Gauss–Legendre's in log σ̄ from
    1e-12, with `nodes`; the prior term is added. `model` takes x0 and graph, as a
    DiffusionTransformer, a BlockTransformer and ExactBlocks do. For S^L of a few hundred.
    """
    check_data(x0, graph)
    nodes = 20 * max(1, whole_number("nodes", nodes, 1) // 20)
    length = x0.shape[1]
    states = torch.cartesian_prod(*[torch.arange(graph.num_states)] * length).reshape(-1, length)
    place = torch.arange(length)
    sigma, weight = torch.tensor(log_quadrature(1e-12, sigma_max, nodes), dtype=torch.float64)
    kernel = graph.transition_probs(x0.expand(nodes, -1, -1), sigma[:, None, None])  # (K, M, L, S)
    prob = kernel[:, :, place, states].prod(-1)  # (K, M, n)
    total = torch.zeros(len(x0), dtype=torch.float64)
    for part in prob.nonzero().split(2**14):
        node, row, state = part.T
        cost = model(states[state], sigma[node], x0=x0[row], graph=graph).double()
        total.index_add_(0, row, weight[node] * prob[node, row, state] * cost.sum(-1))
    return total + length * graph.prior_kl(torch.tensor(sigma_max, dtype=torch.float64))
