"""Files are whole or not there, whoever writes at the same time and whoever dies."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sedd_mini import files
from sedd_mini.files import check_writable, lock, read_json, whole_folder, write_json

HOLD = """
import sys, time
from sedd_mini.files import lock
held = lock(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""
SAVE = """
import sys
from pathlib import Path
from sedd_mini.files import whole_folder
for n in range(20):
    with whole_folder(sys.argv[1]) as new:
        for name in "abc":
            (new / name).write_text(f"{sys.argv[2]} {n}")
"""


def python(script: str, *arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True,
        **options,
    )  # fmt: skip


def contents(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.iterdir()}


# ---- locks ---------------------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_until_its_process_dies(tmp_path):
    run = tmp_path / "run"
    with python(HOLD, run) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match=rf"in use by another process \(pid {other.pid}\)"):
            lock(run)
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert (run / ".lock").exists()  # it means nothing any more
    with lock(run):
        with lock(run):  # the same process may
            assert (run / ".lock").read_text() == str(os.getpid())
        assert (run / ".lock").exists()
    assert list(run.iterdir()) == []


def test_a_lock_keeps_what_was_there_and_leaves_no_empty_folders(tmp_path):
    with pytest.raises(RuntimeError), lock(tmp_path / "a" / "b"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with lock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").write_text("")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["kept"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_forked_process_does_not_have_its_parents_lock(tmp_path):
    with lock(tmp_path):
        child = os.fork()
        if child == 0:
            try:
                lock(tmp_path)
            except ValueError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_lock_whose_file_was_just_removed_is_taken_again(tmp_path, monkeypatch):
    """The last owner removed it after we had opened it: a lock on that file would be no lock."""
    real, calls = files.lock_file, []

    def slow(file):
        real(file)
        calls.append(1)
        if len(calls) == 1:
            (tmp_path / ".lock").unlink()

    monkeypatch.setattr(files, "lock_file", slow)
    with lock(tmp_path), python(HOLD, tmp_path, stderr=subprocess.PIPE) as other:
        assert "in use by another process" in other.communicate()[1]
    assert len(calls) == 2


def test_a_lock_that_cannot_be_written_is_no_lock(tmp_path, monkeypatch):
    """A full disk: the folder is free again, in this process too, and nothing is left."""
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "write", full)
        with pytest.raises(OSError, match="run cannot be written"):
            lock(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
    with lock(tmp_path / "run"):
        pass


def test_a_folder_that_was_deleted_under_its_lock_is_locked_anew(tmp_path):
    run = tmp_path / "run"
    old = lock(run)
    shutil.rmtree(run)
    with lock(run):
        assert (run / ".lock").exists()
        old.release()
        assert (run / ".lock").exists()
    assert list(tmp_path.iterdir()) == []


# ---- folders -------------------------------------------------------------------------------------


def test_two_processes_that_write_one_folder_never_mix(tmp_path):
    target, seen = tmp_path / "net", 0
    with python(SAVE, target, "one") as one, python(SAVE, target, "two") as two:
        while one.poll() is None or two.poll() is None:
            try:
                found = contents(target)
            except FileNotFoundError:  # replaced between two looks
                continue
            seen += len(found) == 1
            time.sleep(0.001)
    assert one.returncode == two.returncode == 0
    assert len(contents(target)) == 1
    assert len(list(target.iterdir())) == 3
    assert seen > 5
    assert list(tmp_path.iterdir()) == [target]  # nothing is left behind


def test_a_users_folder_of_a_similar_name_stays(tmp_path):
    for name in ("net.tmp", "net.old.tmp", ".net.tmp"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("precious")
    for n in "12":
        with whole_folder(tmp_path / "net") as new:
            (new / "a").write_text(n)
    assert len(list(tmp_path.rglob("mine"))) == 3
    assert len(list(tmp_path.iterdir())) == 4


def test_what_fails_leaves_the_old_one(tmp_path):
    for n in "12":
        try:
            with whole_folder(tmp_path / "net") as new:
                (new / "a").write_text(n)
                if n == "2":
                    raise OSError("no space left on device")
        except OSError:
            pass
    assert (tmp_path / "net" / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "net"]


FULL = """
import resource, signal, sys, torch
from sedd_mini.files import save_tensors, whole_folder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from pathlib import Path
try:
    with whole_folder(sys.argv[1]) as new:
        save_tensors(new / "model.safetensors", {"a": torch.zeros(100_000)})
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits of POSIX")
def test_a_full_disk_is_an_error_of_the_file_and_leaves_the_old_one(tmp_path):
    with whole_folder(tmp_path / "net") as new:
        files.save_tensors(new / "model.safetensors", {"a": torch.ones(3)})
    with python(FULL, tmp_path / "net") as full:
        out = full.communicate()[0]
    assert out.startswith("refused: ")
    assert "model.safetensors could not be written" in out
    assert files.load_tensors(tmp_path / "net" / "model.safetensors")["a"].tolist() == [1, 1, 1]
    assert list(tmp_path.iterdir()) == [tmp_path / "net"]


def test_a_json_file_is_whole(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert read_json(tmp_path / "a.json") == {"old": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", '{"a": 1', b"\xff\xfe{", "[" * 9999])
def test_json_that_is_broken_names_its_file(tmp_path, text):
    path = tmp_path / "some.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=r"some\.json") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


# ---- before a run --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\0b", "a\udcff", "x" * 300, "file/below", "file"])
def test_a_folder_that_cannot_be_is_refused_before_the_run(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises((ValueError, OSError)) as caught:
        check_writable(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place nobody can write to")
def test_a_place_that_cannot_be_written_is_refused():
    with pytest.raises(OSError, match="cannot be written"):
        check_writable("/proc/self/net/run")


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    assert check_writable(tmp_path / "run", 1000) == tmp_path / "run"
    with pytest.raises(OSError, match=r"1000000000\.00 GB are needed in .*, and .* GB are free"):
        check_writable(tmp_path / "run", 10**18)
    assert list(tmp_path.iterdir()) == []
