from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Image, load_dataset
from PIL import Image as Picture
from toy_rows import make_real, stored
from toys import (
    NAMES,
    BrokenGenerator,
    ToyGenerator,
    keep_bright_corners,
    keep_none_of_cat,
)

from synthaug.balance import BalancePlan, make_plan
from synthaug.codec import to_pixels
from synthaug.errors import FailedError, InputError, StoppedError
from synthaug.generation import generate
from synthaug.mixing import strip
from synthaug.noise import draw_normal
from synthaug.output import MARK

PLAN = make_plan({"ant": 90, "bee": 20, "cat": 3})  # misses 0, 70, 87


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file; none but the mark is hidden."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    assert not [p for p in files if (p.name.startswith(".") and p.name != MARK) or ".partial" in p.parts]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(output, **options):
    options = {"filter": "none", "rows_per_shard": 30, **options}
    return generate(ToyGenerator(), options.pop("plan", PLAN), output=output, **options)


# ---------------------------------------- what comes out


def test_counts_are_exact_and_draw_k_is_draw_k():
    generator = ToyGenerator()
    dataset = generate(generator, PLAN, filter=keep_bright_corners, seed=7)
    labels = np.array(dataset["label"])
    assert np.bincount(labels, minlength=3).tolist() == [0, 70, 87]
    assert (np.diff(labels) >= 0).all()
    for label in (1, 2):
        rows = dataset.select(np.flatnonzero(labels == label))
        draws = np.array([p["draw"] for p in rows["provenance"]])
        noise = torch.from_numpy(draw_normal(7, label, 0, 320, generator.noise_shape))
        pixels = to_pixels(generator.sample(torch.full((320,), label), noise=noise))
        accepted = np.flatnonzero(pixels[:, 0, 0, 0] > pixels[:, -1, -1, 0])
        assert draws.tolist() == accepted[: len(draws)].tolist()
        np.testing.assert_array_equal([np.asarray(image)[..., None] for image in rows["image"]], pixels[draws])


def test_the_dataset_has_features_of_the_real_rows_and_provenance():
    dataset = generate(ToyGenerator(), PLAN, filter="none")
    assert list(dataset.features) == ["image", "label", "synthetic", "provenance"]
    assert isinstance(dataset.features["image"], Image)
    assert dataset.features["label"] == ClassLabel(names=NAMES)
    first = dataset[0]["provenance"]
    assert first["generator"] == "toy@1" and len(first["checkpoint"]) == 64
    assert (first["seed"], first["draw"]) == (0, 0)


def test_classes_follow_the_labels_whatever_the_order_of_the_plan():
    plan = BalancePlan({"cat": 0, "ant": 0}, {"cat": 2, "ant": 3})
    assert generate(ToyGenerator(), plan, filter="none")["label"][:] == [0, 0, 0, 2, 2]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_number_of_channels(channels):
    plan = BalancePlan({"bee": 1}, {"bee": 3})
    dataset = generate(ToyGenerator(channels=channels), plan, filter="none")
    assert dataset[0]["image"].mode == {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]


def test_load_dataset_reads_the_folder(tmp_path):
    real, test = make_real((90, 20, 3)), make_real((2, 2, 2))
    run(tmp_path / "out", mix_with=real, other_splits={"test": test})
    loaded = load_dataset(str(tmp_path / "out"))
    assert set(loaded) == {"train", "test"} and loaded["train"].num_rows == 270
    features = loaded["train"].features
    assert features["label"] == ClassLabel(names=NAMES) and isinstance(features["image"], Image)
    assert np.bincount(loaded["train"]["label"]).tolist() == [90, 90, 90]
    assert loaded["train"][0]["image"].size == (8, 8)
    names = sorted(p.name for p in (tmp_path / "out" / "data").iterdir())
    assert names[0] == "test-00000-of-00001.parquet" and names[-1] == "train-00009-of-00010.parquet"


def test_real_rows_come_first_with_their_bytes_and_can_be_stripped_again(tmp_path):
    real = make_real((90, 20, 3, 2))  # two rows without a label
    mixed = run(tmp_path / "out", mix_with=real)
    assert mixed["synthetic"][:] == [False] * 115 + [True] * 157
    assert stored(mixed, "provenance")[:115] == [None] * 115
    assert set(mixed["age"][115:]) == {None}
    back = strip(mixed)
    assert back.features == real.features
    assert [v["bytes"] for v in stored(back, "image")] == [v["bytes"] for v in stored(real, "image")]
    assert {v["path"] for v in stored(mixed, "image")} == {None}
    assert back["label"][:] == real["label"][:] and back["age"][:] == real["age"][:]


def test_synthetic_rows_of_the_input_are_left_out(tmp_path, capsys):
    mixed = run(tmp_path / "one", mix_with=make_real((90, 20, 3)))
    again = run(tmp_path / "two", mix_with=mixed, seed=1)
    assert again.features == mixed.features and sum(again["synthetic"]) == 157 and len(again) == 270
    assert "157 rows already marked synthetic" in capsys.readouterr().err


def test_paths_are_embedded_and_never_written(tmp_path):
    real = make_real((4, 1, 1))
    for i, value in enumerate(stored(real, "image")):
        (tmp_path / f"{i}.img").write_bytes(value["bytes"])
    paths = [{"bytes": None, "path": str(tmp_path / f"{i}.img")} for i in range(6)]
    rows = {"image": paths, "label": real["label"][:], "age": real["age"][:]}
    by_path = Dataset.from_dict(rows, features=real.features)
    mixed = run(tmp_path / "out", mix_with=by_path, plan=make_plan({"ant": 4, "bee": 1, "cat": 1}))
    assert stored(mixed, "image")[:6] == [{"bytes": v["bytes"], "path": None} for v in stored(real, "image")]
    assert str(tmp_path).encode() not in (tmp_path / "out" / "data" / "train-00000-of-00002.parquet").read_bytes()


@pytest.mark.parametrize("bad", [b"secret text, no image", b"", None])
def test_a_corrupt_real_image_stops_it_or_is_skipped(tmp_path, bad, capsys):
    real = make_real((4, 3, 2))
    images = stored(real, "image")
    images[4] = None if bad is None else {"bytes": bad, "path": None}
    rows = {"image": images, "label": real["label"][:], "age": real["age"][:]}
    real = Dataset.from_dict(rows, features=real.features)
    with pytest.raises(InputError, match=r"row 4 of mix_with.*repair or drop"):
        run(tmp_path / "out", mix_with=real)
    assert not (tmp_path / "out" / "data").exists() and not (tmp_path / "out" / "README.md").exists()
    mixed = run(tmp_path / "skip", mix_with=real, on_bad_image="skip")
    assert len(mixed) == 8 + 157
    assert "1 corrupt rows are left out (row 4" in capsys.readouterr().err


def test_nothing_missing_makes_an_empty_dataset(tmp_path):
    dataset = run(None, plan=make_plan({"ant": 2, "bee": 2}))
    assert len(dataset) == 0 and dataset.features["label"] == ClassLabel(names=NAMES)
    with pytest.raises(InputError, match="would be empty"):
        run(tmp_path / "out", plan=make_plan({"ant": 2, "bee": 2}))  # no load_dataset could read it
    assert len(run(tmp_path / "mixed", plan=make_plan({"ant": 2}), mix_with=make_real((2, 0, 0)))) == 2


def test_the_folder_tells_how_it_was_made(tmp_path, capsys):
    run(
        tmp_path / "out",
        filter=keep_bright_corners,
        recipe={"generate": {"seed": 0}},
        facts={"title": "Insects"},
    )
    record = json.loads((tmp_path / "out" / "synthaug.json").read_text())
    assert record["plan"]["missing"] == {"ant": 0, "bee": 70, "cat": 87}
    assert record["threads"] == 1 and record["recipe"] == {"generate": {"seed": 0}}
    bee = record["acceptance"]["bee"]
    assert bee["accepted"] == 70 and bee["drawn"] == 70 + bee["rejected"]["filter"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Insects" in card and "samples.png" in card
    grid = Picture.open(tmp_path / "out" / "samples.png")
    assert grid.mode == "L" and grid.size[0] > grid.size[1]
    error = capsys.readouterr().err
    assert error.index("missing") < error.index("generate:") and "accepted" in error


# ---------------------------------------- same bytes, whatever happens


@pytest.mark.parametrize("check", ["none", keep_bright_corners])
def test_two_workers_write_the_bytes_of_one(tmp_path, check):
    run(tmp_path / "one", filter=check)
    run(tmp_path / "two", filter=check, num_processes=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


class StopAfter:
    """A filter that raises or signals at its nth block."""

    def __init__(self, blocks, action):
        self.blocks, self.action, self.__name__ = blocks, action, "same"

    def __call__(self, images, labels):
        self.blocks -= 1
        if self.blocks == 0:
            self.action()
        return keep_bright_corners(images, labels)


def crash():
    raise RuntimeError("power cut")


def interrupt():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("blocks", [1, 2, 4, 5])
@pytest.mark.parametrize("action", [crash, interrupt])
def test_an_interruption_leaves_no_trace(tmp_path, blocks, action):
    real = make_real((90, 20, 3))
    run(tmp_path / "whole", filter=StopAfter(0, crash), mix_with=real)
    with pytest.raises((RuntimeError, StoppedError)):
        run(tmp_path / "parts", filter=StopAfter(blocks, action), mix_with=real)
    visible = [p for p in (tmp_path / "parts").iterdir() if not p.name.startswith(".")]
    assert visible == []
    check = StopAfter(0, crash)
    run(tmp_path / "parts", filter=check, mix_with=real)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    if blocks == 5:
        assert -check.blocks < 6  # it took up where it was


def test_rows_kept_by_a_stop_outlast_the_repair_of_an_earlier_shard(tmp_path):
    run(tmp_path / "whole", filter=StopAfter(0, crash))
    with pytest.raises(StoppedError):
        run(tmp_path / "parts", filter=StopAfter(3, interrupt))
    partial = tmp_path / "parts" / ".partial"
    manifest = json.loads((partial / "manifest.json").read_text())
    assert manifest["pending"]["rows"] > 0
    (partial / "data" / manifest["shards"][0]["file"]).unlink()
    check = StopAfter(0, crash)
    run(tmp_path / "parts", filter=check)
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")
    whole = StopAfter(0, crash)
    run(tmp_path / "again", filter=whole)
    assert check.blocks > whole.blocks  # fewer blocks were computed than for everything


def test_a_signal_says_how_to_go_on(tmp_path):
    with pytest.raises(StoppedError, match="same command again") as caught:
        run(tmp_path / "out", filter=StopAfter(2, interrupt))
    assert caught.value.exit_code == 128 + signal.SIGTERM


def test_a_killed_process_resumes(tmp_path):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        run(tmp_path / "out", filter=StopAfter(4, lambda: os.kill(os.getpid(), signal.SIGKILL)))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    run(tmp_path / "out", filter=StopAfter(0, crash))
    run(tmp_path / "whole", filter=StopAfter(0, crash))
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_finished_folder_is_returned_at_once(tmp_path):
    first = run(tmp_path / "out")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    again = run(tmp_path / "out", num_processes=2, max_draws=10**6)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    assert stored(again, "image") == stored(first, "image")


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_shard_is_written_again(tmp_path, damage):
    run(tmp_path / "out", filter=keep_bright_corners)
    whole = tree(tmp_path / "out")
    path = tmp_path / "out" / "data" / "train-00002-of-00006.parquet"
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        flipped = content[:200] + bytes([content[200] ^ 1]) + content[201:]
        path.write_bytes(content[:-100] if damage == "truncate" else flipped)
    run(tmp_path / "out", filter=keep_bright_corners)
    assert tree(tmp_path / "out") == whole


@pytest.mark.parametrize(
    ("options", "keys"),
    [({"seed": 1}, "(seed)"), ({"temperature": 0.5, "filter": keep_bright_corners}, "(temperature, filter)")],
)
def test_other_arguments_are_refused_until_fresh(tmp_path, options, keys):
    run(tmp_path / "out")
    with pytest.raises(InputError, match="other arguments") as caught:
        run(tmp_path / "out", **options)
    assert keys in str(caught.value) and "fresh=True" in str(caught.value)
    run(tmp_path / "out", **options, fresh=True)
    run(tmp_path / "new", **options)
    assert tree(tmp_path / "out") == tree(tmp_path / "new")


def test_other_real_rows_are_other_arguments(tmp_path):
    run(tmp_path / "out", mix_with=make_real((5, 3, 1)))
    run(tmp_path / "out", mix_with=make_real((5, 3, 1)))
    with pytest.raises(InputError, match="mix_with"):
        run(tmp_path / "out", mix_with=make_real((5, 3, 2)))


def test_foreign_files_are_never_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        run(tmp_path)
    with pytest.raises(InputError, match=r"notes\.txt"):
        run(tmp_path, fresh=True)
    run(tmp_path / "out")
    for name in ("notes.txt", "data/mine.csv"):
        mine = tmp_path / "out" / name
        mine.write_text("mine")
        run(tmp_path / "out")
        with pytest.raises(InputError, match=name):
            run(tmp_path / "out", fresh=True)
        assert mine.read_text() == "mine" and (tmp_path / "out" / "manifest.json").exists()
        mine.unlink()
    with pytest.raises(InputError, match=r"is a file|cannot be written"):
        run(tmp_path / "notes.txt")


def test_a_second_writer_is_refused(tmp_path):
    reached, leave = threading.Event(), threading.Event()

    def wait():
        reached.set()
        leave.wait(20)

    writer = threading.Thread(target=lambda: run(tmp_path / "out", filter=StopAfter(1, wait)))
    writer.start()
    assert reached.wait(20)
    with pytest.raises(InputError, match="written by another process"):
        run(tmp_path / "out")
    leave.set()
    writer.join()
    assert not (tmp_path / "out" / ".lock").exists()


# ---------------------------------------- what goes wrong


def test_a_shortfall_names_class_rate_and_draws_and_keeps_what_was_accepted(tmp_path):
    with pytest.raises(FailedError) as caught:
        run(tmp_path / "out", filter=keep_none_of_cat, max_draws=200)
    message = str(caught.value)
    assert all(word in message for word in ("'cat'", "87", "0 of 200 draws", "0.0%", "200 rejected by filter")), message
    assert not (tmp_path / "out" / "data").exists()
    kept = json.loads((tmp_path / "out" / ".partial" / "manifest.json").read_text())
    assert sum(e["rows"] for e in kept["shards"]) + kept["pending"]["rows"] == 70


def test_after_a_shortfall_more_draws_go_on(tmp_path):
    with pytest.raises(FailedError, match=r"cat|bee"):
        run(tmp_path / "out", filter=keep_bright_corners, max_draws=100)
    run(tmp_path / "out", filter=keep_bright_corners)
    run(tmp_path / "whole", filter=keep_bright_corners)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_max_draws_is_exact():
    plan = BalancePlan({"bee": 0}, {"bee": 70})
    last = generate(ToyGenerator(), plan, filter=keep_bright_corners)[-1]["provenance"]["draw"]
    generate(ToyGenerator(), plan, filter=keep_bright_corners, max_draws=last + 1)
    with pytest.raises(FailedError, match="69 of"):
        generate(ToyGenerator(), plan, filter=keep_bright_corners, max_draws=last)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_values_that_are_not_finite_are_an_error(tmp_path, num_processes):
    with pytest.raises(FailedError, match=r"'cat'.*diverged"):
        generate(BrokenGenerator(), PLAN, filter="none", output=tmp_path / "out", num_processes=num_processes)
    assert not (tmp_path / "out" / "data").exists()


YEARS = make_real().rename_column("age", "years")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"plan": BalancePlan({"bees": 1}, {"bees": 1})}, "did you mean 'bee'"),
        ({"seed": -1}, "seed is -1"),
        ({"temperature": -0.1}, "temperature"),
        ({"num_processes": 0}, "num_processes is 0"),
        ({"max_draws": 0}, "max_draws is 0"),
        ({"filter": "strict"}, "'default', 'none'"),
        ({"filter": "default"}, "filter='none'"),
        ({"filter": lambda x, y: y >= 0, "num_processes": 2}, "num_processes=1"),
        ({"mix_with": make_real(names=["ant", "bee", "dog"])}, "'cat'"),
        ({"mix_with": make_real().add_column("synthetic", [1] * 9)}, "'synthetic'"),
        (
            {"mix_with": make_real(), "other_splits": {"test": make_real().rename_column("age", "years")}},
            "'years'",
        ),
    ],
)
def test_bad_arguments_make_nothing(tmp_path, options, words):
    with pytest.raises(InputError) as caught:
        run(tmp_path / "out", **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists() or not [p for p in (tmp_path / "out").iterdir() if p.name[0] != "."]


def test_string_labels_and_many_classes():
    real = Dataset.from_dict(
        {
            "image": [{"bytes": v["bytes"], "path": None} for v in stored(make_real(), "image")],
            "label": ["b"] * 9,
        }
    ).cast_column("image", Image())
    generator = ToyGenerator(class_names=["a", "b"])
    mixed = generate(generator, BalancePlan({"a": 0, "b": 9}, {"a": 9, "b": 0}), filter="none", mix_with=real)
    assert mixed["label"][:] == ["b"] * 9 + ["a"] * 9


def test_shards_hold_real_pngs(tmp_path):
    value = stored(run(tmp_path / "out"), "image")[0]
    assert Picture.open(io.BytesIO(value["bytes"])).format == "PNG" and value["path"] is None


def test_other_objects_are_told_what_is_wanted():
    plan = make_plan({"ant": 3, "bee": 1, "cat": 1})
    for generator, given, words in (
        ("runs/ants", plan, r"generator is a str; .*load_generator\(RUN\)"),
        (ToyGenerator(), {"ant": 3}, r"plan is a dict; .*plan_balance"),
    ):
        with pytest.raises(InputError, match=words):
            generate(generator, given)
