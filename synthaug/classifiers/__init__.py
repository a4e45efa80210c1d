"""The networks that look at images: downstream classifiers and their training, the judge of a run, and filters.

A filter says which generated images are kept. The default one rests on the judge, a small classifier that is fitted
on the same training rows as the generator.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.classifiers.filters import (
        AllOf,
        Density,
        Filter,
        combine_filters,
        default_filter,
        judge_images,
        likelihood_filter,
    )
    from synthaug.classifiers.judge import Judge, fit_judge, load_judge, save_judge
    from synthaug.classifiers.residual import ResidualClassifier
    from synthaug.classifiers.small import (
        CLASSIFIERS,
        cycle_rows,
        fit_classifier,
        initial_classifier,
        predict_logits,
        resolve_device,
        row_schedule,
    )
    from synthaug.classifiers.strong_augmentation import mix_images, trivial_augment
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
