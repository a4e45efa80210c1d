"""Folders that version 0.1.0 left, in tests/fixtures: they are loaded, found finished, and gone on with."""

import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Image, Value, load_dataset
from PIL import Image as PillowImage
from safetensors.torch import load_file

import synthaug
from synthaug.cli import main

FIXTURES = Path(__file__).parent / "fixtures"
FIT = ("fit", "real", "--generator", "cvae", "--images", "6400", "--set", "fit.save_every=1600", "--set",
       "generator.width=4", "--set", "generator.latent_dim=4")  # fmt: skip
GENERATE = ("generate", "run", "--per-class", "2", "--mix-with", "real", "--limit-per-class", "4")
UNFINISHED = ("generate", "run", "--per-class", "6", "--seed", "1")
BENCHMARK = ("benchmark", "--real", "real", "--test", "real", "--arms", "real,real+synthetic", "--seeds", "2",
             "--steps", "2", "--num-processes", "1", "--output", "report")  # fmt: skip
EVALUATE = ("evaluate", "run", "--test", "real", "--per-class", "4", "--seeds", "1")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A copy of the fixtures, which is the working directory."""
    monkeypatch.chdir(shutil.copytree(FIXTURES, tmp_path / "fixtures"))
    return tmp_path / "fixtures"


@pytest.fixture
def command(folders, monkeypatch, capsys):
    """Run `synthaug WORDS`; return its exit code, the last line of stdout, and stderr."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the device is among the arguments

    def run(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(words)
        printed = capsys.readouterr()
        return ended.value.code, (printed.out.splitlines() or [""])[-1], printed.err

    return run


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".synthaug")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def read_rows(folder):
    """Rows of the split train as plain values, in order."""
    files = sorted((folder / "data").glob("train-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def read_pixels(row):
    return np.asarray(PillowImage.open(io.BytesIO(row["image"]["bytes"]))).astype(int)


# ------------------------------------------------------------------------------------------------------------ runs


def test_the_run_gives_the_samples_that_it_gave():
    stored = load_file(FIXTURES / "samples.safetensors")
    generator = synthaug.load_generator(FIXTURES / "run")
    assert (generator.family, generator.class_names, generator.image_size) == ("cvae", ["three", "eight"], 8)
    for name, temperature in (("images", 1.0), ("images at 0.5", 0.5)):
        images = generator.sample(stored["labels"], noise=stored["noise"], temperature=temperature)
        torch.testing.assert_close(images, stored[name], rtol=0, atol=1e-4)


def test_the_same_fit_finds_the_run_finished(folders, command):
    before = digests(folders / "run")
    assert command(*FIT, "--output", "run")[:2] == (0, "run")
    assert digests(folders / "run") == before


def test_a_fit_with_other_arguments_names_them(folders, command):
    before = digests(folders / "run")
    code, out, err = command(*FIT, "--seed", "1", "--output", "run")
    assert (code, out) == (2, "") and "fit.seed" in err and "--fresh" in err
    assert digests(folders / "run") == before


def test_an_interrupted_fit_of_that_version_is_refused(folders, command):
    code, out, err = command(*FIT, "--output", "cut")
    assert (code, out) == (2, "") and "not made by synthaug fit; give another folder" in err
    assert digests(folders / "cut") == digests(FIXTURES / "cut")


@pytest.mark.parametrize(("words", "folder"), [(FIT, "run"), (GENERATE, "dataset"), (EVALUATE, "run/evaluation")])
def test_fresh_removes_nothing_of_that_version(words, folder, folders, command):
    code, out, err = command(*words, "--output", folder, "--fresh")
    assert (code, out) == (2, "") and "which --fresh does not remove" in err
    assert digests(folders) == digests(FIXTURES)


# -------------------------------------------------------------------------------------------------- dataset folders


def test_the_dataset_folder_is_read_by_load_dataset(folders):
    splits = load_dataset(str(folders / "dataset"))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "test": 20}
    rows = splits["train"]
    assert rows.column_names == ["image", "label", "synthetic", "provenance"]
    assert isinstance(rows.features["image"], Image) and rows.features["synthetic"] == Value("bool")
    assert rows.features["label"].names == ["three", "eight"]
    assert rows["label"][:] == [0] * 4 + [1] * 4 + [0, 0, 1, 1] and rows["synthetic"][:] == [False] * 8 + [True] * 4
    checkpoint = hashlib.sha256((folders / "run" / "model.safetensors").read_bytes()).hexdigest()
    origins = [{"generator": "cvae@3", "checkpoint": checkpoint, "seed": 0, "draw": draw} for draw in (0, 1, 0, 1)]
    assert rows["provenance"][:] == [None] * 8 + origins


def test_the_same_generation_finds_the_folder_finished(folders, command):
    before = digests(folders / "dataset")
    assert command(*GENERATE, "--output", "dataset")[:2] == (0, "dataset")
    assert digests(folders / "dataset") == before


def test_a_generation_with_other_arguments_names_them(folders, command):
    before = digests(folders / "dataset")
    code, out, err = command(*GENERATE, "--seed", "1", "--output", "dataset")
    assert (code, out) == (2, "") and "seed" in err and "--fresh" in err
    assert digests(folders / "dataset") == before


def test_a_generation_gives_the_rows_that_it_gave(folders, command):
    before = read_rows(folders / "dataset")
    assert command(*GENERATE, "--output", "again")[:2] == (0, "again")
    assert digests(folders / "again").keys() == digests(FIXTURES / "dataset").keys()
    for made, stored in zip(read_rows(folders / "again"), before, strict=True):
        assert {**made, "image": None} == {**stored, "image": None}
        assert np.abs(read_pixels(made) - read_pixels(stored)).max() <= 1  # a level of grey, for other processors
        assert made["synthetic"] or made == stored


def test_a_generation_that_fell_short_goes_on(folders, command):
    kept = pq.read_table(folders / "unfinished" / ".partial" / "pending.parquet").to_pylist()
    assert command(*UNFINISHED, "--output", "unfinished")[:2] == (0, "unfinished")
    rows = read_rows(folders / "unfinished")
    assert len(kept) == 5 and rows[:5] == kept
    assert [row["label"] for row in rows] == [0] * 6 + [1] * 6
    assert not (folders / "unfinished" / ".partial").exists()
    assert command(*UNFINISHED, "--output", "whole")[0] == 0
    assert [{**row, "image": None} for row in read_rows(folders / "whole")] == [{**row, "image": None} for row in rows]


def test_strip_gives_back_the_real_rows_of_the_dataset_folder(command, folders):
    assert command("strip", "dataset", "--output", "bare")[:2] == (0, "bare")
    rows = read_rows(folders / "bare")
    stored = [row for row in read_rows(folders / "dataset") if not row["synthetic"]]
    assert rows == [{"image": row["image"], "label": row["label"]} for row in stored]
    real = pq.read_table(folders / "real" / "train.parquet").to_pylist()
    assert all(row in real for row in rows)


# ---------------------------------------------------------------------------------------------------------- evidence


def test_the_report_and_the_evaluation_are_loaded():
    report = synthaug.Report.load(FIXTURES / "report")
    stored = json.loads((FIXTURES / "report" / "report.json").read_text())
    assert report.verdict == stored["verdict"] == "no clear change"
    assert {arm["name"] for arm in report.arms} == {"real", "real+synthetic"} and len(report.pictures) == 2
    evaluation = synthaug.Evaluation.load(FIXTURES / "run" / "evaluation")
    assert evaluation.copies == json.loads((FIXTURES / "run" / "evaluation" / "evaluation.json").read_text())["copies"]


def test_a_benchmark_takes_rows_from_the_run(folders, command):
    words = [*BENCHMARK[:-1], "again"]
    assert command(*words, "--synthetic", "run")[:2] == (0, "again")
    report = json.loads((folders / "again" / "report.json").read_text())
    assert report["leaks"]["run"] == "clean" and report["verdict"] == "no clear change"
    rows = read_rows(folders / "again" / "synthetic")
    assert [row["label"] for row in rows] == [0] * 20 + [1] * 20 and all(row["synthetic"] for row in rows)


def test_the_run_is_explored_anew(folders, command):
    before = json.loads((folders / "run" / "exploration" / "exploration.json").read_text())
    assert command("explore", "run", "--per-class", "3", "--real", "real", "--output", "seen")[:2] == (0, "seen")
    after = json.loads((folders / "seen" / "exploration.json").read_text())
    assert after["training_rows"] == before["training_rows"] == 32
    assert after["captions"].keys() == before["captions"].keys()
