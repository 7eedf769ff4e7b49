"""What a family says of one of Hugging Face's model classes that it can be."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.config_map import ConfigMap, Fields, Theirs, shown
from mjx.models.interop.name_map import NameMap

WITHOUT_MEANING = (
    # About the file
    *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
    *("transformers.js_config", "unsloth_fixed", "unsloth_version", "_commit_hash", "license", "language"),
    *("custom_pipelines", "trust_remote_code"),
    # How it is run, not what it computes
    *(
        "dtype",
        "torch_dtype",
        "use_cache",
        "cache_implementation",
        "gradient_checkpointing",
        "pretraining_tp",
    ),
    *("_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "use_bfloat16"),
    *("return_dict", "output_attentions", "output_hidden_states", "torchscript", "tf_legacy_loss"),
    *("chunk_size_feed_forward", "is_decoder", "base_model_tp_plan", "base_model_pp_plan"),
    *("output_past", "xla_device", "keys_to_ignore_at_inference", "tie_encoder_decoder"),
    *("_flash_attn_2_enabled", "_attn_implementation_internal", "neftune_noise_alpha"),
    # How long its rows were, where it has no table of positions that the length would be of
    *("max_sequence_length", "model_max_length", "seq_length", "tokenizer_model_max_length"),
    # Tokens and generation
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "unk_token_id"),
    *("decoder_start_token_id", "mask_token_id", "tokenizer_class", "prefix", "forced_bos_token_id"),
    *("bos_token", "eos_token", "pad_token", "unk_token", "tokenizer_padding_side"),
    *("predict_special_tokens", "max_new_tokens", "min_new_tokens", "max_time", "min_p", "penalty_alpha"),
    *("epsilon_cutoff", "eta_cutoff", "renormalize_logits", "guidance_scale", "output_logits"),
    *("forced_eos_token_id", "max_length", "min_length", "do_sample", "temperature", "top_k", "top_p"),
    *("typical_p", "repetition_penalty", "length_penalty", "num_beams", "num_beam_groups", "early_stopping"),
    *("diversity_penalty", "encoder_no_repeat_ngram_size", "no_repeat_ngram_size", "num_return_sequences"),
    *(
        "output_scores",
        "return_dict_in_generate",
        "bad_words_ids",
        "begin_suppress_tokens",
        "suppress_tokens",
    ),
    *("remove_invalid_values", "exponential_decay_length_penalty"),
    # Of other heads than a language model's
    *("finetuning_task", "id2label", "label2id", "num_labels", "_num_labels", "problem_type"),
    "task_specific_params",
    *("classifier_dropout", "cross_attention_hidden_size"),
)
"""Keys that any config.json may have, and that change nothing of what a model computes."""
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu_new": "gelu-tanh",
    "gelu_fast": "gelu-tanh",
    "gelu_accurate": "gelu-tanh",
    "gelu_python_tanh": "gelu-tanh",
    "relu": "relu",
    "relu2": "relu2",
    "relu_squared": "relu2",
    "quick_gelu": "quick-gelu",
}
"""`ACT2FN`'s names → ours."""
QUANTIZATION = "quantization_config"


@dataclasses.dataclass(frozen=True)
class Quantization:
    """The entry of `quantization_config`: how tensors are packed. What is written is not."""

    methods: tuple[str, ...] = ()
    """Those whose tensors the adapter unpacks (mjx/models/huggingface/packed.py)."""

    def names(self) -> Sequence[str]:
        return (QUANTIZATION,)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get(QUANTIZATION)
        method = given.get("quant_method") if isinstance(given, dict) else given
        if given and method not in self.methods:
            known = f"only {' and '.join(self.methods)}" if self.methods else "none"
            raise InputError(
                f'{theirs.where} has a "{QUANTIZATION}" of the method {shown(method)}; of this model mjx '
                f"reads {known}: take the checkpoint with weights of 16 or 32 bits"
            )
        return {}

    def theirs(self, config: Any) -> dict[str, Any]:
        return {}


UNQUANTIZED = Quantization()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """One model class of transformers: its config, and the names of its tensors."""

    model_type: str
    """config.json's `model_type`; those of several classes have it."""
    class_name: str
    """The class that a config.json names in `architectures`: it says which heads there are."""
    config: ConfigMap
    name_map: Callable[[Any], NameMap]
    """The tensors of a model of this config."""
    prefix: str
    """Of all tensors but the head's; checkpoints of the model without its head lack it."""
    canonical: Callable[[Any], Any]
    """A config without training's own choices, one spelling for every model: two that compute the same
    are equal."""
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Other names of tensors in checkpoints, as regular expressions → those in the table."""
    zeros: Collection[str] = ()
    """Tensors that are zero where a checkpoint lacks them."""
    told: Callable[[Any, Collection[str]], Any] = lambda config, tensors: config
    """`told(config, tensors)`: the config, with what config.json leaves open and the tensors that there are
    say."""
    part: bool = False
    """Whether there is such a model inside of others alone, with what is around it there."""
