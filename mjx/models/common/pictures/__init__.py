"""Pictures as rows of patches, and what the models that read them have in common."""

from mjx.models.common.pictures.patches import (
    GRID,
    ImageInputs,
    Resizing,
    patches_of,
    pictures,
    resizing,
    whole_grid,
)
from mjx.models.common.pictures.tiles import Picture, Tiles, View, best_resolution, parts_of, unpadded

__all__ = [
    "GRID",
    "ImageInputs",
    "Picture",
    "Resizing",
    "Tiles",
    "View",
    "best_resolution",
    "parts_of",
    "patches_of",
    "pictures",
    "resizing",
    "unpadded",
    "whole_grid",
]
