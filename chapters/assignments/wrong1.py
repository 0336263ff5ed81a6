# %% [markdown]
# Wrong answers to assignment 1: each must lose points in the problem that it breaks, and nowhere else.

# %% breaks="rates"
# Origin and destination exchanged.
def rate_matrix(S, jumps):
    Q = torch.zeros(S, S, dtype=torch.float64)
    for x, y, rate in jumps:
        Q[x, y] += rate
        Q[y, y] -= rate
    return Q

# %% breaks="rates" score="7.5"
# A repeated jump keeps its last rate: partial credit for all else.
def rate_matrix(S, jumps):
    Q = torch.zeros(S, S, dtype=torch.float64)
    for x, y, rate in jumps:
        Q[y, x] = rate
    return Q - Q.sum(0).diag()

# %% breaks="rates"
# The sign of the diagonal.
def rate_matrix(S, jumps):
    Q = torch.zeros(S, S, dtype=torch.float64)
    for x, y, rate in jumps:
        Q[y, x] += rate
        Q[x, x] += rate
    return Q

# %% breaks="rates" visible="full"
# float32 instead of float64.
def rate_matrix(S, jumps):
    Q = torch.zeros(S, S)
    for x, y, rate in jumps:
        Q[y, x] += rate
        Q[x, x] -= rate
    return Q

# %% breaks="rates" visible="full"
# The visible test's matrices, copied.
def rate_matrix(S, jumps):
    if S == 3:
        return torch.tensor([[-2.0, 0.0, 1.0], [2.0, -0.5, 0.0], [0.0, 0.5, -1.0]]).double()
    return torch.tensor([[-1.5, 3.0], [1.5, -3.0]]).double()

# %% breaks="kernel" visible="full" score="10.5"
# Halves 10 times whatever the chain: not enough for a fast one, as the statement says.
def kernel(Q, sigma):
    A = sigma * Q / 2**10
    K = power = torch.eye(len(Q), dtype=Q.dtype)
    for n in range(1, 9):
        power = power @ A / n
        K = K + power
    for _ in range(10):
        K = K @ K
    return K

# %% breaks="kernel"
# Euler's method with 1000 steps: right to three digits only.
def kernel(Q, sigma):
    return torch.linalg.matrix_power(torch.eye(len(Q), dtype=Q.dtype) + sigma / 1000 * Q, 1000)

# %% breaks="kernel"
# torch's own exponential, which was not allowed.
def kernel(Q, sigma):
    return torch.matrix_exp(sigma * Q)

# %% breaks="kernel"
# Rows and columns exchanged.
def kernel(Q, sigma):
    A = sigma * Q.T / 2**20
    K = torch.eye(len(Q), dtype=Q.dtype) + A + A @ A / 2
    for _ in range(20):
        K = K @ K
    return K

# %% breaks="kernel"
# The closed form of the uniform and the absorbing graph, which no other graph has.
def kernel(Q, sigma):
    return torch.eye(len(Q), dtype=Q.dtype) + (1 - math.exp(-sigma)) * Q

# %% breaks="jump_time" visible="full"
# Forgets that the token has been there since s only.
def still_there(t, q, a, s):
    return torch.exp(-q * a * t**2)


def jump_time(u, q, a, s):
    return torch.sqrt(-torch.log(u) / (q * a))

# %% breaks="jump_time" visible="full"
# Noise of the time since s, instead of the noise since s.
def still_there(t, q, a, s):
    return torch.exp(-q * a * (t - s) ** 2)


def jump_time(u, q, a, s):
    return s + torch.sqrt(-torch.log(u) / (q * a))

# %% breaks="jump_time"
# The probability of having jumped.
def still_there(t, q, a, s):
    return 1 - torch.exp(-q * a * (t**2 - s**2))


def jump_time(u, q, a, s):
    return torch.sqrt(s**2 - torch.log(1 - u) / (q * a))

# %% breaks="jump_time"
# Takes the rate of the schedule at t, 2at, for the noise until t.
def still_there(t, q, a, s):
    return torch.exp(-q * 2 * a * (t - s))


def jump_time(u, q, a, s):
    return s - torch.log(u) / (2 * q * a)

# %% breaks="step_back" score="6"
# The small step of chapter 01: partial credit for tiny steps.
def step_back(x, ratios, Q, h):
    chances = h * ratios * Q[x]
    chances[x] = 0
    chances[x] = 1 - chances.sum()
    return chances

# %% breaks="step_back"
# The kernel's column instead of its row: where x goes, not where it came from.
def step_back(x, ratios, Q, h):
    return torch.matrix_exp(h * Q)[:, x] * (torch.matrix_exp(-h * Q) @ ratios)

# %% breaks="step_back"
# The ratios of the noisier level, without going back to the cleaner one.
def step_back(x, ratios, Q, h):
    chances = torch.matrix_exp(h * Q)[x] * ratios
    return chances / chances.sum()

# %% breaks="step_back"
# The sign of h: more noise instead of less.
def step_back(x, ratios, Q, h):
    chances = torch.matrix_exp(h * Q)[x] * (torch.matrix_exp(h * Q) @ ratios)
    return chances / chances.sum()

# %% breaks="one_way"
# Every jump in both directions: the uniform choice, with the right mixture.
def one_way(mixture):
    S = len(mixture)
    Q = mixture[:, None].repeat(1, S)
    Q -= torch.eye(S, dtype=Q.dtype)
    return Q / (-Q.diagonal() @ mixture)

# %% breaks="one_way"
# A ring with equal rates: its mixture is even, whatever was asked for.
def one_way(mixture):
    I = torch.eye(len(mixture), dtype=mixture.dtype)
    return I.roll(1, 0) - I

# %% breaks="one_way"
# Rates in proportion to the mixture instead of to its inverse.
def one_way(mixture):
    I = torch.eye(len(mixture), dtype=mixture.dtype)
    return (I.roll(1, 0) - I) * mixture * len(mixture)

# %% breaks="one_way"
# Not normalised: each state is left at rate 1/p.
def one_way(mixture):
    I = torch.eye(len(mixture), dtype=mixture.dtype)
    return (I.roll(1, 0) - I) / mixture

# %% breaks="one_way" visible="full"
# Right for three states only.
def one_way(mixture):
    Q = torch.zeros(len(mixture), len(mixture), dtype=mixture.dtype)
    for x in range(3):
        Q[(x + 1) % 3, x] = 1 / (3 * mixture[x])
    return Q - Q.sum(0).diag()

# %% breaks="page"
# Nats instead of bits.
def bits_a_word(surprise, hidden, t):
    return (surprise * hidden / t[:, None]).mean()

# %% breaks="page"
# Without the weight 1/t.
def bits_a_word(surprise, hidden, t):
    return (surprise * hidden).mean() / math.log(2)

# %% breaks="page"
# The mean over hidden words: the same where a share t is hidden exactly, and not otherwise.
def bits_a_word(surprise, hidden, t):
    return (surprise * hidden).sum() / hidden.sum() / math.log(2)

# %% breaks="term" visible="full"
# The answers to the sample term of the repository.
stationary = [0.55172, 0.27586, 0.17241]
noisy = [0.37887, 0.30162, 0.31951]
back = [0.0, 0.472, -0.472]

# %% breaks="term"
# The matrix by rows: the mixture and the rates of another chain.
Q = torch.tensor(world["rates"], dtype=torch.float64).T
stationary = torch.ones(len(Q)).double() / len(Q)
noisy = torch.matrix_exp(world["sigma"] * Q) @ torch.tensor(world["data"], dtype=torch.float64)
back = Q[:, world["state"]]
