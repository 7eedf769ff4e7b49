"""What a recipe says about its data."""

import dataclasses

from mjx.data.splits import parse_split
from mjx.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One `.bin`/`.idx` pair of a blend."""

    path: str
    """The files' path without `.bin` and `.idx`."""
    weight: float = 1.0
    """Samples taken from it, in proportion to the other sources' weights."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise InputError(f"weight = {self.weight} must be a positive number.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the tokens come from, and how samples are cut from them: either `corpus` or `sources`."""

    corpus: str | None = None
    """A text that comes with Python, prepared on first use: "python-docs"."""
    sources: tuple[SourceConfig, ...] = ()
    """`.bin`/`.idx` pairs, blended by their weights."""
    split: str = "969,30,1"
    """The shares of train, valid and test, applied to the documents of each source in order."""
    sequence_length: int = 1024
    """Tokens in a row."""
    seed: int = 1234
    """Of the order of documents and samples."""
    tokenizer: str | None = None
    """A tokenizer.json, *.model or *.tiktoken file, a folder with one, or "byte". Null: trained on the
    corpus; with sources, none, and then vocab_size must be given."""
    vocab_size: int | None = None
    """Corpus: the size of the tokenizer that is trained on it (4096 when null). Sources: token ids must be
    below it (the tokenizer's when null)."""
    cache_dir: str = "data-cache"
    """Where indices and prepared corpora are kept; on a cluster, a folder that all hosts see."""
    document_mask: bool = False
    """Documents in a row do not see each other (gives segment_ids). Megatron: --reset-attention-mask."""
    reset_positions: bool = False
    """Positions start at 0 in every document. Megatron: --reset-position-ids."""
    mask_eod_loss: bool = False
    """Do not learn what follows the end of a document. Megatron: --eod-mask-loss."""
    packing: bool = False
    """Rows of whole documents, filled up with padding, instead of windows of the token stream; each document
    is masked apart and has positions of its own."""
    prefetch: int = 2
    """Steps read ahead in the background; 0 reads each when it is asked for."""
    threads: int = 1
    """Threads that read ahead, each a step of its own."""

    @property
    def batch_extras(self) -> tuple[str, ...]:
        """The arrays that batches have and a model needs, besides tokens, labels and loss_mask."""
        positions = ("positions",) if self.reset_positions or self.packing else ()
        return positions + (("segment_ids",) if self.document_mask or self.packing else ())

    def __post_init__(self) -> None:
        if (self.corpus is None) == (not self.sources):
            raise InputError(
                f"corpus = {self.corpus} and sources = {[source.path for source in self.sources]}: give one "
                "of the two."
            )
        parse_split(self.split)
        for name, least in (("sequence_length", 2), ("prefetch", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} = {getattr(self, name)} must be at least {least}.")
        if self.vocab_size is not None and self.vocab_size < 1:
            raise InputError(f"vocab_size = {self.vocab_size} must be positive, or null.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed = {self.seed} must be from 0 to {2**32 - 1}.")
        if self.sources and self.tokenizer is None:
            if self.vocab_size is None:
                raise InputError("tokenizer = null and vocab_size = null: sources need one of the two.")
            for name in ("document_mask", "reset_positions", "mask_eod_loss"):
                if getattr(self, name):
                    raise InputError(
                        f"{name} = true needs a tokenizer, which knows the end-of-document token."
                    )
        if self.packing:
            for name in ("document_mask", "reset_positions", "mask_eod_loss"):
                if getattr(self, name):
                    raise InputError(
                        f"{name} = true is for windows of the token stream; packing = true implies it."
                    )
