"""Trains a byte-level BPE, as GPT-2's, or word pieces, as BERT's, on texts."""

import collections
from collections.abc import Iterable, Sequence

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
_ALPHABET = 200
"""Characters that are pieces; a word with another one is unknown."""


def train_word_pieces(texts: Sequence[str], vocab_size: int) -> HuggingFaceTokenizer:
    """Word pieces of texts, with letters as they are, and all special tokens of encoders and of
    encoder-decoders: [PAD] is id 0, and 100 sentinels `<extra_id_0>`, … follow the others. The same texts
    give the same tokenizer.

    Args:
        texts: What the pieces are learned from.
        vocab_size: With the special tokens. Fewer come out where the texts have nothing more to join.
    """
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(lowercase=False)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words = collections.Counter(
        word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))
    )
    counts: collections.Counter[str] = collections.Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    alphabet = sorted(sorted(counts), key=counts.__getitem__, reverse=True)[:_ALPHABET]
    within = {character for word in words for character in word[1:]}.intersection(alphabet)
    special = [*_SPECIAL, *(SENTINEL.format(number) for number in range(_SENTINELS))]
    # The trainer would number characters in an order of its own, another in each process, and join the
    # pieces of one frequency in the order of their numbers.
    first = [*special, *sorted(alphabet), *(f"##{character}" for character in sorted(within))]
    if vocab_size < len(first):
        raise InputError(
            f"vocab_size = {vocab_size} leaves too little room beside {len(special)} special tokens and "
            f"{len(first) - len(special)} characters; at least {len(first)}."
        )
    learned = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learned.normalizer, learned.pre_tokenizer = normalizer, pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learned.train_from_iterator(texts, trainer)
    vocabulary = learned.get_vocab()
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return HuggingFaceTokenizer(
        tokenizer, "[EOS]", "[BOS]", "[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"
    )
