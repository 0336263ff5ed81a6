"""Chapter 06 with other seeds: what each piece of its network is worth. results/06_pieces.json.

    python tests/benchmarks/pieces.py

Runs the chapter's own cells that carry the tag `pieces`, then trains. About two minutes of one
core.
"""

import importlib.util
import json
from pathlib import Path

import torch

from sedd_mini.files import write_text

CHAPTERS = Path(__file__).parents[2] / "chapters"
SOURCE = CHAPTERS / "06_the_diffusion_transformer.py"


def cells_tagged(tag: str) -> str:
    """The code of the chapter's cells that have this tag, in order."""
    spec = importlib.util.spec_from_file_location("build", CHAPTERS / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    cells = build.read_source(SOURCE).cells
    return "\n".join(c.source for c in cells if tag in c.metadata.get("tags", []))


def main() -> None:
    torch.set_num_threads(1)
    chapter: dict = {}
    imports = "import math, torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
    exec(imports + cells_tagged("pieces"), chapter)
    runs = []

    def run(name: str, seed: int, steps: int = 300, label: str = "") -> None:
        net = chapter["build"](seed, **chapter["variants"][name])
        words, price = chapter["two_parts"](chapter["train"](net, steps, seed))
        runs.append({"network": label or name, "steps": steps, "seed": seed})
        runs[-1] |= {"cross-entropy": round(words, 3), "price": round(price, 3)}
        print(runs[-1], flush=True)

    for seed in (1, 2):  # the chapter itself shows seed 0
        for name in chapter["variants"]:
            run(name, seed)
    run("no scale by σ", 0, steps=1500)
    of_sigma = chapter["features"]
    chapter["features"] = lambda sigma: of_sigma(sigma.log())
    run("no scale by σ", 0, label="no scale by σ, features of log σ̄")
    facts = {
        "command": "python tests/benchmarks/pieces.py",
        "what": "nats a sentence: cross-entropy above the truth, and the price of Z ≠ 1",
        "runs": runs,
    }
    path = CHAPTERS / "results" / "06_pieces.json"
    write_text(path, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
