"""Small tokenizers in the forms in which Hugging Face folders have them."""

import pytest
import tokenizer_kinds as kinds


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


@pytest.fixture
def bpe_folder(tmp_path):
    kinds.bpe(tmp_path)
    return tmp_path


@pytest.fixture
def merges_folder(bpe_folder):
    kinds.split(bpe_folder)
    return bpe_folder


@pytest.fixture
def sentencepiece_folder(tmp_path):
    kinds.sentencepiece(tmp_path)
    return tmp_path


@pytest.fixture
def metaspace_folder(tmp_path):
    kinds.metaspace(tmp_path)
    return tmp_path


@pytest.fixture
def word_piece_folder(tmp_path):
    kinds.word_piece(tmp_path)
    return tmp_path
