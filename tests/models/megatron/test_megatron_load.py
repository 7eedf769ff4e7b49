"""Megatron-Core's checkpoints as models: the logits, on eight devices."""

import dataclasses

import jax
import numpy as np
import pytest
from checkpoints import NAMES, config_of, expected, unpack
from written import cut, write

from mjx.errors import InputError
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import abstract_parameters, bind, parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import abstract_model
from mjx.models.gpt.megatron import megatron_name_map
from mjx.models.interop.megatron.settings import check_settings
from mjx.models.interop.tensor_layout import InMemory
from mjx.models.megatron import TorchDistFolder, is_parameter, load_checkpoint
from mjx.models.megatron.names import local_names
from mjx.sharding import MeshConfig, build_mesh, default_rules, use_mesh
from mjx.trees import flatten


def load(folder, config, **mesh):
    mesh, rules = build_mesh(MeshConfig(**(mesh or {"fsdp": 8}))), default_rules()
    model = abstract_model(config)
    with use_mesh(mesh, rules):
        abstract = abstract_parameters(model, mesh, rules)
        parameters = load_checkpoint(TorchDistFolder(folder, is_parameter), config, abstract, np.float32)
        return parameters, jax.jit(lambda p, tokens: bind(model, p)(tokens))


@pytest.mark.parametrize("mesh", [{"fsdp": 2, "tensor": 4}, {"data": 2, "fsdp": 2, "tensor": 2}])
@pytest.mark.parametrize("name", NAMES)
def test_logits_equal_megatron_s_to_1e_5(tmp_path, name, mesh):
    tokens, logits = expected(name)
    tokens, logits = np.repeat(tokens, 2, axis=0), np.repeat(logits, 2, axis=0)
    parameters, forward = load(unpack(name, tmp_path), config_of(name), **mesh)
    np.testing.assert_allclose(forward(parameters, tokens)[..., :27], logits, rtol=0, atol=1e-5)


def test_rows_beyond_the_vocabulary_are_dropped(tmp_path):
    config = config_of("llama", vocab_divisor=64)
    table = flatten(load(unpack("llama", tmp_path), config, fsdp=8)[0])["embedding.weight"]
    assert table.shape == (64, 16)
    assert np.asarray(table[:27]).all()
    assert not np.asarray(table[27:]).any()


@pytest.mark.parametrize("tied", [True, False])
def test_a_padded_vocabulary_is_cut_without_arguments_too(tmp_path, tied):
    config = config_of("gpt2", tie_embeddings=tied, vocab_divisor=9)
    names = megatron_name_map(config)
    shapes = parameters_of(abstract_model(config))
    random = np.random.default_rng(0)
    ours = jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), shapes)
    written = {}
    for name, array in names.to_theirs(ours).items():
        if name in ("embedding.word_embeddings.weight", "output_layer.weight"):
            padding = random.standard_normal((13, array.shape[1])).astype(np.float32)  # as training leaves it
            array = np.concatenate([array, padding])
        written[name] = cut(array, *(1,) * array.ndim)
    folder = write(tmp_path, written)
    assert not TorchDistFolder(folder).arguments
    loaded = flatten(load(folder, config, fsdp=8)[0])
    tables = ["embedding.weight"] if tied else ["embedding.weight", "head.weight"]
    for name, array in flatten(ours).items():
        assert loaded[name].shape == array.shape
        if name in tables:
            np.testing.assert_array_equal(loaded[name][:27], array[:27])
            assert not np.asarray(loaded[name][27:]).any()
        else:
            np.testing.assert_array_equal(loaded[name], array, err_msg=name)
    wider = dataclasses.replace(config, vocab_size=41)
    with pytest.raises(InputError, match=r"word_embeddings.weight has the shape \[40, 16\]"):
        load(folder, wider, fsdp=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layers": 3}, r"num_layers = 4, but model.num_layers asks for 3"),
        ({"vocab_size": 33}, r"padded_vocab_size = 32, but model.vocab_size = 33"),
        (
            {"norm": NormConfig(kind="rmsnorm", epsilon=1e-6)},
            r"norm_epsilon = 1e-05, but model.norm.epsilon asks",
        ),
        ({"tie_embeddings": True}, r"untie_embeddings_and_output_weights = True, but model.tie_embeddings"),
        ({"norm_placement": "both"}, r"model.norm_placement = both is not in Megatron-Core"),
    ],
)
def test_a_config_that_the_checkpoint_s_arguments_contradict_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        load(unpack("llama", tmp_path), config_of("llama", **changes))


def test_what_shapes_do_not_show_is_compared_too():
    config = config_of("llama")
    attention = dataclasses.replace(config.attention, rope=RoPEConfig(base=5e5))
    config = dataclasses.replace(config, attention=attention)
    with pytest.raises(
        InputError, match=r"rotary_base = 10000, but model.attention.rope.base asks for 500000"
    ):
        check_settings(config, {"rotary_base": 10000, "num_query_groups": 2}, "args.json")
    asked = r"num_experts = 8, but model.mlp asks for one, model.moe asks for None$"
    with pytest.raises(InputError, match=f"trained with {asked}"):
        check_settings(config, {"num_experts": 8}, "args.json")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", {"num_layers": 1}, r"unknown \(decoder.layers.1"),
        ("gpt2", {"num_layers": 3}, r"missing \(decoder.layers.2"),
        ("gpt2", {"tie_embeddings": False}, r"1 missing \(output_layer.weight\)"),
        (
            "gpt2",
            {"max_positions": 16},
            r"position_embeddings.weight has the shape \[32, 16\], .* \[16, 16\]",
        ),
        ("qwen3", {"vocab_size": 33}, r"word_embeddings.weight has the shape \[32, 16\], .* \[33, 16\]"),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(tmp_path, name, changes, message):
    with pytest.raises(InputError, match=message):
        load(unpack(name, tmp_path), config_of(name, **changes))


def test_names_are_the_same_however_megatron_wrote_them():
    stacked = np.arange(12.0).reshape(2, 6)
    layers = {
        "module.decoder.layers.self_attention.linear_qkv.layer_norm_weight": stacked,
        "module.decoder.layers.mlp.linear_fc1.weight_w": stacked[:, :4],
        "module.decoder.layers.mlp.linear_fc1.weight_v": stacked[:, 4:],
        "module.decoder.final_layernorm.weight": stacked[0],
    }
    single = {
        "decoder.layers.0.input_layernorm.weight": stacked[0],
        "decoder.layers.1.input_layernorm.weight": stacked[1],
        "decoder.layers.0.mlp.linear_fc1.weight": stacked[0],
        "decoder.layers.1.mlp.linear_fc1.weight": stacked[1],
        "decoder.final_layernorm.weight": stacked[0],
    }
    for tensors in (layers, single):
        named = local_names({name: InMemory(array) for name, array in tensors.items()})
        assert named.keys() == single.keys()
        for name, tensor in named.items():
            assert tensor.shape == (6,)
            np.testing.assert_array_equal(tensor.read(), single[name])
            np.testing.assert_array_equal(tensor.read((slice(3, 5),)), single[name][3:5])


def test_experts_have_one_name_however_megatron_wrote_them():
    experts = np.arange(24.0).reshape(3, 4, 2)
    prefix, own = "decoder.layers.0.mlp.experts", {}
    for number, expert in enumerate(experts):
        own[f"{prefix}.local_experts.{number}.linear_fc1.weight"] = expert
    written = (
        {f"{prefix}.experts.linear_fc1.weight": experts},
        {"decoder.layers.mlp.experts.experts.linear_fc1.weight": experts[None]},
        {f"{prefix}.experts.{number}.linear_fc1.weight": expert for number, expert in enumerate(experts)},
        {
            f"{prefix}.experts.{number}.linear_fc1.weight_{half}": part
            for number, expert in enumerate(experts)
            for half, part in zip("wv", np.split(expert, 2), strict=True)
        },
        {f"{prefix}.linear_fc1.weight{number}": expert for number, expert in enumerate(experts)},
        own,
    )
    for tensors in written:
        named = local_names({name: InMemory(array) for name, array in tensors.items()})
        assert named.keys() == own.keys()
        for name, tensor in named.items():
            np.testing.assert_array_equal(tensor.read(), own[name])
            np.testing.assert_array_equal(tensor.read((slice(1, 3), slice(0, 1))), own[name][1:3, :1])
    shared = "decoder.layers.0.mlp.shared_experts.linear_fc1.weight"
    assert list(local_names({shared: InMemory(experts[0])})) == [shared]


def test_a_tensor_under_two_names_is_refused():
    norm = InMemory(np.ones(4))
    twice = {
        f"decoder.layers.0.{name}": norm
        for name in ("input_layernorm.weight", "self_attention.linear_qkv.layer_norm_weight")
    }
    with pytest.raises(InputError, match=r"holds decoder.layers.0.input_layernorm.weight twice"):
        local_names(twice)


@pytest.mark.parametrize(
    "name",
    [
        "optimizer.state.exp_avg.decoder.layers.mlp.linear_fc2.weight",
        "chained_0.optimizer.state.fp32_param.output_layer.weight",
        "module.decoder.layers.mlp.linear_fc2._extra_state/shard_0_2",
        "decoder.layers.0.self_attention.core_attention._extra_state",
        "rng_state/shard_0.0_1.1",
    ],
)
def test_what_is_no_parameter_is_left_out(name):
    assert not is_parameter(name)
    assert is_parameter("decoder.layers.mlp.linear_fc2.weight")
