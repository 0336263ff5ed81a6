"""Small random chains and laws that several tests share."""

import torch

from sedd_mini.worlds.ctmc import Chain, MatrixGraph


def random_graph(seed: int, size: int = 4) -> MatrixGraph:
    g = torch.Generator().manual_seed(seed)
    Q = torch.rand(size, size, generator=g, dtype=torch.float64).fill_diagonal_(0)
    Q[Q < 0.25] = 0  # some jumps are impossible
    return MatrixGraph(Q - Q.sum(0).diag())


def random_chain(graph, length: int = 2, seed: int = 0) -> Chain:
    g = torch.Generator().manual_seed(seed)
    p0 = torch.rand((graph.num_tokens,) * length, generator=g, dtype=torch.float64) + 0.02
    return Chain(graph, p0 / p0.sum())


def pair_data(size: int) -> torch.Tensor:
    """A law of two tokens, (size, size) float64, in which they depend on each other."""
    g = torch.Generator().manual_seed(0)
    p0 = torch.rand(size, size, generator=g, dtype=torch.float64) ** 2 + 0.02
    return p0 / p0.sum()
