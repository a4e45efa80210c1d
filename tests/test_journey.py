"""What commands do with several modules in a row, at toy size, in one process."""

import json

import pytest
from datasets import Dataset, load_dataset

from synthaug.cli.program import _run
from synthaug.core import InputError
from synthaug.data import open_dataset
from synthaug.journey import generate_dataset, mix_datasets, run_quickstart, strip_dataset
from synthaug.recipe import parse_recipe


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The whole journey of recipes/smoke.yaml, shorter still."""
    output = tmp_path_factory.mktemp("smoke") / "out"
    settings = ["fit.images=320", "benchmark.steps=5", f"output={output}", "generate.filter=none"]
    words = [word for setting in settings for word in ("--set", setting)]
    assert _run(["run", "recipes/smoke.yaml", *words], debug=True) == 0
    return output


def test_a_recipe_leaves_run_dataset_and_report(smoke):
    for name in ("run/config.json", "dataset/README.md", "dataset/synthaug.json", "report/report.html"):
        assert (smoke / name).is_file(), name
    report = json.loads((smoke / "report" / "report.json").read_text())
    assert report["verdict"] == "no clear change"  # two seeds never give another
    data = load_dataset(str(smoke / "dataset"), split="train")
    assert data.features["label"].names == [str(k) for k in range(10)]
    assert len(data) == 10 * 25 and sum(data["synthetic"]) == 10 * 5


def test_the_same_command_again_finds_everything_done(smoke, capsys):
    settings = ["fit.images=320", "benchmark.steps=5", f"output={smoke}", "generate.filter=none"]
    words = [word for setting in settings for word in ("--set", setting)]
    before = (smoke / "report" / "report.json").stat().st_mtime_ns
    assert _run(["run", "recipes/smoke.yaml", *words], debug=True) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(smoke)
    assert (smoke / "report" / "report.json").stat().st_mtime_ns == before


def test_strip_gives_back_the_real_rows_and_mix_puts_them_together_again(smoke, tmp_path):
    bare = load_dataset(str(strip_dataset(str(smoke / "dataset"), tmp_path / "bare")), split="train")
    assert bare.column_names == ["image", "label"] and len(bare) == 200
    words = [
        "generate",
        str(smoke / "run"),
        "--per-class",
        "3",
        "--filter",
        "none",
        "--output",
        str(tmp_path / "three"),
    ]
    assert _run(words, debug=True) == 0
    folder = mix_datasets(str(tmp_path / "bare"), str(tmp_path / "three"), tmp_path / "mixed")
    mixed = load_dataset(str(folder))
    assert len(mixed["train"]) == 230 and mixed["train"]["label"][:200] == bare["label"][:200]


def test_require_gain_and_dry_run(smoke, tmp_path, capsys):
    words = ["benchmark", "--real", "digits", "--limit-per-class", "20", "--synthetic", str(smoke / "dataset")]
    words += [
        "--test",
        "digits",
        "--seeds",
        "1",
        "--steps",
        "5",
        "--output",
        str(tmp_path / "report"),
        "--require-gain",
    ]
    assert _run(words, debug=False) == 3
    assert "--require-gain is not met" in capsys.readouterr().err
    assert _run(["run", "recipes/smoke.yaml", "--dry-run"], debug=True) == 0
    out = capsys.readouterr().out
    assert "family: cvae" in out and "missing" in out


def test_every_recipe_key_of_the_contract_is_known():
    recipe = parse_recipe(
        {
            "dataset": {"path": "digits", "split": "train", "image_column": None, "label_column": None,
                        "limit_per_class": None, "on_bad_image": "error", "validation": "auto"},
            "generator": {"family": "cgan", "image_size": None},
            "fit": {"budget": "10m", "images": None, "batch_size": None, "save_every": "2m", "seed": 0,
                    "mixed_precision": "no"},
            "generate": {"balance": "majority", "per_class": None, "max_synthetic_fraction": None, "temperature": None,
                         "filter": "default", "seed": 0, "max_draws": None},
            "benchmark": {"test": {"path": "digits", "split": "test"}, "arms": None, "seeds": 5, "steps": None,
                          "classifier": "small"},
            "push": {"repo": None, "private": True},
            "output": "runs/example",
        }
    )  # fmt: skip
    assert recipe.generate.filter == "default"


def test_a_dataset_is_not_written_over_itself(smoke, tmp_path):
    """`--fresh` would remove the rows before they are written anew."""
    own = str(strip_dataset(str(smoke / "dataset"), tmp_path / "own"))
    made = str(smoke / "dataset")
    for fresh in (False, True):
        for work in (
            lambda fresh=fresh: mix_datasets(own, made, tmp_path / "own", fresh=fresh),
            lambda fresh=fresh: mix_datasets(f"{own}/data/*.parquet", made, tmp_path / "own", fresh=fresh),
            lambda fresh=fresh: strip_dataset(own, tmp_path, fresh=fresh),
            lambda fresh=fresh: generate_dataset(smoke / "run", tmp_path / "own", {}, mix_with=own, fresh=fresh),
        ):
            with pytest.raises(InputError, match=r"output .* is or holds .*own.*, which is read; give another folder"):
                work()
    assert len(open_dataset(own)) == 200
    with pytest.raises(InputError, match="made by synthaug strip; give another folder"):
        mix_datasets(made, made, tmp_path / "own", fresh=True)


def test_quickstart_goes_on_wherever_it_was_killed(tmp_path, monkeypatch):
    def kill(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("synthaug.journey.run_recipe", kill)
    with monkeypatch.context() as patch:
        patch.setattr("synthaug.generation.dataset_folder.ShardFolder.finish", kill)
        with pytest.raises(KeyboardInterrupt):
            run_quickstart(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run_quickstart(tmp_path)
    assert len(open_dataset(str(tmp_path / "real"))) > 0


def test_mix_takes_the_label_column_that_generate_wrote_down(tmp_path):
    """Where several columns may hold labels, the folder of the synthetic rows tells; else the flag does."""
    pictures = open_dataset("digits")["image"][:2]
    rows = Dataset.from_dict({"image": pictures, "kind": ["a", "b"], "site": ["x", "y"]})
    rows.save_to_disk(str(tmp_path / "real"))
    (tmp_path / "made").mkdir()
    rows.to_parquet(tmp_path / "made" / "train.parquet")
    where = (str(tmp_path / "real"), str(tmp_path / "made"))
    with pytest.raises(InputError, match="2 columns may hold the labels"):
        mix_datasets(*where, tmp_path / "out")
    with pytest.raises(InputError, match=r"no column 'kin' in .*; name one of its columns: 'image', 'kind', 'site'"):
        mix_datasets(*where, tmp_path / "out", label_column="kin")
    (tmp_path / "made" / "synthaug.json").write_text(json.dumps({"label_column": "kind"}))
    made = mix_datasets(*where, tmp_path / "out")
    assert open_dataset(str(made))["synthetic"][:] == [False, False, True, True]
