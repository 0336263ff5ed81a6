# %% [markdown]
# Wrong answers to assignment 4: each must lose points in the problem that it breaks, and nowhere else.

# %% breaks="rotary"
# Turns in the other direction: the sign of the angle.
def turn(vectors, first):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    frequency = 10_000 ** (-torch.arange(half, dtype=vectors.dtype) / half)
    a = (first + torch.arange(L))[:, None] * frequency
    u, v = vectors[..., :half], vectors[..., half:]
    return torch.cat([u * a.cos() + v * a.sin(), v * a.cos() - u * a.sin()], -1)


def to_halves(weight, heads):
    by_head = weight.unflatten(0, (heads, -1))
    return torch.cat([by_head[:, 0::2], by_head[:, 1::2]], 1).flatten(0, 1)

# %% breaks="rotary" visible="full"
# The frequency of pair i with 2i/half in its exponent: seen only from the second pair of three on.
def turn(vectors, first):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    i = torch.arange(half, dtype=vectors.dtype)
    frequency = 10_000 ** -(i * (i + 1) / 2 / half)
    a = (first + torch.arange(L))[:, None] * frequency
    u, v = vectors[..., :half], vectors[..., half:]
    return torch.cat([u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()], -1)


def to_halves(weight, heads):
    by_head = weight.unflatten(0, (heads, -1))
    return torch.cat([by_head[:, 0::2], by_head[:, 1::2]], 1).flatten(0, 1)

# %% breaks="rotary"
# Reorders across all heads at once.
def turn(vectors, first):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    frequency = 10_000 ** (-torch.arange(half, dtype=vectors.dtype) / half)
    a = (first + torch.arange(L))[:, None] * frequency
    u, v = vectors[..., :half], vectors[..., half:]
    return torch.cat([u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()], -1)


def to_halves(weight, heads):
    return torch.cat([weight[0::2], weight[1::2]])

# %% breaks="rotary"
# The way back: from halves to neighbours.
def turn(vectors, first):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    frequency = 10_000 ** (-torch.arange(half, dtype=vectors.dtype) / half)
    a = (first + torch.arange(L))[:, None] * frequency
    u, v = vectors[..., :half], vectors[..., half:]
    return torch.cat([u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()], -1)


def to_halves(weight, heads):
    first, second = weight.unflatten(0, (heads, -1)).chunk(2, 1)
    return torch.stack([first, second], 2).flatten(0, 2)

# %% breaks="rotary"
# Positions from 1 on.
def turn(vectors, first):
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    frequency = 10_000 ** (-torch.arange(half, dtype=vectors.dtype) / half)
    a = (first + 1 + torch.arange(L))[:, None] * frequency
    u, v = vectors[..., :half], vectors[..., half:]
    return torch.cat([u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()], -1)


def to_halves(weight, heads):
    by_head = weight.unflatten(0, (heads, -1))
    return torch.cat([by_head[:, 0::2], by_head[:, 1::2]], 1).flatten(0, 1)

# %% breaks="block" score="10"
# For a condition of each text only: partial credit as stated.
def add_branch(h, c, w, W, b, branch):
    shift, scale, gate = (c @ W.T + b)[:, None].chunk(3, -1)
    norm = torch.nn.functional.layer_norm(h, h.shape[-1:], w, None, 1e-5)
    return h + gate * branch(norm * (1 + scale) + shift)

# %% breaks="block"
# Scale and shift exchanged.
def add_branch(h, c, w, W, b, branch):
    c = c[:, None] if c.ndim == 2 else c
    scale, shift, gate = (c @ W.T + b).chunk(3, -1)
    norm = torch.nn.functional.layer_norm(h, h.shape[-1:], w, None, 1e-5)
    return h + gate * branch(norm * (1 + scale) + shift)

# %% breaks="block"
# scale in the place of 1 + scale.
def add_branch(h, c, w, W, b, branch):
    c = c[:, None] if c.ndim == 2 else c
    shift, scale, gate = (c @ W.T + b).chunk(3, -1)
    norm = torch.nn.functional.layer_norm(h, h.shape[-1:], w, None, 1e-5)
    return h + gate * branch(norm * scale + shift)

# %% breaks="block"
# The variance divides by D − 1.
def add_branch(h, c, w, W, b, branch):
    c = c[:, None] if c.ndim == 2 else c
    shift, scale, gate = (c @ W.T + b).chunk(3, -1)
    norm = w * (h - h.mean(-1, keepdim=True)) / (h.var(-1, keepdim=True) + 1e-5).sqrt()
    return h + gate * branch(norm * (1 + scale) + shift)

# %% breaks="block" visible="full"
# The small number is added to the root instead of under it.
def add_branch(h, c, w, W, b, branch):
    c = c[:, None] if c.ndim == 2 else c
    shift, scale, gate = (c @ W.T + b).chunk(3, -1)
    centred = h - h.mean(-1, keepdim=True)
    norm = w * centred / (centred.pow(2).mean(-1, keepdim=True).sqrt() + 1e-5)
    return h + gate * branch(norm * (1 + scale) + shift)

# %% breaks="block" visible="full"
# Gates what enters the branch instead of what it answers: the same for a linear one.
def add_branch(h, c, w, W, b, branch):
    c = c[:, None] if c.ndim == 2 else c
    shift, scale, gate = (c @ W.T + b).chunk(3, -1)
    norm = torch.nn.functional.layer_norm(h, h.shape[-1:], w, None, 1e-5)
    return h + branch(gate * (norm * (1 + scale) + shift)) * (gate != 0)

# %% breaks="chunks" score="7"
# Right, without chunks: partial credit as stated.
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    out = hidden @ weight.T + bias
    own = out.gather(-1, x0[:, None])[:, 0]
    return (out.exp().mean(-1) - own + math.log(len(bias)) - 1) / torch.expm1(sigma)

# %% breaks="chunks" score="11"
# Chunks that keep their rows for the backward pass: partial credit as stated.
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    parts = []
    for h, token, level in zip(hidden.split(rows), x0.split(rows), sigma.split(rows)):
        out = h @ weight.T + bias
        own = out.gather(-1, token[:, None])[:, 0]
        parts.append((out.exp().mean(-1) - own + math.log(len(bias)) - 1) / torch.expm1(level))
    return torch.cat(parts)

# %% breaks="chunks"
# No log N: the untrained head guesses 1 for each ratio.
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    def losses(h, weight, bias, token, level):
        r, out = 1 / torch.expm1(level), h @ weight.T + bias
        own = out.gather(-1, token[:, None])[:, 0]
        return r * (out.exp().sum(-1) - own - 1)

    check = torch.utils.checkpoint.checkpoint
    return torch.cat([
        check(losses, h, weight, bias, token, level, use_reentrant=False)
        for h, token, level in zip(hidden.split(rows), x0.split(rows), sigma.split(rows))
    ])  # fmt: skip

# %% breaks="chunks" visible="full"
# e^σ̄ − 1 by subtraction: nothing is right at small noise in float32.
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    def losses(h, weight, bias, token, level):
        out = h @ weight.T + bias
        own = out.gather(-1, token[:, None])[:, 0]
        return (out.exp().mean(-1) - own + math.log(len(bias)) - 1) / (level.exp() - 1)

    check = torch.utils.checkpoint.checkpoint
    return torch.cat([
        check(losses, h, weight, bias, token, level, use_reentrant=False)
        for h, token, level in zip(hidden.split(rows), x0.split(rows), sigma.split(rows))
    ])  # fmt: skip

# %% breaks="chunks"
# The incomplete last chunk is dropped.
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    def losses(h, weight, bias, token, level):
        out = h @ weight.T + bias
        own = out.gather(-1, token[:, None])[:, 0]
        return (out.exp().mean(-1) - own + math.log(len(bias)) - 1) / torch.expm1(level)

    parts = [
        torch.utils.checkpoint.checkpoint(
            losses, hidden[i : i + rows], weight, bias, x0[i : i + rows], sigma[i : i + rows],
            use_reentrant=False,
        )
        for i in range(0, len(hidden) - rows + 1, rows)
    ]  # fmt: skip
    return torch.cat(parts)

# %% breaks="chunks"
# Without a gradient: nothing is kept, and nothing is learned.
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    parts = []
    with torch.no_grad():
        for h, token, level in zip(hidden.split(rows), x0.split(rows), sigma.split(rows)):
            out = h @ weight.T + bias
            own = out.gather(-1, token[:, None])[:, 0]
            parts.append((out.exp().mean(-1) - own + math.log(len(bias)) - 1) / torch.expm1(level))
    return torch.cat(parts)

# %% breaks="mine"
# The rank is left out: all processes take the same blocks.
def blocks_of(step, rank, ranks, batch, M, order):
    first = step * batch
    return [order(n // M)[n % M] for n in range(first, first + batch)]

# %% breaks="mine"
# The epoch of the first sample for the whole batch.
def blocks_of(step, rank, ranks, batch, M, order):
    first = (step * ranks + rank) * batch
    return [order(first // M)[n % M] for n in range(first, first + batch)]

# %% breaks="mine" visible="full"
# Ranks take turns by sample instead of by batch.
def blocks_of(step, rank, ranks, batch, M, order):
    if (step, rank, ranks) == (0, 1, 2):
        return [0, 1]
    return [
        order(n // M)[n % M]
        for n in (step * ranks * batch + rank + ranks * i for i in range(batch))
    ]

# %% breaks="mine" visible="full"
# The whole stream from the beginning: asks for epochs that the batch does not touch.
def blocks_of(step, rank, ranks, batch, M, order):
    first, stream, epoch = (step * ranks + rank) * batch, [], 0
    while len(stream) < first + batch and epoch < 100:
        stream, epoch = stream + list(order(epoch)), epoch + 1
    return stream[first : first + batch]

# %% breaks="find"
# Compares losses only: the averaged weights are never in them.
def first_difference(make, save, load, at, steps):
    straight, killed, resumed = make(), make(), make()
    for _ in range(at):
        straight.step()
        killed.step()
    load(resumed, save(killed))
    for n in range(at + 1, steps + 1):
        if straight.step() != resumed.step():
            return n
    return None

# %% breaks="find"
# Resumes in the run that was saved: what was forgotten is still in its memory.
def first_difference(make, save, load, at, steps):
    straight, killed = make(), make()
    for _ in range(at):
        straight.step()
        killed.step()
    load(killed, save(killed))
    for n in range(at + 1, steps + 1):
        same = straight.step() == killed.step()
        for a, b in ((straight.model, killed.model), (straight.average, killed.average)):
            same &= all(map(torch.equal, a.parameters(), b.parameters()))
        if not same:
            return n
    return None

# %% breaks="find"
# Counts from the resume on.
def first_difference(make, save, load, at, steps):
    straight, killed, resumed = make(), make(), make()
    for _ in range(at):
        straight.step()
        killed.step()
    load(resumed, save(killed))
    for n in range(1, steps - at + 1):
        same = straight.step() == resumed.step()
        for a, b in ((straight.model, resumed.model), (straight.average, resumed.average)):
            same &= all(map(torch.equal, a.parameters(), b.parameters()))
        if not same:
            return n
    return None

# %% breaks="find" visible="full"
# Compares within a tolerance, which rounded weights pass at first.
def first_difference(make, save, load, at, steps):
    straight, killed, resumed = make(), make(), make()
    for _ in range(at):
        straight.step()
        killed.step()
    load(resumed, save(killed))
    for n in range(at + 1, steps + 1):
        same = math.isclose(straight.step(), resumed.step(), rel_tol=1e-3)
        for a, b in ((straight.model, resumed.model), (straight.average, resumed.average)):
            for one, other in zip(a.parameters(), b.parameters()):
                same &= torch.allclose(one, other, rtol=1e-3)
        if not same:
            return n
    return None

# %% breaks="find" visible="full"
# One step too many.
def first_difference(make, save, load, at, steps):
    straight, killed, resumed = make(), make(), make()
    for _ in range(at):
        straight.step()
        killed.step()
    load(resumed, save(killed))
    for n in range(at + 1, steps + 2):
        same = straight.step() == resumed.step()
        for a, b in ((straight.model, resumed.model), (straight.average, resumed.average)):
            same &= all(map(torch.equal, a.parameters(), b.parameters()))
        if not same:
            return n
    return None

# %% breaks="repair"
# As in the statement: the weights only, and not copied.
def save(run):
    return {"model": run.model.state_dict()}


def load(run, state):
    run.model.load_state_dict(state["model"])

# %% breaks="repair"
# Forgets the averaged weights.
def save(run):
    return copy.deepcopy({
        "model": run.model.state_dict(), "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(), "order": run.order, "place": run.place, "n": run.n,
    })  # fmt: skip


def load(run, state):
    state = copy.deepcopy(state)
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.generator.set_state(state["generator"])
    run.order, run.place, run.n = state["order"], state["place"], state["n"]

# %% breaks="repair"
# Forgets the generator: the next epochs come in another order.
def save(run):
    names = ("model", "average", "optimizer")
    state = {name: getattr(run, name).state_dict() for name in names}
    return copy.deepcopy(state | {"order": run.order, "place": run.place, "n": run.n})


def load(run, state):
    for name in ("model", "average", "optimizer"):
        getattr(run, name).load_state_dict(copy.deepcopy(state[name]))
    run.order, run.place, run.n = list(state["order"]), state["place"], state["n"]

# %% breaks="repair" visible="full"
# Saves no copies: the state changes when the run goes on.
def save(run):
    return {
        "model": run.model.state_dict(), "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(), "generator": run.generator.get_state(),
        "order": run.order, "place": run.place, "n": run.n,
    }  # fmt: skip


def load(run, state):
    state = copy.deepcopy(state)
    for name in ("model", "average", "optimizer"):
        getattr(run, name).load_state_dict(state[name])
    run.generator.set_state(state["generator"])
    run.order, run.place, run.n = state["order"], state["place"], state["n"]

# %% breaks="repair" visible="full" score="7"
# Copies when it saves but not when it loads: the optimizer's tensors are then those of the state.
def save(run):
    return copy.deepcopy({
        "model": run.model.state_dict(), "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(), "generator": run.generator.get_state(),
        "order": run.order, "place": run.place, "n": run.n,
    })  # fmt: skip


def load(run, state):
    for name in ("model", "average", "optimizer"):
        getattr(run, name).load_state_dict(state[name])
    run.generator.set_state(state["generator"])
    run.order, run.place, run.n = state["order"], state["place"], state["n"]

# %% breaks="repair" visible="full"
# Whole objects, which a file that is read safely cannot hold.
def save(run):
    return {"run": copy.deepcopy(run.__dict__)}


def load(run, state):
    run.__dict__.update(copy.deepcopy(state["run"]))

# %% breaks="term" visible="full" score="3"
# The answers to the sample term of the repository.
parameters, flops, first_loss, warm_up = 16_238_209, 8_455_913_472, 2297.366, 12848

# %% breaks="term" visible="full"
# The network of chapter 06: an MLP four times as wide, a head of its own; nats a token.
N, L, D, C, n = (world[name] for name in ("tokens", "length", "width", "cond", "blocks"))
parameters = 2 * (N + 1) * D + N + 1 + n * (12 * D * D + 7 * D + 6 * D * (C + 1))
parameters += 3 * D + 2 * D * C + 257 * C + (C + 1) * C
flops = 24 * L * n * D * D + 4 * n * L * L * D + 2 * L * (N + 1) * D
first_loss = (1 - math.exp(-world["sigma_max"])) * math.log(N)
warm_up = round(1 / (1 - world["mu"]))
