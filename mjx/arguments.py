"""What the subcommands of `mjx` take. Only argparse is imported here, so that help comes at once."""

import argparse
import os
from collections.abc import Sequence

_RECIPE = "a YAML recipe, see configs/"
_OVERRIDES = "key.path=value, overrules the recipe"
_BATCH_TOKENS = "of a batch, padding included (2048, on GPUs 65536)"


def path_of(text: str) -> str:
    """What `type=` makes of a path: no shell puts a home folder in the place of the `~` of `--output=~/x`."""
    from mjx.errors import InputError
    from mjx.files import local_path

    try:
        return local_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mjx", description="Train the model families of Megatron-Core in JAX, on any mesh."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = _command(commands, "train", "train", "train a model, or resume a run")
    train.add_argument("config", type=path_of, help=_RECIPE)
    train.add_argument("overrides", nargs="*", default=[], help=_OVERRIDES)
    train.add_argument("--print-config", action="store_true", help="show the resolved recipe and stop")

    generate = _command(commands, "generate", "generate", "continue text, or answer, with a trained model")
    generate.add_argument(
        "path", type=path_of, metavar="MODEL", help="a run folder, or a Hugging Face folder"
    )
    generate.add_argument("--prompt", action="append", required=True, help="may be given several times")
    generate.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        help="a picture: where a prompt has the next <image>, or in front of it; may be given several times",
    )
    generate.add_argument(
        "--raw",
        action="store_true",
        help="continue the prompt as it is, even if the model has a chat template",
    )
    generate.add_argument("--step", type=int, help="which checkpoint (the newest)")
    generate.add_argument(
        "overrides", nargs="*", default=[], help="e.g. sampling.temperature=0, mesh.tensor=2"
    )

    classify = _command(
        commands,
        "classify",
        "classify",
        "tell the classes of texts, or a number of each, with a trained model",
    )
    classify.add_argument(
        "path", type=path_of, metavar="MODEL", help="a run folder, or a Hugging Face folder"
    )
    classify.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="FILE",
        help="a text a line, or two with a tab between; .jsonl, .tsv, .parquet (standard input); and "
        "overrides, e.g. mesh.tensor=2",
    )
    classify.add_argument("--text-key", metavar="KEY", help="key or column of the text (as in training)")
    classify.add_argument("--pair-key", metavar="KEY", help="key or column of a second one (as in training)")
    classify.add_argument("--format", choices=["tsv", "jsonl"], default="tsv", help="(tsv)")
    classify.add_argument("--batch-tokens", type=int, metavar="N", help=_BATCH_TOKENS)
    classify.add_argument("--step", type=int, help="which checkpoint (the newest)")

    embed = _command(commands, "embed", "embed", "make vectors of texts or pictures, with any encoder")
    embed.add_argument(
        "path",
        type=path_of,
        metavar="MODEL",
        help="a run folder, or a folder of Hugging Face or sentence-transformers",
    )
    embed.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="FILE",
        help=".txt (a text a line), .jsonl, .parquet, …; or pictures, and folders with them; none: texts of "
        "standard input; and overrides (mesh.data=2)",
    )
    embed.add_argument(
        "--output",
        type=path_of,
        metavar="FILE",
        help=".npy, or .parquet with the texts or the names of files (without: printed, a JSON list a line)",
    )
    embed.add_argument(
        "--pooling",
        metavar="HOW",
        help="mean, cls, max, pooler, inner, …, or several joined: cls+mean (as the folder says, else as the "
        "model has learnt it, or mean)",
    )
    embed.add_argument(
        "--normalize", action=argparse.BooleanOptionalAction, help="to length 1 (as the folder says)"
    )
    embed.add_argument(
        "--max-length", type=int, metavar="N", help="cut texts behind so many tokens (as the folder says)"
    )
    embed.add_argument("--prompt", metavar="TEXT", help="in front of every text (as the folder says)")
    embed.add_argument("--text-key", default="text", metavar="KEY", help="JSON key or Parquet column (text)")
    embed.add_argument("--batch-tokens", type=int, metavar="N", help=_BATCH_TOKENS)
    embed.add_argument("--step", type=int, help="which checkpoint (the newest)")

    explain = _command(commands, "explain", "explain", "show what lives where on a mesh")
    explain.add_argument("config", type=path_of, help=_RECIPE)
    explain.add_argument("overrides", nargs="*", default=[], help=_OVERRIDES)
    explain.add_argument("--devices", type=int, help="how many devices the mesh is for")
    explain.add_argument("--gpu", help="as on this GPU (a100, b200, h100 or h200), where auto is bfloat16")
    explain.add_argument(
        "--activations", action="store_true", help="list the activations of one layer as well"
    )
    explain.add_argument("--html", type=path_of, metavar="FILE", help="write a page that draws all of it")

    plan = _command(
        commands, "plan", "plan", "compile a run for GPUs that are not here: memory, traffic, time"
    )
    plan.add_argument("config", type=path_of, help=_RECIPE)
    plan.add_argument("overrides", nargs="*", default=[], help=_OVERRIDES)
    plan.add_argument("--gpu", default="h100", help="a100, b200, h100 or h200 (h100)")
    plan.add_argument("--nodes", type=int, default=1, help="machines (1)")
    plan.add_argument("--gpus-per-node", type=int, help="GPUs of each (as the data sheet says: 8)")
    plan.add_argument(
        "--products",
        choices=["both", "triton", "cublas"],
        help="how products are compiled (both: what needs more is planned; one of them alone: half the time)",
    )
    plan.add_argument("--compiler", choices=["gpu", "cpu"], help="(gpu, or cpu where mjx[plan] is missing)")
    plan.add_argument(
        "--utilization", type=float, default=0.5, help="share of the peak that products reach (0.5)"
    )
    plan.add_argument("--json", type=path_of, metavar="FILE", help="write the plan as JSON")
    plan.add_argument("--html", type=path_of, metavar="FILE", help="write the plan as a page with pictures")
    plan.add_argument(
        "--search", action="store_true", help="which mesh, microbatches and recomputation are fastest and fit"
    )
    plan.add_argument(
        "--compile", type=int, default=4, metavar="N", help="--search: how many of the best to compile (4)"
    )

    imports = _command(commands, "import", "import", "make a run folder of another library's checkpoint")
    imports.add_argument(
        "path",
        type=path_of,
        metavar="DIR",
        help="a Hugging Face folder (config.json and safetensors), or a torch_dist checkpoint of Megatron",
    )
    imports.add_argument("run_dir", type=path_of, metavar="RUN", help="a new folder")
    imports.add_argument(
        "--from",
        dest="library",
        choices=["huggingface", "megatron"],
        default="huggingface",
        help="(huggingface)",
    )
    imports.add_argument(
        "--config",
        type=path_of,
        metavar="RECIPE",
        help="megatron: a recipe whose model and tokenizer they are, where the checkpoint has no arguments",
    )
    imports.add_argument("overrides", nargs="*", default=[], help="e.g. mesh.tensor=2, model.dtype=bfloat16")

    recipe = _command(commands, "recipe", "recipe", "make a recipe of another library's settings")
    recipe.add_argument(
        "--from-megatron",
        required=True,
        type=path_of,
        metavar="SOURCE",
        help="a shell script or a JSON file with Megatron-LM's arguments, or a torch_dist checkpoint",
    )
    recipe.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="further arguments, e.g. vocab-size=50257",
    )

    export = _command(commands, "export", "export", "write weights alone, for Orbax or for transformers")
    export.add_argument("run_dir", type=path_of, metavar="RUN", help="a run folder")
    export.add_argument("directory", type=path_of, metavar="DIR", help="a new folder")
    export.add_argument("--step", type=int, help="which checkpoint (the newest)")
    export.add_argument("--format", choices=["orbax", "huggingface"], default="orbax", help="(orbax)")
    export.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="huggingface: of the tensors (float32)"
    )
    export.add_argument(
        "--clip",
        action="store_true",
        help="with --dtype: numbers beyond its range become its largest, instead of being refused",
    )
    export.add_argument(
        "--architecture", metavar="TYPE", help="huggingface: the model_type (the first that fits)"
    )
    export.add_argument("overrides", nargs="*", default=[], help="e.g. mesh.tensor=2")

    verify = _command(
        commands, "verify", "verify", "compare a Hugging Face folder with transformers (mjx[parity])"
    )
    verify.add_argument(
        "path", type=path_of, metavar="DIR", help="a Hugging Face folder of a model that continues text"
    )
    verify.add_argument(
        "--text", action="append", default=[], help="a prompt, instead of random tokens; several times"
    )
    verify.add_argument(
        "--prompt-file", type=path_of, metavar="FILE", help="a prompt a line; .json: lists of token ids"
    )
    verify.add_argument("--rows", type=int, default=4, help="random prompts (4)")
    verify.add_argument("--length", type=int, default=32, help="tokens of the longest of them (32)")
    verify.add_argument("--seed", type=int, default=0, help="of the random prompts (0)")
    verify.add_argument(
        "--padding-side", choices=["left", "right"], default="right", help="of the shorter rows (right)"
    )
    verify.add_argument(
        "--new-tokens", type=int, default=16, metavar="N", help="continue greedily by so many (16)"
    )
    verify.add_argument("--no-gradients", action="store_true", help="leave out the gradients' norm")
    verify.add_argument(
        "--limit",
        type=float,
        default=1e-4,
        help="of logits relative to their spread, of loss and gradient norm (1e-4)",
    )

    data = commands.add_parser("data", help="prepare data")
    kinds = data.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = _command(kinds, "build", "data_build", "tokenize text into .bin/.idx")
    build.add_argument(
        "inputs",
        nargs="+",
        type=path_of,
        metavar="FILE",
        help=".txt, .json, .jsonl, .ndjson (or these with .gz, .bz2, .xz, .zst), .parquet; folders, patterns",
    )
    build.add_argument(
        "--output", required=True, type=path_of, metavar="PREFIX", help="writes PREFIX.bin and PREFIX.idx"
    )
    build.add_argument(
        "--tokenizer", required=True, type=path_of, help="a tokenizer's file or folder, or 'byte'"
    )
    build.add_argument("--key", default="text", help="the JSON key or Parquet column (text)")
    build.add_argument("--split-blank-lines", action="store_true", help=".txt: a blank line ends a document")
    build.add_argument(
        "--split-sentences",
        action="store_true",
        help="a sequence a sentence, as data that hides tokens takes",
    )
    build.add_argument("--language", help="whose sentences they are: its code in ISO 639 (en)")
    build.add_argument(
        "--eod",
        action=argparse.BooleanOptionalAction,
        help="end documents with the end-of-document id (where they are not split into sentences)",
    )
    build.add_argument(
        "--skip-bad-lines", action="store_true", help="leave out lines that cannot be read, and count them"
    )
    build.add_argument(
        "--workers", type=int, default=1, help="processes that tokenize (1; it uses all cores)"
    )

    _command(commands, "backends", "backends", "show which implementation computes each op here")

    bench = commands.add_parser("bench", help="measure, or compile for GPUs that are not here")
    kinds = bench.add_subparsers(title="commands", metavar="COMMAND", required=True)
    kernels = _command(kinds, "kernels", "bench_kernels", "compare kernels with what their work needs")
    kernels.add_argument("--compile-only", action="store_true", help="compile for GPUs that are not here")
    kernels.add_argument("--op", action="append", help="may be given several times (all)")
    kernels.add_argument(
        "--gpu", help="whose data sheet, and with --compile-only what to compile for (all that are known)"
    )
    kernels.add_argument("--rounds", type=int, default=7, help="of which the median counts (7)")
    kernels.add_argument(
        "--sweep", action="store_true", help="measure every block configuration that compiles well"
    )
    kernels.add_argument(
        "--report", type=path_of, metavar="FILE", help="with --compile-only: write the figures as JSON"
    )

    launch = _command(commands, "launch", "launch", "start a command as several processes on this machine")
    launch.add_argument("-n", type=int, required=True, metavar="N", help="how many processes")
    launch.add_argument("command", nargs=argparse.REMAINDER, help="e.g. train RECIPE")
    return parser


def _command(commands, name: str, run, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def parted(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Files, and overrides: `key.path=value` that is no file's name."""

    def is_override(one: str) -> bool:
        key, equals, _ = one.partition("=")
        return (
            bool(equals) and all(part.isidentifier() for part in key.split(".")) and not os.path.exists(one)
        )

    return [path_of(one) for one in given if not is_override(one)], list(filter(is_override, given))
