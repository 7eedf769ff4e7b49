"""Grouped matmul: rows sorted by group, each group with a kernel of its own."""
