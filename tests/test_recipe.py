import pytest
import yaml

from synthaug.core import InputError
from synthaug.publishing import drop_local_paths
from synthaug.recipe import (
    apply_settings,
    dump_recipe,
    parse_count,
    parse_duration,
    parse_recipe,
    read_recipe,
    spell_path,
)

SMALLEST = {"dataset": {"path": "digits"}, "generator": {"family": "cvae"}}


def test_defaults_are_filled_and_survive_a_round_trip():
    recipe = parse_recipe(SMALLEST)
    assert recipe.fit.budget == "10m" and recipe.generate.balance == "majority" and recipe.dataset.split == "train"
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (30, 30), ("2", 2)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "count"), [("2M", 2_000_000), ("500k", 500_000), (7, 7), ("2.3M", 2_300_000)])
def test_counts(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["0", "-5m", "soon", "", "0s"])
def test_bad_durations(text):
    with pytest.raises(InputError, match="positive duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "-5", "many", "2m", "1.5"])
def test_bad_counts(text):
    with pytest.raises(InputError, match="positive whole number"):
        parse_count(text)


def test_a_local_path_is_told_from_a_hub_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clinic").mkdir()
    (tmp_path / "clinic" / "scans").mkdir()
    assert spell_path("clinic/scans") == "./clinic/scans" == spell_path("./clinic/scans")
    assert spell_path("clinic/others") == "clinic/others" and spell_path(str(tmp_path)) == str(tmp_path)
    recipe = parse_recipe({"dataset": {"path": "clinic/scans"}, "generator": {"family": "cvae"}})
    assert recipe.dataset.path == "./clinic/scans"
    monkeypatch.chdir("/")
    assert drop_local_paths(recipe.model_dump())["dataset"].get("path") is None


def test_numbers_may_be_written_as_in_python(tmp_path):
    (tmp_path / "r.yaml").write_text("generator: {family: cvae, learning_rate: 2e-3}\nfit: {images: 2E5}\n")
    values = read_recipe(tmp_path / "r.yaml")
    assert values["generator"]["learning_rate"] == 0.002 and values["fit"]["images"] == 200_000.0
    assert parse_recipe({**values, "dataset": {"path": "digits"}}).fit.images == 200_000
    assert apply_settings({}, ["generator.beta=1e-1", "generator.family=e5"])["generator"] == {
        "beta": 0.1,
        "family": "e5",
    }


def test_settings_reach_any_key_and_are_read_as_yaml():
    values = apply_settings(SMALLEST, ["fit.save_every=2000", "fit.seed=3", "generator.width=16", "fit.images=2e5"])
    values = apply_settings(values, ["fit.images=2M"])
    recipe = parse_recipe(values)
    assert (recipe.fit.save_every, recipe.fit.seed, recipe.fit.images) == (2000, 3, 2_000_000)
    assert recipe.generator.model_extra == {"width": 16}
    assert "fit" not in SMALLEST


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**SMALLEST, "fitt": {}}, r"unknown key fitt \(did you mean 'fit'\?\)"),
        ({**SMALLEST, "fit": {"budgett": "5m"}}, r"unknown key fit\.budgett \(did you mean 'budget'\?\)"),
        ({**SMALLEST, "benchmark": {"test": {"pth": "x"}}}, r"benchmark\.test\.p(a)?th"),
        ({"generator": {"family": "cvae"}}, "dataset is missing"),
        ({"dataset": {}, "generator": {"family": "cvae"}}, r"dataset\.path is missing"),
        ({**SMALLEST, "fit": {"budget": "-5m"}}, "positive duration"),
        ({**SMALLEST, "fit": {"budget": "5m", "images": 10}}, "not both"),
        ({**SMALLEST, "generate": {"per_class": 5, "balance": "median"}}, "not both"),
        ({**SMALLEST, "generate": {"max_synthetic_fraction": 1.0}}, r"max_synthetic_fraction.*\(got 1\.0\)"),
        ({"dataset": {"path": "d", "limit_per_class": 0}, "generator": {"family": "x"}}, "limit_per_class"),
        ({"dataset": {"path": "d"}, "generator": {"family": "x", "image_size": -3}}, "image_size"),
    ],
)
def test_bad_recipes_get_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: {path: [", "not valid YAML"),
        ("- a\n- b", "no mapping"),
        ("a: 1\na: 2", "stands twice"),
        ("a: &x [1]\nb: *x", "anchors"),
    ],
)
def test_bad_files_get_one_line(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="not a file"):
        read_recipe(tmp_path / "none.yaml")


def test_yaml_no_means_the_word():
    assert parse_recipe({**SMALLEST, "fit": {"mixed_precision": False}}).fit.mixed_precision == "no"


def test_settings_without_value():
    with pytest.raises(InputError, match=r"section\.key=value"):
        apply_settings({}, ["fit.seed"])
