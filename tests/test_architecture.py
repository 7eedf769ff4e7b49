"""The house rules of the package, held by reading its source."""

import ast
import collections
import dataclasses
import functools
import importlib
import inspect
import itertools
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import mjx
from mjx import models
from mjx.config import RunConfig
from mjx.data.config import KINDS, load_kind
from mjx.models.family import load_family

PACKAGE = Path(mjx.__file__).parent
TESTS = Path(__file__).parent
FILES = {
    ".".join(("mjx", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Module name → its file."""
FAMILIES = ("gpt", "bert", "t5", "mamba", "retro", "vision", "audio", "multimodal", "dual_encoder", "mimo")

FLOORS = [
    {"mjx", "mjx.bounds", "mjx.errors", "mjx.files", "mjx.parse", "mjx.trees", "mjx.words", "mjx.batch"},
    {"mjx.gpus"},  # facts of hardware
    {"mjx.sharding", "mjx.kernels", "mjx.launch"},  # no model and no training
    {"mjx.checkpoint", "mjx.metrics"},  # neither knows a model
    # The blocks, and the registry, whose table of names opens the families above it.
    {"mjx.models.common", "mjx.models.interop", "mjx.models.backends", "mjx.models.family", "mjx.models"},
    {f"mjx.models.{family}" for family in FAMILIES},
    {"mjx.models.huggingface", "mjx.models.megatron"},  # the adapters
    {"mjx.data", "mjx.training"},
    {"mjx.inference"},  # of texts too, with tokenizers
    {"mjx.source"},  # where a model comes from
    {"mjx.config"},  # puts together the configs of all components below
    {"mjx.run"},  # a whole run: needs the whole config, data and launch
    {"mjx.plan"},  # what a run would need, without running it
    {"mjx.commands"},
    {"mjx.arguments"},
    {"mjx.cli"},
    {"mjx.__main__"},
]
"""From the ground up. A module stands on the floor of the longest name that it begins with."""


def relative(path: Path) -> str:
    """As a reader of the repository names it."""
    return os.path.relpath(path, TESTS.parent)


@functools.cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def room(module: str) -> str:
    """The entry of FLOORS that a module belongs to."""
    entries = [entry for floor in FLOORS for entry in floor]
    fitting = [entry for entry in entries if module == entry or module.startswith(f"{entry}.")]
    if fitting == ["mjx"] and module != "mjx":
        pytest.fail(f"{module} stands on no floor: give it a place in FLOORS")
    return max(fitting, key=len)


def floor(module: str) -> int:
    return next(number for number, entries in enumerate(FLOORS) if room(module) in entries)


def imports(module: str, *, deferred: bool = True) -> set[str]:
    """The modules of this package that a module imports: at its top and, if `deferred`, inside functions."""
    found = set()
    for node in ast.walk(tree_of(module)) if deferred else tree_of(module).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in FILES else str(node.module))
    return {name for name in found if name in FILES and name != module}


def test_no_import_goes_up():
    upward = [
        f"{module} imports {target}"
        for module in FILES
        for target in imports(module)
        if floor(target) > floor(module) and target != "mjx"
    ]
    assert not upward


def test_rooms_on_one_floor_do_not_know_each_other():
    sideways = [
        f"{module} imports {target}"
        for module in FILES
        for target in imports(module)
        if floor(target) == floor(module) > 0
        and room(target) != room(module)
        # The blocks, the table of implementations, the protocol of families and their list are one room.
        and not FLOORS[4] >= {room(target), room(module)}
    ]
    assert not sideways


def test_no_imports_go_in_a_circle():
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' → '.join((*path[path.index(module) :], module))}"
        if module not in done:
            # Inside one folder a config may build, late, the module that it configures.
            folder = module.rpartition(".")[0]
            late = {target for target in imports(module) if target.rpartition(".")[0] != folder}
            for target in imports(module, deferred=False) | late:
                visit(target, (*path, module))
            done.add(module)

    for module in FILES:
        visit(module, ())


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """The string literals that stand alone: of modules, classes, functions and attributes."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words_of(module: str):
    """Every identifier and string literal of a module that is not documentation, with its line."""
    tree = tree_of(module)
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "name", "arg", "asname", "module"):
            if isinstance(word := getattr(node, field, None), str):
                yield line, word
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield line, node.value


def family_names() -> set[str]:
    """Families, and the names under which their published sizes are known."""
    names = set(FAMILIES) | set(models.FAMILIES)
    for family in models.FAMILIES:
        names |= {re.match(r"[a-z]{2,}|[a-z]\d", size)[0] for size in load_family(family).published}
    return names - {"clip"}  # a verb too: of gradients, of indices


NAMES_OF_OTHER_THINGS = {
    # Megatron's kinds of datasets, which several families are fed by: folder data/gpt, dataset kind "gpt".
    "mjx.data": r"^(gpt|bert|t5)$|mjx\.data\.gpt|gpt_index",
    "mjx.data.images.processor": "^Qwen2VLImageProcessor$",  # a class that prepares pictures
    "mjx.data.tokenizers.tiktoken": "GPT-?_?2",  # a way to split text into words
    "mjx.data.tokenizers.train": "^Bert(Normalizer|PreTokenizer)$",  # how word pieces' words are told apart
    "mjx.data.tokenizers.byte_level": "^GPT2Tokenizer$",  # the tokenizer class of vocab.json and merges.txt
    "mjx.models.common.rope": "^llama3$",  # a way to stretch rotary positions
    "mjx.models.interop.rope_keys": "llama3$",  # the same
    "mjx.models.interop.megatron.keys": "llama3$",  # the same
    "mjx.run.megatron_keys": r"^vision\.\*$",  # the parameters that --freeze-ViT is of
    "mjx.run.megatron_left_out": r"(mamba|bert|retro|vision)_\*",  # how some of Megatron's arguments begin
}
"""Module (with those inside it) → words that look like a family's name and are not."""


def test_no_family_is_named_outside_its_own_folder():
    pattern = re.compile(rf"(?<![a-z])({'|'.join(sorted(family_names()))})(?![a-z])", re.IGNORECASE)
    named = []
    for module in FILES:
        own = re.match(r"mjx\.models\.(\w+)", module)
        if module == "mjx.models" or (own and own.group(1) in FAMILIES):
            continue
        others = [
            other for prefix, other in NAMES_OF_OTHER_THINGS.items() if f"{module}.".startswith(f"{prefix}.")
        ]
        for line, word in words_of(module):
            snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word)  # GPTConfig, MyGPT
            if pattern.search(snake) and not any(re.search(other, word) for other in others):
                named.append(f"{module}, line {line}: {word!r}")
    assert not named


def full_names(module: str):
    """Every dotted name that a module uses, aliases of imports resolved, with its line."""
    tree = tree_of(module)
    meaning = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
                meaning[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                meaning[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"

    def dotted(node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return meaning.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (inner := dotted(node.value)):
            return f"{inner}.{node.attr}"
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := dotted(node)):
            yield node.lineno, name
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


FORBIDDEN = {
    r"jax\.experimental\.(shard_map|pjit|maps|xmap)\b|^jax\.pmap$": "jax.shard_map, jax.jit",
    r"jax\.lax\.pvary": "jax.lax.pcast",
    r"device_put_(sharded|replicated)": "jax.device_put",
    r"^jax\.core\b|^jax\.interpreters\b": "jax.extend",
    r"^jax\._src\b": "the public API",
    r"jax_cpu_enable_gloo_collectives": "jax_cpu_collectives_implementation",
    r"xla_force_host_platform_device_count": "jax_num_cpu_devices",
    r"jax\.experimental\.pallas\.ops\.gpu": "a kernel of our own",
    r"jax\.experimental\.pallas\.(load|store|dot)$": "references and jnp.dot",
    r"^flax\.linen|^flax\.nnx\.(scan|jit|grad|value_and_grad|get_abstract_model)$": "pure pytrees",
    r"^orbax\.checkpoint\.(?!(experimental\.)?v1\b)": "orbax.checkpoint.v1",
    r"^grain\.(python\.)?DataLoader": "grain.MapDataset",
    r"^(tensorflow|tf|seqio|torch)(\.|$)": "no second framework in the process",
    r"^jax\.numpy\.empty(_like)?$": "jax.numpy.zeros",
    r"sync_global_devices": "mjx.launch.barrier, which has a timeout",
}
"""Deprecated, removed or treacherous → what does it now."""
SECOND_FRAMEWORK = "mjx.commands.transformers_child"
"""What loads another framework, as the program of a process without JAX."""
EXCEPTIONS = {
    # JAX has no public name for the client of its coordination service, nor for "has a backend started".
    # And jax-triton has no other way to be told of a new JAX, or of the PTX version.
    # JAX asks cuDNN for its version even where it only lowers, and has no other way to be told.
    r"^jax\._src\b": (*("mjx.launch.coordination", "mjx.kernels.triton_launch", "mjx.gpus.absent_cudnn"),),
    r"^jax\.core\b|^jax\.interpreters\b": ("mjx.kernels.triton_launch",),
    # Classes that the files of a checkpoint name, and what keeps TensorBoard's writer from importing torch:
    # none of them imports it. And the one that is a program of its own, which the test below holds to be one.
    r"^(tensorflow|tf|seqio|torch)(\.|$)": (
        *("mjx.models.megatron.inert_pickle", "mjx.models.megatron.saved_tensor"),
        *("mjx.models.megatron.torch_dist", "mjx.metrics.sinks", SECOND_FRAMEWORK),
    ),
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_nothing_deprecated_or_treacherous_is_used(pattern):
    used = [
        f"{module}, line {line}: {name}"
        for module in FILES
        for line, name in full_names(module)
        if re.search(pattern, name) and module not in EXCEPTIONS.get(pattern, ())
    ]
    assert not used, f"use instead: {FORBIDDEN[pattern]}"


def test_the_second_framework_has_a_process_of_its_own():
    assert not [module for module in FILES if SECOND_FRAMEWORK in imports(module)]
    assert not imports(SECOND_FRAMEWORK)
    code = f"import sys, {SECOND_FRAMEWORK}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"jax", "flax", "torch", "transformers"} & set(loaded.split())


def calls(module: str):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def test_a_mesh_is_entered_by_use_mesh_and_never_by_with():
    for module in FILES:
        for node in ast.walk(tree_of(module)):
            for item in node.items if isinstance(node, ast.With) else ():
                name = ast.unparse(item.context_expr)
                assert name.rpartition(".")[2].lower() != "mesh", f"{module}, line {node.lineno}: with {name}"


def test_variables_are_read_and_named_the_new_way():
    for module in FILES:
        for call, function in calls(module):
            keywords = {keyword.arg for keyword in call.keywords}
            where = f"{module}, line {call.lineno}"
            if function in ("nnx.Param", "nnx.Variable", "nnx.with_metadata"):
                assert not keywords & {"sharding", "sharding_names"}, f"{where}: out_sharding names the axes"
            if function in ("jnp.array", "jnp.asarray"):
                assert len(call.args) <= 2, f"{where}: `copy` and `order` are keywords"
        if module.startswith("mjx.models"):
            reads = [
                n for n in ast.walk(tree_of(module)) if isinstance(n, ast.Attribute) and n.attr == "value"
            ]
            reads = [
                n for n in reads if ast.unparse(n) not in ("self.value", "cache.value")
            ]  # layer and cache
            assert not reads, f"{module}, line {reads[0].lineno}: variable[...] instead of .value"


@pytest.mark.parametrize("file", sorted((*PACKAGE.rglob("*.py"), *TESTS.rglob("*.py"))), ids=relative)
def test_a_file_has_one_subject(file):
    lines = len(file.read_text(encoding="utf-8").splitlines())
    assert lines <= 450, f"{relative(file)} has {lines} lines, so it has two subjects"
    assert not re.search(r"util|helper|misc|common_stuff", relative(file)), (
        "a function lives with what it serves"
    )


@pytest.mark.parametrize("root", [PACKAGE, TESTS], ids=relative)
def test_a_folder_has_one_subject(root):
    """`__init__.py`, which says what the folder is for, is not counted."""
    counts = collections.Counter(file.parent for file in root.rglob("*.py") if file.name != "__init__.py")
    crowded = [f"{relative(folder)} has {count} files" for folder, count in counts.items() if count > 16]
    assert not crowded, "a folder with more than 16 files has two subjects"


OTHER_TESTS = {
    "oracles": "cases of other libraries, for parity.py",
    "end_to_end": "whole commands, and the faults that happen to them",
    "examples": "the programs of examples/",
    "families": "what every family must do",
    "goldens": "what other libraries and earlier commits say, and how that was made",
    "reference": "every block in NumPy",
    "launch/programs": "what the launcher's tests start",
}
"""Folder of tests/ (with those inside it) that is no folder of mjx/ → what is in it."""


def test_the_tests_stand_where_the_package_has_what_they_test():
    folders = {file.parent.relative_to(TESTS) for file in TESTS.rglob("*.py")}
    strangers = [
        str(folder)
        for folder in folders
        if not (PACKAGE / folder).is_dir() and not any(folder.is_relative_to(other) for other in OTHER_TESTS)
    ]
    assert not strangers, "tests mirror the package; what has no place in it is named in OTHER_TESTS"


@pytest.mark.parametrize("module", ["mjx", "mjx.cli", "mjx.data", "mjx.launch"])
def test_what_starts_first_is_light(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"jax", "flax", "grain", "tokenizers", "matplotlib", "orbax", "optax", "pyarrow"}
    assert not heavy & set(loaded.split())


def reachable_configs() -> list[type]:
    found: dict[type, None] = {}

    def visit(hint) -> None:
        for inner in typing.get_args(hint):
            visit(inner)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in found:
            found[hint] = None
            for inner in typing.get_type_hints(hint).values():
                visit(inner)

    visit(RunConfig)
    for family in models.FAMILIES:
        visit(load_family(family).config)
    for kind in KINDS:
        visit(load_kind(kind))
    return list(found)


def documented_fields(config: type) -> set[str]:
    tree = ast.parse(inspect.getsource(importlib.import_module(config.__module__)))
    body = next(n.body for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == config.__name__)
    return {
        statement.target.id
        for statement, following in itertools.pairwise(body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
    }


@pytest.mark.parametrize("config", reachable_configs(), ids=lambda config: config.__name__)
def test_every_setting_is_documented_where_it_is_declared(config):
    documented = {name for base in config.__mro__[:-1] for name in documented_fields(base)}
    missing = [field.name for field in dataclasses.fields(config) if field.name not in documented]
    assert not missing, f"no docstring under these fields of {config.__name__}"
    assert config.__doc__
    assert not config.__doc__.startswith(f"{config.__name__}("), f"{config.__name__} has no docstring"
    assert getattr(config, "__dataclass_params__").frozen  # noqa: B009  # unknown to type checkers
