"""`make results`: what is there is not made again, and whatever ends it leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from second_edition import load

from sedd_mini.files import write_json

SCRIPT = Path(__file__).parent / "benchmarks" / "results.py"


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The script, with another folder of results, and commands that are lines of Python."""
    module = load(SCRIPT)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "as_process", lambda command: [sys.executable, "-c", *command])
    return module


def test_what_is_there_is_not_made_again(results, tmp_path):
    first = results.stages()[0]
    assert first[0] == [("page.py",), ("predecessors.py",)]
    assert [command[-1] for command in first[1]] == [*results.PARTS, "claims.py"]
    (tmp_path / "00_page.json").write_text("{}")
    write_json(tmp_path / "03_page.json", {"spiral": {}, "one_place": {}})
    first = results.stages()[0]
    assert first[0] == [("predecessors.py",)]
    assert [command[-1] for command in first[1]] == ["page", "one_block", "claims.py"]
    (tmp_path / "03_page.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        results.stages()


def test_the_commands_are_scripts_or_modules_of_ours():
    module = load(SCRIPT)
    assert module.as_process(("page.py",)) == [sys.executable, str(SCRIPT.with_name("page.py"))]
    assert module.as_process(("-m", "x")) == [sys.executable, "-m", "x"]
    last = module.stages()[-1]
    assert last == [[("-m", "sedd_mini.evaluation.ledger")]]


def write(name: str) -> tuple[str]:
    return (f"open({name!r}, 'x').close()",)


# Tells its process id, and then takes longer than any test.
SLOW = """import os, time
open("begun.part", "w").write(str(os.getpid()))
os.rename("begun.part", "begun")
time.sleep(300)"""
WAIT = "import os, time\nwhile not os.path.exists({!r}): time.sleep(0.01)\n"


def ended(process_id: Path) -> bool:
    try:
        os.kill(int(process_id.read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_lanes_run_side_by_side_and_a_lane_in_order(results, tmp_path):
    first = WAIT.format("beside") + write("first")[0]
    second = "import os; assert os.path.exists('first');" + write("second")[0]
    results.run([[(first,), (second,)], [write("beside")]])
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second", "beside"}


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_command_that_fails_ends_all(results, tmp_path):
    fails = WAIT.format("begun") + "raise SystemExit(3)"
    with pytest.raises(SystemExit, match=r"SystemExit\(3\) ended with 3; mend what"):
        results.run([[(fails,), write("next")], [(SLOW,)]])
    assert ended(tmp_path / "begun")
    assert not (tmp_path / "next").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_takes_the_commands_with_it(tmp_path, by):
    code = f"""
import signal, sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parent)!r})
import results
results.ROOT, results.as_process = Path({str(tmp_path)!r}), lambda c: [sys.executable, "-c", *c]
signal.signal(signal.SIGTERM, results.interrupt)
results.run([[({SLOW!r},)]])
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    for _ in range(1200):
        if (tmp_path / "begun").exists():
            break
        time.sleep(0.05)
    process.send_signal(by)
    assert process.wait(timeout=20) != 0
    assert ended(tmp_path / "begun")
