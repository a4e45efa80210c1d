"""Generation end to end over sampling alone, and fits on two processes over one: `make speed`.

The sampler stands for one on an accelerator: its images are ready, 32 x 32 RGB, 2,048 different ones (a block that
repeats would compress better than any data set does), and it waits for them without using the processor, as for a
device that makes so many rows a second (or not at all: "ready" goes as fast as noise and rounding allow). Sampling
alone is the same `Sampler.draw` without files; end to end is what `synthaug generate` does until the folder is
finished. Both in turns, best of ROUNDS, so that a busy machine disturbs both alike. Fits are of 28 px grey noise, one
thread a process, in turns too, and the median of their ratios is the figure.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

sys.path.insert(0, str(Path(__file__).parents[2]))

from synthaug.balance import BalancePlan
from synthaug.core import BLOCK_SIZE
from synthaug.generation import Sampler, write_rows
from tests.toys import ToyGenerator

ROWS, ROUNDS = 4_096 * BLOCK_SIZE, 3
IMAGES = torch.nn.functional.interpolate(torch.rand(32 * BLOCK_SIZE, 3, 8, 8) * 2 - 1, size=32, mode="bilinear")
PLAIN = {
    "seed": 0, "temperature": None, "filter": "none", "judge": None, "max_draws": None, "mix_with": None,
    "other_splits": None, "split": "train", "on_bad_image": "error", "num_processes": 1, "fresh": False,
}  # fmt: skip


class ReadyGenerator(ToyGenerator):
    """Returns one block of images after the other, each after `seconds`."""

    family = "ready"

    def __init__(self, seconds):
        super().__init__(image_size=32, channels=3)
        self.seconds, self.blocks = seconds, itertools.cycle(IMAGES.split(BLOCK_SIZE))

    @property
    def noise_shape(self):
        return (64,)

    def decode_noise(self, noise, labels, temperature):
        time.sleep(self.seconds)
        return next(self.blocks)


@pytest.mark.parametrize("pace", [25_000, 50_000, 100_000, None], ids=["25,000", "50,000", "100,000", "ready"])
def test_end_to_end_over_sampling_alone(pace, benchmark, tmp_path):
    generator = ReadyGenerator(BLOCK_SIZE / pace if pace else 0.0)
    sampler = Sampler(generator, None, seed=0, temperature=1.0)
    folders, alone, whole = iter(range(100)), [], []

    def both():
        started = time.perf_counter()
        for number in range(ROWS // BLOCK_SIZE):
            sampler.draw((0, number))
        alone.append(time.perf_counter() - started)
        folder = tmp_path / str(next(folders))
        started = time.perf_counter()
        write_rows(generator, BalancePlan({"ant": 0}, {"ant": ROWS}), **PLAIN, output=folder)
        whole.append(time.perf_counter() - started)

    benchmark.pedantic(both, rounds=ROUNDS, warmup_rounds=1)
    benchmark.extra_info["rows/s of sampling alone"] = round(ROWS / min(alone))
    benchmark.extra_info["rows/s end to end"] = round(ROWS / min(whole))
    benchmark.extra_info["share"] = round(min(alone) / min(whole), 3)


@pytest.mark.parametrize("family", ["cvae"])
def test_two_processes_over_one(family, benchmark, tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (2_000, 28, 28), dtype=np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["ant", "bee"])})
    columns = {"image": [Picture.fromarray(row) for row in rows], "label": [n % 2 for n in range(len(rows))]}
    Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    settings = ["--images", "12k", "--set", "fit.batch_size=256", "--fresh"]

    def images_per_second(processes):
        words = ["fit", str(tmp_path / "rows.parquet"), "--generator", family, *settings]
        folder = tmp_path / str(processes)
        command = [sys.executable, "-m", "synthaug", *words, "--num-processes", str(processes), "--output", str(folder)]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        entries = [line for line in lines if "images" in line]
        return (entries[-1]["images"] - entries[0]["images"]) / (entries[-1]["seconds"] - entries[0]["seconds"])

    pairs = []
    benchmark.pedantic(lambda: pairs.append((images_per_second(1), images_per_second(2))), rounds=5)
    benchmark.extra_info["images/s on one"] = "/".join(f"{one:.0f}" for one, _ in pairs)
    benchmark.extra_info["images/s on two"] = "/".join(f"{two:.0f}" for _, two in pairs)
    benchmark.extra_info["times as fast, median"] = round(statistics.median(two / one for one, two in pairs), 2)
