"""Encoder-decoders against transformers: the goldens hold some of the logits and of the encoder's states."""

import contextlib
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from oracles.difference import Scale, difference
from oracles.huggingface import compare_folder

from mjx.errors import InputError
from mjx.models.common.parameter import bind
from mjx.models.common.token_model.inputs import Inputs
from mjx.models.huggingface import from_pretrained, save_pretrained
from mjx.models.huggingface.tensor_writer import TensorWriter
from mjx.models.interop.architectures import find_architecture, fitting_architecture
from mjx.models.t5 import PUBLISHED, T5Config
from mjx.models.t5.config_keys import canonical
from mjx.sharding import MeshConfig, ShardingConfig, build_mesh, use_mesh

STRICT = Scale(limit=1e-5, scale=1.0)
GOLDENS = Path(__file__).parents[2] / "goldens" / "huggingface"


def script(name: str):
    """A module that stands beside the goldens."""
    spec = importlib.util.spec_from_file_location(name, GOLDENS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


variants, goldens = script("variants"), script("encoder_decoders")
with np.load(GOLDENS / "encoder_decoders.npz") as file:
    GOLDEN = dict(file)
CASES = [case for case in goldens.CASES if case != "llama"]


def ours(theirs: dict) -> T5Config:
    family, architecture = find_architecture(theirs)
    assert family == "t5"
    return architecture.config.to_ours(theirs, "config.json")


def write_checkpoint(folder: Path, case: str, copies: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """The folder of a case, with `copies` of tensors besides; returns its weights without them."""
    config = goldens.config_of(case)
    _, architecture = find_architecture(config)
    shapes = architecture.name_map(ours(config)).theirs
    shapes = {name: shape for name, shape in shapes.items() if name != goldens.LACKING.get(case)}
    weights = variants.weights_of(config["model_type"], shapes, list(goldens.CASES).index(case))
    written = weights | {name: weights[of] for name, of in (copies or {}).items()}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    with TensorWriter(folder, {name: (each.shape, each.dtype) for name, each in written.items()}) as writer:
        for name, each in written.items():
            writer.write(name, each)
    return weights


@pytest.mark.parametrize("case", CASES)
def test_logits_and_states_equal_those_of_transformers(case, tmp_path):
    weights = write_checkpoint(tmp_path, case)
    assert (
        variants.fingerprint({name: each.shape for name, each in weights.items()})
        == GOLDEN[f"{case}/tensors"]
    )
    model = from_pretrained(tmp_path)
    lacking = 61 if goldens.LACKING.get(case) == "final_logits_bias" else 0
    assert model.config.num_parameters() == sum(each.size for each in weights.values()) + lacking
    computed = computed_of(model, case)
    for name in ("logits", "states"):
        found = difference(
            name, computed[name], GOLDEN[f"{case}/{name}"], STRICT, computed.get(f"{name} real")
        )
        assert found.within, found.sentence


def computed_of(model, case: str) -> dict[str, np.ndarray]:
    """What the goldens hold; states of padding mean nothing."""
    tokens, mask, decoder_tokens = (each.astype(np.int32) for each in goldens.inputs_of(case))
    bound = bind(model.definition, model.parameters)
    with contextlib.nullcontext() if model.mesh is None else use_mesh(model.mesh, model.rules):
        logits = bound(tokens, decoder_tokens, segment_ids=mask)
        states = bound.encode(Inputs(tokens, segment_ids=mask))[0].states
    states = np.asarray(states)[:, ::2, ::3]
    real = np.broadcast_to(mask[:, ::2, None].astype(bool), states.shape)
    return {"logits": np.asarray(logits)[:, ::2, ::3], "states": states, "states real": real}


def assert_equal(found: dict, expected: dict[str, np.ndarray], case: str) -> None:
    """To 1e-5, states where there is no padding."""
    _, mask, _ = goldens.inputs_of(case)
    for name, theirs in expected.items():
        where = np.broadcast_to(mask[:, ::2, None] > 0, theirs.shape) if name.startswith("encoder_") else None
        ours = np.asarray(found[name])[:, ::2, ::3] if theirs.ndim else np.asarray(found[name])
        apart = difference(name, ours, theirs, STRICT, where)
        assert apart.within, apart.sentence


@pytest.mark.parametrize("case", ["t5", "t5, gated", "bart", "mt5, without a head"])
def test_outputs_by_their_names_equal_those_of_transformers(case, tmp_path):
    write_checkpoint(tmp_path, case)
    model = from_pretrained(tmp_path)
    tokens, mask, decoder_tokens = goldens.inputs_of(case)
    states = {"encoder_last_hidden_state": GOLDEN[f"{case}/states"]}
    read = {"input_ids": tokens, "attention_mask": mask}
    found = model.outputs(**read, decoder_input_ids=decoder_tokens)
    assert_equal(found, {"logits": GOLDEN[f"{case}/logits"], **states}, case)
    assert found["last_hidden_state"].shape == (3, 7, 32)
    again = model.outputs(
        encoder_outputs=(found["encoder_last_hidden_state"],),
        attention_mask=mask,
        decoder_input_ids=decoder_tokens,
        decoder_attention_mask=np.ones_like(decoder_tokens),
    )
    assert_equal(again, {"logits": GOLDEN[f"{case}/logits"]}, case)
    called = model(tokens, decoder_tokens, attention_mask=mask)
    np.testing.assert_array_equal(called, found["logits"])
    labelled = model.outputs(**read, labels=goldens.labels_of(case))
    expected = {"loss": GOLDEN[f"{case}/loss"], "logits": GOLDEN[f"{case}/logits of labels"], **states}
    assert_equal(labelled, expected, case)


def test_tokens_of_the_encoder_alone_give_its_states_or_what_bart_s_decoder_makes_of_them(tmp_path):
    for case in ("t5", "bart"):
        write_checkpoint(tmp_path / case, case)
    tokens, mask, _ = goldens.inputs_of("t5")
    found = from_pretrained(tmp_path / "t5").outputs(input_ids=tokens, attention_mask=mask)
    assert list(found) == ["encoder_last_hidden_state"]
    bart = from_pretrained(tmp_path / "bart")
    behind = np.concatenate([np.full((3, 1), 2), tokens[:, :-1]], axis=1)
    given = bart.outputs(input_ids=tokens, decoder_input_ids=behind)
    np.testing.assert_array_equal(bart.outputs(input_ids=tokens)["logits"], given["logits"])


def test_a_mesh_that_divides_neither_side_gives_the_same_outputs(tmp_path):
    write_checkpoint(tmp_path, "bart")
    mesh = build_mesh(MeshConfig(data=1, fsdp=2, context=2, tensor=2))
    model = from_pretrained(tmp_path, mesh=mesh)
    tokens, mask, decoder_tokens = goldens.inputs_of("bart")
    found = model.outputs(input_ids=tokens, attention_mask=mask, decoder_input_ids=decoder_tokens)
    assert found["logits"].shape == (3, 7, 61)
    assert found["encoder_last_hidden_state"].shape == (3, 11, 32)
    states = GOLDEN["bart/states"]
    assert_equal(found, {"logits": GOLDEN["bart/logits"], "encoder_last_hidden_state": states}, "bart")
    again = model.outputs(
        encoder_outputs={"last_hidden_state": found["encoder_last_hidden_state"]},
        attention_mask=mask,
        decoder_input_ids=decoder_tokens,
    )
    assert_equal(again, {"logits": GOLDEN["bart/logits"]}, "bart")


def test_inputs_that_do_not_fit_are_named(tmp_path):
    write_checkpoint(tmp_path, "t5")
    model = from_pretrained(tmp_path)
    tokens = np.ones((1, 4), np.int32)
    with pytest.raises(
        InputError, match="the model needs input_ids or encoder_outputs; it takes input_ids, att"
    ):
        model.outputs(decoder_input_ids=tokens)
    with pytest.raises(InputError, match=r"encoder_outputs are of the shape \(1, 4\), which should be batch"):
        model.outputs(encoder_outputs=tokens, decoder_input_ids=tokens)
    with pytest.raises(InputError, match="has an encoder, which reads tokens; give decoder_tokens too"):
        model(tokens)
    with pytest.raises(InputError, match="decoder_attention_mask and decoder_segment_ids are both given"):
        model(tokens, tokens, decoder_attention_mask=tokens, decoder_segment_ids=tokens)
    model.source = None
    with pytest.raises(InputError, match="the decoder's tokens follow from labels where config"):
        model.outputs(input_ids=tokens, labels=tokens)


@pytest.mark.parametrize("case", [case for case in CASES if goldens.LACKING.get(case) != "final_logits_bias"])
def test_config_and_tensors_survive_the_way_back(case, tmp_path):
    weights = write_checkpoint(tmp_path / "theirs", case)
    model = from_pretrained(tmp_path / "theirs")
    kind = case.partition(",")[0]
    written = fitting_architecture(model.config, kind)
    save_pretrained(model, tmp_path / "ours")
    files = (tmp_path / name / "model.safetensors" for name in ("theirs", "ours"))
    assert len({file.read_bytes() for file in files}) == 1
    again = written.told(ours(written.config.to_theirs(model.config) | {"model_type": kind}), tuple(weights))
    assert canonical(again) == canonical(model.config)
    back = written.name_map(model.config).to_theirs(model.parameters)
    assert {name: each.tobytes() for name, each in back.items()} == {
        name: each.tobytes() for name, each in weights.items()
    }


def test_a_tied_table_may_be_there_under_its_other_names(tmp_path):
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    write_checkpoint(tmp_path / "copies", "t5", dict.fromkeys(names, "shared.weight"))
    write_checkpoint(tmp_path / "alone", "t5")
    one, other = (from_pretrained(tmp_path / name).parameters for name in ("copies", "alone"))
    np.testing.assert_array_equal(one["embedding"]["weight"], other["embedding"]["weight"])


def test_a_head_that_is_said_to_be_the_table_and_is_not_is_refused(tmp_path):
    write_checkpoint(tmp_path, "bart", {"lm_head.weight": "final_logits_bias"})
    with pytest.raises(InputError, match=r"lm_head\.weight differs from model\.shared\.weight"):
        from_pretrained(tmp_path)


def test_a_mesh_gives_the_same_numbers(tmp_path):
    write_checkpoint(tmp_path, "t5")
    mesh = build_mesh(MeshConfig(fsdp=1, tensor=4), jax.devices()[:4])
    model = from_pretrained(tmp_path, mesh, ShardingConfig(sequence_parallel=False).build())
    computed = computed_of(model, "t5")
    found = difference("logits", computed["logits"], GOLDEN["t5/logits"], STRICT)
    assert found.within, found.sentence


def test_a_case_is_compared_whole(tmp_path):
    """By the row that `tests/parity.py` compares cases with."""
    write_checkpoint(tmp_path, "t5")
    tokens, mask, decoder_tokens = goldens.inputs_of("t5")
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    inputs = dict(zip(names, (tokens, mask, decoder_tokens), strict=True))
    bound = bind((model := from_pretrained(tmp_path)).definition, model.parameters)
    logits = np.array(bound(tokens, decoder_tokens, segment_ids=mask))
    assert not compare_folder(tmp_path, inputs, {"logits": logits}).failures()
    logits[1, 3, 5] += 1e-3
    assert len(compare_folder(tmp_path, inputs, {"logits": logits}).failures()) == 1


T5_SMALL = {
    **{"architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 512},
    **{"decoder_start_token_id": 0, "dropout_rate": 0.1, "eos_token_id": 1, "initializer_factor": 1.0},
    **{"is_encoder_decoder": True, "layer_norm_epsilon": 1e-6, "model_type": "t5", "n_positions": 512},
    **{"num_heads": 8, "num_layers": 6, "output_past": True, "pad_token_id": 0, "vocab_size": 32128},
    **{"relative_attention_num_buckets": 32, "task_specific_params": {"summarization": {"num_beams": 4}}},
}
"""As the hub has it."""
T5_BASE = {**T5_SMALL, "d_ff": 3072, "d_model": 768, "num_heads": 12, "num_layers": 12}
MT5_SMALL = {
    **{"architectures": ["MT5ForConditionalGeneration"], "d_ff": 1024, "d_kv": 64, "d_model": 512},
    **{
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
    },
    **{"initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-6},
    **{"model_type": "mt5", "num_decoder_layers": 8, "num_heads": 6, "num_layers": 8, "pad_token_id": 0},
    **{"relative_attention_num_buckets": 32, "tie_word_embeddings": False, "tokenizer_class": "T5Tokenizer"},
    **{"transformers_version": "4.10.0.dev0", "use_cache": True, "vocab_size": 250112},
}
FLAN_T5_BASE = {
    **{"architectures": ["T5ForConditionalGeneration"], "d_ff": 2048, "d_kv": 64, "d_model": 768},
    **{
        "decoder_start_token_id": 0,
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
    },
    **{"initializer_factor": 1.0, "is_encoder_decoder": True, "layer_norm_epsilon": 1e-6, "model_type": "t5"},
    **{"n_positions": 512, "num_decoder_layers": 12, "num_heads": 12, "num_layers": 12, "output_past": True},
    **{"pad_token_id": 0, "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32},
    **{"tie_word_embeddings": False, "transformers_version": "4.23.1", "use_cache": True},
    "vocab_size": 32128,
}
BART_LARGE_CNN = {
    **{"_num_labels": 3, "activation_dropout": 0.0, "activation_function": "gelu", "add_bias_logits": False},
    **{"add_final_layer_norm": False, "architectures": ["BartForConditionalGeneration"], "bos_token_id": 0},
    **{"attention_dropout": 0.0, "classif_dropout": 0.0, "classifier_dropout": 0.0, "d_model": 1024},
    **{"decoder_attention_heads": 16, "decoder_ffn_dim": 4096, "decoder_layerdrop": 0.0},
    **{"decoder_layers": 12, "decoder_start_token_id": 2, "dropout": 0.1, "early_stopping": True},
    **{"encoder_attention_heads": 16, "encoder_ffn_dim": 4096, "encoder_layerdrop": 0.0},
    **{"encoder_layers": 12, "eos_token_id": 2, "force_bos_token_to_be_generated": True},
    **{"forced_bos_token_id": 0, "forced_eos_token_id": 2, "gradient_checkpointing": False},
    **{"init_std": 0.02, "is_encoder_decoder": True, "length_penalty": 2.0, "max_length": 142},
    **{"max_position_embeddings": 1024, "min_length": 56, "model_type": "bart", "no_repeat_ngram_size": 3},
    **{"normalize_before": False, "num_beams": 4, "num_hidden_layers": 12, "output_past": True},
    **{"pad_token_id": 1, "prefix": " ", "scale_embedding": False, "use_cache": True, "vocab_size": 50264},
}


@pytest.mark.parametrize(
    ("theirs", "published", "parameters"),
    [
        (T5_SMALL, "t5-small", 60_506_624),
        (T5_BASE, "t5-base", 222_903_552),
        (FLAN_T5_BASE, "t5-v1.1-base", 247_577_856),
        (MT5_SMALL, None, 300_176_768),
        # Without final_logits_bias, which transformers does not count: 406,290,432.
        (BART_LARGE_CNN, None, 406_290_432 + 50_264),
    ],
)
def test_a_published_model_has_its_number_of_parameters(theirs, published, parameters):
    config = ours(theirs)
    assert config.num_parameters() == parameters
    assert fitting_architecture(config, theirs["model_type"]).model_type == theirs["model_type"]
    if published is not None:
        assert canonical(config) == canonical(PUBLISHED[published])


def test_transformers_5_says_what_the_head_is_by_another_key():
    flan = ours({**FLAN_T5_BASE, "tie_word_embeddings": True, "scale_decoder_outputs": False})
    assert canonical(flan) == canonical(ours(FLAN_T5_BASE))
    derived = {"dense_act_fn": "gelu_new", "is_gated_act": True, "scale_decoder_outputs": True}
    small = ours({**T5_SMALL, "tie_word_embeddings": True, **derived})
    assert small.mlp.gated
    assert small.mlp.activation == "gelu-tanh"
    assert small.logit_scale == 512**-0.5


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        (T5_SMALL | {"feed_forward_proj": "gated-a-b"}, '"feed_forward_proj": "gated-a-b", which should be'),
        (T5_SMALL | {"feed_forward_proj": "mish"}, 'the activation "mish"; known are silu'),
        (T5_SMALL | {"num_hidden_layers": 7}, '"num_layers": 6 and "num_hidden_layers": 7'),
        (T5_SMALL | {"is_encoder_decoder": False}, '"is_encoder_decoder": false'),
        (BART_LARGE_CNN | {"normalize_before": True}, '"normalize_before": true'),
        (BART_LARGE_CNN | {"decoder_ffn_dim": 4000}, '"decoder_ffn_dim": 4000'),
        (BART_LARGE_CNN | {"tie_word_embeddings": False}, '"tie_word_embeddings": false'),
    ],
)
def test_what_would_be_computed_differently_is_refused(theirs, said):
    with pytest.raises(InputError) as refusal:
        ours(theirs)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "lost"), [("t5-megatron-220m", "model.head_bias"), ("t5-base", "model.logit_scale")]
)
def test_what_transformers_cannot_hold_is_named(name, lost):
    changes = {"logit_scale": 0.5} if name == "t5-base" else {}
    with pytest.raises(InputError, match=lost):
        fitting_architecture(dataclasses.replace(PUBLISHED[name], **changes), "t5")
