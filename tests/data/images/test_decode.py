"""Pictures of every kind become what an eye would see; broken ones are named."""

import io

import numpy as np
import pytest

from mjx.data.images.decode import BrokenPictureError, decoded

Image = pytest.importorskip("PIL.Image")

RED = (255, 0, 0)


def written(picture, kind="PNG", **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def test_colours_whatever_the_mode():
    deep = Image.fromarray(np.full((2, 2), 128 * 257, np.uint16))
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, *RED])
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    for content, colour in [
        (written(Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "JPEG", quality=100), (254, 0, 0)),
        (written(deep), (128, 128, 128)),
        (written(deep, "TIFF"), (128, 128, 128)),
        (written(palette), RED),
        (written(palette, transparency=1), (255, 255, 255)),
        (written(clear), (255, 255, 255)),
        (written(Image.new("LA", (2, 2), (0, 51))), (204, 204, 204)),
        (written(Image.new("1", (2, 2), 1)), (255, 255, 255)),
        (written(Image.new("RGB", (2, 2), RED), "GIF", save_all=True, append_images=[clear]), RED),
    ]:
        found = np.asarray(decoded(content))
        assert found.shape == (2, 2, 3)
        np.testing.assert_allclose(found[0, 0], colour, atol=1)
    assert np.asarray(decoded(written(Image.new("RGB", (2, 2), RED)), 1)).tolist() == [[76, 76], [76, 76]]


def test_a_photograph_is_turned_as_its_exif_data_say():
    picture = Image.new("RGB", (16, 8))
    picture.paste(RED, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera stood on its side: what is left is up
    found = np.asarray(decoded(written(picture, "JPEG", exif=exif, quality=100)))
    assert found.shape == (16, 8, 3)
    assert found[2, 4, 0] > 200
    assert found[13, 4, 0] < 50


def bomb() -> bytes:
    """A header that says 30,000 × 40,000 pixels."""
    content = bytearray(written(Image.new("1", (1, 1))))
    content[16:24] = (30_000).to_bytes(4, "big") + (40_000).to_bytes(4, "big")
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def test_what_cannot_be_read_is_said():
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = written(Image.fromarray(random), "JPEG")
    for content, why in [
        (b"", "the file is empty"),
        (b"hello", "not a picture"),
        (whole[: len(whole) // 2], "not readable"),
        (written(Image.fromarray(random))[:300], "not readable"),
        (bomb(), "too many pixels"),
        (written(Image.new("F", (2, 2)), "TIFF"), "fractions"),
    ]:
        with pytest.raises(BrokenPictureError, match=why):
            decoded(content)
