"""Classes that are joint groups: what they owe to each of their attributes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["shrink_centres"]


def shrink_centres(points: Tensor, labels: Tensor, attributes: Tensor) -> Tensor:
    r"""Return the mean point of each class, that of a class of few points drawn towards what its attributes say.

    .. math:: \hat m_y = p_y + \frac{n_y \tau^2}{n_y \tau^2 + \sigma^2} (m_y - p_y)

    p_y is the sum of an effect of each attribute's value, fitted to all centres by their counts; :math:`\sigma^2` the
    variance within classes, :math:`\tau^2` that of the centres about p beyond it, by the method of moments. The mean
    of seven red 3s lies where chance put it; what tells red from green is known from all digits.

    Args:
        points: (N, D) latents of images.
        labels: (N,) int64, at least one.
        attributes: (K, A) values; K classes, of which some may have no point.

    Returns:
        (K, D) centres.

    References:
        Efron, Morris: Stein's estimation rule and its competitors: an empirical Bayes approach (1973).
        DerSimonian, Laird: Meta-analysis in clinical trials (1986), eq. 8 (the method of moments).
    """
    classes = len(attributes)
    counts = torch.bincount(labels, minlength=classes)
    sums = torch.zeros(classes, points.shape[1], dtype=torch.float64, device=points.device)
    weights = counts.double()
    means = sums.index_add(0, labels, points.double()) / weights.clamp_min(1)[:, None]
    design = torch.cat([functional.one_hot(column) for column in attributes.T], dim=1).double()  # (K, values of all)
    weighted = design * weights[:, None]
    inverse = torch.linalg.pinv(weighted.T @ design, hermitian=True)
    predicted = design @ (inverse @ (weighted.T @ means))
    spread = (points.double() - means[labels]).square().mean(1).sum()
    within = spread / (counts.sum() - (counts > 0).sum()).clamp_min(1)
    free = (counts > 0).sum() - torch.linalg.matrix_rank(weighted)  # degrees of freedom of the centres about p
    if int(free) <= 0:  # p goes through every centre, and says nothing of how far they lie from it
        return torch.where(counts[:, None] > 0, means, predicted).to(points.dtype)
    observed = ((means - predicted).square().mean(1) * weights).sum()
    share = weights.sum() - torch.trace(inverse @ (weighted.T @ weighted))
    between = ((observed - within * free) / share).clamp_min(0)
    own = weights * between / (weights * between + within).clamp_min(1e-12)
    return torch.as_tensor(predicted + own[:, None] * (means - predicted)).to(points.dtype)
