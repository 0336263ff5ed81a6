"""The frozen digits, rows of label and pixels, naming by the conditional score, and baselines."""

import lzma
import math

import numpy as np
import pytest
import torch

from sedd_mini.beyond.pictures import (
    label_log_prob,
    left_and_above,
    naming_loss,
    pixel_bits,
    plain_classifier,
)
from sedd_mini.evaluation.rivals import Clock
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.text import digits as module
from sedd_mini.text.digits import (
    HASH,
    as_picture,
    digits,
    digits_corpus,
    label_word,
    main,
    split_digits,
)
from sedd_mini.training.settings import Settings
from sedd_mini.training.trainer import Trainer

GRAPH = AbsorbingGraph(27)


def test_the_digits_are_the_frozen_ones():
    pictures, labels = digits()
    assert pictures.shape == (1797, 64)
    assert (pictures.min(), pictures.max()) == (0, 16)
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    first = [0, 0, 5, 13, 9, 1, 0, 0]  # as scikit-learn's documentation prints it
    assert pictures[0, :8].tolist() == first
    assert labels[:10].tolist() == list(range(10))
    folder = module.FROZEN.parent
    assert "scikit-learn developers" in (folder / "SKLEARN_LICENSE.txt").read_text()
    assert HASH in (folder / "README.md").read_text()


@pytest.mark.parametrize("damage", [b"text", None])
def test_damage_to_the_frozen_file_is_found(damage, tmp_path, monkeypatch):
    packed = module.FROZEN.read_bytes()
    other = bytearray(lzma.decompress(packed))
    other[100] ^= 1
    (tmp_path / "digits.xz").write_bytes(damage or lzma.compress(bytes(other)))
    monkeypatch.setattr(module, "FROZEN", tmp_path / "digits.xz")
    with pytest.raises(ValueError, match=r"digits\.xz is damaged: install"):
        digits.__wrapped__()


def test_the_command_packs_a_table_with_the_label_first(tmp_path, capsys):
    (tmp_path / "in.csv").write_text(",".join(map(str, [*range(1, 17), *[0] * 48, 7])) + "\n" * 2)
    main([str(tmp_path / "in.csv"), str(tmp_path / "out.xz")])
    content = lzma.decompress((tmp_path / "out.xz").read_bytes())
    assert list(content) == [7, *range(1, 17), *[0] * 48]
    assert "not those of the package" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="usage"):
        main([])


def test_rows_of_label_and_pixels():
    train, valid = split_digits()
    assert (len(train), len(valid)) == (1498, 299)
    share = np.bincount(valid[:, 0]) / len(valid)
    assert 0.08 < share.min() < share.max() < 0.13
    with_labels, pixels = digits_corpus(labels=True), digits_corpus()
    assert with_labels.tokenizer.vocab_size == 27
    assert pixels.tokenizer.vocab_size == 17
    rows = with_labels.valid[:]
    assert rows[:, 0].tolist() == (valid[:, 0].astype(int) + 17).tolist()
    assert torch.equal(rows[:, 1:], pixels.valid[:])
    assert label_word(0) == 17
    assert label_word(9) == 26
    for bad in (10, -1, 2.5, True, "3"):
        with pytest.raises(ValueError, match="a label must be a whole number"):
            label_word(bad)


def test_a_row_as_a_picture():
    row = [19, *[0] * 7, 16, *[17] * 8, *[8] * 48]  # 17 is MASK where there are no labels
    lines = as_picture(row).splitlines()
    assert lines == ["2", " " * 7 + "@", "?" * 8, *["=" * 8] * 6]
    assert as_picture(row[1:]).splitlines() == lines[1:]
    assert as_picture([27, *row[1:]]).startswith("?\n")
    assert digits_corpus().tokenizer.decode(row[1:]) == as_picture(row[1:])


def test_naming_reads_the_label_words_at_the_label(monkeypatch):
    """A model that knows: its log-score of each state at each place is a number of its own."""

    def model(x, sigma, at):
        assert x[:, 0].tolist() == [27] * len(x)
        assert torch.allclose(1 - torch.exp(-sigma), torch.tensor(1 / 65))
        place, state = torch.arange(65)[:, None], torch.arange(28)
        table = (torch.sin(place * 3.0 + state) + x.sum(1)[:, None, None] / 100).double()
        return table[at]

    pictures = torch.randint(17, (5, 64), generator=torch.Generator().manual_seed(0))
    found = label_log_prob(model, GRAPH, pictures, batch_size=2)
    expected = torch.sin(torch.arange(17.0, 27)).double().log_softmax(-1)
    torch.testing.assert_close(found, expected.expand(5, -1), rtol=0, atol=1e-6)
    rows = torch.cat([torch.full((5, 1), 17 + 4), pictures], 1)
    sigma = torch.full((5,), -math.log(1 - 1 / 65))
    loss = naming_loss(model, GRAPH, rows, sigma, x0=rows)
    torch.testing.assert_close(loss, -found[:, 4])
    monkeypatch.setattr("sedd_mini.beyond.pictures.LEVELS", 16)  # the likely bug: one word off
    with pytest.raises(ValueError, match="labels are named on AbsorbingGraph"):
        label_log_prob(model, GRAPH, pictures)


def test_bad_pictures_are_one_line_each():
    def model(x, sigma, at):
        return torch.zeros(int(at.sum()), 28)

    pictures = torch.zeros(2, 64, dtype=torch.int64)
    cases = [
        (lambda: label_log_prob(model, UniformGraph(27), pictures), "AbsorbingGraph"),
        (lambda: label_log_prob(model, AbsorbingGraph(17), pictures), "AbsorbingGraph"),
        (lambda: label_log_prob(model, GRAPH, pictures[:, 1:]), r"must be \(M, 64\)"),
        (lambda: label_log_prob(model, GRAPH, pictures + 17), r"must lie in \[0, 17\)"),
        (lambda: naming_loss(model, GRAPH, pictures, torch.ones(2)), "needs x0"),
        (lambda: pixel_bits(pictures, pictures, strength=0), "strength must be a number"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()


def test_the_baselines_by_hand():
    """On few pictures, pixel by pixel in plain Python; and on all, better than a guess."""
    generator = np.random.default_rng(0)
    train, valid = (generator.integers(0, 3, (n, 64)) * 8 for n in (4, 2))
    left, above = left_and_above(valid)
    for row, r, c in ((0, 0, 0), (1, 3, 0), (0, 0, 5), (1, 7, 7)):
        square, k = valid[row].reshape(8, 8), 8 * r + c
        assert left[row, k] == (square[r, c - 1] if c else 17)
        assert above[row, k] == (square[r - 1, c] if r else 17)
    total = {False: 0.0, True: 0.0}
    for picture in valid:
        for k in range(64):
            at_place = sum(t[k] == picture[k] for t in train) + 0.5
            at_place /= len(train) + 17 / 2

            def around(p, k=k):
                return (p[k - 1] if k % 8 else 17, p[k - 8] if k >= 8 else 17)

            seen = [t[j] for t in train for j in range(64) if around(t, j) == around(picture)]
            near = (seen.count(picture[k]) + 2.0 * at_place) / (len(seen) + 2.0)
            total[False] -= math.log2(at_place) / 128
            total[True] -= math.log2(near) / 128
    for neighbours, bits in total.items():
        assert pixel_bits(train, valid, neighbours, strength=2.0) == pytest.approx(bits)
    train, valid = (part[:, 1:] for part in split_digits())
    places, near = (pixel_bits(train, valid, neighbours) for neighbours in (False, True))
    assert near < places < math.log2(17)


def test_the_trainer_takes_pictures_labels_and_the_naming_loss():
    sizes = {"width": 16, "num_blocks": 1, "num_heads": 2, "cond_dim": 8, "batch_size": 16,
             "steps": 2, "valid_every": 0, "valid_blocks": 4, "valid_repeats": 2, "device": "cpu",
             "time_conditioning": False}  # fmt: skip
    for graph in ("absorb", "uniform"):
        trainer = Trainer(Settings(graph=graph, length=64, **sizes), digits_corpus())
        assert math.isfinite(trainer.run()[-1]["valid"])
    settings = Settings(length=65, **sizes)
    corpus = digits_corpus(labels=True)
    trainer = Trainer(settings, corpus, noise=Clock(), loss=naming_loss)
    loss = trainer.mean_loss(*trainer.draw_batch()).item() * 65  # a mean over the tokens
    assert loss == pytest.approx(math.log(10), rel=1e-5)
    trainer.run()
    assert "valid_loss" in trainer.history[-1]


def test_the_plain_classifier_learns_and_is_the_same_again():
    corpus = digits_corpus(labels=True)
    rows, valid = corpus.train[:], corpus.valid[:]
    net = plain_classifier(rows, 200)
    right = (net(valid[:, 1:]).argmax(1) + 17 == valid[:, 0]).float().mean().item()
    assert right > 0.9
    assert torch.equal(net(valid[:5, 1:]), plain_classifier(rows, 200)(valid[:5, 1:]))


def test_a_classifier_of_one_hot_levels_reads_them_without_their_order():
    """To swap two levels everywhere, and the weights that read them, changes nothing."""
    corpus = digits_corpus(labels=True)
    rows, valid = corpus.train[:], corpus.valid[:]
    net = plain_classifier(rows, 200, one_hot=True)
    before = net(valid[:, 1:])
    assert (before.argmax(1) + 17 == valid[:, 0]).float().mean().item() > 0.85
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))  # level k → order[k]
    with torch.no_grad():
        weights = net[1].weight.unflatten(1, (64, 17))
        weights[:, :, order] = weights.clone()
    assert torch.allclose(net(order[valid[:, 1:]]), before, atol=1e-5)
    assert not torch.allclose(net(valid[:, 1:]), before, atol=1e-2)
