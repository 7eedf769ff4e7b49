"""What a model that reads pictures has, for those that are made with one."""

import dataclasses

from mjx.batch import BatchArrays
from mjx.errors import InputError
from mjx.models.common.stacked_config import StackedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureEncoderConfig(StackedConfig):
    """A stack whose tokens are patches of pictures, behind tokens that are learned."""

    num_layers: int
    """Pairs of an attention sub-layer and one of an MLP."""
    image_size: tuple[int, int] = (224, 224)
    """Height and width in pixels of the pictures in batches that say nothing else."""
    patch_size: int = 16
    """Pixels along each side of a patch."""
    channels: int = 3
    """Of a pixel."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_layers", "patch_size", "channels"):
            if getattr(self, name) < 1:
                raise InputError(f"model.{name} = {getattr(self, name)} must be positive")
        for name, size in zip(("height", "width"), self.image_size, strict=True):
            if size < self.patch_size:
                raise InputError(
                    f"model.image_size has a {name} of {size} pixels, less than model.patch_size = "
                    f"{self.patch_size}"
                )

    @property
    def learned_tokens(self) -> int:
        """In front of a picture's patches."""
        raise NotImplementedError(type(self))

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a picture of `image_size`."""
        height, width = self.image_size
        return height // self.patch_size, width // self.patch_size

    @property
    def patch_features(self) -> int:
        """Numbers of a flattened patch."""
        return self.channels * self.patch_size**2

    @property
    def sequence(self) -> int:
        """Tokens of a picture of `image_size`."""
        rows, columns = self.grid
        return self.learned_tokens + rows * columns

    def check_patches(self, arrays: BatchArrays) -> None:
        """Raise `InputError` if the patches are not those of this model's pictures."""
        _, sequence, pixels = arrays["patches"].shape
        if pixels != self.patch_features:
            raise InputError(
                f"batch array 'patches' has patches of {pixels} numbers; model.channels = {self.channels} "
                f"and model.patch_size = {self.patch_size} make {self.patch_features}"
            )
        if "grid" not in arrays and sequence != self.sequence:
            raise InputError(
                f"batch array 'patches' has {sequence} tokens in a row; a picture of model.image_size = "
                f"{list(self.image_size)} has {self.sequence}"
            )
