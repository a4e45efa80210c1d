"""A file that changes within the same path, size and time never gives the old rows."""

import io
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

from synthaug.cli import main
from synthaug.core import FailedError, InputError
from synthaug.data import caches, digest_rows, load_images, open_dataset, scan, table_files
from synthaug.generation import write_dataset

FEATURES = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog"])})
ROWS = 6


def bmp(seed):
    """Return the file of a random picture; all of them are equally long."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def make_table(seed):
    files = pa.array([bmp(seed + row) for row in range(ROWS)], pa.binary())
    images = pa.StructArray.from_arrays([files, pa.nulls(ROWS, pa.string())], ["bytes", "path"])
    return pa.table([images, pa.array([0, 1] * (ROWS // 2))], schema=FEATURES.arrow_schema)


def write_parquet(folder, seed):
    folder.mkdir(exist_ok=True)
    pq.write_table(make_table(seed), folder / "train.parquet", compression="none")
    return folder / "train.parquet"


def write_saved(folder, seed):
    """Save a dataset, whose fingerprint stays when its Arrow file is replaced."""
    kept = (folder / "state.json").read_bytes() if folder.exists() else None
    shutil.rmtree(folder, ignore_errors=True)
    Dataset(make_table(seed)).save_to_disk(folder)
    if kept is not None:
        (folder / "state.json").write_bytes(kept)
    return folder


def write_folders(folder, seed):
    for row in range(ROWS):
        file = folder / ("cat", "dog")[row % 2] / f"{row}.bmp"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bmp(seed + row))
    return folder


def write_listed(folder, seed):
    write_folders(folder, seed)
    lines = [f"{('cat', 'dog')[row % 2]}/{row}.bmp,{row % 2}" for row in range(ROWS)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *lines]) + "\n")
    return folder


LAYOUTS = {
    "Parquet file": write_parquet,
    "glob": lambda folder, seed: write_parquet(folder, seed).parent / "*.parquet",
    "Parquet folder": lambda folder, seed: write_parquet(folder, seed).parent,
    "saved": write_saved,
    "class folders": write_folders,
    "listed": write_listed,
}


def rewrite(layout, folder, seed):
    """Write other rows into the same files, and give each file the time that it had."""
    before = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    LAYOUTS[layout](folder, seed)
    for path, status in before.items():
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size and path.stat().st_mtime_ns == status.st_mtime_ns


def hashes_of(spec):
    return load_images(open_dataset(str(spec)), codec=scan.Codec(8, 3)).hashes.tolist()


@pytest.fixture(params=["memory", "mapped"])
def cache(request, tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    if request.param == "mapped":
        monkeypatch.setattr(scan, "MEMORY_LIMIT", 100)
    return tmp_path / "cache"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_replaced_within_its_path_size_and_time_gives_the_new_rows(cache, tmp_path, layout):
    spec = LAYOUTS[layout](tmp_path / "rows", 0)
    first, fresh = hashes_of(spec), hashes_of(LAYOUTS[layout](tmp_path / "fresh", 100))
    assert hashes_of(spec) == first and set(first).isdisjoint(fresh)
    rewrite(layout, tmp_path / "rows", 100)
    assert hashes_of(spec) == fresh


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_was_made_of_other_rows_is_not_taken_for_finished(tmp_path, layout):
    spec = LAYOUTS[layout](tmp_path / "rows", 0)
    before = digest_rows(open_dataset(str(spec)))
    write_dataset(open_dataset(str(spec)), tmp_path / "out")
    write_dataset(open_dataset(str(spec)), tmp_path / "out")
    rewrite(layout, tmp_path / "rows", 100)
    assert digest_rows(open_dataset(str(spec))) != before
    with pytest.raises(InputError, match="other arguments"):
        write_dataset(open_dataset(str(spec)), tmp_path / "out")


def test_files_of_a_dataset_object_are_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(scan, "MEMORY_LIMIT", 100)

    def load():
        return load_images(Dataset.load_from_disk(tmp_path / "rows"), codec=scan.Codec(8, 3)).hashes.tolist()

    write_saved(tmp_path / "rows", 0)
    first = load()
    assert load() == first and len(list((tmp_path / "cache").iterdir())) == 1
    rewrite("saved", tmp_path / "rows", 100)
    assert set(load()).isdisjoint(first)


def test_the_command_reads_the_new_rows(tmp_path, capsys):
    def count():
        with pytest.raises(SystemExit):
            main(["inspect", str(tmp_path / "rows" / "train.parquet")])
        return [line for line in capsys.readouterr().out.splitlines() if "duplicate" in line]

    write_parquet(tmp_path / "rows", 0)
    before = count()
    table = make_table(0)
    column = table.column("image").combine_chunks().take(pa.array([0] * ROWS))
    status = (tmp_path / "rows" / "train.parquet").stat()
    same = table.set_column(0, table.schema.field(0), column)
    pq.write_table(same, tmp_path / "rows" / "train.parquet", compression="none", use_dictionary=False)
    os.utime(tmp_path / "rows" / "train.parquet", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert before != count()


def test_a_moved_file_is_another_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1")
    two.write_bytes(b"2")
    before = caches.digest_files([one])
    assert caches.digest_files([one]) == before
    status = one.stat()
    two.rename(one)
    os.utime(one, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert caches.digest_files([one]) != before


def test_an_entry_is_complete_or_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))

    def fail(folder):
        (folder / "half").write_bytes(b"x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        caches.keep_entry("entry", fail)
    assert not list((tmp_path / "cache").iterdir())
    made = caches.keep_entry("entry", lambda folder: (folder / "whole").touch())
    assert caches.keep_entry("entry", fail) == made and (made / "whole").is_file()


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FailedError, match="SYNTHAUG_CACHE"):
        open_dataset(str(write_parquet(tmp_path / "rows", 0)))


def test_a_full_disk_is_told_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHAUG_CACHE", str(tmp_path / "cache"))
    path = write_parquet(tmp_path / "rows", 0)

    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(table_files, "_copy", fill)
    with pytest.raises(FailedError, match=r"No space left on device\); free space.*SYNTHAUG_CACHE"):
        open_dataset(str(path))
    assert not list((tmp_path / "cache").iterdir())
