"""Tensors read from safetensors files, once the header shows that they are those that are wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = ["Layout", "TensorFile", "describe_tensors", "outline_module", "read_tensors"]

MAX_HEADER_BYTES = 16 * 2**20
"""Largest header that is read; one entry takes about a hundred bytes."""

_SPARE = 4
"""A module may register a parameter so many times before its last name stands."""

_TYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip

Layout = Mapping[str, tuple[torch.dtype, tuple[int | str, ...]]]
"""Name of a tensor -> its type and shape; a word in a shape stands for any one number, the same everywhere."""


@dataclass(frozen=True)
class TensorFile:
    """The header of a safetensors file.

    Args:
        path: The file.
        types: Name of each tensor -> its type, as safetensors writes it.
        shapes: Name of each tensor -> its shape.
        metadata: Texts by key.
    """

    path: Path
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> TensorFile:
        """Read the header of a file, and no tensor.

        Raises:
            ValueError: The file cannot be read, or its header is too large or damaged.
        """
        with _named(path):
            with path.open("rb") as start:
                size = int.from_bytes(start.read(8), "little")
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"its header has {size} bytes, more than {MAX_HEADER_BYTES}")
            with safe_open(path, framework="pt") as file:
                slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
                return cls(
                    path,
                    {name: str(part.get_dtype()) for name, part in slices.items()},
                    {name: tuple(part.get_shape()) for name, part in slices.items()},
                    dict(file.metadata() or {}),
                )

    def compare(self, wanted: Layout, *, complete: bool = True) -> None:
        """See that the file holds tensors of these names, types and shapes.

        Args:
            wanted: The tensors.
            complete: Whether all of them must be there; none but them may be.

        Raises:
            ValueError: The line names the file and the first tensor that differs.
        """
        known: dict[str, int] = {}
        for name in sorted({*wanted, *self.shapes}):
            if name not in self.shapes:
                if complete:
                    raise self._refuse(name, "is missing")
                continue
            if name not in wanted:
                raise self._refuse(name, "is not one of the model's")
            kind, shape = wanted[name]
            if self.types[name] != _TYPES.get(kind, str(kind)):
                raise self._refuse(name, f"is of type {self.types[name]}, not {_TYPES.get(kind, str(kind))}")
            given = self.shapes[name]
            sizes = [
                known.setdefault(n, size) if isinstance(n, str) else n for n, size in zip(shape, given, strict=False)
            ]
            if len(given) != len(shape) or list(given) != sizes:
                raise self._refuse(name, f"has the shape {_write(given)}, not {_write(shape)}")

    def _refuse(self, name: str, what: str) -> ValueError:
        return ValueError(f"{self.path.name}: tensor {name[:80]!r} {what}")


def _write(shape: tuple[int | str, ...]) -> str:
    return "x".join(map(str, shape)) or "()"


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let what goes wrong with a file be one line that names it."""
    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise ValueError(f"{path.name}: {reason}") from None


def describe_tensors(tensors: Mapping[str, Tensor]) -> Layout:
    """Return the layout of tensors, which may be without values (on the device "meta")."""
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def outline_module(make: Callable[[], nn.Module], file: TensorFile) -> nn.Module:
    """Return a module without values, made where no more parameters come together than the file has tensors.

    Args:
        make: Makes the module; its arguments may come from a stranger.
        file: Where its values would be read from.

    Raises:
        ValueError: It has more parameters.
    """
    count, most = 0, _SPARE * (len(file.shapes) + 1)

    def note(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(f"{file.path.name}: it holds fewer tensors than the model needs")

    hook = register_module_parameter_registration_hook(note)
    try:
        with torch.device("meta"):
            return make()
    finally:
        hook.remove()


def read_tensors(file: TensorFile | Path, wanted: Layout, *, complete: bool = True) -> dict[str, Tensor]:
    """Return the tensors of a file, after its header was compared with what is wanted.

    Args:
        file: The file.
        wanted: See `TensorFile.compare`.
        complete: Likewise.

    Raises:
        ValueError: The file cannot be read or holds other tensors; nothing was allocated for it.
    """
    file = file if isinstance(file, TensorFile) else TensorFile.open(file)
    file.compare(wanted, complete=complete)
    with _named(file.path), safe_open(file.path, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in file.shapes}
