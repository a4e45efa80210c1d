"""No dataset is opened because a run, a dataset folder or a recipe in one names it: only the user names rows."""

import json
import shutil
import sys

import pytest
import yaml

import synthaug
from synthaug.analysis.evaluation import evaluating
from synthaug.cli import main
from synthaug.data import sources
from synthaug.generation import jobs, write_dataset
from tests.small_runs import make_runs
from tests.test_examples import small_digits

NAMED = ("{canary}", "{canary}/data/train-00000-of-00001.parquet", "{canary}/*.parquet", "somebody/secret", "digits")
"""What a run may say that its dataset is."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with runs, the rows they were fitted on, and other rows."""
    home = tmp_path_factory.mktemp("home")
    rows = small_digits(per_class=14)
    write_dataset({"train": rows, "test": small_digits("test", 6)}, home / "rows")
    write_dataset(rows, home / "canary")  # the very rows, so that whoever opens them is served
    make_runs(rows, home, images=128)
    return home


def name_everywhere(folder, name):
    """Let every file of a run or of a dataset name a dataset."""
    source = folder / "source.json"
    if source.is_file():
        source.write_text(json.dumps({**json.loads(source.read_text()), "dataset": name}))
        recipe = {"dataset": {"path": name}, "generator": {"family": folder.name.split("-")[0]}}
        recipe |= {"benchmark": {"test": {"path": name}}, "generate": {"judge": name, "balance": f"{name}.json"}}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    record = folder / "synthaug.json"
    if record.is_file():
        named = {"recipe": {"run": name, "mix_with": name}, "source": {"dataset": name}}
        record.write_text(json.dumps({**json.loads(record.read_text()), **named}))


class Watch:
    """Notes what is opened: files and folders by the interpreter, and datasets by their names."""

    def __init__(self):
        self.on, self.seen = False, []
        sys.addaudithook(self.note)

    def note(self, event, arguments):
        if self.on and event in ("open", "os.listdir", "os.scandir", "glob.glob", "os.walk", "socket.connect"):
            self.seen.append(str(arguments[0]))


@pytest.fixture(scope="module")
def watch():
    return Watch()


@pytest.fixture
def opened(watch, monkeypatch):
    """Return the list of what is opened during the test."""
    real = sources.open_splits
    monkeypatch.setattr(sources, "open_splits", lambda spec: (watch.seen.append(f"dataset {spec}"), real(spec))[1])
    monkeypatch.setattr("synthaug.data.sources.open_splits", sources.open_splits)
    monkeypatch.setattr(evaluating, "STEPS", 3)
    monkeypatch.setattr(evaluating, "count_referee_steps", lambda rows, channels: 3)
    watch.seen.clear()
    watch.on = True
    yield watch.seen
    watch.on = False


def run_command(words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return ended.value.code


ARMS = "--arms oversampled+classical,oversampled+classical+synthetic --steps 1 --seeds 1 --num-processes 1"
COMMANDS = {
    "evaluate": "evaluate {run} --test {rows} --per-class 4 --seeds 1",
    "evaluate --real": "evaluate {run} --test {rows} --real {rows} --per-class 4 --seeds 1",
    "explore": "explore {run} --per-class 1",
    "score": "score {run} {rows}",
    "generate": "generate {run} --per-class 2",
    "generate --mix-with": "generate {run} --balance 16 --mix-with {rows}",
    "benchmark a run": f"benchmark --real {{rows}} --synthetic {{run}} --test {{rows}} {ARMS}",
    "benchmark a dataset": f"benchmark --real {{rows}} --synthetic {{made}} --test {{rows}} {ARMS}",
    "mix": "mix {rows} {made}",
    "strip": "strip {made}",
}


@pytest.mark.parametrize(
    ("command", "name"), [(key, name) for key in COMMANDS for name in (NAMED if key[0] == "e" else NAMED[:1])]
)
def test_no_command_opens_what_a_run_names(home, tmp_path, opened, monkeypatch, command, name):
    resolve = jobs.resolve_filter
    monkeypatch.setattr(jobs, "resolve_filter", lambda generator, check: resolve(generator, "none"))
    name = name.format(canary=home / "canary")
    run, made = tmp_path / "cvae-run", tmp_path / "made"
    shutil.copytree(home / "cvae", run, ignore=shutil.ignore_patterns("state"))
    if "{made}" in COMMANDS[command]:
        generator = synthaug.load_generator(run)
        few = dict.fromkeys(generator.class_names, 1)
        synthaug.generate(generator, synthaug.plan_balance(few, 3), output=made, filter="none")
        name_everywhere(made, name)
    name_everywhere(run, name)
    words = COMMANDS[command].format(run=run, rows=home / "rows", made=made).split()
    opened.clear()
    assert run_command([*words, "--output", tmp_path / "out"]) == 0
    assert opened and not [what for what in opened if str(home / "canary") in what or what == f"dataset {name}"]


def test_python_opens_none_either(home, tmp_path, opened):
    run = tmp_path / "cvae-run"
    shutil.copytree(home / "cvae", run, ignore=shutil.ignore_patterns("state"))
    name_everywhere(run, str(home / "canary"))
    generator = synthaug.load_generator(run)
    with pytest.raises(synthaug.InputError, match=r"name them with real=DATASET"):
        synthaug.evaluate(generator, small_digits("test", 6), per_class=4)
    found = synthaug.explore(generator, per_class=1, output=tmp_path / "out")
    assert not found.training_rows and "real=" in found.notes[0]
    assert not [what for what in opened if str(home / "canary") in what]


def test_the_rows_are_found_where_the_test_rows_are(home, tmp_path, opened, capsys):
    out = tmp_path / "out"
    words = ["evaluate", home / "cvae", "--test", home / "rows", "--per-class", 4, "--seeds", 1, "--output", out]
    assert run_command(words) == 0
    assert json.loads((out / "evaluation.json").read_text())["settings"]["leaks"] == "clean"
    alone = tmp_path / "alone"
    write_dataset({"test": small_digits("test", 6)}, alone)
    words = ["evaluate", home / "cvae", "--test", alone, "--output", tmp_path / "other"]
    capsys.readouterr()
    assert run_command(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no split 'train'" in error and "--real DATASET" in error
    assert run_command([*words, "--split", "test"]) == 2
    assert "--real DATASET" in capsys.readouterr().err and not (tmp_path / "other").exists()
