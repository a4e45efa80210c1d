"""The code blocks of the documentation's pages, and a world in which they run at toy size."""

from __future__ import annotations

import functools
import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import typer
import yaml

import synthaug
from synthaug.analysis.evaluation import evaluating
from synthaug.benchmarks import benchmarking
from synthaug.classifiers import fit_judge
from synthaug.cli import program
from synthaug.cli.program import _run
from synthaug.generation import jobs
from synthaug.loaders import resampling, supplies
from synthaug.training import completion, fitting

ROOT = Path(__file__).parent.parent
COMMANDS = typer.main.get_command(program.app).commands
NOT_RUN = "# not run by the tests: "
"""The first line of a block that no test executes starts so, and goes on with the reason; a reader sees it."""
OUTPUT = "text"
"""Language of blocks that show what a command prints."""


class Block(NamedTuple):
    """A fenced block: the page, the line it starts on, its language and its text."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def not_run(self) -> bool:
        return self.text.startswith(NOT_RUN)


def read_blocks(page):
    """Return the fenced blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[2], re.sub(rf"^{match[1]}", "", match[3], flags=re.M))
        for match in found
    ]


def menu(node=None):
    """Return the pages of the site in the order of its menu."""
    if node is None:
        node = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    if isinstance(node, str):
        return [ROOT / "docs" / node]
    return [page for child in (node.values() if isinstance(node, dict) else node) for page in menu(child)]


def read_commands(text):
    """Return the words behind `synthaug` of every command in a block, launchers and prompts left out."""
    lines = text.replace("\\\n", " ").splitlines()
    found = (re.match(r"(?:[$] |torchrun .* -m |accelerate launch .* -m )?synthaug ([a-z].*)$", line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


def parse_command(words):
    """Parse a command as the program does: its name, every option, its types, and what must be given. Runs nothing.

    Names of shell variables stand for numbers, families and paths alike, so they are taken as 1.
    """
    name, *given = [re.sub(r"^[$][A-Z_]+$", "1", word) for word in words]
    assert name in COMMANDS, f"synthaug {name}: no such command"
    COMMANDS[name].make_context(f"synthaug {name}", list(given)).close()


def run_page(page, scope=None, languages=("python", "console")):
    """Execute the Python and console blocks of a page in their order, in one namespace."""
    scope = {"__name__": "__main__"} if scope is None else scope
    for block in read_blocks(page):
        if block.not_run or block.language not in languages:
            continue
        if block.language == "python":
            code = "\n" * block.line + block.text  # so that a traceback names the line of the page
            exec(compile(code, str(page), "exec"), scope)
        elif block.language == "console":
            for line in block.text.replace("\\\n", " ").splitlines():
                run_command(line)
    return scope


def run_command(line):
    """Run a `synthaug` command in this process, at toy size."""
    words = shlex.split(line, comments=True)
    if not words:
        return
    assert words[0] == "synthaug", f"{line}: only synthaug is run; mark the block with {NOT_RUN!r}"
    if words[1] == "benchmark":
        arms = "oversampled+classical,oversampled+classical+synthetic"
        words += ["--arms", arms, "--steps", "1", "--num-processes", "1"]
    code = _run([word for word in words[1:] if word != "--require-gain"], debug=True)
    assert code == 0, f"{line}: exit {code}"


def make_small(monkeypatch, images=64):
    """Patch what takes long, at its home: fits see few images, nothing is filtered, benchmarks take one step."""

    def replace(module, name, call):
        monkeypatch.setattr(module, name, functools.wraps(getattr(module, name))(call))

    fit, resolve, benchmark = fitting.fit, jobs.resolve_filter, benchmarking.benchmark

    def fit_small(*given, recipe=None, **options):
        if recipe is not None:
            short = recipe.fit.model_copy(update={"images": images, "budget": None})
            return fit(*given, recipe=recipe.model_copy(update={"fit": short}), **options)
        return fit(*given, **{**options, "budget": None, "images": images})

    for module in (fitting, resampling):
        replace(module, "fit", fit_small)
    for module in (jobs, supplies, resampling):
        replace(module, "resolve_filter", lambda generator, check: resolve(generator, "none"))
    monkeypatch.setattr(evaluating, "STEPS", 3)
    monkeypatch.setattr(evaluating, "count_referee_steps", lambda rows, channels: 3)
    evaluate = evaluating.evaluate
    replace(
        evaluating, "evaluate", lambda *given, **options: evaluate(*given, **{**options, "per_class": 6, "seeds": 1})
    )
    replace(completion, "fit_judge", functools.partial(fit_judge, steps=5))
    arms = ["oversampled+classical", "oversampled+classical+synthetic"]
    small = {"steps": 1, "arms": arms, "num_processes": 1}
    replace(benchmarking, "benchmark", lambda *given, **options: benchmark(*given, **{**options, **small}))
    assert synthaug.fit is fitting.fit


if __name__ == "__main__":  # a page in a process of its own: the clients of a Hub read their environment at import
    import pytest

    make_small(pytest.MonkeyPatch())
    run_page(Path(sys.argv[1]))
