"""Where pictures and what is told of them are found, and what is refused."""

import base64
import json

import numpy as np
import pytest

pytest.importorskip("PIL.Image")

from data.image_text.told_files import jsonl, png, tar

from mjx.data.image_text.told import open_told
from mjx.data.images.decode import decoded
from mjx.errors import InputError


def opened(tmp_path, path, text_key="caption", root=None):
    return open_told(str(path), root, "image", text_key, str(tmp_path / "cache"))


def seen(source):
    """The first pixel of each of a sample's pictures, and what is told of them."""
    values = [int(np.asarray(decoded(source.content(n), 1))[0, 0]) for n in range(len(source.where))]
    return [
        (values[first:stop], told)
        for first, stop, told in zip(source.first[:-1], source.first[1:], source.told, strict=True)
    ]


def test_a_folder_has_a_text_beside_each_picture(tmp_path, caplog):
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    for value in (1, 2, 3):
        (folder / f"{value}.png").write_bytes(png(value))
    (folder / "1.txt").write_text("one\n")
    (folder / "2.json").write_text('{"caption": ["two", "too"]}')
    assert seen(opened(tmp_path, tmp_path / "in")) == [([1], ["one"]), ([2], ["two", "too"])]
    assert "left out 1 pictures without a text beside them" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_have_paths_or_bytes(tmp_path, kind):
    (tmp_path / "1.png").write_bytes(png(1))
    file = tmp_path / f"x.{kind}"
    expected = [([1], ["one, two"])]
    if kind == "csv":
        file.write_text('image,caption\n1.png,"one, two"\n')
    elif kind == "jsonl":
        jsonl(file, [{"image": "1.png", "caption": "one, two"}])
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        images = [{"bytes": png(2), "path": None}, {"bytes": None, "path": "1.png"}]
        parquet.write_table(arrow.table({"image": images, "caption": [["x", "y"], ["z"]]}), file)
        expected = [([2], ["x", "y"]), ([1], ["z"])]
    assert seen(opened(tmp_path, file)) == expected
    assert seen(opened(tmp_path, file)) == expected  # out of the cache


def test_tar_files_have_a_text_under_the_pictures_name(tmp_path):
    files = {
        "1.png": png(1),
        "1.txt": b"one",
        "1.json": b"{}",
        "2.png": png(2),
        "2.json": b'{"caption": "two"}',
    }
    assert seen(opened(tmp_path, tar(tmp_path / "x.tar", files))) == [([1], ["one"]), ([2], ["two"])]


def test_conversations_as_llava_and_as_chats_write_them(tmp_path):
    for value in (1, 2):
        (tmp_path / f"{value}.png").write_bytes(png(value))
    turns = [{"from": "human", "value": "<image>\na <image>"}, {"from": "gpt", "value": "b"}]
    (tmp_path / "llava.json").write_text(
        json.dumps(
            [
                {"id": "0", "image": ["1.png", "2.png"], "conversations": turns},
                {"id": "1", "conversations": [{"from": "human", "value": "a"}, turns[1]]},
            ],
            indent=1,
        )
    )
    answer = {"role": "assistant", "content": "b"}
    asked = {"role": "user", "content": "<image>\na <image>"}
    assert seen(opened(tmp_path, tmp_path / "llava.json", "conversations")) == [
        ([1, 2], [asked, answer]),
        ([], [{"role": "user", "content": "a"}, answer]),
    ]
    inline = "data:image/png;base64," + base64.b64encode(png(3)).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": inline}},
        {"type": "text", "text": "a"},
        {"type": "image", "image": "2.png"},
    ]
    file = jsonl(tmp_path / "chat.jsonl", [{"messages": [{"role": "user", "content": parts}, answer]}])
    assert seen(opened(tmp_path, file, "messages")) == [
        ([3, 2], [{"role": "user", "content": "<image>a<image>"}, answer])
    ]


def talk(text: str, answer: str = "b", who: str = "human") -> list[dict]:
    return [{"from": who, "value": text}, {"from": "gpt", "value": answer}]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"image": "1.png", "caption": talk("<image> <image>")}, "has 2 marks <image> for 1 pictures"),
        ({"image": ["1.png"] * 2, "caption": talk("<image>")}, "has 1 marks <image> for 2 pictures"),
        ({"image": "1.png", "caption": talk("<image>", who="robot")}, '"robot" speaks'),
        ({"image": "1.png", "caption": talk("a", "<image>")}, "a picture stands in an answer"),
        ({"image": "1.png", "caption": talk("<image>")[:1]}, "nobody answers"),
        ({"image": "1.png", "caption": [{"text": "a"}, 1]}, 'neither "from" and "value"'),
        ({"image": "1.png", "caption": "a <image>"}, "has a mark <image>"),
        ({"image": "1.png", "caption": " "}, 'the text under "caption" is empty'),
        ({"image": "1.png", "caption": 3}, "neither a caption"),
        ({"image": 7, "caption": "a"}, "neither the path of a picture nor its bytes"),
        ({"image": "data:image/png;base64,?", "caption": "a"}, "cannot be read"),
        ({"image": "1.png"}, 'no key "caption"'),
        (
            {"caption": [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}]},
            "is on another machine",
        ),
    ],
)
def test_rows_that_are_refused(tmp_path, row, sentence):
    file = jsonl(tmp_path / "x.jsonl", [row])
    with pytest.raises(InputError, match=sentence):
        opened(tmp_path, file)


def test_a_tar_file_that_would_write_elsewhere_is_refused(tmp_path):
    with pytest.raises(InputError, match="would be outside"):
        opened(tmp_path, tar(tmp_path / "x.tar", {"../1.png": png(1), "../1.txt": b"a"}))
