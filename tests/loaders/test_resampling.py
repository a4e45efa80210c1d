"""SynthAugSampler in imbalanced-learn: its estimator checks, pipelines, counts, types."""

import sys
from collections import Counter
from functools import partial
from importlib import reload
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

import synthaug
from synthaug.classifiers import fit_judge
from synthaug.core import FailedError, InputError
from synthaug.data import to_tensor
from synthaug.loaders.arrays import Canvas
from synthaug.training import completion
from tests.toys import ToyGenerator, keep_bright_corners, keep_none_of_cat

imblearn = pytest.importorskip("imblearn")

from imblearn.pipeline import make_pipeline  # noqa: E402
from imblearn.utils import estimator_checks as checks  # noqa: E402
from sklearn.model_selection import cross_val_score  # noqa: E402
from sklearn.neighbors import NearestCentroid  # noqa: E402
from sklearn.preprocessing import FunctionTransformer  # noqa: E402

SynthAugSampler = synthaug.SynthAugSampler

NOT_APPLICABLE = {
    "check_samplers_string": "pixels are numbers: left out by the tag, as for SMOTE",
    "check_samplers_nan": "a pixel that is no number has no meaning: left out by the tag, as for SMOTE",
    "check_classifier_on_multilabel_or_multioutput_targets": "for classifiers",
    "check_classifiers_with_encoded_labels": "for classifiers",
    "check_parameters_default_constructible": "is not among what imbalanced-learn's parametrize_with_checks runs",
}
SHAPES = {"check_target_type": (1, 2), "check_samplers_one_label": (1, 2), "check_samplers_fit": (1, 2)}
SHAPES |= {"check_sampler_get_feature_names_out": (1, 3), "check_sampler_get_feature_names_out_pandas": (1, 3)}


def make_sampler(**options):
    return SynthAugSampler(ToyGenerator(), **{"filter": "none", "random_state": 0, "value_range": (-20, 20), **options})


def every_check():
    names = [checks._check_name(check) for check in checks._yield_all_checks(make_sampler())]
    return [*names, "check_param_validation", "check_dataframe_column_names_consistency"]


@pytest.mark.parametrize("name", every_check())
def test_estimator_checks_of_imbalanced_learn(name):
    """Every check that imbalanced-learn runs for its own samplers, on features taken as images of that many pixels."""
    assert name not in NOT_APPLICABLE
    pixels = SHAPES.get(name, (4, 5))
    sampler = make_sampler(image_shape=None if name == "check_param_validation" else pixels)
    if name == "check_dataframe_column_names_consistency":
        sampler.set_params(image_shape=(2, 4))
    getattr(checks, name)("SynthAugSampler", sampler)


def test_the_checks_left_out_are_those_listed():
    there = {name for name in dir(checks) if name.startswith("check_") and name != "check_sampling_strategy"}
    run = {*every_check(), *NOT_APPLICABLE}
    assert there - run <= {"check_array"}, there - run
    page = (Path(__file__).parent.parent.parent / "docs" / "training.md").read_text()
    assert {name for name in there | run if f"`{name}`" in page} == set(NOT_APPLICABLE)


def make_images(counts=(12, 5, 2), dtype=np.uint8):
    labels = np.repeat(np.arange(len(counts)), counts)
    rng = np.random.default_rng(0)
    images = np.clip(60 + 60 * labels[:, None, None, None] + rng.normal(0, 9, (len(labels), 8, 8, 1)), 0, 255)
    return images.astype(dtype), labels


@pytest.mark.parametrize(
    ("strategy", "counts"),
    [
        ("auto", [12, 12, 12]),
        ("not majority", [12, 12, 12]),
        ("minority", [12, 5, 12]),
        ("not minority", [12, 12, 2]),
        ({1: 9, 2: 2}, [12, 9, 2]),
        (lambda y: {2: 7}, [12, 5, 7]),
    ],
)
def test_real_rows_come_first_and_counts_are_exact(strategy, counts):
    images, labels = make_images()
    made, names = make_sampler(sampling_strategy=strategy, value_range=None).fit_resample(images, labels)
    assert (made[:19] == images).all() and (names[:19] == labels).all() and (np.diff(names[19:]) >= 0).all()
    assert [Counter(names.tolist())[label] for label in range(3)] == counts
    assert made.dtype == np.uint8 and made.shape[1:] == (8, 8, 1)


def test_the_rows_are_the_first_accepted_draws():
    images, labels = make_images()
    sampler = make_sampler(value_range=None, filter=keep_bright_corners, random_state=5, temperature=0.5)
    made, _ = sampler.fit_resample(images, labels)
    seed = int(np.random.RandomState(5).randint(2**31 - 1))
    plan = synthaug.BalancePlan({"ant": 12, "bee": 5, "cat": 2}, {"ant": 0, "bee": 7, "cat": 10})
    rows = synthaug.generate(ToyGenerator(), plan, seed=seed, temperature=0.5, filter=keep_bright_corners)
    assert (made[19:, ..., 0] == np.stack([np.array(row["image"]) for row in rows])).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("flat", [False, True])
def test_types_and_shapes_stay(dtype, flat):
    images, labels = make_images()
    images = images.astype(dtype) / (255 if np.issubdtype(dtype, np.floating) else 1)
    images = images.astype(dtype).reshape(19, -1) if flat else images.astype(dtype)[..., 0]
    options = {"value_range": None, "image_shape": (8, 8) if flat else None}
    made, _ = make_sampler(**options).fit_resample(images, labels)
    again, _ = make_sampler(**options).fit_resample(images, labels)
    assert made.dtype == dtype and made.shape[1:] == images.shape[1:] and (made == again).all()
    assert made.min() >= 0 and made.max() <= (1 if np.issubdtype(dtype, np.floating) else 255)
    other, _ = make_sampler(**{**options, "random_state": 1}).fit_resample(images, labels)
    assert not (other == made).all()


def test_labels_are_matched_by_name_or_number():
    images, numbers = make_images()
    by_number, _ = make_sampler(value_range=None).fit_resample(images, numbers)
    names = np.array(["ant", "bee", "cat"])[numbers]
    by_name, labels = make_sampler(value_range=None).fit_resample(images, names)
    assert (by_name == by_number).all() and Counter(labels.tolist()) == {"ant": 12, "bee": 12, "cat": 12}
    given = {"x": "ant", "y": "bee", "z": "cat"}
    mapped, _ = make_sampler(value_range=None, class_names=given).fit_resample(images, np.array(list("xyz"))[numbers])
    assert (mapped == by_number).all()


def flatten(images):
    return images.reshape(len(images), -1)


def test_a_generator_is_fitted_on_the_rows_of_each_fold(monkeypatch):
    images, labels = make_images((24, 12, 8))
    seen = []

    def fit(rows, family, *, output, images, **options):
        seen.append((len(rows), family, images, options))
        return ToyGenerator(class_names=["0", "1", "2"])

    monkeypatch.setattr("synthaug.loaders.resampling.fit", fit)
    sampler = SynthAugSampler("cvae", filter="none", images=640, random_state=0, fit_options={"width": 8})
    pipeline = make_pipeline(sampler, FunctionTransformer(flatten), NearestCentroid())
    scores = cross_val_score(pipeline, images, labels, cv=4, scoring="balanced_accuracy")
    assert scores.min() > 0.8 and [rows for rows, *_ in seen] == [33] * 4
    assert seen[0][1:3] == ("cvae", 640) and seen[0][3].items() >= {"image_size": 8, "width": 8}.items()
    pipeline.fit(images, labels)
    assert len(pipeline.predict(images)) == 44  # it resamples while fitting only


def test_a_family_is_fitted_for_real(monkeypatch):
    shape = (6, 9, 3)
    rng = np.random.default_rng(0)
    labels = np.repeat(["dark", "light"], [20, 8])
    levels = np.where(labels == "dark", 40, 200)[:, None, None, None]
    images = np.clip(levels + rng.normal(0, 12, (28, *shape)), 0, 255).astype(np.uint8)
    monkeypatch.setattr(completion, "fit_judge", partial(fit_judge, steps=20))
    options = {"filter": "none", "images": 3000, "random_state": 1, "fit_options": {"width": 8, "latent_dim": 4}}
    sampler = SynthAugSampler("cvae", **options)
    made, names = sampler.fit_resample(images, labels)
    assert made.shape == (40, *shape) and Counter(names.tolist()) == {"dark": 20, "light": 20}
    assert sampler.generator_.class_names == ["dark", "light"] and sampler.generator_.run_folder is None
    assert abs(made[28:].mean() - 200) < 60  # nearer to its class than to the other, after three seconds
    again, _ = clone(sampler).fit_resample(images, labels)
    assert (again == made).all()


def test_nothing_missing_fits_nothing():
    images, labels = make_images((5, 5))
    made, _ = SynthAugSampler("cvae").fit_resample(images, labels)
    assert (made == images).all()


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (5, 9, 3), (30, 12, 4), (96, 80, 3)])
def test_a_canvas_gives_back_what_it_was_given(shape):
    values = np.random.default_rng(0).integers(0, 256, (3, *shape)).astype(np.uint8)
    if max(shape) > 64:
        values = np.full_like(values, 77)  # scaled down and up: only the level can stay
    canvas = Canvas(shape, values)
    laid = canvas.lay(values)
    assert laid.shape == (3, canvas.size, canvas.size, shape[2]) and 8 <= canvas.size <= 64
    assert (canvas.take(laid) == values).all()
    floats = Canvas(shape, values / 255.0)
    assert np.abs(floats.take(floats.lay(values / 255.0)) - values / 255.0).max() < 1e-9
    assert to_tensor(laid).shape[1] == shape[2]


def test_grey_and_colour_are_turned_into_each_other():
    images, labels = make_images()
    made, _ = make_sampler(value_range=None).fit_resample(images.repeat(3, axis=3), labels)
    assert (made[19:, ..., 0] == made[19:, ..., 2]).all() and made.shape[1:] == (8, 8, 3)


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda x, y: make_sampler().fit_resample(x.reshape(19, -1), y), r"image_shape=\(H, W, C\) for flattened"),
        (lambda x, y: make_sampler(image_shape=(7, 8)).fit_resample(x.reshape(19, -1), y), r"64 values a row"),
        (lambda x, y: make_sampler(image_shape=(2, 2, 16)).fit_resample(x, y), r"1 to 4 channels"),
        (lambda x, y: make_sampler(value_range=None).fit_resample(x * 1.0, y), r"outside 0 to 1; give value_range"),
        (lambda x, y: make_sampler(value_range=(1, 1)).fit_resample(x, y), r"smaller one first"),
        (lambda x, y: make_sampler(value_range=None).fit_resample(x, y + 2), r"label 3 is no class of the generator"),
        (lambda x, y: SynthAugSampler("cvea").fit_resample(x, y), r"'cvea' is neither a folder nor a Hub id"),
        (lambda x, y: make_sampler(filter="default", value_range=None).fit_resample(x, y), r"use filter='none'"),
    ],
)
def test_bad_input_is_one_line(run, says):
    with pytest.raises(InputError, match=says) as raised:
        run(*make_images())
    assert "\n" not in str(raised.value)


def test_a_class_that_falls_short_is_named():
    with pytest.raises(FailedError, match=r"class 'cat' falls short: 0 of 10"):
        make_sampler(filter=keep_none_of_cat, value_range=None).fit_resample(*make_images())


def test_without_imbalanced_learn_the_class_says_what_to_install(monkeypatch):
    from synthaug.loaders import resampling as module

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imblearn.over_sampling.base", None)
        absent = reload(module).SynthAugSampler
        with pytest.raises(InputError, match=r"needs imbalanced-learn; in a clone of synthaug run: pip install"):
            absent("cvae")
    reload(module)
