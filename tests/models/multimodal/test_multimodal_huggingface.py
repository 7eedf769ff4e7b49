"""Language models that see against transformers, with weights that it has drawn."""

import json

import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.huggingface import from_pretrained, save_pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

IMAGE = 60
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
TEXT = {
    "vocab_size": 64,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
}
CASES = {
    "clip, one layer left out": ("clip_vision_model", "llama", -2, "default", 16),
    "clip with its class token": ("clip_vision_model", "qwen2", -1, "full", 17),
    "siglip": ("siglip_vision_model", "mistral", -1, "full", 16),
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Each model, and the folder that it has saved."""
    made = {}
    for name, (vision, text, layer, strategy, _) in CASES.items():
        torch.manual_seed(0)
        config = transformers.LlavaConfig(
            text_config={"model_type": text, **TEXT},
            vision_config={"model_type": vision, **VISION},
            image_token_index=IMAGE,
            vision_feature_layer=layer,
            vision_feature_select_strategy=strategy,
        )
        model = transformers.LlavaForConditionalGeneration(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp("llava")
        model.save_pretrained(folder)
        made[name] = model, folder
    return made


def texts(places: int, pictures: tuple[int, ...]) -> np.ndarray:
    """Rows with so many pictures each."""
    random = np.random.RandomState(2)
    tokens = random.randint(1, IMAGE, (len(pictures), 2 * places + 8))
    for row, number in enumerate(pictures):
        for at in range(number):
            begin = 2 + at * (places + 3)
            tokens[row, begin : begin + places] = IMAGE
    return tokens


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("pictures", [(1, 1), (2, 1), (0, 2)], ids=str)
def test_logits_equal_transformers_with_several_pictures_in_a_row_and_none(theirs, name, pictures):
    model, folder = theirs[name]
    tokens = texts(CASES[name][-1], pictures)
    images = np.random.RandomState(3).randn(sum(pictures), 3, 28, 28).astype(np.float32)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(images))
    found = from_pretrained(folder).outputs(input_ids=tokens, pixel_values=images)
    np.testing.assert_allclose(found["logits"], expected.logits.numpy(), atol=1e-5)
    if len(set(pictures)) == 1:
        theirs_seen = expected.image_hidden_states
        if not isinstance(theirs_seen, torch.Tensor):  # one a picture, in newer versions
            theirs_seen = torch.cat(list(theirs_seen))
        np.testing.assert_allclose(found["image_hidden_states"], theirs_seen.numpy(), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_survives_the_way_there_and_back_to_the_byte(theirs, name, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model, folder = theirs[name]
    save_pretrained(from_pretrained(folder), tmp_path / "back")
    one, other = (safetensors.load_file(each / "model.safetensors") for each in (folder, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert not [key for key in one if one[key].tobytes() != other[key].tobytes()]
    again = transformers.LlavaForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    tokens = texts(CASES[name][-1], (1,))
    images = torch.randn(1, 3, 28, 28)
    with torch.no_grad():
        expected, found = (
            each(input_ids=torch.tensor(tokens), pixel_values=images).logits for each in (model, again)
        )
    assert torch.equal(expected, found)


def test_the_names_of_other_versions_are_read(theirs, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    _, folder = theirs["siglip"]
    tensors = safetensors.load_file(folder / "model.safetensors")
    older = {name.replace("vision_tower.", "vision_tower.vision_model."): t for name, t in tensors.items()}
    safetensors.save_file(older, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tokens, images = texts(16, (1,)), np.ones((1, 3, 28, 28), np.float32)
    one, other = (
        from_pretrained(f).outputs(input_ids=tokens, pixel_values=images) for f in (folder, tmp_path)
    )
    np.testing.assert_array_equal(one["logits"], other["logits"])


def test_pictures_that_do_not_fit_the_text_are_refused(theirs):
    _, folder = theirs["siglip"]
    model = from_pretrained(folder)
    with pytest.raises(InputError, match="pixel_values 2 pictures, which make 16, 16"):
        model.outputs(input_ids=texts(16, (1,)), pixel_values=np.ones((2, 3, 28, 28), np.float32))


def test_a_layer_that_is_no_number_is_refused(theirs, tmp_path):
    _, folder = theirs["siglip"]
    config = json.loads((folder / "config.json").read_text()) | {"vision_feature_layer": [-1, -2]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match='"vision_feature_layer"'):
        from_pretrained(tmp_path)
