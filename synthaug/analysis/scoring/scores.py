"""Scores of rows: a dataset in, the same rows out with likelihoods, class posteriors and suspicions beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Value
from numpy.typing import NDArray

from synthaug.analysis.scoring.densities import name_density
from synthaug.analysis.scoring.row_scores import ScoredRows, measure_rows, scored_features
from synthaug.analysis.scoring.suspects import SUSPECTS, summarize_scores
from synthaug.classifiers import load_judge
from synthaug.core import FailedError, InputError, OutputFolder, StopSignals, __version__, tile_images, write_file
from synthaug.data import (
    Codec,
    Columns,
    Scan,
    choose_columns,
    digest_rows,
    open_splits,
    pick_split,
    read_classes,
    run_hashes,
    scan_images,
)
from synthaug.generation import DATASET_FILES, ShardFolder, read_earlier
from synthaug.generators import ConditionalGenerator, checkpoint_hash, load_generator, read_source
from synthaug.publishing import render_score_card

__all__ = ["Scores", "score"]

_RULE = 1
"""Version of the figures; a folder scored by another one is made anew."""


@dataclass(frozen=True)
class Scores:
    """What a scoring found; every field but `folder` is JSON-friendly.

    Args:
        density: What `log_likelihood` holds: "log-likelihood" (exact) or "ELBO" (a lower bound of it).
        generator: "family@version".
        checkpoint: sha256 of its weights.
        noise_level: Standard deviation of noise that the family added to its training images, in [-1, 1] units;
            densities are those of images with such noise, and take more bits.
        rows: Rows scored.
        unlabelled: How many of them have no label.
        corrupt: [row, reason] of those left out.
        seen: "train" and "validation" -> how many rows the fit had there; {} where it is not known.
        bits: Class name, and "all" -> rows, bits (mean bits per dimension) and interval (95 %).
        weights: Of generator and judge in `wrong_label_score`.
        marks: "outlier" and "wrong_label", where a column marks them -> column, marked, auroc, interval (95 %),
            and single: the AUROC of each single figure.
        suspects: "outlier" and "wrong_label" -> the most suspicious rows: row, label, predicted, bits_per_dim,
            label_probability, score.
        split: Name of the split.
        folder: Where the scored dataset lies.
    """

    density: str
    generator: str
    checkpoint: str
    noise_level: float
    rows: int
    unlabelled: int
    corrupt: list[list[Any]]
    seen: dict[str, int]
    bits: dict[str, dict[str, Any]]
    weights: list[float]
    marks: dict[str, dict[str, Any]]
    suspects: dict[str, list[dict[str, Any]]]
    split: str = "train"
    folder: Path | None = field(default=None, compare=False)

    def describe(self) -> str:
        """Return the figures as a few readable lines."""
        all_rows = self.bits["all"]
        lines = [f"{self.rows:,} rows, {all_rows['bits']:.3f} bits per dimension ({self.density})"]
        for name, mark in self.marks.items():
            low, high = mark["interval"]
            lines.append(
                f"{name}: AUROC {mark['auroc']:.4f} (95 % interval {low:.4f} to {high:.4f}) "
                f"for the {mark['marked']:,} rows that {mark['column']!r} marks"
            )
        return "\n".join(lines)


def score(
    run: str | Path | ConditionalGenerator,
    dataset: str | Dataset,
    *,
    output: str | Path,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    outlier_column: str | None = None,
    wrong_label_column: str | None = None,
    on_bad_image: str = "error",
    fresh: bool = False,
) -> Scores:
    """Write the rows of a dataset with their likelihoods and with ranks of how suspicious they are.

    Rows that the generator was fitted on may be scored too: that is how a training set is cleaned. The same
    call again finds the folder finished.

    Args:
        run: A run folder, the Hub id of one, or a generator loaded from one; its family must know a likelihood.
        dataset: A DATASET or a `datasets.Dataset`, with classes that the run knows. All its rows are scored.
        output: The dataset folder to make.
        split: Split of a DATASET given by name; "train" when None.
        image_column: Found as in the run, else by feature type, when None.
        label_column: The same.
        outlier_column: Boolean or 0/1 column that marks foreign images; `outlier` when None and there is one.
        wrong_label_column: Boolean or 0/1 column that marks wrong labels; `wrong_label` when None.
        on_bad_image: "error" stops at corrupt images, "skip" leaves their rows out.
        fresh: Remove what an earlier call left in `output`.

    Returns:
        The figures over all rows; those of each row are in the folder.

    Raises:
        InputError: For bad input, a family without likelihood, or when `output` was made with other arguments.
    """
    generator = run if isinstance(run, ConditionalGenerator) else load_generator(run, device=_pick_device())
    if generator.run_folder is None:
        raise InputError("the generator is of no run; fit it with an output, or load it with load_generator")
    density, source = name_density(generator), read_source(generator.run_folder)
    name = split or "train"
    data = pick_split(open_splits(dataset), name, dataset) if isinstance(dataset, str) else dataset
    columns = _find_columns(data, source, image_column, label_column)
    marks = _find_marks(data, {"outlier": outlier_column, "wrong_label": wrong_label_column})
    if on_bad_image not in ("error", "skip"):
        raise InputError(f"on_bad_image is {on_bad_image!r}; give 'error' or 'skip'")
    features = scored_features(data.features, columns.label)
    arguments = {
        "checkpoint": checkpoint_hash(generator.run_folder), "rows": digest_rows(data), "split": name,
        "columns": _name_columns(columns), "marks": marks, "on_bad_image": on_bad_image, "rule": _RULE,
    }  # fmt: skip
    target = Path(output)
    with OutputFolder(target, "score", arguments, fresh=fresh, earlier=lambda: read_earlier(target)) as made:
        folder = ShardFolder(target, arguments)
        if not (made.has_finished(*DATASET_FILES, "scores.json") and folder.finished):
            labels = _map_labels(data, columns, generator)
            scan = _scan(data, columns.image, source, on_bad_image)
            judge, seen = load_judge(generator.run_folder), _find_seen(scan, source)
            learnt = seen.get("train", np.zeros(len(scan.rows), dtype=np.bool_))
            figures = measure_rows(generator, judge, scan.pixels, labels[scan.rows], learnt)
            kept = data if len(scan.rows) == len(data) else data.select(scan.rows)
            found = Scores(
                density=density,
                generator=f"{generator.family}@{generator.version}",
                checkpoint=str(arguments["checkpoint"]),
                noise_level=float(getattr(generator, "noise_level", 0.0)),
                seen={part: int(mask.sum()) for part, mask in seen.items()},
                weights=list(figures.weights),
                split=name,
                **summarize_scores(figures, scan, labels[scan.rows], generator.class_names, kept, marks),
            )
            table = figures.table(data.features, columns, generator.class_names)
            _write(folder, ScoredRows(kept, table, features), features, found, scan, columns)
            made.finish()
    return _read_scores(folder.folder)


def _pick_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# ------------------------------------------------------------------------------------------------------- input


def _find_columns(data: Dataset, source: dict[str, Any], image: str | None, label: str | None) -> Columns:
    """Return the columns named, else those of the run where the dataset has them, else those found by type."""
    own = {kind: source[f"{kind}_column"] for kind in ("image", "label")}
    return choose_columns(
        data,
        image or (own["image"] if own["image"] in data.column_names else None),
        label or (own["label"] if own["label"] in data.column_names else None),
        source.get("group_by"),
    )


def _find_marks(data: Dataset, given: dict[str, str | None]) -> dict[str, str]:
    """Return kind of dirt -> the column that marks it."""
    found = {}
    for kind, column in given.items():
        if column is not None and column not in data.column_names:
            there = ", ".join(map(repr, data.column_names))
            raise InputError(f"no column {column!r} to mark {kind} rows; the columns are {there}")
        name = column or kind
        if name not in data.column_names:
            continue
        feature = data.features[name]
        dtype = feature.dtype if isinstance(feature, Value | ClassLabel) else type(feature).__name__
        if dtype == "bool" or (column is not None and dtype.startswith(("int", "uint")) and _is_binary(data, name)):
            found[kind] = name
        elif column is not None:
            raise InputError(f"column {column!r} ({dtype}) marks no {kind} rows; give a boolean or 0/1 column")
    return found


def _is_binary(data: Dataset, name: str) -> bool:
    return set(data.with_format("arrow").unique(name)) <= {0, 1, None}


def _name_columns(columns: Columns) -> dict[str, Any]:
    """Return the columns as they are recorded."""
    named: dict[str, Any] = {"image": columns.image, "label": columns.label}
    return {**named, "groups": list(columns.groups)} if columns.groups else named


def _map_labels(data: Dataset, columns: Columns, generator: ConditionalGenerator) -> NDArray[np.int64]:
    """Return the label of every row as the run counts its classes, -1 where there is none."""
    labels = read_classes(data, columns)
    lookup = np.full(len(labels.names) + 1, -1, dtype=np.int64)
    for index in np.unique(labels.index[labels.index >= 0]):
        name = labels.names[index]
        if name not in generator.class_names:
            known = ", ".join(map(repr, generator.class_names[:20]))
            raise InputError(
                f"row {int(np.flatnonzero(labels.index == index)[0])} has the class {name!r}, which the run does not "
                f"know ({known}); leave such rows out, or fit on data that has the class"
            )
        lookup[index] = generator.class_names.index(name)
    return lookup[labels.index]


def _scan(data: Dataset, column: str, source: dict[str, Any], on_bad_image: str) -> Scan:
    scan = scan_images(data, column, np.arange(len(data)), codec=Codec.from_dict(source["codec"]))
    if scan.corrupt and on_bad_image == "error":
        first = scan.corrupt[0]
        raise InputError(
            f"{len(scan.corrupt)} of {len(data)} images in {column!r} are corrupt (row {first.row}: {first.reason}); "
            "repair them or add on_bad_image='skip'"
        )
    if not len(scan.rows):
        raise InputError("the dataset has no usable image to score; give one with rows")
    return scan


def _find_seen(scan: Scan, source: dict[str, Any]) -> dict[str, NDArray[np.bool_]]:
    """Return "train" and "validation" -> (N,) bool, the rows that the fit had there; {} where it is not known."""
    parts = run_hashes(source) or {}
    return {part: np.isin(scan.hashes, np.array(hashes, dtype=str)) for part, hashes in parts.items()}


# ------------------------------------------------------------------------------------------------------- files


def _write(
    folder: ShardFolder, rows: ScoredRows, features: Features, found: Scores, scan: Scan, columns: Columns
) -> None:
    with StopSignals() as stop:
        try:
            folder.write({found.split: [rows]}, features.arrow_schema, stopped=lambda: stop.received)
            _finish(folder, found, scan, columns)
        except OSError as error:
            where = str(folder.folder)
            raise FailedError(f"cannot write {where!r}: {error}; free space and run it again") from error


def _finish(folder: ShardFolder, found: Scores, scan: Scan, columns: Columns) -> None:
    """Write suspects.png, scores.json, synthaug.json and README.md around the shards, then the manifest."""
    lines = []
    for suspects in found.suspects.values():
        positions = [entry["position"] for entry in suspects]
        images = np.stack([np.array(scan.pixels[i]) for i in positions]) if positions else scan.pixels[:0]
        lines += [images[: SUSPECTS // 2], images[SUSPECTS // 2 :]]
    write_file(folder.folder / "suspects.png", tile_images([line for line in lines if len(line)]))
    content = {key: value for key, value in asdict(found).items() if key != "folder"}
    write_file(folder.folder / "scores.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    record = {
        "synthaug_version": __version__,
        "scored_by": found.checkpoint,
        "generator": found.generator,
        "splits": {found.split: found.rows},
        "image_column": columns.image,
        "label_column": columns.label,
    }
    write_file(folder.folder / "synthaug.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    if not (folder.folder / "README.md").is_file():
        card = render_score_card({**content, "title": folder.folder.name, "synthaug_version": __version__})
        write_file(folder.folder / "README.md", card)
    folder.finish()


def _read_scores(folder: Path) -> Scores:
    return Scores(**json.loads((folder / "scores.json").read_text(encoding="utf-8")), folder=folder)
