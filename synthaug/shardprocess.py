"""A process that encodes rows and writes shards, so that whoever samples does neither.

Two threads of one process would wait for each other: they take the interpreter's lock in turns, many times in a block
(docs/evidence.md, "Generation and two processes"). The process is told what to do through a socket; pixels go through
shared memory, and the caller encodes some where the process is behind, so that two cores are busy alike. Unlike with
`multiprocessing`, the caller's script is not imported a second time, so it needs no ``__main__`` guard, and a process
whose caller was killed finds the line dead and ends.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from synthaug.drawnrows import DrawnRows, EncodedRows, RepeatedColumns
from synthaug.png import pack_png
from synthaug.shards import Rows, ShardWriter
from synthaug.sharedslots import Place, SharedSlots, open_memory

__all__ = ["RemoteShard", "ShardProcess", "serve"]

_START = """
import json, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the caller decides, and hangs up
    signal.signal(number, signal.SIG_IGN)
sys.path[:] = json.loads(sys.argv[3])
from synthaug.shardprocess import serve
serve(int(sys.argv[1]), int(sys.argv[2]))
"""
"""What the process runs; its modules come from where the caller's do."""


class ShardProcess:
    """Context: a process that writes shards as `ShardWriter` does, to the same bytes.

    Args:
        block_bytes: What the files of rows that are sent together take at most.
    """

    def __init__(self, block_bytes: int) -> None:
        line, theirs = socket.socketpair()
        self._line = _Line(line)
        try:
            with theirs, open_memory(block_bytes) as memory:
                self._slots = SharedSlots(memory.fileno())
                root = str(Path(__file__).resolve().parents[1])
                paths = json.dumps([*(path for path in sys.path if isinstance(path, str)), root])
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START, str(memory.fileno()), str(os.getpid()), paths],
                    stdin=theirs.fileno(),
                    pass_fds=[memory.fileno()],
                    start_new_session=True,
                )
        except OSError:
            self._line.close()
            raise
        self._repeated: RepeatedColumns | None = None
        self._opened, self._answered, self._hearing = 0, 0, threading.Lock()
        self._failure: OSError | None = None

    def __enter__(self) -> ShardProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()  # it holds nothing that a finished shard needs
        self._process.wait()
        self._line.close()

    def open(self, path: Path, schema: pa.Schema) -> RemoteShard:
        """Begin a shard.

        Args:
            path: The file to write.
            schema: Of its rows.

        Raises:
            OSError: If the process cannot write, or died.
        """
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
            table = rows if isinstance(rows, pa.Table) else rows.table()
            # a slice would be sent with all that its buffers hold
            self.tell("table", pa.concat_tables([table.schema.empty_table(), table]).combine_chunks())
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
            why = f"exit code {code}" if code != -signal.SIGKILL else "killed; out of memory?"
            return ChildProcessError(f"the process that writes the shards died ({why})")
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
        except BaseException:  # a message may have been cut short
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


def serve(memory: int, caller: int) -> None:
    """Be a `ShardProcess`: do what the caller says on the standard input until it hangs up, and end the process.

    Args:
        memory: Descriptor of the shared memory.
        caller: Number of the caller's process.
    """
    line, code = _Line(socket.socket(fileno=sys.stdin.fileno())), 0
    try:
        _obey(line, SharedSlots(memory), caller)
    except (OSError, pa.ArrowInvalid) as error:
        with suppress(OSError):
            line.send(next(iter(str(error).splitlines()), type(error).__name__))
        code = 1
    os._exit(code)  # an unfinished file is not worth a footer


def _obey(line: _Line, slots: SharedSlots, caller: int) -> None:
    writer: ShardWriter | None = None
    repeated: RepeatedColumns | None = None
    while True:
        try:
            verb, *arguments = line.receive()
        except (EOFError, ConnectionError):
            return
        if verb == "repeat":
            (repeated,) = arguments
        elif verb == "open":
            if os.getppid() != caller:
                return  # it was killed, and another may be writing this file
            path, schema = arguments
            writer = ShardWriter(Path(path), schema)
        elif writer is not None and verb == "table":
            writer.write(*arguments)
        elif writer is not None and repeated is not None and verb in ("drawn", "encoded"):
            images, draws = arguments
            with slots.take(images) if isinstance(images, Place) else nullcontext(images) as array:
                files = pack_png(array) if verb == "drawn" else array.copy()  # the slot is filled again
            writer.write(EncodedRows(repeated, files, draws))
        elif writer is not None and verb == "close":
            writer.close()
            line.send(None)
        else:
            raise ValueError(f"{verb!r} is not expected now")
