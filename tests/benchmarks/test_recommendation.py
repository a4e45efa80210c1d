"""recommend: what convinces, what is written down, and that a finished or interrupted call is not done again."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, DatasetDict

import synthaug
from synthaug.benchmarks import Advice, recommend, recommendation, tuning
from synthaug.benchmarks.advice import weigh_evidence
from synthaug.benchmarks.arms import parse_arm
from synthaug.benchmarks.cells import Cell
from synthaug.benchmarks.folds import PooledFolds
from synthaug.benchmarks.results import ArmResults
from synthaug.cli import main
from synthaug.core import MARK, InputError
from synthaug.recipe import read_recipe


def results(name, *, hits, losses):
    """Five seeds on 60 rows of three classes; a row is right where `hits` says so."""
    labels = np.arange(60) % 3
    predictions = np.where(hits, labels, (labels + 1) % 3)
    pairs = zip(predictions.tolist(), losses.tolist(), strict=True)
    seeds = [{"validation": {"predictions": made, "losses": lost}} for made, lost in pairs]
    return ArmResults(parse_arm(name), Cell(name, 0, 1, 8, "affine", 6e-3), seeds), labels


@pytest.mark.parametrize(
    ("gain", "flips", "convinces"),
    [(0.2, 0, True), (-0.2, 0, False), (0.0, 0, False), (0.2, -3, False), (0.2, 3, True)],
)
def test_a_surely_lower_loss_convinces_unless_accuracy_falls(gain, flips, convinces):
    rng = np.random.default_rng(0)
    base = rng.gamma(2.0, 0.5, (5, 60))
    right = np.ones((5, 60), dtype=bool)
    right[:, :6] = False
    other = right.copy()
    if flips > 0:
        other[:, :flips] = True
    elif flips < 0:
        other[:, 6 : 6 - flips] = False
    noise = 0.05 * rng.standard_normal((5, 60))
    lower = base - gain + noise - (noise.mean() if gain == 0 else 0)
    opponent, labels = results("real", hits=right, losses=base)
    candidate, _ = results("real+synthetic", hits=other, losses=lower)
    evidence = weigh_evidence(candidate, opponent, labels)
    assert evidence.convinces is convinces
    assert evidence.bound < evidence.loss.value
    assert np.sign(evidence.accuracy.value) == np.sign(flips)


@pytest.fixture(scope="module")
def rows():
    digits = synthaug.open_dataset("digits", "train")
    labels = np.array(digits["label"])
    chosen = np.concatenate([np.flatnonzero(labels == c)[:10] for c in range(3)])
    return digits.select(chosen).cast_column("label", ClassLabel(names=[str(c) for c in range(10)]))


def run_command(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return stopped.value.code


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tuning, "TUNING_SEEDS", (1_000,))
    monkeypatch.setattr(tuning, "POLICIES", {"affine": tuning.POLICIES["affine"]})


def test_the_whole_way_and_again(rows, quick, tmp_path, monkeypatch, capsys):
    options = {"families": ("cvae",), "images": 192, "seeds": 2, "steps": 3, "num_processes": 1}
    options["dataset"] = {"path": "digits"}
    advice = recommend(rows, output=tmp_path, **options)
    names = [entry["name"] for entry in advice.candidates]
    left_out = [line.split()[1] for line in capsys.readouterr().err.splitlines() if "is left out" in line]
    assert sorted(names + left_out) == ["cvae", "cvae-raw", "cvae-t0.8", "cvae-t1.2"] and "cvae-raw" in names
    assert sum(entry["chosen"] for entry in advice.candidates) == 1
    assert advice.settings["validation_rows"] == 6 and advice.settings["training_rows"] == 24
    assert "no test row" in (tmp_path / "recommendation.md").read_text().lower()
    assert json.loads((tmp_path / "recommendation.json").read_text())["sentence"] == advice.sentence
    if advice.recommended is None:
        assert advice.sentence.startswith("No synthetic rows") and advice.share == 0
        assert advice.recipe["generate"]["balance"] == {"0": 10, "1": 10, "2": 10}
    monkeypatch.setattr("synthaug.training.fitting.fit", None)  # a finished call does nothing
    assert '"recipe.yaml"' in (tmp_path / MARK).read_text()  # so that --fresh removes it
    (tmp_path / "recipe.yaml").write_text("# my notes\n")
    assert recommend(rows, output=tmp_path, **options) == advice == Advice.load(tmp_path)
    assert (tmp_path / "recipe.yaml").read_text() == "# my notes\n"
    with pytest.raises(InputError, match=r"other arguments \(steps\)"):
        recommend(rows, output=tmp_path, **{**options, "steps": 4})


def test_the_recipe_draws_the_recommended_share(quick, tmp_path, monkeypatch, capsys):
    """With a judgement that always convinces, the recipe of the command makes that share of the dataset."""
    monkeypatch.setattr("synthaug.benchmarks.advice.Evidence.convinces", True)
    monkeypatch.setattr(tuning, "MIXTURES", ((0.5, 0.0),) * 4)
    output = tmp_path / "advice"
    arguments = ["digits", "--limit-per-class", "6", "--families", "cvae", "--images", "192", "--seeds", "2"]
    assert run_command("recommend", *arguments, "--steps", "2", "--num-processes", "1", "--output", str(output)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == str(output) and printed[-2].startswith("Use cvae")
    recipe = read_recipe(output / "recipe.yaml")
    assert set(recipe["generate"]["balance"].values()) == {12}  # half of 12 are the six real rows
    run = json.loads((output / "recommendation.json").read_text())["run"]
    made = [str(output / run), "--recipe", str(output / "recipe.yaml"), "--filter", "none"]
    assert run_command("generate", *made, "--output", str(tmp_path / "rows")) == 0
    drawn = synthaug.open_dataset(str(tmp_path / "rows"), "train")
    assert np.bincount(drawn["label"]).tolist() == [6] * 10


def test_folds_let_every_row_judge(rows, quick, tmp_path, monkeypatch):
    """Two folds: each row is held out once, two generators see the others, and a third is what one generates from."""
    monkeypatch.setattr("synthaug.benchmarks.advice.Evidence.convinces", True)
    monkeypatch.setattr(tuning, "MIXTURES", ((0.5, 0.0),) * 4)
    options = {"families": ("cvae",), "images": 192, "seeds": 2, "steps": 2, "num_processes": 1, "folds": 2}
    options["arms"] = ["real", "oversampled+classical"]
    advice = recommend(rows, output=tmp_path, **options)
    assert advice.base in options["arms"] and advice.arm == f"{advice.base}+synthetic@0.5"
    assert advice.settings["folds"] == 2 and advice.settings["validation_rows"] == 30
    held = [
        json.loads((tmp_path / "folds" / number / "runs" / "cvae" / "source.json").read_text())["hashes"]
        for number in ("1", "2")
    ]
    assert not set(held[0]["validation"]) & set(held[1]["validation"])
    assert set(held[0]["validation"]) == set(held[1]["train"])
    assert advice.run == "runs/cvae" and (tmp_path / advice.run / "model.safetensors").is_file()
    assert advice.share == 0.5 and set(advice.recipe["generate"]["balance"].values()) == {20}
    assert recommend(rows, output=tmp_path, **options) == advice
    with pytest.raises(InputError, match=r"other arguments \(folds\)"):
        recommend(rows, output=tmp_path, **{**options, "folds": 3})


def test_rounds_pool_rows_not_means():
    """A group with one row in the first round and three in the second counts its four rows alike."""
    first, second = (
        SimpleNamespace(splits=SimpleNamespace(
            validation=SimpleNamespace(labels=np.array(labels)), strata=lambda kind: None
        ), strata=np.array(labels), runner=None)
        for labels in ([0, 0, 1], [0, 1, 1, 1])
    )  # fmt: skip
    arm = parse_arm("real")
    parts = [
        {"predictions": [0, 0, 0], "losses": [0.0, 0.0, 4.0]},
        {"predictions": [0, 1, 1, 1], "losses": [0.0, 0.0, 0.0, 0.0]},
    ]
    results = [ArmResults(arm, Cell("real", 0, 1, 8, "affine", 6e-3), [{"validation": part}]) for part in parts]
    pooled = PooledFolds([first, second])._pool(results)
    assert pooled.mean("validation", "balanced_accuracy") == (1 + 3 / 4) / 2
    assert pooled.mean("validation", "scaled_nll") == (0 + 4 / 4) / 2
    assert pooled.seeds[0]["validation"]["predictions"].tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_bad_input_is_one_line(rows, tmp_path):
    for options, message in (
        ({"families": ("gan",)}, "family 'gan' is unknown; allowed are cvae, cgan, glow"),
        ({"families": ()}, "name each one once"),
        ({"seeds": 1}, "seeds is 1; give an integer from 2"),
        ({"classifier": "big"}, "allowed are small, resnet"),
        ({"budget": "1m", "images": 10}, "give one of them"),
        ({"folds": 1}, "folds is 1; give an integer from 2"),
        ({"arms": ["real+synthetic"]}, "is none without synthetic rows"),
        ({"arms": ["best+smote"]}, "add one such as real"),
    ):
        with pytest.raises(InputError, match=message):
            recommend(rows, output=tmp_path / "none", **options)
    few = rows.select([row for row, label in enumerate(rows["label"]) if row % 10 < 4])
    for data, folds in ((few, None), (rows, 20)):  # before anything is fitted or kept
        with pytest.raises(InputError, match=r"left for validation.*give more rows, or folds=2"):
            recommend(data, output=tmp_path / "few", families=("cvae",), images=64, folds=folds)
    with pytest.raises(InputError, match="no column 'nope'"):
        recommend(rows, output=tmp_path / "few", label_column="nope")
    with pytest.raises(InputError, match=r"dataset is a DatasetDict; give one split"):
        recommend(DatasetDict(train=rows), output=tmp_path / "few")
    assert not (tmp_path / "few").exists()


def test_the_rows_are_known_by_their_pixels(rows):
    def digest(data):
        return recommendation._digest_rows(data, None, {"label_column": "label"})

    changed = rows.map(
        lambda row, number: {"label": row["label"] if number else (row["label"] + 1) % 3}, with_indices=True
    )
    again = rows.select(range(len(rows)))
    assert digest(again) == digest(rows) != digest(changed) and again._fingerprint != rows._fingerprint


def test_joint_groups_are_weighed_and_counted(monkeypatch, tmp_path):
    from synthaug import journey
    from synthaug.benchmarks.splits import load_splits
    from tests.benchmarks.test_grouping import BIASED, EVEN, GROUP_BY, make_rows

    splits = load_splits(make_rows(BIASED), {"cvae": make_rows(EVEN, offset=500)}, None, group_by=GROUP_BY)
    counts = recommendation._whole_counts(splits)
    assert (counts["zero · blue"], counts["zero · red"], counts["one · blue"]) == (6, 24, 24)
    recipe = recommendation._write_recipe(None, 0.0, splits, parse_arm("oversampled"))
    assert "one · red" not in recipe["generate"]["balance"]

    hits = np.ones((5, 60), dtype=bool)
    base, labels = results("real", hits=hits, losses=np.ones((5, 60)))
    better, _ = results("real+synthetic", hits=hits, losses=np.where(np.arange(60) < 3, 0.0, 1.0) * np.ones((5, 60)))
    strata = np.where(np.arange(60) < 3, 0, 1)  # three rows of a rare group, where all of the gain is
    assert weigh_evidence(better, base, labels).loss.value == pytest.approx(1 / 20)
    assert weigh_evidence(better, base, labels, strata=strata).loss.value == pytest.approx(1 / 2)

    given = {}
    advice = Advice("cvae", "", 0.5, "", {"generate": {"balance": {"a · b": 3}}}, "real", [], {}, {})
    monkeypatch.setattr(journey, "recommend", lambda rows, **options: given.update(options) or advice)
    assert run_command("recommend", "digits", "--group-by", "label,site", "-o", str(tmp_path)) == 0
    assert given["group_by"] == ["label", "site"]
    assert given["dataset"]["group_by"] == ["label", "site"]
