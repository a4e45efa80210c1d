"""Ways and directions in latent spaces, on generators whose latents mean something known."""

import math

import pytest
import torch

from synthaug.analysis.exploration.traversals import measure_effects, traverse
from synthaug.generators import LatentSpace, find_directions, interpolate
from tests.toys import NAMES, ToyGenerator


class BarGenerator(ToyGenerator):
    """Latent 2 moves a bar sideways, latent 0 makes it brighter; the other latents do nothing."""

    family = "bars"
    encoder = True

    def __init__(self):
        super().__init__(class_names=NAMES, image_size=16)

    @property
    def noise_shape(self):
        return (5,)

    def decode_noise(self, noise, labels, temperature):
        return self.paint(temperature * noise)

    def paint(self, latents):
        columns = torch.arange(16.0)
        centre = 7.5 + latents[:, 2, None]
        bar = torch.exp(-((columns[None] - centre) ** 2) / 4)[:, None, None]
        level = torch.sigmoid(1.0 + 0.3 * latents[:, 0])[:, None, None, None]
        return (2 * level * bar - 1).expand(-1, 1, 16, -1)


class EncodingBars(BarGenerator):
    def encode(self, images, labels):
        profile = (images[:, 0, 0] + 1) / 2
        columns = torch.arange(16.0)
        centre = (profile * columns).sum(1) / profile.sum(1)
        level = torch.logit(profile.max(1).values.clamp(0.01, 0.99))
        blank = torch.zeros(len(images))
        return torch.stack([(level - 1.0) / 0.3, blank, centre - 7.5, blank, blank], dim=1)

    def decode(self, latents, labels):
        return self.paint(latents)


class MeasuringBars(EncodingBars):
    def latent_kl(self, images, labels):
        return torch.tensor([1.0, 0.01, 3.0, 0.0, 0.02]).expand(len(images), -1)


def survey(generator, count=2):
    space = LatentSpace(generator, temperature=1.0)
    labels = torch.arange(300) % 3
    latents, images = space.draw(labels, torch.Generator().manual_seed(0))
    directions = find_directions(latents, images, labels, space.mean_kl(images, labels), count)
    return space, latents, images, labels, directions


def test_interpolation_keeps_ends_and_turns_evenly():
    a, b = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    way = interpolate(a, b, 5)
    assert torch.allclose(way[0, [0, -1]], torch.cat([a, b]), atol=1e-6)
    assert torch.allclose(way.norm(dim=2), torch.full((1, 5), 3.0))
    angles = torch.atan2(way[0, :, 1], way[0, :, 0])
    assert torch.allclose(angles.diff(), torch.full((4,), math.pi / 8), atol=1e-5)
    assert torch.allclose(interpolate(a, 2 * a, 3)[0, 1], 1.5 * a[0])
    assert torch.isfinite(interpolate(a, -a, 3)).all()


def test_a_family_without_encoder_is_explored_in_its_noise():
    space, latents, images, labels, directions = survey(BarGenerator())
    assert not space.encodes and latents.shape == (300, 5)
    assert torch.allclose(space.decode(latents[:4], labels[:4]), images[:4])
    assert abs(float(directions[0].vector[2])) > 0.98 and directions[0].nats is None
    assert directions[0].spread == pytest.approx(1.0, abs=0.1)


def test_dimensions_come_in_the_order_of_their_kl():
    *_, directions = survey(MeasuringBars())
    assert [d.title for d in directions] == ["dimension 2", "dimension 0"]
    assert [round(d.nats, 2) for d in directions] == [3.0, 1.0]


@pytest.mark.parametrize("family", [BarGenerator, MeasuringBars])
def test_directions_are_named_by_what_they_do(family):
    from synthaug.analysis.exploration.appearance import measure_appearance

    space, latents, images, labels, directions = survey(family())
    spreads = {name: float(values.std()) for name, values in measure_appearance(images).items()}
    bases = latents[:12], torch.zeros(12, 5), labels[:12]
    sideways = measure_effects(space, directions[0], *bases, spreads)
    moved = next(effect for effect in sideways.effects if effect.statistic == "horizontal position")
    assert moved in sideways.named and abs(moved.strength) == pytest.approx(1.0, abs=0.25)
    assert abs(moved.consistency) > 0.95 and "horizontal position" in sideways.describe()
    assert "brightness" not in sideways.named[0].statistic


def test_traversal_sets_the_coordinate_and_leaves_the_rest():
    space, latents, _, labels, directions = survey(MeasuringBars())
    images = traverse(space, directions[0], latents[:2], torch.zeros(2, 5), labels[:2], torch.tensor([-1.0, 1.0]))
    centres = space.encode(images.flatten(0, 1), labels[:4])[:, 2].reshape(2, 2)
    assert torch.allclose(centres, directions[0].spread * torch.tensor([[-1.0, 1.0]] * 2), atol=0.05)
