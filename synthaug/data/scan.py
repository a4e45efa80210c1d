"""One scan over the images of a dataset: what they are, which are corrupt, their pixels and their hashes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from tqdm import tqdm

from synthaug.core import FailedError
from synthaug.data.caches import cache_folder, digest_files, keep_entry
from synthaug.data.codec import Codec, open_bytes, read_image_file, show, strict_decoding
from synthaug.data.columns import FileNames, iterate_images
from synthaug.data.statistics import ImageStatistics

__all__ = ["CorruptRow", "Scan", "empty_pixels", "sample_statistics", "scan_images"]

MEMORY_LIMIT = 512 * 2**20
"""Bytes of pixels up to which they stay in memory; beyond, they lie in a memory-mapped file."""

_SAMPLED = 64
_CACHE_VERSION = 3


@dataclass(frozen=True)
class CorruptRow:
    """A row whose image cannot be used, and why."""

    row: int
    reason: str


@dataclass(frozen=True)
class Scan:
    """What a scan found.

    Args:
        pixels: (N, H, W, C) uint8 of the rows that could be decoded, in RAM or memory-mapped.
        hashes: (N,) '<U64', their pixel hashes.
        rows: (N,) int64, their row numbers.
        corrupt: The rows that could not be decoded.
        codec: How the pixels were made.
        sizes: Number of images of each (width, height).
        modes: Number of images of each Pillow mode.
    """

    pixels: NDArray[np.uint8]
    hashes: NDArray[np.str_]
    rows: NDArray[np.int64]
    corrupt: tuple[CorruptRow, ...]
    codec: Codec
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]


def scan_images(
    dataset: Dataset,
    column: str,
    rows: NDArray[np.int64],
    *,
    image_size: int | None = None,
    codec: Codec | None = None,
) -> Scan:
    """Decode the images of `rows` once into pixels and hashes, and list those that cannot be decoded.

    The codec is guessed from a sample of the rows; where the scan shows that another one suits all of them,
    it runs a second time. Pixels of more than 512 MiB go to a memory-mapped file in the folder of the
    environment variable SYNTHAUG_CACHE (default ~/.cache/synthaug), and the next call reads them from there.

    Args:
        dataset: The dataset; only its own indices count.
        column: Name of the image column.
        rows: Row numbers to look at, ascending.
        image_size: Side of the pixels; None takes it from the data.
        codec: Used as it is, instead of one that follows from the data.

    Raises:
        FailedError: The disk has no room for the pixels.
    """
    subset = dataset if len(rows) == len(dataset) else dataset.select(rows)
    guess = codec or sample_statistics(subset, column).codec(image_size)
    if len(rows) * int(np.prod(guess.shape)) <= MEMORY_LIMIT:
        return _settled(subset, column, rows, guess, codec, image_size, None)

    def make(folder: Path) -> None:
        _write_entry(folder, _settled(subset, column, rows, guess, codec, image_size, folder))

    return _read_entry(keep_entry(_key(subset, column, rows, codec, image_size), make))


def sample_statistics(subset: Dataset, column: str) -> ImageStatistics:
    """Return what the headers of at most 64 images say, spread evenly over the rows.

    Args:
        subset: The rows.
        column: Name of the image column.
    """
    seen = ImageStatistics()
    positions = np.unique(np.linspace(0, max(len(subset) - 1, 0), _SAMPLED).astype(np.int64))[: len(subset)]
    with strict_decoding():
        for data, path in iterate_images(subset.select(positions), column):
            try:
                seen.add(open_bytes(data if path is None or data is not None else read_image_file(path), load=False))
            except Exception:  # the scan itself will list it
                continue
    return seen


def _settled(
    subset: Dataset,
    column: str,
    rows: NDArray[np.int64],
    guess: Codec,
    fixed: Codec | None,
    image_size: int | None,
    folder: Path | None,
) -> Scan:
    scan, seen = _decode(subset, column, rows, guess, folder)
    right = fixed or seen.codec(image_size)
    if right != guess:
        scan, _ = _decode(subset, column, rows, right, folder)
    return scan


def _decode(
    subset: Dataset, column: str, rows: NDArray[np.int64], codec: Codec, folder: Path | None
) -> tuple[Scan, ImageStatistics]:
    pixels = empty_pixels((len(rows), *codec.shape), folder)
    seen = ImageStatistics()
    hashes: list[str] = []
    kept: list[int] = []
    corrupt: list[CorruptRow] = []
    names = FileNames(subset, column)
    images: Iterable[tuple[bytes | None, str | None]] = iterate_images(subset, column)
    bar = tqdm(images, total=len(rows), desc="reading images", unit="", mininterval=0.5, leave=False, disable=None)
    with strict_decoding():
        for row, (data, path) in zip(rows.tolist(), bar, strict=True):
            try:
                image = open_bytes(data if path is None or data is not None else read_image_file(path))
                shown = show(image)
                pixels[len(kept)] = codec.encode_shown(shown)
                seen.add(image)
            except Exception as error:  # one bad image never ends the scan, whatever it makes Pillow raise
                corrupt.append(CorruptRow(row, names.explain(error, data, path)))
                continue
            hashes.append(shown.hash)
            kept.append(row)
    found = np.array(hashes, dtype="<U64"), np.array(kept, dtype=np.int64)
    scan = Scan(pixels[: len(kept)], *found, tuple(corrupt), codec, seen.sizes, seen.modes)
    return scan, seen


def empty_pixels(shape: tuple[int, ...], folder: Path | None = None) -> NDArray[np.uint8]:
    """Return room for pixels: in RAM up to the limit; beyond, in `folder`/pixels.npy or a temporary file."""
    size = int(np.prod(shape))
    if folder is None and size <= MEMORY_LIMIT:
        return np.empty(shape, dtype=np.uint8)
    place = cache_folder() if folder is None else folder
    free = shutil.disk_usage(place).free
    if size > free:
        raise FailedError(
            f"the decoded images need {size / 2**30:.1f} GiB but {str(place)!r} has {free / 2**30:.1f} GiB "
            "left; free some, name another folder in SYNTHAUG_CACHE, or take a smaller image_size"
        )
    if folder is not None:
        return np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    with tempfile.TemporaryFile(dir=place) as file:
        file.truncate(size)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


def _key(subset: Dataset, column: str, rows: NDArray[np.int64], codec: Codec | None, image_size: int | None) -> str:
    """Return what the pixels depend on: a fingerprint does not know what lies in files, of the dataset or of images."""
    named = (path for _, path in iterate_images(subset, column) if path is not None and Path(path).is_file())
    asked = [
        _CACHE_VERSION,
        pillow_version,
        subset._fingerprint,
        digest_files(file["filename"] for file in subset.cache_files),
        digest_files(named),
        column,
        image_size,
        codec and codec.to_dict(),
    ]
    return hashlib.sha256(json.dumps(asked).encode() + rows.tobytes()).hexdigest()[:32]


def _write_entry(folder: Path, scan: Scan) -> None:
    np.save(folder / "hashes.npy", scan.hashes)
    np.save(folder / "rows.npy", scan.rows)
    (folder / "scan.json").write_text(json.dumps(_describe(scan)))
    if isinstance(scan.pixels, np.memmap):
        scan.pixels.flush()


def _describe(scan: Scan) -> dict[str, Any]:
    return {
        "codec": scan.codec.to_dict(),
        "corrupt": [[bad.row, bad.reason] for bad in scan.corrupt],
        "sizes": [[*size, number] for size, number in scan.sizes.items()],
        "modes": dict(scan.modes),
    }


def _read_entry(entry: Path) -> Scan:
    told = json.loads((entry / "scan.json").read_text())
    rows, hashes = np.load(entry / "rows.npy"), np.load(entry / "hashes.npy")
    pixels = np.load(entry / "pixels.npy", mmap_mode="r")[: len(rows)]
    sizes = Counter({(width, height): number for width, height, number in told["sizes"]})
    corrupt = tuple(CorruptRow(*bad) for bad in told["corrupt"])
    return Scan(pixels, hashes, rows, corrupt, Codec.from_dict(told["codec"]), sizes, Counter(told["modes"]))
