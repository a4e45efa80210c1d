"""Class-conditional generators: their contract, the families, and the run folder that keeps a fitted one.

`ConditionalGenerator` is the contract and `GENERATORS` the registry. A family is one file or one folder that holds all
its own parts. `load_generator` loads a run folder, from disk or from the Hub.
"""

from __future__ import annotations

from synthaug.core import load_lazily

TYPE_CHECKING = False  # to type checkers it is that of `typing`, which takes a while to import

if TYPE_CHECKING:
    from synthaug.generators.base import ConditionalGenerator, Objective, Preset
    from synthaug.generators.cgan import CGAN
    from synthaug.generators.cvae import CVAE
    from synthaug.generators.glow import Glow
    from synthaug.generators.latents import Direction, Encoding, LatentSpace, find_directions, interpolate
    from synthaug.generators.pulling import load_generator, resolve_run
    from synthaug.generators.registry import GENERATORS
    from synthaug.generators.run_folder import (
        LATENTS,
        MAX_CLASSES,
        RUN_FILES,
        checkpoint_hash,
        explain_damage,
        find_family,
        is_run,
        load_run,
        load_snapshots,
        load_state,
        read_source,
        save_generator,
        save_snapshot,
        save_state,
        write_tensors,
    )
else:
    __getattr__, __dir__, __all__ = load_lazily(__name__)
