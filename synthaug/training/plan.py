"""What a fit will do: the resolved recipe, the rows, and the numbers that follow from them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

from synthaug.core import InputError, suggest
from synthaug.data import LabeledImages, describe_absent, load_images, read_notices, split_attributes, split_validation
from synthaug.generators import ConditionalGenerator, Preset, find_family
from synthaug.recipe import IN_MEMORY, Recipe, parse_recipe

__all__ = ["FitPlan", "plan_fit", "resolve_recipe"]

_FROM_DATA = ("class_names", "image_size", "channels", "attributes")
_SECTIONS: dict[str, tuple[str, ...]] = {
    "dataset": ("image_column", "label_column", "group_by", "limit_per_class", "on_bad_image", "validation"),
    "fit": ("track", "batch_size", "save_every", "seed", "mixed_precision", "accumulation"),
}
"""Section of a recipe -> the options of `fit` that belong there; all others are the generator's."""


@dataclass(frozen=True)
class FitPlan:
    """What a fit will do: the resolved recipe and what follows from the data."""

    recipe: Recipe
    family: type[ConditionalGenerator]
    constructor: dict[str, Any]
    preset: Preset
    train: LabeledImages
    validation: LabeledImages
    images: LabeledImages

    def describe(self) -> str:
        """Return the plan as a few readable lines."""
        size = sum(p.numel() for p in self.build().parameters())
        numbers = ", ".join(f"{k}={v}" for k, v in self.constructor.items() if k not in ("class_names",))
        length = self.recipe.fit.budget or f"{self.recipe.fit.images:,} images"
        return (
            f"{self.family.family}: {size / 1e6:.2f} M parameters ({numbers})\n"
            f"rows: {len(self.train.labels):,} to fit on, {len(self.validation.labels):,} held out, "
            f"{len(self.images.class_names)} classes; batch {self.batch_size}; length {length}"
            f"{self._describe_groups()}"
        ) + "".join(f"\nnotice: {notice}" for notice in read_notices(self.images.dataset))

    def _describe_groups(self) -> str:
        if not self.images.columns.groups:
            return ""
        names = self.images.class_names
        absent = describe_absent(names)
        return f"\nclasses are the groups of {', '.join(self.images.columns.groups)}: {len(names)} occur" + (
            f"; {absent}" if absent else ""
        )

    def preset_table(self, constructor: Mapping[str, Any], compared: Collection[str] = ()) -> dict[str, str]:
        """Return every number that follows from the data or the recipe, and where it came from.

        Args:
            constructor: The arguments of the generator as it was kept.
            compared: Those of them that were chosen on validation rows.
        """
        given = self.recipe.generator.model_extra or {}
        defaults = inspect.signature(self.family).parameters
        table = {}
        for name, value in constructor.items():
            if name in _FROM_DATA:
                continue
            if name in compared:
                origin = "validation rows"
            elif name in given and given[name] == value:
                origin = "the recipe"
            else:
                origin = "the data" if self.preset.constructor.get(name) == value else "default"
            table[name] = f"{value} ({origin})"
        table |= {n: f"{p.default} (default)" for n, p in defaults.items() if n not in (*constructor, *_FROM_DATA)}
        table["batch"] = f"{self.batch_size} images ({'the recipe' if self.recipe.fit.batch_size else 'the data'})"
        table["weight average"] = f"half-life {self.preset.ema_images:,} images (the data)"
        table["draws of classes"] = f"in proportion to count to the power {self.preset.class_power} (the data)"
        return table

    @property
    def attributes(self) -> list[list[int]] | None:
        """Values of the attributes that make each class, where classes are joint groups; see `split_attributes`."""
        return split_attributes(self.images.class_names, self.images.columns)

    @property
    def batch_size(self) -> int:
        """Global batch in images."""
        return self.recipe.fit.batch_size or self.preset.batch_size

    def build(self) -> ConditionalGenerator:
        """Return a fresh generator, its weights a function of the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.fit.seed)
            try:
                return self.family(**self.constructor)
            except (RuntimeError, TypeError, ValueError) as error:
                if isinstance(error, InputError) or not self.recipe.generator.model_extra:
                    raise
                raise InputError(
                    f"{self.family.family} cannot be built with generator {self.recipe.generator.model_extra} "
                    f"({' '.join(str(error).split())[:120]}); change these keys or leave them out"
                ) from error


def plan_fit(real: Dataset, family: str | type[ConditionalGenerator], recipe: Recipe) -> FitPlan:
    """Read the data and resolve the presets, without fitting anything.

    Raises:
        InputError: For bad input.
    """
    cls, section = find_family(family), recipe.dataset
    images = load_images(
        real,
        image_column=section.image_column,
        label_column=section.label_column,
        group_by=section.group_by,
        image_size=recipe.generator.image_size,
        limit_per_class=section.limit_per_class,
        on_bad_image=section.on_bad_image,
    )
    training, validation = split_validation(images, section.validation)
    codec = images.codec
    counts = [training.class_counts[name] for name in images.class_names]
    preset = cls.preset(counts, codec.image_size, codec.channels)
    own, parameters = dict(recipe.generator.model_extra or {}), inspect.signature(cls).parameters
    allowed = [name for name in parameters if name not in _FROM_DATA]
    for key in own:
        if key not in allowed:
            hint = suggest(
                key, [*allowed, "budget", "images", "output", "fresh", *itertools.chain(*_SECTIONS.values())]
            )
            raise InputError(f"unknown key generator.{key}{hint}; {cls.family} has {', '.join(allowed)}")
        _check_kind(key, own[key], parameters[key].default)
    attributes = split_attributes(images.class_names, images.columns)
    constructor = {
        "class_names": list(images.class_names),
        "image_size": codec.image_size,
        "channels": codec.channels,
        **({"attributes": attributes} if attributes and "attributes" in parameters else {}),
        **preset.constructor,
        **own,
    }
    return FitPlan(recipe, cls, constructor, preset, training, validation, images)


def _check_kind(key: str, value: Any, default: Any) -> None:
    """Raise InputError where a number, a word or a truth value is expected, going by the default."""
    kinds: dict[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
    expected = kinds.get(type(default))
    if expected and (not isinstance(value, expected) or isinstance(value, bool) != isinstance(default, bool)):
        raise InputError(f"generator.{key} is {value!r}; give {expected[-1].__name__} like the default {default!r}")


def resolve_recipe(
    real: Dataset,
    family: str | type[ConditionalGenerator],
    budget: str | float | None,
    images: int | str | None,
    recipe: Mapping[str, Any] | Recipe | None,
    options: Mapping[str, Any],
) -> Recipe:
    """Return the recipe of a fit called from Python: `recipe` itself, or one made of the other arguments."""
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return parse_recipe(recipe)
    name = family if isinstance(family, str) else family.family
    values: dict[str, Any] = {"dataset": {"path": IN_MEMORY}, "generator": {"family": name}}
    values["fit"] = {"budget": budget, "images": images}
    for key, value in options.items():
        section = next((s for s, keys in _SECTIONS.items() if key in keys), "generator")
        values[section][key] = value
    return parse_recipe(values, origin="fit")
