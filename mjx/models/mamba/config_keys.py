"""What the tables of other libraries' configs of this family have in common."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from mjx.models.common.state_space import TimeStepConfig
from mjx.models.interop.canonical import canonical_attention, canonical_moe, shortened, training_defaults
from mjx.models.interop.config_map import Fields, Theirs
from mjx.models.mamba.config import MambaConfig, ScaleConfig, ScalesConfig
from mjx.models.mamba.hybrid_pattern import MIXERS, symbols_of, uncut
from mjx.models.mamba.shared_block import SharedBlockConfig


@dataclasses.dataclass(frozen=True)
class Unused:
    """What the pattern has no symbol for is not described, whatever their keys say of it."""

    pattern: Callable[[Theirs], str]

    def names(self) -> Sequence[str]:
        return ()

    def ours(self, theirs: Theirs) -> Fields:
        symbols = symbols_of(self.pattern(theirs))
        return {name: None for symbol, name in MIXERS.items() if symbol not in symbols}

    def theirs(self, config: MambaConfig) -> dict[str, Any]:
        return {}


def canonical(config: MambaConfig) -> MambaConfig:
    """One spelling for all configs of the same model, without what only training chooses."""
    symbols, hidden = config.symbols, config.hidden_size
    mixers: dict[str, Any] = {
        "ssd": config.ssd and _without_choices(config.ssd.resolve(hidden)),
        "selective_scan": config.selective_scan and _without_choices(config.selective_scan.resolve(hidden)),
        "attention": config.attention and canonical_attention(config.attention, hidden),
        "mlp": config.mlp,
        "moe": canonical_moe(config.moe),
        "shared_block": config.shared_block and _canonical_block(config.shared_block, hidden),
    }
    used = {name: mixers[name] if symbol in symbols else None for symbol, name in MIXERS.items()}
    scales = {name: getattr(config.scales, name) if mixer else ScaleConfig() for name, mixer in used.items()}
    return dataclasses.replace(
        config,
        scales=ScalesConfig(**scales),
        hybrid_pattern=uncut(config.hybrid_pattern),
        embedding_scale=shortened(config.embedding_scale),
        logit_scale=shortened(config.logit_scale),
        **used,
        **training_defaults(MambaConfig),
    )


def _canonical_block(block: SharedBlockConfig, hidden_size: int) -> SharedBlockConfig:
    block = block.resolve(hidden_size)
    return dataclasses.replace(block, attention=canonical_attention(block.attention, hidden_size))


def _without_choices(mixer: Any) -> Any:
    """Of a state space: without what only training chooses, and sizes that others follow from."""
    fields = {field.name: field.default for field in dataclasses.fields(mixer)}
    chosen = [name for name in mixer.training_choices if "." not in name]
    changed = {name: fields[name] for name in (*chosen, "expand")}
    return dataclasses.replace(mixer, dt=TimeStepConfig(limit=mixer.dt.limit), **changed)
