"""What the tables of Hugging Face's models of this family begin with."""

from collections.abc import Callable, Sequence
from typing import Any

from mjx.models.interop.architecture import UNQUANTIZED, WITHOUT_MEANING, Architecture
from mjx.models.interop.config_map import ConfigMap, Constant, Entry, Key, ResolvedKey
from mjx.models.interop.name_map import NameMap
from mjx.models.mamba.config import MambaConfig
from mjx.models.mamba.config_keys import Unused, canonical
from mjx.models.mamba.huggingface_names import mixer_names

_WITHOUT_MEANING = (
    # Initial weights, dtypes, and names of kernels
    *("residual_in_fp32", "rescale_prenorm_residual", "use_mambapy", "use_associative_scan"),
    *("use_mamba_kernels", "use_falcon_mambapy", "mamba_ssm_cache_dtype", "num_logits_to_keep"),
    *("fused_add_norm", "ssm_cfg", "pad_vocab_size_multiple"),
    # What the original code called other keys
    *("d_inner", "d_model", "n_layer"),
)


SIZES = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "hidden_size"),
    Constant("norm.kind", "rmsnorm"),
)
ATTENTION = (
    Key("num_attention_heads", "attention.num_heads", 32),
    ResolvedKey("num_key_value_heads", "attention.num_query_groups", 8, null=True),
    Key("attention_dropout", "attention.dropout", 0.0),
)


def architecture(
    model_type: str,
    class_name: str,
    layers: Any,
    *entries: Entry,
    names: Callable[[MambaConfig], NameMap] = mixer_names,
    prefix: str = "backbone.",
    without_meaning: Sequence[str] = (),
) -> Architecture:
    """One of them, by its tables."""
    table = (UNQUANTIZED, layers, *entries, Unused(layers.pattern))
    ignored = (*WITHOUT_MEANING, *_WITHOUT_MEANING, *without_meaning)
    return Architecture(
        model_type=model_type,
        class_name=class_name,
        config=ConfigMap(MambaConfig, table, ignored),
        name_map=names,
        prefix=prefix,
        canonical=canonical,
    )
