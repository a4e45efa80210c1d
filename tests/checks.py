"""Conformance checks run over every family in GENERATORS; a new family is tested the moment it exists."""

import numpy as np
import torch

from synthaug.core import BatchRandom, draw_normal
from synthaug.generators import GENERATORS

# tiny constructor arguments, so that each check takes a moment
TINY = {
    "cvae": {"width": 8, "latent_dim": 8},
    "cgan": {},
    "glow": {},
}


def make(family, *, image_size=8, channels=1, classes=3, seed=0):
    torch.manual_seed(seed)
    names = [f"class {i}" for i in range(classes)]
    cls = GENERATORS[family]
    tiny = TINY.get(family) or cls.preset([20] * classes, image_size, channels).constructor
    generator = cls(class_names=names, image_size=image_size, channels=channels, **tiny)
    images, labels = toy_batch(image_size, channels, classes)
    generator.initialize(images, labels)
    return generator


def toy_batch(image_size=8, channels=1, classes=3, count=24):
    """Half-planes whose position tells the class, with a little noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    images = -np.ones((count, channels, image_size, image_size), dtype=np.float32)
    for i, label in enumerate(labels):
        edge = (label + 1) * image_size // (classes + 1)
        images[i, :, :, :edge] = 0.8
    images += 0.05 * rng.standard_normal(images.shape).astype(np.float32)
    return torch.from_numpy(images.clip(-1, 1)), torch.from_numpy(labels)


def rng_for(step=0, count=24, stream=0, progress=0.5):
    return BatchRandom(0, step, start=0, count=count, stream=stream, progress=progress)


def check_sample_shape_and_range(family, image_size, channels):
    generator = make(family, image_size=image_size, channels=channels)
    assert generator.sample(torch.tensor([], dtype=torch.int64)).shape == (0, channels, image_size, image_size)
    images = generator.sample(torch.tensor([0, 1, 2, 1]))
    assert images.shape == (4, channels, image_size, image_size)
    assert images.dtype == torch.float32
    assert images.isfinite().all() and images.min() >= -1 and images.max() <= 1


def check_sampling_is_determined_by_noise(family):
    generator = make(family)
    labels = torch.tensor([0, 2])
    noise = torch.from_numpy(draw_normal(5, 0, 0, 2, generator.noise_shape))
    assert torch.equal(generator.sample(labels, noise=noise), generator.sample(labels, noise=noise))
    by_rng = [generator.sample(labels, rng=torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*by_rng)


def check_parameters_get_their_own_gradients(family):
    generator = make(family)
    images, labels = toy_batch()
    objectives = list(generator.objectives())
    owned = [{id(p) for p in objective.module.parameters()} for objective in objectives]
    assert not set.intersection(*owned) or len(owned) == 1
    for index, objective in enumerate(objectives):
        for other in objectives:
            other.module.requires_grad_(other is objective)
        generator.zero_grad(set_to_none=True)
        reached = {id(p): False for p in generator.parameters()}
        # several steps of several kinds: start values of zero hide some gradients at first
        optimizer = torch.optim.SGD(objective.module.parameters(), lr=1e-2)
        for step in range(4):
            terms = objective.loss(objective.module, images, labels, rng_for(step * 16, stream=index))
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            for p in generator.parameters():
                if p.grad is not None and p.grad.abs().sum() > 0:
                    reached[id(p)] = True
            optimizer.step()
        for name, p in generator.named_parameters():
            if id(p) in owned[index]:
                assert reached[id(p)], f"{family}: {name} gets no gradient from {objective.name}"
            else:
                assert not reached[id(p)], f"{family}: {objective.name} moves {name}, which is not its own"


def check_few_steps_lower_the_loss(family):
    """Each objective in turn lowers its own loss while the others stand still."""
    generator = make(family)
    images, labels = toy_batch()
    objectives = list(generator.objectives())
    for index, objective in enumerate(objectives):
        for other in objectives:
            other.module.requires_grad_(other is objective)
        optimizer = torch.optim.AdamW(objective.module.parameters(), lr=1e-3, betas=objective.betas)
        history = []
        for step in range(48):
            terms = objective.loss(objective.module, images, labels, rng_for(step, stream=index))
            optimizer.zero_grad(set_to_none=True)
            terms["loss"].backward()
            optimizer.step()
            history.append(float(terms["loss"].detach()))
        assert np.isfinite(history).all()
        # windows of 16 steps: penalties may come every few steps only
        assert np.mean(history[-16:]) < np.mean(history[:16]), objective.name
    return generator


def check_label_changes_the_image(family):
    generator = check_few_steps_lower_the_loss(family)
    noise = torch.from_numpy(draw_normal(0, 0, 0, 1, generator.noise_shape))
    noise = noise.repeat(3, *[1] * len(generator.noise_shape))
    images = generator.sample(torch.tensor([0, 1, 2]), noise=noise)
    assert not torch.allclose(images[0], images[1], atol=1e-3)
    assert not torch.allclose(images[1], images[2], atol=1e-3)
