"""The adapter: Hugging Face models on any mesh, and back.

```
model = from_pretrained("SmolLM2-135M-Instruct", mesh=build_mesh(MeshConfig(fsdp=2, tensor=4)))
logits = model(tokens)
save_pretrained(model, "copy")
```
"""

from mjx.models.huggingface.pretrained import PretrainedModel, from_pretrained, load_pretrained, read_config
from mjx.models.huggingface.save import save_pretrained

__all__ = ["PretrainedModel", "from_pretrained", "load_pretrained", "read_config", "save_pretrained"]
