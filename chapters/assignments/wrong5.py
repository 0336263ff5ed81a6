# %% [markdown]
# Wrong answers to assignment 5: each must lose points in the problem that it breaks, and nowhere else.

# %% breaks="price"
# Nats instead of bits.
def price(joint, rows):
    product, own = torch.ones((), dtype=joint.dtype), 0.0
    for i, row in enumerate(rows):
        marginal = joint.sum([j for j in range(joint.ndim) if j != i])
        product = product[..., None] * marginal
        own += torch.special.xlogy(marginal, marginal / row).sum().item()
    return torch.special.xlogy(joint, joint / product).sum().item(), own

# %% breaks="price" score="10"
# For two tokens only: partial credit as stated.
def price(joint, rows):
    first, second = joint.sum(1), joint.sum(0)
    kl = lambda p, q: torch.where(p > 0, p * (p / q).log2(), 0.0).sum().item()
    return kl(joint, first[:, None] * second), kl(first, rows[0]) + kl(second, rows[1])

# %% breaks="price"
# The divergence the other way round.
def price(joint, rows):
    first, second = joint.sum(1), joint.sum(0)
    kl = lambda p, q: torch.where(q > 0, q * (q / p).log2(), 0.0).sum().item()
    return kl(joint, first[:, None] * second), kl(first, rows[0]) + kl(second, rows[1])

# %% breaks="price"
# Entries that are 0 make NaN.
def price(joint, rows):
    kl = lambda p, q: (p * (p / q).log2()).sum().item()
    product, own = torch.ones((), dtype=joint.dtype), 0.0
    for i, row in enumerate(rows):
        marginal = joint.sum([j for j in range(joint.ndim) if j != i])
        product, own = product[..., None] * marginal, own + kl(marginal, row)
    return kl(joint, product), own

# %% breaks="price"
# The whole divergence in place of the leap's own part.
def price(joint, rows):
    kl = lambda p, q: torch.where(p > 0, p * (p / q).log2(), 0.0).sum().item()
    product = whole = torch.ones((), dtype=joint.dtype)
    for i, row in enumerate(rows):
        product = product[..., None] * joint.sum([j for j in range(joint.ndim) if j != i])
        whole = whole[..., None] * row
    return kl(joint, product), kl(joint, whole)

# %% breaks="pace" visible="full" score="8"
# Euler's probability may exceed 1: all points but those of leaps that are too long.
def still_masked(total, rate, times, method):
    left = 1.0
    for t, t_next in pairwise(times):
        by_euler, by_tweedie = (t - t_next) * rate(t), math.expm1(total(t) - total(t_next))
        left *= 1 - (by_euler if method == "euler" else by_tweedie) / math.expm1(total(t))
    return left

# %% breaks="pace"
# Euler's rate at the end of the leap.
def still_masked(total, rate, times, method):
    left = 1.0
    for t, t_next in pairwise(times):
        by_euler, by_tweedie = (t - t_next) * rate(t_next), math.expm1(total(t) - total(t_next))
        factor = by_euler if method == "euler" else by_tweedie
        left *= 1 - min(1.0, factor / math.expm1(total(t)))
    return left

# %% breaks="pace"
# The forward probability: how likely a token is hit in that much noise.
def still_masked(total, rate, times, method):
    left = 1.0
    for t, t_next in pairwise(times):
        by_euler, by_tweedie = (t - t_next) * rate(t), total(t) - total(t_next)
        left *= math.exp(-(by_euler if method == "euler" else by_tweedie))
    return left

# %% breaks="pace"
# The answer of the log-linear schedule for every schedule.
def still_masked(total, rate, times, method):
    return times[-1] / times[0]

# %% breaks="pace"
# Tweedie with 1 − e^{−Δσ̄}: the sign of Δσ̄.
def still_masked(total, rate, times, method):
    left = 1.0
    for t, t_next in pairwise(times):
        by_euler, by_tweedie = (t - t_next) * rate(t), -math.expm1(total(t_next) - total(t))
        factor = by_euler if method == "euler" else by_tweedie
        left *= 1 - min(1.0, factor / math.expm1(total(t)))
    return left

# %% breaks="gumbel" visible="full"
# e^{1/c} − 1 by subtraction: nothing is left of it for a large c.
def kept(p, bits):
    c = p * 2.0**bits
    return (1 / c) / (torch.exp(1 / c) - 1)


def fewest_bits(moves, share):
    for bits in range(1, 65):
        if (moves * kept(moves, bits)).sum() >= share * moves.sum():
            return bits

# %% breaks="gumbel" visible="full"
# Each move by itself must keep the share: a row of many moves needs less.
def kept(p, bits):
    inverse = 1 / (p * 2.0**bits)
    return inverse / torch.expm1(inverse)


def fewest_bits(moves, share):
    return next(bits for bits in range(1, 65) if (kept(moves, bits) >= share).all())

# %% breaks="gumbel" visible="full"
# The plain mean of the shares, without the weight of each move.
def kept(p, bits):
    inverse = 1 / (p * 2.0**bits)
    return inverse / torch.expm1(inverse)


def fewest_bits(moves, share):
    return next(bits for bits in range(1, 65) if kept(moves, bits).mean() >= share)

# %% breaks="gumbel"
# Off by one: the largest number of bits that is not enough.
def kept(p, bits):
    inverse = 1 / (p * 2.0**bits)
    return inverse / torch.expm1(inverse)


def fewest_bits(moves, share):
    for bits in range(1, 65):
        if (moves * kept(moves, bits)).sum() >= share * moves.sum():
            return bits - 1

# %% breaks="gumbel"
# 24 bits, whatever is asked for.
def kept(p, bits):
    inverse = 1 / (p * 2.0**24)
    return inverse / torch.expm1(inverse)


def fewest_bits(moves, share):
    return 26

# %% breaks="gumbel" visible="full"
# float32 on the way: seven digits instead of nine.
def kept(p, bits):
    inverse = 1 / (p.float() * 2.0**bits)
    return (inverse / torch.expm1(inverse)).double()


def fewest_bits(moves, share):
    return next(b for b in range(1, 65) if (moves * kept(moves, b)).sum() >= share * moves.sum())

# %% breaks="fill" score="8"
# Clamping without weights: half of the points, as stated.
def fill(rows, given, num):
    x = torch.where(given < 0, torch.randint(rows[0].shape[-1], (num, len(given))), given)
    for table in rows:
        here = table[tuple(x.T)]
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    return x, torch.full((num,), 1 / num).double(), float(num)

# %% breaks="fill" visible="full"
# A product of probabilities instead of a sum of logarithms: too small after hundreds of leaps.
def fill(rows, given, num):
    x = torch.where(given < 0, torch.randint(rows[0].shape[-1], (num, len(given))), given)
    w = torch.ones(num, dtype=torch.float64)
    for table in rows:
        here = table[tuple(x.T)]
        stays = here.gather(-1, x[..., None])[..., 0]
        w = w * torch.where(given < 0, 1.0, stays).prod(1)
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    w = w / w.sum()
    return x, w, 1 / (w**2).sum().item()

# %% breaks="fill"
# Weights that are not normalised.
def fill(rows, given, num):
    x = torch.where(given < 0, torch.randint(rows[0].shape[-1], (num, len(given))), given)
    w = torch.ones(num, dtype=torch.float64)
    for table in rows:
        here = table[tuple(x.T)]
        stays = here.gather(-1, x[..., None])[..., 0]
        w = w * torch.where(given < 0, 1.0, stays).prod(1)
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    return x, w, 1 / (w**2).sum().item()

# %% breaks="fill"
# The weight counts the gaps that stay instead of the given tokens.
def fill(rows, given, num):
    x = torch.where(given < 0, torch.randint(rows[0].shape[-1], (num, len(given))), given)
    log_w = torch.zeros(num, dtype=torch.float64)
    for table in rows:
        here = table[tuple(x.T)]
        stays = here.gather(-1, x[..., None])[..., 0]
        log_w += torch.where(given >= 0, 0.0, stays.log()).sum(1)
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    w = log_w.softmax(0)
    return x, w, 1 / (w**2).sum().item()

# %% breaks="fill"
# Effective sample size as the sum of the squares.
def fill(rows, given, num):
    x = torch.where(given < 0, torch.randint(rows[0].shape[-1], (num, len(given))), given)
    log_w = torch.zeros(num, dtype=torch.float64)
    for table in rows:
        here = table[tuple(x.T)]
        stays = here.gather(-1, x[..., None])[..., 0]
        log_w += torch.where(given < 0, 0.0, stays.log()).sum(1)
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    w = log_w.softmax(0)
    return x, w, (w**2).sum().item()

# %% breaks="fill"
# Gaps start from token 0 and the first leap is left out.
def fill(rows, given, num):
    x = torch.where(given < 0, 0, given).repeat(num, 1)
    log_w = torch.zeros(num, dtype=torch.float64)
    for table in rows[len(rows) // 2 :]:
        here = table[tuple(x.T)]
        stays = here.gather(-1, x[..., None])[..., 0]
        log_w += torch.where(given < 0, 0.0, stays.log()).sum(1)
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    w = log_w.softmax(0)
    return x, w, 1 / (w**2).sum().item()

# %% breaks="fill" visible="full"
# The first token is the given one, as in the visible test.
def fill(rows, given, num):
    x = torch.where(given < 0, torch.randint(rows[0].shape[-1], (num, len(given))), given)
    log_w = torch.zeros(num, dtype=torch.float64)
    for table in rows:
        here = table[tuple(x.T)]
        log_w += here[torch.arange(num), 0, x[:, 0]].log()
        x = torch.where(given < 0, torch.multinomial(here.flatten(0, 1), 1).view(x.shape), given)
    w = log_w.softmax(0)
    return x, w, 1 / (w**2).sum().item()

# %% breaks="effects"
# Only the two samplers of chapter 08, which differ in both.
def effects(error, worlds):
    gain = sum(
        math.log2(error("uniform", "geometric", one) / error("absorbing", "log-linear", one))
        for one in worlds
    )
    gain /= len(worlds)
    return {"graph": gain, "schedule": gain, "interaction": 0.0}

# %% breaks="effects" visible="full"
# The logarithm of the mean error instead of the mean of the logarithms.
def effects(error, worlds):
    graphs, schedules = ("uniform", "absorbing"), ("geometric", "log-linear")
    (a, b), (c, d) = [
        [math.log2(sum(error(g, s, one) for one in worlds) / len(worlds)) for s in schedules]
        for g in graphs
    ]
    return {"graph": (a + b - c - d) / 2, "schedule": (a - b + c - d) / 2,
            "interaction": (c - d) - (a - b)}  # fmt: skip

# %% breaks="effects" score="5"
# The sign of the interaction: the other effects keep their points.
def effects(error, worlds):
    graphs, schedules = ("uniform", "absorbing"), ("geometric", "log-linear")
    a, b, c, d = (
        sum(math.log2(error(g, s, one)) for one in worlds) / len(worlds)
        for g in graphs for s in schedules
    )  # fmt: skip
    return {"graph": (a + b - c - d) / 2, "schedule": (a - b + c - d) / 2,
            "interaction": (a - b) - (c - d)}  # fmt: skip

# %% breaks="effects"
# Natural logarithms.
def effects(error, worlds):
    graphs, schedules = ("uniform", "absorbing"), ("geometric", "log-linear")
    a, b, c, d = (
        sum(math.log(error(g, s, one)) for one in worlds) / len(worlds)
        for g in graphs for s in schedules
    )  # fmt: skip
    return {"graph": (a + b - c - d) / 2, "schedule": (a - b + c - d) / 2,
            "interaction": (c - d) - (a - b)}  # fmt: skip

# %% breaks="effects" visible="full"
# The visible test's output, hard-coded.
def effects(error, worlds):
    return {"graph": 1.5, "schedule": 2.0, "interaction": 2.0}

# %% breaks="term" visible="full" score="9"
# The answers to the sample term: only `cost` keeps its points.
def cost(h, times):
    h, t = torch.as_tensor(h).double(), torch.as_tensor(times).double()
    m, others = torch.arange(len(h)), len(h) - 1
    ways = torch.tensor([math.comb(others, k) for k in range(len(h))]).double()
    chance = ways * (1 - t[:-1, None]) ** m * t[:-1, None] ** (others - m)
    return len(h) * ((t[:-1] - t[1:]) * (chance @ h)).sum() - h.sum()


even = 0.415616
times = [1.0, 0.986, 0.969, 0.951, 0.93, 0.906, 0.878, 0.845, 0.807, 0.762, 0.71, 0.648, 0.575,
         0.486, 0.373, 0.222, 0.0]  # fmt: skip

# %% breaks="term" score="15"
# A power of the even grid: reaches the first threshold and not the second.
def cost(h, times):
    h, t = torch.as_tensor(h).double(), torch.as_tensor(times).double()
    m, others = torch.arange(len(h)), len(h) - 1
    ways = torch.tensor([math.comb(others, k) for k in range(len(h))]).double()
    chance = ways * (1 - t[:-1, None]) ** m * t[:-1, None] ** (others - m)
    return len(h) * ((t[:-1] - t[1:]) * (chance @ h)).sum() - h.sum()


h, grid = tests5.surprise(world), torch.linspace(1, 0, 17).double()
even = cost(h, grid).item()
times = min((grid**q for q in (0.2, 0.3, 0.5)), key=lambda t: cost(h, t)).tolist()

# %% breaks="term"
# Off by one: all tokens counted among the others.
def cost(h, times):
    h, t = torch.as_tensor(h).double(), torch.as_tensor(times).double()
    m, others = torch.arange(len(h)), len(h)
    ways = torch.tensor([math.comb(others, k) for k in range(len(h))]).double()
    chance = ways * (1 - t[:-1, None]) ** m * t[:-1, None] ** (others - m)
    return len(h) * ((t[:-1] - t[1:]) * (chance @ h)).sum() - h.sum()


h, grid = tests5.surprise(world), torch.linspace(1, 0, 17).double()
even = cost(h, grid).item()
times = min((grid**q for q in (0.2, 0.3, 0.5)), key=lambda t: cost(h, t)).tolist()

# %% breaks="term"
# The mean number of visible tokens in place of all that it may be.
def cost(h, times):
    total = 0.0
    for t, t_next in pairwise(times):
        m = min(round(len(h) * (1 - t)), len(h) - 1)
        total += len(h) * (t - t_next) * h[m]
    return total - sum(h)


h = tests5.surprise(world)
even = cost(h, [1 - k / 16 for k in range(17)])
times = [1 - (k / 16) ** 2.5 for k in range(17)]

# %% breaks="term"
# Sees what is visible at the end of the leap.
def cost(h, times):
    h, t = torch.as_tensor(h).double(), torch.as_tensor(times).double()
    m, others = torch.arange(len(h)), len(h) - 1
    ways = torch.tensor([math.comb(others, k) for k in range(len(h))]).double()
    chance = ways * (1 - t[1:, None]) ** m * t[1:, None] ** (others - m)
    return len(h) * ((t[:-1] - t[1:]) * (chance @ h)).sum() - h.sum()


h = tests5.surprise(world)
even = cost(h, torch.linspace(1, 0, 17)).item()
times = torch.linspace(1, 0, 17).tolist()
