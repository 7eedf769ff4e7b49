"""A fine-tuned encoder against logistic regression on bags of words, on the same rows.

    python examples/docstrings.py docstrings
    mjx train configs/bert/minilm-classify.yaml
    python benchmarks/classify.py runs/minilm-classify docstrings

needs scikit-learn. The bag of words is the best of twelve: counts, or tf-idf of words or of words and pairs,
each with four strengths of regularization, chosen on the very rows that it is measured on.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

BAGS = {
    "counts of words": lambda: CountVectorizer(),
    "tf-idf of words": lambda: TfidfVectorizer(sublinear_tf=True),
    "tf-idf of words and pairs": lambda: TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
}


def rows(file: Path) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    read = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in read], [row["label"] for row in read]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    texts, labels = rows(options.folder / "train.jsonl")
    others, truth = rows(options.folder / "valid.jsonl")
    print(f"{len(texts)} rows to learn from, {len(others)} to be told, {len(set(labels))} labels")
    best = 0.0
    for name, make in BAGS.items():
        bag = make()
        known, unknown = bag.fit_transform(texts), bag.transform(others)
        for strength in (0.3, 1.0, 10.0, 100.0):
            regression = LogisticRegression(C=strength, max_iter=500).fit(known, labels)
            accuracy = float(np.mean(regression.predict(unknown) == np.array(truth)))
            best = max(best, accuracy)
            print(f"logistic regression, {name}, C = {strength:g}: {accuracy:.4f}")
    start = time.perf_counter()
    command = [sys.executable, "-m", "mjx", "classify", options.run, options.folder / "valid.jsonl"]
    told = subprocess.run(
        [*command, "--format", "jsonl"], check=True, capture_output=True, encoding="utf-8"
    ).stdout
    found = [json.loads(line)["label"] for line in told.splitlines()]
    accuracy = float(np.mean(np.array(found) == np.array(truth)))
    seconds = time.perf_counter() - start
    print(f"{options.run}: {accuracy:.4f} (mjx classify took {seconds:.0f} s, starting included)")
    print(f"{accuracy - best:+.4f} against the best bag of words")


if __name__ == "__main__":
    main()
