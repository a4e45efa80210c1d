"""A data set in which every position is real or synthetic, drawn anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from synthaug.classifiers import Filter
from synthaug.loaders.assignment import Share
from synthaug.loaders.labelled import LabelledRows
from synthaug.loaders.positions import MixedRows
from synthaug.loaders.schedules import Schedule, ShareFactor
from synthaug.loaders.supplies import open_supply
from synthaug.loaders.transforms import SampleTransform

__all__ = ["MixedDataset"]


class MixedDataset(MixedRows):
    """Real rows, of which a share is replaced by synthetic images of the same class, others in every epoch.

    It has the length, the order and the labels of `real`. What stands at a position is a function of (seed, epoch,
    index): it depends neither on the sampler nor on the number of workers or processes. Rows without a label, and
    those of classes that `synthetic` does not hold, stay real.

    Args:
        real: A `datasets.Dataset`, or a map-style torch data set of pairs (image, label) or of mappings. It must not
            transform its images itself.
        synthetic: A generator, which draws new images for every epoch; or a data set, such as `generate` returns,
            whose rows are taken in turn. Classes are matched by name; where `real` is a torch data set that knows no
            names, label i means class i of `synthetic`.
        share: Expected share of synthetic images, in [0, 1]; or a share for each class, by name or index, and
            classes left out stay real.
        schedule: How the share goes over the epochs: "constant", "linear" or "cosine" (to 0 in the last epoch),
            "off-after:0.8", or a function of the fraction done that gives a factor in [0, 1].
        epochs: Number of epochs of the training; schedules but "constant" need it.
        transform: Applied to every sample, real or synthetic: to the image of a pair, to the whole row where rows
            are mappings. What it returns is what you get.
        seed: Seed of the choices and of the draws, 0 <= seed < 2**63.
        temperature: Scale of the generator's noise; the family's own default when None.
        filter: Which draws of a generator are used: "default" (the judge of its run), "none", or a callable.
        image_column: Column or key of the images; found by feature type in a `datasets.Dataset`, else "image".
        label_column: Likewise, of the labels; else "label".
        class_names: Names of the labels of `real`, in label order.
        group_by: Columns of `real`, the label among them, by whose joint groups images are drawn: those that the
            generator was fitted by. Shares, too, go by the groups then, and a synthetic row has their values.
        seed_transform: Seed torch, numpy and random by (seed, epoch, index) for each transform, and restore them
            after it. Then random transforms, too, are the same for any number of workers; without `set_epoch` they
            would also be the same in every epoch.

    Raises:
        InputError: For bad input; see above for what is allowed.

    Example:
        >>> from synthaug import MixedDataset, open_dataset
        >>> digits = open_dataset("digits")
        >>> mixed = MixedDataset(digits, digits.select(range(100)), share={"3": 1.0}, schedule="linear", epochs=5)
        >>> int(mixed.find_synthetic().sum()) == digits["label"][:].count(3)
        True
        >>> mixed.set_epoch(4)
        >>> bool(mixed.find_synthetic().any())
        False
    """

    def __init__(
        self,
        real: Any,
        synthetic: Any,
        *,
        share: Share = 0.5,
        schedule: Schedule = "constant",
        epochs: int | None = None,
        transform: Callable[[Any], Any] | None = None,
        seed: int = 0,
        temperature: float | None = None,
        filter: str | Filter = "default",
        image_column: str | None = None,
        label_column: str | None = None,
        class_names: Sequence[str] | None = None,
        group_by: Sequence[str] | None = None,
        seed_transform: bool = False,
    ) -> None:
        super().__init__(
            LabelledRows(
                real, image_column=image_column, label_column=label_column, class_names=class_names, group_by=group_by
            ),
            open_supply(synthetic, seed=seed, temperature=temperature, filter=filter, group_by=group_by),
            share=share,
            factor=ShareFactor(schedule, epochs),
            seed=seed,
            finish=None if transform is None else SampleTransform(transform, seed=seed, seeds=seed_transform),
        )
