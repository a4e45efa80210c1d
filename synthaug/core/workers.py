"""Worker processes that call one function with argument after argument.

Unlike with `multiprocessing`, a worker imports the caller's script only if the function is made of what that defines.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing import spawn
from typing import Any

from synthaug.core.children import start_child
from synthaug.core.errors import FailedError, InputError
from synthaug.core.signals import STOP_SIGNALS

__all__ = ["WorkerPool", "serve"]


class WorkerPool:
    """Context: worker processes that call a function, each on one thread.

    Args:
        function: Called with one argument at a time; it is sent to every worker once.
        ahead: Calls that a worker is given at a time; with 2 it has the next one when it has answered.

    Raises:
        InputError: If the function cannot be sent.
    """

    def __init__(self, function: Callable[[Any], Any], *, ahead: int = 1) -> None:
        if _is_worker:
            raise InputError("a worker process starts no others: the script has no `if __name__ == '__main__':` guard")
        try:
            sent = pickle.dumps(function)
        except Exception as error:
            raise InputError(
                f"the generator or the filter cannot be sent to another process ({_describe(error)}); define them at "
                "the top of a module, or use num_processes=1"
            ) from None
        caller = {key: value for key, value in spawn.get_preparation_data("worker").items() if key != "authkey"}
        self._first, self._ahead = pickle.dumps((caller, sent)), ahead
        self._calls: queue.SimpleQueue[tuple[Any, Future[Any]] | None] = queue.SimpleQueue()
        self._workers: list[tuple[subprocess.Popen[bytes], threading.Thread]] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *problem: object) -> None:
        for process, _ in self._workers:
            process.kill()  # it holds nothing that is needed
            self._calls.put(None)
        for process, thread in self._workers:
            thread.join()
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                with suppress(OSError):  # what was not sent
                    pipe.close()

    def grow(self, count: int) -> None:
        """Start workers until there are so many."""
        while len(self._workers) < count:
            process = start_child(
                "synthaug.core.workers:serve",
                environment={"OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            thread = threading.Thread(target=self._attend, args=[process], daemon=True)
            self._workers.append((process, thread))
            thread.start()

    def submit(self, argument: Any) -> Future[Any]:
        """Return the future of a call, which the next free worker takes; calls are taken in their order.

        Its exception is what the function raised, or FailedError if a worker died.

        Args:
            argument: A small object.
        """
        future: Future[Any] = Future()
        self._calls.put((argument, future))
        return future

    def _attend(self, process: subprocess.Popen[bytes]) -> None:
        """Hand calls to a worker, and its answers to their futures; a thread for each."""
        sent: deque[Future[Any]] = deque()
        try:
            self._talk(process, sent)
        except Exception:  # the line is dead
            error = FailedError(
                f"a worker process died ({_wait_for(process)}); run it again to go on, or with num_processes=1"
            )
            for future in sent:
                future.set_exception(error)
            while (call := self._calls.get()) is not None:
                call[1].set_exception(error)

    def _talk(self, process: subprocess.Popen[bytes], sent: deque[Future[Any]]) -> None:
        questions, answers = process.stdin, process.stdout
        assert questions is not None and answers is not None
        questions.write(self._first)
        questions.flush()
        while True:
            while len(sent) < self._ahead:
                try:
                    call = self._calls.get(block=not sent)
                except queue.Empty:
                    break
                if call is None:
                    return
                sent.append(call[1])
                pickle.dump(call[0], questions)
                questions.flush()
            result, failure = pickle.load(answers)
            future = sent.popleft()
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(_revive(*failure))


def _wait_for(process: subprocess.Popen[bytes]) -> str:
    """Return how a process ended whose pipes are closed."""
    try:
        code = process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    return "killed; out of memory?" if code == -signal.SIGKILL else f"exit code {code}"


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def _revive(pickled: bytes, described: str, trace: str) -> Exception:
    """Return what a function raised in a worker; FailedError where the class is not known here."""
    try:
        error: Exception = pickle.loads(pickled)
    except Exception:
        error = FailedError(described)
    error.add_note(f"In a worker process:\n{trace}")
    return error


# ------------------------------------------------------------------------------------------------ in the worker

_KNOWN = {*sys.stdlib_module_names, "synthaug", "torch", "numpy"} - {"__main__"}
_is_worker = False


def serve() -> None:
    """Be a worker: read the function from the standard input, then arguments, and answer on the standard output."""
    global _is_worker
    _is_worker = True
    for number in (*STOP_SIGNALS, signal.SIGHUP):  # the caller decides
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may write between the answers
    try:
        function = _read_function(*pickle.load(sys.stdin.buffer))
        while True:
            answers.write(_answer(function, pickle.load(sys.stdin.buffer)))
            answers.flush()
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):  # the caller has ended
        os._exit(1)


def _answer(function: Callable[[Any], Any], argument: Any) -> bytes:
    try:
        return pickle.dumps((function(argument), None), protocol=pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        try:
            pickled = pickle.dumps(error)
        except Exception:
            pickled = b""
        return pickle.dumps((None, (pickled, _describe(error), traceback.format_exc())))


def _read_function(caller: dict[str, Any], sent: bytes) -> Callable[[Any], Any]:
    """Return the function that was sent, or one that says why it cannot be read."""
    try:
        function: Callable[[Any], Any] = _Reader(io.BytesIO(sent), caller).load()
        return function
    except Exception as error:
        message = (
            f"a worker process cannot read the generator or the filter ({_describe(error)}); define them at the top "
            "of a module, or of a script with its calls under `if __name__ == '__main__':`, or use num_processes=1"
        )

    def refuse(argument: Any) -> Any:
        raise InputError(message)

    return refuse


class _Reader(pickle.Unpickler):
    """Reads an object; modules that may be the user's are found where the caller finds them.

    Args:
        file: The pickled object.
        caller: Where that is, for `multiprocessing.spawn.prepare`.
    """

    def __init__(self, file: io.BytesIO, caller: dict[str, Any]) -> None:
        super().__init__(file)
        self._caller = caller

    def find_class(self, module: str, name: str) -> Any:
        """Return what has this name in a module."""
        if module.partition(".")[0] not in _KNOWN:
            sys.path[:] = self._caller["sys_path"]
        if module == "__main__":
            spawn.prepare(self._caller)  # runs the caller's script, once
        return super().find_class(module, name)
