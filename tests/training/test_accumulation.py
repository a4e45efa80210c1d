"""A batch in parts gives the gradient of the batch in one piece."""

from functools import partial

import pytest
import torch
from accelerate import Accelerator

from synthaug.core import BatchRandom
from synthaug.generators import GENERATORS
from synthaug.training.accumulation import Part, backpropagate
from tests.checks import make, toy_batch

ROWS = 32


def gradients(family, pieces, step):
    """Gradient of every objective, each of its module only, the batch cut into `pieces`."""
    generator, accelerator = make(family), Accelerator(cpu=True)
    generator.train()
    images, labels = toy_batch(count=ROWS)
    found, size = {}, ROWS // pieces
    for index, objective in enumerate(generator.objectives()):
        for other in generator.objectives():
            other.module.requires_grad_(other.module is objective.module)
        generator.zero_grad(set_to_none=True)
        parts = [
            Part(
                images[start : start + size],
                labels[start : start + size],
                lambda mean, start=start, index=index: BatchRandom(
                    0, step, start=start, count=size, progress=0.5, stream=index, mean=mean
                ),
            )
            for start in range(0, ROWS, size)
        ]
        terms = backpropagate(objective, objective.module, parts, accelerator)
        found[objective.name] = (
            {n: p.grad.clone() for n, p in objective.module.named_parameters() if p.grad is not None},
            terms,
        )
        others = [
            p.grad for o in generator.objectives() if o.module is not objective.module for p in o.module.parameters()
        ]
        assert all(grad is None for grad in others), "the gradient of one player leaks into the other"
    return found


@pytest.mark.parametrize("step", [8, 9])  # with and without the penalties of the players' game
@pytest.mark.parametrize("family", GENERATORS)
def test_parts_give_the_gradient_of_the_whole(family, step):
    whole = gradients(family, 1, step)
    for pieces in (2, 4):
        parts = gradients(family, pieces, step)
        assert parts.keys() == whole.keys()
        for name, (expected, terms) in whole.items():
            found, _ = parts[name]
            assert found.keys() == expected.keys() and expected
            for key, value in expected.items():
                scale = value.abs().max().clamp_min(1e-6)
                torch.testing.assert_close(found[key] / scale, value / scale, atol=2e-4, rtol=1e-3, msg=f"{name} {key}")
            torch.testing.assert_close(parts[name][1]["loss"], terms["loss"], atol=1e-5, rtol=1e-4)


def test_several_means_of_a_batch_are_those_of_the_whole():
    class Centred(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([2.0]))

    module, seen = Centred(), []

    def loss(module, images, labels, rng):
        first, second = rng.mean(images.mean()), rng.mean((images**2).mean())
        seen.append((float(first), float(second)))
        return {"loss": (module.weight * images).mean() * (1 + first + second)}

    from synthaug.generators import Objective

    images = torch.arange(8.0).reshape(8, 1, 1, 1)
    parts = [Part(images[i : i + 2], torch.zeros(2), partial(_random, i)) for i in range(0, 8, 2)]
    objective = Objective("o", module, loss, learning_rate=0.1)
    backpropagate(objective, module, parts, Accelerator(cpu=True))
    assert seen[-4:] == [(3.5, 17.5)] * 4
    assert float(module.weight.grad) == pytest.approx(3.5 * 22)


def _random(start, mean):
    return BatchRandom(0, 0, start=start, count=2, mean=mean)
