import pytest
import torch

from synthaug.core import BatchRandom
from synthaug.generators.augmentation import Augmentation

FULL = Augmentation(color=1.0, affine=1.0, translation=0.25, cutout=0.5)


def images_of(count=6, channels=3, size=12):
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def rng_of(count, start=0, step=3):
    return BatchRandom(0, step, start=start, count=count)


def test_strength_zero_is_the_identity():
    images = images_of()
    assert torch.equal(Augmentation()(images, rng_of(6)), images)


def test_rows_do_not_depend_on_the_number_of_processes():
    images = images_of()
    whole = FULL(images, rng_of(6))
    parts = [FULL(images[start : start + 3], rng_of(3, start)) for start in (0, 3)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-6)
    assert torch.equal(whole, FULL(images, rng_of(6)))
    assert not torch.allclose(whole, FULL(images, rng_of(6, step=4)))


@pytest.mark.parametrize("part", ["color", "affine", "translation", "cutout"])
def test_each_part_changes_images_and_passes_gradients(part):
    images = images_of().requires_grad_()
    changed = Augmentation(**{part: 0.5})(images, rng_of(6))
    assert changed.shape == images.shape
    assert not torch.equal(changed, images)
    changed.square().sum().backward()
    assert torch.isfinite(images.grad).all()
    assert images.grad.flatten(1).abs().sum(1).gt(0).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_color_leaves_grey_and_alpha_alone(channels):
    images = images_of(channels=channels)
    tinted = Augmentation(color=1.0)(images, rng_of(6))
    if channels < 3:
        assert torch.equal(tinted, images)
    else:
        assert not torch.equal(tinted[:, :3], images[:, :3])
        assert torch.equal(tinted[:, 3:], images[:, 3:])


def test_shifts_are_whole_pixels_over_mid_grey():
    images = torch.ones(64, 1, 8, 8)
    shifted = Augmentation(translation=0.25)(images, rng_of(64))
    assert set(shifted.unique().tolist()) == {0.0, 1.0}
    columns = shifted[:, 0].amax(1).sum(1)  # visible columns: 8 less the shift
    assert set(columns.tolist()) == {6.0, 7.0, 8.0}
    assert 0.25 < (columns == 6).float().mean() < 0.55  # two of the five shifts
    left = shifted[:, 0, :, 0].amax(1) == 0
    right = shifted[:, 0, :, -1].amax(1) == 0
    assert left.any() and right.any() and not (left & right).any()


def test_cutout_hides_a_square_of_at_most_its_side():
    images = torch.ones(64, 1, 8, 8)
    hidden = Augmentation(cutout=0.5)(images, rng_of(64)) == 0
    counts = hidden.flatten(1).sum(1)
    assert counts.max() == 16
    assert counts.min() >= 4  # a corner, cut by the frame
    assert hidden.float().mean((0, 1)).min() > 0  # no pixel is safe


def test_warp_keeps_the_centre_and_grows_with_its_strength():
    images = images_of(size=13)
    weak = Augmentation(affine=0.1)(images, rng_of(6))
    strong = Augmentation(affine=1.0)(images, rng_of(6))
    assert torch.allclose(strong[:, :, 6, 6], images[:, :, 6, 6], atol=1e-4)
    assert (weak - images).abs().mean() < (strong - images).abs().mean()


def test_gradient_is_that_of_the_formula():
    # float64 against finite differences
    images = images_of(count=1, size=4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: FULL(x, rng_of(1)), (images,), atol=1e-6)
