"""Examples, recipes and the README, executed at toy size."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

import synthaug
from synthaug.benchmarks import Advice
from synthaug.classifiers import fit_judge
from synthaug.data import count_classes, make_long_tailed
from synthaug.journey import run_recipe
from synthaug.recipe import apply_settings, parse_recipe, read_recipe
from synthaug.training import completion
from tests.hub_server import HubServer

ROOT = Path(__file__).parent.parent


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small_digits(split="train", per_class=12, classes=3):
    rows = synthaug.open_dataset("digits", split)
    labels = rows["label"][:]
    chosen = [row for label in range(classes) for row in [i for i, y in enumerate(labels) if y == label][:per_class]]
    return rows.select(chosen).cast_column("label", datasets.ClassLabel(names=[str(c) for c in range(10)]))


@pytest.fixture(scope="module")
def folder_example(tmp_path_factory):
    """The folders that examples/long_tailed_folder.py leaves at toy size, and its report."""
    home = tmp_path_factory.mktemp("folder")
    data, output = home / "images", home / "out"
    for split, per_class in (("train", 16), ("test", 6)):
        rows = small_digits(split, per_class)
        rows = make_long_tailed(rows, "label", 4) if split == "train" else rows
        for number, row in enumerate(rows):
            path = data / split / f"class {row['label']}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            row["image"].save(path)
    example = load_example("long_tailed_folder")
    report = example.main(data, output, images=128, seeds=1, steps=2, filter="none", num_processes=1)
    return output, report


def test_training_loop(tmp_path, capsys):
    scores = load_example("in_a_training_loop").main(tmp_path, images=128, epochs=1, imbalance=60, balance=10)
    assert list(scores) == ["real", "real and synthetic"] and all(0 <= score <= 1 for score in scores.values())
    assert "missing" in capsys.readouterr().out


def test_long_tailed_folder(folder_example):
    output, report = folder_example
    loaded = datasets.load_dataset(str(output / "dataset"))
    assert count_classes(loaded["train"]) == {"class 0": 16, "class 1": 8, "class 2": 4}
    assert sum(loaded["train"]["synthetic"]) == 8 + 12 and loaded["test"].num_rows == 18
    assert report.verdict == "no clear change" and "needs at least 5 paired seeds" in report.sentence
    assert report.leaks["run"] == "clean"
    assert (output / "report" / "report.html").stat().st_size > 10_000


def test_find_bad_labels(tmp_path, capsys):
    found = load_example("find_bad_labels").main(tmp_path, images=256, per_class=12, share=0.05)
    assert list(found) == ["cvae"] and set(found["cvae"]) == {"outlier", "wrong_label"}
    assert all(0 <= area <= 1 for area in found["cvae"].values())
    assert "cvae: wrong_label (6 rows): AUROC" in capsys.readouterr().out
    assert datasets.load_dataset(str(tmp_path / "cvae-scores"), split="train").num_rows == 120


# ------------------------------------------------------------------------------- in a training loop of one's own

TOY = {"images": 128, "imbalance": 40, "filter": "none"}


@pytest.fixture(scope="module")
def loop_folder(tmp_path_factory):
    """One run for the three examples: the same fit again finds it finished."""
    return tmp_path_factory.mktemp("loops")


def test_mixed_in_pytorch(loop_folder, capsys):
    _, digests = load_example("mixed_in_pytorch").main(loop_folder, epochs=2, **TOY)
    assert list(digests) == [0, 2, 4] and len(set(digests.values())) == 1
    assert "4 workers: " in capsys.readouterr().out


def test_mixed_in_trainer(loop_folder):
    pytest.importorskip("transformers")
    seen = load_example("mixed_in_trainer").main(loop_folder, epochs=3, **TOY)
    assert [epoch for epoch, _ in seen] == [0, 1, 2] and seen[0][1] > seen[1][1] > seen[2][1] == 0


def test_mixed_in_lightning(loop_folder):
    pytest.importorskip("lightning")
    seen, replaced = load_example("mixed_in_lightning").main(loop_folder, epochs=3, **TOY)
    assert [epoch for epoch, _ in seen] == [0, 1, 2] and seen[0][1] > seen[1][1] > seen[2][1] == 0
    assert 0.2 < replaced / (3 * 489) < 0.4


def test_imblearn_pipeline(monkeypatch, capsys):
    pytest.importorskip("imblearn")
    monkeypatch.setattr(completion, "fit_judge", functools.partial(fit_judge, steps=5))
    toy = {"images": 64, "imbalance": 10, "filter": "none", "width": 8, "latent_dim": 4}
    scores = load_example("imblearn_pipeline").main(folds=2, **toy)
    assert all(0.5 < score <= 1 for values in scores.values() for score in values)
    assert "real and synthetic: balanced accuracy" in capsys.readouterr().out


def test_the_digits_become_a_folder_of_images(tmp_path):
    load_example("long_tailed_folder").write_images(tmp_path / "digits", imbalance=40)
    counts = {name: count_classes(rows) for name, rows in synthaug.open_splits(str(tmp_path / "digits")).items()}
    assert list(counts["train"].values())[::9] == [124, 3] and sum(counts["test"].values()) == 540


def test_push_to_hub(folder_example, tmp_path):
    """In a process of its own: the clients read their environment when they are imported."""
    output, _ = folder_example
    token = "hf_anExampleToken"
    with HubServer({token: "me"}) as hub:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SYNTHAUG"))}
        command = [sys.executable, ROOT / "examples" / "push_to_hub.py", output / "run", output / "dataset", "me"]
        done = subprocess.run(
            [*command, "--include-latents"],
            env={**kept, **hub.environment(tmp_path, token), "SYNTHAUG_CACHE": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert f"{hub.url}/datasets/me/synthaug-example" in done.stdout and "cvae from the Hub draws" in done.stdout
        assert hub.unknown == [] and token not in done.stdout + done.stderr
        for kind in ("dataset", "model"):
            assert hub.repo(kind, "me/synthaug-example").private
        card = hub.repo("dataset", "me/synthaug-example").files["README.md"].data.decode()
        assert "**No clear change**" in card
        assert not any(name.startswith("state/") for name in hub.repo("model", "me/synthaug-example").files)


# ---------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_parses(path):
    recipe = parse_recipe(read_recipe(path), origin=path.name)
    assert recipe.output == f"runs/{path.stem}" and recipe.benchmark is not None
    if path.stem != "smoke":
        family, data = path.stem.split("-")
        assert recipe.generator.family == family and recipe.dataset.path == f"data/{data}-train.parquet"
        assert recipe.benchmark.test.path == f"data/{data}-test.parquet"


def test_there_is_a_recipe_for_every_family_and_dataset():
    there = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert there == {f"{family}-{data}" for family in synthaug.GENERATORS for data in ("mnist", "cifar10")} | {"smoke"}


def test_the_smoke_recipe_runs_at_toy_size(tmp_path, capsys):
    settings = ["dataset.limit_per_class=7", "fit.images=64", "generate.balance=9", f"output={tmp_path / 'run'}"]
    values = apply_settings(read_recipe(ROOT / "recipes" / "smoke.yaml"), settings)
    made = run_recipe(parse_recipe({**values, "benchmark": None}))
    loaded = datasets.load_dataset(str(made / "dataset"), split="train")
    assert set(count_classes(loaded).values()) == {7} and sum(loaded["synthetic"]) == 20
    again = run_recipe(parse_recipe({**values, "benchmark": None}))
    assert (
        again == made and "missing" not in capsys.readouterr().err.split("fitting the judge")[1].split("generate:")[-1]
    )


# ----------------------------------------------------------------------------------------------------- README


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    """As it stands, with the data replaced and every number small."""
    code, inside = blocks(ROOT / "README.md", "python")
    monkeypatch.chdir(tmp_path)
    rows = {"train": make_long_tailed(small_digits(), "label", 3), "test": small_digits("test", 4)}
    pushed = []

    def with_other_options(name, **options):
        original = getattr(synthaug, name)

        @functools.wraps(original)
        def call(*arguments, **given):
            return original(
                *arguments, **{key: value for key, value in {**given, **options}.items() if value is not None}
            )

        monkeypatch.setattr(synthaug, name, call, raising=False)

    monkeypatch.setattr(datasets, "load_dataset", lambda kind, data_dir, split: rows[split])
    with_other_options("fit", budget=None, images=64)
    with_other_options("generate", filter="none")
    arms = ["oversampled+classical", "oversampled+classical+synthetic"]
    with_other_options("benchmark", steps=1, arms=arms, num_processes=1)
    monkeypatch.setattr(synthaug, "push", lambda what, repo, report: pushed.append((what, repo, report)), raising=False)
    scope = {}
    exec(compile(code, "README.md", "exec"), scope)
    exec(compile(inside, "README.md", "exec"), scope)
    assert len(scope["mixed"]) == len(scope["real"]) and scope["mixed"].find_synthetic().any()
    assert scope["report"].verdict in ("helps", "no clear change", "harms")
    assert count_classes(scope["augmented"]) == scope["plan"].real
    assert scope["augmented"].num_rows == sum(scope["plan"].total.values())
    assert pushed == [(scope["augmented"], "me/xrays-balanced", scope["report"])]
    assert json.loads((tmp_path / "runs" / "xrays" / "config.json").read_text())["family"] == "cvae"


def test_balance_two_attributes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("synthaug.core.metrics.TUNING_SEEDS", (1_000,))
    monkeypatch.setattr(completion, "fit_judge", functools.partial(fit_judge, steps=40))
    example = load_example("balance_two_attributes")
    report = example.main(
        tmp_path, per_class=24, test_per_class=8, classes=2, share=0.8, images=128, seeds=1, steps=2,
        arms=["oversampled", "oversampled+synthetic"], filter="none", num_processes=1,
    )  # fmt: skip
    assert [entry["name"] for entry in report.joint["entries"]] == ["0 · red", "0 · green", "1 · red", "1 · green"]
    printed = capsys.readouterr().out
    assert "worst group of label, colour: oversampled " in printed
    mixed = datasets.load_dataset(str(tmp_path / "dataset"), split="train")
    counts = example.count_groups(mixed)
    assert len(counts) == 4 and len(set(counts.values())) == 1
    assert sum(mixed["synthetic"]) == len(mixed) - 48


def test_balance_two_attributes_by_advice(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("synthaug.core.metrics.TUNING_SEEDS", (1_000,))
    example, asked, drawn = load_example("balance_two_attributes"), {}, {}

    def advise(real, *, output, **options):
        asked.update(options)
        columns = {key: options[key] for key in ("label_column", "group_by")}
        synthaug.fit(real, options["families"][0], output=output / "runs" / "cvae", images=128, **columns)
        return Advice(
            "cvae", "helps", 0.25, "runs/cvae", {"generate": {"balance": 20, "filter": "none"}}, "oversampled",
            arm="oversampled+synthetic@0.25",
        ) if asked["folds"] == 2 else Advice(None, "no", 0.0, "", {}, "oversampled")  # fmt: skip

    def draw(*arguments, **options):
        drawn.update(options)
        return synthaug.generation.generating.generate(*arguments, **options)

    monkeypatch.setattr(example.synthaug, "recommend", advise, raising=False)
    monkeypatch.setattr(example.synthaug, "generate", draw, raising=False)
    monkeypatch.setattr(completion, "fit_judge", functools.partial(fit_judge, steps=40))
    options = {"per_class": 24, "test_per_class": 8, "classes": 2, "share": 0.8, "images": 128, "seeds": 1, "steps": 2}
    arms = ["oversampled", "oversampled+synthetic"]
    report = example.main(tmp_path / "two", **options, arms=arms, folds=2, num_processes=1)
    assert asked["folds"] == 2 and asked["arms"] == ["oversampled"] and drawn["filter"] == "none"
    assert {"oversampled", "oversampled+synthetic@0.25"} <= {arm["name"] for arm in report.to_dict()["arms"]}
    assert example.main(tmp_path / "three", **options, arms=arms, folds=3, num_processes=1) is None
    assert not (tmp_path / "three" / "report").exists() and "no" in capsys.readouterr().out


def test_several_draws(tmp_path, monkeypatch, capsys):
    example = load_example("several_draws")
    monkeypatch.setattr("synthaug.core.metrics.TUNING_SEEDS", (1_000,))
    options = {
        "data": "digits",
        "test": "digits",
        "per-class": 10,
        "imbalance": 2,
        "draws": 2,
        "images": 128,
        "seeds": 1,
    }
    options |= {"steps": 2, "arms": "real+classical,best+synthetic,best+oracle", "output": tmp_path}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    monkeypatch.setattr(example.synthaug, "generate", functools.partial(synthaug.generate, filter="none"))
    monkeypatch.setattr(sys, "argv", ["several_draws.py", *words, "--oracle"])
    example.main()
    table = capsys.readouterr().out
    assert table.count("real+classical+synthetic") == 2 and "Over 2 draws" in table
    assert (tmp_path / "draws.md").read_text() == table
    kept, further = example.draw_subset(synthaug.open_dataset("digits", "train"), "label", 0, 10, 2.0)
    counts = count_classes(kept, "label")
    assert [counts["0"], counts["9"]] == [10, 5] and len(further) > len(kept)
