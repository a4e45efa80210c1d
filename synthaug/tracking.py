"""Where a fit can be watched: losses, speed and sample grids, through Accelerate's trackers."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthaug.errors import InputError, suggest

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LOGS", "TRACKERS", "Journal", "check_tracker"]

LOGS = "logs"
"""Folder in a run for what trackers write; never pushed."""

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Each is the name of a tracker of Accelerate, of its package, and of the extra that installs it."""

_PROJECT = "synthaug"


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that is unknown or not installed.

    Args:
        name: One of `TRACKERS`, or None for none.

    Raises:
        InputError: The remedy names the extra.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise InputError(f"track is {name!r}{suggest(name, TRACKERS)}; give {', '.join(TRACKERS)}, or leave it out")
    if importlib.util.find_spec(name) is None:
        raise InputError(f"track is {name!r}, but that is not installed; {_install(name)}")


def _install(name: str) -> str:
    return f"run: pip install 'synthaug[{name}]'"


class Journal:
    """What a fit tells a tracker; nothing at all where there is none.

    The first process writes, into ``RUN/logs``. A fit that is resumed goes on in the same log: entries behind the
    state that it resumes from are replaced.

    Args:
        accelerator: One process or many.
        tracker: One of `TRACKERS`, or None.
        folder: The run folder.
    """

    def __init__(self, accelerator: Accelerator, tracker: str | None, folder: Path) -> None:
        self._accelerator, self._folder = accelerator, folder
        self._tracker = tracker if accelerator.is_main_process else None
        self._last = 0, 0.0

    @contextmanager
    def open(self, images_seen: int, seconds: float) -> Iterator[None]:
        """Context in which entries are taken; at its end all of them are written.

        Args:
            images_seen: Images seen so far, 0 at the beginning.
            seconds: Seconds of the fit so far.
        """
        self._last = images_seen, seconds
        if self._tracker is None:
            yield
            return
        from accelerate.tracking import filter_trackers
        from accelerate.utils import ProjectConfiguration

        logs = self._folder / LOGS
        logs.mkdir(exist_ok=True)
        accelerator = self._accelerator
        accelerator.project_configuration = ProjectConfiguration(project_dir=str(self._folder), logging_dir=str(logs))
        accelerator.log_with = filter_trackers([self._tracker], str(logs))
        if not accelerator.log_with:
            raise InputError(f"Accelerate does not find {self._tracker}; {_install(self._tracker)}")
        accelerator.init_trackers(_PROJECT, init_kwargs={self._tracker: self._options(logs, images_seen)})
        try:
            yield
        finally:
            for tracker in accelerator.trackers:  # end_training would take the process group down as well
                tracker.finish()
            accelerator.trackers, accelerator.log_with = [], []

    def _options(self, logs: Path, images_seen: int) -> dict[str, Any]:
        """Return what the tracker is started with, so that it writes into `logs` and goes on where it was."""
        name = self._folder.resolve().name
        if self._tracker == "tensorboard":
            return {"purge_step": images_seen + 1} if images_seen else {}
        if self._tracker == "trackio":
            os.environ.setdefault("TRACKIO_DIR", str((logs / "trackio").resolve()))  # read when it is imported
            return {"name": name, "resume": "allow"}
        return {"name": name, "id": _keep_id(logs / "wandb-id"), "resume": "allow", "dir": str(logs.resolve())}

    def note(self, losses: Mapping[str, float], *, images_seen: int, seconds: float) -> None:
        """Log the losses, and the speed since the last entry.

        Args:
            losses: Their names and values.
            images_seen: Images seen so far: the step of the entry.
            seconds: Seconds of the fit so far.
        """
        if not self._accelerator.trackers:
            return
        values = {f"losses/{name}": value for name, value in losses.items()}
        images, before = self._last
        if seconds > before:
            values["speed/images per second"] = (images_seen - images) / (seconds - before)
        self._last = images_seen, seconds
        self._accelerator.log(values, step=images_seen)

    def show(self, grid: bytes, *, images_seen: int) -> None:
        """Log a grid of samples, where the tracker takes pictures.

        Args:
            grid: A PNG file.
            images_seen: Images seen so far: the step of the entry.
        """
        for tracker in self._accelerator.trackers:
            if not hasattr(tracker, "log_images"):
                continue
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": _read_picture(grid)[None]}, step=images_seen, **options)


def _keep_id(path: Path) -> str:
    """Return the id of this run at a tracker, the same when the fit is resumed."""
    if not path.is_file():
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()


def _read_picture(png: bytes) -> Any:
    """Return a PNG as (H, W, 3) uint8."""
    import io

    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
