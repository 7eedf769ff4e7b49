"""Gradients of replicas: when they are summed once a step, and that their parts make the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.gpt import GPTConfig
from mjx.models.report import Loss, Report, Statistic
from mjx.sharding import MeshConfig, build_mesh, default_rules, use_mesh
from mjx.sharding.rules import Rule
from mjx.training.gradients import over_replicas, replica_axis

MESH = {"data": 4, "fsdp": 2, "tensor": 1, "context": 1, "expert": 1, "pipeline": 1}
FOUR = {"microbatches": 4, "zero1": False}


class Balanced(MLPConfig):
    """A mixer that looks at the whole batch."""

    rows_apart = False


def model(dtype="float32", mlp=MLPConfig):
    return GPTConfig(
        num_layers=1,
        hidden_size=8,
        vocab_size=16,
        attention=AttentionConfig(num_heads=2),
        mlp=mlp(features=8),
        dtype=dtype,
    )


@pytest.mark.parametrize(
    ("options", "dtype", "data", "once"),
    [
        (FOUR, "float32", 4, True),
        (FOUR, "float32", 1, False),
        (FOUR, "bfloat16", 4, False),
        ({"microbatches": 8, "zero1": False}, "bfloat16", 4, True),
        ({"microbatches": 2, "zero1": True}, "bfloat16", 4, True),
        ({"microbatches": 1, "zero1": True}, "bfloat16", 4, False),
    ],
)
def test_gradients_are_summed_once_where_much_less_is_sent_so(options, dtype, data, once):
    axis = replica_axis(model(dtype), {**MESH, "data": data}, default_rules(), **options)
    assert axis == ("data" if once else None)


def test_they_are_not_where_replicas_need_each_other():
    assert replica_axis(model(mlp=Balanced), MESH, default_rules(), **FOUR) is None
    split = default_rules(overrides={"embed": Rule(parameters=("data", "fsdp"))})
    assert replica_axis(model(), MESH, split, **FOUR) is None


def test_losses_add_up_over_replicas_and_statistics_join_as_they_say():
    def gradients_of(parameters, batch, counts, key):
        assert key is None
        rows = batch["x"]
        total = jnp.sum(rows) / counts["rows"]
        said = {"largest": Statistic(jnp.max(rows), "max"), "sum": Statistic(jnp.sum(rows))}
        return total, Report({"loss": Loss(total, "rows")}, said), parameters * total

    batch = {"x": np.arange(8, dtype=np.float32)}
    with use_mesh(build_mesh(MeshConfig(data=4, fsdp=2))) as mesh:
        rows = jax.sharding.NamedSharding(mesh, PartitionSpec("data"))
        given = (jnp.ones(()), jax.device_put(batch, rows), {"rows": jnp.float32(8)}, None)
        loss, report, gradients = jax.jit(over_replicas(gradients_of, "data"))(*given)
    assert float(loss) == float(report.losses["loss"].total) == float(gradients) == 3.5
    assert float(report.statistics["largest"].array) == 7
    assert float(report.statistics["sum"].array) == 28
