"""Makes schedule.json and optimizer.npz with Megatron-Core's scheduler and PyTorch's optimizers.

Needs torch 2.13 and megatron-core 0.16.1, neither of which the tests need:
    python make_goldens.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler

HERE = Path(__file__).parent
STEPS = 48
STYLES = {
    "constant": "constant",
    "linear": "linear",
    "cosine": "cosine",
    "inverse-sqrt": "inverse-square-root",
}


class ParameterGroups:
    """All that the scheduler sees of an optimizer."""

    def __init__(self):
        self.param_groups = [{}]


def learning_rates(
    *, kind, learning_rate, min_learning_rate, warmup_steps, decay_steps, wsd_decay_steps=None, wsd_decay=None
):
    optimizer = ParameterGroups()
    scheduler = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=learning_rate,
        min_lr=min_learning_rate,
        lr_warmup_steps=warmup_steps,
        lr_decay_steps=decay_steps,
        lr_decay_style=STYLES.get(kind, "WSD"),
        start_wd=0.1,
        end_wd=0.1,
        wd_incr_steps=decay_steps,
        wd_incr_style="constant",
        wsd_decay_steps=wsd_decay_steps,
        lr_wsd_decay_style=wsd_decay and wsd_decay.replace("-", "_"),
    )
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step(1)
    return rates


def schedules():
    common = dict(learning_rate=3e-4, min_learning_rate=2e-5)
    cases = [dict(kind=kind, warmup_steps=w, decay_steps=40, **common) for kind in STYLES for w in (0, 7)]
    for wsd_decay in ("exponential", "minus-sqrt", "linear", "cosine"):
        wsd = dict(kind="wsd", decay_steps=40, wsd_decay_steps=12, wsd_decay=wsd_decay)
        cases += [dict(warmup_steps=w, **wsd, **common) for w in (0, 7)]
    return [dict(config=case, learning_rates=learning_rates(**case)) for case in cases]


def trajectories():
    """Parameters after each of 6 updates with fixed gradients; the matrix is decayed, the vector is not."""
    rng = np.random.RandomState(0)
    start = {"matrix": rng.randn(5, 7), "vector": rng.randn(7)}
    arrays = {f"start/{k}": v.astype(np.float32) for k, v in start.items()}
    scales = 10.0 ** rng.uniform(-4, 1, size=6)
    for k, v in start.items():
        arrays[f"grads/{k}"] = (rng.randn(6, *v.shape) * scales.reshape(6, *[1] * v.ndim)).astype(np.float32)
    arrays["learning_rates"] = np.array([0.0, 0.01, 0.02, 0.02, 0.015, 0.01])
    optimizers = {
        "adamw": lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-5),
        "sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9),
        "sgd_nesterov": lambda groups: torch.optim.SGD(groups, momentum=0.9, nesterov=True),
    }
    for clip in (None, 0.5):
        for name, build in optimizers.items():
            p = {k: torch.nn.Parameter(torch.tensor(arrays[f"start/{k}"])) for k in start}
            decay = {"matrix": 0.1, "vector": 0.0}
            optimizer = build([dict(params=[p[k]], weight_decay=decay[k], lr=0.0) for k in start])
            after, norms = {k: [] for k in start}, []
            for step in range(6):
                for k in start:
                    p[k].grad = torch.tensor(arrays[f"grads/{k}"][step])
                norms.append(torch.nn.utils.clip_grad_norm_(p.values(), clip or float("inf")).item())
                for group in optimizer.param_groups:
                    group["lr"] = float(arrays["learning_rates"][step])
                optimizer.step()
                for k in start:
                    after[k].append(p[k].detach().numpy().copy())
            case = f"{name}/{'clip' if clip else 'plain'}"
            arrays |= {f"{case}/{k}": np.stack(v) for k, v in after.items()}
            arrays["norms"] = np.array(norms)
    return arrays


if __name__ == "__main__":
    (HERE / "schedule.json").write_text(json.dumps(schedules(), indent=1) + "\n")
    np.savez_compressed(HERE / "optimizer.npz", **trajectories())
