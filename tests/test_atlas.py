"""Explorations of small runs of every family: pictures, page, record."""

import json
import shutil

import pytest
from small_runs import make_runs
from test_examples import small_digits

import synthaug
from synthaug.cli import main
from synthaug.export import write_dataset

EVERYWHERE = {"samples", "temperatures", "classes", "class-to-class", "traversals", "nearest"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("runs")
    write_dataset(small_digits(per_class=14), home / "rows")
    make_runs(small_digits(per_class=14), home, images=256, path=home / "rows")
    return home


@pytest.mark.parametrize("family", ["cvae", "glow", "cgan"])
def test_every_family_is_explored_as_far_as_it_goes(family, home):
    found = synthaug.explore(home / family, per_class=3)
    assert found.folder == home / family / "exploration"
    encodes = family != "cgan"
    assert found.encodes == encodes and found.training_rows > 20
    assert set(found.captions) == EVERYWHERE | ({"image-to-image"} if encodes else set())
    for name in found.captions:
        assert (found.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    page = (found.folder / "index.html").read_text()
    assert page.count("data:image/png;base64,") == len(found.captions) and "http:" not in page and "https:" not in page
    assert ("needs an encoder" in page) == (not encodes)
    assert all(caption.split("(")[0] in page for caption in found.captions.values())


def test_directions_are_recorded_with_what_they_do(home):
    found = synthaug.explore(home / "cvae", per_class=3)  # made by the test before, or now
    nats = [direction["nats"] for direction in found.directions]
    assert len(nats) == 4 and nats == sorted(nats, reverse=True)
    assert all(direction["title"].startswith("dimension ") for direction in found.directions)
    assert {effect["statistic"] for effect in found.directions[0]["effects"]} >= {"slant", "ink", "width"}
    flow = synthaug.explore(home / "glow", per_class=3)
    assert len(flow.directions) == 10 and flow.directions[0]["nats"] is None
    assert flow.directions[0]["change"] > flow.directions[-1]["change"] > 0


def test_the_same_again_is_finished_and_other_arguments_are_refused(home):
    made = synthaug.explore(home / "cgan", output=home / "again", per_class=1)
    before = (home / "again" / "exploration.json").stat().st_mtime_ns
    assert synthaug.explore(home / "cgan", output=home / "again", per_class=1) == made
    assert (home / "again" / "exploration.json").stat().st_mtime_ns == before
    with pytest.raises(synthaug.InputError, match=r"other arguments \(seed\).*fresh=True"):
        synthaug.explore(home / "cgan", output=home / "again", per_class=1, seed=1)
    synthaug.explore(home / "cgan", output=home / "again", per_class=1, seed=1, fresh=True)
    assert json.loads((home / "again" / "exploration.json").read_text())["arguments"]["seed"] == 1
    with pytest.raises(synthaug.InputError, match="made by synthaug write_dataset; give another folder"):
        synthaug.explore(home / "cgan", output=home / "rows")


def test_rows_of_the_run_are_told_by_their_hashes(home):
    with pytest.raises(synthaug.InputError, match="none of 9 rows is among the"):
        synthaug.explore(home / "glow", real=small_digits("test", 3), output=home / "other")
    assert not (home / "other").exists()
    mixed = synthaug.explore(home / "cgan", real=small_digits(per_class=5), output=home / "few", per_class=1)
    assert 0 < mixed.training_rows <= 15


def test_without_training_rows_the_page_says_so(home):
    source = json.loads((home / "glow" / "source.json").read_text())
    shutil.copytree(home / "glow", home / "object")
    (home / "object" / "source.json").write_text(json.dumps({**source, "dataset": "Dataset in memory"}))
    found = synthaug.explore(home / "object", per_class=1, output=home / "no-rows")
    assert not found.training_rows and "--real" in found.notes[0]
    assert set(found.captions) == EVERYWHERE - {"nearest"}


def test_the_command_prints_the_path(home, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["explore", str(home / "cvae"), "--output", str(home / "command"), "--per-class", "2"])
    printed = capsys.readouterr()
    assert ended.value.code == 0 and printed.out == f"{home / 'command'}\n" and "nats): " in printed.err
    for option in (["--per-class", "0"], ["--temperature", "-1"]):
        with pytest.raises(SystemExit) as ended:
            main(["explore", str(home / "cvae"), *option])
        assert ended.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_fresh_removes_no_picture_of_the_user(home):
    synthaug.explore(home / "glow", output=home / "mine", per_class=1)
    (home / "mine" / "photo.png").write_bytes(b"a photograph")
    with pytest.raises(synthaug.InputError, match=r"'photo\.png' not made by this command"):
        synthaug.explore(home / "glow", output=home / "mine", per_class=1, fresh=True)
    assert (home / "mine" / "photo.png").read_bytes() == b"a photograph" and (home / "mine" / "index.html").exists()
