"""What each implementation of an op can do, as data, and the choice among them."""

import dataclasses
from collections.abc import Mapping

import jax

from mjx.errors import InputError
from mjx.gpus.data_sheet import peaks

Platform = str
"""cpu, gpu (NVIDIA) or tpu."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Which sizes of one dimension are possible."""

    multiple_of: int = 1
    at_most: int | None = None
    before: tuple[float, int] | None = None
    """(9.0, 128): on GPUs below compute capability 9.0, at most 128."""

    def refusal(self, size: int, compute_capability: float | None) -> str | None:
        """Why not this size; None where it is possible."""
        if size % self.multiple_of:
            return f"(needs a multiple of {self.multiple_of})"
        if self.at_most is not None and size > self.at_most:
            return f"(at most {self.at_most})"
        if self.before is not None and compute_capability is not None:
            newer, limit = self.before
            if compute_capability < newer and size > limit:
                return f"(at most {limit} below compute capability {newer})"
        return None

    def __str__(self) -> str:
        limits = ["any" if self.at_most is None else f"≤ {self.at_most}"]
        limits += [f"multiples of {self.multiple_of}"] if self.multiple_of > 1 else []
        limits += [f"≤ {self.before[1]} before sm_{self.before[0] * 10:.0f}"] if self.before else []
        return ", ".join(limits)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capability:
    """One implementation of an op: a row of its table."""

    platforms: tuple[Platform, ...]
    dtypes: tuple[str, ...]
    """Of the inputs."""
    features: frozenset[str]
    """The names are the op's own."""
    sizes: Mapping[str, Sizes] = dataclasses.field(default_factory=dict)
    """Dimension → its possible sizes; dimensions that are not named may have any."""
    compute_capability: float | None = None
    """The oldest GPU."""
    newest_compute_capability: float | None = None
    """The newest GPU, for instructions that later ones no longer have."""
    per_device: bool = False
    """Whether its kernels know one device alone: on a mesh they have to run inside `jax.shard_map`."""
    automatic: tuple[Platform, ...] = ()
    """Where `auto` may choose it; the first row of the table that can do what is asked is chosen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What a call asks of an implementation."""

    platform: Platform
    dtype: str | None = None
    """None: any that the implementation has."""
    features: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    compute_capability: float | None = None
    """None: no GPU, or one that is not there to be asked (compiling ahead of time)."""

    def refusals(self, capability: Capability) -> list[str]:
        """All that the implementation cannot do; empty if it can do everything."""
        found = []
        if self.platform not in capability.platforms:
            found.append(f"platform {self.platform} (runs on {', '.join(capability.platforms)})")
        oldest, gpu = capability.compute_capability, self.compute_capability
        if self.platform == "gpu" and oldest is not None and gpu is not None and gpu < oldest:
            found.append(f"a GPU of compute capability {gpu} (needs {oldest})")
        newest = capability.newest_compute_capability
        if self.platform == "gpu" and newest is not None and gpu is not None and gpu > newest:
            found.append(f"a GPU of compute capability {gpu} (knows none after {newest})")
        if self.dtype is not None and self.dtype not in capability.dtypes:
            found.append(f"dtype {self.dtype} (takes {', '.join(capability.dtypes)})")
        for name, size in self.sizes.items():
            why = capability.sizes.get(name, Sizes()).refusal(size, self.compute_capability)
            if why is not None:
                found.append(f"{name} = {size} {why}")
        return found + sorted(self.features - capability.features)


Table = Mapping[str, Capability]
"""Implementation → what it can do, in the order in which `auto` tries them."""


def choose(op: str, table: Table, implementation: str, request: Request) -> str:
    """The implementation that computes a call: the one named, or for `auto` the first that can.

    Raises:
        InputError: it cannot do what is asked; the sentence names those that can. Nothing else is
            ever taken instead.
    """
    able = [name for name, row in table.items() if not request.refusals(row)]
    if implementation == "auto":
        for name in able:
            if request.platform in table[name].automatic:
                return name
        tried = "; ".join(f"{name}: not {', '.join(request.refusals(row))}" for name, row in table.items())
        raise InputError(f"no implementation of {op} can do what is asked ({tried})")
    if implementation not in table:
        raise InputError(
            f"{op}: there is no implementation {implementation!r} (choose from {', '.join(('auto', *table))})"
        )
    refusals = request.refusals(table[implementation])
    if refusals:
        named = f"{', '.join(able[:-1])} and {able[-1]}" if len(able) > 1 else "".join(able)
        others = f"{named} can" if able else "no other implementation can either"
        raise InputError(
            f"{op}: implementation = {implementation!r} cannot do {', '.join(refusals)}; {others}"
        )
    return implementation


def current_device() -> tuple[Platform, float | None]:
    """Platform and compute capability of the devices that a call would run on: the mesh's, or the default.

    A mesh comes first: its devices may be those of a machine that is only compiled for.
    """
    abstract = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    platform = getattr(abstract, "platform", None)
    device = jax.config.jax_default_device  # type: ignore[attr-defined]
    if platform is None:
        platform = device if isinstance(device, str) else getattr(device, "platform", None)
    if platform is None:
        platform = jax.default_backend()
    platform = "gpu" if platform in ("cuda", "gpu") else platform
    if platform != "gpu":
        return platform, None
    if abstract is not None:
        known = peaks(str(abstract.device_kind))  # of a GPU that is not here to be asked
        if known is not None and known.compute_capability is not None:
            return platform, known.compute_capability
    if jax.default_backend() != "gpu":
        return platform, None
    return platform, float(jax.devices("gpu")[0].compute_capability)  # type: ignore[attr-defined]
