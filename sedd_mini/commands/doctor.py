"""What is installed here, and what runs on this machine: chapters, presets, the compiler, the hub.

It imports nothing heavy before it has looked whether that is there, and ends with exit code 1 only
where a chapter cannot run.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
import threading
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"
SHIPPED = ("digits-labels", "docs-absorb", "docs-uniform", "synthetic-absorb", "synthetic-block4",
           "synthetic-gpt2", "synthetic-uniform")  # fmt: skip
TOKENS = {"synthetic": 40, "docs": 1024}  # of the presets; the others have GPT-2's
PATIENCE = 3  # seconds for the hub's answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has no options."""


def run(options: argparse.Namespace) -> None:
    asked = None if offline() else Question()
    print(*packages(), sep="\n")
    if importlib.util.find_spec("torch"):
        print(*machine(), sep="\n")
    print(*hub(asked), sep="\n")
    lines, able = chapters()
    print(*lines, sep="\n")
    if importlib.util.find_spec("torch"):
        print(*presets(), sep="\n")
    if not able:
        sys.exit(1)


# ---- what is installed ---------------------------------------------------------------------------


def requirements() -> dict[str, list[str]]:
    """Group of pyproject.toml → its requirements; "core" for those that all need."""
    if (ROOT / "pyproject.toml").exists():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        groups = {"core": project["dependencies"], **project["optional-dependencies"]}
        return {name: lines for name, lines in groups.items() if name != "all"}
    groups = {}
    for line in importlib.metadata.requires("sedd-mini") or ():
        requirement, _, marker = line.partition(";")
        group = re.search(r"extra == ['\"](\w+)", marker)
        groups.setdefault(group[1] if group else "core", []).append(requirement.strip())
    return {name: lines for name, lines in groups.items() if name != "all"}


def found(requirement: str) -> tuple[str, str | None, bool]:
    """(name, installed version or None, whether that is what is required)."""
    name = re.match(r"[\w.-]+", requirement)[0]
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return name, None, False
    try:
        from packaging.requirements import Requirement
    except ImportError:  # it comes with others, and is no more than a convenience
        return name, version, True
    return name, version, Requirement(requirement).specifier.contains(version, prereleases=True)


def packages() -> list[str]:
    fits = (3, 11, 5) <= sys.version_info[:3] < (3, 14)
    lines = [f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
             + (": fits" if fits else ": needed is 3.11.5 up to 3.13")]  # fmt: skip
    for group, wanted in requirements().items():
        states = [(*found(line), line) for line in wanted]
        missing = [name for name, version, _, _ in states if version is None]
        other = [f"{name} {version} (needed: {line})" for name, version, fits, line in states
                 if version is not None and not fits]  # fmt: skip
        there = ", ".join(f"{name} {version}" for name, version, fits, _ in states if fits)
        said = there if group == "core" else f"{sum(fits for *_, fits, _ in states)} packages fit"
        lines.append(f"{group}: {said}" + "".join(
            f"; {what}: {', '.join(names)}"
            for what, names in (("MISSING", missing), ("OTHER VERSION", other)) if names
        ))  # fmt: skip
        if missing or other:
            lines.append('  get them: python -m pip install -c requirements.lock -e ".[all]"')
    return lines


# ---- the machine ---------------------------------------------------------------------------------


def machine() -> list[str]:
    import torch

    from sedd_mini.network.hardware import choose_precision
    from sedd_mini.training.planner import existing, in_bytes, machine_memory

    lines = [f"processor: {os.cpu_count()} cores, PyTorch uses {torch.get_num_threads()} threads"]
    gpus = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(i)
        gpus.append(f"{torch.cuda.get_device_name(i)}, {in_bytes(free)} of {in_bytes(total)} free")
    if torch.backends.mps.is_available():
        gpus.append("Apple's GPU (MPS), for writing text; training runs on the processor")
    lines.append(f"GPU: {'; '.join(gpus) or 'none that PyTorch sees'}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = str(choose_precision("auto", device)).removeprefix("torch.")
    lines.append(f"precision: float32 and bfloat16 work; fast in training on {device}: {chosen}")
    total = machine_memory("cpu")
    memory = f"{in_bytes(total)}, {in_bytes(available())} available" if total else "unknown"
    place = existing(Path("runs"))
    lines.append(f"memory: {memory}; disk: {in_bytes(shutil.disk_usage(place).free)} free here")
    names = [os.environ.get("CXX", ""), "g++", "clang++", "cl"]
    compiler = next((path for name in names if name and (path := shutil.which(name))), None)
    lines.append(f"compiler: {compiler or 'no C++ compiler: --compile does not work on the CPU'}")
    return lines


def available() -> float:
    """Bytes of memory that could be had now, by Linux; elsewhere what the machine has."""
    from sedd_mini.training.planner import machine_memory

    total = machine_memory("cpu") or 0
    try:
        line = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
        return min(total, int(line[1]) * 1024) if line else total
    except OSError:
        return total


# ---- the hub -------------------------------------------------------------------------------------


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


class Question(threading.Thread):
    """Whether the hub answers, asked while other things are looked at."""

    def __init__(self):
        super().__init__(daemon=True)
        self.answered, self.asked = False, time.monotonic()
        self.start()

    def run(self) -> None:
        address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        try:
            urllib.request.urlopen(address, timeout=PATIENCE).close()
        except urllib.error.HTTPError:  # an answer, too
            pass
        except (OSError, ValueError):
            return
        self.answered = True

    def wait(self) -> bool:
        self.join(max(0, PATIENCE - (time.monotonic() - self.asked)))
        return self.answered


def hub(asked: Question | None) -> list[str]:
    """Whether the hub answers, and what of it is here."""
    state = "not asked (HF_HUB_OFFLINE is set)" if asked is None else (
        "reachable" if asked.wait() else f"no answer within {PATIENCE} seconds"
    )  # fmt: skip
    here = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in cached().items())
    return [f"hub: {state}; kept here: {here}"]


def cached() -> dict[str, bool]:
    """What the library may want from the hub, and whether it needs no network any more."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return {}

    def has(repo: str, *names: str) -> bool:
        return all(isinstance(try_to_load_from_cache(repo, name), str) for name in names)

    texts = Path(HF_HUB_CACHE, "datasets--Skylion007--openwebtext", "snapshots")
    return {
        "GPT-2's tokens": has("gpt2", "tokenizer.json"),
        "louaaron/sedd-small": has("louaaron/sedd-small", "config.json", "model.safetensors"),
        "openwebtext": texts.exists(),
        "its shards": Path("runs/openwebtext/shards.json").exists(),
    }


# ---- what that means -----------------------------------------------------------------------------


def chapters() -> tuple[list[str], bool]:
    """A line a chapter, and whether all of them can run.

    What a chapter needs is read in its source: packages, checkpoints, memory, and how long it runs.
    """
    files = sorted(CHAPTERS.glob("[0-9][0-9]_*.py"))
    if not files:
        return ["chapters: none here, as the library was installed without them"], True
    lines, able = ["chapters:"], True
    states = [found(line) for line in requirements()["core"]]
    core = [name for name, version, _ in states if version is None]
    for file in files:
        source = file.read_text(encoding="utf-8")
        title = re.search(r"^# # \d+\. ([^:?\n]+)", source, re.M)
        name = f"{file.stem[:2]} {title[1] if title else file.stem}"
        lacking = core + [p for p in imports(source) if not importlib.util.find_spec(p)]
        lacking += [] if importlib.util.find_spec("ipykernel") else ["ipykernel"]
        used = [CHAPTERS / "checkpoints" / network for network in SHIPPED if network in source]
        lacking += [f"chapters/checkpoints/{path.name}" for path in used if not whole(path)]
        words = re.sub(r"[*#\s]+", " ", source[:6000])
        need = re.search(r"(\d+) GB of free memory", words)
        if need and importlib.util.find_spec("torch") and available() < float(need[1]) * 1e9:
            lacking.append(f"{need[1]} GB of free memory")
        minutes = re.search(r"[Rr]unning time: (.+?) on two CPU", words)
        state = f"CANNOT RUN: it lacks {', '.join(dict.fromkeys(lacking))}" if lacking else (
            f"runs, {minutes[1] if minutes else 'some minutes'}"
        )  # fmt: skip
        lines.append(f"  {name:<34} {state}")
        able = able and not lacking
    return lines, able


def imports(source: str) -> set[str]:
    """The packages that a chapter imports, by the first part of their names; drawing needs one."""
    names = re.findall(r"^ *(?:import|from) (\w+)", source, re.M)
    if re.search(r"^ *from sedd_mini import .*\bplots\b", source, re.M):
        names.append("matplotlib")
    return set(names) - {file.stem for file in CHAPTERS.glob("*.py")}


def whole(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("config.json", "model.safetensors"))


def presets() -> list[str]:
    """A line a preset: whether memory and disk suffice, and in how many parts a step."""
    import torch

    from sedd_mini.network.hardware import choose_precision
    from sedd_mini.training import planner
    from sedd_mini.training.report import peak_flops
    from sedd_mini.training.settings import PRESETS, preset

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = choose_precision("auto", device)
    room = 0.9 * (planner.machine_memory(device) or 8e9)
    speed = 0.5 * peak_flops(device, dtype, 1024 if device == "cpu" else None)  # half is reached
    free, lines = shutil.disk_usage(planner.existing(Path("runs"))).free, [f"presets on {device}:"]
    for name in PRESETS:
        s = preset(name)
        c = s.network(TOKENS.get(name, 50_257))
        days = planner.training_flops(c, s.length) * s.batch_size * s.steps / speed / 86_400
        wait = f"about {days * 24:.1f} hours" if days < 2 else f"about {days:,.0f} days"
        wait = "and years: it wants GPUs" if days > 365 else wait
        about = {"precision": str(dtype).removeprefix("torch."), "device": device}
        try:
            k = planner.smallest_accumulate(c, s.length, s.batch_size, room, **about)
        except ValueError:
            lines.append(f"  {name:<10} not in this memory, not even one sequence at a time")
            continue
        need = planner.memory(c, s.length, s.batch_size // k, accumulate=k, **about)
        size = 2 * planner.checkpoint_bytes(c)
        lines.append(
            f"  {name:<10} --accumulate {k}: {planner.in_bytes(sum(need.values()))} of memory, "
            f"{planner.in_bytes(size)} of disk{' (NOT FREE)' * (size > free)}, {wait}"
        )
    return lines


def main(arguments: list[str] | None = None) -> None:
    from sedd_mini.__main__ import main

    main(["doctor", *(sys.argv[1:] if arguments is None else arguments)])
