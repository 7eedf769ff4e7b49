"""Checkpoints that Megatron-Core 0.16.1 wrote on CPUs, and the logits of their models: NAME.zip, NAME.npz.

    PYTHONPATH=ORACLES python make_goldens.py

ORACLES is the folder of `megatron_cpu.py`, which lets Megatron-Core run without a GPU (torch 2.13, psutil).

llama         2 tensor × 2 pipeline ranks, layers stacked; in the layout of Megatron-LM, with arguments,
              an optimizer and random states
gpt2          1 rank, layers stacked; learned positions, biases, tied head
qwen3         2 tensor ranks, every layer and each half of its first MLP projection under a name of its own
llama_mixed   as llama on 1 rank; layers in bfloat16, tables in float16, the last norm in float32
moe           2 expert-parallel ranks, layers and experts stacked; biases for choosing, a gated shared expert
moe_layers    1 rank, the first layer dense; every layer, expert and half under a name of its own
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import megatron_cpu
import numpy as np
import torch

HERE = Path(__file__).parent
VOCABULARY, PADDED = 27, 32
BASE = {"num_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "ffn_hidden_size": 24}
LLAMA = {**BASE, "normalization": "RMSNorm", "gated_linear_unit": True, "add_bias_linear": False}
LLAMA["num_query_groups"] = 2
ROTARY = {"position_embedding_type": "rope", "share_embeddings_and_output_weights": False}
LEARNED = {"position_embedding_type": "learned_absolute", "share_embeddings_and_output_weights": True}
EXPERTS = {
    "num_moe_experts": 4,
    "moe_ffn_hidden_size": 8,
    "moe_router_score_function": "sigmoid",
    "moe_router_enable_expert_bias": True,
    "moe_token_dispatcher_type": "alltoall",
}
CASES = {
    "llama": ({**LLAMA, "num_layers": 4}, ROTARY, {}, (2, 2)),
    "gpt2": (BASE, LEARNED, {}, (1, 1)),
    "qwen3": (
        {**LLAMA, "qk_layernorm": True, "kv_channels": 6},
        ROTARY,
        {"singleton_local_shards": True},
        (2, 1),
    ),
    "llama_mixed": (LLAMA, ROTARY, {}, (1, 1)),
    "moe": (
        {**LLAMA, **EXPERTS, "moe_shared_expert_intermediate_size": 8, "moe_shared_expert_gate": True},
        ROTARY,
        {},
        (1, 1, 2),
    ),
    "moe_layers": (
        {**LLAMA, **EXPERTS, "moe_layer_freq": [0, 1]},
        ROTARY,
        {"singleton_local_shards": True},
        (1, 1),
    ),
}
"""Name → config, model, options of the checkpoint, (tensor, pipeline, expert) ranks."""
ARGUMENTS = {
    **BASE,
    "num_layers": 4,
    "group_query_attention": True,
    "num_query_groups": 2,
    "kv_channels": 4,
    "padded_vocab_size": PADDED,
    "normalization": "RMSNorm",
    "norm_epsilon": 1e-5,
    "swiglu": True,
    "squared_relu": False,
    "qk_layernorm": False,
    "untie_embeddings_and_output_weights": True,
    "position_embedding_type": "rope",
    "rotary_base": 10000,
    "rotary_percent": 1.0,
    "rotary_interleaved": False,
    "use_rope_scaling": False,
    "num_experts": None,
    "multi_latent_attention": False,
    "add_bias_linear": False,
    "add_qkv_bias": False,
    "bias_gelu_fusion": False,
    "make_vocab_size_divisible_by": 16,
    "tensor_model_parallel_size": 2,
    "params_dtype": torch.float32,
    "data_path": ["corpus_text_document"],
}


def build(name: str):
    from megatron.core import parallel_state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec, get_gpt_layer_local_spec
    from megatron.core.transformer.transformer_config import TransformerConfig

    config, model, _, _ = CASES[name]
    if config.get("gated_linear_unit"):
        config = {**config, "activation_func": torch.nn.functional.silu}
    off = dict.fromkeys(
        (
            *("bias_activation_fusion", "bias_dropout_fusion", "masked_softmax_fusion", "apply_rope_fusion"),
            *("gradient_accumulation_fusion", "persist_layer_norm"),
        ),
        False,
    )
    config = TransformerConfig(
        **config,
        **off,
        use_cpu_initialization=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        params_dtype=torch.float32,
        pipeline_dtype=torch.float32,
        tensor_model_parallel_size=parallel_state.get_tensor_model_parallel_world_size(),
        pipeline_model_parallel_size=parallel_state.get_pipeline_model_parallel_world_size(),
        expert_model_parallel_size=parallel_state.get_expert_model_parallel_world_size(),
    )
    if config.num_moe_experts:
        spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False)
    else:
        spec = get_gpt_layer_local_spec(normalization=config.normalization, qk_layernorm=config.qk_layernorm)
    return GPTModel(
        config=config,
        transformer_layer_spec=spec,
        vocab_size=PADDED,
        max_sequence_length=32,
        parallel_output=False,
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        **model,
    )


def state_of(model, name: str) -> dict:
    """What is saved."""
    sharded = model.sharded_state_dict(metadata=CASES[name][2])
    if name != "llama":
        return sharded
    from megatron.core import parallel_state
    from megatron.core.dist_checkpointing.mapping import ShardedObject, ShardedTensor

    ranks = tuple(
        (group.size(), group.rank())
        for group in (
            parallel_state.get_pipeline_model_parallel_group(),
            parallel_state.get_tensor_model_parallel_group(),
        )
    )
    random = ShardedObject(
        "rng_state",
        [{"random": np.arange(3)}],
        tuple(size for size, _ in ranks),
        tuple(rank for _, rank in ranks),
    )
    moments = {}
    for key, tensor in sharded.items():
        if isinstance(tensor, ShardedTensor) and "norm" in key:
            moment = tensor.without_data()
            moment.key = f"optimizer.state.exp_avg.{tensor.key}"
            moment.data = torch.zeros_like(tensor.data)
            moments[key] = moment
    return {
        "args": argparse.Namespace(**ARGUMENTS),
        "checkpoint_version": 3.0,
        "iteration": 100,
        "model": sharded,
        "optimizer": moments,
        "opt_param_scheduler": {"max_lr": 1e-3},
        "rng_state": random,
    }


def write(name: str, folder: Path) -> None:
    """On one rank: the logits, and the checkpoint if no more ranks are to write it."""
    from megatron.core import dist_checkpointing

    model = build(name)
    megatron_cpu.fill(model)
    for key, buffer in model.named_buffers():
        if key.endswith("expert_bias"):
            buffer.copy_(torch.linspace(-0.1, 0.1, len(buffer)))
    if name == "llama_mixed":
        model.decoder.layers.to(torch.bfloat16)
        model.embedding.half(), model.output_layer.half()
        model.float()  # which computes, with numbers that the stored types hold
    model.eval()
    tokens = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.triu(torch.ones(12, 12, dtype=torch.bool), 1)[None, None]
    with torch.no_grad():
        logits = model(tokens, torch.arange(12)[None].repeat(2, 1), mask)
    np.savez_compressed(
        HERE / f"{name}.npz",
        tokens=tokens.numpy(),
        logits=logits.numpy()[..., :VOCABULARY],
    )
    if name == "llama_mixed":
        model.decoder.layers.to(torch.bfloat16)
        model.embedding.half(), model.output_layer.half()
    dist_checkpointing.save(model.sharded_state_dict(metadata=CASES[name][2]), str(folder))


def reshard(name: str, source: str, target: str) -> None:
    """On several ranks: loads one checkpoint and saves another."""
    from megatron.core import dist_checkpointing, parallel_state

    tensor, pipeline, *expert = CASES[name][3]
    parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(
        tensor, pipeline, expert_model_parallel_size=expert[0] if expert else 1
    )
    model = build(name)
    sharded = model.sharded_state_dict(metadata=CASES[name][2])
    model.load_state_dict(dist_checkpointing.load(sharded, source))
    dist_checkpointing.save(state_of(model, name), target)


def make(name: str) -> None:
    ranks = math.prod(CASES[name][3])
    with tempfile.TemporaryDirectory() as parent:
        content = Path(parent) / "content"
        target = content / "iter_0000100" if name == "llama" else content
        target.mkdir(parents=True)
        if ranks == 1:
            write(name, target)
        else:
            source = Path(parent) / "one_rank"
            source.mkdir()
            write(name, source)
            processes = [
                subprocess.Popen(
                    [sys.executable, __file__, name, str(source), str(target)],
                    env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks)},
                )
                for rank in range(ranks)
            ]
            assert all(process.wait() == 0 for process in processes)
        if name == "llama":
            (content / "latest_checkpointed_iteration.txt").write_text("100")
        with zipfile.ZipFile(HERE / f"{name}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for file in sorted(content.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(content))
        print(name, json.dumps({"zip": (HERE / f"{name}.zip").stat().st_size}))


if __name__ == "__main__":  # the writer of checkpoints starts processes
    if len(sys.argv) == 4:
        store = torch.distributed.FileStore(f"{sys.argv[2]}.store", int(os.environ["WORLD_SIZE"]))
        torch.distributed.init_process_group(
            "gloo", rank=int(os.environ["RANK"]), world_size=int(os.environ["WORLD_SIZE"]), store=store
        )
        megatron_cpu.boot("0_16_1")
        reshard(*sys.argv[1:])
    else:
        megatron_cpu.boot("0_16_1")
        for case in CASES if len(sys.argv) < 2 else sys.argv[1:]:
            make(case)
