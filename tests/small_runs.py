"""Runs for tests of what comes after a fit: every family on the same few rows, in seconds."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from unittest import mock

import torch
from datasets import Dataset

import synthaug
from synthaug.balance import per_class_plan
from synthaug.classifiers import fit_judge, load_judge, save_judge
from synthaug.data import to_tensor
from synthaug.generators import save_generator
from synthaug.training import completion

SIZES = {"glow": {"dense_steps": 2, "dense_width": 16}, "cgan": {"width": 16}}


def make_runs(rows: Dataset, folder: Path, *, images: int) -> None:
    """Fit folder/cvae on the rows, and put folder/glow (initialised) and folder/cgan (untrained) beside it.

    Both take source.json and the judge from the first.
    """
    recipe = {
        "dataset": {"path": "digits", "label_column": "label"},
        "generator": {"family": "cvae", "width": 8, "latent_dim": 4, "sampling": "prior"},
        "fit": {"images": images},
    }
    with mock.patch.object(completion, "fit_judge", functools.partial(fit_judge, steps=60)):
        synthaug.fit(rows, "cvae", output=folder / "cvae", recipe=recipe)
    read = synthaug.load_images(rows, label_column="label")
    config = {"class_names": list(read.class_names), "image_size": 8, "channels": 1}
    for name, size in SIZES.items():
        generator = synthaug.GENERATORS[name](**config, **size)
        generator.initialize(to_tensor(read.pixels), torch.from_numpy(read.labels))
        (folder / name).mkdir()
        shutil.copy(folder / "cvae" / "source.json", folder / name)
        save_judge(folder / name, load_judge(folder / "cvae"))
        save_generator(folder / name, generator, {**config, **size})


def make_run_and_rows(folder: Path) -> dict[str, Path]:
    """Fit folder/cvae on the digits, generate from it without a filter, and return both folders by name."""
    make_runs(synthaug.open_dataset("digits"), folder, images=640)
    generator = synthaug.load_generator(folder / "cvae")
    plan = per_class_plan(dict.fromkeys(generator.class_names, 0), 20)
    synthaug.generate(generator, plan, filter="none", output=folder / "rows")
    return {"run": folder / "cvae", "rows": folder / "rows"}
