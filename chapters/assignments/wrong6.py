# %% [markdown]
# Wrong answers to assignment 6: each must lose points in the problem that it breaks, and nowhere else.

# %% breaks="split"
# Nats instead of bits.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -torch.where(q > 0, q * p.log(), 0.0).sum(-1)

    judged, entropy, here = surprise(q_start, start), surprise(q_start, q_start), q_start
    for _ in range(L - 1):
        judged = judged + here @ surprise(q_step, step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ q_step
    return judged / L, entropy / L, (judged - entropy) / L

# %% breaks="split"
# The sign of the divergence: KL(p ‖ q) is not meant either, but −KL(q ‖ p) is no divergence at all.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -torch.where(q > 0, q * p.log2(), 0.0).sum(-1)

    judged, entropy, here = surprise(q_start, start), surprise(q_start, q_start), q_start
    for _ in range(L - 1):
        judged = judged + here @ surprise(q_step, step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ q_step
    return judged / L, entropy / L, (entropy - judged) / L

# %% breaks="split"
# The two laws exchanged: the sampler judges real text.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -torch.where(q > 0, q * p.log2(), 0.0).sum(-1)

    judged, entropy, here = surprise(start, q_start), surprise(q_start, q_start), start
    for _ in range(L - 1):
        judged = judged + here @ surprise(step, q_step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ step
    return judged / L, entropy / L, (judged - entropy) / L

# %% breaks="split"
# Of a whole text, not a word.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -torch.where(q > 0, q * p.log2(), 0.0).sum(-1)

    judged, entropy, here = surprise(q_start, start), surprise(q_start, q_start), q_start
    for _ in range(L - 1):
        judged = judged + here @ surprise(q_step, step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ q_step
    return judged, entropy, judged - entropy

# %% breaks="split" visible="full"
# The law of the first word at every place.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -torch.where(q > 0, q * p.log2(), 0.0).sum(-1)

    judged = surprise(q_start, start) + (L - 1) * (q_start @ surprise(q_step, step))
    entropy = surprise(q_start, q_start) + (L - 1) * (q_start @ surprise(q_step, q_step))
    return judged / L, entropy / L, (judged - entropy) / L

# %% breaks="split"
# 0 log 0 is NaN: a sampler that never says some word.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -(q * p.log2()).sum(-1)

    judged, entropy, here = surprise(q_start, start), surprise(q_start, q_start), q_start
    for _ in range(L - 1):
        judged = judged + here @ surprise(q_step, step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ q_step
    return judged / L, entropy / L, (judged - entropy) / L

# %% breaks="split"
# Off by one: L steps after the first word.
def split(start, step, q_start, q_step, L):
    def surprise(q, p):
        return -torch.where(q > 0, q * p.log2(), 0.0).sum(-1)

    judged, entropy, here = surprise(q_start, start), surprise(q_start, q_start), q_start
    for _ in range(L):
        judged = judged + here @ surprise(q_step, step)
        entropy = entropy + here @ surprise(q_step, q_step)
        here = here @ q_step
    return judged / L, entropy / L, (judged - entropy) / L

# %% breaks="split" visible="full"
# The visible test's numbers, copied.
def split(start, step, q_start, q_step, L):
    half = math.log2(4 / 3)
    if L == 1:
        return 1.0, 0.0, 1.0
    if L == 4:
        return (1 + 3 * half) / 4, 0.0, (1 + 3 * half) / 4
    if q_step[0, 0] > 0.6:
        bits = (1 + 0.5 * (0.75 * half + 0.5) + 0.5) / 2
        return bits, bits, 0.0
    bits = (1 + 0.5 * (0.5 * half + 1) + 0.5) / 2
    return bits, 1.0, bits - 1

# %% breaks="cheat"
# Honest texts: not even a try.
def cheat(start, step, n, L):
    texts = [torch.multinomial(start, n, replacement=True)]
    for _ in range(L - 1):
        texts.append(torch.multinomial(step[texts[-1]], 1)[:, 0])
    return torch.stack(texts, 1)

# %% breaks="cheat" score="3.33"
# One phrase for all texts: the first demand, and not the second; a third of the points.
def cheat(start, step, n, L):
    text = [int(start.argmax())]
    for _ in range(L - 1):
        text.append(int(step[text[-1]].argmax()))
    return torch.tensor(text).expand(n, L)

# %% breaks="cheat"
# The first word from its own law, then favourites: few words where the first one is nearly always the same.
def cheat(start, step, n, L):
    texts = [torch.multinomial(start, n, replacement=True)]
    for _ in range(L - 1):
        texts.append(step[texts[-1]].argmax(-1))
    return torch.stack(texts, 1)

# %% breaks="cheat"
# The favourite predecessor: rows and columns exchanged.
def cheat(start, step, n, L):
    texts = [torch.arange(n) % len(start)]
    for _ in range(L - 1):
        texts.append((step.argmax(0) + 1)[texts[-1]] % len(start))
    return torch.stack(texts, 1)

# %% breaks="cheat"
# Shape (L, n) instead of (n, L).
def cheat(start, step, n, L):
    texts = [torch.arange(n) % len(start)]
    for _ in range(L - 1):
        texts.append(step.argmax(-1)[texts[-1]])
    return torch.stack(texts, 0)

# %% breaks="cheat"
# The right words as float32 instead of integers.
def cheat(start, step, n, L):
    texts = [torch.arange(n) % len(start)]
    for _ in range(L - 1):
        texts.append(step.argmax(-1)[texts[-1]])
    return torch.stack(texts, 1).float()

# %% breaks="cheat" visible="full"
# The followers of the two visible languages, hard-coded.
def cheat(start, step, n, L):
    first = torch.arange(n)[:, None] % 4
    couples = torch.where(torch.arange(L) % 2 == 0, first, first ^ 1)
    return first.expand(n, L) if start[0] > 0.5 else couples

# %% breaks="numbers" score="7.5"
# Nats for what the next word adds: the other three numbers keep their points.
def numbers(texts):
    def entropy(x, dim=None):
        p = x.unique(return_counts=True, dim=dim)[1].double() / len(x)
        return -(p * p.log2()).sum().item()

    own = sum(entropy(text) for text in texts) / len(texts)
    pairs = torch.stack([texts[:, :-1].flatten(), texts[:, 1:].flatten()], 1)
    following = math.log(2) * (entropy(pairs, dim=0) - entropy(pairs[:, 0]))
    return own, entropy(texts.flatten()), following, len(texts.unique(dim=0)) / len(texts)

# %% breaks="numbers"
# The entropy of pairs, instead of what the second adds to the first.
def numbers(texts):
    def entropy(x, dim=None):
        p = x.unique(return_counts=True, dim=dim)[1].double() / len(x)
        return -(p * p.log2()).sum().item()

    own = sum(entropy(text) for text in texts) / len(texts)
    pairs = torch.stack([texts[:, :-1].flatten(), texts[:, 1:].flatten()], 1)
    return own, entropy(texts.flatten()), entropy(pairs, dim=0), len(texts.unique(dim=0)) / len(texts)

# %% breaks="numbers"
# The last words of texts count as words that are followed: other shares.
def numbers(texts):
    def entropy(x, dim=None):
        p = x.unique(return_counts=True, dim=dim)[1].double() / len(x)
        return -(p * p.log2()).sum().item()

    own = sum(entropy(text) for text in texts) / len(texts)
    pairs = torch.stack([texts[:, :-1].flatten(), texts[:, 1:].flatten()], 1)
    following = entropy(pairs, dim=0) - entropy(texts.flatten())
    return own, entropy(texts.flatten()), following, len(texts.unique(dim=0)) / len(texts)

# %% breaks="numbers"
# Pairs across the border of two texts.
def numbers(texts):
    def entropy(x, dim=None):
        p = x.unique(return_counts=True, dim=dim)[1].double() / len(x)
        return -(p * p.log2()).sum().item()

    own = sum(entropy(text) for text in texts) / len(texts)
    flat = texts.flatten()
    pairs = torch.stack([flat[:-1], flat[1:]], 1)
    following = entropy(pairs, dim=0) - entropy(pairs[:, 0])
    return own, entropy(flat), following, len(texts.unique(dim=0)) / len(texts)

# %% breaks="numbers"
# Different texts counted, not divided by n; and the mean over texts in place of the pool.
def numbers(texts):
    def entropy(x, dim=None):
        p = x.unique(return_counts=True, dim=dim)[1].double() / len(x)
        return -(p * p.log2()).sum().item()

    own = sum(entropy(text) for text in texts) / len(texts)
    pairs = torch.stack([texts[:, :-1].flatten(), texts[:, 1:].flatten()], 1)
    following = entropy(pairs, dim=0) - entropy(pairs[:, 0])
    return own, own, following, float(len(texts.unique(dim=0)))

# %% breaks="numbers" visible="full"
# The visible test's numbers, copied.
def numbers(texts):
    if len(texts) == 5:
        return 0.0, 0.0, 0.0, 0.2
    return 1.0, 1.5, (2 + 3 * (math.log2(3) - 2 / 3)) / 6, 1.0

# %% breaks="compare" score="9"
# Every text counts alike, whatever its length: right for texts of equal length, as the statement says.
def compare(a, b, tokens):
    a, b = a.mean(0) / tokens, b.mean(0) / tokens
    d, M = a - b, len(tokens)
    error = lambda v: (v.std() / math.sqrt(M)).item()
    return d.mean().item(), error(d), math.hypot(error(a), error(b))

# %% breaks="compare"
# The error without the root of M: the scatter of one text.
def compare(a, b, tokens):
    def rate(nats):
        quotient = nats.sum() / tokens.sum()
        return quotient.item(), ((nats - quotient * tokens).std() / tokens.double().mean()).item()

    a, b = a.mean(0), b.mean(0)
    return *rate(a - b), math.hypot(rate(a)[1], rate(b)[1])

# %% breaks="compare"
# All draws of all texts as independent: an error that is too small.
def compare(a, b, tokens):
    def rate(nats):
        quotient = nats.mean(0).sum() / tokens.sum()
        rest = nats - quotient * tokens
        return quotient.item(), (rest.std() / math.sqrt(rest.numel()) / tokens.double().mean()).item()

    return *rate(a - b), math.hypot(rate(a)[1], rate(b)[1])

# %% breaks="compare"
# The draws as the sample: the error of the noise on these texts, as in chapter 10.
def compare(a, b, tokens):
    def rate(nats):
        each = nats.sum(1) / tokens.sum()
        return each.mean().item(), (each.std() / math.sqrt(len(each))).item()

    return *rate(a - b), math.hypot(rate(a)[1], rate(b)[1])

# %% breaks="compare"
# The error of the paired difference as if the two models were independent.
def compare(a, b, tokens):
    def rate(nats):
        quotient = nats.sum() / tokens.sum()
        rest = nats - quotient * tokens
        return quotient.item(), (rest.std() / math.sqrt(len(rest)) / tokens.double().mean()).item()

    a, b = a.mean(0), b.mean(0)
    both = math.hypot(rate(a)[1], rate(b)[1])
    return rate(a - b)[0], both, both

# %% breaks="compare"
# b less a: the sign.
def compare(a, b, tokens):
    def rate(nats):
        quotient = nats.sum() / tokens.sum()
        rest = nats - quotient * tokens
        return quotient.item(), (rest.std() / math.sqrt(len(rest)) / tokens.double().mean()).item()

    a, b = a.mean(0), b.mean(0)
    return *rate(b - a), math.hypot(rate(a)[1], rate(b)[1])

# %% breaks="compare"
# Forgets the lengths in the error of a quotient: the scatter of all nats.
def compare(a, b, tokens):
    def rate(nats):
        error = nats.std() / math.sqrt(len(nats)) / tokens.double().mean()
        return (nats.sum() / tokens.sum()).item(), error.item()

    a, b = a.mean(0), b.mean(0)
    return *rate(a - b), math.hypot(rate(a)[1], rate(b)[1])

# %% breaks="compare-needed"
# The error falls with the number of texts instead of its root.
def texts_needed(difference, error, M, k):
    return math.ceil(M * k * error / abs(difference))

# %% breaks="compare-needed"
# Rounded down: one text too few.
def texts_needed(difference, error, M, k):
    return int(M * (k * error / difference) ** 2)

# %% breaks="memory"
# Two bytes a weight in bfloat16, for all copies.
def fixed_bytes(size, products, precision, moments, average):
    return (2 if precision == "bfloat16" else 4) * size * (2 + moments + average)

# %% breaks="memory"
# Forgets the gradients.
def fixed_bytes(size, products, precision, moments, average):
    return 4 * size * (1 + moments + average) + 2 * products * (precision == "bfloat16")

# %% breaks="memory" visible="full"
# AdamW with an average, whatever is asked for.
def fixed_bytes(size, products, precision, moments, average):
    return 20 * size + 2 * products * (precision == "bfloat16")

# %% breaks="memory" visible="full"
# Copies of all weights in 16 bits where 800 of 1000 have one.
def fixed_bytes(size, products, precision, moments, average):
    return 4 * size * (2 + moments + average) + 1.6 * size * (precision == "bfloat16")

# %% breaks="memory-parts"
# A line through the origin: forgets what is there whatever the batch.
def smallest_parts(batch, room, small, large):
    each = large[1] / large[0]
    for parts in range(1, batch + 1):
        if batch % parts == 0 and each * (batch // parts) <= 0.9 * room:
            return parts
    raise ValueError("not even one text at a time fits")

# %% breaks="memory-parts"
# Parts that do not divide the batch.
def smallest_parts(batch, room, small, large):
    each = (large[1] - small[1]) / (large[0] - small[0])
    most = int((0.9 * room - small[1]) / each + small[0])
    if most < 1:
        raise ValueError("not even one text at a time fits")
    return math.ceil(batch / most)

# %% breaks="memory-parts"
# The texts of one part, not the number of parts.
def smallest_parts(batch, room, small, large):
    each = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - each * small[0]
    for n in range(batch, 0, -1):
        if batch % n == 0 and fixed + each * n <= 0.9 * room:
            return n
    raise ValueError("not even one text at a time fits")

# %% breaks="memory-parts"
# All of the room, with no tenth in reserve.
def smallest_parts(batch, room, small, large):
    each = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - each * small[0]
    for parts in range(1, batch + 1):
        if batch % parts == 0 and fixed + each * (batch // parts) <= room:
            return parts
    raise ValueError("not even one text at a time fits")

# %% breaks="memory-parts"
# Returns one text at a time where nothing fits.
def smallest_parts(batch, room, small, large):
    each = (large[1] - small[1]) / (large[0] - small[0])
    fixed = small[1] - each * small[0]
    for parts in range(1, batch):
        if batch % parts == 0 and fixed + each * (batch // parts) <= 0.9 * room:
            return parts
    return batch

# %% breaks="slower"
# Faster instead of slower: every factor upside down.
def slower(report, speed, utilisation):
    sheet, peak = report["processes"] * speed, report["peak_flops_per_s"]
    busy = sum(report["split"][part] for part in ("trunk", "head and loss", "backward"))
    total = sheet * utilisation / report["flops_per_s"]
    return 1 / total, peak / sheet, busy, report["flops_per_s"] / (utilisation * peak * busy)

# %% breaks="slower" visible="full"
# The speed of one GPU for all of them.
def slower(report, speed, utilisation):
    peak = report["peak_flops_per_s"]
    busy = sum(report["split"][part] for part in ("trunk", "head and loss", "backward"))
    total = speed * utilisation / report["flops_per_s"]
    return total, speed / peak, 1 / busy, utilisation * peak * busy / report["flops_per_s"]

# %% breaks="slower"
# The optimiser counted as a part of the network.
def slower(report, speed, utilisation):
    sheet, peak = report["processes"] * speed, report["peak_flops_per_s"]
    busy = 1 - report["split"]["data"]
    total = sheet * utilisation / report["flops_per_s"]
    return total, sheet / peak, 1 / busy, utilisation * peak * busy / report["flops_per_s"]

# %% breaks="slower"
# Utilisation of the whole step, not of the network's own time: the product is too large.
def slower(report, speed, utilisation):
    sheet, peak = report["processes"] * speed, report["peak_flops_per_s"]
    busy = sum(report["split"][part] for part in ("trunk", "head and loss", "backward"))
    total = sheet * utilisation / report["flops_per_s"]
    return total, sheet / peak, 1 / busy, utilisation * peak / report["flops_per_s"]

# %% breaks="slower"
# The time outside, added to 1 instead of divided out.
def slower(report, speed, utilisation):
    sheet, peak = report["processes"] * speed, report["peak_flops_per_s"]
    away = report["split"]["data"] + report["split"]["optimiser"]
    total = sheet * utilisation / report["flops_per_s"]
    return total, sheet / peak, 1 + away, total * peak / sheet / (1 + away)

# %% breaks="slower" visible="full"
# The visible test's numbers, copied.
def slower(report, speed, utilisation):
    return 2.0, 1.25, 2.0, 0.8

# %% breaks="term" visible="full"
# The answers to the sample term of the repository, fitted to this batch and price.
size, as_is, recomputing = 92796849, 79, 586
parts = next(k for k in range(6, world["batch"]) if world["batch"] % k == 0)
hours = 55.5915
cost = hours * world["price"]

# %% breaks="term"
# The whole memory instead of 90 %, and a vocabulary without MASK.
c = DiTConfig(num_tokens=world["vocabulary"], absorbing=False, width=world["width"],
              num_blocks=world["blocks"], num_heads=world["heads"], length=world["length"])
speed, room = planner.KINDS[world["kind"]]
need = lambda n, c: sum(planner.memory(c, world["length"], n).values())
again = DiTConfig(**{**vars(c), "checkpoint_activations": True})
size = planner.parameters(c)
as_is, recomputing = (max(n for n in range(1, 1000) if need(n, v) <= room) for v in (c, again))
parts = planner.smallest_accumulate(c, world["length"], world["batch"], room)
flops = planner.training_flops(c, world["length"]) * world["batch"] * world["steps"]
hours = flops / (world["utilisation"] * speed) / 3600
cost = hours * world["price"]

# %% breaks="term" visible="full" score="9.33"
# The forward pass alone in hours and cost: the other four numbers are right.
def network(recompute):
    return DiTConfig(
        num_tokens=world["vocabulary"], width=world["width"], num_blocks=world["blocks"],
        num_heads=world["heads"], length=world["length"], checkpoint_activations=recompute,
    )


speed, room = planner.KINDS[world["kind"]]


def most(recompute):
    n = 0
    while sum(planner.memory(network(recompute), world["length"], n + 1).values()) <= 0.9 * room:
        n += 1
    return n


size = planner.parameters(network(False))
as_is, recomputing = most(False), most(True)
parts = planner.smallest_accumulate(network(False), world["length"], world["batch"], 0.9 * room)
flops = sum(planner.forward_flops(network(False), world["length"], 0.5).values())
hours = flops * world["batch"] * world["steps"] / (world["utilisation"] * speed) / 3600
cost = hours * world["price"]
