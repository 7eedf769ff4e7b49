"""InternVL against transformers, with weights that it has drawn."""

import numpy as np
import pytest

from mjx.models.huggingface import from_pretrained, save_pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")

IMAGE = 3
VISION = {
    **{"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 7},
}
TEXT = {
    **{"model_type": "qwen2", "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24},
    **{"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1},
}
CASES = {
    "300M": ({}, True),
    "6B": ({"use_qk_norm": True, "norm_type": "rms_norm"}, False),
    "class token": ({"use_mean_pooling": False, "attention_bias": True}, True),
}


@pytest.mark.parametrize("name", CASES)
def test_logits_and_tensors_equal_transformers(name, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    vision, tied = CASES[name]
    torch.manual_seed(0)
    config = transformers.InternVLConfig(
        **{"text_config": TEXT, "vision_config": {**VISION, **vision}, "image_token_id": IMAGE},
        tie_word_embeddings=tied,
    )
    model = transformers.InternVLForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "theirs")
    ours = from_pretrained(tmp_path / "theirs")
    tokens = np.random.RandomState(0).randint(4, 60, (2, 20))
    tokens[0, 2:6] = tokens[1, 5:9] = tokens[1, 11:15] = IMAGE
    images = np.random.RandomState(1).randn(3, 3, 28, 28).astype(np.float32)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(images)).logits
    found = ours.outputs(input_ids=tokens, pixel_values=images)["logits"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)

    save_pretrained(ours, tmp_path / "back")
    one, other = (safetensors.load_file(tmp_path / each / "model.safetensors") for each in ("theirs", "back"))
    assert one.keys() == other.keys()
    assert not [key for key in one if one[key].tobytes() != other[key].tobytes()]
    again = transformers.InternVLForConditionalGeneration.from_pretrained(tmp_path / "back").eval()
    with torch.no_grad():
        logits = again(input_ids=torch.tensor(tokens), pixel_values=torch.tensor(images)).logits
    assert torch.equal(logits, expected)
