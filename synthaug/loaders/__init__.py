"""Synthetic images in a training loop of the user's own.

A map-style mixture (`MixedDataset`), its twin for streams (`MixedIterable`), a batch transform
(`ReplaceWithSynthetic`) and a sampler for imbalanced-learn (`SynthAugSampler`).
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.loaders.mixtures import MixedDataset
    from synthaug.loaders.replacement import ReplaceWithSynthetic
    from synthaug.loaders.resampling import SynthAugSampler
    from synthaug.loaders.streams import MixedIterable
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
