"""Processes of Python that run a function of this package: the ranks of a fit, and workers.

A child imports this very package. It finds everything else without the current folder, so that a ``queue.py`` that
lies there is not run. It has a session of its own: a Ctrl-C reaches its caller alone, which decides. Stop signals wait
until the child has said what they do. A child ends when its caller has ended.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["start_child"]

_FILE = Path(__file__).absolute()
_SECONDS_TO_SAVE = 20


def start_child(
    entry: str, arguments: Sequence[str] = (), *, environment: Mapping[str, str] | None = None, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a process that calls a function of this package.

    Args:
        entry: "module:function"; it has no arguments, and unblocks or ignores SIGINT and SIGTERM.
        arguments: What it finds in sys.argv[1:].
        environment: Variables besides those of this process.
        **streams: stdin and stdout, as in `subprocess.Popen`.

    Raises:
        FailedError: If the system does not start it.
    """
    variables = {**os.environ, **(environment or {}), "PYTHONSAFEPATH": "1"}
    paths = variables.pop("PYTHONPATH", "").split(os.pathsep)
    if named := [path for path in paths if Path(path) != Path()]:  # an empty one is the current folder
        variables["PYTHONPATH"] = os.pathsep.join(named)
    command = [sys.executable, str(_FILE), str(os.getpid()), entry, *arguments]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # the child inherits it
    try:
        return subprocess.Popen(command, env=variables, start_new_session=True, **streams)
    except OSError as error:
        from synthaug.core.errors import FailedError  # not above: a child has no package yet

        reason = f"cannot start another process ({error.strerror})"
        raise FailedError(f"{reason}; use num_processes=1, or allow more") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin() -> None:
    """Be a child."""
    caller, entry = int(sys.argv.pop(1)), sys.argv.pop(1)
    threading.Thread(target=_end_with, args=[caller], daemon=True).start()
    spec = importlib.util.spec_from_file_location("synthaug", _FILE.parents[1] / "__init__.py")
    assert spec is not None and spec.loader is not None
    package = sys.modules["synthaug"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    module, _, function = entry.partition(":")
    getattr(importlib.import_module(module), function)()


def _end_with(caller: int) -> None:
    """End this process when its caller has ended (was killed, for example): a rank with its state saved."""
    while os.getppid() == caller:
        time.sleep(0.3)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_SAVE)
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    _begin()
