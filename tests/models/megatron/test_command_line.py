"""Scripts that are read without being run."""

import pytest

from mjx.errors import InputError
from mjx.models.megatron.command_line import read_script

SCRIPT = r"""#!/bin/bash
# It isn't run.
export DEVICES=8
MACHINES=${MACHINES:-2}
PROCESSES=$((DEVICES * $MACHINES))
TO=${1:-"runs/small"}; TEXT=$2
WIDTH=$((2 * 512))
LAUNCH=(--nproc-per-node $DEVICES --nnodes $MACHINES --node_rank $RANK)
MODEL=(
    --num-layers 24   # deep
    --hidden-size $WIDTH
    --window-size "(127,0)" --pattern '[1,1,0]*8'
)
MODEL+=(--bf16)
MORE=" --lr 1e-4 \
  --min-lr=1.0e-5"
if [ -n "$GATED" ]; then
    MODEL+=(--swiglu)
    STYLE=cosine
else
    STYLE=linear
fi
mkdir -p "$(dirname "$TO")"
torchrun ${LAUNCH[@]} \
    tools/pretrain_gpt.py "${MODEL[@]}" $MORE --lr-decay-style ${STYLE} \
    --data-path 0.3 ${TEXT}_a 0.7 /texts/b --save "$TO/last" --no-bias-gelu-fusion "$@" > log 2>&1
"""


def test_a_script_s_variables_arrays_and_defaults_are_followed():
    settings, left_open = read_script(SCRIPT, "args.sh")
    assert settings == {
        **{"num_layers": 24, "hidden_size": 1024, "window_size": "(127,0)", "pattern": "[1,1,0]*8"},
        **{"bf16": True, "lr": 1e-4, "min_lr": 1e-5, "save": "runs/small/last", "bias_gelu_fusion": False},
        **{"program": "pretrain_gpt.py", "world_size": 16},
    }
    assert settings["num_layers"] == 24
    assert isinstance(settings["num_layers"], int)
    assert left_open == {
        "swiglu": "$(a condition)",
        "lr_decay_style": "${STYLE}",
        "data_path": "0.3 ${TEXT}_a 0.7 /texts/b",
        "$@": "$@",
    }


def test_arguments_alone_need_no_command():
    assert read_script("--num-layers 2\n--bf16\n--data-path a b\n", "args.txt") == (
        {"num_layers": 2, "bf16": True, "data_path": ["a", "b"]},
        {},
    )


def test_a_script_without_arguments_is_refused():
    with pytest.raises(InputError, match=r"args.sh has no command with arguments"):
        read_script("echo hello\n", "args.sh")


@pytest.mark.parametrize("text", ["'", '"', "A=(", "${", "$((", "\\", "echo `", "A=$((1/0))", "x <", "if"])
def test_a_damaged_script_is_no_crash(text):
    assert read_script(f"--num-layers 2\n{text}", "args.sh")[0]["num_layers"] == 2
