"""Rows per second of `MixedDataset` at share 0 against the plain data set with the same transform: `make speed`.

Plain is what the user would have written without synthaug. Rounds alternate between the two and are timed in seconds of
this process's CPU (the loader has no workers), so that a busy machine falsifies neither; printed is the ratio of the
medians, which is to be at least 0.95, and of the fastest rounds. Higher shares are timed too: with a data set and with
a generator whose blocks have to be drawn.
"""

import statistics
import time

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset as Rows, Features, Image as ImageFeature
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

import synthaug
from synthaug.generation import encode_png

COUNT, ROUNDS, SIZE = 1_000, 9, 32
TO_FLOAT = v2.Compose([v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)])


def prepare(row):
    return TO_FLOAT(row["image"]), row["label"]


class PlainRows(Dataset):
    def __init__(self, rows, transform):
        self.rows, self.transform = rows, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.transform(self.rows[index])

    def __getitems__(self, indices):
        return [self.transform(row) for row in self.rows.__getitems__(indices)]


class PlainPairs(Dataset):
    def __init__(self, pairs, transform):
        self.pairs, self.transform = pairs, transform

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        image, label = self.pairs[index]
        return self.transform(image), label


def make_rows():
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=[str(k) for k in range(10)])})
    images = [{"bytes": file, "path": None} for file in encode_png(pixels)]
    return Rows.from_dict({"image": images, "label": [k % 10 for k in range(COUNT)]}, features=features)


def make_pairs():
    images = torch.randint(0, 256, (COUNT, 3, SIZE, SIZE), dtype=torch.uint8)
    return TensorDataset(images, torch.arange(COUNT) % 10)


KINDS = {"datasets": (make_rows, PlainRows, prepare), "TensorDataset": (make_pairs, PlainPairs, TO_FLOAT)}


def time_epoch(data):
    start = time.process_time()
    rows = sum(len(labels) for _, labels in DataLoader(data, batch_size=64, shuffle=True))
    assert rows == COUNT
    return time.process_time() - start


@pytest.mark.parametrize("kind", KINDS)
def test_share_0_against_the_plain_data_set(kind, benchmark):
    make, plain_type, transform = KINDS[kind]
    real = make()
    plain, mixed = plain_type(real, transform), synthaug.MixedDataset(real, real, share=0.0, transform=transform)
    times = {"plain": [], "mixed": []}

    def alternate():
        for name, data in (("plain", plain), ("mixed", mixed)):
            times[name].append(time_epoch(data))

    torch.set_num_threads(1)
    benchmark.pedantic(alternate, rounds=ROUNDS, warmup_rounds=1)
    for name, seconds in times.items():
        benchmark.extra_info[f"{name} rows/s"] = round(COUNT / statistics.median(seconds[1:]))
    benchmark.extra_info["ratio of medians"] = round(
        statistics.median(times["plain"][1:]) / statistics.median(times["mixed"][1:]), 3
    )
    benchmark.extra_info["ratio of the fastest"] = round(min(times["plain"][1:]) / min(times["mixed"][1:]), 3)


@pytest.mark.parametrize("source", ["data set", "cvae"])
def test_share_half(source, benchmark):
    real = make_rows()
    preset = synthaug.CVAE.preset([COUNT // 10] * 10, SIZE, 3)
    names = [str(k) for k in range(10)]
    generator = synthaug.CVAE(
        class_names=names, image_size=SIZE, channels=3, **{**preset.constructor, "sampling": "prior"}
    )
    synthetic = real if source == "data set" else generator.eval()
    mixed = synthaug.MixedDataset(real, synthetic, share=0.5, transform=prepare, filter="none")
    epochs, seconds = iter(range(1_000)), []

    def run():
        mixed.set_epoch(next(epochs))  # a generator has to draw anew
        seconds.append(time_epoch(mixed))

    torch.set_num_threads(1)
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)
    benchmark.extra_info["rows/s"] = round(COUNT / min(seconds[1:]))
