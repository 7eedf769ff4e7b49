"""Makes mxfp4.npz, what transformers makes of packed tensors: `python make_mxfp4.py` where it is installed.

Every byte occurs, and every scale but 255, which is no number; so do numbers beyond bfloat16.
"""

from pathlib import Path

import numpy as np
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors


def main() -> None:
    random = np.random.RandomState(0)
    blocks = random.randint(0, 256, (3, 50, 2, 16)).astype(np.uint8)
    scales = np.resize(random.permutation(255), (3, 50, 2)).astype(np.uint8)
    whole = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales))
    bits = whole.view(torch.int16).numpy().view(np.uint16)
    path = Path(__file__).with_name("mxfp4.npz")
    np.savez_compressed(path, blocks=blocks, scales=scales, bfloat16=bits)


if __name__ == "__main__":
    main()
