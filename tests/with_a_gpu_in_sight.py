"""Run a script as on a machine with a GPU that nothing may touch.

    python tests/with_a_gpu_in_sight.py chapters/07_training.py

PyTorch then says that there is a GPU, and a build without CUDA raises wherever one is used. So a
network that "auto" sends there, beside tensors on the CPU, is found without one. Programs that the
script starts see the same. Where PyTorch has CUDA, the GPU is what it is: all must run, too.
"""

import builtins
import os
import runpy
import sys
import tempfile
from pathlib import Path

PREAMBLE = "import torch; torch.cuda.is_available = lambda: True; torch.cuda.device_count = int"


def main() -> None:
    script, sys.argv = Path(sys.argv[1]).resolve(), sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        Path(place, "sitecustomize.py").write_text(PREAMBLE)
        paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)
        exec(PREAMBLE)
        builtins.display = lambda *things, **how: print(*things)  # which a notebook has
        os.chdir(script.parent)
        runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
