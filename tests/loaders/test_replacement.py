"""ReplaceWithSynthetic: same label, dtype, size and range; another image."""

import pickle

import albumentations
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

import synthaug
from synthaug import InputError, ReplaceWithSynthetic
from synthaug.core import FailedError, draw_normal
from synthaug.data import to_pixels
from tests.toy_rows import make_real
from tests.toys import NAMES, BrokenGenerator, ToyGenerator

LABELS = torch.arange(48) % 3


def replace(p=1.0, **options):
    return ReplaceWithSynthetic(options.pop("synthetic", None) or ToyGenerator(), p=p, **{"filter": "none", **options})


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [torch.Tensor, tv_tensors.Image])
def test_dtype_range_size_and_kind_stay(dtype, channels, kind):
    images = torch.zeros(48, channels, 12, 10, dtype=dtype)
    images = tv_tensors.Image(images) if kind is tv_tensors.Image else images
    made, labels = replace()(images, LABELS)
    assert type(made) is type(images) and made.dtype == dtype and made.shape == images.shape
    assert torch.equal(labels, LABELS)
    top = 255 if dtype == torch.uint8 else 1
    assert 0 <= made.min() < 0.2 * top and 0.6 * top < made.max() <= top
    assert not images.any()  # the caller's own batch stays
    levels = torch.stack([made[label == LABELS].double().mean() for label in range(3)]) / top
    assert (levels[1:] > levels[:-1] + 0.15).all()  # the toy's classes are levels of grey


def test_p_is_the_probability_of_each_image():
    torch.manual_seed(0)
    images, labels = torch.zeros(6_000, 1, 8, 8, dtype=torch.uint8), torch.arange(6_000) % 3
    made, _ = replace(0.3)(images, labels)
    assert abs(made.flatten(1).any(1).double().mean() - 0.3) < 5 * (0.3 * 0.7 / 6_000) ** 0.5
    assert not replace(0.0)(images, labels)[0].any()


def test_every_image_is_another_draw_and_torch_seeds_them():
    transform, images = replace(), torch.zeros(48, 1, 8, 8)

    def run(seed):
        torch.manual_seed(seed)
        return torch.cat([pickle.loads(pickle.dumps(transform))(images, LABELS)[0]])

    first = run(1)
    assert len(first.flatten(1).unique(dim=0)) == 48
    assert torch.equal(run(1), first) and not torch.equal(run(2), first)


def test_images_are_draws_of_the_contract():
    generator, torch_state = ToyGenerator(), torch.manual_seed(7)
    del torch_state
    made, _ = replace(synthetic=generator, seed=9)(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.full((5,), 2))
    torch.manual_seed(7)
    torch.rand(5)
    block = int(torch.randint(2**20, ())) * 2**20
    noise = torch.from_numpy(draw_normal(9, 2, 64 * block, 64, generator.noise_shape))
    wanted = to_pixels(generator.sample(torch.full((64,), 2), noise=noise))[:5]
    assert (made.permute(0, 2, 3, 1).numpy() == wanted).all()


def test_unknown_and_missing_labels_stay():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    made, _ = replace()(images, torch.tensor([-1, 0, 3, 2]))
    assert made.flatten(1).any(1).tolist() == [False, True, False, True]
    named = replace(class_names=["x", "cat", "y"])(images, torch.tensor([0, 1, 2, 1]))[0]
    assert named.flatten(1).any(1).tolist() == [False, True, False, True]


def test_rows_of_a_data_set_can_take_the_place():
    plan = synthaug.plan_balance({"ant": 1, "bee": 4, "cat": 4}, {"ant": 4})
    rows = synthaug.generate(ToyGenerator(), plan, filter="none")
    images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    made, _ = ReplaceWithSynthetic(rows, p=1.0)(images, torch.tensor([0, 0, 0, 1, 2, 0]))
    shown = {np.array(row["image"]).tobytes() for row in rows}
    assert {image[0].numpy().tobytes() for image in made[:3]} == shown  # in turn, none twice
    assert not made[3:5].any()


def test_in_pipelines_of_torchvision():
    chain = v2.Compose([replace(), v2.ToDtype(torch.float32, scale=True), v2.MixUp(num_classes=3)])
    images, labels = chain(torch.zeros(48, 1, 8, 8, dtype=torch.uint8), LABELS)
    assert images.dtype == torch.float32 and labels.shape == (48, 3) and images.flatten(1).any(1).all()
    batch = {"pixel_values": torch.zeros(48, 3, 8, 8), "labels": LABELS, "index": torch.arange(48)}
    made = replace()(batch)
    assert made["pixel_values"].any() and torch.equal(made["index"], batch["index"]) and made.keys() == batch.keys()
    assert replace(labels_getter=lambda batch: batch["y"])({"x": torch.zeros(48, 1, 8, 8), "y": LABELS})["x"].any()


def collate(samples):
    return COLLATING(default_collate(samples))


COLLATING = replace()


def test_workers_draw_different_images_and_epochs_too():
    data = TensorDataset(torch.zeros(24, 1, 8, 8), torch.zeros(24, dtype=torch.int64))
    COLLATING(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64))  # a block that workers must not share
    loader = DataLoader(data, batch_size=6, num_workers=2, collate_fn=collate)
    seen = torch.cat([images for _ in range(2) for images, _ in loader])
    assert len(seen.flatten(1).unique(dim=0)) == 48


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (12, 10, 3)])
def test_beside_albumentations(dtype, shape):
    pipeline = albumentations.Compose([albumentations.HorizontalFlip(p=0.5)], seed=0)
    sample = replace()(image=np.zeros(shape, dtype), label=2, path="a.png")
    assert sample["label"] == 2 and sample["path"] == "a.png"
    made = pipeline(image=sample["image"])["image"]
    assert made.dtype == dtype and made.shape == shape and made.max() > (150 if dtype == np.uint8 else 0.6)
    assert not replace(0.0)(image=np.zeros(shape, dtype), label=2)["image"].any()


def test_the_range_can_be_another():
    made, _ = replace(value_range=(-1, 1))(torch.full((48, 1, 8, 8), -1.0), LABELS)
    assert made.min() < -0.5 and made.max() > 0.5


def test_it_is_no_part_of_the_model():
    assert list(replace().parameters()) == [] and "p=1.0" in repr(replace())


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: replace(1.5), "p is 1.5"),
        (lambda: replace(value_range=(1, 0)), "the smaller one first"),
        (lambda: replace(labels_getter="x"), "labels_getter is 'x'"),
        (lambda: replace(class_names=["x"]), "none is in both"),
        (lambda: ReplaceWithSynthetic(make_real((2, 2), names=NAMES[:2]), p=2), "p is 2"),
        (lambda: replace()(torch.zeros(2, 1, 8, 8)), "labels must be a tensor"),
        (lambda: replace()(), "labels must be a tensor"),
        (lambda: replace()(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3)), "before MixUp"),
        (lambda: replace()(torch.zeros(3, 1, 8, 8), LABELS), "no batch of 48 images"),
        (lambda: replace()(torch.zeros(48, 1, 8, 8) - 1, LABELS), "before Normalize"),
        (lambda: replace()(torch.zeros(48, 1, 8, 8, dtype=torch.int32), LABELS), "images are torch.int32"),
        (lambda: replace()(image=np.zeros((8, 8))), "give a batch"),
        (lambda: replace()(image=torch.zeros(1, 8, 8), label=1), "give one array"),
    ],
)
def test_bad_input_is_one_line(call, says):
    with pytest.raises(InputError, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_a_diverged_generator_is_told():
    with pytest.raises(FailedError, match="not finite"):
        replace(synthetic=BrokenGenerator())(torch.zeros(48, 1, 8, 8), LABELS)
