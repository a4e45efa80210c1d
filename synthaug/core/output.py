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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from synthaug.core.errors import FailedError, InputError
from synthaug.core.signals import stopped_at_once

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

_LOCK = ".synthaug.lock"
_FORMAT = 1
_MOST_BYTES = 1 << 28
"""A larger mark is not read."""

Earlier = Callable[[], tuple[Mapping[str, Any], bool] | None]
"""Returns arguments and "finished" of a folder that was made before there were marks, or None."""


class _OccupiedError(InputError):
    """A file that the command did not make is in the way; what the command has made so far stays."""


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
        if "finished" in entry:
            self.finished = entry["finished"] is True
        if "folder" in entry:
            self.folders.add(_checked_name(entry["folder"]))
        if "file" in entry:
            digest = entry.get("sha256")
            self.files[_checked_name(entry["file"])] = None if digest is None else str(digest)

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
        self._root = Path(os.path.realpath(self.path))  # unlike resolve() it leaves a loop of links to mkdir
        self._command, self._fresh, self._earlier = command, fresh, earlier
        self._arguments = json.loads(json.dumps(dict(arguments)))  # compare what JSON keeps: tuples become lists
        self._mark = _Mark(command, self._arguments)
        self._new, self._unlisted = True, False
        self._refusal: InputError | None = None
        self._file: IO[str] | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> OutputFolder:
        with contextlib.ExitStack() as stack:
            stack.enter_context(stopped_at_once("run the same command again"))
            try:
                stack.enter_context(_locked(self.path))
            except InputError as refusal:
                self._read_only(refusal)
            else:
                owner = _find_owner(self._root)
                if owner is not None and not os.path.lexists(self._root / MARK):  # else another call made it
                    owner[0]._adopt(owner[1])
                self._open()
            stack.callback(self._leave)
            _OPEN.append(self)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is None:
                self.check()
            elif self._new and issubclass(kind, InputError) and not issubclass(kind, _OccupiedError):
                self._remove_listed()  # a command that refuses its input leaves nothing

    def has_finished(self, *files: str) -> bool:
        """Tell whether an earlier call finished, and the files that it is known by are there.

        Args:
            files: Their names.

        Raises:
            InputError: If it did not, and the folder cannot be written or another process writes it.
        """
        finished = self._mark.finished and all((self._root / name).is_file() for name in files)
        if not finished and self._refusal is not None:
            raise self._refusal
        return finished

    def finish(self) -> None:
        """Note that the folder is complete."""
        self.check()
        self._mark.finished = True
        self._rewrite()

    def check(self) -> None:
        """Raise `FailedError` if the folder was removed since it was opened."""
        try:
            there = (self._root / MARK).stat().st_ino
        except OSError:
            there = -1
        if self._file is not None and os.fstat(self._file.fileno()).st_ino != there:
            raise FailedError(f"output {str(self.path)!r} was removed while it was written; run the same command again")

    # ------------------------------------------------------------------------------------------------ opening

    def look(self) -> tuple[_Mark | None, dict[Path, str | None]]:
        """Return the mark and what `fresh` removes, after a check that the folder may be used.

        Raises:
            InputError: If another command made it, or it holds files that the command did not make.
        """
        mark, listed = _read_mark(self._root), dict[Path, str | None]()
        if mark is not None and mark.command != self._command:
            raise InputError(f"output {str(self.path)!r} was made by synthaug {mark.command}; give another folder")
        if mark is not None and self._fresh:
            listed = _list_all(self._root, mark)
        if (mark is None or self._fresh) and (foreign := _name_first(self._foreign_files(listed))):
            made = "not made by this command, or changed since" if mark else f"not made by synthaug {self._command}"
            kept = ", which fresh=True does not remove; move it away or" if self._fresh else ";"
            raise InputError(f"output {str(self.path)!r} holds {foreign} {made}{kept} give another folder")
        return mark, listed

    def _open(self) -> None:
        """Compare the folder with this call, remove what an earlier one left if asked to, and begin or go on."""
        marked = os.path.lexists(self._root / MARK)
        before = None if marked or self._fresh or self._earlier is None else self._earlier()
        if before is not None:
            arguments, self._mark.finished = before
            compare_arguments(self.path, arguments, self._arguments)
            self._new, self._unlisted = False, True
            return self._rewrite()
        mark, listed = self.look()
        if mark is None or self._fresh:
            if mark is not None and mark.finished:
                mark.finished = False  # so an interrupted removal leaves an unfinished folder
                _write_atomically(self._root / MARK, _dump(mark))
            _remove_files(self._root, listed)
            return self._rewrite()
        compare_arguments(self.path, mark.arguments, self._arguments)
        self._mark, self._new = mark, False
        if not mark.finished:
            return self._rewrite()  # a kill may have cut off its last line
        temporary_name(self._root / MARK).unlink(missing_ok=True)
        self._file = (self._root / MARK).open("a", encoding="utf-8")

    def _read_only(self, refusal: InputError) -> None:
        """Find a folder finished that cannot be locked; raise `refusal` for any other."""
        mark = None if self._fresh else _read_mark(self._root)
        if mark is None or not mark.finished or mark.command != self._command:
            raise refusal
        compare_arguments(self.path, mark.arguments, self._arguments)
        self._mark, self._new, self._refusal = mark, False, refusal

    def _foreign_files(self, listed: Mapping[Path, str | None]) -> Iterator[str]:
        """Yield the visible files that are not listed, or not as they were; other output folders are left out."""
        own = {path.parent for path in listed if path.name == MARK}
        for place, folders, files in os.walk(self._root):
            here = Path(place)
            names = [*files, *(name for name in folders if (here / name).is_symlink())]
            for name in sorted(name for name in names if not name.startswith(".")):
                path = here / name
                if path not in listed or not _is_same(path, listed[path]):
                    yield path.relative_to(self._root).as_posix()
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and (here / name in own or not (here / name / MARK).is_file())
            )

    # ------------------------------------------------------------------------------------------------ listing

    def _append(self, *entries: Mapping[str, Any]) -> None:
        """Add lines to the mark, on the disk too: a file that is there after a power cut is listed."""
        self.check()
        for entry in entries:
            self._mark.apply(entry)
        if self._mark.finished:  # a finished folder is repaired
            self._mark.finished = False
            self._rewrite()
        elif self._file is not None:
            self._file.write("".join(json.dumps(entry) + "\n" for entry in entries))
            self._file.flush()
            os.fsync(self._file.fileno())

    def _rewrite(self) -> None:
        """Write the whole mark anew."""
        _write_atomically(self._root / MARK, _dump(self._mark))
        if self._file is not None:
            self._file.close()
        self._file = (self._root / MARK).open("a", encoding="utf-8")

    def _is_own(self, name: str) -> bool:
        """Tell whether nothing is there, or a file that the command wrote and nobody has changed."""
        path = self._root / name
        if self._unlisted or not (path.exists() or path.is_symlink()):
            return True
        return name in self._mark.files and _is_same(path, self._mark.files[name])

    def _claim(self, name: str, *, replace: bool) -> None:
        if self._refusal is not None:
            raise self._refusal
        self.check()
        if not self._is_own(name) and not (replace and name in self._mark.files):
            raise _OccupiedError(
                f"output {str(self.path)!r} holds a file {name!r} that this command did not write, or that has changed "
                "since; move it away and run the same command again"
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
    """Return the open output folder that a path lies in, and the path in it.

    Raises:
        InputError: If a link on the way leads out of the folder.
    """
    place = path.parent.resolve() / path.name
    for folder in reversed(_OPEN):
        if folder._root in place.parents:
            return folder, place.relative_to(folder._root).as_posix()
        if folder.path.absolute() in path.absolute().parents:
            raise _OccupiedError(
                f"{str(path.parent)!r} is or lies behind a link that leads out of output {str(folder.path)!r}; "
                "replace the link by a folder and run the same command again"
            )
    return None


# ------------------------------------------------------------------------------------------------------- files


def write_file(path: Path, content: bytes | str, *, replace: bool = False) -> None:
    """Write a file by atomic rename and list it in the output folder that it lies in.

    Args:
        path: Where it appears, complete or not at all; its folder is made if need be.
        content: Its bytes, or text to encode as UTF-8.
        replace: See `claim`.
    """
    claim(path, replace=replace)
    temporary = temporary_name(path)
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    publish(temporary, path)


def temporary_name(path: Path) -> Path:
    """Return under which hidden name a file is written before it appears."""
    return path.with_name(f".{path.name}.tmp")


def claim(path: Path, *, replace: bool = False) -> Path:
    """Make the folder of a file that will be written, list the file in its output folder, and clear its temporary name.

    Args:
        path: The file.
        replace: Write anew a file of the command that has changed since, because it was harmed: for files that only
            the command itself reads.

    Returns:
        The same path.

    Raises:
        InputError: If there is a file of that name that the command did not make, or that has changed since.
        FailedError: If the output folder was removed.
    """
    if found := _find_owner(path):
        owner, name = found
        owner._claim(name, replace=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary_name(path).unlink(missing_ok=True)  # a killed process may hold it, and a link there is not followed
    return path


def publish(temporary: Path, path: Path, sha256: str | None = None) -> None:
    """Make a finished temporary file appear under its name, on the disk too, and list it.

    Args:
        temporary: The file, in the same folder.
        path: Its name, which was claimed.
        sha256: Its hash where it is known.
    """
    if found := _find_owner(path):
        found[0].check()
    digest = sha256 or (hash_file(temporary) if found else None)
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
    owner._append(*({"file": after[1] + name.removeprefix(start), "sha256": moved[name]} for name in moved))
    source.rename(target)
    for name in moved:
        del owner._mark.files[name]


def remove(path: Path) -> None:
    """Remove a file that the command made, and its folder if that is then empty.

    Args:
        path: The file; it stays if the output folder that it lies in does not list it as it is.
    """
    found = _find_owner(path)
    if found and not found[0]._is_own(found[1]):
        return
    path.unlink(missing_ok=True)
    temporary_name(path).unlink(missing_ok=True)
    if found:  # the mark on the disk may list a file that is gone
        found[0]._mark.files.pop(found[1], None)
    with contextlib.suppress(OSError):
        path.parent.rmdir()  # succeeds only when it is empty


def is_listed(path: Path) -> bool:
    """Tell whether a file is one that the command made, unchanged; True outside output folders.

    Args:
        path: The file.
    """
    found = _find_owner(path)
    return path.is_file() and (found is None or found[0]._is_own(found[1]))


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
    _sync(path.parent)


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

    lock = FileLock(folder / _LOCK, timeout=0)
    try:
        if folder.is_file():
            raise InputError(f"output {str(folder)!r} is a file; give a folder")
        existed = folder.exists()
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
    if not os.path.lexists(path):
        return None
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise ValueError("no mark")
        lines = path.read_text(encoding="utf-8").split("\n")
        head = json.loads(lines[0])
        mark = _Mark(str(head["command"]), dict(head["arguments"]))
        words = (mark.command, *mark.arguments)
        if head["synthaug"] != _FORMAT or not all(len(word) <= 100 and word.isprintable() for word in words):
            raise ValueError("no mark of this version")
        for line in lines[1:-1]:  # behind the last newline there is nothing, or a line that was cut off
            mark.apply(dict(json.loads(line)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{str(path)!r} cannot be read; give another folder") from None
    return mark


def _dump(mark: _Mark) -> str:
    return "".join(json.dumps(line) + "\n" for line in mark.lines())


def _checked_name(name: object) -> str:
    """Return a path inside a folder; raise ValueError for any other."""
    path = PurePosixPath(str(name))
    if not isinstance(name, str) or path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise ValueError(f"{name!r} is no path inside the folder")
    if any(len(os.fsencode(part)) > 255 for part in path.parts):
        raise ValueError("a file cannot have so long a name")
    return path.as_posix()


def _list_all(root: Path, mark: _Mark) -> dict[Path, str | None]:
    """Return path -> sha256 of the files of a mark and of the output folders that belong to it."""
    listed: dict[Path, str | None] = {}
    waiting = [(root, mark)]
    while waiting:
        place, mark = waiting.pop()
        listed |= {place / name: digest for name, digest in mark.files.items()}
        for inner in (place / name for name in sorted(mark.folders)):
            if inner / MARK not in listed and inner.resolve() == inner and (found := _read_mark(inner)) is not None:
                listed[inner / MARK] = None
                waiting.append((inner, found))
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


def _name_first(names: Iterator[str]) -> str:
    """Return the first name and whether there are others; "" where there is none."""
    first = list(islice(names, 2))
    return repr(first[0]) + " and others" * (len(first) > 1) if first else ""
