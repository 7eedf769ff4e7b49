"""`mjx recipe --from-megatron`: scripts, JSON and checkpoints as recipes that `mjx train` takes."""

import json
import zipfile
from pathlib import Path

import pytest

from mjx.commands.recipe import recipe_of_megatron
from mjx.config import load_config
from mjx.errors import InputError

GOLDENS = Path(__file__).parents[1] / "goldens" / "megatron_checkpoint"

OLDER = r"""#!/bin/bash
TEXT=$1
SIZES=(
    --num-layers 12
    --hidden-size 768
    --num-attention-heads 12
    --seq-length 1024
    --max-position-embeddings 1024
)
RUN=(
    --micro-batch-size 4 --global-batch-size 256
    --train-iters 300000 --lr-decay-iters 250000 --lr-warmup-fraction .01
    --lr 6.0e-4 --min-lr 6.0e-5 --lr-decay-style cosine
    --weight-decay 0.1 --adam-beta2 0.95 --clip-grad 1.0 --fp16
)
torchrun --nproc_per_node 8 pretrain_gpt.py ${SIZES[@]} ${RUN[@]} \
    --tensor-model-parallel-size 2 \
    --data-path $TEXT --vocab-file bpe/vocab.json --merge-file bpe/merges.txt --vocab-size 50257 \
    --split 949,50,1 --save-interval 5000 --eval-interval 1000 --eval-iters 10 --save runs/older \
    --log-interval 100 --distributed-backend nccl --some-new-option 3
"""
NEWER = r"""#!/bin/bash
export STAGES=4
ARGS=(
    --num-layers 32 --hidden-size 4096 --ffn-hidden-size 14336 --num-attention-heads 32
    --group-query-attention --num-query-groups 8 --seq-length 8192 --max-position-embeddings 8192
    --position-embedding-type rope --rotary-base 500000 --swiglu --normalization RMSNorm
    --disable-bias-linear --untie-embeddings-and-output-weights --attention-dropout 0.0
    --hidden-dropout 0.0 --make-vocab-size-divisible-by 128 --vocab-size 128256 --bf16
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model tokenizers/newer
    --global-batch-size 512 --micro-batch-size 1 --train-samples 51200000 --lr-warmup-samples 1024000
    --lr 3e-4 --lr-decay-style WSD --lr-wsd-decay-samples 5120000 --lr-wsd-decay-style minus_sqrt
    --optimizer adam --adam-eps 1e-8 --recompute-granularity selective --sequence-parallel
    --tensor-model-parallel-size 8 --pipeline-model-parallel-size $STAGES --context-parallel-size 2
    --use-distributed-optimizer --data-path 70 /texts/web 30 /texts/code --seed 7 --async-save
)
python pretrain_gpt.py "${ARGS[@]}" --save-interval 500
"""

HYBRID = r"""#!/bin/bash
torchrun --nproc_per_node 8 pretrain_mamba.py --use-mcore-models --hybrid-override-pattern M-M-M-*- \
    --num-layers 8 --hidden-size 512 --num-attention-heads 8 --ffn-hidden-size 2048 --squared-relu \
    --mamba-state-dim 64 --mamba-head-dim 32 --mamba-num-groups 4 --disable-bias-linear \
    --position-embedding-type none --normalization RMSNorm --untie-embeddings-and-output-weights \
    --spec megatron.core.models.mamba.mamba_layer_specs mamba_stack_spec --vocab-size 32000 --bf16 \
    --seq-length 1024 --max-position-embeddings 1024 --micro-batch-size 4 --global-batch-size 64 \
    --train-iters 100 --lr 2.5e-4 --lr-decay-style cosine --data-path /texts/web --split 99,1,0
"""


def recipe(tmp_path, capsys, source, *more):
    """The recipe's config, and its text."""
    if isinstance(source, str):
        path = tmp_path / "args.sh"
        path.write_text(source)
    else:
        path = source
    recipe_of_megatron(str(path), list(more))
    text = capsys.readouterr().out
    (tmp_path / "recipe.yaml").write_text(text)
    return load_config(tmp_path / "recipe.yaml"), text


def test_a_script_of_gpt_3_s_kind_becomes_a_recipe(tmp_path, capsys):
    config, text = recipe(tmp_path, capsys, OLDER)
    model = config.model
    assert (model.vocab_size, model.padded_vocab_size, model.max_positions) == (50257, 50432, 1024)
    assert (model.mlp.activation, model.mlp.features, model.mlp.bias) == ("gelu-tanh", 3072, True)
    assert (model.tie_embeddings, model.dropout, model.dtype) == (True, 0.1, "auto")
    training, schedule = config.training, config.schedule
    assert (training.steps, training.batch_size, training.microbatches) == (300000, 256, 16)
    assert (training.evaluation_interval, training.evaluation_rows, training.seed) == (1000, 2560, 1234)
    assert (schedule.kind, schedule.learning_rate, schedule.min_learning_rate) == ("cosine", 6e-4, 6e-5)
    assert (schedule.warmup_steps, schedule.decay_steps) == (2500, 250000)
    assert (config.optimizer.beta1, config.optimizer.beta2, config.optimizer.weight_decay) == (0.9, 0.95, 0.1)
    assert config.mesh.sizes() == {
        "data": -1,
        "fsdp": 1,
        "pipeline": 1,
        "context": 1,
        "expert": 1,
        "tensor": 2,
    }
    assert not config.sharding.sequence_parallel
    assert (config.data.sources[0].path, config.data.tokenizer, config.data.split) == (
        "$TEXT",
        "bpe",
        "949,50,1",
    )
    assert config.run_dir == "runs/older"
    assert "# Put paths for $TEXT, which the script takes from the shell that runs it." in text
    assert "#   --fp16: mjx computes in bfloat16 instead" in text
    assert "#   --distributed-backend nccl: how Megatron sends it" in text
    assert "#   --some-new-option 3: mjx does not know it" in text
    assert "micro-batch-size" not in text


def test_a_script_of_llama_s_kind_becomes_a_recipe(tmp_path, capsys):
    config, text = recipe(tmp_path, capsys, NEWER)
    model = config.model
    assert (model.attention.num_query_groups, model.attention.rope.base, model.norm.kind) == (
        8,
        5e5,
        "rmsnorm",
    )
    assert (model.mlp.activation, model.mlp.gated, model.mlp.bias) == ("silu", True, False)
    assert (model.tie_embeddings, model.dropout, model.dtype, model.remat) == (
        False,
        0.0,
        "bfloat16",
        "selective",
    )
    assert model.num_parameters() == 8_030_261_248
    assert (config.training.steps, config.training.batch_size) == (100000, 512)
    schedule = config.schedule
    assert (schedule.kind, schedule.wsd_decay, schedule.warmup_steps) == ("wsd", "minus-sqrt", 2000)
    assert schedule.wsd_decay_steps == 10000
    assert (config.optimizer.beta2, config.optimizer.weight_decay) == (0.999, 0.01)
    sizes = {"data": 1, "fsdp": -1, "pipeline": 1, "context": 2, "expert": 1, "tensor": 8}
    assert config.mesh.sizes() == sizes  # what stages of layers saved, shares of parameters do
    assert [(source.path, source.weight) for source in config.data.sources] == [
        ("/texts/web", 70.0),
        ("/texts/code", 30.0),
    ]
    assert (config.data.seed, config.training.seed, config.checkpoint.interval) == (7, 7, 500)
    assert "#   --pipeline-model-parallel-size 4: instead of stages of layers" in text
    assert "#   --micro-batch-size 1: training.microbatches says it" in text


def test_json_and_checkpoints_are_sources_too(tmp_path, capsys):
    arguments = {
        **{"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64},
        **{"seq_length": 64, "train_iters": 10, "global_batch_size": 8, "lr": 1e-3, "padded_vocab_size": 128},
        **{"use_distributed_optimizer": True, "num_experts": None, "clip_grad": 0.0, "log_interval": 1},
    }
    path = tmp_path / "args.json"
    path.write_text(json.dumps(arguments))
    config, text = recipe(tmp_path, capsys, path)
    assert config.training.zero1
    assert config.optimizer.clip_norm is None
    assert config.schedule.kind == "linear"
    assert config.data.vocab_size == 128
    assert "args.json names no data: put the path of a .bin/.idx pair for DATA." in text

    with zipfile.ZipFile(GOLDENS / "llama.zip") as archive:
        archive.extractall(tmp_path / "llama")
    more = ("seq-length=32", "train-iters=10", "global-batch-size=8", "lr=1e-3", "vocab-size=27")
    config, _ = recipe(tmp_path, capsys, tmp_path / "llama", *more)
    assert (config.model.num_layers, config.model.vocab_size, config.model.padded_vocab_size) == (4, 27, 32)
    assert config.data.sources[0].path == "corpus_text_document"


def test_all_that_would_be_computed_otherwise_is_named(tmp_path, capsys):
    script = NEWER.replace(
        "--swiglu", "--swiglu --mtp-num-layers 1 --decoupled-lr 1e-4 --optimizer soap --lr $LR"
    )
    with pytest.raises(InputError) as error:
        recipe(tmp_path, capsys, script)
    said = str(error.value)
    assert 'args.sh has "mtp_num_layers": 1, which mjx does not compute' in said
    assert 'args.sh has "decoupled_lr": 0.0001, which mjx does not compute' in said
    with pytest.raises(
        InputError, match=r"leaves open --norm-epsilon \(\$EPSILON\): give their values as NAME="
    ):
        recipe(tmp_path, capsys, NEWER.replace("--swiglu", "--swiglu --norm-epsilon $EPSILON"))
    assert (
        recipe(
            tmp_path,
            capsys,
            NEWER.replace("--swiglu", "--swiglu --norm-epsilon $EPSILON"),
            "norm-epsilon=1e-6",
        )[0].model.norm.epsilon
        == 1e-6
    )
    for missing in ("--train-samples 51200000", "--global-batch-size 512", "--lr 3e-4", "--seq-length 8192"):
        with pytest.raises(InputError, match=r"args.sh has n"):
            recipe(tmp_path, capsys, NEWER.replace(missing, ""))


def test_a_script_of_a_hybrid_becomes_a_recipe(tmp_path, capsys):
    config, text = recipe(tmp_path, capsys, HYBRID)
    model = config.model
    assert model.hybrid_pattern == "M-M-M-*-"
    assert (model.ssd.state, model.ssd.head_dim, model.ssd.groups) == (64, 32, 4)
    assert model.mlp.activation == "relu2"
    assert model.attention.rope is None
    left = [line.split()[1] for line in text.splitlines() if line.startswith("#   --")]
    assert left == ["--use-mcore-models:"]


def test_another_program_s_script_is_no_gpt(tmp_path, capsys):
    with pytest.raises(InputError, match=r"args.sh describes a model of a kind that mjx does not read yet"):
        recipe(tmp_path, capsys, NEWER.replace("pretrain_gpt.py", "pretrain_retro.py"))
