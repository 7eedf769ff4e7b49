"""mjx: the model families of Megatron-Core in JAX and Flax, on any mesh of GPUs."""

__version__ = "0.1.0"
