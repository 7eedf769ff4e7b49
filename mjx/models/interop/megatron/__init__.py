"""Megatron-Core: its names for tensors, Megatron-LM's names for settings, of what several families have."""
