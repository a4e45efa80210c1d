"""Model and dataset cards: what a run or a dataset says about itself when somebody else finds it.

Front matter is built by huggingface_hub's card data classes. The bodies are jinja2 templates in which every
value is escaped, because class names and dataset ids come from somebody else's data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import DatasetCardData, ModelCardData
from huggingface_hub.repocard_data import CardData
from markupsafe import Markup

from synthaug.publishing.facts import AcceptanceFacts, DatasetFacts, ModelFacts, VerdictFacts
from synthaug.publishing.markdown import (
    BENCHMARK_END,
    BENCHMARK_START,
    code,
    environment,
    escape_markdown,
    format_number,
)
from synthaug.recipe import IN_MEMORY

__all__ = [
    "AcceptanceFacts",
    "DatasetFacts",
    "ModelFacts",
    "VerdictFacts",
    "add_repo_id",
    "add_verdict",
    "drop_local_paths",
    "escape_markdown",
    "merge_front_matter",
    "name_public",
    "read_front_matter",
    "render_dataset_card",
    "render_model_card",
    "size_category",
]

PLACEHOLDER_ID = "user/name"
"""Stands in the code examples of a card until a push knows the repository."""

PATH_KEYS = frozenset(
    (
        "balance",
        "data_dir",
        "dataset",
        "file",
        "judge",
        "mix_with",
        "output",
        "path",
        "real",
        "run",
        "source",
        "synthetic",
        "test",
    )
)
"""Keys of a recipe whose text may be a path of the machine that ran it."""

_NAMES = frozenset(("digits", IN_MEMORY))
"""What `dataset.path` says of rows that lie in no file."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")


def render_model_card(facts: ModelFacts | Mapping[str, Any]) -> str:
    """Return the README.md of a run folder.

    Args:
        facts: What the run knows about itself, see `ModelFacts`.

    Returns:
        Markdown with YAML front matter, ending with a newline.

    Raises:
        ValueError: If `facts` has a key that `ModelFacts` does not name.

    Example:
        >>> card = render_model_card({"family": "cgan", "class_counts": {"cat": 90, "dog": 10}})
        >>> "library_name: synthaug" in card
        True
    """
    given = _fill_in(_complete(facts, ModelFacts))
    source = _hub_id(given["source"])
    data = ModelCardData(
        library_name="synthaug",
        license=given["license"],
        datasets=[source.split(":")[0]] if source else None,
        tags=[
            "synthaug",
            "synthetic",
            "class-conditional-image-generation",
            *filter(None, [given["family"]]),
        ],
    )
    return _render("model_card.md.j2", data, {**given, "training": _training_rows(given)})


def render_dataset_card(facts: DatasetFacts | Mapping[str, Any]) -> str:
    """Return the README.md of a dataset folder.

    The front matter names no data files: `load_dataset` finds ``data/<split>-*`` without, and with them it
    would tell two local folders of the same name apart by nothing and give one from the other's cache.

    Args:
        facts: What is known about the dataset, see `DatasetFacts`.

    Returns:
        Markdown with YAML front matter, ending with a newline.

    Raises:
        ValueError: If `facts` has a key that `DatasetFacts` does not name, or a split has no valid name.

    Example:
        >>> card = render_dataset_card({"splits": {"train": 100}, "real": {"a": 60}, "synthetic": {"a": 40}})
        >>> "- synthaug" in card
        True
    """
    given = _complete(facts, DatasetFacts)
    given["recipe"] = _read_recipe(given["recipe"])
    splits, source = given["splits"] or {}, _hub_id(given["source"])
    if bad := [split for split in splits if not re.fullmatch(r"\w+(\.\w+)*", split)]:
        raise ValueError(f"splits has the names {bad}; allowed are words joined by dots, as in datasets")
    data = DatasetCardData(
        license=given["license"],
        annotations_creators=["machine-generated"],
        size_categories=[size_category(sum(splits.values()))] if splits else None,
        source_datasets=[f"extended|{source.split(':')[0]}" if source else "extended"],
        task_categories=["image-classification"],
        tags=["synthetic", "synthaug"],
    )
    model = given["model"] if HUB_ID.fullmatch(given["model"] or "") else None
    return _render("dataset_card.md.j2", data, {**given, "split": given["split"] or "train", "model": model})


def size_category(rows: int) -> str:
    """Return the Hub's name for a number of rows, e.g. "1K<n<10K"."""
    names = ["n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B"]
    return next((name for power, name in enumerate(names, start=3) if rows < 10**power), names[-1])


def drop_local_paths(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a recipe without the paths of this machine; Hub ids and embedded names stay.

    Args:
        recipe: Nested mappings as in recipe.yaml.
    """
    kept: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            kept[key] = drop_local_paths(value)
        elif not (key in PATH_KEYS and isinstance(value, str | Path) and _may_be_local(key, str(value))):
            kept[key] = value
    return kept


def name_public(source: str) -> str | None:
    """Return the name of a dataset where everybody may know it: `digits`, a Hub id; None for a path of this machine.

    Example:
        >>> name_public("digits"), name_public("/data/xrays")
        ('digits', None)
    """
    return source if source in _NAMES or _hub_id(source) else None


def _may_be_local(key: str, text: str) -> bool:
    """Tell whether the text of a recipe may be a path of the machine that ran it."""
    if key == "balance":
        return text.endswith(".json")
    return key == "output" or name_public(text) is None


def add_verdict(card: str, verdict: VerdictFacts) -> str:
    """Return a card whose benchmark section says `verdict`, in place of what stood there.

    Args:
        card: Text of a README.md; a card without the section gets it at the end.
        verdict: What the benchmark found.
    """
    section = environment().get_template("verdict.md.j2").render(verdict=_complete(verdict, VerdictFacts)).strip()
    before, start, rest = card.partition(BENCHMARK_START)
    if not start:
        return f"{card.rstrip()}\n\n## Benchmark\n\n{BENCHMARK_START}\n{section}\n{BENCHMARK_END}\n"
    return f"{before}{start}\n{section}\n{BENCHMARK_END}{rest.partition(BENCHMARK_END)[2]}"


def add_repo_id(card: str, repo_id: str) -> str:
    """Return a card whose code examples name the repository it is pushed to."""
    return card.replace(f'"{PLACEHOLDER_ID}"', f'"{repo_id}"')


def read_front_matter(card: str) -> dict[str, Any]:
    """Return the YAML front matter of a README.md; {} if there is none, or it is not a readable mapping."""
    match = re.match(r"\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", card, re.DOTALL)
    try:
        data = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def merge_front_matter(card: str, other: str) -> str:
    """Return `card` with what only `other` has in its front matter: a licence, say, that a person added.

    Args:
        card: Text of the README.md that is to be written.
        other: Text of the one that it replaces; what describes its files (configs) is not taken.
    """
    ours, theirs = read_front_matter(card), read_front_matter(other)
    more = {k: v for k, v in theirs.items() if k not in ours and k not in ("configs", "dataset_info", "model-index")}
    tags, others = ours.get("tags"), theirs.get("tags")
    if isinstance(tags, list) and isinstance(others, list):
        more |= {"tags": [*tags, *(tag for tag in others if tag not in tags)]}
    merged = {**ours, **more}
    if merged == ours:
        return card
    body = card.split("\n---", 1)[1].partition("\n")[2]
    return f"---\n{CardData(**{str(k): v for k, v in merged.items()}).to_yaml(line_break=chr(10))}\n---\n{body}"


def _complete(facts: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return `facts` with None for every key of the TypedDict `kind` that is absent."""
    unknown = sorted(set(facts) - set(kind.__annotations__))
    if unknown:
        raise ValueError(f"facts has unknown keys {unknown}; allowed are {sorted(kind.__annotations__)}")
    return {**dict.fromkeys(kind.__annotations__), **facts}


def _render(template: str, data: CardData, facts: Mapping[str, Any]) -> str:
    """Join front matter and body."""
    values = {**facts, "source": _source(facts["source"]), "sample_grid": _picture(facts["sample_grid"])}
    values["recipe"] = _plain(drop_local_paths(facts["recipe"])) if facts["recipe"] else None
    values["verdict"] = _complete(facts["verdict"], VerdictFacts) if facts["verdict"] else None
    body = environment().get_template(template).render(values, placeholder=Markup(PLACEHOLDER_ID))
    # CardData.to_yaml keeps None out; sorting would scramble the order in which a reader looks for things.
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n\n{_tidy(body)}"


def _read_recipe(recipe: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return a recipe given as a mapping or as YAML text; {} for none."""
    return dict(yaml.safe_load(recipe) or {}) if isinstance(recipe, str) else dict(recipe or {})


def _fill_in(given: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of a model card with what follows from its recipe, constructor and summary."""
    recipe = _read_recipe(given["recipe"])
    data, fit = recipe.get("dataset") or {}, recipe.get("fit") or {}
    images = f"{fit['images']} images" if fit.get("images") else None
    constructor, summary = given["constructor"] or {}, given["summary"] or {}
    defaults = {
        "source": data.get("path"),
        "split": data.get("split"),
        "budget": fit.get("budget") or images,
        "batch_size": fit.get("batch_size"),
        "seed": fit.get("seed"),
        **{key: constructor.get(key) for key in ("image_size", "channels")},
        **{key: summary.get(key) for key in ("images_seen", "steps", "seconds", "losses")},
    }
    return given | {key: value for key, value in defaults.items() if given[key] is None} | {"recipe": recipe}


def _training_rows(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (what, value) for the table of the training, without what is not known."""
    known: list[tuple[str, Any, Callable[[Any], str]]] = [
        ("images seen", given["images_seen"], format_number),
        ("steps", given["steps"], format_number),
        ("budget", given["budget"], str),
        ("images in a batch", given["batch_size"], format_number),
        ("seconds", given["seconds"], lambda seconds: f"{seconds:.0f}"),
        ("device", given["device"], str),
        ("seed", given["seed"], str),
        *((f"{name} at the end", value, format_number) for name, value in (given["losses"] or {}).items()),
        *((f"{name} (validation rows)", value, format_number) for name, value in (given["scores"] or {}).items()),
    ]
    return [(name, show(value)) for name, value, show in known if value is not None]


def _tidy(body: str) -> str:
    """Leave at most one empty line anywhere, and one line break at the end."""
    return re.sub(r"\n{3,}", "\n\n", body).strip() + "\n"


def _plain(value: Any) -> Any:
    """Return `value` as what YAML can hold safely: plain mappings, lists and scalars."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _hub_id(source: str | None) -> str | None:
    """Return `source` if it is a Hub id and no path of this machine."""
    try:
        # a folder of the same name wins over a Hub id when a dataset is opened, so it does here
        public = source is not None and HUB_ID.fullmatch(source) is not None and not Path(source).exists()
    except (OSError, ValueError):  # too long
        public = False
    return source if public else None


def _source(source: str | None) -> Markup | None:
    """Return how the card names the source: a link, an embedded name, or nothing that tells a local path."""
    if source is None:
        return None
    if repo := _hub_id(source):
        name = repo.split(":")[0]
        return Markup(f"[{escape_markdown(repo)}](https://huggingface.co/datasets/{name})")
    return code(source) if source == "digits" else Markup("a local dataset")


def _picture(path: str | None) -> Markup | None:
    """Return a relative picture path that cannot leave the folder or the Markdown link, else None."""
    safe = path is not None and re.fullmatch(r"(?!/)[\w./-]+\.(png|jpg|jpeg|webp)", path) and ".." not in path
    return Markup(cast(str, path)) if safe else None
