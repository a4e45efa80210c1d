"""A generator as an over-sampler in a pipeline of imbalanced-learn, fitted again in every fold.

pip install '.[training]'
python examples/imblearn_pipeline.py --images 100k
"""

from __future__ import annotations

import argparse

import numpy as np
from imblearn.pipeline import make_pipeline
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import MinMaxScaler

import synthaug
from synthaug.data import make_long_tailed


def main(
    *, images: str | int = "100k", folds: int = 3, imbalance: float = 20, filter: str = "default", **fit_options
) -> dict[str, np.ndarray]:
    """Return the balanced accuracy of every fold without and with the sampler.

    The training rows of the folds overlap, so this only shows how to use the sampler. `synthaug benchmark` measures
    whether it helps.
    """
    real = synthaug.load_images(make_long_tailed(synthaug.open_dataset("digits", "train"), "label", imbalance))
    pixels, labels = real.pixels.reshape(len(real), -1), real.labels  # flattened, as scikit-learn expects
    sampler = synthaug.SynthAugSampler(
        "cvae", images=images, image_shape=(8, 8), random_state=0, filter=filter, fit_options=fit_options
    )
    classifier = [MinMaxScaler((0, 1)), LogisticRegression(max_iter=1000)]
    pipelines = {"real": make_pipeline(*classifier), "real and synthetic": make_pipeline(sampler, *classifier)}
    scores = {
        name: cross_val_score(pipeline, pixels, labels, cv=folds, scoring="balanced_accuracy", error_score="raise")
        for name, pipeline in pipelines.items()
    }
    for name, values in scores.items():
        print(f"{name}: balanced accuracy {', '.join(f'{value:.3f}' for value in values)}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="100k")
    parser.add_argument("--folds", type=int, default=3)
    given = parser.parse_args()
    main(images=given.images, folds=given.folds)
