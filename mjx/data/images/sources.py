"""Where pictures are, and what each is labelled: folders by class, tables of paths, tar files of samples."""

import dataclasses
import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int64

from mjx.data.cache import build_once, save_array
from mjx.data.documents import find_files
from mjx.data.images.decode import SUFFIXES
from mjx.data.pairs.rows import KINDS as TABLES
from mjx.data.pairs.rows import read_rows
from mjx.errors import InputError

_FORMAT = 1
"""Part of the cache key: raised when what is cached changes its meaning."""
_SHARDS = {**TABLES, ".tar": "tar"}
_LABELS = (".cls", ".json", ".txt")
"""What a sample's label is in, inside of a tar file; of several the first."""
_OWN = "pictures.bin"
_WHOLE = -1


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures that nobody has decoded yet, and their labels."""

    path: str
    """Of the source."""
    files: tuple[str, ...]
    where: Int64[np.ndarray, "pictures 3"]
    """Which of the files a picture is in, its first byte there, and how many it has (-1: the file)."""
    labels: tuple[str, ...]
    places: tuple[str, ...]
    """What a picture is called in messages."""

    def __len__(self) -> int:
        return len(self.labels)

    def content(self, number: int) -> bytes:
        """The bytes of a picture.

        Raises:
            OSError: its file cannot be read.
        """
        file, first, size = self.where[number].tolist()
        with open(self.files[file], "rb") as opened:
            opened.seek(first)
            return opened.read(size)


def open_pictures(path: str, image_key: str, label_key: str, cache_dir: str) -> Pictures:
    """The pictures of a source, in an order that is always the same.

    Args:
        path: A folder of folders, each a class of the pictures inside; or `.parquet`, `.jsonl`, `.csv` and
            `.tsv` files with a row a picture, or `.tar` files with samples (a folder of them, a pattern).
        image_key: The column of a picture's path (from where the table is), or of its bytes.
        label_key: The column of its label; also of a sample's `.json`.
        cache_dir: Where is kept what was found in tables and tar files, and pictures that are in Parquet.

    Raises:
        InputError: there is no picture, or a file cannot be read.
    """
    folder = Path(path)
    if not is_there(path):
        raise InputError(f"{path} does not exist.")
    if folder.is_dir() and (found := _by_folder(folder)) is not None:
        return found
    if not folder.is_dir() and folder.name.lower().endswith(
        (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
    ):
        raise InputError(
            f"{path} is compressed, so that its pictures have no place; unpack it to a .tar file."
        )
    shards = find_files([path], _SHARDS)
    states = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file, _ in shards]
    key = json.dumps({"format": _FORMAT, "files": states, "keys": [image_key, label_key]})
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def build(into: Path) -> None:
        with open(into / _OWN, "wb") as own:
            rows = [
                row
                for file, kind in shards
                for row in (
                    _in_tar(file, label_key) if kind == "tar" else _in_table(file, image_key, label_key, own)
                )
            ]
        if not rows:
            raise InputError(f"{path} has no picture.")
        files = {name: number for number, name in enumerate(dict.fromkeys(row[0] for row in rows))}
        save_array(
            into / "where.npy", np.array([(files[name], *where) for name, *where, _, _ in rows], np.int64)
        )
        labels, places = ([row[at] for row in rows] for at in (3, 4))
        said = {"files": list(files), "labels": labels, "places": places}
        (into / "pictures.json").write_text(json.dumps(said), encoding="utf-8")

    def read(from_: Path) -> Pictures:
        said = json.loads((from_ / "pictures.json").read_text(encoding="utf-8"))
        files = tuple(name or str(from_ / _OWN) for name in said["files"])
        return Pictures(
            path, files, np.load(from_ / "where.npy"), tuple(said["labels"]), tuple(said["places"])
        )

    return build_once(Path(cache_dir) / f"pictures-{digest}", build, read)


def is_there(path: str) -> bool:
    """Whether a source exists, or is a pattern."""
    return Path(path).exists() or any(sign in path for sign in "*?[")


_Row = tuple[str, int, int, str, str]
"""File ("": the cache's own), first byte, bytes, label, place."""


def _by_folder(root: Path) -> Pictures | None:
    """None: no folder inside has a picture."""
    files, labels, homeless = [], [], []
    for folder, inside, names in os.walk(root, followlinks=True):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        relative = Path(folder).relative_to(root)
        for name in sorted(names):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                if relative.parts:
                    files.append(os.path.join(folder, name))
                    labels.append(relative.parts[0])
                else:
                    homeless.append(name)
    if not files:
        if homeless:
            raise InputError(
                f"{root} has {len(homeless)} pictures, but none in a folder of its own: a picture's class is "
                f"the folder that it is in, as {root / 'CLASS' / homeless[0]}."
            )
        return None
    if homeless:
        logging.getLogger("mjx").warning(
            "%s: left out %d pictures that are in no class's folder (%s)", root, len(homeless), homeless[0]
        )
    where = np.stack([np.arange(len(files)), np.zeros(len(files)), np.full(len(files), _WHOLE)], axis=1)
    return Pictures(str(root), tuple(files), where.astype(np.int64), tuple(labels), tuple(files))


def _in_table(file: Path, image_key: str, label_key: str, own: Any) -> Iterator[_Row]:
    for place, (image, label) in read_rows(file, [image_key, label_key]):
        name = _label(label, place)
        if isinstance(image, dict):  # as the datasets library writes them
            image = image.get("bytes") or image.get("path")
        if isinstance(image, bytes):
            yield "", own.tell(), len(image), name, place
            own.write(image)
        elif isinstance(image, str) and image.strip():
            path = os.path.join(file.parent, image)
            yield path, 0, _WHOLE, name, path
        else:
            raise InputError(f'{place}: "{image_key}" is neither the path of a picture nor its bytes.')


def _in_tar(file: Path, label_key: str) -> Iterator[_Row]:
    """Files of one sample have one name, up to its first dot."""
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(
                        f'{file} has a file "{member.name}", which would be outside of where it is unpacked; '
                        "such a file is not trusted."
                    )
                if not member.isfile() or name.name.startswith("."):
                    continue
                stem, dot, rest = name.name.partition(".")
                sample, suffix = str(name.parent / stem), f"{dot}{rest}".lower()
                if suffix in SUFFIXES:
                    if sample in pictures:
                        raise InputError(
                            f'{file}: "{pictures[sample][0]}" and "{member.name}" are two pictures of one '
                            "sample."
                        )
                    pictures[sample] = (member.name, member.offset_data, member.size)
                elif suffix in _LABELS:
                    labels.setdefault(sample, {})[suffix] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{file} is not a tar file, or is damaged: {error}.") from error
    with open(file, "rb") as opened:
        for sample, (member_name, first, size) in pictures.items():
            place = f"{file}: {member_name}"
            found = labels.get(sample, {})
            suffix = next((suffix for suffix in _LABELS if suffix in found), None)
            if suffix is None:
                raise InputError(f'{place} has no label; it should be in "{sample}.cls" (or .json, .txt).')
            opened.seek(found[suffix][0])
            yield (
                str(file),
                first,
                size,
                _said(opened.read(found[suffix][1]), suffix, label_key, place),
                place,
            )


def _said(content: bytes, suffix: str, label_key: str, place: str) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
        if suffix != ".json":
            return _label(text, place)
        record = json.loads(text)
    except ValueError as error:
        raise InputError(f"{place}: its label, in {suffix}, cannot be read ({error}).") from error
    if not isinstance(record, dict) or label_key not in record:
        raise InputError(f'{place}: its .json has no key "{label_key}".')
    return _label(record[label_key], place)


def _label(value: Any, place: str) -> str:
    name = value if isinstance(value, str) else json.dumps(value)
    if value is None or not name.strip():
        raise InputError(f"{place}: the label is empty.")
    return name


def classes_of(sources: Sequence[Pictures]) -> tuple[str, ...]:
    """The labels that there are: numbers by their size, names by the alphabet."""
    names = {name for pictures in sources for name in pictures.labels}
    if all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))
