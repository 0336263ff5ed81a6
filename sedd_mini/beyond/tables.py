"""A network whose answers are rows of a table: on a small world everything about it can be counted.

The rows can be what a learned network says, which in general is consistent with no data at all.
"""

import torch
from torch import Tensor

from sedd_mini.beyond.heads import check_absorbing, log_r
from sedd_mini.worlds.ctmc import Chain


class TableModel:
    """log s = log π + log Z − log(e^σ̄ − 1) from tables: rows for each sequence and place.

    chain    of an absorbing graph, n sequences of d tokens, N data tokens
    logits   (n, d, N): π is their softmax
    log_z    (n, d), or anything that broadcasts to it
    drift    (n, d, N): added to the logits times the share hidden, 1 − e^{−σ̄}: a head with time
    """

    def __init__(self, chain: Chain, logits: Tensor, log_z=0.0, drift: Tensor | None = None):
        check_absorbing(chain.graph, "a table of hidden tokens")
        n, d, _ = logits.shape
        self.chain, self.logits, self.drift = chain, logits.double(), drift
        self.log_z = torch.as_tensor(log_z, dtype=torch.float64).expand(n, d)

    def __call__(self, x: Tensor, sigma: Tensor, at: Tensor | None = None) -> Tensor:
        rows, level = self.chain.index(x), torch.as_tensor(sigma).double()
        level = level.expand(len(x))[:, None, None]
        logits = self.logits[rows]
        if self.drift is not None:
            logits = logits - torch.expm1(-level) * self.drift[rows]
        out = logits.log_softmax(-1) + self.log_z[rows][..., None] + log_r(level)
        out = torch.cat([out, torch.zeros_like(out[..., :1])], -1)  # (B, d, N + 1)
        out = out.scatter(-1, x[..., None], 0.0)
        return out if at is None else out[at]


def exact_table(chain: Chain) -> TableModel:
    """The exact scores of a chain, p(x0_i = y | visible) / (e^σ̄ − 1), as a table: time-free, Z = 1.

    Equal to `chain.log_score` at hidden places, and faster for many noise levels at once.
    """
    return TableModel(chain, chain.posterior(1.0).clamp(min=1e-300).log())


def random_table(chain: Chain, seed: int = 0, spread: float = 1.0, place: float = 0.0,
                 sequence: float = 0.0, time: float = 0.0) -> TableModel:  # fmt: skip
    """A TableModel of normal numbers: what a badly trained network could say of hidden tokens.

    spread of the logits; of log Z, by place and by sequence; of the drift with the share hidden.
    With the last three 0 it is normalised and time-free, and in general consistent with no data.
    """
    g, n, d = torch.Generator().manual_seed(seed), len(chain.states), chain.length

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    size = chain.graph.num_tokens
    logits, log_z = spread * normal(n, d, size), place * normal(n, d) + sequence * normal(n, 1)
    return TableModel(chain, logits, log_z, time * normal(n, d, size) if time else None)
