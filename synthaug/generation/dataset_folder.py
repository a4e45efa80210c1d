"""The shards of a dataset folder, listed in a manifest and resumed after an interruption.

While a folder is written everything lies in its hidden part ``.partial/``; a finished folder got its
``data/`` by one rename and its ``manifest.json`` last.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from synthaug.core import (
    FailedError,
    InputError,
    StoppedError,
    claim,
    compare_arguments,
    hash_file,
    is_listed,
    move_folder,
    publish,
    remove,
    temporary_name,
    write_file,
)
from synthaug.generation.shards import ROWS_PER_SHARD, UNIT_ROWS, ShardWriter

__all__ = ["RowStream", "ShardFolder", "is_finished", "read_earlier"]

_PARTIAL = ".partial"


class RowStream(Protocol):
    """Rows in a fixed order that can be taken up again at any point it has passed."""

    @property
    def num_rows(self) -> int:
        """Rows in all."""

    def read(self, count: int) -> Iterator[pa.Table]:
        """Yield the next `count` rows as tables of at most some hundred."""

    def state(self) -> dict[str, Any]:
        """Return, JSON-friendly, where the stream stands after the rows yielded last."""

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on from a state returned earlier."""


def is_finished(folder: str | Path) -> bool:
    """Tell whether a dataset folder was written to its end."""
    return (Path(folder) / "manifest.json").is_file()


class ShardFolder:
    """A dataset folder being written, resumed or found finished; use it in an open `OutputFolder`.

    Args:
        folder: The output folder.
        arguments: JSON-friendly values that decide the content; the same ones resume or find it finished.

    Raises:
        InputError: If the shards were made with other arguments.
    """

    def __init__(self, folder: Path, arguments: Mapping[str, Any]) -> None:
        self.folder = folder
        given = json.loads(json.dumps(dict(arguments)))  # compare what JSON keeps: tuples become lists
        found = _read_manifest(folder)
        if found is not None:
            compare_arguments(folder, found["arguments"], given)
        self.manifest: dict[str, Any] = found or {
            "format": 1,
            "arguments": given,
            "shards": [],
            "pending": None,
        }

    @property
    def finished(self) -> bool:
        """True as long as the manifest is there and every shard is what it says."""
        return is_finished(self.folder) and all(self._verify(entry) for entry in self.manifest["shards"])

    @property
    def data(self) -> Path:
        """Where the shards lie at present."""
        final = self.folder / "data"
        return final if final.is_dir() else self.folder / _PARTIAL / "data"

    def paths(self, split: str) -> list[Path]:
        """Return the shards of a split, in order."""
        return [self.data / e["file"] for e in self.manifest["shards"] if e["split"] == split]

    def last_state(self, split: str) -> dict[str, Any]:
        """Return the state of a split's last stream at its end."""
        return dict([e for e in self.manifest["shards"] if e["split"] == split][-1]["state"])

    def read_rows(self, split: str, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Return some columns of the rows with these ascending numbers, reading only their row groups."""
        wanted, tables, first = list(rows), [], 0
        for path in self.paths(split):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                inside = [row - first for row in wanted if first <= row < first + count]
                if inside:
                    tables.append(file.read_row_group(group, columns=list(columns)).take(inside))
                first += count
        return pa.concat_tables(tables) if tables else pa.table({})

    def write(
        self,
        splits: Mapping[str, Sequence[RowStream]],
        schema: pa.Schema,
        *,
        rows_per_shard: int = ROWS_PER_SHARD,
        stopped: Callable[[], int] = lambda: 0,
    ) -> None:
        """Write every shard that is not there yet, or not as it should be.

        Args:
            splits: Split name -> the streams whose rows it holds, one after the other.
            schema: Of every shard.
            rows_per_shard: Rows after which a stream begins its next shard.
            stopped: Number of a stop signal that came, else 0; looked at after every table.

        Raises:
            StoppedError: After a signal, with the rows so far kept.
            FailedError: As raised by a stream, with the rows so far kept.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        for entry, stream in self._missing_shards(splits, rows_per_shard):
            temporary = temporary_name(claim(self.data / entry["file"], replace=True))
            with ShardWriter(temporary, schema) as writer:
                rows, failure = self._fill(writer, entry, stream, stopped)
            if rows < entry["rows"]:
                self._keep_pending(entry, temporary, stream.state(), rows)
                if failure is None or stopped():  # which may have ended the worker processes too
                    raise self._stopped(stopped()) from None
                raise failure
            self._record(entry, temporary, stream.state())
            if signal_number := stopped():
                raise self._stopped(signal_number)

    def finish(self) -> None:
        """Make the folder a finished one; its other files must be there already."""
        if not (self.folder / "data").is_dir():
            move_folder(self.folder / _PARTIAL / "data", self.folder / "data")
        self.manifest["pending"] = None
        write_file(self.folder / "manifest.json", _dump(self.manifest))
        for path in (self._pending, self.folder / _PARTIAL / "manifest.json"):
            remove(path)

    def _missing_shards(
        self, splits: Mapping[str, Sequence[RowStream]], rows_per_shard: int
    ) -> Iterator[tuple[dict[str, Any], RowStream]]:
        """Yield each shard that is not there, and the stream of its rows at its place."""
        known = {entry["file"]: entry for entry in self.manifest["shards"]}
        for split, streams in splits.items():
            sizes = [_cut(stream.num_rows, rows_per_shard) for stream in streams]
            total, number = max(1, sum(map(len, sizes))), 0
            if not any(sizes):
                sizes[0] = [0]
            for stream, parts in zip(streams, sizes, strict=True):
                for rows in parts:
                    name = f"{split}-{number:05d}-of-{total:05d}.parquet"
                    number += 1
                    if name in known and self._verify(known[name]):
                        stream.seek(known[name]["state"])
                        continue
                    yield {"file": name, "split": split, "rows": rows}, stream

    def _fill(
        self,
        writer: ShardWriter,
        entry: Mapping[str, Any],
        stream: RowStream,
        stopped: Callable[[], int],
    ) -> tuple[int, FailedError | StoppedError | None]:
        """Write the rows of a shard, up to a signal or what the stream fails with; return their number and that."""
        done = self._restore_pending(entry, stream, writer)
        try:
            for rows in stream.read(entry["rows"] - done):
                writer.write(rows)
                done += len(rows)
                if stopped() and done < entry["rows"]:
                    break
        except (FailedError, StoppedError) as error:
            return done, error
        return done, None

    def _stopped(self, signal_number: int) -> StoppedError:
        return StoppedError(
            f"stopped by {signal.Signals(signal_number).name}; the rows so far are kept in {str(self.folder)!r}: "
            "run the same command again to go on",
            signal_number,
        )

    def _record(self, entry: dict[str, Any], temporary: Path, state: Mapping[str, Any]) -> None:
        entry |= {"bytes": temporary.stat().st_size, "sha256": hash_file(temporary), "state": dict(state)}
        publish(temporary, self.data / entry["file"], entry["sha256"])
        others = [other for other in self.manifest["shards"] if other["file"] != entry["file"]]
        self.manifest["shards"] = sorted([*others, entry], key=lambda e: e["file"])
        begun = self.manifest["pending"]
        done = begun is not None and begun["shard"] == entry["file"]
        if done:
            self.manifest["pending"] = None
        self._save()
        if done:
            remove(self._pending)

    @property
    def _pending(self) -> Path:
        return self.folder / _PARTIAL / "pending.parquet"

    def _keep_pending(self, entry: Mapping[str, Any], temporary: Path, state: Mapping[str, Any], rows: int) -> None:
        publish(temporary, claim(self._pending, replace=True))
        self.manifest["pending"] = {
            "shard": entry["file"],
            "rows": rows,
            "bytes": self._pending.stat().st_size,
            "sha256": hash_file(self._pending),
            "state": dict(state),
        }
        self._save()

    def _restore_pending(self, entry: Mapping[str, Any], stream: RowStream, writer: ShardWriter) -> int:
        """Take up the rows that an interrupted command had for this shard; return how many."""
        kept = self.manifest["pending"]
        if kept is None or kept["shard"] != entry["file"] or not _matches(self._pending, kept):
            return 0
        for batch in pq.ParquetFile(self._pending).iter_batches(batch_size=UNIT_ROWS):
            writer.write(pa.Table.from_batches([batch]))
        stream.seek(kept["state"])
        return int(kept["rows"])

    def _verify(self, entry: Mapping[str, Any]) -> bool:
        return _matches(self.data / entry["file"], entry)

    def _save(self) -> None:
        write_file(self.folder / _PARTIAL / "manifest.json", _dump(self.manifest))


def read_earlier(folder: Path) -> tuple[dict[str, Any], bool] | None:
    """Return the arguments of a dataset folder without a mark and whether it is finished; None where there are none.

    Raises:
        InputError: If its manifest cannot be read.
    """
    found = _read_manifest(folder)
    return None if found is None else (dict(found["arguments"]), is_finished(folder))


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    partial, final = folder / _PARTIAL / "manifest.json", folder / "manifest.json"
    for path in ([partial] if is_listed(partial) else []) + [final]:
        if path.is_file():
            with contextlib.suppress(ValueError):
                return dict(json.loads(path.read_text(encoding="utf-8")))
            raise InputError(f"{str(path)!r} is not readable; remove it and run the same command again")
    return None


def _cut(rows: int, size: int) -> list[int]:
    return [min(size, rows - start) for start in range(0, rows, size)]


def _matches(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"] and hash_file(path) == entry["sha256"]


def _dump(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
