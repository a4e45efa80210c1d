"""The run folder: what a fit leaves behind, and the state from which it resumes.

Files appear by atomic rename; a state folder is complete (every file listed with its sha256) or ignored.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from synthaug.core import (
    InputError,
    Layout,
    RankError,
    TensorFile,
    claim,
    describe_tensors,
    hash_file,
    is_listed,
    outline_module,
    publish,
    read_tensors,
    remove,
    suggest,
    temporary_name,
    write_file,
)
from synthaug.generators.base import ConditionalGenerator
from synthaug.generators.registry import GENERATORS

__all__ = [
    "LATENTS",
    "RUN_FILES",
    "checkpoint_hash",
    "explain_damage",
    "find_family",
    "is_run",
    "load_run",
    "load_snapshots",
    "load_state",
    "read_source",
    "save_generator",
    "save_snapshot",
    "save_state",
    "write_tensors",
]

LATENTS = "latents.safetensors"
RUN_FILES = (
    "README.md", "config.json", "model.safetensors", "judge.safetensors", "source.json", "recipe.yaml",
    "log.jsonl", "samples/*.png",
)  # fmt: skip

MAX_CLASSES, MAX_PARAMETERS = 100_000, 2_000_000_000

_MANIFEST = "manifest.json"
"""File of a state that lists the others with their hashes; it is written last."""


def find_family(family: str | type[ConditionalGenerator]) -> type[ConditionalGenerator]:
    """Return the generator class for a registered name, or the class itself.

    Raises:
        InputError: If the name is unknown.
    """
    if isinstance(family, type) and issubclass(family, ConditionalGenerator):
        return family
    if family not in GENERATORS:
        allowed = ", ".join(GENERATORS)
        raise InputError(f"unknown generator {family!r}{suggest(str(family), GENERATORS)}; choose one of {allowed}")
    return GENERATORS[family]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as a safetensors file, by atomic rename."""
    temporary = temporary_name(claim(path, replace=True))
    # safetensors refuses shared and non-contiguous tensors
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary, metadata=metadata)
    publish(temporary, path)


# ---------------------------------------------------------------------------------------------- finished run


def is_run(folder: str | Path) -> bool:
    """Tell whether `folder` holds a finished run (config.json is written last)."""
    return (Path(folder) / "config.json").is_file() and (Path(folder) / "model.safetensors").is_file()


def save_generator(folder: Path, generator: ConditionalGenerator, config: Mapping[str, Any]) -> None:
    """Write model.safetensors and then config.json, whose presence says that the run is finished.

    Args:
        folder: The run folder.
        generator: The generator with its averaged weights.
        config: Keyword arguments of its constructor.
    """
    write_tensors(folder / "model.safetensors", generator.state_dict(), {"format": "pt"})
    if generator.latents:
        write_tensors(folder / "latents.safetensors", generator.latents, {"format": "pt"})
    content = {"family": generator.family, "version": generator.version, **config}
    write_file(folder / "config.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    generator.run_folder = folder


def load_run(
    folder: str | Path, family: type[ConditionalGenerator] | None = None, *, device: str = "cpu"
) -> ConditionalGenerator:
    """Load the generator of a finished run, in eval mode.

    Args:
        folder: A run folder.
        family: Class to use instead of the registered one named in config.json.
        device: Where to put it, as torch names it.

    Raises:
        InputError: If the folder is no finished run, its files do not fit each other, or there is no such device.
    """
    folder = Path(folder)
    if not is_run(folder):
        hint = "run the same fit again to finish it" if (folder / "state").is_dir() else "give the output of a fit"
        raise InputError(f"{str(folder)!r} is not a finished run (no config.json and model.safetensors); {hint}")
    with explain_damage(folder):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = config.pop("family")
        cls, version = family or find_family(name), config.pop("version", None)
        if version not in (None, cls.version):
            raise ValueError(f"it is of {name} version {version}, and this synthaug has version {cls.version}")
        if len(config["class_names"]) > MAX_CLASSES:
            raise ValueError(f"{len(config['class_names'])} classes")
        file = TensorFile.open(folder / "model.safetensors")
        blank = outline_module(lambda: cls(**config), file)  # a hostile config must not allocate
        size = sum(p.numel() for p in blank.parameters())
        if size > MAX_PARAMETERS:
            raise ValueError(f"{size} parameters are more than {MAX_PARAMETERS}")
        weights = read_tensors(file, describe_tensors(blank.state_dict()))
        generator = cls(**config)
        generator.load_state_dict(weights, strict=True)
        if (folder / "latents.safetensors").is_file():
            generator.recall(read_tensors(folder / "latents.safetensors", generator.latent_layout()))
    generator.run_folder = folder
    try:
        return generator.to(device).eval()
    except (AssertionError, RuntimeError) as error:  # torch has one for each way not to have a device
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"device {device!r} cannot be used here ({reason}); give 'cpu'") from None


@contextlib.contextmanager
def explain_damage(folder: Path) -> Iterator[None]:
    """Context in which an error about the files of a run becomes one line with a remedy.

    Args:
        folder: The run folder.

    Raises:
        InputError: What is wrong.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"run {str(folder)!r} cannot be loaded: {reason}; fit it again with fresh=True") from None


def read_source(folder: str | Path) -> dict[str, Any]:
    """Return source.json: columns, features, class counts, codec and pixel hashes of the rows fitted on.

    Raises:
        InputError: If the folder has none.
    """
    path = Path(folder) / "source.json"
    if not path.is_file():
        raise InputError(f"{str(folder)!r} has no source.json; it is not a run made by synthaug fit")
    return dict(json.loads(path.read_text(encoding="utf-8")))


def checkpoint_hash(folder: str | Path) -> str:
    """Return the sha256 of model.safetensors."""
    return hash_file(Path(folder) / "model.safetensors")


def save_snapshot(folder: Path, number: int, module: nn.Module) -> None:
    """Keep the weights of `module` as one of the candidates for the end of the fit."""
    write_tensors(folder / "state" / f"snapshot-{number}.safetensors", module.state_dict())


def load_snapshots(folder: Path, module: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return the weights of a module that this fit kept on the way, by file name, the earliest first."""
    wanted = describe_tensors(module.state_dict())
    paths = sorted((folder / "state").glob("snapshot-*.safetensors"))
    with explain_damage(folder):
        return {path.stem: read_tensors(path, wanted) for path in paths if is_listed(path)}


# ------------------------------------------------------------------------------------------------- resume state


def save_state(
    folder: Path,
    *,
    images_seen: int,
    modules: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    progress: Mapping[str, Any],
    fit: str = "",
    keep: int = 2,
) -> None:
    """Save everything a resume needs as one folder, which counts once its manifest is there.

    Args:
        folder: The run folder; the state goes into state/images-<n>/.
        images_seen: Images seen so far; names the state.
        modules: Modules by file name.
        optimizers: Optimisers in the order of the objectives.
        progress: JSON-able counters.
        fit: Digest of the recipe and the rows.
        keep: How many states stay.
    """
    target = folder / "state" / f"images-{images_seen:015d}"
    if (target / _MANIFEST).is_file() and not _verify(target, fit):
        return  # stopped right after it was saved
    tensors = {name: module.state_dict() for name, module in modules.items()}
    tensors |= {f"optimizer-{index}": _flatten(optimizer) for index, optimizer in enumerate(optimizers)}
    files = [target / f"{name}.safetensors" for name in tensors]
    try:
        remove(target / _MANIFEST)
        for path, values in zip(files, tensors.values(), strict=True):
            write_tensors(path, values)
        content = {"fit": fit, "progress": dict(progress), "files": {path.name: hash_file(path) for path in files}}
        write_file(target / _MANIFEST, json.dumps(content, indent=2), replace=True)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            for path in files:
                remove(path)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise RankError(f"cannot save to {folder}: {reason}; free space and run the same command again") from error
    found = _list_states(folder)
    complete = [state for state in found if (state / _MANIFEST).is_file()]
    for old in [state for state in found if state not in complete[-keep:]]:
        for name in (_MANIFEST, *(path.name for path in files)):  # the manifest first: without it there is no state
            remove(old / name)


def _list_states(folder: Path) -> list[Path]:
    """Return the folders of the states, the newest last."""
    return sorted((folder / "state").glob("images-" + "[0-9]" * 15))


def load_state(
    folder: Path, *, modules: Mapping[str, nn.Module], optimizers: Sequence[torch.optim.Optimizer], fit: str = ""
) -> tuple[dict[str, Any] | None, list[str]]:
    """Restore the newest state that verifies.

    Args:
        folder: The run folder.
        modules: Modules by file name, restored in place.
        optimizers: Optimisers in the order of the objectives, restored in place.
        fit: Digest of the recipe and the rows.

    Returns:
        Its counters (None when there is no good state) and a line for each newer state passed over.

    Raises:
        InputError: If a state belongs to another fit.
    """
    rejected: list[str] = []
    for state in reversed(_list_states(folder)):
        if not (state / _MANIFEST).is_file():
            continue  # the fit was killed while it saved
        reason = _verify(state, fit)
        if reason:
            rejected.append(f"{state.name}: {reason}")
            continue
        with explain_damage(folder):
            for name, module in modules.items():
                wanted = describe_tensors(module.state_dict())
                module.load_state_dict(read_tensors(state / f"{name}.safetensors", wanted), strict=True)
            for index, optimizer in enumerate(optimizers):
                path = state / f"optimizer-{index}.safetensors"
                _unflatten(optimizer, read_tensors(path, _describe_state(optimizer), complete=False))
        return dict(json.loads((state / _MANIFEST).read_text(encoding="utf-8"))["progress"]), rejected
    return None, rejected


def _verify(state: Path, fit: str) -> str:
    """Return what is wrong with a state folder, or an empty string.

    Raises:
        InputError: If the state belongs to another fit.
    """
    try:
        content = json.loads((state / _MANIFEST).read_text(encoding="utf-8"))
        owner, files, _ = content.get("fit"), dict(content.get("files", {})), dict(content.get("progress", {}))
    except (OSError, ValueError, AttributeError, TypeError):
        return "no readable manifest"
    if owner != fit:
        raise InputError(
            f"{str(state)!r} is the state of a fit with another recipe or other rows, or of an earlier version; "
            "remove it, or give another output folder"
        )
    for name, digest in files.items():
        path = state / name
        if path.parent != state:
            return f"its manifest names {name!r}, a file elsewhere"
        if not path.is_file():
            return f"{name} is missing"
        if hash_file(path) != digest:
            return f"{name} does not match its sha256"
    return ""


def _flatten(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": torch.as_tensor(value)
        for index, values in state.items()
        for key, value in values.items()
        if value is not None
    }


def _describe_state(optimizer: torch.optim.Optimizer) -> Layout:
    """Return the layout of what `_flatten` makes; before its first step an optimiser holds none of it."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    wanted: dict[str, tuple[torch.dtype, tuple[int | str, ...]]] = {}
    for index, parameter in enumerate(parameters):
        moment = parameter.dtype, tuple(parameter.shape)
        wanted |= {f"{index}.{key}": moment for key in ("exp_avg", "exp_avg_sq")}
        wanted[f"{index}.step"] = torch.float32, ()
    return wanted


def _unflatten(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
