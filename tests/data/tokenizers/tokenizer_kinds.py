"""Small tokenizers of every kind, in the files in which they are published."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

from sentencepiece_model import train_sentencepiece

from mjx.data.tokenizers import train_bpe

_WORDS = (
    *("the", "fox", "dog", "user", "assistant", "space", "lines", "there"),
    *("[INST]", "[/INST]", "12", "345"),
)
CORPUS = [f"{a} {b}s and {c}, what's {a}{c}? ({b})" for a in _WORDS for b in _WORDS for c in _WORDS[:4]]


def bpe(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE, <|endoftext|> being token 0."""
    train_bpe(CORPUS, 400).save(folder)


def merges(folder: Path) -> None:
    """The same BPE as vocab.json and merges.txt."""
    bpe(folder)
    split(folder)


def split(folder: Path) -> None:
    """tokenizer.json as vocab.json and merges.txt, in its place."""
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    lines = [" ".join(merge) for merge in content["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()


def sentencepiece(folder: Path) -> None:
    """tokenizer.model as Llama's: BPE with bytes, <unk> <s> </s>."""
    train_sentencepiece(folder, CORPUS, 400)


def extended_sentencepiece(folder: Path) -> None:
    """The same with tokens that its folder adds, and an id between them that no token has."""
    sentencepiece(folder)
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    added = {"410": {"content": "<|im_end|>", "special": True, **flags}}
    added["412"] = {"content": "<tool>", "special": False, **flags}
    config = {"added_tokens_decoder": added, "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def metaspace(folder: Path) -> None:
    """tokenizer.json as Llama-2's: BPE over ▁ with bytes, <unk> <s> </s>, prompts that begin with <s>."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        show_progress=False,
        max_token_length=12,
        initial_alphabet=[f"<0x{byte:02X}>" for byte in range(256)],
    )
    tokenizer.train_from_iterator((word for text in CORPUS[:60] for word in text.split()), trainer)
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", len(vocabulary))
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A"], special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def word_piece(folder: Path) -> None:
    """tokenizer.json as BERT's: word pieces between [CLS] and [SEP]."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]", "pad_token": "[PAD]"}
    config |= {"clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def tiktoken(folder: Path, count: int = 50256, name: str = "gpt2.tiktoken") -> Path:
    """A file of so many ranks, which says of which published encoding it is: 50256 are GPT-2's."""
    tokens = [bytes([byte]) for byte in range(256)] + [b"th", b"the", b" the", b"lo", b"Hel", b"Hello"]
    tokens += [b"\xff\xff" + number.to_bytes(3, "big") for number in range(count - len(tokens))]
    lines = [base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens)]
    (folder / name).write_bytes(b"".join(lines))
    return folder / name


KINDS: dict[str, Callable[[Path], object]] = {
    "byte": lambda folder: (folder / "byte_tokenizer.json").write_text("{}"),
    "bpe": bpe,
    "merges": merges,
    "sentencepiece": sentencepiece,
    "extended sentencepiece": extended_sentencepiece,
    "metaspace": metaspace,
    "word piece": word_piece,
    "tiktoken": tiktoken,
}
"""Kind → what writes its files into a folder."""
