"""A sampling step of one's own: the hidden places where the network is surest are shown first."""

from sedd_mini import Settings, Trainer, load
from sedd_mini.samplers import SAMPLERS, pick, uniforms


def surest(model, graph, noise, x, free, t, t_next, generator):
    """x (B, L) → the tokens at t_next; only places that are `free` (B, L) may change."""
    hidden = free & (x == graph.mask_id)
    due = hidden.sum(1) - (hidden.sum(1) * t_next / t).round()  # (B,), places to show now
    p = model(x, noise.total(t).float().expand(len(x)))[..., :-1].softmax(-1)  # (B, L, N)
    rank = p.amax(-1).masked_fill(~hidden, -1).argsort(1, descending=True).argsort(1)
    show = hidden & (rank < due[:, None])
    return x.masked_scatter(show, pick(p[show], *uniforms(show, generator, 1)))


def run(out: str, **settings):
    SAMPLERS["surest"] = surest  # sample(…, method=surest) works without a name
    trainer = Trainer(Settings(**settings), out=out)
    trainer.run()
    return trainer, load(out, "cpu").write(2, steps=4, sampler="surest")
