"""The card of a scored dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from huggingface_hub import DatasetCardData
from markupsafe import Markup

from synthaug.publishing.markdown import environment

__all__ = ["render_score_card"]


def render_score_card(facts: Mapping[str, Any]) -> str:
    """Return the README.md of a folder made by `score`.

    Args:
        facts: The fields of `synthaug.analysis.scoring.scores.Scores`, and `title` and `synthaug_version`.

    Returns:
        Markdown with YAML front matter, ending with a newline.
    """
    data = DatasetCardData(tags=["synthaug", "data-quality"], task_categories=["image-classification"])
    placeholder = Markup("user/name")  # a push puts the repository here
    body = environment().get_template("score_card.md.j2").render(**facts, placeholder=placeholder)
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{body.strip()}\n"
