"""Losses that make up for unequal class counts, for hard and for mixed targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["LABEL_SMOOTHING", "class_weights", "make_loss"]

LABEL_SMOOTHING = 0.05
_BETA = 0.999


def class_weights(class_counts: NDArray[np.int64], *, beta: float = _BETA) -> NDArray[np.float64]:
    r"""Return the class-balanced weights, which average to one over the classes that have rows.

    .. math:: w_c \propto (1 - \beta) / (1 - \beta^{n_c})

    Args:
        class_counts: (K,) training rows of each class; a class without rows gets the weight 0.
        beta: In [0, 1): 0 weighs all classes alike, towards 1 it is the inverse frequency.

    References:
        Cui et al.: Class-balanced loss based on effective number of samples (2019), eq. 5 and 6.
    """
    present = class_counts > 0
    weights = np.zeros(len(class_counts))
    weights[present] = (1 - beta) / (1 - beta ** class_counts[present])
    return np.asarray(weights / weights[present].mean())


def make_loss(kind: str, class_counts: NDArray[np.int64], *, device: str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
    r"""Return the loss of an arm: a function of logits (N, K) and targets, (N,) classes or (N, K) shares.

    "" is cross-entropy; "weighted" weighs rows by `class_weights`; "balanced-softmax" adds the log class
    counts to the logits, so that the network itself learns what a balanced set would have taught:

    .. math:: \ell = -\log \frac{n_y e^{\eta_y}}{\sum_c n_c e^{\eta_c}}

    All with label smoothing 0.05.

    Args:
        kind: "", "weighted" or "balanced-softmax".
        class_counts: (K,) training rows of each class.
        device: Where the logits will lie.

    References:
        Ren et al.: Balanced meta-softmax for long-tailed visual recognition (2020), eq. 3.
        Menon et al.: Long-tail learning via logit adjustment (2021), eq. 10, the same with tau = 1.
    """
    counts = torch.from_numpy(np.asarray(class_counts, dtype=np.float64)).float()
    weights = torch.from_numpy(class_weights(np.asarray(class_counts))).float().to(device)
    prior = counts.clamp(min=1e-3).log().to(device)

    def measure(logits: Tensor, targets: Tensor) -> Tensor:
        shifted = logits + prior if kind == "balanced-softmax" else logits
        if kind != "weighted":
            return functional.cross_entropy(shifted, targets, label_smoothing=LABEL_SMOOTHING)
        each = functional.cross_entropy(shifted, targets, label_smoothing=LABEL_SMOOTHING, reduction="none")
        scale = weights[targets] if targets.ndim == 1 else targets @ weights
        return (each * scale).sum() / scale.sum()

    return measure
