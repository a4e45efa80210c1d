"""Read the package's `Example:` sections as examples: griffe knows only the plural."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class PlainExamples(Extension):
    """Rename the heading before the docstring is parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
