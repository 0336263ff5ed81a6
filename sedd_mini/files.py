"""Files that are whole or not there: JSON, tensors, folders; locks; the newest checkpoint of a run.

Everything is written under a temporary name of its own and then renamed, so whoever reads finds the
old one or the new one. A lock is the operating system's, and dies with its process. Nothing is
unpickled.
"""

import contextlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from torch import Tensor

# ---- text and JSON -------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Writes a text file to a temporary name beside `path`, then renames it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content) -> None:
    """Writes JSON to a temporary file beside `path`, then renames it."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


def read_json(path: Path) -> dict:
    """The JSON object in a file; raises ValueError that names the file if it holds anything else.

    FileNotFoundError where there is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): was it cut off or edited?") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__} where an object is expected")
    return content


# ---- tensors -------------------------------------------------------------------------------------


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes a safetensors file; raises OSError that names it where there is no room."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written ({error}): free some space, or name another "
                      "place") from error  # fmt: skip
    path.chmod(0o644)  # save_file leaves it to its owner alone


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; FileNotFoundError or ValueError where it is not whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the folder is not whole")
    try:
        return load_file(path)
    except (SafetensorError, KeyError, OSError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): was a copy or a download cut off? Do it again"
        ) from error


# ---- folders -------------------------------------------------------------------------------------


class whole_folder:  # used like a function, so named like one
    """`with whole_folder(path) as new:` write into `new`; at the end it becomes `path` at once.

    `new` has a name that nobody else uses, or is `temporary` where several processes have to agree
    on one: then what lies there is deleted first.
    """

    def __init__(self, path: str | Path, temporary: Path | None = None):
        self.path, self.new = Path(path), temporary

    def __enter__(self) -> Path:
        if self.new is None:
            self.new = temporary_folder(self.path)
        else:
            shutil.rmtree(self.new, ignore_errors=True)
            self.new.mkdir(parents=True)
        return self.new

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None:
                for file in self.new.rglob("*"):
                    if file.is_file():
                        with file.open("r+b") as handle:  # Windows flushes only what is writable
                            os.fsync(handle.fileno())
                put(self.new, self.path)
        finally:
            shutil.rmtree(self.new, ignore_errors=True)


def put(new: Path, path: Path) -> None:
    """Renames the folder `new` to `path`; what was there is deleted, or stays if that fails."""
    while True:
        try:
            new.rename(path)
            return
        except OSError:
            if not path.is_dir():
                raise
        old = temporary_folder(path)
        try:
            path.rename(old / path.name)
        except FileNotFoundError:  # somebody else was replacing it at the same time
            old.rmdir()
            continue
        except OSError:
            old.rmdir()
            raise
        try:
            new.rename(path)
        except OSError:
            if not path.exists():
                (old / path.name).rename(path)
                raise
            continue  # somebody else's is there by now: the last one to come stays
        finally:
            shutil.rmtree(old, ignore_errors=True)
        return


def temporary_folder(path: Path) -> Path:
    """A new empty folder beside `path`, with a name that was free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    mask = os.umask(0)
    os.umask(mask)
    new.chmod(0o777 & ~mask)  # mkdtemp leaves it to its owner alone
    return new


def check_writable(folder: str | Path, size: int = 0) -> Path:
    """The folder as a Path, if `size` bytes can be written there; else raises what a write would.

    It need not exist; nothing is left behind. ValueError or OSError in one line.
    """
    folder = Path(folder).expanduser()
    try:
        str(folder).encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"the path {str(folder)!r} is not UTF-8: name another folder") from None
    if "\0" in str(folder):
        raise ValueError(f"the path {str(folder)!r} holds a NUL: name another folder")
    there = folder
    while not there.exists() and there.parent != there:
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{folder} cannot be a folder: {there} is a file; name another one")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        if folder != there:  # a name may be too long for the file system
            for name in folder.relative_to(there).parts:
                with contextlib.suppress(FileNotFoundError):
                    os.lstat(there / name)
    except OSError as error:
        raise OSError(f"{folder} cannot be written ({error.strerror}): name another one") from None
    free = shutil.disk_usage(there).free
    if free < size:
        raise OSError(
            f"{size / 1e9:.2f} GB are needed in {folder}, and {free / 1e9:.2f} GB are free there: "
            "make room, or name a folder on another disk"
        )
    return folder


# ---- locks ---------------------------------------------------------------------------------------

LOCK = ".lock"
held: dict[Path, "lock"] = {}  # the locks of this process, by folder


class lock:
    """`with lock(folder):` nobody else may work in it: as long as that is open, or until `release`.

    The folder is made if it is not there, and removed again if it is still empty at the end. Within
    one process a folder can be locked again. Raises ValueError where another process has it. A
    process that dies leaves no lock, only a file `.lock` that means nothing.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder).resolve()
        owner = held.get(self.folder)
        if owner and owner.stands():
            self.owner = owner
            owner.users += 1
            return
        self.made = [p for p in (self.folder, *self.folder.parents) if not p.exists()]
        self.owner, self.users, self.pid = self, 1, os.getpid()
        self.path = self.folder / LOCK
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            self.file = open(self.path, "a+", encoding="utf-8")
            try:
                lock_file(self.file)
            except OSError:
                self.file.seek(0)
                pid = self.file.read().strip() or "unknown"
                self.file.close()
                raise ValueError(
                    f"{folder} is in use by another process (pid {pid}): wait for it, stop it, or "
                    "name another folder"
                ) from None
            if self.stands():  # its last owner may have removed it since
                break
            self.file.close()
        held[self.folder] = self
        try:
            self.file.truncate(0)
            os.write(self.file.fileno(), str(os.getpid()).encode())
        except OSError as error:
            self.release()
            raise OSError(f"{folder} cannot be written ({error.strerror}): free some space, or "
                          "name another place") from None  # fmt: skip

    def stands(self) -> bool:
        """Whether the lock is of this process, not of one that forked into it, and the file is
        still the one in the folder, which somebody may have deleted."""
        with contextlib.suppress(OSError, ValueError):
            there = os.path.samestat(os.fstat(self.file.fileno()), os.stat(self.path))
            return there and self.pid == os.getpid()
        return False

    def release(self) -> None:
        owner = self.owner
        if owner.users == 0:
            return
        owner.users -= 1
        if owner.users == 0:
            if held.get(owner.folder) is owner:
                del held[owner.folder]
            if owner.stands():
                owner.path.unlink()
            owner.file.close()
            for folder in owner.made:
                with contextlib.suppress(OSError):  # it is not empty: it stays
                    folder.rmdir()

    def __enter__(self) -> "lock":
        return self

    def __exit__(self, *_) -> None:
        self.release()


def lock_file(file) -> None:
    """Lock an open file for this process alone; raises OSError where another one has it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- checkpoints of a run ------------------------------------------------------------------------


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints in a training folder: what is called step- and eight digits, all whole."""
    return [p for p in Path(out).glob("step-*") if is_checkpoint(p)]


def is_checkpoint(path: Path) -> bool:
    """Whether a path has the name of a checkpoint."""
    return bool(re.fullmatch(r"step-\d{8}", path.name))


def newest_checkpoint(out: Path) -> Path | None:
    """The checkpoint of the most steps in a training folder, if there is one."""
    return max(checkpoints(out), default=None)


def step_of(checkpoint: Path | None) -> int:
    """The number of steps in a checkpoint's name; −1 for none."""
    return -1 if checkpoint is None else int(checkpoint.name.removeprefix("step-"))
