"""The command line: a mistake is one line and an exit code, help is one screen, nothing is left."""

import argparse
import errno
import importlib.metadata
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nan

from sedd_mini.__main__ import COMMANDS, main, parse
from sedd_mini.commands import doctor, evaluate, options, train
from sedd_mini.files import load_tensors, save_tensors
from sedd_mini.training import planner
from sedd_mini.training.settings import preset

ROOT = Path(__file__).parents[1]
NET = ROOT / "chapters/checkpoints/synthetic-absorb"
DOCS = ROOT / "chapters/checkpoints/docs-absorb"
TINY = ("--tokenizer chars --length 16 --width 16 --num-blocks 1 --num-heads 2 --cond-dim 8 "
        "--batch-size 4 --valid-blocks 4 --valid-repeats 2 --steps 2 --sample-every 0 "
        "--device cpu")  # fmt: skip

# command line → what its error says; {net} and {docs} are shipped networks. Exit code 2 if that
# starts with "2".
BAD = [
    # the front door
    ("foo", "2 no command 'foo'"),
    ("tra", "2 no command 'tra'"),
    # train: the command line
    ("train --stepps 3", "2 unrecognized arguments: --stepps 3"),
    ("train --step 3", "2 unrecognized arguments: --step 3"),
    ("train extra", "2 unrecognized arguments: extra"),
    ("train --steps", "2 --steps: expected one argument"),
    ("train --steps 0", "steps"),
    ("train --steps -3", "steps"),
    ("train --steps 1e3", "2 --steps: expected a whole number"),
    ("train --steps 1e400", "2 --steps: expected a whole number"),
    ("train --steps ١٢", "2 --steps: expected a whole number"),
    ("train --steps 9223372036854775808", "2 --steps: expected a whole number"),
    ("train --steps " + "9" * 5000, "2 --steps: expected a whole number"),
    ("train --lr nan", "2 --lr: expected a number"),
    ("train --lr inf", "2 --lr: expected a number"),
    ("train --lr 1e400", "2 --lr: expected a number"),
    ("train --lr ''", "2 --lr: expected a number"),
    ("train --lr two", "2 --lr: expected a number"),
    ("train --batch-size 0", "batch"),
    ("train --accumulate 5", "accumulate"),
    ("train --clip 0", "clip"),
    ("train --ema 1", "ema"),
    ("train --seed -1", "seed"),
    ("train --dropout 1.5 --data text.txt " + TINY, "dropout"),
    ("train --valid-repeats 1", "valid"),
    ("train --graph cube", "graph"),
    ("train --decay linear", "decay"),
    ("train --precision float16", "precision"),
    ("train --device foo", "device"),
    ("train --parallel tp", "parallel"),
    ("train --preset huge", "2 --preset: invalid choice: 'huge'"),
    ("train --compile maybe", "2 --compile: expected 1, true, yes, 0, false or no, got 'maybe'"),
    ("train --change width", "2 --change: no run can go on with another 'width'"),
    ("train --change lr,", "2 --change: no run can go on with another ''"),
    ("train --data ''", "2 --data: expected a name, got ''"),
    ("train --out ''", "2 --out: expected a name, got ''"),
    ("train --out ~nosuchuser/run", "2 --out: there is no home of that user"),
    ("train --out " + "n" * 300, "2 --out: a name is longer than 255 bytes"),
    ("train --data a\udcffb", "2 is not UTF-8 text"),
    # train: what is found while running
    ("train --change lr --out fresh", "--change is for a run that goes on, and fresh holds no"),
    ("train --data none.txt", "none.txt"),
    ("train --data empty.txt", "empty.txt"),
    ("train --data latin1.txt", "latin1.txt"),
    ("train --data shards", "shards"),
    ("train --data text.txt --tokenizer none", "'none'"),
    ("train --data text.txt --tokenizer broken", "broken"),
    ("train --data text.txt --out text.txt/run", "text.txt is a file"),
    ("train --data text.txt --out text.txt", "text.txt is a file"),
    ("train --data text.txt --export shards", "or none"),
    ("train --data text.txt --out a/b --export a", "would replace the run"),
    ("train --data text.txt --num-heads 5", "num_heads"),
    ("train --data text.txt --vocab-size 100", "257"),
    (f"train --data text.txt {TINY} --width 1000000", "of memory"),
    ("train --data texts --out texts/run", "texts/run lies in --data texts"),
    ("train --data texts --export texts/net", "texts/net lies in --data texts"),
    ("train --data half.jsonl", "half.jsonl: the line up to byte 25 holds half a character"),
    ("train --data list.json", "list.json"),
    ("train --data /dev/zero", "/dev/zero is a device or a pipe"),
    ("train --data text.txt --tokenizer twice", "twice/tokenizer.json: words must be"),
    (f"train --data text.txt --out {{net}} {TINY}", "not of a run: name the one around it"),
    (f"train --data text.txt --out run/step-00000500 {TINY}", "not of a run: name the one around"),
    ("train --preset small", "there are no shards of OpenWebText"),
    # sample
    ("sample", "2 required: --checkpoint"),
    ("sample --checkpoint none/such/run", "none/such/run"),
    ("sample --checkpoint shards", "shards"),
    ("sample --checkpoint broken", "broken"),
    ("sample --checkpoint {net} --num -1", "num"),
    ("sample --checkpoint {net} --num 0", "num"),
    ("sample --checkpoint {net} --steps 0", "steps"),
    ("sample --checkpoint {net} --length 0", "length"),
    ("sample --checkpoint {net} --length 9999", "9999"),
    ("sample --checkpoint {net} --seed -1", "seed"),
    ("sample --checkpoint {net} --sampler foo", "2 --sampler: invalid choice: 'foo'"),
    ("sample --checkpoint {net} --device foo", "foo"),
    ("sample --checkpoint {net} --length 999999999999", "length must be a whole number"),
    ("sample --checkpoint {net} --text 'a ____' --gap 999999999999", "at most 1048576, got"),
    ("sample --checkpoint {net} --tokenizer ~nosuchuser/x", "is no path of a file"),
    ("sample --checkpoint {net} --text 'every cat'", "nothing is left"),
    ("sample --checkpoint {net} --gap 2", "--gap is for gaps"),
    ("sample --checkpoint {net} --text 'a ____' --length 5", "--length is for a prompt"),
    ("sample --checkpoint {net} --prompt nosuchword", "not in the vocabulary"),
    ("sample --checkpoint {net} --prompt a\udcff", "2 is not UTF-8 text"),
    ("sample --checkpoint {net} --tokenizer none", "'none'"),
    # evaluate
    ("evaluate", "2 required: bound|zero-shot|samples"),
    ("evaluate perplexity", "2 invalid choice: 'perplexity'"),
    ("evaluate bound --checkpoint {net}", "2 required: --data, --out"),
    ("evaluate bound --checkpoint {net} --data synthetic --out r.json extra", "2 unrecognized"),
    ("evaluate bound --checkpoint {net} --data synthetic --out texts", "--out texts is a folder"),
    ("evaluate bound --checkpoint {net} --data synthetic --out text.txt/r", "text.txt is a file"),
    # prepare
    ("prepare", "2 required: --data, --out"),
    ("prepare --data text.txt --out ''", "2 --out: expected a name, got ''"),
    ("prepare --data '' --out new", "2 --data: expected a name, got ''"),
    ("prepare --data none.txt --out new", "none.txt"),
    ("prepare --data latin1.txt --out new --tokenizer chars", "latin1.txt"),
    ("prepare --data text.txt --out new --valid-fraction 0", "2 --valid-fraction: expected"),
    ("prepare --data text.txt --out new --valid-fraction 1", "2 --valid-fraction: expected"),
    ("prepare --data text.txt --out new --valid-fraction nan", "2 --valid-fraction: expected"),
    ("prepare --data text.txt --out new --vocab-size 3", "2 --vocab-size: expected"),
    ("prepare --data text.txt --out new --shard-tokens 0", "2 --shard-tokens: expected"),
    ("prepare --data texts --out new --tokenizer none", "'none'"),
    ("prepare --data texts --out texts --tokenizer chars", "texts is the source"),
    ("prepare --data same.jsonl --out new --tokenizer chars", "fell to valid"),
    ("prepare --data late.jsonl --out new --tokenizer chars", "late.jsonl: the line up to byte"),
    ("prepare --data texts --out /proc/foo --tokenizer chars", "/proc/foo cannot be written"),
    ("prepare --data texts --out shards --tokenizer chars", "shards"),
    # plan
    ("plan --steps 0", "2 --steps: expected a whole number from 1, got '0'"),
    ("plan --gpus 0", "2 --gpus: expected"),
    ("plan --gpus -8", "2 --gpus: expected"),
    ("plan --gpus 3", "3 GPUs do not divide a batch of 512"),
    ("plan --price -1", "2 --price: expected a number from 0"),
    ("plan --price nan", "2 --price: expected"),
    ("plan --utilisation 0", "2 --utilisation: expected a number above 0 to 1"),
    ("plan --utilisation 40", "2 --utilisation: expected"),
    ("plan --num-tokens 0", "2 --num-tokens: expected"),
    ("plan --length 1.5", "2 --length: expected a whole number"),
    ("plan --kind tpu", "2 --kind: invalid choice: 'tpu'"),
    ("plan --length 10000000", "not even one sequence at a time fits"),
    # doctor
    ("doctor now", "2 unrecognized arguments: now"),
]
BAD_BOUND = [  # checkpoint, the other options, what the error says
    ("{net}", "--data none.txt", "none.txt"),
    ("{net}", "--data empty.txt", "no text in empty.txt"),
    ("{net}", "--data text.txt", "not in the vocabulary: "),
    ("{net}", "--data shards", "shards"),
    ("{net}", "--data synthetic --part all", "synthetic comes in two parts"),
    ("{net}", "--data synthetic --part test", "2 --part: invalid choice: 'test'"),
    ("{net}", "--data synthetic --repeats 1", "2 --repeats: expected a whole number from 2"),
    ("{net}", "--data synthetic --length 99", "--length 99 is more than the 32"),
    ("{net}", "--data synthetic --tokenizer chars", "97 tokens, the network 40"),
    ("{net}", "--data no/such-data", "'no/such-data' is neither a file"),
    ("{net}", "--data same.jsonl --column body", "no column 'body'; its columns are text"),
    ("{docs}", "--data word.txt --part all", "1 tokens do not fill one block of length 128"),
    ("{docs}", "--data word.txt", "too short to be split"),
    ("{docs}", "--data synthetic", "synthetic is in tokens of another tokeniser"),
    ("{nan}", "--data synthetic", "nan are not finite ("),
]
BAD_ZERO_SHOT = [
    ("--sets wikitext", "2 no data set 'wikitext': choose from lambada, wikitext2"),
    ("--data text.txt", "2 --data: expected NAME=FILE, got 'text.txt'"),
    ("--data ptb=text.txt --sets lm1b", "--data names ptb, and --sets does not"),
    ("--data ptb=none.txt", "none.txt"),
    ("--data ptb=empty.txt", "no text in empty.txt"),
    ("--data ptb=same.jsonl", "no column 'sentence'; its columns are text"),
    ("--data ptb=word.txt", "the text has 1 tokens and a window 128"),
    ("--sets ptb", "PTB: "),
]
BAD_SAMPLES = [
    ("--checkpoint {net}", "2 required: --judge"),
    ("--judge synthetic", "give either --checkpoint, whose samples are judged, or --texts"),
    ("--judge no/judge --checkpoint {net}", "give real text to compare with, by --data"),
    ("--judge no/judge --checkpoint {net} --data synthetic", "the judge 'no/judge' could not"),
    ("--judge texts --checkpoint {net} --data synthetic", "the judge 'texts' could not"),
    ("--judge synthetic --checkpoint {net} --data synthetic --num 9999", "9999 texts are asked"),
    ("--judge synthetic --checkpoint {docs}", "tokens of another tokeniser (BPETokenizer"),
    ("--judge synthetic --texts empty.txt", "no text in empty.txt"),
    ("--judge synthetic --texts text.txt", "not in the vocabulary"),
    ("--judge synthetic --texts same.jsonl --column body", "no column 'body'"),
    ("--judge no/judge --texts text.txt --data text.txt", "--texts needs a --tokenizer"),
]
BAD += [(f"evaluate bound --checkpoint {net} --out r.json {line}", said)
        for net, line, said in BAD_BOUND]  # fmt: skip
BAD += [(f"evaluate zero-shot --checkpoint {{docs}} --out r.json {line}", said)
        for line, said in BAD_ZERO_SHOT]  # fmt: skip
BAD += [(f"evaluate samples --out r.json {line}", said) for line, said in BAD_SAMPLES]


@pytest.fixture(scope="session")
def networks(tmp_path_factory) -> dict[str, Path]:
    """Two shipped networks, and one whose weights are NaN."""
    spoilt = tmp_path_factory.mktemp("networks") / "nan"
    shutil.copytree(NET, spoilt)
    tensors = load_tensors(NET / "model.safetensors")
    save_tensors(spoilt / "model.safetensors", {k: v * nan for k, v in tensors.items()})
    return {"{net}": NET, "{docs}": DOCS, "{nan}": spoilt}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with good and bad files in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n\n".join(f"the cat sat on mat {i}" for i in range(80)))
    (tmp_path / "texts").mkdir()
    for i in range(10):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"page {i}: the cat sat on the mat. " * 20)
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin1.txt").write_bytes("caffè ".encode("latin-1") * 99)
    row = '{"text": "the cat sat on the mat"}\n'
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud800 hello"}\n' * 9)
    (tmp_path / "same.jsonl").write_text(row * 300)
    (tmp_path / "late.jsonl").write_text(row.replace("mat", "bed") + row * 300 + '{"te')
    (tmp_path / "list.json").write_text("{")
    (tmp_path / "word.txt").write_text("the")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "tokenizer.json").write_text('{"type": "words", "words": ["a", "a"]}')
    for name, file in (("shards", "shards.json"), ("broken", "config.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text('{"complete": tr')
    (tmp_path / "broken" / "tokenizer.json").write_text("{")
    return tmp_path


def listing(folder: Path) -> list:
    return sorted((str(p), p.stat().st_size) for p in folder.rglob("*"))


def fails(command, capsys) -> tuple[int, str]:
    """Exit code and error of a command in this process: one line, and no word on stdout."""
    words = shlex.split(command) if isinstance(command, str) else command
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr()
    bars = ("preparing tokens: ", "bound: ", "sampling: ", "judging: ")
    (line,) = [s for s in said.err.splitlines() if s and not s.startswith(bars)]
    assert line.startswith("error: ")
    assert str(end.value) == line
    return end.value.code, line


@pytest.mark.parametrize(("command", "expected"), BAD, ids=[c[:50] for c, _ in BAD])
def test_a_mistake_is_one_line_and_leaves_nothing(place, networks, capsys, command, expected):
    before = listing(place)
    for name, folder in networks.items():
        command = command.replace(name, shlex.quote(str(folder)))
    code, line = fails(command, capsys)
    assert expected.removeprefix("2 ") in line
    assert code in (1, 2)
    assert code == 2 or not expected.startswith("2 ")
    assert len(line) < 1000
    assert listing(place) == before


# ---- what is no mistake of a command line --------------------------------------------------------


@pytest.fixture
def command(monkeypatch):
    """`command(error)` makes `plan` raise it; `command(function)` makes it call that."""
    from sedd_mini.commands import plan

    def become(what):
        def run(options):
            if isinstance(what, BaseException):
                raise what
            what()

        monkeypatch.setattr(plan, "run", run)

    return become


def no_compiler():
    from torch._inductor.exc import InvalidCxxCompiler

    return InvalidCxxCompiler()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("two\nlines\r\n and   more"), "error: two lines and more"),
        (FileNotFoundError(errno.ENOENT, "No such file", "x.json"), "No such file: x.json"),
        (PermissionError(errno.EACCES, "Permission denied", "x.json"), "denied: x.json"),
        (OSError(errno.ENOSPC, "No space left on device"), "free some space"),
        (FileNotFoundError("there is no folder x"), "error: there is no folder x"),
        (FloatingPointError("loss nan at step 3"), "loss nan at step 3"),
        (MemoryError(), "out of memory (MemoryError): less at a time takes less"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate"), "CUDA out of memory"),
        (ModuleNotFoundError("No module named 'datasets'", name="datasets"), "doctor tells"),
        (UnicodeEncodeError("ascii", "é", 0, 1, "not in range"), "'ascii' codec can't encode"),
        (no_compiler(), "install a C++ compiler"),
    ],
)
def test_errors_of_a_user_are_told_in_one_line(command, capsys, error, expected):
    command(error)
    code, line = fails(["plan"], capsys)
    assert code == 1
    assert expected in line


def test_memory_of_a_cpu_that_is_not_there(command, capsys):
    command(lambda: torch.empty(2**55))
    assert "out of memory" in fails(["plan"], capsys)[1]


@pytest.mark.parametrize(
    "error", [AssertionError("x"), KeyError("x"), RuntimeError("shapes do not fit"), TypeError("x")]
)
def test_a_bug_keeps_its_traceback(command, error):
    command(error)
    with pytest.raises(type(error)):
        main(["plan"])


def test_a_type_error_is_a_mistake_only_where_a_check_of_ours_raised_it():
    for work, ours in ((lambda: options.number(int, least=None)(3), False),
                       (lambda: planner.smallest_accumulate(None, 1, 1, 1.0), False)):  # fmt: skip
        with pytest.raises((TypeError, AttributeError)) as caught:
            work()
        assert options.raised_by_us(caught.value) is ours
    with pytest.raises(ValueError, match="no preset") as caught:
        preset("x")
    assert options.mistake(RuntimeError("x").with_traceback(caught.value.__traceback__)) == "x"
    assert options.mistake(RuntimeError("x")) is None
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        options.yes_or_no("x")
    assert options.raised_by_us(caught.value)


def test_the_traceback_is_shown_on_request(command, capsys, monkeypatch):
    command(ValueError("wrong"))
    monkeypatch.setenv("SEDD_MINI_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        main(["plan"])
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("error: wrong\n")


def test_ctrl_c_and_a_closed_pipe(command, capsys):
    command(KeyboardInterrupt())
    with pytest.raises(SystemExit) as end:
        main(["plan"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"
    command(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    with pytest.raises(SystemExit) as end:
        main(["plan"])
    assert end.value.code == 141
    assert capsys.readouterr().err == ""


# ---- as processes --------------------------------------------------------------------------------

FAKE = """
import os, sys, time
sys.modules["sedd_mini"] = package = type(sys)("sedd_mini")  # without PyTorch: seconds less
package.__path__ = [sys.argv[2]]
from sedd_mini import __main__
sys.modules["sedd_mini.commands.plan"] = fake = type(sys)("plan", "Fake.")
def work(options):
    print("begun", flush=sys.argv[1] != "write")
    if sys.argv[1] == "sleep":
        time.sleep(60)
    if sys.argv[1] == "import":
        import swallows
        return
    for i in range(100_000):
        print(i)
fake.add_arguments, fake.run = (lambda parser: None), work
__main__.main(["plan"])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of Unix")
def test_a_reader_that_goes_a_full_device_and_ctrl_c(tmp_path):
    """Four processes at once. No word of Python's own on stderr, at its end neither."""
    swallows = "import time\ntry:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    pass\n"
    (tmp_path / "swallows.py").write_text(swallows)  # as PyTorch does while it looks for NumPy

    def start(what: str, stdout) -> subprocess.Popen:
        line = [sys.executable, "-c", FAKE, what, ROOT / "sedd_mini"]
        return subprocess.Popen(line, stdout=stdout, stderr=subprocess.PIPE, text=True,
                                env=buffered() | {"PYTHONPATH": str(tmp_path)})  # fmt: skip

    piped, *interrupted = (start(what, subprocess.PIPE) for what in ("write", "sleep", "import"))
    with open("/dev/full" if os.path.exists("/dev/full") else os.devnull, "w") as full:
        filled = start("write", full)
    assert piped.stdout.readline() == "begun\n"
    piped.stdout.close()
    for process in interrupted:
        assert process.stdout.readline() == "begun\n"
    time.sleep(0.3)  # until the sleep inside the import has begun
    for process in interrupted:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[1] == "interrupted\n"
        assert process.returncode == 130
    assert piped.stderr.read() == ""
    assert piped.wait(60) == 141
    said = filled.communicate(timeout=60)[1]
    if os.path.exists("/dev/full"):
        assert said.startswith("error: No space left on device: the printed output")
        assert said.count("\n") == 1
        assert filled.returncode == 1


REAL = {
    "train": "--data text.txt --out {out} " + TINY,
    "sample": f"--checkpoint {shlex.quote(str(NET))} --device cpu --length 32 --steps 2",
    "evaluate": f"bound --checkpoint {shlex.quote(str(NET))} --device cpu --data synthetic --num 4"
    " --out {out}",
    "prepare": "--data texts --tokenizer chars --out {out}",
    "plan": "",
    "doctor": "",
}
BEGIN = """
import sys
from sedd_mini.__main__ import main
print("begun", file=sys.stderr, flush=True)
main(sys.argv[1:])
"""


def buffered() -> dict[str, str]:
    """An environment in which Python holds its output back until there is much of it."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of Unix")
@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_when_its_output_cannot_be_written_and_at_ctrl_c(place, name):
    """Three processes at once; Ctrl-C comes while PyTorch is imported."""
    env = buffered() | {"PYTHONPATH": str(ROOT)}

    def start(stdout, out: str) -> subprocess.Popen:
        line = [sys.executable, "-c", BEGIN, name, *shlex.split(REAL[name].format(out=out))]
        return subprocess.Popen(line, stdout=stdout, stderr=subprocess.PIPE, text=True, env=env,
                                cwd=place)  # fmt: skip

    piped, interrupted = start(subprocess.PIPE, "piped"), start(subprocess.PIPE, "interrupted")
    with open("/dev/full" if os.path.exists("/dev/full") else os.devnull, "w") as full:
        filled = start(full, "filled")
    piped.stdout.close()  # before there is a line: otherwise one might be read, and be all
    assert interrupted.stderr.readline() == "begun\n"
    time.sleep(0.2)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.communicate(timeout=60) == ("", "interrupted\n")
    assert interrupted.returncode == 130
    said = piped.stderr.read(), filled.communicate(timeout=60)[1]
    for words in said:
        assert "Traceback" not in words
        assert "Exception ignored" not in words
    assert "error" not in said[0]
    assert piped.wait(60) == 141
    if os.path.exists("/dev/full"):
        assert said[1].count("error: No space left on device: ") == 1
        assert filled.returncode == 1


# ---- help ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "most"), [("train", 46), ("sample", 30), ("prepare", 24),
                                            ("evaluate", 24), ("evaluate bound", 24),
                                            ("evaluate zero-shot", 24), ("evaluate samples", 30),
                                            ("plan", 24), ("doctor", 24)])  # fmt: skip
def test_help_fits_one_screen(name, most, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as end:
        main([*name.split(), "--help"])
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith(f"usage: python -m sedd_mini {name}")


def test_help_names_every_option(capsys):
    adding = {name: importlib.import_module(f"sedd_mini.commands.{name}").add_arguments
              for name in COMMANDS if name != "evaluate"}  # fmt: skip
    adding |= {f"evaluate {kind}": add for kind, (_, add, _) in evaluate.KINDS.items()}
    for name, add_arguments in adding.items():
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        said = capsys.readouterr().out
        parser = options.Parser(name, "")
        add_arguments(parser)
        for action in parser._actions[1:]:
            assert action.option_strings[0] in said
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    said = capsys.readouterr().out
    assert all(f"\n  {kind} " in said for kind in evaluate.KINDS)


def test_without_a_command_all_are_listed(capsys):
    for line in ([], ["--help"], ["-h"]):
        main(line)
        said = capsys.readouterr().out
        assert all(f"\n  {name} " in said for name in COMMANDS)


def test_numbers_and_their_ranges():
    number = options.number
    assert number(int, least=1)("1_000") == 1000
    assert number(float, above=0, most=1)("1") == 1.0
    for kind, text in ((number(int, least=1), "0"), (number(float, above=0), "0"),
                       (number(float, below=1), "1"), (number(int, most=5), "6"),
                       (number(float), "-inf"), (number(int), "٣")):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            kind(text)
    assert options.span(least=1) == "≥ 1"
    assert options.span(least=0, below=1) == "≥ 0 and < 1"
    assert options.span(least=0, most=1) == "0 to 1"


# ---- train and prepare ---------------------------------------------------------------------------


def out_of(line: str) -> str:
    given = parse(["train", *line.split()])
    return train.default_out(given.preset, train.settings_of(given), given.change)


def test_the_folder_of_a_run_tells_what_is_run():
    assert out_of("") == "runs/docs-absorb"
    assert out_of("--preset small --device cpu --accumulate 64") == "runs/small-absorb"
    assert out_of("--preset small --graph uniform") == "runs/small-uniform"
    assert out_of("--preset small --data docs --steps 2") == "runs/small-absorb-docs"
    assert out_of("--data ~/texts/my.novel.txt") == "runs/docs-absorb-my.novel"
    assert out_of("--steps 40 --lr 0.01") == "runs/docs-absorb-steps40-lr0.01"
    assert out_of("--lr 0.01 --change lr") == "runs/docs-absorb"
    many = f"--data x.txt {TINY}"
    assert out_of(many) == out_of(many)
    assert out_of(many).startswith("runs/docs-absorb-x-")
    assert out_of(many) != out_of(many.replace("width 16", "width 32"))
    assert len(out_of(f"--data {'é' * 100} --lr 0.5")) < 80


def test_booleans_with_and_without_a_word():
    assert parse(["train", "--compile"]).compile is True
    assert parse(["train", "--compile", "--seed", "3"]).compile is True
    assert parse(["train", "--compile", "no"]).compile is False
    assert parse(["train"]).compile is None


def test_train_says_what_it_will_write_and_where(place, capsys):
    main(["train", "--data", "text.txt", *TINY.split()])
    seen, first, *_, last = capsys.readouterr().out.splitlines()
    assert seen.endswith("of the 13-grams of the validation text occur in the training text")
    (out,) = (place / "runs").iterdir()
    assert first.startswith("a checkpoint takes ")
    assert first.endswith(f"free in runs/{out.name}")
    size = sum(p.stat().st_size for p in out.glob("step-*/*.safetensors"))
    assert planner.in_bytes(size)[:2] == first.split()[3][:2]
    assert last.endswith(f"--checkpoint runs/{out.name}")


def test_what_does_not_fit_is_refused_before_anything_is_written(place, capsys, monkeypatch):
    before, line = listing(place), ["train", "--data", "text.txt", *TINY.split()]
    monkeypatch.setattr(planner, "machine_memory", lambda device: 1e5)
    assert "a smaller --length or --width" in fails(line, capsys)[1]
    monkeypatch.undo()
    monkeypatch.chdir(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: argparse.Namespace(free=1e4))
    assert "free some, or give another --out" in fails(line, capsys)[1]
    assert listing(place) == before


def test_out_of_memory_while_training_tells_what_takes_less(place, capsys, monkeypatch):
    def step(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has")

    monkeypatch.setattr(train.Trainer, "train_step", step)
    with pytest.raises(SystemExit):
        main(["train", "--data", "text.txt", *TINY.replace("16", "64").split()])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: out of memory (CUDA out of memory. Tried to allocate 20.00 GiB)")
    assert "a step takes about " in line
    assert "--accumulate 2 takes " in line


def test_prepare_tells_documents_and_shares(place, capsys):
    main("prepare --data texts --out out --tokenizer chars".split())
    said = capsys.readouterr().out
    index = json.loads((place / "out" / "shards.json").read_text())
    assert f"train: {index['train']['tokens']:,} tokens in 1 shards" in said
    assert "\n10 documents, " in said
    assert "% of the tokens for validation" in said


# ---- doctor --------------------------------------------------------------------------------------


def examine(capsys) -> tuple[int, str]:
    try:
        main(["doctor"])
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    assert said.err == ""
    assert len(said.out.splitlines()) <= 40
    return code, said.out


@pytest.fixture
def whole_house(monkeypatch):
    """Doctor in a house with enough memory, and no question to the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(doctor, "available", lambda: 64e9)
    monkeypatch.setattr(planner, "machine_memory", lambda device: 64e9)


def test_doctor_on_a_whole_house(whole_house, capsys):
    code, said = examine(capsys)
    assert code == 0
    assert "CANNOT" not in said
    assert f"torch {importlib.metadata.version('torch')}" in said
    for file in sorted((ROOT / "chapters").glob("[0-9][0-9]_*.py")):
        (line,) = (x for x in said.splitlines() if x.startswith(f"  {file.stem[:2]} "))
        assert " runs, " in line
        assert "some minutes" not in line
    assert "  small      --accumulate " in said


def test_doctor_finds_what_is_not_there(whole_house, capsys, monkeypatch, tmp_path):
    spec, version = importlib.util.find_spec, importlib.metadata.version
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "huggingface_hub" else spec(name))  # fmt: skip
    code, said = examine(capsys)
    assert code == 1
    assert "11 The full-size run               CANNOT RUN: it lacks huggingface_hub" in said
    assert "02 What must a network learn       runs" in said
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name: None if name == "matplotlib" else spec(name))  # fmt: skip
    assert re.search("00 Start here +CANNOT RUN: it lacks matplotlib", examine(capsys)[1])
    monkeypatch.setattr(importlib.util, "find_spec", spec)

    def without(name):
        if name == "datasets":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "safetensors" else "0.1" if name == "tqdm" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without)
    code, said = examine(capsys)
    assert code == 1
    assert "MISSING: datasets" in said
    assert "OTHER VERSION: tqdm 0.1 (needed: tqdm>=4.66)" in said
    assert said.count("CANNOT RUN: it lacks datasets") == said.count("CANNOT RUN")
    monkeypatch.setattr(importlib.metadata, "version", version)

    shutil.copytree(
        ROOT / "chapters",
        tmp_path / "chapters",
        ignore=shutil.ignore_patterns("*.ipynb", "_build", "synthetic-uniform"),
    )
    monkeypatch.setattr(doctor, "CHAPTERS", tmp_path / "chapters")
    code, said = examine(capsys)
    assert code == 1
    assert "lacks chapters/checkpoints/synthetic-uniform" in said
    assert "00 Start here                      runs" in said
    monkeypatch.setattr(doctor, "CHAPTERS", tmp_path / "none")
    assert examine(capsys)[0] == 0  # there is no chapter that cannot run


def test_doctor_with_little_memory(whole_house, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "available", lambda: 2e9)
    monkeypatch.setattr(planner, "machine_memory", lambda device: 2e9)
    code, said = examine(capsys)
    assert code == 1
    assert "11 The full-size run               CANNOT RUN: it lacks 5 GB of free memory" in said
    assert "  small      not in this memory, not even one sequence at a time" in said
    assert "  docs       --accumulate 1: " in said


def test_doctor_waits_for_the_hub_no_longer_than_it_says(monkeypatch):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    late = lambda *_, **__: time.sleep(2) or open(os.devnull)  # noqa: E731
    monkeypatch.setattr(doctor.urllib.request, "urlopen", late)
    start = time.monotonic()
    assert "no answer within 0.2 seconds" in doctor.hub(doctor.Question())[0]
    assert time.monotonic() - start < 1.5
    monkeypatch.setattr(doctor.urllib.request, "urlopen", lambda *_, **__: open(os.devnull))
    monkeypatch.setattr(doctor, "PATIENCE", 3)
    assert "hub: reachable" in doctor.hub(doctor.Question())[0]
    assert "not asked" in doctor.hub(None)[0]


def test_doctor_knows_what_was_fetched(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache",
                        lambda repo, name: "a path" if repo == "gpt2" else None)  # fmt: skip
    assert doctor.cached() == {"GPT-2's tokens": True, "louaaron/sedd-small": False,
                               "openwebtext": False, "its shards": False}  # fmt: skip
