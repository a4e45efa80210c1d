"""Repositories on the Hub: their names, and what is in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from synthaug.core.retries import find_status

__all__ = ["Remote", "is_repo_id", "look_up"]


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


def look_up(api: HfApi, repo_id: str, kind: str) -> Remote | None:
    """Return the repository as it is, None if there is none."""
    try:
        info = api.dataset_info(repo_id) if kind == "dataset" else api.model_info(repo_id)
    except RepositoryNotFoundError as error:
        if find_status(error) == 404:
            return None
        raise
    names = frozenset(sibling.rfilename for sibling in info.siblings or [])
    return Remote(info.sha or "", bool(info.private), names)
