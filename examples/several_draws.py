"""Does a gain hold on other subsets? Run all steps on several samples of training rows, and compare the verdicts.

A benchmark is about one set of training rows and one fit. Here each draw takes other rows of a large dataset (a number
per class, or a long tail), fits, generates and benchmarks on the same test rows. More rows of the large dataset serve
the oracle methods. The output folder keeps everything: the same command continues where it was stopped.

python examples/several_draws.py --data train.parquet --test test.parquet --per-class 20 --draws 3 --output runs/draws
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from datasets import Dataset
from scipy.stats import t

import synthaug
from synthaug.balance import benchmark_plan

ORACLE = 1_000
"""Largest number of additional rows of each class."""


def count_kept(counts: np.ndarray, per_class: int | None, imbalance: float | None) -> list[int]:
    """Return the number of training rows of each class; with an imbalance, `per_class` is the largest class."""
    largest = min(per_class or counts.min(), counts.min())
    factor = imbalance or 1.0
    return [round(largest * factor ** (-c / (len(counts) - 1))) for c in range(len(counts))]


def draw_subset(
    data: Dataset, label: str, draw: int, per_class: int | None, imbalance: float | None
) -> tuple[Dataset, Dataset]:
    """Return (training rows, additional rows) of a draw."""
    labels = np.array(data[label])
    kept, further = [], []
    rng = np.random.default_rng([draw, per_class or 7])
    for c, number in enumerate(count_kept(np.bincount(labels), per_class, imbalance)):
        rows = rng.permutation(np.flatnonzero(labels == c))
        kept.append(rows[:number])
        further.append(rows[number : number + ORACLE])
    return data.select(np.sort(np.concatenate(kept))), data.select(np.sort(np.concatenate(further)))


def run_draw(args: argparse.Namespace, data: Dataset, test: Dataset, draw: int) -> synthaug.Report:
    """Fit, generate and benchmark on one draw."""
    folder = Path(args.output) / f"draw-{draw}"
    real, further = draw_subset(data, args.label, draw, args.per_class, args.imbalance)
    sources = {}
    for family in args.families.split(","):
        generator = synthaug.fit(real, family, output=folder / family, images=args.images)
        plan = benchmark_plan(synthaug.plan_balance(real, "majority").real)
        sources[family] = synthaug.generate(generator, plan, output=folder / f"{family}-rows")
    source = json.loads((folder / family / "source.json").read_text())  # all families hold out the same rows
    return synthaug.benchmark(
        real,
        sources if len(sources) > 1 else sources[family],
        test=test,
        oracle=further if args.oracle else None,
        generator=generator if hasattr(generator, "encode") else None,
        source=source,
        arms=args.arms.split(",") if args.arms else None,
        seeds=args.seeds,
        steps=args.steps,
        classifier=args.classifier,
        output=folder / "report",
    )


def describe(reports: list[synthaug.Report]) -> str:
    """Return the draws as a table, and their mean with an interval over draws."""
    lines = ["| draw | best baseline | synthetic method | difference, points | verdict |", "|---:|---|---|---:|---|"]
    for draw, report in enumerate(reports):
        low, high = report.interval or (float("nan"),) * 2
        lines.append(
            f"| {draw} | {report.comparison['opponent']} | {report.comparison['synthetic']} "
            f"| {100 * report.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}) | {report.verdict} |"
        )
    values = 100 * np.array([report.difference for report in reports])
    if len(values) > 1:
        reach = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
        lines.append(f"\nOver {len(values)} draws: {values.mean():+.2f} points, 95 % interval ± {reach:.2f}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the large dataset: any DATASET, split train")
    parser.add_argument("--test", required=True, help="the test rows: any DATASET")
    parser.add_argument("--label", default="label", help="label column")
    parser.add_argument("--per-class", type=int, help="rows of each class; with --imbalance, of the largest class")
    parser.add_argument("--imbalance", type=float, help="largest class divided by smallest class")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--families", default="cvae")
    parser.add_argument("--images", default="100k")
    parser.add_argument("--arms")
    parser.add_argument("--oracle", action="store_true", help="with oracle methods")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--classifier", default="small")
    parser.add_argument("--output", default="runs/draws")
    args = parser.parse_args()
    data = synthaug.open_dataset(args.data, "train")
    test = synthaug.open_splits(args.test)
    test = test.get("test", next(iter(test.values())))
    draws = range(args.first_draw, args.first_draw + args.draws)
    table = describe([run_draw(args, data, test, draw) for draw in draws])
    (Path(args.output) / "draws.md").write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
