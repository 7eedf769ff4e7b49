"""The choice among implementations: by data, aloud, and never another than the one named."""

import jax
import pytest
from jax.sharding import AbstractDevice, AbstractMesh

from mjx.errors import InputError
from mjx.kernels.capability import Capability, Request, Sizes, choose, current_device

TABLE = {
    "fast": Capability(
        platforms=("gpu",),
        dtypes=("bfloat16",),
        features=frozenset({"window"}),
        sizes={"state": Sizes(multiple_of=16, at_most=256, before=(9.0, 128))},
        compute_capability=8.0,
        newest_compute_capability=9.0,
        automatic=("gpu",),
    ),
    "plain": Capability(
        platforms=("cpu", "gpu"),
        dtypes=("bfloat16", "float32"),
        features=frozenset({"window", "padding"}),
        automatic=("cpu", "gpu"),
    ),
    "slow": Capability(
        platforms=("cpu", "gpu"), dtypes=("float32", "float64"), features=frozenset({"padding", "oddity"})
    ),
}


def asked(platform="gpu", dtype="bfloat16", features=(), capability=9.0, **sizes):
    return Request(
        platform=platform,
        dtype=dtype,
        features=frozenset(features),
        sizes=sizes,
        compute_capability=capability if platform == "gpu" else None,
    )


@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        (asked(), "fast"),
        (asked(state=256), "fast"),
        (asked(state=256, capability=8.0), "plain"),
        (asked(state=128, capability=8.0), "fast"),
        (asked(capability=7.5), "plain"),
        (asked(capability=10.0), "plain"),
        (asked(capability=None, state=256), "fast"),
        (asked(state=24), "plain"),
        (asked(features=["padding"]), "plain"),
        (asked(dtype="float32"), "plain"),
        (asked(platform="cpu"), "plain"),
    ],
)
def test_auto_takes_the_first_that_can_do_all_that_is_asked(request_, chosen):
    assert choose("scan", TABLE, "auto", request_) == chosen


@pytest.mark.parametrize(
    ("name", "request_", "sentence"),
    [
        ("fast", asked(features=["padding", "window"]), "^scan: .* 'fast' cannot do padding; plain can$"),
        ("fast", asked(platform="cpu"), r"platform cpu \(runs on gpu\); plain can"),
        ("fast", asked(state=272), r"state = 272 \(at most 256\); plain can"),
        ("fast", asked(capability=7.5), r"a GPU of compute capability 7\.5 \(needs 8\.0\); plain can"),
        ("fast", asked(capability=10.0), r"compute capability 10\.0 \(knows none after 9\.0\); plain can"),
        ("plain", asked(dtype="float64", features=["oddity"]), r"float64 \(.*\), oddity; slow can"),
        ("slow", asked(features=["window", "oddity"]), "no other implementation can either"),
        (
            "quick",
            asked(),
            r"scan: there is no implementation 'quick' \(choose from auto, fast, plain, slow\)",
        ),
        # What must be asked for by name is not taken by itself.
        (
            "auto",
            asked(features=["oddity"], dtype="float32"),
            "no implementation of scan can do what is asked",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_able_are_named(name, request_, sentence):
    with pytest.raises(InputError, match=sentence):
        choose("scan", TABLE, name, request_)


@pytest.mark.parametrize(
    ("kind", "capability"),
    [
        ("NVIDIA H100 80GB HBM3", 9.0),
        ("NVIDIA A100-SXM4-80GB", 8.0),
        ("NVIDIA B200", 10.0),
        ("NVIDIA GB300", 10.3),
        ("NVIDIA L40S", 8.9),
        ("NVIDIA GH200 480GB", 9.0),
        ("Unheard of", None),
    ],
)
def test_a_gpu_that_is_only_compiled_for_is_known_by_its_name(kind, capability):
    mesh = AbstractMesh((), (), abstract_device=AbstractDevice(kind, None, "cuda"))
    with jax.sharding.use_abstract_mesh(mesh):
        assert current_device() == ("gpu", capability)
