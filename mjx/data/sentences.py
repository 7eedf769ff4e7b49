"""Texts → their sentences."""

from typing import Any

from mjx.data.tokenizers.protocol import optional_package

LANGUAGE = "en"
"""Whose abbreviations do not end a sentence, where nothing else is said."""


def load_splitter() -> Any:
    """The package that finds the ends of sentences (sentencex, of the Wikimedia Foundation: rules and
    abbreviations of some 300 languages); InputError says how to install it."""
    return optional_package("sentencex", "splitting text into sentences")


def split_sentences(text: str, language: str = LANGUAGE) -> list[str]:
    """The sentences of a text without the white space around them; none is empty.

    Args:
        text: Of any length. Blank lines end sentences, single line ends do not.
        language: Its code in ISO 639 ("en"); an unknown one is split by the rules of all.

    Raises:
        InputError: the package is not installed.
    """
    segments = load_splitter().segment(language, text)
    return [sentence for segment in segments if (sentence := segment.strip())]
