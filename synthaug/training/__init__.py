"""`fit`: from a labelled dataset to a finished run folder.

`plan` says what a fit will do, `loop` is the one training loop for all families, `completion` fits the judge, chooses
on validation rows and writes the run folder.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.training.costs import describe_costs
    from synthaug.training.fitting import fit
    from synthaug.training.plan import plan_fit
    from synthaug.training.tracking import check_tracker
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
