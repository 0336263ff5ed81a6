"""A graph of one's own, a ring whose tokens jump to both neighbours, and a network of one's own."""

import torch

from sedd_mini import Settings, Trainer, load
from sedd_mini.graphs import GRAPHS
from sedd_mini.network.pretrained import NETWORKS
from sedd_mini.worlds.ctmc import MatrixGraph


class Ring(MatrixGraph):
    def __init__(self, num_tokens: int):
        ring = torch.eye(num_tokens, dtype=torch.float64)
        super().__init__((ring.roll(1, 0) + ring.roll(-1, 0)) / 2 - ring)

    def to_config(self) -> dict:
        return {"num_tokens": self.num_tokens}


class Recurrent(torch.nn.Module):
    def __init__(self, num_states: int):
        super().__init__()
        self.embed, self.level = torch.nn.Embedding(num_states, 32), torch.nn.Linear(1, 32)
        self.gru = torch.nn.GRU(32, 32, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(64, num_states)

    def to_config(self) -> dict:
        return {"num_states": self.head.out_features}

    def forward(self, x, sigma, at=None):
        hidden = self.embed(x) + self.level(sigma.float().log()[:, None, None])  # (B, L, 32)
        log_score = self.head(self.gru(hidden)[0]).scatter(-1, x[..., None], 0)
        return log_score if at is None else log_score[at]


def run(out: str, corpus, **settings):
    GRAPHS["ring"], NETWORKS["recurrent"] = Ring, Recurrent
    settings = Settings(graph="ring", **settings)
    trainer = Trainer(settings, corpus, out, model=Recurrent(corpus.tokenizer.vocab_size))
    trainer.run()
    return trainer, load(out, "cpu", length=settings.length)
