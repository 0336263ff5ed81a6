"""Training: one loop, from a laptop's minutes to the published run.

    python -m sedd_mini train --preset docs --out runs/docs

    python -m sedd_mini prepare --data openwebtext --tokenizer gpt2 --out runs/openwebtext
    torchrun --nproc_per_node=8 -m sedd_mini train --preset small

Everything random in step n comes from (seed, n) alone, and the data position is one number. So a
run that was killed goes on from its last checkpoint to the same weights, bit for bit on a CPU; and
any number of processes makes the same steps, up to the rounding of sums in another order.
"""

import contextlib
import copy
import inspect
import json
import math
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sedd_mini.baselines import mean_prediction_elbo
from sedd_mini.checks import bound_is_infinite, graph_and_noise, whole_number
from sedd_mini.evaluate import Bound, likelihood_bound
from sedd_mini.files import (
    check_writable,
    is_checkpoint,
    lock,
    newest_checkpoint,
    save_tensors,
)
from sedd_mini.losses import (
    denoising_score_entropy,
    diffusion_weighted,
    diffusion_weighted_in_head,
    training_loss,
)
from sedd_mini.network.dit import DiffusionTransformer
from sedd_mini.network.hardware import autocast, choose_precision
from sedd_mini.network.pretrained import check_saveable
from sedd_mini.text.blocks import BlockLoader
from sedd_mini.text.corpus import Corpus
from sedd_mini.training import checkpoint, distributed, draws
from sedd_mini.training.compiled import compile_parts
from sedd_mini.training.report import Stopwatch, plot_log, report, summary_writer
from sedd_mini.training.settings import CHANGEABLE, Settings

BOUNDS = (  # losses whose integral over σ̄, with the prior term, bounds −log p
    diffusion_weighted_in_head, diffusion_weighted, denoising_score_entropy, mean_prediction_elbo,
)  # fmt: skip


class Trainer:
    """A run: network, averaged network, optimiser, data position. `run()` does the steps."""

    def __init__(
        self, settings: Settings, corpus: Corpus | None = None, out: str | Path | None = None, *,
        model: torch.nn.Module | None = None, graph=None, noise=None,
        loss: Callable = diffusion_weighted_in_head, change: tuple[str, ...] = (),
    ):  # fmt: skip
        """What is not handed in is made from the settings; without `out` nothing is written.

        corpus  training and validation blocks, such as `Corpus.from_arrays` makes
        out     folder of the run, locked against other processes until `close()` or the end
        model   network(x, sigma) → log-scores (B, L, num_states); if its forward takes `key`, it
                gets the keys of dropout, (B,). If it does not take `x0`, the default loss is
                `diffusion_weighted`, the same number by another way. To be saved: see pretrained.py
        graph, noise   as those of graphs.py and noise.py
        loss    called as those of losses.py; what is minimised is the mean of σ(t) · loss / L.
                Validation uses it too. It is a bound on −log p if it is in BOUNDS or has an
                attribute `is_bound` that is true; otherwise the log calls it `valid_loss`.
        change  names of settings that may differ from those of the run in `out`

        Raises ValueError, TypeError or OSError for what could not be trained, or not be saved.
        """
        if not isinstance(settings, Settings):
            raise TypeError(f"settings must be Settings, got {type(settings).__name__}: see preset")
        if unknown := sorted(set(change) - set(CHANGEABLE)):
            raise ValueError(f"no run can go on with another {', '.join(unknown)}: what can be "
                             f"changed is {', '.join(CHANGEABLE)}")  # fmt: skip
        self.settings, self.loss = settings, loss
        self.device = distributed.start(settings.device)
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        parts = settings.accumulate * self.world_size
        if settings.batch_size % parts:
            raise ValueError(
                f"{self.world_size} processes of accumulate={settings.accumulate} parts each do "
                f"not divide batch_size={settings.batch_size}"
            )
        self.step, self.history, self.seconds, self.grad_norm = 0, [], 0.0, 0.0
        self.out, self.board, self.close = None, None, lambda: None
        if out is not None:
            self.claim(out)
        try:
            self.build(corpus, model, graph, noise)
            if self.out:
                self.check_can_be_saved()
                checkpoint.resume(self, change)
            if self.out and settings.tensorboard and self.rank == 0:
                self.board = summary_writer(self.out, self.step)
        except BaseException:
            self.close()
            raise

    def claim(self, out: str | Path) -> None:
        """Lock the folder, by process 0 for all; `close` then gives it back."""
        problem = None
        try:
            self.out = check_writable(out)
            if (self.out / "config.json").exists() or is_checkpoint(self.out):
                raise ValueError(f"{out} is the folder of a network or a checkpoint, not of a run: "
                                 "name the one around it, or another")  # fmt: skip
            if self.rank == 0:
                self.close = weakref.finalize(self, lock(self.out).release)
        except (ValueError, OSError) as error:
            problem = error
        if distributed.any_of(problem is not None):
            self.close()
            raise problem or ValueError(f"another process could not use {out}: its words say why")

    def build(self, corpus: Corpus | None, model, graph, noise) -> None:
        s = self.settings
        self.corpus = corpus or s.make_corpus()
        num_tokens = self.corpus.tokenizer.vocab_size
        self.graph = graph if graph is not None else s.make_graph(num_tokens)
        self.noise = noise if noise is not None else s.make_noise(self.graph)
        graph_and_noise(self.graph, self.noise)
        if self.graph.num_tokens != num_tokens:
            raise ValueError(f"{self.graph} has {self.graph.num_tokens} tokens, the corpus has "
                             f"{num_tokens}")  # fmt: skip
        if self.corpus.train.length != s.length:
            raise ValueError(f"the corpus has blocks of {self.corpus.train.length} tokens, but "
                             f"length={s.length}: give the same")  # fmt: skip
        torch.manual_seed(s.seed)
        if model is None:
            absorbing = self.graph.mask_id is not None
            model = DiffusionTransformer(s.network(num_tokens, absorbing))
        states = getattr(getattr(model, "config", None), "num_states", self.graph.num_states)
        if states != self.graph.num_states:
            raise ValueError(f"the network has {states} states, {self.graph} has "
                             f"{self.graph.num_states}")  # fmt: skip
        self.model = model.to(self.device)
        takes = inspect.signature(model.forward).parameters
        self.takes_key = "key" in takes
        if self.loss is diffusion_weighted_in_head and "x0" not in takes:
            self.loss = diffusion_weighted  # the same, by a network that has it not in its head
        self.dtype = choose_precision(s.precision, self.device)
        if self.dtype == torch.float64:
            self.model.double()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.skeleton = copy.deepcopy(self.average).to("meta")  # before weights are in shares
        if self.out:
            check_saveable(self.model, self.graph, self.noise)
        size = sum(p.numel() * p.element_size() for p in self.model.parameters())
        self.checkpoint_bytes = 4 * size  # weights, their average, two moments
        self.watch = Stopwatch(self.device)
        self.watch.watch_head(self.model)
        self.network = self.prepare(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=s.lr, betas=(0.9, s.beta2), weight_decay=s.weight_decay,
            fused=True,
        )  # fmt: skip
        self.loader = BlockLoader(
            self.corpus.train, s.batch_size, s.seed, self.rank, self.world_size
        )

    def check_can_be_saved(self) -> None:
        """Raises now what the first save would."""
        if self.rank == 0:  # the old checkpoint goes when the new one is whole
            number = 1 if newest_checkpoint(self.out) else 2
            check_writable(self.out, number * self.checkpoint_bytes)

    def prepare(self, model: DiffusionTransformer) -> torch.nn.Module:
        """What training calls: the model, compiled and spread over processes if so set."""
        if self.settings.compile:
            compile_parts(model)
        if self.world_size == 1:
            return model
        if self.settings.parallel == "ddp":
            return distributed.replicate(model, self.device)
        distributed.shard(model, self.device)
        distributed.shard(self.average, self.device)  # never called so: see `whole_average`
        return model

    # ---- one step ------------------------------------------------------------------------------

    def train_step(self) -> float:
        """One optimiser step; the loss in nats a token. Raises FloatingPointError if not finite.

        `grad_norm` is then the norm of the gradient as it was before clipping.
        """
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.lr * self.lr_factor(self.step)
        self.model.train()
        batch = self.draw_batch()
        parts = list(zip(*(v.to(self.device).chunk(s.accumulate) for v in batch), strict=True))
        self.watch.mark("data")
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for i, part in enumerate(parts):
            with distributed.exchange(self.network, last=i == s.accumulate - 1):
                part_loss = self.mean_loss(*part) / s.accumulate
                part_loss.backward()
            self.watch.mark("backward")
            loss += part_loss.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip)
        loss, norm = distributed.mean(loss.item()), distributed.whole(norm).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.stop_at_nan(loss, norm, *batch)
        self.grad_norm = norm
        self.optimizer.step()
        self.step += 1
        self.update_average()
        self.watch.mark("optimiser")
        return loss

    def draw_batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Data x0 and noisy x, (B, L) each; times t, their weights, keys of dropout, (B,) each.

        These are this process's rows of the batch of all. Times and noise are drawn for the whole
        batch at once, on the CPU, from (seed, step), and a key is the sample's number in the
        stream: each sample meets the same ones however the batch is divided.
        """
        s = self.settings
        seed = s.seed + 7_919 * (self.step + 1)
        torch.manual_seed(seed)  # for what draws elsewhere, as a validation on a GPU does
        generator = torch.Generator().manual_seed(seed)
        share = s.batch_size // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        data = torch.zeros(s.batch_size, s.length, dtype=torch.int64)  # others' rows do not matter
        data[mine] = next(self.loader)
        x, t, weight = draws.noised(self.graph, self.noise, data, generator, s.draws)
        key = self.loader.sample_ids + (s.seed % 2**23 << 40)  # below 2⁶³
        return data[mine], x[mine], t[mine], weight[mine], key

    def mean_loss(self, x0: Tensor, x: Tensor, t: Tensor, weight: Tensor, key: Tensor) -> Tensor:
        """weight · σ(t) · loss in nats a token, averaged over the sequences; a scalar."""
        model = Keyed(self.network, key, self.noise.total(t)) if self.takes_key else self.network
        with autocast(self.device, self.dtype):
            loss = training_loss(model, self.graph, self.noise, x0, t, x=x, loss=self.loss)  # (B,)
        return (weight * loss).mean() / x0.shape[1]

    def lr_factor(self, step: int) -> float:
        """Share of the highest learning rate: a line up over `warmup` steps, then the decay."""
        s = self.settings
        rise = min(1.0, (step + 1) / max(s.warmup, 1))
        if s.decay == "none":
            return rise
        return rise * 0.5 * (1 + math.cos(math.pi * min(step / s.steps, 1.0)))

    @torch.no_grad()
    def update_average(self) -> None:
        """EMA of the weights, with decay min(ema, (1 + n) / (10 + n)) after n steps."""
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        pairs = list(self.average.parameters()), list(self.model.parameters())
        torch._foreach_lerp_(*pairs, 1 - decay)

    def whole_average(self) -> torch.nn.Module:
        """The averaged network, to be called; where it lies in shares, a copy put together.

        Every process has to ask for it at the same time. Without gradients and moments it takes a
        fifth of what training takes, so a network that needs shares in training fits here.
        """
        weights = self.average.state_dict()
        if not any(map(distributed.is_sharded, weights.values())):
            return self.average
        network = copy.deepcopy(self.skeleton)
        whole = {name: distributed.whole(weight) for name, weight in weights.items()}
        network.load_state_dict(whole, assign=True)
        return network

    def stop_at_nan(self, loss: float, norm: float, *batch: Tensor) -> None:
        where, saved = "nothing was written, as the run has no folder", None
        if self.out:
            part = f"-rank-{self.rank}" if self.world_size > 1 else ""
            path = self.out / f"not-finite-{self.step:08d}{part}.safetensors"
            save_tensors(path, dict(zip(("x0", "x", "t", "weight", "key"), batch, strict=True)))
            saved = newest_checkpoint(self.out)
            where = f"its batch is in {path}, and " + (
                f"{saved} stays as it is" if saved else "there is no checkpoint yet"
            )
        raise FloatingPointError(
            f"loss {loss}, gradient norm {norm} at step {self.step}; {where}. {checkpoint.REMEDY}"
            + (checkpoint.GOES_ON if saved else "")
        )

    # ---- the run -------------------------------------------------------------------------------

    def run(self, steps: int | None = None, callback: Callable[[dict], None] | None = None) -> list:
        """Train to `steps` (default: all of the settings); the log as a list of dicts.

        `callback` gets each log record. Ctrl-C and SIGTERM let the step at hand end, with what is
        due after it, so that what is saved is whole, and then raise KeyboardInterrupt. A second one
        breaks a validation or a snapshot off (in a single process).
        """
        s = self.settings
        last = s.steps if steps is None else whole_number("steps", steps, 1)
        losses, norms, tokens = [], [], s.batch_size * s.length  # since the last record
        self.watch.reset()
        begun = self.step  # the first step is slower, and the last three are looked at closely
        first = self.rank == 0  # the one that tells
        bar = tqdm(total=last, initial=self.step, unit="step", desc="training",
                   disable=not first or sys.stderr is None)  # fmt: skip
        tell = bar.write if first else lambda text: None
        signals = distributed.Signals()
        start, recorded = time.perf_counter(), self.seconds
        try:
            while self.step < last:
                if distributed.any_of(signals.arrived):  # all of them stop at the same step
                    raise KeyboardInterrupt
                self.watch.start(self.step >= max(last - 3, min(begun + 1, last - 1)))
                losses.append(self.train_step())
                norms.append(self.grad_norm)
                bar.update()
                finished, now = self.step == last, time.perf_counter()
                self.seconds, start = self.seconds + now - start, now
                if self.step % s.log_every == 0 or finished:
                    speed = len(losses) * tokens / max(self.seconds - recorded, 1e-9)
                    record = {"step": self.step, "loss": sum(losses) / len(losses),
                              "lr": self.optimizer.param_groups[0]["lr"], "grad_norm": max(norms),
                              "tokens": self.step * tokens, "tokens_per_s": round(speed),
                              "seconds": round(self.seconds, 2)}  # fmt: skip
                    self.log(record, callback)
                    bar.set_postfix_str(self.describe(record["loss"], speed))
                    losses, norms, recorded = [], [], self.seconds
                aside = time.perf_counter()
                self.between_steps(finished, signals, tell, callback)
                start += time.perf_counter() - aside  # which is not the time of a step
            if distributed.any_of(signals.arrived):
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            if self.out:
                self.save()
                tell(f"interrupted: step {self.step} is saved in {self.out}")
            raise
        except OSError:  # a reader that went or a disk that is full costs no step
            whole = self.loader.position == self.step * s.batch_size  # it came between two steps
            if self.out and self.world_size == 1 and whole:
                with contextlib.suppress(OSError):  # that of the save itself, perhaps
                    self.save()
            raise
        except RuntimeError as error:
            if self.world_size == 1:
                raise
            signals.handlers.clear()  # held back to the end: torchrun's SIGTERM would cut this off
            raise RuntimeError(self.last_words(error)) from error
        finally:
            signals.release()
            bar.close()
        if self.out and first:
            plot_log(self.out)
        return self.history

    def between_steps(self, finished: bool, signals, tell: Callable, callback) -> None:
        """What is due after a step: the last one's report, validation, samples, checkpoint."""
        s = self.settings
        if finished:
            self.log({"step": self.step, "report": self.report()}, callback)
        if finished or (s.valid_every and self.step % s.valid_every == 0):
            with signals.breakable():
                found = self.validate()
            nats, error = found.nats / s.length, found.error / s.length
            name, text = "valid", f"validation {found}"
            if not self.loss_is_bound():
                name, nats = "valid_loss", nats - found.prior / s.length
                text = f"validation loss {nats:.4f} ± {error:.4f} nats a token; not a bound"
            self.log({"step": self.step, name: nats, "valid_error": error}, callback)
            tell(f"step {self.step}: {text}")
        if self.out and s.sample_every and self.step % s.sample_every == 0:
            with signals.breakable():
                sample = self.snapshot()
            tell(sample)
        if self.out and (finished or self.step % s.save_every == 0):
            self.save()

    def describe(self, loss: float, tokens_per_s: float) -> str:
        per_token = self.corpus.info.get("chars_per_token")
        bits = f", {loss / math.log(2) / per_token:.3f} bits/char" if per_token else ""
        return f"{loss:.4f} nats/token{bits}, {tokens_per_s:,.0f} tokens/s"

    def last_words(self, error: RuntimeError) -> str:
        saved = newest_checkpoint(self.out) if self.out else None
        return (
            f"process {self.rank} of {self.world_size} ends at step {self.step}: {error}. If that "
            "speaks of a connection, another process died before, and its own words say why. "
            + (f"{saved} is whole: the same command goes on from there" if saved else
               "There is no checkpoint yet")
        )  # fmt: skip

    def report(self) -> dict:
        """Speed, utilisation, memory and the split of time in the last steps of `run`."""
        config = getattr(self.model, "config", None)
        return report(self.watch, config, self.settings, self.dtype, self.world_size)

    def log(self, record: dict, callback=None) -> None:
        self.history.append(record)
        if self.out and self.rank == 0:
            with (self.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
        if self.board:
            for name, value in record.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(name, value, record["step"])
        if callback:
            callback(record)

    def validate(self, blocks: Tensor | None = None, seed: int = 0) -> Bound:
        """The likelihood bound of the averaged network on validation blocks (M, L).

        With the loss of the run, so it is a bound only if `loss_is_bound()`. Every process computes
        all of it: nobody waits, and all know the same number.
        """
        s = self.settings
        if blocks is None:
            most = min(s.valid_blocks, s.steps * s.batch_size)  # a try of two steps ends soon
            blocks = self.corpus.valid[: min(most, len(self.corpus.valid))]
        return likelihood_bound(
            self.whole_average(), self.graph, self.noise, blocks.to(self.device),
            repeats=s.valid_repeats, generator=torch.Generator().manual_seed(seed),
            loss=self.loss,
        )  # fmt: skip

    def loss_is_bound(self) -> bool:
        if bound_is_infinite(self.model, self.graph):
            return False  # what is integrated is the part above some noise level
        return self.loss in BOUNDS or bool(getattr(self.loss, "is_bound", False))

    def snapshot(self, num: int = 2, steps: int = 64) -> str:
        """Samples of the averaged network as text, by process 0; kept in samples/ of the run."""
        from sedd_mini.samplers import sample

        network = self.whole_average()
        if self.rank > 0:
            return ""
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (num, self.settings.length)
        method = getattr(network, "sampler", "tweedie")  # the one that can draw from it
        x = sample(network, self.graph, self.noise, shape, steps, method, generator=generator)
        text = "\n---\n".join(self.corpus.tokenizer.decode(row) for row in x.tolist())
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"step-{self.step:08d}.txt").write_text(text + "\n", encoding="utf-8")
        return f"step {self.step}: {text.splitlines()[0][:100]} …"

    def save(self) -> Path:
        """A checkpoint of everything that the rest of the run depends on; all processes call it.

        One of this step that is there already is left as it is. Raises FloatingPointError, and
        leaves the last one, where weights, moments or averages are not finite.
        """
        return checkpoint.save(self)


class Keyed:
    """A network with the dropout keys of a batch bound to it, called as the network is.

    A loss may call it on other rows than the batch's, such as neighbours of x: each row finds its
    sample by its noise level, which is another one for each sample. So the masks are the same
    however many processes share the batch. Raises ValueError for a level that no sample has.
    """

    def __init__(self, network, key: Tensor, sigma: Tensor):
        self.network, self.key, self.sigma = network, key, sigma  # (B,) each

    def __call__(self, x: Tensor, sigma: Tensor, **options) -> Tensor:
        if sigma is self.sigma or torch.equal(sigma, self.sigma):
            return self.network(x, sigma, key=self.key, **options)
        same = sigma[:, None] == self.sigma.to(sigma.dtype)  # (rows, B)
        if not same.any(1).all():
            raise ValueError("the loss calls the network at a noise level that no sample has")
        return self.network(x, sigma, key=self.key[same.int().argmax(1)], **options)

    def __getattr__(self, name: str):
        return getattr(self.network, name)
