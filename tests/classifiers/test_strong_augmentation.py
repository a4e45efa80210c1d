"""Strong augmentation, against torchvision operation by operation, and mixing as a statistical law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from torchvision.transforms.v2 import InterpolationMode, functional as vision

from synthaug.classifiers import mix_images, strong_augmentation as strong, trivial_augment
from synthaug.classifiers.strong_augmentation import MIXES, OPERATIONS
from synthaug.core import BatchRandom, InputError

GEOMETRIC = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BINS = 31


def draw(count, seed=0, step=0):
    return BatchRandom(seed, step, start=0, count=count)


class Fixed:
    """Stands in for BatchRandom with given numbers: operation, bin of the strength, sign, mirror."""

    def __init__(self, *rows):
        self.rows = torch.tensor(
            [
                [(OPERATIONS.index(name) + 0.5) / len(OPERATIONS), (step + 0.5) / BINS, 0.25 if sign < 0 else 0.75, m]
                for name, step, sign, m in rows
            ]
        )

    def uniform(self, *shape):
        return self.rows


def apply(images, name, step, sign, backend="torch"):
    return trivial_augment(images, Fixed(*[(name, step, sign, 0.9)] * len(images)), backend=backend)


def picture(channels, size, count=2, seed=0):
    """Smooth pictures over most of the range, at whole shades of 255."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    shades = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    return (shades * 255).round() / 127.5 - 1


def expected(images, name, step, sign):
    """The same operation by torchvision, in [-1, 1]; moves on a picture whose border goes on outside."""
    strength = step / (BINS - 1)
    amount, size = sign * strength, images.shape[-1]
    if name in GEOMETRIC:
        moves = {
            "shear_x": {"shear": [math.degrees(math.atan(0.99 * amount)), 0.0]},
            "shear_y": {"shear": [0.0, math.degrees(math.atan(0.99 * amount))]},
            "translate_x": {"translate": [-size * amount / 3, 0.0]},
            "translate_y": {"translate": [0.0, -size * amount / 3]},
            "rotate": {"angle": 135.0 * amount},
        }[name]
        still = {"angle": 0.0, "translate": [0.0, 0.0], "scale": 1.0, "shear": [0.0, 0.0]}
        wide = torch.nn.functional.pad(images, [2 * size] * 4, mode="replicate")
        done = vision.affine(wide, **{**still, **moves}, interpolation=InterpolationMode.BILINEAR)
        return vision.center_crop(done, [size, size])
    colours = images.shape[1] - (images.shape[1] in (2, 4))
    shades, result = (images[:, :colours] + 1) / 2, images.clone()
    factor = 1 + 0.99 * amount
    grey = shades.shape[1] == 1
    done = {
        "identity": lambda: shades,
        "brightness": lambda: vision.adjust_brightness(shades, factor),
        "color": lambda: shades if grey else vision.adjust_saturation(shades, factor),
        "contrast": lambda: vision.adjust_contrast(shades, factor),
        "sharpness": lambda: vision.adjust_sharpness(shades, factor),
        "posterize": lambda: vision.posterize((shades * 255).round().byte(), 8 - round(6 * strength)) / 255,
        "solarize": lambda: vision.solarize(shades, 1 - strength),
        "autocontrast": lambda: vision.autocontrast(shades),
        "equalize": lambda: vision.equalize((shades * 255).round().byte()) / 255,
    }[name]()
    result[:, :colours] = done * 2 - 1
    return result


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (2, 64), (3, 33), (4, 8), (3, 64)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_that_of_torchvision(name, channels, size):
    images = picture(channels, size)
    for step, sign in ((0, 1), (7, -1), (15, 1), (30, -1), (30, 1)):
        mine, theirs = apply(images, name, step, sign), expected(images, name, step, sign)
        assert (mine - theirs).abs().max() < (2e-3 if name in GEOMETRIC else 5e-4), (step, sign)


def test_strength_zero_moves_nothing_and_signs_mirror_each_other():
    images = picture(1, 16)
    for name in GEOMETRIC:
        assert torch.allclose(apply(images, name, 0, 1), images, atol=1e-5)
    for name, axes in (("rotate", [3]), ("shear_x", [3]), ("translate_x", [3]), ("translate_y", [2])):
        assert torch.allclose(
            apply(images, name, 20, 1), apply(images.flip(axes), name, 20, -1).flip(axes), atol=1e-4
        ), name


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", OPERATIONS)
def test_both_engines_do_the_same(name, channels):
    images = picture(channels, 24, count=1)  # a side of which a third is a whole number of pixels
    for step, sign in ((10, 1), (30, -1), (20, 1)):
        mine, theirs = (apply(images, name, step, sign, backend=backend) for backend in ("torch", "albumentations"))
        apart = (mine - theirs).abs() * 127.5
        if name in ("translate_x", "translate_y") and (step * 8) % 30:
            shift = round(-sign * step / 30 * 8)  # rounded to pixels
            move = {"translate_x": [shift, 0], "translate_y": [0, shift]}[name]
            wide = torch.nn.functional.pad(images, [24] * 4, mode="replicate")
            whole = vision.affine(wide, angle=0.0, translate=move, scale=1.0, shear=[0.0, 0.0])
            assert (vision.center_crop(whole, [24, 24]) - theirs).abs().max() * 127.5 < 1.01
        elif name in GEOMETRIC:  # OpenCV interpolates between 32nds of a pixel
            assert apart.mean() < 1.5 and apart.quantile(0.99) < 8, (step, sign, apart.max())
        elif name in ("autocontrast", "equalize"):  # its tables of shades differ from Pillow's
            assert apart.max() < 12 and apart.mean() < 3
        else:
            assert apart.max() < 2.01, (step, sign)


@pytest.mark.parametrize("backend", ["torch", "albumentations"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (2, 8), (3, 64), (4, 64)])
def test_same_draws_same_images_in_range(backend, channels, size):
    images = picture(channels, size, count=24)
    first, second = (trivial_augment(images, draw(24), flip=True, backend=backend) for _ in range(2))
    assert torch.equal(first, second) and first.shape == images.shape
    assert first.min() >= -1 and first.max() <= 1 and torch.isfinite(first).all()
    assert not torch.equal(first, trivial_augment(images, draw(24, step=1), flip=True, backend=backend))


@pytest.mark.parametrize("backend", ["torch", "albumentations"])
def test_rows_keep_their_transformation_when_others_are_exchanged(backend):
    images = picture(3, 16, count=40)
    changed = images.clone()
    changed[5] = picture(3, 16, count=1, seed=9)[0]
    first, second = (trivial_augment(part, draw(40), flip=True, backend=backend) for part in (images, changed))
    others = [row for row in range(40) if row != 5]
    assert torch.equal(first[others], second[others])
    assert not torch.equal(first[5], second[5])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 4), st.sampled_from([8, 13, 64])),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 2**20),
    flip=st.booleans(),
    data=st.data(),
)
def test_a_row_is_transformed_by_its_position_alone(shape, seed, step, flip, data):
    count, channels, size = shape
    row = data.draw(st.integers(0, count - 1))
    generator = torch.Generator().manual_seed(seed % 2**31)
    images = torch.rand(count, channels, size, size, generator=generator) * 2 - 1
    changed = images.clone()
    changed[row] = -images[row]
    first, again, other = (
        trivial_augment(part, draw(count, seed, step), flip=flip) for part in (images, images, changed)
    )
    kept = torch.arange(count) != row
    assert torch.equal(first, again) and torch.equal(first[kept], other[kept])
    assert first.min() >= -1 and first.max() <= 1


def test_one_source_gives_fresh_numbers_call_after_call():
    images, rng = picture(1, 16, count=30), draw(30)
    first, second = trivial_augment(images, rng), trivial_augment(images, rng)
    assert not torch.equal(first, second) and torch.equal(first, trivial_augment(images, draw(30)))
    mixed = [mix_images(images, one_hot(30), rng, kind="mixup")[1] for _ in range(2)]
    assert not torch.equal(*mixed)


def test_both_engines_have_the_same_distribution():
    images = picture(1, 24, count=400)
    mine, theirs, elsewhere = (
        trivial_augment(images, draw(400, step=step), flip=True, backend=backend).flatten(1)
        for step, backend in ((0, "torch"), (0, "albumentations"), (1, "torch"))
    )
    chosen = (draw(400).uniform(4)[:, 0] * len(OPERATIONS)).long().numpy()
    # albumentations' Equalize is some 2 shades brighter than Pillow's (the torch engine is Pillow's), and equalised
    # pictures are all alike: a heap that this shift carries past any step of a distribution.
    equalized = chosen == OPERATIONS.index("equalize")
    for measure in (lambda x: x.mean(dim=1), lambda x: x.std(dim=1)):
        values = [measure(x).numpy() for x in (mine, theirs, elsewhere)]
        assert abs(values[0] - values[1]).mean() < 0.05 * abs(values[0] - values[2]).mean()
        for number, name in enumerate(OPERATIONS):
            shift = (values[1] - values[0])[chosen == number].mean()
            assert abs(shift) < (0.02 if name == "equalize" else 0.008), (name, shift)
        # the same draws: closer than two samples of one law
        assert stats.ks_2samp(values[0][~equalized], values[1][~equalized]).pvalue > 0.5
    assert (mine - theirs).abs().mean() < 0.1 * (mine - elsewhere).abs().mean()


@pytest.mark.parametrize("backend", ["torch", "albumentations"])
def test_posterize_with_all_bits_changes_nothing(backend):
    images = picture(3, 8)
    assert torch.allclose(apply(images, "posterize", 2, 1, backend=backend), images, atol=1e-6)
    assert not torch.allclose(apply(images, "posterize", 4, 1, backend=backend), images, atol=1e-3)


def test_what_is_given_stays_as_it_was():
    images = picture(2, 8, count=30)
    before = images.clone()
    trivial_augment(images, draw(30), flip=True)
    assert torch.equal(images, before)


@pytest.mark.parametrize("backend", ["torch", "albumentations"])
@pytest.mark.parametrize("channels", [2, 4])
def test_tones_leave_alpha_alone_and_moves_do_not(backend, channels):
    images = picture(channels, 16, count=1)
    for name in OPERATIONS:
        changed = apply(images, name, 25, 1, backend=backend)
        same = torch.allclose(changed[:, -1], images[:, -1], atol=1e-6)
        assert same == (name not in GEOMETRIC), name


def test_operations_strengths_and_signs_are_equally_likely(monkeypatch):
    seen = []
    monkeypatch.setattr(strong, "_apply_torch", lambda images, *choices: seen.append(choices) or images)
    trivial_augment(torch.zeros(20_000, 1, 8, 8), draw(20_000))
    chosen, strength, sign = seen[0]
    bins = (strength * (BINS - 1)).round().long()
    assert strength.min() == 0 and strength.max() == 1
    for values, number in ((chosen, len(OPERATIONS)), (bins, BINS), ((sign > 0).long(), 2)):
        counts = np.bincount(values.numpy(), minlength=number)
        assert len(counts) == number and stats.chisquare(counts).pvalue > 1e-3


def test_flip_mirrors_half():
    images = picture(1, 8, count=1).expand(2_000, 1, 8, 8)
    plain, flipped = trivial_augment(images, draw(2_000)), trivial_augment(images, draw(2_000), flip=True)
    assert 0.45 < (plain != flipped).flatten(1).any(dim=1).float().mean() < 0.55


def test_unknown_words():
    images = torch.zeros(1, 1, 8, 8)
    with pytest.raises(InputError, match="did you mean 'torch'"):
        trivial_augment(images, draw(1), backend="torhc")
    with pytest.raises(InputError, match=r"mix is 'cutmx'.*did you mean 'cutmix'"):
        mix_images(images, torch.ones(1, 1), draw(1), kind="cutmx")


# ------------------------------------------------------------------------------------------------------- mixing


def one_hot(count, classes=3):
    return torch.nn.functional.one_hot(torch.arange(count) % classes, classes).float()


@pytest.mark.parametrize("kind", MIXES)
def test_targets_stay_distributions_and_pictures_in_range(kind):
    images, targets = picture(3, 12, count=60), one_hot(60)
    mixed, shares = mix_images(images, targets, draw(60), kind=kind)
    again = mix_images(images, targets, draw(60), kind=kind)
    assert torch.equal(mixed, again[0]) and torch.equal(shares, again[1])
    assert torch.allclose(shares.sum(dim=1), torch.ones(60), atol=1e-6) and shares.min() >= 0
    assert mixed.min() >= -1 and mixed.max() <= 1 and mixed.shape == images.shape


@pytest.mark.parametrize("kind", MIXES)
@pytest.mark.parametrize("size", [8, 64])
def test_the_weight_of_a_target_is_the_share_of_its_picture(kind, size):
    """Every picture shows its own number alone, so that a mean of pixels tells the share of each."""
    count = 50
    images = torch.arange(count, dtype=torch.float64)[:, None, None, None].expand(count, 1, size, size)
    mixed, shares = mix_images(images.clone(), torch.eye(count, dtype=torch.float64), draw(count), kind=kind)
    shown = shares @ torch.arange(count, dtype=torch.float64)
    assert torch.allclose(mixed.mean(dim=(1, 2, 3)), shown, atol=1e-5)
    if kind == "cutmix":
        for row in range(count):  # whole pixels of two pictures, in one box
            values, counts = mixed[row].unique(return_counts=True)
            assert len(values) <= 2
            assert torch.allclose(shares[row][values.long()], counts.double() / size**2)
            other = values[values != row]
            if len(other):
                rows, columns = (mixed[row, 0] == other).nonzero().T
                box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
                assert box == len(rows)


@pytest.mark.parametrize("kind", MIXES)
def test_no_class_gains_or_loses_on_average(kind):
    targets = torch.nn.functional.one_hot((torch.arange(64) < 8).long(), 2).float()  # one in eight
    images, mass = torch.zeros(64, 1, 8, 8), []
    for step in range(300):
        mass.append(float(mix_images(images, targets, draw(64, step=step), kind=kind)[1][:, 1].mean()))
    assert abs(np.mean(mass) - 0.125) < 4 * np.std(mass) / len(mass) ** 0.5


def test_partners_are_a_permutation_of_the_batch():
    count = 40
    _, shares = mix_images(torch.zeros(count, 1, 8, 8), torch.eye(count), draw(count), kind="mixup")
    received = shares - torch.diag(shares.diag())
    assert ((received > 0).sum(dim=0) <= 1).all() and ((received > 0).sum(dim=1) <= 1).all()


def test_mixup_draws_from_its_beta_distribution():
    count = 4_000
    draws = draw(count).uniform(4)
    partner = draws[:, 0].double().argsort(stable=True)
    values = torch.arange(count, dtype=torch.float64)[:, None]
    images = values[:, :, None, None].expand(count, 1, 1, 1)
    mixed, _ = mix_images(images, values, draw(count), kind="mixup")
    apart = partner != torch.arange(count)
    kept = (mixed.flatten() - partner)[apart] / (torch.arange(count) - partner)[apart]
    assert stats.kstest(kept.numpy(), stats.beta(0.2, 0.2).cdf).pvalue > 1e-3


def test_cutmix_keeps_a_share_between_none_and_all_of_the_picture():
    count = 4_000
    targets = torch.eye(2)[torch.zeros(count, dtype=torch.long)]
    inside = strong._boxes(torch.rand(count, dtype=torch.float64), torch.full((count, 2), 0.5).double(), 64, 64)
    assert inside.shape == (count, 64, 64)
    kept = torch.linspace(0, 1, count, dtype=torch.float64)
    centred = strong._boxes(kept, torch.full((count, 2), 0.5).double(), 64, 64).double().mean(dim=(1, 2))
    assert (centred - (1 - kept)).abs().max() < 2 * 2 / 64  # a centred box is not cut
    images = torch.zeros(count, 1, 8, 8)
    assert torch.equal(mix_images(images, targets, draw(count), kind="cutmix")[1], targets)
