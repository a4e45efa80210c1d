"""One scan over the images of a dataset: what they are, which are corrupt, their pixels and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from PIL import Image
from PIL import __version__ as pillow_version
from tqdm import tqdm

from synthaug.codec import MIN_SIZE, Codec, canonical, has_alpha, hash_canonical, open_bytes, strict_decoding
from synthaug.columns import iterate_images
from synthaug.errors import FailedError

__all__ = ["CorruptRow", "Scan", "Statistics", "empty_pixels", "scan_images"]

MEMORY_LIMIT = 512 * 2**20
"""Bytes of pixels up to which they stay in memory; beyond, they lie in a memory-mapped file."""

DEFAULT_SIZE = 64
"""Largest size that is chosen when the user names none, in pixels."""

_SAMPLED = 64
_CACHE_VERSION = 1


@dataclass(frozen=True)
class CorruptRow:
    """A row whose image cannot be used, and why."""

    row: int
    reason: str


class Statistics:
    """Sizes, modes and value ranges of the images seen, from which the codec follows."""

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int, int, bool, bool]] = Counter()
        self._integers: tuple[float, float] | None = None
        self._floats: tuple[float, float] | None = None

    def add(self, image: Image.Image) -> None:
        """Count one image as its file stores it; only images of more than 8 bits need their pixels."""
        mode = image.mode
        self._seen[mode, image.width, image.height, has_alpha(image), _is_grey(image)] += 1
        if mode == "F":
            self._floats = _widen(self._floats, image)
        elif mode.startswith("I"):
            self._integers = _widen(self._integers, image)

    @property
    def sizes(self) -> Counter[tuple[int, int]]:
        """How many images have each (width, height) in pixels, as stored."""
        return self._count(lambda key: (key[1], key[2]))

    @property
    def modes(self) -> Counter[str]:
        """How many images have each Pillow mode."""
        return self._count(lambda key: key[0])

    def _count(self, part: Any) -> Counter[Any]:
        counter: Counter[Any] = Counter()
        for key, number in self._seen.items():
            counter[part(key)] += number
        return counter

    def codec(self, image_size: int | None = None) -> Codec:
        """Return the codec that suits all images seen.

        The size is the median of the shorter sides, within 8..64; the channels are grey where every image is
        grey, with alpha where every image has it; the value range of integer images is 0..2**k - 1, that of
        floating-point ones 0..1 or 0..255 where they fit, else what occurs.
        """
        shorter = Counter[int]()
        for (width, height), number in self.sizes.items():
            shorter[min(width, height)] += number
        common = statistics.median_low(shorter.elements()) if shorter else DEFAULT_SIZE
        grey = all(key[4] for key in self._seen) and bool(self._seen)
        alpha = all(key[3] for key in self._seen) and bool(self._seen)
        size = min(max(common, MIN_SIZE), DEFAULT_SIZE) if image_size is None else image_size
        return Codec(size, (1 if grey else 3) + alpha, self._value_range())

    def _value_range(self) -> tuple[float, float] | None:
        both = [pair for pair in (self._integers, self._floats) if pair is not None]
        if not both:
            return None
        low, high = min(pair[0] for pair in both), max(pair[1] for pair in both)
        if low >= 0 and self._floats is None:
            return 0.0, float(max(2 ** int(high).bit_length() - 1, 1))
        for limit in (1.0, 255.0):
            if low >= 0 and high <= limit:
                return 0.0, limit
        return low, high if high > low else low + 1.0


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("P", "PA") and image.palette is not None:
        return all(len(set(color[:3])) == 1 for color in image.palette.colors)
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _widen(bounds: tuple[float, float] | None, image: Image.Image) -> tuple[float, float]:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("pixels that are not finite numbers")
    return (low, high) if bounds is None else (min(low, bounds[0]), max(high, bounds[1]))


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
    guess = codec or _sampled(subset, column).codec(image_size)
    if len(rows) * int(np.prod(guess.shape)) <= MEMORY_LIMIT:
        return _settled(subset, column, rows, guess, codec, image_size, None)
    entry = _cache_folder() / _key(subset, column, rows, codec, image_size)
    if not entry.exists():
        _write_entry(entry, lambda folder: _settled(subset, column, rows, guess, codec, image_size, folder))
    return _read_entry(entry)


def _sampled(subset: Dataset, column: str) -> Statistics:
    statistics_ = Statistics()
    positions = np.unique(np.linspace(0, len(subset) - 1, _SAMPLED).astype(np.int64)) if len(subset) else []
    with strict_decoding():
        for data, path in iterate_images(subset.select(positions), column):
            try:
                statistics_.add(open_bytes(_read(data, path), load=False))
            except (ValueError, OSError):
                continue
    return statistics_


def _read(data: bytes | None, path: str | None) -> bytes | None:
    if data is not None or path is None:
        return data
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path!r}: {getattr(error, 'strerror', None) or error}") from None


def _settled(
    subset: Dataset,
    column: str,
    rows: NDArray[np.int64],
    guess: Codec,
    fixed: Codec | None,
    image_size: int | None,
    folder: Path | None,
) -> Scan:
    scan, statistics_ = _decode(subset, column, rows, guess, folder)
    right = fixed or statistics_.codec(image_size)
    if right != guess:
        scan, _ = _decode(subset, column, rows, right, folder)
    return scan


def _decode(
    subset: Dataset, column: str, rows: NDArray[np.int64], codec: Codec, folder: Path | None
) -> tuple[Scan, Statistics]:
    pixels = empty_pixels((len(rows), *codec.shape), folder)
    statistics_, hashes, kept, corrupt = Statistics(), [], [], []
    images: Iterable[tuple[bytes | None, str | None]] = iterate_images(subset, column)
    bar = tqdm(
        images, total=len(rows), desc="reading images", unit="", mininterval=0.5, leave=False, disable=None
    )
    with strict_decoding():
        for row, (data, path) in zip(rows.tolist(), bar, strict=True):
            try:
                image = open_bytes(_read(data, path))
                statistics_.add(image)
                shown = canonical(image)
                pixels[len(kept)] = codec.encode_canonical(shown)
            except (ValueError, OSError) as error:
                corrupt.append(CorruptRow(row, str(error)))
                continue
            hashes.append(hash_canonical(shown))
            kept.append(row)
    found = np.array(hashes, dtype="<U64"), np.array(kept, dtype=np.int64)
    scan = Scan(pixels[: len(kept)], *found, tuple(corrupt), codec, statistics_.sizes, statistics_.modes)
    return scan, statistics_


def empty_pixels(shape: tuple[int, ...], folder: Path | None = None) -> NDArray[np.uint8]:
    """Return room for pixels: in RAM up to the limit; beyond, in `folder`/pixels.npy or a temporary file."""
    size = int(np.prod(shape))
    if folder is None and size <= MEMORY_LIMIT:
        return np.empty(shape, dtype=np.uint8)
    place = _cache_folder() if folder is None else folder
    free = shutil.disk_usage(place).free
    if size > free:
        raise FailedError(
            f"the decoded images need {size / 2**30:.1f} GiB but {str(place)!r} has {free / 2**30:.1f} GiB "
            "left; free some, name another folder in SYNTHAUG_CACHE, or take a smaller image_size or limit_per_class"
        )
    if folder is not None:
        return np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    with tempfile.TemporaryFile(dir=place) as file:
        file.truncate(size)
        return np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)


def _cache_folder() -> Path:
    folder = Path(os.environ.get("SYNTHAUG_CACHE") or Path.home() / ".cache" / "synthaug").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FailedError(
            f"cannot make {str(folder)!r} ({error.strerror}); name a folder in SYNTHAUG_CACHE"
        ) from error
    return folder


def _key(
    subset: Dataset, column: str, rows: NDArray[np.int64], codec: Codec | None, image_size: int | None
) -> str:
    asked = [
        _CACHE_VERSION,
        pillow_version,
        subset._fingerprint,
        column,
        image_size,
        codec and codec.to_dict(),
    ]
    digest = hashlib.sha256(json.dumps(asked).encode() + rows.tobytes())
    for _, path in iterate_images(subset, column):
        if path is not None and Path(path).is_file():  # a fingerprint does not know what lies behind a path
            status = Path(path).stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def _write_entry(entry: Path, make: Callable[[Path], Scan]) -> None:
    folder = Path(tempfile.mkdtemp(prefix=".making-", dir=entry.parent))
    try:
        scan = make(folder)
        np.save(folder / "hashes.npy", scan.hashes)
        np.save(folder / "rows.npy", scan.rows)
        (folder / "scan.json").write_text(json.dumps(_describe(scan)))
        if isinstance(scan.pixels, np.memmap):
            scan.pixels.flush()
        try:
            folder.rename(entry)
        except OSError:
            if not entry.exists():  # else somebody else was faster, and theirs is as good
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
