"""Small tokenizers in the forms in which Hugging Face folders have them."""

import json

import pytest
from sentencepiece_model import train_sentencepiece

from mjx.data.tokenizers import train_bpe


@pytest.fixture(scope="session")
def samples():
    """What every tokenizer is tried on."""
    return [
        "The quick brown fox jumps over the lazy dog.",
        "  two  spaces\tand a tab\n\nand lines",
        "What's 12345 + 6,789? It's n't so .",
        "Ünïcödé 数字 🙂",
        " leading space",
        "",
        "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] Hi [/INST]</s><s> more",
        "the <tool> is <|endoftext|> here",
    ]


@pytest.fixture(scope="session")
def corpus():
    words = (
        "the",
        "fox",
        "dog",
        "user",
        "assistant",
        "space",
        "lines",
        "there",
        "[INST]",
        "[/INST]",
        "12",
        "345",
    )
    return [f"{a} {b}s and {c}, what's {a}{c}? ({b})" for a in words for b in words for c in words[:4]]


@pytest.fixture
def bpe_folder(tmp_path, corpus):
    """tokenizer.json and tokenizer_config.json of a byte-level BPE, <|endoftext|> being token 0."""
    train_bpe(corpus, 400).save(tmp_path)
    return tmp_path


@pytest.fixture
def merges_folder(bpe_folder):
    """The same BPE as vocab.json and merges.txt."""
    content = json.loads((bpe_folder / "tokenizer.json").read_text())
    (bpe_folder / "vocab.json").write_text(json.dumps(content["model"]["vocab"]))
    lines = [" ".join(merge) for merge in content["model"]["merges"]]
    (bpe_folder / "merges.txt").write_text("\n".join(["#version: 0.2", *lines, ""]), encoding="utf-8")
    (bpe_folder / "tokenizer.json").unlink()
    (bpe_folder / "tokenizer_config.json").unlink()
    return bpe_folder


@pytest.fixture
def sentencepiece_folder(tmp_path, corpus):
    """tokenizer.model as Llama's: BPE with bytes, <unk> <s> </s>."""
    train_sentencepiece(tmp_path, corpus, 400)
    return tmp_path


@pytest.fixture
def metaspace_folder(tmp_path, corpus):
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
    tokenizer.train_from_iterator((word for text in corpus[:60] for word in text.split()), trainer)
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
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.fixture
def word_piece_folder(tmp_path, corpus):
    """tokenizer.json as BERT's: word pieces between [CLS] and [SEP]."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        corpus, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]", "pad_token": "[PAD]"}
    config |= {"clean_up_tokenization_spaces": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path
