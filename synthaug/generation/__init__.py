"""`generate`: from a generator and a plan to a dataset.

Images are drawn in blocks, in the order of their draws. A filter accepts or rejects them. The first accepted draws of
each class are written as rows. `mix` and `strip` put real and synthetic rows together and apart.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.generation.blocks import NUM_THREADS, BlockPool, Key, Sampler, fixed_threads
    from synthaug.generation.dataset_folder import ShardFolder, read_earlier
    from synthaug.generation.export import DATASET_FILES, write_dataset
    from synthaug.generation.generating import generate, write_rows
    from synthaug.generation.jobs import name_generator, resolve_filter
    from synthaug.generation.mixing import mix, strip
    from synthaug.generation.png import encode_png
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
