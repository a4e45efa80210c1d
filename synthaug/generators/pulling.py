"""Run folders by their path, or pulled from the Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download

from synthaug.core import InputError, is_repo_id, look_up, retry
from synthaug.generators.base import ConditionalGenerator
from synthaug.generators.run_folder import LATENTS, RUN_FILES, load_run

__all__ = ["load_generator", "pull", "resolve_run"]


def pull(repo_id: str) -> Path:
    """Download a run folder from the Hub; no pickle is fetched.

    Args:
        repo_id: "user/name" of a model repository pushed by synthaug.

    Returns:
        The run folder in the Hub's cache.

    Raises:
        InputError: If there is no such repository, it holds no run, or it is needed offline and not cached.
        FailedError: If the Hub or the network fails for longer than the retries last.
    """
    if not constants.HF_HUB_OFFLINE:
        remote = retry(
            lambda: look_up(HfApi(), repo_id, "model"),
            doing=f"reading {repo_id} from the Hub, as there is no such folder here,",
            remedy="check the path, or try again later",
        )
        if remote is None:
            raise InputError(f"there is no model {repo_id!r} on the Hub, nor such a folder here; check the name")
        _check_holds_run(repo_id, remote.files)
    folder = retry(
        lambda: snapshot_download(repo_id, allow_patterns=[*RUN_FILES, LATENTS]),
        doing=f"downloading {repo_id}",
        remedy="try again later",
    )
    _check_holds_run(repo_id, {path.name for path in Path(folder).iterdir()})
    return Path(folder)


def load_generator(
    path_or_repo: str | Path, family: type[ConditionalGenerator] | None = None, *, device: str = "cpu"
) -> ConditionalGenerator:
    """Load a generator from a run folder or from the Hub, in eval mode.

    Args:
        path_or_repo: A run folder, or "user/name"; a folder wins.
        family: Your own class, when it is none of `GENERATORS`.
        device: Where to put it.

    Raises:
        InputError: If there is no such finished run, or its files do not fit each other.
    """
    return load_run(resolve_run(path_or_repo), family, device=device)


def resolve_run(path_or_repo: str | Path) -> Path:
    """Return the run folder meant by a path or, if there is no such path, by a Hub id.

    Raises:
        InputError: If it is neither.
    """
    if Path(path_or_repo).exists():
        return Path(path_or_repo)
    if isinstance(path_or_repo, str) and is_repo_id(path_or_repo):
        return pull(path_or_repo)
    raise InputError(f"run {str(path_or_repo)!r} is neither a folder nor a Hub id; give a run folder or user/name")


def _check_holds_run(repo_id: str, files: set[str] | frozenset[str]) -> None:
    """Raise unless the files are those of a run."""
    missing = [name for name in ("config.json", "model.safetensors") if name not in files]
    if missing:
        pickles = sorted(name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
        why = f"; {pickles[0]} is a pickle, and pickles are not loaded" if pickles else ""
        raise InputError(f"{repo_id!r} is no run of synthaug: {' and '.join(missing)} missing{why}; choose another")
