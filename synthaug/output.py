"""The output folder of a command, and atomic writing.

A command holds a lock on its folder while it writes there. A hidden file, the mark, says which command made the folder,
with which arguments, and lists every file that the command wrote, with its sha256. Only a listed file is used again by
a later call or removed by `--fresh`; a user's own files are never touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from synthaug.errors import FailedError, InputError
from synthaug.signals import stopped_at_once

__all__ = [
    "MARK",
    "Earlier",
    "OutputFolder",
    "claim",
    "compare_arguments",
    "hash_file",
    "is_listed",
    "list_files",
    "move_folder",
    "publish",
    "remove",
    "temporary_name",
    "write_file",
]

MARK = ".synthaug"
"""Name of the mark in an output folder. It is hidden, and never pushed."""

_LOCK = ".lock"
_FORMAT = 1

Earlier = Callable[[], tuple[Mapping[str, Any], bool] | None]
"""Returns arguments and "finished" of a folder that was made before there were marks, or None."""


@dataclass
class _Mark:
    """What a mark says."""

    command: str
    arguments: dict[str, Any]
    files: dict[str, str | None] = field(default_factory=dict)
    """Path in the folder -> sha256; None while the file is being written."""
    folders: set[str] = field(default_factory=set)
    """Output folders of other commands that this command called."""
    finished: bool = False

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Take in a line of the file."""
        if "arguments" in entry:
            self.arguments = dict(entry["arguments"])
        if "finished" in entry:
            self.finished = entry["finished"] is True
        if "folder" in entry:
            self.folders.add(_checked_name(entry["folder"]))
        if "file" in entry:
            name = _checked_name(entry["file"])
            if entry.get("removed"):
                self.files.pop(name, None)
            else:
                digest = entry.get("sha256")
                self.files[name] = None if digest is None else str(digest)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the fewest lines that say the same."""
        yield {"synthaug": _FORMAT, "command": self.command, "arguments": self.arguments}
        yield from ({"file": name, "sha256": digest} for name, digest in sorted(self.files.items()))
        yield from ({"folder": name} for name in sorted(self.folders))
        if self.finished:
            yield {"finished": True}


class OutputFolder:
    """A folder that one command makes, resumes or finds finished; use it as a context.

    While the context is open, every file that `write_file`, `publish` or `claim` puts into the folder is listed in its
    mark. An output folder that is opened inside an open one belongs to it. A SIGINT or SIGTERM ends the work where it
    is, unless that work handles them.

    Args:
        path: The folder; it is made if need be.
        command: Name of the command.
        arguments: JSON-friendly values that decide the content, a digest of the input rows among them. The same
            values resume the folder or find it finished.
        fresh: Remove what an earlier call of the command left.
        earlier: How to read a folder without a mark, which an earlier version made.

    Raises:
        InputError: If another process writes the folder, it was made with other arguments or by another command, it
            holds files that the command did not make, or it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        command: str,
        arguments: Mapping[str, Any],
        *,
        fresh: bool = False,
        earlier: Earlier | None = None,
    ) -> None:
        self.path = Path(path)
        self._root = self.path.resolve()
        self._command, self._fresh, self._earlier = command, fresh, earlier
        self._arguments = json.loads(json.dumps(dict(arguments)))  # compare what JSON keeps: tuples become lists
        self._mark = _Mark(command, self._arguments)
        self._new, self._unlisted = True, False
        self._file: IO[str] | None = None
        self._writing = threading.Lock()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> OutputFolder:
        if self.path.is_file():
            raise InputError(f"output {str(self.path)!r} is a file; give a folder")
        with contextlib.ExitStack() as stack:
            stack.enter_context(stopped_at_once("run the same command again"))
            stack.enter_context(_locked(self.path))
            if self._fresh:
                self._clear()
            else:
                self._take_up()
            self._file = stack.enter_context((self._root / MARK).open("a", encoding="utf-8"))
            stack.callback(self._leave)
            parent = _find_owner(self._root)
            _OPEN.append(self)
            if parent is not None:
                parent[0]._adopt(parent[1])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self.check()
            elif issubclass(kind, InputError) and self._new:  # a command that refuses its input leaves nothing
                self._remove_listed()

    def has_finished(self, *files: str) -> bool:
        """Tell whether an earlier call finished, and the files that it is known by are there.

        Args:
            files: Their names.
        """
        return self._mark.finished and all((self._root / name).is_file() for name in files)

    def finish(self) -> None:
        """Note that the folder is complete."""
        self.check()
        self._mark.finished = True
        with self._writing:
            _write_atomically(self._root / MARK, _dump(self._mark))

    def check(self) -> None:
        """Raise `FailedError` if the folder was removed since it was opened."""
        try:
            there = (self._root / MARK).stat().st_ino
        except OSError:
            there = -1
        if self._file is not None and not self._mark.finished and os.fstat(self._file.fileno()).st_ino != there:
            raise FailedError(f"output {str(self.path)!r} was removed while it was written; run the same command again")

    # ------------------------------------------------------------------------------------------------ opening

    def _take_up(self) -> None:
        """Compare the folder with this call, and begin a mark where there is none."""
        mark = _read_mark(self._root)
        if mark is not None:
            self._check_command(mark)
            compare_arguments(self.path, mark.arguments, self._arguments)
            self._mark, self._new = mark, False
            return
        before = None if self._earlier is None else self._earlier()
        if before is not None:
            arguments, finished = before
            compare_arguments(self.path, arguments, self._arguments)
            self._mark.finished, self._new, self._unlisted = finished, False, True
        elif present := self._foreign_files({}):
            raise InputError(
                f"output {str(self.path)!r} holds {_count(present)} not made by synthaug {self._command}; "
                "give another folder"
            )
        _write_atomically(self._root / MARK, _dump(self._mark))

    def _clear(self) -> None:
        """Remove every file that an earlier call made, after a check that there is nothing else."""
        mark = _read_mark(self._root)
        listed = {} if mark is None else _list_all(self._root, mark)
        if mark is not None:
            self._check_command(mark)
        if foreign := self._foreign_files(listed):
            made = "not made by this command, or changed since" if mark else f"not made by synthaug {self._command}"
            raise InputError(
                f"output {str(self.path)!r} holds {_count(foreign)} {made}, which fresh=True does not remove; "
                "move it away or give another folder"
            )
        if mark is not None:
            mark.arguments, mark.finished = self._arguments, False  # so an interrupted removal counts as this call
            _write_atomically(self._root / MARK, _dump(mark))
        _remove_files(self._root, listed)
        _write_atomically(self._root / MARK, _dump(self._mark))

    def _check_command(self, mark: _Mark) -> None:
        if mark.command != self._command:
            raise InputError(f"output {str(self.path)!r} was made by synthaug {mark.command}; give another folder")

    def _foreign_files(self, listed: Mapping[Path, str | None]) -> list[str]:
        """Return the visible files that are not listed, or not as they were; other output folders are left out."""
        found = []
        for place, folders, files in os.walk(self._root):
            here = Path(place)
            names = [*files, *(name for name in folders if (here / name).is_symlink())]
            for name in sorted(name for name in names if not name.startswith(".")):
                path = here / name
                if path not in listed or not _is_same(path, listed[path]):
                    found.append(path.relative_to(self._root).as_posix())
            own = {path.parent for path in listed if path.name == MARK}
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and (here / name in own or not (here / name / MARK).is_file())
            )
        return found

    # ------------------------------------------------------------------------------------------------ listing

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._file is None:
            return
        with self._writing:
            if self._mark.finished and not entry.get("finished"):  # a finished folder is repaired
                self._mark.finished = False
                self._mark.apply(entry)
                _write_atomically(self._root / MARK, _dump(self._mark))
                self._file.close()
                self._file = (self._root / MARK).open("a", encoding="utf-8")
                return
            self.check()
            self._mark.apply(entry)
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            self._file.flush()

    def _claim(self, name: str) -> None:
        path = self._root / name
        self.check()
        if name not in self._mark.files and not self._unlisted and (path.exists() or path.is_symlink()):
            raise InputError(
                f"output {str(self.path)!r} holds {name!r}, which this command did not make and would write; "
                "move it away or give another folder"
            )
        if self._mark.files.get(name, "") is not None:
            self._append({"file": name, "sha256": None})

    def _adopt(self, name: str) -> None:
        """Note an output folder that a command called by this one makes."""
        if name not in self._mark.folders:
            self._append({"folder": name})

    def _remove_listed(self) -> None:
        """Remove what this call has made so far."""
        _remove_files(self._root, _list_all(self._root, self._mark))
        self._mark.files.clear()
        self._mark.folders.clear()

    def _leave(self) -> None:
        """Close the mark; without a file that it lists it goes."""
        _OPEN.remove(self)
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._new and not (self._mark.files or self._mark.folders or self._mark.finished):
            (self._root / MARK).unlink(missing_ok=True)


_OPEN: list[OutputFolder] = []
"""The output folders that are open in this process, the innermost last."""


def _find_owner(path: Path) -> tuple[OutputFolder, str] | None:
    """Return the open output folder that a path lies in, and the path in it."""
    place = path.parent.resolve() / path.name
    for folder in reversed(_OPEN):
        if folder._root in place.parents:
            return folder, place.relative_to(folder._root).as_posix()
    return None


# ------------------------------------------------------------------------------------------------------- files


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file by atomic rename and list it in the output folder that it lies in.

    Args:
        path: Where it appears, complete or not at all; its folder is made if need be.
        content: Its bytes, or text to encode as UTF-8.
    """
    claim(path)
    temporary = temporary_name(path)
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    publish(temporary, path)


def temporary_name(path: Path) -> Path:
    """Return under which hidden name a file is written before it appears."""
    return path.with_name(f".{path.name}.tmp")


def claim(path: Path) -> Path:
    """Make the folder of a file that will be written, and list the file in its output folder.

    Args:
        path: The file.

    Returns:
        The same path.

    Raises:
        InputError: If there is a file of that name that the command did not make.
        FailedError: If the output folder was removed.
    """
    if found := _find_owner(path):
        owner, name = found
        owner._claim(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def publish(temporary: Path, path: Path, sha256: str | None = None) -> None:
    """Make a finished temporary file appear under its name, on the disk too, and list it.

    Args:
        temporary: The file, in the same folder.
        path: Its name.
        sha256: Its hash where it is known.
    """
    found = _find_owner(path)
    digest = sha256 or (hash_file(temporary) if found else None)
    claim(path)
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)
    if found:
        owner, name = found
        owner._append({"file": name, "sha256": digest})


def list_files(*paths: Path, final: bool = True) -> None:
    """List files that are there already and were written by somebody else for the command, such as a tracker's.

    Args:
        paths: The files.
        final: Whether they are complete, so that their hashes are taken.
    """
    for path in paths:
        if path.is_file() and (found := _find_owner(path)):
            owner, name = found
            digest = hash_file(path) if final else None
            if owner._mark.files.get(name, "") != digest:
                owner._append({"file": name, "sha256": digest})


def move_folder(source: Path, target: Path) -> None:
    """Rename a folder of listed files, all at once.

    Args:
        source: The folder.
        target: Its new name.
    """
    before, after = _find_owner(source), _find_owner(target)
    if before is None or after is None:
        source.rename(target)
        return
    owner, start = before
    moved = {name: digest for name, digest in owner._mark.files.items() if name.startswith(f"{start}/")}
    for name, digest in moved.items():
        owner._append({"file": after[1] + name.removeprefix(start), "sha256": digest})
    source.rename(target)
    for name in moved:
        owner._append({"file": name, "removed": True})


def remove(path: Path) -> None:
    """Remove a file that the command made, and its folder if that is then empty.

    Args:
        path: The file; it stays if the output folder that it lies in does not list it as it is.
    """
    if found := _find_owner(path):
        owner, name = found
        if not is_listed(path):
            return
        owner._append({"file": name, "removed": True})
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # succeeds only when it is empty


def is_listed(path: Path) -> bool:
    """Tell whether a file is one that the command made, unchanged; True outside output folders.

    Args:
        path: The file.
    """
    found = _find_owner(path)
    if found is None or found[0]._unlisted:
        return path.is_file()
    owner, name = found
    return name in owner._mark.files and _is_same(path, owner._mark.files[name])


def hash_file(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_arguments(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other arguments than a folder was made with.

    Raises:
        InputError: It names the arguments that differ.
    """
    differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if differing:
        raise InputError(
            f"output {str(folder)!r} was made with other arguments ({', '.join(differing)}); "
            "use them again or add fresh=True"
        )


def _write_atomically(path: Path, content: str) -> None:
    temporary = temporary_name(path)
    temporary.write_text(content, encoding="utf-8")
    _sync(temporary)
    temporary.replace(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------ mark and lock


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder (made if need be) as its only writer."""
    from filelock import FileLock, Timeout

    existed = folder.exists()
    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"output {str(folder)!r} is being written by another process; wait for it or give another folder"
        ) from None
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"output {str(folder)!r} cannot be written ({reason}); give another folder") from None
    try:
        yield
    finally:
        (folder / _LOCK).unlink(missing_ok=True)  # still held: whoever opened the old file sees that it is gone
        lock.release()
        if not existed:
            with contextlib.suppress(OSError):
                folder.rmdir()  # succeeds only when nothing was written


def _read_mark(root: Path) -> _Mark | None:
    """Return what the mark of a folder says, None where there is none.

    Raises:
        InputError: If it cannot be read.
    """
    path = root / MARK
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        head = json.loads(lines[0])
        if head["synthaug"] != _FORMAT:
            raise ValueError(f"format {head['synthaug']!r}")
        mark = _Mark(str(head["command"]), dict(head["arguments"]))
        for line in lines[1:-1]:  # behind the last newline there is nothing, or a line that was cut off
            mark.apply(json.loads(line))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{str(path)!r} cannot be read; give another folder") from None
    if lines[-1]:
        _write_atomically(path, _dump(mark))
    return mark


def _dump(mark: _Mark) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in mark.lines())


def _checked_name(name: object) -> str:
    """Return a path inside a folder; raise ValueError for any other."""
    path = PurePosixPath(str(name))
    if not isinstance(name, str) or path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{name!r} is no path inside the folder")
    return path.as_posix()


def _list_all(root: Path, mark: _Mark) -> dict[Path, str | None]:
    """Return path -> sha256 of the files of a mark and of the output folders that belong to it."""
    listed = {root / name: digest for name, digest in mark.files.items()}
    for name in sorted(mark.folders):
        inner = _read_mark(root / name)
        if inner is not None:
            listed |= {**_list_all(root / name, inner), root / name / MARK: None}
    return listed


def _is_same(path: Path, digest: str | None) -> bool:
    """Tell whether a path is a regular file of that content; one that was being written may have any."""
    return path.is_file() and not path.is_symlink() and digest in (None, hash_file(path))


def _remove_files(root: Path, listed: Mapping[Path, str | None]) -> None:
    """Remove listed files that are as they were, then the folders that this leaves empty."""
    real = root.resolve()
    for path, digest in listed.items():
        if path.parent.resolve().is_relative_to(real) and _is_same(path, digest):
            path.unlink()
        if path.parent.is_dir() and path.parent.resolve().is_relative_to(real):
            temporary_name(path).unlink(missing_ok=True)
    places = {place for path in listed for place in path.parents if root in place.parents}
    for place in sorted(places, key=lambda one: len(one.parts), reverse=True):
        with contextlib.suppress(OSError):
            place.rmdir()


def _count(names: list[str]) -> str:
    """Return the first name and how many more there are."""
    more = len(names) - 1
    return repr(names[0]) + (f" and {more} more" if more else "")
