"""Encoders of pictures against transformers, with weights that it has drawn."""

import json

import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.huggingface import from_pretrained, save_pretrained
from mjx.sharding import MeshConfig, build_mesh

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 7,
}
DINO = {name: size for name, size in SIZES.items() if name != "intermediate_size"}
CASES = {
    "ViTModel": ("ViTConfig", SIZES),
    "ViTForImageClassification": ("ViTConfig", {**SIZES, "num_labels": 3, "qkv_bias": False}),
    "Dinov2Model": ("Dinov2Config", {**DINO, "mlp_ratio": 2, "num_channels": 1}),
    "Dinov2ForImageClassification": ("Dinov2Config", {**DINO, "use_swiglu_ffn": True, "num_labels": 3}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {**DINO, "num_register_tokens": 3}),
    "Dinov2WithRegistersForImageClassification": (
        "Dinov2WithRegistersConfig",
        {**DINO, "use_swiglu_ffn": True, "num_labels": 4},
    ),
    "CLIPVisionModel": ("CLIPVisionConfig", SIZES),
    "SiglipVisionModel": ("SiglipVisionConfig", SIZES),
}
OUTPUTS = ("last_hidden_state", "pooler_output", "logits")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Each class's model, and the folder that it has saved."""
    made = {}
    for name, (config, sizes) in CASES.items():
        torch.manual_seed(0)
        model = getattr(transformers, name)(getattr(transformers, config)(**sizes)).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        made[name] = model, folder
    return made


def pictures(model, height: int, width: int) -> np.ndarray:
    return np.random.RandomState(1).randn(2, model.config.num_channels, height, width).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_transformers_for_pictures_of_two_sizes(theirs, name):
    model, folder = theirs[name]
    ours = from_pretrained(folder)
    for height, width in ((28, 28), (42, 35)):
        images = pictures(model, height, width)
        other = {} if "Dino" in name or height == 28 else {"interpolate_pos_encoding": True}
        with torch.no_grad():
            expected = model(pixel_values=torch.tensor(images), **other)
        found = ours.outputs(pixel_values=images)
        compared = [key for key in OUTPUTS if key in expected and key in found]
        assert compared
        for key in compared:
            np.testing.assert_allclose(found[key], expected[key].numpy(), atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_survives_the_way_there_and_back_to_the_byte(theirs, name, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    _, folder = theirs[name]
    save_pretrained(from_pretrained(folder), tmp_path / "back")
    one, other = (safetensors.load_file(each / "model.safetensors") for each in (folder, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert not [key for key in one if one[key].tobytes() != other[key].tobytes()]
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert written["architectures"] == [name]


def test_a_mesh_gives_the_same(theirs):
    model, folder = theirs["Dinov2ForImageClassification"]
    images = pictures(model, 28, 28)[:1]
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    found = from_pretrained(folder, mesh=mesh).outputs(pixel_values=images)
    expected = from_pretrained(folder).outputs(pixel_values=images)
    assert found["logits"].shape == expected["logits"].shape
    for key in ("last_hidden_state", "logits"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-5)


def test_hidden_patches_are_the_mask_tokens(theirs):
    model, folder = theirs["Dinov2Model"]
    images, hidden = pictures(model, 28, 28), np.random.RandomState(2).rand(2, 16) < 0.4
    with torch.no_grad():
        expected = model(pixel_values=torch.tensor(images), bool_masked_pos=torch.tensor(hidden))
    found = from_pretrained(folder).outputs(pixel_values=images, bool_masked_pos=hidden)
    np.testing.assert_allclose(found["last_hidden_state"], expected.last_hidden_state.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"patch_size": [7, 7]}, '"patch_size"'),
        ({"image_size": 5}, '"image_size": 5'),
        ({"drop_path_rate": 0.1}, '"drop_path_rate": 0.1'),
        ({"hidden_act": "mish"}, '"hidden_act": "mish"'),
    ],
)
def test_what_is_not_computed_is_refused(theirs, tmp_path, change, sentence):
    _, folder = theirs["Dinov2Model"]
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=sentence):
        from_pretrained(tmp_path)
