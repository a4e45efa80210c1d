"""Start this very command on several processes of one machine, and what those know of each other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from synthaug.core.children import start_child
from synthaug.core.signals import StopSignals

__all__ = ["is_launched", "launch", "local_processes", "num_processes", "process_number"]


def is_launched() -> bool:
    """Tell whether a launcher (torchrun, accelerate launch, or `launch`) already started this process."""
    return "WORLD_SIZE" in os.environ and "RANK" in os.environ


def process_number() -> int:
    """Return the number of this process among those that a launcher started, 0 without one."""
    return int(os.environ["RANK"]) if is_launched() else 0


def num_processes() -> int:
    """Return how many processes a launcher started, 1 without one."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def local_processes() -> int:
    """Return how many processes a launcher started on this machine, 1 without one."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_launched() else 1


def launch(arguments: Sequence[str], num_processes: int) -> NoReturn:
    """Run ``synthaug ARGUMENTS`` as `num_processes` ranks and exit with their code.

    When one rank fails, the others are stopped and its code is returned; a SIGINT or SIGTERM is handed on.

    Args:
        arguments: The command line, without the program.
        num_processes: Number of ranks.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    with StopSignals() as stop:
        ranks = []
        for rank in range(num_processes):
            environment = {
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_processes),
                "LOCAL_WORLD_SIZE": str(num_processes),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            ranks.append(start_child("synthaug.__main__:main", arguments, environment=environment))
        sys.exit(_wait(ranks, stop))


def _wait(ranks: Sequence[subprocess.Popen[bytes]], stop: StopSignals) -> int:
    """Return the exit code of the ranks; hand on the signal that `stop` notes."""
    told = False
    while _are_running(ranks):
        if stop.received and not told:
            told = True
            for process in ranks:
                process.send_signal(stop.received)
        first = _failure(ranks)
        if first:
            deadline = time.monotonic() + 10  # the others meet the same error, or hang in a collective
            while time.monotonic() < deadline and _are_running(ranks):
                time.sleep(0.05)
            failed = _failure(ranks, first)
            for process in ranks:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            return failed
        time.sleep(0.05)
    return _failure(ranks)


def _are_running(ranks: Sequence[subprocess.Popen[bytes]]) -> bool:
    return None in [process.poll() for process in ranks]  # every rank is asked for its code


def _failure(ranks: Sequence[subprocess.Popen[bytes]], first: int = 0) -> int:
    """Return the exit code of the ranks that have failed so far, 0 when none has.

    That of a killed rank, which may be seen only after those whose collectives it broke; else the `first` one seen.
    """
    codes = [code for process in ranks if (code := process.poll())]
    return next((128 - code for code in codes if code < 0), first or next(iter(codes), 0))
