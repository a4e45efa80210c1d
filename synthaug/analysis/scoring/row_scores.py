"""The figures that each row gets: likelihood, reconstruction, class posterior, and how suspicious they make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, Features, Value
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import rankdata

from synthaug.analysis.scoring.densities import bits_per_dim, class_densities, reconstruction_errors
from synthaug.analysis.scoring.suspicion import (
    combine_surprises,
    label_odds,
    marginal_density,
    outlier_figures,
    weigh_experts,
)
from synthaug.classifiers import Judge
from synthaug.core import InputError
from synthaug.data import Columns, DatasetRows, class_values, to_tensor
from synthaug.generators import ConditionalGenerator

__all__ = ["SCORE_COLUMNS", "RowScores", "ScoredRows", "measure_rows", "scored_features"]

Floats = NDArray[np.float64]

SCORE_COLUMNS = ("log_likelihood", "bits_per_dim", "reconstruction_error", "label_probability", "predicted_label",
                 "outlier_score", "wrong_label_score")  # fmt: skip
"""Columns that are added to a row."""

_BATCH = 512


@dataclass(frozen=True)
class RowScores:
    """What is known about N rows.

    Args:
        log_likelihood: (N,) nats, under the given label; under all classes in equal parts where there is none.
        bits_per_dim: (N,) the same as bits per 8-bit value.
        reconstruction_error: (N,) mean squared error in [-1, 1] units; None where the family has none.
        label_probability: (N,) posterior probability of the given label, nan where there is none.
        predicted: (N,) int64, the class under which the image is likeliest.
        outlier: (N,) share of the rows that are at most as suspicious of being foreign, in (0, 1].
        wrong_label: (N,) share of the labelled rows whose label is at most as suspicious; nan without label.
        weights: Of generator and judge in `wrong_label`.
        figures: "outlier" and "wrong_label" -> what went into the rank, and what it could have been instead:
            name -> (N,), higher for more suspicious; nan where there is no label.
    """

    log_likelihood: Floats
    bits_per_dim: Floats
    reconstruction_error: Floats | None
    label_probability: Floats
    predicted: NDArray[np.int64]
    outlier: Floats
    wrong_label: Floats
    weights: tuple[float, float]
    figures: dict[str, dict[str, Floats]]

    def table(self, features: Features, columns: Columns, class_names: list[str]) -> pa.Table:
        """Return the columns `SCORE_COLUMNS`; nan becomes null.

        Args:
            features: Those of the dataset.
            columns: Its columns; `predicted_label` takes the values of the label column, and is null where that
                cannot hold the class.
            class_names: The classes that `predicted` counts.
        """
        names = [_value_or_null(features, columns, name) for name in class_names]
        errors = self.reconstruction_error
        figures: dict[str, Any] = {
            "log_likelihood": self.log_likelihood,
            "bits_per_dim": self.bits_per_dim,
            "reconstruction_error": np.full(len(self.predicted), np.nan) if errors is None else errors,
            "label_probability": self.label_probability,
            "outlier_score": self.outlier,
            "wrong_label_score": self.wrong_label,
        }
        arrays = {name: pa.array(values, pa.float64(), mask=np.isnan(values)) for name, values in figures.items()}
        kind = Features({"label": features[columns.label]}).arrow_schema.field(0).type
        arrays["predicted_label"] = pa.array([names[k] for k in self.predicted.tolist()]).cast(kind)
        return pa.table({name: arrays[name] for name in SCORE_COLUMNS})


def _value_or_null(features: Features, columns: Columns, class_name: str) -> int | str | bool | None:
    """Return the value that stands for a class in the label column, if the column can hold it."""
    try:
        return class_values(features, columns, class_name)[columns.label]
    except InputError:
        return None


def measure_rows(
    generator: ConditionalGenerator,
    judge: Judge,
    pixels: NDArray[np.uint8],
    labels: NDArray[np.int64],
    learnt: NDArray[np.bool_],
) -> RowScores:
    """Return the figures of rows.

    Args:
        generator: A family with `log_prob` or `elbo`.
        judge: That of its run.
        pixels: (N, H, W, C) uint8, made by the run's codec.
        labels: (N,) int64, -1 where there is no label.
        learnt: (N,) bool, rows that the fit has learnt from.

    Raises:
        InputError: If the family knows no likelihood.
    """
    densities = class_densities(generator, pixels)
    logits, distances = _ask_judge(judge, pixels)
    known, predicted, marginals = labels >= 0, densities.argmax(axis=1), marginal_density(densities)
    errors = reconstruction_errors(generator, pixels, np.where(known, labels, predicted))
    members = outlier_figures(marginals, errors, distances)
    unnamed = np.full(len(labels), np.nan)
    log_likelihood, probability, suspicion = marginals.copy(), unnamed.copy(), unnamed.copy()
    mislabelled = {"generator": unnamed.copy(), "judge": unnamed.copy()}
    weights = (0.0, 1.0)
    if known.any():
        own, given, rows = densities[known], labels[known], np.arange(int(known.sum()))
        log_likelihood[known] = own[rows, given]
        probability[known] = np.exp(log_softmax(own, axis=1)[rows, given])
        mislabelled["generator"][known] = label_odds(own, given)
        mislabelled["judge"][known] = label_odds(logits[known], given)
        weights = weigh_experts(own, logits[known], given, ~learnt[known])
        suspicion[known] = _ranks(label_odds(weights[0] * own + weights[1] * logits[known], given))
    return RowScores(
        log_likelihood=log_likelihood,
        bits_per_dim=bits_per_dim(log_likelihood, int(np.prod(pixels.shape[1:]))),
        reconstruction_error=errors,
        label_probability=probability,
        predicted=predicted,
        outlier=_ranks(combine_surprises(members)),
        wrong_label=suspicion,
        weights=weights,
        figures={"outlier": {"low likelihood": -marginals, **members}, "wrong_label": mislabelled},
    )


def _ranks(values: Floats) -> Floats:
    ranks: Floats = rankdata(values) / max(len(values), 1)
    return ranks


@torch.no_grad()
def _ask_judge(judge: Judge, pixels: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Return the judge's logits (N, K) and the distances (N, K) to its prototypes in units of their radii."""
    logits, distances = [], []
    for start in range(0, len(pixels), _BATCH):
        images = to_tensor(pixels[start : start + _BATCH])
        logits.append(judge.logits(images).double().numpy())
        distances.append((torch.cdist(judge.embed(images), judge.prototypes) / judge.radii).double().numpy())
    return np.concatenate(logits), np.concatenate(distances)


def scored_features(features: Features, label_column: str) -> Features:
    """Return the features of a dataset with the score columns behind them.

    Raises:
        InputError: If a column of such a name is there.
    """
    if taken := [name for name in SCORE_COLUMNS if name in features]:
        raise InputError(f"the dataset has its own column {taken[0]!r}, a name that score writes; rename or drop it")
    kinds = {name: Value("float64") for name in SCORE_COLUMNS} | {"predicted_label": features[label_column]}
    return Features({**features, **kinds})


class ScoredRows:
    """The rows of a dataset with their scores behind them, as a stream into a folder.

    Args:
        dataset: The rows scored, no others.
        scores: The score columns, one row for each.
        features: Of both together.
    """

    def __init__(self, dataset: Dataset, scores: pa.Table, features: Features) -> None:
        self._rows, self._scores = DatasetRows(dataset, dataset.features), scores
        self._schema = features.arrow_schema

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return self._rows.num_rows

    def state(self) -> dict[str, Any]:
        """Return the number of the next row."""
        return self._rows.state()

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on at a row."""
        self._rows.seek(state)

    def read(self, count: int) -> Iterator[pa.Table]:
        """Yield the next `count` rows as tables of the output schema."""
        start = int(self.state()["row"])
        for table in self._rows.read(count):
            scores = self._scores.slice(start, len(table))
            start += len(table)
            columns = [*table.columns, *(column.combine_chunks() for column in scores.columns)]
            yield pa.Table.from_arrays(columns, schema=self._schema)
