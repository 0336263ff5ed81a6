"""SEDD-mini: score entropy discrete diffusion (Lou, Meng, Ermon 2023), small and readable.

    from sedd_mini import load

    model = load("chapters/checkpoints/docs-absorb")  # or a folder of yours, or a name on the hub
    model.write(num=2, length=60, prompt="Return the", seed=1)  # → two texts
    model.fill("The ____ raises an ____.", num=3)  # → three texts with the gaps filled
    model.bound(["Return the value."])[0]  # → at most so many nats a token, with an error bar

What else stands here: load_pretrained and save_pretrained for a network alone; the graphs and
schedules; `sample` and `likelihood_bound`, which take any network; `Trainer` with its `Settings`.
"""

import importlib

ON_USE = {  # name → its module, imported when the name is first used: a command starts at once
    "AbsorbingGraph": "graphs",
    "UniformGraph": "graphs",
    "GeometricNoise": "noise",
    "LogLinearNoise": "noise",
    "load": "model",
    "TextModel": "model",
    "load_pretrained": "network.pretrained",
    "save_pretrained": "network.pretrained",
    "sample": "samplers",
    "likelihood_bound": "evaluate",
    "Trainer": "training.trainer",
    "Settings": "training.settings",
}
__all__ = [*ON_USE]


def __getattr__(name: str):
    if name not in ON_USE:
        raise AttributeError(f"module 'sedd_mini' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"sedd_mini.{ON_USE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
