"""Megatron-LM's arguments about a run → the sections of a recipe that are not its model.

Where a default is said here, it is that of Megatron-LM's argument.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import Absent, ConfigMap, Entry, Fields, Key, Only, Theirs, shown


class _Read:
    """An entry that is read in this direction alone: no arguments are made of a recipe."""

    def theirs(self, config: Any) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True)
class _Given(_Read):
    """An argument that decides a field only where it is given; both have a default of their own."""

    name: str
    field: str

    def names(self) -> Sequence[str]:
        return (self.name,)

    def ours(self, theirs: Theirs) -> Fields:
        value = theirs.get(self.name)
        return {} if value in (None, "") else {self.field: value}


@dataclasses.dataclass(frozen=True)
class _Batch(_Read):
    """Rows of a step, and the parts that it is cut into where the number of devices is said."""

    def names(self) -> Sequence[str]:
        return ("global_batch_size", "micro_batch_size", "eval_iters", "data_parallel_size", "world_size")

    def ours(self, theirs: Theirs) -> Fields:
        rows, of_device = theirs.get("global_batch_size"), theirs.get("micro_batch_size")
        copies = copies_of(theirs)
        if rows is None and of_device and copies:
            rows = of_device * copies
        if rows is None:
            raise InputError(f'{theirs.where} has no "global_batch_size", the rows of a step')
        parts = rows // (of_device * copies) if of_device and copies else 1
        evaluated = theirs.get("eval_iters")
        return {
            "training.batch_size": rows,
            "training.microbatches": max(parts, 1),
            "training.evaluation_rows": rows * (100 if evaluated is None else evaluated),
        }


def copies_of(theirs: Mapping[str, Any]) -> int | None:
    """Of the model, each with its own share of the batch; None where it is not said."""
    if theirs.get("data_parallel_size"):
        return theirs["data_parallel_size"]
    sizes = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size")
    of_model = math.prod(theirs.get(name) or 1 for name in sizes)
    devices = theirs.get("world_size")
    return devices // of_model if devices and devices % of_model == 0 else None


@dataclasses.dataclass(frozen=True)
class _Steps(_Read):
    """Lengths, which stand in steps, in rows or as a share."""

    def names(self) -> Sequence[str]:
        lengths = ("warmup", "decay", "wsd_decay")
        return (
            *("train_iters", "train_samples", "lr_warmup_fraction", "lr_wsd_decay_style"),
            *(f"lr_{length}_{unit}" for length in lengths for unit in ("iters", "samples")),
        )

    def ours(self, theirs: Theirs) -> Fields:
        rows = theirs.get("global_batch_size")

        def steps(iterations: str, samples: str) -> int | None:
            if theirs.get(iterations):
                return int(theirs[iterations])
            return theirs[samples] // rows if theirs.get(samples) and rows else None

        total = steps("train_iters", "train_samples")
        if total is None:
            raise InputError(
                f'{theirs.where} has neither "train_iters" nor "train_samples", the length of the run'
            )
        end = steps("lr_decay_iters", "lr_decay_samples")
        warmup = steps("lr_warmup_iters", "lr_warmup_samples") or 0
        if theirs.get("lr_warmup_fraction"):
            warmup = round(theirs["lr_warmup_fraction"] * (end or total))
        fields: Fields = {"training.steps": total, "schedule.warmup_steps": warmup}
        if end not in (None, total):
            fields["schedule.decay_steps"] = end
        if theirs.get("lr_decay_style") == "WSD":
            fields["schedule.wsd_decay_steps"] = steps("lr_wsd_decay_iters", "lr_wsd_decay_samples")
            style = theirs.get("lr_wsd_decay_style") or "exponential"
            fields["schedule.wsd_decay"] = style.replace("_", "-")
        return fields


@dataclasses.dataclass(frozen=True)
class _Optimizer(_Read):
    """`optimizer`, and the options that each has under names of its own."""

    def names(self) -> Sequence[str]:
        return (
            *(
                "optimizer",
                "adam_beta1",
                "adam_beta2",
                "adam_eps",
                "sgd_momentum",
                "lion_beta1",
                "lion_beta2",
            ),
            *("muon_momentum", "muon_nesterov", "muon_num_ns_steps", "muon_extra_scale_factor", "clip_grad"),
            *("muon_scale_mode", "muon_coefficient_type", "muon_scalar_optimizer"),
        )

    def ours(self, theirs: Theirs) -> Fields:
        def given(name: str, default: Any) -> Any:
            value = theirs.get(name)
            return default if value is None else value

        names = {"adam": "adamw", "sgd": "sgd", "lion": "lion", "muon": "muon", "dist_muon": "muon"}
        said = given("optimizer", "adam")
        if said not in names:
            raise InputError(
                f'{theirs.where} has "optimizer": {shown(said)}, which mjx does not have; known are '
                f"{', '.join(names)}"
            )
        name = names[said]
        clip = given("clip_grad", 1.0)
        fields: Fields = {"optimizer.name": name, "optimizer.clip_norm": clip if clip > 0 else None}
        betas = (
            ("lion_beta1", 0.95, "lion_beta2", 0.98)
            if name == "lion"
            else ("adam_beta1", 0.9, "adam_beta2", 0.999)
        )
        if name == "sgd":
            return {**fields, "optimizer.momentum": given("sgd_momentum", 0.9)}
        fields["optimizer.beta1"] = given(*betas[:2])
        fields["optimizer.beta2"] = given(*betas[2:])
        if name != "lion":
            fields["optimizer.eps"] = given("adam_eps", 1e-8)
        if name == "muon":
            fields |= {
                "optimizer.muon.momentum": given("muon_momentum", 0.95),
                "optimizer.muon.nesterov": given("muon_nesterov", False),
                "optimizer.muon.newton_schulz_steps": given("muon_num_ns_steps", 5),
                "optimizer.muon.coefficients": given("muon_coefficient_type", "quintic"),
                "optimizer.muon.scale": given("muon_scale_mode", "spectral").replace("_", "-"),
                "optimizer.muon.scale_factor": given("muon_extra_scale_factor", 1.0),
            }
            if given("muon_scalar_optimizer", "adam") != "adam":
                raise InputError(
                    f'{theirs.where} has "muon_scalar_optimizer": {shown(theirs["muon_scalar_optimizer"])}; '
                    "mjx updates what Muon does not by AdamW"
                )
        return fields


@dataclasses.dataclass(frozen=True)
class _Mesh(_Read):
    """Kinds of parallelism. What is left of the devices holds copies of the model, or shares of it where it
    was cut over them, or into stages of layers, which mjx has no need of."""

    def names(self) -> Sequence[str]:
        return (
            *("tensor_model_parallel_size", "context_parallel_size", "pipeline_model_parallel_size"),
            *("sequence_parallel", "use_distributed_optimizer", "data_parallel_sharding_strategy"),
            *("use_megatron_fsdp", "use_torch_fsdp2", "use_custom_fsdp"),
        )

    def ours(self, theirs: Theirs) -> Fields:
        tensor = theirs.get("tensor_model_parallel_size") or 1
        sharded = any(
            theirs.get(name) for name in ("use_megatron_fsdp", "use_torch_fsdp2", "use_custom_fsdp")
        )
        strategy = theirs.get("data_parallel_sharding_strategy") or "optim_grads_params"
        sharded = sharded and strategy == "optim_grads_params"
        split = sharded or (theirs.get("pipeline_model_parallel_size") or 1) > 1
        fields: Fields = {"mesh.data": 1, "mesh.fsdp": -1} if split else {"mesh.data": -1}
        if theirs.get("use_distributed_optimizer") and not split:
            fields["training.zero1"] = True
        for name, axis in (("tensor_model_parallel_size", "tensor"), ("context_parallel_size", "context")):
            if (theirs.get(name) or 1) > 1:
                fields[f"mesh.{axis}"] = theirs[name]
        if tensor > 1 and not theirs.get("sequence_parallel"):
            fields["sharding.sequence_parallel"] = False
        return fields


@dataclasses.dataclass(frozen=True)
class _Sources(_Read):
    """`data_path`: prefixes of .bin and .idx, each with its weight before it if they have weights."""

    def names(self) -> Sequence[str]:
        return ("data_path",)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get("data_path")
        parts = [str(part) for part in (given if isinstance(given, list | tuple) else [given])]
        if given is None:
            return {}
        if len(parts) == 1 and " " in parts[0]:  # as it stands in a script that does not say all of it
            parts = parts[0].split()
        weighted = len(parts) > 1 and len(parts) % 2 == 0 and all(map(_is_number, parts[::2]))
        if not weighted:
            return {"data.sources": [{"path": part} for part in parts]}
        return {
            "data.sources": [
                {"path": path, "weight": float(weight)}
                for weight, path in zip(parts[::2], parts[1::2], strict=True)
            ]
        }


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@dataclasses.dataclass(frozen=True)
class _Tokenizer(_Read):
    """The file or folder, whichever kind it is; without one, how many token ids there are."""

    def names(self) -> Sequence[str]:
        return (
            "tokenizer_type",
            "tokenizer_model",
            "vocab_file",
            "merge_file",
            "vocab_size",
            "padded_vocab_size",
        )

    def ours(self, theirs: Theirs) -> Fields:
        path = theirs.get("tokenizer_model")
        vocabulary = theirs.get("vocab_file")
        if path is None and vocabulary is not None:  # vocab.json and merges.txt are known by their folder
            path = vocabulary.rpartition("/")[0] or (vocabulary if vocabulary.startswith("$") else ".")
        if path is None or theirs.get("tokenizer_type") == "NullTokenizer":
            return {"data.vocab_size": theirs.get("vocab_size") or theirs.get("padded_vocab_size")}
        return {"data.tokenizer": path}


@dataclasses.dataclass(frozen=True)
class _Frozen(_Read):
    """The parts of a model that sees that are not trained."""

    def names(self) -> Sequence[str]:
        return tuple(_PARTS)

    def ours(self, theirs: Theirs) -> Fields:
        frozen = {pattern: {"frozen": True} for name, pattern in _PARTS.items() if theirs.get(name)}
        return {"optimizer.groups": frozen} if frozen else {}


_PARTS = {"freeze_LM": "language.*", "freeze_ViT": "vision.*"}
"""Arguments → patterns of their parameters."""

_ENTRIES: tuple[Entry, ...] = (
    _Sources(),
    Key("split", "data.split", "969,30,1"),
    _Tokenizer(),
    Key("seq_length", "data.sequence_length", also=("encoder_seq_length",)),
    Key("reset_position_ids", "data.reset_positions", False),
    Key("reset_attention_mask", "data.document_mask", False),
    Key("eod_mask_loss", "data.mask_eod_loss", False),
    _Given("data_cache_path", "data.cache_dir"),
    _Steps(),
    _Batch(),
    _Given("eval_interval", "training.evaluation_interval"),
    Key("seed", ("training.seed", "data.seed"), 1234),
    _Mesh(),
    _Optimizer(),
    Key("weight_decay", "optimizer.weight_decay", 0.01),
    Key("lr", "schedule.learning_rate"),
    Key("min_lr", "schedule.min_learning_rate", 0.0),
    Key(
        *("lr_decay_style", "schedule.kind", "linear"),
        {
            **{name: name for name in ("linear", "cosine", "constant")},
            "inverse-square-root": "inverse-sqrt",
            "WSD": "wsd",
        },
    ),
    _Given("save_interval", "checkpoint.interval"),
    _Given("save_retain_interval", "checkpoint.keep_every"),
    _Given("async_save", "checkpoint.asynchronous"),
    _Given("log_interval", "logging.interval"),
    _Given("wandb_project", "logging.wandb_project"),
    _Given("wandb_entity", "logging.wandb_entity"),
    _Given("save", "run_dir"),
    Only("decoupled_weight_decay", True),
    Only("weight_decay_incr_style", "constant"),
    _Frozen(),
    Absent(("rampup_batch_size", "step_batch_size_schedule", "decrease_batch_size_if_needed")),
    Absent(("decoupled_lr", "decoupled_min_lr", "lr_warmup_init", "freeze_all_layers")),
    Absent(("apply_wd_to_qk_layernorm", "no_weight_decay_cond_type", "qk_clip")),
    Absent(("init_method_xavier_uniform", "embedding_init_method_std")),
    Absent(("train_data_path", "valid_data_path", "test_data_path", "data_args_path")),
    Absent(("per_split_data_args_path", "phase_transition_iterations", "iterations_to_skip")),
    Absent(("fim_data", "sft", "perform_rl_step", "logits_load_dir", "moe_use_upcycling", "yaml_cfg")),
)

RUN = ConfigMap(dict, _ENTRIES, closed=False)
"""The dotted paths of a recipe, but those of its model."""
