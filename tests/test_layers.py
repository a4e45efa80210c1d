"""The import levels of docs/contract.md, held by reading the code."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "synthaug"

LEVELS = (
    "errors noise signals launching attributes batches budget ema metrics charts neighbours pictures cards.facts "
    "cards.markdown generators.layers generators.sharpness generators.bijections generators.augmentation "
    "generators.likelihoods scoring.suspicion exploration.appearance quality exploration scoring benchmarks loops "
    "benchmarks.losses residual sharedslots tensorfiles",
    "balance caches classical classifier codec quality.fidelity confinement filtering leaks png recipe report "
    "retries shards streaming subsets generators.base generators.checkerboard generators.couplings "
    "generators.neighbourhood generators.whitening generators.adversary engine generators.ladder "
    "cards.scorecard loops.clock loops.schedules loops.transforms loops.likeness benchmarks.arms "
    "benchmarks.verdicts strong",
    "accumulation generators.clearance generators.multiscale generators.typicality loops.canvas "
    "benchmarks.schedules quality.shelf drawnrows tracking tablefiles cards",
    "quality.assessment quality.cas columns descent drawing imagestats judge quality.referee shardprocess "
    "quality.remarks generators.cvae generators.cgan generators.glow scoring.densities exploration.latents",
    "folder generators benchmarks.cells benchmarks.rivals groups quality.draws localfiles rows scan "
    "exploration.traversals",
    "benchmarks.cellpool benchmarks.grouping checkpoint costs data mixing sampling sources benchmarks.tuning "
    "scoring.rowscores loops.assignment loops.labelled",
    "benchmarks.contest export fitplan inspection quality.lineup selection training exploration.panels trainingrows "
    "scoring.suspects benchmarks.ledger benchmarks.results loops.positions",
    "quality.appraisal completion gallery jobs uploads exploration.survey benchmarks.advice benchmarks.campaign "
    "benchmarks.comparisons benchmarks.material",
    "quality.entries benchmarks.findings benchmarks.rounds fitting generation hub loops.supplies",
    "benchmarks.benchmarking candidates quality.evaluation exploration.atlas scoring.scores loops.mixtures "
    "loops.streams loops.replacement loops.resampling",
    "verification recommendation",
    "journey",
    "cli",
    "__main__",
)
LEVEL_OF = {module: level for level, modules in enumerate(LEVELS) for module in modules.split()}
LEVEL_OF[""] = LEVEL_OF["journey"]  # synthaug/__init__.py, lazily


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
        assert LEVEL_OF[other] < LEVEL_OF[name], f"{name} (level {LEVEL_OF[name]}) imports {other}"


def test_the_three_works_do_not_know_each_other():
    graph = {name: set(imports(path)) - {"", name} for name, path in modules()}

    def reach(name):
        below = set(graph[name])
        for other in graph[name]:
            below |= reach(other)
        return below

    works = {"training", "generation", "benchmarks.benchmarking"}
    for work in works:
        assert not reach(work) & works, work


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


def test_the_table_in_the_contract_is_this_one():
    text = (PACKAGE.parent / "docs" / "contract.md").read_text()
    for level, modules_of_level in enumerate(LEVELS[:-1]):
        rows = [line.split("|")[2] for line in text.splitlines() if line.startswith(f"| {level} | ")]
        named = [{cell.strip().strip("`") for cell in row.split(",")} for row in rows]
        assert any(set(modules_of_level.split()) <= names for names in named), f"level {level}"
