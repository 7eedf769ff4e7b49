"""Random configs, weights and inputs of Hugging Face's decoders, the same wherever numpy runs."""

import random
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

KINDS = {
    "gpt2": "GPT2LMHeadModel",
    "gpt_neox": "GPTNeoXForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "nemotron": "NemotronForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen2_moe": "Qwen2MoeForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "gpt_oss": "GptOssForCausalLM",
    "olmoe": "OlmoeForCausalLM",
}
"""config.json's `model_type` → its class."""

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe")
"""Of experts."""
_ZERO_CENTERED = ("nemotron", "gemma2", "gemma3_text")
"""Whose norms store their gains minus one."""
_ACTIVATIONS = ["silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "relu", "relu2", "quick_gelu", "gelu_fast"]


def config_of(kind: str, seed: int) -> dict[str, Any]:
    """A config.json, in old spellings or new ones."""
    rng = random.Random(f"{kind} {seed}")
    heads = rng.choice([1, 2, 3, 4, 6, 8])
    groups = rng.choice([n for n in range(1, heads + 1) if heads % n == 0])
    head_dim = rng.choice([4, 6, 8, 16])
    layers = rng.choice([1, 2, 3, 5])
    config: dict[str, Any] = {
        "architectures": [KINDS[kind]],
        "model_type": kind,
        "vocab_size": rng.choice([61, 64, 100, 127, 131]),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    tied = rng.choice([True, False])
    if tied != (kind in ("gpt2", "gemma2", "gemma3_text")) or rng.random() < 0.5:
        config["tie_word_embeddings"] = tied
    if kind == "gpt2":
        return config | _gpt2(rng, heads, head_dim, layers)
    config |= {
        "hidden_size": heads * head_dim,
        "intermediate_size": rng.choice([8, 33, 48, 64]),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "max_position_embeddings": rng.choice([64, 96, 128]),
    }
    if kind == "gpt_neox":
        return config | _gpt_neox(rng, head_dim, layers)
    config["num_key_value_heads"] = groups
    if kind in MIXTURES:
        return config | _mixture(rng, kind, heads, head_dim, layers)
    if kind == "nemotron":
        config["norm_eps"] = rng.choice([1e-6, 1e-5, 1e-3])
    else:
        config["rms_norm_eps"] = rng.choice([1e-6, 1e-5, 1e-3])
    own_size = {"llama": 0.5, "mistral": 0.5, "nemotron": 0.5, "qwen3": 1, "gemma2": 1, "gemma3_text": 1}
    if rng.random() < own_size.get(kind, 0):
        config["head_dim"] = head_dim
        config["hidden_size"] = heads * rng.choice([8, 9, 12])
    activation = rng.choice(_ACTIVATIONS)
    if kind.startswith("gemma"):
        config["hidden_activation"] = activation
    elif rng.random() < 0.5:
        config["hidden_act"] = activation
    if kind in ("llama", "qwen3", "olmo2", "nemotron", "gemma2", "gemma3_text"):
        config["attention_bias"] = rng.choice([True, False])
    if kind in ("llama", "nemotron"):
        config["mlp_bias"] = rng.choice([True, False])
    if kind == "nemotron":
        partial = rng.choice([None, 0.5, 1.0])
        if partial is not None:
            config["partial_rotary_factor"] = partial
        if head_dim == 6:
            config["partial_rotary_factor"] = 1.0
    if kind in ("mistral", "phi3"):
        config["sliding_window"] = rng.choice([None, 1, 4, 11, 500])
    if kind in ("qwen2", "qwen3"):
        config |= _qwen_window(rng, layers)
    if kind.startswith("gemma"):
        config["query_pre_attn_scalar"] = rng.choice([head_dim, 16, 7])
        config["sliding_window"] = rng.choice([1, 4, 11, 500])
        config["final_logit_softcapping"] = rng.choice([None, 2.0, 30.0])
    if kind == "gemma2":
        config["attn_logit_softcapping"] = rng.choice([None, 1.0, 50.0])
        if rng.random() < 0.5:
            config["layer_types"] = _layer_types(rng, layers)
    if kind == "gemma3_text":
        return config | _gemma3(rng, head_dim, layers)
    if kind == "phi3":
        return config | _phi3(rng, head_dim)
    if kind == "nemotron":
        config["rope_theta"] = rng.choice([100.0, 10000.0, 1e6])
        scaling = _scaling(rng, head_dim)
        return config | ({"rope_scaling": scaling} if scaling["rope_type"] != "longrope" else {})
    return config | _rope(rng, head_dim)


def _gpt2(rng: random.Random, heads: int, head_dim: int, layers: int) -> dict[str, Any]:
    config = {
        "n_embd": heads * head_dim,
        "n_layer": layers,
        "n_head": heads,
        "n_positions": rng.choice([64, 65]),
        "n_inner": rng.choice([None, 20]),
        "activation_function": rng.choice(_ACTIVATIONS),
        "layer_norm_epsilon": rng.choice([1e-6, 1e-5, 1e-3]),
        "scale_attn_weights": rng.choice([True, True, False]),
    }
    if rng.random() < 0.3:
        config["activation_function"] = "gelu_new"
    return config


def _gpt_neox(rng: random.Random, head_dim: int, layers: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "hidden_act": rng.choice(_ACTIVATIONS),
        "layer_norm_eps": rng.choice([1e-6, 1e-5, 1e-3]),
        "use_parallel_residual": rng.choice([True, False]),
        "attention_bias": rng.choice([True, True, False]),
    }
    percent = {4: 0.5, 6: 0.4, 8: 0.25, 16: 0.25}[head_dim]
    percent = rng.choice([percent, 1.0])
    scaling = _scaling(rng, head_dim)
    if scaling["rope_type"] != "longrope" and rng.random() < 0.4:
        config["rope_scaling"] = scaling
    if "rope_scaling" in config or rng.random() < 0.5:
        config |= {"rotary_emb_base": rng.choice([100, 10000]), "rotary_pct": percent}
    else:
        config["rope_parameters"] = {
            "rope_theta": 10000.0,
            "partial_rotary_factor": percent,
            "rope_type": "default",
        }
    return config


def _qwen_window(rng: random.Random, layers: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "use_sliding_window": rng.choice([True, True, False]),
        "sliding_window": rng.choice([1, 4, 11, 500]),
        "max_window_layers": rng.choice([0, 1, 2, 9]),
    }
    if config["use_sliding_window"] and rng.random() < 0.5:
        config["layer_types"] = _layer_types(rng, layers)
    return config


def _layer_types(rng: random.Random, layers: int) -> list[str]:
    share = rng.choice([0.0, 0.5, 0.5, 1.0])
    return ["sliding_attention" if rng.random() < share else "full_attention" for _ in range(layers)]


def _scaling(rng: random.Random, head_dim: int) -> dict[str, Any]:
    kind = rng.choice(["linear", "llama3", "yarn", "longrope"])
    if kind == "linear":
        return {"rope_type": kind, "factor": rng.choice([2.0, 8.0])}
    original = {"original_max_position_embeddings": rng.choice([8, 32, 64])}
    if kind == "llama3":
        return {
            "rope_type": kind,
            "factor": rng.choice([4.0, 8.0]),
            "low_freq_factor": 1.0,
            "high_freq_factor": rng.choice([2.0, 4.0]),
            **original,
        }
    if kind == "longrope":
        more = rng.choice([{}, {"attention_factor": 1.25}])
        return {
            "rope_type": kind,
            "factor": rng.choice([1.0, 4.0]),
            **_long_factors(head_dim),
            **original,
            **more,
        }
    more = rng.choice(
        [
            {},
            {"attention_factor": 1.1},
            {"mscale": 1.0, "mscale_all_dim": 0.8},
            {"mscale": 0.7},
            {"beta_fast": 16, "beta_slow": 2},
            {"truncate": False},
        ]
    )
    return {"rope_type": kind, "factor": rng.choice([1.0, 4.0, 40.0]), **original, **more}


def _long_factors(features: int) -> dict[str, Any]:
    pairs = features // 2
    return {
        "short_factor": [round(1 + 0.05 * i, 4) for i in range(pairs)],
        "long_factor": [round(1 + 0.9 * i**1.1, 4) for i in range(pairs)],
    }


def _rope(rng: random.Random, head_dim: int) -> dict[str, Any]:
    base = rng.choice([100.0, 10000.0, 500000.0])
    if rng.random() < 0.5:
        parameters = rng.choice([{"rope_type": "default"}, _scaling(rng, head_dim)])
        return {"rope_parameters": {"rope_theta": base, **parameters}}
    old: dict[str, Any] = rng.choice([{}, {"rope_theta": base}])
    scaling = rng.choice([None, _scaling(rng, head_dim)])
    if scaling is not None and rng.random() < 0.5:
        scaling["type"] = scaling.pop("rope_type")
    return {**old, "rope_scaling": scaling}


def _phi3(rng: random.Random, head_dim: int) -> dict[str, Any]:
    partial = rng.choice([1.0, 1.0, {4: 0.5, 6: 0.7, 8: 0.75, 16: 0.75}[head_dim]])
    old: dict[str, Any] = {} if partial == 1.0 else {"partial_rotary_factor": partial}
    if rng.random() < 0.3:
        return old | {"rope_theta": 500.0}
    old["original_max_position_embeddings"] = rng.choice([8, 32, 64])
    scaling = {"type": "longrope", **_long_factors(int(head_dim * partial))}
    return old | {"rope_scaling": scaling, "rope_theta": 10000.0}


def _gemma3(rng: random.Random, head_dim: int, layers: int) -> dict[str, Any]:
    linear = {"rope_type": "linear", "factor": 8.0}
    if rng.random() < 0.5:
        types = _layer_types(rng, layers)
        return {
            "layer_types": types,
            "rope_parameters": {
                "full_attention": {"rope_theta": 5e5, **rng.choice([{"rope_type": "default"}, linear])},
                "sliding_attention": {"rope_theta": 500.0, "rope_type": "default"},
            },
        }
    config: dict[str, Any] = rng.choice([{}, {"rope_theta": 1e5, "rope_local_base_freq": 300.0}])
    config = dict(config, rope_scaling=rng.choice([None, linear, _scaling(rng, head_dim)]))
    return config | rng.choice([{}, {"sliding_window_pattern": rng.choice([1, 2, 3])}])


def _mixture(rng: random.Random, kind: str, heads: int, head_dim: int, layers: int) -> dict[str, Any]:
    config: dict[str, Any] = {"rms_norm_eps": rng.choice([1e-6, 1e-5, 1e-3])}
    if kind in ("qwen3_moe", "gpt_oss") or (kind in ("mixtral", "qwen2_moe") and rng.random() < 0.5):
        config |= {"head_dim": head_dim, "hidden_size": heads * rng.choice([8, 9, 12])}
    if kind != "gpt_oss" and rng.random() < 0.5:
        config["hidden_act"] = rng.choice(_ACTIVATIONS)
    if kind in ("qwen3_moe", "gpt_oss", "olmoe"):
        config |= rng.choice([{}, {"attention_bias": True}, {"attention_bias": False}])
    config |= _experts(rng, kind, layers)
    if kind == "mixtral":
        config |= {"sliding_window": rng.choice([None, 1, 4, 11]), "router_jitter_noise": 0.1}
    if kind == "qwen2_moe":
        config |= _qwen_window(rng, layers) | rng.choice([{}, {"qkv_bias": False}, {"qkv_bias": True}])
    if kind == "qwen3_moe":
        window = {"use_sliding_window": True, "sliding_window": rng.choice([1, 4, 11])}
        config |= rng.choice([{}, {"use_sliding_window": False, "sliding_window": 4}, window])
    if kind == "gpt_oss":
        config |= {"sliding_window": rng.choice([1, 4, 11, 500])}
        config |= rng.choice([{}, {"layer_types": _layer_types(rng, layers)}])
        config |= rng.choice([{}, {"swiglu_limit": 0.5}, {"swiglu_limit": 1.5, "swiglu_alpha": 1.702}])
        if rng.random() < 0.3:
            return config  # with transformers' own scaling
    rope = _rope(rng, head_dim)
    if kind == "mixtral" and (rope.get("rope_parameters") or rope.get("rope_scaling")):
        config.setdefault("head_dim", head_dim)  # which transformers then asks for
    return config | rope


def _experts(rng: random.Random, kind: str, layers: int) -> dict[str, Any]:
    experts = rng.choice([3, 4, 8])
    key = rng.choice(["num_experts", "num_local_experts"]) if kind != "qwen2_moe" else "num_experts"
    config: dict[str, Any] = {key: experts}
    normalized = kind in ("mixtral", "gpt_oss") or rng.choice([True, False])
    if kind in ("qwen2_moe", "qwen3_moe", "olmoe") and (normalized or rng.random() < 0.5):
        config["norm_topk_prob"] = normalized
    # What a single probability would be if it had to sum to 1 is nothing that a router could learn.
    config["num_experts_per_tok"] = rng.choice([2, 3] if normalized else [1, 2, 3])
    sparse = True
    if kind in ("qwen2_moe", "qwen3_moe"):
        config["moe_intermediate_size"] = rng.choice([8, 20])
        config |= rng.choice([{}, {"decoder_sparse_step": rng.choice([1, 2, 3])}])
        dense = sorted(rng.sample(range(layers), rng.randrange(layers)))
        config |= rng.choice([{}, {"mlp_only_layers": dense}])
        dense, step = config.get("mlp_only_layers", []), config.get("decoder_sparse_step", 1)
        sparse = any((layer + 1) % step == 0 and layer not in dense for layer in range(layers))
    if sparse:  # transformers has no balance of no routers
        config |= rng.choice([{}, {"output_router_logits": True, "router_aux_loss_coef": 0.3}])
    if kind == "qwen2_moe":
        config["shared_expert_intermediate_size"] = rng.choice([8, 24])
    return config


def weights_of(kind: str, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """Tensors by name. Larger than a fresh model's, so that every option shows in the logits."""
    weights = {}
    for name, shape in shapes.items():
        drawn = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
        scale = 0.5 / np.sqrt(min(shape)) if len(shape) > 1 else 0.1
        gain = len(shape) == 1 and name.endswith("weight") and kind not in _ZERO_CENTERED
        weights[name] = (gain + scale * drawn).astype(np.float32)
    return weights


def fingerprint(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of the names and the shapes of tensors."""
    return zlib.crc32(repr(sorted((name, tuple(shape)) for name, shape in shapes.items())).encode())


def inputs_of(vocab_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and an attention mask: of whole rows, of rows padded on the right, or on the left."""
    rng = random.Random(f"inputs {seed}")
    rows, length = rng.choice([1, 2, 3]), rng.choice([1, 17, 17, 64])
    tokens = np.random.RandomState(seed).randint(3, vocab_size, (rows, length))
    mask = np.ones_like(tokens)
    side = rng.choice(["whole", "right", "left"])
    for row in mask[1:] if side != "whole" else ():
        padding = rng.randrange(length)
        row[length - padding :] = 0
    return tokens, mask[:, ::-1].copy() if side == "left" else mask
