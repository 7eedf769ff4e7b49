"""Kinds of variants: what families that read and write alike tell the contract."""
