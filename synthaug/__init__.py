"""synthaug: synthetic data augmentation for labelled images, with the evidence beside it.

Names are loaded when they are first used, so that `import synthaug` costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import
__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from synthaug.balance import BalancePlan
    from synthaug.benchmarks.advice import Advice
    from synthaug.benchmarks.benchmarking import benchmark
    from synthaug.data import load_images, plan_balance
    from synthaug.errors import FailedError, InputError, StoppedError
    from synthaug.exploration.atlas import Exploration, explore
    from synthaug.fitting import fit
    from synthaug.generation import generate
    from synthaug.generators import CGAN, CVAE, GENERATORS, Glow
    from synthaug.generators.base import ConditionalGenerator, Objective, Preset
    from synthaug.hub import load_generator, push
    from synthaug.inspection import inspect_dataset
    from synthaug.loops.mixtures import MixedDataset
    from synthaug.loops.replacement import ReplaceWithSynthetic
    from synthaug.loops.resampling import SynthAugSampler
    from synthaug.loops.streams import MixedIterable
    from synthaug.mixing import mix, strip
    from synthaug.quality.assessment import Evaluation
    from synthaug.quality.evaluation import evaluate
    from synthaug.recommendation import recommend
    from synthaug.report import Report
    from synthaug.scoring.scores import Scores, score
    from synthaug.sources import open_dataset, open_splits

_HOMES = {
    "Advice": "benchmarks.advice",
    "BalancePlan": "balance",
    "CGAN": "generators",
    "CVAE": "generators",
    "ConditionalGenerator": "generators.base",
    "Exploration": "exploration.atlas",
    "Evaluation": "quality.assessment",
    "FailedError": "errors",
    "GENERATORS": "generators",
    "Glow": "generators",
    "InputError": "errors",
    "MixedDataset": "loops.mixtures",
    "MixedIterable": "loops.streams",
    "Objective": "generators.base",
    "Preset": "generators.base",
    "ReplaceWithSynthetic": "loops.replacement",
    "Report": "report",
    "Scores": "scoring.scores",
    "StoppedError": "errors",
    "SynthAugSampler": "loops.resampling",
    "benchmark": "benchmarks.benchmarking",
    "explore": "exploration.atlas",
    "evaluate": "quality.evaluation",
    "fit": "fitting",
    "generate": "generation",
    "inspect_dataset": "inspection",
    "load_generator": "hub",
    "load_images": "data",
    "mix": "mixing",
    "open_dataset": "sources",
    "open_splits": "sources",
    "plan_balance": "data",
    "push": "hub",
    "recommend": "recommendation",
    "score": "scoring.scores",
    "strip": "mixing",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthaug' has no attribute {name!r}")
    return getattr(importlib.import_module(f"synthaug.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
