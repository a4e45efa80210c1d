"""Find wrong labels and foreign images in a dataset; planted ones show how well it works.

python examples/find_bad_labels.py --output runs/bad-labels
python examples/find_bad_labels.py --data mnist-train.parquet --foreign cifar10-train.parquet --per-class 500 \
    --output runs/bad-mnist --family glow --budget 100s

The dirty dataset has two columns that mark the planted rows. The generator is fitted on all its rows, the planted ones
included, and then scores the same rows. This is how you would clean your own dataset.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture
from sklearn.datasets import load_sample_images

import synthaug
from synthaug.data import Codec
from synthaug.generation import write_dataset


def foreign_pixels(source: str | None, codec: Codec, members: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return foreign images in the dataset's own format.

    Args:
        source: A DATASET: random rows are taken from it. None or "photographs": squares from scikit-learn's two
            photographs. "noise": uniform noise. "flat": one colour per image. "inverted": negatives of members.
        codec: Codec of the dataset that they go into: size and channels.
        members: (N, H, W, C) uint8, the images that they replace; the same number is returned.
        rng: Chooses them.
    """
    count = len(members)
    if source == "noise":
        return rng.integers(0, 256, members.shape, dtype=np.uint8)
    if source == "flat":
        return np.broadcast_to(rng.integers(0, 256, (count, 1, 1, codec.channels), dtype=np.uint8), members.shape)
    if source == "inverted":
        return 255 - members
    if source not in (None, "photographs"):
        rows = synthaug.open_dataset(source, None)
        chosen = rows.select(rng.permutation(len(rows))[:count])
        return np.stack([codec.encode(row["image"]) for row in chosen])
    photographs = [Picture.fromarray(photograph) for photograph in load_sample_images().images]
    images = []
    for number in range(count):
        photograph, side = photographs[number % 2], int(rng.integers(60, 200))
        left, top = rng.integers(0, photograph.width - side), rng.integers(0, photograph.height - side)
        crop = photograph.crop((left, top, left + side, top + side))
        images.append(codec.encode(crop if codec.channels >= 3 else crop.convert("L")))
    return np.stack(images)


def to_png(pixels: np.ndarray) -> dict[str, Any]:
    """Return pixels (H, W, C) as a cell of an image column."""
    buffer = io.BytesIO()
    Picture.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def plant(
    clean: Dataset, *, foreign: str | None, share: float = 0.02, per_class: int | None = None, seed: int = 0
) -> Dataset:
    """Return the rows with a `share` of wrong labels and a `share` of foreign images, both marked.

    Args:
        clean: Labelled images.
        foreign: See `foreign_pixels`.
        share: Fraction of the rows that get a wrong label; the same fraction gets a foreign image.
        per_class: Largest number of rows of each class.
        seed: Chooses the rows, labels and images.

    Returns:
        Columns `image`, `label`, `wrong_label` (bool) and `outlier` (bool).
    """
    images = synthaug.load_images(clean, limit_per_class=per_class)
    rng = np.random.default_rng(seed)
    count, classes = max(1, round(share * len(images))), len(images.class_names)
    wrong, outliers = np.split(rng.permutation(len(images))[: 2 * count], 2)
    pixels, labels = np.array(images.pixels), images.labels.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, classes, count)) % classes
    pixels[outliers] = foreign_pixels(foreign, images.codec, pixels[outliers], rng)
    marks = {name: np.isin(np.arange(len(images)), rows) for name, rows in (("w", wrong), ("o", outliers))}
    columns = {
        "image": [to_png(image) for image in pixels],
        "label": [images.class_names[label] for label in labels],
        "wrong_label": marks["w"],
        "outlier": marks["o"],
    }
    features = {"image": Image(), "label": Value("string"), "wrong_label": Value("bool"), "outlier": Value("bool")}
    return Dataset.from_dict(columns, features=Features(features)).class_encode_column("label")


def main(
    output: Path,
    *,
    data: str = "digits",
    foreign: str | None = None,
    families: Sequence[str] = ("cvae",),
    per_class: int | None = None,
    budget: str | None = None,
    images: str | int | None = None,
    share: float = 0.02,
) -> dict[str, dict[str, float]]:
    """Plant bad rows, fit each family on all rows, score them, and return the AUROC of each kind of bad row.

    Args:
        output: Will hold dirty/ and, for each family, FAMILY/ (the run) and FAMILY-scores/.
        data: A DATASET.
        foreign: See `foreign_pixels`.
        families: Generators to fit. Each must have a likelihood: "cvae" or "glow".
        per_class: Largest number of rows of each class.
        budget: Duration of each fit, or
        images: number of images that it sees.
        share: Fraction of wrong labels, and of foreign images.
    """
    dirty = plant(synthaug.open_dataset(data), foreign=foreign, share=share, per_class=per_class)
    write_dataset(dirty, output / "dirty")  # readable by datasets.load_dataset, and by `synthaug fit` and `score`
    found = {}
    for family in families:
        synthaug.fit(dirty, family, label_column="label", output=output / family, budget=budget, images=images)
        scored = synthaug.score(output / family, dirty, output=output / f"{family}-scores")
        found[family] = {name: mark["auroc"] for name, mark in scored.marks.items()}
        for name, mark in scored.marks.items():
            low, high = mark["interval"]
            print(f"{family}: {name} ({mark['marked']} rows): AUROC {mark['auroc']:.3f} ({low:.3f} to {high:.3f})")
            print("  by single figures:", ", ".join(f"{figure} {area:.3f}" for figure, area in mark["single"].items()))
        print(f"the most suspicious rows: {output / f'{family}-scores' / 'suspects.png'}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--foreign", default=None, help="a DATASET, photographs, noise, flat or inverted")
    parser.add_argument("--output", type=Path, default=Path("runs/bad-labels"))
    parser.add_argument("--family", action="append", dest="families", help="cvae or glow; repeatable")
    parser.add_argument("--per-class", type=int, default=None)
    parser.add_argument("--budget", default=None, help="length of each fit (60s)")
    parser.add_argument("--images", default=None, help="number of images instead; independent of the load")
    given = parser.parse_args()
    main(
        given.output,
        data=given.data,
        foreign=given.foreign,
        families=given.families or ("cvae",),
        per_class=given.per_class,
        budget=given.budget or (None if given.images else "60s"),
        images=given.images,
    )
