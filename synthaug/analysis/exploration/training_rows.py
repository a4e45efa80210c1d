"""The rows a run was fitted on, found again by their pixel hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from synthaug.core import InputError
from synthaug.data import Codec, LabeledImages, load_images, run_hashes

__all__ = ["find_training_rows"]


def find_training_rows(real: Dataset, source: Mapping[str, Any]) -> LabeledImages:
    """Return those rows of a dataset that the fit has learnt from, read with the run's codec.

    Args:
        real: The dataset the run was fitted on, or one that holds its rows.
        source: Content of the run's source.json.

    Raises:
        InputError: If none of its rows is among them.
    """
    images = load_images(
        real,
        image_column=source["image_column"] if source["image_column"] in real.column_names else None,
        label_column=source["label_column"] if source["label_column"] in real.column_names else None,
        group_by=source.get("group_by"),
        codec=Codec.from_dict(source["codec"]),
        class_names=source["class_names"],
        on_bad_image="skip",
    )
    known = (run_hashes(source) or {}).get("train", [])
    found = np.flatnonzero(np.isin(images.hashes, np.array(known, dtype=str)))
    if not len(found):
        raise InputError(
            f"none of {len(images)} rows is among the {len(known)} training rows of the run; "
            "give the dataset it was fitted on, with split= where it has several"
        )
    return images.take(found)
