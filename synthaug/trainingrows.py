"""The rows a run was fitted on, found again by their pixel hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset

from synthaug.codec import Codec
from synthaug.data import LabeledImages, load_images
from synthaug.errors import InputError
from synthaug.leaks import run_hashes
from synthaug.recipe import IN_MEMORY
from synthaug.sources import open_dataset

__all__ = ["find_training_rows", "reopen_training_rows"]


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


def reopen_training_rows(source: Mapping[str, Any]) -> tuple[LabeledImages | None, str]:
    """Return the training rows from where the fit read them, or None and why they are not there.

    Args:
        source: Content of the source.json of a run that lies on this machine.
    """
    spec = str(source["dataset"])
    if spec == IN_MEMORY:
        return None, "the run was fitted on a Dataset object; name its rows with real= to see them"
    try:
        return find_training_rows(open_dataset(spec, source["split"]), source), ""
    except InputError as error:
        return None, f"the training rows were not found ({error}); name them with real="
