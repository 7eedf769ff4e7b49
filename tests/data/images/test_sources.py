"""Where pictures and their labels are found, and what is refused."""

import io
import json
import tarfile

import numpy as np
import pytest

from mjx.data.images.decode import decoded
from mjx.data.images.sources import classes_of, open_pictures
from mjx.errors import InputError

Image = pytest.importorskip("PIL.Image")


def png(value: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (3, 2), value).save(content, "PNG")
    return content.getvalue()


def seen(pictures) -> list[tuple[int, str]]:
    """The first pixel of each picture, and its label."""
    return [
        (int(np.asarray(decoded(pictures.content(number), 1))[0, 0]), pictures.labels[number])
        for number in range(len(pictures))
    ]


def tar(path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def opened(tmp_path, source, image_key="image", label_key="label"):
    return open_pictures(str(source), image_key, label_key, str(tmp_path / "cache"))


def test_a_folder_of_folders_names_the_classes(tmp_path, caplog):
    for name, value in (("cat/2.png", 2), ("cat/1.PNG", 1), ("ant/deep/3.png", 3)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(png(value))
    (tmp_path / "in" / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "stray.png").write_bytes(png(9))
    pictures = opened(tmp_path, tmp_path / "in")
    assert seen(pictures) == [(3, "ant"), (1, "cat"), (2, "cat")]
    assert classes_of([pictures]) == ("ant", "cat")
    assert "left out 1 pictures that are in no class's folder (stray.png)" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "bytes"])
def test_a_table_has_paths_from_where_it_is_or_bytes(tmp_path, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    for value in (1, 2):
        (folder / f"{value}, a.png").write_bytes(png(value))
    rows = [("1, a.png", "10"), ("2, a.png", "9"), (str(folder / "1, a.png"), "9")]
    file = folder / f"x.{'parquet' if kind == 'bytes' else kind}"
    if kind == "csv":
        file.write_text("label,image\n" + "".join(f'{label},"{path}"\n' for path, label in rows))
    elif kind == "tsv":
        file.write_text("label\timage\n" + "".join(f"{label}\t{path}\n" for path, label in rows))
    elif kind == "jsonl":
        lines = [json.dumps({"image": path, "label": int(label)}) for path, label in rows]
        file.write_text("\n".join(lines))
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        images = [path for path, _ in rows]
        if kind == "bytes":
            images = [{"bytes": png(value), "path": None} for value in (1, 2, 1)]
        parquet.write_table(arrow.table({"image": images, "label": [int(label) for _, label in rows]}), file)
    pictures = opened(tmp_path, file)
    assert seen(pictures) == [(1, "10"), (2, "9"), (1, "9")]
    assert classes_of([pictures]) == ("9", "10")
    assert seen(opened(tmp_path, file)) == seen(pictures)


def test_tar_files_have_a_picture_and_a_label_under_one_name(tmp_path):
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "0.tar", {"a/1.png": png(1), "a/1.cls": b"3\n", "a/1.txt": b"a caption"})
    tar(
        tmp_path / "shards" / "1.tar",
        {
            "2.json": b'{"label": "cat"}',
            "2.seg.png": png(9),
            "2.png": png(2),
            "3.txt": b"dog",
            "3.png": png(4),
        },
    )
    found = [(1, "3"), (2, "cat"), (4, "dog")]
    assert seen(opened(tmp_path, tmp_path / "shards")) == found
    assert seen(opened(tmp_path, tmp_path / "shards" / "*.tar")) == found


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"../1.png": b"", "../1.cls": b"3"}, 'has a file "../1.png", which would be outside'),
        ({"/1.png": b"", "/1.cls": b"3"}, 'has a file "/1.png", which would be outside'),
        ({"1.png": b""}, '1.png has no label; it should be in "1.cls"'),
        ({"1.png": b"", "1.json": b'{"name": 3}'}, 'its .json has no key "label"'),
        ({"1.png": b"", "1.json": b"{"}, "its label, in .json, cannot be read"),
        ({"1.png": b"", "1.cls": b" "}, "the label is empty"),
        ({"1.png": b"", "1.jpg": b"", "1.cls": b"1"}, "are two pictures of one sample"),
        ({"1.cls": b"1"}, "has no picture"),
    ],
)
def test_tar_files_that_are_refused(tmp_path, files, sentence):
    tar(tmp_path / "x.tar", files)
    with pytest.raises(InputError, match=sentence):
        opened(tmp_path, tmp_path / "x.tar")


def test_sources_that_are_refused(tmp_path):
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "1.png").write_bytes(png(1))
    (tmp_path / "x.tar").write_bytes(b"no tar" * 200)
    (tmp_path / "x.tar.gz").write_bytes(b"")
    (tmp_path / "x.csv").write_text('image,label\n"1.png,3\n')
    (tmp_path / "y.csv").write_text("image,label\n,3\n")
    for name, sentence in [
        ("nowhere", "nowhere does not exist"),
        ("flat", "none in a folder of its own"),
        ("x.tar", "is not a tar file, or is damaged"),
        ("x.tar.gz", "is compressed"),
        ("x.csv", "not comma-separated"),
        ("y.csv", '"image" is neither the path of a picture nor its bytes'),
    ]:
        with pytest.raises(InputError, match=sentence):
            opened(tmp_path, tmp_path / name)
