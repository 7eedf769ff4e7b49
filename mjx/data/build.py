"""Text files → `.bin`/`.idx`, equal byte for byte to what Megatron's preprocessing writes."""

import collections
import concurrent.futures
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from mjx.data.documents import BadLines, read_documents
from mjx.data.indexed import LONGEST_SENTENCE, IndexedDatasetWriter, dataset_prefix, token_dtype
from mjx.data.sentences import load_splitter, split_sentences
from mjx.data.tokenizers import Tokenizer, load_tokenizer
from mjx.errors import InputError

_BATCH_CHARACTERS = 1 << 20
_BATCH_DOCUMENTS = 4096

Progress = Callable[[int, int], None]
"""Called now and then with the documents and tokens written so far."""


def build_dataset(
    inputs: Sequence[str | os.PathLike[str]],
    prefix: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    key: str = "text",
    blank_line_separated: bool = False,
    append_eod: bool | None = None,
    sentences: str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
    bad_lines: BadLines | None = None,
) -> tuple[int, int]:
    """Turns text files into PREFIX.bin and PREFIX.idx; returns the documents and tokens written.

    Args:
        inputs: As `find_files` takes them: .txt (a document each), JSON (a document an object) or Parquet (a
            document a row).
        prefix: Of the files to write.
        tokenizer: Makes the tokens; its vocabulary decides whether they are stored in 2 bytes or 4.
        key: The key of the text in a JSON object, the column of the text in a Parquet file.
        blank_line_separated: A .txt file holds many documents, with blank lines between them.
        append_eod: End each document with the tokenizer's end-of-document token; None: where it is not split.
        sentences: The language ("en") by whose rules documents are split into sentences, each a sequence of
            the `.idx`; None: a document is one sequence.
        workers: Processes that tokenize. The tokenizers of libraries use all cores with 1; more pay off for
            gigabytes on many cores, and ask for a script whose work is under `if __name__ == "__main__"`.
        progress: Called as the work goes on.
        bad_lines: What is done with lines that cannot be read (None: the first is an error).

    Raises:
        InputError: names the file and the line of what cannot be read.
    """
    texts = read_documents(inputs, key=key, blank_line_separated=blank_line_separated, bad_lines=bad_lines)
    return write_documents(
        texts,
        prefix,
        tokenizer,
        append_eod=append_eod,
        sentences=sentences,
        workers=workers,
        progress=progress,
    )


def write_documents(
    texts: Iterable[str],
    prefix: str | os.PathLike[str],
    tokenizer: Tokenizer,
    *,
    append_eod: bool | None = None,
    sentences: str | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """As `build_dataset`, from texts."""
    if append_eod is None:
        append_eod = sentences is None
    if sentences is not None:
        load_splitter()  # before anything is read
    if append_eod and tokenizer.eod_id is None:
        raise InputError(
            "the tokenizer has no end-of-document token to end documents with; leave it out (--no-eod, "
            "append_eod=False)"
        )
    eod, prefix = tokenizer.eod_id if append_eod else None, dataset_prefix(prefix)
    documents, too_long = 0, 0
    with IndexedDatasetWriter(prefix, token_dtype(tokenizer.vocab_size)) as writer:
        batches = _batches(texts)
        if workers > 1:
            encoded = _encode_in_processes(batches, tokenizer, eod, sentences, workers)
        else:
            encoded = (_encode(tokenizer, batch, eod, sentences) for batch in batches)
        for tokens, lengths, sequences in encoded:
            writer.add_documents(tokens, lengths, sequences)
            documents += len(sequences)
            longest = np.maximum.reduceat(np.append(lengths, 0), np.cumsum(sequences) - sequences)
            too_long += int(((longest > LONGEST_SENTENCE) & (sequences > 1)).sum())
            if progress is not None:
                progress(documents, writer.num_tokens)
        if not documents:
            raise InputError(f"There is no document to write into {prefix}.bin: the input is empty.")
    if too_long:
        logging.getLogger("mjx").warning(
            "%d of %d documents have a sentence of more than %d tokens, and are left out where tokens are "
            "hidden (do the sentences end?)",
            too_long,
            documents,
            LONGEST_SENTENCE,
        )
    return documents, writer.num_tokens


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


Encoded = tuple[Int[np.ndarray, "tokens"], Int[np.ndarray, "sequences"], Int[np.ndarray, "documents"]]
"""Tokens end to end, how many each sequence has, and how many sequences each document."""


def _encode(tokenizer: Tokenizer, texts: list[str], eod: int | None, sentences: str | None) -> Encoded:
    """An empty text stays empty, without eod."""
    sequences = np.ones(len(texts), np.int64)
    if sentences is not None:
        split = [split_sentences(text, sentences) for text in texts]
        sequences = np.array([len(parts) or 1 for parts in split])
        texts = [part for parts in split for part in parts or [""]]
    encoded = tokenizer.encode_batch(texts)
    if eod is not None:
        end = 0
        for count in sequences.tolist():
            begin, end = end, end + count
            some = [ids for ids in encoded[begin:end] if ids]
            if some:
                some[-1].append(eod)
    lengths = np.array([len(ids) for ids in encoded], np.int64)
    tokens = np.empty(int(lengths.sum()), np.int32)
    place = 0
    for ids in encoded:
        tokens[place : place + len(ids)] = ids
        place += len(ids)
    return tokens, lengths, sequences


_worker_tokenizer: Tokenizer


def _start_worker(folder: str) -> None:
    global _worker_tokenizer
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    _worker_tokenizer = load_tokenizer(folder)


def _encode_in_worker(texts: list[str], eod: int | None, sentences: str | None) -> Encoded:
    return _encode(_worker_tokenizer, texts, eod, sentences)


def _encode_in_processes(
    batches: Iterator[list[str]], tokenizer: Tokenizer, eod: int | None, sentences: str | None, workers: int
) -> Iterator[Encoded]:
    """`_encode` of each batch, in order; few are in flight, so memory does not grow with the input."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), initializer=_start_worker, initargs=(folder,)
        )
        with pool:
            waiting: collections.deque[concurrent.futures.Future] = collections.deque()
            try:
                for batch in batches:
                    waiting.append(pool.submit(_encode_in_worker, batch, eod, sentences))
                    if len(waiting) >= 2 * workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
