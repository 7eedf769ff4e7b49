"""Pictures and what is told of them: captions, or a conversation in which each has a mark."""

import base64
import binascii
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from mjx.data.images.sources import (
    Keep,
    Picture,
    Sample,
    StoredPictures,
    in_tar,
    is_there,
    open_samples,
    picture_of,
    pictures_in,
    said_in,
    whole_file,
    with_pictures,
)
from mjx.data.pairs.rows import read_rows, text_in
from mjx.errors import InputError

MARK = "<image>"
"""Stands for a picture in a text."""
_TEXTS = (".txt", ".json")
"""What is told of a picture is in, beside it; of both the first."""
_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""How LLaVA's files and others call who speaks → how chat templates do."""
_INLINE = "data:"

Messages = list[dict[str, str]]
"""Of a conversation: `role` and `content`."""


@dataclasses.dataclass(frozen=True)
class ToldPictures(StoredPictures):
    """Samples of any number of pictures, and what is told of them."""

    first: Int64[np.ndarray, "samples+1"]
    """The first picture of each sample, then how many there are."""
    told: tuple[list[str] | Messages, ...]
    """Captions of a picture, or a conversation with as many marks as the sample has pictures."""

    def __len__(self) -> int:
        return len(self.told)


def open_told(path: str, root: str | None, image_key: str, text_key: str, cache_dir: str) -> ToldPictures:
    """The samples of a source, in an order that is always the same.

    Args:
        path: A folder (with all inside) of pictures, each beside a `.txt` or `.json` of its name; `.parquet`,
            `.jsonl`, `.json`, `.csv` and `.tsv` files with a row a sample; or `.tar` files of samples.
        root: Where paths in tables are from; None: where the table is.
        image_key: The column of a picture's path, of its bytes, or of a list of them.
        text_key: The column of a caption, a list of captions, or a conversation, as LLaVA's files have them
            (`from`, `value`) or as chats do (`role`, `content`); also of a sample's `.json`.
        cache_dir: Where is kept what was found in tables and tar files, and pictures that are inside.

    Raises:
        InputError: there is no sample, or one cannot be read, or it has not as many marks as pictures.
    """
    if not is_there(path):
        raise InputError(f"{path} does not exist.")
    found = _by_folder(Path(path), text_key) if Path(path).is_dir() else None
    if found is not None:
        (files, where, places), counts, told = with_pictures(found)
    else:

        def samples(file: Path, kind: str, keep: Keep) -> Iterator[Sample]:
            if kind != "tar":
                yield from _in_table(file, Path(root or file.parent), image_key, text_key, keep)
                return
            for pictures, value, place in in_tar(file, _TEXTS, text_key):
                yield _told(pictures, value, place, text_key, None)

        keys = ["told", root or "", image_key, text_key]
        (files, where, places), counts, told = open_samples(path, samples, cache_dir, keys)
    return ToldPictures(
        path, files, where, places, np.append(0, np.cumsum(counts, dtype=np.int64)), tuple(told)
    )


def _by_folder(root: Path, text_key: str) -> list[Sample] | None:
    """None: there is no picture."""
    samples: list[Sample] = []
    silent: list[str] = []
    for folder, names in pictures_in(root):
        for name in names:
            path = folder / name
            beside = [path.with_suffix(suffix) for suffix in _TEXTS if path.with_suffix(suffix).is_file()]
            if not beside:
                silent.append(str(path))
                continue
            value = said_in(beside[0].read_bytes(), beside[0].suffix, text_key, str(path))
            samples.append(_told([whole_file(str(path))], value, str(path), text_key, None))
    if silent and not samples:
        raise InputError(
            f"{root} has {len(silent)} pictures, but no text beside one: what is told of {silent[0]} should "
            f"be in {Path(silent[0]).with_suffix('.txt').name} (or .json)."
        )
    if silent:
        logging.getLogger("mjx").warning(
            "%s: left out %d pictures without a text beside them (%s)", root, len(silent), silent[0]
        )
    return samples or None


def _in_table(file: Path, root: Path, image_key: str, text_key: str, keep: Keep) -> Iterator[Sample]:
    def picture(image: Any, place: str) -> Picture:
        if isinstance(image, str) and image.startswith(_INLINE):
            return keep(_inline(image, place), place)
        return picture_of(image, place, image_key, root, keep)

    for place, (images, value) in read_rows(file, [image_key, text_key], optional=[image_key]):
        several = images if isinstance(images, list) else [] if images is None else [images]
        yield _told([picture(image, place) for image in several], value, place, text_key, picture)


def _inline(address: str, place: str) -> bytes:
    head, comma, content = address.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise ValueError("it is not base64")
        return base64.b64decode(content, validate=True)
    except (ValueError, binascii.Error) as error:
        raise InputError(f'{place}: the picture "{head[:40]}…" cannot be read: {error}.') from error


def _told(pictures: list[Picture], value: Any, place: str, key: str, picture: Any) -> Sample:
    """A sample, checked; `picture` makes one of what a part of a message names, where that may be."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise InputError(
            f'{place}: "{key}" is neither a caption, nor a list of captions, nor a conversation.'
        )
    if not any(isinstance(one, Mapping) for one in value):
        captions = [text_in(one, place, key) for one in value]
        if marked := next((caption for caption in captions if MARK in caption), None):
            raise InputError(
                f'{place}: the caption "{marked[:40]}" has a mark {MARK}; a caption is told of its '
                "picture, behind which it stands."
            )
        return pictures, captions, place
    messages: Messages = []
    named: list[Picture] = []
    for turn in value:
        role, content = _turn(turn, place, key)
        if isinstance(content, list):
            content, own = _parts(content, place, picture)
            named += own
        messages.append({"role": role, "content": text_in(content, place, key)})
    if named and pictures:
        raise InputError(f"{place}: pictures are in the messages, and in a column of their own.")
    pictures = pictures or named
    marks = sum(message["content"].count(MARK) for message in messages)
    if marks != len(pictures):
        raise InputError(
            f"{place}: the conversation has {marks} marks {MARK} for {len(pictures)} pictures; it needs one "
            "for each."
        )
    if any(MARK in message["content"] for message in messages if message["role"] == "assistant"):
        raise InputError(f"{place}: a picture stands in an answer; a model of this kind writes only text.")
    if not any(message["role"] == "assistant" for message in messages):
        raise InputError(f"{place}: nobody answers in the conversation, so that there is nothing to learn.")
    return pictures, messages, place


def _turn(turn: Any, place: str, key: str) -> tuple[str, Any]:
    """Who speaks, and what."""
    if isinstance(turn, Mapping):
        for who, what in (("from", "value"), ("role", "content")):
            if who in turn and what in turn:
                if turn[who] not in _SPEAKERS:
                    raise InputError(
                        f'{place}: "{turn[who]}" speaks; it should be one of {", ".join(_SPEAKERS)}.'
                    )
                return _SPEAKERS[turn[who]], turn[what]
    raise InputError(
        f'{place}: a turn of "{key}" has neither "from" and "value" nor "role" and "content" as keys.'
    )


def _parts(parts: list[Any], place: str, picture: Any) -> tuple[str, list[Picture]]:
    """The text of a message with a mark for each picture, and those that it names."""
    texts: list[str] = []
    pictures: list[Picture] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
            continue
        if kind not in ("image", "image_url"):
            raise InputError(f'{place}: a part of a message is of type "{kind}"; known are text and image.')
        texts.append(MARK)
        image = part.get("image", part.get("image_url"))
        if isinstance(image, Mapping) and "url" in image:
            image = image["url"]
        if isinstance(image, str) and image.startswith(("http:", "https:")):
            raise InputError(f'{place}: the picture "{image}" is on another machine; fetch it first.')
        if image is not None:
            if picture is None:
                raise InputError(f"{place}: a message names a picture of its own, beside the sample's.")
            pictures.append(picture(image, place))
    return "".join(texts), pictures
