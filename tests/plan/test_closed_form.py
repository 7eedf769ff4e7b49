"""A compiled step sends what the closed form of its scheme says, and holds at most 1.25 times it."""

import pytest
from planning import recipe, request

from mjx.plan.closed_form import step_memory, traffic
from mjx.plan.scheme import scheme_of

pytestmark = pytest.mark.gpu_compile

SCHEMES = {
    "fsdp": ("mesh.fsdp=16",),
    "fsdp × tensor": ("mesh.fsdp=2", "mesh.tensor=8"),
    "tensor": ("mesh.data=2", "mesh.fsdp=1", "mesh.tensor=8"),
    "data × fsdp": ("mesh.data=2", "mesh.fsdp=8"),
    "data × fsdp × tensor": ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=4"),
    "without sequence parallelism": ("mesh.fsdp=2", "mesh.tensor=8", "sharding.sequence_parallel=false"),
}


REMAT = [("fsdp × tensor", "selective"), ("without sequence parallelism", "full"), ("fsdp × tensor", "full")]


@pytest.mark.parametrize(("name", "remat"), [*((name, "none") for name in SCHEMES), *REMAT])
def test_traffic_equals_the_closed_form_within_5_percent(name, remat, tmp_path, planned):
    # With full recomputation the same plans show what is held.
    products = "both" if remat == "full" else "cublas"
    made = planned(recipe(tmp_path), *SCHEMES[name], f"model.remat={remat}", products=products)
    assert made.checks
    for check in made.checks:
        assert check.compiled == pytest.approx(check.closed_form, rel=0.05), check
    total = sum(check.closed_form for check in made.checks)
    assert sum(row.wire_bytes for row in made.traffic) == pytest.approx(total, rel=0.05)
    assert made.exact_traffic
    outside = [row for row in made.traffic if row.term is None]
    assert sum(row.wire_bytes for row in outside) < 0.02 * total, "sums of scalars and vectors"


MICROBATCHES = {
    "gradients summed in each": ("mesh.fsdp=2", "mesh.data=8", "training.microbatches=4"),
    "summed once": ("mesh.fsdp=2", "mesh.tensor=2", "mesh.data=4", "training.microbatches=8"),
    "ZeRO-1": ("mesh.fsdp=2", "mesh.data=8", "training.microbatches=2", "training.zero1=true"),
}


@pytest.mark.parametrize("name", MICROBATCHES)
def test_microbatches_gather_weights_each_and_replicas_sum_once_where_that_is_much_less(
    name, tmp_path, planned
):
    overrides = MICROBATCHES[name]
    made = planned(recipe(tmp_path), *overrides, "training.batch_size=64", products="cublas")
    assert {"weights", "replicas"} <= {check.name for check in made.checks}
    for check in made.checks:
        assert check.compiled == pytest.approx(check.closed_form, rel=0.05), check


def test_no_more_is_held_than_1_25_times_the_closed_form_with_full_recomputation(tmp_path, planned):
    for overrides in (("mesh.fsdp=16",), ("mesh.fsdp=2", "mesh.tensor=8")):
        memory = planned(recipe(tmp_path), *overrides).memory
        assert memory.allocated <= 1.25 * memory.closed_form


def closed_form_of(path: str, *overrides: str, devices: int):
    config = request(path, *overrides).load()
    return {term.name: term.wire_bytes for term in traffic(scheme_of(config, devices))}


def test_the_formulas_by_hand(tmp_path):
    """A model small enough to count: docs/parallelism.md's formulas with numbers put in."""
    model = {
        "family": "gpt",
        "num_layers": 3,
        "hidden_size": 8,
        "vocab_size": 128,
        "attention": {"num_heads": 4, "rope": {"base": 10000.0}},
        "mlp": {"features": 32},
        "remat": "full",
        "dtype": "bfloat16",
    }
    path = recipe(
        tmp_path,
        model,
        data={"corpus": "python-docs", "sequence_length": 64},
        training={"steps": 1, "batch_size": 8},
        mesh={"data": 1, "fsdp": 2, "tensor": 4},
    )
    vectors = 2 * 2 * 8  # gain and bias of a LayerNorm, two of them a layer
    matrices = 4 * 8 * 8 + 2 * 8 * 32
    layer = matrices / 4 + vectors  # on one of the tensor shards
    tables = 2 * 128 * 8 / 4 + 2 * 8  # and the final norm
    found = closed_form_of(path, devices=8)
    half = 1 / 2  # (fsdp - 1) / fsdp
    assert found["weights"] == 2 * half * (2 * 3 * layer + tables)
    assert found["gradients"] == 2 * half * (3 * layer + tables)
    state = 4 * 64 * 8 * 2  # 4 rows on a device, bfloat16
    assert found["tensor"] == (3 * (4 + 3 + 4) + 4) * state * 3 / 4
    memory = step_memory(scheme_of(request(path).load(), 8))
    assert memory.kept == 3 * state / 4
    assert memory.gradients == 4 * (3 * (matrices / 4 + vectors) + tables) / 2


def test_a_table_is_exchanged_by_rows_where_that_is_less(tmp_path):
    few = closed_form_of(recipe(tmp_path), "training.batch_size=16", devices=16)
    many = closed_form_of(recipe(tmp_path), "training.batch_size=1024", devices=16)
    table = 32768 * 1024 * 2 * 15 / 16
    found = 2048 * 1024 * 2 * 15 / 16  # one row of tokens on each device
    assert many["gradients"] - few["gradients"] == table - found
