"""TextModel and the sampling command: text in, text out, and a word for everything that is not.

The small network has random weights and one id a character; the shipped ones write real words.
"""

import inspect
import math
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sedd_mini
from sedd_mini import AbsorbingGraph, LogLinearNoise, TextModel, UniformGraph, load, model
from sedd_mini.commands.sample import main
from sedd_mini.evaluate import Bound
from sedd_mini.evaluation.bounds import bounds
from sedd_mini.model import TextNote, template, working_device
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import save_pretrained
from sedd_mini.samplers import generators, sample
from sedd_mini.text.tokenizers import BPETokenizer, CharTokenizer, WordTokenizer, load_tokenizer

SHIPPED = Path(__file__).parents[1] / "chapters/checkpoints"
WORDS = "the cat sat on the mat and the dog sat on the cat "
LENGTH = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of characters whose weights are random."""
    torch.manual_seed(0)
    tokens = CharTokenizer().vocab_size
    network = DiffusionTransformer(DiTConfig(tokens, length=LENGTH, width=16, num_blocks=1,
                                             num_heads=2))  # fmt: skip
    torch.nn.init.normal_(network.output_layer.linear.weight, std=0.5)
    path = tmp_path_factory.mktemp("model") / "net"
    return save_pretrained(
        path, network, AbsorbingGraph(tokens), LogLinearNoise(), CharTokenizer()
    )  # fmt: skip


@pytest.fixture(scope="module")
def letters(folder) -> TextModel:
    return load(folder, "cpu")


@pytest.fixture(scope="module")
def words() -> TextModel:
    return load(SHIPPED / "synthetic-absorb", "cpu")


@pytest.fixture
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- write and fill ------------------------------------------------------------------------------


def test_write_is_sample_and_nothing_else(letters):
    seen = []
    texts = letters.write(3, 20, 6, prompt="the ", suffix=" on", seed=2, sampler="euler",
                          callback=lambda *args: seen.append(args))  # fmt: skip
    given = template(letters.tokenizer, "the ", suffix=" on", length=20)
    x = sample(letters.network, letters.graph, letters.noise, (3, 20), 6, "euler", clamp=given,
               generator=generators(2, 3))  # fmt: skip
    assert texts == [letters.tokenizer.decode(row) for row in x.tolist()]
    assert torch.equal(seen[-1][2], x)
    for text in texts:
        assert len(text) == 20 or "<|" in text
        assert text.startswith("the ")
        assert text.endswith(" on")
    assert len(set(texts)) == 3
    assert torch.tensor(letters.tokenizer.encode(letters.write(steps=2)[0])).numel() >= LENGTH


@pytest.mark.parametrize("name", ["synthetic-absorb", "synthetic-uniform"])
def test_text_i_of_a_seed_is_always_the_same(name, monkeypatch):
    """Whatever num is, and however many are sampled at a time."""
    texts = load(SHIPPED / name, "cpu")
    four = texts.write(num=4, length=12, steps=8, seed=5)
    assert texts.write(num=1, length=12, steps=8, seed=5) == four[:1]
    for group in (1, 3 * 12 * texts.graph.num_states):
        monkeypatch.setattr(model, "GROUP", group)
        assert texts.write(num=4, length=12, steps=8, seed=5) == four
    assert not set(texts.write(num=4, length=12, steps=8, seed=6)) & set(four)


def test_fill_leaves_the_rest_as_it_is(letters, words, no_warnings):
    for text in letters.fill("the ____ sat", num=2, steps=4):
        assert text.startswith("the ")
        assert text.endswith(" sat")
    (text,) = words.fill("every cat ____ .", steps=4)
    assert len(text.split()) == 4
    assert text.startswith("every cat ")
    assert text.endswith(" .")
    assert len(words.fill("every cat ____ .", gap=3, steps=4)[0].split()) == 6


def test_a_step_of_your_own_writes_too(words):
    def all_at_once(model, graph, noise, x, free, t, t_next, generator):
        return torch.where(free, 7, x)

    assert words.write(length=3, sampler=all_at_once) == [" ".join([words.tokenizer.words[7]] * 3)]


def test_any_network_and_any_tokeniser():
    """A function in place of a network, ids in place of text."""

    class Ids:
        vocab_size = 4

        def encode(self, text):
            return [int(c) for c in text]

        def decode(self, ids):
            return "".join("0123_"[i] for i in ids)

    def network(x, sigma, at):
        return torch.zeros(int(at.sum()), graph.num_states)

    for graph in (AbsorbingGraph(4), UniformGraph(4)):
        with pytest.raises(ValueError, match=r"no config.length: give length"):
            TextModel(network, graph, LogLinearNoise(), Ids())
        ids = TextModel(network, graph, LogLinearNoise(), Ids(), length=6)
        assert set(ids.write(steps=4)[0]) <= set("0123")
        (text,) = ids.write(prompt=[1, 2], suffix=torch.tensor([3]), steps=4)
        assert (text[:2], text[-1], len(text)) == ("12", "3", 6)
        assert ids.write(prompt="12", suffix="3", steps=4) == [text]
        (text,) = ids.fill([0, -1, -1, 2], steps=4)
        assert (text[0], text[-1], len(text)) == ("0", "2", 4)
        assert len(ids.fill("0___2", steps=4)[0]) == 5  # as many tokens as underscores
        one, two = ids.bound([[0, 1, 2], "012"], times_each=2)
        assert (one.characters, two.characters, one.length) == (None, 3, 3)
        assert math.isfinite(one.nats)
        for bad in ([0, 4], [0.5], ["a"]):
            with pytest.raises(ValueError, match="a token id of prompt must be a whole"):
                ids.write(prompt=bad)
        network.config = SimpleNamespace(length=5)
        assert len(TextModel(network, graph, LogLinearNoise(), Ids()).write(steps=2)[0]) == 5
        del network.config
        assert repr(ids).startswith("TextModel(function, ")


def test_repr_in_one_line(words):
    assert repr(words) == (
        "TextModel(DiffusionTransformer of 0.6 M weights, AbsorbingGraph(40), "
        f"LogLinearNoise(eps={words.noise.eps}), WordTokenizer, length 32, on cpu)"
    )


# ---- what is read otherwise ----------------------------------------------------------------------


def test_a_prompt_leaves_the_space_to_the_next_word():
    bpe = BPETokenizer.train([WORDS * 20], 300)
    with pytest.warns(TextNote, match="the space at the end of the prompt is left"):
        spaced = template(bpe, "the ", length=9)
    assert spaced.equal(template(bpe, "the", length=9))
    letters = template(CharTokenizer(), "the ", length=9)
    assert letters[:4].tolist() == CharTokenizer().encode("the ")
    code = template(bpe, text="__init__ ____")  # no gap but the last
    assert (code < 0).sum() == 2


def test_text_that_the_tokeniser_reads_otherwise_is_noted(letters):
    with pytest.warns(TextNote, match="the prompt holds .*: 'é' as 'e'"):
        letters.write(prompt="caf\u00e9", steps=2)
    with pytest.warns(TextNote, match="the suffix holds .*: '中' as '\\?'"):
        letters.write(suffix="\u4e2d", steps=2)
    with pytest.warns(TextNote, match="the text holds .*: '“a' as '\"a'"):
        letters.fill("____ \u201ca", steps=2)
    with pytest.warns(TextNote, match="the text 1 holds"):
        bounds = letters.bound(["abc", "ab\u2026"], repeats=2, times_each=1)
    assert [b.characters for b in bounds] == [3, 5]  # of the text as it is read: ab...


def test_nothing_is_noted_where_nothing_is_changed(letters, words, no_warnings):
    letters.write(prompt="the cat ", suffix=" .", steps=2)
    words.write(prompt="every cat ", length=6, steps=2)
    bpe = BPETokenizer.train([WORDS * 20], 300)
    template(bpe, text="The ____ caf\u00e9 \u4e2d ____.")
    template(bpe, "caf\u00e9\n", length=40)


# ---- the bound -----------------------------------------------------------------------------------


def test_bound_is_that_of_bounds(letters):
    """A text of one window: the same draws, the same number, up to the rounding of the head."""
    text = "the cat sat on the mat"
    (found,) = letters.bound([text], repeats=4, times_each=8, seed=3)
    ids = torch.tensor([letters.tokenizer.encode(text)])
    (expected,) = bounds(
        letters.network, letters.graph, letters.noise, ids, None, 4, 8,
        generator=generators(3, 1)[0],
    )  # fmt: skip
    assert found.nats == pytest.approx(expected.nats, rel=1e-5)
    assert found.error == pytest.approx(expected.error, rel=1e-3)
    assert found.draws == pytest.approx(expected.draws, rel=1e-5)
    assert (found.prior, found.length, found.characters) == (expected.prior, 22, 22)
    assert found.bits_per_character == pytest.approx(found.nats / 22 / math.log(2))


def test_a_long_text_is_the_sum_of_its_windows(letters, monkeypatch):
    """Two windows of 32 and one of 8. Draws differ, so bounds agree within their error bars."""
    text = (WORDS * 2)[: 2 * LENGTH + 8]
    cut = [text[:LENGTH], text[LENGTH : 2 * LENGTH], text[2 * LENGTH :]]
    whole, *parts = letters.bound([text, *cut], times_each=32)
    assert whole.length == sum(p.length for p in parts) == 2 * LENGTH + 8
    assert whole.prior == pytest.approx(sum(p.prior for p in parts))
    error = math.hypot(whole.error, *(p.error for p in parts))
    assert abs(whole.nats - sum(p.nats for p in parts)) < 6 * error  # t, 7 degrees: 5e-4
    assert error < 0.05 * whole.nats

    def fixed(network, graph, noise, x0, *rest, **more):
        return [Bound(10.0, 2.0, 0.5, x0.shape[1], draws=(8.0, 12.0)) for _ in x0]

    monkeypatch.setattr(model, "bounds", fixed)
    (found,) = letters.bound([text])
    assert found == Bound(30.0, pytest.approx(6.0), 1.5, len(text), len(text))
    assert found.draws == (24.0, 36.0)


def test_texts_have_their_own_noise(letters):
    one, two = letters.bound(["the cat", "the cat"])
    assert one.nats != two.nats
    assert letters.bound(["the cat"]) == [one]
    assert letters.bound(["another text", "the cat"])[1] == two
    assert letters.bound(["the cat"], seed=1) != [one]
    assert letters.bound([]) == []


def test_given_tokens_are_conditions(words, letters):
    """As a mask or a number of first tokens; windows that are given whole cost nothing."""
    text = "every cat sleeps . a dog"
    ids = words.tokenizer.encode(text)
    mask = [True] * 3 + [False] * 3
    one, two, three = (words.bound([t], given=[g])[0] for t, g in
                       ((text, 3), (ids, mask), (text, torch.tensor(mask))))  # fmt: skip
    assert one == two == three
    assert (one.length, one.characters, one.prior) == (3, None, pytest.approx(3e-3 * math.log(40)))
    whole, start = words.bound([text, "every cat sleeps"])
    assert abs(one.nats - (whole.nats - start.nats)) < 1  # the chain rule, for a good model
    assert words.bound([text], given=[None])[0] == words.bound([text], given=[0])[0] == whole
    (last,) = letters.bound([WORDS[: LENGTH + 8]], given=[LENGTH + 5])
    assert last.length == 3
    assert last.error < last.nats


def test_a_trained_network_knows_its_language(words):
    good, bad = words.bound(["every cat sleeps .", "near near every every"])
    assert good.nats + 3 * good.error < bad.nats - 3 * bad.error


def test_where_there_is_no_float64_the_network_alone_is_on_the_device(words, monkeypatch):
    expected = words.bound(["every cat sleeps ."], times_each=2)
    monkeypatch.setattr(TextModel, "device", torch.device("mps"))
    moves, real = [], torch.Tensor.to

    def to(tensor, place, *rest, **more):
        moves.append((str(place), tensor.dtype))
        return tensor if str(place) == "mps" else real(tensor, place, *rest, **more)

    monkeypatch.setattr(torch.Tensor, "to", to)
    assert words.bound(["every cat sleeps ."], times_each=2) == expected
    there = {kind for place, kind in moves if place == "mps"}
    assert there == {torch.int64, torch.float32, torch.bool}  # x, sigma, at


# ---- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m: m.write(num=0), ValueError, "num must be a whole number, at least 1, got 0"),
        (lambda m: m.write(num=-1), ValueError, "got -1"),
        (lambda m: m.write(num=2.0), ValueError, "got 2.0"),
        (lambda m: m.write(num=True), ValueError, "got True"),
        (lambda m: m.write(length=0), ValueError, "length must be a whole number, at least 1"),
        (lambda m: m.write(length=33), ValueError, "33 tokens are more than the 32"),
        (lambda m: m.write(steps=0), ValueError, "steps must be a whole number, at least 1, got 0"),
        (lambda m: m.write(steps=math.nan), ValueError, "steps must be .* got nan"),
        (lambda m: m.write(seed=-1), ValueError, "seed must be a whole number, at least 0"),
        (lambda m: m.write(seed=0.5), ValueError, "seed must be a whole number, at least 0"),
        (lambda m: m.write(sampler="best"), ValueError, "'tweedie', .*, or a function"),
        (lambda m: m.write(prompt="a" * 40), ValueError, "prompt and suffix are 40 tokens, of 32"),
        (lambda m: m.write(prompt=None), TypeError, "prompt must be text or a list of token ids"),
        (lambda m: m.write(prompt=b"a"), TypeError, "prompt must be text .* got bytes"),
        (lambda m: m.write(prompt="a\udcff"), ValueError, "no UTF-8, at character 2"),
        (lambda m: m.fill("no gap"), ValueError, "nothing is left to fill in: mark gaps by ____"),
        (lambda m: m.fill(""), ValueError, "the text is empty"),
        (lambda m: m.fill("a ____", gap=0), ValueError, "of at least one token.* got 0"),
        (lambda m: m.fill("a ____", gap=True), ValueError, "got True"),
        (lambda m: m.fill("a ____", gap=50), ValueError, "52 tokens are more than the 32"),
        (lambda m: m.fill([1, -1], gap=2), ValueError, "gap is for the ____ of a text"),
        (lambda m: m.fill(3), TypeError, "text must be text or a list of token ids, got int 3"),
        (lambda m: m.bound("the cat"), TypeError, "texts must be a list of texts, got a str"),
        (lambda m: m.bound(3), TypeError, "texts must be a list of texts, got a int"),
        (lambda m: m.bound([3]), TypeError, "text 0 must be text or a list of token ids"),
        (lambda m: m.bound(["a", ""]), ValueError, "text 1 is empty"),
        (lambda m: m.bound(["a"], repeats=1), ValueError, "repeats .* at least 2, got 1"),
        (lambda m: m.bound(["a"], times_each=0), ValueError, "times_each .* at least 1, got 0"),
        (lambda m: m.bound(["a"], seed=-1), ValueError, "seed must be"),
        (lambda m: m.bound(["a"], given=[1, 1]), ValueError, "given has 2 entries for 1 texts"),
        (lambda m: m.bound(["a"], given=3), TypeError, "given must be a list, one entry a text"),
        (lambda m: m.bound(["ab"], given=[2]), ValueError, "given of text 0 .* at most 1, got 2"),
        (lambda m: m.bound(["ab"], given=[[1, 0]]), ValueError, "must be 2 bools, .* torch.int64"),
        (lambda m: m.bound(["ab"], given=[[True]]), ValueError, r"must be 2 bools, .* \(1,\)"),
        (lambda m: m.bound(["ab"], given=[[True] * 2]), ValueError, "not all of them True"),
        (lambda m: m.bound(["ab"], given=["a"]), ValueError, "must be 2 bools"),
        (lambda m: TextModel(m.network, m.graph, m.noise, m.tokenizer, 0), ValueError,
         "length must be a whole number, at least 1 .*got 0"),
        (lambda m: TextModel(m.network, m.graph, m.noise, WordTokenizer(["a", "b"])), ValueError,
         "the tokeniser has 2 tokens, the network 97"),
        (lambda m: load("/no/such/folder"), FileNotFoundError, "there is no folder"),
        (lambda m: working_device("foo"), ValueError, "device 'foo' does not work here"),
        (lambda m: working_device("meta"), ValueError, "device 'meta' does not work here"),
        (lambda m: working_device(3.5), ValueError, "device '3.5' does not work here"),
    ],
)  # fmt: skip
def test_mistakes_get_one_line(letters, call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call(letters)
    assert "\n" not in str(error.value)


# ---- the command ---------------------------------------------------------------------------------


def test_command_prints_what_text_model_writes(folder, letters, capsys):
    base = ["--checkpoint", str(folder), "--device", "cpu", "--steps", "4"]
    main([*base, "--prompt", "the ", "--suffix", " on", "--num", "2", "--seed", "3"])
    texts = letters.write(2, steps=4, prompt="the ", suffix=" on", seed=3)
    assert capsys.readouterr().out == "".join(
        f"--- sample {i} of 2\n{text}\n" for i, text in enumerate(texts, 1)
    )
    main([*base, "--text", "the ____ sat", "--gap", "2"])
    assert capsys.readouterr().out == letters.fill("the ____ sat", gap=2, steps=4)[0] + "\n"


def test_command_notes_what_it_reads_otherwise(folder, capsys):
    main(["--checkpoint", str(folder), "--steps", "2", "--prompt", "caf\u00e9"])
    note, *rest = capsys.readouterr().err.splitlines()
    assert note.startswith("note: the prompt holds what the tokeniser lacks")
    assert not rest
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "leaves a space at its end to the next word" in said
    assert "is replaced, and a note says so" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "no gap"], "nothing is left"),
        (["--text", "a ____ b", "--gap", "0"], "gap: .* from 1, got '0'"),
        (["--text", "a ____ b", "--length", "9"], "--length is for a prompt"),
        (["--text", "a ____ b", "--length", "0"], "length: .* from 1, got '0'"),
        (["--prompt", "the", "--gap", "2"], "--gap is for gaps"),
        (["--prompt", "the", "--gap", "0"], "gap: .* from 1, got '0'"),
        (["--prompt", "the cat " * 50], r"prompt and suffix are \d+ tokens, of"),
        (["--prompt", "a\udcff"], "not UTF-8"),
        (["--length", "0"], "length: .* from 1, got '0'"),
        (["--num", "0"], "num: .* from 1, got '0'"),
        (["--num", "-1"], "num: .* from 1, got '-1'"),
        (["--steps", "0"], "steps: .* from 1, got '0'"),
        (["--seed", "-1"], "seed: .* from 0, got '-1'"),
        (["--seed", str(2**63)], "seed: .* from 0, got"),
        (["--tokenizer", "tests"], "no GPT-2 tokeniser in tests: .* vocab.bpe"),
        (["--tokenizer", "bpe"], "tokenizer must be .* got 'bpe'"),
        (["--device", "foo"], "device 'foo' does not work"),
        (["--device", "cuda:99"], "device 'cuda:99' does not work"),
        (["--checkpoint", "none/such/run"], "there is no folder"),
    ],
)
def test_mistakes_of_the_command_line(folder, arguments, message, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    with pytest.raises(SystemExit, match=message) as error:
        main(["--checkpoint", str(folder), *arguments])
    assert str(error.value).startswith("error: ")
    assert "\n" not in str(error.value)


def test_options_of_the_sampling_command(tmp_path, capsys, monkeypatch):
    shipped = SHIPPED / "synthetic-absorb"

    def write(*options):
        main(["--checkpoint", str(shipped), "--steps", "4", "--num", "3", *options])
        return capsys.readouterr()

    texts = write()
    assert write("--seed", "0") == texts
    assert write("--seed", "1") != texts
    assert write("--sampler", "euler").out == texts.out  # absorbing, log-linear: the same law
    uniform = ["--checkpoint", str(shipped.with_name("synthetic-uniform"))]
    assert write(*uniform, "--sampler", "euler") != write(*uniform)
    assert "step 4, t = 0.000" in write("--show").err
    assert len(write("--num", "1", "--length", "7").out.split()) == 7
    CharTokenizer().save(tmp_path)
    with pytest.raises(SystemExit, match=r"the tokeniser has \d+ tokens, the network 40"):
        write("--tokenizer", str(tmp_path))
    load_tokenizer(shipped).save(tmp_path)
    assert write("--tokenizer", str(tmp_path), "--text", "every cat ____ .").out.count(" .") == 3


# ---- the front door ------------------------------------------------------------------------------


def test_the_front_door_is_light_and_complete():
    script = (
        "import sys, sedd_mini\n"
        "assert not {'sedd_mini.samplers', 'sedd_mini.model'} & {*sys.modules}\n"
        "names = set(sedd_mini.__all__)\n"
        "assert names <= set(dir(sedd_mini)) and len(names) == 12\n"
        "for name in names: assert callable(getattr(sedd_mini, name)), name\n"
        "from sedd_mini import *\n"
        "assert sample is sedd_mini.sample and callable(sample)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'smaple'"):
        _ = sedd_mini.smaple


def test_help_shows_the_use_and_the_use_works(monkeypatch):
    shown = inspect.getdoc(sedd_mini)
    code = [line[4:] for line in shown.splitlines() if line.startswith("    ")]
    assert len(code) == 5
    monkeypatch.chdir(SHIPPED.parents[1])
    small = [line.replace("docs-absorb", "synthetic-absorb").replace("Return the value.", "a cat")
             for line in code]  # fmt: skip
    found = {}
    exec("\n".join(small[:2]), found)  # the words of the others are not in that language
    assert isinstance(found["model"], TextModel)
    for line, method in zip(code[2:], ("write", "fill", "bound"), strict=True):
        assert line.startswith(f"model.{method}(")
        compile(line, "help", "exec")
