"""Whether a tokenizer and a model belong together."""

import logging
from pathlib import Path

from mjx.data.tokenizers import Tokenizer

_NAMED = 3
"""Of the tokens that a model lacks, so many are named."""


def warn_of_unknown_ids(tokenizer: Tokenizer, vocabulary: int | None, where: str | Path) -> None:
    """Warn of a tokenizer with ids beyond the model's vocabulary (None: the model takes no tokens).

    It is not refused: published tokenizers name tokens of other members of a model's family, and what is
    never written needs no row. An id without one is refused where it occurs, in a prompt or in data.
    """
    size = tokenizer.vocab_size
    if vocabulary is None or size <= vocabulary:
        return
    named = range(vocabulary, min(size, vocabulary + _NAMED))
    names = ", ".join(f'{token_id} "{tokenizer.token(token_id)}"' for token_id in named)
    logging.getLogger("mjx").warning(
        "the tokenizer of %s has %d ids, the model's vocabulary %d: what has one of the rest (%s%s) is "
        "refused",
        *(where, size, vocabulary, names, ", …" if size > named.stop else ""),
    )


def compare_vocabularies(tokenizer: Tokenizer, vocabulary: int | None, where: str | Path) -> None:
    """Warn of a tokenizer that cannot be that of given weights, or not of all of its ids.

    Fewer ids than rows are usual: vocabularies are padded, by two percent at most in all models that are
    known here.
    """
    warn_of_unknown_ids(tokenizer, vocabulary, where)
    if vocabulary is not None and tokenizer.vocab_size < 0.9 * vocabulary:
        logging.getLogger("mjx").warning(
            "the tokenizer of %s has only %d ids, and the model's vocabulary %d: do they belong together?",
            *(where, tokenizer.vocab_size, vocabulary),
        )
