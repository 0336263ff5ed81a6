"""Images of 8 × 8 pixels in 4 greys: bars and squares, as sequences of 64 tokens."""

import torch

from sedd_mini import Settings, Trainer, load
from sedd_mini.text.corpus import Corpus


def images(num: int, seed: int):
    """(num, 64) integers: a bright square of 4 × 4 on a dark ground, somewhere."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 2, (num, 8, 8), generator=generator)
    for image, (i, j) in zip(x, torch.randint(0, 5, (num, 2), generator=generator).tolist()):
        image[i : i + 4, j : j + 4] += 2
    return x.flatten(1)


def show(ids) -> str:
    rows = torch.tensor(list(ids)).view(-1, 8)
    return "\n".join("".join(" .+#?"[i] for i in row) for row in rows.tolist())


def run(out: str, **settings):
    corpus = Corpus.from_arrays(images(400, 0), images(40, 1), vocab_size=4, decode=show)
    trainer = Trainer(Settings(length=64, **settings), corpus, out)
    trainer.run()
    return trainer, load(out, "cpu")
