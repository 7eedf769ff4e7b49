"""Checks of one batch: what the loss, its gradients and the logits do not depend on."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from families.training import beginning
from families.variants.variant import Arrays, NotApplicableError, Variant
from mjx.models.common.parameter import bind, differentiated, logical_axes_of, parameters_of
from mjx.models.family import Generates, ModelConfig, abstract_model
from mjx.sharding import LOGICAL_AXES
from mjx.training.gradients import build_gradients
from mjx.trees import Tree, flatten, unflatten


@functools.cache
def parameters(variant: Variant) -> Tree:
    """None of them with a special value, as zeros of biases and ones of gains are."""
    random = np.random.RandomState(1)
    return unflatten(
        {
            path: (leaf + 0.1 * random.randn(*leaf.shape)).astype(leaf.dtype)
            for path, leaf in flatten(beginning(variant).parameters).items()
        }
    )


@functools.cache
def gradient_program(config: ModelConfig, microbatches: int = 1) -> Any:
    """(parameters, batch, counts, key) → loss, report, gradients; compiled once for all checks."""
    model = abstract_model(config)
    return jax.jit(build_gradients(model, differentiated(model), microbatches))


def measure(
    variant: Variant, batch: Arrays, *, key: Any = None, microbatches: int = 1, **changes: Any
) -> dict[str, np.ndarray]:
    """Loss, losses, statistics and gradients of a batch, by dotted names."""
    config = dataclasses.replace(variant.config, **changes)
    counts = abstract_model(config).counts(batch)
    program = gradient_program(config, microbatches)
    loss, report, gradients = program(parameters(variant), batch, counts, key)
    said = {f"losses.{name}": each.total for name, each in report.losses.items()}
    said |= {f"statistics.{path}": each.array for path, each in flatten(report.statistics).items()}
    said |= {f"gradients.{path}": leaf for path, leaf in flatten(gradients).items()}
    return jax.device_get({"loss": loss} | said)


@functools.cache
def measured(variant: Variant) -> dict[str, np.ndarray]:
    """Of the first batch."""
    return measure(variant, variant.batch(0))


def assert_same(ours: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Losses to 1e-6, all else to 1e-4, in sums of rounded numbers."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        if name.startswith("loss"):
            np.testing.assert_allclose(ours[name], value, rtol=1e-6, err_msg=name)
        else:
            largest = np.abs(value).max()
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=5e-5 * largest, err_msg=name)


def remat(variant: Variant) -> None:
    """Recomputation, of dropout too, changes neither loss nor gradients."""
    key = jax.random.key(5) if variant.chance else None
    none, selective, full = (
        measure(variant, variant.batch(0), key=key, remat=kind) for kind in ("none", "selective", "full")
    )
    assert_same(_seen(variant, selective), _seen(variant, none))
    assert_same(_seen(variant, full), _seen(variant, none))


def microbatches(variant: Variant) -> None:
    """Four microbatches have the loss, the gradients and the statistics of the whole batch."""
    if variant.config.rows_together is not None:
        raise NotApplicableError("each row is compared with the whole batch, which is refused in parts")
    parts = measure(variant, variant.batch(0), microbatches=4)
    assert_same(_seen(variant, parts), _seen(variant, measured(variant)))


def packing(variant: Variant) -> None:
    """Documents in one row have the loss and the gradients of those in rows of their own."""
    packed, alone = variant.packed()
    assert_same(_seen(variant, measure(variant, packed)), _seen(variant, measure(variant, alone)))


def padding(variant: Variant) -> None:
    """What counts for nothing changes nothing."""
    batch = variant.batch(0)
    other = variant.padded(batch)
    assert any((batch[name] != other[name]).any() for name in batch)
    assert_same(_seen(variant, measure(variant, other)), _seen(variant, measured(variant)))


def gradients(variant: Variant) -> None:
    """Every layer of every parameter has a gradient, and every axis of it a name."""
    model = abstract_model(variant.config)
    axes, shapes = flatten(logical_axes_of(model)), flatten(parameters_of(model))
    trained = flatten(differentiated(model))
    buffers = {path for path, is_one in trained.items() if not is_one}
    assert buffers == {path for path in trained if variant.is_one_of(path, variant.buffers)}
    for path, names in axes.items():
        assert len(names) == len(shapes[path].shape), path
        assert set(names) <= LOGICAL_AXES.keys(), path
        if path not in buffers and not variant.is_one_of(path, variant.unseen):
            gradient = measured(variant)[f"gradients.{path}"]
            layers = gradient if names[0] == "layers" else gradient[None]
            assert all(np.abs(layer).max() > 0 for layer in layers), path


def decoding(variant: Variant) -> None:
    """With caches, logits are those of one pass over the whole row: behind prompts of several lengths, behind
    prompts in parts, of which a row may have none, token by token, several at once, and next to a row that
    has ended; with stacked layers and without."""
    model: Any = bind(abstract_model(variant.config), parameters(variant))
    if not isinstance(model, Generates):
        raise NotApplicableError("it generates nothing")
    prompt = variant.prompt()
    whole = np.asarray(jax.jit(lambda model: variant.logits(model, prompt))(model))
    rows, slots = np.arange(len(prompt.lengths)), prompt.tokens.shape[1] + 4
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5 * np.abs(whole).max())

    @jax.jit
    def begin(model: Any) -> Any:
        return model.begin(prompt.batch, jnp.asarray(prompt.lengths), slots)

    @jax.jit
    def follow(model: Any, tokens: Any, caches: Any, offset: Any) -> Any:
        return model.next(tokens, caches, offset)

    @jax.jit
    def read_on(model: Any, *part: Any) -> Any:
        return model.read_on(*part)

    first, caches = begin(model)
    close(first, whole[rows, prompt.lengths - 1])
    offset = prompt.lengths.copy()
    for new in ((2, 3), (0, 3), (3, 1)):  # tokens of the rows, by turns; behind them stands something
        real, at = np.resize(new, len(rows)), offset[:, None] + np.arange(3)
        given = np.where(np.arange(3) < real[:, None], prompt.tokens[rows[:, None], at], 1)
        logits, caches = read_on(model, given, caches, jnp.asarray(offset), jnp.asarray(offset + real))
        offset = offset + real
        close(logits[real > 0], whole[rows, offset - 1][real > 0])
    unrolled = model.unrolled()
    first, caches = begin(unrolled)
    close(first, whole[rows, prompt.lengths - 1])
    offset = prompt.lengths.copy()
    for new in (1, 1, 1, 3, 3, 1):
        at = offset[:, None] + np.arange(new)
        logits, caches = follow(unrolled, prompt.tokens[rows[:, None], at], caches, jnp.asarray(offset))
        close(logits, whole[rows[:, None], at])
        offset = offset + new
    for _ in range(3):  # the first row has ended: it stays where it is
        at = offset[:, None]
        logits, caches = follow(unrolled, prompt.tokens[rows[:, None], at], caches, jnp.asarray(offset))
        close(logits[1:], whole[rows[1:, None], at[1:]])
        offset[1:] += 1


def _seen(variant: Variant, numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the gradients that are noise."""
    return {name: each for name, each in numbers.items() if not variant.is_one_of(name, variant.unseen)}
