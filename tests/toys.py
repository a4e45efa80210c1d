"""Tiny stand-ins for tests of generation, in a module that worker processes import quickly."""

from __future__ import annotations

import torch
from torch import nn

from synthaug.generators import ConditionalGenerator

NAMES = ["ant", "bee", "cat"]


class ToyGenerator(ConditionalGenerator):
    """Paints noise over a level of grey that tells the class."""

    family = "toy"

    def __init__(self, *, class_names=NAMES, image_size=8, channels=1):
        super().__init__(class_names=class_names, image_size=image_size, channels=channels)
        levels = torch.linspace(-0.6, 0.6, len(class_names)).reshape(-1, 1, 1, 1)
        self.levels = nn.Parameter(levels, requires_grad=False)

    @property
    def noise_shape(self):
        return (self.channels, self.image_size, self.image_size)

    def objectives(self):
        return []

    def decode_noise(self, noise, labels, temperature):
        return torch.tanh(self.levels[labels] + 0.3 * temperature * noise)

    @classmethod
    def preset(cls, class_counts, image_size, channels):
        raise NotImplementedError


class BrokenGenerator(ToyGenerator):
    def decode_noise(self, noise, labels, temperature):
        return super().decode_noise(noise, labels, temperature) * torch.tensor([1.0, 1.0, float("nan")])[labels[0]]


def keep_bright_corners(images, labels):
    """A filter that keeps about half of the draws."""
    return images[:, 0, 0, 0] > images[:, 0, -1, -1]


def keep_none_of_cat(images, labels):
    return (labels != 2) & keep_bright_corners(images, labels)
