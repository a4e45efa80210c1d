"""synthaug: synthetic data augmentation for labelled images, with the evidence beside it.

Names are loaded when they are first used, so that `import synthaug` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from synthaug.assessment import Evaluation
    from synthaug.atlas import Exploration, explore
    from synthaug.balance import BalancePlan
    from synthaug.benchmarking import benchmark
    from synthaug.data import load_images, plan_balance
    from synthaug.errors import FailedError, InputError, StoppedError
    from synthaug.evaluation import evaluate
    from synthaug.fitting import fit
    from synthaug.generation import generate
    from synthaug.generators import CGAN, CVAE, GENERATORS, Glow
    from synthaug.generators.base import ConditionalGenerator, Objective, Preset
    from synthaug.hub import load_generator, push
    from synthaug.inspection import inspect_dataset
    from synthaug.mixing import mix, strip
    from synthaug.report import Report
    from synthaug.scores import Scores, score
    from synthaug.sources import open_dataset, open_splits

_HOMES = {
    "BalancePlan": "balance",
    "CGAN": "generators",
    "CVAE": "generators",
    "ConditionalGenerator": "generators.base",
    "Exploration": "atlas",
    "Evaluation": "assessment",
    "FailedError": "errors",
    "GENERATORS": "generators",
    "Glow": "generators",
    "InputError": "errors",
    "Objective": "generators.base",
    "Preset": "generators.base",
    "Report": "report",
    "Scores": "scores",
    "StoppedError": "errors",
    "benchmark": "benchmarking",
    "explore": "atlas",
    "evaluate": "evaluation",
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
    "score": "scores",
    "strip": "mixing",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synthaug' has no attribute {name!r}")
    return getattr(importlib.import_module(f"synthaug.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
