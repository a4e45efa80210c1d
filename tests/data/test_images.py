"""Rows become pixels and labels; bad rows are found; choices of rows depend on pixels, not on order."""

import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, concatenate_datasets
from hypothesis import given, settings, strategies as st
from PIL import Image as PillowImage

from synthaug.core import FailedError, InputError
from synthaug.data import (
    PROVENANCE,
    Codec,
    count_classes,
    find_columns,
    has_provenance,
    label_value,
    limit_images,
    load_images,
    make_long_tailed,
    plan_balance,
    scan,
    split_validation,
)
from synthaug.data.codec import pixel_hash
from synthaug.data.subsets import choose_limited, choose_long_tail, choose_validation


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(seed, size=(10, 10), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return PillowImage.fromarray(pixels).convert(mode)


def make(images, labels, names=("a", "b"), kind=None, **extra):
    rows = [image if isinstance(image, dict) else {"bytes": image, "path": None} for image in images]
    features = Features({"image": Image(), "label": kind or ClassLabel(names=list(names))})
    features.update({name: feature for name, (feature, _) in extra.items()})
    columns = {"image": rows, "label": labels, **{name: values for name, (_, values) in extra.items()}}
    return Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def pictures(labels, names=("a", "b"), **options):
    return make([encode(picture(seed)) for seed in range(len(labels))], labels, names, **options)


def fails(match, call, *arguments, **options):
    with pytest.raises(InputError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_load_images():
    dataset = pictures([0, 1, 1, 0, 1])
    images = load_images(dataset)
    assert images.pixels.shape == (5, 10, 10, 3) and images.pixels.dtype == np.uint8
    assert images.labels.tolist() == [0, 1, 1, 0, 1] and images.labels.dtype == np.int64
    assert images.class_counts == {"a": 2, "b": 3} and images.rows.tolist() == [0, 1, 2, 3, 4]
    assert images.codec == Codec(10, 3) and images.corrupt == () and images.unlabelled == 0
    assert (images.pixels[2] == np.asarray(picture(2))).all()
    assert images.hashes[2] == pixel_hash(picture(2)) and images.hashes.dtype == "<U64"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.select([4, 1, 1, 0]),
        lambda d: d.shuffle(seed=3),
        lambda d: d.filter(lambda row: row["label"] == 1 or row["id"] == 0, load_from_cache_file=False),
        lambda d: d.sort("label").select(range(1, 5)),
        lambda d: concatenate_datasets([d.select([3]), d.select([2, 1])]),
        lambda d: d.with_format("numpy"),
        lambda d: d.cast_column("image", Image(decode=False)),
        lambda d: d.add_column("more", list(range(5))).flatten_indices(),
    ],
)
def test_a_dataset_keeps_its_own_rows(change):
    dataset = change(pictures([0, 1, 1, 0, 1], id=(Value("int64"), list(range(5)))))
    images = load_images(dataset)
    ids = [int(number) for number in dataset.with_format(None)["id"]]
    assert [pixel_hash(picture(number)) for number in ids] == images.hashes.tolist()
    assert [[0, 1, 1, 0, 1][number] for number in ids] == images.labels.tolist()


@pytest.mark.parametrize(
    ("kind", "labels", "names", "index"),
    [
        (Value("string"), ["b", "", "😀", "b", None], ("", "b", "😀"), [1, 0, 2, 1]),
        (Value("large_string"), ["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (Value("int32"), [10, -1, 9, None, -7], ("-7", "9", "10"), [2, 1, 0]),
        (Value("uint8"), [200, 3], ("3", "200"), [1, 0]),
        (Value("bool"), [True, None, False], ("False", "True"), [1, 0]),
        (
            ClassLabel(names=["a/b", "unused", "../x", ""]),
            [3, 0, -1, None, 2],
            ("a/b", "../x", ""),
            [2, 0, 1],
        ),
    ],
)
def test_labels_of_every_kind(kind, labels, names, index):
    dataset = pictures(labels, kind=kind)
    images = load_images(dataset)
    assert images.class_names == names and images.labels.tolist() == index
    assert images.unlabelled == len(labels) - len(index)
    assert count_classes(dataset) == images.class_counts
    for row, label in zip(images.rows, images.labels, strict=True):
        assert label_value(dataset.features, "label", names[label]) == labels[row]


def test_a_thousand_classes():
    names = [f"class {number}" for number in range(1000)]
    tiny = [encode(PillowImage.new("RGB", (8, 8), (number % 256, number // 256, 0))) for number in range(1000)]
    order = np.random.default_rng(0).permutation(1000)
    images = load_images(make([tiny[number] for number in order], order.tolist(), names))
    assert images.class_names == tuple(names)
    pixels = images.pixels[:, 0, 0].astype(int)
    values = pixels[:, 0] + 256 * pixels[:, 1]
    assert (values == images.labels).all()


def test_label_outside_the_names():
    dataset = make([encode(picture(0))] * 2, [0, 1], kind=ClassLabel(names=["a", "b"]))
    table = dataset.data.table.set_column(1, "label", pa.array([0, 5]))
    bad = Dataset(table.replace_schema_metadata(dataset.features.arrow_schema.metadata))
    fails("row 1 has label 5, but the column names only 2 classes", load_images, bad)


def odd_images():
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    deep = PillowImage.fromarray(np.linspace(0, 60000, 100).astype(np.uint16).reshape(10, 10))
    palette = PillowImage.new("P", (10, 10), 1)
    palette.putpalette([0, 0, 0, 90, 80, 70])
    return [
        encode(picture(0, mode="1")), encode(picture(1, mode="L")), encode(picture(2, mode="LA")),
        encode(palette, transparency=1), encode(picture(3)), encode(picture(4, mode="RGBA")),
        encode(picture(5, mode="CMYK"), "JPEG"), encode(deep), encode(picture(6, (12, 10)), exif=exif),
        encode(picture(7, (1, 1))), encode(picture(8, (9, 30))),
    ]  # fmt: skip


def bad_images():
    good = encode(picture(9))
    return {
        "empty bytes": b"",
        "no image": None,
        "not a PNG": b"<html>404</html>",
        "broken": good[: len(good) // 2],
        "bomb": encode(PillowImage.new("1", (10000, 10000))),
    }


def test_every_mode_in_one_dataset():
    images = load_images(make(odd_images(), [0, 1] * 5 + [0]))
    assert images.pixels.shape == (11, 10, 10, 3)
    deep = images.pixels[7, :, :, 0]
    assert len(np.unique(deep)) > 90 and deep.max() < 255  # not saturated
    assert images.codec == Codec(10, 3, (0.0, 65535.0), "mixed")


def test_corrupt_rows_are_listed_or_left_out():
    bad = bad_images()
    content = [
        encode(picture(0)),
        *bad.values(),
        encode(picture(1)),
        {"bytes": None, "path": "/no/such/file.png"},
    ]
    dataset = make(content, [0, 1, 0, 1, 0, 1, 1, 0])
    message = fails("6 of 8 images in 'image' are corrupt", load_images, dataset)
    for row, reason in enumerate(bad, start=1):
        assert f"row {row}: " in message and reason in message
    assert "and 1 more" in message and "'skip'" in message
    images = load_images(dataset, on_bad_image="skip")
    assert images.rows.tolist() == [0, 6] and images.class_counts == {"a": 1, "b": 1}
    assert [found.row for found in images.corrupt] == [1, 2, 3, 4, 5, 7]
    for found, reason in zip(images.corrupt, [*bad, "cannot read"], strict=True):
        assert reason in found.reason
    fails("on_bad_image is 'ignore'; give 'error' or 'skip'", load_images, dataset, on_bad_image="ignore")


def test_nothing_left():
    fails("no usable image is left", load_images, make([b"", b"x"], [0, 1]), on_bad_image="skip")
    fails("no rows", load_images, make([], []))
    fails("none of the 2 rows has a label", load_images, pictures([-1, None]))
    fails("only one class, 'b' .2 rows.", load_images, pictures([1, 1, -1]))


@pytest.mark.parametrize(
    ("images", "codec"),
    [
        ([picture(0, (28, 28), "L")] * 3, Codec(28, 1)),
        ([picture(0, (28, 28), "L"), picture(1, (28, 28))], Codec(28, 3)),
        ([picture(0, (200, 100), "LA")] * 2, Codec(64, 2)),
        ([picture(0, (9, 99), "RGBA"), picture(0, (9, 9), "LA")], Codec(9, 4)),
        ([picture(0, (4, 4), "RGBA"), picture(0, (4, 4))], Codec(8, 3)),
        ([picture(0, (20, 30))] * 3 + [picture(0, (50, 50))] * 2, Codec(20, 3)),
        ([picture(0, mode="1"), PillowImage.new("P", (10, 10), 0)], Codec(10, 1)),
    ],
)
def test_codec_follows_from_the_data(images, codec):
    dataset = make([encode(image) for image in images], [number % 2 for number in range(len(images))])
    assert load_images(dataset).codec == codec


@pytest.mark.parametrize(
    ("low", "high", "kind", "expected"),
    [
        (0, 4000, np.uint16, (0.0, 4095.0)),
        (5, 200, np.uint16, (0.0, 255.0)),
        (0, 65535, np.uint16, (0.0, 65535.0)),
        (-7, 300, np.int32, (-7.0, 300.0)),
        (0, 0.9, np.float32, (0.0, 1.0)),
        (0, 254, np.float32, (0.0, 255.0)),
        (-1, 1, np.float32, (-1.0, 1.0)),
        (0, 0, np.uint16, (0.0, 1.0)),
    ],
)
def test_value_range_of_deep_images(low, high, kind, expected):
    ramps = [np.linspace(low, top, 64).astype(kind).reshape(8, 8) for top in (low, high)]
    dataset = make([encode(PillowImage.fromarray(ramp), "TIFF") for ramp in ramps], [0, 1])
    images = load_images(dataset)
    assert images.codec.channels == 1 and images.codec.value_range == pytest.approx(expected)
    if high > low:
        assert len(np.unique(images.pixels[1])) > 40


def test_codec_of_all_rows_where_the_sample_misleads():
    tiny = encode(PillowImage.new("L", (8, 8)))
    content = [tiny] * 200
    content[1] = encode(PillowImage.new("RGB", (8, 8), (1, 2, 3)))
    images = load_images(make(content, [0, 1] * 100))
    assert images.codec == Codec(8, 3) and images.pixels[1, 0, 0].tolist() == [1, 2, 3]


def test_test_rows_take_codec_and_names():
    train = load_images(pictures([0, 1, 2, 0], ("x", "y", "z")))
    test = pictures(["z", "x", None], kind=Value("string"))
    images = load_images(test, codec=Codec(16, 1), class_names=train.class_names)
    assert images.labels.tolist() == [2, 0] and images.class_names == ("x", "y", "z")
    assert images.pixels.shape == (2, 16, 16, 1) and images.class_counts == {"x": 1, "y": 0, "z": 1}
    fails(
        "row 0 has the class 'w', which is not among 'x', 'y'",
        load_images,
        pictures(["w", "x"], kind=Value("string")),
        class_names=("x", "y"),
    )


def test_synthetic_rows_are_left_out():
    provenance = [None, {"generator": "cvae@1", "checkpoint": "c", "seed": 0, "draw": 1}, None, None]
    dataset = pictures(
        [0, 1, 1, 0],
        synthetic=(Value("bool"), [False, True, False, None]),
        provenance=(PROVENANCE, provenance),
    )
    assert has_provenance(dataset.features)
    images = load_images(dataset)
    assert images.rows.tolist() == [0, 2, 3]
    assert count_classes(dataset) == {"a": 2, "b": 1}
    fails("all 1 rows are synthetic", load_images, dataset.select([1]))


@pytest.mark.parametrize(
    "extra",
    [
        {"synthetic": (Value("bool"), [True, False])},
        {"provenance": (Value("string"), ["a", "b"])},
        {"synthetic": (Value("string"), ["a", "b"]), "provenance": (PROVENANCE, [None, None])},
    ],
)
def test_foreign_columns_of_our_names(extra):
    fails("has its own column '(synthetic|provenance)'.*rename or drop", load_images, pictures([0, 1], **extra))


def test_find_columns():
    both = pictures([0, 1], text=(Value("string"), ["x", "y"]), score=(Value("float32"), [0.0, 1.0]))
    columns = find_columns(both)
    assert (columns.image, columns.label) == ("image", "label")
    assert find_columns(both, label_column="text").label == "text"
    fails("no column 'lable'; the columns are .*did you mean 'label'", find_columns, both, label_column="lable")
    fails(
        "column 'score' .float32. holds no labels, .* would; choose from 'label', 'text'; if 'score' holds",
        find_columns,
        both,
        label_column="score",
    )
    fails("holds no images, .* would; choose from 'image'", find_columns, both, image_column="text")
    fails("2 columns may hold the labels: 'text', 'number'; name one with label_column=", find_columns,
          both.remove_columns("label").add_column("number", [1, 2]))  # fmt: skip
    fails("no label column", find_columns, both.select_columns(["image", "score"]))
    fails("no image column", find_columns, both.select_columns(["label", "text"]))
    two = pictures([0, 1], fine=(ClassLabel(names=["u", "v"]), [0, 1]))
    fails("2 columns may hold the labels: 'label', 'fine'", find_columns, two)
    masks = pictures([0, 1], mask=(Image(), [None, None]))
    fails("2 columns may hold the images: 'image', 'mask'; name one with image_column=", find_columns, masks)


@pytest.mark.parametrize("kind", ["float64", "int64", "bool"])
def test_labels_in_one_hot_form_get_advice_of_their_own(kind):
    cast = {"float64": float, "int64": int, "bool": bool}[kind]
    columns = {name: (Value(kind), [cast(row % 3 == place) for row in range(6)]) for place, name in enumerate("xyz")}
    rows = pictures([0, 1] * 3, **columns).remove_columns("label")
    match = "'x', 'y', 'z' are one label in one-hot form .0 and 1.: write one column with the name of the class"
    fails(match, find_columns, rows)
    if kind != "float64":
        assert find_columns(rows, label_column="x").label == "x"


def test_columns_of_zero_and_one_that_are_no_one_hot_form_are_named():
    flags = {name: (Value("int64"), [int(row >= place) for row in range(4)]) for place, name in enumerate("pq")}
    rows = pictures([0, 1] * 2, **flags).remove_columns("label")
    fails("2 columns may hold the labels: 'p', 'q'; name one with label_column=", find_columns, rows)
    several = {name: (Value("float64"), [float(row >= place) for row in range(4)]) for place, name in enumerate("pqr")}
    fails(
        "'p', 'q', 'r' are several labels in a row",
        find_columns,
        pictures([0, 1] * 2, **several).remove_columns("label"),
    )


def test_a_list_of_labels_in_a_row_gets_advice():
    rows = pictures([0, 1], tags=(List(Value("string")), [["a"], ["a", "b"]])).remove_columns("label")
    fails("'tags' holds a list in each row: write one label into a column of its own", find_columns, rows)


def test_many_columns_make_no_long_line():
    numbers = {f"feature number {place}": (Value("float64"), [0.5, 1.5]) for place in range(50)}
    with pytest.raises(InputError, match="and 43 more") as caught:
        find_columns(pictures([0, 1], **numbers).remove_columns("label"))
    assert len(str(caught.value)) < 500


def test_two_spellings_of_a_class_label_are_refused():
    fails(r"in two spellings, 'e.u0301' and '.xe9'", load_images, pictures([0, 1], names=("e\u0301", "\u00e9")))


def test_a_decoder_writes_nothing_to_stderr(capfd):
    data = [bytearray(encode(picture(seed), "TIFF", compression="tiff_lzw")) for seed in range(6)]
    for broken in data[::2]:
        broken[20:60] = bytes(value ^ 0x5A for value in broken[20:60])
    found = load_images(make([bytes(one) for one in data], [0, 1] * 3), on_bad_image="skip", class_names=("a", "b"))
    assert len(found.corrupt) == 3
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_only_a_dataset_will_do():
    dataset = pictures([0, 1])
    fails("dataset is a DatasetDict; give one split", load_images, DatasetDict({"train": dataset}))
    fails("dataset is a IterableDataset; give one split", load_images, dataset.to_iterable_dataset())


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    dataset = make([encode(picture(0)), {"bytes": None, "path": str(tmp_path / "pipe.png")}], [0, 1])
    fails("row 1: cannot read .*no such file", load_images, dataset)


def test_plain_columns_count_as_images():
    data = [encode(picture(0)), encode(picture(1))]
    for column in (
        pa.array(data, pa.large_binary()),
        pa.array([{"bytes": item, "path": None} for item in data]),
    ):
        dataset = Dataset(pa.table({"x": column, "label": ["a", "b"], "blob": pa.array([b"no", b"image"])}))
        images = load_images(dataset)
        assert images.columns.image == "x" and images.hashes[1] == pixel_hash(picture(1))


@pytest.mark.parametrize("bad", [0, -4, 5, 2000, 8.5, True])
def test_image_size_out_of_range(bad):
    fails("image_size is .* give an integer from 8 to 1024", load_images, pictures([0, 1]), image_size=bad)


@pytest.mark.parametrize("bad", [0, -1, 1.5, True])
def test_limit_out_of_range(bad):
    fails("limit_per_class is .* at least 1", load_images, pictures([0, 1]), limit_per_class=bad)
    fails("limit_per_class", limit_images, load_images(pictures([0, 1])), bad)


def test_image_size_and_limit():
    images = load_images(pictures([0, 1] * 6), image_size=16, limit_per_class=2)
    assert images.pixels.shape == (4, 16, 16, 3) and images.class_counts == {"a": 2, "b": 2}
    again = load_images(pictures([0, 1] * 6).select(range(11, -1, -1)), image_size=16, limit_per_class=2)
    assert set(again.hashes) == set(images.hashes)


# --- large data: the memory-mapped cache


@pytest.fixture
def tiny_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(scan, "MEMORY_LIMIT", 1000)
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_large_data_is_cached_on_disk(tiny_memory, monkeypatch):
    dataset = make([encode(picture(seed)) for seed in range(8)] + [b""], [0, 1] * 4 + [0])
    expected = load_images(dataset.select(range(8)))
    first = load_images(dataset, on_bad_image="skip")
    assert isinstance(first.pixels, np.memmap) and (first.pixels == expected.pixels).all()
    calls = []
    monkeypatch.setattr(scan, "_decode", lambda *arguments: calls.append(arguments))
    again = load_images(dataset, on_bad_image="skip")
    assert not calls and (again.pixels == first.pixels).all() and (again.hashes == first.hashes).all()
    assert again.corrupt == first.corrupt and again.codec == first.codec
    fails("1 of 9 images", load_images, dataset)
    assert not [path for path in tiny_memory.iterdir() if path.name.startswith(".")]
    train, validation = split_validation(again, 1)
    assert isinstance(train.pixels, np.memmap) and len(train) == 6 and len(validation) == 2
    assert (train.pixels == expected.pixels[train.rows]).all()
    assert not [path for path in tiny_memory.iterdir() if not path.is_dir()]


def test_cache_is_keyed_by_what_matters(tiny_memory, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(picture(number)))
    dataset = make([{"bytes": None, "path": str(path)} for path in paths], [0, 1, 0, 1])
    before = load_images(dataset)
    load_images(dataset, image_size=12)
    load_images(dataset.select([3, 2, 1, 0]))
    assert len(list(tiny_memory.iterdir())) == 3
    paths[0].write_bytes(encode(picture(50)))
    assert load_images(dataset).hashes[0] == pixel_hash(picture(50)) != before.hashes[0]


def test_a_failed_scan_leaves_no_cache(tiny_memory, monkeypatch):
    monkeypatch.setattr(scan.np, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        load_images(pictures([0, 1] * 4))
    assert list(tiny_memory.iterdir()) == []


def test_no_room_on_disk(tiny_memory, monkeypatch):
    monkeypatch.setattr(scan.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(FailedError, match="SYNTHAUG_CACHE"):
        load_images(pictures([0, 1] * 4))


# --- choices of rows


@pytest.mark.parametrize(
    ("rows", "validation", "held"),
    [(4, "auto", 0), (5, "auto", 1), (9, "auto", 1), (99, "auto", 19), (100, "auto", 10), (250, "auto", 25),
     (10, 0, 0), (10, 0.0, 0), (10, None, 0), (10, 0.25, 2), (3, 0.1, 1), (1, 0.5, 0), (10, 3, 3),
     (10, 9, 9)],
)  # fmt: skip
def test_number_of_validation_rows(rows, validation, held):
    hashes = np.array([f"{number * 7919 % 1009:064x}" for number in range(rows)])
    chosen = choose_validation(np.zeros(rows, np.int64), hashes, ["a"], validation)
    assert chosen.sum() == held
    assert set(hashes[chosen]) == set(np.sort(hashes)[:held])


@pytest.mark.parametrize("bad", [-1, 1.0, 1.5, -0.1, True, "half", float("nan"), [1]])
def test_validation_out_of_range(bad):
    fails("validation is .* give 'auto', a fraction", split_validation, load_images(pictures([0, 1, 0, 1])), bad)


def test_more_validation_rows_than_there_are():
    fails(
        "validation is 2 rows per class, but class 'a' has only 2",
        split_validation,
        load_images(pictures([0, 1, 0, 1, 1])),
        2,
    )


rows_strategy = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60)), min_size=1, max_size=150)
validation_strategy = st.one_of(st.just("auto"), st.floats(0.01, 0.9), st.just(1))


@settings(max_examples=200, deadline=None)
@given(rows_strategy, validation_strategy, st.randoms(use_true_random=False))
def test_validation_properties(rows, validation, random):
    def choose(pairs):
        labels = np.array([label for label, _ in pairs], dtype=np.int64)
        hashes = np.array([f"{pixel:064x}" for _, pixel in pairs])
        return labels, hashes, choose_validation(labels, hashes, ["a", "b", "c", "d"], validation)

    counts = np.bincount([label for label, _ in rows], minlength=4)
    if validation == 1 and (counts == 1).any():
        return
    labels, hashes, held = choose(rows)
    assert not set(hashes[held]) & set(hashes[~held])  # equal pixels never on both sides
    for label, count in enumerate(counts):
        assert count == 0 or (~held[labels == label]).any()  # something is left to learn from
    shuffled = random.sample(rows, len(rows))
    _, other, also = choose(shuffled)
    assert set(other[also]) == set(hashes[held])  # whatever the row order


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=120), st.integers(1, 40))
def test_limit_properties(labels, limit):
    labels = np.array(labels, dtype=np.int64)
    hashes = np.array([f"{number * 7919 % 104729:064x}" for number in range(len(labels))])
    kept = choose_limited(labels, hashes, limit)
    assert (np.diff(kept) > 0).all()
    assert (np.bincount(labels[kept], minlength=4) == np.minimum(np.bincount(labels, minlength=4), limit)).all()
    back = choose_limited(labels[::-1], hashes[::-1], limit)
    assert set(hashes[kept]) == set(hashes[::-1][back])
    assert set(choose_limited(labels, hashes, limit + 1)) >= set(kept)  # a larger limit adds rows only


@given(rows_strategy, st.integers(2, 6))
def test_folds_hold_each_row_out_once(rows, folds):
    labels = np.array([label for label, _ in rows], np.int64)
    hashes = np.array([value for _, value in rows])
    names = ["a", "b", "c", "d"]
    held = np.stack([choose_validation(labels, hashes, names, f"{n}/{folds}") for n in range(1, folds + 1)])
    assert (held.sum(axis=0) <= 1).all()
    for value in np.unique(hashes):
        assert (held[:, hashes == value] == held[:, hashes == value][:, :1]).all()
    for label in np.unique(labels):
        assert not held[:, labels == label].all(axis=1).any()  # some row of every class is always trained on
    if len(np.unique(hashes)) == len(hashes):
        counts = np.bincount(labels, minlength=4)
        assert (held.sum(axis=0) == (counts > 1)[labels]).all()


def test_limit_says_nothing_about_validation():
    labels = np.zeros(1000, np.int64)
    hashes = np.array([f"{number:064x}" for number in range(1000)])
    held = choose_validation(labels, hashes, ["a"], "auto")
    limited = choose_limited(labels, hashes, 500)
    assert 30 < held[limited].sum() < 70


def test_split_validation_takes_everything_along():
    images = load_images(pictures([0, 1] * 20))
    train, validation = split_validation(images)
    assert len(validation) == 8 and len(train) == 32 and train.class_names == images.class_names
    assert sorted([*train.rows, *validation.rows]) == list(range(40))
    assert (validation.pixels == images.pixels[validation.rows]).all()
    assert (validation.hashes == images.hashes[validation.rows]).all()


def test_long_tail():
    labels = [number % 4 for number in range(400)] + [-1] * 5
    dataset = pictures([])
    dataset = Dataset.from_dict(
        {"label": labels, "id": list(range(405))},
        Features({"label": ClassLabel(names=list("abcd")), "id": Value("int64")}),
    )
    tailed = make_long_tailed(dataset, "label", 8.0)
    assert count_classes(tailed, "label") == {"a": 100, "b": 50, "c": 25, "d": 12}
    assert tailed["id"] == sorted(tailed["id"]) == make_long_tailed(dataset, "label", 8.0)["id"]
    assert max(tailed["id"]) > 350  # not just the first rows
    assert len(choose_long_tail(np.array([0, 1, 1]), 1)) == 3
    fails("imbalance_factor", make_long_tailed, dataset, "label", 0.5)
    fails("no labelled row", choose_long_tail, np.array([-1]), 2)


def test_plan_balance():
    dataset = pictures([0, 1, 1, -1, 1])
    plan = plan_balance(dataset)
    assert plan.real == {"a": 1, "b": 3} and plan.missing == {"a": 2, "b": 0}
    assert plan_balance({"a": 5, "b": 2}, 7).missing == {"a": 2, "b": 5}
    assert plan_balance(dataset, {"a": 3}, label_column="label").missing == {"a": 2, "b": 0}


def test_parquet_round_trip_of_odd_class_names(tmp_path):
    from synthaug.data import open_dataset

    names = ["", "a/b", "🦓", "../x", "x" * 300]
    dataset = pictures([0, 1, 2, 3, 4], names)
    pq.write_table(dataset.data.table, tmp_path / "x.parquet")
    images = load_images(open_dataset(str(tmp_path / "x.parquet")))
    assert images.class_names == tuple(names) and json.dumps(images.class_counts)
