"""The import levels of docs/contract.md, held by reading the code."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "synthaug"

LEVELS = {
    0: {
        "errors", "recipe", "balance", "metrics", "report", "cards", "ema", "noise", "png", "filtering", "signals",
        "pictures", "batches", "budget", "launching", "codec", "sources", "classical",
        "generators.base", "generators.layers", "generators.bijections", "generators.augmentation",
    },
    1: {"data", "classifier", "generators.cvae", "generators.cgan", "generators.glow", "generators"},
    2: {"checkpoint", "shards", "mixing"},
    3: {"training", "generation", "benchmarking", "inspection"},
    4: {"fitting", "hub"},
    5: {"journey"},
    6: {""},
    7: {"cli"},
    8: {"__main__"},
}  # fmt: skip
LEVEL_OF = {module: level for level, modules in LEVELS.items() for module in modules}
# small leaves that siblings of level 0 may use; they import nothing themselves
LEAVES = {"errors", "noise", "generators.base", "generators.layers", "pictures", "codec", "png", "signals"}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "synthaug":
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}".removeprefix("synthaug").lstrip(".")
                yield name if name in LEVEL_OF else node.module.removeprefix("synthaug").lstrip(".")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "synthaug":
                    yield alias.name.removeprefix("synthaug").lstrip(".")


def test_every_module_has_a_level():
    assert {name for name, _ in modules()} == set(LEVEL_OF)


@pytest.mark.parametrize(("name", "path"), [pytest.param(n, p, id=n or "synthaug") for n, p in modules()])
def test_imports_point_down(name, path):
    for other in imports(path):
        if other in ("", name):  # `synthaug` itself: only its version
            continue
        below = LEVEL_OF[other] < LEVEL_OF[name]
        leaf = other in LEAVES and LEVEL_OF[name] == 0
        own_family = name == "generators" and other.startswith("generators.")
        assert below or leaf or own_family, f"{name} (level {LEVEL_OF[name]}) imports {other}"


def test_there_is_no_cycle():
    graph = {name: {o for o in imports(path) if o not in ("", name)} for name, path in modules()}
    done: set[str] = set()

    def visit(name, trail):
        assert name not in trail, f"cycle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in graph[name]:
                visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])
