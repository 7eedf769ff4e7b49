"""Blocks whose weights several places share."""

import dataclasses

import jax
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, logical_axes_of, parameters_of
from mjx.models.common.rope import RoPEConfig
from mjx.models.family import abstract_model
from mjx.models.mamba import MambaConfig
from mjx.models.mamba.shared_block import SharedBlockConfig, SharedPlaceConfig
from mjx.trees import flatten, unflatten

BLOCK = SharedBlockConfig(
    attention=AttentionConfig(num_heads=2, rope=RoPEConfig()), mlp=MLPConfig(features=12, gated=True), rank=3
)


def model_of(pattern: str, blocks: int) -> MambaConfig:
    return MambaConfig(
        hybrid_pattern=pattern,
        hidden_size=8,
        vocab_size=13,
        mlp=MLPConfig(features=8),
        shared_block=dataclasses.replace(BLOCK, blocks=blocks, attention_adapters=True),
        dtype="float32",
    )


def test_blocks_are_taken_by_turns_and_their_weights_are_there_once():
    config = model_of("S-S-S-S-S-", 2)
    mixers = [one.mixer for one in config.pattern if isinstance(one.mixer, SharedPlaceConfig)]
    assert [mixer.number for mixer in mixers] == [0, 1, 0, 1, 0]
    axes, shapes = (flatten(of(abstract_model(config))) for of in (logical_axes_of, parameters_of))
    shared = {path for path in axes if path.startswith("decoder.shared.")}
    assert {path.split(".")[2] for path in shared} == {"block_0", "block_1"}
    query = "decoder.shared.block_0.attention.query.kernel"
    assert axes[query] == ("streams", "embed", "heads", "head_dim")
    assert shapes[query].shape == (2, 8, 2, 8)
    places = [path for path in shapes if path.endswith("shared_block.mlp_adapter.into.kernel")]
    assert sum(shapes[path].shape[0] for path in places) == 5


def test_the_gradient_of_shared_weights_is_the_sum_over_their_places():
    shared, apart = model_of("S-S-", 1), model_of("S-S-", 2)
    random = np.random.RandomState(0)
    values = {
        path: random.randn(*leaf.shape).astype(np.float32) / 3
        for path, leaf in flatten(parameters_of(abstract_model(shared))).items()
    }
    # Two blocks are two kinds of sub-layers: places of their own, of one layer each.
    own = {}
    for path, leaf in flatten(parameters_of(abstract_model(apart))).items():
        if path.startswith("decoder.segments."):
            _, _, _, place, rest = path.split(".", 4)
            own[path] = values[f"decoder.segments.0.{int(place) % 2}.{rest}"][int(place) // 2][None]
        else:
            own[path] = values[path.replace("block_1", "block_0")]
        assert own[path].shape == leaf.shape
    tokens = random.randint(0, 13, (2, 6)).astype(np.int32)
    batch = {"tokens": tokens, "labels": tokens, "loss_mask": np.ones(tokens.shape, np.float32)}

    def loss(config):
        model = abstract_model(config)
        return jax.value_and_grad(lambda p: bind(model, p).loss(batch, model.counts(batch))[0])

    (one, whole), (other, each) = (
        jax.jit(loss(config))(unflatten(dict(parameters)))
        for config, parameters in ((shared, values), (apart, own))
    )
    np.testing.assert_allclose(one, other, rtol=1e-6)
    whole, each = flatten(whole), flatten(each)
    for path in (path for path in whole if path.startswith("decoder.shared.")):
        parts = [each[path], each[path.replace("block_0", "block_1")]]
        assert min(np.abs(part).max() for part in parts) > 0
        np.testing.assert_allclose(whole[path], sum(parts), rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 0}, r"shared_block\.blocks = 0 must be positive"),
        ({"rank": 0}, r"shared_block\.rank = 0 must be positive"),
        ({"mlp": MLPConfig(features=8)}, r"shared_block\.mlp\.gated = false"),
        (
            {"attention": AttentionConfig(num_heads=2, output_gate=True)},
            r"shared_block\.attention\.output_gate = true",
        ),
    ],
)
def test_what_cannot_be_is_said(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(BLOCK, **changes)


def test_heads_are_of_both_streams():
    assert BLOCK.resolve(8).attention.dims == (2, 2, 8)
    assert SharedPlaceConfig(block=BLOCK.resolve(8), norm=NormConfig(), number=1).weights.name == "block_1"
