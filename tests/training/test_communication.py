"""The compiled step's collectives are those of Megatron's scheme (Korthikanti et al. 2022, section 4.2.2)."""

import collections
import math
import re

import pytest

from mjx.batch import token_batch
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.rope import RoPEConfig
from mjx.models.gpt import GPTConfig
from mjx.sharding import MeshConfig, ShardingConfig
from mjx.training.trainer import Trainer

BATCH, SEQUENCE, EMBED = 4, 32, 64
_OP = re.compile(r"= (.+?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")


def collectives_per_layer(
    *, sequence_parallel: bool, kv_heads: int, remat="none"
) -> list[collections.Counter]:
    """Per scan body (forward, backward): how often each collective moves a residual-stream-sized array,
    and under "small" how often anything else is moved."""
    config = GPTConfig(
        num_layers=5,
        hidden_size=EMBED,
        vocab_size=256,
        attention=AttentionConfig(num_heads=8, num_query_groups=kv_heads, rope=RoPEConfig(), qkv_bias=True),
        mlp=MLPConfig(features=128, activation="silu", gated=True),
        norm=NormConfig(kind="rmsnorm"),
        remat=remat,
    )
    trainer = Trainer(
        config,
        steps=10,
        batch=token_batch(BATCH, SEQUENCE),
        mesh=MeshConfig(data=1, tensor=8),
        sharding=ShardingConfig(sequence_parallel=sequence_parallel),
    )
    with trainer.on_mesh():
        text = (
            trainer.train_step.lower(trainer.layout.abstract, trainer.batch_layout.abstract)
            .compile()
            .as_text()
        )
    bodies = set(re.findall(r"body=%?([\w.\-]+)", text))
    found: dict[str, collections.Counter] = {}
    name = ""
    for line in text.splitlines():
        if computation := _COMPUTATION.match(line):
            name = computation.group(1)
        if (op := _OP.search(line)) and name in bodies:
            sizes = [
                math.prod(int(n) for n in dims.split(",") if n)
                for dims in re.findall(r"\[([\d,]*)\]", op.group(1))
            ]
            moved = max(sizes) * (8 if op.group(2) == "reduce-scatter" else 1)
            kind = op.group(2) if moved == BATCH * SEQUENCE * EMBED else "small"
            found.setdefault(name, collections.Counter())[kind] += 1
    return list(found.values())


def reductions(counter: collections.Counter) -> int:
    """Reduce-scatters; a CPU spells them all-reduce and slice."""
    return counter["reduce-scatter"] + counter["all-reduce"]


def test_sequence_parallelism_gathers_and_scatters_twice_a_layer_in_each_direction():
    forward, backward = collectives_per_layer(sequence_parallel=True, kv_heads=8)
    for direction in (forward, backward):
        assert direction["all-gather"] == 2
        assert reductions(direction) == 2
        assert direction["all-to-all"] == direction["collective-permute"] == 0
    assert forward["small"] == 0
    assert backward["small"] <= 2, "only the gradients of the two norms, of which each device saw some tokens"


def test_with_recomputation_the_backward_pass_gathers_its_inputs_again():
    forward, backward = collectives_per_layer(sequence_parallel=True, kv_heads=8, remat="selective")
    assert forward["all-gather"] == reductions(forward) == 2
    assert backward["all-gather"] == 4
    assert reductions(backward) == 2


def test_plain_tensor_parallelism_reduces_twice_a_layer_in_each_direction():
    forward, backward = collectives_per_layer(sequence_parallel=False, kv_heads=8)
    for direction in (forward, backward):
        assert direction["all-reduce"] == 2
        assert sum(direction.values()) == 2


@pytest.mark.parametrize("sequence_parallel", [True, False])
def test_replicated_kv_heads_add_only_their_gradients(sequence_parallel):
    forward, backward = collectives_per_layer(sequence_parallel=sequence_parallel, kv_heads=2)
    assert reductions(forward) == 2
    assert forward["all-gather"] == (2 if sequence_parallel else 0)
    assert reductions(backward) <= 3
