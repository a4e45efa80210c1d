"""No network, no shared caches: set before anything imports the libraries that read these at import."""

import os
import tempfile
from pathlib import Path

_HOME = tempfile.mkdtemp(prefix="synthaug-tests-")
os.environ.update(
    HF_HOME=_HOME,
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_DATASETS_CACHE=str(Path(_HOME) / "datasets"),
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    NO_ALBUMENTATIONS_UPDATE="1",
    SYNTHAUG_CACHE=str(Path(_HOME) / "synthaug"),
    TOKENIZERS_PARALLELISM="false",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402

torch.set_num_threads(1)
