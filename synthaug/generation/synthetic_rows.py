"""The stream of synthetic rows: the first accepted draws of each class, in draw order."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Features
from numpy.typing import NDArray

from synthaug.balance import BalancePlan
from synthaug.core import BLOCK_SIZE, FailedError
from synthaug.data import Codec, Columns, class_values, null_column
from synthaug.generation.blocks import Block, BlockPool, Key
from synthaug.generation.png import pack_png

__all__ = ["Origin", "SyntheticRows", "Tally", "encode_images"]


@dataclass
class Tally:
    """What became of the draws of one class, up to the last one that was needed."""

    drawn: int = 0
    accepted: int = 0
    rejected: dict[str, int] = field(default_factory=dict)

    def describe(self) -> str:
        """Return counts and reasons on one line."""
        rate = self.accepted / self.drawn if self.drawn else 0.0
        reasons = "".join(f", {count:,} rejected by {name}" for name, count in self.rejected.items() if count)
        return f"{self.accepted:,} of {self.drawn:,} draws accepted ({rate:.1%}{reasons})"


@dataclass(frozen=True)
class Origin:
    """What the rows say about where they come from.

    Args:
        generator: "family@version".
        checkpoint: sha256 of the weights.
        seed: Seed of the draws.
    """

    generator: str
    checkpoint: str
    seed: int


class SyntheticRows:
    """The synthetic rows by class and draw: the first accepted draws of each class, as many as it misses.

    Args:
        pool: Computes blocks.
        plan: What each class misses.
        class_names: Classes of the generator, by label.
        features: Features of the output.
        columns: Image and label column.
        origin: Content of the provenance column but the draw.
        codec: Says how the images of the dataset store their values; 8 bits when None.
        max_draws: Draws allowed in each class; None allows 20 times what it misses and 1,000.
        bar: Progress bar to move on.
    """

    def __init__(
        self,
        pool: BlockPool,
        plan: BalancePlan,
        *,
        class_names: list[str],
        features: Features,
        columns: Columns,
        origin: Origin,
        codec: Codec | None = None,
        max_draws: int | None = None,
        bar: Any = None,
    ) -> None:
        self._pool, self._codec, self._max_draws, self._bar = pool, codec, max_draws, bar
        self._classes = [(name, class_names.index(name), n) for name, n in plan.missing.items() if n]
        known = {"synthetic": True, "provenance": asdict(origin)}
        self._values = {name: {**class_values(features, columns, name), **known} for name, _, _ in self._classes}
        self._schema, self._columns = features.arrow_schema, columns  # made anew at each call of the property
        self._repeated: dict[str, dict[str, pa.Array]] = {}
        self._class, self._draw = 0, 0
        self._last: tuple[Key, Block] | None = None
        self.tallies: dict[str, Tally] = {}

    @property
    def num_rows(self) -> int:
        """Rows in all."""
        return sum(missing for _, _, missing in self._classes)

    def state(self) -> dict[str, Any]:
        """Return the class, the next draw and the tallies so far."""
        tallies = {
            name: {"drawn": t.drawn, "accepted": t.accepted, "rejected": dict(t.rejected)}
            for name, t in self.tallies.items()
        }
        return {"class": self._class, "draw": self._draw, "acceptance": tallies}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Go on at a class and draw."""
        self._class, self._draw = int(state["class"]), int(state["draw"])
        self.tallies = {
            name: Tally(t["drawn"], t["accepted"], dict(t["rejected"])) for name, t in state["acceptance"].items()
        }

    def read(self, count: int) -> Iterator[pa.Table]:
        """Yield the next `count` rows, block by block (none where the filter kept nothing).

        Raises:
            FailedError: If a class falls short of what it misses.
        """
        while count > 0:
            name, label, missing = self._classes[self._class]
            tally = self.tallies.setdefault(name, Tally())
            limit = self._max_draws or 20 * missing + 1000
            if self._draw >= limit:
                raise _shortfall(name, missing, tally, limit)
            number = self._draw // BLOCK_SIZE
            block = self._get((label, number), missing - tally.accepted)
            start = self._draw - number * BLOCK_SIZE
            kept = np.flatnonzero(block.kept[: max(0, min(BLOCK_SIZE, limit - number * BLOCK_SIZE))])
            chosen = kept[kept >= start][: min(count, missing - tally.accepted)]
            finished = len(chosen) == min(count, missing - tally.accepted)
            end = int(chosen[-1]) + 1 if finished else min(BLOCK_SIZE, limit - number * BLOCK_SIZE)
            tally.drawn += end - start
            tally.accepted += len(chosen)
            for reason, mask in block.rejected.items():
                tally.rejected[reason] = tally.rejected.get(reason, 0) + int(mask[start:end].sum())
            count -= len(chosen)
            first = int(np.count_nonzero(block.kept[:start]))
            pixels = block.pixels[first : first + len(chosen)]
            self._draw += end - start
            if tally.accepted == missing:
                self._class, self._draw = self._class + 1, 0
            self._show(name, tally, len(chosen))
            yield self._tabulate(name, pixels, number * BLOCK_SIZE + chosen)

    def _get(self, key: Key, needed: int) -> Block:
        # the limit of a shard often falls inside a block, which is then wanted twice in a row
        if self._last is None or self._last[0] != key:
            self._last = key, self._pool.get(key, self._upcoming(needed))
        return self._last[1]

    def _upcoming(self, needed: int) -> Iterator[Key]:
        """Yield the blocks that will be asked for whatever the filter says."""
        first = self._draw // BLOCK_SIZE
        for position in range(self._class, len(self._classes)):
            _, label, missing = self._classes[position]
            begin, rows = (first, needed + self._draw % BLOCK_SIZE) if position == self._class else (0, missing)
            for number in range(begin, begin + -(-rows // BLOCK_SIZE)):
                yield label, number

    def _show(self, name: str, tally: Tally, rows: int) -> None:
        if self._bar is not None:
            self._bar.update(rows)
            self._bar.set_postfix_str(f"{name!r}: {tally.accepted / tally.drawn:.0%} accepted", refresh=False)

    def _tabulate(self, name: str, pixels: NDArray[np.uint8], draws: NDArray[np.int64]) -> pa.Table:
        """Return rows of one class as they are written."""
        image, origin = self._schema.field(self._columns.image), self._schema.field("provenance")
        columns = {key: column.slice(0, len(draws)) for key, column in self._repeated_in(name).items()}
        parts = [draws if f.name == "draw" else columns[origin.name].field(f.name) for f in origin.type]
        columns[origin.name] = pa.StructArray.from_arrays(parts, fields=list(origin.type))
        columns[image.name] = encode_images(pixels, image.type, self._codec)
        return pa.Table.from_arrays([columns[key] for key in self._schema.names], schema=self._schema)

    def _repeated_in(self, name: str) -> dict[str, pa.Array]:
        """Return the columns that are the same in all rows of a class, a block long; of the last class, kept."""
        if name not in self._repeated:
            values = self._values[name]
            fields = [f for f in self._schema if f.name != self._columns.image]
            self._repeated = {name: {f.name: _repeat(values.get(f.name), f.type) for f in fields}}
        return self._repeated[name]


def encode_images(pixels: NDArray[np.uint8], kind: pa.StructType, codec: Codec | None = None) -> pa.StructArray:
    """Return pixels (N, H, W, C) uint8 as a column of image files, of the type that an `Image` feature has.

    Args:
        pixels: uint8.
        kind: Type of the column.
        codec: Says how the images of the dataset store their values; 8 bits when None. Floating-point and 32-bit
            images are TIFF files, all others PNG files.
    """
    if codec is not None and codec.depth not in ("uint8", "mixed"):
        data = pa.array([_encode_deep(codec, image) for image in pixels], pa.binary())
        return pa.StructArray.from_arrays([data, pa.nulls(len(data), pa.string())], fields=list(kind))
    files = pack_png(pixels)
    ends = np.arange(len(files) + 1, dtype=np.int32) * np.int32(files.shape[1])
    data = pa.Array.from_buffers(pa.binary(), len(files), [None, pa.py_buffer(ends), pa.py_buffer(files)])
    return pa.StructArray.from_arrays([data, pa.nulls(len(files), pa.string())], fields=list(kind))


def _encode_deep(codec: Codec, pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    codec.restore(pixels).save(file, "PNG" if codec.depth == "uint16" else "TIFF")
    return file.getvalue()


def _repeat(value: Any, kind: pa.DataType) -> pa.Array:
    """Return a value, or null, for every draw of a block."""
    return null_column(BLOCK_SIZE, kind) if value is None else pa.repeat(pa.scalar(value, kind), BLOCK_SIZE)


def _shortfall(name: str, missing: int, tally: Tally, limit: int) -> FailedError:
    if tally.accepted >= limit / 20:
        advice = "what was accepted is kept in an output folder: run it again with a larger max_draws="
    else:
        advice = "hardly any passes: fit longer, or generate anew with filter='none' and look"
    return FailedError(
        f"class {name!r} fell short of {missing:,} images: {tally.describe()}, and {limit:,} draws are the "
        f"limit; {advice}"
    )
