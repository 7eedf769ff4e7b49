"""`data.kind: images`: what samples there are, in which order, and what becomes of broken pictures."""

import numpy as np
import pytest

from mjx.config import parse_config
from mjx.data.config import DatasetConfig
from mjx.data.images.labelled import LabelledPicturesConfig
from mjx.data.images.prepare import AugmentationConfig, PreparationConfig
from mjx.data.loader import Loader, evaluation_batches
from mjx.data.text import SourceConfig, ValidationConfig
from mjx.errors import InputError

Image = pytest.importorskip("PIL.Image")

PLAIN = PreparationConfig(size=(4, 4), channels=1, mean=(0.0,), std=(1 / 255,))
"""Pixels are what the files say."""


@pytest.fixture
def folder(tmp_path):
    """Twenty pictures, each of one grey: 10, 11, …; the even ones are of the class `even`."""
    for grey in range(10, 30):
        into = tmp_path / "pictures" / ("odd" if grey % 2 else "even")
        into.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4), grey).save(into / f"{grey}.png")
    return tmp_path / "pictures"


def config(folder, **options) -> LabelledPicturesConfig:
    options = {"split": "75,25,0", "image": PLAIN, "cache_dir": str(folder.parent / "cache"), **options}
    return LabelledPicturesConfig(sources=(SourceConfig(path=str(folder)),), **options)


def greys(batch) -> list[int]:
    return batch["images"][:, 0, 0, 0].round().astype(int).tolist()


def test_each_epoch_has_every_picture_of_the_split_once_with_its_label(folder):
    splits = config(folder).open()
    assert splits.classes == config(folder).labels == ("even", "odd")
    train = splits.dataset("train", 30)
    batch = train.read(np.arange(30))
    first, second = greys(batch)[:15], greys(batch)[15:]
    assert sorted(first) == sorted(second) != first != second
    assert [grey % 2 for grey in first + second] == batch["labels"].tolist()
    valid = [grey for batch in evaluation_batches(splits.validation()[""], 3) for grey in greys(batch)[:3]]
    assert sorted(first + valid[:5]) == list(range(10, 30))
    assert greys(config(folder, seed=1).open().dataset("train", 30).read(np.arange(15))) != first
    assert batch["images"].shape == (30, 1, 4, 4)
    assert {name: (array.shape, array.dtype) for name, array in config(folder).arrays(30).items()} == {
        name: (values.shape, values.dtype.name) for name, values in batch.items()
    }


def test_chance_is_the_same_for_a_run_that_goes_on_and_not_there_in_validation(folder):
    options = {"augment": AugmentationConfig(), "image": PreparationConfig(size=(4, 4))}
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(file)
    dataset = config(folder, **options).open().dataset("train", 40)
    whole = [batch["images"] for batch in Loader(dataset, 4, threads=2, prefetch=4)]
    resumed = Loader(config(folder, **options).open().dataset("train", 40), 4, start_step=7, prefetch=0)
    np.testing.assert_array_equal(next(resumed)["images"], whole[7])
    plain = config(folder, image=options["image"]).open()
    augmented = config(folder, **options).open()
    for made in (plain, augmented):
        assert len(made.validation()[""]) == 5
    np.testing.assert_array_equal(
        plain.validation()[""].read(np.arange(5))["images"],
        augmented.validation()[""].read(np.arange(5))["images"],
    )
    assert not np.array_equal(plain.dataset("train", 15).read(np.arange(15))["images"], whole[0])


def test_broken_pictures_are_skipped_counted_and_named_once(folder, caplog):
    (folder / "even" / "12.png").write_bytes(b"")
    (folder / "odd" / "13.png").write_bytes(b"no picture")
    (folder / "odd" / "15.png").unlink()
    (folder / "odd" / "15.png").symlink_to("nowhere")
    splits = config(folder, split="1,0,0").open()
    train = splits.dataset("train", 40)
    batches = [train.read(np.arange(at, at + 10)) for at in range(0, 40, 10)]
    seen = [grey for batch in batches for grey in greys(batch)]
    assert set(seen) == set(range(10, 30)) - {12, 13, 15}
    assert [grey % 2 for grey in seen] == [label for batch in batches for label in batch["labels"]]
    assert all(batch["loss_mask"].all() for batch in batches)
    for file, why in (("12.png", "file is empty"), ("13.png", "not a picture"), ("15.png", "No such file")):
        said = [record for record in caplog.records if file in record.message and why in record.message]
        assert len(said) == 1
    again = config(folder, split="1,0,0").open().dataset("train", 40)
    assert greys(again.read(np.arange(30, 40))) == seen[30:]
    (sentence,) = splits.remarks()
    assert sentence.startswith("3 pictures could not be read, and left out ")
    once = config(folder, split="0,1,0").open().dataset("valid")
    masks = {
        grey: mask
        for batch in [once.read(np.arange(20))]
        for grey, mask in zip(greys(batch), batch["loss_mask"], strict=True)
    }
    assert masks == {0: 0.0} | {grey: 1.0 for grey in range(10, 30) if grey not in (12, 13, 15)}


def test_a_source_without_any_picture_that_can_be_read_ends_the_run(folder):
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of 15 pictures can be read"):
        next(Loader(config(folder).open().dataset("train", 16), 4))


def test_validation_sets_of_their_own_and_labels_that_are_numbers(folder):
    for name in ("1.5", "2"):
        (folder.parent / "other" / name).mkdir(parents=True)
        Image.new("L", (4, 4), 7).save(folder.parent / "other" / name / "x.png")
    own = {"own": ValidationConfig(sources=(SourceConfig(path=str(folder.parent / "other")),))}
    with pytest.raises(InputError, match=r'the label "1\.5" is none of data\.classes'):
        config(folder, validation=own).open().validation()
    numbers = config(folder.parent / "other", classes=(), split="1,0,0")
    assert numbers.labels == ()
    batch = numbers.open().dataset("train", 2).read(np.arange(2))
    assert sorted(batch["labels"].tolist()) == [1.5, 2.0]
    assert numbers.arrays(2)["labels"].dtype == batch["labels"].dtype.name == "float32"
    with pytest.raises(InputError, match='the label "even" is no number'):
        config(folder, classes=()).open().dataset("train", 2)


def recipe(folder, **data):
    return {
        "model": {
            **{"family": "vision", "num_layers": 1, "hidden_size": 16, "image_size": [4, 4], "patch_size": 2},
            **{
                "channels": 1,
                "position_grid": [2, 2],
                "attention": {"num_heads": 2},
                "mlp": {"features": 16},
            },
            "classes": 2,
        },
        "data": {
            **{
                "kind": "images",
                "sources": [{"path": str(folder)}],
                "cache_dir": str(folder.parent / "cache"),
            },
            **{"image": {"size": [4, 4], "channels": 1}, **data},
        },
        "training": {"steps": 2, "batch_size": 4},
    }


def test_a_recipe_names_the_models_classes_and_is_checked_against_it(folder):
    made = parse_config(recipe(folder))
    assert isinstance(made.data, DatasetConfig)
    assert made.model.labels == ("even", "odd")
    made.model.check_batch(made.data.arrays(4))
    assert made.model.size(made.data.arrays(4)) == (4, 5)
    large = parse_config(recipe(folder, image={"size": [8, 4], "channels": 1}))
    with pytest.raises(InputError, match=r"has pictures of 8 × 4 pixels with 1 channels \(data\.image\)"):
        large.model.check_batch(large.data.arrays(4))
    elsewhere = parse_config(recipe(folder.parent / "nowhere"))  # a plan needs no data
    assert elsewhere.model.labels == ()
    with pytest.raises(InputError, match="nowhere does not exist"):
        elsewhere.data.open()
    for data, sentence in [
        ({"sources": []}, r"sources = \[\] has no picture"),
        ({"classes": ["even"]}, "must be two or more"),
        ({"classes": ["even", "odd", "third"]}, r"has 3 names, and model\.classes = 2"),
        ({"augment": {"flip": 2}}, r"flip = 2\.0 must be from 0 to 1"),
    ]:
        with pytest.raises(InputError, match=sentence):
            parse_config(recipe(folder, **data))
