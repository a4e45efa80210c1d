"""Which generated images are kept: callables (images, labels) -> keep mask.

A filter is any callable that takes images (N, C, H, W) float in [-1, 1] and labels (N,) int64 and returns
(N,) bool. An `AllOf` names the reasons for which it rejects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from synthaug.core import InputError

__all__ = [
    "AllOf",
    "Density",
    "Filter",
    "LabelAgreement",
    "LikelihoodFloor",
    "PrototypeDistance",
    "Scorer",
    "combine_filters",
    "default_filter",
    "judge_images",
    "likelihood_filter",
]

Filter = Callable[[Tensor, Tensor], Tensor]


class Scorer(Protocol):
    """What the default filter needs of a judge."""

    @property
    def prototypes(self) -> Tensor:
        """(K, F) unit vector of each class."""

    @property
    def radii(self) -> Tensor:
        """(K,) largest distance of unit vectors at which an image still looks like its class."""

    def logits(self, images: Tensor) -> Tensor:
        """Return (N, K) scores."""

    def embed(self, images: Tensor) -> Tensor:
        """Return (N, F) features, of any length."""


@runtime_checkable
class Density(Protocol):
    """What the likelihood filter needs of a judge: a Glow fitted on the same classes is one."""

    @property
    def typical_low(self) -> Tensor:
        """(K,) log density that nearly all real images of each class exceed, in nats."""

    def log_prob(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return log p(image | label) (N,) in nats."""

    def class_log_prob(self, images: Tensor) -> Tensor:
        """Return log p(label | image) (N, K)."""


class LabelAgreement:
    """Keep an image when the first choice of a classifier, or of Bayes' rule, is its label.

    Args:
        predict: images (N, C, H, W) float in [-1, 1] -> logits or log probabilities (N, K).

    References:
        Ravuri, Vinyals: Classification accuracy score for conditional generative models (2019), on why labels
        of conditional samples have to be checked.
    """

    def __init__(self, predict: Callable[[Tensor], Tensor]) -> None:
        self.predict = predict

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (N,) bool."""
        return torch.eq(self.predict(images).argmax(dim=1), labels)


class PrototypeDistance:
    r"""Keep an image whose embedding is near the prototype of its class.

    .. math:: d = \left\| \frac{e(x)}{\|e(x)\|} - \frac{p_y}{\|p_y\|} \right\|
              = \sqrt{2 - 2 \cos(e(x), p_y)} \le r_y

    Args:
        embed: images (N, C, H, W) float in [-1, 1] -> features (N, F).
        prototypes: (K, F) one prototype a class.
        radii: (K,) largest distance of the two unit vectors, in [0, 2].

    Raises:
        InputError: If the shapes do not fit.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], prototypes: Tensor, radii: Tensor) -> None:
        if prototypes.ndim != 2 or radii.shape != prototypes.shape[:1]:
            raise InputError(
                f"prototypes {tuple(prototypes.shape)} and radii {tuple(radii.shape)} do not fit; give (K, F) and (K,)"
            )
        self.embed, self.prototypes, self.radii = embed, functional.normalize(prototypes, dim=1), radii

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (N,) bool."""
        features = functional.normalize(self.embed(images), dim=1)
        distance = torch.linalg.vector_norm(features - self.prototypes[labels], dim=1)
        return torch.le(distance, self.radii[labels])


class LikelihoodFloor:
    r"""Keep an image that is at least as likely as the unlikeliest real ones of its class.

    .. math:: \log p(x \mid y) \ge f_y

    There is no ceiling: synthetic images have less noise than real ones and are rightly found likelier.

    Args:
        log_prob: images (N, C, H, W) float in [-1, 1], labels (N,) -> log density (N,) in nats.
        floors: (K,) f, in nats.
    """

    def __init__(self, log_prob: Callable[[Tensor, Tensor], Tensor], floors: Tensor) -> None:
        self.log_prob, self.floors = log_prob, floors

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (N,) bool."""
        return torch.ge(self.log_prob(images, labels), self.floors[labels])


class AllOf:
    """Keep what every one of several filters keeps.

    Args:
        filters: Name (it is the reason in the acceptance rates) -> filter.
    """

    def __init__(self, filters: Mapping[str, Filter]) -> None:
        self.filters = dict(filters)

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return (N,) bool."""
        keep = torch.ones(len(images), dtype=torch.bool, device=images.device)
        for verdict in self.verdicts(images, labels).values():
            keep &= verdict
        return keep

    def verdicts(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the (N,) bool of each filter by name."""
        return {name: check(images, labels) for name, check in self.filters.items()}


def default_filter(judge: Scorer) -> AllOf:
    """Return the filter that keeps what the judge takes for its label and finds typical of it.

    Args:
        judge: The run's judge; it never saw validation or test rows.
    """
    nearness = PrototypeDistance(judge.embed, judge.prototypes, judge.radii)
    return AllOf({"label": LabelAgreement(judge.logits), "distance": nearness})


def likelihood_filter(judge: Density) -> AllOf:
    """Return the filter that keeps what Bayes' rule gives its label and what is likely enough for its class.

    Args:
        judge: A density fitted on real rows of these classes; it may judge the samples of any family.
    """
    floor = LikelihoodFloor(judge.log_prob, judge.typical_low)
    return AllOf({"posterior": LabelAgreement(judge.class_log_prob), "likelihood": floor})


def combine_filters(first: Filter | None, second: Filter | None) -> Filter | None:
    """Return the filter that keeps what both keep; None keeps everything. Reasons keep their names."""
    if first is None or second is None:
        return second if first is None else first
    parts = [check.filters if isinstance(check, AllOf) else {"filter": check} for check in (first, second)]
    return AllOf({**parts[0], **parts[1]})


@torch.no_grad()
def judge_images(check: Filter | None, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return which images a filter keeps and, by reason, which it rejects (each for its first reason only).

    Args:
        check: A filter, or None to keep everything.
        images: (N, C, H, W) float in [-1, 1].
        labels: (N,) int64.

    Returns:
        (N,) bool, and reason -> (N,) bool; the masks are disjoint and cover everything.

    Raises:
        InputError: If the filter does not return (N,) bool.
    """
    keep = torch.ones(len(images), dtype=torch.bool)
    if check is None:
        return keep, {}
    if isinstance(check, AllOf):
        verdicts = check.verdicts(images, labels)
    else:
        verdicts = {"filter": check(images, labels)}
    rejected: dict[str, Tensor] = {}
    for name, verdict in verdicts.items():
        if not isinstance(verdict, Tensor) or verdict.dtype != torch.bool or verdict.shape != (len(images),):
            raise InputError(f"the filter {name!r} must return a bool tensor of shape ({len(images)},)")
        verdict = verdict.cpu()
        rejected[name] = keep & ~verdict
        keep = keep & verdict
    return keep, rejected
