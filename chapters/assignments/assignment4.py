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
# ---

# %% [markdown]
# # Assignment 4. The network and the loop
#
# You need chapters 05 ("The first number" of its laboratory for problem 7), 06 and 07 (with "A run that is killed" of its laboratory for problems 5, 6 and 9). Plan 120 minutes. There are 100 points: 80 for code, which is graded by tests, and 20 for two answers in words.
#
# - Write your code where it says `# YOUR CODE HERE`, and delete `raise NotImplementedError()`.
# - Run the test cell below each problem as often as you like. It says what does not hold yet, and how many points you have so far. More points are given by hidden
#   tests, which use other sizes, runs and seeds. So an answer that fits only the visible numbers loses most of its points.
# - You may add cells. Cells that you cannot edit are restored before grading.
# - The problems do not depend on each other. You may solve them in any order.
#
# Letters are those of the chapters: $B$ sequences of $L$ tokens, $N$ data tokens, width $D$, a condition of $C$ numbers, noise σ̄.

# %% nbgrader={"grade_id": "setup"}
import copy
import math

import torch

import grading
import tests4  # loaded before your cells run

world = grading.term()  # the numbers of problem 7

# %% [markdown]
# ## 1. Positions, and weights from elsewhere (14 points, 16 minutes)
#
# Rotary positions turn pairs of numbers, and which numbers make a pair is a convention. SEDD pairs entry $i$ of the first half of a head with entry $i$ of the second half. Many other libraries pair the entries $2i$ and $2i+1$.
# Somebody hands you weights from such a library. Loaded as they are, they give a network that runs without an error and answers nonsense.
#
# - Write `turn(vectors, first)` in SEDD's convention. `vectors` (…, L, d) stand at the positions `first`, `first + 1`, …; pair $i$ of a vector at position $m$ turns by the angle $m \cdot 10\,000^{-i/(d/2)}$, as in chapter 06.
# - Write `to_halves(weight, heads)`. `weight` (D, D) makes the queries of all heads in the other library's convention: query = `weight @ h`, whose first D/heads entries belong to the first head, and so on. Return a weight whose
#   queries have the same entries in another order, so that SEDD's convention turns the same pairs by the same angles. Keys are converted by the same function, and then every dot product of a turned query and a turned key is what it was.

# %% nbgrader={"grade_id": "rotary", "solution": true}
def turn(vectors, first):
    """vectors (…, L, d) at the positions first, first + 1, …, turned."""
    ### BEGIN SOLUTION
    L, half = vectors.shape[-2], vectors.shape[-1] // 2
    frequency = 10_000 ** (-torch.arange(half, dtype=vectors.dtype) / half)
    a = (first + torch.arange(L))[:, None] * frequency  # (L, half)
    u, v = vectors[..., :half], vectors[..., half:]
    return torch.cat([u * a.cos() - v * a.sin(), u * a.sin() + v * a.cos()], -1)
    ### END SOLUTION


def to_halves(weight, heads):
    """Rows of weight (D, D) reordered: pairs (2i, 2i + 1) of each head become (i, i + half)."""
    ### BEGIN SOLUTION
    by_head = weight.unflatten(0, (heads, -1))  # (heads, D / heads, D)
    return torch.cat([by_head[:, 0::2], by_head[:, 1::2]], 1).flatten(0, 1)
    ### END SOLUTION

# %% nbgrader={"grade_id": "rotary-visible", "grade": true}
import tests4 as tests

tests.rotary(turn, to_halves, points=6)

# %% nbgrader={"grade_id": "rotary-hidden", "grade": true}
# Hidden tests: other sizes and positions, dot products of converted weights (8 points).
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.rotary(turn, to_halves, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 2. One half of a block (14 points, 12 minutes)
#
# A block of the network adds two branches to its input, attention and an MLP, and both are wrapped in the same adaLN-zero. Write the wrapping once, for any branch, and make it ready for a later idea: texts in which every
# position has a noise level of its own.
#
# Write `add_branch(h, c, w, W, b, branch)`:
#
# - `h` (B, L, D) is the input, `c` the condition: (B, C), one for each text, or (B, L, C), one for each position;
# - LayerNorm with weight `w` (D,), no bias and $10^{-5}$ under the root, as in chapter 06;
# - `W` (3D, C) and `b` (3D,) make shift, scale and gate from the condition, in this order, D numbers each;
# - `branch` is a function of a tensor (B, L, D), of which you know nothing else. Call it once.
#
# Return `h` plus what the gated branch answers, (B, L, D). Partial credit: an answer for conditions (B, C) only keeps 10 points.

# %% nbgrader={"grade_id": "block", "solution": true}
def add_branch(h, c, w, W, b, branch):
    """h + gate · branch(norm(h) (1 + scale) + shift), (B, L, D)."""
    ### BEGIN SOLUTION
    if c.ndim == 2:
        c = c[:, None]  # (B, 1, C)
    shift, scale, gate = (c @ W.T + b).chunk(3, -1)
    centred = h - h.mean(-1, keepdim=True)
    norm = w * centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return h + gate * branch(norm * (1 + scale) + shift)
    ### END SOLUTION

# %% nbgrader={"grade_id": "block-visible", "grade": true}
import tests4 as tests

tests.block(add_branch, points=6)

# %% nbgrader={"grade_id": "block-hidden", "grade": true}
# Hidden tests: a block of the library, conditions for each position (8 points).
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.block(add_branch, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 3. The loss in chunks (14 points, 18 minutes)
#
# At GPT-2's vocabulary the rows of log-scores of one batch fill a GPU, and training wants only one number from each row. So compute the loss some rows at a time, and let nothing of a row survive, not even for the backward pass.
#
# The graph is absorbing, and you get the masked positions only, $M$ of them: `hidden` (M, D), what enters the last matrix; `weight` (N, D) and `bias` (N,), so that the network's output at the data tokens is
# `hidden @ weight.T + bias`; the true tokens `x0` (M,); and `sigma` (M,), the noise σ̄ of each. With "scale by σ" the log-score is this output $- \log(e^{\bar\sigma}-1) - \log N$.
#
# Write `loss_in_chunks(hidden, weight, bias, x0, sigma, rows)`: the score entropy $\sum_y s_y - r \log s_{x_0} + K(r)$ of each position, (M,), with $r = 1/(e^{\bar\sigma}-1)$ and $K(r) = r(\log r - 1)$.
#
# - No tensor that is made on the way, forward or backward, has more than `rows` · N elements. Views such as `weight.T` count, but the tests' matrices `hidden` and `weight` are smaller than that.
#   (Put the scores into the loss on paper first; much cancels. At outputs of 0 everything but $r \log N$ cancels.)
# - The loss must be differentiable in `hidden`, `weight` and `bias`, and no tensor with N columns may be kept for the backward pass (`bias`, with one axis, may be). `torch.utils.checkpoint.checkpoint(function, *tensors, use_reentrant=False)` computes `function(*tensors)`,
#   keeps its inputs alone, and computes the rest once more when the backward pass needs it.
# - σ̄ may be as small as $10^{-6}$, in float32.
#
# Partial credit: right losses without chunks keep 7 points, chunks that keep their rows for the backward pass 11.

# %% nbgrader={"grade_id": "chunks", "solution": true}
def loss_in_chunks(hidden, weight, bias, x0, sigma, rows):
    """Score entropy of each masked position, (M,), some rows at a time."""
    ### BEGIN SOLUTION
    def losses(hidden, weight, bias, x0, sigma):
        out = hidden @ weight.T + bias  # (rows, N)
        own = out.gather(-1, x0[:, None])[:, 0]
        return (out.exp().mean(-1) - own + math.log(len(bias)) - 1) / torch.expm1(sigma)

    parts = zip(hidden.split(rows), x0.split(rows), sigma.split(rows))
    return torch.cat([
        torch.utils.checkpoint.checkpoint(losses, h, weight, bias, token, level, use_reentrant=False)
        for h, token, level in parts
    ])  # fmt: skip
    ### END SOLUTION

# %% nbgrader={"grade_id": "chunks-visible", "grade": true}
import tests4 as tests

tests.chunks(loss_in_chunks, points=6)

# %% nbgrader={"grade_id": "chunks-hidden", "grade": true}
# Hidden tests: other sizes, small noise, gradients, memory (8 points).
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.chunks(loss_in_chunks, points=8)
### END HIDDEN TESTS

# %% [markdown]
# ## 4. Which blocks are mine? (8 points, 8 minutes)
#
# Several processes train together, and each must know its blocks of every step without asking the others. If two of them take the same blocks, or an epoch begins in the middle of a batch and is cut off, nobody notices: the loss looks fine.
#
# There are `M` blocks. The samples of the run are numbered $n = 0, 1, 2, \dots$; sample $n$ belongs to epoch $n \,\mathrm{div}\, M$, and is block number `order(epoch)[n mod M]`, where `order(epoch)` is a list with the order of that
# epoch. In each step, counted from 0, each of `ranks` processes takes `batch` samples: process 0 the next `batch` samples, process 1 the `batch` after those, and so on. Write `blocks_of(step, rank, ranks, batch, M, order)`: the list of
# the `batch` block numbers of one process. A batch may reach into the next epoch, or be larger than M. Do not call `order` for epochs that this batch does not touch.

# %% nbgrader={"grade_id": "mine", "solution": true}
def blocks_of(step, rank, ranks, batch, M, order):
    """The block numbers of one process in one step, a list of ints."""
    ### BEGIN SOLUTION
    first, orders, found = (step * ranks + rank) * batch, {}, []
    for n in range(first, first + batch):
        epoch, place = divmod(n, M)
        if epoch not in orders:
            orders[epoch] = order(epoch)
        found.append(orders[epoch][place])
    return found
    ### END SOLUTION

# %% nbgrader={"grade_id": "mine-visible", "grade": true}
import tests4 as tests

tests.mine(blocks_of, points=3)

# %% nbgrader={"grade_id": "mine-hidden", "grade": true}
# Hidden tests: more processes, later steps, large batches (5 points).
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.mine(blocks_of, points=5)
### END HIDDEN TESTS

# %% [markdown]
# ## 5. Is it the same run? (10 points, 16 minutes)
#
# A run is saved, killed and resumed. Its loss goes on as if nothing had happened, and still it may be another run. You will write the test that finds this out, for any run and any way of saving it.
#
# - `make()` returns a new run, always the same. `run.step()` trains one step and returns its loss, a float. `run.model` and `run.average` are modules, with the weights and the averaged weights. What a run does
#   does not depend on the global random numbers, so several runs may train side by side.
# - `save(run)` returns a state, which a real program would write to a file; `load(run, state)` puts it into a new run.
#
# Write `first_difference(make, save, load, at, steps)`. A run is saved after `at` steps and dies. (So whatever was not saved is lost.) It is resumed in a new run, up to step number `steps`. Compare it with a run that was never interrupted. Return
# the number of the first step, counted from the beginning of the run, after which its loss, any parameter or any averaged parameter is not **exactly** equal; `None` if there is none. The first step that can differ is `at + 1`.

# %% nbgrader={"grade_id": "find", "solution": true}
def first_difference(make, save, load, at, steps):
    """The first step at which a resumed run differs from an uninterrupted one, or None."""
    ### BEGIN SOLUTION
    straight, killed, resumed = make(), make(), make()
    for _ in range(at):
        straight.step()
        killed.step()
    load(resumed, save(killed))
    for n in range(at + 1, steps + 1):
        same = straight.step() == resumed.step()
        for a, b in ((straight.model, resumed.model), (straight.average, resumed.average)):
            same &= all(map(torch.equal, a.parameters(), b.parameters()))
        if not same:
            return n
    return None
    ### END SOLUTION

# %% nbgrader={"grade_id": "find-visible", "grade": true}
import tests4 as tests

tests.find(first_difference, points=4)

# %% nbgrader={"grade_id": "find-hidden", "grade": true}
# Hidden tests: a real training run, saved with one thing forgotten (6 points).
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.find(first_difference, points=6)
### END HIDDEN TESTS

# %% [markdown]
# ## 6. Repair it (8 points, 14 minutes)
#
# The class `Run` in `tests4.py` is a small but complete training run: a model, averaged weights, AdamW, a learning rate that falls, noise, and data that are shuffled anew in each epoch. Read it; it has about forty lines. Somebody saved it like
# this: `{"model": run.model.state_dict()}`. That forgets a lot, and what it does not forget it does not really save: the tensors in `state_dict()` are the run's own, and change when the run goes on.
#
# Write `save(run)` and `load(run, state)` for it, such that a resumed run is the same run, exactly.
#
# - `save` returns a dictionary of tensors, numbers, lists and dictionaries, as `torch.save` writes and `torch.load(..., weights_only=True)` reads them.
# - The state is a snapshot: it stays what it is when the run goes on, and when a run that was loaded from it goes on. (`copy.deepcopy` copies whole dictionaries. Not everything in PyTorch copies when it loads.)

# %% nbgrader={"grade_id": "repair", "solution": true}
def save(run):
    """Everything that the rest of the run depends on, as a dictionary."""
    ### BEGIN SOLUTION
    return copy.deepcopy({
        "model": run.model.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "generator": run.generator.get_state(),
        "order": run.order,
        "place": run.place,
        "n": run.n,
    })  # fmt: skip
    ### END SOLUTION


def load(run, state):
    """Put a state of `save` into a new run."""
    ### BEGIN SOLUTION
    state = copy.deepcopy(state)
    for name in ("model", "average", "optimizer"):
        getattr(run, name).load_state_dict(state[name])
    run.generator.set_state(state["generator"])
    run.order, run.place, run.n = state["order"], state["place"], state["n"]
    ### END SOLUTION

# %% nbgrader={"grade_id": "repair-visible", "grade": true}
import tests4 as tests

tests.repair(save, load, points=3)

# %% nbgrader={"grade_id": "repair-hidden", "grade": true}
# Hidden tests: longer runs of other sizes, through a file, loaded twice (5 points).
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.repair(save, load, points=5)
### END HIDDEN TESTS

# %% [markdown]
# ## 7. This term's network (12 points, 14 minutes)
#
# Before a run that takes weeks, one counts. These numbers are your course's own, and the network is not quite that of chapter 06. Your notebook has them in the dictionary `world`: absorbing graph, $N$ = {{tokens}} data tokens and MASK, texts of $L$ = {{length}}
# tokens, width $D$ = {{width}}, {{blocks}} blocks, condition $C$ = {{cond}}, an MLP that is {{ratio}} · D wide inside, and `world["tied"]` = {{tied}}: whether the head's matrix *is* the matrix of the embedding, so that its numbers exist only once (the head's bias of N + 1 numbers remains).
#
# Parts: the embedding, a row of D numbers for each of the N + 1 states; in each block one matrix for queries, keys and values and one for attention's output, both without bias, an MLP of two linear layers with bias, two norms of D weights, and one linear layer with bias that
# makes six vectors of D numbers from the condition; after the blocks a norm, a linear layer with bias for two vectors, and the head, a linear layer with bias to N + 1 states; and for the noise two linear layers with bias, from 256 features to C and from C to C.
#
# Compute four numbers:
#
# - `parameters`: all weights, exactly;
# - `flops`: the floating-point operations of the matrix products for one text, forward, within 0.1 %: all linear layers of the blocks but the six-vector one, attention's products, and the head at all positions. The condition's layers (noise, six and two vectors) run once a text and are left out;
# - `first_loss`: the expected first loss, in nats a **text**, within 0.01 %, of a network that before "scale by σ" answers 0 everywhere, for a schedule that goes from σ̄ = 0 to $\bar\sigma(1)$ = {{sigma_max}};
# - `warm_up`: the averaged weights use $\mu_n = \min(\mu, \frac{1+n}{10+n})$ after step $n$, with $\mu$ = {{mu}}. The smallest whole number $n$ for which $\mu_n$ has reached its largest value.

# %% nbgrader={"grade_id": "term", "solution": true}
### BEGIN SOLUTION
N, L, D, C = world["tokens"], world["length"], world["width"], world["cond"]
S, blocks, ratio = N + 1, world["blocks"], world["ratio"]
block = 4 * D * D + 2 * ratio * D * D + (ratio + 1) * D + 2 * D + 6 * D * (C + 1)
noise = (256 + 1) * C + (C + 1) * C
head = D + 2 * D * (C + 1) + S + (0 if world["tied"] else S * D)
parameters = S * D + blocks * block + noise + head
flops = 2 * L * blocks * (4 + 2 * ratio) * D * D + blocks * 4 * L * L * D + 2 * L * S * D
first_loss = (1 - math.exp(-world["sigma_max"])) * L * math.log(N)
warm_up = math.ceil((10 * world["mu"] - 1) / (1 - world["mu"]))
### END SOLUTION

# %% nbgrader={"grade_id": "term-visible", "grade": true}
import tests4 as tests

tests.term(parameters, flops, first_loss, warm_up, world, points=3)

# %% nbgrader={"grade_id": "term-hidden", "grade": true}
# Hidden tests: are the numbers right? (9 points)
### BEGIN HIDDEN TESTS
import hidden4 as hidden

hidden.term(parameters, flops, first_loss, warm_up, points=9)
### END HIDDEN TESTS

# %% [markdown]
# ## 8. Zeros that learn (10 points, 12 minutes, in words)
#
# The layers that make shift, scale and gate start at zero, and so does the head's matrix. Elsewhere zero is a bad start: a network of zeros often cannot learn. What does the untrained network compute, and what is gained by that? Why can it learn all the same: which weights get a gradient in the
# first, the second and the third step, and why? And what would happen if the *output* layers of attention and MLP, biases included, were set to zero **as well as** the gates? What if only the matrices were zero, but not the bias of the MLP's output? Answer in six to nine sentences.

# %% [markdown] nbgrader={"grade_id": "zeros", "grade": true, "solution": true, "points": 10}
# With the gates at 0 each block returns its input, so the untrained network is the embedding followed by the head, and with a head of zeros it answers the same for every token: with "scale by σ" the uniform guess, whose loss is known in advance, so that a wrong first loss shows a mistake. Signals and gradients pass
# through any depth unharmed, and each block joins in as far as it helps. In the first step only the head's matrix and bias have a gradient, because everything before it is multiplied by that zero matrix. After this step the matrix is not zero, so in the second the gradient reaches the embedding and the gates; the
# weights inside the branches are still multiplied by gates of 0. In the third step the gates are open and all weights learn. If the output layer of a branch were zero too, gate times output would be a product of two zeros: the gradient of each is multiplied by the other, so both stay zero for ever and the branch never learns. With a bias that is not zero the branch answers that bias: the gate gets a gradient, opens, and then the matrix learns as well.

# %% [markdown]
# ## 9. The curve goes on (10 points, 10 minutes, in words)
#
# A colleague resumed a run of three weeks and shows you the loss: "It goes on smoothly where it stopped, so the resume is right." Name two things that may have been forgotten although the curve looks like this, and say for each what goes wrong and when it would show, if ever. Which test would
# convince you, and why must the resumed run start in a new process? (A process is one start of a program, with a memory of its own.) Answer in six to eight sentences.

# %% [markdown] nbgrader={"grade_id": "curve", "grade": true, "solution": true, "points": 10}
# The averaged weights never enter the training loss: if they were replaced by the current weights, or by fresh ones, the curve is the same to the last digit, and only the evaluation or the samples of the final model are worse. If the position in the data was forgotten, the epoch begins again: the loss is
# as low as ever, but the early part of the corpus is seen too often and the rest too rarely, which shows, if at all, in the validation loss weeks later. (The random numbers are a third such thing: the run is as good as the other, but cannot be repeated.) A batch's loss is far too noisy to show a small change. I would be convinced by a short run
# that is stopped, resumed, and compared with an uninterrupted one in every loss, weight and averaged weight, bit for bit, beyond the end of an epoch. In the old process everything that was not saved is still in memory, so that a test there passes for a state that has forgotten it.
