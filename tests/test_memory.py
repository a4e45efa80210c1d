"""Memory that does not grow: with the rows generated, nor with the pixels a fit learns from. Opt-in: `make slow`.

Every figure is taken in a process of its own, so that nothing else is in it.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

SIZE, ROWS = 64, 30_000
ROOM = 240 << 20
"""Bytes a fit may take for its data beyond what Python and its libraries hold; the pixels are 369 MB."""


def measure(function, *arguments):
    """Call a function of this module in a new process; return its process's answer, or raise with its stderr."""
    words = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
    words += "import json; from tests import test_memory\n"
    words += f"print(json.dumps(test_memory.{function.__name__}(*{arguments!r})))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=1800, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def read_status(name):
    """Return a figure of this process's status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


# -------------------------------------------------------------------------------------------------------- generate


def peak_of_writing(rows, folder):
    """Write rows of 8 px as `generate` does; return the peak resident memory in bytes."""
    import torch

    from synthaug.balance import BalancePlan
    from synthaug.generation import write_rows
    from tests.toys import ToyGenerator

    torch.set_num_threads(1)
    ToyGenerator.decode_noise = lambda self, noise, labels, temperature: noise.clamp(-1, 1)
    options = dict.fromkeys(["temperature", "judge", "max_draws", "mix_with", "other_splits"])
    write_rows(
        ToyGenerator(), BalancePlan({"ant": 0, "bee": 0}, {"ant": rows // 2, "bee": rows // 2}), seed=0, filter="none",
        output=folder, split="train", on_bad_image="error", num_processes=1, fresh=False, **options,
    )  # fmt: skip
    return read_status("VmHWM")


@pytest.mark.slow
def test_two_million_rows_take_the_memory_of_twenty_thousand(tmp_path):
    few, many = (measure(peak_of_writing, rows, str(tmp_path / str(rows))) for rows in (20_000, 2_000_000))
    print(f"peak resident memory: {few / 2**20:.0f} MiB, {many / 2**20:.0f} MiB, {many / few:.3f} times")
    assert many <= 1.1 * few


# ------------------------------------------------------------------------------------------------------------- fit


def save_pictures(folder, rows):
    """Save a dataset of distinct pictures of two classes."""
    features = Features({"image": Image(), "label": ClassLabel(names=["dark", "light"])})
    ramp, chance = np.indices((SIZE, SIZE)).sum(0)[..., None], np.random.default_rng(0)

    def encode(row):
        tones = chance.integers(0, 60, (8, 8, 3)).repeat(SIZE // 8, 0).repeat(SIZE // 8, 1) + 60 * (row % 2) + ramp
        buffer = io.BytesIO()
        Picture.fromarray(tones.astype(np.uint8)).save(buffer, "PNG", compress_level=1)
        return {"bytes": buffer.getvalue(), "path": None}

    columns = {"image": [encode(row) for row in range(rows)], "label": [row % 2 for row in range(rows)]}
    Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema)).save_to_disk(folder)


def fit_in_little_memory(dataset, folder, mapped):
    """Fit where data may take no more than ROOM, from the memory-mapped cache or not; return the rows of each class.

    The fit is too short for candidates to be compared, which holds up to 16,384 rows of a class in memory.
    """
    import functools
    import resource

    import torch
    from datasets import load_from_disk

    import synthaug
    from synthaug.classifiers import fit_judge
    from synthaug.data import scan
    from synthaug.training import completion

    torch.set_num_threads(1)
    scan.MEMORY_LIMIT = 1 << 20 if mapped else 1 << 40
    completion._JUDGE_BYTES = 1 << 20  # the judge's rows are held in memory, 512 MiB of them at most
    completion.fit_judge = functools.partial(fit_judge, steps=3)
    small = {"batch_size": 32, "width": 8, "latent_dim": 4, "validation": 50}  # rows a class
    warm = synthaug.open_dataset("digits").select(range(600))
    synthaug.fit(warm, "cvae", output=f"{folder}-warm", images=64, **small)  # libraries, threads
    limit = read_status("VmData") + ROOM
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    synthaug.fit(load_from_disk(dataset), "cvae", output=folder, images=6_400, **small)
    return json.loads(Path(folder, "source.json").read_text())["class_counts"]


@pytest.mark.slow
def test_a_fit_from_the_cache_needs_less_memory_than_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    dataset = str(tmp_path / "rows")
    save_pictures(dataset, ROWS)
    assert ROOM < 0.7 * ROWS * SIZE * SIZE * 3
    counts = measure(fit_in_little_memory, dataset, str(tmp_path / "mapped"), True)
    assert sum(counts.values()) == ROWS
    with pytest.raises(RuntimeError, match="Unable to allocate"):  # the limit is one: without the cache it is hit
        measure(fit_in_little_memory, dataset, str(tmp_path / "held"), False)
