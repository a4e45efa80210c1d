"""imbalanced-learn's sampler interface: the rows that classes miss are drawn by a generator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_random_state

from synthaug.classifiers import Filter
from synthaug.core import BLOCK_SIZE, FailedError, InputError
from synthaug.data import SEPARATOR
from synthaug.generation import Sampler, encode_png, fixed_threads, resolve_filter
from synthaug.generators import GENERATORS, ConditionalGenerator, load_generator
from synthaug.loaders.arrays import Canvas, find_shape
from synthaug.loaders.labelled import plain_label
from synthaug.training import fit

try:
    from imblearn.over_sampling.base import BaseOverSampler
    from imblearn.utils import check_target_type
    from sklearn_compat.utils.validation import validate_data
except ImportError:

    class BaseOverSampler:  # type: ignore[no-redef]
        """Stands where imbalanced-learn is missing, and says so."""

        _parameter_constraints: ClassVar[dict[str, Any]] = {}

        def __new__(cls, *arguments: Any, **named: Any) -> Any:
            """Raise InputError."""
            raise InputError(
                f"{cls.__name__} needs imbalanced-learn; in a clone of synthaug run: pip install '.[training]'"
            )


__all__ = ["SynthAugSampler"]


class SynthAugSampler(BaseOverSampler):  # type: ignore[misc]
    """Over-sample images with a class-conditional generator, as a step of an `imblearn.pipeline.Pipeline`.

    Real rows come first and as they are; then, class by class, as many new images as `sampling_strategy` asks for.
    With the name of a family, a generator is fitted on the very rows that `fit_resample` is given, so that in a
    cross-validation it never sees the rows that are held out. A generator that is fitted already may have seen them.

    Args:
        generator: "cvae", "cgan" or "glow", or a class of your own, to be fitted on X and y; or a fitted generator,
            or its run folder or Hub id.
        sampling_strategy: As in all over-samplers of imbalanced-learn: "auto" ("not majority"), "minority",
            "not minority", "all", a ratio (two classes), the total of each class, or a function of y.
        random_state: Seed of the fit and of the draws.
        image_shape: (H, W, C) or (H, W) where X is flattened (then it may also be sparse or a data frame); X may be
            (N, H, W, C) or (N, H, W) too.
        value_range: Values of black and white in X; None takes 0..255 for integers and 0..1 for floats.
        images: How long a generator is fitted, in images seen, such as "200k".
        fit_options: Further keyword arguments of `synthaug.fit`, such as {"width": 16}.
        temperature: Scale of the noise; the family's own default when None.
        filter: Which draws are used: "default" (the judge of the run), "none", or a callable.
        class_names: Label -> name of the class of a fitted generator; None goes by the label as text, or else takes
            label i as its class i.

    Attributes:
        generator_: The generator that was used.
        sampling_strategy_: Label -> number of new images.

    Raises:
        InputError: imbalanced-learn is not installed, or (in `fit_resample`) for bad input.
        FailedError: The filter leaves a class short.

    Example:
        >>> from imblearn.pipeline import make_pipeline  # doctest: +SKIP
        >>> sampler = SynthAugSampler("cvae", images="200k", random_state=0)  # doctest: +SKIP
        >>> make_pipeline(sampler, FunctionTransformer(flatten), LogisticRegression())  # doctest: +SKIP

    References:
        Lemaitre, Nogueira, Aridas: Imbalanced-learn, a Python toolbox to tackle the curse of imbalanced datasets in
        machine learning (2017).
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BaseOverSampler._parameter_constraints,
        "random_state": ["random_state"],
        "generator": "no_validation",
        "image_shape": ["array-like", None],
        "value_range": ["array-like", None],
        "images": "no_validation",
        "fit_options": [dict, None],
        "temperature": "no_validation",
        "filter": "no_validation",
        "class_names": [dict, None],
    }

    def __init__(
        self,
        generator: str | Path | ConditionalGenerator | type[ConditionalGenerator] = "cvae",
        *,
        sampling_strategy: Any = "auto",
        random_state: Any = None,
        image_shape: Sequence[int] | None = None,
        value_range: tuple[float, float] | None = None,
        images: int | str = "200k",
        fit_options: dict[str, Any] | None = None,
        temperature: float | None = None,
        filter: str | Filter = "default",
        class_names: dict[Any, str] | None = None,
    ) -> None:
        super().__init__(sampling_strategy=sampling_strategy)
        self.generator = generator
        self.random_state = random_state
        self.image_shape, self.value_range = image_shape, value_range
        self.images, self.fit_options = images, fit_options
        self.temperature, self.filter = temperature, filter
        self.class_names = class_names

    def _check_X_y(self, X: Any, y: Any, accept_sparse: Any = None) -> tuple[Any, Any, bool]:
        y, binarized = check_target_type(y, indicate_one_vs_all=True)
        X, y = validate_data(self, X=X, y=y, reset=True, accept_sparse=["csr", "csc"], allow_nd=True)
        return X, y, binarized

    def _fit_resample(self, X: Any, y: NDArray[Any], **_: Any) -> tuple[Any, NDArray[Any]]:
        missing = {label: int(number) for label, number in self.sampling_strategy_.items() if number}
        if not missing:
            return X.copy(), y.copy()
        dense = X.toarray() if sparse.issparse(X) else X
        made = self._make_images(dense, y, missing)
        whole = np.concatenate([dense, *(images.reshape(-1, *dense.shape[1:]) for images in made)])
        labels = np.concatenate([y, *(np.full(number, label, dtype=y.dtype) for label, number in missing.items())])
        return (sparse.csr_matrix(whole).asformat(X.format) if sparse.issparse(X) else whole), labels

    def _make_images(self, X: NDArray[Any], y: NDArray[Any], missing: Mapping[Any, int]) -> list[NDArray[Any]]:
        """Return the new images of each label, (number, H, W, C) each."""
        canvas = Canvas(find_shape(X, self.image_shape), X, self.value_range)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        with tempfile.TemporaryDirectory(prefix="synthaug-") as folder:
            generator = self._open_generator(canvas, X, y, seed, Path(folder))
            check = resolve_filter(generator, self.filter)[0]
            if generator.run_folder is not None and Path(folder) in generator.run_folder.parents:
                generator.run_folder = None  # it goes with the folder
        self.generator_ = generator
        scale = generator.default_temperature if self.temperature is None else float(self.temperature)
        sampler = Sampler(generator, check, seed=seed, temperature=scale)
        places = _match_labels(list(missing), generator, self.class_names, y)
        return [canvas.take(_draw_images(sampler, places[label], number)) for label, number in missing.items()]

    def _open_generator(
        self, canvas: Canvas, values: NDArray[Any], labels: NDArray[Any], seed: int, folder: Path
    ) -> ConditionalGenerator:
        """Return the generator that was given, loaded, or fitted on these rows."""
        given = self.generator
        if isinstance(given, ConditionalGenerator):
            return given
        if not isinstance(given, type) and given not in GENERATORS:
            return load_generator(given)
        rows = _as_dataset(canvas.lay(values), labels)
        options: dict[str, Any] = {"seed": seed, "image_size": canvas.size, **(self.fit_options or {})}
        return fit(rows, given, output=folder / "run", images=self.images, **options)


def _as_dataset(pixels: NDArray[np.uint8], labels: NDArray[Any]) -> Dataset:
    values, index = np.unique(labels, return_inverse=True)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(value) for value in values.tolist()])})
    files = [{"bytes": file, "path": None} for file in encode_png(pixels)]
    return Dataset.from_dict({"image": files, "label": index.tolist()}, features=features)


def _match_labels(
    labels: list[Any], generator: ConditionalGenerator, class_names: Mapping[Any, str] | None, known: NDArray[Any]
) -> dict[Any, int]:
    """Return label -> class of the generator.

    Raises:
        InputError: The generator does not know the class of a label.
    """
    names = generator.class_names
    values = np.unique(known).tolist()
    joint = any(SEPARATOR in name for name in names)  # a label is no number of a joint group
    by_name = joint or class_names is not None or all(str(value) in names for value in values)
    if not by_name and all(isinstance(value, int | float) and value in range(len(names)) for value in values):
        return {label: int(label) for label in labels}
    places = {}
    for label in labels:
        name = str(label) if class_names is None else str(class_names.get(label, label))
        if name not in names:
            listed = ", ".join(map(repr, names[:20]))
            raise InputError(
                f"label {plain_label(label)!r} is no class of the generator, which knows {listed}; give "
                "class_names={label: name}"
            )
        places[label] = names.index(name)
    return places


def _draw_images(sampler: Sampler, label: int, count: int) -> NDArray[np.uint8]:
    """Return the first accepted draws of a class, (count, H, W, C) uint8, as `generate` makes them.

    Raises:
        FailedError: The filter keeps too few.
    """
    kept: list[NDArray[np.uint8]] = []
    limit = 20 * count + 1_000
    for number in range(-(-limit // BLOCK_SIZE)):
        with fixed_threads():
            pixels, mask, _ = sampler.draw((label, number))
        kept.append(pixels[mask])
        if sum(map(len, kept)) >= count:
            return np.concatenate(kept)[:count]
    name, found = sampler.generator.class_names[label], sum(map(len, kept))
    raise FailedError(
        f"class {name!r} falls short: {found} of {count} images after {limit} draws; fit longer, or use filter='none'"
    )
