"""Where pictures are, and what each is labelled: folders by class, tables of paths, tar files of samples."""

import dataclasses
import hashlib
import json
import logging
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
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

_FORMAT = 2
"""Part of the cache key: raised when what is cached changes its meaning."""
_SHARDS = {**TABLES, ".tar": "tar"}
_LABELS = (".cls", ".json", ".txt")
"""What a sample's label is in, inside of a tar file; of several the first."""
_OWN = "pictures.bin"
WHOLE = -1
"""The size of a picture that is a file of its own."""


Picture = tuple[str, int, int, str]
"""File ("": the cache's own), first byte, bytes (-1: the file), what it is called."""
Sample = tuple[list[Picture], Any, str]
"""Its pictures, what is said of them, and where it stands."""


@dataclasses.dataclass(frozen=True)
class StoredPictures:
    """Pictures that nobody has decoded yet."""

    path: str
    """Of the source."""
    files: tuple[str, ...]
    where: Int64[np.ndarray, "pictures 3"]
    """Which of the files a picture is in, its first byte there, and how many it has (-1: the file)."""
    places: tuple[str, ...]
    """What a picture is called in messages."""

    def content(self, number: int) -> bytes:
        """The bytes of a picture.

        Raises:
            OSError: its file cannot be read.
        """
        file, first, size = self.where[number].tolist()
        with open(self.files[file], "rb") as opened:
            opened.seek(first)
            return opened.read(size)


@dataclasses.dataclass(frozen=True)
class Pictures(StoredPictures):
    """A picture a sample, and its label."""

    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


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
        stored, _, labels = with_pictures(found)
        return Pictures(path, *stored, labels=tuple(labels))

    def samples(file: Path, kind: str, keep: Keep) -> Iterator[Sample]:
        if kind == "tar":
            found = in_tar(file, _LABELS, label_key)
        else:
            found = _in_table(file, image_key, label_key, keep)
        for pictures, value, place in found:
            yield pictures, _label(value, place), place

    stored, _, labels = open_samples(path, samples, cache_dir, [image_key, label_key])
    return Pictures(path, *stored, labels=tuple(labels))


Keep = Callable[[bytes, str], Picture]
"""Puts the bytes of a picture, which is called so, into the cache."""
Opened = tuple[tuple[tuple[str, ...], Int64[np.ndarray, "pictures 3"], tuple[str, ...]], list[int], list[Any]]
"""Files, `where` and places of all pictures; how many each sample has; what is said of each."""


def open_samples(
    path: str, samples: Callable[[Path, str, Keep], Iterator[Sample]], cache_dir: str, keys: Sequence[str]
) -> Opened:
    """The samples of tables and tar files, which are read through once.

    Args:
        path: A file, a folder or a pattern.
        samples: Those of a file of some kind.
        cache_dir: Where is kept what was found, and pictures that have no file of their own.
        keys: What else it depends on.

    Raises:
        InputError: there is no picture, or a file cannot be read.
    """
    name = Path(path).name.lower()
    if not Path(path).is_dir() and name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise InputError(
            f"{path} is compressed, so that its pictures have no place; unpack it to a .tar file."
        )
    shards = find_files([path], _SHARDS)
    states = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file, _ in shards]
    key = json.dumps({"format": _FORMAT, "files": states, "keys": list(keys)})
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def build(into: Path) -> None:
        with open(into / _OWN, "wb") as own:

            def keep(content: bytes, place: str) -> Picture:
                first = own.tell()
                own.write(content)
                return "", first, len(content), place

            (files, where, places), counts, said = with_pictures(
                sample for file, kind in shards for sample in samples(file, kind, keep)
            )
        if not len(where):
            raise InputError(f"{path} has no picture.")
        save_array(into / "where.npy", where)
        found = {"files": list(files), "places": list(places), "counts": counts, "said": said}
        (into / "pictures.json").write_text(json.dumps(found), encoding="utf-8")

    def read(from_: Path) -> Opened:
        found = json.loads((from_ / "pictures.json").read_text(encoding="utf-8"))
        files = tuple(name or str(from_ / _OWN) for name in found["files"])
        stored = files, np.load(from_ / "where.npy"), tuple(found["places"])
        return stored, found["counts"], found["said"]

    return build_once(Path(cache_dir) / f"pictures-{digest}", build, read)


def with_pictures(samples: Iterable[Sample]) -> Opened:
    """Samples as arrays of all of their pictures, and lists."""
    files: dict[str, int] = {}
    where, places, counts, said = [], [], [], []
    for pictures, value, _ in samples:
        for file, first, size, place in pictures:
            where.append((files.setdefault(file, len(files)), first, size))
            places.append(place)
        counts.append(len(pictures))
        said.append(value)
    return (tuple(files), np.array(where, np.int64).reshape(-1, 3), tuple(places)), counts, said


def is_there(path: str) -> bool:
    """Whether a source exists, or is a pattern."""
    return Path(path).exists() or any(sign in path for sign in "*?[")


def pictures_in(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders in a folder, by name, and the names of the pictures in each."""
    for folder, inside, names in os.walk(root, followlinks=True):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        found = [name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
        yield Path(folder), sorted(found)


def whole_file(path: str) -> Picture:
    """A picture that is a file of its own."""
    return path, 0, WHOLE, path


def _by_folder(root: Path) -> list[Sample] | None:
    """None: no folder inside has a picture."""
    samples: list[Sample] = []
    homeless: list[str] = []
    for folder, names in pictures_in(root):
        relative = folder.relative_to(root)
        if not relative.parts:
            homeless += names
            continue
        for name in names:
            path = os.path.join(folder, name)
            samples.append(([whole_file(path)], relative.parts[0], path))
    if not samples:
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
    return samples


def _in_table(file: Path, image_key: str, label_key: str, keep: Keep) -> Iterator[Sample]:
    for place, (image, label) in read_rows(file, [image_key, label_key]):
        yield [picture_of(image, place, image_key, file.parent, keep)], label, place


def picture_of(image: Any, place: str, image_key: str, root: Path, keep: Keep) -> Picture:
    """What a table says of a picture: its path from `root`, its bytes, or both as the datasets library writes
    them.

    Raises:
        InputError: it is neither.
    """
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return keep(image, place)
    if isinstance(image, str) and image.strip():
        return whole_file(os.path.join(root, image))
    raise InputError(f'{place}: "{image_key}" is neither the path of a picture nor its bytes.')


def in_tar(file: Path, suffixes: Sequence[str], key: str) -> Iterator[Sample]:
    """The samples of a tar file: files have one name, up to its first dot.

    Args:
        file: Its path.
        suffixes: Of the files that say something of a picture; of several of one sample the first counts.
        key: What says it in a `.json`.
    """
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
                elif suffix in suffixes:
                    labels.setdefault(sample, {})[suffix] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{file} is not a tar file, or is damaged: {error}.") from error
    with open(file, "rb") as opened:
        for sample, (member_name, first, size) in pictures.items():
            place = f"{file}: {member_name}"
            found = labels.get(sample, {})
            suffix = next((suffix for suffix in suffixes if suffix in found), None)
            if suffix is None:
                others = ", ".join(suffixes[1:])
                raise InputError(
                    f'{place} has no label; it should be in "{sample}{suffixes[0]}" (or {others}).'
                )
            opened.seek(found[suffix][0])
            said = said_in(opened.read(found[suffix][1]), suffix, key, place)
            yield [(str(file), first, size, place)], said, place


def said_in(content: bytes, suffix: str, key: str, place: str) -> Any:
    """What a file beside a picture says: the text, or what is under a key of a `.json`.

    Raises:
        InputError: it cannot be read, or has no such key.
    """
    try:
        text = content.decode("utf-8-sig").strip()
        if suffix != ".json":
            return text
        record = json.loads(text)
    except ValueError as error:
        raise InputError(f"{place}: its label, in {suffix}, cannot be read ({error}).") from error
    if not isinstance(record, dict) or key not in record:
        raise InputError(f'{place}: its .json has no key "{key}".')
    return record[key]


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
