"""Looking at a run without training on its rows: `evaluate`, `explore` and `score`."""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.analysis.evaluation import Evaluation, evaluate
    from synthaug.analysis.exploration import Exploration, explore
    from synthaug.analysis.scoring import Scores, score
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
