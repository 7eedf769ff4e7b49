"""Makes training.npz: the runs of training.py by Megatron-Core 0.16.1, with its optimizer and schedules.

    PYTHONPATH=ORACLES python make_training.py

ORACLES is the folder of `megatron_cpu.py`, which lets Megatron-Core run without a GPU (torch 2.13). Of each
run: losses, norms of gradients, and the last parameters, `expert_bias` among them.
"""

from pathlib import Path

import megatron_cpu
import numpy as np
import torch
import training

HERE = Path(__file__).parent


def run(name: str) -> dict[str, np.ndarray]:
    from megatron.core.distributed import (
        DistributedDataParallel,
        DistributedDataParallelConfig,
        finalize_model_grads,
    )
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
    from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
    from megatron.core.pipeline_parallel.schedules import forward_backward_no_pipelining
    from megatron.core.transformer.transformer_config import TransformerConfig

    settings, microbatches = training.RUNS[name]
    off = dict.fromkeys(
        (
            "bias_dropout_fusion",
            "masked_softmax_fusion",
            "gradient_accumulation_fusion",
            "persist_layer_norm",
        ),
        False,
    )
    config = TransformerConfig(
        **{**settings, "activation_func": torch.nn.functional.silu},
        **off,
        apply_rope_fusion=False,
        use_cpu_initialization=True,
        params_dtype=torch.float32,
        finalize_model_grads_func=finalize_model_grads,
    )
    model = GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_decoder_block_spec(config, use_transformer_engine=False),
        vocab_size=training.VOCABULARY,
        max_sequence_length=training.SEQUENCE,
        parallel_output=False,
        **training.MODEL,
    )
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(training.start(name, key, tuple(parameter.shape))))
    ddp = DistributedDataParallel(
        config=config,
        ddp_config=DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=False),
        module=model,
    )
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=training.LEARNING_RATE,
            min_lr=training.LAST,
            weight_decay=training.WEIGHT_DECAY,
            adam_beta1=training.BETAS[0],
            adam_beta2=training.BETAS[1],
            adam_eps=training.EPSILON,
            clip_grad=training.CLIP,
            params_dtype=torch.float32,
        ),
        [ddp],
    )
    schedule = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=training.LEARNING_RATE,
        min_lr=training.LAST,
        lr_warmup_steps=training.WARMUP,
        lr_decay_steps=training.STEPS,
        lr_decay_style="cosine",
        start_wd=training.WEIGHT_DECAY,
        end_wd=training.WEIGHT_DECAY,
        wd_incr_steps=training.STEPS,
        wd_incr_style="constant",
    )
    length = training.SEQUENCE
    positions = torch.arange(length)[None].repeat(training.MICROBATCH, 1)
    mask = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)[None, None]
    losses, norms = [], []

    def forward(batches, model):
        tokens = torch.from_numpy(next(batches))
        each = model(tokens[:, :-1].contiguous(), positions, mask, labels=tokens[:, 1:].contiguous())
        return each, lambda output: (output.mean(), {"loss": output.mean().detach()})

    ddp.train()
    for step in range(training.STEPS):
        ddp.zero_grad_buffer()
        optimizer.zero_grad()
        said = forward_backward_no_pipelining(
            forward_step_func=forward,
            data_iterator=iter(training.tokens(name, step)),
            model=ddp,
            num_microbatches=microbatches,
            seq_length=length,
            micro_batch_size=training.MICROBATCH,
        )
        _, norm, _ = optimizer.step()
        schedule.step(increment=1)
        losses.append(np.mean([each["loss"].item() for each in said]))
        norms.append(float(norm))
    last = {key: parameter.detach().numpy() for key, parameter in model.named_parameters()}
    last |= {key: value.numpy() for key, value in model.named_buffers() if key.endswith("expert_bias")}
    return {"losses": np.array(losses), "norms": np.array(norms), **{f"last/{k}": v for k, v in last.items()}}


if __name__ == "__main__":
    megatron_cpu.boot("0_16_1")
    arrays = {f"{name}/{key}": value for name in training.RUNS for key, value in run(name).items()}
    np.savez_compressed(HERE / "training.npz", **arrays)
