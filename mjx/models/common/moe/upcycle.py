"""Experts made of a dense model's MLPs (Komatsuzaki et al. 2022), or of slices of them (He et al. 2024).

Every expert begins as one of G slices of the MLP's hidden features (G = 1: as all of them), and there are as
many copies of each. Experts stand in virtual groups, one of each slice, whose columns of the router begin
equal: a token's best experts are whole groups, so that it takes each slice equally often, with equal
probabilities. What experts write is scaled such that the model computes what the dense one did, but for
tokens that a `capacity_factor` drops in training.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mjx.errors import InputError
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe.config import MoEConfig
from mjx.models.common.pattern import SublayerConfig
from mjx.trees import Tree, flatten, unflatten

Make = Callable[[Tree, Key[Array, ""]], Tree]
"""The dense model's parameters and a key → the parameters of the model with experts."""


class Layers(Protocol):
    """What is read of a model's config."""

    @property
    def pattern(self) -> tuple[SublayerConfig, ...]: ...

    @property
    def places(self) -> tuple[tuple[str, int], ...]: ...

    @property
    def init_std(self) -> float: ...


_NEARLY_ZERO = 2.0**-20
"""Logits of about this size order the experts, and change no probability by more than rounding does."""


def upcycling(dense: Layers, config: Layers) -> Make | None:
    """How `config`'s parameters are made of `dense`'s; None: it is not `dense` with experts in MLPs' place.

    Raises:
        InputError: the experts could not compute what the MLPs do.
    """
    pairs = list(zip(dense.pattern, config.pattern, strict=False))
    if len(dense.pattern) != len(config.pattern) or not all(_alike(*pair) for pair in pairs):
        return None
    made = [_mixers(*pair) for pair in pairs]
    if not any(made):
        return None
    for each in filter(None, made):
        slices_of(*each)

    def make(parameters: Tree, key: Key[Array, ""]) -> Tree:
        flat = flatten(parameters)
        whole = {path: leaf for path, leaf in flat.items() if not path.startswith("decoder.segments.")}
        layers: dict[str, list[Tree]] = {}
        places = zip(dense.places, config.places, strict=True)
        for number, ((path, index), (target, _)) in enumerate(places):
            inside = {
                name.removeprefix(f"{path}."): leaf[index]
                for name, leaf in flat.items()
                if name.startswith(f"{path}.")
            }
            layer, mixers = unflatten(inside), made[number]
            if mixers is not None:
                mlp, own = layer.pop(MLPConfig.name), jax.random.fold_in(key, number)
                layer[MoEConfig.name] = experts_of(*mixers, mlp, own, std=config.init_std)
            layers.setdefault(target, []).append(layer)
        for path, each in layers.items():
            whole |= flatten(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each), path)
        return unflatten(whole)

    return make


def _alike(one: SublayerConfig, other: SublayerConfig) -> bool:
    """Whether nothing differs but an MLP in whose place are experts."""
    same = one.mixer == other.mixer or _mixers(one, other) is not None
    return same and dataclasses.replace(other, mixer=one.mixer) == one


def _mixers(one: SublayerConfig, other: SublayerConfig) -> tuple[MLPConfig, MoEConfig] | None:
    """The MLP and the experts that are made of it."""
    if isinstance(one.mixer, MLPConfig) and isinstance(other.mixer, MoEConfig):
        return one.mixer, other.mixer
    return None


def slices_of(dense: MLPConfig, config: MoEConfig) -> int:
    """Into how many slices the MLP's hidden features are cut: the granularity.

    Raises:
        InputError: the experts could not compute what the MLP does.
    """
    for field in dataclasses.fields(MLPConfig):
        one, other = getattr(dense, field.name), getattr(config.mlp, field.name)
        if field.name != "features" and one != other:
            raise InputError(
                f"model.moe.mlp.{field.name} = {other} differs from the MLP that the experts are made of, "
                f"where it is {one}; leave it out"
            )
    for name, value in (("shared_features", config.shared_features), ("latent", config.latent)):
        if value is not None:
            raise InputError(
                f"model.moe.{name} = {value}: the dense model has no weights for it; experts that are made "
                f"of its MLPs need {name} = null"
            )
    features = config.mlp.features
    if dense.features % features:
        raise InputError(
            f"model.moe.mlp.features = {features} does not divide the {dense.features} of the MLP, of which "
            "every expert gets an equal slice"
        )
    slices = dense.features // features
    for name, value in (("experts", config.experts), ("top_k", config.top_k)):
        if value % slices:
            raise InputError(
                f"model.moe.{name} = {value} is no multiple of the {slices} slices of {features} features "
                f"that the MLP's {dense.features} are cut into: a token takes every slice equally often"
            )
    router = config.router
    if router.groups is not None and (config.experts // router.groups) % slices:
        raise InputError(
            f"model.moe.router.groups = {router.groups} puts {config.experts // router.groups} experts in a "
            f"group, which is no multiple of the {slices} slices of the MLP: a token could not take each"
        )
    if router.sinkhorn and slices > 1:
        raise InputError(
            "model.moe.router.sinkhorn = true balances each expert by itself: a token would not take each of "
            f"the MLP's {slices} slices; use load-balancing losses, or whole MLPs (moe.mlp.features = "
            f"{dense.features})"
        )
    return slices


def experts_of(dense: MLPConfig, config: MoEConfig, mlp: Tree, key: Key[Array, ""], *, std: float) -> Tree:
    """The parameters of a mixture that computes what the MLP does with its own."""
    slices = slices_of(dense, config)
    copies = config.experts // slices
    total = _sum_of_probabilities(config)
    on_input = config.probabilities_on == "input"
    read, written = (1 / total, 1.0) if on_input else (1.0, slices / total)

    def of_all(array: Array, axis: int) -> Array:
        """Expert `copy · slices + slice` gets this slice."""
        parts = jnp.stack(jnp.split(array, slices, axis=axis))
        return jnp.concatenate([parts] * copies)

    experts: Tree = {}
    for name in ("gate", "up") if dense.gated else ("up",):
        experts[name] = {"kernel": read * of_all(mlp[name]["kernel"], 1)}
        if dense.bias:
            experts[name]["bias"] = of_all(mlp[name]["bias"], 0)
    experts["down"] = {"kernel": written * of_all(mlp["down"]["kernel"], 0)}
    if dense.bias:
        share = written / slices * mlp["down"]["bias"]
        experts["down"]["bias"] = jnp.broadcast_to(share, (config.experts, *share.shape))
    embed, zeros = mlp["up"]["kernel"].shape[0], jnp.zeros((config.experts,), jnp.float32)
    if not config.router.normalized:
        std = _NEARLY_ZERO / math.sqrt(embed)
    kernel: Float[Array, "embed copies"] = std * jax.random.normal(key, (embed, copies), jnp.float32)
    router: Tree = {"kernel": jnp.repeat(kernel, slices, axis=1)}
    if config.router.bias:
        router["bias"] = zeros
    if config.router.expert_bias_rate is not None:
        router["expert_bias"] = zeros
    return {"router": router, "experts": experts}


def _sum_of_probabilities(config: MoEConfig) -> float:
    """Over the experts that a token takes, at the start.

    Where they are not normalised it would differ from token to token: so the router begins nearly at zero,
    and all scores are equal.
    """
    router = config.router
    if router.normalized:
        return router.scaling
    score = {"softmax": 1 / config.experts, "sigmoid": 0.5, "sqrt-softplus": math.sqrt(math.log(2))}
    return config.top_k * score[router.scores] * router.scaling
