"""Mamba and hybrids: language models whose sub-layers a pattern string names, one symbol for each.

Gu and Dao 2023 (Mamba), Dao and Gu 2024 (Mamba-2), Waleffe et al. 2024 (hybrids in Megatron).
"""

import dataclasses
import functools
from typing import ClassVar

from mjx.bounds import check_scale
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.language_model import LanguageModelConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.moe import MoEConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.pattern import MixerConfig, ResidualConfig, SublayerConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.mamba.hybrid_pattern import MIXERS, missing, symbols_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class MambaConfig(LanguageModelConfig):
    """A decoder of pre-norm residual sub-layers between an embedding and a head.

    What a symbol stands for is described once, for all of its places.
    """

    family: ClassVar[str] = "mamba"
    training_choices: ClassVar[tuple[str, ...]] = (
        *LanguageModelConfig.training_choices,
        *("attention.dropout", "attention.implementation"),
        *(f"ssd.{name}" for name in SSDConfig.training_choices),
        *(f"selective_scan.{name}" for name in SelectiveScanConfig.training_choices),
        *(f"moe.{name}" for name in MoEConfig.training_choices),
    )

    hybrid_pattern: str
    """A symbol for each sub-layer: M Mamba-2, m Mamba-1, * attention, - MLP, E experts. `|` may stand between
    them, as where Megatron begins a pipeline stage, and changes nothing."""
    ssd: SSDConfig | None = None
    """Of M."""
    selective_scan: SelectiveScanConfig | None = None
    """Of m."""
    attention: AttentionConfig | None = None
    """Of *."""
    mlp: MLPConfig | None = None
    """Of -."""
    moe: MoEConfig | None = None
    """Of E."""
    norm: NormConfig = NormConfig(kind="rmsnorm")
    """Of every sub-layer's input, and before the head."""
    residual_scale: float = 1.0
    """Factor on what each sub-layer adds to the residual stream."""

    def __post_init__(self):
        super().__post_init__()
        check_scale("model.residual_scale", self.residual_scale)
        self.pattern  # noqa: B018  # its configs check themselves

    @property
    def final_norm(self) -> NormConfig:
        return self.norm

    @property
    def symbols(self) -> str:
        """One for each sub-layer."""
        return symbols_of(self.hybrid_pattern)

    def sublayers(self) -> tuple[SublayerConfig, ...]:
        symbols = self.symbols
        mixers = {symbol: self._mixer(MIXERS[symbol]) for symbol in dict.fromkeys(symbols)}
        sublayer = functools.partial(
            SublayerConfig,
            norm=self.norm,
            residual=ResidualConfig(scale=self.residual_scale),
            dropout=self.dropout,
        )
        return tuple(sublayer(mixer=mixers[symbol]) for symbol in symbols)

    def _mixer(self, field: str) -> MixerConfig:
        """What a field describes, every size filled in."""
        mixer = getattr(self, field)
        if mixer is None:
            raise missing(self.hybrid_pattern, field)
        resolve = getattr(mixer, "resolve", None)
        return mixer if resolve is None else resolve(self.hidden_size)
