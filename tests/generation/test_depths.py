"""Synthetic images store their values as the real ones do, or are not mixed with them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, load_dataset
from PIL import Image as PillowImage

import synthaug
from synthaug import InputError
from synthaug.balance import make_plan
from synthaug.data import Codec
from synthaug.data.codec import find_depth
from synthaug.loaders.image_types import read_pixels

KINDS = {
    "uint16": (np.uint16, 4095, "PNG"),
    "int32": (np.int32, 2**17 - 1, "TIFF"),
    "float32": (np.float32, 1.0, "TIFF"),
    "uint8": (np.uint8, 255, "PNG"),
}


def picture(row: int, depth: str) -> bytes:
    """A grey ramp that fills the range of its depth."""
    kind, top, form = KINDS[depth]
    ramp = np.linspace(0, 1, 64).reshape(8, 8)
    values = np.roll(ramp, row % 8, axis=row % 2) * top
    file = io.BytesIO()
    PillowImage.fromarray(np.asarray(values if kind is np.float32 else np.rint(values), kind)).save(file, form)
    return file.getvalue()


def rows(*depths: str) -> Dataset:
    images = [{"bytes": picture(row, depths[row % len(depths)]), "path": None} for row in range(24)]
    labels = [row % 2 for row in range(24)]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"image": images, "label": labels}, features=features)


def fit(real: Dataset, folder):
    return synthaug.fit(real, "cvae", output=folder / "run", images=64, width=8, latent_dim=4, sampling="prior")


@pytest.mark.parametrize("depth", KINDS)
def test_synthetic_rows_have_depth_and_range_of_the_real_ones(depth, tmp_path, capsys):
    real = rows(depth)
    generator = fit(real, tmp_path)
    out = tmp_path / "out"
    synthaug.generate(generator, make_plan({"a": 12, "b": 9}, "majority"), filter="none", mix_with=real, output=out)
    mixed = load_dataset(str(out), split="train")
    images = [
        PillowImage.open(io.BytesIO(row["bytes"])) for row in mixed.cast_column("image", Image(decode=False))["image"]
    ]
    synthetic = [image for image, made in zip(images, mixed["synthetic"], strict=True) if made]
    kind, top, form = KINDS[depth]
    assert len(synthetic) == 3
    for image in synthetic:
        assert find_depth(image) == depth and image.format == form and np.asarray(image).dtype == kind
        assert 0 <= np.asarray(image).min() < np.asarray(image).max() <= top
    assert max(float(np.asarray(image).max()) for image in synthetic) > top / 4  # on the scale of the real rows
    told = "store" in (out / "README.md").read_text() and "256 levels" in capsys.readouterr().err
    assert told == (depth != "uint8")
    codec = synthaug.load_images(mixed.remove_columns(["synthetic", "provenance"])).codec
    assert codec.depth == depth and Codec.from_dict(codec.to_dict()) == codec


@pytest.mark.parametrize("depth", KINDS)
def test_restoring_is_the_inverse_of_encoding(depth):
    _, top, _ = KINDS[depth]
    codec = Codec(16, 1, None if depth == "uint8" else (0.0, float(top)), depth)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (codec.encode(codec.restore(pixels)) == pixels).all()


def test_rows_of_another_depth_are_not_mixed(tmp_path):
    deep, plain = rows("uint16"), rows("uint8")
    generator = fit(deep, tmp_path)
    synthetic = synthaug.generate(generator, make_plan({"a": 2, "b": 2}, 3), filter="none")
    with pytest.raises(InputError, match=r"8 bits, the synthetic rows 16 bits: convert the images to one depth"):
        synthaug.generate(
            generator, make_plan({"a": 2, "b": 2}, 3), filter="none", mix_with=plain, output=tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"real images in 'image' store 8 bits, the synthetic ones 16 bits"):
        synthaug.mix(plain, synthetic)
    assert len(synthaug.mix(deep, synthetic)) == 26


def test_a_run_of_several_depths_is_not_mixed(tmp_path):
    real = rows("uint8", "uint16")
    generator = fit(real, tmp_path)
    with pytest.raises(InputError, match=r"several depths.*fit again, or generate without mix_with"):
        synthaug.generate(generator, make_plan({"a": 2, "b": 2}, 3), filter="none", mix_with=real)
    assert len(synthaug.generate(generator, make_plan({"a": 2, "b": 2}, 3), filter="none")) == 2


def test_larger_real_images_are_told(tmp_path, capsys):
    real = rows("uint8")
    generator = fit(real, tmp_path)
    large = real.cast_column("image", Image(decode=False)).map(enlarge).cast_column("image", Image())
    synthaug.generate(
        generator, make_plan({"a": 12, "b": 9}, "majority"), filter="none", mix_with=large, output=tmp_path / "o"
    )
    line = "8 x 8 pixels, most real ones more (such as 40 x 30)"
    assert line in capsys.readouterr().err and line in (tmp_path / "o" / "README.md").read_text()


def enlarge(row):
    file = io.BytesIO()
    PillowImage.open(io.BytesIO(row["image"]["bytes"])).resize((40, 30)).save(file, "PNG")
    return {"image": {"bytes": file.getvalue(), "path": None}}


def test_deep_images_in_a_training_loop_are_refused():
    for values in (np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.float32)):
        with pytest.raises(InputError, match="more than 8 bits"):
            read_pixels(PillowImage.fromarray(values))
