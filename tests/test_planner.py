"""The planner's figures against what PyTorch counts and what a step takes."""

import copy
import json
import math
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed._tools.mem_tracker import MemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.flop_counter import FlopCounterMode

from sedd_mini.commands.plan import main as plan_command
from sedd_mini.commands.plan import vocabulary
from sedd_mini.graphs import AbsorbingGraph, UniformGraph
from sedd_mini.network.dit import DiffusionTransformer, DiTConfig
from sedd_mini.training import distributed, planner
from sedd_mini.training.settings import preset

SMALL = {"num_tokens": 2000, "length": 64, "width": 64, "num_blocks": 3, "num_heads": 4}


@pytest.mark.parametrize(
    ("width", "num_blocks", "num_heads", "millions"), [(768, 12, 12, 169.6), (1024, 24, 16, 424.5)]
)
def test_parameters_and_forward_flops_of_the_published_sizes(
    width, num_blocks, num_heads, millions
):
    c = DiTConfig(width=width, num_blocks=num_blocks, num_heads=num_heads)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = DiffusionTransformer(c)
        model(torch.zeros(1, 1024, dtype=torch.int64), torch.ones(1))
    assert planner.parameters(c) == sum(p.numel() for p in model.parameters())
    assert planner.parameters(c) / 1e6 == pytest.approx(millions, abs=0.05)
    assert counter.get_total_flops() == sum(planner.forward_flops(c, 1024).values())


@pytest.mark.parametrize("graph", [AbsorbingGraph(2000), UniformGraph(2000)])
def test_training_flops_are_those_of_a_step(graph):
    """To 0.1 %: the first layer of all needs no gradient for its input. In bfloat16, as the counter
    does not know the fused attention of CPUs."""
    c = DiTConfig(**SMALL, absorbing=graph.mask_id is not None)
    model, x0 = DiffusionTransformer(c), torch.randint(2000, (4, 64))
    x = x0 if graph.mask_id is None else torch.where(torch.arange(64) % 2 == 0, 2000, x0)
    with FlopCounterMode(display=False) as counter, torch.autocast("cpu", torch.bfloat16):
        model(x, torch.ones(4), x0=x0, graph=graph).mean().backward()
    assert counter.get_total_flops() == pytest.approx(4 * planner.training_flops(c, 64), rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "batch", "precision"),
    [
        ({}, 32, "float32"), ({"dropout": 0.0}, 16, "float32"), ({}, 32, "bfloat16"),
        ({"checkpoint_activations": True}, 32, "float32"),
        ({"num_tokens": 20_000, "width": 192}, 16, "float32"),
    ],
)  # fmt: skip
def test_memory_is_that_of_a_step(changes, batch, precision):
    """To 10 %, on a CPU, with Adam and the average, and gradients that stay, as with DDP."""
    c = DiTConfig(**SMALL | changes)
    model, graph = DiffusionTransformer(c), AbsorbingGraph(c.num_tokens)
    average, optimizer = copy.deepcopy(model), torch.optim.AdamW(model.parameters(), fused=True)
    x0 = torch.randint(c.num_tokens, (batch, c.length))
    x = torch.where(torch.arange(c.length) % 2 == 0, graph.mask_id, x0)

    def step():
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(x, torch.ones(batch), x0=x0, graph=graph).mean()
        loss.backward()
        optimizer.step()

    step()
    tracker = MemTracker()
    tracker.track_external(model, average, optimizer)
    with tracker:
        step()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    planned = planner.memory(c, c.length, batch, precision, device="cpu")
    assert sum(planned.values()) == pytest.approx(peak["Total"], rel=0.1)


@pytest.fixture
def one_of_four():
    """This process as one of four, of which the others do not exist: nothing arrives from them."""
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield
    dist.destroy_process_group()


def allocated_peak(work) -> int:
    """The most bytes that `work()` has taken at a time on the CPU, as its allocator tells."""
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    taken, peak = 0, 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        taken += change
        peak = max(peak, taken)
    return peak


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "changes", [{"num_tokens": 20_000, "width": 192}, {"width": 256, "num_blocks": 8}]
)
def test_memory_of_shares_is_that_of_a_step(one_of_four, changes, accumulate):
    """FSDP over four processes: to 10 % in parts, which keep all gradients whole; to 15 % without,
    where these do not come to be all at once."""
    c = DiTConfig(**SMALL | changes)
    batch = 4
    model, graph = DiffusionTransformer(c), AbsorbingGraph(c.num_tokens)
    average = copy.deepcopy(model)
    distributed.shard(model, "cpu")
    distributed.shard(average, "cpu")
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    x0 = torch.randint(c.num_tokens, (batch, c.length))
    x = torch.where(torch.arange(c.length) % 2 == 0, graph.mask_id, x0)

    def step():
        optimizer.zero_grad(set_to_none=True)
        for part in range(accumulate):
            distributed.exchange(model, last=part == accumulate - 1)
            model(x, torch.ones(batch), x0=x0, graph=graph).mean().backward()
        optimizer.step()

    step()
    optimizer.zero_grad(set_to_none=True)
    planned = planner.memory(c, c.length, batch, "float32", 4, "cpu", accumulate)
    there = 4 * 4 * planner.parameters(c) / 4  # weights, moments, average
    rel = 0.1 if accumulate > 1 else 0.15
    assert there + allocated_peak(step) == pytest.approx(sum(planned.values()), rel=rel)


def test_parts_need_whole_gradients():
    """With FSDP, two parts take more than one of that size: gradients that else are elsewhere."""
    c = DiTConfig()
    one, two = (planner.memory(c, 1024, 8, shares=8, accumulate=k) for k in (1, 2))
    more = {name: two[name] - one[name] for name in one if two[name] != one[name]}
    assert more.keys() == {"gradients"}
    elsewhere = 7 / 8 * 12 * planner.block_parameters(c)  # embedding and head are whole anyway
    assert more["gradients"] == pytest.approx(4 * elsewhere)
    assert two["gradients"] == 4 * planner.parameters(c)


def test_command_line(capsys):
    plan_command(["--gpus", "8", "--kind", "h100", "--price", "2.5", "--steps", "1300000"])
    out = capsys.readouterr().out
    assert "169.6 M parameters, 1,300,000 steps of 512 × 1024 tokens" in out
    assert "arithmetic: 5.03e+20 FLOPs" in out  # 6e20 if the head worked on all positions
    hours = 5.034e20 / (8 * 989e12 * 0.4) / 3600
    assert f"time: {hours:.1f} hours on 8 × h100 at 40% of 989 TFLOP/s each (bfloat16)" in out
    assert "\n  40% is an assumption; measured: 12%, SEDD small on one h100; with --com" in out
    assert "(measured)" not in out  # nothing is recomputed
    assert "cost: 884 at 2.5 a GPU and hour\n" in out
    plan_command(["--preset", "medium", "--kind", "rtx4090", "--gpus", "4", "--parallel", "fsdp",
                  "--checkpoint-activations"])  # fmt: skip
    out = capsys.readouterr().out
    assert "--accumulate 2" in out
    assert "\n  recomputing took 1.17 times the plan on one h100 (measured)\n" in out
    with pytest.raises(SystemExit, match="3 GPUs do not divide"):
        plan_command(["--gpus", "3"])


@pytest.mark.parametrize("name", ["synthetic", "docs"])
def test_a_plan_has_the_vocabulary_of_the_run(name):
    s = preset(name)
    assert vocabulary(s) == s.make_corpus().tokenizer.vocab_size
    assert vocabulary(preset("small")) == 50_257


def test_what_a_plan_calls_measured_was_measured():
    path = Path(__file__).resolve().parents[1] / "chapters/results/full-size-speed.json"
    found = json.loads(path.read_text())
    assert "H100" in found["device"]
    reached = {name: report["flops_per_s"] / planner.KINDS["h100"][0]
               for name, report in found["variants"].items()}  # fmt: skip
    assert round(reached["bfloat16"], 2) == planner.MEASURED_UTILISATION
    assert round(reached["bfloat16, compiled"], 2) == planner.MEASURED_COMPILED
    over = {}
    for name, recompute in (("bfloat16", False), ("bfloat16, recomputed", True)):
        planned = planner.memory(DiTConfig(checkpoint_activations=recompute), 1024, 64)
        over[recompute] = found["variants"][name]["peak_memory"] / sum(planned.values())
    assert over[False] == pytest.approx(1, rel=0.05)
    assert round(over[True], 2) == planner.MEASURED_RECOMPUTED


def test_a_gpu_without_bfloat16_is_planned_in_float32():
    """T4 and V100 have none in hardware, so that a run there multiplies in float32: no copies of
    the weights, larger activations, and the data sheet's speed of float32."""
    assert set(planner.NO_BFLOAT16) <= planner.KINDS.keys()
    said = planner.plan(preset("small", steps=1000), gpus=1, kind="t4")
    hours = planner.training_flops(DiTConfig(), 1024) * 512 * 1000 / (8.1e12 * 0.4) / 3600
    assert f"time: {hours:,.1f} hours on 1 × t4 at 40% of 8.1 TFLOP/s each (float32)" in said
    assert re.search(r"copies in bfloat16 +0\.00 GB", said)
    (parts,) = re.findall(r"--accumulate (\d+)", said)
    for k, fits in ((int(parts), True), (int(parts) // 2, False)):
        need = planner.memory(DiTConfig(), 1024, 512 // k, "float32", accumulate=k)
        assert (sum(need.values()) <= 0.9 * 16e9) is fits


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus": 0}, "gpus must be a whole number from 1, got 0"), ({"gpus": 2.0}, "gpus must be"),
        ({"num_tokens": 0}, "num_tokens must be"), ({"kind": "tpu"}, "no GPU 'tpu' is known"),
        ({"utilisation": 0}, "utilisation must be above 0"),
        ({"utilisation": 1.1}, "utilisation must be"), ({"utilisation": math.nan}, "utilisation"),
        ({"price": -1}, "price must be"), ({"price": math.inf}, "price must be"),
    ],
)  # fmt: skip
def test_numbers_of_a_plan_have_ranges(given, message):
    with pytest.raises(ValueError, match=message):
        planner.plan(preset("small"), **given)
    planner.plan(preset("small"), utilisation=1.0, price=0)


def test_what_would_fit_is_advised_and_fits():
    s = preset("small")
    assert planner.fitting(preset("docs"), 1024, "cpu", 24e9) is None
    said = planner.fitting(s, 50_257, "cuda", 80e9, "bfloat16")
    k = int(re.search(r"--accumulate (\d+) takes", said)[1])
    assert "there are 80.0 GB (cuda)" in said
    assert "checkpoint-activations" not in said
    assert planner.fitting(preset("small", accumulate=k), 50_257, "cuda", 80e9, "bfloat16") is None
    fewer = preset("small", accumulate=k // 2)
    assert planner.fitting(fewer, 50_257, "cuda", 0.9 * 80e9, "bfloat16")
    # one sequence of this length fits only where blocks are computed twice
    said = planner.fitting(preset("small", length=16_384, batch_size=4), 50_257, "cuda", 14e9)
    assert "--checkpoint-activations takes" in said
    assert "one sequence at a time" in planner.fitting(s, 50_257, "cuda", 2e9)
    # eight processes have an eighth of the batch each
    assert planner.fitting(s, 50_257, "cuda", 80e9, "bfloat16", processes=8) is None
    again = planner.fitting(preset("docs"), 1024, "cpu", None)  # no room named: what takes less
    assert "--accumulate 2 takes" in again


def test_double_precision_takes_twice_as_much():
    c = DiTConfig(**SMALL)
    single, double = (planner.memory(c, 64, 4, p, device="cpu") for p in ("float32", "float64"))
    assert double == {name: 2 * size for name, size in single.items()}


def test_disk_is_counted_and_refused(tmp_path, monkeypatch):
    s, c = preset("small"), preset("small").network(50_257)
    free = 3 * planner.checkpoint_bytes(c) // 2  # one and a half
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    with pytest.raises(ValueError, match=r"takes 2.7 GB, two .* 5.4 GB; 4.1 GB are free in .*run"):
        planner.disk(s, 50_257, tmp_path / "run")
    (tmp_path / "run" / "step-00000010").mkdir(parents=True)
    assert "one of which is there" in planner.disk(s, 50_257, tmp_path / "run")


def test_memory_of_this_machine():
    found = planner.machine_memory("cpu")
    assert found is None or 1e8 < found < 1e14
