"""From logits to probabilities, of tensors and of arrays alike."""

import numpy as np

from vitral.data.preprocess import Kind


def softmax(logits: Kind, axis: int = -1) -> Kind:
    """One choice among all classes, which lie along an axis."""
    if isinstance(logits, np.ndarray):
        shares = np.exp(logits - logits.max(axis, keepdims=True))
        return shares / shares.sum(axis, keepdims=True)
    return logits.softmax(axis)


def sigmoid(logits: Kind) -> Kind:
    """A yes or no for each."""
    if isinstance(logits, np.ndarray):
        half = np.exp(-np.abs(logits))  # cannot overflow
        return np.where(logits >= 0, 1, half) / (1 + half)
    return logits.sigmoid()
