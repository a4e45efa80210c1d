"""A process that encodes rows and writes shards, so that whoever samples does neither.

Two threads of one process would wait for each other: they take the interpreter's lock in turns, many times in a block
(docs/evidence.md, "Generation and two processes"). The process is started as ``python -m synthaug.shardprocess`` and
told what to do through a socket; pixels go through shared memory, and the caller encodes some where the process is
behind, so that two cores are busy alike. Unlike with `multiprocessing`, the caller's script is not imported a second
time, so it needs no ``__main__`` guard, and a process whose caller was killed finds the line dead and ends.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from synthaug.drawnrows import DrawnRows, EncodedRows, RepeatedColumns
from synthaug.shards import Rows, ShardWriter
from synthaug.sharedslots import Place, SharedSlots, open_memory

__all__ = ["RemoteShard", "ShardProcess"]


class ShardProcess:
    """Context: a process that writes shards as `ShardWriter` does, to the same bytes.

    Args:
        block_bytes: What the files of rows that are sent together take at most.
    """

    def __init__(self, block_bytes: int) -> None:
        root = str(Path(__file__).resolve().parents[1])
        paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        line, theirs = socket.socketpair()
        with theirs, open_memory(block_bytes) as memory:
            self._slots = SharedSlots(memory.fileno())
            self._process = subprocess.Popen(
                [sys.executable, "-m", "synthaug.shardprocess", str(memory.fileno())],
                stdin=theirs.fileno(),
                pass_fds=[memory.fileno()],
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,  # Ctrl-C reaches the parent alone, which decides
            )
        self._line = _Line(line)
        self._repeated: RepeatedColumns | None = None
        self._opened, self._answered, self._hearing = 0, 0, threading.Lock()
        self._failure: OSError | None = None

    def __enter__(self) -> ShardProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.close()
        self._process.kill()  # it holds nothing that a finished shard needs
        self._process.wait()

    def open(self, path: Path, schema: pa.Schema) -> RemoteShard:
        """Begin a shard.

        Args:
            path: The file to write; one that is there is removed.
            schema: Of its rows.

        Raises:
            OSError: If the process cannot write, or died.
        """
        path.unlink(missing_ok=True)  # a process whose caller was killed just now may hold it
        self._opened += 1
        self.tell("open", str(path), schema)
        return RemoteShard(self, self._opened)

    def tell(self, verb: str, *arguments: Any) -> None:
        """Send a message about the shard opened last.

        Raises:
            OSError: What the process met, or ChildProcessError if it died.
        """
        try:
            self._line.send((verb, *arguments))
        except ConnectionError:
            self.hear(self._opened)
            raise

    def tell_rows(self, rows: pa.Table | Rows) -> None:
        """Send rows: drawn ones as pixels, or encoded where the process is behind.

        Raises:
            OSError: As `tell`.
        """
        if not isinstance(rows, DrawnRows):
            self.tell("table", rows if isinstance(rows, pa.Table) else rows.table())
            return
        if rows.repeated is not self._repeated:
            self.tell("repeat", rows.repeated)
            self._repeated = rows.repeated
        verb, images = "drawn", rows.pixels
        if self._slots.half_full:  # so that two cores are busy alike
            verb, images = "encoded", rows.encode().files
        self.tell(verb, self._slots.put(images) or images, rows.draws)

    def hear(self, shard: int) -> None:
        """Wait until the process has written a shard; a thread may, while another one goes on.

        Args:
            shard: Which: the first one opened is 1.

        Raises:
            OSError: What the process met, or ChildProcessError if it died.
        """
        with self._hearing:
            while self._answered < shard:
                if self._failure is None:
                    self._failure = self._listen()
                if self._failure is not None:
                    raise self._failure
                self._answered += 1

    def _listen(self) -> OSError | None:
        """Return what the process met in the next shard."""
        try:
            error = self._line.receive()
        except (EOFError, ConnectionError):
            code = self._process.wait()
            return ChildProcessError(f"the process that writes the shards died (exit code {code}; out of memory?)")
        return None if error is None else OSError(error)


class RemoteShard:
    """A shard that a `ShardProcess` writes; used as a `ShardWriter` is.

    Args:
        process: Which was told to open it.
        number: Of the shards that it opened, from 1.
    """

    def __init__(self, process: ShardProcess, number: int) -> None:
        self._process, self._number, self._over = process, number, False

    def __enter__(self) -> RemoteShard:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, rows: pa.Table | Rows) -> None:
        """Send rows on their way.

        Raises:
            OSError: If writing failed, now or since an earlier call.
        """
        if not len(rows):
            return
        try:
            self._process.tell_rows(rows)
        except OSError:
            self._over = True
            raise

    def close(self) -> None:
        """Send word that these were all rows.

        Raises:
            OSError: As `write`.
        """
        if not self._over:
            self._over = True
            self._process.tell("close")

    def wait(self) -> None:
        """Wait until the file is complete; the next shard may have been begun.

        Raises:
            OSError: If it could not be written.
        """
        self._process.hear(self._number)


class _Line:
    """One end of a line on which objects are sent; arrays in them are not copied on the way."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._incoming = end, end.makefile("rb")

    def send(self, message: Any) -> None:
        """Send the number of the message's parts, their sizes, and the parts."""
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
        parts = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        sizes = struct.pack(f"<{1 + len(parts)}Q", len(parts), *(part.nbytes for part in parts))
        small = [sizes]
        for part in parts:
            if part.nbytes < io.DEFAULT_BUFFER_SIZE:
                small.append(part.tobytes())
            else:
                self._end.sendall(b"".join(small))
                self._end.sendall(part)
                small = []
        self._end.sendall(b"".join(small))

    def receive(self) -> Any:
        """Return the next message.

        Raises:
            EOFError: If there is none, or no whole one.
        """
        (count,) = struct.unpack("<Q", self._read(8))
        sizes = struct.unpack(f"<{count}Q", self._read(8 * count))
        head, *buffers = [self._read(size) for size in sizes]
        return pickle.loads(head, buffers=buffers)

    def close(self) -> None:
        """Hang up."""
        self._incoming.close()
        self._end.close()

    def _read(self, size: int) -> memoryview:
        part = np.empty(size, np.uint8).data  # unlike a bytearray it is not zeroed first
        if self._incoming.readinto(part) < size:
            raise EOFError
        return part


def _serve(line: _Line, slots: SharedSlots) -> None:
    """Do what the caller says until it hangs up or dies."""
    caller, writer, repeated = os.getppid(), None, None
    kinds = {"drawn": DrawnRows, "encoded": EncodedRows}
    while True:
        verb, *arguments = line.receive()
        if verb == "repeat":
            (repeated,) = arguments
        elif verb == "open":
            if os.getppid() != caller:
                return  # another may be writing this file
            path, schema = arguments
            writer = ShardWriter(Path(path), schema)
        elif writer is not None and verb == "table":
            writer.write(*arguments)
        elif writer is not None and repeated is not None and verb in kinds:
            images, draws = arguments
            with slots.take(images) if isinstance(images, Place) else nullcontext(images) as array:
                writer.write(kinds[verb](repeated, array, draws))
        elif writer is not None and verb == "close":
            writer.close()
            line.send(None)


def _main() -> None:
    line, code = _Line(socket.socket(fileno=sys.stdin.fileno())), 0
    try:
        _serve(line, SharedSlots(int(sys.argv[1])))
    except (EOFError, ConnectionError):
        pass
    except Exception as error:
        line.send(next(iter(str(error).splitlines()), type(error).__name__))
        code = 1
    os._exit(code)  # an unfinished file is not worth a footer


if __name__ == "__main__":
    _main()
