"""Several processes that train one network: what they share, what they exchange, how they stop.

    torchrun --nproc_per_node=8 -m sedd_mini train --preset small

torchrun starts the processes. Each works on its own rows of every batch; averaging the gradients
makes the step that one process alone would make on the whole batch. "ddp" keeps the weights whole
on each process, "fsdp" keeps a share of them and fetches a block's weights when it is their turn.
Without torchrun everything here is the trivial case of one process.
"""

import contextlib
import os
import signal
import threading
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


def start(device: str) -> str:
    """Join the processes that torchrun started, if it did; the device of this process.

    Raises ValueError for "cuda" where PyTorch sees no GPU.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but PyTorch sees no GPU here: choose 'cpu' or 'auto'")
    if "LOCAL_RANK" in os.environ:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not dist.is_initialized():  # numbers on the CPU always go by gloo
            dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    return device


def stop() -> None:
    """Leave the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def mean(value: float) -> float:
    """The mean of one number of each process, the same on all of them."""
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return total.item() / world_size()


def any_of(flag: bool) -> bool:
    return mean(float(flag)) > 0


def same(value: int) -> bool:
    """Whether all processes came with one number; all of them get the same answer."""
    return not any_of(mean(value) != value)


def barrier() -> None:
    """Wait until every process is here."""
    mean(0.0)


# ---- the network -------------------------------------------------------------------------------


def shard(model: nn.Module, device: str) -> None:
    """Leave on each process its share of every weight: FSDP2, block by block."""
    from torch.distributed.fsdp import fully_shard

    mesh = dist.init_device_mesh(device, (world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def replicate(model: nn.Module, device: str) -> nn.Module:
    """The model, as a network whose backward pass averages the gradients over the processes."""
    ids = [torch.cuda.current_device()] if device == "cuda" else None
    return nn.parallel.DistributedDataParallel(
        model, device_ids=ids, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def exchange(network: nn.Module, last: bool):
    """A context for one part of a batch: gradients are exchanged in the last part alone."""
    if hasattr(network, "set_requires_gradient_sync"):  # FSDP2
        network.set_requires_gradient_sync(last)
    elif hasattr(network, "no_sync") and not last:  # DDP
        return network.no_sync()
    return contextlib.nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor put together (every process has to call this); any other as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this process holds of a sharded tensor; any other as it is."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


CUT_OFF = "were they cut off by a full disk or a copy? Delete the folder or bring it back whole"

# ---- checkpoints -------------------------------------------------------------------------------


def write_shards(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Each process writes what it holds into a safetensors file of its own; all call it."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    checkpoint.save(tensors, storage_writer=HuggingFaceStorageWriter(folder, save_distributed=True))


def read_into(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill the tensors, whole ones or shares, from the safetensors files in a folder.

    It does not matter how many processes wrote them. Raises ValueError where a name is missing or a
    shape differs.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    reader = HuggingFaceStorageReader(folder)
    try:
        there = reader.read_metadata().state_dict_metadata
    except Exception as error:  # what is cut off fails in many ways
        raise ValueError(f"the tensors in {folder} cannot be read ({error}): {CUT_OFF}") from error
    problems = [f"{k} is missing" for k in sorted(tensors.keys() - there.keys())]
    for k in sorted(tensors.keys() & there.keys()):
        if there[k].size != tensors[k].shape:
            problems.append(f"{k} is {tuple(there[k].size)}, not {tuple(tensors[k].shape)}")
    if problems:
        raise ValueError(f"{folder} does not fit the network: {'; '.join(problems)}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        try:
            checkpoint.load(tensors, storage_reader=reader, no_dist=world_size() == 1)
        except Exception as error:
            raise ValueError(f"the tensors in {folder} cannot be read: {CUT_OFF}") from error


# ---- the end -----------------------------------------------------------------------------------


class Signals:
    """SIGINT and SIGTERM, held back until `release()`; `arrived` says whether there was one.

    It is to be read between two steps. Outside the main thread, where Python allows no handlers,
    nothing is held back.
    """

    def __init__(self):
        self.arrived, self.patient, self.handlers = False, True, {}
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGINT, signal.SIGTERM):
                self.handlers[kind] = signal.signal(kind, self.take)

    def take(self, *_) -> None:
        if self.arrived and not self.patient:
            raise KeyboardInterrupt
        self.arrived = True

    @contextlib.contextmanager
    def breakable(self):
        """For long work between two steps: here a second signal raises KeyboardInterrupt at once.

        Not where there are several processes, which have to stop at the same place: torchrun kills
        those that have not done so half a minute after the first signal.
        """
        self.patient = world_size() > 1
        try:
            yield
        finally:
            self.patient = True

    def release(self) -> None:
        for kind, handler in self.handlers.items():
            signal.signal(kind, handler)
