"""The command line: parse, call, print the path of what was made."""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.cli.program import main
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
