"""What a generation is: everything that its arguments leave open, resolved once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import ClassLabel, Dataset, Features, Image

from synthaug.balance import BalancePlan
from synthaug.classifiers import AllOf, Density, Filter, combine_filters, default_filter, likelihood_filter, load_judge
from synthaug.core import InputError, __version__
from synthaug.data import (
    DEPTHS,
    Codec,
    Columns,
    DatasetRows,
    choose_columns,
    corrupt_rows,
    count_classes,
    describe_absent,
    digest_rows,
    real_rows,
    sample_statistics,
)
from synthaug.generation.blocks import NUM_THREADS, BlockPool, Sampler
from synthaug.generation.dataset_folder import RowStream
from synthaug.generation.export import pick_rows
from synthaug.generation.mixing import output_features
from synthaug.generation.synthetic_rows import Origin, SyntheticRows
from synthaug.generators import ConditionalGenerator, checkpoint_hash, load_run, read_source
from synthaug.publishing import drop_local_paths

__all__ = ["GenerationJob", "name_generator", "resolve_filter"]


@dataclass
class GenerationJob:
    """Everything that decides what is written."""

    generator: ConditionalGenerator
    plan: BalancePlan
    sampler: Sampler
    filter_name: str
    judge: Mapping[str, str] | None
    origin: Origin
    source: Mapping[str, Any]
    features: Features
    columns: Columns
    real: Dataset | None
    others: dict[str, Dataset]
    split: str
    notices: list[str]

    @classmethod
    def prepare(
        cls,
        generator: ConditionalGenerator,
        plan: BalancePlan,
        seed: int,
        temperature: float | None,
        check: str | Filter,
        judge: ConditionalGenerator | str | Path | None,
        mix_with: Dataset | None,
        other_splits: Mapping[str, Dataset] | None,
        split: str,
        on_bad_image: str,
    ) -> GenerationJob:
        """Resolve what the arguments leave open."""
        run = generator.run_folder
        source = {} if run is None else read_source(run)
        temperature = generator.default_temperature if temperature is None else float(temperature)
        resolved, name = resolve_filter(generator, check)
        if isinstance(judge, str | Path):
            judge = load_run(judge, device=str(next(generator.parameters()).device))
        if judge is not None:
            resolved = combine_filters(resolved, _resolve_judge(generator, judge))
        real_features = _real_features(generator, source, mix_with)
        columns = _find_columns(source, mix_with)
        notices = [*plan.notices, *_describe_groups(columns, plan)]
        real = None if mix_with is None else _usable(mix_with, columns.image, on_bad_image, notices)
        notices += _describe_scale(source, real, columns.image, generator.image_size)
        return cls(
            generator=generator,
            plan=_in_label_order(plan, generator.class_names),
            sampler=Sampler(generator, resolved, seed=seed, temperature=temperature),
            filter_name=name,
            judge=None if judge is None else name_generator(judge),
            origin=Origin(**name_generator(generator), seed=seed),
            source=source,
            features=output_features(real_features),
            columns=columns,
            real=real,
            others=dict(other_splits or {}),
            split=split,
            notices=notices,
        )

    @property
    def codec(self) -> Codec | None:
        """The codec of the run; None for a generator that lies in no run folder."""
        return Codec.from_dict(self.source["codec"]) if self.source else None

    @property
    def device(self) -> str:
        """Type of the device on which the generator lies."""
        return next(self.generator.parameters()).device.type

    def arguments(self) -> dict[str, Any]:
        """Return what must be the same for a resume."""
        return {
            "generator": self.origin.generator,
            "checkpoint": self.origin.checkpoint,
            "plan": self.plan.missing,
            "seed": self.origin.seed,
            "temperature": self.sampler.temperature,
            "filter": self.filter_name,
            "judge": self.judge,
            "device": self.device,
            "split": self.split,
            "mix_with": None if self.real is None else digest_rows(self.real),
            "other_splits": {name: digest_rows(data) for name, data in self.others.items()},
        }

    def describe(self) -> str:
        """Return the plan as text, with the notices that do not come from it."""
        rest = [f"note: {notice}" for notice in self.notices if notice not in self.plan.notices]
        return "\n".join([self.plan.table(), *rest])

    def _describe_filter(self) -> str:
        """Return how the card names the filter."""
        if self.judge is None:
            return self.filter_name
        before = "" if self.filter_name == "none" else f"{self.filter_name} and "
        return f"{before}likelihood by {self.judge['generator']}"

    def synthetic_rows(self, pool: BlockPool, max_draws: int | None, bar: Any) -> SyntheticRows:
        """Return the stream of synthetic rows."""
        return SyntheticRows(
            pool,
            self.plan,
            class_names=self.generator.class_names,
            features=self.features,
            columns=self.columns,
            origin=self.origin,
            codec=self.codec,
            max_draws=max_draws,
            bar=bar,
        )

    def streams(self, synthetic: SyntheticRows) -> dict[str, list[RowStream]]:
        """Return split -> streams; real rows come first: bad input is met before anything is drawn."""
        required = self.columns.image
        streams: dict[str, list[RowStream]] = {
            name: [DatasetRows(data, self.features, name=f"split {name!r}")] for name, data in self.others.items()
        }
        real = (
            []
            if self.real is None
            else [
                DatasetRows(
                    self.real,
                    self.features,
                    name="mix_with",
                    required=required,
                    depth="uint8" if self.codec is None else self.codec.depth,
                )
            ]
        )
        return {**streams, self.split: [*real, synthetic]}

    @property
    def shown(self) -> list[range]:
        """Numbers of the rows in the sample grid."""
        return pick_rows(self.plan.missing, 0 if self.real is None else len(self.real))

    def record(self, synthetic: SyntheticRows, recipe: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the content of synthaug.json: no time, host or process count."""
        arguments = self.arguments()
        return {
            "synthaug_version": __version__,
            "versions": {"torch": str(torch.__version__), "numpy": np.__version__, "pyarrow": pa.__version__},
            **arguments,
            "threads": NUM_THREADS,
            "class_names": list(self.generator.class_names),
            "image_column": self.columns.image,
            "label_column": self.columns.label,
            **({"group_by": list(self.columns.groups)} if self.columns.groups else {}),
            "plan": self.plan.to_dict(),
            "acceptance": synthetic.state()["acceptance"],
            "notices": self.notices,
            "recipe": None if recipe is None else drop_local_paths(recipe),
            "source": {key: self.source.get(key) for key in ("dataset", "split", "limit_per_class", "codec")},
            "hashes": self.source.get("hashes"),
        }

    def facts(self, record: Mapping[str, Any], further: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the facts of the card."""
        rows, groups = 0 if self.real is None else len(self.real), self.columns.groups
        real = {} if self.real is None else count_classes(self.real, self.columns.label, groups)
        acceptance = record["acceptance"]
        return {
            "splits": {
                self.split: rows + self.plan.num_missing,
                **{name: len(data) for name, data in self.others.items()},
            },
            "split": self.split,
            "real": real,
            "synthetic": {name: number for name, number in self.plan.missing.items() if number},
            "acceptance": {n: {"drawn": t["drawn"], "accepted": t["accepted"]} for n, t in acceptance.items()},
            "filter": self._describe_filter(),
            "image_column": self.columns.image,
            "label_column": self.columns.label,
            "image_size": self.generator.image_size,
            "channels": self.generator.channels,
            "generator": self.origin.generator,
            "checkpoint": self.origin.checkpoint,
            "seed": self.origin.seed,
            "temperature": self.sampler.temperature,
            "source": (self.source.get("dataset") or "a local dataset") if self.source else None,
            "pixel_hashes": record["hashes"] is not None,
            "notices": self.notices,
            "recipe": record["recipe"],
            "synthaug_version": __version__,
            **(further or {}),
        }


def _in_label_order(plan: BalancePlan, class_names: list[str]) -> BalancePlan:
    """Return the plan with its classes in the order of the labels, those the generator lacks behind."""
    names = [name for name in class_names if name in plan.real]
    names += [name for name in plan.real if name not in class_names]
    real, missing = ({name: counts[name] for name in names} for counts in (plan.real, plan.missing))
    return BalancePlan(real, missing, plan.notices)


def resolve_filter(generator: ConditionalGenerator, check: str | Filter) -> tuple[Filter | None, str]:
    """Return the filter and the name under which it is recorded.

    Args:
        generator: The generator; "default" needs the judge of its run folder.
        check: "default", "none" or a callable (images, labels) -> keep mask.

    Raises:
        InputError: If it is none of these, or there is no judge.
    """
    if callable(check):
        return check, getattr(check, "__name__", type(check).__name__)
    if check == "none":
        return None, "none"
    if check != "default":
        raise InputError(f"filter is {check!r}; give 'default', 'none' or a callable (images, labels) -> keep mask")
    if generator.run_folder is None:
        raise InputError("filter 'default' needs the judge of a run, and this generator has none; use filter='none'")
    return default_filter(load_judge(generator.run_folder).to(next(generator.parameters()).device)), "default"


def _resolve_judge(generator: ConditionalGenerator, judge: ConditionalGenerator) -> AllOf:
    """Return the filter of a judge that knows the generator's classes and images.

    Raises:
        InputError: If it does not, or its family has no likelihood.
    """
    if not isinstance(judge, Density):
        raise InputError(f"judge is a {judge.family}, which knows no exact likelihood; give a run of glow")
    for key in ("class_names", "image_size", "channels"):
        theirs, ours = getattr(judge, key), getattr(generator, key)
        if theirs != ours:
            raise InputError(
                f"the judge has {key} {_shorten(theirs)}, the generator {_shorten(ours)}; give a judge that was "
                "fitted on the same classes, image size and channels"
            )
    if bool(torch.isinf(judge.typical_low).all()):
        raise InputError("the judge does not know how likely real images are; fit it, or call its memorize")
    return likelihood_filter(judge.to(next(generator.parameters()).device).eval())


def _shorten(value: Any) -> str:
    return text if len(text := repr(value)) <= 60 else f"{text[:60]}..."


def name_generator(generator: ConditionalGenerator) -> dict[str, str]:
    """Return family and hash of the weights."""
    run = generator.run_folder
    weights = _hash_weights(generator) if run is None else checkpoint_hash(run)
    return {"generator": f"{generator.family}@{generator.version}", "checkpoint": weights}


def _real_features(generator: ConditionalGenerator, source: Mapping[str, Any], real: Dataset | None) -> Features:
    if real is not None:
        return real.features
    if source:
        return Features.from_dict(dict(source["features"]))
    return Features({"image": Image(), "label": ClassLabel(names=list(generator.class_names))})


def _find_columns(source: Mapping[str, Any], real: Dataset | None) -> Columns:
    image, label, groups = source.get("image_column"), source.get("label_column"), source.get("group_by")
    if real is None:
        return Columns(image or "image", label or "label", tuple(groups or ()))
    image, label = (name if name in real.features else None for name in (image, label))
    return choose_columns(real, image, label, groups)


def _describe_groups(columns: Columns, plan: BalancePlan) -> list[str]:
    """Return which columns make the classes, and which of their groups nothing is generated for."""
    if not columns.groups:
        return []
    present = [name for name, number in plan.total.items() if number]
    absent = describe_absent(present)
    return [f"the classes are the groups of {', '.join(columns.groups)}{'; ' + absent if absent else ''}"]


def _usable(real: Dataset, image_column: str, on_bad_image: str, notices: list[str]) -> Dataset:
    """Return the real rows that are written, and note which are not."""
    keep = real_rows(real)
    if not keep.all():
        notices.append(f"{int((~keep).sum())} rows already marked synthetic are left out")
    if on_bad_image == "skip":
        corrupt = {row: reason for row, reason in corrupt_rows(real, image_column).items() if keep[row]}
        keep[list(corrupt)] = False
        listed = "; ".join(f"row {row}: {reason}" for row, reason in list(corrupt.items())[:20])
        if corrupt:
            notices.append(f"{len(corrupt)} corrupt rows are left out ({listed})")
    return real if keep.all() else real.select(np.flatnonzero(keep))


def _describe_scale(source: Mapping[str, Any], real: Dataset | None, image_column: str, image_size: int) -> list[str]:
    """Return how synthetic images are stored where that is not in 8 bits, and whether real ones are larger.

    Raises:
        InputError: If there are real rows to mix with, and the run was fitted on images of several depths.
    """
    notices, codec = [], Codec.from_dict(source["codec"]) if source else None
    if codec is not None and codec.depth == "mixed":
        if real is not None:
            raise InputError(
                "the run was fitted on images of several depths (8 bits, and 16 bits or floating-point numbers), so no "
                "depth of the synthetic rows suits all real rows; convert the images to one depth and fit again, or "
                "generate without mix_with"
            )
        notices.append("the run was fitted on images of several depths; the synthetic images have 8 bits")
    elif codec is not None and codec.depth != "uint8":
        low, high = codec.value_range or (0.0, 65535.0)
        notices.append(
            f"synthetic images store {DEPTHS[codec.depth]} as the real ones do: 256 levels from {low:g} to {high:g}"
        )
    sizes: Counter[tuple[int, int]] = Counter() if real is None else sample_statistics(real, image_column).sizes
    larger = {size: number for size, number in sizes.items() if min(size) > image_size}
    if 2 * sum(larger.values()) > sum(sizes.values()):
        width, height = max(larger, key=lambda size: larger[size])
        notices.append(
            f"the synthetic images have {image_size} x {image_size} pixels, most real ones more (such as {width} x "
            f"{height}): a classifier can tell them by their sharpness; scale all rows to {image_size} pixels, then up"
        )
    return notices


def _hash_weights(generator: ConditionalGenerator) -> str:
    """Return a sha256 over names and values of a generator that lies in no run folder."""
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
