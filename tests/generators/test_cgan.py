import math

import numpy as np
import pytest
import torch
from torch import nn

from synthaug.core import BatchRandom, InputError
from synthaug.generators import CGAN
from synthaug.generators.cgan import _spread
from synthaug.generators.discriminator import Discriminator, gradient_penalty, relativistic_loss

NAMES = ["a", "b", "c"]


def make(image_size=8, channels=1, seed=0, **arguments):
    torch.manual_seed(seed)
    return CGAN(class_names=NAMES, image_size=image_size, channels=channels, **{"width": 16} | arguments)


def toy(count=24, channels=1, size=8):
    """A bright bar whose row tells the class."""
    labels = torch.arange(count) % 3
    images = -torch.ones(count, channels, size, size)
    for row, label in enumerate(labels.tolist()):
        images[row, :, 1 + 2 * label : 3 + 2 * label] = 0.9
    return images, labels


def rng_of(count, step=0, stream=0, progress=0.5):
    return BatchRandom(1, step, start=0, count=count, stream=stream, progress=progress)


def step_objectives(generator, optimizers, images, labels, step):
    terms = {}
    objectives = generator.objectives()
    for index, objective in enumerate(objectives):
        for other in objectives:
            other.module.requires_grad_(other is objective)
        rng = rng_of(len(images), step, index)
        terms[objective.name] = objective.loss(objective.module, images, labels, rng)
        optimizers[index].zero_grad()
        terms[objective.name]["loss"].backward()
        optimizers[index].step()
    return terms


class Linear(nn.Module):
    """Critic ``<a, x>`` in float64, whose gradient is a everywhere."""

    def __init__(self, pixels):
        super().__init__()
        self.a = nn.Parameter(torch.linspace(-1, 1, pixels, dtype=torch.float64))

    def forward(self, images, labels, strength=1.0):
        scores = images.flatten(1).double() @ self.a
        return scores, torch.zeros(len(images), 3, dtype=torch.float64)


class Fixed(nn.Module):
    """Critic that scores real images 1, 2, 3 and fake ones 0, 2, 5, whatever they are."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, images, labels, strength=1.0):
        self.calls += 1
        scores = torch.tensor([1.0, 2.0, 3.0, 0.0, 2.0, 5.0])
        return scores + 0 * images.flatten(1).sum(1), torch.zeros(6, 3)


@pytest.mark.parametrize("size", [8, 12, 28, 33, 64])
@pytest.mark.parametrize(("channels", "patch"), [(1, 1), (2, 2), (3, 2), (4, 1)])
def test_shapes(size, channels, patch):
    generator = make(size, channels, patch=patch)
    images = generator.sample(torch.tensor([0, 2]))
    assert images.shape == (2, channels, size, size)
    scores, terms = generator.discriminator(images, torch.tensor([0, 2]))
    assert scores.shape == (2,) and terms.shape == (2, 3)


def test_relativistic_loss_by_hand():
    better, worse = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 2.0, 5.0])
    by_hand = (math.log(1 + math.exp(-1)) + math.log(2) + math.log(1 + math.exp(2))) / 3
    assert relativistic_loss(better, worse).item() == pytest.approx(by_hand, rel=1e-6)


def test_discriminator_loss_by_hand_in_one_call():
    generator = make(gamma=0.0, gamma_final=0.0, label_weight=0.1)
    images, labels = toy(3)
    critic = Fixed()
    terms = generator.discriminator_loss(critic, images, labels, rng_of(3, step=1))
    by_hand = (math.log(1 + math.exp(-1)) + math.log(2) + math.log(1 + math.exp(2))) / 3 + 0.1 * math.log(3)
    assert critic.calls == 1
    assert terms["loss"].item() == pytest.approx(by_hand, rel=1e-5)
    assert terms["d_real"] == 2.0
    assert terms["accuracy"].item() == pytest.approx(1 / 3)


def test_gradient_penalty_of_a_linear_critic_is_its_squared_norm():
    critic = Linear(64)
    images = torch.randn(5, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    scores, _ = critic(images, None)
    penalty = gradient_penalty(scores, images)
    norm = critic.a.detach().square().sum()
    assert torch.allclose(penalty, norm.float().expand(5))
    penalty.mean().backward()
    assert torch.allclose(critic.a.grad, 2 * critic.a.detach())


def test_penalties_are_scheduled_and_scaled_by_their_interval():
    images, labels = toy(6)
    critic = Linear(64)
    norm = critic.a.detach().square().sum().item()
    losses = {}
    for gamma in (0.0, 3.0):
        generator = make(gamma=gamma, gamma_final=gamma / 3, penalty_every=4)
        for step in (0, 1, 4):
            rng = rng_of(6, step, progress=0.5)
            terms = generator.discriminator_loss(critic, images, labels, rng)
            losses[gamma, step] = terms["loss"].item()
            assert ("r1" in terms) == ("r2" in terms) == (step % 4 == 0)
    # half way gamma is (3 + 1) / 2 = 2, and R1 = R2 = ||a||^2
    for step, expected in ((0, 4 * 0.5 * 2 * 2 * norm), (1, 0.0), (4, 4 * 0.5 * 2 * 2 * norm)):
        assert losses[3.0, step] - losses[0.0, step] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("augment", [0.0, 0.2])
def test_objectives_reach_their_own_parameters_and_no_others(augment):
    images, labels = toy()
    generator = make(translation=augment, affine=augment, cutout=augment, augment_images=0)
    with torch.no_grad():  # the zeros of the start would hide the gradients of what lies behind them
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    objectives = generator.objectives()
    assert [objective.name for objective in objectives] == ["discriminator", "generator"]
    for index, objective in enumerate(objectives):
        for other in objectives:
            other.module.requires_grad_(other is objective)
        generator.zero_grad(set_to_none=True)
        objective.loss(objective.module, images, labels, rng_of(24, 8, index))["loss"].backward()
        own = {id(parameter) for parameter in objective.module.parameters()}
        for name, parameter in generator.named_parameters():
            if id(parameter) in own:
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
            else:
                assert parameter.grad is None, name


def test_augmentation_rises_with_the_images():
    generator = make(translation=0.2, cutout=0.4, augment_images=10)
    strengths = [generator._augmentation_at(images).cutout for images in (0, 5, 10, 99)]
    assert strengths == pytest.approx([0.0, 0.2, 0.4, 0.4])


@pytest.mark.parametrize(
    ("argument", "value"),
    [("label_ramp", 2), ("gamma", -1), ("cutout", 2), ("affine", 5), ("learning_rate", 0), ("learning_rate", "2e-3"),
     ("depth", 0), ("augment_images", -1), ("label_weight", float("nan"))],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(argument, value):
    with pytest.raises(InputError, match=f"^{argument} is {value!r}; give a number"):
        make(**{argument: value})


def test_score_changes_with_the_label_only_by_its_projection():
    torch.manual_seed(0)
    critic = Discriminator(3, 8, channels=1, width=16, depth=1, patch=1)
    images = torch.randn(4, 1, 8, 8)
    first, terms = critic(images, torch.zeros(4, dtype=torch.long))
    second, same = critic(images, torch.full((4,), 2))
    assert torch.allclose(terms, same)
    assert torch.allclose(second - first, terms[:, 2] - terms[:, 0], atol=1e-6)


def test_temperature_zero_gives_one_image_for_each_class():
    generator = make()
    images = generator.sample(torch.tensor([0, 0, 1]), temperature=0.0)
    assert torch.equal(images[0], images[1])
    assert not torch.allclose(images[0], images[2])


def test_a_few_steps_separate_classes_and_keep_samples_apart():
    images, labels = toy(12)
    generator = make()
    optimizers = [torch.optim.AdamW(o.module.parameters(), lr=4e-3, betas=o.betas) for o in generator.objectives()]
    history = [step_objectives(generator, optimizers, images, labels, step) for step in range(80)]
    assert all(torch.isfinite(terms["loss"]) for step in history for terms in step.values())
    means = torch.stack([images[labels == label].mean(0) for label in range(3)])
    asked = torch.arange(3).repeat_interleave(8)
    samples = generator.sample(asked, rng=torch.Generator().manual_seed(0))
    nearest = (samples[:, None] - means).flatten(2).norm(dim=2).argmin(1)
    assert (nearest == asked).float().mean() > 0.9
    late = np.mean([float(step["generator"]["label_accuracy"]) for step in history[-10:]])
    assert late > np.mean([float(step["generator"]["label_accuracy"]) for step in history[:10]])


@pytest.mark.parametrize("arguments", [{"width": 20}, {"width": 0}, {"depth": 0}, {"patch": 0}, {"penalty_every": 0}])
def test_numbers_that_cannot_work_are_refused(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        make(**arguments)


@pytest.mark.parametrize(("image_size", "channels"), [(8, 1), (28, 1), (32, 3), (64, 3), (64, 4)])
@pytest.mark.parametrize("counts", [[4, 6], [20] * 10, [500] * 10, [6000] * 10, [1] + [5000] * 9])
def test_presets_construct(image_size, channels, counts):
    preset = CGAN.preset(counts, image_size, channels)
    names = [str(index) for index in range(len(counts))]
    generator = CGAN(class_names=names, image_size=image_size, channels=channels, **preset.constructor)
    assert sum(parameter.numel() for parameter in generator.parameters()) < 5e6


def test_the_label_ramp_leaves_the_label_out_at_first():
    generator = make(label_ramp=0.4)
    assert [generator._label_strength_at(p) for p in (0.0, 0.2, 0.3, 0.4, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert make()._label_strength_at(0.0) == 1.0
    noise = torch.randn(2, 64)
    network = generator.network
    assert torch.equal(network(noise, torch.tensor([0, 1]), 0.0), network(noise, torch.tensor([2, 2]), 0.0))
    images, _ = toy(2)
    unlabelled = [generator.discriminator(images, torch.tensor(labels), 0.0)[0] for labels in ([0, 1], [2, 2])]
    assert torch.equal(*unlabelled)
    assert not torch.equal(network(noise, torch.tensor([0, 1])), network(noise, torch.tensor([2, 2])))


def test_alarms_name_the_remedy():
    generator = make()
    fine = {"generator.spread": 0.3, "generator.real_spread": 0.35, "discriminator.accuracy": 0.7,
            "generator.label_accuracy": 0.9}  # fmt: skip
    assert generator.diagnose(fine, 0.6) == []
    assert "collapse" in generator.diagnose(fine | {"generator.spread": 0.02}, 0.6)[0]
    assert "generator.gamma" in generator.diagnose(fine | {"discriminator.accuracy": 1.0}, 0.6)[0]
    assert "generator.label_weight" in generator.diagnose(fine | {"generator.label_accuracy": 0.1}, 0.6)[0]
    assert generator.diagnose(fine | {"discriminator.accuracy": 1.0}, 0.01) == []  # the start is always easy


def test_spread_is_that_within_a_class():
    images = torch.tensor([1.0, 3.0, 10.0, 14.0]).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    labels = torch.tensor([0, 0, 1, 1])
    assert _spread(images, labels).item() == pytest.approx(math.sqrt((2 * 1 + 2 * 4) / 2))
    assert _spread(images, torch.tensor([0, 1, 2, 3])).item() == 0.0
