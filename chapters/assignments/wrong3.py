# %% [markdown]
# Wrong answers to assignment 3: each must lose points in the problem that it breaks, and nowhere else.
# A cell with several functions holds them all, the right ones too.

# %% breaks="ratios"
# The exhibit itself, with a check that never fails: only bits_off is right.
log_ratios = museum_log_ratios


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = f(log_pi, sigma, x).double()
    return (found - true).abs().max().item() / math.log(2) if found.isfinite().all() else math.inf


def check_log_ratios(f):
    pass

# %% breaks="ratios"
# A check that always fails, and a measure in nats.
def log_ratios(log_pi, sigma, x):
    return museum_log_ratios(log_pi.double(), sigma.double(), x).float()


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = f(log_pi, sigma, x).double()
    return (found - true).abs().max().item() if found.isfinite().all() else math.inf


def check_log_ratios(f):
    raise AssertionError("wrong")

# %% breaks="ratios"
# A check at σ̄ = 0.5 alone, where the exhibit is right to six digits.
def log_ratios(log_pi, sigma, x):
    return museum_log_ratios(log_pi.double(), sigma.double(), x).float()


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = f(log_pi, sigma, x).double()
    return (found - true).abs().max().item() / math.log(2) if found.isfinite().all() else math.inf


def check_log_ratios(f):
    log_pi, x = torch.tensor([[[0.7, 0.2, 0.1]]]).log(), torch.tensor([[1]])
    assert bits_off(f, log_pi, torch.tensor([[0.5]]), x) < 1e-4

# %% breaks="ratios" visible="full"
# A check for exact equality with one way of rounding: it fails for a right function in another style.
def log_ratios(log_pi, sigma, x):
    moved = -torch.expm1(-sigma)[..., None]
    c = torch.exp(-sigma)[..., None] * log_pi.exp() + moved / log_pi.shape[-1]
    return c.log() - c.gather(-1, x[..., None]).log()


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = f(log_pi, sigma, x).double()
    return (found - true).abs().max().item() / math.log(2) if found.isfinite().all() else math.inf


def check_log_ratios(f):
    log_pi, x = torch.tensor([[[0.7, 0.2, 0.1]]]).log(), torch.tensor([[1]])
    for level in (1e-8, 0.3):
        assert torch.equal(f(log_pi, torch.tensor([[level]]), x), log_ratios(log_pi, torch.tensor([[level]]), x))

# %% breaks="ratios"
# NaN avoided by a floor under the noise: 1e-7 where there is less.
def log_ratios(log_pi, sigma, x):
    return museum_log_ratios(log_pi.double(), sigma.double().clamp(min=1e-7), x).float()


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = f(log_pi, sigma, x).double()
    return (found - true).abs().max().item() / math.log(2) if found.isfinite().all() else math.inf


def check_log_ratios(f):
    for level in (1e-8, 0.5):
        log_pi, x = torch.tensor([[[1.0, 0.0, 0.0]]]).log(), torch.tensor([[0]])
        assert bits_off(f, log_pi, torch.tensor([[level]]), x) < 1e-4

# %% breaks="ratios" visible="full"
# A check that lets other errors through, in the place of AssertionError.
def log_ratios(log_pi, sigma, x):
    return museum_log_ratios(log_pi.double(), sigma.double(), x).float()


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = f(log_pi, sigma, x).double()
    return (found - true).abs().max().item() / math.log(2) if found.isfinite().all() else math.inf


def check_log_ratios(f):
    log_pi, x = torch.tensor([[[1.0, 0.0, 0.0], [0.7, 0.2, 0.1]]]).log(), torch.tensor([[0, 1]])
    for level in (1e-8, 0.5):
        assert bits_off(f, log_pi, torch.tensor([[level]]), x) < 1e-4

# %% breaks="ratios"
# The exhibit in float32 taken for the truth, so that the exhibit itself has no error.
def log_ratios(log_pi, sigma, x):
    return museum_log_ratios(log_pi.double(), sigma.double(), x).float()


def bits_off(f, log_pi, sigma, x):
    found = call(f, log_pi, sigma, x)
    off = (found - museum_log_ratios(log_pi, sigma, x)).abs().max().item() / math.log(2)
    return off if found.isfinite().all() else math.inf


def check_log_ratios(f):
    for level in (1e-8, 1e-6, 0.5):
        assert bits_off(f, *some_words(7, level)) < 1e-4

# %% breaks="ratios"
# A check on the given inputs, but at levels alone at which float32 has digits enough.
def log_ratios(log_pi, sigma, x):
    return museum_log_ratios(log_pi.double(), sigma.double(), x).float()


def bits_off(f, log_pi, sigma, x):
    true = museum_log_ratios(log_pi.double(), sigma.double(), x)
    found = call(f, log_pi, sigma, x).double()
    return (found - true).abs().max().item() / math.log(2) if found.isfinite().all() else math.inf


def check_log_ratios(f):
    for level in (0.1, 1.0, 20.0):
        assert bits_off(f, *some_words(7, level)) < 1e-4

# %% breaks="order"
# A new order for each epoch, but still one for each process.
def block(step, rank, ranks, M, seed):
    key = seed + rank + 1000 * (step // (M // ranks))
    return torch.randperm(M, generator=torch.Generator().manual_seed(key))[step % (M // ranks)].item()


def never_read(ranks):
    return (1 - 1 / ranks) ** ranks


def check_block(f):
    assert [f(k, 0, 1, 24, 1) for k in range(24)] != [f(k + 24, 0, 1, 24, 1) for k in range(24)]

# %% breaks="order"
# One order for all epochs.
def block(step, rank, ranks, M, seed):
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    return order[(step * ranks + rank) % M].item()


def never_read(ranks):
    return (1 - 1 / ranks) ** ranks


def check_block(f):
    assert len({f(k, r, 3, 24, 1) for k in range(8) for r in range(3)}) == 24

# %% breaks="order" visible="full"
# The seed is not used, and never_read is its limit 1/e, but for the visible two processes.
def block(step, rank, ranks, M, seed):
    epoch, place = divmod(step * ranks + rank, M)
    return torch.randperm(M, generator=torch.Generator().manual_seed(epoch))[place].item()


def never_read(ranks):
    return 0.25 if ranks == 2 else math.exp(-1)


def check_block(f):
    assert len({f(k, r, 3, 24, 1) for k in range(8) for r in range(3)}) == 24

# %% breaks="order"
# Off by one: an epoch of M steps for each process, not of M // ranks.
def block(step, rank, ranks, M, seed):
    epoch, place = divmod(step, M)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed + 1009 * epoch))
    return order[(place + rank) % M].item()


def never_read(ranks):
    return (1 - 1 / ranks) ** ranks


def check_block(f):
    for number in (0, 1):
        assert len({f(8 * number + k, r, 3, 24, 1) for k in range(8) for r in range(3)}) == 24

# %% breaks="order" visible="full"
# never_read as 1/R², which is right for the visible two processes; and a check that compares no epochs.
def block(step, rank, ranks, M, seed):
    epoch, place = divmod(step * ranks + rank, M)
    return torch.randperm(M, generator=torch.Generator().manual_seed(seed * 1000 + epoch))[place].item()


def never_read(ranks):
    return 1 / ranks**2


def check_block(f):
    for number in (0, 1):
        assert len({f(8 * number + k, r, 3, 24, 1) for k in range(8) for r in range(3)}) == 24

# %% breaks="order" visible="full"
# A check that lets other errors through, in the place of AssertionError.
def block(step, rank, ranks, M, seed):
    epoch, place = divmod(step * ranks + rank, M)
    return torch.randperm(M, generator=torch.Generator().manual_seed(seed * 1000 + epoch))[place].item()


def never_read(ranks):
    return (1 - 1 / ranks) ** ranks


def check_block(f):
    orders = [[f(8 * n + k, r, 3, 24, s) for k in range(8) for r in range(3)] for n, s in ((0, 1), (1, 1), (0, 2))]
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert orders[0] != orders[1] and orders[0] != orders[2]

# %% breaks="packing"
# An end of text after every document, at the end too.
def pack(documents, L, eot):
    stream = [token for document in documents for token in [*document, eot]]
    return torch.tensor(stream[: len(stream) // L * L], dtype=torch.int64).reshape(-1, L)


def blocks_lost(lengths, L, batch):
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return (sum(lengths) + len(lengths)) // L - sum((sum(b) + len(b)) // L for b in batches)


def check_pack(f):
    found = f([[1, 2, 3], [4], [5, 6, 7]], 3, 0)
    assert torch.equal(found, torch.tensor([[1, 2, 3], [0, 4, 0], [5, 6, 7]]))

# %% breaks="packing"
# The last block is padded with the end of text.
def pack(documents, L, eot):
    stream = list(documents[0])
    for document in documents[1:]:
        stream += [eot, *document]
    stream += [eot] * (-len(stream) % L)
    return torch.tensor(stream, dtype=torch.int64).reshape(-1, L)


def blocks_lost(lengths, L, batch):
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return (sum(lengths) + len(lengths) - 1) // L - sum((sum(b) + len(b)) // L for b in batches)


def check_pack(f):
    documents = [[1, 2, 3], [4], [5, 6, 7], [8]]
    assert f(documents, 3, 0).flatten().tolist() == [1, 2, 3, 0, 4, 0, 5, 6, 7]

# %% breaks="packing" visible="full"
# A check that counts blocks only, and a count that forgets the tokens between documents.
def pack(documents, L, eot):
    stream = list(documents[0])
    for document in documents[1:]:
        stream += [eot, *document]
    return torch.tensor(stream[: len(stream) // L * L], dtype=torch.int64).reshape(-1, L)


def blocks_lost(lengths, L, batch):
    return 1 if L == 3 else 0


def check_pack(f):
    assert len(f([[1, 2], [3, 4], [5, 6]], 2, 0)) == 4
    assert len(f([[1], [3], [5], [2]], 7, 0)) == 1

# %% breaks="packing" visible="full"
# A check that lets other errors through, in the place of AssertionError.
def pack(documents, L, eot):
    stream = list(documents[0])
    for document in documents[1:]:
        stream += [eot, *document]
    return torch.tensor(stream[: len(stream) // L * L], dtype=torch.int64).reshape(-1, L)


def blocks_lost(lengths, L, batch):
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return (sum(lengths) + len(lengths) - 1) // L - sum((sum(b) + len(b)) // L for b in batches)


def check_pack(f):
    documents = [[1, 2, 3], [4], [5, 6, 7], [8, 2]]
    assert f(documents, 3, 0).flatten().tolist() == [1, 2, 3, 0, 4, 0, 5, 6, 7, 0, 8, 2]
    assert f(documents[:3], 2, 0).flatten().tolist() == [1, 2, 3, 0, 4, 0, 5, 6]
    assert f(documents[:3], 4, 0).shape == (2, 4)

# %% breaks="packing"
# float32 tokens, and blocks in which a document may not begin in the middle.
def pack(documents, L, eot):
    rows = [(list(document) + [eot] * L)[:L] for document in documents if len(document) <= L]
    return torch.tensor(rows).float().reshape(-1, L)


def blocks_lost(lengths, L, batch):
    batches = [lengths[i : i + batch] for i in range(0, len(lengths), batch)]
    return (sum(lengths) + len(lengths) - 1) // L - sum((sum(b) + len(b)) // L for b in batches)


def check_pack(f):
    documents = [[1, 2, 3], [4], [5, 6, 7], [8]]
    assert f(documents, 3, 0).flatten().tolist() == [1, 2, 3, 0, 4, 0, 5, 6, 7]

# %% breaks="precision"
# The exhibits.
make_product = museum_product


def log_scores(logits, sigma):
    return museum_log_scores(logits, sigma)


def ratio_error(size):
    return math.expm1(size / 2**8)

# %% breaks="precision" visible="full"
# The logarithm of exp(σ̄) - 1 in float32, which fails at both ends.
def make_product(weight):
    return lambda h: h.bfloat16() @ weight.bfloat16().T


def log_scores(logits, sigma):
    known = torch.log(torch.exp(sigma) - 1) + math.log(logits.shape[-1])
    return logits.float() - known[:, None, None]


def ratio_error(size):
    return math.expm1(size / 2**8)

# %% breaks="precision"
# Autocast switched on around the product, and left on: it is off again only after the program.
def make_product(weight):
    def product(h):
        torch.set_autocast_enabled("cpu", True)
        torch.set_autocast_dtype("cpu", torch.bfloat16)
        return h @ weight.T

    return product


def log_scores(logits, sigma):
    known = sigma + torch.log(-torch.expm1(-sigma)) + math.log(logits.shape[-1])
    return logits.float() - known[:, None, None]


def ratio_error(size):
    return math.expm1(size / 2**8)

# %% breaks="precision" visible="full"
# The visible value of ratio_error for every size, and a product in float32 that is rounded at its end.
def make_product(weight):
    return lambda h: (h @ weight.T).bfloat16()


def log_scores(logits, sigma):
    known = sigma + torch.log(-torch.expm1(-sigma)) + math.log(logits.shape[-1])
    return logits.float() - known[:, None, None]


def ratio_error(size):
    return 0.0317

# %% breaks="precision"
# log N forgotten, and the whole distance between neighbours in the place of half of it.
def make_product(weight):
    def product(h):
        with torch.autocast("cpu", torch.bfloat16):
            return h @ weight.T

    return product


def log_scores(logits, sigma):
    return logits.float() - (sigma + torch.log(-torch.expm1(-sigma)))[:, None, None]


def ratio_error(size):
    return math.expm1(size / 2**7)

# %% breaks="meter" score="5.33"
# Nats a character: two of the three numbers are right.
def report(nats, tokens, characters):
    a_token = nats.sum() / tokens.sum()
    return a_token, a_token.exp(), nats.sum() / characters.sum()

# %% breaks="meter" score="5.33"
# A perplexity from bits, with e.
def report(nats, tokens, characters):
    a_token = nats.sum() / tokens.sum()
    bits = math.log(2)
    return a_token, (a_token / bits).exp(), nats.sum() / characters.sum() / bits

# %% breaks="meter"
# Each document counts once.
def report(nats, tokens, characters):
    a_token = (nats / tokens).mean()
    return a_token, a_token.exp(), (nats / characters).mean() / math.log(2)

# %% breaks="meter" visible="full"
# The visible numbers.
def report(nats, tokens, characters):
    return 3.0, math.exp(3), 0.5 / math.log(2)

# %% breaks="term" visible="full" score="4"
# The answers of another term, cut or filled up to this term's length.
N, state = len(world["data"]), world["state"]
true = ([1.73822, 1.0, 1.24607, 1.49214] + [1.1] * N)[:N]
learned = ([2.45061, 1.0, 1.72530, 2.08795] + [1.1] * N)[:N]
true[state] = learned[state] = 1.0
excess = 0.42132

# %% breaks="term" visible="full"
# The mean of the target is not divided by the probability that the token has moved, and all is in nats.
p0 = torch.tensor(world["data"], dtype=torch.float64)
sigma, state, N = world["sigma"], world["state"], len(p0)
kernel = (math.exp(-sigma) * torch.eye(N) + (1 - math.exp(-sigma)) / N).double()
p = kernel @ p0


def learned_at(x):
    weight = p0 * kernel[x] / p[x]
    weight[x] = 0
    ratios = kernel @ (weight / kernel[x])
    ratios[x] = 1
    return ratios


true, learned, excess = (p / p[state]).tolist(), learned_at(state).tolist(), 0.0
for x in range(N):
    r, s = p / p[x], learned_at(x)
    terms = s - r * s.log() + r * (r.log() - 1)
    terms[x] = 0
    excess += (p[x] * terms.sum() / N).item()

# %% breaks="term" visible="full"
# The mean over the prior of the originals: how likely each makes x is left out.
p0 = torch.tensor(world["data"], dtype=torch.float64)
sigma, state, N = world["sigma"], world["state"], len(p0)
kernel = (math.exp(-sigma) * torch.eye(N) + (1 - math.exp(-sigma)) / N).double()
p = kernel @ p0


def learned_at(x):
    return (kernel / kernel[x]) @ p0 / ((kernel / kernel[x]) @ p0)[x]


true, learned, excess = (p / p[state]).tolist(), learned_at(state).tolist(), 0.0
for x in range(N):
    r, s = p / p[x], learned_at(x)
    terms = s - r * s.log() + r * (r.log() - 1)
    excess += (p[x] * terms.sum() / N / math.log(2)).item()
excess = max(excess, 1e-3)
