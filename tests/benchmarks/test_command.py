"""The benchmark as a command: several sources, further real rows, fresh draws from a run."""

import json

import numpy as np
import pytest
from datasets import ClassLabel

import synthaug
from synthaug.benchmarks import benchmark_datasets, tuning
from synthaug.benchmarks.runner import count_positions
from synthaug.cli import main
from synthaug.core import InputError


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Parquet files of three digits: 10 real rows a class, two sources of 12, 12 further ones."""
    home, digits = tmp_path_factory.mktemp("files"), synthaug.open_dataset("digits", "train")
    labels = np.array(digits["label"])
    names = ClassLabel(names=[str(c) for c in range(10)])
    for name, start, stop in (("real", 0, 10), ("one", 10, 22), ("two", 22, 34), ("more", 34, 46), ("test", 46, 60)):
        rows = np.concatenate([np.flatnonzero(labels == c)[start:stop] for c in range(3)])
        digits.select(rows).cast_column("label", names).to_parquet(home / f"{name}.parquet")
    return home


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tuning, "TUNING_SEEDS", (1_000,))
    monkeypatch.setattr(tuning, "POLICIES", {"affine": tuning.POLICIES["affine"]})


def test_several_sources_and_further_rows_on_the_command_line(files, quick, tmp_path, capsys):
    words = ["benchmark", "--real", files / "real.parquet", "--test", files / "test.parquet", "--seeds", "1"]
    words += ["--synthetic", f"one={files / 'one.parquet'}", "--synthetic", f"two={files / 'two.parquet'}"]
    words += ["--oracle", files / "more.parquet", "--steps", "2", "--num-processes", "1", "--output", tmp_path / "out"]
    words += ["--arms", "real,real+one@0.5,real+two@0.5,real+synthetic@0.5,two,real+oracle,real+oracle/4"]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 0 and capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    added = {arm["name"]: arm["rows"]["added"] for arm in report["arms"]}
    assert added == {
        "real": 0, "real+one@0.5": 36, "real+two@0.5": 36, "real+synthetic@0.5": 72, "two": 36, "real+oracle": 36,
        "real+oracle/4": 18,
    }  # fmt: skip
    assert report["settings"]["sources"] == {"one": 36, "two": 36}
    sides = {arm["name"]: arm["side"] for arm in report["arms"]}
    assert sides["two"] == "alone" and sides["real+oracle"] == "oracle" and sides["real+one@0.5"] == "synthetic"
    assert report["leaks"]["run"] == "not checked"


def test_sources_need_names_of_their_own(files, tmp_path):
    real, test = str(files / "real.parquet"), str(files / "test.parquet")
    for specs in (["a", "b"], ["x=a", "x=b"], ["x=a", "b"]):
        with pytest.raises(InputError, match="NAME=DATASET_OR_RUN"):
            benchmark_datasets(real, specs, test, tmp_path / "none")
    with pytest.raises(InputError, match="give 'plan' or 'fresh'"):
        benchmark_datasets(real, real, test, tmp_path / "none", draws="new")
    with pytest.raises(InputError, match="cannot be used in the name of an arm"):
        benchmark_datasets(real, [f"Best={real}", f"two={real}"], test, tmp_path / "none")


def test_what_would_be_refused_anyway_is_refused_before_anything_is_drawn(files, tmp_path, monkeypatch):
    real, test = (synthaug.open_dataset(str(files / f"{name}.parquet"), "train") for name in ("real", "test"))
    run = tmp_path / "run"
    synthaug.fit(real, "cvae", output=run, images=64)
    monkeypatch.setattr("synthaug.generation.generating.generate", None)
    for judging, options, message in (
        (test, {"arms": ["real", "oversampld+synthetic"]}, "'oversampld.synthetic' is unknown"),
        (real, {}, "test rows are among the train rows of the run"),
        (synthaug.open_dataset("digits", "test"), {}, "class '3'"),
    ):
        with pytest.raises(InputError, match=message):
            benchmark_datasets(real, run, judging, tmp_path / "out", **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    other = synthaug.open_dataset(str(files / "more.parquet"), "train")
    for output, message in ((run, "made by synthaug fit"), (tmp_path / "mine", "'thesis.tex' not made by")):
        with pytest.raises(InputError, match=message):
            benchmark_datasets(real, run, other, output)


def test_fresh_draws_are_as_many_as_a_training_shows(files, quick, tmp_path):
    real = str(files / "real.parquet")
    synthaug.fit(synthaug.open_dataset(real, "train"), "cvae", output=tmp_path / "run", images=128)
    from synthaug.recipe import GenerateSection

    report = benchmark_datasets(
        real, tmp_path / "run", str(files / "test.parquet"), tmp_path / "out", draws="fresh", steps=2, seeds=1,
        arms=["real+classical", "best+synthetic@0.5", "best+latent-smote"], num_processes=1,
        drawing=GenerateSection(filter="none"),
    )  # fmt: skip
    each = -(-count_positions(30, 3, 2) // 3)
    assert report.settings["rows"]["synthetic"] == 3 * each
    assert [arm["side"] for arm in report.arms] == ["classical", "synthetic", "classical"]
    assert report.leaks["run"] == "clean"


def test_columns_come_from_what_generate_wrote_down(tmp_path, monkeypatch):
    """A dataset with several columns of strings needs no flag, where its synthetic rows say what they were made for."""
    from datasets import Dataset

    from synthaug.benchmarks import command
    from synthaug.core import InputError

    real = Dataset.from_dict({"jpg": [b""], "kind": ["cat"], "site": ["a"]})
    (tmp_path / "made").mkdir()
    real.to_parquet(tmp_path / "made" / "train.parquet")
    record = {"image_column": "jpg", "label_column": "kind", "class_names": ["cat"], "hashes": None}
    (tmp_path / "made" / "synthaug.json").write_text(json.dumps(record))
    given = {}
    monkeypatch.setattr(command, "benchmark", lambda *rows, **options: given.update(options))
    command.benchmark_datasets(real, str(tmp_path / "made"), real, tmp_path / "out")
    assert (given["image_column"], given["label_column"], given["source"]) == ("jpg", "kind", None)
    with pytest.raises(InputError, match="label_column is 'site', but the synthetic rows were made for 'kind'"):
        command.benchmark_datasets(real, str(tmp_path / "made"), real, tmp_path / "out", label_column="site")
