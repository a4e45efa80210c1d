"""Child processes: what they import, whom they obey, and how they end."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import synthaug
from synthaug.core import FailedError, InputError, WorkerPool
from synthaug.core.children import start_child
from synthaug.recipe import parse_duration
from tests.small_runs import make_run_and_rows
from tests.toy_calls import act

TRAPS = (
    "synthaug", "queue", "random", "json", "torch", "numpy", "signal", "typing", "socket", "struct", "pickle",
    "threading", "tempfile", "subprocess", "multiprocessing", "selectors", "sitecustomize", "usercustomize",
)  # fmt: skip
PACKAGE = str(Path(synthaug.__file__).parent.parent)


@pytest.fixture
def trap(tmp_path):
    """A folder of modules that leave a mark in `marks` when something imports them."""
    folder = tmp_path / "trap"
    folder.mkdir()
    (tmp_path / "marks").mkdir()
    for name in TRAPS:
        mark = tmp_path / "marks" / name
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    yield folder
    assert [path.name for path in (tmp_path / "marks").iterdir()] == []


# ------------------------------------------------------------------------------------------------- what they import


def test_a_worker_imports_nothing_from_the_current_folder(trap, monkeypatch):
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", f":{PACKAGE}:.")  # an empty entry is the current folder too
    with WorkerPool(parse_duration) as pool:
        pool.grow(2)
        assert [pool.submit(text).result() for text in ("10m", "2h")] == [600, 7200]


def test_a_rank_imports_nothing_from_the_current_folder(trap, monkeypatch):
    monkeypatch.chdir(trap)
    monkeypatch.setenv("PYTHONPATH", f"{PACKAGE}:")
    rank = start_child("synthaug.__main__:main", ["fit", "--help"], stdout=subprocess.PIPE)
    assert b"--generator" in rank.communicate(timeout=60)[0] and rank.returncode == 0


def test_a_child_finds_the_package_of_its_caller_and_what_pythonpath_names(tmp_path, monkeypatch):
    """The caller may have found its package in ways that a child has not."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
sys.path.insert(0, {PACKAGE!r})
from tests.toy_calls import describe_modules
from synthaug.core import WorkerPool
with WorkerPool(describe_modules) as pool:
    pool.grow(1)
    print(*pool.submit("named").result())
"""
    other = tmp_path / "other"
    (other / "synthaug").mkdir(parents=True)
    (other / "synthaug" / "__init__.py").touch()
    (other / "named.py").touch()
    environment = {**os.environ, "PYTHONPATH": str(other)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == [synthaug.__file__, str(other / "named.py"), "1"], done.stderr


def test_python_m_synthaug_looks_into_the_current_folder_for_no_other_module(trap):
    for name in ("synthaug", "signal", "typing", "threading"):  # Python imports these before the command can say so
        (trap / f"{name}.py").unlink()
    words = [sys.executable, "-m", "synthaug", "fit", "--help"]
    done = subprocess.run(words, cwd=trap, env={**os.environ, "PYTHONPATH": PACKAGE}, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr


COMMANDS = {
    "fit": "fit digits --generator cvae --images 640 --limit-per-class 20 --set generator.width=8",
    "generate": "generate {run} --per-class 70 --filter none",
    "evaluate": "evaluate {run} --test digits --real digits --drop-leaks --per-class 65 --seeds 1",
    "benchmark": "benchmark --real digits --synthetic {rows} --test digits --drop-leaks --seeds 2 --steps 5 "
    "--limit-per-class 20 --arms real,real+classical,real+classical+synthetic",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_run_and_rows(tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_on_two_processes_imports_from_the_current_folder(command, trap, folders, tmp_path):
    words = [*COMMANDS[command].format(**folders).split(), "--output", str(tmp_path / "out")]
    words = [sys.executable, "-P", "-m", "synthaug", *words, "--num-processes", "2"]  # as the script `synthaug`
    environment = {**os.environ, "PYTHONPATH": PACKAGE}
    done = subprocess.run(words, cwd=trap, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------- what they are sent

SCRIPT = """
{imports}
from synthaug.core import WorkerPool

print("read", flush=True)
{double}

{guard}
    with WorkerPool(double) as pool:
        pool.grow(2)
        print([pool.submit(number).result() for number in range(3)])
"""
DOUBLE = "def double(number): return 2 * number"


def run_script(folder, *, imports="", double=DOUBLE, guard='if __name__ == "__main__":'):
    (folder / "script.py").write_text(SCRIPT.format(imports=imports, double=double, guard=guard))
    done = subprocess.run(
        [sys.executable, str(folder / "script.py")], env={**os.environ, "PYTHONPATH": PACKAGE}, cwd="/",
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_what_a_script_defines_is_read_there(tmp_path):
    assert run_script(tmp_path) == (["read", "[0, 2, 4]"], ["read", "read"])


def test_a_script_without_a_guard_is_told_so(tmp_path):
    said, errors = run_script(tmp_path, guard="if True:")
    messages = [line for line in errors if line.startswith("synthaug.core.errors.InputError")]
    assert said == ["read"] and "cannot read" in messages[0] and "if __name__ == '__main__':" in messages[0]


def test_what_a_module_beside_the_script_defines_needs_no_guard(tmp_path):
    (tmp_path / "doubling.py").write_text(DOUBLE)
    ends = run_script(tmp_path, imports="from doubling import double", double="", guard="if True:")
    assert ends == (["read", "[0, 2, 4]"], [])


def test_what_cannot_be_sent_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot be sent .*lambda.*num_processes=1"):
        WorkerPool(lambda number: number)
    code = SCRIPT.format(imports="", double=DOUBLE, guard="if True:")  # there is no file to read it from again
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert re.search(r"InputError: .*cannot read .*num_processes=1", done.stderr) and done.returncode == 1


# ------------------------------------------------------------------------------------------------- how they answer


@pytest.fixture
def pool():
    with WorkerPool(act, ahead=2) as made:
        made.grow(1)
        yield made


def test_answers_come_in_order_and_what_is_printed_between_them_harms_none(capfd):
    with WorkerPool(act, ahead=2) as pool:
        pool.grow(3)
        futures = [pool.submit(("print", number)) for number in range(40)]
        assert [future.result() for future in futures] == list(range(40))
    assert capfd.readouterr().err.count("this is no answer") == 40


def test_what_a_call_raises_is_raised_here_and_the_next_is_answered(pool):
    with pytest.raises(ZeroDivisionError, match="so small") as caught:
        pool.submit(("fail", ZeroDivisionError("so small"))).result()
    assert "in act" in caught.value.__notes__[0]
    with pytest.raises(FailedError, match="Unsendable"):
        pool.submit(("fail strangely",)).result()
    assert pool.submit(("pass",)).result()


@pytest.mark.parametrize(("end", "words"), [(("die",), "killed; out of memory"), (("exit", 3), "exit code 3")])
def test_a_worker_that_dies_is_one_clear_error(pool, end, words):
    futures = [pool.submit(call) for call in (("pass",), end, ("pass",), ("pass",))]
    assert futures[0].result()
    for future in futures[1:]:
        with pytest.raises(FailedError, match=rf"a worker process died \({words}.*num_processes=1"):
            future.result(timeout=60)


def test_a_process_that_cannot_be_started_is_one_clear_error(pool):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())), before[1]))
    try:
        with pytest.raises(FailedError, match=r"cannot start another process \(Too many open files\).*num_processes=1"):
            pool.grow(2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert pool.submit(("pass",)).result()


def test_a_pool_that_is_left_ends_its_workers_at_once():
    started = time.monotonic()
    with WorkerPool(act) as pool:
        pool.grow(2)
        number = pool.submit(("pass",)).result()
        futures = [pool.submit(("sleep", 100)) for _ in range(4)]
    assert time.monotonic() - started < 50 and not Path(f"/proc/{number}").exists()
    assert all(isinstance(future.exception(timeout=1), FailedError) for future in futures[:2])


def test_a_worker_leaves_signals_to_its_caller(pool):
    number = pool.submit(("pass",)).result()
    assert os.getsid(number) != os.getsid(0)
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(number, sent)
    assert pool.submit(("pass",)).result() == number


@pytest.mark.parametrize("moment", ["start", "call"])
def test_a_worker_ends_with_its_caller_whatever_it_does(moment):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent.parent.parent)!r})
from tests.toy_calls import act
from synthaug.core import WorkerPool
with WorkerPool(act) as pool:
    pool.grow(1)
    if {moment!r} == "call":
        pool.submit(("pass",)).result()
    print(pool._workers[0][0].pid, flush=True)
    pool.submit(("sleep", 1000)).result()
"""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    caller = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PACKAGE}, **pipes)
    number = int(caller.stdout.readline())
    caller.kill()
    assert caller.communicate(timeout=60) == (b"", b"")  # the worker has its stderr too, and says nothing
    deadline = time.monotonic() + 60
    while Path(f"/proc/{number}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_signal_to_a_child_waits_until_the_child_can_say_what_stopped_it():
    for sent in (signal.SIGTERM, signal.SIGINT):
        for wait in (0, 0.02, 0.05):
            child = start_child("synthaug.__main__:main", ["--help"], stdout=subprocess.DEVNULL)
            time.sleep(wait)
            child.send_signal(sent)
            assert child.wait(60) in (128 + sent, *([0] if wait else []))
