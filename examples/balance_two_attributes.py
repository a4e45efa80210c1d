"""Balance a spurious attribute: coloured digits whose colour follows the label in training and not in the test.

In training, 95 of 100 images of a class have the colour of that class. So a classifier may learn the colour instead of
the shape. In the test set any digit has any colour. The joint groups (label, colour) are the classes of the generator
and of the plan, and the missing images of the rare groups are generated. The classifier predicts the label. The report
compares its worst group for three methods: real images, oversampled groups, and oversampled groups in which synthetic
images of the same group replace a share of the real ones.

python examples/balance_two_attributes.py --output runs/coloured            # scikit-learn's digits, a small example
python examples/balance_two_attributes.py --data mnist-train.parquet --test mnist-test.parquet --per-class 500 \
    --images 600k --output runs/coloured-mnist
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

import synthaug

GROUP_BY = ["label", "colour"]
PAINTS = {"red": (255, 60, 60), "green": (60, 220, 60), "blue": (90, 90, 255), "yellow": (230, 220, 40)}
ARMS = ("real", "oversampled", "oversampled+synthetic")


def choose_colours(labels: np.ndarray, colours: int, share: float, seed: int) -> np.ndarray:
    """Return a colour for each label: with probability `share` that of its class, otherwise another one."""
    rng = np.random.default_rng(seed)
    others = (labels + rng.integers(1, colours, len(labels))) % colours
    return np.where(rng.random(len(labels)) < share, labels % colours, others)


def colour_rows(rows: Dataset, *, colours: int, share: float, seed: int) -> Dataset:
    """Return the digits in colour, with the columns image, label and colour."""
    labels, names = np.array(rows["label"][:]), list(PAINTS)[:colours]
    chosen = choose_colours(labels, colours, share, seed)
    pictures = []
    for image, colour in zip(rows["image"], chosen, strict=True):
        grey = np.asarray(image.convert("L"), dtype=np.float32)[..., None] / 255
        buffer = io.BytesIO()
        Picture.fromarray((grey * np.array(PAINTS[names[colour]])).astype(np.uint8)).save(buffer, format="PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    features = {"image": Image(), "label": ClassLabel(names=[str(n) for n in range(10)])}
    features["colour"] = ClassLabel(names=names)
    columns = {"image": pictures, "label": labels.tolist(), "colour": chosen.tolist()}
    return Dataset.from_dict(columns, features=Features(features))


def take(rows: Dataset, per_class: int | None, classes: int, seed: int) -> Dataset:
    """Return `per_class` rows of each of the first classes, chosen by the seed."""
    labels, rng = np.array(rows["label"][:]), np.random.default_rng(seed)
    parts = [rng.permutation(np.flatnonzero(labels == label))[:per_class] for label in range(classes)]
    return rows.select(np.sort(np.concatenate(parts)))


def count_groups(rows: Dataset) -> Counter[tuple[int, int]]:
    """Return the number of rows of each pair of label and colour."""
    return Counter(zip(rows["label"][:], rows["colour"][:], strict=True))


def describe(report: synthaug.Report) -> str:
    """Return the worst group of each method, and the paired difference."""
    joint = report.joint
    lines = ["| method | balanced accuracy | worst group | gap to the best group |", "|---|---:|---:|---:|"]
    for arm, worst in zip(report.arms, joint["arms"], strict=True):
        numbers = (arm["balanced_accuracy"], worst["worst"], worst["gap"])
        lines.append(f"| {arm['name']} | " + " | ".join(f"{100 * number:.2f} %" for number in numbers) + " |")
    return "\n".join([*lines, "", report.worst_groups])


def main(
    output: str | Path,
    *,
    data: str | None = None,
    test: str | None = None,
    per_class: int | None = None,
    test_per_class: int | None = None,
    classes: int = 10,
    colours: int = 2,
    share: float = 0.95,
    family: str = "cvae",
    images: int | str = "40k",
    seeds: int = 5,
    steps: int | None = None,
    arms: tuple[str, ...] | list[str] = ARMS,
    filter: str = "default",
    folds: int | None = None,
    seed: int = 0,
    num_processes: int | None = None,
) -> synthaug.Report | None:
    """Colour the digits, fit, generate the missing groups and benchmark; return the report.

    With `folds`, `recommend` uses the training rows to decide what to generate and at which share to mix it in. Then
    the benchmark compares only this method with those of `arms` that need no synthetic images. The result is None if
    `recommend` advises to generate nothing.
    """
    output = Path(output)
    train = synthaug.open_dataset(data or "digits", "train")
    judging = synthaug.open_dataset(test or "digits", "train" if test else "test")
    real = colour_rows(take(train, per_class, classes, seed), colours=colours, share=share, seed=seed)
    held = colour_rows(take(judging, test_per_class, classes, seed), colours=colours, share=1 / colours, seed=seed + 1)
    groups = {"label_column": "label", "group_by": GROUP_BY}
    run, target, drawing = output / "run", "majority", {"filter": filter}
    if folds:
        advice = synthaug.recommend(
            real, output=output / "advice", families=[family], images=images, folds=folds, num_processes=num_processes,
            arms=[arm for arm in arms if "synthetic" not in arm], **groups,
        )  # fmt: skip
        print(advice.table, advice.sentence, sep="\n\n")
        if advice.recommended is None:
            return None
        run = output / "advice" / advice.run
        arms = [*(arm for arm in arms if "synthetic" not in arm), advice.arm]
        drawing = dict(advice.recipe["generate"])
        target = drawing.pop("balance")
        generator = synthaug.load_generator(run)
    else:
        generator = synthaug.fit(real, family, output=run, images=images, **groups)
    plan = synthaug.plan_balance(real, target, **groups)
    balanced = synthaug.generate(generator, plan, output=output / "dataset", mix_with=real, **drawing)
    before, after = plan.real.values(), count_groups(balanced).values()
    print(f"{len(real)} real rows in {len(before)} groups of {min(before)} to {max(before)} rows")
    print(f"{plan.num_missing} generated; then {len(after)} groups of {min(after)} to {max(after)} rows")
    report = synthaug.benchmark(
        real, balanced, test=held, arms=list(arms), seeds=seeds, steps=steps, output=output / "report",
        source=json.loads((run / "source.json").read_text()), num_processes=num_processes, **groups,
    )  # fmt: skip
    print(describe(report))
    return report


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True)
    parser.add_argument("--data", help="Parquet file with the columns image and label")
    parser.add_argument("--test", help="the same, with the test images")
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--test-per-class", type=int)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--colours", type=int, default=2, choices=(2, 3, 4))
    parser.add_argument("--share", type=float, default=0.95, help="share of a class in its own colour in training")
    parser.add_argument("--family", default="cvae")
    parser.add_argument("--images", default="40k")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--arms", default=",".join(ARMS), type=lambda text: text.split(","))
    parser.add_argument("--filter", default="default", choices=("default", "none"))
    parser.add_argument("--folds", type=int, help="let `recommend` decide, with this number of folds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images and their colours")
    parser.add_argument("--num-processes", type=int)
    main(**vars(parser.parse_args()))
