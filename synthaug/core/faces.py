"""Names of a package that are loaded when they are first used."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["load_lazily"]


def load_lazily(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package, to be set in its `__init__`.

    The imports under ``if TYPE_CHECKING:`` in the `__init__` are the table of the names. Type checkers read it there.
    When the program runs, a name is imported from its module at its first use.

    Args:
        package: `__name__` of the package.

    Returns:
        The three values, in that order.

    Example:
        >>> load_lazily("synthaug")[0]("InputError").__name__
        'InputError'
    """
    homes = _read_table(package)
    names = sorted(homes)

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return load, lambda: names, names


def _read_table(package: str) -> dict[str, str]:
    """Return the names that a package imports for type checkers, each with its module."""
    loader: Any = sys.modules[package].__loader__
    body = ast.parse(loader.get_source(package)).body
    imports = [line for block in body if isinstance(block, ast.If) for line in block.body]
    return {
        alias.name: line.module
        for line in imports
        if isinstance(line, ast.ImportFrom) and line.module
        for alias in line.names
    }
