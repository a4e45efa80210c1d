"""Folders of images are read the one way that is meant, or refused with the ways there are."""

import contextlib
import os
import socket
import sys
import unicodedata

import pytest
from PIL import Image

from synthaug.core.errors import InputError
from synthaug.core.output import MARK
from synthaug.data.codec import FORMATS, SUFFIXES
from synthaug.data.images import load_images
from synthaug.data.inspection import inspect_dataset
from synthaug.data.notices import read_notices
from synthaug.data.sources import open_dataset, open_splits
from synthaug.recipe import parse_recipe
from synthaug.training.plan import plan_fit
from tests.digit_files import fill, save_digit


def counts(root):
    """Return the rows of each class in each split; None counts rows without a label."""
    found = {}
    for split, rows in open_splits(str(root)).items():
        names, labels = rows.features["label"].names, rows["label"][:]
        found[split] = {name: labels.count(index) for index, name in enumerate(names) if index in labels}
        if -1 in labels:
            found[split][None] = labels.count(-1)
    return found


def refused(root, *pieces):
    with pytest.raises(InputError) as caught:
        open_splits(str(root))
    message = str(caught.value)
    assert "\n" not in message and all(piece in message for piece in pieces), message


def notice(root):
    return "; ".join(read_notices(open_dataset(str(root), next(iter(open_splits(str(root)))))))


TWO = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("train", "test", "test"),
        ("training", "val", "validation"),
        ("training_set", "test_set", "test"),
        ("training_set/training_set", "test_set/test_set", "test"),
        ("train/images", "valid/images", "validation"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train2017", "val2017", "validation"),
        ("Train", "DEV", "validation"),
        ("TrainData", "TestData", "test"),
        ("birds-train", "birds-eval", "test"),
    ],
)
def test_split_folders_by_any_of_their_names(tmp_path, train, other, split):
    fill(tmp_path, f"{train}/cat", f"{train}/dog", f"{other}/cat")
    assert counts(tmp_path) == {"train": TWO, split: {"cat": 2}}


@pytest.mark.parametrize(
    "folders",
    [("train", "test"), ("train2017", "val2017"), ("training_set/training_set", "test_set"), ("train", "val", "test")],
)
def test_splits_without_class_folders_are_no_classes(tmp_path, folders):
    fill(tmp_path, *folders)
    refused(tmp_path, repr(folders[0].split("/")[0]), "splits or classes", "train/CLASS", "rename")


def test_a_split_of_its_own_words_is_not_merged_into_another(tmp_path):
    fill(tmp_path, "train/cat", "train/dog", "test/cat", "eval/dog")
    assert counts(tmp_path) == {"train": TWO, "test": {"cat": 2}, "eval": {"dog": 2}}
    assert "'eval' is read as a split of its own, apart from 'test'" in notice(tmp_path)


def test_two_folders_of_training_rows_are_not_merged(tmp_path):
    fill(tmp_path, "train2014/cat", "train2014/dog", "train2017/cat", "train2017/dog")
    assert set(open_splits(str(tmp_path))) == {"train2014", "train2017"}
    with pytest.raises(InputError, match="no split 'train'; there are 'train2014', 'train2017'"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("beside", ["pred", "extra/cat", "seg_pred/seg_pred"])
def test_a_folder_beside_the_splits_is_refused_with_a_way_out(tmp_path, beside):
    fill(tmp_path, "seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/cat", beside)
    refused(
        tmp_path, "'seg_test', 'seg_train'", f"{beside.split('/')[0]!r} beside them does not", "seg_train/seg_train'"
    )
    assert counts(tmp_path / "seg_train" / "seg_train") == {"train": TWO}


def test_test_rows_without_class_folders_are_unlabelled(tmp_path):
    fill(tmp_path, "train/cat", "train/dog", "test")
    assert counts(tmp_path) == {"train": TWO, "test": {None: 2}}
    assert "the split 'test' has no class folders: its rows are unlabelled" in notice(tmp_path)
    assert inspect_dataset(str(tmp_path)).splits["test"].unlabelled == 2


def test_training_rows_without_class_folders_are_refused(tmp_path):
    fill(tmp_path, "train", "test/cat", "test/dog")
    refused(tmp_path, "train' holds images but no class folders, though 'test' does")


def test_classes_that_sound_like_splits_are_classes(tmp_path):
    fill(tmp_path, "test_tube", "train_station", "flask")
    assert counts(tmp_path) == {"train": {"flask": 2, "test_tube": 2, "train_station": 2}}


def test_the_class_train_beside_others_is_a_class_with_a_notice(tmp_path):
    fill(tmp_path, "train", "bus", "car")
    assert set(counts(tmp_path)["train"]) == {"bus", "car", "train"}
    assert "the folder 'train' is read as a class" in notice(tmp_path)


@pytest.mark.parametrize("beside", ["test", "val", "validation_set"])
def test_a_flat_test_folder_beside_classes_is_refused(tmp_path, beside):
    fill(tmp_path, "cat", "dog", beside)
    refused(tmp_path, f"whether {beside!r}", "is a split without class folders or a class beside 'cat', 'dog'")


@pytest.mark.parametrize(
    "folders",
    [("cat/train", "cat/test", "dog/train", "dog/test"), ("nut/train/good", "nut/test/bad", "bolt/train/good")],
)
def test_splits_inside_classes_are_refused(tmp_path, folders):
    fill(tmp_path, *folders)
    refused(tmp_path, "look like splits inside classes", "put the splits on top")


def test_file_names_that_name_splits_are_refused(tmp_path):
    for number, split in enumerate(("train", "test")):
        save_digit(tmp_path / "cat" / f"{split}_{number}.png", number)
        save_digit(tmp_path / "dog" / f"{split}_{number}.png", number + 10)
    refused(tmp_path, "are named like splits ('test_1.png', 'train_0.png')")
    save_digit(tmp_path / "dog" / "7.png", 7)
    assert counts(tmp_path) == {"train": {"cat": 2, "dog": 3}}


def test_a_single_folder_on_the_way_is_named(tmp_path):
    fill(tmp_path, "archive/data/cat", "archive/data/dog")
    refused(tmp_path, "only one folder of images, 'archive'", f"give {str(tmp_path / 'archive' / 'data')!r}")
    assert counts(tmp_path / "archive" / "data") == {"train": TWO}


@pytest.mark.parametrize("folders", [("images", "masks"), ("train/images", "train/labels"), ("Images", "Annotations")])
def test_folders_that_name_no_class_are_refused(tmp_path, folders):
    fill(tmp_path, *folders)
    refused(tmp_path, "which name no classes")


# ---------------------------------------------------------------------------------------------------- passed over


def save_in_any_mode(path):
    for mode in ("RGB", "L", "P", "1", "F"):  # no format takes all of them
        with contextlib.suppress(OSError, ValueError, KeyError):
            return save_digit(path, 1, mode)
    raise AssertionError(f"{path} cannot be written")


def test_every_suffix_that_pillow_reads_is_read(tmp_path):
    written = sorted(suffix[1:] for suffix in SUFFIXES if Image.registered_extensions()[suffix] in Image.SAVE)
    assert {"png", "jpg", "ppm", "pgm", "tga", "webp", "bmp", "ico"} <= set(written) and len(written) > 30
    for suffix in written:
        save_in_any_mode(tmp_path / suffix / f"0.{suffix}")
        save_in_any_mode(tmp_path / suffix / f"1.x.{suffix.upper()}")
    found = inspect_dataset(str(tmp_path))
    assert found.splits["train"].corrupt == ()
    assert found.class_counts == dict.fromkeys(written, 2)


@pytest.mark.parametrize("name", ["EPS", "WMF", "HDF5", "MPEG"])
def test_formats_that_pillow_cannot_decode_by_itself_are_not_read(name):
    assert name not in FORMATS
    assert not {end for end, kind in Image.registered_extensions().items() if kind == name} & SUFFIXES


def test_what_is_passed_over_is_counted_in_inspect_and_in_the_plan(tmp_path):
    fill(tmp_path, "cat", "dog", count=6)
    for number in range(3):
        (tmp_path / "bird").mkdir(exist_ok=True)
        (tmp_path / "bird" / f"{number}.heic").write_bytes(b"heic")
        (tmp_path / "cat" / f"{number}.npy").write_bytes(b"npy")
    (tmp_path / "README").write_text("words")
    save_digit(tmp_path / "loose.png", 3)
    save_digit(tmp_path / "dog" / ".hidden.png", 4)
    (tmp_path / "dog" / "._0.png").write_bytes(b"what macOS leaves")
    words = ("3 .heic", "3 .npy", "1 without suffix", "1 image beside the class folders", "1 hidden image")
    report = inspect_dataset(str(tmp_path))
    recipe = parse_recipe({"dataset": {"path": str(tmp_path)}, "generator": {"family": "cvae"}}, origin="fit")
    plan = plan_fit(open_dataset(str(tmp_path)), "cvae", recipe).describe()
    for text in (report.table(), plan):
        assert all(word in text for word in words), text
        assert "nothing is read from the folders 'bird'" in text
    assert report.class_counts == {"cat": 6, "dog": 6}


def test_notices_outlive_select_and_filter(tmp_path):
    fill(tmp_path, "cat", "dog", "cat/masks")
    rows = open_dataset(str(tmp_path)).filter(lambda row: row["label"] == 0).select([0])
    assert read_notices(rows) == ("passed over: 2 images in folders called 'masks'",)


def test_a_folder_without_images_counts_what_there_is(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"x")
    refused(tmp_path, "holds no images and no Parquet files (passed over: 1 .npz)")


@pytest.mark.parametrize("masks", ["masks", "mask", "ground_truth", "Annotations"])
def test_masks_in_a_folder_of_a_class_are_no_rows(tmp_path, masks):
    fill(tmp_path, "covid/images", f"covid/{masks}", "normal/images", f"normal/{masks}")
    assert counts(tmp_path) == {"train": {"covid": 2, "normal": 2}}
    assert f"passed over: 4 images in folders called {masks!r}" in notice(tmp_path)


def test_masks_beside_their_images_are_no_rows(tmp_path):
    fill(tmp_path, "benign", "malignant")
    for name in ("0_mask", "0_mask_1", "1 mask", "alone_mask"):
        save_digit(tmp_path / "benign" / f"{name}.png", 9)
    assert counts(tmp_path) == {"train": {"benign": 3, "malignant": 2}}
    assert "passed over: 3 masks named after the image beside" in notice(tmp_path)


def test_a_class_of_masks_alone_is_refused(tmp_path):
    fill(tmp_path, "worn/mask", "not_worn")
    refused(tmp_path, "the class 'worn'", "only in folders named like masks")


def test_a_class_called_masks_has_a_notice(tmp_path):
    fill(tmp_path, "masks", "gloves")
    assert counts(tmp_path) == {"train": {"gloves": 2, "masks": 2}}
    assert notice(tmp_path) == "the folder 'masks' is read as a class"


def test_the_same_folders_in_every_class_have_a_notice(tmp_path):
    fill(tmp_path, "site_a/cat", "site_a/dog", "site_b/cat", "site_b/dog")
    assert notice(tmp_path) == "the folders 'cat', 'dog' in every class are read as parts of the class"


@pytest.mark.parametrize("mark", [MARK, "synthaug.json", "model.safetensors"])
def test_what_a_command_wrote_into_the_folder_is_no_class(tmp_path, mark):
    fill(tmp_path, "cat", "dog", "run/samples")
    (tmp_path / "run" / mark).write_text("{}")
    assert counts(tmp_path) == {"train": TWO}
    assert "passed over: 1 folder 'run' that synthaug wrote" in notice(tmp_path)


@pytest.mark.parametrize("layout", ["{}", "train/{}"])
def test_two_spellings_of_a_class_are_refused(tmp_path, layout):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    fill(tmp_path, layout.format(composed), layout.format(decomposed), layout.format("x"))
    refused(tmp_path, "in two spellings", r"'e\u0301' and '\xe9'")


def test_two_spellings_in_two_splits_are_refused(tmp_path):
    fill(tmp_path, "train/cat", "train/dog", "test/cat ")
    refused(tmp_path, "in two spellings, 'cat' and 'cat '")


def test_test_rows_in_another_spelling_say_so(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    train = load_images(open_dataset(str(fill(tmp_path / "train", composed, "x"))))
    with pytest.raises(InputError, match="in two spellings"):
        load_images(open_dataset(str(fill(tmp_path / "test", decomposed, "x"))), class_names=train.class_names)


# -------------------------------------------------------------------------------------------------- special files


def make_special(path, kind):
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    elif kind == "circle":
        path.symlink_to(path.name)
    else:
        path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", ["FIFO", "socket", "circle", "dead end"])
@pytest.mark.parametrize("name", ["cat/x.png", "metadata.csv", "x.parquet"])
def test_a_special_file_called_like_data_is_refused_unopened(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "cat", "dog")
    make_special(tmp_path / name, kind)
    refused(
        tmp_path, repr(str(tmp_path / name)), {"FIFO": "a FIFO", "socket": "a socket"}.get(kind, "a link that leads")
    )


@pytest.mark.parametrize("kind", ["FIFO", "socket", "circle", "dead end"])
def test_another_special_file_is_counted(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, "cat", "dog")
    make_special(tmp_path / "cat" / "x", kind)
    assert counts(tmp_path) == {"train": TWO}
    assert "passed over: 1 special file (a" in notice(tmp_path)


def test_special_files_named_by_other_ways_are_refused(tmp_path):
    os.mkfifo(tmp_path / "x.parquet")
    for spec in (tmp_path / "x.parquet", tmp_path / "*.parquet"):
        refused(spec, "a FIFO")
    fill(tmp_path / "rows", "im")
    os.mkfifo(tmp_path / "rows" / "pipe")
    (tmp_path / "rows" / "metadata.csv").write_text("file_name,label\nim/0.png,a\npipe,b\n")
    refused(tmp_path / "rows", "pipe' is a FIFO")


def test_links_to_a_folder_above_are_entered_once(tmp_path):
    fill(tmp_path, "cat", "dog")
    (tmp_path / "cat" / "again").symlink_to("..")
    assert counts(tmp_path) == {"train": TWO}
    assert "1 link to a folder that holds them" in notice(tmp_path)


def test_a_folder_that_cannot_be_read_is_no_empty_folder(tmp_path, monkeypatch):
    fill(tmp_path, "cat", "dog", "bird")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("bird"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refused(tmp_path, "bird' cannot be read (Permission denied)")


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1"])
def test_names_that_the_locale_cannot_show_are_refused(tmp_path, monkeypatch, encoding):
    fill(tmp_path, "日本", "cat")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: encoding)
    refused(tmp_path, f"cannot be read in this locale ({encoding})", "PYTHONUTF8=1")
