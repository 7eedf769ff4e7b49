"""Saving and restoring state: atomic, asynchronous, on any mesh; it knows no model."""
