"""How near to the truth the page of chapter 00 comes, for three seeds: results/00_page.json.

    python tests/benchmarks/page.py

Runs the lines of chapters/page.py, with another seed in their first, and bounds its test texts with
eight draws of the noise instead of one. About three minutes.
"""

import json
import math
import time
from pathlib import Path

import torch

from sedd_mini.files import write_text

CHAPTERS = Path(__file__).parents[2] / "chapters"
DRAWS = 8


def run(seed: int) -> dict:
    page: dict = {}
    start = time.perf_counter()
    source = (CHAPTERS / "page.py").read_text()
    exec(source.replace("torch.manual_seed(0)", f"torch.manual_seed({seed})"), page)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        draws = [page["loss_of"](page["test"]).item() / math.log(2) for _ in range(DRAWS)]
    bits = torch.tensor(draws, dtype=torch.float64)
    print(f"seed {seed}: {seconds:.0f} s")
    return {
        "seed": seed, "bits": round(bits.mean().item(), 4), "truth": round(page["truth"], 4),
        "error": round(bits.std().item() / math.sqrt(DRAWS), 4),
    }  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    facts = {
        "command": "python tests/benchmarks/page.py",
        "what": "bits a word: the bound of 4096 texts, its error bar, and the exact value",
        "runs": [run(seed) for seed in range(3)],
    }
    write_text(CHAPTERS / "results" / "00_page.json", json.dumps(facts, indent=2) + "\n")
