"""What the pages say exists: commands, flags, names, links, targets, recipes."""

import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

import synthaug
from synthaug.generators import ConditionalGenerator, find_family
from synthaug.recipe import Recipe, parse_recipe
from tests.pages import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
WALKED = "energy"
"""The family that CONTRIBUTING.md adds; it is in no file of the package."""
OTHERS = ("mypy", "git", "pip", "accelerate", "torchrun")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def read(path):
    return path.read_text(encoding="utf-8")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def shell_lines(path):
    """Lines that start with `synthaug` in console blocks of pages, and in comments of recipes and examples."""
    text = read(path)
    if path.suffix == ".md":
        text = "\n".join(block for name in ("console", "bash", "sh") for block in blocks(text, name))
    return re.findall(r"^[#$ ]*(synthaug [a-z].*)$", text, re.MULTILINE)


def test_commands_in_code_blocks_and_comments_exist_with_their_flags():
    found = 0
    for path in [*PAGES, *(ROOT / "recipes").glob("*.yaml"), *(ROOT / "examples").glob("*.py")]:
        for line in shell_lines(path):
            _, command, *words = shlex.split(line, comments=True)
            assert command in COMMANDS, f"{path.name}: {line}"
            options = {name for parameter in COMMANDS[command].params for name in parameter.opts}
            for flag in (word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)):
                assert flag in options, f"{path.name}: {line}: no {flag}"
                found += 1
    assert found > 10


def test_the_contract_lists_every_command_and_flag():
    text = read(ROOT / "docs" / "contract.md")
    for name, command in COMMANDS.items():
        section = re.search(rf"^### `synthaug {name}\b.*?(?=^##)", text, re.MULTILINE | re.DOTALL)
        assert section, name
        for parameter in command.params:
            for flag in parameter.opts if parameter.param_type_name == "option" else []:
                if flag.startswith("--") and flag not in ("--help", "--debug"):
                    assert flag in section[0], f"synthaug {name}: {flag} is not in docs/contract.md"


@pages
def test_inline_commands_and_flags_exist(page):
    every = {name for command in COMMANDS.values() for parameter in command.params for name in parameter.opts}
    text = re.sub(r"^```.*?^```", "", read(page), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`([^`\n]+)`", text):
        if match := re.match(r"synthaug ([a-z]+)", code):
            assert match[1] in COMMANDS, code
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+(?![\w-])", code) if not code.startswith(OTHERS) else []:
            assert flag in {*every, "--debug", "--help", "--strict"}, f"{flag} in {code!r}"


@pages
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", read(page)):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        if path.name == "quickstart.png":
            continue  # made by a quickstart
        assert path.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", read(path), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, target


@pages
def test_names_in_python_exist(page):
    for code in re.findall(r"synthaug\.([A-Za-z_][\w.]*)", read(page)):
        first, *rest = code.rstrip(".").split(".")
        if first in ("json", "yaml", "py") or rest[-1:] == ["py"] or WALKED in rest:
            continue
        pkgutil.resolve_name(".".join(["synthaug", first, *rest]))  # raises where there is no such name


@pages
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE))
    named = re.findall(r"`(?:\w+=\S+ )*make ([a-z]+)", read(page))
    for block in blocks(read(page), "console"):
        named += re.findall(r"^make ([a-z]+)", block, re.MULTILINE)
    assert set(named) <= targets


def test_the_readme_opens_with_the_two_commands_and_shows_its_picture_first():
    text = read(ROOT / "README.md")
    first = blocks(text, "console")[0]
    assert first == "make quickstart\nmake test\n"
    assert text.index("make test") < text.index("docs/quickstart.png") < text.index("```python")
    for name in COMMANDS:
        assert re.search(rf"`{name}`", text), f"{name} is not in the README's table"


def test_public_names_are_in_the_contract():
    text = read(ROOT / "docs" / "contract.md")
    assert [name for name in synthaug.__all__ if f"`{name}`" not in text] == []


def test_the_recipe_of_the_contract_is_the_default_one():
    (block,) = [b for b in blocks(read(ROOT / "docs" / "contract.md"), "yaml") if b.startswith("dataset:")]
    values = yaml.safe_load(block)
    recipe = parse_recipe(values)
    smallest = parse_recipe({"dataset": {"path": "digits"}, "generator": {"family": values["generator"]["family"]}})
    for section in ("dataset", "generator", "fit", "generate", "push"):
        assert getattr(recipe, section) == getattr(smallest, section), section
    for name, field in Recipe.model_fields.items():
        inner = getattr(field.annotation, "model_fields", None) or {}
        assert set(inner) <= set(values[name] or {}) if isinstance(values[name], dict) else name == "output"


def test_pages_name_no_address_but_public_ones():
    allowed = ("https://keepachangelog.com", "https://semver.org", "https://github.com", "https://huggingface.co")
    for page in PAGES:
        for address in re.findall(r"https?://[^\s)>\"]+", read(page)):
            assert address.startswith(allowed), f"{page.name}: {address}"


# --------------------------------------------------------------------------- a generator family in one file


@pytest.fixture
def walked_family(monkeypatch):
    """The family of the walk-through in CONTRIBUTING.md, registered as it says."""
    from synthaug.generators import GENERATORS
    from tests import checks

    code = blocks(read(ROOT / "CONTRIBUTING.md"), "python")[0]
    assert f"`synthaug/generators/{WALKED}.py`" in read(ROOT / "CONTRIBUTING.md")
    module = type(sys)(f"synthaug.generators.registry.{WALKED}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, ConditionalGenerator)]
    (family,) = [c for c in classes if c is not ConditionalGenerator]
    monkeypatch.setitem(GENERATORS, family.family, family)
    tiny = re.search(rf'`"{family.family}": (\{{.*?\}})` to `TINY`', read(ROOT / "CONTRIBUTING.md"))[1]
    monkeypatch.setitem(checks.TINY, family.family, yaml.safe_load(tiny))
    return family


def test_the_family_of_the_walk_through_passes_every_check(walked_family, tmp_path):
    from tests import checks
    from tests.generators import test_generators

    name = walked_family.family
    for size, channels in ((8, 1), (13, 2), (32, 3)):
        checks.check_sample_shape_and_range(name, size, channels)
    checks.check_sampling_is_determined_by_noise(name)
    checks.check_parameters_get_their_own_gradients(name)
    checks.check_label_changes_the_image(name)
    test_generators.test_saved_and_loaded_samples_are_the_same(name, tmp_path)
    test_generators.test_bad_arguments_name_the_remedy(name)
    assert find_family(name) is walked_family


def test_a_family_of_the_users_own_needs_no_registry(walked_family, tmp_path, monkeypatch):
    from synthaug.generators import GENERATORS
    from tests.training.test_loop import toy_dataset

    monkeypatch.delitem(GENERATORS, walked_family.family)
    synthaug.fit(toy_dataset(), walked_family, output=tmp_path / "run", images=256, width=16)
    plan = synthaug.plan_balance({"c0": 3, "c1": 1, "c2": 2})
    generator = synthaug.load_generator(tmp_path / "run", family=walked_family)
    assert synthaug.generate(generator, plan, filter="none")["label"][:] == [1, 1, 2]
    with pytest.raises(synthaug.InputError, match="unknown generator"):
        synthaug.load_generator(tmp_path / "run")
