"""Rows per second from pixels to Parquet, against PIL's PNG and against `Dataset.from_generator`: `make speed`.

Natural images are crops of the two photographs that scikit-learn ships. SYNTHAUG_SPEED_DATA=FILE.parquet takes the
images of a Parquet file instead. All ways run in one session on one thread; the sizes of the files are printed too.
"""

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image as ImageFeature
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from synthaug.core import BLOCK_SIZE
from synthaug.generation.shards import ShardWriter
from synthaug.generation.synthetic_rows import encode_images

FEATURES = Features({"image": ImageFeature()})
ROWS = 1_536


def photographs():
    windows = [
        np.lib.stride_tricks.sliding_window_view(picture, (32, 32, 3))[::16, ::16, 0].reshape(-1, 32, 32, 3)
        for picture in load_sample_images().images
    ]
    return np.concatenate(windows)


def digits():
    pixels = (load_digits().images * 15.9).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    return pixels[:, 2:30, 2:30, None]


def load_rows(kind):
    if path := os.environ.get("SYNTHAUG_SPEED_DATA"):
        column = pq.read_table(path, columns=["image"])["image"].slice(0, ROWS)
        pixels = np.stack([np.array(Image.open(io.BytesIO(row["bytes"]))) for row in column.to_pylist()])
        return pixels if pixels.ndim == 4 else pixels[..., None]
    pixels = {"photographs": photographs, "digits": digits}[kind]()
    return np.ascontiguousarray(pixels[:ROWS])


def write_ours(pixels, path):
    schema = FEATURES.arrow_schema
    kind = schema.field("image").type
    with ShardWriter(path, schema) as writer:
        for start in range(0, len(pixels), BLOCK_SIZE):
            writer.write(pa.table([encode_images(pixels[start : start + BLOCK_SIZE], kind)], schema=schema))


def encode_by_pil(image):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(stream, "PNG")
    return stream.getvalue()


def write_by_pil(pixels, path):
    schema = FEATURES.arrow_schema
    rows = [{"bytes": encode_by_pil(image), "path": None} for image in pixels]
    pq.write_table(pa.table([pa.array(rows, schema.field("image").type)], schema=schema), path)


def write_by_datasets(pixels, path):
    def rows():
        for image in pixels:
            yield {"image": Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)}

    cache = path.parent / f"cache-{os.urandom(4).hex()}"  # a cache of its own, or the second round would read the first
    Dataset.from_generator(rows, features=FEATURES, cache_dir=str(cache)).to_parquet(path)


WAYS = {"synthaug": write_ours, "PIL and pyarrow": write_by_pil, "datasets.from_generator": write_by_datasets}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("kind", ["photographs", "digits"])
def test_rows_per_second(kind, way, benchmark, tmp_path):
    pixels, path = load_rows(kind), tmp_path / "rows.parquet"
    benchmark.pedantic(way, args=(pixels, path), rounds=3, warmup_rounds=1)
    table = pq.read_table(path)
    first = np.array(Image.open(io.BytesIO(table["image"][0]["bytes"].as_py())))
    assert len(table) == len(pixels) and np.array_equal(first.reshape(pixels[0].shape), pixels[0])
    benchmark.extra_info["rows/s"] = round(len(pixels) / benchmark.stats.stats.min)
    benchmark.extra_info["bytes a row"] = path.stat().st_size // len(pixels)
