"""What the machine at hand can do, for tests that need more than Python."""

import shutil
import sysconfig
from pathlib import Path

import pytest
import torch

HEADER = Path(sysconfig.get_path("include"), "Python.h")
NO_COMPILER = not HEADER.exists() or not any(map(shutil.which, ("c++", "g++", "clang++")))

compiles = pytest.mark.skipif(
    NO_COMPILER or " " in torch.__file__,  # PyTorch's compiler does not quote a path with a space
    reason="needs a C++ compiler and Python's headers, and a path without a space",
)
