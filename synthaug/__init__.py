"""synthaug: synthetic data augmentation for labelled images, with the evidence beside it.

Names are loaded when they are first used, so that `import synthaug` costs nothing.
"""

from __future__ import annotations

from synthaug.faces import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
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
    from synthaug.inspection import inspect_dataset
    from synthaug.journey import push
    from synthaug.loops.mixtures import MixedDataset
    from synthaug.loops.replacement import ReplaceWithSynthetic
    from synthaug.loops.resampling import SynthAugSampler
    from synthaug.loops.streams import MixedIterable
    from synthaug.mixing import mix, strip
    from synthaug.pulling import load_generator
    from synthaug.quality.assessment import Evaluation
    from synthaug.quality.evaluation import evaluate
    from synthaug.recommendation import recommend
    from synthaug.report import Report
    from synthaug.scoring.scores import Scores, score
    from synthaug.sources import open_dataset, open_splits
    from synthaug.version import __version__
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
