"""Push and pull: what lies on disk is what goes to the Hub, in one commit.

A dataset folder becomes a dataset repository, a run folder a model repository. Repositories are private
unless asked otherwise, and one that synthaug did not make is left alone.
"""

from __future__ import annotations

import fnmatch
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset, DatasetDict
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from synthaug.cards import merge_front_matter, read_front_matter
from synthaug.checkpoint import load_generator as load_run
from synthaug.errors import InputError
from synthaug.generators.base import ConditionalGenerator
from synthaug.retries import find_status, retry
from synthaug.uploads import LATENTS, RUN_FILES, Upload, as_folder, prepare

if TYPE_CHECKING:
    from synthaug.report import Report

__all__ = ["check_push", "is_repo_id", "load_generator", "pull", "push", "resolve_run"]


def push(
    what: Dataset | DatasetDict | str | Path,
    repo_id: str,
    *,
    report: Report | None = None,
    private: bool = True,
    force: bool = False,
    include_latents: bool = False,
) -> str:
    """Push a finished run folder, a dataset folder or a dataset to the Hub, in one commit.

    Pushing again replaces what an earlier push left; what a person added to the card's metadata stays.

    Args:
        what: A run folder, a dataset folder, or a dataset made by `generate` or `mix`.
        repo_id: "user/name".
        report: Its verdict is put in the card.
        private: Make a new repository private; an existing public one is then refused.
        force: Write over a repository that synthaug did not make.
        include_latents: Push latents.safetensors too, which is derived from training images.

    Returns:
        Address of the repository.

    Raises:
        InputError: If `what` is nothing finished, the repository is foreign or public, the token may not
            write, or the Hub is switched off (HF_HUB_OFFLINE).
        FailedError: If the Hub or the network fails for longer than the retries last.

    Example:
        >>> synthaug.push(augmented, "me/xrays-balanced", report=report)  # doctest: +SKIP
        'https://huggingface.co/datasets/me/xrays-balanced'
    """
    _check_name(repo_id)
    with as_folder(what, repo_id.split("/")[1]) as folder:
        upload = prepare(folder, repo_id, report, include_latents)
        check_push(repo_id)
        return retry(
            lambda: _push_once(HfApi(), upload, repo_id, private, force),
            doing=f"pushing to {repo_id}",
            remedy="nothing half-written is there; push the same again later",
        )


def check_push(repo_id: str) -> None:
    """See that a push could be tried, before anything is made for it.

    Raises:
        InputError: If `repo_id` is no Hub id, no token is there, or the Hub is switched off.
    """
    _check_name(repo_id)
    if get_token() is None:
        raise InputError(f"pushing to {repo_id} needs a token, and there is none; log in by `hf auth login`")


def _check_name(repo_id: str) -> None:
    if not is_repo_id(repo_id):
        raise InputError(f"repository {str(repo_id)!r} is no Hub id; give user/name (letters, digits, '-', '_', '.')")
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"pushing to {repo_id} needs the network, but HF_HUB_OFFLINE is set; unset it")


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
            lambda: _look(HfApi(), repo_id, "model"),
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


def is_repo_id(text: object) -> bool:
    """Return whether `text` has the form "user/name" of a Hub id."""
    if not isinstance(text, str) or len(text) > 96 or re.search(r"--|\.\.|\.git$", text):
        return False
    part = r"\w([\w.-]*\w)?"
    return re.fullmatch(rf"{part}/{part}", text, re.ASCII) is not None


@dataclass(frozen=True)
class Remote:
    """A repository as it is: its head, visibility and file names."""

    sha: str
    private: bool
    files: frozenset[str]


def _push_once(api: HfApi, upload: Upload, repo_id: str, private: bool, force: bool) -> str:
    """Look at the repository and write one commit on top of what was seen; called again after a race."""
    remote = _look(api, repo_id, upload.kind)
    if remote is None:
        api.create_repo(repo_id, repo_type=upload.kind, private=private, exist_ok=True)
        remote = _look(api, repo_id, upload.kind)
        if remote is None:
            raise ConnectionError(f"{repo_id} was made but is not there yet")
    if private and not remote.private:
        raise InputError(f"{repo_id} is public; push with private=False, or to another name")
    card = _check_ours(api, repo_id, upload.kind, remote, force)
    files = {**upload.files, "README.md": merge_front_matter(upload.card, card).encode()}
    stale = [path for path in remote.files - set(files) if any(fnmatch.fnmatch(path, own) for own in upload.own)]
    _announce(upload, repo_id, remote, private)
    api.create_commit(
        repo_id,
        [
            *(CommitOperationDelete(path) for path in sorted(stale)),
            *(CommitOperationAdd(path, file) for path, file in files.items()),
        ],
        repo_type=upload.kind,
        commit_message=f"Push {upload.kind} with synthaug",
        parent_commit=remote.sha,
    )
    return f"{api.endpoint}/{'datasets/' if upload.kind == 'dataset' else ''}{repo_id}"


def _announce(upload: Upload, repo_id: str, remote: Remote, private: bool) -> None:
    """Say what is about to be written; nothing is said before the checks, so that an error stays one line."""
    visibility = "private" if remote.private else "public"
    print(f"pushing {len(upload.files)} files to the {visibility} {upload.kind} {repo_id}", file=sys.stderr)
    if remote.private and not private:
        print(f"note: {repo_id} stays private; change that in its settings on the Hub", file=sys.stderr)
    for note in upload.notes:
        print(f"note: {note}", file=sys.stderr)


def _look(api: HfApi, repo_id: str, kind: str) -> Remote | None:
    """Return the repository as it is, None if there is none."""
    try:
        info = api.dataset_info(repo_id) if kind == "dataset" else api.model_info(repo_id)
    except RepositoryNotFoundError as error:
        if find_status(error) == 404:
            return None
        raise
    names = frozenset(sibling.rfilename for sibling in info.siblings or [])
    return Remote(info.sha or "", bool(info.private), names)


def _check_ours(api: HfApi, repo_id: str, kind: str, remote: Remote, force: bool) -> str:
    """Return the card of a repository that synthaug made, "" for an empty one.

    Raises:
        InputError: If somebody else's files are in it and `force` is not set.
    """
    if not remote.files - {".gitattributes"}:
        return ""
    card = ""
    if "README.md" in remote.files:
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(repo_id, "README.md", repo_type=kind, revision=remote.sha, local_dir=folder)
            card = Path(path).read_text(encoding="utf-8", errors="replace")
    tags = read_front_matter(card).get("tags")
    if isinstance(tags, list) and "synthaug" in tags:
        return card
    if not force:
        raise InputError(f"{repo_id} exists and was not made by synthaug; push to another name, or add force=True")
    return ""


def _check_holds_run(repo_id: str, files: set[str] | frozenset[str]) -> None:
    """Raise unless the files are those of a run."""
    missing = [name for name in ("config.json", "model.safetensors") if name not in files]
    if missing:
        pickles = sorted(name for name in files if name.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
        why = f"; {pickles[0]} is a pickle, and pickles are not loaded" if pickles else ""
        raise InputError(f"{repo_id!r} is no run of synthaug: {' and '.join(missing)} missing{why}; choose another")
