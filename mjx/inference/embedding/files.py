"""Files of embeddings, written while they are made: a NumPy array, or a Parquet table with the texts."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from jaxtyping import Float

from mjx.data.tokenizers.protocol import optional_package
from mjx.errors import InputError
from mjx.files import NewFiles, local_path


class EmbeddingFile(Protocol):
    """A file that has its name once the block ends well, and is gone if it raises."""

    def write(self, texts: Sequence[str], embeddings: Float[np.ndarray, "texts features"]) -> None:
        """The next rows."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_embedding_file(path: str | os.PathLike[str], features: int, column: str = "text") -> EmbeddingFile:
    """A new file for embeddings of so many features: `.npy`, or `.parquet` with a `column` of their texts.

    Raises:
        InputError: the file cannot be made, or pyarrow is missing.
    """
    check_embedding_file(path)
    file = Path(local_path(path))
    return _KINDS[file.suffix.lower()](file, features, column)


def check_embedding_file(path: str | os.PathLike[str]) -> None:
    """Raise `InputError` if no file of embeddings can be made there: its ending says what it is."""
    file = Path(local_path(path))
    if file.suffix.lower() not in _KINDS:
        raise InputError(f"{path} should end with {' or '.join(_KINDS)}, which says what is written")
    if file.is_dir():
        raise InputError(f"{path} is a folder; give the name of a file")
    if not file.absolute().parent.is_dir():
        raise InputError(f"{path} cannot be made: there is no folder {file.parent}")
    if file.suffix.lower() == ".parquet":
        optional_package("pyarrow.parquet", file)


class _File:
    def __init__(self, path: Path, features: int):
        self._files, self._features = NewFiles(), features
        try:
            self._file = self._files.open(path)
        except OSError as error:
            raise InputError(f"{path} cannot be made: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end()
        except BaseException:
            self._files.discard()
            raise
        self._files.__exit__(kind, error, trace)

    def _end(self) -> None:
        raise NotImplementedError


class _NumpyFile(_File):
    """`.npy`: float32, a row a text. Its header, which says how many, leaves room for the number."""

    def __init__(self, path: Path, features: int, column: str):
        super().__init__(path, features)
        self._rows = 0
        self._write_header()
        self._begin = self._file.tell()

    def write(self, texts: Sequence[str], embeddings: Float[np.ndarray, "texts features"]) -> None:
        self._rows += len(embeddings)
        self._file.write(np.ascontiguousarray(embeddings, "<f4").data)

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, self._features)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def _end(self) -> None:
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._begin


class _ParquetFile(_File):
    """`.parquet`: a column of what is embedded, and `embedding`, a list of float32."""

    def __init__(self, path: Path, features: int, column: str):
        self._arrow: Any = optional_package("pyarrow", path)
        parquet: Any = optional_package("pyarrow.parquet", path)
        super().__init__(path, features)
        kind = self._arrow.list_(self._arrow.float32(), features)
        self._schema = self._arrow.schema([(column, self._arrow.string()), ("embedding", kind)])
        self._writer = parquet.ParquetWriter(self._file, self._schema)

    def write(self, texts: Sequence[str], embeddings: Float[np.ndarray, "texts features"]) -> None:
        flat = self._arrow.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
        rows = self._arrow.FixedSizeListArray.from_arrays(flat, self._features)
        columns = [self._arrow.array(list(texts), self._arrow.string()), rows]
        self._writer.write_batch(self._arrow.record_batch(columns, schema=self._schema))

    def _end(self) -> None:
        self._writer.close()


_KINDS = {".npy": _NumpyFile, ".parquet": _ParquetFile}
