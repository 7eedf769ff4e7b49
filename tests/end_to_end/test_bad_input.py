"""What a user can mend ends with code 2 and one sentence that names it; nothing is written over."""

import os
import subprocess
import sys

import pytest
from running import changed, environment, mjx

from mjx.cli import main
from mjx.trees import to_yaml


@pytest.fixture
def train(refused, recipe, tmp_path):
    """Trains the recipe with overrides in a new run folder, of which nothing must be left."""

    def run(*overrides: str) -> str:
        folder = tmp_path / "run"
        sentence = refused("train", recipe, f"run_dir={folder}", *overrides)
        assert not (folder / "config.yaml").exists()
        return sentence

    return run


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        # keys that do not exist
        ("training.step=3", "the key training.step does not exist (did you mean steps?)"),
        (
            "model.attention.num_head=4",
            "the key model.attention.num_head does not exist (did you mean num_heads?)",
        ),
        (
            "model.attention.rope={bass: 1}",
            "the key model.attention.rope.bass does not exist (did you mean base?)",
        ),
        ("trainning.steps=3", "the key trainning does not exist (did you mean training?)"),
        (
            "optimizer.learning_rate=1",
            "the key optimizer.learning_rate does not exist (did you mean schedule.learning_rate?)",
        ),
        ("batch_size=8", "the key batch_size does not exist (did you mean training.batch_size?)"),
        (
            "model.num_heads=8",
            "the key model.num_heads does not exist (did you mean model.attention.num_heads?)",
        ),
        (
            "data.interval=8",
            "the key data.interval does not exist (did you mean checkpoint.interval or logging.interval?)",
        ),
        ("data.run_dir=x", "the key data.run_dir does not exist (did you mean run_dir?)"),
        ("nonsense", "'nonsense' is not an override; write key.path=value, e.g. training.steps=100"),
        # values out of range
        ("training.steps=0", "training.steps = 0 must be positive"),
        ("training.microbatches=3", "training.microbatches = 3 does not divide batch_size = 16"),
        ("optimizer.beta2=1.5", "optimizer.beta2 = 1.5 must be at least 0 and below 1"),
        (
            "model.attention.num_query_groups=3",
            "model.attention.num_query_groups = 3 does not divide num_heads = 4 (choose 1, 2 or 4)",
        ),
        (
            "model.attention.num_heads=5",
            "model.attention.num_heads = 5 does not divide hidden_size = 32; choose a divisor, "
            "or say attention.head_dim",
        ),
        ("model.dropout=1", "model.dropout = 1.0 must be at least 0 and below 1"),
        (
            "schedule.warmup_steps=20",
            "schedule.warmup_steps = 20 must be smaller than the length of training = 20",
        ),
        ("data.sequence_length=1", "data.sequence_length = 1 must be at least 2."),
        ("model.max_positions=16", "data.sequence_length = 32 is beyond model.max_positions = 16"),
        # values of another type
        (
            "training.steps=abc",
            "training.steps = 'abc' is not accepted: input should be a valid integer, unable to parse string "
            "as an integer",
        ),
        ("training.steps=true", "training.steps = true is not accepted: input should be a number"),
        (
            "training.steps=1.5",
            "training.steps = 1.5 is not accepted: input should be a valid integer, got a number with a "
            "fractional part",
        ),
        ("training.prompts=loss", "training.prompts = 'loss' is not accepted: input should be a list"),
        ("training=3", "training = 3 is not accepted: input should be a mapping of its keys"),
        (
            "training.steps=[1",
            "the value of training.steps is not YAML: expected ',' or ']', but got '<stream end>' "
            "(line 1, column 3)",
        ),
        (
            "schedule.learning_rate=.inf",
            "schedule.learning_rate = inf is not accepted: input should be a finite number",
        ),
        ("optimizer.clip_norm=None", "optimizer.clip_norm = None is not accepted: the word is null"),
        ("run_dir=null", "run_dir = null is not accepted: input should be text"),
        # prompts that could not be continued when all is trained
        (
            "training.prompts=['']",
            "training.prompts: prompt 0 is empty; it needs at least one token, such as the begin-of-text one",
        ),
        # names that are not known
        ("model.preset=llama3-9b", "model.preset = 'llama3-9b' is not known (did you mean llama3-8b?)"),
        (
            "optimizer.name=adam",
            "optimizer.name = 'adam' is not accepted: input should be 'adamw', 'sgd', 'lion' or 'muon'",
        ),
        (
            "data.tokenizer=bite",
            'tokenizer = bite does not exist; give "byte", a tokenizer file or a folder with one.',
        ),
        # what does not fit the eight devices
        (
            "training.batch_size=12",
            "batch array 'tokens': the axis 'batch' of size 12 does not divide over data 8 = 8 shards; use a "
            "batch of 16 rows or a smaller product of mesh.data, mesh.fsdp and mesh.expert",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_would_be_right(train, override, sentence):
    assert train(override) == sentence


def test_an_unknown_family_is_answered_with_those_that_are_known(train):
    assert train("model.family=gptx").startswith("model.family = 'gptx' is not known (choose from ")


def test_prompts_are_held_against_positions_and_tokenizer_before_training(train):
    positions = ("model.max_positions=32", "model.attention.rope=null", "training.prompts=[mesh]")
    assert train(*positions, "sampling.max_new_tokens=30") == (
        "training.prompts: prompt 0 has 4 tokens, with sampling.max_new_tokens = 30 that is 34, but the "
        "model has only 32 learned positions; shorten it or lower sampling.max_new_tokens"
    )
    assert train("data.tokenizer=null", "data.vocab_size=257", "training.prompts=[mesh]") == (
        "training.prompts: a text needs data.tokenizer: name it, or leave the prompts out"
    )


def test_a_vocabulary_that_does_not_divide_is_told_to_be_padded(train):
    sentence = train("model.vocab_divisor=1", "mesh.tensor=4")
    assert (
        "'vocab' of size 257 does not divide over tensor 4 = 4 shards; pad the vocabulary to 260" in sentence
    )


@pytest.mark.parametrize(
    ("mesh", "sum_"),
    [
        ("mesh.tensor=3", "the mesh does not fit: data -1 × tensor 3 takes a multiple of 3 devices, "),
        ("mesh={data: 2, tensor: 2}", "the mesh does not fit: data 2 × tensor 2 = 4 devices, "),
    ],
)
def test_a_mesh_that_does_not_fit_shows_the_sum(train, mesh, sum_):
    sentence = train(mesh)
    assert sentence.startswith(sum_)
    assert " 8 " in sentence.removeprefix(sum_)
    assert "runtime.cpu_devices" in sentence


def test_what_is_missing_is_told_without_what_may_be_left_out(capsys):
    for command, missing in (
        (["train"], "config"),
        (["generate"], "MODEL, --prompt"),
        (["export"], "RUN, DIR"),
    ):
        with pytest.raises(SystemExit):
            main(command)
        said = capsys.readouterr().err.strip()
        assert said.endswith(f"the following arguments are required: {missing}")


def test_a_key_given_twice_is_named_with_its_line(refused, recipe, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(recipe.read_text() + "training: {steps: 1}\n")
    lines = len(path.read_text().splitlines())
    sentence = refused("train", path)
    assert sentence.startswith(f'the recipe {path} gives a key twice: found duplicate key "training"')
    assert sentence.endswith(f"(line {lines}, column 1)")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a: [1,\n", "is not YAML: expected the node content, but found '<stream end>' (line 2, column 1)"),
        (
            "training:\n\tsteps: 3\n",
            "is not YAML: found character '\\t' that cannot start any token (line 2, column 1)",
        ),
        ("- 1\n", "is not a mapping of sections (model, data, training, …)"),
        ("", "is not a mapping of sections (model, data, training, …)"),
    ],
)
def test_a_recipe_that_is_none_is_refused(refused, tmp_path, text, wrong):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert refused("train", path) == f"the recipe {path} {wrong}"


def test_a_missing_recipe_or_section_is_named(refused, tree, tmp_path):
    path = tmp_path / "recipe.yaml"
    assert refused("train", path) == f"cannot read the recipe {path}: No such file or directory"
    path.write_text(to_yaml({name: section for name, section in tree.items() if name != "training"}))
    with pytest.raises(SystemExit):
        main(["train", str(path), "training.batch_size=1"])
    assert refused("train", path, "training.batch_size=1") == (
        "training.steps is missing: the recipe has to say it"
    )
    path.write_text(to_yaml({name: section for name, section in tree.items() if name != "model"}))
    assert refused("train", path).startswith("the recipe has no section 'model'")


def test_overrides_are_taken_before_and_after_options(recipe, capsys):
    main(["train", str(recipe), "training.steps=7", "--print-config", "training.batch_size=8"])
    printed = capsys.readouterr().out
    assert "  steps: 7\n  batch_size: 8\n" in printed
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(recipe), "--print-confg"])
    assert exit_.value.code == 2
    assert "unrecognized arguments: --print-confg" in capsys.readouterr().err


def test_the_printed_config_parses_back_into_the_same_config(recipe, tree, capsys, tmp_path):
    from mjx.config import load_config

    overrides = ["mesh.tensor=2", "training.prompts=[mesh, 'a: b']", "optimizer.name=lion"]
    main(["train", str(recipe), *overrides, "--print-config"])
    path = tmp_path / "printed.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_config(path) == load_config(recipe, overrides)
    assert load_config(path) != load_config(recipe)
    assert "\n#   mesh.tensor: 2  (default 1)\n" in path.read_text()


@pytest.mark.parametrize(
    "command", [[], ["train"], ["generate"], ["explain"], ["export"], ["data", "build"], ["launch"]]
)
def test_help_comes_at_once_and_imports_nothing_heavy(command):
    heavy = ["jax", "numpy", "flax", "orbax", "pydantic", "rich", "matplotlib", "grain"]
    code = (
        "import sys, time\n"
        "began = time.perf_counter()\n"
        "from mjx.cli import main\n"
        "try:\n"
        f"    main({[*command, '--help']!r})\n"
        "finally:\n"
        "    print(time.perf_counter() - began, *(set(sys.modules) & "
        f"{set(heavy)!r}), file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert ended.stdout.startswith("usage: mjx")
    seconds, *imported = ended.stderr.split()
    assert imported == []
    assert float(seconds) < 0.7


def test_in_a_process_of_its_own_the_sentence_is_all_there_is(tree, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(to_yaml(changed(tree, training__stepps=3)))
    ended = subprocess.run(
        [sys.executable, "-m", "mjx", "train", str(path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == "mjx: error: the key training.stepps does not exist (did you mean steps?)\n"


def test_launch_without_a_command_is_refused(refused):
    assert refused("launch", "-n", 2) == "launch what? e.g. mjx launch -n 2 -- train RECIPE"


def test_a_gpu_that_is_asked_for_and_not_there_is_missed(recipe, tmp_path):
    if any("nvidia" in name for name in os.listdir("/dev")):
        pytest.skip("there may be a GPU")
    run = tmp_path / "run"
    said = mjx("train", recipe, f"run_dir={run}", "runtime.platform=cuda", code=2).stderr
    assert said.splitlines()[-1].startswith(
        "mjx: error: runtime.platform = 'cuda' and JAX finds no usable GPU on "
    )
    assert not run.exists()
