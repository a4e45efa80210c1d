"""From a folder of images, with few images in some classes, to a balanced dataset folder and a report.

python examples/long_tailed_folder.py --data my-images --output runs/folder

`my-images` has the folders train/ and test/ with one folder of images for each class. If it does not exist, the script
makes it from scikit-learn's digits, long-tailed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import synthaug
from synthaug.data import make_long_tailed
from synthaug.generators import read_source


def write_images(folder: Path, *, imbalance: float = 20) -> None:
    """Write the digits as files, train/<class>/<row>.png long-tailed and test/<class>/<row>.png as they are."""
    splits = synthaug.open_splits("digits")
    splits["train"] = make_long_tailed(splits["train"], "label", imbalance)
    for split, rows in splits.items():
        names = rows.features["label"].names
        for number, row in enumerate(rows):
            path = folder / split / names[row["label"]] / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            row["image"].save(path)


def main(
    data: Path,
    output: Path,
    *,
    family: str = "cvae",
    images: str | int = "200k",
    seeds: int = 5,
    steps: int | None = None,
    filter: str = "default",
    num_processes: int | None = None,
) -> synthaug.Report:
    """Fit, write the balanced dataset folder and benchmark.

    Args:
        data: Folder with train/ and test/.
        output: Will hold run/, dataset/ and report/.
        family: "cvae", "cgan" or "glow".
        images: Length of the fit, in images seen.
        seeds: Paired seeds of the benchmark; with fewer than 5 the verdict is always "no clear change".
        steps: Optimiser steps of every method; follows from the number of rows when None.
        filter: "default" or "none".
        num_processes: Worker processes of the benchmark; all cores when None.
    """
    if not data.exists():
        write_images(data)
    print(synthaug.inspect_dataset(str(data)).table())
    real, test = (synthaug.open_dataset(str(data), split) for split in ("train", "test"))

    generator = synthaug.fit(real, family, output=output / "run", images=images)
    plan = synthaug.plan_balance(real, "majority")

    # `output` makes a dataset folder for datasets.load_dataset and for push;
    # with `mix_with` the real rows come first, and `other_splits` stay unchanged
    mixed = synthaug.generate(
        generator, plan, filter=filter, output=output / "dataset", mix_with=real, other_splits={"test": test}
    )

    # from a mixed dataset the benchmark takes the rows marked synthetic; `source` has the run's row hashes, so that
    # leaks can be checked; without it the report says "not checked"
    report = synthaug.benchmark(
        real,
        mixed,
        test=test,
        seeds=seeds,
        steps=steps,
        source=read_source(output / "run"),
        output=output / "report",
        num_processes=num_processes,
    )
    print(report.table)
    print(report.sentence)
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/folder-of-digits"))
    parser.add_argument("--output", type=Path, default=Path("runs/folder"))
    parser.add_argument("--family", default="cvae")
    parser.add_argument("--images", default="200k")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    main(given.data, given.output, family=given.family, images=given.images, seeds=given.seeds)
