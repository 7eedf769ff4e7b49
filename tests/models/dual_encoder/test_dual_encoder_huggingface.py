"""Models of two towers against transformers, with weights that it has drawn."""

import json

import jax
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.common.parameter import bind
from mjx.models.huggingface import from_pretrained, read_config, save_pretrained
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.sharding import MeshConfig, build_mesh

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

END = 7
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
    "max_position_embeddings": 12,
}
CASES = {
    "CLIP": ("CLIP", {**TEXT, "eos_token_id": END}, VISION, {"projection_dim": 20}),
    "the largest id, one layer": (
        *("CLIP", {**TEXT, "eos_token_id": 2, "num_hidden_layers": 1, "hidden_act": "gelu"}),
        *({**VISION, "num_hidden_layers": 1, "patch_size": 14, "num_channels": 1}, {"projection_dim": 40}),
    ),
    "SigLIP": ("Siglip", {**TEXT, "pad_token_id": 3, "projection_size": 32}, VISION, {}),
    "as wide as the text": (
        *("Siglip", {**TEXT, "hidden_size": 32, "num_hidden_layers": 1}),
        *({**VISION, "patch_size": 4, "image_size": 16}, {}),
    ),
}
EMBEDS = ("text_embeds", "image_embeds", "logits_per_image", "logits_per_text")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Each model, and the folder that it has saved."""
    made = {}
    for name, (kind, text, vision, other) in CASES.items():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=vision, **other)
        model = getattr(transformers, f"{kind}Model")(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp("towers")
        model.save_pretrained(folder)
        made[name] = model, folder
    return made


def pairs(model, *, full: bool) -> dict[str, np.ndarray]:
    """Four pictures and texts, which end with END; those that are not `full` are padded and masked."""
    random, vision = np.random.RandomState(1), model.config.vision_config
    shape = (4, vision.num_channels, vision.image_size, vision.image_size)
    tokens = random.randint(END + 1, 60, (4, 12))
    lengths = np.array([12, 12, 12, 12] if full else [12, 5, 9, 2])[:, None]
    place = np.arange(12)
    tokens = np.where(place < lengths - 1, tokens, END)
    tokens[place == lengths - 1] = 63 if model.config.text_config.eos_token_id == 2 else END
    given = {"input_ids": tokens, "pixel_values": random.randn(*shape).astype(np.float32)}
    return given if full else {**given, "attention_mask": (place < lengths).astype(np.int64)}


def computed(model, given, **other):
    with torch.no_grad():
        return model(**{name: torch.tensor(array) for name, array in given.items()}, **other)


@pytest.mark.parametrize(
    ("name", "full"),
    [*((name, True) for name in CASES), ("CLIP", False), ("the largest id, one layer", False)],
)
def test_vectors_and_logits_equal_transformers_of_whole_rows_and_padded_ones(theirs, name, full):
    model, folder = theirs[name]
    given = pairs(model, full=full)
    expected, found = computed(model, given), from_pretrained(folder).outputs(**given)
    for key in EMBEDS:
        np.testing.assert_allclose(found[key], expected[key].numpy(), atol=1e-5, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_the_loss_equals_transformers(theirs, name):
    model, folder = theirs[name]
    given = pairs(model, full=True)
    opened = from_pretrained(folder)
    batch = {
        "images": given["pixel_values"],
        "tokens": given["input_ids"].astype(np.int32),
        "segment_ids": np.ones((4, 12), np.int32),
        "loss_mask": np.ones(4, np.float32),
    }

    @jax.jit
    def loss_of(parameters, batch):
        module = bind(opened.definition, parameters)
        return module.loss(batch, module.counts(batch))[0]

    loss = loss_of(opened.parameters, batch)
    np.testing.assert_allclose(loss, computed(model, given, return_loss=True).loss.item(), rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_folder_survives_the_way_there_and_back_to_the_byte(theirs, name, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    model, folder = theirs[name]
    fresh = from_pretrained(folder)
    fresh.source = None  # so that config.json is written anew
    save_pretrained(fresh, tmp_path / "back")
    one, other = (safetensors.load_file(each / "model.safetensors") for each in (folder, tmp_path / "back"))
    assert one.keys() == other.keys()
    assert not [key for key in one if one[key].tobytes() != other[key].tobytes()]
    again = type(model).from_pretrained(tmp_path / "back").eval()
    given = pairs(model, full=True)
    for key in EMBEDS:
        torch.testing.assert_close(computed(again, given)[key], computed(model, given)[key], rtol=0, atol=0)


def test_what_stands_behind_a_text_is_the_pad_token(theirs):
    model, folder = theirs["SigLIP"]
    given = pairs(model, full=True)
    tokens = given["input_ids"].copy()
    tokens[:, 5:] = 3
    opened = from_pretrained(folder)
    module = bind(opened.definition, opened.parameters)
    expected = computed(model, {**given, "input_ids": tokens}).text_embeds.numpy()
    short = given["input_ids"][:, :8].astype(np.int32)
    segments = (np.arange(8) < 5).astype(np.int32) * np.ones((4, 1), np.int32)
    np.testing.assert_allclose(module.text_vectors(short, segments), expected, atol=1e-5)
    with pytest.raises(InputError, match="attention_mask hides tokens"):
        opened.outputs(**given, attention_mask=np.tri(4, 12, dtype=np.int64))


def test_texts_or_pictures_alone_have_vectors(theirs):
    model, folder = theirs["CLIP"]
    given = pairs(model, full=True)
    opened = from_pretrained(folder)
    whole = opened.outputs(**given)
    texts = opened.outputs(input_ids=given["input_ids"])
    images = opened.outputs(pixel_values=given["pixel_values"])
    assert texts.keys() == {"text_embeds"}
    assert images.keys() == {"image_embeds"}
    np.testing.assert_allclose(texts["text_embeds"], whole["text_embeds"], atol=1e-6)
    np.testing.assert_allclose(images["image_embeds"], whole["image_embeds"], atol=1e-6)


def test_a_mesh_gives_the_same(theirs):
    model, folder = theirs["CLIP"]
    given = pairs(model, full=False)
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    found = from_pretrained(folder, mesh=mesh).outputs(**given)
    for key, expected in from_pretrained(folder).outputs(**given).items():
        np.testing.assert_allclose(found[key], expected, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_an_empty_config_has_the_defaults_of_transformers(kind, tmp_path):
    classes = {"clip": "CLIP", "siglip": "Siglip"}
    theirs = getattr(transformers, f"{classes[kind]}Config")().to_dict()
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": kind, "architectures": [f"{classes[kind]}Model"], "text_config": {}})
    )
    _, empty = read_config(HuggingFaceFolder(tmp_path))
    full = {**json.loads(json.dumps(theirs, default=str)), "architectures": [f"{classes[kind]}Model"]}
    (tmp_path / "config.json").write_text(json.dumps(full))
    _, said = read_config(HuggingFaceFolder(tmp_path))
    assert empty == said


def test_what_overrules_a_part_in_the_first_configs_does(tmp_path):
    given = {
        "model_type": "clip",
        "architectures": ["CLIPModel"],
        "text_config": {"hidden_size": 512, "eos_token_id": 2},
        "text_config_dict": {"hidden_size": 768, "num_attention_heads": 12},
        "vision_config_dict": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(given))
    _, config = read_config(HuggingFaceFolder(tmp_path))
    theirs = transformers.CLIPConfig(**{name: given[name] for name in ("text_config", "text_config_dict")})
    assert config.text.hidden_size == theirs.text_config.hidden_size == 768
    assert config.end_token == theirs.text_config.eos_token_id


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"text_config": {"model_type": "bert"}}, '"model_type": "bert"; only "clip_text_model"'),
        ({"text_config": {"eos_token_id": [1, 2]}}, '"eos_token_id"'),
        ({"vision_config": {"hidden_act": "mish"}}, '"hidden_act": "mish"'),
        ({"text_config": 3}, "should be an object"),
        ({"projection_dim": 0}, "features = 0"),
    ],
)
def test_what_is_not_computed_is_refused(theirs, tmp_path, change, sentence):
    _, folder = theirs["CLIP"]
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=sentence):
        from_pretrained(tmp_path)


def test_a_tower_alone_is_no_model(tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "siglip_text_model", "architectures": ["SiglipTextModel"]})
    )
    with pytest.raises(InputError, match="\"model_type\": 'siglip_text_model'"):
        from_pretrained(tmp_path)
