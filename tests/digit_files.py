"""Image files made of scikit-learn's digits, for tests that read folders and lists."""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


@functools.cache
def _digits():
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)


def save_digit(path, number, mode="L"):
    """Write the digit of that number under a path, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_digits()[number]).convert(mode).save(path)


def fill(root, *folders, count=2, suffix="png"):
    """Write `count` digits into each folder, all different."""
    for place, folder in enumerate(folders):
        for number in range(count):
            save_digit(root / folder / f"{number}.{suffix}", 20 * place + number)
    return root
