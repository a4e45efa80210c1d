"""An error names an argument in the words of the interface that was used."""

import ast
import io
import re
import sys
from pathlib import Path

import pytest

import synthaug
from synthaug import cli
from synthaug.cli.wording import use_flags
from synthaug.core.errors import InputError
from synthaug.data.sources import open_dataset
from tests.digit_files import fill

FLAGS = {"fresh": "--fresh", "label_column": "--label-column", "filter": "--filter", "num_processes": "--num-processes"}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("add fresh=True to start anew", "add --fresh to start anew"),
        ("name one with label_column=", "name one with --label-column"),
        ("use filter='none' and look", "use --filter none and look"),
        ("run fewer: num_processes=1.", "run fewer: --num-processes 1."),
        ("label_column is 'x'; give one", "--label-column is 'x'; give one"),
        ("a fresh start of the filter", "a fresh start of the filter"),
        ("no column 'label_column' in '/data/label_column=x/filter=none'", None),
        ("dataset.label_column and relabel_column are not it", None),
        ("an argument max_draws=9 of another command", None),
    ],
)
def test_arguments_become_flags_and_nothing_else_does(message, shown):
    assert use_flags(message, FLAGS, {}) == (message if shown is None else shown)


def test_an_argument_without_a_flag_becomes_a_key_of_the_recipe():
    keys = {"accumulation": "fit.accumulation"}
    assert use_flags("use accumulation=2", FLAGS, keys) == "use --set fit.accumulation=2"


def ambiguous(root):
    fill(root, ".", count=4)
    rows = "\n".join(f"{n}.png,{'ab'[n % 2]},{'xy'[n % 2]}" for n in range(4))
    (root / "metadata.csv").write_text(f"file_name,one,two\n{rows}")
    return str(root)


def told(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and len(lines) == 1
    return lines[0]


def test_one_remedy_in_three_interfaces(tmp_path, capsys):
    root = ambiguous(tmp_path)
    with pytest.raises(InputError, match=r"name one with label_column=$"):
        synthaug.fit(open_dataset(root), "cvae", output=tmp_path / "run")
    assert told(capsys, "inspect", root).endswith("name one with --label-column")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"dataset: {{path: {root}}}\ngenerator: {{family: cvae}}\noutput: {tmp_path / 'all'}")
    assert told(capsys, "run", str(recipe)).endswith("name one with --set dataset.label_column=")
    assert "--image-size is 5" in told(capsys, "inspect", root, "--label-column", "one", "--image-size", "5")


SOURCE = Path(synthaug.__file__).parent
COMMAND_LINE = {
    "program.py", "recipe.py", "command.py", "distributed.py", "wording.py", "findings.py", "completion.py"
}  # fmt: skip
"""Where flags are spelled out: what only the command line calls, other programs' flags, reports that show commands."""


def test_no_error_spells_out_a_flag():
    found = []
    for path in SOURCE.rglob("*.py"):
        if path.name in COMMAND_LINE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Raise | ast.Assign | ast.Return)]
        for node in (part for text in texts for part in ast.walk(text)):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and re.search(r"(^|\s)--[a-z]", node.value)
            ):
                found.append((path.name, node.value))
    assert found == [("journey.py", " --test ")]  # part of the command that the page of an evaluation shows


# ------------------------------------------------------------------------------------------------ what cannot be shown


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_what_the_terminal_cannot_show_is_replaced(tmp_path, monkeypatch, encoding):
    root = fill(tmp_path, "日本", "tea", count=6)
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", str(root)])
    text = {name: stream.seek(0) or stream.buffer.getvalue().decode(encoding) for name, stream in streams.items()}
    assert ended.value.code == 0 and text["stderr"] == "" and "??" in text["stdout"]
    assert "largest '??' 6" in text["stdout"] or "largest 'tea' 6" in text["stdout"]


def test_an_error_that_the_terminal_cannot_show_is_one_line(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(SystemExit) as ended:
        cli.main(["inspect", str(tmp_path / "日本")])
    stream.flush()
    assert ended.value.code == 2 and stream.buffer.getvalue().count(b"\n") == 1
