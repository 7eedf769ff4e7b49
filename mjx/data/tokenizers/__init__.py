"""Text ↔ token ids, by whichever tokenizer a model was made with."""

from mjx.data.tokenizers.chat_template import ChatTemplate
from mjx.data.tokenizers.continuation import decode_continuation
from mjx.data.tokenizers.load import fingerprint, load_tokenizer
from mjx.data.tokenizers.protocol import Tokenizer
from mjx.data.tokenizers.train import train_bpe, train_word_pieces

__all__ = [
    "ChatTemplate",
    "Tokenizer",
    "decode_continuation",
    "fingerprint",
    "load_tokenizer",
    "train_bpe",
    "train_word_pieces",
]
