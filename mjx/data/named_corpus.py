"""A corpus by its name → tokenizer and `.bin`/`.idx`, once per machine."""

import dataclasses
import hashlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path

from mjx.data.build import write_documents
from mjx.data.cache import build_once
from mjx.data.corpora import corpus
from mjx.data.indexed import IndexedDataset
from mjx.data.sentences import LANGUAGE, load_splitter
from mjx.data.tokenizers import Tokenizer, fingerprint, load_tokenizer, train_bpe, train_word_pieces

DEFAULT_VOCAB_SIZE = 4096

_FORMAT = 1
"""Part of the cache key: raised when a corpus or its making changes."""


@dataclasses.dataclass(frozen=True)
class PreparedCorpus:
    tokens: IndexedDataset
    tokenizer: Tokenizer


def prepare_corpus(
    name: str,
    cache_dir: str | os.PathLike[str],
    *,
    vocab_size: int | None = None,
    tokenizer: Tokenizer | None = None,
    sentences: bool = False,
    timeout: float = 600.0,
) -> PreparedCorpus:
    """Gathers a corpus, trains a tokenizer on it (byte-level BPE), and writes its tokens; later calls only
    open the files.

    Processes that start together wait for the first of them.

    Args:
        name: Of the corpus.
        cache_dir: Where the files are kept.
        vocab_size: Of the tokenizer that is trained.
        tokenizer: Used instead of a trained one.
        sentences: Split the documents into sentences, and train word pieces.
        timeout: Seconds to wait for another process.
    """
    vocab_size = DEFAULT_VOCAB_SIZE if vocab_size is None else vocab_size
    key = {
        "format": _FORMAT,
        "corpus": name,
        "python": list(sys.version_info[:3]),
        "tokenizer": ["bpe", vocab_size, metadata.version("tokenizers")]
        if tokenizer is None
        else fingerprint(tokenizer),
    }
    if sentences:
        load_splitter()
        key["sentences"] = metadata.version("sentencex")
    text = json.dumps(key, indent=2, sort_keys=True)

    def build(folder: Path) -> None:
        documents = corpus(name)
        train = train_word_pieces if sentences else train_bpe
        used = train(documents, vocab_size) if tokenizer is None else tokenizer
        used.save(folder)
        write_documents(documents, folder / "text", used, sentences=LANGUAGE if sentences else None)
        (folder / "description.json").write_text(text, encoding="utf-8")

    def open_(folder: Path) -> PreparedCorpus:
        tokens = IndexedDataset(folder / "text")
        return PreparedCorpus(tokens, load_tokenizer(folder) if tokenizer is None else tokenizer)

    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return build_once(Path(cache_dir) / f"corpus-{name}-{digest}", build, open_, timeout)
