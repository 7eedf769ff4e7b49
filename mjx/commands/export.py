"""`mjx export RUN DIR`: the weights of a checkpoint alone, in a folder that Orbax reads by itself."""

from mjx.config import to_tree, to_yaml
from mjx.launch.failure import end_together
from mjx.launch.runtime import start
from mjx.training.saved_run import load_run, read_run_config
from mjx.training.weights import save_weights


def export(run_dir: str, directory: str, step: int | None) -> None:
    """Write the newest checkpoint's weights (or those of `step`) and the config to a new folder."""
    with end_together():
        config = read_run_config(run_dir)
        processes = start(config.runtime)
        run = load_run(run_dir, config, step)
        save_weights(directory, run.parameters, to_yaml(to_tree(config)))
        if processes.is_first:
            print(f"wrote the weights of step {run.step} to {directory}")
