"""Where a fit can be watched: progress bar, log and alarms; losses, speed and sample grids in Accelerate's trackers."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from tqdm import tqdm

from synthaug.core import InputError, claim, is_listed, list_files, suggest, write_file
from synthaug.training.budget import Budget

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["LOGS", "TRACKERS", "Journal", "Monitor", "check_tracker"]

LOGS = "logs"
"""Folder in a run for what trackers write; never pushed."""

TRACKERS = ("tensorboard", "trackio", "wandb")
"""Each is the name of a tracker of Accelerate, of its package, and of the extra that installs it."""

_LOG_FILES = {"tensorboard": "events.out.tfevents*", "trackio": "trackio/**/*", "wandb": "wandb/**/*"}
"""Names of the files that each tracker writes."""

_PROJECT = "synthaug"
_LOG_SECONDS = 2.0
_ALARM_ENTRIES = 3
"""Log entries in a row that have to show a sign before it is told."""


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
    return f"in a clone of synthaug run: pip install '.[{name}]'"


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
        self._foreign = set[Path]()

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
        self._foreign = {path for path in self._find_logs() if not is_listed(path)}
        accelerator = self._accelerator
        accelerator.project_configuration = ProjectConfiguration(project_dir=str(self._folder), logging_dir=str(logs))
        accelerator.log_with = filter_trackers([self._tracker], str(logs))
        if not accelerator.log_with:
            raise InputError(f"Accelerate does not find {self._tracker}; {_install(self._tracker)}")
        accelerator.init_trackers(_PROJECT, init_kwargs={self._tracker: self._options(logs, images_seen)})
        self._list_logs(final=False)
        try:
            yield
        finally:
            for tracker in accelerator.trackers:  # end_training would take the process group down as well
                tracker.finish()
            accelerator.trackers, accelerator.log_with = [], []
            self._list_logs(final=True)

    def _list_logs(self, *, final: bool) -> None:
        """List what the tracker has written, so that `--fresh` may remove it."""
        list_files(*sorted(self._find_logs() - self._foreign), final=final)

    def _find_logs(self) -> set[Path]:
        """Return the files that are named as the tracker's."""
        if self._tracker is None:
            return set()
        return set(filter(Path.is_file, (self._folder / LOGS).rglob(_LOG_FILES[self._tracker])))

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
        self._list_logs(final=False)

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
        write_file(path, uuid.uuid4().hex)
    return path.read_text(encoding="utf-8").strip()


def _read_picture(png: bytes) -> Any:
    """Return a PNG as (H, W, 3) uint8."""
    import numpy as np

    from synthaug.data import decode_bytes

    return np.asarray(decode_bytes(png).convert("RGB"))


class Monitor:
    """What can be seen of a fit while it goes on: progress bar, log and alarms of the first process.

    Args:
        folder: The run folder.
        budget: How long the fit is.
        journal: Takes the log entries too.
        diagnose: Returns a line for each sign that the fit goes wrong, given losses and progress.
        main: Whether this is the first process.
    """

    def __init__(
        self,
        folder: Path,
        budget: Budget,
        journal: Journal,
        *,
        diagnose: Callable[[dict[str, float], float], Sequence[str]],
        main: bool,
    ) -> None:
        self._folder, self._budget, self._journal, self._main = folder, budget, journal, main
        self._diagnose, self._alarms = diagnose, _Alarms(folder)
        self._bar: Any = None
        self._logged = 0.0
        self.losses: dict[str, float] = {}
        """Those of the last entry."""

    @property
    def warnings(self) -> list[str]:
        """The alarms that lasted."""
        return self._alarms.told

    @contextmanager
    def open(self, title: str, images_seen: int) -> Iterator[None]:
        """Context in which the fit can be watched.

        Args:
            title: Of the progress bar.
            images_seen: Images seen so far.
        """
        self._logged = self._budget.elapsed
        bar = tqdm(
            total=self._budget.images, initial=images_seen, unit="img", unit_scale=True, disable=not self._main,
            mininterval=0.5, desc=title, dynamic_ncols=True,
        )  # fmt: skip
        with bar as self._bar, self._journal.open(images_seen, self._budget.elapsed):
            yield

    def advance(self, images: int, images_seen: int) -> bool:
        """Move the bar by a step; tell whether a log entry is due, every few seconds and at the end."""
        self._bar.total = self._budget.images
        self._bar.update(images)
        waited = self._budget.elapsed - self._logged >= _LOG_SECONDS
        return waited or self._budget.progress(images_seen) >= 1.0

    def note(self, losses: Mapping[str, SupportsFloat], *, images_seen: int, progress: float) -> None:
        """Write a log entry.

        Args:
            losses: "objective.name" -> value.
            images_seen: Images seen so far.
            progress: Fraction of the fit done before this step.
        """
        self._logged, self.losses = self._budget.elapsed, {name: float(value) for name, value in losses.items()}
        self._bar.set_postfix({k.split(".")[-1]: f"{v:.3g}" for k, v in self.losses.items()}, refresh=False)
        if self._main:
            _log(self._folder, {"images": images_seen, "seconds": round(self._logged, 2), **self.losses})
            self._journal.note(self.losses, images_seen=images_seen, seconds=self._logged)
            self._alarms.sound(self._diagnose(self.losses, progress))


class _Alarms:
    """Says what goes wrong in a fit, each thing once, on stderr and in the log.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._counts = folder, Counter[str]()

    def sound(self, lines: Sequence[str]) -> None:
        """Take note of the alarms of one log entry; one that lasts is told, a passing one is not."""
        for line in set(self._counts) - set(lines):
            if self._counts[line] < _ALARM_ENTRIES:
                del self._counts[line]
        for line in lines:
            self._counts[line] += 1
            if self._counts[line] == _ALARM_ENTRIES:
                tqdm.write(f"warning: {line}", file=sys.stderr)
                _log(self._folder, {"warning": line})

    @property
    def told(self) -> list[str]:
        """The alarms that lasted."""
        return [line for line, count in self._counts.items() if count >= _ALARM_ENTRIES]


def _log(folder: Path, entry: Mapping[str, Any]) -> None:
    with claim(folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
