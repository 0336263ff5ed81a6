"""Small random chains and laws that several tests share."""

import inspect
import types

import torch
from scipy.stats import chisquare

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


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def follows(law: torch.Tensor, x: torch.Tensor, chain: Chain) -> bool:
    """Whether samples x (M, d) pass for draws of the law, by χ²; by chance once in 10^6 not."""
    counts, law = (chain.histogram(x) * len(x)).flatten(), law.flatten()
    if counts[law < 1e-12].any():
        return False
    counts, law = counts[law * len(x) > 1], law[law * len(x) > 1]
    if len(law) < 2:
        return True
    return chisquare(counts, law / law.sum() * counts.sum()).pvalue > 1e-6


def planted(module, old: str, new: str):
    """The module with one place of its source changed: a bug that a test must see."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {module.__name__}"
    changed = types.ModuleType(f"{module.__name__}_planted")
    exec(compile(source.replace(old, new), module.__file__, "exec"), changed.__dict__)
    return changed
