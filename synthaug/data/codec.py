"""From image files to pixels and back: one reading of every image mode, one size, one hash."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from synthaug.core import InputError

__all__ = [
    "DEPTHS",
    "FORMATS",
    "MAX_DECODED_BYTES",
    "MAX_SIZE",
    "MIN_SIZE",
    "SUFFIXES",
    "Codec",
    "Shown",
    "check_image_size",
    "decode_bytes",
    "find_depth",
    "has_alpha",
    "open_bytes",
    "pixel_hash",
    "read_image_file",
    "show",
    "strict_decoding",
    "to_pixels",
    "to_tensor",
]

_COMMON = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
_NOT_READ = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})
"""Formats that Pillow knows but cannot decode by itself; EPS would start another program."""

Image.init()
FORMATS = (*_COMMON, *(name for name in Image.OPEN if name not in {*_COMMON, *_NOT_READ}))
"""File formats that are read: those that Pillow decodes, the common ones first. Of animations and pages, the first."""

SUFFIXES = frozenset(end for end, name in Image.registered_extensions().items() if name in {*FORMATS, "MPO"})
"""Suffixes of image files, in lower case."""

MIN_SIZE, MAX_SIZE = 8, 1024
"""Smallest and largest `image_size`, in pixels."""

MAX_DECODED_BYTES = 200 * 2**20
"""Largest image that is decoded, in bytes: pixels x channels x depth as its header declares them, 50 million pixels in
colour. An image file may have as many bytes. Decoding and reading take up to six times as much memory."""

_BITS, _TILE = 258, (322, 323)
"""Tags of a TIFF: the bits of each channel; width and length of a tile, which is decoded whole."""

_ROWS = 256
"""Rows of an image whose values become 8 bits at a time: as float64 they take eight times the memory."""

DEPTHS = {"uint8": "8 bits", "uint16": "16 bits", "int32": "32 bits", "float32": "floating-point numbers"}
"""How images of a dataset store their values, and the words for it; "mixed" where they differ."""
_QUIET = threading.Lock()
"""Held while stderr leads nowhere."""

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Pillow's remarks go to stderr, line by line

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ORIENTED = frozenset({"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"})


def check_image_size(image_size: object) -> None:
    """Raise InputError unless `image_size` is an integer in [MIN_SIZE, MAX_SIZE]."""
    whole = isinstance(image_size, int) and not isinstance(image_size, bool)
    if not whole or not MIN_SIZE <= image_size <= MAX_SIZE:  # type: ignore[operator]
        raise InputError(f"image_size is {image_size!r}; give an integer from {MIN_SIZE} to {MAX_SIZE} pixels")


@contextmanager
def _without_messages() -> Iterator[None]:
    """Keep off stderr what libtiff writes there by itself: the reason of a corrupt row says it in one line."""
    with _QUIET:
        try:
            kept = os.dup(2)
        except OSError:  # there is no stderr
            yield
            return
        nothing = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nothing, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nothing)


@contextmanager
def strict_decoding() -> Iterator[None]:
    """Turn Pillow's decompression-bomb warning into an error and keep its other warnings off stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_bytes(data: bytes | None, *, load: bool = True) -> Image.Image:
    """Open an image file's bytes; call it inside `strict_decoding`, once for many images.

    Args:
        data: The bytes of the file.
        load: Decode the pixels too; else only the header is read.

    Raises:
        ValueError: With a short reason, whatever is wrong with the bytes.
    """
    if not data:
        raise ValueError("no image" if data is None else "empty bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if _count_bytes(image) > MAX_DECODED_BYTES:
            raise Image.DecompressionBombError
        if load:
            with _without_messages() if image.format == "TIFF" else nullcontext():
                image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = MAX_DECODED_BYTES // 2**20
        raise ValueError(f"decompression bomb: more pixels than an image may have ({most} MiB decoded)") from None
    except UnidentifiedImageError:
        raise ValueError("not a PNG, JPEG, WebP, BMP, GIF, TIFF or other image that Pillow reads") from None
    except Exception as error:  # hostile bytes make Pillow's readers raise nearly anything
        raise ValueError(f"broken image file ({_first_line(error)})") from None
    return image


def _count_bytes(image: Image.Image) -> int:
    """Return how many bytes the pixels take when they are decoded, as the header declares them."""
    pixels, depth = image.width * image.height, 1 if image.mode in ("1", "L", "P") else 4
    tags = getattr(image, "tag_v2", {})
    if tags:
        width, length = (int(tags.get(tag, 0)) for tag in _TILE)
        pixels, depth = max(pixels, width * length), max(depth, sum(tags.get(_BITS, ())) // 8)
    return pixels * depth


def read_image_file(path: str | Path) -> bytes:
    """Return the bytes of an image file that a row names.

    Raises:
        ValueError: With a short reason that does not name the path: no regular file, too large, or not readable.
    """
    try:
        file = Path(path)
        if not file.is_file():  # a pipe or a device would never end
            raise ValueError("no such file")
        if file.stat().st_size > MAX_DECODED_BYTES:
            raise ValueError(f"a file of more than {MAX_DECODED_BYTES // 2**20} MiB")
        return file.read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:120]


def decode_bytes(data: bytes | None) -> Image.Image:
    """Return the decoded image of a PNG, JPEG, WebP, BMP, GIF or TIFF file.

    Raises:
        ValueError: With a short reason: empty, of another format, broken, or a decompression bomb.
    """
    with strict_decoding():
        return open_bytes(data)


def find_depth(image: Image.Image) -> str:
    """Return how an image, as its file stores it, holds its values: one of `DEPTHS`."""
    if image.mode == "F":
        return "float32"
    if not image.mode.startswith("I"):
        return "uint8"
    return "uint16" if image.mode.startswith("I;16") or image.format == "PNG" else "int32"


def has_alpha(image: Image.Image) -> bool:
    """Return whether the file carries transparency, whatever its mode."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def _upright(image: Image.Image) -> Image.Image:
    # reading EXIF costs as much as decoding a small image, so only where there may be some
    if image.format == "TIFF" or not _ORIENTED.isdisjoint(image.info):
        return ImageOps.exif_transpose(image)
    return image


def _plain_mode(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I"):
        return image if mode == "I" else image.convert("I")
    if mode == "F":
        return image
    if has_alpha(image):
        return image.convert("LA" if mode in ("1", "L", "LA", "La") else "RGBA")
    if mode == "1":
        return image.convert("L")
    return image if mode in ("L", "RGB") else image.convert("RGB")


@dataclass(frozen=True, slots=True)
class Shown:
    """An image as it shows: upright, in the plainest mode that holds it, with its pixels as bytes.

    Args:
        image: Mode L, LA, RGB, RGBA, I (more than 8 bits) or F.
        data: ``image.tobytes()``, kept because hash and codec both need it and small images cost by the call.
    """

    image: Image.Image
    data: bytes

    @property
    def hash(self) -> str:
        """The sha256 (hex) of mode, size and pixels."""
        header = f"{self.image.mode} {self.image.width}x{self.image.height}\n".encode()
        return hashlib.sha256(header + self.data).hexdigest()


def show(image: Image.Image) -> Shown:
    """Return what an image of any mode shows, the same for whatever way of storing it.

    Palettes and bitmaps become what they show, an opaque alpha channel is dropped and a colour image whose
    channels are equal becomes grey. Integer images of more than 8 bits become I, floating-point ones F.
    """
    image = _plain_mode(_upright(image))
    if image.mode in ("LA", "RGBA") and image.getchannel("A").getextrema()[0] == 255:
        image = image.convert(image.mode[:-1])
    data = image.tobytes()
    if image.mode in ("RGB", "RGBA"):
        step = len(image.mode)
        red = data[0::step]
        if red == data[1::step] and red == data[2::step]:
            if step == 3:
                return Shown(image.getchannel(0), red)
            image = Image.merge("LA", (image.getchannel(0), image.getchannel(3)))
            data = image.tobytes()
    return Shown(image, data)


def pixel_hash(image: Image.Image) -> str:
    """Return the sha256 (hex) of the decoded pixels and the size, the same for whatever way of storing them.

    Args:
        image: Any mode, at its original size; it is hashed as it shows.

    Example:
        >>> from PIL import Image
        >>> grey = Image.new("L", (4, 4), 7)
        >>> pixel_hash(grey) == pixel_hash(grey.convert("RGBA"))
        True
    """
    return show(image).hash


@dataclass(frozen=True)
class Codec:
    """How images become pixels: the same for real, synthetic and test rows.

    Args:
        image_size: Side of the square that comes out, in pixels, MIN_SIZE to MAX_SIZE.
        channels: 1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha.
        value_range: Values of images of more than 8 bits that become 0 and 255; None takes 0..65535 for
            integer images and 0..1 (or 0..255, where it does not fit) for floating-point ones.
        depth: How the images store their values: one of `DEPTHS`, or "mixed". Images of one channel alone can have
            more than 8 bits.

    Raises:
        InputError: An argument is out of range.
    """

    image_size: int
    channels: int
    value_range: tuple[float, float] | None = None
    depth: str = "uint8"

    def __post_init__(self) -> None:
        if self.depth not in (*DEPTHS, "mixed"):
            raise InputError(f"depth is {self.depth!r}; give one of {', '.join(DEPTHS)} or mixed")
        check_image_size(self.image_size)
        if self.channels not in _MODES:
            raise InputError(f"channels is {self.channels!r}; give 1 (grey), 2, 3 (colour) or 4 (with alpha)")
        if self.value_range is None:
            return
        low, high = self.value_range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"value_range is {self.value_range!r}; give two finite numbers, the smaller one first")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of what comes out."""
        return self.image_size, self.image_size, self.channels

    def encode(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the pixels of an image: upright, shorter side resized, centre crop.

        Args:
            image: Any mode, any size.

        Returns:
            (image_size, image_size, channels) uint8. Transparency is kept with 2 or 4 channels and laid
            over white otherwise.

        Raises:
            ValueError: The image holds numbers that are not finite.
        """
        return self.encode_shown(show(image))

    def encode_shown(self, shown: Shown) -> NDArray[np.uint8]:
        """Return `encode` of an image that `show` returned."""
        image, mode = shown.image, _MODES[self.channels]
        if image.mode == mode and image.size == (self.image_size, self.image_size):
            return np.frombuffer(shown.data, dtype=np.uint8).reshape(self.shape)
        if image.mode in ("I", "F"):
            image = self._to_8_bits(shown)
        if image.mode in ("LA", "RGBA") and self.channels in (1, 3):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode != mode:
            image = image.convert(mode)
        return np.asarray(_square(image, self.image_size)).reshape(self.shape)

    def _to_8_bits(self, shown: Shown) -> Image.Image:
        kind = np.int32 if shown.image.mode == "I" else np.float32
        values = np.frombuffer(shown.data, dtype=kind).reshape(shown.image.height, shown.image.width)
        smallest, largest = float(values.min()), float(values.max())  # not a number is the least and the most
        if not math.isfinite(smallest) or not math.isfinite(largest):
            raise ValueError("pixels that are not finite numbers")
        low, high = self.value_range or (0.0, 65535.0)
        if self.value_range is None and shown.image.mode == "F":
            high = 1.0 if largest <= 1.0 else 255.0
        scaled = np.empty(values.shape, dtype=np.uint8)
        for row in range(0, len(values), _ROWS):
            part = values[row : row + _ROWS].astype(np.float64)
            scaled[row : row + _ROWS] = np.rint(np.clip((part - low) / (high - low), 0.0, 1.0) * 255.0)
        return Image.fromarray(scaled)

    def restore(self, pixels: NDArray[np.uint8]) -> Image.Image:
        """Return pixels (H, W, C) as an image that stores its values as the images of the dataset do.

        The inverse of `encode` for images of this size, in 256 levels: ``low + pixel / 255 * (high - low)``.

        Args:
            pixels: uint8.
        """
        flat = pixels[..., 0] if pixels.shape[2] == 1 else pixels
        if self.depth in ("uint8", "mixed"):
            return Image.fromarray(np.ascontiguousarray(flat))
        low, high = self.value_range or (0.0, 65535.0)
        values = low + flat.astype(np.float64) / 255.0 * (high - low)
        return Image.fromarray((values if self.depth == "float32" else np.rint(values)).astype(self.depth))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-friendly description; `from_dict` reads it."""
        value_range = None if self.value_range is None else list(self.value_range)
        return {**asdict(self), "value_range": value_range}

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Codec:
        """Return the codec that `to_dict` described."""
        value_range = description.get("value_range")
        pair = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        return cls(description["image_size"], description["channels"], pair, description.get("depth", "uint8"))


def _square(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side and crop the centre in one step, so that a thin image never blows up."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    if side == size:
        if width == height:
            return image
        return image.crop((int(left), int(top), int(left) + size, int(top) + size))
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def to_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Return pixels (N, H, W, C) uint8 as images (N, C, H, W) float32 in [-1, 1]: ``x / 127.5 - 1``."""
    values = np.asarray(pixels).transpose(0, 3, 1, 2).astype(np.float32, order="C")
    return torch.from_numpy(values).div_(127.5).sub_(1.0)


def to_pixels(images: Tensor) -> NDArray[np.uint8]:
    """Return images (N, C, H, W) float in [-1, 1] as pixels (N, H, W, C) uint8: ``round(127.5 (x + 1))``."""
    values = (images.detach().float() + 1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return np.asarray(values.permute(0, 2, 3, 1).contiguous().cpu().numpy())
