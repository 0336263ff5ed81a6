"""A small language whose truth is known: a hidden Markov chain that speaks in English sentences.

Every sentence is a walk through a little grammar ("some small cats near a river sleep and sing .").
A verb agrees with the number of its subject, however far away that is and whatever number stands in
between. A few per cent of the words are slips, drawn uniformly from the whole vocabulary, so that
no string has probability zero and every ratio of probabilities is finite.

Because the grammar has finitely many states, the forward algorithm gives the exact probability of
any string, and so the entropy rate, the exact posterior of hidden words and a perfect sampler: what
a model of this language learns is measured against the truth, not against another model.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sedd_mini.text.tokenizers import WordTokenizer

NUMBERS = ("singular", "plural")
AGREEING = {  # (singular, plural); within each list the first word is the most frequent
    "det": [("a", "some"), ("every", "many"), ("this", "these")],
    "actor": [("cat", "cats"), ("dog", "dogs"), ("bird", "birds"), ("child", "children")],
    "place": [("river", "rivers"), ("house", "houses")],
    "rests": [("sleeps", "sleep"), ("sings", "sing"), ("runs", "run")],
    "acts": [("sees", "see"), ("follows", "follow")],
}
FIXED = {
    "adjective": ["small", "old", "red", "quiet"],
    "preposition": ["near", "behind", "under"],
    "adverb": ["again", "quietly", "often"],
    "and": ["and"],
    "stop": ["."],
}
VERBS = [(0.6, "rests"), (0.4, "acts")]


def next_states(state: tuple[str, ...]) -> list[tuple[float, tuple[str, ...]]]:
    """The grammar: (probability, next state) pairs.

    A state is the role of a word, and what must be remembered: the number of the subject, until its
    last verb is out, and before that the number of the noun at hand where it is another one.
    """
    match state:
        case ["stop"]:
            return [(0.5, ("det", number)) for number in NUMBERS]
        case ["det", number]:
            return [(0.7, ("subject", number)), (0.3, ("adjective", number))]
        case ["adjective", number]:
            return [(1.0, ("subject", number))]
        case ["subject", number]:  # straight to the verb, or first a phrase that comes between
            verbs = [(0.6 * p, (kind, number)) for p, kind in VERBS]
            return [*verbs, (0.4, ("preposition", number))]
        case ["preposition", number]:
            return [(0.5, ("place det", number, other)) for other in NUMBERS]
        case ["place det", number, other]:
            return [(1.0, ("place", number, other))]
        case ["place", number, _] | ["and", number]:
            return [(p, (kind, number)) for p, kind in VERBS]
        case ["rests", number]:
            return [(0.5, ("stop",)), (0.25, ("adverb",)), (0.25, ("and", number))]
        case ["acts", _]:
            return [(0.5, ("object det", number)) for number in NUMBERS]
        case ["object det", number]:
            return [(1.0, ("object", number))]
        case ["object", _] | ["adverb"]:
            return [(1.0, ("stop",))]
    raise ValueError(f"the grammar has no state {state}")


def words_of(state: tuple[str, ...]) -> list[str]:
    """The words that a state may say; the k-th of them has a weight proportional to 1/k."""
    kinds = {"subject": "actor", "object": "actor", "place det": "det", "object det": "det"}
    kind = kinds.get(state[0], state[0])
    if kind in FIXED:
        return FIXED[kind]
    return [forms[NUMBERS.index(state[-1])] for forms in AGREEING[kind]]


class EntropyRate(NamedTuple):
    """Bits per token. `lower` and `upper` enclose the rate, but for a sampling error of about
    `std_error` that both share (their difference is far better known than their place)."""

    lower: float
    upper: float
    std_error: float

    @property
    def bits(self) -> float:
        return (self.lower + self.upper) / 2


class HiddenMarkovChain:
    """A stationary stream of tokens, each emitted by a hidden state that moves as a Markov chain.

    `transition` (S, S) and `emission` (S, V) hold a distribution in every row. All computations
    are in float64. A block of L tokens means any L successive tokens of the endless stream: its
    first hidden state has the stationary law, so a block may begin in the middle of a sentence.
    """

    def __init__(self, transition: Tensor, emission: Tensor):
        self.transition, self.emission = transition.double(), emission.double()
        for name, rows in (("transition", self.transition), ("emission", self.emission)):
            if (rows < 0).any() or not torch.allclose(rows.sum(-1), rows.new_ones(())):
                raise ValueError(f"every row of {name} must be a distribution: >= 0 with sum 1")
        states = len(transition)
        # π = πT with Σπ = 1 is π (I − T + 11ᵀ) = 1ᵀ, which is regular if the chain is irreducible
        system = torch.eye(states, dtype=torch.float64) - self.transition + 1
        self.stationary = torch.linalg.solve(system.T, torch.ones(states, dtype=torch.float64))
        self.vocab_size = self.emission.shape[1]

    def sample(
        self, num_blocks: int, length: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Independent blocks of the stream, (num_blocks, length) int64."""
        return self._walk(num_blocks, length, generator)[1]

    def log_prob(self, tokens: Tensor, known: Tensor | None = None) -> Tensor:
        """log p of every block, in nats, float64: tokens (B, L) → (B,).

        With `known` (B, L) bool it is the log-probability of the known tokens alone, summed over
        all values of the others. Raises ValueError for token ids out of range.
        """
        check_blocks(tokens, known, self.vocab_size)
        belief, total = self.stationary.expand(len(tokens), -1), 0.0
        for t in range(tokens.shape[1]):
            joint = belief * self._likelihood(tokens, known, t)  # (B, S)
            evidence = joint.sum(-1, keepdim=True)  # (B, 1) = p(x_t | x_<t)
            total = total + evidence[:, 0].log()
            belief = (joint / evidence.clamp_min(1e-300)) @ self.transition
        return total

    def posterior(self, tokens: Tensor, known: Tensor) -> Tensor:
        """p(x_i = v | the known tokens) by the forward-backward algorithm: (B, L, V) float64.

        Rows at known positions are one-hot. With the absorbing graph, these are the exact
        posteriors p_{0|t} when `known` says which positions of x_t are not MASK.
        """
        check_blocks(tokens, known, self.vocab_size)
        places = range(tokens.shape[1])
        speaks = torch.stack([self._likelihood(tokens, known, t) for t in places], 1)  # (B, L, S)
        exact = one_hot(tokens.where(known, 0), self.vocab_size).double()
        return torch.where(known[..., None], exact, self.from_the_others(speaks))  # (B, L, V)

    def from_the_others(self, speaks: Tensor) -> Tensor:
        """p(token at i | what stands at the other places), (B, L, V) float64.

        speaks (B, L, S): the probability of what stands at each place, given the hidden state: 1
        where nothing is known, and with noise on the tokens that of the noisy one.
        """
        length = speaks.shape[1]
        before = [self.stationary.expand(len(speaks), -1)]  # p(state_t | places before t), (B, S)
        after = [torch.ones_like(before[0])]  # ∝ p(places after t | state_t), the last one first
        for t in range(length - 1):
            message = (before[t] * speaks[:, t]) @ self.transition
            before.append(message / message.sum(-1, keepdim=True))
            message = (after[t] * speaks[:, length - 1 - t]) @ self.transition.T
            after.append(message / message.sum(-1, keepdim=True))
        others = torch.stack(before, 1) * torch.stack(after[::-1], 1)  # (B, L, S)
        return others @ self.emission / others.sum(-1, keepdim=True)

    def conditional_entropies(
        self, num_blocks: int, length: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """H(X_n | X_<n, first hidden state) and H(X_n | X_<n) in bits, for n = 1 … length.

        The first grows and the second falls with n, both to the entropy rate, which lies between
        them. Both come as (num_blocks, length): one row for each sampled block, whose mean over
        blocks is unbiased. Rather than −log p(x_n | x_<n), which is noisier and has the same mean,
        a row holds the entropy of the whole distribution p(· | x_<n).
        """
        states, tokens = self._walk(num_blocks, length, generator)
        belief = torch.stack(  # one filter knows the first state, the other only its law
            [
                torch.eye(len(self.stationary), dtype=torch.float64)[states[:, 0]],
                self.stationary.expand(num_blocks, -1),
            ]
        )  # (2, B, S)
        entropies = torch.empty(2, num_blocks, length, dtype=torch.float64)
        for t in range(length):
            probs = belief @ self.emission  # (2, B, V)
            entropies[..., t] = -torch.special.xlogy(probs, probs).sum(-1) / math.log(2)
            joint = belief * self.emission.T[tokens[:, t]]
            belief = joint / joint.sum(-1, keepdim=True) @ self.transition
        return entropies[0], entropies[1]

    def entropy_rate(
        self,
        num_blocks: int = 2048,
        length: int = 64,
        generator: torch.Generator | None = None,
    ) -> EntropyRate:
        """The entropy rate in bits per token, enclosed from both sides (Cover & Thomas, th. 4.5.1).

        Both bounds are averaged over the second half of `num_blocks` blocks of `length` tokens.
        Without a generator the result is always the same: 2.28 ± 0.002 bits.
        """
        generator = generator or torch.Generator().manual_seed(0)
        bounds = self.conditional_entropies(num_blocks, length, generator)
        lower, upper = (bound[:, length // 2 :].mean(1) for bound in bounds)  # (B,) each
        middle = (lower + upper) / 2
        std_error = (middle.std() / num_blocks**0.5).item()
        return EntropyRate(lower.mean().item(), upper.mean().item(), std_error)

    def _likelihood(self, tokens: Tensor, known: Tensor | None, t: int) -> Tensor:
        """p(x_t | state_t), (B, S); 1 where x_t is not known."""
        if known is None:
            return self.emission.T[tokens[:, t]]
        seen = self.emission.T[tokens[:, t].where(known[:, t], 0)]
        return torch.where(known[:, t, None], seen, 1.0)

    def _walk(self, num_blocks: int, length: int, generator) -> tuple[Tensor, Tensor]:
        """Hidden states and tokens, (num_blocks, length) int64 each."""
        if num_blocks < 1 or length < 1:
            raise ValueError(f"need at least one block of one token, got {num_blocks} of {length}")
        states = torch.empty(num_blocks, length, dtype=torch.int64)
        state = torch.zeros(num_blocks, dtype=torch.int64)
        for t in range(length):
            rows = self.transition if t > 0 else self.stationary[None]
            states[:, t] = state = draw_from_rows(rows, state, generator)
        return states, draw_from_rows(self.emission, states.flatten(), generator).view_as(states)


def check_blocks(tokens: Tensor, known: Tensor | None, vocab_size: int) -> None:
    """Raises ValueError unless tokens are (B, L), `known` likewise, and known ids in range."""
    if tokens.ndim != 2 or (known is not None and known.shape != tokens.shape):
        shapes = [tuple(x.shape) for x in (tokens, known) if x is not None]
        raise ValueError(f"need tokens of shape (B, L), and `known` of the same, got {shapes}")
    used = tokens if known is None else tokens[known]
    if ((used < 0) | (used >= vocab_size)).any():
        raise ValueError(
            f"token ids must lie in 0 … {vocab_size - 1}, got {used.min()} to {used.max()}"
        )


def draw_from_rows(rows: Tensor, which: Tensor, generator=None) -> Tensor:
    """One column index from each distribution rows[which], by inverting its cumulative sum.

    rows (R, C), which (M,) → (M,) int64. All rows are laid end to end, row r on (r, r + 1), so that
    one binary search answers every draw.
    """
    cumulative = rows.cumsum(-1)
    cumulative = cumulative / cumulative[:, -1:] + torch.arange(len(rows))[:, None]  # (R, C)
    u = torch.rand(which.shape, generator=generator, dtype=torch.float64).clamp(max=1 - 1e-12)
    return torch.searchsorted(cumulative.flatten(), which + u, right=True) - which * rows.shape[1]


class SyntheticLanguage(HiddenMarkovChain):
    """The grammar above as a hidden Markov chain of 28 states over 40 words.

    `smoothing` is the share of slips (words drawn uniformly, while the grammar goes on unmoved).
    With smoothing=0 the language is strict: `log_prob` is −inf for what the grammar cannot say.
    """

    def __init__(self, smoothing: float = 0.02):
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is a probability in [0, 1), got {smoothing}")
        self.smoothing = smoothing
        self.states = [("stop",)]
        for state in self.states:  # the list grows while it is read, until nothing new is reached
            self.states += [s for _, s in next_states(state) if s not in self.states]
        self.words = sorted({word for state in self.states for word in words_of(state)})
        transition = torch.zeros(len(self.states), len(self.states), dtype=torch.float64)
        emission = torch.zeros(len(self.states), len(self.words), dtype=torch.float64)
        for i, state in enumerate(self.states):
            for probability, following in next_states(state):
                transition[i, self.states.index(following)] += probability
            for rank, word in enumerate(words_of(state), start=1):
                emission[i, self.words.index(word)] = 1 / rank
        emission = emission / emission.sum(-1, keepdim=True)
        super().__init__(transition, (1 - smoothing) * emission + smoothing / len(self.words))

    def tokenizer(self) -> WordTokenizer:
        """Words to ids and back; the words are in alphabetical order."""
        return WordTokenizer(self.words)
