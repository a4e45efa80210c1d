"""Labelled images for tests, drawn in memory."""

from __future__ import annotations

import io

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from tests.toys import NAMES


def png(value: int, size=(8, 8), format="PNG") -> bytes:
    buffer = io.BytesIO()
    Picture.fromarray((np.indices(size).sum(0) * 3 + value).astype(np.uint8)).save(buffer, format=format)
    return buffer.getvalue()


def make_real(counts=(5, 3, 1), *, extra=True, names=NAMES) -> Dataset:
    """Real rows, classes interleaved; some are JPEG files, some unlabelled if counts has one more entry."""
    labels = [label for k in range(max(counts)) for label, n in enumerate(counts) if k < n]
    labels = [-1 if label == len(names) else label for label in labels]
    files = [png(i, format="JPEG" if i % 3 == 2 else "PNG") for i in range(len(labels))]
    rows = {"image": [{"bytes": f, "path": f"img{i}.png"} for i, f in enumerate(files)], "label": labels}
    features = {"image": Image(), "label": ClassLabel(names=list(names))}
    if extra:
        rows["age"] = [None if i == 1 else i for i in range(len(labels))]
        features["age"] = Value("int32")
    return Dataset.from_dict(rows, features=Features(features))


def stored(dataset: Dataset, column: str) -> list:
    """Values as they are stored, images undecoded."""
    return dataset.with_format("arrow")[:][column].to_pylist()
