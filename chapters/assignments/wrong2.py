# %% [markdown]
# Wrong answers to assignment 2: each must lose points in the problem that it breaks, and nowhere else.

# %% breaks="bias"
# The chances are ignored.
def bias(loss, R, chance):
    R, chance = R.double(), chance.double()
    s = torch.logspace(-3, 3, 20_001, dtype=torch.float64)[:, None]
    best = s[loss(s, R).mean(-1).argmin(), 0]
    return (best / (chance @ R)).log().item()

# %% breaks="bias"
# The sign: the mean over the estimate.
def bias(loss, R, chance):
    R, chance = R.double(), chance.double()
    s = torch.logspace(-3, 3, 20_001, dtype=torch.float64)[:, None]
    best = s[(loss(s, R) @ chance).argmin(), 0]
    return ((chance @ R) / best).log().item()

# %% breaks="bias"
# A grid that is too coarse.
def bias(loss, R, chance):
    s = torch.logspace(-3, 3, 200)[:, None]
    best = s[(loss(s, R) @ chance).argmin(), 0]
    return (best / (chance @ R)).log().item()

# %% breaks="bias"
# A grid of equal steps, which has few points near small ratios.
def bias(loss, R, chance):
    s = torch.linspace(1e-3, 1e3, 20_001)[:, None]
    best = s[(loss(s, R) @ chance).argmin(), 0]
    return (best / (chance @ R)).log().item()

# %% breaks="bias" visible="full"
# The visible test's outputs, told apart by the loss of one pair.
def bias(loss, R, chance):
    value = round(loss(torch.tensor(1.0), torch.tensor(4.0)).item(), 3)
    return {1.922: math.log(2**-0.4 / 1.2), 3.0: math.log(0.5 / 1.2)}.get(value, 0.0)

# %% breaks="bias" visible="full"
# Searches between 0.3 and 2 only, which is enough for the visible targets.
def bias(loss, R, chance):
    R, chance = R.double(), chance.double()
    s = torch.linspace(0.3, 2.0, 20_001, dtype=torch.float64)[:, None]
    best = s[(loss(s, R) @ chance).argmin(), 0]
    return (best / (chance @ R)).log().item()

# %% breaks="mixed" score="6.67"
# MASK noise only: words cost nothing. A third of the points.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / N, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    R = (torch.exp(-a * sigma) / -torch.expm1(-a * sigma))[..., None] * p
    u = log_s[..., :N]
    terms = u.exp() - R * u + R * (R.log() - 1)
    return torch.where(x == N, a * terms.sum(-1), 0)

# %% breaks="mixed" score="13.33"
# Hidden tokens as in pure MASK noise, where only the original has a target above 0: two thirds.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / N, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    word = torch.where(x == N, 0, x)
    R = p / p.gather(-1, word[..., None])
    u = log_s[..., :N]
    terms = u.exp() - R * u + R * (R.log() - 1)
    visible = b / N * torch.where(y == x[..., None], 0, terms).sum(-1)
    r = 1 / torch.expm1(a * sigma)
    at_x0 = u.gather(-1, x0[..., None])[..., 0]
    return torch.where(x == N, a * (u.exp().sum(-1) - r * at_x0 + r * (r.log() - 1)), visible)

# %% breaks="mixed"
# The rates out of x as weights: a word pays for its jump to MASK, and MASK pays nothing.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / N, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    p = torch.exp(-a * sigma)[..., None] * p
    hidden = x == N
    p = torch.cat([p, (-torch.expm1(-a * sigma)).expand(x.shape)[..., None]], -1)
    R = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - R * log_s + R * (R.log() - 1)
    terms = torch.where(torch.arange(N + 1) == x[..., None], 0, terms)
    return torch.where(hidden, 0, b / N * terms[..., :N].sum(-1) + a * terms[..., N])

# %% breaks="mixed"
# The weight a for words as well.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / N, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    p = torch.exp(-a * sigma)[..., None] * p
    hidden = x == N
    p_x = torch.where(hidden, -torch.expm1(-a * sigma), p.gather(-1, (x % N)[..., None])[..., 0])
    R = p / p_x[..., None]
    u = log_s[..., :N]
    terms = u.exp() - R * u + R * (R.log() - 1)
    return a * torch.where(y == x[..., None], 0, terms).sum(-1)

# %% breaks="mixed" visible="full"
# The visible test's two words in the place of N.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / 2, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    p = torch.exp(-a * sigma)[..., None] * p
    hidden = x == N
    p_x = torch.where(hidden, -torch.expm1(-a * sigma), p.gather(-1, (x % N)[..., None])[..., 0])
    R = p / p_x[..., None]
    u = log_s[..., :N]
    terms = u.exp() - R * u + R * (R.log() - 1)
    return torch.where(hidden, a, b / 2) * torch.where(y == x[..., None], 0, terms).sum(-1)

# %% breaks="mixed"
# The constant without its -R: the loss is not 0 at the truth.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / N, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    p = torch.exp(-a * sigma)[..., None] * p
    hidden = x == N
    p_x = torch.where(hidden, -torch.expm1(-a * sigma), p.gather(-1, (x % N)[..., None])[..., 0])
    R = p / p_x[..., None]
    u = log_s[..., :N]
    terms = u.exp() - R * u + R * R.log()
    return torch.where(hidden, a, b / N) * torch.where(y == x[..., None], 0, terms).sum(-1)

# %% breaks="mixed" visible="full"
# y = x is in the sum.
def mixed_loss(log_s, sigma, a, b, x, x0):
    N = log_s.shape[-1] - 1
    fresh, y = -torch.expm1(-b * sigma) / N, torch.arange(N)
    p = torch.where(y == x0[..., None], (torch.exp(-b * sigma) + fresh)[..., None], fresh[..., None])
    p = torch.exp(-a * sigma)[..., None] * p
    hidden = x == N
    p_x = torch.where(hidden, -torch.expm1(-a * sigma), p.gather(-1, (x % N)[..., None])[..., 0])
    R = p / p_x[..., None]
    u = log_s[..., :N]
    return torch.where(hidden, a, b / N) * (u.exp() - R * u + R * (R.log() - 1)).sum(-1)

# %% breaks="mixed" visible="full"
# A kernel from the matrix exponential: right, and far too large for 30 000 words.
def mixed_loss(log_s, sigma, a, b, x, x0):
    S = log_s.shape[-1]
    if S > 1000:
        raise MemoryError("an S x S matrix does not fit")
    Q = torch.zeros(S, S, dtype=torch.float64)
    Q[: S - 1, : S - 1], Q[S - 1, : S - 1] = b / (S - 1), a
    Q = Q - Q.diagonal().diag()
    kernel = torch.matrix_exp(sigma[..., None].double() * (Q - Q.sum(0).diag()))  # (B, S, S)
    p = torch.stack([k[:, row].T for k, row in zip(kernel, x0)])  # (B, L, S)
    R = p / p.gather(-1, x[..., None])
    terms = log_s.exp() - R * log_s + torch.xlogy(R, R) - R
    return (Q[x] * terms).sum(-1)

# %% breaks="rivals" score="5"
# The kernel's index exchanged: p(a | y) instead of p(y | a). Ratio matching is right: half.
def from_guess(kernel, guess, x):
    return (guess / kernel.T[x]) @ kernel


def from_blank(blank, x):
    return blank / blank.gather(-1, x[..., None])

# %% breaks="rivals" score="5"
# The probabilities of the blank themselves, not divided by that of x: mean prediction's half is left.
def from_guess(kernel, guess, x):
    return (guess / kernel[x]) @ kernel.T


def from_blank(blank, x):
    return blank

# %% breaks="rivals"
# The guess of the original word taken for the ratio, as if the noise were MASK.
def from_guess(kernel, guess, x):
    return guess / guess.gather(-1, x[..., None])


def from_blank(blank, x):
    return blank / blank.gather(-1, x[..., None])

# %% breaks="rivals"
# The ratio upside down.
def from_guess(kernel, guess, x):
    return 1 / ((guess / kernel[x]) @ kernel.T)


def from_blank(blank, x):
    return blank.gather(-1, x[..., None]) / blank

# %% breaks="bound" score="7"
# No prior term: half of the points.
def bound(Q, log_s, log_base, sigma_max):
    sigma, weight = noise_levels(sigma_max)
    p = torch.matrix_exp(sigma[:, None, None] * Q)
    R = p[:, None] / p[:, :, None]
    u = log_s(sigma)[..., None]
    terms = u.exp() - R * u + R * (R.log() - 1)
    return weight @ torch.einsum("mxo,xy,mxyo->mo", p, Q - Q.diagonal().diag(), terms)

# %% breaks="bound"
# The weights are the rates out of x.
def bound(Q, log_s, log_base, sigma_max):
    sigma, weight = noise_levels(sigma_max)
    p = torch.matrix_exp(sigma[:, None, None] * Q)
    R = p[:, None] / p[:, :, None]
    u = log_s(sigma)[..., None]
    terms = u.exp() - R * u + R * (R.log() - 1)
    integral = weight @ torch.einsum("mxo,yx,mxyo->mo", p, Q - Q.diagonal().diag(), terms)
    last = torch.matrix_exp(sigma_max * Q)
    return integral + (last * (last.log() - log_base[:, None])).sum(0)

# %% breaks="bound"
# The divergence of the prior term the other way round.
def bound(Q, log_s, log_base, sigma_max):
    sigma, weight = noise_levels(sigma_max)
    p = torch.matrix_exp(sigma[:, None, None] * Q)
    R = p[:, None] / p[:, :, None]
    u = log_s(sigma)[..., None]
    terms = u.exp() - R * u + R * (R.log() - 1)
    integral = weight @ torch.einsum("mxo,xy,mxyo->mo", p, Q - Q.diagonal().diag(), terms)
    last, base = torch.matrix_exp(sigma_max * Q), log_base[:, None]
    return integral + (base.exp() * (base - last.log())).sum(0)

# %% breaks="bound"
# A mean over the noise levels instead of the integral: the weights are forgotten.
def bound(Q, log_s, log_base, sigma_max):
    sigma, _ = noise_levels(sigma_max)
    p = torch.matrix_exp(sigma[:, None, None] * Q)
    R = p[:, None] / p[:, :, None]
    u = log_s(sigma)[..., None]
    terms = u.exp() - R * u + R * (R.log() - 1)
    integral = torch.einsum("mxo,xy,mxyo->mo", p, Q - Q.diagonal().diag(), terms).mean(0)
    last = torch.matrix_exp(sigma_max * Q)
    return integral + (last * (last.log() - log_base[:, None])).sum(0)

# %% breaks="bound" visible="full"
# Minus the logarithm of the data, found from the exact ratios: no bound for any other scores.
def bound(Q, log_s, log_base, sigma_max):
    u = log_s(torch.tensor([1e-9], dtype=torch.float64))[0]
    return -torch.log_softmax(u[0], 0)

# %% breaks="leaps" visible="full"
# The times are taken to be as in the visible test: one early leap decides.
def law_of_leaps(p, times):
    together = (1 - times[1]) ** 2 + times[1] ** 2
    return (1 - together) * p + together * p.sum(1, keepdim=True) * p.sum(0)

# %% breaks="leaps" score="5"
# Equal leaps whatever the times: 1/K. It keeps three of four visible tests, and the hidden one with equal leaps.
def law_of_leaps(p, times):
    together = 1 / (len(times) - 1)
    return (1 - together) * p + together * p.sum(1, keepdim=True) * p.sum(0)

# %% breaks="leaps"
# Off by one: the number of times in the place of the number of leaps.
def law_of_leaps(p, times):
    together = 1 / len(times)
    return (1 - together) * p + together * p.sum(1, keepdim=True) * p.sum(0)

# %% breaks="leaps"
# The probability to appear, given that it is still hidden, in the place of the probability to appear in that leap.
def law_of_leaps(p, times):
    times = torch.as_tensor(times, dtype=p.dtype)
    together = ((times.diff() / times[:-1]) ** 2).sum().clamp(max=1)
    return (1 - together) * p + together * p.sum(1, keepdim=True) * p.sum(0)

# %% breaks="leaps"
# Uniform words in the place of the marginals where both appear together.
def law_of_leaps(p, times):
    together = (torch.as_tensor(times).diff() ** 2).sum()
    return (1 - together) * p + together / p.numel()

# %% breaks="term" visible="full" score="3"
# The answers of another term.
law = [[[0.23999, 0.05434], [0.09724, 0.12472]], [[0.03645, 0.08455], [0.1411, 0.22162]]]
tv, needed = 0.05839, 15

# %% breaks="term" visible="full"
# Two tokens' law used for three: either all apart or all together.
p = torch.tensor(world["triples"], dtype=torch.float64)
one = p.sum((1, 2)).reshape(2, 1, 1) * p.sum((0, 2)).reshape(1, 2, 1) * p.sum((0, 1))
K = world["leaps"]
law = (1 - 1 / K) * p + one / K
tv = (law - p).abs().sum().item() / 2
needed = math.ceil((one - p).abs().sum().item() / 2 / world["goal"])

# %% breaks="term" visible="full"
# The pair that shares a leap always appears first.
p = torch.tensor(world["triples"], dtype=torch.float64)


def law_of(K):
    one = [p.sum((1, 2)).reshape(2, 1, 1), p.sum((0, 2)).reshape(1, 2, 1), p.sum((0, 1))]
    result = (K - 1) * (K - 2) / K**2 * p + one[0] * one[1] * one[2] / K**2
    for alone in range(3):
        i, j = (d for d in range(3) if d != alone)
        result = result + (K - 1) / K**2 * one[i] * one[j] * p / p.sum(alone, keepdim=True)
    return result


law = law_of(world["leaps"])
tv = (law - p).abs().sum().item() / 2
needed = next(K for K in range(1, 1000) if (law_of(K) - p).abs().sum() / 2 <= world["goal"])
