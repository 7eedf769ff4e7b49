"""Hybrids against Megatron-Core 0.16.1 on the CPU: the goldens hold its weights, logits and gradients."""

from pathlib import Path

import numpy as np
import pytest
from oracles import megatron
from oracles.difference import Limits

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.state_space import SSDConfig
from mjx.models.interop.tensor_layout import InMemory
from mjx.models.mamba import MambaConfig
from mjx.models.mamba.config_keys import canonical
from mjx.models.mamba.megatron import megatron_name_map
from mjx.models.mamba.shared_block import SharedBlockConfig
from mjx.models.megatron import read_settings, settings_of
from mjx.models.megatron.names import local_names

GOLDENS = Path(__file__).parents[2] / "goldens" / "megatron_hybrid"
CASES = sorted(path.stem for path in GOLDENS.glob("*.npz"))
STRICT = Limits(outputs=1e-5, loss=1e-6, gradients=1e-4, rounding=0.0)
ARGUMENTS = {"hidden_size": 32, "num_attention_heads": 4, "vocab_size": 61, "position_embedding_type": "none"}


def config_of(name: str) -> MambaConfig:
    _, config = megatron.configs(megatron.read(GOLDENS / f"{name}.npz"))[0]
    assert isinstance(config, MambaConfig)
    return config


def read(**arguments) -> MambaConfig:
    family, config = read_settings({**ARGUMENTS, **arguments}, "args.json")
    assert family == "mamba"
    assert isinstance(config, MambaConfig)
    return config


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_megatron_to_1e_5_and_every_gradient_to_1e_4_relative(name):
    path = GOLDENS / f"{name}.npz"
    report = megatron.compare(path, STRICT)
    assert report.result == "equal", report.sentences()
    case, compared = megatron.read(path), report.compared
    assert {each.name for each in compared.outputs} == {"logits"}
    assert {each.name for each in compared.gradients} == {f"gradient of {key}" for key in case.gradients}
    assert len(case.gradients) == len(case.weights)


@pytest.mark.parametrize("name", CASES)
def test_config_and_tensors_survive_the_way_to_megatron_and_back(name):
    config = config_of(name)
    weights = megatron.read(GOLDENS / f"{name}.npz").weights
    names = megatron_name_map(config)
    back = names.to_theirs(names.to_ours(weights))
    assert back.keys() == weights.keys()
    for key, tensor in weights.items():
        np.testing.assert_array_equal(back[key], tensor, err_msg=key)
    family, returned = read_settings(settings_of(config), "Megatron-LM")
    assert family == "mamba"
    assert isinstance(returned, MambaConfig)
    assert canonical(returned) == canonical(config)


def test_arguments_have_the_defaults_of_megatron_lm():
    config = read(hybrid_layer_pattern="M*-", normalization="RMSNorm", hidden_size=256)
    assert config.ssd is not None
    assert config.ssd.resolve(256).sizes == (8, 64, 8, 128)
    assert config.attention is not None
    assert config.attention.qkv_bias
    assert not config.ssd.bias
    assert config.moe is None
    assert read(hybrid_override_pattern="M-M-", mamba_num_heads=6, mamba_num_groups=3).ssd is not None


def test_ratios_and_sizes_alone_say_a_hybrid_too():
    settings = {"num_layers": 8, "mamba_head_dim": 8}
    assert read(**settings).hybrid_pattern == "M" * 8
    ratios = {"hybrid_attention_ratio": 0.25, "hybrid_mlp_ratio": 0.25}
    assert read(**settings, **ratios).hybrid_pattern == "MM*-M*M-"
    assert read(**settings, spec=["some.mamba_layer_specs", "mamba_stack_spec"]).mlp is None


def test_arguments_of_a_gpt_are_a_gpts_whatever_sizes_they_have_by_default():
    defaults = {"mamba_state_dim": 128, "mamba_head_dim": 64, "mamba_num_groups": 8, "mamba_num_heads": None}
    settings = {
        **ARGUMENTS,
        **defaults,
        "num_layers": 2,
        "hybrid_layer_pattern": None,
        "hybrid_mlp_ratio": 0.0,
    }
    assert read_settings(settings, "args.json")[0] == "gpt"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hybrid_layer_pattern": "M*-", "num_layers": 4}, r"3 sub-layers, where num_layers says 4:\n  M\*-"),
        ({"hybrid_layer_pattern": "MX"}, r'args.json: "hybrid_layer_pattern" has \'X\', which is no symbol'),
        ({"is_hybrid_model": True}, 'has neither "hybrid_layer_pattern" nor "num_layers"'),
        ({"num_layers": 4, "hybrid_attention_ratio": 0.8, "hybrid_mlp_ratio": 0.4}, "shares of the layers"),
        (
            {"hybrid_layer_pattern": "M", "spec": ["layer_specs", "gdp_stack_spec"]},
            "spec.*mjx knows mamba_stack",
        ),
        ({"hybrid_layer_pattern": "M*", "window_size": [3, 0]}, "window_size.*mjx does not compute"),
    ],
)
def test_what_cannot_be_read_is_said(arguments, message):
    with pytest.raises(InputError, match=message):
        read(**arguments)


def test_a_checkpoint_written_on_several_devices_is_read_by_its_whole_parts():
    """There each part of the projection and of the convolution is a tensor, and norms have fused names."""
    case = megatron.read(GOLDENS / "mamba2.npz")
    names, parts = (
        megatron_name_map(config_of("mamba2")),
        {"in_proj": [64, 64, 32, 32, 8], "conv1d": [64, 32, 32]},
    )
    written = {}
    for name, array in case.weights.items():
        inner = name.split(".")[-2]
        if inner in parts:
            bounds = np.cumsum(parts[inner])[:-1]
            for part, piece in zip(
                ("z", "x", "B", "C", "dt") if inner == "in_proj" else ("x", "B", "C"),
                np.split(array, bounds),
                strict=True,
            ):
                written[f"module.{name}.{part}"] = InMemory(piece)
        else:
            written[
                name.replace(".norm.", ".mixer.in_proj.layer_norm_") if "layers.0.norm" in name else name
            ] = InMemory(array)
    read = local_names(written)
    assert read.keys() == case.weights.keys()
    for name, array in case.weights.items():
        np.testing.assert_array_equal(read[name].read(), array, err_msg=name)
    names.check(read)
    del written["module.decoder.layers.0.mixer.in_proj.weight.B"]
    with pytest.raises(InputError, match=r"decoder\.layers\.0\.mixer\.in_proj\.weight\.z"):
        names.check(local_names(written))


@pytest.mark.parametrize(
    ("pattern", "message"), [("(M*)-", r"\( in model\.hybrid_pattern"), ("S-", r"S in model\.hybrid_pattern")]
)
def test_what_megatron_does_not_have_is_refused(pattern, message):
    attention, mlp = AttentionConfig(num_heads=4), MLPConfig(features=48, gated=True)
    config = MambaConfig(
        hybrid_pattern=pattern,
        hidden_size=32,
        vocab_size=61,
        ssd=SSDConfig(state=8, head_dim=8, groups=2),
        attention=attention,
        mlp=mlp,
        shared_block=SharedBlockConfig(attention=attention, mlp=mlp),
    )
    with pytest.raises(InputError, match=f"{message} .* is not in Megatron-Core"):
        megatron_name_map(config)
