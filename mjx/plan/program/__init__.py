"""XLA's text of a compiled program, read."""
