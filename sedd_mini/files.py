"""Files that are whole or not there: JSON, tensors, folders; and the newest checkpoint of a run.

Everything is written under a temporary name and then renamed. Nothing is unpickled.
"""

import json
import os
import re
import shutil
from pathlib import Path

from torch import Tensor


def write_json(path: Path, content) -> None:
    """Writes JSON to a temporary file beside `path`, then renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, path)


class whole_folder:  # used like a function, so named like one
    """`with whole_folder(path) as new:` write into `new`; at the end it becomes `path` at once."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.new = self.path.with_name(self.path.name + ".tmp")

    def __enter__(self) -> Path:
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir(parents=True)
        return self.new

    def __exit__(self, kind, error, trace) -> None:
        if kind is not None:
            shutil.rmtree(self.new, ignore_errors=True)
            return
        for file in self.new.rglob("*"):
            if file.is_file():
                with file.open("r+b") as handle:  # Windows flushes only what may be written
                    os.fsync(handle.fileno())
        if self.path.exists():
            old = self.path.with_name(self.path.name + ".old.tmp")
            shutil.rmtree(old, ignore_errors=True)
            self.path.rename(old)
            try:
                self.new.rename(self.path)
            except OSError:
                old.rename(self.path)
                raise
            shutil.rmtree(old)
        else:
            self.new.rename(self.path)


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    path.chmod(0o644)  # save_file leaves it to its owner alone


def load_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the folder is not whole")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): was a copy or a download cut off? Do it again"
        ) from error


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints in a training folder: what is called step- and eight digits, all whole."""
    return [p for p in Path(out).glob("step-*") if re.fullmatch(r"step-\d{8}", p.name)]


def newest_checkpoint(out: Path) -> Path | None:
    """The checkpoint of the most steps in a training folder, if there is one."""
    return max(checkpoints(out), default=None)


def step_of(checkpoint: Path | None) -> int:
    """The number of steps in a checkpoint's name; −1 for none."""
    return -1 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))
