"""Every code block of the documentation is executed at toy size, marked as output, or says why it is not run."""

import json
import logging
import re

import pytest
import yaml
from pages import NOT_RUN, OUTPUT, ROOT, make_small, read_blocks, run_page

import synthaug

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TUTORIALS = [DOCS / "index.md", *sorted((DOCS / "tutorials").glob("*.md"))]
EXECUTED = [*TUTORIALS, DOCS / "training.md"]
NEEDS = {"training.md": ("transformers", "lightning", "imblearn"), "trainer.md": ("transformers",)}
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.fixture
def home(tmp_path, monkeypatch):
    make_small(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_their_order(page, home):
    for name in NEEDS.get(page.name, ()):
        pytest.importorskip(name)
    run_page(page)


def test_every_block_is_executed_output_or_says_why_not():
    executed, left_out = 0, 0
    for page in PAGES:
        for block in read_blocks(page):
            where = f"{page.name}:{block.line}"
            assert block.language in ("python", "console", "yaml", OUTPUT, ""), where
            if block.not_run:
                assert re.match(rf"{NOT_RUN}needs \w+", block.text), f"{where}: say what it needs"
                left_out += page in EXECUTED
            elif page in EXECUTED:
                assert block.language in ("python", "console", OUTPUT), where
                executed += block.language != OUTPUT
    assert executed > 3 * left_out


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
    homes = {f"synthaug.{home}.{name}": name for name, home in synthaug._HOMES.items()}
    last = {entry.rpartition(".")[2] for entry in entries}
    assert last == set(homes.values()) and len(entries) == len(last)


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
    assert 'id="synthaug.loops.mixtures.MixedDataset"' in (tmp_path / "site" / "api" / "loops.html").read_text()
