"""Mixtures of experts: of many MLPs every token takes a few (Shazeer et al. 2017)."""

from mjx.models.common.moe.config import DispatchConfig, MoEConfig, RouterConfig

__all__ = ["DispatchConfig", "MoEConfig", "RouterConfig"]
