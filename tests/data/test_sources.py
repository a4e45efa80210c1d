"""Every kind of DATASET opens; nothing outside the folder it names is read."""

import io
import os
import socket
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as PillowImage

from synthaug.core import InputError
from synthaug.data import load_images, open_dataset, open_splits, open_test
from synthaug.data.layouts import check_cache
from synthaug.data.notices import read_notices
from tests.hub_server import HubServer

NAMES = ["cat", "dog"]
NAMED = {"cat": 2, "dog": 1}


def png(seed, size=12):
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def features(names=NAMES):
    return Features({"image": Image(), "label": ClassLabel(names=names)})


def write_parquet(path, labels, *, names=NAMES, seed=0, rows=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = rows or [{"bytes": png(seed + i), "path": None} for i in range(len(labels))]
    pq.write_table(pa.Table.from_pydict({"image": images, "label": labels}, schema=features(names).arrow_schema), path)
    return path


def write_images(root, classes, number=3, seed=0):
    for position, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(number):
            (root / name / f"{i}.png").write_bytes(png(seed + 100 * position + i))
    return root


def fails(match, call, *arguments):
    with pytest.raises(InputError, match=match) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_digits():
    splits = open_splits("digits")
    assert {name: len(split) for name, split in splits.items()} == {"train": 1257, "test": 540}
    train = splits["train"]
    assert train.features["label"].names == [str(number) for number in range(10)]
    pixels = np.asarray(train[0]["image"])
    assert pixels.shape == (8, 8) and pixels.max() == 255
    shares = np.bincount(train["label"]) / np.bincount(splits["test"]["label"])
    assert shares.min() > 2.2 and shares.max() < 2.5
    assert len(open_test("digits")) == 540
    fails("no split 'tests'; there are 'train', 'test' .did you mean 'test'", open_dataset, "digits", "tests")


def test_one_parquet_file_is_train(tmp_path):
    file = write_parquet(tmp_path / "test-00000-of-00001.parquet", [0, 1, 1])
    dataset = open_dataset(str(file))
    assert dataset["label"] == [0, 1, 1] and dataset.features == features()
    assert open_test(str(file))["label"] == [0, 1, 1]


@pytest.mark.parametrize("folder", ["a[1] b*?", "öäü ☃"])
def test_odd_folder_names(tmp_path, folder):
    write_parquet(tmp_path / folder / "x.parquet", [0, 1])
    assert len(open_dataset(str(tmp_path / folder))) == 2


def test_glob_of_plain_files_is_train_and_of_shards_is_splits(tmp_path):
    write_parquet(tmp_path / "a.parquet", [0, 1])
    write_parquet(tmp_path / "b.parquet", [1], seed=9)
    assert open_dataset(str(tmp_path / "*.parquet"))["label"] == [0, 1, 1]
    for split, labels in {"train": [0, 0], "validation": [1]}.items():
        write_parquet(tmp_path / "hub" / f"{split}-00000-of-00001.parquet", labels)
    splits = open_splits(str(tmp_path / "hub" / "*.parquet"))
    assert {name: len(split) for name, split in splits.items()} == {"train": 2, "validation": 1}
    fails("no Parquet file matches", open_splits, str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    "layout", ["data/{split}-0000{n}-of-00002.parquet", "{split}/part-{n}.parquet", "my-{split}_{n}.parquet"]
)
def test_hub_layouts(tmp_path, layout):
    for n in range(2):
        write_parquet(tmp_path / layout.format(split="train", n=n), [0, 1], seed=n * 10)
    write_parquet(tmp_path / layout.format(split="test", n=0), [1], seed=50)
    (tmp_path / "README.md").write_text("---\nconfigs: [{config_name: default, data_files: /etc/hostname}]\n---\n")
    splits = open_splits(str(tmp_path))
    assert {name: split["label"][:] for name, split in splits.items()} == {"train": [0, 1, 0, 1], "test": [1]}
    assert open_test(str(tmp_path))["label"] == [1]


def test_several_configurations_are_told_apart(tmp_path):
    for name in ("small", "large"):
        write_parquet(tmp_path / name / "train-00000-of-00001.parquet", [0, 1])
    fails("several folders .*large.*small", open_splits, str(tmp_path))


def test_files_with_shuffled_names_are_aligned_by_name(tmp_path):
    colour = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}

    def square(name):
        buffer = io.BytesIO()
        PillowImage.new("RGB", (8, 8), colour[name]).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    for file, names in {
        "a": ["red", "green", "blue"],
        "b": ["blue", "red"],
        "c": ["green", "blue", "red"],
    }.items():
        shown = [*names, names[0]]
        labels = [*range(len(names)), -1]
        write_parquet(tmp_path / f"{file}.parquet", labels, names=names, rows=[square(name) for name in shown])
    images = load_images(open_dataset(str(tmp_path)))
    assert images.class_names == ("red", "green", "blue") and images.unlabelled == 3
    assert len(images) == 8
    for pixels, label in zip(images.pixels, images.labels, strict=True):
        assert tuple(pixels[0, 0]) == colour[images.class_names[label]]


def test_splits_with_shuffled_names_keep_their_own(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1], names=["cat", "dog"])
    write_parquet(tmp_path / "test.parquet", [0, 1], names=["dog", "cat"])
    splits = open_splits(str(tmp_path))
    assert splits["test"].features["label"].names == ["dog", "cat"]
    train = load_images(splits["train"])
    assert load_images(splits["test"], class_names=train.class_names).labels.tolist() == [1, 0]


def test_files_of_different_datasets_are_refused(tmp_path):
    write_parquet(tmp_path / "a.parquet", [0, 1])
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "b.parquet")
    fails("other columns or types", open_splits, str(tmp_path))
    write_parquet(tmp_path / "b.parquet", [0, 1], names=["zero", "one"])
    fails("name different classes", open_splits, str(tmp_path))


def test_plain_parquet_columns_become_images(tmp_path):
    data = [png(0), png(1)]
    for name, column in {
        "binary": pa.array(data, pa.binary()),
        "struct": pa.array([{"bytes": x, "path": "a"} for x in data]),
    }.items():
        pq.write_table(pa.table({"picture": column, "kind": ["a", "b"]}), tmp_path / f"{name}.parquet")
        dataset = open_dataset(str(tmp_path / f"{name}.parquet"))
        assert dataset.features == {"picture": Image(), "kind": Value("string")}
        assert load_images(dataset).class_names == ("a", "b")


@pytest.mark.parametrize("content", [b"", b"not parquet at all", b"PAR1" + b"\0" * 40 + b"PAR1"])
def test_broken_parquet_is_one_line(tmp_path, content, capfd):
    (tmp_path / "x.parquet").write_bytes(content)
    fails("not a Parquet file that can be read", open_splits, str(tmp_path / "x.parquet"))
    assert capfd.readouterr().err == ""


def test_save_to_disk(tmp_path):
    rows = {"image": [{"bytes": png(0), "path": None}, {"bytes": png(1), "path": None}], "label": [0, 1]}
    dataset = Dataset.from_dict(rows, features=features())
    dataset.save_to_disk(tmp_path / "one")
    assert open_dataset(str(tmp_path / "one"))["label"] == [0, 1]
    DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(tmp_path / "two")
    assert open_test(str(tmp_path / "two"))["label"] == [1]
    (tmp_path / "one" / "data-00000-of-00001.arrow").write_bytes(b"junk")
    fails("damaged save_to_disk folder", open_splits, str(tmp_path / "one"))


def test_save_to_disk_reads_no_file_elsewhere(tmp_path):
    rows = {"image": [{"bytes": png(0), "path": None}], "label": [0]}
    Dataset.from_dict(rows, features=features()).save_to_disk(tmp_path / "a")
    Dataset.from_dict(rows, features=features()).save_to_disk(tmp_path / "b")
    state = tmp_path / "a" / "state.json"
    state.write_text(state.read_text().replace("data-0", "../b/data-0"))
    fails("leads outside", open_splits, str(tmp_path / "a"))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "dataset_dict.json").write_text('{"splits": ["../b"]}')
    fails("leads outside", open_splits, str(tmp_path / "c"))


def test_class_folders(tmp_path):
    root = write_images(tmp_path / "x", ["10", "Zebra 🦓", "apple"])
    (root / "apple" / "notes.txt").write_text("no image")
    (root / ".hidden").mkdir()
    (root / "empty").mkdir()
    splits = open_splits(str(root))
    assert list(splits) == ["train"]
    assert splits["train"].features["label"].names == ["10", "Zebra 🦓", "apple"]
    images = load_images(splits["train"])
    assert images.class_counts == {"10": 3, "Zebra 🦓": 3, "apple": 3}
    column = splits["train"].data.column("image").combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    assert column.field("bytes").null_count == 9  # not read into memory
    assert all(Path(path).is_absolute() for path in column.field("path").to_pylist())


def test_class_folders_with_relative_path(tmp_path, monkeypatch):
    write_images(tmp_path / "x", NAMES)
    monkeypatch.chdir(tmp_path)
    assert len(load_images(open_dataset("x"))) == 6


def test_split_folders_share_their_names(tmp_path):
    write_images(tmp_path / "train", ["a", "b", "c"])
    write_images(tmp_path / "val", ["c"], seed=300)
    write_images(tmp_path / "test", ["b", "c"], seed=600)
    splits = open_splits(str(tmp_path))
    assert sorted(splits) == ["test", "train", "validation"]
    assert all(split.features["label"].names == ["a", "b", "c"] for split in splits.values())
    assert set(splits["validation"]["label"]) == {2}


def test_parquet_files_of_words_for_one_split_are_not_merged(tmp_path):
    for place, name in enumerate(("train-0", "train-1", "test", "eval")):
        write_parquet(tmp_path / f"{name}.parquet", [0, 1], seed=10 * place)
    splits = open_splits(str(tmp_path))
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "test": 2, "eval": 2}
    assert read_notices(splits["train"]) == ("'eval' is read as a split of its own, apart from 'test'",)
    assert set(open_splits(str(tmp_path / "*.parquet"))) == set(splits)


@pytest.mark.parametrize("names", [("train2014", "train2017"), ("cifar10-train", "cifar100-train")])
def test_parquet_files_that_differ_in_more_than_a_number_are_not_merged(tmp_path, names):
    for place, name in enumerate(names):
        write_parquet(tmp_path / f"{name}.parquet", [0, 1], seed=10 * place)
    assert set(open_splits(str(tmp_path))) == {name.replace("-", "_") for name in names}
    fails("no split 'train'", open_dataset, str(tmp_path))


def test_a_parquet_file_of_no_split_beside_splits_is_refused(tmp_path):
    write_parquet(tmp_path / "train.parquet", [0, 1])
    write_parquet(tmp_path / "extra.parquet", [0, 1], seed=10)
    fails("'train.parquet' in .* names a split, but 'extra.parquet' beside it does not", open_splits, str(tmp_path))


def test_parquet_files_of_one_split_by_a_glob_are_train(tmp_path):
    for place, name in enumerate(("val_a", "val_b", "train")):
        write_parquet(tmp_path / f"{name}.parquet", [0, 1], seed=10 * place)
    assert len(open_dataset(str(tmp_path / "val_a*.parquet"))) == 2


def test_parquet_files_without_images_beside_image_files_are_refused(tmp_path):
    write_images(tmp_path, NAMES)
    pq.write_table(pa.table({"feature": [1.0]}), tmp_path / "features.parquet")
    fails("6 image files and the Parquet file 'features.parquet' without images", open_splits, str(tmp_path))
    (tmp_path / "features.parquet").unlink()
    write_parquet(tmp_path / "rows.parquet", [0, 1])
    assert read_notices(open_dataset(str(tmp_path))) == ("passed over: 6 image files beside Parquet files",)


def write_with_split(path, parts, seed=0):
    rows = [{"bytes": png(seed + number), "path": None} for number in range(len(parts))]
    kinds = Features({**features(), "split": Value("string")})
    columns = {"image": rows, "label": [number // 2 % 2 for number in range(len(parts))], "split": parts}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pydict(columns, schema=kinds.arrow_schema), path)


@pytest.mark.parametrize("spec", ["rows.parquet", "", "*.parquet"])
def test_a_column_of_parquet_rows_says_which_split_they_belong_to(tmp_path, spec):
    write_with_split(tmp_path / "rows.parquet", ["train", "test", "train", "test", "train", "val"])
    splits = open_splits(str(tmp_path / spec))
    assert {name: split["label"][:] for name, split in splits.items()} == {
        "train": [0, 1, 0], "test": [0, 1], "validation": [0],
    }  # fmt: skip
    assert set(splits["train"]["split"]) == {"train"} and load_images(splits["train"]).class_counts == NAMED


def test_a_column_that_contradicts_the_files_is_refused(tmp_path):
    write_with_split(tmp_path / "train.parquet", ["train"] * 4)
    write_with_split(tmp_path / "test.parquet", ["test"] * 4, seed=10)
    assert {name: len(split) for name, split in open_splits(str(tmp_path)).items()} == {"train": 4, "test": 4}
    write_with_split(tmp_path / "train.parquet", ["train", "val", "train", "val"], seed=20)
    fails("rows of several splits in its column 'split' .'train', 'val'", open_splits, str(tmp_path))


@pytest.mark.parametrize("name", ["HF_DATASETS_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"])
def test_a_cache_folder_that_cannot_be_made_is_named_with_its_variable(tmp_path, monkeypatch, name):
    for other in ("HF_DATASETS_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "/dev/null/hf")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", "/dev/null/hf/datasets")
    fails(f"cache folder '/dev/null/hf/datasets' cannot be used .* environment variable {name}", check_cache)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    check_cache()


def test_a_saved_dataset_of_special_files_is_refused_unopened(tmp_path):
    rows = {"image": [{"bytes": png(0), "path": None}], "label": [0]}
    Dataset.from_dict(rows, features=features()).save_to_disk(tmp_path)
    saved = next(tmp_path.glob("*.arrow"))
    saved.unlink()
    os.mkfifo(saved)
    fails("is a FIFO", open_splits, str(tmp_path))


def test_listed_images(tmp_path):
    """The layout of `imagefolder`: a list in every split, names with spaces and folders of their own."""
    for split, labels in (("train", ["cat", "dog", "cat"]), ("test", ["dog", ""])):
        (tmp_path / split / "some files").mkdir(parents=True)
        lines = ["file_name,kind,age"]
        for number, label in enumerate(labels):
            (tmp_path / split / "some files" / f"ü {number}.png").write_bytes(png(number))
            lines.append(f"some files/ü {number}.png,{label},{number}")
        (tmp_path / split / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    splits = open_splits(str(tmp_path))
    assert set(splits) == {"train", "test"}
    assert splits["train"]["kind"][:] == ["cat", "dog", "cat"]
    assert splits["train"].features["age"] == Value("int64")
    assert splits["test"]["kind"][:] == ["dog", None]
    images = load_images(splits["train"], label_column="kind")
    assert (images.class_names, images.labels.tolist()) == (("cat", "dog"), [0, 1, 0])
    (tmp_path / "train" / "metadata.csv").rename(tmp_path / "train" / "names.csv")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "some files/ü 1.png", "kind": "dog"}\n')
    assert open_splits(str(tmp_path))["train"]["kind"][:] == ["dog"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("file,label\na.png,1\n", "has the columns 'file', 'label'; name the files in 'file_name'"),
        ("file_name,label\n../secret.png,1\n", "leads outside"),
        ("file_name,label\n/etc/hostname,1\n", "leads outside"),
        ("file_name,label\nb.png,1\n", r"names 'b\.png', which is not there"),
        ("file_name,label\na.png,1\n,2\n", "names no file in row 1"),
        ("file_name,label\na.png\n", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_lists_that_lead_nowhere(tmp_path, text, match):
    root = tmp_path / "rows"
    root.mkdir()
    (root / "a.png").write_bytes(png(0))
    (tmp_path / "secret.png").write_bytes(png(1))
    (root / "metadata.csv").write_text(text)
    fails(match, open_splits, str(root))


def test_a_list_by_another_name_is_told(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.png").write_bytes(png(0))
    (tmp_path / "labels.csv").write_text("file,label\nfiles/a.png,1\n")
    fails(r"'labels\.csv', which is not read: call it metadata\.csv", open_splits, str(tmp_path))


def test_folders_that_are_no_dataset(tmp_path):
    fails("no images and no Parquet files", open_splits, str(tmp_path))
    (tmp_path / "a.png").write_bytes(png(0))
    fails("no folder per class", open_splits, str(tmp_path))
    write_images(tmp_path, ["only"])
    fails("only one folder of images, 'only'", open_splits, str(tmp_path))
    write_images(tmp_path / "train", NAMES)
    fails("'train' in .* look like splits, but 'only'", open_splits, str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    fails("is a run folder", open_splits, str(tmp_path))


@pytest.mark.parametrize(
    "path",
    ["canary.png", "../canary.png", "absolute", "http://127.0.0.1:9/x.png", "hf://x", "a\0b", "link.png"],
)
def test_no_file_is_read_because_a_row_names_it(tmp_path, path):
    (tmp_path / "canary.png").write_bytes(png(1))
    root = tmp_path / "data"
    root.mkdir()
    (root / "link.png").symlink_to(tmp_path / "canary.png")
    named = str(tmp_path / "canary.png") if path == "absolute" else path
    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": named}]
    file = write_parquet(root / "x.parquet", [0, 1], rows=rows)
    message = fails("row 1 of .* names the file", open_splits, str(file))
    assert repr(named) in message
    if path != "canary.png":  # relative to the folder, and there is none
        fails("row 1 of .* names the file .* outside", open_splits, str(root))


def test_canary_through_save_to_disk(tmp_path):
    (tmp_path / "canary.png").write_bytes(png(1))
    root = tmp_path / "data"
    root.mkdir()
    table = pa.Table.from_pydict(
        {"image": [{"bytes": None, "path": str(tmp_path / "canary.png")}], "label": [0]},
        schema=features().arrow_schema,
    )
    Dataset(table).save_to_disk(root)
    saved = next(root.glob("*.arrow"))
    with pa.OSFile(str(saved), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)  # without the bytes that save_to_disk embeds
    fails("row 0 of .* outside", open_splits, str(root))


def test_rows_may_name_files_inside_the_folder(tmp_path, monkeypatch):
    root = write_images(tmp_path / "data", ["pool"])
    rows = [{"bytes": None, "path": "pool/0.png"}, {"bytes": None, "path": str(root / "pool" / "1.png")}]
    write_parquet(root / "x.parquet", [0, 1], rows=[*rows, {"bytes": png(5), "path": "pool/2.png"}][:2])
    (tmp_path / "pool").mkdir()
    monkeypatch.chdir(tmp_path)
    images = load_images(open_dataset(str(root)))
    assert len(images) == 2
    assert (images.pixels[0] == np.asarray(PillowImage.open(root / "pool" / "0.png"))).all()


def test_path_trap_the_bytes_win(tmp_path, monkeypatch):
    write_parquet(tmp_path / "x.parquet", [0, 1], rows=[{"bytes": png(i), "path": "img.png"} for i in range(2)])
    (tmp_path / "img.png").write_bytes(png(9))
    monkeypatch.chdir(tmp_path)
    images = load_images(open_dataset("x.parquet"))
    assert len(set(images.hashes)) == 2
    assert (images.pixels[1] == np.asarray(PillowImage.open(io.BytesIO(png(1))))).all()


@pytest.mark.parametrize("what", ["file", "folder", "class"])
def test_symlinks_lead_nowhere_else(tmp_path, what):
    secret = write_images(tmp_path / "secret", ["dog"])
    root = write_images(tmp_path / "data", NAMES)
    if what == "file":
        (root / "cat" / "s.png").symlink_to(secret / "dog" / "0.png")
    elif what == "folder":
        (root / "cat" / "more").symlink_to(secret)
    else:
        (root / "wolf").symlink_to(secret / "dog")
    fails("leads outside", open_splits, str(root))


def test_symlinks_inside_and_loops_are_followed_once(tmp_path):
    root = write_images(tmp_path / "data", ["cat"])
    (root / "dog").symlink_to(root / "cat")
    (root / "cat" / "loop").symlink_to(root)
    (root / "cat" / "again.png").symlink_to(root / "cat" / "0.png")
    dataset = open_dataset(str(root))
    assert dataset.features["label"].names == NAMES
    assert len(load_images(dataset)) == 8


def test_parquet_symlink_out_of_the_folder(tmp_path):
    write_parquet(tmp_path / "secret.parquet", [0, 1])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.parquet").symlink_to(tmp_path / "secret.parquet")
    fails("leads outside", open_splits, str(tmp_path / "data"))
    fails("leads outside", open_splits, str(tmp_path / "data" / "*.parquet"))
    assert len(open_dataset(str(tmp_path / "secret.parquet"))) == 2


@pytest.mark.parametrize(
    "spec",
    [
        "nowhere",
        "./no/where",
        "",
        "no/where.parquet",
        "a\0b",
        "x" * 5000,
        "~/nowhere-at-all",
        "~nobody-here/x",
    ],
)
def test_wrong_paths(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "'digits', a folder" in fails("no such file|not a usable path|is empty", open_splits, spec)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b")
    fails("is not a Parquet file; give 'digits'", open_splits, str(tmp_path / "x.csv"))


def test_hub_out_of_reach_says_both(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    message = fails("no file or folder 'no-such/data'", open_splits, "no-such/data")
    assert "the Hub could not be reached" in message
    assert capfd.readouterr().err == ""


def test_local_data_opens_no_socket(tmp_path, monkeypatch):
    write_parquet(tmp_path / "p" / "train-00000-of-00001.parquet", [0, 1])
    write_images(tmp_path / "i", NAMES)

    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for spec in ("digits", str(tmp_path / "p"), str(tmp_path / "i")):
        assert open_splits(spec)


def test_test_split_is_chosen(tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"{split}.parquet", [0, 1])
    fails("has the splits 'train', 'validation'; name one", open_test, str(tmp_path))
    assert len(open_test(str(tmp_path), "validation")) == 2
    fails("has no split 'train2'", open_dataset, str(tmp_path), "train2")


HUB_CLIENT = """
import sys
from synthaug.data import load_images
from synthaug.core import InputError
from synthaug.data import open_splits
for spec in sys.argv[1:]:
    try:
        print({name: load_images(split).class_counts for name, split in open_splits(spec).items()})
    except InputError as error:
        print(error)
"""


def test_hub_dataset(tmp_path):
    (tmp_path / "canary.png").write_bytes(png(9))
    good = write_parquet(tmp_path / "good.parquet", [0, 1]).read_bytes()
    rows = [{"bytes": png(0), "path": None}, {"bytes": None, "path": str(tmp_path / "canary.png")}]
    bad = write_parquet(tmp_path / "bad.parquet", [0, 1], rows=rows).read_bytes()
    with HubServer({"hf_token": "me"}) as hub:
        for name, content in {"good": good, "bad": bad}.items():
            hub.create("dataset", f"me/{name}").put(**{"data/train-00000-of-00001.parquet": content})
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
        environment |= hub.environment(tmp_path / "home", None)
        environment["HF_DATASETS_CACHE"] = str(tmp_path / "home" / "datasets")
        specs = ["me/good", "me/good:default", "me/bad", "me/good:other", "me/none"]
        command = [sys.executable, "-c", HUB_CLIENT, *specs]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=True)
    lines = done.stdout.splitlines()
    assert done.stderr == "" and len(lines) == 5
    assert lines[0] == lines[1] == "{'train': {'cat': 1, 'dog': 1}}"
    assert "row 1 of 'me/bad' names the file" in lines[2]
    assert "no file or folder 'me/good:other'" in lines[3] and "cannot be loaded" in lines[3]
    assert "no file or folder 'me/none'" in lines[4] and "no dataset of that name" in lines[4]


def test_the_working_directory_is_a_folder_like_others(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            PillowImage.new("L", (8, 8), 10).save(tmp_path / split / name / "x.png")
    monkeypatch.chdir(tmp_path)
    splits = open_splits(".")
    assert set(splits) == {"train", "test"} and all(len(data) == 2 for data in splits.values())
