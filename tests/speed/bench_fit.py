"""Images per second of the training loop, for each family at its preset: `make speed`.

Not part of `make test`: a timing is a figure to read, not a condition to hold. The whole loop is timed as a fit runs
it (start, batches, all objectives, optimisers, weight average), on whatever device Accelerate finds; reading the data,
the judge and the run folder are not.
"""

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from synthaug.generators import GENERATORS
from synthaug.training.budget import Budget
from synthaug.training.loop import Schedule, train

SHAPES = {"digits 8x8": (8, 1), "MNIST 28x28": (28, 1), "CIFAR 32x32 RGB": (32, 3), "64x64 RGB": (64, 3)}
COUNTS = {"20 a class": 20, "500 a class": 500}
STEPS = 40


@pytest.fixture(scope="module")
def accelerator():
    return Accelerator(cpu=not torch.cuda.is_available())


@pytest.mark.parametrize("count", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("family", GENERATORS)
def test_images_per_second(family, shape, count, accelerator, benchmark, tmp_path):
    size, channels = shape
    cls = GENERATORS[family]
    preset = cls.preset([count] * 10, size, channels)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), count)
    pixels = rng.integers(0, 256, (len(labels), size, size, channels), dtype=np.uint8)
    schedule = Schedule(preset.batch_size, preset.ema_images, preset.class_power, None, 1e9, 0)
    images = STEPS * preset.batch_size
    folders = iter(range(1_000))

    def set_up():
        torch.manual_seed(0)
        names = [str(k) for k in range(10)]
        generator = cls(class_names=names, image_size=size, channels=channels, **preset.constructor)
        folder = tmp_path / str(next(folders))
        folder.mkdir()
        return (generator, pixels, labels), {
            "budget": Budget(images=images), "schedule": schedule, "accelerator": accelerator, "folder": folder,
        }  # fmt: skip

    benchmark.pedantic(train, setup=set_up, rounds=3, warmup_rounds=1)
    benchmark.extra_info["images/s"] = round(images / benchmark.stats.stats.min)
    benchmark.extra_info["batch"] = preset.batch_size
