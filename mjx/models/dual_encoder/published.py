"""The sizes of known models, as their configs on the hub say them."""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

from mjx.models.dual_encoder.config import DualEncoderConfig
from mjx.models.dual_encoder.huggingface import CLIP, SIGLIP
from mjx.models.interop.config_map import ConfigMap


def _sizes(width: int, layers: int, features: int | None = None, heads: int | None = None) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads or width // 64,
        "intermediate_size": features or 4 * width,
    }


def _clip(text: int, vision: tuple[int, int], patch: int, image: int = 224) -> dict[str, Any]:
    """Radford et al. 2021, table 20; towers of text have 12 layers, and are as wide as what is compared."""
    return {
        "projection_dim": text,
        "text_config": _sizes(text, 12),
        "vision_config": {**_sizes(*vision), "patch_size": patch, "image_size": image},
    }


def _siglip(
    sizes: dict[str, int], patch: int, image: int, vocab_size: int = 32000, **text: int
) -> dict[str, Any]:
    """Zhai et al. 2023, section 4; both towers have one size."""
    return {
        "text_config": {**sizes, "vocab_size": vocab_size, **text},
        "vision_config": {**sizes, "patch_size": patch, "image_size": image},
    }


_BASE, _LARGE, _SHAPED = _sizes(768, 12), _sizes(1024, 24), _sizes(1152, 27, 4304, 16)
_SIZES: dict[str, tuple[ConfigMap, dict[str, Any]]] = {
    "clip-vit-base-patch32": (CLIP, _clip(512, (768, 12), 32)),
    "clip-vit-base-patch16": (CLIP, _clip(512, (768, 12), 16)),
    "clip-vit-large-patch14": (CLIP, _clip(768, (1024, 24), 14)),
    "clip-vit-large-patch14-336": (CLIP, _clip(768, (1024, 24), 14, 336)),
    "siglip-base-patch16-224": (SIGLIP, _siglip(_BASE, 16, 224)),
    "siglip-large-patch16-256": (SIGLIP, _siglip(_LARGE, 16, 256)),
    "siglip-so400m-patch14-384": (SIGLIP, _siglip(_SHAPED, 14, 384)),
    "siglip2-base-patch16-224": (SIGLIP, _siglip(_BASE, 16, 224, 256000, pad_token_id=0)),
}


class _Published(Mapping[str, DualEncoderConfig]):
    """Made when they are asked for: the towers are those of other families."""

    def __getitem__(self, name: str) -> DualEncoderConfig:
        return _published(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_SIZES)

    def __len__(self) -> int:
        return len(_SIZES)


@functools.cache
def _published(name: str) -> DualEncoderConfig:
    table, sizes = _SIZES[name]
    return table.to_ours(sizes, name)


PUBLISHED = _Published()
