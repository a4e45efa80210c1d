"""Streams into datasets, with a stated cap."""

import pytest
from datasets import IterableDataset

import synthaug
from synthaug.core import InputError
from synthaug.data import read_stream
from tests.toy_rows import make_real, stored


def test_a_stream_gives_the_rows_of_the_dataset():
    real = make_real((5, 4, 3))
    read = read_stream(real.to_iterable_dataset(num_shards=2))
    assert read.features == real.features
    assert [v["bytes"] for v in stored(read, "image")] == [v["bytes"] for v in stored(real, "image")]
    assert read["label"][:] == real["label"][:]


def test_the_same_stream_is_the_same_dataset():
    real = make_real((5, 4, 3))
    one, two = read_stream(real.to_iterable_dataset(), 7), read_stream(real.to_iterable_dataset(), 7)
    assert one._fingerprint == two._fingerprint != read_stream(real.to_iterable_dataset(), 6)._fingerprint


def test_the_cap_holds_and_is_told(capsys):
    real = make_real((5, 4, 3))
    assert len(read_stream(real.to_iterable_dataset(), 7)) == 7
    assert "more than 7 rows; the first 7 are used" in capsys.readouterr().err
    assert len(read_stream(real.to_iterable_dataset(), 12)) == 12
    assert capsys.readouterr().err == ""


def test_a_generator_without_end_stops_at_the_cap():
    real = make_real((5, 4, 3))

    def rows():
        while True:
            yield from ({key: row[key] for key in real.features} for row in real)

    stream = IterableDataset.from_generator(rows, features=real.features)
    assert len(read_stream(stream, 30)) == 30


def test_what_cannot_be_read_is_told():
    def rows():
        yield {"a": 1}

    with pytest.raises(InputError, match="features of the stream are unknown"):
        read_stream(IterableDataset.from_generator(rows))
    with pytest.raises(InputError, match="stream_rows is 0"):
        read_stream(make_real().to_iterable_dataset(), 0)
    empty = make_real().to_iterable_dataset().take(0)
    with pytest.raises(InputError, match="no rows"):
        read_stream(empty)


def test_fit_takes_a_stream(tmp_path, monkeypatch):
    from synthaug.training import fitting

    seen = {}
    monkeypatch.setattr(fitting, "_fit_into", lambda output, plan, accelerator, digest: seen.update(plan=plan))
    monkeypatch.setattr(fitting, "load_run", lambda folder, family: None)
    synthaug.fit(make_real((9, 9, 9)).to_iterable_dataset(), "cvae", output=tmp_path, images=32, stream_rows=20)
    assert len(seen["plan"].images) == 20
