"""Continuing text with a trained model."""

from mjx.inference.beams import Beam
from mjx.inference.generate import Generator, generate
from mjx.inference.sampling import SamplingConfig, sample

__all__ = ["Beam", "Generator", "SamplingConfig", "generate", "sample"]
