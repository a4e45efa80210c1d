"""Recipes: one YAML file for a whole journey, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from synthaug.core import InputError, suggest

__all__ = [
    "IN_MEMORY",
    "Recipe",
    "apply_settings",
    "dump_recipe",
    "parse_count",
    "parse_duration",
    "parse_recipe",
    "read_recipe",
    "spell_path",
]

IN_MEMORY = "Dataset in memory"
"""`dataset.path` of rows that were given as an object; a resumed fit knows them by their pixels."""

_MAX_BYTES = 1_000_000
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SCALES = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000, "G": 1_000_000_000}


def parse_duration(text: str | float) -> float:
    """Return seconds from ``"90s"``, ``"10m"``, ``"1.5h"`` or a number of seconds.

    Raises:
        InputError: If the text is no positive duration.

    Example:
        >>> parse_duration("10m")
        600.0
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([smhd]?)\s*", str(text))
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if seconds <= 0:
        raise InputError(f"budget is {text!r}; give a positive duration such as 90s, 10m or 2h")
    return seconds


def parse_count(text: str | int) -> int:
    """Return a number of images from ``"2M"``, ``"500k"`` or a plain number.

    Raises:
        InputError: If the text is no positive whole number.

    Example:
        >>> parse_count("2M")
        2000000
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([kKMG]?)\s*", str(text))
    count = Decimal(match[1]) * _SCALES[match[2]] if match else Decimal(0)
    if count < 1 or count % 1:
        raise InputError(f"images is {text!r}; give a positive whole number such as 200000, 500k or 2M")
    return int(count)


def spell_path(text: str) -> str:
    """Return `a/b` as `./a/b` where it is there: written down so, it is no Hub id once the folder is gone or elsewhere.

    Example:
        >>> spell_path("user/name")
        'user/name'
    """
    try:
        there = not Path(text).is_absolute() and not text.startswith((".", "~")) and Path(text).exists()
    except (OSError, ValueError):  # too long, a NUL byte
        return text
    return f"./{text}" if there and "/" in text else text


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class DatasetSection(_Section):
    """Where the real images come from."""

    path: str
    split: str = "train"
    image_column: str | None = None
    label_column: str | None = None
    group_by: list[str] | None = None
    limit_per_class: int | None = Field(default=None, ge=1)
    on_bad_image: Literal["error", "skip"] = "error"
    validation: str | int | float = "auto"

    @field_validator("path")
    @classmethod
    def _told_from_a_hub_id(cls, value: str) -> str:
        return spell_path(value)

    @field_validator("group_by", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [name.strip() for name in value.split(",")] if isinstance(value, str) else value

    @field_validator("validation")
    @classmethod
    def _auto_fraction_count_or_fold(cls, value: str | float) -> str | float:
        known = re.fullmatch(r"auto|[0-9]+/[0-9]+", value) if isinstance(value, str) else value >= 0
        if not known or (isinstance(value, float) and value >= 1):
            raise ValueError("must be auto, a fraction in [0, 1), a number of rows per class or a fold such as 2/5")
        return value


class GeneratorSection(BaseModel):
    """Which family, and keyword arguments of its own constructor."""

    model_config = ConfigDict(extra="allow")

    family: str
    image_size: int | None = Field(default=None, ge=8, le=64)


class FitSection(_Section):
    """How long and how to fit."""

    budget: str | None = None
    images: int | None = None
    batch_size: int | None = Field(default=None, ge=2)
    save_every: str | int = "2m"
    seed: int = Field(default=0, ge=0, lt=2**63)
    mixed_precision: Literal["no", "bf16"] = "no"
    track: Literal["tensorboard", "trackio", "wandb"] | None = None
    accumulation: int = Field(default=1, ge=1)

    @field_validator("budget", "save_every", mode="before")
    @classmethod
    def _duration(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return value
        text = str(value)
        if info.field_name == "save_every" and re.fullmatch(r"[0-9.]+[kKMG]?", text.strip()):
            return parse_count(text)
        parse_duration(text)
        return text

    @field_validator("images", mode="before")
    @classmethod
    def _count(cls, value: Any) -> Any:
        return parse_count(value) if isinstance(value, str | int) and not isinstance(value, bool) else value

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML 1.1 reads a bare no as false

    @model_validator(mode="after")
    def _one_length(self) -> FitSection:
        if self.images is not None and self.budget is not None:
            raise ValueError("give budget or images, not both")
        if self.images is None and self.budget is None:
            self.budget = "10m"
        return self


class GenerateSection(_Section):
    """What to generate."""

    balance: str | int | dict[str, int] | None = None
    per_class: int | None = Field(default=None, ge=1)
    max_synthetic_fraction: float | None = Field(default=None, ge=0, lt=1)
    temperature: float | None = Field(default=None, ge=0)
    filter: Literal["none", "default"] = "default"
    judge: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    max_draws: int | None = Field(default=None, ge=1)

    @field_validator("judge")
    @classmethod
    def _told_from_a_hub_id(cls, value: str | None) -> str | None:
        return None if value is None else spell_path(value)

    @model_validator(mode="after")
    def _one_plan(self) -> GenerateSection:
        if self.per_class is not None and self.balance is not None:
            raise ValueError("give per_class or balance, not both")
        if self.per_class is None and self.balance is None:
            self.balance = "majority"
        return self


class TestSection(_Section):
    """Rows on which the benchmark judges."""

    __test__ = False  # not a pytest class

    path: str
    split: str | None = None

    @field_validator("path")
    @classmethod
    def _told_from_a_hub_id(cls, value: str) -> str:
        return spell_path(value)


class BenchmarkSection(_Section):
    """The downstream classifier benchmark."""

    test: TestSection
    arms: list[str] | None = None
    seeds: int = Field(default=5, ge=1)
    steps: int | None = Field(default=None, ge=1)
    classifier: Literal["small", "resnet"] = "small"


class PushSection(_Section):
    """Where the results are pushed."""

    repo: str | None = None
    private: bool = True


class Recipe(_Section):
    """A whole journey; only `dataset.path` and `generator.family` are required."""

    dataset: DatasetSection
    generator: GeneratorSection
    fit: FitSection = Field(default_factory=FitSection)
    generate: GenerateSection = Field(default_factory=GenerateSection)
    benchmark: BenchmarkSection | None = None
    push: PushSection = Field(default_factory=PushSection)
    output: str | None = None


class _Loader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys and anchors, and reads 2e-3 as a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("anchors and aliases are not allowed in a recipe")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        repeated = {str(key) for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.YAMLError(f"the key {sorted(repeated)[0]!r} stands twice")
        return super().construct_mapping(node, deep)


# YAML 1.1 asks for a point and a sign, and would make a word of it
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe file as plain values, not yet checked.

    Raises:
        InputError: If the file is missing, too large, or no YAML mapping.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"recipe {str(path)!r} is not a file; give the path of a YAML file")
    if file.stat().st_size > _MAX_BYTES:
        raise InputError(f"recipe {str(path)!r} is larger than {_MAX_BYTES} bytes; a recipe is a short YAML file")
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"recipe {str(path)!r} is not valid YAML: {reason}; mend that line") from None
    if not isinstance(values, dict):
        raise InputError(f"recipe {str(path)!r} holds no mapping; start with `dataset:` and `generator:`")
    return values


def apply_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Return `values` with every ``"section.key=value"`` applied; the right side is read as YAML.

    Raises:
        InputError: If a setting has no ``=`` or its path meets a value that has no keys.
    """
    result: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise InputError(f"--set {setting!r} has no value; write it as section.key=value")
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise InputError(f"--set {setting!r} is not valid YAML: {' '.join(str(error).split())}") from None
        target = result
        *parents, last = path.split(".")
        for parent in parents:
            if target.get(parent) is None:
                target[parent] = {}
            target = target[parent]
            if not isinstance(target, dict):
                raise InputError(f"--set {setting!r}: {parent!r} is a value, not a section")
        target[last] = value
    return result


def parse_recipe(values: Mapping[str, Any], *, origin: str = "recipe") -> Recipe:
    """Check plain values and fill the defaults.

    Raises:
        InputError: One line naming the first wrong key, with a suggestion for a misspelt one.
    """
    try:
        return Recipe.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"{origin}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if not str(part).startswith(("literal", "function-", "int", "float"))]
    where = ".".join(path) or "the recipe"
    if first["type"] == "extra_forbidden":
        allowed = _keys_of(path[:-1])
        return f"unknown key {where}{suggest(path[-1], allowed)}; allowed here: {', '.join(allowed)}"
    if first["type"] == "missing":
        return f"{where} is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {message}{shown}"


def _keys_of(path: list[str]) -> list[str]:
    model: Any = Recipe
    for part in path:
        annotation = model.model_fields[part].annotation
        models = [a for a in (annotation, *getattr(annotation, "__args__", ())) if hasattr(a, "model_fields")]
        model = models[0]
    return list(model.model_fields)


def dump_recipe(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML, every key written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
