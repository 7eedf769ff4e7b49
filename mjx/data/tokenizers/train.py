"""Trains a byte-level BPE, as GPT-2's, or word pieces, as BERT's, on texts."""

from collections.abc import Iterable

from mjx.data.tokenizers.huggingface import HuggingFaceTokenizer
from mjx.data.tokenizers.special import SENTINEL
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


_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[BOS]", "[EOS]")
_SENTINELS = 100


def train_word_pieces(texts: Iterable[str], vocab_size: int) -> HuggingFaceTokenizer:
    """Word pieces of texts, with letters as they are, and all special tokens of encoders and of
    encoder-decoders: [PAD] is id 0, and 100 sentinels `<extra_id_0>`, … follow the others.

    Args:
        texts: What the pieces are learned from.
        vocab_size: With the special tokens. Fewer come out where the texts have nothing more to join.
    """
    special = [*_SPECIAL, *(SENTINEL.format(number) for number in range(_SENTINELS))]
    if vocab_size < 2 * len(special):
        raise InputError(
            f"vocab_size = {vocab_size} leaves too little room beside {len(special)} special tokens; at "
            f"least {2 * len(special)}."
        )
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=special, limit_alphabet=200, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return HuggingFaceTokenizer(
        tokenizer, "[EOS]", "[BOS]", "[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )
