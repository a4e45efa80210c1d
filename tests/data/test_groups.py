"""Balance over several columns at once: joint groups from a dataset to a run, and back into rows."""

import functools
import io
import json
from collections import Counter
from unittest import mock

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

import synthaug
from synthaug.classifiers import fit_judge
from synthaug.cli import main
from synthaug.core import InputError
from synthaug.data import (
    Columns,
    count_classes,
    describe_absent,
    inspect_dataset,
    load_images,
    read_groups,
    split_attributes,
)
from synthaug.data.groups import MAX_VALUES, absent_groups
from synthaug.generators import load_run, read_source
from synthaug.journey import generate_dataset
from synthaug.recipe import parse_recipe
from synthaug.training import completion

COUNTS = {("zero", "blue"): 2, ("zero", "red"): 12, ("one", "blue"): 12, ("two", "blue"): 9, ("two", "red"): 9}


def paint(label, colour, row):
    """A square whose place tells the label and whose channel tells the colour; no two rows are alike."""
    pixels = np.random.default_rng([label, colour == "red", row]).integers(0, 60, (8, 8, 3), np.uint8)
    pixels[2 * label : 2 * label + 3, 2:6, 0 if colour == "red" else 2] = 220
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def make_rows(counts=COUNTS, *, unknown=0, offset=0):
    names, rows = ["zero", "one", "two"], []
    for (name, colour), number in counts.items():
        label = names.index(name)
        for row in range(number):
            known = None if row < unknown and colour == "red" else colour
            rows.append({"image": paint(label, colour, row + offset), "label": label, "colour": known, "age": row})
    features = {"image": Image(), "label": ClassLabel(names=names), "colour": Value("string"), "age": Value("int32")}
    return Dataset.from_list(rows, features=Features(features))


def groups_of(rows, mask=None):
    names = rows.features["label"].names
    pairs = zip(rows["label"][:], rows["colour"][:], strict=True)
    return Counter((names[label], colour) for i, (label, colour) in enumerate(pairs) if mask is None or mask[i])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups") / "run"
    sizes = {"width": 8, "latent_dim": 4, "sampling": "prior"}
    with mock.patch.object(completion, "fit_judge", functools.partial(fit_judge, steps=60)):
        synthaug.fit(make_rows(), "cvae", output=folder, images=320, group_by=["label", "colour"], **sizes)
    return folder


def test_only_groups_that_occur_are_classes_in_the_order_of_their_values():
    images = load_images(make_rows(), group_by=["label", "colour"])
    assert images.class_counts == {
        "zero · blue": 2, "zero · red": 12, "one · blue": 12, "two · blue": 9, "two · red": 9,
    }  # fmt: skip
    assert images.columns.groups == ("label", "colour")
    assert absent_groups(images.class_names) == ["one · red"]


def test_a_row_without_a_value_counts_as_unlabelled():
    images = load_images(make_rows(unknown=1), group_by=["label", "colour"])
    assert images.unlabelled == 2
    assert images.class_counts["zero · red"] == 11


def test_the_plan_balances_the_joint_groups():
    plan = synthaug.plan_balance(make_rows(), group_by=["label", "colour"])
    assert plan.missing == {"zero · blue": 10, "zero · red": 0, "one · blue": 0, "two · blue": 3, "two · red": 3}
    assert count_classes(make_rows()) == {"zero": 14, "one": 12, "two": 18}


@pytest.mark.parametrize("order", [["label", "colour"], ["colour", "label"]])
def test_names_follow_the_order_of_the_columns(order):
    names = load_images(make_rows(), group_by=order).class_names
    assert ("zero · red" in names) == (order[0] == "label")
    assert ("red · zero" in names) == (order[0] == "colour")


@pytest.mark.parametrize(
    ("group_by", "said"),
    [
        (["label", "color"], "no such column.*'colour'"),
        (["colour", "age"], "without the label column 'label'; add it"),
        (["label"], "at least one other"),
        (["label", "label"], "each once"),
        (["label", "image"], "holds no class labels"),
    ],
)
def test_columns_that_cannot_be_grouped_by_are_refused_in_one_line(group_by, said):
    with pytest.raises(InputError, match=said) as error:
        load_images(make_rows(), group_by=group_by)
    assert "\n" not in str(error.value)


def test_a_column_of_many_values_and_a_value_with_the_mark_are_refused():
    many = Dataset.from_dict({"label": ["a", "b"] * 60, "site": list(range(120))})
    with pytest.raises(InputError, match=f"'site'.* has 120 distinct values; at most {MAX_VALUES}"):
        read_groups(many, ["label", "site"], "label")
    with pytest.raises(InputError, match="the mark between"):
        read_groups(Dataset.from_dict({"label": ["a · b"], "site": [1]}), ["label", "site"], "label")


def test_truth_values_and_integers_are_groups_too():
    rows = Dataset.from_dict({"label": [3, 3, 5], "flag": [True, False, True]})
    read = read_groups(rows, ["label", "flag"], "label")
    assert read.names == ("3 · False", "3 · True", "5 · True")
    assert read.index.tolist() == [1, 0, 2]


def test_absent_groups_are_counted_without_being_made():
    names = [" · ".join(f"{column}{row}" for column in "abcde") for row in range(90)]
    assert absent_groups(names, 2) == ["a0 · b0 · c0 · d0 · e1", "a0 · b0 · c0 · d0 · e2"]
    assert describe_absent(names, 1).startswith("5,904,899,910 groups are absent and none is generated for them: 'a0")
    assert describe_absent(["3 · red", "3 · blue"]) == ""


def test_inspect_names_the_groups_and_the_absent_ones():
    found = inspect_dataset(make_rows(), group_by=["label", "colour"])
    assert found.class_counts["zero · blue"] == 2
    assert "1 group is absent and none is generated for it: 'one · red'" in found.table()
    assert found.plan.missing["zero · blue"] == 10


def test_the_run_remembers_columns_and_values(run):
    source = read_source(run)
    assert source["group_by"] == ["label", "colour"]
    assert source["groups"]["two · red"] == {"label": 2, "colour": "red"}
    assert list(source["class_counts"]) == list(source["groups"])
    assert load_run(run).attributes == [[0, 0], [0, 1], [1, 0], [2, 0], [2, 1]]


def test_attributes_begin_with_the_label_wherever_it_stands():
    columns = Columns("image", "digit", ("colour", "digit"))
    names = ["red · 3", "red · 5", "blue · 3"]
    assert split_attributes(names, columns) == [[0, 0], [1, 0], [0, 1]]
    assert split_attributes(["a", "b"], Columns("image", "label")) is None


def test_generated_rows_carry_the_values_and_the_result_is_balanced(run, tmp_path):
    real = make_rows()
    real.save_to_disk(str(tmp_path / "real"))
    arguments = {"mix_with": str(tmp_path / "real"), "group_by": ["label", "colour"]}
    generate_dataset(run, tmp_path / "out", {"filter": "none"}, **arguments)
    mixed = synthaug.open_dataset(str(tmp_path / "out"), "train")
    assert set(groups_of(mixed).values()) == {12}
    assert len(groups_of(mixed)) == 5
    made = np.array(mixed["synthetic"][:])
    assert groups_of(mixed, made) == {("zero", "blue"): 10, ("two", "blue"): 3, ("two", "red"): 3}
    assert mixed["age"][:][: len(real)] == real["age"][:]
    assert set(np.array(mixed["age"][:], dtype=object)[made]) == {None}
    assert {name: mixed.features[name] for name in real.features} == dict(real.features)
    record = json.loads((tmp_path / "out" / "synthaug.json").read_text())
    assert record["group_by"] == ["label", "colour"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "zero · blue" in card
    assert "the classes are the groups of label, colour; 1 group is absent" in card
    assert groups_of(synthaug.strip(mixed)) == groups_of(real)


def test_generate_needs_no_flag_and_refuses_another_one(run, tmp_path):
    generate_dataset(run, tmp_path / "alone", {"filter": "none", "per_class": 2})
    assert set(groups_of(synthaug.open_dataset(str(tmp_path / "alone"), "train")).values()) == {2}
    with pytest.raises(InputError, match=r"group_by is label,age, but the run was fitted by label,colour"):
        generate_dataset(run, tmp_path / "other", {}, group_by=["label", "age"])
    made = (tmp_path / "alone" / "synthaug.json").stat().st_mtime_ns
    generate_dataset(run, tmp_path / "alone", {"filter": "none", "per_class": 2}, group_by=["colour", "label"])
    assert (tmp_path / "alone" / "synthaug.json").stat().st_mtime_ns == made  # the order of the columns does not matter
    with pytest.raises(InputError, match="'colour', but there is no such column"):
        bare = make_rows().remove_columns("colour")
        bare.save_to_disk(str(tmp_path / "bare"))
        generate_dataset(run, tmp_path / "third", {}, mix_with=str(tmp_path / "bare"))


def test_the_same_fit_is_found_and_another_grouping_is_another_fit(run):
    again = synthaug.fit(make_rows(), "cvae", output=run, recipe=_recipe(run))
    assert again.class_names[0] == "zero · blue"
    other = _recipe(run)
    other["dataset"]["group_by"] = None
    with pytest.raises(InputError, match=r"dataset\.group_by"):
        synthaug.fit(make_rows(), "cvae", output=run, recipe=other)


def _recipe(run):
    from synthaug.recipe import read_recipe

    return read_recipe(run / "recipe.yaml")


def test_a_recipe_takes_a_list_or_names_with_commas():
    values = {"dataset": {"path": "digits", "group_by": "label, site"}, "generator": {"family": "cvae"}}
    assert parse_recipe(values).dataset.group_by == ["label", "site"]


def test_commands_take_the_flag(run, tmp_path, capsys):
    make_rows().save_to_disk(str(tmp_path / "real"))
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(tmp_path / "real"), "--group-by", "label,colour"])
    assert stopped.value.code == 0
    assert "two · red" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["fit", str(tmp_path / "real"), "--generator", "cvae", "--group-by", "label,colour", "--dry-run"])
    assert stopped.value.code == 0
    assert "5 occur; 1 group is absent and none is generated for it: 'one · red'" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(tmp_path / "real"), "--group-by", "label,site"])
    assert stopped.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_score_predicts_the_label_of_the_group(run, tmp_path):
    scores = synthaug.score(load_run(run), make_rows(), output=tmp_path / "scored")
    again = synthaug.score(load_run(run), make_rows(), output=tmp_path / "scored")
    assert again.folder == scores.folder
    scored = synthaug.open_dataset(str(tmp_path / "scored"), "train")
    assert set(scored["predicted_label"][:]) <= {0, 1, 2}
    assert len(scored) == len(make_rows())


# ------------------------------------------------------------------------------------------ in a training loop

GROUP_BY = ["label", "colour"]


def test_a_mixture_draws_the_group_of_each_row(run):
    rows = make_rows(unknown=3)
    mixed = synthaug.MixedDataset(
        rows, load_run(run), share={"zero · blue": 1.0, "two · red": 1.0}, group_by=GROUP_BY, filter="none"
    )
    wanted = {("zero", "blue"), ("two", "red")}
    labels, names = rows["label"][:], rows.features["label"].names
    drawn = [(names[label], colour) in wanted for label, colour in zip(labels, rows["colour"][:], strict=True)]
    assert mixed.find_synthetic().tolist() == drawn
    for index in np.flatnonzero(drawn):
        sample = mixed[int(index)]
        assert (sample["label"], sample["colour"]) == (labels[index], rows["colour"][:][index])
        assert sample["age"] is None
    supply = mixed._supply
    assert [supply.class_names[c] for c in sorted(set(mixed._classes[drawn]))] == ["zero · blue", "two · red"]


def test_a_mixture_takes_stored_rows_of_the_same_group(run):
    rows = make_rows()
    plan = synthaug.plan_balance(rows, group_by=GROUP_BY)
    made = synthaug.generate(load_run(run), plan, filter="none")
    mixed = synthaug.MixedDataset(rows, made, share=1.0, group_by=GROUP_BY)
    known = {np.asarray(image).tobytes(): (label, colour) for image, label, colour in zip(
        made["image"], made["label"][:], made["colour"][:], strict=True)}  # fmt: skip
    found = [mixed[int(index)] for index in np.flatnonzero(mixed.find_synthetic())]
    assert len(found) == 2 + 9 + 9  # the rows of the three groups that the plan filled
    for sample in found:
        assert known[np.asarray(sample["image"]).tobytes()] == (sample["label"], sample["colour"])


def test_labels_are_never_taken_for_numbers_of_groups(run):
    generator, rows = load_run(run), make_rows()
    pairs = [(np.zeros((8, 8, 3), np.uint8), label) for label in (0, 1, 2)]
    refused = "classes are joint groups, such as 'zero · blue', and the labels are not"
    for make in (
        lambda: synthaug.MixedDataset(rows, generator, filter="none"),
        lambda: synthaug.MixedDataset(pairs, generator, filter="none"),
        lambda: synthaug.MixedIterable(rows.to_iterable_dataset(), generator, filter="none"),
        lambda: synthaug.ReplaceWithSynthetic(generator, filter="none"),
    ):
        with pytest.raises(InputError, match=refused):
            make()
    with pytest.raises(InputError, match=r"real is a list; give a datasets\.Dataset"):
        synthaug.MixedDataset(pairs, generator, group_by=GROUP_BY, filter="none")
    named = synthaug.ReplaceWithSynthetic(generator, p=1.0, class_names=generator.class_names, filter="none")
    images, labels = named(torch.zeros(2, 3, 8, 8), torch.tensor([0, 4]))
    assert images.flatten(1).any(1).all()
    assert labels.tolist() == [0, 4]


def test_a_sampler_refuses_labels_that_name_no_group(run):
    pytest.importorskip("imblearn")
    pixels, labels = np.zeros((6, 8, 8, 3), np.uint8), np.array([0, 0, 0, 0, 1, 1])
    with pytest.raises(InputError, match="label 1 is no class of the generator, which knows 'zero · blue'"):
        synthaug.SynthAugSampler(load_run(run), filter="none").fit_resample(pixels, labels)
    made, found = synthaug.SynthAugSampler(
        load_run(run), class_names={0: "zero · blue", 1: "two · red"}, filter="none"
    ).fit_resample(pixels, labels)
    assert np.bincount(found).tolist() == [4, 4]
    assert made[6:].any()
