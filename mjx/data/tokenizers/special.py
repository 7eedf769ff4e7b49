"""The special tokens that a kind of data needs: by what the tokenizer calls so, or as a config names them."""

from collections.abc import Sequence

from mjx.data.tokenizers.protocol import Tokenizer
from mjx.errors import InputError

SpecialToken = int | str | None
"""How a config says a special token: its id, how the vocabulary writes it, or null: the tokenizer knows."""

SENTINEL = "<extra_id_{}>"
"""How the vocabulary of T5 (Raffel et al., 2020), and Megatron's, write the tokens that stand for spans."""

_USUAL = {
    "cls": ("[CLS]",),
    "sep": ("[SEP]",),
    "mask": ("[MASK]", "<mask>"),
    "pad": ("[PAD]", "<pad>"),
    "start": ("[BOS]",),
    "eos": ("[EOS]",),
}
"""Field → how vocabularies write it whose files do not name it."""


class SpecialTokens:
    """Finds the ids of special tokens."""

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int) -> None:
        """Args:
        tokenizer: Null where a config must say every id.
        vocab_size: Ids must be below it.
        """
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size

    def find(self, name: str, given: SpecialToken) -> int:
        """The id of what the config's field `name` says.

        Raises:
            InputError: the tokenizer has no such token.
        """
        found = self.find_or_none(name, given)
        if found is None:
            raise InputError(
                f"data.{name} = null, and "
                + (
                    "there is no tokenizer to ask; give an id."
                    if self.tokenizer is None
                    else f"the tokenizer has no {name} token; give a token of its vocabulary, or an id."
                )
            )
        return found

    def find_or_none(self, name: str, given: SpecialToken) -> int | None:
        """As `find`; None where neither the config nor the tokenizer says any."""
        if given is None:
            return self._known(name)
        return self._checked(f"data.{name}", given)

    def start(self, given: SpecialToken, pad: SpecialToken) -> int:
        """The id of what a decoder begins with: where nothing says it, that of padding.

        Raises:
            InputError: nothing says that either.
        """
        found = self.find_or_none("start", given)
        return self.find("start", self.find_or_none("pad", pad) if found is None else found)

    def sentinels(self, given: Sequence[int | str]) -> tuple[int, ...]:
        """The ids of the tokens that stand for spans, in their order.

        Raises:
            InputError: there is none.
        """
        if given:
            return tuple(self._checked("data.sentinels", token) for token in given)
        found: list[int] = []
        while self.tokenizer is not None:
            token = self.tokenizer.token_id(SENTINEL.format(len(found)))
            if token is None:
                break
            found.append(token)
        if not found:
            raise InputError(
                f'data.sentinels = [], and the tokenizer has no "{SENTINEL.format(0)}" to stand for a hidden '
                "span; name the tokens that do, or add some to the tokenizer."
            )
        return tuple(found)

    def _known(self, name: str) -> int | None:
        tokenizer = self.tokenizer
        if tokenizer is None:
            return None
        usual = (tokenizer.token_id(token) for token in _USUAL[name])
        written = next((token for token in usual if token is not None), None)
        named = {
            "cls": tokenizer.cls_id,
            "sep": tokenizer.sep_id,
            "mask": tokenizer.mask_id,
            "pad": tokenizer.pad_id,
            "start": tokenizer.bos_id,
        }
        if name == "eos":  # the end of a document may be the separator of a vocabulary that has both
            return tokenizer.eod_id if written is None else written
        return written if named[name] is None else named[name]

    def _checked(self, field: str, given: int | str) -> int:
        token = given
        if isinstance(token, str):
            found = None if self.tokenizer is None else self.tokenizer.token_id(token)
            if found is None:
                where = (
                    "there is no tokenizer" if self.tokenizer is None else "the tokenizer has no such token"
                )
                raise InputError(f'{field} = "{given}": {where}; give a token of its vocabulary, or an id.')
            token = found
        if not 0 <= token < self.vocab_size:
            raise InputError(
                f"{field} = {given}: the id must be from 0 to {self.vocab_size - 1}, as the vocabulary's are."
            )
        return token
