"""Inspection counts what is there, in every split, and says what a fit would see."""

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage

from synthaug.core import InputError
from synthaug.data import inspect_dataset


def png(seed, size=10):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size), dtype=np.uint8)
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


FEATURES = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "unused"]), "note": Value("string")})


def table(data, labels):
    rows = {"image": [{"bytes": x, "path": None} for x in data], "label": labels, "note": [""] * len(labels)}
    return pa.Table.from_pydict(rows, schema=FEATURES.arrow_schema)


@pytest.fixture
def folder(tmp_path):
    train = [*(png(seed) for seed in range(20)), png(0), png(3), b"junk", png(30), png(50, 12)]
    labels = [0] * 15 + [1] * 5 + [0, 1, 0, None, 0]
    pq.write_table(table(train, labels), tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table([png(1), png(100), png(1)], [0, 1, 0]), tmp_path / "test-00000-of-00001.parquet")
    return tmp_path


def test_what_is_found(folder):
    found = inspect_dataset(str(folder))
    train, test = found.splits["train"], found.splits["test"]
    assert (found.columns.image, found.columns.label) == ("image", "label")
    assert found.class_counts == {"cat": 17, "dog": 6} and found.imbalance_factor == pytest.approx(17 / 6)
    assert [(bad.row, bad.reason[:5]) for bad in train.corrupt] == [(22, "not a")]
    assert train.rows == 25 and train.unlabelled == 1 and train.synthetic == 0
    assert train.duplicates == 2 and train.conflicts == ((3, 21),)
    assert test.duplicates == 1 and found.shared == {("train", "test"): 2}
    assert train.sizes == {(10, 10): 23, (12, 12): 1} and train.modes == {"L": 24}
    assert found.plan.missing == {"cat": 0, "dog": 11}
    assert found.training + found.validation == 23 and found.memory == 23 * 100


def test_table_says_it(folder):
    text = inspect_dataset(str(folder)).table()
    for piece in (
        "column 'image' (Image)", "column 'label' (ClassLabel)", "'note' (string)", "25 rows",
        "1 unlabelled", "1 corrupt", "row 22: not a PNG", "10x10 (23), 12x12 (1)", "L (24)",
        "2 rows repeat", "rows 3, 21", "2 rows of 'test'",
        "imbalance factor 2.83", "10x10x1 uint8", "suggested plan (majority)", "dog",
    ):  # fmt: skip
        assert piece in text, piece
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_a_dataset_object_and_its_options(folder):
    dataset = Dataset(table([png(seed) for seed in range(30)], [0] * 20 + [1] * 10))
    found = inspect_dataset(dataset, image_size=16, limit_per_class=12)
    assert found.codec.image_size == 16 and found.plan.real == {"cat": 12, "dog": 10}
    assert found.training + found.validation == 22 and found.class_counts == {"cat": 20, "dog": 10}
    other = inspect_dataset(str(folder), split="test", label_column="label")
    assert other.split == "test" and other.shared == {("test", "train"): 1}


def test_images_that_lose_most_of_themselves_to_the_crop_are_told(tmp_path):
    buffer = io.BytesIO()
    PillowImage.new("L", (30, 10)).save(buffer, "PNG")
    pq.write_table(table([png(0), buffer.getvalue(), png(1)], [0, 1, 0]), tmp_path / "long.parquet")
    text = inspect_dataset(str(tmp_path / "long.parquet")).table()
    assert re.search(r"cropped +1 images are more than \S+ times as long as wide: only the square in the middle", text)
    pq.write_table(table([png(0), png(1)], [0, 1]), tmp_path / "square.parquet")
    assert "cropped" not in inspect_dataset(str(tmp_path / "square.parquet")).table()


def test_a_split_without_labels_is_skipped(tmp_path):
    pq.write_table(table([png(0), png(1)], [0, 1]), tmp_path / "train.parquet")
    pq.write_table(table([png(2)], [0]).select(["image"]), tmp_path / "test.parquet")
    found = inspect_dataset(str(tmp_path))
    assert list(found.splits) == ["train"] and "no column 'label'" in found.skipped["test"]
    assert "not read: no column 'label'" in found.table()


@pytest.mark.parametrize(
    ("labels", "options", "match"),
    [
        ([0, 0], {}, "the one class 'cat'"),
        ([None, -1], {}, "no class"),
        ([0, 1], {"split": "tran"}, "no split 'tran'; there are 'train'.*did you mean"),
        ([0, 1], {"image_size": 0}, "image_size is 0"),
        ([0, 1], {"limit_per_class": 0}, "limit_per_class is 0"),
        ([0, 1], {"image_column": "picture"}, "no column 'picture'"),
    ],
)
def test_bad_input(tmp_path, labels, options, match):
    pq.write_table(table([png(0), png(1)], labels), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=match) as caught:
        inspect_dataset(str(tmp_path / "x.parquet"), **options)
    assert "\n" not in str(caught.value)
