"""Trains a byte-level BPE, as GPT-2's, on texts."""

from collections.abc import Iterable

from mjx.data.tokenizers.huggingface import HuggingFaceTokenizer
from mjx.errors import InputError

END_OF_TEXT = "<|endoftext|>"


def train_bpe(texts: Iterable[str], vocab_size: int) -> HuggingFaceTokenizer:
    """The same texts give the same tokenizer. Any text can be encoded: the 256 bytes are part of the
    vocabulary.

    Args:
        texts: What the merges are learned from.
        vocab_size: With the bytes and the end-of-document token, which is id 0. Fewer come out where the
            texts have nothing more to merge.
    """
    if vocab_size < 257:
        raise InputError(
            f"vocab_size = {vocab_size} leaves no room for the 256 bytes and {END_OF_TEXT}; at least 257."
        )
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return HuggingFaceTokenizer(tokenizer, END_OF_TEXT, None, None)
