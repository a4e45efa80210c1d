"""What a person reads, and what goes to the Hub.

Cards, charts and pictures are made of plain values: nothing here knows how a run, a dataset or a report came to be.
`push_folder` pushes a finished folder as it is.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.publishing.cards import drop_local_paths, name_public, render_dataset_card, render_model_card
    from synthaug.publishing.charts import draw_arms, draw_curves, draw_difference
    from synthaug.publishing.facts import VerdictFacts
    from synthaug.publishing.gallery import draw_closest, draw_pictures
    from synthaug.publishing.markdown import environment, escape_markdown
    from synthaug.publishing.numbers import percent, points, probability, spread
    from synthaug.publishing.pushing import check_name, check_push, push_folder
    from synthaug.publishing.scorecard import render_score_card
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
