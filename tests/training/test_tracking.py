"""What a fit tells a tracker, read back; without one nothing changes."""

import functools
import json
import sys
from unittest import mock

import numpy as np
import pytest
from accelerate import Accelerator
from accelerate.utils import LoggerType

from synthaug.classifiers import fit_judge
from synthaug.cli import program
from synthaug.core import InputError, OutputFolder, StoppedError, is_listed, tile_images
from synthaug.publishing.uploads import prepare
from synthaug.training import completion, fit, tracking
from synthaug.training.tracking import TRACKERS, Journal
from tests.training.test_loop import toy_dataset

SMALL = {"width": 16, "latent_dim": 4, "validation": 4}


def read_events(folder):
    """Return the scalars and pictures that lie in a run's logs, by tag."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator(
        str(folder / "logs" / "synthaug"), size_guidance={"scalars": 0, "images": 0}
    )
    accumulator.Reload()
    tags = accumulator.Tags()
    scalars = {tag: accumulator.Scalars(tag) for tag in tags["scalars"]}
    return scalars, {tag: accumulator.Images(tag) for tag in tags["images"]}


@pytest.fixture(scope="module", autouse=True)
def quick_judge():
    with mock.patch.object(completion, "fit_judge", functools.partial(fit_judge, steps=5)):
        yield


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The same fit without and with a tracker."""
    pytest.importorskip("tensorboard")
    home = tmp_path_factory.mktemp("tracked")
    fit(toy_dataset(), "cvae", output=home / "plain", images=640, **SMALL)
    fit(toy_dataset(), "cvae", output=home / "watched", images=640, track="tensorboard", **SMALL)
    return home


def test_losses_speed_and_a_grid_are_there(tracked):
    scalars, pictures = read_events(tracked / "watched")
    entry = json.loads((tracked / "watched" / "log.jsonl").read_text().splitlines()[-1])
    names = set(entry) - {"images", "seconds"}
    assert set(scalars) == {f"losses/{name}" for name in names} | {"speed/images per second"}
    for name in names:
        last = scalars[f"losses/{name}"][-1]
        assert last.step == entry["images"] >= 640 and last.value == pytest.approx(entry[name], rel=1e-5)
    assert scalars["speed/images per second"][-1].value > 0
    assert [picture.step for picture in pictures["samples"]][-1:] == [entry["images"]]


def test_tracking_changes_no_weight_and_is_no_other_argument(tracked):
    plain, watched = tracked / "plain", tracked / "watched"
    for name in ("model.safetensors", "judge.safetensors", "latents.safetensors"):
        assert (plain / name).read_bytes() == (watched / name).read_bytes(), name
    before = (watched / "config.json").stat().st_mtime_ns
    fit(toy_dataset(), "cvae", output=watched, images=640, **SMALL)
    fit(toy_dataset(), "cvae", output=plain, images=640, track="tensorboard", **SMALL)
    assert (watched / "config.json").stat().st_mtime_ns == before and not (plain / "logs").exists()


def test_logs_are_never_pushed_and_fresh_removes_them(tracked):
    files = prepare(tracked / "watched", "me/run", None, include_latents=True).files
    assert "config.json" in files and not any(name.startswith("logs") for name in files)
    fit(toy_dataset(), "cvae", output=tracked / "watched", images=64, fresh=True, **SMALL)
    assert not (tracked / "watched" / "logs").exists()


def test_a_resumed_fit_goes_on_in_its_log(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    note, seen = Journal.note, []

    def stop(self, losses, *, images_seen, seconds):
        note(self, losses, images_seen=images_seen, seconds=seconds)
        seen.append(images_seen)
        if len(seen) == 3:
            raise StoppedError("as a signal would", 2)

    monkeypatch.setattr("synthaug.training.tracking._LOG_SECONDS", 0.0)
    monkeypatch.setattr(Journal, "note", stop)
    options = {"images": 640, "batch_size": 64, "save_every": "128", "track": "tensorboard", **SMALL}
    with pytest.raises(StoppedError):
        fit(toy_dataset(), "cvae", output=tmp_path / "run", **options)
    monkeypatch.setattr(Journal, "note", note)
    fit(toy_dataset(), "cvae", output=tmp_path / "run", **options)
    scalars, _ = read_events(tmp_path / "run")
    steps = [event.step for event in next(iter(scalars.values()))]
    assert steps == list(range(64, 641, 64)), steps  # each once, also those behind the state


def test_an_absent_or_unknown_tracker_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    words = ["fit", "digits", "--generator", "cvae", "--output", str(tmp_path / "run"), "--track"]
    for name in TRACKERS:
        assert program._run([*words, name], debug=False) == 2
        assert f"pip install '.[{name}]'" in capsys.readouterr().err
    assert program._run([*words, "tensorbord"], debug=False) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="did you mean 'wandb'"):
        tracking.check_tracker("wandbb")


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_the_other_trackers_are_started_so_that_they_resume(name, tmp_path, monkeypatch):
    """With a stand-in for the package: what Accelerate's tracker hands on to it."""
    calls = []

    class Run:
        def log(self, values, step=None):
            calls.append(("log", values, step))

        def finish(self):
            calls.append(("finish",))

    package = type(sys)(name)
    package.init = lambda **options: calls.append(("init", options)) or Run()
    package.Image = lambda picture: picture.shape
    monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [LoggerType(name)])
    monkeypatch.setenv("TRACKIO_DIR", "")
    monkeypatch.delenv("TRACKIO_DIR")
    grid = tile_images([np.zeros((2, 8, 8, 1), np.uint8)])
    for seen in (0, 64):
        journal = Journal(Accelerator(cpu=True), name, tmp_path)
        with journal.open(seen, 0.0):
            journal.note({"g.loss": 1.0}, images_seen=seen + 64, seconds=2.0)
            journal.show(grid, images_seen=seen + 64)
    first, second = [call[1] for call in calls if call[0] == "init"]
    assert first == second and first["project"] == "synthaug" and first["resume"] == "allow"
    logs = [call for call in calls if call[0] == "log"]
    assert logs[0] == ("log", {"losses/g.loss": 1.0, "speed/images per second": 32.0}, 64)
    assert len(logs) == (4 if name == "wandb" else 2) and len([c for c in calls if c[0] == "finish"]) == 2


def test_a_users_own_file_among_the_logs_is_the_users(tmp_path):
    """It is not listed as the tracker's, and what a tracker has written is listed before the first entry."""
    mine, log = tmp_path / "logs" / "wandb" / "mine", tmp_path / "logs" / "wandb" / "log"
    with OutputFolder(tmp_path, "fit", {}):
        mine.parent.mkdir(parents=True)
        mine.write_text("years of work")
        accelerator = mock.Mock(is_main_process=True, trackers=[])
        accelerator.init_trackers = lambda *_, **__: log.write_text("begun")
        found = mock.patch("accelerate.tracking.filter_trackers", return_value=["wandb"])
        with found, Journal(accelerator, "wandb", tmp_path).open(0, 0.0):
            assert is_listed(log) and not is_listed(mine)
        assert is_listed(log) and not is_listed(mine)
