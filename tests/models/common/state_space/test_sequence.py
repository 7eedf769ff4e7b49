"""A sequence that a mesh splits is computed as if it were whole, and little goes between its parts."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from state_space_cases import EMBED, config_of, filled

from mjx.errors import InputError
from mjx.kernels.causal_conv1d import causal_conv1d
from mjx.kernels.ssd import ssd
from mjx.models.common.context import Context
from mjx.models.common.split import Split
from mjx.models.common.state_space.sequence import entering, with_past
from mjx.sharding import MeshConfig, build_mesh, default_rules, use_mesh

DOCUMENTS = {
    "one document": None,
    "packed": [[1] * 5 + [2] * 14 + [3] * 3 + [4] * 10, [1] * 32],
    "padding in front, between and behind": [
        [0] * 9 + [1] * 6 + [2] * 9 + [0] * 8,
        [1] * 7 + [0] * 9 + [1] * 6 + [0] * 1 + [2] * 9,
    ],
    "of the length of a part": [[1] * 8 + [2] * 8 + [3] * 16, [0] * 8 + [7] * 8 + [7] * 4 + [8] * 12],
}


def whole(inputs: dict, segment_ids):
    """A convolution and a scan behind it, of one device."""
    x, dt, A, B, C, weight = (inputs[name] for name in ("x", "dt", "A", "B", "C", "weight"))
    u = causal_conv1d(x.reshape(*x.shape[:2], -1), weight, segment_ids=segment_ids).reshape(x.shape)
    return ssd(u, dt, A, B, C, segment_ids=segment_ids, chunk_size=4)


def in_parts(split: Split, inputs: dict, segment_ids):
    """The same of a device's parts."""
    x, dt, B, C = (split.apart(inputs[name]) for name in ("x", "dt", "B", "C"))
    A, weight = inputs["A"], inputs["weight"]
    past = weight.shape[1] - 1
    ids = None if segment_ids is None else split.apart(segment_ids)
    long = with_past(split, x.reshape(*x.shape[:2], -1), past)
    long_ids = None if ids is None else with_past(split, ids, past)
    u = causal_conv1d(long, weight, segment_ids=long_ids)[:, past:].reshape(x.shape)
    scan = functools.partial(ssd, u, dt, A, B, C, segment_ids=ids, chunk_size=4, return_final_state=True)
    before = entering(split, A[:, None, None], dt, scan()[1], ids)
    return split.together(scan(initial_state=before)[0])


def arrays(tokens: int = 32, width: int = 4) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    shapes = {"x": (2, tokens, 2, 3), "B": (2, tokens, 1, 5), "C": (2, tokens, 1, 5), "weight": (6, width)}
    made = {name: random.randn(*shape) for name, shape in shapes.items()}
    made |= {"dt": random.rand(2, tokens, 2), "A": -random.rand(2)}
    return {name: array.astype(np.float32) for name, array in made.items()}


OF_TOKENS = ("x", "dt", "B", "C")


@functools.cache
def program(parts: int):
    """Outputs and gradients, of one device or of four with so many parts each."""
    whole_or_split = whole
    if parts:
        spec = dict.fromkeys(OF_TOKENS, PartitionSpec(None, "context"))
        whole_or_split = jax.shard_map(
            functools.partial(in_parts, Split(("context",), zigzag=parts == 2)),
            mesh=jax.make_mesh((4,), ("context",), axis_types=(AxisType.Auto,)),
            in_specs=(spec | {"A": PartitionSpec(), "weight": PartitionSpec()}, spec["x"]),
            out_specs=spec["x"],
            check_vma=False,
        )

    def graded(inputs, ids, slope):
        def measure(inputs):
            y = whole_or_split(inputs, ids)
            return jnp.sum(y * slope), y

        return jax.grad(measure, has_aux=True)(inputs)

    return jax.jit(graded)


@pytest.mark.parametrize(
    ("documents", "parts", "width"),
    [*((documents, parts, 4) for documents in DOCUMENTS for parts in (1, 2)), ("packed", 1, 1)],
)
def test_parts_are_the_whole_forward_and_backward(documents, parts, width):
    inputs, ids = arrays(width=width), DOCUMENTS[documents]
    ids = None if ids is None else np.array(ids, np.int32)
    places = np.arange(32).reshape(4 * parts, -1)
    order = places[[0, 7, 1, 6, 2, 5, 3, 4] if parts == 2 else [0, 1, 2, 3]].ravel()
    slope = np.random.RandomState(1).randn(2, 32, 2, 3).astype(np.float32)
    expected, y = program(0)(inputs, ids, slope)

    def moved(arrays):
        return {name: array[:, order] if name in OF_TOKENS else array for name, array in arrays.items()}

    ids = None if ids is None else ids[:, order]
    found, of_parts = program(parts)(moved(inputs), ids, slope[:, order])
    np.testing.assert_allclose(of_parts, y[:, order], atol=2e-5)
    for name, gradient in moved(expected).items():
        np.testing.assert_allclose(found[name], gradient, atol=2e-5 * np.abs(gradient).max(), err_msg=name)


@pytest.mark.parametrize("kind", ["ssd", "selective_scan"])
def test_what_goes_between_devices_does_not_grow_with_the_sequence(kind):
    layer, _ = filled(config_of(kind, {"ssd": "several groups", "selective_scan": "plain"}[kind]))

    def sent(tokens: int) -> list[str]:
        x = jnp.zeros((2, tokens, EMBED))
        with use_mesh(build_mesh(MeshConfig(data=2, context=4)), default_rules()):
            step = jax.jit(jax.grad(lambda layer, x: jnp.sum(layer(x, Context()).y), argnums=(0, 1)))
            x = jax.device_put(
                x, jax.sharding.NamedSharding(jax.sharding.get_mesh(), PartitionSpec("data", "context"))
            )
            text = step.lower(layer, x).compile().as_text()
        kinds = "all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce"
        found = (re.search(rf"= (.+?) (?:{kinds})\(", line) for line in text.splitlines())
        # A sum over a group of one sends nothing.
        apart = re.compile(r"replica_groups=(\{\{\d+\}(,\{\d+\})*\}|\[8,1\])")
        moved = [match.group(1) for match in found if match and not apart.search(match.string)]
        return sorted(re.sub(r"\{.*?\}", "", shapes) for shapes in moved)

    assert sent(32) == sent(64) != []


def test_a_device_needs_the_tokens_that_a_convolution_sees():
    layer, _ = filled(config_of("ssd", "several groups"))
    with (
        use_mesh(build_mesh(MeshConfig(data=1, context=8)), default_rules()),
        pytest.raises(InputError, match=r"mesh\.context leaves 2 tokens of a row to a device, and its conv"),
    ):
        jax.jit(lambda x: layer(x, Context()).y)(jnp.zeros((2, 16, EMBED)))
