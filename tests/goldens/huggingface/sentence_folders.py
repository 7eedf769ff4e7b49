"""Tiny folders that sentence-transformers has written, and its embeddings of some texts.

Run: python tests/goldens/huggingface/sentence_folders.py (with sentence-transformers 6, on a CPU). It writes
sentence_folders/CASE/ and sentence_folders/expected.npz.
"""

import shutil
import sys
from pathlib import Path

FOLDER = Path(__file__).with_name("sentence_folders")
TEXTS = (
    "the mesh of the model",
    "Every AXIS of the mesh has a name; the rules say where it lives, and the loss stays the same.",
    "",
    "shard",
    "naïve words, 3.14 and (unknown) signs: ∂x!",
    "the loss of the step, " * 12,
    "Attention sees a token",
)
CASES = ("mean", "cls, dense", "max", "local, cut", "joined, prompt")
"""BERT: mean, of length 1. BERT: the first state, two layers behind it. RoBERTa: the maximum. ModernBERT:
the mean of at most 24 tokens. BERT: five ways joined, small letters, and a prompt."""
WORDS = [
    "the",
    "mesh",
    "of",
    "model",
    "every",
    "axis",
    "has",
    "a",
    "name",
    ";",
    "rules",
    "say",
    "where",
    "it",
    "lives",
    ",",
    "and",
    "loss",
    "stays",
    "same",
    ".",
    "shard",
    "words",
    "(",
    ")",
    ":",
    "!",
    "step",
    "attention",
    "sees",
    "token",
    "-",
    "3",
    "1",
    "4",
    "Every",
    "AXIS",
    "Attention",
]


def main() -> None:
    import numpy as np
    import sentence_transformers as st
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"vocab_size": 5 + len(WORDS) + 26, "max_position_embeddings": 80, "initializer_range": 0.3}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    roberta = transformers.RobertaModel(
        transformers.RobertaConfig(**sizes, type_vocab_size=1, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    )
    modern = transformers.ModernBertModel(
        transformers.ModernBertConfig(
            **sizes,
            **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
            **{"local_attention": 8, "global_attn_every_n_layers": 2},
            attn_implementation="eager",
        )
    )
    modules = __import__("sentence_transformers.models", fromlist=["Pooling"])
    five = ("cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    dense = [modules.Dense(16, 24), modules.Dense(24, 8, bias=False, activation_function=torch.nn.Identity())]
    cases = (
        (bert, {}, [modules.Pooling(16, pooling_mode="mean"), modules.Normalize()], {}),
        (bert, {}, [modules.Pooling(16, pooling_mode="cls"), *dense, modules.Normalize()], {}),
        (roberta, {}, [modules.Pooling(16, pooling_mode="max")], {}),
        (modern, {"max_seq_length": 24}, [modules.Pooling(16, pooling_mode="mean")], {}),
        (
            *(bert, {"do_lower_case": True}, [modules.Pooling(16, pooling_mode=five)]),
            {"prompts": {"query": "sees : "}, "default_prompt_name": "query"},
        ),
    )
    shutil.rmtree(FOLDER, ignore_errors=True)
    found = {}
    for name, (encoder, options, behind, prompts) in zip(CASES, cases, strict=True):
        folder = FOLDER / name.replace(", ", "-")
        encoder.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        transformer = modules.Transformer(str(folder), **options)
        model = st.SentenceTransformer(modules=[transformer, *behind], device="cpu", **prompts)
        model.save(str(folder))
        (folder / "README.md").unlink()
        found[name] = st.SentenceTransformer(str(folder), device="cpu").encode(list(TEXTS))
    np.savez_compressed(FOLDER / "expected.npz", **found)
    print(st.__version__, {name: each.shape for name, each in found.items()}, file=sys.stderr)


def tokenizer():
    """Word pieces, most of which are letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [f"##{chr(letter)}" for letter in range(ord("a"), ord("z") + 1)]
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *WORDS, *letters]
    pieces = Tokenizer(models.WordPiece({word: at for at, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    pieces.normalizer = normalizers.NFD()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = ("pad_token", "cls_token", "sep_token", "unk_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **dict(zip(names, vocabulary, strict=False)))


if __name__ == "__main__":
    main()
