"""`mjx embed` of pictures: files in, vectors out, as transformers makes them."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")
image = pytest.importorskip("PIL.Image")

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
PROCESSOR = {
    "size": {"height": 28, "width": 28},
    "resample": 3,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


@pytest.fixture
def clip(tmp_path):
    config = transformers.CLIPConfig(
        text_config={**SIZES, "vocab_size": 64, "max_position_embeddings": 8, "eos_token_id": 5},
        vision_config={**SIZES, "image_size": 28, "patch_size": 7},
        projection_dim=20,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model, tmp_path / "clip"


def test_pictures_become_the_vectors_of_transformers(main_here, refused, clip, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    model, folder = clip
    pixels = np.random.RandomState(0).randint(0, 256, (3, 28, 28, 3)).astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, one in enumerate(pixels):
        image.fromarray(one).save(tmp_path / "pictures" / f"{number}.png")
    mesh = ("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2")
    main_here("embed", folder, tmp_path / "pictures", "--output", tmp_path / "out.parquet", *mesh)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column("file").to_pylist() == [f"{tmp_path}/pictures/{number}.png" for number in range(3)]
    given = torch.tensor(pixels.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=given).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    found = np.array(table.column("embedding").to_pylist())
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    (tmp_path / "lines.txt").write_text("a line\n")
    assert "name one kind at a time" in refused(
        "embed", folder, tmp_path / "pictures", tmp_path / "lines.txt"
    )
    assert "--pooling is of texts" in refused("embed", folder, tmp_path / "pictures", "--pooling=cls")
