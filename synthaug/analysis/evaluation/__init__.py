"""`evaluate`: what the rows of a generator are worth on their own.

Classification accuracy score, wrong classes, fidelity and variety, and copies of training rows.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.analysis.evaluation.evaluating import evaluate
    from synthaug.analysis.evaluation.report import Evaluation
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
