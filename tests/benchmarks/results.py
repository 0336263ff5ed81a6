"""Everything in chapters/results that is missing, and then the ledger: what `make results` runs.

    python tests/benchmarks/results.py            # four hours on two cores, if all is
    python tests/benchmarks/results.py --list     # what it would run

Ctrl-C at any time: the same command goes on from there, and at most 15 minutes of work are lost. To
make a result again, delete its file in chapters/results; for new trainings delete runs/rivals, too.
The commands of a stage run side by side, two at most; seconds are measured with nothing beside.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from sedd_mini.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "chapters" / "results"
PARTS = ("spiral", "page", "one_block", "one_place")  # of page_losses.py, that share a file

Command = tuple[str, ...]


def missing(file: str, unit: str | None = None) -> bool:
    path = RESULTS / file
    return not path.exists() or (unit is not None and unit not in read_json(path))


def stages() -> list[list[list[Command]]]:
    """Stages one after the other; each has lanes side by side; a lane is a list of commands.

    Scripts that would write their file again are named only if it is missing. The others know
    themselves what is missing, and two of one kind share its units.
    """
    page = [("page.py",)] if missing("00_page.json") else []
    longer = [("predecessors.py",)] if missing("02_longer.json") else []
    out = str(RESULTS / "beyond" / "cache.json")
    cache = [("block_cache.py", "--gpt2", "--out", out)] if missing("beyond/cache.json") else []
    parts = [("page_losses.py", "--only", part) for part in PARTS if missing("03_page.json", part)]
    return [
        [page + longer, [*parts, ("claims.py",)]],
        *([[("rivals.py", "--data", data)]] * 2 for data in ("synthetic", "docs")),
        *([[("frontier.py", "--data", data)]] * 2 for data in ("synthetic", "docs")),
        [[("frontier.py", "gumbel")]],
        [[("frontier.py", "seconds")]],
        [[("beyond_training.py",)]] * 2,
        [[("beyond_claims.py",)]],
        [cache],
        [[("-m", "sedd_mini.evaluation.ledger")]],
    ]


def as_process(command: Command) -> list[str]:
    script = [] if command[0] == "-m" else [str(ROOT / "tests" / "benchmarks" / command[0])]
    return [sys.executable, *script, *(command[1:] if script else command)]


def run(lanes: list[list[Command]]) -> None:
    """Runs the lanes side by side; SystemExit if a command fails. None is left running."""
    lanes, running = [list(lane) for lane in lanes], {}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        while any(lanes) or running:
            for i, lane in enumerate(lanes):
                if i not in running and lane:
                    command = lane.pop(0)
                    print("$", *command, flush=True)
                    # its own session: Ctrl-C comes here, and is passed on below
                    running[i] = command, subprocess.Popen(
                        as_process(command), cwd=ROOT, env=environment, start_new_session=True
                    )
            time.sleep(0.2)
            for i, (command, process) in list(running.items()):
                if process.poll() is not None:
                    del running[i]
                    if process.returncode:
                        sys.exit(f"results: {' '.join(command)} ended with {process.returncode}; "
                                 "mend what it says above, and start this again")  # fmt: skip
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="run nothing")
    args, start = parser.parse_args(), time.perf_counter()
    for i in range(len(stages())):
        lanes = stages()[i]  # an earlier stage may have taken hours: look again
        if args.list:
            print(*(" ".join(command) for lane in lanes for command in lane), sep="\n")
        else:
            run(lanes)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes")


def interrupt(*_) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)  # so that it takes its commands with it
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted: make results goes on from here")
    except (OSError, ValueError) as error:
        sys.exit(f"results: {error}")
