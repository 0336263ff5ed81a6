"""The rivals: GPT-2, and the language diffusion that came before, to train beside score entropy.

Each is a model and a loss that the Trainer is handed, so data, batches, optimiser and averaging are
those of the diffusion network:

    Trainer(settings, corpus, out, **gpt2_rival(settings.network(num_tokens)))
    Trainer(settings, corpus, out, **mean_rival(settings.network(num_tokens)))

GPT-2 predicts each token from those before it; its −log p is exact, and the mean next-token loss is
−log p(block) / L, first token included. Mean prediction guesses the clean text and makes ratios of
its guess; its −log p is bounded by the same `likelihood_bound` as that of score entropy. With
uniform noise the bound of the plain form is infinite: the rival there is `InformedMean`.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sedd_mini.checks import local_path, one_line, real_number, whole_number
from sedd_mini.files import read_json, whole_folder
from sedd_mini.graphs import UniformGraph, check_tokens
from sedd_mini.losses import diffusion_weighted, require
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import NETWORK_FILES, find_folder, load_pretrained
from sedd_mini.noise import SCHEDULES, check_time
from sedd_mini.samplers import Generators, check_generator, evaluation_mode, pick, uniforms

# ---- GPT-2 ---------------------------------------------------------------------------------------


class GPT2(nn.Module):
    """GPT-2 of transformers (Radford et al. 2019), from sizes alone: log p(x_i | x_<i), i = 1 … L.

    A begin token stands before each block, so the first token is predicted too. It is one id more,
    `num_tokens`, unless `begin` names a token of the vocabulary (as GPT-2 has its end of text). It
    is never predicted as that: the softmax runs over the `num_tokens` data tokens, so that the
    probabilities of all blocks sum to 1. Head and embedding share their weights.

    length, width, num_blocks, num_heads, dropout: transformers' n_positions, n_embd, n_layer,
    n_head and its three dropouts. Raises ValueError for sizes that do not fit.
    """

    no_text_model = (  # what `load` says: write, fill and bound need log-scores
        "a GPT-2, which has no log-scores: load_gpt2, sample_gpt2 and nats of "
        "sedd_mini.evaluation.rivals read it, draw from it and give its exact -log p"
    )

    def __init__(self, num_tokens: int, length: int, width: int, num_blocks: int, num_heads: int,
                 dropout: float = 0.0, begin: int | None = None):  # fmt: skip
        super().__init__()
        sizes = {"num_tokens": num_tokens, "length": length, "width": width,
                 "num_blocks": num_blocks, "num_heads": num_heads}  # fmt: skip
        sizes = {name: whole_number(name, value, 1) for name, value in sizes.items()}
        if width % num_heads:
            raise ValueError(f"width={width} must be a multiple of num_heads={num_heads}")
        if not 0 <= real_number("dropout", dropout) < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
        begin = num_tokens if begin is None else whole_number("begin", begin, 0, num_tokens)
        self.sizes = {**sizes, "dropout": float(dropout), "begin": begin}
        self.num_tokens, self.length, self.begin = num_tokens, length, begin
        self.transformer = hugging_face(self.sizes).transformer

    def to_config(self) -> dict:
        return dict(self.sizes)

    def forward(self, x: Tensor, sigma: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """Tokens x (B, l), l ≤ L → log p(x_i = · | x_<i), (B, l, num_tokens); float32 or wider.

        `sigma`, with which the Trainer calls every network, changes nothing. Raises ValueError for
        `at`: GPT-2 has no ratios for the diffusion samplers to draw from.
        """
        if at is not None:
            raise ValueError("GPT-2 has no log-scores, so `sample` cannot draw from it (nor can a "
                             "Trainer: set sample_every=0): use sample_gpt2")  # fmt: skip
        self.check(x)
        return self.head(self.transformer(self.after_begin(x), use_cache=False)[0])

    def extend(self, tokens: Tensor, cache=None) -> tuple[Tensor, object]:
        """log p of the token after `tokens` (B, l), (B, num_tokens), and the cache that grew.

        `tokens` go on from those that the cache holds; the first of all is the begin token.
        """
        out = self.transformer(tokens, past_key_values=cache, use_cache=True)
        return self.head(out.last_hidden_state[:, -1]), out.past_key_values

    def after_begin(self, x: Tensor) -> Tensor:
        """Begin token, then all of x (B, l) but its last: what each token is predicted from."""
        return F.pad(x, (1, 0), value=self.begin)[:, :-1]

    def head(self, hidden: Tensor) -> Tensor:
        logits = F.linear(hidden, self.transformer.wte.weight[: self.num_tokens])
        return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)

    def check(self, x: Tensor) -> None:
        check_tokens(x, self.num_tokens)
        if x.ndim != 2 or not 1 <= x.shape[1] <= self.length:
            raise ValueError(f"need tokens (B, l), l from 1 to {self.length}, the length of the "
                             f"network; got {tuple(x.shape)}")  # fmt: skip


def hugging_face(sizes: dict):
    """A new GPT2LMHeadModel of what `GPT2.to_config` gives."""
    from transformers import GPT2Config, GPT2LMHeadModel

    begin = sizes["begin"]
    config = GPT2Config(
        vocab_size=max(sizes["num_tokens"], begin + 1), n_positions=sizes["length"],
        n_embd=sizes["width"], n_layer=sizes["num_blocks"], n_head=sizes["num_heads"],
        resid_pdrop=sizes["dropout"], embd_pdrop=sizes["dropout"], attn_pdrop=sizes["dropout"],
        bos_token_id=begin, eos_token_id=None, num_tokens=sizes["num_tokens"],
        activation_function="gelu_pytorch_tanh",  # the same as its "gelu_new", and faster
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def next_token(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """−log p(x0) of a GPT2, (B,) nats: the loss, called as those of losses.py. The noise in x and
    its level change nothing; `gpt2_rival` hands the Trainer a clock that weights all alike."""
    x0 = require(x0, "x0", "next_token")
    return -model(x0).gather(-1, x0[..., None]).sum((1, 2))


class Clock:
    """σ̄(t) = t, so σ(t) = 1: for a loss without noise, which the Trainer multiplies by σ(t)."""

    def total(self, t: Tensor | float) -> Tensor:
        return check_time(t).clone()

    def rate(self, t: Tensor | float) -> Tensor:
        return torch.ones_like(check_time(t))

    def to_config(self) -> dict:
        return {}

    def __repr__(self) -> str:
        return "Clock()"


def gpt2_rival(config: DiTConfig, seed: int = 0, begin: int | None = None) -> dict:
    """What a Trainer is handed to train a GPT-2 with as many parameters as the network of `config`.

    Its `valid_loss` is −log p on average, by the Trainer's sampling of sequences; `nats` is exact.
    A run that writes needs sample_every=0. Raises ValueError where no GPT-2 is of that size.
    """
    like = config.num_blocks, config.num_heads, config.width // config.num_heads
    sizes = gpt2_sizes(count(config), config.num_tokens, config.length, like)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2(config.num_tokens, config.length, **sizes, dropout=config.dropout, begin=begin)
    return {"model": model, "graph": UniformGraph(config.num_tokens), "noise": Clock(),
            "loss": next_token}  # fmt: skip


def count(config: DiTConfig) -> int:
    """Parameters of a DiffusionTransformer."""
    with torch.device("meta"):
        return sum(p.numel() for p in DiffusionTransformer(config).parameters())


def gpt2_sizes(target: int, num_tokens: int, length: int, like: tuple[int, int, int],
               tolerance: float = 0.02) -> dict:  # fmt: skip
    """Width, num_blocks and num_heads of a GPT-2 of `target` parameters, within the tolerance.

    Of all that are, the one most like a network with (blocks, heads, width a head) = `like`: the
    least |log| of the ratios, where blocks count twice. Raises ValueError if there is none.
    """
    blocks, heads, head_width = like
    rows = num_tokens + 1 + length  # of embeddings: tokens, begin, positions
    best, least = None, math.inf
    for n in range(1, 2 * blocks + 1):
        half = (13 * n + rows + 2) / (24 * n)  # 12 n w² + (13 n + rows + 2) w = target
        width = math.sqrt(half**2 + target / (12 * n)) - half
        for h in range(1, 2 * heads + 1):
            w = h * max(1, round(width / h))
            off = (12 * n * w**2 + (13 * n + rows + 2) * w) / target - 1
            unlike = (2 * abs(math.log(n / blocks)) + abs(math.log(h / heads))
                      + abs(math.log(w / h / head_width)))  # fmt: skip
            if abs(off) <= tolerance and unlike < least:
                best, least = {"width": w, "num_blocks": n, "num_heads": h}, unlike
    if best is None:
        raise ValueError(f"no GPT-2 of up to {2 * blocks} blocks and {2 * heads} heads has "
                         f"{target} parameters within {tolerance:.0%}")  # fmt: skip
    return best


@torch.no_grad()
def nats(model: GPT2, blocks: Tensor, batch_size: int = 64) -> Tensor:
    """−log p of each block, exact: (M, l) tokens → (M,) nats, float64, on the CPU.

    Perplexity is exp(mean / l). Raises FloatingPointError where the network gives NaN.
    """
    batch_size, values = whole_number("batch_size", batch_size, 1), []
    model.check(blocks)
    device = next(model.parameters()).device
    with evaluation_mode(model):
        for part in blocks.split(batch_size):
            part = part.to(device)
            log_p = model(part).gather(-1, part[..., None])[..., 0]  # (B, l)
            values.append(-log_p.cpu().double().sum(-1))
    values = torch.cat(values) if values else torch.zeros(0, dtype=torch.float64)
    if not values.isfinite().all():
        raise FloatingPointError("GPT-2 gives log-probabilities that are not finite: train again")
    return values


@torch.no_grad()
def sample_gpt2(
    model: GPT2, shape: tuple[int, int], temperature: float = 1.0, nucleus: float = 1.0,
    prompt: Tensor | None = None, generator: Generators = None, cache: bool = True,
) -> Tensor:  # fmt: skip
    """Blocks (B, l) int64, drawn token by token; un-annealed (the defaults), exactly from p.

    temperature  of each token's law: p^{1/T}, renormalised
    nucleus      then only its most probable tokens, the fewest with at least that probability in
                 all (Holtzman et al. 2020); 1: all
    prompt       first tokens, (P,) or (B, P), P < l
    generator    one, or a list of one a sample (see samplers.py); numbers are drawn in float64
    cache        keep keys and values: one new token a call. False: all tokens so far, each time

    Raises ValueError or TypeError for what does not fit, FloatingPointError for NaN.
    """
    B, length = (whole_number("of shape, each", n, 1) for n in shape)
    if length > model.length:
        raise ValueError(f"{length} tokens are more than the {model.length} of the network")
    temperature = real_number("temperature", temperature, 0)
    nucleus = real_number("nucleus", nucleus, 0, math.nextafter(1, 2))
    generator = check_generator(generator, (B, length))
    device = next(model.parameters()).device
    x = torch.full((B, 1), model.begin, device=device)
    if prompt is not None:
        prompt = check_tokens(torch.as_tensor(prompt), model.num_tokens).to(device)
        if prompt.ndim not in (1, 2) or (prompt.ndim == 2 and len(prompt) != B):
            raise ValueError(f"prompt must be (P,) or ({B}, P), got {tuple(prompt.shape)}")
        if prompt.shape[-1] >= length:
            raise ValueError(f"a prompt of {prompt.shape[-1]} tokens leaves none of {length} free")
        x = torch.cat([x, prompt.expand(B, -1)], 1)
    one, kept, new = torch.ones(B, 1, dtype=torch.bool, device=device), None, x
    with evaluation_mode(model):
        while x.shape[1] <= length:
            log_p, grown = model.extend(new, kept)
            if not log_p.isfinite().all():
                raise FloatingPointError("GPT-2 gives log-probabilities that are not finite")
            u = uniforms(one, generator, 1)[0]  # on the CPU where the device has no float64
            weights = annealed(log_p.to(u.device).double(), temperature, nucleus)
            x = torch.cat([x, pick(weights, u).to(device)[:, None]], 1)
            kept, new = (grown, x[:, -1:]) if cache else (None, x)
    return x[:, 1:]


def annealed(log_p: Tensor, temperature: float = 1.0, nucleus: float = 1.0) -> Tensor:
    """The law (B, N) that is drawn from: first the temperature, then the nucleus; sums to 1."""
    p = (log_p / temperature).softmax(-1)
    if nucleus == 1:
        return p
    ordered, place = p.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # probability of those that come first
    kept = torch.where(before < nucleus, ordered, 0)
    return torch.zeros_like(p).scatter(-1, place, kept / kept.sum(-1, keepdim=True))


def save_gpt2(folder: str | Path, model: GPT2, tokenizer=None) -> Path:
    """A folder in GPT-2's own format (config.json, model.safetensors), that transformers reads.

    There the begin token is `bos_token_id`, and kept from being generated. Replaces one of that
    name; raises ValueError for a folder that holds anything else.
    """
    folder = Path(folder)
    found = {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    if found - NETWORK_FILES - {"generation_config.json"}:
        raise ValueError(f"{folder} holds more than a network: name another folder")
    whole = hugging_face(model.sizes)
    whole.load_state_dict({f"transformer.{k}": v for k, v in model.transformer.state_dict().items()}
                          | {"lm_head.weight": model.transformer.wte.weight})  # fmt: skip
    if model.begin == model.num_tokens:
        whole.generation_config.suppress_tokens = [model.begin]
    with whole_folder(folder) as new:
        whole.save_pretrained(new)
        if tokenizer is not None:
            tokenizer.save(new)
    return folder


def load_gpt2(folder: str | Path, device: str | torch.device = "cpu") -> GPT2:
    """A GPT-2 in a folder of ours (a Trainer's, or what `save_pretrained` wrote) or of transformers
    (what `save_gpt2` wrote, or another such as the released ones).

    Raises FileNotFoundError where there is no such folder, ValueError where it holds no GPT-2.
    """
    from transformers import GPT2LMHeadModel

    if not local_path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    folder = find_folder(folder)
    if "format" in read_json(folder / "config.json"):
        model = load_pretrained(folder, device)[0]
        if not isinstance(model, GPT2):
            raise ValueError(f"{folder} holds a {type(model).__name__}, no GPT-2: load reads it")
        return model
    try:
        whole, told = GPT2LMHeadModel.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # each layer fails in its own way
        raise ValueError(f"{folder} holds no GPT-2 that can be read: {one_line(error)}") from error
    config, missing = whole.config, sorted(told["missing_keys"]) + sorted(told["mismatched_keys"])
    if config.model_type != "gpt2" or missing or config.n_inner not in (None, 4 * config.n_embd):
        raise ValueError(f"{folder} holds no GPT-2 of four times its width; it lacks "
                         f"{', '.join(map(str, missing[:3])) or 'nothing else'}")  # fmt: skip
    model = GPT2(
        getattr(config, "num_tokens", config.vocab_size), config.n_positions, config.n_embd,
        config.n_layer, config.n_head, config.resid_pdrop, config.bos_token_id,
    )  # fmt: skip
    model.transformer = whole.transformer
    return model.to(device).eval()


# ---- mean prediction -----------------------------------------------------------------------------


class MeanPrediction(nn.Module):
    """The ratios of a DiffusionTransformer that guesses x0 (D3PM, tauLDR): its log-scores.

    The network's output, softmax over the data tokens, is read as π = p_θ(x0_i | x), and

        s_y = Σ_{x0} π(x0) p(y | x0) / p(x_i | x0)

    (`baselines.score_of_mean`), here in closed form for both graphs, with N tokens:

        absorbing, x_i = MASK:  s_y = π_y / (e^σ̄ − 1)
        uniform, y ≠ x_i:       s_y = q π_{x_i} + 1 − π_{x_i} + π_y N / (e^σ̄ − 1),
                                q = (e^σ̄ − 1) / (e^σ̄ − 1 + N)

    So it trains by score entropy, which is then tauLDR's ELBO (`baselines.mean_prediction_elbo`),
    and is bounded, sampled, saved and loaded as the network itself is. Absorbing: a row where x_i
    is no MASK means nothing.
    """

    informed = False

    def __init__(self, network: DiffusionTransformer):
        super().__init__()
        self.network, self.config = network, network.config

    @classmethod
    def from_config(cls, config: dict) -> "MeanPrediction":
        return cls(DiffusionTransformer.from_config(config))

    def forward(self, x: Tensor, sigma: Tensor, at: Tensor | None = None, key=None,
                guess: bool = False) -> Tensor:  # fmt: skip
        """Log-scores (B, L, S) of tokens x (B, L) at levels sigma (B,), or (M, S) of those `at`.

        With `guess`: log p_θ(x0_i | x) instead, (B, L, N) or (M, N).
        """
        here, level = x, sigma[:, None].expand(x.shape)
        if at is not None:
            here, level = x[at], level[at]
        log_e = level + torch.log(-torch.expm1(-level))  # log(e^σ̄ − 1)
        here, log_e = here[..., None], log_e[..., None]  # (…, 1)
        log_n = math.log(self.config.num_tokens)
        log_q = -F.softplus(log_n - log_e)  # q = 1/(1 + N/(e^σ̄ − 1))

        logits = self.network(x, sigma, at=at, key=key)[..., : self.config.num_tokens]  # (…, N)
        if self.informed and not self.config.absorbing:
            logits = logits.scatter_add(-1, here, -log_q.to(logits.dtype))
        log_p = logits.log_softmax(-1)
        if guess:
            return log_p
        if self.config.absorbing:
            return F.pad(log_p - log_e, (0, 1)).scatter(-1, here, 0)  # (…, N + 1)
        stays = log_p.gather(-1, here) + log_q
        moves = log_p.scatter(-1, here, -math.inf).logsumexp(-1, keepdim=True)  # log(1 − π_x)
        jump = log_p + (log_n - log_e)
        return torch.logaddexp(torch.logaddexp(stays, moves), jump).scatter(-1, here, 0)

    def bound_is_infinite(self, graph) -> bool:
        """Whether its bound has no end at σ̄ → 0; see InformedMean. A table of exact guesses may do
        better than a network."""
        network = isinstance(self.network, DiffusionTransformer)
        return network and graph.mask_id is None and not self.informed


class InformedMean(MeanPrediction):
    """The same, but π ∝ exp(output) p(x_i | x0_i): what the noise tells is not left to be learned.

    On the uniform graph x_i is x0_i for sure as σ̄ → 0, and a plain network would need outputs that
    grow without limit to say so. They do not: what it sees of σ̄ converges as σ̄ → 0. So π_{x_i}
    stays below 1, the sum of its ratios above (1 − π_{x_i}) N / (e^σ̄ − 1), and its bound pays
    1 − π_{x_i} nats for each e-fold of σ̄ down to 0: it is infinite. What `likelihood_bound` gives
    is its part above σ̄ = 1e-9; `bounds` does not stop there. Here π_{x_i} → 1 whatever the output.
    A mask tells nothing of x0_i, so on the absorbing graph nothing changes.
    """

    informed = True


def mean_cross_entropy(model, graph, x, sigma, x0=None, ratio=None) -> Tensor:
    """−Σ log p_θ(x0_i | x) of a MeanPrediction, (B,): the plain form (Austin et al. 2021).

    Over all positions; absorbing: over the masked ones, as a visible token is known.
    """
    x0 = require(x0, "x0", "mean_cross_entropy")
    log_p = model(x, sigma, guess=True)  # (B, L, N)
    terms = -log_p.gather(-1, x0[..., None])[..., 0]  # (B, L)
    if graph.mask_id is not None:
        terms = torch.where(x == graph.mask_id, terms, 0)
    return terms.sum(-1)


def mean_rival(config: DiTConfig, seed: int = 0, loss=diffusion_weighted,
               informed: bool = False) -> dict:  # fmt: skip
    """What a Trainer is handed to train mean prediction with the network of `config`.

    Graph and noise are those of its settings. loss=mean_cross_entropy is the plain form; informed:
    InformedMean.
    """
    kind = InformedMean if informed else MeanPrediction
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {"model": kind(DiffusionTransformer(config)), "loss": loss}


SCHEDULES["clock"] = Clock  # the networks have their names in NETWORKS of network/pretrained.py
