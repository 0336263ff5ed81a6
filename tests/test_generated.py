"""Judging what a model writes: judges, what stands beside them, divergence from a known source."""

import math
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch
from texts import seeded, small_bpe

from sedd_mini.evaluation.generated import (
    CausalJudge,
    Scores,
    check_source,
    divergence,
    draw,
    entropy,
    judge_samples,
    score_by_source,
    statistics,
)
from sedd_mini.model import load
from sedd_mini.text.synthetic import HiddenMarkovChain, SyntheticLanguage

NET = Path(__file__).parents[1] / "chapters/checkpoints/synthetic-absorb"
LANGUAGE = SyntheticLanguage()


def save_judge(folder, length: int = 16, vocab_size: int | None = None, nan: bool = False):
    """A random GPT-2 of two blocks with a small BPE beside it; the model, for comparison."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    backend = small_bpe().backend
    size = backend.get_vocab_size() if vocab_size is None else vocab_size
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=size, n_positions=length, n_embd=8, n_layer=2, n_head=2,
                        initializer_range=1.0)  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    if nan:
        model.transformer.ln_f.weight.data.fill_(math.nan)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(
        folder
    )
    return model


# ---- judges --------------------------------------------------------------------------------------


def test_scores_in_both_forms():
    scores = Scores(torch.tensor([2.0, 6.0, 1.0]), torch.tensor([2, 3, 4]))
    said = scores.as_dict()
    assert said["tokens"] == 9
    assert said["nats_per_token"] == pytest.approx(1)
    assert said["perplexity"] == pytest.approx(math.e)
    forms = [math.exp(1), math.exp(2), math.exp(1 / 4)]
    assert said["perplexity_mean_of_sequences"] == pytest.approx(sum(forms) / 3)
    alone = Scores(torch.tensor([2.0]), torch.tensor([2])).as_dict()
    assert alone["perplexity"] == pytest.approx(math.e)
    assert alone["perplexity_error"] is alone["perplexity_mean_of_sequences_error"] is None
    far = Scores(torch.tensor([2000.0, 1.0]), torch.tensor([2, 2])).as_dict()
    assert far["perplexity_mean_of_sequences"] is None  # beyond what a float holds


def test_error_bars_hold_the_spread_of_many_repetitions():
    generator, found = seeded(), []
    for _ in range(300):
        tokens = torch.randint(5, 20, (50,), generator=generator)
        nats = tokens * (1.5 + 0.5 * torch.randn(50, generator=generator))
        found.append(Scores(nats, tokens).as_dict())
    for name in ("perplexity", "perplexity_mean_of_sequences", "nats_per_token"):
        values = torch.tensor([said[name] for said in found])
        errors = torch.tensor([said[f"{name}_error"] for said in found])
        assert 0.8 < errors.mean() / values.std() < 1.2, name


def test_a_causal_judge_scores_all_tokens_but_the_first(tmp_path):
    model = save_judge(tmp_path)
    judge = CausalJudge(str(tmp_path))
    texts = ["The small cats", "sleep often, and quietly near the river", "zq", "x" * 40]
    scores = judge.score(texts, progress=False)
    for text, nats, tokens in zip(texts, scores.nats, scores.tokens, strict=True):
        ids, expected, count = small_bpe().encode(text), 0.0, 0
        for start in range(0, len(ids), 16):
            x = torch.tensor([ids[start : start + 16]])
            log_p = model(x).logits.log_softmax(-1)[0]
            for i in range(1, x.shape[1]):
                expected -= log_p[i - 1, x[0, i]].item()
                count += 1
        assert tokens == count
        assert nats == pytest.approx(expected, rel=1e-4)
    assert judge.score(texts[:1], progress=False).nats[0] == pytest.approx(scores.nats[0])


def test_an_end_of_text_is_one_token_of_the_judge(tmp_path):
    save_judge(tmp_path)
    judge = CausalJudge(str(tmp_path))
    assert judge.score(["a<|endoftext|>b"], progress=False).tokens == 2


@pytest.mark.parametrize(("judge", "text", "error", "message"), [
    ({}, "a", ValueError, "text 1 has 1 tokens of the judge"),
    ({"nan": True}, "a b", FloatingPointError, "gives nan for a text: are its weights whole"),
    ({"vocab_size": 5}, "a b", ValueError, "another tokeniser lies beside it"),
])  # fmt: skip
def test_what_a_judge_cannot_score(tmp_path, judge, text, error, message):
    save_judge(tmp_path, **judge)
    with pytest.raises(error, match=message):
        CausalJudge(str(tmp_path)).score(["a b c" if not judge else text, text], progress=False)


def test_a_judge_that_is_not_there(tmp_path):
    (tmp_path / "config.json").write_text("{")
    for name in ("no/such-judge", str(tmp_path), "gpt2-of-nobody"):
        with pytest.raises(FileNotFoundError, match=f"the judge '{name}' could not be") as caught:
            CausalJudge(name)
        assert "\n" not in str(caught.value)


def test_a_judge_of_the_hub_is_asked_for_once(tmp_path, monkeypatch):
    import huggingface_hub

    from sedd_mini.evaluation import generated

    save_judge(tmp_path)
    calls, load_causal = [], generated.load_causal

    def fake(name, **options):
        calls.append(options)
        if name != "a/judge" or options:
            raise OSError("not in the cache\nat all")
        return load_causal(str(tmp_path))

    class Api:
        def model_info(self, name, timeout):
            calls.append(name)
            if name != "a/judge":
                raise ConnectionError("no network")

    monkeypatch.setattr(generated, "load_causal", fake)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    assert CausalJudge("a/judge").length == 16
    assert calls == [{"local_files_only": True}, "a/judge", {}]
    calls.clear()
    with pytest.raises(FileNotFoundError, match="ConnectionError: no network"):
        CausalJudge("no/judge")
    assert calls == [{"local_files_only": True}, "no/judge"]


def test_the_source_scores_exactly():
    rows = [*LANGUAGE.sample(3, 5, seeded()).tolist(), [1]]
    scores = score_by_source(LANGUAGE, rows)
    assert scores.tokens.tolist() == [5, 5, 5, 1]
    assert scores.nats[1] == pytest.approx(-LANGUAGE.log_prob(torch.tensor([rows[1]])).item())
    with pytest.raises(ValueError, match="tokens of another tokeniser \\(BPETokenizer of"):
        check_source(small_bpe(), LANGUAGE)
    check_source(LANGUAGE.tokenizer(), LANGUAGE)


# ---- samples and statistics ----------------------------------------------------------------------


def test_samples_are_those_that_write_shows():
    model = load(NET, "cpu")
    rows = draw(model, 18, length=7, steps=2, seed=4, progress=False)
    assert [model.tokenizer.decode(row) for row in rows] == model.write(18, 7, 2, seed=4)
    assert draw(model, 2, length=7, steps=2, seed=4, progress=False) == rows[:2]
    with pytest.raises(ValueError, match="more than the 32"):
        draw(model, 2, length=99)


def test_statistics_by_hand():
    said = statistics([[1, 1, 2, 2], [3, 3, 3, 3, 3, 3]])
    assert said["unigram_entropy_bits"] == pytest.approx(0.5)
    assert said["unigram_entropy_bits_error"] == pytest.approx(0.5)
    assert said["pooled_entropy_bits"] == pytest.approx(entropy(Counter({1: 2, 2: 2, 3: 6})))
    assert said["distinct_1"] == pytest.approx(3 / 10)
    assert said["distinct_2"] == pytest.approx(4 / 8)
    assert said["distinct_3"] == pytest.approx(3 / 6)
    assert said["repetition"] == pytest.approx((0 + 2 / 3) / 2)
    short = statistics([[1, 2]])
    assert short["repetition"] is short["distinct_3"] is short["unigram_entropy_bits_error"] is None


# ---- divergence ----------------------------------------------------------------------------------


def exact_divergence(q: HiddenMarkovChain, p: HiddenMarkovChain, n: int) -> float:
    grams = torch.tensor([*product(range(p.vocab_size), repeat=n)])
    log_q, log_p = q.log_prob(grams), p.log_prob(grams)
    there = log_q > -math.inf
    return (log_q.exp() * (log_q - log_p))[there].sum().item() / math.log(2)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_divergence_of_true_samples_is_zero_within_its_error(n):
    """From below; counted naively it is far above 0."""
    found = [divergence(LANGUAGE, LANGUAGE.sample(100, 24, seeded(s)), n) for s in range(8)]
    for one in found:
        assert -0.01 < one.least < 3 * one.least_error + 1e-4
        assert one.most > 3 * one.most_error or n == 1
        assert one.most > 0


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("num", [64, 800])
def test_divergence_of_another_law_encloses_the_exact_one(n, num):
    """Richer and poorer laws: slips, no slips, neighbours lost; by enumeration of all n-grams."""
    shuffled = HiddenMarkovChain(LANGUAGE.stationary.expand(28, -1), LANGUAGE.emission)
    for other in (SyntheticLanguage(0.2), SyntheticLanguage(0.0), shuffled):
        truth = exact_divergence(other, LANGUAGE, n)
        found = divergence(LANGUAGE, other.sample(num, 32, seeded(1)), n)
        assert found.least - 3 * found.least_error < truth < found.most + 3 * found.most_error
        if num == 800 and n == 2:  # n-grams enough: near it, from below
            assert found.least > 0.7 * truth
            assert found.least > 5 * found.least_error


def test_the_error_of_a_divergence_is_its_spread():
    found = [divergence(LANGUAGE, SyntheticLanguage(0.2).sample(100, 16, seeded(s)), 2)
             for s in range(30)]  # fmt: skip
    for value, error in (("least", "least_error"), ("most", "most_error")):
        spread = torch.tensor([getattr(one, value) for one in found]).std()
        mean = torch.tensor([getattr(one, error) for one in found]).mean()
        assert 0.6 < mean / spread < 1.7, value


def test_divergence_needs_samples():
    with pytest.raises(ValueError, match="at least 4 samples, got 1"):
        divergence(LANGUAGE, LANGUAGE.sample(1, 8), 1)
    with pytest.raises(ValueError, match="n must be a whole number"):
        divergence(LANGUAGE, LANGUAGE.sample(9, 2), 3)


def test_poor_samples_that_please_a_judge_are_found_out():
    """One likely sentence again and again: better perplexity than real text, and all else worse."""
    real = LANGUAGE.sample(64, 24, seeded(0)).tolist()
    words = LANGUAGE.tokenizer().encode("a cat sleeps .")
    samples = [words * 6 for _ in real]
    result = judge_samples(samples, real, lambda rows: score_by_source(LANGUAGE, rows), LANGUAGE)
    poor, rich = result["samples"], result["real"]
    assert poor["perplexity"] < rich["perplexity"] - 3 * rich["perplexity_error"]
    assert result["entropy_difference_bits"] < -1
    assert poor["repetition"] > 0.7
    assert poor["distinct_2"] < rich["distinct_2"]
    assert poor["kl_1gram_bits_least"] > 1
    assert poor["kl_3gram_bits_least"] > poor["kl_1gram_bits_least"]
    assert rich["kl_3gram_bits_least"] < 0.01


def test_samples_and_real_text_must_be_alike():
    def score(rows):
        return score_by_source(LANGUAGE, rows)

    with pytest.raises(ValueError, match="the same lengths"):
        judge_samples([[1, 2]], [[1]], score)
    with pytest.raises(ValueError, match="samples of one length: cut"):
        judge_samples([[1, 2], [1]], [[1, 3], [2]], score, LANGUAGE)
    assert "kl_1gram_bits_least" not in judge_samples([[1, 2]], [[1, 3]], score)["samples"]
