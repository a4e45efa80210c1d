"""The families of generators. `GENERATORS` is the whole registry."""

from __future__ import annotations

from synthaug.generators.base import ConditionalGenerator, Objective, Preset
from synthaug.generators.cgan import CGAN
from synthaug.generators.cvae import CVAE
from synthaug.generators.glow import Glow

__all__ = ["CGAN", "CVAE", "GENERATORS", "ConditionalGenerator", "Glow", "Objective", "Preset"]

GENERATORS: dict[str, type[ConditionalGenerator]] = {"cvae": CVAE, "cgan": CGAN, "glow": Glow}
