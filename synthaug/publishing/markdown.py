"""The jinja2 environment of the cards: whatever a template prints is escaped for Markdown and HTML."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = [
    "BENCHMARK_END",
    "BENCHMARK_START",
    "code",
    "environment",
    "escape_markdown",
    "format_number",
]

BENCHMARK_START, BENCHMARK_END = "<!-- synthaug: benchmark -->", "<!-- synthaug: end of benchmark -->"
"""Around the passage of a card that a push with a report replaces."""


def escape_markdown(text: object, limit: int = 200) -> str:
    """Return `text` on one line so that Markdown and HTML show it literally, in a table cell too.

    Args:
        text: Anything; its str() is taken, control and direction characters fall out.
        limit: Characters that stay: a name may be long, but not without end.
    """
    line = " ".join(str(text).split())
    line = "".join(c for c in line if not unicodedata.category(c).startswith("C"))
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    # What cannot act stays readable: underscores inside a word, and parentheses where brackets make no link.
    active = r"[\\`*{}\[\]<>#|~&@$]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\."
    return re.sub(active, lambda match: f"&#{ord(match[0])};", line, flags=re.IGNORECASE)


@lru_cache
def environment() -> Environment:
    """Return the jinja2 environment in which whatever a template prints is escaped, unless it is Markup."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escape_markdown(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "code": code,
        "recipe": _recipe_block,
        "table": _foreign_table,
        "number": format_number,
    }
    templates.globals |= {
        "benchmark_start": Markup(BENCHMARK_START),
        "benchmark_end": Markup(BENCHMARK_END),
    }
    return templates


def code(text: object) -> Markup:
    """Return an inline code element that cannot be left from inside."""
    return Markup("<code>") + Markup(escape_markdown(text)) + Markup("</code>")


def format_number(value: object) -> str:
    """Return an integer with thousands separators, a float with four significant digits, else its str()."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _recipe_block(recipe: Mapping[str, Any]) -> Markup:
    """Return plain mappings, lists and scalars as a fenced YAML block that cannot be left from inside."""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, width=100).rstrip()
    if any(unicodedata.category(character) == "Cf" for character in text):
        # Direction marks could show a reader another text than the one a machine reads.
        text = yaml.safe_dump(recipe, sort_keys=False, width=100).rstrip()
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", text))])
    return Markup(f"{fence}yaml\n{text}\n{fence}")


def _foreign_table(table: str) -> Markup:
    """Return a Markdown table made by a report, its raw HTML defused."""
    return Markup(table.strip().replace("<", "&lt;"))
