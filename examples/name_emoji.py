"""Prints how a model that sees names emoji which it has not learned, and how often it is right.

    python examples/emoji.py emoji
    mjx train configs/multimodal/emoji.yaml
    python examples/name_emoji.py runs/emoji emoji/tones-held-out.jsonl [KEY=VALUE …]

A name is right if it is the emoji's own, as the tokenizer writes it. Beside it stand its parts: who or what
it is, and the skin tone, behind the colon.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from mjx.data.images.decode import decoded
from mjx.data.images.marks import PictureMarks
from mjx.errors import InputError
from mjx.inference import Generator
from mjx.inference.seen_prompts import SeenPictures
from mjx.inference.text import continue_texts
from mjx.run.opened import open_model, read_inference_config


def names(
    run: str, overrides: list[str], files: list[Path], captions: list[str], batch: int
) -> tuple[list[str], list[str]]:
    """What the model says of each picture, most likely token by most likely token; and the captions, as the
    same tokenizer writes them."""
    config = read_inference_config(run, ["sampling.temperature=0", *overrides])
    opened = open_model(run, config)
    data = opened.data()
    prepare = None if data is None else data.picture_processor
    if prepare is None:
        raise InputError(f"{run} is no run that was trained on pictures")
    prompt = getattr(data, "prompt", "")
    generator = Generator(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
    stops = tuple({*config.sampling.stop_tokens, *opened.stop_tokens()})
    sampling = dataclasses.replace(config.sampling, stop_tokens=stops)
    tokenizer, told = opened.tokenizer(), []
    marks = PictureMarks(image=tokenizer.token(opened.model.image_token) or "<image>")
    for first in range(0, len(files), batch):
        some = files[first : first + batch]
        views = [[prepare(decoded(file.read_bytes(), prepare.channels))] for file in some]
        seen = SeenPictures(views, marks)
        texts = continue_texts(generator, tokenizer, [prompt] * len(some), sampling, pictures=seen)
        told += [text.rsplit(prompt, 1)[-1].strip() for text in texts]
    return told, [tokenizer.decode(tokenizer.encode(caption)).strip() for caption in captions]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run's folder")
    parser.add_argument("file", type=Path, help="emoji with captions, a JSON object a line")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--show", type=int, default=12, help="names to print")
    parser.add_argument("--batch", type=int, default=119, help="pictures at once")
    options = parser.parse_args()
    try:
        rows = [json.loads(line) for line in options.file.read_text(encoding="utf-8").splitlines()]
        files = [options.file.parent / row["image"] for row in rows]
        captions = [row["caption"] for row in rows]
        told, own = names(options.run, options.overrides, files, captions, options.batch)
    except (InputError, OSError, KeyError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for row in range(0, len(own), -(-len(own) // max(options.show, 1))):
        print(f"{'=' if told[row] == own[row] else '≠'} {own[row]}\n    {told[row]}")
    for part, cut in (("name", slice(None)), ("who or what", slice(0, 1)), ("skin tone", slice(1, None))):
        right = sum(
            one.split(":")[cut] == other.split(":")[cut] for one, other in zip(told, own, strict=True)
        )
        print(f"{right / len(own):.3f} of {len(own)} are told their {part}")


if __name__ == "__main__":
    main()
