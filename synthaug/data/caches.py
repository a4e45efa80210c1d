"""What is kept between commands: entries of the cache folder, and what tells whether a file is still the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from synthaug.core import FailedError

__all__ = ["cache_folder", "digest_files", "keep_entry"]


def cache_folder() -> Path:
    """Return the folder named by SYNTHAUG_CACHE, by default ~/.cache/synthaug, made if need be.

    Raises:
        FailedError: It cannot be made.
    """
    try:
        folder = Path(os.environ.get("SYNTHAUG_CACHE") or Path.home() / ".cache" / "synthaug").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # the latter: no home folder
        raise _refuse(error) from error
    return folder


def _refuse(error: Exception) -> FailedError:
    reason = getattr(error, "strerror", None) or error
    return FailedError(f"the cache folder cannot be written ({reason}); name a folder in SYNTHAUG_CACHE")


def digest_files(paths: Iterable[str | Path]) -> str:
    """Return a sha256 that changes when one of these files is changed or replaced.

    Content is not read. A program can set a file's time of modification, but not the time at which the file system
    last changed its entry (ctime), and a file moved into its place is another one (inode).
    """
    digest = hashlib.sha256()
    for path in paths:
        status = Path(path).stat()
        figures = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
        digest.update(f"{path}\0{figures}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def keep_entry(name: str, make: Callable[[Path], None]) -> Path:
    """Return the cache's entry of this name, made if it is not there; it is complete or not there.

    Args:
        name: Tells everything that the entry depends on.
        make: Fills a new folder.

    Raises:
        FailedError: The cache folder cannot be written.
    """
    entry = cache_folder() / name
    if entry.exists():
        return entry
    try:
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=entry.parent))
    except OSError as error:
        raise _refuse(error) from error
    try:
        make(folder)
        try:
            folder.rename(entry)
        except OSError:
            if not entry.exists():  # else another process was faster, and its entry is as good
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return entry
