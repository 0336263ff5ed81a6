"""The trainings of chapter 13: equal budgets, the same trials every time, and what is left."""

import importlib
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    return importlib.import_module("beyond_training")


def args_of(tmp_path, **changes):
    return SimpleNamespace(**{"out": tmp_path, "steps": None} | changes)


def tokens(script, unit, args) -> int:
    settings = script.settings_of(unit, args)
    return settings.steps * settings.batch_size * settings.length


def test_what_is_compared_sees_the_same_tokens(script, tmp_path):
    args = args_of(tmp_path)
    for part in script.PARTS:
        units = script.units_of(part, args)
        assert len({u["name"] for u in units}) == len(units)
        of_data = {}
        for u in units:
            of_data.setdefault(u["data"], set()).add(tokens(script, u, args))
        assert all(len(budgets) == 1 for budgets in of_data.values()), part
    whole, share = (tokens(script, script.units_of(part, args)[0], args)
                    for part in ("sizes", "search"))  # fmt: skip
    assert whole == script.SHARE * share


def test_the_search_ends_with_the_best_trial_and_the_default(script, tmp_path):
    """A rate that failed is no best; the trials are the same whoever draws them."""
    args = args_of(tmp_path)
    trials = script.units_of("search", args)
    assert trials == script.units_of("search", args)
    assert len(trials) == script.TRIALS
    assert len({json.dumps(u["changes"]) for u in trials}) == script.TRIALS
    for i, u in enumerate(trials):
        steps = script.settings_of(u, args).steps
        value = None if i == 0 else 5.0 + (i - 3) ** 2
        content = {"steps": steps, "tuning_nats_per_token": value}
        file = script.file_of(u, args)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    last = script.units_of("search", args)[script.TRIALS :]
    assert [u["name"] for u in last] == ["best-seed1", "default-seed1", "best-seed2",
                                         "default-seed2"]  # fmt: skip
    assert last[0]["changes"]["lr"] == script.trial(3)["lr"]
    assert tokens(script, last[0], args) == tokens(script, last[1], args)
    with pytest.raises(ValueError, match="name another --out"):
        script.result_of(trials[0], args_of(tmp_path, steps=3))
