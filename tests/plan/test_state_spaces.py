"""What closed forms know of state spaces, whose convolutions and scans lie between no residual streams.

And of sequences that the mesh splits."""

import pytest
from planning import recipe, request

from mjx.models.common.pattern import StepOnMesh
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.plan.estimate import estimate
from mjx.sharding import default_rules

HYBRID = {
    "family": "mamba",
    "hybrid_pattern": "MMmm",
    "hidden_size": 1024,
    "vocab_size": 32768,
    "ssd": {"state": 64, "groups": 4},
    "selective_scan": {"state": 16},
}


def test_every_weight_is_counted(tmp_path):
    asked = request(recipe(tmp_path, HYBRID), "mesh.fsdp=8", "mesh.tensor=2")
    assert estimate(asked.load(), asked).uncounted == ()


@pytest.mark.parametrize("tensor", [1, 2, 8])
def test_what_waits_for_the_backward_pass_is_shared_by_rows_heads_and_groups(tensor):
    """Of 16 rows on 4 devices; groups are copied where there are fewer than devices."""
    sizes = {"data": 2, "fsdp": 2, "context": 1, "expert": 1, "pipeline": 1, "tensor": tensor}
    step = StepOnMesh(16, 512, 0, sizes, default_rules(), 2)
    ssd = SSDConfig(state=64, groups=4).resolve(1024)  # 2048 features in 32 heads
    groups = {1: 4, 2: 2, 8: 4}[tensor]
    convolved = 4 * 512 * (2048 / tensor + 2 * groups * 64)
    states = 4 * (512 // 128) * 2048 / tensor * 64 * 2  # float32 beside bfloat16
    assert ssd.work(1024, step).kept == convolved + states
    scan = SelectiveScanConfig(state=16).resolve(1024)
    made, states = 3 * 4 * 512 * 2048 / tensor, 4 * (512 // 32) * 2048 / tensor * 16 * 2
    assert scan.work(1024, step).kept == made + states


@pytest.mark.gpu_compile
def test_what_parts_of_a_sequence_send_is_what_the_closed_form_says(tmp_path, planned):
    attention = {"num_heads": 16, "num_query_groups": 4}
    model = {**HYBRID, "hybrid_pattern": "M*M*", "attention": attention, "remat": "selective"} | {
        "loss_chunks": 8
    }
    mesh = ("mesh.fsdp=2", "mesh.context=8", "sharding.zigzag=true")
    rows = ("training.batch_size=16", "data.sequence_length=8192")
    made = planned(recipe(tmp_path, model, mesh={"data": 1}), *mesh, *rows, products="cublas")
    checks = {(check.name, check.axes): check for check in made.checks}
    for check in made.checks:
        assert check.compiled <= 1.05 * check.closed_form, check
    # 8 rows. Of the two parts that a device has of each, the 3 last of 2048 + 2·4·64 inputs, and of 32 heads
    # the steps and 64·64 numbers; of its 1024 tokens the keys and values of 4 heads of 64.
    states = 7 * 8 * 2 * (3 * 2560 * 2 + 32 * (1 + 64 * 64) * 4)
    keys = 7 * 8 * 1024 * 2 * 4 * 64 * 2
    for name, sent in {"states": states, "keys": keys}.items():
        found = checks[name, ("context",)]
        assert found.closed_form == 2 * 3 * sent  # two layers; forward, again, and backward
        assert found.compiled == pytest.approx(found.closed_form, rel=1e-3)
    assert made.memory.allocated <= 1.1 * made.memory.closed_form
