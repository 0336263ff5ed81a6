"""Chapters on a machine with a GPU: whatever trains or is loaded there says on which device.

Their own tensors are on the CPU, and "auto" would put a network beside them on the GPU. (To see a
chapter run so without a GPU: tests/with_a_gpu_in_sight.py.)
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHAPTERS = Path(__file__).parents[1] / "chapters"
MADE_BY = {"preset", "Settings"}  # what a Trainer is given


def name_of(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def says_device(node, names: dict[str, list]) -> bool:
    """Whether an expression, or every value that its name is given in the file, names a device."""
    if isinstance(node, ast.Name):
        values = names.get(node.id, [])
        return bool(values) and all(says_device(value, names) for value in values)
    if isinstance(node, ast.Dict):
        keys = [getattr(key, "value", None) for key in node.keys]
        return "device" in keys
    if isinstance(node, ast.BinOp):
        return says_device(node.left, names) or says_device(node.right, names)
    if isinstance(node, ast.Call):
        given = {k.arg for k in node.keywords}
        spread = [k.value for k in node.keywords if k.arg is None]
        placed = name_of(node) == "load" and len(node.args) > 1  # load(name, device)
        return placed or "device" in given or any(says_device(value, names) for value in spread)
    return False


def without_device(code: str) -> list[int]:
    """Lines at which a Trainer is made, or a model loaded, for whatever device there is."""
    tree, names = ast.parse(code), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    names.setdefault(target.id, []).append(node.value)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if name_of(node) == "Trainer" and not says_device(node.args[0], names):
            found.append(node.lineno)
        text_model = getattr(node.func, "id", "") == "load" or "sedd_mini.load" in ast.unparse(node)
        if text_model and not says_device(node, names):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("chapter", sorted(CHAPTERS.glob("[0-9]*.py")), ids=lambda path: path.stem)
def test_chapters_say_where_they_train(chapter):
    assert without_device(chapter.read_text(encoding="utf-8")) == []


def test_that_test():
    assert without_device('Trainer(preset("docs"))') == [1]
    assert without_device('s = preset("docs", lr=1)\nTrainer(s, corpus)') == [2]
    assert without_device('s = preset("docs", device="cpu")\nTrainer(s, corpus)') == []
    assert without_device('d = {"device": "cpu"}\nTrainer(preset("docs", **d | {"lr": 1}))') == []
    assert without_device('load("checkpoints/docs-absorb").write()') == [1]


@pytest.mark.parametrize(("device", "ends"), [("auto", 1), ("cpu", 0)])
def test_a_gpu_in_sight_that_nothing_may_touch(tmp_path, device, ends):
    """The helper finds what "auto" would do, in the script itself and in what that starts."""
    code = f"""
import subprocess, sys, torch
from sedd_mini.training.distributed import start
again = "import torch; assert torch.cuda.is_available()"
assert subprocess.run([sys.executable, "-c", again]).returncode == 0
torch.zeros(1, device=start({device!r}))
"""
    (tmp_path / "script.py").write_text(code)
    helper = Path(__file__).with_name("with_a_gpu_in_sight.py")
    root = str(CHAPTERS.parent)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": root}
    command = [sys.executable, str(helper), str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == ends, done.stderr
