"""Real text as windows, their bound in all units, and the zero-shot data sets."""

import json
import math
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from test_generated import save_judge
from texts import small_bpe

import sedd_mini.evaluation.zero_shot as zero
from sedd_mini.__main__ import main
from sedd_mini.commands.evaluate import SETS, check_finite
from sedd_mini.evaluation import windows as windows_file
from sedd_mini.evaluation.windows import (
    bound_of,
    count_characters,
    load_windows,
    spread,
    stream_windows,
    units,
)
from sedd_mini.evaluation.zero_shot import DATA_SETS, FIVE, read_rows, text8_form, zero_shot
from sedd_mini.graphs import AbsorbingGraph
from sedd_mini.model import TextModel
from sedd_mini.noise import LogLinearNoise
from sedd_mini.text.corpus import load_corpus
from sedd_mini.text.shards import prepare_shards
from sedd_mini.text.synthetic import SyntheticLanguage
from sedd_mini.text.tokenizers import CharTokenizer, IdTokenizer

LANGUAGE = SyntheticLanguage()
ROOT = Path(__file__).parents[1]
NETS = ROOT / "chapters/checkpoints"


class Exact:
    """The exact log-scores of the synthetic language on the absorbing graph."""

    def __call__(self, x, sigma, at):
        posterior = LANGUAGE.posterior(x.where(x < 40, 0), x < 40)  # (B, L, 40)
        log_score = posterior.clamp_min(1e-300).log() - sigma.double().expm1().log()[:, None, None]
        log_score = torch.cat([log_score, torch.zeros_like(log_score[..., :1])], -1)
        return log_score[at].float()


def exact_model(length: int) -> TextModel:
    return TextModel(Exact(), AbsorbingGraph(40), LogLinearNoise(), LANGUAGE.tokenizer(), length)


def constant_model(tokenizer, length: int) -> TextModel:
    """Every hidden token is any token with the same probability: a bound of ln N a token."""
    graph = AbsorbingGraph(tokenizer.vocab_size)

    def network(x, sigma, at):
        level = -math.log(graph.num_tokens) - sigma.double().expm1().log()
        return level.float()[:, None].expand(x.shape)[at][:, None].expand(-1, graph.num_states)

    return TextModel(network, graph, LogLinearNoise(), tokenizer, length)


# ---- windows -------------------------------------------------------------------------------------


def test_spread_and_what_is_too_many():
    assert spread(5, None) == [0, 1, 2, 3, 4]
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 3) == [0, 1, 2]
    with pytest.raises(ValueError, match="4 texts are asked for, and there are 3"):
        spread(3, 4)


def test_the_parts_of_a_text_are_those_of_training(text):
    corpus = load_corpus(text, 16, tokenizer="chars")
    for part in ("valid", "train"):
        windows, facts = load_windows(text, CharTokenizer(), 16, part)
        assert torch.equal(windows, getattr(corpus, part)[:])
        assert facts["part"] == part
        assert facts["data_hash"] == corpus.info["hash"]
    windows, facts = load_windows(text, CharTokenizer(), 16, "all", num=7)
    assert windows.shape == (7, 16)
    assert facts["windows"] == 7
    assert facts["of_windows"] == len(open(text).read()) // 16
    assert len(load_windows(text, CharTokenizer(), 16, num=9999)[0]) == len(corpus.valid)
    with pytest.raises(ValueError, match="9999 texts are asked for"):
        load_windows(text, CharTokenizer(), 16, num=9999, exactly=True)
    with pytest.raises(ValueError, match="part must be one of valid, train, all"):
        load_windows(text, CharTokenizer(), 16, "test")


def test_shards_and_the_synthetic_language_want_their_own_tokeniser(tmp_path):
    rows = "".join(json.dumps({"text": f"the cat sat on mat {i} " * 9}) + "\n" for i in range(40))
    (tmp_path / "rows.jsonl").write_text(rows)
    prepare_shards(tmp_path / "rows.jsonl", tmp_path / "shards", "chars", valid_fraction=0.2,
                   progress=False)  # fmt: skip
    windows, _ = load_windows(tmp_path / "shards", CharTokenizer(), 16)
    assert windows.shape[1] == 16
    with pytest.raises(ValueError, match="shards is in tokens of another tokeniser \\(Char"):
        load_windows(tmp_path / "shards", small_bpe(), 16)
    with pytest.raises(ValueError, match="another tokeniser \\(WordTokenizer of 40"):
        load_windows("synthetic", CharTokenizer(), 16)
    with pytest.raises(ValueError, match="comes in two parts"):
        load_windows("synthetic", LANGUAGE.tokenizer(), 16, "all")


def test_a_stream_keeps_every_token():
    tokenizer, documents = small_bpe(), ["the cat", "sat", "x"]
    a, b, c = (tokenizer.encode(document) for document in documents)
    end = [tokenizer.eot_id]
    between = [*a, *end, *b, *end, *c]
    for end_each, ids in ((False, between), (True, between + end)):
        windows = stream_windows(documents, tokenizer, 4, end_each)
        assert [part.shape[1] for part in windows] == ([4, len(ids) % 4] if len(ids) % 4 else [4])
        assert torch.cat([part.flatten() for part in windows]).tolist() == ids
    with pytest.raises(ValueError, match="has 7 tokens and a window 8"):
        stream_windows(["abcdefg"], CharTokenizer(), 8)


def test_characters_are_those_of_the_text():
    tokenizer, documents = CharTokenizer(), ["the cat", "sat"]
    assert count_characters(tokenizer, stream_windows(documents, tokenizer, 4)) == 10
    assert count_characters(IdTokenizer(9), [torch.ones(2, 3, dtype=torch.int64)]) is None


# ---- the bound -----------------------------------------------------------------------------------


def test_units_of_a_known_number():
    result = units(nats=6 * math.log(2), error=math.log(2), tokens=3, characters=12)
    assert result["bits_per_token"] == pytest.approx(2)
    assert result["bits_per_token_error"] == pytest.approx(1 / 3)
    assert result["bits_per_character"] == pytest.approx(0.5)
    assert result["bits_per_character_error"] == pytest.approx(1 / 12)
    assert result["perplexity"] == pytest.approx(4)
    assert result["perplexity_error"] == pytest.approx(4 * math.log(2) / 3)
    assert units(1.0, 0.1, 3, None)["bits_per_character"] is None
    assert units(1e6, 1.0, 3, None)["perplexity"] is None


def test_exact_scores_give_the_exact_likelihood_of_all_windows():
    """Of whole windows and a shorter rest, each with its weight; the error bar covers the truth."""
    generator = torch.Generator().manual_seed(3)
    parts = [LANGUAGE.sample(90, 12, generator), LANGUAGE.sample(1, 7, generator)]
    truth = -sum(LANGUAGE.log_prob(part).sum().item() for part in parts)
    result = bound_of(exact_model(12), parts, repeats=8, progress=False)
    assert result["tokens"] == 90 * 12 + 7
    low = truth / result["tokens"]
    cut = 1e-3 * (math.log(40) - 2.28 * math.log(2))  # δ (ln N − entropy): REFERENCE, section 2
    assert abs(result["nats_per_token"] - low) < 3 * result["nats_per_token_error"] + 2 * cut
    assert result["nats_per_token_error"] < 0.05
    again = bound_of(exact_model(12), parts, repeats=8, progress=False)
    assert again == result
    other = bound_of(exact_model(12), parts, repeats=8, seed=1, progress=False)
    assert 0 < abs(other["nats_per_token"] - low) < 3 * other["nats_per_token_error"] + 2 * cut


def test_no_window_and_a_network_of_nans():
    with pytest.raises(ValueError, match="no window to bound"):
        bound_of(exact_model(4), [torch.empty(0, 4, dtype=torch.int64)], progress=False)
    model = exact_model(4)
    model.network = lambda x, sigma, at: torch.full((int(at.sum()), 41), math.nan)
    with pytest.raises(FloatingPointError, match="finite log-scores"):
        bound_of(model, [LANGUAGE.sample(8, 4)], progress=False)


# ---- detokenisers --------------------------------------------------------------------------------

DETOKENISED = [
    ("wikitext2", " = = Life cycle = = \n", "== Life cycle =="),
    ("wikitext2", "a length of 60 cm ( 24 in ) , and weigh 0 @.@ 7 – 2 @.@ 2 kg .",
     "a length of 60 cm (24 in), and weigh 0.7–2.2 kg."),
    ("wikitext2", 'becoming " lobster red " on cooking ; the war @-@ time 10 @,@ 000 .',
     'becoming "lobster red" on cooking; the war-time 10,000.'),
    ("wikitext2", 'The larger one is the " <unk> " , and it can \'t move St Paul \'s .',
     'The larger one is the "<unk>", and it can\'t move St Paul\'s.'),
    ("wikitext2", "the lobsters ' claws [ ... ] cost $ 5 ( 79 % ) at 12 ° C : why ?",
     "the lobsters' claws [...] cost $5 (79%) at 12°C: why?"),
    ("ptb", " the company 's plan did n't say who 'll pay $ N million \n",
     "the company's plan didn't say who'll pay $1 million"),
    ("ptb", "mr. <unk> owns N N of the banks ' N shares N %",
     "mr. ? owns 1 1 of the banks' 1 shares 1%"),
    ("ptb", "sales of # N a 1\\/2 point NBC", "sales of #1 a 1/2 point NBC"),
    ("lm1b", 'He said , " We don \'t know . " ( Reuters ) - $ 5 and £ 3 ; a / b',
     'He said, "We don\'t know." (Reuters) - $5 and £3; a/b'),
    ("lm1b", "See http : / / www.x.org , the U.S. site ! Is it 50 % ?",
     "See http://www.x.org, the U.S. site! Is it 50%?"),
    ("lambada", "“Don’t,” she said.\n\nTo  Ann ", '"Don\'t," she said.\n\nTo  Ann'),
    ("lambada", "`` i do n't know , '' she said . `` where is tom 's ? ''",
     '"i don\'t know," she said. "where is tom\'s?"'),
    ("text8", "In 1905, Émile paid £7.", "in one nine zero five mile paid seven"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected"), DETOKENISED)
def test_detokenised(name, row, expected):
    assert DATA_SETS[name].detokenise(row) == expected


def test_ordinary_text_stays_as_it_is():
    text = "The cats' food (it isn't \"good\") cost $5, or 50%: why? See http://x.org/a."
    for name in FIVE:
        assert DATA_SETS[name].detokenise(text) == text
    assert text8_form("the cat sat") == "the cat sat"


# ---- documents -----------------------------------------------------------------------------------


def test_articles_begin_at_headings_of_the_first_level():
    rows = ["before", "= A =", "text", "== Part ==", "more", "= B and C =", "= 5", "end ="]
    found = ["before", "= A =\ntext\n== Part ==\nmore", "= B and C =\n= 5\nend ="]
    assert list(zero.articles(rows)) == found
    assert list(zero.articles(["no heading"])) == ["no heading"]
    assert list(zero.articles([])) == []


def test_the_test_split_of_text8():
    assert list(zero.last_of_text8(["a b", "c"])) == ["a b c"]
    whole = "a" * 95_000_000 + "b" * 5_000_000
    assert list(zero.last_of_text8([whole])) == ["b" * 5_000_000]


# ---- rows and results ----------------------------------------------------------------------------


def test_rows_of_local_files(tmp_path):
    lines = tmp_path / "wiki.test.raw"
    lines.write_text(" \n = A = \n \n text , here . \n")
    assert read_rows("wikitext2", lines) == [" = A = ", " text , here . "]
    table = tmp_path / "test.jsonl"
    table.write_text("".join(json.dumps({"text": f"one\n\ntwo {i}"}) + "\n" for i in range(3)))
    assert read_rows("lambada", table) == [f"one\n\ntwo {i}" for i in range(3)]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "ptb.test.txt").write_text(" no it was n't \n black monday \n")
    assert read_rows("ptb", folder) == [" no it was n't ", " black monday "]
    with pytest.raises(ValueError, match="no column 'sentence'"):
        read_rows("ptb", table)
    assert len(read_rows("ptb", table, column="text")) == 3


def test_rows_of_the_hub(monkeypatch):
    asked = {}

    def fake(source, column, split, config):
        asked.update(source=source, column=column, split=split, config=config)
        return iter(["a row", "  ", "another"])

    monkeypatch.setattr(zero, "load_documents", fake)
    assert read_rows("wikitext103") == ["a row", "another"]
    assert asked == {"source": "Salesforce/wikitext", "column": "text", "split": "test",
                     "config": "wikitext-103-raw-v1"}  # fmt: skip
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match=r"^PTB: .*--data ptb=FILE"):
        read_rows("ptb")


def test_every_data_set_says_what_it_hangs_on():
    assert tuple(DATA_SETS) == ("lambada", "wikitext2", "wikitext103", "ptb", "lm1b", "text8")
    assert set(SETS) == set(DATA_SETS)
    assert SETS[:5] == FIVE
    for name, data in DATA_SETS.items():
        for field in fields(data):
            assert getattr(data, field.name) or (name, field.name) == ("text8", "config")


def test_zero_shot_of_a_model_that_knows_nothing_is_the_entropy_of_its_tokens():
    rows = [" no it was n't black monday ", "but while the n't "] * 9
    model = constant_model(CharTokenizer(), 8)
    result = zero_shot(model, "ptb", rows, repeats=2, progress=False)
    text = "\n".join(["no it wasn't black monday", "but while then't"] * 9)
    assert result["tokens"] == result["characters"] == len(text)
    assert result["documents"] == 1
    assert result["words"] == 9 * (6 + 4)
    assert result["bits_per_token"] == pytest.approx(math.log2(96), rel=0.1)
    nats = result["tokens"] * result["nats_per_token"]
    assert result["perplexity_per_word"] == pytest.approx(math.exp(nats / 90))
    each = zero_shot(model, "ptb", rows, repeats=2, end_each=True, progress=False)
    assert each["documents"] == 18
    assert each["tokens"] == len(text) + 1  # an end of text for every line end, and one more
    assert each["characters"] == len(text) - 17
    few = zero_shot(model, "ptb", rows, num=5, repeats=2, progress=False)
    assert few["windows"] == 5
    assert few["tokens"] == 40
    assert few["words"] == round(90 * 40 / len(text))


def test_text8_is_measured_in_its_letters():
    rows = ["the cat of 1984 sat"] * 9
    result = zero_shot(constant_model(CharTokenizer(), 8), "text8", rows, repeats=2,
                       end_each=True, progress=False)  # fmt: skip
    text = " ".join(["the cat of one nine eight four sat"] * 9)
    assert result["characters"] == result["tokens"] == len(text)
    assert result["end_of_text"] == "between documents"


# ---- the command ---------------------------------------------------------------------------------


def evaluate(line: str, out: Path) -> dict:
    line = line.replace(str(ROOT), shlex.quote(str(ROOT)))
    main(["evaluate", *shlex.split(line), "--device", "cpu", "--out", str(out)])
    return json.loads(out.read_text())


@pytest.mark.parametrize("graph", ["absorb", "uniform"])
def test_bound_of_the_command_lies_above_the_truth(tmp_path, capsys, graph):
    net = NETS / f"synthetic-{graph}"
    result = evaluate(f"bound --checkpoint {net} --data synthetic --num 200", tmp_path / "a" / "r")
    windows, _ = load_windows("synthetic", LANGUAGE.tokenizer(), 32, num=200)
    truth = -LANGUAGE.log_prob(windows).sum().item() / windows.numel()
    assert truth - 3 * result["nats_per_token_error"] < result["nats_per_token"] < truth + 0.3
    assert result["command"].startswith("python -m sedd_mini evaluate bound --checkpoint ")
    assert result["windows"] == 200
    assert result["of_windows"] == 4096
    for name in ("nats_per_token", "bits_per_token", "bits_per_character", "perplexity"):
        assert 0 < result[f"{name}_error"] < 0.1 * result[name]
    said = capsys.readouterr()
    assert f"≤ {result['bits_per_token']:.4f} ± " in said.out
    assert "bound: 100%" in said.err


def test_zero_shot_of_the_command(tmp_path):
    (tmp_path / "ptb.txt").write_text(" no it was n't black monday \n" * 200)
    (tmp_path / "wiki.txt").write_text(" = A = \n \n the cat @-@ food , 0 @.@ 5 kg \n" * 200)
    data = f"--data ptb={tmp_path / 'ptb.txt'} --data wikitext2={tmp_path / 'wiki.txt'}"
    line = f"zero-shot --checkpoint {NETS / 'docs-absorb'} {data} --repeats 2 --num 3 --length 32"
    result = evaluate(line, tmp_path / "r.json")
    assert [*result["sets"]] == ["ptb", "wikitext2"]
    ptb, wiki = result["sets"].values()
    assert ptb["tokens"] == wiki["tokens"] == 96
    assert (ptb["documents"], wiki["documents"]) == (1, 200)
    assert ptb["perplexity_per_word"] > 1


def test_samples_of_the_command_under_both_judges(tmp_path, capsys):
    net = f"--checkpoint {NETS / 'synthetic-absorb'} --num 6 --steps 4 --length 16"
    result = evaluate(f"samples {net} --judge synthetic", tmp_path / "r.json")
    assert result["samples"]["tokens"] == result["real"]["tokens"] == 96
    assert result["samples"]["kl_2gram_bits_least_error"] > 0
    assert len(result["examples"]) == 2
    save_judge(tmp_path / "judge", length=64)
    line = f"samples {net} --judge {tmp_path / 'judge'} --data synthetic"
    judged = evaluate(line, tmp_path / "judged.json")
    assert judged["samples"]["unigram_entropy_bits"] == result["samples"]["unigram_entropy_bits"]
    assert judged["samples"]["perplexity"] != result["samples"]["perplexity"]
    assert "kl_2gram_bits_least" not in judged["samples"]
    (tmp_path / "texts.txt").write_text("\n".join(result["examples"] * 2))
    line = f"samples --texts {tmp_path / 'texts.txt'} --judge synthetic"
    again = evaluate(line, tmp_path / "again.json")
    assert again["examples"] == result["examples"]  # the first two of four
    assert again["num"] == 4
    line += f" --judge {tmp_path / 'judge'} --tokenizer {NETS / 'docs-absorb'} --data docs --num 3"
    judged = evaluate(line, tmp_path / "judged.json")
    assert judged["num"] == 3
    assert judged["samples"]["tokens"] > judged["num"]
    assert capsys.readouterr().out.count("unigram entropy") == 8


def test_nothing_is_written_of_what_fails_on_the_way(tmp_path, capsys, monkeypatch):
    save_judge(tmp_path / "judge", length=64, nan=True)
    net, out = f"--checkpoint {NETS / 'synthetic-absorb'}", tmp_path / "out" / "r.json"
    lines = [f"samples {net} --num 2 --steps 1 --data synthetic --judge {tmp_path / 'judge'}",
             f"bound {net} --data synthetic --num 2"]  # fmt: skip
    monkeypatch.setattr(windows_file, "units", lambda *_: units(math.nan, 1.0, 1, 1))
    for line, said in zip(lines, ("gives nan for a text", "nats_per_token came out as nan"),
                          strict=True):  # fmt: skip
        with pytest.raises(SystemExit) as end:
            evaluate(line, out)
        assert said in str(end.value)
        assert not out.parent.exists()
    with pytest.raises(FloatingPointError, match="1 came out as inf"):
        check_finite({"a": [1.0, math.inf]})
