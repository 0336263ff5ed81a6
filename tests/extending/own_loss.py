"""Masked cross-entropy with a normalised head that is not told the time: the loss of MDLM."""

from sedd_mini import Settings, Trainer, load


def masked_cross_entropy(model, graph, x, sigma, x0=None, ratio=None):
    """Σ over the hidden tokens of −log p(x0 | visible) / (e^σ̄ − 1), (B,)."""
    hidden = x == graph.mask_id
    log_score = model(x, sigma)  # log p − log(e^σ̄ − 1), (B, L, N + 1)
    scale = sigma.expm1().log()[:, None]
    log_p = log_score.gather(-1, x0[..., None])[..., 0] + scale  # (B, L)
    return -(log_p * hidden).sum(-1) / sigma.expm1()


masked_cross_entropy.is_bound = True  # for a normalised head it is score entropy


def run(out: str, **settings):
    settings = Settings(normalised=True, time_conditioning=False, **settings)
    trainer = Trainer(settings, out=out, loss=masked_cross_entropy)
    trainer.run()
    return trainer, load(out, "cpu")
