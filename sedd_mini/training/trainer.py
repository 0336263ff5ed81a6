"""Training: one loop, from a laptop's minutes to the published run.

    python -m sedd_mini train --preset docs --out runs/docs

    python -m sedd_mini prepare --data openwebtext --tokenizer gpt2 --out runs/openwebtext
    torchrun --nproc_per_node=8 -m sedd_mini train --preset small

Everything random in step n comes from (seed, n) alone, and the data position is one number. So a
run that was killed goes on from its last checkpoint to the same weights, bit for bit on a CPU; and
any number of processes makes the same steps, up to the rounding of sums in another order.
"""

import copy
import dataclasses
import json
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from sedd_mini.evaluate import Bound, likelihood_bound
from sedd_mini.files import newest_checkpoint, save_tensors, step_of
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.network.dit import DiffusionTransformer
from sedd_mini.network.hardware import autocast, choose_precision
from sedd_mini.network.pretrained import load_pretrained, save_pretrained
from sedd_mini.noise import GeometricNoise, LogLinearNoise
from sedd_mini.text.blocks import BlockLoader
from sedd_mini.text.corpus import Corpus, load_corpus
from sedd_mini.training import distributed, draws
from sedd_mini.training.checkpoint import load_state, save_checkpoint
from sedd_mini.training.report import Stopwatch, plot_log, read_log, report
from sedd_mini.training.settings import CHANGEABLE, OPENWEBTEXT, Settings, compare


def corpus_of(s: Settings) -> Corpus:
    """The text of a run in tokens; also offline for "docs" in GPT-2's (see offline.py).

    OpenWebText is too large for the memory: raises ValueError where its shards are not prepared.
    """
    if s.data == "openwebtext":
        if not Path(OPENWEBTEXT, "shards.json").exists():
            raise ValueError(
                f"there are no shards of OpenWebText in {OPENWEBTEXT}. Prepare them once: python "
                f"-m sedd_mini prepare --data openwebtext --tokenizer gpt2 --out {OPENWEBTEXT}; or "
                "choose another --data"
            )
        return load_corpus(OPENWEBTEXT, s.length)
    if (s.data, s.tokenizer) == ("docs", "gpt2"):
        from sedd_mini.text.offline import docs_with_gpt2_tokens

        return docs_with_gpt2_tokens(s.length, s.vocab_size)
    return load_corpus(s.data, s.length, tokenizer=s.tokenizer, vocab_size=s.vocab_size)


def summary_writer(out: Path, step: int):
    """TensorBoard's writer of a run that goes on after `step`; raises ValueError without it."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard needs the package tensorboard: pip install tensorboard"
        ) from error
    return SummaryWriter(out / "tensorboard", purge_step=step + 1)


class Trainer:
    """A run: network, averaged network, optimiser, data position. `run()` does the steps."""

    def __init__(self, settings: Settings, corpus: Corpus | None = None, out: str | None = None,
                 change: tuple[str, ...] = ()):  # fmt: skip
        """`corpus` is loaded from the settings unless given; without `out` nothing is written.

        `change` names settings that may differ from those that the run in `out` was saved with.
        """
        self.settings, s = settings, settings
        if unknown := sorted(set(change) - set(CHANGEABLE)):
            raise ValueError(f"no run can go on with another {', '.join(unknown)}: what can be "
                             f"changed is {', '.join(CHANGEABLE)}")  # fmt: skip
        self.device = distributed.start(s.device)
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        if s.batch_size % (s.accumulate * self.world_size):
            raise ValueError(f"{self.world_size} processes of accumulate={s.accumulate} parts each "
                             f"do not divide batch_size={s.batch_size}")  # fmt: skip
        self.corpus = corpus or corpus_of(s)
        num_tokens = self.corpus.tokenizer.vocab_size
        if s.graph == "absorb":
            self.graph, self.noise = AbsorbingGraph(num_tokens), LogLinearNoise()
        else:
            self.graph = UniformGraph(num_tokens)
            self.noise = GeometricNoise(s.sigma_min, s.sigma_max)
        torch.manual_seed(s.seed)
        self.model = DiffusionTransformer(s.network(num_tokens)).to(self.device)
        self.dtype = choose_precision(s.precision, self.device)
        if self.dtype == torch.float64:
            self.model.double()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
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
        self.step, self.history, self.seconds, self.grad_norm = 0, [], 0.0, 0.0
        self.out, self.board = None if out is None else Path(out), None
        if self.out:
            self.out.mkdir(parents=True, exist_ok=True)
            self.resume(change)
        if self.out and s.tensorboard and self.rank == 0:
            self.board = summary_writer(self.out, self.step)

    def prepare(self, model: DiffusionTransformer) -> torch.nn.Module:
        """What training calls: the model, compiled and spread over processes if so set.

        Compiled block by block: fast to start, and the head, whose number of rows changes from step
        to step, stays out of it.
        """
        if self.settings.compile:
            for block in model.blocks:
                block.compile()
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
                part_loss = self.loss(*part) / s.accumulate
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

    def loss(self, x0: Tensor, x: Tensor, t: Tensor, weight: Tensor, key: Tensor) -> Tensor:
        """Diffusion-weighted denoising score entropy in nats a token, averaged; a scalar."""
        with autocast(self.device, self.dtype):
            entropy = self.network(x, self.noise.total(t), x0=x0, graph=self.graph, key=key)
        return ((weight * self.noise.rate(t))[:, None] * entropy).mean()  # (B, L) → ()

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

    def whole_average(self) -> DiffusionTransformer:
        """The averaged network, to be called; where it lies in shares, a copy put together.

        Every process has to ask for it at the same time. Without gradients and moments it takes a
        fifth of what training takes, so a network that needs shares in training fits here.
        """
        weights = self.average.state_dict()
        if not any(map(distributed.is_sharded, weights.values())):
            return self.average
        with torch.device("meta"):
            network = DiffusionTransformer(self.model.config).eval().requires_grad_(False)
        whole = {name: distributed.whole(weight) for name, weight in weights.items()}
        network.load_state_dict(whole, assign=True)
        return network

    def stop_at_nan(self, loss: float, norm: float, *batch: Tensor) -> None:
        where = "nothing was written, as the run has no folder"
        if self.out:
            part = f"-rank-{self.rank}" if self.world_size > 1 else ""
            path = self.out / f"not-finite-{self.step:08d}{part}.safetensors"
            save_tensors(path, dict(zip(("x0", "x", "t", "weight", "key"), batch, strict=True)))
            where = f"its batch is in {path}, and the last checkpoint is untouched"
        raise FloatingPointError(
            f"loss {loss}, gradient norm {norm} at step {self.step}; {where}. Often a lower --lr, "
            "a longer --warmup or --precision float32 helps; with --change lr,warmup,precision the "
            "run goes on with them from its last checkpoint"
        )

    # ---- the run -------------------------------------------------------------------------------

    def run(self, steps: int | None = None, callback: Callable[[dict], None] | None = None) -> list:
        """Train to `steps` (default: all of the settings); the log as a list of dicts.

        `callback` gets each log record. Ctrl-C and SIGTERM let the step at hand end, with what is
        due after it, so that what is saved is whole, and then raise KeyboardInterrupt. A second one
        breaks a validation or a snapshot off (in a single process).
        """
        s, last = self.settings, steps or self.settings.steps
        losses, norms, tokens = [], [], s.batch_size * s.length  # since the last record
        self.watch.reset()
        begun = self.step  # the first step is slower, and the last three are looked at closely
        first = self.rank == 0  # the one that tells
        bar = tqdm(total=last, initial=self.step, unit="step", desc="training", disable=not first)
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
                bound = self.validate()
            self.log({"step": self.step, "valid": bound.nats / s.length,
                      "valid_error": bound.error / s.length}, callback)  # fmt: skip
            tell(f"step {self.step}: validation {bound}")
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
        return report(self.watch, self.model.config, self.settings, self.dtype, self.world_size)

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

        Every process computes all of it: nobody waits, and all know the same number.
        """
        s = self.settings
        if blocks is None:
            most = min(s.valid_blocks, s.steps * s.batch_size)  # a try of two steps ends soon
            blocks = self.corpus.valid[: min(most, len(self.corpus.valid))]
        return likelihood_bound(
            self.whole_average(), self.graph, self.noise, blocks.to(self.device),
            repeats=s.valid_repeats, generator=torch.Generator().manual_seed(seed),
            loss=diffusion_weighted_in_head,
        )  # fmt: skip

    def snapshot(self, num: int = 2, steps: int = 64) -> str:
        """Samples of the averaged network as text, by process 0; kept in samples/ of the run."""
        from sedd_mini.samplers import sample

        network = self.whole_average()
        if self.rank > 0:
            return ""
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (num, self.settings.length)
        x = sample(network, self.graph, self.noise, shape, steps, generator=generator)
        text = "\n---\n".join(self.corpus.tokenizer.decode(row) for row in x.tolist())
        folder = self.out / "samples"
        folder.mkdir(exist_ok=True)
        (folder / f"step-{self.step:08d}.txt").write_text(text + "\n", encoding="utf-8")
        return f"step {self.step}: {text.splitlines()[0][:100]} …"

    # ---- saving --------------------------------------------------------------------------------

    def save(self) -> Path:
        """A checkpoint of everything that the rest of the run depends on; all processes call it.

        One of this step that is there already is left as it is.
        """
        state = {
            "settings": dataclasses.asdict(self.settings), "loader": self.loader.state_dict(),
            "corpus": self.corpus.info, "seconds": self.seconds,
        }  # fmt: skip
        return save_checkpoint(
            self.out, self.step, self.state_tensors(), state, self.whole_average(), self.graph,
            self.noise, self.corpus.tokenizer,
        )  # fmt: skip

    def state_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds beside the averaged network, by name: the tensors themselves."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for name, p in self.model.named_parameters():
            state = self.optimizer.state[p]
            if not state:  # before the first step
                state["step"] = torch.zeros((), device=p.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            tensors |= {f"adam.{kind}.{name}": v for kind, v in state.items()}
        return tensors

    def resume(self, change: tuple[str, ...] = ()) -> None:
        """Go on from the newest checkpoint of the folder, if there is one.

        However many processes wrote it, and however many there are now. Raises ValueError if it
        belongs to a run with other data or other settings, those named in `change` excepted
        (`steps` may be raised where nothing decays).
        """
        folder = newest_checkpoint(self.out)
        if not distributed.same(step_of(folder)):
            raise ValueError(f"not all processes see the same checkpoint in {self.out}: it must be "
                             "in a folder that all machines share")  # fmt: skip
        changed = {}
        if folder:
            state = load_state(folder)
            changed = self.check_same_run(folder, state, change)
            distributed.read_into(folder, self.state_tensors() | self.average.state_dict())
            self.loader.load_state_dict(state["loader"])
            self.loader.seed = self.settings.seed  # which may have been changed
            self.step, self.seconds = state["step"], state["seconds"]
        log, new = self.out / "log.jsonl", self.out / "log.jsonl.tmp"
        if self.rank == 0 and log.exists():
            self.history = read_log(self.out, self.step)
            new.write_text("".join(json.dumps(record) + "\n" for record in self.history))
            os.replace(new, log)
        if changed:
            self.log({"step": self.step, "changed": changed})

    def check_same_run(self, folder: Path, state: dict, change: tuple[str, ...]) -> dict:
        """What `change` has changed, {name: [was, is]}; raises ValueError if anything else has."""
        changed, other = compare(state["settings"], self.settings, change)
        problems = [f"{k} was {was!r}, is {is_!r}" for k, (was, is_) in other.items()]
        if state["corpus"]["hash"] != self.corpus.info["hash"]:
            problems.append("the text is another one")
        if problems:
            names = ",".join(k for k in other if k in CHANGEABLE)
            raise ValueError(
                f"{folder} is of a run with other settings ({'; '.join(problems)}): resume with "
                "the same ones, or choose another --out"
                + (f"; --change {names} goes on with what is now given" if names else "")
            )
        return changed


def export(trainer: Trainer, folder: str | Path, command: str) -> dict:
    """Write the averaged network, small enough to ship (float16), with how it was made.

    training.json then holds the command, the settings' outcome, and the likelihood bound on the
    whole validation set, measured on what was written. Returns its content. All processes call it,
    and the first one writes; the others return {}.
    """
    s, info = trainer.settings, trainer.corpus.info
    what = trainer.whole_average(), trainer.graph, trainer.noise, trainer.corpus.tokenizer
    if trainer.rank > 0:
        return {}
    save_pretrained(folder, *what, dtype=torch.float16)
    trainer.average = load_pretrained(folder, trainer.device)[0]
    bound = trainer.validate(trainer.corpus.valid[:], seed=1)
    record = {
        "command": command, "seed": s.seed, "steps": trainer.step,
        "tokens_seen": trainer.step * s.batch_size * s.length,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "wall_time_s": round(trainer.seconds),
        "hardware": f"{platform.machine()} {trainer.device}, {torch.get_num_threads()} thread(s)",
        "python": platform.python_version(), "torch": torch.__version__,
        "corpus": info, "valid_blocks": len(trainer.corpus.valid),
        "bound_bits_per_token": bound.bits_per_token,
        "bound_error_bits_per_token": bound.error / s.length / math.log(2),
    }  # fmt: skip
    save_pretrained(folder, trainer.average, *what[1:], dtype=torch.float16, info=record)
    return record
