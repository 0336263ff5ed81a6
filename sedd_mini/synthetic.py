"""A small language whose truth is known: a hidden Markov chain that speaks in English sentences.

Every sentence is a walk through a little grammar ("yesterday the small cats near the river slept
."). Two agreements reach over several words: the verb follows the number of its subject, whatever
stands between them, and the tense that the opening word announces. A few per cent of the words are
slips, drawn uniformly from the whole vocabulary, so that no string has probability zero and every
ratio of probabilities is finite.

Because the grammar has finitely many states, the forward algorithm gives the exact probability of
any string, and so the entropy rate, the exact posterior of hidden words and a perfect sampler: what
a model of this language learns is measured against the truth, not against another model.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from sedd_mini.tokenizers import WordTokenizer

NOUNS = {  # role of the noun → (singular, plural), the more frequent first
    "actor": [("cat", "cats"), ("dog", "dogs"), ("bird", "birds"), ("child", "children")],
    "place": [("river", "rivers"), ("house", "houses"), ("tree", "trees")],
}
VERBS = {  # kind → (present singular, present plural, past)
    "rests": [("sleeps", "sleep", "slept"), ("sings", "sing", "sang"), ("runs", "run", "ran")],
    "takes an object": [("sees", "see", "saw"), ("follows", "follow", "followed")],
}
DETERMINERS = {"singular": ["the", "a", "every"], "plural": ["the", "some", "many"]}
OTHER_WORDS = {
    "opener": {"present": ["today"], "past": ["yesterday"]},
    "adjective": ["small", "old", "red", "quiet"],
    "preposition": ["near", "behind", "under"],
    "adverb": ["again", "quietly", "often"],
    "that": ["that"],
    "and": ["and"],
    "stop": ["."],
}
NUMBERS, TENSES = ("singular", "plural"), ("present", "past")


def next_states(state: tuple) -> list[tuple[float, tuple]]:
    """The grammar: (probability, next state) pairs. A state is a role and what must be remembered:
    the tense, the subject's number, and the number of the noun at hand where it is another one."""
    verb = [(0.55, "rests"), (0.45, "takes an object")]
    match state:
        case ["stop"]:
            opened = [(0.25, ("opener", tense)) for tense in TENSES]
            return opened + [(0.125, ("det", t, n)) for t in TENSES for n in NUMBERS]
        case ["opener", tense]:
            return [(0.5, ("det", tense, number)) for number in NUMBERS]
        case ["det", *memory]:
            return [(0.35, ("adjective", *memory)), (0.65, ("subject", *memory))]
        case ["adjective", *memory]:
            return [(1.0, ("subject", *memory))]
        case ["subject", *memory]:  # straight to the verb, or first a phrase that comes between
            direct = [(0.5 * p, (kind, *memory)) for p, kind in verb]
            return [*direct, (0.3, ("preposition", *memory)), (0.2, ("that", *memory))]
        case ["preposition", *memory]:
            return [(0.5, ("place det", *memory, other)) for other in NUMBERS]
        case ["place det", *memory]:
            return [(0.3, ("place adjective", *memory)), (0.7, ("place", *memory))]
        case ["place adjective", *memory]:
            return [(1.0, ("place", *memory))]
        case ["that", *memory]:
            return [(0.5, ("rival det", *memory, other)) for other in NUMBERS]
        case ["rival det", *memory]:
            return [(1.0, ("rival", *memory))]
        case ["rival", *memory]:
            return [(1.0, ("rival verb", *memory))]
        case ["place" | "rival verb", tense, number, _]:  # back to the subject's verb
            return [(p, (kind, tense, number)) for p, kind in verb]
        case ["rests", *memory]:
            return [(0.5, ("stop",)), (0.2, ("adverb",)), (0.3, ("and", *memory))]
        case ["and", *memory]:
            return [(p, (kind, *memory)) for p, kind in verb]
        case ["takes an object", *_]:
            return [(0.5, ("object det", number)) for number in NUMBERS]
        case ["object det", number]:
            return [(1.0, ("object", number))]
        case ["object", _]:
            return [(0.8, ("stop",)), (0.2, ("adverb",))]
        case ["adverb"]:
            return [(1.0, ("stop",))]
    raise ValueError(f"the grammar has no state {state}")


def words_of(state: tuple) -> list[str]:
    """The words that a state may say; the k-th of them has a weight proportional to 1/k."""
    role, memory = state[0], state[1:]
    role = role.split()[-1] if role.startswith(("place ", "object ")) else role
    match role:
        case "opener":
            return OTHER_WORDS["opener"][memory[0]]
        case "det" | "rival det":
            return DETERMINERS[memory[-1]]
        case "subject" | "rival" | "object" | "place":
            kind = NOUNS["place" if role == "place" else "actor"]
            return [forms[NUMBERS.index(memory[-1])] for forms in kind]
        case "rests" | "takes an object" | "rival verb":
            kind = VERBS[role if role in VERBS else "takes an object"]
            form = 2 if memory[0] == "past" else NUMBERS.index(memory[-1])
            return [forms[form] for forms in kind]
    return OTHER_WORDS[role]


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
        length = tokens.shape[1]
        before, after = [self.stationary.expand(len(tokens), -1)], [torch.ones(1, 1).double()]
        for t in range(length - 1):  # p(state_t | known x_<t), (B, S)
            joint = before[t] * self._likelihood(tokens, known, t)
            before.append(joint / joint.sum(-1, keepdim=True) @ self.transition)
        for t in range(length - 1, 0, -1):  # ∝ p(known x_≥t | state_{t−1}), (B, S)
            message = (after[0] * self._likelihood(tokens, known, t)) @ self.transition.T
            after.insert(0, message / message.sum(-1, keepdim=True))
        rows = []
        for t in range(length):
            probs = (before[t] * after[t]) @ self.emission  # (B, V)
            exact = one_hot(tokens[:, t].where(known[:, t], 0), self.vocab_size).double()
            probs = probs / probs.sum(-1, keepdim=True)
            rows.append(torch.where(known[:, t, None], exact, probs))
        return torch.stack(rows, dim=1)  # (B, L, V)

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
        Without a generator the result is always the same: 2.48 ± 0.002 bits.
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
    """The grammar above as a hidden Markov chain of about a hundred states over 49 words.

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
