"""The text that tokens add to a prompt."""

from collections.abc import Sequence

from mjx.data.tokenizers.protocol import Tokenizer


def decode_continuation(tokenizer: Tokenizer, prompt: Sequence[int], ids: Sequence[int]) -> str:
    """What `ids` say after `prompt`.

    Not `decode(ids)`: many tokenizers drop the space before a text's first word, and a character's bytes may
    lie on both sides.
    """
    before, whole = tokenizer.decode(prompt), tokenizer.decode([*prompt, *ids])
    # Bytes that are no character yet are shown as one until they are.
    before = before.rstrip("\N{REPLACEMENT CHARACTER}")
    return whole[len(before) :] if whole.startswith(before) else tokenizer.decode(ids)
