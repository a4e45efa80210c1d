"""Shards written by a process of its own: the bytes of `ShardWriter`, and what happens when either side fails."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from datasets import Array2D
from test_generation import PLAN, StopAfter, crash, interrupt, run, tree
from toy_rows import make_real
from toys import NAMES, ToyGenerator, keep_bright_corners, keep_none_of_cat

from synthaug import generation
from synthaug.balance import BalancePlan
from synthaug.drawnrows import DrawnRows, RepeatedColumns
from synthaug.errors import FailedError, StoppedError
from synthaug.shardprocess import ShardProcess
from synthaug.shards import ShardWriter
from synthaug.sharedslots import SharedSlots, open_memory

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ORIGIN = pa.struct([("seed", pa.int64()), ("draw", pa.int64())])
SCHEMA = pa.schema([("picture", IMAGE), ("kind", pa.string()), ("provenance", ORIGIN)], metadata={"made by": "hand"})
BLOCK = (64, 8, 8, 3)


def make_rows(seed, kind, count=64):
    repeated = RepeatedColumns(
        SCHEMA, "picture", {"kind": pa.repeat(kind, 64)}, {"seed": pa.repeat(pa.scalar(seed, pa.int64()), 64)}
    )
    chance = np.random.default_rng(seed)
    for _ in range(20):
        pixels = chance.integers(0, 256, (count, *BLOCK[1:]), dtype=np.uint8)
        yield DrawnRows(repeated, pixels, np.sort(chance.integers(0, 10**9, count)))


def write_three(folder, open_shard):
    """Write a shard of drawn rows, one of tables between them, and one of small blocks; return their hashes."""
    folder.mkdir()
    writers = []
    with open_shard(folder / "a", SCHEMA) as writer:
        for rows in (*make_rows(1, "ant"), *make_rows(2, "bee", count=13), *make_rows(3, "cat", count=0)):
            writer.write(rows)
    writers.append(writer)
    with open_shard(folder / "b", SCHEMA) as writer:
        for rows in make_rows(4, "ant"):
            writer.write(rows)
            writer.write(rows.table())
    writers.append(writer)
    with open_shard(folder / "c", SCHEMA) as writer:  # a row group of more blocks than wait in memory
        for seed in range(5, 9):
            for rows in make_rows(seed, "bee", count=13):
                writer.write(rows)
    for one in (*writers, writer):
        one.wait()
    return tree(folder)


def limit_files(process, size):
    """Let no file that the process writes grow beyond this size, as if the disk were full."""
    resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def start_process():
    return ShardProcess(int(np.prod(BLOCK)) + 64 * 100)


@pytest.mark.parametrize("memory", ["has room", "is half full", "is full"])
def test_a_process_writes_the_bytes_of_a_writer(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(SharedSlots, "half_full", memory == "is half full")
    if memory == "is full":
        monkeypatch.setattr(SharedSlots, "put", lambda self, array: None)
    with start_process() as process:
        assert write_three(tmp_path / "there", process.open) == write_three(tmp_path / "here", ShardWriter)


def test_slots_are_taken_in_turn_and_never_filled_twice():
    blocks = [np.full((2, 3), n, np.uint8) for n in range(40)]
    with open_memory(6) as memory:
        giver, taker = SharedSlots(memory.fileno()), SharedSlots(memory.fileno())
    assert giver.put(np.zeros(7, np.uint8)) is None  # too large
    places, seen = [], []
    for block in blocks:
        while (place := giver.put(block)) is None:
            with taker.take(places.pop(0)) as pixels:
                seen.append(pixels.copy())
        places.append(place)
    assert len(places) == 16
    for place in places:
        with taker.take(place) as pixels:
            seen.append(pixels.copy())
    assert np.array_equal(seen, blocks)


def test_a_full_disk_is_told_in_the_words_of_the_system(tmp_path):
    with start_process() as process, pytest.raises(OSError, match="File too large"):
        limit_files(process, 100_000)
        write_three(tmp_path / "out", process.open)


@pytest.mark.parametrize("when", ["writing", "waiting"])
def test_the_death_of_the_process_is_an_error_and_no_hang(tmp_path, when):
    with start_process() as process:
        writer = process.open(tmp_path / "a", SCHEMA)
        if when == "waiting":
            writer.close()
            writer.wait()
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match="killed; out of memory"):
            for rows in make_rows(1, "ant") if when == "writing" else ():
                time.sleep(0.01)
                writer.write(rows)
            with process.open(tmp_path / "b", SCHEMA) as second:
                pass
            second.wait()


def test_of_a_slice_only_its_rows_are_sent(tmp_path, monkeypatch):
    whole = pa.concat_tables([rows.table() for rows in make_rows(1, "ant")]).combine_chunks()
    with start_process() as process:
        sent, send = [], process._line._end.sendall
        monkeypatch.setattr(
            process._line,
            "_end",
            SimpleNamespace(sendall=lambda part: sent.append(part) or send(part), close=lambda: None),
        )
        with process.open(tmp_path / "a", SCHEMA) as writer:
            writer.write(whole.slice(100, 10))
        writer.wait()
    assert sum(memoryview(part).nbytes for part in sent) < whole.nbytes / 10
    with ShardWriter(tmp_path / "b", SCHEMA) as writer:
        writer.write(whole.slice(100, 10))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_signal_to_every_process_leaves_the_decision_to_the_caller(tmp_path):
    with start_process() as process, process.open(tmp_path / "a", SCHEMA) as writer:
        writer.close()
        writer.wait()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(process._process.pid, number)
        assert write_three(tmp_path / "there", process.open) == write_three(tmp_path / "here", ShardWriter)


def test_a_process_that_lost_its_caller_touches_no_file(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"of another")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with start_process() as process, pytest.raises(ChildProcessError):
        with process.open(path, SCHEMA) as writer:
            pass
        writer.wait()
    assert path.read_bytes() == b"of another"


def test_modules_in_the_working_directory_are_not_imported(tmp_path, monkeypatch):
    for name in ("random", "json", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('foreign code ran')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    with start_process() as process:
        assert write_three(tmp_path / "there", process.open) == write_three(tmp_path / "here", ShardWriter)


def test_what_is_not_expected_ends_the_process_with_its_traceback(tmp_path, capfd):
    with start_process() as process, pytest.raises(ChildProcessError, match="exit code 1"):
        process._opened = 1
        process.tell("drawn", np.zeros(BLOCK, np.uint8), np.arange(64))
        process.hear(1)
    assert "ValueError: 'drawn' is not expected now" in capfd.readouterr().err


# ----------------------------------------------------------------------------------------------- under `generate`


@pytest.fixture
def always(monkeypatch):
    monkeypatch.setattr(generation, "_ROWS_FOR_A_PROCESS", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})


@pytest.fixture
def started(monkeypatch, always):
    """The processes that `generate` starts."""
    processes = []
    monkeypatch.setattr(generation, "ShardProcess", lambda size: processes.append(ShardProcess(size)) or processes[-1])
    return processes


def test_where_no_process_can_be_started_the_caller_writes(tmp_path, always, whole, monkeypatch):
    def refuse(size):
        raise OSError("no memory")

    monkeypatch.setattr(generation, "ShardProcess", refuse)
    run(tmp_path / "out", filter=StopAfter(0, crash), mix_with=make_real((90, 20, 3)))
    assert tree(tmp_path / "out") == whole


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder as one process writes it alone."""
    path = tmp_path_factory.mktemp("whole") / "out"
    run(path, filter=StopAfter(0, crash), mix_with=make_real((90, 20, 3)))
    return tree(path)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_the_dataset_is_the_same(tmp_path, always, num_processes):
    run(tmp_path / "there", filter=keep_bright_corners, mix_with=make_real((90, 20, 3)), num_processes=num_processes)
    generation._ROWS_FOR_A_PROCESS = 10**9
    run(tmp_path / "here", filter=keep_bright_corners, mix_with=make_real((90, 20, 3)))
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_columns_of_a_type_that_datasets_adds(tmp_path, always):
    real = make_real((90, 20, 3))
    grid = [[[n, 0.5], [1.5, None]] for n in range(len(real))]
    real = real.add_column("grid", grid).cast_column("grid", Array2D((2, 2), "float32"))
    run(tmp_path / "there", mix_with=real)
    generation._ROWS_FOR_A_PROCESS = 10**9
    run(tmp_path / "here", mix_with=real)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_thirty_thousand_rows_are_the_same(tmp_path, monkeypatch, started):
    monkeypatch.setattr(generation, "_ROWS_FOR_A_PROCESS", 20_000)
    plan = BalancePlan(dict.fromkeys(NAMES, 0), {"ant": 14_999, "bee": 1, "cat": 15_000})
    run(tmp_path / "there", plan=plan, filter=keep_bright_corners, rows_per_shard=7_000)
    assert len(started) == 1
    monkeypatch.setattr(generation, "_ROWS_FOR_A_PROCESS", 10**9)
    run(tmp_path / "here", plan=plan, filter=keep_bright_corners, rows_per_shard=7_000)
    assert len(started) == 1
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("action", [crash, interrupt])
def test_an_interruption_leaves_no_trace(tmp_path, always, whole, blocks, action):
    real = make_real((90, 20, 3))
    with pytest.raises((RuntimeError, StoppedError)):
        run(tmp_path / "out", filter=StopAfter(blocks, action), mix_with=real)
    check = StopAfter(0, crash)
    run(tmp_path / "out", filter=check, mix_with=real)
    assert tree(tmp_path / "out") == whole
    if blocks == 5:
        assert -check.blocks < 6  # it took up where it was


def test_a_shortfall_keeps_what_was_accepted(tmp_path, always):
    with pytest.raises(FailedError, match="'cat' fell short"):
        run(tmp_path / "out", filter=keep_none_of_cat)
    assert '"pending": {' in (tmp_path / "out" / ".partial" / "manifest.json").read_text()


def test_a_dead_writer_is_one_line_and_the_next_call_goes_on(tmp_path, started, whole):
    real = make_real((90, 20, 3))

    def kill_writer():
        os.kill(started[0]._process.pid, signal.SIGKILL)
        started[0]._process.wait()

    with pytest.raises(FailedError, match=r"process that writes the shards died .* run it again to go on") as caught:
        run(tmp_path / "out", filter=StopAfter(3, kill_writer), mix_with=real)
    assert "\n" not in str(caught.value)
    run(tmp_path / "out", filter=StopAfter(0, crash), mix_with=real)
    assert tree(tmp_path / "out") == whole


def test_a_full_disk_stops_with_one_line_and_nothing_half_written(tmp_path, started, whole):
    real = make_real((90, 20, 3))
    with pytest.raises(FailedError, match=r"cannot write .*free space and run it again") as caught:
        run(tmp_path / "out", filter=StopAfter(1, lambda: limit_files(started[0], 6_000)), mix_with=real)
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "data").exists()
    run(tmp_path / "out", filter=StopAfter(0, crash), mix_with=real)
    assert tree(tmp_path / "out") == whole


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from toys import ToyGenerator
from synthaug import generation, generate
from synthaug.balance import make_plan
from synthaug.shardprocess import ShardProcess
generation._ROWS_FOR_A_PROCESS = 0
class Told(ShardProcess):
    def __init__(self, size):
        super().__init__(size)
        print(self._process.pid, os.getsid(self._process.pid) != os.getsid(0), flush=True)
generation.ShardProcess = Told
def check(images, labels):
    if {kill}:
        os.kill(os.getpid(), signal.SIGKILL)
    return labels >= 0
check.__name__ = "all"
generate(ToyGenerator(), make_plan({{"ant": 90, "bee": 20, "cat": 3}}), output={output!r}, filter=check)
"""


@pytest.mark.parametrize("kill", [False, True])
def test_a_script_needs_no_guard_and_its_writer_ends_with_it(tmp_path, kill):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), kill=kill, output=str(tmp_path / "out")))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stderr
    (line,) = done.stdout.splitlines()  # one process was started, and no second script
    number, apart = line.split()
    assert apart == "True"  # a Ctrl-C at the terminal does not reach it
    for _ in range(100):
        if not Path(f"/proc/{number}").exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("the writing process outlived its caller")
    if not kill:
        generation.generate(ToyGenerator(), PLAN, output=tmp_path / "here", filter=_keep_all)
        assert tree(tmp_path / "out") == tree(tmp_path / "here")


def _keep_all(images, labels):
    return labels >= 0


_keep_all.__name__ = "all"
