"""Networks that an evaluation has trained, kept until it is finished, so that an interrupt costs one training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load, save
from torch import nn

from synthaug.core import is_listed, remove, write_file

__all__ = ["NetworkCache"]

_FOLDER = "trained"

Network = TypeVar("Network", bound=nn.Module)


class NetworkCache:
    """Trained networks by name, as files in a folder.

    Args:
        output: Folder of the evaluation; None keeps nothing.
        arguments: What decides the trainings, JSON-friendly: networks kept under other arguments are not found.
    """

    def __init__(self, output: Path | None, arguments: Mapping[str, Any]) -> None:
        digest = hashlib.sha256(json.dumps(dict(arguments), sort_keys=True).encode()).hexdigest()[:16]
        self._root = None if output is None else output / _FOLDER
        self._folder = None if self._root is None else self._root / digest

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def fetch(self, name: str, make: Callable[[], Network], train: Callable[[], Network]) -> Network:
        """Return the network kept under a name, or train it and keep it.

        Args:
            name: Name of the training.
            make: Returns the network untrained, on its device.
            train: Returns it trained.
        """
        path = None if self._folder is None else self._folder / f"{name}.safetensors"
        if path is not None and is_listed(path):
            network = make()
            network.load_state_dict(load(path.read_bytes()))
            return network.eval()
        network = train()
        if path is not None:
            tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
            write_file(path, save(tensors), replace=True)
        return network

    def clear(self) -> None:
        """Remove everything that is kept."""
        if self._folder is not None:
            for path in sorted(self._folder.glob("*.safetensors")):
                remove(path)
