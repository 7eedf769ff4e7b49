"""From digits in files to their classes, by the command line; and DINOv2, a real model: MJX_DINOV2 names its
folder, as examples/dinov2_to_huggingface.py makes it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import ROOT, environment

from mjx.data.images.decode import decoded
from mjx.data.images.prepare import AugmentationConfig
from mjx.data.images.processor import FILE, preparation_of
from mjx.models.huggingface import from_pretrained

PHOTOGRAPHS = (
    *(
        "astronaut.png",
        "cat.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "retina.jpg",
        "motorcycle_left.png",
    ),
    *("hubble_deep_field.jpg", "coins.png", "grass.png", "ihc.png", "horse.png"),
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("digits") / "digits"
    subprocess.run([sys.executable, ROOT / "examples" / "digits.py", folder], check=True, env=environment())
    return folder


def test_digits_are_learnt_and_told(main_here, refused, digits, tmp_path, capsys):
    (digits / "3" / "broken.png").write_bytes(b"no picture")
    assert len(list(digits.rglob("*.png"))) == 1798
    run = tmp_path / "run"
    settings = (
        *(
            "training.steps=60",
            "model.num_layers=1",
            "data.augment=null",
            "schedule.learning_rate=3e-3",
            "training.evaluation_rows=64",
        ),
        *("training.evaluation_interval=null", "checkpoint.interval=60", f"data.cache_dir={tmp_path}/cache"),
        *(
            f"data.sources=[{{path: {digits}}}]",
            "data.threads=2",
            "mesh.data=2",
            "mesh.fsdp=2",
            "mesh.tensor=2",
            "sharding.sequence_parallel=false",
        ),
    )
    main_here("train", ROOT / "configs" / "vision" / "digits.yaml", *settings, f"run_dir={run}")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < 1.9 < 2.3 < losses[0]
    assert records[-1]["validation_accuracy"] > 0.3
    assert all(record["data_seconds_per_step"] >= 0 for record in records if "tokens_per_second" in record)
    capsys.readouterr()
    some = [str(file) for file in sorted(digits.glob("[06]/*.png"))[::8]]
    main_here("classify", run, *some, "--format", "jsonl", "mesh.data=-1", "mesh.fsdp=1", "mesh.tensor=1")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(told[0]["probabilities"]) == list("0123456789")
    assert (
        np.mean([one["label"] == Path(file).parent.name for one, file in zip(told, some, strict=True)]) > 0.4
    )
    assert refused("classify", run, digits / "3" / "broken.png").endswith("not a picture of a known kind")
    assert refused("classify", run).startswith("name the files of the pictures")
    assert refused("classify", run, digits / "nowhere.png").endswith("nowhere.png does not exist.")


@pytest.fixture(scope="module")
def dinov2():
    folder = os.environ.get("MJX_DINOV2")
    if folder is None:
        pytest.skip("MJX_DINOV2 names no folder")
    return Path(folder)


@pytest.fixture(scope="module")
def photographs():
    found = importlib.util.find_spec("skimage")  # not imported: it would bring all of scipy along
    if found is None or found.origin is None:
        pytest.skip("scikit-image, which has the photographs, is not installed")
    folder = Path(found.origin).parent / "data"
    files = [folder / name for name in PHOTOGRAPHS if (folder / name).exists()]
    assert len(files) > 8
    return [decoded(file.read_bytes()) for file in files]


@pytest.mark.parity
def test_a_real_models_features_are_transformers(dinov2, photographs):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    prepare = preparation_of(json.loads((dinov2 / FILE).read_text()), FILE)
    images = np.stack([prepare(picture) for picture in photographs])
    processor = transformers.BitImageProcessorPil.from_pretrained(dinov2)
    theirs = processor(photographs, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(images, np.stack(theirs), atol=1e-4)
    reference = transformers.Dinov2Model.from_pretrained(dinov2).eval()
    with torch.no_grad():
        expected = reference(torch.from_numpy(images)).pooler_output.numpy()
    found = from_pretrained(dinov2, dtype="float32").outputs(pixel_values=images)["pooler_output"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_real_model_finds_a_photograph_by_a_part_of_its_mirror_image(dinov2, photographs):
    prepare = preparation_of(json.loads((dinov2 / FILE).read_text()), FILE)
    model = from_pretrained(dinov2, dtype="float32")
    part = AugmentationConfig(scale=(0.4, 0.8), flip=1.0)

    def features(images):
        found = np.asarray(model.outputs(pixel_values=np.stack(images))["pooler_output"])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    whole = features([prepare(picture) for picture in photographs])
    copies = features([prepare(picture, part, (number,)) for number, picture in enumerate(photographs)])
    assert (copies @ whole.T).argmax(axis=1).tolist() == list(range(len(photographs)))
