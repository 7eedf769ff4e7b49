"""`mjx verify`: a Hugging Face folder in mjx and in transformers, side by side."""

import dataclasses
import json
import os

import numpy as np
import pytest

from mjx.commands.verify import _Side, _summary

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder that transformers wrote."""
    transformers = pytest.importorskip("transformers", minversion="5")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**CONFIG, pad_token_id=0, initializer_range=0.2)
    folder = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.parity
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_folder_is_equal_in_both(side, llama, main_here, capsys):
    main_here(
        *("verify", llama, "--padding-side", side, "--rows", 3, "--length", 9, "--new-tokens", 5),
        *("--limit", 1e-5),
    )
    out = capsys.readouterr().out
    for words in ("logits", "most likely token", "loss", "gradient norm", "3 of 3 rows"):
        assert words in out
    assert "differs" not in out


@pytest.mark.parity
def test_a_mixture_of_experts_is_equal_in_both(tmp_path, main_here, capsys):
    transformers = pytest.importorskip("transformers", minversion="5")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    experts = {
        "num_experts": 5,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 2,
        "output_router_logits": True,
    }
    sizes = {name: value for name, value in CONFIG.items() if name not in ("architectures", "model_type")}
    config = transformers.Qwen2MoeConfig(
        **(sizes | experts),
        moe_intermediate_size=10,
        shared_expert_intermediate_size=12,
        initializer_range=0.2,
    )
    transformers.Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "theirs")
    main_here(
        *("verify", tmp_path / "theirs", "--rows", 3, "--length", 9, "--new-tokens", 5, "--limit", 1e-5),
    )
    assert "differs" not in capsys.readouterr().out


@pytest.mark.parity
@pytest.mark.parametrize(("kind", "side"), [("MT5", "left"), ("Bart", "right")])
def test_an_encoder_decoder_is_equal_in_both(kind, side, tmp_path, main_here, capsys):
    """mT5's head is the token table; BART has a bias of the logits, which is no parameter of its."""
    transformers = pytest.importorskip("transformers", minversion="5")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    sizes = {
        "MT5": {"d_kv": 6, "d_ff": 40, "num_heads": 4, "num_layers": 1, "num_decoder_layers": 2},
        "Bart": {
            **{"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 20},
            "init_std": 0.2,
        },
    }
    config = getattr(transformers, f"{kind}Config")(vocab_size=61, d_model=32, **sizes[kind])
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config)
    if kind == "Bart":
        model.final_logits_bias.normal_()
    model.save_pretrained(tmp_path / "theirs")
    main_here(
        *("verify", tmp_path / "theirs", "--padding-side", side, "--rows", 3, "--length", 9),
        *("--new-tokens", 5, "--limit", 1e-5),
    )
    out = capsys.readouterr().out
    for words in ("loss", "gradient norm", "3 of 3 rows"):
        assert words in out
    assert "differs" not in out


@pytest.mark.parity
def test_given_prompts_are_compared_and_a_limit_that_is_crossed_exits_with_1(
    llama, main_here, capsys, tmp_path
):
    (tmp_path / "prompts.json").write_text("[[0, 1, 2, 3, 60], [7, 0]]")
    with pytest.raises(SystemExit) as ended:
        main_here(
            *("verify", llama, "--prompt-file", tmp_path / "prompts.json", "--new-tokens", 0),
            *("--no-gradients", "--limit", 1e-12),
        )
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert "2 given rows of up to 5 tokens" in out
    assert "differs" in out
    assert "gradient norm" not in out


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_without_transformers_a_sentence_says_what_to_install(folder, refused, monkeypatch):
    absent = folder / "absent"
    absent.mkdir()
    (absent / "torch.py").write_text("raise ImportError('No module named torch')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(absent), os.environ.get("PYTHONPATH", "")]))
    assert "pip install 'mjx[parity]'" in refused("verify", folder)


def test_a_model_with_another_head_is_not_compared(folder, refused):
    (folder / "config.json").write_text(
        json.dumps({**CONFIG, "architectures": ["LlamaForSequenceClassification"]})
    )
    assert "holds a LlamaForSequenceClassification" in refused("verify", folder)


def test_a_decoder_without_a_start_token_is_not_compared(folder, refused):
    config = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "vocab_size": 61}
    (folder / "config.json").write_text(json.dumps({**config, "d_model": 32, "d_ff": 40, "num_layers": 1}))
    assert "config.json has decoder_start_token_id, so that it is not known" in refused("verify", folder)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [("[[1, 61]]", "has the token 61"), ("[1, 2]", "no list of lists"), ("[[1]]", "at least two tokens")],
)
def test_prompts_that_do_not_fit_are_refused(content, sentence, folder, refused):
    (folder / "prompts.json").write_text(content)
    assert sentence in refused("verify", folder, "--prompt-file", folder / "prompts.json")


def test_rows_that_are_too_long_for_learned_positions_are_refused(folder, refused):
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 61, "n_positions": 16}
    (folder / "config.json").write_text(json.dumps({**config, "n_embd": 32, "n_layer": 1, "n_head": 4}))
    said = refused("verify", folder, "--length", 10, "--new-tokens", 7)
    assert "rows of 10 tokens with 7 new ones do not fit the model, which has 16 positions" in said


def test_the_summary_tells_a_tie_from_a_difference():
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(2, 3, 7)).astype(np.float32)
    chosen_by = draw.normal(size=(2, 4, 7)).astype(np.float32)
    continuation = chosen_by.argmax(-1)
    side = _Side(logits, 2.0, 3.0, continuation)
    real = np.ones((2, 3), bool)

    def within(**changes) -> bool:
        return _summary(dataclasses.replace(side, **changes), side, real, chosen_by, 1e-4)[1]

    assert within()
    assert within(loss=2.0001)
    assert not within(loss=2.001)
    assert not within(gradient_norm=3.01)
    moved = logits.copy()
    moved[1, 2, 0] += 1e-3
    assert not within(logits=moved)

    other = continuation.copy()
    other[1, 2] = (other[1, 2] + 1) % 7
    assert not within(continuation=other)
    chosen_by[1, 2, other[1, 2]] = chosen_by[1, 2].max() - 1e-6
    assert within(continuation=other)
