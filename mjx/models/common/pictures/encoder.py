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
    frames: int = 1
    """Of a video, one behind the other, in a patch; a picture is as many of the same."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("num_layers", "patch_size", "channels", "frames"):
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
        return self.channels * self.frames * self.patch_size**2

    @property
    def sequence(self) -> int:
        """Tokens of a picture of `image_size`."""
        rows, columns = self.grid
        return self.learned_tokens + rows * columns

    @property
    def said_features(self) -> int:
        """Of what the model's `pooled` says of a whole picture."""
        return self.hidden_size

    def pooled_flops(self, arrays: BatchArrays) -> float:
        """Forward, of what is said of a batch's whole pictures."""
        return 0.0

    def tokens_in(self, arrays: BatchArrays) -> tuple[int, int]:
        """The rows of a batch of `images` or `patches`, and the tokens of one."""
        if "images" in arrays:
            return arrays["images"].shape[0], self.sequence
        rows, sequence, _ = arrays["patches"].shape
        return rows, sequence

    def check_pictures(self, arrays: BatchArrays) -> None:
        """Raise `InputError` if the `images` or `patches` are not those of this model's pictures."""
        if "images" in arrays:
            _, channels, *size = arrays["images"].shape
            if (channels, *size) != (self.channels, *self.image_size):
                raise InputError(
                    f"batch array 'images' has pictures of {size[0]} × {size[1]} pixels with {channels} "
                    f"channels (data.image); the model takes model.image_size = {list(self.image_size)} "
                    f"with model.channels = {self.channels}"
                )
            return
        _, sequence, pixels = arrays["patches"].shape
        if pixels != self.patch_features:
            raise InputError(
                f"batch array 'patches' has patches of {pixels} numbers; model.channels = {self.channels} "
                f"model.frames = {self.frames} and model.patch_size = {self.patch_size} make "
                f"{self.patch_features}"
            )
        if "grid" not in arrays and sequence != self.sequence:
            raise InputError(
                f"batch array 'patches' has {sequence} tokens in a row; a picture of model.image_size = "
                f"{list(self.image_size)} has {self.sequence}"
            )
