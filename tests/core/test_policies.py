from __future__ import annotations

import numpy as np
import pytest
import torch

from synthaug.core import POLICIES, BatchRandom, InputError, Policy, augment


def draw(count, seed=0, step=0):
    return BatchRandom(seed, step, start=0, count=count)


def blob(count=1, channels=1, size=32):
    axis = torch.linspace(-1, 1, size)
    image = torch.exp(-8 * ((axis[None, :] - 0.2) ** 2 + 3 * (axis[:, None] + 0.1) ** 2)) * 2 - 1
    return image.expand(count, channels, size, size).clone()


def test_no_amount_changes_nothing():
    images = torch.rand(4, 3, 9, 9) * 2 - 1
    assert torch.allclose(augment(images, Policy(), draw(4)), images, atol=1e-5)


def test_rows_keep_their_transformation_when_others_are_exchanged():
    images = torch.rand(6, 1, 8, 8) * 2 - 1
    changed = images.clone()
    changed[2] = 0
    first = augment(images, POLICIES["affine+flip+tone"], draw(6))
    second = augment(changed, POLICIES["affine+flip+tone"], draw(6))
    others = [0, 1, 3, 4, 5]
    assert torch.equal(first[others], second[others])
    assert not torch.equal(first, augment(images, POLICIES["affine+flip+tone"], draw(6, step=1)))


@pytest.mark.parametrize("backend", ["torch", "albumentations"])
def test_same_key_same_images_and_range(backend):
    images = torch.rand(5, 2, 8, 8) * 2 - 1
    results = [augment(images, POLICIES["affine+flip+tone"], draw(5), backend=backend) for _ in range(2)]
    assert torch.equal(*results)
    assert results[0].shape == images.shape
    assert results[0].min() >= -1 and results[0].max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in results[0]}) == 5


def test_flip_mirrors_half_of_the_images():
    images = blob(400)
    mirrored = augment(images, Policy(flip=True), draw(400))
    same = (mirrored - images).abs().amax(dim=(1, 2, 3)) < 1e-4
    turned = (mirrored - images.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert (same | turned).all()
    assert 0.4 < turned.float().mean() < 0.6


def test_alpha_keeps_its_brightness():
    images = torch.full((3, 4, 8, 8), 0.5)
    toned = augment(images, Policy(brightness=0.2, contrast=0.2), draw(3))
    assert torch.allclose(toned[:, 3], images[:, 3])
    assert not torch.allclose(toned[:, :3], images[:, :3])


def moments(images):
    """Mean grey value, centre of mass, spread and mass of blobs: what a policy moves."""
    mass = ((images[:, 0] + 1) / 2).double()
    total = mass.sum(dim=(1, 2))
    axis = torch.linspace(-1, 1, images.shape[-1]).double()
    x, y = (mass.sum(dim=1) * axis).sum(1) / total, (mass.sum(dim=2) * axis).sum(1) / total
    xx = (mass.sum(dim=1) * (axis - x[:, None]) ** 2).sum(1) / total
    yy = (mass.sum(dim=2) * (axis - y[:, None]) ** 2).sum(1) / total
    dx, dy = axis[None, None, :] - x[:, None, None], axis[None, :, None] - y[:, None, None]
    xy = (mass * dx * dy).sum(dim=(1, 2)) / total
    return torch.stack([x, y, xx, yy, xy, total / 100], dim=1)


@pytest.mark.parametrize("name", list(POLICIES))
def test_the_two_backends_agree_in_distribution(name):
    images = blob(600)
    ours, theirs = (
        moments(augment(images, POLICIES[name], draw(600), backend=backend)) for backend in ("torch", "albumentations")
    )
    error = ((ours.var(0) + theirs.var(0)) / 600).sqrt() + 2e-3
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * error).all()
    ends = torch.tensor([0.1, 0.9], dtype=torch.float64)
    ratio = ours.quantile(ends, dim=0).diff(dim=0) / theirs.quantile(ends, dim=0).diff(dim=0)
    assert ((ratio > 0.8) & (ratio < 1.25)).all(), ratio


def test_unknown_backend_names_the_allowed_ones():
    with pytest.raises(InputError, match="torch, albumentations"):
        augment(torch.zeros(1, 1, 8, 8), Policy(), draw(1), backend="torchvision")


def test_albumentations_quantises_to_eight_bits_and_no_more():
    images = torch.from_numpy(np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8) / 127.5 - 1)
    same = augment(images, Policy(), draw(1), backend="albumentations")
    assert torch.allclose(same, images, atol=1e-6)
