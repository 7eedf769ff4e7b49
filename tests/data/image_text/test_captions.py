"""`data.kind: captions`: a picture and one of its captions a row."""

import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from data.image_text.told_files import TOKENS, jsonl, png, tokenizer

from mjx.data.image_text.captions import CaptionsConfig
from mjx.data.image_text.config import ToldSourceConfig
from mjx.data.images.prepare import PreparationConfig
from mjx.data.loader import Loader, evaluation_batches
from mjx.errors import InputError

WORDS = "abcde"
PLAIN = PreparationConfig(size=(4, 4), channels=1, mean=(0.0,), std=(1 / 255,))


@pytest.fixture
def config(tmp_path):
    """Picture n is as bright as n, and has the captions `word n` and `what word n`."""
    for value in range(5):
        (tmp_path / f"{value}.png").write_bytes(png(value))
    captions = [[WORDS[value], f"what {WORDS[value]}"] for value in range(5)]
    rows = [{"image": f"{value}.png", "caption": captions[value]} for value in range(5)]
    file = jsonl(tmp_path / "x.jsonl", rows)

    def made(**options):
        return CaptionsConfig(
            sources=(ToldSourceConfig(path=file),),
            tokenizer=tokenizer(tmp_path),
            cache_dir=str(tmp_path / "cache"),
            **{"split": "1,0,0", "sequence_length": 5, "image": PLAIN, **options},
        )

    return made


def told(batch) -> list[tuple[int, tuple[int, ...]]]:
    greys = batch["images"][:, 0, 0, 0].round().astype(int).tolist()
    texts = [
        tuple(tokens[: int(segments.sum())].tolist())
        for tokens, segments in zip(batch["tokens"], batch["segment_ids"], strict=True)
    ]
    return list(zip(greys, texts, strict=True))


def test_each_row_has_a_picture_and_one_of_its_captions(config):
    dataset = config().open(len(TOKENS)).dataset("train", 60)
    batch = dataset.read(np.arange(60))
    said = config().arrays(60)
    assert {name: (array.shape, array.dtype) for name, array in said.items()} == {
        name: (values.shape, values.dtype.name) for name, values in batch.items()
    }
    words = [TOKENS[word] for word in WORDS]
    short = {(value, (2, words[value], 3)) for value in range(5)}
    assert set(told(batch)) == short | {(value, (2, TOKENS["what"], words[value], 3)) for value in range(5)}
    (once,) = evaluation_batches(config(split="0,1,0").open().validation()[""], 5)
    assert set(told(once)) == short  # the first caption of each
    resumed = Loader(config().open().dataset("train", 60), 10, start_step=4, prefetch=0)
    assert told(next(resumed)) == told(batch)[40:50]


def test_a_broken_picture_is_replaced_in_training_and_has_no_weight_in_validation(config, tmp_path):
    (tmp_path / "2.png").write_bytes(png(2)[:40])
    splits = config().open()
    batch = splits.dataset("train", 20).read(np.arange(20))
    assert {grey for grey, _ in told(batch)} == {0, 1, 3, 4}
    assert all(TOKENS[WORDS[grey]] in text for grey, text in told(batch))
    assert batch["loss_mask"].all()
    assert splits.remarks()[0].startswith("1 picture could not be read")
    once = config(split="0,1,0").open().dataset("valid").read(np.arange(5))
    assert once["loss_mask"].sum() == 4


def test_captions_that_are_long_are_cut_and_what_does_not_fit_is_refused(config, caplog):
    dataset = config(sequence_length=4, sep="b").open().dataset("train", 4)
    assert dataset.read(np.arange(4))["tokens"].shape == (4, 4)
    assert "captions have more than" not in caplog.text
    with pytest.raises(InputError, match="is not below the vocabulary"):
        config(cls=2, sep=3).open(7).dataset("train", 4)
    with pytest.raises(InputError, match=r"data\.tokenizer = null"):
        CaptionsConfig(sources=config().sources).open()
