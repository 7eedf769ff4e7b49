"""Whole runs: from a config to a trained checkpoint, and back from it."""
