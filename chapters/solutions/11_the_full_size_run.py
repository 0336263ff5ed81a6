# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
#   sedd_mini:
#     edition: 2
# ---

# %% [markdown]
# # Solutions to chapter 11
#
# Cells tagged `wrong` are plausible answers that the checks refuse; they are kept so that a test can try them.

# %% [markdown]
# ## Exercise 1. Where is the corner?
#
# The intensity must reach $S/W$:
#
# $$\frac{2/w}{1/m + 1/n + 1/p} \ge \frac SW \quad\Longleftrightarrow\quad \frac1m \le \frac{2W}{wS} - \frac1n - \frac1p .$$
#
# If the right side is not positive, no $m$ suffices: the weights are so small that even with infinitely many tokens each number is used too rarely. For an H100, $S/W = 295$, and $n = p = 64$ allow at most 32 FLOPs a byte in bfloat16.

# %% tags=["solution"]
import math


def fewest_tokens(n, p, w, S, W):
    rest = 2 * W / (w * S) - 1 / n - 1 / p  # 1 / m is at most this
    return math.ceil(1 / rest) if rest > 0 else None

# %% tags=["wrong"]
# Only the weights move: n p numbers.
import math


def fewest_tokens(n, p, w, S, W):
    if 2 / w / (1 / n + 1 / p) <= S / W:
        return None
    return math.ceil(S / W * w / 2)

# %% tags=["wrong"]
# Rounds down.
import math


def fewest_tokens(n, p, w, S, W):
    rest = 2 * W / (w * S) - 1 / n - 1 / p
    return math.floor(1 / rest) if rest > 0 else None

# %% tags=["wrong"]
# A multiplication and an addition counted as one.
import math


def fewest_tokens(n, p, w, S, W):
    rest = W / (w * S) - 1 / n - 1 / p
    return math.ceil(1 / rest) if rest > 0 else None

# %% tags=["wrong"]
# The number of bytes a number is left out.
import math


def fewest_tokens(n, p, w, S, W):
    rest = 2 * W / S - 1 / n - 1 / p
    return math.ceil(1 / rest) if rest > 0 else None

# %% tags=["wrong"]
# Forgets that there may be no such number.
import math


def fewest_tokens(n, p, w, S, W):
    return math.ceil(1 / (2 * W / (w * S) - 1 / n - 1 / p))

# %% [markdown]
# ## Exercise 2. Unequal parts
#
# The mean over the batch gives each text the weight $1/B$. The mean over a part of $b$ texts gives each of them $1/b$, so the part's loss is multiplied by $b/B$. With equal parts this is one over the number of parts. `backward` adds to what is in `.grad`, so that has to be cleared first, once. Calling it in each part sets that part's activations free.

# %% tags=["solution"]
import torch


def accumulate(weights, loss, batch, most):
    for weight in weights:
        weight.grad = None
    for rows in batch.split(most):
        (loss(rows) * len(rows) / len(batch)).backward()

# %% tags=["wrong"]
# Divides by the number of parts, whatever their sizes.
def accumulate(weights, loss, batch, most):
    for weight in weights:
        weight.grad = None
    parts = batch.split(most)
    for rows in parts:
        (loss(rows) / len(parts)).backward()

# %% tags=["wrong"]
# Adds the means of the parts.
def accumulate(weights, loss, batch, most):
    for weight in weights:
        weight.grad = None
    for rows in batch.split(most):
        loss(rows).backward()

# %% tags=["wrong"]
# Keeps what the last step left in .grad.
def accumulate(weights, loss, batch, most):
    for rows in batch.split(most):
        (loss(rows) * len(rows) / len(batch)).backward()

# %% tags=["wrong"]
# Clears the gradients in every part: only the last part counts.
def accumulate(weights, loss, batch, most):
    for rows in batch.split(most):
        for weight in weights:
            weight.grad = None
        (loss(rows) * len(rows) / len(batch)).backward()

# %% tags=["wrong"]
# One backward pass at the end: right, but it holds the activations of all parts.
def accumulate(weights, loss, batch, most):
    for weight in weights:
        weight.grad = None
    sum(loss(rows) * len(rows) / len(batch) for rows in batch.split(most)).backward()

# %% tags=["wrong"]
# The whole batch at once.
def accumulate(weights, loss, batch, most):
    for weight in weights:
        weight.grad = None
    loss(batch).backward()

# %% tags=["wrong"]
# Makes the parts equal by dropping the last texts.
def accumulate(weights, loss, batch, most):
    for weight in weights:
        weight.grad = None
    parts = [rows for rows in batch.split(most) if len(rows) == most]
    for rows in parts:
        (loss(rows) / len(parts)).backward()

# %% [markdown]
# ## Exercise 3. A small GPU
#
# Count up while one more text fits. For 90 % of 24 GB the small network has 24 texts as it is and 207 with recomputing (planned; section 4 shows that the second plan is too low on an H100).
#
# Recomputing does the trunk's forward pass twice, about a quarter more arithmetic (a third if there were no head). (On the H100 a step of 64 texts took 30 % longer, 0.53 against 0.41 s.) What does it buy? A batch of 512 is then done in 3 parts instead of 22. But section 3 says that 24 texts of 1024 tokens are enough: their products wait for arithmetic already, and larger parts make nothing faster. So it is not worth its time here. It is where not even one text would fit, as with very long texts.

# %% tags=["solution"]
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 0
    while sum(planner.memory(changed, length, n + 1).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# One too many: the first number that does not fit.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 1
    while sum(planner.memory(changed, length, n).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# Does not recompute.
from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    n = 0
    while sum(planner.memory(config, length, n + 1).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# Divides the room by the need of one text: the copies of the weights are counted for each.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    return int(room // sum(planner.memory(changed, length, 1).values()))

# %% tags=["wrong"]
# Only the activations are compared with the room.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 0
    while planner.memory(changed, length, n + 1)["activations"] <= room:
        n += 1
    return n

# %% tags=["wrong"]
# At least one text, even where none fits.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 1
    while sum(planner.memory(changed, length, n + 1).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# Switches recomputing on, but never off.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    if recompute:
        config = dataclasses.replace(config, checkpoint_activations=True)
    n = 0
    while sum(planner.memory(config, length, n + 1).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# Changes the configuration of the caller.
from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    config.checkpoint_activations = recompute
    n = 0
    while sum(planner.memory(config, length, n + 1).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# Needs less than the room, not at most the room.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 0
    while sum(planner.memory(changed, length, n + 1).values()) < room:
        n += 1
    return n

# %% tags=["wrong"]
# A straight line through one and two texts: the head's work space stops growing.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    one, two = (sum(planner.memory(changed, length, n).values()) for n in (1, 2))
    return max(0, int(1 + (room - one) // (two - one)))

# %% tags=["wrong"]
# Takes the length from the configuration.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 0
    while sum(planner.memory(changed, config.length, n + 1).values()) <= room:
        n += 1
    return n

# %% tags=["wrong"]
# Looks at 512 texts at most.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    fits = [sum(planner.memory(changed, length, n).values()) <= room for n in range(1, 513)]
    return sum(fits)

# %% tags=["wrong"]
# Tries powers of two.
import dataclasses

from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    changed = dataclasses.replace(config, checkpoint_activations=recompute)
    n = 1
    while sum(planner.memory(changed, length, 2 * n).values()) <= room:
        n *= 2
    return n

# %% tags=["wrong"]
# Makes a configuration of its own: sizes kept, dropout and graph forgotten.
from sedd_mini.network.dit import DiTConfig
from sedd_mini.training import planner


def most_texts(config, length, room, recompute):
    sizes = {name: getattr(config, name) for name in ("width", "num_blocks", "num_heads")}
    changed = DiTConfig(**sizes, checkpoint_activations=recompute)
    n = 0
    while sum(planner.memory(changed, length, n + 1).values()) <= room:
        n += 1
    return n

# %% [markdown]
# ## Exercise 4. Would clipping have saved the lost run?
#
# With `clip` 1 the three gradients have norms 0.8, 1 and 1, and with `clip` 0.01 all have 0.01. A constant factor in $g$ multiplies $m$ by that factor and $\sqrt v$ too, so it cancels, up to $\epsilon$. What remains is the difference between 0.8 and 1: after three steps the paths are 5 % apart (the cell after the solution). Adam's steps have about the size of the learning rate, whatever the size of the gradient.
#
# So a smaller `clip` would not have saved the run. Its rate rises over 20 steps, and the first three steps move a weight by up to about 0.15, 0.3 and 0.45 with either `clip`. The chapter's laboratory tries it: with `clip=0.01` the same run breaks in the same step. The learning rate has to be lowered. (Clipping changes the path where single gradients are much larger than the others: with rate 0.1 the highest loss was 230 with `clip` 1 and 21 with 0.01.)

# %% tags=["solution"]
import torch


def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m = 0.9 * m + 0.1 * g
        v = 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["nbval-check-output"]
torch.manual_seed(0)
g = torch.randn(3, 1000)
g *= torch.tensor([[0.8], [15e3], [1.4e6]]) / g.norm(dim=1, keepdim=True)
a, b = adam_path(g, lr=3.0, clip=1.0), adam_path(g, lr=3.0, clip=0.01)
for step, apart in enumerate((a - b).norm(dim=1) / a.norm(dim=1), 1):
    print(f"step {step}: {apart:.1%} apart")

# %% tags=["wrong"]
# Forgets to divide by 1 − βⁿ.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for g in gradients:
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * m / (v.sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Scales every gradient to norm `clip`, small ones too.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / g.norm()
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Cuts each number at ± clip, not the norm.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g.clamp(-clip, clip)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Clips the update instead of the gradient.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        step = lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        w = w - step * min(1.0, clip / step.norm().item())
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# ε stands under the root.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / (v / (1 - 0.99**n) + 1e-8).sqrt()
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Without the root: divides by v.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / (v / (1 - 0.99**n) + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Divides by the norm, which may be zero: NaN.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g / g.norm() * g.norm().clamp(max=clip)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# One norm for all steps together.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, gradients.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Ignores `clip`: the norm is always cut at 1.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g / max(1.0, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Does not clip.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Only m sees the clipped gradient.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        m = 0.9 * m + 0.1 * g * clip / max(clip, g.norm().item())
        v = 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Cuts in place: the caller's gradients change.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g *= clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# The positions before the steps.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        path.append(w)
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
    return torch.stack(path)

# %% tags=["wrong"]
# The gradients are cut, but not at their Euclidean norm: at the largest entry.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.abs().max().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# β₂ is PyTorch's default, 0.999.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.999**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# β₁ and β₂ are exchanged.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m = 0.99 * m + 0.01 * g
        v = 0.9 * v + 0.1 * g**2
        w = w - lr * (m / (1 - 0.99**n)) / ((v / (1 - 0.9**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# ε is added before v is divided by 1 − β₂ⁿ.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9**n)) / ((v.sqrt() + 1e-8) / (1 - 0.99**n) ** 0.5)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# With AdamW's default weight decay.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = (1 - 0.01 * lr) * w - lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# Up the slope.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for n, g in enumerate(gradients, 1):
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w + lr * (m / (1 - 0.9**n)) / ((v / (1 - 0.99**n)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)

# %% tags=["wrong"]
# n stays 1: divides by 1 − β in every step.
def adam_path(gradients, lr, clip):
    w = torch.zeros_like(gradients[0])
    m, v, path = torch.zeros_like(w), torch.zeros_like(w), []
    for g in gradients:
        g = g * clip / max(clip, g.norm().item())
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        w = w - lr * (m / (1 - 0.9)) / ((v / (1 - 0.99)).sqrt() + 1e-8)
        path.append(w)
    return torch.stack(path)
