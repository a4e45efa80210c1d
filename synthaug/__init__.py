"""synthaug: synthetic data augmentation for labelled images, with the evidence beside it.

Names are loaded when they are first used, so that `import synthaug` costs nothing.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.analysis import (
        Evaluation as Evaluation,
        Exploration as Exploration,
        Scores as Scores,
        evaluate as evaluate,
        explore as explore,
        score as score,
    )
    from synthaug.balance import BalancePlan as BalancePlan
    from synthaug.benchmarks import Advice as Advice, Report as Report, benchmark as benchmark, recommend as recommend
    from synthaug.core import (
        FailedError as FailedError,
        InputError as InputError,
        StoppedError as StoppedError,
        __version__ as __version__,
    )
    from synthaug.data import (
        inspect_dataset as inspect_dataset,
        load_images as load_images,
        open_dataset as open_dataset,
        open_splits as open_splits,
        plan_balance as plan_balance,
    )
    from synthaug.generation import generate as generate, mix as mix, strip as strip
    from synthaug.generators import (
        CGAN as CGAN,
        CVAE as CVAE,
        GENERATORS as GENERATORS,
        ConditionalGenerator as ConditionalGenerator,
        Glow as Glow,
        Objective as Objective,
        Preset as Preset,
        load_generator as load_generator,
    )
    from synthaug.journey import push as push
    from synthaug.loaders import (
        MixedDataset as MixedDataset,
        MixedIterable as MixedIterable,
        ReplaceWithSynthetic as ReplaceWithSynthetic,
        SynthAugSampler as SynthAugSampler,
    )
    from synthaug.training import fit as fit
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
