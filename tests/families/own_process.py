"""One of the two processes that train a variant together: `own_process.py FAMILY VARIANT FILE`."""

import sys
from pathlib import Path

from mjx.launch import RuntimeConfig, end_together, start

sys.path[0] = str(Path(__file__).parents[1])


def main() -> None:
    """Trains, and leaves the state in the file."""
    process = start(RuntimeConfig(platform="cpu", cpu_devices=4)).process_id
    import numpy as np

    from families import training
    from families.contract import variants
    from mjx.checkpoint.names import named_leaves

    family, name, file = sys.argv[1:]
    variant = next(each for each in variants(family) if each.name == name)
    trainer = training.trainer(variant, variant.mesh)
    state, losses = training.train(trainer, variant, trainer.init(seed=0), range(training.STEPS))
    arrays = {".".join(path): training.whole(leaf) for path, leaf in named_leaves(state).items()}
    if process == 0:
        np.savez(file, **arrays, **losses)


with end_together():
    main()
