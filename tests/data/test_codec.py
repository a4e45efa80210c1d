"""Every mode, size and orientation becomes the same pixels; hostile bytes become a short reason."""

import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image, ImageDraw

from synthaug.core import InputError
from synthaug.data import Codec, decode_bytes, to_pixels, to_tensor
from synthaug.data.codec import check_image_size, pixel_hash, show


def encode_file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(width=16, height=16):
    return Image.fromarray(np.linspace(0, 255, width * height).astype(np.uint8).reshape(height, width))


def colours():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :, 0], pixels[8:, :, 1], pixels[:, 8:, 2] = 200, 150, 90
    return Image.fromarray(pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I;16B", "I", "F"]
)
def test_every_mode_has_the_asked_shape(mode, channels):
    base = ramp() if mode.startswith("I") or mode == "F" else colours()
    source = base.convert("I").convert(mode) if mode.startswith("I;") else base.convert(mode)
    pixels = Codec(8, channels, (0, 255)).encode(source)
    assert pixels.shape == (8, 8, channels) and pixels.dtype == np.uint8
    assert pixels[..., 0].std() > 10  # something of the picture is left
    if channels in (2, 4):
        assert (pixels[..., -1] == 255).all()


def test_matching_size_is_kept_to_the_bit():
    image = colours()
    assert (Codec(16, 3).encode(image) == np.asarray(image)).all()
    assert (Codec(16, 1).encode(ramp())[..., 0] == np.asarray(ramp())).all()


def test_16_bit_png_is_not_saturated():
    values = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    image = decode_bytes(encode_file(Image.fromarray(values)))
    assert image.mode.startswith("I")
    pixels = Codec(16, 1, (0, 4095)).encode(image)[..., 0]
    assert (pixels == np.rint(values / 4095 * 255)).all()
    assert len(np.unique(pixels)) > 200


def test_float_image_follows_the_value_range():
    image = Image.fromarray(np.linspace(-2, 2, 64, dtype=np.float32).reshape(8, 8))
    pixels = Codec(8, 1, (-2, 2)).encode(image)
    assert pixels.min() == 0 and pixels.max() == 255
    with pytest.raises(ValueError, match="finite"):
        Codec(8, 1).encode(Image.fromarray(np.full((8, 8), np.nan, np.float32)))


def test_alpha_is_kept_or_laid_over_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (Codec(8, 3).encode(clear) == 255).all()
    assert (Codec(8, 1).encode(clear) == 255).all()
    assert (Codec(8, 4).encode(clear)[..., 3] == 0).all()
    half = Codec(8, 3).encode(Image.new("RGBA", (8, 8), (0, 0, 0, 128)))
    assert (half == 127).all()


def test_palette_with_transparency_shows_what_it_means():
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 255, 0, 255, 0, 0])
    data = encode_file(image, transparency=1)
    opened = decode_bytes(data)
    assert opened.mode == "P"
    assert (Codec(8, 3).encode(opened) == 255).all()
    assert pixel_hash(opened) == pixel_hash(opened.convert("RGBA"))


def test_rgb_png_with_a_transparent_colour():
    image = Image.new("RGB", (8, 8), (9, 8, 7))
    opened = decode_bytes(encode_file(image, transparency=(9, 8, 7)))
    assert (Codec(8, 3).encode(opened) == 255).all()


def test_cmyk_jpeg_is_read_as_colour():
    red = decode_bytes(encode_file(Image.new("RGB", (16, 16), (220, 20, 20)).convert("CMYK"), "JPEG"))
    assert red.mode == "CMYK"
    assert np.abs(Codec(16, 3).encode(red).astype(int) - [220, 20, 20]).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied(kind):
    image = Image.new("L", (16, 16))
    ImageDraw.Draw(image).rectangle((0, 0, 7, 15), fill=255)  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned clockwise: top half white
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    opened = decode_bytes(encode_file(image.convert("RGB"), kind, exif=exif, **options))
    pixels = Codec(16, 1).encode(opened)[..., 0]
    assert pixels[:7].min() > 200 and pixels[9:].max() < 50
    assert show(opened).image.size == (16, 16)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 9), (64, 31)])
def test_odd_sizes_are_cropped_in_the_middle(size):
    assert Codec(8, 3).encode(Image.new("RGB", size, (10, 20, 30))).tolist() == [[[10, 20, 30]] * 8] * 8


def test_centre_crop_takes_the_centre():
    image = Image.new("L", (48, 16), 0)
    ImageDraw.Draw(image).rectangle((16, 0, 31, 15), fill=255)
    assert (Codec(16, 1).encode(image) == 255).all()
    assert (Codec(8, 1).encode(image)[:, 1:-1] > 250).all()


def test_downscaling_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    pixels = Codec(8, 1).encode(Image.fromarray(stripes)).astype(int)
    assert np.abs(pixels - 127).max() < 20


def good_png():
    return encode_file(colours())


def bomb():
    """A small file that unfolds to 100 million pixels: only the warning limit of Pillow is passed."""
    return encode_file(Image.new("1", (10000, 10000)), "PNG")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no image"),
        (b"", "empty bytes"),
        (b"<html><body>404</body></html>", "not a PNG"),
        (good_png()[:60], "broken"),
        (good_png()[:-30], "broken"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "broken|not a PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a PNG"),
        (encode_file(colours(), "JPEG")[:300], "broken"),
    ],
)
def test_bad_bytes_are_a_short_reason(data, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        decode_bytes(data)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_decompression_bomb_is_an_error_and_not_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="bomb"):
            decode_bytes(bomb())


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=40), st.integers(0, 500), st.booleans())
def test_damaged_files_only_ever_raise_value_error(noise, position, jpeg):
    data = encode_file(colours(), "JPEG" if jpeg else "PNG")
    position %= len(data)
    try:
        image = decode_bytes(data[:position] + noise + data[position + len(noise) :])
    except ValueError:
        return
    assert image.size[0] > 0


def test_hash_is_of_what_the_image_shows():
    grey = ramp()
    same = [grey, grey.convert("RGB"), grey.convert("RGBA"), grey.convert("LA"), grey.convert("P")]
    same += [decode_bytes(encode_file(grey, kind)) for kind in ("PNG", "BMP", "GIF", "TIFF")]
    assert len({pixel_hash(image) for image in same}) == 1
    bits = ramp().convert("1")
    assert pixel_hash(bits) == pixel_hash(bits.convert("L"))
    assert len(pixel_hash(grey)) == 64


def test_hash_tells_pixels_size_and_transparency_apart():
    different = [
        ramp(16, 16), ramp(8, 32), ramp(32, 8), colours(), colours().rotate(90),
        Image.new("LA", (16, 16), (0, 9)), Image.new("L", (16, 16)),
        Image.new("RGBA", (16, 16), (1, 0, 0, 9)),
        Image.fromarray(np.zeros((16, 16), np.float32)), Image.fromarray(np.zeros((16, 16), np.uint16)),
    ]  # fmt: skip
    assert len({pixel_hash(image) for image in different}) == len(different)


def test_hash_of_a_rotated_file_is_that_of_the_rotated_image():
    exif = Image.Exif()
    exif[0x0112] = 6
    opened = decode_bytes(encode_file(colours(), exif=exif))
    assert pixel_hash(opened) == pixel_hash(colours().transpose(Image.Transpose.ROTATE_270))


@pytest.mark.parametrize("value_range", [None, (0.0, 4095.0)])
def test_codec_survives_json(value_range):
    import json

    codec = Codec(32, 3, value_range)
    assert Codec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec


@pytest.mark.parametrize("bad", [0, -1, 7, 100_000, 8.0, True, "32", None])
def test_image_size_is_checked(bad):
    with pytest.raises(InputError, match=r"image_size is .* give an integer from 8"):
        check_image_size(bad)
    with pytest.raises(InputError):
        Codec(bad, 3)


@pytest.mark.parametrize("arguments", [(8, 5), (8, 0), (8, 1, (1.0, 1.0)), (8, 1, (0.0, float("inf")))])
def test_codec_refuses_nonsense(arguments):
    with pytest.raises(InputError):
        Codec(*arguments)


def test_tensors_and_pixels_are_inverse():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    images = to_tensor(pixels)
    assert images.shape == (1, 3, 16, 16) and images.dtype == torch.float32
    assert images.min() == -1 and images.max() == 1
    assert (to_pixels(images) == pixels).all()
    assert (to_pixels(torch.full((1, 1, 8, 8), 7.0)) == 255).all()
    assert (to_pixels(torch.full((1, 1, 8, 8), -7.0)) == 0).all()
