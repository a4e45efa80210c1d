from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from synthaug.core import InputError
from synthaug.generation import encode_png
from synthaug.generation.png import FILTERS, pack_png

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
SHAPES = st.tuples(st.integers(1, 3), st.integers(8, 64), st.integers(8, 64), st.integers(1, 4))


def decode(file: bytes, channels: int) -> np.ndarray:
    image = Image.open(io.BytesIO(file))
    image.load()
    assert image.mode == MODES[channels]
    values = np.asarray(image)
    return values[..., None] if channels == 1 else values


@settings(deadline=None, max_examples=40)
@given(pixels=SHAPES.flatmap(lambda shape: arrays(np.uint8, shape)), name=st.sampled_from(["auto", *FILTERS]))
def test_pil_decodes_the_same_pixels(pixels, name):
    for file, image in zip(encode_png(pixels, row_filter=name), pixels, strict=True):
        np.testing.assert_array_equal(decode(file, pixels.shape[3]), image)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (64, 64), (9, 61), (127, 127)])
def test_smooth_and_noisy_images_survive(channels, size):
    ramp = np.add.outer(np.arange(size[0]), np.arange(size[1]))[None, :, :, None] * np.ones(channels)
    noise = np.random.default_rng(0).integers(0, 256, (1, *size, channels))
    pixels = np.concatenate([ramp * 2, ramp * 0 + 255, noise]).astype(np.uint8)
    for file, image in zip(encode_png(pixels), pixels, strict=True):
        np.testing.assert_array_equal(decode(file, channels), image)


def test_chunks_are_those_of_the_specification():
    (file,) = encode_png(np.full((1, 8, 12, 3), 7, np.uint8))
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    kinds, position = [], 8
    while position < len(file):
        (length,) = struct.unpack(">I", file[position : position + 4])
        kind, data = file[position + 4 : position + 8], file[position + 8 : position + 8 + length]
        (check,) = struct.unpack(">I", file[position + 8 + length : position + 12 + length])
        assert check == zlib.crc32(kind + data)
        if kind == b"IDAT":
            assert len(zlib.decompress(data)) == 8 * (1 + 12 * 3)  # zlib checks the Adler-32 sum
        kinds.append(kind)
        position += 12 + length
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_a_file_depends_on_its_own_pixels_only():
    pixels = np.random.default_rng(1).integers(0, 256, (6, 10, 8, 3)).astype(np.uint8)
    pixels[:3] = np.arange(8, dtype=np.uint8)[:, None] * 9
    together = encode_png(pixels)
    assert together == [encode_png(pixels[i : i + 1])[0] for i in range(6)]
    assert together == encode_png(np.asfortranarray(pixels))
    assert together == [row.tobytes() for row in pack_png(pixels)]


def test_the_filter_follows_the_data():
    ramp = np.broadcast_to(np.arange(0, 160, 10, dtype=np.uint8)[:, None], (16, 16, 1))
    images = np.stack([ramp, ramp.transpose(1, 0, 2), np.zeros_like(ramp)])
    for file, name in zip(encode_png(images), ["up", "sub", "none"], strict=True):
        assert file == encode_png(decode(file, 1)[None], row_filter=name)[0]


def test_no_images_give_no_files():
    assert encode_png(np.zeros((0, 8, 8, 1), np.uint8)) == []


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 8, 8), np.uint8),
        np.zeros((1, 8, 8, 5), np.uint8),
        np.zeros((1, 8, 8, 1), np.float32),
        np.zeros((1, 0, 8, 1), np.uint8),
        np.zeros((1, 256, 256, 1), np.uint8),
    ],
)
def test_bad_pixels_say_what_is_allowed(pixels):
    with pytest.raises(InputError, match=r"C from 1 to 4|at most 65535"):
        encode_png(pixels)


def test_unknown_filter():
    with pytest.raises(InputError, match=r"paeth.*none, sub, up"):
        encode_png(np.zeros((1, 8, 8, 1), np.uint8), row_filter="paeth")
