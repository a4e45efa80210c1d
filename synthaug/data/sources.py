"""What a DATASET given as a string stands for: `digits`, a folder, Parquet files or a Hub id."""

from __future__ import annotations

import glob
import io
import os
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage

from synthaug.core import InputError, suggest
from synthaug.data.columns import as_image_columns, label_value, read_split_column
from synthaug.data.confinement import confine, describe_special
from synthaug.data.layouts import check_cache, open_folder, open_glob, open_parquet, quiet_datasets
from synthaug.data.notices import add_notices
from synthaug.data.split_names import own_names

__all__ = ["open_dataset", "open_splits", "open_test", "pick_split", "pick_test"]

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.-]+))?")
_KINDS = "'digits', a folder, a Parquet file or glob, or a Hub id user/name[:config]"


def open_splits(spec: str) -> dict[str, Dataset]:
    """Return every split of a DATASET.

    Args:
        spec: "digits" (scikit-learn's, split 70/30); a folder made by `save_to_disk`, of Parquet files in Hub
            layout, or with one folder of images per class (in split folders or not); a Parquet file or glob;
            a Hub id "user/name" or "user/name:config". Rows may name files inside the folder only. A column such as
            `split`, whose values are names of splits, divides the rows.

    Raises:
        InputError: It is none of these, cannot be read or can be read in two ways, or a row names a file outside the
            folder.

    Example:
        >>> {name: len(split) for name, split in open_splits("digits").items()}
        {'train': 1257, 'test': 540}
    """
    return _divide(_open(spec), spec)


def _open(spec: str) -> dict[str, Dataset]:
    if spec == "digits":
        return _open_digits()
    if not spec:
        raise InputError(f"the name of the dataset is empty; give {_KINDS}")
    try:
        path = Path(spec).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a NUL byte
        raise InputError(f"{spec!r} is not a usable path ({error}); give {_KINDS}") from error
    if is_folder:
        return open_folder(path)
    if is_file:
        if path.suffix.lower() != ".parquet":
            raise InputError(f"{spec!r} is not a Parquet file; give {_KINDS}")
        return open_parquet(path)
    if kind := describe_special(path) if os.path.lexists(path) else None:
        raise InputError(f"{spec!r} is {kind}; give {_KINDS}")
    if glob.has_magic(spec):
        return open_glob(str(path))
    hub_id = _HUB_ID.fullmatch(spec)
    if hub_id and path.suffix.lower() != ".parquet":
        return _open_hub(spec, hub_id[1], hub_id[2])
    raise InputError(f"no such file or folder: {spec!r}; give {_KINDS}")


def _divide(splits: dict[str, Dataset], spec: str) -> dict[str, Dataset]:
    """Return the splits that a column of the rows names, where there is one and it names several.

    Raises:
        InputError: It names several in one of several splits.
    """
    for name, rows in splits.items():
        for column in rows.features:
            named = read_split_column(rows, column)
            if len(set(named.values())) < 2:
                continue
            if len(splits) > 1:
                raise InputError(
                    f"the split {name!r} of {spec!r} has rows of several splits in its column {column!r} "
                    f"({', '.join(map(repr, sorted(named)))}); leave the column out, or give one of the files"
                )
            called = own_names(sorted({(value.lower(), split) for value, split in named.items()}))
            split_of = {label_value(rows.features, column, value): called[value.lower()] for value in named}
            found = np.array([split_of[value] for value in rows[column][:]])
            parts = {split: rows.select(np.flatnonzero(found == split)) for split in called.values()}
            return add_notices(parts, [f"the column {column!r} says which split a row belongs to"])
    return splits


def pick_split(splits: dict[str, Dataset], split: str | None, spec: str) -> Dataset:
    """Return the split of that name, or the only one where `split` is None.

    Raises:
        InputError: There is no such split, or several and none is named.
    """
    there = ", ".join(map(repr, splits)) or "none"
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split is None:
        raise InputError(f"{spec!r} has the splits {there}; name one")
    if split not in splits:
        raise InputError(
            f"{spec!r} has no split {split!r}; there are {there}{suggest(split, splits)}; name one of these"
        )
    return splits[split]


def open_dataset(spec: str, split: str | None = "train") -> Dataset:
    """Return one split of a DATASET (see `open_splits`); None takes the only one.

    Raises:
        InputError: The DATASET cannot be read or has no such split.
    """
    return pick_split(open_splits(spec), split, spec)


def open_test(spec: str, split: str | None = None) -> Dataset:
    """Return the test rows of a DATASET: the split named, else `test`, else its only one.

    Raises:
        InputError: The DATASET cannot be read, has no such split, or several and none is `test`.
    """
    return pick_test(open_splits(spec), split, spec)


def pick_test(splits: dict[str, Dataset], split: str | None, spec: str) -> Dataset:
    """Return the test rows of these splits, as `open_test` does.

    Raises:
        InputError: There is no such split, or several and none is `test`.
    """
    return pick_split(splits, "test" if split is None and "test" in splits else split, spec)


def _open_digits() -> dict[str, Dataset]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    rows = np.arange(len(pixels))
    train, test = train_test_split(rows, test_size=0.3, random_state=0, stratify=digits.target)
    return {"train": _digits(pixels, digits.target, train), "test": _digits(pixels, digits.target, test)}


def _digits(pixels: Any, labels: Any, rows: Any) -> Dataset:
    features = Features({"image": Image(), "label": ClassLabel(names=[str(number) for number in range(10)])})
    data = pa.array([_png(pixels[row]) for row in rows], pa.binary())
    images = pa.StructArray.from_arrays([data, pa.nulls(len(rows), pa.string())], ["bytes", "path"])
    return Dataset(pa.table([images, pa.array(labels[rows], pa.int64())], schema=features.arrow_schema))


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _open_hub(spec: str, repo: str, config: str | None) -> dict[str, Dataset]:
    missing = f"there is no file or folder {spec!r}"
    offline = _hub_is_out_of_reach(repo, missing)
    check_cache()
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or offline  # else a missing network costs half a minute of retries
    try:
        with quiet_datasets():
            loaded = datasets.load_dataset(repo, config)
    except Exception as error:
        if offline:
            raise InputError(
                f"{missing}, and the Hub could not be reached for a dataset of that name; check both"
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{missing}, and the Hub's dataset {spec!r} cannot be loaded ({reason})") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = before
    roots = _hub_folders(repo)
    return {str(name): confine(as_image_columns(split), roots, spec) for name, split in loaded.items()}


def _hub_is_out_of_reach(repo: str, missing: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        HfApi().dataset_info(repo, timeout=10)
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403, 404):
            raise InputError(
                f"{missing}, and the Hub has no dataset of that name that you may read; "
                "check the name, or log in (hf auth login)"
            ) from error
        return status >= 500
    except Exception:  # no network, no name resolution, HF_HUB_OFFLINE: the client raises a dozen kinds
        return True
    return False


def _hub_folders(repo: str) -> list[Path]:
    """Return where `datasets` keeps this repository's own files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    own = Path(HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}"
    return [own, Path(datasets.config.DOWNLOADED_DATASETS_PATH)]
