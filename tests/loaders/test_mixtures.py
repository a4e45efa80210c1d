"""MixedDataset: who is synthetic where, in which type, and that it depends on (seed, epoch, index) alone."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import synthaug
from synthaug import InputError, MixedDataset
from synthaug.core import FailedError, draw_choices, draw_normal, draw_order
from synthaug.data import to_pixels
from synthaug.loaders.schedules import ShareFactor
from synthaug.loaders.supplies import BLOCKS_PER_EPOCH, Drawn
from tests.toy_rows import make_real
from tests.toys import NAMES, ToyGenerator, keep_bright_corners, keep_none_of_cat

COUNTS = (60, 30, 12)


class Pairs(Dataset):
    """A torch data set that keeps no labels beside its images."""

    def __init__(self, labels, image):
        self.values, self.image, self.reads = labels, image, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        self.reads += 1
        return self.image, self.values[index]


def real_tensors(rows=200, channels=1, size=8):
    """Images that are even in their first byte and never drawn: real rows are told from synthetic ones."""
    images = torch.zeros(rows, channels, size, size, dtype=torch.uint8)
    return TensorDataset(images, torch.arange(rows) % 3)


def mixed_tensors(**options):
    return MixedDataset(real_tensors(), ToyGenerator(), **{"share": 0.5, "filter": "none", **options})


def to_bytes(row):
    return {"image": torch.from_numpy(np.array(row["image"])), "label": row["label"]}


def read(mixed, epochs=(0, 1), **loader):
    found = []
    data = DataLoader(mixed, batch_size=16, **loader)
    for epoch in epochs:
        mixed.set_epoch(epoch)
        found += [images for images, _ in data]
    return torch.cat(found)


# ------------------------------------------------------------------------------------------------------- shares


def test_the_share_is_that_asked_for_overall_and_by_class():
    real = TensorDataset(torch.zeros(30_000, 1, 8, 8, dtype=torch.uint8), torch.arange(30_000) % 3)
    chosen = MixedDataset(real, ToyGenerator(), share=0.3, filter="none").find_synthetic()
    assert abs(chosen.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 30_000)
    by_class = MixedDataset(real, ToyGenerator(), share={"ant": 0.1, 2: 0.9}, filter="none").find_synthetic()
    for label, share in enumerate((0.1, 0.0, 0.9)):
        assert abs(by_class[label::3].mean() - share) <= 5 * np.sqrt(share * (1 - share) / 10_000)


def test_a_position_stays_synthetic_when_the_share_grows():
    few, many = (mixed_tensors(share=share).find_synthetic() for share in (0.2, 0.7))
    assert 0 < few.sum() < many.sum() < 200 and not (few & ~many).any()


def test_share_0_gives_the_very_rows_and_share_1_none_of_them():
    real = make_real(COUNTS)
    none = MixedDataset(real, ToyGenerator(), share=0, filter="none")
    for index in (0, 7, -1):
        assert none[index] == real[index]
    every = MixedDataset(real, ToyGenerator(), share=1, filter="none")
    assert every.find_synthetic().all() and len(every) == len(real) == sum(COUNTS)
    assert [every[index]["label"] for index in range(20)] == real["label"][:20]


def test_unlabelled_rows_and_foreign_classes_stay_real():
    real = make_real((5, 5, 5, 4), names=["ant", "dog", "cat"])  # 4 unlabelled
    mixed = MixedDataset(real, ToyGenerator(), share=1.0, filter="none")
    labels = np.array(real["label"])
    assert (mixed.find_synthetic() == np.isin(labels, [0, 2])).all()
    assert mixed[int(np.flatnonzero(labels == -1)[0])]["label"] == -1


def test_classes_are_matched_by_name():
    real = make_real((4, 4, 4), names=["cat", "ant", "bee"])
    mixed = MixedDataset(real, ToyGenerator(), share=1.0, filter="none")
    for index in range(3):
        name = real.features["label"].names[real[index]["label"]]
        picture = np.array(mixed[index]["image"])
        assert abs(picture.mean() / 127.5 - 1 - np.tanh([-0.6, 0, 0.6][NAMES.index(name)])) < 0.2


# ---------------------------------------------------------------------------------------------------- determinism


def test_any_number_of_workers_gives_the_same_sequence():
    mixed = mixed_tensors()
    alone = read(mixed)
    assert not torch.equal(alone[:200], alone[200:])
    assert torch.equal(read(mixed, num_workers=2), alone)
    assert torch.equal(read(mixed, num_workers=2, persistent_workers=True), alone)
    assert torch.equal(torch.stack([mixed[index][0] for index in reversed(range(200))]), alone[200:].flip(0))


@pytest.mark.slow
def test_spawned_workers_that_persist_are_told_the_epoch():
    mixed = mixed_tensors()
    options = {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True}
    assert torch.equal(read(mixed, **options), read(mixed))


def test_a_copy_that_travelled_by_pickle_gives_the_same(monkeypatch):
    mixed = mixed_tensors(transform=v2.ToDtype(torch.float32, scale=True), filter=keep_bright_corners)
    mixed.set_epoch(3)
    for other in (pickle.loads(pickle.dumps(mixed)), copy.deepcopy(mixed)):
        assert other.epoch == 3 and torch.equal(other[5][0], mixed[5][0])
        other.set_epoch(0)
        assert mixed.epoch == 3


def test_seed_and_epoch_decide():
    first = mixed_tensors(seed=1)
    again, other = mixed_tensors(seed=1), mixed_tensors(seed=2)
    assert torch.equal(read(first), read(again)) and not torch.equal(read(first), read(other))


def test_random_transforms_can_be_seeded_by_position():
    mixed = mixed_tensors(transform=v2.RandomErasing(p=0.5, value=9.0), seed_transform=True)
    alone = read(mixed)
    assert torch.equal(alone, read(mixed)) and torch.equal(alone, read(mixed, num_workers=2))
    state = torch.random.get_rng_state()
    mixed[0]
    assert torch.equal(torch.random.get_rng_state(), state)  # the user's own random numbers go on where they were


def test_choices_and_orders_are_functions_of_their_keys():
    whole = draw_choices(3, 1, 0, 100)
    assert (draw_choices(3, 1, 40, 7) == whole[40:47]).all()
    assert not (draw_choices(3, 1, 0, 100, stream=1) == whole).any()
    assert sorted(draw_order(0, 0, 1, 0, 50)) == list(range(50))
    assert not (draw_order(0, 0, 1, 0, 50) == draw_order(0, 0, 1, 1, 50)).all()


# ---------------------------------------------------------------------------------------------------------- draws


def test_the_images_are_the_draws_of_the_contract():
    """Position by position, slot s of epoch e is draw 64 (e * 2**20 + s // 64) + s % 64 of its class."""
    generator = ToyGenerator()
    mixed = mixed_tensors(seed=5)
    for epoch in (0, 2):
        mixed.set_epoch(epoch)
        rows = np.flatnonzero(mixed.find_synthetic())
        for label in range(3):
            own = rows[rows % 3 == label]
            noise = draw_normal(5, label, 64 * epoch * BLOCKS_PER_EPOCH, len(own), generator.noise_shape)
            wanted = to_pixels(generator.sample(torch.full((len(own),), label), noise=torch.from_numpy(noise)))
            found = np.stack([mixed[int(row)][0].numpy() for row in own])
            assert np.abs(found.astype(int) - wanted.transpose(0, 3, 1, 2)).max() <= 1  # another batch size


def test_epoch_0_has_the_very_images_that_generate_makes():
    generator = ToyGenerator()
    made = synthaug.generate(generator, synthaug.BalancePlan({"ant": 0}, {"ant": 70}), seed=4, filter="none")
    real = TensorDataset(torch.zeros(70, 1, 8, 8, dtype=torch.uint8), torch.zeros(70, dtype=torch.int64))
    mixed = MixedDataset(real, generator, share=1, seed=4, filter="none")
    for index in (0, 63, 64, 69):
        assert (mixed[index][0][0].numpy() == np.array(made[index]["image"])).all()


def test_a_block_is_computed_once():
    mixed, calls = mixed_tensors(share=1.0), []
    draw = mixed._supply._sampler.draw
    mixed._supply._sampler.draw = lambda key: calls.append(key) or draw(key)
    for index in np.random.default_rng(0).permutation(200):
        mixed[int(index)]
    assert sorted(calls) == [(label, number) for label in range(3) for number in range(2)]


def test_the_cache_is_bounded_and_changes_nothing():
    small = Drawn(ToyGenerator(), seed=0, filter="none", cache_bytes=64 * 64)
    large = Drawn(ToyGenerator(), seed=0, filter="none")
    for slot in (0, 70, 3, 130, 69):
        assert (small.pick(1, 0, slot) == large.pick(1, 0, slot)).all()
    assert len(small._blocks) == 1 and len(large._blocks) == 3


def test_only_accepted_draws_are_used():
    mixed = mixed_tensors(share=1.0, filter=keep_bright_corners)
    images = torch.stack([mixed[index][0] for index in range(200)])
    assert (images[:, 0, 0, 0] > images[:, 0, -1, -1]).all()
    with pytest.raises(FailedError, match=r"keeps none of 1280 draws of class 'cat'"):
        mixed_tensors(share=1.0, filter=keep_none_of_cat)[2]


def test_a_worker_refuses_to_draw_on_an_accelerator(monkeypatch):
    supply = Drawn(ToyGenerator(), seed=0, filter="none")
    supply._device = "cuda"
    monkeypatch.setattr("synthaug.loaders.supplies.get_worker_info", lambda: object())
    with pytest.raises(InputError, match=r"num_workers=0"):
        supply.pick(0, 0, 0)


# ------------------------------------------------------------------------------------------------- synthetic data


def synthetic_rows():
    plan = synthaug.plan_balance({"ant": 1, "bee": 8, "cat": 7}, {"ant": 6, "bee": 12, "cat": 7})
    return synthaug.generate(ToyGenerator(), plan, filter="none")


def test_rows_of_a_data_set_are_taken_in_turn():
    real, synthetic = make_real(COUNTS), synthetic_rows()
    mixed = MixedDataset(real, synthetic, share=1.0)
    labels = np.array(real["label"])
    assert (mixed.find_synthetic() == (labels < 2)).all()  # there is no synthetic cat
    shown = {np.array(row["image"]).tobytes(): 0 for row in synthetic if row["label"] == 0}
    for index in np.flatnonzero(labels == 0):
        shown[np.array(mixed[int(index)]["image"]).tobytes()] += 1
    assert len(shown) == 5 and set(shown.values()) == {60 // 5}
    order = [np.array(mixed[int(i)]["image"]).tobytes() for i in np.flatnonzero(labels == 0)]
    mixed.set_epoch(1)
    assert order != [np.array(mixed[int(i)]["image"]).tobytes() for i in np.flatnonzero(labels == 0)]


def test_of_a_mixed_data_set_only_the_synthetic_rows_are_taken():
    real, synthetic = make_real(COUNTS), synthetic_rows()
    both = MixedDataset(real, synthaug.mix(real, synthetic), share=1.0)
    one = MixedDataset(real, synthetic, share=1.0)
    assert all((np.array(both[i]["image"]) == np.array(one[i]["image"])).all() for i in range(8))


def test_torch_data_sets_are_taken_on_both_sides():
    synthetic = TensorDataset(torch.full((6, 1, 8, 8), 7, dtype=torch.uint8), torch.tensor([0, 0, 1, 1, 1, 1]))
    mixed = MixedDataset(real_tensors(9), synthetic, share=1.0)
    assert mixed.find_synthetic().tolist() == [True, True, False] * 3
    assert int(mixed[0][0].max()) == 7 and mixed[1][1].dtype == torch.int64


# ------------------------------------------------------------------------------------------------------ the types


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(1, 8, 8, dtype=torch.uint8),
        torch.zeros(3, 16, 12),
        torch.zeros(8, 8, dtype=torch.float64),
        torch.zeros(1, 8, 8, dtype=torch.bfloat16),
        tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8)),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((8, 8), np.float32),
        Picture.new("L", (8, 8)),
        Picture.new("RGB", (8, 8)),
    ],
    ids=lambda image: f"{type(image).__name__}-{getattr(image, 'dtype', getattr(image, 'mode', ''))}",
)
def test_synthetic_images_have_the_type_of_the_real_ones(image):
    mixed = MixedDataset(Pairs([0, 1, 2], image), ToyGenerator(), share=1.0, filter="none")
    for index, label in enumerate((0, 1, 2)):
        made, kept = mixed[index]
        assert type(made) is type(image) and kept == label and type(kept) is int
        if isinstance(image, Picture.Image):
            assert (made.mode, made.size) == (image.mode, image.size)
            made = np.array(made)
        else:
            assert made.dtype == image.dtype and made.shape == image.shape
        values = torch.as_tensor(made if isinstance(made, torch.Tensor) else np.array(made)).double()
        assert 0.05 < float(values.max()) <= (255 if values.max() > 1 else 1) and values.std() > 0


def test_labels_keep_their_type():
    for label in (1, np.int32(1), torch.tensor(1), "bee"):
        mixed = MixedDataset(Pairs([label] * 3, torch.zeros(1, 8, 8)), ToyGenerator(), share=1.0, filter="none")
        assert type(mixed[0][1]) is type(label) and mixed[0][1] == label
        assert getattr(mixed[0][1], "dtype", None) == getattr(label, "dtype", None)


def test_rows_of_mappings_have_nulls_in_other_columns():
    real = make_real(COUNTS)
    mixed = MixedDataset(real, ToyGenerator(), share=1.0, filter="none")
    assert mixed[0].keys() == real[0].keys() and mixed[0]["age"] is None and real[0]["age"] == 0
    formatted = MixedDataset(real.with_format("torch"), ToyGenerator(), share=1.0, filter="none")[0]
    assert formatted["image"].dtype == torch.uint8 and formatted["label"].dtype == torch.int64
    text = real.remove_columns("label").add_column("kind", [NAMES[label] for label in real["label"]])
    assert MixedDataset(text, ToyGenerator(), share=1.0, filter="none", label_column="kind")[1]["kind"] == "bee"


def test_the_transform_sees_the_image_of_a_pair_and_the_whole_of_a_row():
    pairs = mixed_tensors(transform=v2.ToDtype(torch.float32, scale=True))
    assert all(
        image.dtype == torch.float32 and 0 <= image.min() <= image.max() <= 1
        for image, _ in map(pairs.__getitem__, range(30))
    )
    rows = MixedDataset(make_real(COUNTS), ToyGenerator(), filter="none", transform=to_bytes)
    batches = list(DataLoader(rows, batch_size=50))
    assert batches[0].keys() == {"image", "label"} and batches[0]["image"].shape == (50, 8, 8)


def test_one_call_for_many_rows_gives_the_same():
    mixed = MixedDataset(make_real(COUNTS), ToyGenerator(), filter="none", transform=to_bytes)
    indices = [5, 3, 90, 3, 41]
    for one, many in zip(map(mixed.__getitem__, indices), mixed.__getitems__(indices), strict=True):
        assert torch.equal(one["image"], many["image"]) and one["label"] == many["label"]
    with pytest.raises(IndexError):
        mixed[102]


def test_labels_are_found_without_reading_images_where_they_are_kept():
    image = torch.zeros(1, 8, 8)
    unknown, kept = Pairs([0, 1, 2] * 20, image), Pairs([0, 1, 2] * 20, image)
    kept.targets = [0, 1, 2] * 20
    subset = Subset(kept, range(30))
    assert [len(MixedDataset(data, ToyGenerator(), filter="none")) for data in (unknown, subset)] == [60, 30]
    assert unknown.reads >= 60 and kept.reads <= 3
    kept.targets = [2, 1, 0] * 20  # not what the rows say: they are read
    assert MixedDataset(kept, ToyGenerator(), share={0: 1.0}, filter="none").find_synthetic()[0]


# ------------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0]),
        ("cosine", [1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5, 0]),
        ("off-after:0.6", [1, 1, 1, 0, 0]),
        (lambda fraction: fraction**2, [0, 1 / 16, 1 / 4, 9 / 16, 1]),
    ],
)
def test_schedules(schedule, factors):
    factor = ShareFactor(schedule, 5)
    assert [factor(epoch) for epoch in range(5)] == pytest.approx(factors)
    assert factor(9) == pytest.approx(factors[-1])


def test_the_last_epoch_of_a_falling_schedule_is_all_real():
    mixed = mixed_tensors(schedule="cosine", epochs=4)
    counts = []
    for epoch in range(4):
        mixed.set_epoch(epoch)
        counts.append(int(mixed.find_synthetic().sum()))
    assert counts[0] > counts[1] > counts[2] > counts[3] == 0 and int(mixed[0][0].max()) == 0


# --------------------------------------------------------------------------------------------------------- errors


def transformed(name):
    data = Pairs([0, 1], torch.zeros(1, 8, 8))
    setattr(data, name, v2.Identity())
    return data


def mix_with(real, **options):
    return MixedDataset(real, ToyGenerator(), filter="none", **options)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mixed_tensors(share=1.2), r"share is 1.2; give a number from 0"),
        (lambda: mixed_tensors(share={"at": 0.5}), r"share names the class 'at' \(did you mean 'cat'\?\)"),
        (lambda: mixed_tensors(share={3: 0.5}), r"share names the class 3"),
        (lambda: mixed_tensors(share={"cat": -1}), r"share of class 'cat' is -1"),
        (lambda: mixed_tensors(schedule="linear"), r"needs the length of the training; give epochs"),
        (lambda: mixed_tensors(schedule="lineer", epochs=3), r"did you mean 'linear'"),
        (lambda: mixed_tensors(schedule="off-after:2", epochs=3), r"fraction in \[0, 1\]"),
        (lambda: mixed_tensors(schedule=lambda f: 2.0, epochs=3), r"schedule gives 2.0"),
        (lambda: mixed_tensors(epochs=0), r"epochs is 0"),
        (lambda: mixed_tensors(seed=-1), r"seed is -1"),
        (lambda: mixed_tensors(temperature=-0.1), r"temperature is -0.1"),
        (lambda: mixed_tensors(filter="default"), r"use filter='none'"),
        (lambda: mixed_tensors().set_epoch(-1), r"epoch is -1"),
        (lambda: MixedDataset(real_tensors(), "runs/x"), r"synthetic is a str; give a generator"),
        (lambda: mix_with(iter([])), r"map-style"),
        (lambda: mix_with(real_tensors(0)), r"real has no rows"),
        (lambda: mix_with(make_real((3, 3), names=["x", "y"])), r"none is in both"),
        (lambda: MixedDataset(real_tensors(), real_tensors(), temperature=1.0), r"drawn already"),
        (lambda: mix_with(transformed("transform")), r"give it as `transform`"),
        (lambda: mix_with(Subset(transformed("transforms"), [0])), r"`transform`"),
        (lambda: mix_with(make_real().with_transform(dict)), r"set_transform"),
        (lambda: mix_with(Pairs([0, 1], torch.full((1, 8, 8), -1.0))), r"normalised"),
        (lambda: mix_with(Pairs([0.5, 1], torch.zeros(1, 8, 8))), r"label 0.5"),
        (lambda: mix_with(Pairs([0, 1], "a.png")), r"image is a str"),
        (lambda: mix_with([(1, 2, 3)]), r"sample is a tuple of 3"),
        (lambda: mix_with([{"img": 1, "label": 2}]), r"no 'image', but 'img', 'label'"),
        (lambda: mix_with(Pairs([0, 3], torch.zeros(1, 8, 8)), class_names=NAMES), r"only 3"),
    ],
)
def test_bad_input_is_one_line(make, says):
    with pytest.raises(InputError, match=says) as raised:
        make()
    assert "\n" not in str(raised.value)
