import pytest
from jax.sharding import PartitionSpec as P

from mjx.errors import InputError
from mjx.sharding import MESH_AXES, Rule, ShardingConfig, default_rules


def sizes(**used: int) -> dict[str, int]:
    return {axis: used.get(axis, 1) for axis in MESH_AXES}


def test_parameters_and_activations_follow_their_own_column_of_the_table():
    rules, mesh = default_rules(), sizes(data=2, fsdp=2, tensor=2)
    assert rules.spec(("embed", "mlp"), (8, 8), mesh, kind="parameter") == P("fsdp", "tensor")
    assert rules.spec(("batch", "residual_sequence", "embed"), (8, 8, 8), mesh) == P(
        ("data", "fsdp"), "tensor"
    )


def test_sequence_parallelism_is_one_row_of_the_table():
    mesh = sizes(context=2, tensor=2)
    split = default_rules(sequence_parallel=True).spec(("batch", "residual_sequence"), (1, 8), mesh)
    whole = default_rules(sequence_parallel=False).spec(("batch", "residual_sequence"), (1, 8), mesh)
    assert (split, whole) == (P(None, ("context", "tensor")), P(None, "context"))


def test_unused_mesh_axes_are_left_out():
    assert default_rules().spec(("batch", "sequence"), (3, 5), sizes()) == P()


def test_kv_heads_fewer_than_the_tensor_degree_are_replicated():
    rules = default_rules()
    assert rules.spec(("embed", "kv_heads"), (8, 2), sizes(tensor=4), kind="parameter") == P()
    assert rules.spec(("embed", "kv_heads"), (8, 4), sizes(tensor=4), kind="parameter") == P(None, "tensor")
    with pytest.raises(InputError, match="kv_heads"):
        rules.spec(("embed", "kv_heads"), (8, 3), sizes(tensor=4), kind="parameter", array="parameter key")


def test_an_unknown_logical_axis_is_an_error_that_names_the_array_and_the_nearest_name():
    with pytest.raises(InputError, match=r"parameter w names the logical axis 'embd'.*did you mean embed"):
        default_rules().spec(("embd",), (8,), sizes(), array="parameter w")


def test_two_names_on_one_mesh_axis_are_an_error_that_names_the_array():
    with pytest.raises(InputError, match=r"activation z.*'heads' and 'mlp'.*'tensor'"):
        default_rules().spec(("heads", "mlp"), (8, 8), sizes(tensor=2), array="activation z")


@pytest.mark.parametrize(
    ("names", "shape", "mesh", "advice"),
    [
        (("vocab", "embed"), (50257, 8), {"tensor": 8}, "pad the vocabulary to 50264"),
        (("heads",), (6,), {"tensor": 4}, "a shard count that does: 1, 2, 3"),
        (("batch",), (6,), {"data": 4}, "a batch of 8 rows"),
        (("residual_sequence",), (6,), {"tensor": 4}, "sharding.sequence_parallel=false"),
    ],
)
def test_a_size_that_does_not_divide_is_an_error_that_says_what_would(names, shape, mesh, advice):
    with pytest.raises(InputError, match=advice):
        default_rules().spec(names, shape, sizes(**mesh))


def test_the_number_of_names_must_be_the_number_of_dimensions():
    with pytest.raises(InputError, match="2 axis names"):
        default_rules().spec(("embed", "mlp"), (8,), sizes())


def test_a_config_can_replace_a_row():
    rules = ShardingConfig(rules={"embed": Rule(parameters=("fsdp", "context"))}).build()
    assert rules.spec(("embed",), (8,), sizes(fsdp=2, context=2), kind="parameter") == P(("fsdp", "context"))


def test_a_row_with_an_unknown_mesh_axis_is_refused():
    with pytest.raises(InputError, match=r"sharding\.rules\.embed.*'model'.*choose from"):
        ShardingConfig(rules={"embed": Rule(parameters=("model",))})
