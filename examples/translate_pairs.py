"""Prints translations that a model makes of held-out pairs, and their chrF.

    pip install 'mjx[examples]'
    python examples/translate_pairs.py RUN data/handbook-en-fr/valid.jsonl [--pairs 100] [KEY=VALUE …]

chrF (Popović 2015) is that of sacrebleu, over all pairs together. Beside it stands what needs no model: the
sources as they are, and the next pair's reference in each one's place.
"""

import argparse
import dataclasses
import json

from sacrebleu.metrics import CHRF

from mjx.errors import InputError
from mjx.inference import Generator
from mjx.inference.text import continue_texts
from mjx.run.opened import open_model, read_inference_config


def translations(run: str, overrides: list[str], sources: list[str], batch: int) -> list[str]:
    """What the model writes for each of the sources; those of like length are read together."""
    config = read_inference_config(run, overrides)
    opened = open_model(run, config)
    generator = Generator(opened.model, opened.parameters, mesh=opened.mesh, rules=opened.rules)
    stops = tuple({*config.sampling.stop_tokens, *opened.stop_tokens()})
    sampling = dataclasses.replace(config.sampling, stop_tokens=stops)
    tokenizer, data = opened.tokenizer(), opened.data()
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    texts = [""] * len(sources)
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        some = [sources[row] for row in rows]
        made = continue_texts(generator, tokenizer, some, sampling, data=data)
        for row, text in zip(rows, made, strict=True):
            texts[row] = text
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run's folder, or a Hugging Face one")
    parser.add_argument("file", help="pairs, a JSON object a line")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="such as sampling.beams=1")
    parser.add_argument("--keys", nargs=2, default=("en", "fr"), help="of source and target")
    parser.add_argument("--pairs", type=int, default=100, help="so many, spread over the file")
    parser.add_argument("--show", type=int, default=8, help="translations to print")
    parser.add_argument("--batch", type=int, default=25, help="sources at once")
    options = parser.parse_args()
    try:
        with open(options.file, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        step = max(len(rows) // options.pairs, 1)
        sources, references = ([row[key] for row in rows[::step]] for key in options.keys)
        made = translations(options.run, options.overrides, sources, options.batch)
    except (InputError, OSError, KeyError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for row in range(0, len(made), -(-len(made) // max(options.show, 1))):
        print(f"{sources[row]}\n  = {references[row]}\n  → {made[row]}\n")
    chrf = CHRF()
    others = [*references[1:], references[0]]
    for name, texts in (("translations", made), ("sources", sources), ("other references", others)):
        print(f"chrF {chrf.corpus_score(texts, [references]).score:5.1f}  {name}")


if __name__ == "__main__":
    main()
