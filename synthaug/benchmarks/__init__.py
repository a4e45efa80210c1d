"""`benchmark` and `recommend`: whether synthetic rows help a classifier.

Every arm is trained with the same work and paired seeds. Choices are made on validation rows, the verdict on test rows.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.benchmarks.advice import Advice
    from synthaug.benchmarks.benchmarking import benchmark
    from synthaug.benchmarks.command import benchmark_datasets, load_like_run, resolve_judge
    from synthaug.benchmarks.recommendation import recommend
    from synthaug.benchmarks.report import Report
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
