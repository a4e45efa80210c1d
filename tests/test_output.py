"""The output folder of a command: only what its mark lists is used again or removed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from synthaug.errors import FailedError, InputError
from synthaug.output import (
    MARK,
    OutputFolder,
    claim,
    is_listed,
    list_files,
    move_folder,
    remove,
    temporary_name,
    write_file,
)


def tree(folder: Path) -> dict[str, str]:
    """Return path -> content of all visible files."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (MARK, ".lock")]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def make(folder: Path, command: str = "fit", *, seed: int = 0, finish: bool = True, **options) -> OutputFolder:
    with OutputFolder(folder, command, {"seed": seed}, **options) as made:
        if not made.has_finished("config.json"):
            write_file(folder / "state" / "weights", f"weights {seed}")
            write_file(folder / "config.json", f"config {seed}")
            if finish:
                made.finish()
    return made


def test_the_same_call_again_finds_the_folder_finished(tmp_path):
    make(tmp_path / "out")
    with OutputFolder(tmp_path / "out", "fit", {"seed": 0}) as made:
        assert made.has_finished("config.json") and not made.has_finished("gone.json")
    with pytest.raises(InputError, match=r"other arguments \(seed\).*fresh=True"):
        make(tmp_path / "out", seed=1)
    with pytest.raises(InputError, match="made by synthaug fit; give another folder"):
        make(tmp_path / "out", "generate")


def test_fresh_removes_what_the_command_made(tmp_path):
    make(tmp_path / "out")
    with OutputFolder(tmp_path / "out", "fit", {"seed": 1}, fresh=True):
        assert tree(tmp_path / "out") == {} and not (tmp_path / "out" / "state").exists()
    make(tmp_path / "out", seed=1)
    assert tree(tmp_path / "out") == {"config.json": "config 1", "state/weights": "weights 1"}


@pytest.mark.parametrize("name", ["thesis.tex", "state/thesis.tex", "state/deep/er/x", "samples/x"])
def test_fresh_refuses_a_folder_with_files_of_others(tmp_path, name):
    make(tmp_path / "out")
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("years of work")
    before = tree(tmp_path / "out")
    for command in ("fit", "generate"):
        with pytest.raises(InputError, match=r"thesis|er/x|samples/x|made by"):
            make(tmp_path / "out", command, seed=1, fresh=True)
        assert tree(tmp_path / "out") == before
    make(tmp_path / "out")  # without --fresh it is no hindrance
    assert tree(tmp_path / "out") == before


def test_a_file_that_the_user_changed_is_the_users(tmp_path):
    make(tmp_path / "out")
    (tmp_path / "out" / "config.json").write_text("my notes")
    with pytest.raises(InputError, match=r"'config.json' not made by this command, or changed since"):
        make(tmp_path / "out", fresh=True)
    assert (tmp_path / "out" / "config.json").read_text() == "my notes"


def test_a_link_in_place_of_a_listed_file_or_folder_is_not_followed(tmp_path):
    make(tmp_path / "out")
    shutil.move(tmp_path / "out" / "state", tmp_path / "mine")
    (tmp_path / "out" / "state").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="'state' not made by this command"):
        make(tmp_path / "out", fresh=True)
    assert tree(tmp_path / "mine") == {"weights": "weights 0"}


@pytest.mark.parametrize("name", ["../mine/weights", "/etc/hostname", "a/../../mine/weights"])
def test_a_mark_cannot_name_a_file_outside(tmp_path, name):
    make(tmp_path / "mine")
    make(tmp_path / "out")
    with (tmp_path / "out" / MARK).open("a") as file:
        file.write(json.dumps({"file": name, "sha256": None}) + "\n")
    with pytest.raises(InputError, match="cannot be read"):
        make(tmp_path / "out", fresh=True)
    assert len(tree(tmp_path / "mine")) == 2


def test_a_folder_without_a_mark_is_refused_with_and_without_fresh(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(InputError, match=r"'config.json' not made by synthaug fit"):
            make(tmp_path / "out", fresh=fresh)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["config.json"]


def test_a_folder_of_an_earlier_version_is_compared_but_not_removed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")

    def earlier() -> tuple[dict[str, int], bool]:
        return {"seed": 0}, True

    with pytest.raises(InputError, match="not made by synthaug fit"):
        make(tmp_path / "out", fresh=True, earlier=earlier)
    with pytest.raises(InputError, match=r"other arguments \(seed\)"):
        make(tmp_path / "out", seed=1, earlier=earlier)
    with OutputFolder(tmp_path / "out", "fit", {"seed": 0}, earlier=earlier) as made:
        assert made.has_finished("config.json")
    assert tree(tmp_path / "out") == {"config.json": "old"}


def test_an_interrupted_removal_goes_on_as_the_new_call(tmp_path, monkeypatch):
    make(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr("synthaug.output._remove_files", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "out", seed=1, fresh=True)
    with pytest.raises(InputError, match="other arguments"):
        make(tmp_path / "out", seed=0)
    make(tmp_path / "out", seed=1, fresh=True)
    assert tree(tmp_path / "out") == {"config.json": "config 1", "state/weights": "weights 1"}


def test_what_was_written_before_a_kill_is_removed_by_fresh(tmp_path):
    with pytest.raises(KeyboardInterrupt), OutputFolder(tmp_path / "out", "fit", {"seed": 0}):
        claim(tmp_path / "out" / "log.jsonl").write_text("{}")
        temporary_name(claim(tmp_path / "out" / "model")).write_text("half")
        raise KeyboardInterrupt
    with (tmp_path / "out" / MARK).open("a") as file:
        file.write('{"file": "cut o')  # the line that a kill cut off
    make(tmp_path / "out", seed=1, fresh=True)
    assert tree(tmp_path / "out") == {"config.json": "config 1", "state/weights": "weights 1"}


def test_a_file_in_the_way_is_not_overwritten(tmp_path):
    make(tmp_path / "out", finish=False)
    (tmp_path / "out" / "README.md").write_text("mine")
    with (
        pytest.raises(InputError, match=r"README.md.*did not make"),
        OutputFolder(tmp_path / "out", "fit", {"seed": 0}),
    ):
        write_file(tmp_path / "out" / "README.md", "card")
    assert (tmp_path / "out" / "README.md").read_text() == "mine"


def test_only_listed_files_are_used_again_or_removed(tmp_path):
    make(tmp_path / "out", finish=False)
    foreign = tmp_path / "out" / "state" / "images-2"
    foreign.write_text("copied from another run")
    with OutputFolder(tmp_path / "out", "fit", {"seed": 0}):
        assert is_listed(tmp_path / "out" / "config.json") and not is_listed(foreign)
        remove(foreign)
        remove(tmp_path / "out" / "state" / "weights")
    assert tree(tmp_path / "out") == {"config.json": "config 0", "state/images-2": "copied from another run"}


def test_a_renamed_folder_stays_listed(tmp_path):
    with OutputFolder(tmp_path / "out", "fit", {}) as made:
        write_file(tmp_path / "out" / ".partial" / "data" / "a", "a")
        move_folder(tmp_path / "out" / ".partial" / "data", tmp_path / "out" / "data")
        made.finish()
        assert is_listed(tmp_path / "out" / "data" / "a")
    with OutputFolder(tmp_path / "out", "fit", {}, fresh=True):
        assert tree(tmp_path / "out") == {}


def test_files_of_a_tracker_are_listed_by_name_until_they_are_complete(tmp_path):
    with OutputFolder(tmp_path / "out", "fit", {}):
        log = tmp_path / "out" / "events"
        log.write_text("1")
        list_files(log, final=False)
        log.write_text("12")
        assert is_listed(log)
        list_files(log)
        log.write_text("123")
        assert not is_listed(log)


def test_an_output_inside_belongs_to_the_command_that_called_it(tmp_path):
    with OutputFolder(tmp_path / "out", "recommend", {}):
        make(tmp_path / "out" / "runs" / "cvae")
    mine = tmp_path / "out" / "runs" / "cvae" / "state" / "mine"
    mine.write_text("x")
    with pytest.raises(InputError, match="runs/cvae/state/mine"):
        make(tmp_path / "out", "recommend", fresh=True)
    mine.unlink()
    with OutputFolder(tmp_path / "out", "recommend", {}, fresh=True):
        assert not (tmp_path / "out" / "runs").exists()


def test_an_output_that_another_command_put_inside_is_left_alone(tmp_path):
    make(tmp_path / "out")
    make(tmp_path / "out" / "evaluation", "evaluate")
    make(tmp_path / "out", seed=1, fresh=True)
    assert tree(tmp_path / "out" / "evaluation") == {"config.json": "config 0", "state/weights": "weights 0"}


@pytest.mark.parametrize("again", [False, True])
def test_a_folder_that_is_removed_under_the_command_is_a_failure(tmp_path, again):
    made = OutputFolder(tmp_path / "out", "fit", {"seed": 0})
    with pytest.raises(FailedError, match="was removed while it was written"), made:
        write_file(tmp_path / "out" / "a", "a")
        shutil.rmtree(tmp_path / "out")
        if again:
            write_file(tmp_path / "out" / "b", "b")
    assert not (tmp_path / "out").exists()


def test_a_command_that_refuses_its_input_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="bad row"), OutputFolder(tmp_path / "out", "fit", {}):
        write_file(tmp_path / "out" / ".partial" / "data" / "a", "a")
        raise InputError("bad row")
    assert not (tmp_path / "out").exists()
    make(tmp_path / "out", finish=False)
    with pytest.raises(InputError, match="bad row"), OutputFolder(tmp_path / "out", "fit", {"seed": 0}):
        raise InputError("bad row")
    assert len(tree(tmp_path / "out")) == 2  # what an earlier call made stays


def test_one_writer_at_a_time(tmp_path):
    with OutputFolder(tmp_path / "out", "fit", {}):
        for fresh in (False, True):
            with pytest.raises(InputError, match="another process"):
                make(tmp_path / "out", fresh=fresh)
        assert (tmp_path / "out").is_dir()
    assert not (tmp_path / "out").exists()  # nothing was written, nothing is left
    make(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARK, "config.json", "state"]


def test_a_lock_left_by_a_dead_process_does_not_hold(tmp_path):
    (tmp_path / ".lock").touch()
    make(tmp_path)


def test_a_file_in_place_of_the_folder_is_bad_input(tmp_path):
    (tmp_path / "file").touch()
    for path, message in ((tmp_path / "file" / "below", "cannot be written"), (tmp_path / "file", "is a file")):
        with pytest.raises(InputError, match=message):
            make(path)


def test_write_file_replaces_whole_files(tmp_path):
    write_file(tmp_path / "a", b"one")
    write_file(tmp_path / "a", "zwei")
    assert (tmp_path / "a").read_text() == "zwei" and len(list(tmp_path.iterdir())) == 1
