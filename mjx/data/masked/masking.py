"""Which tokens of a sample are hidden: words and runs of words, until so many tokens are.

Draws from the random numbers in the order of Megatron-Core's masked datasets, so that the same seed hides the
same tokens. Runs are up to `max_ngram` words; their length is drawn with odds of 1/n (Cui et al., 2019), or
geometrically (SpanBERT, Joshi et al., 2020, section 3.1).
"""

import bisect
import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

_GEOMETRIC = 0.2
"""The chance that a run ends with each of its words."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Masking:
    """How tokens are chosen (see `MaskedConfig`)."""

    probability: float
    max_ngram: int
    whole_words: bool
    longer_ngrams: bool
    geometric: bool


class Masker:
    """Chooses the tokens of samples."""

    def __init__(
        self,
        masking: Masking,
        continues: Bool[np.ndarray, "vocabulary"],
        kept: tuple[int | None, ...] = (),
    ) -> None:
        """Args:
        masking: How.
        continues: Which tokens are pieces of the word before them ("##ing").
        kept: Tokens that are never hidden: those at the borders of segments.
        """
        self.masking = masking
        self._continues = continues
        self._kept = np.zeros(len(continues), bool)
        self._kept[[token for token in kept if token is not None]] = True
        odds = 1.0 / np.arange(1, masking.max_ngram + 1)
        odds = odds / odds.sum(keepdims=True)
        if masking.longer_ngrams:
            odds = odds[::-1]
        # Rounded as where Megatron normalises once more, and `RandomState.choice` after it.
        chances = (odds / odds.sum(keepdims=True)).cumsum()
        self._chances: list[float] = (chances / chances[-1]).tolist()

    def choose(
        self,
        tokens: Int[np.ndarray, "sequence"],
        length: int,
        random: np.random.RandomState,
        hidden: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """The places of the runs that are hidden, in order.

        Args:
            tokens: Of a sample.
            length: The tokens that the sample might have had.
            random: Is drawn from.
            hidden: Called with each place at once, so that it may draw as well.
        """
        masking = self.masking
        places = np.flatnonzero(~self._kept[tokens])
        if masking.whole_words:
            begins = ~self._continues[tokens[places]]
            begins[:1] = True
            words = np.flatnonzero(begins).tolist()
        else:
            words = list(range(len(places)))
        order = np.arange(len(words))
        random.shuffle(order)
        words += [len(places)] * masking.max_ngram
        place_of: list[int] = places.tolist()
        most = min(masking.probability * length, max(1, round(len(tokens) * masking.probability)))
        taken = bytearray(len(tokens))
        count, runs = 0, []
        for word in order.tolist():
            if count >= most:
                break
            if masking.geometric:
                size = min(random.geometric(_GEOMETRIC), masking.max_ngram)
            else:
                size = bisect.bisect_right(self._chances, random.random_sample()) + 1
            begin = words[word]
            while size and count + words[word + size] - begin > most:
                size -= 1  # hide fewer words rather than too many tokens
            if not size:
                continue
            run = place_of[begin : words[word + size]]
            if any(taken[place] for place in run):
                continue
            for place in run:
                taken[place] = True
                if hidden is not None:
                    hidden(place)
            count += len(run)
            runs.append(run)
        return sorted(runs)
