"""What a mixture of experts is made of."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from mjx.bounds import check_scale
from mjx.errors import InputError
from mjx.models.backends import Implementation
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.pattern import Lengths, MixerConfig, StepOnMesh, Work
from mjx.models.report import Statistic
from mjx.trees import Tree

if TYPE_CHECKING:
    from mjx.models.common.moe.mixer import MoE


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterConfig:
    """Which experts a token takes, with which probabilities, and what keeps the experts evenly loaded."""

    scores: Literal["softmax", "sigmoid", "sqrt-softplus"] = "softmax"
    """Of the logits; experts are chosen by them (Mixtral; DeepSeek-V3; DeepSeek-V4)."""
    normalized: bool = True
    """Whether the probabilities of the chosen experts sum to 1: with softmax, it is taken of theirs alone."""
    scaling: float = 1.0
    """Factor on the probabilities (DeepSeek-V3: 2.5)."""
    groups: int | None = None
    """Experts are in so many groups, of which a token chooses some first; null: all are one group."""
    top_groups: int | None = None
    """Groups that a token chooses, by the sum of the best top_k / top_groups scores in each."""
    bias: bool = False
    """Add a bias to the logits (gpt-oss)."""
    expert_bias_rate: float | None = None
    """Experts are chosen by score + bias, and after each step the biases of those with fewer tokens than the
    mean rise by this, of those with more fall (Wang et al. 2024; DeepSeek-V3: 1e-3). Null: no such biases."""
    sinkhorn: bool = False
    """In training, choose after the scores were balanced over experts (Clark et al. 2022)."""
    precision: Literal["float32", "float64"] = "float32"
    """Of logits, scores and probabilities, whatever the stream has."""
    jitter: float = 0.0
    """In training, multiply what the router reads by numbers between 1 ± this (Fedus et al. 2021)."""
    load_balancing_loss: float = 0.0
    """Weight of experts · Σ share of tokens · mean score (Fedus et al. 2021, equation 4): 1 if balanced."""
    sequence_load_balancing_loss: float = 0.0
    """Weight of the same for each document by itself (DeepSeek-V3, section 2.1.2)."""
    global_load_balancing_loss: float = 0.0
    """Weight of the same with shares of the whole batch so far, microbatches included (Qiu et al. 2025)."""
    z_loss: float = 0.0
    """Weight of the mean of log²Σexp(logits) (Zoph et al. 2022, equation 5)."""

    def __post_init__(self):
        for name in ("load_balancing_loss", "sequence_load_balancing_loss", "global_load_balancing_loss"):
            if not getattr(self, name) >= 0:
                raise InputError(f"moe.router.{name} = {getattr(self, name)} must be positive, or 0 for none")
        if not self.z_loss >= 0:
            raise InputError(f"moe.router.z_loss = {self.z_loss} must be positive, or 0 for none")
        check_scale("moe.router.scaling", self.scaling)
        if not 0 <= self.jitter < 1:
            raise InputError(f"moe.router.jitter = {self.jitter} must be at least 0 and below 1")
        if self.expert_bias_rate is not None:
            check_scale("moe.router.expert_bias_rate", self.expert_bias_rate, ", or null for no biases")
            if self.scores == "softmax":
                raise InputError(
                    "moe.router.expert_bias_rate needs moe.router.scores = sigmoid or sqrt-softplus: softmax "
                    "makes no scores that a bias can be compared with"
                )
        if (self.groups is None) != (self.top_groups is None):
            raise InputError(
                "moe.router.groups and moe.router.top_groups go together, but "
                f"{'groups' if self.groups is None else 'top_groups'} is null"
            )
        balanced = self.load_balancing_loss or self.sequence_load_balancing_loss
        if self.sinkhorn and (balanced or self.global_load_balancing_loss or self.expert_bias_rate):
            raise InputError(
                "moe.router.sinkhorn = true balances the experts by itself; it goes with no load-balancing "
                "loss and no expert_bias_rate"
            )
        if self.sinkhorn and (self.normalized or self.groups is not None):
            raise InputError(
                "moe.router.sinkhorn = true needs moe.router.normalized = false, and no groups: the scores "
                "of all experts are the probabilities"
            )

    def check(self, experts: int, top_k: int) -> None:
        """Raise `InputError` if it cannot choose `top_k` of so many experts."""
        if top_k > experts:
            raise InputError(f"moe.top_k = {top_k} is more than moe.experts = {experts}")
        if top_k == 1 and self.normalized:
            raise InputError(
                "moe.top_k = 1 needs moe.router.normalized = false: a single probability that sums to 1 "
                "is 1, and the router would learn nothing"
            )
        if self.groups is None or self.top_groups is None:
            return
        if self.groups < 1 or experts % self.groups:
            raise InputError(f"moe.router.groups = {self.groups} does not divide moe.experts = {experts}")
        if not 1 <= self.top_groups <= self.groups:
            raise InputError(
                f"moe.router.top_groups = {self.top_groups} must be from 1 to moe.router.groups = "
                f"{self.groups}"
            )
        if top_k % self.top_groups:
            raise InputError(
                f"moe.router.top_groups = {self.top_groups} does not divide moe.top_k = {top_k}: each "
                "group's score is the sum of its best top_k / top_groups"
            )
        if top_k > self.top_groups * (experts // self.groups):
            raise InputError(
                f"moe.top_k = {top_k} is more than the {self.top_groups * (experts // self.groups)} "
                f"experts in moe.router.top_groups = {self.top_groups} groups"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DispatchConfig:
    """How tokens come to experts on other devices, and back. Where `exact`, it changes last digits alone."""

    way: Literal["auto", "gather", "fixed", "ragged"] = "auto"
    """gather: every device gets all tokens of its expert group. fixed: it sends cells of one size to each
    expert. auto: whichever of these sends less. ragged: it sends each other device what is for its experts,
    by a collective that some GPUs and drivers have had wrong, and which is tried out at start."""
    cell: float = 1.25
    """Rows of a cell (fixed), or that a device has room for (ragged), as a multiple of what they would be if
    all experts got the same."""
    exact: bool = True
    """Where a cell or the room would overflow, compute the layer by gather instead; false: leave those
    choices out, and count them as dropped."""

    def __post_init__(self):
        check_scale("moe.dispatch.cell", self.cell)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoEConfig(MixerConfig):
    """A mixture of experts: each token's sum over the experts it takes, weighed by its probabilities."""

    name: ClassVar[str] = "moe"
    rows_apart: ClassVar[bool] = False
    training_choices: ClassVar[tuple[str, ...]] = (
        *("router.precision", "router.jitter", "router.sinkhorn", "router.z_loss"),
        "router.load_balancing_loss",
        *("router.sequence_load_balancing_loss", "router.global_load_balancing_loss", "capacity_factor"),
        *("drop_by", "pad_to_capacity", "dispatch.way", "dispatch.cell", "dispatch.exact"),
        "implementation",
    )
    """As those of a model's config: what a run may choose freely for given weights."""

    experts: int
    """Of the mixture."""
    top_k: int = 2
    """Experts that a token takes."""
    mlp: MLPConfig
    """Of each expert."""
    router: RouterConfig = RouterConfig()
    """Which experts a token takes."""
    shared_features: int | None = None
    """Hidden features of an expert that every token takes as well; null: there is none."""
    shared_gate: bool = False
    """Multiply what the shared expert adds by a sigmoid of the token (Qwen2-MoE)."""
    latent: int | None = None
    """Features that experts read and write, projected from and to those of the stream; null: the stream's.
    The projections have biases where experts have."""
    probabilities_on: Literal["output", "input"] = "output"
    """Whether probabilities multiply what experts write, or what they read (Llama 4)."""
    capacity_factor: float | None = None
    """In training, an expert takes at most this × tokens · top_k / experts tokens of a microbatch; what is
    more is dropped: the token goes without. Null: no token is ever dropped."""
    drop_by: Literal["probability", "position"] = "probability"
    """What is dropped: the least probable, or the last of the rows."""
    pad_to_capacity: bool = False
    """Compute all rows that an expert may take, so that the work is the same however tokens choose."""
    dispatch: DispatchConfig = DispatchConfig()
    """How tokens come to experts on other devices."""
    implementation: Implementation = "auto"
    """Of products of rows with their experts' weights. auto: one loop with the whole MLP in it, which holds
    the least; else three grouped products by this one (see `mjx backends`)."""

    def __post_init__(self):
        for name in ("experts", "top_k"):
            if getattr(self, name) < 1:
                raise InputError(f"moe.{name} = {getattr(self, name)} must be positive")
        for name in ("shared_features", "latent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"moe.{name} = {value} must be positive, or null for none")
        self.router.check(self.experts, self.top_k)
        if self.shared_gate and self.shared_features is None:
            raise InputError("moe.shared_gate = true needs moe.shared_features, which is null")
        if self.capacity_factor is not None:
            check_scale("moe.capacity_factor", self.capacity_factor, ", or null to drop nothing")
            if self.router.sinkhorn:
                raise InputError(
                    "moe.capacity_factor goes with load-balancing losses or none, not with "
                    "moe.router.sinkhorn = true"
                )
        elif self.pad_to_capacity:
            raise InputError("moe.pad_to_capacity = true needs moe.capacity_factor, which is null")
        if self.probabilities_on == "input" and self.top_k > 1:
            raise InputError(
                f"moe.probabilities_on = input needs moe.top_k = 1, not {self.top_k}: experts are not linear"
            )

    @property
    def shared_mlp(self) -> MLPConfig | None:
        """Of the expert that every token takes."""
        if self.shared_features is None:
            return None
        return dataclasses.replace(self.mlp, features=self.shared_features)

    def build(self, embed: int, *, std: float, output_std: float, rngs: nnx.Rngs) -> "MoE":
        from mjx.models.common.moe.mixer import MoE

        return MoE(self, embed, std=std, output_std=output_std, rngs=rngs)

    def flops_per_token(self, embed: int, lengths: Lengths) -> float:
        """Of the experts that a token takes, not of all."""
        width = self.latent or embed
        flops = 2 * embed * self.experts + self.top_k * self.mlp.flops_per_token(width, lengths)
        if self.latent is not None:
            flops += 2 * 2 * embed * self.latent
        if self.shared_mlp is not None:
            flops += self.shared_mlp.flops_per_token(embed, lengths) + 2 * embed * self.shared_gate
        return flops

    def work(self, embed: int, step: StepOnMesh) -> Work:
        from mjx.models.common.moe.work import work

        return work(self, embed, step)

    def check_devices(self, embed: int) -> None:
        from mjx.models.common.moe.exchange import check_exchange
        from mjx.models.common.moe.experts import shapes_of
        from mjx.models.common.moe.layout import owners_of

        owners = owners_of(shapes_of(self, embed)) if self.dispatch.way == "ragged" else ()
        if owners:
            check_exchange(owners)

    @property
    def decoding(self) -> "MoEConfig":
        """How it decodes: of a few tokens an expert easily gets more than any cell holds."""
        return dataclasses.replace(self, dispatch=DispatchConfig(way="gather"))

    def idle_parameters(self, embed: int) -> int:
        return (self.experts - self.top_k) * self.mlp.num_parameters(self.latent or embed)

    def after_step(self, parameters: Tree, statistics: Mapping[str, Array]) -> Tree:
        """Biases of experts that had fewer tokens than the mean rise, of those that had more fall."""
        rate = self.router.expert_bias_rate
        if rate is None:
            return parameters
        load = statistics["load"] - statistics["dropped"]
        moved = parameters["router"]["expert_bias"] + rate * jnp.sign(jnp.mean(load) - load)
        return {**parameters, "router": {**parameters["router"], "expert_bias": moved}}

    def summary(self, statistics: Mapping[str, Array]) -> Mapping[str, Statistic]:
        """The most and the fewest tokens of an expert, as multiples of the mean; and how many choices of an
        expert were dropped, in all layers together."""
        load = statistics["load"]
        mean = jnp.maximum(jnp.mean(load), 1)
        return {
            "expert_load_max": Statistic(jnp.max(load) / mean, "max"),
            "expert_load_min": Statistic(jnp.min(load) / mean, "min"),
            "choices_dropped": Statistic(jnp.sum(statistics["dropped"])),
        }
