"""Scores of rows, on digits into which wrong labels and foreign images were planted."""

import json

import datasets
import numpy as np
import pytest
import torch
from small_runs import make_runs
from test_examples import load_example, small_digits
from toy_rows import make_real, stored

import synthaug
from synthaug.cli import main
from synthaug.codec import to_tensor
from synthaug.export import write_dataset
from synthaug.scoring.densities import class_densities, name_density, reconstruction_errors
from synthaug.scoring.rowscores import SCORE_COLUMNS


@pytest.fixture(scope="module")
def dirty():
    rows = small_digits(per_class=60).cast_column("label", datasets.ClassLabel(names=[str(c) for c in range(10)]))
    planted = load_example("find_bad_labels").plant(rows, foreign=None, share=0.05, seed=3)
    extra = list(range(len(planted)))
    labels = [-1 if row == 5 else label for row, label in enumerate(planted["label"][:])]
    planted = planted.remove_columns("label").add_column("label", labels).add_column("age", extra)
    return planted.cast_column("label", datasets.ClassLabel(names=["0", "1", "2"]))


@pytest.fixture(scope="module")
def runs(dirty, tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    make_runs(dirty, home, images=640)
    return home


@pytest.fixture(scope="module")
def scored(runs, dirty):
    return {name: synthaug.score(runs / name, dirty, output=runs / f"{name}-scores") for name in ("cvae", "glow")}


@pytest.mark.parametrize("family", ["cvae", "glow"])
def test_the_folder_is_the_dataset_with_columns_more(family, scored, dirty):
    folder = scored[family].folder
    loaded = datasets.load_dataset(str(folder), split="train")
    assert loaded.column_names == [*dirty.column_names, *SCORE_COLUMNS]
    assert loaded.features["label"] == dirty.features["label"] == loaded.features["predicted_label"]
    assert [cell["bytes"] for cell in stored(loaded, "image")] == [cell["bytes"] for cell in stored(dirty, "image")]
    for column in ("label", "age", "outlier", "wrong_label"):
        assert loaded[column][:] == dirty[column][:]
    assert loaded["label_probability"][5] is None and loaded["wrong_label_score"][5] is None
    assert loaded["log_likelihood"][5] is not None and loaded["predicted_label"][5] in (0, 1, 2)
    assert all(0 < score <= 1 for score in loaded["outlier_score"][:])
    missing = [value is None for value in loaded["reconstruction_error"][:]]
    assert all(missing) if family == "glow" else not any(missing)
    dimensions, row = 64, loaded[0]
    bits = -(row["log_likelihood"] + dimensions * np.log(2 / 255)) / (dimensions * np.log(2))
    assert row["bits_per_dim"] == pytest.approx(bits)


@pytest.mark.parametrize("family", ["cvae", "glow"])
def test_what_was_planted_is_found(family, scored):
    """Even after a few steps; the generator and the judge were fitted on the dirty rows themselves."""
    found = scored[family]
    assert found.marks["outlier"]["marked"] == 9 and found.marks["outlier"]["auroc"] > 0.9
    assert found.marks["wrong_label"]["marked"] in (8, 9) and found.marks["wrong_label"]["auroc"] > 0.9
    for mark in found.marks.values():
        low, high = mark["interval"]
        assert low <= mark["auroc"] <= high and all(0 <= area <= 1 for area in mark["single"].values())
    assert found.bits["all"]["rows"] == found.rows == 180 and found.unlabelled == 1
    assert sum(entry["rows"] for name, entry in found.bits.items() if name != "all") == 179
    assert sum(found.seen.values()) == 179
    low, high = found.bits["all"]["interval"]
    assert low < found.bits["all"]["bits"] < high


def test_card_picture_and_record(scored):
    for family, words in (("cvae", "evidence lower bound (ELBO)"), ("glow", "exact log-likelihood")):
        folder = scored[family].folder
        card = (folder / "README.md").read_text()
        assert words in card and "- synthaug" in card and "suspects.png" in card and "0.3" in card
        assert (folder / "suspects.png").read_bytes().startswith(b"\x89PNG")
        record = json.loads((folder / "scores.json").read_text())
        assert [len(record["suspects"][kind]) for kind in ("outlier", "wrong_label")] == [20, 20]
        first = record["suspects"]["wrong_label"][0]
        assert first["score"] == 1.0 and first["label"] in ("0", "1", "2")


def test_log_likelihood_is_that_of_the_given_label(runs, dirty):
    generator = synthaug.load_generator(runs / "glow")
    pixels = synthaug.load_images(dirty, label_column="label").pixels[:3]
    densities = class_densities(generator, pixels)
    assert densities.shape == (3, 3) and np.array_equal(densities, class_densities(generator, pixels))
    for label in range(3):  # noise within a bin hardly moves the density
        plain = generator.log_prob(to_tensor(pixels), torch.full((3,), label))
        assert np.allclose(densities[:, label], plain.detach().numpy(), atol=3.0)
    assert np.ptp(densities) > 30
    assert reconstruction_errors(generator, pixels, np.zeros(3, np.int64)) is None
    assert name_density(generator) == "log-likelihood"


def test_the_same_again_is_finished_and_other_rows_are_refused(runs, dirty, scored):
    before = (scored["cvae"].folder / "scores.json").stat().st_mtime_ns
    again = synthaug.score(runs / "cvae", dirty, output=scored["cvae"].folder)
    assert again == scored["cvae"] and (again.folder / "scores.json").stat().st_mtime_ns == before
    with pytest.raises(synthaug.InputError, match=r"other arguments .*rows.*fresh=True"):
        synthaug.score(runs / "cvae", dirty.select(range(50)), output=scored["cvae"].folder)
    with pytest.raises(synthaug.InputError, match="own column 'log_likelihood'"):
        loaded = datasets.load_dataset(str(scored["cvae"].folder), split="train")
        synthaug.score(runs / "cvae", loaded, output=runs / "twice")


def test_a_family_without_likelihood_names_those_that_have_one(runs, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score", str(runs / "cgan"), "digits", "--output", str(tmp_path / "scores")])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1 and "glow" in error and "cvae" in error
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outlier_column": "nope"}, "no column 'nope'"),
        ({"outlier_column": "image"}, "marks no outlier rows"),
        ({"outlier_column": "age"}, "give a boolean or 0/1 column"),
        ({"on_bad_image": "ignore"}, "'error' or 'skip'"),
    ],
)
def test_bad_arguments(options, message, runs, dirty, tmp_path):
    with pytest.raises(synthaug.InputError, match=message):
        synthaug.score(runs / "cvae", dirty, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_unknown_classes_and_corrupt_rows(runs, tmp_path):
    with pytest.raises(synthaug.InputError, match="'ant', which the run does not know"):
        synthaug.score(runs / "cvae", make_real((2, 1)), output=tmp_path / "ants")
    two = make_real((3, 3), names=["0", "1"], extra=False)  # fewer classes than the run knows
    synthaug.score(runs / "cvae", two, output=tmp_path / "two")
    predicted = datasets.load_dataset(str(tmp_path / "two"), split="train")["predicted_label"][:]
    assert len(predicted) == 6 and set(predicted) <= {0, 1, None}
    rows = make_real((3, 3, 3), names=["0", "1", "2"], extra=False)
    cells = stored(rows, "image")
    cells[4] = {"bytes": b"no image", "path": None}
    broken = datasets.Dataset.from_dict({"image": cells, "label": rows["label"][:]}, features=rows.features)
    with pytest.raises(synthaug.InputError, match=r"1 of 9 images .* \(row 4"):
        synthaug.score(runs / "cvae", broken, output=tmp_path / "broken")
    found = synthaug.score(runs / "cvae", broken, output=tmp_path / "skipped", on_bad_image="skip")
    assert found.rows == 8 and found.corrupt[0][0] == 4 and found.marks == {}
    rows_listed = {entry["row"] for entry in found.suspects["outlier"]}
    assert rows_listed == {0, 1, 2, 3, 5, 6, 7, 8}
    assert found.weights == [0.0, 1.0]  # too few rows to weigh generator against judge


def test_the_command_prints_figures_and_path(runs, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["score", str(runs / "glow"), str(runs / "glow-scores"), "--output", str(tmp_path / "x")])
    assert ended.value.code == 2 and "own column" in capsys.readouterr().err
    source = runs / "plain"
    write_dataset(small_digits(per_class=4), source)
    with pytest.raises(SystemExit) as ended:
        main(["score", str(runs / "glow"), str(source), "--output", str(tmp_path / "y")])
    out = capsys.readouterr().out.strip().splitlines()
    assert ended.value.code == 0 and out[-1] == str(tmp_path / "y")
    assert out[0].startswith("12 rows, ") and out[0].endswith(" bits per dimension (log-likelihood)")
