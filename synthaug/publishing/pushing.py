"""Push: what lies on disk is what goes to the Hub, in one commit.

A dataset folder becomes a dataset repository, a run folder a model repository. Repositories are private
unless asked otherwise, and one that synthaug did not make is left alone.
"""

from __future__ import annotations

import fnmatch
import sys
import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

from synthaug.core import InputError, Remote, is_repo_id, look_up, retry
from synthaug.publishing.cards import merge_front_matter, read_front_matter
from synthaug.publishing.facts import VerdictFacts
from synthaug.publishing.uploads import Upload, prepare

__all__ = ["check_name", "check_push", "push_folder"]


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    verdict: VerdictFacts | None = None,
    private: bool = True,
    force: bool = False,
    include_latents: bool = False,
) -> str:
    """Push a finished run folder or dataset folder to the Hub, in one commit.

    Pushing again replaces what an earlier push left; what a person added to the card's metadata stays.

    Args:
        folder: A run folder or a dataset folder.
        repo_id: "user/name".
        verdict: What a benchmark found; it is put in the card.
        private: Make a new repository private; an existing public one is then refused.
        force: Write over a repository that synthaug did not make.
        include_latents: Push latents.safetensors too, which is derived from training images.

    Returns:
        Address of the repository.

    Raises:
        InputError: If the folder is nothing finished, the repository is foreign or public, the token may not
            write, or the Hub is switched off (HF_HUB_OFFLINE).
        FailedError: If the Hub or the network fails for longer than the retries last.
    """
    check_name(repo_id)
    upload = prepare(Path(folder), repo_id, verdict, include_latents)
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
    check_name(repo_id)
    if get_token() is None:
        raise InputError(f"pushing to {repo_id} needs a token, and there is none; log in by `hf auth login`")


def check_name(repo_id: str) -> None:
    """See that a repository may have this name, and that the Hub may be asked.

    Raises:
        InputError: If `repo_id` is no Hub id, or the Hub is switched off.
    """
    if not is_repo_id(repo_id):
        raise InputError(f"repository {str(repo_id)!r} is no Hub id; give user/name (letters, digits, '-', '_', '.')")
    if constants.HF_HUB_OFFLINE:
        raise InputError(f"pushing to {repo_id} needs the network, but HF_HUB_OFFLINE is set; unset it")


def _push_once(api: HfApi, upload: Upload, repo_id: str, private: bool, force: bool) -> str:
    """Look at the repository and write one commit on top of what was seen; called again after a race."""
    remote = look_up(api, repo_id, upload.kind)
    if remote is None:
        api.create_repo(repo_id, repo_type=upload.kind, private=private, exist_ok=True)
        remote = look_up(api, repo_id, upload.kind)
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
