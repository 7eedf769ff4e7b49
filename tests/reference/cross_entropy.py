"""Softmax cross-entropy with all logits, and its gradients."""

from typing import NamedTuple

import numpy as np


class CrossEntropy(NamedTuple):
    """Sums over the unmasked tokens."""

    total: float
    """cross_entropy + z_loss · squares: what is differentiated."""
    cross_entropy: float
    squares: float
    """Of log Z, the log of the softmax's sum."""
    d_logits: np.ndarray
    """Of `total`."""


def cross_entropy(
    logits: np.ndarray, labels: np.ndarray, mask: np.ndarray, *, z_loss: float = 0.0
) -> CrossEntropy:
    """`logits` (…, vocab) are those of the vocabulary alone, without its padding."""
    logits = logits.astype(np.float64)
    largest = logits.max(-1, keepdims=True)
    log_z = largest[..., 0] + np.log(np.exp(logits - largest).sum(-1))
    picked = np.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    entropy, squares = ((log_z - picked) * mask).sum(), (log_z**2 * mask).sum()
    softmax = np.exp(logits - log_z[..., None])
    d_logits = softmax * (1 + 2 * z_loss * log_z[..., None])
    d_logits -= np.arange(logits.shape[-1]) == labels[..., None]
    return CrossEntropy(entropy + z_loss * squares, entropy, squares, d_logits * mask[..., None])


def soft_capped(logits: np.ndarray, cap: float | None) -> np.ndarray:
    """cap · tanh(l / cap) (Gemma team 2024)."""
    return logits if cap is None else cap * np.tanh(logits / cap)


def language_model_loss(
    hidden: np.ndarray,
    weight: np.ndarray,
    labels: np.ndarray,
    mask: np.ndarray,
    *,
    vocab_size: int,
    z_loss: float = 0.0,
    soft_cap: float | None = None,
) -> tuple[CrossEntropy, np.ndarray, np.ndarray]:
    """The loss of states (batch, sequence, embed) under a table whose rows from `vocab_size` on are padding,
    its gradient in the states, and that in the table."""
    hidden, weight = hidden.astype(np.float64), weight.astype(np.float64)
    logits = soft_capped(hidden @ weight[:vocab_size].T, soft_cap)
    loss = cross_entropy(logits, labels, mask, z_loss=z_loss)
    slope = 1 if soft_cap is None else 1 - (logits / soft_cap) ** 2
    d_logits = loss.d_logits * slope
    d_weight = np.zeros_like(weight)
    d_weight[:vocab_size] = np.einsum("bsv,bse->ve", d_logits, hidden)
    return loss, d_logits @ weight[:vocab_size], d_weight
