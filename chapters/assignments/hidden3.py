"""Hidden tests of assignment 3: other worlds, sizes and seeds. Students do not get this file."""

import itertools
import math
from functools import partial

import torch
from grading import Marks, close, expected
from tests3 import accepts, autocast_off, epoch

from sedd_mini.text.blocks import BlockLoader


def check_term(world: dict, expected: dict) -> None:
    """ValueError in one line for a world that problem 6 cannot use."""
    data = torch.tensor(world["data"], dtype=torch.float64)
    if not 3 <= len(data) <= 10 or data.min() <= 0 or abs(data.sum() - 1) > 1e-9:
        raise ValueError("data must be 3 to 10 positive numbers that sum to 1")
    if not 0.05 <= world["sigma"] <= 3:
        raise ValueError(f"sigma must be between 0.05 and 3, not {world['sigma']}")
    if not (isinstance(world["state"], int) and 0 <= world["state"] < len(data)):
        raise ValueError(f"state must be one of 0 … {len(data) - 1}, not {world['state']}")


def judge(marks, check, name: str, rights: tuple, wrongs: dict) -> None:
    """A part for each broken function; each needs that the check passes all right ones."""
    passed = []
    for title, wrong in wrongs.items():
        with marks.part(1, f"{name}: {title}"):
            passed = passed or [accepts(check, right) for right in rights]
            assert all(passed), "it fails for a function that is right"
            assert not accepts(check, wrong), "it does not fail for this function"


def fails(*arguments):
    """Wrong in every row: an error of its own."""
    raise IndexError("index out of range")


FAILING = {"an IndexError": fails, "a forgotten return": lambda *arguments: None}


def log_ratios_of(log_pi, sigma, x, moved_of=lambda s: -torch.expm1(-s), share=None):
    """In float64 and back; moved_of and share are where the broken versions differ."""
    N, moved = log_pi.shape[-1], moved_of(sigma)[..., None].double()
    c = torch.exp(-sigma.double())[..., None] * log_pi.double().exp() + moved / (share or N)
    return (c.log() - c.gather(-1, x[..., None]).log()).float()


def in_logs(log_pi, sigma, x):
    """All in float32, as a sum of logarithms."""
    noise = (-torch.expm1(-sigma)).log()[..., None] - math.log(log_pi.shape[-1])
    log_c = torch.logaddexp(log_pi - sigma[..., None], noise)
    return log_c - log_c.gather(-1, x[..., None])


WRONG_RATIOS = {
    "1 - exp(-σ̄) in float32": lambda a, s, x: log_ratios_of(a, s, x, lambda s: 1 - (-s).exp()),
    "1 - 1/exp(σ̄) in float32": lambda a, s, x: log_ratios_of(a, s, x, lambda s: 1 - 1 / s.exp()),
    "c_x / c_y": lambda a, s, x: -log_ratios_of(a, s, x),
    "noise that is not divided by N": lambda a, s, x: log_ratios_of(a, s, x, share=1.0),
    "π_y / π_x, without noise": lambda a, s, x: a - a.gather(-1, x[..., None]),
    **FAILING,
}


def ratios(fixed, bits_off, check, *, points):
    """Levels from 1e-9 to 20, vocabularies up to 1000, zeros; seven broken functions."""
    marks = Marks(points)
    generator = torch.Generator().manual_seed(5)
    for N, levels in ((4, (20.0, 1.0, 0.03)), (9, (1e-9, 4e-8, 3e-7)), (1000, (1e-9, 1e-5, 3.0))):
        log_pi = (4 * torch.randn(3, 2, N, generator=generator)).log_softmax(-1)
        log_pi[:, :, 0] = -math.inf
        x = torch.randint(N, (3, 2), generator=generator)
        sigma = torch.tensor(levels)[:, None]
        want = log_ratios_of(log_pi, sigma.double(), x)
        with marks.part(2, f"log_ratios: {N} words, σ̄ = {levels}"):
            found = torch.as_tensor(fixed(log_pi.clone(), sigma.clone(), x.clone())).double()
            assert found.shape == want.shape, f"it has shape {tuple(found.shape)}"
            off = (found - want).abs().max()
            assert off < 1e-4, f"it is off by {off:.3g}"  # NaN is not
    with marks.part(2, "bits_off: a function that is right but for one entry"):
        log_pi = torch.randn(2, 3, 6, generator=generator).log_softmax(-1)
        x, sigma = torch.randint(6, (2, 3), generator=generator), torch.tensor([[1e-8], [0.4]])

        def one_entry(log_pi, sigma, x):
            result = log_ratios_of(log_pi, sigma, x)
            result[1, 2, 4] -= 3 * math.log(2)
            return result

        found = bits_off(one_entry, log_pi.clone(), sigma.clone(), x.clone())
        close(found, 3.0, "the error of an entry that is 3 bits too low", 1e-3)
        assert bits_off(log_ratios_of, log_pi, sigma, x) < 1e-3, "a right function has an error"
        # words of probability 0 show the wrong share of noise
        wrong, sure = (
            WRONG_RATIOS["1 - exp(-σ̄) in float32"],
            torch.tensor([[[1.0, 0.0, 0.0]]]).log(),
        )
        sigma, x = torch.tensor([[1e-7]]), torch.tensor([[0]])
        want = (wrong(sure, sigma, x)[0, 0, 1].double() - math.log(1e-7 / 3)).abs() / math.log(2)
        close(bits_off(wrong, sure, sigma, x), want, "the exhibit's error at 1e-7", 1e-3)
    judge(marks, check, "check_log_ratios", (log_ratios_of, in_logs), WRONG_RATIOS)
    return marks.total()


def block_of(step, rank, ranks, M, seed, stay=False, same=False, by_ranges=False):
    """Right, or broken in one way: one order for all epochs, or for all seeds.

    by_ranges: right too; each process reads a range of the epoch's order, not every ranks-th place.
    """
    number, place = divmod(step, M // ranks)
    key = (0 if same else 7919 * seed) + (0 if stay else 104_729 * number)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(key))
    return order[rank * (M // ranks) + place if by_ranges else place * ranks + rank].item()


def library_block(step, rank, ranks, M, seed):
    """The block that the library's loader gives at this place of the stream."""
    loader = BlockLoader(torch.arange(M)[:, None], batch_size=1, seed=seed)
    return loader.block_of(step * ranks + rank)


def own_order(step, rank, ranks, M, seed):
    """The exhibit, with a new order for each epoch."""
    key = seed + rank + 1000 * (step // (M // ranks))
    order = torch.randperm(M, generator=torch.Generator().manual_seed(key))
    return order[step % (M // ranks)].item()


def all_the_same(step, rank, ranks, M, seed):
    """Every process reads the whole epoch, so that each block is read by all of them."""
    return block_of(step % M, 0, 1, M, seed)


WRONG_BLOCKS = {
    "an order for each process": own_order,
    "one order for all epochs": partial(block_of, stay=True),
    "one order for all seeds": partial(block_of, same=True),
    "no shuffling": lambda step, rank, ranks, M, seed: (step * ranks + rank) % M,
    "all processes read the same": all_the_same,
    **FAILING,
}


def order(block, never_read, check, *, points):
    """One, two and five processes; two right functions and seven broken ones."""
    marks = Marks(points)
    with marks.part(3, "block: epochs are complete, for 1, 2 and 5 processes"):
        for ranks, M, seed in ((1, 17, 3), (2, 40, 8), (5, 35, 123)):
            for number in (0, 1, 4):
                found = sorted(epoch(block, number, ranks, M, seed))
                assert found == list(range(M)), f"epoch {number} of {ranks} processes is not"
    with marks.part(2, "block: another order in each epoch of a seed, and under each seed"):
        keys = list(itertools.product((0, 1, 2), (8, 9)))  # epoch and seed
        orders = {key: [int(b) for b in epoch(block, key[0], 2, 40, key[1])] for key in keys}
        assert all(len(set(found)) == 40 for found in orders.values()), "a block is read twice"
        for one, other in itertools.combinations(keys, 2):
            if one[0] == other[0] or one[1] == other[1]:  # nothing is asked of the other pairs
                assert orders[one] != orders[other], f"(epoch, seed) {one} and {other} are the same"
    with marks.part(1, "block: the arguments alone decide"):
        first = [block(step, 1, 2, 40, 8) for step in (5, 70, 3)]
        torch.manual_seed(99)
        second = [block(step, 1, 2, 40, 8) for step in (5, 70, 3)]
        assert first == second and len(set(epoch(block, 0, 2, 40, 8))) == 40, (
            "a second call differs"
        )
    with marks.part(2, "never_read: 1, 4 and 64 processes"):
        for ranks in (1, 4, 64):
            # of M blocks each process leaves out M - M / ranks, each equally likely
            want = math.prod([(ranks - 1) / ranks] * ranks)
            close(never_read(ranks), want, f"never_read({ranks})")
    rights = (library_block, partial(block_of, by_ranges=True))
    judge(marks, check, "check_block", rights, WRONG_BLOCKS)
    return marks.total()


def pack_of(documents, L, eot, before=False, after=False, between=True, pad=False):
    """Right, or broken in one way."""
    stream = [eot] * before
    for i, document in enumerate(documents):
        stream += [eot] * (between and i > 0) + list(document)
    stream += [eot] * after
    if pad:
        stream += [eot] * (-len(stream) % L)
    n = len(stream) // L
    return torch.tensor([stream[i * L : (i + 1) * L] for i in range(n)]).long().reshape(n, L)


def by_batches(documents, L, eot, batch):
    """A batch of documents at a time, with nothing carried over to the next."""
    parts = [pack_of(documents[i : i + batch], L, eot) for i in range(0, len(documents), batch)]
    return torch.cat(parts)


def by_unfolding(documents, L, eot):
    """Right, by another way."""
    stream = torch.cat([torch.tensor([eot, *document]) for document in documents])[1:]
    return stream.unfold(0, L, L) if len(stream) >= L else torch.zeros(0, L).long()


WRONG_PACKS = {
    "three documents at a time": partial(by_batches, batch=3),
    "an end of text before the first document": partial(pack_of, before=True),
    "no end of text": partial(pack_of, between=False),
    "the last block filled up": partial(pack_of, pad=True),
    "an end of text after the last document": partial(pack_of, after=True),
    **FAILING,
}


def packing(pack, blocks_lost, check, *, points):
    """Long, short and single documents; two right functions and seven broken ones."""
    marks = Marks(points)
    generator = torch.Generator().manual_seed(6)

    def documents_of(lengths):
        return [torch.randint(1, 90, (n,), generator=generator).tolist() for n in lengths]

    for L, lengths in ((4, (1, 2, 3, 4, 5, 6)), (16, (40, 3, 3, 3, 100, 1, 22)), (5, (23,))):
        documents = documents_of(lengths)
        with marks.part(1, f"pack: lengths {lengths}, L = {L}"):
            want = by_unfolding(documents, L, 99)
            close(pack([list(d) for d in documents], L, 99), want, "it")
    with marks.part(1, "pack: too little for a block, and the number type"):
        found = pack([[1, 2]], 3, 0)
        assert tuple(found.shape) == (0, 3), f"its shape is {tuple(found.shape)}"
        found = pack([[1, 2], [3]], 2, 0)
        assert found.dtype == torch.int64, f"it is {found.dtype}"
    with marks.part(3, "blocks_lost: as many as the exhibit loses, or gains"):
        for L, lengths, batch in ((4, (3, 3, 3, 3, 3), 1), (7, (9, 2, 30, 4, 4, 4, 1), 3),
                                  (2, (1, 1, 1), 4), (64, (70, 90, 20, 130), 2)):  # fmt: skip
            documents = documents_of(lengths)
            parts = [documents[i : i + batch] for i in range(0, len(documents), batch)]
            exhibit = sum(len(pack_of(part, L, 99, after=True)) for part in parts)
            want = len(by_unfolding(documents, L, 99)) - exhibit
            close(
                blocks_lost(list(lengths), L, batch), want, f"blocks_lost({lengths}, {L}, {batch})"
            )
    judge(marks, check, "check_pack", (pack_of, by_unfolding), WRONG_PACKS)
    return marks.total()


def precision(make_product, log_scores, ratio_error, *, points):
    """Other shapes; σ̄ from 1e-6 to 200 against float64; sizes by counting bfloat16 numbers."""
    marks = Marks(points)
    generator = torch.Generator().manual_seed(7)
    weight = torch.randn(5, 16, generator=generator)
    h = torch.randn(2, 3, 16, generator=generator)
    with marks.part(2, "make_product: numbers of bfloat16, at every call"), autocast_off():
        product = make_product(weight.clone())
        want = h.bfloat16().double() @ weight.bfloat16().double().T  # one rounding at the end
        for found in (product(h.clone()), product(h.clone())):
            assert found.dtype == torch.bfloat16, f"the product is in {found.dtype}"
            close(found, want, "the product", 2e-2)
        assert not torch.is_autocast_enabled("cpu"), "autocast is on after the product"
    with marks.part(1, "make_product: the factors are rounded to bfloat16"), autocast_off():
        found = make_product(torch.tensor([[1 + 2**-9, -1.0]]))(torch.ones(1, 2))
        close(found, [[0.0]], "1 + 2^-9 - 1")
    logits = (20 * torch.randn(4, 3, 50, generator=generator)).bfloat16()
    for levels in ((0.3, 1.0, 2.5, 7.0), (1e-6, 1e-4, 100.0, 200.0)):
        with marks.part(2, f"log_scores: σ̄ = {levels}"):
            sigma = torch.tensor(levels)
            wide = sigma.double()
            known = torch.where(wide > 30, wide, wide.expm1().log()) + math.log(50)
            want = logits.double() - known[:, None, None]
            found = log_scores(logits.clone(), sigma.clone())
            assert found.dtype == torch.float32, f"it is in {found.dtype}"
            close(found, want, "it", 1e-5)
    with marks.part(1, "ratio_error: sizes 2, 16 and 64"):
        for size in (2, 16, 64):
            one_up = torch.tensor(float(size)).bfloat16().view(torch.int16) + 1
            gap = one_up.view(torch.bfloat16).double().item() - size
            close(ratio_error(size), math.exp(gap / 2) - 1, f"ratio_error({size})", 1e-3)
    return marks.total()


def meter(report, *, points):
    """Forty documents of very different lengths, the sums written out."""
    marks = Marks(points)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(1, 400, (40,), generator=generator)
    characters = tokens * 4 + torch.randint(0, 30, (40,), generator=generator)
    nats = tokens * (2 + 3 * torch.rand(40, generator=generator))
    total, words, letters = (sum(v.tolist()) for v in (nats, tokens, characters))
    wants = {"nats a token": total / words, "the perplexity": math.exp(total / words)}
    wants["bits a character"] = total / letters / math.log(2)
    for i, (name, want) in enumerate(wants.items()):
        with marks.part(1, name):
            close(report(nats.clone(), tokens.clone(), characters.clone())[i], want, "it")
    return marks.total()


def term(true, learned, excess, *, points):
    """The instructor's own answers."""
    marks, answers = Marks(points), expected(__file__)
    parts = (("true", true, 2), ("learned", learned, 5), ("excess", excess, 3))
    for name, found, weight in parts:
        with marks.part(weight, f"{name} is right within 0.001"):
            got = torch.as_tensor(found).double()
            want = torch.tensor(answers[name], dtype=torch.float64)
            assert got.shape == want.shape, f"it should have the shape {tuple(want.shape)}"
            far = ((got - want).abs() / want.abs().clamp(min=1)).max()
            assert far <= 1.05e-3, f"a number is off by {far:.4f}"
    return marks.total()
