"""A run's whole state: the averaged network, and beside it what the rest of the run needs.

A folder is written under a temporary name and then renamed: one that is there is whole.
"""

import contextlib
import json
import shutil
from pathlib import Path

from torch import Tensor

from sedd_mini.files import checkpoints, save_tensors, whole_folder, write_json
from sedd_mini.network.pretrained import write_network
from sedd_mini.training.distributed import any_of, barrier, is_sharded, rank, write_shards


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
    new = whole_folder(folder)
    with new if first else contextlib.nullcontext(new.new) as new:
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
    """state.json of a training checkpoint; its tensors are for `distributed.read_into`."""
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))
