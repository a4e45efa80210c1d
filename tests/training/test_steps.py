"""Steps of a fit: which rows a process sees, and that every objective steps once a batch, alone."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from synthaug.generators import CGAN
from synthaug.training.order import RowOrder
from synthaug.training.steps import Descent, Feed

LABELS = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1], dtype=np.int64)
PIXELS = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(8, 2)
"""Ten rows, each of the tone of its number: what a batch holds can be read off its images."""


def make_feed(processes, number, accumulation, batch_size=8):
    alone = SimpleNamespace(num_processes=processes, process_index=number, device=torch.device("cpu"))
    order = RowOrder(LABELS, seed=3, power=0.5)
    return Feed(PIXELS, LABELS, order=order, batch_size=batch_size, accumulation=accumulation, accelerator=alone)


def rows_of(parts):
    return [round(float(tone)) for images, _ in parts for tone in (images[:, 0, 0, 0] + 1) * 127.5]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_rows_of_a_step_do_not_depend_on_processes_parts_or_the_step_begun_with(processes, accumulation):
    expected = RowOrder(LABELS, seed=3, power=0.5).positions(0, 7 * 8).reshape(7, 8).tolist()  # five epochs and more
    for begun in range(7):  # after a kill a new process begins at any step, also amid an epoch
        feeds = [make_feed(processes, number, accumulation) for number in range(processes)]
        for step in range(begun, 7):
            parts = [part for feed in feeds for part in feed.load_parts(step)]
            assert rows_of(parts) == expected[step]
            assert torch.equal(torch.cat([labels for _, labels in parts]), torch.from_numpy(LABELS[expected[step]]))


def test_the_start_is_the_same_on_every_process():
    images, labels = make_feed(1, 0, 1).load_start()
    for number in range(2):
        other = make_feed(2, number, 2).load_start()
        assert torch.equal(images, other[0]) and torch.equal(labels, other[1])


def test_every_player_steps_once_a_batch_and_leaves_the_other_alone():
    torch.manual_seed(0)
    generator = CGAN(class_names=["a", "b"], image_size=8, channels=1, width=16)
    objectives = list(generator.objectives())
    descent = Descent(objectives, make_feed(1, 0, 4), Accelerator(cpu=True), seed=0, mixed_precision="no")
    descent.prepare()
    changed = []
    for objective in objectives:
        original = objective.loss

        def loss(module, *arguments, own=objective, original=original):
            changed.append(own.name)
            assert all(p.requires_grad == (other is own) for other in objectives for p in other.module.parameters())
            return original(module, *arguments)

        object.__setattr__(objective, "loss", loss)
    for step in range(4):
        descent.take_step(step, progress=0.5)
    assert len(objectives) == 2 and len(changed) >= 2 * 4 * 4  # sixteen parts for each player
    for optimizer in descent.optimizers:
        assert {int(state["step"]) for state in optimizer.state.values()} == {4}
    descent.release()
    assert all(p.requires_grad for objective in objectives for p in objective.module.parameters())
