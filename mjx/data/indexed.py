"""Megatron's `.bin`/`.idx` pair: a flat file of token ids, and the index that cuts it into sequences.

`.idx`, little-endian: magic, u64 version, u8 dtype code, u64 sequence count N, u64 document-index count D,
then int32 lengths[N], int64 byte offsets[N], int64 document indices[D] (the first sequence of each document,
and N). `.bin`: the tokens, nothing else. The files are equal, byte for byte, to those that Megatron writes
and reads.
"""

import array
import hashlib
import logging
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from jaxtyping import Int

from mjx.errors import InputError
from mjx.files import NewFiles, disk_full_error

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
HEADER = struct.Struct("<9sQBQQ")
DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
"""dtype code → dtype. Megatron also names 6 (float64) and 7 (float32), which are not tokens."""

LONGEST_SENTENCE = 512
"""Where tokens are hidden, a document of several sentences of which one has more tokens is left out, as
Megatron leaves it out."""

_VERIFIED_AT_ONCE = 1 << 22
"""Index entries looked at together, so that checking an index of any size needs little memory."""


def token_dtype(vocab_size: int | None) -> type[np.uint16] | type[np.int32]:
    """The dtype in which Megatron stores the tokens of a vocabulary (unknown: int32)."""
    return np.uint16 if vocab_size is not None and vocab_size < 65500 else np.int32


def dataset_prefix(path: str | os.PathLike[str]) -> str:
    """What to write to: without the `.bin` or `.idx` of somebody who means both files."""
    text = os.fspath(path)
    return text[:-4] if text.lower().endswith((".bin", ".idx")) else text


def bin_path(prefix: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(prefix)}.bin")


def idx_path(prefix: str | os.PathLike[str]) -> Path:
    return Path(f"{os.fspath(prefix)}.idx")


class IndexedDataset:
    """A `.bin`/`.idx` pair, read through the page cache: opening it reads no more than the header.

    Raises:
        InputError: a file is missing, foreign, truncated or does not fit the other one.
    """

    prefix: str
    dtype: np.dtype
    tokens: np.ndarray
    """The whole `.bin`, as one flat array."""
    sequence_lengths: np.ndarray
    """int32, tokens in each sequence."""
    sequence_pointers: np.ndarray
    """int64, byte offset of each sequence in the `.bin`."""
    document_indices: np.ndarray
    """int64, the first sequence of each document, then the number of sequences."""

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = os.fspath(prefix)
        index, tokens = idx_path(prefix), bin_path(prefix)
        for path in (index, tokens):
            if not path.is_file():
                hint = (
                    " (give the path without .bin or .idx)" if self.prefix.endswith((".bin", ".idx")) else ""
                )
                raise InputError(
                    f"{path} does not exist: a dataset is a pair of files PREFIX.bin and PREFIX.idx{hint}."
                )
        with index.open("rb") as file:
            header = file.read(HEADER.size)
        if header[: len(MAGIC)] != MAGIC:
            raise InputError(f"{index} does not begin with MMIDIDX: it is not the index of a .bin file.")
        if len(header) < HEADER.size:
            raise InputError(
                f"{index} ends within its header ({len(header)} of {HEADER.size} bytes): it is truncated."
            )
        _, version, code, sequences, documents = HEADER.unpack(header)
        if version != VERSION:
            raise InputError(f"{index} has version {version}; only version {VERSION} is known.")
        if code not in DTYPES:
            known = ", ".join(f"{code} ({np.dtype(dtype)})" for code, dtype in DTYPES.items())
            raise InputError(f"{index} has dtype code {code}, which is not a token type; known are {known}.")
        expected = HEADER.size + 12 * sequences + 8 * documents
        size = index.stat().st_size
        # A multimodal index ends with one more byte per sequence, which tokens do not need.
        if size not in (expected, expected + sequences):
            fault = "truncated" if size < expected else "damaged, or of another format"
            raise InputError(
                f"{index} has {size} bytes, but {sequences} sequences and {documents} document indices make "
                f"{expected}: it is {fault}."
            )
        self.dtype = np.dtype(DTYPES[code])
        raw = np.asarray(np.memmap(index, dtype=np.uint8, mode="r"))

        def part(dtype: type, count: int, offset: int) -> np.ndarray:
            return np.frombuffer(raw, dtype=dtype, count=count, offset=offset)

        self.sequence_lengths = part(np.int32, sequences, HEADER.size)
        self.sequence_pointers = part(np.int64, sequences, HEADER.size + 4 * sequences)
        self.document_indices = part(np.int64, documents, HEADER.size + 12 * sequences)
        count = tokens.stat().st_size // self.dtype.itemsize
        self.tokens = (
            np.asarray(np.memmap(tokens, dtype=self.dtype, mode="r", shape=(count,)))
            if count
            else np.empty(0, self.dtype)
        )
        if not documents or self.document_indices[0] != 0 or self.document_indices[-1] != sequences:
            raise InputError(
                f"The document indices of {index} do not run from 0 to its {sequences} sequences."
            )
        if sequences:
            end = int(self.sequence_pointers[-1]) + int(self.sequence_lengths[-1]) * self.dtype.itemsize
            have = tokens.stat().st_size
            if have < end:
                raise InputError(f"{tokens} has {have} bytes, but {index} speaks of {end}: it is truncated.")
            if have > end:
                logging.getLogger("mjx").warning(
                    "%s has %d bytes, but %s speaks of only %d: do they belong together?",
                    tokens,
                    have,
                    index,
                    end,
                )

    def __len__(self) -> int:
        return len(self.sequence_lengths)

    def __getitem__(self, sequence: int) -> Int[np.ndarray, "sequence"]:
        start = int(self.sequence_pointers[sequence]) // self.dtype.itemsize
        return self.tokens[start : start + int(self.sequence_lengths[sequence])]

    @property
    def num_documents(self) -> int:
        return len(self.document_indices) - 1

    def document_of_token(self, position: int) -> int:
        """The document in which a position of the flat token array lies."""
        sequence = np.searchsorted(self.sequence_pointers, position * self.dtype.itemsize, side="right") - 1
        return int(np.searchsorted(self.document_indices, sequence, side="right")) - 1

    def verify(self) -> None:
        """Reads the whole index and checks that it cuts the `.bin` into sequences that follow one another.

        Raises:
            InputError: naming the first sequence or document that is wrong.
        """
        name, item = idx_path(self.prefix), self.dtype.itemsize
        end = 0
        for first in range(0, len(self), _VERIFIED_AT_ONCE):
            lengths = self.sequence_lengths[first : first + _VERIFIED_AT_ONCE].astype(np.int64)
            pointers = self.sequence_pointers[first : first + _VERIFIED_AT_ONCE]
            if (lengths < 0).any():
                raise InputError(
                    f"Sequence {first + int(np.argmax(lengths < 0))} of {name} has a negative length."
                )
            ends = pointers + lengths * item
            wrong = pointers < np.concatenate([[end], ends[:-1]])
            if wrong.any():
                raise InputError(
                    f"Sequence {first + int(np.argmax(wrong))} of {name} starts before the one that precedes "
                    "it ends: the pointers are not sorted, the index is damaged."
                )
            split = pointers % item != 0
            if split.any():
                raise InputError(f"Sequence {first + int(np.argmax(split))} of {name} starts within a token.")
            end = int(ends[-1])
        for first in range(0, self.num_documents, _VERIFIED_AT_ONCE):
            falls = np.diff(self.document_indices[first : first + _VERIFIED_AT_ONCE + 1]) < 0
            if falls.any():
                raise InputError(f"Document {first + int(np.argmax(falls))} of {name} ends before it starts.")

    def identity(self) -> str:
        """A digest of what a sample index depends on: dtype, lengths and documents, but not the path."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(HEADER.pack(MAGIC, VERSION, self.dtype.itemsize, len(self), len(self.document_indices)))
        digest.update(self.sequence_lengths.data)
        digest.update(self.document_indices.data)
        return digest.hexdigest()


def gather(
    dataset: IndexedDataset,
    sources: Int[np.ndarray, "pieces"],
    lengths: Int[np.ndarray, "pieces"],
    vocab_size: int | None,
) -> Int[np.ndarray, "tokens"]:
    """The tokens of pieces of the `.bin`, one after another.

    Raises:
        InputError: a token id does not belong to the vocabulary.
    """
    targets = np.cumsum(lengths) - lengths
    where = np.arange(int(lengths.sum())) + np.repeat(sources - targets, lengths)
    found = dataset.tokens.take(where)
    if vocab_size is not None and found.size and (found.max() >= vocab_size or found.min() < 0):
        bad = int(np.argmax((found >= vocab_size) | (found < 0)))
        document, token = dataset.document_of_token(int(where[bad])), int(found[bad])
        raise InputError(
            f"Document {document} of {dataset.prefix}.bin has the token id {token}, but vocab_size = "
            f"{vocab_size} (the model's or the data's, whichever is smaller). Was the data made with another "
            "tokenizer? Else leave out the texts that have this token; a model that starts from nothing may "
            f"have a larger model.vocab_size: {token + 1} at least, as many as the tokenizer has ids for all."
        )
    return found


class IndexedDatasetWriter:
    """Writes a `.bin`/`.idx` pair document by document; only the index is held in memory.

    A context manager. The files appear under their names when the block ends well, the `.idx` last, so a
    reader never meets half a dataset; when the block raises they do not appear at all.
    """

    def __init__(self, prefix: str | os.PathLike[str], dtype: type[np.integer] | np.dtype = np.int32) -> None:
        self.dtype = np.dtype(dtype)
        codes = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
        if self.dtype not in codes:
            raise InputError(
                f"dtype = {self.dtype} is not a token type; choose one of {', '.join(map(str, codes))}."
            )
        self._code = codes[self.dtype]
        self._bounds = np.iinfo(self.dtype)
        prefix = dataset_prefix(prefix)
        if prefix.endswith("/"):
            raise InputError(f"{prefix} is a folder: say the name of the files in it too, {prefix}NAME.")
        self._paths = (bin_path(prefix), idx_path(prefix))
        self._files = NewFiles(contended=True)
        self._lengths = array.array("i")
        self._documents = array.array("q", [0])
        self.num_tokens = 0

    def __enter__(self) -> Self:
        try:
            self._paths[0].parent.mkdir(parents=True, exist_ok=True)
            self._file = self._files.open(self._paths[0])
        except OSError as error:
            raise InputError(f"{self._paths[0]} cannot be written: {error.strerror}.") from error
        return self

    def add_sequence(self, tokens: Sequence[int] | Int[np.ndarray, "sequence"]) -> None:
        """Appends one sequence (a sentence, or a whole document) to the document in hand."""
        ids = np.asarray(tokens, np.int64)
        self._write(ids, np.array([len(ids)]))
        self._lengths.append(len(ids))

    def end_document(self) -> None:
        self._documents.append(len(self._lengths))

    def add_documents(
        self,
        tokens: Int[np.ndarray, "tokens"],
        lengths: Int[np.ndarray, "sequences"],
        sequences: Int[np.ndarray, "documents"] | None = None,
    ) -> None:
        """Appends documents, laid end to end; an empty sequence is left out.

        Args:
            tokens: Of all of them.
            lengths: Tokens in each sequence.
            sequences: How many each document has; None: one.
        """
        some = lengths > 0
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(some, dtype=np.int64)])
        last = np.arange(1, len(lengths) + 1) if sequences is None else np.cumsum(sequences)
        self._write(tokens, np.diff(np.cumsum(lengths)[last - 1], prepend=0) if len(lengths) else lengths)
        ends = len(self._lengths) + before[last]
        self._lengths.frombytes(lengths[some].astype(np.int32).tobytes())
        self._documents.frombytes(ends.tobytes())

    def _write(self, tokens: np.ndarray, lengths: np.ndarray) -> None:
        wrong = (tokens < self._bounds.min) | (tokens > self._bounds.max)
        if wrong.any():
            place = int(np.argmax(wrong))
            document = (
                len(self._documents) - 1 + int(np.searchsorted(np.cumsum(lengths), place, side="right"))
            )
            raise InputError(
                f"Document {document} has the token id {tokens[place]}, which does not fit into "
                f"{self.dtype}: is vocab_size right?"
            )
        # Not `tofile`, whose errors do not say that the disk is full.
        self._file.write(np.ascontiguousarray(tokens, self.dtype).data)
        self.num_tokens += len(tokens)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failure = error
        if error is not None:
            self._files.discard()
        else:
            try:
                with self._files:
                    self._write_index()
            except OSError as refused:
                failure = refused
        if failure is not None:
            folder, spared = self._paths[0].parent, "Nothing there has changed."
            full = disk_full_error(failure, folder, None, str(self._paths[0]), spared)
            if full is not None:
                raise full from failure
            if failure is not error:
                raise failure

    def _write_index(self) -> None:
        lengths = np.frombuffer(self._lengths, dtype=np.int32) if self._lengths else np.empty(0, np.int32)
        ends = np.cumsum(lengths, dtype=np.int64) * self.dtype.itemsize
        file = self._files.open(self._paths[1])
        file.write(HEADER.pack(MAGIC, VERSION, self._code, len(lengths), len(self._documents)))
        file.write(lengths.data)
        file.write(np.concatenate([np.zeros(1, np.int64), ends])[: len(lengths)].data)
        file.write(self._documents)
