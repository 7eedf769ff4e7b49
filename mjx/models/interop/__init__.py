"""The language of maps: other libraries' tensors and settings ↔ ours."""
