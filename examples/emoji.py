"""3,655 emoji with their names, as pictures of 32 × 32 pixels beside tables of captions.

pip install 'mjx[examples]'
python examples/emoji.py emoji

The pictures are those of Noto Color Emoji (SIL Open Font License), the captions and keywords Unicode's
(Unicode licence), out of three Debian packages, which `apt-get download` brings.

emoji/pictures/     PNG files
emoji/train.jsonl   {"image", "caption", "keywords", "group", "subgroup"}: all but one in ten
emoji/held-out.jsonl     that tenth, drawn by chance
emoji/tones-train.jsonl  all but one in five of each person's skin tones
emoji/tones-held-out.jsonl    those: each person and each tone is in tones-train, but not the two together
emoji/tokenizer/    word pieces of the captions, with [CLS], [SEP], [EOS], …; <extra_id_0> is in no caption
"""

import argparse
import collections
import io
import json
import random
import re
import shutil
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

from fontTools.ttLib import TTFont
from PIL import Image

from mjx.data.tokenizers.train import train_word_pieces

PACKAGES = ("fonts-noto-color-emoji", "unicode-cldr-core", "unicode-data")
VARIATION = "\ufe0f"
"""Asks for a picture in place of a character; fonts and names leave it out."""
TONE = re.compile(r"(?:medium-light|medium-dark|light|medium|dark) skin tone")


class Emoji(NamedTuple):
    text: str
    caption: str
    group: str
    subgroup: str
    keywords: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder that is made")
    parser.add_argument(
        "--packages", type=Path, help="a folder with the .deb files, which are not fetched then"
    )
    parser.add_argument("--size", type=int, default=32, help="pixels of each side")
    options = parser.parse_args()
    if shutil.which("dpkg-deb") is None or (options.packages is None and shutil.which("apt-get") is None):
        parser.error(
            f"the packages {', '.join(PACKAGES)} are Debian's: this needs apt-get and dpkg-deb, as on Debian "
            "or Ubuntu. (The folder that is made may be copied from there.)"
        )
    with tempfile.TemporaryDirectory() as folder:
        root = unpacked(Path(folder), options.packages)
        font = TTFont(root / "usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
        found = [(emoji, picture) for emoji in listed(root) if (picture := drawn(font, emoji.text))]
    (options.out / "pictures").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (emoji, content) in enumerate(found):
        name = f"pictures/{number:04}.png"
        on_white(content, options.size).save(options.out / name)
        rows.append(
            {"image": name, **{key: value for key, value in emoji._asdict().items() if key != "text"}}
        )
    chosen = set(random.Random(0).sample(range(len(rows)), len(rows) // 10))
    tones = tones_apart([row["caption"] for row in rows])
    for part, held_out in (("", chosen), ("tones-", tones)):
        write(options.out / f"{part}train.jsonl", [row for at, row in enumerate(rows) if at not in held_out])
        write(options.out / f"{part}held-out.jsonl", [row for at, row in enumerate(rows) if at in held_out])
    train_word_pieces([row["caption"] for row in rows], 3000).save(options.out / "tokenizer")
    print(f"{options.out}: {len(rows)} emoji, {len(chosen)} held out; {len(tones)} skin tones held out")


def unpacked(folder: Path, packages: Path | None) -> Path:
    """The files of the packages."""
    if packages is None:
        packages = folder
        subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
    for name in PACKAGES:
        (file,) = packages.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(file), str(folder / "files")], check=True)
    return folder / "files"


def listed(root: Path) -> list[Emoji]:
    """The emoji that Unicode recommends, in its order."""
    captions: dict[str, str] = {}
    keywords: dict[str, list[str]] = {}
    for folder in ("annotations", "annotationsDerived"):
        (file,) = root.rglob(f"{folder}/en.xml")
        for annotation in ElementTree.parse(file).getroot().iter("annotation"):
            text, said = annotation.attrib["cp"].replace(VARIATION, ""), annotation.text or ""
            if annotation.get("type") == "tts":
                captions[text] = said
            else:
                keywords[text] = said.split(" | ")
    (table,) = root.rglob("emoji-test.txt")
    found: list[Emoji] = []
    group = subgroup = ""
    for line in table.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.partition(":")[2].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.partition(":")[2].strip()
        elif "; fully-qualified" in line:
            points, _, comment = line.partition(";")
            text = "".join(chr(int(point, 16)) for point in points.split()).replace(VARIATION, "")
            name = comment.partition("# ")[2].split(" ", 2)[2]
            found.append(Emoji(text, captions.get(text, name), group, subgroup, keywords.get(text, [])))
    return found


def drawn(font: TTFont, text: str) -> bytes | None:
    """The PNG file in the font; None: it has none. What joins characters is read off the font once."""
    known = getattr(font, "_mjx_known", None)
    if known is None:
        pictures = {
            name: data.imageData for strike in font["CBDT"].strikeData for name, data in strike.items()
        }
        joined = {}
        for lookup in font["GSUB"].table.LookupList.Lookup:
            for table in lookup.SubTable:
                table = table.ExtSubTable if table.LookupType == 7 else table
                if table.LookupType != 4:
                    continue
                for first, ligatures in table.ligatures.items():
                    joined |= {(first, *one.Component): one.LigGlyph for one in ligatures}
        known = font._mjx_known = pictures, font.getBestCmap(), joined
    pictures, names, joined = known
    glyphs = tuple(names.get(ord(character)) for character in text)
    return pictures.get(glyphs[0] if len(glyphs) == 1 else joined.get(glyphs))


def on_white(content: bytes, size: int) -> Image.Image:
    picture = Image.open(io.BytesIO(content)).convert("RGBA")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB").resize((size, size), Image.Resampling.LANCZOS)


def tones_apart(captions: list[str]) -> set[int]:
    """One in five of the tones of each person, or of the pairs of tones of two."""
    people = collections.defaultdict(list)
    for number, caption in enumerate(captions):
        if TONE.search(caption):
            people[TONE.sub("", caption)].append(number)
    chance = random.Random(0)
    return {number for numbers in people.values() for number in chance.sample(numbers, len(numbers) // 5)}


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
