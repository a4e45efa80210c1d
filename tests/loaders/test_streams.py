"""MixedIterable: every sample once, whatever the workers and processes, and the same as in MixedDataset."""

import pickle

import numpy as np
import pytest
import torch
from datasets import Image, Value
from torch.utils.data import DataLoader, IterableDataset

from synthaug import InputError, MixedDataset, MixedIterable
from tests.toy_rows import make_real
from tests.toys import NAMES, ToyGenerator

COUNTS = (40, 20, 10)
OPTIONS = {"share": 0.5, "filter": "none", "seed": 3}


class Stream(IterableDataset):
    """Pairs whose label is cycled and whose image tells the position."""

    def __init__(self, length=100):
        self.length, self.epoch = length, 0

    def __iter__(self):
        for position in range(self.length):
            yield torch.full((1, 8, 8), position / 200), position % 3

    def set_epoch(self, epoch):
        self.epoch = epoch


def tell(row):
    return {"pixels": torch.from_numpy(np.array(row["image"])), "label": row["label"], "age": row["age"] or -1}


def key(image):
    return image.numpy().tobytes()


def test_it_yields_what_the_mixed_data_set_yields():
    real = make_real(COUNTS)
    mixed = MixedDataset(real, ToyGenerator(), transform=tell, **OPTIONS)
    streams = [
        MixedIterable(data, ToyGenerator(), transform=tell, **OPTIONS) for data in (real, real.to_iterable_dataset())
    ]
    for epoch in (0, 2):
        mixed.set_epoch(epoch)
        wanted = [mixed[index] for index in range(len(mixed))]
        for stream in streams:
            stream.set_epoch(epoch)
            found = list(stream)
            assert len(found) == len(wanted) and stream.epoch == epoch
            if epoch == 0:  # a datasets stream orders its files anew in each epoch
                assert all(torch.equal(a["pixels"], b["pixels"]) for a, b in zip(found, wanted, strict=True))
                assert [row["age"] for row in found] == [row["age"] for row in wanted]


def test_plain_integers_of_a_stream_are_class_names():
    real = make_real(COUNTS).cast_column("label", Value("int64")).map(lambda row: {"label": row["label"] + 1})
    generator, options = ToyGenerator(class_names=["1", "2", "3"]), {**OPTIONS, "label_column": "label"}
    mixed = MixedDataset(real, generator, transform=tell, **options)
    stream = list(MixedIterable(real.to_iterable_dataset(), generator, transform=tell, **options))
    assert all(torch.equal(a["pixels"], mixed[n]["pixels"]) for n, a in enumerate(stream))
    with pytest.raises(InputError, match=r"int64.*'ant'.*class_names"):
        MixedIterable(real.to_iterable_dataset(), ToyGenerator(), **options)


@pytest.mark.parametrize("real", [Stream(), make_real((30, 20, 10)), make_real((30, 20, 10)).to_iterable_dataset(3)])
def test_workers_split_the_stream_without_repeating(real):
    plain = (lambda row: torch.from_numpy(np.array(row["image"]))) if not isinstance(real, Stream) else None
    stream = MixedIterable(real, ToyGenerator(), transform=plain, **OPTIONS)

    def read(workers):
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        return [key(sample[0] if isinstance(sample, (tuple, list)) else sample) for sample in loader]

    alone = read(0)
    assert sorted(read(2)) == sorted(alone) and len(alone) in (60, 100)
    assert read(2)[:2] == alone[:2]  # batches of one come in turn: worker 0, worker 1


def test_processes_split_the_stream_without_repeating(monkeypatch):
    whole = [key(image) for image, _ in MixedIterable(Stream(), ToyGenerator(), **OPTIONS)]
    parts = [
        [key(image) for image, _ in MixedIterable(Stream(), ToyGenerator(), rank=rank, world_size=3, **OPTIONS)]
        for rank in range(3)
    ]
    assert [parts[number % 3][number // 3] for number in range(100)] == whole


def test_torch_distributed_is_asked_and_accelerate_is_left_to_split(monkeypatch):
    stream = MixedIterable(Stream(), ToyGenerator(), **OPTIONS)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1, raising=False)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4, raising=False)
    monkeypatch.setattr("accelerate.state.is_initialized", lambda: False)
    assert len(list(stream)) == 25
    travelled = pickle.dumps(stream)
    monkeypatch.setattr("accelerate.state.is_initialized", lambda: True)
    assert len(list(stream)) == 100
    assert len(list(pickle.loads(travelled))) == 25  # a spawned worker, where nothing is initialised


def test_a_stream_that_splits_itself_is_kept_whole_and_draws_are_not_shared(monkeypatch):
    made = []
    for rank in range(2):
        stream = MixedIterable(
            Stream(), ToyGenerator(), share=1.0, filter="none", splits_itself=True, rank=rank, world_size=2
        )
        made += [key(image) for image, _ in stream]
    assert len(made) == len(set(made)) == 200


def test_only_kept_images_are_decoded(monkeypatch):
    decoded = []
    decode = Image.decode_example
    monkeypatch.setattr(Image, "decode_example", lambda self, *a, **k: decoded.append(1) or decode(self, *a, **k))
    stream = MixedIterable(
        make_real(COUNTS).to_iterable_dataset(), ToyGenerator(), share=0.0, filter="none", rank=0, world_size=7
    )
    assert len(list(stream)) == 10 and len(decoded) <= 11


def test_epochs_and_schedules():
    real = Stream()
    stream = MixedIterable(real, ToyGenerator(), schedule="linear", epochs=2, **OPTIONS)
    first = [key(image) for image, _ in stream]
    stream.set_epoch(1)
    assert real.epoch == 1
    assert [key(image) for image, _ in stream] == [key(image) for image, _ in Stream()] != first


def test_labels_of_a_stream_may_be_names_or_missing():
    rows = [{"image": np.zeros((8, 8, 3), np.uint8), "label": name} for name in ("bee", None, "ant", "dog")]
    stream = MixedIterable(Rows(rows), ToyGenerator(), share=1.0, filter="none", class_names=[*NAMES, "dog"])
    assert [bool(row["image"].any()) for row in stream] == [True, False, True, False]


class Rows(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MixedIterable(3, ToyGenerator(), filter="none"), "give an iterable data set"),
        (lambda: MixedIterable(Stream(), ToyGenerator(), rank=2, world_size=2), "rank is 2 of world_size 2"),
        (lambda: MixedIterable(Stream(), ToyGenerator(), filter="none", rank=0), "give both"),
        (lambda: list(MixedIterable(Rows([{"a": 1}]), ToyGenerator(), filter="none")), "no 'image', but 'a'"),
    ],
)
def test_bad_input_is_one_line(make, says):
    with pytest.raises(InputError, match=says):
        make()
