"""Every code block of the documentation is executed at toy size, parsed as a command, or marked as output."""

import functools
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import yaml

import synthaug
from synthaug import journey
from synthaug.cli.program import _CLICK_EXCEPTION
from synthaug.data import make_long_tailed
from synthaug.generators import pulling
from synthaug.recipe import parse_recipe
from synthaug.training import completion
from tests.hub_server import HubServer
from tests.pages import (
    NOT_RUN,
    OUTPUT,
    ROOT,
    make_small,
    menu,
    parse_command,
    read_blocks,
    read_commands,
    run_command,
    run_page,
)
from tests.test_examples import small_digits

DOCS, README = ROOT / "docs", ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md"))
SITE = [README, *menu()]
HUB = DOCS / "tutorials" / "hub.md"
TUTORIALS = [DOCS / "index.md", *sorted((DOCS / "tutorials").glob("*.md"))]
EXECUTED = [*TUTORIALS, DOCS / "training.md"]
"""Pages whose Python and console blocks run from top to bottom; that of the Hub with a Hub."""
REFERENCE = [DOCS / "contract.md", DOCS / "hub.md"]
"""Pages whose Python runs, with what it takes for granted; their commands have placeholders and are parsed."""
OTHER_PROGRAMS = ("make", "pip", "torchrun", "accelerate", "tensorboard", "hf")
NEEDS = {"training.md": ("transformers", "lightning", "imblearn"), "trainer.md": ("transformers",)}
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.fixture
def home(tmp_path, monkeypatch):
    make_small(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in EXECUTED if page != HUB], ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_their_order(page, home):
    for name in NEEDS.get(page.name, ()):
        pytest.importorskip(name)
    run_page(page)


@pytest.mark.parametrize("page", SITE, ids=lambda page: page.stem)
def test_every_command_on_a_page_is_one_that_the_program_takes(page):
    """Commands parse with their options, types and required arguments; also where a record shows what was typed."""
    for block in read_blocks(page):
        for words in read_commands(block.text) if block.language != "python" else []:
            parse_command(words)


def test_what_is_no_command_is_refused():
    for line in (
        "fit digits --bugdet 10m",
        "benchmark --real digits",
        "generate run -o out --per-class few",
        "train x",
    ):
        with pytest.raises((_CLICK_EXCEPTION, AssertionError)):
            parse_command(line.split())
    assert read_commands("torchrun --nproc_per_node 2 -m synthaug fit digits \\\n  --budget 1m # why") == [
        ["fit", "digits", "--budget", "1m"]
    ]


def test_every_block_is_executed_parsed_or_marked_as_output():
    """Python is executed, all of it; a console block is executed, or parsed; anything else is data or output."""
    for page in SITE:
        for block in read_blocks(page):
            where = f"{page.name}:{block.line}"
            if block.language == "python":
                assert page in (*EXECUTED, *REFERENCE, README) and not block.not_run, where
            elif block.language == "console":
                reason = block.not_run and re.match(rf"{NOT_RUN}needs \w+", block.text)
                assert not block.not_run or reason, f"{where}: say what it needs"
                lines = block.text.replace("\\\n", " ").splitlines()
                for line in lines[1:] if block.not_run else lines:
                    assert line.split()[0] in ("synthaug", *OTHER_PROGRAMS), f"{where}: {line}"
            elif block.language == "yaml":
                parse_recipe(yaml.safe_load(block.text), origin=where)
            else:
                assert block.language in (OUTPUT, ""), where


def test_the_python_of_the_reference_runs(home, monkeypatch):
    """In one namespace and in the order of the pages: what the contract makes, the page of the Hub pushes and loads."""
    rows = {"train": make_long_tailed(small_digits(), "label", 3), "test": small_digits("test", 4)}
    monkeypatch.setattr(datasets, "load_dataset", lambda kind, data_dir, split: rows[split])
    pushed = []
    monkeypatch.setattr(journey, "push", lambda what, repo, report: pushed.append((repo, len(what), report.verdict)))
    monkeypatch.setattr(pulling, "pull", lambda repo: Path("runs/xrays"))
    monkeypatch.setattr(completion, "fit_judge", functools.partial(completion.fit_judge, steps=40))
    scope = {}
    for page in REFERENCE:
        run_page(page, scope, languages=("python",))
    assert pushed == [("me/xrays-balanced", 36, scope["report"].verdict)] * 2
    assert scope["images"].shape == (3, 1, 8, 8) and scope["generator"].family == "cvae"
    assert scope["scores"].bits["all"]["rows"] == len(scope["real"]) and "CAS" in scope["evaluation"].table


def test_the_commands_of_the_readme_run(home, monkeypatch):
    """All of its blocks, in their order and as they stand: inspect, fit, generate, benchmark and push."""
    rows = {"train": make_long_tailed(small_digits(), "label", 3), "test": small_digits("test", 4)}
    datasets.DatasetDict(rows).save_to_disk("images")
    pushed = []
    monkeypatch.setattr(journey, "push", lambda folder, repo, **options: pushed.append((str(folder), repo)) or repo)
    text = "\n".join(block.text for block in read_blocks(README) if block.language == "console")
    commands = [line for line in text.splitlines() if line.startswith("synthaug ")]
    assert [line.split()[1] for line in commands] == ["inspect", "fit", "generate", "benchmark", "push"]
    for line in commands:
        run_command(line)
    assert pushed == [("out/balanced", "me/balanced")]
    assert (home / "out" / "report" / "report.html").is_file()


@pytest.mark.slow
def test_the_page_of_the_hub_runs_against_a_hub(tmp_path):
    """In a process of its own: the clients read their environment when they are imported."""
    token = "hf_anExampleToken"
    with HubServer({token: "me"}) as server:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "SYNTHAUG"))}
        done = subprocess.run(
            [sys.executable, ROOT / "tests" / "pages.py", HUB],
            cwd=tmp_path, capture_output=True, text=True, timeout=240,
            env={**kept, **server.environment(tmp_path, token), "SYNTHAUG_CACHE": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert server.unknown == []
        for kind, name in (("model", "me/digits-cvae"), ("dataset", "me/digits-balanced")):
            assert server.repo(kind, name).private
        card = server.repo("dataset", "me/digits-balanced").files["README.md"].data.decode()
        assert "**No clear change**" in card


def test_the_site_has_every_page_once():
    def leaves(node):
        children = node.values() if isinstance(node, dict) else node
        return [node] if isinstance(node, str) else [leaf for child in children for leaf in leaves(child)]

    listed = leaves(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]


def test_the_api_pages_have_every_public_name():
    entries = [
        name for page in (DOCS / "api").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    ]
    last = {entry.rpartition(".")[2] for entry in entries}
    assert last == {*synthaug.__all__} - {"__version__"} and len(entries) == len(last)


def test_the_notebook_is_the_quickstart_and_has_no_output():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    page = DOCS / "tutorials" / "quickstart.md"
    assert code == [block.text.strip("\n") for block in read_blocks(page) if block.language == "python"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    without_code = re.sub(r"^```python\n.*?^```\n", "", page.read_text(), flags=re.M | re.S).replace(
        "](../", "](../docs/"
    )
    assert prose.split() == without_code.split()
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)


def test_the_cells_of_the_notebook_run(home):
    scope = {}
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), scope)
    assert set(scope["plan"].real) == {str(digit) for digit in range(10)}
    assert scope["augmented"].num_rows == sum(scope["plan"].total.values())
    assert scope["report"].verdict in ("helps", "no clear change", "harms")
    assert (home / "runs" / "quickstart" / "report" / "report.html").is_file()


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mkdocstrings")
    pytest.importorskip("material")
    monkeypatch.setenv("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"))
    config.plugins.on_startup(command="build", dirty=False)
    with caplog.at_level(logging.WARNING):
        build(config)  # strict: raises after a warning
    assert not [record for record in caplog.records if record.name.startswith("mkdocs")]
    written = list((tmp_path / "site").rglob("*.html"))
    assert len(written) >= len(PAGES)
    for page in written:
        text = page.read_text()
        assert not re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="?(?:https?:)?//', text), page.name
    assert 'id="synthaug.loaders.mixtures.MixedDataset"' in (tmp_path / "site" / "api" / "loops.html").read_text()
