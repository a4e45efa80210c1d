from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies as st

from synthaug.core import InputError, OutputFolder
from synthaug.generation import ShardFolder
from synthaug.generation.dataset_folder import is_finished
from synthaug.generation.shards import ShardWriter

SCHEMA = pa.schema([("number", pa.int64()), ("data", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])


def make_table(start: int, stop: int, size: int = 20) -> pa.Table:
    data = [{"bytes": np.random.Philox(n).random_raw(size).tobytes(), "path": None} for n in range(start, stop)]
    return pa.table({"number": range(start, stop), "data": data}, schema=SCHEMA)


class Counter:
    """A stream of numbered rows."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows, self.position, self.made = num_rows, 0, 0

    def state(self):
        return {"position": self.position}

    def seek(self, state):
        self.position = state["position"]

    def read(self, count):
        end = self.position + count
        while self.position < end:
            step = min(7, end - self.position)
            self.position += step
            self.made += step
            yield make_table(self.position - step, self.position)


def write(path: Path, cuts) -> str:
    with ShardWriter(path, SCHEMA) as writer:
        for start, stop in itertools.pairwise(cuts):
            writer.write(make_table(start, stop))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(0, 1230), max_size=6))
def test_the_bytes_do_not_depend_on_how_rows_arrive(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("shards")
    assert write(folder / "a", [0, 1230]) == write(folder / "b", [0, *sorted(cuts), 1230])
    assert pq.ParquetFile(folder / "a").metadata.num_row_groups == 2
    assert pq.read_table(folder / "a").equals(make_table(0, 1230))


def test_large_rows_make_smaller_row_groups(tmp_path):
    with ShardWriter(tmp_path / "a", SCHEMA) as writer:
        for start in range(0, 200, 50):
            writer.write(make_table(start, start + 50, size=1 << 17))  # 1 MiB a row
    assert pq.ParquetFile(tmp_path / "a").metadata.num_row_groups == 2


def test_a_row_group_that_cannot_be_written_is_told_once_and_for_all(tmp_path, monkeypatch):
    written = []

    def write_table(self, group, row_group_size):
        written.append(len(group))
        if len(written) == 2:
            raise OSError("no space left")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", write_table)
    writer = ShardWriter(tmp_path / "a", SCHEMA)
    with pytest.raises(OSError, match="no space left"):  # the second row group fails while the third one is made
        for start in range(0, 9_000, 500):
            writer.write(make_table(start, start + 500))
    with pytest.raises(OSError, match="no space left"):
        writer.close()
    assert written == [1_000, 1_000]


def test_a_shard_that_cannot_be_written_is_not_recorded(tmp_path, monkeypatch):
    write_table, failing = pq.ParquetWriter.write_table, [False, False, True]

    def fail_at_the_third(self, *arguments, **options):
        if failing and failing.pop(0):
            raise OSError("no space left")
        write_table(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail_at_the_third)
    with pytest.raises(OSError, match="no space left"):
        make_folder(tmp_path / "out")
    assert not (tmp_path / "out" / "data").exists()
    _, made = make_folder(tmp_path / "out")
    make_folder(tmp_path / "whole")
    assert made == [5, 12]  # two shards of 20 rows and one of 3 were there
    assert [p.read_bytes() for p in sorted((tmp_path / "out" / "data").iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "whole" / "data").iterdir())
    ]


def make_folder(path: Path, arguments=None, rows=(45, 12), **options):
    streams = [Counter(n) for n in rows]
    arguments = arguments or {"seed": 0}
    with OutputFolder(path, "test", arguments, **options) as made:
        folder = ShardFolder(path, arguments)
        if not folder.finished:
            folder.write({"train": streams, "test": [Counter(3)]}, SCHEMA, rows_per_shard=20)
            folder.finish()
            made.finish()
    return folder, [stream.made for stream in streams]


def test_a_folder_is_cut_into_shards_and_finished(tmp_path):
    folder, made = make_folder(tmp_path / "out")
    names = ["test-00000-of-00001", *(f"train-{i:05d}-of-00004" for i in range(4))]
    assert sorted(p.stem for p in (tmp_path / "out" / "data").iterdir()) == names
    assert [pq.read_metadata(p).num_rows for p in folder.paths("train")] == [20, 20, 5, 12]
    assert made == [45, 12] and is_finished(tmp_path / "out") and not (tmp_path / "out" / ".partial").exists()
    numbers = folder.read_rows("train", [0, 19, 20, 44, 45, 56], ["number"])["number"].to_pylist()
    assert numbers == [0, 19, 20, 44, 0, 11]


def test_only_what_is_damaged_is_written_again(tmp_path):
    folder, _ = make_folder(tmp_path / "out")
    path = folder.paths("train")[1]
    before = path.read_bytes()
    path.write_bytes(before[:-7])
    assert not folder.finished
    _, made = make_folder(tmp_path / "out")
    assert path.read_bytes() == before and made == [20, 0]


def test_an_unreadable_manifest_is_to_be_removed(tmp_path):
    make_folder(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="remove it and run the same command again"):
        make_folder(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").unlink()
    folder, _ = make_folder(tmp_path / "out")
    assert folder.finished


def test_arguments_are_compared_as_json(tmp_path):
    make_folder(tmp_path / "out", {"names": ("a", "b")})
    make_folder(tmp_path / "out", {"names": ["a", "b"]})
    with pytest.raises(InputError, match=r"\(names, seed\)"):
        make_folder(tmp_path / "out", {"seed": 1})
