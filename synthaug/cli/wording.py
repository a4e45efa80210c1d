"""Messages in the words of the interface: errors name arguments as Python does, the command line shows its flags."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["use_flags"]

_OTHER = {"private=False": "--public"}
"""Arguments whose flag has another name."""

_ARGUMENT = re.compile(
    r"(?<![\w'\"/.=-])(?P<name>[a-z]+(?:_[a-z]+)*)(?:=(?P<value>'[^']*'|\w+(?:\.\w+)*)?|(?![\w=(/'\"]))"
)
"""``name=value``, ``name=`` or a name alone, outside of quotes and paths."""


def use_flags(message: str, flags: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """Return a message with flags where it names arguments of Python.

    Args:
        message: Any error: ``add fresh=True``, ``name one with label_column=``, ``limit_per_class is 0``.
        flags: Argument -> flag of the command that runs.
        keys: Argument -> key of the recipe, for arguments that have no flag there; "" if the command takes no recipe.

    Example:
        >>> use_flags("use filter='none' or fresh=True", {"filter": "--filter", "fresh": "--fresh"}, {})
        'use --filter none or --fresh'
    """

    def translate(match: re.Match[str]) -> str:
        text, name, value = match[0], match["name"], (match["value"] or "").strip("'")
        if text in _OTHER:
            return _OTHER[text]
        given = "=" in text
        if not given and "_" not in name:  # a plain word
            return text
        if name in flags:
            return f"{flags[name]} {value}".strip() if given and value != "True" else flags[name]
        if name in keys:
            return f"--set {keys[name]}={value}" if given else keys[name]
        return text

    return _ARGUMENT.sub(translate, message)
