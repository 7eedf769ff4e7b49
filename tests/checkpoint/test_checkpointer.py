"""The checkpointer on one process: what is saved, restored, kept, refused."""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from mjx.checkpoint import orbax_store
from mjx.checkpoint.checkpointer import CheckpointConfig, Checkpointer
from mjx.errors import InputError

CONFIG = {"model": {"layers": 2}}


class Net(nnx.Module):
    def __init__(self, width: int = 8, *, bias: bool = True):
        rngs = nnx.Rngs(0)
        self.layers = nnx.List(
            [nnx.Linear(4, width, use_bias=bias, rngs=rngs), nnx.Linear(width, 4, rngs=rngs)]
        )


class State(NamedTuple):
    step: jax.Array
    params: Any
    opt_state: Any
    key: jax.Array


OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1e-2, 0.0, 100)))


def make_state(optimizer: optax.GradientTransformation = OPTIMIZER, **net: Any) -> State:
    params = nnx.split(Net(**net), nnx.Param)[1]
    return State(jnp.int32(0), params, optimizer.init(params), jnp.array([1, 2], jnp.uint32))


def abstract(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@jax.jit
def _advance(state: State) -> State:
    grads = jax.tree.map(lambda p: jnp.sin(p * 3 + state.step), state.params)
    updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt_state, state.key + 1)


advance = jax.jit(_advance, donate_argnums=0)


def assert_bitwise_equal(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def save(checkpointer: Checkpointer, step: int, state: Any, **options: Any) -> float:
    return checkpointer.save(step, state, data_state={"step": step}, config=CONFIG, **options)


def test_restores_every_bit_of_the_state_and_the_data_position(tmp_path):
    state = make_state()
    for _ in range(3):
        state = advance(state)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(3, state, data_state={"step": 3, "epoch": 2**40}, config="a: 1\n")
    with Checkpointer(tmp_path) as checkpointer:
        restored, data_state = checkpointer.restore(abstract(state))
        assert checkpointer.saved_config() == "a: 1\n"
    assert data_state == {"step": 3, "epoch": 2**40}
    assert_bitwise_equal(restored, state)


def test_unusual_values_types_and_empty_arrays_come_back_bit_for_bit(tmp_path):
    state = {
        "nan": jnp.array([np.nan, -0.0, np.inf, 1e-45], jnp.float32),
        "bf16": jnp.array([1.5, -np.inf], jnp.bfloat16),
        "fp8": jnp.array([0.5, 448.0], jnp.float8_e4m3fn),
        "flag": jnp.array(True),
        "numpy": np.arange(3, dtype=np.int16),
        "empty": jnp.zeros((0, 3)),
    }
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        restored, _ = checkpointer.restore(abstract(state))
    assert_bitwise_equal(restored, state)


def test_training_twenty_steps_equals_ten_steps_resumed_for_ten(tmp_path):
    straight = make_state()
    for _ in range(20):
        straight = advance(straight)
    first = make_state()
    for _ in range(10):
        first = advance(first)
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 10, first)
    with Checkpointer(tmp_path) as checkpointer:
        resumed, _ = checkpointer.restore(abstract(first))
    for _ in range(10):
        resumed = advance(resumed)
    assert_bitwise_equal(resumed, straight)


def test_saved_bytes_are_those_of_the_step_though_the_next_steps_overwrite_the_donated_state(tmp_path):
    rng = np.random.default_rng(0)
    saved = {f"w{i}": rng.integers(0, 2**31, (512, 1024), np.int32) for i in range(8)}
    numpy_leaf = np.zeros(1000, np.float32)
    scramble = jax.jit(lambda s: jax.tree.map(lambda x: x * 3 + 1, s), donate_argnums=0)
    state = scramble(scramble({name: jnp.asarray(x) for name, x in saved.items()}))
    expected = {name: x * 9 + 4 for name, x in saved.items()}
    with Checkpointer(tmp_path, CheckpointConfig(keep_last=10)) as checkpointer:
        for step in range(4):
            save(checkpointer, step, {"arrays": state, "numpy": numpy_leaf})
            numpy_leaf += 1
            for _ in range(5):
                state = scramble(state)
            jax.block_until_ready(state)
        checkpointer.wait()
        for step in range(4):
            target = {"arrays": abstract(state), "numpy": abstract(numpy_leaf)}
            restored, _ = checkpointer.restore(target, step)
            assert_bitwise_equal(restored["arrays"], expected)
            assert np.all(restored["numpy"] == step)
            for _ in range(5):
                expected = {name: x * 3 + 1 for name, x in expected.items()}


def test_restores_on_whatever_mesh_the_abstract_state_names(tmp_path):
    state = {"params": {"w": jnp.arange(64.0).reshape(8, 8)}}
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        mesh = jax.make_mesh(
            (len(jax.devices()),), ("fsdp",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()
        )
        sharding = jax.sharding.NamedSharding(mesh, jax.P(None, "fsdp") if 8 % mesh.size == 0 else jax.P())
        target = {"params": {"w": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=sharding)}}
        restored, _ = checkpointer.restore(target)
    assert restored["params"]["w"].sharding == sharding
    assert_bitwise_equal(restored, state)


def test_part_of_a_checkpoint_is_restored_without_the_rest(tmp_path):
    state = make_state()
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        restored, _ = checkpointer.restore({"params": abstract(state.params)}, partial=True)
        with pytest.raises(InputError, match=r"2 arrays unexpected in it \(key, step\)"):
            checkpointer.restore({"params": abstract(state.params)})
    assert_bitwise_equal(restored["params"], state.params)


def test_keeps_the_newest_and_the_permanent_steps(tmp_path):
    config = CheckpointConfig(interval=10, keep_last=2, keep_every=30)
    state = {"w": jnp.zeros(3)}
    with Checkpointer(tmp_path, config) as checkpointer:
        for step in range(1, 81):
            if checkpointer.due(step):
                save(checkpointer, step, state)
        checkpointer.wait()
        assert checkpointer.all_steps() == [30, 60, 70, 80]
        assert checkpointer.latest_step() == 80
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".lock", "30", "60", "70", "80"]


def test_saving_a_step_twice_saves_it_once(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 5, {"w": jnp.zeros(3)})
        save(checkpointer, 5, {"w": jnp.ones(3)}, wait=True)
        restored, _ = checkpointer.restore({"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert np.all(restored["w"] == 0)


def test_an_empty_folder_has_no_latest_step_and_says_so_when_restored(tmp_path):
    checkpointer = Checkpointer(tmp_path / "none")
    assert checkpointer.latest_step() is None
    with pytest.raises(InputError, match=r"no checkpoint in .*none"):
        checkpointer.restore({})
    save(checkpointer, 3, {"w": jnp.zeros(3)}, wait=True)
    with pytest.raises(InputError, match=r"no checkpoint of step 4 in .*only of \[3\]"):
        checkpointer.restore({}, 4)
    checkpointer.close()


def test_what_a_killed_run_left_is_ignored_by_readers_and_swept_by_the_next_writer(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, {"w": jnp.zeros(3)})
    half_written = tmp_path / f"7{orbax_store.UNFINISHED_SUFFIX}"
    half_deleted = tmp_path / ".deleting-0"
    for leftover in (half_written, half_deleted):
        leftover.mkdir()
        (leftover / "data").write_text("x")
    with Checkpointer(tmp_path) as reader:
        assert reader.all_steps() == [1]
        reader.restore({"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert half_written.exists()
    assert half_deleted.exists()
    with Checkpointer(tmp_path) as writer:
        save(writer, 2, {"w": jnp.zeros(3)}, wait=True)
        assert writer.all_steps() == [1, 2]
    assert not half_written.exists()
    assert not half_deleted.exists()


def test_the_folder_of_a_live_run_is_neither_swept_nor_written(tmp_path):
    with Checkpointer(tmp_path) as live:
        save(live, 1, {"w": jnp.zeros(3)}, wait=True)
        half_written = tmp_path / f"2{orbax_store.UNFINISHED_SUFFIX}"
        half_written.mkdir()
        with (
            Checkpointer(tmp_path) as intruder,
            pytest.raises(InputError, match=f"in use by a live run: process {os.getpid()}"),
        ):
            save(intruder, 9, {"w": jnp.zeros(3)})
        assert half_written.exists()
        assert live.all_steps() == [1]


def test_going_on_from_an_older_step_is_refused_while_newer_checkpoints_are_there(tmp_path):
    state = {"w": jnp.zeros(3)}
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 10, state)
        save(checkpointer, 20, state)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.restore(abstract(state), 10)
        with pytest.raises(
            InputError, match=r"holds checkpoints of the steps \[20\], which this run neither"
        ):
            checkpointer.prepare(11)
    with Checkpointer(tmp_path) as checkpointer:
        checkpointer.restore(abstract(state))
        checkpointer.prepare(21)
        save(checkpointer, 20, state)
        save(checkpointer, 30, state, wait=True)
        assert checkpointer.all_steps() == [10, 20, 30]


def test_another_model_is_refused_with_the_names_of_what_differs(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, make_state(), wait=True)
        with pytest.raises(InputError) as wider:
            checkpointer.restore(abstract(make_state(width=16)))
        with pytest.raises(InputError) as fewer:
            checkpointer.restore(abstract(make_state(bias=False)))
    assert f"{tmp_path}/1 holds another model than the config describes" in str(wider.value)
    assert "3 parameters of another shape or type (params.layers.0.bias is float32[8] there, " in str(
        wider.value
    )
    assert "float32[16] here" in str(wider.value)
    assert "1 parameter unexpected in it (params.layers.0.bias)." in str(fewer.value)
    assert "opt_state" not in str(fewer.value)


def test_another_optimizer_is_refused_with_a_sentence_of_its_own(tmp_path):
    state = make_state()
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        with pytest.raises(InputError) as caught:
            checkpointer.restore(abstract(make_state(optax.sgd(0.1, momentum=0.9))))
    assert "holds the state of another optimizer than the config describes; the model fits" in str(
        caught.value
    )
    assert "missing from it (opt_state.0.trace.layers.0.bias, opt_state" in str(caught.value)
    assert "Nothing was read" in str(caught.value)


def test_another_type_is_refused_rather_than_converted(tmp_path):
    with Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, {"params": {"w": jnp.zeros(3)}}, wait=True)
        with pytest.raises(InputError, match=r"params.w is float32\[3\] there, bfloat16\[3\] here"):
            checkpointer.restore({"params": {"w": jax.ShapeDtypeStruct((3,), jnp.bfloat16)}})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("interval", 0, r"checkpoint.interval = 0 must be positive"),
        ("keep_last", 0, r"checkpoint.keep_last = 0 must be positive"),
        (
            "keep_every",
            1500,
            r"checkpoint.keep_every = 1500 must be a multiple of checkpoint.interval = 1000",
        ),
    ],
)
def test_a_config_that_cannot_work_is_refused(field, value, message):
    with pytest.raises(InputError, match=message):
        CheckpointConfig(**{field: value})


def test_a_save_may_move_arrays_to_the_host_where_the_loop_forbids_implicit_transfers(tmp_path, monkeypatch):
    """A CPU has no transfers to forbid, so what is looked at is the permission that Orbax is called with."""
    permissions = []
    ocp = orbax_store.orbax()
    save_async = ocp.save_async

    def spy(*args: Any, **kwargs: Any) -> Any:
        permissions.append(jax.config.jax_transfer_guard_device_to_host)
        return save_async(*args, **kwargs)

    monkeypatch.setattr(ocp, "save_async", spy)
    state = {"w": jnp.arange(3.0)}
    with jax.transfer_guard("disallow"), Checkpointer(tmp_path) as checkpointer:
        save(checkpointer, 1, state, wait=True)
        assert jax.config.jax_transfer_guard_device_to_host == "disallow"
    assert permissions == ["allow"]
