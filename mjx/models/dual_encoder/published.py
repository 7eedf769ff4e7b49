"""The sizes of known models."""

PUBLISHED = {}
