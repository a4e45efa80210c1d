"""explore(): pictures of the latent space of a run, with captions on one page."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from jinja2 import Environment, PackageLoader, StrictUndefined

from synthaug.analysis.exploration.panels import Panel
from synthaug.analysis.exploration.survey import describe_traversal, survey_space
from synthaug.analysis.exploration.training_rows import find_training_rows
from synthaug.core import InputError, OutputFolder, __version__, write_file
from synthaug.data import LabeledImages, digest_rows, open_dataset
from synthaug.generators import (
    ConditionalGenerator,
    LatentSpace,
    checkpoint_hash,
    load_generator,
    read_source,
    resolve_run,
)

__all__ = ["Exploration", "explore"]

_RECORD = "exploration.json"


@dataclass(frozen=True)
class Exploration:
    """What an exploration found; every field but `panels` and `folder` is JSON-friendly.

    Args:
        generator: "family@version".
        checkpoint: sha256 of its weights.
        encodes: Whether the family goes from images to latents.
        training_rows: How many rows of the fit were at hand.
        directions: title, nats (None but for single latents), spread, change, named (words), effects (all
            statistics with strength and consistency); strongest direction first.
        captions: Name of a picture -> its caption.
        notes: What is missing, and what it would need.
        arguments: What the folder was made with.
        panels: The pictures; empty where the exploration was found finished.
        folder: Where it lies.
    """

    generator: str
    checkpoint: str
    encodes: bool
    training_rows: int
    directions: list[dict[str, Any]]
    captions: dict[str, str]
    notes: list[str]
    arguments: dict[str, Any]
    panels: list[Panel] = field(default_factory=list, repr=False, compare=False)
    folder: Path | None = field(default=None, compare=False)


def explore(
    run: str | Path | ConditionalGenerator,
    *,
    output: str | Path | None = None,
    real: str | Dataset | None = None,
    split: str | None = None,
    per_class: int = 10,
    seed: int = 0,
    temperature: float | None = None,
    fresh: bool = False,
) -> Exploration:
    """Draw what the latent space of a run holds: samples, ways between classes and images, directions, neighbours.

    Parts that need an encoder or the training rows are left out where there are none, and the page says so. The
    same call again finds the folder finished.

    Args:
        run: A run folder, the Hub id of one, or a generator loaded from one.
        output: Folder to make; RUN/exploration when None, which a Hub id has no place for.
        real: The rows the run was fitted on, as a DATASET or a `datasets.Dataset`; what the run names is not opened.
            Only rows whose pixel hash is among the training rows of the run count.
        split: Split of a DATASET given by name; that of the fit when None.
        per_class: Samples of each class, 1 to 100.
        seed: Seed of the draws.
        temperature: Scale of the noise; the family's own default when None.
        fresh: Remove what an earlier call left in `output`.

    Returns:
        What was found; pictures, index.html and exploration.json are in the folder.

    Raises:
        InputError: For bad input, or when `output` was made with other arguments.
    """
    _check_numbers(per_class, seed, temperature)
    generator = run if isinstance(run, ConditionalGenerator) else load_generator(run)
    folder = generator.run_folder
    if folder is None:
        raise InputError("the generator is of no run; fit it with an output, or load it with load_generator")
    local = isinstance(run, ConditionalGenerator) or Path(run).exists()
    if output is None and not local:
        raise InputError(f"no output= given, and {str(run)!r} is a Hub id; name the folder to make")
    target = Path(output) if output is not None else resolve_run(folder) / "exploration"
    source = read_source(folder)
    rows = open_dataset(real, split or source["split"]) if isinstance(real, str) else real
    warmth = generator.default_temperature if temperature is None else temperature
    arguments = {
        "checkpoint": checkpoint_hash(folder), "real": digest_rows(rows) if rows is not None else None,
        "per_class": per_class, "seed": seed, "temperature": warmth,
    }  # fmt: skip
    with OutputFolder(target, "explore", arguments, fresh=fresh) as output_folder:
        if output_folder.has_finished(_RECORD):
            return _read(target)
        training, why = _find_rows(rows, source)
        space = LatentSpace(generator, temperature=warmth)
        found = survey_space(space, training, why, per_class=per_class, seed=seed)
        made = Exploration(
            generator=f"{generator.family}@{generator.version}", checkpoint=str(arguments["checkpoint"]),
            encodes=space.encodes, training_rows=0 if training is None else len(training),
            directions=[describe_traversal(one) for one in found.traversals], notes=found.notes, arguments=arguments,
            captions={panel.name: panel.caption for panel in found.panels}, panels=found.panels, folder=target,
        )  # fmt: skip
        _write(made, target)
        output_folder.finish()
    return made


def _check_numbers(per_class: int, seed: int, temperature: float | None) -> None:
    if not 1 <= per_class <= 100:
        raise InputError(f"per_class is {per_class}; give a number of samples from 1 to 100")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed is {seed}; give an integer from 0 to 2**63 - 1")
    if temperature is not None and not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; give a number of at least 0, such as 0.9")


def _find_rows(rows: Dataset | None, source: dict[str, Any]) -> tuple[LabeledImages | None, str]:
    """Return the training rows, or None and why there are none: what a run names is not opened."""
    if rows is None:
        return None, "no training rows are given; name them with real= to see them"
    return find_training_rows(rows, source), ""


# ------------------------------------------------------------------------------------------------------- files


def _read(folder: Path) -> Exploration:
    return Exploration(**json.loads((folder / _RECORD).read_text(encoding="utf-8")), folder=folder)


def _write(made: Exploration, folder: Path) -> None:
    """Write the pictures, the page and, last, the record."""
    for panel in made.panels:
        write_file(folder / f"{panel.name}.png", panel.png)
    write_file(folder / "index.html", _render(made))
    content = {key: value for key, value in asdict(made).items() if key not in ("panels", "folder")}
    write_file(folder / _RECORD, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _render(made: Exploration) -> str:
    """Return the page, pictures embedded."""
    templates = Environment(
        loader=PackageLoader("synthaug.publishing"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return templates.get_template("exploration.html.j2").render(
        made=made, panels=list(_embed(made.panels)), version=__version__
    )


def _embed(panels: list[Panel]) -> Iterator[dict[str, str]]:
    for panel in panels:
        data = base64.b64encode(panel.png).decode()
        yield {"name": panel.name, "title": panel.title, "caption": panel.caption, "data": data}
