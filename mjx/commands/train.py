"""`mjx train CONFIG`: a run from start or restart to its pictures."""

import jax
from rich.console import Console
from rich.text import Text

from mjx.config import RunConfig, difference_from_defaults, load_config
from mjx.launch.failure import end_together, spared
from mjx.launch.runtime import start
from mjx.parse import to_tree
from mjx.trees import to_yaml


def train(path: str, overrides: list[str], *, print_only: bool) -> None:
    """Train a recipe; when it is done, draw the loss and continue the recipe's prompts."""
    with end_together():
        config = load_config(path, overrides)
        if print_only:
            print_config(config)
            return
        start(config.runtime)

        from mjx.metrics.curve import draw_loss_curve
        from mjx.run.loop import train as run

        result = run(config)
        if not result.finished:
            return
        first = jax.process_index() == 0
        console = Console(stderr=True, highlight=False)
        if first and result.folder.metrics.exists():
            with spared("drawn"):
                picture = draw_loss_curve(result.folder.path, title=result.folder.path.name)
                console.print(f"loss curve: {picture}", soft_wrap=True, markup=False)
        if config.training.prompts:
            with spared("sampled from", together=True):
                texts = _continue_prompts(config, result)
                if first:
                    result.folder.sample.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
                    for text in texts:
                        console.print(Text(text), style="italic")


def print_config(config: RunConfig) -> None:
    """The resolved recipe, and what in it is not a default."""
    print(to_yaml(to_tree(config)), end="")
    print("\n# Decided by the recipe:")
    for key, (default, value) in difference_from_defaults(config).items():
        print(f"#   {key}: {value}" + ("" if default is None else f"  (default {default})"))


def _continue_prompts(config: RunConfig, result) -> list[str]:
    from mjx.inference.generate import Generator
    from mjx.inference.text import continue_texts

    trainer, rules = result.trainer, config.sharding.build()
    generator = Generator(trainer.model, result.state.parameters, mesh=trainer.mesh, rules=rules)
    return continue_texts(
        *(generator, result.tokenizer, config.training.prompts, config.sampling), data=config.data
    )
