"""Prompts in which pictures stand."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from mjx.data.images.marks import PictureMarks
from mjx.data.tokenizers import ChatTemplate, Tokenizer
from mjx.errors import InputError
from mjx.models.common.pictures import View
from mjx.models.family import Sees


class SeenPictures(NamedTuple):
    """The pictures of some prompts."""

    views: Sequence[Sequence[View]]
    """Of each prompt, in the order of its text."""
    marks: PictureMarks


def seen_prompts(
    model: Sees,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    pictures: SeenPictures,
    template: ChatTemplate | None,
) -> list[list[int]]:
    """The token ids of prompts with room for their pictures: where a prompt marks them, or in front of it.

    Raises:
        InputError: a prompt has not as many marks as pictures, or the template has no room for them.
    """
    rows = []
    for prompt, views in zip(prompts, pictures.views, strict=True):
        places = [model.places(view) for view in views]
        text = _marked(prompt, len(views), pictures.marks, template)
        rows.append(_ids(model, tokenizer, pictures.marks, text, places, special=template is None))
    return rows


def _marked(prompt: str, number: int, marks: PictureMarks, template: ChatTemplate | None) -> str:
    """The prompt, or the chat that it opens, with a mark for each picture."""
    found = marks.number(prompt)
    if found not in (0, number):
        raise InputError(
            f"the prompt has {found} marks {marks.marks[0]} for {number} pictures; it needs one for each, or "
            "none, and they stand in front"
        )
    pieces = [("image", "")] * (number - found) + [
        ("image" if is_mark else "text", part) for part, is_mark in marks.parts(prompt)
    ]
    mark = marks.image
    text = "".join(mark if kind == "image" else part for kind, part in pieces)
    if template is None:
        return text
    content = [
        {"type": "image"} if kind == "image" else {"type": "text", "text": part}
        for kind, part in pieces
        if kind == "image" or part
    ]
    for said in (content, text):  # templates of texts alone know no parts
        try:
            chat = template.render([{"role": "user", "content": said}])
        except InputError:
            if said is text:
                raise
            continue
        if marks.number(chat) == number and not re.search(r"""['"]type['"]: ['"]""", chat):
            return chat
    raise InputError(
        f"{template.origin} writes no {mark} for a picture; continue the prompt as it is (--raw)"
    )


def _ids(
    model: Sees,
    tokenizer: Tokenizer,
    marks: PictureMarks,
    text: str,
    places: Sequence[Sequence[int]],
    *,
    special: bool,
) -> list[int]:
    """With the tokens that prompts begin with, if `special`."""
    encode = tokenizer.encode_prompt if special else tokenizer.encode_chat
    if tokenizer.token_id(marks.image) == model.image_token:
        return encode(marks.written(text, places))
    # No text has the image token, so that its ids stand between those of the texts around it.
    ids, left, begun = [], iter(places), False
    for part, is_mark in marks.parts(text):
        if not is_mark:
            ids += (tokenizer.encode if begun else encode)(part) if part or not begun else []
            begun = True
            continue
        for piece, number in marks.pieces(next(left)):
            ids += [*(tokenizer.encode(piece) if piece else []), *[model.image_token] * number]
    return ids
