"""The `mjx` command. Only argparse is imported here, so that help comes at once."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

from mjx.arguments import parser as arguments_of_all
from mjx.arguments import parted


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    Exits with 0 when it did what was asked (a run stopped by a signal has saved), 2 for what the
    user can mend, 130 for Ctrl-C, 1 for a bug (and for a model that `verify` finds to differ).
    """
    _print_whatever_comes()
    parser = arguments_of_all()
    options, more = parser.parse_known_args(arguments)
    # argparse takes positional arguments only in one row: those after an option come back as unknown.
    if more and (not hasattr(options, "overrides") or any(text.startswith("-") for text in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        options.overrides = [*options.overrides, *more]
    try:
        from mjx.launch.gpus import choose_platform

        choose_platform(os.environ)
        _RUN[options.run](options)
    except KeyboardInterrupt:
        sys.exit(130)
    except ValueError as error:
        from mjx.errors import InputError

        if not isinstance(error, InputError):
            raise
        print(f"mjx: error: {error}", file=sys.stderr)
        sys.exit(2)


def _print_whatever_comes() -> None:
    """Escape the characters that the terminal's encoding lacks, as Python does on standard error anyway."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _train(options: argparse.Namespace) -> None:
    from mjx.commands.train import train

    train(options.config, options.overrides, print_only=options.print_config)


def _generate(options: argparse.Namespace) -> None:
    from mjx.commands.generate import generate

    generate(
        *(options.path, options.prompt, options.overrides, options.step),
        images=options.image,
        chat=not options.raw,
    )


def _classify(options: argparse.Namespace) -> None:
    from mjx.commands.classify import classify

    files, overrides = parted(options.overrides)
    classify(
        options.path,
        files,
        overrides,
        options.step,
        text_key=options.text_key,
        pair_key=options.pair_key,
        batch_tokens=options.batch_tokens,
        format=options.format,
    )


def _embed(options: argparse.Namespace) -> None:
    from mjx.commands.embed import embed

    embed(options, *parted(options.overrides))


def _import(options: argparse.Namespace) -> None:
    from mjx.commands.import_model import import_huggingface, import_megatron

    if options.library == "megatron":
        import_megatron(options.path, options.run_dir, options.config, options.overrides)
        return
    if options.config is not None:
        from mjx.errors import InputError

        raise InputError(
            "--config is for --from megatron: a Hugging Face folder says itself what model it is"
        )
    import_huggingface(options.path, options.run_dir, options.overrides)


def _recipe(options: argparse.Namespace) -> None:
    from mjx.commands.recipe import recipe_of_megatron

    recipe_of_megatron(options.from_megatron, options.overrides)


def _explain(options: argparse.Namespace) -> None:
    from mjx.commands.explain import explain

    explain(
        options.config,
        options.overrides,
        options.devices,
        activations=options.activations,
        html=options.html,
        gpu=options.gpu,
    )


def _plan(options: argparse.Namespace) -> None:
    os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX starts: the GPUs are not here, or not wanted

    from mjx.commands.plan import plan, search

    asked = {
        "gpu": options.gpu,
        "nodes": options.nodes,
        "gpus_per_node": options.gpus_per_node,
        "compiler": options.compiler,
        "products": options.products,
        "utilization": options.utilization,
    }
    if options.search:
        search(options.config, options.overrides, asked, options.compile, options.json, options.html)
    else:
        plan(options.config, options.overrides, asked, options.json, options.html)


def _export(options: argparse.Namespace) -> None:
    from mjx.commands.export import export

    export(
        options.run_dir,
        options.directory,
        options.overrides,
        options.step,
        format=options.format,
        dtype=options.dtype,
        clip=options.clip,
        architecture=options.architecture,
    )


def _verify(options: argparse.Namespace) -> None:
    from mjx.commands.verify import VerifyOptions, verify

    asked = VerifyOptions(
        texts=options.text,
        prompt_file=options.prompt_file,
        rows=options.rows,
        length=options.length,
        seed=options.seed,
        padding_side=options.padding_side,
        new_tokens=options.new_tokens,
        gradients=not options.no_gradients,
        limit=options.limit,
    )
    if not verify(options.path, asked):
        sys.exit(1)


def _data_build(options: argparse.Namespace) -> None:
    from mjx.commands.data_build import data_build

    data_build(options)


def _backends(options: argparse.Namespace) -> None:
    from mjx.commands.backends import backends

    backends()


def _bench_kernels(options: argparse.Namespace) -> None:
    if options.compile_only:
        os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX starts: the GPU is not here, or not wanted

    from mjx.commands.bench import bench_kernels

    bench_kernels(
        ops=options.op,
        gpu=options.gpu,
        compile_only=options.compile_only,
        rounds=options.rounds,
        sweep=options.sweep,
        report=options.report,
    )


def _launch(options: argparse.Namespace) -> None:
    from mjx.errors import InputError
    from mjx.launch.local import launch_local

    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise InputError("launch what? e.g. mjx launch -n 2 -- train RECIPE")
    sys.exit(launch_local(options.n, [sys.executable, "-m", "mjx", *command]))


_RUN = {
    "train": _train,
    "generate": _generate,
    "classify": _classify,
    "embed": _embed,
    "explain": _explain,
    "plan": _plan,
    "import": _import,
    "recipe": _recipe,
    "export": _export,
    "verify": _verify,
    "data_build": _data_build,
    "backends": _backends,
    "bench_kernels": _bench_kernels,
    "launch": _launch,
}
"""What `options.run` names."""
