"""A run's whole state: the averaged network, and beside it what the rest of the run needs.

A folder is written under a temporary name and then renamed: one that is there is whole. What is not
finite is never saved, so the last good checkpoint stays.
"""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sedd_mini.checks import real_number, whole_number
from sedd_mini.files import (
    checkpoints,
    newest_checkpoint,
    read_json,
    save_tensors,
    step_of,
    whole_folder,
    write_json,
)
from sedd_mini.losses import diffusion_weighted_in_head
from sedd_mini.network.pretrained import describe, write_network
from sedd_mini.training import distributed
from sedd_mini.training.distributed import any_of, barrier, is_sharded, rank, write_shards
from sedd_mini.training.report import read_log
from sedd_mini.training.settings import CHANGEABLE, compare

REMEDY = "Often a lower --lr, a longer --warmup or --precision float32 helps"
GOES_ON = "; with --change lr,warmup,precision the run goes on with them from its last checkpoint"


def save(trainer) -> Path:
    """A checkpoint of everything that the rest of the run depends on; all processes call it.

    One of this step that is there already is left as it is. Raises FloatingPointError, and
    leaves the last one, where weights, moments or averages are not finite.
    """
    check_sound(trainer)
    state = {
        "loss": name_of_loss(trainer.loss),
        "settings": dataclasses.asdict(trainer.settings), "loader": trainer.loader.state_dict(),
        "corpus": trainer.corpus.info, "seconds": trainer.seconds,
    }  # fmt: skip
    return save_checkpoint(
        trainer.out, trainer.step, state_tensors(trainer), state, trainer.whole_average(),
        trainer.graph, trainer.noise, trainer.corpus.tokenizer,
    )  # fmt: skip


def check_sound(trainer) -> None:
    """Raises FloatingPointError where anything that a checkpoint holds is not finite."""
    averages = trainer.average.state_dict()
    tensors = state_tensors(trainer) | {f"average.{k}": v for k, v in averages.items()}
    bad = [k for k, v in tensors.items() if not distributed.local(v).isfinite().all()]
    if distributed.any_of(bool(bad)):
        saved = newest_checkpoint(trainer.out) if trainer.out else None
        raise FloatingPointError(
            f"after step {trainer.step}, {len(bad)} tensors are not finite"
            f"{' (' + bad[0] + ' first)' if bad else ''}: they are not saved"
            + (f", and {saved} stays as it is" if saved else "") + f". {REMEDY}"
            + (GOES_ON if saved else "")
        )


def state_tensors(trainer) -> dict[str, Tensor]:
    """What a checkpoint holds beside the averaged network, by name: the tensors themselves."""
    tensors = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    for name, p in trainer.model.named_parameters():
        state = trainer.optimizer.state[p]
        if not state:  # before the first step
            state["step"] = torch.zeros((), device=p.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        tensors |= {f"adam.{kind}.{name}": v for kind, v in state.items()}
    return tensors


def resume(trainer, change: tuple[str, ...] = ()) -> None:
    """Go on from the newest checkpoint of the trainer's folder, if there is one.

    However many processes wrote it, and however many there are now. Raises ValueError if it
    belongs to a run with other data or other settings, those named in `change` excepted
    (`steps` may be raised where nothing decays).
    """
    folder = newest_checkpoint(trainer.out)
    if not distributed.same(step_of(folder)):
        raise ValueError(f"not all processes see the same checkpoint in {trainer.out}: it must be "
                         "in a folder that all machines share")  # fmt: skip
    changed = {}
    if folder:
        state = load_state(folder)
        changed = check_same_run(trainer, folder, state, change)
        distributed.read_into(folder, state_tensors(trainer) | trainer.average.state_dict())
        trainer.loader.load_state_dict(state["loader"])
        trainer.loader.seed = trainer.settings.seed  # which may have been changed
        trainer.step, trainer.seconds = state["step"], state["seconds"]
    log, new = trainer.out / "log.jsonl", trainer.out / "log.jsonl.tmp"
    if trainer.rank == 0 and log.exists():
        trainer.history = read_log(trainer.out, trainer.step)
        new.write_text("".join(json.dumps(record) + "\n" for record in trainer.history))
        os.replace(new, log)
    if changed:
        trainer.log({"step": trainer.step, "changed": changed})


def check_same_run(trainer, folder: Path, state: dict, change: tuple[str, ...]) -> dict:
    """What `change` has changed, {name: [was, is]}; raises ValueError if anything else has."""
    changed, other = compare(state["settings"], trainer.settings, change)
    loss = state.get("loss", name_of_loss())
    problems = [f"{k} was {was!r}, is {is_!r}" for k, (was, is_) in other.items()]
    if state["corpus"]["hash"] != trainer.corpus.info["hash"]:
        problems.append("the text is another one")
    if loss != name_of_loss(trainer.loss):
        problems.append(f"the loss was {loss}, is {name_of_loss(trainer.loss)}")
    tokens = [c.get("tokenizer_sha256") for c in (state["corpus"], trainer.corpus.info)]
    if None not in tokens and tokens[0] != tokens[1]:
        problems.append("the tokeniser is another one")
    problems = problems or other_parts(trainer, folder)
    if problems:
        names = ",".join(k for k in other if k in CHANGEABLE)
        raise ValueError(
            f"{folder} is of a run with other settings ({'; '.join(problems)}): resume with "
            "the same ones, or choose another --out"
            + (f"; --change {names} goes on with what is now given" if names else "")
        )
    return changed


def other_parts(trainer, folder: Path) -> list[str]:
    """How graph, noise and network differ from those that the checkpoint was saved with."""
    then = read_json(folder / "config.json")
    now = describe(trainer.skeleton, trainer.graph, trainer.noise)
    for config in (then, now):
        if isinstance(config.get("model"), dict):  # it may have been edited
            config["model"].pop("dropout", None)  # a setting, compared there
    return [f"{k} was {then.get(k)}, is {now[k]}" for k in ("graph", "noise", "model")
            if then.get(k) != now[k]]  # fmt: skip


def name_of_loss(loss: Callable = diffusion_weighted_in_head) -> str:
    """By which a checkpoint knows the loss of its run."""
    return f"{loss.__module__}.{loss.__qualname__}" if hasattr(loss, "__qualname__") else repr(loss)


def save_checkpoint(
    out: Path, step: int, tensors: dict[str, Tensor], state: dict, model, graph, noise, tokenizer
) -> Path:  # fmt: skip
    """Write out/step-XXXXXXXX, then remove the others; all processes call it together.

    It holds the network with the averaged weights (`model`), state.safetensors (`tensors`; if they
    are in shares, one file of each process instead) and state.json (`state`). One that is there is
    whole, and is left as it is.
    """
    folder, first = out / f"step-{step:08d}", rank() == 0
    if any_of(first and folder.exists()):
        return folder
    sharded = any(map(is_sharded, tensors.values()))
    new = out / f"{folder.name}.tmp"  # the lock of `out` is ours, so this name is too
    with whole_folder(folder, new) if first else contextlib.nullcontext(new):
        barrier()  # the folder is there
        if sharded:
            write_shards(new, tensors)
        if first:
            write_network(new, model, graph, noise, tokenizer)
            if not sharded:
                save_tensors(new / "state.safetensors", tensors)
            write_json(new / "state.json", {"step": step, **state})
        barrier()  # all have written
    if first:
        for old in checkpoints(out):
            if old != folder:
                old.rename(old.with_name(old.name + ".tmp"))  # one half deleted is not whole
        for left in out.glob("step-????????.tmp"):
            shutil.rmtree(left, ignore_errors=True)
    barrier()
    return folder


def load_state(folder: Path) -> dict:
    """state.json of a training checkpoint; its tensors are for `distributed.read_into`.

    Raises ValueError that names the file where it is not as `save` wrote it.
    """
    state = read_json(folder / "state.json")
    try:
        for name in ("settings", "corpus", "loader"):
            if not isinstance(state[name], dict):
                raise ValueError(f"{name} must be an object, got {state[name]!r:.60}")
        whole_number("step", state["step"], step_of(folder), step_of(folder))
        real_number("seconds", state["seconds"], above=-1)
        for name in ("position", "seed", "num_blocks", "length"):
            whole_number(name, state["loader"][name], 0)
        state["corpus"]["hash"]
    except (KeyError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{folder / 'state.json'} is not that of a run: {reason}") from None
    return state
