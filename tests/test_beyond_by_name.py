"""The later samplers are used like the others: by name, from a TextModel, from the command line."""

import pytest
import torch
from worlds import seeded

from sedd_mini import AbsorbingGraph, GeometricNoise, LogLinearNoise, TextModel, UniformGraph
from sedd_mini.__main__ import main
from sedd_mini.beyond.confidence import ByConfidence
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.network.pretrained import save_pretrained
from sedd_mini.samplers import SAMPLERS as NAMED
from sedd_mini.samplers import find_step, generators, sample
from sedd_mini.text.tokenizers import WordTokenizer

SAMPLERS = [name for name in NAMED if name != "blocks"]  # which is for a network of its own
WORDS = WordTokenizer(["a", "b", "c", "d", "e"])
EVERY_GRAPH = ("tweedie", "euler", "corrector")
LATER = [name for name in SAMPLERS if name not in EVERY_GRAPH]


def text_model(graph=AbsorbingGraph, noise=None) -> TextModel:
    torch.manual_seed(0)
    absorbing = graph is AbsorbingGraph
    sizes = {"length": 6, "width": 8, "num_blocks": 1, "num_heads": 2}
    network = DiffusionTransformer(DiTConfig(5, absorbing=absorbing, **sizes)).eval()
    torch.nn.init.normal_(network.output_layer.linear.weight, std=0.5)
    return TextModel(network, graph(5), noise or LogLinearNoise(), WORDS)


MODEL, UNIFORM = text_model(), text_model(UniformGraph, GeometricNoise())


@pytest.mark.parametrize("name", SAMPLERS)
def test_write_and_fill(name):
    three = MODEL.write(3, steps=4, seed=2, prompt="a b", sampler=name)
    assert all(text.split()[:2] == ["a", "b"] and len(text.split()) == 6 for text in three)
    assert MODEL.write(1, steps=4, seed=2, prompt="a b", sampler=name) == three[:1]
    assert MODEL.write(3, steps=4, seed=2, prompt="a b", sampler=find_step(name)) == three
    (filled,) = MODEL.fill("a ____ c", steps=2, sampler=name)
    assert filled.split()[0::2] == ["a", "c"]


@pytest.mark.parametrize("name", LATER)
def test_a_uniform_graph_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=r"is for the absorbing graph.*got UniformGraph\(5\)") as e:
        UNIFORM.write(1, steps=2, sampler=name)
    assert "\n" not in str(e.value)
    for fine in EVERY_GRAPH:
        assert len(UNIFORM.write(1, steps=2, sampler=fine)[0].split()) == 6


@pytest.mark.parametrize("name", SAMPLERS)
def test_some_positions_given_in_one_sequence_and_not_in_another(name):
    """Every sampler leaves them as they are, ends without MASK, and draws as if alone."""
    clamp = torch.tensor([[1, -1, -1, 4, -1, -1], [-1, -1, 2, -1, -1, 0]])
    run = MODEL.network, MODEL.graph, MODEL.noise
    x = sample(*run, (2, 6), 3, name, clamp=clamp, generator=generators(1, 2))
    assert torch.equal(x[clamp >= 0], clamp[clamp >= 0])
    assert (x < 5).all()
    alone = sample(*run, (1, 6), 3, name, clamp=clamp[1], generator=generators(1, 1, 1))
    assert torch.equal(alone, x[1:])


def test_a_network_that_gives_no_distribution_is_named():
    def broken(x, sigma, at):
        return torch.full((int(at.sum()), 6), torch.nan)

    run = broken, AbsorbingGraph(5), LogLinearNoise(), (2, 6), 2
    clamp = torch.tensor([2] + [-1] * 5)
    for name in LATER:
        with pytest.raises(ValueError, match="log-scores hold NaN") as error:
            sample(*run, name, clamp=clamp, generator=seeded())
        assert "\n" not in str(error.value)


def test_the_command(tmp_path, capsys):
    """In this process: each name writes what the TextModel writes; what is wrong is one line."""
    folder, uniform = tmp_path / "absorb", tmp_path / "uniform"
    for place, model in ((folder, MODEL), (uniform, UNIFORM)):
        save_pretrained(place, model.network, model.graph, model.noise, WORDS)
    common = ["--checkpoint", str(folder), "--steps", "3", "--device", "cpu"]
    for name in SAMPLERS:
        main(["sample", *common, "--sampler", name, "--prompt", "c"])
        text = MODEL.write(1, steps=3, prompt="c", sampler=name)[0]
        assert capsys.readouterr().out.strip() == text
    wrong = [(name, "is for the absorbing graph") for name in LATER]
    wrong += [("analytic", "invalid choice: 'analytic'"), ("guidance", "needs something given")]
    for name, message in wrong:
        common[1] = str(folder if "given" in message else uniform)
        with pytest.raises(SystemExit) as stop:
            main(["sample", *common, "--sampler", name])
        lines = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code not in (0, None)
        assert message in lines[-1]
        assert "Traceback" not in "".join(lines)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SAMPLERS)
def test_on_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    network, clamp = text_model().network.to("cuda"), torch.tensor([1, -1, -1, 4, -1, -1])
    x = sample(network, MODEL.graph, MODEL.noise, (3, 6), 4, name, clamp=clamp,
               generator=generators(1, 3))  # fmt: skip
    assert x.device.type == "cuda"
    assert (x < 5).all()


def test_a_threshold_in_a_text_model():
    sure = ByConfidence(threshold=0.3)
    assert MODEL.write(2, steps=6, sampler=sure) == MODEL.write(2, steps=6, sampler=sure)
    with pytest.raises(ValueError, match=r"threshold must be a probability in \[0, 1\], got 2"):
        MODEL.write(2, steps=6, sampler=ByConfidence(threshold=2))
