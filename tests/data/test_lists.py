"""Lists of images are read as they are written, or refused in one line with the cause."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value

from synthaug.core.errors import InputError
from synthaug.data import lists
from synthaug.data.images import load_images
from synthaug.data.notices import read_notices
from synthaug.data.sources import open_dataset, open_splits
from tests.digit_files import fill, save_digit


def write_list(root, head, row, labels="abab", *, name="metadata.csv", encoding="utf-8", end="\n"):
    """Write digits 0.png, 1.png, ... and a list of them, a row for each label."""
    for number in range(len(labels)):
        save_digit(root / f"{number}.png", number)
    text = end.join([head, *(row.format(n=n, file=f"{n}.png", label=label) for n, label in enumerate(labels))])
    (root / name).write_bytes(text.encode(encoding))
    return root


def labels_of(root, split="train"):
    return open_splits(str(root))[split]["label"][:]


def refused(root, *pieces):
    with pytest.raises(InputError) as caught:
        open_splits(str(root))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400 and all(piece in message for piece in pieces), message


# ---------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "values",
    [
        ("007", "010"), ("7", "07"), ("2024-01-05", "2024-02-06"), ("12:30", "13:45"), ("2024-01-05T10:00:00Z", "1"),
        ("1e5", "2e5"), ("0x1", "0x2"), ("+7", "+8"), ("NA", "nan"), ("null", "None"), ("true", "false"), ("TRUE", "1"),
        ("1.1", "1.10"), ("-0", "1"), ("9" * 25, "8" * 25), ("5,0", "6,0"), ("é", "日本"), ("#1", "#2"), ("inf", "1"),
    ],
)  # fmt: skip
def test_labels_that_look_like_something_else_stay_text(tmp_path, values):
    write_list(tmp_path, "file_name;label", "{file};{label}", values * 2)
    assert labels_of(tmp_path) == [*values, *values]
    assert load_images(open_dataset(str(tmp_path))).class_names == tuple(sorted(values))


@pytest.mark.parametrize(
    ("values", "kind"),
    [(("7", "10"), "int64"), (("-1", "0"), "int64"), (("0.5", "1.25"), "float64"), (("1.0", "2"), "float64")],
)
def test_plain_numbers_are_numbers(tmp_path, values, kind):
    write_list(tmp_path, "file_name,label,value", "{file},x,{label}", values)
    rows = open_dataset(str(tmp_path))
    assert rows.features["value"] == Value(kind) and rows["value"][:] == [float(value) for value in values]


def test_whole_numbers_sort_by_value_and_minus_one_is_unlabelled(tmp_path):
    write_list(tmp_path, "file_name,label", "{file},{label}", ["10", "7", "-1", "10"])
    images = load_images(open_dataset(str(tmp_path)))
    assert images.class_names == ("7", "10") and images.unlabelled == 1


def test_a_column_is_text_in_every_list_if_it_is_text_in_one(tmp_path):
    write_list(tmp_path / "train", "file_name,label", "{file},{label}", ["1", "2"])
    write_list(tmp_path / "test", "file_name,label", "{file},{label}", ["01", "2"])
    assert (labels_of(tmp_path), labels_of(tmp_path, "test")) == (["1", "2"], ["01", "2"])


def test_an_empty_field_is_no_label(tmp_path):
    write_list(tmp_path, "file_name,label", "{file},{label}", ["a", "", " ", "b"])
    assert labels_of(tmp_path) == ["a", None, None, "b"]


def test_two_spellings_of_a_label_are_refused(tmp_path):
    write_list(tmp_path, "file_name,label", "{file},{label}", ["e\u0301", "\u00e9"])
    with pytest.raises(InputError, match=r"in two spellings, 'e.u0301' and '.xe9'"):
        load_images(open_dataset(str(tmp_path)))


# ----------------------------------------------------------------------------------------------------- ways to write


@pytest.mark.parametrize(
    ("head", "row", "options"),
    [
        ("file_name,label", "{file},{label}", {"encoding": "utf-8-sig"}),
        ("file_name,label", "{file},{label}", {"encoding": "utf-16"}),
        ("file_name,label", "{file},{label}", {"encoding": "utf-32"}),
        ("file_name,label", "{file},{label}", {"end": "\r\n"}),
        ("file_name,label", "{file},{label}", {"end": "\r"}),
        ("file_name,label", "{file},{label}", {"end": "\n\n"}),
        ("file_name;label", "{file};{label}", {}),
        ("sep=;\nfile_name;label", "{file};{label}", {}),
        ("file_name\tlabel", "{file}\t{label}", {}),
        ("file_name\tlabel", "{file}\t{label}", {"name": "metadata.tsv"}),
        ("file_name,label", "{file},{label}", {"name": "metadata.tsv"}),
        ("file_name|label", "{file}|{label}", {}),
        ("file_name, label", "{file}, {label}", {}),
        ('"file_name","label"', '"{file}","{label}"', {}),
        ("label,file_name", "{label},{file}", {}),
        ("file_name,label", "./{file},{label}", {}),
        ("file_name,label", ".\\{file},{label}", {}),
        (",file_name,label", "{n},{file},{label}", {}),
    ],
)
def test_separators_encodings_and_line_ends(tmp_path, head, row, options):
    write_list(tmp_path, head, row, **options)
    rows = open_dataset(str(tmp_path))
    assert rows["label"][:] == ["a", "b", "a", "b"] and set(rows.features) == {"image", "label"}


def test_quotes_hold_separators_quotes_and_line_breaks(tmp_path):
    write_list(tmp_path, "file_name,label,text", '{file},"{label}, ""x""","one\ntwo, three"')
    rows = open_dataset(str(tmp_path))
    assert rows["label"][:2] == ['a, "x"', 'b, "x"'] and rows["text"][0] == "one\ntwo, three"


def test_backslashes_between_folders(tmp_path):
    fill(tmp_path, "im/one", "im/two")
    (tmp_path / "metadata.csv").write_text("file_name,label\nim\\one\\0.png,a\nim\\two\\1.png,b\n")
    assert len(load_images(open_dataset(str(tmp_path)))) == 2


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("file_name,label,label\n0.png,a,b\n", ["two columns are called 'label'"]),
        ("file_name,label\n0.png,é\n".encode("latin-1"), ["it is not UTF-8: byte 0xe9", "write it as UTF-8"]),
        ("file_name,label\n0.png,a\n".encode("utf-16-le"), ["zero bytes", "write it as UTF-8"]),
        (b"\xff\xfef\x00i\x00l", ["it is not UTF-8"]),
        ("file_name,label\n0.png,a,\n", ["3 fields and the head line 2, separated by commas"]),
        ("file_name;label\n0.png\n", ["1 fields and the head line 2, separated by semicolons"]),
        ('file_name,label\n0.png,"a\n', ["unexpected end of data"]),
        ('file_name,label\n0.png,"a\n1.png,b"\n', ["the row of '1.png' lies inside a double quote"]),
        (",file_name,label\n5,0.png,a\n", ["column 1 has no name"]),
        ("0.png,a\n1.png,b\n", ["has the columns '0.png', 'a'; name the files in 'file_name'"]),
        ("image,label\n0.png,a\n", ["has the columns 'image', 'label'"]),
        ("file_name,label\n", ["lists no image"]),
        ("", ["it is empty"]),
        ("\n\n", ["its first line is empty"]),
        ("file_name,label\n0,a\n", ["names '0', which is not there (did you mean '0.png'?)"]),
        ("file_name,label\nC:\\my\\1.png,a\n", ["which is not there (did you mean '1.png'?)"]),
        ("file_name,label\n" + "x" * 5000 + ".png,a\n", ["which is not there"]),
        ("file_name,label\n0\0.png,a\n", ["names no file in row 0"]),
        ("file_name," + ",".join(f"c{n}" for n in range(1000)) + "\n", ["1,001 columns"]),
        ("file_name," + "x" * lists.MAX_FIELD + "\n", ["its first line has 100,000 characters"]),
        ("file_name,label\n0.png," + "x" * (lists.MAX_FIELD + 1) + "\n", ["a field of more than 100,000 characters"]),
    ],
)
def test_what_cannot_be_read_has_its_cause_in_one_line(tmp_path, text, pieces):
    fill(tmp_path, ".")
    (tmp_path / "metadata.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(tmp_path, *pieces)


# ------------------------------------------------------------------------------------------------ JSON lines, Parquet


def write_json(root, *rows, encoding="utf-8"):
    fill(root, ".", count=4)
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (root / "metadata.jsonl").write_bytes(text.encode(encoding))
    return root


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("values", [("007", "010"), ("2024-01-05", "2024-01-06"), ("12:30:00", "x"), (True, False)])
def test_json_values_keep_their_type(tmp_path, values, encoding):
    write_json(tmp_path, *({"file_name": f"{n}.png", "label": v} for n, v in enumerate(values)), encoding=encoding)
    assert labels_of(tmp_path) == list(values)


@pytest.mark.parametrize(
    ("row", "piece"),
    [
        ('[{"file_name": "0.png"}]', "row 0 is no object"),
        ('{"file_name": "0.png", "label": "a", "label": "b"}', "two keys 'label'"),
        ('{"file_name": "0.png", "label": ' + "[" * 100_000 + "]" * 100_000 + "}", "cannot be read"),
        ('{"file_name": "0.png", "label": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"file_name": "0.png", "label": ' + "9" * 20 + "}", "too large"),
        ('{"file_name": "0.png", "label": "\\ud800"}', "half of a character"),
        ('{"file_name": "0.png", "label": "a"}\n{"file_name": "1.png", "label": 1}', "of several types"),
        ('{"file_name": 0, "label": "a"}', "names no file in row 0"),
        ("{", "row 0: Expecting property name"),
    ],
)
def test_json_that_cannot_be_read(tmp_path, row, piece):
    refused(write_json(tmp_path, row), piece)


def test_a_parquet_list_keeps_its_types(tmp_path):
    fill(tmp_path, ".")
    features = Features({"file_name": Value("string"), "label": ClassLabel(names=["b", "a"]), "code": Value("string")})
    columns = {"file_name": ["0.png", "1.png"], "label": [1, 0], "code": ["007", "8"]}
    pq.write_table(pa.table(columns, schema=features.arrow_schema), tmp_path / "metadata.parquet")
    rows = open_dataset(str(tmp_path))
    assert rows.features["label"].names == ["b", "a"] and rows["code"][:] == ["007", "8"]
    assert load_images(rows).labels.tolist() == [1, 0]


# --------------------------------------------------------------------------------------------------------- splits


@pytest.mark.parametrize("folders", [("train", "test"), ("data/train2017/x", "data/val2017/x"), ("a/train", "a/test")])
def test_one_list_above_the_folders_of_splits(tmp_path, folders):
    fill(tmp_path, *folders, count=4)
    files = [f"{folder}/{number}.png,{'ab'[number % 2]}" for folder in folders for number in range(4)]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *files]))
    found = open_splits(str(tmp_path))
    assert list(found) == ["train", "validation" if "val" in folders[1] else "test"]
    assert all(load_images(rows).class_counts == {"a": 2, "b": 2} for rows in found.values())


def test_a_list_above_splits_and_another_folder_is_refused(tmp_path):
    fill(tmp_path, "train", "test", "extra", count=1)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain/0.png,a\ntest/0.png,b\nextra/0.png,a\n")
    refused(tmp_path, "'test', 'train', which look like splits, and the folder 'extra' beside them")


def test_folders_of_classes_say_nothing_of_splits(tmp_path):
    fill(tmp_path, "test_tube", "flask", "train", count=1)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntest_tube/0.png,a\nflask/0.png,b\ntrain/0.png,a\n")
    assert list(open_splits(str(tmp_path))) == ["train"]


def test_files_named_like_splits_are_refused(tmp_path):
    save_digit(tmp_path / "train_1.png", 1)
    save_digit(tmp_path / "test_1.png", 2)
    (tmp_path / "metadata.csv").write_text("file_name,label\ntrain_1.png,a\ntest_1.png,b\n")
    refused(tmp_path, "are named like splits ('train_1.png', 'test_1.png')")


@pytest.mark.parametrize("column", ["split", "Subset", "partition", "set"])
def test_a_column_says_which_split_a_row_belongs_to(tmp_path, column):
    fill(tmp_path, ".", count=5)
    parts = ["Train", "train", "TEST", "val", "train"]
    rows = [f"{number}.png,{'ab'[number % 2]},{part}" for number, part in enumerate(parts)]
    (tmp_path / "metadata.csv").write_text("\n".join([f"file_name,label,{column}", *rows]))
    found = open_splits(str(tmp_path))
    assert {name: rows["label"][:] for name, rows in found.items()} == {
        "train": ["a", "b", "a"],
        "test": ["a"],
        "validation": ["b"],
    }
    assert load_images(found["train"]).class_names == ("a", "b")  # without a label column named
    assert read_notices(found["test"]) == (f"the column {column!r} says which split a row belongs to",)


def test_test_and_eval_in_a_column_are_two_splits(tmp_path):
    fill(tmp_path, ".", count=3)
    (tmp_path / "metadata.csv").write_text("file_name,label,split\n0.png,a,train\n1.png,b,test\n2.png,b,eval\n")
    assert set(open_splits(str(tmp_path))) == {"train", "test", "eval"}


def test_a_column_of_other_values_divides_nothing(tmp_path):
    write_list(tmp_path, "file_name,phase", "{file},{label}", ["ferrite", "perlite"])
    assert list(open_splits(str(tmp_path))) == ["train"]
    assert load_images(open_dataset(str(tmp_path))).class_names == ("ferrite", "perlite")


# ------------------------------------------------------------------------------------------------------ several lists


def test_a_list_in_every_class_folder(tmp_path):
    for split in ("train", "test"):
        for name in ("c0", "c1"):
            write_list(tmp_path / split / name, "file_name,label", "{file},{label}", [name, name])
    found = open_splits(str(tmp_path))
    assert set(found) == {"train", "test"}
    assert all(rows["label"][:] == ["c0", "c0", "c1", "c1"] for rows in found.values())


def test_lists_that_do_not_fit_each_other_are_refused(tmp_path):
    write_list(tmp_path / "c0", "file_name,label", "{file},{label}", "ab")
    write_list(tmp_path / "c1", "file_name,kind", "{file},{label}", "ab")
    refused(tmp_path, "has other columns than")
    (tmp_path / "c1" / "metadata.csv").unlink()
    (tmp_path / "c1" / "metadata.jsonl").write_text('{"file_name": "0.png", "label": 5}')
    refused(tmp_path, "another type of values in 'label'")


def test_two_lists_of_the_same_images_are_refused(tmp_path):
    write_list(tmp_path, "file_name,label", "{file},{label}")
    write_list(tmp_path, "file_name\tlabel", "{file}\t{label}", name="metadata.tsv")
    refused(tmp_path, "metadata.csv'", "metadata.tsv' list the same images")
    (tmp_path / "metadata.tsv").unlink()
    write_list(tmp_path / "sub", "file_name,label", "../{file},{label}")
    refused(tmp_path, "both name '0.png'")


def test_images_that_no_list_names_are_counted(tmp_path):
    write_list(tmp_path, "file_name,label", "{file},{label}")
    fill(tmp_path, "more", count=3)
    assert read_notices(open_dataset(str(tmp_path))) == ("passed over: 3 images that no list names",)


# ---------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("name", lists.LISTS)
def test_a_list_of_any_size_is_refused_before_it_is_read(tmp_path, name):
    fill(tmp_path, ".")
    with (tmp_path / name).open("wb") as file:
        file.truncate(10**12)
    tracemalloc.start()
    refused(tmp_path, "953,674 MiB; a list may have 256 MiB")
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_a_parquet_list_that_unpacks_to_more_is_refused(tmp_path, monkeypatch):
    fill(tmp_path, ".")
    pq.write_table(pa.table({"file_name": ["0.png"], "label": ["x" * 100_000]}), tmp_path / "metadata.parquet")
    assert (tmp_path / "metadata.parquet").stat().st_size < 50_000
    monkeypatch.setattr(lists, "MAX_LIST_BYTES", 50_000)
    refused(tmp_path, "it holds 0 MiB")
