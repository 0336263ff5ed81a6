"""figures/: the film of README shows what the network wrote, and nothing else."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sedd_mini
from sedd_mini.graphs import GRAPHS

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "figures"
spec = importlib.util.spec_from_file_location("make_figures", FIGURES / "make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)


@pytest.fixture(scope="module")
def model():
    return sedd_mini.load(ROOT / "chapters/checkpoints/docs-absorb", device="cpu")


def test_the_frames_end_with_the_text_that_the_model_writes(model):
    frames = make.history(model, "Return the", 16, 6, 3, " file.")
    assert frames.shape == (6 + 2, 16)  # the start, six steps, the last one
    text = model.write(1, 16, 6, "Return the", " file.", seed=3)[0]
    assert model.tokenizer.decode(frames[-1].tolist()) == text
    hidden = (frames == model.graph.mask_id).sum(1).tolist()
    assert hidden[0] == 16 - len(model.tokenizer.encode("Return the" + " file."))
    assert hidden[-1] == 0
    assert hidden == sorted(hidden, reverse=True)


def test_the_layout_keeps_every_letter_within_its_lines():
    pieces = ["Re", "turn", " the", " out", "er", "most", " thing", "\n\n", "A", " b", "."]
    places = make.layout(pieces, 12)
    lines = ["".join(text for at, _, text in places if at == line) for line in range(3)]
    assert [line.strip() for line in lines] == ["Return the", "outermost", "thing  A b."]
    ends = {}
    for line, column, text in places:
        assert column == ends.get(line, 0)  # no overlap, no hole
        ends[line] = column + len(text)
    assert max(ends.values()) <= 12
    assert places[3][0] == places[5][0]  # "outermost" is not broken


def test_a_film_is_drawn_from_those_frames(model, tmp_path):
    images = make.film(model, "Return the", 12, 4, seed=0, suffix=" file.")
    make.save(images, tmp_path / "film.gif")
    film = Image.open(tmp_path / "film.gif")
    assert film.n_frames == len(images) >= 4
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]
    blue = [(np.array(image) == (0, 87, 168)).all(-1).any() for image in images]
    assert not blue[0]  # nothing has come yet
    assert any(blue[1:-1])
    assert not blue[-1]


def test_the_film_of_readme_is_there_and_small():
    path = FIGURES / "film.gif"
    film = Image.open(path)
    assert film.n_frames > 20
    assert film.size[0] <= 900
    assert path.stat().st_size < 300_000


def test_the_python_of_readme_prints_what_is_said_there(monkeypatch, capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    monkeypatch.chdir(ROOT)
    exec(code.replace('docs-absorb")', 'docs-absorb", device="cpu")'), {})
    written, fills, first, second = capsys.readouterr().out.strip().rsplit("\n", 3)
    assert written.startswith("Return the")
    assert f"# {fills}\n" in code
    bits = [float(re.search(r"([\d.]+) bits a char", line)[1]) for line in (first, second)]
    assert f"at most {bits[0]:.2f} bits a character" in code
    assert f"and {bits[1]:.2f} for its words shuffled" in code
    film = f'prompt="{make.PROMPT}", suffix="{make.SUFFIX}", length={make.LENGTH})'
    assert film in code
    assert (make.STEPS, make.SEED) == (128, 0)  # what `write` takes where nothing is said


@pytest.mark.slow
def test_the_ring_of_readme_is_exact_and_learned(capsys):
    """The estimate lies within 4 standard errors of the exact bound of the same network."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1]
    try:
        exec(code, {})
    finally:
        GRAPHS.pop("ring", None)
    said = capsys.readouterr().out
    exact, bound, truth = map(float, re.findall(r"^tensor\(([\d.e-]+)", said, re.M))
    estimate, error = map(float, re.findall(r"^≤ ([\d.]+) ± ([\d.]+)", said, re.M)[-1])
    assert exact < 1e-9
    assert f"# {truth:.2f}: the truth" in code
    assert truth < bound < truth + 0.2
    assert abs(estimate - bound) < 4 * error + 0.02  # validation texts are a draw of 1000
