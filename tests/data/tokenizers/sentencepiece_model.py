"""A tokenizer.model as Llama's."""

from collections.abc import Iterable
from pathlib import Path


def train_sentencepiece(folder: Path, texts: Iterable[str], vocab_size: int) -> Path:
    """BPE with bytes, <unk> <s> </s>, in `folder`/tokenizer.model."""
    import sentencepiece

    (folder / "texts.txt").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=vocab_size,
        byte_fallback=True,
        model_type="bpe",
        hard_vocab_limit=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    (folder / "texts.txt").unlink()
    (folder / "tokenizer.vocab").unlink()
    return folder / "tokenizer.model"
