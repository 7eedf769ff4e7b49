"""Pictures in tiles whose features are one grid, against transformers, with weights that it has drawn."""

import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.huggingface import from_pretrained, save_pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

IMAGE = 60
PINPOINTS = [[28, 56], [84, 28], [56, 56], [28, 28]]
SIZES = {"wide": (30, 70), "high": (120, 33), "square": (50, 52), "small": (20, 24), "flat": (9, 200)}
"""Heights and widths in pixels."""


@pytest.fixture(scope="module", params=["clip_vision_model", "siglip_vision_model"])
def theirs(request, tmp_path_factory):
    torch.manual_seed(0)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
    config = transformers.LlavaNextConfig(
        text_config={**text, "model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2},
        vision_config={**vision, "model_type": request.param, "image_size": 28, "patch_size": 7},
        image_token_index=IMAGE,
        image_grid_pinpoints=PINPOINTS,
        vision_feature_select_strategy="default" if request.param.startswith("clip") else "full",
    )
    model = transformers.LlavaNextForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("llava_next")
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(scope="module")
def ours(theirs):
    return from_pretrained(theirs[1])


def batch(model, rows):
    """Rows of text with pictures of these sizes."""
    random = np.random.RandomState(2)
    sizes = [SIZES[name] for row in rows for name in row]
    tiles = [tiles_of(size) for size in sizes]
    images = np.zeros((len(sizes), max(tiles, default=1), 3, 28, 28), np.float32)
    for picture, number in zip(images, tiles, strict=True):
        picture[:number] = random.randn(number, 3, 28, 28)
    with torch.no_grad():
        seen = model.get_image_features(torch.tensor(images), torch.tensor(sizes)).pooler_output
    counts = iter(map(len, seen))
    texts = []
    for row in rows:
        text = [1, 2, 3]
        for _ in row:
            text += [*[IMAGE] * next(counts), *random.randint(1, IMAGE, 3)]
        texts.append(text)
    width = max(map(len, texts)) + 2
    tokens = np.array([[*text, *random.randint(1, IMAGE, width - len(text))] for text in texts])
    return {"input_ids": tokens, "pixel_values": images, "image_sizes": np.array(sizes)}


def tiles_of(size):
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    return image_size_to_num_patches(size, PINPOINTS, 28)


@pytest.mark.parametrize(
    "rows",
    [(("wide",), ("high",)), (("square", "flat"), ("small",)), ((), ("flat", "small", "high"))],
    ids=str,
)
def test_logits_equal_transformers_with_pictures_of_many_shapes(theirs, ours, rows):
    model, _ = theirs
    given = batch(model, rows)
    with torch.no_grad():
        expected = model(**{name: torch.tensor(array) for name, array in given.items()})
    found = ours.outputs(**given)
    np.testing.assert_allclose(found["logits"], expected.logits.numpy(), atol=1e-5)
    if "image_hidden_states" in found:
        seen = torch.cat(list(expected.image_hidden_states)).numpy()
        np.testing.assert_allclose(found["image_hidden_states"], seen, atol=1e-5)


def test_tiles_without_padding_are_taken_too(theirs, ours):
    given = batch(theirs[0], (("wide", "square"),))
    numbers = [tiles_of(size) for size in given["image_sizes"].tolist()]
    flat = np.concatenate(
        [tiles[:number] for tiles, number in zip(given["pixel_values"], numbers, strict=True)]
    )
    one, other = (ours.outputs(**{**given, "pixel_values": each}) for each in (given["pixel_values"], flat))
    np.testing.assert_array_equal(one["logits"], other["logits"])


def test_a_folder_survives_the_way_there_and_back_to_the_byte(theirs, ours, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model, folder = theirs
    save_pretrained(ours, tmp_path / "back")
    one, other = (safetensors.load_file(each / "model.safetensors") for each in (folder, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert not [key for key in one if one[key].tobytes() != other[key].tobytes()]
    again = transformers.LlavaNextForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    assert again.config.image_grid_pinpoints == PINPOINTS
    given = {name: torch.tensor(array) for name, array in batch(model, (("wide", "high"),)).items()}
    with torch.no_grad():
        assert torch.equal(model(**given).logits, again(**given).logits)


def test_tiles_that_are_not_those_of_the_size_are_refused(theirs, ours):
    given = batch(theirs[0], (("wide",),))
    with pytest.raises(InputError, match=r"seen at 84 × 28 .* 3 tiles of 28 × 28 and the whole; it has 3"):
        ours.outputs(**{**given, "image_sizes": np.array([SIZES["high"]])})
    with pytest.raises(InputError, match="image_sizes should say"):
        ours.outputs(input_ids=given["input_ids"], pixel_values=given["pixel_values"])
