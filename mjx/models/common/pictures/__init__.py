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

__all__ = ["GRID", "ImageInputs", "Resizing", "patches_of", "pictures", "resizing", "whole_grid"]
