"""Stop signals: 130 or 143 and one line, whenever they come."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import synthaug
from synthaug.core import StoppedError, StopSignals, signals, stopped_at_once
from synthaug.generation import generate
from tests.generation.test_generating import PLAN, tree
from tests.small_runs import make_run_and_rows
from tests.toys import ToyGenerator

PACKAGE = str(Path(synthaug.__file__).parent.parent)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


# ------------------------------------------------------------------------------------------------------- contexts


def test_a_signal_that_nothing_acted_on_counts_when_the_context_ends():
    went_on = False
    with pytest.raises(StoppedError, match="stopped by SIGTERM; outside") as caught, stopped_at_once("outside"):
        with StopSignals() as stop:
            send()
            went_on = stop.received == signal.SIGTERM
        pytest.fail("the signal was lost")
    assert went_on and caught.value.exit_code == 143


def test_a_signal_that_led_to_another_error_counts_once():
    with pytest.raises(StoppedError, match="outside"), stopped_at_once("outside"):
        try:
            send()
        except KeyboardInterrupt:  # as a library does that ends what it began
            raise RuntimeError("not initialised") from None
    with pytest.raises(StoppedError, match="here") as caught, StopSignals() as stop, stop.at_once("here"):
        send(signal.SIGINT)
    assert caught.value.exit_code == 130


def test_a_signal_before_the_work_leaves_it_undone():
    with pytest.raises(StoppedError, match="here"), StopSignals() as stop:
        send()
        with stop.at_once("here"):
            pytest.fail("the work was begun")


def test_a_signal_that_python_drops_ends_the_work_all_the_same(capfd):
    """What is raised while an object is removed, or by a callback of the import system, ends nothing."""

    class Removed:
        def __del__(self):
            send()
            time.sleep(0.01)

    before, started = (sys.unraisablehook, signal.getsignal(signal.SIGALRM)), time.monotonic()
    with pytest.raises(StoppedError, match="inside"), stopped_at_once("outside"), stopped_at_once("inside"):
        Removed()
        time.sleep(60)
    assert time.monotonic() - started < signals._PATIENCE
    assert (sys.unraisablehook, signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0) and capfd.readouterr().err == ""


def test_a_signal_that_a_library_swallows_ends_the_work_a_little_later(monkeypatch):
    monkeypatch.setattr(signals, "_PATIENCE", 0.2)
    with pytest.raises(StoppedError, match="here"), stopped_at_once("here"):
        with contextlib.suppress(BaseException):
            send()
        time.sleep(60)


def interrupt_caller(images, labels):
    """A filter that signals the process that started its worker, and then takes long."""
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(100)


class TakesLong(ToyGenerator):
    """Takes long in its fourth block."""

    blocks = 0

    def decode_noise(self, noise, labels, temperature):
        type(self).blocks += 1
        if type(self).blocks == 4:
            send()
            time.sleep(100)
        return super().decode_noise(noise, labels, temperature)


def test_a_signal_ends_the_wait_for_a_block_and_keeps_the_rows_before_it(tmp_path):
    started = time.monotonic()
    options = {"filter": "none", "output": tmp_path / "out"}
    with pytest.raises(StoppedError, match="rows so far are kept"):
        generate(TakesLong(), PLAN, **options)
    assert TakesLong.blocks == 4
    generate(TakesLong(), PLAN, **options)
    assert TakesLong.blocks == 5  # the last of four, and no other
    generate(TakesLong(), PLAN, filter="none", output=tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    with pytest.raises(StoppedError, match="rows so far are kept"):
        generate(ToyGenerator(), PLAN, filter=interrupt_caller, output=tmp_path / "two", num_processes=2)
    assert time.monotonic() - started < 90


# ------------------------------------------------------------------------------------------------------- commands


def start(folder, *words, **options):
    """Start a command as the leader of a process group; its stderr goes to FOLDER/err."""
    environment = {**os.environ, "PYTHONPATH": PACKAGE, "MARK": str(folder)}
    with (folder / "err").open("w") as errors, (folder / "out").open("w") as said:
        return subprocess.Popen(
            [sys.executable, *words], stderr=errors, stdout=said, start_new_session=True, env=environment, **options
        )


def check_end(process, number, folder):
    """Assert that a command ends as a signal asks it to, and that no process of it is left."""
    assert process.wait(60) == 128 + number, (folder / "err").read_text()
    lines = re.split(r"[\r\n]+", (folder / "err").read_text().strip())
    assert lines[-1].startswith(f"error: stopped by {signal.Signals(number).name}; "), lines
    assert not [line for line in lines[:-1] if re.search(r"error|Error|Traceback|Interrupt", line)], lines
    deadline = time.monotonic() + 20
    while left := find_processes(f"MARK={folder}"):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    assert not any((folder / "made" / name).exists() for name in ("config.json", "synthaug.json", "report.json"))


def find_processes(mark):
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes().split(b"\0") and (path / "cmdline").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


STUB = """
import os, signal, sys, types
import synthaug.__main__

def work():
    {work}

sys.modules["synthaug.cli.program"] = types.ModuleType("synthaug.cli.program")
sys.modules["synthaug.cli.program"].main = work
synthaug.__main__.main()
"""
SEND = "os.kill(os.getpid(), {number})"
WORK = {
    "plain": SEND,
    "swallowed": "try:\n        " + SEND + "\n    except BaseException: pass\n    sys.exit(0)",
    "at exit": "import atexit; atexit.register(lambda: " + SEND + "); sys.exit(0)",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("work", WORK)
def test_a_signal_ends_a_command_whatever_it_does(work, number, tmp_path):
    code = STUB.format(work=WORK[work].format(number=int(number)))
    check_end(start(tmp_path, "-c", code), number, tmp_path)


def test_no_signal_ends_a_command_that_has_done_its_work(tmp_path):
    late = "type('Late', (), {'__del__': lambda self, kill=os.kill, number=os.getpid(): kill(number, 15)})()"
    process = start(tmp_path, "-c", STUB.format(work=f"sys.late = {late}; sys.exit(3)"))
    assert process.wait(60) == 3 and (tmp_path / "err").read_text() == ""


WORDS = {
    "inspect": "inspect digits",
    "fit": "fit digits --generator cvae --images 1M --set generator.width=8 --num-processes {processes} -o {made}",
    "generate": "generate {run} --per-class 200_000 --filter none --num-processes {processes} -o {made}",
    "benchmark": "benchmark --real digits --synthetic {rows} --test digits --drop-leaks --seeds 3 "
    "--num-processes {processes} -o {made}",
    "evaluate": "evaluate {run} --test digits --real digits --drop-leaks --num-processes {processes} -o {made}",
    "recommend": "recommend digits --images 20k --num-processes {processes} -o {made}",
}


def start_command(command, folder, processes=2, *, run="nowhere", rows="nowhere"):
    (folder / "here").mkdir(parents=True)
    words = WORDS[command].format(run=run, rows=rows, processes=processes, made=folder / "made").replace("_000", "000")
    process = start(folder, "-m", "synthaug", *words.split(), cwd=folder / "here")
    deadline = time.monotonic() + 60
    while not handles(process, signal.SIGTERM):  # Python itself starts
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def handles(process, number):
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())
    return int(caught, 16) >> number - 1 & 1


@pytest.mark.parametrize(("command", "number", "group"), [("inspect", 2, False), ("fit", 15, True)])
def test_a_signal_in_the_imports_of_a_command_ends_it(command, number, group, tmp_path):
    process = start_command(command, tmp_path)
    deadline = time.monotonic() + 60
    while "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (os.killpg if group else os.kill)(process.pid, number)
    check_end(process, number, tmp_path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_run_and_rows(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("command", WORDS)
def test_a_signal_at_any_time_to_a_command_or_its_group(command, processes, folders, tmp_path):
    kinds = itertools.product((signal.SIGINT, signal.SIGTERM), (os.kill, os.killpg), (0, 0.5, 1, 2, 3, 5))
    for count, (number, kill, seconds) in enumerate(kinds):
        folder = tmp_path / str(count)
        process = start_command(command, folder, processes, **folders)
        time.sleep(seconds)
        if process.poll() is None:
            kill(process.pid, number)
        if command == "inspect" and process.wait(60) == 0:  # it had done its work
            assert "images/s" in (folder / "out").read_text()
        else:
            check_end(process, number, folder)
