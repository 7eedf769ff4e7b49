"""scikit-learn's handwritten digits, 1,797 pictures of 8 × 8 pixels, as PNG files in a folder per digit.

pip install 'mjx[examples]'
python examples/digits.py digits
mjx train configs/vision/digits.yaml
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the folder that is made")
    out = parser.parse_args().out
    digits = load_digits()
    for number, (picture, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = out / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        grey = np.round(picture * (255 / 16)).astype(np.uint8)  # their pixels are from 0 to 16
        Image.fromarray(grey).save(folder / f"{number:04}.png")
    print(f"{out}: {len(digits.images)} pictures")


if __name__ == "__main__":
    main()
