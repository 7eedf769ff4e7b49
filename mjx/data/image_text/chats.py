"""Captions and conversations as texts, in parts that are learned and parts that are not."""

import dataclasses
from pathlib import Path
from typing import Any

from mjx.data.image_text.tokens import Piece
from mjx.data.image_text.told import MARK, ToldPictures
from mjx.data.tokenizers import Tokenizer
from mjx.data.tokenizers.chat_template import ChatTemplate
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True)
class Chats:
    """How conversations are written."""

    template: ChatTemplate | None
    image: str | None
    """How the vocabulary spells the token in the places of pictures, which a template may write by itself."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, folder: str | None, template: str | None, image_token: int) -> "Chats":
        """Args:
        tokenizer: Of the data.
        folder: Where it is, perhaps with a template.
        template: A file that is one; None: the folder's.
        image_token: The model's.

        Raises:
            InputError: the file cannot be read, or is no template.
        """
        found = None
        if template is not None:
            try:
                source = Path(template).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"data.chat_template = {template} cannot be read ({error}).") from error
            eod, bos = tokenizer.eod_id, tokenizer.bos_id
            ids = {"eos_token": eod, "bos_token": bos}
            names = {name: tokenizer.token(one) or "" for name, one in ids.items() if one is not None}
            found = ChatTemplate(source, names, template)
        elif folder is not None and Path(folder).is_dir():
            found = ChatTemplate.from_folder(folder)
        return cls(found, tokenizer.token(image_token))

    @property
    def source(self) -> str:
        """The template, by which caches know it."""
        return "" if self.template is None else self.template.source

    def pieces(self, told: ToldPictures, sample: int, prompt: str) -> list[list[Piece]]:
        """The texts of a sample, each in parts; a mark stands for each picture."""
        said: Any = told.told[sample]
        if isinstance(said[0], str):
            pictures = int(told.first[sample + 1] - told.first[sample])
            return [[(MARK * pictures + prompt, False), (caption, True)] for caption in said]
        return [self._conversation(said, told.path, sample)]

    def _conversation(self, messages: list[dict[str, str]], path: str, sample: int) -> list[Piece]:
        """What the template writes in front of every answer, and the answers with what ends them."""
        if self.template is None:
            raise InputError(
                f"{path}: sample {sample + 1} is a conversation, and the tokenizer has no chat template; "
                "name one in data.chat_template."
            )
        pieces: list[Piece] = []
        before = ""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self._written(messages[:number], asks=True)
            answered = self._written(messages[: number + 1], asks=False)
            if not asked.startswith(before) or not answered.startswith(asked):
                raise InputError(
                    f"{self.template.origin} writes a conversation otherwise when it goes on, so that what "
                    "is an answer cannot be told."
                )
            pieces += [(asked[len(before) :], False), (answered[len(asked) :], True)]
            before = answered
        return pieces

    def _written(self, messages: list[dict[str, str]], *, asks: bool) -> str:
        assert self.template is not None
        # Templates of models that see may want a text's parts, to write what stands for a picture themselves.
        parts = "image" in self.template.source
        given = [{**one, "content": _parts(one["content"])} for one in messages] if parts else messages
        text = self.template.render(given, add_generation_prompt=asks)  # pyright: ignore[reportArgumentType]
        if self.image and self.image != MARK:
            text = text.replace(self.image, MARK)
        marks = sum(message["content"].count(MARK) for message in messages)
        if text.count(MARK) != marks:
            raise InputError(
                f"{self.template.origin} writes {text.count(MARK)} marks for {marks} pictures; it needs one "
                f'for each, "{MARK}" or the model\'s image token.'
            )
        return text


def _parts(content: str) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    for number, text in enumerate(content.split(MARK)):
        parts += [{"type": "image"}] * (number > 0) + [{"type": "text", "text": text}] * bool(text)
    return parts
