"""`data.kind: image_text`: rows of text in which pictures stand."""

import logging

import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from data.image_text.told_files import TOKENS, jsonl, png, tokenizer

from mjx.config import parse_config
from mjx.errors import InputError
from mjx.parse import to_tree

IMAGE = TOKENS["[IMAGE]"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} [SEP] {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def recipe(tmp_path, rows, **data):
    """Pictures of 4 × 4 pixels, in four patches, all of which take a place."""
    (tmp_path / "template.jinja").write_text(TEMPLATE)
    for value in range(5):
        (tmp_path / f"{value}.png").write_bytes(png(value))
    attention = {"num_heads": 2}
    return {
        "model": {
            "family": "multimodal",
            "image_token": IMAGE,
            "language": {
                **{"family": "gpt", "num_layers": 1, "hidden_size": 16, "vocab_size": len(TOKENS)},
                **{"attention": attention, "mlp": {"features": 16}},
            },
            "vision": {
                **{"family": "vision", "num_layers": 1, "hidden_size": 16, "image_size": [4, 4]},
                **{"patch_size": 2, "channels": 1, "position_grid": [2, 2]},
                **{"attention": attention, "mlp": {"features": 16}},
            },
        },
        "data": {
            **{"kind": "image_text", "sources": [{"path": jsonl(tmp_path / "x.jsonl", rows)}]},
            **{"tokenizer": tokenizer(tmp_path), "cache_dir": str(tmp_path / "cache"), "split": "1,0,0"},
            **{"image": {"size": [4, 4], "channels": 1, "mean": [0.0], "std": [1 / 255]}},
            **{"sequence_length": 20, "pictures": 2, "prompt": "what", **data},
        },
        "training": {"steps": 2, "batch_size": 2},
    }


def captions(*texts):
    return [{"image": f"{number}.png", "caption": text} for number, text in enumerate(texts)]


def batch_of(tmp_path, rows, number=2, **data):
    config = parse_config(recipe(tmp_path, rows, **data))
    splits = config.data.open(len(TOKENS))
    batch = splits.dataset("train", number).read(np.arange(number))
    arrays = config.data.arrays(number)
    config.model.check_batch(arrays)
    assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
        name: (values.shape, values.dtype.name) for name, values in batch.items()
    }
    assert parse_config(to_tree(config)).data.arrays(2) == config.data.arrays(2)
    return batch, splits


def test_a_caption_is_learned_behind_the_places_of_its_picture(tmp_path):
    batch, _ = batch_of(tmp_path, captions("a b"), 1, packing=False)
    a, b, what, eos = (TOKENS[word] for word in ("a", "b", "what", "[EOS]"))
    row = {name: batch[name][0, :8].tolist() for name in ("tokens", "labels", "loss_mask", "positions")}
    assert row["tokens"] == [IMAGE] * 4 + [what, a, b, 0]
    assert [label for label, mask in zip(row["labels"], row["loss_mask"], strict=True) if mask] == [a, b, eos]
    assert row["loss_mask"] == [0, 0, 0, 0, 1, 1, 1, 0]
    assert row["positions"] == [0, 1, 2, 3, 4, 5, 6, 0]
    assert batch["segment_ids"][0].tolist() == [1] * 7 + [0] * 13
    places = [place for place in batch["image_at"][0] if place < 20]
    assert places == [0, 1, 2, 3]


def test_samples_share_rows_apart_from_each_other(tmp_path):
    batch, _ = batch_of(tmp_path, captions("a", "b", "c", "d", "e"), 3)
    assert batch["segment_ids"].max() == 2
    seen = []
    for row in range(3):
        for segment in range(1, int(batch["segment_ids"][row].max()) + 1):
            inside = batch["segment_ids"][row] == segment
            places = np.flatnonzero(inside & (batch["tokens"][row] == IMAGE))
            made = np.isin(batch["image_at"][row], places)
            (grey,) = set(batch["patches"][row][np.flatnonzero(made)].round().astype(int).ravel().tolist())
            (word,) = set(batch["labels"][row][inside & (batch["loss_mask"][row] > 0)]) - {TOKENS["[EOS]"]}
            assert batch["positions"][row][inside].tolist() == list(range(inside.sum()))
            seen.append((grey, word))
    assert sorted(seen) == [(number, TOKENS[word]) for number, word in enumerate("abcde")]


def test_of_a_conversation_the_answers_are_learned(tmp_path):
    turns = ["human", "a <image>", "gpt", "b c", "human", "what", "gpt", "d"]
    talk = [{"from": who, "value": what} for who, what in zip(turns[::2], turns[1::2], strict=True)]
    rows = [{"image": "1.png", "caption": talk}]
    template = str(tmp_path / "template.jinja")
    batch, _ = batch_of(tmp_path, rows, 1, chat_template=template, sequence_length=32)
    learned = batch["labels"][0][batch["loss_mask"][0] > 0].tolist()
    assert learned == [TOKENS[word] for word in ("b", "c", "[SEP]", "d", "[SEP]")]
    with pytest.raises(InputError, match="the tokenizer has no chat template"):
        batch_of(tmp_path, rows)


def test_text_is_cut_but_pictures_are_not(tmp_path, caplog):
    many = " ".join("abcde" * 5)
    rows = [*captions("a", many), {"image": ["0.png"] * 3, "caption": "b"}]
    talk = [{"from": "human", "value": f"{many} <image>"}, {"from": "gpt", "value": "b"}]
    with caplog.at_level(logging.WARNING, "mjx"):
        batch, _ = batch_of(tmp_path, rows, 2, packing=False)
    assert "left out 1 of 3 samples" in caplog.text
    assert "1 of 3 texts have more than data.sequence_length = 20 tokens, and are cut" in caplog.text
    assert (batch["tokens"] == IMAGE).sum(axis=1).tolist() == [4, 4]
    assert batch["loss_mask"].sum(axis=1).max() == 20 - 4
    template = str(tmp_path / "template.jinja")
    with pytest.raises(InputError, match=r"no picture of 1 has room in data\.sequence_length = 20"):
        batch_of(tmp_path, [{"image": "1.png", "caption": talk}], chat_template=template)


def test_a_sample_with_a_broken_picture_has_no_weight(tmp_path):
    made = recipe(tmp_path, captions("a", "b"))
    (tmp_path / "1.png").write_bytes(b"")
    splits = parse_config(made).data.open(len(TOKENS))
    batch = splits.dataset("train", 1).read(np.arange(1))
    learned = batch["labels"][batch["loss_mask"] > 0].tolist()
    assert learned == [TOKENS["a"], TOKENS["[EOS]"]]
    assert splits.remarks()[0].startswith("1 picture could not be read")


def test_what_does_not_fit_the_model_is_refused(tmp_path):
    rows = captions("a [IMAGE]")
    with pytest.raises(InputError, match=r"has the token 5 \(model\.image_token\)"):
        batch_of(tmp_path, rows)
    with pytest.raises(InputError, match="should be a token at least"):
        batch_of(tmp_path, captions("a"), prompt="")
    with pytest.raises(InputError, match="has no room for a picture, which takes 400 tokens"):
        parse_config(recipe(tmp_path, rows, image={"size": [40, 40], "channels": 1}))
    wrong = recipe(tmp_path, rows)
    wrong["model"] = wrong["model"]["language"]
    with pytest.raises(InputError, match="is for a model in whose texts pictures stand"):
        parse_config(wrong)
