"""Small pictures with texts, as files."""

import io
import json
import tarfile

from PIL import Image

TOKENS = {
    word: number
    for number, word in enumerate(
        [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            "[EOS]",
            "[IMAGE]",
            "a",
            "b",
            "c",
            "d",
            "e",
            "what",
            "user",
            "says",
        ]
    )
}


def png(value: int, size: tuple[int, int] = (4, 4)) -> bytes:
    content = io.BytesIO()
    Image.new("L", size, value).save(content, "PNG")
    return content.getvalue()


def tokenizer(folder) -> str:
    """A tokenizer of a few words."""
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(TOKENS, unk_token="[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[EOS]", "[IMAGE]"])
    words.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def jsonl(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def tar(path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)
