"""Glow, a conditional normalising flow, and its parts."""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.generators.glow.model import Glow
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
